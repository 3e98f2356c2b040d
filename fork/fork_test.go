package fork

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"glassbox/compile"
	"glassbox/host"
	"glassbox/network"
	"glassbox/plan"
	"glassbox/seccomp"
)

// TestChildCallsNothing reads the compiler's output for the functions that run between clone and execve: a call of anything
// but the raw system call could allocate, take a lock that a thread holds that doesn't exist here, or grow the stack.
func TestChildCallsNothing(t *testing.T) {
	if testing.CoverMode() != "" {
		t.Skip("coverage counters are in the way")
	}
	if testing.Short() {
		t.Skip("compiles, which takes long on an emulated processor")
	}
	gotool, err := exec.LookPath("go")
	if err != nil {
		t.Skip("needs the go tool")
	}
	cmd := exec.Command(gotool, "build", "-gcflags=-S", "-o", os.DevNull, ".")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	calls := map[string][]string{}
	function := ""
	start := regexp.MustCompile(`^glassbox/fork\.(\S+) STEXT(.*)`)
	call := regexp.MustCompile(`\t(?:CALL|DUFFZERO|DUFFCOPY|BL|CALLER?)\t(\S+)`)
	for line := range bytes.Lines(out) {
		if m := start.FindSubmatch(line); m != nil {
			function = string(m[1])
			if slices.Contains([]string{"child", "clone", "walk", "reopen"}, function) && !bytes.Contains(m[2], []byte("nosplit")) {
				t.Errorf("%s can grow the stack", function)
			}
		} else if m := call.FindSubmatch(line); m != nil {
			calls[function] = append(calls[function], string(m[1]))
		}
	}
	for _, f := range []string{"child", "clone", "walk", "reopen"} {
		if len(calls[f]) == 0 {
			t.Errorf("found no calls in %s: the test no longer sees the compiler's output", f)
		}
		for _, c := range calls[f] {
			own := map[string][]string{"clone": {"child"}, "child": {"ticks", "walk"}, "walk": {"reopen"}}[f]
			if c != "syscall.RawSyscall6(SB)" && !slices.Contains(own, strings.TrimSuffix(strings.TrimPrefix(c, "glassbox/fork."), "(SB)")) {
				t.Errorf("%s calls %s", f, c)
			}
		}
	}
}

func needRoot(t *testing.T) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root")
	}
}

// rootfs makes a small root file system of busybox.
func rootfs(t *testing.T) string {
	t.Helper()
	busybox, err := exec.LookPath("busybox")
	if err != nil {
		t.Skip("needs busybox (Debian: busybox-static)")
	}
	dir := t.TempDir()
	data, err := os.ReadFile(busybox)
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range []string{"bin", "proc", "dev", "sys", "tmp", "etc"} {
		if err := os.Mkdir(filepath.Join(dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "bin/busybox"), data, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"sh", "true", "cat", "echo", "sleep"} {
		if err := os.Symlink("busybox", filepath.Join(dir, "bin", name)); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

var testCgroup = fmt.Sprintf("/glassbox-test-%d", os.Getpid())

// fullPlan compiles a plan with every kind of step that an ordinary container has.
func fullPlan(t *testing.T, argv ...string) *plan.Plan {
	t.Helper()
	needRoot(t)
	facts, err := host.Probe()
	if err != nil {
		t.Fatal(err)
	}
	root := rootfs(t)
	source := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(source, []byte("from the host\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	caps := []string{"CAP_CHOWN", "CAP_NET_BIND_SERVICE", "CAP_SYS_CHROOT"}
	limit := int64(100)
	memory := int64(64 << 20)
	spec := &specs.Spec{
		Version:  "1.2.0",
		Hostname: "inside",
		Root:     &specs.Root{Path: root},
		Process: &specs.Process{
			Args: argv, Env: []string{"PATH=/nowhere:/bin"}, Cwd: "/work/deep",
			User: specs.User{UID: 1000, GID: 1000, AdditionalGids: []uint32{1000, 5}},
			Capabilities: &specs.LinuxCapabilities{
				Bounding: caps, Permitted: caps[:1], Effective: caps[:1], Inheritable: caps[:1],
				Ambient: caps[:1],
			},
			Rlimits:     []specs.POSIXRlimit{{Type: "RLIMIT_CORE"}},
			OOMScoreAdj: new(500),
			Scheduler:   &specs.Scheduler{Policy: "SCHED_BATCH", Nice: 5, Flags: []specs.LinuxSchedulerFlag{"SCHED_FLAG_RESET_ON_FORK"}},
			IOPriority:  &specs.LinuxIOPriority{Class: "IOPRIO_CLASS_BE", Priority: 6},
		},
		Mounts: []specs.Mount{
			{Destination: "/proc", Type: "proc", Source: "proc", Options: []string{"nosuid", "nodev", "noexec"}},
			{Destination: "/dev", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "mode=755", "size=64k"}},
			{Destination: "/dev/pts", Type: "devpts", Source: "devpts", Options: []string{"newinstance", "ptmxmode=0666", "mode=0620"}},
			{Destination: "/sys", Type: "sysfs", Source: "sysfs", Options: []string{"ro", "nosuid"}},
			{Destination: "/sys/fs/cgroup", Type: "cgroup", Source: "cgroup", Options: []string{"ro", "nosuid"}},
			{Destination: "/dev/mqueue", Type: "mqueue", Source: "mqueue"},
			{Destination: "/new/file", Type: "bind", Source: source, Options: []string{"rbind", "rro"}},
			{Destination: "/new/dir", Type: "bind", Source: filepath.Dir(source), Options: []string{"bind", "ro", "nosuid"}},
		},
		Linux: &specs.Linux{
			CgroupsPath: testCgroup + "/" + strings.ReplaceAll(t.Name(), "/", "_"),
			Resources:   &specs.LinuxResources{Pids: &specs.LinuxPids{Limit: &limit}, Memory: &specs.LinuxMemory{Limit: &memory}},
			Seccomp: seccomp.Default(seccomp.DefaultOptions{
				Arch: runtime.GOARCH, Caps: caps, KernelMajor: facts.Kernel.Major,
				KernelMinor: facts.Kernel.Minor,
			}),
			Namespaces: []specs.LinuxNamespace{
				{Type: "mount"}, {Type: "pid"}, {Type: "uts"}, {Type: "ipc"}, {Type: "network"}, {Type: "cgroup"}, {Type: "time"}, {Type: "user"},
			},
			Sysctl:        map[string]string{"net.ipv4.ip_unprivileged_port_start": "0", "kernel.msgmax": "4096"},
			MaskedPaths:   []string{"/proc/kcore", "/proc/acpi", "/proc/keys", "/proc/nothing", "/sys/firmware"},
			ReadonlyPaths: []string{"/proc/sys", "/proc/nothing"},
			Personality:   &specs.LinuxPersonality{Domain: "LINUX"},
			MemoryPolicy:  &specs.LinuxMemoryPolicy{Mode: "MPOL_DEFAULT"},
			Devices:       []specs.LinuxDevice{{Path: "/dev/kmsg2", Type: "c", Major: 1, Minor: 11}},
		},
	}
	out, err := compile.Container(compile.Input{
		Spec: spec, Facts: *facts, Network: network.Loopback(), MakeCwd: true, DieWithParent: true,
		FindProgram: true,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for _, dir := range out.Cgroups {
			os.Remove(dir)
			os.Remove(filepath.Dir(dir))
		}
	})
	return out.Plan
}

// pipes returns descriptors for stdio, and a function that waits for the output's end.
func pipes(t *testing.T) (fds map[string]int, output func() string) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close(); w.Close(); null.Close() })
	return map[string]int{"stdin": int(null.Fd()), "stdout": int(w.Fd()), "stderr": int(w.Fd())}, func() string {
		w.Close()
		var b bytes.Buffer
		b.ReadFrom(r)
		return b.String()
	}
}

func wait(t *testing.T, p *Process) int {
	t.Helper()
	defer unix.Close(p.Pidfd)
	var ws unix.WaitStatus
	for {
		if _, err := unix.Wait4(p.PID, &ws, 0, nil); err == unix.EINTR {
			continue
		} else if err != nil {
			t.Fatal(err)
		}
		if ws.Signaled() {
			return 128 + int(ws.Signal())
		}
		return ws.ExitStatus()
	}
}

func undo(t *testing.T, p *plan.Plan) {
	t.Helper()
	for _, s := range p.Undo(len(p.Steps)) {
		if err := Undo(s.Op); err != nil {
			t.Errorf("undo %s: %v", s.Op, err)
		}
	}
}

func TestContainer(t *testing.T) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	p := fullPlan(t, "sh", "-c", `echo $$; cat /proc/sys/kernel/hostname; id -u; pwd; cat /new/file
echo x > /new/file || echo read-only; cat /proc/sys/net/ipv4/ip_unprivileged_port_start /proc/sys/kernel/msgmax
busybox ls /proc/1/fd; busybox grep -E 'Cap|NoNew|Seccomp:' /proc/self/status; busybox wc -c </proc/keys; exit 7`)
	fds, output := pipes(t)
	proc, err := Start(p, Options{FDs: fds})
	if err != nil {
		t.Fatal(err)
	}
	code := wait(t, proc)
	undo(t, p)
	got := output()
	want := `1
inside
1000
/work/deep
from the host
sh: can't create /new/file: Read-only file system
read-only
0
4096
0
1
2
CapInh:	0000000000000001
CapPrm:	0000000000000001
CapEff:	0000000000000001
CapBnd:	0000000000040401
CapAmb:	0000000000000001
NoNewPrivs:	0
Seccomp:	2
0
`
	if code != 7 || got != want {
		t.Errorf("exit code %d, output:\n%s\nwant 7 and:\n%s", code, got, want)
	}
}

// TestEveryStepCanFail forces an error at each step of a full plan: the report names that step, and nothing is left.
func TestEveryStepCanFail(t *testing.T) { everyStepCanFail(t, fullPlan(t, "true")) }

func everyStepCanFail(t *testing.T, p *plan.Plan) {
	t.Helper()
	fds, _ := pipes(t)
	left := leftovers(t)
	stride := 1
	if testing.Short() { // on an emulated processor
		stride = 4
	}
	for i := 0; i < len(p.Steps); i += stride {
		proc, err := Start(p, Options{FDs: fds, Inject: i + 1, State: func(int) ([]byte, error) { return []byte("{}"), nil }})
		if proc != nil {
			t.Fatalf("step %d was made to fail, but the container started", i+1)
		}
		var step *StepError
		if !errors.As(err, &step) {
			t.Fatalf("step %d: error %v is no StepError", i+1, err)
		}
		if step.Index != i || !errors.Is(err, unix.ENOSYS) || step.Total != len(p.Steps) {
			t.Errorf("step %d/%d: reported as %d/%d: %v", i+1, len(p.Steps), step.Index+1, step.Total, err)
		}
		if want := fmt.Sprintf("step %d/%d [%s] ", i+1, len(p.Steps), p.Steps[i].Lane); !strings.HasPrefix(err.Error(), want) {
			t.Errorf("got %q, want it to begin with %q", err, want)
		}
		if got := left(); got != "" {
			t.Fatalf("step %d (%s) left something: %s", i+1, p.Steps[i].Op, got)
		}
	}
}

// leftovers gives the test mounts of its own, as those of other programs come and go meanwhile, and returns a function that tells what
// starts have left since.
func leftovers(t *testing.T) func() string {
	t.Helper()
	inNamespace(t)
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_SHARED, ""); err != nil { // as a host's: what spreads from a container is seen
		t.Fatal(err)
	}
	runtime.GC()
	before := traces(t)
	return func() string {
		after := traces(t)
		for end := time.Now().Add(3 * time.Second); after != before && time.Now().Before(end); after = traces(t) {
			runtime.GC() // what earlier tests left to the collector goes at any time
			time.Sleep(10 * time.Millisecond)
		}
		if after == before {
			return ""
		}
		return after + "\nbefore:\n" + before
	}
}

// TestStartsUnderPressure starts many children while the garbage collector runs.
func TestStartsUnderPressure(t *testing.T) {
	needRoot(t)
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	stop := make(chan struct{})
	defer close(stop)
	go func() {
		var keep [][]byte
		for {
			select {
			case <-stop:
				return
			default:
				keep = append(keep, make([]byte, 1<<16))
				if len(keep) > 64 {
					keep = nil
				}
			}
		}
	}()
	p := &plan.Plan{Version: plan.Version, Arch: runtime.GOARCH, Steps: []plan.Step{
		{Lane: plan.Host, Op: &plan.Clone{Namespaces: []string{"mount", "uts", "pid"}}},
		{Lane: plan.Child, Op: &plan.Sethostname{Name: "glass"}},
		{Lane: plan.Child, Op: &plan.Mount{Target: "/", Flags: []string{"rec", "private"}}},
		{Lane: plan.Child, Op: &plan.Execve{Candidates: []string{"/nowhere/true", "/bin/true"}, Argv: []string{"true"}}},
	}}
	starts := 300
	if testing.Short() {
		starts = 30 // an emulated processor
	}
	for i := range starts {
		proc, err := Start(p, Options{})
		if err != nil {
			t.Fatalf("start %d: %v", i, err)
		}
		if code := wait(t, proc); code != 0 {
			t.Fatalf("start %d: exit code %d", i, code)
		}
	}
}

func TestExecDiagnosis(t *testing.T) {
	needRoot(t)
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	root := rootfs(t)
	write := func(name, content string, mode os.FileMode) {
		if err := os.WriteFile(filepath.Join(root, name), []byte(content), mode); err != nil {
			t.Fatal(err)
		}
	}
	elf := func(machine byte, interp string) string {
		b := make([]byte, 0x100)
		copy(b, "\x7fELF\x02\x01\x01")
		b[16], b[18], b[20] = 2, machine, 1
		b[32], b[52], b[54], b[56] = 64, 64, 56, 1 // one program header, at 64
		b[64], b[68], b[72] = 3, 4, 0x80           // PT_INTERP at 0x80
		b[64+32], b[64+40] = byte(len(interp)+1), byte(len(interp)+1)
		copy(b[0x80:], interp)
		return string(b)
	}
	foreign, own := byte(183), byte(62)
	if runtime.GOARCH == "arm64" {
		foreign, own = own, foreign
	}
	write("crlf", "#!/bin/sh\r\necho\r\n", 0o755)
	write("shebang", "#!/usr/bin/python9\n", 0o755)
	write("plain", "just text", 0o755)
	write("noexec", "#!/bin/sh\n", 0o644)
	write("empty", "", 0o755)
	write("foreign", elf(foreign, "/x"), 0o755)
	write("loader", elf(own, "/lib/ld-none.so"), 0o755)
	for _, tc := range []struct {
		name string
		code int
		want string
	}{
		{"/crlf", 126, "CRLF"},
		{"/shebang", 127, "/usr/bin/python9"},
		{"/plain", 126, "neither a binary"},
		{"/noexec", 126, "no execute permission"},
		{"/empty", 126, "is empty"},
		{"/foreign", 126, "--platform"},
		{"/loader", 127, "/lib/ld-none.so"},
		{"/tmp", 126, "is a directory"},
		{"/none", 127, "doesn't exist"},
		{"none", 127, "not found in $PATH"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			candidates := []string{tc.name}
			if !strings.HasPrefix(tc.name, "/") {
				candidates = []string{"/sbin/" + tc.name, "/bin/" + tc.name}
			}
			p := &plan.Plan{Version: plan.Version, Arch: runtime.GOARCH, Steps: []plan.Step{
				{Lane: plan.Host, Op: &plan.Clone{Namespaces: []string{"mount"}}},
				{Lane: plan.Child, Op: &plan.Mount{Target: "/", Flags: []string{"rec", "private"}}},
				{Lane: plan.Child, Op: &plan.Mount{Source: root, Target: root, Flags: []string{"bind"}}},
				{Lane: plan.Child, Op: &plan.PivotRoot{Root: root}},
				{Lane: plan.Child, Op: &plan.Execve{Candidates: candidates, Argv: []string{tc.name}}},
			}}
			_, err := Start(p, Options{OnExecFailure: ExplainExec})
			var step *StepError
			if !errors.As(err, &step) || step.Code != tc.code || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got %v, want code %d and %q", err, tc.code, tc.want)
			}
		})
	}
}

// TestKilledDuringSetup kills a child that waits for its parent: the parent says so and doesn't hang.
func TestKilledDuringSetup(t *testing.T) {
	needRoot(t)
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	p := &plan.Plan{Version: plan.Version, Arch: runtime.GOARCH, Steps: []plan.Step{
		{Lane: plan.Host, Op: &plan.Clone{}},
		{Lane: plan.Host, Op: &plan.RecvFD{Save: "never"}},
		{Lane: plan.Child, Op: &plan.Await{Name: "never"}},
		{Lane: plan.Child, Op: &plan.Execve{Candidates: []string{"/bin/true"}, Argv: []string{"true"}}},
	}}
	var killer sync.WaitGroup
	ended := make(chan struct{})
	killer.Go(func() {
		for {
			select {
			case <-ended:
				return
			case <-time.After(20 * time.Millisecond):
			}
			for _, pid := range childrenOf(os.Getpid()) {
				unix.Kill(pid, unix.SIGKILL)
			}
		}
	})
	_, err := Start(p, Options{})
	close(ended)
	killer.Wait()
	if err == nil || !strings.Contains(err.Error(), "killed by signal 9") {
		t.Errorf("got %v, want the death of the child", err)
	}
}

// TestParentDies ends the parent while its child waits for it: the child must not stay behind.
func TestParentDies(t *testing.T) {
	needRoot(t)
	if os.Getenv("GLASSBOX_ORPHAN") != "" {
		runtime.LockOSThread()
		p := &plan.Plan{Version: plan.Version, Arch: runtime.GOARCH, Steps: []plan.Step{
			{Lane: plan.Host, Op: &plan.Clone{}},
			{Lane: plan.Host, Op: &plan.RecvFD{Save: "never"}},
			{Lane: plan.Child, Op: &plan.Await{Name: "never"}},
			{Lane: plan.Child, Op: &plan.Execve{Candidates: []string{"/bin/true"}, Argv: []string{"true"}}},
		}}
		Start(p, Options{})
		return
	}
	cmd := exec.Command(os.Args[0], "-test.run=^TestParentDies$")
	cmd.Env = append(os.Environ(), "GLASSBOX_ORPHAN=1")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var children []int
	for range 3000 {
		time.Sleep(10 * time.Millisecond)
		if children = childrenOf(cmd.Process.Pid); len(children) > 0 {
			break
		}
	}
	if len(children) == 0 {
		t.Fatal("there is no child")
	}
	start, err := StartTime(children[0])
	if err != nil {
		t.Fatal(err)
	}
	cmd.Process.Kill()
	cmd.Wait()
	for range 3000 {
		time.Sleep(10 * time.Millisecond)
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", children[0]))
		if now, _ := StartTime(children[0]); err != nil || now != start || bytes.Contains(stat, []byte(") Z ")) {
			return
		}
	}
	unix.Kill(children[0], unix.SIGKILL)
	t.Error("the child outlives its parent")
}

func childrenOf(pid int) (out []int) {
	files, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	for _, f := range files {
		data, _ := os.ReadFile(f)
		for _, word := range strings.Fields(string(data)) {
			n, _ := strconv.Atoi(word)
			out = append(out, n)
		}
	}
	return out
}

// again runs a test in a process of its own, with variables and further descriptors.
func again(t *testing.T, name string, env []string, files ...*os.File) string {
	t.Helper()
	cmd := exec.Command(os.Args[0], "-test.run=^"+name+"$")
	cmd.Env, cmd.ExtraFiles = append(os.Environ(), env...), files
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return string(out)
}
