package explain

import (
	"strings"
	"testing"
)

// TestNetMapHostile: names and rules come from others, and the page has none of their markup.
func TestNetMapHostile(t *testing.T) {
	const bad = `<script>alert(1)</script>"'&` + "\x1b[31m\n"
	m := NetMap{
		Networks: []MapNetwork{{Name: bad, Driver: bad, About: []string{bad}, Members: []string{bad}}},
		From:     []string{bad, "host"}, To: []string{bad, "web:80"}, Left: bad,
		Ways: []MapWay{
			{From: bad, To: "web:80", Verdict: "is lost", Why: bad, Decides: bad, Hops: []MapHop{{Where: bad, What: bad, Rules: []string{bad}}}},
			{From: "host", To: "web:80", Verdict: "arrives", Why: "it arrives at web", Decides: "accept"},
		},
	}
	var page, text strings.Builder
	if err := WriteNetMap(&page, m); err != nil {
		t.Fatal(err)
	}
	if err := WriteNetMapText(&text, m); err != nil {
		t.Fatal(err)
	}
	if got := page.String(); strings.Contains(got, "<script") || strings.Contains(got, "\x1b") || !strings.Contains(got, "&lt;script&gt;") {
		t.Errorf("the page has markup of a name:\n%s", got)
	}
	if strings.Contains(text.String(), "\x1b") {
		t.Errorf("the text has a control character: %q", text.String())
	}
	for _, want := range []string{
		`href="#w1">✓</a>`, `<td class="dim">·</td>`, `title="it arrives at web · accept"`, `id="w1"`, "✗ lost",
	} {
		if !strings.Contains(page.String(), want) {
			t.Errorf("the page has no %q:\n%s", want, page.String()[strings.Index(page.String(), "<body>"):])
		}
	}
}
