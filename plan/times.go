package plan

// Times says when the steps of a plan were made when it ran, in nanoseconds after its first. They are no part of the plan, nor of
// its hash: each start has others.
type Times struct {
	// Begin is when each step began, in the order of the plan; -1 for one that was not made, or that asks the kernel nothing (there
	// may be no capability to drop). A step ends where the next of its lane begins.
	Begin []int64 `json:"begin"`
	Clone int64   `json:"clone"`           // when the host called clone3: before, it prepares the child's calls
	Born  int64   `json:"born"`            // when the child began
	Ready int64   `json:"ready,omitempty"` // when the child waited to be traced, before execve
	Host  int64   `json:"host"`            // when the host had made its last step, and only waited for the child
	End   int64   `json:"end"`             // when the host saw that the program ran, or that a step had failed
}

// Fits reports whether t can be about p: one time for each step.
func (t *Times) Fits(p *Plan) bool { return t != nil && len(t.Begin) == len(p.Steps) && t.End > 0 }

// Span is when step i of p began and ended. It is false for a step without a time.
func (t *Times) Span(p *Plan, i int) (begin, end int64, ok bool) {
	begin = t.Begin[i]
	if begin < 0 {
		return 0, 0, false
	}
	for k := i + 1; k < len(p.Steps); k++ {
		if p.Steps[k].Lane == p.Steps[i].Lane && t.Begin[k] >= 0 {
			end = t.Begin[k]
			if _, exec := p.Steps[k].Op.(*Execve); exec && t.Ready > 0 {
				end = t.Ready
			}
			return begin, max(begin, end), true
		}
	}
	end = t.End
	if p.Steps[i].Lane == Host {
		end = t.Host
	}
	return begin, max(begin, end), true
}

// Waits reports whether a step's time is mostly the other lane's, for which it waits.
func (s Step) Waits() bool {
	switch s.Op.(type) {
	case *Await, *AwaitStart, *Expect, *RecvFD, *Adopt:
		return true
	}
	return false
}
