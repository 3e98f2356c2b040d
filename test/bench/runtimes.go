package main

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"glassbox/test/machine"
)

// runtimeRuns is how often each runtime's commands are measured. They are short, and so are many runs of them.
const runtimeRuns = 40

// runtimes measures the OCI runtimes in turn, on one bundle with the default specification of runc. Debian's crun refuses hybrid
// hosts: all of them run without the v2 hierarchy there.
func (b *bencher) runtimes() (string, error) {
	bundle := filepath.Join(b.work, "bundle")
	if err := os.MkdirAll(filepath.Join(bundle, "rootfs", "bin"), 0o755); err != nil {
		return "", err
	}
	for _, name := range []string{"true", "sleep"} {
		if _, err := b.must("cp", "/bin/busybox", filepath.Join(bundle, "rootfs", "bin", name)); err != nil {
			return "", err
		}
	}
	b.must("umount", "/sys/fs/cgroup/unified")
	names := []string{"glassbox-runtime"}
	for _, name := range []string{"crun", "runc"} {
		if _, err := exec.LookPath(name); err == nil {
			names = append(names, name)
		}
	}
	// The last one is runc where it is installed.
	if _, err := b.must("sh", "-c", "cd "+bundle+" && rm -f config.json && "+names[len(names)-1]+" spec"); err != nil {
		return "", err
	}
	config := func(memory int64, args ...string) error {
		file := filepath.Join(bundle, "config.json")
		text, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		var spec map[string]any
		if err := json.Unmarshal(text, &spec); err != nil {
			return err
		}
		process := spec["process"].(map[string]any)
		process["terminal"], process["args"] = false, args
		delete(process, "rlimits") // raising them is not everybody's right
		resources := spec["linux"].(map[string]any)["resources"].(map[string]any)
		delete(resources, "memory")
		if memory > 0 {
			resources["memory"] = map[string]any{"limit": memory}
		}
		if text, err = json.Marshal(spec); err != nil {
			return err
		}
		return os.WriteFile(file, text, 0o644)
	}
	var rows []string
	table := map[string]figures{}
	add := func(row, name string, value float64) {
		if table[row] == nil {
			table[row] = figures{}
			rows = append(rows, row)
		}
		table[row][name] = append(table[row][name], value)
	}
	call := func(name string, args ...string) []string {
		return append([]string{name, "--log", "/dev/null", "--root", "/run/bench-" + name}, args...)
	}
	ms := func(res machine.Result) float64 { return float64(res.Took.Microseconds()) / 1000 }

	fmt.Fprintln(os.Stderr, "bench: OCI runtimes")
	empty, err := b.program("empty", "package main\n\nfunc main() {}\n")
	if err != nil {
		return "", err
	}
	if err := config(0, "/bin/true"); err != nil {
		return "", err
	}
	for i := range runtimeRuns + 2 {
		for _, name := range names {
			id := fmt.Sprint(name, i)
			res, err := b.must(call(name, "run", "--bundle", bundle, id)...)
			if err != nil {
				return "", err
			}
			peak, err := b.peak(call(name, "run", "--bundle", bundle, id)...)
			if err != nil {
				return "", err
			}
			sum := 0.0
			for _, args := range [][]string{{"create", "--bundle", bundle, id}, {"start", id}, {"delete", id}} {
				for args[0] == "delete" { // once true has ended
					state, err := b.must(call(name, "state", id)...)
					if err != nil {
						return "", err
					}
					if strings.Contains(state.Stdout, `"stopped"`) {
						break
					}
					time.Sleep(10 * time.Millisecond)
				}
				part, err := b.must(call(name, args...)...)
				if err != nil {
					return "", err
				}
				sum += ms(part)
			}
			version, err := b.must(name, "--version")
			if err != nil {
				return "", err
			}
			if i < 2 {
				continue
			}
			add("`run` of /bin/true, ms", name, ms(res))
			add("`create`, `start` and `delete` of the same, together, ms", name, sum)
			add("peak memory of `run`, MB", name, peak)
			add("`--version`, ms", name, ms(version))
		}
		res, err := b.must(empty)
		if err != nil {
			return "", err
		}
		if i >= 2 {
			add("`--version`, ms", "an empty Go program", ms(res))
		}
	}
	if err := config(0, "/bin/sleep", "3600"); err != nil {
		return "", err
	}
	for _, name := range names {
		if _, err := b.must(call(name, "run", "--detach", "--bundle", bundle, name+"-resident")...); err != nil {
			return "", err
		}
	}
	for i := range runtimeRuns + 2 {
		for _, name := range names {
			res, err := b.must(call(name, "exec", name+"-resident", "/bin/true")...)
			if err != nil {
				return "", err
			}
			if i >= 2 {
				add("`exec` of /bin/true, ms", name, ms(res))
			}
		}
	}
	for _, name := range names {
		if _, err := b.must(call(name, "delete", "--force", name+"-resident")...); err != nil {
			return "", err
		}
	}
	for _, name := range names {
		for kib := int64(256); kib <= 64<<10; kib *= 2 {
			if err := config(kib<<10, "/bin/true"); err != nil {
				return "", err
			}
			starts := true
			for range 3 {
				_, err := b.must(call(name, "run", "--bundle", bundle, fmt.Sprint(name, kib))...)
				b.must(call(name, "delete", "--force", fmt.Sprint(name, kib))...)
				if starts = err == nil; !starts {
					break // some take a minute to fail
				}
			}
			if starts {
				add("smallest memory limit with which /bin/true runs, KiB", name, float64(kib))
				break
			}
		}
	}

	if err := config(0, "/bin/true"); err != nil { // for the loops
		return "", err
	}

	var text strings.Builder
	fmt.Fprintf(&text, "\nOCI runtimes on a ready bundle with runc's default specification, medians of %d, whole processes, without "+
		"the v2 hierarchy of a hybrid\nhost. In brackets, glassbox-runtime's figure as a part of the other's.\n\n| |", runtimeRuns)
	columns := append(names, "an empty Go program")
	for _, name := range columns {
		fmt.Fprintf(&text, " %s |", name)
	}
	fmt.Fprintf(&text, "\n|---|%s\n", strings.Repeat("---:|", len(columns)))
	for _, row := range rows {
		fmt.Fprintf(&text, "| %s |", row)
		base := median(table[row][names[0]])
		for i, name := range columns {
			value := median(table[row][name])
			switch {
			case len(table[row][name]) == 0:
				fmt.Fprint(&text, " |")
			case i == 0:
				fmt.Fprintf(&text, " **%.2f** |", value)
			default:
				fmt.Fprintf(&text, " %.2f (%.2f) |", value, base/value)
			}
		}
		fmt.Fprintln(&text)
	}
	return text.String(), nil
}

// program builds a Go program of one file.
func (b *bencher) program(name, source string) (string, error) {
	dir := filepath.Join(b.work, name)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	for file, text := range map[string]string{"go.mod": "module " + name + "\n\ngo 1.24\n", "main.go": source} {
		if err := os.WriteFile(filepath.Join(dir, file), []byte(text), 0o644); err != nil {
			return "", err
		}
	}
	cmd := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-o", name, ".")
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build %s: %w: %s", name, err, out)
	}
	return filepath.Join(dir, name), nil
}

// peakSource runs a program and prints, as its last line, the most memory in KiB that it and those it waited for had resident.
const peakSource = `package main

import (
	"os"
	"os/exec"
	"syscall"
)

func main() {
	file, err := exec.LookPath(os.Args[1])
	pid := 0
	if err == nil {
		pid, err = syscall.ForkExec(file, os.Args[1:], &syscall.ProcAttr{Env: os.Environ(), Files: []uintptr{0, 1, 2}})
	}
	if err != nil {
		println(os.Args[1], err.Error())
		os.Exit(127)
	}
	var status syscall.WaitStatus
	var usage syscall.Rusage
	syscall.Wait4(pid, &status, 0, &usage)
	println()
	println(usage.Maxrss)
	os.Exit(status.ExitStatus())
}
`

// peak runs a program and returns the most memory, in MB, that it and those it waited for had resident (getrusage(2)). A program
// inherits the peak of the process that clones it, up to execve(2): it is cloned by one that is smaller than all that are measured.
func (b *bencher) peak(argv ...string) (float64, error) {
	res, err := b.must(append([]string{b.small}, argv...)...)
	if err != nil {
		return 0, err
	}
	words := strings.Fields(res.Stderr)
	kib, err := strconv.ParseFloat(words[len(words)-1], 64)
	return kib * 1024 / 1e6, err
}
