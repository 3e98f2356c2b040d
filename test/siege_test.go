package test

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"

	"glassbox/seccomp"
	"glassbox/test/machine"
)

// siege is a machine in which containers attack it: through the engine, and through the OCI runtime.
type siege struct {
	*testing.T
	host  *machine.Machine
	bin   string
	dir   string // the same path in the machine
	env   []string
	count atomic.Int32
}

// face is a way to start containers.
type face string

const (
	engineFace  face = "engine"
	runtimeFace face = "runtime"
	// hookedFace is the runtime with a hook, before which the container's root is not the root yet: names are resolved in it by the
	// flags of openat2 alone.
	hookedFace face = "hooked"
)

var faces = []face{engineFace, runtimeFace, hookedFace}

// secret is a file that only the host has.
const secret = "/run/only-on-the-host"

// dockerCaps are those that a container has by default.
var dockerCaps = []string{
	"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL", "CAP_SETGID", "CAP_SETUID", "CAP_SETPCAP",
	"CAP_NET_BIND_SERVICE", "CAP_NET_RAW", "CAP_SYS_CHROOT", "CAP_MKNOD", "CAP_AUDIT_WRITE", "CAP_SETFCAP",
}

// box is a container, whoever starts it.
type box struct {
	rootfs string
	args   []string
	cwd    string
	user   string // UID[:GID]
	binds  [][2]string
	tmpfs  []string
	device string   // where it has a device that is always full
	caps   []string // beside the default ones
	tty    bool
	bare   bool   // without seccomp
	pid    string // container whose PID namespace it shares
	sysctl map[string]string
	score  int // oom_score_adj
	memory int64
	pids   int64
	nofile uint64
	size   string                 // of the tmpfs
	edit   func(spec *specs.Spec) // of the runtime's faces only
}

func besiege(t *testing.T) *siege {
	prepare(t)
	t.Parallel()
	s := &siege{T: t, dir: filepath.Join(t.TempDir(), "siege")}
	must(t, os.MkdirAll(s.dir, 0o755))
	for dir := s.dir; dir != "/" && dir != os.TempDir(); dir = filepath.Dir(dir) {
		os.Chmod(dir, 0o755)
	}
	// Binaries of its own: an attack that succeeds must not hurt the next test.
	s.bin = filepath.Join(s.dir, "bin")
	s.shell("cp -a " + run.bin + "/. " + s.bin)
	s.shell("mkdir -p base/bin base/t base/proc base/sys base/dev base/etc base/tmp base/run base/mnt base/root && " +
		"cp /bin/busybox base/bin/busybox && ln -s busybox base/bin/sh && cp " + run.set.Prog() + " base/t/prog && " +
		"ln -s /bin base/usr && printf 'root:x:0:0::/root:/bin/sh\\n' >base/etc/passwd")
	applets, err := exec.Command("/bin/busybox", "--list").Output()
	must(t, err)
	for _, name := range strings.Fields(string(applets)) {
		os.Symlink("busybox", filepath.Join(s.dir, "base/bin", name))
	}
	s.host, err = machine.Start("siege-"+strings.ToLower(strings.ReplaceAll(t.Name(), "/", "-")), filepath.Join(s.dir, "machine"))
	must(t, err)
	t.Cleanup(func() { s.host.Close() })
	must(t, mountStore(s.host, filepath.Join(s.dir, "store")))
	s.env = []string{
		"PATH=" + s.bin + ":/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=" + s.dir,
		"GLASSBOX_ROOT=" + store, "GLASSBOX_STATE=/run/glassbox",
	}
	s.ok(s.sh("touch " + secret))
	return s
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// shell does something with the files of the test; it is not in the machine.
func (s *siege) shell(script string) {
	s.Helper()
	cmd := exec.Command("/bin/sh", "-ec", script)
	cmd.Dir = s.dir
	if out, err := cmd.CombinedOutput(); err != nil {
		s.Fatalf("%s: %v: %s", script, err, out)
	}
}

// root makes a root file system, and changes it by a script that runs in it.
func (s *siege) root(script string) string {
	s.Helper()
	dir := filepath.Join(s.dir, s.id("root"))
	s.shell("cp -al base " + dir + " && cd " + dir + "\n" + script)
	return dir
}

func (s *siege) id(what string) string { return fmt.Sprintf("%s%d", what, s.count.Add(1)) }

// on runs a program in the machine to its end.
func (s *siege) on(argv ...string) machine.Result {
	s.Helper()
	res, err := s.host.Run(scaled(60*time.Second), argv, s.env, "/")
	must(s.T, err)
	if res.TimedOut {
		s.Fatalf("%s: no end\n%s%s", strings.Join(argv, " "), res.Stdout, res.Stderr)
	}
	if regexp.MustCompile(`(?m)^(goroutine \d|panic: )`).MatchString(res.Stderr) {
		s.Errorf("%s: it panicked: %s", strings.Join(argv, " "), res.Stderr)
	}
	return res
}

func (s *siege) sh(script string, args ...string) machine.Result {
	s.Helper()
	return s.on(append([]string{"/bin/sh", "-c", script}, args...)...)
}

// ok expects success and returns the output.
func (s *siege) ok(res machine.Result) string {
	s.Helper()
	if res.Code != 0 {
		s.Fatalf("exit code %d: %s%s", res.Code, res.Stdout, res.Stderr)
	}
	return res.Stdout
}

// background starts a program in the machine; its output goes to the returned file.
func (s *siege) background(argv ...string) string {
	s.Helper()
	out := filepath.Join(s.dir, s.id("out"))
	file, err := os.Create(out)
	must(s.T, err)
	defer file.Close()
	null, err := os.Open(os.DevNull)
	must(s.T, err)
	defer null.Close()
	_, err = s.host.Start(machine.Spec{Argv: argv, Env: s.env, Dir: "/", Stdin: null, Stdout: file, Stderr: file})
	must(s.T, err)
	return out
}

// detached runs a command that ends while its container goes on, which has its output in the returned file.
func (s *siege) detached(argv ...string) string {
	s.Helper()
	out := filepath.Join(s.dir, s.id("out"))
	s.ok(s.sh(`out=$1; shift; "$@" </dev/null >"$out" 2>&1 || { cat "$out"; exit 1; }`, append([]string{"sh", out}, argv...)...))
	return out
}

// command is what runs a container in the foreground.
func (s *siege) command(f face, id string, b box) []string {
	s.Helper()
	if f == engineFace {
		return append([]string{"glassbox", "run", "--name", id}, s.flags(b)...)
	}
	return []string{"glassbox-runtime", "run", "--bundle", s.bundle(f, b), id}
}

// run runs a container to its end.
func (s *siege) run(f face, b box) machine.Result {
	s.Helper()
	argv := s.command(f, s.id("box"), b)
	if f == engineFace {
		argv = slices.Insert(argv, 2, "--rm")
	}
	return s.on(argv...)
}

// start starts a container and returns its name and the file with its output.
func (s *siege) start(f face, b box) (id, out string) {
	s.Helper()
	id = s.id("box")
	argv := s.command(f, id, b)
	if f == engineFace {
		s.detached(slices.Insert(argv, 2, "-d")...)
		return id, ""
	}
	return id, s.detached(slices.Insert(argv, 2, "--detach")...)
}

// create makes a container that waits for start.
func (s *siege) create(f face, b box) (id string) {
	s.Helper()
	id = s.id("box")
	s.detached("glassbox-runtime", "create", "--bundle", s.bundle(f, b), id)
	return id
}

// logs is what a container that start started has written.
func (s *siege) logs(f face, id, out string) string {
	s.Helper()
	if f == engineFace {
		res := s.on("glassbox", "logs", id)
		return res.Stdout + res.Stderr
	}
	text, err := os.ReadFile(out)
	must(s.T, err)
	return string(text)
}

// exec is the command line of exec, with flags that are -w, -u or -d only.
func (s *siege) exec(f face, flags []string, id string, args ...string) []string {
	argv := []string{"glassbox", "exec"}
	if f != engineFace {
		argv[0] = "glassbox-runtime"
		flags = slices.Clone(flags)
		for i, flag := range flags {
			if flag == "-w" {
				flags[i] = "--cwd"
			}
		}
	}
	return append(append(append(argv, flags...), id), args...)
}

func (s *siege) remove(f face, id string) {
	s.Helper()
	if f == engineFace {
		s.on("glassbox", "rm", "-f", id)
	} else {
		s.on("glassbox-runtime", "delete", "--force", id)
	}
}

// pid is that of a container's first process, in the machine.
func (s *siege) pid(f face, id string) int {
	s.Helper()
	var pid int
	if f == engineFace {
		var list []struct{ State struct{ Pid int } }
		must(s.T, json.Unmarshal([]byte(s.ok(s.on("glassbox", "inspect", id))), &list))
		pid = list[0].State.Pid
	} else {
		var state struct{ Pid int }
		must(s.T, json.Unmarshal([]byte(s.ok(s.on("glassbox-runtime", "state", id))), &state))
		pid = state.Pid
	}
	if pid == 0 {
		s.Fatalf("container %s doesn't run", id)
	}
	return pid
}

// until waits for something that takes a while.
func (s *siege) until(what string, done func() bool) {
	s.Helper()
	until(s.T, what, done)
}

func until(t *testing.T, what string, done func() bool) {
	t.Helper()
	for end := time.Now().Add(scaled(15 * time.Second)); !done(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("never: %s", what)
		}
	}
}

// flags are the engine's for a box.
func (s *siege) flags(b box) []string {
	var argv []string
	flag := func(name, value string) {
		if value != "" {
			argv = append(argv, name, value)
		}
	}
	flag("--network", "none")
	flag("-w", b.cwd)
	flag("-u", b.user)
	for _, bind := range b.binds {
		flag("-v", bind[0]+":"+bind[1])
	}
	for _, dir := range b.tmpfs {
		if b.size != "" {
			dir += ":size=" + b.size
		}
		flag("--tmpfs", dir)
	}
	if b.device != "" {
		flag("--device", "/dev/full:"+b.device)
	}
	for _, name := range b.caps {
		flag("--cap-add", strings.TrimPrefix(name, "CAP_"))
	}
	if b.bare {
		flag("--security-opt", "seccomp=unconfined")
	}
	if b.pid != "" {
		flag("--pid", "container:"+b.pid)
	}
	for key, value := range b.sysctl {
		flag("--sysctl", key+"="+value)
	}
	if b.score != 0 {
		flag("--oom-score-adj", fmt.Sprint(b.score))
	}
	if b.memory != 0 {
		flag("--memory", fmt.Sprint(b.memory))
	}
	if b.pids != 0 {
		flag("--pids-limit", fmt.Sprint(b.pids))
	}
	if b.nofile != 0 {
		flag("--ulimit", fmt.Sprintf("nofile=%d", b.nofile))
	}
	if b.tty {
		argv = append(argv, "-t")
	}
	argv = append(argv, "--rootfs", b.rootfs)
	return append(argv, b.args...)
}

// bundle writes a bundle for a box and returns its directory.
func (s *siege) bundle(f face, b box) string {
	s.Helper()
	caps := append(slices.Clone(dockerCaps), b.caps...)
	spec := &specs.Spec{
		Version: "1.2.0", Root: &specs.Root{Path: b.rootfs}, Hostname: "box",
		Process: &specs.Process{
			Args: b.args, Cwd: "/", Env: []string{"PATH=/bin:/t"}, Terminal: b.tty,
			Capabilities: &specs.LinuxCapabilities{Bounding: caps, Effective: caps, Permitted: caps},
		},
		Mounts: []specs.Mount{
			{Destination: "/proc", Type: "proc", Source: "proc", Options: []string{"nosuid", "noexec", "nodev"}},
			{Destination: "/dev", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "strictatime", "mode=755", "size=65536k"}},
			{Destination: "/dev/pts", Type: "devpts", Source: "devpts", Options: []string{
				"nosuid", "noexec", "newinstance", "ptmxmode=0666",
				"mode=0620",
			}},
			{Destination: "/dev/shm", Type: "tmpfs", Source: "shm", Options: []string{"nosuid", "noexec", "nodev", "mode=1777", "size=65536k"}},
			{Destination: "/sys", Type: "sysfs", Source: "sysfs", Options: []string{"nosuid", "noexec", "nodev", "ro"}},
			{Destination: "/sys/fs/cgroup", Type: "cgroup", Source: "cgroup", Options: []string{"nosuid", "noexec", "nodev", "relatime", "ro"}},
		},
		Linux: &specs.Linux{
			Namespaces: []specs.LinuxNamespace{
				{Type: specs.PIDNamespace},
				{Type: specs.NetworkNamespace},
				{Type: specs.IPCNamespace},
				{Type: specs.UTSNamespace},
				{Type: specs.MountNamespace},
				{Type: specs.CgroupNamespace},
			},
			Resources:     &specs.LinuxResources{Devices: []specs.LinuxDeviceCgroup{{Access: "rwm"}}},
			MaskedPaths:   []string{"/proc/acpi", "/proc/kcore", "/proc/keys", "/proc/timer_list", "/sys/firmware"},
			ReadonlyPaths: []string{"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"},
			Sysctl:        b.sysctl,
		},
	}
	p := spec.Process
	if b.cwd != "" {
		p.Cwd = b.cwd
	}
	for _, bind := range b.binds {
		spec.Mounts = append(spec.Mounts, specs.Mount{Destination: bind[1], Type: "bind", Source: bind[0], Options: []string{"rbind"}})
	}
	for _, dir := range b.tmpfs {
		m := specs.Mount{Destination: dir, Type: "tmpfs", Source: "tmpfs"}
		if b.size != "" {
			m.Options = []string{"size=" + b.size}
		}
		spec.Mounts = append(spec.Mounts, m)
	}
	if b.device != "" {
		spec.Linux.Devices = append(spec.Linux.Devices, specs.LinuxDevice{Path: b.device, Type: "c", Major: 1, Minor: 7})
	}
	if !b.bare {
		spec.Linux.Seccomp = seccomp.Default(seccomp.DefaultOptions{Arch: runtime.GOARCH, Caps: caps, KernelMajor: 6})
	}
	if b.pid != "" {
		spec.Linux.Namespaces[0].Path = fmt.Sprintf("/proc/%d/ns/pid", s.pid(f, b.pid))
	}
	if b.score != 0 {
		p.OOMScoreAdj = &b.score
	}
	if b.memory != 0 {
		spec.Linux.Resources.Memory = &specs.LinuxMemory{Limit: &b.memory}
	}
	if b.pids != 0 {
		spec.Linux.Resources.Pids = &specs.LinuxPids{Limit: &b.pids}
	}
	if b.nofile != 0 {
		p.Rlimits = []specs.POSIXRlimit{{Type: "RLIMIT_NOFILE", Soft: b.nofile, Hard: b.nofile}}
	}
	if f == hookedFace {
		spec.Hooks = &specs.Hooks{CreateRuntime: []specs.Hook{{Path: "/bin/true"}}}
	}
	if b.edit != nil {
		b.edit(spec)
	}
	data, err := json.Marshal(spec)
	must(s.T, err)
	if b.user != "" {
		// As text, so that it can be what no number of this program is.
		uid, gid, found := strings.Cut(b.user, ":")
		if !found {
			gid = "0"
		}
		data = []byte(strings.Replace(string(data), `"user":{"uid":0,"gid":0}`, `"user":{"uid":`+uid+`,"gid":`+gid+`}`, 1))
	}
	dir := filepath.Join(s.dir, s.id("bundle"))
	must(s.T, os.Mkdir(dir, 0o755))
	must(s.T, os.WriteFile(filepath.Join(dir, "config.json"), data, 0o644))
	return dir
}

func (s *siege) exists(path string) bool { _, err := os.Lstat(path); return err == nil }
