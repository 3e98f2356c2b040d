package build

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"glassbox/explain"
)

func TestWhy(t *testing.T) {
	run := func(text string, key Hash, edit func(*Made)) Made {
		m := Made{
			Spot: Spot{Stage: "base", Number: 2, Line: 3, File: "Dockerfile", Text: text}, Key: key,
			Facts: map[string]string{"USER": "", "variable A": "1"},
		}
		if edit != nil {
			edit(&m)
		}
		return m
	}
	from := Made{Spot: Spot{Stage: "base", Number: 1, Line: 1, Text: "FROM x"}, Key: "from"}
	file := File{Size: 1, Mtime: 1, Hash: "h"}
	inputs := func(m Made, args map[string]Hash, files map[string]File) *Inputs {
		return &Inputs{Version: InputsVersion, Args: args, Files: files, Steps: []Made{from, m}}
	}
	copies := func(paths ...string) func(*Made) {
		return func(m *Made) { m.Context = paths }
	}
	before := inputs(run("RUN a", "k", copies("src")), map[string]Hash{"A": "1"}, map[string]File{
		"src/same": file, "src/touched": file, "src/other": file, "src/gone": file, "src/mode": file, "else": file,
		"src/unread": {Size: 1, Mtime: 1},
	})
	files := map[string]File{
		"src/same": file, "src/touched": {Size: 1, Mtime: 2, Hash: "h"}, "src/other": {Size: 1, Mtime: 1, Hash: "i"}, "src/new": file,
		"src/mode": {Size: 1, Mtime: 1, Hash: "h", Mode: 1}, "else": {Size: 2}, "src/unread": {Size: 1, Mtime: 2},
	}
	for name, c := range map[string]struct {
		made  Made
		in    *Inputs
		was   *Inputs
		req   Request
		anew  map[Hash]Spot
		wants string
	}{
		"no cache": {made: run("RUN a", "k", nil), was: before, req: Request{NoCache: true}, wants: "--no-cache"},
		"no cache stage": {
			made: run("RUN a", "k", nil), was: before, req: Request{NoCacheFilter: []string{"BASE"}}, wants: "--no-cache-filter base",
		},
		"first":       {made: run("RUN a", "k", nil), wants: "no earlier build"},
		"pruned":      {made: run("RUN a", "k", nil), was: before, wants: "nothing of it changed"},
		"words":       {made: run("RUN b", "l", nil), was: before, wants: "it was: RUN a"},
		"new":         {made: run("COPY b", "l", nil), was: before, wants: "it is new"},
		"other stage": {made: run("RUN a", "k", func(m *Made) { m.Stage = "other" }), was: before, wants: "it is new"},
		"moved":       {made: run("RUN a", "k", func(m *Made) { m.Number = 7 }), was: before, wants: "nothing of it changed"},
		"user":        {made: run("RUN a", "l", func(m *Made) { m.Facts["USER"] = "x" }), was: before, wants: "USER changed"},
		"variable":    {made: run("RUN a", "l", func(m *Made) { m.Facts["variable A"] = "2" }), was: before, wants: "variable A changed"},
		"argument": {
			made: run("RUN a", "l", func(m *Made) { m.Facts["variable A"] = "2" }), in: inputs(from, map[string]Hash{"A": "2"}, nil), was: before,
			wants: "variable A, by --build-arg, changed",
		},
		"files": {
			made: run("RUN a", "k", copies("src")), in: inputs(from, nil, files), was: before,
			wants: "changed in the context: src/gone (gone), src/mode (its mode), src/new (new), src/other, src/unread",
		},
		"files elsewhere": {made: run("RUN a", "k", copies("lib")), in: inputs(from, nil, files), was: before, wants: "nothing of it changed"},
		"follows": {
			made: run("RUN a", "k", func(m *Made) { m.Inputs = []Hash{"p"} }), was: before,
			anew: map[Hash]Spot{"p": {Line: 2, Text: "RUN p"}}, wants: "it follows line 2 (RUN p), which was made anew",
		},
		"another base": {
			made: run("RUN a", "l", func(m *Made) { m.Inputs = []Hash{"from"} }), was: before,
			wants: "it follows line 1 (FROM x), which is another",
		},
	} {
		in := c.in
		if in == nil {
			in = inputs(c.made, before.Args, before.Files)
		}
		if got := in.Why(&c.made, c.was, &c.req, c.anew); !strings.HasPrefix(got, c.wants) {
			t.Errorf("%s: got %q, want %q", name, got, c.wants)
		}
	}
}

func TestCovers(t *testing.T) {
	for _, c := range []struct {
		source, name string
		want         bool
	}{
		{".", "a/b", true},
		{"/", "a", true},
		{"", "a", true},
		{"src", "src/a", true},
		{"src/", "src", true},
		{"src", "srcs/a", false},
		{"s*", "src/a", true},
		{"*.go", "a.go", true},
		{"*.go", "d/a.go", false},
		{"d/*.go", "d/a.go", true},
		{"d/*.go", "d", false},
		{"a[b", "a[b", true},
		{"../x", "x", true},
	} {
		if got := covers(c.source, c.name); got != c.want {
			t.Errorf("%q of %q: %v", c.name, c.source, got)
		}
	}
}

// TestTraceHostile has a Dockerfile's words in all places of a trace: none becomes markup or an order to a terminal.
func TestTraceHostile(t *testing.T) {
	bad := "<script>alert(1)</script>\x1b[2J&\""
	tr := &Trace{Build: bad, Took: 10, Failed: bad, Notes: []string{bad}, Steps: []TraceStep{
		{
			Spot: Spot{File: bad, Line: 1, Text: bad}, Name: bad, Spans: [][2]int64{{0, 10}}, Why: bad, StartTook: 5,
			Start: []explain.Share{{What: bad, Took: 5}}, Plan: bad,
		},
		{Name: bad, Spans: [][2]int64{{0, 0}}, Cached: true},
		{Name: bad, Spans: [][2]int64{{5, 5}, {7, 9}}, Failed: true},
	}}
	for _, format := range []string{"html", "json", "txt"} {
		var b bytes.Buffer
		if err := tr.Write(&b, format); err != nil {
			t.Fatal(err)
		}
		if strings.Contains(b.String(), "\x1b") || format == "html" && strings.Contains(b.String(), "<script") {
			t.Errorf("%s: %s", format, b.String())
		}
		if n := strings.Count(b.String(), "alert(1)"); n < 5 {
			t.Errorf("%s: the words are there %d times", format, n)
		}
	}
	if got := fmt.Sprint(tr.cached()); got != "1" {
		t.Errorf("%s from the cache", got)
	}
}
