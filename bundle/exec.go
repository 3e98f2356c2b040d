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
	// Through the first process: the container's root may be a mount that only its own namespace has.
	p.Env = WithHome(p.Env, "/proc/"+strconv.Itoa(c.PID)+"/root", p.User.UID)
	out, err := r.compileExec(c, p, o)
	if err != nil {
		return 255, err
	}
	forward := &forwarder{}
	r.debug(out.Plan)
	// In a paused container the process stays where it joins the cgroup until somebody resumes the container, who needs the lock. That
	// the container is still the same one is seen by its first process (plan.OpenPid).
	l.unlock()
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
		// The caller never learns of the process, so nobody else would reap it.
		wait4(proc.PID)
		return 255, err
	}
	if o.Detach {
		return 0, nil
	}
	var console *console
	if fd, ok := proc.FDs["console"]; ok {
		console = attach(fd)
		defer console.restore()
	}
	return forward.wait(proc, console), nil
}

func (r *Runtime) compileExec(c *record, p *specs.Process, o ExecOptions) (*compile.Output, error) {
	in, err := r.execInput(c, p, o)
	if err != nil {
		return nil, err
	}
	return r.compileFurther(in)
}

// execInput is what the plan of a further process in a container is compiled from.
func (r *Runtime) execInput(c *record, p *specs.Process, o ExecOptions) (in compile.ExecInput, err error) {
	facts, err := r.Facts()
	if err != nil {
		return in, err
	}
	spec, err := r.config(c)
	if err != nil {
		return in, err
	}
	cgroups := c.Cgroups
	if len(o.Cgroup) > 0 {
		if cgroups, err = compile.SubCgroups(cgroups, o.Cgroup); err != nil {
			return in, err
		}
	}
	// The container's own filter, from its configuration and not from the image: exec is no way around it (runc does the same).
	filter, err := r.filter(spec.Linux.Seccomp, facts.Arch)
	if err != nil {
		return in, err
	}
	mountpoint := ""
	if !slices.Contains(c.Namespaces, "mount") {
		if mountpoint, err = r.hostRoot(c.ID); err != nil {
			return in, err
		}
	}
	return compile.ExecInput{
		Input: compile.Input{
			Mountpoint: mountpoint, Spec: spec, Facts: *facts, Filter: filter, LaxCaps: true, PreserveFDs: o.PreserveFDs,
			PlainLines: o.ConsoleSocket == "",
			Systemd:    c.Systemd,
		},
		Process: p, PID: c.PID, Start: c.Start, Namespaces: c.Namespaces, Cgroups: cgroups, Unit: c.Unit, Class: c.Place,
	}, nil
}

func (r *Runtime) compileFurther(in compile.ExecInput) (*compile.Output, error) {
	out, err := compile.Exec(in)
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
	spec, err := r.config(c)
	if err != nil {
		return nil, err
	}
	if o.ProcessFile != "" {
		f := os.Stdin
		if o.ProcessFile != "-" {
			var err error
			if f, err = os.Open(o.ProcessFile); err != nil {
				return nil, fmt.Errorf("--process: %w", err)
			}
			defer f.Close()
		}
		// A process description is some kilobytes; what has no end (a pipe of yes) must not fill the memory.
		data, err := io.ReadAll(io.LimitReader(f, 16<<20))
		if err != nil {
			return nil, fmt.Errorf("--process: %w", err)
		}
		p, warnings, err := oci.ParseProcess(data)
		r.problems("--process", warnings)
		if err != nil {
			return nil, fmt.Errorf("--process: %s: %w", o.ProcessFile, err)
		}
		confine(p, spec.Process)
		return p, nil
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
	// The flag can only add: what the container's configuration has forbidden stays so.
	p.NoNewPrivileges = p.NoNewPrivileges || o.NoNewPrivs
	if o.UID != nil {
		p.User.UID = *o.UID
	}
	if o.GID != nil {
		p.User.GID = *o.GID
	}
	// Cloned, because the configuration is kept for the next question and must not grow by this one.
	p.User.AdditionalGids = append(slices.Clone(p.User.AdditionalGids), o.Groups...)
	for _, name := range o.Caps {
		// A word that is misspelt would be dropped silently, and the program would fail much later with EPERM.
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
		// An ambient capability must be inheritable, too (capabilities(7)), which --cap doesn't make it.
		ambient := slices.Clone(caps.Ambient)
		for _, name := range o.Caps {
			same := func(s string) bool { return strings.EqualFold(s, name) }
			if slices.ContainsFunc(caps.Inheritable, same) && !slices.ContainsFunc(ambient, same) {
				ambient = append(ambient, name)
			}
		}
		caps.Ambient = ambient
		p.Capabilities = &caps
	}
	return p, nil
}

// confine gives a process the container's limits, labels and capabilities where it has none of its own, as runc does (newInitConfig,
// bootstrapData): a file that doesn't speak of them is no way out of them.
func confine(p, first *specs.Process) {
	if len(p.Rlimits) == 0 {
		p.Rlimits = first.Rlimits
	}
	if p.OOMScoreAdj == nil {
		p.OOMScoreAdj = first.OOMScoreAdj
	}
	if p.ApparmorProfile == "" {
		p.ApparmorProfile = first.ApparmorProfile
	}
	if p.SelinuxLabel == "" {
		p.SelinuxLabel = first.SelinuxLabel
	}
	if p.Capabilities == nil {
		p.Capabilities = first.Capabilities
	}
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
