package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/moby/buildkit/executor"
	"golang.org/x/sys/unix"

	"glassbox/state"
	"glassbox/supervise"
)

// execute runs a job in a process of its own to its end. started is told the pid of the program.
func (e *planExecutor) execute(
	ctx context.Context, job *supervise.OnceJob, step *runStep, p executor.ProcessInfo, started func(pid int, start uint64),
) (*supervise.OnceEvent, error) {
	lock, _, err := state.Lock(job.LockFile, false)
	if err != nil {
		return nil, fmt.Errorf("lock: %w", err)
	}
	// The process holds it by the descriptor that it inherits, and removes the file.
	defer lock.Close()
	record := filepath.Join(e.runs(), job.ID+".json")
	if err := writeRecord(record, job); err != nil {
		return nil, errors.Join(err, supervise.UndoOnce(job))
	}
	end, err := e.process(ctx, job, step, lock, p, started)
	if end == nil || !end.Exited && end.Error == "" {
		// The process was killed, and with it went the program (its parent's death is a signal); what outlives both is taken back here.
		if uerr := supervise.UndoOnce(job); uerr != nil {
			return end, errors.Join(err, uerr)
		}
		os.Remove(job.LockFile)
	}
	os.Remove(record)
	return end, err
}

// writeRecord writes what takes a RUN back, before anything of it is made. It needs no sync: after a power cut nothing of it is there.
func writeRecord(name string, job *supervise.OnceJob) error {
	data, err := json.Marshal(job)
	if err != nil {
		return err
	}
	return os.WriteFile(name, data, 0o600)
}

func (e *planExecutor) process(
	ctx context.Context, job *supervise.OnceJob, step *runStep, lock *os.File, p executor.ProcessInfo, started func(pid int, start uint64),
) (*supervise.OnceEvent, error) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	mine, theirs := os.NewFile(uintptr(pair[0]), "session"), os.NewFile(uintptr(pair[1]), "session")
	defer mine.Close()
	memory, err := supervise.Memory("job", job)
	if err != nil {
		theirs.Close()
		return nil, err
	}
	cmd := &exec.Cmd{
		// Without environment: what a caller has in it (LD_PRELOAD, GODEBUG) is not for a process that acts as root.
		Path: e.Runtime, Args: []string{"glassbox-runtime", "once", job.ID}, Env: []string{}, Dir: "/",
		ExtraFiles: []*os.File{theirs, memory, lock},
		// A session of its own: Ctrl-C at the terminal goes to the builder, which ends its RUNs in order.
		SysProcAttr: &syscall.SysProcAttr{Setsid: true},
		// Whoever left the RUN's namespaces with a stream of it in hand isn't waited for longer than that.
		WaitDelay: 2 * time.Second,
	}
	if !p.Meta.Tty {
		if p.Stdin != nil {
			cmd.Stdin = p.Stdin
		}
		if p.Stdout != nil {
			cmd.Stdout = p.Stdout
		}
		if p.Stderr != nil {
			cmd.Stderr = p.Stderr
		}
	}
	err = startProcess(cmd, e.TimerSlack)
	theirs.Close()
	memory.Close()
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", e.Runtime, err)
	}
	s := &runSession{file: mine}
	var end *supervise.OnceEvent
	over := make(chan struct{})
	stop := context.AfterFunc(ctx, func() { s.ask(supervise.Request{Signal: int(unix.SIGKILL)}) })
	defer stop()
	go s.forward(p, over)
	s.read(func(ev supervise.OnceEvent, console *os.File) {
		if ev.Before != nil {
			s.ask(e.watch.before(ctx, ev.Before))
			return
		}
		e.watch.timed(step, job.Plan, ev.Times)
		if ev.Started {
			if console != nil {
				s.terminal(p, console)
			}
			if started != nil {
				started(ev.PID, ev.Start)
			}
			if ctx.Err() != nil { // the kill may have come before there was somebody to be killed
				s.ask(supervise.Request{Signal: int(unix.SIGKILL)})
			}
			return
		}
		end = &ev
	})
	close(over)
	s.copies.Wait()
	werr := cmd.Wait()
	switch {
	case end == nil:
		return nil, fmt.Errorf("the process that ran the step was killed (%v)", werr)
	case !end.Exited:
		return end, errors.New(end.Error)
	case end.Error != "":
		return end, fmt.Errorf("after the step: %s", end.Error)
	}
	return end, nil
}

// runSession is the builder's end of the socket to the process that executes a plan.
type runSession struct {
	mu     sync.Mutex
	file   *os.File
	copies sync.WaitGroup
}

func (s *runSession) ask(q supervise.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	data, err := json.Marshal(q)
	if err == nil {
		unix.Sendmsg(int(s.file.Fd()), append(data, '\n'), nil, nil, unix.MSG_NOSIGNAL)
	}
}

// forward passes on signals and window sizes until it is over.
func (s *runSession) forward(p executor.ProcessInfo, over <-chan struct{}) {
	for {
		select {
		case sig, ok := <-p.Signal:
			if !ok {
				p.Signal = nil
				continue
			}
			s.ask(supervise.Request{Signal: int(sig)})
		case size, ok := <-p.Resize:
			if !ok {
				p.Resize = nil
				continue
			}
			s.ask(supervise.Request{Rows: uint16(size.Rows), Cols: uint16(size.Cols)})
		case <-over:
			return
		}
	}
}

// read reads events until the other end is closed.
func (s *runSession) read(handle func(supervise.OnceEvent, *os.File)) {
	var text []byte
	var console *os.File
	buf, rights := make([]byte, 16<<10), make([]byte, unix.CmsgSpace(4))
	for {
		n, rn, _, _, err := unix.Recvmsg(int(s.file.Fd()), buf, rights, unix.MSG_CMSG_CLOEXEC)
		if err == unix.EINTR {
			continue
		}
		if err != nil || n == 0 {
			return
		}
		if fd := descriptor(rights[:rn]); fd >= 0 {
			console = os.NewFile(uintptr(fd), "console")
		}
		text = append(text, buf[:n]...)
		for {
			line, rest, ok := bytes.Cut(text, []byte("\n"))
			if !ok {
				break
			}
			text = rest
			var ev supervise.OnceEvent
			if json.Unmarshal(line, &ev) == nil {
				handle(ev, console)
			}
		}
	}
}

func descriptor(rights []byte) int {
	msgs, err := unix.ParseSocketControlMessage(rights)
	if err != nil || len(msgs) == 0 {
		return -1
	}
	fds, err := unix.ParseUnixRights(&msgs[0])
	if err != nil || len(fds) == 0 {
		return -1
	}
	return fds[0]
}

// terminal carries what goes to and comes from a RUN's terminal.
func (s *runSession) terminal(p executor.ProcessInfo, console *os.File) {
	if p.Stdin != nil {
		go io.Copy(console, p.Stdin)
	}
	if p.Stdout != nil {
		s.copies.Go(func() {
			defer console.Close()
			io.Copy(p.Stdout, bufio.NewReader(console)) // ends with EIO when nobody has the terminal any more
		})
	}
}
