package supervise

import (
	"errors"
	"fmt"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
	"golang.org/x/term"

	"glassbox/fork"
	"glassbox/plan"
)

// An ExecJob is a further process to be started in a running container.
type ExecJob struct {
	Terminal    bool       `json:"terminal"`
	Interactive bool       `json:"interactive"`
	Detach      bool       `json:"detach"`
	Plan        *plan.Plan `json:"plan"`
}

// Exec reads an [ExecJob] from descriptor 3, starts its process, carries its input and output and returns its exit code. The caller
// (`glassbox exec`) has replaced itself by this process, so that a small program clones the child, and one whose executable
// can't be written from inside the container.
func Exec() int {
	var job ExecJob
	if err := readMemory(3, &job); err != nil {
		fmt.Fprintf(os.Stderr, "glassbox: exec: %v\n", err)
		return 125
	}
	code, err := job.run()
	if err != nil {
		fmt.Fprintf(os.Stderr, "glassbox: exec: %v\n", err)
		code = 125
		var step *fork.StepError
		if errors.As(err, &step) {
			code = step.Code
		}
	}
	return code
}

func (j *ExecJob) run() (int, error) {
	interactive := j.Interactive && !j.Detach
	p, err := newPipes(j.Terminal, interactive)
	if err != nil {
		return 125, err
	}
	// Signals are taken from before the start, so that none is lost between start and proxy.
	signals := make(chan os.Signal, 16)
	signal.Notify(signals, unix.SIGINT, unix.SIGTERM, unix.SIGHUP, unix.SIGQUIT, unix.SIGUSR1, unix.SIGUSR2, unix.SIGWINCH, unix.SIGPIPE)
	proc, err := fork.Start(j.Plan, fork.Options{FDs: p.child, OnExecFailure: fork.ExplainExec})
	p.closeChild()
	if err != nil {
		return 125, err
	}
	var console *os.File
	if fd, ok := proc.FDs["console"]; ok {
		console = os.NewFile(uintptr(fd), "console")
	}
	if j.Detach {
		return 0, nil
	}

	if console != nil {
		if term.IsTerminal(0) {
			if old, err := term.MakeRaw(0); err == nil {
				defer term.Restore(0, old)
			}
		}
		resize(console)
	}
	go func() {
		for sig := range signals {
			switch sig {
			case unix.SIGPIPE:
			case unix.SIGWINCH:
				if console != nil {
					resize(console)
				}
			default:
				unix.PidfdSendSignal(proc.Pidfd, sig.(syscall.Signal), nil, 0)
			}
		}
	}()

	var outputs sync.WaitGroup
	out := func(from *os.File, to int) {
		outputs.Add(1)
		go func() {
			defer outputs.Done()
			buf := make([]byte, 32<<10)
			for {
				n, err := from.Read(buf)
				if n > 0 && !writeAll(to, buf[:n]) {
					from.Close() // nobody reads: the process gets SIGPIPE
					return
				}
				if err != nil {
					return
				}
			}
		}()
	}
	in := func(to *os.File, closeAtEnd bool) {
		go func() {
			buf := make([]byte, 32<<10)
			for {
				n, err := os.Stdin.Read(buf)
				if n > 0 {
					if _, err := to.Write(buf[:n]); err != nil {
						return
					}
				}
				if err != nil {
					if closeAtEnd {
						to.Close()
					}
					return
				}
			}
		}()
	}
	if console != nil {
		out(console, 1)
		if interactive {
			in(console, false)
		}
	} else {
		out(p.stdout, 1)
		out(p.stderr, 2)
		if p.stdin != nil {
			in(p.stdin, true)
		}
	}

	code := waitFor(proc)
	// What the process has written is still to be passed on; what its children in the background will write is not waited for.
	done := make(chan struct{})
	go func() { outputs.Wait(); close(done) }()
	select {
	case <-done:
	case <-time.After(100 * time.Millisecond):
	}
	return code, nil
}

// waitFor returns the exit code of a child as a shell would.
func waitFor(proc *fork.Process) int {
	ws := reap(proc.PID)
	if ws.Signaled() {
		return 128 + int(ws.Signal())
	}
	return ws.ExitStatus()
}

// resize gives a pty the size of the terminal at standard input or output.
func resize(console *os.File) {
	for fd := range 2 {
		if ws, err := unix.IoctlGetWinsize(fd, unix.TIOCGWINSZ); err == nil {
			unix.IoctlSetWinsize(int(console.Fd()), unix.TIOCSWINSZ, ws)
			return
		}
	}
}
