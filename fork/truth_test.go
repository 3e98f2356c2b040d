package fork

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"glassbox/host"
	"glassbox/plan"
)

// traces lists what a start could leave: descriptors, children, mounts, cgroups.
func traces(t *testing.T) string {
	t.Helper()
	var b strings.Builder
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		link, _ := os.Readlink("/proc/self/fd/" + e.Name())
		fmt.Fprintf(&b, "%s %s\n", e.Name(), link)
	}
	children, _ := os.ReadFile(fmt.Sprintf("/proc/self/task/%d/children", unix.Gettid()))
	fmt.Fprintf(&b, "children: %s\n", children)
	mounts, _ := os.ReadFile("/proc/thread-self/mountinfo")
	own, _, _ := strings.Cut(t.Name(), "/")
	for line := range strings.Lines(string(mounts)) {
		// What another test had mounted in a directory of its own when this namespace was made goes with that directory.
		if point := strings.Fields(line)[4]; !strings.HasPrefix(point, os.TempDir()+"/") || strings.Contains(point, "/"+own) {
			fmt.Fprintln(&b, "mount", point)
		}
	}
	facts, err := host.Probe()
	if err != nil {
		t.Fatal(err)
	}
	for _, h := range facts.Cgroup.Hierarchies {
		if left, _ := filepath.Glob(h.Mount + testCgroup + "/*/cgroup.procs"); len(left) > 0 {
			fmt.Fprintln(&b, left)
		}
	}
	return b.String()
}

// TestTruth traces the child of a real start: the system calls seen are those of the lowered plan, in order, and no others.
func TestTruth(t *testing.T) {
	needRoot(t)
	strace, err := exec.LookPath("strace")
	if err != nil {
		t.Skip("needs strace")
	}
	for _, kind := range []string{"full", "mapped", "twice"} {
		t.Run(kind, func(t *testing.T) { truth(t, strace, kind) })
	}
}

// planOf returns one of the plans that are looked at step by step.
func planOf(t *testing.T, kind string, argv ...string) *plan.Plan {
	t.Helper()
	if kind == "full" {
		return fullPlan(t, argv...)
	}
	return userPlan(t, kind, argv...)
}

func truth(t *testing.T, strace, kind string) {
	file := filepath.Join(t.TempDir(), "trace")
	cmd := exec.Command(strace, "-f", "-n", "-o", file, os.Args[0], "-test.run=^TestTruthHelper$")
	cmd.Env = append(os.Environ(), "GLASSBOX_TRUTH="+kind)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	m := regexp.MustCompile(`child (\d+)`).FindSubmatch(out)
	if m == nil {
		t.Fatalf("no child in %s", out)
	}
	trace, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	got := callsOf(trace, string(m[1]))
	if first := regexp.MustCompile(`(?m)^(\d+) .*(?:clone3\(.*\)|clone3 resumed>.*) = ` + string(m[1]) +
		`$`).FindSubmatch(trace); kind == "twice" {
		// The first child's calls come before, but for the two with which it ends.
		if first == nil {
			t.Fatalf("no process cloned %s", m[1])
		}
		before := callsOf(trace, string(first[1]))
		n := len(before) - 2
		if n < 0 || before[n].nr != unix.SYS_SENDMSG || before[n+1].nr != unix.SYS_EXIT_GROUP {
			t.Fatalf("the first child ends otherwise, with %v", before[max(n, 0):])
		}
		got = append(before[:n], got...)
	}
	// The prologue: 64 handlers, the signal mask, and the parent's end of the socket.
	if len(got) < 67 || got[63].nr != unix.SYS_RT_SIGACTION || got[64].nr != unix.SYS_RT_SIGPROCMASK || got[65].nr != unix.SYS_CLOSE {
		t.Fatalf("the child begins otherwise: %d calls", len(got))
	}
	got = got[66:]

	p := planOf(t, kind, "true") // the same plan as the helper's but for directories
	fds := map[string]int{}
	for _, s := range p.Steps {
		switch o := s.Op.(type) {
		case *plan.CgroupOpen:
			fds[o.Save] = 10
		case *plan.OpenTree:
			if s.Lane == plan.Child {
				continue
			}
			st, err := os.Open(o.Path)
			if err != nil {
				t.Fatal(err)
			}
			defer st.Close()
			fds[o.Save] = int(st.Fd())
		case *plan.Open:
			fds[o.Save] = 14
		}
	}
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	fds["stdin"], fds["stdout"], fds["stderr"] = int(null.Fd()), 1<<20, 1<<20+1
	prog, err := lower(p, fds, 20, -1, nil)
	if err != nil {
		t.Fatal(err)
	}
	calls := prog.keep[len(prog.keep)-1].([]call)
	steps := map[int32]bool{}
	i := 0
	for k, s := range got {
		if i >= len(calls) {
			t.Fatalf("call %d (%s) comes after the plan's last", k, s.text)
		}
		c := calls[i]
		for int(c.nr) != s.nr && (c.unless != 0 || c.only != 0) { // left out, by what an earlier call returned
			i++
			c = calls[i]
		}
		steps[c.step] = true
		if int(c.nr) != s.nr {
			t.Fatalf("call %d of the child is %s, the plan has system call %d there: step %d, %s", k, s.text, c.nr, c.step+1, p.Steps[c.step].Op)
		}
		if c.nr == unix.SYS_EXECVE && s.errno == "" {
			break
		}
		next := int32(i + 1)
		if s.errno == "" {
			if c.ok != 0 {
				next = c.ok
			}
		} else {
			e := slices.IndexFunc(c.branch[:], func(b branch) bool { return unix.ErrnoName(unix.Errno(b.errno)) == s.errno })
			if e < 0 {
				t.Fatalf("call %d (%s) failed, and the plan doesn't foresee that", k, s.text)
			}
			next = c.branch[e].next
		}
		i = int(next)
	}
	for i, s := range p.Steps {
		if s.Lane == plan.Child && !leftOut(s.Op) && !steps[int32(i)] {
			t.Errorf("step %d, %s, was not seen", i+1, s.Op)
		}
	}
}

// seen is a system call that strace has written down.
type seen struct {
	nr    int
	errno string
	text  string
}

// callsOf are the calls of a process in a trace (strace -f -n), one that was interrupted by another process's as one.
func callsOf(trace []byte, pid string) (got []seen) {
	line := regexp.MustCompile(`^` + pid + ` +\[ *(\d+)\] (.*)$`)
	for l := range strings.Lines(string(trace)) {
		x := line.FindStringSubmatch(strings.TrimSpace(l))
		if x == nil || strings.HasPrefix(x[2], "+++") || strings.Contains(x[2], "resumed>") && !strings.Contains(x[2], " = ") {
			continue
		}
		s := seen{text: x[2]}
		s.nr, _ = strconv.Atoi(x[1])
		if strings.Contains(x[2], "<unfinished ...>") {
			got = append(got, s)
			continue
		}
		if e := regexp.MustCompile(` = -1 (E[A-Z0-9]+)`).FindStringSubmatch(x[2]); e != nil {
			s.errno = e[1]
		}
		if strings.HasPrefix(x[2], "<... ") {
			got[len(got)-1].errno = s.errno
			continue
		}
		got = append(got, s)
	}
	return got
}

// TestTruthHelper is the traced process.
func TestTruthHelper(t *testing.T) {
	if os.Getenv("GLASSBOX_TRUTH") == "" {
		return // it is run by TestTruth
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	p := planOf(t, os.Getenv("GLASSBOX_TRUTH"), "true")
	fds, _ := pipes(t)
	proc, err := Start(p, Options{FDs: fds})
	if err != nil {
		t.Fatal(err)
	}
	fmt.Printf("child %d\n", proc.PID)
	wait(t, proc)
	undo(t, p)
}
