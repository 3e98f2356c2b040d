package supervise

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"glassbox/fork"
	"glassbox/plan"
)

// Caller is the caller's end of a socket to the doorkeeper of a running container.
type Caller struct{ conn int }

// Call connects to the doorkeeper of the container in dir. It fails with ENOENT or ECONNREFUSED if there is none.
func Call(dir string) (*Caller, error) {
	conn, err := dial(dir, SocketFile)
	if err != nil {
		return nil, err
	}
	return &Caller{conn}, nil
}

// Close ends the conversation.
func (c *Caller) Close() { unix.Close(c.conn) }

// An ExecError says why a process could not be started.
type ExecError struct {
	Code int // 125: the engine; 126: not executable; 127: not found
	Text string
}

func (e *ExecError) Error() string { return e.Text }

// ErrDetached is what waiting ends with when the detach keys were typed: the process goes on.
var ErrDetached = errors.New("detached")

// Exec is a further process of a container, seen by who asked for it.
type Exec struct {
	caller *Caller
	relay  relay
	detach bool
}

// Start lets the doorkeeper start a job's process. streams are the caller's descriptors, of which Wait reads and writes; they stay open.
// sameBuild says that the doorkeeper is of this build of glassbox and understands the binary form of a job. The caller's signals must
// be in the caller's hands by now: one that kills it leaves the process running.
func (c *Caller) Start(j *ExecJob, sameBuild bool, streams [3]int, detachKeys []byte) (*Exec, error) {
	e, err := newEnds(j)
	if err != nil {
		return nil, err
	}
	err = c.send(j, sameBuild, e)
	// Closed whatever happened: with an end of the pipes left here, the process's output would never come to its end.
	e.closeChild()
	if err != nil {
		e.closeMine()
		return nil, err
	}
	// Waits for the clone and for execve: errors of the program come back here, before any input is taken from the caller.
	event, fds, err := c.receive()
	if err == nil && (!event.Started || len(fds) == 0) {
		err = &ExecError{event.Code, event.Error}
	}
	if err != nil {
		e.closeMine()
		return nil, err
	}
	x := &Exec{caller: c, detach: j.Detach, relay: relay{conn: c.conn, pidfd: fds[0], console: -1, wake: -1}}
	r := &x.relay
	switch {
	case j.Detach:
		return x, nil
	case len(fds) > 1:
		r.console = fds[1]
		r.own(r.console)
		// One loop carries all streams: a terminal that takes no more must not keep it from reading.
		unix.SetNonblock(r.console, true)
		r.streams = []*stream{{from: r.console, to: streams[1]}}
		if j.Interactive {
			r.streams = append(r.streams, &stream{from: streams[0], to: r.console, input: true, keys: newKeys(detachKeys)})
		}
	default:
		r.own(e.mine[:]...)
		r.streams = []*stream{{from: e.mine[1], to: streams[1]}, {from: e.mine[2], to: streams[2]}}
		if j.Interactive {
			r.streams = append(r.streams, &stream{from: streams[0], to: e.mine[0], input: true, close: true})
		}
	}
	// From here on a signal to this program is passed on by it, and no longer ends the process (see callerReady).
	unix.Sendmsg(c.conn, []byte{msgReady}, nil, nil, unix.MSG_NOSIGNAL)
	return x, nil
}

// Wait carries input and output until the process ends, and returns its exit code; 0 at once for one in the background. With the
// context it ends, too, with ErrDetached when the detach keys are typed, and with EPIPE when nobody reads what comes from a terminal: the
// process goes on without its caller.
func (x *Exec) Wait(ctx context.Context) (int, error) {
	if x.detach {
		return 0, nil
	}
	if ctx.Done() != nil {
		// The loop sits in poll(2), which knows no contexts.
		wake, err := unix.Eventfd(0, unix.EFD_CLOEXEC)
		if err != nil {
			return 125, err
		}
		defer unix.Close(wake)
		x.relay.wake = wake
		stopped := make(chan struct{})
		stop := context.AfterFunc(ctx, func() {
			unix.Write(wake, binary.NativeEndian.AppendUint64(nil, 1)) // eventfd(2)
			close(stopped)
		})
		defer func() {
			if !stop() {
				<-stopped // before wake is closed, and is somebody else's descriptor
			}
		}()
	}
	x.relay.run()
	switch {
	case ctx.Err() != nil:
		return 125, ctx.Err()
	case x.relay.left:
		// The doorkeeper must know before the connection closes: without this word a closed one means that the caller's
		// terminal is gone.
		unix.Sendmsg(x.caller.conn, []byte{msgKeep}, nil, nil, unix.MSG_NOSIGNAL)
		return 0, ErrDetached
	case x.relay.unread:
		unix.Sendmsg(x.caller.conn, []byte{msgKeep}, nil, nil, unix.MSG_NOSIGNAL)
		return 0, unix.EPIPE
	}
	event, _, err := x.caller.receive()
	if err != nil {
		return 125, err
	}
	x.relay.drain()
	return event.Code, nil
}

// Close leaves the process alone, and closes what Start opened. With ExecJob.HangUp a terminal is hung up, unless it was left by the detach
// keys.
func (x *Exec) Close() {
	for fd := range x.relay.owned {
		unix.Close(fd)
	}
	x.relay.owned = nil
	unix.Close(x.relay.pidfd)
	x.caller.Close()
}

// Signal sends a signal to the process.
func (x *Exec) Signal(sig unix.Signal) error {
	return os.NewSyscallError("pidfd_send_signal", unix.PidfdSendSignal(x.relay.pidfd, sig, nil, 0))
}

// Resize gives its terminal, if it has one, a new size in rows and columns.
func (x *Exec) Resize(rows, cols uint16) error {
	if x.relay.console < 0 {
		return nil
	}
	size := unix.Winsize{Row: rows, Col: cols}
	return os.NewSyscallError("ioctl TIOCSWINSZ", unix.IoctlSetWinsize(x.relay.console, unix.TIOCSWINSZ, &size))
}

// relay carries input and output of a process, in one loop: what it says is often less than what it takes to start a thread.
type relay struct {
	conn, pidfd, console int
	wake                 int // a descriptor that ends the relay when it becomes readable; -1: none
	streams              []*stream
	owned                map[int]bool // descriptors to be closed in the end, of those that are still open
	left                 bool         // the detach keys were typed
	unread               bool         // nobody reads what comes from the terminal
}

func (r *relay) own(fds ...int) {
	r.owned = map[int]bool{}
	for _, fd := range fds {
		if fd >= 0 {
			r.owned[fd] = true
		}
	}
}

// shut closes a descriptor, once: by the time that somebody else comes to it, its number may be another one's.
func (r *relay) shut(fd int) {
	if r.owned[fd] {
		delete(r.owned, fd)
		unix.Close(fd)
	}
}

// stream is one direction.
type stream struct {
	from, to int
	input    bool // from the caller; not waited for
	close    bool // the end of from is passed on
	keys     *keys
	pending  []byte
	ended    bool
	broken   bool // what it leads to takes no more
}

// run goes on until the doorkeeper says that the process has ended, or the caller leaves.
func (r *relay) run() {
	buf := make([]byte, chunk)
	for !r.step(buf, -1, true) {
	}
}

// drain passes on what the process has written; what its children in the background will write is not waited for.
func (r *relay) drain() {
	// Input is over: there is nobody left to take it.
	r.streams = slices.DeleteFunc(r.streams, func(s *stream) bool { return s.input })
	buf := make([]byte, chunk)
	for end := time.Now().Add(100 * time.Millisecond); slices.ContainsFunc(r.streams, func(s *stream) bool { return !s.ended }); {
		timeout := int(time.Until(end).Milliseconds())
		if timeout <= 0 {
			return
		}
		r.step(buf, timeout, false)
	}
}

// step waits until something can be read or written, and does that. It returns true if there is a message of the doorkeeper, or no
// more to be done.
func (r *relay) step(buf []byte, timeout int, watch bool) bool {
	fds := make([]unix.PollFd, 0, 5)
	for _, s := range r.streams {
		switch {
		case s.ended:
			fds = append(fds, unix.PollFd{Fd: -1})
		case len(s.pending) > 0:
			fds = append(fds, unix.PollFd{Fd: int32(s.to), Events: unix.POLLOUT})
		default:
			fds = append(fds, unix.PollFd{Fd: int32(s.from), Events: unix.POLLIN})
		}
	}
	if watch {
		fds = append(fds, unix.PollFd{Fd: int32(r.wake), Events: unix.POLLIN}, unix.PollFd{Fd: int32(r.conn), Events: unix.POLLIN})
	}
	if _, err := unix.Poll(fds, timeout); err != nil {
		return false // a signal, which the next turn finds
	}
	if watch && fds[len(fds)-2].Revents != 0 {
		return true
	}
	for i, s := range r.streams {
		if fds[i].Revents != 0 {
			r.left = s.step(buf) || r.left
		}
		switch {
		case s.broken && s.from == r.console: // nobody reads: a terminal doesn't say so to its programs
			r.unread = true
		case s.broken: // the process gets SIGPIPE
			r.shut(s.from)
		case s.ended && s.close:
			r.shut(s.to)
		case s.ended && !s.input && s.from != r.console: // which is needed for its size, until Close
			r.shut(s.from)
		}
		s.broken = false
	}
	return watch && (r.left || r.unread || fds[len(fds)-1].Revents != 0)
}

// step reads and writes a piece, each as far as it is possible without waiting. It returns true once the detach keys were typed.
func (s *stream) step(buf []byte) (leaves bool) {
	if len(s.pending) == 0 {
		n, err := unix.Read(s.from, buf)
		switch {
		case err == unix.EINTR || err == unix.EAGAIN:
			return false
		case n <= 0: // the end; EIO from a terminal whose last user is gone
			s.ended = true
			return false
		}
		data, left := s.keys.filter(buf[:n])
		leaves = left
		s.pending = append(s.pending, data...)
		// Written at once if that can be done without waiting, else with the next turn: the same loop reads the other
		// stream meanwhile.
		if fds := []unix.PollFd{{Fd: int32(s.to), Events: unix.POLLOUT}}; len(data) == 0 || !ready(fds) {
			return leaves
		}
	}
	n, err := unix.Write(s.to, s.pending)
	switch {
	case err == unix.EINTR || err == unix.EAGAIN:
	case err != nil:
		// Input that nobody takes is no reason to end: the process may read no more and still write. Of output it is the
		// caller's reader who is gone.
		s.ended, s.broken = true, !s.input
	default:
		s.pending = s.pending[:copy(s.pending, s.pending[n:])]
	}
	return leaves
}

func ready(fds []unix.PollFd) bool {
	n, err := unix.Poll(fds, 0)
	return err == nil && n > 0
}

// send sends the request with the child's ends of the pipes.
func (c *Caller) send(j *ExecJob, binary bool, e *ends) error {
	kind, data := byte(msgBinary), []byte(nil)
	if binary {
		data = plan.AppendBinary(nil, j)
	} else {
		var err error
		kind = msgJSON
		if data, err = json.Marshal(j); err != nil {
			return err
		}
	}
	memory, err := memoryFD("exec", data)
	if err != nil {
		return err
	}
	defer unix.Close(memory)
	fds := []int{memory}
	if !j.Terminal {
		fds = append(fds, e.child[:]...)
	}
	if err := unix.Sendmsg(c.conn, []byte{kind}, unix.UnixRights(fds...), nil, unix.MSG_NOSIGNAL); err != nil {
		return fmt.Errorf("ask for the start: %w", err)
	}
	return nil
}

func (c *Caller) receive() (e Event, fds []int, err error) {
	data := make([]byte, 64<<10)
	fds, n, err := fork.ReceiveFDs(c.conn, data)
	if err == nil && n == 0 || err == unix.ECONNRESET {
		err = errors.New("the process that starts commands in the container was killed")
	}
	if err == nil {
		err = plan.ReadBinary(data[:n], &e)
	}
	return e, fds, err
}

// ends are the descriptors of standard input, output and error: the child's, and the other ends of the pipes among them (-1: none).
type ends struct{ child, mine [3]int }

func newEnds(j *ExecJob) (*ends, error) {
	e := &ends{[3]int{-1, -1, -1}, [3]int{-1, -1, -1}}
	if j.Terminal {
		return e, nil
	}
	for i := range e.child {
		var err error
		if j.Detach || i == 0 && !j.Interactive {
			e.child[i], err = unix.Open("/dev/null", unix.O_RDWR|unix.O_CLOEXEC, 0)
		} else {
			fd := [2]int{-1, -1}
			err = unix.Pipe2(fd[:], unix.O_CLOEXEC)
			e.child[i], e.mine[i] = fd[1], fd[0]
			if i == 0 {
				e.child[i], e.mine[i] = fd[0], fd[1]
			}
		}
		if err != nil {
			e.closeChild()
			e.closeMine()
			return nil, err
		}
	}
	return e, nil
}

func (e *ends) closeChild() {
	for _, fd := range e.child {
		if fd >= 0 {
			unix.Close(fd)
		}
	}
}

func (e *ends) closeMine() {
	for _, fd := range e.mine {
		if fd >= 0 {
			unix.Close(fd)
		}
	}
}
