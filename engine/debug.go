package engine

import (
	"context"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"

	"glassbox/compile"
	"glassbox/container"
	"glassbox/fork"
	"glassbox/image"
	"glassbox/plan"
	"glassbox/spec"
	"glassbox/supervise"
)

// toolDirs are the directories of the host in which its programs are, and what these need. Its /run, /home, /root and /var are
// none of a container's business.
var toolDirs = []string{"/bin", "/etc", "/gnu", "/lib", "/lib32", "/lib64", "/libx32", "/nix", "/opt", "/sbin", "/usr"}

const capPtrace = "CAP_SYS_PTRACE"

// DebugOptions says how to look at a running container with other tools than its own.
type DebugOptions struct {
	ExecOptions                   // Detach is not for it; no Command is a shell
	Image       string            // whose tools are used; empty: the host's
	Explain     func(*plan.Plan)  // called with the plan before it runs
	Warn        func(text string) // called with what the user should know before it runs
}

// Debug runs a command in the namespaces and cgroups of a running container, but with the files of an image or of the host, with
// the caller's streams. The container's own files are at [compile.ContainerDir].
func (e *Engine) Debug(ctx context.Context, ref string, o DebugOptions) (*Session, error) {
	id, err := e.find(ctx, ref)
	if err != nil {
		return nil, err
	}
	caller, target, sameBuild, err := e.door(ctx, ref, id)
	if err != nil {
		return nil, err
	}
	return e.debug(ctx, id, caller, target, sameBuild, o)
}

// DebugStop is Debug in a container of which only a part of the steps is made.
func (e *Engine) DebugStop(ctx context.Context, s *Stop, o DebugOptions) (*Session, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if s.PID == 0 {
		return nil, conflict("there is no process of the container yet whose namespaces could be entered")
	}
	t, err := e.stopTarget(ctx, s)
	if err != nil {
		return nil, err
	}
	caller, err := e.startDoorkeeper(s.Container.ID, t)
	if err != nil {
		return nil, fmt.Errorf("start %s doorkeeper: %w", e.cfg.Runtime, err)
	}
	// Some namespaces are entered late. The doorkeeper knows of all: an exec may find it when the container runs.
	look, err := s.Look()
	if err != nil {
		caller.Close()
		return nil, err
	}
	now := *t
	// A copy: the doorkeeper keeps t for later callers, for whom all namespaces count.
	now.Namespaces = slices.DeleteFunc(slices.Clone(t.Namespaces), func(name string) bool {
		return !slices.Contains(look.Own, strings.Replace(name, "mount", "mnt", 1))
	})
	return e.debug(ctx, s.Container.ID, caller, &now, true, o)
}

// stopTarget is what there is to be entered at a stop.
func (e *Engine) stopTarget(ctx context.Context, s *Stop) (*supervise.Target, error) {
	job, err := supervise.ReadJob(e.dir(s.Container.ID))
	if err != nil {
		return nil, err
	}
	facts, err := e.Facts(ctx)
	if err != nil {
		return nil, err
	}
	start, err := fork.StartTime(s.PID)
	if err != nil {
		return nil, err
	}
	return &supervise.Target{
		Build: e.build(), PID: s.PID, Start: start, Namespaces: job.Namespaces, Cgroups: job.Cgroups, Process: job.Process, Facts: *facts,
		Actor: job.Actor,
	}, nil
}

func (e *Engine) debug(
	ctx context.Context, id string, caller *supervise.Caller, target *supervise.Target, sameBuild bool, o DebugOptions,
) (s *Session, err error) {
	defer func() {
		if err != nil {
			caller.Close()
		}
	}()
	if len(o.Command) == 0 {
		o.Command = []string{"sh"}
	}
	in := compile.DebugInput{ExecInput: compile.ExecInput{
		Input: compile.Input{Facts: target.Facts, Mountpoint: filepath.Join(e.dir(id), "merged")},
		PID:   target.PID, Start: target.Start, Namespaces: target.Namespaces, Cgroups: target.Cgroups,
	}}
	img, err := e.debugRoot(id, &o, &in)
	if err != nil {
		return nil, err
	}
	if err := e.debugProcess(id, img, target.Process, &o, &in); err != nil {
		return nil, err
	}
	out, err := compile.Debug(in)
	if err != nil {
		return nil, unsupported("%w", err)
	}
	if o.Warn != nil {
		if w := exposure(target.Process, in.Process, img == nil); w != "" {
			o.Warn(w)
		}
	}
	if o.Explain != nil {
		o.Explain(out.Plan)
	}
	if in.Overlay != nil {
		// Gone with the command or, if this program is killed, with the container.
		dir := filepath.Join(in.Overlay.Dir, filepath.Dir(in.Overlay.Upper))
		defer func() {
			if err != nil {
				os.RemoveAll(dir)
			} else {
				s.process = &debugged{s.process, dir}
			}
		}()
		// The tools' image gets a writable layer that is thrown away: package managers work in it, and the container's own files stay as they
		// are.
		for _, sub := range []string{dir, filepath.Join(dir, "upper"), filepath.Join(dir, "work")} {
			if err := os.Mkdir(sub, 0o755); err != nil {
				return nil, err
			}
		}
	}
	// Nobody would be there to throw the layer away.
	o.Detach = false
	return e.startExec(ctx, target.Actor, caller, out.Plan, sameBuild, o.ExecOptions, "debug")
}

// debugged is a process with files of its own, which are thrown away.
type debugged struct {
	process
	dir string
}

func (d *debugged) Close() {
	d.process.Close()
	os.RemoveAll(d.dir)
}

// exposure says who in the container can reach what the process sees, if anybody can. To look at a process through /proc takes
// its user and all its capabilities, or CAP_SYS_PTRACE (ptrace(2), access mode checking).
func exposure(first supervise.Process, p *specs.Process, host bool) string {
	what := "the tools' files"
	if host {
		what = "the host's files that the tools come from (read-only); --image shows it none of them"
	}
	switch {
	case slices.Contains(first.Caps, capPtrace):
		return "the container has " + capPtrace + ": its root can look into the debugging process and, through it, at " + what
	case p.User.UID != 0 || !slices.Contains(p.Capabilities.Permitted, capPtrace):
		return fmt.Sprintf("processes of user %d in the container can look into the debugging process and, through it, at %s", p.User.UID, what)
	}
	return ""
}

// debugRoot finds the tools.
func (e *Engine) debugRoot(id string, o *DebugOptions, in *compile.DebugInput) (*image.Image, error) {
	if o.Image == "" {
		in.Origins = map[string]string{"": "command line", "/root": "default", "/mounts": "default"}
		for _, dir := range toolDirs {
			if st, err := os.Stat(dir); err == nil && st.IsDir() {
				// Where /bin is a link to usr/bin, both are given: Stat follows it, and programs are looked for under both
				// names.
				in.Tools = append(in.Tools, dir)
			}
		}
		return nil, nil
	}
	in.Origins = map[string]string{"": "command line", "/root": "image " + o.Image, "/mounts": "default"}
	tools := &container.Container{ID: id, Config: container.Config{Image: o.Image, Remove: true}}
	img, err := e.imageOf(tools)
	if err != nil {
		return nil, err
	}
	if in.Overlay, err = spec.Overlay(e.specInput(tools, img, &in.Facts, nil)); err != nil {
		return nil, err
	}
	// Below the container's directory, so that what a killed debug leaves goes with the container.
	own := fmt.Sprintf("containers/%s/debug-%x", id, time.Now().UnixNano()) // one of a killed command may still be there, and in use
	in.Overlay.Upper, in.Overlay.Work = path.Join(own, "upper"), path.Join(own, "work")
	return img, nil
}

// debugProcess describes the process: root with the container's capabilities and what it takes to trace others.
func (e *Engine) debugProcess(id string, img *image.Image, first supervise.Process, o *DebugOptions, in *compile.DebugInput) error {
	c, err := e.readContainer(id)
	if err != nil {
		return err
	}
	p := &specs.Process{Args: o.Command, Terminal: o.TTY, Cwd: "/", NoNewPrivileges: first.NoNewPrivs}
	if o.Privileged {
		// Who asks for it wants to see what holds the container back, and its profiles are part of that.
		c.Config.Privileged, c.Config.Security = true, container.Security{}
	} else {
		p.Capabilities = &specs.LinuxCapabilities{Bounding: slices.Clone(first.Caps)}
		if !slices.Contains(first.Caps, capPtrace) && slices.Contains(spec.AllCaps(&in.Facts), capPtrace) {
			// To look into a process takes all of its capabilities, or this one (ptrace(2)): a debugger with just the container's own would be
			// refused by setuid programs.
			p.Capabilities.Bounding = append(p.Capabilities.Bounding, capPtrace)
		}
	}
	out, err := e.privileges(c, &in.Facts, p)
	if err != nil {
		return err
	}
	if !o.Privileged {
		p.NoNewPrivileges, p.ApparmorProfile = first.NoNewPrivs, first.AppArmor
	}
	in.Process, in.Spec, in.SeccompName = p, out.Spec, out.SeccompName

	// Names of users are those of where the tools come from: the container's own files may be what is broken.
	passwd, _ := os.ReadFile("/etc/passwd")
	group, _ := os.ReadFile("/etc/group")
	home := "/root"
	var env []string
	if img != nil {
		tools := &container.Container{}
		passwd, group = e.readFile(tools, img, "/etc/passwd"), e.readFile(tools, img, "/etc/group")
		env = img.Config.Config.Env
	}
	if o.User != "" {
		u, err := spec.LookupUser(o.User, nil, passwd, group)
		if err != nil {
			return err
		}
		p.User = specs.User{UID: u.UID, GID: u.GID, AdditionalGids: append([]uint32{u.GID}, u.Groups...)}
		home = u.Home
	}
	if p.User.UID == 0 {
		p.Capabilities.Effective, p.Capabilities.Permitted = p.Capabilities.Bounding, p.Capabilities.Bounding
	}
	if o.Workdir != "" {
		if !path.IsAbs(o.Workdir) {
			return invalid("the working directory %q is invalid, it needs to be an absolute path", o.Workdir)
		}
		p.Cwd = path.Clean(o.Workdir)
	}
	if _, ok := container.LookupEnv(env, "PATH"); !ok {
		env = append([]string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}, env...)
	}
	env = append(slices.Clone(env), "HOME="+home)
	if o.TTY {
		env = append(env, "TERM=xterm")
		if o.ConsoleSize[0] > 0 {
			p.ConsoleSize = &specs.Box{Height: uint(o.ConsoleSize[0]), Width: uint(o.ConsoleSize[1])}
		}
	}
	p.Env, err = container.MergeEnv(env, o.Environ, nil, o.Env)
	return err
}
