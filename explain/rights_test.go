package explain

import (
	"bytes"
	"slices"
	"strings"
	"testing"

	"glassbox/plan"
	"glassbox/seccomp"
)

// container is a plan with little in it, which change makes worse.
func container(t *testing.T, change func(add func(plan.Lane, plan.Op), dropped *[]string)) *plan.Plan {
	t.Helper()
	f, err := seccomp.Compile(seccomp.Default(seccomp.DefaultOptions{Arch: "amd64", KernelMajor: 6}), "amd64")
	if err != nil {
		t.Fatal(err)
	}
	p := &plan.Plan{Version: plan.Version, Arch: "amd64"}
	add := func(l plan.Lane, op plan.Op) { p.Steps = append(p.Steps, plan.Step{Lane: l, Op: op}) }
	add(plan.Host, &plan.CgroupCreate{Path: "/sys/fs/cgroup/x"})
	for _, r := range usualRules() {
		verb, rule, _ := strings.Cut(r, " ")
		add(plan.Host, &plan.CgroupWrite{File: "/sys/fs/cgroup/x/devices." + verb, Value: rule})
	}
	add(plan.Host, &plan.CgroupWrite{File: "/sys/fs/cgroup/x/memory.limit_in_bytes", Value: "67108864"})
	add(plan.Host, &plan.CgroupWrite{File: "/sys/fs/cgroup/x/pids.max", Value: "50"})
	add(plan.Host, &plan.CgroupOpen{Path: "/sys/fs/cgroup/x/tasks", Save: "cgroup"})
	add(plan.Host, &plan.Clone{Namespaces: []string{"mount", "pid", "uts", "ipc", "net"}})
	add(plan.Child, &plan.CgroupJoin{From: "cgroup"})
	add(plan.Child, &plan.Unshare{Namespaces: []string{"cgroup"}})
	add(plan.Child, &plan.Mount{Target: "/", Flags: []string{"rec", "private"}})
	add(plan.Child, &plan.Overlay{Dir: "/r", Lower: []string{"layers/1a"}, Target: "/r/merged"})
	add(plan.Child, &plan.PivotRoot{Root: "/r/merged"})
	add(plan.Child, &plan.FSMount{Type: "proc", Target: "/proc"})
	add(plan.Child, &plan.FSMount{Type: "sysfs", Target: "/sys", Attrs: []string{"ro"}})
	add(plan.Child, &plan.Mknod{Path: "/dev/null", Type: "c", Major: 1, Minor: 3, Mode: 0o666, Save: "null"})
	for _, m := range usualMasked() {
		add(plan.Child, &plan.MaskPath{Path: m, Null: "null"})
	}
	for _, m := range usualLocked() {
		add(plan.Child, &plan.ReadonlyPath{Path: m})
	}
	add(plan.Child, &plan.Keyring{Name: "k"})
	add(plan.Child, &plan.Remount{Target: "/", Set: []string{"ro"}})
	add(plan.Child, &plan.Seccomp{Name: "default", Program: f.Bytes()})
	add(plan.Child, &plan.NoNewPrivs{})
	add(plan.Child, &plan.Setresuid{UID: 1000})
	var dropped []string
	for n := range plan.CapCount() {
		dropped = append(dropped, plan.CapName(n))
	}
	if change != nil {
		change(add, &dropped)
	}
	add(plan.Child, &plan.DropBounding{Caps: dropped})
	return p
}

func bind(add func(plan.Lane, plan.Op), source string, ro bool) {
	m := &plan.MoveMount{From: source, Target: "/data", Propagation: []string{"rprivate"}}
	if ro {
		m.Set = []string{"ro"}
	}
	add(plan.Host, &plan.OpenTree{Path: source, Save: source})
	add(plan.Child, m)
}

func TestPolicyGrades(t *testing.T) {
	keep := func(dropped *[]string, names ...string) {
		*dropped = slices.DeleteFunc(*dropped, func(s string) bool { return slices.Contains(names, s) })
	}
	type adder = func(plan.Lane, plan.Op)
	for _, tt := range []struct {
		name   string
		change func(add adder, dropped *[]string)
		grade  string
		reason string // of the worst finding
	}{
		{"tight", nil, "A", ""},
		{"setuid", func(_ adder, d *[]string) { keep(d, "CAP_SYS_ADMIN") }, "A", ""}, // no new privileges: can't be had
		{"another's memory", func(add adder, _ *[]string) {
			add(plan.Host, &plan.Open{Path: "/proc/42/ns/mnt", Namespace: "mount", Save: "mounts"})
			add(plan.Host, &plan.OpenTree{Path: "/dev/shm", Mounts: "mounts", Save: "shm"})
			add(plan.Child, &plan.MoveMount{From: "shm", Target: "/data", Propagation: []string{"rprivate"}})
		}, "B", "/proc/42/root/dev/shm"},
		{"another's root", func(add adder, _ *[]string) {
			add(plan.Host, &plan.Open{Path: "/proc/42/ns/mnt", Namespace: "mount", Save: "mounts"})
			add(plan.Host, &plan.OpenTree{Path: "/", Mounts: "mounts", Save: "root"})
			add(plan.Child, &plan.MoveMount{From: "root", Target: "/data", Propagation: []string{"rprivate"}})
		}, "F", "/proc/42/root"},
		{"admin", func(add adder, d *[]string) {
			keep(d, "CAP_SYS_ADMIN")
			add(plan.Child, &plan.Setresuid{UID: 0})
		}, "D", "CAP_SYS_ADMIN"},
		{"module", func(add adder, d *[]string) {
			keep(d, "CAP_SYS_MODULE")
			add(plan.Child, &plan.Setresuid{UID: 0})
		}, "F", "CAP_SYS_MODULE"},
		{"module in a user namespace", func(add adder, d *[]string) {
			keep(d, "CAP_SYS_MODULE")
			add(plan.Child, &plan.Setresuid{UID: 0})
			add(plan.Child, &plan.Unshare{Namespaces: []string{"user"}})
		}, "A", ""},
		{"etc", func(add adder, _ *[]string) { bind(add, "/etc", false) }, "F", "/etc"},
		{"above etc", func(add adder, _ *[]string) { bind(add, "/", false) }, "F", "change the host's /"},
		{"etc to read", func(add adder, _ *[]string) { bind(add, "/etc", true) }, "D", "/etc"},
		{"socket", func(add adder, _ *[]string) { bind(add, "/var/run/docker.sock", true) }, "F", "docker.sock"},
		{"data", func(add adder, _ *[]string) { bind(add, "/srv/data", false) }, "A", ""},
		{"disk", func(add adder, _ *[]string) {
			add(plan.Host, &plan.CgroupWrite{File: "/sys/fs/cgroup/x/devices.allow", Value: "b 8:0 rw"})
		}, "F", "block device 8:0"},
		{"disk to read", func(add adder, _ *[]string) {
			add(plan.Host, &plan.CgroupWrite{File: "/sys/fs/cgroup/x/devices.allow", Value: "b 8:0 r"})
		}, "D", "block device 8:0"},
		{"every device", func(add adder, _ *[]string) {
			add(plan.Host, &plan.CgroupWrite{File: "/sys/fs/cgroup/x/devices.allow", Value: "a *:* rwm"})
		}, "F", "every block device"},
		{
			"network of the host", func(add adder, _ *[]string) { add(plan.Child, &plan.Setns{Namespaces: []string{"mount"}, From: "x"}) }, "D",
			"mounts of x",
		},
		{"cgroup files", func(add adder, _ *[]string) {
			add(plan.Child, &plan.FSMount{Type: "cgroup2", Target: "/sys/fs/cgroup"})
		}, "D", "CVE-2022-0492"},
		{
			"host setting", func(add adder, _ *[]string) { add(plan.Child, &plan.Sysctl{Key: "vm/panic_on_oom", Value: "1"}) }, "F",
			"vm.panic_on_oom",
		},
		{"unknown step", func(add adder, _ *[]string) { add(plan.Child, unknown{}) }, "D", "step"},
	} {
		p := container(t, tt.change)
		r := Policy(p, About{})
		worst := ""
		if len(r.Findings) > 0 {
			worst = r.Findings[0].What + " " + r.Findings[0].Why
		}
		if r.Grade != tt.grade || tt.reason != "" && !strings.Contains(worst, tt.reason) {
			t.Errorf("%s: got %s because %q; want %s because %q", tt.name, r.Grade, worst, tt.grade, tt.reason)
		}
		for _, format := range []string{"text", "json"} {
			if err := WritePolicy(&bytes.Buffer{}, format, p, About{}, TextOptions{}); err != nil {
				t.Errorf("%s: %v", tt.name, err)
			}
		}
	}
}

func TestDiff(t *testing.T) {
	type adder = func(plan.Lane, plan.Op)
	words := func(rights []Right) string {
		var out []string
		for _, r := range rights {
			out = append(out, r.What)
		}
		return strings.Join(out, "; ")
	}
	base := container(t, nil)
	for _, tt := range []struct {
		name         string
		change       func(add adder, dropped *[]string)
		onlyB, onlyA string
	}{
		{"nothing", nil, "", ""},
		{"memory", func(add adder, _ *[]string) {
			add(plan.Host, &plan.CgroupWrite{File: "/sys/fs/cgroup/x/memory.max", Value: "134217728"})
		}, "use 128 MiB of memory", ""},
		{"less memory", func(add adder, _ *[]string) {
			add(plan.Host, &plan.CgroupWrite{File: "/sys/fs/cgroup/x/memory.max", Value: "33554432"})
		}, "", "use 64 MiB of memory"},
		{"no limit", func(add adder, _ *[]string) {
			add(plan.Host, &plan.CgroupWrite{File: "/sys/fs/cgroup/x/pids.max", Value: "max"})
		}, "use any amount of processes", ""},
		{"processors", func(add adder, _ *[]string) {
			add(plan.Host, &plan.CgroupWrite{File: "/sys/fs/cgroup/x/cpuset.cpus", Value: "0-1"})
		}, "", "run on every processor"},
		{"half a processor", func(add adder, _ *[]string) {
			add(plan.Host, &plan.CgroupWrite{File: "/sys/fs/cgroup/x/cpu.max", Value: "50000 100000"})
		}, "", "use any amount of processor time"},
		{
			"file", func(add adder, _ *[]string) { bind(add, "/srv", false) }, "read the host's /srv (as /data); change the host's /srv (as /data)",
			"",
		},
		{"device", func(add adder, _ *[]string) {
			add(plan.Host, &plan.CgroupWrite{File: "/sys/fs/cgroup/x/devices.allow", Value: "c 10:200 rw"})
		}, "read character device 10:200 (/dev/net/tun); write to character device 10:200 (/dev/net/tun)", ""},
		{"a device less", func(add adder, _ *[]string) {
			add(plan.Host, &plan.CgroupWrite{File: "/sys/fs/cgroup/x/devices.deny", Value: "c 1:8 w"})
		}, "", "write to character device 1:8 (/dev/random)"},
		{"capability", func(add adder, d *[]string) {
			*d = slices.DeleteFunc(*d, func(s string) bool { return s == "CAP_KILL" })
			add(plan.Child, &plan.AmbientCaps{Caps: []string{"CAP_KILL"}})
		}, "CAP_KILL: signal processes of other users", ""},
		{"port", func(add adder, _ *[]string) {
			add(plan.Host, &plan.NftPublish{Ports: []plan.PortRule{{Proto: "tcp", HostPort: 80, ContainerPort: 8080}}})
		}, "be reached from outside at port 80/tcp of the host (every address)", ""},
		{
			"shared processes", func(add adder, _ *[]string) { add(plan.Child, &plan.Setns{Namespaces: []string{"pid"}, From: "p"}) },
			"use the pid namespace of p", "",
		},
		{
			"another user", func(add adder, _ *[]string) { add(plan.Child, &plan.Setresuid{UID: 7}) }, "act as user 7 of the host",
			"act as user 1000 of the host",
		},
		{
			"reserved", func(add adder, _ *[]string) { add(plan.Host, &plan.WriteFile{Path: "/proc/sys/x", Value: "1"}) },
			"have /proc/sys/x=1 set on the host", "",
		},
		{"filter", func(add adder, _ *[]string) {
			ptrace := append([]byte{0x20, 0, 0, 0, 0, 0, 0, 0, 0x15, 0, 0, 1, 101, 0, 0, 0, 6, 0, 0, 0, 1, 0, 5, 0}, 6, 0, 0, 0, 0, 0, 0xff, 0x7f)
			add(plan.Child, &plan.Seccomp{Name: "more", Program: ptrace})
		}, "", "call ptrace"},
	} {
		d := Diff(base, container(t, tt.change), About{Title: "a"}, About{Title: "b"})
		if got := words(d.OnlyB); got != tt.onlyB {
			t.Errorf("%s: what only b may: got %q, want %q", tt.name, got, tt.onlyB)
		}
		if got := words(d.OnlyA); !strings.HasPrefix(got, tt.onlyA) || tt.onlyA == "" && got != "" {
			t.Errorf("%s: what only a may: got %q, want %q", tt.name, got, tt.onlyA)
		}
		for _, format := range []string{"text", "json"} {
			if err := WriteDiff(&bytes.Buffer{}, format, d, TextOptions{Color: true}); err != nil {
				t.Errorf("%s: %v", tt.name, err)
			}
		}
	}
	if r := Policy(&plan.Plan{Arch: "amd64"}, About{}); r.Grade != "F" {
		t.Errorf("a plan that isolates nothing: got %s, want F", r.Grade)
	}
	wide := container(t, func(add adder, _ *[]string) { bind(add, "/srv", false) })
	narrow := container(t, func(add adder, _ *[]string) { bind(add, "/srv/data/", true) })
	if d := Diff(wide, narrow, About{}, About{}); len(d.OnlyB) > 0 {
		t.Errorf("a directory below: got %q, want nothing", words(d.OnlyB))
	}
}

func TestTogether(t *testing.T) {
	step := func(path string) plan.Step { return plan.Step{Op: &plan.MaskPath{Path: path}} }
	for _, tt := range []struct {
		paths []string
		want  string
	}{
		{[]string{"/proc/a", "/proc/b", "/proc/c"}, "hide /proc/{a, b, c}"},
		{[]string{"/a", "/a", "/a"}, ""},
		{[]string{"/a", "/" + strings.Repeat("b", 40)}, ""},
	} {
		var steps []plan.Step
		for _, p := range tt.paths {
			steps = append(steps, step(p))
		}
		got, ok := together(steps)
		if ok != (tt.want != "") || got != tt.want {
			t.Errorf("%q: got %q, %v; want %q", tt.paths, got, ok, tt.want)
		}
	}
	link := []plan.Step{{Op: &plan.Symlink{Path: "x", Target: "y"}}, {Op: &plan.Symlink{Path: "xx", Target: "yy"}}, {Op: &plan.Symlink{}}}
	if got, ok := together(link); !ok || got != "link {x -> y, xx -> yy,  -> }" && got != "link x -> y, xx -> yy,  -> " {
		t.Errorf("got %q, %v", got, ok)
	}
}

func TestQuote(t *testing.T) {
	for s, want := range map[string]string{
		"": "''", "a-b": "a-b", "a b": "'a b'", "it's": `'it'\''s'`, "$x": "'$x'", "a\x1b[2Jb": `'a'"$(printf '\033')"'[2Jb'`, "a\nb": "'a\nb'",
	} {
		if got := quote(s); got != want {
			t.Errorf("quote(%q): got %s, want %s", s, got, want)
		}
	}
}
