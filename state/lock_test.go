package state

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

func TestLock(t *testing.T) {
	path := filepath.Join(t.TempDir(), "locks", "x.lock")
	a, fresh, err := Lock(path, false)
	if err != nil || !fresh {
		t.Fatal(fresh, err)
	}
	if !Held(path) {
		t.Error("not held")
	}
	if _, _, err := Lock(path, false); !errors.Is(err, unix.EWOULDBLOCK) {
		t.Errorf("a second lock: %v", err)
	}
	Unlock(a, path)
	if Held(path) {
		t.Error("held after Unlock")
	}
	b, fresh, err := Lock(path, true)
	if err != nil || !fresh {
		t.Errorf("after Unlock: fresh %v, %v", fresh, err)
	}
	// A holder that is killed leaves the file, which is then a trace.
	b.Close()
	c, fresh, err := Lock(path, false)
	if err != nil || fresh {
		t.Errorf("after a kill: fresh %v, %v", fresh, err)
	}
	Unlock(c, path)
}

// TestLockSurvivesExec hands the lock to a child by its descriptor, as a command hands it to the supervisor.
func TestLockSurvivesExec(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.lock")
	f, _, err := Lock(path, true)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("sleep", "0.3")
	cmd.ExtraFiles = []*os.File{f}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	f.Close()
	if !Held(path) {
		t.Error("the child doesn't hold it")
	}
	cmd.Wait()
	if Held(path) {
		t.Error("held by nobody")
	}
}
