package build

import (
	"fmt"
	"io"
	"slices"
	"strings"

	"glassbox/plan"
)

// Explanation is what is known of a build before it runs.
type Explanation struct {
	Dockerfile string   `json:"dockerfile"`
	Stages     []Stage  `json:"stages"`
	Sources    []Source `json:"sources"`
	Steps      []Step   `json:"steps"` // in an order in which they can be made; only what the target needs
	Notes      []string `json:"notes,omitempty"`
}

// Stage is a FROM with what follows.
type Stage struct {
	Name   string   `json:"name"` // its number where it has none
	Base   string   `json:"base"`
	Line   int      `json:"line"`
	Target bool     `json:"target,omitempty"` // this one is built
	Uses   []string `json:"uses,omitempty"`   // stages and images that files are copied or mounted from
	Needed bool     `json:"needed"`           // the target is made of it
}

// Source is something that a build begins with.
type Source struct {
	Kind  string   `json:"kind"` // image, context, git, http …
	Ref   string   `json:"ref"`
	ID    string   `json:"id,omitempty"` // of an image that is here
	Paths []string `json:"paths,omitempty"`
	// Files and Bytes are what of a directory would be sent, after .dockerignore.
	Files int   `json:"files,omitempty"`
	Bytes int64 `json:"bytes,omitempty"`
}

// Step is an operation of the solver.
type Step struct {
	Number int    `json:"number"` // from 1
	Kind   string `json:"kind"`   // source, run, file, merge, diff
	Name   string `json:"name"`
	Line   int    `json:"line,omitempty"` // of the Dockerfile
	Inputs []int  `json:"inputs,omitempty"`
	Reads  *Reads `json:"reads,omitempty"` // of the context
	Run    *Run   `json:"run,omitempty"`
}

// Reads is what a step takes of the context, after .dockerignore.
type Reads struct {
	Paths []string `json:"paths"` // with patterns
	Files int      `json:"files"`
	Bytes int64    `json:"bytes"`
}

// Count counts a file of the context, if it is among what is read.
func (r *Reads) Count(name string, size int64) {
	if slices.ContainsFunc(r.Paths, func(p string) bool { return covers(p, name) }) {
		r.Files++
		r.Bytes += size
	}
}

// Run is what is known of a RUN.
type Run struct {
	Args     []string   `json:"args"`
	Env      []string   `json:"env,omitempty"`
	Cwd      string     `json:"cwd"`
	User     string     `json:"user,omitempty"`
	Network  string     `json:"network"`
	Security string     `json:"security"`
	Mounts   []Mount    `json:"mounts,omitempty"` // beside the root
	Plan     *plan.Plan `json:"plan,omitempty"`
}

// Mount is a RUN --mount.
type Mount struct {
	Type     string `json:"type"` // bind, cache, tmpfs, secret, ssh
	Target   string `json:"target,omitempty"`
	Variable string `json:"variable,omitempty"` // a secret that is one, and no file
	ID       string `json:"id,omitempty"`
	From     int    `json:"from,omitempty"` // the step it shows
	ReadOnly bool   `json:"readOnly,omitempty"`
}

// Runs are the steps that are a RUN.
func (e *Explanation) Runs() (runs []Step) {
	for _, s := range e.Steps {
		if s.Run != nil {
			runs = append(runs, s)
		}
	}
	return runs
}

// Text writes the explanation for readers. clean makes a string of the Dockerfile's safe for a terminal, and size writes bytes.
func (e *Explanation) Text(w io.Writer, clean func(string) string, size func(int64) string) {
	fmt.Fprintf(w, "%s\n\nstages\n", clean(e.Dockerfile))
	for _, s := range e.Stages {
		mark := "  "
		switch {
		case s.Target:
			mark = "▶ "
		case !s.Needed:
			mark = "· " // nothing of it is needed
		}
		line := fmt.Sprintf("  %s%-14s from %s", mark, clean(s.Name), clean(s.Base))
		if len(s.Uses) > 0 {
			line += ", files of " + clean(strings.Join(s.Uses, ", "))
		}
		if !s.Needed {
			line += " (not needed: nothing of it is made)"
		}
		fmt.Fprintln(w, line)
	}
	fmt.Fprintln(w, "\nbegins with")
	for _, s := range e.Sources {
		fmt.Fprintf(w, "  %-8s %s\n", s.Kind, clean(s.words(size)))
	}
	fmt.Fprintln(w, "\nsteps")
	for _, s := range e.Steps {
		e.step(w, s, clean, size)
	}
	for _, n := range e.Notes {
		fmt.Fprintln(w, "\nnote: "+clean(n))
	}
}

func (s *Source) words(size func(int64) string) string {
	switch {
	case s.Kind == "image" && s.ID != "":
		return fmt.Sprintf("%s, which is here: %.19s", s.Ref, s.ID)
	case s.Kind == "image":
		return s.Ref + ", which a registry is asked for"
	case s.Kind == "context":
		return fmt.Sprintf("%d files, %s, of %s", s.Files, size(s.Bytes), strings.Join(s.Paths, ", "))
	}
	return s.Ref
}

func (e *Explanation) step(w io.Writer, s Step, clean func(string) string, size func(int64) string) {
	after, line := "", ""
	if len(s.Inputs) > 0 {
		after = "   ← " + numbers(s.Inputs)
	}
	if s.Line > 0 {
		line = fmt.Sprintf("   line %d", s.Line)
	}
	fmt.Fprintf(w, "  %3d  %s%s%s\n", s.Number, clean(s.Name), after, line)
	if s.Reads != nil {
		fmt.Fprintf(w, "       │ %s\n", clean(s.Reads.words(size)))
	}
	r := s.Run
	if r == nil {
		return
	}
	for _, text := range r.words() {
		fmt.Fprintln(w, "       │ "+clean(text))
	}
	if r.Plan != nil {
		fmt.Fprintf(w, "       └ %s\n", planWords(r.Plan))
	}
}

func (r *Reads) words(size func(int64) string) string {
	return fmt.Sprintf("reads %d files, %s, of the context: %s", r.Files, size(r.Bytes), strings.Join(r.Paths, ", "))
}

// words say as what, where and with which mounts a RUN runs.
func (r *Run) words() []string {
	user := r.User
	if user == "" {
		user = "root"
	}
	first := fmt.Sprintf("as %s in %s, network %s", user, r.Cwd, r.Network)
	if r.Security != "sandbox" {
		first += ", security " + r.Security
	}
	out := []string{first}
	for _, m := range r.Mounts {
		text := fmt.Sprintf("%s on %s", m.Type, m.Target)
		if m.Variable != "" {
			text = fmt.Sprintf("%s as the variable %s", m.Type, m.Variable)
		}
		if m.ID != "" {
			text += ", id " + m.ID
		}
		if m.From > 0 {
			text += fmt.Sprintf(", of step %d", m.From)
		}
		if m.ReadOnly {
			text += ", read-only"
		}
		out = append(out, text)
	}
	return out
}

func planWords(p *plan.Plan) string {
	host, child := p.Count()
	hash, _ := p.Hash()
	return fmt.Sprintf("plan of %d steps, %d by the host and %d by the child: %.19s", host+child, host, child, hash)
}

func numbers(list []int) string {
	var words []string
	for _, n := range list {
		words = append(words, fmt.Sprint(n))
	}
	return strings.Join(words, ", ")
}
