package supervise

import (
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"glassbox/fork"
	"glassbox/signals"
)

// A container with a restart policy keeps its supervisor from one run to the next: the same process, which holds the lock, the ports and
// the leases all the while, and executes itself anew for each part of its life, so that none pays for what the one before has used.
//
//	supervise ──▶ resident ──the container ends──▶ again: waits ──▶ runs the plan of the last start once more ──▶ resident …
//	                                                  │ ▲
//	                               stop, kill, rm -f: │ the file "stopped", and SIGWINCH
//	                                                  ▼
//	                                                exited

// lastRun is what is known of the run that is over.
func (s *supervisor) lastRun(code int) End {
	e := End{Code: code, Ran: s.state.Age(), Stopped: WasStopped(s.job.Dir)}
	if r := s.job.Restart; r != nil && r.Unhealthy {
		h := ReadHealth(s.job.Dir)
		e.Unhealthy = h.Status == Unhealthy && h.Started.Equal(s.state.Started)
	}
	return e
}

// over ends a run, and the supervisor with it, or begins to wait for the next run, which tell is called before. It returns only where
// there is none.
func (s *supervisor) over(code int, tell func()) error {
	last := s.lastRun(code)
	if last.Stopped {
		s.job.Remove = s.job.removes()
	}
	wait, again := s.job.Restart.Next(last, s.state.Restarts, s.state.Backoff)
	// Asked before the run is taken back: where there is no other one, finish gives back ports and addresses as well,
	// which a next run needs.
	if !again {
		return s.finish(code)
	}
	err := s.wind(code)
	if err == nil {
		s.state.Status, s.state.Backoff, s.state.Restarts = Restarting, wait, s.state.Restarts+1
		// With its start time, because it is to be woken by its pid: another process could have that number by then.
		s.state.Supervisor = os.Getpid()
		s.state.SupervisorStart, _ = fork.StartTime(s.state.Supervisor)
		err = RecordEnd(s.job, &s.state)
	}
	if err == nil {
		// Before the execve, behind which nobody knows the caller and the followers any more.
		tell()
		err = s.becomeAgain()
	}
	s.state.Status, s.state.Error = Exited, "it could not be started again: "+err.Error()
	releaseNetwork(s.job)
	return errors.Join(err, s.end())
}

// becomeAgain replaces the process by one that waits and starts the container again. It returns only if that is not possible.
func (s *supervisor) becomeAgain() error {
	// The lock and the ports go along; pipes and terminal end with this run, and are made anew for the next.
	fds := []string{""}
	ports := slices.Clone(s.ports)
	for _, c := range s.carriers { // the last ones, as in the plan
		// Nobody can connect until the next run, but the port is still ours.
		unix.Shutdown(c.fd, unix.SHUT_RD)
		ports = append(ports, c.fd)
	}
	keep := append([]int{lockFD}, ports...)
	for _, fd := range ports {
		fds = append(fds, strconv.Itoa(fd))
	}
	for _, fd := range keep {
		unix.FcntlInt(uintptr(fd), unix.F_SETFD, 0)
	}
	argv := []string{"glassbox-runtime", "again", s.job.Dir, strings.Join(fds, ",")}
	return os.NewSyscallError("execve", unix.Exec("/proc/self/exe", argv, []string{"GOMAXPROCS=1"}))
}

// Again waits for as long as the state in dir says and starts the container once more. ports are descriptors of reserved ports, each
// with a comma before it. As with Main it must be called from the main goroutine.
func Again(dir, ports string) int {
	runtime.LockOSThread()
	unix.CloseOnExec(lockFD)
	s := &supervisor{lock: os.NewFile(lockFD, "lock"), caller: caller{wake: -1}}
	for _, text := range strings.Split(ports, ",")[1:] {
		fd, err := strconv.Atoi(text)
		if err != nil {
			return 125
		}
		unix.CloseOnExec(fd)
		s.ports = append(s.ports, fd)
	}
	last, err := ReadState(dir)
	if err != nil {
		return 125 // the next command repairs
	}
	wanted := waitToStart(dir, last.Backoff)
	if s.job, err = ReadJob(dir); err != nil {
		return 125
	}
	s.state = *last
	s.state.Supervisor, s.state.SupervisorStart = 0, 0
	s.rename()
	if !wanted {
		return s.stay(nil)
	}
	if s.job.Plan, err = ReadPlan(dir); err != nil {
		return s.stay(err)
	}
	if s.job.Network != nil { // the plan takes these again
		first := max(0, len(s.ports)-len(carriedRules(s.job.Network.Ports)))
		for _, fd := range s.ports[first:] {
			unix.Close(fd)
		}
		s.ports = s.ports[:first]
	}
	// Nobody leads this start: a caller who watched the first run, or went through it step by step, has left with it.
	s.job.Detached, s.job.Step, s.job.Trace = true, false, 0
	// An overlay with the option volatile leaves a mark that forbids a second use; without it the directory is made anew as well.
	os.RemoveAll(filepath.Join(dir, "work", "work"))
	if err := s.start(); err != nil {
		return s.stay(err)
	}
	s.becomeResident() // returns only if that fails
	s.connect()
	s.resolve()
	s.carryPorts()
	return s.serve()
}

// waitToStart waits, and returns false if somebody stops the container meanwhile.
func waitToStart(dir string, wait time.Duration) bool {
	nudges := -1
	if c, err := signals.Catch(Nudge); err == nil { // before the first look: who writes the file then sends the signal
		nudges = c.FD()
	}
	for end := time.Now().Add(wait); !WasStopped(dir); {
		left := time.Until(end)
		if left <= 0 {
			return true
		}
		fds := []unix.PollFd{{Fd: int32(nudges), Events: unix.POLLIN}}
		if n, _ := unix.Poll(fds, int(left.Milliseconds())+1); n > 0 {
			var buf [64]byte
			unix.Read(nudges, buf[:])
		}
	}
	return false
}

// stay leaves the container as the last run has ended, or with the reason why it could not be started again.
func (s *supervisor) stay(reason error) int {
	s.state.Status, s.state.PID = Exited, 0
	if reason != nil {
		s.state.Error, s.state.ExitCode = "it could not be started again: "+reason.Error(), 125
		var step *fork.StepError
		if errors.As(reason, &step) {
			s.state.ExitCode = step.Code
		}
	}
	if s.log != nil {
		s.log.close()
	}
	s.undo() // of a start that failed nothing is left; this gives back ports and addresses
	s.end()
	return 0
}
