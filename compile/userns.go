package compile

import (
	"fmt"
	"slices"

	"glassbox/plan"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// users says what user ids mean in the container.
type users int

const (
	// The zero value: the users of whoever starts the container.
	_ users = iota
	// lateUsers live in a user namespace that the child makes when everything is mounted, and in which each id stands for
	// itself. The other namespaces belong to the host: the container's root has no powers over them.
	lateUsers
	// ownUsers live in a user namespace with mappings that the child is born in. The other namespaces belong to it.
	ownUsers
	// joinedUsers live in a user namespace that exists.
	joinedUsers
)

// Capabilities that decide what the parent can do.
const (
	capSetgid      = 6
	capSetuid      = 7
	capSysAdmin    = 21
	capSysResource = 24
)

func (c *container) has(caps ...int) bool {
	for _, n := range caps {
		if c.Facts.Caps&(1<<n) == 0 {
			return false
		}
	}
	return true
}

// privileged reports whether the parent may join, mount and make namespaces without a new user namespace.
func (c *container) privileged() bool { return c.has(capSysAdmin) }

// confined reports whether the child's privileges end at a user namespace other than the first one while it mounts: no device
// can be made then, and the kernel lets it mount procfs and sysfs only where it sees those of the host.
func (c *container) confined() bool {
	return c.users == ownUsers || c.users == joinedUsers || c.Facts.UserNS
}

// identify finds out what user ids mean, and refuses what can't work.
func (c *container) identify() error {
	var err error
	if c.fresh, c.join, err = c.ns(); err != nil {
		return err
	}
	l := c.Spec.Linux
	_, join := c.join["user"]
	switch fresh := slices.Contains(c.fresh, "user"); {
	case join:
		c.users = joinedUsers
	case fresh && len(l.UIDMappings)+len(l.GIDMappings) > 0:
		c.users = ownUsers
		if err := c.checkMappings(); err != nil {
			return err
		}
	case fresh && !c.privileged():
		return fmt.Errorf("/linux/uidMappings: missing: an ordinary user's container needs mappings of user and group ids, such as its own id " +
			"to 0")
	case fresh:
		c.users = lateUsers
	case len(l.UIDMappings)+len(l.GIDMappings) > 0:
		return fmt.Errorf("/linux/uidMappings: mappings of ids need a user namespace, which /linux/namespaces doesn't ask for")
	case !c.privileged():
		return fmt.Errorf("/linux/namespaces: an ordinary user (%d, without CAP_SYS_ADMIN) can start containers with a user namespace only: "+
			"add one, with mappings of ids", c.Facts.UID)
	}
	if !c.privileged() && len(c.Network) > 0 {
		return fmt.Errorf("/linux/namespaces: wiring a network needs CAP_NET_ADMIN on the host")
	}
	if len(l.TimeOffsets) > 0 {
		if !slices.Contains(c.fresh, "time") {
			return fmt.Errorf("/linux/timeOffsets: offsets need a time namespace of the container's own")
		}
		if c.users == joinedUsers && !c.privileged() {
			return fmt.Errorf("/linux/timeOffsets: an ordinary user can't set offsets in a user namespace that is joined")
		}
		for clock := range l.TimeOffsets {
			if clock != "monotonic" && clock != "boottime" {
				return fmt.Errorf("/linux/timeOffsets/%s: unknown clock: there are monotonic and boottime", clock)
			}
		}
	}
	c.twice = len(l.TimeOffsets) > 0 || c.users == joinedUsers || c.users == ownUsers && len(c.join) > 0
	return nil
}

func (c *container) checkMappings() error {
	l := c.Spec.Linux
	for _, m := range []struct {
		ptr  string
		list []specs.LinuxIDMapping
	}{{"/linux/uidMappings", l.UIDMappings}, {"/linux/gidMappings", l.GIDMappings}} {
		if len(m.list) == 0 {
			return fmt.Errorf("%s: missing: user and group ids are mapped both or not at all", m.ptr)
		}
		if len(m.list) > 340 {
			return fmt.Errorf("%s: %d ranges: the kernel takes 340 (user_namespaces(7))", m.ptr, len(m.list))
		}
		for i, r := range m.list {
			// The last number, (uid_t)-1, is no id (see noID), so no range reaches it.
			if r.Size == 0 || uint64(r.ContainerID)+uint64(r.Size) > 1<<32-1 || uint64(r.HostID)+uint64(r.Size) > 1<<32-1 {
				return fmt.Errorf("%s/%d: %d ids from %d (host %d) is no range", m.ptr, i, r.Size, r.ContainerID, r.HostID)
			}
		}
		if !mapped(m.list, 0) {
			return fmt.Errorf("%s: id 0 is not mapped, but only root of the container can set it up", m.ptr)
		}
	}
	return nil
}

// mapped reports whether an id of the container stands for one of the host.
func mapped(list []specs.LinuxIDMapping, id uint32) bool {
	return slices.ContainsFunc(list, func(r specs.LinuxIDMapping) bool { return id >= r.ContainerID && id-r.ContainerID < r.Size })
}

// checkUser refuses ids for the program that mean nothing in the container.
func (c *container) checkUser(u specs.User, ptr string) error {
	if c.users != ownUsers {
		return nil
	}
	l := c.Spec.Linux
	if !mapped(l.UIDMappings, u.UID) {
		return fmt.Errorf("%s/user/uid: user %d is not mapped in the container's user namespace (/linux/uidMappings)", ptr, u.UID)
	}
	if !mapped(l.GIDMappings, u.GID) {
		return fmt.Errorf("%s/user/gid: group %d is not mapped in the container's user namespace (/linux/gidMappings)", ptr, u.GID)
	}
	for i, g := range u.AdditionalGids {
		if !mapped(l.GIDMappings, g) {
			return fmt.Errorf("%s/user/additionalGids/%d: group %d is not mapped in the container's user namespace (/linux/gidMappings)", ptr, i, g)
		}
	}
	if len(u.AdditionalGids) > 0 && c.groupsDenied() {
		return fmt.Errorf("%s/user/additionalGids: an ordinary user who maps one group can't have others: map ranges with newgidmap(1), for "+
			"which /etc/subgid needs an entry", ptr)
	}
	return nil
}

// idMap is how the ids of the child's new user namespace are mapped.
func (c *container) idMap() *plan.IDMap {
	l := c.Spec.Linux
	m := &plan.IDMap{UID: idRanges(l.UIDMappings), GID: idRanges(l.GIDMappings)}
	if c.users == lateUsers || c.has(capSetuid, capSetgid) {
		return m
	}
	// Without privileges a process can map its own ids, one each, after giving up setgroups(2) (user_namespaces(7)). For more
	// there are two programs with the setuid bit that know /etc/subuid.
	if len(m.UID) == 1 && m.UID[0].Size == 1 && m.UID[0].Host == c.Facts.UID && len(m.GID) == 1 && m.GID[0].Size == 1 &&
		m.GID[0].Host == c.Facts.GID {
		m.DenySetgroups = true
	} else {
		m.Programs = true
	}
	return m
}

// groupsDenied reports whether setgroups(2) is known to be refused in the container's user namespace.
func (c *container) groupsDenied() bool {
	return c.users != joinedUsers && c.Facts.NoSetgroups || c.users == ownUsers && c.idMap().DenySetgroups
}

// owns reports whether a namespace of the container belongs to the user namespace that the child mounts in. A joined one is
// taken to belong to the joined user namespace.
func (c *container) owns(ns string) bool {
	if slices.Contains(c.fresh, ns) {
		return true
	}
	_, join := c.join[ns]
	return join && c.users == joinedUsers
}

// clone writes the host's steps that make the child and, with a user namespace from the start, map its ids.
func (c *container) clone() {
	flags := slices.DeleteFunc(slices.Clone(c.fresh), late)
	if c.users == ownUsers {
		flags = append(flags, "user")
	}
	var second []string
	if c.twice {
		second = slices.DeleteFunc(flags, func(ns string) bool { return ns == "time" && len(c.Spec.Linux.TimeOffsets) > 0 })
		// The first clone is made by the host's rights alone and joins what exists; what is new belongs to the second, which is the container.
		flags = nil
		if c.users == ownUsers && !c.privileged() {
			// Whoever has no privileges needs those of the new user namespace to join and prepare the others, so the first clone is born in it.
			flags, second = []string{"user"}, slices.DeleteFunc(second, func(ns string) bool { return ns == "user" })
		}
	}
	c.second = second
	gain := func(names []string) string {
		var gains []string
		for _, n := range nsNames {
			if slices.Contains(names, n.name) {
				gains = append(gains, n.gain)
			}
		}
		return enumerate(gains)
	}
	reason := "The container is this one process. It gets its own " + gain(flags) + "."
	if c.twice {
		reason = "This process joins and prepares namespaces, and then clones the container's process."
	}
	if c.cgroup.CloneInto != "" {
		reason += " It is born in its cgroup, so there is no moment without limits."
	}
	c.add(plan.Host, plan.Isolation, &plan.Clone{Namespaces: flags, Cgroup: c.cgroup.CloneInto}, "/linux/namespaces", reason)
	c.steps = append(c.steps, c.cgroup.After...)
	if c.users == ownUsers && slices.Contains(flags, "user") {
		c.mapIDs()
	}
	if c.twice {
		c.add(plan.Host, plan.Isolation, &plan.Adopt{}, "/linux/namespaces",
			"The second clone is the container's process; the first one has ended.")
		if slices.Contains(second, "user") {
			c.mapIDs()
		}
	}
	if c.users == joinedUsers {
		c.oom()
	}
}

// mapIDs writes the host's steps that give the child's new user namespace ids.
func (c *container) mapIDs() {
	m := c.idMap()
	reason := "Which users of the host the users in the container are."
	switch {
	case m.DenySetgroups:
		reason += " An ordinary user may map the own ids only, and must give up changing groups."
	case m.Programs:
		reason += " newuidmap and newgidmap grant an ordinary user the ids that /etc/subuid and /etc/subgid list."
	}
	c.add(plan.Host, plan.Isolation, m, "/linux/uidMappings", reason)
	// Now and not later: an ordinary user can write there only while the child can be looked into (PR_SET_DUMPABLE).
	c.oom()
	c.add(plan.Host, plan.Isolation, &plan.Release{Name: "ids"}, "/linux/uidMappings", "The child has ids now.")
}

// hostOOM reports whether the parent sets oom_score_adj: in a user namespace the child can only raise it.
func (c *container) hostOOM() bool {
	return c.users == ownUsers || c.users == joinedUsers && c.privileged() && c.twice
}

func (c *container) oom() {
	if c.Spec.Process.OOMScoreAdj == nil || !c.hostOOM() {
		return
	}
	c.add(plan.Host, plan.Kernel, &plan.WriteProc{File: "oom_score_adj", Value: fmt.Sprint(*c.Spec.Process.OOMScoreAdj)},
		"/process/oomScoreAdj",
		"How readily the kernel kills this process when memory runs out. The parent writes it: in a user namespace nobody may lower it.")
}

// enter writes the child's steps up to the namespaces that it lives in.
func (c *container) enter() {
	await := func() {
		c.add(plan.Child, plan.Isolation, &plan.Await{Name: "ids"}, "/linux/uidMappings", "Without mapped ids this process is nobody.")
	}
	own := c.users == ownUsers
	if own && (!c.twice || !c.privileged()) {
		await()
	}
	if offsets := c.Spec.Linux.TimeOffsets; len(offsets) > 0 {
		c.add(plan.Child, plan.Isolation, &plan.Unshare{Namespaces: []string{"time"}}, "/linux/timeOffsets",
			"Only children of this process live by the new clocks, which can be set until there is one.")
		o := &plan.TimeOffsets{}
		for _, clock := range []string{"monotonic", "boottime"} {
			if t, ok := offsets[clock]; ok {
				o.Offsets = append(o.Offsets, plan.TimeOffset{Clock: clock, Secs: t.Secs, Nanosecs: t.Nanosecs})
			}
		}
		c.add(plan.Child, plan.Isolation, o, "/linux/timeOffsets", "How far the container's clocks are from those of the host.")
	}
	c.add(plan.Child, plan.Isolation, &plan.Dumpable{Value: 0}, "",
		"Until it becomes the program, this process is a copy of glassbox: nobody in the container may look into it or at its executable "+
			"(CVE-2019-5736).")
	c.joins()
	if c.twice {
		c.add(plan.Child, plan.Isolation, &plan.Clone{Namespaces: c.second}, "/linux/namespaces",
			"Some namespaces are entered by children only. This process ends; the clone, in the namespaces prepared, goes on.")
		if own && c.privileged() {
			await()
		}
	}
	if slices.Contains(c.fresh, "cgroup") {
		c.add(plan.Child, plan.Isolation, &plan.Unshare{Namespaces: []string{"cgroup"}}, "/linux/namespaces",
			"From inside, the container's own cgroup is the root of the tree.")
	}
}

// joins writes the steps that join namespaces by path. Who has privileges on the host uses them while they last and joins the
// user namespace last; who has none gets them by joining it first.
func (c *container) joins() {
	join := func(name, reason string) {
		i := slices.IndexFunc(nsNames, func(n nsName) bool { return n.name == name })
		c.add(plan.Child, plan.Isolation, &plan.Setns{From: "ns:" + string(nsNames[i].spec), Namespaces: []string{name}}, "/linux/namespaces",
			reason)
	}
	user := func() {
		if c.users != joinedUsers {
			return
		}
		if c.privileged() && !c.Facts.NoSetgroups {
			c.add(plan.Child, plan.Isolation, &plan.Setgroups{}, "",
				"The groups of whoever started glassbox are left behind now: the user namespace may not allow it later.")
		}
		join("user", "User ids have the meaning that they have in this user namespace.")
	}
	if !c.privileged() {
		user()
	}
	for _, n := range nsNames {
		if _, ok := c.join[n.name]; ok && n.name != "user" && (c.twice || n.name != "pid") {
			join(n.name, "The container shares this namespace: its "+n.gain+".")
		}
	}
	if c.privileged() {
		user()
	}
}

// become makes the child root of its user namespace: what it makes from now on belongs to the container.
func (c *container) become() {
	if c.users != ownUsers && c.users != joinedUsers {
		return
	}
	if c.users == ownUsers && !c.groupsDenied() {
		c.add(plan.Child, plan.Isolation, &plan.Setgroups{}, "/linux/gidMappings", "The groups of whoever started glassbox are left behind.")
	}
	const reason = "Root of the container, which is another user of the host. Until now the rights of whoever started glassbox were needed " +
		"to come to files of the host."
	c.add(plan.Child, plan.Isolation, &plan.Setresgid{}, "/linux/gidMappings", reason)
	c.add(plan.Child, plan.Isolation, &plan.Setresuid{}, "/linux/uidMappings", reason)
}

// groups writes the step that sets the program's groups, where the user namespace lets it.
func (c *container) groups(p *specs.Process, ptr string) {
	if len(p.User.AdditionalGids) == 0 && (c.groupsDenied() || c.users == joinedUsers && c.privileged()) {
		return // left behind already, or there is no way
	}
	o := &plan.Setgroups{Groups: append([]uint32{}, p.User.AdditionalGids...)}
	// A user namespace made by an ordinary user may deny it, see setgroups in user_namespaces(7).
	o.IfAllowed = c.users == joinedUsers && len(o.Groups) == 0
	c.add(plan.Child, plan.Privileges, o, ptr+"/user", "The groups of whoever started glassbox are left behind.")
}

// hostRlimits reports whether the parent sets the resource limits.
func (c *container) hostRlimits(p *specs.Process) bool {
	return (c.users == ownUsers || c.users == joinedUsers) && c.has(capSysResource) && !c.Facts.UserNS && len(p.Rlimits) > 0
}

// hostLimits writes the host's steps that set resource limits.
func (c *container) hostLimits(p *specs.Process) {
	if !c.hostRlimits(p) {
		return
	}
	const ptr = "/process/rlimits"
	c.add(plan.Host, plan.Kernel, &plan.Expect{Name: "limits"}, ptr, "The child is set up, as far as limits could be in its way.")
	for i, r := range p.Rlimits {
		c.add(plan.Host, plan.Kernel, &plan.Rlimit{Type: r.Type, Soft: r.Soft, Hard: r.Hard}, fmt.Sprintf("%s/%d", ptr, i),
			"A limit of the process and its children.")
	}
	c.add(plan.Host, plan.Kernel, &plan.Release{Name: "rlimits"}, ptr, "The child goes on, within its limits.")
}

// hostProc has the parent open the host's procfs for the child, where the child may not mount one because it has the host's
// processes in sight.
func (c *container) hostProc() {
	if c.confined() && !c.owns("pid") && c.needsProc() {
		c.add(plan.Host, plan.Sources, &plan.Open{Path: "/proc", Flags: []string{"path", "directory"}, Save: "proc"}, "",
			"The host's own procfs: what the container mounted on its /proc can't stand in for it (CVE-2019-16884).")
		c.procfs = "proc"
	}
}

// needsProc reports whether the child writes settings through a procfs.
func (c *container) needsProc() bool {
	p := c.Spec.Process
	return len(c.Spec.Linux.Sysctl) > 0 || p.OOMScoreAdj != nil && !c.hostOOM() || p.ApparmorProfile != "" &&
		p.ApparmorProfile != "unconfined" || p.SelinuxLabel != ""
}
