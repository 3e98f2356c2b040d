package explain

import (
	"fmt"
	"slices"

	"glassbox/plan"
)

// track is a line of a chart: what one process did, as coloured pieces of time.
type track struct {
	name   string
	class  string // "host", "child" or ""
	pieces []piece
}

type piece struct {
	colour     int
	begin, end int64
	says       string // for who points at it
}

// Colours of what is no phase; phases have theirs by their order.
const (
	plainColour   = 0
	programColour = 11 // that of the phase in which the program begins
	waitColour    = 12
	otherColour   = 13 // another grey, to tell neighbours apart
)

// colours are the phases in the order of their colours, from 1 on.
func colours() []plan.Phase {
	return []plan.Phase{
		plan.Limits, plan.Sources, plan.Isolation, plan.Network, plan.Rootfs, plan.Mounts, plan.Devices, plan.Kernel, plan.Terminal,
		plan.Privileges, plan.Exec,
	}
}

func colourOf(p plan.Phase) int {
	if i := slices.Index(colours(), p); i >= 0 {
		return i + 1
	}
	return plainColour
}

// colourOfShare finds the colour of what a share is named after.
func colourOfShare(what string) int {
	switch what {
	case waitingWords, tracerWords:
		return waitColour
	case runsWords:
		return programColour
	}
	for _, p := range colours() {
		if title, _ := phase(p); title == what {
			return colourOf(p)
		}
	}
	return plainColour
}

// stepTracks are the two lanes of a plan, from the moment zero of its times on. Every moment that the shares count has a bar: what
// no step takes, a lane waits for the other, or for the processor.
func stepTracks(p *plan.Plan, t *plan.Times, zero int64) []track {
	host, child := track{name: "host", class: "host"}, track{name: "child", class: "child"}
	for i, s := range p.Steps {
		begin, end, ok := t.Span(p, i)
		if !ok {
			continue
		}
		says := fmt.Sprintf("%d %s: %s", i+1, shorten(s.Op.String()), duration(end-begin))
		c := piece{colourOf(s.Phase), begin, end, says}
		if s.Waits() {
			c.colour = waitColour
		}
		to := &child
		if s.Lane == plan.Host {
			to = &host
		}
		if _, ok := s.Op.(*plan.Clone); ok && s.Lane == plan.Host && t.Born > t.Clone && t.Clone > begin {
			// The child's calls are made ready before there is one: the shares count it by itself, and so it has a bar of its own.
			to.pieces = append(to.pieces, piece{plainColour, begin, t.Clone, preparedWords + ": " + duration(t.Clone-begin)})
			c.begin = t.Clone
		}
		to.pieces = append(to.pieces, c)
	}
	host.pieces = filled(host.pieces, 0, t.End, zero)
	if len(child.pieces) > 0 {
		child.pieces = filled(child.pieces, max(t.Born, 0), t.End, zero)
	}
	return []track{host, child}
}

// filled puts bars that wait into the gaps of a lane, and moves all by zero.
func filled(pieces []piece, from, to, zero int64) []piece {
	var out []piece
	wait := func(begin, end int64) {
		if end > begin {
			out = append(out, piece{waitColour, zero + begin, zero + end, waitingWords + ": " + duration(end-begin)})
		}
	}
	for _, c := range pieces {
		wait(from, c.begin)
		from = max(from, c.end)
		out = append(out, piece{c.colour, zero + c.begin, zero + c.end, c.says})
	}
	wait(from, to)
	return out
}

// chart draws tracks below one another. The pictures hold no text, which would be stretched with them.
func (t *page) chart(tracks []track, from, to int64) {
	all := float64(max(to-from, 1))
	t.line(`<div class="chart">`)
	for _, tr := range tracks {
		t.put(`<div class="name `+tr.class+`">%s</div>`, tr.name)
		t.line(`<svg viewBox="0 0 10000 100" preserveAspectRatio="none" style="height:1.6rem" role="img" aria-label="%s">`, esc(tr.name))
		for _, c := range tr.pieces {
			x, w := 10000*float64(c.begin-from)/all, 10000*float64(c.end-c.begin)/all
			y, h := 0, 100
			if c.colour == waitColour {
				y, h = 30, 40
			}
			// A piece of no width would not be seen at all: four of ten thousand is a line.
			t.put(`<rect class="k%s" x="%s" y="%s" width="%s" height="%s"><title>%s</title></rect>`, c.colour, fmt.Sprintf("%.1f", x), y,
				fmt.Sprintf("%.1f", max(w, 4)), h, c.says)
		}
		t.line(`</svg>`)
	}
	t.line(`<div class="axis">`)
	unit := int64(1)
	for _, u := range []int64{1e3, 1e4, 1e5, 2e5, 5e5, 1e6, 2e6, 5e6, 1e7, 2e7, 5e7, 1e8, 2e8, 5e8, 1e9, 1e10, 1e11, 1e12} {
		unit = u
		// Six marks at most: more would stand in one another on a narrow screen.
		if float64(u)*6 >= all {
			break
		}
	}
	for at := int64(0); at < to-from; at += unit {
		// The last tenth is left out, where a mark's text would stick out of the page.
		if float64(at) <= all*0.9 {
			t.line(`<span style="left:%.2f%%">%s</span>`, 100*float64(at)/all, axisTime(at))
		}
	}
	t.line(`</div></div>`)
}

// axisTime writes a round time without the digits that are 0.
func axisTime(ns int64) string {
	for _, u := range []struct {
		size int64
		name string
	}{{1e9, "s"}, {1e6, "ms"}, {1e3, "µs"}} {
		if ns >= u.size {
			return fmt.Sprintf("%g %s", float64(ns)/float64(u.size), u.name)
		}
	}
	return "0"
}

// shares is a list of what took how long, with bars.
func (t *page) shares(list []Share, all int64) {
	most := int64(1)
	for _, s := range list {
		most = max(most, s.Took)
	}
	for _, s := range list {
		t.put(`<div class="share"><span>%s</span><span>%s %%</span><span><svg class="key" viewBox="0 0 10 10" aria-hidden="true"><rect `+
			`class="k%s" width="10" height="10"/></svg>%s</span>`,
			duration(s.Took), fmt.Sprintf("%.0f", 100*float64(s.Took)/float64(max(all, 1))), colourOfShare(s.What), s.What)
		t.put(`<svg viewBox="0 0 1000 10" preserveAspectRatio="none" aria-hidden="true"><rect class="k%s" width="%s" height="10"/></svg></div>`,
			colourOfShare(s.What), fmt.Sprintf("%.1f", 1000*float64(s.Took)/float64(most)))
	}
	t.put(`<div class="share sum"><span>%s</span><span>100 %%</span><span>in all</span></div>`, duration(all))
}

// took writes how long a step took.
func (t *page) took(p *plan.Plan, i int) {
	if t.times == nil {
		return
	}
	if begin, end, ok := t.times.Span(p, i); ok {
		words := when(p.Steps[i].Waits(), "waits ", "") + duration(end-begin)
		t.put(` <span class="took`+when(i == t.slowest, " slowest", "")+`">%s</span>`, words+when(i == t.slowest, ", the slowest", ""))
	}
}

// place draws where in the start's time a step was.
func (t *page) place(p *plan.Plan, i int) {
	if t.times == nil {
		return
	}
	if begin, end, ok := t.times.Span(p, i); ok {
		all := float64(max(t.times.End, 1))
		t.put(`<svg class="at" viewBox="0 0 1000 10" preserveAspectRatio="none" aria-hidden="true"><rect class="k%s" x="%s" width="%s" `+
			`height="10"/></svg>`,
			colourOf(p.Steps[i].Phase), fmt.Sprintf("%.1f", 1000*float64(begin)/all), fmt.Sprintf("%.1f", max(1000*float64(end-begin)/all, 3)))
	}
}
