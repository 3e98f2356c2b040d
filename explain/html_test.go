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
		open, shut := len(regexp.MustCompile(`<`+tag+`[ >]`).FindAllString(page, -1)), strings.Count(page, "</"+tag+">")+len(regexp.MustCompile(`<`+tag+`[^>]*/>`).FindAllString(page, -1))
		if open != shut {
			t.Errorf("<%s>: %d are opened, %d closed", tag, open, shut)
		}
	}
}
