package main

import (
	"bufio"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/moby/buildkit/client"
	digest "github.com/opencontainers/go-digest"
	"github.com/tonistiigi/fsutil"
	"golang.org/x/sys/unix"

	"glassbox/build"
	"glassbox/explain"
)

// timeTable notes when the steps of a build were made, and which of them came from the cache.
type timeTable struct {
	began time.Time
	rows  map[digest.Digest]*timeRow
}

type timeRow struct {
	digest digest.Digest
	name   string
	cached bool
	failed bool
	spans  [][2]time.Time // a step may be begun several times: its lookup in the cache, then the work
}

func newTimeTable() *timeTable {
	return &timeTable{began: time.Now(), rows: map[digest.Digest]*timeRow{}}
}

// note notes what is told of a step.
func (t *timeTable) note(v *client.Vertex) {
	r := t.rows[v.Digest]
	if r == nil {
		r = &timeRow{digest: v.Digest}
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
		// A step is told when it begins and again when it ends, with the same beginning.
		if r.spans[i][0].Equal(*v.Started) {
			r.spans[i][1] = end
			return
		}
	}
	r.spans = append(r.spans, [2]time.Time{*v.Started, end})
}

// recorder compares a build with the one before it, and writes down what the next one is compared with.
type recorder struct {
	place
	request *build.Request
	watch   *watch
	table   *timeTable
	noted   *notedFS // nil: the context is no directory
}

// newRecorder puts itself between a build and its context. end ends the build.
func newRecorder(p place, r *build.Request, w *watch, o *client.SolveOpt, end func(error)) *recorder {
	rec := &recorder{place: p, request: r, watch: w, table: newTimeTable()}
	if dir, ok := o.LocalMounts["context"]; ok && r.Call == "" {
		rec.noted = &notedFS{FS: dir, seen: map[string]build.File{}, where: p.dir(), refuse: end}
		var st unix.Statfs_t
		if unix.Statfs(p.Root, &st) == nil {
			rec.noted.room = int64(st.Bavail) * st.Bsize
		}
		o.LocalMounts["context"] = fsutil.FS(rec.noted)
	}
	return rec
}

// over is called when the build is over: err is how. It writes what --trace asks for.
func (rec *recorder) over(err error) error {
	if rec.request.Call != "" {
		return nil
	}
	before := rec.before(rec.request)
	in := rec.watch.inputs(rec.request, rec.noted, before)
	if err == nil {
		rec.remember(rec.request, in)
	}
	if rec.request.Trace == "" {
		return nil
	}
	t := rec.trace(in, before)
	if err != nil {
		t.Failed = strings.TrimSpace(err.Error())
	}
	f, werr := create(rec.request.Trace, rec.request.Umask)
	if werr == nil {
		w := bufio.NewWriter(f)
		werr = errors.Join(t.Write(w, strings.TrimPrefix(filepath.Ext(rec.request.Trace), ".")), w.Flush(), f.Close())
	}
	if werr != nil {
		return fmt.Errorf("--trace: %w", werr)
	}
	return nil
}

// trace puts together what was seen.
func (rec *recorder) trace(in, before *build.Inputs) *build.Trace {
	w := rec.watch
	t := &build.Trace{Build: "glassbox build " + rec.request.Context}
	if len(w.ops) == 0 {
		t.Notes = append(t.Notes, "another process made this build (builder serve): why steps did not come from the cache, and how their "+
			"processes were started, only that one knows")
	}
	var rows []*timeRow
	for _, r := range rec.table.rows {
		if len(r.spans) > 0 {
			rows = append(rows, r)
		}
	}
	slices.SortFunc(rows, func(a, b *timeRow) int { return a.spans[0][0].Compare(b.spans[0][0]) })
	keys := map[digest.Digest]build.Hash{}
	anew := map[build.Hash]build.Spot{}
	for _, r := range rows {
		if spot := w.spot(r.digest); !r.cached && spot.Number > 0 && !strings.HasPrefix(spot.Text, "FROM ") {
			anew[w.key(r.digest, keys)] = spot
		}
	}
	since := func(at time.Time) int64 { return max(int64(at.Sub(rec.table.began)), 0) }
	for _, r := range rows {
		s := build.TraceStep{Name: printableName(r.name), Spot: w.spot(r.digest), Cached: r.cached, Failed: r.failed}
		for _, span := range r.spans {
			s.Spans = append(s.Spans, [2]int64{since(span[0]), since(span[1])})
			t.Took = max(t.Took, since(span[1]))
		}
		if _, ok := anew[w.key(r.digest, keys)]; ok {
			made := w.made(r.digest, keys)
			s.Why = in.Why(&made, before, rec.request, anew)
		}
		if run := w.runs[r.digest]; run != nil && run.times.Fits(run.plan) {
			s.Start, s.StartTook, s.PlanSteps = explain.Phases(run.plan, run.times), run.times.End, len(run.plan.Steps)
			s.Plan, _ = run.plan.Hash()
			s.Made = run.plan
		}
		t.Steps = append(t.Steps, s)
	}
	return t
}

// printableName keeps what a Dockerfile says from moving the cursor of a terminal.
func printableName(s string) string { return explain.Clean(s) }
