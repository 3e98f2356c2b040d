package supervise

import (
	"encoding/json"
	"os"
	"runtime"

	"golang.org/x/sys/unix"

	"glassbox/fork"
)

// resident is what a supervisor knows once its container runs. With it the process starts itself anew (execve keeps the pid,
// the children and the descriptors), so that what the start needed of memory is gone for good: a supervisor may stay for
// months, and there may be hundreds. It happens when nobody waits: the caller has been told, and no output has been read yet.
type resident struct {
	Job     *Job  `json:"job"`
	State   State `json:"state"`
	Pidfd   int   `json:"pidfd"`
	Console int   `json:"console"` // descriptors; -1: none
	Stdin   int   `json:"stdin"`
	Stdout  int   `json:"stdout"`
	Stderr  int   `json:"stderr"`
	Ports   []int `json:"ports,omitempty"`
}

// becomeResident replaces the process. It returns only if that is not possible, and nothing has changed then. The caller's
// goroutine is on the main thread, whose death would be the container's.
func (s *supervisor) becomeResident() {
	r := resident{
		Job: s.job, State: s.state, Pidfd: s.proc.Pidfd, Ports: s.ports,
		Console: number(s.console), Stdin: number(s.pipes.stdin), Stdout: number(s.pipes.stdout), Stderr: number(s.pipes.stderr),
	}
	data, err := json.Marshal(r)
	if err != nil {
		return
	}
	memory, err := unix.MemfdCreate("resident", unix.MFD_CLOEXEC)
	if err != nil {
		return
	}
	defer unix.Close(memory)
	if _, err := unix.Pwrite(memory, data, 0); err != nil {
		return
	}
	keep := append([]int{lockFD, r.Pidfd, r.Console, r.Stdin, r.Stdout, r.Stderr}, r.Ports...)
	cloexec := func(on int) {
		for _, fd := range keep {
			if fd >= 0 {
				unix.FcntlInt(uintptr(fd), unix.F_SETFD, on)
			}
		}
	}
	// Descriptor 4, the session, makes way: its caller has what it waited for.
	if err := unix.Dup3(memory, sessionFD, 0); err != nil {
		return
	}
	cloexec(0)
	unix.Exec("/proc/self/exe", []string{"glassbox-runtime", "resident", s.job.ID}, []string{"GOMAXPROCS=1"})
	cloexec(unix.FD_CLOEXEC)
}

func number(f *os.File) int {
	if f == nil {
		return -1
	}
	return int(f.Fd())
}

// Resident goes on where becomeResident left off.
func Resident() int {
	runtime.LockOSThread()
	memory := os.NewFile(sessionFD, "resident")
	var r resident
	err := json.NewDecoder(memory).Decode(&r)
	memory.Close()
	if err != nil {
		return 125 // the container dies with us, and the next command repairs
	}
	for _, fd := range append([]int{lockFD, r.Pidfd, r.Console, r.Stdin, r.Stdout, r.Stderr}, r.Ports...) {
		if fd >= 0 {
			unix.CloseOnExec(fd)
		}
	}
	file := func(fd int, name string) *os.File {
		if fd < 0 {
			return nil
		}
		unix.SetNonblock(fd, true)
		return os.NewFile(uintptr(fd), name)
	}
	s := &supervisor{
		job: r.Job, state: r.State, lock: os.NewFile(lockFD, "lock"), detach: make(chan struct{}), ports: r.Ports,
		proc:    &fork.Process{PID: r.State.PID, Pidfd: r.Pidfd},
		console: file(r.Console, "console"),
		pipes:   &pipes{stdin: file(r.Stdin, "stdin"), stdout: file(r.Stdout, "stdout"), stderr: file(r.Stderr, "stderr")},
	}
	if s.log, err = openLog(logPath(s.job), s.job.LogMaxSize, s.job.LogMaxFiles); err != nil {
		return 125
	}
	s.leave()
	s.connect()
	go settle()
	code := s.wait()
	s.finish(code)
	return 0
}
