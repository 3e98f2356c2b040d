package explain

import (
	"encoding/json"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"

	"glassbox/plan"
)

// Severity says how far what a container may do exposes the host.
type Severity string

// The severities, lightest first.
const (
	Low      Severity = "low"      // ordinary, and worth knowing
	Moderate Severity = "moderate" // a wall less
	High     Severity = "high"     // one mistake or one kernel bug from the host
	Total    Severity = "total"    // the host is open
)

// A Finding is a reason of the grade.
type Finding struct {
	Severity Severity `json:"severity"`
	What     string   `json:"what"`
	Why      string   `json:"why"`
	Mend     string   `json:"mend,omitempty"`
}

// A Report says what a container can reach. Version 1 of its JSON form is docs/plan-schema.md's.
type Report struct {
	Version  int       `json:"version"`
	Title    string    `json:"title,omitempty"`
	Plan     string    `json:"plan"`
	Refused  string    `json:"refused,omitempty"` // why it would not run here (see About)
	Grade    string    `json:"grade"`             // A to D, F
	Meaning  string    `json:"meaning"`
	Findings []Finding `json:"findings"`
	Rights   []Right   `json:"rights"`
	Syscalls struct {
		Known       int      `json:"known"`
		Allowed     int      `json:"allowed"`
		Conditional []string `json:"conditional"` // it depends on the arguments
		Denied      []string `json:"denied"`
	} `json:"syscalls"`
	HostPaths []string `json:"hostPaths"` // every path of the host that the plan names
}

// Policy judges a plan.
func Policy(p *plan.Plan, a About) *Report {
	v := Read(p)
	r := &Report{Version: 1, Title: a.Title, Plan: v.Hash, Refused: a.Refused, Findings: v.findings(), HostPaths: hostPaths(p)}
	for _, right := range v.rights() {
		if right.Area != "syscalls" {
			r.Rights = append(r.Rights, right)
		}
	}
	r.Syscalls.Conditional, r.Syscalls.Denied = []string{}, []string{}
	for _, c := range v.Calls() {
		r.Syscalls.Known++
		switch {
		case c.Always:
			r.Syscalls.Allowed++
		case c.Sometimes:
			r.Syscalls.Conditional = append(r.Syscalls.Conditional, c.Name)
		default:
			r.Syscalls.Denied = append(r.Syscalls.Denied, c.Name)
		}
	}
	r.Grade, r.Meaning = grade(r.Findings)
	return r
}

func grade(findings []Finding) (letter, meaning string) {
	count := map[Severity]int{}
	for _, f := range findings {
		count[f.Severity]++
	}
	switch {
	case count[Total] > 0:
		return "F", "open: who controls the container controls the host"
	case count[High] > 0:
		return "D", "exposed: walls are missing, one mistake more leads to the host"
	case count[Moderate] > 2:
		return "C", "loose: several walls are lower than usual"
	case count[Moderate] > 0 || count[Low] > 2:
		return "B", "ordinary: the usual walls stand"
	}
	return "A", "tight: little can be reached"
}

// findings are the reasons of the grade, worst first.
func (v *View) findings() []Finding {
	out := []Finding{}
	add := func(ok bool, s Severity, what, why, mend string) {
		if ok {
			out = append(out, Finding{s, clean(what), clean(why), clean(mend)})
		}
	}
	ownUser := !v.Shares("user")
	// A capability counts in the user namespace that owns what it is used on.
	capLevel := func(s Severity) Severity {
		if ownUser {
			return Low
		}
		return s
	}
	for _, c := range []struct {
		name string
		s    Severity
	}{
		{"CAP_SYS_MODULE", Total},
		{"CAP_SYS_RAWIO", Total},
		{"CAP_SYS_ADMIN", High},
		{"CAP_SYS_PTRACE", Moderate},
		{"CAP_DAC_READ_SEARCH", High},
		{"CAP_SYS_BOOT", High},
		{"CAP_BPF", High},
		{"CAP_PERFMON", High},
		{"CAP_SYS_TIME", High},
		{"CAP_MAC_ADMIN", High},
		{"CAP_MAC_OVERRIDE", High},
		{"CAP_AUDIT_CONTROL", High},
		{"CAP_NET_ADMIN", Moderate},
		{"CAP_SYS_NICE", Moderate},
		{"CAP_SYS_RESOURCE", Moderate},
		{"CAP_SYSLOG", Moderate},
		{"CAP_LINUX_IMMUTABLE", Moderate},
		{"CAP_IPC_LOCK", Moderate},
		{"CAP_NET_RAW", Low},
	} {
		mend := "--cap-drop=" + strings.TrimPrefix(c.name, "CAP_")
		if v.hasAny(c.name) {
			add(true, capLevel(c.s), "it has "+c.name, "it may "+capMeaning(c.name), mend)
		} else if c.s != Low && slices.Contains(v.capsLater(), c.name) {
			add(true, capLevel(Moderate), "it can get "+c.name+" from a program with the setuid bit", "it may then "+capMeaning(c.name), mend)
		}
	}
	add(v.Shares("pid") && v.hasAny("CAP_SYS_PTRACE", "CAP_SYS_ADMIN") && !ownUser, Total, "it sees the host's processes and may look into them",
		"whoever can trace a process of the host can make it do anything", "leave out --pid=host or drop SYS_PTRACE and SYS_ADMIN")
	add(!v.Root.Pivoted && !v.Root.Chroot, Total, "its root is the host's", "no step changes the root: the host's files are its files", "")
	for _, set := range v.Sysctls {
		key, _, _ := strings.Cut(set, "=")
		own := strings.HasPrefix(key, "net.") && !v.Shares("net") || (strings.HasPrefix(key, "kernel.msg") || strings.HasPrefix(key, "kernel.s") || strings.HasPrefix(key, "fs.mqueue.")) && !v.Shares("ipc") ||
			key == "kernel.domainname" && !v.Shares("uts")
		add(!own, Total, "its start sets "+set, "that setting is the host's, not the container's", "")
	}
	add(v.Root.Chroot && !v.Shares("mount"), Moderate, "its root is entered by chroot", "the host's file system is still mounted, out of sight, below it: pivot_root would have taken it away", "leave out --no-pivot")
	add(v.Shares("mount"), Total, "it has no mount namespace of its own", "the host's files are its files", "")
	add(v.Joined["mount"] != "", High, "it shares the mounts of "+v.Joined["mount"], "another's files are its files", "")
	for _, m := range v.hostFiles() {
		s, why := pathSeverity(m.Source, m.ReadOnly)
		if ownUser && s == Total {
			s = High
		}
		what := "it may change the host's " + m.Source
		if m.ReadOnly {
			what = "it may read the host's " + m.Source
		}
		mend := ""
		if !m.ReadOnly {
			mend = "mount it read-only, or mount less"
		}
		if m.Target == "/" && m.Type == "bind" && s != Total && m.ReadOnly {
			continue // a directory that is the root, as the caller chose
		}
		add(true, s, what, why, mend)
		add(m.Propagation == "shared", High, "mounts that it makes below "+m.Target+" appear on the host", "shared propagation", "use slave or private propagation")
	}
	access := v.deviceAccess()
	every := slices.Contains(access, "a *:* w") || slices.Contains(access, "b *:* w")
	add(every && !ownUser, Total, "it may write to every block device of the host", "writing to a disk is writing to every file on it", "leave out --privileged; name single devices with --device")
	add(every && ownUser, High, "no rule keeps it from the host's devices", "nodes that it is given can be used", "")
	if !every {
		for _, entry := range access {
			f := strings.Fields(entry)
			if f[0] == "b" && f[2] != "m" {
				add(true, High, "it may "+deviceWords(entry), "a file system's permissions don't count below it", "")
			}
			add(slices.Contains([]string{"c 1:1", "c 1:2", "c 1:4"}, f[0]+" "+f[1]) && f[2] != "m", Total, "it may "+deviceWords(entry), "that is the host's memory", "")
		}
		extra, usual := v.extraRules()
		for _, r := range extra {
			add(strings.HasPrefix(r, "allow c") && usual && strings.ContainsAny(r[strings.LastIndexByte(r, ' ')+1:], "rw"), Low, "it may use "+strings.TrimPrefix(r, "allow "), "a device of the host, and its driver", "")
		}
	}
	add(len(v.Filters) == 0, High, "no filter stands between it and the kernel", "every system call is in reach, and every bug in one", "leave out seccomp=unconfined and --privileged")
	for _, f := range v.Filters {
		add(f.Name != "default", Low, "its system call filter is not the default one ("+f.Name+")", "what it allows is listed below", "")
	}
	if len(v.Filters) > 0 {
		for _, c := range v.Calls() {
			add(c.Sometimes && slices.Contains([]string{"kexec_load", "kexec_file_load", "init_module", "finit_module", "delete_module", "iopl", "ioperm", "bpf", "open_by_handle_at", "perf_event_open", "userfaultfd", "mount", "move_mount", "fsopen", "reboot", "swapon"}, c.Name),
				Low, "its filter allows "+c.Name, "default filters refuse it without a capability", "")
		}
	}
	add(len(v.Masked) == 0, Moderate, "nothing in /proc and /sys is hidden", "/proc/kcore, /sys/firmware and others tell of the host or control it", "leave out systempaths=unconfined and --privileged")
	add(len(v.Locked) == 0 && !ownUser, High, "/proc/sys and /proc/sysrq-trigger can be written", "they set the host's kernel: core_pattern runs programs on the host", "")
	for _, m := range v.Mounts {
		add(m.Type == "sysfs" && !m.ReadOnly, Moderate, m.Target+" (sysfs) can be written", "it sets the host's devices and drivers", "")
		add((m.Type == "cgroup" || m.Type == "cgroup2") && !m.ReadOnly, High, m.Target+" ("+m.Type+") can be written", "it could raise its own limits, and on v1 run programs on the host (CVE-2022-0492)", "")
	}
	add(v.Net.Mode == "host", Moderate, "it uses the host's network", "it reaches what listens on 127.0.0.1 only, and may take the host's ports", "use the bridge, and publish ports")
	add(v.Net.Mode == "joined", Low, "it shares the network of another container", "what listens on 127.0.0.1 there is in reach", "")
	add(v.Net.Mode == "bridge", Low, "it reaches other machines", "what runs in it can talk to the outside", "--network=none")
	for _, p := range v.Net.Ports {
		add(p.HostIP == "" || p.HostIP == "0.0.0.0", Low, fmt.Sprintf("port %d/%s of every address of the host leads to it", p.HostPort, p.Proto), "others can reach it", fmt.Sprintf("-p 127.0.0.1:%d:%d for this machine only", p.HostPort, p.ContainerPort))
	}
	add(v.Shares("pid"), Moderate, "it sees the host's processes", "names, arguments and environments tell much; processes of its user can be signalled", "leave out --pid=host")
	add(v.Shares("ipc"), Moderate, "it shares System V IPC and message queues with the host", "programs of the host leave data there", "leave out --ipc=host")
	add(v.Shares("uts"), Low, "it shares the host's name", "", "")
	add(v.Shares("cgroup"), Low, "it sees its place in the host's cgroup tree", "", "")
	for _, hook := range v.Hooks {
		add(true, High, "its start runs a program of the host, "+hook, "hooks run outside of the container, with all privileges", "")
	}
	add(v.FDs > 0, Moderate, fmt.Sprintf("it gets %d descriptors of whoever starts it", v.FDs), "what they lead to is in reach", "")
	add(v.Keyring == "", Moderate, "it keeps the keyring of whoever starts it", "keys of the host's session are in reach", "")
	uid, mapped := hostID(v.UIDMap, v.UID, !ownUser)
	add(mapped && uid == 0, Low, "it runs as root, who is also the host's root", "a way out of the container would be a way to root", "--user, or a user namespace")
	add(!v.NoNewPrivs, Low, "programs with the setuid bit can raise its privileges", "", "--security-opt no-new-privileges")
	add(v.Limits.Memory == nil || *v.Limits.Memory < 0, Low, "its memory has no limit", "it can use up the host's", "--memory")
	add(v.Limits.Pids == nil || *v.Limits.Pids < 0, Low, "the number of its processes has no limit", "a fork bomb would hit the host", "--pids-limit")
	for _, u := range v.Unread {
		add(true, High, "step "+u, "this version doesn't know what it does", "")
	}
	rank := map[Severity]int{Total: 0, High: 1, Moderate: 2, Low: 3}
	slices.SortStableFunc(out, func(a, b Finding) int { return rank[a.Severity] - rank[b.Severity] })
	return out
}

// pathSeverity judges a path of the host in the hands of a container.
func pathSeverity(p string, readonly bool) (Severity, string) {
	p = path.Clean(p)
	inside := func(dirs ...string) bool {
		return slices.ContainsFunc(dirs, func(d string) bool {
			return p == d || strings.HasPrefix(p, d+"/") || strings.HasPrefix(d, p+"/") || p == "/"
		})
	}
	if slices.Contains([]string{"docker.sock", "containerd.sock", "crio.sock", "podman.sock"}, path.Base(p)) {
		return Total, "who talks to that socket can start containers with all privileges"
	}
	critical := inside("/etc", "/root", "/boot", "/usr", "/bin", "/sbin", "/lib", "/lib64", "/proc", "/sys", "/dev", "/run", "/var/run", "/var/lib", "/var/spool/cron", "/opt", "/home")
	switch {
	case critical && !readonly && (p == "/home" || p == "/opt" || strings.HasPrefix(p, "/home/") || strings.HasPrefix(p, "/opt/")):
		return Moderate, "programs and settings of the host's users may lie there"
	case critical && !readonly && strings.HasPrefix(p, "/var/lib/"):
		return Moderate, "services of the host keep their state there"
	case strings.HasPrefix(p, "/dev/shm"):
		return Moderate, "programs of the host share memory there"
	case critical && !readonly:
		return Total, "the host's programs, settings or kernel interfaces are there: changing them is becoming root of the host"
	case critical && inside("/etc", "/root", "/proc", "/home", "/run", "/var/lib", "/dev"):
		return High, "the host's secrets and settings are there"
	case critical:
		return Low, "the host's programs are there"
	case readonly:
		return Low, "the host's files"
	}
	return Low, "what it writes there stays, and the host's programs may read it"
}

// hostPaths lists every path of the host that a plan names, with the step that does: for a plan from elsewhere.
func hostPaths(p *plan.Plan) []string {
	out := []string{}
	seen := map[string]bool{}
	for _, s := range p.Steps {
		for _, path := range plan.HostNames(s.Op) {
			line := clean(path)
			if !seen[line] {
				seen[line] = true
				out = append(out, line)
			}
		}
	}
	return out
}

// WritePolicy prints what a container can reach, as text or JSON.
func WritePolicy(w io.Writer, format string, p *plan.Plan, a About, o TextOptions) error {
	r := Policy(p, a)
	if format == "json" {
		return writeJSON(w, r)
	}
	if o.Width <= 0 {
		o.Width = 100
	}
	t := &paper{script: script{w: w}, TextOptions: o}
	t.refusedOf("", r.Refused)
	t.heading("%s: exposure %s, %s", or(r.Title, "The plan"), r.Grade, r.Meaning)
	t.line("")
	if len(r.Findings) > 0 {
		t.heading("Reasons")
		for _, f := range r.Findings {
			text := f.What
			if f.Why != "" {
				text += ": " + f.Why
			}
			if f.Mend != "" {
				text += "  → " + f.Mend
			}
			t.item(string(f.Severity), text, severityColor(f.Severity))
		}
		t.line("")
	}
	t.rights(r.Rights, false)
	t.heading("syscalls")
	t.item("", fmt.Sprintf("%d of %d system calls whatever their arguments; %d depending on the arguments; %d never", r.Syscalls.Allowed, r.Syscalls.Known, len(r.Syscalls.Conditional), len(r.Syscalls.Denied)), "")
	if len(r.Syscalls.Conditional) > 0 {
		t.item("", "depending: "+strings.Join(r.Syscalls.Conditional, " "), "")
	}
	if len(r.Syscalls.Denied) > 0 {
		t.item("", "never: "+strings.Join(r.Syscalls.Denied, " "), "")
	}
	if o.Verbose || !a.Made {
		t.line("")
		t.heading("paths and names of the host in the plan")
		for _, path := range r.HostPaths {
			t.item("", path, "")
		}
	}
	t.line("")
	t.line("%s", t.paint("plan "+r.Plan, dim))
	return t.err
}

func severityColor(s Severity) string {
	return map[Severity]string{Total: "1;31", High: "31", Moderate: "33", Low: "2"}[s]
}

// paper prints headed lists.
type paper struct {
	script
	TextOptions
}

func (t *paper) paint(s, code string) string {
	if !t.Color || code == "" {
		return s
	}
	return "\x1b[" + code + "m" + s + "\x1b[0m"
}

func (t *paper) heading(format string, a ...any) {
	t.line("%s", t.paint(clean(fmt.Sprintf(format, a...)), bold))
}

// refusedOf says that a plan would be refused, if there is a reason.
func (t *paper) refusedOf(whose, why string) {
	if lines := Refusal(whose, why, t.TextOptions); len(lines) > 0 {
		t.line("%s\n", strings.Join(lines, "\n"))
	}
}

func (t *paper) item(label, text, color string) {
	indent := "  "
	if label != "" {
		indent = "  " + fmt.Sprintf("%-9s", label) + " "
	}
	for i, line := range wrap(text, max(20, t.Width-len(indent))) {
		if i == 0 && label != "" {
			t.line("  %s %s", t.paint(fmt.Sprintf("%-9s", label), color), line)
			continue
		}
		t.line("%s%s", strings.Repeat(" ", len(indent)), line)
	}
}

// rights prints rights by area. Calls of the system are told in one line.
func (t *paper) rights(rights []Right, short bool) {
	for _, area := range areas() {
		var words, calls []string
		for _, r := range rights {
			switch {
			case r.Area != area:
			case area == "syscalls":
				calls = append(calls, strings.TrimPrefix(r.What, "call "))
			default:
				words = append(words, r.What)
			}
		}
		if area == "devices" {
			words = mergeDevices(words)
		}
		if len(words)+len(calls) == 0 {
			continue
		}
		t.heading("%s", area)
		for _, w := range words {
			t.item("", w, "")
		}
		if len(calls) > 0 {
			t.item("", fmt.Sprintf("call (%d): %s", len(calls), strings.Join(calls, ", ")), "")
		}
		if !short {
			t.line("")
		}
	}
}

// mergeDevices tells the ways of access to one device in one line.
func mergeDevices(words []string) []string {
	var out []string
	ways := map[string][]string{}
	for _, w := range words {
		for _, way := range []string{"read ", "write to ", "make nodes of "} {
			if object, ok := strings.CutPrefix(w, way); ok {
				if ways[object] == nil {
					out = append(out, object)
				}
				ways[object] = append(ways[object], strings.TrimSpace(way))
			}
		}
	}
	for i, object := range out {
		out[i] = strings.Join(ways[object], ", ") + " " + object
	}
	return out
}

func writeJSON(w io.Writer, v any) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	enc.SetEscapeHTML(false)
	return enc.Encode(v)
}
