package compile

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/tools/txtar"

	"glassbox/host"
	"glassbox/plan"
	"glassbox/resctrl"
)

var update = flag.Bool("update", false, "write the plans that the compiler makes into the golden files")

func facts(mode string) host.Facts {
	f := host.Facts{
		Kernel: host.Kernel{Release: "6.18.0", Major: 6, Minor: 18}, Arch: "amd64", Caps: 1<<41 - 1, LastCap: 40,
		NoFile: [2]uint64{1024, 524288}, Seccomp: true, CPUs: 2, Memory: 8 << 30,
	}
	v1 := []host.Hierarchy{
		{Mount: "/sys/fs/cgroup/cpu,cpuacct", Controllers: []string{"cpu", "cpuacct"}, Own: "/"},
		{Mount: "/sys/fs/cgroup/memory", Controllers: []string{"memory"}, Own: "/", Files: []string{"memory.memsw.limit_in_bytes"}},
		{Mount: "/sys/fs/cgroup/pids", Controllers: []string{"pids"}, Own: "/"},
		{Mount: "/sys/fs/cgroup/devices", Controllers: []string{"devices"}, Own: "/"},
		{Mount: "/sys/fs/cgroup/systemd", Controllers: []string{"name=systemd"}, Own: "/"},
	}
	switch mode {
	case host.CgroupV1:
		f.Cgroup = host.Cgroup{Mode: mode, Hierarchies: v1}
	case host.CgroupHybrid:
		f.Cgroup = host.Cgroup{Mode: mode, Hierarchies: append(v1, host.Hierarchy{Mount: "/sys/fs/cgroup/unified", V2: true, Own: "/"})}
	default:
		f.Cgroup = host.Cgroup{Mode: host.CgroupV2, Hierarchies: []host.Hierarchy{{
			Mount: "/sys/fs/cgroup", V2: true, Own: "/", Controllers: []string{"cpuset", "cpu", "io", "memory", "pids"},
			Files: []string{"memory.swap.max"},
		}}}
	}
	return f
}

// input is the JSON form of what a golden file starts from.
type input struct {
	Mode    string            `json:"mode"` // v1, v2, hybrid
	Spec    json.RawMessage   `json:"spec"` // laid over base
	Overlay *plan.Overlay     `json:"overlay"`
	Network bool              `json:"network"`
	Cwd     bool              `json:"makeCwd"`
	Origins map[string]string `json:"origins"`
	LSM     []string          `json:"lsm"`
	Options Input             `json:"options"` // what is plain enough to stand for itself
	Exec    bool              `json:"exec"`    // the process is started in a running container
	Tools   []string          `json:"tools"`   // for Debug
	Debug   bool              `json:"debug"`   // as exec, with other tools
	Join    []string          `json:"join"`    // namespaces of that container
	Unit    string            `json:"unit"`    // of that container
	Caps    *uint64           `json:"caps"`    // effective ones of glassbox; all if missing
	UID     uint32            `json:"uid"`     // of glassbox, and its group
	UserNS  bool              `json:"userns"`
	Resctrl *host.Resctrl     `json:"resctrl"`
	Class   resctrl.Place     `json:"class"` // of that container
}

const base = `{
	"ociVersion": "1.2.0",
	"root": {"path": "/bundle/rootfs"},
	"process": {"args": ["sh"], "cwd": "/", "env": ["PATH=/bin"]},
	"linux": {"namespaces": [{"type": "mount"}, {"type": "pid"}]}
}`

func compileInput(t *testing.T, data []byte) (*Output, error) {
	t.Helper()
	var in input
	if err := json.Unmarshal(data, &in); err != nil {
		t.Fatal(err)
	}
	var spec specs.Spec
	for _, layer := range []string{base, string(in.Spec)} {
		if err := json.Unmarshal([]byte(layer), &spec); err != nil {
			t.Fatal(err)
		}
	}
	f := facts(in.Mode)
	f.Resctrl = in.Resctrl
	if in.Caps != nil {
		f.Caps = *in.Caps
	}
	f.LSM = in.LSM
	f.UID, f.GID, f.UserNS, f.NoSetgroups = in.UID, in.UID, in.UserNS, in.UserNS
	ci := in.Options
	ci.Spec, ci.Facts, ci.Overlay, ci.Origins, ci.MakeCwd = &spec, f, in.Overlay, in.Origins, in.Cwd
	if in.Overlay != nil {
		ci.Mountpoint = in.Overlay.Target
	}
	if in.Network {
		ci.Network = []plan.Step{{Lane: plan.Host, Phase: plan.Network, Op: &plan.LinkAddress{Link: "lo"}, Origin: "default", Reason: "."}}
	}
	further := ExecInput{
		Input: ci, Process: spec.Process, PID: 42, Start: 4711, Namespaces: []string{"mount", "pid"},
		Cgroups: map[string]string{"": "/sys/fs/cgroup/glassbox/x"}, Unit: in.Unit, Class: in.Class,
	}
	if len(in.Join) > 0 {
		further.Namespaces = in.Join
	}
	switch {
	case in.Debug:
		if further.Mountpoint == "" {
			further.Mountpoint = "/run/merged"
		}
		return Debug(DebugInput{ExecInput: further, Tools: in.Tools})
	case in.Exec:
		return Exec(further)
	}
	return Container(ci)
}

// text prints a plan for a golden file: lane, step and origin.
func text(p *plan.Plan) string {
	var b strings.Builder
	for _, s := range p.Steps {
		fmt.Fprintf(&b, "%-5s %-10s %s  [%s]\n", s.Lane, s.Phase, s.Op, s.Origin)
	}
	return b.String()
}

func TestGolden(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatal("no golden files", err)
	}
	for _, name := range files {
		t.Run(strings.TrimSuffix(filepath.Base(name), ".txtar"), func(t *testing.T) {
			ar, err := txtar.ParseFile(name)
			if err != nil {
				t.Fatal(err)
			}
			out, err := compileInput(t, ar.Files[0].Data)
			got := ""
			if err != nil {
				got = "error: " + err.Error() + "\n"
			} else {
				got = text(out.Plan)
				if order, err := out.Plan.Order(); err != nil || len(order) != len(out.Plan.Steps) {
					t.Errorf("its steps can't be made one at a time: %d of %d, %v", len(order), len(out.Plan.Steps), err)
				}
				for _, w := range out.Warnings {
					got += "warning: " + w + "\n"
				}
				for _, s := range out.Plan.Steps {
					if s.Reason == "" || s.Origin == "" {
						t.Errorf("%s: origin %q, reason %q: every step has both", s.Op, s.Origin, s.Reason)
					}
				}
			}
			if *update {
				ar.Files = append(ar.Files[:1], txtar.File{Name: "plan", Data: []byte(got)})
				if err := os.WriteFile(name, txtar.Format(ar), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			if len(ar.Files) < 2 {
				t.Fatal("no plan in it: run go test -update and read what comes out")
			}
			if d := cmp.Diff(string(ar.Files[1].Data), got); d != "" {
				t.Errorf("plan (-want +got):\n%s", d)
			}
		})
	}
}

// TestPure compiles the same input twice and expects the same plan.
func TestPure(t *testing.T) {
	ar, err := txtar.ParseFile("testdata/container-hybrid.txtar")
	if err != nil {
		t.Fatal(err)
	}
	var hashes []string
	for range 20 {
		out, err := compileInput(t, ar.Files[0].Data)
		if err != nil {
			t.Fatal(err)
		}
		hash, err := out.Plan.Hash()
		if err != nil {
			t.Fatal(err)
		}
		hashes = append(hashes, hash)
	}
	for _, h := range hashes {
		if h != hashes[0] {
			t.Fatalf("the same input has plans %s and %s", hashes[0], h)
		}
	}
}

func TestCandidates(t *testing.T) {
	for _, tc := range []struct {
		arg, path string
		want      []string
	}{
		{"/bin/sh", "/x", []string{"/bin/sh"}},
		{"./sh", "/x", []string{"./sh"}},
		{"sh", "/a:/b/::c", []string{"/a/sh", "/b/sh", "./sh", "c/sh"}},
	} {
		got := candidates(&specs.Process{Args: []string{tc.arg}, Env: []string{"PATH=" + tc.path}})
		if d := cmp.Diff(tc.want, got); d != "" {
			t.Errorf("%s in %s (-want +got):\n%s", tc.arg, tc.path, d)
		}
	}
}

func TestSubCgroups(t *testing.T) {
	cgroups := map[string]string{"": "/u/x", "cpu": "/cpu,cpuacct/x", "cpuacct": "/cpu,cpuacct/x", "memory": "/memory/x"}
	for _, tc := range []struct {
		args []string
		want string
	}{
		{nil, "/u/x /cpu,cpuacct/x /cpu,cpuacct/x /memory/x"},
		{[]string{"sub"}, "/u/x/sub /cpu,cpuacct/x/sub /cpu,cpuacct/x/sub /memory/x/sub"},
		{[]string{"cpu:/a", "memory:b/c"}, "/u/x /cpu,cpuacct/x/a /cpu,cpuacct/x/a /memory/x/b/c"},
		{[]string{"/"}, "/u/x /cpu,cpuacct/x /cpu,cpuacct/x /memory/x"},
		{[]string{"../y"}, "leads out"},
		{[]string{"pids:y"}, "no cgroup of the controller"},
	} {
		out, err := SubCgroups(cgroups, tc.args)
		if err != nil {
			if !strings.Contains(err.Error(), tc.want) {
				t.Errorf("%q: %v, want %q", tc.args, err, tc.want)
			}
			continue
		}
		if got := strings.Join([]string{out[""], out["cpu"], out["cpuacct"], out["memory"]}, " "); got != tc.want {
			t.Errorf("%q: got %s, want %s", tc.args, got, tc.want)
		}
	}
}

func TestExec(t *testing.T) {
	out, err := Exec(ExecInput{
		Input:   Input{Facts: facts(host.CgroupV2)},
		Process: &specs.Process{Args: []string{"sh"}, Cwd: "/", Terminal: true, User: specs.User{UID: 5}},
		PID:     42, Start: 4711, Namespaces: []string{"cgroup", "ipc", "mount", "net", "pid", "uts"},
		Cgroups: map[string]string{"": "/sys/fs/cgroup/glassbox/x"},
	})
	if err != nil {
		t.Fatal(err)
	}
	want := `host  limits     open cgroup /sys/fs/cgroup/glassbox/x as cgroup
host  isolation  open process 42 as container
host  isolation  join pid of container
host  isolation  clone the child, born in cgroup cgroup
host  terminal   receive descriptor console
child kernel     run on processors 0-1023, unless all 2 are allowed already
child isolation  set dumpable to 0
`
	var b strings.Builder
	for _, s := range out.Plan.Steps[:7] {
		fmt.Fprintf(&b, "%-5s %-10s %s\n", s.Lane, s.Phase, s.Op)
	}
	if d := cmp.Diff(want, b.String()); d != "" {
		t.Errorf("first steps (-want +got):\n%s", d)
	}
}

// FuzzContainer compiles whatever parses as a configuration: errors are fine, panics are not.
func FuzzContainer(f *testing.F) {
	files, _ := filepath.Glob("testdata/*.txtar")
	for _, name := range files {
		ar, err := txtar.ParseFile(name)
		if err != nil {
			f.Fatal(err)
		}
		var in input
		if err := json.Unmarshal(ar.Files[0].Data, &in); err != nil {
			f.Fatal(err)
		}
		f.Add([]byte(in.Spec))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		var spec specs.Spec
		if json.Unmarshal([]byte(base), &spec) != nil || json.Unmarshal(data, &spec) != nil {
			return
		}
		for _, mode := range []string{host.CgroupV1, host.CgroupV2, host.CgroupHybrid} {
			out, err := Container(Input{Spec: &spec, Facts: facts(mode)})
			if err == nil {
				if err := out.Plan.Validate(); err != nil {
					t.Error(err)
				}
			}
		}
	})
}
