package engine

import (
	"cmp"
	"context"
	"strings"
	"time"

	"glassbox/compile"
	"glassbox/container"
	"glassbox/host"
	"glassbox/plan"
	"glassbox/supervise"
)

// checkGroup is the cgroup below a container's in which its health check runs.
const checkGroup = "healthcheck"

// restarts is what a supervisor does when its container ends by itself; nil: nothing.
func restarts(c *container.Container) *supervise.Restart {
	r := c.Config.Restart
	switch {
	case r.None():
		return nil
	case r.Policy == container.RestartAlways || r.Policy == container.RestartUnlessStopped:
		return &supervise.Restart{Clean: true}
	}
	return &supervise.Restart{Max: r.Max, Unhealthy: r.Policy == container.RestartOnUnhealthy}
}

// checked is a container's health check; false if there is none. One that runs a plan of its own has none that its image brings: it runs
// what it was given, and nothing else.
func checked(c *container.Container) (container.Health, bool) {
	if c.Fixed && len(c.Config.Health.Test) == 0 {
		return container.Health{}, false
	}
	return c.Checked()
}

// withLife gives a supervisor's job what it does beyond one run. What a health check runs is written by writeCheck.
func withLife(job *supervise.Job, c *container.Container) {
	job.Restart = restarts(c)
	if h, ok := checked(c); ok {
		job.Health = &supervise.Health{
			Interval: h.Interval, Timeout: h.Timeout, StartPeriod: h.StartPeriod, StartInterval: h.StartInterval, Retries: h.Retries,
		}
	}
}

// check makes what asks a container how it is: a plan for a further process with the container's user, environment and limits. The first
// process isn't known yet. nil: there is no health check.
func (e *Engine) check(c *container.Container, job *supervise.Job, facts *host.Facts) (*supervise.Check, error) {
	h, ok := checked(c)
	if !ok || job.Health == nil {
		return nil, nil
	}
	out, err := e.checkPlan(c, job, facts, 1, 0)
	if err != nil {
		return nil, err
	}
	check := &supervise.Check{
		Health: *job.Health, ID: c.ID, State: job.State, Actor: job.Actor, Line: strings.Join(h.Args(), " "), Plan: out.Plan, Own: out.Own,
	}
	return check, setStop(check, c, job)
}

// setStop says how a container is stopped that has become unhealthy, where its restart policy wants that.
func setStop(check *supervise.Check, c *container.Container, job *supervise.Job) error {
	check.Stop, check.Patience = 0, 0
	if r := job.Restart; r == nil || !r.Unhealthy {
		return nil
	}
	sig, err := ParseSignal(c.StopSignal())
	check.Stop, check.Patience = int(sig), time.Duration(stopSeconds(c, nil))*time.Second
	return err
}

// checkPlan compiles the start of a health check in a container whose first process has the given number and start time.
func (e *Engine) checkPlan(c *container.Container, job *supervise.Job, facts *host.Facts, pid int, start uint64) (*compile.Output, error) {
	h, _ := checked(c)
	origin := "image"
	if len(c.Config.Health.Test) > 0 {
		origin = cmp.Or(c.Config.Origin("health-cmd"), "--health-cmd")
	}
	in := compile.ExecInput{
		Input: compile.Input{Facts: *facts, SeccompName: "default", Origins: map[string]string{"": origin}},
		PID:   pid, Start: start, Namespaces: job.Namespaces, Cgroups: job.Cgroups, Group: checkGroup,
	}
	if err := e.execProcess(c.ID, job.Process, ExecOptions{Command: h.Args()}, &in); err != nil {
		return nil, err
	}
	out, err := compile.Exec(in)
	if err != nil {
		return nil, unsupported("the health check: %w", err)
	}
	return out, nil
}

// writeCheck puts a container's health check where its supervisor finds it.
func (e *Engine) writeCheck(c *container.Container, job *supervise.Job, facts *host.Facts) error {
	check, err := e.check(c, job, facts)
	if err != nil || check == nil {
		return err
	}
	return supervise.WriteCheck(job.Dir, check)
}

// Life is what there is of a container beyond one run.
type Life struct {
	Restart string // its restart policy, as --restart says it; empty: none
	// Job is the policy by which its supervisor goes, of the last start or of an update since; the same, if nobody has written into the file.
	Job      string
	Restarts int // since somebody started it
	// Check is its health check, with nothing left out; nil: there is none.
	Check  *container.Health
	Health *supervise.HealthState // nil: it was never asked
	// Plan is that by which it is asked; nil unless it runs.
	Plan *plan.Plan
}

// Life finds out what there is of a container beyond one run.
func (e *Engine) Life(ctx context.Context, ref string) (*Life, error) {
	c, s, err := e.load(ctx, ref)
	if err != nil {
		return nil, err
	}
	l := &Life{Restart: c.Config.Restart.Words(), Restarts: s.Restarts, Health: e.health(c, s)}
	if c.Config.Restart.None() {
		l.Restart = ""
	}
	h, ok := checked(c)
	if ok {
		l.Check = &h
	}
	if !s.Alive() {
		return l, nil
	}
	job, err := supervise.ReadJob(e.dir(c.ID))
	if err != nil {
		return nil, err
	}
	// The file was written by a start or an update. One that says something else was changed by hand, and the supervisor
	// goes by it.
	if same := restarts(c); (same == nil) == (job.Restart == nil) && (same == nil || *same == *job.Restart) {
		l.Job = l.Restart
	} else if l.Job = "none"; job.Restart != nil {
		l.Job = "another one"
	}
	if !ok {
		return l, nil
	}
	facts, err := e.rootFacts(ctx)
	if err != nil {
		return nil, err
	}
	out, err := e.checkPlan(c, job, facts, s.PID, s.Start)
	if err != nil {
		return nil, err
	}
	l.Plan = out.Plan
	return l, nil
}

// health is what the checks of a container have said; nil if nobody asks it. Of one that doesn't run it is unhealthy, as with Docker.
func (e *Engine) health(c *container.Container, s *supervise.State) *supervise.HealthState {
	if _, ok := checked(c); !ok || s.Status == supervise.Created {
		return nil
	}
	h := supervise.ReadHealth(e.dir(c.ID)).Of(s.Started)
	if !s.Alive() {
		h.Status = supervise.Unhealthy
	}
	return &h
}

// stopSeconds is how long a container may take to stop: what was asked for, what it was made with, or 10; negative: for ever.
func stopSeconds(c *container.Container, asked *int) int {
	switch {
	case asked != nil:
		return *asked
	case c.Config.StopTimeout != nil:
		return *c.Config.StopTimeout
	}
	return 10
}
