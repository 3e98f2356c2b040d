package bundle

import (
	"fmt"
	"runtime"

	"github.com/opencontainers/runtime-spec/specs-go"

	"glassbox/compile"
	"glassbox/fork"
)

// poststart runs the hooks after the start. The specification (runtime.md, lifecycle) wants a failing one warned of and the
// others run.
func (r *Runtime) poststart(c *record) error {
	if c.Hooks == nil || len(c.Hooks.Poststart) == 0 {
		return nil
	}
	r.hooks(c, "poststart", c.Hooks.Poststart, Running, c.PID)
	return nil
}

// poststop runs the hooks after the end.
func (r *Runtime) poststop(c *record) {
	if c.Hooks != nil {
		r.hooks(c, "poststop", c.Hooks.Poststop, Stopped, 0)
	}
}

func (r *Runtime) hooks(c *record, name string, hooks []specs.Hook, status string, pid int) {
	for i, h := range hooks {
		state, err := c.hookState(status, pid)
		if err == nil {
			err = fork.RunHook(compile.Hook(name, h, false), state)
		}
		if err != nil {
			r.warn("/hooks/%s/%d: run %s: %v", name, i, h.Path, err)
		}
	}
}

// startHooks runs the hooks that belong into the container before its program, as exec would.
func (r *Runtime) startHooks(c *record) error {
	if c.Hooks == nil {
		return nil
	}
	for i, h := range c.Hooks.StartContainer {
		// Who enters a container's PID namespace can't leave it: the thread that does ends with its goroutine.
		done := make(chan error)
		go func() {
			runtime.LockOSThread()
			done <- r.startHook(c, compile.Hook("startContainer", h, false))
		}()
		if err := <-done; err != nil {
			return fmt.Errorf("/hooks/startContainer/%d: run %s: %w", i, h.Path, err)
		}
	}
	return nil
}
