package bundle

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"os"
	"runtime"
	"slices"
	"strconv"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"glassbox/compile"
	"glassbox/fork"
	"glassbox/plan"
)

// Hooks are programs that a caller wants to run at certain moments of a container's life (runtime-spec 1.3, runtime.md, lifecycle):
//
//	create   prestart, createRuntime, createContainer    steps of the plan
//	start    startContainer, the program, poststart
//	delete   poststop
//
// A hook that fails, but for those of the end, ends the container: what was made is taken back, and the poststop hooks run.

// Kinds of hooks, as in the configuration, that aren't steps of a plan.
const (
	startContainer = "startContainer"
	poststart      = "poststart"
	poststop       = "poststop"
)

// hookError is the failure of a hook, with which the container ends.
type hookError struct{ error }

func (e hookError) Unwrap() error { return e.error }

// hooksOf returns the container's hooks of a kind.
func (r *Runtime) hooksOf(c *record, kind string) ([]specs.Hook, error) {
	if !slices.Contains(c.Hooks, kind) {
		return nil, nil
	}
	spec, err := r.config(c)
	if err != nil {
		return nil, err
	}
	switch kind {
	case startContainer:
		return spec.Hooks.StartContainer, nil
	case poststart:
		return spec.Hooks.Poststart, nil
	}
	return spec.Hooks.Poststop, nil
}

// hooksRan reports whether a start that failed with err had come as far as its hooks: then the poststop hooks have to take back what
// those made.
func hooksRan(p *plan.Plan, err error) bool {
	failed, last := (*fork.StepError)(nil), len(p.Steps)-1
	if errors.As(err, &failed) {
		last = failed.Index
	}
	return slices.ContainsFunc(p.Steps[:last+1], func(s plan.Step) bool {
		if failed != nil && failed.Step.Lane == plan.Child {
			// The host's steps stand before all of the child's, whenever they are made; but the child waits for the hooks.
			wait, ok := s.Op.(*plan.Await)
			return ok && s.Lane == plan.Child && wait.Name == "hooks"
		}
		_, hook := s.Op.(*plan.Hook)
		return hook
	})
}

// poststart runs the hooks after the start. The first one that fails is the end of it.
func (r *Runtime) poststart(c *record) error {
	hooks, err := r.hooksOf(c, poststart)
	if err != nil {
		return err
	}
	for i, h := range hooks {
		if err := r.hook(c, poststart, i, h, Running, c.PID); err != nil {
			return hookError{err}
		}
	}
	return nil
}

// poststop runs the hooks after the end. One that fails is warned of, and the others run.
func (r *Runtime) poststop(c *record) {
	hooks, err := r.hooksOf(c, poststop)
	if err != nil {
		r.warn("%v", err)
	}
	for i, h := range hooks {
		if err := r.hook(c, poststop, i, h, Stopped, 0); err != nil {
			r.warn("%v", err)
		}
	}
}

func (r *Runtime) hook(c *record, kind string, i int, h specs.Hook, status string, pid int) error {
	state, err := c.hookState(status, pid)
	if err == nil {
		err = fork.RunHook(compile.Hook(kind, h, c.Bundle, false), state)
	}
	if err != nil {
		return fmt.Errorf("/hooks/%s/%d: run %s: %w", kind, i, h.Path, err)
	}
	return nil
}

// startHooks runs the hooks that belong into the container before its program, as exec would.
func (r *Runtime) startHooks(c *record) error {
	hooks, err := r.hooksOf(c, startContainer)
	if err == nil && len(hooks) > 0 && r.Protect != nil {
		err = r.Protect()
	}
	if err != nil {
		return err
	}
	for i, h := range hooks {
		if err := r.startHook(c, compile.Hook(startContainer, h, "", true)); err != nil {
			return hookError{fmt.Errorf("/hooks/%s/%d: run %s: %w", startContainer, i, h.Path, err)}
		}
	}
	return nil
}

// startHook runs one startContainer hook: its path is one of the container's, and so are its surroundings and its rights.
func (r *Runtime) startHook(c *record, h *plan.Hook) error {
	spec, err := r.config(c)
	if err != nil {
		return err
	}
	p := *spec.Process
	if h.Env != nil {
		p.Env = h.Env
	} else { // the program's, as with runc
		p.Env = WithHome(p.Env, "/proc/"+strconv.Itoa(c.PID)+"/root", p.User.UID)
	}
	in, err := r.execInput(c, &p, ExecOptions{})
	if err != nil {
		return err
	}
	return r.inside(c, h, in, Created)
}

// createHook runs one createContainer hook. Its path is one of the host's, which the container's mount namespace still has at this
// moment, and it is what the container's first process is by now: root of the container's user namespace, in its cgroup.
func (r *Runtime) createHook(c *record, proc *fork.Process, h *plan.Hook) error {
	start, err := fork.StartTime(proc.PID)
	if err != nil {
		return err
	}
	// What is asked for later is the process at this moment, which has no state file yet.
	at := *c
	at.PID, at.Start = proc.PID, start
	// A user namespace without mappings is made later, and one of the host's that is joined is none to enter: setns(2) refuses the
	// caller's own user namespace.
	at.Namespaces = slices.DeleteFunc(slices.Clone(c.Namespaces), func(n string) bool {
		return sameNamespace(proc.PID, nsFile(specs.LinuxNamespaceType(n)))
	})
	p := &specs.Process{Cwd: h.Dir, Env: h.Env, Capabilities: allCapabilities(r.facts.LastCap)}
	in, err := r.execInput(&at, p, ExecOptions{})
	if err != nil {
		return err
	}
	// What makes the program less than root comes after these hooks.
	in.Filter, in.HostRoot, in.NoNewKeyring = nil, true, true
	in.Spec = &specs.Spec{Version: in.Spec.Version, Linux: &specs.Linux{}}
	return r.inside(&at, h, in, Creating)
}

// allCapabilities are those that this kernel knows, which a hook keeps as far as the runtime has them.
func allCapabilities(last int) *specs.LinuxCapabilities {
	var names []string
	for n := range last + 1 {
		if name := plan.CapName(n); name != "" {
			names = append(names, name)
		}
	}
	return &specs.LinuxCapabilities{Bounding: names, Permitted: names, Effective: names}
}

// inside runs a hook as a further process of the container, and waits for it.
func (r *Runtime) inside(c *record, h *plan.Hook, in compile.ExecInput, status string) error {
	p := in.Process
	p.Args, p.Terminal = h.Args, false
	if len(p.Args) == 0 {
		p.Args = []string{h.Path}
	}
	if have := in.Facts.Caps; in.HostRoot && !slices.Contains(in.Namespaces, "user") {
		// What the runtime lacks is no news for those who wrote the hook.
		keep := slices.DeleteFunc(p.Capabilities.Bounding, func(name string) bool { return have>>plan.CapNumber(name)&1 == 0 })
		p.Capabilities = &specs.LinuxCapabilities{Bounding: keep, Permitted: keep, Effective: keep}
	}
	out, err := r.compileFurther(in)
	if err != nil {
		return err
	}
	// The kernel runs the path; the first word of args is only what the program is called.
	for _, s := range out.Plan.Steps {
		if o, ok := s.Op.(*plan.Execve); ok {
			o.Candidates = []string{h.Path} // whatever it calls itself
		}
	}
	pid, err := insidePID(c.PID)
	if err != nil {
		return err
	}
	state, err := c.hookState(status, pid)
	if err != nil {
		return err
	}
	// In memory: a pipe would block the writer if the hook doesn't read, and the reader if it leaves a child behind.
	stdin, err := memory("state", state)
	if err != nil {
		return err
	}
	defer stdin.Close()
	output, err := memory("output", nil)
	if err != nil {
		return err
	}
	defer output.Close()
	opts := fork.Options{
		FDs:           map[string]int{"stdin": int(stdin.Fd()), "stdout": int(output.Fd()), "stderr": int(output.Fd())},
		OnExecFailure: fork.ExplainExec,
		State:         func(int) ([]byte, error) { return state, nil }, // for the filter's listener, if there is one
	}
	// Who enters a container's PID namespace can't leave it: the thread that does ends with its goroutine.
	done := make(chan error)
	go func() {
		runtime.LockOSThread()
		proc, err := fork.Start(out.Plan, opts)
		if err == nil {
			err = waitHook(proc, h, output)
		} else {
			err = hookStepError(err)
		}
		done <- err
	}()
	return <-done
}

// hookStepError tells of a step of a hook's own plan without its number, which would be taken for one of the container's.
func hookStepError(err error) error {
	step := &fork.StepError{}
	if !errors.As(err, &step) {
		return err
	}
	text := fmt.Sprint(step.Err)
	if step.Detail != "" {
		text += ": " + step.Detail
	}
	if _, ok := step.Step.Op.(*plan.Execve); ok {
		return errors.New(text)
	}
	return fmt.Errorf("%s: %s", step.Step.Op, text)
}

// waitHook waits for the end of a hook that is a process of the container.
func waitHook(proc *fork.Process, h *plan.Hook, output *os.File) error {
	defer unix.Close(proc.Pidfd)
	timeout := -1
	if h.Timeout > 0 {
		timeout = int(min(int64(h.Timeout)*1000, math.MaxInt32)) // milliseconds, which poll(2) takes as an int
	}
	timedOut := !waitPidfd(proc.Pidfd, timeout)
	if timedOut {
		unix.Kill(-proc.PID, unix.SIGKILL) // it leads a session and a process group of its own; not reaped yet, so the number is its
	}
	ws := wait4(proc.PID)
	var err error
	switch {
	case timedOut:
		return fork.HookTimeout(h)
	case ws.Signaled():
		err = fmt.Errorf("signal: %v", ws.Signal())
	case ws.ExitStatus() != 0:
		err = fmt.Errorf("exit status %d", ws.ExitStatus())
	default:
		return nil
	}
	// One byte more than is told, so that it is known whether there was more.
	text := make([]byte, 1001)
	n, _ := output.ReadAt(text, 0)
	return fork.HookError(err, text[:n])
}

// insidePID is the number of a process in its own PID namespace (proc_pid_status(5), NSpid).
func insidePID(pid int) (int, error) {
	text, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/status")
	if err != nil {
		return 0, err
	}
	return parseInsidePID(text)
}

func parseInsidePID(status []byte) (int, error) {
	for line := range bytes.Lines(status) {
		if rest, ok := bytes.CutPrefix(line, []byte("NSpid:")); ok {
			fields := bytes.Fields(rest) // ours first, its own last
			if len(fields) > 0 {
				return strconv.Atoi(string(fields[len(fields)-1]))
			}
		}
	}
	return 0, errors.New("the kernel doesn't say what number the process has in its PID namespace")
}
