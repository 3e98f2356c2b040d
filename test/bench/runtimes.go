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
)

// runtimeRuns is how often each runtime's commands are measured. They are short, and so are many runs of them.
const runtimeRuns = 40

// compared is the bundle on which the OCI runtimes are measured, and what was measured.
type compared struct {
	*bencher
	bundle string
	names  []string // of the runtimes, glassbox's first
	empty  string   // a Go program that does nothing
	t      table
}

// runtimes measures the OCI runtimes in turn, on one bundle with the default specification of runc. Debian's crun refuses hybrid
// hosts: all of them run without the v2 hierarchy there.
func (b *bencher) runtimes() (string, error) {
	c := &compared{bencher: b, bundle: filepath.Join(b.work, "bundle"), names: []string{"glassbox-runtime"}}
	if err := os.MkdirAll(filepath.Join(c.bundle, "rootfs", "bin"), 0o755); err != nil {
		return "", err
	}
	for _, name := range []string{"true", "sleep"} {
		if _, err := b.must("cp", "/bin/busybox", filepath.Join(c.bundle, "rootfs", "bin", name)); err != nil {
			return "", err
		}
	}
	b.must("umount", "/sys/fs/cgroup/unified")
	for _, name := range []string{"crun", "runc"} {
		if _, err := exec.LookPath(name); err == nil {
			c.names = append(c.names, name)
		}
	}
	// The last one is runc where it is installed.
	if _, err := b.must("sh", "-c", "cd "+c.bundle+" && rm -f config.json && "+c.names[len(c.names)-1]+" spec"); err != nil {
		return "", err
	}
	fmt.Fprintln(os.Stderr, "bench: OCI runtimes")
	var err error
	if c.empty, err = b.program("empty", "package main\n\nfunc main() {}\n"); err != nil {
		return "", err
	}
	for _, measure := range []func() error{c.starts, c.execs, c.limits} {
		if err := measure(); err != nil {
			return "", err
		}
	}
	if err := c.config(0, "/bin/true"); err != nil { // for the loops
		return "", err
	}
	return c.page(), nil
}

// config writes the configuration of the bundle, with a limit of memory (bytes; 0 is none) and a command.
func (c *compared) config(memory int64, args ...string) error {
	file := filepath.Join(c.bundle, "config.json")
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

func (*compared) call(name string, args ...string) []string {
	return append([]string{name, "--log", "/dev/null", "--root", "/run/bench-" + name}, args...)
}

// starts measures whole lives of /bin/true.
func (c *compared) starts() error {
	if err := c.config(0, "/bin/true"); err != nil {
		return err
	}
	for i := range runtimeRuns + 2 {
		for _, name := range c.names {
			id := fmt.Sprint(name, i)
			res, err := c.must(c.call(name, "run", "--bundle", c.bundle, id)...)
			if err != nil {
				return err
			}
			peak, err := c.peak(c.call(name, "run", "--bundle", c.bundle, id)...)
			if err != nil {
				return err
			}
			sum := 0.0
			for _, args := range [][]string{{"create", "--bundle", c.bundle, id}, {"start", id}, {"delete", id}} {
				for args[0] == "delete" { // once true has ended
					state, err := c.must(c.call(name, "state", id)...)
					if err != nil {
						return err
					}
					if strings.Contains(state.Stdout, `"stopped"`) {
						break
					}
					time.Sleep(10 * time.Millisecond)
				}
				part, err := c.must(c.call(name, args...)...)
				if err != nil {
					return err
				}
				sum += milliseconds(part)
			}
			version, err := c.must(name, "--version")
			if err != nil {
				return err
			}
			if i < 2 {
				continue
			}
			c.t.add("`run` of /bin/true, ms", name, milliseconds(res))
			c.t.add("`create`, `start` and `delete` of the same, together, ms", name, sum)
			c.t.add("peak memory of `run`, MB", name, peak)
			c.t.add("`--version`, ms", name, milliseconds(version))
		}
		res, err := c.must(c.empty)
		if err != nil {
			return err
		}
		if i >= 2 {
			c.t.add("`--version`, ms", "an empty Go program", milliseconds(res))
		}
	}
	return nil
}

// execs measures a second command in a container.
func (c *compared) execs() error {
	if err := c.config(0, "/bin/sleep", "3600"); err != nil {
		return err
	}
	for _, name := range c.names {
		if _, err := c.must(c.call(name, "run", "--detach", "--bundle", c.bundle, name+"-resident")...); err != nil {
			return err
		}
	}
	for i := range runtimeRuns + 2 {
		for _, name := range c.names {
			res, err := c.must(c.call(name, "exec", name+"-resident", "/bin/true")...)
			if err != nil {
				return err
			}
			if i >= 2 {
				c.t.add("`exec` of /bin/true, ms", name, milliseconds(res))
			}
		}
	}
	for _, name := range c.names {
		if _, err := c.must(c.call(name, "delete", "--force", name+"-resident")...); err != nil {
			return err
		}
	}
	return nil
}

// limits finds the smallest limit of memory with which each can start a container.
func (c *compared) limits() error {
	for _, name := range c.names {
		for kib := int64(256); kib <= 64<<10; kib *= 2 {
			if err := c.config(kib<<10, "/bin/true"); err != nil {
				return err
			}
			starts := true
			for range 3 {
				_, err := c.must(c.call(name, "run", "--bundle", c.bundle, fmt.Sprint(name, kib))...)
				c.must(c.call(name, "delete", "--force", fmt.Sprint(name, kib))...)
				if starts = err == nil; !starts {
					break // some take a minute to fail
				}
			}
			if starts {
				c.t.add("smallest memory limit with which /bin/true runs, KiB", name, float64(kib))
				break
			}
		}
	}
	return nil
}

func (c *compared) page() string {
	var text strings.Builder
	fmt.Fprintf(&text, "\nOCI runtimes on a ready bundle with runc's default specification, medians of %d, whole processes, without "+
		"the v2 hierarchy of a hybrid\nhost. In brackets, glassbox-runtime's figure as a part of the other's.\n\n| |", runtimeRuns)
	columns := append(c.names, "an empty Go program")
	for _, name := range columns {
		fmt.Fprintf(&text, " %s |", name)
	}
	fmt.Fprintf(&text, "\n|---|%s\n", strings.Repeat("---:|", len(columns)))
	for _, row := range c.t.rows {
		fmt.Fprintf(&text, "| %s |", row)
		base := median(c.t.values[row][c.names[0]])
		for i, name := range columns {
			value := median(c.t.values[row][name])
			switch {
			case len(c.t.values[row][name]) == 0:
				fmt.Fprint(&text, " |")
			case i == 0:
				fmt.Fprintf(&text, " **%.2f** |", value)
			default:
				fmt.Fprintf(&text, " %.2f (%.2f) |", value, base/value)
			}
		}
		fmt.Fprintln(&text)
	}
	return text.String()
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
