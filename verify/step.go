package verify

import (
	"errors"
	"fmt"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"glassbox/plan"
)

// key names the one thing that several steps may set one after the other: the last one is what can be seen. "" for the others.
func key(op plan.Op) string {
	switch o := op.(type) {
	case *plan.CgroupWrite:
		if o.Enable {
			return ""
		}
		return "cgroup " + o.File + " " + entry(o.File, o.Value)
	case *plan.Rlimit:
		return "rlimit " + o.Type
	case *plan.Sysctl:
		return "sysctl " + o.Key
	case *plan.WriteProc:
		return "proc " + o.File
	case *plan.WriteFile:
		return "file " + o.Path
	case *plan.Umask, *plan.Setresuid, *plan.Setresgid, *plan.Setgroups, *plan.Capset, *plan.AmbientCaps, *plan.Chdir, *plan.Sethostname,
		*plan.Setdomainname,
		*plan.Sched, *plan.IOPriority, *plan.Affinity, *plan.MemPolicy, *plan.Personality, *plan.IDMap, *plan.TimeOffsets:
		return op.Kind()
	}
	return ""
}

// step decides about a step. It reports false for a kind that it doesn't know.
func (v *view) step(i int) (Finding, bool) {
	s := v.plan.Steps[i]
	if k := key(s.Op); k != "" && v.keys[k] > i {
		return unseen("step %d sets it again", v.keys[k]+1), true
	}
	if v.waits >= 0 && i > v.waits && s.Lane == plan.Child {
		return unseen("not made yet: the container is created and not started, its process waits at step %d", v.waits+1), true
	}
	switch o := s.Op.(type) {
	// Cgroups.
	case *plan.CgroupCreate:
		return directory(o.Path, "a cgroup"), true
	case *plan.CgroupRemove:
		return v.absent(o.Path), true
	case *plan.CgroupWrite:
		return v.cgroupValue(i, o), true
	case *plan.CgroupEvacuate:
		return v.evacuated(o), true
	case *plan.CgroupOpen:
		return unseen(closedSince), true
	case *plan.CgroupJoin:
		return v.inCgroup(v.opened(o.From)), true
	case *plan.CgroupAttach:
		return v.inCgroup(o.Path), true

	// Resource classes.
	case *plan.ResctrlCreate:
		return directory(o.Path, "a resource class"), true
	case *plan.ResctrlRemove:
		return v.absent(o.Path), true
	case *plan.ResctrlCheck:
		return hasShare(o.Path, o.Schemata), true
	case *plan.ResctrlWrite:
		return hasShare(o.Path, o.Schemata), true
	case *plan.ResctrlJoin:
		return v.inClass(v.opened(o.From)), true
	case *plan.Quota:
		return bounded(o), true
	case *plan.SystemdScope:
		return v.inUnit(o.Unit), true
	case *plan.SystemdAttach:
		return v.inUnit(o.Unit), true
	case *plan.SystemdSet:
		return unseen("systemd translates a unit's properties itself; what comes of them is in the files of the unit's cgroup, whose form " +
			"is systemd's"), true
	case *plan.SystemdStop:
		return unseen(noTraceOf, "a unit that has ended is forgotten"), true
	case *plan.DeviceFilter:
		return v.deviceFilter(o), true

	// Descriptors.
	case *plan.OpenTree, *plan.Open, *plan.OpenPid, *plan.OpenDir, *plan.RecvFD, *plan.SendFD, *plan.InheritFDs:
		return unseen(closedSince), true
	case *plan.UserNamespace:
		return unseen("no process lives in it; the mount that it was made for shows that it has ids of its own"), true
	case *plan.SendListener:
		return unseen(noTraceOf, "a descriptor, handed to another process"), true
	case *plan.CopyUp:
		return unseen("files are copied once, and programs may change them from then on"), true

	// Namespaces.
	case *plan.Clone:
		return v.newNamespaces(o.Namespaces, s.Lane, i, o.Cgroup), true
	case *plan.Unshare:
		return v.newNamespaces(o.Namespaces, s.Lane, i, ""), true
	case *plan.Setns:
		return v.joined(i, o), true
	case *plan.Adopt:
		return unseen(noTraceOf, "who waits for a process"), true
	case *plan.TimeOffsets:
		return v.timeOffsets(o), true
	case *plan.IDMap:
		return v.idMap(o), true
	case *plan.Release, *plan.Await, *plan.Notify, *plan.Expect:
		return unseen(noTraceOf, "a byte between parent and child"), true
	case *plan.AwaitStart:
		if v.waits == i {
			return holds(v.proc("stat"), "it waits"), true
		}
		return unseen(noTraceOf, "the wait is over"), true
	case *plan.Hook:
		return unseen("a program of the host ran and ended; what it did is its own"), true

	// Mounts.
	case *plan.Mount, *plan.Overlay, *plan.RootMount, *plan.Chroot, *plan.PivotRoot, *plan.MoveRoot, *plan.FSMount, *plan.MoveMount,
		*plan.Remount, *plan.MaskPath, *plan.ReadonlyPath, *plan.BindConsole:
		return v.mounts.finding(i), true
	case *plan.HostMount:
		return v.hostMount(o), true
	case *plan.RootUnmount, *plan.HostUnmount:
		return unseen(noTraceOf, "what takes something back"), true
	case *plan.RootDir:
		return unseen(noTraceOf, "the working directory of a moment"), true

	// Files of the container.
	case *plan.Mkdir:
		return v.madeDir(o), true
	case *plan.Mknod:
		return v.node(o), true
	case *plan.Symlink:
		return v.symlink(o), true

	// Settings.
	case *plan.LinkUp:
		return v.linkUp(o.Link), true
	case *plan.Sethostname:
		return v.uts("hostname", o.Name), true
	case *plan.Setdomainname:
		return v.uts("domainname", o.Name), true
	case *plan.Sysctl:
		return v.sysctl(o), true
	case *plan.WriteProc:
		return v.writtenProc(o), true
	case *plan.WriteFile:
		return v.writtenFile(o), true
	case *plan.Rlimit:
		return v.rlimit(o), true
	case *plan.Sched:
		return v.sched(o), true
	case *plan.IOPriority:
		return v.ioPriority(o), true
	case *plan.Affinity:
		return v.affinity(o), true
	case *plan.MemPolicy:
		return v.memPolicy(o), true
	case *plan.Personality:
		return v.personality(o), true
	case *plan.Umask:
		return v.umask(o), true
	case *plan.Keyring:
		return unseen("only a process itself sees its session keyring"), true

	// Terminal.
	case *plan.OpenConsole:
		return unseen(closedSince), true
	case *plan.Stdio:
		return v.stdio(o), true
	case *plan.Setsid:
		return v.session(o), true

	// Privileges.
	case *plan.ParentDeath:
		return unseen("only a process itself can ask for it (PR_GET_PDEATHSIG)"), true
	case *plan.Dumpable:
		return unseen(noTraceOf, "execve sets it anew"), true
	case *plan.NoNewPrivs:
		return same(v.proc("status"), "NoNewPrivs 1", "NoNewPrivs "+v.status["NoNewPrivs"], byHost()), true
	case *plan.Seccomp:
		return v.filter(), true
	case *plan.DropBounding:
		return v.bounding(o), true
	case *plan.KeepCaps:
		return unseen(noTraceOf, "execve takes it back"), true
	case *plan.Setgroups:
		return v.supplementary(o), true
	case *plan.Setresgid:
		return v.id("Gid", o.GID), true
	case *plan.Setresuid:
		return v.id("Uid", o.UID), true
	case *plan.Capset:
		return v.caps(o), true
	case *plan.AmbientCaps:
		return v.ambient(o), true

	// The program.
	case *plan.Chdir:
		return v.cwd(o), true
	case *plan.FindProgram:
		return unseen(noTraceOf, "it only looked"), true
	case *plan.CloseRange:
		return unseen(noTraceOf, "what is closed; the program opens its own"), true
	case *plan.Execve:
		return v.program(o), true

	// Network.
	case *plan.LinkBridge:
		return v.bridge(o), true
	case *plan.LinkVeth:
		return v.veth(o), true
	case *plan.LinkRate:
		return v.rate(o), true
	case *plan.LinkMacvlan:
		return v.macvlan(o), true
	case *plan.LinkVLAN:
		return v.vlan(o), true
	case *plan.LinkMove:
		return v.movedLink(o), true
	case *plan.LinkDelete:
		return v.noLink(o), true
	case *plan.LinkAddress:
		return v.address(o), true
	case *plan.RouteDefault:
		return v.defaultRoute(o), true
	case *plan.NftBridge:
		return v.table(o), true
	case *plan.NftPublish:
		return v.published(o), true
	case *plan.NftUnpublish:
		return v.unpublished(o), true
	case *plan.NftWall:
		return v.wall(o), true
	case *plan.NftUnwall:
		return v.noWall(o), true
	case *plan.FirewallAccept:
		return v.letThrough(o), true
	case *plan.NftGuard:
		return v.guarded(o), true
	case *plan.NftUnguard:
		return v.unguarded(o), true
	case *plan.NameAdd:
		return v.named(o), true
	case *plan.NameRemove:
		return v.forgotten(o), true
	case *plan.PortCarry:
		return v.carried(o), true
	case *plan.NameListen:
		return unseen("its supervisor answers there, by sockets that nobody else sees"), true
	}
	return Finding{}, false
}

// unlisted looks for what is there and in no step.
func (v *view) unlisted() {
	v.otherNamespaces()
	v.mounts.unlisted(v)
	v.otherDevices()
	v.otherLinks()
	v.otherRules()
	v.otherProcesses()
}

// opened is the path that was opened under a name.
func (v *view) opened(name string) string {
	for _, s := range v.plan.Steps {
		switch o := s.Op.(type) {
		case *plan.CgroupOpen:
			if o.Save == name {
				return o.Path
			}
		case *plan.Open:
			if o.Save == name {
				return o.Path
			}
		case *plan.OpenPid:
			if o.Save == name {
				return "/proc/" + strconv.Itoa(o.Pid)
			}
		}
	}
	return ""
}

func (v *view) absent(name string) Finding {
	if _, err := os.Lstat(name); errors.Is(err, os.ErrNotExist) {
		return holds(name, "it isn't there")
	} else if err != nil {
		return failed(name, err)
	}
	return differs(name, "nothing", "it is there", byHost())
}

// ---- namespaces ----

func nsFile(kind string) string {
	if kind == "mount" {
		return "ns/mnt"
	}
	return "ns/" + kind
}

// namespace returns the process's namespace and this program's own, like "net:[4026531840]".
func (v *view) namespace(kind string) (its, own string, err error) {
	if its, err = v.link(nsFile(kind)); err != nil {
		return "", "", err
	}
	own, err = os.Readlink("/proc/self/" + nsFile(kind))
	return its, own, err
}

// newNamespaces decides about namespaces that were made. A step that makes one of a kind that a later step makes or joins again is
// about a namespace that the process has left.
func (v *view) newNamespaces(kinds []string, lane plan.Lane, i int, cgroup string) Finding {
	var found, wrong, left []string
	where := v.proc("ns/")
	for _, kind := range kinds {
		if v.leaves(kind, i) {
			left = append(left, kind)
			continue
		}
		its, own, err := v.namespace(kind)
		switch {
		case err != nil:
			return failed(v.proc(nsFile(kind)), err)
		case its == own:
			wrong = append(wrong, its+" is that of this command, too")
		default:
			found = append(found, its)
		}
	}
	if cgroup != "" && len(wrong) == 0 {
		if f := v.inCgroup(v.opened(cgroup)); f.Verdict != Holds {
			return f
		}
		where, found = where+", "+v.proc("cgroup"), append(found, "in its cgroup")
	}
	switch {
	case len(wrong) > 0:
		return differs(where, "new namespaces: "+strings.Join(kinds, " "), strings.Join(wrong, ", "),
			v.moved("the process has joined another namespace, or it isn't the one that the plan made, or this command runs in the container"))
	case len(found) == 0 && len(left) > 0:
		return unseen("a later step leaves it again")
	case len(found) == 0:
		return unseen(noTraceOf, "a process is a process")
	}
	return holds(where, strings.Join(found, " "))
}

// leaves reports whether a later step makes or joins a namespace of a kind anew.
func (v *view) leaves(kind string, i int) bool {
	for _, s := range v.plan.Steps[i+1:] {
		switch o := s.Op.(type) {
		case *plan.Clone:
			if slices.Contains(o.Namespaces, kind) {
				return true
			}
		case *plan.Unshare:
			if slices.Contains(o.Namespaces, kind) {
				return true
			}
		case *plan.Setns:
			if slices.Contains(o.Namespaces, kind) {
				return true
			}
		}
	}
	return false
}

// moved is the cause of a namespace of the process that isn't the plan's: nobody else can move it. unshare(2) and setns(2) take
// CAP_SYS_ADMIN, which the process has in a user namespace that it has made before (user_namespaces(7)); no filter forbids it that then.
func (v *view) moved(words string) cause {
	return cause{v.canHave("CAP_SYS_ADMIN") || !has[*plan.Seccomp](v), words}
}

func (v *view) joined(i int, o *plan.Setns) Finding {
	from := v.opened(o.From)
	if from == "" {
		return unseen("the namespace was given by descriptor, which is closed since")
	}
	var found []string
	for _, kind := range o.Namespaces {
		if v.leaves(kind, i) {
			continue
		}
		file := from
		// A pidfd of the plan, which stands for all namespaces of a process.
		if path.Dir(from) == "/proc" {
			file = from + "/" + nsFile(kind)
		}
		var st unix.Stat_t
		if err := unix.Stat(file, &st); err != nil {
			if errors.Is(err, unix.ENOENT) {
				return unseen("%s, which it joined, is gone", file)
			}
			return failed(file, err)
		}
		its, err := v.link(nsFile(kind))
		if err != nil {
			return failed(v.proc(nsFile(kind)), err)
		}
		name, _, _ := strings.Cut(its, ":")
		want := fmt.Sprintf("%s:[%d]", name, st.Ino)
		if its != want {
			return differs(v.proc(nsFile(kind)), want+", as "+file, its,
				v.moved("the process may have left it, with CAP_SYS_ADMIN, or the file stands for another one by now"))
		}
		found = append(found, its)
	}
	if len(found) == 0 {
		return unseen("a later step leaves it again")
	}
	return holds(v.proc("ns/"), strings.Join(found, " "))
}

// otherNamespaces finds namespaces of the process that should be the host's and aren't.
func (v *view) otherNamespaces() {
	own := v.plan.Namespaces()
	for _, kind := range []string{"mount", "pid", "uts", "ipc", "net", "user", "cgroup", "time"} {
		if slices.Contains(own, kind) {
			continue
		}
		if its, mine, err := v.namespace(kind); err == nil && its != mine {
			v.beside("its "+kind+" namespace isn't that of this command", v.proc(nsFile(kind)),
				v.moved("the plan leaves it in the host's: the program may have made one of its own (unshare), or this command runs in another "+
					"one than glassbox did"))
		}
	}
}

func (v *view) timeOffsets(o *plan.TimeOffsets) Finding {
	text, err := v.read("timens_offsets")
	if err != nil {
		return failed(v.proc("timens_offsets"), err)
	}
	found := map[string]string{}
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		if len(f) == 3 {
			found[f[0]] = f[1] + " " + f[2]
		}
	}
	for _, t := range o.Offsets {
		want := fmt.Sprintf("%d %d", t.Secs, t.Nanosecs)
		if found[t.Clock] != want {
			return differs(v.proc("timens_offsets"), t.Clock+" "+want, t.Clock+" "+found[t.Clock], byHost())
		}
	}
	return holds(v.proc("timens_offsets"), squeeze(text))
}

func squeeze(s string) string { return strings.Join(strings.Fields(s), " ") }

func (v *view) idMap(o *plan.IDMap) Finding {
	for _, m := range []struct {
		file string
		want []plan.IDRange
	}{{"uid_map", o.UID}, {"gid_map", o.GID}} {
		text, err := v.read(m.file)
		if err != nil {
			return failed(v.proc(m.file), err)
		}
		have, want := parseMap(text), slices.Clone(m.want)
		byContainer := func(a, b plan.IDRange) int { return int(int64(a.Container) - int64(b.Container)) }
		slices.SortFunc(have, byContainer)
		slices.SortFunc(want, byContainer)
		if !slices.Equal(have, want) {
			return differs(v.proc(m.file), fmt.Sprint(want), fmt.Sprint(have),
				others("a map is written once: the process is in another user namespace than the plan's, or this command is in another one than "+
					"glassbox was"))
		}
	}
	text, err := v.read("setgroups")
	if err == nil && o.DenySetgroups && strings.TrimSpace(text) != "deny" {
		return differs(v.proc("setgroups"), "deny", strings.TrimSpace(text), byHost())
	}
	return holds(v.proc("uid_map")+", gid_map", fmt.Sprintf("%d and %d ranges", len(o.UID), len(o.GID)))
}

func parseMap(text string) []plan.IDRange {
	var out []plan.IDRange
	for line := range strings.Lines(text) {
		var r plan.IDRange
		if n, _ := fmt.Sscan(line, &r.Container, &r.Host, &r.Size); n == 3 {
			out = append(out, r)
		}
	}
	return out
}

// outside translates an id of the container to what this program sees. Without a map each id stands for itself.
func (v *view) outside(file string, id uint32) uint32 {
	text, err := v.read(file)
	if err != nil {
		return id
	}
	ranges := parseMap(text)
	for _, r := range ranges {
		if id >= r.Container && uint64(id) < uint64(r.Container)+uint64(r.Size) {
			return r.Host + (id - r.Container)
		}
	}
	if len(ranges) == 0 {
		return id
	}
	return 65534 // the overflow id
}
