package engine

import (
	"cmp"
	"context"

	"glassbox/event"
	"glassbox/supervise"
)

// Restart stops a container, as Stop does, and starts it again. One that is removed when it ends (--rm) isn't removed by that.
func (e *Engine) Restart(ctx context.Context, ref string, timeout *int, signal string) error {
	c, _, err := e.load(ctx, ref)
	if err != nil {
		return err
	}
	dir := e.dir(c.ID)
	if c.Config.Remove {
		if err := supervise.MarkStopped(dir, supervise.ByRestart); err != nil {
			return err
		}
	}
	err = e.Stop(ctx, ref, timeout, signal)
	if c.Config.Remove { // from now on an end is its last one again, also where it could not be stopped
		err = cmp.Or(err, supervise.MarkStarted(dir))
	}
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
