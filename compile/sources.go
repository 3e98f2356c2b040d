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

// hostSources reports whether the parent takes the sources of bind mounts before there is a child. Without privileges the child
// does that.
func (c *container) hostSources() bool {
	return c.users != ownUsers && c.users != joinedUsers && c.privileged()
}

// childSources reports whether the child takes the sources of bind mounts among the mounts that it makes, for the sake of their order.
// Not in a mount namespace that is joined, where others may have a say in what names stand for, nor if there are so many that
// the child would have too many descriptors.
func (c *container) childSources() bool {
	const many = 200
	return c.InOrder && c.hostSources() && c.join["mount"] == "" && len(c.Spec.Mounts) <= many
}

// sendSources reports whether the parent takes the sources of bind mounts in the child's mount namespace and sends them: the
// clones of mounts made there keep read-only, nosuid and nodev beyond the power of the container's root to change them, those of
// the host's mount namespace lose that (mount_namespaces(7), "Restrictions on mount namespaces").
func (c *container) sendSources() bool {
	return (c.users == ownUsers || c.users == joinedUsers) && c.privileged()
}

// parentSources writes the host's steps that take the sources of bind mounts.
func (c *container) parentSources() error {
	for i, m := range c.Spec.Mounts {
		switch {
		case slices.Contains(m.Options, "remount"):
			continue
		case idMapped(m):
			if err := c.idMappedSource(i, m); err != nil {
				return err
			}
		case c.elsewhere(m):
			continue
		case isBind(m) && (c.hostSources() && !c.childSources() || c.sendSources()):
			if err := c.bindSource(plan.Host, i, m); err != nil {
				return err
			}
		default:
			continue
		}
		// Whichever of the two has written it, the last step is the one that opens the source.
		c.steps[len(c.steps)-1].Op.(*plan.OpenTree).Child = c.sendSources()
	}
	return nil
}

// elsewhere reports whether the source of a bind mount is in another container.
func (c *container) elsewhere(m specs.Mount) bool {
	return c.Mounts[path.Clean("/"+m.Destination)].Namespace != ""
}

// sharedSources writes the host's steps that take mounts of other containers. There is no child yet that could take them, and it couldn't
// enter their mount namespaces from a user namespace of its own.
func (c *container) sharedSources() error {
	for i, m := range c.Spec.Mounts {
		if !c.elsewhere(m) {
			continue
		}
		ptr := fmt.Sprintf("/mounts/%d", i)
		if !c.privileged() || c.Facts.UserNS {
			return fmt.Errorf("%s: what is mounted in another container can be taken by root of the host only (CAP_SYS_ADMIN in the first user "+
				"namespace)", ptr)
		}
		mounts := fmt.Sprintf("mounts:%d", i)
		c.add(plan.Host, plan.Sources, &plan.Open{
			Path: c.Mounts[path.Clean("/"+m.Destination)].Namespace, Namespace: "mount", Save: mounts,
		}, ptr, "The other container's mounts.")
		c.add(plan.Host, plan.Sources, &plan.OpenTree{
			Path: m.Source, Recursive: slices.Contains(m.Options, "rbind"), Save: mountName(i), Mounts: mounts,
		}, ptr, "What is mounted there, whatever it is: the container will have the same.")
	}
	return nil
}

// hostFileSystems writes the host's steps that mount what bind mounts are to be taken from: before the clone, so that they are in sight
// wherever the sources are taken.
func (c *container) hostFileSystems() error {
	var made []string
	for i, m := range c.Spec.Mounts {
		mount := c.Mounts[path.Clean("/"+m.Destination)].Mount
		if mount == nil || slices.Contains(made, mount.Target) {
			continue
		}
		ptr := fmt.Sprintf("/mounts/%d", i)
		if !c.privileged() || c.Facts.UserNS {
			return fmt.Errorf("%s: a file system of type %s can be mounted by root of the host only", ptr, mount.Type)
		}
		made = append(made, mount.Target)
		reason := "The volume is a file system, which is mounted while containers use it."
		if mount.Type == "overlay" {
			reason = "The image's layers are stacked, for reading alone."
		}
		c.add(plan.Host, plan.Sources, mount, ptr, reason)
	}
	return nil
}

const sourceReason = "The source of a bind mount is taken from the host now, while no name can be influenced by the container."

// sources writes the steps that take from the host what the container needs, before its root changes.
func (c *container) sources() error {
	s := c.Spec
	if !c.hostSources() {
		for i, m := range s.Mounts {
			if !isBind(m) || slices.Contains(m.Options, "remount") || c.elsewhere(m) {
				continue
			}
			if c.sendSources() {
				c.add(plan.Child, plan.Sources, &plan.RecvFD{Save: mountName(i)}, fmt.Sprintf("/mounts/%d", i),
					"The parent has the right to come to it.")
			} else if err := c.bindSource(plan.Child, i, m); err != nil {
				return err
			}
		}
	}
	if !c.confined() {
		return nil
	}
	c.ownCgroups(plan.Child)
	for i, m := range s.Mounts {
		ptr := fmt.Sprintf("/mounts/%d", i)
		if isBind(m) || slices.Contains(m.Options, "remount") {
			continue
		}
		o := parseOptions(m.Options)
		if c.users == ownUsers {
			for _, opt := range o.data {
				key, value, _ := strings.Cut(opt, "=")
				var id uint32
				// Not a number: the file system itself will say what it thinks of it.
				if _, err := fmt.Sscanf(value, "%d", &id); err != nil {
					continue
				}
				if key == "gid" && !mapped(s.Linux.GIDMappings, id) || key == "uid" && !mapped(s.Linux.UIDMappings, id) {
					return fmt.Errorf("%s/options: %q: id %d is not mapped in the container's user namespace", ptr, opt, id)
				}
			}
		}
		attrs := o.own()
		switch kind := c.substitute(m); {
		case kind != "":
			c.add(plan.Child, plan.Sources, &plan.OpenTree{Path: kind, Recursive: true, Save: mountName(i)}, ptr,
				"The container's user namespace doesn't own what a "+m.Type+" of its own would show: it gets the host's, read-only.")
		case m.Type == "proc" && !c.owns("pid") && !c.Facts.UserNS:
			return fmt.Errorf("%s/type: a procfs of a PID namespace that belongs to the host can't be mounted in a user namespace: bind /proc "+
				"instead", ptr)
		case m.Type == "mqueue" && !c.owns("ipc") && !c.Facts.UserNS:
			return fmt.Errorf("%s/type: an mqueue of an IPC namespace that belongs to the host can't be mounted in a user namespace: bind "+
				"/dev/mqueue instead", ptr)
		case c.madeAhead(i):
			if m.Type == "proc" && c.procfs == "" {
				c.procfs = mountName(i)
			}
		case m.Type == "proc" || m.Type == "sysfs":
			c.add(plan.Child, plan.Sources, &plan.FSMount{Type: m.Type, Source: m.Source, Options: o.data, Attrs: attrs, Save: mountName(i)}, ptr,
				"In a user namespace the kernel allows it only while the host's "+m.Type+" is in sight, so it is made before the root changes.")
			if m.Type == "proc" && c.procfs == "" {
				c.procfs = mountName(i)
			}
		}
	}
	if c.needsProc() {
		if err := c.needProc("/linux"); err != nil {
			return err
		}
	}
	// Nobody can make devices in a user namespace.
	host := c.devOfHost()
	if !host {
		for _, d := range defaultDevices {
			if !c.givenDevice(d.path) {
				c.openDevice(d.path, "c", d.major, d.minor, "")
			}
		}
	}
	for i, d := range s.Linux.Devices {
		if file := path.Clean(d.Path); d.Type != "p" && file != "/dev/ptmx" && !(host && strings.HasPrefix(file, "/dev/")) {
			c.openDevice(file, d.Type, uint32(d.Major), uint32(d.Minor), fmt.Sprintf("/linux/devices/%d", i))
		}
	}
	return nil
}

// substitute names the directory of the host that is bound where the container's user namespace can't mount a file system,
// because the namespace that it would show belongs to another.
func (c *container) substitute(m specs.Mount) string {
	switch {
	case !c.confined():
	case m.Type == "sysfs" && !c.owns("net"):
		return "/sys"
	case m.Type == "cgroup" && c.Facts.Cgroup.Mode != host.CgroupV2:
		// Each hierarchy is bound from the container's own cgroup: the whole tree would show those of all others.
	case (m.Type == "cgroup" || m.Type == "cgroup2") && !c.owns("cgroup"):
		for _, h := range c.Facts.Cgroup.Hierarchies {
			if c.Facts.Cgroup.Mode == host.CgroupV2 && h.V2 {
				return h.Mount
			}
		}
		return "/sys/fs/cgroup"
	}
	return ""
}

// taken attaches what sources took from the host in place of a new file system, and reports whether it did.
func (c *container) taken(i int, m specs.Mount, dest string, o mountOptions, ptr string) bool {
	if !c.confined() || o.remount {
		return false
	}
	attach := &plan.MoveMount{From: mountName(i), Target: dest, Create: "dir", NoSymlinks: m.Type == "proc" || m.Type == "sysfs"}
	if c.substitute(m) != "" {
		// CVE-2023-25809: the cgroup tree of the host must not be writable.
		attach.RecSet, attach.Propagation = slices.Compact(slices.Sorted(slices.Values(append(o.own(), "ro")))), []string{"rprivate"}
		c.add(plan.Child, plan.Mounts, attach, ptr, fmt.Sprintf("The host's %s, where it can only be read.", c.substitute(m)))
		return true
	}
	if m.Type != "proc" && m.Type != "sysfs" || c.madeAhead(i) {
		return false
	}
	attach.Keep = c.procfs == attach.From
	c.add(plan.Child, plan.Mounts, attach, ptr, mountReason(m.Type, dest))
	return true
}

// idMapped reports whether a mount has ids of its own.
func idMapped(m specs.Mount) bool {
	return len(m.UIDMappings)+len(m.GIDMappings) > 0 || slices.Contains(m.Options, "idmap") || slices.Contains(m.Options, "ridmap")
}

// idMappedSource writes the host's steps that take a mount and give it ids of its own (Linux 5.12).
func (c *container) idMappedSource(i int, m specs.Mount) error {
	ptr := fmt.Sprintf("/mounts/%d", i)
	uid, gid := m.UIDMappings, m.GIDMappings
	field := ptr + "/uidMappings"
	switch {
	case !isBind(m):
		return fmt.Errorf("%s: only bind mounts can have ids of their own", field)
	case len(uid)+len(gid) == 0 && c.users == joinedUsers:
	case len(uid)+len(gid) == 0 && c.users != ownUsers:
		return fmt.Errorf("%s/options: idmap without mappings means those of the container's user namespace, which has none", ptr)
	case len(uid)+len(gid) == 0:
		uid, gid = c.Spec.Linux.UIDMappings, c.Spec.Linux.GIDMappings
	case len(uid) == 0:
		return fmt.Errorf("%s: missing: user and group ids are mapped both or not at all", field)
	case len(gid) == 0:
		return fmt.Errorf("%s/gidMappings: missing: user and group ids are mapped both or not at all", ptr)
	}
	if !c.privileged() || c.Facts.UserNS {
		return fmt.Errorf("%s: ids of a mount can be mapped by who has privileges over the file system only, and not in a user namespace", field)
	}
	if !c.Facts.Kernel.AtLeast(5, 12) {
		return fmt.Errorf("%s: mounts with ids of their own need Linux 5.12, this is %s", field, c.Facts.Kernel.Release)
	}
	source, err := c.hostPath(m.Source, ptr+"/source")
	if err != nil {
		return err
	}
	from := "ns:user"
	if len(uid) > 0 {
		from = fmt.Sprintf("ids:%d", i)
		c.add(plan.Host, plan.Sources, &plan.UserNamespace{UID: idRanges(uid), GID: idRanges(gid), Save: from}, field,
			"The kernel takes the mapping of a mount's ids from a user namespace, which nobody lives in.")
	}
	c.add(plan.Host, plan.Sources, &plan.OpenTree{
		Path: source, Beneath: c.Mounts[path.Clean("/"+m.Destination)].Beneath, Recursive: slices.Contains(m.Options, "rbind"),
		Save: mountName(i), IDMap: from, IDMapRecursive: slices.Contains(m.Options,
			"ridmap"),
	}, ptr, sourceReason+" Its files have other owners in the container.")
	return nil
}

// bindSource takes the source of a bind mount from the host.
func (c *container) bindSource(lane plan.Lane, i int, m specs.Mount) error {
	ptr := fmt.Sprintf("/mounts/%d", i)
	source, err := c.hostPath(m.Source, ptr+"/source")
	if err != nil {
		return err
	}
	extra := c.Mounts[path.Clean("/"+m.Destination)]
	if extra.Beneath != "" && lane != plan.Host {
		return fmt.Errorf("%s/source: a part of a volume can be mounted by who has privileges over the host's mounts only", ptr)
	}
	if extra.NoLinks && lane != plan.Host {
		return fmt.Errorf("%s/source: a path without links can be mounted by who has privileges over the host's mounts only", ptr)
	}
	t := &plan.OpenTree{
		Path: source, Beneath: extra.Beneath, NoLinks: extra.NoLinks, Recursive: slices.Contains(m.Options, "rbind"), Save: mountName(i),
		MakeDir: lane == plan.Host && extra.MakeSource,
	}
	if path.Clean("/"+m.Destination) == "/proc" {
		t.FSType = "proc"
	}
	c.add(lane, plan.Sources, t, ptr, sourceReason)
	return nil
}
