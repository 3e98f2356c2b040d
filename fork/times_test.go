package fork

import (
	"runtime"
	"testing"
	"time"

	"glassbox/plan"
)

// TestTimes: every step of a start that asks the kernel for something has a time, in the order of its lane, and within the start.
// The second child of a plan with two notes its times, too.
func TestTimes(t *testing.T) {
	needRoot(t)
	for _, kind := range []string{"full", "mapped", "twice"} {
		t.Run(kind, func(t *testing.T) {
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			p := planOf(t, kind, "true")
			fds, _ := pipes(t)
			var times plan.Times
			before := time.Now()
			proc, err := Start(p, Options{FDs: fds, Times: &times})
			took := int64(time.Since(before))
			if err != nil {
				t.Fatal(err)
			}
			wait(t, proc)
			undo(t, p)
			if !times.Fits(p) || times.End > took {
				t.Fatalf("%d times of %d steps, to %d ns of %d", len(times.Begin), len(p.Steps), times.End, took)
			}
			last := map[plan.Lane]int64{plan.Child: times.Born}
			for i, s := range p.Steps {
				begin, end, ok := times.Span(p, i)
				if leftOut(s.Op) {
					continue
				}
				if !ok {
					t.Errorf("step %d, %s, has no time", i+1, s.Op)
					continue
				}
				if begin < last[s.Lane] || end < begin || end > times.End {
					t.Errorf("step %d, %s: from %d to %d ns, the one before it in the lane began at %d, the start ended at %d", i+1, s.Op, begin, end,
						last[s.Lane], times.End)
				}
				last[s.Lane] = begin
				if s.Lane == plan.Child && end == begin {
					t.Errorf("step %d, %s, took no time", i+1, s.Op)
				}
			}
			if times.Clone == 0 || times.Born <= times.Clone || times.Host == 0 || times.Host > times.End {
				t.Errorf("clone at %d, born at %d, the host's last step until %d, end at %d", times.Clone, times.Born, times.Host, times.End)
			}
		})
	}
}

// TestTimesOfFailure: the steps before the one that failed have times, also the child's; those after it have none.
func TestTimesOfFailure(t *testing.T) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	p := fullPlan(t, "true")
	fds, _ := pipes(t)
	at := -1
	for i, s := range p.Steps {
		if s.Lane == plan.Child {
			at = i // the last of the child's, but for execve
			if _, ok := p.Steps[i+1].Op.(*plan.Execve); ok {
				break
			}
		}
	}
	var times plan.Times
	if _, err := Start(p, Options{FDs: fds, Times: &times, Inject: at + 1}); err == nil {
		t.Fatal("it started")
	}
	for i, s := range p.Steps {
		if s.Lane != plan.Child || leftOut(s.Op) {
			continue
		}
		if _, _, ok := times.Span(p, i); ok != (i <= at) {
			t.Errorf("step %d, %s, has a time: %v, step %d failed", i+1, s.Op, ok, at+1)
		}
	}
}

// TestSound: times that processors with different counters would give are refused.
func TestSound(t *testing.T) {
	for _, c := range []struct {
		name     string
		noted    []uint64
		from, to uint64
		want     bool
	}{
		{"in order", []uint64{10, 0, 12, 12, 0, 20}, 9, 21, true},
		{"before the clone", []uint64{8, 12}, 9, 21, false},
		{"after the end", []uint64{10, 22}, 9, 21, false},
		{"backwards", []uint64{10, 14, 13}, 9, 21, false},
		{"no child", []uint64{0, 0}, 9, 21, false},
	} {
		if got := sound(c.noted, c.from, c.to); got != c.want {
			t.Errorf("%s: got %v, want %v", c.name, got, c.want)
		}
	}
}

// TestTicks: the counter runs forwards while time goes by.
func TestTicks(t *testing.T) {
	before := ticks()
	time.Sleep(2 * time.Millisecond)
	if after := ticks(); after <= before {
		t.Errorf("%d ticks, 2 ms later %d", before, after)
	}
}

// leftOut reports whether a step makes no system call here, where nobody is bound to some of the processors.
func leftOut(op plan.Op) bool {
	o, ok := op.(*plan.Affinity)
	return ok && o.Unless > 0
}
