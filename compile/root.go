package compile

import (
	"fmt"
	"path"
	"slices"
	"strings"

	"glassbox/plan"

	"github.com/opencontainers/runtime-spec/specs-go"
)

func (c *container) rootfs() error {
	s := c.Spec
	flags := []string{"rec", "private"}
	switch s.Linux.RootfsPropagation {
	case "", "private", "rprivate", "shared", "rshared", "unbindable", "runbindable":
	case "slave", "rslave":
		// Mounts that the host makes later are to be seen, not the other way around.
		flags[1] = "slave"
	default:
		return fmt.Errorf("/linux/rootfsPropagation: unknown value %q", s.Linux.RootfsPropagation)
	}
	c.ahead = c.countAhead()
	becomes := c.users == ownUsers || c.users == joinedUsers // root of a user namespace, to which file systems are to belong
	if !becomes {
		if err := c.makeAhead(); err != nil {
			return err
		}
	}
	target := c.Mountpoint
	if !c.chroot {
		c.add(plan.Child, plan.Rootfs, &plan.Mount{Target: "/", Flags: flags}, "/linux/rootfsPropagation",
			"Mounts made from here on stay in the container's mount namespace.")
	}
	switch {
	case c.chroot: // the parent has mounted the root
		if err := c.sources(); err != nil {
			return err
		}
	case c.Overlay != nil:
		if err := c.sources(); err != nil {
			return err
		}
		c.become() // overlayfs goes on with the ids of who mounts it
		c.add(plan.Child, plan.Rootfs, c.Overlay, "/root",
			"The image's layers are stacked; writes go to the container's own upper directory, the image stays as it is.")
	default:
		source, err := c.hostPath(s.Root.Path, "/root/path")
		if err != nil {
			return err
		}
		if target == "" {
			target = source
		}
		c.add(plan.Child, plan.Rootfs, &plan.Mount{Source: source, Target: target, Flags: []string{"bind", "rec"}}, "/root/path",
			"pivot_root wants a mount: the directory is bound to itself or to an empty directory.")
		if err := c.sources(); err != nil {
			return err
		}
	}
	ahead := becomes && c.ahead > 0
	switch {
	case c.hooked():
		c.add(plan.Child, plan.Rootfs, &plan.RootDir{Path: target}, "/root",
			"Names of the container are looked up below it from here on; hooks want to see it before it becomes the root.")
	case ahead:
		c.add(plan.Child, plan.Rootfs, &plan.RootDir{Path: target}, "/root", "The way to it may be closed to root of the container.")
	default:
		c.pivot(target)
	}
	// With an overlay it has done so already, before it was mounted.
	if c.Overlay == nil {
		c.become()
	}
	if ahead {
		if err := c.makeAhead(); err != nil {
			return err
		}
		if !c.hooked() {
			c.pivot(".")
		}
	}
	return nil
}

// ownTypes are file systems that are made of nothing of the host's: their source is a mere word.
var ownTypes = []string{"proc", "sysfs", "tmpfs", "ramfs", "devpts", "devtmpfs", "mqueue", "cgroup", "cgroup2"}

// needsHost reports whether a mount can only be made while the root is still the host's: the clone of a host's mount, a file system of
// the host's files or devices, or in a user namespace procfs and sysfs.
func (c *container) needsHost(m specs.Mount) bool {
	switch {
	case slices.Contains(m.Options, "remount"):
		return false
	case isBind(m):
		return c.childSources()
	}
	return !slices.Contains(ownTypes, m.Type) || c.confined() && (m.Type == "proc" || m.Type == "sysfs")
}

// countAhead counts the mounts up to the last one that needs the host. To keep to the order of the configuration all of them are made
// then; those after it are made where they belong.
func (c *container) countAhead() int {
	for i := len(c.Spec.Mounts); c.InOrder && i > 0; i-- {
		if c.needsHost(c.Spec.Mounts[i-1]) {
			return i
		}
	}
	return 0
}

// makeAhead makes mounts that will be attached once the root has changed. Nothing is private yet, so the clone of a shared mount of
// the host can still be of its peer group.
func (c *container) makeAhead() error {
	for i, m := range c.Spec.Mounts[:c.ahead] {
		o := parseOptions(m.Options)
		switch {
		case isBind(m) && !o.remount && !idMapped(m) && c.childSources():
			if err := c.bindSource(plan.Child, i, m); err != nil {
				return err
			}
		case c.madeAhead(i):
			made := *c.fileSystem(i, m, o)
			made.Target, made.Save, made.KeepMode, made.Propagation = "", mountName(i), false, nil
			reason := "Mounts are made in the order of the configuration, and a later one needs the host in sight. This one gets its place when " +
				"the root has changed."
			if c.needsHost(m) {
				reason = "It needs the host in sight, so it is made now, and gets its place when the root has changed."
			}
			c.add(plan.Child, plan.Sources, &made, fmt.Sprintf("/mounts/%d", i), reason)
		}
	}
	return nil
}

// madeAhead reports whether a mount is a file system that makeAhead makes.
func (c *container) madeAhead(i int) bool {
	if i >= c.ahead {
		return false
	}
	m := c.Spec.Mounts[i]
	return !isBind(m) && !slices.Contains(m.Options, "remount") && c.substitute(m) == "" &&
		!c.fileSystem(i, m, parseOptions(m.Options)).Classic()
}

func (c *container) pivot(root string) {
	if c.chroot {
		c.add(plan.Child, plan.Rootfs, &plan.Chroot{Root: root}, "/root", "The process, and its children, see no more than what is below. "+
			"Root finds the way back: without a mount namespace there is no other means.")
		return
	}
	if c.NoPivot {
		c.add(plan.Child, plan.Rootfs, &plan.MoveRoot{Root: root}, "/root",
			"A ramdisk can't be left by pivot_root: the new root covers the old one.")
		return
	}
	c.add(plan.Child, plan.Rootfs, &plan.PivotRoot{Root: root}, "/root",
		"The new root replaces the old one, which is detached: unlike after chroot, no way leads back.")
}

// rootPropagation is what the root becomes in the end: private and slave it is already, and what is mounted below a shared mount
// would be shared, too.
func (c *container) rootPropagation() string {
	switch p := c.Spec.Linux.RootfsPropagation; p {
	case "shared", "rshared", "unbindable", "runbindable":
		return p
	}
	return ""
}

// hostPath makes a path of the host absolute.
func (c *container) hostPath(p, ptr string) (string, error) {
	switch {
	case p == "":
		return "", fmt.Errorf("%s: missing", ptr)
	case strings.HasPrefix(p, "/"):
		return p, nil
	case c.Bundle == "":
		return "", fmt.Errorf("%s: %q is not an absolute path", ptr, p)
	}
	return path.Join(c.Bundle, p), nil
}
