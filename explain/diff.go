package explain

import (
	"fmt"
	"io"

	"glassbox/plan"
)

// A Difference says what each of two containers may do that the other may not.
type Difference struct {
	Version int        `json:"version"`
	A       Side       `json:"a"`
	B       Side       `json:"b"`
	Same    bool       `json:"same"` // the plans are the same, byte for byte
	OnlyA   []Right    `json:"onlyA"`
	OnlyB   []Right    `json:"onlyB"`
	Other   []Contrast `json:"other"` // what differs and gives neither a right
}

// Side names one of the two.
type Side struct {
	Title   string `json:"title"`
	Plan    string `json:"plan"`
	Grade   string `json:"grade"`
	Refused string `json:"refused,omitempty"` // why it would not run here (see About)
}

// Contrast is a thing that both have, each its own.
type Contrast struct {
	What string `json:"what"`
	A    string `json:"a"`
	B    string `json:"b"`
}

// Diff compares what two plans allow.
func Diff(a, b *plan.Plan, aboutA, aboutB About) *Difference {
	va, vb := Read(a), Read(b)
	ra, rb := va.rights(), vb.rights()
	gradeA, _ := grade(va.findings())
	gradeB, _ := grade(vb.findings())
	d := &Difference{
		Version: 1, A: Side{aboutA.Title, va.Hash, gradeA, aboutA.Refused}, B: Side{aboutB.Title, vb.Hash, gradeB, aboutB.Refused},
		Same:  va.Hash == vb.Hash,
		OnlyA: more(ra, rb), OnlyB: more(rb, ra), Other: []Contrast{},
	}
	for _, asp := range aspects() {
		// What gives a right is among the rights already; these are what else there is.
		switch asp.name {
		case "command", "env", "cwd", "umask", "terminal", "user", "groups", "hostname", "domainname", "root", "rootoptions", "address",
			"sysctls", "shares", "reservation", "swappiness", "blkio", "otherlimits", "cpumems", "proc", "made", "shm", "capsets",
			"userns", "timens":
			x, y := asp.say(va), asp.say(vb)
			for _, line := range onlyIn(x, y) {
				d.Other = append(d.Other, Contrast{What: asp.name, A: clean(line)})
			}
			for _, line := range onlyIn(y, x) {
				d.Other = append(d.Other, Contrast{What: asp.name, B: clean(line)})
			}
		}
	}
	return d
}

func onlyIn(a, b []string) []string {
	has := map[string]bool{}
	for _, s := range b {
		has[s] = true
	}
	var out []string
	for _, s := range a {
		if !has[s] {
			out = append(out, s)
		}
	}
	return out
}

// WriteDiff prints the difference as text or JSON.
func WriteDiff(w io.Writer, format string, d *Difference, o TextOptions) error {
	if format == "json" {
		return writeJSON(w, d)
	}
	if o.Width <= 0 {
		o.Width = 100
	}
	t := &paper{script: script{w: w}, TextOptions: o}
	t.line("A  %s  (exposure %s, plan %s)", clean(d.A.Title), d.A.Grade, short(d.A.Plan))
	t.line("B  %s  (exposure %s, plan %s)", clean(d.B.Title), d.B.Grade, short(d.B.Plan))
	t.line("")
	t.refusedOf("A: ", d.A.Refused)
	t.refusedOf("B: ", d.B.Refused)
	if d.Same {
		t.line("They are the same plan.")
		return t.err
	}
	for _, side := range []struct {
		name, other string
		rights      []Right
	}{{"A", "B", d.OnlyA}, {"B", "A", d.OnlyB}} {
		if len(side.rights) == 0 {
			t.line("%s", t.paint(fmt.Sprintf("%s may do nothing that %s may not.", side.name, side.other), bold))
		} else {
			t.line("%s", t.paint(fmt.Sprintf("What %s may and %s may not:", side.name, side.other), "1;4"))
			t.rights(side.rights, true)
		}
		t.line("")
	}
	if len(d.Other) > 0 {
		t.heading("Also different")
		for _, c := range d.Other {
			if c.A != "" {
				t.item("A", c.A, host)
			} else {
				t.item("B", c.B, child)
			}
		}
	}
	return t.err
}

func short(hash string) string {
	if len(hash) > 19 {
		return hash[:19] + "…"
	}
	return hash
}
