package explain

import (
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"

	"glassbox/plan"
)

// A Right is one thing that a container may do.
type Right struct {
	Area string `json:"area"` // files, devices, network, syscalls, capabilities, ids, namespaces, limits, host
	What string `json:"what"` // in words, to be read after "it may"

	key     string // what is compared
	path    string // of the host, for files
	amount  int64  // for limits; -1 is without limit
	limited bool   // amount counts
}

// areas in the order in which they are told.
func areas() []string {
	return []string{"files", "devices", "network", "syscalls", "capabilities", "ids", "namespaces", "limits", "host"}
}

// rights lists all that a container may do beyond what every process may.
func (v *View) rights() []Right {
	var l rightList
	v.fileRights(&l)
	v.networkRights(&l)
	v.powerRights(&l)
	v.namespaceRights(&l)
	v.limitRights(&l)
	return l
}

type rightList []Right

func (l *rightList) add(area, key, format string, a ...any) {
	*l = append(*l, Right{Area: area, key: area + " " + key, What: clean(fmt.Sprintf(format, a...))})
}

// limit is the right to use an amount; nil or negative is any.
func (l *rightList) limit(name string, n *int64, unit string) {
	name = clean(name)
	r := Right{Area: "limits", key: "limits " + name, limited: true, amount: -1, What: "use any amount of " + name}
	if n != nil && *n >= 0 {
		r.amount, r.What = *n, fmt.Sprintf("use %s of %s", amountWord(*n, unit), name)
	}
	*l = append(*l, r)
}

// fileRights are about files and devices.
func (v *View) fileRights(l *rightList) {
	for _, m := range v.hostFiles() {
		r := Right{Area: "files", key: "files read", path: m.Source, What: clean("read the host's " + m.Source + m.at())}
		*l = append(*l, r)
		if !m.ReadOnly {
			r.key, r.What = "files change", clean("change the host's "+m.Source+m.at())
			*l = append(*l, r)
		}
		if m.Propagation == "shared" {
			l.add("files", "share "+m.Source, "make mounts below %s that appear on the host", m.Source)
		}
	}
	if !v.Root.ReadOnly {
		l.add("files", "root", "change its own root file system")
	}
	for _, b := range v.breaches() {
		if b.wall.locked {
			l.add("files", "set "+b.at, "change the kernel's settings in %s", b.at)
		} else {
			l.add("files", "see "+b.at, "see %s", b.at)
		}
	}
	for _, m := range v.UserMounts() {
		if m.Type != "bind" {
			l.add("files", "fs "+m.Type+m.Target, "use a %s file system on %s", m.Type, m.Target)
		}
	}
	for _, r := range v.deviceAccess() {
		*l = append(*l, Right{Area: "devices", key: "devices " + r, What: clean(deviceWords(r))})
	}
}

func (v *View) networkRights(l *rightList) {
	switch v.Net.Mode {
	case "host":
		l.add("network", "host", "use the host's own network: its addresses, its ports, and services that listen on 127.0.0.1")
		l.add("network", "out", "reach other machines")
	case "joined":
		l.add("network", "join "+v.Joined["net"], "use the network of %s", v.Joined["net"])
	case "bridge":
		for _, to := range v.Net.Egress {
			l.add("network", "egress "+to, "send to what --egress says: %s", or(map[string]string{"deny": "nothing"}[to], clean(to)))
		}
		if v.Net.Via != "" && !v.behindWalls() { // an internal network has no way out
			l.add("network", "out", "reach other machines")
		}
		for _, from := range v.Net.Ingress {
			l.add("network", "ingress "+from, "be reached by what --ingress says: %s", or(map[string]string{"deny": "nobody"}[from], clean(from)))
		}
		if v.behindWalls() {
			break
		}
		for _, bridge := range append([]string{v.Net.Bridge}, v.Net.Others...) {
			if !v.Net.Isolated {
				l.add("network", "bridge "+bridge, "reach other containers on %s", bridge)
			}
		}
	}
	for _, parent := range v.Net.Parents {
		l.add("network", "parent "+parent, "reach whoever is on the cable of %s, and be reached, past the host's firewall", clean(parent))
	}
	for _, p := range v.Net.Ports {
		l.add("network", "port "+portWord(p), "be reached from outside at port %d/%s of the host (%s)", p.HostPort, p.Proto,
			or(p.HostIP, "every address"))
	}
}

// behindWalls says whether each of the container's cables has a wall that doesn't let everything out.
func (v *View) behindWalls() bool { return v.walled > len(v.Net.Others) }

// powerRights are about system calls, capabilities and ids.
func (v *View) powerRights(l *rightList) {
	for _, c := range v.Calls() {
		switch {
		case c.Always:
			l.add("syscalls", c.Name, "call %s", c.Name)
			// Two rights: of two containers one may make a call always and the other with some arguments.
			l.add("syscalls", c.Name+" any", "call %s with any arguments", c.Name)
		case c.Sometimes:
			l.add("syscalls", c.Name, "call %s", c.Name)
		}
	}
	where := ""
	if !v.Shares("user") {
		where = " (in its own user namespace)"
	}
	for _, name := range v.CapsNow() {
		l.add("capabilities", name+where, "%s%s: %s", name, where, capMeaning(name))
	}
	for _, name := range v.Bounding {
		if !slices.Contains(v.CapsNow(), name) && !v.NoNewPrivs {
			l.add("capabilities", name+" later", "get %s%s from a program with the setuid bit or file capabilities", name, where)
		}
	}
	if !v.NoNewPrivs {
		l.add("capabilities", "setuid", "gain privileges from programs with the setuid bit or file capabilities")
	}
	uid, ok := hostID(v.UIDMap, v.UID, v.Shares("user"))
	if ok {
		l.add("ids", fmt.Sprintf("uid %d", uid), "act as user %d of the host", uid)
	}
	if v.hasAny("CAP_SETUID") && v.Shares("user") {
		l.add("ids", "any", "become any user of the host")
	}
	for _, g := range append([]uint32{v.GID}, v.extraGroups()...) {
		if gid, ok := hostID(v.GIDMap, g, v.Shares("user")); ok {
			l.add("ids", fmt.Sprintf("gid %d", gid), "act as a member of group %d of the host", gid)
		}
	}
}

func (v *View) namespaceRights(l *rightList) {
	for _, ns := range [][2]string{
		{"mount", "see the host's mounts, and with them all its files"},
		{"pid", "see the host's processes, and signal those of its own user"},
		{"ipc", "use the host's shared memory, semaphores and message queues"},
		{"uts", "see the host's name (and with CAP_SYS_ADMIN change it)"},
		{"cgroup", "see where in the host's cgroup tree it is"},
	} {
		if v.Shares(ns[0]) {
			l.add("namespaces", ns[0], "%s", ns[1])
		} else if v.Joined[ns[0]] != "" {
			l.add("namespaces", ns[0]+" "+v.Joined[ns[0]], "use the %s namespace of %s", ns[0], v.Joined[ns[0]])
		}
	}
	if v.Keyring == "" {
		l.add("namespaces", "keyring", "use the keys of the session that starts it")
	}
}

// limitRights are about amounts, and about what the start does to the host.
func (v *View) limitRights(l *rightList) {
	l.limit("memory", v.Limits.Memory, "bytes")
	l.limit("memory and swap together", v.Limits.MemorySwap, "bytes")
	l.limit("processor time", v.Limits.percent(), "percent")
	l.limit("processes", v.Limits.Pids, "")
	if v.Limits.Cpus == "" {
		l.add("limits", "cpuset", "run on every processor")
	} else {
		for _, cpu := range rangeWords(v.Limits.Cpus) {
			l.add("limits", "cpuset "+cpu, "run on processor %s", cpu)
		}
	}
	if v.Limits.OOMKillDisable {
		l.add("limits", "oom", "go on when its memory has run out: nothing in it is killed")
	}
	for _, r := range v.Rlimits {
		n := int64(-1)
		// RLIM_INFINITY is the largest number, and what comes near it is meant as that.
		if r.Hard <= 1<<62 {
			n = int64(r.Hard)
		}
		l.limit(r.Type+" for each process", &n, "")
	}
	for _, p := range v.Proc {
		if score, ok := strings.CutPrefix(p, "oom_score_adj="); ok {
			if n, err := strconv.ParseInt(score, 10, 64); err == nil && n < 0 {
				l.add("limits", "score", "be spared when the host's memory runs out (oom_score_adj %d)", n)
			}
		}
	}
	for _, text := range v.Tuning {
		if strings.Contains(text, "SCHED_FIFO") || strings.Contains(text, "SCHED_RR") || strings.Contains(text, "SCHED_DEADLINE") {
			l.add("limits", "realtime", "run before all ordinary programs of the host (%s)", text)
		}
	}
	if v.FDs > 0 {
		l.add("files", "fds", "use %d descriptors of whoever starts it", v.FDs)
	}
	for _, hook := range v.Hooks {
		l.add("host", hook, "have a program of the host run at its start: %s", hook)
	}
	// What its start changes on the host for good.
	for _, s := range v.OnHost {
		l.add("host", s, "have its start %s", s)
	}
	for _, s := range v.HostSets {
		l.add("host", s, "have %s set on the host", s)
	}
}

func (m Mount) at() string { return " (as " + m.Target + ")" }

// CapsNow are the capabilities that its program starts with: execve gives root its bounding and inheritable set, and others
// their ambient set (capabilities(7)).
func (v *View) CapsNow() []string {
	if v.UID != 0 {
		return v.Ambient
	}
	out := slices.Clone(v.Bounding)
	for _, name := range v.Inheritable {
		if !slices.Contains(out, name) {
			out = append(out, name)
		}
	}
	return out
}

// capsLater are those that it can still get: from files with the setuid bit or capabilities.
func (v *View) capsLater() []string {
	if v.NoNewPrivs {
		return v.CapsNow()
	}
	return v.Bounding
}

func (v *View) hasAny(names ...string) bool {
	now := v.CapsNow()
	return slices.ContainsFunc(names, func(n string) bool { return slices.Contains(now, n) })
}

// hostID is who an id of the container is on the host.
func hostID(m []plan.IDRange, id uint32, shared bool) (uint32, bool) {
	if shared {
		return id, true
	}
	for _, r := range m {
		if id >= r.Container && id-r.Container < r.Size {
			return r.Host + id - r.Container, true
		}
	}
	return 0, false
}

// percent is processor time in hundredths of a processor.
func (l Limits) percent() *int64 {
	if l.Quota == nil || *l.Quota < 0 {
		return nil
	}
	// The kernel's default.
	period := int64(100000)
	if l.Period != nil && *l.Period > 0 {
		period = *l.Period
	}
	n := *l.Quota * 100 / period
	return &n
}

func amountWord(n int64, unit string) string {
	switch unit {
	case "percent":
		return fmt.Sprintf("%d.%02d processors' worth", n/100, n%100)
	case "bytes":
		for _, u := range []struct {
			shift int
			name  string
		}{{30, "GiB"}, {20, "MiB"}, {10, "KiB"}} {
			if n >= 1<<u.shift && n%(1<<u.shift) == 0 {
				return fmt.Sprintf("%d %s", n>>u.shift, u.name)
			}
		}
		return fmt.Sprintf("%d bytes", n)
	}
	return fmt.Sprint(n)
}

// rangeWords takes "0-2,5" apart, up to a number that a reader can bear.
func rangeWords(s string) []string {
	var out []string
	for _, part := range strings.Split(strings.TrimSpace(s), ",") {
		from, to, isRange := strings.Cut(part, "-")
		a, err1 := strconv.Atoi(from)
		b, err2 := strconv.Atoi(to)
		if !isRange || err1 != nil || err2 != nil || b-a > 4096 {
			out = append(out, part)
			continue
		}
		for ; a <= b; a++ {
			out = append(out, strconv.Itoa(a))
		}
	}
	return out
}

// deviceAccess says what the device rules allow, as "c 1:3 r": one entry for each way of access.
func (v *View) deviceAccess() []string {
	if v.DeviceRules == nil {
		return []string{"a *:* r", "a *:* w", "a *:* m"}
	}
	var out []string
	for _, rule := range v.DeviceRules {
		f := strings.Fields(rule)
		if len(f) == 2 && f[1] == "a" { // v1 writes a lone "a" for every device
			f = []string{f[0], "a", "*:*", "rwm"}
		}
		if len(f) != 4 {
			continue
		}
		for _, way := range f[3] {
			entry := f[1] + " " + f[2] + " " + string(way)
			if f[0] == "allow" {
				out = append(out, entry)
			} else {
				out = slices.DeleteFunc(out, func(have string) bool { return deviceCovers(entry, have) })
			}
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// deviceCovers says whether the entry a is all that b is.
func deviceCovers(a, b string) bool {
	x, y := strings.Fields(a), strings.Fields(b)
	if len(x) != 3 || len(y) != 3 || x[2] != y[2] || x[0] != "a" && x[0] != y[0] {
		return false
	}
	xMajor, xMinor, _ := strings.Cut(x[1], ":")
	yMajor, yMinor, _ := strings.Cut(y[1], ":")
	return (xMajor == "*" || xMajor == yMajor) && (xMinor == "*" || xMinor == yMinor)
}

func deviceWords(entry string) string {
	f := strings.Fields(entry)
	if len(f) != 3 {
		return entry
	}
	way := map[string]string{"r": "read", "w": "write to", "m": "make nodes of"}[f[2]]
	kind := map[string]string{"c": "character device", "b": "block device", "a": "device"}[f[0]]
	if f[1] == "*:*" {
		return way + " every " + kind
	}
	return way + " " + kind + " " + f[1] + deviceName(f[0], f[1])
}

func deviceName(kind, number string) string {
	for p, d := range usualDevices() {
		if d == kind+" "+number {
			return " (" + p + ")"
		}
	}
	switch kind + " " + number {
	case "c 5:1":
		return " (/dev/console)"
	case "c 5:2":
		return " (/dev/ptmx)"
	case "c 136:*":
		return " (terminals)"
	case "c 10:200":
		return " (/dev/net/tun)"
	case "c 10:232":
		return " (/dev/kvm)"
	case "c 10:229":
		return " (/dev/fuse)"
	case "c 1:1":
		return " (/dev/mem)"
	}
	return ""
}

// covers says whether having b means having a.
func (r Right) coveredBy(b Right) bool {
	if r.Area != b.Area {
		return false
	}
	switch {
	case r.path != "" && b.path != "":
		inside := r.path == b.path || b.path == "/" || strings.HasPrefix(path.Clean(r.path), path.Clean(b.path)+"/")
		return inside && r.key == b.key
	case r.limited && b.limited:
		return r.key == b.key && (b.amount < 0 || r.amount >= 0 && r.amount <= b.amount)
	case r.Area == "devices":
		return deviceCovers(strings.TrimPrefix(b.key, "devices "), strings.TrimPrefix(r.key, "devices "))
	case b.key == "limits cpuset" && strings.HasPrefix(r.key, "limits cpuset"):
		return true
	case r.Area == "capabilities" && strings.HasSuffix(r.key, " later"):
		return b.key == r.key || b.key == strings.TrimSuffix(r.key, " later")
	case b.key == "ids any" && strings.HasPrefix(r.key, "ids uid "):
		return true
	}
	return r.key == b.key
}

// more lists the rights of a that b hasn't.
func more(a, b []Right) []Right {
	index := map[string][]Right{}
	for _, r := range b {
		index[r.Area] = append(index[r.Area], r)
	}
	exact := map[string]bool{}
	for _, r := range b {
		if r.path == "" && !r.limited {
			exact[r.key] = true
		}
	}
	out := []Right{}
	for _, r := range a {
		if exact[r.key] && r.path == "" && !r.limited {
			continue
		}
		if r.Area != "syscalls" && slices.ContainsFunc(index[r.Area], r.coveredBy) {
			continue
		}
		if r.limited && !slices.ContainsFunc(b, func(o Right) bool { return o.key == r.key }) && r.amount >= 0 {
			continue // a limit that the other lacks takes away, it gives nothing
		}
		// "mount with any arguments" is no news beside "mount".
		if call, ok := strings.CutSuffix(r.key, " any"); ok && r.Area == "syscalls" && !exact[call] {
			continue
		}
		out = append(out, r)
	}
	return out
}

// capMeaning says what a capability is for, in a few words (capabilities(7)).
func capMeaning(name string) string {
	switch name {
	case "CAP_CHOWN":
		return "give files to other users"
	case "CAP_DAC_OVERRIDE":
		return "read and write files whatever their mode says"
	case "CAP_DAC_READ_SEARCH":
		return "read any file, and open files by handle, which leads out of a container"
	case "CAP_FOWNER":
		return "change files as if it owned them"
	case "CAP_FSETID":
		return "keep setuid bits on files that it changes"
	case "CAP_KILL":
		return "signal processes of other users"
	case "CAP_SETGID":
		return "take on any group"
	case "CAP_SETUID":
		return "take on any user"
	case "CAP_SETPCAP":
		return "change its own capability sets"
	case "CAP_LINUX_IMMUTABLE":
		return "set and clear the immutable flag of files"
	case "CAP_NET_BIND_SERVICE":
		return "listen on ports below 1024"
	case "CAP_NET_BROADCAST":
		return "nothing: it is unused"
	case "CAP_NET_ADMIN":
		return "change its network: addresses, routes, firewall"
	case "CAP_NET_RAW":
		return "send and catch raw packets, with any sender's address"
	case "CAP_IPC_LOCK":
		return "lock memory"
	case "CAP_IPC_OWNER":
		return "use other users' shared memory and semaphores"
	case "CAP_SYS_MODULE":
		return "load code into the kernel"
	case "CAP_SYS_RAWIO":
		return "access ports, memory and disks directly"
	case "CAP_SYS_CHROOT":
		return "change its root directory"
	case "CAP_SYS_PTRACE":
		return "look into and change other processes"
	case "CAP_SYS_PACCT":
		return "switch process accounting"
	case "CAP_SYS_ADMIN":
		return "mount, join namespaces and a hundred things more: nearly root of the host"
	case "CAP_SYS_BOOT":
		return "restart the machine, load another kernel"
	case "CAP_SYS_NICE":
		return "take processor time from others"
	case "CAP_SYS_RESOURCE":
		return "exceed limits and quotas"
	case "CAP_SYS_TIME":
		return "set the host's clock"
	case "CAP_SYS_TTY_CONFIG":
		return "control terminals"
	case "CAP_MKNOD":
		return "make device nodes (which ones it may use, the device rules say)"
	case "CAP_LEASE":
		return "take leases on files"
	case "CAP_AUDIT_WRITE":
		return "write to the kernel's audit log"
	case "CAP_AUDIT_CONTROL":
		return "switch the kernel's audit off"
	case "CAP_SETFCAP":
		return "give files capabilities"
	case "CAP_MAC_OVERRIDE":
		return "override mandatory access control"
	case "CAP_MAC_ADMIN":
		return "change mandatory access control"
	case "CAP_SYSLOG":
		return "read the kernel's log and addresses"
	case "CAP_WAKE_ALARM":
		return "wake the machine"
	case "CAP_BLOCK_SUSPEND":
		return "keep the machine awake"
	case "CAP_AUDIT_READ":
		return "read the kernel's audit log"
	case "CAP_PERFMON":
		return "watch the whole system's performance counters"
	case "CAP_BPF":
		return "load BPF programs into the kernel"
	case "CAP_CHECKPOINT_RESTORE":
		return "choose process ids, look into processes' files"
	}
	return "unknown to this version"
}
