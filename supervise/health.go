package supervise

import (
	"path/filepath"
	"strings"
	"time"

	"glassbox/cgroup"
	"glassbox/event"
	"glassbox/plan"
	"glassbox/state"
)

// Files of a container with a health check, in its directory.
const (
	HealthFile = "health.json" // HealthState
	CheckFile  = "check.bin"   // a Check in binary form, for the build of glassbox that wrote it
)

// Statuses of a container's health.
const (
	Starting  = "starting"
	Healthy   = "healthy"
	Unhealthy = "unhealthy"
)

// Health is when a container is asked whether it is well, and what follows.
type Health struct {
	Interval      time.Duration `json:"interval"` // from the end of a check to the next
	Timeout       time.Duration `json:"timeout"`
	StartPeriod   time.Duration `json:"startPeriod,omitempty"`
	StartInterval time.Duration `json:"startInterval"`
	Retries       int           `json:"retries"`
}

// Wait is how long to wait for the next check of a container that was started so long ago. The first one is waited for, too.
func (h *Health) Wait(status string, age time.Duration) time.Duration {
	if status == Starting && age < h.StartPeriod {
		return h.StartInterval
	}
	return h.Interval
}

// HealthState is what the checks of a container have said.
type HealthState struct {
	Status  string         `json:"status"`
	Streak  int            `json:"streak,omitempty"` // failures since the last success
	Started time.Time      `json:"started"`          // of the run that it is about
	Log     []HealthResult `json:"log,omitempty"`    // the last ones, the oldest first; also those of earlier runs
}

// HealthResult is one check.
type HealthResult struct {
	Start    time.Time `json:"start"`
	End      time.Time `json:"end"`
	ExitCode int       `json:"exitCode"` // 0: healthy; -1: it could not be started, or took too long
	Output   string    `json:"output,omitempty"`
}

// What is kept of checks, as with Docker.
const (
	healthLog    = 5
	healthOutput = 4096 // bytes
)

// Next is what a container's health is after another check, at whose beginning its run had this age.
func (h *Health) Next(s HealthState, r HealthResult, age time.Duration) HealthState {
	// The slice's capacity is cut, so that append makes a new one: the old state may still be looked at.
	s.Log = append(s.Log[max(0, len(s.Log)+1-healthLog):len(s.Log):len(s.Log)], r)
	switch {
	case r.ExitCode == 0:
		s.Status, s.Streak = Healthy, 0
	case s.Status == Starting && age < h.StartPeriod: // it doesn't count
	default:
		if s.Streak++; s.Streak >= h.Retries {
			s.Status = Unhealthy
		}
	}
	return s
}

// Of returns the state for a run that began at a moment: where what is known is of an earlier one, its health is unknown.
func (s HealthState) Of(started time.Time) HealthState {
	if !s.Started.Equal(started) {
		s.Status, s.Streak, s.Started = Starting, 0, started
	}
	return s
}

// ReadHealth reads what the checks of a container have said; a zero value if nothing is known.
func ReadHealth(dir string) HealthState {
	var s HealthState
	if state.ReadJSON(filepath.Join(dir, HealthFile), &s) != nil {
		return HealthState{}
	}
	return s
}

// output keeps the beginning of what a check prints.
type output struct {
	text strings.Builder
	lost bool
}

func (o *output) add(data []byte) {
	room := healthOutput - o.text.Len()
	o.lost = o.lost || len(data) > room
	o.text.Write(data[:min(len(data), room)])
}

func (o *output) String() string {
	text := strings.ToValidUTF8(o.text.String(), "\uFFFD")
	if o.lost {
		text += "..."
	}
	return text
}

// A Check is what is run to ask a container how it is, ready to be used.
type Check struct {
	Health
	ID    string
	State string      // the directory of what is gone at reboot
	Actor event.Actor // the container in events
	Line  string      // the command in events
	// Plan starts it, but for the number and the start time of the container's first process in its OpenPid step.
	Plan *plan.Plan
	// Own is the check's own cgroup, by which all that it has started can be ended.
	Own map[string]string
	// Stop is the signal that stops a container which has become unhealthy, if its policy wants that, and Patience how long it then has;
	// 0: it is left alone.
	Stop     int
	Patience time.Duration
}

// WriteCheck puts a check where the container's supervisor finds it.
func WriteCheck(dir string, c *Check) error {
	return state.WriteFile(filepath.Join(dir, CheckFile), plan.AppendBinary(nil, c), 0o600)
}

// ReadCheck reads what WriteCheck wrote.
func ReadCheck(dir string) (*Check, error) {
	data, err := state.ReadFile(filepath.Join(dir, CheckFile))
	if err != nil {
		return nil, err
	}
	var c Check
	if err := plan.ReadBinary(data, &c); err != nil {
		return nil, err
	}
	return &c, nil
}

// For is the check's plan for a container whose first process is known.
func (c *Check) For(pid int, start uint64) *plan.Plan {
	p := *c.Plan
	p.Steps = append([]plan.Step(nil), p.Steps...)
	for i, step := range p.Steps {
		if _, ok := step.Op.(*plan.OpenPid); ok {
			p.Steps[i].Op = &plan.OpenPid{Pid: pid, Start: start, Save: step.Op.(*plan.OpenPid).Save}
		}
	}
	return &p
}

// clear ends whatever an earlier check has left. On v2 a cgroup is no good after that (see cgroup.Kill), so it goes.
func (c *Check) clear() error {
	if pids, err := cgroup.Procs(c.Own); err != nil || len(pids) == 0 {
		return err
	}
	return cgroup.Kill(c.Own)
}
