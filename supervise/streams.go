package supervise

import (
	"encoding/binary"
	"os"
	"slices"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// The caller that started a container (glassbox run, start -a) has given the supervisor its own standard descriptors: nothing passes
// through the caller, and a reader that is slow makes the container wait, as in any pipeline. Whoever comes later is a follower
// (follow.go). When the caller leaves, or has gone, its descriptors are closed, whatever state they are in: a pipe's reader must not wait
// for a container that goes on.

// piece is how much is read of a stream at once, and the largest message to a follower.
const piece = 16 << 10

// chunk is what a pipe that is ready for writing takes without making the writer wait (PIPE_BUF, pipe(7)): descriptors of a caller are
// shared with whoever gave them, so they can't be made non-blocking, and a write that waits could not be given up.
const chunk = 4096

// caller is what a supervisor holds of the one who started the container.
type caller struct {
	once sync.Once
	wake int       // an eventfd that is readable from then on: to wait for it together with descriptors; -1: there was no caller
	outs []*outlet // closed when it leaves
	keys *keys     // what it types to leave
}

// outlet is a descriptor of the caller that output goes to.
type outlet struct {
	mu   sync.Mutex
	fd   int // -1: closed
	wake int
	busy atomic.Bool // it waits for somebody to take output
}

// write writes all of data, unless the caller leaves meanwhile. It returns false if nobody takes it any more.
func (o *outlet) write(data []byte) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.busy.Store(true)
	defer o.busy.Store(false)
	for len(data) > 0 && o.fd >= 0 {
		fds := []unix.PollFd{{Fd: int32(o.fd), Events: unix.POLLOUT}, {Fd: int32(o.wake), Events: unix.POLLIN}}
		if _, err := unix.Poll(fds, -1); err == unix.EINTR {
			continue
		} else if err != nil || fds[1].Revents != 0 {
			return true // it leaves, and needs no telling
		}
		n, err := unix.Write(o.fd, data[:min(len(data), chunk)])
		switch {
		case err == unix.EINTR || err == unix.EAGAIN:
		case err != nil:
			unix.Close(o.fd)
			o.fd = -1
			return false
		default:
			data = data[n:]
		}
	}
	return true
}

func (o *outlet) close() {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.fd >= 0 {
		unix.Close(o.fd)
		o.fd = -1
	}
}

// busy reports whether the caller is being waited for.
func (c *caller) busy() bool {
	return slices.ContainsFunc(c.outs, func(o *outlet) bool { return o.busy.Load() })
}

// connect starts to carry input and output.
func (s *supervisor) connect() {
	s.followers.begin(s)
	s.carry()
}

func (s *supervisor) carry() {
	p := s.pipes
	in, out, errOut := -1, -1, -1
	if !s.job.Detached {
		if fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC); err == nil {
			s.caller.wake = fd
			in, out, errOut = keepFD(0), keepFD(1), keepFD(2)
		}
	}
	if s.job.Terminal {
		s.copyOut(s.console, out, "stdout")
		if errOut >= 0 {
			unix.Close(errOut) // a terminal has one stream
		}
		if s.job.Interactive && in >= 0 {
			s.caller.keys = newKeys(s.job.DetachKeys)
			s.copyIn(in, s.console, false)
		}
		return
	}
	s.copyOut(p.stdout, out, "stdout")
	s.copyOut(p.stderr, errOut, "stderr")
	if p.stdin != nil && in >= 0 {
		s.copyIn(in, p.stdin, true)
	}
}

// keepFD moves one of the standard descriptors out of the way: the Go runtime ends a process that writes to a broken pipe on 1
// or 2, and a supervisor must outlive its caller.
func keepFD(fd int) int {
	// From 5 on: 3 and 4 are lock and session.
	n, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 5)
	if err != nil {
		return -1
	}
	if null, err := unix.Open("/dev/null", unix.O_RDWR|unix.O_CLOEXEC, 0); err == nil {
		unix.Dup3(null, fd, 0)
		unix.Close(null)
	}
	return n
}

// copyOut carries a stream of the container to the log, to the caller (to; -1: none) and to who follows.
func (s *supervisor) copyOut(from *os.File, to int, stream string) {
	var o *outlet
	if to >= 0 {
		o = &outlet{fd: to, wake: s.caller.wake}
		s.caller.outs = append(s.caller.outs, o)
	}
	s.streams.Add(1)
	go func() {
		defer s.streams.Done()
		buf := make([]byte, piece)
		for {
			n, err := s.carried.read(from, buf)
			if n > 0 {
				// The log first. A follower may make this loop wait, and what it misses is to be found there.
				s.log.write(stream, buf[:n]) // a full disk must not stop the container
				if o != nil && !o.write(buf[:n]) && stream == "stdout" {
					// `run … | head -1`: whoever asked has what it wanted. The container goes on, as Docker's does.
					s.session.send(Event{Left: LeftOutput})
					// Not here: it closes this outlet as well, whose writer is this goroutine.
					go s.leave()
				}
				s.followers.output(stream, buf[:n])
				s.carried.done()
			}
			if err != nil { // end of file; EIO from a terminal whose last user is gone
				break
			}
		}
		from.Close()
		if o != nil {
			o.close()
		}
	}()
}

// copyIn carries the caller's input to the container as long as the caller is there.
func (s *supervisor) copyIn(from int, to *os.File, closeAtEnd bool) {
	go func() {
		defer unix.Close(from)
		buf := make([]byte, piece)
		for {
			fds := []unix.PollFd{{Fd: int32(from), Events: unix.POLLIN}, {Fd: int32(s.caller.wake), Events: unix.POLLIN}}
			if _, err := unix.Poll(fds, -1); err == unix.EINTR {
				continue
			} else if err != nil || fds[1].Revents != 0 {
				return // the caller has left: the container's input stays open
			}
			n, err := unix.Read(from, buf)
			if err == unix.EINTR || err == unix.EAGAIN {
				continue
			}
			if n <= 0 { // also a terminal that was closed (EIO)
				break
			}
			data, leaves := s.caller.keys.filter(buf[:n])
			if len(data) > 0 {
				if _, err := to.Write(data); err != nil {
					break
				}
			}
			if leaves {
				s.session.send(Event{Left: LeftKeys})
				s.leave()
				return
			}
		}
		if closeAtEnd {
			to.Close()
		}
	}()
}

// leave stops serving the caller; the container goes on.
func (s *supervisor) leave() {
	s.caller.once.Do(func() {
		if s.caller.wake >= 0 {
			unix.Write(s.caller.wake, binary.NativeEndian.AppendUint64(nil, 1)) // eventfd(2)
		}
		for _, o := range s.caller.outs {
			o.close()
		}
	})
}
