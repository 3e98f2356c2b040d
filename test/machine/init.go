package machine

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"glassbox/test/plain"
)

// control is the descriptor of the socket to the tests.
const control = 3

// Main is the life of a machine's first process if this process was started to be one; else it returns at once.
func Main() {
	var err error
	switch os.Getenv(RoleEnv) {
	case "machine":
		err = build()
	case "machine-init":
		err = serve()
	default:
		return
	}
	fmt.Fprintln(os.Stderr, "machine:", err)
	os.Exit(1)
}

// build turns the fresh namespaces into the machine, then starts this program again: unshare(2) of the cgroup namespace
// changes only the calling thread, and execve(2) makes that thread the whole process.
func build() error {
	runtime.LockOSThread()
	if err := plain.Set(); err != nil {
		return err
	}
	buffer := make([]byte, 1<<16)
	n, err := unix.Read(control, buffer)
	if err != nil {
		return fmt.Errorf("read set-up: %w", err)
	}
	var s setup
	if err := json.Unmarshal(buffer[:n], &s); err != nil {
		return err
	}
	if s.Shared {
		// Whatever loses its parent is this process's child then, and ends with the machine.
		if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
			return fmt.Errorf("prctl: %w", err)
		}
	} else if err := unix.Unshare(unix.CLONE_NEWCGROUP); err != nil {
		return fmt.Errorf("unshare cgroup: %w", err)
	}
	if err := mounts(s); err != nil {
		return err
	}
	if err := unix.Sethostname([]byte(s.Name)); err != nil {
		return fmt.Errorf("sethostname: %w", err)
	}
	if err := network(); err != nil {
		return err
	}
	os.Setenv(RoleEnv, "machine-init")
	return fmt.Errorf("exec: %w", unix.Exec("/proc/self/exe", os.Args, os.Environ()))
}

func mounts(s setup) error {
	var errs []error
	try := func(source, target, fstype string, flags uintptr, data string) {
		if err := unix.Mount(source, target, fstype, flags, data); err != nil {
			errs = append(errs, fmt.Errorf("mount %s on %s: %w", fstype, target, err))
		}
	}
	links := map[string]string{}
	entries, _ := os.ReadDir("/sys/fs/cgroup")
	for _, entry := range entries {
		path := filepath.Join("/sys/fs/cgroup", entry.Name())
		if link, err := os.Readlink(path); err == nil {
			links[path] = link
		}
	}
	// Where /etc/resolv.conf is a link into /run, the private /run must have its target.
	resolv, err := filepath.EvalSymlinks("/etc/resolv.conf")
	if err != nil {
		resolv = "/etc/resolv.conf"
	}

	// Own mounts, but shared ones: as systemd leaves them, which is the harder case for an engine.
	try("", "/", "", unix.MS_REC|unix.MS_PRIVATE, "")
	try("", "/", "", unix.MS_REC|unix.MS_SHARED, "")
	if !s.Shared {
		try("proc", "/proc", "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "")
	}
	// What lies below the new /sys would still be in mountinfo, and nobody could unmount it.
	if err := unix.Unmount("/sys", unix.MNT_DETACH); err != nil && !errors.Is(err, unix.EINVAL) {
		errs = append(errs, fmt.Errorf("unmount /sys: %w", err))
	}
	try("sysfs", "/sys", "sysfs", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "")
	var kept []string
	if s.Shared {
		kept = []string{"/run/systemd", "/run/dbus"}
	}
	for _, dir := range kept {
		os.MkdirAll("/mnt"+dir, 0o755)
		try(dir, "/mnt"+dir, "", unix.MS_BIND|unix.MS_REC, "")
	}
	try("tmpfs", "/run", "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=755")
	for _, dir := range kept {
		os.MkdirAll(dir, 0o755)
		try("/mnt"+dir, dir, "", unix.MS_BIND|unix.MS_REC, "")
	}
	if s.Shared {
		try("securityfs", "/sys/kernel/security", "securityfs", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "")
	}
	try("tmpfs", "/dev/shm", "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=1777")
	os.MkdirAll("/run/lock", 0o1777)
	os.MkdirAll(filepath.Dir(resolv), 0o755)
	if _, err := os.Stat(resolv); err != nil {
		os.WriteFile(resolv, nil, 0o644)
	}
	try(filepath.Join(s.Dir, "resolv.conf"), resolv, "", unix.MS_BIND, "")
	try(filepath.Join(s.Dir, "hosts"), "/etc/hosts", "", unix.MS_BIND, "")

	if len(s.Cgroups) > 1 || !s.Cgroups[0].Unified {
		try("tmpfs", "/sys/fs/cgroup", "tmpfs", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "mode=755")
	}
	for _, h := range s.Cgroups {
		os.MkdirAll(h.Path, 0o755)
		fstype := "cgroup"
		if h.Unified {
			fstype = "cgroup2"
		}
		try(fstype, h.Path, fstype, unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, h.Options)
	}
	for path, link := range links {
		os.Symlink(link, path)
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	for _, h := range s.Cgroups {
		if !h.Unified || s.Shared {
			continue
		}
		// A group other than the real root hands controllers down only while no process is in it.
		leaf := filepath.Join(h.Path, "init")
		if err := os.Mkdir(leaf, 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(leaf, "cgroup.procs"), []byte("0"), 0o644); err != nil {
			return err
		}
		if err := handDown(h.Path); err != nil {
			return err
		}
	}
	return nil
}

// network makes eth0 and the world behind it. The IPv4 settings of a new namespace are those of the host's first one
// (net.core.devconf_inherit_init_net, Linux 4.16), which routes wherever Docker or a VPN runs: here they are the kernel's own.
func network() error {
	const settings = `net.ipv4.ip_forward=0 net.ipv4.conf.all.forwarding=0 net.ipv4.conf.default.forwarding=0 net.ipv4.conf.all.rp_filter=0 ` +
		`net.ipv4.conf.default.rp_filter=0 net.ipv4.conf.all.route_localnet=0 net.ipv4.conf.default.route_localnet=0 ` +
		`net.ipv6.conf.all.forwarding=0 net.ipv6.conf.all.disable_ipv6=0 net.ipv6.conf.default.disable_ipv6=0 ` +
		`net.ipv4.conf.all.accept_local=0 net.ipv4.conf.default.accept_local=0 net.ipv4.conf.all.arp_ignore=0 net.ipv4.conf.default.arp_ignore=0`
	script := `
set -e
sysctl -qw ` + settings + `
ip link set lo up
ip netns add outside
ip netns exec outside sysctl -qw ` + settings + `
ip link add eth0 type veth peer name eth0 netns outside
ip addr add ` + HostAddr + `/24 dev eth0
ip addr add ` + HostAddr6 + `/64 dev eth0 nodad
ip link set eth0 up
ip -n outside link set lo up
ip -n outside addr add ` + OutsideAddr + `/24 dev eth0
ip -n outside addr add ` + Outside6 + `/64 dev eth0 nodad
ip -n outside link set eth0 up
ip route add default via ` + OutsideAddr + `
ip -6 route add default via ` + Outside6
	cmd := exec.Command("/bin/sh", "-c", script)
	cmd.Env = []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("network: %w: %s", err, out)
	}
	return nil
}

// child is a program that was started: where its end is to be told, and when it began.
type child struct {
	fd    int
	start time.Time
}

// serve starts what it is asked to and reaps whatever dies.
func serve() error {
	unix.CloseOnExec(control)
	os.Unsetenv(RoleEnv)
	var (
		mu       sync.Mutex // held over fork and over wait, so that no status comes before its entry
		children = map[int]child{}
	)
	sigchld := make(chan os.Signal, 1)
	signal.Notify(sigchld, unix.SIGCHLD)
	go func() {
		for range sigchld {
			mu.Lock()
			for {
				var ws unix.WaitStatus
				pid, err := unix.Wait4(-1, &ws, unix.WNOHANG, nil)
				if err == unix.EINTR {
					continue
				}
				if pid <= 0 {
					break
				}
				if c, ok := children[pid]; ok {
					delete(children, pid)
					answer(c.fd, reply{Pid: pid, Status: uint32(ws), Took: time.Since(c.start)})
					unix.Close(c.fd)
				}
			}
			mu.Unlock()
		}
	}()
	if _, err := unix.Write(control, []byte("ready")); err != nil {
		return err
	}
	buffer, oob := make([]byte, 1<<20), make([]byte, 1<<10)
	for {
		n, oobn, _, _, err := unix.Recvmsg(control, buffer, oob, unix.MSG_CMSG_CLOEXEC)
		if err == unix.EINTR {
			continue
		}
		if err != nil || n == 0 {
			return errors.New("the tests are gone")
		}
		var req request
		if err := json.Unmarshal(buffer[:n], &req); err != nil {
			return err
		}
		if req.Signal != 0 {
			unix.Kill(req.Pid, unix.Signal(req.Signal))
			continue
		}
		var fds []int
		messages, err := unix.ParseSocketControlMessage(oob[:oobn])
		if err == nil && len(messages) == 1 {
			fds, err = unix.ParseUnixRights(&messages[0])
		}
		if err != nil || len(fds) != 4 {
			return fmt.Errorf("descriptors: %v %w", fds, err)
		}
		path, err := lookPath(req)
		if err == nil {
			mu.Lock()
			var pid int
			start := time.Now()
			pid, err = syscall.ForkExec(path, req.Argv, &syscall.ProcAttr{
				Dir: req.Dir, Env: req.Env, Files: []uintptr{uintptr(fds[0]), uintptr(fds[1]), uintptr(fds[2])},
				Sys: &syscall.SysProcAttr{Setsid: true, Setctty: req.TTY},
			})
			if err == nil {
				children[pid] = child{fds[3], start}
				answer(fds[3], reply{Pid: pid})
			}
			mu.Unlock()
		}
		for _, fd := range fds[:3] {
			unix.Close(fd)
		}
		if err != nil {
			answer(fds[3], reply{Err: err.Error()})
			unix.Close(fds[3])
		}
	}
}

func answer(fd int, r reply) {
	message, _ := json.Marshal(r)
	unix.Write(fd, message)
}

func lookPath(req request) (string, error) {
	if strings.Contains(req.Argv[0], "/") {
		return req.Argv[0], nil
	}
	for _, variable := range req.Env {
		if path, ok := strings.CutPrefix(variable, "PATH="); ok {
			for _, dir := range filepath.SplitList(path) {
				file := filepath.Join(dir, req.Argv[0])
				if unix.Access(file, unix.X_OK) == nil {
					return file, nil
				}
			}
		}
	}
	return "", fmt.Errorf("%s: not found in PATH", req.Argv[0])
}
