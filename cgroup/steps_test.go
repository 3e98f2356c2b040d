package cgroup

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"glassbox/host"
	"glassbox/plan"
	"glassbox/systemd"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/runtime-spec/specs-go"
	"github.com/rogpeppe/go-internal/txtar"
)

var update = flag.Bool("update", false, "write the golden files anew")

// hosts are the cgroup set-ups that golden files name.
func hosts() map[string]host.Cgroup {
	v1 := func(name string, files ...string) host.Hierarchy {
		return host.Hierarchy{
			Mount:       "/sys/fs/cgroup/" + name,
			Controllers: strings.Split(strings.ReplaceAll(name, "systemd", "name=systemd"), ","), Own: "/", Files: files,
		}
	}
	v2 := func(mount string, controllers ...string) host.Hierarchy {
		return host.Hierarchy{Mount: mount, V2: true, Controllers: controllers, Own: "/"}
	}
	memory := v1("memory", "memory.memsw.limit_in_bytes", "memory.kmem.tcp.limit_in_bytes")
	cpu := v1("cpu,cpuacct", "cpu.cfs_quota_us", "cpu.cfs_burst_us", "cpu.rt_runtime_us", "cpu.idle")
	all := v2("/sys/fs/cgroup", "cpuset", "cpu", "io", "memory", "hugetlb", "pids", "rdma")
	old := v1("memory", "memory.memsw.limit_in_bytes", "memory.kmem.limit_in_bytes", "memory.kmem.tcp.limit_in_bytes")
	deep, memoryOwn := all, memory
	deep.Own, memoryOwn.Own = "/user.slice/session-1.scope", "/user"
	outside := memory
	outside.Own = ""
	crowded, enabled := all, all
	crowded.Crowded, crowded.Files = true, []string{"io.weight"}
	enabled.Enabled = enabled.Controllers
	return map[string]host.Cgroup{
		"none": {Mode: host.CgroupNone},
		"v1": {
			Mode: host.CgroupV1, CpusetCpus: "0-3", CpusetMems: "0",
			Hierarchies: []host.Hierarchy{
				v1("systemd"), memory, cpu, v1("cpuset"), v1("pids"), v1("blkio", "blkio.bfq.weight"), v1("devices"),
				v1("freezer"), v1("hugetlb"), v1("net_cls,net_prio"),
			},
		},
		"v1-old":     {Mode: host.CgroupV1, Hierarchies: []host.Hierarchy{old, v1("blkio", "blkio.weight"), v1("rdma")}},
		"v1-inside":  {Mode: host.CgroupV1, Hierarchies: []host.Hierarchy{memoryOwn, v1("pids")}},
		"v1-outside": {Mode: host.CgroupV1, Hierarchies: []host.Hierarchy{outside}},
		"v2-inside":  {Mode: host.CgroupV2, Hierarchies: []host.Hierarchy{deep}},
		"v1-poor":    {Mode: host.CgroupV1, Hierarchies: []host.Hierarchy{v1("memory"), v1("cpu"), v1("blkio")}},
		"hybrid-systemd": {
			Mode:        host.CgroupHybrid,
			Hierarchies: []host.Hierarchy{v1("systemd"), memory, cpu, v1("devices"), v2("/sys/fs/cgroup/unified", "hugetlb")},
		},
		"v2":         {Mode: host.CgroupV2, Hierarchies: []host.Hierarchy{all}},
		"v2-crowded": {Mode: host.CgroupV2, Hierarchies: []host.Hierarchy{crowded}},
		"v2-enabled": {Mode: host.CgroupV2, Hierarchies: []host.Hierarchy{enabled}},
		"hybrid": {
			Mode: host.CgroupHybrid, CpusetCpus: "0-3", CpusetMems: "0",
			Hierarchies: []host.Hierarchy{cpu, v1("cpuset"), memory, v1("devices"), v2("/sys/fs/cgroup/unified", "hugetlb")},
		},
	}
}

func pointerItself(p string) string { return p }

// Golden files hold the name of a host, the resources, and the steps or errors for the cgroup /glassbox/id, for that of another
// path, or for a scope of the system's or a user's manager.
func TestGolden(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) {
			ar, err := txtar.ParseFile(file)
			if err != nil {
				t.Fatal(err)
			}
			section := map[string][]byte{}
			for _, f := range ar.Files {
				section[f.Name] = f.Data
			}
			f, ok := hosts()[strings.TrimSpace(string(section["host"]))]
			if !ok {
				t.Fatalf("no host %q", section["host"])
			}
			var r specs.LinuxResources
			if err := json.Unmarshal(section["resources.json"], &r); err != nil {
				t.Fatal(err)
			}
			p := "/glassbox/id"
			if text, ok := section["path"]; ok {
				if p, err = Path(strings.TrimSpace(string(text)), "id"); err != nil {
					t.Fatal(err)
				}
			}
			var got strings.Builder
			var s Setup
			if text, ok := section["scope"]; ok {
				var scope Scope
				m := systemd.Facts{Version: 252, Cgroup: "/"}
				if user, ok := section["user"]; ok {
					m.User, m.Cgroup = true, strings.TrimSpace(string(user))
				}
				if scope, err = ParseScope(strings.TrimSpace(string(text)), "id", m.User); err == nil {
					s, err = ScopeSteps(f, m, scope, nil, &r, pointerItself)
				}
			} else {
				s, err = Steps(f, p, &r, pointerItself)
			}
			if err != nil {
				fmt.Fprintf(&got, "%v\n", err)
			} else {
				printSetup(&got, s)
			}
			if *update {
				ar.Files[len(ar.Files)-1].Data = []byte(got.String())
				if err := os.WriteFile(file, txtar.Format(ar), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			if diff := cmp.Diff(string(section["want"]), got.String()); diff != "" && !*update {
				t.Errorf("(-want +got)\n%s", diff)
			}
		})
	}
}

func printSetup(w *strings.Builder, s Setup) {
	steps := s.Steps
	if len(s.After) > 0 {
		steps = slices.Concat(s.Steps, []plan.Step{{Op: &plan.Clone{}, Origin: "-"}}, s.After)
	}
	for _, step := range steps {
		text := step.Op.String()
		if op, ok := step.Op.(*plan.CgroupWrite); ok && op.Enable {
			text += ", unless enabled"
		}
		if op, ok := step.Op.(*plan.DeviceFilter); ok {
			text += ": " + strings.Join(op.Rules, ", ")
		}
		fmt.Fprintf(w, "%s (%s)\n", text, step.Origin)
	}
	paths, _ := json.Marshal(s.Paths)
	fmt.Fprintf(w, "clone into %q, join %q, paths %s\n", s.CloneInto, s.Join, paths)
}

// Every step says who makes it, where it comes from and why, and descriptors are saved once.
func TestStepsAreComplete(t *testing.T) {
	limit := int64(1 << 20)
	for name, f := range hosts() {
		r := &specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: &limit}}
		if name == "none" {
			r = nil
		}
		s, err := Steps(f, "/a.slice/id", r, pointerItself)
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
		saved := map[string]bool{}
		for i, step := range s.Steps {
			if step.Lane != plan.Host || step.Phase != plan.Limits || step.Origin == "" || !strings.HasSuffix(step.Reason, ".") {
				t.Errorf("%s: step %d is %+v", name, i, step)
			}
			if op, ok := step.Op.(*plan.CgroupOpen); ok {
				if saved[op.Save] {
					t.Errorf("%s: descriptor %q is saved twice", name, op.Save)
				}
				saved[op.Save] = true
			}
		}
		for _, d := range append(s.Join, s.CloneInto) {
			if d != "" && !saved[d] {
				t.Errorf("%s: descriptor %q isn't saved", name, d)
			}
		}
		if diff := cmp.Diff(s.Join, Join(f, s.Paths).Join); diff != "" {
			t.Errorf("%s: Join differs from Steps:\n%s", name, diff)
		}
	}
}

func TestStepsRefusesPaths(t *testing.T) {
	for _, p := range []string{"", "/", ".", "..", "x/", "./x", "../x", "/../x", "/x/", "//x", "/x/../../y"} {
		if _, err := Steps(hosts()["v1"], p, nil, pointerItself); err == nil {
			t.Errorf("Steps with path %q: no error", p)
		}
	}
}

func TestPath(t *testing.T) {
	for _, c := range []struct{ path, want string }{
		{"", "/id"},
		{"/a/b", "/a/b"},
		{"/a//b/", "/a/b"},
		{"a/b", "a/b"},
		{"./a", "a"},
		{"/../../a", "/a"},
		{"../../etc", "etc"},
		{"a/../../../b", "b"},
		{"system.slice:runc:x", "system.slice:runc:x"}, // without the systemd driver it is a name
	} {
		if got, err := Path(c.path, "id"); got != c.want || err != nil {
			t.Errorf("Path(%q) = %q, %v, want %q", c.path, got, err, c.want)
		}
	}
	for _, c := range []struct{ path, id string }{
		{"/", "id"},
		{"..", "id"},
		{".", "id"},
		{"/a/..", "id"},
		{"a\nb", "id"},
		{"/a\x00", "id"},
		{"", ""},
		{"", ".."},
		{"", "a/b"},
	} {
		if got, err := Path(c.path, c.id); err == nil {
			t.Errorf("Path(%q, %q) = %q, want an error", c.path, c.id, got)
		}
	}
}

func TestParseScope(t *testing.T) {
	for _, c := range []struct {
		path string
		user bool
		want Scope
	}{
		{"", false, Scope{"system.slice", "glassbox-id.scope"}},
		{"", true, Scope{"user.slice", "glassbox-id.scope"}},
		{"machine.slice:libpod:3f", false, Scope{"machine.slice", "libpod-3f.scope"}},
		{":docker:3f", false, Scope{"system.slice", "docker-3f.scope"}},
		{"a-b.slice::3f", true, Scope{"a-b.slice", "3f.scope"}},
		{"-.slice:x:3f", false, Scope{"-.slice", "x-3f.scope"}},
	} {
		if got, err := ParseScope(c.path, "id", c.user); got != c.want || err != nil {
			t.Errorf("ParseScope(%q, %v) = %v, %v, want %v", c.path, c.user, got, err, c.want)
		}
	}
	for _, p := range []string{
		"/a/b", "a:b", "a.slice:b:c:d", "a:b:c", "a--b.slice:x:y", "a.slice:x:", "a.slice:../x:y",
		"a.slice:x y:z", "a.slice:x:" + strings.Repeat("y", 260),
	} {
		if got, err := ParseScope(p, "id", false); err == nil {
			t.Errorf("ParseScope(%q) = %v, want an error", p, got)
		}
	}
}

func TestScopeProperties(t *testing.T) {
	got, err := ScopeProperties(map[string]string{
		"org.systemd.property.TimeoutStopUSec": "uint64 123000000", "org.systemd.property.CollectMode": "'inactive-or-failed'",
		"org.systemd.property.TimeoutStartSec": "1.5", "org.systemd.property.After": "['a.service', 'b.service']", "other": "x",
		"org.systemd.property.Nice": "-3", "org.systemd.property.Slice": `"x"`, "org.systemd.property.Big": "18446744073709551615",
		"org.systemd.property.OK": "true",
	})
	if err != nil {
		t.Fatal(err)
	}
	want := []plan.SystemdProperty{
		{Name: "After", Type: "as", Value: []string{"a.service", "b.service"}},
		{Name: "Big", Type: "t", Value: []string{"18446744073709551615"}},
		{Name: "CollectMode", Type: "s", Value: []string{"inactive-or-failed"}},
		{Name: "Nice", Type: "i", Value: []string{"-3"}},
		{Name: "OK", Type: "b", Value: []string{"true"}},
		{Name: "Slice", Type: "s", Value: []string{"x"}},
		{Name: "TimeoutStartUSec", Type: "t", Value: []string{"1500000"}},
		{Name: "TimeoutStopUSec", Type: "t", Value: []string{"123000000"}},
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	for name, v := range map[string]string{
		"X": "nonsense", "Y": "[]", "Z": "[['a']]", "A": "'a", "B": "'a\\n'", "TimeoutSec": "'x'",
		"OtherSec": "nan", "MoreSec": "[1, 2]", "C D": "1", "": "1",
	} {
		if got, err := ScopeProperties(map[string]string{"org.systemd.property." + name: v}); err == nil ||
			!strings.HasPrefix(err.Error(), "/annotations/org.systemd.property."+name) {
			t.Errorf("%s=%s: %v, %v, want an error", name, v, got, err)
		}
	}
}

func TestCPUBits(t *testing.T) {
	for list, want := range map[string]string{"0": "1", "0-2,7": "135", "8": "0 1", " 1 , 9-10\n": "2 6", "15": "0 128"} {
		if got, err := cpuBits(list); strings.Join(got, " ") != want || err != nil {
			t.Errorf("cpuBits(%q) = %v, %v, want %s", list, got, err, want)
		}
	}
	for _, list := range []string{"", ",", "a", "2-1", "1-", "70000", "-1"} {
		if got, err := cpuBits(list); err == nil {
			t.Errorf("cpuBits(%q) = %v, want an error", list, got)
		}
	}
}

func TestParentPath(t *testing.T) {
	for _, c := range []struct{ parent, want string }{
		{"", "/glassbox/id"},
		{"/", "/id"},
		{"foo", "/foo/id"},
		{"/foo/bar/", "/foo/bar/id"},
		{"foo.slice", "/foo.slice/id"},
		{"a-b-c.slice", "/a.slice/a-b.slice/a-b-c.slice/id"},
		{"-.slice", "/id"},
		{"/system.slice/a-b.slice", "/system.slice/a-b.slice/id"},
	} {
		got, err := ParentPath(c.parent, "id")
		if err != nil || got != c.want {
			t.Errorf("ParentPath(%q, id) = %q, %v, want %q", c.parent, got, err, c.want)
		}
	}
	for _, c := range []struct{ parent, id string }{
		{"a--b.slice", "id"},
		{"-a.slice", "id"},
		{"a-.slice", "id"},
		{".slice", "id"},
		{"../x", "id"},
		{"/a/../../b", "id"},
		{"a\nb", "id"},
		{"", ""},
		{"", ".."},
		{"", "a/b"},
		{"", "."},
	} {
		if got, err := ParentPath(c.parent, c.id); err == nil {
			t.Errorf("ParentPath(%q, %q) = %q, want an error", c.parent, c.id, got)
		}
	}
}

func FuzzParentPath(f *testing.F) {
	f.Add("a-b.slice", "id")
	f.Fuzz(func(t *testing.T, parent, id string) {
		p, err := ParentPath(parent, id)
		if err != nil {
			return
		}
		if _, err := Steps(hosts()["hybrid"], p, nil, pointerItself); err != nil {
			t.Errorf("ParentPath(%q, %q) = %q, which Steps refuses: %v", parent, id, p, err)
		}
	})
}

func TestWeightOfShares(t *testing.T) {
	for shares, want := range map[uint64]uint64{0: 1, 1: 1, 2: 1, 3: 2, 1024: 100, 262144: 10000, 1 << 40: 10000} {
		if got := weightOfShares(shares); got != want {
			t.Errorf("weightOfShares(%d) = %d, want %d", shares, got, want)
		}
	}
	for s := uint64(2); s < 300000; s += 7 {
		if weightOfShares(s) > weightOfShares(s+7) {
			t.Fatalf("more shares than %d make less weight", s)
		}
	}
}

func number64[T int64 | uint64](n T) *T { return &n }

func limitsText(steps []plan.Step) []string {
	var out []string
	for _, s := range steps {
		op := s.Op.(*plan.CgroupWrite)
		out = append(out, filepath.Base(op.File)+"="+op.Value)
	}
	return out
}

// The order in which limits of an existing cgroup change.
func TestUpdateOrder(t *testing.T) {
	memory := func(limit, swap int64) *specs.LinuxResources {
		return &specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: &limit, Swap: &swap}}
	}
	cpu := func(quota int64, period uint64) *specs.LinuxResources {
		return &specs.LinuxResources{CPU: &specs.LinuxCPU{Quota: &quota, Period: &period}}
	}
	for _, c := range []struct {
		name, host string
		old        current
		r          *specs.LinuxResources
		want       []string
	}{
		{"up", "v1", current{memoryLimit: 100}, memory(200, 300), []string{"memory.memsw.limit_in_bytes=300", "memory.limit_in_bytes=200"}},
		{"down", "v1", current{memoryLimit: 400}, memory(200, 300), []string{"memory.limit_in_bytes=200", "memory.memsw.limit_in_bytes=300"}},
		{
			"from nothing", "v1",
			current{memoryLimit: -1},
			memory(200, 300),
			[]string{"memory.limit_in_bytes=200", "memory.memsw.limit_in_bytes=300"},
		},
		{"swap off", "v1", current{memoryLimit: 100}, memory(200, -1), []string{"memory.memsw.limit_in_bytes=-1", "memory.limit_in_bytes=200"}},
		{"all off", "v1", current{memoryLimit: 100}, memory(-1, 0), []string{"memory.memsw.limit_in_bytes=-1", "memory.limit_in_bytes=-1"}},
		{"v2 swap alone", "v2", current{memoryLimit: 100}, memory(0, 300), []string{"memory.swap.max=200"}},
		{"v2 all off", "v2", current{memoryLimit: 100}, memory(-1, 0), []string{"memory.max=max", "memory.swap.max=max"}},
		{"less quota", "v1", current{cpuQuota: 50000}, cpu(10000, 20000), []string{"cpu.cfs_quota_us=10000", "cpu.cfs_period_us=20000"}},
		{"more quota", "v1", current{cpuQuota: 5000}, cpu(10000, 20000), []string{"cpu.cfs_period_us=20000", "cpu.cfs_quota_us=10000"}},
		{"v2 period alone", "v2", current{cpuQuota: 5000}, cpu(0, 20000), []string{"cpu.max=5000 20000"}},
		{
			"burst", "v1",
			current{cpuQuota: 5000, burst: true},
			&specs.LinuxResources{CPU: &specs.LinuxCPU{Quota: number64[int64](4000), Burst: number64[uint64](3000)}},
			[]string{"cpu.cfs_burst_us=0", "cpu.cfs_quota_us=4000", "cpu.cfs_burst_us=3000"},
		},
		{
			"not idle any more", "v1",
			current{},
			&specs.LinuxResources{CPU: &specs.LinuxCPU{Shares: number64[uint64](4000), Idle: number64[int64](0)}},
			[]string{"cpu.idle=0", "cpu.shares=4000"},
		},
		{"pids off", "v2", current{}, &specs.LinuxResources{Pids: &specs.LinuxPids{Limit: number64[int64](-1)}}, []string{"pids.max=max"}},
	} {
		f := hosts()[c.host]
		s, err := Steps(f, "/glassbox/id", nil, pointerItself)
		if err != nil {
			t.Fatal(err)
		}
		w := writer{f: f, paths: s.Paths, origin: pointerItself, old: &c.old}
		w.limits(c.r)
		if diff := cmp.Diff(c.want, limitsText(w.steps)); diff != "" || len(w.errs) > 0 {
			t.Errorf("%s: %v (-want +got)\n%s", c.name, w.errs, diff)
		}
	}
}

// Steps never panics, whatever a configuration says.
func FuzzSteps(f *testing.F) {
	files, _ := filepath.Glob("testdata/*.txtar")
	for _, file := range files {
		if ar, err := txtar.ParseFile(file); err == nil {
			f.Add(string(ar.Files[1].Data))
		}
	}
	f.Fuzz(func(t *testing.T, text string) {
		var r specs.LinuxResources
		if json.Unmarshal([]byte(text), &r) != nil {
			return
		}
		for name, h := range hosts() {
			ScopeSteps(h, systemd.Facts{Version: 252, Cgroup: "/"}, Scope{"system.slice", "x.scope"}, nil, &r, pointerItself)
			s, err := Steps(h, "/glassbox/id", &r, pointerItself)
			for _, step := range s.Steps {
				if op, ok := step.Op.(*plan.CgroupWrite); ok {
					if !strings.HasPrefix(filepath.Clean(op.File), "/sys/fs/cgroup/") || err != nil {
						t.Errorf("%s: %v, step %v", name, err, op)
					}
				}
			}
		}
	})
}
