package fork

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"unsafe"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"glassbox/compile"
	"glassbox/host"
)

// agent accepts one listener and answers one call with an error.
func agent(l int, answer unix.Errno) (state specs.ContainerProcessState, err error) {
	conn, _, err := unix.Accept4(l, unix.SOCK_CLOEXEC)
	if err != nil {
		return state, err
	}
	defer unix.Close(conn)
	data, control := make([]byte, 1<<16), make([]byte, unix.CmsgSpace(4))
	n, cn, _, _, err := unix.Recvmsg(conn, data, control, unix.MSG_CMSG_CLOEXEC)
	if err != nil {
		return state, err
	}
	if err := json.Unmarshal(data[:n], &state); err != nil {
		return state, err
	}
	messages, err := unix.ParseSocketControlMessage(control[:cn])
	if err != nil || len(messages) != 1 {
		return state, fmt.Errorf("no descriptor: %w", err)
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil {
		return state, err
	}
	defer unix.Close(fds[0])
	const receive, send = 0xc0502100, 0xc0182101 // SECCOMP_IOCTL_NOTIF_RECV, SECCOMP_IOCTL_NOTIF_SEND
	var notif [10]uint64
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fds[0]), receive, uintptr(unsafe.Pointer(&notif))); errno != 0 {
		return state, errno
	}
	response := struct {
		id    uint64
		val   int64
		errno int32
		flags uint32
	}{id: notif[0], errno: -int32(answer)}
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fds[0]), send, uintptr(unsafe.Pointer(&response))); errno != 0 {
		return state, errno
	}
	return state, nil
}

// TestSeccompListener hands a filter's listener to an agent, which then decides about a call of the container: with a filter that is
// installed early and one that is installed late.
func TestSeccompListener(t *testing.T) {
	for _, late := range []bool{false, true} {
		s := bundle(t, "busybox", "mkdir", "/tmp/dir")
		s.Process.NoNewPrivileges = late
		path := filepath.Join(t.TempDir(), "agent")
		s.Linux.Seccomp = &specs.LinuxSeccomp{
			DefaultAction: specs.ActAllow, ListenerPath: path, ListenerMetadata: "all about it",
			Syscalls: []specs.LinuxSyscall{{Names: []string{"mkdir", "mkdirat"}, Action: specs.ActNotify}},
		}
		l, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err == nil {
			err = errors.Join(unix.Bind(l, &unix.SockaddrUnix{Name: path}), unix.Listen(l, 1))
		}
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Close(l)
		type result struct {
			state specs.ContainerProcessState
			err   error
		}
		done := make(chan result, 1)
		go func() {
			state, err := agent(l, unix.EXDEV)
			done <- result{state, err}
		}()
		runtime.LockOSThread()
		facts, err := host.Probe()
		if err != nil {
			t.Fatal(err)
		}
		out, err := compile.Container(compile.Input{Spec: s, Facts: *facts, FindProgram: true})
		if err != nil {
			t.Fatal(err)
		}
		fds, output := pipes(t)
		proc, err := Start(out.Plan, Options{FDs: fds, State: func(pid int) ([]byte, error) {
			return json.Marshal(specs.State{ID: "box", Status: specs.StateCreating, Pid: pid})
		}})
		if err != nil {
			t.Fatal(err)
		}
		code := wait(t, proc)
		runtime.UnlockOSThread()
		got := <-done
		if got.err != nil {
			t.Fatal(got.err)
		}
		if text := output(); code != 1 || !strings.Contains(text, "nvalid cross-device link") {
			t.Errorf("late %v: code %d, %q, want the agent's answer", late, code, text)
		}
		if st := got.state; st.Pid != proc.PID || st.Metadata != "all about it" || st.State.ID != "box" || len(st.Fds) != 1 ||
			st.Fds[0] != specs.SeccompFdName || st.Version != "1.2.0" {
			t.Errorf("late %v: the agent got %+v", late, st)
		}
	}
	// Without an agent nothing starts.
	s := bundle(t, "true")
	s.Linux.Seccomp = &specs.LinuxSeccomp{
		DefaultAction: specs.ActAllow, ListenerPath: "/nowhere/agent",
		Syscalls: []specs.LinuxSyscall{{Names: []string{"mkdir"}, Action: specs.ActNotify}},
	}
	if _, _, err := runSpec(t, s); err == nil || !strings.Contains(err.Error(), "/linux/seccomp/listenerPath") {
		t.Errorf("got %v, want an error about the listener", err)
	}
}

// TestCopyUp covers directories of the image by a tmpfs with the same content.
func TestCopyUp(t *testing.T) {
	s := bundle(t, "sh", "-c",
		`cd /etc; busybox find . | busybox sort; cat sub/file
busybox stat -c '%n %F %a %u:%g %Y' . sub sub/file link fifo set; busybox readlink link
echo x >new && echo writable; echo x >/ro/new; cat /ro/file; busybox ls /none; busybox stat -c %a /moded`)
	root := s.Root.Path
	etc := filepath.Join(root, "etc")
	if err := errors.Join(
		os.Mkdir(filepath.Join(etc, "sub"), 0o755), os.WriteFile(filepath.Join(etc, "sub/file"), []byte("content\n"), 0o604),
		os.Symlink("../../../../etc/passwd", filepath.Join(etc, "link")),
		unix.Mkfifo(filepath.Join(etc, "fifo"), 0o622), os.WriteFile(filepath.Join(etc, "set"), nil, 0o755),
		os.Chown(filepath.Join(etc, "set"), 3, 4),
		os.Chmod(filepath.Join(etc, "set"), 0o755|os.ModeSetuid), os.Chmod(etc, 0o711), os.Chown(filepath.Join(etc, "sub"), 5, 6),
		os.Chmod(filepath.Join(etc, "fifo"), 0o622), os.Chmod(filepath.Join(etc, "sub/file"), 0o604), os.Mkdir(filepath.Join(root, "ro"), 0o755),
		os.WriteFile(filepath.Join(root, "ro/file"), []byte("ro\n"), 0o644),
		os.Mkdir(filepath.Join(root, "moded"), 0o755), unix.Setxattr(filepath.Join(etc, "set"), "trusted.test", []byte("v"), 0),
	); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"sub/file", "sub", "set", ""} {
		if err := unix.UtimesNano(filepath.Join(etc, name), []unix.Timespec{{Sec: 7}, {Sec: 1234}}); err != nil {
			t.Fatal(err)
		}
	}
	add := func(dest string, options ...string) {
		s.Mounts = append(s.Mounts, specs.Mount{Destination: dest, Type: "tmpfs", Source: "tmpfs", Options: append(options, "tmpcopyup")})
	}
	add("/etc")
	add("/ro", "ro")
	add("/none")
	add("/moded", "mode=701")
	var fifo unix.Stat_t
	var link unix.Stat_t
	if err := errors.Join(unix.Lstat(filepath.Join(etc, "fifo"), &fifo), unix.Lstat(filepath.Join(etc, "link"), &link)); err != nil {
		t.Fatal(err)
	}
	code, got, err := runSpec(t, s)
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(got, "\n")
	for i, l := range lines { // times of a link and a FIFO are not copied
		if strings.HasPrefix(l, "link ") || strings.HasPrefix(l, "fifo ") {
			lines[i] = l[:strings.LastIndexByte(l, ' ')]
		}
	}
	want := `.
./fifo
./link
./set
./sub
./sub/file
content
. directory 711 0:0 1234
sub directory 755 5:6 1234
sub/file regular file 604 0:0 1234
link symbolic link 777 0:0
fifo fifo 622 0:0
set regular empty file 4755 3:4 1234
../../../../etc/passwd
writable
sh: can't create /ro/new: Read-only file system
ro
701
`
	if got := strings.Join(lines, "\n"); code != 0 || got != want {
		t.Errorf("code %d, got\n%s\nwant\n%s", code, got, want)
	}
	if _, err := os.Stat(filepath.Join(etc, "new")); err == nil {
		t.Error("the image was changed")
	}
}

func TestSysctls(t *testing.T) {
	inNamespace(t)
	// A network namespace to join: that of this thread, left again for another.
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "net")
	if err := errors.Join(os.WriteFile(file, nil, 0o600), unix.Mount("/proc/thread-self/ns/net", file, "", unix.MS_BIND, "")); err != nil {
		t.Fatal(err)
	}
	defer unix.Unmount(file, unix.MNT_DETACH)
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		t.Fatal(err)
	}
	s := bundle(t, "cat", "/proc/sys/net/ipv4/ip_unprivileged_port_start", "/proc/sys/kernel/shm_rmid_forced",
		"/proc/sys/user/max_net_namespaces", "/proc/sys/kernel/domainname")
	s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: "network", Path: file}, specs.LinuxNamespace{Type: "user"})
	s.Linux.Sysctl = map[string]string{
		"net.ipv4.ip_unprivileged_port_start": "77", "kernel/shm_rmid_forced": "1",
		"user.max_net_namespaces": "5", "kernel.domainname": "dom",
	}
	before, _ := os.ReadFile("/proc/sys/user/max_net_namespaces")
	expect(t, s, "77\n1\n5\ndom\n")
	if after, _ := os.ReadFile("/proc/sys/user/max_net_namespaces"); string(after) != string(before) {
		t.Errorf("the host's limit was %s and is %s", before, after)
	}
	s = bundle(t, "true")
	s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: "network", Path: "/proc/thread-self/ns/net"})
	s.Linux.Sysctl = map[string]string{"net.ipv4.ip_forward": "1"}
	if _, _, err := runSpec(t, s); err == nil || !strings.Contains(err.Error(), "would change the host") {
		t.Errorf("the host's own network namespace: got %v", err)
	}
}

// TestOddStepsCanFail forces an error at each step of a plan with what most containers don't have.
func TestOddStepsCanFail(t *testing.T) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	s := bundle(t, "true")
	path := filepath.Join(t.TempDir(), "agent")
	l, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err == nil {
		err = errors.Join(unix.Bind(l, &unix.SockaddrUnix{Name: path}), unix.Listen(l, 200))
	}
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(l)
	s.Process.NoNewPrivileges = true
	s.Process.User.UID, s.Process.Cwd = 7, "/etc"
	s.Linux.RootfsPropagation = "shared"
	s.Linux.Personality = &specs.LinuxPersonality{Domain: "LINUX32"}
	s.Linux.Seccomp = &specs.LinuxSeccomp{
		DefaultAction: specs.ActAllow, ListenerPath: path, Syscalls: []specs.LinuxSyscall{{Names: []string{"mkdir"}, Action: specs.ActNotify}},
	}
	s.Mounts = append(s.Mounts,
		specs.Mount{Destination: "/etc", Type: "tmpfs", Source: "tmpfs", Options: []string{"tmpcopyup", "ro"}},
		specs.Mount{Destination: "/run", Type: "tmpfs", Source: "tmpfs", Options: []string{"silent"}},
		specs.Mount{Destination: "/run", Options: []string{"remount", "nosuid", "size=1m"}},
		specs.Mount{Destination: "/sys/fs/cgroup", Type: "cgroup", Source: "cgroup"})
	s.Linux.CgroupsPath = testCgroup + "/odd"
	facts, err := host.Probe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := compile.Container(compile.Input{Spec: s, Facts: *facts, NoPivot: true, FindProgram: true})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		for _, dir := range out.Cgroups {
			os.Remove(dir)
			os.Remove(filepath.Dir(dir))
		}
	}()
	everyStepCanFail(t, out.Plan)
}

// TestCopyUpUserNamespace does so where the tmpfs belongs to a user namespace in which root of the host is nobody.
func TestCopyUpUserNamespace(t *testing.T) {
	needRoot(t)
	s := rootBundle(t, 100000, "sh", "-c",
		"cd /etc; busybox stat -c '%n %F %a %u:%g' . own sub sub/file link; cat own; echo x >new && echo writable")
	etc := filepath.Join(s.Root.Path, "etc")
	for _, err := range []error{
		os.WriteFile(filepath.Join(etc, "own"), []byte("content\n"), 0o644), os.Chown(filepath.Join(etc, "own"), 100003, 100004),
		os.Mkdir(filepath.Join(etc, "sub"), 0o755), os.WriteFile(filepath.Join(etc, "sub/file"), nil, 0o644),
		os.Symlink("own", filepath.Join(etc, "link")),
		os.Chown(filepath.Join(etc, "sub"), 100005, 100000), os.Chown(filepath.Join(etc, "sub/file"), 100006, 100000),
		os.Lchown(filepath.Join(etc, "link"), 100000, 100000),
		os.Chmod(filepath.Join(etc, "own"), 0o644|os.ModeSetuid),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	s.Linux.UIDMappings, s.Linux.GIDMappings = ids(100000, 1000), ids(100000, 1000)
	s.Mounts = append(s.Mounts, specs.Mount{Destination: "/etc", Type: "tmpfs", Source: "tmpfs", Options: []string{"tmpcopyup"}})
	expect(t, s, ". directory 755 0:0\nown regular file 4644 3:4\nsub directory 755 5:0\nsub/file regular empty file 644 6:0\nlink "+
		"symbolic link 777 0:0\ncontent\nwritable\n")
}
