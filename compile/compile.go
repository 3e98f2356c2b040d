// Package compile turns a container's configuration and the facts of a host into a plan.
//
// It is pure: the same input gives the same plan on any machine, with no look at files, clocks or the kernel. That is what
// makes a plan something to print, compare and approve before it runs. What can't be known here (is the source of a bind mount
// a file or a directory, does a masked path exist) is left to steps that say so.
//
// A configuration that asks for what this host can't do is an error that names the field; nothing is dropped silently.
//
// The order of the child's steps is the heart of the package, see [container.child]: the cgroup first, so that limits hold
// from the first instruction; then a private mount namespace, the root, pivot_root, and only then names inside the container;
// privileges go last, in the order that the kernel demands.
//
// Start reading at [Container], then [Exec].
package compile

import (
	"fmt"
	"slices"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"

	"glassbox/cgroup"
	"glassbox/host"
	"glassbox/plan"
	"glassbox/seccomp"
)

// Input is what a plan depends on.
type Input struct {
	Spec  *specs.Spec
	Facts host.Facts
	// Overlay is the root file system made of layers. If nil, Spec.Root.Path is bound instead.
	Overlay *plan.Overlay
	// Mountpoint is an empty directory of the host, on which the root is mounted in the container's own mount namespace.
	// Empty: Spec.Root.Path.
	Mountpoint string
	// Network are the host's steps that wire the child's new network namespace.
	Network []plan.Step
	// SeccompName says what filter Spec.Linux.Seccomp is, for readers.
	SeccompName string
	// Filter is used instead of compiling Spec.Linux.Seccomp, if it is set.
	Filter *plan.Seccomp
	// Origins says where parts of the configuration come from, by JSON pointer; the longest prefix counts. Without an
	// entry the pointer itself is the origin.
	Origins map[string]string
	// MakeCwd makes the working directory where it is missing, as engines do and OCI runtimes don't.
	MakeCwd bool
	// DieWithParent ends the container when the process that runs the plan dies.
	DieWithParent bool
}

// Output is a plan and what else a runtime has to remember.
type Output struct {
	Plan *plan.Plan
	// Cgroups are the container's cgroup directories by controller; "" is the v2 directory.
	Cgroups map[string]string
	// Warnings name parts of the configuration that have no effect and that the specification allows to ignore.
	Warnings []string
}

// container is the state of one compilation.
type container struct {
	Input
	steps    []plan.Step
	warnings []string
	cgroup   cgroup.Setup
	procfs   string // descriptor of the container's procfs, "" before there is one
	ownDev   bool   // /dev is a tmpfs of the container's own
}

// Container compiles the start of a container.
func Container(in Input) (*Output, error) {
	c := &container{Input: in}
	if err := c.check(); err != nil {
		return nil, err
	}
	if err := c.host(); err != nil {
		return nil, err
	}
	if err := c.child(); err != nil {
		return nil, err
	}
	p := &plan.Plan{Version: plan.Version, Arch: in.Facts.Arch, Steps: c.steps}
	if err := p.Validate(); err != nil {
		return nil, err
	}
	return &Output{Plan: p, Cgroups: c.cgroup.Paths, Warnings: c.warnings}, nil
}

// origin finds where the part of the configuration at a JSON pointer comes from.
func (c *container) origin(pointer string) string {
	for p := pointer; ; {
		if o, ok := c.Origins[p]; ok {
			return o
		}
		i := strings.LastIndexByte(p, '/')
		if i < 0 {
			return pointer
		}
		p = p[:i]
	}
}

func (c *container) add(lane plan.Lane, phase plan.Phase, op plan.Op, pointer, reason string) {
	origin := "default"
	if pointer != "" {
		origin = c.origin(pointer)
	}
	c.steps = append(c.steps, plan.Step{Lane: lane, Phase: phase, Op: op, Origin: origin, Reason: reason})
}

func (c *container) check() error {
	s := c.Spec
	switch {
	case s.Process == nil || len(s.Process.Args) == 0:
		return fmt.Errorf("/process/args: there is no command to run")
	case s.Process.Args[0] == "":
		return fmt.Errorf("/process/args/0: the command is empty")
	case s.Linux == nil:
		return fmt.Errorf("/linux: missing")
	case s.Root == nil && c.Overlay == nil:
		return fmt.Errorf("/root: there is no root file system")
	case !strings.HasPrefix(s.Process.Cwd, "/"):
		return fmt.Errorf("/process/cwd: %q is not an absolute path", s.Process.Cwd)
	}
	if !slices.ContainsFunc(s.Linux.Namespaces, func(n specs.LinuxNamespace) bool { return n.Type == specs.MountNamespace && n.Path == "" }) {
		return fmt.Errorf("/linux/namespaces: a container needs a mount namespace of its own")
	}
	return nil
}

// namespaces maps the specification's names to those of plans, in the order of steps.
var nsNames = []struct {
	spec specs.LinuxNamespaceType
	name string
	gain string // what one has by it
}{
	{specs.MountNamespace, "mount", "mounts"},
	{specs.PIDNamespace, "pid", "processes"},
	{specs.UTSNamespace, "uts", "host name"},
	{specs.IPCNamespace, "ipc", "System V IPC and message queues"},
	{specs.NetworkNamespace, "net", "network devices, addresses and ports"},
	{specs.UserNamespace, "user", "user ids"},
	{specs.TimeNamespace, "time", "boot-time clocks"},
	{specs.CgroupNamespace, "cgroup", "view of the cgroup tree"},
}

// ns returns the names of the new namespaces, and those to join with their paths.
func (c *container) ns() (fresh []string, join map[string]string, err error) {
	join = map[string]string{}
	seen := map[specs.LinuxNamespaceType]bool{}
	for i, n := range c.Spec.Linux.Namespaces {
		k := slices.IndexFunc(nsNames, func(e struct {
			spec specs.LinuxNamespaceType
			name string
			gain string
		},
		) bool {
			return e.spec == n.Type
		})
		if k < 0 {
			return nil, nil, fmt.Errorf("/linux/namespaces/%d/type: unknown namespace %q", i, n.Type)
		}
		if seen[n.Type] {
			return nil, nil, fmt.Errorf("/linux/namespaces/%d/type: %q appears twice", i, n.Type)
		}
		seen[n.Type] = true
		if n.Path != "" {
			join[nsNames[k].name] = n.Path
		} else {
			fresh = append(fresh, nsNames[k].name)
		}
	}
	return fresh, join, nil
}

// host writes the parent's steps: cgroup, sources, clone, network.
func (c *container) host() error {
	path := c.Spec.Linux.CgroupsPath
	if path != "" {
		var err error
		c.cgroup, err = cgroup.Steps(c.Facts.Cgroup, path, c.Spec.Linux.Resources, c.origin)
		if err != nil {
			return err
		}
		c.steps = append(c.steps, c.cgroup.Steps...)
	}
	for i, m := range c.Spec.Mounts {
		if !isBind(m) {
			continue
		}
		ptr := fmt.Sprintf("/mounts/%d", i)
		c.add(plan.Host, plan.Sources, &plan.OpenTree{Path: m.Source, Recursive: slices.Contains(m.Options, "rbind"), Save: mountName(i)}, ptr,
			"The source of a bind mount is taken from the host now, while no name can be influenced by the container.")
	}
	for i, n := range c.Spec.Linux.Namespaces {
		if n.Path != "" {
			c.add(plan.Host, plan.Isolation, &plan.Open{Path: n.Path, Save: "ns:" + string(n.Type)}, fmt.Sprintf("/linux/namespaces/%d", i),
				"The namespace exists already; the container will share it.")
		}
	}
	fresh, join, err := c.ns()
	if err != nil {
		return err
	}
	if _, ok := join["pid"]; ok {
		c.add(plan.Host, plan.Isolation, &plan.Setns{From: "ns:pid", Namespaces: []string{"pid"}}, "/linux/namespaces",
			"Only children enter a PID namespace: the thread that clones joins it.")
	}
	var gains []string
	for _, n := range nsNames {
		if slices.Contains(fresh, n.name) && !late(n.name) {
			gains = append(gains, n.gain)
		}
	}
	flags := slices.DeleteFunc(slices.Clone(fresh), late)
	reason := "The container is this one process. It gets its own " + enumerate(gains) + "."
	if c.cgroup.CloneInto != "" {
		reason += " It is born in its cgroup, so there is no moment without limits."
	}
	c.add(plan.Host, plan.Isolation, &plan.Clone{Namespaces: flags, Cgroup: c.cgroup.CloneInto}, "/linux/namespaces", reason)
	c.steps = append(c.steps, c.Network...)
	if len(c.Network) > 0 {
		c.add(plan.Host, plan.Network, &plan.Release{Name: "network"}, "", "The network is ready; the program may start.")
	}
	if c.Spec.Process.Terminal {
		c.add(plan.Host, plan.Terminal, &plan.RecvFD{Save: "console"}, "/process/terminal", "The supervisor holds the other end of the terminal.")
	}
	if slices.Contains(fresh, "user") {
		uid, gid := c.Spec.Linux.UIDMappings, c.Spec.Linux.GIDMappings
		c.add(plan.Host, plan.Privileges, &plan.Expect{Name: "user namespace"}, "/linux/namespaces", "Ids can be mapped when there is a user namespace.")
		c.add(plan.Host, plan.Privileges, &plan.IDMap{UID: idRanges(uid), GID: idRanges(gid)}, "/linux/uidMappings",
			"Which users of the host the users in the container are. Without a mapping every id stands for itself.")
		c.add(plan.Host, plan.Privileges, &plan.Release{Name: "ids"}, "/linux/uidMappings", "The child has ids now and may take them on.")
	}
	return nil
}

// late says which namespaces the child leaves for itself: the cgroup namespace, once it is in its cgroup, and the user
// namespace, once everything is mounted. The other namespaces then belong to the host's user namespace: the container's root,
// whatever capabilities it has, has none over its mounts, network and host name.
func late(ns string) bool { return ns == "cgroup" || ns == "user" }

// idRanges takes over mappings; none is the identity.
func idRanges(mappings []specs.LinuxIDMapping) []plan.IDRange {
	if len(mappings) == 0 {
		return []plan.IDRange{{Size: ^uint32(0)}}
	}
	out := make([]plan.IDRange, len(mappings))
	for i, m := range mappings {
		out[i] = plan.IDRange{Container: m.ContainerID, Host: m.HostID, Size: m.Size}
	}
	return out
}

func enumerate(words []string) string {
	switch len(words) {
	case 0:
		return "nothing"
	case 1:
		return words[0]
	}
	return strings.Join(words[:len(words)-1], ", ") + " and " + words[len(words)-1]
}

// child writes the steps of the cloned process.
func (c *container) child() error {
	s := c.Spec
	for _, name := range c.cgroup.Join {
		c.add(plan.Child, plan.Limits, &plan.CgroupJoin{From: name}, "/linux/cgroupsPath",
			"The child enters its cgroups before anything else: there is no moment without limits.")
	}
	c.add(plan.Child, plan.Isolation, &plan.Dumpable{Value: 0}, "",
		"Until it becomes the program, this process is a copy of glassbox: nobody in the container may look into it or at its executable (CVE-2019-5736).")
	fresh, join, err := c.ns()
	if err != nil {
		return err
	}
	for _, n := range nsNames {
		if _, ok := join[n.name]; ok && n.name != "pid" {
			c.add(plan.Child, plan.Isolation, &plan.Setns{From: "ns:" + string(n.spec), Namespaces: []string{n.name}}, "/linux/namespaces",
				"The container shares this namespace: its "+n.gain+".")
		}
	}
	if slices.Contains(fresh, "cgroup") {
		c.add(plan.Child, plan.Isolation, &plan.Unshare{Namespaces: []string{"cgroup"}}, "/linux/namespaces",
			"From inside, the container's own cgroup is the root of the tree.")
	}
	c.add(plan.Child, plan.Rootfs, &plan.Umask{Mask: 0}, "", "Modes of directories and devices below are meant exactly.")

	if err := c.rootfs(); err != nil {
		return err
	}
	if err := c.mounts(); err != nil {
		return err
	}
	if err := c.devices(); err != nil {
		return err
	}
	// Sysctls go before /proc/sys is covered by its read-only clone. Those of a link wait until there is one.
	awaited := false
	await := func() {
		if len(c.Network) > 0 && !awaited {
			awaited = true
			c.add(plan.Child, plan.Network, &plan.Await{Name: "network"}, "", "The parent wires the network at the same time; the program must find it ready.")
		}
	}
	for key := range s.Linux.Sysctl {
		if strings.Contains(strings.ReplaceAll(key, ".", "/"), "/eth0/") {
			await()
		}
	}
	if err := c.sysctls(fresh); err != nil {
		return err
	}
	if err := c.paths(); err != nil {
		return err
	}
	if c.MakeCwd && s.Process.Cwd != "/" {
		c.add(plan.Child, plan.Rootfs, &plan.Mkdir{Path: s.Process.Cwd, Mode: 0o755}, "/process/cwd", "The working directory is made if the image lacks it.")
	}
	if s.Hostname != "" {
		if !slices.Contains(fresh, "uts") {
			return fmt.Errorf("/hostname: setting it needs a UTS namespace of the container's own")
		}
		c.add(plan.Child, plan.Kernel, &plan.Sethostname{Name: s.Hostname}, "/hostname", "The name is set in the container's UTS namespace; the host's stays.")
	}
	if s.Domainname != "" {
		if !slices.Contains(fresh, "uts") {
			return fmt.Errorf("/domainname: setting it needs a UTS namespace of the container's own")
		}
		c.add(plan.Child, plan.Kernel, &plan.Setdomainname{Name: s.Domainname}, "/domainname", "The NIS domain name, in the container's UTS namespace.")
	}
	if s.Process.OOMScoreAdj != nil {
		if err := c.needProc("/process/oomScoreAdj"); err != nil {
			return err
		}
		c.add(plan.Child, plan.Kernel, &plan.WriteProc{From: c.procfs, File: "oom_score_adj", Value: fmt.Sprint(*s.Process.OOMScoreAdj)}, "/process/oomScoreAdj",
			"How readily the kernel kills this process when memory runs out.")
	}
	if s.Root != nil && s.Root.Readonly {
		c.add(plan.Child, plan.Rootfs, &plan.Remount{Target: "/", Set: []string{"ro"}}, "/root/readonly", "Nothing below the root can be changed, but for the mounts on it.")
	}
	await()
	return c.process(s.Process, "/process")
}

func (c *container) rootfs() error {
	s := c.Spec
	prop := s.Linux.RootfsPropagation
	flags := []string{"rec", "private"}
	switch prop {
	case "", "private", "rprivate":
	case "slave", "rslave":
		flags[1] = "slave"
	case "shared", "rshared":
		flags[1] = "shared"
	case "unbindable", "runbindable":
		flags[1] = "private"
	default:
		return fmt.Errorf("/linux/rootfsPropagation: unknown value %q", prop)
	}
	c.add(plan.Child, plan.Rootfs, &plan.Mount{Target: "/", Flags: flags}, "/linux/rootfsPropagation",
		"Mounts made from here on stay in the container's mount namespace.")
	target := c.Mountpoint
	if c.Overlay != nil {
		c.add(plan.Child, plan.Rootfs, c.Overlay, "/root", "The image's layers are stacked; writes go to the container's own upper directory, the image stays as it is.")
	} else {
		if target == "" {
			target = s.Root.Path
		}
		c.add(plan.Child, plan.Rootfs, &plan.Mount{Source: s.Root.Path, Target: target, Flags: []string{"bind", "rec"}}, "/root/path",
			"pivot_root wants a mount: the directory is bound to itself or to an empty directory.")
	}
	c.add(plan.Child, plan.Rootfs, &plan.PivotRoot{Root: target}, "/root",
		"The new root replaces the old one, which is detached: unlike after chroot, no way leads back.")
	return nil
}

func mountName(i int) string { return fmt.Sprintf("mount:%d", i) }

func isBind(m specs.Mount) bool {
	return m.Type == "bind" || slices.Contains(m.Options, "bind") || slices.Contains(m.Options, "rbind")
}

// mountOptions is a mount's option list, sorted by what takes it.
type mountOptions struct {
	set, clear   []string // attributes of the mount
	recSet       []string // attributes of the mount and those below it
	recClear     []string
	data         []string // for the file system
	propagation  string
	recursivePro bool
}

func parseOptions(options []string) mountOptions {
	var o mountOptions
	attrs := []string{"ro", "nosuid", "nodev", "noexec", "noatime", "nodiratime", "relatime", "strictatime", "nosymfollow"}
	opposite := map[string]string{
		"rw": "ro", "suid": "nosuid", "dev": "nodev", "exec": "noexec", "atime": "noatime", "diratime": "nodiratime",
		"norelatime": "relatime", "nostrictatime": "strictatime", "symfollow": "nosymfollow",
	}
	for _, opt := range options {
		plain, rec := strings.CutPrefix(opt, "r")
		switch {
		case opt == "bind" || opt == "rbind" || opt == "defaults" || opt == "":
		case slices.Contains(attrs, opt):
			o.set = append(o.set, opt)
			o.clear = slices.DeleteFunc(o.clear, func(s string) bool { return s == opt })
		case opposite[opt] != "":
			o.clear = append(o.clear, opposite[opt])
			o.set = slices.DeleteFunc(o.set, func(s string) bool { return s == opposite[opt] })
		case opt == "private" || opt == "slave" || opt == "shared" || opt == "unbindable":
			o.propagation = opt
		case opt == "rprivate" || opt == "rslave" || opt == "rshared" || opt == "runbindable":
			o.propagation, o.recursivePro = plain, true
		case rec && slices.Contains(attrs, plain):
			o.recSet = append(o.recSet, plain)
		case rec && opposite[plain] != "":
			o.recClear = append(o.recClear, opposite[plain])
		default:
			o.data = append(o.data, opt)
		}
	}
	return o
}

func (c *container) mounts() error {
	for i, m := range c.Spec.Mounts {
		ptr := fmt.Sprintf("/mounts/%d", i)
		if !strings.HasPrefix(m.Destination, "/") {
			return fmt.Errorf("%s/destination: %q is not an absolute path", ptr, m.Destination)
		}
		dest := strings.TrimRight(m.Destination, "/")
		if dest == "" {
			return fmt.Errorf("%s/destination: the root itself can't be a mount's target", ptr)
		}
		if err := c.refuseProc(dest, m, ptr); err != nil {
			return err
		}
		o := parseOptions(m.Options)
		switch {
		case isBind(m):
			if len(o.data) > 0 {
				return fmt.Errorf("%s/options: %q means nothing for a bind mount", ptr, o.data[0])
			}
			if dest == "/dev" {
				c.ownDev = false
			}
			mm := &plan.MoveMount{From: mountName(i), Target: dest, Create: "like", Set: o.set, Clear: o.clear, Propagation: o.propagation}
			if len(o.recSet)+len(o.recClear) > 0 {
				mm.Set, mm.Clear, mm.Recursive = append(o.set, o.recSet...), append(o.clear, o.recClear...), true
			}
			if mm.Propagation == "" {
				mm.Propagation = "private"
			}
			reason := fmt.Sprintf("The host's %s is seen at %s.", m.Source, dest)
			if slices.Contains(mm.Set, "ro") {
				reason = fmt.Sprintf("The host's %s is seen at %s, where it can only be read.", m.Source, dest)
			}
			c.add(plan.Child, plan.Mounts, mm, ptr, reason)
		case m.Type == "cgroup" || m.Type == "cgroup2":
			c.cgroupMount(dest, o, ptr)
		default:
			fm := &plan.FSMount{Type: m.Type, Source: m.Source, Options: o.data, Attrs: append(o.set, o.recSet...), Target: dest}
			switch {
			case m.Type == "":
				return fmt.Errorf("%s/type: missing", ptr)
			case m.Type == "proc" && dest == "/proc":
				fm.Save = "proc"
				c.procfs = "proc"
			case dest == "/dev":
				c.ownDev = m.Type == "tmpfs"
			}
			if m.Type == "mqueue" {
				fm.Optional = true
			}
			c.add(plan.Child, plan.Mounts, fm, ptr, mountReason(m.Type, dest))
			if o.propagation != "" && o.propagation != "private" {
				c.add(plan.Child, plan.Mounts, &plan.Remount{Target: dest, Propagation: o.propagation, Recursive: o.recursivePro}, ptr, "How mounts below this one are shared.")
			}
		}
	}
	return nil
}

// refuseProc keeps mounts out of /proc: a fake file there would be taken for the kernel's by the container's own programs
// and, in other engines, by the engine (CVE-2019-16884). The files that lxcfs offers are the exception that runc makes, too.
func (c *container) refuseProc(dest string, m specs.Mount, ptr string) error {
	inside, ok := strings.CutPrefix(dest, "/proc/")
	if dest == "/proc" && m.Type == "proc" {
		return nil
	}
	if dest == "/proc" && isBind(m) && (m.Source == "/proc" || m.Source == "/proc/") {
		return nil // the host's procfs, as debugging tools want
	}
	if !ok && dest != "/proc" {
		return nil
	}
	if ok && slices.Contains([]string{"cpuinfo", "diskstats", "meminfo", "stat", "swaps", "uptime", "loadavg", "slabinfo", "net/dev", "sys/kernel/ns_last_pid", "sys/crypto/fips_enabled"}, inside) {
		return nil
	}
	return fmt.Errorf("%s/destination: %s: mounts over /proc are refused, because what reads the kernel's files there would be deceived", ptr, dest)
}

func mountReason(kind, dest string) string {
	switch kind {
	case "proc":
		return "Process information of the container's own PID namespace."
	case "sysfs":
		return "The kernel's view of devices, and the network devices of the container's own namespace."
	case "devpts":
		return "Terminals of the container's own."
	case "mqueue":
		return "POSIX message queues of the container's own IPC namespace."
	case "tmpfs":
		switch dest {
		case "/dev":
			return "An empty directory in memory: the devices in it are those that this plan makes."
		case "/dev/shm":
			return "POSIX shared memory, limited in size."
		}
		return "A directory in memory, gone with the container."
	}
	return "A new " + kind + " file system."
}

// cgroupMount shows the container its own cgroups: one mount on v2; on v1 a tmpfs with one mount per hierarchy.
func (c *container) cgroupMount(dest string, o mountOptions, ptr string) {
	f := c.Facts.Cgroup
	attrs := append(append([]string{}, o.set...), o.recSet...)
	switch f.Mode {
	case host.CgroupV2:
		c.add(plan.Child, plan.Mounts, &plan.FSMount{Type: "cgroup2", Source: "cgroup", Attrs: attrs, Target: dest}, ptr,
			"The container sees its own limits and use; its cgroup namespace hides the rest of the tree.")
	case host.CgroupV1, host.CgroupHybrid:
		rw := slices.DeleteFunc(slices.Clone(attrs), func(a string) bool { return a == "ro" })
		c.add(plan.Child, plan.Mounts, &plan.FSMount{Type: "tmpfs", Source: "tmpfs", Options: []string{"mode=755"}, Attrs: rw, Target: dest}, ptr,
			"With cgroup v1 each controller has a mount of its own; this directory holds them.")
		for _, h := range f.Hierarchies {
			if h.V2 || len(h.Controllers) == 0 {
				continue
			}
			name := h.Mount[strings.LastIndexByte(h.Mount, '/')+1:]
			var options []string
			for _, ctl := range h.Controllers {
				if strings.HasPrefix(ctl, "name=") {
					options = append(options, "none", ctl)
				} else {
					options = append(options, ctl)
				}
			}
			c.add(plan.Child, plan.Mounts, &plan.FSMount{Type: "cgroup", Source: "cgroup", Options: options, Attrs: attrs, Target: dest + "/" + name}, ptr,
				"The container sees its own limits and use of "+strings.Join(h.Controllers, " and ")+".")
			for _, ctl := range h.Controllers {
				if ctl != name && !strings.HasPrefix(ctl, "name=") {
					c.add(plan.Child, plan.Mounts, &plan.Symlink{Target: name, Path: dest + "/" + ctl}, ptr, "Programs look for the controller under its own name, too.")
				}
			}
		}
		if slices.Contains(attrs, "ro") {
			c.add(plan.Child, plan.Mounts, &plan.Remount{Target: dest, Set: []string{"ro"}}, ptr, "A container must not change its own limits.")
		}
	}
}

// defaultDevices are those that every container has (runtime-spec, config-linux.md, default devices).
var defaultDevices = []struct {
	path         string
	major, minor uint32
	reason       string
}{
	{"/dev/null", 1, 3, "What is written here disappears."},
	{"/dev/zero", 1, 5, "An endless run of zero bytes."},
	{"/dev/full", 1, 7, "A device that is always full."},
	{"/dev/random", 1, 8, "Random bytes from the kernel."},
	{"/dev/urandom", 1, 9, "Random bytes from the kernel."},
	{"/dev/tty", 5, 0, "The controlling terminal of whoever opens it."},
}

func (c *container) devices() error {
	term := c.Spec.Process.Terminal
	if c.ownDev {
		given := map[string]bool{}
		for _, d := range c.Spec.Linux.Devices {
			given[d.Path] = true
		}
		for _, d := range defaultDevices {
			if given[d.path] {
				continue
			}
			n := &plan.Mknod{Path: d.path, Type: "c", Major: d.major, Minor: d.minor, Mode: 0o666}
			if d.path == "/dev/null" {
				n.Save = "null"
			}
			c.add(plan.Child, plan.Devices, n, "", d.reason)
		}
	}
	for i, d := range c.Spec.Linux.Devices {
		ptr := fmt.Sprintf("/linux/devices/%d", i)
		if !strings.HasPrefix(d.Path, "/") {
			return fmt.Errorf("%s/path: %q is not an absolute path", ptr, d.Path)
		}
		if !slices.Contains([]string{"c", "u", "b", "p"}, d.Type) {
			return fmt.Errorf("%s/type: unknown kind of device %q", ptr, d.Type)
		}
		n := &plan.Mknod{Path: d.Path, Type: d.Type, Major: uint32(d.Major), Minor: uint32(d.Minor), Mode: 0o666}
		if d.FileMode != nil {
			n.Mode = uint32(d.FileMode.Perm())
		}
		if d.UID != nil {
			n.UID = *d.UID
		}
		if d.GID != nil {
			n.GID = *d.GID
		}
		if d.Path == "/dev/null" && d.Type == "c" && d.Major == 1 && d.Minor == 3 {
			n.Save = "null"
		}
		c.add(plan.Child, plan.Devices, n, ptr, "A device of the host that the container may use.")
	}
	if c.ownDev {
		for _, l := range [][2]string{{"/proc/self/fd", "/dev/fd"}, {"/proc/self/fd/0", "/dev/stdin"}, {"/proc/self/fd/1", "/dev/stdout"}, {"/proc/self/fd/2", "/dev/stderr"}} {
			c.add(plan.Child, plan.Devices, &plan.Symlink{Target: l[0], Path: l[1]}, "", "Programs expect this name.")
		}
		c.add(plan.Child, plan.Devices, &plan.Symlink{Target: "pts/ptmx", Path: "/dev/ptmx"}, "", "New terminals come from the container's own /dev/pts.")
	}
	if term {
		o := &plan.OpenConsole{Master: "master", Slave: "terminal", UID: c.Spec.Process.User.UID}
		if b := c.Spec.Process.ConsoleSize; b != nil {
			o.Rows, o.Cols = uint16(b.Height), uint16(b.Width)
		}
		c.add(plan.Child, plan.Terminal, o, "/process/terminal", "A terminal whose keyboard and screen are the supervisor.")
		c.add(plan.Child, plan.Terminal, &plan.SendFD{From: "master"}, "/process/terminal", "The supervisor gets the end that stands for keyboard and screen.")
		if c.ownDev {
			c.add(plan.Child, plan.Terminal, &plan.BindConsole{From: "terminal"}, "/process/terminal", "The console of the container is its terminal.")
		}
	}
	return nil
}

// null makes sure that there is a descriptor of a real null device for masking.
func (c *container) null() string {
	for _, s := range c.steps {
		if n, ok := s.Op.(*plan.Mknod); ok && n.Save == "null" && s.Lane == plan.Child {
			return "null"
		}
	}
	return ""
}

func (c *container) paths() error {
	null := c.null()
	for i, p := range c.Spec.Linux.MaskedPaths {
		ptr := fmt.Sprintf("/linux/maskedPaths/%d", i)
		if null == "" {
			return fmt.Errorf("%s: masking needs a /dev of the container's own (a tmpfs)", ptr)
		}
		c.add(plan.Child, plan.Mounts, &plan.MaskPath{Path: p, Null: null}, ptr, "It tells about the host, or lets it be changed.")
	}
	for i, p := range c.Spec.Linux.ReadonlyPaths {
		c.add(plan.Child, plan.Mounts, &plan.ReadonlyPath{Path: p}, fmt.Sprintf("/linux/readonlyPaths/%d", i), "It holds settings of the whole host.")
	}
	return nil
}

func (c *container) needProc(ptr string) error {
	if c.procfs != "" {
		return nil
	}
	c.add(plan.Child, plan.Kernel, &plan.FSMount{Type: "proc", Source: "proc", Attrs: []string{"nosuid", "nodev", "noexec"}, Save: "proc"}, ptr,
		"A private procfs: no name in the container can stand in for it.")
	c.procfs = "proc"
	return nil
}

// sysctls are checked for being namespaced: one that isn't would change the host.
func (c *container) sysctls(fresh []string) error {
	keys := make([]string, 0, len(c.Spec.Linux.Sysctl))
	for k := range c.Spec.Linux.Sysctl {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	for _, k := range keys {
		ptr := "/linux/sysctl/" + strings.ReplaceAll(strings.ReplaceAll(k, "~", "~0"), "/", "~1")
		key := k
		if !strings.Contains(k, "/") {
			key = strings.ReplaceAll(k, ".", "/")
		}
		var need string
		switch {
		case strings.Contains(key, "..") || strings.HasPrefix(key, "/") || key == "":
			return fmt.Errorf("%s: not the name of a sysctl", ptr)
		case strings.HasPrefix(key, "net/"):
			need = "net"
		case strings.HasPrefix(key, "fs/mqueue/"), slices.Contains([]string{"kernel/msgmax", "kernel/msgmnb", "kernel/msgmni", "kernel/sem", "kernel/shmall", "kernel/shmmax", "kernel/shmmni", "kernel/shm_rmid_forced"}, key):
			need = "ipc"
		case key == "kernel/domainname":
			need = "uts"
		case key == "kernel/hostname":
			return fmt.Errorf("%s: use the hostname setting", ptr)
		default:
			return fmt.Errorf("%s: sysctl %q is not separate for each container: setting it would change the host", ptr, k)
		}
		if !slices.Contains(fresh, need) {
			return fmt.Errorf("%s: sysctl %q needs a %s namespace of the container's own: it would change the host", ptr, k, need)
		}
		if err := c.needProc(ptr); err != nil {
			return err
		}
		c.add(plan.Child, plan.Kernel, &plan.Sysctl{From: c.procfs, Key: key, Value: c.Spec.Linux.Sysctl[k]}, ptr, "A kernel setting of the container's own namespaces.")
	}
	return nil
}

// process writes the steps that make the child the program: stdio, limits, privileges, execve. Run and exec share it.
func (c *container) process(p *specs.Process, ptr string) error {
	for i, r := range p.Rlimits {
		c.add(plan.Child, plan.Kernel, &plan.Rlimit{Type: r.Type, Soft: r.Soft, Hard: r.Hard}, fmt.Sprintf("%s/rlimits/%d", ptr, i), "A limit of the process and its children.")
	}
	if !slices.ContainsFunc(p.Rlimits, func(r specs.POSIXRlimit) bool { return r.Type == "RLIMIT_NOFILE" }) && c.Facts.NoFile[1] != 0 {
		c.add(plan.Child, plan.Kernel, &plan.Rlimit{Type: "RLIMIT_NOFILE", Soft: c.Facts.NoFile[0], Hard: c.Facts.NoFile[1]}, "",
			"The Go runtime raised the limit on open files for itself; the container gets what glassbox was started with.")
	}
	c.add(plan.Child, plan.Kernel, &plan.Keyring{Name: "_glassbox"}, "", "Keys of the session that started glassbox stay out of reach.")
	if p.Terminal {
		for fd := range 3 {
			c.add(plan.Child, plan.Terminal, &plan.Stdio{From: "terminal", To: fd}, ptr+"/terminal", stdioReason[fd])
		}
		c.add(plan.Child, plan.Terminal, &plan.Setsid{Controlling: true}, ptr+"/terminal", "A session with this terminal: Ctrl-C reaches the container's processes.")
	} else {
		for fd, name := range []string{"stdin", "stdout", "stderr"} {
			c.add(plan.Child, plan.Terminal, &plan.Stdio{From: name, To: fd}, "", stdioReason[fd])
		}
		c.add(plan.Child, plan.Terminal, &plan.Setsid{}, "", "Signals from the terminal of whoever started it reach the container through its supervisor only.")
	}
	if p.ApparmorProfile != "" && p.ApparmorProfile != "unconfined" {
		if !slices.Contains(c.Facts.LSM, "apparmor") {
			return fmt.Errorf("%s/apparmorProfile: %q: AppArmor is not active on this host", ptr, p.ApparmorProfile)
		}
		if err := c.needProc(ptr + "/apparmorProfile"); err != nil {
			return err
		}
		c.add(plan.Child, plan.Privileges, &plan.WriteProc{From: c.procfs, File: "attr/apparmor/exec", Value: "exec " + p.ApparmorProfile}, ptr+"/apparmorProfile",
			"The program runs under this AppArmor profile.")
	}
	if p.SelinuxLabel != "" {
		return fmt.Errorf("%s/selinuxLabel: SELinux labels are not supported", ptr)
	}
	if slices.ContainsFunc(c.Spec.Linux.Namespaces, func(n specs.LinuxNamespace) bool { return n.Type == specs.UserNamespace && n.Path == "" }) {
		c.add(plan.Child, plan.Privileges, &plan.Unshare{Namespaces: []string{"user"}}, "/linux/namespaces",
			"From here on capabilities count in the container's own user namespace only.")
		c.add(plan.Child, plan.Privileges, &plan.Notify{Name: "user namespace"}, "/linux/namespaces", "Only the parent has the right to map ids of the host.")
		c.add(plan.Child, plan.Privileges, &plan.Await{Name: "ids"}, "/linux/namespaces", "Without mapped ids this process is nobody.")
	}
	filter, err := c.filter()
	if err != nil {
		return err
	}
	const filterReason = "System calls that ordinary programs don't need are refused."
	if filter != nil && !p.NoNewPrivileges {
		c.add(plan.Child, plan.Privileges, filter, "/linux/seccomp", filterReason+" It is installed now because it takes a privilege that is dropped next.")
	}
	if err := c.privileges(p, ptr); err != nil {
		return err
	}
	if c.DieWithParent {
		c.add(plan.Child, plan.Exec, &plan.ParentDeath{Signal: 9}, "", "A container without its supervisor would run unseen.")
	}
	c.add(plan.Child, plan.Exec, &plan.CloseRange{First: 3}, "", "No descriptor of the host leaks into the container (CVE-2024-21626).")
	umask := uint32(0o022)
	if p.User.Umask != nil {
		umask = *p.User.Umask
	}
	c.add(plan.Child, plan.Exec, &plan.Umask{Mask: umask}, ptr+"/user/umask", "New files aren't writable for everyone.")
	c.add(plan.Child, plan.Exec, &plan.Chdir{Path: p.Cwd}, ptr+"/cwd", "The program's working directory.")
	if p.NoNewPrivileges {
		c.add(plan.Child, plan.Privileges, &plan.NoNewPrivs{}, ptr+"/noNewPrivileges", "Programs with the setuid bit stay unprivileged.")
		if filter != nil {
			c.add(plan.Child, plan.Privileges, filter, "/linux/seccomp", filterReason)
		}
	}
	c.add(plan.Child, plan.Exec, &plan.Execve{Candidates: candidates(p), Argv: p.Args, Env: p.Env}, ptr+"/args", "The child becomes the program.")
	return nil
}

var stdioReason = [3]string{"Standard input.", "Standard output.", "Standard error."}

// filter compiles the seccomp profile.
func (c *container) filter() (*plan.Seccomp, error) {
	if c.Filter != nil {
		return c.Filter, nil
	}
	s := c.Spec.Linux.Seccomp
	if s == nil {
		return nil, nil
	}
	if !c.Facts.Seccomp {
		return nil, fmt.Errorf("/linux/seccomp: this kernel has no seccomp filters; --security-opt seccomp=unconfined goes without")
	}
	f, err := seccomp.Compile(s, c.Facts.Arch)
	if err != nil {
		return nil, fmt.Errorf("/linux/seccomp: %w", err)
	}
	for _, name := range f.Unknown {
		c.warnings = append(c.warnings, fmt.Sprintf("/linux/seccomp: unknown system call %q", name))
	}
	name := c.SeccompName
	if name == "" {
		name = "of the configuration"
	}
	return &plan.Seccomp{Name: name, Flags: f.Flags, Program: f.Bytes()}, nil
}

func (c *container) privileges(p *specs.Process, ptr string) error {
	caps := p.Capabilities
	if caps == nil {
		caps = &specs.LinuxCapabilities{}
	}
	known := func(field string, names []string) ([]string, error) {
		var out []string
		for i, n := range names {
			num := plan.CapNumber(strings.ToUpper(n))
			if num < 0 || num > c.Facts.LastCap {
				c.warnings = append(c.warnings, fmt.Sprintf("%s/capabilities/%s/%d: unknown capability %q", ptr, field, i, n))
				continue
			}
			out = append(out, strings.ToUpper(n))
		}
		slices.SortFunc(out, func(a, b string) int { return plan.CapNumber(a) - plan.CapNumber(b) })
		return slices.Compact(out), nil
	}
	sets := map[string][]string{}
	for field, names := range map[string][]string{
		"bounding": caps.Bounding, "effective": caps.Effective, "permitted": caps.Permitted, "inheritable": caps.Inheritable, "ambient": caps.Ambient,
	} {
		var err error
		if sets[field], err = known(field, names); err != nil {
			return err
		}
	}
	slices.Sort(c.warnings)
	for _, field := range []string{"effective", "permitted"} {
		for _, name := range sets[field] {
			if c.Facts.Caps&(1<<plan.CapNumber(name)) == 0 {
				return fmt.Errorf("%s/capabilities/%s: glassbox itself doesn't have %s on this host, so it can't give it: leave it out with --cap-drop=%s", ptr, field, name, strings.TrimPrefix(name, "CAP_"))
			}
		}
	}
	var drop []string
	for n := 0; n <= c.Facts.LastCap; n++ {
		name := plan.CapName(n)
		if name == "" {
			return fmt.Errorf("this kernel knows capability %d, which this glassbox doesn't, and so can't drop", n)
		}
		if !slices.Contains(sets["bounding"], name) {
			drop = append(drop, name)
		}
	}
	if len(drop) > 0 {
		c.add(plan.Child, plan.Privileges, &plan.DropBounding{Caps: drop}, ptr+"/capabilities/bounding", "No program in the container, whatever its file says, can have these.")
	}
	groups := append([]uint32{}, p.User.AdditionalGids...)
	c.add(plan.Child, plan.Privileges, &plan.Setgroups{Groups: groups}, ptr+"/user", "The groups of whoever started glassbox are left behind.")
	c.add(plan.Child, plan.Privileges, &plan.Setresgid{GID: p.User.GID}, ptr+"/user", "The program's group.")
	if p.User.UID != 0 && len(sets["permitted"]) > 0 {
		c.add(plan.Child, plan.Privileges, &plan.KeepCaps{}, ptr+"/capabilities/permitted", "Changing from root to another user would drop them all.")
	}
	c.add(plan.Child, plan.Privileges, &plan.Setresuid{UID: p.User.UID}, ptr+"/user", "The program's user.")
	c.add(plan.Child, plan.Privileges, &plan.Capset{Effective: sets["effective"], Permitted: sets["permitted"], Inheritable: sets["inheritable"]}, ptr+"/capabilities",
		"Root in the container is root without the powers over the host.")
	if len(sets["ambient"]) > 0 {
		c.add(plan.Child, plan.Privileges, &plan.AmbientCaps{Caps: sets["ambient"]}, ptr+"/capabilities/ambient", "They survive the start of an ordinary program.")
	}
	return nil
}

// defaultPath is what Docker uses where the image sets no PATH.
const defaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// candidates are the files that a command may stand for, as a shell would find it.
func candidates(p *specs.Process) []string {
	name := p.Args[0]
	if strings.Contains(name, "/") {
		return []string{name}
	}
	path := defaultPath
	for _, e := range p.Env {
		if v, ok := strings.CutPrefix(e, "PATH="); ok {
			path = v
		}
	}
	var out []string
	for _, dir := range strings.Split(path, ":") {
		if dir == "" {
			dir = "."
		}
		out = append(out, strings.TrimRight(dir, "/")+"/"+name)
	}
	return out
}

// ExecInput describes a process to be started in a running container.
type ExecInput struct {
	Input
	Process    *specs.Process
	PID        int               // the container's first process
	Start      uint64            // its start time (see plan.OpenPid)
	Namespaces []string          // those of the container that are not the host's: mount pid uts ipc net user time cgroup
	Cgroups    map[string]string // as in Output.Cgroups
}

// Exec compiles the start of a further process in a running container.
func Exec(in ExecInput) (*Output, error) {
	c := &container{Input: in.Input}
	c.Spec = &specs.Spec{Process: in.Process, Linux: &specs.Linux{}}
	if in.Spec != nil && in.Spec.Linux != nil {
		c.Spec.Linux.Seccomp = in.Spec.Linux.Seccomp
	}
	switch p := in.Process; {
	case p == nil || len(p.Args) == 0 || p.Args[0] == "":
		return nil, fmt.Errorf("/process/args: there is no command to run")
	case !strings.HasPrefix(p.Cwd, "/"):
		return nil, fmt.Errorf("/process/cwd: %q is not an absolute path", p.Cwd)
	}
	c.cgroup = cgroup.Join(in.Facts.Cgroup, in.Cgroups)
	c.steps = append(c.steps, c.cgroup.Steps...)
	c.add(plan.Host, plan.Isolation, &plan.OpenPid{Pid: in.PID, Start: in.Start, Save: "container"}, "", "The container's first process, whose namespaces will be joined.")
	if slices.Contains(in.Namespaces, "pid") {
		c.add(plan.Host, plan.Isolation, &plan.Setns{From: "container", Namespaces: []string{"pid"}}, "", "Only children enter a PID namespace: the thread that clones joins it.")
	}
	c.add(plan.Host, plan.Isolation, &plan.Clone{Cgroup: c.cgroup.CloneInto}, "", "The new process, in the container's cgroup and PID namespace.")
	if in.Process.Terminal {
		c.add(plan.Host, plan.Terminal, &plan.RecvFD{Save: "console"}, "/process/terminal", "Whoever called exec holds the other end of the terminal.")
	}
	for _, name := range c.cgroup.Join {
		c.add(plan.Child, plan.Limits, &plan.CgroupJoin{From: name}, "", "The limits of the container hold for this process, too.")
	}
	c.add(plan.Child, plan.Isolation, &plan.Dumpable{Value: 0}, "", "The container must not reach glassbox through this process (CVE-2019-5736).")
	join := slices.DeleteFunc(slices.Clone(in.Namespaces), func(n string) bool { return n == "pid" })
	if len(join) > 0 {
		c.add(plan.Child, plan.Isolation, &plan.Setns{From: "container", Namespaces: join}, "", "From here on this process sees what the container sees.")
	}
	if in.Process.Terminal {
		o := &plan.OpenConsole{Master: "master", Slave: "terminal", UID: in.Process.User.UID}
		if b := in.Process.ConsoleSize; b != nil {
			o.Rows, o.Cols = uint16(b.Height), uint16(b.Width)
		}
		c.add(plan.Child, plan.Terminal, o, "/process/terminal", "A terminal in the container's /dev/pts.")
		c.add(plan.Child, plan.Terminal, &plan.SendFD{From: "master"}, "/process/terminal", "The caller gets the end that stands for keyboard and screen.")
	}
	if err := c.process(in.Process, "/process"); err != nil {
		return nil, err
	}
	p := &plan.Plan{Version: plan.Version, Arch: in.Facts.Arch, Steps: c.steps}
	if err := p.Validate(); err != nil {
		return nil, err
	}
	return &Output{Plan: p, Cgroups: in.Cgroups, Warnings: c.warnings}, nil
}
