package api

import (
	"context"
	"encoding/json"
	"errors"
	"strconv"
	"sync"
	"time"

	"glassbox/docker"
	"glassbox/engine"
	"glassbox/event"
	"glassbox/supervise"

	"github.com/moby/moby/api/types/container"
)

// hub reads the journal of events once for all who follow it: a reader for each would need an inotify instance each, of which a user has
// 128 (inotify(7), max_user_instances). It reads while somebody follows.
type hub struct {
	engine *engine.Engine

	sync.Mutex
	followers map[*follower]bool
	stop      context.CancelFunc
}

// follower is one who follows the events from a moment on.
type follower struct {
	from  int64             // nanoseconds since 1970
	queue chan *event.Event // of events that all followers share
	lost  chan struct{}     // closed when the queue was full: whoever reads more slowly than things happen is let go
}

// maxBehind is how many events a follower may be behind.
const maxBehind = 1024

// errBehind ends a follower's stream.
var errBehind = errors.New("events came faster than they were read")

func (h *hub) follow() (f *follower, leave func()) {
	h.Lock()
	defer h.Unlock()
	f = &follower{from: time.Now().UnixNano(), queue: make(chan *event.Event, maxBehind), lost: make(chan struct{})}
	if len(h.followers) == 0 {
		h.followers = map[*follower]bool{}
		ctx, cancel := context.WithCancel(context.Background())
		h.stop = cancel
		go h.read(ctx)
	}
	h.followers[f] = true
	return f, func() {
		h.Lock()
		defer h.Unlock()
		delete(h.followers, f)
		if len(h.followers) == 0 && h.stop != nil {
			h.stop()
			h.stop = nil
		}
	}
}

func (h *hub) read(ctx context.Context) {
	begin := time.Now().Add(-time.Second) // followers have their own beginnings
	err := h.engine.Events(ctx, engine.EventOptions{Since: begin}, func(e event.Event) error {
		h.Lock()
		defer h.Unlock()
		if ctx.Err() != nil { // another reader has begun meanwhile
			return ctx.Err()
		}
		for f := range h.followers {
			if e.TimeNano < f.from {
				continue
			}
			select {
			case f.queue <- &e:
			default:
				close(f.lost)
				delete(h.followers, f)
			}
		}
		return nil
	})
	h.Lock()
	defer h.Unlock()
	if err != nil && ctx.Err() == nil { // the journal can't be read: nobody is left waiting for what never comes
		for f := range h.followers {
			close(f.lost)
		}
		clear(h.followers)
	}
}

// getEvents answers GET /events.
func (q *request) getEvents() error {
	texts, err := q.filters()
	if err != nil {
		return err
	}
	filter, err := event.ParseFilter(texts)
	if err != nil {
		return invalid("%v", err)
	}
	since, err := q.moment("since")
	if err != nil {
		return err
	}
	until, err := q.moment("until")
	if err != nil {
		return err
	}
	if !since.IsZero() && !until.IsZero() && until.Before(since) {
		return invalid("`since` time (%s) cannot be after `until` time (%s)", q.query("since"), q.query("until"))
	}
	// Before the journal is read: what happens meanwhile waits in the queue.
	f, leave := q.s.events.follow()
	defer leave()
	media := "application/json"
	enc := json.NewEncoder(q.streamed(media))
	enc.SetEscapeHTML(false)
	tell := func(e event.Event) error {
		if q.s.policy != nil && !q.s.seesEvent(q.Context(), &e) {
			return nil
		}
		if !filter.Match(e) || !until.IsZero() && time.Unix(0, e.TimeNano).After(until) {
			return nil
		}
		return enc.Encode(q.version.event(e))
	}
	var last int64
	if !since.IsZero() {
		// What has been, until the moment from which on the hub tells what comes.
		o := engine.EventOptions{Since: since, Until: time.Unix(0, f.from-1)}
		if err := q.s.engine.Events(q.Context(), o, tell); err != nil {
			return err
		}
		last = f.from - 1
	}
	var end <-chan time.Time
	if !until.IsZero() {
		timer := time.NewTimer(time.Until(until))
		defer timer.Stop()
		end = timer.C
	}
	for {
		select {
		case e := <-f.queue:
			// The journal has told it already.
			if e.TimeNano <= last {
				continue
			}
			if err := tell(*e); err != nil {
				return err
			}
		case <-f.lost:
			return errBehind
		case <-end:
			return nil
		case <-q.Context().Done():
			return nil
		}
	}
}

// wait answers POST /containers/{id}/wait. The answer's head is sent at once: clients wait for it before they start the container.
func (q *request) wait() error {
	condition := q.query("condition")
	switch condition {
	case "":
		condition = engine.WaitNotRunning
	case engine.WaitNotRunning, engine.WaitNextExit, engine.WaitRemoved:
	default:
		return invalid("invalid condition: %q", condition)
	}
	f, leave := q.s.events.follow() // before the container is looked at, so that nothing is missed
	defer leave()
	v, err := q.s.engine.Inspect(q.Context(), q.id())
	if err != nil {
		return err
	}
	if q.version >= 30 {
		q.streamed("application/json")
	}
	code, err := q.s.waitFor(q.Context(), f, v, condition)
	if q.Context().Err() != nil {
		return q.Context().Err()
	}
	out := container.WaitResponse{StatusCode: int64(code)}
	if err != nil {
		out.Error = &container.WaitExitError{Message: message(err)}
	}
	if q.version < 30 {
		return q.json(out)
	}
	return json.NewEncoder(flusher{q}).Encode(out)
}

// waitFor waits for a condition of a container, by what is written down of it: its exit code may be told nowhere else when it is removed
// at once.
func (s *Server) waitFor(ctx context.Context, f *follower, v *docker.Container, condition string) (code int, err error) {
	code = v.State.ExitCode
	if condition == engine.WaitNotRunning && !v.State.Running {
		return code, nil
	}
	seen := v.State.StartedAt
	// A supervisor that is killed tells nothing; who looks at its container finds out, and tells it for it.
	look := time.NewTicker(time.Second)
	defer look.Stop()
	for {
		select {
		case <-ctx.Done():
			return 0, ctx.Err()
		case <-f.lost:
			return 0, errBehind
		case e := <-f.queue:
			if e.Type != event.Container || e.Actor.ID != v.ID {
				continue
			}
			switch e.Action {
			case event.Die:
				if n, err := strconv.Atoi(e.Actor.Attributes["exitCode"]); err == nil {
					code = n
				}
				if condition != engine.WaitRemoved {
					s.settled(ctx, v.ID, time.Unix(0, e.TimeNano))
					return code, nil
				}
			case event.Destroy:
				return code, nil
			}
		case <-look.C:
			now, err := s.engine.Inspect(ctx, v.ID)
			if errors.Is(err, engine.ErrNotFound) {
				if condition == engine.WaitRemoved || v.State.Running {
					return code, nil
				}
				return 0, err
			}
			if err != nil {
				continue
			}
			// Or it was started again, and has ended, between two looks.
			if !now.State.Running && (v.State.Running || now.State.StartedAt != seen) {
				code = now.State.ExitCode
				if condition != engine.WaitRemoved {
					return code, nil
				}
			}
		}
	}
}

// settled waits until a container whose end was told also says so when it is inspected: the event is written before its state. One that was
// started again since then has ended, too.
func (s *Server) settled(ctx context.Context, id string, died time.Time) {
	for end := time.Now().Add(2 * time.Second); time.Now().Before(end) && ctx.Err() == nil; time.Sleep(5 * time.Millisecond) {
		v, err := s.engine.Inspect(ctx, id)
		if err != nil || v.State.Status != supervise.Running || v.State.Pid == 0 {
			return
		}
		if started, err := time.Parse(time.RFC3339Nano, v.State.StartedAt); err == nil && started.After(died) {
			return
		}
	}
}
