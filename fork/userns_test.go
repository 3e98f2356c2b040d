package fork

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"glassbox/compile"
	"glassbox/host"
	"glassbox/plan"
)

// ids maps size ids from 0 to those of the host from first.
func ids(first, size uint32) []specs.LinuxIDMapping {
	return []specs.LinuxIDMapping{{ContainerID: 0, HostID: first, Size: size}}
}

// kinds lists namespaces to be made.
func kinds(names ...specs.LinuxNamespaceType) (out []specs.LinuxNamespace) {
	for _, n := range names {
		out = append(out, specs.LinuxNamespace{Type: n})
	}
	return out
}

// rootBundle is a configuration as `spec` writes it, on a root file system that belongs to user and group owner. Everybody can
// come to it.
func rootBundle(t *testing.T, owner int, argv ...string) *specs.Spec {
	t.Helper()
	root := rootfs(t)
	for _, name := range []string{"id", "stat", "ls", "tail", "mount", "tr", "wc", "grep", "readlink"} {
		if err := os.Symlink("busybox", filepath.Join(root, "bin", name)); err != nil {
			t.Fatal(err)
		}
	}
	for dir := root; dir != "/" && dir != os.TempDir(); dir = filepath.Dir(dir) {
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	filepath.Walk(root, func(path string, _ os.FileInfo, err error) error {
		if err == nil {
			err = os.Lchown(path, owner, owner)
		}
		if err != nil {
			t.Fatal(err)
		}
		return nil
	})
	caps := []string{"CAP_CHOWN", "CAP_SYS_ADMIN", "CAP_NET_ADMIN"}
	return &specs.Spec{
		Version: "1.2.0",
		Root:    &specs.Root{Path: root},
		Process: &specs.Process{
			Args: argv, Env: []string{"PATH=/bin"}, Cwd: "/",
			Capabilities: &specs.LinuxCapabilities{Bounding: caps, Permitted: caps, Effective: caps},
		},
		Mounts: []specs.Mount{
			{Destination: "/proc", Type: "proc", Source: "proc", Options: []string{"nosuid", "nodev", "noexec"}},
			{Destination: "/dev", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "mode=755", "size=64k"}},
			{Destination: "/dev/pts", Type: "devpts", Source: "devpts", Options: []string{"newinstance", "ptmxmode=0666", "mode=0620"}},
			{Destination: "/dev/mqueue", Type: "mqueue", Source: "mqueue"},
		},
		Linux: &specs.Linux{
			Namespaces:    kinds("user", "mount", "pid", "uts", "ipc", "cgroup"),
			MaskedPaths:   []string{"/proc/devices", "/proc/acpi", "/proc/nothing"},
			ReadonlyPaths: []string{"/proc/sys"},
		},
	}
}

// compiled compiles a configuration for this machine and this user.
func compiled(t *testing.T, spec *specs.Spec) *plan.Plan {
	t.Helper()
	facts, err := host.Probe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := compile.Container(compile.Input{Spec: spec, Facts: *facts})
	if err != nil {
		t.Fatal(err)
	}
	return out.Plan
}

// run starts a plan and returns its output once it has ended with code 0.
func run(t *testing.T, p *plan.Plan) string {
	t.Helper()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	fds, output := pipes(t)
	proc, err := Start(p, Options{FDs: fds})
	if err != nil {
		t.Fatal(err)
	}
	code := wait(t, proc)
	undo(t, p)
	got := output()
	if code != 0 {
		t.Fatalf("exit code %d, output:\n%s", code, got)
	}
	return got
}

func same(t *testing.T, what, got, want string) {
	t.Helper()
	if got != want {
		t.Errorf("%s: got:\n%s\nwant:\n%s", what, got, want)
	}
}

// sh is what containers of these tests run: a shell that fails on the first error.
func sh(script string) []string { return []string{"sh", "-ec", script} }

func TestUserNamespace(t *testing.T) {
	needRoot(t)
	spec := rootBundle(t, 100000, sh(`
cat /proc/self/uid_map | tr -s ' '; id; echo $$; cat /proc/sys/kernel/hostname
echo x > /file; stat -c '%u:%g' /file
stat -c '%t:%T %u' /dev/null /dev/tty; echo gone > /dev/null
echo y > /tmp/y 2>/dev/null; mount -t tmpfs t /tmp; ls /tmp
busybox ifconfig lo 127.0.0.1; ls /sys/class/net
cat /proc/sys/net/ipv4/ip_unprivileged_port_start; cat /proc/self/oom_score_adj; cat /proc/devices | wc -c
grep Cap /proc/self/status`)...)
	spec.Hostname = "inside"
	score := -7
	spec.Process.OOMScoreAdj = &score
	if facts, err := host.Probe(); err != nil || facts.Caps&(1<<unix.CAP_SYS_RESOURCE) == 0 {
		score = 7 // lowering it takes CAP_SYS_RESOURCE
	}
	spec.Mounts = append(spec.Mounts,
		specs.Mount{Destination: "/sys", Type: "sysfs", Source: "sysfs", Options: []string{"ro", "nosuid"}},
		specs.Mount{Destination: "/sys/fs/cgroup", Type: "cgroup", Source: "cgroup", Options: []string{"ro", "nosuid"}})
	spec.Linux.Namespaces = append(spec.Linux.Namespaces, kinds("network")...)
	spec.Linux.Sysctl = map[string]string{"net.ipv4.ip_unprivileged_port_start": "81"}
	spec.Linux.UIDMappings, spec.Linux.GIDMappings = ids(100000, 1000), ids(100000, 1000)
	got := run(t, compiled(t, spec))
	// The device is the host's own, so its owner is who owns it there, if the container knows that user.
	owner := "65534"
	if st, err := os.Stat("/dev/null"); err != nil {
		t.Fatal(err)
	} else if uid := st.Sys().(*syscall.Stat_t).Uid; uid >= 100000 && uid < 101000 {
		owner = strconv.Itoa(int(uid) - 100000)
	}
	want := ` 0 100000 1000
uid=0 gid=0
1
inside
0:0
1:3 ` + owner + `
5:0 65534
lo
81
` + strconv.Itoa(score) + `
0
CapInh:	0000000000000000
CapPrm:	0000000000201001
CapEff:	0000000000201001
CapBnd:	0000000000201001
CapAmb:	0000000000000000
`
	same(t, "output", got, want)
	st, err := os.Stat(filepath.Join(spec.Root.Path, "file"))
	if err != nil || st.Sys().(*syscall.Stat_t).Uid != 100000 {
		t.Errorf("the container's file: %v, want it to belong to user 100000", st)
	}
}

// TestUserNamespaceKeepsFlags binds a read-only mount of the host into a container whose root may mount: it can't lift the
// restriction, as it could if the parent had taken the source.
func TestUserNamespaceKeepsFlags(t *testing.T) {
	needRoot(t)
	source := filepath.Join(t.TempDir(), "source")
	if err := os.Mkdir(source, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("tmpfs", source, "tmpfs", 0, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Unmount(source, unix.MNT_DETACH) })
	if err := unix.Mount("", source, "", unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RDONLY|unix.MS_NOSUID|unix.MS_NODEV, ""); err != nil {
		t.Fatal(err)
	}
	// Not every file system can have mounts with ids of their own: that of the temporary directory can.
	ordinary := t.TempDir()
	if err := unix.Mount(ordinary, ordinary, "", unix.MS_BIND, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Unmount(ordinary, unix.MNT_DETACH) })
	if err := unix.Mount("", ordinary, "", unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RDONLY|unix.MS_NOSUID|unix.MS_NODEV, ""); err != nil {
		t.Fatal(err)
	}
	spec := rootBundle(t, 100000, sh(`for d in /data /ids; do
busybox mount -o remount,bind,rw,suid,dev $d 2>&1 || true; busybox grep -o " $d [a-z,]*" /proc/self/mountinfo
done`)...)
	// In a directory that is closed to all but another user, as homes are.
	if err := errors.Join(os.Chown(filepath.Dir(source), 54321, 54321), os.Chmod(filepath.Dir(source), 0o700)); err != nil {
		t.Fatal(err)
	}
	spec.Mounts = append(spec.Mounts,
		specs.Mount{Destination: "/data", Type: "bind", Source: source, Options: []string{"rbind"}},
		specs.Mount{Destination: "/ids", Type: "bind", Source: ordinary, Options: []string{"bind", "idmap"}})
	spec.Linux.UIDMappings, spec.Linux.GIDMappings = ids(100000, 1000), ids(100000, 1000)
	got := strings.ReplaceAll(run(t, compiled(t, spec)), "noatime", "relatime") // as the temporary directory's own mount has it
	same(t, "output", got, "mount: permission denied (are you root?)\n /data ro,nosuid,nodev,relatime\nmount: permission denied (are you "+
		"root?)\n /ids ro,nosuid,nodev,relatime,idmapped\n")

	// Flags that options don't name are cleared where the namespace of the host hasn't locked them, and else stay.
	spec = rootBundle(t, 100000, sh(`busybox grep -o " /data [a-z,]*" /proc/self/mountinfo`)...)
	spec.Mounts = append(spec.Mounts, specs.Mount{Destination: "/data", Type: "bind", Source: ordinary, Options: []string{"rbind", "noexec"}})
	spec.Linux.UIDMappings, spec.Linux.GIDMappings = ids(100000, 1000), ids(100000, 1000)
	facts, err := host.Probe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := compile.Container(compile.Input{Spec: spec, Facts: *facts, DieWithParent: true, NamedFlags: true})
	if err != nil {
		t.Fatal(err)
	}
	got = strings.ReplaceAll(run(t, out.Plan), "noatime", "relatime")
	same(t, "output", got, " /data ro,nosuid,nodev,noexec,relatime\n")
}

// userPlan compiles plans with a user namespace and every kind of step that belongs to one: "mapped", with one clone; "twice",
// with two, because other namespaces are joined and the clocks are set.
func userPlan(t *testing.T, kind string, argv ...string) *plan.Plan {
	t.Helper()
	needRoot(t)
	facts, err := host.Probe()
	if err != nil {
		t.Fatal(err)
	}
	spec := rootBundle(t, 100000, argv...)
	source := filepath.Join(filepath.Dir(spec.Root.Path), "source")
	if err := os.WriteFile(source, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	score := 100
	spec.Process.OOMScoreAdj = &score
	spec.Process.User = specs.User{UID: 1, GID: 2, AdditionalGids: []uint32{3}}
	spec.Mounts = append(spec.Mounts,
		specs.Mount{Destination: "/sys", Type: "sysfs", Source: "sysfs", Options: []string{"ro"}},
		specs.Mount{Destination: "/sys/fs/cgroup", Type: "cgroup", Source: "cgroup", Options: []string{"ro"}},
		specs.Mount{Destination: "/new/file", Type: "bind", Source: source, Options: []string{"bind", "ro"}},
		specs.Mount{Destination: "/ids", Type: "bind", Source: filepath.Dir(source), Options: []string{"bind", "idmap"}})
	l := spec.Linux
	l.UIDMappings, l.GIDMappings = ids(100000, 1000), ids(100000, 1000)
	l.CgroupsPath = testCgroup + "/" + kind
	if kind == "twice" {
		l.Namespaces = append(l.Namespaces, specs.LinuxNamespace{Type: "network", Path: "/proc/self/ns/net"}, specs.LinuxNamespace{Type: "time"})
		l.TimeOffsets = map[string]specs.LinuxTimeOffset{"boottime": {Secs: 100}}
	} else {
		l.Namespaces = append(l.Namespaces, kinds("network", "time")...)
		l.Sysctl = map[string]string{"net.ipv4.ip_unprivileged_port_start": "0"}
	}
	out, err := compile.Container(compile.Input{Spec: spec, Facts: *facts, DieWithParent: true})
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

func TestEveryStepOfAUserNamespaceCanFail(t *testing.T) {
	for _, kind := range []string{"mapped", "twice"} {
		t.Run(kind, func(t *testing.T) {
			everyStepCanFail(t, userPlan(t, kind, "true"))
		})
	}
}

// TestUserNamespaceLimits raises a limit, which takes CAP_SYS_RESOURCE on the host: the parent does it, if it can.
func TestUserNamespaceLimits(t *testing.T) {
	needRoot(t)
	facts, err := host.Probe()
	if err != nil {
		t.Fatal(err)
	}
	var now unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_RTPRIO, &now); err != nil {
		t.Fatal(err)
	}
	if now.Max == unix.RLIM_INFINITY {
		t.Skip("RLIMIT_RTPRIO is unlimited: it can't be raised")
	}
	spec := rootBundle(t, 100000, sh("grep realtime.priority /proc/self/limits | tr -s ' '")...)
	spec.Linux.UIDMappings, spec.Linux.GIDMappings = ids(100000, 1000), ids(100000, 1000)
	spec.Process.Rlimits = []specs.POSIXRlimit{
		{Type: "RLIMIT_RTPRIO", Soft: now.Max + 1, Hard: now.Max + 2},
		{Type: "RLIMIT_NOFILE", Soft: 5, Hard: 6},
	}
	p := compiled(t, spec)
	if facts.Caps&(1<<unix.CAP_SYS_RESOURCE) != 0 {
		same(t, "output", run(t, p), fmt.Sprintf("Max realtime priority %d %d \n", now.Max+1, now.Max+2))
		return
	}
	fds, _ := pipes(t)
	_, err = Start(p, Options{FDs: fds})
	if !errors.Is(err, unix.EPERM) || !strings.Contains(err.Error(), "/process/rlimits/0") {
		t.Errorf("got %v, want the limit to be refused", err)
	}
}

// TestUserNamespaceWithHostProcesses writes a sysctl where the child can't mount a procfs.
func TestUserNamespaceWithHostProcesses(t *testing.T) {
	needRoot(t)
	spec := rootBundle(t, 100000, sh("cat /proc/sys/net/ipv4/ip_unprivileged_port_start; test $$ != 1")...)
	spec.Linux.UIDMappings, spec.Linux.GIDMappings = ids(100000, 1000), ids(100000, 1000)
	spec.Linux.Namespaces = kinds("user", "mount", "ipc", "network")
	spec.Mounts[0] = specs.Mount{Destination: "/proc", Type: "bind", Source: "/proc", Options: []string{"rbind"}}
	spec.Linux.ReadonlyPaths, spec.Linux.MaskedPaths = nil, nil
	spec.Linux.Sysctl = map[string]string{"net.ipv4.ip_unprivileged_port_start": "82"}
	same(t, "output", run(t, compiled(t, spec)), "82\n")
}

// TestUserNamespaceHooks has the root changed late, by the container's root, and a terminal.
func TestUserNamespaceHooks(t *testing.T) {
	needRoot(t)
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	spec := rootBundle(t, 100000, sh("stat -c %u:%g /dev/console; test -t 0; echo $$")...)
	spec.Linux.UIDMappings, spec.Linux.GIDMappings = ids(100000, 1000), ids(100000, 1000)
	// The hook sees the container's mounts below the root to be.
	spec.Hooks = &specs.Hooks{CreateContainer: []specs.Hook{{Path: "/bin/sh"}}}
	var hooked *plan.Hook
	spec.Process.Terminal = true
	fds, _ := pipes(t)
	proc, err := Start(compiled(t, spec), Options{FDs: fds, Hook: func(p *Process, h *plan.Hook) error {
		mounts, err := os.ReadFile("/proc/" + strconv.Itoa(p.PID) + "/mountinfo")
		if err == nil && !strings.Contains(string(mounts), h.Dir+"/dev/pts") {
			err = fmt.Errorf("no %s/dev/pts in\n%s", h.Dir, mounts)
		}
		hooked = h
		return err
	}})
	if err != nil {
		t.Fatal(err)
	}
	code := wait(t, proc)
	console := os.NewFile(uintptr(proc.FDs["console"]), "console")
	defer console.Close()
	output, _ := io.ReadAll(console) // until EIO: nobody has the other end
	same(t, "output", strconv.Itoa(code)+" "+strings.ReplaceAll(string(output), "\r", ""), "0 0:0\n1\n")
	if hooked == nil || hooked.Dir != spec.Root.Path {
		t.Errorf("got the hook %+v, want one that works in %s", hooked, spec.Root.Path)
	}
}

// TestOwnCgroupsWithoutNamespace has a user namespace and no cgroup namespace, as a pod with hostUsers: false: of the hierarchies of v1 the
// container sees its own cgroups, and not those of the whole host.
func TestOwnCgroupsWithoutNamespace(t *testing.T) {
	needRoot(t)
	facts, err := host.Probe()
	if err != nil {
		t.Fatal(err)
	}
	if facts.Cgroup.Mode == host.CgroupV2 {
		t.Skip("needs hierarchies of cgroup v1")
	}
	for _, namespace := range []bool{false, true} {
		s := rootBundle(t, 100000, sh(`cd /sys/fs/cgroup && busybox ls; cat pids/pids.max; busybox find . -type d -mindepth 2 | busybox wc -l
busybox mount -o remount,bind,rw pids && echo 7 >pids/pids.max; cat pids/pids.max`)...)
		s.Mounts = append(s.Mounts,
			specs.Mount{Destination: "/sys", Type: "sysfs", Source: "sysfs", Options: []string{"ro"}},
			specs.Mount{Destination: "/sys/fs/cgroup", Type: "cgroup", Source: "cgroup", Options: []string{"ro", "nosuid"}})
		l := s.Linux
		l.UIDMappings, l.GIDMappings = ids(100000, 1000), ids(100000, 1000)
		l.CgroupsPath = testCgroup + "/own"
		limit := int64(41)
		l.Resources = &specs.LinuxResources{Pids: &specs.LinuxPids{Limit: &limit}}
		l.Namespaces = slices.DeleteFunc(l.Namespaces, func(n specs.LinuxNamespace) bool { return n.Type == specs.CgroupNamespace })
		l.Namespaces = append(l.Namespaces, kinds("network")...)
		if namespace {
			l.Namespaces = append(l.Namespaces, kinds("cgroup")...)
		}
		_, out, err := runSpec(t, s)
		if err != nil {
			t.Fatal(err)
		}
		lines := strings.Split(strings.TrimSpace(out), "\n")
		if !slices.Contains(lines, "pids") || !slices.Contains(lines, "41") || !slices.Contains(lines, "0") ||
			!strings.HasSuffix(out, "Permission denied\n") || slices.Contains(lines, "unified") {
			t.Errorf("with a cgroup namespace %v: it sees\n%s", namespace, out)
		}
	}
}
