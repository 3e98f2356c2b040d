package engine

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"glassbox/container"
	"glassbox/state"
	"glassbox/supervise"
)

// within polls for a state, for at most a minute.
func within(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("a minute has passed: %s", what)
		}
	}
}

// runsUntil makes a container one that runs, as far as others can see, until the end that it returns.
func runsUntil(t *testing.T, e *Engine, c *container.Container) (end func()) {
	t.Helper()
	lock, _, err := state.Lock(e.lockFile(c.ID), true)
	if err != nil {
		t.Fatal(err)
	}
	became(t, e, c, supervise.State{Status: supervise.Running, Started: time.Now(), Boot: supervise.BootID()})
	return func() { lock.Close() }
}

// TestFollowers: many who follow one log have one who looks at the file, each gets every line, and nothing is left when they have gone.
// What is written at the end of the run reaches them too.
func TestFollowers(t *testing.T) {
	e := opened(t)
	c := create(t, e, container.Words{Name: "web"})
	dir := e.dir(c.ID)
	log := filepath.Join(dir, supervise.LogFile)
	line := func(text string) {
		logged(t, log, supervise.Line{Log: text + "\n", Stream: "stdout", Time: time.Now()})
	}
	line("first")
	unlock := runsUntil(t, e, c)
	const n = 50
	out := make([]written, n)
	ended := make(chan error, n)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	for i := range n {
		ctx := ctx
		if i > 0 {
			ctx = t.Context()
		}
		go func() { ended <- e.Logs(ctx, "web", LogOptions{Follow: true, Tail: -1}, &out[i], &out[i]) }()
	}
	all := func(text string, from int) func() bool {
		return func() bool {
			for i := from; i < n; i++ {
				if !strings.Contains(out[i].String(), text) {
					return false
				}
			}
			return true
		}
	}
	within(t, "all have the first line", all("first\n", 0))
	within(t, "all follow", func() bool {
		e.follows.Lock()
		defer e.follows.Unlock()
		return len(e.follows.of) == 1 && e.follows.of[c.ID].who == n
	})
	line("second")
	within(t, "all have the second line", all("second\n", 0))
	cancel()
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	// Another file under the same name, as after a rotation.
	if err := os.Rename(log, log+".1"); err != nil {
		t.Fatal(err)
	}
	line("third")
	within(t, "all that are left have the third line", all("third\n", 1))
	if strings.Contains(out[0].String(), "third") {
		t.Error("who has gone got another line")
	}
	line("last")
	unlock()
	for range n - 1 {
		if err := <-ended; err != nil {
			t.Fatal(err)
		}
	}
	if !all("last\n", 1)() {
		t.Error("the last line is missing")
	}
	within(t, "nobody looks any more", func() bool {
		e.follows.Lock()
		defer e.follows.Unlock()
		return len(e.follows.of) == 0
	})
}

// TestRemembered: a server's list has what the files say at that moment, however they are changed.
func TestRemembered(t *testing.T) {
	e := opened(t)
	e.cfg.Remember = true
	c := create(t, e, container.Words{Name: "web"})
	look := func(want, status string) {
		t.Helper()
		for range 2 { // the second time from memory, once the file is old enough
			list, err := e.List(t.Context(), ListOptions{All: true})
			if err != nil || len(list) != 1 || list[0].Names[0] != "/"+want || list[0].State != status {
				t.Fatalf("got %+v, %v, want %s %s", list, err, want, status)
			}
		}
	}
	kept := func() bool {
		look(c.Name, statusOf(t, e, c.ID))
		e.memory.Lock()
		defer e.memory.Unlock()
		_, ok := e.memory.of[c.ID]
		return ok
	}
	look("web", supervise.Created)
	within(t, "it is remembered", kept)
	if err := e.Rename(t.Context(), "web", "other"); err != nil {
		t.Fatal(err)
	}
	c.Name = "other"
	look("other", supervise.Created)
	unlock := runsUntil(t, e, c)
	look("other", supervise.Running)
	within(t, "it is remembered", kept)
	if err := e.notePaused(c.ID); err != nil {
		t.Fatal(err)
	}
	look("other", supervise.Paused)
	if err := os.Remove(e.pausedFile(c.ID)); err != nil {
		t.Fatal(err)
	}
	look("other", supervise.Running)
	unlock()
	if err := supervise.WriteState(e.dir(c.ID), &supervise.State{Status: supervise.Exited, ExitCode: 3}); err != nil {
		t.Fatal(err)
	}
	look("other", supervise.Exited)
	// In place, with a content of the same length.
	within(t, "it is remembered", kept)
	name := filepath.Join(e.dir(c.ID), supervise.ContainerFile)
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, []byte(strings.Replace(string(text), `"other"`, `"OTHER"`, 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	c.Name = "OTHER"
	look("OTHER", supervise.Exited)
	if err := os.RemoveAll(e.dir(c.ID)); err != nil {
		t.Fatal(err)
	}
	if list, err := e.List(t.Context(), ListOptions{All: true}); err != nil || len(list) != 0 {
		t.Fatalf("got %v, %v", list, err)
	}
}

func statusOf(t *testing.T, e *Engine, id string) string {
	t.Helper()
	s, err := e.state(id)
	if err != nil {
		t.Fatal(err)
	}
	return s.Status
}
