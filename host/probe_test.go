package host

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestParseRelease(t *testing.T) {
	for release, want := range map[string]Kernel{
		"6.1.0-18-amd64":         {Major: 6, Minor: 1},
		"5.14.0-427.el9.x86_64":  {Major: 5, Minor: 14},
		"6.18-rc1":               {Major: 6, Minor: 18},
		"6.6.87.2-microsoft-WSL": {Major: 6, Minor: 6},
		"10.0":                   {Major: 10, Minor: 0},
	} {
		want.Release = release
		got, err := parseRelease(release)
		if err != nil || got != want {
			t.Errorf("parseRelease(%q) = %+v, %v, want %+v", release, got, err, want)
		}
	}
	for _, release := range []string{"", "6", "6.", ".1", "six.one", "6.x", "-6.1", "99999999.1"} {
		if got, err := parseRelease(release); err == nil {
			t.Errorf("parseRelease(%q) = %+v, want an error", release, got)
		}
	}
}

func TestCountList(t *testing.T) {
	for list, want := range map[string]int{"0": 1, "0-3": 4, "0-1,4,6-7": 5, "": 0, "3-1": 0, "x": 0, "0-": 0} {
		if got := countList(list); got != want {
			t.Errorf("countList(%q) = %d, want %d", list, got, want)
		}
	}
}

// Mount tables as they are found in the field, one txt file each would hide how short they are.
const (
	tree = `23 1 254:0 / / rw - ext4 /dev/vda rw
25 23 0:21 / /sys rw - sysfs sysfs rw
`
	hybridMounts = tree + `31 25 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:9 - cgroup cgroup rw,cpu,cpuacct
35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
40 31 0:37 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,xattr,name=systemd
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
90 23 0:32 / /srv/root/sys/fs/cgroup/memory rw - cgroup cgroup rw,memory
`
	hybridOwn = "5:memory:/user/1\n4:name=systemd:/\n2:cpu,cpuacct:/\n0::/\n"
)

func TestHierarchies(t *testing.T) {
	memory := Hierarchy{Mount: "/sys/fs/cgroup/memory", Controllers: []string{"memory"}, Own: "/user/1"}
	cpu := Hierarchy{Mount: "/sys/fs/cgroup/cpu,cpuacct", Controllers: []string{"cpu", "cpuacct"}, Own: "/"}
	systemd := Hierarchy{Mount: "/sys/fs/cgroup/systemd", Controllers: []string{"name=systemd"}, Own: "/"}
	unified := Hierarchy{Mount: "/sys/fs/cgroup/unified", V2: true, Own: "/"}
	for _, c := range []struct {
		name, mounts, own string
		want              []Hierarchy
	}{
		{"hybrid", hybridMounts, hybridOwn, []Hierarchy{cpu, memory, systemd, unified}},
		{
			"v2", tree + "26 25 0:23 / /sys/fs/cgroup rw - cgroup2 cgroup rw,nsdelegate\n", "0::/system.slice/x.service\n",
			[]Hierarchy{{Mount: "/sys/fs/cgroup", V2: true, Own: "/system.slice/x.service"}},
		},
		{
			"a container without cgroup namespace: the mount shows a part",
			tree + "35 25 0:32 /docker/1f /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory\n", "5:memory:/docker/1f/sub\n",
			[]Hierarchy{{Mount: "/sys/fs/cgroup/memory", Controllers: []string{"memory"}, Own: "/sub"}},
		},
		{
			"outside of the namespace's root", tree + "26 25 0:23 / /sys/fs/cgroup rw - cgroup2 cgroup rw\n", "0::/../other\n",
			[]Hierarchy{{Mount: "/sys/fs/cgroup", V2: true}},
		},
		{
			"only an unusual mount point, with a space", tree + "90 23 0:32 / /srv/a\\040b/memory rw - cgroup cgroup rw,memory\n", hybridOwn,
			[]Hierarchy{{Mount: "/srv/a b/memory", Controllers: []string{"memory"}, Own: "/user/1"}},
		},
		{
			"one on top hides", hybridMounts + "99 41 0:50 / /sys/fs/cgroup/unified rw - tmpfs t rw\n",
			hybridOwn,
			[]Hierarchy{cpu, memory, systemd},
		},
		{
			"one above hides all but the mount elsewhere", hybridMounts + "99 25 0:50 / /sys/fs rw - tmpfs t rw\n", hybridOwn,
			[]Hierarchy{{Mount: "/srv/root/sys/fs/cgroup/memory", Controllers: []string{"memory"}, Own: "/user/1"}},
		},
		{
			"a moved mount stands before its parent",
			"20 31 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n" + tree + "31 25 0:28 / /sys/fs/cgroup rw - tmpfs t rw\n", hybridOwn,
			[]Hierarchy{memory},
		},
		{"none", tree, hybridOwn, nil},
		{"none at all", "", "", nil},
	} {
		got := hierarchies(c.mounts, parseSelfCgroup(c.own))
		if diff := cmp.Diff(c.want, got); diff != "" {
			t.Errorf("%s: (-want +got)\n%s", c.name, diff)
		}
	}
}

func FuzzHierarchies(f *testing.F) {
	f.Add(hybridMounts, hybridOwn)
	f.Add(tree+"99 99 0:1 / / rw - cgroup2 x rw\n", "0::/\n")
	f.Fuzz(func(t *testing.T, mounts, own string) {
		for _, h := range hierarchies(mounts, parseSelfCgroup(own)) {
			if h.Own != "" && !strings.HasPrefix(h.Own, "/") {
				t.Errorf("own cgroup %q isn't absolute", h.Own)
			}
			if h.V2 != (len(h.Controllers) == 0) {
				t.Errorf("hierarchy %+v: a v1 hierarchy has controllers, a v2 mount names none", h)
			}
		}
	})
}

func FuzzParseRelease(f *testing.F) {
	f.Add("6.1.0-18-amd64")
	f.Fuzz(func(t *testing.T, release string) {
		if k, err := parseRelease(release); err == nil && (k.Major < 0 || k.Minor < 0 || k.Release != release) {
			t.Errorf("parseRelease(%q) = %+v", release, k)
		}
	})
}

// On whatever machine the test runs, the facts agree with other sources.
func TestProbe(t *testing.T) {
	f, err := Probe()
	if err != nil {
		t.Fatal(err)
	}
	text, _ := json.MarshalIndent(f, "", "  ")
	t.Logf("%s", text)
	if f.Arch != runtime.GOARCH || int(f.UID) != os.Geteuid() || f.CPUs < runtime.NumCPU() || f.Memory == 0 {
		t.Errorf("arch %s, uid %d, cpus %d, memory %d", f.Arch, f.UID, f.CPUs, f.Memory)
	}
	if last, err := os.ReadFile("/proc/sys/kernel/cap_last_cap"); err == nil {
		if got, want := f.LastCap, strings.TrimSpace(string(last)); jsonOf(got) != want {
			t.Errorf("last capability %d, want %s", got, want)
		}
	}
	if f.NoFile[0] == 0 || f.NoFile[0] > f.NoFile[1] {
		t.Errorf("noFile = %v, want 0 < soft <= hard", f.NoFile)
	}
	for _, h := range f.Cgroup.Hierarchies {
		if _, err := os.Stat(h.Mount + "/cgroup.procs"); err != nil {
			t.Error(err)
		}
	}
}

func jsonOf(v any) string {
	text, _ := json.Marshal(v)
	return string(text)
}

func BenchmarkProbe(b *testing.B) {
	for b.Loop() {
		if _, err := Probe(); err != nil {
			b.Fatal(err)
		}
	}
}

// TestUserNamespace probes from inside a user namespace whose groups can't be changed.
func TestUserNamespace(t *testing.T) {
	if os.Getenv("GLASSBOX_PROBE") != "" {
		f, err := Probe()
		if err != nil {
			t.Fatal(err)
		}
		fmt.Printf("<%v %v %d>", f.UserNS, f.NoSetgroups, f.UID)
		return
	}
	cmd := exec.Command(os.Args[0], "-test.run=^TestUserNamespace$")
	cmd.Env = append(os.Environ(), "GLASSBOX_PROBE=1")
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	f, err := Probe()
	if err != nil {
		t.Fatal(err)
	}
	if want := fmt.Sprintf("<%v %v %d>", f.UserNS, f.NoSetgroups, f.UID); !strings.Contains(string(out), want) {
		t.Errorf("here: got %s, want %s", out, want)
	}
	cmd = exec.Command(os.Args[0], "-test.run=^TestUserNamespace$")
	cmd.Env = append(os.Environ(), "GLASSBOX_PROBE=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER,
		UidMappings: []syscall.SysProcIDMap{{HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{HostID: os.Getgid(), Size: 1}},
	}
	if out, err = cmd.Output(); err != nil {
		t.Skipf("no user namespaces here: %v", err)
	}
	if want := "<true true 0>"; !strings.Contains(string(out), want) {
		t.Errorf("in a user namespace: got %s, want %s", out, want)
	}
}

func TestFindResctrl(t *testing.T) {
	const top = "20 1 8:1 / / rw - ext4 /dev/sda1 rw\n"
	for _, test := range []struct{ name, mountinfo, want string }{
		{"none", top, ""},
		{"usual", top + "30 20 0:27 / /sys/fs/resctrl rw,relatime - resctrl resctrl rw,cdp\n", "/sys/fs/resctrl"},
		{"a part", top + "30 20 0:27 /gold /mnt rw - resctrl resctrl rw\n", ""},
		{"hidden", top + "30 20 0:27 / /sys/fs/resctrl rw - resctrl resctrl rw\n31 20 0:28 / /sys rw - tmpfs tmpfs rw\n", ""},
		{"a file system of that name elsewhere", top + "30 20 0:27 / /resctrl rw - tmpfs resctrl rw\n", ""},
		{"escaped", top + "30 20 0:27 / /my\\040rdt rw - resctrl resctrl rw\n", "/my rdt"},
	} {
		if got := findResctrl(test.mountinfo); got != test.want {
			t.Errorf("%s: got %q, want %q", test.name, got, test.want)
		}
	}
}

func TestParseStat(t *testing.T) {
	for text, want := range map[string]Stat{
		"42 (a ) b) S 1 42 42 0 -1 4194560 99 0 0 0 0 0 0 0 20 0 1 0 12345 0": {State: 'S', Parent: 1, Session: 42, Flags: 4194560, Start: 12345},
		"42 (a ) b) S 1 42 42 0 -1 4194560 99 0 0 0 0 0 0 0 20 0 1 0":         {},
		"42 (a) S 1 42 42 0 -1 4194560 99 0 0 0 0 0 0 0 20 0 1 0 soon 0":      {State: 'S', Parent: 1, Session: 42, Flags: 4194560},
		"nonsense": {},
		"":         {},
	} {
		got, ok := ParseStat(text)
		if got != want || ok != (want.Start != 0) {
			t.Errorf("%q: got %+v, %v, want %+v", text, got, ok, want)
		}
	}
}
