package bundle

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"glassbox/cgroup"
	"glassbox/plan"
)

// Kill sends a signal to the container's first process, or with all to every process of its cgroup. With the first process of a PID
// namespace all others end; a container without one of its own is killed process by process, whether the first one is left or not.
func (r *Runtime) Kill(id string, sig unix.Signal, all bool) error {
	c, err := r.load(id)
	if err != nil {
		return err
	}
	status := c.status()
	if status == Created && endsRuntime(sig) {
		// The kernel keeps signals without a handler from the first process of a PID namespace, but for SIGKILL (pid_namespaces(7)), and
		// this one has no program yet. Callers expect what runc does, whose own process it would be.
		sig = unix.SIGKILL
	}
	// --all is about the cgroup, whatever the first process does.
	if all && len(c.Cgroups) > 0 {
		return c.killAll(sig)
	}
	// Without a PID namespace of its own nobody ends with the first process, which may even have ended before the others.
	if sig == unix.SIGKILL && c.sharesPIDs() && len(c.Cgroups) > 0 {
		if status == Stopped {
			if pids, _ := cgroup.Procs(c.Cgroups); len(pids) == 0 {
				return ErrNotRunning
			}
		}
		return c.killAll(sig)
	}
	if status == Stopped {
		return ErrNotRunning
	}
	// By pidfd, with the start time compared: pids of containers that ended an hour ago are others' by now.
	if err := c.signal(sig); err != nil {
		if err == unix.ESRCH {
			return ErrNotRunning
		}
		return fmt.Errorf("signal %d to process %d: %w", sig, c.PID, err)
	}
	if sig == unix.SIGKILL && status == Paused {
		cgroup.Thaw(c.Cgroups) // on v1 a frozen process doesn't even die
	}
	return nil
}

// endsRuntime reports whether a signal ends a Go program that doesn't ask for it (package os/signal), as the runtime is that waits in
// runc's place of the program.
func endsRuntime(sig unix.Signal) bool {
	return slices.Contains([]unix.Signal{
		unix.SIGTERM, unix.SIGINT, unix.SIGHUP, unix.SIGQUIT, unix.SIGKILL, unix.SIGABRT,
		unix.SIGILL, unix.SIGTRAP, unix.SIGBUS, unix.SIGFPE, unix.SIGSEGV, unix.SIGSYS, unix.SIGSTKFLT,
	}, sig)
}

func (c *record) sharesPIDs() bool { return c.SharedPIDs || !slices.Contains(c.Namespaces, "pid") }

func (c *record) killAll(sig unix.Signal) error {
	if sig == unix.SIGKILL {
		return cgroup.Kill(c.Cgroups)
	}
	return cgroup.Signal(c.Cgroups, sig)
}

// Delete removes a stopped container; with force, any, and one that doesn't exist is no error then.
func (r *Runtime) Delete(id string, force bool) error {
	l, err := r.lock(id, true)
	if err != nil {
		// runc's delete --force is used to make sure: engines call it for containers that may never have been made.
		if force && errors.Is(err, ErrNotExist) {
			return nil
		}
		return err
	}
	defer l.unlock()
	c, err := r.load(id)
	if err != nil {
		if !force {
			return err
		}
		if err := r.undoFile(id); err != nil { // half made, or its state is damaged
			return err
		}
		return os.RemoveAll(r.dir(id))
	}
	// Asked with the lock held: what is stopped by now can't be started any more.
	if s := c.status(); s != Stopped {
		if !force {
			return fmt.Errorf("cannot delete container %s that is not stopped: %s", id, s)
		}
		if err := c.end(s); err != nil {
			return err
		}
	}
	return r.destroy(c, l, force)
}

// end kills a container's first process and waits until it is gone.
func (c *record) end(status string) error {
	err := c.signal(unix.SIGKILL)
	if err != nil && err != unix.ESRCH {
		return fmt.Errorf("kill process %d: %w", c.PID, err)
	}
	// On v1 the signal waits for the thaw; on v2 it is harmless.
	if status == Paused {
		cgroup.Thaw(c.Cgroups)
	}
	// A process in an uninterruptible wait dies when the wait is over; eight seconds in all, and then the error says so.
	for wait := time.Millisecond; wait < 4*time.Second; wait *= 2 {
		if alive, _ := c.process(); !alive {
			return nil
		}
		time.Sleep(wait)
	}
	return fmt.Errorf("process %d doesn't end", c.PID)
}

// destroy removes what is left of a stopped container, lets its lock go, and runs the poststop hooks: they come when the container is
// deleted, and what they call must not wait for us.
func (r *Runtime) destroy(c *record, l *lock, force bool) error {
	left := c.left
	if left == nil {
		var err error
		if left, err = r.leftovers(c.ID); err != nil {
			return err
		}
	}
	// A resource class with a name of its own stays, whoever made it (config-linux.md, IntelRdt).
	if left != nil {
		left.Steps = slices.DeleteFunc(left.Steps, func(s plan.Step) bool {
			o, ok := s.Op.(*plan.ResctrlRemove)
			return ok && o.Shared
		})
	}
	// poststop hooks stand in config.json, which is removed below.
	if slices.Contains(c.Hooks, poststop) { // read before the file is gone
		if _, err := r.config(c); err != nil {
			r.warn("%v", err)
		}
	}
	// Without a PID namespace of its own, processes may have outlived the first one.
	if err := r.undo(left, c.sharesPIDs()); err != nil {
		if !force || !errors.Is(err, unix.EBUSY) {
			return err
		}
		// Somebody has put a process of the host's into the container's cgroup: it isn't ours to kill, and no reason to keep a container.
		r.warn("%v: it stays", err)
	}
	// Those above its own that were made for it. Another container may be in them by now, which is no error of this one.
	if err := cgroup.RemoveEmpty(c.Parents); err != nil {
		r.warn("%v", err)
	}
	// The state goes first: from here on the container doesn't exist.
	if err := os.Remove(filepath.Join(r.dir(c.ID), stateFile)); err != nil && !os.IsNotExist(err) {
		return err
	}
	if err := os.RemoveAll(r.dir(c.ID)); err != nil {
		return err
	}
	l.unlock()
	r.poststop(c)
	return nil
}

// Pause freezes all processes of a container.
func (r *Runtime) Pause(id string) error {
	c, l, err := r.open(id)
	if err != nil {
		return err
	}
	defer l.unlock()
	if s := c.status(); s != Running && s != Created {
		return fmt.Errorf("container not running or created: %s", s)
	}
	if len(c.Cgroups) == 0 {
		return errors.New("the container has no cgroup of its own, and can't be paused")
	}
	// The freezer and not SIGSTOP: a program can see, and its parent is told of, a signal.
	return cgroup.Freeze(c.Cgroups)
}

// Resume lets a paused container go on.
func (r *Runtime) Resume(id string) error {
	c, l, err := r.open(id)
	if err != nil {
		return err
	}
	defer l.unlock()
	// Thawing what isn't frozen would be harmless; runc's error is what callers know.
	if s := c.status(); s != Paused {
		return fmt.Errorf("container not paused: %s", s)
	}
	return cgroup.Thaw(c.Cgroups)
}

// Processes returns the pids of a container's processes, on the host.
func (r *Runtime) Processes(id string) ([]int, error) {
	c, err := r.load(id)
	if err != nil {
		return nil, err
	}
	if len(c.Cgroups) == 0 {
		return nil, errors.New("the container has no cgroup of its own, which would tell its processes")
	}
	return cgroup.Procs(c.Cgroups)
}
