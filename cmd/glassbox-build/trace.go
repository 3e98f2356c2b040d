package main

import (
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/moby/buildkit/client"
	digest "github.com/opencontainers/go-digest"
)

// timeTable notes when the steps of a build were made, and which of them came from the cache.
type timeTable struct {
	began time.Time
	rows  map[digest.Digest]*timeRow
}

type timeRow struct {
	name   string
	cached bool
	failed bool
	spans  [][2]time.Time // a step may be begun several times: its lookup in the cache, then the work
}

// note notes what is told of a step.
func (t *timeTable) note(v *client.Vertex) {
	r := t.rows[v.Digest]
	if r == nil {
		r = &timeRow{}
		t.rows[v.Digest] = r
	}
	r.name, r.cached, r.failed = v.Name, r.cached || v.Cached, v.Error != ""
	if v.Started == nil {
		return
	}
	end := *v.Started
	if v.Completed != nil {
		end = *v.Completed
	}
	for i := range r.spans {
		if r.spans[i][0].Equal(*v.Started) {
			r.spans[i][1] = end
			return
		}
	}
	r.spans = append(r.spans, [2]time.Time{*v.Started, end})
}

// write writes the table: each step with its beginning after the build's, how long it took, and a bar.
func (t *timeTable) write(w io.Writer) {
	var rows []*timeRow
	last := t.began
	for _, r := range t.rows {
		if len(r.spans) == 0 {
			continue
		}
		rows = append(rows, r)
		if end := r.spans[len(r.spans)-1][1]; end.After(last) {
			last = end
		}
	}
	slices.SortFunc(rows, func(a, b *timeRow) int { return a.spans[0][0].Compare(b.spans[0][0]) })
	whole := max(last.Sub(t.began), time.Millisecond)
	cached := 0
	fmt.Fprintf(w, "%9s %9s  %-40s  %-6s  step\n", "begins", "takes", "", "")
	for _, r := range rows {
		took := time.Duration(0)
		bar := []byte(strings.Repeat(".", 40))
		for _, s := range r.spans {
			took += s[1].Sub(s[0])
			from, to := int(40*s[0].Sub(t.began)/whole), int(40*s[1].Sub(t.began)/whole)
			for i := max(from, 0); i <= min(to, 39); i++ {
				bar[i] = '#'
			}
		}
		mark := ""
		switch {
		case r.failed:
			mark = "failed"
		case r.cached:
			mark = "cached"
			cached++
		}
		fmt.Fprintf(w, "%9s %9s  %s  %-6s  %s\n", round(r.spans[0][0].Sub(t.began)), round(took), bar, mark, printableName(r.name))
	}
	fmt.Fprintf(w, "%d steps in %s, %d of them from the cache\n", len(rows), round(whole), cached)
}

func round(d time.Duration) time.Duration { return max(d, 0).Round(time.Millisecond) }

// printableName keeps what a Dockerfile says from moving the cursor of a terminal.
func printableName(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, s)
}

// writeFile writes the table into a file.
func (t *timeTable) writeFile(name string, umask os.FileMode) error {
	f, err := create(name, umask)
	if err != nil {
		return fmt.Errorf("--trace: %w", err)
	}
	t.write(f)
	return f.Close()
}
