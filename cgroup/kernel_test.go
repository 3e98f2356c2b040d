package cgroup

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"glassbox/host"
	"glassbox/plan"
	"glassbox/test/plain"
)

// The tests below work on the cgroups of this machine as root, in cgroups of their own. CGROUP_TEST_CHILD makes this program
// the child: its locked thread joins the cgroups of descriptors 3, 4, … and executes a shell script.
func TestMain(m *testing.M) {
	script := os.Getenv("CGROUP_TEST_CHILD")
	if script == "" {
		plain.Main(m)
	}
	runtime.LockOSThread()
	n, _ := strconv.Atoi(os.Getenv("CGROUP_TEST_JOIN"))
	for fd := 3; fd < 3+n; fd++ {
		if _, err := unix.Write(fd, []byte("0")); err != nil {
			fmt.Fprintln(os.Stderr, "join:", err)
			os.Exit(99)
		}
		unix.Close(fd)
	}
	err := syscall.Exec("/bin/sh", []string{"sh", "-c", script}, os.Environ())
	fmt.Fprintln(os.Stderr, "exec:", err)
	os.Exit(98)
}

// realHost skips the test where it can't make cgroups.
func realHost(t testing.TB) host.Cgroup {
	t.Helper()
	f, err := host.Probe()
	if err != nil {
		t.Fatal(err)
	}
	if os.Geteuid() != 0 || f.Cgroup.Mode == host.CgroupNone {
		t.Skip("needs root and mounted cgroups")
	}
	return f.Cgroup
}

// do executes a step and returns the descriptor of an open.
func do(op plan.Op) (fd int, err error) {
	switch op := op.(type) {
	case *plan.CgroupCreate:
		return -1, Create(op)
	case *plan.CgroupWrite:
		return -1, Write(op)
	case *plan.CgroupEvacuate:
		return -1, Evacuate(op)
	case *plan.DeviceFilter:
		return -1, AttachDevices(op)
	case *plan.CgroupOpen:
		return Open(op)
	case *plan.CgroupRemove:
		return -1, Remove(op)
	}
	return -1, fmt.Errorf("no executor for %T", op)
}

// group is a cgroup made by the steps of Setup.
type group struct {
	t     testing.TB
	setup Setup
	fds   map[string]int
}

func testParent() string { return fmt.Sprintf("/glassbox-test-%d", os.Getpid()) }

func newGroup(t testing.TB, f host.Cgroup, name string, r *specs.LinuxResources) *group {
	t.Helper()
	s, err := Steps(f, testParent()+"/"+name, r, pointerItself)
	if err != nil {
		t.Fatal(err)
	}
	g := &group{t, s, map[string]int{}}
	t.Cleanup(g.remove)
	for _, step := range s.Steps {
		fd, err := do(step.Op)
		if err != nil {
			t.Fatalf("%v: %v", step.Op, err)
		}
		if op, ok := step.Op.(*plan.CgroupOpen); ok {
			g.fds[op.Save] = fd
		}
	}
	return g
}

func (g *group) dirs() []string {
	var dirs []string
	for _, dir := range g.setup.Paths {
		if !slices.Contains(dirs, dir) {
			dirs = append(dirs, dir)
		}
	}
	return dirs
}

func (g *group) remove() {
	if err := Kill(g.setup.Paths); err != nil {
		g.t.Error(err)
	}
	for _, fd := range g.fds {
		unix.Close(fd)
	}
	for _, dir := range g.dirs() {
		if err := Remove(&plan.CgroupRemove{Path: dir}); err != nil {
			g.t.Error(err)
		}
		if _, err := os.Stat(dir); err == nil {
			g.t.Errorf("%s is still there", dir)
		}
		unix.Rmdir(path.Dir(dir)) // testParent, when this is the last
	}
}

// start runs a script in the group, born or joined before its first instruction.
func (g *group) start(script string) (*exec.Cmd, *strings.Builder) {
	g.t.Helper()
	exe, err := os.Executable()
	if err != nil {
		g.t.Fatal(err)
	}
	cmd := exec.Command(exe)
	cmd.Env = append(os.Environ(), "CGROUP_TEST_CHILD="+script, fmt.Sprintf("CGROUP_TEST_JOIN=%d", len(g.setup.Join)), "GOMAXPROCS=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{}
	if g.setup.CloneInto != "" {
		cmd.SysProcAttr.UseCgroupFD, cmd.SysProcAttr.CgroupFD = true, g.fds[g.setup.CloneInto]
	}
	for _, name := range g.setup.Join {
		fd, err := unix.FcntlInt(uintptr(g.fds[name]), unix.F_DUPFD_CLOEXEC, 0)
		if err != nil {
			g.t.Fatal(err)
		}
		file := os.NewFile(uintptr(fd), name)
		defer file.Close()
		cmd.ExtraFiles = append(cmd.ExtraFiles, file)
	}
	out := &strings.Builder{}
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Start(); err != nil {
		g.t.Fatal(err)
	}
	return cmd, out
}

// settled waits until the one process of the group is in every hierarchy.
func (g *group) settled() {
	g.t.Helper()
	waitFor(g.t, "process in every hierarchy", func() bool {
		return !slices.ContainsFunc(g.dirs(), func(dir string) bool { pids, _ := readPids(dir); return len(pids) != 1 })
	})
}

// run returns the script's output and exit status.
func (g *group) run(script string) (string, int) {
	g.t.Helper()
	cmd, out := g.start(script)
	cmd.Wait()
	return strings.TrimSpace(out.String()), cmd.ProcessState.ExitCode()
}

func has(f host.Cgroup, controller string) bool {
	return slices.ContainsFunc(f.Hierarchies, func(h host.Hierarchy) bool { return slices.Contains(h.Controllers, controller) })
}

func need(t *testing.T, f host.Cgroup, controllers ...string) {
	t.Helper()
	for _, c := range controllers {
		if !has(f, c) {
			t.Skipf("needs the cgroup controller %s", c)
		}
	}
}

func ptr[T any](v T) *T { return &v }

func memory(limit int64) *specs.LinuxResources {
	return &specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: &limit}}
}

// The child is in its cgroup everywhere, exec joins the same, and nothing is left afterwards.
func TestMembership(t *testing.T) {
	f := realHost(t)
	g := newGroup(t, f, "member", nil)
	out, code := g.run("cat /proc/self/cgroup")
	for _, h := range f.Hierarchies {
		prefix := ":" + strings.Join(h.Controllers, ",") + ":"
		if h.V2 {
			prefix = "0::"
		}
		i := strings.Index("\n"+out, prefix)
		if i < 0 {
			t.Errorf("%q isn't in the child's /proc/self/cgroup: status %d, %s", prefix, code, out)
			continue
		}
		line, _, _ := strings.Cut(("\n" + out)[i:], "\n")
		if !strings.HasSuffix(line, testParent()+"/member") {
			t.Errorf("the child is in %s", line)
		}
	}
	if diff := cmp.Diff(g.setup.Join, Join(f, g.setup.Paths).Join); diff != "" {
		t.Error(diff)
	}
}

// A created cgroup can be created again while it is empty, and not while it has processes.
func TestCreateExisting(t *testing.T) {
	g := newGroup(t, realHost(t), "existing", nil)
	create := func() (errs []error) {
		for _, dir := range g.dirs() {
			if err := Create(&plan.CgroupCreate{Path: dir}); err != nil {
				errs = append(errs, err)
			}
		}
		return errs
	}
	if errs := create(); errs != nil {
		t.Errorf("while it is empty: %v", errs)
	}
	g.start("exec sleep 100")
	g.settled()
	if errs := create(); len(errs) != len(g.dirs()) || !errors.Is(errs[0], unix.EEXIST) {
		t.Errorf("with a process: errors %v, want one for each of %v", errs, g.dirs())
	}
}

func waitFor(t testing.TB, what string, done func() bool) {
	t.Helper()
	for range 6000 {
		if done() {
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
	t.Fatalf("no %s after half a minute", what)
}

func TestCreateOutsideOfCgroupfs(t *testing.T) {
	dir := t.TempDir() + "/missing/x/y"
	if err := Create(&plan.CgroupCreate{Path: dir}); !errors.Is(err, unix.ENOENT) {
		t.Errorf("got %v, want ENOENT", err)
	}
}

// Starts and removals that share their parents don't disturb each other.
func TestCreateRemoveRace(t *testing.T) {
	f := realHost(t)
	dirs := newGroup(t, f, "race", nil).dirs()
	var wg sync.WaitGroup
	for i := range 4 {
		wg.Go(func() {
			for j := range 30 {
				for _, dir := range dirs {
					p := fmt.Sprintf("%s/parent/%d", dir, i)
					if err := Create(&plan.CgroupCreate{Path: p}); err != nil {
						t.Errorf("round %d: %v", j, err)
					}
					if err := Remove(&plan.CgroupRemove{Path: p}); err != nil {
						t.Errorf("round %d: %v", j, err)
					}
					unix.Rmdir(path.Dir(p)) // as an administrator may
				}
			}
		})
	}
	wg.Wait()
	for _, dir := range dirs {
		if subs, err := subgroups(dir); err != nil || len(subs) > 0 {
			t.Errorf("left: %v, %v", subs, err)
		}
	}
}

// A process that takes more than its limit dies, its parent lives, and it is counted.
func TestMemoryLimit(t *testing.T) {
	f := realHost(t)
	need(t, f, "memory")
	r := memory(24 << 20)
	r.Memory.Swap = r.Memory.Limit
	g := newGroup(t, f, "memory", r)
	out, code := g.run("tail </dev/zero >/dev/null; echo child: $?") // which keeps a line until it ends: one process
	if code != 0 || !strings.Contains(out, "child: 137") {
		t.Errorf("status %d, output %q, want child: 137", code, out)
	}
	n, ok, err := OOMKills(g.setup.Paths)
	if n != 1 || !ok || err != nil {
		t.Errorf("OOMKills = %d, %v, %v, want 1", n, ok, err)
	}
	s, err := ReadStats(g.setup.Paths)
	if err != nil {
		t.Fatal(err)
	}
	if m := s.Memory; m.Limit != 24<<20 || m.SwapLimit != 0 || m.OOMKills != 1 || m.MaxUsage < 20<<20 && m.MaxUsage != 0 {
		t.Errorf("stats: %+v", m)
	}
}

func TestPidsLimit(t *testing.T) {
	f := realHost(t)
	need(t, f, "pids")
	g := newGroup(t, f, "pids", &specs.LinuxResources{Pids: &specs.LinuxPids{Limit: ptr[int64](7)}})
	cmd, _ := g.start("for i in 1 2 3 4 5 6 7 8 9 10; do sleep 100 & done; wait")
	waitFor(t, "seven processes", func() bool { pids, _ := Procs(g.setup.Paths); return len(pids) >= 6 })
	s, err := ReadStats(g.setup.Paths)
	if err != nil || s.Pids.Limit != 7 || s.Pids.Current > 7 {
		t.Errorf("stats: %+v, %v", s.Pids, err)
	}
	if err := Kill(g.setup.Paths); err != nil {
		t.Error(err)
	}
	cmd.Wait()
	if s := cmd.ProcessState.Sys().(syscall.WaitStatus); s.Signal() != syscall.SIGKILL && s.ExitStatus() == 0 {
		t.Errorf("the shell ended with %v", cmd.ProcessState)
	}
}

// Two tenths of a processor are two tenths, and the time is counted.
func TestCPUQuota(t *testing.T) {
	f := realHost(t)
	need(t, f, "cpu")
	g := newGroup(t, f, "quota", &specs.LinuxResources{CPU: &specs.LinuxCPU{
		Quota: ptr[int64](20000), Period: ptr[uint64](100000),
		Shares: ptr[uint64](512),
	}})
	g.start("while :; do :; done")
	usage := func() uint64 {
		s, err := ReadStats(g.setup.Paths)
		if err != nil {
			t.Fatal(err)
		}
		return s.CPU.Usage
	}
	waitFor(t, "processor time", func() bool { return usage() > 0 })
	before, start := usage(), time.Now()
	time.Sleep(time.Second)
	got, elapsed := time.Duration(usage()-before), time.Since(start) // on a busy machine a second is longer
	if got < 50*time.Millisecond || got > elapsed/5+80*time.Millisecond {
		t.Errorf("in %v it ran %v, want about a fifth", elapsed, got)
	}
	if s, _ := ReadStats(g.setup.Paths); s.CPU.ThrottledPeriods == 0 || s.CPU.ThrottledTime == 0 {
		t.Errorf("not throttled: %+v", s.CPU)
	}
}

func TestCpuset(t *testing.T) {
	f := realHost(t)
	need(t, f, "cpuset")
	g := newGroup(t, f, "cpuset", &specs.LinuxResources{CPU: &specs.LinuxCPU{Cpus: "0", Mems: "0"}})
	out, _ := g.run("grep Cpus_allowed_list /proc/self/status")
	if want := "Cpus_allowed_list:\t0"; out != want {
		t.Errorf("got %q, want %q", out, want)
	}
}

// Rules of devices decide what can be opened; an update replaces them.
func TestDevices(t *testing.T) {
	f := realHost(t)
	char := func(minor int64, access string) specs.LinuxDeviceCgroup {
		return specs.LinuxDeviceCgroup{Allow: true, Type: "c", Major: ptr[int64](1), Minor: &minor, Access: access}
	}
	deny := specs.LinuxDeviceCgroup{Access: "rwm"}
	g := newGroup(t, f, "devices", &specs.LinuxResources{Devices: []specs.LinuxDeviceCgroup{deny, char(3, "rwm"), char(5, "r")}})
	const script = `for d in null zero full; do for m in "<" ">"; do
		if eval "true $m/dev/$d" 2>/dev/null; then printf "%s " "$d$m"; fi; done; done`
	if out, _ := g.run(script); out != "null< null> zero<" {
		t.Errorf("could open %q", out)
	}
	steps, err := Update(f, g.setup.Paths, &specs.LinuxResources{Devices: []specs.LinuxDeviceCgroup{deny, char(7, "r"), char(3, "rw")}})
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range steps {
		if _, err := do(s.Op); err != nil {
			t.Fatal(err)
		}
	}
	if out, _ := g.run(script); out != "null< null> full<" {
		t.Errorf("after the update could open %q", out)
	}
}

// Random programs pass the kernel's verifier.
func TestDeviceProgramsVerify(t *testing.T) {
	f := realHost(t)
	v2, ok := unified(f)
	if !ok {
		t.Skip("needs cgroup v2")
	}
	g := newGroup(t, host.Cgroup{Mode: host.CgroupV2, Hierarchies: []host.Hierarchy{v2}}, "verify", nil)
	for i := range 40 {
		rules := randomRules(newRand(uint64(i)))
		if err := AttachDevices(&plan.DeviceFilter{Path: g.setup.Paths[""], Program: deviceProgram(rules)}); err != nil {
			t.Fatalf("%v: %v", rules, err)
		}
	}
}

// ways are the kinds of hierarchies by which a cgroup can be killed: whatever the host has, a v1 freezer, none.
var ways = []string{"all", "freezer", "pids"}

// way returns the paths that leave no other way, or nil.
func way(g *group, name string) map[string]string {
	if name == "all" {
		return g.setup.Paths
	}
	if dir, ok := g.setup.Paths[name]; ok {
		return map[string]string{name: dir}
	}
	return nil
}

func TestFreezeAndKill(t *testing.T) {
	f := realHost(t)
	for _, name := range ways {
		g := newGroup(t, f, "freeze-"+name, nil)
		paths := way(g, name)
		if paths == nil {
			continue
		}
		cmd, _ := g.start("sleep 100 & sleep 100 & wait")
		waitFor(t, "three processes ("+name+")", func() bool { pids, _ := Procs(paths); return len(pids) == 3 })
		if name != "pids" {
			if err := Freeze(paths); err != nil {
				t.Errorf("%s: %v", name, err)
			}
			if frozen, err := Frozen(paths); !frozen || err != nil {
				t.Errorf("%s: Frozen = %v, %v after Freeze", name, frozen, err)
			}
			if err := Thaw(paths); err != nil {
				t.Errorf("%s: %v", name, err)
			}
			if frozen, err := Frozen(paths); frozen || err != nil {
				t.Errorf("%s: Frozen = %v, %v after Thaw", name, frozen, err)
			}
			if err := Freeze(paths); err != nil { // and what is frozen can be killed
				t.Errorf("%s: %v", name, err)
			}
		}
		if err := Kill(paths); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if pids, err := Procs(paths); len(pids) > 0 || err != nil {
			t.Errorf("%s: after Kill: %v, %v", name, pids, err)
		}
		cmd.Wait()
		if err := Thaw(paths); err != nil && name != "pids" {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// A process that forks all the time, in a cgroup below, doesn't get away.
func TestKillForkBomb(t *testing.T) {
	f := realHost(t)
	need(t, f, "pids")
	for _, name := range ways {
		g := newGroup(t, f, "bomb-"+name, &specs.LinuxResources{Pids: &specs.LinuxPids{Limit: ptr[int64](500)}})
		paths := way(g, name)
		if paths == nil {
			continue
		}
		dir, err := tree(paths)
		if err != nil {
			t.Fatal(err)
		}
		if err := unix.Mkdir(dir+"/below", 0o755); err != nil && err != unix.EEXIST {
			t.Fatal(err)
		}
		cmd, _ := g.start(fmt.Sprintf("echo 0 > %s/below/cgroup.procs; while :; do sleep 0.1 & done 2>/dev/null", dir))
		waitFor(t, "bomb", func() bool { pids, _ := Procs(paths); return len(pids) > 5 })
		if err := Kill(paths); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if pids, err := Procs(g.setup.Paths); len(pids) > 0 || err != nil {
			t.Errorf("%s: after Kill: %v, %v", name, pids, err)
		}
		cmd.Wait()
	}
}

func TestGone(t *testing.T) {
	f := realHost(t)
	s, err := Steps(f, testParent()+"/gone", nil, pointerItself)
	if err != nil {
		t.Fatal(err)
	}
	if err := Kill(s.Paths); err != nil {
		t.Errorf("Kill: %v", err)
	}
	for _, dir := range s.Paths {
		if err := Remove(&plan.CgroupRemove{Path: dir}); err != nil {
			t.Errorf("Remove: %v", err)
		}
	}
	if pids, err := Procs(s.Paths); len(pids) > 0 || err != nil {
		t.Errorf("Procs: %v, %v", pids, err)
	}
	if _, err := ReadStats(s.Paths); !errors.Is(err, unix.ENOENT) {
		t.Errorf("ReadStats: %v, want ENOENT", err)
	}
}

// What the cgroups of one start cost, and what they would cost if the parent were made and removed for each.
func BenchmarkCreateRemove(b *testing.B) {
	f := realHost(b)
	s, err := Steps(f, testParent()+"/bench", nil, pointerItself)
	if err != nil {
		b.Fatal(err)
	}
	run := func(parent bool) func(b *testing.B) {
		return func(b *testing.B) {
			for b.Loop() {
				for _, step := range s.Steps {
					if fd, err := do(step.Op); err != nil {
						b.Fatal(err)
					} else if fd >= 0 {
						unix.Close(fd)
					}
				}
				for _, h := range f.Hierarchies {
					dir := path.Join(h.Mount, testParent(), "bench")
					if err := Remove(&plan.CgroupRemove{Path: dir}); err != nil {
						b.Fatal(err)
					}
					if parent {
						unix.Rmdir(path.Dir(dir))
					}
				}
			}
		}
	}
	b.Run("parent-stays", run(false))
	b.Run("parent-too", run(true))
}
