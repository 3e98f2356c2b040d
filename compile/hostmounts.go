package compile

import (
	"fmt"
	"slices"

	"glassbox/plan"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// OwnMounts reports whether a container has another mount namespace than the host's.
func OwnMounts(list []specs.LinuxNamespace) bool {
	return slices.ContainsFunc(list, func(n specs.LinuxNamespace) bool { return n.Type == specs.MountNamespace })
}

// checkHostMounts refuses what needs a mount namespace where there is none.
func (c *container) checkHostMounts() error {
	l := c.Spec.Linux
	const why = "needs a mount namespace of the container's own, which /linux/namespaces doesn't ask for"
	switch {
	case !c.HostMounts:
		return fmt.Errorf("/linux/namespaces: a container needs a mount namespace other than the host's")
	case slices.ContainsFunc(l.Namespaces, func(n specs.LinuxNamespace) bool { return n.Type == specs.UserNamespace }):
		// Born in one, the process has no power over the host's mounts; from within a chroot it can't make one (unshare(2)).
		return fmt.Errorf("/linux/namespaces: a user namespace %s", why)
	case len(l.MaskedPaths) > 0:
		return fmt.Errorf("/linux/maskedPaths: hiding paths %s: who leaves the chroot finds them elsewhere", why)
	case len(l.ReadonlyPaths) > 0:
		return fmt.Errorf("/linux/readonlyPaths: making paths read-only %s: who leaves the chroot finds them elsewhere", why)
	case !slices.Contains([]string{"", "private", "rprivate"}, l.RootfsPropagation):
		return fmt.Errorf("/linux/rootfsPropagation: %q %s", l.RootfsPropagation, why)
	}
	c.chroot = true
	c.warnings = append(c.warnings, "/linux/namespaces: without a mount namespace the container's mounts are made in the host's, and its "+
		"root is entered by chroot: root of the container gets out of it (chroot(2))")
	return nil
}

// mountRoot mounts the root in the host's mount namespace. The parent does it and not the child, which may go on for a moment after the
// parent was killed: a mount that is made after others took everything back would stay. What the child attaches below goes with it.
func (c *container) mountRoot() error {
	source, err := c.hostPath(c.Spec.Root.Path, "/root/path")
	if err != nil {
		return err
	}
	c.add(plan.Host, plan.Rootfs, &plan.RootMount{Source: source, Target: c.Mountpoint}, "/root/path",
		"Without a mount namespace of its own the container has its mounts in the host's, below this one, which goes when the container is "+
			"deleted.")
	return nil
}
