package compile

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"glassbox/cgroup"
	"glassbox/plan"
	"glassbox/resctrl"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// nsName is a kind of namespace.
type nsName struct {
	spec specs.LinuxNamespaceType
	name string
	gain string // what one has by it
}

// nsNames maps the specification's names to those of plans, in the order of steps.
var nsNames = []nsName{
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
		k := slices.IndexFunc(nsNames, func(e nsName) bool { return e.spec == n.Type })
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
	if err := c.cgroups(); err != nil {
		return err
	}
	if err := c.classes(); err != nil {
		return err
	}
	if c.Quota != nil {
		c.add(plan.Host, plan.Limits, c.Quota, QuotaPointer,
			"The file system refuses what the container would write to its own layer beyond this, and keeps the rest of the disk for others.")
	}
	for i, n := range c.Spec.Linux.Namespaces {
		if n.Path != "" {
			k := slices.IndexFunc(nsNames, func(e nsName) bool { return e.spec == n.Type })
			o := &plan.Open{Path: n.Path, Namespace: nsNames[k].name, Save: "ns:" + string(n.Type)}
			if c.changed(o.Namespace) {
				o.Other = o.Namespace
			}
			c.add(plan.Host, plan.Isolation, o, fmt.Sprintf("/linux/namespaces/%d/path", i),
				"The namespace exists already; the container will share it.")
		}
	}
	if c.chroot {
		if err := c.mountRoot(); err != nil {
			return err
		}
	}
	if c.StartDir != "" {
		var open plan.Op = &plan.OpenTree{Path: c.StartDir, Save: "start", Readonly: true}
		reason := "The container will wait at a FIFO in this directory until it is started. From a clone of the mount no way leads up, for " +
			"those in the container who may look at the descriptor."
		if !c.privileged() {
			open = &plan.Open{Path: c.StartDir, Flags: []string{"path", "directory"}, Save: "start"}
			reason = "The container will wait at a FIFO in this directory until it is started."
		}
		c.add(plan.Host, plan.Sources, open, "", reason)
	}
	c.cgroupSources(plan.Host)
	if err := c.sharedSources(); err != nil {
		return err
	}
	if err := c.hostFileSystems(); err != nil {
		return err
	}
	if !c.sendSources() {
		if err := c.parentSources(); err != nil {
			return err
		}
	}
	if _, ok := c.join["pid"]; ok && !c.twice {
		c.add(plan.Host, plan.Isolation, &plan.Setns{From: "ns:pid", Namespaces: []string{"pid"}}, "/linux/namespaces",
			"Only children enter a PID namespace: the thread that clones joins it.")
	}
	c.hostProc()
	c.clone()
	if c.sendSources() {
		if err := c.parentSources(); err != nil {
			return err
		}
	}
	c.copies()
	if err := c.netDevices(); err != nil {
		return err
	}
	c.steps = append(c.steps, c.Network...)
	if len(c.Network) > 0 {
		c.add(plan.Host, plan.Network, &plan.Release{Name: "network"}, "", "The network is ready; the program may start.")
	}
	if c.Spec.Process.Terminal {
		c.add(plan.Host, plan.Terminal, &plan.RecvFD{Save: "console"}, "/process/terminal", "The supervisor holds the other end of the terminal.")
	}
	if err := c.hooks(); err != nil {
		return err
	}
	c.hostLimits(c.Spec.Process)
	if c.users == lateUsers {
		c.add(plan.Host, plan.Privileges, &plan.Expect{Name: "user namespace"}, "/linux/namespaces",
			"Ids can be mapped when there is a user namespace.")
		c.add(plan.Host, plan.Privileges, c.idMap(), "/linux/namespaces", "Without a mapping in the configuration every id stands for itself.")
		c.add(plan.Host, plan.Privileges, &plan.Release{Name: "ids"}, "/linux/namespaces", "The child has ids now and may take them on.")
	}
	if s := c.Spec.Linux.Seccomp; s != nil && s.ListenerPath != "" {
		if err := c.passListener(); err != nil {
			return err
		}
	}
	if c.Record || c.StartDir != "" {
		c.add(plan.Host, plan.Exec, &plan.Expect{Name: "ready"}, "", "The child has come to its end as a copy of the runtime.")
		c.add(plan.Host, plan.Exec, &plan.Release{Name: "record"}, "", "It is written down who the child is; it may go on.")
	}
	return nil
}

// cgroups adds the steps that make the container's cgroup, of systemd's or our own. Without a path there is none.
func (c *container) cgroups() error {
	path := c.Spec.Linux.CgroupsPath
	if path == "" {
		return nil
	}
	r := c.Spec.Linux.Resources
	if r != nil && len(r.Devices) > 0 && (c.Facts.UserNS || !c.privileged()) {
		// A copy: the configuration is the caller's.
		without := *r
		without.Devices = nil
		r = &without
		c.warnings = append(c.warnings, "/linux/resources/devices: only root of the host can filter devices; the container reaches those that "+
			"its files and its user allow")
	}
	if c.Systemd == nil {
		path, err := cgroup.Path(path, "")
		if err != nil {
			return err
		}
		c.cgroup, err = cgroup.Steps(c.Facts.Cgroup, path, r, c.origin)
		c.steps = append(c.steps, c.cgroup.Steps...)
		return err
	}
	scope, err := cgroup.ParseScope(path, "", c.Systemd.User)
	if err != nil {
		return err
	}
	properties, err := cgroup.ScopeProperties(c.Spec.Annotations)
	if err != nil {
		return err
	}
	c.cgroup, err = cgroup.ScopeSteps(c.Facts.Cgroup, *c.Systemd, scope, properties, r, c.origin)
	c.steps = append(c.steps, c.cgroup.Steps...)
	c.unit = scope.Unit
	return err
}

// classes adds the steps that make the container's resource class, where it wants one.
func (c *container) classes() (err error) {
	if r := c.Spec.Linux.IntelRdt; r != nil {
		c.class, err = resctrl.Steps(c.Facts.Resctrl, c.ID, r, c.origin)
		c.steps = append(c.steps, c.class.Steps...)
	}
	return err
}

// joinClass puts the child into its resource class.
func (c *container) joinClass(pointer string) {
	for _, name := range c.class.Join {
		c.add(plan.Child, plan.Limits, &plan.ResctrlJoin{From: name}, pointer,
			"From here on the share of this class counts, for all that the child starts.")
	}
}

// loopback reports whether the child sets its loopback device up itself: where no network is wired for it.
func (c *container) loopback(fresh []string) bool {
	return len(c.Network) == 0 && slices.Contains(fresh, "net")
}

// late says which namespaces the first clone doesn't make: the cgroup namespace, which the child makes once it is in its cgroup,
// and the user namespace, which is made at the very end or, with mappings, from the start (see users).
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

// netDevices moves network devices of the host into the container.
func (c *container) netDevices() error {
	devices := c.Spec.Linux.NetDevices
	if len(devices) == 0 {
		return nil
	}
	switch {
	case !slices.Contains(c.fresh, "net") && c.join["net"] == "":
		return fmt.Errorf("/linux/netDevices: a network device can be moved into a network namespace of the container's own only")
	case !c.privileged():
		return fmt.Errorf("/linux/netDevices: moving a network device needs CAP_NET_ADMIN on the host")
	}
	for _, name := range slices.Sorted(maps.Keys(devices)) {
		ptr := "/linux/netDevices/" + name
		as := devices[name].Name
		if !linkName(name) {
			return fmt.Errorf("%s: no name of a network device", ptr)
		}
		if as != "" && !linkName(strings.Replace(as, "%d", "0", 1)) {
			return fmt.Errorf("%s/name: %q: no name of a network device", ptr, as)
		}
		c.add(plan.Host, plan.Network, &plan.LinkMove{Name: name, As: as}, ptr, "The container gets this device of the host, with its addresses.")
	}
	if len(c.Network) == 0 {
		c.add(plan.Host, plan.Network, &plan.Release{Name: "network"}, "/linux/netDevices", "The devices are there; the program may start.")
	}
	return nil
}

// linkName reports whether a network device can have a name (IFNAMSIZ, dev_valid_name of the kernel).
func linkName(s string) bool {
	return s != "" && len(s) < 16 && s != "." && s != ".." && !strings.ContainsAny(s, "/: \t\n%\x00")
}
