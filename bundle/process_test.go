package bundle

import (
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"glassbox/fork"
	"glassbox/plan"
)

// TestProcessFor: what exec starts is the container's process but for what flags say, or all that a file says.
func TestProcessFor(t *testing.T) {
	f := newFake(t, running, func(s *specs.Spec) {
		s.Process.Capabilities = &specs.LinuxCapabilities{Bounding: []string{"CAP_KILL"}, Inheritable: []string{"CAP_CHOWN"}}
		s.Process.User = specs.User{UID: 5, GID: 6, AdditionalGids: []uint32{7}}
		score := 7
		s.Process.Rlimits, s.Process.OOMScoreAdj = []specs.POSIXRlimit{{Type: "RLIMIT_CORE", Soft: 1, Hard: 2}}, &score
		s.Process.ApparmorProfile, s.Process.SelinuxLabel = "of the container", "c:r:t"
	})
	f.c.spec, f.warnings = nil, nil // read again, as another command does
	uid, gid := uint32(1000), uint32(1001)
	p, err := f.r.processFor(f.c, ExecOptions{
		Args: []string{"a", "b"}, Env: []string{"X=1"}, Cwd: "/w", UID: &uid, GID: &gid, Groups: []uint32{8},
		Caps:     []string{"CAP_KILL", "cap_chown"},
		AppArmor: "p", SELinux: "u:r:t", NoNewPrivs: true, TTY: true,
	})
	if err != nil {
		t.Fatal(err)
	}
	caps := p.Capabilities
	if !slices.Equal(p.Args, []string{"a", "b"}) || !slices.Equal(p.Env, []string{"PATH=/bin", "X=1"}) || p.Cwd != "/w" || p.User.UID != uid ||
		p.User.GID != gid || !slices.Equal(p.User.AdditionalGids, []uint32{7, 8}) || p.ApparmorProfile != "p" || p.SelinuxLabel != "u:r:t" ||
		!p.NoNewPrivileges || !p.Terminal {
		t.Errorf("got %+v", p)
	}
	if !slices.Equal(caps.Bounding, []string{"CAP_KILL", "cap_chown"}) || !slices.Equal(caps.Ambient, []string{"cap_chown"}) ||
		!slices.Equal(caps.Effective, caps.Permitted) {
		t.Errorf("got capabilities %+v", caps)
	}
	if again, err := f.r.processFor(f.c, ExecOptions{Args: []string{"x"}}); err != nil || again.User.UID != 5 || len(again.Env) != 1 ||
		len(again.Capabilities.Bounding) != 1 {
		t.Errorf("the container's own is changed: %+v, %v", again, err)
	}
	_, err = f.r.processFor(f.c, ExecOptions{Caps: []string{"CAP_FLY"}})
	f.refused("an unknown capability", err, `--cap: unknown capability "CAP_FLY"`)

	file := filepath.Join(f.dir, "process.json")
	os.WriteFile(file, []byte(`{"args": ["x"], "cwd": "/", "user": {"uid": 9, "gid": 9}, "nonsense": 1}`), 0o644)
	if p, err = f.r.processFor(f.c, ExecOptions{ProcessFile: file}); err != nil || p.User.UID != 9 || len(f.warnings) != 1 ||
		!strings.Contains(f.warnings[0], "--process: /nonsense") {
		t.Errorf("got %+v, %v, warnings %q", p, err, f.warnings)
	}
	// What the file doesn't speak of is as in the container; what it does is its own.
	if len(p.Rlimits) != 1 || p.Rlimits[0].Hard != 2 || p.OOMScoreAdj == nil || *p.OOMScoreAdj != 7 ||
		p.ApparmorProfile != "of the container" ||
		p.SelinuxLabel != "c:r:t" || p.Capabilities == nil || !slices.Equal(p.Capabilities.Bounding, []string{"CAP_KILL"}) {
		t.Errorf("a file without limits: got %+v", p)
	}
	os.WriteFile(file, []byte(`{"args": ["x"], "cwd": "/", "rlimits": [{"type": "RLIMIT_CPU", "soft": 3, "hard": 4}], "oomScoreAdj": 8,
		"apparmorProfile": "own", "selinuxLabel": "o:r:t", "capabilities": {}}`), 0o644)
	if p, err = f.r.processFor(f.c, ExecOptions{ProcessFile: file}); err != nil || len(p.Rlimits) != 1 || p.Rlimits[0].Hard != 4 ||
		*p.OOMScoreAdj != 8 || p.ApparmorProfile != "own" || p.SelinuxLabel != "o:r:t" || len(p.Capabilities.Bounding) != 0 {
		t.Errorf("a file with limits: got %+v, %v", p, err)
	}
	os.WriteFile(file, []byte(`{"args": ["x"], "cwd": "here"}`), 0o644)
	_, err = f.r.processFor(f.c, ExecOptions{ProcessFile: file})
	f.refused("a relative cwd", err, "/cwd")
	_, err = f.r.processFor(f.c, ExecOptions{ProcessFile: "/nowhere"})
	f.refused("no file", err, "--process: open /nowhere")

	for want, o := range map[string]ExecOptions{
		"console socket: give":      {Args: []string{"x"}, TTY: true, Detach: true},
		"cannot use console socket": {Args: []string{"x"}, ConsoleSocket: "/s"},
		"leads out":                 {Args: []string{"x"}, Cgroup: []string{"../.."}},
	} {
		code, err := f.r.Exec("f", o)
		f.refused("exec", err, want)
		if code != 255 {
			t.Errorf("%s: got exit code %d, want 255", want, code)
		}
	}
}

// TestWaitHook waits for hooks that are processes of a container, with what they write.
func TestWaitHook(t *testing.T) {
	for _, c := range []struct {
		script, want string
		timeout      int
	}{
		{"exit 0", "", 0},
		{"echo no >&2; exit 3", "exit status 3: no", 5},
		{"kill -9 $$", "signal: killed", 0},
		{"sleep 100", "it took longer than its timeout of 1 s and was killed", 1},
	} {
		output, err := memory("output", nil)
		if err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command("sh", "-c", c.script)
		cmd.Stdout, cmd.Stderr = output, output
		cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		pidfd, err := unix.PidfdOpen(cmd.Process.Pid, 0)
		if err != nil {
			t.Fatal(err)
		}
		err = waitHook(&fork.Process{PID: cmd.Process.Pid, Pidfd: pidfd}, &plan.Hook{Timeout: c.timeout}, output)
		if (err == nil) != (c.want == "") || err != nil && err.Error() != c.want {
			t.Errorf("%s: got %v, want %q", c.script, err, c.want)
		}
		output.Close()
	}
	inner := &fork.StepError{Index: 3, Step: plan.Step{Op: &plan.Execve{}}, Err: unix.ENOENT, Detail: "looked everywhere"}
	if got := hookStepError(inner).Error(); got != "no such file or directory: looked everywhere" {
		t.Errorf("got %q", got)
	}
	inner.Step.Op, inner.Detail = &plan.Chdir{Path: "/x"}, ""
	if got := hookStepError(inner).Error(); got != "enter /x: no such file or directory" {
		t.Errorf("got %q", got)
	}
	if names := allCapabilities(2).Bounding; !slices.Equal(names, []string{"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_DAC_READ_SEARCH"}) {
		t.Errorf("got %v", names)
	}
}

// TestForward passes a signal on to a process in the foreground, and tells how it ended as a shell does.
func TestForward(t *testing.T) {
	for script, want := range map[string]int{
		"trap 'exit 7' USR1; echo ready; while :; do sleep 0.05; done": 7,
		"echo ready; exec sleep 1000":                                  128 + int(unix.SIGUSR1),
	} {
		f := &forwarder{}
		if err := f.catch(); err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command("sh", "-c", script)
		out, err := cmd.StdoutPipe()
		if err == nil {
			err = cmd.Start()
		}
		if err != nil {
			t.Fatal(err)
		}
		out.Read(make([]byte, 10))
		pidfd, err := unix.PidfdOpen(cmd.Process.Pid, 0)
		if err != nil {
			t.Fatal(err)
		}
		go func() {
			time.Sleep(50 * time.Millisecond)
			unix.Kill(os.Getpid(), unix.SIGUSR1)
		}()
		if got := f.wait(&fork.Process{PID: cmd.Process.Pid, Pidfd: pidfd}, nil); got != want {
			t.Errorf("%s: got %d, want %d", script, got, want)
		}
		unix.Close(pidfd)
	}
}

// TestSendConsole sends a terminal's master over a socket, as engines expect it.
func TestSendConsole(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	master, err := unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := sendConsole(path, master); err != nil {
		t.Fatal(err)
	}
	c, err := l.AcceptUnix()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	data, oob := make([]byte, 100), make([]byte, 100)
	n, m, _, _, err := c.ReadMsgUnix(data, oob)
	if err != nil || string(data[:n]) != "/dev/ptmx" || m == 0 {
		t.Errorf("got %q with %d bytes of rights, %v", data[:n], m, err)
	}
	if err := sendConsole("/nowhere", -1); err == nil || !strings.Contains(err.Error(), "--console-socket: ") {
		t.Errorf("no socket: %v", err)
	}
}

// TestNotify passes READY=1 of a container on to a service manager, with the container's process as the main one.
func TestNotify(t *testing.T) {
	f := newFake(t, running, nil)
	f.r.NotifySocket = filepath.Join(f.dir, "manager")
	manager, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: f.r.NotifySocket, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer manager.Close()
	if n, err := f.r.listen("f"); n != nil || err != nil {
		t.Errorf("nobody has offered it a socket: %v, %v", n, err)
	}
	spec := &specs.Spec{Process: &specs.Process{}}
	if err := f.r.offerNotify("f", spec); err != nil || spec.Mounts[0].Destination != notifyMount ||
		spec.Process.Env[0] != "NOTIFY_SOCKET=/run/notify/notify.sock" {
		t.Fatalf("got %+v, %v", spec.Mounts, err)
	}
	if err := f.r.offerNotify("f", spec); err == nil {
		t.Error("offered twice")
	}
	n, err := f.r.listen("f")
	if err != nil {
		t.Fatal(err)
	}
	pidfd, err := unix.PidfdOpen(f.c.PID, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(pidfd)
	done := make(chan error)
	go func() { done <- n.forward(f.c.PID, pidfd) }()
	inside, err := net.Dial("unixgram", filepath.Join(f.r.notifyDir("f"), notifySocket))
	if err != nil {
		t.Fatal(err)
	}
	defer inside.Close()
	inside.Write([]byte("STATUS=starting\nMAINPID=1"))
	inside.Write([]byte("STATUS=up\nREADY=1\n"))
	var heard []string
	for range 3 {
		data, oob := make([]byte, 1000), make([]byte, 100)
		size, m, _, _, err := manager.ReadMsgUnix(data, oob)
		if err != nil {
			t.Fatal(err)
		}
		heard = append(heard, string(data[:size]))
		if messages, err := unix.ParseSocketControlMessage(oob[:m]); err == nil && len(messages) == 1 {
			fds, _ := unix.ParseUnixRights(&messages[0])
			unix.Close(fds[0]) // the barrier
		}
	}
	if want := []string{"READY=1", "MAINPID=" + strconv.Itoa(f.c.PID), "BARRIER=1"}; !slices.Equal(heard, want) {
		t.Errorf("got %q, want %q", heard, want)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
	if n, err = f.r.listen("f"); err == nil {
		t.Error("two sockets of one name")
	}
	if err := (*notifier)(nil).forward(0, 0); err != nil {
		t.Error(err)
	}
}

// TestFakeCgroup pauses, changes and measures a container by a directory of plain files in a cgroup's place.
func TestFakeCgroup(t *testing.T) {
	f := newFake(t, running, nil)
	dir := filepath.Join(f.dir, "cgroup")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	set := func(file, text string) { os.WriteFile(filepath.Join(dir, file), []byte(text), 0o644) }
	get := func(file string) string {
		text, _ := os.ReadFile(filepath.Join(dir, file))
		return strings.TrimSpace(string(text))
	}
	for _, file := range []string{"memory.max", "memory.swap.max", "pids.max", "cgroup.freeze", "cpu.max"} {
		set(file, "")
	}
	set("cgroup.events", "populated 1\nfrozen 1\n")
	set("cgroup.procs", strconv.Itoa(f.c.PID)+"\n")
	set("pids.current", "3\n")
	set("memory.current", "4096\n")
	set("cpu.stat", "usage_usec 5\nuser_usec 2\nsystem_usec 3\n")
	f.c.Cgroups = map[string]string{"": dir}
	if err := writeFile(filepath.Join(f.r.dir("f"), stateFile), f.c.text()); err != nil {
		t.Fatal(err)
	}
	if s := f.status(); s != Paused {
		t.Fatalf("got %s, want paused", s)
	}
	f.refused("pause", f.r.Pause("f"), "paused")
	f.refused("start", f.r.Start("f"), "paused")
	_, err := f.r.Exec("f", ExecOptions{Args: []string{"x"}})
	f.refused("exec", err, "paused container")
	if err := f.r.Resume("f"); err != nil || get("cgroup.freeze") != "0" {
		t.Errorf("resume: %v, cgroup.freeze has %q", err, get("cgroup.freeze"))
	}
	if pids, err := f.r.Processes("f"); err != nil || !slices.Equal(pids, []int{f.c.PID}) {
		t.Errorf("ps: %v, %v", pids, err)
	}
	limit, pids := int64(1<<26), int64(55)
	if err := f.r.Update("f", &specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: &limit}, Pids: &specs.LinuxPids{Limit: &pids}},
		nil); err != nil || get("memory.max") != "67108864" || get("pids.max") != "55" {
		t.Errorf("update: %v, memory.max %q, pids.max %q", err, get("memory.max"), get("pids.max"))
	}
	if e, err := f.r.Stats("f"); err != nil || e.Type != "stats" || e.Data.Pids.Current != 3 || e.Data.Memory.Usage.Usage != 4096 {
		t.Errorf("stats: %+v, %v", e, err)
	}
	told := 0
	err = f.r.Watch("f", 10*time.Millisecond, func(*Event) error {
		if told++; told == 3 {
			return errors.New("enough")
		}
		return nil
	})
	f.refused("watch", err, "enough")
	if got := f.c.strangers(); len(got) != 0 {
		t.Errorf("strangers: %v", got)
	}
}
