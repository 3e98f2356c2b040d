package explain

import (
	"cmp"
	"fmt"
	"path"
	"slices"
	"strings"

	"glassbox/plan"
)

// OwnKeyring in View.Keyring is a session keyring that is the process's alone.
const OwnKeyring = "its own"

// A View is what a plan amounts to: not the steps but the container that they make. Formats that describe a container in
// somebody else's words, and everything that judges one, read this and not the steps.
type View struct {
	Arch string
	Hash string

	Argv, Env []string
	Cwd       string
	Umask     uint32
	Terminal  bool

	UID, GID uint32
	Groups   []uint32

	Hostname, Domainname string

	Root   Root
	Mounts []Mount
	Masked []string // hidden paths, as far as they are hidden in the end
	Locked []string // paths made read-only, as far as they are so in the end
	walled int      // cables behind a wall that doesn't let everything out
	table  *plan.Table
	// origins of the steps, for what is found in the table.
	origins []string
	Made    []string // directories that the plan makes on the host, where they are missing
	// HostMounts are file systems that the host mounts for the container, at a path of the host.
	HostMounts []Mount
	Copied     []string // files and links that the plan makes in the container, other than devices

	Devices     []Device
	DeviceRules []string // "allow c 1:3 rwm", in order; nil if any device may be used

	New    []string          // namespaces of its own
	Joined map[string]string // namespace → whose: a path of the host
	UIDMap []plan.IDRange    // of its user namespace, as long as it has one
	GIDMap []plan.IDRange

	Cgroups []string // directories, in the order of the plan
	Limits  Limits

	Net      Net
	Sysctls  []string // "net.ipv4.ip_forward=1"
	HostSets []string // settings of the host that the start changes: "/proc/sys/…=1"
	OnHost   []string // other things that the start does to the host, in words
	Spread   string   // the first of its mounts that appears on the host, because what it is mounted on is shared with it
	Rlimits  []plan.Rlimit
	Proc     []string // what it writes about itself: "oom_score_adj=500"

	Bounding, Effective, Permitted, Inheritable, Ambient []string

	NoNewPrivs bool
	Filters    []*plan.Seccomp
	Keyring    string // its session keyring: OwnKeyring, a name that others may know, or "": that of whoever started it

	Tuning []string // how it is scheduled, where its memory is, what uname tells it
	Hooks  []string // programs of the host that its start runs
	FDs    int      // descriptors that it gets from whoever starts it, beside the first three

	Unread []string // steps of kinds that this reading doesn't know
}

// Root is where the root directory comes from.
type Root struct {
	Layers      []string // of an overlay, top first; paths below Dir
	Dir         string
	Upper       string
	Bytes       int64  // what it may have in Upper; 0: what the disk has
	Source      string // a directory of the host that is the root
	Mountpoint  string
	Options     []string
	ReadOnly    bool
	Propagation string
	Pivoted     bool // the host's root is gone
	Chroot      bool // entered by chroot, not by pivot_root
	Origin      string
}

// Mount is a file system in the container.
type Mount struct {
	Target      string
	Type        string // "bind" for a part of the host
	Source      string
	Options     []string // as mount(8) writes them, but for "bind" and "rbind"
	Recursive   bool
	ReadOnly    bool
	Propagation string
	Origin      string
	// BelowWritable says that the host's mounts below it came with it and aren't read-only, as it is itself.
	BelowWritable bool
}

// Device is a device node.
type Device struct {
	Path         string
	Type         string
	Major, Minor uint32
	Mode         uint32
	UID, GID     uint32
	Origin       string
}

// String is "c 1:3", as in rules.
func (d Device) String() string { return fmt.Sprintf("%s %d:%d", d.Type, d.Major, d.Minor) }

// Limits are the cgroup's, nil or "" where there is none. Units are the kernel's.
type Limits struct {
	Memory         *int64   // bytes; -1 is unlimited, here and below
	MemorySwap     *int64   // memory and swap together
	Reservation    *int64   // bytes
	Swappiness     *int64   //
	OOMKillDisable bool     //
	Shares         *int64   // relative weight of processor time, 2 to 262144
	Weight         *int64   // the same on v2, 1 to 10000
	Quota, Period  *int64   // microseconds of processor time per period
	Cpus, Mems     string   // lists of processors and memory nodes
	Pids           *int64   //
	BlkioWeight    *int64   //
	Other          []string // "file=value", as written
}

// Net is the container's network.
type Net struct {
	Mode     string // none, bridge, host (it shares the host's), joined
	Bridge   string
	Gateway  string // of the bridge, as CIDR
	Device   string
	Veth     string // the host's end
	Address  string // CIDR
	Address6 string // CIDR, of IPv6 where it has both
	Via      string
	MAC      string
	MTU      int
	Settings []string // of the device: net/ipv6/conf/eth0/disable_ipv6=1
	Subnet   string
	Table    string
	Rules    []string
	Guarded  bool     // it sends with its own addresses alone
	Beside   []string // chains of other firewalls that it is let through
	Rates    []string // how much its cables carry
	VLANs    []string // links that are made below those, as "eth0.50 (VLAN 50 of eth0)"
	Parents  []string // links of the host that it is on top of, with driver and mode: there the host's firewall isn't asked
	// Who it may talk to, and who to it, as asked for: empty, if there is no wall.
	Egress, Ingress []string
	Ports           []plan.PortRule
	Loopback        bool     // lo is up
	Others          []string // the bridges of its further networks
	Isolated        bool     // it doesn't reach the other containers of its network
	Names           []string // by which others of its networks find it
	Resolver        string   // address at which its supervisor answers questions for names
}

// Read finds out what a plan amounts to. It doesn't judge: a plan that can't run has a view, too.
func Read(p *plan.Plan) *View {
	v := &View{Arch: p.Arch, Joined: map[string]string{}}
	v.Hash, _ = p.Hash()
	r := reader{
		v: v, plan: p, opened: map[string]string{}, recursive: map[string]bool{}, device: map[string]string{}, idMapped: map[string]bool{},
		readonly: map[string]bool{}, dropped: map[string]bool{}, rules: map[string]bool{}, cgroups: joined(p),
	}
	for _, s := range p.Steps {
		if s.Op == nil || !r.step(s) {
			kind := ""
			if s.Op != nil {
				kind = s.Op.Kind()
			}
			v.Unread = append(v.Unread, kind)
		}
	}
	r.outcome()
	for n := range plan.CapCount() {
		if name := plan.CapName(n); !r.dropped[name] {
			v.Bounding = append(v.Bounding, name)
		}
	}
	switch {
	case v.Joined["net"] != "":
		v.Net.Mode = "joined"
	case !slices.Contains(v.New, "net"):
		v.Net.Mode = "host"
	case v.Net.Veth != "":
		v.Net.Mode = "bridge"
	case len(v.Net.Parents) > 0:
		v.Net.Mode = "parent"
	default:
		v.Net.Mode = "none"
	}
	return v
}

// Shares says whether the container has a kind of namespace in common with the host.
func (v *View) Shares(ns string) bool {
	return !slices.Contains(v.New, ns) && v.Joined[ns] == ""
}

type reader struct {
	v         *View
	plan      *plan.Plan
	opened    map[string]string // descriptor → path of the host
	recursive map[string]bool
	device    map[string]string // descriptor → "c 1:3", for a device node of the host
	idMapped  map[string]bool   // mounts with ids of their own
	readonly  map[string]bool
	dropped   map[string]bool
	rules     map[string]bool // device rules, each once: v1 writes them, v2 compiles them
	cgroups   *membership
}

func fileSystem(o *plan.FSMount, origin string) Mount {
	return Mount{
		Target: o.Target, Type: o.Type, Source: o.Source, Options: slices.Concat(without(o.Attrs, "ro"), o.Options, o.Flags, label(o.Label)),
		ReadOnly: slices.Contains(o.Attrs, "ro"), Propagation: propagation(o.Propagation), Origin: origin,
	}
}

// step takes over what a step says of the container. It returns false for a kind that it doesn't know.
func (r *reader) step(s plan.Step) bool {
	v := r.v
	switch o := s.Op.(type) {
	case *plan.CgroupCreate:
		v.Cgroups = append(v.Cgroups, o.Path)
	case *plan.CgroupWrite:
		r.write(o)
	case *plan.ResctrlCheck:
		r.class(o.Path, o.Schemata)
	case *plan.ResctrlWrite:
		r.class(o.Path, o.Schemata)
	case *plan.SystemdScope:
		r.unit(o.Unit, o.Properties)
	case *plan.SystemdSet:
		r.unit(o.Unit, o.Properties)
	case *plan.DeviceFilter:
		if r.cgroups.covers(o.Path) {
			v.DeviceRules = filterRules(o)
		}
	case *plan.OpenTree:
		r.opened[o.Save], r.recursive[o.Save] = path.Join(o.Path, o.Beneath), o.Recursive
		if o.Mounts != "" {
			r.opened[o.Save] = plan.UnderRoot(r.opened[o.Mounts], o.Path)
		}
		if o.MakeDir {
			v.Made = append(v.Made, o.Path)
		}
		r.device[o.Save], r.idMapped[o.Save], r.readonly[o.Save] = o.Device, o.IDMap != "", o.Readonly
	case *plan.Open:
		r.opened[o.Save] = o.Path
	case *plan.OpenPid:
		r.opened[o.Save] = fmt.Sprintf("/proc/%d/ns", o.Pid)
	case *plan.Clone:
		r.fresh(o.Namespaces)
	case *plan.Unshare:
		r.fresh(o.Namespaces)
	case *plan.Setns:
		from := r.opened[o.From]
		if from == "" {
			from = o.From
		}
		for _, ns := range o.Namespaces {
			// The last that it enters counts, and those of the first process are the host's own.
			v.New, v.Joined[ns] = without(v.New, ns), from
			if strings.HasPrefix(from, "/proc/1/") {
				delete(v.Joined, ns)
			}
		}
	case *plan.IDMap:
		v.UIDMap, v.GIDMap = o.UID, o.GID
	case *plan.Mount:
		r.mount(o, s.Origin)
	case *plan.Overlay:
		v.Root.Layers, v.Root.Dir, v.Root.Upper = o.Lower, o.Dir, o.Upper
		v.Root.Mountpoint, v.Root.Options, v.Root.Origin = o.Target, o.Options, s.Origin
	case *plan.Quota:
		v.Root.Bytes = o.Bytes
	case *plan.HostMount:
		v.HostMounts = append(v.HostMounts, Mount{
			Target: o.Target, Type: o.Type, Source: o.Source, Options: slices.Concat(without(o.Flags, "ro"), o.Options),
			ReadOnly: slices.Contains(o.Flags, "ro"), Origin: s.Origin,
		})
	case *plan.RootMount:
		v.Root.Source, v.Root.Mountpoint, v.Root.Origin = o.Source, o.Target, s.Origin
	case *plan.Chroot:
		v.Root.Chroot = true
	case *plan.PivotRoot:
		v.Root.Pivoted = true
		if o.Root != "." {
			v.Root.Mountpoint = o.Root
		}
	case *plan.MoveRoot:
		v.Root.Mountpoint, v.Root.Chroot = o.Root, true
	case *plan.RootDir:
		v.Root.Mountpoint = o.Path
	case *plan.FSMount:
		if o.Target != "" {
			v.Mounts = append(v.Mounts, fileSystem(o, s.Origin))
		}
	case *plan.MoveMount:
		if d := r.device[o.From]; d != "" { // a node of the host's, where none can be made
			dev := Device{Path: o.Target, Mode: 0o666, Origin: s.Origin}
			fmt.Sscanf(d, "%s %d:%d", &dev.Type, &dev.Major, &dev.Minor)
			v.Devices = append(v.Devices, dev)
			break
		}
		if made := r.plan.FileSystem(o); made != nil {
			v.Mounts = append(v.Mounts, fileSystem(made, s.Origin))
			break
		}
		source, known := r.opened[o.From]
		kind := "bind"
		if !known {
			kind, source = "detached", o.From
		}
		set, clear := slices.Concat(o.Set, o.RecSet), slices.Concat(o.Clear, o.RecClear)
		var ids []string
		if r.idMapped[o.From] {
			ids = []string{"idmap"}
		}
		v.Mounts = append(v.Mounts, Mount{
			Target: o.Target, Type: kind, Source: source, Recursive: r.recursive[o.From], ReadOnly: slices.Contains(set, "ro") ||
				r.readonly[o.From] && !slices.Contains(clear, "ro"),
			Options: slices.Concat(without(set, "ro"), cleared(clear), ids), Propagation: propagation(o.Propagation), Origin: s.Origin,
		})
	case *plan.Remount:
		r.remount(o)
	case *plan.MaskPath, *plan.ReadonlyPath: // what holds of them is seen in the end
	case *plan.Mkdir:
		v.Copied = append(v.Copied, fmt.Sprintf("directory %s", o.Path))
	case *plan.Symlink:
		v.Copied = append(v.Copied, fmt.Sprintf("link %s to %s", o.Path, o.Target))
	case *plan.Mknod:
		v.Devices = append(v.Devices, Device{o.Path, o.Type, o.Major, o.Minor, o.Mode, o.UID, o.GID, s.Origin})
	case *plan.Sethostname:
		v.Hostname = o.Name
		r.onHost(v.Shares("uts"), "set the host's name to %s", o.Name)
	case *plan.Setdomainname:
		v.Domainname = o.Name
		r.onHost(v.Shares("uts"), "set the host's domain name to %s", o.Name)
	case *plan.Sysctl:
		set := strings.ReplaceAll(o.Key, "/", ".") + "=" + o.Value
		v.Sysctls = append(v.Sysctls, set)
		r.onHost(!v.ownSetting(o.Key), "set %s, which is the host's, not the container's", set)
	case *plan.WriteProc:
		v.Proc = append(v.Proc, o.File+"="+o.Value)
	case *plan.WriteFile:
		v.HostSets = append(v.HostSets, o.Path+"="+o.Value)
	case *plan.Rlimit:
		v.Rlimits = append(v.Rlimits, *o)
	case *plan.Umask:
		v.Umask = o.Mask
	case *plan.Keyring:
		v.Keyring = cmp.Or(o.Name, OwnKeyring)
	case *plan.OpenConsole:
		v.Terminal = true
	case *plan.NoNewPrivs:
		v.NoNewPrivs = true
	case *plan.Seccomp:
		v.Filters = append(v.Filters, o)
	case *plan.DropBounding:
		for _, name := range o.Caps {
			r.dropped[name] = true
		}
	case *plan.Setgroups:
		v.Groups = o.Groups
	case *plan.Setresgid:
		v.GID = o.GID
	case *plan.Setresuid:
		v.UID = o.UID
	case *plan.Capset:
		v.Effective, v.Permitted, v.Inheritable = o.Effective, o.Permitted, o.Inheritable
	case *plan.AmbientCaps:
		v.Ambient = append(v.Ambient, o.Caps...)
	case *plan.Chdir:
		v.Cwd = o.Path // where the first is a try, the second says the same
	case *plan.Affinity:
		if text := o.String(); o.Unless == 0 && !slices.Contains(v.Tuning, text) { // else it takes back what the caller is bound to
			v.Tuning = append(v.Tuning, text)
		}
	case *plan.Sched, *plan.IOPriority, *plan.MemPolicy, *plan.Personality, *plan.TimeOffsets, *plan.SendListener, *plan.LinkMove:
		if text := s.Op.String(); !slices.Contains(v.Tuning, text) {
			v.Tuning = append(v.Tuning, text)
		}
	case *plan.Hook:
		text := o.Name + ": " + Quoted(append([]string{o.Path}, o.Args[min(1, len(o.Args)):]...))
		if o.Dir != "" {
			text += " in " + o.Dir
		}
		if o.Inherit {
			text += ", with the runtime's environment"
		}
		v.Hooks = append(v.Hooks, text)
	case *plan.InheritFDs:
		v.FDs = o.Count
	case *plan.Execve:
		v.Argv, v.Env = o.Argv, o.Env
	case *plan.LinkBridge:
		if v.Net.Bridge != "" && v.Net.Bridge != o.Name {
			v.Net.Others = append(v.Net.Others, o.Name) // the first network is the one that is described
		} else {
			v.Net.Bridge, v.Net.Gateway = o.Name, or(o.Address, o.Address6)
		}
		for _, set := range o.Sysctls {
			v.HostSets = append(v.HostSets, "/proc/sys/"+set)
		}
	case *plan.LinkVeth:
		if v.Net.Veth == "" {
			v.Net.Veth, v.Net.Device, v.Net.MAC, v.Net.MTU = o.Name, o.Peer, o.MAC, o.MTU
		}
		v.Net.Settings = append(v.Net.Settings, o.Sysctls...)
		v.Net.Isolated = v.Net.Isolated || o.Isolated
	case *plan.LinkRate:
		v.Net.Rates = append(v.Net.Rates, o.String())
	case *plan.LinkMacvlan:
		if v.Net.Device == "" {
			v.Net.Device, v.Net.MAC, v.Net.MTU = o.Name, o.MAC, o.MTU
		}
		v.Net.Settings = append(v.Net.Settings, o.Sysctls...)
		v.Net.Parents = append(v.Net.Parents, fmt.Sprintf("%s (%s, %s)", o.Parent, o.Driver, o.Mode+when(o.Flag != "", ", "+o.Flag, "")))
	case *plan.LinkVLAN:
		v.Net.VLANs = append(v.Net.VLANs, fmt.Sprintf("%s (VLAN %d of %s)", o.Name, o.ID, o.Parent))
	case *plan.LinkAddress:
		if o.Address != "" {
			if v.Net.Address == "" {
				v.Net.Address = o.Address
			} else if o.Link == v.Net.Device && !strings.HasPrefix(o.Address, "169.254.") {
				// Link-local ones come beside the address by which it is known.
				v.Net.Address6 = or(v.Net.Address6, o.Address)
			}
		} else if o.Link == "lo" {
			v.Net.Loopback = true
		}
	case *plan.LinkUp:
		v.Net.Loopback = v.Net.Loopback || o.Link == "lo"
	case *plan.RouteDefault:
		v.Net.Via = or(v.Net.Via, or(o.Via, "none, by "+o.Link+" itself"+when(o.IPv6, " (IPv6)", "")))
	case *plan.NftBridge:
		if v.Net.Table == "" {
			v.Net.Table, v.Net.Subnet, v.Net.Rules = o.Table, o.Subnet, o.Rules
		}
	case *plan.NftGuard:
		v.Net.Guarded = true
	case *plan.FirewallAccept:
		v.Net.Beside = append(v.Net.Beside, "chain "+o.Chain+" of "+o.Where())
	case *plan.NftWall:
		v.Net.Egress, v.Net.Ingress = append(v.Net.Egress, o.Egress...), append(v.Net.Ingress, o.Ingress...)
		if len(o.Egress) > 0 && !slices.Contains(o.Allowed, "0.0.0.0/0") {
			v.walled++
		}
	case *plan.NftPublish:
		v.Net.Ports = append(v.Net.Ports, o.Ports...)
	case *plan.PortCarry:
		v.Net.Ports = append(v.Net.Ports, o.Ports...)
	case *plan.NameAdd:
		v.Net.Names = append(v.Net.Names, o.Names...)
	case *plan.NameListen:
		v.Net.Resolver = o.Address
	case *plan.CgroupRemove, *plan.LinkDelete, *plan.NftUnpublish, *plan.NftUnguard, *plan.NftUnwall, *plan.NameRemove, *plan.SystemdStop,
		*plan.RootUnmount,
		*plan.HostUnmount,
		*plan.ResctrlRemove:
		// What takes something back says nothing of the container.
	case *plan.CgroupEvacuate, *plan.CgroupOpen, *plan.CgroupJoin, *plan.Release, *plan.Await, *plan.Notify, *plan.Expect, *plan.BindConsole,
		*plan.SendFD, *plan.RecvFD, *plan.Stdio, *plan.Setsid, *plan.ParentDeath, *plan.Dumpable, *plan.KeepCaps, *plan.CloseRange,
		*plan.AwaitStart, *plan.FindProgram, *plan.CopyUp, *plan.OpenDir, *plan.Adopt, *plan.UserNamespace, *plan.SystemdAttach,
		*plan.CgroupAttach,
		*plan.ResctrlCreate, *plan.ResctrlJoin:
		// How it is made, and not what it is.
	default:
		return false
	}
	return true
}

// propagation is the word for the last of several settings, which is the one that lasts; slave and then shared is both.
func propagation(words []string) string {
	if len(words) == 0 {
		return ""
	}
	return strings.TrimPrefix(words[len(words)-1], "r") // whether it goes for the mounts below is left out
}

func (r *reader) fresh(namespaces []string) {
	for _, ns := range namespaces {
		if !slices.Contains(r.v.New, ns) {
			r.v.New = append(r.v.New, ns)
		}
		delete(r.v.Joined, ns)
	}
}

// mount reads a mount made with a path of the host: the root, as a rule.
func (r *reader) mount(o *plan.Mount, origin string) {
	v := r.v
	switch {
	case o.Target == "/" && o.Source == "":
		for _, flag := range o.Flags {
			if flag != "rec" {
				v.Root.Propagation = flag
			}
		}
	case slices.Contains(o.Flags, "bind"):
		// The first bind is the root's. What is bound over a root that there is already is a mount like others.
		if v.Root.Source == "" && len(v.Root.Layers) == 0 {
			v.Root.Source, v.Root.Mountpoint, v.Root.Origin = o.Source, o.Target, origin
			return
		}
		fallthrough
	default:
		v.Mounts = append(v.Mounts, Mount{Target: o.Target, Type: o.Type, Source: o.Source, Options: o.Flags, Origin: origin})
	}
}

func (r *reader) remount(o *plan.Remount) {
	v := r.v
	set, clear := slices.Concat(o.Set, o.RecSet), slices.Concat(o.Clear, o.RecClear)
	if o.Target == "/" {
		v.Root.ReadOnly = (v.Root.ReadOnly || slices.Contains(set, "ro")) && !slices.Contains(clear, "ro")
		v.Root.Options = slices.Concat(v.Root.Options, without(set, "ro"), cleared(without(clear, "ro")), o.Options)
		if len(o.Propagation) > 0 {
			v.Root.Propagation = propagation(o.Propagation)
		}
		return
	}
	i := len(v.Mounts) - 1
	for i >= 0 && v.Mounts[i].Target != o.Target {
		i--
	}
	if i < 0 {
		v.Mounts = append(v.Mounts, Mount{Target: o.Target, Type: "attributes"})
		i = len(v.Mounts) - 1
	}
	m := &v.Mounts[i]
	m.ReadOnly = (m.ReadOnly || slices.Contains(set, "ro")) && !slices.Contains(clear, "ro")
	m.Options = slices.Concat(m.Options, without(set, "ro"), cleared(without(clear, "ro")), o.Options)
	if len(o.Propagation) > 0 {
		m.Propagation = propagation(o.Propagation)
	}
}

func label(text string) []string {
	if text == "" {
		return nil
	}
	return []string{"context=" + text}
}

func cutLast(s, sep string) (before, after string, found bool) {
	if i := strings.LastIndex(s, sep); i >= 0 {
		return s[:i], s[i+len(sep):], true
	}
	return "", s, false
}

func without(words []string, word string) []string {
	return slices.DeleteFunc(slices.Clone(words), func(s string) bool { return s == word })
}

// cleared writes attributes that are taken away as mount(8) does.
func cleared(attrs []string) []string {
	var out []string
	for _, a := range attrs {
		if a == "ro" {
			out = append(out, "rw")
		} else if a, ok := strings.CutPrefix(a, "no"); ok {
			out = append(out, a)
		} else {
			out = append(out, "no"+a)
		}
	}
	return out
}
