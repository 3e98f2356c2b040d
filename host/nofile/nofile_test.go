package nofile_test

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"glassbox/host/nofile"
)

func TestMain(m *testing.M) {
	if os.Getenv("NOFILE_TEST_PRINT") != "" {
		var now syscall.Rlimit
		syscall.Getrlimit(syscall.RLIMIT_NOFILE, &now)
		soft, hard := nofile.Limits()
		fmt.Println(soft, hard, now.Cur != soft)
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// A process started with a soft limit of 123 sees 123, although Go has raised its own limit by the time main runs.
func TestBeforeGoRaisedIt(t *testing.T) {
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("/bin/sh", "-c", `ulimit -S -n 123 && exec "$0"`, exe)
	cmd.Env = append(os.Environ(), "NOFILE_TEST_PRINT=1")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	_, hard := nofile.Limits()
	want := fmt.Sprintf("123 %d true", hard)
	if got := strings.TrimSpace(string(out)); got != want {
		t.Errorf("soft, hard, raised = %q, want %q", got, want)
	}
}
