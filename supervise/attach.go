package supervise

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"glassbox/fork"
)

// Attachment is a follower's end of a socket to a supervisor (see followers).
type Attachment struct {
	// Terminal and Input say whether the container has a terminal, and whether there is a way for input.
	Terminal, Input bool

	conn *os.File
	keys *keys
}

// AttachOptions says what a follower wants.
type AttachOptions struct {
	Stdout, Stderr bool
	DetachKeys     []byte // looked for in input to a terminal
}

// ErrCutOff is what a follower gets that took its output too slowly (see patience).
var ErrCutOff = errors.New("the container wrote faster than its output was taken here, " +
	"and went on without this attachment; its log has everything")

// ErrEnded says that a supervisor was there and is no more, without having told an exit code.
var ErrEnded = errors.New("the container's supervisor was killed")

// errSilent is the case of a supervisor that was started by a glassbox which didn't know of followers.
var errSilent = errors.New("the container's supervisor doesn't answer: " +
	"if glassbox was updated since the container was started, restart the container")

// Attach follows a running container, whose directory and state are given. Only what it writes from now on is seen.
func Attach(ctx context.Context, dir string, s *State, o AttachOptions) (*Attachment, error) {
	conn, err := reach(ctx, dir, s)
	if err != nil {
		return nil, err
	}
	return newAttachment(ctx, conn, o)
}

// reach connects to the supervisor of a running container. The connection doesn't block, so that Go's poller waits, and a deadline can
// end it.
func reach(ctx context.Context, dir string, s *State) (*os.File, error) {
	// The first look costs a nudge and a millisecond; a supervisor that is just being started anew, or on a busy machine,
	// gets longer each time.
	for begin, wait := time.Now(), time.Millisecond; ; wait = min(2*wait, 50*time.Millisecond) {
		conn, err := dial(dir, AttachFile)
		switch {
		case err == nil:
			unix.SetNonblock(conn, true)
			return os.NewFile(uintptr(conn), AttachFile), nil
		// No socket, or one that nobody listens at: the supervisor makes it when the first follower asks, and a start pays nothing for it.
		case err != unix.ENOENT && err != unix.ECONNREFUSED:
			return nil, err
		case time.Since(begin) > 5*time.Second:
			return nil, errSilent
		}
		if err := nudge(s); err != nil {
			return nil, err
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(wait):
		}
	}
}

// nudge lets a container's supervisor listen for followers.
func nudge(s *State) error {
	fd, _, err := supervisorOf(s)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return os.NewSyscallError("pidfd_send_signal", unix.PidfdSendSignal(fd, Nudge, nil, 0))
}

// supervisorOf finds a running container's supervisor: its pidfd, and its arguments. It is the parent of the container's first process, and
// lives as long.
func supervisorOf(s *State) (fd int, argv []string, err error) {
	stat, err := fork.ReadStat(s.PID)
	if err != nil || stat.Start != s.Start {
		return -1, nil, ErrEnded
	}
	if fd, err = unix.PidfdOpen(stat.Parent, 0); err != nil {
		return -1, nil, ErrEnded
	}
	// That pid could be another's by now; the parent's, while its child lives, could not.
	again, err := fork.ReadStat(s.PID)
	if err == nil && again.Start == s.Start && again.Parent == stat.Parent {
		// A process whose supervisor has just been killed has another parent, for as long as it takes to die of it.
		line, err := commandLine(stat.Parent)
		if argv = strings.Split(string(line), "\x00"); err == nil && len(argv) > 1 && argv[0] == "glassbox-runtime" {
			return fd, argv, nil
		}
	}
	unix.Close(fd)
	return -1, nil, ErrEnded
}

// commandLine reads a process's arguments. In the middle of an execve (a supervisor executes itself anew from time to time) there are none.
func commandLine(pid int) (line []byte, err error) {
	for range 50 {
		if line, err = os.ReadFile("/proc/" + strconv.Itoa(pid) + "/cmdline"); err != nil || len(line) > 0 {
			break
		}
		time.Sleep(time.Millisecond)
	}
	return line, err
}

// Dismiss ends a container that is to be removed, by ending its supervisor, if that is idle: it would only have to come to life to take
// back what [RepairOne] takes back as well, for many containers in one process. It reports whether it did; the container's lock is free a
// moment later.
func Dismiss(dir string, s *State) bool {
	fd, argv, err := supervisorOf(s)
	if err != nil {
		return false
	}
	defer unix.Close(fd)
	return len(argv) > 2 && argv[1] == Idle && argv[2] == dir && unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0) == nil
}

// Wake makes the supervisor of a container that waits to start it again look whether it is still to do so.
func Wake(s *State) {
	if s.Status != Restarting || s.Supervisor == 0 {
		return
	}
	fd, err := unix.PidfdOpen(s.Supervisor, 0)
	if err != nil {
		return
	}
	defer unix.Close(fd)
	if start, err := fork.StartTime(s.Supervisor); err == nil && start == s.SupervisorStart {
		unix.PidfdSendSignal(fd, Nudge, nil, 0)
	}
}

func newAttachment(ctx context.Context, conn *os.File, o AttachOptions) (*Attachment, error) {
	a := &Attachment{conn: conn}
	defer a.until(ctx)()
	// The version is the protocol's: a supervisor may be older than this program by as long as its container runs.
	hello := [3]byte{msgHello, attachVersion}
	if o.Stdout {
		hello[2] |= wantStdout
	}
	if o.Stderr {
		hello[2] |= wantStderr
	}
	_, err := conn.Write(hello[:])
	var answer [3]byte
	if err == nil {
		_, err = conn.Read(answer[:])
	}
	if err == nil && answer[0] != msgAttached {
		err = fmt.Errorf("unknown answer %q of the container's supervisor", answer[0])
	}
	if err != nil {
		conn.Close()
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if err == io.EOF || errors.Is(err, unix.ECONNRESET) {
			err = ErrEnded // it came to its end at this moment
		}
		return nil, err
	}
	a.Terminal, a.Input = answer[1] != 0, answer[2] != 0
	if a.Terminal {
		a.keys = newKeys(o.DetachKeys)
	}
	return a, nil
}

// until ends what waits for the supervisor when a context ends. The function that it returns undoes that.
func (a *Attachment) until(ctx context.Context) (undo func()) {
	stop := context.AfterFunc(ctx, func() { a.conn.SetDeadline(time.Unix(1, 0)) })
	// A context that has ended meanwhile has set its deadline, which would end the next read of a connection that still
	// stands.
	return func() {
		if !stop() {
			a.conn.SetDeadline(time.Time{})
		}
	}
}

// Copy writes the container's output until it ends, and returns its exit code. It ends early with the context's error, that of a writer,
// or ErrCutOff if the container still runs but no longer for this follower. One call at a time.
func (a *Attachment) Copy(ctx context.Context, stdout, stderr io.Writer) (int, error) {
	defer a.until(ctx)()
	buf := make([]byte, 1+piece)
	for {
		n, err := a.conn.Read(buf)
		switch {
		case ctx.Err() != nil:
			return 125, ctx.Err()
		// A regular end is told by msgExit. A socket that just closes was closed on a slow reader, or by a kill, which the caller finds out.
		case err == io.EOF:
			return 125, ErrCutOff
		case err != nil:
			return 125, ErrEnded
		}
		data := buf[1:n]
		switch buf[0] {
		case msgStdout:
			_, err = stdout.Write(data)
		case msgStderr:
			_, err = stderr.Write(data)
		case msgExit:
			return strconv.Atoi(string(data))
		}
		if err != nil {
			return 125, err
		}
	}
}

// Write sends input to the container. With the detach keys it ends with ErrDetached.
func (a *Attachment) Write(data []byte) (int, error) {
	rest, leaves := a.keys.filter(data)
	for len(rest) > 0 {
		// SOCK_SEQPACKET keeps messages whole and refuses those larger than its buffer.
		n := min(len(rest), piece)
		if _, err := a.conn.Write(append([]byte{msgInput}, rest[:n]...)); err != nil {
			return 0, err
		}
		rest = rest[n:]
	}
	if leaves {
		return len(data), ErrDetached
	}
	return len(data), nil
}

// Signal sends a signal to the container's first process.
func (a *Attachment) Signal(sig unix.Signal) error {
	_, err := a.conn.Write([]byte{msgSignal, byte(sig)})
	return err
}

// Resize gives its terminal a new size in rows and columns.
func (a *Attachment) Resize(rows, cols uint16) error {
	_, err := a.conn.Write(binary.LittleEndian.AppendUint16(binary.LittleEndian.AppendUint16([]byte{msgWindow}, rows), cols))
	return err
}

// Close leaves the container alone.
func (a *Attachment) Close() { a.conn.Close() }
