package engine

import (
	"context"
	"errors"
	"time"

	"glassbox/supervise"
)

// Conditions that Wait waits for, Docker's. Of a container with a restart policy each end of a run counts: it is "not running" then, though
// it will be again.
const (
	WaitNotRunning = "not-running" // at once for one that doesn't run
	WaitNextExit   = "next-exit"   // the end of a run that goes on, or is yet to begin
	WaitRemoved    = "removed"
)

// look is how often a container is looked at that doesn't run, and so has no process to wait for.
const look = 20 * time.Millisecond

// Wait waits for a condition (empty: not-running) and returns the exit code of the last run.
func (e *Engine) Wait(ctx context.Context, ref, condition string) (int, error) {
	switch condition {
	case "":
		condition = WaitNotRunning
	case WaitNotRunning, WaitNextExit, WaitRemoved:
	default:
		return 125, invalid("invalid condition %q: want %s, %s or %s", condition, WaitNotRunning, WaitNextExit, WaitRemoved)
	}
	c, s, err := e.load(ctx, ref)
	if err != nil {
		return 125, err
	}
	if condition == WaitRemoved {
		return e.removed(ctx, c.ID, s)
	}
	// Ends while it waits to be restarted don't count for not-running: it is looked at until a run goes on, or there is
	// none to come.
	for first := s; !s.Alive(); {
		switch {
		case condition == WaitNotRunning && s.Status != supervise.Restarting:
			return s.ExitCode, nil
		case condition == WaitNextExit && !s.Started.Equal(first.Started): // it was short
			return s.ExitCode, nil
		}
		if err := pause(ctx, look); err != nil {
			return 125, err
		}
		// Of one with --rm nothing is left after its end, and its code was only told to who waited for the run itself.
		if s, err = e.state(c.ID); err != nil {
			return 125, notFound("no such container: %s: it was removed meanwhile", ref)
		}
	}
	return e.end(ctx, c.ID, s)
}

// removed waits until there is no container any more.
func (e *Engine) removed(ctx context.Context, id string, s *supervise.State) (code int, err error) {
	for {
		code = s.ExitCode
		if s.Alive() {
			if code, err = e.end(ctx, id, s); err != nil {
				return code, err
			}
		}
		if err := pause(ctx, look); err != nil {
			return 125, err
		}
		if _, err := e.resolve(id); errors.Is(err, ErrNotFound) {
			return code, nil
		}
		next, err := e.state(id)
		if err != nil {
			return code, nil
		}
		s = next
	}
}
