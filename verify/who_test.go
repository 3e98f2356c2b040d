package verify

import (
	"testing"

	"golang.org/x/sys/unix"

	"glassbox/plan"
)

// TestCanHave: what a plan leaves a process of the container a way to.
func TestCanHave(t *testing.T) {
	drop := &plan.DropBounding{Caps: []string{"CAP_SYS_ADMIN", "CAP_NET_ADMIN"}}
	user := &plan.Setresuid{UID: 1000}
	sealed := &plan.NoNewPrivs{}
	for _, tt := range []struct {
		name string
		ops  []plan.Op
		cap  string
		want bool
	}{
		{"nothing is dropped", nil, "CAP_SYS_ADMIN", true},
		{"dropped", []plan.Op{drop}, "CAP_SYS_ADMIN", false},
		{"another one", []plan.Op{drop}, "CAP_SETUID", true},
		{"a user, by a set-user-ID file", []plan.Op{drop, user}, "CAP_SETUID", true},
		{"a user, sealed", []plan.Op{drop, user, sealed}, "CAP_SETUID", false},
		{
			"a user, sealed, with an ambient one",
			[]plan.Op{drop, &plan.AmbientCaps{Caps: []string{"CAP_SETUID"}}, user, sealed},
			"CAP_SETUID",
			true,
		},
		{"ambient and dropped", []plan.Op{drop, &plan.AmbientCaps{Caps: []string{"CAP_SYS_ADMIN"}}, user, sealed}, "CAP_SYS_ADMIN", false},
		{"a user namespace of its own", []plan.Op{&plan.Clone{Namespaces: []string{"user"}}, drop}, "CAP_SYS_ADMIN", true},
	} {
		p := &plan.Plan{}
		for _, op := range tt.ops {
			p.Steps = append(p.Steps, plan.Step{Op: op})
		}
		v := &view{plan: p, dir: -1}
		if got := v.canHave(tt.cap); got != tt.want {
			t.Errorf("%s: %s: got %v, want %v", tt.name, tt.cap, got, tt.want)
		}
		if got := v.who(tt.cap); got.own != tt.want || got.why == "" {
			t.Errorf("%s: who: got %+v", tt.name, got)
		}
	}
}

// TestCauses: what a process may do to its own limits and priorities, without a right and with one.
func TestCauses(t *testing.T) {
	dropped := &plan.DropBounding{Caps: []string{"CAP_SYS_RESOURCE", "CAP_SYS_NICE", "CAP_SYS_ADMIN"}}
	plain := &view{dir: -1, plan: &plan.Plan{Steps: []plan.Step{{Op: dropped}}}}
	mighty := &view{dir: -1, plan: &plan.Plan{}}
	limit := &plan.Rlimit{Type: "RLIMIT_NOFILE", Soft: 100, Hard: 200}
	for _, tt := range []struct {
		what string
		got  cause
		want bool
	}{
		{"a lower hard limit", plain.limited(limit, "150"), true},
		{"a higher hard limit", plain.limited(limit, "300"), false},
		{"no hard limit", plain.limited(limit, "unlimited"), false},
		{"a higher hard limit, with CAP_SYS_RESOURCE", mighty.limited(limit, "300"), true},
		{"nicer", plain.scheduled(&plan.Sched{Policy: "SCHED_OTHER"}, &unix.SchedAttr{Nice: 5}), true},
		{"less nice", plain.scheduled(&plan.Sched{Policy: "SCHED_OTHER", Nice: 5}, &unix.SchedAttr{}), false},
		{"in real time", plain.scheduled(&plan.Sched{Policy: "SCHED_OTHER"}, &unix.SchedAttr{Policy: 1, Priority: 1}), false},
		{"in real time, with CAP_SYS_NICE", mighty.scheduled(&plan.Sched{Policy: "SCHED_OTHER"}, &unix.SchedAttr{Policy: 1, Priority: 1}), true},
		{"a higher oom_score_adj", plain.scored("0", "500"), true},
		{"idle I/O", plain.ionice("IOPRIO_CLASS_IDLE"), true},
		{"I/O in real time", plain.ionice("IOPRIO_CLASS_RT"), false},
	} {
		if tt.got.own != tt.want {
			t.Errorf("%s: its own: got %v (%s), want %v", tt.what, tt.got.own, tt.got.why, tt.want)
		}
	}
	if !plain.canHaveAll(0) || plain.canHaveAll(capMask([]string{"CAP_CHOWN", "CAP_SYS_NICE"})) {
		t.Error("sets of capabilities")
	}
}
