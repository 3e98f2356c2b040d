package bundle

import (
	"fmt"
	"runtime"
	"slices"

	"github.com/opencontainers/runtime-spec/specs-go"

	"glassbox/compile"
	"glassbox/fork"
)

// Kinds of hooks, as in the configuration.
const (
	startContainer = "startContainer"
	poststart      = "poststart"
	poststop       = "poststop"
)

// hooksOf returns the container's hooks of a kind.
func (r *Runtime) hooksOf(c *record, kind string) ([]specs.Hook, error) {
	if !slices.Contains(c.Hooks, kind) {
		return nil, nil
	}
	spec, err := r.config(c)
	if err != nil {
		return nil, err
	}
	switch kind {
	case startContainer:
		return spec.Hooks.StartContainer, nil
	case poststart:
		return spec.Hooks.Poststart, nil
	}
	return spec.Hooks.Poststop, nil
}

// poststart runs the hooks after the start. The specification (runtime.md, lifecycle) wants a failing one warned of and the
// others run.
func (r *Runtime) poststart(c *record) error {
	hooks, err := r.hooksOf(c, poststart)
	if err == nil {
		r.hooks(c, poststart, hooks, Running, c.PID)
	}
	return err
}

// poststop runs the hooks after the end, likewise.
func (r *Runtime) poststop(c *record, hooks []specs.Hook) {
	r.hooks(c, poststop, hooks, Stopped, 0)
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
	hooks, err := r.hooksOf(c, startContainer)
	if err == nil && len(hooks) > 0 && r.Protect != nil {
		err = r.Protect()
	}
	if err != nil {
		return err
	}
	for i, h := range hooks {
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
