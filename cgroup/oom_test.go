package cgroup

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

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

// A kill that happens between two looks, and leaves nobody in the cgroup, is told before the end is.
func TestWatchOOMLast(t *testing.T) {
	dir := t.TempDir()
	write := func(kills string) {
		if err := os.WriteFile(filepath.Join(dir, "memory.events"), []byte("oom_kill "+kills+"\n"), 0o600); err != nil {
			t.Error(err)
		}
	}
	write("0")
	events := filepath.Join(dir, "cgroup.events") // who reads it waits until the test has written
	if err := unix.Mkfifo(events, 0o600); err != nil {
		t.Fatal(err)
	}
	go func() {
		for range 2 {
			f, err := os.OpenFile(events, os.O_WRONLY, 0)
			if err != nil {
				t.Error(err)
				return
			}
			write("1")
			f.WriteString("populated 0\n")
			f.Close()
			for unix.Access(filepath.Join(dir, "next"), unix.F_OK) != nil { // one answer for each look
				time.Sleep(time.Millisecond)
			}
			os.Remove(filepath.Join(dir, "next"))
		}
	}()
	w := &OOMWatch{paths: map[string]string{"": dir}, v2: dir, events: -1, source: -1, stop: -1}
	for _, want := range []bool{true, false} {
		if got, err := w.Next(); got != want || err != nil {
			t.Errorf("got %v, %v, want %v", got, err, want)
		}
		if err := os.WriteFile(filepath.Join(dir, "next"), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// A process that can't be seen from here is listed as 0, by which kill(2) means all of the caller's own group.
func TestSignalOutOfSight(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{"cgroup.events": "populated 1\nfrozen 1\n", "cgroup.procs": "0\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := Signal(map[string]string{"": dir}, 0); !errors.Is(err, unix.EPERM) { // 0 does no harm to whom it reaches
		t.Errorf("got %v, want EPERM", err)
	}
}
