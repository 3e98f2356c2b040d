package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"

	"github.com/containerd/containerd/v2/core/mount"
	containerdoci "github.com/containerd/containerd/v2/pkg/oci"
	"github.com/containerd/continuity/fs"
	"github.com/moby/buildkit/executor"
	bkoci "github.com/moby/buildkit/executor/oci"
	resourcestypes "github.com/moby/buildkit/executor/resources/types"
	gatewayapi "github.com/moby/buildkit/frontend/gateway/pb"
	"github.com/moby/buildkit/identity"
	"github.com/moby/buildkit/solver/pb"
	"github.com/moby/buildkit/util/stack"
	"github.com/moby/sys/user"
	"github.com/opencontainers/runtime-spec/specs-go"
	"github.com/pkg/errors"

	"glassbox/build"
	"glassbox/bundle"
	"glassbox/cgroup"
	"glassbox/compile"
	"glassbox/container"
	"glassbox/host"
	"glassbox/host/remove"
	"glassbox/network"
	"glassbox/plan"
	"glassbox/seccomp"
	"glassbox/supervise"
)

// executor is BuildKit's executor.Executor: each RUN is compiled to a plan, and a small process of its own executes that.

type planExecutor struct {
	place
	facts *host.Facts
	watch *watch // of the one build of this process; nil: nobody's

	mu      sync.Mutex
	running map[string]*running
}

// running is a RUN that other processes may be put into (Exec).
type running struct {
	step    *runStep
	started chan struct{} // closed when it runs, or is over
	done    chan struct{}
	spec    *specs.Spec
	rootfs  string
	out     *compile.Output
	pid     int
	start   uint64
}

var _ executor.Executor = (*planExecutor)(nil)

func newExecutor(p place) (*planExecutor, error) {
	facts, err := host.Probe()
	if err != nil {
		return nil, err
	}
	e := &planExecutor{place: p, facts: facts, running: map[string]*running{}}
	for _, dir := range []string{e.runs(), e.roots()} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, err
		}
	}
	return e, e.repair()
}

// Run runs a process with its mounts to its end.
func (e *planExecutor) Run(
	ctx context.Context, id string, root executor.Mount, mounts []executor.Mount, process executor.ProcessInfo, started chan<- struct{},
) (resourcestypes.Recorder, error) {
	return nil, e.runStep(ctx, nil, id, root, mounts, process, started)
}

// runStep is Run, of a step of a build that is known (nil: it isn't).
func (e *planExecutor) runStep(
	ctx context.Context, step *runStep, id string, root executor.Mount, mounts []executor.Mount, process executor.ProcessInfo,
	started chan<- struct{},
) error {
	if id == "" {
		id = identity.NewID()
	}
	if err := executor.ValidContainerID(id); err != nil {
		return err
	}
	r := &running{step: step, started: make(chan struct{}), done: make(chan struct{})}
	e.mu.Lock()
	e.running[id] = r
	e.mu.Unlock()
	tell := sync.OnceFunc(func() {
		close(r.started)
		if started != nil {
			close(started)
		}
	})
	defer func() {
		e.mu.Lock()
		delete(e.running, id)
		e.mu.Unlock()
		close(r.done)
		tell()
	}()
	return e.run(ctx, id, r, root, mounts, process, tell)
}

func (e *planExecutor) run(
	ctx context.Context, id string, r *running, root executor.Mount, mounts []executor.Mount, process executor.ProcessInfo, tell func(),
) (err error) {
	meta := process.Meta
	if meta.Proxy != nil {
		return errors.New("a proxy for the network of builds is not supported")
	}
	mountable, err := root.Src.Mount(ctx, false)
	if err != nil {
		return err
	}
	layers, release, err := mountable.Mount()
	if err != nil {
		return err
	}
	if release != nil {
		defer release()
	}
	dir := filepath.Join(e.roots(), id)
	r.rootfs = filepath.Join(dir, "rootfs")
	if err := os.MkdirAll(r.rootfs, 0o700); err != nil {
		return err
	}
	defer os.RemoveAll(dir) // after the unmount: defers run last in, first out
	// In this process's own mount namespace: when it is killed, the kernel unmounts.
	if err := mount.All(layers, r.rootfs); err != nil {
		return errors.WithStack(err)
	}
	defer func() {
		if uerr := mount.UnmountAll(r.rootfs, 0); uerr != nil && err == nil {
			err = uerr
		}
	}()
	// Mount points that the RUN's mounts need in its root (/dev, /proc, /etc/hosts) are made there, and must not be in the layer.
	defer executor.MountStubsCleaner(context.WithoutCancel(ctx), r.rootfs, mounts, meta.RemoveMountStubsRecursive)()
	w, err := e.wire(id, &meta, true)
	if err != nil {
		return err
	}
	handedOver := false
	defer func() {
		if !handedOver {
			w.Release()
		}
	}()
	for name, data := range map[string][]byte{"hosts": w.Hosts, "resolv.conf": w.ResolvConf} {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o644); err != nil {
			return err
		}
	}
	s, cleanup, err := e.specification(ctx, id, dir, r.rootfs, root, mounts, &meta)
	if err != nil {
		return err
	}
	defer cleanup()
	if r.out, err = e.compile(s, w.Steps); err != nil {
		return err
	}
	r.spec = s
	job := e.job(id, r.out, w)
	over, err := e.watch.begins(ctx, r.step, r.out.Plan, job)
	if err != nil {
		return err
	}
	defer over()
	// From here on execute gives the addresses back, in whatever way it ends.
	handedOver = true
	end, err := e.execute(ctx, job, r.step, process, func(pid int, start uint64) {
		r.pid, r.start = pid, start
		tell()
	})
	return exitError(ctx, end, err, meta.ValidExitCodes)
}

// specification is BuildKit's own OCI configuration of a RUN.
func (e *planExecutor) specification(
	ctx context.Context, id, dir, rootfs string, root executor.Mount, mounts []executor.Mount, meta *executor.Meta,
) (*specs.Spec, func(), error) {
	uid, gid, groups, err := bkoci.GetUser(rootfs, meta.User)
	if err != nil {
		return nil, nil, errors.WithStack(err)
	}
	var pids int64
	opts := []containerdoci.SpecOpts{bkoci.WithUIDGID(uid, gid, groups)}
	if meta.ReadonlyRootFS {
		opts = append(opts, containerdoci.WithRootFSReadonly())
	}
	own := *meta
	own.LinuxResources, pids = cutPids(meta.LinuxResources)
	s, cleanup, err := bkoci.GenerateSpec(ctx, own, mounts, id, filepath.Join(dir, "resolv.conf"), filepath.Join(dir, "hosts"),
		netNamespace(meta.NetMode), "", bkoci.ProcessSandbox, nil, "", false, "", nil, opts...)
	if err != nil {
		return nil, nil, err
	}
	fail := func(err error) (*specs.Spec, func(), error) {
		cleanup()
		return nil, nil, err
	}
	unmount, err := stacks(s, dir)
	if err != nil {
		return fail(err)
	}
	release := cleanup
	cleanup = func() {
		unmount()
		release()
	}
	s.Root.Path, s.Root.Readonly = rootfs, s.Root.Readonly || root.Readonly
	// As runc's executor does, so that the directory is part of the layer and has the same owner.
	cwd, err := fs.RootPath(rootfs, meta.Cwd)
	if err != nil {
		return fail(errors.Wrapf(err, "working dir %s points to invalid target", meta.Cwd))
	}
	if _, err := os.Stat(cwd); err != nil {
		if err := user.MkdirAllAndChown(cwd, 0o755, int(uid), int(gid)); err != nil {
			return fail(errors.Wrapf(err, "failed to create working directory %s", meta.Cwd))
		}
	}
	s.Process.Env = bundle.WithHome(s.Process.Env, rootfs, uid) // which runc does for its callers
	s.Process.Terminal = meta.Tty
	if s.Linux.CgroupsPath, err = cgroup.ParentPath(meta.CgroupParent, id); err != nil {
		return fail(err)
	}
	if s.Linux.Resources == nil {
		s.Linux.Resources = &specs.LinuxResources{}
	}
	if pids > 0 {
		s.Linux.Resources.Pids = &specs.LinuxPids{Limit: &pids}
	}
	s.Linux.Resources.Devices = append(s.Linux.Resources.Devices, cgroup.DefaultDevices()...)
	return s, cleanup, nil
}

// stacks mounts the file systems of other stages that a RUN has mounted, and makes bind mounts of them: the names of their layers mean
// nothing below the RUN's root, and soon are too long for fsconfig(2). As with its root that is in this process's own mount namespace.
func stacks(s *specs.Spec, dir string) (unmount func(), err error) {
	var made []string
	unmount = func() {
		for _, name := range made {
			mount.UnmountAll(name, 0)
		}
	}
	for i := range s.Mounts {
		m := &s.Mounts[i]
		if m.Type != "overlay" {
			continue
		}
		name := filepath.Join(dir, fmt.Sprintf("stack%d", i))
		if err := os.Mkdir(name, 0o700); err != nil {
			unmount()
			return nil, err
		}
		options := slices.DeleteFunc(slices.Clone(m.Options), func(o string) bool { return o == "rbind" || o == "bind" })
		if err := mount.All([]mount.Mount{{Type: "overlay", Source: m.Source, Options: options}}, name); err != nil {
			unmount()
			return nil, errors.Wrapf(err, "the mount at %s", m.Destination)
		}
		made = append(made, name)
		writable := slices.ContainsFunc(options, func(o string) bool { return strings.HasPrefix(o, "upperdir=") })
		m.Type, m.Source, m.Options = "bind", name, []string{"rbind"}
		if !writable || slices.Contains(options, "ro") {
			m.Options = append(m.Options, "ro")
		}
	}
	return unmount, nil
}

// compile makes the plan of a RUN.
func (e *planExecutor) compile(s *specs.Spec, steps []plan.Step) (*compile.Output, error) {
	in := compile.Input{
		Spec: s, Facts: *e.facts, Network: steps, Origins: origins(s), DieWithParent: true, LaxCaps: true,
		SeccompName: "BuildKit's default profile",
	}
	if s.Linux.Seccomp != nil && os.Geteuid() == 0 {
		// The profile is the same for all of them.
		f, err := seccomp.Cached(filepath.Join(e.dir(), "seccomp"), s.Linux.Seccomp, e.facts.Arch)
		if err != nil {
			return nil, err
		}
		in.Filter = &plan.Seccomp{Name: in.SeccompName, Flags: f.Flags, Program: f.Bytes()}
	}
	out, err := compile.Container(in)
	if err != nil {
		return nil, fmt.Errorf("the plan of RUN: %w", err)
	}
	return out, nil
}

// origins says which words of a Dockerfile parts of the configuration come from.
func origins(s *specs.Spec) map[string]string {
	o := map[string]string{
		"": "builder", "/process/args": "RUN", "/process/env": "ENV, ARG", "/process/cwd": "WORKDIR", "/process/user": "USER",
		"/root": "the step's file system",
	}
	for i, m := range s.Mounts {
		if m.Type == "bind" || m.Type == "overlay" || m.Type == "tmpfs" && !slices.Contains([]string{"/dev", "/dev/shm"}, m.Destination) {
			if !slices.Contains([]string{"/etc/hosts", "/etc/resolv.conf"}, m.Destination) {
				o[fmt.Sprintf("/mounts/%d", i)] = "RUN --mount"
			}
		}
	}
	return o
}

// wire asks the engine's networks for a place for a RUN; without lease for a likely one, which is not taken.
func (e *planExecutor) wire(id string, meta *executor.Meta, lease bool) (*network.Wiring, error) {
	r := network.Request{Container: id, Name: "build-" + id, Hostname: cmpOr(meta.Hostname, "buildkitsandbox")}
	switch meta.NetMode {
	case pb.NetMode_HOST:
		r.Networks = []network.Attachment{{Network: network.Host}}
	case pb.NetMode_NONE:
		r.Networks = []network.Attachment{{Network: network.None}}
		// Programs look for their own host's name, and BuildKit's file has it.
		r.Hosts = append(r.Hosts, container.HostEntry{Name: r.Hostname, IP: "127.0.0.1"})
	default:
		r.Networks = []network.Attachment{{Network: network.Bridge}}
	}
	for _, h := range meta.ExtraHosts {
		ip, ok := netip.AddrFromSlice(h.IP)
		if !ok {
			return nil, fmt.Errorf("--add-host %s: no address", h.Host)
		}
		entry := container.HostEntry{Name: h.Host, IP: ip.Unmap().String()}
		if entry.IP == build.GatewayAddress {
			switch meta.NetMode {
			case pb.NetMode_HOST:
				entry.IP = "127.0.0.1"
			case pb.NetMode_NONE: // where the host can't be reached
				continue
			default:
				entry.IP = container.HostGateway
			}
		}
		r.Hosts = append(r.Hosts, entry)
	}
	return e.networks().Wire(r, lease, func(string) string { return "builder" })
}

func cmpOr(a, b string) string {
	if a != "" {
		return a
	}
	return b
}

// netNamespace is what BuildKit's configuration says of the network; a new namespace is wired by steps of the plan.
type netNamespace pb.NetMode

func (n netNamespace) Set(s *specs.Spec) error {
	if pb.NetMode(n) == pb.NetMode_HOST {
		return containerdoci.WithHostNamespace(specs.NetworkNamespace)(nil, nil, nil, s)
	}
	return nil
}

func (netNamespace) Close() error                                   { return nil }
func (netNamespace) Sample() (*resourcestypes.NetworkSample, error) { return nil, nil }

// job is what the process that executes a plan has to do.
func (e *planExecutor) job(id string, out *compile.Output, w *network.Wiring) *supervise.OnceJob {
	j := &supervise.OnceJob{
		ID: id, LockFile: e.lockFile(id), Cgroups: out.Cgroups, Undo: out.Plan.Undo(len(out.Plan.Steps)), Plan: out.Plan,
	}
	if w == nil {
		return j
	}
	for _, end := range w.Endpoints {
		if end.IP.IsValid() {
			if j.Network == nil {
				j.Network = &supervise.Network{State: e.networks().State}
			}
			j.Network.Leases = append(j.Network.Leases, supervise.Lease{Network: end.Network, Address: end.IP.String()})
		}
	}
	return j
}

// exitError is the end of a process in BuildKit's words.
func exitError(ctx context.Context, end *supervise.OnceEvent, err error, valid []int) error {
	exit := &gatewayapi.ExitError{ExitCode: uint32(gatewayapi.UnknownExitStatus), Err: err}
	if err == nil {
		exit = &gatewayapi.ExitError{ExitCode: uint32(end.Code)}
		// ENOMEM is what BuildKit's own executor says then, and clients look for it.
		if end.OOM && end.Code != 0 {
			exit.Err = errors.Wrapf(syscall.ENOMEM, "killed for its memory: exit code: %d", end.Code)
		}
	}
	if err == nil && (valid == nil && end.Code == 0 || slices.Contains(valid, end.Code)) {
		return nil
	}
	if ctx.Err() != nil {
		exit.Err = errors.Wrap(context.Cause(ctx), exit.Error())
		return exit
	}
	return stack.Enable(exit)
}

// Exec starts a further process in a RUN that runs.
func (e *planExecutor) Exec(ctx context.Context, id string, process executor.ProcessInfo) error {
	e.mu.Lock()
	r := e.running[id]
	e.mu.Unlock()
	if r == nil {
		return errors.Errorf("container %s not found", id)
	}
	select {
	case <-r.started:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	// It was never started, or is over: runStep closes the channel in both cases.
	if r.pid == 0 {
		return errors.Errorf("container %s has stopped", id)
	}
	meta := process.Meta
	p := *r.spec.Process
	if meta.User != "" {
		uid, gid, groups, err := bkoci.GetUser(r.rootfs, meta.User)
		if err != nil {
			return err
		}
		p.User = specs.User{UID: uid, GID: gid, AdditionalGids: groups}
	}
	p.Terminal, p.Args = meta.Tty, meta.Args
	if meta.Cwd != "" {
		p.Cwd = meta.Cwd
	}
	if len(meta.Env) > 0 {
		p.Env = meta.Env
	}
	out, err := compile.Exec(compile.ExecInput{
		Input: compile.Input{
			Spec: r.spec, Facts: *e.facts, Origins: map[string]string{"": "builder"}, DieWithParent: true, LaxCaps: true,
			SeccompName: "BuildKit's default profile",
		},
		Process: &p, PID: r.pid, Start: r.start, Namespaces: r.out.Plan.Namespaces(), Cgroups: r.out.Cgroups, Group: "",
	})
	if err != nil {
		return err
	}
	// Its cgroup is the RUN's: ending all in it at the end of this one would end that, too.
	job := e.job(id+"-"+identity.NewID(), out, nil)
	job.Cgroups = nil
	end, err := e.execute(ctx, job, nil, process, nil)
	return exitError(ctx, end, err, meta.ValidExitCodes)
}

// repair takes back what RUNs left whose processes were killed with a builder that was killed.
func (e *planExecutor) repair() error {
	entries, err := os.ReadDir(e.runs())
	if err != nil {
		return err
	}
	for _, entry := range entries {
		name := filepath.Join(e.runs(), entry.Name())
		data, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		var j supervise.OnceJob
		if json.Unmarshal(data, &j) == nil { // else it is half written, and nothing was made
			if err := supervise.UndoOnce(&j); err != nil {
				return fmt.Errorf("what a killed build left: %w", err)
			}
			os.Remove(j.LockFile)
		}
		if err := os.Remove(name); err != nil {
			return err
		}
	}
	// Roots of RUNs: their mounts went with the namespace of the builder that was killed.
	left, err := os.ReadDir(e.roots())
	if err != nil {
		return err
	}
	for _, entry := range left {
		if err := remove.All(filepath.Join(e.roots(), entry.Name())); err != nil {
			return err
		}
	}
	return nil
}
