package explain

import (
	"fmt"
	"path"
	"slices"
	"strings"
	"unicode/utf8"

	"glassbox/plan"
)

// About is what is known of a container beside its plan.
type About struct {
	Title  string   // what is explained, for headings: "web", "run busybox true"
	Image  string   // reference of its image
	Name   string   // of the container
	Labels []string // KEY=VALUE
	Ports  []string // as published with -p
	// Interactive says that standard input is kept open.
	Interactive bool
	// Flags are the flags of `run` that made it, one "--name=value" each, if it was made by run; Command is what follows the
	// image. A plan of other origin has none, and its words are found from what it does.
	Flags   []string
	Command []string
	Made    bool
	Times   *plan.Times // when the steps were made, if they were and that is known
	Refused string      // why `run --plan` would not run a plan from elsewhere here; "": it would, or nobody asks
}

// aspect is one thing that a container can have out of the ordinary. Its name is what formats say that they can express.
type aspect struct {
	name string
	say  func(v *View) []string
}

// aspects are all things out of the ordinary, with the words for a format that can't express them. Whoever adds a field to View
// adds it here, too: a test checks that no format passes over one in silence.
func aspects() []aspect {
	one := func(ok bool, format string, a ...any) []string {
		if !ok {
			return nil
		}
		return []string{fmt.Sprintf(format, a...)}
	}
	number := func(n *int64, format string) []string {
		if n == nil {
			return nil
		}
		return one(true, format, *n)
	}
	return []aspect{
		{"command", func(v *View) []string { return one(len(v.Argv) > 0, "the program is %s", Quoted(v.Argv)) }},
		{"env", func(v *View) []string { return each("environment: ", v.Env) }},
		{"cwd", func(v *View) []string { return one(v.Cwd != "/" && v.Cwd != "", "working directory %s", v.Cwd) }},
		{"umask", func(v *View) []string { return one(v.Umask != 0o022, "umask %04o", v.Umask) }},
		{"terminal", func(v *View) []string { return one(v.Terminal, "a terminal of its own") }},
		{"user", func(v *View) []string {
			return one(v.UID != 0 || v.GID != 0, "user %d, group %d", v.UID, v.GID)
		}},
		{"groups", func(v *View) []string {
			extra := v.extraGroups()
			return one(len(extra) > 0, "supplementary groups %v", extra)
		}},
		{"hostname", func(v *View) []string { return one(v.Hostname != "", "host name %s", v.Hostname) }},
		{"domainname", func(v *View) []string { return one(v.Domainname != "", "domain name %s", v.Domainname) }},
		{"root", func(v *View) []string {
			return slices.Concat(
				one(v.Root.Source != "", "the root is the host's directory %s", v.Root.Source),
				one(len(v.Root.Layers) > 0, "the root is an overlay of %s", strings.Join(v.layers(), " on ")),
				one(v.Root.Upper != "", "its changes go to %s/%s", v.Root.Dir, v.Root.Upper))
		}},
		{"storage", func(v *View) []string { return one(v.Root.Bytes > 0, "its changes may take %d bytes", v.Root.Bytes) }},
		{"readonly", func(v *View) []string { return one(v.Root.ReadOnly, "the root is read-only") }},
		{"rootoptions", func(v *View) []string { return each("overlay option ", v.Root.Options) }},
		{"chroot", func(v *View) []string {
			if v.Shares("mount") {
				return one(v.Root.Chroot, "it has no mount namespace of its own, and its root is entered by chroot")
			}
			return one(v.Root.Chroot, "the root is entered by chroot, not by pivot_root")
		}},
		{"propagation", func(v *View) []string {
			return one(v.Root.Propagation != "" && v.Root.Propagation != "private", "mounts of the root are %s", v.Root.Propagation)
		}},
		{"binds", func(v *View) []string {
			var out []string
			for _, m := range v.UserMounts() {
				if m.Type == "bind" {
					out = append(out, "mount "+m.String())
				}
			}
			return out
		}},
		{"hostmounts", func(v *View) []string {
			var out []string
			for _, m := range v.HostMounts {
				out = append(out, "the host mounts "+m.String())
			}
			return out
		}},
		{"tmpfs", func(v *View) []string {
			var out []string
			for _, m := range v.UserMounts() {
				if m.Type == "tmpfs" {
					out = append(out, "mount "+m.String())
				}
			}
			return out
		}},
		{"filesystems", func(v *View) []string {
			var out []string
			for _, m := range v.UserMounts() {
				if m.Type != "tmpfs" && m.Type != "bind" {
					out = append(out, "mount "+m.String())
				}
			}
			return out
		}},
		{"shm", func(v *View) []string { return one(v.shmSize() != "", "size of /dev/shm: %s bytes", v.shmSize()) }},
		{"masked", func(v *View) []string {
			if slices.Equal(v.Masked, usualMasked()) {
				return nil
			}
			return one(true, "hidden paths: %s", orNone(v.Masked))
		}},
		{"locked", func(v *View) []string {
			if slices.Equal(v.Locked, usualLocked()) {
				return nil
			}
			return one(true, "read-only paths: %s", orNone(v.Locked))
		}},
		{"made", func(v *View) []string {
			return each("it makes ", slices.DeleteFunc(slices.Clone(v.Copied),
				func(s string) bool { return usualLink(s) || s == "directory "+v.Cwd }))
		}},
		{"devices", func(v *View) []string {
			var out []string
			for _, d := range v.UserDevices() {
				out = append(out, fmt.Sprintf("device %s (%s), mode %04o, owner %d:%d", d.Path, d, d.Mode, d.UID, d.GID))
			}
			return out
		}},
		{"devicerules", func(v *View) []string {
			extra, usual := v.extraRules()
			if !usual {
				return one(true, "device rules: %s", orNone(v.DeviceRules))
			}
			return each("device rule: ", extra)
		}},
		{"pidns", func(v *View) []string { return v.nsWords("pid") }},
		{"ipcns", func(v *View) []string { return v.nsWords("ipc") }},
		{"utsns", func(v *View) []string { return v.nsWords("uts") }},
		{"cgroupns", func(v *View) []string { return v.nsWords("cgroup") }},
		{"timens", func(v *View) []string {
			return one(slices.Contains(v.New, "time") || v.Joined["time"] != "", "a time namespace: %s", or(v.Joined["time"], "of its own"))
		}},
		{"userns", func(v *View) []string {
			if v.Shares("user") {
				return nil
			}
			return one(true, "a user namespace (%s): users %s, groups %s", or(v.Joined["user"], "of its own"), idWords(v.UIDMap), idWords(v.GIDMap))
		}},
		{"mountns", func(v *View) []string {
			return one(v.Joined["mount"] != "", "it shares the mounts of %s", v.Joined["mount"])
		}},
		{"cgroup", func(v *View) []string { return one(len(v.Cgroups) > 0, "its cgroup is %s", v.Cgroup()) }},
		{"memory", func(v *View) []string { return number(v.Limits.Memory, "memory limit %d bytes") }},
		{"swap", func(v *View) []string {
			return number(v.Limits.MemorySwap, "memory and swap together %d bytes")
		}},
		{"reservation", func(v *View) []string { return number(v.Limits.Reservation, "memory reservation %d bytes") }},
		{"swappiness", func(v *View) []string { return number(v.Limits.Swappiness, "swappiness %d") }},
		{"oomkill", func(v *View) []string {
			return one(v.Limits.OOMKillDisable, "nothing is killed when memory runs out")
		}},
		{"shares", func(v *View) []string {
			return slices.Concat(number(v.Limits.Shares, "processor shares %d"), number(v.Limits.Weight, "processor weight %d (v2)"))
		}},
		{"quota", func(v *View) []string {
			return slices.Concat(number(v.Limits.Quota, "processor quota %d µs"), number(v.Limits.Period, "per period of %d µs"))
		}},
		{"cpuset", func(v *View) []string { return one(v.Limits.Cpus != "", "processors %s", v.Limits.Cpus) }},
		{"cpumems", func(v *View) []string { return one(v.Limits.Mems != "", "memory nodes %s", v.Limits.Mems) }},
		{"pids", func(v *View) []string { return number(v.Limits.Pids, "at most %d processes") }},
		{"blkio", func(v *View) []string { return number(v.Limits.BlkioWeight, "block I/O weight %d") }},
		{"otherlimits", func(v *View) []string { return each("cgroup file ", v.Limits.Other) }},
		{"network", func(v *View) []string {
			n := v.Net
			switch {
			case n.Mode == "joined":
				return one(true, "it shares the network of %s", v.Joined["net"])
			case n.Mode == "none" && !n.Loopback && n.Address == "":
				return one(true, "a network of its own with nothing in it, not even a loopback that is up")
			}
			return one(n.Mode != "bridge" && n.Mode != "parent" && n.Mode != "", "network %s", n.Mode)
		}},
		{"bridge", func(v *View) []string {
			return one(v.Net.Bridge != "", "bridge %s (%s), veth pair %s and %s", v.Net.Bridge, v.Net.Gateway, v.Net.Veth, v.Net.Device)
		}},
		{"rates", func(v *View) []string { return v.Net.Rates }},
		{"parent", func(v *View) []string { return each("on top of the host's ", v.Net.Parents) }},
		{"vlan", func(v *View) []string { return each("makes the host's ", v.Net.VLANs) }},
		{"address", func(v *View) []string {
			return slices.Concat(one(v.Net.Address != "", "address %s, default route %s", v.Net.Address, or(v.Net.Via, "none")),
				one(v.Net.Address6 != "", "address %s", v.Net.Address6),
				one(v.Net.Guarded, "sends with no address but its own"),
				one(v.Net.MAC != "", "MAC address %s", v.Net.MAC),
				one(v.Net.MTU != 0, "MTU %d", v.Net.MTU))
		}},
		{"names", func(v *View) []string {
			return slices.Concat(each("found by the name ", v.Net.Names), one(v.Net.Resolver != "", "name server %s", v.Net.Resolver),
				each("further network: bridge ", v.Net.Others), one(v.Net.Isolated, "no way to the other containers of its network"))
		}},
		{"firewall", func(v *View) []string {
			return slices.Concat(one(v.Net.Table != "", "nft table %s for %s, %d rules", v.Net.Table, v.Net.Subnet, len(v.Net.Rules)),
				each("let through ", v.Net.Beside))
		}},
		{"walls", func(v *View) []string {
			return slices.Concat(each("a wall (--egress) that lets it out to ", v.Net.Egress),
				each("a wall (--ingress) that lets in ", v.Net.Ingress))
		}},
		{"ports", func(v *View) []string {
			var out []string
			for _, p := range v.Net.Ports {
				out = append(out, "published port "+portWord(p))
			}
			return out
		}},
		{"onhost", func(v *View) []string {
			return slices.Concat(each("its start will ", v.OnHost), one(v.Spread != "", "its start will %s, on the host, too", v.Spread))
		}},
		{"hostsets", func(v *View) []string { return each("it sets on the host ", v.HostSets) }},
		{"sysctls", func(v *View) []string { return each("sysctl ", v.UserSysctls()) }},
		{"rlimits", func(v *View) []string {
			var out []string
			for _, r := range v.Rlimits {
				out = append(out, r.String())
			}
			return out
		}},
		{"proc", func(v *View) []string { return each("it writes to its own /proc/self/", v.Proc) }},
		{"caps", func(v *View) []string {
			add, drop := v.capChanges()
			return slices.Concat(one(len(drop) > 0, "capabilities dropped: %s", strings.Join(drop, " ")),
				one(len(add) > 0, "capabilities added: %s", strings.Join(add, " ")))
		}},
		{"capsets", func(v *View) []string {
			want := v.Bounding
			if v.UID != 0 {
				want = nil
			}
			return slices.Concat(
				one(!sameCaps(v.Effective, want) && !sameCaps(v.Effective, v.Bounding), "effective capabilities: %s", orNone(v.Effective)),
				one(!sameCaps(v.Permitted, want) && !sameCaps(v.Permitted, v.Bounding), "permitted capabilities: %s", orNone(v.Permitted)),
				one(len(v.Inheritable) > 0, "inheritable capabilities: %s", strings.Join(v.Inheritable, " ")),
				one(len(v.Ambient) > 0, "ambient capabilities: %s", strings.Join(v.Ambient, " ")))
		}},
		{"nonewprivs", func(v *View) []string { return one(v.NoNewPrivs, "no new privileges") }},
		{"seccomp", func(v *View) []string {
			if len(v.Filters) == 0 {
				return one(true, "no system call filter")
			}
			var out []string
			for _, f := range v.Filters {
				if !v.isStandard(f) {
					out = append(out, fmt.Sprintf("the system call filter %s, %d instructions", f.Name, len(f.Program)/8))
				}
			}
			return out
		}},
		{"keyring", func(v *View) []string {
			return one(v.Keyring == "", "it keeps the session keyring of whoever starts it")
		}},
		{"tuning", func(v *View) []string { return v.Tuning }},
		{"hooks", func(v *View) []string { return each("it runs on the host, ", v.Hooks) }},
		{"fds", func(v *View) []string { return one(v.FDs > 0, "%d descriptors of whoever starts it", v.FDs) }},
		{"unread", func(v *View) []string { return each("step of the kind ", v.Unread) }},
	}
}

// unsaid lists what a format that can express only some aspects leaves out.
func (v *View) unsaid(said ...string) []string {
	var out []string
	for _, a := range aspects() {
		if !slices.Contains(said, a.name) {
			for _, s := range a.say(v) {
				out = append(out, clean(s))
			}
		}
	}
	return out
}

// String says where a mount is and what it is.
func (m Mount) String() string {
	s := m.Type + " on " + m.Target
	if m.Type == "bind" {
		s = "the host's " + m.Source + " on " + m.Target
	}
	var options []string
	if m.ReadOnly {
		options = append(options, "ro")
	}
	options = append(options, m.Options...)
	if m.Propagation != "" && m.Propagation != "private" {
		options = append(options, m.Propagation)
	}
	if len(options) > 0 {
		s += " (" + strings.Join(options, ",") + ")"
	}
	return s
}

// UserMounts are the mounts that not every container has: no /proc, /dev … as usual, and no hosts file of the engine's.
func (v *View) UserMounts() []Mount {
	var out []Mount
	for _, m := range v.Mounts {
		if !v.usualMount(m) {
			out = append(out, m)
		}
	}
	return out
}

func (v *View) usualMount(m Mount) bool {
	switch m.Target {
	case "/proc":
		return m.Type == "proc"
	case "/dev":
		return m.Type == "tmpfs"
	case "/dev/pts":
		return m.Type == "devpts"
	case "/dev/mqueue":
		return m.Type == "mqueue"
	case "/sys":
		return m.Type == "sysfs" && m.ReadOnly
	case "/dev/shm":
		// With the IPC namespace of another container goes its shared memory.
		of, shared := strings.CutSuffix(v.Joined["ipc"], "/ns/ipc")
		return m.Type == "tmpfs" || shared && m.Type == "bind" && m.Source == of+"/root/dev/shm"
	case "/etc/hosts", "/etc/hostname", "/etc/resolv.conf":
		return m.Type == "bind" && engineFile(m.Source) && path.Base(m.Source) == path.Base(m.Target) && !m.ReadOnly
	}
	return (m.Target == "/sys/fs/cgroup" || strings.HasPrefix(m.Target, "/sys/fs/cgroup/")) &&
		(m.Type == "cgroup" || m.Type == "cgroup2" || m.Type == "tmpfs") && m.ReadOnly
}

// engineFile reports whether a path is one of the files that the engine makes for a container, in a directory named by the container's
// id. Where the step says it comes from, is no sign of it: a plan from elsewhere can say "default" of /etc/shadow.
func engineFile(p string) bool {
	id := path.Base(path.Dir(p))
	return len(id) == 64 && strings.Trim(id, "0123456789abcdef") == "" &&
		slices.Contains([]string{"hosts", "hostname", "resolv.conf"}, path.Base(p))
}

func (v *View) shmSize() string {
	for _, m := range v.Mounts {
		if m.Target == "/dev/shm" && m.Type == "tmpfs" {
			for _, o := range m.Options {
				// 64 MiB is what every container has that asks for no other size, as with Docker.
				if size, ok := strings.CutPrefix(o, "size="); ok && size != "67108864" {
					return size
				}
			}
		}
	}
	return ""
}

// UserDevices are the device nodes beyond those that every container has.
func (v *View) UserDevices() []Device {
	var out []Device
	for _, d := range v.Devices {
		if !(usualDevices()[d.Path] == d.String() && d.Mode == 0o666 && d.UID == 0 && d.GID == 0) {
			out = append(out, d)
		}
	}
	return out
}

func usualDevices() map[string]string {
	return map[string]string{
		"/dev/null": "c 1:3", "/dev/zero": "c 1:5", "/dev/full": "c 1:7", "/dev/random": "c 1:8", "/dev/urandom": "c 1:9", "/dev/tty": "c 5:0",
	}
}

func usualRules() []string {
	return []string{
		"deny a *:* rwm", "allow c *:* m", "allow b *:* m", "allow c 1:3 rwm", "allow c 1:5 rwm", "allow c 1:7 rwm", "allow c 1:8 rwm",
		"allow c 1:9 rwm",
		"allow c 5:0 rwm", "allow c 5:1 rwm", "allow c 5:2 rwm", "allow c 136:* rwm",
	}
}

// extraRules are the device rules after the usual ones; usual is false if those don't come first.
func (v *View) extraRules() (extra []string, usual bool) {
	n := len(usualRules())
	if len(v.DeviceRules) < n || !slices.Equal(v.DeviceRules[:n], usualRules()) {
		return nil, false
	}
	return v.DeviceRules[n:], true
}

func usualMasked() []string {
	return []string{
		"/proc/acpi", "/proc/asound", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/sched_debug",
		"/proc/scsi", "/proc/timer_list", "/proc/timer_stats", "/sys/devices/virtual/powercap", "/sys/firmware",
	}
}

func usualLocked() []string {
	return []string{"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"}
}

func usualLink(s string) bool {
	return slices.Contains([]string{
		"link /dev/fd to /proc/self/fd", "link /dev/stdin to /proc/self/fd/0", "link /dev/stdout to /proc/self/fd/1",
		"link /dev/stderr to /proc/self/fd/2", "link /dev/ptmx to pts/ptmx",
	}, s) || strings.HasPrefix(s, "link /sys/fs/cgroup/")
}

// usualCaps are the capabilities that container engines leave by default.
func usualCaps() []string {
	return []string{
		"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FSETID", "CAP_FOWNER", "CAP_MKNOD", "CAP_NET_RAW", "CAP_SETGID", "CAP_SETUID",
		"CAP_SETFCAP", "CAP_SETPCAP", "CAP_NET_BIND_SERVICE", "CAP_SYS_CHROOT", "CAP_KILL", "CAP_AUDIT_WRITE",
	}
}

// capChanges are the capabilities to add to and drop from the usual ones, without the prefix.
func (v *View) capChanges() (add, drop []string) {
	for _, name := range v.Bounding {
		if !slices.Contains(usualCaps(), name) {
			add = append(add, strings.TrimPrefix(name, "CAP_"))
		}
	}
	for _, name := range usualCaps() {
		if !slices.Contains(v.Bounding, name) {
			drop = append(drop, strings.TrimPrefix(name, "CAP_"))
		}
	}
	// Of few that are left it is shorter to say which.
	if len(drop) > len(usualCaps())/2 {
		return trimCaps(v.Bounding), []string{"ALL"}
	}
	return add, drop
}

func trimCaps(names []string) []string {
	out := make([]string, len(names))
	for i, n := range names {
		out[i] = strings.TrimPrefix(n, "CAP_")
	}
	return out
}

func sameCaps(a, b []string) bool {
	has := map[string]bool{}
	for _, s := range a {
		has[s] = true
	}
	for _, s := range b {
		if !has[s] {
			return false
		}
		delete(has, s)
	}
	return len(has) == 0
}

// UserSysctls are those beyond what every container with a network of its own gets.
func (v *View) UserSysctls() []string {
	return slices.DeleteFunc(slices.Clone(v.Sysctls), func(s string) bool {
		// Docker's own since 20.10: ports below 1024 and ping without privileges, in a network that is the container's alone.
		return s == "net.ipv4.ip_unprivileged_port_start=0" || s == "net.ipv4.ping_group_range=0 2147483647"
	})
}

func (v *View) extraGroups() []uint32 {
	return slices.DeleteFunc(slices.Clone(v.Groups), func(g uint32) bool { return g == v.GID })
}

func (v *View) layers() []string {
	var out []string
	for _, l := range v.Root.Layers {
		if !strings.HasPrefix(l, "/") {
			l = v.Root.Dir + "/" + l
		}
		out = append(out, l)
	}
	return out
}

// Cgroup is the container's place in the cgroup tree, without the mount of a hierarchy.
func (v *View) Cgroup() string {
	if len(v.Cgroups) == 0 {
		return ""
	}
	path := v.Cgroups[0]
	if i := strings.Index(path, "/glassbox/"); i >= 0 {
		return path[i:]
	}
	return path
}

func (v *View) nsWords(ns string) []string {
	switch {
	case v.Joined[ns] != "":
		return []string{"it shares the " + ns + " namespace " + v.Joined[ns]}
	case v.Shares(ns):
		return []string{"it shares the host's " + ns + " namespace"}
	}
	return nil
}

func idWords(rs []plan.IDRange) string {
	if len(rs) == 0 {
		return "unmapped"
	}
	out := make([]string, len(rs))
	for i, r := range rs {
		out[i] = fmt.Sprintf("%d:%d:%d", r.Container, r.Host, r.Size)
	}
	return strings.Join(out, " ")
}

func portWord(p plan.PortRule) string {
	s := fmt.Sprintf("%d:%d/%s", p.HostPort, p.ContainerPort, p.Proto)
	if p.HostIP != "" {
		s = p.HostIP + ":" + s
	}
	return s
}

func each(prefix string, words []string) []string {
	out := make([]string, len(words))
	for i, w := range words {
		out[i] = prefix + w
	}
	return out
}

func orNone(words []string) string { return or(strings.Join(words, " "), "none") }

func or(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}

// quote writes a word for a POSIX shell. What a terminal would obey, or show otherwise than it is, is made by printf, byte by byte.
func quote(s string) string {
	if s != "" && strings.Trim(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-./:=,@%+") == "" {
		return s
	}
	var b strings.Builder
	b.WriteByte('\'')
	for i, r := range s {
		size := utf8.RuneLen(r)
		if r == utf8.RuneError && !strings.HasPrefix(s[i:], "\uFFFD") {
			size = 1 // no UTF-8: 0x9b alone is obeyed by some terminals
		}
		switch {
		case r == '\'':
			b.WriteString(`'\''`)
		case r != '\n' && r != '\t' && deceives(r) || size == 1 && r == utf8.RuneError:
			b.WriteString(`'"$(printf '`)
			for _, c := range []byte(s[i : i+size]) {
				fmt.Fprintf(&b, `\%03o`, c)
			}
			b.WriteString(`')"'`)
		default:
			b.WriteRune(r)
		}
	}
	b.WriteByte('\'')
	return b.String()
}

// Quoted writes words so that a POSIX shell reads them back.
func Quoted(words []string) string {
	out := make([]string, len(words))
	for i, w := range words {
		out[i] = quote(w)
	}
	return strings.Join(out, " ")
}
