package explain

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strings"

	"glassbox/plan"
	"glassbox/seccomp"
)

// Traced is one start of a container, and what is known of its time. Moments are those of its Trace.
type Traced struct {
	Plan       *plan.Plan
	Trace      *plan.Trace
	Command    []string // what was typed, in short
	Start, End int64    // of the command
	For        int64    // nanoseconds for which the program was traced
	Failed     string   // why the container did not start
	Running    bool     // it went on in the background when the command ended
	Errno      func(int64) string
}

// WriteTrace writes a trace as html or json.
func WriteTrace(w io.Writer, format string, t *Traced) error {
	for _, s := range t.Plan.Steps {
		if s.Op == nil {
			return fmt.Errorf("the plan has a step without an op")
		}
	}
	if !t.Trace.Times.Fits(t.Plan) {
		return fmt.Errorf("there are no times of this plan's steps")
	}
	switch format {
	case "json":
		return traceJSON(w, t)
	case "html":
		return traceHTML(w, t)
	}
	return fmt.Errorf("unknown format %q: want html or json", format)
}

const (
	runsWords    = "The program runs"
	tracerWords  = "Waiting to be traced: only because of --trace"
	unknownWords = "Between the pieces: nobody measured it"
)

// ran is when the program began: when the kernel had made the child the program or, if that wasn't seen, when the host learnt of it.
// Without a program it is the end.
func (t *Traced) ran() int64 {
	switch {
	case t.Trace.Exec != 0:
		return t.Trace.Exec
	case t.Failed == "":
		return t.Trace.Zero + t.Trace.Times.End
	}
	return t.End
}

// ended is when the program had ended: when the supervisor began to clean up.
func (t *Traced) ended() int64 {
	at := t.End
	for _, s := range t.Trace.Spans {
		if s.Who == "supervisor" && s.Begin >= t.ran() && strings.HasPrefix(s.What, "ends ") {
			at = min(at, s.Begin)
		}
	}
	return at
}

// execve is the index of the last step of the child.
func (t *Traced) execve() int {
	for i, s := range slices.Backward(t.Plan.Steps) {
		if _, ok := s.Op.(*plan.Execve); ok {
			return i
		}
	}
	return -1
}

// parts are all pieces of time that have a name.
func (t *Traced) parts() []part {
	times, zero := t.Trace.Times, t.Trace.Zero
	parts := stepParts(t.Plan, times, zero)
	for _, s := range t.Trace.Spans {
		rank := commandTime
		switch {
		case s.Waits:
			rank = waiting
		case s.Who == "supervisor":
			rank = supervisorTime
		}
		parts = append(parts, part{whoDoes(s), s.Begin, s.End, rank})
	}
	if i := t.execve(); i >= 0 && times.Begin[i] >= 0 {
		begin := zero + times.Begin[i]
		if times.Ready > 0 {
			parts = append(parts, part{tracerWords, zero + times.Ready, begin, waiting})
		}
		if t.Failed == "" {
			title, _ := phase(plan.Exec)
			parts = append(parts, part{title, begin, t.ran(), childTime}, part{runsWords, t.ran(), t.ended(), childTime})
		}
	}
	return parts
}

func whoDoes(s plan.Span) string { return or(s.Who, "?") + ": " + s.What }

// shares say where the time went until the program ran, and after that.
func (t *Traced) shares() (before, after []Share) {
	parts := t.parts()
	if t.Failed == "" {
		after = shares(parts, t.ran(), t.End, unknownWords)
	}
	return shares(parts, t.Start, t.ran(), unknownWords), after
}

// call is a system call in words.
type call struct {
	PID    int    `json:"pid"`
	Name   string `json:"name"`
	Path   string `json:"path,omitempty"`
	Begin  int64  `json:"begin"`
	Took   *int64 `json:"took"` // null: it had not returned
	Result string `json:"result,omitempty"`
	Last   bool   `json:"last,omitempty"` // the process ended in it
}

func (t *Traced) calls() []call {
	names := seccomp.CallNames(t.Plan.Arch)
	out := make([]call, len(t.Trace.Calls))
	for i, c := range t.Trace.Calls {
		name := names[c.NR]
		if name == "" {
			name = fmt.Sprintf("call %d", c.NR)
		}
		out[i] = call{PID: c.PID, Name: name, Path: c.Path, Begin: c.Begin - t.Start, Last: c.Last}
		if c.End != 0 {
			took := c.End - c.Begin
			out[i].Took = &took
		}
		if c.End != 0 && !c.Last {
			out[i].Result = fmt.Sprint(c.Result)
			if c.Result > 1<<31 {
				// An address, of mmap or brk.
				out[i].Result = fmt.Sprintf("%#x", c.Result)
			}
			if c.Failed {
				out[i].Result = fmt.Sprintf("errno %d", -c.Result)
				if t.Errno != nil {
					out[i].Result = or(t.Errno(-c.Result), out[i].Result)
				}
			}
		}
	}
	return out
}

func traceJSON(w io.Writer, t *Traced) error {
	hash, err := t.Plan.Hash()
	if err != nil {
		return err
	}
	type span struct {
		Who   string `json:"who"`
		What  string `json:"what"`
		Begin int64  `json:"begin"`
		Took  int64  `json:"took"`
		Waits bool   `json:"waits,omitempty"`
	}
	type step struct {
		Step  int        `json:"step"`
		Lane  plan.Lane  `json:"lane"`
		Phase plan.Phase `json:"phase"`
		Op    string     `json:"op"`
		What  string     `json:"what"`
		Begin int64      `json:"begin"`
		Took  int64      `json:"took"`
		Waits bool       `json:"waits,omitempty"`
	}
	type traced struct {
		For   int64  `json:"for"`
		Note  string `json:"note"`
		Lost  int    `json:"lost,omitempty"`
		Calls []call `json:"calls"`
	}
	var spans []span
	for _, s := range t.spans() {
		spans = append(spans, span{s.Who, s.What, s.Begin - t.Start, s.End - s.Begin, s.Waits})
	}
	var steps []step
	zero := t.Trace.Zero - t.Start
	for i, s := range t.Plan.Steps {
		if begin, end, ok := t.Trace.Times.Span(t.Plan, i); ok {
			steps = append(steps, step{i + 1, s.Lane, s.Phase, s.Op.Kind(), s.Op.String(), zero + begin, end - begin, s.Waits()})
		}
	}
	before, after := t.shares()
	out := struct {
		Version int      `json:"version"`
		Unit    string   `json:"unit"`
		Command []string `json:"command"`
		Plan    string   `json:"plan"`
		Failed  string   `json:"failed,omitempty"`
		First   int64    `json:"first"`
		Exec    int64    `json:"exec,omitempty"`
		Ended   int64    `json:"ended,omitempty"`
		End     int64    `json:"end"`
		Spans   []span   `json:"spans"`
		Steps   []step   `json:"steps"`
		Shares  struct {
			Before []Share `json:"before"`
			After  []Share `json:"after,omitempty"`
		} `json:"shares"`
		Traced traced `json:"traced"`
	}{
		Version: 1, Unit: "ns", Command: t.Command, Plan: hash, Failed: t.Failed, First: zero, End: t.End - t.Start, Spans: spans, Steps: steps,
		Traced: traced{t.For, or(t.Trace.Note, slowNote), t.Trace.Lost, t.calls()},
	}
	if t.Failed == "" {
		out.Exec = t.ran() - t.Start
		if !t.Running {
			out.Ended = t.ended() - t.Start
		}
	}
	out.Shares.Before, out.Shares.After = before, after
	return writeJSON(w, out)
}

const slowNote = "Tracing stops the program twice at each of its system calls (ptrace): calls and program take longer than without."

// spans in the order of their beginnings.
func (t *Traced) spans() []plan.Span {
	return slices.SortedFunc(slices.Values(t.Trace.Spans), func(a, b plan.Span) int { return cmp.Compare(a.Begin, b.Begin) })
}

func traceHTML(w io.Writer, tr *Traced) error {
	hash, err := tr.Plan.Hash()
	if err != nil {
		return err
	}
	t := &page{script: script{w: w}, times: tr.Trace.Times, slowest: slowest(tr.Plan, tr.Trace.Times)}
	title := strings.Join(tr.Command, " ")
	t.put(pageHead, shorten(title))
	t.put(`<h1>%s</h1>`, shorten(title))
	if tr.Failed != "" {
		t.put(`<p class="total">It did not start: %s</p><p>%s from the beginning of the command to its end.</p>`, tr.Failed,
			duration(tr.End-tr.Start))
	} else if tr.Running {
		t.put(`<p><b>%s</b> from the beginning of the command until the program ran, `+
			`which goes on in the background; %s until it had been traced and the command ended.</p>`,
			duration(tr.ran()-tr.Start), duration(tr.End-tr.Start))
	} else {
		t.put(`<p><b>%s</b> from the beginning of the command until the program ran; `+
			`%s until the program had ended, %s until the command had.</p>`,
			duration(tr.ran()-tr.Start), duration(tr.ended()-tr.Start), duration(tr.End-tr.Start))
	}
	t.put(`<p class="mono dim">plan %s</p>`, hash)
	t.line(`<nav><a href="#time">Time</a> <a href="#went">Where it went</a> <a href="#before">Before the plan</a> <a `+
		`href="#steps">Steps</a>%s</nav>`,
		when(tr.Failed == "", ` <a href="#program">The program</a>`, ""))
	t.line(`<h2 id="time">From the command to the program</h2><p>Time runs to the right, one line for each process. Colours are ` +
		`phases of the plan, grey is what glassbox does beside it, and what is outlined only waits.</p>`)
	t.chart(tr.tracks(), tr.Start, tr.ran())
	before, after := tr.shares()
	t.line(`<h2 id="went">Where the milliseconds went</h2><p class="dim">Each moment counts once: where several processes work at ` +
		`the same time, it is the child's, else the host lane's, the supervisor's, the command's.</p>`)
	t.put(`<h3>%s</h3>`, when(tr.Failed == "", "Until the program ran", "Until the command ended"))
	t.shares(before, tr.ran()-tr.Start)
	if len(after) > 0 {
		t.line(`<h3>From then until the command had ended</h3>`)
		t.shares(after, tr.End-tr.ran())
	}
	t.line(`<h2 id="before">What glassbox did beside the plan</h2><table>`)
	for _, s := range tr.spans() {
		t.put(`<tr><td class="took">%s</td><td class="took dim">at %s</td><td>%s</td></tr>`, duration(s.End-s.Begin), duration(s.Begin-tr.Start),
			whoDoes(s))
	}
	t.line(`</table>`)
	if i := tr.execve(); tr.Trace.Times.Born > 0 {
		times, zero := tr.Trace.Times, tr.Trace.Zero
		t.line(`<h3>Gaps</h3><table>`)
		gap := func(what string, from, to int64) {
			if from > 0 && to > from {
				t.put(`<tr><td class="took">%s</td><td>%s</td></tr>`, duration(to-from), what)
			}
		}
		gap("clone3: from the call until the child's first instruction", times.Clone, times.Born)
		if times.Ready > 0 && times.Begin[i] > 0 {
			gap("the child waits before execve until it is traced, which it doesn't without --trace", times.Ready, times.Begin[i])
		}
		if tr.Trace.Exec != 0 && times.Begin[i] > 0 {
			gap("execve: from the call until the kernel has made the child the program", zero+times.Begin[i], tr.Trace.Exec)
			if len(tr.Trace.Calls) > 0 {
				gap("from there until the program's first system call", tr.Trace.Exec, tr.Trace.Calls[0].Begin)
			}
		}
		t.line(`</table>`)
	}
	t.lanes(tr.Plan)
	t.program(tr)
	t.line("</body></html>")
	return t.err
}

// tracks are the lines of the chart until the program runs.
func (t *Traced) tracks() []track {
	command, supervisor := track{name: "glassbox"}, track{name: "glassbox-runtime, the supervisor"}
	for _, s := range t.spans() {
		if s.Begin >= t.ran() {
			continue
		}
		to := &command
		if s.Who == "supervisor" {
			to = &supervisor
		}
		c := piece{plainColour, s.Begin, min(s.End, t.ran()), s.What + ": " + duration(s.End-s.Begin)}
		if len(to.pieces)%2 == 1 {
			c.colour = otherColour
		}
		if s.Waits {
			c.colour = waitColour
		}
		to.pieces = append(to.pieces, c)
	}
	lanes := stepTracks(t.Plan, t.Trace.Times, t.Trace.Zero)
	lanes[0].name, lanes[1].name = "the plan: host", "the plan: child"
	return []track{command, supervisor, lanes[0], lanes[1]}
}

// program shows what the program did first.
func (t *page) program(tr *Traced) {
	if tr.Failed != "" {
		return
	}
	t.put(`<h2 id="program">The program's first %s</h2>`, axisTime(tr.For))
	calls := tr.calls()
	if len(calls) == 0 {
		t.put(`<p>%s</p>`, or(tr.Trace.Note, "It made no system call in that time."))
		return
	}
	t.put(`<p>%s system calls. %s</p>`, len(calls)+tr.Trace.Lost, slowNote)
	ran := tr.ran()
	to := min(tr.ended(), ran+tr.For)
	byPID := map[int]int{}
	var tracks []track
	for i, c := range tr.Trace.Calls {
		k, ok := byPID[c.PID]
		if !ok {
			k = len(tracks)
			byPID[c.PID] = k
			tracks = append(tracks, track{name: fmt.Sprintf("process %d", c.PID), class: "child"})
		}
		end := c.End
		if end == 0 {
			end = to
		}
		if c.Begin < to {
			tracks[k].pieces = append(tracks[k].pieces, piece{programColour, c.Begin, min(end, to), calls[i].Name + " " + shorten(c.Path)})
		}
	}
	const most = 8
	t.chart(tracks[:min(len(tracks), most)], ran, to)
	if len(tracks) > most {
		t.put(`<p class="dim">and %s processes and threads more.</p>`, len(tracks)-most)
	}
	t.line(`<h3>By name</h3><table>`)
	sum, count := map[string]int64{}, map[string]int{}
	for _, c := range calls {
		count[c.Name]++
		if c.Took != nil {
			sum[c.Name] += *c.Took
		}
	}
	names := make([]string, 0, len(count))
	for name := range count {
		names = append(names, name)
	}
	slices.SortFunc(names, func(a, b string) int { return cmp.Or(cmp.Compare(sum[b], sum[a]), strings.Compare(a, b)) })
	for _, name := range names {
		t.put(`<tr><td class="took">%s</td><td class="took">%s ×</td><td class="mono">%s</td></tr>`, duration(sum[name]), count[name], name)
	}
	t.line(`</table><h3>One by one</h3><table>`)
	// A page is for reading; the JSON form is for looking something up.
	const rows = 400
	for i, c := range calls[:min(len(calls), rows)] {
		took := "not yet back"
		if c.Took != nil {
			took = duration(*c.Took)
		}
		t.put(`<tr><td class="took dim">%s</td><td class="took">%s</td><td class="mono">%s%s%s</td></tr>`, duration(tr.Trace.Calls[i].Begin-ran),
			took,
			when(len(tracks) > 1, fmt.Sprintf("[%d] ", c.PID), ""), c.Name+when(c.Path != "", " "+shorten(c.Path), ""), when(c.Result != "",
				" = "+c.Result, "")+when(c.Last, ", its end", ""))
	}
	t.line(`</table>`)
	if len(calls) > rows {
		t.put(`<p class="dim">and %s more: --trace FILE.json has them all.</p>`, len(calls)-rows)
	}
}
