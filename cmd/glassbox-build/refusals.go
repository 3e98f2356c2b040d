package main

import (
	"encoding/json"
	"net/http"
	"sync"

	"glassbox/build"
)

// watched are requests of guarded sockets of which the API's server wants to know what is refused: it keeps the log of decisions, and of a
// connection that was taken over it sees nothing.
type watched struct {
	mu sync.Mutex
	of map[string]*refused // by what the server calls the request
}

// refused is what is yet to be told of one request.
type refused struct {
	sync.Mutex
	why  []string
	over bool // the request is
	more chan struct{}
}

// mostRefused is how many refusals wait for the server to take them.
const mostRefused = 1000

// tell answers with the refusals of a request, as they come. It is there before the request.
func (w *watched) tell(out http.ResponseWriter, r *http.Request) {
	name := r.Header.Get(build.WatchHeader)
	own := &refused{more: make(chan struct{}, 1)}
	w.mu.Lock()
	if w.of == nil {
		w.of = map[string]*refused{}
	}
	w.of[name] = own
	w.mu.Unlock()
	defer func() {
		w.mu.Lock()
		delete(w.of, name)
		w.mu.Unlock()
	}()
	flush := http.NewResponseController(out).Flush
	flush()
	for {
		own.Lock()
		why, over := own.why, own.over
		own.why = nil
		own.Unlock()
		for _, text := range why {
			if json.NewEncoder(out).Encode(text) != nil {
				return
			}
		}
		if flush() != nil || over {
			return
		}
		select {
		case <-own.more:
		case <-r.Context().Done():
			return
		}
	}
}

// find is a request that is watched; nil: nobody listens.
func (w *watched) find(name string) *refused {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.of[name]
}

// teller takes refusals of a request.
func (w *watched) teller(name string) func(string) {
	own := w.find(name)
	if own == nil {
		return nil
	}
	return func(why string) {
		own.Lock()
		if len(own.why) < mostRefused {
			own.why = append(own.why, why)
		}
		own.Unlock()
		own.wake()
	}
}

// over says that a request is.
func (w *watched) over(r *http.Request) {
	if own := w.find(r.Header.Get(build.WatchHeader)); own != nil {
		own.Lock()
		own.over = true
		own.Unlock()
		own.wake()
	}
}

func (r *refused) wake() {
	select {
	case r.more <- struct{}{}:
	default:
	}
}
