package bundle

import (
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"glassbox/compile"
	"glassbox/fork"
	"glassbox/oci"
	"glassbox/plan"
)

// ExecOptions are the flags of exec.
type ExecOptions struct {
	ProcessFile   string // JSON of specs.Process; the fields below are for callers without it
	Args          []string
	Env           []string // added to the container's
	Cwd           string
	UID, GID      *uint32
	Groups        []uint32 // additional
	Caps          []string // added to the container's
	AppArmor      string
	SELinux       string
	NoNewPrivs    bool
	TTY           bool
	ConsoleSocket string
	PIDFile       string
	PidfdSocket   string // unix socket that gets a pidfd of the process
	PreserveFDs   int
	Cgroup        []string // below the container's, see compile.SubCgroups
	Detach        bool
	IgnorePaused  bool

	hook bool // its standard descriptors are given
}

// Exec runs a further process in a container, and unless it is detached waits for it and returns its exit status.
func (r *Runtime) Exec(id string, o ExecOptions) (int, error) {
	c, l, err := r.open(id)
	if err != nil {
		return 255, err
	}
	defer l.unlock()
	switch s := c.status(); {
	case s == Stopped:
		return 255, errors.New("cannot exec in a stopped container")
	case s == Paused && !o.IgnorePaused:
		return 255, errors.New("cannot exec in a paused container (use --ignore-paused to override)")
	}
	p, err := r.processFor(c, o)
	if err != nil {
		return 255, err
	}
	switch {
	case p.Terminal && o.Detach && o.ConsoleSocket == "":
		return 255, errors.New("cannot allocate tty if runc will detach without setting console socket: give --console-socket")
	case o.ConsoleSocket != "" && (!p.Terminal || !o.Detach):
		return 255, errors.New("cannot use console socket if runc will not detach or allocate tty")
	}
	p.Env = withHome(p.Env, "/proc/"+strconv.Itoa(c.PID)+"/root", p.User.UID)
	out, err := r.compileExec(c, p, o)
	if err != nil {
		return 255, err
	}
	forward := &forwarder{}
	r.debug(out.Plan)
	proc, err := fork.Start(out.Plan, fork.Options{
		OnExecFailure: fork.ExplainExec,
		State:         func(pid int) ([]byte, error) { return c.hookState(Running, pid) },
		Cloned: func(*fork.Process) error {
			if o.Detach {
				return nil
			}
			return forward.catch()
		},
	})
	if err != nil {
		return 255, err
	}
	if o.ConsoleSocket != "" {
		err = sendConsole(o.ConsoleSocket, proc.FDs["console"])
	}
	if err == nil && o.PidfdSocket != "" {
		err = sendFD("--pidfd-socket", o.PidfdSocket, "pidfd", proc.Pidfd)
	}
	if err == nil && o.PIDFile != "" {
		err = writeFile(o.PIDFile, []byte(strconv.Itoa(proc.PID)))
	}
	if err != nil {
		unix.Kill(proc.PID, unix.SIGKILL)
		wait4(proc.PID)
		return 255, err
	}
	if o.Detach {
		return 0, nil
	}
	l.unlock() // it may be long
	var console *console
	if fd, ok := proc.FDs["console"]; ok {
		console = attach(fd)
		defer console.restore()
	}
	return forward.wait(proc, console), nil
}

func (r *Runtime) compileExec(c *record, p *specs.Process, o ExecOptions) (*compile.Output, error) {
	facts, err := r.Facts()
	if err != nil {
		return nil, err
	}
	spec, err := r.config(c)
	if err != nil {
		return nil, err
	}
	cgroups := c.Cgroups
	if len(o.Cgroup) > 0 {
		if cgroups, err = compile.SubCgroups(cgroups, o.Cgroup); err != nil {
			return nil, err
		}
	}
	filter, err := r.filter(spec.Linux.Seccomp, facts.Arch)
	if err != nil {
		return nil, err
	}
	mountpoint := ""
	if !slices.Contains(c.Namespaces, "mount") {
		if mountpoint, err = r.hostRoot(c.ID); err != nil {
			return nil, err
		}
	}
	out, err := compile.Exec(compile.ExecInput{
		Input:   compile.Input{Mountpoint: mountpoint, Spec: spec, Facts: *facts, Filter: filter, InheritStdio: !o.hook, LaxCaps: true, PreserveFDs: o.PreserveFDs, Systemd: c.Systemd},
		Process: p, PID: c.PID, Start: c.Start, Namespaces: c.Namespaces, Cgroups: cgroups, Unit: c.Unit, Class: c.Place,
	})
	if err != nil {
		return nil, err
	}
	for _, w := range out.Warnings {
		r.warn("%s", w)
	}
	return out, nil
}

// processFor describes the process: the file's, or the container's first one but for what the options change.
func (r *Runtime) processFor(c *record, o ExecOptions) (*specs.Process, error) {
	if o.ProcessFile != "" {
		f := os.Stdin
		if o.ProcessFile != "-" {
			var err error
			if f, err = os.Open(o.ProcessFile); err != nil {
				return nil, fmt.Errorf("--process: %w", err)
			}
			defer f.Close()
		}
		data, err := io.ReadAll(io.LimitReader(f, 16<<20))
		if err != nil {
			return nil, fmt.Errorf("--process: %w", err)
		}
		p, warnings, err := oci.ParseProcess(data)
		for _, w := range warnings {
			r.warn("--process: %s", w.Error())
		}
		if err != nil {
			return nil, fmt.Errorf("--process: %s: %w", o.ProcessFile, err)
		}
		return p, nil
	}
	spec, err := r.config(c)
	if err != nil {
		return nil, err
	}
	first := *spec.Process
	p := &first
	p.Args, p.Terminal, p.ConsoleSize = o.Args, o.TTY, nil
	p.Env = append(slices.Clone(p.Env), o.Env...)
	if o.Cwd != "" {
		p.Cwd = o.Cwd
	}
	if o.AppArmor != "" {
		p.ApparmorProfile = o.AppArmor
	}
	if o.SELinux != "" {
		p.SelinuxLabel = o.SELinux
	}
	p.NoNewPrivileges = p.NoNewPrivileges || o.NoNewPrivs
	if o.UID != nil {
		p.User.UID = *o.UID
	}
	if o.GID != nil {
		p.User.GID = *o.GID
	}
	p.User.AdditionalGids = append(slices.Clone(p.User.AdditionalGids), o.Groups...)
	for _, name := range o.Caps {
		if plan.CapNumber(strings.ToUpper(name)) < 0 {
			return nil, fmt.Errorf("--cap: unknown capability %q", name)
		}
	}
	if len(o.Caps) > 0 {
		caps := specs.LinuxCapabilities{}
		if p.Capabilities != nil {
			caps = *p.Capabilities
		}
		for _, set := range []*[]string{&caps.Bounding, &caps.Effective, &caps.Permitted} {
			*set = slices.Clone(*set)
			for _, name := range o.Caps {
				if !slices.Contains(*set, name) {
					*set = append(*set, name)
				}
			}
		}
		p.Capabilities = &caps
	}
	return p, nil
}

// startHook runs one startContainer hook: its path is one of the container's, and so are its surroundings and its rights.
func (r *Runtime) startHook(c *record, h *plan.Hook) error {
	spec, err := r.config(c)
	if err != nil {
		return err
	}
	p := *spec.Process
	p.Args, p.Env, p.Terminal = h.Args, h.Env, false
	if len(p.Args) == 0 {
		p.Args = []string{h.Path}
	}
	out, err := r.compileExec(c, &p, ExecOptions{hook: true})
	if err != nil {
		return err
	}
	for _, s := range out.Plan.Steps {
		if o, ok := s.Op.(*plan.Execve); ok {
			o.Candidates = []string{h.Path}
		}
	}
	state, err := c.hookState(Created, c.PID)
	if err != nil {
		return err
	}
	in, err := memory("state", state)
	if err != nil {
		return err
	}
	defer in.Close()
	output, err := memory("output", nil)
	if err != nil {
		return err
	}
	defer output.Close()
	proc, err := fork.Start(out.Plan, fork.Options{
		FDs: map[string]int{"stdin": int(in.Fd()), "stdout": int(output.Fd()), "stderr": int(output.Fd())}, OnExecFailure: fork.ExplainExec,
	})
	if err != nil {
		return err
	}
	defer unix.Close(proc.Pidfd)
	timeout := -1
	if h.Timeout > 0 {
		timeout = h.Timeout * 1000
	}
	timedOut := !waitPidfd(proc.Pidfd, timeout)
	if timedOut {
		unix.PidfdSendSignal(proc.Pidfd, unix.SIGKILL, nil, 0)
	}
	ws := wait4(proc.PID)
	switch {
	case timedOut:
		return fmt.Errorf("it took longer than its timeout of %d s and was killed", h.Timeout)
	case ws.Signaled():
		err = fmt.Errorf("signal: %v", ws.Signal())
	case ws.ExitStatus() != 0:
		err = fmt.Errorf("exit status %d", ws.ExitStatus())
	default:
		return nil
	}
	text := make([]byte, 1000)
	n, _ := output.ReadAt(text, 0)
	if s := strings.TrimSpace(string(text[:n])); s != "" {
		err = fmt.Errorf("%w: %s", err, s)
	}
	return err
}

func memory(name string, data []byte) (*os.File, error) {
	fd, err := unix.MemfdCreate(name, unix.MFD_CLOEXEC)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), name)
	if _, err := f.Write(data); err != nil {
		f.Close()
		return nil, err
	}
	_, err = f.Seek(0, io.SeekStart)
	return f, err
}

// waitPidfd waits for the end of a process, at most timeout milliseconds unless that is negative.
func waitPidfd(pidfd, timeout int) bool {
	deadline := time.Now().Add(time.Duration(timeout) * time.Millisecond)
	for {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(pidfd), Events: unix.POLLIN}}, timeout)
		if err == unix.EINTR {
			if timeout >= 0 {
				timeout = int(max(time.Until(deadline), 0) / time.Millisecond)
			}
			continue
		}
		return n > 0
	}
}
