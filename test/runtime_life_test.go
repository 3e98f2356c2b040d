package test

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"glassbox/plan"
)

// status asks for a container's status.
func (b *bundles) status(id string) string {
	b.t.Helper()
	var s struct{ Status string }
	if err := json.Unmarshal([]byte(b.must("state", id)), &s); err != nil {
		b.t.Fatal(err)
	}
	return s.Status
}

// await waits for a status.
func (b *bundles) await(id, want string) {
	b.t.Helper()
	for end := time.Now().Add(scaled(15 * time.Second)); b.status(id) != want; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			b.t.Fatalf("%s: got status %s, want %s", id, b.status(id), want)
		}
	}
}

// TestRuntimeLife goes through the life of a container with runc's commands, as containerd and Podman call them.
func TestRuntimeLife(t *testing.T) {
	b := startBundles(t, "life")
	root := b.rootfs("root")
	dir := b.bundle("life", root, func(s *specs.Spec) {
		s.Process.Args = []string{"sh", "-c", "echo out; echo err >&2; sleep 1000"}
		s.Annotations = map[string]string{"org.example": "yes"}
	})
	before, err := b.state.settled()
	if err != nil {
		t.Fatal(err)
	}
	b.state.before = &before
	pidFile := filepath.Join(b.work, "pid")
	b.must("create", "--bundle", dir, "--pid-file", pidFile, "life")
	pid, err := os.ReadFile(pidFile)
	if err != nil {
		t.Fatal(err)
	}
	var state struct {
		OCIVersion, ID, Status, Bundle, Rootfs, Owner string
		PID                                           int
		Created                                       time.Time
		Annotations                                   map[string]string
	}
	text := b.must("state", "life")
	if err := json.Unmarshal([]byte(text), &state); err != nil {
		t.Fatal(err)
	}
	if state.Status != "created" || strconv.Itoa(state.PID) != string(pid) || state.Bundle != dir || state.Rootfs != root ||
		state.Owner != "root" || state.Annotations["org.example"] != "yes" || time.Since(state.Created) > time.Hour {
		t.Errorf("got state %s with pid file %q", text, pid)
	}
	// The order of the fields is runc's.
	if order := regexp.MustCompile(`"(\w+)":`).FindAllString(text, 7); strings.Join(order,
		"") != `"ociVersion":"id":"pid":"status":"bundle":"rootfs":"created":` {
		t.Errorf("got the order %v", order)
	}
	// A created container doesn't run, and holds nothing of the host's.
	if got := b.must("/bin/sh", "-c",
		"ls /proc/"+string(pid)+"/fd | sort -n | tr '\\n' ' '"); !regexp.MustCompile(`^0 1 2 \d+ \d+ $`).MatchString(got) {
		t.Errorf("descriptors of a created container: %s", got)
	}
	if got := b.must("exec", "life", "ps"); !strings.Contains(got, "glassbox-runtim") && !strings.Contains(got, "1 0") {
		t.Errorf("exec in a created container: %s", got)
	}
	b.must("start", "life")
	b.await("life", "running")
	if got := b.must("list", "-q"); got != "life\n" {
		t.Errorf("list -q: %q", got)
	}
	var list []map[string]any
	if err := json.Unmarshal([]byte(b.must("list", "--format", "json")), &list); err != nil || len(list) != 1 ||
		list[0]["status"] != "running" || list[0]["owner"] != "root" {
		t.Errorf("list: %v %v", list, err)
	}
	if got := b.must("list"); !regexp.MustCompile(`^ID +PID +STATUS +BUNDLE +CREATED +OWNER\nlife +` + string(pid) +
		` +running +`).MatchString(got) {
		t.Errorf("list: %s", got)
	}
	var pids []int
	if err := json.Unmarshal([]byte(b.must("ps", "--format", "json", "life")), &pids); err != nil || len(pids) != 1 ||
		strconv.Itoa(pids[0]) != string(pid) {
		t.Errorf("ps: %v %v", pids, err)
	}

	if res := b.runtime("exec", "--user", "1000:1001", "--additional-gids", "1002", "--env", "A=b c", "--cwd", "/tmp", "life", "sh", "-c",
		"id; echo $A; pwd; grep Cap /proc/self/status; exit 9"); res.Code != 9 ||
		!strings.Contains(res.Stdout, "uid=1000 gid=1001 groups=1002") || !strings.Contains(res.Stdout, "\nb c\n/tmp\n") ||
		!strings.Contains(res.Stdout, "CapInh:\t0000000000000000") {
		t.Errorf("exec: %+v", res)
	}
	process := filepath.Join(b.work, "process.json")
	b.write(process, `{"args":["sh","-c","cat /proc/self/oom_score_adj; umask; sleep `+
		`50"],"cwd":"/","env":["PATH=/bin"],"user":{"uid":0,"gid":0,"umask":63},"oomScoreAdj":500}`, 0o644)
	out := b.must("/bin/sh", "-c",
		filepath.Join(run.bin, "glassbox-runtime")+" --root /run/oci exec --detach --pid-file "+pidFile+".exec --process "+
			process+" life >"+b.work+"/out; sleep 0.3; cat "+b.work+"/out")
	if out != "500\n0077\n" {
		t.Errorf("exec --process: %q", out)
	}
	execPid, _ := os.ReadFile(pidFile + ".exec")
	if err := json.Unmarshal([]byte(b.must("ps", "-f", "json", "life")), &pids); err != nil ||
		!strings.Contains(fmt.Sprint(pids), string(execPid)) {
		t.Errorf("ps: %v has no %s", pids, execPid)
	}

	b.changes(t)

	// A signal that the program doesn't handle does nothing to a process 1; SIGKILL ends all.
	b.must("kill", "life", "SIGUSR1")
	b.must("kill", "life", "0")
	if s := b.status("life"); s != "running" {
		t.Errorf("got status %s, want running", s)
	}
	b.must("kill", "life", "KILL")
	b.await("life", "stopped")
	b.must("kill", "--all", "life", "KILL") // no error, callers make sure by it
	b.must("delete", "life")
	b.must("delete", "--force", "life")
	if left, err := b.state.leaked(); err != nil || left != "" {
		t.Errorf("%v\n%s", err, left)
	}
}

// changes pauses the container, and changes its limits by flags and by a file.
func (b *bundles) changes(t *testing.T) {
	b.must("pause", "life")
	if s := b.status("life"); s != "paused" {
		t.Errorf("got status %s, want paused", s)
	}
	b.must("resume", "life")
	b.must("update", "--memory", "64M", "--pids-limit", "50", "life")
	var event struct {
		Type, ID string
		Data     struct {
			Memory struct{ Usage struct{ Limit, Usage uint64 } }
			Pids   struct{ Current, Limit uint64 }
			CPU    struct{ Usage struct{ Total uint64 } }
		}
	}
	text := b.must("events", "--stats", "life")
	if err := json.Unmarshal([]byte(text), &event); err != nil || event.Type != "stats" || event.ID != "life" ||
		event.Data.Memory.Usage.Limit != 64<<20 || event.Data.Pids.Limit != 50 || event.Data.Pids.Current < 1 || event.Data.CPU.Usage.Total == 0 {
		t.Errorf("events: %v %s", err, text)
	}
	resources := filepath.Join(b.work, "resources.json")
	// As containerd does, with all of config.json's resources; the devices that every container has aren't in it.
	b.write(resources, `{"memory":{"limit":33554432},"pids":{"limit":40},"devices":[{"allow":false,"access":"rwm"}]}`, 0o644)
	b.must("update", "--resources", resources, "life")
	b.must("exec", "life", "sh", "-c", "echo x >/dev/null")
	json.Unmarshal([]byte(b.must("events", "--stats", "life")), &event)
	if event.Data.Memory.Usage.Limit != 32<<20 || event.Data.Pids.Limit != 40 {
		t.Errorf("after update --resources: %+v", event)
	}
}

// TestRuntimeRun runs containers in the foreground.
func TestRuntimeRun(t *testing.T) {
	b := startBundles(t, "run")
	root := b.rootfs("root")
	dir := b.bundle("run", root, func(s *specs.Spec) {
		s.Process.Args = []string{"sh", "-c", "cat; echo err >&2; hostname; readlink /proc/self/fd/5; exit 3"}
		s.Hostname = "inside"
	})
	res := b.runtime("/bin/sh", "-c", "echo input | "+filepath.Join(run.bin,
		"glassbox-runtime")+" --root /run/oci run --bundle "+dir+" r 5</etc/hostname")
	if res.Code != 3 || res.Stdout != "input\ninside\n" || res.Stderr != "err\n" {
		t.Errorf("run: %+v", res)
	}
	res = b.runtime("/bin/sh", "-c", "echo input | "+filepath.Join(run.bin,
		"glassbox-runtime")+" --root /run/oci run --preserve-fds 3 --bundle "+dir+" r 3</dev/null 4</dev/null 5</etc/hostname")
	if res.Code != 3 || !strings.Contains(res.Stdout, "/etc/hostname") {
		t.Errorf("run --preserve-fds: %+v", res)
	}
	if got := b.must("list", "-q"); got != "" {
		t.Errorf("left: %s", got)
	}
	res = b.runtime("--debug", "run", "--no-pivot", "--bundle", dir, "np")
	if res.Code != 3 || res.Stdout != "inside\n" || !strings.Contains(res.Stderr, "level=debug msg=\"step 1/") ||
		strings.Contains(res.Stderr, "pivot_root") {
		t.Errorf("run --no-pivot: %+v", res)
	}
	b.runtime("run", "--keep", "--bundle", dir, "kept")
	if s := b.status("kept"); s != "stopped" {
		t.Errorf("run --keep: %s", s)
	}
	b.must("delete", "kept")
	// SIGTERM goes through.
	dir = b.bundle("term", root, func(s *specs.Spec) {
		s.Process.Args = []string{"sh", "-c", "trap 'exit 7' TERM; echo ready; while :; do sleep 0.1; done"}
	})
	res = b.runtime("/bin/sh", "-c", filepath.Join(run.bin,
		"glassbox-runtime")+" --root /run/oci run --bundle "+dir+" t & sleep 0.7; kill -TERM $!; wait $!")
	if res.Code != 7 {
		t.Errorf("run with SIGTERM: %+v", res)
	}
}

// TestRuntimeConsole receives a terminal over a socket, as containerd's shim does.
func TestRuntimeConsole(t *testing.T) {
	b := startBundles(t, "console")
	root := b.rootfs("root")
	dir := b.bundle("tty", root, func(s *specs.Spec) {
		s.Process.Terminal = true
		s.Process.ConsoleSize = &specs.Box{Height: 33, Width: 111}
		s.Process.Args = []string{
			"sh", "-c",
			"test -t 0 && test -t 1 && test -t 2 && stat -c %t,%T /dev/console 2>/dev/null; ls -l /proc/self/fd/0; read x; echo got $x",
		}
	})
	path := filepath.Join(b.work, "s")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	b.must("create", "--bundle", dir, "--console-socket", path, "tty")
	_, fd, err := receive(l)
	must(t, err)
	master := os.NewFile(uintptr(fd), "master")
	defer master.Close()
	if ws, err := unix.IoctlGetWinsize(int(master.Fd()), unix.TIOCGWINSZ); err != nil || ws.Row != 33 || ws.Col != 111 {
		t.Errorf("size: %+v %v", ws, err)
	}
	b.must("start", "tty")
	master.Write([]byte("hello\n"))
	var got []byte
	buf := make([]byte, 4096)
	for !strings.Contains(string(got), "got hello") {
		n, err := master.Read(buf)
		got = append(got, buf[:n]...)
		if err != nil {
			break
		}
	}
	if !strings.Contains(string(got), "/dev/pts/0") || !strings.Contains(string(got), "got hello") {
		t.Errorf("got %q", got)
	}
	b.await("tty", "stopped")
	b.must("delete", "tty")
}

// TestRuntimeListener takes the decisions of a filter over a socket, as the specification's listenerPath has it.
func TestRuntimeListener(t *testing.T) {
	b := startBundles(t, "listener")
	root := b.rootfs("root")
	os.Symlink("busybox", filepath.Join(root, "bin/mkdir"))
	path := filepath.Join(b.work, "l")
	dir := b.bundle("listened", root, func(s *specs.Spec) {
		s.Process.Args = []string{"sh", "-c", "mkdir /tmp/x; echo $?"}
		s.Root.Readonly = false
		s.Linux.Seccomp = &specs.LinuxSeccomp{
			DefaultAction: specs.ActAllow, ListenerPath: path, ListenerMetadata: "who asks",
			Syscalls: []specs.LinuxSyscall{{Names: []string{"mkdir", "mkdirat"}, Action: specs.ActNotify}},
		}
	})
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	states := make(chan specs.ContainerProcessState, 1)
	go func() {
		defer close(states)
		data, fd, err := receive(l)
		if err != nil {
			t.Error(err)
			return
		}
		defer unix.Close(fd)
		var state specs.ContainerProcessState
		json.Unmarshal(data, &state)
		states <- state
		// struct seccomp_notif begins with the request's id; struct seccomp_notif_resp is id, val, error, flags.
		var request [80]byte
		if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), 0xc0502100, uintptr(unsafe.Pointer(&request))); errno != 0 {
			return
		}
		var response [24]byte
		copy(response[:8], request[:8])
		binary.NativeEndian.PutUint32(response[16:], ^uint32(unix.EDQUOT)+1)
		unix.Syscall(unix.SYS_IOCTL, uintptr(fd), 0xc0182101, uintptr(unsafe.Pointer(&response)))
	}()
	res := b.runtime("run", "--bundle", dir, "listened")
	state := <-states
	if state.State.ID != "listened" || len(state.Fds) != 1 || state.Fds[0] != specs.SeccompFdName || state.Metadata != "who asks" ||
		state.State.Bundle != dir || state.Pid == 0 {
		t.Errorf("got state %+v", state)
	}
	if res.Code != 0 || res.Stdout != "1\n" || !strings.Contains(strings.ToLower(res.Stderr), "quota") {
		t.Errorf("run: %+v", res)
	}
}

// TestRuntimeShortProgram starts a program that is over before the runtime has looked at it again, as happens on a busy machine.
func TestRuntimeShortProgram(t *testing.T) {
	strace, err := exec.LookPath("strace")
	if err != nil {
		t.Skip("needs strace")
	}
	b := startBundles(t, "short")
	dir := b.bundle("short", b.rootfs("root"), func(s *specs.Spec) { s.Process.Args = []string{"true"} })
	b.must("create", "--bundle", dir, "short")
	res := b.runtime(strace, "-f", "-o", filepath.Join(b.work, "trace"), "-e", "trace=pidfd_open,poll,ppoll", "-e",
		"inject=all:delay_enter=300000",
		filepath.Join(run.bin, "glassbox-runtime"), "--root", "/run/oci", "start", "short")
	if res.Code != 0 {
		t.Errorf("start: %+v", res)
	}
	b.must("delete", "short")
}

// TestRuntimeSystemd has systemd make the container's cgroup: a scope, with the limits that it knows and those that it doesn't.
func TestRuntimeSystemd(t *testing.T) {
	if _, err := os.Stat("/run/systemd/system"); err != nil {
		b := startBundles(t, "no-systemd")
		res := b.runtime("--systemd-cgroup", "create", "--bundle", b.bundle("s", b.rootfs("root"), nil), "s")
		if res.Code != 1 || !strings.Contains(res.Stderr, "--systemd-cgroup: systemd doesn't run this machine") {
			t.Errorf("got %+v", res)
		}
		return
	}
	prepare(t)
	b := &bundles{t: t, work: t.TempDir()}
	b.findPrograms()
	root := b.rootfs("root")
	limit, pids := int64(50<<20), int64(44)
	dir := b.bundle("scoped", root, func(s *specs.Spec) {
		s.Linux.CgroupsPath = "system.slice:glassbox:scoped"
		s.Linux.Resources.Memory = &specs.LinuxMemory{Limit: &limit}
		s.Linux.Resources.Pids = &specs.LinuxPids{Limit: &pids}
	})
	call := func(args ...string) string {
		t.Helper()
		out, err := exec.Command(filepath.Join(run.bin, "glassbox-runtime"),
			append([]string{"--root", filepath.Join(b.work, "state"), "--systemd-cgroup"}, args...)...).CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %v\n%s", args, err, out)
		}
		return string(out)
	}
	show := func(property string) string {
		out, _ := exec.Command("systemctl", "show", "--property", property, "--value", "glassbox-scoped.scope").Output()
		return strings.TrimSpace(string(out))
	}
	// Its output must not be a pipe of ours: the container keeps it.
	log := filepath.Join(b.work, "log")
	create := exec.Command(filepath.Join(run.bin, "glassbox-runtime"), "--root", filepath.Join(b.work, "state"), "--log", log,
		"--systemd-cgroup", "run", "--detach", "--bundle", dir, "scoped")
	if err := create.Run(); err != nil {
		text, _ := os.ReadFile(log)
		t.Fatalf("%v: %s", err, text)
	}
	defer call("delete", "--force", "scoped")
	if got := show("ActiveState"); got != "active" {
		t.Errorf("got state %q, want active", got)
	}
	if got := show("ControlGroup"); got != "/system.slice/glassbox-scoped.scope" {
		t.Errorf("got cgroup %q", got)
	}
	if got := show("TasksMax"); got != "44" {
		t.Errorf("got TasksMax %q, want 44", got)
	}
	var pid struct{ PID int }
	if err := json.Unmarshal([]byte(call("state", "scoped")), &pid); err != nil {
		t.Fatal(err)
	}
	if got, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid.PID)); !strings.Contains(string(got), "glassbox-scoped.scope") {
		t.Errorf("got cgroups %s", got)
	}
	if out := call("exec", "scoped", "cat", "/proc/self/cgroup"); strings.TrimSpace(out) == "" {
		t.Error("exec printed nothing")
	}
	call("update", "--memory", "64M", "--pids-limit", "55", "scoped")
	if got := show("TasksMax"); got != "55" {
		t.Errorf("after the update: got TasksMax %q, want 55", got)
	}
	if err := exec.Command("systemctl", "daemon-reload").Run(); err != nil {
		t.Error(err)
	}
	var event struct {
		Data struct {
			Memory struct{ Usage struct{ Limit uint64 } }
			Pids   struct{ Limit uint64 }
		}
	}
	if err := json.Unmarshal([]byte(call("events", "--stats", "scoped")), &event); err != nil || event.Data.Memory.Usage.Limit != 64<<20 ||
		event.Data.Pids.Limit != 55 {
		t.Errorf("events: %+v %v", event, err)
	}
	call("kill", "scoped", "KILL")
	call("delete", "--force", "scoped")
	if got := show("ActiveState"); got != "inactive" {
		t.Errorf("after delete: got state %q, want inactive", got)
	}
}

// TestRuntimeSystemdUser is called by the root of a user namespace, as by a user's Podman: the user's systemd makes the scope.
func TestRuntimeSystemdUser(t *testing.T) {
	const user, home = 1000, "/run/user/1000"
	if _, err := os.Stat(home + "/systemd/private"); err != nil || os.Getenv("GLASSBOX_TEST_VM") == "" {
		t.Skip("needs a machine that is thrown away, with a systemd of user 1000: ", err)
	}
	if _, err := os.Stat("/sys/fs/cgroup/cgroup.controllers"); err != nil {
		t.Skip("needs cgroup v2: a user's systemd limits nothing on v1")
	}
	prepare(t)
	b := &bundles{t: t, work: filepath.Join(home, "test")}
	if err := os.Mkdir(b.work, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(b.work) })
	b.findPrograms()
	limit := int64(50 << 20)
	dir := b.bundle("scoped", b.rootfs("root"), func(s *specs.Spec) {
		s.Process.Args = []string{"sh", "-c", "cat /proc/self/cgroup /sys/fs/cgroup/memory.max; echo $(cat /proc/self/uid_map)"}
		s.Linux.CgroupsPath = "user.slice:glassbox:own"
		s.Linux.Resources = &specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: &limit}}
		s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: specs.CgroupNamespace})
		s.Mounts = append(s.Mounts, specs.Mount{Destination: "/sys/fs/cgroup", Type: "cgroup", Source: "cgroup", Options: []string{"ro"}})
		for i := range s.Mounts { // there is one user
			s.Mounts[i].Options = slices.DeleteFunc(s.Mounts[i].Options, func(o string) bool { return strings.HasPrefix(o, "gid=") })
		}
	})
	if err := exec.Command("chown", "-R", fmt.Sprint(user), b.work).Run(); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("setpriv", "--reuid", "1000", "--regid", "1000", "--clear-groups", "unshare", "--user", "--map-root-user", "--mount",
		filepath.Join(run.bin, "glassbox-runtime"), "--systemd-cgroup", "run", "--bundle", dir, "own")
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "XDG_RUNTIME_DIR=" + home}
	var warnings strings.Builder
	cmd.Stderr = &warnings
	out, err := cmd.Output()
	if want := fmt.Sprintf("0::/\n%d\n0 %d 1\n", limit, user); err != nil || string(out) != want {
		t.Errorf("got %q, %v, %s, want %q", out, err, warnings.String(), want)
	}
	if left, _ := filepath.Glob(home + "/glassbox-runtime/own*"); left != nil {
		t.Errorf("left: %v", left)
	}
}

// TestRuntimeKill kills the runtime at random moments of create, start and delete. What it leaves, `delete --force` removes whole, and the
// same ID can be used again. Every other container has its mounts in the host's mount namespace.
func TestRuntimeKill(t *testing.T) {
	b := startBundles(t, "runtime-kill")
	root := b.rootfs("root")
	dirs := []string{b.bundle("killed", root, nil), b.bundle("killed-without", root, withoutMounts)}
	dir := dirs[0]
	b.must("run", "--detach", "--bundle", dir, "warm")
	b.must("delete", "--force", "warm")
	before, err := b.state.settled()
	if err != nil {
		t.Fatal(err)
	}
	b.state.before = &before
	// Killed while it wrote what there would be to take back.
	for _, undo := range []string{"", `{"cgroups":{"memory":"/sys`} {
		for _, next := range [][]string{{"delete", "--force", "k"}, {"create", "--bundle", dir, "k"}} {
			left := b.state.host.Path("/run/oci/k")
			if err := os.Mkdir(left, 0o700); err != nil {
				t.Fatal(err)
			}
			b.write(filepath.Join(left, "undo.json"), undo, 0o600)
			if res := b.runtime(next...); res.Code != 0 || res.Stderr != "" {
				t.Errorf("undo.json %q: %v: %+v", undo, next, res)
			}
			b.must("delete", "--force", "k")
		}
	}
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	runtime := []string{filepath.Join(run.bin, "glassbox-runtime"), "--root", "/run/oci"}
	hits := 0
	for n := range 40 {
		dir := dirs[n/4%2]
		args := [][]string{
			{"create", "--bundle", dir, "k"}, {"run", "--detach", "--bundle", dir, "k"}, {"start", "k"}, {"delete", "--force", "k"},
		}[n%4]
		if n%4 == 2 {
			b.must("create", "--bundle", dir, "k")
		}
		job, err := b.state.host.Go(append(slices.Clone(runtime), args...), []string{"PATH=/usr/bin:/bin"}, b.work, nil)
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(scaled(time.Duration(random.IntN(9000)) * time.Microsecond / 2))
		job.Signal(syscall.SIGKILL)
		if code, err := job.Wait(); err == nil && code != 0 {
			hits++
		}
		// The next command finds a state that is true.
		if res := b.runtime("state", "k"); res.Code == 0 && !regexp.MustCompile(`"status": "(created|running|stopped)"`).MatchString(res.Stdout) {
			t.Errorf("round %d, %v: state %+v", n, args, res)
		}
		if n%3 == 0 { // a new one takes its place, or the old one is there
			if res := b.runtime("create", "--bundle", dir, "k"); res.Code != 0 && !strings.Contains(res.Stderr, "already exists") {
				t.Errorf("round %d, create after %v: %s", n, args, res.Stderr)
			}
		}
		b.must("delete", "--force", "k")
		if n%4 != 3 {
			continue
		}
		if left, err := b.state.leaked(); err != nil || left != "" {
			t.Fatalf("round %d, %v: %v\n%s", n, args, err, left)
		}
	}
	if hits < 10 {
		t.Errorf("only %d of 40 rounds killed something", hits)
	}
}

// TestRuntimeExplained compares the plan that `explain` prints for a bundle with the one that runs.
func TestRuntimeExplained(t *testing.T) {
	b := startBundles(t, "explained")
	dir := b.bundle("explained", b.rootfs("root"), func(s *specs.Spec) {
		s.Linux.Seccomp = &specs.LinuxSeccomp{
			DefaultAction: specs.ActAllow,
			Syscalls:      []specs.LinuxSyscall{{Names: []string{"chown"}, Action: specs.ActErrno}},
		}
		s.Process.Cwd = "/made"
		s.Root.Readonly = false
	})
	text := b.must(filepath.Join(run.bin, "glassbox"), "explain", "bundle", "--format", "json", dir)
	var explained, ran plan.Plan
	if err := json.Unmarshal([]byte(text), &explained); err != nil {
		t.Fatal(err)
	}
	b.must("run", "--detach", "--bundle", dir, "explained")
	data, err := os.ReadFile(b.state.host.Path("/run/oci/explained/plan.bin"))
	if err != nil {
		t.Fatal(err)
	}
	b.must("delete", "--force", "explained")
	if err := plan.ReadBinary(data, &ran); err != nil {
		t.Fatal(err)
	}
	if len(explained.Steps) != len(ran.Steps) {
		t.Fatalf("explain prints %d steps, %d ran", len(explained.Steps), len(ran.Steps))
	}
	for i := range ran.Steps {
		// The binary form doesn't tell an empty list from none.
		got, want := plan.AppendBinary(nil, &explained.Steps[i]), plan.AppendBinary(nil, &ran.Steps[i])
		if !bytes.Equal(got, want) {
			t.Errorf("step %d: explain prints\n%s\nand what ran is\n%s", i+1, explained.Steps[i].Op, ran.Steps[i].Op)
		}
	}
}
