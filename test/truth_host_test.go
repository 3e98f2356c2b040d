package test

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"path"
	"regexp"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"glassbox/plan"
)

// effect is something that the host's processes did, in a normal form: a word, and what it was done to.
type effect struct {
	text string
	raw  string
}

// want is what a step leaves in a trace: effects whose text matches, at least min and at most max of them.
type want struct {
	re       string
	min, max int
}

const many = 1 << 20

func exactly(text string) want { return want{"^" + regexp.QuoteMeta(text) + "$", 1, 1} }

func like(re string, min, max int) want { return want{re, min, max} }

// hostWants are the effects of a step of the host, in order.
func hostWants(p *plan.Plan, i int) []want {
	q := regexp.QuoteMeta
	switch o := p.Steps[i].Op.(type) {
	case *plan.CgroupCreate:
		// Missing parents are made first, and a cpuset of v1 gets what its parent has.
		parents := `(/[^/ ]*)*`
		return []want{
			like("^mkdir /sys/fs/cgroup"+parents+"$|^write /sys/fs/cgroup"+parents+`/(cpuset\.(cpus|mems)|cgroup\.clone_children) `, 0, many),
			like("^mkdir "+q(o.Path)+"$", 0, 1), like("^write "+q(o.Path)+`/cpuset\.(cpus|mems) `, 0, 2),
		}
	case *plan.CgroupWrite:
		if o.Enable {
			return []want{like("^write "+q(o.File)+" ", 0, many)}
		}
		return []want{exactly("write " + o.File + " " + o.Value)}
	case *plan.CgroupEvacuate:
		return []want{like("^(mkdir|write) "+q(o.To), 0, many)}
	case *plan.DeviceFilter:
		return []want{like("^bpf ", 2, many)}
	case *plan.OpenTree:
		if o.Child {
			return []want{like("^setns ", 0, many), like("^open_tree "+q(o.Path)+" ", 1, 1), like("^mount_setattr ", 0, 2), like("^setns ", 0, many)}
		}
		if o.Mounts != "" {
			return []want{exactly("setns mount"), like("^open_tree ", 1, 1)}
		}
		wants := []want{exactly(fmt.Sprintf("open_tree %s %v", o.Path, o.Recursive))}
		if o.Readonly || o.IDMap != "" {
			wants = append(wants, like("^mount_setattr ", 1, 2))
		}
		return wants
	case *plan.RootMount:
		return []want{
			like("^mkdir "+q(o.Target)+"$", 0, 1),
			exactly("open_tree " + o.Target + " false"), like("^move_mount .*"+q(o.Target), 1, 1), like("^mount_setattr ", 1, 1),
			exactly("open_tree " + o.Source + " true"), like("^move_mount .*"+q(o.Target), 1, 1), like("^mount_setattr ", 1, 1),
		}
	case *plan.Clone:
		return []want{exactly("clone " + strings.Join(slices.Sorted(slices.Values(o.Namespaces)), ","))}
	case *plan.Setns:
		return []want{exactly("setns " + strings.Join(o.Namespaces, ","))}
	case *plan.Unshare:
		return []want{exactly("unshare " + strings.Join(o.Namespaces, ","))}
	case *plan.Affinity:
		return []want{like("^sched_setaffinity", 1, 1)}
	case *plan.IDMap:
		return []want{
			like(`^write /proc/\d+/setgroups deny$`, 0, 1), like(`^write /proc/\d+/uid_map `, 1, 1),
			like(`^write /proc/\d+/gid_map `, 1, 1),
		}
	case *plan.WriteProc:
		return []want{like(`^write /proc/\d+/`+q(o.File+" "+o.Value)+"$", 1, 1)}
	case *plan.WriteFile:
		return []want{exactly("write " + o.Path + " " + o.Value)}
	case *plan.Rlimit:
		return []want{like(`^prlimit64 `, 1, 1)}
	case *plan.NftBridge:
		var wants []want
		for _, r := range o.Rules {
			words := strings.Fields(r)
			kind := map[string]string{
				"add table": "0", "flush table": "8", "add map": "9", "add set": "9", "add chain": "3", "add rule": "6",
			}[words[0]+" "+words[1]]
			re := "^nft " + kind + " .*" + q(words[3])
			if len(words) > 4 {
				re += ".*" + q(words[4])
			}
			wants = append(wants, like(re, 1, 1))
		}
		return oneOrNone(wants)
	case *plan.LinkBridge:
		wants := []want{
			like("^route new link .*"+q(o.Name)+".*bridge|^route new link .*bridge.*"+q(o.Name), 1, 1),
			like("^route set link .*"+q(o.Name)+".*glassbox", 1, 1), // whose it is
		}
		for _, set := range o.Sysctls {
			key, value, _ := strings.Cut(set, "=")
			wants = append(wants, exactly("write /proc/sys/"+key+" "+value))
		}
		address := netip.MustParsePrefix(o.Address).Addr().As4()
		return oneOrNone(append(wants, like("^route new address .*"+q(plainBytes(address[:])), 1, 1), like("^route new link", 1, 1)))
	case *plan.LinkVeth:
		wants := []want{like("(?s)^route new link .*"+q(o.Name)+".*veth.*"+q(o.Peer), 1, 1), like("^route (new|set) link ", 0, 3)}
		for _, set := range o.Sysctls {
			key, value, _ := strings.Cut(set, "=")
			wants = append(wants, like("^setns net$", 0, 2), exactly("write /proc/sys/"+key+" "+value))
		}
		return wants
	case *plan.LinkAddress:
		wants := []want{like("^setns net$", 0, 2)}
		if o.Address != "" {
			address := netip.MustParsePrefix(o.Address).Addr().As4()
			wants = append(wants, like("(?s)^route new address .*"+q(plainBytes(address[:])), 1, 1))
		}
		return append(wants, like("^route new link ", 1, 1))
	case *plan.RouteDefault:
		via := netip.MustParseAddr(o.Via).As4()
		return []want{like("(?s)^route new route .*"+q(plainBytes(via[:])), 1, 1)}
	case *plan.NftGuard:
		return []want{like("(?s)^nft 12 .*"+q(o.Table)+".*"+q(o.Link), 1+len(o.Addresses), 1+len(o.Addresses))}
	case *plan.NftPublish:
		var ports []want
		for _, port := range o.Ports {
			ports = append(ports, like("(?s)^nft 12 .*"+q(o.Table)+".*"+q(plainBytes(binary.BigEndian.AppendUint16(nil, port.HostPort))), 1, 1))
		}
		return ports
	case *plan.Hook:
		if o.Enter { // it is started as exec starts a program: in the container's cgroups and namespaces, with what limits the caller had
			before := like(`^(setns|unshare|clone|setgroups|setresuid|setresgid|capset) |^prlimit64 |`+
				`^write /sys/fs/cgroup/[^ ]*/(tasks|cgroup\.procs) 0$`, 1, many)
			return []want{before, like("^exec "+q(o.Path)+"$", 1, 1), like(`^setns `, 0, many)}
		}
		return []want{like(`^(setns|unshare) `, 0, many), like("^exec "+q(o.Path)+"$", 1, 1), like(`^(setns|unshare) `, 0, many)}
	}
	return nil
}

// oneOrNone makes wants of which all or none are there: what a bridge has is made once.
func oneOrNone(wants []want) []want {
	for i := range wants {
		wants[i].min = -1 // as the first one
	}
	return wants
}

// undoWants are the effects of a step that takes something back.
func undoWants(op plan.Op) []want {
	q := regexp.QuoteMeta
	switch o := op.(type) {
	case *plan.CgroupRemove:
		return []want{like("^rmdir "+q(o.Path)+"(/|$)", 1, many)}
	case *plan.LinkDelete:
		return []want{like("^route delete link ", 0, 1)} // it goes with the network namespace, if that is faster
	case *plan.RootUnmount:
		return []want{like("^umount2 .*"+q(o.Target), 2, 3), like("^rmdir "+q(o.Target)+"$", 0, 1)}
	case *plan.NftUnguard:
		return nil // what it says is of no use without the cable: vacatedWants
	case *plan.NftUnpublish:
		var ports []want
		for _, port := range o.Ports {
			ports = append(ports, like("(?s)^nft 14 .*"+q(o.Table)+".*"+q(plainBytes(binary.BigEndian.AppendUint16(nil, port.HostPort))), 1, 1))
		}
		return ports
	}
	return nil
}

func (tr *trace) compareHost(p *plan.Plan, children []int) error {
	effects := tr.effects(children)
	at := 0
	consume := func(what string, wants []want) error {
		all := 0 // of those that are there together or not at all: 1 there, -1 not
		for _, w := range wants {
			re := regexp.MustCompile("(?s)" + w.re)
			n := 0
			for at < len(effects) && n < w.max && re.MatchString(effects[at].text) {
				at++
				n++
			}
			min := w.min
			if min < 0 {
				if all == 0 {
					all = 1
					if n == 0 {
						all = -1
					}
				}
				min = max(all, 0)
				if all < 0 && n > 0 {
					return fmt.Errorf("%s: only a part of it was made", what)
				}
			}
			if n < min {
				next := "there is nothing more"
				if at < len(effects) {
					next = fmt.Sprintf("next comes %q: %s", effects[at].text, effects[at].raw)
				}
				return fmt.Errorf("%s left no trace (%s): %s", what, w.re, next)
			}
		}
		return nil
	}
	for i, s := range p.Steps {
		if s.Lane != plan.Host {
			continue
		}
		if err := consume(fmt.Sprintf("step %d, %s,", i+1, s.Op), hostWants(p, i)); err != nil {
			return err
		}
	}
	// What is left in the cgroup is ended before all else.
	if err := consume("the end", []want{like(`^write /sys/fs/cgroup/\S+/cgroup\.kill 1$`, 0, 1)}); err != nil {
		return err
	}
	for _, s := range p.Undo(len(p.Steps)) {
		if err := consume("taking back: "+s.Op.String(), undoWants(s.Op)); err != nil {
			return err
		}
	}
	for _, s := range p.Undo(len(p.Steps)) {
		if o, ok := s.Op.(*plan.NftUnguard); ok {
			if err := consume("the last one's leaving: "+o.String(), vacatedWants(o)); err != nil {
				return err
			}
		}
	}
	if at < len(effects) {
		return fmt.Errorf("%q is in no step: %s", effects[at].text, effects[at].raw)
	}
	return nil
}

// vacatedWants are the effects of the end of a network's last container, after all else: what its guard says of ports is taken out at once.
func vacatedWants(o *plan.NftUnguard) []want {
	// strace can't tell whose socket that of a process is that has executed itself anew, and takes the ends of a transaction for links.
	return []want{
		like("^route new link ", 0, 1), like("(?s)^nft 14 .*"+regexp.QuoteMeta(o.Table), 2, 3), like("^route delete link ", 0, 1),
	}
}

// effects are what the processes of the host did, in order.
func (tr *trace) effects(children []int) []effect {
	var out []effect
	// The host's threads are the first one and those that they clone; what a container clones has numbers of its own.
	host := map[int]bool{tr.calls[0].pid: true}
	for n := 0; n != len(host); {
		n = len(host)
		for _, c := range tr.calls {
			if host[c.pid] && slices.Contains([]string{"clone", "clone3", "fork", "vfork"}, c.name) && c.ret > 0 &&
				!slices.Contains(children, c.ret) {
				host[c.ret] = true
			}
		}
	}
	exe := map[int]bool{} // clones of the runtime's own executable, which it runs from a read-only mount
	// A new network namespace may be made ahead by another thread; the one that clones is in it for the clone. Together that is the
	// clone's effect, if all of it is there: one unshare and the way back of that thread, and both ways of the one that clones.
	const net = unix.CLONE_NEWNET
	cloner, maker, turns := tr.calls[tr.child].pid, 0, 0
	for i, c := range tr.calls {
		if !host[c.pid] || c.errno != "" || !c.done || i == 0 {
			continue
		}
		e := callEffects{traced: c, out: &out}
		arg := e.arg
		if n, ok := number(arg(0)); ok && exe[int(n)] && (c.name == "mount_setattr" || c.name == "execveat") {
			if c.name == "execveat" {
				delete(exe, int(n)) // the number is free again
			}
			continue
		}
		switch c.name {
		case "mount", "umount2", "move_mount", "fsopen", "fsconfig", "fsmount", "fspick", "mount_setattr", "pivot_root", "chroot", "mknod",
			"mknodat", "bpf", "keyctl", "add_key", "sethostname",
			"setdomainname", "sched_setaffinity", "sched_setattr", "ioprio_set", "set_mempolicy", "personality", "init_module", "finit_module",
			"swapon", "swapoff", "reboot", "settimeofday",
			"clock_settime", "adjtimex", "quotactl", "ptrace", "setgroups", "setresuid", "setresgid", "setuid", "setgid", "capset", "seccomp",
			"acct", "kexec_load", "umount":
			e.add("%s %s", c.name, unhex(strings.Join(c.args, " ")))
		case "open_tree":
			if name, _ := quoted(arg(1)); name == "/proc/self/exe" || path.Base(name) == "glassbox-runtime" && c.pid != tr.calls[tr.child].pid {
				exe[c.ret] = true
				continue
			}
			delete(exe, c.ret)
			if flags, _ := number(arg(2)); flags&unix.OPEN_TREE_CLONE != 0 {
				e.add("open_tree %s %v", e.file(arg(0), arg(1)), flags&unix.AT_RECURSIVE != 0)
			}
		case "setns", "unshare":
			n := 0
			if c.name == "setns" {
				n = 1
			}
			flags, _ := number(arg(n))
			switch {
			case c.name == "unshare" && flags == net && c.pid != cloner && maker == 0:
				maker = c.pid
				continue
			case c.name == "setns" && flags == net && maker != 0 &&
				(turns == 0 && c.pid == maker || turns == 1 && c.pid == cloner && i < tr.child || turns == 2 && c.pid == cloner && i > tr.child):
				turns++
				continue
			}
			if words := spaces(flags); words != "" || c.name == "setns" {
				e.add("%s %s", c.name, words)
			}
		case "clone3", "clone":
			flags := field(c.text, "flags")
			if i == tr.child && turns == 2 {
				flags |= net
			}
			if words := spaces(flags); words != "" || i == tr.child {
				e.add("clone %s", words)
			}
		case "prlimit64":
			if pid, _ := number(arg(0)); pid != 0 && arg(2) != "NULL" {
				e.add("prlimit64 %s %s", arg(1), arg(2))
			}
		default:
			e.files()
		}
	}
	return out
}

// callEffects notes what one call of a process of the host's did.
type callEffects struct {
	traced
	out *[]effect
}

func (e *callEffects) add(format string, a ...any) {
	raw := unhex(e.text)
	*e.out = append(*e.out, effect{fmt.Sprintf(format, a...), raw[:min(len(raw), 300)]})
}

func (e *callEffects) arg(n int) string {
	if n < len(e.args) {
		return e.args[n]
	}
	return ""
}

// file is the path that a call names by a directory and a name.
func (*callEffects) file(dir, name string) string {
	p, _ := quoted(name)
	if !path.IsAbs(p) {
		p = path.Join(behind(dir), p)
	}
	return path.Clean(p)
}

func (e *callEffects) changed(word, p string) {
	if !ours(p) {
		e.add("%s %s", word, p)
	}
}

// files notes what a call did to files, and what it told the kernel by writing.
func (e *callEffects) files() {
	switch e.name {
	case "write", "pwrite64", "writev":
		text, _ := quoted(e.arg(1))
		p := behind(e.arg(0))
		switch {
		case strings.HasPrefix(p, "NETLINK:"):
			e.add("netlink by %s", e.name)
		case regexp.MustCompile(`^/proc/\d+/comm$`).MatchString(p): // its own name
		case strings.HasPrefix(p, "/proc/") || strings.HasPrefix(p, "/sys/"):
			e.add("write %s %s", p, text)
		case path.IsAbs(p):
			e.changed("write", p)
		}
	case "sendto", "sendmsg":
		if strings.HasPrefix(behind(e.arg(0)), "NETLINK:") {
			for _, m := range messages(e.text) {
				e.add("%s", m)
			}
		}
	case "mkdir", "rmdir", "unlink", "chmod", "chown", "lchown", "truncate", "creat":
		p, _ := quoted(e.arg(0))
		e.changed(e.name, p)
	case "mkdirat", "fchmodat", "fchmodat2", "fchownat":
		e.changed(strings.TrimSuffix(e.name, "at"), e.file(e.arg(0), e.arg(1)))
	case "unlinkat":
		word := "unlink"
		if flags, _ := number(e.arg(2)); flags&unix.AT_REMOVEDIR != 0 {
			word = "rmdir"
		}
		e.changed(word, e.file(e.arg(0), e.arg(1)))
	case "rename", "link", "symlink":
		p, _ := quoted(e.arg(1))
		e.changed(e.name, p)
	case "renameat", "renameat2", "linkat":
		e.changed(e.name, e.file(e.arg(2), e.arg(3)))
	case "symlinkat":
		e.changed(e.name, e.file(e.arg(1), e.arg(2)))
	case "fchmod", "fchown", "ftruncate", "fsetxattr", "fallocate":
		if p := behind(e.arg(0)); path.IsAbs(p) && !strings.HasPrefix(p, "/memfd:") {
			e.changed(e.name, p)
		}
	case "execve", "execveat":
		p, _ := quoted(e.arg(0))
		if name := path.Base(p); name != "glassbox" && name != "glassbox-runtime" && p != "/proc/self/exe" &&
			!strings.HasPrefix(p, "/proc/self/fd/") {
			e.add("exec %s", p)
		}
	case "openat", "open", "openat2":
		n := 2
		if e.name == "open" {
			n = 1
		}
		flags, _ := number(e.arg(n))
		if e.name == "openat2" {
			flags = field(e.arg(2), "flags")
		}
		if flags&(unix.O_CREAT|unix.O_TRUNC) != 0 {
			e.changed("create", e.file(e.arg(0), e.arg(1)))
		}
	}
}

// ours reports whether a path is glassbox's own: its book-keeping.
func ours(p string) bool {
	for _, dir := range []string{store, "/run/glassbox", "/run/glassbox-runtime"} {
		if p == dir || strings.HasPrefix(p, dir+"/") {
			return true
		}
	}
	return p == "/dev/null" || strings.HasPrefix(p, "/memfd:")
}

// spaces are the namespaces of clone flags, sorted.
func spaces(flags uint64) string {
	var out []string
	for name, bit := range map[string]uint64{
		"mount": unix.CLONE_NEWNS, "pid": unix.CLONE_NEWPID, "uts": unix.CLONE_NEWUTS, "ipc": unix.CLONE_NEWIPC, "net": unix.CLONE_NEWNET,
		"user":   unix.CLONE_NEWUSER,
		"cgroup": unix.CLONE_NEWCGROUP, "time": unix.CLONE_NEWTIME,
	} {
		if flags&bit != 0 {
			out = append(out, name)
		}
	}
	slices.Sort(out)
	return strings.Join(out, ",")
}

// plainBytes writes what is no printable character as \xNN.
func plainBytes(data []byte) string {
	var b strings.Builder
	for _, c := range data {
		if c > ' ' && c < 0x7f {
			b.WriteByte(c)
		} else {
			fmt.Fprintf(&b, `\x%02x`, c)
		}
	}
	return b.String()
}

// messages are the netlink messages of a call that change something, each with the texts and addresses that are in it.
func messages(text string) []string {
	var out []string
	for _, part := range strings.Split(text, "{nlmsg_len=")[1:] {
		kind, _, _ := strings.Cut(part[strings.Index(part, "nlmsg_type=")+len("nlmsg_type="):], ",")
		high, low, subsystem := strings.Cut(kind, "<<8|")
		var typ uint64
		if subsystem {
			h, _ := number(high)
			l, _ := number(low)
			typ = h<<8 | l
		} else {
			typ, _ = number(kind)
		}
		var payload strings.Builder
		for _, m := range regexp.MustCompile(`"((?:\\x[0-9a-f]{2})*)"`).FindAllStringSubmatch(part, -1) {
			payload.WriteString(plainBytes([]byte(unhex(m[1]))) + " ")
		}
		nft := strings.Contains(text, "NETFILTER") || typ>>8 == unix.NFNL_SUBSYS_NFTABLES
		switch {
		case typ>>8 == unix.NFNL_SUBSYS_NFTABLES:
			t := typ & 0xff
			if !slices.Contains([]uint64{1, 4, 7, 10, 13, 16, 19, 21}, t) { // NFT_MSG_GET…
				out = append(out, fmt.Sprintf("nft %d %s", t, payload.String()))
			}
		case nft: // begin and end of a transaction
		case typ >= unix.RTM_BASE && (typ-unix.RTM_BASE)%4 != 2:
			verb := []string{"new", "delete", "get", "set"}[(typ-unix.RTM_BASE)%4]
			what := map[uint64]string{0: "link", 1: "address", 2: "route"}[(typ-unix.RTM_BASE)/4]
			if what == "" {
				what = fmt.Sprint(typ)
			}
			out = append(out, fmt.Sprintf("route %s %s %s", verb, what, payload.String()))
		}
	}
	return out
}
