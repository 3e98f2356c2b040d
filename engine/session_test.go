package engine

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"glassbox/state"
	"glassbox/supervise"
)

func TestParseDetachKeys(t *testing.T) {
	for text, want := range map[string]string{
		"": "\x10\x11", "ctrl-p,ctrl-q": "\x10\x11", "x": "x", "a,ctrl-b,c": "a\x02c",
		"ctrl-@": "\x00", "ctrl-[": "\x1b", "ctrl-\\": "\x1c", "ctrl-_": "\x1f",
	} {
		if got, err := ParseDetachKeys(text); err != nil || string(got) != want {
			t.Errorf("%q: %q, %v, want %q", text, got, err, want)
		}
	}
	for _, text := range []string{"xx", "ctrl-", "ctrl-1", "ctrl-P", "a,,b", "ctrl-pp", "strg-p"} {
		if got, err := ParseDetachKeys(text); err == nil {
			t.Errorf("%q: %q, want an error", text, got)
		}
	}
}

// TestTail: lines are counted, however many pieces each is stored in, and though two streams have one open at the same time.
func TestTail(t *testing.T) {
	piece := strings.Repeat(".", 16<<10) // only a line that is too long for one entry goes on in the next
	log := []supervise.Line{
		{Log: "first\n", Stream: "stdout"},
		{Log: "long1" + piece, Stream: "stdout"},
		{Log: "E1" + piece, Stream: "stderr"},
		{Log: "long2" + piece, Stream: "stdout"},
		{Log: "E2\n", Stream: "stderr"},
		{Log: "long3\n", Stream: "stdout"},
		{Log: "last\n", Stream: "stdout"},
		{Log: "open", Stream: "stderr"},
	}
	for n, want := range []string{
		"", "open", "last\nopen", "E1E2\nlast\nopen",
		"long1E1long2E2\nlong3\nlast\nopen", "first\nlong1E1long2E2\nlong3\nlast\nopen",
	} {
		last := tail{max: n}
		for _, l := range log {
			last.add(l)
		}
		got := ""
		last.each(func(l supervise.Line) error {
			got += l.Log
			return nil
		})
		if got = strings.ReplaceAll(got, ".", ""); got != want {
			t.Errorf("the last %d: %q, want %q", n, got, want)
		}
	}
}

// stored is an engine with one container, of which only the state is there.
func stored(t *testing.T, s *supervise.State) (e *Engine, id string) {
	t.Helper()
	dir := t.TempDir()
	e, id = &Engine{cfg: Config{Root: filepath.Join(dir, "root"), State: filepath.Join(dir, "state")}}, "c"
	if err := os.MkdirAll(e.dir(id), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(e.dir(id), supervise.ContainerFile), []byte("{}"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := supervise.WriteState(e.dir(id), s); err != nil {
		t.Fatal(err)
	}
	return e, id
}

// TestAlive: to hold the lock is not to be alive, and a state that says so is true only while somebody holds the lock.
func TestAlive(t *testing.T) {
	for _, c := range []struct {
		name, status string
		held         bool
		want         string
		alive        bool
	}{
		{"a supervisor with a container", supervise.Running, true, supervise.Running, true},
		{"a supervisor that waits for the next run", supervise.Restarting, true, supervise.Restarting, false},
		{"one that was killed meanwhile", supervise.Restarting, false, supervise.Exited, false},
		{"a supervisor that was killed", supervise.Running, false, supervise.Exited, false},
		{"somebody removes it", supervise.Exited, true, supervise.Exited, false},
		{"somebody starts it", supervise.Created, true, supervise.Created, false},
	} {
		e, id := stored(t, &supervise.State{Status: c.status, Started: time.Now(), Boot: supervise.BootID()})
		if c.held {
			lock, _, err := state.Lock(e.lockFile(id), false)
			if err != nil {
				t.Fatal(err)
			}
			defer lock.Close()
		}
		s, err := e.state(id)
		if err != nil || s.Status != c.want || s.Alive() != c.alive {
			t.Errorf("%s: %+v, %v, want %s, alive %v", c.name, s, err, c.want, c.alive)
		}
		follow := alive{e: e, id: id}
		if got, want := follow.now(), c.held && (c.alive || c.status == supervise.Restarting); got != want {
			t.Errorf("%s: its log is followed: %v, want %v", c.name, got, want)
		}
	}
}

// TestLost: how a run ended is told where it was written down, and it is not said that the host was restarted unless it was.
func TestLost(t *testing.T) {
	run := &supervise.State{Status: supervise.Running, Started: time.Now(), Boot: supervise.BootID()}
	e, id := stored(t, run)
	if s, err := e.state(id); err != nil || s.ExitCode != 137 || s.Error != "its supervisor was killed" {
		t.Errorf("of this boot: %+v, %v", s, err)
	}
	run.Boot = "another"
	if e, id := stored(t, run); true {
		if s, err := e.state(id); err != nil || s.ExitCode != 137 || s.Error != "the host was restarted while it ran" {
			t.Errorf("of another boot: %+v, %v", s, err)
		}
	}
	// No room beside the container: the directory is none.
	end := *run
	end.Status, end.ExitCode = supervise.Exited, 7
	job := &supervise.Job{ID: id, Dir: filepath.Join(e.dir(id), "full"), State: e.cfg.State}
	if err := supervise.RecordEnd(job, &end); err != nil {
		t.Fatal(err)
	}
	for range 2 { // the first look moves it
		if s, err := e.state(id); err != nil || s.Status != supervise.Exited || s.ExitCode != 7 || s.Error != "" {
			t.Errorf("written down elsewhere: %+v, %v", s, err)
		}
	}
	// The end of an earlier run is none of this one.
	if err := supervise.RecordEnd(job, &end); err != nil {
		t.Fatal(err)
	}
	next := supervise.State{Status: supervise.Running, Started: time.Now().Add(time.Second), Boot: supervise.BootID()}
	if err := supervise.WriteState(e.dir(id), &next); err != nil {
		t.Fatal(err)
	}
	if s, err := e.state(id); err != nil || s.ExitCode != 137 {
		t.Errorf("of an earlier run: %+v, %v", s, err)
	}
}

// TestEnd: one run is waited for, whoever holds the lock then, and a context ends it.
func TestEnd(t *testing.T) {
	// Its pid is another's: the process itself is gone.
	run := &supervise.State{Status: supervise.Running, PID: os.Getpid(), Started: time.Now(), Boot: supervise.BootID()}
	e, id := stored(t, run)
	lock, _, err := state.Lock(e.lockFile(id), false)
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Millisecond)
	defer cancel()
	if _, err := e.end(ctx, id, run); err != context.DeadlineExceeded {
		t.Errorf("its supervisor is still at work: %v, want the context's error", err)
	}
	end := *run
	end.Status, end.ExitCode = supervise.Restarting, 5
	if err := supervise.WriteState(e.dir(id), &end); err != nil {
		t.Fatal(err)
	}
	if code, err := e.end(t.Context(), id, run); code != 5 || err != nil {
		t.Errorf("its supervisor waits for the next run: %d, %v, want 5", code, err)
	}
	lock.WriteAt([]byte("9"), 0)
	if err := os.RemoveAll(e.dir(id)); err != nil {
		t.Fatal(err)
	}
	if code, err := e.end(t.Context(), id, run); code != 9 || err != nil {
		t.Errorf("removed at its end: %d, %v, want 9", code, err)
	}
}
