package engine

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"path"
	"path/filepath"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"time"

	"glassbox/container"
	"glassbox/event"
	"glassbox/host"
	"glassbox/network"
	"glassbox/plan"
	"glassbox/state"
	"glassbox/supervise"
)

// replayFile holds the plan that a container runs, and no other, in its directory.
const replayFile = "replay.json"

// CreateFixed makes a container that runs a given plan and nothing else. The plan may come from anywhere: it is refused unless each of
// its steps is one that this engine could have written for this host (see vet). What it may then reach is what
// `explain --policy` says of it. Of the options only what is no step counts: name, labels, terminal, input, removal.
func (e *Engine) CreateFixed(ctx context.Context, p *plan.Plan, o CreateOptions) (*container.Container, error) {
	if err := e.refresh(ctx); err != nil {
		return nil, err
	}
	facts, err := e.Facts(ctx)
	if err != nil {
		return nil, err
	}
	if facts.UID != 0 {
		return nil, unsupported("running containers as an ordinary user is not supported yet: use sudo (explain works without)")
	}
	v := vet{e: e, facts: facts, plan: p, find: e.networks().Open}
	if err := v.check(); err != nil {
		return nil, invalid("the plan is refused: %w", err)
	}
	if o.Name != "" && !validName(o.Name) {
		return nil, invalid("invalid container name (%s), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed", o.Name)
	}
	o.TTY = v.terminal
	o.Command = v.argv
	o.Endpoints = []container.Endpoint{{Network: v.network}}
	c := &container.Container{
		Version: container.Version, ID: v.id, Name: o.Name, Created: time.Now().UTC(), Config: o.Config, Fixed: true,
	}
	if o.Image != "" {
		if img, err := e.images.Resolve(o.Image); err == nil {
			c.ImageID = img.ID
			c.Image, _ = imageWords(img, false)
		}
	}
	// The plan's steps name the directories of its container's id: it can't be moved to another one.
	if _, err := os.Lstat(e.dir(c.ID)); err == nil {
		return nil, conflict("there is a container of this plan already (%s): a plan names its directories, so it can run once at a time; "+
			"remove that container first (glassbox rm %s)", c.ID[:12], c.ID[:12])
	}
	lock, _, err := state.Lock(e.lockFile(c.ID), true)
	if err != nil {
		return nil, err
	}
	defer state.Unlock(lock, e.lockFile(c.ID))
	err = e.write(c)
	if err == nil {
		err = state.WriteJSONSync(filepath.Join(e.dir(c.ID), replayFile), p)
	}
	if err == nil {
		err = e.keep(c, o.Starts)
	}
	if err != nil {
		supervise.RemoveFiles(e.dir(c.ID), e.nameFileOf(c.ID), e.cfg.State, true)
		return nil, err
	}
	e.happened(c, event.Create)
	return c, nil
}

// Refused says why a plan from elsewhere would not be run here, in the words of CreateFixed; "" if it would.
func (e *Engine) Refused(ctx context.Context, p *plan.Plan) (string, error) {
	facts, err := e.rootFacts(ctx)
	if err != nil {
		return "", err
	}
	v := vet{e: e, facts: facts, plan: p, find: e.networks().Likely} // nothing is made
	if err := v.check(); err != nil {
		return err.Error(), nil
	}
	return "", nil
}

// fixedJob is job for a container with a plan of its own.
func (e *Engine) fixedJob(ctx context.Context, c *container.Container, o StartOptions) (*supervise.Job, error) {
	dir := e.dir(c.ID)
	p, err := ReadPlanFile(filepath.Join(dir, replayFile))
	if err != nil {
		return nil, err
	}
	facts, err := e.Facts(ctx)
	if err != nil {
		return nil, err
	}
	v := vet{e: e, facts: facts, plan: p, find: e.networks().Open} // again: the host may have changed since
	if err := v.check(); err != nil {
		return nil, invalid("the plan is refused: %w", err)
	}
	job := &supervise.Job{
		State: e.cfg.State, Actor: actor(c),
		ID: c.ID, Dir: dir, NameFile: e.nameFile(c.Name), LockFile: e.lockFile(c.ID), Terminal: v.terminal, Interactive: c.Config.OpenStdin,
		Detached: !o.Attach, DetachKeys: o.DetachKeys, Remove: c.Config.Remove, Cgroups: v.cgroups(), Namespaces: p.Namespaces(),
		Process: processOf(v.process(), p),
		Undo:    p.Undo(len(p.Steps)), Plan: p,
	}
	job.Log = logOf(c)
	withLife(job, c)
	if err := e.writeCheck(c, job, facts); err != nil {
		return nil, err
	}
	if v.address.IsValid() {
		// The cable's name is the plan's, and may have been that of another address.
		if err := e.networks().Sweep(v.bridge); err != nil {
			return nil, err
		}
		ip, err := e.networks().Lease(v.bridge, c.ID, v.address.Addr())
		if err != nil {
			return nil, fmt.Errorf("the plan's address %s: %w", v.address.Addr(), err)
		}
		job.Network = &supervise.Network{
			State: e.networks().State, Ports: v.ports, Leases: []supervise.Lease{{Network: v.bridge.Name, Address: ip.String()}},
		}
	}
	files, err := e.fixedFiles(c, &v)
	for name, data := range files {
		// Checked again here although create did: the plan's file lies in a directory that root can write, and the host
		// has changed since.
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, name), data, 0o644)
		}
	}
	if err != nil {
		if v.address.IsValid() {
			_ = e.networks().Release(v.bridge.Name, v.address.Addr(), c.ID)
		}
		return nil, err
	}
	os.Remove(e.pausedFile(c.ID))
	if v.volatile {
		os.RemoveAll(filepath.Join(dir, "work", "work"))
	}
	return job, nil
}

// fixedFiles are the files that tell the container who it is. They are no steps: a plan only says where they are mounted.
func (e *Engine) fixedFiles(c *container.Container, v *vet) (map[string][]byte, error) {
	f := network.Files{
		HostNetwork: v.network == "host", Gateway: v.bridge.IPv4().Gateway, Hostname: v.hostname,
		Domainname: c.Config.Domainname, Resolver: c.Config.DNS, Hosts: c.Config.Hosts,
	}
	if ip := v.address.Addr(); ip.IsValid() {
		f.IPs = append(f.IPs, ip)
	}
	hosts, resolv, err := f.Write()
	if err != nil {
		return nil, invalid("%w", err)
	}
	return map[string][]byte{"hostname": []byte(v.hostname + "\n"), "hosts": hosts, "resolv.conf": resolv}, nil
}

// vet checks a plan from elsewhere. It goes by what is allowed: a kind of step that isn't named here is refused.
type vet struct {
	e     *Engine
	facts *host.Facts
	plan  *plan.Plan
	find  func(name string) (network.Network, error)

	id       string
	argv     []string
	hostname string
	terminal bool
	volatile bool
	network  string
	bridge   network.Network
	address  netip.Prefix
	ports    []plan.PortRule
	made     map[string]bool // cgroups
	fresh    []string        // namespaces
	pivoted  bool
	closed   bool
}

func (v *vet) check() error {
	p := v.plan
	if err := p.Validate(); err != nil {
		return err
	}
	if p.Arch != runtime.GOARCH {
		return fmt.Errorf("/arch: it is for %s, this machine is %s: system calls have other numbers there", p.Arch, runtime.GOARCH)
	}
	if err := v.identify(); err != nil {
		return err
	}
	v.made = map[string]bool{}
	for i, s := range p.Steps {
		if err := v.step(s); err != nil {
			return fmt.Errorf("step %d/%d %s (%s): %w", i+1, len(p.Steps), s.Op.Kind(), s.Op, err)
		}
	}
	switch {
	case !slices.Contains(v.fresh, "mount"):
		return fmt.Errorf("it makes no mount namespace: its mounts would be the host's")
	case !v.pivoted:
		return fmt.Errorf("it has no pivot_root: its program would run in the host's file system")
	case !v.closed:
		return fmt.Errorf("it has no close_range from 3 on before its program: descriptors of the host would leak into the container")
	}
	if err := v.outcome(); err != nil {
		return err
	}
	return v.wires()
}

// identify finds the container's id, which its plan has in the names of its directories.
func (v *vet) identify() error {
	for _, s := range v.plan.Steps {
		if o, ok := s.Op.(*plan.PivotRoot); ok {
			dir := path.Dir(o.Root)
			id := path.Base(dir)
			if o.Root == v.e.dir(id)+"/merged" && len(id) == 64 && strings.Trim(id, "0123456789abcdef") == "" {
				v.id = id
				return nil
			}
			for _, s := range v.plan.Steps { // a plain directory as root has no container in its name, its cgroup has
				if c, ok := s.Op.(*plan.CgroupCreate); ok {
					if id := path.Base(c.Path); len(id) == 64 && strings.Trim(id, "0123456789abcdef") == "" {
						v.id = id
						return nil
					}
				}
			}
			return fmt.Errorf("its root %s is not below %s, where this engine keeps containers: it was made for another --root", o.Root,
				v.e.containers())
		}
	}
	return fmt.Errorf("it has no pivot_root: its program would run in the host's file system")
}

// inCgroups says whether a path is a cgroup, or a file of one, below a hierarchy of this host.
func (v *vet) inCgroups(p string) error {
	if p == path.Clean(p) {
		for _, h := range v.facts.Cgroup.Hierarchies {
			if strings.HasPrefix(p, h.Mount+"/") {
				return nil
			}
		}
	}
	return fmt.Errorf("%s lies outside of this host's cgroup hierarchies", p)
}

func (v *vet) step(s plan.Step) error {
	own := v.e.dir(v.id)
	inside := func() error {
		if !v.pivoted {
			return fmt.Errorf("it comes before pivot_root: it would change the host's files")
		}
		return nil
	}
	switch o := s.Op.(type) {
	case *plan.CgroupCreate:
		if path.Base(o.Path) != v.id {
			return fmt.Errorf("%s is not the container's own cgroup, whose name is its id", o.Path)
		}
		v.made[o.Path] = true
		return v.inCgroups(o.Path)
	case *plan.CgroupWrite:
		dir, file := path.Split(o.File)
		dir = strings.TrimSuffix(dir, "/")
		kind, _, _ := strings.Cut(file, ".")
		above := slices.ContainsFunc(v.plan.Steps, func(s plan.Step) bool {
			c, ok := s.Op.(*plan.CgroupCreate)
			return ok && strings.HasPrefix(c.Path, dir+"/")
		})
		switch {
		case file == "cgroup.subtree_control" && o.Enable && above && strings.Trim(o.Value, "+abcdefghijklmnopqrstuvwxyz_ ") == "":
			return nil
		case !v.made[dir]:
			return fmt.Errorf("%s is no file of a cgroup that the plan makes", o.File)
		case !slices.Contains([]string{
			"memory", "cpu", "cpuacct", "cpuset", "pids", "io", "blkio", "hugetlb", "devices", "rdma", "misc",
			"net_cls", "net_prio",
		}, kind):
			return fmt.Errorf("%s is no limit", file)
		}
		return v.inCgroups(o.File)
	case *plan.CgroupOpen:
		if !v.made[o.Path] && !v.made[path.Dir(o.Path)] {
			return fmt.Errorf("%s is no cgroup that the plan makes", o.Path)
		}
		return nil
	case *plan.DeviceFilter:
		if !v.made[o.Path] {
			return fmt.Errorf("%s is no cgroup that the plan makes", o.Path)
		}
		return nil
	case *plan.OpenTree:
		// Any path may be named; --policy shows it. But it must be what it looks like.
		if o.Path != path.Clean(o.Path) || !path.IsAbs(o.Path) || o.Child || o.Mounts != "" {
			return fmt.Errorf("%q is not a plain absolute path", o.Path)
		}
		if s.Lane != plan.Host {
			return fmt.Errorf("run takes what it mounts from the host before there is a child")
		}
		return nil
	case *plan.Clone:
		if s.Lane != plan.Host {
			return fmt.Errorf("a second child is for runtimes")
		}
		v.fresh = append(v.fresh, o.Namespaces...)
		return nil
	case *plan.Unshare:
		if s.Lane != plan.Child {
			return fmt.Errorf("it would change the supervisor")
		}
		v.fresh = append(v.fresh, o.Namespaces...)
		return nil
	case *plan.IDMap:
		if o.Programs {
			return fmt.Errorf("newuidmap is for ordinary users")
		}
		return nil
	case *plan.Mount:
		target := v.root()
		switch {
		case v.pivoted:
			return fmt.Errorf("it comes after pivot_root")
		case o.Target == "/" && o.Source == "" && !slices.Contains(o.Flags, "shared") &&
			(slices.Contains(o.Flags, "private") || slices.Contains(o.Flags, "slave")):
			return nil
		case slices.Contains(o.Flags, "bind") && o.Target == target && path.IsAbs(o.Source) && path.Clean(o.Source) == o.Source:
			return nil
		}
		return fmt.Errorf("a mount on %s is not the root's", o.Target)
	case *plan.Overlay:
		rel := "containers/" + v.id
		switch {
		case v.pivoted:
			return fmt.Errorf("it comes after pivot_root")
		case o.Dir != v.e.cfg.Root || o.Target != own+"/merged" || o.Upper != rel+"/upper" || o.Work != rel+"/work":
			return fmt.Errorf("its directories are not those of the container %s below %s", v.id[:12], v.e.cfg.Root)
		}
		for _, l := range o.Lower {
			if l != path.Clean(l) || strings.HasPrefix(l, "../") || !path.IsAbs(l) && !strings.HasPrefix(l, "layers/") && l != rel+"/merged" {
				return fmt.Errorf("%q is no layer of an image", l)
			}
		}
		for _, opt := range o.Options {
			if !slices.Contains([]string{"volatile", "userxattr", "metacopy=off"}, opt) {
				return fmt.Errorf("unknown overlay option %q", opt)
			}
			v.volatile = v.volatile || opt == "volatile"
		}
		return nil
	case *plan.PivotRoot:
		if o.Root != v.root() || v.pivoted {
			return fmt.Errorf("%s is not where the root is mounted", o.Root)
		}
		v.pivoted = true
		return nil
	case *plan.FSMount:
		if o.Target == "" && o.Type == "proc" {
			return nil
		}
		if !slices.Contains([]string{"proc", "tmpfs", "devpts", "sysfs", "cgroup", "cgroup2", "mqueue"}, o.Type) {
			return fmt.Errorf("file systems of type %q are none that run makes", o.Type)
		}
		if path.Clean("/"+o.Target) == "/" {
			return fmt.Errorf("it would be mounted on the root itself")
		}
		return inside()
	case *plan.MoveMount:
		if path.Clean("/"+o.Target) == "/" {
			return fmt.Errorf("it would be mounted on the root itself")
		}
		return inside()
	case *plan.Remount, *plan.MaskPath, *plan.ReadonlyPath, *plan.Mkdir, *plan.Mknod, *plan.Symlink, *plan.BindConsole:
		return inside()
	case *plan.OpenConsole:
		v.terminal = true
		return inside()
	case *plan.Sysctl:
		need := ""
		switch {
		case o.Key != path.Clean(o.Key) || strings.HasPrefix(o.Key, ".."):
		case strings.HasPrefix(o.Key, "net/"):
			need = "net"
		case strings.HasPrefix(o.Key, "fs/mqueue/"), slices.Contains([]string{
			"kernel/msgmax", "kernel/msgmnb", "kernel/msgmni", "kernel/sem",
			"kernel/shmall", "kernel/shmmax", "kernel/shmmni", "kernel/shm_rmid_forced",
		}, o.Key):
			need = "ipc"
		case o.Key == "kernel/domainname":
			need = "uts"
		}
		if need == "" || !slices.Contains(v.fresh, need) {
			return fmt.Errorf("it would change the host's setting, not the container's")
		}
		return nil
	case *plan.Sethostname:
		v.hostname = o.Name
		return v.needs("uts")
	case *plan.Setdomainname:
		return v.needs("uts")
	case *plan.WriteProc:
		if s.Lane != plan.Child || o.File != "oom_score_adj" && o.File != "attr/apparmor/exec" {
			return fmt.Errorf("/proc/self/%s is none that run writes", o.File)
		}
		return nil
	case *plan.CloseRange:
		v.closed = o.First == 3
		return nil
	case *plan.Execve:
		v.argv = o.Argv
		return nil
	case *plan.Stdio:
		if o.From != "terminal" && o.From != []string{"stdin", "stdout", "stderr", ""}[max(0, min(o.To, 3))] {
			return fmt.Errorf("descriptor %q is none of the streams", o.From)
		}
		if o.From != "terminal" && o.Null != "/dev/null" {
			return fmt.Errorf("it would give the host's own /dev/null to the container")
		}
		return nil
	case *plan.Keyring:
		if o.Name != "" {
			return fmt.Errorf("a session keyring with a name is shared with all who know it")
		}
		return nil
	case *plan.LinkBridge, *plan.LinkVeth, *plan.LinkAddress, *plan.RouteDefault, *plan.NftBridge, *plan.NftPublish,
		*plan.PortCarry, *plan.WriteFile,
		*plan.FirewallAccept, *plan.NftGuard, *plan.NftWall:
		return nil // see wires
	case *plan.CgroupJoin, *plan.Affinity, *plan.Release, *plan.Await, *plan.Notify, *plan.Expect, *plan.Rlimit, *plan.Umask, *plan.SendFD,
		*plan.RecvFD,
		*plan.Setsid, *plan.ParentDeath, *plan.Dumpable, *plan.NoNewPrivs, *plan.Seccomp, *plan.DropBounding, *plan.KeepCaps, *plan.Setgroups,
		*plan.Setresgid,
		*plan.Setresuid, *plan.Capset, *plan.AmbientCaps, *plan.Chdir:
		return nil // they take away, or concern the child alone
	}
	return fmt.Errorf("run makes no such step, so a plan that has it isn't run (for a bundle there is glassbox-runtime)")
}

func (v *vet) needs(ns string) error {
	if !slices.Contains(v.fresh, ns) {
		return fmt.Errorf("there is no new %s namespace: it would change the host", ns)
	}
	return nil
}

// root is where the plan mounts the root: the container's own directory, or the plain directory that --rootfs named.
func (v *vet) root() string {
	for _, s := range v.plan.Steps {
		if o, ok := s.Op.(*plan.Overlay); ok {
			return o.Target
		}
	}
	return v.e.dir(v.id) + "/merged"
}

// wires compares the network steps with those that this engine would make now for the same address and ports.
func (v *vet) wires() error {
	v.network = "none"
	if !slices.Contains(v.fresh, "net") {
		v.network = "host"
	}
	var have []plan.Op
	var veth *plan.LinkVeth
	for _, s := range v.plan.Steps {
		switch o := s.Op.(type) {
		case *plan.LinkAddress:
			if o.Address != "" {
				prefix, err := netip.ParsePrefix(o.Address)
				if err != nil {
					return fmt.Errorf("address %q: %w", o.Address, err)
				}
				v.address = prefix
			}
			have = append(have, o)
		case *plan.LinkVeth:
			veth = o
			have = append(have, o)
		case *plan.NftPublish:
			v.ports = append(v.ports, o.Ports...)
			have = append(have, o)
		case *plan.PortCarry:
			v.ports = append(v.ports, o.Ports...)
			have = append(have, o)
		case *plan.LinkBridge, *plan.RouteDefault, *plan.NftBridge, *plan.WriteFile, *plan.FirewallAccept,
			*plan.NftGuard, *plan.NftWall:
			have = append(have, o)
		}
	}
	var want []plan.Step
	switch {
	case len(have) == 0:
		return nil
	case v.network == "host":
		return fmt.Errorf("it wires a network, and makes no network namespace")
	case veth == nil:
		want = network.Loopback()
	default:
		v.network = "bridge"
		bridge, err := v.find(network.Bridge)
		if err != nil {
			return err
		}
		v.bridge = bridge
		end := network.Endpoint{
			Network: bridge.Name, Interface: network.InterfaceName(0), Link: network.VethName(v.id, 0), IP: v.address.Addr(), MAC: veth.MAC,
		}
		for _, r := range v.ports {
			p := container.Port{Proto: r.Proto, HostPort: r.HostPort, ContainerPort: r.ContainerPort}
			if r.HostIP != "" {
				if p.HostIP, err = netip.ParseAddr(r.HostIP); err != nil {
					return fmt.Errorf("published port: %w", err)
				}
			}
			end.Ports = append(end.Ports, p)
		}
		if want, err = network.Steps(bridge, end, func(string) string { return "" }); err != nil {
			return err
		}
	}
	for i, s := range want {
		if i < len(have) && reflect.DeepEqual(have[i], s.Op) {
			continue
		}
		got, needed := "nothing", s.Op.String()
		if i < len(have) {
			if got = have[i].String(); got == needed {
				got, needed = firstDifference(have[i], s.Op)
			}
		}
		return fmt.Errorf("its network is not what this host would make now: it has %q where this host needs %q; make the plan again", got,
			needed)
	}
	if len(have) > len(want) {
		return fmt.Errorf("its network has a step too many: %s", have[len(want)])
	}
	return nil
}

// firstDifference returns where two steps begin to differ whose sentences are the same: a line of each one's JSON.
func firstDifference(a, b plan.Op) (string, string) {
	lines := func(op plan.Op) []string {
		text, _ := json.MarshalIndent(op, "", "") // plan.Op is made of texts and numbers only
		return strings.Split(string(text), "\n")
	}
	x, y := lines(a), lines(b)
	for i := range min(len(x), len(y)) {
		if x[i] != y[i] {
			return x[i], y[i]
		}
	}
	return "", ""
}

// cgroups are the container's cgroups by controller.
func (v *vet) cgroups() map[string]string {
	out := map[string]string{}
	for dir := range v.made {
		for _, h := range v.facts.Cgroup.Hierarchies {
			if !strings.HasPrefix(dir, h.Mount+"/") {
				continue
			}
			if h.V2 {
				out[""] = dir
				continue
			}
			for _, c := range h.Controllers {
				out[c] = dir
			}
		}
	}
	return out
}
