package verify

import (
	"bufio"
	"fmt"
	"io"

	"glassbox/explain"
)

// WriteText writes what differs, what is in no step, and how many steps hold; with o.Verbose every step.
func (r *Report) WriteText(w io.Writer, o explain.TextOptions) error {
	if o.Width <= 0 {
		o.Width = 100
	}
	t := &printer{bufio.NewWriter(w), o}
	name := r.Name
	if name != "" {
		name += ", "
	}
	fmt.Fprintf(t.w, "%s\n", t.style(fmt.Sprintf("%sprocess %d, against its plan of %d steps", explain.Clean(name), r.PID, len(r.Steps)), "1"))
	for _, line := range explain.Refusal("", r.Refused, o) {
		fmt.Fprintln(t.w, line)
	}
	for _, f := range r.Steps {
		if o.Verbose || f.Verdict == Differs {
			t.finding(f)
		}
	}
	for _, f := range r.Unexpected {
		t.finding(f)
	}
	switch {
	case r.Clean() && !o.Verbose:
		fmt.Fprintf(t.w, "\n%s\n", t.style("Everything that can be observed is as the plan says.", "32"))
	case !r.Clean() && !r.Tampered():
		fmt.Fprintf(t.w, "\n%s\n", t.style("The container can have done this itself. Nothing was found that only somebody else can have "+
			"done.", "32"))
	}
	fmt.Fprintf(t.w, "\n%d steps hold, %s, %d can't be observed%s\nplan %s\n", r.Counts[Holds],
		t.count(r.Counts[Differs], "differ", "differs"),
		r.Counts[Unseen], more(t.count(r.Counts[Unlisted], "things are in no step", "thing is in no step"), r.Counts[Unlisted]), r.Plan)
	return t.w.Flush()
}

func more(s string, n int) string {
	if n == 0 {
		return ""
	}
	return "; " + s
}

type printer struct {
	w *bufio.Writer
	explain.TextOptions
}

func (t *printer) style(s, code string) string {
	if !t.Color {
		return s
	}
	return "\x1b[" + code + "m" + s + "\x1b[0m"
}

func (t *printer) count(n int, many, one string) string {
	word := many
	if n == 1 {
		word = one
	}
	s := fmt.Sprintf("%d %s", n, word)
	if n > 0 {
		s = t.style(s, "31")
	}
	return s
}

func (t *printer) finding(f Finding) {
	number, word, color := fmt.Sprint(f.Step), "", "31"
	switch f.Verdict {
	case Holds:
		word, color = "holds", "32"
	case Differs:
		word = "DIFFERS"
		if f.Own {
			word, color = "differs, which the container can have done itself", "33"
		}
	case Unseen:
		word, color = "can't be observed", "2"
	case Unlisted:
		number, word = "+", "IN NO STEP"
		if f.Own {
			word, color = "in no step, which the container can have done itself", "33"
		}
	}
	const indent = 6
	fmt.Fprintf(t.w, "\n%4s  %s\n", number, t.style(word, color))
	lines := explain.Wrap(explain.Brief(explain.Clean(f.What)), t.Width-indent)
	if len(lines) > 3 && !t.Verbose {
		lines = append(lines[:2:2], lines[2]+" …")
	}
	for _, line := range lines {
		fmt.Fprintf(t.w, "%*s%s\n", indent, "", t.style(line, "1"))
	}
	for _, part := range [][2]string{{"asked", f.Asked}, {"found", f.Found}, {"read", f.Where}, {"why", f.Why}} {
		label := part[0]
		if part[1] == "" || part[0] == "asked" && part[1] == f.What {
			continue
		}
		for _, line := range explain.Wrap(explain.Brief(explain.Clean(part[1])), t.Width-indent-7) {
			fmt.Fprintf(t.w, "%*s%s %s\n", indent, "", t.style(fmt.Sprintf("%-6s", label), "2"), line)
			label = ""
		}
	}
}
