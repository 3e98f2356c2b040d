package fork

import (
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"glassbox/plan"
)

// watched runs a command of the full plan under a watcher.
func watched(t *testing.T, limit time.Duration, argv ...string) (tr *plan.Trace, code int, output string, times *plan.Times) {
	t.Helper()
	p := fullPlan(t, argv...)
	fds, text := pipes(t)
	w := &Watcher{For: limit}
	times = &plan.Times{}
	proc, err := Start(p, Options{FDs: fds, Watch: w, Times: times})
	if err != nil {
		t.Fatal(err)
	}
	tr, ws, ended := w.Wait()
	if !ended {
		code = wait(t, proc)
	} else {
		unix.Close(proc.Pidfd)
		code = ws.ExitStatus()
		if ws.Signaled() {
			code = 128 + int(ws.Signal())
		}
	}
	undo(t, p)
	return tr, code, text(), times
}

// TestWatch: the calls of the program and of its children are seen, in order, with their paths and results; the program does what it
// does without.
func TestWatch(t *testing.T) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	tr, code, output, times := watched(t, 10*time.Second, "sh", "-c", "cat /new/file; cat /nothing; exit 7")
	if code != 7 || !strings.Contains(output, "from the host") || !strings.Contains(output, "No such file") {
		t.Errorf("exit code %d, output %q", code, output)
	}
	if tr.Exec == 0 || tr.Note != "" || times.Ready == 0 {
		t.Fatalf("execve at %d, note %q, ready at %d", tr.Exec, tr.Note, times.Ready)
	}
	last, pids, found := tr.Exec, map[int]bool{}, map[string]int64{}
	for _, c := range tr.Calls {
		if c.Begin < last || c.End != 0 && c.End < c.Begin {
			t.Errorf("call %d from %d to %d, the one before began at %d", c.NR, c.Begin, c.End, last)
		}
		last = c.Begin
		pids[c.PID] = true
		if c.NR == unix.SYS_OPENAT || c.NR == unix.SYS_EXECVE {
			found[c.Path] = c.Result
		}
	}
	if len(pids) < 2 || found["/new/file"] < 3 || found["/nothing"] != -int64(unix.ENOENT) {
		t.Errorf("%d processes, opened %v", len(pids), found)
	}
	if c := tr.Calls[len(tr.Calls)-1]; c.NR != unix.SYS_EXIT_GROUP || !c.Last {
		t.Errorf("the last call is %+v", c)
	}
}

// TestWatchEnds: after its time a program is on its own, and who is stopped, killed or ends early is no hindrance.
func TestWatchEnds(t *testing.T) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	for _, c := range []struct {
		script string
		code   int
	}{
		{"busybox sleep 0.1; grep=$(busybox grep TracerPid /proc/self/status); busybox [ \"$grep\" = \"TracerPid:\t0\" ] || exit 1; exit 3", 3},
		{"(busybox sleep 0.2; kill -CONT $p) & busybox sleep 0.1 & kill -STOP $!; kill -CONT $!; wait; exit 5", 5},
		{"trap 'exit 9' TERM; kill -TERM $$; exit 1", 9},
		{"i=0; while [ $i -lt 20 ]; do busybox true & i=$((i+1)); done; wait; exit 4", 4},
	} {
		_, code, output, _ := watched(t, 50*time.Millisecond, "sh", "-c", c.script)
		if code != c.code {
			t.Errorf("%s: exit code %d, want %d: %s", c.script, code, c.code, output)
		}
	}
}

// TestWatchFails: a program that isn't there is reported as without a watcher.
func TestWatchFails(t *testing.T) {
	p := fullPlan(t, "true")
	fds, _ := pipes(t)
	left := leftovers(t)
	for i := range p.Steps {
		proc, err := Start(p, Options{FDs: fds, Inject: i + 1, Watch: &Watcher{For: time.Second}})
		if proc != nil || err == nil || !strings.Contains(err.Error(), "function not implemented") {
			t.Fatalf("step %d was made to fail: got %v, %v", i+1, proc, err)
		}
		if got := left(); got != "" {
			t.Fatalf("step %d (%s) left something: %s", i+1, p.Steps[i].Op, got)
		}
	}
}
