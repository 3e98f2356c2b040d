package test

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// What callers of runc are used to, case by case. Where a case names no other program, runc 1.5.3 was asked.

// TestRuntimeLocks has commands wait for one another: for each that waits there is one that lets it go on, and it must come through.
func TestRuntimeLocks(t *testing.T) {
	b := startBundles(t, "locks")
	root := b.rootfs("root")
	program := filepath.Join(run.bin, "glassbox-runtime") + " --root /run/oci "
	t.Run("exec in a paused container", func(t *testing.T) {
		b.t = t
		b.must("run", "--detach", "--bundle", b.bundle("paused", root, nil), "paused")
		b.must("pause", "paused")
		b.must(toFiles([]string{"/bin/sh", "-c", program + "exec --ignore-paused paused echo through >" + b.work +
			"/paused.out 2>&1 & sleep 0.5"})...)
		b.must("resume", "paused")
		b.until("exec after resume", func() bool {
			text, _ := os.ReadFile(filepath.Join(b.work, "paused.out"))
			return string(text) == "through\n"
		})
		b.must("delete", "--force", "paused")
	})

	// Hooks that call the runtime themselves, and delete of a container whose hook never ends.
	asks := filepath.Join(b.work, "asks")
	b.write(asks, "#!/bin/sh\ncat >/dev/null\nfor i in \"$@\"; do "+program+" $i asked; echo \"$i $?\"; done >>"+b.work+"/asked.log 2>&1\n",
		0o755)
	h := func(commands ...string) []specs.Hook {
		return []specs.Hook{{Path: asks, Args: append([]string{"asks"}, commands...), Env: []string{"PATH=/usr/bin:/bin"}}}
	}
	for _, verb := range []string{"create and start", "run --detach"} {
		t.Run("hooks ask, "+verb, func(t *testing.T) {
			b.t = t
			os.Remove(b.work + "/asked.log")
			b.write(filepath.Join(root, "bin/wait"), "#!/bin/sh\nwhile ! [ -e /tmp/go ]; do sleep 0.02; done\n", 0o755)
			dir := b.bundle("asked", root, func(s *specs.Spec) {
				s.Hooks = &specs.Hooks{
					CreateRuntime: h("pause", "update --pids-limit 5", "exec"), Poststart: h("pause", "resume", "update --pids-limit 50"),
					Poststop: h("delete", "delete --force"),
				}
			})
			if verb == "run --detach" {
				b.must("run", "--detach", "--bundle", dir, "asked")
			} else {
				b.must("create", "--bundle", dir, "asked")
				b.must("start", "asked")
			}
			b.must("delete", "--force", "asked")
			text, _ := os.ReadFile(b.work + "/asked.log")
			got := strings.Join(regexp.MustCompile(`(?m)^[a-z-].* \d+$`).FindAllString(string(text), -1), ", ")
			want := "pause 1, update --pids-limit 5 1, exec 255, pause 0, resume 0, update --pids-limit 50 0, delete 1, delete --force 0"
			if got != want {
				t.Errorf("got %s\nwant %s\n%s", got, want, text)
			}
		})
	}

	t.Run("delete while a startContainer hook waits", func(t *testing.T) {
		b.t = t
		b.write(filepath.Join(root, "bin/wait"), "#!/bin/sh\nsleep 1000\n", 0o755)
		dir := b.bundle("waits", root, func(s *specs.Spec) {
			s.Hooks = &specs.Hooks{StartContainer: []specs.Hook{{Path: "/bin/wait", Env: []string{"PATH=/bin"}}}}
		})
		b.must("create", "--bundle", dir, "waits")
		job, err := b.state.host.Go([]string{filepath.Join(run.bin, "glassbox-runtime"), "--root", "/run/oci", "start", "waits"},
			[]string{"PATH=/bin"}, "/", nil)
		must(t, err)
		b.until("the hook", func() bool {
			return strings.Contains(b.must("/bin/ps", "ax"), "sleep 1000")
		})
		if res := b.runtime("start", "waits"); res.Code != 1 || !strings.Contains(res.Stderr, "another command is starting") {
			t.Errorf("a second start: %+v", res)
		}
		b.must("delete", "--force", "waits")
		if res, err := job.Finish(scaled(10 * time.Second)); err != nil || res.Code != 1 {
			t.Errorf("start: %+v, %v", res, err)
		}
	})
}

// TestRuntimeKillCreated sends signals to containers that wait for start. What ends a Go program that doesn't catch it ends runc's
// process there, and others do nothing.
func TestRuntimeKillCreated(t *testing.T) {
	b := startBundles(t, "kill-created")
	dir := b.bundle("b", b.rootfs("root"), nil)
	for _, sig := range []string{"TERM", "INT", "HUP", "QUIT", "ABRT", "SEGV", "KILL", "--all TERM"} {
		b.must("create", "--bundle", dir, "k")
		b.must(append([]string{"kill", "k"}, strings.Fields(sig)...)...)
		b.await("k", "stopped")
		b.must("delete", "k")
	}
	for _, sig := range []string{"USR1", "USR2", "ALRM", "PIPE", "WINCH", "CHLD", "0"} {
		b.must("create", "--bundle", dir, "k")
		b.must("kill", "k", sig)
		time.Sleep(30 * time.Millisecond)
		if s := b.status("k"); s != "created" {
			t.Errorf("%s: got status %s, want created", sig, s)
		}
		b.must("start", "k")
		b.must("delete", "--force", "k")
	}
}

// TestRuntimeTerminalLines looks at line ends where our terminal, or none, is at the other end: "\n" and no more.
func TestRuntimeTerminalLines(t *testing.T) {
	b := startBundles(t, "lines")
	dir := b.bundle("tty", b.rootfs("root"), func(s *specs.Spec) {
		s.Process.Terminal = true
		s.Process.Args = []string{"sh", "-c", "echo one; echo two; sleep 0.2"}
	})
	if res := b.runtime("run", "--bundle", dir, "t"); res.Code != 0 || res.Stdout != "one\ntwo\n" {
		t.Errorf("run: %+v, %q", res, res.Stdout)
	}
	b.must("run", "--detach", "--bundle", b.bundle("plain", b.rootfs("root2"), nil), "p")
	if res := b.runtime("exec", "-t", "p", "sh", "-c", "echo one; echo two; sleep 0.2"); res.Code != 0 || res.Stdout != "one\ntwo\n" {
		t.Errorf("exec -t: %+v", res)
	}
	b.must("delete", "--force", "p")
}

// TestRuntimeEnvironment has names twice, and HOME empty: the last one counts and stands once, and HOME is the user's directory.
func TestRuntimeEnvironment(t *testing.T) {
	b := startBundles(t, "environment")
	root := b.rootfs("root")
	b.write(filepath.Join(root, "etc/passwd"), "root:x:0:0::/root:/bin/sh\nu:x:7:7::/home/u:/bin/sh\n", 0o644)
	for _, c := range []struct {
		env  []string
		want string
	}{
		{[]string{"A=1", "PATH=/nowhere", "B=2", "A=3", "PATH=/bin"}, "B=2 A=3 PATH=/bin HOME=/root "},
		{[]string{"HOME=", "PATH=/bin"}, "PATH=/bin HOME=/root "},
		{[]string{"HOME=/x", "PATH=/bin", "HOME="}, "PATH=/bin HOME=/root "},
		{[]string{"HOME=", "PATH=/bin", "HOME=/x"}, "PATH=/bin HOME=/x "},
	} {
		show := []string{"sh", "-c", "cat /proc/$$/environ | tr '\\0' ' '"}
		os.Symlink("busybox", filepath.Join(root, "bin/tr"))
		dir := b.bundle("env", root, func(s *specs.Spec) { s.Process.Env, s.Process.Args = c.env, show })
		if got := b.must("run", "--bundle", dir, "e"); got != c.want {
			t.Errorf("run with %v: got %q, want %q", c.env, got, c.want)
		}
		dir = b.bundle("env", root, func(s *specs.Spec) { s.Process.Env = []string{"PATH=/bin"} })
		b.must("run", "--detach", "--bundle", dir, "e")
		var args []string
		for _, e := range c.env {
			args = append(args, "--env", e)
		}
		got := b.must(append(append(append([]string{"exec"}, args...), "e"), show...)...)
		if want := strings.Replace(c.want, "PATH=/bin ", "", 1); strings.Replace(got, "PATH=/bin ", "", 1) != want {
			t.Errorf("exec with %v: got %q, want %q", c.env, got, want)
		}
		b.must("delete", "--force", "e")
	}
	dir := b.bundle("env", root, func(s *specs.Spec) { s.Process.Env = []string{"PATH=/bin", "HOME="}; s.Process.User.UID = 7 })
	b.must("run", "--detach", "--bundle", dir, "e")
	if got := b.must("exec", "e", "sh", "-c", "echo $HOME"); got != "/home/u\n" {
		t.Errorf("exec as another user: HOME is %q", got)
	}
	b.must("delete", "--force", "e")
}

// TestRuntimeExecCap: --cap makes a capability ambient where it is inheritable, so that a user's program has it.
func TestRuntimeExecCap(t *testing.T) {
	b := startBundles(t, "exec-cap")
	root := b.rootfs("root")
	os.Symlink("busybox", filepath.Join(root, "bin/grep"))
	for _, c := range []struct {
		inheritable []string
		want        string
	}{
		{nil, "CapEff:\t0000000000000000\nCapAmb:\t0000000000000000\n"},
		{[]string{"CAP_KILL"}, "CapEff:\t0000000000000020\nCapAmb:\t0000000000000020\n"},
	} {
		dir := b.bundle("caps", root, func(s *specs.Spec) {
			s.Process.User.UID, s.Process.User.GID = 1000, 1000
			kill := []string{"CAP_KILL", "CAP_CHOWN"}
			s.Process.Capabilities = &specs.LinuxCapabilities{Bounding: kill, Permitted: kill, Inheritable: c.inheritable}
		})
		b.must("run", "--detach", "--bundle", dir, "c")
		if got := b.must("exec", "--cap", "CAP_KILL", "c", "grep", "-E", "Cap(Eff|Amb)", "/proc/self/status"); got != c.want {
			t.Errorf("inheritable %v: got %q, want %q", c.inheritable, got, c.want)
		}
		b.must("delete", "--force", "c")
	}
}

// TestRuntimeFlagsAfterID gives flags after the container's ID.
func TestRuntimeFlagsAfterID(t *testing.T) {
	b := startBundles(t, "flags-after")
	dir := b.bundle("b", b.rootfs("root"), nil)
	b.must("create", "f", "--bundle", dir, "--pid-file", filepath.Join(b.work, "pid"))
	if _, err := os.Stat(filepath.Join(b.work, "pid")); err != nil {
		t.Error(err)
	}
	b.must("start", "f")
	b.must("update", "f", "--pids-limit", "55")
	if got := b.must("events", "f", "--stats"); !strings.Contains(got, `"limit":55`) {
		t.Errorf("events f --stats: %s", got)
	}
	if got := b.must("ps", "f", "--format", "json"); !regexp.MustCompile(`^\[\d+\]\n$`).MatchString(got) {
		t.Errorf("ps f --format json: %q", got)
	}
	if got := b.must("ps", "f", "-o", "pid,args"); !strings.Contains(got, "sleep 1000") {
		t.Errorf("ps f -o pid,args: %q", got)
	}
	if res := b.runtime("exec", "f", "echo", "--cwd", "/x", "-t"); res.Stdout != "--cwd /x -t\n" {
		t.Errorf("exec takes the program's flags: %+v", res)
	}
	if res := b.runtime("state", "f", "--nothing"); res.Code != 1 || !strings.Contains(res.Stderr, "-nothing") {
		t.Errorf("an unknown flag after the ID: %+v", res)
	}
	if res := b.runtime("state", "--", "--format"); res.Code != 1 || !strings.Contains(res.Stderr, "container does not exist") {
		t.Errorf("an ID after --: %+v", res)
	}
	b.must("kill", "f", "--all", "KILL")
	b.await("f", "stopped")
	b.must("delete", "f", "--force")
	if res := b.runtime("state", "f"); res.Code != 1 {
		t.Errorf("delete f --force: it is there: %+v", res)
	}
}

// TestRuntimeDeleteStranger deletes a container with a process of the host's in its cgroup: at once, with a warning; runc 1.5 takes ten
// seconds and keeps the container.
func TestRuntimeDeleteStranger(t *testing.T) {
	b := startBundles(t, "stranger")
	dir := b.bundle("b", b.rootfs("root"), nil)
	b.must("run", "--detach", "--bundle", dir, "s")
	pid := b.pid("s")
	sleep, err := b.state.host.Go([]string{"/bin/sh", "-c", "cut -d: -f3 /proc/" + pid + "/cgroup | sort -u >/tmp/groups; " +
		`for g in $(cat /tmp/groups); do for f in /sys/fs/cgroup$g/cgroup.procs /sys/fs/cgroup/*$g/cgroup.procs; do [ $g = / ] || [ ! -e $f ` +
		`] || echo $$ >$f; done; done; exec sleep 1000`},
		[]string{"PATH=/usr/bin:/bin"}, "/", nil)
	must(t, err)
	b.until("it in the cgroup", func() bool {
		return strings.Contains(b.must("ps", "s"), "sleep 1000") && strings.Count(b.must("ps", "s"), "sleep 1000") == 2
	})
	begin := time.Now()
	res := b.runtime("delete", "--force", "s")
	if took := time.Since(begin); res.Code != 0 || !strings.Contains(res.Stderr, "level=warning") ||
		!strings.Contains(res.Stderr, "processes: [") || took > scaled(10*time.Second) {
		t.Errorf("after %v: %+v", took, res)
	}
	if res := b.runtime("state", "s"); res.Code != 1 || !strings.Contains(res.Stderr, "container does not exist") {
		t.Errorf("state: %+v", res)
	}
	if err := unix.Kill(sleep.Pid, 0); err == nil {
		sleep.Signal(unix.SIGKILL)
	}
	sleep.Wait()
}

// TestRuntimeParentCgroups: parents that were missing are removed again when they are empty, also after a create that fails.
func TestRuntimeParentCgroups(t *testing.T) {
	b := startBundles(t, "parents")
	root := b.rootfs("root")
	there := func() (found []string) {
		filepath.WalkDir(b.state.host.Path("/sys/fs/cgroup"), func(path string, d fs.DirEntry, err error) error {
			if err == nil && strings.HasPrefix(d.Name(), "parents-of-") {
				found = append(found, path)
			}
			return nil
		})
		return found
	}
	in := func(path string, args ...string) string {
		return b.bundle("p", root, func(s *specs.Spec) {
			s.Linux.CgroupsPath = path
			if args != nil {
				s.Process.Args = args
			}
		})
	}
	b.must("run", "--detach", "--bundle", in("/parents-of-a/b/one"), "one")
	if len(there()) == 0 {
		t.Fatal("no parent was made")
	}
	b.must("run", "--detach", "--bundle", in("/parents-of-a/two"), "two")
	b.must("delete", "--force", "two")
	if len(there()) == 0 {
		t.Fatal("the parent of another container is gone")
	}
	b.must("delete", "--force", "one")
	if left := there(); left != nil {
		t.Errorf("left: %v", left)
	}
	if res := b.runtime("create", "--bundle", in("/parents-of-b/c", "nothing"), "three"); res.Code != 1 {
		t.Errorf("create: %+v", res)
	}
	if left := there(); left != nil {
		t.Errorf("a create that failed left: %v", left)
	}
}

// TestRuntimeSmallHabits are those that take a line each.
func TestRuntimeSmallHabits(t *testing.T) {
	b := startBundles(t, "habits")
	root := b.rootfs("root")
	if got := b.must("/usr/bin/env", filepath.Join(run.bin, "glassbox-runtime"), "list"); !strings.HasPrefix(got, "ID ") {
		t.Errorf("list before there was a container: %q", got)
	}
	if res := b.runtime("--root", "/nowhere", "list"); res.Code != 1 || !strings.Contains(res.Stderr, "--root") ||
		!strings.Contains(res.Stderr, "/nowhere") {
		t.Errorf("list in a directory that isn't there: %+v", res)
	}
	// Without a PID namespace and a cgroup of its own.
	dir := b.bundle("shared", root, func(s *specs.Spec) {
		namespaces := s.Linux.Namespaces[:0]
		for _, n := range s.Linux.Namespaces {
			if n.Type != specs.PIDNamespace {
				namespaces = append(namespaces, n)
			}
		}
		s.Linux.Namespaces = namespaces
		s.Mounts[0] = specs.Mount{Destination: "/proc", Type: "bind", Source: "/proc", Options: []string{"rbind"}}
		s.Linux.Resources, s.Process.Args = nil, []string{"true"}
	})
	b.must("run", "--keep", "--bundle", dir, "shared")
	state := b.state.host.Path("/run/oci/shared/state.json")
	text, err := os.ReadFile(state)
	must(t, err)
	b.write(state, regexp.MustCompile(`"cgroups":\{[^}]*\},`).ReplaceAllString(string(text), ""), 0o600)
	undo := b.state.host.Path("/run/oci/shared/undo.json")
	text, err = os.ReadFile(undo)
	must(t, err)
	b.write(undo, regexp.MustCompile(`"cgroups":\{[^}]*\},`).ReplaceAllString(string(text), ""), 0o600)
	b.must("delete", "shared")

	quiet := b.bundle("quiet", root, func(s *specs.Spec) {
		s.Process.Args = []string{"true"}
		s.Process.Capabilities.Ambient = s.Process.Capabilities.Bounding // as runc 1.1's example
	})
	if res := b.runtime("run", "--bundle", quiet, "q"); res.Code != 0 || res.Stderr != "" {
		t.Errorf("runc 1.1's example: %+v", res)
	}
	if res := b.runtime("--debug", "run", "--bundle", quiet, "q"); strings.Count(res.Stderr, "not inheritable") != 3 {
		t.Errorf("with --debug: %+v", res)
	}
	one, three := int64(1), int64(3)
	denied := b.bundle("denied", root, func(s *specs.Spec) {
		s.Process.Args = []string{"sh", "-c", "echo >/dev/null"}
		s.Linux.Resources.Devices = append(s.Linux.Resources.Devices,
			specs.LinuxDeviceCgroup{Type: "c", Major: &one, Minor: &three, Access: "rwm"})
	})
	if res := b.runtime("run", "--bundle", denied, "q"); res.Code != 0 ||
		!strings.Contains(res.Stderr, "/linux/resources/devices/1: /dev/null is allowed all the same") {
		t.Errorf("a rule that denies /dev/null: %+v", res)
	}
	// The kernel takes a nice value together with any policy; SCHED_IDLE needs no right.
	nice := b.bundle("nice", root, func(s *specs.Spec) {
		s.Process.Args = []string{"true"}
		s.Process.Scheduler = &specs.Scheduler{Policy: specs.SchedIdle, Nice: 5}
	})
	if res := b.runtime("run", "--bundle", nice, "q"); res.Code != 0 ||
		!strings.Contains(res.Stderr, "/process/scheduler/nice: 5 means nothing to SCHED_IDLE") {
		t.Errorf("a nice value beside a policy without one: %+v", res)
	}
	fstab := b.bundle("fstab", root, func(s *specs.Spec) {
		s.Process.Args = []string{"sh", "-c", "grep -c ' /tmp \\| /mnt ' /proc/mounts"}
		s.Mounts = append(s.Mounts, specs.Mount{Destination: "/tmp", Type: "tmpfs", Source: "t", Options: []string{"nofail", "x-a=1", "sync"}},
			specs.Mount{Destination: "/mnt", Type: "bind", Source: "/tmp", Options: []string{"bind", "_netdev", "comment=x"}})
	})
	os.Symlink("busybox", filepath.Join(root, "bin/grep"))
	must(t, os.MkdirAll(filepath.Join(root, "mnt"), 0o755))
	if res := b.runtime("run", "--bundle", fstab, "q"); res.Code != 0 || res.Stdout != "2\n" ||
		strings.Count(res.Stderr, "word of /etc/fstab") != 4 {
		t.Errorf("words of fstab: %+v", res)
	}
	red := filepath.Join(b.work, "red")
	b.write(red, "#!/bin/sh\nprintf '\\033[31mred' >&2; exit 1\n", 0o755)
	hooked := b.bundle("hooked", root, func(s *specs.Spec) { s.Hooks = &specs.Hooks{CreateRuntime: []specs.Hook{{Path: red}}} })
	for _, flags := range [][]string{nil, {"--log", filepath.Join(b.work, "log")}, {"--log-format", "json"}} {
		res := b.runtime(append(flags, "run", "--bundle", hooked, "q")...)
		if res.Code != 1 || strings.Contains(res.Stderr, "\x1b") || strings.Contains(res.Stderr, `\u001b`) ||
			!strings.Contains(res.Stderr, `x1b[31mred`) {
			t.Errorf("%v: control characters in a hook's words: %+v", flags, res)
		}
	}
	unmapped := b.bundle("unmapped", root, func(s *specs.Spec) {
		s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: specs.UserNamespace})
	})
	if res := b.runtime("run", "--bundle", unmapped, "q"); res.Code != 1 || !strings.Contains(res.Stderr, "/linux/uidMappings: missing") {
		t.Errorf("a user namespace without mappings: %+v", res)
	}
}

// TestRuntimeKilledBeforeStart starts containers that are gone already, as the sandboxes of Kubernetes' pods are whose limit is too small.
func TestRuntimeKilledBeforeStart(t *testing.T) {
	b := startBundles(t, "early")
	root := b.rootfs("root")
	first, limit := 1000, int64(24<<20)
	dir := b.bundle("early", root, func(s *specs.Spec) {
		s.Process.OOMScoreAdj = &first
		s.Linux.Resources.Memory = &specs.LinuxMemory{Limit: &limit}
	})
	b.must("create", "--bundle", dir, "early")
	// Files in a tmpfs are memory of the cgroup; they stay when who wrote them is killed, which here is the second one.
	process := filepath.Join(b.work, "process.json")
	b.write(process, `{"args":["sh","-c","cat /dev/zero >/dev/shm/x"],"cwd":"/","env":["PATH=/bin"],`+
		`"user":{"uid":0,"gid":0},"oomScoreAdj":0}`, 0o644)
	b.runtime("exec", "--process", process, "early")
	b.await("early", "stopped")
	b.fails("early", []string{"start", "early"}, 1,
		`cannot start a container that has stopped: it was OOM-killed: the memory limit of the cgroup /sys/fs/cgroup/.*early.* is too small`)
	b.must("delete", "early")

	b.must("create", "--bundle", dir, "killed")
	b.must("kill", "killed", "KILL")
	b.await("killed", "stopped")
	b.fails("killed", []string{"start", "killed"}, 1, `cannot start a container that has stopped\s*$`)
	b.must("delete", "killed")
}
