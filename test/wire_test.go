package test

import (
	"os"
	"os/exec"
	"testing"
)

// TestWire decodes this engine's answers into moby's own types, in a module of its own.
func TestWire(t *testing.T) {
	cmd := exec.Command("go", "test", "-count=1", "./...")
	cmd.Dir, cmd.Env = "wire", append(os.Environ(), "GOWORK=off", "GOFLAGS=-mod=mod")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}
