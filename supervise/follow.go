package supervise

import (
	"cmp"
	"encoding/binary"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"glassbox/fork"
	"glassbox/signals"
)

// Followers are those who attach to a container that runs: any number at once, beside the caller that started it. They talk with the
// supervisor by a socket in the container's directory, which is made when the first one asks for it, so that a start pays three system
// calls for it and no more: who finds no socket sends the supervisor SIGWINCH, which it alone takes notice of (its default is to be
// ignored, so it does no harm to a supervisor that is just coming up), and tries again. A supervisor in the background takes the socket
// back when the last one has left (gone), and is idle again.
//
//	follower                                            supervisor
//	  │ SIGWINCH, if nobody listens ──────────────────────▶ │ socket, bind, listen
//	  │ connect DIR/attach, 'h' {version, what it wants} ──▶ │
//	  │ ◀─────────── 'a' {terminal, has input}: from here on │
//	  │ ◀──────────────────────── 'o' output, 'e' error … │
//	  │ 'i' input, 'w' window, 's' signal … ──────────────▶ │
//	  │ ◀────────────────────────────────── 'x' exit code │
//
// Each is one message of a SOCK_SEQPACKET socket. A follower that takes its output too slowly has the socket's buffer (about 200 KB) and
// then patience; it is cut off when it has made the container wait for that long, and can read what it missed in the log.
const AttachFile = "attach"

// patience is for how long, in all, one follower may make the container wait before it has caught up again.
const patience = time.Second

// Nudge is the signal that makes a supervisor listen for followers.
const Nudge = unix.SIGWINCH

// First bytes of messages between a follower and a supervisor.
const (
	msgHello    = 'h' // version, wants
	msgResolver = 'n' // version, with two descriptors: see HandResolver. The answer is the same, without them
	msgAttached = 'a' // terminal (0 or 1), input (0 or 1)
	msgStdout   = 'o'
	msgStderr   = 'e'
	msgExit     = 'x' // exit code, in decimal digits
	msgInput    = 'i'
	msgWindow   = 'w' // rows, columns: uint16, little endian
	msgSignal   = 's' // number
)

const attachVersion = 1

// What a follower wants, bits of the second byte of its hello.
const (
	wantStdout = 1 << iota
	wantStderr
)

// followers are all of one supervisor.
type followers struct {
	mu     sync.Mutex
	s      *supervisor // of which console, pipes and process are used: they never change
	dir    string
	tty    bool
	shrink bool // memory is given back when the last one has left
	list   []*follower
	count  atomic.Int32 // len(list), to be looked at for each piece of output
	ended  bool

	door     int           // the listening socket; 0: nobody has asked for one
	closing  *os.File      // the same as a file, by which accept ends
	accepted chan struct{} // closed when all who have connected were handed over, and accept has ended
	serving  atomic.Int32  // connections, of which those in list have said what they want
}

// follower is one of them. Its descriptor is closed by the goroutine that reads from it.
type follower struct {
	fd     int
	wants  byte
	waited time.Duration // since it last took something at once
}

// begin waits for the first follower.
func (f *followers) begin(s *supervisor) {
	f.of(s)
	c, err := signals.Catch(Nudge)
	if err != nil {
		return // nobody can attach; logs and exec go on
	}
	nudges := os.NewFile(uintptr(c.FD()), "nudges") // non-blocking, so that Go's poller waits, and not a thread
	go func() {
		var buf [8]byte
		for {
			if _, err := nudges.Read(buf[:]); err != nil {
				return
			}
			f.open()
		}
	}()
}

func (f *followers) of(s *supervisor) {
	f.s, f.dir, f.tty, f.shrink = s, s.job.Dir, s.job.Terminal, s.job.Detached
}

// gone reports whether nobody is attached, and takes the socket back if so: who comes now finds none, and nudges the supervisor, as the
// first one did. It is not to be called together with open.
func (f *followers) gone() bool {
	if f.serving.Load() > 0 {
		return false
	}
	f.mu.Lock()
	door, closing := f.door, f.closing
	f.door, f.closing = 0, nil
	f.mu.Unlock()
	if door > 0 {
		os.Remove(filepath.Join(f.dir, AttachFile))
		// Shut for reading it refuses whoever comes later (ECONNREFUSED), and still hands over those who have connected.
		unix.Shutdown(door, unix.SHUT_RD)
		closing.SetReadDeadline(time.Unix(1, 0))
		<-f.accepted
		closing.Close()
	}
	return f.serving.Load() == 0
}

// open makes the socket, in place of one that a killed supervisor left.
func (f *followers) open() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.door > 0 || f.ended {
		return
	}
	fd, err := listen(f.dir, AttachFile)
	if err != nil {
		return
	}
	door, accepted := listening(fd, AttachFile), make(chan struct{})
	f.door, f.closing, f.accepted = fd, door, accepted
	go func() {
		defer close(accepted)
		accept(door, func(conn int) {
			f.serving.Add(1) // here and not in serve: whoever waits for accepted counts it
			go f.serve(conn)
		})
	}()
}

// serve talks with one follower until it leaves.
func (f *followers) serve(conn int) {
	defer f.serving.Add(-1)
	unix.SetNonblock(conn, true)
	file := os.NewFile(uintptr(conn), AttachFile) // closed here alone: conn is used by output, too
	defer file.Close()
	buf := make([]byte, 1+piece)
	file.SetReadDeadline(time.Now().Add(5 * time.Second))
	fds, n, err := receive(file, buf)
	if err == nil && n == 2 && buf[0] == msgResolver && buf[1] == attachVersion && f.s.takeResolver(fds) {
		unix.Sendmsg(conn, buf[:n], nil, nil, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
		return
	}
	for _, fd := range fds {
		unix.Close(fd)
	}
	if err != nil || n != 3 || buf[0] != msgHello || buf[1] != attachVersion {
		return
	}
	file.SetReadDeadline(time.Time{})
	own := &follower{fd: conn, wants: buf[2]}
	if !f.add(own) {
		return
	}
	defer f.remove(own)
	for {
		n, err := file.Read(buf)
		if n == 0 || err != nil {
			return
		}
		f.s.ask(buf[0], buf[1:n])
	}
}

// receive reads a message with the descriptors in it, waiting as file's deadline says.
func receive(file *os.File, buf []byte) (fds []int, n int, err error) {
	raw, err := file.SyscallConn()
	if err != nil {
		return nil, 0, err
	}
	var failed error
	err = raw.Read(func(fd uintptr) bool {
		fds, n, failed = fork.ReceiveFDs(int(fd), buf)
		return failed != unix.EAGAIN
	})
	return fds, n, cmp.Or(err, failed)
}

// ask does what a follower asks for.
func (s *supervisor) ask(kind byte, data []byte) {
	switch {
	case kind == msgInput && s.console != nil:
		s.console.Write(data)
	case kind == msgInput && s.pipes.stdin != nil:
		s.pipes.stdin.Write(data) // waits for the program to read, and its follower with it
	case kind == msgWindow && len(data) == 4:
		s.request(Request{Rows: binary.LittleEndian.Uint16(data), Cols: binary.LittleEndian.Uint16(data[2:])})
	case kind == msgSignal && len(data) == 1:
		s.request(Request{Signal: int(data[0])})
	}
}

func (f *followers) add(own *follower) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.ended {
		return false
	}
	has := [3]byte{0: msgAttached}
	if f.tty {
		has[1] = 1
	}
	if f.s.pipes.stdin != nil || f.tty {
		has[2] = 1
	}
	f.list = append(f.list, own)
	f.count.Store(int32(len(f.list)))
	return own.send(has[:])
}

func (f *followers) remove(own *follower) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.list = slices.DeleteFunc(f.list, func(o *follower) bool { return o == own })
	if f.count.Store(int32(len(f.list))); len(f.list) == 0 && f.shrink {
		go settle() // what it took to serve them is given back
	}
}

// output passes a piece of a stream on.
func (f *followers) output(stream string, data []byte) {
	if f.count.Load() == 0 {
		return
	}
	kind, want := byte(msgStdout), byte(wantStdout)
	if stream == "stderr" {
		kind, want = msgStderr, wantStderr
	}
	message := append([]byte{kind}, data...)
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, own := range f.list {
		// Cut off: the reader in serve sees the end and leaves the list, which this loop is walking.
		if own.wants&want != 0 && !own.send(message) {
			own.wants = 0
			unix.Shutdown(own.fd, unix.SHUT_RDWR) // its reader ends
		}
	}
}

// send returns false if the follower is to be cut off. It is called with the list's lock, so the descriptor is still its own.
func (own *follower) send(message []byte) bool {
	for late := false; ; late = true {
		err := unix.Sendmsg(own.fd, message, nil, nil, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
		switch {
		case err == unix.EINTR:
			continue
		case err == nil:
			if !late {
				own.waited = 0
			}
			return true
		case err != unix.EAGAIN || own.waited >= patience:
			return false
		}
		began := time.Now()
		unix.Poll([]unix.PollFd{{Fd: int32(own.fd), Events: unix.POLLOUT}}, int((patience-own.waited).Milliseconds())+1)
		own.waited += time.Since(began)
	}
}

// end tells all the exit code, takes the socket back, and waits a moment for them to leave: a socket that is closed with a message of
// theirs unread makes the kernel throw away what they have not read yet (ECONNRESET).
func (f *followers) end(code int) {
	f.mu.Lock()
	f.ended = true
	message := strconv.AppendInt([]byte{msgExit}, int64(code), 10)
	for _, own := range f.list {
		own.waited = 0
		own.send(message)
		unix.Shutdown(own.fd, unix.SHUT_WR)
	}
	if f.door > 0 {
		os.Remove(filepath.Join(f.dir, AttachFile)) // gone already with --rm
	}
	f.mu.Unlock()
	for end := time.Now().Add(patience); f.count.Load() > 0 && time.Now().Before(end); {
		time.Sleep(2 * time.Millisecond)
	}
}
