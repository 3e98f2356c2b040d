package api

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"testing"

	"glassbox/test/plain"
)

// inside is set in the process that has a network of its own: networks that tests make have bridges, which are none of the host's.
const inside = "GLASSBOX_API_TEST_INSIDE"

func TestMain(m *testing.M) {
	if os.Geteuid() != 0 {
		plain.Main(m)
	}
	if os.Getenv(inside) == "" {
		cmd := exec.Command(os.Args[0], os.Args[1:]...)
		cmd.Env = append(os.Environ(), inside+"=1")
		cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
		cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNET | syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
		err := cmd.Run()
		var exit *exec.ExitError
		if err != nil && !errors.As(err, &exit) {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(cmd.ProcessState.ExitCode())
	}
	if out, err := exec.Command("ip", "link", "set", "lo", "up").CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "ip: %v: %s\n", err, out)
		os.Exit(1)
	}
	plain.Main(m)
}
