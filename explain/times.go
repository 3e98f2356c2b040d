package explain

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"glassbox/plan"
)

// duration writes nanoseconds with three digits that count.
func duration(ns int64) string {
	v, unit := float64(ns), "ns"
	for _, u := range []string{"µs", "ms", "s"} {
		if v < 999.5 && unit != "ns" {
			break
		}
		v, unit = v/1000, u
	}
	digits := 2
	switch {
	case v >= 99.95:
		digits = 0
	case v >= 9.995:
		digits = 1
	}
	return fmt.Sprintf("%.*f %s", digits, v, unit)
}

// part is a stretch of time for which something has a name. Where several overlap, the one of the highest rank counts, among equals the
// one that began last, as it is a piece of the other.
type part struct {
	what       string
	begin, end int64
	rank       int
}

// Ranks: time is the child's while it works, else the host's, and waiting only where nobody does anything.
const (
	waiting = iota
	commandTime
	supervisorTime
	hostTime
	childTime
)

// A Share is what one thing took of the whole.
type Share struct {
	What string `json:"what"`
	Took int64  `json:"took"` // nanoseconds
}

// shares divides the time between two moments among parts, so that the shares add up to it, longest first. What no part covers
// is rest's.
func shares(parts []part, from, to int64, rest string) []Share {
	// Between two neighbouring moments at which something begins or ends nothing changes, so each such stretch belongs to one part.
	cuts := []int64{from, to}
	for _, p := range parts {
		cuts = append(cuts, min(max(p.begin, from), to), min(max(p.end, from), to))
	}
	slices.Sort(cuts)
	cuts = slices.Compact(cuts)
	took := map[string]int64{}
	for i := 1; i < len(cuts); i++ {
		what, rank, begin := rest, -1, int64(0)
		for _, p := range parts {
			if (p.rank > rank || p.rank == rank && p.begin > begin) && p.begin <= cuts[i-1] && p.end >= cuts[i] {
				what, rank, begin = p.what, p.rank, p.begin
			}
		}
		took[what] += cuts[i] - cuts[i-1]
	}
	out := make([]Share, 0, len(took))
	for what, n := range took {
		out = append(out, Share{what, n})
	}
	slices.SortFunc(out, func(a, b Share) int { return cmp.Or(cmp.Compare(b.Took, a.Took), strings.Compare(a.What, b.What)) })
	return out
}

// preparedWords are what the host does between the last step before the clone and the clone.
const preparedWords = "The child's calls are prepared"

const waitingWords = "Waiting: one lane for the other, or for the processor"

// stepParts are a plan's steps as parts of time, by phase, from the moment zero of its times on.
func stepParts(p *plan.Plan, t *plan.Times, zero int64) []part {
	var parts []part
	for i, s := range p.Steps {
		begin, end, ok := t.Span(p, i)
		if !ok {
			continue
		}
		title, _ := phase(s.Phase)
		rank := hostTime
		if s.Lane == plan.Child {
			rank = childTime
		}
		if s.Waits() {
			title, rank = waitingWords, waiting
		}
		if _, ok := s.Op.(*plan.Clone); ok && s.Lane == plan.Host && t.Born > t.Clone && t.Clone > begin {
			parts = append(parts, part{preparedWords, zero + begin, zero + t.Clone, hostTime})
			begin = t.Clone
		}
		parts = append(parts, part{title, zero + begin, zero + end, rank})
	}
	return parts
}

// phaseShares divide the time from a plan's first step until its program ran.
func phaseShares(p *plan.Plan, t *plan.Times) []Share {
	return shares(stepParts(p, t, 0), 0, t.End, waitingWords)
}

// slowest is the step that took longest, waiting not counted; -1: none has a time.
func slowest(p *plan.Plan, t *plan.Times) int {
	at, most := -1, int64(-1)
	for i, s := range p.Steps {
		if begin, end, ok := t.Span(p, i); ok && !s.Waits() && end-begin > most {
			at, most = i, end-begin
		}
	}
	return at
}

// stepTimes is the JSON form of a plan's times.
type stepTimes struct {
	Unit   string      `json:"unit"`
	Clone  int64       `json:"clone"`
	Born   int64       `json:"born"`
	Host   int64       `json:"host"`
	End    int64       `json:"end"`
	Steps  []*stepTime `json:"steps"`
	Phases []Share     `json:"phases"`
}

type stepTime struct {
	Begin int64 `json:"begin"`
	Took  int64 `json:"took"`
	Waits bool  `json:"waits,omitempty"`
}

func timesJSON(p *plan.Plan, t *plan.Times) *stepTimes {
	if !t.Fits(p) {
		return nil
	}
	out := &stepTimes{
		Unit: "ns", Clone: t.Clone, Born: t.Born, Host: t.Host, End: t.End, Steps: make([]*stepTime, len(p.Steps)),
		Phases: phaseShares(p, t),
	}
	for i, s := range p.Steps {
		if begin, end, ok := t.Span(p, i); ok {
			out.Steps[i] = &stepTime{begin, end - begin, s.Waits()}
		}
	}
	return out
}

// timeColumn is how wide the times are that Text prints at the right edge.
const timeColumn = 12

// clock is a step's time, or that of several, for the column: in parentheses what it waited.
func (t *printer) clock(first, n int) string {
	var sum int64
	known, waits, mark := false, false, ""
	for i := first; i < first+n; i++ {
		if begin, end, ok := t.times.Span(t.plan, i); ok {
			sum += end - begin
			known = true
		}
		waits = waits || t.plan.Steps[i].Waits()
		if i == t.slowest {
			mark = "◀"
		}
	}
	switch {
	case !known:
		return ""
	case waits:
		return "(" + duration(sum) + ")"
	}
	return when(mark != "", duration(sum)+mark, duration(sum)+" ")
}

// spent prints where the time went.
func (t *printer) spent() {
	fmt.Fprintf(t.w, "\n%s from the first step until the program ran:\n", duration(t.times.End))
	t.table(phaseShares(t.plan, t.times), t.times.End)
	if t.times.Clone > 0 && t.times.Born == 0 {
		fmt.Fprintln(t.w, "The child's steps have no times: this machine's processors count time differently.")
	}
}

// table prints shares with their part of the whole.
func (t *printer) table(list []Share, all int64) {
	for _, s := range list {
		fmt.Fprintf(t.w, "%10s %4.0f %%  %s\n", duration(s.Took), 100*float64(s.Took)/float64(max(all, 1)), clean(s.What))
	}
	fmt.Fprintf(t.w, "%10s  100 %%  in all\n", duration(all))
}
