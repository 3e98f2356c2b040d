package fork

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"glassbox/plan"
)

// hook runs a hook while the child waits.
func (x *execution) hook(o *plan.Hook) error {
	if o.Enter {
		// It takes a plan of its own to be in all of the container's namespaces: a process with threads, as this one is, can't enter a
		// user or time namespace (setns(2)).
		if x.opts.Hook == nil {
			return errors.New("whoever runs this plan runs no hooks in the container's namespaces")
		}
		return x.opts.Hook(x.process(), o)
	}
	var state []byte
	if x.opts.State != nil {
		var err error
		if state, err = x.opts.State(x.pid); err != nil {
			return err
		}
	}
	return RunHook(o, state)
}

// RunHook runs a hook in the namespaces of this process, with the container's state on its standard input, and waits for it. The error
// tells how it ended and what it wrote to its standard error. All descriptors of this process from 3 on are closed by an execve from
// then on.
func RunHook(o *plan.Hook, state []byte) error {
	ctx := context.Background()
	if o.Timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, time.Duration(o.Timeout)*time.Second)
		defer cancel()
	}
	// What the caller has left open, or gives to the container (--preserve-fds), is not for hooks. Ours are closed by execve anyway.
	if err := unix.CloseRange(3, math.MaxUint32, unix.CLOSE_RANGE_CLOEXEC); err != nil {
		return fmt.Errorf("close_range: %w", err)
	}
	output := beginning{room: 4000}
	cmd := exec.CommandContext(ctx, o.Path)
	if len(o.Args) > 0 {
		cmd.Args = o.Args
	}
	cmd.Dir, cmd.Env = o.Dir, o.Env
	switch {
	case o.Inherit:
		cmd.Env = nil // which means the environment of this process to package exec
	case cmd.Env == nil:
		// The specification gives a hook the environment of its env alone; to package exec none would mean this process's.
		cmd.Env = []string{}
	}
	cmd.Stdin = bytes.NewReader(state)
	cmd.Stdout, cmd.Stderr = &output, &output
	// A group of its own, so that the timeout ends what the hook has started, too.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return unix.Kill(-cmd.Process.Pid, unix.SIGKILL) }
	cmd.WaitDelay = 100 * time.Millisecond // for a grandchild that holds the pipe
	err := StartCommand(cmd)
	if err == nil {
		err = cmd.Wait()
	}
	if errors.Is(err, exec.ErrWaitDelay) {
		err = nil
	}
	switch {
	case ctx.Err() != nil:
		return HookTimeout(o)
	case err != nil:
		return HookError(err, output.text)
	}
	return nil
}

// beginning keeps the first bytes that are written to it and takes all: what a hook writes has no end that anybody promises, it runs in
// the supervisor's memory, and one that can't write any more would be killed by SIGPIPE.
type beginning struct {
	text []byte
	room int
}

func (b *beginning) Write(p []byte) (int, error) {
	b.text = append(b.text, p[:min(len(p), b.room-len(b.text))]...)
	return len(p), nil
}

// RunHookInside is RunHook for a hook that belongs into the namespaces of a process. It can't enter a user or time namespace, which no
// process with threads can (setns(2)); the process must have those of this one still.
func RunHookInside(pidfd int, o *plan.Hook, state []byte) error {
	done := make(chan error)
	go func() {
		// The thread ends with its goroutine: who has entered a PID namespace can't leave it.
		runtime.LockOSThread()
		// A root and a working directory of the thread's own, without which no mount namespace can be entered (setns(2)).
		if err := unix.Unshare(unix.CLONE_FS); err != nil {
			done <- fmt.Errorf("unshare: %w", err)
			return
		}
		const all = unix.CLONE_NEWNS | unix.CLONE_NEWNET | unix.CLONE_NEWIPC | unix.CLONE_NEWUTS | unix.CLONE_NEWPID | unix.CLONE_NEWCGROUP
		if err := unix.Setns(pidfd, all); err != nil {
			done <- fmt.Errorf("enter the container's namespaces: %w", err)
			return
		}
		done <- RunHook(o, state)
	}()
	return <-done
}

// HookTimeout is the error of a hook that was killed because it took too long.
func HookTimeout(o *plan.Hook) error {
	return fmt.Errorf("it took longer than its timeout of %d s and was killed", o.Timeout)
}

// HookError adds to how a hook ended what it has written, of which at most 1000 bytes.
func HookError(err error, output []byte) error {
	text := strings.TrimSpace(string(output))
	if len(text) > 1000 {
		text = text[:1000] + "…"
	}
	if text == "" {
		return err
	}
	return fmt.Errorf("%w: %s", err, text)
}
