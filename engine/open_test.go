package engine

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"glassbox/container"
	"glassbox/state"
	"glassbox/supervise"
)

// TestStaysOpen: an engine that stays open sees and repairs what is killed after it was opened, as a command that opens one does.
func TestStaysOpen(t *testing.T) {
	e := opened(t)
	c := create(t, e, container.Words{Name: "web"})
	rm := create(t, e, container.Words{Name: "gone", Remove: true})
	if list, err := e.List(t.Context(), ListOptions{All: true}); err != nil || len(list) != 2 {
		t.Fatalf("before: %v, %v", list, err)
	}
	for _, c := range []*container.Container{c, rm} {
		job := supervise.Job{
			ID: c.ID, Dir: e.dir(c.ID), NameFile: e.nameFile(c.Name), Remove: c == rm, Cgroups: map[string]string{"pids": "/sys/fs/cgroup/none"},
		}
		if err := state.WriteJSON(filepath.Join(e.dir(c.ID), supervise.JobFile), &job); err != nil {
			t.Fatal(err)
		}
		const empty = `{"version":1,"arch":"amd64","steps":[]}`
		if err := os.WriteFile(filepath.Join(e.dir(c.ID), supervise.PlanFile), []byte(empty), 0o600); err != nil {
			t.Fatal(err)
		}
		became(t, e, c, supervise.State{Status: supervise.Running, PID: 1 << 22, Started: time.Now(), Boot: supervise.BootID()})
		// Its supervisor is killed: the lock's file stays, and nobody holds it.
		lock, _, err := state.Lock(e.lockFile(c.ID), true)
		if err != nil {
			t.Fatal(err)
		}
		lock.Close()
	}
	// Somebody was killed while he made a container.
	half := newID()
	lock, _, err := state.Lock(e.lockFile(half), true)
	if err != nil {
		t.Fatal(err)
	}
	lock.Close()
	if err := os.Symlink(half, e.nameFile("half")); err != nil {
		t.Fatal(err)
	}
	list, err := e.List(t.Context(), ListOptions{All: true})
	if err != nil || len(list) != 1 || list[0].State != supervise.Exited {
		t.Errorf("after: %+v, %v, want one, exited", list, err)
	}
	if v, err := e.Inspect(t.Context(), "web"); err != nil || v.State.Running || v.State.ExitCode != 137 {
		t.Errorf("inspect: %+v, %v", v, err)
	}
	if _, err := os.Stat(e.lockFile(c.ID)); !os.IsNotExist(err) {
		t.Errorf("its lock is still there: %v", err)
	}
	if _, err := os.Stat(e.dir(rm.ID)); !os.IsNotExist(err) {
		t.Errorf("what one with --rm leaves is still there: %v", err)
	}
	create(t, e, container.Words{Name: "half"}) // whose name is free again
}
