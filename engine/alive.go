package engine

import (
	"context"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"glassbox/cgroup"
	"glassbox/container"
	"glassbox/fork"
	"glassbox/state"
	"glassbox/supervise"
)

// Whether a container is alive stands in its state, and that the state is still true is what the lock says: its supervisor holds it as
// long as
// it lives. The lock alone says nothing, because it is also held by who creates, starts or removes the container, and by a supervisor that
// waits for the next run. What is waited for is therefore always one run, which the moment of its beginning tells from others.

// state reads what has become of a container. It fails only if there is none.
func (e *Engine) state(id string) (*supervise.State, error) {
	dir := e.dir(id)
	s, err := supervise.ReadState(dir)
	if err != nil {
		if s := e.recovered(id); s != nil {
			return s, nil
		}
		// A power failure can leave an empty file: what the container is, is known, and what became of it isn't.
		s = &supervise.State{Status: supervise.Exited, ExitCode: 137, Error: "its state was lost: " + err.Error()}
	}
	// No state file reads as Created, and a directory without container.json is being made or removed: only both together
	// tell that there is one.
	if s.Status == supervise.Created {
		if _, err := os.Stat(filepath.Join(dir, supervise.ContainerFile)); err != nil {
			return nil, err
		}
	}
	return e.now(id, s), nil
}

// now is what is true at this moment of a container whose state says s, which it may change.
func (e *Engine) now(id string, s *supervise.State) *supervise.State {
	if s.Status != supervise.Running && s.Status != supervise.Restarting {
		// The common case of a list of many that have ended: an end never changes again, so nobody asks for the lock.
		return s
	}
	if state.Held(e.lockFile(id)) {
		if s.Status == supervise.Running && e.paused(id) {
			s.Status = supervise.Paused
		}
		return s
	}
	return e.lost(id, s)
}

// lost finds out what became of a run whose supervisor is gone.
func (e *Engine) lost(id string, run *supervise.State) *supervise.State {
	// It may have come to its end between the two looks.
	if again, err := supervise.ReadState(e.dir(id)); err == nil {
		run = again
	}
	switch run.Status {
	case supervise.Running:
	case supervise.Restarting: // that run is over, and nobody is left to begin the next one
		run.Status, run.Error = supervise.Exited, supervise.ErrWaiting
		return run
	default:
		return run
	}
	e.orphan.Store(true)
	if end, ok := supervise.ReadEnd(e.cfg.State, e.dir(id), id, run); ok {
		return end
	}
	reason := supervise.ErrKilled
	if run.Boot != "" && run.Boot != supervise.BootID() {
		reason = "the host was restarted while it ran"
	}
	return &supervise.State{
		Status: supervise.Exited, ExitCode: 137, Started: run.Started, Finished: run.Started, Error: reason, Restarts: run.Restarts,
	}
}

// running returns a container that runs (or is paused).
func (e *Engine) running(ctx context.Context, ref string) (*container.Container, *supervise.State, error) {
	c, s, err := e.load(ctx, ref)
	if err != nil {
		return nil, nil, err
	}
	if s.Status == supervise.Restarting {
		return nil, nil, conflict("container %s is restarting, wait until the container is running", c.ID)
	}
	if !s.Alive() {
		return nil, nil, conflict("container %s is not running (%s)", c.ID, s.Status)
	}
	return c, s, nil
}

// end waits until a run of a container is over and what it took is given back, and returns its exit code. With the context it ends early.
func (e *Engine) end(ctx context.Context, id string, run *supervise.State) (int, error) {
	// Of a container that is removed at its end nothing else is left by then: the code stands in the lock's file, too.
	lock, err := os.Open(e.lockFile(id))
	if err == nil {
		defer lock.Close()
	}
	// First the pidfd, which costs nothing while a container runs for months. Only the few milliseconds in which its
	// supervisor tidies up are polled for.
	if err := gone(ctx, run); err != nil {
		return 125, err
	}
	var seen os.FileInfo
	for looks := 0; ; looks++ {
		held := state.Held(e.lockFile(id)) // before the look at the state: a supervisor writes that, and then lets go
		// One that hasn't been replaced isn't read again: with a thousand ports in it, who looks would take the processor from whom he waits
		// for.
		same := false
		if looks > 0 {
			info, err := os.Stat(filepath.Join(e.dir(id), supervise.StateFile))
			same = err == nil && seen != nil && os.SameFile(seen, info) && info.ModTime().Equal(seen.ModTime())
			seen = info
		}
		now, err := (*supervise.State)(nil), error(nil)
		if !same {
			now, err = supervise.ReadState(e.dir(id))
		}
		switch {
		case same:
		case err == nil && now.Status != supervise.Running && now.Started.Equal(run.Started) && now.Status != supervise.Created:
			return now.ExitCode, nil
		case err == nil && now.Before != nil && now.Before.Started.Equal(run.Started):
			return now.Before.ExitCode, nil // its restart policy was quicker than this look
		case err == nil && now.Status == supervise.Running && !now.Started.Equal(run.Started):
			held = false // somebody has started it again
		}
		buf := make([]byte, 16)
		// A read at offset 0, again and again: the supervisor writes the code there before it removes the directory
		// (--rm).
		if n, _ := lock.ReadAt(buf, 0); n > 0 {
			if code, err := strconv.Atoi(string(buf[:n])); err == nil {
				return code, nil
			}
		}
		if !held {
			return e.lost(id, run).ExitCode, nil
		}
		if err := pause(ctx, 2*time.Millisecond); err != nil {
			return 125, err
		}
	}
}

// gone waits until a run's first process has ended.
func gone(ctx context.Context, run *supervise.State) error {
	fd, err := unix.PidfdOpen(run.PID, unix.PIDFD_NONBLOCK)
	if err != nil {
		return nil // ESRCH; without pidfds nothing would run at all
	}
	f := os.NewFile(uintptr(fd), "pidfd")
	defer f.Close()
	if start, err := fork.StartTime(run.PID); err != nil || start != run.Start {
		return nil // the pid is another's
	}
	raw, err := f.SyscallConn()
	if err != nil {
		return err
	}
	// A deadline that has passed wakes the poller, which is the only way to end a wait for a file that has no other end of
	// ours.
	defer context.AfterFunc(ctx, func() { f.SetReadDeadline(time.Unix(1, 0)) })()
	// A pidfd becomes readable when its process ends (pidfd_open(2)); Go's poller waits for it, so that no thread has to.
	raw.Read(func(fd uintptr) bool {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 0)
		return err != nil && err != unix.EINTR || n > 0
	})
	return ctx.Err()
}

// recovered is the state of a container that runs, though what is written of that is damaged: its supervisor holds the lock, and the first
// process is the oldest of the cgroup. Nil: it doesn't run, or that can't be found out.
func (e *Engine) recovered(id string) *supervise.State {
	if !state.Held(e.lockFile(id)) {
		return nil
	}
	job, err := supervise.ReadJob(e.dir(id))
	if err != nil {
		return nil
	}
	pids, err := cgroup.Procs(job.Cgroups)
	if err != nil {
		return nil
	}
	s := &supervise.State{Status: supervise.Running, Boot: supervise.BootID()}
	for _, pid := range pids {
		if start, err := fork.StartTime(pid); err == nil && (s.PID == 0 || start < s.Start) {
			s.PID, s.Start = pid, start
		}
	}
	if s.PID == 0 {
		return nil
	}
	if st, err := os.Stat(filepath.Join(e.dir(id), supervise.JobFile)); err == nil {
		s.Started = st.ModTime().UTC() // a moment before
	}
	if e.paused(id) {
		s.Status = supervise.Paused
	}
	return s
}
