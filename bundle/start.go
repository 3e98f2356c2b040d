package bundle

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"

	"glassbox/cgroup"
	"glassbox/compile"
	"glassbox/fork"
)

// Start lets a created container run.
func (r *Runtime) Start(id string) error {
	c, l, err := r.open(id)
	if err != nil {
		return err
	}
	defer l.unlock()
	switch s := c.status(); s {
	case Created:
	case Stopped:
		return c.ended(errors.New("cannot start a container that has stopped"))
	case Paused:
		return fmt.Errorf("cannot start a container that is paused: %w", ErrPaused)
	default:
		return fmt.Errorf("cannot start an already running container")
	}
	// Before it is released: a program may be over, and reaped, at once.
	pidfd, err := unix.PidfdOpen(c.PID, 0)
	if err == unix.ESRCH {
		return c.ended(errEnded)
	}
	if err != nil {
		return fmt.Errorf("the container's process: %w", err)
	}
	defer unix.Close(pidfd)
	if err := r.start(c, l, pidfd); err != nil {
		// A hook that fails ends the container (OCI runtime specification, lifecycle, step 6 and 8); any other error leaves it as it was.
		if failed := (hookError{}); errors.As(err, &failed) {
			return r.abandon(c, err)
		}
		return err
	}
	return c.ready.forward(c.PID, pidfd)
}

// start lets a container run, with the hooks before and after that. Its lock is let go.
func (r *Runtime) start(c *record, l *lock, pidfd int) error {
	defer func() { l.unlock() }()
	if slices.Contains(c.Hooks, startContainer) {
		s, err := r.starting(c)
		if err != nil {
			return err
		}
		defer s.unlock()
		l.unlock()
		// Hooks may call the runtime themselves (state, exec): the lock is free meanwhile, and starting keeps a second start out.
		if err := r.startHooks(c); err != nil {
			return err
		}
		again, err := r.relock(c)
		if err != nil {
			return err
		}
		// Deleted, or ended, while the hooks ran.
		if again == nil || c.status() != Created {
			return c.ended(errEnded)
		}
		l = again
	}
	var err error
	if c.ready, err = r.listen(c.ID); err != nil {
		return err
	}
	if err := r.release(c, pidfd); err != nil {
		return err
	}
	l.unlock() // what follows may be long
	return r.poststart(c)
}

// starting takes the lock of those who start a container: while its hooks run, other commands may work on it, and a second start may not.
func (r *Runtime) starting(c *record) (*lock, error) {
	f, err := os.Open(r.startDir(c.ID))
	if err != nil {
		return nil, err
	}
	// On the directory that is only there until the start: no file of its own to be tidied up.
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		return nil, errors.New("cannot start a container that another command is starting")
	}
	return &lock{f}, nil
}

// abandon ends and removes a container that must not go on, for the reason that is returned.
func (r *Runtime) abandon(c *record, reason error) error {
	l, err := r.relock(c)
	if err != nil || l == nil { // nil: somebody has removed it
		return errors.Join(reason, err)
	}
	defer l.unlock()
	// It may be waiting at the FIFO, or run already: poststart hooks fail late.
	if err := c.end(c.status()); err != nil {
		return errors.Join(reason, err)
	}
	return errors.Join(reason, r.destroy(c, l, true))
}

var errEnded = errors.New("the container's process ended before it was started")

// ended adds the cause to an error about a container that ended before it was started, if it was killed for want of memory.
func (c *record) ended(err error) error {
	if why := cgroup.TooSmall(c.Cgroups); why != "" {
		return fmt.Errorf("%w: it was OOM-killed: %s", err, why)
	}
	return err
}

// release opens the FIFO at which the container waits, and sees how its execve goes.
func (r *Runtime) release(c *record, pidfd int) error {
	path := filepath.Join(r.startDir(c.ID), compile.StartFIFO)
	// O_NONBLOCK: to open a FIFO for reading waits for a writer otherwise (fifo(7)), and the container may have been killed.
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0)
	if err != nil {
		return &os.PathError{Op: "open", Path: path, Err: err}
	}
	defer unix.Close(fd)
	// Execve closes the child's end, an error is written into it. A FIFO that has had no writer yet is not at its end.
	ready, err := readable(fd, pidfd)
	if err != nil {
		return err
	}
	report := make([]byte, 8)
	n, _ := unix.Read(fd, report)
	// Eight bytes are written at once and so read at once (pipe(7), PIPE_BUF).
	if n == len(report) {
		return r.startError(c, int(binary.NativeEndian.Uint32(report)), unix.Errno(binary.NativeEndian.Uint32(report[4:])))
	}
	// Neither an end nor an error at the FIFO: the process was killed before it had opened it.
	if !ready {
		return c.ended(errEnded)
	}
	// From here on a second start finds none, and says that the container runs.
	os.Remove(path)
	return nil
}

// readable waits until something can be read from a descriptor that a process has the other end of, or the process has ended; then it
// reports whether there was anything. poll(2) looks at one descriptor after the other, and a process may do its last things between the
// looks: after its end the descriptor is looked at once more.
func readable(fd, pidfd int) (bool, error) {
	fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}, {Fd: int32(pidfd), Events: unix.POLLIN}}
	for timeout := -1; ; {
		_, err := unix.Poll(fds, timeout)
		switch {
		case err == unix.EINTR:
		case err != nil:
			return false, err
		case fds[0].Revents != 0 || timeout == 0:
			return fds[0].Revents != 0, nil
		default:
			timeout = 0
		}
	}
}

// startError makes the error of a step that failed after the container was created.
func (r *Runtime) startError(c *record, step int, errno unix.Errno) error {
	p, err := r.plan(c.ID)
	if err != nil || step >= len(p.Steps) {
		return fmt.Errorf("step %d: %w", step+1, errno)
	}
	return &fork.StepError{Index: step, Total: len(p.Steps), Step: p.Steps[step], Err: errno, Code: 125}
}
