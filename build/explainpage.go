package build

import (
	"fmt"
	"io"

	"glassbox/explain"
)

// HTML writes the explanation as one page; size writes bytes.
func (e *Explanation) HTML(w io.Writer, size func(int64) string) error {
	p := explain.NewPage(w, e.Dockerfile)
	p.Put(`<h1>%s</h1><p>What a build would do: %s steps, %s of them a RUN. Nothing of it has been done.</p>`, e.Dockerfile, len(e.Steps),
		len(e.Runs()))
	p.Put(`<nav><a href="#stages">Stages</a> <a href="#sources">Begins with</a> <a href="#steps">Steps</a></nav>`)
	p.Put(`<h2 id="stages">Stages</h2><p class="dim">What a stage is made of, and what of it goes into another.</p>`)
	for _, s := range e.Stages {
		p.Put(`<div class="path">`)
		box := func(class, name, text string) { p.Put(`<div class="`+class+`"><b>%s</b><br>%s</div>`, name, text) }
		box("", s.Base, e.what(s.Base, "base"))
		for _, u := range s.Uses {
			box("", u, e.what(u, "files"))
		}
		text := fmt.Sprintf("line %d", s.Line)
		class := "out"
		switch {
		case s.Target:
			text, class = text+", this is built", "in"
		case !s.Needed:
			text, class = text+", not needed: nothing of it is made", ""
		}
		p.Put(`<i>→</i>`)
		box(class, s.Name, text)
		p.Put(`</div>`)
	}
	p.Put(`<h2 id="sources">Begins with</h2><table>`)
	for _, s := range e.Sources {
		p.Put(`<tr><td>%s</td><td>%s</td></tr>`, s.Kind, s.words(size))
	}
	p.Put(`</table><h2 id="steps">Steps</h2>`)
	for _, s := range e.Steps {
		p.Put(`<h3 id="step`+fmt.Sprint(s.Number)+`"><span class="dim">%s</span> <span class="mono">%s</span></h3><p class="dim">`, s.Number,
			s.Name)
		if s.Line > 0 {
			p.Put(`line %s`, s.Line)
		}
		for i, n := range s.Inputs {
			if i == 0 {
				p.Put(` after`)
			}
			p.Put(` <a href="#step`+fmt.Sprint(n)+`">%s</a>`, n)
		}
		p.Put(`</p>`)
		if s.Reads != nil {
			p.Put(`<p>%s</p>`, s.Reads.words(size))
		}
		if s.Run != nil {
			e.runHTML(p, s.Run)
		}
	}
	for _, n := range e.Notes {
		p.Put(`<p class="dim">%s</p>`, n)
	}
	return p.End()
}

// what says what a name is that a stage begins with or takes files from.
func (e *Explanation) what(name, how string) string {
	for _, s := range e.Stages {
		if s.Name == name {
			return "stage, " + how
		}
	}
	return "image, " + how
}

func (e *Explanation) runHTML(p *explain.Page, r *Run) {
	p.Put(`<ul>`)
	for _, text := range r.words() {
		p.Put(`<li>%s</li>`, text)
	}
	p.Put(`</ul>`)
	if r.Plan == nil {
		return
	}
	p.Put(`<details><summary><span><span class="n"></span>%s</span></summary><ol>`, planWords(r.Plan))
	for _, s := range r.Plan.Steps {
		p.Put(`<li class="`+string(s.Lane)+`"><span class="mono">%s</span><br><span class="dim">%s</span></li>`, s.Op.String(), s.Reason)
	}
	p.Put(`</ol></details>`)
}

// Shell writes a script that makes the RUN whose number it is given, by a plan in the words of a shell; script writes one of them.
func (e *Explanation) Shell(w io.Writer, script func(io.Writer, *Run) error) error {
	fmt.Fprint(w, "#!/bin/sh\n# The RUNs of a build as scripts: give the number of a step. What isn't known before, as directories of the "+
		"cache,\n# stands under names that say so.\ncase $1 in\n")
	for _, s := range e.Runs() {
		fmt.Fprintf(w, "%d) # line %d: %s\n", s.Number, s.Line, explain.Clean(s.Name))
		if err := script(w, s.Run); err != nil {
			return err
		}
		fmt.Fprintln(w, ";;")
	}
	_, err := fmt.Fprintln(w, `*) echo "the steps that are a RUN have the numbers`+runNumbers(e)+`" >&2; exit 2;;`+"\nesac")
	return err
}

func runNumbers(e *Explanation) (text string) {
	for _, s := range e.Runs() {
		text += fmt.Sprint(" ", s.Number)
	}
	return text
}
