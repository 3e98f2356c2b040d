package test

import (
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"golang.org/x/tools/txtar"

	"glassbox/test/fixture"
	"glassbox/test/machine"
	"glassbox/test/plain"
	"glassbox/test/power"
)

func TestMain(m *testing.M) {
	machine.Main()
	switch os.Getenv(machine.RoleEnv) {
	case "faulty":
		fmt.Fprintln(os.Stderr, fixture.ServeFaulty(os.Args[1], os.Args[2]))
		os.Exit(1)
	case "disk":
		fmt.Fprintln(os.Stderr, power.Serve(os.Args[1], os.Args[2], diskSize))
		os.Exit(1)
	}
	if err := plain.Set(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	code := m.Run()
	if run.dir != "" {
		os.RemoveAll(run.dir)
	}
	os.Exit(code)
}

// TestScripts runs the scripts that don't mind company.
func TestScripts(t *testing.T) {
	t.Parallel()
	testscript.Run(t, params(t, testscript.Params{Dir: "script"}))
}

// TestNoLineLost looks for lines of a script that stand in one of its files, below a line "-- name --", where nobody runs them.
func TestNoLineLost(t *testing.T) {
	lost := regexp.MustCompile(`(?m)^(! )?(gb|stdout|stderr|waitfor|leaks|mark|finish|signal) .*`)
	err := filepath.WalkDir("script", func(path string, _ fs.DirEntry, err error) error {
		if err != nil || filepath.Ext(path) != ".txtar" {
			return err
		}
		a, err := txtar.ParseFile(path)
		if err != nil {
			return err
		}
		for _, f := range a.Files {
			if line := lost.Find(f.Data); line != nil {
				t.Errorf("%s: %q stands in the file %s", path, line, f.Name)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// TestScriptsAlone runs those that measure time or use a great share of the machine.
func TestScriptsAlone(t *testing.T) {
	files, err := filepath.Glob("script/alone/*.txtar")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		// One after the other: each in its own call, whose parallel part ends with it.
		t.Run("run", func(t *testing.T) { testscript.Run(t, params(t, testscript.Params{Files: []string{file}})) })
	}
}

// TestCallers lets other engines start containers with glassbox-runtime, or with the program that the variable RUNTIME names. In a
// machine that is thrown away, systemd makes the cgroups the second time, as on most machines of the world: the engines ask it for
// those of their own processes, and the runtime for the containers'. Newer programs can be in the directory CALLERS: see newer.sh.
func TestCallers(t *testing.T) {
	t.Parallel()
	pattern := "script/callers/*.txtar"
	newer := os.Getenv("CALLERS")
	if newer != "" {
		pattern = "script/newer/*.txtar"
	}
	files, err := filepath.Glob(pattern)
	if err != nil {
		t.Fatal(err)
	}
	if newer != "" {
		files = append(files, "script/callers/containerd.txtar", "script/callers/kubernetes.txtar")
	}
	drivers := []string{"cgroupfs"}
	if os.Getenv("GLASSBOX_TEST_VM") != "" {
		drivers = append(drivers, "systemd")
	}
	for _, driver := range drivers {
		t.Run(driver, func(t *testing.T) {
			p := params(t, testscript.Params{Files: files})
			p.Setup = func(env *testscript.Env) error {
				env.Setenv("DRIVER", driver)
				err := setup(env)
				if newer != "" {
					env.Setenv("PATH", newer+":"+env.Getenv("PATH"))
				}
				return err
			}
			p.Condition = func(cond string) (bool, error) {
				if cond == "systemd" {
					return driver == "systemd", nil
				}
				return condition(cond)
			}
			testscript.Run(t, p)
		})
	}
}

// run is what all scripts of one process share.
var run struct {
	once           sync.Once
	err            error
	dir            string // temporary
	bin            string
	set            fixture.Set
	seed, services seed
}

// prepare finds the binaries and makes the fixtures.
func prepare(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	run.once.Do(func() {
		bin := os.Getenv("GLASSBOX_BIN")
		if bin == "" {
			bin = filepath.Join("..", "bin")
		}
		run.bin, run.err = filepath.Abs(bin)
		if run.err == nil {
			run.set, run.err = fixture.Build(".", os.Stderr)
		}
		if run.err == nil {
			run.dir, run.err = os.MkdirTemp("", "gb-test-")
		}
		if run.err == nil {
			// An image's user must be able to reach what a script shares with a container.
			run.err = os.Chmod(run.dir, 0o755)
		}
	})
	if run.err != nil {
		t.Fatal(run.err)
	}
	if _, err := os.Stat(filepath.Join(run.bin, "glassbox")); err != nil {
		if os.Getenv("GLASSBOX_BIN") != "" {
			t.Fatal(err)
		}
		t.Skip("needs bin/glassbox: run make")
	}
}

// scaled is a duration for this machine: GLASSBOX_TEST_SCALE is how many times slower than usual it is.
func scaled(d time.Duration) time.Duration {
	scale, err := strconv.ParseFloat(os.Getenv("GLASSBOX_TEST_SCALE"), 64)
	if err != nil || scale < 1 {
		scale = 1
	}
	return time.Duration(float64(d) * scale)
}

func params(t *testing.T, p testscript.Params) testscript.Params {
	prepare(t)
	p.Setup = setup
	p.Condition = condition
	p.RequireUniqueNames = true
	p.ContinueOnError = os.Getenv("GLASSBOX_TEST_CONTINUE") != ""
	p.Cmds = map[string]func(*testscript.TestScript, bool, []string){
		"gb": cmdGb, "host": cmdHost, "outside": cmdOutside, "finish": cmdFinish, "signal": cmdSignal, "waitfor": cmdWaitfor,
		"waitout": cmdWaitout, "mark": cmdMark, "leaks": cmdLeaks, "json": cmdJSON, "tty": cmdTTY, "cpu": cmdCPU,
		"registry": cmdRegistry, "use": cmdUse, "save": cmdSave, "cri": cmdCRI,
		"attack": cmdAttack,
	}
	return p
}

// state is what a script has beside testscript's own.
type state struct {
	host   *machine.Machine
	work   string
	image  string   // one with programs
	names  []string // of the variables that programs get
	jobs   map[string]*machine.Job
	before *snapshot
}

// runtimePath is the OCI runtime that other engines and the validation suite are to use.
func runtimePath() string {
	if path := os.Getenv("RUNTIME"); path != "" {
		return path
	}
	return filepath.Join(run.bin, "glassbox-runtime")
}

// store is where every machine sees its own storage: stores with absolute paths in them can be copied.
const store = "/mnt/glassbox"

func setup(env *testscript.Env) error {
	name := strings.TrimSuffix(filepath.Base(env.WorkDir), ".txtar")
	name = strings.ReplaceAll(strings.TrimPrefix(name, "script-"), "_", "-")
	s := &state{work: env.WorkDir, image: "busybox", jobs: map[string]*machine.Job{}}
	start := machine.Start
	if env.Getenv("DRIVER") == "systemd" {
		start = machine.StartShared
	}
	var err error
	if s.host, err = start("m-"+name, filepath.Join(env.WorkDir, ".machine")); err != nil {
		return err
	}
	env.Defer(func() { s.host.Close() })
	os.Chmod(filepath.Dir(env.WorkDir), 0o755)
	os.Chmod(env.WorkDir, 0o755)
	if err := mountStore(s.host, filepath.Join(env.WorkDir, ".store")); err != nil {
		return err
	}
	env.Setenv("PATH", run.bin+":/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
	env.Setenv("HOME", filepath.Join(env.WorkDir, ".home"))
	env.Setenv("TMPDIR", filepath.Join(env.WorkDir, ".tmp"))
	env.Setenv("GLASSBOX_ROOT", store)
	env.Setenv("GLASSBOX_STATE", "/run/glassbox")
	env.Setenv("BIN", run.bin)
	env.Setenv("RESOLVED", os.Getenv("GLASSBOX_TEST_RESOLVED"))
	env.Setenv("RUNTIME", runtimePath())
	env.Setenv("DEBIAN_TAR", run.set.DebianTar())
	env.Setenv("PROG", run.set.Prog())
	if tool, err := exec.LookPath("go"); err == nil {
		env.Setenv("GO", tool)
	}
	env.Setenv("STORM", os.Getenv("GLASSBOX_TEST_STORM"))
	env.Setenv("CERTS", filepath.Join(env.WorkDir, ".certs"))
	env.Setenv("MACHINE", filepath.Join(env.WorkDir, ".machine"))
	for _, variable := range env.Vars {
		name, _, _ := strings.Cut(variable, "=")
		s.names = append(s.names, name)
	}
	s.names = append(s.names, "GLASSBOX_REGISTRIES", "GLASSBOX_CDI", "GLASSBOX_STORAGE_OPT", "GLASSBOX_BUILD_CACHE",
		"SSL_CERT_FILE", "DOCKER_CONFIG", "DOCKER_HOST", "CONTAINERS_CONF",
		"CONTAINERS_STORAGE_CONF", "GLASSBOX_LOG", "FROM_CLIENT", "ID", "PID", "IP", "TERM", "PARENT", "NERDCTL_TOML",
		"GUARDED", "OPEN", "GLASSBOX_TEST_ROUNDS")
	env.Setenv("GLASSBOX_TEST_ROUNDS", os.Getenv("GLASSBOX_TEST_ROUNDS"))
	for _, dir := range []string{".home", ".tmp"} {
		if err := os.MkdirAll(filepath.Join(env.WorkDir, dir), 0o755); err != nil {
			return err
		}
	}
	env.Values[key{}] = s
	return nil
}

type key struct{}

func of(ts *testscript.TestScript) *state { return ts.Value(key{}).(*state) }

func mountStore(m *machine.Machine, dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	res, err := m.Run(scaled(10*time.Second), []string{"/bin/mount", "--bind", dir, "/mnt"}, nil, "/")
	if err == nil && res.Code != 0 {
		err = fmt.Errorf("mount: %s", res.Stderr)
	}
	return err
}

func condition(cond string) (bool, error) {
	hierarchies, err := machine.Hierarchies()
	if err != nil {
		return false, err
	}
	var unified, legacy bool
	controllers := map[string]bool{}
	for _, h := range hierarchies {
		if h.Unified {
			unified = true
			list, _ := os.ReadFile(filepath.Join(h.Path, "cgroup.controllers"))
			for _, name := range strings.Fields(string(list)) {
				controllers[name] = true
			}
			continue
		}
		for _, name := range strings.Split(h.Options, ",") {
			controllers[name] = true
			legacy = legacy || name == "memory"
		}
	}
	switch cond {
	case "cgroup1":
		return legacy, nil
	case "cgroup2":
		return !legacy, nil
	case "hybrid":
		return legacy && unified, nil
	case "net":
		return true, nil
	case "vm":
		return os.Getenv("GLASSBOX_TEST_VM") != "", nil
	case "cores2":
		return runtime.NumCPU() > 1, nil
	case "registry":
		_, err := exec.LookPath("docker-registry")
		return err == nil, nil
	case "containerd", "docker", "podman", "skopeo", "umoci", "ufw", "firewalld":
		_, err := exec.LookPath(cond)
		return err == nil, nil
	case "docker-py":
		return exec.Command("python3", "-c", "import docker").Run() == nil, nil
	case "apparmor":
		return appArmor() == nil, nil
	case "vlan", "ipvlan": // modules, where they aren't built in
		more := map[string]string{"vlan": " id 5"}[cond]
		return exec.Command("unshare", "-n", "sh", "-c",
			"ip link add below type dummy && ip link add link below name above type "+cond+more).Run() == nil, nil
	case "resolved":
		_, err := exec.LookPath("dnsmasq")
		return err == nil && os.Getenv("GLASSBOX_TEST_RESOLVED") != "", nil
	case "quota":
		return projectQuotas(), nil
	case "swap":
		// Without it (or without its accounting) a limit of memory and swap has no file.
		if legacy {
			_, err := os.Stat("/sys/fs/cgroup/memory/memory.memsw.limit_in_bytes")
			return err == nil, nil
		}
		return true, nil
	}
	if name, ok := strings.CutPrefix(cond, "cg:"); ok {
		return controllers[name], nil
	}
	return false, fmt.Errorf("unknown condition")
}

// projectQuotas reports whether the kernel has project quotas for ext4: it takes a module, or a part of the kernel, that no file tells of.
func projectQuotas() bool {
	const try = "f=$(mktemp) && truncate -s 32M $f && mkfs.ext4 -q -F -O quota,project $f && " +
		"mount -o loop,prjquota $f /mnt; r=$?; rm -f $f; exit $r"
	return exec.Command("unshare", "-m", "sh", "-c", try).Run() == nil
}

// use busybox, or services, gives the script a store with images in it.
func cmdUse(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 || args[0] != "busybox" && args[0] != "services" {
		ts.Fatalf("usage: use busybox|services")
	}
	of := of(ts)
	get := run.seed.get
	if args[0] == "services" {
		get, of.image = run.services.getServices, "redis"
	}
	dir, err := get()
	if err != nil {
		ts.Fatalf("store with images: %v", err)
	}
	ts.Check(os.RemoveAll(filepath.Join(of.work, ".store", "glassbox")))
	// Layers are for reading only, so links do.
	out, err := exec.Command("cp", "-al", filepath.Join(dir, "glassbox"), filepath.Join(of.work, ".store")).CombinedOutput()
	if err != nil {
		ts.Fatalf("cp: %v: %s", err, out)
	}
}

// seed is a store with images, made once for all scripts.
type seed struct {
	once sync.Once
	dir  string
	err  error
}

// seedImages are what the store holds, named as on Docker Hub.
var seedImages = []string{
	"busybox", "busybox:user", "busybox:uid", "busybox:baduser", "busybox:workdir", "busybox:entry", "busybox:stop",
	"busybox:nocmd", "busybox:workfd", "busybox:workup", "busybox:volproc", "busybox:volumes",
}

// get is the store of busybox.
func (s *seed) get() (string, error) {
	s.once.Do(func() { s.dir, s.err = fillSeed("busybox", pullSeed) })
	return s.dir, s.err
}

// getServices is the store of PostgreSQL, Redis and nginx.
func (s *seed) getServices() (string, error) {
	s.once.Do(func() { s.dir, s.err = fillSeed("services", importServices) })
	return s.dir, s.err
}

// fillSeed makes a store; glassbox and other programs are run by in, in a machine of its own.
func fillSeed(kind string, fill func(m *machine.Machine, env []string, in func(argv ...string) error) error) (string, error) {
	dir := filepath.Join(run.dir, "seed-"+kind)
	m, err := machine.Start("seed-"+kind, filepath.Join(run.dir, "seed-machine-"+kind))
	if err != nil {
		return "", err
	}
	defer m.Close()
	if err := mountStore(m, dir); err != nil {
		return "", err
	}
	env := []string{
		"PATH=" + run.bin + ":/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=" + run.dir,
		"GLASSBOX_ROOT=" + store, "GLASSBOX_STATE=/run/glassbox",
	}
	return dir, fill(m, env, func(argv ...string) error {
		res, err := m.Run(scaled(2*time.Minute), argv, env, "/")
		if err == nil && (res.Code != 0 || res.TimedOut) {
			err = fmt.Errorf("exit code %d\n%s%s", res.Code, res.Stdout, res.Stderr)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", strings.Join(argv, " "), err)
		}
		return nil
	})
}

func pullSeed(m *machine.Machine, env []string, in func(argv ...string) error) error {
	if err := startRegistry(m, filepath.Join(run.dir, "seed-registry"), "http", env); err != nil {
		return err
	}
	for _, image := range seedImages {
		remote := "127.0.0.1:5000/" + image
		for _, args := range [][]string{{"pull", remote}, {"tag", remote, image}, {"rmi", remote}} {
			if err := in(append([]string{"glassbox"}, args...)...); err != nil {
				return err
			}
		}
	}
	return nil
}

// importServices makes images of PostgreSQL, Redis and nginx: see services/make.sh.
func importServices(_ *machine.Machine, _ []string, in func(argv ...string) error) error {
	tar, err := run.set.Services(os.Stderr)
	if err != nil {
		return err
	}
	script, err := filepath.Abs("services/make.sh")
	if err != nil {
		return err
	}
	return in("sh", script, tar)
}

// registry http|tls|writable|faulty starts a registry: at 127.0.0.1:5000, at registry.test:5443 outside (writable: an empty one that
// takes pushes), at 127.0.0.1:5050.
func cmdRegistry(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: registry http|tls|writable|faulty")
	}
	ts.Check(startRegistry(of(ts).host, filepath.Join(of(ts).work, ".certs"), args[0], environ(ts)))
}

func startRegistry(m *machine.Machine, dir, kind string, env []string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	logName := filepath.Join(dir, kind+".log")
	log, err := os.Create(logName)
	if err != nil {
		return err
	}
	defer log.Close()
	null, err := os.Open(os.DevNull)
	if err != nil {
		return err
	}
	defer null.Close()
	var argv []string
	switch kind {
	case "http", "tls", "writable", "spare": // spare is a writable one beside http
		c := fixture.RegistryConfig{Storage: run.set.Registry(), Addr: "127.0.0.1:5000", Dir: dir}
		if kind == "spare" {
			c.Addr = "127.0.0.1:5001"
		}
		if kind == "writable" || kind == "spare" {
			c.Storage, c.Writable = filepath.Join(dir, "storage"), true
		}
		argv = []string{"docker-registry", "serve", filepath.Join(dir, kind+".yml")}
		if kind != "http" && kind != "spare" {
			c.Addr, c.TLS = machine.OutsideAddr+":5443", true
			argv = append([]string{"ip", "netns", "exec", "outside"}, argv...)
			if err := fixture.WriteCertificates(dir, "registry.test:5443"); err != nil {
				return err
			}
		}
		if err := os.WriteFile(filepath.Join(dir, kind+".yml"), []byte(c.File()), 0o644); err != nil {
			return err
		}
	case "faulty":
		self, err := os.Executable()
		if err != nil {
			return err
		}
		argv = []string{self, "127.0.0.1:5050", run.set.Registry()}
		env = append(env, machine.RoleEnv+"=faulty")
	default:
		return fmt.Errorf("unknown registry %q", kind)
	}
	if _, err := m.Start(machine.Spec{Argv: argv, Env: env, Dir: "/", Stdin: null, Stdout: log, Stderr: log}); err != nil {
		return err
	}
	return fixture.Listening(logName, scaled(20*time.Second))
}
