package policy

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"

	"glassbox/container"
)

// Real is what the host has at a path.
type Real struct {
	Path string // without symbolic links; empty: there is nothing
	Dir  bool
	File bool // a regular one
	// Inert: it lies on a mount with nosuid and nodev, and so does all that is mounted below it.
	Inert bool
}

// Ask is a container that is asked for, with what the caller knows of it.
type Ask struct {
	Config *container.Config
	Images []string        // the image's names
	Paths  map[string]Real // by source of a bind mount
	// Own says whether a network or volume of that name was made through the socket. A volume that isn't there yet is.
	OwnNetwork, OwnVolume func(name string) bool
	Containers            int // that the socket has already
	CPUs                  int // that the host has; 0: it isn't known
}

// refusals are sentences.
type refusals []string

func (r *refusals) no(format string, a ...any) { *r = append(*r, fmt.Sprintf(format, a...)) }

// Judge says what of a container the policy doesn't allow, a sentence for each; none: it may be made. Limits that weren't asked for are
// filled in.
func (p *Policy) Judge(a Ask) []string {
	var r refusals
	// A copy, of which all that was judged is set to zero below: what is left then is a field that this code has never
	// heard of.
	rest := *a.Config
	if !p.AllowsImage(append([]string{a.Config.Image}, a.Images...)...) {
		r.no("image %s: allowed are %s", a.Config.Image, p.ImagesText())
	}
	if n := p.Limits.Containers; n > 0 && a.Containers >= n {
		r.no("there are %d containers already, as many as there may be", a.Containers)
	}
	p.privileges(a.Config, &r)
	p.mounts(&a, &r)
	p.networks(&a, &r)
	p.limits(a.Config, a.CPUs, &r)
	// What was looked at, or asks nothing of the host.
	rest.Image, rest.Platform, rest.Command, rest.Entrypoint, rest.Workdir, rest.User = "", "", nil, nil, "", ""
	rest.Env, rest.TTY, rest.OpenStdin, rest.Detach, rest.Init, rest.StopSignal, rest.StopTimeout = nil, false, false, false, false, "", nil
	rest.Remove, rest.Labels, rest.Restart, rest.Health, rest.ConsoleSize = false, nil, container.Restart{}, container.Health{}, [2]uint16{}
	rest.Hostname, rest.Domainname, rest.ReadOnly, rest.ShmSize, rest.Expose = "", "", false, 0, nil
	rest.DNS, rest.Hosts, rest.Origins, rest.CapDrop = container.Resolver{}, nil, nil, nil
	rest.CapAdd, rest.Privileged, rest.Devices, rest.Rules, rest.Security = nil, false, nil, nil, container.Security{}
	rest.Requests, rest.StorageOpt = nil, nil // a bound takes nothing
	rest.Namespaces, rest.Sysctls, rest.Groups, rest.Annotations, rest.CIDFile = container.Namespaces{}, nil, nil, nil, ""
	rest.Log, rest.Rootfs, rest.Mounts, rest.VolumesFrom, rest.VolumeDriver = container.Log{}, nil, nil, nil, ""
	rest.Endpoints, rest.Ports, rest.PublishAll, rest.Limits = nil, nil, false, container.Limits{}
	// By its names in JSON, so that a field that is added to a container is refused by old policies until somebody has
	// thought about it.
	for _, field := range left(rest) {
		r.no("%s: policies of this version don't know it", field)
	}
	return r
}

// left names the fields that aren't zero.
func left(c container.Config) []string {
	text, err := json.Marshal(c)
	fields := map[string]json.RawMessage{}
	if err == nil {
		err = json.Unmarshal(text, &fields)
	}
	if err != nil {
		return []string{"the configuration"}
	}
	return slices.Sorted(maps.Keys(fields))
}

func list(words []string) string {
	if len(words) == 0 {
		return "none"
	}
	return strings.Join(words, ", ")
}

func (p *Policy) privileges(c *container.Config, r *refusals) {
	if c.Privileged {
		r.no("--privileged gives away the host")
	}
	for _, name := range c.CapAdd {
		if !slices.Contains(p.Capabilities, name) {
			r.no("--cap-add %s: allowed are %s", name, list(p.Capabilities))
		}
	}
	for _, d := range c.Devices {
		r.no("--device %s: devices of the host are not allowed", d.Host)
	}
	for _, d := range c.Requests {
		r.no("%s: devices of the host are not allowed", cmp.Or(d.Origin, "device requests"))
	}
	for _, d := range c.Rules {
		r.no("--device-cgroup-rule %s: devices are not allowed", d.Words())
	}
	s := c.Security
	if s.Seccomp != "" {
		r.no("--security-opt seccomp=%s: the default filter can't be exchanged", s.Seccomp)
	}
	if s.AppArmor != "" {
		r.no("--security-opt apparmor=%s: the default profile can't be exchanged", s.AppArmor)
	}
	if s.Unmasked {
		r.no("--security-opt systempaths=unconfined shows what is masked")
	}
	if s.Masked != nil || s.ReadOnly != nil {
		r.no("--security-opt masked-paths and readonly-paths: what is hidden and read-only can't be chosen")
	}
	n := c.Namespaces
	if n.New != nil {
		r.no("--ns: which namespaces are new can't be chosen")
	}
	for _, m := range []struct {
		flag string
		mode container.Mode
	}{{"pid", n.PID}, {"ipc", n.IPC}, {"uts", n.UTS}, {"cgroupns", n.Cgroup}} {
		switch m.mode {
		// New ones, or the container's own: --ipc shareable opens a namespace to containers that are themselves judged.
		case "", "private", "none", "shareable":
		default:
			r.no("--%s %s: namespaces of the host and of other containers are not allowed", m.flag, m.mode)
		}
	}
	for _, s := range c.Sysctls {
		r.no("--sysctl %s: settings of the kernel are not allowed", s.Key)
	}
	for _, g := range c.Groups {
		r.no("--group-add %s: further groups are not allowed", g)
	}
	for _, k := range slices.Sorted(maps.Keys(c.Annotations)) {
		r.no("--annotation %s: annotations are not allowed", k)
	}
	if c.CIDFile != "" {
		r.no("--cidfile %s: it is a path of the host", c.CIDFile)
	}
	if d := c.Log.DriverName(); d != container.JSONFile && d != container.Local && d != container.NoLog {
		r.no("--log-driver %s: allowed are %s, %s, %s", d, container.JSONFile, container.Local, container.NoLog)
	}
	if c.Rootfs != nil {
		r.no("--rootfs %s: it is a path of the host", c.Rootfs.Dir)
	}
}

func (p *Policy) mounts(a *Ask, r *refusals) {
	for _, ref := range a.Config.VolumesFrom {
		r.no("--volumes-from %s: mounts of other containers are not allowed", ref)
	}
	if d := a.Config.VolumeDriver; d != "" && d != "local" {
		r.no("--volume-driver %s: allowed is local", d)
	}
	for _, m := range a.Config.Mounts {
		switch m.Type {
		case container.Tmpfs:
		case container.Volume:
			switch {
			case m.Driver != "" && m.Driver != "local" || len(m.DriverOptions) > 0:
				r.no("%s: options of a volume's driver can name any path of the host", asked(m))
			case m.Source != "" && (a.OwnVolume == nil || !a.OwnVolume(m.Source)):
				r.no("%s: volume %s was not made through this socket", asked(m), m.Source)
			}
			if _, set := m.Labels[Label]; set {
				r.no("%s: the label %s is the socket's", asked(m), Label)
			}
		case container.Layers:
			if !p.AllowsImage(m.Source) {
				r.no("%s: image %s: allowed are %s", asked(m), m.Source, p.ImagesText())
			}
		case container.Bind:
			p.bind(a, m, r)
		default:
			r.no("%s: mounts of type %s are not allowed", asked(m), m.Type)
		}
		if m.Relabel != "" || m.IDMap {
			r.no("%s: it would change, or show in another way, whose the files are", asked(m))
		}
	}
}

// asked is a mount in the words in which it was asked for.
func asked(m container.Mount) string {
	if m.Origin != "" {
		return m.Origin
	}
	return "mount " + m.Target
}

// bind judges a path of the host.
func (p *Policy) bind(a *Ask, m container.Mount, r *refusals) {
	real := a.Paths[m.Source]
	switch {
	case real.Path == "":
		r.no("%s: there is no %s on the host", asked(m), m.Source)
		return
	// The link could be turned between now and the mount: what was judged is mounted by its real path (api.permit).
	case real.Path != m.Source:
		r.no("%s: %s leads to %s by symbolic links: give that path itself", asked(m), m.Source, real.Path)
		return
	case !real.Dir && !real.File:
		r.no("%s: it is neither a directory nor a regular file: sockets and devices are not allowed", asked(m))
		return
	}
	// What is mounted inside would appear on the host, or the other way round (mount_namespaces(7)).
	if prop := m.PropagationWord(); prop != "private" && prop != "rprivate" {
		r.no("%s: propagation %s reaches the host", asked(m), prop)
	}
	var whole, below *Path
	for i := range p.Paths {
		switch f := &p.Paths[i]; {
		case f.Path == m.Source:
			whole = f
		case strings.HasPrefix(m.Source, f.Path+"/"):
			if f.Write {
				r.no("%s: below %s, which containers may write to, what is mounted could be exchanged for a link: mount %s itself", asked(m),
					f.Path, f.Path)
				return
			}
			below = f
		}
	}
	switch {
	case whole == nil && below == nil:
		var may []string
		for _, f := range p.Paths {
			may = append(may, f.Path)
		}
		r.no("%s: the host's %s: allowed are %s", asked(m), m.Source, list(may))
	case !m.ReadOnly && (whole == nil || !whole.Write):
		r.no("%s: the host's %s may be read only: add ro", asked(m), m.Source)
	// MOUNT_ATTR_RDONLY without AT_RECURSIVE is of the one mount alone (mount_setattr(2)).
	case m.ReadOnly && m.Recursive == container.RecursiveWritable && (whole == nil || !whole.Write):
		r.no("%s: what is mounted below %s would be writable", asked(m), m.Source)
	case !m.ReadOnly && !real.Inert:
		// To mount it so in the container alone would be of no use: it is on the host that they would be used.
		r.no("%s: a container's root could leave a set-user-ID program or a device in %s, for anybody on the host to use: mount it nosuid,nodev "+
			"there (mount --bind %s %s; mount -o remount,bind,nosuid,nodev %s)", asked(m), m.Source, m.Source, m.Source, m.Source)
	}
}

func (p *Policy) networks(a *Ask, r *refusals) {
	c := a.Config
	for _, e := range c.Networks() {
		switch {
		case container.Mode(e.Network).IsHost():
			r.no("--network host: the host's network is not allowed")
		case container.Mode(e.Network).Container() != "":
			r.no("--network %s: namespaces of other containers are not allowed", e.Network)
		case !slices.Contains(p.Networks, e.Network) && (a.OwnNetwork == nil || !a.OwnNetwork(e.Network)):
			r.no("--network %s: allowed are %s, and those made through this socket", e.Network, list(p.Networks))
		}
		if len(e.Options) > 0 {
			r.no("--network %s: options of its driver are not allowed", e.Network)
		}
	}
	// A list of one's own takes the place of the network's wall.
	for flag, wall := range map[string][]string{"egress": c.Egress, "ingress": c.Ingress} {
		if len(wall) > 0 && !slices.Equal(wall, []string{container.WallDeny}) {
			r.no("--%s %s: it could open more than the network's wall does: only deny is allowed", flag, strings.Join(wall, ","))
		}
	}
	for _, port := range c.Ports {
		// A port without an address is published on all of them, as with Docker.
		host := "0.0.0.0"
		if port.HostIP.IsValid() {
			host = port.HostIP.Unmap().String()
		}
		if !slices.Contains(p.Publish, host) {
			r.no("-p %s: ports may be published on %s", port, list(p.Publish))
		}
	}
	if c.PublishAll && !slices.Contains(p.Publish, "0.0.0.0") {
		r.no("-P publishes on every address: allowed are %s", list(p.Publish))
	}
}

// limits judges limits, and fills in those that aren't there. cpus is how many the host has, or 0.
func (p *Policy) limits(c *container.Config, cpus int, r *refusals) {
	l, most := &c.Limits, p.Limits
	if l.CgroupParent != "" {
		r.no("--cgroup-parent %s: the place of its cgroup can't be chosen", path.Clean(l.CgroupParent))
	}
	if l.OOMDisable {
		r.no("--oom-kill-disable lets it hang the host")
	}
	if l.OOMScoreAdj < 0 {
		r.no("--oom-score-adj %d: others would be killed in its place", l.OOMScoreAdj)
	}
	if l.CPURTPeriod != 0 || l.CPURTRuntime != 0 {
		r.no("--cpu-rt-runtime: realtime is not allowed")
	}
	// Others count what a user of the host has in all (nproc, sigpending, msgqueue), or let it lock memory and get
	// priority (getrlimit(2)).
	for _, u := range l.Ulimits {
		if u.Name != "nofile" && u.Name != "core" {
			r.no("--ulimit %s: allowed are nofile and core", u.Name)
		}
	}
	// Before they are filled in: what was asked for is judged, not what is given.
	p.Most(l, r.no)
	if most.Memory > 0 && l.Memory == 0 {
		l.Memory = most.Memory
	}
	if most.CPUs > 0 && l.NanoCPUs == 0 && l.CPUQuota == 0 {
		l.NanoCPUs = int64(most.CPUs * 1e9)
		if cpus > 0 { // more than there are can't be asked for
			l.NanoCPUs = min(l.NanoCPUs, int64(cpus)*1e9)
		}
	}
	if most.Pids > 0 && (l.Pids == nil || *l.Pids == 0) {
		n := most.Pids
		l.Pids = &n
	}
}

// Most says which of some limits are beyond those of the policy.
func (p *Policy) Most(l *container.Limits, no func(format string, a ...any)) {
	most := p.Limits
	if most.Memory > 0 {
		if l.Memory > most.Memory || l.Memory < 0 {
			no("--memory %d: the most is %d", l.Memory, most.Memory)
		}
		// The sum of memory and swap: twice the memory is what Docker gives when nothing is said.
		if l.MemorySwap < 0 || l.MemorySwap > 2*most.Memory {
			no("--memory-swap %d: the most is %d", l.MemorySwap, 2*most.Memory)
		}
	}
	if most.CPUs > 0 {
		if float64(l.NanoCPUs) > most.CPUs*1e9 {
			no("--cpus %g: the most is %g", float64(l.NanoCPUs)/1e9, most.CPUs)
		}
		// With a quota over a period of its own the number could mean anything: one way to say it is enough.
		if l.CPUQuota != 0 || l.CPUPeriod != 0 {
			no("--cpu-quota, --cpu-period: give --cpus, at most %g", most.CPUs)
		}
	}
	if most.Pids > 0 && l.Pids != nil && (*l.Pids < 0 || *l.Pids > most.Pids) {
		no("--pids-limit %d: the most is %d", *l.Pids, most.Pids)
	}
}

// JudgeUpdate says what the policy doesn't allow of the limits that a container would have after an update. They are judged whole: what is
// asked for can mean nothing by itself, and yet something with what the container has (--memory-swap without --memory).
func (p *Policy) JudgeUpdate(l container.Limits) []string {
	var r refusals
	p.limits(&container.Config{Limits: l}, 0, &r)
	return r
}
