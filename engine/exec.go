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
	c, state, err := e.running(ref)
	if err != nil {
		return err
	}
	if state.Status == supervise.Paused {
		return conflict("container %s is paused, unpause the container before exec", c.Name)
	}
	job, err := supervise.ReadJob(e.dir(c.ID))
	if err != nil {
		return err
	}
	process, filter, err := e.execProcess(c, job, o)
	if err != nil {
		return err
	}
	facts, err := e.Facts()
	if err != nil {
		return err
	}
	spec := &specs.Spec{Linux: &specs.Linux{Seccomp: filter}}
	out, err := compile.Exec(compile.ExecInput{
		Input:   compile.Input{Spec: spec, Facts: *facts, SeccompName: "default", Origins: map[string]string{"": "command line"}},
		Process: process, PID: state.PID, Start: state.Start, Namespaces: job.Namespaces, Cgroups: job.Cgroups,
	})
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

// execProcess describes the process by the container's configuration and the options.
func (e *Engine) execProcess(c *Container, job *supervise.Job, o ExecOptions) (*specs.Process, *specs.LinuxSeccomp, error) {
	if len(o.Command) == 0 || o.Command[0] == "" {
		return nil, nil, invalid("there is no command to run")
	}
	var img *image.Image
	if c.ImageID != "" {
		img, _ = e.images.Resolve(c.ImageID) // an image removed by force leaves the container running
	}
	p := &specs.Process{Args: o.Command, Terminal: o.TTY, Cwd: job.Cwd}
	if o.Workdir != "" {
		if !path.IsAbs(o.Workdir) {
			return nil, nil, invalid("the working directory %q is invalid, it needs to be an absolute path", o.Workdir)
		}
		p.Cwd = path.Clean(o.Workdir)
	}
	name := o.User
	if name == "" {
		name = c.Options.User
	}
	if name == "" && img != nil {
		name = img.Config.Config.User
	}
	groups := c.Options.GroupAdd
	if o.User != "" {
		groups = nil
	}
	u, err := lookupUser(name, groups, e.readFile(c, img, "/etc/passwd"), e.readFile(c, img, "/etc/group"))
	if err != nil {
		return nil, nil, err
	}
	p.User = specs.User{UID: u.uid, GID: u.gid, AdditionalGids: append([]uint32{u.gid}, u.groups...)}
	var fromFiles []string
	for _, file := range o.EnvFile {
		lines, err := readEnvFile(file)
		if err != nil {
			return nil, nil, err
		}
		fromFiles = append(fromFiles, lines...)
	}
	env := slices.DeleteFunc(slices.Clone(job.Env), func(s string) bool {
		return strings.HasPrefix(s, "TERM=") && !o.TTY || strings.HasPrefix(s, "HOME=") && o.User != ""
	})
	if o.TTY {
		if _, ok := lookupEnv(env, "TERM"); !ok {
			env = append(env, "TERM=xterm")
		}
	}
	if p.Env, err = setEnv(env, o.Environ, fromFiles, o.Env); err != nil {
		return nil, nil, err
	}
	if _, ok := lookupEnv(p.Env, "HOME"); !ok {
		p.Env = append(p.Env, "HOME="+u.home)
	}
	if o.TTY && o.ConsoleSize[0] > 0 {
		p.ConsoleSize = &specs.Box{Height: uint(o.ConsoleSize[0]), Width: uint(o.ConsoleSize[1])}
	}

	// Privileges as of the container's own process.
	b := &builder{e: e, c: c, o: &c.Options, facts: e.facts}
	if b.facts, err = e.Facts(); err != nil {
		return nil, nil, err
	}
	options := c.Options
	if o.Privileged {
		options.Privileged = true
	}
	b.o = &options
	b.origins = map[string]string{}
	b.spec = &specs.Spec{Process: p, Linux: &specs.Linux{}}
	if err := b.capabilities(); err != nil {
		return nil, nil, err
	}
	if err := b.security(); err != nil {
		return nil, nil, err
	}
	return p, b.spec.Linux.Seccomp, nil
}
