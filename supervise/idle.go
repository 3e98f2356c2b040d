package supervise

import (
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"glassbox/fork"
	"glassbox/signals"
)

// Forms in which a resident supervisor is executed. One that has nothing to do but wait is not a Go program: that has
// five threads, three quarters of a megabyte of its own memory, and of the kernel's as much again as a small container. Everything to be
// waited for is put into one epoll descriptor, and the process executes itself anew as Idle. The first instructions of the program
// (entry_*.s in cmd/glassbox-runtime) know that word: they wait, in one system call and with three pages of memory, and when anything
// happens they execute the same arguments as Awake. That costs a millisecond, so a supervisor goes back to Idle only when nothing has
// happened for a while. A program that was linked without that entry takes Idle for the third, which is a Go
// program that stays one.
//
// What can happen is output, the container's end, and two signals: that of somebody who wants to attach, and SIGCHLD, because a child
// that is traced only stops (see reap). While idle they are blocked and read from a descriptor (signalfd(2)). That is no way for Awake:
// the Go runtime unblocks SIGCHLD in each thread that it starts, and throws away what no one has asked for, so that the end of a
// container would now and then be seen at the next look only. There a handler passes both on.
const (
	Idle  = "idle"
	Awake = "awake"
	stays = "resident"
)

// idleFD is the epoll descriptor's number while idle: one that needs no larger table of descriptors (NR_OPEN_DEFAULT is 64).
const idleFD = 62

// quiet is for how long nothing must have happened before a supervisor is idle again.
const quiet = 10 * time.Second

func idleSignals() *unix.Sigset_t {
	var set unix.Sigset_t
	for _, sig := range []unix.Signal{Nudge, unix.SIGCHLD} {
		set.Val[0] |= 1 << (sig - 1)
	}
	return &set
}

// becomeIdle replaces the process by its idle form. It returns only if that is not possible, and nothing has changed then. It must be
// called on the main thread.
func (r *resident) becomeIdle() {
	if _, err := unix.FcntlInt(idleFD, unix.F_GETFD, 0); err != unix.EBADF { // somebody else's, such as a port that is held
		return
	}
	poll, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return
	}
	defer unix.Close(poll)
	for _, fd := range []int{r.pidfd, r.console, r.stdout, r.stderr} {
		if fd < 0 {
			continue
		}
		if unix.EpollCtl(poll, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: unix.EPOLLIN}) != nil {
			return
		}
	}
	if unix.Dup3(poll, idleFD, 0) != nil {
		return
	}
	r.replace(Idle)
	unix.Close(idleFD)
}

// awake carries output after something has happened, and goes back to idle when nothing more does. It returns when the container has
// ended.
func (s *supervisor) awake() unix.WaitStatus {
	happened, err := signals.Catch(Nudge, unix.SIGCHLD)
	// What this process starts after the container's end gets the usual signals; and what came before the handler was there comes now.
	unix.PthreadSigmask(unix.SIG_UNBLOCK, idleSignals(), nil)
	if err != nil {
		s.connect()
		return s.reap()
	}
	defer happened.Stop()
	s.followers.of(s)
	s.carry()
	s.carried.last.Store(fork.Now())
	for settled := false; ; {
		if ws, ended := waitChild(s.proc.PID, unix.WNOHANG); ended {
			return ws
		}
		timeout := int(max(0, quiet-s.carried.since()).Milliseconds()) + 1
		if timeout == 1 { // it has been quiet for long enough, and could not become idle
			timeout = int(quiet.Milliseconds())
		}
		fds := []unix.PollFd{{Fd: int32(happened.FD()), Events: unix.POLLIN}}
		n, err := unix.Poll(fds, timeout)
		switch {
		case err == nil && n > 0:
			if slices.Contains(happened.Next(), Nudge) {
				s.followers.open()
			}
		case err == nil:
			// gone comes before the resolver, which a follower may have brought.
			if s.carried.since() >= quiet && s.log.whole() && s.followers.gone() && s.resolver[0] <= 0 && s.carried.stop() {
				s.rest(happened)
				s.carried.goOn()
			}
			if !settled {
				settled = true
				go settle()
			}
		}
	}
}

// rest becomes idle, unless somebody has asked for something by now. Of a child's signal that comes meanwhile the idle form knows by
// looking at the child; that of somebody who wants to attach waits for it: all other threads have had it blocked since they began.
func (s *supervisor) rest(happened *signals.Catcher) {
	unix.PthreadSigmask(unix.SIG_BLOCK, idleSignals(), nil)
	defer unix.PthreadSigmask(unix.SIG_UNBLOCK, idleSignals(), nil)
	if n, err := unix.Poll([]unix.PollFd{{Fd: int32(happened.FD()), Events: unix.POLLIN}}, 0); n == 0 && err == nil {
		s.resident().becomeIdle()
	}
}

// carried says whether output is on its way: what has been read must not be lost by an execve.
type carried struct {
	moving sync.RWMutex // held for reading from before a piece is read until it is where it belongs
	last   atomic.Int64 // when the last piece was read, as in fork.Now
}

// read reads from a stream. If it returns n > 0, done is to be called when the piece is where it belongs.
func (c *carried) read(from *os.File, buf []byte) (n int, err error) {
	conn, err := from.SyscallConn()
	if err != nil {
		return 0, err
	}
	var failed error
	err = conn.Read(func(fd uintptr) bool {
		for {
			c.moving.RLock()
			n, failed = unix.Read(int(fd), buf)
			if n > 0 {
				c.last.Store(fork.Now())
				return true
			}
			c.moving.RUnlock()
			if failed != unix.EINTR {
				return failed != unix.EAGAIN
			}
		}
	})
	if err == nil && n <= 0 {
		n, err = 0, failed
		if failed == nil {
			err = os.ErrClosed // the end
		}
	}
	return n, err
}

func (c *carried) done() { c.moving.RUnlock() }

// since returns for how long nothing has been read.
func (c *carried) since() time.Duration { return time.Duration(fork.Now() - c.last.Load()) }

// stop keeps output from being read, unless some is on its way.
func (c *carried) stop() bool { return c.moving.TryLock() }

func (c *carried) goOn() { c.moving.Unlock() }
