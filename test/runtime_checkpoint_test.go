package test

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"glassbox/test/machine"
)

// counter reads the file in which a container counts.
func counter(t *testing.T, file string) int {
	t.Helper()
	for end := time.Now().Add(scaled(15 * time.Second)); ; time.Sleep(20 * time.Millisecond) {
		data, _ := os.ReadFile(file)
		if n, err := strconv.Atoi(strings.TrimSpace(string(data))); err == nil {
			return n
		}
		if time.Now().After(end) {
			t.Fatalf("%s: got %q, want a number", file, data)
		}
	}
}

// beyond waits until a container has counted beyond n.
func beyond(t *testing.T, file string, n int) {
	t.Helper()
	for end := time.Now().Add(scaled(15 * time.Second)); counter(t, file) <= n; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s: got %d, want more than %d", file, counter(t, file), n)
		}
	}
}

// TestRuntimeCheckpoint writes a container that counts into files and brings it back, under another name and with other streams.
// Where criu doesn't work, it looks at the error that says so.
func TestRuntimeCheckpoint(t *testing.T) {
	b := startBundles(t, "checkpoint")
	root := b.rootfs("root")
	source := filepath.Join(b.work, "source")
	os.MkdirAll(source, 0o755)
	b.write(filepath.Join(source, "file"), "of the host\n", 0o644)
	// Criu 3 loses the flag, which is an error then, and so the rest is tried without it.
	version, _ := exec.Command("criu", "--version").Output()
	old := strings.HasPrefix(string(version), "Version: 3.")
	dir := b.counting(root, source, old)
	os.Symlink("busybox", filepath.Join(root, "bin/mv"))
	os.Symlink("tmp", filepath.Join(root, "link"))
	count := filepath.Join(root, "tmp/count")
	images := filepath.Join(b.work, "images")
	runtime := filepath.Join(run.bin, "glassbox-runtime") + " --root /run/oci "
	before, err := b.state.settled()
	if err != nil {
		t.Fatal(err)
	}
	b.state.before = &before

	b.checkpointErrors(dir, root, images)
	b.must("/bin/sh", "-c", runtime+"run -d -b "+dir+" count </dev/null | head -n 1000000 >"+b.work+"/out &")
	b.await("count", "running")
	beyond(t, count, 2)

	b.wrong("criu", "/bin/sh", "-c", "PATH=/nowhere "+runtime+"checkpoint --image-path "+images+" count")
	if res := b.runtime("/bin/sh", "-c", "PATH=/nowhere "+runtime+"checkpoint count"); !strings.Contains(res.Stderr,
		"criu is not installed") || !strings.Contains(res.Stderr, "package") {
		t.Errorf("without criu: %s", res.Stderr)
	}
	if res := b.runtime("/bin/sh", "-c", "criu check"); res.Code != 0 {
		want := `criu is installed but doesn't work on this kernel: criu check: `
		if res.Code == 127 {
			want = "criu is not installed"
		}
		b.wrong(want, "checkpoint", "--image-path", images, "count")
		n := counter(t, count)
		beyond(t, count, n) // it hasn't been harmed
		b.wrong("criu|images", "restore", "-d", "-b", dir, "--image-path", images, "other")
		b.must("delete", "-f", "count")
		if left, err := b.state.leaked(); err != nil || left != "" {
			t.Errorf("%v\n%s", err, left)
		}
		t.Skipf("criu doesn't work here, so its errors were tried only: %s", strings.TrimSpace(res.Stdout+res.Stderr))
	}

	// mounts are those that the container sees, without what differs between two containers.
	mounts := func(id string) []string {
		var lines []string
		for line := range strings.Lines(b.must("exec", id, "cat", "/proc/self/mountinfo")) {
			f := strings.Fields(line)
			lines = append(lines, strings.ReplaceAll(f[3], "/"+id, "/ID")+" "+f[4]+" "+f[5])
		}
		slices.Sort(lines)
		return lines
	}
	want := mounts("count")
	b.must("/bin/sh", "-c", runtime+"exec -d count sleep 1000 </dev/null >/dev/null 2>&1")
	if res := b.runtime("checkpoint", "--image-path", filepath.Join(b.work, "left"), "--leave-running", "count"); res.Code != 0 ||
		!strings.Contains(res.Stderr, "was started in the container by exec: it is not part of the checkpoint") {
		t.Errorf("checkpoint --leave-running: %+v", res)
	}
	n := counter(t, count)
	beyond(t, count, n)
	b.must("checkpoint", "--image-path", images, "--work-path", filepath.Join(b.work, "logs"), "count")
	n = counter(t, count)
	if got := b.must("list", "-q"); got != "" {
		t.Errorf("left after the checkpoint: %s", got)
	}
	if left, err := b.state.leaked(); err != nil || left != "" {
		t.Errorf("after the checkpoint: %v\n%s", err, left)
	}
	if _, err := os.Stat(filepath.Join(b.work, "logs/dump.log")); err != nil {
		t.Error(err)
	}

	pidFile := filepath.Join(b.work, "pid")
	b.must("/bin/sh", "-c", runtime+"restore -d -b "+dir+" --image-path "+images+" --pid-file "+pidFile+" other </dev/null 2>&1 | head "+
		"-n 1000000 >"+b.work+"/out2 & sleep 0.1")
	b.until("a restored container", func() bool { return b.must("list", "-q") != "" })
	b.await("other", "running")
	beyond(t, count, n)
	if out, _ := os.ReadFile(b.work + "/out2"); len(out) > 0 && !strings.HasPrefix(string(out), strconv.Itoa(n)+"\n") &&
		!strings.HasPrefix(string(out), strconv.Itoa(n+1)+"\n") {
		t.Errorf("the output doesn't go on after %d: %.20q", n, out)
	}
	pid, _ := os.ReadFile(pidFile)
	if got := b.must("state", "other"); !strings.Contains(got, `"pid": `+string(pid)+",") || len(pid) == 0 {
		t.Errorf("got state %s with pid file %q", got, pid)
	}
	if got := mounts("other"); !slices.Equal(got, want) {
		t.Errorf("got mounts\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if got := b.must("exec", "other", "cat", "/link/data/file"); got != "of the host\n" {
		t.Errorf("in the bind mount: %q", got)
	}
	if res := b.runtime("exec", "other", "touch", "/link/data/file"); res.Code == 0 {
		t.Error("a read-only mount can be written to")
	}
	b.restored(string(pid), old)
	b.writtenAgain(dir, count, runtime)
	b.strangers(dir, root, images, source, old)
	if left, err := b.state.leaked(); err != nil || left != "" {
		t.Errorf("%v\n%s", err, left)
	}
}

// writtenAgain writes a container that was restored, while it is paused, and brings it back in the foreground.
func (b *bundles) writtenAgain(dir, count, runtime string) {
	t := b.t
	b.must("pause", "other")
	if s := b.status("other"); s != "paused" {
		t.Errorf("got status %s, want paused", s)
	}
	// A restored and paused container can be written again.
	b.must("checkpoint", "--image-path", filepath.Join(b.work, "again"), "other")
	n := counter(t, count)
	res := b.runtime("/bin/sh", "-c",
		runtime+"restore -b "+dir+" --image-path "+b.work+"/again third & while ! "+runtime+"state third >/dev/null 2>&1; do sleep 0.1; "+
			"done; sleep 0.3; "+runtime+"resume third >/dev/null 2>&1; sleep 0.3; "+runtime+"kill third KILL; wait $!")
	if res.Code != 137 {
		t.Errorf("restore in the foreground: %+v", res)
	}
	beyond(t, count, n)
	if got := b.must("list", "-q"); got != "" {
		t.Errorf("left: %s", got)
	}
}

// restored looks at what the restored process may do, which is what it could do before.
func (b *bundles) restored(pid string, old bool) {
	t := b.t
	t.Helper()
	if got := b.must("events", "--stats", "other"); !strings.Contains(got, `"limit":50`) {
		t.Errorf("the limit of processes is gone: %s", got)
	}
	if got := b.must("/bin/sh", "-c", "grep -E 'CapEff|CapBnd|NoNewPrivs|Seccomp:' /proc/"+pid+"/status"); !strings.Contains(got,
		"CapEff:\t0000000020000420") || !old && !strings.Contains(got, "NoNewPrivs:\t1") {
		t.Errorf("privileges: %s", got)
	}
	if got := b.must("/bin/sh", "-c",
		"ls /proc/"+pid+"/fd | sort -n | tr '\\n' ' '"); !regexp.MustCompile(`^0 1 2 (10 )?$`).MatchString(got) {
		t.Errorf("descriptors of the restored process: %s", got)
	}
}

// strangers are images that don't belong to the configuration, or not to this criu.
func (b *bundles) strangers(dir, root, images, source string, old bool) {
	b.t.Helper()
	runtime := filepath.Join(run.bin, "glassbox-runtime") + " --root /run/oci "
	if old {
		keep := b.bundle("keep", root, nil)
		b.must("/bin/sh", "-c", runtime+"run -d -b "+keep+" keep </dev/null >/dev/null 2>&1")
		b.must("checkpoint", "--image-path", filepath.Join(b.work, "kept"), "keep")
		b.wrong("/process/noNewPrivileges: this criu has restored process [0-9]+ without it", "/bin/sh", "-c",
			runtime+"--log "+b.work+"/log restore -d -b "+keep+" --image-path "+b.work+"/kept keep </dev/null >/dev/null 2>&1; "+
				"code=$?; cat "+b.work+"/log >&2; exit $code")
	}
	b.wrong("descriptor 0 was a file", "/bin/sh", "-c", "true | "+runtime+"restore -b "+dir+" --image-path "+images+" fourth")
	none := b.bundle("none", root, nil)
	b.wrong("/process/terminal: the checkpoint has no terminal", "/bin/sh", "-c",
		runtime+"restore -b "+b.bundle("terminal", root, func(s *specs.Spec) {
			s.Process.Terminal, s.Process.NoNewPrivileges = true, !old
			s.Mounts = append(s.Mounts, specs.Mount{Destination: "/link/data", Type: "bind", Source: source, Options: []string{"rbind", "ro"}})
		})+" --image-path "+images+" fourth </dev/null 2>&1 >/dev/null | cat >&2; exit 1")
	b.wrong("/mounts: the checkpoint has a bind mount on /link/data, and the configuration has none", "restore", "-b", none, "--image-path",
		images, "fourth")
	os.Remove(filepath.Join(images, "inventory.img"))
	b.wrong("criu restore: .*its log is .*restore.log", "restore", "-b", dir, "--image-path", images, "fourth")
}

// counting is a bundle whose program counts, in a file and on its standard output.
func (b *bundles) counting(root, source string, old bool) string {
	pids := int64(50)
	return b.bundle("count", root, func(s *specs.Spec) {
		s.Process.Args = []string{
			"sh", "-c",
			"i=0; while :; do i=$((i+1)); echo $i; echo $i > /tmp/new; mv /tmp/new /tmp/count; sleep 0.05; done",
		}
		s.Root.Readonly = false
		s.Process.NoNewPrivileges = !old
		s.Mounts = append(s.Mounts, specs.Mount{Destination: "/link/data", Type: "bind", Source: source, Options: []string{"rbind", "ro"}})
		s.Linux.Resources.Pids = &specs.LinuxPids{Limit: &pids}
	})
}

// wrong calls the runtime with what must be refused.
func (b *bundles) wrong(want string, args ...string) {
	b.t.Helper()
	if res := b.runtime(args...); res.Code != 1 || !regexp.MustCompile(want).MatchString(res.Stderr) {
		b.t.Errorf("%s: got exit code %d and %s, want 1 and %s", strings.Join(args, " "), res.Code, res.Stderr, want)
	}
}

// checkpointErrors are those that don't take criu to be seen.
func (b *bundles) checkpointErrors(dir, root, images string) {
	b.t.Helper()
	b.must("create", "-b", dir, "count")
	b.wrong("cannot checkpoint a container that is created", "checkpoint", "--image-path", images, "count")
	b.wrong("--console-socket: cannot use console socket", "restore", "-d", "-b", dir, "--console-socket", "/x", "other")
	b.wrong("/process/terminal: .*give --console-socket", "restore", "-d", "-b",
		b.bundle("terminal", root, func(s *specs.Spec) { s.Process.Terminal = true }), "other")
	b.wrong(`--manage-cgroups-mode: .*x.* is not one of`, "restore", "-d", "-b", dir, "--manage-cgroups-mode", "x", "--image-path", b.work,
		"other")
	b.wrong("--manage-cgroups-mode: strict", "restore", "-b", dir, "--manage-cgroups-mode", "strict", "--image-path", b.work, "other")
	b.wrong("/annotations/org.criu.config: ", "restore", "-b", b.bundle("annotated", root, func(s *specs.Spec) {
		s.Annotations = map[string]string{"org.criu.config": "/nowhere"}
	}), "--image-path", b.work, "other")
	b.wrong("does not exist", "checkpoint", "nobody")
	b.must("delete", "-f", "count")
}

// checkpoints prepares a test for which criu has to work: a bundle of a container that counts, and what waits until it has gone on.
func checkpoints(t *testing.T, name string) (b *bundles, bundle func(name string, edit func(*specs.Spec)) string,
	goesOn func(name string),
) {
	t.Helper()
	if out, err := exec.Command("criu", "check").CombinedOutput(); err != nil {
		t.Skipf("criu doesn't work here: %v: %s", err, out)
	}
	b = startBundles(t, name)
	root := func(name string) string { return filepath.Join(b.work, "root-"+name) }
	bundle = func(name string, edit func(*specs.Spec)) string {
		os.Symlink("busybox", filepath.Join(b.rootfs("root-"+name), "bin/mv"))
		return b.bundle(name, root(name), func(s *specs.Spec) {
			s.Process.Args = []string{
				"sh", "-c",
				"i=0; while :; do i=$((i+1)); echo n $i; echo $i >/tmp/new; mv /tmp/new /tmp/count; sleep 0.05; done",
			}
			s.Root.Readonly = false
			s.Process.NoNewPrivileges = false // criu 3 loses it
			edit(s)
		})
	}
	return b, bundle, func(name string) {
		t.Helper()
		file := filepath.Join(root(name), "tmp/count")
		beyond(t, file, counter(t, file))
	}
}

// terminal calls a command of the runtime that hands a terminal over, and waits for what a container writes there.
func (b *bundles) terminal(args ...string) {
	b.t.Helper()
	path := filepath.Join(b.work, "console")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		b.t.Fatal(err)
	}
	defer l.Close()
	if args[0] == "/bin/sh" {
		b.must(append(args, path)...)
	} else {
		b.must(append([]string{args[0], "--console-socket", path}, args[1:]...)...)
	}
	_, fd, err := receive(l)
	must(b.t, err)
	buf := make([]byte, 1000)
	master := os.NewFile(uintptr(fd), "master")
	b.t.Cleanup(func() { master.Close() })
	if n, err := master.Read(buf); err != nil || !strings.HasPrefix(string(buf[:n]), "n") {
		b.t.Errorf("%s: from the terminal: %q, %v", strings.Join(args, " "), buf[:n], err)
	}
}

// others is a process with an ipc and a uts namespace that a container shares, and a hook that writes down what it gets.
type others struct {
	*bundles
	pid, hook, log string
	fail           string // where this is, the hook fails
}

func (b *bundles) others() *others {
	b.t.Helper()
	o := &others{bundles: b, hook: filepath.Join(b.work, "hook"), log: filepath.Join(b.work, "log"), fail: filepath.Join(b.work, "fail")}
	b.write(o.hook, "#!/bin/sh\ncat >>"+o.log+"; echo >>"+o.log+"; echo no such luck; ! [ -e "+o.fail+" ]\n", 0o755)
	o.pid = strings.TrimSpace(b.must("/bin/sh", "-c",
		"unshare -iu sh -c 'hostname other; echo $$; exec sleep 1000 >/dev/null 2>&1' </dev/null &"))
	return o
}

func (o *others) end() { o.must("/bin/kill", o.pid) }

// share makes a container of theirs, with the hook and a terminal.
func (o *others) share(s *specs.Spec) {
	s.Process.Terminal = true
	s.Hooks = &specs.Hooks{CreateRuntime: []specs.Hook{{Path: o.hook, Env: []string{"PATH=/usr/bin:/bin"}}}}
	for _, kind := range []specs.LinuxNamespaceType{"ipc", "uts"} {
		namespace(kind, "/proc/"+o.pid+"/ns/"+string(kind))(s)
	}
}

// failed is the error of a container whose hook has failed.
func (o *others) failed() string {
	return "/hooks/createRuntime/0: run " + o.hook + ": exit status 1: no such luck"
}

// has says what is wrong about a restored container that shares theirs, after so many calls of the hook.
func (o *others) has(pid string, calls int) {
	o.t.Helper()
	for _, kind := range []string{"ipc", "uts"} {
		if got, want := o.must("/bin/readlink", "/proc/"+pid+"/ns/"+kind), o.must("/bin/readlink", "/proc/"+o.pid+"/ns/"+kind); got != want {
			o.t.Errorf("got %s, want %s", got, want)
		}
	}
	if text, _ := os.ReadFile(o.log); !strings.Contains(string(text), `"pid":`+pid) ||
		strings.Count(string(text), `"status":"creating"`) != calls {
		o.t.Errorf("hooks got\n%swant %d times creating, at last with pid %s", text, calls, pid)
	}
}

// TestRuntimeRestoreAsks plays criu (test/prog/criu.go), which asks while it restores: about hooks, a terminal, and whether what it
// has made is the container. It runs everywhere, and says nothing of what the real one makes.
func TestRuntimeRestoreAsks(t *testing.T) {
	b := startBundles(t, "asks")
	root := b.rootfs("root")
	fake, images := filepath.Join(b.work, "fake"), filepath.Join(b.work, "images")
	os.Mkdir(fake, 0o755)
	os.Symlink(run.set.Prog(), filepath.Join(fake, "criu"))
	others := b.others()
	defer others.end()
	bundle := func(name string, edit func(*specs.Spec)) string {
		return b.bundle(name, root, func(s *specs.Spec) {
			s.Process.Args = []string{"sh", "-c", "while :; do echo n; sleep 0.1; done"}
			s.Process.NoNewPrivileges = false
			others.share(s)
			if edit != nil {
				edit(s)
			}
		})
	}
	dir := bundle("asked", nil)
	runtime := filepath.Join(run.bin, "glassbox-runtime") + " --root /run/oci "
	before := "PATH=" + fake + ":$PATH FAKE_CLONE=" + strconv.Itoa(unix.CLONE_NEWNS|unix.CLONE_NEWPID|unix.CLONE_NEWNET) +
		" FAKE_ARGV='while :; do echo n; sleep 0.1; done' "
	restore := func(env, flags string) machine.Result {
		t.Helper()
		return b.runtime("/bin/sh", "-c", before+env+" timeout -s KILL 10 "+runtime+"restore --image-path "+images+" "+flags+" asked </dev/null")
	}
	b.terminal("run", "-d", "-b", dir, "asked")
	b.must("/bin/sh", "-c", before+runtime+"checkpoint --pre-dump --image-path "+images+"/pre asked")
	if res := b.runtime("/bin/sh", "-c", before+runtime+"checkpoint --lazy-pages --image-path "+images+" asked"); res.Code != 1 ||
		!strings.Contains(res.Stderr, "--lazy-pages: criu can't do it here") {
		t.Errorf("checkpoint --lazy-pages: %+v", res)
	}
	b.must("/bin/sh", "-c", before+runtime+"checkpoint --image-path "+images+" asked")
	if got := b.must("list", "-q"); got != "" {
		t.Errorf("left after the checkpoint: %s", got)
	}
	clean, err := b.state.settled()
	if err != nil {
		t.Fatal(err)
	}
	b.state.before = &clean
	terminal := "FAKE_TERMINAL=1"
	for _, tt := range []struct{ name, env, flags, want string }{
		{"a hook fails", terminal + " A=$(touch " + others.fail + ")", "-b " + dir, others.failed()},
		{"no terminal", "A=$(rm " + others.fail + ")", "-b " + dir, "/process/terminal: the checkpoint has no terminal"},
		{
			"a terminal too many", terminal, "-b " + bundle("none", func(s *specs.Spec) { s.Process.Terminal = false }),
			"/process/terminal: the checkpoint has a terminal, and the configuration has none",
		},
		{
			"privileges", terminal, "-b " + bundle("privileges", func(s *specs.Spec) { s.Process.NoNewPrivileges = true }),
			"/process/noNewPrivileges: this criu has restored process",
		},
		{
			"no network namespace", terminal + " FAKE_CLONE=" + strconv.Itoa(unix.CLONE_NEWNS|unix.CLONE_NEWPID), "-b " + dir,
			"the checkpoint has no net namespace of its own",
		},
		{
			"not shared", terminal + " FAKE_CLONE=" + strconv.Itoa(unix.CLONE_NEWNS|unix.CLONE_NEWPID|unix.CLONE_NEWNET|unix.CLONE_NEWUTS),
			"-b " + dir, "criu has not restored the process into the uts namespace of others",
		},
		{"not to be shared", terminal, "-b " + bundle("own", func(s *specs.Spec) {
			for i := range s.Linux.Namespaces {
				s.Linux.Namespaces[i].Path = ""
			}
		}), "the checkpoint shares the "},
		{"a crash", "FAKE_CLONE=x", "-b " + dir, "criu restore: criu"},
	} {
		if res := restore(tt.env, tt.flags); res.Code != 1 || !strings.Contains(res.Stderr, tt.want) {
			t.Errorf("%s: got %+v, want an error with %s", tt.name, res, tt.want)
		}
		if left, err := b.state.leaked(); err != nil || left != "" {
			t.Errorf("%s: %v\n%s", tt.name, err, left)
		}
	}
	os.Remove(others.log)
	b.terminal("/bin/sh", "-c",
		before+terminal+" "+runtime+"restore -d -b "+dir+" --image-path "+images+" --pid-file "+b.work+"/pid --console-socket $0 asked "+
			"</dev/null >/dev/null")
	pid := b.pid("asked")
	if got, _ := os.ReadFile(b.work + "/pid"); string(got) != pid || b.status("asked") != "running" {
		t.Errorf("state says %s, %s, the pid file %s", pid, b.status("asked"), got)
	}
	others.has(pid, 1)
	if got := b.must("/bin/cat", "/proc/"+pid+"/net/fib_trie"); !strings.Contains(got, "127.0.0.0") {
		t.Errorf("the loopback device isn't up: %s", got)
	}
	b.must("delete", "-f", "asked")
	if res := restore(terminal+" FAKE_ARGV='sleep 0.3; echo n; exit 7'", "-b "+dir); res.Code != 7 || !strings.Contains(res.Stdout, "n") {
		t.Errorf("restore in the foreground: %+v", res)
	}
	if left, err := b.state.leaked(); err != nil || left != "" {
		t.Errorf("%v\n%s", err, left)
	}
}

// TestRuntimeCheckpointTerminal brings back what criu asks the runtime for: a terminal goes over a socket, hooks run again and have the
// last word, and the container shares the namespaces of others as before.
func TestRuntimeCheckpointTerminal(t *testing.T) {
	b, bundle, goesOn := checkpoints(t, "terminal")
	images, others := filepath.Join(b.work, "images"), b.others()
	defer others.end()
	dir := bundle("terminal", func(s *specs.Spec) {
		others.share(s)
		s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: specs.CgroupNamespace})
	})
	b.terminal("run", "-d", "-b", dir, "terminal")
	goesOn("terminal")
	b.must("checkpoint", "--manage-cgroups-mode", "ignore", "--image-path", images, "terminal")
	b.write(others.fail, "", 0o644)
	res := b.runtime("/bin/sh", "-c", filepath.Join(run.bin,
		"glassbox-runtime")+" --root /run/oci restore -b "+dir+" --image-path "+images+" terminal </dev/null")
	if res.Code != 1 || !strings.Contains(res.Stderr, others.failed()) {
		t.Errorf("restore with a hook that fails: %+v", res)
	}
	if got := b.must("list", "-q"); got != "" {
		t.Errorf("left: %s", got)
	}
	os.Remove(others.fail)
	b.terminal("restore", "-d", "-b", dir, "--manage-cgroups-mode", "ignore", "--image-path", images, "terminal")
	goesOn("terminal")
	for line := range strings.Lines(b.must("exec", "terminal", "cat", "/proc/1/cgroup")) {
		if !strings.HasSuffix(line, ":/\n") {
			t.Errorf("the container sees the cgroup tree of the host: %s", line)
		}
	}
	if got := b.must("exec", "terminal", "hostname"); got != "other\n" {
		t.Errorf("the host name is %q, want the other's", got)
	}
	pid := b.pid("terminal")
	others.has(pid, 3)
	if got := b.must("exec", "terminal", "cat", "/sys/class/net/lo/flags"); got != "0x9\n" {
		t.Errorf("the loopback device has flags %s, want up", got)
	}
	b.must("delete", "-f", "terminal")
}

// TestRuntimeCheckpointUsers moves a container in a user namespace in three steps, where the kernel can: twice its memory, then itself.
// A part of the host is mounted there, which the container's root has no way to.
func TestRuntimeCheckpointUsers(t *testing.T) {
	b, bundle, goesOn := checkpoints(t, "users")
	source := filepath.Join(b.work, "closed", "source")
	os.MkdirAll(source, 0o755)
	os.Chmod(filepath.Dir(source), 0o700)
	b.write(filepath.Join(source, "file"), "of the host\n", 0o644)
	dir := bundle("users", func(s *specs.Spec) {
		s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: specs.UserNamespace})
		s.Linux.UIDMappings = []specs.LinuxIDMapping{{HostID: 100000, Size: 65536}}
		s.Linux.GIDMappings = s.Linux.UIDMappings
		s.Mounts = append(s.Mounts, specs.Mount{Destination: "/data", Type: "bind", Source: source, Options: []string{"bind", "ro"}}, specs.Mount{
			Destination: "/mapped", Type: "bind", Source: source, Options: []string{"bind"}, UIDMappings: s.Linux.UIDMappings,
			GIDMappings: s.Linux.GIDMappings,
		})
	})
	b.must("/bin/chown", "-R", "100000:100000", filepath.Join(b.work, "root-users"))
	runtime := filepath.Join(run.bin, "glassbox-runtime") + " --root /run/oci "
	b.must("/bin/sh", "-c", runtime+"run -d -b "+dir+" users </dev/null >/dev/null 2>&1")
	goesOn("users")
	last := []string{"checkpoint", "--image-path", filepath.Join(b.work, "last"), "users"}
	if res := b.runtime("checkpoint", "--pre-dump", "--image-path", filepath.Join(b.work, "first"), "users"); res.Code == 0 {
		b.must("checkpoint", "--pre-dump", "--image-path", filepath.Join(b.work, "second"), "--parent-path", "../first", "users")
		goesOn("users")
		last = append([]string{"checkpoint", "--parent-path", "../second"}, last[1:]...)
	} else if !strings.Contains(res.Stderr, "a kernel with CONFIG_MEM_SOFT_DIRTY") {
		t.Errorf("checkpoint --pre-dump: %+v", res)
	}
	b.must(last...)
	b.must("/bin/sh", "-c", runtime+"--log "+b.work+"/log restore -d -b "+dir+" --image-path "+b.work+"/last users </dev/null >/dev/null "+
		"2>&1 || { cat "+b.work+"/log; exit 1; }")
	goesOn("users")
	if got := b.must("/bin/cat", "/proc/"+b.pid("users")+"/uid_map"); strings.Join(strings.Fields(got), " ") != "0 100000 65536" {
		t.Errorf("mapped ids: %s", got)
	}
	if got := b.must("exec", "users", "ls", "-ln", "/mapped/file", "/data/file"); !strings.Contains(got, " 0        0 ") ||
		!strings.Contains(got, " 65534    65534 ") {
		t.Errorf("files belong to\n%swant 0 in the mount with ids of its own, and else nobody", got)
	}
	if got := b.must("exec", "users", "cat", "/data/file"); got != "of the host\n" {
		t.Errorf("in the bind mount: %q", got)
	}
	if st, err := os.Stat(filepath.Join(b.work, "last")); err != nil || st.Mode().Perm() != 0o700 {
		t.Errorf("the images are open to others afterwards: %v, %v", st.Mode(), err)
	}
	b.must("delete", "-f", "users")
}
