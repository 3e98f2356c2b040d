package engine

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"glassbox/cgroup"
	"glassbox/fork"
	"glassbox/state"
	"glassbox/supervise"
)

// signal sends a signal to a container's first process, and to no other that may have its pid by now.
func signal(s *supervise.State, sig unix.Signal) error {
	fd, err := unix.PidfdOpen(s.PID, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if start, err := fork.StartTime(s.PID); err != nil {
		return err
	} else if start != s.Start {
		return unix.ESRCH
	}
	return unix.PidfdSendSignal(fd, sig, nil, 0)
}

// Kill sends a signal to a running container's first process; an empty name is SIGKILL.
func (e *Engine) Kill(ref, name string) error {
	if name == "" {
		name = "KILL"
	}
	sig, err := ParseSignal(name)
	if err != nil {
		return err
	}
	c, s, err := e.running(ref)
	if err != nil {
		return err
	}
	if err := signal(s, sig); errors.Is(err, unix.ESRCH) {
		return conflict("container %s is not running", c.ID)
	} else if err != nil {
		return fmt.Errorf("signal container %s: %w", ref, err)
	}
	if sig == unix.SIGKILL {
		if s.Status == supervise.Paused {
			e.thaw(c.ID) // a frozen process of cgroup v1 dies only when it thaws
		}
		return e.ended(c.ID, 10*time.Second)
	}
	return nil
}

// ended waits until a container's supervisor has cleaned up.
func (e *Engine) ended(id string, timeout time.Duration) error {
	for end := time.Now().Add(timeout); time.Now().Before(end); time.Sleep(2 * time.Millisecond) {
		if !state.Held(e.lockFile(id)) {
			return nil
		}
	}
	return fmt.Errorf("container %s did not end within %v", id, timeout)
}

// Stop asks a container to end, and kills it when it hasn't after a time (seconds; nil: what the container was created with, or
// 10; negative: never). One that doesn't run is left alone.
func (e *Engine) Stop(ctx context.Context, ref string, timeout *int, name string) error {
	c, s, err := e.load(ref)
	if err != nil {
		return err
	}
	if s.Status != supervise.Running && s.Status != supervise.Paused {
		return nil
	}
	if timeout == nil {
		timeout = c.Config.StopTimeout
	}
	seconds := 10
	if timeout != nil {
		seconds = *timeout
	}
	if name == "" {
		name = c.StopSignal()
	}
	sig, err := ParseSignal(name)
	if err != nil {
		return err
	}
	if err := signal(s, sig); err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("signal container %s: %w", ref, err)
	}
	if s.Status == supervise.Paused {
		e.thaw(c.ID)
	}
	if seconds < 0 {
		_, _, err := e.await(ctx, c.ID)
		return err
	}
	if seconds > 0 && e.ended(c.ID, time.Duration(seconds)*time.Second) == nil {
		return nil
	}
	if err := signal(s, unix.SIGKILL); err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("kill container %s: %w", ref, err)
	}
	return e.ended(c.ID, 10*time.Second)
}

// await waits until nobody holds a container's lock, or the context ends. It returns what state.Await does.
func (e *Engine) await(ctx context.Context, id string) (code int, ok bool, err error) {
	type end struct {
		code int
		ok   bool
		err  error
	}
	done := make(chan end, 1)
	go func() {
		code, ok, err := state.Await(e.lockFile(id))
		done <- end{code, ok, err}
	}()
	select {
	case r := <-done:
		return r.code, r.ok, r.err
	case <-ctx.Done():
		return 0, false, ctx.Err()
	}
}

// Wait waits for a container's end and returns its exit code. For one that doesn't run it returns the last exit code.
func (e *Engine) Wait(ctx context.Context, ref string) (int, error) {
	c, s, err := e.load(ref)
	if err != nil {
		return 125, err
	}
	if s.Status == supervise.Created {
		return 0, nil
	}
	if s.Status == supervise.Exited {
		return s.ExitCode, nil
	}
	code, ok, err := e.await(ctx, c.ID)
	if err != nil {
		return 125, err
	}
	if ok {
		return code, nil
	}
	// It ended before we could look, or its supervisor was killed.
	if s, err = supervise.ReadState(e.dir(c.ID)); err == nil && s.Status == supervise.Exited {
		return s.ExitCode, nil
	}
	return 137, nil
}

// Restart stops a container and starts it again.
func (e *Engine) Restart(ctx context.Context, ref string, timeout *int) error {
	if err := e.Stop(ctx, ref, timeout, ""); err != nil {
		return err
	}
	s, err := e.Start(ctx, ref, StartOptions{})
	if err != nil {
		return err
	}
	s.Close()
	return nil
}

// RemoveOptions says how far removing goes.
type RemoveOptions struct {
	Force   bool // kill a running container
	Volumes bool // also its anonymous volumes (there are none yet)
}

// Remove removes a container that doesn't run, or any with Force.
func (e *Engine) Remove(_ context.Context, ref string, o RemoveOptions) error {
	id, err := e.resolve(ref)
	if o.Force && errors.Is(err, ErrNotFound) {
		return nil // as rm -f
	}
	if err != nil {
		return err
	}
	c, s, err := e.loadID(id)
	if err == nil && (s.Status == supervise.Running || s.Status == supervise.Paused) {
		if !o.Force {
			return conflict("cannot remove container %q: container is running: stop the container before removing or force remove", ref)
		}
		if err := e.Kill(id, "KILL"); err != nil && !errors.Is(err, ErrConflict) {
			return err
		}
	}
	if errors.Is(err, ErrNotFound) {
		return err
	}
	lock, fresh, err := state.Lock(e.lockFile(id), true)
	if err != nil {
		return err
	}
	defer state.Unlock(lock, e.lockFile(id))
	if !fresh {
		if err := supervise.RepairOne(e.dir(id), e.nameFileOf(id)); err != nil {
			return err
		}
	}
	nameFile := ""
	if c != nil {
		nameFile = e.nameFile(c.Name)
	} else {
		nameFile = e.nameFileOf(id)
	}
	return supervise.RemoveFiles(e.dir(id), nameFile)
}

// Rename gives a container another name.
func (e *Engine) Rename(ref, name string) error {
	if !validName(name) {
		return invalid("invalid container name (%s), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed", name)
	}
	id, err := e.resolve(ref)
	if err != nil {
		return err
	}
	c, _, err := e.loadID(id)
	if err != nil {
		return err
	}
	old := c.Name
	if old == name {
		return invalid("renaming a container with the same name as its current name")
	}
	c.Name = name
	if err := e.takeName(c); err != nil {
		return err
	}
	if err := state.WriteJSON(filepath.Join(e.dir(id), supervise.ContainerFile), c); err != nil {
		return err
	}
	return os.Remove(e.nameFile(old))
}

func (e *Engine) cgroups(id string) (map[string]string, error) {
	job, err := supervise.ReadJob(e.dir(id))
	if err != nil {
		return nil, err
	}
	return job.Cgroups, nil
}

func (e *Engine) pausedFile(id string) string { return filepath.Join(e.cfg.State, "paused", id) }

func (e *Engine) paused(id string) bool {
	_, err := os.Lstat(e.pausedFile(id))
	return err == nil
}

// Pause freezes all processes of a running container.
func (e *Engine) Pause(ref string) error {
	c, s, err := e.running(ref)
	if err != nil {
		return err
	}
	if s.Status == supervise.Paused {
		return conflict("container %s is already paused", ref)
	}
	paths, err := e.cgroups(c.ID)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(e.pausedFile(c.ID)), 0o700); err != nil {
		return err
	}
	if err := os.WriteFile(e.pausedFile(c.ID), nil, 0o600); err != nil {
		return err
	}
	if err := cgroup.Freeze(paths); err != nil {
		os.Remove(e.pausedFile(c.ID))
		return err
	}
	return nil
}

func (e *Engine) thaw(id string) error {
	paths, err := e.cgroups(id)
	if err != nil {
		return err
	}
	os.Remove(e.pausedFile(id))
	return cgroup.Thaw(paths)
}

// Unpause lets a paused container go on.
func (e *Engine) Unpause(ref string) error {
	c, s, err := e.running(ref)
	if err != nil {
		return err
	}
	if s.Status != supervise.Paused {
		return conflict("container %s is not paused", ref)
	}
	return e.thaw(c.ID)
}

// Stats reads the counters of a running container's cgroup, or those that were kept at its end.
func (e *Engine) Stats(ref string) (*cgroup.Stats, error) {
	c, s, err := e.load(ref)
	if err != nil {
		return nil, err
	}
	if s.Stats != nil {
		return s.Stats, nil
	}
	paths, err := e.cgroups(c.ID)
	if err != nil {
		return nil, conflict("container %s has never been started", ref)
	}
	return cgroup.ReadStats(paths)
}
