package docker

import (
	"fmt"
	"net/netip"
	"os"
	"path"
	"strconv"
	"strings"
	"time"

	"glassbox/cgroup"
	"glassbox/container"
	"glassbox/plan"
	"glassbox/spec"
	"glassbox/supervise"
)

// Details is all that is known of a container.
type Details struct {
	Container *container.Container
	State     *supervise.State
	Stats     *cgroup.Stats // nil: none are known
	Job       *supervise.Job
	Plan      *plan.Plan             // of the last start; nil: it never started
	Dir       string                 // the container's directory
	Lower     []string               // directories of the image's layers, top first
	Health    *supervise.HealthState // nil: nobody asks how it is
	// NetworkIDs are the IDs of networks, by name.
	NetworkIDs map[string]string
}

// Inspect describes a container.
func Inspect(d Details) *Container {
	c, s, o := d.Container, d.State, &d.Container.Config
	out := &Container{
		ID: c.ID, Created: Stamp(c.Created), Args: []string{}, Image: c.ImageID, Name: "/" + c.Name, Driver: "overlay", Platform: "linux",
		ResolvConfPath: path.Join(d.Dir, "resolv.conf"), HostnamePath: path.Join(d.Dir, "hostname"), HostsPath: path.Join(d.Dir, "hosts"),
		LogPath: logPath(d), AppArmorProfile: o.Security.AppArmor, HostConfig: hostConfig(o),
		GraphDriver: graph(d), Mounts: mounts(c, d.Dir), Config: config(c), NetworkSettings: networkSettings(d),
		Glassbox: Extras{Directory: d.Dir, Egress: o.Egress, Ingress: o.Ingress},
	}
	if r := o.Rates; r != (container.Rates{}) {
		out.Glassbox.Rates = &Rates{r.In, r.Out, r.Burst}
	}
	if argv := c.Args(); len(argv) > 0 {
		out.Path, out.Args = argv[0], append(out.Args, argv[1:]...)
	}
	live := s.Status == supervise.Running || s.Status == supervise.Paused
	restarting := s.Status == supervise.Restarting // which counts as running, as with Docker
	out.RestartCount = s.Restarts
	out.State = State{
		Status: s.Status, Running: live || restarting, Paused: s.Status == supervise.Paused, Restarting: restarting,
		Health: health(d.Health), OOMKilled: s.OOMKilled, Pid: s.PID, ExitCode: s.ExitCode,
		Error: s.Error, StartedAt: Stamp(s.Started), FinishedAt: Stamp(s.Finished), Stats: d.Stats,
	}
	if d.Stats != nil && live && d.Stats.Memory.OOMKills > 0 {
		out.State.OOMKilled = true
	}
	if d.Job != nil {
		out.Glassbox.Cgroups = d.Job.Cgroups
	}
	if d.Plan != nil {
		out.Glassbox.Steps = len(d.Plan.Steps)
		if hash, err := d.Plan.Hash(); err == nil {
			out.Glassbox.PlanHash = hash
		}
		for _, step := range d.Plan.Steps {
			switch op := step.Op.(type) {
			case *plan.Sethostname:
				out.Config.Hostname = op.Name // the host's, with its network
			case *plan.NftWall:
				out.Glassbox.Egress, out.Glassbox.Ingress = op.Egress, op.Ingress // of its network, where it has none of its own
			}
		}
	}
	return out
}

// health is what the checks of a container have said.
func health(h *supervise.HealthState) *Health {
	if h == nil {
		return nil
	}
	out := &Health{Status: h.Status, FailingStreak: h.Streak, Log: []HealthResult{}}
	for _, r := range h.Log {
		out.Log = append(out.Log, HealthResult{r.Start, r.End, r.ExitCode, r.Output})
	}
	return out
}

// logPath is the file whose format others know; as with Docker none for the other drivers.
func logPath(d Details) string {
	if d.Container.Config.Log.DriverName() != container.JSONFile {
		return ""
	}
	return path.Join(d.Dir, supervise.LogFile)
}

func graph(d Details) GraphDriver {
	data := map[string]string{
		"UpperDir": path.Join(d.Dir, "upper"), "WorkDir": path.Join(d.Dir, "work"), "MergedDir": path.Join(d.Dir, "merged"),
	}
	if len(d.Lower) > 0 {
		data["LowerDir"] = strings.Join(d.Lower, ":")
	}
	return GraphDriver{Name: "overlay", Data: data}
}

func config(c *container.Container) Config {
	o := &c.Config
	out := Config{
		Hostname: c.Hostname(), Domainname: o.Domainname, User: c.User(), AttachStdin: o.OpenStdin && !o.Detach, AttachStdout: !o.Detach,
		AttachStderr: !o.Detach, Tty: o.TTY, OpenStdin: o.OpenStdin, StdinOnce: o.OpenStdin && !o.Detach, Env: c.AskedEnv(), Cmd: c.Cmd(),
		Image: c.ImageName(), WorkingDir: c.Workdir(), Entrypoint: c.Entrypoint(), Labels: c.Labels(), StopSignal: c.AskedSignal(),
		StopTimeout: o.StopTimeout,
	}
	if h := c.Asked(); !h.IsZero() {
		check := Healthcheck(h)
		out.Healthcheck = &check
	}
	set := func(m *map[string]struct{}, key string) {
		if *m == nil {
			*m = map[string]struct{}{}
		}
		(*m)[key] = struct{}{}
	}
	if c.Image != nil {
		for _, v := range c.Image.Volumes {
			set(&out.Volumes, v)
		}
	}
	for _, p := range c.Exposed() {
		set(&out.ExposedPorts, p)
	}
	for _, m := range o.Mounts {
		if m.Anonymous() && m.Form == container.FormVolume {
			set(&out.Volumes, m.Target)
		}
	}
	for _, p := range o.Ports {
		set(&out.ExposedPorts, p.Key())
	}
	return out
}

func hostConfig(o *container.Config) HostConfig {
	l := &o.Limits
	oom := l.OOMDisable
	out := HostConfig{
		ContainerIDFile: o.CIDFile, Annotations: o.Annotations, LogConfig: LogConfig{o.Log.DriverName(), o.Log.Asked()},
		NetworkMode: o.Network(), PortBindings: bindings(o), RestartPolicy: RestartPolicy{o.Restart.Name(), o.Restart.Max}, AutoRemove: o.Remove,
		ConsoleSize: [2]uint{uint(o.ConsoleSize[0]), uint(o.ConsoleSize[1])}, CapAdd: o.CapAdd, CapDrop: o.CapDrop,
		CgroupnsMode: first(string(o.Namespaces.Cgroup), "private"), DNS: o.DNS.Servers, DNSOptions: o.DNS.Options, DNSSearch: o.DNS.Search,
		GroupAdd: o.Groups, IpcMode: first(string(o.Namespaces.IPC), "private"), OomScoreAdj: l.OOMScoreAdj, PidMode: string(o.Namespaces.PID),
		Privileged: o.Privileged, PublishAllPorts: o.PublishAll, ReadonlyRootfs: o.ReadOnly, SecurityOpt: o.Security.WireOptions(),
		UTSMode: string(o.Namespaces.UTS), ShmSize: o.ShmSize, StorageOpt: o.StorageOpt, Runtime: Runtime,
		CPUShares: l.CPUShares, Memory: l.Memory, NanoCPUs: l.NanoCPUs, CgroupParent: l.CgroupParent, BlkioWeight: l.BlkioWeight,
		BlkioDeviceReadBps: throttles(l.ReadBps), BlkioDeviceWriteBps: throttles(l.WriteBps), BlkioDeviceReadIOps: throttles(l.ReadIOps),
		BlkioDeviceWriteIOps: throttles(l.WriteIOps), CPUPeriod: l.CPUPeriod, CPUQuota: l.CPUQuota,
		CPURealtimePeriod: l.CPURTPeriod, CPURealtimeRuntime: l.CPURTRuntime, CpusetCpus: l.CpusetCPUs,
		CpusetMems:        l.CpusetMems,
		MemoryReservation: l.Reservation, MemorySwap: l.MemorySwap, MemorySwappiness: l.Swappiness, OomKillDisable: &oom, PidsLimit: pids(l.Pids),
		MaskedPaths: spec.MaskedPaths(o), ReadonlyPaths: spec.ReadonlyPaths(o),
	}
	for _, w := range l.BlkioWeights {
		out.BlkioWeightDevice = append(out.BlkioWeightDevice, WeightDevice{w.Device, uint16(w.Rate)})
	}
	if out.ShmSize == 0 {
		out.ShmSize = spec.DefaultShmSize
	}
	if l.Memory > 0 && l.MemorySwap == 0 {
		out.MemorySwap = 2 * l.Memory
	}
	if o.Init {
		out.Init = &o.Init
	}
	emptyLists(&out)
	for _, h := range o.Hosts {
		out.ExtraHosts = append(out.ExtraHosts, h.Name+":"+h.IP)
	}
	for _, d := range o.Devices {
		out.Devices = append(out.Devices, DeviceMapping{d.Host, d.Inside, d.Access})
	}
	for _, r := range o.Requests {
		out.DeviceRequests = append(out.DeviceRequests, deviceRequest(r))
	}
	for _, r := range o.Rules {
		out.DeviceCgroupRules = append(out.DeviceCgroupRules, r.Words())
	}
	for _, u := range l.Ulimits {
		out.Ulimits = append(out.Ulimits, Ulimit{u.Name, int64(u.Hard), int64(u.Soft)}) // no limit is -1 in two's complement
	}
	for _, s := range o.Sysctls {
		if out.Sysctls == nil {
			out.Sysctls = map[string]string{}
		}
		out.Sysctls[s.Key] = s.Value
	}
	askedMounts(o, &out)
	return out
}

// deviceRequest is a request in Docker's words.
func deviceRequest(r container.DeviceRequest) DeviceRequest {
	if !r.GPU {
		return DeviceRequest{Driver: "cdi", DeviceIDs: r.Names}
	}
	return DeviceRequest{
		Driver: r.Vendor, Count: r.Count, DeviceIDs: r.Names, Capabilities: [][]string{{"gpu"}}, Options: map[string]string{},
	}
}

// emptyLists makes empty lists of those that are null nowhere in the answers of a Docker whose command line made the container.
func emptyLists(h *HostConfig) {
	for _, l := range []*[]string{&h.DNS, &h.DNSOptions, &h.DNSSearch} {
		*l = append([]string{}, *l...)
	}
	for _, l := range []*[]ThrottleDevice{&h.BlkioDeviceReadBps, &h.BlkioDeviceWriteBps, &h.BlkioDeviceReadIOps, &h.BlkioDeviceWriteIOps} {
		*l = append([]ThrottleDevice{}, *l...)
	}
	h.BlkioWeightDevice = append([]WeightDevice{}, h.BlkioWeightDevice...)
	h.Devices, h.Ulimits = []DeviceMapping{}, []Ulimit{}
}

// askedMounts puts each mount where Docker has those of its flag: -v in Binds, --tmpfs in Tmpfs, --mount in Mounts.
func askedMounts(o *container.Config, out *HostConfig) {
	out.VolumesFrom, out.VolumeDriver = o.VolumesFrom, o.VolumeDriver
	for _, m := range o.Mounts {
		switch m.Form {
		case container.FormVolume:
			if m.Anonymous() { // Config.Volumes has it
				continue
			}
			out.Binds = append(out.Binds, m.Volume())
		case container.FormTmpfs:
			if out.Tmpfs == nil {
				out.Tmpfs = map[string]string{}
			}
			out.Tmpfs[m.Target] = strings.Join(m.Options, ",")
		case container.FormMount:
			w := Mount{Type: string(m.Type), Source: m.Source, Target: m.Target, ReadOnly: m.ReadOnly}
			b := BindOptions{
				Propagation: m.Propagation, NonRecursive: m.Recursive == container.RecursiveDisabled,
				ReadOnlyNonRecursive:   m.Recursive == container.RecursiveWritable,
				ReadOnlyForceRecursive: m.Recursive == container.RecursiveReadOnly, CreateMountpoint: m.MakeSource,
			}
			if b != (BindOptions{}) {
				w.BindOptions = &b
			}
			v := VolumeOptions{NoCopy: m.NoCopy, Labels: m.Labels, Subpath: m.Subpath}
			if m.Driver != "" || m.DriverOptions != nil {
				v.DriverConfig = &Driver{m.Driver, m.DriverOptions}
			}
			switch {
			case m.Type == container.Volume && (v.NoCopy || v.Labels != nil || v.Subpath != "" || v.DriverConfig != nil):
				w.VolumeOptions = &v
			case m.Type == container.Layers && m.Subpath != "":
				w.ImageOptions = &ImageOptions{m.Subpath}
			}
			if t := tmpfsOptions(m.Options); m.Type == container.Tmpfs && t != (TmpfsOptions{}) {
				w.TmpfsOptions = &t
			}
			out.Mounts = append(out.Mounts, w)
		}
	}
}

// tmpfsOptions reads back what container.ParseMount wrote.
func tmpfsOptions(options []string) TmpfsOptions {
	var t TmpfsOptions
	for _, opt := range options {
		key, value, _ := strings.Cut(opt, "=")
		switch key {
		case "size":
			t.SizeBytes, _ = strconv.ParseInt(value, 10, 64)
		case "mode":
			n, _ := strconv.ParseUint(value, 8, 12)
			mode := os.FileMode(n & 0o777)
			for bit, flag := range map[uint64]os.FileMode{0o4000: os.ModeSetuid, 0o2000: os.ModeSetgid, 0o1000: os.ModeSticky} {
				if n&bit != 0 {
					mode |= flag
				}
			}
			t.Mode = uint32(mode)
		}
	}
	return t
}

func throttles(list []container.Throttle) []ThrottleDevice {
	var out []ThrottleDevice
	for _, t := range list {
		out = append(out, ThrottleDevice{t.Device, t.Rate})
	}
	return out
}

// bindings are the ports that were asked for, by the port inside.
func bindings(o *container.Config) map[string][]PortBinding {
	out := map[string][]PortBinding{}
	for _, p := range o.Ports {
		out[p.Key()] = append(out[p.Key()], PortBinding{hostIP(p), p.HostWords()})
	}
	return out
}

// hostIP is "" for every address, as with Docker.
func hostIP(p container.Port) string {
	if p.HostIP.IsValid() {
		return p.HostIP.String()
	}
	return ""
}

// networkSettings reads addresses, gateways and ports from the plan that ran.
func networkSettings(d Details) NetworkSettings {
	out := NetworkSettings{SandboxID: d.Container.ID, Ports: map[string][]PortBinding{}, Networks: endpoints(d.Container, d.NetworkIDs)}
	live := d.State.Status == supervise.Running || d.State.Status == supervise.Paused
	if d.Plan == nil || !live {
		return out
	}
	if d.State.PID != 0 {
		out.SandboxKey = fmt.Sprintf("/proc/%d/ns/net", d.State.PID)
	}
	// The steps of one network follow each other, the networks in the order in which they were asked for: bridge, cable, address.
	var order []*Endpoint
	for _, e := range configured(d.Container) {
		order = append(order, out.Networks[e.Network])
	}
	ep, gateway, gateway6 := &Endpoint{}, "", ""
	byLink := map[string]*Endpoint{}
	for _, step := range d.Plan.Steps {
		switch op := step.Op.(type) {
		case *plan.LinkBridge:
			gateway, _, _ = strings.Cut(op.Address, "/")
			gateway6, _, _ = strings.Cut(op.Address6, "/")
			out.Bridge = first(out.Bridge, op.Name)
		case *plan.LinkVeth:
			if len(order) > 0 {
				ep, order = order[0], order[1:]
			}
			ep.MacAddress, ep.EndpointID, ep.Gateway, ep.IPv6Gateway = op.MAC, op.Name, gateway, gateway6
			byLink[op.Peer] = ep
		case *plan.LinkMacvlan:
			if len(order) > 0 {
				ep, order = order[0], order[1:]
			}
			ep.MacAddress, ep.EndpointID = op.MAC, op.Name
			byLink[op.Name] = ep
		case *plan.RouteDefault:
			if at := byLink[op.Link]; at != nil && at.Gateway == "" && !strings.Contains(op.Via, ":") {
				at.Gateway = op.Via
			}
		case *plan.LinkAddress:
			ip, bits, ok := strings.Cut(op.Address, "/")
			if at := byLink[op.Link]; ok && at != nil {
				n, _ := strconv.Atoi(bits)
				switch a, _ := netip.ParseAddr(ip); {
				case a.IsLinkLocalUnicast():
				case a.Is6():
					at.GlobalIPv6Address, at.GlobalIPv6PrefixLen = ip, n
				default:
					at.IPAddress, at.IPPrefixLen = ip, n
				}
			}
		case *plan.NameAdd:
			ep.DNSNames = op.Names
		case *plan.NftPublish:
			out.publish(op.Ports)
		case *plan.PortCarry:
			out.publish(op.Ports)
		}
	}
	if ep := out.Networks["bridge"]; ep != nil { // what clients of old versions read is that of the default network
		out.EndpointID, out.Gateway, out.IPAddress, out.IPPrefixLen, out.MacAddress = ep.EndpointID, ep.Gateway, ep.IPAddress, ep.IPPrefixLen,
			ep.MacAddress
	}
	return out
}

// publish adds published ports.
func (n *NetworkSettings) publish(rules []plan.PortRule) {
	for _, r := range rules {
		key := fmt.Sprintf("%d/%s", r.ContainerPort, r.Proto)
		n.Ports[key] = append(n.Ports[key], PortBinding{anyAddress(r), strconv.Itoa(int(r.HostPort))})
	}
}

// anyAddress is the host's address of a published port; where it is each of them, as Docker says it.
func anyAddress(r plan.PortRule) string {
	if strings.Contains(r.ContainerIP, ":") {
		return first(r.HostIP, "::")
	}
	return first(r.HostIP, "0.0.0.0")
}

// configured are a container's endpoints; one on the default network where nothing was said. None where it shares another's network.
func configured(c *container.Container) []container.Endpoint {
	if container.Mode(c.Network()).Container() != "" {
		return nil
	}
	return c.Config.Networks()
}

// endpoints are a container's networks, as far as they were asked for. ids are the networks' by name.
func endpoints(c *container.Container, ids map[string]string) map[string]*Endpoint {
	out := map[string]*Endpoint{}
	for _, e := range configured(c) {
		at := &Endpoint{
			NetworkID: first(ids[e.Network], e.Network), Aliases: e.Aliases, Links: e.Links, GwPriority: e.Priority,
			DriverOpts: e.Options,
		}
		if e.IP != "" || e.IP6 != "" || len(e.LinkLocal) > 0 {
			at.IPAMConfig = &IPAMConfig{IPv4Address: e.IP, IPv6Address: e.IP6, LinkLocalIPs: e.LinkLocal}
		}
		out[e.Network] = at
	}
	return out
}

// pids is a limit of processes: Docker shows one that was let go as 0.
func pids(limit *int64) *int64 {
	if limit == nil || *limit > 0 {
		return limit
	}
	return new(int64)
}

// Summarize describes a container in a list. Ports are those that are published, or nil; dir is the
// container's directory, health what its checks say, or nil, networks the IDs of networks by name.
func Summarize(
	c *container.Container, s *supervise.State, ports []plan.PortRule, dir string, health *supervise.HealthState,
	networks map[string]string, now time.Time,
) Summary {
	out := Summary{
		ID: c.ID, Names: []string{"/" + c.Name}, Image: c.ImageName(), ImageID: c.ImageID, Command: Quoted(c.Args()), Created: c.Created.Unix(),
		Ports: PortRules(ports), Labels: c.Labels(), State: s.Status, Status: Status(s, health, now),
		HostConfig:      SummaryHostConfig{c.Network(), c.Config.Annotations},
		NetworkSettings: SummaryNetworks{endpoints(c, networks)}, Mounts: mounts(c, dir),
	}
	return out
}
