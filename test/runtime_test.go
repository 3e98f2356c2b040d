package test

import (
	"encoding/json"
	"fmt"
	"io/fs"
	"maps"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"glassbox/oci"
	"glassbox/test/machine"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// bundles is a machine in which glassbox-runtime is called with bundles, as an engine would.
type bundles struct {
	t     *testing.T
	state *state
	work  string // directory of bundles
	bin   string // directory of programs for root file systems
}

func startBundles(t *testing.T, name string) *bundles {
	prepare(t)
	t.Parallel()
	work := t.TempDir()
	host, err := machine.Start(name, filepath.Join(work, "machine"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { host.Close() })
	b := &bundles{t: t, state: &state{host: host, work: work}, work: filepath.Join(work, "bundles")}
	b.findPrograms()
	if err := os.MkdirAll(b.work, 0o755); err != nil {
		t.Fatal(err)
	}
	return b
}

// findPrograms finds the programs of the busybox image.
func (b *bundles) findPrograms() {
	seed, err := run.seed.get()
	if err != nil {
		b.t.Fatal(err)
	}
	err = filepath.WalkDir(seed, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.Name() == "busybox" && d.Type().IsRegular() {
			b.bin = filepath.Dir(path)
			return filepath.SkipAll
		}
		return err
	})
	if err != nil || b.bin == "" {
		b.t.Fatalf("no busybox in the image: %v", err)
	}
}

// rootfs makes a root file system.
func (b *bundles) rootfs(name string) string {
	dir := filepath.Join(b.work, name)
	for _, d := range []string{"bin", "dev", "proc", "sys", "tmp", "etc"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			b.t.Fatal(err)
		}
	}
	data, err := os.ReadFile(filepath.Join(b.bin, "busybox"))
	if err != nil {
		b.t.Fatal(err)
	}
	b.write(filepath.Join(dir, "bin/busybox"), string(data), 0o755)
	for _, name := range []string{
		"sh", "true", "false", "sleep", "cat", "echo", "id", "ls", "ps", "kill", "test", "mount", "hostname",
		"readlink", "touch", "env", "pwd",
	} {
		os.Symlink("busybox", filepath.Join(dir, "bin", name))
	}
	return dir
}

func (b *bundles) write(path, text string, mode os.FileMode) {
	b.t.Helper()
	if err := os.WriteFile(path, []byte(text), mode); err != nil {
		b.t.Fatal(err)
	}
	os.Chmod(path, mode)
}

// bundle writes a bundle with the example configuration, changed by edit.
func (b *bundles) bundle(name, rootfs string, edit func(*specs.Spec)) string {
	b.t.Helper()
	s := oci.Default(oci.DefaultOptions{})
	s.Process.Terminal = false
	s.Process.Args = []string{"sleep", "1000"}
	s.Process.Rlimits = nil
	s.Root.Path = rootfs
	if edit != nil {
		edit(s)
	}
	data, err := json.Marshal(s)
	if err != nil {
		b.t.Fatal(err)
	}
	dir := filepath.Join(b.work, name)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		b.t.Fatal(err)
	}
	b.write(filepath.Join(dir, "config.json"), string(data), 0o644)
	return dir
}

// runtime calls glassbox-runtime, or any program if the first argument is one's path.
func (b *bundles) runtime(args ...string) machine.Result {
	b.t.Helper()
	if !strings.HasPrefix(args[0], "/") {
		stays := slices.Contains(args, "create") || slices.Contains(args, "-d") || slices.Contains(args, "--detach")
		args = append([]string{filepath.Join(run.bin, "glassbox-runtime"), "--root", "/run/oci"}, args...)
		if stays {
			args = toFiles(args)
		}
	}
	res, err := b.state.host.Run(scaled(20*time.Second), args,
		[]string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}, b.work)
	if err != nil {
		b.t.Fatalf("%s: %v", strings.Join(args, " "), err)
	}
	return res
}

// receive waits for somebody who sends a message with one descriptor.
func receive(l *net.UnixListener) (data []byte, fd int, err error) {
	l.SetDeadline(time.Now().Add(scaled(20 * time.Second)))
	c, err := l.AcceptUnix()
	if err != nil {
		return nil, -1, err
	}
	defer c.Close()
	data, oob := make([]byte, 64<<10), make([]byte, 100)
	n, m, _, _, err := c.ReadMsgUnix(data, oob)
	if err != nil {
		return nil, -1, err
	}
	fd, err = descriptor(oob[:m])
	return data[:n], fd, err
}

// descriptor is the one that came with a message.
func descriptor(oob []byte) (int, error) {
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil || len(messages) != 1 {
		return -1, fmt.Errorf("%d messages about descriptors: %v", len(messages), err)
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil || len(fds) != 1 {
		return -1, fmt.Errorf("%d descriptors: %v", len(fds), err)
	}
	return fds[0], nil
}

// toFiles is a command whose output goes through files: a container that stays keeps it open, and a pipe would be waited for.
func toFiles(argv []string) []string {
	return append([]string{
		"/bin/sh", "-c",
		`out=$(mktemp) && err=$(mktemp) && { "$@" >"$out" 2>"$err"; code=$?; cat "$out"; cat "$err" >&2; rm "$out" "$err"; exit $code; }`, "sh",
	},
		argv...)
}

// until waits for something that takes a moment.
func (b *bundles) until(what string, done func() bool) {
	b.t.Helper()
	until(b.t, what, done)
}

func (b *bundles) must(args ...string) string {
	b.t.Helper()
	res := b.runtime(args...)
	if res.Code != 0 {
		b.t.Fatalf("%s: exit code %d\n%s%s", strings.Join(args, " "), res.Code, res.Stdout, res.Stderr)
	}
	return res.Stdout
}

// namespace takes one of a container's namespaces from elsewhere.
func namespace(kind specs.LinuxNamespaceType, path string) func(*specs.Spec) {
	return func(s *specs.Spec) {
		s.Hostname = ""
		for i, n := range s.Linux.Namespaces {
			if n.Type == kind {
				s.Linux.Namespaces[i].Path = path
			}
		}
	}
}

// wrongCall is one that must fail.
type wrongCall struct {
	name string
	edit func(*specs.Spec) // of a configuration to create
	args []string          // instead: what to call
	code int               // 1 if it is 0
	want string            // expression
}

// wrongCalls are those of TestRuntimeErrors, which has made the containers and files that they name.
func wrongCalls(root, linked, hook, slow string) []wrongCall {
	one := 1
	mount := func(m specs.Mount) func(*specs.Spec) {
		return func(s *specs.Spec) { s.Mounts = append(s.Mounts, m) }
	}
	args := func(a ...string) func(*specs.Spec) { return func(s *specs.Spec) { s.Process.Args = a } }
	resources := func(r specs.LinuxResources) func(*specs.Spec) {
		return func(s *specs.Spec) { r.Devices = s.Linux.Resources.Devices; s.Linux.Resources = &r }
	}
	hooks := func(h specs.Hooks) func(*specs.Spec) { return func(s *specs.Spec) { s.Hooks = &h } }
	mapped := func(edit func(*specs.Spec)) func(*specs.Spec) {
		return func(s *specs.Spec) {
			s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: specs.UserNamespace})
			ids := []specs.LinuxIDMapping{{ContainerID: 0, HostID: 100000, Size: 1000}}
			s.Linux.UIDMappings, s.Linux.GIDMappings = ids, ids
			edit(s)
		}
	}
	//lint:ignore SA1019 prestart is deprecated, and still in use
	prestart := specs.Hooks{Prestart: []specs.Hook{{Path: hook}}}
	quota, period := int64(10), uint64(100000)
	tiny := int64(4096)
	const step = `step \d+/\d+ \[(host|child)\] .*`
	return []wrongCall{
		{name: "no-rootfs", edit: func(s *specs.Spec) { s.Root.Path = "/nowhere" }, want: `/root/path: /nowhere does not exist`},
		{name: "rootfs-file", edit: func(s *specs.Spec) { s.Root.Path = "/etc/passwd" }, want: `/root/path: .*is not a directory`},
		{
			name: "no-source", edit: mount(specs.Mount{Destination: "/x", Type: "bind", Source: "/nowhere", Options: []string{"bind"}}),
			want: `/mounts/\d+/source: /nowhere does not exist`,
		},
		{
			name: "dir-on-file", edit: mount(specs.Mount{Destination: "/etc/file", Type: "bind", Source: "/tmp", Options: []string{"bind"}}),
			want: step + `/etc/file.*from /mounts/\d+.*hint: .*a directory on a directory`,
		},
		{
			name: "file-on-dir", edit: mount(specs.Mount{Destination: "/etc", Type: "bind", Source: "/etc/passwd", Options: []string{"bind"}}),
			want: step + `/etc.*from /mounts/\d+.*hint: .*a directory on a directory`,
		},
		{
			name: "no-fs", edit: mount(specs.Mount{Destination: "/x", Type: "nosuchfs", Source: "x"}),
			want: step + `nosuchfs.*from /mounts/\d+.*no such device`,
		},
		{
			name: "bad-data", edit: mount(specs.Mount{Destination: "/x", Type: "tmpfs", Source: "x", Options: []string{"size=banana"}}),
			want: step + `from /mounts/\d+.*invalid argument`,
		},
		{
			name: "bad-option", edit: mount(specs.Mount{Destination: "/x", Type: "bind", Source: "/tmp", Options: []string{"bind", "banana"}}),
			want: `/mounts/\d+/options.*banana`,
		},
		{
			name: "over-proc", edit: mount(specs.Mount{Destination: "/proc/self", Type: "tmpfs", Source: "x"}),
			want: `/mounts/\d+/destination: .*over /proc`,
		},
		{
			name: "proc-link", edit: func(s *specs.Spec) { s.Root.Path = linked },
			want: step + `/proc.*from /mounts/0.*too many levels of symbolic links`,
		},
		{name: "net-is-uts", edit: namespace(specs.NetworkNamespace, "/proc/self/ns/uts"), want: `/linux/namespaces/1.*(uts|invalid)`},
		{
			name: "ns-is-file", edit: namespace(specs.UTSNamespace, "/etc/passwd"),
			want: `/linux/namespaces/3.*(not a namespace|no namespace|invalid argument)`,
		},
		{name: "no-ns", edit: namespace(specs.IPCNamespace, "/nowhere"), want: `/linux/namespaces/2/path: /nowhere does not exist`},
		{
			name: "uid-unmapped", edit: mapped(func(s *specs.Spec) { s.Process.User.UID = 5000 }),
			want: `/process/user/uid: 5000 is not in /linux/uidMappings`,
		},
		{
			name: "gid-unmapped", edit: mapped(func(s *specs.Spec) { s.Process.User.GID = 5000 }),
			want: `/process/user/gid: 5000 is not in /linux/gidMappings`,
		},
		{name: "cwd-file", edit: func(s *specs.Spec) { s.Process.Cwd = "/etc/file" }, want: `/process/cwd.*not a directory`},
		{name: "no-command", edit: args("nothing"), want: `/process/args.*"nothing".*(not found|doesn't exist)`},
		{name: "no-path", edit: args("/bin/nothing"), want: `/process/args.*/bin/nothing.*(doesn't exist|no such file)`},
		{name: "not-executable", edit: args("/etc/file"), want: `/process/args.*/etc/file.*permission`},
		{name: "directory", edit: args("/etc"), want: `/process/args.*/etc.*(directory|permission)`},
		{name: "cpuset", edit: resources(specs.LinuxResources{CPU: &specs.LinuxCPU{Cpus: "4000"}}), want: `/linux/resources/cpu/cpus`},
		{
			name: "quota", edit: resources(specs.LinuxResources{CPU: &specs.LinuxCPU{Quota: &quota, Period: &period}}),
			want: `/linux/resources/cpu/quota`,
		},
		{
			name: "huge-pages", edit: resources(specs.LinuxResources{HugepageLimits: []specs.LinuxHugepageLimit{{Pagesize: "7MB", Limit: 1}}}),
			want: `/linux/resources/hugepageLimits/0`,
		},
		{name: "no-device", edit: resources(specs.LinuxResources{BlockIO: &specs.LinuxBlockIO{
			ThrottleReadBpsDevice: []specs.LinuxThrottleDevice{throttle(250, 250, 1000000)},
		}}), want: `/linux/resources/blockIO/throttleReadBpsDevice/0`},
		{
			name: "tiny-memory", edit: resources(specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: &tiny}}),
			want: `OOM-killed before .*: the memory limit of the cgroup /|cannot allocate memory`,
		},
		{
			name: "sysctl-missing", edit: func(s *specs.Spec) { s.Linux.Sysctl = map[string]string{"net.ipv4.nothing": "1"} },
			want: `/linux/sysctl/net.ipv4.nothing`,
		},
		{
			name: "sysctl-host", edit: func(s *specs.Spec) { s.Linux.Sysctl = map[string]string{"kernel.panic": "1"} },
			want: `/linux/sysctl/kernel.panic`,
		},
		{name: "apparmor", edit: func(s *specs.Spec) { s.Process.ApparmorProfile = "nothing" }, want: `/process/apparmorProfile`},
		{name: "selinux", edit: func(s *specs.Spec) { s.Process.SelinuxLabel = "nothing" }, want: `/process/selinuxLabel`},
		{name: "prestart", edit: hooks(prestart), want: step + `prestart hook .*from /hooks/prestart/0.*exit status 3: the hook says no`},
		{
			name: "create-runtime", edit: hooks(specs.Hooks{CreateRuntime: []specs.Hook{{Path: "/nowhere"}}}),
			want: step + `from /hooks/createRuntime/0.*no such file`,
		},
		{
			name: "hook-timeout", edit: hooks(specs.Hooks{CreateRuntime: []specs.Hook{{Path: slow, Timeout: &one}}}),
			want: step + `from /hooks/createRuntime/0.*timeout of 1 s`,
		},
		{
			name: "create-container", edit: hooks(specs.Hooks{CreateContainer: []specs.Hook{{Path: hook}}}),
			want: step + `from /hooks/createContainer/0.*exit status 3`,
		},
		{name: "terminal", edit: func(s *specs.Spec) { s.Process.Terminal = true }, want: `/process/terminal: .*console.socket`},

		{
			name: "start-hook", args: []string{"start", "hooked"},
			want: `/hooks/startContainer/0: run /bin/hook: exit status 3: the inner hook says no`,
		},
		{name: "start-hook-timeout", args: []string{"start", "slow-hooked"}, want: `/hooks/startContainer/0: .*timeout of 1 s`},
		{name: "id-slash", args: []string{"create", "-b", "created", "a/b"}, want: `invalid container ID "a/b"`},
		{name: "id-empty", args: []string{"create", "-b", "created", ""}, want: `invalid container ID`},
		{name: "id-dots", args: []string{"create", "-b", "created", ".."}, want: `invalid container ID`},
		{name: "id-long", args: []string{"create", "-b", "created", strings.Repeat("x", 1025)}, want: `invalid container ID`},
		{name: "id-missing", args: []string{"state"}, want: `it takes one container ID`},
		{name: "exists", args: []string{"create", "-b", "created", "running"}, want: `container with given ID already exists: running`},
		{name: "no-bundle", args: []string{"create", "-b", "/nowhere", "x"}, want: `bundle /nowhere: there is no such directory`},
		{name: "no-config", args: []string{"create", "-b", "/tmp", "x"}, want: `bundle /tmp: there is no config.json`},
		{
			name: "console-socket", args: []string{"create", "-b", "created", "--console-socket", "/nowhere", "x"},
			want: `--console-socket: cannot use console socket`,
		},
		{name: "pid-file", args: []string{"create", "-b", "created", "--pid-file", "/nowhere/pid", "x"}, want: `--pid-file: .*no such file`},
		{name: "start-unknown", args: []string{"start", "unknown"}, want: `container does not exist: "unknown"`},
		{name: "start-running", args: []string{"start", "running"}, want: `cannot start an already running container`},
		{name: "start-stopped", args: []string{"start", "stopped"}, want: `cannot start a container that has stopped`},
		{name: "delete-running", args: []string{"delete", "running"}, want: `cannot delete container running that is not stopped: running`},
		{name: "delete-created", args: []string{"delete", "created"}, want: `cannot delete container created that is not stopped: created`},
		{name: "kill-stopped", args: []string{"kill", "stopped"}, want: `container not running`},
		{name: "kill-signal", args: []string{"kill", "running", "NOTHING"}, want: `unknown signal "NOTHING"`},
		{name: "kill-unknown", args: []string{"kill", "unknown"}, want: `container does not exist`},
		{name: "exec-stopped", args: []string{"exec", "stopped", "true"}, code: 255, want: `cannot exec in a stopped container`},
		{name: "exec-paused", args: []string{"exec", "paused", "true"}, code: 255, want: `cannot exec in a paused container`},
		{name: "exec-unknown", args: []string{"exec", "unknown", "true"}, code: 255, want: `container does not exist`},
		{
			name: "exec-nothing", args: []string{"exec", "running", "nothing"}, code: 255,
			want: `step \d+/\d+ .*"nothing".*executable file not found in \$PATH`,
		},
		{
			name: "exec-cwd", args: []string{"exec", "--cwd", "/bin/busybox", "running", "true"}, code: 255,
			want: `step \d+/\d+ .*/process/cwd.*not a directory`,
		},
		{name: "exec-no-file", args: []string{"exec", "--process", "/nowhere", "running"}, code: 255, want: `--process: .*no such file`},
		{name: "exec-bad-file", args: []string{"exec", "--process", "nonsense.json", "running"}, code: 255, want: `--process: nonsense.json`},
		{
			name: "exec-relative", args: []string{"exec", "--process", "relative.json", "running"}, code: 255,
			want: `--process: relative.json: /cwd: "here" is not an absolute path`,
		},
		{
			name: "exec-user", args: []string{"exec", "--user", "4294967296", "running", "true"}, code: 255,
			want: `--user: "4294967296" is not a number`,
		},
		{name: "exec-no-command", args: []string{"exec", "running"}, code: 255, want: `it takes a container ID and a command`},
		{name: "exec-terminal", args: []string{"exec", "-t", "-d", "running", "true"}, code: 255, want: `console socket`},
		{name: "exec-cap", args: []string{"exec", "--cap", "CAP_NOTHING", "running", "true"}, code: 255, want: `CAP_NOTHING`},
		{name: "pause-stopped", args: []string{"pause", "stopped"}, want: `container not running or created: stopped`},
		{name: "resume-running", args: []string{"resume", "running"}, want: `container not paused: running`},
		{name: "ps-unknown", args: []string{"ps", "unknown"}, want: `container does not exist`},
		{name: "state-unknown", args: []string{"state", "unknown"}, want: `container does not exist`},
		{
			name: "state-damaged", args: []string{"state", "damaged"},
			want: `state file /run/oci/damaged/state.json is damaged.*delete --force damaged`,
		},
		{name: "start-damaged", args: []string{"start", "damaged"}, want: `is damaged`},
		{name: "delete-damaged", args: []string{"delete", "damaged"}, want: `is damaged`},
		{name: "flag", args: []string{"list", "--nothing"}, want: `flag provided but not defined: -nothing`},
		{name: "format", args: []string{"list", "--format", "nothing"}, want: `--format: "nothing" is neither table nor json`},
		{name: "command", args: []string{"nothing"}, want: `unknown command "nothing"`},
		{name: "root", args: []string{"--root", "/proc/nothing", "create", "-b", "created", "x"}, want: `state directory: .*/proc/nothing`},
	}
}

// fails makes a call that must fail with an exit code (1 if it is 0) and a message, which is the log's last line, too.
func (b *bundles) fails(name string, call []string, code int, want string) {
	b.t.Helper()
	log := filepath.Join(b.work, name+".log")
	res := b.runtime(append([]string{"--log", log, "--log-format", "json"}, call...)...)
	if code == 0 {
		code = 1
	}
	if res.Code != code {
		b.t.Errorf("%v: got exit code %d, want %d\n%s", call, res.Code, code, res.Stderr)
		return
	}
	expr := regexp.MustCompile("(?s)" + want)
	if !expr.MatchString(res.Stderr) {
		b.t.Errorf("%v: got\n%s\nwant %s", call, res.Stderr, want)
	}
	data, err := os.ReadFile(log)
	if err != nil {
		b.t.Error(err)
		return
	}
	lines := strings.Split(strings.TrimSpace(string(data)), "\n")
	var last struct{ Level, Msg, Time string }
	if err := json.Unmarshal([]byte(lines[len(lines)-1]), &last); err != nil || last.Level != "error" || !expr.MatchString(last.Msg) {
		b.t.Errorf("%v: %v: got the log line %+v, want %s", call, err, last, want)
	}
	if _, err := time.Parse(time.RFC3339, last.Time); err != nil {
		b.t.Error(err)
	}
}

// TestRuntimeErrors gives glassbox-runtime configurations that are broken and requests that can't be met. Each time the message
// says what, where and why, on standard error and in the JSON log, with the same exit code as runc's, and nothing is left.
func TestRuntimeErrors(t *testing.T) {
	b := startBundles(t, "errors")
	root := b.rootfs("root")
	b.write(filepath.Join(root, "etc/file"), "text", 0o644)
	b.write(filepath.Join(root, "bin/script"), "#!/bin/nothing\n", 0o755)
	b.write(filepath.Join(root, "bin/dos"), "#!/bin/sh\r\necho\r\n", 0o755)
	hook := filepath.Join(b.work, "hook")
	b.write(hook, "#!/bin/sh\ncat >/dev/null\necho the hook says no >&2\nexit 3\n", 0o755)
	slow := filepath.Join(b.work, "slow")
	b.write(slow, "#!/bin/sh\nsleep 100\n", 0o755)
	b.write(filepath.Join(root, "bin/hook"), "#!/bin/sh\necho the inner hook says no >&2\nexit 3\n", 0o755)
	b.write(filepath.Join(root, "bin/slow"), "#!/bin/sh\nsleep 100\n", 0o755)
	linked := b.rootfs("linked")
	os.Remove(filepath.Join(linked, "proc"))
	os.Symlink("/tmp", filepath.Join(linked, "proc"))
	plain := b.rootfs("plain")
	b.must("create", "-b", b.bundle("created", plain, nil), "created")
	b.must("run", "-d", "-b", b.bundle("running", plain, nil), "running")
	b.must("run", "-d", "-b", b.bundle("paused", plain, nil), "paused")
	b.must("pause", "paused")
	b.must("run", "-d", "-b", b.bundle("stopped", plain, func(s *specs.Spec) { s.Process.Args = []string{"true"} }), "stopped")
	b.must("create", "-b", b.bundle("hooked", root, func(s *specs.Spec) {
		s.Hooks = &specs.Hooks{StartContainer: []specs.Hook{{Path: "/bin/hook"}}}
	}), "hooked")
	one := 1
	b.must("create", "-b", b.bundle("slow-hooked", root, func(s *specs.Spec) {
		s.Hooks = &specs.Hooks{StartContainer: []specs.Hook{{Path: "/bin/slow", Timeout: &one}}}
	}), "slow-hooked")
	b.must("run", "-d", "-b", b.bundle("damaged", plain, nil), "damaged")
	b.write(b.state.host.Path("/run/oci/damaged/state.json"), `{"format":1,"id":`, 0o600)
	b.write(filepath.Join(b.work, "nonsense.json"), "{", 0o644)
	b.write(filepath.Join(b.work, "relative.json"), `{"args":["true"],"cwd":"here","user":{"uid":0,"gid":0}}`, 0o644)
	before, err := b.state.settled()
	if err != nil {
		t.Fatal(err)
	}
	b.state.before = &before

	for _, c := range wrongCalls(root, linked, hook, slow) {
		t.Run(c.name, func(t *testing.T) {
			b.t = t
			call := c.args
			if call == nil {
				call = []string{"create", "--bundle", b.bundle("b-"+c.name, root, c.edit), "c-" + c.name}
			}
			b.fails(c.name, call, c.code, c.want)
		})
	}
	// All that package oci finds without running anything.
	files, err := filepath.Glob("../oci/testdata/broken/*.json")
	if err != nil || len(files) < 60 {
		t.Fatalf("%d broken configurations: %v", len(files), err)
	}
	for _, file := range files {
		name := strings.TrimSuffix(filepath.Base(file), ".json")
		t.Run("config/"+name, func(t *testing.T) {
			b.t = t
			text, err := os.ReadFile(strings.TrimSuffix(file, ".json") + ".txt")
			if err != nil {
				t.Fatal(err)
			}
			data, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			dir := filepath.Join(b.work, "config-"+name)
			if err := os.Mkdir(dir, 0o755); err != nil {
				t.Fatal(err)
			}
			b.write(filepath.Join(dir, "config.json"), string(data), 0o644)
			first, _, _ := strings.Cut(strings.TrimSpace(string(text)), "\n")
			b.fails("config-"+name, []string{"create", "--bundle", dir, "c-" + name}, 1, regexp.QuoteMeta(first))
		})
	}
	b.t = t
	for _, id := range []string{"created", "running", "paused", "stopped", "hooked", "slow-hooked", "damaged"} {
		b.must("delete", "--force", id)
	}
	if out := b.must("list", "-q"); out != "" {
		t.Errorf("left: %s", out)
	}
	entries, err := os.ReadDir(b.state.host.Path("/run/oci"))
	if err != nil || len(entries) > 0 {
		t.Errorf("left in the state directory: %v %v", entries, err)
	}
	// What the seven containers had is gone, too: compare without it.
	now, err := b.state.settled()
	if err != nil {
		t.Fatal(err)
	}
	for kind, list := range maps.All(now) {
		for _, item := range list {
			if strings.Contains(item, "c-") && strings.Contains(item, "cgroup") {
				t.Errorf("left: %s %s", kind, item)
			}
		}
	}
	if left := before.compare(now); strings.Contains(left, "left:") {
		t.Errorf("left behind:\n%s", left)
	}
}

func throttle(major, minor int64, rate uint64) specs.LinuxThrottleDevice {
	var d specs.LinuxThrottleDevice
	d.Major, d.Minor, d.Rate = major, minor, rate
	return d
}
