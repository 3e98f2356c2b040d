package cli

import (
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// commandOrNil is commandAt, or nil where there is no such command.
func commandOrNil(path string) *cobra.Command {
	a := &app{in: os.Stdin, out: os.Stdout, err: os.Stderr}
	words := strings.Fields(path)
	cmd, rest, err := a.rootCommand(words).Find(words)
	if err != nil || len(rest) > 0 {
		return nil
	}
	return cmd
}

// commandAt finds a command by its path, built as for a command line that begins with it.
func commandAt(t *testing.T, path string) *cobra.Command {
	t.Helper()
	cmd := commandOrNil(path)
	if cmd == nil {
		t.Fatalf("there is no command %s", path)
	}
	return cmd
}

// TestDockerFlags: each flag of docker's commands is there, or takes docker's default and refuses all else with a sentence.
func TestDockerFlags(t *testing.T) {
	missing := 0
	for line := range strings.Lines(docker28) {
		section, ok := strings.CutPrefix(strings.TrimSpace(line), "[")
		if section = strings.TrimSuffix(section, "]"); !ok || section == "commands" {
			continue
		}
		path := section
		if section == "docker" {
			path = ""
		}
		cmd := commandOrNil(path)
		if cmd == nil { // TestDockerCommands sees it refused
			continue
		}
		flags := dockerFlags(section)
		for _, f := range flags {
			if f.name == "help" || section == "docker" && f.name == "version" {
				continue
			}
			flag := cmd.Flag(f.name)
			if flag == nil {
				t.Errorf("%s --%s is neither there nor refused", section, f.name)
				continue
			}
			m, ok := flag.Value.(*missingFlag)
			if !ok {
				continue
			}
			missing++
			if !flag.Hidden {
				t.Errorf("%s --%s is in the help", section, f.name)
			}
			if f.kind != "list" && f.kind != "map" && !slices.Contains([]string{"gpu-request", "ulimit", "network", "mount", "filter"}, f.kind) {
				if err := m.Set(defaultOf(f)); err != nil {
					t.Errorf("%s --%s with docker's default: %v", section, f.name, err)
				}
			}
			value := "something"
			if f.kind == "bool" {
				if value = "true"; defaultOf(f) == "true" || slices.Contains(harmless(f.name), "true") {
					continue // both ways are no wish
				}
			}
			if asDocker(f.name, value) != "" || f.name == "kernel-memory" {
				continue // TestFlagErrors
			}
			if err := m.Set(value); err == nil || !strings.Contains(err.Error(), "docker has this flag, glassbox does not have it yet") {
				t.Errorf("%s --%s %s: got %v", section, f.name, value, err)
			}
		}
	}
	if missing < 30 {
		t.Errorf("only %d flags of docker's are missing: is the file read?", missing)
	}
}

// defaultOf is a flag's default as one would type it.
func defaultOf(f dockerFlag) string {
	switch {
	case f.def != "":
		return f.def
	case f.kind == "bool":
		return "false"
	case f.kind == "int" || f.kind == "uint" || f.kind == "bytes":
		return "0"
	}
	return ""
}

// TestDefaultsOfDocker: docker's defaults are taken, in one command line.
func TestDefaultsOfDocker(t *testing.T) {
	for _, section := range []string{"run", "create"} {
		cmd := commandAt(t, section)
		args := strings.Fields("--restart no --log-driver json-file --isolation default --userns host --cpu-count 0 --cpu-percent 0 " +
			"--kernel-memory 0 " +
			"--health-interval 0s --health-retries 0 --no-healthcheck --disable-content-trust --volume-driver local --io-maxiops 0 --ip6= " +
			"--health-cmd=")
		if err := cmd.ParseFlags(append(args, "busybox")); err != nil {
			t.Errorf("%s: %v", section, err)
		}
	}
}

// TestDockerCommands: each command of docker's is there, or refused by name.
func TestDockerCommands(t *testing.T) {
	a := &app{in: os.Stdin, out: os.Stdout, err: os.Stderr}
	n := 0
	for line := range strings.Lines(dockerSection("commands")) {
		words := strings.Fields(line)
		root := a.rootCommand(nil)
		cmd, rest, _ := root.Find(words)
		if n++; len(rest) == 0 && cmd != root {
			continue
		}
		known := len(words) - len(rest) // the first word that is no command here is refused
		err := unknownCommand(cmd, words[known])
		if !strings.Contains(err.Error(), "docker has the command "+strings.Join(words[:known+1], " ")+", glassbox does not have it") {
			t.Errorf("%s: got %v", strings.TrimSpace(line), err)
		}
	}
	if n < 80 {
		t.Errorf("only %d commands are listed", n)
	}
	if err := unknownCommand(a.rootCommand(nil), "nonsense"); strings.Contains(err.Error(), "docker") {
		t.Errorf("nonsense: got %v", err)
	}
}

// TestDocker28 compares the list with a docker 28 on this machine.
func TestDocker28(t *testing.T) {
	version, err := exec.Command("docker", "--version").Output()
	if err != nil || !strings.HasPrefix(string(version), "Docker version 28.") {
		t.Skipf("needs docker 28: %q, %v", version, err)
	}
	line := regexp.MustCompile(`(?m)^ +(?:-(\w), )? *--([a-z0-9-]+)(?: ([a-z0-9-]+))?(?:  |$)`)
	for l := range strings.Lines(docker28) {
		section, ok := strings.CutPrefix(strings.TrimSpace(l), "[")
		if section = strings.TrimSuffix(section, "]"); !ok || section == "commands" {
			continue
		}
		args := append(strings.Fields(section), "--help")
		if section == "docker" {
			args = args[1:]
		}
		cmd := exec.Command("docker", args...)
		cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=/nonexistent"}
		text, err := cmd.Output()
		if err != nil {
			t.Errorf("docker %v: %v", args, err)
		}
		var have, want []string
		for _, m := range line.FindAllStringSubmatch(string(text), -1) {
			have = append(have, m[2]+" "+m[1])
		}
		for _, f := range dockerFlags(section) {
			want = append(want, f.name+" "+f.short)
		}
		slices.Sort(have)
		slices.Sort(want)
		if !slices.Equal(have, want) {
			t.Errorf("docker %s: its help has %q, our list %q", section, have, want)
		}
	}
}

// TestFlagErrors: what is wrong with a flag's value is said without words of Go.
func TestFlagErrors(t *testing.T) {
	for line, want := range map[string]string{
		"run --cpu-shares x b":                        `invalid argument "x" for "-c, --cpu-shares" flag: want a whole number`,
		"run --oom-score-adj 99999999999999999999 b":  "the number is too large",
		"run --oom-score-adj=-99999999999999999999 b": "the number is too small",
		"run --blkio-weight=-1 b":                     "want a whole number, not below 0",
		"run --init=maybe b":                          "want true or false",
		"stop -t soon b":                              "want a whole number",
		"exec --restart b":                            "unknown flag",
		"run --memory-swappiness= b":                  "want a whole number",
		"run --health-interval 3 b":                   "want a time such as",
		"run --isolation x b":                         "invalid isolation 'x' on linux",
		"run --userns auto b":                         "--userns auto: invalid USER mode",
		"run --cpu-count 3 b":                         "is only supported on a Docker daemon running on windows",
		"run --kernel-memory some b":                  "kernel-memory",
	} {
		words := strings.Fields(line)
		cmd := commandAt(t, words[0])
		err := cmd.ParseFlags(words[1:])
		if err == nil {
			t.Errorf("%s: no error", line)
			continue
		}
		if err = flagError(cmd, err); !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "strconv") {
			t.Errorf("%s: got %v, want %q", line, err, want)
		}
	}
	var _ pflag.Value = (*missingFlag)(nil)
}
