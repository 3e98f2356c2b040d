package engine

import (
	"context"
	"fmt"
	"os"
	"path"
	"slices"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"glassbox/compile"
	"glassbox/image"
	"glassbox/plan"
	"glassbox/supervise"
)

// Exec runs a command in a running container. On success it does not return: this process becomes glassbox-runtime, a small
// program whose executable lies on a read-only mount, which starts the command and exits with its code.
func (e *Engine) Exec(_ context.Context, ref string, o ExecOptions) error {
	id, err := e.resolve(ref)
	if err != nil {
		return err
	}
	state, err := e.state(id)
	if os.IsNotExist(err) {
		return notFound("no such container: %s", ref)
	}
	if err != nil {
		return err
	}
	switch state.Status {
	case supervise.Running:
	case supervise.Paused:
		return conflict("container %s is paused, unpause the container before exec", ref)
	default:
		return conflict("container %s is not running (%s)", id, state.Status)
	}
	job, err := supervise.ReadJob(e.dir(id))
	if err != nil {
		return err
	}
	if len(o.Command) == 0 || o.Command[0] == "" {
		return invalid("there is no command to run")
	}
	facts, err := e.Facts()
	if err != nil {
		return err
	}
	in := compile.ExecInput{
		Input: compile.Input{Facts: *facts, SeccompName: "default", Origins: map[string]string{"": "command line"}},
		PID:   state.PID, Start: state.Start, Namespaces: job.Namespaces, Cgroups: job.Cgroups,
	}
	if err := e.execProcess(id, job.Process, o, &in); err != nil {
		return err
	}
	out, err := compile.Exec(in)
	if err != nil {
		return unsupported("%w", err)
	}
	memory, err := supervise.Memory("exec", &supervise.ExecJob{Terminal: o.TTY, Interactive: o.Interactive, Detach: o.Detach, Plan: out.Plan})
	if err != nil {
		return err
	}
	runtime, err := e.runtimeFile()
	if err != nil {
		return err
	}
	// The job goes to descriptor 3, out of whose way the executable must be.
	exe, err := unix.FcntlInt(runtime.Fd(), unix.F_DUPFD_CLOEXEC, 10)
	if err != nil {
		return err
	}
	job3, err := unix.FcntlInt(memory.Fd(), unix.F_DUPFD_CLOEXEC, 10)
	if err != nil {
		return err
	}
	if err := unix.Dup3(job3, 3, 0); err != nil {
		return err
	}
	err = unix.Exec(fmt.Sprintf("/proc/self/fd/%d", exe), []string{"glassbox-runtime", "exec"}, os.Environ())
	return fmt.Errorf("exec %s: %w", e.cfg.Runtime, err)
}

// joined are the namespaces that a container's plan left the host's for.
func joined(p *plan.Plan) []string {
	var names []string
	for _, s := range p.Steps {
		switch o := s.Op.(type) {
		case *plan.Clone:
			names = append(names, o.Namespaces...)
		case *plan.Unshare:
			names = append(names, o.Namespaces...)
		case *plan.Setns:
			names = append(names, o.Namespaces...)
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// execProcess describes the process: as the container's first one, but for what the options change.
func (e *Engine) execProcess(id string, first supervise.Process, o ExecOptions, in *compile.ExecInput) error {
	p := &specs.Process{
		Args: o.Command, Terminal: o.TTY, Cwd: first.Cwd, NoNewPrivileges: first.NoNewPrivs, ApparmorProfile: first.AppArmor,
		User:         specs.User{UID: first.UID, GID: first.GID, AdditionalGids: first.Groups},
		Capabilities: &specs.LinuxCapabilities{Bounding: first.Caps},
	}
	in.Process, in.Filter = p, first.Filter
	if o.Workdir != "" {
		if !path.IsAbs(o.Workdir) {
			return invalid("the working directory %q is invalid, it needs to be an absolute path", o.Workdir)
		}
		p.Cwd = path.Clean(o.Workdir)
	}
	home := ""
	if o.User != "" || o.Privileged {
		// What the template can't say is found out anew.
		c, err := readContainer(e.dir(id))
		if err != nil {
			return err
		}
		var img *image.Image
		if c.ImageID != "" {
			img, _ = e.images.Resolve(c.ImageID) // an image removed by force leaves the container running
		}
		if o.User != "" {
			u, err := lookupUser(o.User, nil, e.readFile(c, img, "/etc/passwd"), e.readFile(c, img, "/etc/group"))
			if err != nil {
				return err
			}
			p.User = specs.User{UID: u.uid, GID: u.gid, AdditionalGids: append([]uint32{u.gid}, u.groups...)}
			home = u.home
		}
		if o.Privileged {
			options := c.Options
			options.Privileged = true
			b := &builder{e: e, c: c, o: &options, facts: &in.Facts}
			b.origins, b.spec = map[string]string{}, &specs.Spec{Process: p, Linux: &specs.Linux{}}
			if err := b.capabilities(); err != nil {
				return err
			}
			if err := b.security(); err != nil {
				return err
			}
			in.Filter, in.Spec = nil, b.spec
		}
	}
	if p.User.UID == 0 {
		p.Capabilities.Effective, p.Capabilities.Permitted = p.Capabilities.Bounding, p.Capabilities.Bounding
	}

	var fromFiles []string
	for _, file := range o.EnvFile {
		lines, err := readEnvFile(file)
		if err != nil {
			return err
		}
		fromFiles = append(fromFiles, lines...)
	}
	env := slices.DeleteFunc(slices.Clone(first.Env), func(s string) bool {
		return strings.HasPrefix(s, "TERM=") && !o.TTY || strings.HasPrefix(s, "HOME=") && home != ""
	})
	if home != "" {
		env = append(env, "HOME="+home)
	}
	if o.TTY {
		if _, ok := lookupEnv(env, "TERM"); !ok {
			env = append(env, "TERM=xterm")
		}
	}
	var err error
	p.Env, err = setEnv(env, o.Environ, fromFiles, o.Env)
	if o.TTY && o.ConsoleSize[0] > 0 {
		p.ConsoleSize = &specs.Box{Height: uint(o.ConsoleSize[0]), Width: uint(o.ConsoleSize[1])}
	}
	return err
}
