package verify

import (
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"glassbox/plan"
)

// The process itself: /proc/PID/status and what is beside it.

func (v *view) umask(o *plan.Umask) Finding {
	have, err := strconv.ParseUint(v.status["Umask"], 8, 32)
	if err != nil {
		return unseen("/proc/PID/status has no Umask before Linux 4.7")
	}
	return same(v.proc("status"), fmt.Sprintf("%04o", o.Mask), fmt.Sprintf("%04o", have), byProgram())
}

// id compares the four ids of a line of status: real, effective, saved, file system.
func (v *view) id(line string, want uint32) Finding {
	file := map[string]string{"Uid": "uid_map", "Gid": "gid_map"}[line]
	word := strconv.FormatUint(uint64(v.outside(file, want)), 10)
	asked := strings.Join([]string{word, word, word, word}, " ")
	who := others("this user had no way to another: this is another process than the plan's")
	if v.canHave(map[string]string{"Uid": "CAP_SETUID", "Gid": "CAP_SETGID"}[line]) || !v.sealed() {
		who = own("the program itself may have changed it (a program that starts as root and goes on as another user, or a set-user-ID program)")
	}
	return same(v.proc("status"), line+" "+asked, line+" "+squeeze(v.status[line]), who)
}

func (v *view) supplementary(o *plan.Setgroups) Finding {
	want := make([]int, 0, len(o.Groups))
	for _, g := range o.Groups {
		want = append(want, int(v.outside("gid_map", g)))
	}
	var have []int
	for _, w := range strings.Fields(v.status["Groups"]) {
		n, _ := strconv.Atoi(w)
		have = append(have, n)
	}
	// The kernel sorts them to find one quickly (groups_sort), so their order says nothing.
	slices.Sort(want)
	slices.Sort(have)
	f := same(v.proc("status"), fmt.Sprintf("Groups %v", want), fmt.Sprintf("Groups %v", have), v.who("CAP_SETGID"))
	if f.Verdict == Differs && o.IfAllowed {
		if text, err := v.read("setgroups"); err == nil && strings.TrimSpace(text) == "deny" {
			return unseen("the user namespace denies setgroups: the groups are those of whoever started it")
		}
	}
	return f
}

func (v *view) capSet(line string) uint64 {
	n, _ := strconv.ParseUint(v.status[line], 16, 64)
	return n
}

func capMask(names []string) uint64 {
	var m uint64
	for _, name := range names {
		if n := plan.CapNumber(name); n >= 0 {
			m |= 1 << n
		}
	}
	return m
}

func capWords(m uint64) string {
	var words []string
	for n := range 64 {
		if m>>n&1 == 0 {
			continue
		}
		if name := plan.CapName(n); name != "" {
			words = append(words, name)
		} else {
			words = append(words, strconv.Itoa(n))
		}
	}
	if len(words) == 0 {
		return "none"
	}
	return strings.Join(words, " ")
}

func (v *view) bounding(o *plan.DropBounding) Finding {
	if still := v.capSet("CapBnd") & capMask(o.Caps); still != 0 {
		return differs(v.proc("status"), "CapBnd without "+capWords(capMask(o.Caps)), "CapBnd has "+capWords(still),
			others("a bounding set only shrinks: this is another process than the plan's, or in another user namespace"))
	}
	return holds(v.proc("status"), fmt.Sprintf("CapBnd %016x", v.capSet("CapBnd")))
}

// caps compares the capabilities with what execve makes of those that were set (capabilities(7), Transformation of capabilities
// during execve): for root the inheritable and the bounding set, for others the ambient ones.
func (v *view) caps(o *plan.Capset) Finding {
	inh, bnd, amb := capMask(o.Inheritable), v.capSet("CapBnd"), v.capSet("CapAmb")
	permitted, effective := inh|bnd, inh|bnd
	who := own("the program itself may have given some up")
	// Before execve the sets are those that were set, and nothing has been derived from them yet.
	if v.waits >= 0 {
		permitted, effective = capMask(o.Permitted), capMask(o.Effective)
	} else if !v.startsAsRoot() {
		permitted, effective = amb, amb
	}
	found := fmt.Sprintf("CapInh %016x CapPrm %016x CapEff %016x", v.capSet("CapInh"), v.capSet("CapPrm"), v.capSet("CapEff"))
	if v.capSet("CapInh") == inh && v.capSet("CapPrm") == permitted && v.capSet("CapEff") == effective {
		return holds(v.proc("status"), found)
	}
	if more := v.capSet("CapPrm") &^ permitted; more != 0 {
		who = cause{v.canHaveAll(more), "the program's file has capabilities, or it is set-user-ID, or this is another process than the plan's"}
	}
	return differs(v.proc("status"), fmt.Sprintf("CapInh %016x CapPrm %016x CapEff %016x", inh, permitted, effective), found, who)
}

// startsAsRoot reports whether the plan's program is started as the root of its user namespace.
func (v *view) startsAsRoot() bool {
	uid := uint32(0)
	for _, s := range v.plan.Steps {
		if o, ok := s.Op.(*plan.Setresuid); ok {
			uid = o.UID
		}
	}
	if uid != 0 {
		return false
	}
	text, err := v.read("uid_map")
	return err != nil || len(parseMap(text)) > 0 // where no id is mapped, none is root
}

func (v *view) ambient(o *plan.AmbientCaps) Finding {
	return same(v.proc("status"), fmt.Sprintf("CapAmb %016x", capMask(o.Caps)), fmt.Sprintf("CapAmb %016x", v.capSet("CapAmb")),
		cause{v.canHaveAll(v.capSet("CapAmb") &^ capMask(o.Caps)), byProgram().why})
}

// filter compares how many filters there are with how many the plan installs. What is in them only a tracer can read, who would have
// to stop the process.
func (v *view) filter() Finding {
	want := 0
	for _, s := range v.plan.Steps {
		if _, ok := s.Op.(*plan.Seccomp); ok {
			want++
		}
	}
	have, err := strconv.Atoi(v.status["Seccomp_filters"])
	if err != nil { // before Linux 5.9
		return same(v.proc("status"), "Seccomp 2", "Seccomp "+v.status["Seccomp"], byHost())
	}
	inherited := ownFilters()
	asked, found := fmt.Sprintf("mode 2, %d filters", want+inherited), fmt.Sprintf("mode %s, %d filters", v.status["Seccomp"], have)
	// More than the plan's is no difference: glassbox may have been started under some, and a program may add to its own.
	if v.status["Seccomp"] != "2" || have < want {
		return differs(v.proc("status"), asked, found, others("a filter can't be taken off: this is another process than the plan's"))
	}
	return holds(v.proc("status"), found+" (their instructions can't be read without stopping the process)")
}

// ownFilters is how many filters this program lives under: those of glassbox, and what it starts, as a rule.
func ownFilters() int {
	n, _ := strconv.Atoi(myself().status["Seccomp_filters"])
	return n
}

// ownCapability reports whether this program has a capability.
func ownCapability(name string) bool { return myself().capSet("CapEff")&capMask([]string{name}) != 0 }

// myself is this program, with nothing of it that can't be read.
func myself() *view {
	self := &view{status: map[string]string{}}
	fd, err := unix.Open("/proc/self", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return self
	}
	defer unix.Close(fd)
	self.dir = fd
	_ = self.readStat() // of no process that has ended
	return self
}

func (v *view) session(o *plan.Setsid) Finding {
	if v.stat.Session != v.pid {
		return differs(v.proc("stat"), "leader of its session", fmt.Sprintf("in session %d", v.stat.Session),
			others("only a process itself starts a session: this one was forked by the plan's, or is another one"))
	}
	if o.Controlling && v.stat.Terminal == 0 {
		return differs(v.proc("stat"), "a controlling terminal", "none", own("the program may have given it up, or it has hung up"))
	}
	return holds(v.proc("stat"), "leader of its session")
}

// stdio looks at a standard descriptor. Of what the caller gave nothing is known here; the plan's own terminal can be told.
func (v *view) stdio(o *plan.Stdio) Finding {
	console := false
	for _, s := range v.plan.Steps {
		if c, ok := s.Op.(*plan.OpenConsole); ok && c.Slave == o.From {
			console = true
		}
	}
	if !console {
		return unseen("what whoever ran the plan gave for it isn't known here")
	}
	name := "fd/" + strconv.Itoa(o.To)
	to, err := v.link(name)
	if err != nil {
		if err == unix.ENOENT {
			return differs(v.proc(name), "the terminal", "closed", byProgram())
		}
		return failed(v.proc(name), err)
	}
	if !strings.HasPrefix(to, "/dev/pts/") && to != "/dev/console" {
		return differs(v.proc(name), "the terminal", to, byProgram())
	}
	return holds(v.proc(name), to)
}

func (v *view) cwd(o *plan.Chdir) Finding {
	have, err := v.link("cwd")
	if err != nil {
		return failed(v.proc("cwd"), err)
	}
	want := path.Clean(o.Path)
	if have != want && have != v.resolve(want) {
		return differs(v.proc("cwd"), want, have, own("the program itself may have changed its working directory"))
	}
	return holds(v.proc("cwd"), have)
}

func (v *view) program(o *plan.Execve) Finding {
	text, err := v.read("cmdline")
	if err != nil {
		return failed(v.proc("cmdline"), err)
	}
	argv := strings.Split(strings.TrimSuffix(text, "\x00"), "\x00")
	asked, found := strings.Join(o.Argv, " "), strings.Join(argv, " ")
	who := own("the program may have executed another one since, or changed its title")
	if !slices.Equal(argv, o.Argv) && !interpreted(argv, o) {
		return differs(v.proc("cmdline"), asked, found, who)
	}
	env, err := v.read("environ")
	if err != nil {
		f := holds(v.proc("cmdline"), found)
		f.Why = "this user may not read " + v.proc("environ") + ", where the environment is"
		return f
	}
	have := strings.Split(strings.TrimSuffix(env, "\x00"), "\x00")
	if env == "" {
		have = nil
	}
	for _, e := range o.Env {
		if !slices.Contains(have, e) {
			name, _, _ := strings.Cut(e, "=")
			return differs(v.proc("environ"), "the variable "+name+" as asked", "it isn't there, or has another value", who)
		}
	}
	// Only then can there be another one: all of the plan's were found.
	if len(have) > len(o.Env) {
		for _, h := range have {
			if !slices.Contains(o.Env, h) {
				name, _, _ := strings.Cut(h, "=")
				return differs(v.proc("environ"), "no variable "+name, "it is there", who)
			}
		}
	}
	return holds(v.proc("cmdline")+", environ", found)
}

// interpreted reports whether a command line is that of a script's interpreter: it and at most one argument stand before the
// script's path, which is in the place of its name (execve(2), Interpreter scripts).
func interpreted(argv []string, o *plan.Execve) bool {
	before := len(argv) - len(o.Argv)
	return len(o.Argv) > 0 && (before == 1 || before == 2) && slices.Contains(o.Candidates, argv[before]) &&
		slices.Equal(argv[before+1:], o.Argv[1:])
}

// limitName is the name of a limit in /proc/PID/limits.
func limitName(typ string) string {
	return map[string]string{
		"RLIMIT_CPU": "Max cpu time", "RLIMIT_FSIZE": "Max file size", "RLIMIT_DATA": "Max data size", "RLIMIT_STACK": "Max stack size",
		"RLIMIT_CORE": "Max core file size", "RLIMIT_RSS": "Max resident set", "RLIMIT_NPROC": "Max processes", "RLIMIT_NOFILE": "Max open files",
		"RLIMIT_MEMLOCK": "Max locked memory", "RLIMIT_AS": "Max address space", "RLIMIT_LOCKS": "Max file locks",
		"RLIMIT_SIGPENDING": "Max pending signals",
		"RLIMIT_MSGQUEUE":   "Max msgqueue size", "RLIMIT_NICE": "Max nice priority", "RLIMIT_RTPRIO": "Max realtime priority",
		"RLIMIT_RTTIME": "Max realtime timeout",
	}[typ]
}

func (v *view) rlimit(o *plan.Rlimit) Finding {
	text, err := v.read("limits")
	if err != nil {
		return failed(v.proc("limits"), err)
	}
	name := limitName(o.Type)
	word := func(n uint64) string {
		if n == ^uint64(0) {
			return "unlimited"
		}
		return strconv.FormatUint(n, 10)
	}
	for line := range strings.Lines(text) {
		rest, ok := strings.CutPrefix(line, name+" ")
		if f := strings.Fields(rest); ok && name != "" && len(f) >= 2 {
			return same(v.proc("limits"), word(o.Soft)+", hard "+word(o.Hard), f[0]+", hard "+f[1],
				v.limited(o, f[1]))
		}
	}
	return unseen("%s has no line for %s", v.proc("limits"), o.Type)
}

func (v *view) writtenProc(o *plan.WriteProc) Finding {
	switch o.File {
	case "oom_score_adj":
		text, err := v.read(o.File)
		if err != nil {
			return failed(v.proc(o.File), err)
		}
		return same(v.proc(o.File), o.Value, strings.TrimSpace(text), v.scored(o.Value, strings.TrimSpace(text)))
	case "attr/apparmor/exec", "attr/exec":
		file := path.Dir(o.File) + "/current"
		text, err := v.read(file)
		if err != nil {
			return failed(v.proc(file), err)
		}
		// AppArmor adds the mode, "docker-default (enforce)"; SELinux ends its label with a NUL byte.
		have, _, _ := strings.Cut(strings.Trim(text, "\x00\n "), " (")
		return same(v.proc(file), strings.TrimPrefix(o.Value, "exec "), have,
			others("the policy may have given the program another profile or label"))
	case "attr/keycreate":
		return unseen(noTraceOf, "execve takes it back")
	}
	text, err := v.read(o.File)
	if err != nil {
		return failed(v.proc(o.File), err)
	}
	return same(v.proc(o.File), squeeze(o.Value), squeeze(text), byProgram())
}

func (v *view) sched(o *plan.Sched) Finding {
	a, err := unix.SchedGetAttr(v.pid, 0)
	if err != nil {
		return failed("sched_getattr(2)", err)
	}
	names := []string{"SCHED_OTHER", "SCHED_FIFO", "SCHED_RR", "SCHED_BATCH", "4", "SCHED_IDLE", "SCHED_DEADLINE"}
	name := strconv.Itoa(int(a.Policy))
	if int(a.Policy) < len(names) {
		name = names[a.Policy]
	}
	words := func(policy string, nice int32, priority uint32, runtime, deadline, period uint64) string {
		return fmt.Sprintf("%s, nice %d, priority %d, %d/%d/%d ns", policy, nice, priority, runtime, deadline, period)
	}
	nice, run, due, every := a.Nice, a.Runtime, a.Deadline, a.Period
	if o.Policy != "SCHED_OTHER" && o.Policy != "SCHED_BATCH" {
		nice = o.Nice // it has none
	}
	if o.Policy != "SCHED_DEADLINE" {
		run, due, every = o.Runtime, o.Deadline, o.Period // the slice of the others is the kernel's own (Linux 6.12)
	}
	return same("sched_getattr(2)", words(o.Policy, o.Nice, o.Priority, o.Runtime, o.Deadline, o.Period),
		words(name, nice, a.Priority, run, due, every),
		v.scheduled(o, a))
}

func (v *view) ioPriority(o *plan.IOPriority) Finding {
	n, _, errno := unix.Syscall(unix.SYS_IOPRIO_GET, 1, uintptr(v.pid), 0)
	if errno != 0 {
		return failed("ioprio_get(2)", errno)
	}
	classes := []string{"none", "IOPRIO_CLASS_RT", "IOPRIO_CLASS_BE", "IOPRIO_CLASS_IDLE"}
	name := classes[min(int(n>>13), 3)]
	level := int(n & 7)
	// It has no levels (ioprio_set(2)), and the kernel drops what was asked for.
	if o.Class == "IOPRIO_CLASS_IDLE" {
		level = o.Priority
	}
	return same("ioprio_get(2)", fmt.Sprintf("%s %d", o.Class, o.Priority), fmt.Sprintf("%s %d", name, level), v.ionice(name))
}

func (v *view) affinity(o *plan.Affinity) Finding {
	if o.Unless > 0 {
		return unseen("it depends on what whoever started it was bound to, and on the cpuset since then")
	}
	want, err1 := plan.ParseList(o.CPUs)
	have, err2 := plan.ParseList(v.status["Cpus_allowed_list"])
	if err1 != nil || err2 != nil {
		return unseen("a list of processors that isn't understood: %q, %q", o.CPUs, v.status["Cpus_allowed_list"])
	}
	if !slices.Equal(want, have) {
		return differs(v.proc("status"), o.CPUs, v.status["Cpus_allowed_list"],
			own("the program itself may have changed it, or somebody on the host (taskset, a cpuset)"))
	}
	return holds(v.proc("status"), v.status["Cpus_allowed_list"])
}

// memPolicy reads the policy of the process from a mapping that has none of its own: its first.
func (v *view) memPolicy(o *plan.MemPolicy) Finding {
	text, err := v.read("numa_maps")
	if err != nil {
		return failed(v.proc("numa_maps"), err)
	}
	f := strings.Fields(text)
	if len(f) < 2 {
		return unseen("%s is empty", v.proc("numa_maps"))
	}
	mode, rest, _ := strings.Cut(f[1], ":")
	mode, _, _ = strings.Cut(mode, "=")
	word := strings.ReplaceAll(strings.ToLower(strings.TrimPrefix(o.Mode, "MPOL_")), "_", " ")
	word = strings.TrimSuffix(map[string]string{"preferred": "prefer", "preferred many": "prefer"}[word], " ")
	if word == "" {
		word = strings.ReplaceAll(strings.ToLower(strings.TrimPrefix(o.Mode, "MPOL_")), "_", " ")
	}
	if !strings.HasPrefix(mode, word) || o.Nodes != "" && rest != o.Nodes {
		return differs(v.proc("numa_maps"), word+":"+o.Nodes, f[1], byProgram())
	}
	return holds(v.proc("numa_maps"), f[1])
}

func (v *view) personality(o *plan.Personality) Finding {
	text, err := v.read("personality")
	if err != nil {
		return failed(v.proc("personality"), err)
	}
	n, _ := strconv.ParseUint(strings.TrimSpace(text), 16, 32)
	// The low byte is the domain; the bits above are flags that a program may set for itself (personality(2)).
	have := map[uint64]string{0: "LINUX", 8: "LINUX32"}[n&0xff]
	if have == "" {
		have = strings.TrimSpace(text)
	}
	return same(v.proc("personality"), o.Domain, have, byProgram())
}
