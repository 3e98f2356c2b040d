package cli

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"syscall"

	"golang.org/x/sys/unix"

	"glassbox/build"
	"glassbox/engine"
	"glassbox/plan"
)

// stepBuild starts the builder's program and stays, to ask at its stops how to go on.
func (a *app) stepBuild(ctx context.Context, r *build.Request, breaks []string) error {
	o := &build.Order{Build: r}
	program, err := a.findBuilder(o)
	if err == nil {
		err = needsRoot()
	}
	if err != nil {
		return err
	}
	if r.Progress == "auto" {
		r.Progress = "plain" // one that redraws itself would draw over the questions
	}
	// A pair without a name: no other process can connect, and the end of either side is seen by the other.
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	mine, theirs := os.NewFile(uintptr(pair[0]), "stops"), os.NewFile(uintptr(pair[1]), "stops")
	defer mine.Close()
	defer theirs.Close()
	fd, err := order(o)
	if err != nil {
		return err
	}
	memory := os.NewFile(uintptr(fd), "order")
	defer memory.Close()
	cmd := exec.CommandContext(ctx, program)
	cmd.Args = []string{builderProgram, "build"}
	// The answers are read here: nothing of them is for the build.
	cmd.Env, cmd.Stdout, cmd.Stderr, cmd.ExtraFiles = a.environ, a.out, a.err, []*os.File{memory, theirs}
	// The slave that it makes of its mounts is private (Go's os/exec): what the host mounts meanwhile isn't seen.
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
	s, err := newStepper(a, nil, stepFlags{step: true})
	if err != nil {
		return err
	}
	defer s.close()
	if err := cmd.Start(); err != nil {
		return err
	}
	// While this process holds the other side, too, the builder's end isn't the socket's, and serve would wait for ever.
	theirs.Close()
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	defer signal.Stop(signals)
	over := make(chan struct{})
	defer close(over)
	go func() {
		for {
			select {
			case sig := <-signals: // between the stops, too
				cmd.Process.Signal(sig)
			case <-over:
				return
			}
		}
	}()
	b := &buildStepper{stepper: s, step: len(breaks) == 0, breaks: build.ReadBreaks(breaks, phases()), hit: make([]bool, len(breaks))}
	// Until the builder closes its side, which it does at its end at the latest: then Wait doesn't wait for long.
	b.serve(mine)
	err = cmd.Wait()
	var exit *exec.ExitError
	switch {
	case errors.Is(b.quit, context.Canceled):
		return &exitError{code: 130}
	case errors.As(err, &exit):
		return &exitError{code: exit.ExitCode()} // it has said why
	}
	for i, met := range b.hit {
		if err == nil && !met {
			fmt.Fprintf(a.err, "--break %s: no RUN of such a stage, at such a line or with such a phase was made; what comes from the cache isn't\n",
				printable(breaks[i]))
		}
	}
	return err
}

// buildStepper asks a person before the steps of RUNs.
type buildStepper struct {
	*stepper
	step   bool // at every RUN
	breaks []build.Break
	hit    []bool // of breaks
	at     engine.Stop
	quit   error
}

// serve answers the builder's questions until it closes the socket.
func (b *buildStepper) serve(socket *os.File) {
	in := bufio.NewReader(socket)
	for out := json.NewEncoder(socket); ; {
		line, err := in.ReadBytes('\n')
		var stop build.Stop
		if err != nil || json.Unmarshal(line, &stop) != nil || out.Encode(b.answer(&stop)) != nil {
			return
		}
	}
}

func (b *buildStepper) answer(stop *build.Stop) build.Answer {
	if stop.Spot != nil {
		return b.begin(stop)
	}
	b.at.Index, b.at.PID = stop.Index, stop.PID
	if err := b.before(&b.at); err != nil {
		b.quit = err
		return build.Answer{Quit: err.Error()}
	}
	return build.Answer{Go: true}
}

// begin tells of a RUN, and whether its steps are asked for.
func (b *buildStepper) begin(stop *build.Stop) build.Answer {
	b.stepper.flags.stops = nil
	here := b.step
	for i, br := range b.breaks {
		switch {
		case br.Phase != "":
			b.stepper.flags.stops = append(b.stepper.flags.stops, string(br.Phase))
			b.hit[i] = true
		case br.At(stop.Spot):
			here, b.hit[i] = true, true
		}
	}
	if !here && len(b.stepper.flags.stops) == 0 {
		return build.Answer{Run: true}
	}
	intro := b.made == nil
	b.at = engine.Stop{Plan: stop.Plan}
	b.stepper.restart(here)
	where := ""
	if stop.Spot.Line > 0 {
		where = fmt.Sprintf("%s:%d", stop.Spot.File, stop.Spot.Line)
	}
	if stop.Spot.Stage != "" {
		where += fmt.Sprintf(", stage %s, step %d", stop.Spot.Stage, stop.Spot.Number)
	}
	fmt.Fprintf(b.err, "\n%s\n%s\n", printable(stop.Spot.Text), printable(where))
	if intro {
		fmt.Fprint(b.err, stepIntro)
	}
	return build.Answer{Go: true}
}

// restart makes a stepper ready for another plan. here: it stops at its first step.
func (s *stepper) restart(here bool) {
	s.made, s.met = map[int]bool{}, map[plan.Phase]bool{}
	s.phase, s.shown = "", ""
	s.stop = func(at *engine.Stop) bool { return here || s.breaks(at) }
}
