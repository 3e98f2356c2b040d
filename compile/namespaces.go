package compile

import (
	"fmt"
	"slices"

	"glassbox/cgroup"
	"glassbox/plan"

	"github.com/opencontainers/runtime-spec/specs-go"
)

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
	if c.StartDir != "" {
		c.add(plan.Host, plan.Sources, &plan.Open{Path: c.StartDir, Flags: []string{"path", "directory"}, Save: "start"}, "",
			"The container will wait at a FIFO in this directory until it is started.")
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
	c.hooks()
	if slices.Contains(fresh, "user") {
		uid, gid := c.Spec.Linux.UIDMappings, c.Spec.Linux.GIDMappings
		c.add(plan.Host, plan.Privileges, &plan.Expect{Name: "user namespace"}, "/linux/namespaces", "Ids can be mapped when there is a user namespace.")
		c.add(plan.Host, plan.Privileges, &plan.IDMap{UID: idRanges(uid), GID: idRanges(gid)}, "/linux/uidMappings",
			"Which users of the host the users in the container are. Without a mapping every id stands for itself.")
		c.add(plan.Host, plan.Privileges, &plan.Release{Name: "ids"}, "/linux/uidMappings", "The child has ids now and may take them on.")
	}
	if c.Record || c.StartDir != "" {
		c.add(plan.Host, plan.Exec, &plan.Expect{Name: "ready"}, "", "The child has come to its end as a copy of the runtime.")
		c.add(plan.Host, plan.Exec, &plan.Release{Name: "record"}, "", "It is written down who the child is; it may go on.")
	}
	return nil
}

// loopback reports whether the child sets its loopback device up itself: where no network is wired for it.
func (c *container) loopback(fresh []string) bool {
	return len(c.Network) == 0 && slices.Contains(fresh, "net")
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
