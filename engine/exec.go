package engine

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"glassbox/compile"
	"glassbox/container"
	"glassbox/event"
	"glassbox/plan"
	"glassbox/spec"
	"glassbox/state"
	"glassbox/supervise"
)

// Exec starts a command in a running container, and returns when it runs, or with a [StartError]. The container's doorkeeper starts it: see
// supervise.Doorkeeper. Input and output are carried by Session.Wait; the caller takes its signals into its own hands before it calls Exec.
func (e *Engine) Exec(ctx context.Context, ref string, o ExecOptions) (*Session, error) {
	id, err := e.find(ctx, ref)
	if err != nil {
		return nil, err
	}
	if len(o.Command) == 0 || o.Command[0] == "" {
		return nil, invalid("there is no command to run")
	}
	// From here on a doorkeeper waits for this caller: whatever fails closes the connection, or the door would stay open for ten seconds.
	caller, target, sameBuild, err := e.door(ctx, ref, id)
	if err != nil {
		return nil, err
	}
	s, err := e.exec(ctx, id, caller, target, sameBuild, o)
	if err != nil {
		caller.Close()
	}
	return s, err
}

func (e *Engine) exec(
	ctx context.Context, id string, caller *supervise.Caller, target *supervise.Target, sameBuild bool, o ExecOptions,
) (*Session, error) {
	// Nothing of the container's files is read: the template of its first process (exec.bin) says all that an ordinary exec needs.
	in := compile.ExecInput{
		Input: compile.Input{Facts: target.Facts, SeccompName: "default", Origins: map[string]string{"": "command line"}},
		PID:   target.PID, Start: target.Start, Namespaces: target.Namespaces, Cgroups: target.Cgroups,
	}
	if err := e.execProcess(id, target.Process, o, &in); err != nil {
		return nil, err
	}
	out, err := compile.Exec(in)
	if err != nil {
		return nil, unsupported("%w", err)
	}
	return e.startExec(ctx, target.Actor, caller, out.Plan, sameBuild, o, "exec")
}

// startExec lets the doorkeeper run a plan. verb is what an error begins with.
func (e *Engine) startExec(
	ctx context.Context, who event.Actor, caller *supervise.Caller, p *plan.Plan, sameBuild bool, o ExecOptions, verb string,
) (*Session, error) {
	// Asked again: to start a doorkeeper takes longer than all else, and a caller who has left wants no command run.
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	streams, err := o.Streams.descriptors(o.Interactive)
	if err != nil {
		return nil, err
	}
	job := &supervise.ExecJob{
		Terminal: o.TTY, Interactive: o.Interactive, Detach: o.Detach, HangUp: verb == "debug", Plan: p, State: e.cfg.State,
	}
	with := strings.Join(o.Command, " ")
	// Docker has two events, of its two API calls, with the command as typed. Both are written with one lock of the journal.
	created := event.New(event.Container, event.ExecCreate+": "+with, who, "execID", newID())
	job.Actor = created.Actor
	// Before the start: the doorkeeper writes the end, which would otherwise stand before its beginning where the command
	// is short.
	event.Write(e.cfg.State, created, event.New(event.Container, event.ExecStart+": "+with, job.Actor))
	x, err := caller.Start(job, sameBuild, streams.fds(), o.DetachKeys)
	// What the program itself is to blame for (not found, not executable) has exit codes of its own, 127 and 126; the rest is 125.
	var refused *supervise.ExecError
	if errors.As(err, &refused) {
		err = &StartError{refused.Code, fmt.Errorf("%s: %w", verb, err)}
	}
	if err != nil {
		streams.close()
		return nil, err
	}
	return &Session{ID: who.ID, Terminal: o.TTY, process: &executed{x}, descriptors: streams}, nil
}

// executed is a further process of a container.
type executed struct{ *supervise.Exec }

func (x *executed) wait(ctx context.Context) (ending, error) {
	code, err := x.Wait(ctx)
	if err == unix.EPIPE {
		err = ErrOutputClosed
	}
	return ending{code: code}, err
}

// door connects to the doorkeeper of a running container, which is started if there is none.
func (e *Engine) door(ctx context.Context, ref, id string) (c *supervise.Caller, t *supervise.Target, sameBuild bool, err error) {
	dir, build := e.dir(id), e.build()
	// A frozen container's doorkeeper would clone a process that never runs: target says so, in Docker's words.
	if !e.paused(id) {
		if c, err := supervise.Call(dir); err == nil {
			if t, err := supervise.ReadTarget(dir, build); err == nil {
				return c, t, true, nil
			}
			t, err := e.target(ctx, ref, id) // glassbox was updated meanwhile
			return c, t, false, err
		}
	}
	if t, err = e.target(ctx, ref, id); err != nil {
		return nil, nil, false, err
	}
	t.Build = build
	if c, err = e.startDoorkeeper(id, t); err != nil {
		return nil, nil, false, fmt.Errorf("start %s doorkeeper: %w", e.cfg.Runtime, err)
	}
	return c, t, true, nil
}

// target finds out what exec needs to know of a container.
func (e *Engine) target(ctx context.Context, ref, id string) (*supervise.Target, error) {
	state, err := e.state(id)
	switch {
	case os.IsNotExist(err):
		return nil, notFound("no such container: %s", ref)
	case err != nil:
		return nil, err
	case state.Status == supervise.Paused:
		return nil, conflict("container %s is paused, unpause the container before exec", ref)
	case state.Status == supervise.Restarting:
		return nil, conflict("container %s is restarting, wait until the container is running", id)
	case state.Status != supervise.Running:
		return nil, conflict("container %s is not running (%s)", id, state.Status)
	}
	job, err := supervise.ReadJob(e.dir(id))
	if err != nil {
		return nil, err
	}
	facts, err := e.Facts(ctx)
	if err != nil {
		return nil, err
	}
	// The job has the name of the container's start; events carry the one of today.
	who := job.Actor
	if c, err := e.readContainer(id); err == nil {
		who = actor(c) // it may have got another name
	}
	return &supervise.Target{
		PID: state.PID, Start: state.Start, Namespaces: job.Namespaces, Cgroups: job.Cgroups, Process: job.Process, Facts: *facts,
		Actor: who,
	}, nil
}

// startDoorkeeper starts a doorkeeper, unless somebody else was quicker, and connects to it.
func (e *Engine) startDoorkeeper(id string, t *supervise.Target) (*supervise.Caller, error) {
	dir := e.dir(id)
	// Two callers at a time would start a doorkeeper each, and the second one's socket would take the first one's name.
	unlock, err := state.LockDir(dir)
	if err != nil {
		return nil, err
	}
	defer unlock()
	if c, err := supervise.Call(dir); err == nil {
		return c, nil
	}
	// The doorkeeper ends with the container. It gets the descriptor from here, because by the time it runs the pid could be another's.
	container, err := unix.PidfdOpen(t.PID, 0)
	if err != nil {
		return nil, err
	}
	defer unix.Close(container)
	runtime, err := e.runtimeFile()
	if err != nil {
		return nil, err
	}
	defer runtime.Close()
	null, err := unix.Open("/dev/null", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	defer unix.Close(null)
	// The socket is there before its process: a second exec that comes in between waits in its queue instead of starting a second
	// doorkeeper.
	listener, err := supervise.Listen(dir, t)
	if err != nil {
		return nil, err
	}
	defer unix.Close(listener)
	// With one thread at a time it is quicker: it waits more than it works. The raw call is as in spawn.
	argv := []string{"glassbox-runtime", "doorkeeper", dir}
	files := []uintptr{uintptr(null), uintptr(null), uintptr(null), uintptr(listener), uintptr(container)}
	if err := forkExec(runtime, argv, []string{"GOMAXPROCS=1"}, files); err != nil {
		return nil, err
	}
	// The socket listens already: this connects at once, though the process on its other side is just coming up.
	return supervise.Call(dir)
}

// build tells one installation of glassbox's two programs from another.
func (e *Engine) build() string {
	var text []byte
	for _, file := range []string{"/proc/self/exe", e.cfg.Runtime} {
		var st unix.Stat_t
		if err := unix.Stat(file, &st); err != nil {
			return ""
		}
		// Inode, size and time instead of a hash: two stat calls per exec, where reading 6 MB would cost more than the exec itself.
		for _, n := range []int64{int64(st.Dev), int64(st.Ino), st.Size, st.Mtim.Sec, st.Mtim.Nsec} {
			text = append(strconv.AppendInt(text, n, 36), '.')
		}
	}
	return string(text)
}

// execProcess describes the process: as the container's first one, but for what the options change.
func (e *Engine) execProcess(id string, first supervise.Process, o ExecOptions, in *compile.ExecInput) error {
	p := &specs.Process{
		Args: o.Command, Terminal: o.TTY, Cwd: first.Cwd, NoNewPrivileges: first.NoNewPrivs, ApparmorProfile: first.AppArmor,
		User:         specs.User{UID: first.UID, GID: first.GID, AdditionalGids: first.Groups},
		Capabilities: &specs.LinuxCapabilities{Bounding: first.Caps}, OOMScoreAdj: first.OOMScoreAdj,
	}
	for _, r := range first.Rlimits { // a limit of the container that exec had not would be none
		p.Rlimits = append(p.Rlimits, specs.POSIXRlimit{Type: r.Type, Soft: r.Soft, Hard: r.Hard})
	}
	// The same filter object as the first process has: compiling it anew would take longer than starting the command.
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
		c, err := e.readContainer(id)
		if err != nil {
			return err
		}
		img, _ := e.imageOf(c) // an image removed by force leaves the container running
		if o.User != "" {
			u, err := spec.LookupUser(o.User, nil, e.readFile(c, img, "/etc/passwd"), e.readFile(c, img, "/etc/group"))
			if err != nil {
				return err
			}
			// The primary group is among the supplementary ones, too, as with Docker: a setgid program would otherwise lose it.
			p.User = specs.User{UID: u.UID, GID: u.GID, AdditionalGids: append([]uint32{u.GID}, u.Groups...)}
			home = u.Home
		}
		if o.Privileged {
			c.Config.Privileged = true
			p.Capabilities = nil
			out, err := e.privileges(c, &in.Facts, p)
			if err != nil {
				return err
			}
			in.Filter, in.Spec = nil, out.Spec
		}
	}
	// execve gives root its permitted and effective sets from the bounding one, and anybody else none (capabilities(7)).
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
		// The first process may have had a terminal and another user's home; this one is told what is true for it.
		return strings.HasPrefix(s, "TERM=") && !o.TTY || strings.HasPrefix(s, "HOME=") && home != ""
	})
	if home != "" {
		env = append(env, "HOME="+home)
	}
	if o.TTY {
		if _, ok := container.LookupEnv(env, "TERM"); !ok {
			env = append(env, "TERM=xterm")
		}
	}
	var err error
	p.Env, err = container.MergeEnv(env, o.Environ, fromFiles, o.Env)
	if o.TTY && o.ConsoleSize[0] > 0 {
		p.ConsoleSize = &specs.Box{Height: uint(o.ConsoleSize[0]), Width: uint(o.ConsoleSize[1])}
	}
	return err
}
