package cli

import (
	"fmt"
	"io"
	"time"

	"glassbox/container"
	"glassbox/docker"
	"glassbox/engine"
	"glassbox/explain"
	"glassbox/verify"
)

// policyWords say what a restart policy does.
func policyWords(text string) string {
	r, err := container.ParseRestart(text)
	if err != nil {
		return text
	}
	words := map[string]string{
		container.RestartAlways:        "whatever it ends with, and with the host",
		container.RestartUnlessStopped: "whatever it ends with, and with the host unless somebody has stopped it",
		container.RestartOnFailure:     "when it fails",
		container.RestartOnUnhealthy:   "when it fails; one that its health check calls unhealthy is stopped for that",
	}[r.Policy]
	if r.Max > 0 {
		words += fmt.Sprintf(", %d times at most", r.Max)
	}
	return words
}

// lifeOf is what a run command asks for beyond one run; what an image asks for isn't known yet.
func lifeOf(o container.Words) *engine.Life {
	config, err := o.Config()
	if err != nil {
		return nil
	}
	c := container.Container{Config: *config}
	l := &engine.Life{Restart: config.Restart.Words()}
	if config.Restart.None() {
		l.Restart = ""
	}
	if h, ok := c.Checked(); ok {
		l.Check = &h
	}
	return l
}

// explainLife says what a container's supervisor does beyond its start: the plan again when it ends, and the plan of its health check.
func (a *app) explainLife(w io.Writer, l *engine.Life, o explain.TextOptions) error {
	if l.Restart != "" {
		fmt.Fprintf(w, "\nRestart (from --restart %s): its supervisor runs the plan above once more, %s.\n"+
			"It waits 100 ms before that, twice as long each time, at most a minute; who has run for 10 s begins anew. So far: %d times.\n",
			l.Restart, policyWords(l.Restart), l.Restarts)
	}
	h := l.Check
	if h == nil {
		return nil
	}
	fmt.Fprintf(w, "\nHealth check: every %v its supervisor runs %s in it. It fails with another exit code\n"+
		"than 0, or after %v, when all that it has started is ended; %d failures in a row make the container unhealthy.",
		h.Interval, explain.Quoted(h.Args()), h.Timeout, h.Retries)
	if h.StartPeriod > 0 {
		fmt.Fprintf(w, " In the first %v, until it succeeds, it comes every %v, and\nfailures don't count.", h.StartPeriod, h.StartInterval)
	}
	fmt.Fprintln(w)
	if l.Plan == nil {
		return nil
	}
	fmt.Fprintln(w, "Its plan:")
	for i := range l.Plan.Steps {
		heading := i == 0 || l.Plan.Steps[i].Phase != l.Plan.Steps[i-1].Phase
		if err := explain.TextStep(w, l.Plan, i, heading, o); err != nil {
			return err
		}
	}
	return nil
}

// lifeReport is the part of verify --json that is about more than one run.
type lifeReport struct {
	Restart *restartReport `json:"restart,omitempty"` // nil: there is no policy, neither the container's nor its supervisor's
	Health  *healthReport  `json:"health,omitempty"`  // nil: there is no check
}

type restartReport struct {
	Policy   string         `json:"policy"` // the container's, as --restart says it
	Job      string         `json:"job"`    // the one that its supervisor goes by
	Restarts int            `json:"restarts"`
	Verdict  verify.Verdict `json:"verdict"`
}

type healthReport struct {
	Status   string    `json:"status"`
	Streak   int       `json:"streak,omitempty"`  // failures since the last success
	Checked  time.Time `json:"checked,omitzero"`  // when the last check ended; none: there was none yet
	ExitCode int       `json:"exitCode"`          // of that check
	Overdue  bool      `json:"overdue,omitempty"` // none has come since, though it is due
}

func reportLife(l *engine.Life) lifeReport {
	var out lifeReport
	if l.Restart != "" || l.Restart != l.Job {
		out.Restart = &restartReport{Policy: policyOrNone(l.Restart), Job: policyOrNone(l.Job), Restarts: l.Restarts, Verdict: verify.Holds}
		if l.Restart != l.Job {
			out.Restart.Verdict = verify.Differs
		}
	}
	if l.Check != nil && l.Health != nil {
		out.Health = &healthReport{Status: l.Health.Status, Streak: l.Health.Streak}
		if n := len(l.Health.Log); n > 0 {
			last := l.Health.Log[n-1]
			out.Health.Checked, out.Health.ExitCode, out.Health.Overdue = last.End, last.ExitCode, overdue(l, last.End)
		}
	}
	return out
}

// overdue reports whether the next check should have come by now. They come one after the other: two intervals and a timeout without one
// is too long, unless the container is paused.
func overdue(l *engine.Life, last time.Time) bool {
	return time.Since(last) > 2*l.Check.Interval+l.Check.Timeout+time.Minute
}

// verifyLife says whether what there is beyond one run is as the container has it.
func verifyLife(w io.Writer, l *engine.Life) {
	switch {
	case l.Restart != l.Job:
		fmt.Fprintf(w, "restart policy: the container has %s, its supervisor goes by %s\nhint: glassbox update --restart says it to both\n",
			policyOrNone(l.Restart), policyOrNone(l.Job))
	case l.Restart != "":
		fmt.Fprintf(w, "restart policy %s: so its supervisor's job says, too; restarted %d times\n", l.Restart, l.Restarts)
	}
	if l.Check == nil || l.Health == nil {
		return
	}
	fmt.Fprintf(w, "health check: %s", l.Health.Status)
	if n := len(l.Health.Log); n > 0 {
		last := l.Health.Log[n-1]
		fmt.Fprintf(w, ", exit code %d %s ago", last.ExitCode, docker.Ago(time.Since(last.End)))
		if overdue(l, last.End) {
			fmt.Fprint(w, ": none has come since, though it is due (is the container paused?)")
		}
	}
	fmt.Fprintln(w)
}

func policyOrNone(policy string) string {
	if policy == "" {
		return "none"
	}
	return policy
}
