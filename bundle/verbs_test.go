package bundle

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"glassbox/fork"
	"glassbox/oci"
	"glassbox/plan"
)

func TestID(t *testing.T) {
	for id, ok := range map[string]bool{
		"a": true, "A_+-.9": true, "...": true, strings.Repeat("x", 1024): true,
		"": false, ".": false, "..": false, "a/b": false, "a b": false, "a\x00": false, "ä": false, strings.Repeat("x", 1025): false,
	} {
		if err := checkID(id); (err == nil) != ok {
			t.Errorf("%q: got %v, want it accepted: %v", id, err, ok)
		}
	}
}

// TestLocks: a container that is there is locked by one at a time; one that is being created doesn't exist for those who ask; who waited
// while it was removed, or made anew, sees that.
func TestLocks(t *testing.T) {
	r := &Runtime{Root: filepath.Join(t.TempDir(), "root")}
	if _, err := r.lock("f", false); !errors.Is(err, ErrNotExist) {
		t.Errorf("nothing there: %v", err)
	}
	l, err := r.make("f")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.make("f"); !errors.Is(err, ErrExists) {
		t.Errorf("made twice: %v", err)
	}
	if _, err := r.lock("f", false); !errors.Is(err, ErrNotExist) {
		t.Errorf("being created: %v", err)
	}
	state := filepath.Join(r.dir("f"), stateFile)
	c := &record{Format: recordFormat, ID: "f", Created: time.Now(), PID: 7, Start: 8}
	if err := os.WriteFile(state, c.text(), 0o600); err != nil {
		t.Fatal(err)
	}
	got := make(chan *lock)
	go func() {
		l, err := r.lock("f", false)
		if err != nil {
			t.Error(err)
		}
		got <- l
	}()
	select {
	case <-got:
		t.Fatal("locked by two")
	case <-time.After(50 * time.Millisecond):
	}
	l.unlock()
	l = <-got
	if _, err := r.make("f"); !errors.Is(err, ErrExists) {
		t.Errorf("a container is there: %v", err)
	}
	go func() {
		_, err := r.lock("f", true)
		if !errors.Is(err, ErrNotExist) {
			t.Errorf("removed meanwhile: %v", err)
		}
		got <- nil
	}()
	time.Sleep(20 * time.Millisecond)
	os.RemoveAll(r.dir("f"))
	l.unlock()
	<-got
	// What a killed runtime left is made anew.
	if err := os.Mkdir(r.dir("f"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(r.dir("f"), "rubbish"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if l, err = r.make("f"); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(r.dir("f"), "rubbish")); err == nil {
		t.Error("what was left is there still")
	}
	if err := os.WriteFile(state, c.text(), 0o600); err != nil {
		t.Fatal(err)
	}
	l.unlock()
	if l, err = r.relock(c); err != nil || l == nil {
		t.Fatalf("got %v, %v, want the lock again", l, err)
	}
	l.unlock()
	if l, err := r.relock(&record{ID: "f", PID: 7, Start: 9}); err != nil || l != nil {
		t.Errorf("another container of the same name: got %v, %v", l, err)
	}
}

func TestStates(t *testing.T) {
	f := newFake(t, running, func(s *specs.Spec) { s.Annotations = map[string]string{"a": "b"} })
	s, err := f.r.State("f")
	if err != nil || s.Status != Running || s.PID != f.c.PID || s.Bundle != f.dir || s.Annotations["a"] != "b" {
		t.Errorf("got %+v, %v", s, err)
	}
	if pid, err := os.ReadFile(filepath.Join(f.dir, "pid")); err != nil || string(pid) != strconv.Itoa(f.c.PID) {
		t.Errorf("pid file: %q, %v", pid, err)
	}
	p, pid, start, err := f.r.Live("f")
	if err != nil || pid != f.c.PID || start != f.c.Start || len(p.Steps) == 0 {
		t.Errorf("live: %d %d %v", pid, start, err)
	}
	os.MkdirAll(f.r.dir("half"), 0o700)
	os.MkdirAll(f.r.dir("damaged"), 0o700)
	os.WriteFile(filepath.Join(f.r.dir("damaged"), stateFile), []byte(`{"format":`), 0o600)
	os.MkdirAll(f.r.dir("old"), 0o700)
	os.WriteFile(filepath.Join(f.r.dir("old"), stateFile), []byte(`{"format":1,"id":"old"}`), 0o600)
	list, err := f.r.List()
	if err != nil || len(list) != 1 || list[0].ID != "f" || len(f.warnings) != 2 {
		t.Errorf("got %+v, %v, warnings %q", list, err, f.warnings)
	}
	_, err = f.r.State("damaged")
	f.refused("damaged", err, "is damaged")
	f.refused("delete damaged", f.r.Delete("damaged", false), "is damaged")
	if err := errors.Join(f.r.Delete("damaged", true), f.r.Delete("half", true), f.r.Delete("nothing", true)); err != nil {
		t.Error(err)
	}
	f.r.Root, f.r.GivenRoot = "/nowhere", true
	_, err = f.r.List()
	f.refused("a root that isn't there", err, "--root: open /nowhere")
	f.r.GivenRoot = false
	if list, err := f.r.List(); err != nil || len(list) != 0 {
		t.Errorf("the default root isn't there yet: %v, %v", list, err)
	}
	if got := userName(0); got != "root" {
		t.Errorf("user 0 is %q", got)
	}
	if got := userName(4242424); got != "#4242424" {
		t.Errorf("an unknown user is %q", got)
	}
}

// TestKill sends signals to processes in each state.
func TestKill(t *testing.T) {
	f := newFake(t, running, nil)
	for _, all := range []bool{false, true} {
		if err := f.r.Kill("f", unix.SIGCONT, all); err != nil {
			t.Errorf("all %v: %v", all, err)
		}
	}
	f.refused("delete", f.r.Delete("f", false), "not stopped: running")
	if err := f.r.Kill("f", unix.SIGTERM, false); err != nil {
		t.Error(err)
	}
	f.until("the end", func() bool { return f.status() == Stopped })
	f.refused("kill", f.r.Kill("f", unix.SIGTERM, false), "container not running")
	f.refused("start", f.r.Start("f"), "has stopped")
	_, err := f.r.Exec("f", ExecOptions{Args: []string{"true"}})
	f.refused("exec", err, "stopped container")
	_, _, _, err = f.r.Live("f")
	f.refused("live", err, "not running")
	_, err = f.r.Stats("f")
	f.refused("stats", err, "is not running")
	f.refused("watch", f.r.Watch("f", time.Second, nil), "is not running")
	f.refused("pause", f.r.Pause("f"), "not running or created: stopped")
	f.refused("resume", f.r.Resume("f"), "not paused: stopped")
	f.refused("update", f.r.Update("f", nil, nil), "not running")
	if err := f.r.Delete("f", false); err != nil {
		t.Error(err)
	}
	f.refused("state", f.r.Kill("f", unix.SIGTERM, false), "does not exist")

	f = newFake(t, created, nil)
	if s := f.status(); s != Created {
		t.Fatalf("got %s, want created", s)
	}
	f.refused("delete", f.r.Delete("f", false), "not stopped: created")
	_, err = f.r.Processes("f")
	f.refused("ps", err, "no cgroup of its own")
	f.refused("pause", f.r.Pause("f"), "no cgroup of its own")
	f.refused("update", f.r.Update("f", &specs.LinuxResources{}, nil), "no cgroup of its own")
	if err := f.r.Kill("f", unix.SIGHUP, false); err != nil {
		t.Error(err)
	}
	f.until("the end", func() bool { return f.status() == Stopped })
	if err := f.r.Delete("f", true); err != nil {
		t.Error(err)
	}
	if !endsRuntime(unix.SIGTERM) || endsRuntime(unix.SIGUSR1) || endsRuntime(unix.SIGWINCH) {
		t.Error("which signals end a created container is wrong")
	}
}

// TestStart lets a created process go on, with hooks before and after that are told different things.
func TestStart(t *testing.T) {
	var f *fake
	hooks := func(poststart string) *fake {
		f = &fake{t: t, dir: t.TempDir()}
		h := f.hook
		dir := f.dir
		made := newFake(t, created, func(s *specs.Spec) {
			s.Hooks = &specs.Hooks{
				Poststart: []specs.Hook{h("poststart", poststart), h("second", "")},
				Poststop:  []specs.Hook{{Path: "/nowhere"}, h("poststop", "")},
			}
		})
		made.dir = dir // where the hooks write
		return made
	}
	f = hooks("")
	if err := f.r.Start("f"); err != nil {
		t.Fatal(err)
	}
	if s := f.status(); s != Running || f.log() != "poststart second" {
		t.Errorf("got %s and hooks %q", s, f.log())
	}
	f.refused("start", f.r.Start("f"), "already running")
	if err := f.r.Delete("f", true); err != nil {
		t.Error(err)
	}
	if f.log() != "poststart second poststop" || len(f.warnings) != 1 || !strings.Contains(f.warnings[0], "/hooks/poststop/0: run /nowhere") {
		t.Errorf("got hooks %q, warnings %q", f.log(), f.warnings)
	}

	f = hooks("exit 3")
	err := f.r.Start("f")
	f.refused("a poststart hook that fails", err, "/hooks/poststart/0: run ")
	f.refused("its exit status", err, "exit status 3")
	if f.log() != "poststart poststop" {
		t.Errorf("got hooks %q", f.log())
	}
	if _, err := os.Stat(f.r.dir("f")); err == nil {
		t.Error("the container is there still")
	}

	f = newFake(t, failing, nil)
	err = f.r.Start("f")
	step := &fork.StepError{}
	if !errors.As(err, &step) || step.Index != 5 || step.Err != unix.ENOENT {
		t.Errorf("got %v, want that step 6 has failed with ENOENT", err)
	}
	os.Remove(filepath.Join(f.r.dir("f"), planFile))
	if err := f.r.startError(f.c, 5, unix.ENOENT); err == nil || err.Error() != "step 6: no such file or directory" {
		t.Errorf("without a plan: %v", err)
	}
}

// TestUnmade creates what can't be created: nothing is left, and the error says what it is.
func TestUnmade(t *testing.T) {
	dir := t.TempDir()
	r := &Runtime{Root: filepath.Join(dir, "state")}
	for _, c := range []struct{ config, want string }{
		{"", "there is no config.json"},
		{"{", "config.json: line 1"},
		{fieldBase, "/root/path: " + dir + "/rootfs does not exist"},
	} {
		if c.config != "" {
			if err := os.WriteFile(filepath.Join(dir, oci.ConfigName), []byte(c.config), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		err := r.Create("f", CreateOptions{Bundle: dir})
		_, runErr := r.Run("f", CreateOptions{Bundle: dir})
		for _, err := range []error{err, runErr} {
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%q: got %v, want %q", c.config, err, c.want)
			}
		}
		if _, err := os.Stat(r.dir("f")); err == nil {
			t.Errorf("%q: the directory is left", c.config)
		}
	}
	spec := &specs.Spec{Process: &specs.Process{Terminal: true}}
	if err := checkTerminal(spec, CreateOptions{Detach: true}); err == nil {
		t.Error("a terminal that nobody holds is accepted")
	}
	if err := checkTerminal(spec, CreateOptions{Detach: true, ConsoleSocket: "/s"}); err != nil {
		t.Error(err)
	}
	if err := checkTerminal(&specs.Spec{Process: &specs.Process{}}, CreateOptions{ConsoleSocket: "/s"}); err == nil {
		t.Error("a console socket without a terminal is accepted")
	}
	if _, err := Plan("f", dir, &specs.Spec{}, nil); err == nil {
		t.Error("a plan of no process")
	}
}

// TestHooksRan: which errors of a start come after hooks, by the step that failed.
func TestHooksRan(t *testing.T) {
	p := &plan.Plan{Steps: []plan.Step{
		{Lane: plan.Host, Op: &plan.Expect{Name: "mounted"}},
		{Lane: plan.Host, Op: &plan.Hook{Path: "/h"}},
		{Lane: plan.Host, Op: &plan.Release{Name: "hooks"}},
		{Lane: plan.Child, Op: &plan.Chdir{Path: "/"}},
		{Lane: plan.Child, Op: &plan.Await{Name: "hooks"}},
		{Lane: plan.Child, Op: &plan.Execve{}},
	}}
	for i, want := range []bool{false, true, true, false, true, true} {
		err := error(&fork.StepError{Index: i, Step: p.Steps[i], Err: unix.EIO})
		if got := hooksRan(p, err); got != want {
			t.Errorf("step %d failed: got %v, want %v", i, got, want)
		}
	}
	if !hooksRan(p, errors.New("something else")) {
		t.Error("an error of no step: hooks may have run")
	}
	if hooksRan(&plan.Plan{Steps: p.Steps[3:]}, errors.New("x")) {
		t.Error("a plan without hooks has run some")
	}
}

func TestInsidePID(t *testing.T) {
	for text, want := range map[string]int{"Name:\tx\nNSpid:\t4711\t12\t1\nNSpgid:\t1\n": 1, "NSpid:\t4711\n": 4711} {
		if got, err := parseInsidePID([]byte(text)); err != nil || got != want {
			t.Errorf("%q: got %d, %v", text, got, err)
		}
	}
	if _, err := parseInsidePID([]byte("Pid:\t1\n")); err == nil {
		t.Error("no error without NSpid")
	}
	if got, err := insidePID(os.Getpid()); err != nil || got == 0 {
		t.Errorf("ours: %d, %v", got, err)
	}
}
