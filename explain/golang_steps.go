package explain

import (
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"

	"glassbox/plan"
)

// goFlags joins constants: "nosuid", "nodev" → unix.MS_NOSUID | unix.MS_NODEV.
func goFlags(prefix string, words []string) string {
	names := map[string]string{"ro": "RDONLY", "rec": "REC", "iversion": "I_VERSION"}
	var out []string
	for _, w := range words {
		out = append(out, "unix."+prefix+or(names[w], strings.ToUpper(w)))
	}
	return or(strings.Join(out, "|"), "0")
}

func goNamespaces(names []string) string {
	words := map[string]string{
		"mount": "NS", "pid": "PID", "uts": "UTS", "ipc": "IPC", "net": "NET", "user": "USER", "cgroup": "CGROUP",
		"time": "TIME",
	}
	var out []string
	for _, n := range names {
		out = append(out, "unix.CLONE_NEW"+or(words[n], strings.ToUpper(n)))
	}
	return or(strings.Join(out, "|"), "0")
}

func known(words []string, sets ...[]string) bool {
	return !slices.ContainsFunc(words, func(w string) bool { return !slices.Contains(slices.Concat(sets...), w) })
}

func goAttrs() []string {
	return []string{"ro", "nosuid", "nodev", "noexec", "nodiratime", "nosymfollow", "noatime", "relatime", "strictatime"}
}

// setattr is a call that changes a mount's attributes and how it spreads: constants of Go, or "".
type setattr struct {
	recursive          bool
	set, clear, spread string
}

// setattrs returns the calls that a step needs.
func setattrs(set, clear, recSet, recClear, propagation []string) ([]setattr, bool) {
	if !known(slices.Concat(set, clear, recSet, recClear), goAttrs()) {
		return nil, false
	}
	attrs := func(recursive bool, set, clear []string) setattr {
		s := setattr{recursive: recursive, clear: goFlags("MOUNT_ATTR_", clear)}
		if len(set) > 0 {
			s.set = goFlags("MOUNT_ATTR_", set)
		}
		// The modes of access time are one field, not bits.
		if slices.ContainsFunc(slices.Concat(set, clear), func(w string) bool { return strings.HasSuffix(w, "atime") && w != "nodiratime" }) {
			s.clear += "|unix.MOUNT_ATTR__ATIME"
		}
		if s.clear == "0" {
			s.clear = ""
		}
		return s
	}
	one, below := attrs(false, set, clear), attrs(true, recSet, recClear)
	var out []setattr
	for i, w := range propagation {
		rest, recursive := strings.CutPrefix(w, "r")
		if !known([]string{rest}, []string{"private", "slave", "shared", "unbindable"}) {
			return nil, false
		}
		spread := "unix.MS_" + strings.ToUpper(rest)
		// The last one goes together with attributes of as many mounts.
		switch {
		case i == len(propagation)-1 && recursive && one == setattr{}:
			below.spread = spread
		case i == len(propagation)-1 && !recursive:
			one.spread = spread
		default:
			out = append(out, setattr{recursive: recursive, spread: spread})
		}
	}
	for _, s := range []setattr{one, below} {
		if s != (setattr{recursive: s.recursive}) {
			out = append(out, s)
		}
	}
	return out, true
}

// texts are calls as Go has them, each in two parts, for lines that aren't long.
func texts(calls []setattr, dirfd, at, flags string) (out []string) {
	for _, s := range calls {
		var fields []string
		for _, f := range [][2]string{{"Propagation", s.spread}, {"Attr_set", s.set}, {"Attr_clr", s.clear}} {
			if f[1] != "" {
				fields = append(fields, f[0]+": "+f[1])
			}
		}
		f := strings.Trim(flags+when(s.recursive, "|unix.AT_RECURSIVE", ""), "|")
		out = append(out, "unix.MountSetattr("+dirfd+", "+at+", "+or(f, "0"), "&unix.MountAttr{"+strings.Join(fields, ", ")+"})")
	}
	return out
}

// step returns what makes a step; false if such a program can't.
func (g *golang) step(s plan.Step) (goLine, bool) {
	note := func(format string, a ...any) (goLine, bool) { return goLine{note: fmt.Sprintf(format, a...)}, true }
	// list is a call whose arguments after the first ones several steps can share.
	list := func(fn string, fixed []string, items ...string) (goLine, bool) {
		g.use(fn)
		return goLine{fn: fn, items: slices.Concat(fixed, items), fixed: len(fixed), join: true}, true
	}
	text := func(lines ...string) (goLine, bool) { return goLine{text: lines}, true }
	// check is what returns an error.
	check := func(calls ...string) (goLine, bool) { return goLine{fn: "check", items: calls, join: true}, true }
	none := func() (goLine, bool) { return goLine{}, false }
	// drop is a call that returns an error and something that nobody needs.
	drop := func(call string) (goLine, bool) {
		if g.tight >= withoutComments {
			g.use("second")
			return check("second(" + call + ")")
		}
		g.use("ok")
		return text("ok(" + call + ")")
	}
	// each does the same with several texts.
	each := func(fn string, items ...string) (goLine, bool) {
		g.use(fn, "each")
		return goLine{fn: "each", items: append([]string{fn}, items...), fixed: 1, join: true}, true
	}
	host := s.Lane == plan.Host
	if g.second && !host {
		return none() // it is the second child that would make it
	}
	if g.tight >= withoutAny && host {
		if line, ok := g.script(s.Op); ok {
			return line, true
		}
	}
	switch o := s.Op.(type) {
	// Cgroups.
	case *plan.CgroupCreate:
		fn := "cgroup"
		if slices.ContainsFunc(g.plan.Steps, func(s plan.Step) bool {
			c, ok := s.Op.(*plan.CgroupCreate)
			return ok && slices.Contains(c.Controllers, "cpuset")
		}) {
			fn = "cpuset"
		}
		g.use(fn, "each")
		if len(g.groups) > 1 { // with the first all are made
			return goLine{fn: "each", items: []string{"cgroup", "groups..."}, fixed: 2, join: true}, true
		}
		return goLine{text: []string{"cgroup(" + g.groups[0] + ")"}}, true
	case *plan.CgroupWrite:
		if o.Enable {
			// Those that aren't there are missed by whoever writes their limits.
			return text("for _, controller := range []string{"+strings.Join(g.lits(strings.Fields(o.Value)), ", ")+"} {",
				"os.WriteFile("+g.lit(o.File)+", []byte(controller), 0)", "}")
		}
		if g.tight >= withoutScript && !g.again(o) {
			return each("set1", g.lit(o.File+"="+o.Value))
		}
		return list("write", []string{g.lit(o.File)}, g.lit(o.Value))
	case *plan.CgroupOpen:
		g.opened[o.Save] = o.Path
		if strings.HasSuffix(o.Path, "/tasks") {
			return note("the child joins by name")
		}
		return note("the child joins by name")
	case *plan.CgroupJoin:
		dir, ok := strings.CutSuffix(g.opened[o.From], "/tasks")
		if !ok {
			return none()
		}
		g.use("write")
		return g.join(each("join", g.lit(dir)))
	case *plan.CgroupEvacuate:
		g.use("evacuate")
		return text("evacuate(" + g.lit(o.From) + ", " + g.lit(o.To) + ")")
	case *plan.CgroupAttach:
		g.use("fmt")
		return list("write", []string{g.lit(o.Path + "/cgroup.procs")}, "fmt.Sprint(cmd.Process.Pid)")
	case *plan.DeviceFilter:
		if len(o.Program) == 0 {
			return none()
		}
		g.use("devices")
		return text("devices(" + g.lit(o.Path) + ", " + strconv.Quote(compress(o.Program)) + ")")

	// What the child gets from the host.
	case *plan.OpenTree:
		if o.FSType != "" || o.IDMap != "" && !strings.HasPrefix(g.have[o.IDMap], "users") {
			return none()
		}
		switch {
		case o.Child && o.IDMap == "" && o.Device == "":
			g.opened[o.Save] = o.Path
			return note("the child does it, with recv-fd")
		case o.Child || host && o.Device != "" || !host && o.IDMap != "" || o.Readonly && (host || o.Device != ""):
			return none()
		case o.Device != "":
			g.numberTree(o.Save)
			return each("device", g.lit(o.Device+" "+o.Path))
		case !host:
			return each(g.tree(o), g.lit(o.Path))
		}
		g.give(o.Save)
		clone := when(o.Recursive, "give", "giveOne")
		if o.IDMap != "" {
			g.use(clone)
			return list("giveAs", []string{g.have[o.IDMap], clone, when(o.IDMapRecursive, "unix.AT_RECURSIVE", "0")}, g.lit(o.Path))
		}
		line, ok := each(clone, g.lit(o.Path))
		if o.MakeDir {
			line.before = "if _, err := os.Stat(" + g.lit(o.Path) + "); err != nil { check(os.MkdirAll(" + g.lit(o.Path) + ", 0o755)) }"
		}
		return line, ok
	case *plan.UserNamespace:
		if len(o.UID) == 0 || len(o.GID) == 0 {
			return none()
		}
		g.use("users")
		g.have[o.Save] = fmt.Sprintf("users%d", len(g.have))
		return text(g.packed(g.have[o.Save]+" := users(", []string{
			"[]syscall.SysProcIDMap{" + strings.Join(goIDs(o.UID), ", ") + "}",
			"[]syscall.SysProcIDMap{" + strings.Join(goIDs(o.GID), ", ") + "}",
		}, ")")...)
	case *plan.RecvFD:
		if host {
			if !g.hasConsole() {
				return none()
			}
			g.words["console"] = true
			g.use("relay")
			return text("relayed := relay(pair[0])")
		}
		t := slices.IndexFunc(g.plan.Steps, func(s plan.Step) bool {
			t, ok := s.Op.(*plan.OpenTree)
			return ok && t.Child && t.Save == o.Save
		})
		if t < 0 || g.opened[o.Save] == "" {
			return none()
		}
		return each(g.tree(g.plan.Steps[t].Op.(*plan.OpenTree)), g.lit(g.opened[o.Save]))
	case *plan.Open:
		if o.Path == "" || o.Other != "" {
			return none()
		}
		g.give(o.Save)
		return each("giveFile", g.lit(o.Path))

	// Namespaces.
	case *plan.Clone:
		if !host || !known(o.Namespaces, []string{"mount", "pid", "uts", "ipc", "net", "user"}) || slices.Contains(o.Namespaces, "user") &&
			g.idMap() == nil {
			g.second = g.second || !host
			return none()
		}
		return text(g.clone(o)...)
	case *plan.IDMap:
		if g.idMap() != o {
			return none()
		}
		return note("in SysProcAttr above: the child starts itself again only when its ids are mapped")
	case *plan.Unshare:
		if host || !slices.Equal(o.Namespaces, []string{"cgroup"}) {
			return none() // of a user namespace a process with threads can't make its own: unshare(2)
		}
		return check("unix.Unshare(unix.CLONE_NEWCGROUP)")
	case *plan.Setns:
		allowed := []string{"net", "uts", "ipc", "cgroup"}
		if host {
			allowed = []string{"pid"}
		}
		from := g.have[o.From]
		if host && from != "" { // the file that the child gets is open here, too
			from = fmt.Sprintf("int(cmd.ExtraFiles[%d].Fd())", g.given[o.From]-3)
		}
		if from == "" || len(o.Namespaces) == 0 || !known(o.Namespaces, allowed) {
			return none() // a process with threads can't join another mount or user namespace: setns(2)
		}
		return check("unix.Setns(" + from + ", " + goNamespaces(o.Namespaces) + ")")
	case *plan.Release, *plan.Notify:
		return drop("unix.Write(" + when(host, "pair[0]", "3") + ", []byte{1})")
	case *plan.Await:
		g.words["parent"] = true
		return drop("parent.Read(make([]byte, 1))")
	case *plan.Expect:
		g.use("ok")
		return text("if ok(unix.Read(pair[0], make([]byte, 1))) == 0 {", `panic("the child is gone")`, "}")
	case *plan.AwaitStart:
		return note("it starts at once: here create and start are not two commands")

	// The root and the mounts below it.
	case *plan.Mount:
		flags := []string{
			"bind", "rec", "private", "slave", "shared", "unbindable", "ro", "nosuid", "nodev", "noexec", "remount", "noatime",
			"relatime", "nodiratime", "strictatime", "nosymfollow", "silent", "iversion",
		}
		if !known(o.Flags, flags) {
			return none()
		}
		return check("unix.Mount(" + strings.Join(g.lits([]string{o.Source, o.Target, o.Type}), ", ") + ", " + goFlags("MS_", o.Flags) + ", " +
			g.lit(o.Data) + ")")
	case *plan.Overlay:
		var upper []string
		if o.Upper != "" {
			upper = []string{"upperdir=" + o.Upper, "workdir=" + o.Work}
		}
		lines := []string{"check(unix.Chdir(" + g.lit(o.Dir) + "))"}
		if o.Append {
			g.use("layers")
			var options []string
			for _, l := range o.Lower {
				options = append(options, "lowerdir+="+l)
			}
			return text(append(lines, g.packed("layers(", g.lits(append([]string{o.Target}, slices.Concat(options, upper, o.Options)...)),
				")")...)...)
		}
		words := append([]string{"lowerdir=" + strings.Join(o.Lower, ":")}, slices.Concat(upper, o.Options)...)
		args := []string{`"overlay"`, g.lit(o.Target), `"overlay"`, "0"}
		for i, w := range words {
			word := g.lit(w + when(i < len(words)-1, ",", ""))
			if i == 0 {
				args = append(args, word)
			} else {
				args[len(args)-1] += "+" + word
			}
		}
		if g.tight >= withoutComments {
			args[0], args[len(args)-1] = "unix.Mount("+args[0], args[len(args)-1]+")"
			return check(append([]string{"unix.Chdir(" + g.lit(o.Dir) + ")"}, args...)...)
		}
		return text(append(lines, g.packed("check(unix.Mount(", args, "))")...)...)
	case *plan.RootDir:
		if slices.ContainsFunc(g.plan.Steps, func(s plan.Step) bool { _, hook := s.Op.(*plan.Hook); return hook }) {
			return none() // until the hooks have run, names of the container are below it
		}
		return check("unix.Chdir(" + g.lit(o.Path) + ")")
	case *plan.PivotRoot:
		return check("unix.Chdir("+g.lit(o.Root)+")", `unix.PivotRoot(".", ".")`, `unix.Unmount(".", unix.MNT_DETACH)`, `unix.Chdir("/")`)
	case *plan.FSMount:
		if place := attached(g.plan, o); o.Target == "" && place != nil && place.KeepMode {
			return note("made where it gets its place, for the mode of what is there")
		}
		return g.fsmount(o)
	case *plan.MoveMount:
		from := g.have[o.From]
		if o.KeepMode {
			if made := g.plan.FileSystem(o); made != nil {
				return g.fsmount(made)
			}
		}
		calls, ok := setattrs(o.Set, slices.Concat(o.Clear, o.Unlocked), o.RecSet, o.RecClear, o.Propagation)
		if !ok || from == "" {
			return none()
		}
		if g.tight >= withoutScript { // as mount(2) has them: these have the same bits
			for i := range calls {
				for _, bits := range []*string{&calls[i].set, &calls[i].clear} {
					for _, w := range []string{"ro", "nosuid", "nodev", "noexec"} {
						if name := goFlags("MOUNT_ATTR_", []string{w}); strings.Contains(*bits, name) {
							*bits, g.words[w] = strings.ReplaceAll(*bits, name, w), true
						}
					}
				}
			}
		}
		g.use("attach")
		if g.tight >= withoutAny && len(calls) == 1 { // bind takes the same in fewer words
			g.use("bind")
			c := calls[0]
			return check("bind(" + strings.Join([]string{
				from, g.lit(o.Target), when(c.recursive, "unix.AT_RECURSIVE", "0"), or(c.set, "0"),
				or(c.clear, "0"), or(c.spread, "0"),
			}, ", ") + ")")
		}
		return check(append(texts(calls, from, `""`, "unix.AT_EMPTY_PATH"), "attach("+from+", "+g.lit(o.Target)+")")...)
	case *plan.Remount:
		if len(o.Options) > 0 {
			return none()
		}
		calls, ok := setattrs(o.Set, o.Clear, o.RecSet, o.RecClear, o.Propagation)
		if !ok || len(calls) == 0 {
			return none()
		}
		return check(texts(calls, "unix.AT_FDCWD", g.lit(o.Target), "")...)
	case *plan.MaskPath:
		if tree := g.have[o.Null]; strings.HasPrefix(tree, "trees[") { // the host's null device, which is in its place already
			g.use("null")
			g.nullOpen, g.have[o.Null] = "null = "+tree, "null"
		}
		if g.have[o.Null] != "null" || o.Label != "" {
			return none()
		}
		if open := g.nullOpen; open != "" {
			g.nullOpen = ""
			line, _ := each("mask", g.lit(o.Path))
			line.before = open
			return line, true
		}
		return each("mask", g.lit(o.Path))
	case *plan.ReadonlyPath:
		return each("readonly", g.lit(o.Path))
	case *plan.Mkdir:
		return check("os.MkdirAll(" + g.lit(o.Path) + fmt.Sprintf(", %#o)", o.Mode))
	case *plan.Mknod:
		kind := map[string]uint32{"c": 0o020000, "u": 0o020000, "b": 0o060000, "p": 0o010000}[o.Type]
		if kind == 0 || strings.ContainsAny(o.Path, " \t\n\v\f\r\u0085\u00a0") {
			return none()
		}
		line, _ := each("node", g.lit(fmt.Sprintf("%#o %d:%d %d:%d %s", kind|o.Mode, o.Major, o.Minor, o.UID, o.GID, o.Path)))
		if path.Dir(path.Clean("/"+o.Path)) != "/dev" {
			line.items[0] = "deep"
			g.use("deep")
		}
		if o.Existing == "required" {
			line = goLine{note: "it must be there already"}
		}
		if o.Save != "" {
			if g.words["null"] || o.Type != "c" || o.Major != 1 || o.Minor != 3 {
				return none()
			}
			g.use("ok", "null")
			g.words["null"], g.have[o.Save] = true, "null"
			open := "null = ok(unix.Open(" + g.lit(o.Path) + ", unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0))"
			if line.note != "" {
				return text(open)
			}
			if g.tight < withoutAny {
				return text(line.items[0]+"("+line.items[1]+")", open)
			}
			g.nullOpen = open // once the other devices are there, too
		}
		return line, true
	case *plan.Symlink:
		if strings.Contains(o.Path, " -> ") {
			return none()
		}
		line, _ := each("link", g.lit(o.Path+" -> "+o.Target))
		switch {
		case o.Replace:
			line, _ = each("relink", line.items[1])
		case o.Existing:
			line.text = []string{"if _, err := os.Stat(" + g.lit(o.Target) + "); err == nil {", "link(" + line.items[1] + ")", "}"}
		}
		return line, true

	// Settings.
	case *plan.LinkUp:
		g.use("up")
		return text("up(" + g.lit(o.Link) + ")")
	case *plan.Sethostname:
		return check("unix.Sethostname([]byte(" + g.lit(o.Name) + "))")
	case *plan.Setdomainname:
		return check("unix.Setdomainname([]byte(" + g.lit(o.Name) + "))")
	case *plan.Sysctl:
		return g.set(o.From, "/sys/"+o.Key, o.Value)
	case *plan.WriteProc:
		if host {
			g.use("fmt")
			return list("write", []string{`fmt.Sprintf("/proc/%d/%s", cmd.Process.Pid, ` + g.lit(o.File) + ")"}, g.lit(o.Value))
		}
		return g.set(o.From, "/self/"+o.File, o.Value)
	case *plan.WriteFile:
		if g.tight >= withoutScript && !strings.Contains(o.Path, "=") {
			return each("set1", g.lit(o.Path+"="+o.Value))
		}
		return list("write", []string{g.lit(o.Path)}, g.lit(o.Value))
	case *plan.Rlimit:
		n := slices.Index([]string{
			"CPU", "FSIZE", "DATA", "STACK", "CORE", "RSS", "NPROC", "NOFILE", "MEMLOCK", "AS", "LOCKS", "SIGPENDING",
			"MSGQUEUE", "NICE", "RTPRIO", "RTTIME",
		}, strings.TrimPrefix(o.Type, "RLIMIT_"))
		if n < 0 {
			return none()
		}
		pid := when(host, "cmd.Process.Pid", "0")
		return check(fmt.Sprintf("unix.Prlimit(%s, %d, &unix.Rlimit{Cur: %s, Max: %s}, nil)", pid, n, goLimit(o.Soft), goLimit(o.Hard)))
	case *plan.Sched:
		policy := slices.Index([]string{"SCHED_OTHER", "SCHED_FIFO", "SCHED_RR", "SCHED_BATCH", "SCHED_ISO", "SCHED_IDLE", "SCHED_DEADLINE"},
			o.Policy)
		if policy < 0 || len(o.Flags) > 0 {
			return none()
		}
		return check(fmt.Sprintf("unix.SchedSetAttr(0, &unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: %d, Nice: %d, Priority: %d, "+
			"Runtime: %d, Deadline: %d, Period: %d}, 0)",
			policy, o.Nice, o.Priority, o.Runtime, o.Deadline, o.Period))
	case *plan.Affinity:
		if o.Unless > 0 {
			return note("if it is bound")
		}
		mask, err := plan.ParseList(o.CPUs)
		if err != nil || len(mask) == 0 || len(mask) > 16 {
			return none()
		}
		var words []string
		for _, m := range mask {
			words = append(words, fmt.Sprintf("%#x", m))
		}
		return check("unix.SchedSetaffinity(0, &unix.CPUSet{" + strings.Join(words, ", ") + "})")
	case *plan.IOPriority:
		class := 1 + slices.Index([]string{"IOPRIO_CLASS_RT", "IOPRIO_CLASS_BE", "IOPRIO_CLASS_IDLE"}, o.Class)
		if class == 0 {
			return none()
		}
		return text(fmt.Sprintf("if _, _, e := unix.RawSyscall(unix.SYS_IOPRIO_SET, 1, 0, %d<<13|%d); e != 0 {", class, o.Priority), "panic(e)",
			"}")
	case *plan.Personality:
		domain := slices.Index([]string{"LINUX", "LINUX32"}, o.Domain)
		if domain < 0 {
			return none()
		}
		return text(fmt.Sprintf("if _, _, e := unix.RawSyscall(unix.SYS_PERSONALITY, %d, 0, 0); e != 0 {", 8*domain), "panic(e)", "}")
	case *plan.Umask:
		if g.tight >= withoutComments {
			g.use("umask")
			return check(fmt.Sprintf("umask(%#o)", o.Mask))
		}
		return text(fmt.Sprintf("unix.Umask(%#o)", o.Mask))
	case *plan.Keyring:
		if o.Name == "" { // no name at all: an empty one is EINVAL (keyctl_join_session_keyring(3))
			return drop("unix.KeyctlInt(unix.KEYCTL_JOIN_SESSION_KEYRING, 0, 0, 0, 0)")
		}
		return drop("unix.KeyctlJoinSessionKeyring(" + g.lit(o.Name) + ")")

	// Terminal and standard streams.
	case *plan.Stdio:
		if o.To >= 0 && o.To < 3 && o.From == []string{"stdin", "stdout", "stderr"}[o.To] {
			return note("it has this program's")
		}
		if from := g.have[o.From]; from == "terminal" && o.To >= 0 && o.To < 3 {
			return check(fmt.Sprintf("unix.Dup3(%s, %d, 0)", from, o.To))
		}
		return none()
	case *plan.OpenConsole:
		if !g.hasConsole() {
			return none()
		}
		g.use("console")
		g.have[o.Slave] = "terminal"
		open := fmt.Sprintf("terminal := console(%d, %d, %d)", o.Rows, o.Cols, o.UID)
		if o.Plain {
			open += "\nflags := ok(unix.IoctlGetTermios(terminal, unix.TCGETS))\nflags.Oflag &^= " +
				"unix.ONLCR\ncheck(unix.IoctlSetTermios(terminal, unix.TCSETS, flags))"
		}
		return text(open)
	case *plan.SendFD:
		if !g.hasConsole() {
			return none()
		}
		return note("console has done it")
	case *plan.BindConsole:
		if g.have[o.From] != "terminal" {
			return none()
		}
		g.use("ok", "attach")
		return check(`attach(ok(unix.OpenTree(terminal, "", unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_EMPTY_PATH)), "/dev/console")`)
	case *plan.Setsid:
		if o.Controlling {
			return check("second(unix.Setsid())", "unix.IoctlSetInt(0, unix.TIOCSCTTY, 0)")
		}
		return drop("unix.Setsid()")

	// Privileges.
	case *plan.ParentDeath:
		return check(fmt.Sprintf("unix.Prctl(unix.PR_SET_PDEATHSIG, %d, 0, 0, 0)", o.Signal))
	case *plan.Dumpable:
		return check(fmt.Sprintf("unix.Prctl(unix.PR_SET_DUMPABLE, %d, 0, 0, 0)", o.Value))
	case *plan.NoNewPrivs:
		return check("unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)")
	case *plan.KeepCaps:
		return check("unix.Prctl(unix.PR_SET_KEEPCAPS, 1, 0, 0, 0)")
	case *plan.Seccomp:
		if o.Notify != "" || len(o.Program) == 0 || g.filter != "" {
			return none()
		}
		g.filter = compress(o.Program)
		g.use("inflate", "unsafe")
		return text("code := inflate(filter)",
			"program := &unix.SockFprog{Len: uint16(len(code) / 8), Filter: (*unix.SockFilter)(unsafe.Pointer(&code[0]))}",
			fmt.Sprintf("if _, _, e := unix.RawSyscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, %d, uintptr(unsafe.Pointer(program))); e "+
				"!= 0 {", o.Flags), "panic(e)", "}")
	case *plan.DropBounding:
		caps, ok := goCaps(o.Caps)
		if !ok {
			return none()
		}
		if g.tight >= withoutComments {
			for i, name := range o.Caps {
				caps[i] = strconv.Itoa(plan.CapNumber(name))
			}
		}
		return text(append(g.packed("for _, c := range []uintptr{", caps, "} {"), "check(unix.Prctl(unix.PR_CAPBSET_DROP, c, 0, 0, 0))", "}")...)
	case *plan.AmbientCaps:
		caps, ok := goCaps(o.Caps)
		if !ok {
			return none()
		}
		return text(append(g.packed("for _, c := range []uintptr{", caps, "} {"),
			"check(unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_RAISE, c, 0, 0))", "}")...)
	case *plan.Capset:
		return g.capset(o)
	case *plan.Setgroups:
		var ids []string
		for _, id := range o.Groups {
			ids = append(ids, fmt.Sprint(id))
		}
		call := "unix.Setgroups([]int{" + strings.Join(ids, ", ") + "})"
		if o.IfAllowed {
			return text("if err := "+call+"; err != unix.EPERM {", "check(err)", "}")
		}
		return check(call)
	case *plan.Setresgid:
		return check(fmt.Sprintf("unix.Setresgid(%d, %d, %d)", o.GID, o.GID, o.GID))
	case *plan.Setresuid:
		return check(fmt.Sprintf("unix.Setresuid(%d, %d, %d)", o.UID, o.UID, o.UID))

	// The program.
	case *plan.Chdir:
		g.use("ok")
		switch {
		case o.Try:
			g.words["entered"] = true
			return text("entered := unix.Chdir("+g.lit(o.Path)+") == nil", "if entered {",
				"ok(unix.Getwd()) // an error if it lies outside the root (CVE-2024-21626)", "}")
		case g.words["entered"]:
			return text("if !entered {", "check(unix.Chdir("+g.lit(o.Path)+"))", "}", "ok(unix.Getwd())")
		}
		if g.tight >= withoutComments {
			g.use("second")
			return check("unix.Chdir("+g.lit(o.Path)+")", "second(unix.Getwd())")
		}
		return text("check(unix.Chdir("+g.lit(o.Path)+"))", "ok(unix.Getwd()) // an error if it lies outside the root (CVE-2024-21626)")
	case *plan.InheritFDs:
		if o.Count > 0 {
			return none()
		}
		return note("there are none")
	case *plan.FindProgram:
		return note("execve says so if there is none")
	case *plan.CloseRange:
		return check(fmt.Sprintf("unix.CloseRange(%d, 1<<31, unix.CLOSE_RANGE_CLOEXEC)", o.First)) // by execve: the runtime needs some until then
	case *plan.Execve:
		if len(o.Candidates) == 0 {
			return none()
		}
		lines := g.packed("env := []string{", g.lits(o.Env), "}")
		if len(o.Candidates) == 1 {
			return text(append(lines, g.packed("check(unix.Exec("+g.lit(o.Candidates[0])+", []string{", g.lits(o.Argv), "}, env))")...)...)
		}
		argv := "[]string{" + strings.Join(g.lits(o.Argv), ", ") + "}"
		if g.tight < withoutAny || len(argv) > 90 {
			lines = append(lines, g.packed("argv := []string{", g.lits(o.Argv), "}")...)
			argv = "argv"
		}
		if g.tight >= withoutScript {
			g.use("slices")
			lines = append(lines, g.packed("files := []string{", g.lits(o.Candidates), "}")...)
			return text(append(lines, "there := slices.IndexFunc(files, func(f string) bool { return unix.Access(f, unix.X_OK) == nil })",
				"check(unix.Exec(files[there], "+argv+", env))")...)
		}
		lines = append(lines, g.packed("for _, file := range []string{", g.lits(o.Candidates), "} {")...)
		return text(append(lines, "if err := unix.Exec(file, "+argv+", env); err != unix.ENOENT && err != unix.ENOTDIR && err != unix.EACCES {",
			"panic(err)", "}", "}", "panic(unix.ENOENT)")...)

	// The network.
	case *plan.LinkBridge:
		return g.bridge(o)
	case *plan.LinkVeth:
		mtu := ""
		if o.MTU != 0 {
			mtu = fmt.Sprintf(" mtu %d", o.MTU)
		}
		commands := []string{
			fmt.Sprintf("ip link add name %s%s type veth peer name %s%s%s netns ", o.Name, mtu, o.Peer, when(o.MAC != "", " address "+o.MAC, ""),
				mtu),
			fmt.Sprintf("ip link set dev %s master %s up", o.Name, o.Bridge),
		}
		if o.Hairpin {
			commands = append(commands, fmt.Sprintf("bridge link set dev %s hairpin on", o.Name))
		}
		if !plainWords(o.Name, o.Peer, o.Bridge) || o.MAC != "" && !plainWords(o.MAC) {
			return none()
		}
		g.use("run")
		items := g.lits(commands)
		items[0] += "+pid"
		for _, set := range o.Sysctls {
			if !plainWords(set) {
				return none()
			}
			// -e: a kernel without IPv6 has no such file.
			items = append(items, `"nsenter --net=/proc/"+pid+`+g.lit("/ns/net sysctl -qew "+strings.ReplaceAll(set, "/", ".")))
		}
		return goLine{fn: "run", items: append([]string{`""`}, items...), fixed: 1, join: true}, true
	case *plan.LinkMove:
		if line, ok := g.script(o); ok {
			return line, true
		}
		return none()
	case *plan.LinkAddress:
		if !plainWords(o.Link) || o.Address != "" && !plainWords(o.Address) {
			return none()
		}
		var commands []string
		if o.Address != "" {
			commands = append(commands, "addr add "+o.Address+" brd + dev "+o.Link)
		}
		return g.inside(append(commands, "link set dev "+o.Link+" up")...)
	case *plan.RouteDefault:
		if !plainWords(o.Via, o.Link) {
			return none()
		}
		return g.inside("route add default via " + o.Via + " dev " + o.Link)
	case *plan.NftBridge:
		if !plainWords(o.Table) {
			return none()
		}
		g.use("run")
		lines := []string{"if exec.Command(" + strings.Join(g.lits([]string{"nft", "list", "table", "ip", o.Table}), ", ") + ").Run() != nil {"}
		input := nftBlocks(o.Rules, g.width)
		if g.tight < withoutComments {
			input = strings.Join(o.Rules, "\n")
		}
		if strings.Contains(input, "`") || strings.Contains(input, "\r") {
			return none()
		}
		return text(append(lines, "run(`"+input+"`, \"nft -f -\")", "}")...)
	case *plan.NftPublish:
		var lines []string
		for _, p := range o.Ports {
			name, element := portElement(p, true)
			args := g.lits([]string{"nft", "add", "element", "ip", o.Table, name, "{ " + element + " }"})
			lines = append(lines, "check(exec.Command("+strings.Join(args, ", ")+").Run())")
		}
		if len(lines) == 0 {
			return note("no port")
		}
		return text(lines...)

	// Each of these is a program of its own, or needs a process without threads.
	case *plan.CgroupRemove, *plan.LinkDelete, *plan.NftUnpublish, *plan.OpenPid, *plan.Adopt, *plan.TimeOffsets,
		*plan.SendListener, *plan.CopyUp, *plan.OpenDir, *plan.Hook, *plan.MoveRoot, *plan.RootMount, *plan.RootUnmount, *plan.Chroot,
		*plan.MemPolicy,
		*plan.SystemdScope, *plan.SystemdSet, *plan.SystemdAttach, *plan.SystemdStop,
		*plan.ResctrlCreate, *plan.ResctrlRemove, *plan.ResctrlCheck, *plan.ResctrlWrite, *plan.ResctrlJoin:
		return none()
	}
	return none()
}

// fsmount mounts with mount(2), which takes one call where the plan's own way takes five.
func (g *golang) fsmount(o *plan.FSMount) (goLine, bool) {
	if o.Label != "" || !known(o.Attrs, goAttrs()) || !known(o.Flags, []string{"silent", "iversion"}) {
		return goLine{}, false
	}
	if o.Target == "" && (o.Type != "proc" || len(o.Options) > 0 || g.words["procfs"]) {
		if o.Optional || len(o.Flags) > 0 {
			return goLine{}, false
		}
		g.use("detached")
		g.have[o.Save] = fmt.Sprintf("fs%d", len(g.have))
		if o.Type == "proc" {
			g.words["proc "+o.Save] = true
		}
		args := append(g.lits([]string{o.Type, or(o.Source, o.Type)}), goFlags("MOUNT_ATTR_", o.Attrs))
		return goLine{text: g.packed(g.have[o.Save]+" := detached(", append(args, g.lits(o.Options)...), ")")}, true
	}
	if o.Target == "" { // a procfs, often for settings only
		g.use("ok")
		g.words["procfs"], g.words["proc "+o.Save], g.have[o.Save] = true, true, "procfs"
		return goLine{text: []string{
			"procfs := ok(unix.Fsopen(\"proc\", unix.FSOPEN_CLOEXEC))", "check(" +
				when(o.Source != "", "unix.FsconfigSetString(procfs, \"source\", "+g.lit(o.Source)+"), ", "") + "unix.FsconfigCreate(procfs))",
			"procfs = ok(unix.Fsmount(procfs, unix.FSMOUNT_CLOEXEC, " + goFlags("MOUNT_ATTR_", o.Attrs) + "))",
		}}, true
	}
	if strings.Contains(o.Target, " ") || slices.ContainsFunc(o.Options, func(s string) bool { return strings.Contains(s, ",") }) ||
		o.Optional && o.KeepMode {
		return goLine{}, false
	}
	g.procs[o.Save] = o.Target
	place := o.Target
	if len(o.Options) > 0 {
		place += " " + strings.Join(o.Options, ",")
	}
	g.use(when(o.KeepMode, "cover", "mount"))
	for _, a := range o.Attrs {
		g.words[a] = true
	}
	words := slices.Clone(o.Attrs)
	for _, f := range o.Flags {
		words = append(words, goFlags("MS_", []string{f}))
	}
	line := goLine{fn: when(o.KeepMode, "cover", "mount"), items: []string{
		g.lit(o.Type), g.lit(o.Source), or(strings.Join(words, "|"), "0"),
		g.lit(place),
	}, fixed: 3, join: true}
	if len(o.Propagation) > 0 {
		spread, ok := setattrs(nil, nil, nil, nil, o.Propagation)
		if !ok {
			return goLine{}, false
		}
		calls := texts(spread, "unix.AT_FDCWD", g.lit(o.Target), "")
		if g.tight >= withoutScript { // there they return errors
			line.items = append([]string{line.fn + "(" + strings.Join(line.items, ", ") + ")"}, calls...)
			line.fn, line.fixed = "check", 0
			return line, true
		}
		line.text = append(g.packed(line.fn+"(", line.items, ")"), g.packed("check(", calls, ")")...)
	}
	if o.Optional && g.tight < withoutAny { // most kernels have it
		if line.text == nil {
			line.text = g.packed("mount(", line.items, ")")
		}
		known := `if known, _ := os.ReadFile("/proc/filesystems"); strings.Contains(string(known), ` + g.lit("\t"+o.Type+"\n") + ") {"
		line.text = slices.Concat([]string{known}, line.text, []string{"}"})
	}
	return line, true
}

// set writes a setting through a procfs: by its place, or by its descriptor if it has none.
func (g *golang) set(from, file, value string) (goLine, bool) {
	if at := g.procs[from]; at != "" {
		if g.tight >= withoutScript {
			g.use("set1", "each")
			return goLine{fn: "each", items: []string{"set1", g.lit(at + file + "=" + value)}, fixed: 1, join: true}, true
		}
		g.use("write")
		return goLine{fn: "write", items: []string{g.lit(at + file), g.lit(value)}, fixed: 1, join: true}, true
	}
	if !g.words["proc "+from] {
		return goLine{}, false
	}
	g.use("set")
	return goLine{fn: "set", items: []string{g.have[from], g.lit(file[1:] + "=" + value)}, fixed: 1, join: true}, true
}

// join makes the cgroups that the child joins groups[:9], if they are the first ones.
func (g *golang) join(line goLine, ok bool) (goLine, bool) {
	dir := line.items[1]
	if n := len(g.child); n > 0 && g.child[n-1].fn == "each" && g.child[n-1].items[0] == "join" &&
		strings.HasPrefix(g.child[n-1].items[1], "groups[") {
		last := &g.child[n-1]
		if k := g.joined; k < len(g.groups) && g.groups[k] == dir {
			g.joined++
			last.items[1] = fmt.Sprintf("groups[:%d]...", g.joined)
			last.last++
			return goLine{fn: "joined"}, true
		}
	}
	if len(g.groups) > 1 && len(g.child) == 0 && g.groups[0] == dir {
		g.joined = 1
		return goLine{fn: "each", items: []string{"join", "groups[:1]..."}, fixed: 2}, true
	}
	return goLine{text: []string{"join(" + dir + ")"}}, ok
}

// again reports whether a file is written more than once.
func (g *golang) again(w *plan.CgroupWrite) bool {
	n := 0
	for _, s := range g.plan.Steps {
		if o, ok := s.Op.(*plan.CgroupWrite); ok && o.File == w.File {
			n++
		}
	}
	return n > 1 || strings.Contains(w.File, "=")
}

// give makes a descriptor of the parent the child's.
func (g *golang) give(save string) {
	g.given[save] = 4 + len(g.given)
	g.have[save] = strconv.Itoa(g.given[save])
}

// numberTree names a clone of a mount that the child makes before the root changes: they have numbers.
func (g *golang) numberTree(save string) {
	g.have[save] = fmt.Sprintf("trees[%d]", g.trees)
	g.trees++
}

// tree names such a clone, and returns the function that makes it.
func (g *golang) tree(o *plan.OpenTree) string {
	g.numberTree(o.Save)
	g.words["ro"] = g.words["ro"] || o.Readonly
	return "tree" + when(o.Recursive, "", "One") + when(o.Readonly, "Readonly", "")
}

// hasConsole reports whether a plan has one terminal, with both of its ends going the usual way.
func (g *golang) hasConsole() bool {
	if g.tight >= withoutTerminal {
		return false
	}
	var master string
	made, sent, got := 0, 0, 0
	for _, s := range g.plan.Steps {
		switch o := s.Op.(type) {
		case *plan.OpenConsole:
			master = o.Master
			made++
		case *plan.SendFD:
			if o.From != master || master == "" {
				return false
			}
			sent++
		case *plan.RecvFD:
			if s.Lane == plan.Host {
				got++
			}
		}
	}
	return made == 1 && sent == 1 && got == 1
}

// goIDs are ranges of ids as Go has them.
func goIDs(ranges []plan.IDRange) (ids []string) {
	for _, r := range ranges {
		ids = append(ids, fmt.Sprintf("{ContainerID: %d, HostID: %d, Size: %d}", r.Container, r.Host, r.Size))
	}
	return ids
}

// plainWords reports whether commands can name these without quotes.
func plainWords(words ...string) bool {
	return !slices.ContainsFunc(words, func(w string) bool {
		return w == "" || strings.HasPrefix(w, "-") || strings.ContainsAny(w, " \t\r\n\v\f\u0085\u00a0")
	})
}

// script has a shell make what is done with commands, as the script of --format sh does: that takes the fewest lines. The child is $0.
func (g *golang) script(op plan.Op) (goLine, bool) {
	var lines []string
	switch o := op.(type) {
	case *plan.NftBridge:
		if len(o.Rules) == 0 {
			return goLine{}, false
		}
		lines = []string{
			"nft list table ip " + quote(o.Table) + " >/dev/null 2>&1 || nft -f - <<'END'",
			clean(strings.ReplaceAll(nftBlocks(o.Rules, g.width), "\n", " \x01")),
		}
		lines[1] = strings.ReplaceAll(lines[1], ` \x01`, "\n") + "\nEND"
	case *plan.LinkBridge, *plan.LinkVeth, *plan.LinkMove, *plan.LinkAddress, *plan.RouteDefault, *plan.NftPublish:
		made, ok := (&shell{plan: g.plan, view: g.view, part: "host"}).commands(op)
		if !ok || len(made) == 0 {
			return goLine{}, false
		}
		for _, line := range made {
			lines = append(lines, strings.TrimSpace(line))
		}
	default:
		return goLine{}, false
	}
	if strings.ContainsAny(strings.Join(lines, ""), "`\r\x00") {
		return goLine{}, false
	}
	g.use("fmt")
	return goLine{fn: "sh", items: lines, join: true}, true
}

// shellText is a script in few lines.
func shellText(lines []string, width, most int) string {
	text := "pid=$0"
	for _, line := range lines {
		sep := "; "
		last := text[strings.LastIndexAny(text, " \n;")+1:]
		switch {
		case slices.Contains([]string{"then", "do", "else"}, last):
			sep = " "
		case strings.HasSuffix(text, "\nEND") || strings.Contains(line, "\n") || width+len(line) > most:
			sep = "\n"
		}
		text += sep + line
		width = len(text) - strings.LastIndex(text, "\n")
	}
	return text
}

// inside runs ip in the child's network namespace.
func (g *golang) inside(commands ...string) (goLine, bool) {
	if !g.wantsInside() { // for one command a function would be long
		argv := g.lits(append([]string{"ip"}, strings.Fields(commands[0])...))
		g.use("fmt")
		return goLine{fn: "check", items: []string{`exec.Command("nsenter", fmt.Sprintf("--net=/proc/%d/ns/net", cmd.Process.Pid), ` +
			strings.Join(argv, ", ") + ").Run()"}, join: true}, true
	}
	g.use("run")
	items := []string{`""`}
	for _, c := range commands {
		items = append(items, "inside+"+g.lit(c))
	}
	return goLine{fn: "run", items: items, fixed: 1, join: true}, true
}

func (g *golang) bridge(o *plan.LinkBridge) (goLine, bool) {
	if !plainWords(o.Name, o.Address) {
		return goLine{}, false
	}
	g.use("run", "write")
	mtu := ""
	if o.MTU != 0 {
		mtu = fmt.Sprintf(" mtu %d", o.MTU)
	}
	lines := []string{"if exec.Command(" + strings.Join(g.lits([]string{"ip", "link", "show", "dev", o.Name}), ", ") + ").Run() != nil {"}
	lines = append(lines, g.packed(`run("",`, g.lits([]string{"ip link add name " + o.Name + mtu + " type bridge", "ip addr add " + o.Address +
		" brd + dev " + o.Name, "ip link set dev " + o.Name + " up"}), ")")...)
	for _, set := range o.Sysctls {
		key, value, _ := strings.Cut(set, "=")
		file := g.lit("/proc/sys/" + key)
		if strings.Contains(key, "ipv6") {
			lines = append(lines, "os.WriteFile("+file+", []byte("+g.lit(value)+"), 0) // a kernel without IPv6 has no such file")
		} else {
			lines = append(lines, "write("+file+", "+g.lit(value)+")")
		}
	}
	return goLine{text: append(lines, "}")}, true
}

// nftBlocks writes commands that make a table in the shorter form of nft(8), in which a table is a block. Commands that have another
// form stay as they are.
func nftBlocks(rules []string, width int) string {
	var order []string // chains and maps
	blocks, table, flush := map[string][]string{}, "", false
	for _, r := range rules {
		words := strings.Fields(r)
		switch {
		case len(words) == 4 && (words[0] == "add" || words[0] == "flush") && words[1] == "table":
			table, flush = words[3], flush || words[0] == "flush"
		case len(words) > 5 && words[0] == "add" && (words[1] == "map" || words[1] == "chain") && words[3] == table && words[5] == "{":
			name := words[1] + " " + words[4]
			order = append(order, name)
			blocks[name] = append(blocks[name], strings.TrimSuffix(strings.TrimSuffix(strings.Join(words[6:len(words)-1], " "), ";"), " "))
		case len(words) == 5 && words[0] == "add" && words[1] == "chain" && words[3] == table:
			order = append(order, "chain "+words[4])
			blocks["chain "+words[4]] = []string{}
		case len(words) > 5 && words[0] == "add" && words[1] == "rule" && words[3] == table && blocks["chain "+words[4]] != nil:
			blocks["chain "+words[4]] = append(blocks["chain "+words[4]], strings.Join(words[5:], " "))
		default:
			return strings.Join(rules, "\n")
		}
	}
	out := fmt.Sprintf("table ip %s {", table)
	if flush {
		out = fmt.Sprintf("add table ip %s; flush table ip %s; ", table, table) + out
	}
	lines, line := []string{}, out
	add := func(word string) {
		if len(line)+1+len(word) > width {
			lines, line = append(lines, line), word
			return
		}
		line += " " + word
	}
	for _, name := range order {
		add(name + " {")
		for _, b := range blocks[name] {
			add(b + ";")
		}
		add("};")
	}
	add("}")
	return strings.Join(append(lines, line), "\n")
}

// idMap is the step that maps the ids of the child's user namespace, if this program can.
func (g *golang) idMap() *plan.IDMap {
	for _, s := range g.plan.Steps {
		if o, ok := s.Op.(*plan.IDMap); ok && !o.Programs && len(o.UID) > 0 && len(o.GID) > 0 {
			return o
		}
	}
	return nil
}

// clone starts the child: the plan's clone3, and all that a second start of the same program needs.
func (g *golang) clone(o *plan.Clone) []string {
	g.use("ok")
	lines := []string{
		"pair := ok(unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0))",
		`cmd.ExtraFiles = append([]*os.File{os.NewFile(uintptr(pair[1]), "")}, cmd.ExtraFiles...) // 3, and then 4, 5, … in the child`,
		"cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr",
		"cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: " + goNamespaces(o.Namespaces) + ",",
	}
	if o.Cgroup != "" {
		lines = append(lines, "UseCgroupFD: true, CgroupFD: ok(unix.Open("+g.lit(g.opened[o.Cgroup])+", unix.O_PATH|unix.O_CLOEXEC, 0)),")
	}
	if m := g.idMap(); m != nil && slices.Contains(o.Namespaces, "user") {
		for _, half := range []struct {
			name   string
			ranges []plan.IDRange
		}{{"Uid", m.UID}, {"Gid", m.GID}} {
			lines = append(lines, g.packed(half.name+"Mappings: []syscall.SysProcIDMap{", goIDs(half.ranges), "},")...)
		}
		// Who is not root in the namespace loses its capabilities with execve, but for ambient ones.
		g.use("everything")
		lines = append(lines, when(m.DenySetgroups, "", "GidMappingsEnableSetgroups: true, ")+"AmbientCaps: everything(),")
	}
	lines[len(lines)-1] = strings.TrimSuffix(lines[len(lines)-1], ",") + "}"
	lines = append(lines, "check(cmd.Start(), unix.Close(pair[1]))")
	if g.tight < withoutAny && g.wantsPid() {
		g.use("fmt")
		lines = append(lines, "pid := fmt.Sprint(cmd.Process.Pid)")
	}
	if g.tight < withoutAny && g.wantsInside() {
		lines = append(lines, `inside := "nsenter --net=/proc/" + pid + "/ns/net ip "`)
	}
	return lines
}

func (g *golang) wantsPid() bool {
	return g.wantsInside() || slices.ContainsFunc(g.plan.Steps, func(s plan.Step) bool {
		o, ok := s.Op.(*plan.LinkVeth)
		return ok && plainWords(o.Name, o.Peer, o.Bridge) && (o.MAC == "" || plainWords(o.MAC))
	})
}

// wantsInside reports whether more than one command is run in the child's network namespace.
func (g *golang) wantsInside() bool {
	n := 0
	for _, s := range g.plan.Steps {
		switch o := s.Op.(type) {
		case *plan.LinkAddress:
			if plainWords(o.Link) && (o.Address == "" || plainWords(o.Address)) {
				n++
			}
			if o.Address != "" {
				n++
			}
		case *plan.RouteDefault:
			if plainWords(o.Via, o.Link) {
				n++
			}
		}
	}
	return n > 1
}

// capset writes the sets as the numbers that they are, with the names beside them.
func (g *golang) capset(o *plan.Capset) (goLine, bool) {
	var halves [2]string
	for _, set := range []struct {
		field string
		names []string
	}{{"Effective", o.Effective}, {"Permitted", o.Permitted}, {"Inheritable", o.Inheritable}} {
		var bits uint64
		for _, n := range set.names {
			if plan.CapNumber(n) < 0 {
				return goLine{}, false
			}
			bits |= 1 << plan.CapNumber(n)
		}
		for i := range halves {
			if half := uint32(bits >> (32 * i)); half != 0 {
				halves[i] += when(halves[i] == "", "", ", ") + fmt.Sprintf("%s: %#x", set.field, half)
			}
		}
	}
	call := "unix.Capset(&unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}, &[]unix.CapUserData{{" + halves[0] + "}, {" +
		halves[1] + "}}[0])"
	if g.tight >= withoutComments {
		return goLine{fn: "check", items: []string{call}, join: true}, true
	}
	lines := []string{"check(" + call + ")"}
	if names := slices.Compact(slices.Sorted(slices.Values(slices.Concat(o.Permitted, o.Inheritable)))); len(names) > 0 {
		for _, line := range wrap(strings.ReplaceAll(strings.Join(names, " "), "CAP_", ""), 120) {
			lines = append(lines, "// "+line)
		}
	}
	return goLine{text: lines}, true
}

func goCaps(names []string) ([]string, bool) {
	out := []string{}
	for _, n := range names {
		if plan.CapNumber(n) < 0 {
			return nil, false
		}
		out = append(out, "unix."+n)
	}
	return out, true
}

func goLimit(n uint64) string {
	if n == ^uint64(0) {
		return "unix.RLIM_INFINITY"
	}
	return fmt.Sprint(n)
}
