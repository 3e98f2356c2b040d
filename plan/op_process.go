package plan

import (
	"fmt"
)

// newProcessOp makes an empty step of one of the kinds of this file, or nil: how the process is scheduled and limited.
func newProcessOp(kind string) Op {
	switch kind {
	case "prlimit":
		return &Rlimit{}
	case "sched_setattr":
		return &Sched{}
	case "ioprio_set":
		return &IOPriority{}
	case "sched_setaffinity":
		return &Affinity{}
	case "set_mempolicy":
		return &MemPolicy{}
	case "personality":
		return &Personality{}
	case "umask":
		return &Umask{}
	}
	return nil
}

// Rlimit sets a resource limit. Values are in the limit's own unit; ^0 is unlimited.
type Rlimit struct {
	Type string `json:"type"` // RLIMIT_NOFILE …
	Soft uint64 `json:"soft"`
	Hard uint64 `json:"hard"`
}

func (*Rlimit) Kind() string { return "prlimit" }

func (*Rlimit) Man() string { return "prlimit(2)" }

func (o *Rlimit) String() string {
	return fmt.Sprintf("set %s to %s, hard %s", o.Type, limit(o.Soft), limit(o.Hard))
}

func (*Rlimit) lanes() lanes { return bothLanes }

// Sched sets the scheduling policy and its parameters (sched_setattr(2)). Times are in nanoseconds.
type Sched struct {
	Policy   string   `json:"policy"`          // SCHED_OTHER …
	Flags    []string `json:"flags,omitempty"` // SCHED_FLAG_RESET_ON_FORK …
	Nice     int32    `json:"nice,omitempty"`
	Priority uint32   `json:"priority,omitempty"` // of SCHED_FIFO and SCHED_RR
	Runtime  uint64   `json:"runtime,omitempty"`  // this one and the next two are for SCHED_DEADLINE
	Deadline uint64   `json:"deadline,omitempty"`
	Period   uint64   `json:"period,omitempty"`
}

func (*Sched) Kind() string { return "sched_setattr" }

func (*Sched) Man() string { return "sched_setattr(2)" }

func (o *Sched) String() string {
	s := "schedule by " + o.Policy
	for _, v := range []struct {
		name  string
		value int64
	}{
		{"nice", int64(o.Nice)},
		{"priority", int64(o.Priority)},
		{"runtime", int64(o.Runtime)},
		{"deadline", int64(o.Deadline)},
		{"period", int64(o.Period)},
	} {
		if v.value != 0 {
			s += fmt.Sprintf(", %s %d", v.name, v.value)
		}
	}
	return s + paren(o.Flags)
}

// IOPriority sets the class and priority of disk access.
type IOPriority struct {
	Class    string `json:"class"` // IOPRIO_CLASS_RT, IOPRIO_CLASS_BE, IOPRIO_CLASS_IDLE
	Priority int    `json:"priority"`
}

func (*IOPriority) Kind() string { return "ioprio_set" }

func (*IOPriority) Man() string { return "ioprio_set(2)" }

func (o *IOPriority) String() string {
	return fmt.Sprintf("access disks in class %s, priority %d", o.Class, o.Priority)
}

// Affinity restricts the process to some processors, in the form "0-3,7". In the host lane it acts on the thread that clones, from
// which the child has it; that thread gets its own back in the end.
//
// With Unless it is left out where the one who clones may use that many processors, which are all that there are: then nothing is to be
// taken back of what was inherited.
type Affinity struct {
	CPUs   string `json:"cpus"`
	Unless int    `json:"unless,omitempty"`
}

func (*Affinity) Kind() string { return "sched_setaffinity" }

func (*Affinity) Man() string { return "sched_setaffinity(2)" }

func (o *Affinity) String() string {
	if o.Unless > 0 {
		return fmt.Sprintf("run on processors %s, unless all %d are allowed already", o.CPUs, o.Unless)
	}
	return "run on processors " + o.CPUs
}

func (*Affinity) lanes() lanes { return bothLanes }

// MemPolicy sets the policy for memory on machines with several memory nodes.
type MemPolicy struct {
	Mode  string   `json:"mode"`            // MPOL_BIND …
	Flags []string `json:"flags,omitempty"` // MPOL_F_STATIC_NODES …
	Nodes string   `json:"nodes,omitempty"` // in the form "0-3,7"
}

func (*MemPolicy) Kind() string { return "set_mempolicy" }

func (*MemPolicy) Man() string { return "set_mempolicy(2)" }

func (o *MemPolicy) String() string {
	return "take memory by " + o.Mode + prefix(" from nodes ", o.Nodes) + paren(o.Flags)
}

// Personality sets the execution domain, which decides what uname(2) calls the machine.
type Personality struct {
	Domain string `json:"domain"` // LINUX, LINUX32
}

func (*Personality) Kind() string { return "personality" }

func (*Personality) Man() string { return "personality(2)" }

func (o *Personality) String() string {
	return "set the execution domain to " + o.Domain
}

// Umask sets the file mode creation mask.
type Umask struct {
	Mask uint32 `json:"mask"`
}

func (*Umask) Kind() string { return "umask" }

func (*Umask) Man() string { return "umask(2)" }

func (o *Umask) String() string {
	return fmt.Sprintf("set umask %04o", o.Mask)
}

func limit(n uint64) string {
	if n == ^uint64(0) {
		return "unlimited"
	}
	return fmt.Sprint(n)
}
