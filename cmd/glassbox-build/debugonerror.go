package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/signal"
	"slices"
	"strings"
	"time"

	"github.com/moby/buildkit/client"
	gateway "github.com/moby/buildkit/frontend/gateway/client"
	gatewayapi "github.com/moby/buildkit/frontend/gateway/pb"
	"github.com/moby/buildkit/solver/errdefs"
	"golang.org/x/sys/unix"
	"golang.org/x/term"

	"glassbox/build"
)

// debugged solves as build does and, where a RUN fails, runs a command in the state that it found: the same files, mounts, variables,
// user and directory, made by the same plan. hush ends the display of progress, which would write over what is typed.
func (l *link) debugged(
	ctx context.Context, r *build.Request, opt *client.SolveOpt, ch chan *client.SolveStatus, hush func(),
) (*client.SolveResponse, error) {
	return l.Build(ctx, *opt, "glassbox", func(ctx context.Context, c gateway.Client) (*gateway.Result, error) {
		// Evaluated here: what a failed step was made from is there only as long as this function runs.
		res, err := c.Solve(ctx, gateway.SolveRequest{Evaluate: true, Frontend: "dockerfile.v0", FrontendOpt: maps.Clone(c.BuildOpts().Opts)})
		var failed *errdefs.SolveError
		if ctx.Err() == nil && errors.As(err, &failed) && failed.Op.GetExec() != nil {
			hush()
			if serr := look(ctx, c, r, failed, err); serr != nil {
				fmt.Fprintln(os.Stderr, "the state before the step can't be shown:", serr)
			}
		}
		return res, err
	}, ch)
}

// look tells what failed, and runs the command or the shell.
func look(ctx context.Context, c gateway.Client, r *build.Request, failed *errdefs.SolveError, err error) error {
	op := failed.Op.GetExec()
	for _, s := range errdefs.Sources(err) {
		s.Print(os.Stderr)
	}
	fmt.Fprintf(os.Stderr, "failed: %s\n", printableName(strings.Join(op.Meta.Args, " ")))
	var exit *gatewayapi.ExitError
	if errors.As(err, &exit) && exit.ExitCode != gatewayapi.UnknownExitStatus {
		fmt.Fprintf(os.Stderr, "exit code: %d\n", exit.ExitCode)
	}
	user := op.Meta.User
	if user == "" {
		user = "root"
	}
	fmt.Fprintf(os.Stderr, "as %s in %s\n", printableName(user), printableName(op.Meta.Cwd))
	terminal := term.IsTerminal(int(os.Stdin.Fd())) && term.IsTerminal(int(os.Stderr.Fd()))
	shell := shellOf(op.Meta.Args)
	args := []string{shell, "-c", r.DebugOnError}
	switch {
	case r.DebugOnError != build.Shell:
		terminal = false
		fmt.Fprintln(os.Stderr, "in the state just before it:", printableName(r.DebugOnError))
	case !terminal:
		fmt.Fprintf(os.Stderr, "a shell in the state just before it needs a terminal; --debug-on-error='COMMAND' runs one command there, by %s\n",
			shell)
		return nil
	default:
		args = []string{shell}
		fmt.Fprintf(os.Stderr, "%s in the state just before it, with the same files, mounts, variables, user and directory. "+
			"What is changed there is thrown away; exit ends it, and the build.\n", shell)
	}
	ctr, err := c.NewContainer(ctx, stateBefore(failed))
	if err != nil {
		return err
	}
	// Also after Ctrl-C: its mounts are held until then.
	defer ctr.Release(context.WithoutCancel(ctx))
	start := gateway.StartRequest{
		Args: args, Env: op.Meta.Env, SecretEnv: op.Secretenv, User: op.Meta.User, Cwd: op.Meta.Cwd, Tty: terminal, SecurityMode: op.Security,
		Stdout: keepOpen{os.Stderr}, Stderr: keepOpen{os.Stderr},
		RemoveMountStubsRecursive: op.Meta.RemoveMountStubsRecursive,
	}
	if terminal {
		return onTerminal(ctx, ctr, start)
	}
	p, err := ctr.Start(ctx, start)
	if err != nil {
		return err
	}
	return tellExit(p.Wait())
}

// stateBefore is the container of a step that failed, over what the step was made from. Caches are as it left them.
func stateBefore(failed *errdefs.SolveError) gateway.NewContainerRequest {
	op := failed.Op.GetExec()
	req := gateway.NewContainerRequest{
		Hostname: op.Meta.Hostname, NetMode: op.Network, ExtraHosts: op.Meta.ExtraHosts, Platform: failed.Op.Platform,
		Constraints: failed.Op.Constraints,
	}
	for i, m := range op.Mounts {
		mount := gateway.Mount{
			Selector: m.Selector, Dest: m.Dest, Readonly: m.Readonly, MountType: m.MountType, CacheOpt: m.CacheOpt, SecretOpt: m.SecretOpt,
			SSHOpt: m.SSHOpt,
		}
		if i < len(failed.InputIDs) {
			mount.ResultID = failed.InputIDs[i]
		}
		req.Mounts = append(req.Mounts, mount)
	}
	return req
}

// shellOf is the shell that a step was run by, if it was.
func shellOf(args []string) string {
	// What SHELL of the Dockerfile has made of the words: [SHELL -c COMMAND].
	if len(args) > 2 && args[1] == "-c" && strings.HasPrefix(args[0], "/") {
		return args[0]
	}
	return "/bin/sh"
}

// onTerminal runs a process on this terminal.
func onTerminal(ctx context.Context, ctr gateway.Container, start gateway.StartRequest) error {
	in := int(os.Stdin.Fd())
	old, err := term.MakeRaw(in)
	if err != nil {
		return err
	}
	defer term.Restore(in, old)
	start.Stdin = io.NopCloser(os.Stdin)
	if value := os.Getenv("TERM"); value != "" {
		start.Env = append(slices.Clone(start.Env), "TERM="+value)
	}
	p, err := ctr.Start(ctx, start)
	if err != nil {
		return err
	}
	sizes := make(chan os.Signal, 1)
	signal.Notify(sizes, unix.SIGWINCH)
	defer signal.Stop(sizes)
	over := make(chan struct{})
	defer close(over)
	go func() {
		for {
			if w, h, err := term.GetSize(in); err == nil {
				p.Resize(ctx, gateway.WinSize{Rows: uint32(h), Cols: uint32(w)})
			}
			select {
			case <-sizes:
			case <-over:
				return
			}
		}
	}()
	err = p.Wait()
	term.Restore(in, old)
	return tellExit(err)
}

// tellExit tells the end of the command; it is no error of ours.
func tellExit(err error) error {
	var exit *gatewayapi.ExitError
	if errors.As(err, &exit) && exit.ExitCode != gatewayapi.UnknownExitStatus {
		fmt.Fprintf(os.Stderr, "exit code %d\n", exit.ExitCode)
		return nil
	}
	return err
}

// keepOpen is a stream that outlives what is written to it.
type keepOpen struct{ io.Writer }

// Close implements io.Closer.
func (keepOpen) Close() error { return nil }

// relay passes the states of a build on to a display, which can be ended before the build is over.
type relay struct {
	to     chan *client.SolveStatus
	failed chan struct{} // closed when a step has told its error
	hush   chan struct{}
	shown  chan struct{} // closed when the display has ended
}

func newRelay() *relay {
	return &relay{make(chan *client.SolveStatus), make(chan struct{}), make(chan struct{}), make(chan struct{})}
}

// pass passes on what comes, until that ends.
func (r *relay) pass(from chan *client.SolveStatus, note func(*client.Vertex)) {
	failed, told, to := false, false, r.to
	end := func() {
		if to != nil {
			close(to)
		}
		to = nil
	}
	defer end()
	for hush := r.hush; ; {
		select {
		case s, ok := <-from:
			if !ok {
				return
			}
			for _, v := range s.Vertexes {
				note(v)
				failed = failed || v.Error != ""
			}
			if to != nil {
				to <- s
			}
			if failed && !told {
				told = true
				close(r.failed)
			}
		case <-hush:
			hush = nil
			end()
		}
	}
}

// quiet ends the display, once it has shown which step failed.
func (r *relay) quiet() {
	select {
	case <-r.failed:
	case <-time.After(5 * time.Second): // nobody waits for it longer than that
	}
	close(r.hush)
	<-r.shown
}
