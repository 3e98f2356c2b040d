package explain

import (
	"bufio"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"reflect"
	"slices"
	"strings"
	"unicode/utf8"

	"glassbox/plan"
)

// TextOptions say how a plan looks.
type TextOptions struct {
	Color   bool
	Verbose bool // every argument of every step, and reasons even where they repeat
	Width   int  // columns; 0 is 100
	// Times, if they are known, are those of one start of the plan.
	Times *plan.Times
	// Refused says why the plan would not run here (see About).
	Refused string
}

// gutter is the width of step number and lanes:
//
//	 12  ●──┐  clone …
//	no.  host
//	        child
const gutter = 12

// Text prints the plan with its two lanes side by side.
func Text(w io.Writer, p *plan.Plan, o TextOptions) error {
	hash, err := p.Hash()
	if err != nil {
		return err
	}
	if o.Width <= 0 {
		o.Width = 100
	}
	o.Width = max(o.Width, gutter+28)
	t := &printer{w: bufio.NewWriter(w), TextOptions: o, seen: map[plan.Phase]bool{}, plan: p}
	// Those of another plan would stand beside the wrong steps.
	if o.Times.Fits(p) {
		t.times, t.slowest = o.Times, slowest(p, o.Times)
		t.Width = max(t.Width-timeColumn, gutter+28)
	}
	t.opening()
	for i := 0; i < len(p.Steps); {
		s := p.Steps[i]
		if i == 0 || s.Phase != p.Steps[i-1].Phase {
			t.heading(i)
		}
		same := i > 0 && s.Phase == p.Steps[i-1].Phase && plain(s.Reason) == plain(p.Steps[i-1].Reason)
		n := 1
		if !o.Verbose {
			n = alike(p.Steps[i:])
		}
		t.steps(i+1, p.Steps[i:i+n], same && !o.Verbose)
		i += n
	}
	t.closing(p, hash)
	if t.times != nil {
		t.spent()
	}
	return t.w.Flush()
}

// TextStep prints step i alone, as Text does, with the name and purpose of its phase above it if heading is set.
func TextStep(w io.Writer, p *plan.Plan, i int, heading bool, o TextOptions) error {
	if o.Width <= 0 {
		o.Width = 100
	}
	o.Width = max(o.Width, gutter+28)
	t := &printer{w: bufio.NewWriter(w), TextOptions: o, seen: map[plan.Phase]bool{}, plan: p}
	for _, s := range p.Steps[:i] {
		t.after(s.Op)
	}
	if heading {
		t.heading(i)
	}
	t.steps(i+1, p.Steps[i:i+1], false)
	return t.w.Flush()
}

type printer struct {
	TextOptions
	w       *bufio.Writer
	plan    *plan.Plan
	times   *plan.Times // nil: not known
	slowest int
	right   string // for the column of times of the next line
	seen    map[plan.Phase]bool
	child   bool   // the child lives
	note    string // origin and manual page of the step before
}

// Styles, as SGR parameters.
const (
	bold  = "1"
	dim   = "2"
	host  = "36" // cyan
	child = "33" // yellow
	head  = "1;4"
	bad   = "1;31"
)

func (t *printer) style(s, code string) string {
	if !t.Color || code == "" || strings.TrimSpace(s) == "" {
		return s
	}
	return "\x1b[" + code + "m" + s + "\x1b[0m"
}

func (t *printer) opening() {
	if lines := Refusal("", t.Refused, t.TextOptions); len(lines) > 0 {
		fmt.Fprintf(t.w, "%s\n\n", strings.Join(lines, "\n"))
	}
	for _, line := range wrap("A container start, step by step. Each step is one request to the kernel, made by the host (left lane: the "+
		"parent process) or by the child (right lane: the process that becomes the container). On the right: what asked for the step, and the "+
		"manual page that tells more. A reason that holds for several steps stands at the first."+when(t.times == nil, "",
		" At the right edge: how long it took in this start, the phase beside its name and each step; in parentheses what it waited for the "+
			"other lane; ◀ is the slowest."), t.Width) {
		fmt.Fprintln(t.w, t.style(line, dim))
	}
	fmt.Fprintf(t.w, "\nstep  %s %s\n", t.style("host", host), t.style("child", child))
}

// heading prints the name of the phase that begins with step i.
func (t *printer) heading(i int) {
	p := t.plan.Steps[i].Phase
	title, about := phase(p)
	title = clean(title) // an unknown one is whatever the plan says
	t.line("", "")
	if t.times != nil {
		n := 0
		var sum int64
		for i+n < len(t.plan.Steps) && t.plan.Steps[i+n].Phase == p {
			if begin, end, ok := t.times.Span(t.plan, i+n); ok && !t.plan.Steps[i+n].Waits() {
				sum += end - begin
			}
			n++
		}
		t.right = when(n > 1, duration(sum)+" ", "")
	}
	if t.seen[p] {
		t.line("", t.style(title, head)+t.style(" (continued)", dim))
		return
	}
	t.seen[p] = true
	t.line("", t.style(title, head))
	for _, line := range wrap(about, t.Width-gutter) {
		t.line("", t.style(line, dim))
	}
	t.line("", "")
}

// lanes draws the lanes beside a line; mark is a step's part of it, "" for a line between steps.
func (t *printer) lanes(mark string) string {
	left, middle, right := "│", "  ", " "
	if t.child {
		right = "│"
	}
	if m := []rune(mark); len(m) == 4 {
		left, middle, right = string(m[0]), string(m[1:3]), string(m[3])
		if right == " " && t.child {
			right = "│"
		}
	}
	return t.style(left, host) + t.style(middle, dim) + t.style(right, child)
}

// line prints a line that belongs to no step.
func (t *printer) line(number, text string) { t.marked(number, "", text) }

func (t *printer) marked(number, mark, text string) {
	line := fmt.Sprintf("%4s  %s  %s", number, t.lanes(mark), text)
	if t.right != "" {
		line += strings.Repeat(" ", max(t.Width-gutter-visible(text), 0)) + fmt.Sprintf("%*s", timeColumn, t.right)
		t.right = ""
	}
	fmt.Fprintln(t.w, strings.TrimRight(line, " "))
}

// visible is how many columns a text takes, its styles not counted.
func visible(s string) int {
	n := 0
	for rest := s; rest != ""; {
		before, after, styled := strings.Cut(rest, "\x1b[")
		n += utf8.RuneCountInString(before)
		if styled {
			_, after, _ = strings.Cut(after, "m")
		}
		rest = after
	}
	return n
}

// mark is a step's part of the lanes: a dot in the lane that makes it, and arrows where the lanes meet.
func mark(s plan.Step) string {
	switch s.Op.(type) {
	case *plan.Clone:
		return "●──┐"
	case *plan.Release:
		return "●─▶│"
	case *plan.Await:
		return "│  ○"
	case *plan.SendFD:
		return "│◀─●"
	case *plan.Execve:
		return "│  ■"
	}
	if s.Lane == plan.Host {
		return "●   "
	}
	return "│  ●"
}

// alike returns how many of the steps from the first on are the same thing done to one object after another, for one reason:
// they are told in one sentence.
func alike(steps []plan.Step) int {
	s, n := steps[0], 1
	for s.Op != nil && n < len(steps) {
		next := steps[n]
		if next.Op == nil || next.Op.Kind() != s.Op.Kind() || next.Lane != s.Lane || next.Phase != s.Phase || next.Origin != s.Origin ||
			plain(next.Reason) != plain(s.Reason) {
			break
		}
		if _, ok := together(steps[:n+1]); !ok {
			break
		}
		n++
	}
	// Two told as one are no shorter, and harder to read.
	if n < 3 {
		return 1
	}
	return n
}

// together says in one sentence what steps of one kind do: what all have in common once, what differs as a list. It reports
// false where that would be harder to read than the steps one by one.
func together(steps []plan.Step) (string, bool) {
	texts := make([]string, len(steps))
	for i, s := range steps {
		texts[i] = clean(s.Op.String())
	}
	first := texts[0]
	front, back := len(first), len(first)
	for _, text := range texts[1:] {
		// Byte by byte: what is cut in the middle of a character here goes back to the end of a word below.
		front, back = min(front, len(text)), min(back, len(text))
		for text[:front] != first[:front] {
			front--
		}
		for text[len(text)-back:] != first[len(first)-back:] {
			back--
		}
	}
	// Words, and names in paths, stay whole.
	const ends = " /:\""
	for front > 0 && !strings.Contains(ends, first[front-1:front]) {
		front--
	}
	for back > 0 && !strings.Contains(ends+",", first[len(first)-back:len(first)-back+1]) {
		back--
	}
	middles := make([]string, len(texts))
	for i, text := range texts {
		if front+back >= len(text) {
			return "", false
		}
		middles[i] = text[front : len(text)-back]
		if len(middles[i]) > 36 {
			return "", false
		}
	}
	if (front == 0 || first[front-1] == ' ') && (back == 0 || first[len(first)-back] == ' ') {
		return first[:front] + strings.Join(middles, ", ") + first[len(first)-back:], true
	}
	return first[:front] + "{" + strings.Join(middles, ", ") + "}" + first[len(first)-back:], true
}

// steps prints a step, or several that are told as one.
func (t *printer) steps(n int, steps []plan.Step, quiet bool) {
	s, most := steps[0], 3
	width := t.Width - gutter
	if s.Op == nil {
		s.Op = unknown{}
	}
	text := clean(s.Op.String())
	if len(steps) > 1 {
		text, _ = together(steps)
		most = 8
	}
	what := wrap(t.brief(text), width)
	if !t.Verbose && len(what) > most {
		what = append(what[:most-1:most-1], what[most-1][:cut(what[most-1], width-2)]+" …")
	}
	from := clean(s.Origin)
	if from != "" && from != "default" {
		from = "from " + from
	}
	note := strings.Trim(from+" · "+s.Op.Man(), " ·")
	var reason []string
	if !quiet {
		why := s.Reason
		if slices.ContainsFunc(steps, func(other plan.Step) bool { return other.Reason != why }) {
			why = plain(why) // what is in parentheses differs
		}
		reason = wrap(t.brief(clean(why)), width)
	}
	lines := make([]string, 0, len(what)+len(reason)+1)
	lines = append(append(lines, what...), reason...)
	at := t.placeNote(lines, len(what), note, width)
	if quiet && note == t.note && at == len(lines) {
		at = -1 // not worth a line of its own
	}
	t.note = note

	number, m := fmt.Sprint(n), mark(s)
	last := ""
	if len(steps) > 1 {
		last = fmt.Sprintf("–%d", n+len(steps)-1)
	}
	for i := 0; i < len(lines) || i <= at || last != ""; i++ {
		text := ""
		if i < len(lines) {
			text = t.style(lines[i], when(i < len(what), bold, ""))
		}
		if i == at {
			used := 0
			if i < len(lines) {
				used = utf8.RuneCountInString(lines[i])
			}
			text += strings.Repeat(" ", max(0, width-used-utf8.RuneCountInString(note))) + t.style(note, dim)
		}
		if i == 0 && t.times != nil {
			t.right = t.clock(n-1, len(steps))
		}
		t.marked(number, m, text)
		if i == 0 {
			t.after(s.Op)
			number, m, last = last, "", ""
		} else {
			number = ""
		}
	}
	if t.Verbose {
		t.arguments(s.Op, width)
	}
}

// plain is a reason without what it says in parentheses: reasons that differ only there are told once.
func plain(reason string) string {
	before, rest, ok := strings.Cut(reason, " (")
	if !ok {
		return reason
	}
	_, after, _ := strings.Cut(rest, ")")
	return before + after
}

// brief is Brief, unless every argument is to be seen.
func (t *printer) brief(s string) string {
	if t.Verbose {
		return s
	}
	return Brief(s)
}

// Brief shortens ids of 64 hexadecimal digits to 12.
func Brief(s string) string {
	var b strings.Builder
	start := 0 // of the run of hexadecimal digits
	for i := 0; i <= len(s); i++ {
		if i < len(s) && strings.IndexByte("0123456789abcdef", s[i]) >= 0 {
			continue
		}
		if i-start == 64 {
			b.WriteString(s[start:start+12] + "…")
		} else {
			b.WriteString(s[start:i])
		}
		if i < len(s) {
			b.WriteByte(s[i])
		}
		start = i + 1
	}
	return b.String()
}

// placeNote finds the line on which origin and manual page have room: the step's first, its reason's last, or one more.
func (t *printer) placeNote(lines []string, whats int, note string, width int) int {
	fits := func(i int) bool { return utf8.RuneCountInString(lines[i])+2+utf8.RuneCountInString(note) <= width }
	switch {
	case note == "":
		return -1
	case whats == 1 && fits(0):
		return 0
	case fits(len(lines) - 1):
		return len(lines) - 1
	}
	return len(lines)
}

// after keeps track of the child's life once a step's first line is drawn.
func (t *printer) after(op plan.Op) {
	switch op.(type) {
	case *plan.Clone:
		t.child = true
	case *plan.Execve:
		t.child = false
	}
}

// arguments prints every field of an op.
func (t *printer) arguments(op plan.Op, width int) {
	v := reflect.Indirect(reflect.ValueOf(op))
	if v.Kind() != reflect.Struct {
		return
	}
	for i := range v.NumField() {
		name, options, _ := strings.Cut(v.Type().Field(i).Tag.Get("json"), ",")
		if name == "" || options == "omitempty" && v.Field(i).IsZero() {
			continue
		}
		label := fmt.Sprintf("  %-11s ", name)
		for _, line := range wrap(clean(value(v.Field(i).Interface())), width-len(label)) {
			t.line("", t.style(label, dim)+line)
			label = strings.Repeat(" ", len(label))
		}
	}
}

func value(v any) string {
	switch v := v.(type) {
	case string:
		return fmt.Sprintf("%q", v)
	case []string:
		words := make([]string, len(v))
		for i, s := range v {
			words[i] = fmt.Sprintf("%q", s)
		}
		return strings.Join(words, " ")
	case []byte:
		return fmt.Sprintf("%d instructions, sha256:%x", len(v)/8, sha256.Sum256(v))
	case uint64:
		if v == ^uint64(0) {
			return "unlimited"
		}
	}
	data, err := json.Marshal(v)
	if err != nil {
		return fmt.Sprint(v)
	}
	return string(data)
}

func (t *printer) closing(p *plan.Plan, hash string) {
	count := map[plan.Lane]int{}
	for _, s := range p.Steps {
		count[s.Lane]++
	}
	fmt.Fprintf(t.w, "\n%d steps: %s, %s\n%s\n", len(p.Steps),
		t.style(fmt.Sprintf("%d by the host", count[plan.Host]), host),
		t.style(fmt.Sprintf("%d by the child", count[plan.Child]), child),
		t.style("plan "+hash, dim))
}

// unknown stands for a step without an op, which a broken plan may hold.
type unknown struct{}

func (unknown) Kind() string   { return "" }
func (unknown) String() string { return "(nothing)" }
func (unknown) Man() string    { return "" }

func when(ok bool, yes, no string) string {
	if ok {
		return yes
	}
	return no
}

// cut returns the number of bytes of the first n runes.
func cut(s string, n int) int {
	for i := range s {
		if n == 0 {
			return i
		}
		n--
	}
	return len(s)
}

// wrap breaks a text at spaces, and a word that is too long anywhere.
func wrap(s string, width int) []string {
	var lines []string
	line, used := "", 0
	flush := func() {
		lines = append(lines, line)
		line, used = "", 0
	}
	for _, word := range strings.Fields(clean(s)) {
		n := utf8.RuneCountInString(word)
		if used > 0 && used+1+n > width {
			flush()
		}
		for n > width {
			at := cut(word, width)
			lines = append(lines, word[:at])
			word = word[at:]
			n -= width
		}
		if used > 0 {
			line += " "
			used++
		}
		line += word
		used += n
	}
	if used > 0 {
		flush()
	}
	return lines
}
