package compile

import (
	"fmt"
	"slices"
	"strings"

	"glassbox/plan"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// noID is (uid_t)-1, which setresuid(2) takes for "leave it as it is": a process that asks for it would stay root.
const noID = ^uint32(0)

func checkIDs(p *specs.Process, ptr string) error {
	switch {
	case p.User.UID == noID:
		return fmt.Errorf("%s/user/uid: %d is no user id", ptr, p.User.UID)
	case p.User.GID == noID:
		return fmt.Errorf("%s/user/gid: %d is no group id", ptr, p.User.GID)
	case p.User.Umask != nil && *p.User.Umask > 0o777:
		return fmt.Errorf("%s/user/umask: %#o has more than nine bits", ptr, *p.User.Umask)
	}
	if i := slices.Index(p.User.AdditionalGids, noID); i >= 0 {
		return fmt.Errorf("%s/user/additionalGids/%d: %d is no group id", ptr, i, noID)
	}
	return nil
}

func (c *container) oomScore(p *specs.Process, ptr string) error {
	if p.OOMScoreAdj == nil {
		return nil
	}
	ptr += "/oomScoreAdj"
	if n := *p.OOMScoreAdj; n < -1000 || n > 1000 {
		return fmt.Errorf("%s: %d: want -1000 (never killed) to 1000 (killed first)", ptr, n)
	}
	if c.hostOOM() {
		return nil
	}
	if err := c.needProc(ptr); err != nil {
		return err
	}
	c.add(plan.Child, plan.Kernel, &plan.WriteProc{From: c.procfs, File: "oom_score_adj", Value: fmt.Sprint(*p.OOMScoreAdj)}, ptr,
		"How readily the kernel kills this process when memory runs out.")
	return nil
}

var rlimitTypes = []string{
	"RLIMIT_AS", "RLIMIT_CORE", "RLIMIT_CPU", "RLIMIT_DATA", "RLIMIT_FSIZE", "RLIMIT_LOCKS", "RLIMIT_MEMLOCK", "RLIMIT_MSGQUEUE",
	"RLIMIT_NICE", "RLIMIT_NOFILE", "RLIMIT_NPROC", "RLIMIT_RSS", "RLIMIT_RTPRIO", "RLIMIT_RTTIME", "RLIMIT_SIGPENDING", "RLIMIT_STACK",
}

// rlimits come late, because they hold for the child's own work, too, and before the user namespace, in which nobody may raise
// them: if the child is in one already, the parent sets them.
func (c *container) rlimits(p *specs.Process, ptr string) error {
	seen := map[string]bool{}
	for i, r := range p.Rlimits {
		at := fmt.Sprintf("%s/rlimits/%d", ptr, i)
		switch {
		case !slices.Contains(rlimitTypes, r.Type):
			return fmt.Errorf("%s/type: unknown resource limit %q", at, r.Type)
		// The specification wants an error for it (config.md, POSIX process, rlimits): of two nobody can tell which was meant.
		case seen[r.Type]:
			return fmt.Errorf("%s/type: %s appears twice", at, r.Type)
		case r.Soft > r.Hard:
			return fmt.Errorf("%s/soft: %d is above the hard limit %d", at, r.Soft, r.Hard)
		}
		seen[r.Type] = true
		if c.hostRlimits(p) {
			continue
		}
		c.add(plan.Child, plan.Kernel, &plan.Rlimit{Type: r.Type, Soft: r.Soft, Hard: r.Hard}, at, "A limit of the process and its children.")
	}
	if c.hostRlimits(p) {
		c.add(plan.Child, plan.Kernel, &plan.Notify{Name: "limits"}, ptr+"/rlimits",
			"The parent may raise limits, which nobody may in a user namespace.")
		c.add(plan.Child, plan.Kernel, &plan.Await{Name: "rlimits"}, ptr+"/rlimits",
			"The parent sets them now, because they would have been in the way before.")
	}
	if !seen["RLIMIT_NOFILE"] && c.Facts.NoFile[1] != 0 {
		c.add(plan.Child, plan.Kernel, &plan.Rlimit{Type: "RLIMIT_NOFILE", Soft: c.Facts.NoFile[0], Hard: c.Facts.NoFile[1]}, "",
			"The Go runtime raised the limit on open files for itself; the container gets what glassbox was started with.")
	}
	return nil
}

// scheduling writes what decides when and where the process runs and which memory it takes.
func (c *container) scheduling(p *specs.Process, ptr string) error {
	if s := p.Scheduler; s != nil {
		at := ptr + "/scheduler"
		policies := []string{"SCHED_OTHER", "SCHED_FIFO", "SCHED_RR", "SCHED_BATCH", "SCHED_IDLE", "SCHED_DEADLINE"}
		flags := []string{
			"SCHED_FLAG_RESET_ON_FORK", "SCHED_FLAG_RECLAIM", "SCHED_FLAG_DL_OVERRUN", "SCHED_FLAG_KEEP_POLICY", "SCHED_FLAG_KEEP_PARAMS",
			"SCHED_FLAG_UTIL_CLAMP_MIN", "SCHED_FLAG_UTIL_CLAMP_MAX",
		}
		realtime := s.Policy == specs.SchedFIFO || s.Policy == specs.SchedRR
		switch {
		// The specification has it from a scheduler that was never merged.
		case s.Policy == specs.SchedISO:
			return fmt.Errorf("%s/policy: Linux never implemented %s", at, s.Policy)
		case !slices.Contains(policies, string(s.Policy)):
			return fmt.Errorf("%s/policy: unknown policy %q", at, s.Policy)
		case s.Nice < -20 || s.Nice > 19:
			return fmt.Errorf("%s/nice: %d: want -20 to 19", at, s.Nice)
		case s.Priority != 0 && !realtime:
			return fmt.Errorf("%s/priority: %s has no priority", at, s.Policy)
		case realtime && (s.Priority < 1 || s.Priority > 99):
			return fmt.Errorf("%s/priority: %d: want 1 to 99", at, s.Priority)
		case s.Policy != specs.SchedDeadline && (s.Runtime != 0 || s.Deadline != 0 || s.Period != 0):
			return fmt.Errorf("%s/runtime: runtime, deadline and period are for SCHED_DEADLINE", at)
		}
		// A warning and no error: the kernel takes the number, and keeps it for when the policy is changed.
		if s.Nice != 0 && s.Policy != specs.SchedOther && s.Policy != specs.SchedBatch {
			c.warnings = append(c.warnings, fmt.Sprintf("%s/nice: %d means nothing to %s (sched(7))", at, s.Nice, s.Policy))
		}
		o := &plan.Sched{
			Policy: string(s.Policy), Nice: s.Nice, Priority: uint32(s.Priority), Runtime: s.Runtime, Deadline: s.Deadline, Period: s.Period,
		}
		for i, f := range s.Flags {
			if !slices.Contains(flags, string(f)) {
				return fmt.Errorf("%s/flags/%d: unknown flag %q", at, i, f)
			}
			o.Flags = append(o.Flags, string(f))
		}
		c.add(plan.Child, plan.Kernel, o, at, "How the kernel chooses the moments at which the process runs.")
	}
	if io := p.IOPriority; io != nil {
		at := ptr + "/ioPriority"
		switch {
		case !slices.Contains([]specs.IOPriorityClass{specs.IOPRIO_CLASS_RT, specs.IOPRIO_CLASS_BE, specs.IOPRIO_CLASS_IDLE}, io.Class):
			return fmt.Errorf("%s/class: unknown class %q", at, io.Class)
		case io.Priority < 0 || io.Priority > 7:
			return fmt.Errorf("%s/priority: %d: want 0 (first) to 7", at, io.Priority)
		}
		c.add(plan.Child, plan.Kernel, &plan.IOPriority{Class: string(io.Class), Priority: io.Priority}, at,
			"Whose requests the disks serve first.")
	}
	if err := c.memoryPolicy(); err != nil {
		return err
	}
	if s := c.Spec.Linux.Personality; s != nil {
		const at = "/linux/personality"
		switch {
		case s.Domain != specs.PerLinux && s.Domain != specs.PerLinux32:
			return fmt.Errorf("%s/domain: unknown domain %q", at, s.Domain)
		case len(s.Flags) > 0:
			return fmt.Errorf("%s/flags/0: unknown flag %q: the specification has none", at, s.Flags[0])
		}
		c.add(plan.Child, plan.Kernel, &plan.Personality{Domain: string(s.Domain)}, at, "What uname says that the machine is.")
	}
	return nil
}

// affinity checks a list of processors and adds the step that restricts the process to them.
func (c *container) affinity(lane plan.Lane, list, at, reason string) error {
	if list == "" {
		return nil
	}
	if mask, err := plan.ParseList(list); err != nil || len(mask) == 0 {
		return fmt.Errorf("%s: %q: want a list of processors such as 0-3,7", at, list)
	}
	c.add(lane, plan.Kernel, &plan.Affinity{CPUs: list}, at, reason)
	return nil
}

// unbind takes back what whoever runs the plan is bound to, as by taskset(1) or a service manager's CPUAffinity. The kernel remembers
// such a set over the move to another cgroup since 6.2, so that a container would stay where its engine runs; runc resets it, too.
func (c *container) unbind() {
	if c.Facts.CPUs > 0 {
		c.add(plan.Child, plan.Kernel, &plan.Affinity{CPUs: "0-1023", Unless: c.Facts.CPUs}, "",
			"The container may use all processors of its cgroup, wherever the one who starts it is bound to run.")
	}
}

func (c *container) memoryPolicy() error {
	s := c.Spec.Linux.MemoryPolicy
	if s == nil {
		return nil
	}
	const at = "/linux/memoryPolicy"
	nodes, err := plan.ParseList(s.Nodes)
	if err != nil {
		return fmt.Errorf("%s/nodes: %w", at, err)
	}
	switch s.Mode {
	case specs.MpolDefault, specs.MpolLocal:
		if len(nodes) > 0 {
			return fmt.Errorf("%s/nodes: %s takes none", at, s.Mode)
		}
	case specs.MpolBind, specs.MpolInterleave, specs.MpolWeightedInterleave, specs.MpolPreferredMany:
		if len(nodes) == 0 {
			return fmt.Errorf("%s/nodes: %s needs at least one", at, s.Mode)
		}
	case specs.MpolPreferred:
	default:
		return fmt.Errorf("%s/mode: unknown mode %q", at, s.Mode)
	}
	if k := c.Facts.Kernel; s.Mode == specs.MpolWeightedInterleave && !k.AtLeast(6, 9) {
		return fmt.Errorf("%s/mode: %s needs Linux 6.9, this is %s", at, s.Mode, k.Release)
	}
	o := &plan.MemPolicy{Mode: string(s.Mode), Nodes: s.Nodes}
	for i, f := range s.Flags {
		if !slices.Contains([]specs.MemoryPolicyFlagType{specs.MpolFNumaBalancing, specs.MpolFRelativeNodes, specs.MpolFStaticNodes}, f) {
			return fmt.Errorf("%s/flags/%d: unknown flag %q", at, i, f)
		}
		o.Flags = append(o.Flags, string(f))
	}
	c.add(plan.Child, plan.Kernel, o, at, "From which memory nodes the process gets its memory.")
	return nil
}

// labels writes what the security modules of the host know the program by.
func (c *container) labels(p *specs.Process, ptr string) error {
	apparmor := slices.Contains(c.Facts.LSM, "apparmor")
	switch {
	case p.ApparmorProfile == "", p.ApparmorProfile == "unconfined" && !apparmor:
	case !apparmor:
		return fmt.Errorf("%s/apparmorProfile: %q: AppArmor is not active on this host", ptr, p.ApparmorProfile)
	default:
		if err := c.needProc(ptr + "/apparmorProfile"); err != nil {
			return err
		}
		c.add(plan.Child, plan.Privileges, &plan.WriteProc{From: c.procfs, File: "attr/apparmor/exec", Value: "exec " + p.ApparmorProfile},
			ptr+"/apparmorProfile",
			"The program runs under this AppArmor profile.")
	}
	if p.SelinuxLabel == "" {
		return nil
	}
	if !slices.Contains(c.Facts.LSM, "selinux") {
		return fmt.Errorf("%s/selinuxLabel: %q: SELinux is not active on this host", ptr, p.SelinuxLabel)
	}
	if err := c.needProc(ptr + "/selinuxLabel"); err != nil {
		return err
	}
	c.add(plan.Child, plan.Privileges, &plan.WriteProc{From: c.procfs, File: "attr/exec", Value: p.SelinuxLabel}, ptr+"/selinuxLabel",
		"The program runs under this SELinux label.")
	return nil
}

// capabilities returns the five sets by field, sorted by number. What can't be granted is left out with a warning: a name that
// the kernel doesn't know, and what the rules of capabilities(7) exclude. What glassbox itself lacks is an error unless the
// caller wants a warning for it, too.
func (c *container) capabilities(p *specs.Process, ptr string) (map[string][]string, error) {
	caps := p.Capabilities
	if caps == nil {
		caps = &specs.LinuxCapabilities{}
	}
	have := c.Facts.Caps
	if c.users == ownUsers || c.users == joinedUsers {
		have = ^uint64(0) // whoever enters a user namespace has them all there
	}
	sets := map[string][]string{}
	for _, set := range []struct {
		field string
		names []string
		// A capability must be in each of these sets to be in this one.
		within []string
	}{
		{"bounding", caps.Bounding, nil},
		{"permitted", caps.Permitted, nil},
		{"effective", caps.Effective, []string{"permitted"}},
		{"inheritable", caps.Inheritable, []string{"bounding"}},
		{"ambient", caps.Ambient, []string{"permitted", "inheritable"}},
	} {
		var out []string
	names:
		for i, name := range set.names {
			n := plan.CapNumber(strings.ToUpper(name))
			// The specification: a runtime warns of those that it can't grant, and goes on (config.md, Linux Process, capabilities).
			if n < 0 || n > c.Facts.LastCap {
				c.warnings = append(c.warnings, fmt.Sprintf("%s/%s/%d: unknown capability %q", ptr, set.field, i, name))
				continue
			}
			name = plan.CapName(n)
			if have&(1<<n) == 0 && (c.LaxCaps || set.field != "bounding") {
				if !c.LaxCaps {
					return nil, fmt.Errorf("%s/%s: glassbox itself doesn't have %s on this host, so it can't give it: leave it out with --cap-drop=%s",
						ptr, set.field, name, strings.TrimPrefix(name, "CAP_"))
				}
				c.warnings = append(c.warnings, fmt.Sprintf("%s/%s/%d: %s is left out: the runtime doesn't have it on this host", ptr, set.field, i,
					name))
				continue
			}
			for _, other := range set.within {
				if !slices.Contains(sets[other], name) {
					c.warnings = append(c.warnings, fmt.Sprintf("%s/%s/%d: %s is left out: it is not in the %s set", ptr, set.field, i, name, other))
					continue names
				}
			}
			out = append(out, name)
		}
		slices.SortFunc(out, func(a, b string) int { return plan.CapNumber(a) - plan.CapNumber(b) })
		sets[set.field] = slices.Compact(out)
	}
	return sets, nil
}
