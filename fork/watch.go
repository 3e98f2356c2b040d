package fork

import (
	"bytes"
	"errors"
	"runtime"
	"sync"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"glassbox/plan"
)

// A Watcher traces what a container's program does first, with ptrace(2). It sees the end of execve, and then the system calls of
// the process and its children until its time is over; each call is stopped twice for that and is slower than without.
//
// A thread of its own traces, because only the thread that seized a process may go on with it. It stays as long as something is
// traced: a process that does nothing isn't disturbed, and is let go at its next call.
type Watcher struct {
	For time.Duration // from execve on

	pid    int
	done   chan struct{}
	mu     sync.Mutex // of what follows; and nothing ends, nor goes on from a stop, while it is held
	ended  bool
	status unix.WaitStatus
	trace  plan.Trace
	open   map[int]int // pid → index in trace.Calls of the call that it is in
}

// maxCalls is how many calls are kept.
const maxCalls = 5000

// Now is the moment, as in [plan.Trace].
func Now() int64 {
	var t unix.Timespec
	unix.ClockGettime(unix.CLOCK_MONOTONIC, &t)
	return t.Nano()
}

// Timed adds to t how long something takes, from now until the function that it returns is called. Without t it does nothing.
func Timed(t *plan.Trace, who, what string) func() {
	if t == nil {
		return func() {}
	}
	began := Now()
	return func() { t.Spans = append(t.Spans, plan.Span{Who: who, What: what, Begin: began, End: Now()}) }
}

// ProcessorTime is how much of the processors this process has used, in nanoseconds. At its first line that is about the time since
// it was made, but for what it waited (for the disk, say).
func ProcessorTime() int64 {
	var t unix.Timespec
	unix.ClockGettime(unix.CLOCK_PROCESS_CPUTIME_ID, &t)
	return t.Nano()
}

// seize begins to trace a child that is about to call execve. A failure is noted; then nothing is seen.
func (w *Watcher) seize(pid int) {
	w.pid, w.done, w.open = pid, make(chan struct{}), map[int]int{}
	seized := make(chan error)
	go func() {
		runtime.LockOSThread() // for good: nothing else may run on a thread that traces
		defer close(w.done)
		const options = unix.PTRACE_O_TRACESYSGOOD | unix.PTRACE_O_TRACEEXEC | unix.PTRACE_O_TRACECLONE | unix.PTRACE_O_TRACEFORK |
			unix.PTRACE_O_TRACEVFORK
		err := ptrace(unix.PTRACE_SEIZE, pid, 0, options)
		seized <- err
		if err == nil {
			w.loop()
		}
	}()
	if err := <-seized; err != nil {
		w.trace.Note = "the program could not be traced: ptrace: " + err.Error()
	}
}

// Wait waits until nothing is traced any more, and returns what was seen. ended says that the process has ended with this status,
// and was reaped.
func (w *Watcher) Wait() (t *plan.Trace, status unix.WaitStatus, ended bool) {
	if w.done != nil {
		<-w.done
	}
	return &w.trace, w.status, w.ended
}

// Leave waits until the time is over or nothing is traced any more, and returns what was seen until then. Unless the process has ended,
// which the last result says as Wait does, nothing goes on from a stop or is reaped until Stay: it is for who is about to execute
// another program, with which the tracing thread ends. The kernel lets go of what it traced, and disturbs nobody who waits in a call.
func (w *Watcher) Leave() (t *plan.Trace, ended bool) {
	for over := false; !over && w.done != nil; {
		rest := w.For
		w.mu.Lock()
		if w.trace.Exec != 0 {
			rest = time.Duration(w.trace.Exec + int64(w.For) - Now())
		}
		w.mu.Unlock()
		select {
		case <-w.done:
			over = true
		case <-time.After(max(rest, 0)):
			over = rest <= 0
		}
	}
	w.mu.Lock()
	if w.ended {
		w.mu.Unlock()
	}
	return &w.trace, w.ended
}

// Stay goes on after Leave.
func (w *Watcher) Stay() { w.mu.Unlock() }

func ptrace(request, pid int, addr, data uintptr) error {
	if _, _, errno := unix.Syscall6(unix.SYS_PTRACE, uintptr(request), uintptr(pid), addr, data, 0, 0); errno != 0 {
		return errno
	}
	return nil
}

func (w *Watcher) loop() {
	for {
		// First without taking it: see Leave.
		err := unix.Waitid(unix.P_ALL, 0, nil, unix.WEXITED|unix.WNOWAIT|unix.WALL|unix.WNOTHREAD, nil)
		now := Now()
		if err == nil {
			err = w.take(now)
		}
		if err != nil && err != unix.EINTR {
			return // ECHILD: nothing is traced
		}
	}
}

// take takes the news of a process.
func (w *Watcher) take(now int64) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	var ws unix.WaitStatus
	pid, err := unix.Wait4(-1, &ws, unix.WALL|unix.WNOTHREAD|unix.WNOHANG, nil)
	switch {
	case err != nil || pid == 0:
		return err
	case ws.Stopped():
		w.stopped(pid, ws, now)
		return nil
	}
	if i, ok := w.open[pid]; ok {
		w.trace.Calls[i].End, w.trace.Calls[i].Last = now, true
		delete(w.open, pid)
	}
	if pid == w.pid {
		w.status, w.ended = ws, true
	}
	return nil
}

// stopped looks at a stop, and lets the process go on.
func (w *Watcher) stopped(pid int, ws unix.WaitStatus, now int64) {
	const syscallStop, eventStop = unix.SIGTRAP | 0x80, 128
	signal := ws.StopSignal()
	request := unix.PTRACE_SYSCALL
	event := int(ws) >> 16
	switch {
	case event == eventStop && signal != unix.SIGTRAP:
		request, signal = unix.PTRACE_LISTEN, 0 // stopped as a whole, by SIGSTOP or a terminal: it stays so
	case event == unix.PTRACE_EVENT_EXEC:
		if pid == w.pid && w.trace.Exec == 0 {
			w.trace.Exec = now
		}
		signal = 0
	case event != 0:
		signal = 0
	case signal == syscallStop:
		w.call(pid, now)
		signal = 0
	}
	if w.trace.Exec != 0 && now > w.trace.Exec+int64(w.For) {
		request = unix.PTRACE_DETACH
	}
	ptrace(request, pid, 0, uintptr(signal)) // ESRCH: it was killed meanwhile
}

// syscallInfo is struct ptrace_syscall_info (ptrace(2), Linux 5.3), as far as entry and exit need it.
type syscallInfo struct {
	op     uint8
	_      [3]byte
	arch   uint32
	ip, sp uint64
	nr     uint64 // entry; rval on exit
	args   [6]uint64
	_      [3]uint64
}

// call notes the beginning or the end of a system call.
func (w *Watcher) call(pid int, now int64) {
	const getSyscallInfo, entry, exit = 0x420e, 1, 2
	var info syscallInfo
	if ptrace(getSyscallInfo, pid, unsafe.Sizeof(info), uintptr(unsafe.Pointer(&info))) != nil {
		return
	}
	switch info.op {
	case entry:
		// A bound of this process's memory: the supervisor stays for as long as the container runs.
		if len(w.trace.Calls) == maxCalls {
			w.trace.Lost++
			return
		}
		c := plan.Call{PID: pid, NR: info.nr, Begin: now}
		if i, ok := pathArgument(info.nr); ok && info.args[i] != 0 {
			c.Path = readString(pid, uintptr(info.args[i]))
		}
		w.open[pid] = len(w.trace.Calls)
		w.trace.Calls = append(w.trace.Calls, c)
	case exit:
		if i, ok := w.open[pid]; ok {
			c := &w.trace.Calls[i]
			c.End, c.Result = now, int64(info.nr)
			c.Failed = c.Result < 0 && c.Result > -4096
			delete(w.open, pid)
		}
	}
}

// readString reads a string in the memory of a process, or as much of it as there is before a page that isn't there.
func readString(pid int, at uintptr) string {
	buf := make([]byte, 256)
	// Two pieces, split where a page may end: a piece of which a part is missing isn't read at all.
	first := min(len(buf), 4096-int(at%4096))
	local := []unix.Iovec{{Base: &buf[0]}}
	local[0].SetLen(len(buf))
	remote := []unix.RemoteIovec{{Base: at, Len: first}, {Base: at + uintptr(first), Len: len(buf) - first}}
	n, err := unix.ProcessVMReadv(pid, local, remote, 0)
	if err != nil && !errors.Is(err, unix.EFAULT) || n <= 0 {
		return ""
	}
	if i := bytes.IndexByte(buf[:n], 0); i >= 0 {
		return string(buf[:i])
	}
	return string(buf[:n]) + "…"
}

func commonPathArgument(nr uint64) (int, bool) {
	switch nr {
	case unix.SYS_EXECVE, unix.SYS_CHDIR, unix.SYS_STATFS, unix.SYS_TRUNCATE, unix.SYS_CHROOT:
		return 0, true
	case unix.SYS_OPENAT, unix.SYS_OPENAT2, unix.SYS_EXECVEAT, unix.SYS_FACCESSAT, unix.SYS_FACCESSAT2, unix.SYS_READLINKAT, unix.SYS_STATX,
		unix.SYS_MKDIRAT,
		unix.SYS_UNLINKAT, unix.SYS_FCHMODAT, unix.SYS_FCHOWNAT, sysFstatat:
		return 1, true
	}
	return 0, false
}
