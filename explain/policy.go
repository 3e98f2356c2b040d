package explain

import (
	"glassbox/plan"
)

// Severity says how far what a container may do exposes the host.
type Severity string

// The severities, lightest first.
const (
	Low      Severity = "low"      // ordinary, and worth knowing
	Moderate Severity = "moderate" // a wall less
	High     Severity = "high"     // one mistake or one kernel bug from the host
	Total    Severity = "total"    // the host is open
)

// A Finding is a reason of the grade.
type Finding struct {
	Severity Severity `json:"severity"`
	What     string   `json:"what"`
	Why      string   `json:"why"`
	Mend     string   `json:"mend,omitempty"`
}

// A Report says what a container can reach. Version 1 of its JSON form is docs/plan-schema.md's.
type Report struct {
	Version  int       `json:"version"`
	Title    string    `json:"title,omitempty"`
	Plan     string    `json:"plan"`
	Refused  string    `json:"refused,omitempty"` // why it would not run here (see About)
	Grade    string    `json:"grade"`             // A to D, F
	Meaning  string    `json:"meaning"`
	Findings []Finding `json:"findings"`
	Rights   []Right   `json:"rights"`
	Syscalls struct {
		Known       int      `json:"known"`
		Allowed     int      `json:"allowed"`
		Conditional []string `json:"conditional"` // it depends on the arguments
		Denied      []string `json:"denied"`
	} `json:"syscalls"`
	HostPaths []string `json:"hostPaths"` // every path of the host that the plan names
}

// Policy judges a plan.
func Policy(p *plan.Plan, a About) *Report {
	v := Read(p)
	r := &Report{Version: 1, Title: a.Title, Plan: v.Hash, Refused: a.Refused, Findings: v.findings(), HostPaths: hostPaths(p)}
	for _, right := range v.rights() {
		if right.Area != "syscalls" {
			r.Rights = append(r.Rights, right)
		}
	}
	r.Syscalls.Conditional, r.Syscalls.Denied = []string{}, []string{}
	for _, c := range v.Calls() {
		r.Syscalls.Known++
		switch {
		case c.Always:
			r.Syscalls.Allowed++
		case c.Sometimes:
			r.Syscalls.Conditional = append(r.Syscalls.Conditional, c.Name)
		default:
			r.Syscalls.Denied = append(r.Syscalls.Denied, c.Name)
		}
	}
	r.Grade, r.Meaning = grade(r.Findings)
	return r
}

func grade(findings []Finding) (letter, meaning string) {
	count := map[Severity]int{}
	for _, f := range findings {
		count[f.Severity]++
	}
	switch {
	case count[Total] > 0:
		return "F", "open: who controls the container controls the host"
	case count[High] > 0:
		return "D", "exposed: walls are missing, one mistake more leads to the host"
	case count[Moderate] > 2:
		return "C", "loose: several walls are lower than usual"
	// A container without any flag has six low ones and no other (docs/exposure.md): what is usual is a B, and no alarm.
	case count[Moderate] > 0 || count[Low] > 2:
		return "B", "ordinary: the usual walls stand"
	}
	return "A", "tight: little can be reached"
}

// hostPaths lists every path of the host that a plan names, with the step that does: for a plan from elsewhere.
func hostPaths(p *plan.Plan) []string {
	out := []string{}
	seen := map[string]bool{}
	for _, s := range p.Steps {
		for _, path := range plan.HostNames(s.Op) {
			line := clean(path)
			if !seen[line] {
				seen[line] = true
				out = append(out, line)
			}
		}
	}
	return out
}
