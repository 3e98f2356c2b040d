package engine

import (
	"context"

	"glassbox/event"
	"glassbox/supervise"
)

// Restart stops a container, as Stop does, and starts it again.
func (e *Engine) Restart(ctx context.Context, ref string, timeout *int, signal string) error {
	kept := func() {}
	if c, _, err := e.load(ctx, ref); err == nil && c.Config.Remove {
		if kept, err = supervise.MarkKept(e.dir(c.ID)); err != nil {
			return err
		}
	}
	err := e.Stop(ctx, ref, timeout, signal)
	kept() // from now on an end is its last one again
	if err != nil {
		return err
	}
	s, err := e.Start(ctx, ref, StartOptions{})
	if err != nil {
		return err
	}
	s.Close()
	if c, err := e.readContainer(s.ID); err == nil {
		e.happened(c, event.Restart)
	}
	return nil
}
