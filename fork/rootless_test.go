package fork

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"glassbox/compile"
	"glassbox/host"
	"glassbox/plan"
)

// scenario runs what a test is about: "run" a; "join": run b in the namespaces of a, which runs; "exec": run b's process in a.
func scenario(t *testing.T, what string, a, b *specs.Spec) string {
	t.Helper()
	if what == "run" {
		return run(t, compiled(t, a))
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	p := compiled(t, a)
	fds, _ := pipes(t)
	first, err := Start(p, Options{FDs: fds})
	if err != nil {
		t.Fatal(err)
	}
	defer undo(t, p)
	defer wait(t, first)
	defer unix.Kill(first.PID, unix.SIGKILL)
	if what == "join" {
		files := map[specs.LinuxNamespaceType]string{"mount": "mnt", "network": "net"}
		for i, n := range b.Linux.Namespaces {
			if n.Path != "" {
				file := files[n.Type]
				if file == "" {
					file = string(n.Type)
				}
				b.Linux.Namespaces[i].Path = fmt.Sprintf("/proc/%d/ns/%s", first.PID, file)
			}
		}
		return run(t, compiled(t, b))
	}
	facts, err := host.Probe()
	if err != nil {
		t.Fatal(err)
	}
	start, err := StartTime(first.PID)
	if err != nil {
		t.Fatal(err)
	}
	in := compile.ExecInput{Input: compile.Input{Facts: *facts}, Process: b.Process, PID: first.PID, Start: start}
	for _, s := range p.Steps {
		switch o := s.Op.(type) {
		case *plan.Clone:
			in.Namespaces = append(in.Namespaces, o.Namespaces...)
		case *plan.Unshare:
			in.Namespaces = append(in.Namespaces, o.Namespaces...)
		}
	}
	out, err := compile.Exec(in)
	if err != nil {
		t.Fatal(err)
	}
	return run(t, out.Plan)
}

// asUser makes scenario as an ordinary user, in a new process. Each of binds is a file bound over another, in its sight only.
// With inside, that process is root of a user namespace, as unshare -Ur makes it.
func asUser(t *testing.T, uid int, binds map[string]string, inside bool, what string, a, b *specs.Spec) string {
	t.Helper()
	dir := filepath.Dir(a.Root.Path)
	self, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	job, err := json.Marshal([]*specs.Spec{a, b})
	if err != nil {
		t.Fatal(err)
	}
	exe := filepath.Join(dir, "fork.test")
	if err := errors.Join(os.WriteFile(exe, self, 0o755), os.WriteFile(filepath.Join(dir, "job"), job, 0o644)); err != nil {
		t.Fatal(err)
	}
	steps := []plan.Step{
		{Lane: plan.Host, Op: &plan.Clone{Namespaces: []string{"mount"}}},
		{Lane: plan.Child, Op: &plan.Mount{Target: "/", Flags: []string{"rec", "private"}}},
	}
	add := func(op plan.Op) { steps = append(steps, plan.Step{Lane: plan.Child, Op: op}) }
	for over, file := range binds {
		add(&plan.Mount{Source: file, Target: over, Flags: []string{"bind"}})
	}
	for i, name := range []string{"stdin", "stdout", "stderr"} {
		add(&plan.Stdio{From: name, To: i})
	}
	add(&plan.CloseRange{First: 3})
	add(&plan.Setgroups{Groups: []uint32{uint32(uid), 4}})
	add(&plan.Setresgid{GID: uint32(uid)})
	add(&plan.Setresuid{UID: uint32(uid)})
	add(&plan.Chdir{Path: "/"})
	argv := []string{exe, "-test.run=^TestAsUser$", "-test.v"}
	if inside {
		argv = append([]string{"/usr/bin/unshare", "-Ur"}, argv...)
	}
	env := append(os.Environ(), "HOME=/", "GLASSBOX_JOB="+filepath.Join(dir, "job"), "GLASSBOX_SCENARIO="+what)
	add(&plan.Execve{Candidates: argv[:1], Argv: argv, Env: env})
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	fds, output := pipes(t)
	proc, err := Start(&plan.Plan{Version: plan.Version, Arch: runtime.GOARCH, Steps: steps}, Options{FDs: fds})
	if err != nil {
		t.Fatal(err)
	}
	code := wait(t, proc)
	said := output()
	_, got, ok := strings.Cut(said, "<<<")
	got, _, end := strings.Cut(got, ">>>")
	if code != 0 || !ok || !end {
		t.Fatalf("as user %d: exit code %d\n%s", uid, code, said)
	}
	return got
}

// TestAsUser is the process that asUser starts.
func TestAsUser(t *testing.T) {
	job := os.Getenv("GLASSBOX_JOB")
	if job == "" {
		return // it is run by other tests
	}
	data, err := os.ReadFile(job)
	if err != nil {
		t.Fatal(err)
	}
	var specs []*specs.Spec
	if err := json.Unmarshal(data, &specs); err != nil {
		t.Fatal(err)
	}
	fmt.Printf("<<<%s>>>\n", scenario(t, os.Getenv("GLASSBOX_SCENARIO"), specs[0], specs[1]))
}

// user is an ordinary user of these tests: nobody, who is in every /etc/passwd, as newuidmap wants it.
const user = 65534

const whoami = `id -u; id -g; tr -s ' ' </proc/self/uid_map; cat /proc/self/setgroups; grep Groups /proc/self/status
`

func TestRootless(t *testing.T) {
	needRoot(t)
	spec := rootBundle(t, user, sh(whoami+`
echo $$; echo x > /file; stat -c '%u:%g %t:%T' /file /dev/null; echo > /dev/null
grep -c ' /sys ro,' /proc/self/mountinfo; ls /sys/kernel | grep -c ^mm$; cat /proc/devices | wc -c; cat /data/file
cat /proc/sys/kernel/hostname`)...)
	spec.Hostname = "inside"
	source := filepath.Join(filepath.Dir(spec.Root.Path), "source")
	os.Mkdir(source, 0o700)
	os.WriteFile(filepath.Join(source, "file"), []byte("own\n"), 0o600)
	os.Chown(source, user, user)
	os.Chown(filepath.Join(source, "file"), user, user)
	spec.Mounts = append(spec.Mounts,
		specs.Mount{Destination: "/sys", Type: "none", Source: "/sys", Options: []string{"rbind", "nosuid", "noexec", "nodev", "ro"}},
		specs.Mount{Destination: "/data", Type: "bind", Source: source, Options: []string{"bind"}})
	spec.Linux.UIDMappings, spec.Linux.GIDMappings = ids(user, 1), ids(user, 1)
	same(t, "output", asUser(t, user, nil, false, "run", spec, nil), `0
0
 0 65534 1
deny
Groups:	65534 0 `+`
1
0:0 0:0
65534:65534 1:3
1
1
0
own
inside
`)
}

// subids are files to be bound over /etc/subuid and /etc/subgid.
func subids(t *testing.T) map[string]string {
	t.Helper()
	if _, err := os.Stat("/usr/bin/newuidmap"); err != nil {
		t.Skip("needs newuidmap (Debian: uidmap)")
	}
	file := filepath.Join(t.TempDir(), "subid")
	if err := os.WriteFile(file, []byte("65534:300000:1000\nnobody:300000:1000\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	return map[string]string{"/etc/subuid": file, "/etc/subgid": file}
}

func ranges(spec *specs.Spec) {
	spec.Linux.UIDMappings = append(ids(user, 1), specs.LinuxIDMapping{ContainerID: 1, HostID: 300000, Size: 1000})
	spec.Linux.GIDMappings = spec.Linux.UIDMappings
}

func TestRootlessRanges(t *testing.T) {
	needRoot(t)
	binds := subids(t)
	spec := rootBundle(t, user, sh(whoami)...)
	spec.Process.User = specs.User{UID: 33, GID: 33, AdditionalGids: []uint32{4}}
	ranges(spec)
	same(t, "output", asUser(t, user, binds, false, "run", spec, nil), "33\n33\n 0 65534 1\n 1 300000 1000\nallow\nGroups:\t4 \n")
}

func TestRootlessNotGranted(t *testing.T) {
	needRoot(t)
	err := runIDMap("newuidmap-that-is-missing", "/etc/subuid", 1, nil)
	if err == nil || !strings.Contains(err.Error(), "uidmap") || !strings.Contains(err.Error(), "/etc/subuid") {
		t.Errorf("got %v, want what to install and what to write", err)
	}
	subids(t)
	err = runIDMap("newuidmap", "/etc/subuid", os.Getpid(), []plan.IDRange{{Container: 0, Host: 1, Size: 1}})
	if err == nil || !strings.Contains(err.Error(), "/etc/subuid") {
		t.Errorf("got %v, want a word about /etc/subuid", err)
	}
}

// TestRootInside runs containers as root of a user namespace.
func TestRootInside(t *testing.T) {
	needRoot(t)
	spec := rootBundle(t, user, sh(whoami+"echo $$; echo > /dev/null; ls /sys/class/net | grep -c ^lo$")...)
	spec.Mounts = append(spec.Mounts, specs.Mount{Destination: "/sys", Type: "sysfs", Source: "sysfs"})
	spec.Linux.Namespaces = kinds("mount", "pid", "ipc", "network", "cgroup")
	want := "0\n0\n 0 65534 1\ndeny\nGroups:\t65534 0 \n1\n1\n"
	same(t, "own network", asUser(t, user, nil, true, "run", spec, nil), want)
	spec.Linux.Namespaces = kinds("mount", "pid", "ipc", "cgroup")
	same(t, "network of the host", asUser(t, user, nil, true, "run", spec, nil), want)
	spec.Linux.Namespaces = kinds("mount", "pid", "ipc", "cgroup", "user")
	spec.Linux.UIDMappings, spec.Linux.GIDMappings = ids(0, 1), ids(0, 1)
	same(t, "a user namespace inside", asUser(t, user, nil, true, "run", spec, nil), strings.Replace(want, "0 65534 1", "0 0 1", 1))
}

const links = `for n in user pid net ipc uts
do test "$(readlink /proc/1/ns/$n)" = "$(readlink /proc/self/ns/$n)" && echo $n; done; test $$ != 1 && echo second
`

// pair is a container that waits, and one that shares its namespaces.
func pair(t *testing.T, owner int) (a, b *specs.Spec) {
	t.Helper()
	a = rootBundle(t, owner, "sleep", "1000")
	a.Mounts = append(a.Mounts, specs.Mount{Destination: "/sys", Type: "sysfs", Source: "sysfs"})
	a.Linux.Namespaces = append(a.Linux.Namespaces, kinds("network")...)
	a.Linux.UIDMappings, a.Linux.GIDMappings = ids(uint32(owner), 1000), ids(uint32(owner), 1000)
	copied, process, l := *a, *a.Process, *a.Linux
	b = &copied
	b.Process, b.Linux = &process, &l
	b.Process.Args = sh(whoami + links + "ls /sys/class/net; stat -c %t:%T /dev/null; cat /proc/self/oom_score_adj")
	l.UIDMappings, l.GIDMappings, l.Namespaces = nil, nil, kinds("mount")
	for _, n := range []specs.LinuxNamespaceType{"user", "pid", "network", "ipc", "uts"} {
		l.Namespaces = append(l.Namespaces, specs.LinuxNamespace{Type: n, Path: "later"})
	}
	return a, b
}

func TestJoinUserNamespace(t *testing.T) {
	needRoot(t)
	a, b := pair(t, 100000)
	score := 5
	b.Process.OOMScoreAdj = &score
	same(t, "output", scenario(t, "join", a, b), "0\n0\n 0 100000 1000\nallow\nGroups:\t \nuser\npid\nnet\nipc\nuts\nsecond\nlo\n1:3\n5\n")

	// A PID namespace of its own belongs to the joined user namespace.
	a, b = pair(t, 100000)
	b.Linux.Namespaces[2].Path = ""
	b.Process.Args = sh("echo $$; ls /sys/class/net")
	same(t, "own PID namespace", scenario(t, "join", a, b), "1\nlo\n")
}

func TestJoinUserNamespaceRootless(t *testing.T) {
	needRoot(t)
	a, b := pair(t, user)
	a.Linux.UIDMappings, a.Linux.GIDMappings = ids(user, 1), ids(user, 1)
	same(t, "output", asUser(t, user, nil, false, "join", a, b),
		"0\n0\n 0 65534 1\ndeny\nGroups:\t65534 0 \nuser\npid\nnet\nipc\nuts\nsecond\nlo\n1:3\n0\n")
}

// TestUserNamespaceJoinsOthers makes a new user namespace, and joins others that belong to the host's.
func TestUserNamespaceJoinsOthers(t *testing.T) {
	needRoot(t)
	a, b := pair(t, 100000)
	a.Linux.Namespaces = kinds("mount", "pid", "uts", "ipc", "network", "cgroup")
	a.Linux.UIDMappings, a.Linux.GIDMappings = nil, nil
	b.Process.Args = sh("echo $$; id -u; ls /sys/class/net | grep -c .")
	b.Linux.Namespaces = []specs.LinuxNamespace{
		{Type: "user"},
		{Type: "mount"},
		{Type: "pid"},
		{Type: "network", Path: "later"},
		{Type: "uts", Path: "later"},
		{Type: "ipc"},
	}
	b.Linux.UIDMappings, b.Linux.GIDMappings = ids(100000, 1000), ids(100000, 1000)
	if got := scenario(t, "join", a, b); !strings.HasPrefix(got, "1\n0\n") {
		t.Errorf("got %q", got)
	}
}

func TestJoinMountNamespace(t *testing.T) {
	needRoot(t)
	a, b := pair(t, 100000)
	a.Linux.Namespaces = kinds("mount", "pid", "uts", "ipc", "network", "cgroup")
	a.Linux.UIDMappings, a.Linux.GIDMappings = nil, nil
	// The first container's root is what a path means there.
	second := rootfs(t)
	if err := os.Rename(second, filepath.Join(a.Root.Path, "second")); err != nil {
		t.Fatal(err)
	}
	os.WriteFile(filepath.Join(a.Root.Path, "second/etc/is"), []byte("second\n"), 0o644)
	b.Root = &specs.Root{Path: "/second"}
	b.Process.Args = sh("cat /etc/is")
	b.Linux.Namespaces = []specs.LinuxNamespace{{Type: "mount", Path: "later"}, {Type: "pid"}, {Type: "ipc"}}
	same(t, "output", scenario(t, "join", a, b), "second\n")
}

// TestJoinWrong joins what isn't the namespace that the configuration names.
func TestJoinWrong(t *testing.T) {
	needRoot(t)
	for path, want := range map[string]string{
		"/proc/self/ns/net": "/proc/self/ns/net is a net namespace, not a pid namespace",
		"/dev/null":         "/dev/null is no namespace",
		"/nowhere":          "no such file",
	} {
		spec := rootBundle(t, 0, "true")
		spec.Linux.Namespaces = []specs.LinuxNamespace{{Type: "mount"}, {Type: "pid", Path: path}, {Type: "ipc"}}
		spec.Process.Capabilities = nil
		fds, _ := pipes(t)
		_, err := Start(compiled(t, spec), Options{FDs: fds})
		if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "/linux/namespaces/1/path") {
			t.Errorf("%s: got %v, want %q and the field", path, err, want)
		}
	}
}

func TestExecInUserNamespace(t *testing.T) {
	needRoot(t)
	process := &specs.Spec{Process: &specs.Process{
		Args: sh(whoami + links + "grep CapEff /proc/self/status"), Env: []string{"PATH=/bin"}, Cwd: "/",
		User: specs.User{UID: 5, GID: 6, AdditionalGids: []uint32{7}},
		Capabilities: &specs.LinuxCapabilities{
			Permitted: []string{"CAP_CHOWN"}, Effective: []string{"CAP_CHOWN"},
			Bounding: []string{"CAP_CHOWN"},
		},
	}}
	// Each in a goroutine of its own: a thread that joined a PID namespace can't be used again.
	t.Run("root", func(t *testing.T) {
		a, _ := pair(t, 100000)
		// The shell is no root, and so its capabilities don't survive execve.
		same(t, "output", scenario(t, "exec", a, process), "5\n6\n 0 100000 1000\nallow\nGroups:\t7 \nsecond\nCapEff:\t0000000000000000\n")
	})
	process.Process.User = specs.User{}
	const joined = "user\npid\nnet\nipc\nuts\nsecond\nCapEff:\t0000000000000001\n"
	t.Run("ordinary user", func(t *testing.T) {
		a, _ := pair(t, user)
		a.Linux.UIDMappings, a.Linux.GIDMappings = ids(user, 1), ids(user, 1)
		a.Process.Capabilities = process.Process.Capabilities
		same(t, "output", asUser(t, user, nil, false, "exec", a, process), "0\n0\n 0 65534 1\ndeny\nGroups:\t65534 0 \n"+joined)
	})
	t.Run("ordinary user with ranges", func(t *testing.T) {
		binds := subids(t)
		a, _ := pair(t, user)
		ranges(a)
		a.Process.Capabilities = process.Process.Capabilities
		same(t, "output", asUser(t, user, binds, false, "exec", a, process), "0\n0\n 0 65534 1\n 1 300000 1000\nallow\nGroups:\t \n"+joined)
	})
}

// TestClock is the program of containers that tell how far their clocks are from those of the host, which are in the environment.
func TestClock(t *testing.T) {
	if os.Getenv("GLASSBOX_CLOCKS") == "" {
		return // it is run by TestTimeOffsets
	}
	var m, b int64
	fmt.Sscan(os.Getenv("GLASSBOX_CLOCKS"), &m, &b)
	now := clocks()
	fmt.Printf("<<<%d %d>>>", (now[0]-m+5000)/10000*10000, (now[1]-b+5000)/10000*10000)
}

func clocks() (secs [2]int64) {
	for i, clock := range []int32{unix.CLOCK_MONOTONIC, unix.CLOCK_BOOTTIME} {
		var ts unix.Timespec
		unix.ClockGettime(clock, &ts)
		secs[i] = ts.Sec
	}
	return secs
}

func TestTimeOffsets(t *testing.T) {
	needRoot(t)
	self, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	spec := func(owner int) *specs.Spec {
		spec := rootBundle(t, owner, "/clock", "-test.run=^TestClock$")
		if err := os.WriteFile(filepath.Join(spec.Root.Path, "clock"), self, 0o755); err != nil {
			t.Fatal(err)
		}
		now := clocks()
		spec.Process.Env = append(spec.Process.Env, fmt.Sprintf("GLASSBOX_CLOCKS=%d %d", now[0], now[1]))
		spec.Linux.Namespaces = append(spec.Linux.Namespaces, kinds("time")...)
		spec.Linux.TimeOffsets = map[string]specs.LinuxTimeOffset{"monotonic": {Secs: 1000000, Nanosecs: 7}, "boottime": {Secs: 2000000}}
		return spec
	}
	check := func(what, said string) {
		t.Helper()
		_, got, _ := strings.Cut(said, "<<<")
		got, _, _ = strings.Cut(got, ">>>")
		same(t, what, got, "1000000 2000000")
	}
	root := spec(0)
	root.Linux.Namespaces = kinds("mount", "pid", "time", "ipc")
	check("root", run(t, compiled(t, root)))
	mapped := spec(100000)
	mapped.Linux.UIDMappings, mapped.Linux.GIDMappings = ids(100000, 1000), ids(100000, 1000)
	check("root with a user namespace", run(t, compiled(t, mapped)))
	rootless := spec(user)
	rootless.Linux.UIDMappings, rootless.Linux.GIDMappings = ids(user, 1), ids(user, 1)
	said := asUser(t, user, nil, false, "run", rootless, nil) + ">>>" // its own mark ends the output
	check("ordinary user", said)
}

func TestMountIDs(t *testing.T) {
	needRoot(t)
	source := filepath.Join(t.TempDir(), "source")
	os.Mkdir(source, 0o755)
	os.WriteFile(filepath.Join(source, "file"), nil, 0o644)
	os.Chown(filepath.Join(source, "file"), 3, 4)
	spec := rootBundle(t, 0, sh("cd /data; stat -c %u:%g file; echo > new; stat -c %u:%g new")...)
	spec.Linux.Namespaces = kinds("mount", "pid", "ipc")
	spec.Mounts = append(spec.Mounts, specs.Mount{
		Destination: "/data", Type: "bind", Source: source, Options: []string{"bind"},
		UIDMappings: ids(0, 10), GIDMappings: ids(500, 10),
	})
	spec.Process.User.GID = 501
	os.Chmod(source, 0o777)
	same(t, "own mapping", run(t, compiled(t, spec)), "3:504\n0:501\n")
	st, err := os.Stat(filepath.Join(source, "new"))
	if err != nil || st.Sys().(*syscall.Stat_t).Gid != 1 {
		t.Errorf("the new file: %+v, %v, want it to have group 1", st, err)
	}

	// In a user namespace, with its mappings, the owners are what they are on disk.
	spec = rootBundle(t, 100000, sh("stat -c %u:%g /data/file")...)
	spec.Linux.UIDMappings, spec.Linux.GIDMappings = ids(100000, 1000), ids(100000, 1000)
	spec.Mounts = append(spec.Mounts, specs.Mount{Destination: "/data", Type: "bind", Source: source, Options: []string{"bind", "idmap"}})
	same(t, "mapping of the container", run(t, compiled(t, spec)), "3:4\n")

	spec.Mounts[len(spec.Mounts)-1].Source = "/proc/sys/kernel"
	fds, _ := pipes(t)
	_, err = Start(compiled(t, spec), Options{FDs: fds})
	if err == nil || !strings.Contains(err.Error(), "/mounts/4") || !strings.Contains(err.Error(), "file system of /proc/sys/kernel") {
		t.Errorf("got %v, want the file system of /proc/sys/kernel to be refused", err)
	}
}
