package explain

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strings"

	"glassbox/plan"
)

// WritePolicy prints what a container can reach, as text or JSON.
func WritePolicy(w io.Writer, format string, p *plan.Plan, a About, o TextOptions) error {
	r := Policy(p, a)
	if format == "json" {
		return writeJSON(w, r)
	}
	if o.Width <= 0 {
		o.Width = 100
	}
	t := &paper{script: script{w: w}, TextOptions: o}
	t.refusedOf("", r.Refused)
	t.heading("%s: exposure %s, %s", or(r.Title, "The plan"), r.Grade, r.Meaning)
	t.line("")
	if len(r.Findings) > 0 {
		t.heading("Reasons")
		for _, f := range r.Findings {
			text := f.What
			if f.Why != "" {
				text += ": " + f.Why
			}
			if f.Mend != "" {
				text += "  → " + f.Mend
			}
			t.item(string(f.Severity), text, severityColor(f.Severity))
		}
		t.line("")
	}
	t.rights(r.Rights, false)
	t.heading("syscalls")
	t.item("", fmt.Sprintf("%d of %d system calls whatever their arguments; %d depending on the arguments; %d never", r.Syscalls.Allowed,
		r.Syscalls.Known, len(r.Syscalls.Conditional), len(r.Syscalls.Denied)), "")
	if len(r.Syscalls.Conditional) > 0 {
		t.item("", "depending: "+strings.Join(r.Syscalls.Conditional, " "), "")
	}
	if len(r.Syscalls.Denied) > 0 {
		t.item("", "never: "+strings.Join(r.Syscalls.Denied, " "), "")
	}
	if o.Verbose || !a.Made {
		t.line("")
		t.heading("paths and names of the host in the plan")
		for _, path := range r.HostPaths {
			t.item("", path, "")
		}
	}
	t.line("")
	t.line("%s", t.paint("plan "+r.Plan, dim))
	return t.err
}

func severityColor(s Severity) string {
	return map[Severity]string{Total: "1;31", High: "31", Moderate: "33", Low: "2"}[s]
}

// paper prints headed lists.
type paper struct {
	script
	TextOptions
}

func (t *paper) paint(s, code string) string {
	if !t.Color || code == "" {
		return s
	}
	return "\x1b[" + code + "m" + s + "\x1b[0m"
}

func (t *paper) heading(format string, a ...any) {
	t.line("%s", t.paint(clean(fmt.Sprintf(format, a...)), bold))
}

// refusedOf says that a plan would be refused, if there is a reason.
func (t *paper) refusedOf(whose, why string) {
	if lines := Refusal(whose, why, t.TextOptions); len(lines) > 0 {
		t.line("%s\n", strings.Join(lines, "\n"))
	}
}

func (t *paper) item(label, text, color string) {
	indent := "  "
	if label != "" {
		indent = "  " + fmt.Sprintf("%-9s", label) + " "
	}
	for i, line := range wrap(text, max(20, t.Width-len(indent))) {
		if i == 0 && label != "" {
			t.line("  %s %s", t.paint(fmt.Sprintf("%-9s", label), color), line)
			continue
		}
		t.line("%s%s", strings.Repeat(" ", len(indent)), line)
	}
}

// rights prints rights by area. Calls of the system are told in one line.
func (t *paper) rights(rights []Right, short bool) {
	for _, area := range areas() {
		var words, calls []string
		for _, r := range rights {
			switch {
			case r.Area != area:
			case area == "syscalls":
				calls = append(calls, strings.TrimPrefix(r.What, "call "))
			default:
				words = append(words, r.What)
			}
		}
		if area == "devices" {
			words = mergeDevices(words)
		}
		if len(words)+len(calls) == 0 {
			continue
		}
		t.heading("%s", area)
		for _, w := range words {
			t.item("", w, "")
		}
		if len(calls) > 0 {
			t.item("", fmt.Sprintf("call (%d): %s", len(calls), strings.Join(calls, ", ")), "")
		}
		if !short {
			t.line("")
		}
	}
}

// mergeDevices tells the ways of access to one device in one line.
func mergeDevices(words []string) []string {
	var out []string
	ways := map[string][]string{}
	for _, w := range words {
		for _, way := range []string{"read ", "write to ", "make nodes of "} {
			if object, ok := strings.CutPrefix(w, way); ok {
				if ways[object] == nil {
					out = append(out, object)
				}
				ways[object] = append(ways[object], strings.TrimSpace(way))
			}
		}
	}
	for i, object := range out {
		out[i] = strings.Join(ways[object], ", ") + " " + object
	}
	return out
}

func writeJSON(w io.Writer, v any) error {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetIndent("", "  ")
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return err
	}
	_, err := w.Write(escapeJSON(b.Bytes()))
	return err
}
