package compile

import (
	"fmt"

	"github.com/opencontainers/runtime-spec/specs-go"

	"glassbox/plan"
)

// Hook makes the step of a hook.
func Hook(name string, h specs.Hook, enter bool) *plan.Hook {
	o := &plan.Hook{Name: name, Path: h.Path, Args: h.Args, Env: h.Env, Enter: enter}
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
func (c *container) hooks() {
	if !c.hooked() {
		return
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
		for i, hook := range group.hooks {
			reason := "A program of the host that the configuration wants to run now, in the host's namespaces."
			if group.enter {
				reason = "A program of the host that the configuration wants to run now, in the container's namespaces."
			}
			c.add(plan.Host, plan.Exec, Hook(group.name, hook, group.enter), fmt.Sprintf("/hooks/%s/%d", group.name, i), reason)
		}
	}
	c.add(plan.Host, plan.Exec, &plan.Release{Name: "hooks"}, "/hooks", "The hooks have run; the root may change.")
}
