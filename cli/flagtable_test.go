package cli

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/pflag"

	"glassbox/explain"
)

// differences are the flags that docs/docker-differences.md says are refused: "run --link".
func differences(t *testing.T) []string {
	t.Helper()
	page, err := os.ReadFile("../docs/docker-differences.md")
	if err != nil {
		t.Fatal(err)
	}
	word := regexp.MustCompile("`([a-z -]*)(--[a-z0-9-]+)`")
	var out []string
	for line := range strings.Lines(string(page)) {
		first, reason, ok := strings.Cut(strings.TrimPrefix(line, "| "), " | ")
		if !ok || len(strings.TrimSpace(strings.Trim(reason, "| \n"))) < 5 {
			continue
		}
		command := ""
		for _, m := range word.FindAllStringSubmatch(first, -1) {
			if m[1] != "" { // the flags that follow are of the same command
				command = m[1]
			}
			out = append(out, command+m[2])
		}
	}
	return out
}

// TestFlagTable counts, for every command that docker 28 and glassbox have, the flags that are there; each other one is on the page of
// differences, with its reason. That a flag does what it says is shown by the scripts; that it isn't ignored, by TestEveryFieldCounts.
func TestFlagTable(t *testing.T) {
	listed := differences(t)
	if len(listed) < 20 {
		t.Fatalf("only %d differences: is the page read?", len(listed))
	}
	whole := []string{
		"exec", "attach", "ps", "logs", "inspect", "container inspect", "image inspect", "stats", "events", "top", "port", "stop", "restart",
		"kill", "system df", "system events", "system info", "system prune", "container prune", "image prune",
		"cp", "diff", "volume inspect", "volume prune", "volume rm",
	}
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
		if cmd == nil {
			if slices.Contains(whole, section) {
				t.Errorf("there is no command %s", section)
			}
			continue
		}
		all, there := 0, 0
		for _, f := range dockerFlags(section) {
			if f.name == "help" || f.name == "version" {
				continue
			}
			all++
			if m, refused := cmd.Flag(f.name).Value.(*missingFlag); !refused || m.run && m.name == "kernel-memory" {
				there++
				continue
			}
			if text := asDocker(f.name, "x"); text != "" {
				there++ // docker refuses it as well
			}
			name := section + " --" + f.name
			if section == "create" { // it refuses what run refuses
				name = "run --" + f.name
			}
			if !slices.Contains(listed, name) {
				t.Errorf("%s is refused, and docs/docker-differences.md doesn't say why", name)
			}
		}
		least := all
		switch {
		case slices.Contains(whole, section):
		case section == "run" || section == "create":
			least = (all*95 + 99) / 100
		default:
			least = 0
		}
		if there < least {
			t.Errorf("%s has %d of docker's %d flags, want %d", section, there, all, least)
		}
		t.Logf("%s: %d of %d", section, there, all)
	}
}

// buildxFlags are those of `docker buildx build --help` (0.38.2) beside docker build's own.
const buildxFlags = "add-host allow annotation attest build-arg build-context builder cache-from cache-to call cgroup-parent check debug " +
	"file iidfile label load metadata-file network no-cache no-cache-filter output platform policy progress provenance pull push quiet " +
	"resource sbom secret shm-size ssh tag target ulimit"

// TestBuildFlags does the same for buildx, which is what docker build is today.
func TestBuildFlags(t *testing.T) {
	listed := differences(t)
	cmd := commandOrNil("build")
	for name := range strings.FieldsSeq(buildxFlags) {
		if cmd.Flag(name) == nil && cmd.InheritedFlags().Lookup(name) == nil && name != "debug" && !slices.Contains(listed, "build --"+name) {
			t.Errorf("buildx build --%s is neither there nor on the page of differences", name)
		}
	}
}

// TestOwnFlags compares what explain calls glassbox's own with what docker has.
func TestOwnFlags(t *testing.T) {
	var own []string
	var c createFlags
	fs := pflag.NewFlagSet("", pflag.ContinueOnError)
	c.register(fs, &app{})
	fs.VisitAll(func(f *pflag.Flag) {
		if !slices.ContainsFunc(dockerFlags("run"), func(d dockerFlag) bool { return d.name == f.Name }) {
			own = append(own, f.Name)
		}
	})
	want := explain.OwnFlags()
	slices.Sort(want)
	if !slices.Equal(own, want) {
		t.Errorf("of run's flags docker lacks %v, and explain knows %v", own, want)
	}
}
