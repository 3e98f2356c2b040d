package engine

import (
	"context"
	"time"

	"glassbox/event"
)

// EventOptions says which events are told.
type EventOptions struct {
	Since   time.Time // zero: only those that happen from now on
	Until   time.Time // zero: until the context ends; one that has been ends the list
	Filters []string  // KEY=VALUE, see [event.ParseFilter]
}

// Events calls a function with what has happened, the oldest first, and then with what happens, until the context or Until: both are no
// error. An error of the function ends it. The journal goes back at least 256 KiB, some 800 events, and not beyond the host's start.
func (e *Engine) Events(ctx context.Context, o EventOptions, each func(event.Event) error) error {
	filter, err := event.ParseFilter(o.Filters)
	if err != nil {
		return invalid("%w", err)
	}
	now := time.Now()
	since := o.Since
	if since.IsZero() {
		since = now
	}
	// A moment that has been is the end of a list, and nothing is waited for.
	follow := o.Until.IsZero() || o.Until.After(now)
	if follow && !o.Until.IsZero() {
		var cancel context.CancelFunc
		// The journal only wakes up for new lines: without a deadline a quiet host would keep the reader beyond the moment.
		ctx, cancel = context.WithDeadline(ctx, o.Until)
		defer cancel()
	}
	err = event.Journal(e.cfg.State).Read(ctx, follow, func(line []byte) error {
		ev, ok := event.Parse(line)
		at := time.Unix(0, ev.TimeNano)
		switch {
		// The clock may have been set back since: an earlier moment can come after a later one.
		case !ok || at.Before(since) || !filter.Match(ev) || !o.Until.IsZero() && at.After(o.Until):
			return nil
		}
		return each(ev)
	})
	return err
}
