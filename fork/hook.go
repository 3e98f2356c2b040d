package fork

import (
	"bytes"
	"context"
	"errors"
	"fmt"
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
	var state []byte
	if x.opts.State != nil {
		var err error
		if state, err = x.opts.State(x.pid); err != nil {
			return err
		}
	}
	if !o.Enter {
		return RunHook(o, state)
	}
	// The hook's path is one of the host, its surroundings are the container's. A thread of its own enters the container, starts
	// the hook and ends with its goroutine.
	done := make(chan error)
	go func() {
		runtime.LockOSThread()
		err := unix.Unshare(unix.CLONE_FS) // threads share root and working directory, which setns would change
		if err == nil {
			err = unix.Setns(x.pidfd, unix.CLONE_NEWNS|unix.CLONE_NEWUTS|unix.CLONE_NEWIPC|unix.CLONE_NEWNET|unix.CLONE_NEWPID|unix.CLONE_NEWCGROUP)
		}
		if err != nil {
			err = fmt.Errorf("enter the container: %w", err)
		} else {
			err = RunHook(o, state)
		}
		done <- err
	}()
	return <-done
}

// RunHook runs a hook with the container's state on its standard input, and waits for it. The error tells how it ended and what
// it wrote to its standard error.
func RunHook(o *plan.Hook, state []byte) error {
	ctx := context.Background()
	if o.Timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, time.Duration(o.Timeout)*time.Second)
		defer cancel()
	}
	var output bytes.Buffer
	cmd := exec.CommandContext(ctx, o.Path)
	if len(o.Args) > 0 {
		cmd.Args = o.Args
	}
	cmd.Env = o.Env
	if cmd.Env == nil {
		cmd.Env = []string{}
	}
	cmd.Stdin = bytes.NewReader(state)
	cmd.Stdout, cmd.Stderr = &output, &output
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
		return fmt.Errorf("it took longer than its timeout of %d s and was killed", o.Timeout)
	case err != nil:
		text := strings.TrimSpace(output.String())
		if len(text) > 1000 {
			text = text[:1000] + "…"
		}
		if text != "" {
			return fmt.Errorf("%w: %s", err, text)
		}
		return err
	}
	return nil
}
