package fork

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"glassbox/plan"
)

// TestBefore: each step is asked for once, in an order in which nothing is asked for before what it waits for, while the child
// stands still and all earlier steps are done; and the program that comes of it is the same.
func TestBefore(t *testing.T) {
	needRoot(t)
	for _, kind := range []string{"full", "mapped", "twice"} {
		t.Run(kind, func(t *testing.T) {
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			p := planOf(t, kind, "sh", "-c", "echo $$; busybox ls /proc/1/fd; cat /proc/sys/kernel/hostname")
			fds, output := pipes(t)
			want, err := p.Order()
			if err != nil {
				t.Fatal(err)
			}
			var got []int
			pivoted := false
			proc, err := Start(p, Options{FDs: fds, Before: func(i, pid int) error {
				got = append(got, i)
				if _, ok := p.Steps[i].Op.(*plan.PivotRoot); ok {
					pivoted = true
				} else if pivoted && pid != 0 {
					pivoted = false
					if _, err := os.Stat(fmt.Sprintf("/proc/%d/root/proc/1/nothing", pid)); err == nil {
						t.Error("the child still has the host's root")
					}
				}
				if s := p.Steps[i]; s.Lane == plan.Child && pid == 0 {
					t.Errorf("step %d, %s: there is no child", i+1, s.Op)
				}
				return nil
			}})
			if err != nil {
				t.Fatal(err)
			}
			code := wait(t, proc)
			undo(t, p)
			if text := output(); code != 0 || !strings.HasPrefix(text, "1\n0\n1\n2\n") {
				t.Errorf("exit code %d, output %q", code, text)
			}
			if !slices.Equal(got, want) {
				t.Errorf("asked for %v, want %v", got, want)
			}
		})
	}
}

// TestQuitEverywhere ends a start before each of its steps: nothing is left. A step that fails is reported as without stops.
func TestQuitEverywhere(t *testing.T) {
	needRoot(t)
	for _, kind := range []string{"full", "mapped", "twice"} {
		t.Run(kind, func(t *testing.T) {
			p := planOf(t, kind, "true")
			fds, _ := pipes(t)
			quit := errors.New("quit")
			left := leftovers(t)
			stride := 1
			if testing.Short() { // on an emulated processor
				stride = 5
			}
			for at := 0; at < len(p.Steps); at += stride {
				proc, err := Start(p, Options{FDs: fds, Before: func(i, _ int) error {
					if i == at {
						return quit
					}
					return nil
				}})
				if proc != nil || !errors.Is(err, quit) {
					t.Fatalf("step %d: got %v, %v, want %v", at+1, proc, err, quit)
				}
				if got := left(); got != "" {
					t.Fatalf("quitting before step %d (%s) left something: %s", at+1, p.Steps[at].Op, got)
				}
				proc, err = Start(p, Options{FDs: fds, Inject: at + 1, Before: func(int, int) error { return nil }})
				var step *StepError
				if proc != nil || !errors.As(err, &step) || step.Index != at || !errors.Is(err, unix.ENOSYS) {
					t.Errorf("step %d was made to fail: got %v, %v", at+1, proc, err)
				}
				if got := left(); got != "" {
					t.Fatalf("step %d (%s) failed and left something: %s", at+1, p.Steps[at].Op, got)
				}
			}
		})
	}
}

// TestKilledChild: a child that somebody kills while it waits is an error, not a wait for ever.
func TestKilledChild(t *testing.T) {
	p := fullPlan(t, "true")
	fds, _ := pipes(t)
	left := leftovers(t)
	_, err := Start(p, Options{FDs: fds, Before: func(_, pid int) error {
		if pid != 0 {
			unix.Kill(pid, unix.SIGKILL)
		}
		return nil
	}})
	if err == nil || !strings.Contains(err.Error(), "killed by signal 9") {
		t.Errorf("got %v, want that the child was killed", err)
	}
	if got := left(); got != "" {
		t.Errorf("left: %s", got)
	}
}
