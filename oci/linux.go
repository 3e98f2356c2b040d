package oci

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
)

func namespaceTypes() []string {
	return []string{"cgroup", "ipc", "mount", "network", "pid", "time", "user", "uts"}
}

func (c *checker) namespaces() {
	for i, n := range c.linux.Namespaces {
		ptr := fmt.Sprintf("/linux/namespaces/%d", i)
		if !c.oneOf(ptr+"/type", "namespace", string(n.Type), namespaceTypes()) {
			continue
		}
		if slices.ContainsFunc(c.linux.Namespaces[:i], func(o specs.LinuxNamespace) bool { return o.Type == n.Type }) {
			c.fail(ptr+"/type", "%q is there twice: remove one", n.Type)
		}
		if n.Path != "" {
			c.absolute(ptr+"/path", n.Path)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(c.linux.TimeOffsets)) {
		offset := c.linux.TimeOffsets[name]
		ptr := "/linux/timeOffsets/" + escape(name)
		c.oneOf(ptr, "clock", name, []string{"monotonic", "boottime"})
		// The kernel refuses it with EINVAL when the offset is written, long after this (time_namespaces(7)).
		if offset.Nanosecs >= 1e9 {
			c.fail(ptr+"/nanosecs", "%d is a second or more: add that to secs", offset.Nanosecs)
		}
	}
	if len(c.linux.TimeOffsets) > 0 {
		switch n := c.namespace(specs.TimeNamespace); {
		case n == nil:
			c.fail("/linux/timeOffsets", `clocks can be set in a time namespace only: add {"type": "time"} to /linux/namespaces`)
		case n.Path != "":
			c.fail("/linux/timeOffsets", "the clocks of the time namespace at %s are set already: leave the offsets out", n.Path)
		}
	}
	if len(c.linux.NetDevices) > 0 && c.namespace(specs.NetworkNamespace) == nil {
		c.fail("/linux/netDevices", `without an entry {"type": "network"} in /linux/namespaces there is nowhere to move them to`)
	}
	for _, host := range slices.Sorted(maps.Keys(c.linux.NetDevices)) {
		ptr := "/linux/netDevices/" + escape(host)
		c.interfaceName(ptr, host)
		// The kernel puts a number in place of %d, the first that is free: one digit is the least that comes of it.
		if name := c.linux.NetDevices[host].Name; name != "" {
			c.interfaceName(ptr+"/name", strings.ReplaceAll(name, "%d", "0"))
		}
	}
}

// interfaceName checks a name as the kernel does (dev_valid_name).
func (c *checker) interfaceName(ptr, name string) {
	if name == "" || len(name) > 15 || name == "." || name == ".." || strings.ContainsAny(name, "/: \t\n\v\f\r%") {
		c.fail(ptr, "%q is no name of a network device: 1 to 15 bytes without space, / and : are wanted", name)
	}
}

// ids checks the mappings of a user namespace, and that the process's ids are in them.
func (c *checker) ids(p *specs.Process) {
	uid, gid := c.linux.UIDMappings, c.linux.GIDMappings
	c.mappings("/linux/uidMappings", uid)
	c.mappings("/linux/gidMappings", gid)
	user := c.namespace(specs.UserNamespace)
	switch {
	case user == nil && len(uid) > 0:
		c.fail("/linux/uidMappings", `ids are mapped in a user namespace only: add {"type": "user"} to /linux/namespaces`)
		return
	case user == nil && len(gid) > 0:
		c.fail("/linux/gidMappings", `ids are mapped in a user namespace only: add {"type": "user"} to /linux/namespaces`)
		return
	case user == nil:
		return
	case user.Path != "":
		// A warning: callers write the mappings down for tools that read the configuration and not the namespace.
		if len(uid)+len(gid) > 0 {
			c.warn("/linux/uidMappings", "the user namespace at %s has its mappings already, these are ignored", user.Path)
		}
		return
	case len(uid) == 0 && len(gid) == 0:
		c.fail("/linux/uidMappings", "missing: a user namespace of the container's own needs mappings of ids, here and in /linux/gidMappings")
		return
	case len(uid) == 0:
		c.fail("/linux/uidMappings", "missing, and there are gidMappings: a user namespace needs both")
		return
	case len(gid) == 0:
		c.fail("/linux/gidMappings", "missing, and there are uidMappings: a user namespace needs both")
		return
	}
	if p == nil {
		return
	}
	mapped := func(ptr, in string, id uint32, m []specs.LinuxIDMapping) {
		if !slices.ContainsFunc(m, func(m specs.LinuxIDMapping) bool { return id >= m.ContainerID && id-m.ContainerID < m.Size }) {
			c.fail(ptr, "%d is not in %s: nobody has this id in the container", id, in)
		}
	}
	mapped("/process/user/uid", "/linux/uidMappings", p.User.UID, uid)
	mapped("/process/user/gid", "/linux/gidMappings", p.User.GID, gid)
	for i, id := range p.User.AdditionalGids {
		mapped(fmt.Sprintf("/process/user/additionalGids/%d", i), "/linux/gidMappings", id, gid)
	}
}

// mappings checks what the kernel refuses with a bare EINVAL (user_namespaces(7)).
func (c *checker) mappings(ptr string, list []specs.LinuxIDMapping) {
	// Since Linux 4.15, before that 5 (user_namespaces(7)).
	const most = 340
	if len(list) > most {
		c.fail(ptr, "%d ranges, the kernel takes %d: join neighbours", len(list), most)
		return
	}
	overlap := func(a, b, sizeA, sizeB uint32) bool {
		// In 64 bits: a range that ends at the last ID would end at 0 in 32.
		return uint64(a) < uint64(b)+uint64(sizeB) && uint64(b) < uint64(a)+uint64(sizeA)
	}
	for i, m := range list {
		ptr := fmt.Sprintf("%s/%d", ptr, i)
		switch {
		case m.Size == 0:
			c.fail(ptr+"/size", "no ids are mapped: the size must be 1 or more")
		// 4294967295 is (uid_t)-1, which system calls take for "leave it as it is": the kernel maps it for nobody.
		case uint64(m.ContainerID)+uint64(m.Size) > 1<<32-1:
			c.fail(ptr+"/size", "%d ids from containerID %d on are more than there are, the last id is 4294967294", m.Size, m.ContainerID)
		case uint64(m.HostID)+uint64(m.Size) > 1<<32-1:
			c.fail(ptr+"/size", "%d ids from hostID %d on are more than there are, the last id is 4294967294", m.Size, m.HostID)
		}
		for k, o := range list[:i] {
			if overlap(m.ContainerID, o.ContainerID, m.Size, o.Size) {
				c.fail(ptr+"/containerID", "the ids overlap with those of entry %d", k)
			}
			if overlap(m.HostID, o.HostID, m.Size, o.Size) {
				c.fail(ptr+"/hostID", "the ids overlap with those of entry %d", k)
			}
		}
	}
}

func (c *checker) devices() {
	for i, d := range c.linux.Devices {
		ptr := fmt.Sprintf("/linux/devices/%d", i)
		c.absolute(ptr+"/path", d.Path)
		if k := slices.IndexFunc(c.linux.Devices[:i], func(o specs.LinuxDevice) bool { return o.Path == d.Path }); k >= 0 {
			// The same device twice is harmless, and comes of lists that were put together; two for one name is a mistake.
			if o := c.linux.Devices[k]; o.Type != d.Type || o.Major != d.Major || o.Minor != d.Minor {
				c.fail(ptr+"/path", "%s is another device in entry %d: remove one", d.Path, k)
			}
		}
		var format uint32 // the file type that a mode may have (inode(7))
		switch d.Type {
		case "c", "u":
			format = 0o020000
		case "b":
			format = 0o060000
		case "p":
			format = 0o010000
		case "":
			c.fail(ptr+"/type", "missing: c or u (character device), b (block device) or p (pipe) is wanted")
		default:
			c.fail(ptr+"/type", "unknown type %q: there are c and u (character device), b (block device) and p (pipe)", d.Type)
		}
		// A pipe has no numbers, and what is written there for one is not looked at.
		if d.Type != "p" {
			if d.Major < 0 || d.Major >= 1<<12 {
				c.fail(ptr+"/major", "%d is outside of 0 to 4095", d.Major)
			}
			if d.Minor < 0 || d.Minor >= 1<<20 {
				c.fail(ptr+"/minor", "%d is outside of 0 to 1048575", d.Minor)
			}
		}
		if d.FileMode != nil {
			// Engines copy st_mode of the host's device, file type and all; only another file's type is wrong.
			if mode := uint32(*d.FileMode); mode&^0o7777 != 0 && mode&^0o7777 != format {
				c.fail(ptr+"/fileMode", "%d (octal %o) is no mode of such a file: JSON's numbers are decimal, write 0o666 as 438", mode, mode)
			}
		}
	}
}

// kernel checks the settings of the container's view of the kernel.
func (c *checker) kernel() {
	l := c.linux
	for _, key := range slices.Sorted(maps.Keys(l.Sysctl)) {
		ptr := "/linux/sysctl/" + escape(key)
		if key == "" || strings.Contains("/"+strings.ReplaceAll(key, ".", "/")+"/", "//") || strings.ContainsAny(key, " \t\n") {
			c.fail(ptr, "%q is no name of a setting: they look like net.ipv4.ip_forward", key)
		}
	}
	c.cgroupsPath(l.CgroupsPath)
	if l.RootfsPropagation != "" {
		c.oneOf("/linux/rootfsPropagation", "value", l.RootfsPropagation,
			[]string{"private", "rprivate", "rshared", "rslave", "runbindable", "shared", "slave", "unbindable"})
	}
	for i, p := range l.MaskedPaths {
		c.absolute(fmt.Sprintf("/linux/maskedPaths/%d", i), p)
	}
	for i, p := range l.ReadonlyPaths {
		c.absolute(fmt.Sprintf("/linux/readonlyPaths/%d", i), p)
	}
	c.label("/linux/mountLabel", l.MountLabel)
	if r := l.IntelRdt; r != nil {
		// It becomes the name of a directory of the host.
		if r.ClosID == "." || r.ClosID == ".." || strings.ContainsAny(r.ClosID, "\n\r") || len(r.ClosID) > 1 && strings.Contains(r.ClosID, "/") {
			c.fail("/linux/intelRdt/closID", "%q is no name of a directory: a word without / is wanted, or / for the default class", r.ClosID)
		}
		for i, s := range r.Schemata {
			c.line(fmt.Sprintf("/linux/intelRdt/schemata/%d", i), s)
		}
		for _, s := range [...]struct{ field, value, prefix string }{
			{"l3CacheSchema", r.L3CacheSchema, "L3"},
			{"memBwSchema", r.MemBwSchema, "MB:"},
		} {
			ptr := "/linux/intelRdt/" + s.field
			values := []string{s.value}
			if s.prefix == "L3" { // one line for code, another one for data
				values = strings.Split(strings.TrimSuffix(s.value, "\n"), "\n")
			}
			for _, value := range values {
				if c.line(ptr, value) && s.value != "" && !strings.HasPrefix(value, s.prefix) {
					c.fail(ptr, "%q does not begin with %s", value, s.prefix)
				}
			}
		}
	}
	if m := l.MemoryPolicy; m != nil {
		c.memoryPolicy(m)
	}
	if p := l.Personality; p != nil {
		c.oneOf("/linux/personality/domain", "domain", string(p.Domain), []string{string(specs.PerLinux), string(specs.PerLinux32)})
		if len(p.Flags) > 0 {
			c.fail("/linux/personality/flags/0", "unknown flag %q: the specification has none yet, remove it", p.Flags[0])
		}
	}
}

func (c *checker) memoryPolicy(m *specs.LinuxMemoryPolicy) {
	const ptr = "/linux/memoryPolicy"
	if !c.oneOf(ptr+"/mode", "mode", string(m.Mode), memoryModes()) {
		return
	}
	c.list(ptr+"/nodes", "memory nodes", m.Nodes)
	switch m.Mode {
	case specs.MpolDefault, specs.MpolLocal:
		if m.Nodes != "" {
			c.fail(ptr+"/nodes", "%s has no nodes: leave them out", m.Mode)
		}
	case specs.MpolPreferred:
	default:
		if m.Nodes == "" {
			c.fail(ptr+"/nodes", "missing: %s needs at least one node, such as \"0\"", m.Mode)
		}
	}
	for i, f := range m.Flags {
		c.oneOf(fmt.Sprintf("%s/flags/%d", ptr, i), "flag", string(f), memoryFlags())
	}
	if slices.Contains(m.Flags, specs.MpolFRelativeNodes) && slices.Contains(m.Flags, specs.MpolFStaticNodes) {
		c.fail(ptr+"/flags", "%s and %s exclude each other", specs.MpolFRelativeNodes, specs.MpolFStaticNodes)
	}
}

func memoryModes() []string {
	return []string{
		"MPOL_BIND", "MPOL_DEFAULT", "MPOL_INTERLEAVE", "MPOL_LOCAL", "MPOL_PREFERRED", "MPOL_PREFERRED_MANY",
		"MPOL_WEIGHTED_INTERLEAVE",
	}
}

func memoryFlags() []string {
	return []string{"MPOL_F_NUMA_BALANCING", "MPOL_F_RELATIVE_NODES", "MPOL_F_STATIC_NODES"}
}

func (c *checker) cgroupsPath(p string) {
	const ptr = "/linux/cgroupsPath"
	if slices.Contains(strings.Split(p, "/"), "..") {
		c.fail(ptr, "%q has a .. in it, which would lead out of the tree: write where it leads to", p)
	}
	c.line(ptr, p)
}

// list checks a list of numbers and ranges, "0-3,7".
func (c *checker) list(ptr, what, s string) {
	if s == "" {
		return
	}
	for _, part := range strings.Split(strings.TrimSpace(s), ",") {
		// "A comma-separated list, with dashes to represent ranges" (config-linux.md): the kernel's groups (0-31:1/2) are no part of it.
		first, last, isRange := strings.Cut(part, "-")
		a, err := strconv.ParseUint(strings.TrimSpace(first), 10, 16)
		b := a
		if err == nil && isRange {
			b, err = strconv.ParseUint(strings.TrimSpace(last), 10, 16)
		}
		if err != nil || b < a {
			c.fail(ptr, "%q is no list of %s: numbers and ranges are wanted, such as \"0-3,7\"", s, what)
			return
		}
	}
}

func (c *checker) resources() {
	r := c.linux.Resources
	if r == nil {
		return
	}
	const ptr = "/linux/resources"
	for i, d := range r.Devices {
		ptr := fmt.Sprintf("%s/devices/%d", ptr, i)
		if !slices.Contains([]string{"", "a", "b", "c"}, d.Type) {
			c.fail(ptr+"/type", "unknown type %q: there are a (all), b (block) and c (character)", d.Type)
		}
		if strings.Trim(d.Access, "rwm") != "" {
			c.fail(ptr+"/access", "%q: the letters are r (read), w (write) and m (mknod)", d.Access)
		}
		for _, n := range [...]struct {
			field string
			value *int64
			end   int64
		}{{"major", d.Major, 1 << 12}, {"minor", d.Minor, 1 << 20}} {
			if n.value != nil && (*n.value < -1 || *n.value >= n.end) {
				c.fail(ptr+"/"+n.field, "%d is outside of 0 to %d; -1 is every one", *n.value, n.end-1)
			}
		}
	}
	c.memory(ptr+"/memory", r.Memory)
	c.cpu(ptr+"/cpu", r.CPU)
	if r.Pids != nil && r.Pids.Limit != nil {
		c.unlimited(ptr+"/pids/limit", *r.Pids.Limit)
	}
	c.blockIO(ptr+"/blockIO", r.BlockIO)
	for i, h := range r.HugepageLimits {
		ptr := fmt.Sprintf("%s/hugepageLimits/%d/pageSize", ptr, i)
		n := strings.TrimRight(h.Pagesize, "KMGTB")
		unit := h.Pagesize[len(n):]
		if _, err := strconv.ParseUint(n, 10, 32); err != nil || n[0] == '0' || !slices.Contains([]string{"KB", "MB", "GB", "TB"}, unit) {
			c.fail(ptr, "%q is no size of a page: they look like 64KB, 2MB, 1GB", h.Pagesize)
		}
		if slices.ContainsFunc(r.HugepageLimits[:i], func(o specs.LinuxHugepageLimit) bool { return o.Pagesize == h.Pagesize }) {
			c.fail(ptr, "%s is there twice: remove one", h.Pagesize)
		}
	}
	if r.Network != nil {
		for i, p := range r.Network.Priorities {
			c.interfaceName(fmt.Sprintf("%s/network/priorities/%d/name", ptr, i), p.Name)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(r.Rdma)) {
		if l := r.Rdma[name]; l.HcaHandles == nil && l.HcaObjects == nil {
			c.fail(ptr+"/rdma/"+escape(name), "neither hcaHandles nor hcaObjects is given: one of them is wanted")
		}
	}
	for _, file := range slices.Sorted(maps.Keys(r.Unified)) {
		ptr := ptr + "/unified/" + escape(file)
		if controller, parameter, _ := strings.Cut(file, "."); controller == "" || parameter == "" || strings.Contains(file, "/") {
			c.fail(ptr, "%q is no file of a cgroup: they look like memory.high", file)
		}
	}
}

// unlimited checks a limit for which -1 is none.
func (c *checker) unlimited(ptr string, n int64) {
	if n < -1 {
		c.fail(ptr, "%d: -1 is no limit, other negative numbers mean nothing", n)
	}
}

func (c *checker) memory(ptr string, m *specs.LinuxMemory) {
	if m == nil {
		return
	}
	kernel := m.Kernel //lint:ignore SA1019 callers still send it
	for _, l := range [...]struct {
		field string
		value *int64
	}{{"limit", m.Limit}, {"reservation", m.Reservation}, {"swap", m.Swap}, {"kernel", kernel}, {"kernelTCP", m.KernelTCP}} {
		if l.value != nil {
			c.unlimited(ptr+"/"+l.field, *l.value)
		}
	}
	switch {
	case m.Swap == nil || *m.Swap <= 0:
	case m.Limit == nil || *m.Limit <= 0:
		c.fail(ptr+"/swap", "it is a limit of memory and swap together, and there is no limit of memory: set that, too")
	case *m.Swap < *m.Limit:
		c.fail(ptr+"/swap", "%d is less than the limit of memory, %d: it counts memory and swap together", *m.Swap, *m.Limit)
	}
	if h := m.UseHierarchy; h != nil && !*h {
		c.warn(ptr+"/useHierarchy", "false has no effect: since Linux 5.11 what a cgroup uses counts for those above it, too")
	}
	if m.Swappiness != nil && *m.Swappiness > 100 {
		c.fail(ptr+"/swappiness", "%d is outside of 0 (avoid swapping) to 100", *m.Swappiness)
	}
}

func (c *checker) cpu(ptr string, p *specs.LinuxCPU) {
	if p == nil {
		return
	}
	// 0 is absent, as for other runtimes.
	// The kernel's own bounds (MIN_SHARES, MAX_SHARES): v1 would move the value to the next of them without a word.
	if p.Shares != nil && (*p.Shares == 1 || *p.Shares > 262144) {
		c.fail(ptr+"/shares", "%d is outside of 2 to 262144 (1024 is usual)", *p.Shares)
	}
	// A millisecond at least (min_cfs_quota_period), and a period of a second at most (sched-bwc.rst).
	if p.Quota != nil && (*p.Quota < -1 || *p.Quota > 0 && *p.Quota < 1000) {
		c.fail(ptr+"/quota", "%d µs: the kernel takes 1000 and more; -1 is no limit", *p.Quota)
	}
	if p.Period != nil && *p.Period != 0 && (*p.Period < 1000 || *p.Period > 1000000) {
		c.fail(ptr+"/period", "%d µs is outside of 1000 to 1000000", *p.Period)
	}
	if p.Burst != nil && p.Quota != nil && *p.Quota > 0 && *p.Burst > uint64(*p.Quota) {
		c.fail(ptr+"/burst", "%d is more than the quota, %d", *p.Burst, *p.Quota)
	}
	if p.RealtimeRuntime != nil {
		c.unlimited(ptr+"/realtimeRuntime", *p.RealtimeRuntime)
		if p.RealtimePeriod != nil && *p.RealtimePeriod != 0 && *p.RealtimeRuntime > 0 && uint64(*p.RealtimeRuntime) > *p.RealtimePeriod {
			c.fail(ptr+"/realtimeRuntime", "%d µs are more than the period has, %d", *p.RealtimeRuntime, *p.RealtimePeriod)
		}
	}
	if p.Idle != nil && *p.Idle != 0 && *p.Idle != 1 {
		c.fail(ptr+"/idle", "%d: 0 is ordinary, 1 is idle", *p.Idle)
	}
	c.list(ptr+"/cpus", "processors", p.Cpus)
	c.list(ptr+"/mems", "memory nodes", p.Mems)
}

func (c *checker) blockIO(ptr string, b *specs.LinuxBlockIO) {
	if b == nil {
		return
	}
	weight := func(ptr string, w *uint16) {
		if w != nil && *w != 0 && (*w < 10 || *w > 1000) {
			c.fail(ptr, "%d is outside of 10 to 1000", *w)
		}
	}
	weight(ptr+"/weight", b.Weight)
	weight(ptr+"/leafWeight", b.LeafWeight)
	// The kernel's numbers have 12 and 20 bits (MINORBITS): more of them would name another device.
	device := func(ptr string, d specs.LinuxBlockIODevice) {
		if d.Major < 0 || d.Major >= 1<<12 {
			c.fail(ptr+"/major", "%d is outside of 0 to 4095", d.Major)
		}
		if d.Minor < 0 || d.Minor >= 1<<20 {
			c.fail(ptr+"/minor", "%d is outside of 0 to 1048575", d.Minor)
		}
	}
	for i, d := range b.WeightDevice {
		ptr := fmt.Sprintf("%s/weightDevice/%d", ptr, i)
		device(ptr, d.LinuxBlockIODevice)
		weight(ptr+"/weight", d.Weight)
		weight(ptr+"/leafWeight", d.LeafWeight)
		if d.Weight == nil && d.LeafWeight == nil {
			c.fail(ptr, "neither weight nor leafWeight is given: one of them is wanted")
		}
	}
	for _, t := range [...]struct {
		field string
		list  []specs.LinuxThrottleDevice
	}{
		{"throttleReadBpsDevice", b.ThrottleReadBpsDevice},
		{"throttleWriteBpsDevice", b.ThrottleWriteBpsDevice},
		{"throttleReadIOPSDevice", b.ThrottleReadIOPSDevice},
		{"throttleWriteIOPSDevice", b.ThrottleWriteIOPSDevice},
	} {
		for i, d := range t.list {
			device(fmt.Sprintf("%s/%s/%d", ptr, t.field, i), d.LinuxBlockIODevice)
		}
	}
}
