package explain

import (
	"bytes"
	"encoding/json"
	"os/exec"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"glassbox/plan"
)

// obeyed are characters that a terminal obeys or that deceive who reads them, of each kind.
const obeyed = "a\x1b[2J\r\a\b\x7f\u0085\u009b31m\u00ad\u061c\u200b\u200f\u2028\u202e\u2066\u2069\ufeff\U000e0041z"

// TestNothingIsObeyed fills each string of a plan, and all that is told beside it, with such characters: no format passes one on.
func TestNothingIsObeyed(t *testing.T) {
	about := About{
		Title: obeyed, Image: obeyed, Name: obeyed, Labels: []string{obeyed + "=" + obeyed}, Ports: []string{obeyed},
		Flags: []string{"--env=" + obeyed}, Command: []string{obeyed},
		Made: true, Refused: obeyed,
	}
	p := hostile(t, obeyed, plan.Host, plan.Child)
	outputs := map[string]func(b *bytes.Buffer) error{
		"policy text": func(b *bytes.Buffer) error { return WritePolicy(b, "text", p, about, TextOptions{Color: false}) },
		"policy json": func(b *bytes.Buffer) error { return WritePolicy(b, "json", p, about, TextOptions{}) },
		"diff text": func(b *bytes.Buffer) error {
			return WriteDiff(b, "text", Diff(sample(), p, about, about), TextOptions{})
		},
		"diff json": func(b *bytes.Buffer) error {
			return WriteDiff(b, "json", Diff(sample(), p, about, about), TextOptions{})
		},
	}
	for _, format := range Formats() {
		for _, made := range []bool{true, false} {
			a := about
			a.Made = made
			outputs[format+" "+when(made, "made", "other")] = func(b *bytes.Buffer) error {
				return Write(b, format, p, a,
					TextOptions{Verbose: true})
			}
		}
	}
	for name, write := range outputs {
		var b bytes.Buffer
		if err := write(&b); err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if !utf8.Valid(b.Bytes()) {
			t.Errorf("%s: it is no UTF-8", name)
		}
		for _, line := range strings.Split(b.String(), "\n") {
			if i := strings.IndexFunc(line, func(r rune) bool { return r != '\t' && deceives(r) }); i >= 0 {
				t.Errorf("%s: %q is passed on in the line %q", name, line[i:min(len(line), i+4)], line[max(0, i-60):min(len(line), i+20)])
				break
			}
		}
	}
}

// TestKeptExact: what machines read is the same as before.
func TestKeptExact(t *testing.T) {
	p := hostile(t, obeyed, plan.Host, plan.Child)
	for _, s := range p.Steps {
		if o, ok := s.Op.(*plan.Execve); ok {
			o.Env = nil // it has bytes that are no UTF-8, for which JSON has no place
		}
	}
	var b bytes.Buffer
	if err := JSON(&b, p, About{}); err != nil {
		t.Fatal(err)
	}
	var back plan.Plan
	if err := json.Unmarshal(b.Bytes(), &back); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(p, &back); d != "" {
		t.Errorf("the plan that JSON gives back is another (-want +got):\n%s", d)
	}
	for _, word := range []string{obeyed, "\x9b31m", "\xff\xfe", "a'b\x1b'", "new\nline\ttab", "\u202e'"} {
		for _, shell := range []string{"sh", "bash"} {
			out, err := exec.Command(shell, "-c", "printf %s "+quote(word)).Output()
			if err != nil || string(out) != word {
				t.Errorf("%s: %q came out as %q, %v", shell, word, out, err)
			}
		}
	}
}
