package cgroup

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"glassbox/plan"
)

// A kill for want of memory is told while somebody waits, and the end as well.
func TestWatchOOM(t *testing.T) {
	f := realHost(t)
	need(t, f, "memory")
	r := memory(24 << 20)
	r.Memory.Swap = r.Memory.Limit
	g := newGroup(t, f, "watch", r)
	cmd, _ := g.start("sleep 1; head -c 200000000 /dev/zero | tail >/dev/null; sleep 1000")
	w, err := WatchOOM(g.setup.Paths)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	next := make(chan bool)
	go func() {
		for {
			more, err := w.Next()
			if err != nil {
				t.Error(err)
			}
			next <- more
			if !more {
				return
			}
		}
	}()
	await := func(what string, want bool) {
		t.Helper()
		select {
		case got := <-next:
			if got != want {
				t.Errorf("%s: Next = %v, want %v", what, got, want)
			}
		case <-time.After(60 * time.Second):
			t.Fatalf("%s: nothing was told", what)
		}
	}
	await("a kill", true)
	if err := Kill(g.setup.Paths); err != nil {
		t.Fatal(err)
	}
	cmd.Wait()
	if _, v1 := g.setup.Paths["memory"]; v1 {
		for _, dir := range g.dirs() {
			if err := Remove(&plan.CgroupRemove{Path: dir}); err != nil {
				t.Error(err)
			}
		}
	}
	for more := true; more; { // v1 may tell more than once
		select {
		case more = <-next:
		case <-time.After(60 * time.Second):
			t.Fatal("the end wasn't told")
		}
	}
}

// A kill that came before Stop is told: it may be why a container has ended, and its end why the watch does.
func TestWatchOOMStopAfterKill(t *testing.T) {
	f := realHost(t)
	need(t, f, "memory")
	r := memory(24 << 20)
	r.Memory.Swap = r.Memory.Limit
	g := newGroup(t, f, "stop-kill", r)
	g.start("exec sleep 1000") // so that the cgroup isn't empty
	watched := filepath.Join(t.TempDir(), "watched")
	cmd, _ := g.start("while [ ! -e " + watched + " ]; do sleep 0.05; done; head -c 200000000 /dev/zero | tail >/dev/null")
	w, err := WatchOOM(g.setup.Paths)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	if err := os.WriteFile(watched, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	cmd.Wait()
	if n, _, err := OOMKills(g.setup.Paths); n == 0 || err != nil {
		t.Fatalf("killed for want of memory: %d, %v", n, err)
	}
	w.Stop()
	if more, err := w.Next(); !more || err != nil {
		t.Errorf("Next = %v, %v, want the kill", more, err)
	}
	for more := true; more; { // v1 may tell more than once
		if more, err = w.Next(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestWatchOOMStop(t *testing.T) {
	f := realHost(t)
	need(t, f, "memory")
	g := newGroup(t, f, "stop", nil)
	g.start("exec sleep 1000")
	g.settled()
	w, err := WatchOOM(g.setup.Paths)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	time.AfterFunc(50*time.Millisecond, w.Stop)
	for range 2 {
		if more, err := w.Next(); more || err != nil {
			t.Errorf("after Stop: Next = %v, %v", more, err)
		}
	}
	if _, err := WatchOOM(map[string]string{"": t.TempDir()}); err == nil {
		t.Error("a cgroup without memory controller can be watched")
	}
}
