package explain

import (
	"bytes"
	"fmt"
	"regexp"
	"strings"
	"testing"

	"glassbox/plan"
)

// TestHTML: every step is there, nothing is fetched, nothing runs, and no name in a plan becomes markup.
func TestHTML(t *testing.T) {
	evil := `"><script>alert(1)</script><img src=x onerror=y>`
	p := hostile(t, evil, plan.Host)
	var b bytes.Buffer
	times := &plan.Times{End: int64(len(p.Steps)) * 1000, Clone: 5500, Born: 6000, Host: 7000}
	for i := range p.Steps {
		times.Begin = append(times.Begin, int64(i)*1000)
	}
	if err := Write(&b, "html", p, About{Title: evil, Times: times}, TextOptions{}); err != nil {
		t.Fatal(err)
	}
	page := b.String()
	for i := range p.Steps {
		if !strings.Contains(page, fmt.Sprintf(`<span class="n">%d</span>`, i+1)) {
			t.Errorf("step %d is missing", i+1)
		}
	}
	for _, bad := range []string{"<script", "<img", "onerror=y>", "http:", "https:", "url(", "@import", "%!", "src="} {
		if strings.Contains(strings.ReplaceAll(page, "src=x", ""), bad) {
			t.Errorf("the page has %q in it", bad)
		}
	}
	for _, m := range regexp.MustCompile(`href="([^"]*)"`).FindAllStringSubmatch(page, -1) {
		if m[1] != "data:," && !strings.HasPrefix(m[1], "#") {
			t.Errorf("a link leads to %q", m[1])
		}
	}
	if !strings.Contains(page, ", the slowest<") || strings.Count(page, `class="at"`) < len(p.Steps) {
		t.Error("the times are missing")
	}
	for _, tag := range []string{"div", "details", "table", "dl", "ul", "p", "span", "svg", "rect", "summary"} {
		open, shut := len(regexp.MustCompile(`<`+tag+`[ >]`).FindAllString(page, -1)), strings.Count(page,
			"</"+tag+">")+len(regexp.MustCompile(`<`+tag+`[^>]*/>`).FindAllString(page, -1))
		if open != shut {
			t.Errorf("<%s>: %d are opened, %d closed", tag, open, shut)
		}
	}
}

// TestHTMLFolds: phases fold with their steps, paths break behind slashes, titles keep their quotes.
func TestHTMLFolds(t *testing.T) {
	var b bytes.Buffer
	p := sample()
	if err := Write(&b, "html", p, About{Title: "run busybox sh -c 'echo hi'", Times: sampleTimes()}, TextOptions{}); err != nil {
		t.Fatal(err)
	}
	phases := 0
	for i, s := range p.Steps {
		if i == 0 || p.Steps[i-1].Phase != s.Phase {
			phases++
		}
	}
	for what, want := range map[string]int{
		`<details class="fold" open><summary class="step">`: phases, `<h1>run busybox sh -c &#39;echo hi&#39;</h1>`: 1,
		`/<wbr>sys/<wbr>fs/<wbr>cgroup`: 3,
	} {
		if got := strings.Count(b.String(), what); got < want {
			t.Errorf("%s: got it %d times, want %d", what, got, want)
		}
	}
}

// TestChartIsWhole: the chart has a bar for each moment that the shares below it count, and one of the colour of each share.
func TestChartIsWhole(t *testing.T) {
	p, times := sample(), sampleTimes()
	tracks := stepTracks(p, times, 0)
	colours := map[int]bool{}
	covered := int64(0)
	for covered < times.End {
		next := covered
		for _, tr := range tracks {
			for _, c := range tr.pieces {
				colours[c.colour] = true
				if c.begin <= covered {
					next = max(next, c.end)
				}
			}
		}
		if next == covered {
			t.Fatalf("no bar at %s of %s", duration(covered), duration(times.End))
		}
		covered = next
	}
	prepared := false
	for _, s := range phaseShares(p, times) {
		prepared = prepared || s.What == preparedWords
		if s.Took > 0 && !colours[colourOfShare(s.What)] {
			t.Errorf("%q is counted with %s and has no bar", s.What, duration(s.Took))
		}
	}
	if !prepared {
		t.Fatal("the sample has no time for the child's calls: the test shows nothing")
	}
	for _, c := range tracks[0].pieces {
		if c.colour == plainColour && strings.HasPrefix(c.says, preparedWords) {
			return
		}
	}
	t.Errorf("%q has no bar", preparedWords)
}
