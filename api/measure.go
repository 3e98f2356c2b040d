package api

import (
	"encoding/json"
	"time"

	"glassbox/docker"
	"glassbox/supervise"
)

// measure answers with what a container uses, once or each second. Of one that doesn't run there is an empty answer, once.
func (q *request) measure(v *docker.Container, stream bool) error {
	ctx := q.Context()
	var before *docker.Stats
	enc := json.NewEncoder(q.streamed("application/json"))
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for first := true; ; first = false {
		now, err := q.s.engine.Stats(ctx, v.ID, before)
		if err != nil {
			return err
		}
		running := !now.Read.IsZero()
		// One answer alone has two readings in it, a second apart, as with Docker: processor time is their difference.
		if stream || !first || !running {
			if err := enc.Encode(now); err != nil {
				return err
			}
		}
		if !stream && (!first || !running) {
			return nil
		}
		// The counters of the next run begin at zero: what was read of the last one is no beginning for them.
		before = nil
		if running {
			before = now
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		if !running {
			if v, err = q.s.engine.Inspect(ctx, v.ID); err != nil {
				return err
			}
			if v.State.Status == supervise.Exited && stream {
				continue // it may be started again: Docker's clients wait for that
			}
		}
	}
}
