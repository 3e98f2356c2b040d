package build

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"

	"glassbox/explain"
	"glassbox/plan"
)

// Trace says where the time of a build went, what came from the cache, and why each other step did not. Times are nanoseconds after its
// beginning.
type Trace struct {
	Build  string      `json:"build"` // what was built, in short
	Took   int64       `json:"took"`
	Failed string      `json:"failed,omitempty"`
	Steps  []TraceStep `json:"steps"`
	Notes  []string    `json:"notes,omitempty"`
}

// TraceStep is a step of a build.
type TraceStep struct {
	Spot
	Name   string     `json:"name"`
	Spans  [][2]int64 `json:"spans"` // a step may be begun several times: its lookup in the cache, then the work
	Cached bool       `json:"cached,omitempty"`
	Failed bool       `json:"failed,omitempty"`
	Why    string     `json:"why,omitempty"` // it was not taken from the cache
	// Start is how the start of a RUN's process was spent, by phases of its plan, and Plan that plan's hash and size.
	Start     []explain.Share `json:"start,omitempty"`
	StartTook int64           `json:"startTook,omitempty"`
	Plan      string          `json:"plan,omitempty"`
	PlanSteps int             `json:"planSteps,omitempty"`
	// Made is that plan, in JSON alone. Variables that are secrets have no values in it.
	Made *plan.Plan `json:"made,omitempty"`
}

// Took is for how long a step was worked on.
func (s *TraceStep) Took() (ns int64) {
	for _, span := range s.Spans {
		ns += span[1] - span[0]
	}
	return ns
}

func (s *TraceStep) mark() string {
	switch {
	case s.Failed:
		return "failed"
	case s.Cached:
		return "cached"
	}
	return ""
}

// Write writes the trace as html, json or text.
func (t *Trace) Write(w io.Writer, format string) error {
	switch format {
	case "html":
		return t.html(w)
	case "json":
		e := json.NewEncoder(w)
		e.SetIndent("", "  ")
		return e.Encode(t)
	}
	t.text(w)
	return nil
}

func (t *Trace) cached() (n int) {
	for _, s := range t.Steps {
		if s.Cached {
			n++
		}
	}
	return n
}

func (t *Trace) summary() string {
	return fmt.Sprintf("%d steps in %s, %d of them from the cache", len(t.Steps), explain.Duration(t.Took), t.cached())
}

// text writes the table: each step with its beginning, how long it took, and a bar.
func (t *Trace) text(w io.Writer) {
	const width = 40
	whole := max(t.Took, 1)
	fmt.Fprintf(w, "%9s %9s  %-*s  %-6s  step\n", "begins", "takes", width, "", "")
	for _, s := range t.Steps {
		bar := []byte(strings.Repeat(".", width))
		for _, span := range s.Spans {
			// At least one mark for each, also for what took no time to speak of.
			for i := max(width*span[0]/whole, 0); i <= min(width*span[1]/whole, width-1); i++ {
				bar[i] = '#'
			}
		}
		fmt.Fprintf(w, "%9s %9s  %s  %-6s  %s\n", explain.Duration(s.Spans[0][0]), explain.Duration(s.Took()), bar, s.mark(),
			explain.Clean(s.Name))
		indent := strings.Repeat(" ", 9+1+9+2+width+2+6+2)
		if s.Why != "" {
			fmt.Fprintf(w, "%snot from the cache: %s\n", indent, explain.Clean(s.Why))
		}
		if s.StartTook > 0 {
			fmt.Fprintf(w, "%sits process was started in %s, by a plan of %d steps\n", indent, explain.Duration(s.StartTook), s.PlanSteps)
		}
	}
	fmt.Fprintln(w, t.summary())
	for _, n := range t.Notes {
		fmt.Fprintln(w, "note:", explain.Clean(n))
	}
}

// html writes one page: no script, no picture, no request.
func (t *Trace) html(w io.Writer) error {
	p := explain.NewPage(w, t.Build)
	p.Put(`<h1>%s</h1><p>%s.</p>`, t.Build, t.summary())
	if t.Failed != "" {
		p.Put(`<p class="refused">%s</p>`, t.Failed)
	}
	p.Put(`<nav><a href="#time">Time</a> <a href="#steps">Steps</a> <a href="#starts">Starts of RUNs</a></nav>`)
	p.Put(`<h2 id="time">In real time</h2><p class="dim">Time runs to the right. Grey came from the cache, what is outlined failed.</p>`)
	p.Put(`<div class="chart">`)
	for _, s := range t.Steps {
		p.Put(`<div class="name">%s <span class="dim">%s</span></div>`, s.Name, explain.Duration(s.Took()))
		p.Put(`<svg height="10" preserveAspectRatio="none" viewBox="0 0 1000 10">`)
		for _, span := range s.Spans {
			x := 1000 * float64(span[0]) / float64(max(t.Took, 1))
			// Two of a thousand, or a step of a millisecond couldn't be seen in a build of minutes.
			width := max(1000*float64(span[1]-span[0])/float64(max(t.Took, 1)), 2)
			p.Put(`<rect class="k%s" x="%s" y="0" width="%s" height="10"/>`, s.colour(), fmt.Sprintf("%.1f", x), fmt.Sprintf("%.1f", width))
		}
		p.Put(`</svg>`)
	}
	p.Put(`</div>`)
	p.Put(`<h2 id="steps">Steps</h2><table>`)
	for _, s := range t.Steps {
		where := ""
		if s.Line > 0 {
			where = fmt.Sprintf("%s:%d", s.File, s.Line)
		}
		p.Put(`<tr><td class="dim">%s</td><td class="mono">%s`, where, s.Name)
		if s.Why != "" {
			p.Put(`<br><span class="child">not from the cache: %s</span>`, s.Why)
		}
		class := map[string]string{"failed": "high", "cached": "low"}[s.mark()]
		p.Put(`</td><td class="`+class+`">%s</td><td class="took">%s</td></tr>`, s.mark(), explain.Duration(s.Took()))
	}
	p.Put(`</table><h2 id="starts">Starts of RUNs</h2>`)
	if !slices.ContainsFunc(t.Steps, func(s TraceStep) bool { return s.StartTook > 0 }) {
		p.Put(`<p>No RUN was started.</p>`)
	}
	for _, s := range t.Steps {
		if s.StartTook == 0 {
			continue
		}
		p.Put(`<h3 class="mono">%s</h3><p class="dim">%s from the first step of its plan until its program ran; %s steps, %s</p>`, s.Text,
			explain.Duration(s.StartTook), s.PlanSteps, s.Plan)
		p.Shares(s.Start, s.StartTook)
	}
	for _, n := range t.Notes {
		p.Put(`<p class="dim">%s</p>`, n)
	}
	return p.End()
}

func (s *TraceStep) colour() int {
	switch {
	case s.Failed:
		return 12
	case s.Cached:
		return 13
	case word(s.Text) == "RUN":
		return 11
	}
	return 4
}
