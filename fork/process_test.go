package fork

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"glassbox/compile"
	"glassbox/host"
	"glassbox/plan"
)

// bundle is a small configuration around a root file system of busybox, for tests to change.
func bundle(t *testing.T, argv ...string) *specs.Spec {
	t.Helper()
	needRoot(t)
	return &specs.Spec{
		Version: "1.2.0", Root: &specs.Root{Path: rootfs(t)},
		Process: &specs.Process{Args: argv, Env: []string{"PATH=/bin"}, Cwd: "/"},
		Mounts:  []specs.Mount{{Destination: "/proc", Type: "proc", Source: "proc"}},
		Linux:   &specs.Linux{Namespaces: []specs.LinuxNamespace{{Type: "mount"}, {Type: "pid"}, {Type: "ipc"}, {Type: "uts"}}},
	}
}

// runSpec compiles and runs a configuration and returns the exit code and the output.
func runSpec(t *testing.T, s *specs.Spec, change ...func(*compile.Input)) (int, string, error) {
	t.Helper()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	facts, err := host.Probe()
	if err != nil {
		t.Fatal(err)
	}
	in := compile.Input{Spec: s, Facts: *facts}
	for _, f := range change {
		f(&in)
	}
	out, err := compile.Container(in)
	if err != nil {
		return 0, "", err
	}
	fds, output := pipes(t)
	proc, err := Start(out.Plan, Options{FDs: fds, OnExecFailure: ExplainExec})
	if err != nil {
		return 0, "", err
	}
	code := wait(t, proc)
	undo(t, out.Plan)
	return code, output(), nil
}

// expect runs a configuration that must succeed with an output.
func expect(t *testing.T, s *specs.Spec, want string, change ...func(*compile.Input)) {
	t.Helper()
	code, got, err := runSpec(t, s, change...)
	if err != nil {
		t.Fatal(err)
	}
	if code != 0 || got != want {
		t.Errorf("exit code %d, output:\n%s\nwant 0 and:\n%s", code, got, want)
	}
}

// TestDeathBeforeExecve kills the child before it is the program, and keeps it from being gone: the first process of a PID namespace is
// waited for only when all others of it are. Its sockets are closed a long while before that.
func TestDeathBeforeExecve(t *testing.T) {
	s := bundle(t, "sleep", "100")
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	facts, err := host.Probe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := compile.Container(compile.Input{Spec: s, Facts: *facts})
	if err != nil {
		t.Fatal(err)
	}
	fds, _ := pipes(t)
	kill := func(p *Process) error {
		if err := unix.Kill(p.PID, unix.SIGSTOP); err != nil {
			return err
		}
		other := make(chan error)
		go func() {
			runtime.LockOSThread() // for good: its children are the container's
			if err := unix.Setns(p.Pidfd, unix.CLONE_NEWPID); err != nil {
				other <- err
				return
			}
			cmd := exec.Command("sleep", "100")
			other <- cmd.Start()
			time.Sleep(500 * time.Millisecond)
			cmd.Wait()
		}()
		if err := <-other; err != nil {
			return err
		}
		if st, err := ReadStat(p.PID); err != nil || !st.Forked() {
			return fmt.Errorf("the child was quicker: %v, %v", st, err)
		}
		return unix.Kill(p.PID, unix.SIGKILL)
	}
	proc, err := Start(out.Plan, Options{FDs: fds, Cloned: kill})
	for range 50 {
		if err == nil || !strings.Contains(err.Error(), "the child was quicker") {
			break
		}
		proc, err = Start(out.Plan, Options{FDs: fds, Cloned: kill})
	}
	if err == nil {
		wait(t, proc)
		undo(t, out.Plan)
	}
	if want := "was killed by signal 9 before it could run the program"; err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("got %v, want %q", err, want)
	}
}

// TestUnbind starts from a thread that is bound to one processor.
func TestUnbind(t *testing.T) {
	needRoot(t)
	runtime.LockOSThread() // and never unlocked
	var all, one unix.CPUSet
	if err := unix.SchedGetaffinity(0, &all); err != nil {
		t.Fatal(err)
	}
	if all.Count() < 2 {
		t.Skip("needs two processors")
	}
	for n := 0; one.Count() == 0; n++ {
		if all.IsSet(n) {
			one.Set(n)
		}
	}
	s := bundle(t, "sh", "-c", "busybox awk '/Cpus_allowed_list/ {print $2}' /proc/self/status")
	_, free, err := runSpec(t, s)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.SchedSetaffinity(0, &one); err != nil {
		t.Fatal(err)
	}
	defer unix.SchedSetaffinity(0, &all)
	if _, bound, err := runSpec(t, s); bound != free || err != nil {
		t.Errorf("from a thread that is bound: processors %q, %v, want %q", bound, err, free)
	}
}

func TestAttributes(t *testing.T) {
	s := bundle(t, "sh", "-c", `cat /proc/self/oom_score_adj; busybox uname -m; busybox ionice -p $$
busybox awk '{print $19, $41}' /proc/$$/stat; ulimit -v; ulimit -n; umask; busybox id -G`)
	s.Process.OOMScoreAdj = new(321)
	s.Process.Scheduler = &specs.Scheduler{Policy: "SCHED_BATCH", Nice: 7}
	s.Process.IOPriority = &specs.LinuxIOPriority{Class: "IOPRIO_CLASS_BE", Priority: 6}
	s.Process.Rlimits = []specs.POSIXRlimit{{Type: "RLIMIT_AS", Soft: 64 << 20, Hard: 1 << 30}, {Type: "RLIMIT_NOFILE", Soft: 9, Hard: 10}}
	s.Process.User = specs.User{GID: 3, AdditionalGids: []uint32{4, 5}, Umask: new(uint32(0o27))}
	s.Linux.Personality = &specs.LinuxPersonality{Domain: "LINUX32"}
	machine := map[string]string{"amd64": "i686", "arm64": "armv8l"}[runtime.GOARCH]
	expect(t, s, fmt.Sprintf("321\n%s\nbest-effort: prio 6\n7 3\n65536\n9\n0027\n3 4 5\n", machine))
}

// TestRealtime asks for a policy that this machine may refuse to a container's cgroup: then the error says so.
func TestRealtime(t *testing.T) {
	for _, sched := range []specs.Scheduler{
		{Policy: "SCHED_FIFO", Priority: 3},
		{Policy: "SCHED_DEADLINE", Runtime: 1e6, Deadline: 5e6, Period: 1e7, Flags: []specs.LinuxSchedulerFlag{"SCHED_FLAG_RESET_ON_FORK"}},
	} {
		s := bundle(t, "busybox", "awk", "{print $40, $41}", "/proc/self/stat")
		s.Process.Scheduler = &sched
		want := map[specs.LinuxSchedulerPolicy]string{"SCHED_FIFO": "3 1\n", "SCHED_DEADLINE": "0 6\n"}[sched.Policy]
		_, got, err := runSpec(t, s)
		if err != nil && (!errors.Is(err, unix.EPERM) || !strings.Contains(err.Error(), "/process/scheduler")) {
			t.Error(err)
		} else if err == nil && got != want {
			t.Errorf("%s: got %q, want %q", sched.Policy, got, want)
		}
	}
}

func TestMemoryPolicy(t *testing.T) {
	s := bundle(t, "cat", "/proc/self/numa_maps")
	s.Linux.MemoryPolicy = &specs.LinuxMemoryPolicy{Mode: "MPOL_BIND", Nodes: "0", Flags: []specs.MemoryPolicyFlagType{"MPOL_F_STATIC_NODES"}}
	_, got, err := runSpec(t, s)
	if errors.Is(err, unix.ENOSYS) && strings.Contains(err.Error(), "/linux/memoryPolicy") {
		return // a kernel without CONFIG_NUMA
	}
	if err != nil || !strings.Contains(got, "bind=static:0") {
		t.Errorf("%v, numa_maps:\n%s", err, got)
	}
}

func TestHardLimit(t *testing.T) {
	var now unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_MEMLOCK, &now); err != nil {
		t.Fatal(err)
	}
	if now.Max == unix.RLIM_INFINITY {
		now.Max = 1 << 30
	}
	s := bundle(t, "true")
	s.Process.Rlimits = []specs.POSIXRlimit{{Type: "RLIMIT_MEMLOCK", Soft: 1, Hard: now.Max + 1}}
	facts, err := host.Probe()
	if err != nil {
		t.Fatal(err)
	}
	_, _, err = runSpec(t, s)
	if may := facts.Caps&(1<<plan.CapNumber("CAP_SYS_RESOURCE")) != 0; may != (err == nil) {
		t.Errorf("CAP_SYS_RESOURCE %v, error %v", may, err)
	}
	if err != nil && !strings.Contains(err.Error(), "/process/rlimits/0") {
		t.Errorf("%v doesn't name the field", err)
	}
}

func TestFindProgram(t *testing.T) {
	check := func(in *compile.Input) { in.FindProgram = true }
	for _, tc := range []struct {
		arg  string
		code int // 0: it is found
		want string
	}{
		{"true", 0, ""},
		{"/bin/true", 0, ""},
		{"none", 127, "not found in $PATH"},
		{"/none", 127, "doesn't exist"},
		{"tmp", 126, "directory"}, // /tmp is a directory
		{"/tmp", 126, "directory"},
		{"plain", 126, "no execute permission"},
		{"bin/true", 0, ""},
	} {
		s := bundle(t, tc.arg)
		s.Process.Env = []string{"PATH=/nowhere:/etc/plain:/:/bin:/etc"}
		if err := os.WriteFile(filepath.Join(s.Root.Path, "etc/plain"), nil, 0o644); err != nil {
			t.Fatal(err)
		}
		_, _, err := runSpec(t, s, check)
		if tc.code == 0 {
			if err != nil {
				t.Errorf("%s: %v", tc.arg, err)
			}
			continue
		}
		var step *StepError
		if !errors.As(err, &step) || step.Step.Op.Kind() != "find-program" || step.Code != tc.code || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: got %v, want code %d and %q from find-program", tc.arg, err, tc.code, tc.want)
		}
	}
}

// TestDirectoryOfRoot runs a user's program in a directory that the user can't enter, as runc and Docker do.
func TestDirectoryOfRoot(t *testing.T) {
	for _, user := range []uint32{0, 1000} {
		s := bundle(t, "sh", "-c", "busybox readlink /proc/self/cwd")
		s.Process.User.UID, s.Process.Cwd = user, "/etc/secret"
		if err := os.Mkdir(filepath.Join(s.Root.Path, "etc/secret"), 0o700); err != nil {
			t.Fatal(err)
		}
		expect(t, s, "/etc/secret\n")
	}
	s := bundle(t, "true")
	s.Process.User.UID, s.Process.Cwd = 1000, "/none"
	if _, _, err := runSpec(t, s); !errors.Is(err, unix.ENOENT) {
		t.Errorf("got %v, want ENOENT", err)
	}
}

func TestInheritedDescriptors(t *testing.T) {
	needRoot(t)
	if os.Getenv("GLASSBOX_INHERIT") == "" {
		// A process of its own, so that descriptors 3 and 4 are known.
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		defer w.Close()
		out := again(t, "TestInheritedDescriptors", []string{"GLASSBOX_INHERIT=1"}, w, w)
		if !strings.Contains(out, "has 3\nhas 4\nrefused") || !strings.Contains(out, "refused: bad file descriptor\n") {
			t.Errorf("got\n%s", out)
		}
		return
	}
	s := bundle(t, "sh", "-c", "for n in 3 4 5 6 7 8 9; do [ -e /proc/$$/fd/$n ] && echo has $n; done; true")
	code, got, err := runSpec(t, s, func(in *compile.Input) { in.PreserveFDs = 2 })
	fmt.Print(code, err, "\n", got)
	_, _, err = runSpec(t, s, func(in *compile.Input) { in.PreserveFDs = 3 }) // 5 is the runtime's own, if it is open
	for errors.Unwrap(err) != nil {
		err = errors.Unwrap(err)
	}
	fmt.Println("refused:", err)
}

func TestAffinity(t *testing.T) {
	var before unix.CPUSet
	if err := unix.SchedGetaffinity(0, &before); err != nil {
		t.Fatal(err)
	}
	var cpus []int
	for n := range 1024 {
		if before.IsSet(n) {
			cpus = append(cpus, n)
		}
	}
	if len(cpus) < 2 {
		t.Skip("needs two processors")
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	s := bundle(t, "busybox", "grep", "Cpus_allowed_list", "/proc/self/status")
	for _, tc := range []struct{ initial, final, want string }{
		{fmt.Sprint(cpus[0]), "", fmt.Sprint(cpus[0])},
		{fmt.Sprint(cpus[0]), fmt.Sprint(cpus[1]), fmt.Sprint(cpus[1])},
	} {
		p := &plan.Plan{Version: plan.Version, Arch: runtime.GOARCH, Steps: []plan.Step{
			{Lane: plan.Host, Op: &plan.Affinity{CPUs: tc.initial}},
			{Lane: plan.Host, Op: &plan.Clone{}},
			{Lane: plan.Child, Op: &plan.Stdio{From: "stdout", To: 1}},
			{Lane: plan.Child, Op: &plan.Execve{Candidates: []string{filepath.Join(s.Root.Path, "bin/busybox")}, Argv: s.Process.Args}},
		}}
		if tc.final != "" {
			p.Steps = slices.Insert(p.Steps, 2, plan.Step{Lane: plan.Child, Op: &plan.Affinity{CPUs: tc.final}})
		}
		fds, output := pipes(t)
		proc, err := Start(p, Options{FDs: fds})
		if err != nil {
			t.Fatal(err)
		}
		wait(t, proc)
		if got := output(); got != "Cpus_allowed_list:\t"+tc.want+"\n" {
			t.Errorf("%+v: got %q", tc, got)
		}
		var after unix.CPUSet
		if unix.SchedGetaffinity(0, &after); after != before {
			t.Errorf("the thread is left on other processors: %v, before %v", after, before)
		}
	}
}
