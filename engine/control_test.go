package engine

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"glassbox/container"
	"glassbox/event"
	"glassbox/fork"
	"glassbox/state"
	"glassbox/supervise"
)

// runs lets a process of this host stand for a container's: the test does what a supervisor does for its state.
func runs(t *testing.T, e *Engine, c *container.Container, args ...string) *exec.Cmd {
	t.Helper()
	lock, _, err := state.Lock(e.lockFile(c.ID), true)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(args[0], args[1:]...)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	start, err := fork.StartTime(cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	s := supervise.State{
		Status: supervise.Running, PID: cmd.Process.Pid, Start: start, Started: time.Now().Round(0), Boot: supervise.BootID(),
	}
	became(t, e, c, s)
	done := make(chan struct{})
	go func() {
		defer close(done)
		cmd.Wait()
		end := s
		end.Status, end.PID, end.Finished = supervise.Exited, 0, time.Now()
		if ws, ok := cmd.ProcessState.Sys().(interface{ Signal() unix.Signal }); ok && cmd.ProcessState.ExitCode() < 0 {
			end.ExitCode = 128 + int(ws.Signal())
		} else {
			end.ExitCode = cmd.ProcessState.ExitCode()
		}
		supervise.WriteState(e.dir(c.ID), &end)
		state.Unlock(lock, e.lockFile(c.ID))
	}()
	t.Cleanup(func() {
		cmd.Process.Kill()
		<-done
	})
	return cmd
}

// actions are the events of a container so far.
func actions(t *testing.T, e *Engine, filters ...string) []string {
	t.Helper()
	var got []string
	now := time.Now()
	err := e.Events(t.Context(), EventOptions{Since: time.Unix(1, 0), Until: now, Filters: filters}, func(ev event.Event) error {
		got = append(got, ev.Name())
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return got
}

// TestSignals: a signal reaches the container's process and no other, and what ends it is waited for.
func TestSignals(t *testing.T) {
	e := opened(t)
	c := create(t, e, container.Words{Name: "web"})
	if err := e.Kill(t.Context(), "web", ""); !errors.Is(err, ErrConflict) || !strings.Contains(err.Error(), "is not running (created)") {
		t.Errorf("one that doesn't run: %v", err)
	}
	// A commit that found it running, and comes to pause it when it has ended.
	if resume, err := e.stand(t.Context(), c.ID); err != nil {
		t.Errorf("one that has ended can't be made to stand: %v", err)
	} else {
		resume()
	}
	if err := e.Stop(t.Context(), "web", nil, ""); err != nil {
		t.Errorf("to stop one that doesn't run: %v", err)
	}
	if code, err := e.Wait(t.Context(), "web", ""); code != 0 || err != nil {
		t.Errorf("to wait for one that has not run: %d, %v", code, err)
	}

	// Asked to end, it does so by itself.
	ready := filepath.Join(t.TempDir(), "ready")
	runs(t, e, c, "sh", "-c", `trap "exit 4" TERM; : >"$0"; while :; do sleep 0.02; done`, ready)
	for range 1000 { // until it has set its trap
		if _, err := os.Lstat(ready); err == nil {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	if err := e.Kill(t.Context(), "web", "NOSUCH"); !errors.Is(err, ErrInvalid) {
		t.Errorf("no signal: %v", err)
	}
	if live, err := e.Live(t.Context(), "web"); err == nil || !strings.Contains(err.Error(), "the plan of container web") {
		t.Errorf("one without a plan: %+v, %v", live, err)
	}
	if err := e.Stop(t.Context(), "web", nil, ""); err != nil {
		t.Fatal(err)
	}
	if code, err := e.Wait(t.Context(), "web", ""); code != 4 || err != nil {
		t.Errorf("its code is %d, %v, want 4", code, err)
	}

	// It does not: it is killed when the time is over.
	cmd := runs(t, e, c, "sleep", "60")
	zero := 0
	if err := e.Stop(t.Context(), "web", &zero, "SIGWINCH"); err != nil {
		t.Fatal(err)
	}
	if _, s, err := e.load(t.Context(), "web"); err != nil || s.ExitCode != 137 || s.Status != supervise.Exited {
		t.Errorf("after the time it is %+v, %v", s, err)
	}
	if err := cmd.Process.Signal(unix.Signal(0)); err == nil {
		t.Error("its process is still there")
	}

	runs(t, e, c, "sleep", "60")
	waited := make(chan int)
	go func() {
		code, _ := e.Wait(t.Context(), "web", "")
		waited <- code
	}()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, err := e.Wait(ctx, "web", ""); err != context.DeadlineExceeded {
		t.Errorf("the wait with a context that ends: %v", err)
	}
	ctx, cancel = context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	forever := -1
	if err := e.Stop(ctx, "web", &forever, "WINCH"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("to stop with all time and a context that ends: %v", err)
	}
	if err := e.Kill(t.Context(), "web", ""); err != nil {
		t.Fatal(err)
	}
	if code := <-waited; code != 137 {
		t.Errorf("who waited got %d, want 137", code)
	}

	// Its pid is another's by now.
	supervised(t, e, c, supervise.State{PID: os.Getpid(), Start: 1})
	if err := e.Kill(t.Context(), "web", "USR1"); !errors.Is(err, ErrConflict) {
		t.Errorf("a pid that is another's: %v", err)
	}
	want := []string{"create", "kill", "stop", "kill", "kill", "stop", "kill", "kill"}
	if got := actions(t, e, "container=web"); !slices.Equal(got, want) {
		t.Errorf("events %v, want %v", got, want)
	}
}

// TestRemoveForce kills what runs and leaves nothing.
func TestRemoveForce(t *testing.T) {
	e := opened(t)
	c := create(t, e, container.Words{Name: "web"})
	cmd := runs(t, e, c, "sleep", "60")
	if err := e.Remove(t.Context(), c.ID[:10], RemoveOptions{Force: true}); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Process.Signal(unix.Signal(0)); err == nil {
		t.Error("its process is still there")
	}
	if left := entries(t, e.containers()); len(left) > 0 {
		t.Errorf("%v is left", left)
	}
	if got := actions(t, e, "event=destroy"); !slices.Equal(got, []string{"destroy"}) {
		t.Errorf("events %v", got)
	}
}

// TestRemoveStarting: who removes what is being started doesn't wait for its end. By force it is killed, else it stays.
func TestRemoveStarting(t *testing.T) {
	e := opened(t)
	for _, force := range []bool{false, true} {
		c := create(t, e, container.Words{})
		cmd := runs(t, e, c, "sleep", "60")
		running, err := supervise.ReadState(e.dir(c.ID))
		if err != nil {
			t.Fatal(err)
		}
		// As Start leaves it before its supervisor writes: locked, and created.
		became(t, e, c, supervise.State{Status: supervise.Created})
		time.AfterFunc(50*time.Millisecond, func() { supervise.WriteState(e.dir(c.ID), running) })
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		err = e.Remove(ctx, c.ID, RemoveOptions{Force: force})
		cancel()
		switch {
		case force && err != nil:
			t.Errorf("by force: %v", err)
		case !force && !errors.Is(err, ErrConflict):
			t.Errorf("without force: %v", err)
		}
		if alive := cmd.Process.Signal(unix.Signal(0)) == nil; alive == force {
			t.Errorf("force %v: its process lives: %v", force, alive)
		}
	}
}

// TestPaused: what can be said of a container that is not, or never was, in a state to be paused.
func TestPaused(t *testing.T) {
	e := opened(t)
	c := create(t, e, container.Words{Name: "web"})
	if err := e.Pause(t.Context(), "web"); !errors.Is(err, ErrConflict) {
		t.Errorf("to pause one that doesn't run: %v", err)
	}
	if s, err := e.Stats(t.Context(), "web", nil); err != nil || s.Name != "/web" || s.Pids.Current != 0 || !s.Read.IsZero() {
		t.Errorf("numbers of one that never ran: %+v, %v", s, err)
	}
	supervised(t, e, c, supervise.State{PID: os.Getpid()})
	if err := e.Unpause(t.Context(), "web"); !errors.Is(err, ErrConflict) || !strings.Contains(err.Error(), "is not paused") {
		t.Errorf("to let one go on that isn't paused: %v", err)
	}
	if err := e.Pause(t.Context(), "web"); !errors.Is(err, os.ErrNotExist) || e.paused(c.ID) {
		t.Errorf("to pause one without a job: %v, marked %v", err, e.paused(c.ID))
	}
	if err := os.MkdirAll(e.cfg.State+"/paused", 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(e.pausedFile(c.ID), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := e.Pause(t.Context(), "web"); !errors.Is(err, ErrConflict) || !strings.Contains(err.Error(), "already paused") {
		t.Errorf("to pause one that is paused: %v", err)
	}
	if _, err := e.Attach(t.Context(), "web", AttachOptions{}); !errors.Is(err, ErrConflict) || !strings.Contains(err.Error(), "paused") {
		t.Errorf("to attach to one that is paused: %v", err)
	}
	if _, err := e.target(t.Context(), "web", c.ID); !errors.Is(err, ErrConflict) || !strings.Contains(err.Error(), "unpause") {
		t.Errorf("exec in one that is paused: %v", err)
	}
}

// TestEvents: which events are told, from when to when, and that they are told as they happen.
func TestEvents(t *testing.T) {
	e := opened(t)
	create(t, e, container.Words{Name: "web", Label: []string{"tier=front"}})
	create(t, e, container.Words{Name: "queue"}) // not "queue", with which an ID may begin, too
	between := time.Now()
	if err := e.Rename(t.Context(), "web", "www"); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		filters []string
		want    []string
	}{
		{nil, []string{"create", "create", "rename"}},
		{[]string{"label=tier=front"}, []string{"create", "rename"}},
		{[]string{"event=rename"}, []string{"rename"}},
		{[]string{"container=queue"}, []string{"create"}},
		{[]string{"type=image"}, nil},
	} {
		if got := actions(t, e, c.filters...); !slices.Equal(got, c.want) {
			t.Errorf("%v: %v, want %v", c.filters, got, c.want)
		}
	}
	var seen []event.Event
	collect := func(ev event.Event) error {
		seen = append(seen, ev)
		return nil
	}
	if err := e.Events(t.Context(), EventOptions{Since: between, Until: time.Now()}, collect); err != nil || len(seen) != 1 {
		t.Fatalf("since a moment: %v, %v", seen, err)
	}
	if a := seen[0].Actor.Attributes; a["oldName"] != "web" || a["name"] != "www" || a["tier"] != "front" {
		t.Errorf("attributes %v", a)
	}
	seen = nil
	if err := e.Events(t.Context(), EventOptions{Since: time.Unix(1, 0), Until: between}, collect); err != nil || len(seen) != 2 {
		t.Errorf("until a moment: %v, %v", seen, err)
	}
	if err := e.Events(t.Context(), EventOptions{Filters: []string{"colour=red"}}, collect); !errors.Is(err, ErrInvalid) {
		t.Errorf("a filter that there isn't: %v", err)
	}

	told, stop := make(chan string), errors.New("enough")
	ended := make(chan error)
	go func() {
		ended <- e.Events(t.Context(), EventOptions{Until: time.Now().Add(time.Minute), Filters: []string{"container=queue"}},
			func(ev event.Event) error {
				told <- ev.Action
				return stop
			})
	}()
	for { // until the reader is there
		if err := e.Rename(t.Context(), "queue", "queue2"); err != nil {
			t.Fatal(err)
		}
		select {
		case action := <-told:
			if err := <-ended; action != "rename" || err != stop {
				t.Errorf("told %s, ended with %v", action, err)
			}
			return
		case <-time.After(50 * time.Millisecond):
		}
		if err := e.Rename(t.Context(), "queue2", "queue"); err != nil {
			t.Fatal(err)
		}
	}
}

// TestRemoveSignalsOnce: a container whose container.json can't be read is killed by force once, however long its end takes.
func TestRemoveSignalsOnce(t *testing.T) {
	e := opened(t)
	c := create(t, e, container.Words{Name: "web"})
	sleeper := exec.Command("sleep", "1000")
	if err := sleeper.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { sleeper.Process.Kill(); sleeper.Wait() }()
	start, err := fork.StartTime(sleeper.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	supervised(t, e, c, supervise.State{PID: sleeper.Process.Pid, Start: start}) // the test holds its lock, as if its end took long
	if err := os.WriteFile(filepath.Join(e.dir(c.ID), supervise.ContainerFile), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if err := e.Remove(ctx, c.ID, RemoveOptions{Force: true}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v, want the end of the context", err)
	}
	kills := 0
	err = e.Events(t.Context(), EventOptions{Since: began, Until: time.Now(), Filters: []string{"event=kill"}}, func(event.Event) error {
		kills++
		return nil
	})
	if err != nil || kills != 1 {
		t.Errorf("got %d signals, %v, want 1", kills, err)
	}
}

// TestEndsIt: which signals end a restart policy.
func TestEndsIt(t *testing.T) {
	for _, c := range []struct {
		stop string
		sig  unix.Signal
		want bool
	}{
		{"", unix.SIGTERM, true},
		{"", unix.SIGINT, true},
		{"", unix.SIGHUP, false},
		{"", unix.SIGKILL, true},
		{"QUIT", unix.SIGQUIT, true},
		{"QUIT", unix.SIGTERM, false}, // its program may do something else at that
		{"QUIT", unix.SIGKILL, true},
	} {
		got := endsIt(&container.Container{Config: container.Config{StopSignal: c.stop}}, c.sig)
		if got != c.want {
			t.Errorf("stop signal %q, sent %v: got %v, want %v", c.stop, c.sig, got, c.want)
		}
	}
}
