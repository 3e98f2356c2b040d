package supervise

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"glassbox/cgroup"
	"glassbox/fork"
	"glassbox/host/remove"
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
	unix.CloseOnExec(lockFD)
	unix.CloseOnExec(sessionFD)
	s := &supervisor{
		job:     &Job{},
		lock:    os.NewFile(lockFD, "lock"),
		session: session{file: os.NewFile(sessionFD, "session")},
		detach:  make(chan struct{}),
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
	fd, err := memoryFD(name, plan.AppendBinary(nil, v))
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), name), nil
}

func memoryFD(name string, data []byte) (int, error) {
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
	job      *Job
	state    State
	lock     *os.File
	session  session
	log      *logger
	proc     *fork.Process
	pipes    *pipes
	console  *os.File
	streams  sync.WaitGroup // copies of output
	detached atomic.Bool
	detach   chan struct{}
	once     sync.Once
	ports    []int
	watch    *fork.Watcher // nil: nothing is traced
	noted    []plan.Span   // what hasn't been told yet
	zero     int64         // the moment of the plan's beginning
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
		s.becomeResident() // returns only if that fails
		if s.watch != nil {
			s.watch.Stay()
		}
	}
	s.connect()
	return s.serve()
}

// traced waits until a container in the background has been traced for long enough, and tells what was seen, or reports that it has
// ended meanwhile. Nobody takes its output in that tenth of a second: it stays in pipe or terminal.
func (s *supervisor) traced() (ended bool) {
	if s.watch == nil {
		return false
	}
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
		ws = s.reap()
	}
	drained := s.timed("ends what is left, waits for the last output")
	code := s.drain(ws)
	drained()
	finished := s.timed("takes back cgroups, firewall entries, address; writes down the end")
	left := s.finish(code)
	finished()
	if seen != nil {
		seen.Spans = s.trace().Spans
	}
	end := Event{Exited: true, Code: code, Trace: seen}
	if left != nil {
		end.Error = left.Error()
	}
	s.session.send(end)
	return 0
}

// start runs the plan.
func (s *supervisor) start() error {
	prepared := s.timed("opens the log, takes the ports, makes the pipes")
	var err error
	if s.log, err = openLog(logPath(s.job), s.job.LogMaxSize, s.job.LogMaxFiles); err != nil {
		return err
	}
	if n := s.job.Network; n != nil && len(n.Ports) > 0 {
		if s.ports, err = network.Reserve(reservations(n.Ports)); err != nil {
			return err
		}
	}
	p, err := newPipes(s.job.Terminal, s.job.Interactive)
	if err != nil {
		return err
	}
	defer p.closeChild()
	o := fork.Options{FDs: p.child, OnExecFailure: fork.ExplainExec}
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
	s.proc, err = fork.Start(s.job.Plan, o)
	if err != nil {
		p.closeParent()
		return err
	}
	defer s.timed("writes down that it runs")()
	start, _ := fork.StartTime(s.proc.PID)
	s.state = State{Status: Running, PID: s.proc.PID, Start: start, Boot: BootID(), Started: time.Now().UTC(), Times: s.state.Times}
	if err := WriteState(s.job.Dir, &s.state); err != nil {
		unix.Kill(s.proc.PID, unix.SIGKILL)
		s.reap()
		p.closeParent()
		s.undo()
		return err
	}
	s.pipes = p
	if s.job.Terminal {
		s.console = os.NewFile(uintptr(s.proc.FDs["console"]), "console")
	}
	return nil
}

func logPath(job *Job) string { return filepath.Join(job.Dir, LogFile) }

func reservations(rules []plan.PortRule) []network.Port {
	ports := make([]network.Port, len(rules))
	for i, r := range rules {
		ports[i] = network.Port{HostPort: r.HostPort, ContainerPort: r.ContainerPort, Proto: r.Proto}
		ports[i].HostIP, _ = netip.ParseAddr(r.HostIP)
	}
	return ports
}

// connect starts to carry input and output.
func (s *supervisor) connect() {
	p := s.pipes
	in, out, errOut := -1, -1, -1
	if !s.job.Detached {
		in, out, errOut = keepFD(0), keepFD(1), keepFD(2)
	}
	if s.job.Terminal {
		s.copyOut(s.console, out, "stdout")
		if s.job.Interactive && in >= 0 {
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

// copyOut carries a stream of the container to the log and to the caller.
func (s *supervisor) copyOut(from *os.File, to int, stream string) {
	s.streams.Add(1)
	go func() {
		defer s.streams.Done()
		buf := make([]byte, 16<<10)
		for {
			n, err := from.Read(buf)
			if n > 0 {
				s.log.write(stream, buf[:n]) // a full disk must not stop the container
				if to >= 0 && !s.detached.Load() && !writeAll(to, buf[:n]) {
					unix.Close(to)
					to = -1
				}
			}
			if err != nil { // end of file; EIO from a terminal whose last user is gone
				break
			}
		}
		from.Close()
		if to >= 0 {
			unix.Close(to)
		}
	}()
}

func writeAll(fd int, data []byte) bool {
	for len(data) > 0 {
		n, err := unix.Write(fd, data)
		if err == unix.EINTR {
			continue
		}
		if err == unix.EAGAIN {
			unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}}, -1)
			continue
		}
		if err != nil {
			return false
		}
		data = data[n:]
	}
	return true
}

// copyIn carries the caller's input to the container as long as the caller is there.
func (s *supervisor) copyIn(from int, to *os.File, closeAtEnd bool) {
	go func() {
		wake, err := unix.Eventfd(0, unix.EFD_CLOEXEC)
		if err != nil {
			return
		}
		go func() {
			<-s.detach
			unix.Write(wake, []byte{1, 0, 0, 0, 0, 0, 0, 0})
		}()
		buf := make([]byte, 16<<10)
		for {
			fds := []unix.PollFd{{Fd: int32(from), Events: unix.POLLIN}, {Fd: int32(wake), Events: unix.POLLIN}}
			if _, err := unix.Poll(fds, -1); err == unix.EINTR {
				continue
			} else if err != nil || fds[1].Revents != 0 {
				return // detached: the container's input stays open
			}
			n, err := unix.Read(from, buf)
			if err == unix.EINTR || err == unix.EAGAIN {
				continue
			}
			if n > 0 {
				if _, err := to.Write(buf[:n]); err != nil {
					break
				}
				continue
			}
			break
		}
		if closeAtEnd {
			to.Close()
		}
		unix.Close(from)
	}()
}

func (s *supervisor) request(q Request) {
	switch {
	case q.Signal != 0:
		unix.PidfdSendSignal(s.proc.Pidfd, unix.Signal(q.Signal), nil, 0)
	case q.Rows != 0 || q.Cols != 0:
		if s.console != nil {
			unix.IoctlSetWinsize(int(s.console.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: q.Rows, Col: q.Cols})
		}
	case q.Detach:
		s.leave()
	}
}

// leave stops serving the caller; the container goes on.
func (s *supervisor) leave() {
	s.once.Do(func() {
		s.detached.Store(true)
		close(s.detach)
	})
}

func (s *supervisor) reap() unix.WaitStatus { return reap(s.proc.PID) }

// reap waits for the end of a child that the calling thread cloned.
//
// A process that calls PTRACE_TRACEME makes this thread its tracer, unasked: it then stops at each of its signals until its
// tracer lets it go on, and wait4 reports the stops. It is let go for good, with its signal.
func reap(pid int) unix.WaitStatus {
	for {
		var ws unix.WaitStatus
		_, err := unix.Wait4(pid, &ws, 0, nil)
		switch {
		case err == unix.EINTR:
		case err == nil && ws.Stopped():
			sig := ws.StopSignal()
			if sig == unix.SIGTRAP { // execve of a traced process, which nobody else would see
				sig = 0
			}
			unix.Syscall6(unix.SYS_PTRACE, unix.PTRACE_DETACH, uintptr(pid), 0, uintptr(sig), 0, 0)
		default:
			return ws
		}
	}
}

// drain ends what is left of the container, waits for the last of its output, and returns its exit code as a shell would: 128
// and the signal for a killed one.
func (s *supervisor) drain(ws unix.WaitStatus) int {
	code := ws.ExitStatus()
	if ws.Signaled() {
		code = 128 + int(ws.Signal())
	}
	// With a PID namespace of its own nothing of the container is left; without, its other processes end now.
	cgroup.Kill(s.job.Cgroups)
	done := make(chan struct{})
	go func() { s.streams.Wait(); close(done) }()
	select {
	case <-done:
	case <-time.After(2 * time.Second): // somebody outside the container holds its output open
	}
	return code
}

// finish records the end and takes back what the start made. The error says what of a container that was to be removed stays.
func (s *supervisor) finish(code int) error {
	s.log.close()
	s.state.Status, s.state.ExitCode, s.state.PID, s.state.Finished = Exited, code, 0, time.Now().UTC()
	if !s.job.Remove {
		if stats, err := cgroup.ReadStats(s.job.Cgroups); err == nil {
			s.state.Stats = stats
		}
	}
	if n, ok, err := cgroup.OOMKills(s.job.Cgroups); err == nil && ok && n > 0 {
		s.state.OOMKilled = true
	}
	if err := s.undo(); err != nil {
		s.state.Error = err.Error()
	}
	return s.end()
}

func (s *supervisor) failed(err error, code int) {
	s.state = State{Status: Exited, ExitCode: code, Error: err.Error(), Finished: time.Now().UTC(), Times: s.state.Times}
	if s.log != nil {
		s.log.close()
	}
	s.closePorts() // whoever is told may want them for the next try, before this process has ended
	releaseNetwork(s.job)
	s.job.Remove = s.job.Remove || s.job.Step
	if left := s.end(); left != nil {
		err = fmt.Errorf("%w\nand %w", err, left)
	}
	failed := Event{Error: err.Error(), Code: code, Trace: s.trace()}
	if failed.Trace != nil {
		failed.Trace.Zero, failed.Trace.Times = s.zero, s.state.Times
	}
	s.session.send(failed)
}

// end writes the last state, or removes the container; one that can't be removed whole stays, with the reason in its state.
func (s *supervisor) end() (left error) {
	if s.job.Remove {
		if left = RemoveFiles(s.job.Dir, s.job.NameFile); left != nil {
			s.state.Error = left.Error()
		}
	}
	if !s.job.Remove || left != nil {
		WriteState(s.job.Dir, &s.state)
	}
	s.lock.WriteAt([]byte(strconv.Itoa(s.state.ExitCode)), 0)
	state.Unlock(s.lock, s.job.LockFile)
	return left
}

func (s *supervisor) undo() error {
	s.closePorts()
	return Undo(s.job)
}

func (s *supervisor) closePorts() {
	for _, fd := range s.ports {
		unix.Close(fd)
	}
	s.ports = nil
}

// Undo takes back what the plan of a job made and gives its address back. Doing it twice does no harm.
func Undo(job *Job) error {
	var errs []error
	for _, step := range job.Undo {
		if _, ok := step.Op.(*plan.LinkDelete); ok {
			continue // the pair goes with the container's network namespace, which nobody has to wait for
		}
		if err := fork.Undo(step.Op); err != nil {
			errs = append(errs, fmt.Errorf("undo %s: %w", step.Op, err))
		}
	}
	releaseNetwork(job)
	return errors.Join(errs...)
}

func releaseNetwork(job *Job) {
	n := job.Network
	if n == nil {
		return
	}
	for _, l := range n.All() {
		if addr, err := netip.ParseAddr(l.Address); err == nil {
			_ = network.Store{State: n.State}.Release(l.Network, addr, job.ID) // what stays, network.Repair finds
		}
	}
}

// RemoveFiles removes a container's name and directory, in an order in which a kill at any moment leaves either the container
// or something that Repair takes for one that was never finished. If something can't be removed the container is there as before, with
// what is left of its files, and can be removed again; the error says what.
func RemoveFiles(dir, nameFile string) error {
	// Out of everybody's sight in one step; the file itself goes last, because without it nobody would know of the rest.
	seen, going := filepath.Join(dir, ContainerFile), filepath.Join(dir, goingFile)
	if err := os.Rename(seen, going); err != nil && !os.IsNotExist(err) {
		return err
	}
	err := remove.Contents(dir, goingFile, StateFile)
	if err == nil && nameFile != "" {
		if err = os.Remove(nameFile); os.IsNotExist(err) {
			err = nil
		}
	}
	if err == nil {
		return remove.All(dir)
	}
	if errors.Is(err, fs.ErrNotExist) { // the directory itself
		return nil
	}
	os.Rename(going, seen)
	return err
}

// pipes connect a container without a terminal to its supervisor.
type pipes struct {
	child                 map[string]int
	stdin, stdout, stderr *os.File // the supervisor's ends
}

func newPipes(terminal, interactive bool) (*pipes, error) {
	p := &pipes{child: map[string]int{}}
	if terminal {
		return p, nil
	}
	pipe := func(name string, childReads bool) (*os.File, error) {
		var fd [2]int
		if err := unix.Pipe2(fd[:], unix.O_CLOEXEC); err != nil {
			return nil, err
		}
		child, mine := fd[1], fd[0]
		if childReads {
			child, mine = fd[0], fd[1]
		}
		p.child[name] = child
		unix.SetNonblock(mine, true) // so that Go's poller waits, and not a thread
		return os.NewFile(uintptr(mine), name), nil
	}
	var err error
	if interactive {
		if p.stdin, err = pipe("stdin", true); err != nil {
			return nil, err
		}
	} else {
		fd, err := unix.Open("/dev/null", unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			return nil, err
		}
		p.child["stdin"] = fd
	}
	if p.stdout, err = pipe("stdout", false); err != nil {
		return nil, err
	}
	if p.stderr, err = pipe("stderr", false); err != nil {
		return nil, err
	}
	return p, nil
}

func (p *pipes) closeChild() {
	for _, fd := range p.child {
		unix.Close(fd)
	}
}

func (p *pipes) closeParent() {
	for _, f := range []*os.File{p.stdin, p.stdout, p.stderr} {
		if f != nil {
			f.Close()
		}
	}
}
