package supervise

import (
	"strings"
	"testing"
	"time"
)

// TestHealthNext plays checks against the times and numbers of a health check: time in, status out.
func TestHealthNext(t *testing.T) {
	start := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for _, tt := range []struct {
		name    string
		health  Health
		results string // a second apart, the first one after a second: + succeeds, - fails, ! takes too long
		want    string // after each
		streak  int
	}{
		{"well", Health{Retries: 3}, "+", "h", 0},
		{"starting until it is known", Health{Retries: 3}, "--", "ss", 2},
		{"unhealthy after retries", Health{Retries: 3}, "---", "ssu", 3},
		{"one success mends it", Health{Retries: 2}, "--+", "suh", 0},
		{"failures in a row", Health{Retries: 2}, "+-+-+--", "hhhhhhu", 2},
		{"too late is a failure", Health{Retries: 2}, "+!!", "hhu", 2},
		{"stays unhealthy", Health{Retries: 1}, "---", "uuu", 3},
		{"start period: not counted", Health{Retries: 1, StartPeriod: 3500 * time.Millisecond}, "----", "sssu", 1},
		{"start period: over with the first success", Health{Retries: 1, StartPeriod: time.Hour}, "--+-", "sshu", 1},
	} {
		s, got := HealthState{}.Of(start), ""
		for i, c := range tt.results {
			r := HealthResult{Start: start.Add(time.Duration(i+1) * time.Second), ExitCode: map[rune]int{'+': 0, '-': 1, '!': -1}[c]}
			s = tt.health.Next(s, r, r.Start.Sub(start))
			got += s.Status[:1]
		}
		if got != tt.want || s.Streak != tt.streak {
			t.Errorf("%s: %s and %d failures, want %s and %d", tt.name, got, s.Streak, tt.want, tt.streak)
		}
	}
}

// TestHealthLog: the last five are kept, also beyond a start, and who holds an earlier state sees that.
func TestHealthLog(t *testing.T) {
	h := Health{Retries: 3}
	var states []HealthState
	s := HealthState{}.Of(time.Unix(1, 0))
	for i := range 7 {
		s = h.Next(s, HealthResult{ExitCode: i}, time.Minute)
		states = append(states, s)
	}
	codes := func(s HealthState) (out []int) {
		for _, r := range s.Log {
			out = append(out, r.ExitCode)
		}
		return out
	}
	if got := codes(states[6]); len(got) != 5 || got[0] != 2 || got[4] != 6 {
		t.Errorf("the log has %v", got)
	}
	if got := codes(states[4]); len(got) != 5 || got[0] != 0 || got[4] != 4 {
		t.Errorf("a later check has changed an earlier state: %v", got)
	}
	next := s.Of(time.Unix(2, 0))
	if next.Status != Starting || next.Streak != 0 || len(next.Log) != 5 {
		t.Errorf("after a start: %+v", next)
	}
}

// TestHealthWait: the interval of the start period holds in it, until the first success.
func TestHealthWait(t *testing.T) {
	h := Health{Interval: 30, StartInterval: 5, StartPeriod: 100}
	for _, tt := range []struct {
		status string
		age    time.Duration
		want   time.Duration
	}{{Starting, 0, 5}, {Starting, 99, 5}, {Starting, 100, 30}, {Healthy, 50, 30}, {Unhealthy, 50, 30}} {
		if got := h.Wait(tt.status, tt.age); got != tt.want {
			t.Errorf("%s at %d: %d, want %d", tt.status, tt.age, got, tt.want)
		}
	}
}

// TestHealthOutput keeps 4096 bytes of what a check prints, as text.
func TestHealthOutput(t *testing.T) {
	var o output
	o.add([]byte("a\xffb"))
	if got := o.String(); got != "a\uFFFDb" {
		t.Errorf("got %q", got)
	}
	o.add([]byte(strings.Repeat("x", 4093)))
	if got := o.String(); strings.HasSuffix(got, "...") {
		t.Error("4096 bytes are said to be too many")
	}
	o.add([]byte("y"))
	if got := o.String(); !strings.HasSuffix(got, "x...") || len(got) != 4096+2+3 {
		t.Errorf("got %d bytes, %q at the end", len(got), got[len(got)-9:])
	}
}
