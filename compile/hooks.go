package compile

import (
	"cmp"
	"fmt"

	"github.com/opencontainers/runtime-spec/specs-go"

	"glassbox/plan"
)

// Hook makes the step of a hook that works in a directory of the host: the bundle, or what becomes the container's root for one that
// enters the container.
func Hook(name string, h specs.Hook, dir string, enter bool) *plan.Hook {
	o := &plan.Hook{Name: name, Path: h.Path, Args: h.Args, Env: h.Env, Dir: dir, Enter: enter}
	// Without an environment of its own a hook outside has the runtime's, as with runc. One inside gets nothing of the host's: there
	// may be others in namespaces that are joined, who could read it.
	o.Inherit = h.Env == nil && !enter
	if h.Timeout != nil {
		o.Timeout = *h.Timeout
	}
	return o
}

// hooked reports whether hooks want to see the container before its root changes.
func (c *container) hooked() bool {
	h := c.Spec.Hooks
	//lint:ignore SA1019 prestart is deprecated, and still in use
	return h != nil && len(h.Prestart)+len(h.CreateRuntime)+len(h.CreateContainer) > 0
}

// hooks writes the host's steps of the hooks that belong to the creation. Those of start and of the end are not part of a plan.
func (c *container) hooks() error {
	if !c.hooked() {
		return nil
	}
	root := ""
	if c.Spec.Root != nil {
		var err error
		if root, err = c.hostPath(c.Spec.Root.Path, "/root/path"); err != nil {
			return err
		}
	}
	c.add(plan.Host, plan.Exec, &plan.Expect{Name: "mounted"}, "/hooks", "Hooks run when the container's namespaces and mounts are there.")
	h := c.Spec.Hooks
	//lint:ignore SA1019 as above
	prestart := h.Prestart
	for _, group := range []struct {
		name  string
		hooks []specs.Hook
		enter bool
	}{{"prestart", prestart, false}, {"createRuntime", h.CreateRuntime, false}, {"createContainer", h.CreateContainer, true}} {
		dir := c.Bundle
		if group.enter {
			dir = cmp.Or(c.Mountpoint, root)
		}
		for i, hook := range group.hooks {
			reason := "A program of the host that the configuration wants to run now, in the host's namespaces."
			if group.enter {
				reason = "A program of the host that the configuration wants to run now, in the container's namespaces."
			}
			c.add(plan.Host, plan.Exec, Hook(group.name, hook, dir, group.enter), fmt.Sprintf("/hooks/%s/%d", group.name, i), reason)
		}
	}
	c.add(plan.Host, plan.Exec, &plan.Release{Name: "hooks"}, "/hooks", "The hooks have run; the root may change.")
	return nil
}
