package engine

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"syscall"

	"glassbox/container"
	"glassbox/fork"
	"glassbox/plan"
	"glassbox/plan/lazyjson"
	"glassbox/state"
	"glassbox/supervise"

	"golang.org/x/sys/unix"
)

// ErrDetached is what a session ends with when the detach keys were typed: the process goes on.
var ErrDetached = supervise.ErrDetached

// ErrOutputClosed is what a session ends with when nobody takes its standard output any more (`run … | head -1`): the container goes on.
var ErrOutputClosed = errors.New("standard output was closed")

// Session is a process of a container with its caller beside it: the first one, as [Engine.Start] or [Engine.Attach] gives it, or a
// further one of [Engine.Exec]. Its methods may be called from several goroutines; Wait from one.
type Session struct {
	ID       string // of the container
	Terminal bool   // it has one
	// Left says, once Wait has returned, why a container that was to be removed at its end is still there; empty if it isn't.
	Left string

	process     process // nil: nobody is attached
	descriptors *descriptors
}

// process is one of the three ways to a process.
type process interface {
	wait(context.Context) (ending, error)
	Signal(unix.Signal) error
	Resize(rows, cols uint16) error
	Close()
}

// ending is how a process ended.
type ending struct {
	code int
	left string
}

// Wait carries input and output until the process ends, and returns its exit code. It ends early with the context's error, ErrDetached or
// ErrOutputClosed; the process then goes on without the caller, and all that is left to do is Close.
func (s *Session) Wait(ctx context.Context) (int, error) {
	if s.process == nil {
		return 0, nil
	}
	end, err := s.process.wait(ctx)
	s.Left = end.left
	if s.descriptors != nil && ctx.Err() == nil {
		s.descriptors.close()
		s.descriptors.copies.Wait()
	}
	return end.code, err
}

// Signal sends a signal to the process.
func (s *Session) Signal(sig unix.Signal) error {
	if s.process == nil {
		return nil
	}
	return s.process.Signal(sig)
}

// Resize gives the process's terminal, if it has one, a new size.
func (s *Session) Resize(rows, cols uint16) error {
	if s.process == nil {
		return nil
	}
	return s.process.Resize(rows, cols)
}

// Close leaves the process alone.
func (s *Session) Close() {
	if s.process != nil {
		s.process.Close()
	}
	if s.descriptors != nil {
		s.descriptors.close()
	}
}

// Traced waits until a container in the background has been traced for as long as StartOptions.TraceFor says, and reports whether
// it still runs.
func (s *Session) Traced() (running bool, err error) {
	if p, ok := s.process.(*started); ok {
		return p.traced()
	}
	return false, nil
}

// started is the supervisor of a container that this process has started.
type started struct {
	socket *os.File
	events *bufio.Scanner
	end    *ending
	trace  *plan.Trace // nil, or what events tell is added to it
}

// runtimeFile opens the runtime's executable as a read-only mount of its own, attached nowhere: a process in a container that
// gets hold of /proc/PID/exe can't write to it (CVE-2019-5736), and nothing has to be copied.
func (e *Engine) runtimeFile() (*os.File, error) {
	fd, err := unix.OpenTree(unix.AT_FDCWD, e.cfg.Runtime, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("%s: %w (make install puts glassbox-runtime beside glassbox; --runtime names another place)",
			e.cfg.Runtime, err)
	}
	attr := unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY | unix.MOUNT_ATTR_NODEV}
	if err := unix.MountSetattr(fd, "", unix.AT_EMPTY_PATH, &attr); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("make %s read-only: %w", e.cfg.Runtime, err)
	}
	if fd, err = above(fd, firstFree); err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), e.cfg.Runtime), nil
}

// firstFree is above the descriptors that supervisor and doorkeeper get, of which the first ones have fixed numbers, and, in a command that
// makes one start, above all others: see forkExec.
const firstFree = 48

// above moves a descriptor to a number from the given one on. The program is started by its name in /proc/self/fd, which is looked up
// when the child has put its own descriptors in their places: a lower number would stand for one of those by then (ENOEXEC).
func above(fd, least int) (int, error) {
	if fd >= least {
		return fd, nil
	}
	high, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, least)
	unix.Close(fd)
	if err != nil {
		return -1, fmt.Errorf("duplicate a descriptor: %w", err)
	}
	return high, nil
}

// forkExec starts an open program, in a session of its own, with files as its descriptors from 0 on.
//
// The program is found by its descriptor, in the child. There, package syscall first moves what it needs to the numbers behind the highest
// of files (nextfd in forkAndExecInChild1), over whatever else had them: a program that happens to be open there would be a pipe by then,
// and execve would fail with EACCES. So it gets a number that is further away. With few descriptors it has one anyway (firstFree).
func forkExec(program *os.File, argv, env []string, files []uintptr) error {
	fd, last := int(program.Fd()), int(slices.Max(files))
	if free := last + len(files) + 3; fd > last && fd < free { // each of files may be moved, and the pipe by which the child tells an error
		high, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, free)
		if err != nil {
			return fmt.Errorf("duplicate a descriptor: %w", err)
		}
		defer unix.Close(high)
		fd = high
	}
	return fork.WithOwnTimerSlack(func() error {
		_, err := syscall.ForkExec(fmt.Sprintf("/proc/self/fd/%d", fd), argv, &syscall.ProcAttr{
			Dir: "/", Env: env, Files: files, Sys: &syscall.SysProcAttr{Setsid: true},
		})
		return err
	})
}

// spawn starts the supervisor and waits until the program runs.
//
// The job reaches it twice: at once, in memory; and as a file, which is written while the supervisor comes up, and before it
// is told to begin.
func (e *Engine) spawn(
	ctx context.Context, c *container.Container, job *supervise.Job, lock *os.File, o StartOptions,
) (_ *Session, err error) {
	forked := timed(ctx, "starts the supervisor: job into memory, fork")
	runtime, err := e.runtimeFile()
	if err != nil {
		return nil, err
	}
	defer runtime.Close()
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	mine, theirs := os.NewFile(uintptr(pair[0]), "session"), os.NewFile(uintptr(pair[1]), "session")
	defer theirs.Close()
	defer func() {
		if err != nil {
			mine.Close() // a supervisor that was started ends by it, before it has been told to begin without having done anything
		}
	}()
	// Detached, the supervisor gets /dev/null three times: a descriptor of the caller's that it kept would hold the caller's pipe open for
	// ever.
	if !o.Attach {
		o.Streams = Streams{}
	}
	streams, err := o.Streams.descriptors(o.Interactive)
	if err != nil {
		return nil, err
	}
	defer streams.close()
	// In memory and in binary form: reading the same job as JSON takes the supervisor milliseconds, which every start would wait for.
	memory, err := supervise.Memory("job", job)
	if err != nil {
		return nil, err
	}
	defer memory.Close()
	fds := streams.fds()
	files := []uintptr{uintptr(fds[0]), uintptr(fds[1]), uintptr(fds[2]), lock.Fd(), theirs.Fd(), memory.Fd()}
	// A session of its own: Ctrl-C at the terminal is for the command, which passes it on. The call is the raw one because
	// os.StartProcess first starts a process only to see whether pidfds work, which costs as much as the container's network.
	argv := []string{"glassbox-runtime", "supervise", c.ID}
	if err := forkExec(runtime, argv, []string{}, files); err != nil {
		return nil, fmt.Errorf("start the supervisor: %w", err)
	}
	theirs.Close()
	forked()
	var born int64
	trace := observerOf(ctx).Trace
	if trace != nil {
		born = fork.Now()
	}
	written := timed(ctx, "writes plan and job to the disk")
	// The job comes last: where there is one, there is its plan.
	err = state.WriteJSON(filepath.Join(e.dir(c.ID), supervise.PlanFile), job.Plan)
	if err == nil {
		err = state.WriteJSON(filepath.Join(e.dir(c.ID), supervise.JobFile), job)
	}
	if err != nil {
		return nil, err
	}
	if _, err := mine.Write([]byte{'\n'}); err != nil {
		return nil, fmt.Errorf("the supervisor ended before the container was started: %w", err)
	}
	written()
	s := &started{socket: mine, events: bufio.NewScanner(mine), trace: trace}
	// An error may quote a whole plan step; a trace is larger by far.
	s.events.Buffer(nil, 1<<20)
	if job.Trace > 0 {
		s.events.Buffer(nil, 16<<20)
	}
	var refused error
	for {
		event, err := s.next()
		switch {
		case err != nil:
			return nil, fmt.Errorf("the supervisor ended before the container was started: %w", err)
		// The supervisor says that it gave up; why, the caller knows better, having refused.
		case refused != nil && event.Error != "":
			return nil, &StartError{event.Code, refused}
		case event.Error != "":
			return nil, &StartError{event.Code, errors.New(event.Error)}
		case event.Before == nil:
			s.late(born)
			return &Session{ID: c.ID, Terminal: job.Terminal, process: s, descriptors: streams}, nil
		}
		answer := supervise.Request{Go: true}
		if refused = o.Before(&Stop{Container: c, Plan: job.Plan, Index: event.Before.Index, PID: event.Before.PID}); refused != nil {
			answer = supervise.Request{Quit: true}
		}
		s.request(answer) // a supervisor that is gone sends no next event
	}
}

func (s *started) next() (supervise.Event, error) {
	var event supervise.Event
	if !s.events.Scan() {
		if err := s.events.Err(); err != nil {
			return event, err
		}
		return event, errors.New("its socket was closed")
	}
	err := lazyjson.Unmarshal(s.events.Bytes(), &event)
	if t := event.Trace; err == nil && t != nil && s.trace != nil {
		// Spans come in two parts: what led to the start is told with the start, and what followed with the end.
		s.trace.Spans = append(s.trace.Spans, t.Spans...)
		if t.Times != nil {
			s.trace.Zero, s.trace.Times = t.Zero, t.Times
		}
		if event.Exited || event.Traced {
			s.trace.Exec, s.trace.Calls, s.trace.Lost, s.trace.Note = t.Exec, t.Calls, t.Lost, t.Note
		}
	}
	return event, err
}

// late adds to the trace for how long the supervisor, made at a moment, didn't run before its first line: of its beginning it knows
// only what that took of the processor.
func (s *started) late(born int64) {
	if s.trace == nil {
		return
	}
	for _, span := range s.trace.Spans {
		if span.Who == "supervisor" && span.Begin > born {
			s.trace.Spans = append(s.trace.Spans, plan.Span{
				Who: "supervisor", What: "waits for a processor, or for the disk that its program lies on",
				Begin: born, End: span.Begin, Waits: true,
			})
			return
		}
	}
}

// wait waits for the container's end.
func (s *started) wait(ctx context.Context) (ending, error) {
	if s.end != nil {
		return *s.end, nil
	}
	// To the supervisor a caller whose socket is closed has left.
	stop := context.AfterFunc(ctx, func() { unix.Shutdown(int(s.socket.Fd()), unix.SHUT_RDWR) })
	defer stop()
	event, err := s.next()
	switch {
	case ctx.Err() != nil:
		return ending{code: 125}, ctx.Err()
	case err != nil:
		return ending{code: 137}, fmt.Errorf("the container's supervisor was killed: %w", err)
	case event.Left == supervise.LeftKeys:
		return ending{}, ErrDetached
	case event.Left == supervise.LeftOutput:
		return ending{}, ErrOutputClosed
	}
	s.end = &ending{event.Code, event.Error}
	return *s.end, nil
}

func (s *started) traced() (running bool, err error) {
	event, err := s.next()
	if err != nil {
		return false, fmt.Errorf("the container's supervisor was killed: %w", err)
	}
	// Ended before its trace was over: Wait finds the end here, for the supervisor tells it once.
	if event.Exited {
		s.end = &ending{event.Code, event.Error}
	}
	return !event.Exited, nil
}

func (s *started) request(q supervise.Request) error {
	return json.NewEncoder(s.socket).Encode(q)
}

// Signal sends a signal to the container's first process.
func (s *started) Signal(sig unix.Signal) error {
	return s.request(supervise.Request{Signal: int(sig)})
}

// Resize gives the container's terminal a new size.
func (s *started) Resize(rows, cols uint16) error {
	return s.request(supervise.Request{Rows: rows, Cols: cols})
}

// Close leaves the container to its supervisor.
func (s *started) Close() { s.socket.Close() }
