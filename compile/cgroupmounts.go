package compile

import (
	"fmt"
	"path"
	"slices"
	"strings"

	"glassbox/host"
	"glassbox/plan"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// cgroupMount shows the container its own cgroups: one mount on v2; on v1 a tmpfs with one mount per hierarchy.
//
// Without a cgroup namespace a v2 mount shows the tree from the host's root, as the paths in /proc/PID/cgroup do. The mounts of v1
// hierarchies are then binds of the container's own directory.
func (c *container) cgroupMount(i int, m specs.Mount, dest string, o mountOptions, ptr string) error {
	f := c.Facts.Cgroup
	attrs := o.own()
	top := c.cgroupTop(i, m, o)
	if len(o.super)+len(o.classic) > 0 {
		return fmt.Errorf("%s/options: %q means nothing for cgroups", ptr, slices.Concat(o.super, o.classic)[0])
	}
	switch {
	case top.Type == "cgroup2":
		c.put(i, top, ptr, "The container sees its own limits and use; its cgroup namespace hides the rest of the tree.")
		return nil
	case f.Mode != host.CgroupV1 && f.Mode != host.CgroupHybrid:
		return fmt.Errorf("%s/type: this host has no cgroups mounted", ptr)
	case len(o.data) > 0:
		return fmt.Errorf("%s/options: %q: the hierarchies of cgroup v1 are mounted as the host has them", ptr, o.data[0])
	}
	c.put(i, top, ptr, "With cgroup v1 each controller has a mount of its own; this directory holds them.")
	for _, h := range f.Hierarchies {
		if h.V2 || len(h.Controllers) == 0 {
			continue
		}
		// As on the host, where controllers that are mounted together have one directory, "cpu,cpuacct".
		name := h.Mount[strings.LastIndexByte(h.Mount, '/')+1:]
		reason := "The container sees its own limits and use of " + strings.Join(h.Controllers, " and ") + "."
		if c.mountsCgroups() {
			var options []string
			for _, ctl := range h.Controllers {
				if strings.HasPrefix(ctl, "name=") {
					// A hierarchy without controllers, such as systemd's, is mounted by its name, and "none" says that no controller is forgotten.
					options = append(options, "none", ctl)
				} else {
					options = append(options, ctl)
				}
			}
			c.add(plan.Child, plan.Mounts, &plan.FSMount{Type: "cgroup", Source: "cgroup", Options: options, Attrs: attrs, Target: dest + "/" +
				name}, ptr, reason)
		} else {
			c.add(plan.Child, plan.Mounts, &plan.MoveMount{
				From: cgroupSource(ptr, h), Target: dest + "/" + name, Create: "dir", Set: attrs,
				Propagation: []string{"private"},
			}, ptr, reason)
		}
		for _, ctl := range h.Controllers {
			if ctl != name && !strings.HasPrefix(ctl, "name=") {
				c.add(plan.Child, plan.Mounts, &plan.Symlink{Target: name, Path: dest + "/" + ctl}, ptr,
					"Programs look for the controller under its own name, too.")
			}
		}
	}
	if top.Save != "" {
		holder := top.Save
		if c.madeAhead(i) {
			holder = mountName(i)
		}
		c.add(plan.Child, plan.Mounts, &plan.Remount{Target: dest, From: holder, Set: []string{"ro"}}, ptr,
			"A container must not change its own limits.")
	}
	return nil
}

// cgroupTop is the mount at the place of a cgroup mount: on v2 all of it, on v1 the directory for the hierarchies, which becomes
// read-only when they are in it.
func (c *container) cgroupTop(i int, m specs.Mount, o mountOptions) *plan.FSMount {
	dest := path.Clean("/" + m.Destination)
	if c.Facts.Cgroup.Mode == host.CgroupV2 || m.Type == "cgroup2" {
		return &plan.FSMount{Type: "cgroup2", Source: "cgroup", Attrs: o.own(), Options: o.data, Target: dest, Propagation: o.propagation}
	}
	top := &plan.FSMount{
		Type: "tmpfs", Source: "tmpfs", Options: []string{"mode=755"}, Attrs: o.own(), Target: dest,
		Propagation: o.propagation,
	}
	if label := c.Spec.Linux.MountLabel; label != "" {
		top.Options = append(top.Options, "context="+label)
	}
	if slices.Contains(top.Attrs, "ro") {
		top.Attrs, top.Save = without(top.Attrs, "ro"), fmt.Sprintf("cgroups:/mounts/%d", i)
	}
	return top
}

// mountsCgroups reports whether a cgroup namespace makes the container's own cgroups the roots of what it can mount.
func (c *container) mountsCgroups() bool {
	if c.confined() {
		return c.owns("cgroup")
	}
	return c.cgroupNamespace()
}

func (c *container) cgroupNamespace() bool {
	return slices.ContainsFunc(c.Spec.Linux.Namespaces, func(n specs.LinuxNamespace) bool { return n.Type == specs.CgroupNamespace })
}

func cgroupSource(ptr string, h host.Hierarchy) string {
	return "cgroups:" + ptr + ":" + h.Controllers[0]
}

// cgroupSources takes the container's own cgroups from the host, where no cgroup namespace makes them the root of the tree. The parent
// does it, or where systemd makes the cgroups around the child, the child.
func (c *container) cgroupSources(lane plan.Lane) {
	if lane == plan.Child == (c.unit != "") && !c.confined() {
		c.ownCgroups(lane)
	}
}

// ownCgroups takes them. In a user namespace the child does it, in its own mount namespace.
func (c *container) ownCgroups(lane plan.Lane) {
	for i, m := range c.Spec.Mounts {
		ptr := fmt.Sprintf("/mounts/%d", i)
		if isBind(m) || m.Type != "cgroup" || c.Facts.Cgroup.Mode == host.CgroupV2 || c.mountsCgroups() {
			continue
		}
		for _, h := range c.Facts.Cgroup.Hierarchies {
			if h.V2 || len(h.Controllers) == 0 {
				continue
			}
			dir, ok := c.cgroup.Paths[h.Controllers[0]]
			if !ok {
				dir = path.Join(h.Mount, h.Own)
			}
			c.add(lane, plan.Sources, &plan.OpenTree{Path: dir, Save: cgroupSource(ptr, h)}, ptr,
				"Without a cgroup namespace the container would see the cgroups of the whole host; it gets its own.")
		}
	}
}
