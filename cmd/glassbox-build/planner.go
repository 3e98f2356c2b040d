package main

import (
	"context"
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/containerd/containerd/v2/core/mount"
	"github.com/moby/buildkit/executor"
	bkoci "github.com/moby/buildkit/executor/oci"
	"github.com/moby/buildkit/solver/pb"
	"github.com/moby/sys/user"
	"github.com/opencontainers/runtime-spec/specs-go"

	"glassbox/build"
	"glassbox/cgroup"
	"glassbox/host"
	"glassbox/plan"
)

// planner makes the plan of a RUN as far as it is known before it runs: what is not known stands under names that say so.
type planner struct{ *planExecutor }

// newPlanner plans for root on this host, whoever asks.
func newPlanner(p place) (*planner, error) {
	facts, err := host.Probe()
	if err != nil {
		return nil, err
	}
	if facts.UID != 0 {
		facts.UID, facts.GID, facts.Caps = 0, 0, 1<<(facts.LastCap+1)-1
	}
	return &planner{&planExecutor{place: p, facts: facts}}, nil
}

// unknownID is the ID of a RUN that doesn't run: the same for all, so that the plans of two explanations can be compared.
const unknownID = "0000000000000000000000000"

func (p *planner) run(ctx context.Context, op *pb.ExecOp, inputs []int) (*build.Run, error) {
	m := op.Meta
	r := &build.Run{
		Args: m.Args, Env: m.Env, Cwd: m.Cwd, User: m.User,
		Network:  map[pb.NetMode]string{pb.NetMode_UNSET: "bridge", pb.NetMode_HOST: "host", pb.NetMode_NONE: "none"}[op.Network],
		Security: strings.ToLower(op.Security.String()),
	}
	var mounts []executor.Mount
	for _, mnt := range op.Mounts {
		if mnt.Dest == "/" {
			continue
		}
		shown, source := p.mount(mnt, inputs)
		r.Mounts = append(r.Mounts, shown)
		mounts = append(mounts, executor.Mount{Src: source, Dest: mnt.Dest, Readonly: mnt.Readonly})
	}
	for _, secret := range op.Secretenv {
		r.Mounts = append(r.Mounts, build.Mount{Type: "secret", Variable: secret.Name, ID: secret.ID})
	}
	meta := executor.Meta{
		Args: m.Args, Env: m.Env, Cwd: m.Cwd, User: m.User, Hostname: m.Hostname, Ulimit: m.Ulimit, CgroupParent: m.CgroupParent,
		NetMode: op.Network, SecurityMode: op.Security,
	}
	var err error
	r.Plan, err = p.plan(ctx, &meta, mounts)
	return r, err
}

// plan compiles a RUN over a root that isn't there yet.
func (p *planner) plan(ctx context.Context, meta *executor.Meta, mounts []executor.Mount) (*plan.Plan, error) {
	dir := path.Join(p.roots(), unknownID)
	uid, err := strconv.ParseUint(meta.User, 10, 32)
	if err != nil {
		uid = 0 // a name is looked up in the step's own /etc/passwd
	}
	s, cleanup, err := bkoci.GenerateSpec(ctx, *meta, mounts, unknownID, path.Join(dir, "resolv.conf"), path.Join(dir, "hosts"),
		netNamespace(meta.NetMode), "", bkoci.ProcessSandbox, nil, "", false, "", nil, bkoci.WithUIDGID(uint32(uid), uint32(uid), nil))
	if err != nil {
		return nil, err
	}
	defer cleanup()
	s.Root.Path = path.Join(dir, "rootfs")
	if !slices.ContainsFunc(s.Process.Env, func(v string) bool { return strings.HasPrefix(v, "HOME=") }) {
		s.Process.Env = append(s.Process.Env, "HOME=home-of-the-user") // which stands in the step's own /etc/passwd, too
	}
	if s.Linux.CgroupsPath, err = cgroup.ParentPath(meta.CgroupParent, unknownID); err != nil {
		return nil, err
	}
	if s.Linux.Resources == nil {
		s.Linux.Resources = &specs.LinuxResources{}
	}
	s.Linux.Resources.Devices = append(s.Linux.Resources.Devices, cgroup.DefaultDevices()...)
	w, err := p.wire(unknownID, meta, false)
	if err != nil {
		return nil, err
	}
	out, err := p.compile(s, w.Steps)
	if err != nil {
		return nil, err
	}
	return out.Plan, nil
}

// mount is a mount as it is shown, and a source for it that isn't there.
func (p *planner) mount(m *pb.Mount, inputs []int) (build.Mount, executor.Mountable) {
	out := build.Mount{Type: strings.ToLower(m.MountType.String()), Target: m.Dest, ReadOnly: m.Readonly}
	source := path.Join(p.dir(), "snapshots", out.Type)
	switch m.MountType {
	case pb.MountType_CACHE:
		out.ID = m.CacheOpt.GetID()
		source = path.Join(p.dir(), "cache", strings.ReplaceAll(out.ID, "/", "_"))
	case pb.MountType_SECRET:
		out.ID = m.SecretOpt.GetID()
	case pb.MountType_SSH:
		out.ID = m.SSHOpt.GetID()
	case pb.MountType_TMPFS:
		return out, unmade{mount.Mount{Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid"}}}
	default:
		if m.Input >= 0 && int(m.Input) < len(inputs) {
			out.From = inputs[m.Input]
		}
		source = path.Join(p.dir(), "snapshots", fmt.Sprintf("of-step-%d", out.From), m.Selector)
	}
	options := []string{"rbind"}
	if m.Readonly {
		options = append(options, "ro")
	}
	return out, unmade{mount.Mount{Type: "bind", Source: source, Options: options}}
}

// unmade is a mount of something that isn't there.
type unmade struct{ m mount.Mount }

// Mount is the first half of a mount.
func (u unmade) Mount(context.Context, bool) (executor.MountableRef, error) {
	return unmadeRef(u), nil
}

type unmadeRef struct{ m mount.Mount }

func (u unmadeRef) Mount() ([]mount.Mount, func() error, error) {
	return []mount.Mount{u.m}, func() error { return nil }, nil
}

func (u unmadeRef) IdentityMapping() *user.IdentityMapping { return nil }
