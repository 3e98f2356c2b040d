package explain

import (
	"bytes"
	"encoding/json"
	"fmt"
	"regexp"
	"strings"
	"testing"

	"glassbox/plan"
)

// sampleTrace is a start of sample: the command begins at 1 ms, the plan at 5 ms, the program at 8 ms.
func sampleTrace() *Traced {
	const ms = 1_000_000
	times := sampleTimes()
	times.Ready = 1_195_000
	return &Traced{
		Plan: sample(), Command: []string{"glassbox", "run", "busybox"}, Start: ms, End: 12 * ms, For: 100 * ms,
		Errno: func(n int64) string { return map[int64]string{2: "ENOENT"}[n] },
		Trace: &plan.Trace{
			Zero: 5 * ms, Times: times, Exec: 8 * ms,
			Spans: []plan.Span{
				{Who: "supervisor", What: "its program starts", Begin: 3 * ms, End: 4 * ms},
				{Who: "command", What: "glassbox starts", Begin: ms, End: 2 * ms},
				{Who: "command", What: "writes plan and job", Begin: 3500_000, End: 4500_000},
				{Who: "supervisor", What: "waits for it", Begin: 4 * ms, End: 4600_000, Waits: true},
				{Who: "supervisor", What: "ends what is left", Begin: 10 * ms, End: 11 * ms},
			},
			Calls: []plan.Call{
				{PID: 70, NR: 257, Begin: 8100_000, End: 8200_000, Result: -2, Failed: true, Path: "/etc/ld.so.preload\x1b[2J<b>"},
				{PID: 70, NR: 99999, Begin: 8300_000, End: 8400_000, Result: 3},
				{PID: 71, NR: 231, Begin: 9 * ms, End: 9100_000, Last: true},
				{PID: 70, NR: 61, Begin: 9200_000},
			},
		},
	}
}

// TestTraceAddsUp: what took how long adds up to the time of the command, until the program and until the end.
func TestTraceAddsUp(t *testing.T) {
	tr := sampleTrace()
	before, after := tr.shares()
	sum := func(list []Share) (n int64) {
		for _, s := range list {
			n += s.Took
		}
		return n
	}
	if sum(before) != 7_000_000 || sum(after) != 4_000_000 {
		t.Errorf("until the program %d, after it %d; want 7 and 4 ms\n%v\n%v", sum(before), sum(after), before, after)
	}
	took := map[string]int64{}
	for _, s := range append(before, after...) {
		took[s.What] += s.Took
	}
	for what, want := range map[string]int64{
		"command: glassbox starts": 1_000_000, "supervisor: its program starts": 1_000_000, "command: writes plan and job": 500_000,
		"supervisor: waits for it": 100_000,
		tracerWords:                5000, "Program": 1_800_000, runsWords: 2_000_000, "supervisor: ends what is left": 1_000_000,
		unknownWords: 1_000_000 +
			400_000 + 1_000_000,
	} {
		if took[what] != want {
			t.Errorf("%s took %d, want %d", what, took[what], want)
		}
	}
	tr.Failed, tr.Trace.Exec = "no such program", 0
	if before, after = tr.shares(); sum(before) != 11_000_000 || after != nil {
		t.Errorf("of a start that failed: %d, %v; want 11 ms and nothing", sum(before), after)
	}
}

func TestTraceJSON(t *testing.T) {
	var b bytes.Buffer
	if err := WriteTrace(&b, "json", sampleTrace()); err != nil {
		t.Fatal(err)
	}
	golden(t, "testdata/trace.json", b.String())
	var v struct {
		Exec, End int64
		Steps     []struct{ Step int }
		Traced    struct{ Calls []call }
	}
	if err := json.Unmarshal(b.Bytes(), &v); err != nil {
		t.Fatal(err)
	}
	c := v.Traced.Calls
	if v.Exec != 7_000_000 || v.End != 11_000_000 || len(v.Steps) != len(sample().Steps)-1 || len(c) != 4 {
		t.Fatalf("got %+v", v)
	}
	if c[0].Name != "openat" || c[0].Result != "ENOENT" || c[1].Name != "call 99999" || c[2].Name != "exit_group" || !c[2].Last ||
		c[2].Result != "" || c[3].Took != nil {
		t.Errorf("got %+v", c)
	}
}

// TestTraceHTML: nothing is fetched, nothing runs, what a container says becomes no markup.
func TestTraceHTML(t *testing.T) {
	evil := `"><script>alert(1)</script><img src=x onerror=y>`
	for _, failed := range []string{"", evil} {
		tr := sampleTrace()
		tr.Failed, tr.Trace.Calls[0].Path, tr.Command = failed, evil, []string{evil}
		var b bytes.Buffer
		if err := WriteTrace(&b, "html", tr); err != nil {
			t.Fatal(err)
		}
		page := b.String()
		for i := range tr.Plan.Steps {
			if !strings.Contains(page, fmt.Sprintf(`<span class="n">%d</span>`, i+1)) {
				t.Errorf("step %d is missing", i+1)
			}
		}
		for _, bad := range []string{"<script", "<img", "<b>/", "http:", "https:", "url(", "@import", "%!", "\x1b"} {
			if strings.Contains(page, bad) {
				t.Errorf("the page has %q in it", bad)
			}
		}
		for _, tag := range []string{"div", "details", "table", "tr", "td", "p", "span", "svg", "rect", "h3"} {
			open := len(regexp.MustCompile(`<`+tag+`[ >]`).FindAllString(page, -1))
			shut := strings.Count(page, "</"+tag+">") + len(regexp.MustCompile(`<`+tag+`[^>]*/>`).FindAllString(page, -1))
			if open != shut {
				t.Errorf("<%s>: %d are opened, %d closed", tag, open, shut)
			}
		}
	}
	if err := WriteTrace(&bytes.Buffer{}, "text", sampleTrace()); err == nil {
		t.Error("text is no format of a trace")
	}
}
