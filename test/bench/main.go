// Bench measures glassbox beside whichever of docker, podman, runc and crun is installed, in one run, and writes a page with
// the medians and their ratios.
//
// All of them run in one test machine (package machine), so that nothing on the host changes, from one registry and one
// image, and turn by turn (A B C, A B C, …), so that a noisy neighbour is noisy for all.
package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"sort"
	"strings"
	"time"

	"glassbox/test/fixture"
	"glassbox/test/machine"
)

func main() {
	machine.Main() // returns at once unless this process is a machine's first
	bin := flag.String("bin", "bin", "directory of the binaries")
	out := flag.String("o", "", "page to write, or empty for none")
	runs := flag.Int("n", 20, "measurements of each, after a warm-up")
	pulls := flag.Int("pulls", 5, "measurements of each pull, after a warm-up")
	containers := flag.Int("containers", 300, "how many containers idle at the same time")
	part := flag.String("only", "",
		"measure one part and print it: starts (all of them), runtimes, idle (many containers), life (cp, commit, push, save, load, health), "+
			"build, net, or api")
	stock := flag.String("buildkit", "", "directory of stock buildkitd and buildctl (test/buildkit.sh build makes them), to be built beside")
	compose := flag.String("compose", "out/clients/docker-compose", "Compose's program (test/clients.sh compose builds it)")
	flag.Parse()
	if *part != "" {
		*out = ""
	}
	if file, err := filepath.Abs(*compose); err == nil && *compose != "" {
		if *compose = file; !isFile(file) {
			*compose = ""
		}
	}
	page, err := bench(*bin, *stock, *compose, *runs, *pulls, *containers, *part)
	fmt.Print(page)
	if err == nil && *out != "" {
		err = os.WriteFile(*out, []byte(page), 0o644)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

const (
	image  = "127.0.0.1:5000/busybox"
	debian = "127.0.0.1:5000/debian"
)

// engine is one of those compared: the command line that goes before the verb, and what differs in verbs.
type engine struct {
	name    string
	command []string
	pull    []string // flags
	resides string   // name of the processes that stay for a container
	version string
}

// figures are what was measured of each engine, in turn.
type figures map[string][]float64

// table is what was measured, row by row in the order in which they came.
type table struct {
	rows   []string
	values map[string]figures
}

func (t *table) add(row, name string, value float64) {
	if t.values == nil {
		t.values = map[string]figures{}
	}
	if t.values[row] == nil {
		t.values[row] = figures{}
		t.rows = append(t.rows, row)
	}
	t.values[row][name] = append(t.values[row][name], value)
}

type bencher struct {
	m     *machine.Machine
	env   []string
	work  string
	jobs  []*machine.Job
	small string // the program that measures peaks
}

func isFile(path string) bool {
	st, err := os.Stat(path)
	return err == nil && st.Mode().IsRegular()
}

func bench(bin, stock, compose string, runs, pulls, containers int, part string) (page string, err error) {
	bin, err = filepath.Abs(bin)
	if err != nil {
		return "", err
	}
	if stock != "" { // programs are started in the machine, whose directory is another
		if stock, err = filepath.Abs(stock); err != nil {
			return "", err
		}
	}
	set, err := fixture.Build("test", os.Stderr)
	if err != nil {
		return "", err
	}
	work, err := os.MkdirTemp("", "gb-bench-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(work)
	m, err := machine.Start("bench", filepath.Join(work, "machine"))
	if err != nil {
		return "", err
	}
	defer m.Close()
	b := &bencher{m: m, work: work, env: []string{
		"PATH=" + bin + ":/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
		"HOME=" + work, "TMPDIR=" + work,
	}}
	if b.small, err = b.program("peak", peakSource); err != nil {
		return "", err
	}
	if part == "runtimes" {
		text, err := b.runtimes()
		if err != nil {
			return text, err
		}
		loops, err := b.loops(nil)
		return text + loops, err
	}
	names := []string{image, debian}
	if part == "idle" || part == "net" || part == "api" {
		names = names[:1]
	}
	engines, err := b.withImages(bin, set, names)
	if err != nil {
		return "", err
	}

	var text strings.Builder
	fmt.Fprintf(&text, "# Benchmarks\n\nWritten by `make bench`. Medians of %d runs (%d pulls) after a warm-up, whole processes from "+
		"fork to exit, all engines in turn on\nthe same machine, image and registry. Smaller is better; in brackets, how many times "+
		"glassbox's figure.\n\n", runs, pulls)
	text.WriteString(describe(engines))

	var t table
	switch part {
	case "idle":
		err = b.idle(engines, containers, t.add)
	case "starts":
		if err := b.verbs(engines, runs, &t); err != nil {
			return text.String(), err
		}
		runtimes, err := b.runtimes()
		if err != nil {
			return text.String() + tabulate(engines, t), err
		}
		loops, err := b.loops(engines)
		return text.String() + tabulate(engines, t) + "\n" + runtimes + loops, err
	case "net":
		networks, err := b.networks(engines, runs, containers)
		return text.String() + networks, err
	case "api":
		served, err := b.serving(engines, compose, runs, containers)
		return text.String() + served, err
	case "life":
		err = b.life(engines, runs, &t)
	case "build":
		engines, err = b.building(engines, stock, min(runs, 5), &t)
	default:
		err := b.all(engines, stock, compose, runs, pulls, containers, &text)
		return text.String(), err
	}
	return text.String() + tabulate(engines, t), err
}

// all is the whole page. What was measured before an error is on it.
func (b *bencher) all(engines []engine, stock, compose string, runs, pulls, containers int, page *strings.Builder) error {
	var t table
	err := b.verbs(engines, runs, &t)
	if err == nil {
		err = b.life(engines, min(runs, 3), &t)
	}
	if err == nil {
		err = b.pulls(engines, pulls, &t)
	}
	if err == nil {
		err = b.idle(engines, containers, t.add)
	}
	page.WriteString(tabulate(engines, t) + "\n")
	if err != nil {
		return err
	}
	networks, err := b.networks(engines, runs, containers)
	if err != nil {
		return err
	}
	page.WriteString("Networks, of engines that have names.\n\n" + networks + "\n")
	served, err := b.serving(engines, compose, runs, containers)
	page.WriteString("The API, by one client that keeps its connection, and by Compose.\n\n" + served + "\n")
	if err != nil {
		return err
	}
	var built table
	list, err := b.building(engines, stock, min(runs, 5), &built)
	if err == nil {
		page.WriteString(tabulate(list, built) + "\n")
	}
	if err != nil {
		return err
	}
	runtimes, err := b.runtimes()
	page.WriteString(runtimes)
	if err != nil {
		return err
	}
	loops, err := b.loops(engines)
	page.WriteString(loops)
	return err
}

// withImages serves the images and gives them to all engines.
func (b *bencher) withImages(bin string, set fixture.Set, names []string) ([]engine, error) {
	// Podman's and Docker's plugins keep leases in /var/lib.
	if _, err := b.must("mount", "-t", "tmpfs", "tmpfs", "/var/lib"); err != nil {
		return nil, err
	}
	config := filepath.Join(b.work, "registry.yml")
	err := os.WriteFile(config, []byte(fixture.RegistryConfig{Storage: set.Registry(), Addr: "127.0.0.1:5000"}.File()), 0o644)
	if err != nil {
		return nil, err
	}
	if err := b.serve("docker-registry", "serve", config); err != nil {
		return nil, err
	}
	engines := b.engines(bin)
	for _, e := range engines {
		for _, name := range names {
			if _, err := b.must(e.pulling(name)...); err != nil {
				return nil, err
			}
		}
	}
	return engines, nil
}

// verb is a command line of the engine's.
func (e engine) verb(args ...string) []string { return append(slices.Clone(e.command), args...) }

func (e engine) pulling(name string) []string {
	return append(append(e.verb("pull"), e.pull...), name)
}

// turn measures a command of each engine n times, in turn, after two that don't count. Before each the other command is run, if there is
// one.
func (b *bencher) turn(engines []engine, t *table, row string, n int, command, before func(e engine) []string,
	after ...func(e engine) []string,
) error {
	fmt.Fprintln(os.Stderr, "bench:", row)
	for i := range n + 2 {
		for _, e := range engines {
			if before != nil {
				if _, err := b.must(before(e)...); err != nil {
					return err
				}
			}
			res, err := b.must(command(e)...)
			if err != nil {
				return err
			}
			if i >= 2 {
				t.add(row, e.name, milliseconds(res))
			}
			for _, f := range after {
				if _, err := b.must(f(e)...); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

func milliseconds(res machine.Result) float64 { return float64(res.Took.Microseconds()) / 1000 }

// verbs measures run and exec, and what stays in memory for a container.
func (b *bencher) verbs(engines []engine, runs int, t *table) error {
	verb := func(args ...string) func(engine) []string { return func(e engine) []string { return e.verb(args...) } }
	if err := b.turn(engines, t, "`run --rm IMAGE true`, bridge, ms", runs, verb("run", "--rm", image, "true"), nil); err != nil {
		return err
	}
	if err := b.turn(engines, t, "`run --rm --network none IMAGE true`, ms", runs, verb("run", "--rm", "--network", "none", image, "true"),
		nil); err != nil {
		return err
	}
	for _, e := range engines {
		before := b.resident()
		if _, err := b.must(e.verb("run", "-d", "--name", "resident", image, "sleep", "3600")...); err != nil {
			return err
		}
		time.Sleep(time.Second)
		pss := 0
		for pid, comm := range b.resident() {
			if _, was := before[pid]; !was && strings.HasPrefix(e.resides, comm) {
				pss += b.pss(pid)
			}
		}
		t.add("resident supervisor of a container, PSS, MB", e.name, float64(pss)/1000)
	}
	if err := b.turn(engines, t, "`exec CONTAINER true`, ms", runs, verb("exec", "resident", "true"), nil); err != nil {
		return err
	}
	for _, e := range engines {
		if _, err := b.must(e.verb("rm", "-f", "resident")...); err != nil {
			return err
		}
	}
	return nil
}

// pulls measures how long a pull takes, and how much memory.
func (b *bencher) pulls(engines []engine, pulls int, t *table) error {
	pull := func(e engine) []string { return e.pulling(debian) }
	rmi := func(e engine) []string { return e.verb("rmi", debian) }
	if err := b.turn(engines, t, "`pull` of the Debian image from a registry on loopback, ms", pulls, pull, rmi); err != nil {
		return err
	}
	for range pulls {
		for _, e := range engines {
			if e.name == "docker" { // its daemon pulls
				continue
			}
			if _, err := b.must(rmi(e)...); err != nil {
				return err
			}
			peak, err := b.peak(pull(e)...)
			if err != nil {
				return err
			}
			t.add("peak memory of the pulling process, MB", e.name, peak)
		}
	}
	return nil
}

// tabulate writes the medians of each row, and how many times the first engine's figure they are.
func tabulate(engines []engine, t table) string {
	if len(t.rows) == 0 {
		return ""
	}
	var text strings.Builder
	fmt.Fprintf(&text, "| |")
	for _, e := range engines {
		fmt.Fprintf(&text, " %s |", e.name)
	}
	fmt.Fprintf(&text, "\n|---|%s\n", strings.Repeat("---:|", len(engines)))
	for _, row := range t.rows {
		fmt.Fprintf(&text, "| %s |", row)
		base := median(t.values[row][engines[0].name])
		for i, e := range engines {
			value := median(t.values[row][e.name])
			switch {
			case len(t.values[row][e.name]) == 0:
				fmt.Fprint(&text, " |")
			case i == 0:
				fmt.Fprintf(&text, " **%.1f** |", value)
			default:
				fmt.Fprintf(&text, " %.1f (%.1f) |", value, value/base)
			}
		}
		fmt.Fprintln(&text)
	}
	return text.String()
}

// engines finds what is installed and makes it ready, glassbox first.
func (b *bencher) engines(bin string) []engine {
	list := []engine{{
		name: "glassbox", resides: "glassbox-runtime",
		command: []string{filepath.Join(bin, "glassbox"), "--root", filepath.Join(b.work, "glassbox"), "--state", "/run/glassbox"},
	}}
	if e, err := b.docker(); err == nil {
		list = append(list, e)
	} else {
		fmt.Fprintln(os.Stderr, "bench: no docker:", err)
	}
	if e, err := b.podman(); err == nil {
		list = append(list, e)
	} else {
		fmt.Fprintln(os.Stderr, "bench: no podman:", err)
	}
	for i := range list {
		res, err := b.must(list[i].command[0], "--version")
		if err == nil {
			list[i].version = strings.TrimSpace(res.Stdout)
		}
	}
	return list
}

// docker starts a daemon of its own, which ends with the machine.
func (b *bencher) docker() (engine, error) {
	for _, program := range []string{"docker", "dockerd", "containerd"} {
		if _, err := exec.LookPath(program); err != nil {
			return engine{}, err
		}
	}
	err := b.serve("dockerd", "--host", "unix:///run/docker.sock", "--data-root", filepath.Join(b.work, "docker"),
		"--exec-root", "/run/docker", "--pidfile", "/run/docker.pid", "--group", "root")
	if err != nil {
		return engine{}, err
	}
	e := engine{
		name: "docker", resides: "containerd-shim-runc-v2",
		command: []string{"docker", "--host", "unix:///run/docker.sock"},
	}
	for range 100 {
		if _, err = b.must("docker", "--host", "unix:///run/docker.sock", "version"); err == nil {
			return e, nil
		}
		time.Sleep(200 * time.Millisecond)
	}
	return engine{}, err
}

func (b *bencher) podman() (engine, error) {
	if _, err := exec.LookPath("podman"); err != nil {
		return engine{}, err
	}
	// Without default_ulimits Podman asks for limits that a machine without CAP_SYS_RESOURCE can't give.
	conf := filepath.Join(b.work, "containers.conf")
	policy := filepath.Join(b.work, ".config/containers")
	err := errors.Join(
		os.WriteFile(conf, []byte("[containers]\ndefault_ulimits = []\n[engine]\ncgroup_manager = \"cgroupfs\"\nevents_logger = \"file\"\n"),
			0o644),
		os.MkdirAll(policy, 0o755),
		os.WriteFile(filepath.Join(policy, "policy.json"), []byte(`{"default": [{"type": "insecureAcceptAnything"}]}`), 0o644))
	if err != nil {
		return engine{}, err
	}
	b.env = append(b.env, "CONTAINERS_CONF="+conf)
	// crun refuses hosts with both versions of cgroups.
	for _, oci := range []string{"crun", "runc"} {
		e := engine{
			name: "podman", resides: "conmon", pull: []string{"--tls-verify=false"},
			command: []string{
				"podman", "--root", filepath.Join(b.work, "podman"), "--runroot", "/run/podman", "--tmpdir", "/run/libpod",
				"--runtime", oci,
			},
		}
		_, err = b.must(append(append([]string{}, e.command...), "pull", "--tls-verify=false", image)...)
		if err == nil {
			_, err = b.must(append(append([]string{}, e.command...), "run", "--rm", image, "true")...)
		}
		if err == nil {
			e.name += " (" + oci + ")"
			return e, nil
		}
	}
	return engine{}, err
}

// must runs a command in the machine to its good end.
func (b *bencher) must(argv ...string) (machine.Result, error) {
	res, err := b.m.Run(3*time.Minute, argv, b.env, "/")
	if err == nil && (res.Code != 0 || res.TimedOut) {
		err = fmt.Errorf("%s: exit code %d\n%s%s", strings.Join(argv, " "), res.Code, res.Stdout, res.Stderr)
	}
	return res, err
}

// serve starts a server, whose life is the machine's.
func (b *bencher) serve(argv ...string) error {
	job, err := b.m.Go(argv, b.env, "/", nil)
	if err != nil {
		return err
	}
	b.jobs = append(b.jobs, job)
	select {
	case <-job.Done():
		res, err := job.Finish(0)
		return fmt.Errorf("%s ended: %v\n%s%s", argv[0], err, res.Stdout, res.Stderr)
	case <-time.After(2 * time.Second):
		return nil
	}
}

// resident lists the machine's processes by name.
func (b *bencher) resident() map[int]string {
	list := map[int]string{}
	for pid := range b.m.Processes() {
		comm, err := os.ReadFile(b.m.Path(fmt.Sprintf("/proc/%d/comm", pid)))
		if err == nil {
			list[pid] = strings.TrimSpace(string(comm))
		}
	}
	return list
}

// pss is a process's proportional set size in kB.
func (b *bencher) pss(pid int) int {
	text, _ := os.ReadFile(b.m.Path(fmt.Sprintf("/proc/%d/smaps_rollup", pid)))
	for _, line := range strings.Split(string(text), "\n") {
		var kb int
		if n, _ := fmt.Sscanf(line, "Pss: %d kB", &kb); n == 1 {
			return kb
		}
	}
	return 0
}

func median(values []float64) float64 {
	if len(values) == 0 {
		return 0
	}
	sorted := append([]float64(nil), values...)
	sort.Float64s(sorted)
	if n := len(sorted); n%2 == 0 {
		return (sorted[n/2-1] + sorted[n/2]) / 2
	}
	return sorted[len(sorted)/2]
}

func describe(engines []engine) string {
	var out strings.Builder
	kernel, _ := os.ReadFile("/proc/sys/kernel/osrelease")
	cpu := runtime.GOARCH
	info, _ := os.ReadFile("/proc/cpuinfo")
	for _, line := range strings.Split(string(info), "\n") {
		if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
			cpu = strings.TrimSpace(value)
			break
		}
	}
	hierarchies, _ := machine.Hierarchies()
	kinds := map[bool]bool{}
	for _, h := range hierarchies {
		kinds[h.Unified] = true
	}
	cgroups := "v1"
	if kinds[true] && kinds[false] {
		cgroups = "hybrid"
	} else if kinds[true] {
		cgroups = "v2"
	}
	fmt.Fprintf(&out, "Machine: %s, %d processors, Linux %s, cgroup %s.\n", cpu, runtime.NumCPU(), strings.TrimSpace(string(kernel)), cgroups)
	var versions []string
	for _, e := range engines {
		if e.version != "" {
			versions = append(versions, strings.Split(e.version, "\n")[0])
		}
	}
	for _, name := range []string{"runc", "crun"} {
		if text, err := exec.Command(name, "--version").Output(); err == nil {
			versions = append(versions, strings.Split(string(text), "\n")[0])
		}
	}
	fmt.Fprintf(&out, "Versions: %s.\n\n", strings.Join(versions, "; "))
	return out.String()
}
