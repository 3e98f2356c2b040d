package engine

import (
	"bufio"
	"context"
	"os"
	"path/filepath"
	"sync"
	"time"

	"glassbox/supervise"
)

// follows are the logs that are being followed. A server may have a thousand who follow the same one: its file is looked at once for all.
type follows struct {
	sync.Mutex
	of map[string]*followed
	// buffers of those who read at this moment: a thousand who wait need none.
	buffers sync.Pool
}

// followed is a container whose log is looked at again and again, as long as somebody follows it and it runs.
type followed struct {
	who     int
	changed chan struct{} // closed when there is something to read, or the run is over
	running bool
	joined  bool // somebody has come since the last look
	last    stamp
}

// How often a log is looked at: a person can't tell 30 ms from none. One that is silent is looked at less often.
const (
	lookOften  = 30 * time.Millisecond
	lookSeldom = 120 * time.Millisecond
)

// follow begins to look at a container's log. inotify would need a watch for each, and the kernel's limit of watches is the host's.
func (e *Engine) follow(id string) (f *followed, leave func()) {
	m := &e.follows
	m.Lock()
	defer m.Unlock()
	if f = m.of[id]; f == nil {
		runs := alive{e: e, id: id}
		f = &followed{changed: make(chan struct{}), running: runs.now()}
		f.last = stampNow(filepath.Join(e.dir(id), supervise.LogFile)) // before the follower reads it
		if m.of == nil {
			m.of = map[string]*followed{}
		}
		m.of[id] = f
		go e.look(f, &runs)
	}
	f.who++
	f.joined = true
	return f, func() {
		m.Lock()
		defer m.Unlock()
		f.who--
	}
}

// look looks until nobody follows any more, or the container runs no more.
func (e *Engine) look(f *followed, runs *alive) {
	m, id := &e.follows, runs.id
	name := filepath.Join(e.dir(id), supervise.LogFile)
	wait := lookOften
	for {
		time.Sleep(wait)
		// Whether it still runs is asked before the file is looked at: what it writes at its end is then not missed.
		running := runs.now()
		now := stampNow(name)
		m.Lock()
		if f.who == 0 {
			delete(m.of, id)
			m.Unlock()
			return
		}
		switch {
		case now != f.last || !running:
			f.last, f.running, wait = now, running, lookOften
			close(f.changed)
			f.changed = make(chan struct{})
		case f.joined:
			wait = lookOften
		default:
			wait = min(wait+wait/8, lookSeldom)
		}
		f.joined = false
		if !running { // a later run has another one that looks
			delete(m.of, id)
			m.Unlock()
			return
		}
		m.Unlock()
	}
}

func stampNow(path string) stamp {
	s, _ := stampOf(path)
	return s
}

// following is whether the container runs, and what is closed at the next change.
func (e *Engine) following(f *followed) (running bool, changed <-chan struct{}) {
	e.follows.Lock()
	defer e.follows.Unlock()
	return f.running, f.changed
}

// awaitChange waits for the next one, or the moment until unless it is zero. False: the context is over.
func awaitChange(ctx context.Context, changed <-chan struct{}, until time.Time) bool {
	var end <-chan time.Time
	if !until.IsZero() {
		t := time.NewTimer(time.Until(until) + time.Millisecond)
		defer t.Stop()
		end = t.C
	}
	select {
	case <-changed:
	case <-end:
	case <-ctx.Done():
		return false
	}
	return true
}

// buffer lends a buffer to read a file with; give it back at the file's end, where it is empty.
func (f *follows) buffer(file *os.File) *bufio.Reader {
	if b, ok := f.buffers.Get().(*bufio.Reader); ok {
		b.Reset(file)
		return b
	}
	return bufio.NewReaderSize(file, 64<<10)
}
