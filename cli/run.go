package cli

import (
	"context"
	"errors"
	"fmt"
	"os/signal"
	"slices"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"glassbox/container"
	"glassbox/engine"
	"glassbox/explain"
	"glassbox/fork"
	"glassbox/plan"
)

func (a *app) runCommand() *cobra.Command {
	c := createFlags{starts: true}
	var attach []string
	var detachKeys string
	var show bool
	var fixed fixedPlan
	var steps stepFlags
	var trace traceFlags
	proxy := true
	cmd := &cobra.Command{
		Use:   "run [OPTIONS] IMAGE [COMMAND] [ARG...]",
		Short: "Make a container from an image and run it",
		Long: `Make a container from an image and run it.

The exit code is the container's; 125 if glassbox could not do it, 126 if the command can't be executed, 127 if there is none.`,
		Example: `  glassbox run debian cat /etc/debian_version
  glassbox run -it --rm --memory=50m --cpus=0.5 debian bash
  glassbox run -d --name web -p 8080:80 nginx
  glassbox run --rm --explain debian true         print the plan, then run it
  glassbox run --rm --step debian true            stop before each step of it, and look around
  glassbox run --rm --break mounts debian true    stop where the mounts begin
  glassbox run --rm --trace t.html debian true    where the milliseconds went, and what the program did first
  glassbox run --rm --plan plan.json              run a stored plan and nothing else
  glassbox run -it --rootfs /:O bash              this machine's own files, changes thrown away`,
		ValidArgsFunction: a.completeImages,
		RunE: func(cmd *cobra.Command, args []string) error {
			trace.begin()
			if err := errors.Join(checkAttach(attach), steps.check(), trace.check(steps.given())); err != nil {
				return err
			}
			o, err := fixed.options(a, &c, cmd.LocalNonPersistentFlags(), args)
			if err != nil {
				return err
			}
			keys, err := engine.ParseDetachKeys(detachKeys)
			if err != nil {
				return err
			}
			r := run{
				app: a, flags: &c, options: o, attach: attach, keys: keys, show: show, proxy: proxy, fixed: fixed, steps: steps,
				trace: &trace, args: args,
			}
			err = r.do(cmd.Context())
			return trace.write(a, err)
		},
	}
	fs := cmd.Flags()
	c.register(fs, a)
	fs.BoolVarP(&c.o.Detach, "detach", "d", false, "Run in the background and print the container's ID")
	fs.VarP(list{&attach}, "attach", "a", "Attach to STDIN, STDOUT or STDERR only")
	fs.BoolVar(&proxy, "sig-proxy", true, "Pass signals on to the container")
	detachKeysFlag(fs, &detachKeys)
	fs.BoolVar(&show, "explain", false, "Print the plan on stderr before it runs")
	fixed.register(fs)
	steps.register(fs)
	trace.register(fs)
	return cmd
}

// checkAttach checks the values of --attach.
func checkAttach(streams []string) error {
	for _, s := range streams {
		if !slices.Contains([]string{"stdin", "stdout", "stderr"}, strings.ToLower(s)) {
			return &usageError{err: fmt.Errorf("invalid argument %q for \"-a, --attach\" flag: valid streams are STDIN, STDOUT and STDERR", s)}
		}
	}
	return nil
}

// run is one `glassbox run`.
type run struct {
	*app
	flags   *createFlags
	options container.Words
	attach  []string
	keys    []byte
	show    bool
	proxy   bool
	fixed   fixedPlan
	steps   stepFlags
	trace   *traceFlags
	args    []string
}

func (r *run) do(ctx context.Context) error {
	o := r.options
	at := attachment{app: r.app, tty: o.TTY, proxy: r.proxy, keys: r.keys}
	at.choose(r.attach, o.Interactive)
	switch {
	case o.Detach && len(r.attach) > 0:
		return errors.New("conflicting options: cannot specify both --attach and --detach")
	case !o.Detach && o.TTY && at.stdin && !r.isTerminal():
		return errNoTTY
	}
	if r.trace.file != "" {
		r.app.trace = &r.trace.seen
		ctx = engine.Observe(ctx, engine.Observer{Warn: r.warn, Trace: r.app.trace})
	}
	// The engine's opening is part of what a start costs, and is measured with it.
	opened := fork.Timed(r.app.trace, "command", "opens the engine: looks for what killed processes left")
	e, err := r.open()
	opened()
	if err != nil {
		return err
	}
	created := fork.Timed(r.app.trace, "command", "makes the container")
	made, err := r.create(ctx, e)
	created()
	// A stored plan says whether there is a terminal; -t can't be given beside it.
	if err == nil && made.Fixed {
		at.tty = made.Config.TTY
	}
	if err != nil {
		return err
	}
	so := engine.StartOptions{ConsoleSize: o.ConsoleSize}
	if r.show {
		so.Explain = func(p *plan.Plan) { explain.Text(r.err, p, r.textOptions(r.err, false)) }
	}
	if r.trace.file != "" {
		r.trace.start(&so, append(strings.Fields("glassbox run "+o.Image), o.Command...))
	}
	if r.steps.given() {
		s, err := newStepper(r.app, e, r.steps)
		if err != nil {
			return err
		}
		defer s.close()
		so.Before = s.before
	}
	if o.Detach {
		done := r.timed("start the container")
		s, err := e.Start(ctx, made.ID, so)
		done()
		if err != nil {
			return err
		}
		defer s.Close()
		// Only when it runs, as with Docker: a script that reads an ID may go on with it.
		fmt.Fprintln(r.out, made.ID)
		if so.TraceFor > 0 {
			r.trace.goes, err = s.Traced()
			return err
		}
		return nil
	}
	return at.start(ctx, e, made.ID, so)
}

func (r *run) create(ctx context.Context, e *engine.Engine) (*container.Container, error) {
	if r.fixed.given() {
		return r.fixed.create(ctx, r.app, e, r.flags, r.options)
	}
	return r.flags.create(ctx, r.app, e, r.options)
}

// interruptible is a context that ends with SIGINT or SIGTERM.
func interruptible(ctx context.Context) (context.Context, context.CancelFunc) {
	return signal.NotifyContext(ctx, syscall.SIGINT, syscall.SIGTERM)
}

func (a *app) startCommand() *cobra.Command {
	var attach, interactive bool
	var detachKeys string
	proxy := true
	cmd := &cobra.Command{
		Use:   "start [OPTIONS] CONTAINER [CONTAINER...]",
		Short: "Start containers that don't run",
		Example: `  glassbox start web
  glassbox start -ai shell`,
		Args:              atLeast(1),
		ValidArgsFunction: a.completeIn("created", "exited"),
		RunE: func(cmd *cobra.Command, args []string) error {
			keys, err := engine.ParseDetachKeys(detachKeys)
			if err != nil {
				return err
			}
			e, err := a.open()
			if err != nil {
				return err
			}
			if !attach && !interactive {
				return a.each(args, func(ref string) (string, error) {
					s, err := e.Start(cmd.Context(), ref, engine.StartOptions{})
					if err != nil {
						return "", err
					}
					s.Close()
					return ref, nil
				})
			}
			if len(args) > 1 {
				return errors.New("you cannot start and attach multiple containers at once")
			}
			at := attachment{app: a, proxy: proxy, keys: keys, stdin: interactive, stdout: true, stderr: true}
			if at.tty, err = hasTTY(cmd.Context(), e, args[0]); err != nil {
				return err
			}
			if at.tty && interactive && !a.isTerminal() {
				return errNoTTY
			}
			return at.start(cmd.Context(), e, args[0], engine.StartOptions{ConsoleSize: a.consoleSize()})
		},
	}
	cmd.Flags().BoolVarP(&attach, "attach", "a", false, "Attach to the container's output and pass signals on")
	cmd.Flags().BoolVarP(&interactive, "interactive", "i", false, "Attach to the container's input, too")
	cmd.Flags().BoolVar(&proxy, "sig-proxy", true, "Pass signals on to the container")
	detachKeysFlag(cmd.Flags(), &detachKeys)
	return cmd
}

// hasTTY reports whether a container was made with -t.
func hasTTY(ctx context.Context, e *engine.Engine, ref string) (bool, error) {
	v, err := e.Inspect(ctx, ref)
	if err != nil {
		return false, err
	}
	return v.Config.Tty, nil
}
