package test

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"glassbox/test/machine"
)

// TestManyCallers: the engine is one value that many goroutines use at the same time (test/many), under the race detector.
func TestManyCallers(t *testing.T) {
	if os.Getenv("GLASSBOX_TEST_VM") != "" {
		t.Skip("needs a C compiler; goroutines race for the same on every hierarchy: make test does")
	}
	prepare(t)
	dir, err := run.seed.get()
	if err != nil {
		t.Fatal(err)
	}
	work := t.TempDir()
	program := filepath.Join(work, "many")
	build := exec.Command("go", "build", "-race", "-o", program, "./many")
	build.Env = append(os.Environ(), "CGO_ENABLED=1") // the race detector is a C library
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("go build -race needs a C compiler (make setup): %v\n%s", err, out)
	}
	host, err := machine.Start("many", filepath.Join(work, "machine"))
	if err != nil {
		t.Fatal(err)
	}
	defer host.Close()
	storeDir := filepath.Join(work, "store")
	env := []string{"PATH=" + run.bin + ":/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=" + work}
	if err := mountStore(host, storeDir); err != nil {
		t.Fatal(err)
	}
	if res, err := host.Run(scaled(time.Minute), []string{"cp", "-a", dir + "/.", storeDir}, env, "/"); err != nil || res.Code != 0 {
		t.Fatal(err, res.Stderr)
	}
	began := time.Now()
	argv := []string{program, store, "/run/glassbox", filepath.Join(run.bin, "glassbox-runtime")}
	res, err := host.Run(scaled(5*time.Minute), argv, env, "/")
	if err != nil || res.Code != 0 {
		t.Errorf("exit code %d, %v\n%s%s", res.Code, err, res.Stdout, res.Stderr)
	}
	t.Logf("%v for 32 callers", time.Since(began).Round(time.Millisecond))
}
