package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/spf13/pflag"
	"golang.org/x/sys/unix"
	"golang.org/x/term"

	"glassbox/engine"
	"glassbox/explain"
	"glassbox/plan"
)

// stepFlags say whether and where a start stops.
type stepFlags struct {
	step  bool
	stops []string
}

func (f *stepFlags) register(fs *pflag.FlagSet) {
	fs.BoolVar(&f.step, "step", false, "Stop before each step of the plan, show it, and ask how to go on (? tells what can be answered)")
	fs.Var(list{&f.stops}, "break", "Stop before a step: its number, or a `phase` (limits, isolation, network, rootfs, mounts, …), where "+
		"that begins")
}

func (f *stepFlags) given() bool { return f.step || len(f.stops) > 0 }

func (f *stepFlags) check() error {
	for _, s := range f.stops {
		if _, err := strconv.Atoi(s); err != nil && !slices.Contains(phases(), plan.Phase(s)) {
			return &usageError{err: fmt.Errorf("--break %q: want the number of a step or a phase: %s", s, phaseNames())}
		}
	}
	return nil
}

func phases() []plan.Phase {
	return []plan.Phase{
		plan.Limits, plan.Sources, plan.Isolation, plan.Network, plan.Rootfs, plan.Mounts, plan.Devices, plan.Kernel, plan.Terminal,
		plan.Privileges, plan.Exec,
	}
}

func phaseNames() string {
	var names []string
	for _, p := range phases() {
		names = append(names, string(p))
	}
	return strings.Join(names, ", ")
}

// stepper asks a person, or a pipe, before the steps of a start.
type stepper struct {
	*app
	engine *engine.Engine
	flags  stepFlags
	stop   func(s *engine.Stop) bool // whether to stop there
	phase  plan.Phase                // of the step before
	shown  plan.Phase                // of the last step that was shown
	made   map[int]bool              // steps that are made
	met    map[plan.Phase]bool       // phases that have begun
	wake   int                       // an eventfd that counts interrupts
	done   func()
	catch  func() // takes the signals
}

const stepIntro = `One step at a time. Before each of its steps the container's process waits: stepping adds a write(2) and a read(2)
there, which are not in the plan and don't change its hash. Without stepping, host and child work at the same time; here they take turns.
`

const stepHelp = `  Enter      make this step, stop before the next
  p          go on to the next phase
  N          go on to step N
  PHASE      go on to the phase: ` + `%s
  c          go on to the end, or to the next --break
  s          the state of the container's process: namespaces, root, mounts, ids
  !          a shell in the half-built container, with this machine's programs; its files are at /.container
  ! COMMAND  a command there
  q          quit: take back what was made (so do Ctrl-C and the end of the input)
`

// A quit is a start that was ended at a stop.
type quit struct {
	step, steps int
	cause       error // nil: because the person said so
}

func (q *quit) Error() string {
	text := fmt.Sprintf("stopped before step %d of %d; what was made is taken back", q.step, q.steps)
	if q.cause != nil {
		text += ": " + q.cause.Error()
	}
	return text
}

// Unwrap returns the cause.
func (q *quit) Unwrap() error { return q.cause }

func newStepper(a *app, e *engine.Engine, f stepFlags) (*stepper, error) {
	// A channel can't be waited for together with a descriptor: the eventfd is what poll(2) sees of a signal.
	wake, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return nil, err
	}
	s := &stepper{app: a, engine: e, flags: f, wake: wake}
	// One is enough: the first ends the start.
	signals := make(chan os.Signal, 1)
	s.catch = func() {
		signal.Stop(signals) // or Notify takes them for caught already
		signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	}
	s.catch()
	stop := make(chan struct{})
	go func() {
		for {
			select {
			case <-signals:
				// A number to add, in the machine's order of bytes (eventfd(2)): here 1, and any but 0 would do.
				unix.Write(wake, []byte{1, 0, 0, 0, 0, 0, 0, 0})
			case <-stop:
				unix.Close(wake) // here, where nothing is written to it any more
				return
			}
		}
	}()
	s.done = func() { signal.Stop(signals); close(stop) }
	s.stop = s.first
	return s, nil
}

func (s *stepper) close() { s.done() }

// first says whether to stop at the beginning, and at what --break names.
func (s *stepper) first(at *engine.Stop) bool {
	return len(s.flags.stops) == 0 || s.breaks(at)
}

func (s *stepper) breaks(at *engine.Stop) bool {
	phase := at.Plan.Steps[at.Index].Phase
	return slices.Contains(s.flags.stops, strconv.Itoa(at.Index+1)) || !s.met[phase] && slices.Contains(s.flags.stops, string(phase))
}

// before is engine.StartOptions.Before.
func (s *stepper) before(at *engine.Stop) error {
	if s.interrupted() {
		return s.end(at, context.Canceled)
	}
	if s.made == nil {
		s.made, s.met = map[int]bool{}, map[plan.Phase]bool{}
		fmt.Fprint(s.err, stepIntro)
		// Only here, as the plan's number of steps isn't known where the flags are checked.
		for _, b := range s.flags.stops {
			if n, err := strconv.Atoi(b); err == nil && (n < 1 || n > len(at.Plan.Steps)) {
				return s.end(at, fmt.Errorf("--break %s: the plan has %d steps", b, len(at.Plan.Steps)))
			}
		}
	}
	stop := s.stop(at) || s.breaks(at)
	phase := at.Plan.Steps[at.Index].Phase
	s.phase, s.met[phase] = phase, true
	defer func() { s.made[at.Index] = true }()
	if !stop {
		return nil
	}
	fmt.Fprintln(s.err)
	if err := explain.TextStep(s.err, at.Plan, at.Index, phase != s.shown, s.textOptions(s.err, false)); err != nil {
		return err
	}
	s.shown = phase
	return s.ask(at)
}

// ask reads answers until one lets the start go on or ends it.
func (s *stepper) ask(at *engine.Stop) error {
	for {
		fmt.Fprintf(s.err, "step %d of %d> ", at.Index+1, len(at.Plan.Steps))
		line, err := s.line()
		// A transcript of answers from a pipe reads like one from a terminal.
		if !term.IsTerminal(int(s.in.Fd())) {
			fmt.Fprintln(s.err, printable(line)) // what a terminal would have shown
		}
		if err != nil {
			return s.end(at, err)
		}
		word := strings.TrimSpace(line)
		n, notNumber := strconv.Atoi(word)
		switch {
		case word == "" || word == "n":
			s.stop = func(*engine.Stop) bool { return true }
		case word == "p":
			from := s.phase
			s.stop = func(next *engine.Stop) bool { return next.Plan.Steps[next.Index].Phase != from }
		case word == "c":
			s.stop = func(*engine.Stop) bool { return false }
		case notNumber == nil:
			if n < 1 || n > len(at.Plan.Steps) || n == at.Index+1 || s.made[n-1] {
				fmt.Fprintf(s.err, "step %d doesn't come any more\n", n)
				continue
			}
			s.stop = func(next *engine.Stop) bool { return next.Index == n-1 }
		case slices.Contains(phases(), plan.Phase(word)):
			if !s.comes(at, plan.Phase(word)) {
				fmt.Fprintf(s.err, "the phase %s doesn't come any more\n", word)
				continue
			}
			from := s.phase
			s.stop = func(next *engine.Stop) bool {
				phase := next.Plan.Steps[next.Index].Phase
				// A plan can come back to a phase: to be asked for the present one means its next beginning.
				left := phase != from
				from = when(left, "", from)
				return left && phase == plan.Phase(word)
			}
		case word == "q":
			return s.end(at, nil)
		case word == "s":
			s.state(at)
			continue
		case strings.HasPrefix(word, "!"):
			s.shell(at, strings.TrimSpace(word[1:]))
			continue
		default:
			if word != "?" {
				fmt.Fprintf(s.err, "%q is no answer\n", printable(word))
			}
			fmt.Fprintf(s.err, stepHelp, phaseNames())
			continue
		}
		return nil
	}
}

// comes reports whether a step of a phase begins it anew after the present one.
func (s *stepper) comes(at *engine.Stop, phase plan.Phase) bool {
	order, _ := at.Plan.Order()
	from := at.Plan.Steps[at.Index].Phase
	for _, i := range order {
		if i == at.Index || s.made[i] {
			continue
		}
		if next := at.Plan.Steps[i].Phase; next == phase && next != from {
			return true
		} else if next != from {
			from = ""
		}
	}
	return false
}

func when[T any](ok bool, yes, no T) T {
	if ok {
		return yes
	}
	return no
}

func (s *stepper) end(at *engine.Stop, err error) error {
	return &quit{at.Index + 1, len(at.Plan.Steps), err}
}

func (s *stepper) interrupted() bool {
	_, err := unix.Read(s.wake, make([]byte, 8))
	return err == nil
}

// line reads a line byte by byte: what follows it may be the container's.
func (s *stepper) line() (string, error) {
	var line []byte
	in := int(s.in.Fd())
	for {
		fds := []unix.PollFd{{Fd: int32(in), Events: unix.POLLIN}, {Fd: int32(s.wake), Events: unix.POLLIN}}
		if _, err := unix.Poll(fds, -1); err == unix.EINTR {
			continue
		} else if err != nil {
			return "", err
		}
		if s.interrupted() {
			return string(line), context.Canceled
		}
		var b [1]byte
		n, err := unix.Read(in, b[:])
		switch {
		case err == unix.EINTR || err == unix.EAGAIN:
			continue
		case err != nil || n == 0:
			return string(line), errors.New("the input has ended")
		case b[0] == '\n':
			return string(line), nil
		// As long as a terminal's own line may be (termios(3), canonical mode); what is beyond it is read and dropped.
		case len(line) < 4096:
			line = append(line, b[0])
		}
	}
}

// state prints what /proc says of the half-built container.
func (s *stepper) state(at *engine.Stop) {
	l, err := at.Look()
	if err != nil {
		s.complain(err)
		return
	}
	row := func(name, format string, a ...any) {
		fmt.Fprintf(s.err, "  %-12s %s\n", name, printable(fmt.Sprintf(format, a...)))
	}
	row("process", "%d on the host, %d descriptors open", l.PID, l.FDs)
	row("namespaces", "its own: %s; the host's: %s", orNone(l.Own), orNone(l.Shared))
	row("root", "%s, working directory %s", l.Root, l.Cwd)
	row("network", "%s", orNone(l.Links))
	row("user", "%s (real, effective, saved, files), group %s, groups %s", l.UID, l.GID, when(l.Groups == "", "none", l.Groups))
	row("powers", "effective %s, at most %s, no new privileges: %v, filtered: %v", l.Caps, l.Bounding, l.NoNewPrivs, l.Seccomp)
	var paths []string
	names := map[string][]string{}
	for _, c := range l.Cgroups {
		name, path, _ := strings.Cut(c, ":")
		if names[path] == nil {
			paths = append(paths, path)
		}
		names[path] = append(names[path], when(name == "", "v2", name))
	}
	for i, path := range paths {
		row(when(i == 0, "cgroups", ""), "%s (%s)", path, strings.Join(names[path], " "))
	}
	// The last ones: what the steps so far have mounted is what one wants to see, and the host's tree may have hundreds before that.
	const most = 16
	from := max(len(l.Mounts)-most, 0)
	for i, m := range l.Mounts[from:] {
		row(when(i == 0, "mounts", ""), "%s", m)
	}
	if from > 0 {
		row("", "and %d before these", from)
	}
}

func orNone(words []string) string {
	if len(words) == 0 {
		return "none"
	}
	return strings.Join(words, " ")
}

// shell runs a command, or a shell, where the steps so far have led.
func (s *stepper) shell(at *engine.Stop, command string) {
	if at.Container == nil {
		fmt.Fprintln(s.err, "there is no shell in a RUN's start; --debug-on-error opens one in the state before a RUN that failed")
		return
	}
	// Both ways: a shell whose output goes to a file would seem to hang.
	terminal := s.isTerminal() && term.IsTerminal(1)
	o := engine.DebugOptions{ExecOptions: engine.ExecOptions{Environ: s.environ, Privileged: true, TTY: terminal, Interactive: terminal}}
	switch {
	case command != "":
		o.Command = []string{"sh", "-c", command}
	case !terminal:
		fmt.Fprintln(s.err, "a shell needs a terminal; ! COMMAND runs one command")
		return
	}
	if terminal {
		o.ConsoleSize = s.consoleSize()
	}
	ctx := context.Background()
	err := s.besideExec(o.ExecOptions, nil).stay(ctx, false, func(streams engine.Streams) (*engine.Session, error) {
		o.Streams = streams
		return s.engine.DebugStop(ctx, at, o)
	})
	s.catch()       // the shell had them
	s.interrupted() // what was typed there was not for us
	var exit *exitError
	switch {
	case errors.As(err, &exit):
		fmt.Fprintf(s.err, "exit code %d\n", exit.code)
	case err != nil:
		s.complain(err)
	}
}
