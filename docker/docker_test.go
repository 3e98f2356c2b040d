package docker

import (
	"testing"
	"time"

	"glassbox/supervise"
)

func TestStatus(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	five := now.Add(-5 * time.Second)
	for want, s := range map[string]supervise.State{
		"Created":                      {Status: supervise.Created},
		"Up 5 seconds":                 {Status: supervise.Running, Started: now.Add(-5 * time.Second)},
		"Up About a minute (Paused)":   {Status: supervise.Paused, Started: now.Add(-90 * time.Second)},
		"Restarting (1) 5 seconds ago": {Status: supervise.Restarting, ExitCode: 1, Finished: five},
		"Exited (3) 2 hours ago":       {Status: supervise.Exited, ExitCode: 3, Finished: now.Add(-2 * time.Hour)},
	} {
		if got := Status(&s, nil, now); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	for health, want := range map[string]string{
		"starting": "Up 5 seconds (health: starting)", "healthy": "Up 5 seconds (healthy)", "unhealthy": "Up 5 seconds (unhealthy)",
	} {
		if got := Status(&supervise.State{Status: supervise.Running, Started: five}, &supervise.HealthState{Status: health}, now); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

func TestAgo(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0: "Less than a second", time.Second: "1 second", 59 * time.Second: "59 seconds", 61 * time.Second: "About a minute",
		5 * time.Minute: "5 minutes", 59 * time.Minute: "59 minutes", 61 * time.Minute: "About an hour", 90*time.Minute + 1: "2 hours",
		47 * time.Hour: "47 hours", 13 * 24 * time.Hour: "13 days", 20 * 24 * time.Hour: "2 weeks", 90 * 24 * time.Hour: "3 months",
		3 * 365 * 24 * time.Hour: "3 years",
	} {
		if got := Ago(d); got != want {
			t.Errorf("Ago(%v): got %s, want %s", d, got, want)
		}
	}
}
