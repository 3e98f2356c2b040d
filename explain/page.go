package explain

import (
	"io"

	"glassbox/plan"
)

// Page is an HTML page in the style of the others, about something else than one plan: a build. It has no script, no picture, no font and
// makes no request.
type Page struct{ page page }

// NewPage begins a page.
func NewPage(w io.Writer, title string) *Page {
	p := &Page{page{script: script{w: w}}}
	p.page.put(pageHead, title)
	return p
}

// Put writes markup of our own, with %s for each argument, which is text from anywhere.
func (p *Page) Put(format string, a ...any) { p.page.put(format, a...) }

// Shares writes where a time went, of which all is the whole.
func (p *Page) Shares(list []Share, all int64) { p.page.shares(list, all) }

// End ends the page, and returns the first error of writing it.
func (p *Page) End() error {
	p.page.line("</body></html>")
	return p.page.err
}

// Duration writes nanoseconds with three digits that count.
func Duration(ns int64) string { return duration(ns) }

// Phases divide the time from a plan's first step until its program ran, longest first.
func Phases(p *plan.Plan, t *plan.Times) []Share { return phaseShares(p, t) }
