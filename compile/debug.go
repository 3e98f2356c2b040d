package compile

import (
	"fmt"
	"slices"

	"glassbox/plan"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// ContainerDir is where Debug shows the container's own files.
const ContainerDir = "/.container"

// DebugInput describes a process in the namespaces of a running container, but with programs from elsewhere: of an image (Overlay,
// whose upper directory is thrown away afterwards) or of the host.
type DebugInput struct {
	ExecInput          // Mountpoint is needed; of Spec count the masked and read-only paths, too
	Tools     []string // without Overlay: directories of the host to be seen, read-only, such as /usr
}

// Debug compiles the start of a process that looks at a container with other tools than its own. It lives in the container's
// namespaces but for that of mounts: there it has its own, in which the root is a new one with the tools, /proc and /dev are
// new, and the container's files are at [ContainerDir].
//
// The host's tools are single directories bound into an empty root, not the host's root: sockets in /run, the homes and the data
// of other containers aren't there, whoever gets at the process.
func Debug(in DebugInput) (*Output, error) {
	switch {
	case in.Mountpoint == "":
		return nil, fmt.Errorf("there is no directory to mount the tools' root on")
	case !slices.Contains(in.Namespaces, "mount") || !slices.Contains(in.Namespaces, "pid"):
		return nil, fmt.Errorf("/linux/namespaces: debug needs a container with mount and PID namespaces of its own: without the second its " +
			"tools would be seen by the processes of the host")
	}
	return further(in.ExecInput, &in)
}

// debugSources writes the host's steps that take the tools, and refuses what can't work.
func (c *container) debugSources(in *DebugInput) error {
	switch {
	case c.users == joinedUsers:
		return fmt.Errorf("/linux/namespaces: debug is not possible in a container with a user namespace: its root can't make a root of the " +
			"host's files. Use exec")
	case !c.privileged() || c.Facts.UserNS:
		return fmt.Errorf("/linux/namespaces: debug mounts files of the host, for which glassbox must be root of the host (CAP_SYS_ADMIN in " +
			"the first user namespace)")
	}
	c.add(plan.Host, plan.Isolation, &plan.Open{Path: "/proc/thread-self/ns/mnt", Namespace: "mount", Save: "own mounts"}, "",
		"The way back from the container's mount namespace, where the child only fetches the container's files.")
	sys := []string{"nosuid", "noexec", "nodev", "ro"}
	c.Spec.Mounts = []specs.Mount{
		{Destination: "/proc", Type: "proc", Source: "proc", Options: sys[:3]},
		{Destination: "/sys", Type: "sysfs", Source: "sysfs", Options: sys},
		{Destination: "/dev", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "strictatime", "mode=755", "size=65536k"}},
		{Destination: "/dev/pts", Type: "devpts", Source: "devpts", Options: []string{
			"nosuid", "noexec", "newinstance", "ptmxmode=0666",
			"mode=0620", "gid=5",
		}},
	}
	if c.Overlay == nil {
		for _, dir := range in.Tools {
			c.Spec.Mounts = append(c.Spec.Mounts, specs.Mount{
				Destination: dir, Type: "bind", Source: dir,
				// With what is mounted below, as on hosts where /usr/lib is a file system of its own; and all of it read-only.
				Options: []string{"rbind", "rro", "rnosuid", "rnodev"},
			})
		}
	}
	if in.Spec != nil && in.Spec.Linux != nil {
		c.Spec.Linux.MaskedPaths, c.Spec.Linux.ReadonlyPaths = in.Spec.Linux.MaskedPaths, in.Spec.Linux.ReadonlyPaths
	}
	return c.parentSources()
}

// debugRoot writes the child's steps that make its mount namespace, from inside the container's.
func (c *container) debugRoot(in *DebugInput) error {
	const files = "container files"
	c.add(plan.Child, plan.Sources, &plan.OpenTree{Path: "/", Recursive: true, Save: files}, "",
		"A clone of all mounts of the container, from its root: no name in it is followed.")
	c.add(plan.Child, plan.Isolation, &plan.Setns{From: "own mounts", Namespaces: []string{"mount"}}, "",
		"Back: the tools are not to be mounted in the container.")
	c.add(plan.Child, plan.Isolation, &plan.Unshare{Namespaces: []string{"mount"}}, "",
		"A mount namespace for this process alone; it ends with it.")
	c.add(plan.Child, plan.Rootfs, &plan.Umask{Mask: 0}, "", "Modes of directories and devices below are meant exactly.")
	c.add(plan.Child, plan.Rootfs, &plan.Mount{Target: "/", Flags: []string{"rec", "private"}}, "",
		"Mounts made from here on stay in this mount namespace.")
	if c.Overlay != nil {
		c.add(plan.Child, plan.Rootfs, c.Overlay, "/root", "The layers of the image with the tools are stacked; what is written is thrown away.")
	} else {
		c.add(plan.Child, plan.Rootfs, &plan.Mount{
			Source: "tmpfs", Target: in.Mountpoint, Type: "tmpfs", Flags: []string{"nosuid", "nodev"},
			Data: "mode=755",
		}, "/root",
			"An empty root: of the host's files only those named below will be there.")
	}
	c.pivot(in.Mountpoint)
	if err := c.mounts(); err != nil {
		return err
	}
	if err := c.devices(); err != nil {
		return err
	}
	if err := c.paths(); err != nil {
		return err
	}
	if c.Overlay == nil {
		c.add(plan.Child, plan.Rootfs, &plan.Mkdir{Path: "/root", Mode: 0o700}, "", "Programs want a home.")
		c.add(plan.Child, plan.Rootfs, &plan.Mkdir{Path: "/tmp", Mode: 0o1777}, "", "Programs want a place for files that they throw away.")
	}
	c.add(plan.Child, plan.Mounts, &plan.MoveMount{From: files, Target: ContainerDir, Create: "dir", Propagation: []string{"rprivate"}}, "",
		"The container's files, with what is mounted there, as the container sees them.")
	return nil
}
