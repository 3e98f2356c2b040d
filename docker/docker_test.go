package docker

import (
	"testing"
	"time"

	"glassbox/supervise"
)

func TestStatus(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for want, s := range map[string]supervise.State{
		"Created":                    {Status: supervise.Created},
		"Up 5 seconds":               {Status: supervise.Running, Started: now.Add(-5 * time.Second)},
		"Up About a minute (Paused)": {Status: supervise.Paused, Started: now.Add(-90 * time.Second)},
		"Exited (3) 2 hours ago":     {Status: supervise.Exited, ExitCode: 3, Finished: now.Add(-2 * time.Hour)},
	} {
		if got := Status(&s, now); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}
