package supervise

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
	"golang.org/x/term"

	"glassbox/fork"
	"glassbox/plan"
	"glassbox/signals"
)

// Caller is the caller's end of a socket to the doorkeeper of a running container.
type Caller struct{ conn int }

// Call connects to the doorkeeper of the container in dir. It fails with ENOENT or ECONNREFUSED if there is none.
func Call(dir string) (*Caller, error) {
	path, dirFD, err := socketPath(dir)
	if err != nil {
		return nil, err
	}
	defer unix.Close(dirFD)
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	if err := unix.Connect(fd, &unix.SockaddrUnix{Name: path}); err != nil {
		unix.Close(fd)
		return nil, err
	}
	return &Caller{fd}, nil
}

// Close ends the conversation.
func (c *Caller) Close() { unix.Close(c.conn) }

// An ExecError says why a process could not be started.
type ExecError struct {
	Code int // 125: the engine; 126: not executable; 127: not found
	Text string
}

func (e *ExecError) Error() string { return e.Text }

// Exec lets the doorkeeper start a job's process, carries its input, output and signals, and returns its exit code. sameBuild says
// that the doorkeeper is of this build of glassbox and understands the binary form of a job.
func (c *Caller) Exec(j *ExecJob, sameBuild bool) (int, error) {
	e, err := newEnds(j)
	if err != nil {
		return 125, err
	}
	err = c.send(j, sameBuild, e)
	e.closeChild()
	if err != nil {
		return 125, err
	}
	event, fds, err := c.receive()
	switch {
	case err != nil:
		return 125, err
	case !event.Started || len(fds) == 0:
		return 125, &ExecError{event.Code, event.Error}
	case j.Detach:
		return 0, nil
	}
	r := relay{conn: c.conn, pidfd: fds[0], console: -1}
	if len(fds) > 1 {
		r.console = fds[1]
		unix.SetNonblock(r.console, true)
		r.streams = []*stream{{from: r.console, to: 1}}
		if j.Interactive {
			r.streams = append(r.streams, &stream{from: 0, to: r.console, input: true})
		}
		if term.IsTerminal(0) {
			if old, err := term.MakeRaw(0); err == nil {
				defer term.Restore(0, old)
			}
		}
	} else {
		r.streams = []*stream{{from: e.mine[1], to: 1}, {from: e.mine[2], to: 2}}
		if j.Interactive {
			r.streams = append(r.streams, &stream{from: 0, to: e.mine[0], input: true, close: true})
		}
	}
	if err := r.run(); err != nil {
		return 125, err
	}
	event, _, err = c.receive()
	if err != nil {
		return 125, err
	}
	r.drain()
	return event.Code, nil
}

// relay carries input and output of a process, in one loop: what it says is often less than what it takes to start a thread.
type relay struct {
	conn, pidfd, console int
	streams              []*stream
	catcher              *signals.Catcher
}

// stream is one direction.
type stream struct {
	from, to int
	input    bool // from the caller; not waited for
	close    bool // the end of from is passed on
	pending  []byte
	ended    bool
	broken   bool // what it leads to takes no more
}

// chunk is what a pipe that is ready for writing takes without making the writer wait (PIPE_BUF, pipe(7)): the caller's output may be
// a blocking descriptor, and nothing else could be done meanwhile.
const chunk = 4096

// run goes on until the doorkeeper says that the process has ended.
func (r *relay) run() error {
	if err := r.catch(); err != nil {
		return err
	}
	buf := make([]byte, chunk)
	for !r.step(buf, -1, true) {
	}
	return nil
}

// drain passes on what the process has written; what its children in the background will write is not waited for.
func (r *relay) drain() {
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

// step waits until something can be read or written, and does that. It returns true if there is a message of the doorkeeper.
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
		fds = append(fds, unix.PollFd{Fd: int32(r.catcher.FD()), Events: unix.POLLIN}, unix.PollFd{Fd: int32(r.conn), Events: unix.POLLIN})
	}
	if _, err := unix.Poll(fds, timeout); err != nil {
		return false // a signal, which the next turn finds
	}
	if watch && fds[len(fds)-2].Revents != 0 {
		r.forward()
	}
	for i, s := range r.streams {
		if fds[i].Revents != 0 {
			s.step(buf)
		}
		if s.broken { // nobody reads: the process gets SIGPIPE, or SIGHUP
			unix.Close(s.from)
			for _, t := range r.streams {
				t.ended = t.ended || t.to == s.from
			}
			s.broken = false
		}
	}
	return watch && fds[len(fds)-1].Revents != 0
}

// step reads and writes a piece, each as far as it is possible without waiting.
func (s *stream) step(buf []byte) {
	if len(s.pending) == 0 {
		n, err := unix.Read(s.from, buf)
		switch {
		case err == unix.EINTR || err == unix.EAGAIN:
			return
		case n <= 0: // the end; EIO from a terminal whose last user is gone
			s.end()
			return
		}
		s.pending = append(s.pending, buf[:n]...)
		if fds := []unix.PollFd{{Fd: int32(s.to), Events: unix.POLLOUT}}; !ready(fds) {
			return
		}
	}
	n, err := unix.Write(s.to, s.pending)
	switch {
	case err == unix.EINTR || err == unix.EAGAIN:
	case err != nil:
		s.ended, s.broken = true, !s.input
	default:
		s.pending = s.pending[:copy(s.pending, s.pending[n:])]
	}
}

func ready(fds []unix.PollFd) bool {
	n, err := unix.Poll(fds, 0)
	return err == nil && n > 0
}

func (s *stream) end() {
	s.ended = true
	if s.close {
		unix.Close(s.to)
	}
}

// catch takes the signals from now on, and lets the doorkeeper know.
func (r *relay) catch() (err error) {
	want := []syscall.Signal{unix.SIGINT, unix.SIGTERM, unix.SIGHUP, unix.SIGQUIT, unix.SIGUSR1, unix.SIGUSR2}
	if r.console >= 0 {
		want = append(want, unix.SIGWINCH)
		resize(r.console)
	}
	if r.catcher, err = signals.Catch(want...); err != nil {
		return err
	}
	unix.Sendmsg(r.conn, []byte{msgReady}, nil, nil, unix.MSG_NOSIGNAL)
	return nil
}

// forward passes the signals on that came.
func (r *relay) forward() {
	for _, sig := range r.catcher.Next() {
		if sig == unix.SIGWINCH {
			resize(r.console)
		} else {
			unix.PidfdSendSignal(r.pidfd, sig, nil, 0)
		}
	}
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
	if err == nil && n == 0 {
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
			var fd [2]int
			err = unix.Pipe2(fd[:], unix.O_CLOEXEC)
			e.child[i], e.mine[i] = fd[1], fd[0]
			if i == 0 {
				e.child[i], e.mine[i] = fd[0], fd[1]
			}
		}
		if err != nil {
			e.closeChild()
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

// resize gives a pty the size of the terminal at standard input or output.
func resize(console int) {
	for fd := range 2 {
		if ws, err := unix.IoctlGetWinsize(fd, unix.TIOCGWINSZ); err == nil {
			unix.IoctlSetWinsize(console, unix.TIOCSWINSZ, ws)
			return
		}
	}
}
