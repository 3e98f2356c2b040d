package verify

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"glassbox/plan"
)

// Who may have changed what. A server that becomes another user, renames itself and changes its directory is no less what its plan
// says, while a limit that only the host can lift is lifted by somebody there. So each difference is judged by what it takes: a right
// that the plan leaves to the program (then it is the program's own, whoever used it), or one that it doesn't.

// cause is who may have made a difference, in words, and whether the container can have done it itself.
type cause struct {
	own bool
	why string
}

func (c cause) and(more string) cause { return cause{c.own, c.why + more} }

// own is the cause of what a program may do to itself.
func own(format string, a ...any) cause { return cause{true, fmt.Sprintf(format, a...)} }

// others is the cause of what no program can do to itself.
func others(format string, a ...any) cause { return cause{false, fmt.Sprintf(format, a...)} }

func byHost() cause    { return others("nobody in the container can do this: it was done from the host") }
func byProgram() cause { return own("the program itself may have changed it") }

// who is the cause of what takes one of some capabilities: the container itself if it can have that.
func (v *view) who(capabilities ...string) cause {
	if !v.canHave(capabilities...) {
		return byHost()
	}
	return own("a process of the container with %s may have done it, or somebody on the host", strings.Join(capabilities, " or "))
}

// byRoot is the cause of what any process of the container may do that runs as root there, as with files that belong to root.
func (v *view) byRoot(words string) cause {
	if !v.startsAsRoot() && !v.canHave("CAP_SETUID", "CAP_DAC_OVERRIDE", "CAP_FOWNER") {
		return byHost()
	}
	return own("%s", words)
}

// canHave reports whether the plan leaves a process of the container a way to one of some capabilities. Capabilities that execve gives
// are at most the bounding set (capabilities(7)). To another user than root it gives them by the file alone (set-user-ID, file
// capabilities), and not even so with no_new_privs (prctl(2)): then the ambient ones are all. In a user namespace of the plan's a
// process has them all as far as what belongs to that namespace is concerned.
func (v *view) canHave(capabilities ...string) bool {
	if v.ownUsers() {
		return true
	}
	bounding, ambient := ^uint64(0), uint64(0)
	for _, s := range v.plan.Steps {
		switch o := s.Op.(type) {
		case *plan.DropBounding:
			bounding &^= capMask(o.Caps)
		case *plan.AmbientCaps:
			ambient |= capMask(o.Caps)
		}
	}
	if v.sealed() && !v.startsAsRoot() {
		bounding &= ambient
	}
	return bounding&capMask(capabilities) != 0
}

// canHaveAll reports whether a process of the container can have all capabilities of a set.
func (v *view) canHaveAll(set uint64) bool {
	for n := range 64 {
		if set>>n&1 == 1 && !v.canHave(plan.CapName(n)) {
			return false
		}
	}
	return true
}

// sealed reports whether no file can give the program rights that it hasn't (no_new_privs).
func (v *view) sealed() bool { return has[*plan.NoNewPrivs](v) }

// has reports whether the plan has a step of a kind.
func has[T plan.Op](v *view) bool {
	return slices.ContainsFunc(v.plan.Steps, func(s plan.Step) bool {
		_, ok := s.Op.(T)
		return ok
	})
}

// limited is the cause of another limit: a soft one is the program's to choose below the hard one, and that to lower (setrlimit(2)).
func (v *view) limited(want *plan.Rlimit, hard string) cause {
	if n, err := strconv.ParseUint(hard, 10, 64); (err != nil || n > want.Hard) && !v.canHave("CAP_SYS_RESOURCE") {
		return byHost().and(", with prlimit")
	}
	return own("the program itself may have changed it (the Go runtime raises its soft limit on open files), or somebody on the host " +
		"with prlimit")
}

// scored is the cause of another oom_score_adj: it can be raised, and lowered to what somebody with CAP_SYS_RESOURCE set last
// (proc_pid_oom_score_adj(5)). Where this command hasn't that capability, whoever started the container hadn't, as a rule.
func (v *view) scored(want, have string) cause {
	before, err1 := strconv.Atoi(want)
	now, err2 := strconv.Atoi(have)
	if err1 == nil && err2 == nil && now < before && !v.canHave("CAP_SYS_RESOURCE") && ownCapability("CAP_SYS_RESOURCE") {
		return byHost()
	}
	return own("the program itself may have raised it; to lower it takes CAP_SYS_RESOURCE")
}

// scheduled is the cause of another policy: to become less important takes nothing (sched(7)).
func (v *view) scheduled(want *plan.Sched, have *unix.SchedAttr) cause {
	const other, batch, idle = 0, 3, 5 // <linux/sched.h>
	modest := have.Policy == other || have.Policy == batch || have.Policy == idle
	if (!modest || have.Nice < want.Nice) && !v.canHave("CAP_SYS_NICE") {
		return byHost().and(" (renice, chrt)")
	}
	return own("the program itself may have changed it, or somebody on the host (renice, chrt)")
}

// ionice is the cause of another I/O priority: the class RT takes a capability (ioprio_set(2)).
func (v *view) ionice(class string) cause {
	if class == "IOPRIO_CLASS_RT" && !v.canHave("CAP_SYS_NICE", "CAP_SYS_ADMIN") {
		return byHost().and(" (ionice)")
	}
	return own("the program itself may have changed it, or somebody on the host (ionice)")
}

// ownUsers reports whether the plan makes or joins a user namespace: capabilities there are others.
func (v *view) ownUsers() bool { return slices.Contains(v.plan.Namespaces(), "user") }
