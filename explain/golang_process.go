package explain

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"glassbox/plan"
)

// settings: settings.
func (g *goStep) settings(op plan.Op) (goLine, bool) {
	switch o := op.(type) {
	case *plan.LinkUp:
		g.use("up")
		return g.text("up(" + g.lit(o.Link) + ")")
	case *plan.Sethostname:
		return g.check("unix.Sethostname([]byte(" + g.lit(o.Name) + "))")
	case *plan.Setdomainname:
		return g.check("unix.Setdomainname([]byte(" + g.lit(o.Name) + "))")
	case *plan.Sysctl:
		return g.set(o.From, "/sys/"+o.Key, o.Value)
	case *plan.WriteProc:
		if g.host {
			g.use("fmt")
			return g.list("write", []string{`fmt.Sprintf("/proc/%d/%s", cmd.Process.Pid, ` + g.lit(o.File) + ")"}, g.lit(o.Value))
		}
		return g.set(o.From, "/self/"+o.File, o.Value)
	case *plan.WriteFile:
		if g.tight >= withoutScript && !strings.Contains(o.Path, "=") {
			return g.each("set1", g.lit(o.Path+"="+o.Value))
		}
		return g.list("write", []string{g.lit(o.Path)}, g.lit(o.Value))
	case *plan.Rlimit:
		n := slices.Index([]string{
			"CPU", "FSIZE", "DATA", "STACK", "CORE", "RSS", "NPROC", "NOFILE", "MEMLOCK", "AS", "LOCKS", "SIGPENDING",
			"MSGQUEUE", "NICE", "RTPRIO", "RTTIME",
		}, strings.TrimPrefix(o.Type, "RLIMIT_"))
		if n < 0 {
			return g.none()
		}
		pid := when(g.host, "cmd.Process.Pid", "0")
		return g.check(fmt.Sprintf("unix.Prlimit(%s, %d, &unix.Rlimit{Cur: %s, Max: %s}, nil)", pid, n, goLimit(o.Soft), goLimit(o.Hard)))
	case *plan.Sched:
		policy := slices.Index([]string{"SCHED_OTHER", "SCHED_FIFO", "SCHED_RR", "SCHED_BATCH", "SCHED_ISO", "SCHED_IDLE", "SCHED_DEADLINE"},
			o.Policy)
		if policy < 0 || len(o.Flags) > 0 {
			return g.none()
		}
		return g.check(fmt.Sprintf("unix.SchedSetAttr(0, &unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: %d, Nice: %d, Priority: %d, "+
			"Runtime: %d, Deadline: %d, Period: %d}, 0)",
			policy, o.Nice, o.Priority, o.Runtime, o.Deadline, o.Period))
	case *plan.Affinity:
		if o.Unless > 0 {
			return g.note("if it is bound")
		}
		mask, err := plan.ParseList(o.CPUs)
		// unix.CPUSet has room for 1024 processors, 16 words of 64.
		if err != nil || len(mask) == 0 || len(mask) > 16 {
			return g.none()
		}
		var words []string
		for _, m := range mask {
			words = append(words, fmt.Sprintf("%#x", m))
		}
		return g.check("unix.SchedSetaffinity(0, &unix.CPUSet{" + strings.Join(words, ", ") + "})")
	case *plan.IOPriority:
		class := 1 + slices.Index([]string{"IOPRIO_CLASS_RT", "IOPRIO_CLASS_BE", "IOPRIO_CLASS_IDLE"}, o.Class)
		if class == 0 {
			return g.none()
		}
		return g.text(fmt.Sprintf("if _, _, e := unix.RawSyscall(unix.SYS_IOPRIO_SET, 1, 0, %d<<13|%d); e != 0 {", class, o.Priority), "panic(e)",
			"}")
	case *plan.Personality:
		domain := slices.Index([]string{"LINUX", "LINUX32"}, o.Domain)
		if domain < 0 {
			return g.none()
		}
		return g.text(fmt.Sprintf("if _, _, e := unix.RawSyscall(unix.SYS_PERSONALITY, %d, 0, 0); e != 0 {", 8*domain), "panic(e)", "}")
	case *plan.Umask:
		if g.tight >= withoutComments {
			g.use("umask")
			return g.check(fmt.Sprintf("umask(%#o)", o.Mask))
		}
		return g.text(fmt.Sprintf("unix.Umask(%#o)", o.Mask))
	case *plan.Keyring:
		if o.Name == "" { // no name at all: an empty one is EINVAL (keyctl_join_session_keyring(3))
			return g.drop("unix.KeyctlInt(unix.KEYCTL_JOIN_SESSION_KEYRING, 0, 0, 0, 0)")
		}
		return g.drop("unix.KeyctlJoinSessionKeyring(" + g.lit(o.Name) + ")")
	default:
		return g.streams(op)
	}
}

// streams: terminal and standard streams.
func (g *goStep) streams(op plan.Op) (goLine, bool) {
	switch o := op.(type) {
	case *plan.Stdio:
		if o.To >= 0 && o.To < 3 && o.From == []string{"stdin", "stdout", "stderr"}[o.To] {
			return g.note("it has this program's")
		}
		if from := g.have[o.From]; from == "terminal" && o.To >= 0 && o.To < 3 {
			return g.check(fmt.Sprintf("unix.Dup3(%s, %d, 0)", from, o.To))
		}
		return g.none()
	case *plan.OpenConsole:
		if !g.hasConsole() {
			return g.none()
		}
		g.use("console")
		g.have[o.Slave] = "terminal"
		open := fmt.Sprintf("terminal := console(%d, %d, %d)", o.Rows, o.Cols, o.UID)
		if o.Plain {
			open += "\nflags := ok(unix.IoctlGetTermios(terminal, unix.TCGETS))\nflags.Oflag &^= " +
				"unix.ONLCR\ncheck(unix.IoctlSetTermios(terminal, unix.TCSETS, flags))"
		}
		return g.text(open)
	case *plan.SendFD:
		if !g.hasConsole() {
			return g.none()
		}
		return g.note("console has done it")
	case *plan.BindConsole:
		if g.have[o.From] != "terminal" {
			return g.none()
		}
		g.use("ok", "attach")
		return g.check(`attach(ok(unix.OpenTree(terminal, "", unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_EMPTY_PATH)), "/dev/console")`)
	case *plan.Setsid:
		if o.Controlling {
			return g.check("second(unix.Setsid())", "unix.IoctlSetInt(0, unix.TIOCSCTTY, 0)")
		}
		return g.drop("unix.Setsid()")
	default:
		return g.privileges(op)
	}
}

// privileges: privileges.
func (g *goStep) privileges(op plan.Op) (goLine, bool) {
	switch o := op.(type) {
	case *plan.ParentDeath:
		return g.check(fmt.Sprintf("unix.Prctl(unix.PR_SET_PDEATHSIG, %d, 0, 0, 0)", o.Signal))
	case *plan.Dumpable:
		return g.check(fmt.Sprintf("unix.Prctl(unix.PR_SET_DUMPABLE, %d, 0, 0, 0)", o.Value))
	case *plan.NoNewPrivs:
		return g.check("unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)")
	case *plan.KeepCaps:
		return g.check("unix.Prctl(unix.PR_SET_KEEPCAPS, 1, 0, 0, 0)")
	case *plan.Seccomp:
		if o.Notify != "" || len(o.Program) == 0 || g.filter != "" {
			return g.none()
		}
		g.filter = compress(o.Program)
		g.use("inflate", "unsafe")
		return g.text("code := inflate(filter)",
			"program := &unix.SockFprog{Len: uint16(len(code) / 8), Filter: (*unix.SockFilter)(unsafe.Pointer(&code[0]))}",
			fmt.Sprintf("if _, _, e := unix.RawSyscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, %d, uintptr(unsafe.Pointer(program))); e "+
				"!= 0 {", o.Flags), "panic(e)", "}")
	case *plan.DropBounding:
		caps, ok := goCaps(o.Caps)
		if !ok {
			return g.none()
		}
		if g.tight >= withoutComments {
			for i, name := range o.Caps {
				caps[i] = strconv.Itoa(plan.CapNumber(name))
			}
		}
		return g.text(append(g.packed("for _, c := range []uintptr{", caps, "} {"),
			"check(unix.Prctl(unix.PR_CAPBSET_DROP, c, 0, 0, 0))", "}")...)
	case *plan.AmbientCaps:
		caps, ok := goCaps(o.Caps)
		if !ok {
			return g.none()
		}
		return g.text(append(g.packed("for _, c := range []uintptr{", caps, "} {"),
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
			return g.text("if err := "+call+"; err != unix.EPERM {", "check(err)", "}")
		}
		return g.check(call)
	case *plan.Setresgid:
		return g.check(fmt.Sprintf("unix.Setresgid(%d, %d, %d)", o.GID, o.GID, o.GID))
	case *plan.Setresuid:
		return g.check(fmt.Sprintf("unix.Setresuid(%d, %d, %d)", o.UID, o.UID, o.UID))
	default:
		return g.program(op)
	}
}

// program: the program.
func (g *goStep) program(op plan.Op) (goLine, bool) {
	switch o := op.(type) {
	case *plan.Chdir:
		g.use("ok")
		switch {
		case o.Try:
			g.words["entered"] = true
			return g.text("entered := unix.Chdir("+g.lit(o.Path)+") == nil", "if entered {",
				"ok(unix.Getwd()) // an error if it lies outside the root (CVE-2024-21626)", "}")
		case g.words["entered"]:
			return g.text("if !entered {", "check(unix.Chdir("+g.lit(o.Path)+"))", "}", "ok(unix.Getwd())")
		}
		if g.tight >= withoutComments {
			g.use("second")
			return g.check("unix.Chdir("+g.lit(o.Path)+")", "second(unix.Getwd())")
		}
		return g.text("check(unix.Chdir("+g.lit(o.Path)+"))", "ok(unix.Getwd()) // an error if it lies outside the root (CVE-2024-21626)")
	case *plan.InheritFDs:
		if o.Count > 0 {
			return g.none()
		}
		return g.note("there are none")
	case *plan.FindProgram:
		return g.note("execve says so if there is none")
	case *plan.CloseRange:
		// By execve: the runtime needs some until then.
		return g.check(fmt.Sprintf("unix.CloseRange(%d, 1<<31, unix.CLOSE_RANGE_CLOEXEC)", o.First))
	case *plan.Execve:
		if len(o.Candidates) == 0 {
			return g.none()
		}
		lines := g.packed("env := []string{", g.lits(o.Env), "}")
		if len(o.Candidates) == 1 {
			return g.text(append(lines, g.packed("check(unix.Exec("+g.lit(o.Candidates[0])+", []string{", g.lits(o.Argv), "}, env))")...)...)
		}
		argv := "[]string{" + strings.Join(g.lits(o.Argv), ", ") + "}"
		if g.tight < withoutAny || len(argv) > 90 {
			lines = append(lines, g.packed("argv := []string{", g.lits(o.Argv), "}")...)
			argv = "argv"
		}
		if g.tight >= withoutScript {
			g.use("slices")
			lines = append(lines, g.packed("files := []string{", g.lits(o.Candidates), "}")...)
			return g.text(append(lines, "there := slices.IndexFunc(files, func(f string) bool { return unix.Access(f, unix.X_OK) == nil })",
				"check(unix.Exec(files[there], "+argv+", env))")...)
		}
		lines = append(lines, g.packed("for _, file := range []string{", g.lits(o.Candidates), "} {")...)
		return g.text(append(lines, "if err := unix.Exec(file, "+argv+", env); err != unix.ENOENT && err != unix.ENOTDIR && err != unix.EACCES {",
			"panic(err)", "}", "}", "panic(unix.ENOENT)")...)
	default:
		return g.network(op)
	}
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
