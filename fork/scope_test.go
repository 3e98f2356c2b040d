package fork

import (
	"os"
	"os/exec"
	"path"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/runtime-spec/specs-go"

	"glassbox/cgroup"
	"glassbox/host"
	"glassbox/plan"
	"glassbox/systemd"
)

// inScope is a plan for one command in a scope, without namespaces, so that any user can run it.
func inScope(s cgroup.Setup, argv ...string) *plan.Plan {
	p := &plan.Plan{Version: plan.Version, Arch: runtime.GOARCH, Steps: s.Steps}
	child := func(op plan.Op) { p.Steps = append(p.Steps, plan.Step{Lane: plan.Child, Phase: plan.Exec, Op: op}) }
	p.Steps = append(p.Steps, plan.Step{Lane: plan.Host, Phase: plan.Isolation, Op: &plan.Clone{Cgroup: s.CloneInto}})
	p.Steps = append(p.Steps, s.After...)
	if s.Await != "" {
		child(&plan.Await{Name: s.Await})
	}
	for _, from := range s.Join {
		child(&plan.CgroupJoin{From: from})
	}
	child(&plan.Execve{Candidates: []string{argv[0]}, Argv: argv, Env: []string{"PATH=/bin"}})
	return p
}

func scopeLimits(mb, pids, quota int64, shares uint64) *specs.LinuxResources {
	memory := mb << 20
	return &specs.LinuxResources{
		Memory: &specs.LinuxMemory{Limit: &memory}, Pids: &specs.LinuxPids{Limit: &pids}, CPU: &specs.LinuxCPU{Quota: &quota, Shares: &shares},
	}
}

func scopeDevices() []specs.LinuxDeviceCgroup {
	zero, three, one := int64(0), int64(3), int64(1)
	return []specs.LinuxDeviceCgroup{
		{Access: "rwm"},
		{Allow: true, Type: "c", Major: &one, Minor: &three, Access: "rwm"},
		{Allow: true, Type: "b", Major: &zero, Access: "m"},
	}
}

// checkScope looks whether the limits are those of the kernel's files: memory in MiB, and the beginnings of the other files' texts.
func checkScope(t *testing.T, paths map[string]string, user bool, when string, mb uint64, pids uint64, quota, shares string) {
	t.Helper()
	stats, err := cgroup.ReadStats(paths)
	if err != nil {
		t.Fatal(err)
	}
	if stats.Memory.Limit != mb<<20 || stats.Pids.Limit != pids {
		t.Errorf("%s: memory %d, pids %d, want %d MB and %d", when, stats.Memory.Limit, stats.Pids.Limit, mb, pids)
	}
	if user {
		return // the controller cpu isn't everywhere a user's
	}
	quotaFile, sharesFile := path.Join(paths["cpu"], "cpu.cfs_quota_us"), path.Join(paths["cpu"], "cpu.shares")
	if _, v1 := paths["cpu"]; !v1 {
		quotaFile, sharesFile = path.Join(paths[""], "cpu.max"), path.Join(paths[""], "cpu.weight")
	}
	for file, want := range map[string]string{quotaFile: quota, sharesFile: shares} {
		if got, err := os.ReadFile(file); err != nil || !strings.HasPrefix(string(got), want) {
			t.Errorf("%s: %s is %q, %v, want %s", when, file, got, err, want)
		}
	}
}

func systemctl(t *testing.T, user bool, args ...string) string {
	t.Helper()
	if user {
		args = append([]string{"--user"}, args...)
	}
	out, err := exec.Command("systemctl", args...).CombinedOutput()
	if err != nil {
		t.Errorf("systemctl %s: %v: %s", args, err, out)
	}
	return strings.TrimSpace(string(out))
}

// checkUnit looks whether systemd knows what it has been told.
func checkUnit(t *testing.T, user bool, unit string) {
	t.Helper()
	got := systemctl(t, user, "show", "-P", "Slice", "-P", "Delegate", "-P", "TimeoutStopUSec", "-P", "TasksMax", unit)
	if want := []string{"5s", "yes", "20", "glassbox-test.slice"}; len(strings.Fields(got)) != len(want) {
		t.Errorf("systemctl show: %q, want the words %q", got, want)
	} else {
		for _, w := range want {
			if !strings.Contains("\n"+got+"\n", "\n"+w+"\n") {
				t.Errorf("systemctl show: %q, want %q among it", got, w)
			}
		}
	}
}

// A container in a scope of systemd's has its limits, systemd knows them and keeps them, more processes join it, and nothing is
// left of it. In the virtual machine this runs as root on both hierarchies, and for an ordinary user on v2.
func TestScope(t *testing.T) {
	if !systemd.Booted() {
		t.Skip("needs systemd as the machine's first process")
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	user := os.Geteuid() != 0
	facts, err := host.Probe()
	if err != nil {
		t.Fatal(err)
	}
	f := facts.Cgroup
	if user && f.Mode != host.CgroupV2 {
		t.Skip("a user's systemd needs cgroup v2")
	}
	m, err := systemd.Probe(user)
	if err != nil {
		t.Fatal(err)
	}
	if m.Version < 200 || !strings.HasPrefix(m.Cgroup, "/") || m.User != user {
		t.Errorf("systemd: %+v", m)
	}
	scope, err := cgroup.ParseScope("glassbox-test.slice:t:"+strings.ToLower(t.Name()), "", user)
	if err != nil {
		t.Fatal(err)
	}
	origin := func(p string) string { return p }
	properties, err := cgroup.ScopeProperties(map[string]string{"org.systemd.property.TimeoutStopUSec": "uint64 5000000"})
	if err != nil {
		t.Fatal(err)
	}
	r := scopeLimits(64, 20, 50000, 512)
	if !user {
		r.Devices = scopeDevices()
	}
	s, err := cgroup.ScopeSteps(f, *m, scope, properties, r, origin)
	if err != nil {
		t.Fatal(err)
	}
	sleep := inScope(s, "/bin/sleep", "1000")

	// A start that fails leaves no scope, whichever step it is.
	for i := range sleep.Steps {
		if proc, err := Start(sleep, Options{Inject: i + 1}); err == nil {
			t.Fatalf("step %d was made to fail, but the command runs as %d", i+1, proc.PID)
		}
		for _, dir := range s.Paths {
			if _, err := os.Stat(dir); err == nil {
				t.Errorf("step %d (%s): %s is left", i+1, sleep.Steps[i].Op, dir)
			}
		}
	}

	proc, err := Start(sleep, Options{})
	if err != nil {
		t.Fatal(err)
	}
	paths, err := host.CgroupsOf(proc.PID)
	if d := cmp.Diff(s.Paths, paths); d != "" || err != nil {
		t.Errorf("where the process is: %v (-want +got)\n%s", err, d)
	}
	shares := map[bool][2]string{true: {"512", "2048"}, false: {"59", "174"}}[f.Mode == host.CgroupV1]
	checkScope(t, s.Paths, user, "at the start", 64, 20, "50000", shares[0])

	// Another container that wants the same unit gets an error, and this one lives on.
	if again, err := Start(sleep, Options{}); err == nil || !strings.Contains(err.Error(), "UnitExists") &&
		!strings.Contains(err.Error(), "it exists and has") {
		t.Errorf("a second container in the scope: %v, %v", again, err)
	}
	if paths, err := host.CgroupsOf(proc.PID); cmp.Diff(s.Paths, paths) != "" || err != nil {
		t.Errorf("after that the first one is in %v, %v", paths, err)
	}
	checkScope(t, s.Paths, user, "after a collision", 64, 20, "50000", shares[0])

	// What systemd does when it looks at all units anew.
	systemctl(t, user, "daemon-reload")
	checkScope(t, s.Paths, user, "after daemon-reload", 64, 20, "50000", shares[0])
	if dir, ok := s.Paths["devices"]; ok {
		want := "c 1:3 rwm\nb 0:* m\n"
		if got, _ := os.ReadFile(dir + "/devices.list"); string(got) != want {
			t.Errorf("devices.list after daemon-reload is %q, want %q", got, want)
		}
	}
	checkUnit(t, user, scope.Unit)

	// A further process, as exec has it.
	more, err := Start(inScope(cgroup.JoinScope(f, s.Paths, scope.Unit, user), "/bin/sleep", "1000"), Options{})
	if err != nil {
		t.Fatal(err)
	}
	if paths, err := host.CgroupsOf(more.PID); cmp.Diff(s.Paths, paths) != "" || err != nil {
		t.Errorf("the second process is in %v, %v, want %v", paths, err, s.Paths)
	}

	steps, err := cgroup.UpdateScope(f, *m, scope.Unit, s.Paths, scopeLimits(32, 10, 20000, 2048))
	if err == nil {
		err = cgroup.Apply(steps)
	}
	if err != nil {
		t.Fatal(err)
	}
	systemctl(t, user, "daemon-reload")
	checkScope(t, s.Paths, user, "after an update", 32, 10, "20000", shares[1])

	if err := cgroup.Kill(s.Paths); err != nil {
		t.Error(err)
	}
	for _, p := range []*Process{proc, more} {
		if code := wait(t, p); code != 128+int(unix.SIGKILL) {
			t.Errorf("exit code %d", code)
		}
	}
	undo(t, sleep)
	undo(t, sleep) // once more is no error
	for _, dir := range s.Paths {
		if _, err := os.Stat(dir); err == nil {
			t.Errorf("%s is left", dir)
		}
	}
}

// A start that finds its cgroup occupied leaves it as it is, with the empty ones below.
func TestOccupiedCgroup(t *testing.T) {
	needRoot(t)
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	facts, err := host.Probe()
	if err != nil {
		t.Fatal(err)
	}
	s, err := cgroup.Steps(facts.Cgroup, testCgroup+"/occupied", nil, func(p string) string { return p })
	if err != nil {
		t.Fatal(err)
	}
	p := inScope(s, "/bin/sleep", "1000")
	proc, err := Start(p, Options{})
	if err != nil {
		t.Fatal(err)
	}
	var below []string
	for _, dir := range s.Paths {
		below = append(below, dir+"/below")
		if err := os.Mkdir(dir+"/below", 0o755); err != nil && !os.IsExist(err) {
			t.Fatal(err)
		}
	}
	if again, err := Start(p, Options{}); err == nil || !strings.Contains(err.Error(), "it exists and has 1 processes") {
		t.Errorf("a second container in the cgroup: %v, %v", again, err)
	}
	for _, dir := range below {
		if _, err := os.Stat(dir); err != nil {
			t.Error(err)
		}
	}
	if err := cgroup.Kill(s.Paths); err != nil {
		t.Error(err)
	}
	wait(t, proc)
	undo(t, p)
	for _, dir := range s.Paths {
		os.Remove(path.Dir(dir))
	}
}
