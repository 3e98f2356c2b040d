package test

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"glassbox/plan"
)

// truthBuilds are Dockerfiles with one RUN, and the flags that their builds need.
func truthBuilds() [][2]string {
	const from = "FROM busybox\n"
	return [][2]string{
		{"", from + "RUN true"},
		{"", from + "RUN --network=none true"},
		{"--allow network.host", from + "RUN --network=host true"},
		{"--allow security.insecure", from + "RUN --security=insecure true"},
		{"", from + "ENV A=b\nUSER 1000:1000\nWORKDIR /made/here\nRUN --network=none echo $A"},
		{"", from + "RUN --network=none --mount=type=cache,target=/c,mode=0777 --mount=type=tmpfs,target=/t,size=1m echo x > /c/x"},
		{"--secret id=t,src=token", from + "RUN --network=none --mount=type=secret,id=t,mode=0444 cat /run/secrets/t"},
		{"", from + "RUN --network=none --mount=type=bind,target=/ctx --mount=type=bind,source=dir,target=/rw,rw touch /rw/x"},
		{"--ulimit nofile=100:200 --shm-size 1m --memory 64m", from + "RUN --network=none true"},
		{"--add-host a:192.0.2.1", from + "RUN true"},
		{"", from + "SHELL [\"/bin/busybox\", \"sh\", \"-c\"]\nRUN --network=none exec true"},
		{"", from + "RUN --network=none [\"/bin/true\", \"a b\", \"\"]"},
	}
}

// TestTruthBuild is the truth test for the RUNs of builds: what the process that makes a RUN, and its child, ask of the kernel is what the
// plan says that a trace of the build (--trace FILE.json) shows. What the builder itself does around that, the step's file system and its
// cache, is no part of a plan.
func TestTruthBuild(t *testing.T) {
	strace, err := exec.LookPath("strace")
	if err != nil {
		t.Skip("needs strace")
	}
	s := besiege(t)
	s.furnish()
	s.shell("mkdir -p ctx/dir && echo x >ctx/dir/file && printf s3cret >token")
	mutated := map[string]bool{}
	for i, c := range truthBuilds() {
		name := fmt.Sprintf("truth-build%d", i)
		df, file, told := filepath.Join(s.dir, name), filepath.Join(s.dir, name+".trace"), filepath.Join(s.dir, name+".json")
		must(t, os.WriteFile(df, []byte(c[1]+"\n"), 0o644))
		argv := []string{
			strace, "-f", "-n", "-v", "-s", "1000000", "-xx", "-yy", "-X", "raw", "-o", file, "glassbox", "build", "--no-cache", "--progress",
			"plain", "--trace", told, "-f", df,
		}
		argv = append(argv, strings.Fields(strings.ReplaceAll(c[0], "src=token", "src="+filepath.Join(s.dir, "token")))...)
		res := s.on(append(argv, filepath.Join(s.dir, "ctx"))...)
		if res.Code != 0 {
			t.Errorf("%s: exit code %d: %s", c[1], res.Code, res.Stderr)
			continue
		}
		var tr struct {
			Steps []struct{ Made *plan.Plan }
		}
		text, err := os.ReadFile(told)
		must(t, err)
		must(t, json.Unmarshal(text, &tr))
		var plans []*plan.Plan
		for _, step := range tr.Steps {
			if step.Made != nil {
				plans = append(plans, step.Made)
			}
		}
		if len(plans) != 1 {
			t.Errorf("%s: %d plans", c[1], len(plans))
			continue
		}
		data, err := os.ReadFile(file)
		must(t, err)
		must(t, os.WriteFile(file, []byte(ofOnce(string(data))), 0o644))
		s.judge(c[1], plans[0], file, mutated)
		os.Remove(file)
	}
	t.Logf("taken out, and missed: %v", slices.Sorted(maps.Keys(mutated)))
	if len(mutated) < 30 {
		t.Errorf("only %d kinds of steps were taken out to see the test fail: %v", len(mutated), mutated)
	}
}

// ofOnce leaves in a trace what the process that makes a RUN did, with all that it has cloned, from its first call on.
func ofOnce(text string) string {
	hex := func(s string) (out string) {
		for _, b := range []byte(s) {
			out += fmt.Sprintf(`\x%02x`, b)
		}
		return out
	}
	begins := `["` + hex("glassbox-runtime") + `", "` + hex("once") + `"`
	line := regexp.MustCompile(`^(\d+) +\[ *\d+\] (.*)$`)
	made := regexp.MustCompile(`^(?:clone3?|v?fork)\(.*\) += (?:=> \{.*\}, \d+\) = )?(\d+)$|^<\.\.\. (?:clone3?|v?fork) resumed>.*= (\d+)$`)
	lines := strings.SplitAfter(text, "\n")
	first := slices.IndexFunc(lines, func(l string) bool { return strings.Contains(l, begins) })
	if first < 0 {
		return ""
	}
	lines = lines[first:]
	family := map[string]bool{line.FindStringSubmatch(strings.TrimSpace(lines[0]))[1]: true}
	for grown := true; grown; {
		grown = false
		for _, l := range lines {
			m := line.FindStringSubmatch(strings.TrimSpace(l))
			if m == nil || !family[m[1]] {
				continue
			}
			for _, pid := range slices.Concat(made.FindAllStringSubmatch(m[2], -1)...) {
				if _, err := strconv.Atoi(pid); err == nil && !family[pid] {
					family[pid], grown = true, true
				}
			}
		}
	}
	var out strings.Builder
	for _, l := range lines {
		if pid, _, _ := strings.Cut(l, " "); family[pid] {
			out.WriteString(l)
		}
	}
	return out.String()
}
