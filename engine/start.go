package engine

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"glassbox/compile"
	"glassbox/container"
	"glassbox/host"
	"glassbox/plan"
	"glassbox/spec"
	"glassbox/state"
	"glassbox/supervise"
)

// compile makes a container's plan.
func (e *Engine) compile(
	ctx context.Context, c *container.Container, s *spec.Output, w *wiring, facts *host.Facts,
) (*compile.Output, error) {
	out, err := compile.Container(compile.Input{
		Spec: s.Spec, Facts: *facts, Overlay: s.Overlay, Quota: s.Quota, Mountpoint: s.Mountpoint, Network: w.steps, Replace: spec.OwnFiles(),
		SeccompName: s.SeccompName, Mounts: s.Mounts, Origins: s.Origins, DieWithParent: true, MakeCwd: true,
		Bundle: e.bundle(c, s),
	})
	if err != nil {
		return nil, unsupported("%w", err)
	}
	warn(ctx, slices.Concat(s.Warnings, out.Warnings)...)
	return out, nil
}

// bundle is the directory that hooks know as the container's bundle, if there are hooks.
func (e *Engine) bundle(c *container.Container, s *spec.Output) string {
	if s.Spec.Hooks == nil {
		return ""
	}
	return e.dir(c.ID)
}

// Plan returns the plan that `run` with these options would execute. Nothing is written, and no privilege is needed: the
// plan is what root on this host would run.
func (e *Engine) Plan(ctx context.Context, o CreateOptions) (*plan.Plan, error) {
	same := o
	same.Log, same.Restart, same.Health = container.Log{}, container.Restart{}, container.Health{} // they change no step
	text, err := json.Marshal(same)
	if err != nil {
		return nil, err
	}
	// An id that is always the same for the same command, so that plans can be compared.
	sum := sha256.Sum256(text)
	c := &container.Container{Version: container.Version, ID: hex.EncodeToString(sum[:]), Name: o.Name, Config: o.Config}
	return e.planned(ctx, c)
}

// planned is the plan that a start of a container would run now. Nothing is written.
func (e *Engine) planned(ctx context.Context, c *container.Container) (*plan.Plan, error) {
	facts, err := e.rootFacts(ctx)
	if err != nil {
		return nil, err
	}
	s, err := e.describe(ctx, c, facts)
	if err == nil {
		err = e.sharesRun(ctx, c)
	}
	if err != nil {
		return nil, err
	}
	w, err := e.wire(c, s, false, true)
	if err != nil {
		return nil, err
	}
	out, err := e.compile(ctx, c, s, w, facts)
	if err != nil {
		return nil, err
	}
	return out.Plan, nil
}

// Start starts a container and returns when its program runs, or with a [StartError]. One that runs already is left alone.
func (e *Engine) Start(ctx context.Context, ref string, o StartOptions) (*Session, error) {
	id, err := e.find(ctx, ref)
	if err != nil {
		return nil, err
	}
	// Not waited for in the kernel: the holder may be the supervisor of a container that runs for months.
	lock, fresh, err := state.Lock(e.lockFile(id), false)
	for end := time.Now().Add(10 * time.Second); err == unix.EWOULDBLOCK; lock, fresh, err = state.Lock(e.lockFile(id), false) {
		// Somebody works on it: its supervisor, because it runs, or a command that is soon done.
		if _, s, err := e.loadID(id); err == nil && s.Status == supervise.Restarting && !o.Attach {
			return &Session{ID: id}, nil // it will run, as with Docker
		} else if err == nil && s.Alive() {
			if o.Attach {
				if !o.Interactive {
					o.Stdin = nil
				}
				return e.Attach(ctx, id, AttachOptions{o.Streams})
			}
			return &Session{ID: id}, nil
		}
		if time.Now().After(end) {
			return nil, conflict("container %s is being changed by another command", ref)
		}
		if err := pause(ctx, 5*time.Millisecond); err != nil {
			return nil, err
		}
	}
	if err != nil {
		return nil, err
	}
	handedOver := false
	defer func() {
		if !handedOver {
			state.Unlock(lock, e.lockFile(id))
		}
	}()
	// Somebody died with this lock. What he left (cgroups, links, addresses) is in the way of a new start.
	if !fresh {
		if err := supervise.RepairOne(e.dir(id), e.nameFileOf); err != nil {
			return nil, err
		}
	}
	c, _, err := e.loadID(id)
	if err != nil {
		return nil, err
	}
	// A stop by hand is over with a start by hand.
	if !c.Config.Restart.None() {
		if err := supervise.MarkStarted(e.dir(id)); err != nil {
			return nil, e.notStarted(c, err)
		}
	}
	job, err := e.job(ctx, c, o)
	if err != nil {
		return nil, e.notStarted(c, err)
	}
	if o.Explain != nil {
		o.Explain(job.Plan)
	}
	job.Step = o.Before != nil
	if observerOf(ctx).Trace != nil && o.TraceFor > 0 && o.Before == nil {
		job.Trace = int64(o.TraceFor)
	}
	s, err := e.spawn(ctx, c, job, lock, o)
	// A StartError came from a supervisor that lives and has tidied up; any other error means that there is none.
	var start *StartError
	if err != nil && !errors.As(err, &start) {
		// The supervisor was killed, or never came to be: what it left is repaired while the lock is still ours.
		err = errors.Join(err, supervise.RepairOne(e.dir(id), func(string) string { return e.nameFile(c.Name) }))
		if c.Config.Remove {
			err = errors.Join(err, e.remove(c, true))
		}
		return nil, err
	}
	handedOver = true // the supervisor holds the lock, or has removed it
	lock.Close()
	if kept := e.kept(c.ID); kept != nil && err == nil {
		s.Close()
		return nil, fmt.Errorf("container %s runs, but a power failure would lose it: %w", c.Name, kept)
	}
	return s, err
}

// notStarted records why a container could not even be tried.
func (e *Engine) notStarted(c *container.Container, err error) error {
	if c.Config.Remove {
		err = errors.Join(err, e.remove(c, true))
	} else if s, stateErr := supervise.ReadState(e.dir(c.ID)); stateErr == nil {
		// It stays what it was, created or exited, and says why it didn't start.
		s.ExitCode, s.Error = 125, err.Error()
		supervise.WriteState(e.dir(c.ID), s)
	}
	return &StartError{125, err}
}

// job writes the container's files and the supervisor's job.
func (e *Engine) job(ctx context.Context, c *container.Container, o StartOptions) (*supervise.Job, error) {
	if c.Fixed {
		return e.fixedJob(ctx, c, o)
	}
	facts, err := e.Facts(ctx)
	if err != nil {
		return nil, err
	}
	if err := e.sharesRun(ctx, c); err != nil {
		return nil, err
	}
	// Worked out by the Create of a moment ago, and nothing has changed in between: this process holds the lock.
	s := e.takePrepared(c.ID)
	again := s == nil
	if again {
		if c.Config.TTY {
			// The size of the terminal that starts it, so that the program's first lines are laid out for it; later ones come as signals.
			c.Config.ConsoleSize = o.ConsoleSize
		}
		img, err := e.imageOf(c)
		if err != nil {
			return nil, err
		}
		if s, err = e.specification(ctx, c, img, facts); err != nil {
			return nil, err
		}
	}
	wired := timed(ctx, "prepares the network: bridge, address, ports")
	w, err := e.wire(c, s, true, again)
	wired()
	if err != nil {
		return nil, err
	}
	// The job hasn't left this function: nobody else would give the addresses back.
	fail := func(err error) (*supervise.Job, error) {
		w.release()
		return nil, err
	}
	filed := timed(ctx, "writes hosts, resolv.conf, hostname")
	// The mark of a run that is over. The freezer's cgroup went with it.
	os.Remove(e.pausedFile(c.ID))
	dir := e.dir(c.ID)
	if err := e.hostFiles(c, w, s.Spec.Hostname); err != nil {
		return fail(err)
	}
	filed()
	compiled := timed(ctx, "compiles the plan")
	out, err := e.compile(ctx, c, s, w, facts)
	compiled()
	if err != nil {
		return fail(err)
	}
	if s.Spec.Hooks != nil {
		if err := state.WriteJSON(filepath.Join(dir, supervise.BundleFile), s.Spec); err != nil {
			return fail(err)
		}
	}
	job := e.supervisorJob(c, s, out)
	job.State, job.Actor = e.cfg.State, actor(c)
	job.Volumes = volumeUses(c)
	job.Network, job.Detached, job.DetachKeys = w.job, !o.Attach, o.DetachKeys
	if job.Health != nil {
		if err := e.writeCheck(c, job, facts); err != nil {
			return fail(err)
		}
	}
	if s.Overlay != nil && slices.Contains(s.Overlay.Options, "volatile") {
		// A volatile overlay leaves a mark that forbids a second use.
		os.RemoveAll(filepath.Join(dir, "work", "work"))
	}
	return job, nil
}

// hostFiles writes the files that tell a container who it is. One that shares another's network shares these, too: they are further names
// of
// the other's files, so that what is changed in one is changed in both, and they stay when the other container goes. Nothing of what
// the other may have written is read.
func (e *Engine) hostFiles(c *container.Container, w *wiring, hostname string) error {
	dir := e.dir(c.ID)
	if w.resolver != nil {
		if err := os.WriteFile(filepath.Join(dir, supervise.ResolverFile), w.resolver, 0o600); err != nil {
			return err
		}
	}
	for name, data := range map[string][]byte{"hosts": w.hosts, "resolv.conf": w.resolv, "hostname": []byte(hostname + "\n")} {
		file := filepath.Join(dir, name)
		if w.container == "" {
			if err := os.WriteFile(file, data, 0o644); err != nil {
				return err
			}
			continue
		}
		if err := os.Remove(file); err != nil && !os.IsNotExist(err) {
			return err
		}
		// link(2) doesn't follow links (linkat(2) without AT_SYMLINK_FOLLOW), and both directories are the engine's own.
		if err := os.Link(filepath.Join(e.dir(w.container), name), file); err != nil {
			return err
		}
	}
	return nil
}

// supervisorJob says what the supervisor of a container has to do, but for the network.
func (e *Engine) supervisorJob(c *container.Container, s *spec.Output, out *compile.Output) *supervise.Job {
	job := &supervise.Job{
		ID: c.ID, Dir: e.dir(c.ID), NameFile: e.nameFile(c.Name), LockFile: e.lockFile(c.ID),
		Terminal: c.Config.TTY, Interactive: c.Config.OpenStdin, Remove: c.Config.Remove, Log: logOf(c),
		Cgroups: out.Cgroups, Namespaces: out.Plan.Namespaces(), Process: processOf(s.Spec.Process, out.Plan),
		Undo: out.Plan.Undo(len(out.Plan.Steps)), Plan: out.Plan,
	}
	if c.Layer != nil {
		job.Project = c.Layer.Project
	}
	withLife(job, c)
	return job
}

// processOf gathers what exec will need.
func processOf(p *specs.Process, made *plan.Plan) supervise.Process {
	out := supervise.Process{
		Env: p.Env, Cwd: p.Cwd, UID: p.User.UID, GID: p.User.GID, Groups: p.User.AdditionalGids, Caps: p.Capabilities.Bounding,
		NoNewPrivs: p.NoNewPrivileges, AppArmor: p.ApparmorProfile, OOMScoreAdj: p.OOMScoreAdj,
	}
	for _, r := range p.Rlimits {
		out.Rlimits = append(out.Rlimits, plan.Rlimit{Type: r.Type, Soft: r.Soft, Hard: r.Hard})
	}
	for _, step := range made.Steps {
		if f, ok := step.Op.(*plan.Seccomp); ok {
			out.Filter = f
		}
	}
	return out
}

// pause waits for a moment, or returns the error of a context that ends before.
func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}
