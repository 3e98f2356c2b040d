package supervise

import (
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"glassbox/container"
	"glassbox/event"
	"glassbox/fork"
	"glassbox/network"
	"glassbox/plan"
	"glassbox/state"
)

// Descriptors that a supervisor is started with, beside 0, 1 and 2, which are the caller's.
const (
	lockFD    = 3
	sessionFD = 4
	jobFD     = 5 // the job in binary form, in memory
)

// Main supervises the container that the job at descriptor 5 describes, and returns the exit status for the process. It must be
// called from the main goroutine, whose thread outlives everything else: the container dies with the thread that cloned it.
func Main() int {
	runtime.LockOSThread()
	// They came without the flag, to survive the execve that began this program; the container's program must have neither the lock nor the
	// session.
	unix.CloseOnExec(lockFD)
	unix.CloseOnExec(sessionFD)
	s := &supervisor{
		job:     &Job{},
		lock:    os.NewFile(lockFD, "lock"),
		session: session{file: os.NewFile(sessionFD, "session")},
		caller:  caller{wake: -1},
	}
	began := time.Now() // it asks the kernel for nothing, as fork.Now does
	if err := readMemory(jobFD, s.job); err != nil {
		s.session.send(Event{Error: "the supervisor's job: " + err.Error(), Code: 125})
		return 125
	}
	if s.job.Trace > 0 {
		s.watch = &fork.Watcher{For: time.Duration(s.job.Trace)}
		read := int64(time.Since(began))
		now, used := fork.Now(), fork.ProcessorTime()
		s.note("its program starts: loader, Go runtime, packages", now-max(used, read), now-read)
		s.note("reads its job", now-read, now)
	}
	// The caller writes the job's file while we come up. Without it nobody could repair what a killed supervisor leaves, so
	// nothing is made before it is there.
	var ready [1]byte
	waited := s.timed("waits until its job is on the disk")
	if n, err := s.session.file.Read(ready[:]); n != 1 || err != nil {
		return 125
	}
	if waited(); s.watch != nil {
		s.noted[len(s.noted)-1].Waits = true
	}
	return s.main()
}

// Memory writes v's binary form into a file in memory, from which another process takes it.
func Memory(name string, v any) (*os.File, error) {
	fd, err := memoryFD(name, plan.AppendBinary(make([]byte, 0, 32<<10), v)) // room for most jobs
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), name), nil
}

func memoryFD(name string, data []byte) (int, error) {
	// Not a pipe: a job is larger than a pipe's buffer, and the writer would wait for a reader that isn't there yet.
	fd, err := unix.MemfdCreate(name, unix.MFD_CLOEXEC)
	if err != nil {
		return -1, err
	}
	for off := 0; off < len(data); {
		n, err := unix.Pwrite(fd, data[off:], int64(off))
		if err != nil && err != unix.EINTR {
			unix.Close(fd)
			return -1, err
		}
		off += max(n, 0)
	}
	return fd, nil
}

// readMemory reads what Memory wrote, and closes it.
func readMemory(fd int, v any) error {
	data, err := memoryBytes(fd)
	if err != nil {
		return err
	}
	return plan.ReadBinary(data, v)
}

func memoryBytes(fd int) ([]byte, error) {
	defer unix.Close(fd)
	return state.ReadFD(fd)
}

type supervisor struct {
	job       *Job
	state     State
	lock      *os.File
	session   session
	caller    caller
	followers followers
	checks    checks
	log       *logger
	proc      *fork.Process
	pipes     *pipes
	console   *os.File
	streams   sync.WaitGroup // copies of output
	carried   carried
	ports     []int
	carriers  []carrier     // of the ports that the kernel can't lead to the container
	resolver  [2]int        // the sockets of the container's resolver; -1: it has none
	watch     *fork.Watcher // nil: nothing is traced
	noted     []plan.Span   // what hasn't been told yet
	zero      int64         // the moment of the plan's beginning
}

func (s *supervisor) note(what string, begin, end int64) {
	s.noted = append(s.noted, plan.Span{Who: "supervisor", What: what, Begin: begin, End: end})
}

// timed notes how long something takes, from now until the function that it returns is called.
func (s *supervisor) timed(what string) func() {
	if s.watch == nil {
		return func() {}
	}
	began := fork.Now()
	return func() { s.note(what, began, fork.Now()) }
}

// trace is what was noted since it was last called; nil without a trace.
func (s *supervisor) trace() *plan.Trace {
	if s.watch == nil {
		return nil
	}
	t := &plan.Trace{Spans: s.noted}
	s.noted = nil
	return t
}

func (s *supervisor) main() int {
	if err := s.start(); err != nil {
		code := 125
		var step *fork.StepError
		if errors.As(err, &step) {
			code = step.Code
		}
		s.failed(err, code)
		return code
	}
	started := Event{Started: true, Trace: s.trace()}
	if started.Trace != nil {
		started.Trace.Zero, started.Trace.Times = s.zero, s.state.Times
	}
	s.session.send(started)
	if s.job.Detached && !s.traced() {
		// The caller has its answer. From now on this process waits, perhaps for months, and every page that it holds counts.
		s.becomeResident() // returns only if that fails
		if s.watch != nil {
			s.watch.Stay()
		}
	}
	s.connect()
	s.resolve()
	s.carryPorts()
	return s.serve()
}

// traced waits until a container in the background has been traced for long enough, and tells what was seen, or reports that it has
// ended meanwhile. Nobody takes its output in that tenth of a second: it stays in pipe or terminal.
func (s *supervisor) traced() (ended bool) {
	if s.watch == nil {
		return false
	}
	// A tracer must be the thread that waits, and becomeResident replaces the process: the trace has to be over before.
	seen, ended := s.watch.Leave()
	if !ended {
		s.session.send(Event{Traced: true, Trace: seen})
	}
	return ended
}

// serve carries output and waits for the end.
func (s *supervisor) serve() int {
	go func() {
		s.session.serve(s.request)
		s.leave()
	}()
	var ws unix.WaitStatus
	var seen *plan.Trace
	ended := false
	if s.watch != nil {
		seen, ws, ended = s.watch.Wait()
	}
	if !ended {
		if s.job.Health != nil {
			s.watchHealth(*s.job.Health, s.state.Started)
		}
		ws = s.reap()
	}
	s.checks.stop()
	drained := s.timed("ends what is left, waits for the last output")
	code := s.drain(ws)
	drained()
	finished := s.timed("takes back cgroups, firewall entries, address; writes down the end")
	tell := func(left error) {
		finished()
		if seen != nil {
			seen.Spans = s.trace().Spans
		}
		end := Event{Exited: true, Code: code, Trace: seen}
		if left != nil {
			end.Error = left.Error()
		}
		s.session.send(end)
		s.followers.end(code)
	}
	tell(s.over(code, func() { tell(nil) }))
	s.linger()
	return 0
}

// start runs the plan.
func (s *supervisor) start() error {
	prepared := s.timed("opens the log, takes the ports, makes the pipes")
	var err error
	// Before the clone: a full disk is an error of the start, and not of a container that runs without a log.
	if s.log, err = openLog(logPath(s.job), s.job.Log); err != nil {
		return err
	}
	if n := s.job.Network; n != nil && len(n.Ports) > 0 && s.ports == nil {
		// Held by this process for as long as the container runs: when it is killed, the kernel gives the ports back by itself.
		if s.ports, err = network.Reserve(reservations(n.Ports)); err != nil {
			return err
		}
	}
	p, err := newPipes(s.job.Terminal, s.job.Interactive)
	if err != nil {
		return err
	}
	// The child has its own copies. Ends left open here would keep its readers from ever seeing the end.
	defer p.closeChild()
	o := fork.Options{FDs: p.child, OnExecFailure: fork.ExplainExec}
	if s.job.hooked() {
		o.State, o.Hook = s.job.hookState, s.job.hook
	}
	if s.job.Step {
		o.Before = s.session.ask // and no times: they would be those of whoever is asked
	} else {
		s.state.Times = &plan.Times{}
		o.Times, o.Watch = s.state.Times, s.watch
	}
	prepared()
	if s.watch != nil {
		s.zero = fork.Now()
	}
	// From this thread, which is the main one: PR_SET_PDEATHSIG is about the thread that cloned (prctl(2)).
	s.proc, err = fork.Start(s.job.Plan, o)
	if err != nil {
		p.closeParent()
		return err
	}
	defer s.timed("writes down that it runs")()
	last, now := s.state, time.Now()
	// With its start time a pid is unmistakable, also after the pids of this host have gone round once (proc_pid_stat(5), field 22).
	s.state = State{
		Status: Running, PID: s.proc.PID, Start: s.proc.Start, Boot: BootID(), Started: now.UTC(), Began: now, Times: last.Times,
		Restarts: last.Restarts, Backoff: last.Backoff,
	}
	// Somebody may still be waiting for the run before, whose state this one's is about to replace.
	if last.Restarts > 0 {
		s.state.Before = &Run{last.Started, last.ExitCode}
	}
	if s.job.Network != nil {
		s.state.Ports = s.job.Network.Ports
	}
	if err := WriteState(s.job.Dir, &s.state); err != nil {
		// A container that runs and isn't written down could be neither listed nor stopped.
		unix.Kill(s.proc.PID, unix.SIGKILL)
		s.reap()
		p.closeParent()
		s.undo()
		return err
	}
	// After the state: whoever is woken by the event finds a container that runs.
	event.Write(s.job.state(), append(s.job.volumeEvents(event.Mount), event.New(event.Container, event.Start, s.job.Actor))...)
	s.pipes = p
	s.resolver = resolver(s.proc.FDs)
	if s.job.Network != nil {
		s.carriers = carriers(s.proc.FDs, s.job.Network.Ports)
	}
	if s.job.Terminal {
		s.console = os.NewFile(uintptr(s.proc.FDs["console"]), "console")
	}
	return nil
}

func logPath(job *Job) string { return filepath.Join(job.Dir, LogFile) }

func reservations(rules []plan.PortRule) []container.Port {
	ports := make([]container.Port, 0, len(rules))
	for _, r := range rules {
		if r.Carried() { // by a socket of its own
			continue
		}
		p := container.Port{HostPort: r.HostPort, ContainerPort: r.ContainerPort, Proto: r.Proto}
		p.HostIP, _ = netip.ParseAddr(r.HostIP)
		if to, err := netip.ParseAddr(r.ContainerIP); err == nil && to.Is6() && r.HostIP == "" {
			p.HostIP = netip.IPv6Unspecified() // the entry for all addresses of IPv4 is another one
		}
		ports = append(ports, p)
	}
	return ports
}

func (s *supervisor) request(q Request) {
	switch {
	case q.Signal != 0:
		// An error is that of a process which has just ended, and its end is told anyway.
		unix.PidfdSendSignal(s.proc.Pidfd, unix.Signal(q.Signal), nil, 0)
	case q.Rows != 0 || q.Cols != 0:
		if s.console != nil {
			unix.IoctlSetWinsize(int(s.console.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: q.Rows, Col: q.Cols})
		}
	case q.Detach:
		s.leave()
	}
}

func (s *supervisor) reap() unix.WaitStatus { return reap(s.proc.PID) }

// reap waits for the end of a child that the calling thread cloned.
//
// A process that calls PTRACE_TRACEME makes this thread its tracer, unasked: it then stops at each of its signals until its
// tracer lets it go on, and wait4 reports the stops. It is let go for good, with its signal.
func reap(pid int) unix.WaitStatus {
	for {
		if ws, ended := waitChild(pid, 0); ended {
			return ws
		}
	}
}

func waitChild(pid, options int) (ws unix.WaitStatus, ended bool) {
	for {
		got, err := unix.Wait4(pid, &ws, options, nil)
		switch {
		case err == unix.EINTR:
		case err == nil && got == 0:
			return 0, false
		case err == nil && ws.Stopped():
			sig := ws.StopSignal()
			if sig == unix.SIGTRAP { // execve of a traced process, which nobody else would see
				sig = 0
			}
			// Detached and not just continued: it would stop again at its next signal, with nobody there to look.
			unix.Syscall6(unix.SYS_PTRACE, unix.PTRACE_DETACH, uintptr(pid), 0, uintptr(sig), 0, 0)
		default:
			return ws, true
		}
	}
}
