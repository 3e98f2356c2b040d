package supervise

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"glassbox/fork"
)

// TestAge: whatever the clock was set to since a run began, its age is what it is.
func TestAge(t *testing.T) {
	start, err := fork.StartTime(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	for _, jump := range []time.Duration{0, -3 * time.Hour, 3 * time.Hour} {
		s := State{PID: os.Getpid(), Start: start, Started: time.Now().Add(-jump)}
		if age := s.Age(); age < 0 || age > 10*time.Minute {
			t.Errorf("the clock set by %v: this process is %v old", jump, age)
		}
	}
}

// TestClockSet: restart back-off and a health check's start period go by the age of a run, not by what the clock says.
func TestClockSet(t *testing.T) {
	start, err := fork.StartTime(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), "c")
	for _, jump := range []time.Duration{-3 * time.Hour, 3 * time.Hour} {
		s := &supervisor{job: &Job{Dir: dir}, state: State{PID: os.Getpid(), Start: start, Started: time.Now().Add(-jump)}}
		if e := s.lastRun(1); e.Ran < 0 || e.Ran > 10*time.Minute {
			t.Errorf("the clock set by %v: the run was %v long", jump, e.Ran)
		}
		h := &Health{Retries: 1, StartPeriod: time.Hour}
		before := HealthState{Status: Starting, Started: s.state.Started}
		if got := h.Next(before, HealthResult{Start: time.Now(), ExitCode: 1}, s.state.Age()); got.Status != Starting {
			t.Errorf("the clock set by %v: within its start period a container is %s", jump, got.Status)
		}
		if got := h.Next(before, HealthResult{Start: time.Now(), ExitCode: 1}, 2*time.Hour); got.Status != Unhealthy {
			t.Errorf("the clock set by %v: after its start period a container is %s", jump, got.Status)
		}
	}
}
