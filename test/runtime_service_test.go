package test

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// pid asks for the pid of a container's process.
func (b *bundles) pid(id string) string {
	b.t.Helper()
	var s struct{ PID int }
	if err := json.Unmarshal([]byte(b.must("state", id)), &s); err != nil {
		b.t.Fatal(err)
	}
	return strconv.Itoa(s.PID)
}

// TestRuntimeService runs containers as a service manager would: they say when they are ready, get sockets that are open already, and
// their process comes as a pidfd.
func TestRuntimeService(t *testing.T) {
	b := startBundles(t, "service")
	root := b.rootfs("root")
	runtime := filepath.Join(run.bin, "glassbox-runtime") + " --root /run/oci "
	path := filepath.Join(b.work, "manager")
	manager, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer manager.Close()
	dir := b.bundle("ready", root, func(s *specs.Spec) {
		s.Process.Args = []string{"sh", "-c", "test -S $NOTIFY_SOCKET && echo $NOTIFY_SOCKET >/tmp/socket; exec sleep 1000"}
		s.Root.Readonly = false
	})
	b.must("/bin/sh", "-c", "NOTIFY_SOCKET="+path+" "+runtime+"create -b "+dir+" ready </dev/null >/dev/null 2>&1")
	job, err := b.state.host.Go([]string{filepath.Join(run.bin, "glassbox-runtime"), "--root", "/run/oci", "start", "ready"},
		[]string{"PATH=/usr/bin:/bin", "NOTIFY_SOCKET=" + path}, "/", nil)
	if err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(scaled(15 * time.Second)); ; time.Sleep(10 * time.Millisecond) {
		if text, _ := os.ReadFile(filepath.Join(root, "tmp/socket")); string(text) == "/run/notify/notify.sock\n" {
			break
		} else if time.Now().After(end) {
			t.Fatalf("the container has no socket: %q", text)
		}
	}
	inside, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: b.state.host.Path("/run/oci/ready/notify/notify.sock"), Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer inside.Close()
	inside.Write([]byte("STATUS=soon"))
	inside.Write([]byte("STATUS=now\nREADY=1\n"))
	var got []string
	buf, oob := make([]byte, 100), make([]byte, 100)
	manager.SetReadDeadline(time.Now().Add(scaled(15 * time.Second)))
	for range 3 {
		n, rights, _, _, err := manager.ReadMsgUnix(buf, oob)
		if err != nil {
			t.Fatalf("after %q: %v", got, err)
		}
		got = append(got, string(buf[:n]))
		if rights > 0 {
			fd, err := descriptor(oob[:rights])
			must(t, err)
			unix.Close(fd) // the manager has taken notice
		}
	}
	if res, err := job.Finish(scaled(10 * time.Second)); err != nil || res.Code != 0 {
		t.Errorf("start: %+v, %v", res, err)
	}
	if pid := b.pid("ready"); strings.Join(got, " ") != "READY=1 MAINPID="+pid+" BARRIER=1" {
		t.Errorf("the manager got %q, want READY=1, MAINPID=%s and BARRIER=1", got, pid)
	}
	b.must("delete", "-f", "ready")

	// LISTEN_PID is the runtime's own: exec keeps it.
	listen := b.bundle("listen", root, func(s *specs.Spec) {
		s.Process.Args = []string{
			"sh", "-c",
			"echo $LISTEN_FDS $LISTEN_PID $NOTIFY_SOCKET; for i in 3 4 5; do readlink /proc/self/fd/$i; done; true",
		}
	})
	text := b.must("/bin/sh", "-c",
		"unset NOTIFY_SOCKET; LISTEN_FDS=2 exec sh -c 'LISTEN_PID=$$ exec "+runtime+"run -b "+listen+" listen' 3</etc/passwd "+
			"4</etc/hostname 5</etc/hosts")
	if text != "2 1\n/etc/passwd\n/etc/hostname\n" {
		t.Errorf("descriptors of the service manager: got %q", text)
	}
	if text := b.must("/bin/sh", "-c",
		"LISTEN_FDS=2 LISTEN_PID=1 "+runtime+"run -b "+listen+" listen 3</etc/passwd 4</etc/hostname"); text != "\n" {
		t.Errorf("descriptors of another process: got %q", text)
	}

	// A pidfd.
	socket := filepath.Join(b.work, "pidfds")
	pidfds, err := net.ListenUnix("unix", &net.UnixAddr{Name: socket, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	defer pidfds.Close()
	pidfd := func() string {
		_, fd, err := receive(pidfds)
		must(t, err)
		defer unix.Close(fd)
		info, _ := os.ReadFile(fmt.Sprintf("/proc/self/fdinfo/%d", fd))
		_, rest, _ := strings.Cut(string(info), "NSpid:\t") // here, in the machine, in the container
		if pids := strings.Fields(rest); len(pids) > 1 {
			return pids[1]
		}
		t.Fatalf("no pidfd: %s", info)
		return ""
	}
	b.must("create", "--pidfd-socket", socket, "-b", dir, "fd")
	if got, want := pidfd(), b.pid("fd"); got != want {
		t.Errorf("create --pidfd-socket: got %s, want %s", got, want)
	}
	b.must("start", "fd")
	b.must("exec", "-d", "--pidfd-socket", socket, "--pid-file", b.work+"/pid", "fd", "sleep", "1000")
	if want, _ := os.ReadFile(b.work + "/pid"); pidfd() != string(want) {
		t.Errorf("exec --pidfd-socket: not the one of %s", want)
	}
	if got := b.must("/bin/sh", "-c",
		`echo '{"args":["echo","from stdin"],"cwd":"/","env":["PATH=/bin"]}' | `+runtime+"exec --process - fd"); got != "from stdin\n" {
		t.Errorf("exec --process -: %q", got)
	}
	b.must("delete", "-f", "fd")
	b.killedWhole(root)
}

// killedWhole: without a PID namespace of its own a container is killed as a whole, also when its first process has gone before.
func (b *bundles) killedWhole(root string) {
	t := b.t
	t.Helper()
	shared := b.bundle("shared", root, func(s *specs.Spec) {
		s.Process.Args = []string{"sh", "-c", "sleep 1000 & sleep 1001 & exec sleep 1002"}
		s.Linux.Namespaces = slices.DeleteFunc(s.Linux.Namespaces, func(n specs.LinuxNamespace) bool { return n.Type == specs.PIDNamespace })
	})
	for _, first := range []bool{false, true} {
		b.must("run", "-d", "-b", shared, "shared")
		b.until("three processes", func() bool { return strings.Count(b.must("ps", "-f", "json", "shared"), ",") == 2 })
		if first {
			b.must("/bin/kill", "-9", b.pid("shared"))
			b.await("shared", "stopped")
		}
		b.must("kill", "shared", "KILL")
		b.await("shared", "stopped")
		if got := b.must("ps", "-f", "json", "shared"); strings.Trim(got, "[]\n") != "" && got != "null\n" {
			t.Errorf("left after kill KILL: %s", got)
		}
		if res := b.runtime("kill", "shared", "KILL"); res.Code != 1 || !strings.Contains(res.Stderr, "container not running") {
			t.Errorf("kill of a stopped container: %+v", res)
		}
		b.must("delete", "shared")
	}
}

// TestRuntimeNotReady works with a container whose `run --detach` still waits for it to be ready, and which never is.
func TestRuntimeNotReady(t *testing.T) {
	b := startBundles(t, "notready")
	path := filepath.Join(b.work, "manager")
	manager, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer manager.Close()
	dir := b.bundle("slow", b.rootfs("root"), func(s *specs.Spec) { s.Process.Args = []string{"sleep", "1000"} })
	job, err := b.state.host.Go([]string{filepath.Join(run.bin, "glassbox-runtime"), "--root", "/run/oci", "run", "-d", "-b", dir, "slow"},
		[]string{"PATH=/usr/bin:/bin", "NOTIFY_SOCKET=" + path}, "/", nil)
	if err != nil {
		t.Fatal(err)
	}
	b.until("a state", func() bool { return b.runtime("state", "slow").Code == 0 })
	b.await("slow", "running")
	b.must("/usr/bin/timeout", fmt.Sprint(scaled(5*time.Second).Seconds()), filepath.Join(run.bin, "glassbox-runtime"), "--root", "/run/oci",
		"exec", "slow", "true")
	b.must("delete", "-f", "slow")
	if res, err := job.Finish(scaled(10 * time.Second)); err != nil || res.Code != 0 {
		t.Errorf("run --detach of a container that has ended: %+v, %v", res, err)
	}
}
