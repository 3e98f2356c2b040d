package cli

import (
	"os"
	"sync"
	"syscall"

	"golang.org/x/term"

	"glassbox/engine"
	"glassbox/explain"
	"glassbox/signals"
)

func (a *app) isTerminal() bool { return term.IsTerminal(int(a.in.Fd())) }

// rawMode hands the keyboard to the container. The function returned may be called any number of times.
func rawMode(f *os.File) (restore func(), err error) {
	old, err := term.MakeRaw(int(f.Fd()))
	if err != nil {
		return nil, err
	}
	return sync.OnceFunc(func() { term.Restore(int(f.Fd()), old) }), nil
}

// catch catches every signal that is passed on, that changes the window, or that would end this program with the terminal
// in raw mode.
func (at *attachment) catch() (*signals.Catcher, error) {
	var want []syscall.Signal
	switch {
	case at.proxy:
		// All that can be caught, but for those that are this process's own affair: SIGCHLD, SIGPIPE, SIGURG (the Go
		// runtime's), and the job control that a shell expects of its foreground command.
		for s := syscall.Signal(1); s <= 64; s++ {
			switch s {
			case syscall.SIGKILL, syscall.SIGSTOP, syscall.SIGCHLD, syscall.SIGPIPE, syscall.SIGURG, syscall.SIGWINCH,
				syscall.SIGTSTP, syscall.SIGTTIN, syscall.SIGTTOU, syscall.SIGCONT,
				syscall.SIGSEGV, syscall.SIGBUS, syscall.SIGFPE, syscall.SIGILL, syscall.SIGTRAP, syscall.SIGSYS, syscall.SIGPROF,
				32, 33, 34: // of the C library
				continue
			}
			want = append(want, s)
		}
	case at.tty:
		want = []syscall.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT}
	}
	if at.tty {
		want = append(want, syscall.SIGWINCH)
	}
	return signals.Catch(want...)
}

// relay passes signals and window sizes on.
func (at *attachment) relay(s *engine.Session, c *signals.Catcher, restore func()) {
	if at.tty { // the window may have changed since it was measured
		at.resize(s)
	}
	for got := c.Next(); got != nil; got = c.Next() {
		for _, n := range got {
			switch {
			case n == syscall.SIGWINCH:
				at.resize(s)
			case at.proxy:
				s.Signal(n) // a container that has just ended takes no signals
			default:
				restore()
				signals.Default(n)
				syscall.Kill(os.Getpid(), n)
			}
		}
	}
}

func (at *attachment) resize(s *engine.Session) {
	if size := at.consoleSize(); size[0] > 0 && size[1] > 0 {
		s.Resize(size[0], size[1])
	}
}

// textOptions says how a plan is printed on a stream.
func (a *app) textOptions(f *os.File, verbose bool) explain.TextOptions {
	o := explain.TextOptions{Verbose: verbose}
	if cols, _, err := term.GetSize(int(f.Fd())); err == nil {
		o.Width = cols
		o.Color = a.getenv("NO_COLOR") == "" && a.getenv("TERM") != "dumb"
	}
	return o
}
