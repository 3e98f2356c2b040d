package engine

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"glassbox/cgroup"
	"glassbox/container"
	"glassbox/event"
	"glassbox/fork"
	"glassbox/state"
	"glassbox/supervise"
)

// signal sends a signal to a container's first process, and to no other that may have its pid by now. ESRCH says that it is gone.
func (e *Engine) signal(c *container.Container, s *supervise.State, sig unix.Signal) error {
	// A pid may pass to another process between two system calls; the descriptor can't. Whether it is the right process is asked after it is
	// open.
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
	if sig != 0 { // which only asks whether it is there
		e.happened(c, event.Kill, "signal", strconv.Itoa(int(sig))) // before it: the end that it may bring is a later event
	}
	return unix.PidfdSendSignal(fd, sig, nil, 0)
}

// killWait is how long the kernel and the supervisor may take to end what got SIGKILL: a process in an uninterruptible wait takes longer.
const killWait = 10 * time.Second

// Kill sends a signal to a running container's first process; an empty name is SIGKILL, whose effect is waited for.
func (e *Engine) Kill(ctx context.Context, ref, name string) error {
	if name == "" {
		name = "KILL"
	}
	sig, err := ParseSignal(name)
	if err != nil {
		return err
	}
	c, s, err := e.load(ctx, ref)
	if err != nil {
		return err
	}
	ends := endsIt(c, sig)
	// Before the signal. The supervisor reads the mark when the container ends, which may be at once.
	if ends {
		if err := e.markStopped(c); err != nil {
			return err
		}
	}
	if s.Status == supervise.Restarting {
		// There is no process to get a signal. As with Docker it is ended by those that would end it, and others are taken note of.
		if !ends {
			return nil
		}
		e.happened(c, event.Kill, "signal", strconv.Itoa(int(sig)))
		return e.halt(ctx, c, func(*supervise.State) error { return e.killNow(ctx, c) })
	}
	// Asked again with the words for what doesn't run: the mark was for those, too, so that a policy doesn't start them
	// with the host.
	if c, s, err = e.running(ctx, ref); err != nil {
		return err
	}
	if err := e.signal(c, s, sig); errors.Is(err, unix.ESRCH) {
		return conflict("container %s is not running", c.ID)
	} else if err != nil {
		return fmt.Errorf("signal container %s: %w", ref, err)
	}
	if sig != unix.SIGKILL {
		return nil
	}
	if s.Status == supervise.Paused {
		e.thaw(c.ID) // a frozen process of cgroup v1 dies only when it thaws
	}
	if err := e.ended(ctx, c.ID, s, killWait); err != nil {
		return err
	}
	// The policy may have begun another run between the mark and the look for it: that one is killed as well.
	return e.halt(ctx, c, func(*supervise.State) error { return e.killNow(ctx, c) })
}

// killNow kills the run that there is now, and waits for its end.
func (e *Engine) killNow(ctx context.Context, c *container.Container) error {
	s, err := e.state(c.ID)
	if err != nil || !s.Alive() {
		return nil
	}
	if err := e.signal(c, s, unix.SIGKILL); err != nil && !errors.Is(err, unix.ESRCH) {
		return err
	}
	return e.ended(ctx, c.ID, s, killWait)
}

// endsIt reports whether a signal asks for a container's end, so that its restart policy is over: Docker takes every one for that where
// the container has no stop signal of its own, also a HUP that only makes it read its configuration again.
func endsIt(c *container.Container, sig unix.Signal) bool {
	stop, err := ParseSignal(c.StopSignal())
	if err == nil && stop != unix.SIGTERM { // it has one of its own: another signal is the program's affair, as with Docker
		return sig == stop || sig == unix.SIGKILL
	}
	switch sig {
	case unix.SIGKILL, unix.SIGTERM, unix.SIGINT, unix.SIGQUIT, unix.SIGABRT:
		return true
	}
	return false
}

// markStopped writes down that a container with a restart policy is stopped by hand, before it gets to know.
func (e *Engine) markStopped(c *container.Container) error {
	if c.Config.Restart.None() {
		return nil
	}
	return supervise.MarkStopped(e.dir(c.ID), supervise.ByHand)
}

// halt waits until a container that is marked as stopped is over, though its supervisor may just be waiting to start it again, or have
// looked for the mark a moment ago: a run that it has begun meanwhile is ended by stop.
func (e *Engine) halt(ctx context.Context, c *container.Container, stop func(*supervise.State) error) error {
	if c.Config.Restart.None() {
		return nil
	}
	// Woken ten times a second and looked at more often: a signal costs the supervisor a turn, a look only this process.
	for end, told := time.Now().Add(killWait), (time.Time{}); ; {
		s, err := e.state(c.ID)
		switch {
		case err != nil: // removed by somebody else
			return nil
		case s.Alive():
			if err := stop(s); err != nil {
				return err
			}
		case s.Status != supervise.Restarting:
			return nil
		case time.Now().After(end):
			return fmt.Errorf("container %s: its supervisor, process %d, doesn't end: %w", c.ID, s.Supervisor, errStill)
		case time.Since(told) > 100*time.Millisecond:
			told = time.Now()
			supervise.Wake(s)
		}
		if err := pause(ctx, 2*time.Millisecond); err != nil {
			return err
		}
	}
}

// errStill says that a run isn't over.
var errStill = errors.New("still running")

// ended waits until a run of a container is over, for some time.
func (e *Engine) ended(ctx context.Context, id string, run *supervise.State, timeout time.Duration) error {
	limited, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	if _, err := e.end(limited, id, run); ctx.Err() != nil {
		return ctx.Err()
	} else if limited.Err() != nil && err != nil {
		return fmt.Errorf("container %s did not end within %v: %w", id, timeout, errStill)
	}
	return nil
}

// Stop asks a container to end, and kills it when it hasn't after a time (seconds; nil: what the container was created with, or
// 10; negative: never). One that doesn't run is left alone.
func (e *Engine) Stop(ctx context.Context, ref string, timeout *int, name string) error {
	c, s, err := e.load(ctx, ref)
	if err != nil {
		return err
	}
	// Also of one that doesn't run: unless-stopped means that a stop by hand holds when the host starts.
	if err := e.markStopped(c); err != nil {
		return err
	}
	if !s.Alive() && s.Status != supervise.Restarting {
		return nil
	}
	if name == "" {
		name = c.StopSignal()
	}
	sig, err := ParseSignal(name)
	if err != nil {
		return err
	}
	stop := func(s *supervise.State) error { return e.stopRun(ctx, c, s, sig, stopSeconds(c, timeout)) }
	if s.Alive() {
		err = stop(s)
	}
	if err == nil {
		err = e.halt(ctx, c, stop)
	}
	if err == nil {
		e.happened(c, event.Stop)
	}
	return err
}

// stopRun asks a run to end, and kills it when it hasn't after some seconds; negative: never.
func (e *Engine) stopRun(ctx context.Context, c *container.Container, s *supervise.State, sig unix.Signal, seconds int) (err error) {
	if err := e.signal(c, s, sig); err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("signal container %s: %w", c.ID, err)
	}
	// After the signal: a frozen process gets it with its first step, and can't run on in between.
	if s.Status == supervise.Paused {
		e.thaw(c.ID)
	}
	if seconds < 0 {
		_, err = e.end(ctx, c.ID, s)
	} else {
		err = e.ended(ctx, c.ID, s, time.Duration(seconds)*time.Second)
	}
	if errors.Is(err, errStill) {
		if err := e.signal(c, s, unix.SIGKILL); err != nil && !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("kill container %s: %w", c.ID, err)
		}
		err = e.ended(ctx, c.ID, s, killWait)
	}
	return err
}

// RemoveOptions says how far removing goes.
type RemoveOptions struct {
	Force   bool // kill a running container
	Volumes bool // also the volumes that were made for it alone
}

// Remove removes a container that doesn't run, or any with Force.
func (e *Engine) Remove(ctx context.Context, ref string, o RemoveOptions) error {
	id, err := e.find(ctx, ref)
	if err != nil {
		return err
	}
	var dismissed *supervise.State
	c, s, err := e.loadID(id)
	if err == nil && (s.Alive() || s.Status == supervise.Restarting) {
		if !o.Force {
			doing := "running"
			if s.Status != supervise.Running {
				doing = s.Status
			}
			return conflict("cannot remove container %q: container is %s: stop the container before removing or force remove", ref, doing)
		}
		if e.dismiss(c, s) {
			dismissed = s
			e.happened(c, event.Kill, "signal", strconv.Itoa(int(unix.SIGKILL)))
		} else if err := e.Kill(ctx, id, "KILL"); err != nil && !errors.Is(err, ErrConflict) {
			return err
		}
	}
	if errors.Is(err, ErrNotFound) {
		return err
	}
	unreadable := err
	lock, fresh, err := e.lockStopped(ctx, id, ref, o.Force, dismissed)
	if err != nil {
		return err
	}
	defer state.Unlock(lock, e.lockFile(id))
	buried := dismissed != nil && !fresh && supervise.Bury(e.dir(id), dismissed) == nil
	// A fresh lock says that the supervisor let go of it in order: then there is nothing to take back. One that was
	// dismissed had no time to.
	if !fresh && !buried {
		if err := supervise.RepairOne(e.dir(id), e.nameFileOf); err != nil {
			return err
		}
	}
	if c == nil { // its configuration can't be read
		if newer := container.NewerError(0); errors.As(unreadable, &newer) && !o.Force { // it is in order, and somebody else's
			return conflict("cannot remove container %q: %v; --force removes it all the same", ref, unreadable)
		}
		// Its name is looked for among the links, as its configuration can't say it.
		return supervise.RemoveFiles(e.dir(id), e.nameFileOf(id), e.cfg.State, o.Volumes)
	}
	if again, err := e.readContainer(id); err == nil {
		c = again // it may have got another name
	} else if os.IsNotExist(err) {
		return nil // somebody else was quicker, such as its own --rm
	}
	// A container with --rm takes its anonymous volumes along, however it goes.
	return e.remove(c, o.Volumes || c.Config.Remove)
}

// dismiss ends a running container and its supervisor together, where nobody would miss what the supervisor does at the end: its part is
// done by the repair that follows. It reports whether it did.
func (e *Engine) dismiss(c *container.Container, s *supervise.State) bool {
	return s.Status == supervise.Running && !c.Config.Remove && supervise.Dismiss(e.dir(c.ID), s)
}

// remove removes a container whose lock is held, if so wished with the volumes that are its own.
func (e *Engine) remove(c *container.Container, volumes bool) error {
	e.forgetOtherName(c)
	if err := supervise.RemoveFiles(e.dir(c.ID), e.nameFile(c.Name), e.cfg.State, volumes); err != nil {
		return err
	}
	e.dropBound(c)
	e.forgetPaused(c.ID)
	supervise.ForgetEnd(e.cfg.State, c.ID)
	e.happened(c, event.Destroy)
	return nil
}

// lockStopped takes the lock of a container that is to be removed, waiting for it as long as the context goes on. One that was being
// started at the first look runs by now, and its supervisor keeps the lock until its end: it is killed by force, and else it stays.
// killed is the run that has got its signal: nobody needs it twice, nor two events of it.
func (e *Engine) lockStopped(
	ctx context.Context, id, ref string, force bool, killed *supervise.State,
) (f *os.File, fresh bool, err error) {
	for {
		f, fresh, err = state.Lock(e.lockFile(id), false)
		if err != unix.EWOULDBLOCK {
			return f, fresh, err
		}
		s, err := e.state(id) // of one whose container.json can't be read, too
		same := err == nil && killed != nil && killed.PID == s.PID && killed.Start == s.Start && killed.Status == s.Status
		if err == nil && (s.Alive() || s.Status == supervise.Restarting) && !same {
			killed = s
			if !force {
				return nil, false, conflict("cannot remove container %q: it has been started: stop it before removing or force remove", ref)
			}
			if e.Kill(ctx, id, "KILL") != nil { // gone already, or nobody can say what it is: what is left is to wait for its end
				_ = supervise.MarkStopped(e.dir(id), supervise.ByHand)
				_ = e.signal(&container.Container{ID: id}, s, unix.SIGKILL)
				supervise.Wake(s)
			}
		}
		if err := pause(ctx, 5*time.Millisecond); err != nil {
			return nil, false, err
		}
	}
}

// change opens a container for a change of what is written of it. Nobody else changes that until unlock.
func (e *Engine) change(ctx context.Context, ref string) (c *container.Container, s *supervise.State, unlock func(), err error) {
	id, err := e.find(ctx, ref)
	if err != nil {
		return nil, nil, nil, err
	}
	// Not the container's own lock alone, which its supervisor holds as long as it runs.
	unlockDir, err := state.LockDir(e.dir(id))
	if err != nil {
		return nil, nil, nil, notFound("no such container: %s", ref)
	}
	// The directory's lock keeps other changes out, the container's own a start.
	c, s, release, err := e.settled(ctx, id)
	if err != nil {
		unlockDir()
		return nil, nil, nil, err
	}
	return c, s, func() { release(); unlockDir() }, nil
}

// settled waits until a container runs, or doesn't and will not until unlock. In between a command starts it, from what it has read of it
// before: what is changed then would be lost on this run.
func (e *Engine) settled(ctx context.Context, id string) (c *container.Container, s *supervise.State, unlock func(), err error) {
	for end := time.Now().Add(10 * time.Second); ; {
		if err := ctx.Err(); err != nil {
			return nil, nil, nil, err
		}
		lock, fresh, err := state.Lock(e.lockFile(id), false)
		if err != nil && err != unix.EWOULDBLOCK {
			return nil, nil, nil, err
		}
		unlock = func() {}
		if err == nil {
			unlock = func() { state.Unlock(lock, e.lockFile(id)) }
			if !fresh { // somebody died with it
				err = supervise.RepairOne(e.dir(id), e.nameFileOf)
			}
		}
		held := err == unix.EWOULDBLOCK
		if err == nil || held {
			c, s, err = e.loadID(id)
		}
		switch {
		case err != nil:
			unlock()
			return nil, nil, nil, err
		case !held || s.Alive() || s.Status == supervise.Restarting:
			return c, s, unlock, nil
		case time.Now().After(end):
			return nil, nil, nil, conflict("container %s is being changed by another command", c.Name)
		}
		if err := pause(ctx, 5*time.Millisecond); err != nil {
			return nil, nil, nil, err
		}
	}
}

// Rename gives a container another name.
func (e *Engine) Rename(ctx context.Context, ref, name string) error {
	if !validName(name) {
		return invalid("Invalid container name (%s), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed", name)
	}
	c, s, unlock, err := e.change(ctx, ref)
	if err != nil {
		return err
	}
	defer unlock()
	old := c.Name
	if old == name {
		return invalid("Renaming a container with the same name as its current name")
	}
	e.forgetOtherName(c)
	// The new name, the configuration, then the old name: whoever is killed on the way leaves a container with two names,
	// never one with none. That it may have the other one is written before.
	write := func() error { return state.WriteJSONSync(filepath.Join(e.dir(c.ID), supervise.ContainerFile), c) }
	c.OtherName = name
	if err := write(); err != nil {
		return err
	}
	c.Name = name
	if err := e.takeName(c); err != nil {
		return err
	}
	c.OtherName = old
	if err := write(); err != nil {
		os.Remove(e.nameFile(name))
		return err
	}
	defer os.Remove(e.nameFile(old))
	os.Remove(filepath.Join(e.dir(c.ID), supervise.TargetFile)) // in which exec finds the name
	if live(s) {
		// One that ends meanwhile is on no network by the time that anybody looks for it, unless another run follows.
		if err := e.renameOnNetworks(c, s, old); err != nil && !(errors.Is(err, errEnds) && c.Config.Restart.None()) {
			return fmt.Errorf("container %s has its new name, and others still find it by the old one: %w", name, err)
		}
	}
	e.happened(c, event.Rename, "oldName", old)
	return nil
}

// forgetOtherName takes away what a rename that was killed has left.
func (e *Engine) forgetOtherName(c *container.Container) {
	if c.OtherName == "" || c.OtherName == c.Name {
		return
	}
	if owner, err := os.Readlink(e.nameFile(c.OtherName)); err == nil && owner == c.ID {
		os.Remove(e.nameFile(c.OtherName))
	}
}

func (e *Engine) cgroups(id string) (map[string]string, error) {
	job, err := supervise.ReadJob(e.dir(id))
	if err != nil {
		return nil, err
	}
	return job.Cgroups, nil
}

func (e *Engine) pausedFile(id string) string {
	return filepath.Join(e.cfg.State, supervise.PausedDir, id)
}

func (e *Engine) paused(id string) bool {
	_, err := os.Lstat(e.pausedFile(id))
	return err == nil
}

// notePaused writes down that a container is paused.
func (e *Engine) notePaused(id string) (err error) {
	for range 3 { // somebody may take the directory away because it was empty
		if err = os.MkdirAll(filepath.Dir(e.pausedFile(id)), 0o700); err != nil {
			return err
		}
		if err = os.WriteFile(e.pausedFile(id), nil, 0o600); !os.IsNotExist(err) {
			break
		}
	}
	return err
}

func (e *Engine) forgetPaused(id string) {
	if os.Remove(e.pausedFile(id)) == nil {
		os.Remove(filepath.Dir(e.pausedFile(id))) // if it is empty
	}
}

// Pause freezes all processes of a running container.
func (e *Engine) Pause(ctx context.Context, ref string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	c, s, err := e.running(ctx, ref)
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
	// The note comes before the freezer, here, and after it in thaw. Killed in between, a container is called paused that
	// isn't, and unpause mends that; one that is frozen and not called so could not be helped.
	if err := e.notePaused(c.ID); err != nil {
		return err
	}
	if err := cgroup.Freeze(paths); err != nil {
		e.forgetPaused(c.ID)
		return err
	}
	e.happened(c, event.Pause)
	return nil
}

func (e *Engine) thaw(id string) error {
	paths, err := e.cgroups(id)
	if err != nil {
		return err
	}
	if err := cgroup.Thaw(paths); err != nil {
		return err
	}
	e.forgetPaused(id)
	return nil
}

// Unpause lets a paused container go on.
func (e *Engine) Unpause(ctx context.Context, ref string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	c, s, err := e.running(ctx, ref)
	if err != nil {
		return err
	}
	if s.Status != supervise.Paused {
		return conflict("container %s is not paused", ref)
	}
	if err := e.thaw(c.ID); err != nil {
		return err
	}
	e.happened(c, event.Unpause)
	return nil
}

// standing is the end of the name of a lock that is held by whoever keeps a container paused for its own work. When it is killed, the next
// command finds the lock free, and lets the container go on.
const standing = ".standing.lock"

// stand pauses a container until resume is called, or until this process ends. One that has ended meanwhile stands anyway.
func (e *Engine) stand(ctx context.Context, id string) (resume func(), err error) {
	path := filepath.Join(e.locks(), id+standing)
	lock, _, err := state.Lock(path, false)
	if err != nil {
		return nil, conflict("container %s is paused by another command at this moment", id)
	}
	if err := e.Pause(ctx, id); err != nil {
		state.Unlock(lock, path)
		if _, s, now := e.load(ctx, id); now == nil && !s.Alive() {
			return func() {}, nil
		}
		return nil, err
	}
	return func() {
		// Somebody may have let it go on, or ended it, meanwhile.
		_ = e.Unpause(context.WithoutCancel(ctx), id)
		state.Unlock(lock, path)
	}, nil
}

// goOn lets a container go on that a killed process kept standing.
func (e *Engine) goOn(id string) {
	path := filepath.Join(e.locks(), id+standing)
	lock, fresh, err := state.Lock(path, false)
	if err != nil {
		return // another command does it
	}
	if !fresh && e.paused(id) {
		_ = e.thaw(id) // of one that has ended there is nothing to thaw
	}
	state.Unlock(lock, path)
}
