// Package plain puts a test's process into the state that tests take for granted, whatever shell, service or CI started it.
//
// Its one idea: what a process inherits (umask, limits, environment, ignored signals, priority) is part of a test's input, so the test
// sets it. What a whole host has (settings of the kernel, firewall, mounts) is set in the namespaces that a test makes for itself: see
// package machine. It refuses to change anything but the calling process. `make test ON=test/otherhost.sh` runs the suite on a host
// that is different in all of this. Start reading at [Set].
package plain

import (
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// foreign are the variables by which a person tells programs how to behave. A name that ends with * is a beginning.
var foreign = [...]string{
	"LANG", "LANGUAGE", "LC_*", "TZ", "COLUMNS", "LINES", "TERM", "NO_COLOR", "CLICOLOR*", "PAGER", "EDITOR", "VISUAL", "XDG_*",
	"GLASSBOX_ROOT", "GLASSBOX_STATE", "GLASSBOX_LOG", "DOCKER_*", "CONTAINER*", "BUILDKIT_*", "REGISTRY_*", "SSL_CERT_*", "http_proxy",
	"https_proxy", "no_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "ALL_PROXY", "NOTIFY_SOCKET", "LISTEN_*", "WATCHDOG_*",
	"CDPATH", "ENV", "BASH_ENV", "GREP_*", "POSIXLY_CORRECT", "GOTRACEBACK", "GODEBUG", "GOMAXPROCS", "GOGC", "GOMEMLIMIT", "LD_*",
	"TAR_OPTIONS",
}

// done marks the environment of processes whose parent is plain: they have what that gave them, which may be a test's own choice.
const done = "GLASSBOX_TEST_PLAIN"

// Main is a TestMain that makes the process plain before the tests.
func Main(m *testing.M) {
	if err := Set(); err != nil {
		fmt.Fprintln(os.Stderr, "plain:", err)
		os.Exit(1)
	}
	home()
	os.Exit(m.Run())
}

// home takes the home directory away, where credentials and settings of the person are, and leaves Go's own files where they are.
func home() {
	for name, file := range map[string]string{"GOPATH": "go", "GOCACHE": ".cache/go-build"} {
		if os.Getenv(name) == "" {
			os.Setenv(name, filepath.Join(os.Getenv("HOME"), file))
		}
	}
	os.Setenv("HOME", "/nonexistent")
}

// Set makes the calling process plain. It belongs at the beginning of TestMain: what was started before stays as it is.
func Set() error {
	if os.Getenv(done) != "" {
		return nil
	}
	syscall.Umask(0o022)
	environment()
	// Time zones are read from TZ once, at the first use, which may have been.
	time.Local = time.UTC
	if err := limits(); err != nil {
		return err
	}
	signals()
	if err := os.WriteFile("/proc/self/oom_score_adj", []byte("0"), 0); err != nil {
		return fmt.Errorf("oom_score_adj: %w", err)
	}
	return priority()
}

// environment takes out what others set, and says what programs would take for granted.
func environment() {
	for _, variable := range os.Environ() {
		name, _, _ := strings.Cut(variable, "=")
		for _, f := range foreign {
			if begin, ok := strings.CutSuffix(f, "*"); name == f || ok && strings.HasPrefix(name, begin) {
				os.Unsetenv(name)
			}
		}
	}
	os.Setenv("LANG", "C.UTF-8")
	os.Setenv("TZ", "UTC")
	os.Setenv(done, "1")
}

// limits sets soft limits to what Debian's shells have, as far as the hard ones allow it: to raise those takes CAP_SYS_RESOURCE, which
// root of a container may not have.
func limits() error {
	for resource, soft := range map[int]uint64{
		unix.RLIMIT_CORE: 0, unix.RLIMIT_STACK: 8 << 20, unix.RLIMIT_NOFILE: unix.RLIM_INFINITY, unix.RLIMIT_MEMLOCK: unix.RLIM_INFINITY,
		unix.RLIMIT_NPROC: unix.RLIM_INFINITY, unix.RLIMIT_FSIZE: unix.RLIM_INFINITY,
	} {
		var have syscall.Rlimit
		if err := syscall.Getrlimit(resource, &have); err != nil {
			return fmt.Errorf("getrlimit %d: %w", resource, err)
		}
		have.Cur = min(soft, have.Max)
		if err := syscall.Setrlimit(resource, &have); err != nil {
			return fmt.Errorf("setrlimit %d: %w", resource, err)
		}
	}
	return nil
}

// signals takes care that children start with no signal ignored, as they would below nohup: execve(2) makes a handler the default
// action, but leaves what is ignored.
func signals() {
	for n := syscall.Signal(1); n < 32; n++ {
		if signal.Ignored(n) {
			signal.Notify(make(chan os.Signal, 1), n)
		}
	}
}

// priority makes every thread of the process an ordinary one: on Linux each has a nice value of its own (setpriority(2)).
func priority() error {
	tasks, err := os.ReadDir("/proc/self/task")
	if err != nil {
		return err
	}
	for _, task := range tasks {
		tid, _ := strconv.Atoi(task.Name())
		err := unix.Setpriority(unix.PRIO_PROCESS, tid, 0)
		if err == unix.EACCES && os.Geteuid() != 0 {
			return nil // an ordinary user can't be nicer to itself again (setpriority(2))
		}
		if err != nil && err != unix.ESRCH {
			return fmt.Errorf("nice 0: %w", err)
		}
	}
	return nil
}
