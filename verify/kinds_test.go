package verify

import (
	"os"
	"strings"
	"testing"

	"glassbox/plan"
	"glassbox/test/kinds"
)

// TestKinds: each kind of step is decided, in words of its own where nothing can be observed, and whatever its arguments are.
func TestKinds(t *testing.T) {
	for _, kind := range kinds.All(t) {
		r, err := Run(&plan.Plan{Version: plan.Version, Steps: []plan.Step{kinds.Step(t, kind)}}, Target{PID: os.Getpid()})
		if err != nil {
			t.Errorf("%s: %v: decide in view.step what can be read back of it, or say why nothing can", kind, err)
			continue
		}
		f := r.Steps[0]
		if f.Verdict != Holds && f.Verdict != Differs && f.Verdict != Unseen || f.Verdict == Unseen && f.Why == "" ||
			f.Verdict == Differs && (f.Found == "" || f.Why == "") {
			t.Errorf("%s: %+v: a step holds, differs (with what was found, and who may have done it), or says why it can't be observed", kind, f)
		}
	}
}

// TestGivenByDescriptor: a place that the plan joins and doesn't open has no name to look at.
func TestGivenByDescriptor(t *testing.T) {
	for _, op := range []plan.Op{&plan.CgroupJoin{From: "given"}, &plan.ResctrlJoin{From: "given"}} {
		r, err := Run(&plan.Plan{Steps: []plan.Step{{Lane: plan.Child, Op: op}}}, Target{PID: os.Getpid()})
		if err != nil {
			t.Fatal(err)
		}
		if f := r.Steps[0]; f.Verdict != Unseen || f.Where != "" || !strings.Contains(f.Why, "was given by descriptor") {
			t.Errorf("%s: got %+v, want that it was given by descriptor", op.Kind(), f)
		}
	}
}

type unknown struct{}

func (unknown) Kind() string   { return "unknown" }
func (unknown) String() string { return "" }
func (unknown) Man() string    { return "" }

func TestUnknownKind(t *testing.T) {
	if r, err := Run(&plan.Plan{Steps: []plan.Step{{Op: unknown{}}}}, Target{PID: os.Getpid()}); err == nil {
		t.Errorf("a step that nobody knows: got %+v, want an error", r.Steps)
	}
}

func TestGone(t *testing.T) {
	p := &plan.Plan{}
	if _, err := Run(p, Target{PID: os.Getpid(), Start: 1}); err == nil {
		t.Error("another process with the same pid: want an error")
	}
	if _, err := Run(p, Target{PID: 1 << 30}); err == nil {
		t.Error("no process: want an error")
	}
}

func TestSameValue(t *testing.T) {
	for _, c := range []struct {
		file, asked, have string
		want              bool
	}{
		{"memory.limit_in_bytes", "52428800", "52428800", true},
		{"memory.limit_in_bytes", "52428801", "52428800", true}, // whole pages
		{"memory.limit_in_bytes", "52428800", "52432896", false},
		{"memory.limit_in_bytes", "-1", "9223372036854771712", true},
		{"memory.max", "max", "max", true},
		{"memory.max", "4096", "max", false},
		{"memory.oom_control", "1", "oom_kill_disable 1\nunder_oom 0\noom_kill 0", true},
		{"memory.oom_control", "1", "oom_kill_disable 0\nunder_oom 0\noom_kill 0", false},
		{"cpu.max", "50000 100000", "50000 100000", true},
		{"cpu.max", "50000", "50000 100000", true},
		{"cpu.max", "50000 100000", "max 100000", false},
		{"cpuset.cpus", "0,1", "0-1", true},
		{"cpuset.cpus", "0", "0-1", false},
		{"pids.max", "100", "100", true},
		{"pids.max", "100", "101", false},
		{"pids.max", "max", "max", true},
		{"io.max", "8:0 rbps=1048576", "8:0 rbps=1048576 wbps=max riops=max wiops=max", true},
		{"io.max", "8:0 rbps=1048576", "8:0 rbps=2097152 wbps=max riops=max wiops=max", false},
		{"io.max", "8:0 rbps=1048576", "", false},
		{"io.max", "8:0 rbps=max", "", true},
		{"blkio.throttle.read_bps_device", "8:0 1024", "8:0 1024\n8:16 2048", true},
		{"blkio.throttle.read_bps_device", "8:0 1024", "8:16 2048", false},
		{"io.weight", "default 50", "default 50", true},
		{"io.bfq.weight", "50", "default 50", true},
		{"io.bfq.weight", "50", "default 100", false},
		{"hugetlb.2MB.limit_in_bytes", "3145728", "2097152", true},
	} {
		if got, _ := sameValue(c.file, c.asked, c.have); got != c.want {
			t.Errorf("%s: %q written, %q read: got %v, want %v", c.file, c.asked, c.have, got, c.want)
		}
	}
}
