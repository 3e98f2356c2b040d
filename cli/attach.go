package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"glassbox/engine"
	"glassbox/signals"
)

func (a *app) attachCommand() *cobra.Command {
	var noStdin bool
	var detachKeys string
	proxy := true
	cmd := &cobra.Command{
		Use:   "attach [OPTIONS] CONTAINER",
		Short: "See what a running container writes from now on, and type to it",
		Long: `See what a running container writes from now on, and type to it.

Any number of terminals can be attached at once. The detach keys (ctrl-p ctrl-q) leave it running, and so does closing the terminal.
The exit code is the container's, or 1 after the detach keys.`,
		Example: `  glassbox attach shell
  glassbox attach --no-stdin web`,
		Args:              exactly(1),
		ValidArgsFunction: a.completeIn("running"),
		RunE: func(cmd *cobra.Command, args []string) error {
			keys, err := engine.ParseDetachKeys(detachKeys)
			if err != nil {
				return err
			}
			e, err := a.open()
			if err != nil {
				return err
			}
			at := attachment{app: a, proxy: proxy, keys: keys, stdin: !noStdin, stdout: true, stderr: true}
			v, err := e.Inspect(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			at.tty = v.Config.Tty
			// What keeps one from attaching at all is told first.
			if v.State.Running && !v.State.Paused && at.tty && at.stdin && !a.isTerminal() {
				return errNoTTY
			}
			err = at.stay(cmd.Context(), false, func(s engine.Streams) (*engine.Session, error) {
				return e.Attach(cmd.Context(), args[0], engine.AttachOptions{Streams: s})
			})
			return at.escaped(err)
		},
	}
	cmd.Flags().BoolVar(&noStdin, "no-stdin", false, "Don't pass input on")
	cmd.Flags().BoolVar(&proxy, "sig-proxy", true, "Pass signals on to the container")
	detachKeysFlag(cmd.Flags(), &detachKeys)
	return cmd
}

func detachKeysFlag(fs *pflag.FlagSet, to *string) {
	fs.StringVar(to, "detach-keys", "", "Keys at a terminal that leave the container running (default ctrl-p,ctrl-q)")
}

// attachment is this program's terminal and its signals beside a process of a container, whichever way it came about: run, start -a,
// attach, exec or debug.
type attachment struct {
	*app
	tty                   bool
	proxy                 bool
	keys                  []byte
	stdin, stdout, stderr bool
	signals               []syscall.Signal // those that are passed on; nil: all that make sense
}

// choose says which streams are attached: those named, or all, input only with -i.
func (at *attachment) choose(named []string, interactive bool) {
	if len(named) == 0 {
		at.stdin, at.stdout, at.stderr = interactive, true, true
		return
	}
	for _, s := range named {
		switch strings.ToLower(s) {
		case "stdin":
			at.stdin = true
		case "stdout":
			at.stdout = true
		case "stderr":
			at.stderr = true
		}
	}
}

// start starts a container and stays until it ends.
func (at *attachment) start(ctx context.Context, e *engine.Engine, id string, so engine.StartOptions) error {
	so.Attach, so.Interactive = true, at.stdin
	err := at.stay(ctx, so.Before != nil, func(s engine.Streams) (*engine.Session, error) {
		defer at.timed("start the container")()
		so.Streams = s
		return e.Start(ctx, id, so)
	})
	if errors.Is(err, engine.ErrDetached) {
		return nil
	}
	return err
}

// escaped says what Docker says when attach and exec are left with the detach keys.
func (at *attachment) escaped(err error) error {
	if errors.Is(err, engine.ErrDetached) {
		fmt.Fprintln(at.err, "read escape sequence")
		return &exitError{code: 1}
	}
	return err
}

// stay opens a session, and stays until it ends. Signals are caught from before that, so that none is lost: the process gets those that
// come in between. With late they and the keyboard are somebody else's until then.
func (at *attachment) stay(ctx context.Context, late bool, open func(engine.Streams) (*engine.Session, error)) error {
	restore := func() {}
	var catcher *signals.Catcher
	take := func() (err error) {
		if catcher, err = at.catch(); err == nil && at.tty && at.stdin && at.isTerminal() {
			restore, err = rawMode(at.in)
		}
		return err
	}
	defer func() {
		restore()
		if catcher != nil {
			catcher.Stop()
		}
	}()
	if !late {
		if err := take(); err != nil {
			return err
		}
	}
	s, err := open(at.streams())
	if err != nil {
		restore()
		return err
	}
	defer s.Close()
	if late {
		if err := take(); err != nil {
			return err
		}
	}
	// From before Wait on: the signals that have come meanwhile are in the catcher, and are for the process that there is now.
	go at.relay(s, catcher, restore)
	code, err := s.Wait(ctx)
	restore()
	switch {
	// A write may fail before the signal is there that says why: the kernel marks a terminal as closed first (pty_close).
	case errors.Is(err, engine.ErrOutputClosed) && at.tty && hungUp(at.out):
		return die(syscall.SIGHUP)
	case errors.Is(err, engine.ErrOutputClosed):
		at.complain(fmt.Errorf("nobody reads standard output any more: container %.12s goes on without", s.ID))
		return &exitError{code: 1} // as Docker's: 125 would say that it didn't run
	case err != nil:
		return err
	}
	if s.Left != "" {
		fmt.Fprintln(at.err, "glassbox: the container has ended, but was not removed:", s.Left)
	}
	if code != 0 {
		return &exitError{code}
	}
	return nil
}

// streams are those that are attached.
func (at *attachment) streams() engine.Streams {
	s := engine.Streams{DetachKeys: at.keys}
	if at.stdin {
		s.Stdin = at.in
	}
	if at.stdout {
		s.Stdout = at.out
	}
	if at.stderr {
		s.Stderr = at.err
	}
	return s
}

// catch catches every signal that is passed on, that changes the window, or that would end this program with the terminal
// in raw mode.
func (at *attachment) catch() (*signals.Catcher, error) {
	var want []syscall.Signal
	switch {
	case at.proxy && at.signals != nil:
		want = append(want, at.signals...)
	case at.proxy:
		// All that can be caught, but for those that are this process's own affair: SIGCHLD, SIGPIPE, SIGURG (the Go
		// runtime's), and the job control that a shell expects of its foreground command.
		// Up to SIGRTMAX (signal(7)): a program in a container may mean something by those of real time.
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
			case at.proxy && !(at.tty && n == syscall.SIGHUP):
				s.Signal(n) // a process that has just ended takes no signals
			default:
				// SIGHUP with a terminal says that it was closed: the container goes on, as with Docker, and its supervisor learns by our
				// end.
				restore()
				die(n)
			}
		}
	}
}

// die lets a signal do to this program what it would have done uncaught, so that the caller's shell sees WIFSIGNALED and not an exit
// code. It returns that code where the signal is blocked.
func die(n syscall.Signal) error {
	signals.Default(n)
	syscall.Kill(os.Getpid(), n)
	return &exitError{code: 128 + int(n)}
}

func (at *attachment) resize(s *engine.Session) {
	if size := at.consoleSize(); size[0] > 0 && size[1] > 0 {
		s.Resize(size[0], size[1])
	}
}
