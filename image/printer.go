package image

import (
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Printer shows a pull to a person: bars redrawn in place on a terminal, one line per step elsewhere, in words that people
// and scripts know from Docker. Give its Event method to [PullOptions].Progress and call Close at the end.
type Printer struct {
	mu     sync.Mutex
	w      io.Writer
	size   func() (width, height int) // nil: not a terminal
	now    func() time.Time
	order  []string
	layers map[string]Event
	drawn  int // lines on the screen that the next drawing replaces
	push   bool
	last   time.Time
}

// redrawEvery spares slow terminals; a change of state is drawn at once.
const redrawEvery = 80 * time.Millisecond

// NewPrinter prints to w; it draws bars if w is a terminal.
func NewPrinter(w io.Writer) *Printer {
	p := &Printer{w: w, now: time.Now, layers: map[string]Event{}}
	// A dumb terminal knows no movements of its cursor.
	if f, ok := w.(*os.File); ok && os.Getenv("TERM") != "dumb" {
		fd := int(f.Fd())
		if _, err := unix.IoctlGetTermios(fd, unix.TCGETS); err == nil {
			p.size = func() (int, int) {
				ws, err := unix.IoctlGetWinsize(fd, unix.TIOCGWINSZ)
				if err != nil || ws.Col == 0 {
					return 80, 24
				}
				return int(ws.Col), int(ws.Row)
			}
		}
	}
	return p
}

// Event takes one step of a pull.
func (p *Printer) Event(e Event) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch e.State {
	case Pulling:
		p.line(fmt.Sprintf("%s: Pulling from %s", e.Tag, e.Name))
		return
	case Pushing:
		p.push = true
		p.line(fmt.Sprintf("The push refers to repository [%s]", e.Ref))
		return
	case Warned:
		p.draw()
		p.drawn = 0
		p.line("Warning: " + harmless(e.Text))
		// What follows is below the bars, which are not drawn again.
		return
	case Finished:
		p.draw()
		p.drawn = 0
		if p.push {
			p.line(fmt.Sprintf("%s: digest: %s size: %d", e.Tag, e.Digest, e.Total))
			return
		}
		p.line("Digest: " + e.Digest)
		if e.Current {
			p.line("Status: Image is up to date for " + e.Ref)
		} else {
			p.line("Status: Downloaded newer image for " + e.Ref)
		}
		return
	}
	old, known := p.layers[e.Layer]
	p.layers[e.Layer] = e
	if !known {
		p.order = append(p.order, e.Layer)
	}
	changed := !known || old.State != e.State
	if p.size == nil {
		if text := p.plainWord(e); changed && text != "" {
			p.line(shortDigest(e.Layer) + ": " + text)
		}
		return
	}
	if changed || p.now().Sub(p.last) >= redrawEvery {
		p.draw()
	}
}

// Close leaves the screen in order, also when a pull failed half-way.
func (p *Printer) Close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.drawn > 0 {
		p.draw()
		p.drawn = 0
	}
}

// plainWord is what a state is called without a terminal; moving states are not mentioned.
func (p *Printer) plainWord(e Event) string {
	if p.push {
		switch e.State {
		case Waiting:
			return "Preparing"
		case Exists:
			return "Layer already exists"
		case Mounted:
			return "Mounted from " + e.Name
		case Done:
			return "Pushed"
		}
		return ""
	}
	switch e.State {
	case Waiting:
		return "Pulling fs layer"
	case Exists:
		return "Already exists"
	case Done:
		return "Pull complete"
	}
	return ""
}

func (p *Printer) line(s string) { fmt.Fprintln(p.w, s) }

func (p *Printer) draw() {
	if p.size == nil || len(p.order) == 0 {
		return
	}
	width, height := p.size()
	p.last = p.now()
	var lines []string
	for _, id := range p.order {
		lines = append(lines, p.layerLine(p.layers[id], width))
	}
	// What does not fit on the screen cannot be redrawn: show what moves.
	if room := max(height-2, 1); len(lines) > room {
		var busy []string
		rest := 0
		for i, id := range p.order {
			switch s := p.layers[id].State; {
			case (s == Downloading || s == Extracting || s == Uploading) && len(busy) < room-1:
				busy = append(busy, lines[i])
			case s != Done && s != Exists && s != Mounted:
				rest++
			}
		}
		lines = append(busy, clip(fmt.Sprintf("%d layers, %d to come", len(p.order), rest), width))
	}
	var b strings.Builder
	// Up to the first of the lines that are replaced, each of which is cleared to its end (ECMA-48: CUU, EL, ED).
	if p.drawn > 0 {
		fmt.Fprintf(&b, "\x1b[%dA", p.drawn)
	}
	for _, l := range lines {
		b.WriteString("\r" + l + "\x1b[K\n")
	}
	if len(lines) < p.drawn {
		b.WriteString("\x1b[J")
	}
	p.drawn = len(lines)
	io.WriteString(p.w, b.String())
}

func (p *Printer) layerLine(e Event, width int) string {
	id := shortDigest(e.Layer)
	switch e.State {
	case Downloading, Extracting, Uploading:
		word := "Downloading"
		switch e.State {
		case Extracting:
			word = "Extracting"
		case Uploading:
			word = "Pushing"
		}
		amount := fmt.Sprintf("%s/%s", humanBytes(e.Done), humanBytes(e.Total))
		head := fmt.Sprintf("%s: %-11s ", id, word)
		room := min(width-1-len(head)-len(amount)-3, 50)
		if room < 8 {
			return clip(head+amount, width)
		}
		return head + bar(e.Done, e.Total, room) + " " + amount
	case Waiting:
		return clip(id+": Waiting", width)
	}
	return clip(id+": "+p.plainWord(e), width)
}

// Bar draws how far a layer is in characters, as Docker's daemon does for clients that don't draw themselves.
func (e Event) Bar() string {
	return bar(e.Done, e.Total, 50) + "  " + humanBytes(e.Done) + "/" + humanBytes(e.Total)
}

func bar(done, total int64, width int) string {
	full := width
	if total > 0 {
		full = int(float64(width) * float64(min(done, total)) / float64(total))
	}
	if full >= width {
		return "[" + strings.Repeat("=", width) + "]"
	}
	return "[" + strings.Repeat("=", full) + ">" + strings.Repeat(" ", width-full-1) + "]"
}

func clip(s string, width int) string {
	if width > 1 && len(s) > width-1 {
		return s[:width-1]
	}
	return s
}

func shortDigest(d string) string {
	h := hexOf(d)
	return h[:min(12, len(h))]
}

func humanBytes(n int64) string {
	switch {
	case n >= 1e9:
		return fmt.Sprintf("%.2fGB", float64(n)/1e9)
	case n >= 1e6:
		return fmt.Sprintf("%.1fMB", float64(n)/1e6)
	case n >= 1e3:
		return fmt.Sprintf("%.1fkB", float64(n)/1e3)
	}
	return fmt.Sprintf("%dB", n)
}
