package supervise

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"glassbox/event"
	"glassbox/fork"
	"glassbox/host"
	"glassbox/plan"
	"glassbox/state"
)

// A further process of a running container is started by a doorkeeper: a small process, `glassbox-runtime doorkeeper DIR`, whose executable
// can't be written from inside the container (CVE-2019-5736). The first exec starts it; it stays for the next ones, because to
// start it takes as long as all else, and ends when there was none for a while, or with the container. The caller compiles
// the plan and makes the pipes; the doorkeeper clones, waits, and says how it ended. Input and output never pass through it.
//
//	caller                                              doorkeeper
//	  │ connect DIR/exec ─────────────────────────────────▶ │ accept
//	  │ 'b' {job, stdin, stdout, stderr} ─────────────────▶ │ clone
//	  │ ◀────────────────────── Started {pidfd, console}    │
//	  │ 'r': signals are caught from here on ─────────────▶ │
//	  │ signals by the pidfd, window sizes by the console   │ wait
//	  │ ◀──────────────────────────────── Exited, Code      │
//
// Each is one message of a SOCK_SEQPACKET socket, which arrives whole or not at all. A caller that dies before it has said that
// it catches signals takes the process with it, as the signal that killed it would have; afterwards the process goes on without it.
// It goes on, too, when the doorkeeper is killed; its caller gets an error.
const (
	SocketFile = "exec"     // in the container's directory
	TargetFile = "exec.bin" // a Target in binary form, written by whoever starts a doorkeeper
)

// linger is how long a doorkeeper waits for the next exec.
const linger = 10 * time.Second

// Descriptors that a doorkeeper is started with.
const (
	listenerFD  = 3
	containerFD = 4 // pidfd of the container's first process
)

// First bytes of messages to a doorkeeper.
const (
	msgBinary = 'b' // a job in binary form
	msgJSON   = 'j' // a job from another build of glassbox
	msgReady  = 'r'
	msgKeep   = 'd' // the caller leaves: the terminal goes on without it
)

// An ExecJob is a further process to be started in a running container.
type ExecJob struct {
	Terminal    bool       `json:"terminal"`
	Interactive bool       `json:"interactive"`
	Detach      bool       `json:"detach"`
	HangUp      bool       `json:"hangUp,omitempty"` // its terminal, when the caller is gone
	Plan        *plan.Plan `json:"plan"`

	State string      `json:"state"` // where the end is written down as an event
	Actor event.Actor `json:"actor"` // the container, with the attribute execID
}

// Target is what exec needs to know of a running container, in a form that is read in no time. It is for the build of glassbox
// that wrote it; others find the same in the container's other files.
type Target struct {
	Build      string
	PID        int
	Start      uint64
	Namespaces []string
	Cgroups    map[string]string
	Process    Process
	Facts      host.Facts
	Actor      event.Actor // the container in events
}

// ReadTarget reads what the caller that started the doorkeeper wrote, if it was of the same build.
func ReadTarget(dir, build string) (*Target, error) {
	data, err := state.ReadFile(filepath.Join(dir, TargetFile))
	if err != nil {
		return nil, err
	}
	// The build stands first, so that nothing else of another one is looked at.
	if prefix := plan.AppendBinary(nil, &build); build == "" || !bytes.HasPrefix(data, prefix) {
		return nil, errors.New("written by another build of glassbox")
	}
	var t Target
	if err := plan.ReadBinary(data, &t); err != nil {
		return nil, err
	}
	return &t, nil
}

// doorkeeper starts further processes in one container.
type doorkeeper struct {
	mu      sync.Mutex
	running int       // requests
	last    time.Time // when there was one
}

// Doorkeeper takes requests at descriptor 3, the socket in dir, until there has been none for a while, or the container
// (descriptor 4) has ended.
func Doorkeeper(dir string) int {
	unix.CloseOnExec(listenerFD)
	unix.CloseOnExec(containerFD)
	d := &doorkeeper{last: time.Now()}
	var mine unix.Stat_t
	// Remembered by its inode: at the end another doorkeeper's socket may have the name.
	unix.Lstat(filepath.Join(dir, SocketFile), &mine)
	door, accepted := listening(listenerFD, SocketFile), make(chan struct{})
	go func() {
		defer close(accepted)
		accept(door, func(conn int) {
			d.begin()
			go d.exec(conn)
		})
	}()
	// Woken by the container's end alone. That a request has come or gone is seen when the time is over: what remains is
	// asked anew each time round.
	for d.remaining() > 0 {
		fds := []unix.PollFd{{Fd: containerFD, Events: unix.POLLIN}}
		if n, _ := unix.Poll(fds, int(d.remaining().Milliseconds())+1); n > 0 {
			break
		}
	}
	// Whoever comes from now on starts another doorkeeper. Those who have connected are still served.
	// With the directory's lock, as startDoorkeeper takes it: a new one's socket is never removed in the place of ours.
	if unlock, err := state.LockDir(dir); err == nil {
		var now unix.Stat_t
		if unix.Lstat(filepath.Join(dir, SocketFile), &now) == nil && now.Ino == mine.Ino {
			os.Remove(filepath.Join(dir, SocketFile))
		}
		unlock()
	}
	// Shut for reading, a socket refuses connect(2) and still hands over those in its queue, which a closed one would
	// drop.
	unix.Shutdown(listenerFD, unix.SHUT_RD)
	door.SetReadDeadline(time.Unix(1, 0))
	<-accepted
	for d.busy() {
		time.Sleep(20 * time.Millisecond)
	}
	return 0
}

// Listen opens the door: the socket that a doorkeeper is given, in place of one that a killed doorkeeper left. t is for other callers
// of the same build.
func Listen(dir string, t *Target) (int, error) {
	if err := os.WriteFile(filepath.Join(dir, TargetFile), plan.AppendBinary(nil, t), 0o600); err != nil {
		os.Remove(filepath.Join(dir, TargetFile)) // a full disk: others ask the files that it is made of, which takes them longer
	}
	return listen(dir, SocketFile)
}

func (d *doorkeeper) begin() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.running++
}

func (d *doorkeeper) end() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.running--
	d.last = time.Now()
}

func (d *doorkeeper) busy() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.running > 0
}

// remaining is how long to wait for another request.
func (d *doorkeeper) remaining() time.Duration {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.running > 0 {
		return linger
	}
	return linger - time.Since(d.last)
}

// exec serves one caller. Its goroutine keeps the thread that clones: the thread is in the container's PID namespace as far as
// its children are concerned, and is not used for anything else.
func (d *doorkeeper) exec(conn int) {
	defer hangUp(conn)
	end := sync.OnceFunc(d.end)
	defer end()
	// A caller sends its request at once. One that doesn't holds a thread no longer than this.
	unix.SetsockoptTimeval(conn, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 5})
	job, fds, err := receiveJob(conn)
	defer closeAll(fds)
	if err != nil {
		sendEvent(conn, Event{Error: err.Error(), Code: 125})
		return
	}
	// The plan joins the container's PID namespace in this thread first: children go where pid_for_children points (pid_namespaces(7)).
	proc, err := fork.Start(job.Plan, fork.Options{FDs: fds, OnExecFailure: fork.ExplainExec})
	// The container has them by now, and must be the only one: a pipe ends for its reader when the last writer's end is
	// closed.
	closeAll(fds)
	if err != nil {
		code := 125
		var step *fork.StepError
		if errors.As(err, &step) {
			code = step.Code
		}
		ended(job, code)
		sendEvent(conn, Event{Error: err.Error(), Code: code})
		return
	}
	defer unix.Close(proc.Pidfd)
	// The caller sends signals itself, by the descriptor, and no doorkeeper has to live for that.
	send := []int{proc.Pidfd}
	console, terminal := proc.FDs["console"]
	switch {
	case terminal && job.Detach:
		go discard(console)
	case terminal:
		send = append(send, console)
	}
	sendEvent(conn, Event{Started: true}, send...)
	if job.Detach && !terminal {
		end() // nobody waits, and an orphan is as well off
	} else if !job.Detach && !callerReady(conn, proc.Pidfd) {
		// The caller was killed before it could take signals: as with any program in a shell, its command goes with it.
		unix.PidfdSendSignal(proc.Pidfd, unix.SIGKILL, nil, 0)
	}
	if terminal && !job.Detach {
		kept := make(chan struct{})
		defer func() { <-kept }() // before hangUp, which reads the connection, too
		go func() {
			defer close(kept)
			keep(conn, console, job.HangUp)
		}()
	}
	code := waitFor(proc)
	ended(job, code)
	sendEvent(conn, Event{Exited: true, Code: code})
}

func ended(job *ExecJob, code int) {
	event.Write(job.State, event.New(event.Container, event.ExecDie, job.Actor, "exitCode", strconv.Itoa(code)))
}

// keep holds a terminal for a caller that may leave: with the detach keys, or without a word, because its own terminal was closed. As with
// Docker the process goes on, but for one that is of no use without its caller: that one's terminal is hung up.
func keep(conn, console int, hangUp bool) {
	for {
		var buf [1]byte
		n, _, err := unix.Recvfrom(conn, buf[:], 0)
		switch {
		case err == unix.EINTR || err == unix.EAGAIN || n == 1 && buf[0] != msgKeep: // EAGAIN: the limit on the time that a request takes
			continue
		case n == 1 || !hangUp:
			discard(console)
		default:
			unix.Close(console)
		}
		return
	}
}

// discard reads a terminal at which nobody looks: its programs must be able to write.
func discard(console int) {
	defer unix.Close(console)
	unix.SetNonblock(console, false) // as its caller may have set it
	for buf := make([]byte, 4<<10); ; {
		if n, err := unix.Read(console, buf); n <= 0 && err != unix.EINTR {
			return
		}
	}
}

// hangUp closes a connection once the caller has. To close it earlier, with a message of the caller unread, would make the kernel
// throw away what the caller has not read yet (ECONNRESET).
func hangUp(conn int) {
	var buf [1]byte
	for {
		n, _, err := unix.Recvfrom(conn, buf[:], 0)
		if n <= 0 && err != unix.EINTR {
			break
		}
	}
	unix.Close(conn)
}

// callerReady waits until the caller says that it catches signals, or the process ends. It returns false if the caller died.
func callerReady(conn, pidfd int) bool {
	for {
		fds := []unix.PollFd{{Fd: int32(conn), Events: unix.POLLIN}, {Fd: int32(pidfd), Events: unix.POLLIN}}
		if _, err := unix.Poll(fds, -1); err != nil && err != unix.EINTR {
			return true
		}
		if fds[0].Revents != 0 {
			var buf [1]byte
			n, _, err := unix.Recvfrom(conn, buf[:], unix.MSG_DONTWAIT)
			if err != unix.EAGAIN && err != unix.EINTR {
				return n == 1
			}
		}
		if fds[1].Revents != 0 {
			return true
		}
	}
}

// receiveJob reads a request.
func receiveJob(conn int) (*ExecJob, map[string]int, error) {
	var kind [1]byte
	fds, n, err := fork.ReceiveFDs(conn, kind[:])
	if err != nil {
		return nil, nil, err
	}
	named := map[string]int{}
	for i, name := range []string{"job", "stdin", "stdout", "stderr"} {
		if i < len(fds) {
			named[name] = fds[i]
		}
	}
	// Only root can connect (the directory is 0700), but a caller of another version may send something else.
	if n != 1 || len(fds) != 1 && len(fds) != 4 {
		return nil, named, fmt.Errorf("a request of %d bytes with %d descriptors is none for exec", n, len(fds))
	}
	memory := named["job"]
	delete(named, "job")
	var job ExecJob
	switch kind[0] {
	case msgBinary:
		err = readMemory(memory, &job)
	case msgJSON:
		var data []byte
		if data, err = memoryBytes(memory); err == nil {
			err = json.Unmarshal(data, &job)
		}
	default:
		unix.Close(memory)
		err = fmt.Errorf("unknown request %q", kind[0])
	}
	if err == nil && job.Plan == nil {
		err = errors.New("a request without a plan")
	}
	return &job, named, err
}

func closeAll(fds map[string]int) {
	for name, fd := range fds {
		unix.Close(fd)
		delete(fds, name)
	}
}

// sendEvent tells the caller something. One that is gone doesn't matter, and one that doesn't read is not waited for.
func sendEvent(conn int, e Event, fds ...int) {
	var rights []byte
	if len(fds) > 0 {
		rights = unix.UnixRights(fds...)
	}
	unix.Sendmsg(conn, plan.AppendBinary(nil, &e), rights, nil, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
}

// waitFor returns the exit code of a child as a shell would.
func waitFor(proc *fork.Process) int {
	ws := reap(proc.PID)
	if ws.Signaled() {
		return 128 + int(ws.Signal())
	}
	return ws.ExitStatus()
}
