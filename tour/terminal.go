package tour

import (
	"context"
	"errors"
	"fmt"
	"os/signal"
	"runtime"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
	"golang.org/x/term"

	"glassbox/compile"
	"glassbox/fork"
	"glassbox/plan"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// unbuffered lets a terminal give each key at once, without showing it. Ctrl-C stays Ctrl-C. It returns what [term.Restore] wants.
func unbuffered(fd int) (*term.State, error) {
	old, err := term.GetState(fd)
	if err != nil {
		return nil, err
	}
	t, err := unix.IoctlGetTermios(fd, unix.TCGETS)
	if err != nil {
		return nil, err
	}
	t.Lflag &^= unix.ICANON | unix.ECHO
	t.Cc[unix.VMIN], t.Cc[unix.VTIME] = 1, 0
	return old, unix.IoctlSetTermios(fd, unix.TCSETS, t)
}

// shell runs a shell beside the box's process, in all of its namespaces and its cgroup, on the learner's terminal.
func (p *player) shell() error {
	b := p.box
	if !p.isTerminal() {
		return errors.New("the input is no terminal")
	}
	start, err := fork.StartTime(b.pid)
	if err != nil {
		return err
	}
	caps := &specs.LinuxCapabilities{}
	for n := range p.facts.LastCap + 1 {
		if name := plan.CapName(n); name != "" && !p.dropped(name) {
			caps.Bounding = append(caps.Bounding, name)
		}
	}
	caps.Permitted, caps.Effective = caps.Bounding, caps.Bounding
	in := compile.ExecInput{
		Input:   compile.Input{Facts: *p.facts, NoNewKeyring: true, DieWithParent: true, LaxCaps: true},
		Process: &specs.Process{Args: []string{"sh", "+m", "-i"}, Env: append(p.environ(), "PS1=inside# "), Cwd: "/", Capabilities: caps},
		PID:     b.pid, Start: start, Namespaces: b.plan.Namespaces(), Cgroups: p.groups,
		HostRoot: !slices.Contains(b.plan.Namespaces(), "mount"), // a box without one has the host's root directory
	}
	for _, s := range b.plan.Steps {
		if f, ok := s.Op.(*plan.Seccomp); ok {
			in.Filter = f
		}
	}
	out, err := compile.Exec(in)
	if err != nil {
		return err
	}
	// Without a session of its own it keeps this terminal, and Ctrl-C reaches it.
	made := *out.Plan
	made.Steps = without(kind[*plan.Setsid])(made.Steps)
	p.restore()
	defer p.grab()
	// A shell with job control makes itself the terminal's foreground, and can't give that back from a PID namespace.
	tty := int(p.opt.In.Fd())
	if front, err := unix.IoctlGetInt(tty, unix.TIOCGPGRP); err == nil {
		defer func() {
			signal.Ignore(unix.SIGTTOU)
			defer signal.Reset(unix.SIGTTOU)
			unix.IoctlSetPointerInt(tty, unix.TIOCSPGRP, front)
		}()
	}
	p.note("A shell inside. exit brings you back.")
	done := make(chan error)
	go func() {
		// Never unlocked: a thread that has joined a PID namespace for its children (setns(2)) can start no others, and no thread
		// (clone(2), CLONE_THREAD), so this one ends with the shell. The lesson's own goes on as it was.
		runtime.LockOSThread()
		done <- p.beside(&made)
	}()
	return <-done
}

// beside runs a shell's plan to its end.
func (p *player) beside(made *plan.Plan) error {
	proc, err := fork.Start(made, fork.Options{})
	if err != nil {
		return errors.New(strings.ReplaceAll(err.Error(), "\n", "; "))
	}
	defer unix.Close(proc.Pidfd)
	// Ctrl-C is the shell's as long as it lives. Ignored, and not thrown away on arrival: that may be later than the shell's end. The
	// shell itself was started before, for it would ignore it, too.
	signal.Ignore(unix.SIGINT)
	defer signal.Notify(p.signals, unix.SIGINT)
	defer context.AfterFunc(p.ctx, func() { unix.Kill(proc.PID, unix.SIGKILL) })()
	for {
		_, err := unix.Wait4(proc.PID, nil, 0, nil)
		if err != unix.EINTR {
			break
		}
	}
	fmt.Fprintln(p.opt.Out)
	return nil
}

// dropped reports whether the box has been robbed of a capability.
func (p *player) dropped(name string) bool {
	for _, s := range p.box.plan.Steps {
		if d, ok := s.Op.(*plan.DropBounding); ok {
			for _, c := range d.Caps {
				if c == name {
					return true
				}
			}
		}
	}
	return false
}
