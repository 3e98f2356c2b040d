package bundle

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"glassbox/fork"
	"glassbox/host"
	"glassbox/oci"
	"glassbox/plan"
)

// fake is a container as its files and its process show it, made without any right: the process is an ordinary child, in the namespaces
// of the test. What the verbs do with files, signals, locks and hooks is the same as with a real one.
type fake struct {
	t        *testing.T
	r        *Runtime
	c        *record
	dir      string // of files of the test
	warnings []string
}

// Processes of fakes, for a shell; $1 is the directory with the FIFO of a created container.
const (
	running = `echo $$; exec sleep 1000`
	created = `( : >"$1/exec.fifo"; exec sleep 1000 ) & echo $!; wait` // forked and never at an execve, as a container's first process
	failing = `( printf '\5\0\0\0\2\0\0\0' >"$1/exec.fifo" ) & echo $!; wait`
	ended   = `echo $$; exit 0`
)

// newFake makes one, and ends its process with the test.
func newFake(t *testing.T, process string, edit func(*specs.Spec)) *fake {
	t.Helper()
	f := &fake{t: t, dir: t.TempDir()}
	f.r = &Runtime{Root: filepath.Join(f.dir, "state"), facts: fieldFacts(host.CgroupV2)}
	f.r.Warn = func(format string, a ...any) { f.warnings = append(f.warnings, fmt.Sprintf(format, a...)) }
	l, err := f.r.make("f")
	if err != nil {
		t.Fatal(err)
	}
	defer l.unlock()
	if err := f.r.makeFIFO("f"); err != nil {
		t.Fatal(err)
	}
	spec, _, err := oci.Parse([]byte(fieldBase))
	if err != nil {
		t.Fatal(err)
	}
	spec.Linux.CgroupsPath = ""
	if edit != nil {
		edit(spec)
	}
	text, err := json.Marshal(spec)
	if err != nil {
		t.Fatal(err)
	}
	oci.Complete(spec, f.dir)
	in, err := f.r.input("f", f.dir, spec)
	if err != nil {
		t.Fatal(err)
	}
	creation(&in)
	out, err := f.r.compile(in)
	if err != nil {
		t.Fatal(err)
	}
	f.c = newRecord("f", in, out, &plan.Plan{})
	f.c.Cgroups, f.c.left.Cgroups = nil, nil // nobody gave it one
	if err := f.r.prepare(f.c, false); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("sh", "-c", process, "sh", f.r.startDir("f"))
	stdout, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(stdout).ReadString('\n')
	if _, e := fmt.Sscan(line, &f.c.PID); err != nil || e != nil {
		t.Fatalf("%q: %v, %v", line, err, e)
	}
	t.Cleanup(func() {
		unix.Kill(f.c.PID, unix.SIGKILL)
		cmd.Process.Kill()
		cmd.Wait()
	})
	if process == ended {
		cmd.Wait()
	}
	started := f.c.PID
	if err := f.r.cloned(f.c, &fork.Process{PID: os.Getpid()}, text, out.Plan); err != nil {
		t.Fatal(err)
	}
	// cloned has looked up the test itself, which can't have ended already.
	f.c.PID, f.c.Start = started, 0
	if process != ended {
		if f.c.Start, err = fork.StartTime(started); err != nil {
			t.Fatal(err)
		}
	}
	if err := f.r.record(f.c, &fork.Process{PID: started}, CreateOptions{PIDFile: filepath.Join(f.dir, "pid")}); err != nil {
		t.Fatal(err)
	}
	if err := writeFile(filepath.Join(f.r.dir("f"), stateFile), f.c.text()); err != nil {
		t.Fatal(err)
	}
	return f
}

// until waits for what takes a moment.
func (f *fake) until(what string, done func() bool) {
	f.t.Helper()
	for end := time.Now().Add(10 * time.Second); !done(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			f.t.Fatalf("%s: not within ten seconds", what)
		}
	}
}

func (f *fake) status() string {
	s, err := f.r.State("f")
	if err != nil {
		return err.Error()
	}
	return s.Status
}

// refused wants an error with a text.
func (f *fake) refused(what string, err error, want string) {
	f.t.Helper()
	if err == nil || !strings.Contains(err.Error(), want) {
		f.t.Errorf("%s: got %v, want %q", what, err, want)
	}
}

// hook is a script that adds its name and what it is given to a file.
func (f *fake) hook(name, more string) specs.Hook {
	f.t.Helper()
	path := filepath.Join(f.dir, "hook")
	if err := os.WriteFile(path, []byte("#!/bin/sh\nstate=$(cat)\necho \"$1 $(pwd) $state\" >>"+f.dir+"/log\neval \"$2\"\n"),
		0o755); err != nil {
		f.t.Fatal(err)
	}
	return specs.Hook{Path: path, Args: []string{"hook", name, more}}
}

// log is what hooks wrote, the first word of each line.
func (f *fake) log() string {
	text, _ := os.ReadFile(filepath.Join(f.dir, "log"))
	var names []string
	for line := range strings.Lines(string(text)) {
		name, _, _ := strings.Cut(line, " ")
		names = append(names, name)
	}
	return strings.Join(names, " ")
}
