package explain

import (
	"fmt"
	"io"
	"strings"
)

// A NetMap is what all networks of a host come to: who is on them, who reaches whom, and by what that is decided.
type NetMap struct {
	Networks []MapNetwork
	From     []string // who asks, in order
	To       []string // who is asked, with port and protocol where it isn't a ping
	Ways     []MapWay
	Left     string // what isn't on the map, and why; empty: all is
}

// A MapNetwork is one network of the host.
type MapNetwork struct {
	Name, Driver string
	About        []string // its bridge or parent, subnets, what is special about it
	Members      []string // its containers that run, with their addresses
}

// A MapWay is the way of one packet.
type MapWay struct {
	From, To string
	Verdict  string // "arrives", "is refused", "is lost", or "nobody listens"
	Why      string
	Decides  string // the rule that ends it, or the last one that lets it pass; empty: no rule has a part in it
	Hops     []MapHop
}

// A MapHop is one thing that it meets.
type MapHop struct {
	Where, What string
	Rules       []string
	Answer      bool
}

// WriteNetMap writes the map as one HTML file that needs nothing else.
func WriteNetMap(w io.Writer, m NetMap) error {
	t := &page{script: script{w: w}}
	t.put(pageHead, "Networks of this host")
	t.line(`<h1>Networks of this host</h1>`)
	t.put(`<p>%s networks, and who reaches whom: each way was gone through the routes and rules that hold now, and nothing was sent.</p>`,
		len(m.Networks))
	if m.Left != "" {
		t.put(`<p class="refused">%s</p>`, m.Left)
	}
	t.line(`<nav><a href="#networks">Networks</a> <a href="#who">Who reaches whom</a> <a href="#ways">Ways</a></nav>`)
	t.line(`<h2 id="networks">Networks</h2><div class="cards">`)
	for _, n := range m.Networks {
		t.put(`<div class="card shared"><b>%s</b><span class="dim">%s</span>`, n.Name, n.Driver)
		for _, about := range n.About {
			t.put(`<br><span class="mono">%s</span>`, name(about))
		}
		for _, member := range n.Members {
			t.put(`<br><span class="child">%s</span>`, member)
		}
		t.line(`</div>`)
	}
	t.line(`</div>`)
	t.reaches(m)
	t.line(`<h2 id="ways">Ways</h2><p class="dim">Each opens to what the packet meets, and by which rules.</p>`)
	for i, way := range m.Ways {
		t.put(`<details id="w%s"><summary><span>%s → %s</span><span class="from %s">%s</span></summary>`, i, way.From, way.To,
			verdictClass(way.Verdict), way.Verdict)
		t.put(`<p class="why">%s</p><table>`, way.Why)
		for _, h := range way.Hops {
			t.put(`<tr><td>%s%s</td><td>%s`, when(h.Answer, "answer: ", ""), h.Where, h.What)
			for _, r := range h.Rules {
				t.put(`<br><code>%s</code>`, r)
			}
			t.line(`</td></tr>`)
		}
		t.line(`</table></details>`)
	}
	t.line(`</body></html>`)
	return t.err
}

// reaches is the table: a row for each who asks, a column for each who is asked.
func (t *page) reaches(m NetMap) {
	t.line(`<h2 id="who">Who reaches whom</h2><p class="dim">From the left to what stands above. Point at a cell for the reason ` +
		`and the rule that decides.</p><div class="matrix"><table><tr><td></td>`)
	for _, to := range m.To {
		t.put(`<td><b>%s</b></td>`, to)
	}
	t.line(`</tr>`)
	at := map[[2]string]int{}
	for i, way := range m.Ways {
		at[[2]string{way.From, way.To}] = i
	}
	for _, from := range m.From {
		t.put(`<tr><td><b>%s</b></td>`, from)
		for _, to := range m.To {
			i, ok := at[[2]string{from, to}]
			if !ok {
				t.line(`<td class="dim">·</td>`)
				continue
			}
			way := m.Ways[i]
			t.put(`<td class="%s" title="%s"><a href="#w%s">%s</a></td>`, verdictClass(way.Verdict),
				way.Why+when(way.Decides != "", " · "+way.Decides, ""), i, verdictMark(way.Verdict))
		}
		t.line(`</tr>`)
	}
	t.line(`</table></div>`)
}

func verdictClass(verdict string) string {
	switch verdict {
	case "arrives":
		return "low"
	case "nobody listens":
		return "moderate"
	}
	return "high"
}

func verdictMark(verdict string) string {
	switch verdict {
	case "arrives":
		return "✓"
	case "nobody listens":
		return "○ nobody listens"
	case "is refused":
		return "✗ refused"
	}
	return "✗ lost"
}

// WriteNetMapText writes the same as a table.
func WriteNetMapText(w io.Writer, m NetMap) error {
	var b strings.Builder
	for _, n := range m.Networks {
		fmt.Fprintf(&b, "%s (%s) %s\n", clean(n.Name), clean(n.Driver), clean(strings.Join(n.About, ", ")))
		for _, member := range n.Members {
			fmt.Fprintf(&b, "  %s\n", clean(member))
		}
	}
	if m.Left != "" {
		fmt.Fprintf(&b, "\n%s\n", clean(m.Left))
	}
	b.WriteString("\n")
	from, to := 4, 2
	for _, way := range m.Ways {
		from, to = max(from, len(way.From)), max(to, len(way.To))
	}
	fmt.Fprintf(&b, "%-*s  %-*s  %-14s  %s\n", from, "FROM", to, "TO", "VERDICT", "BECAUSE")
	for _, way := range m.Ways {
		fmt.Fprintf(&b, "%-*s  %-*s  %-14s  %s%s\n", from, clean(way.From), to, clean(way.To), way.Verdict, clean(way.Why),
			when(way.Decides != "" && !strings.Contains(way.Why, way.Decides), ": "+clean(way.Decides), ""))
	}
	_, err := io.WriteString(w, b.String())
	return err
}
