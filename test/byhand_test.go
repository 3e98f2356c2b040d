package test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"glassbox/plan"
	"glassbox/verify"
)

// twin is a container of glassbox's own, and what verify finds of it: one made in another way has to be found the same.
type twin struct {
	command string // what glassbox explain explains, as a shell reads it: "run FLAGS IMAGE …", "bundle DIR"
	stored  string // its plan
	own     *verify.Report
	procs   []string // the files that list the processes of the plan's cgroups
}

// twin makes a container in glassbox's own way, looks at it, and removes it.
func (s *siege) twin(command string) *twin {
	s.Helper()
	t := &twin{command: command, stored: filepath.Join(s.dir, s.id("plan"))}
	kind, what, _ := strings.Cut(command, " ")
	s.ok(s.sh("glassbox explain " + kind + " --format json -o " + t.stored + " " + what))
	text, err := os.ReadFile(t.stored)
	must(s.T, err)
	var p plan.Plan
	must(s.T, json.Unmarshal(text, &p))
	for _, step := range p.Steps {
		if o, ok := step.Op.(*plan.CgroupCreate); ok {
			t.procs = append(t.procs, filepath.Join(o.Path, "cgroup.procs"))
		}
	}
	look := func(args ...string) {
		t.own, _ = s.verified(args...)
		if bad := faults(t.own); len(bad) > 0 {
			s.Errorf("glassbox's own, %s:\n%s", command, strings.Join(bad, "\n"))
		}
	}
	if kind == "bundle" {
		id := filepath.Base(what) // as explain takes it
		s.ok(s.sh("ip link del x0 2>/dev/null; ip link add x0 type veth peer name x1"))
		s.detached("glassbox-runtime", "run", "--detach", "--bundle", what, id)
		look("--runtime-root", "/run/glassbox-runtime", id)
		s.ok(s.on("glassbox-runtime", "delete", "--force", id))
		return t
	}
	id := s.id("own")
	s.ok(s.sh("glassbox run -d --name " + id + " " + what))
	look(id)
	s.ok(s.on("glassbox", "rm", "-f", id))
	return t
}

// same makes the container in another way and compares what verify finds, but for the steps that are said to be missing there.
func (s *siege) same(t *twin, said map[int]bool, argv ...string) {
	s.Helper()
	if strings.HasPrefix(t.command, "bundle") {
		s.ok(s.sh("ip link del x0 2>/dev/null; ip link add x0 type veth peer name x1"))
		defer s.sh("ip link del x0")
	}
	out := s.background(argv...)
	var r *verify.Report
	var pid int
	running := false
	for end := time.Now().Add(scaled(40 * time.Second)); ; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			log, _ := os.ReadFile(out)
			s.Fatalf("by hand: %s: never made: %s", t.command, log)
		}
		if pid = s.madeByHand(t); pid == 0 {
			continue
		}
		res := s.on("glassbox", "verify", "--json", "--plan", t.stored, "--pid", fmt.Sprint(pid))
		var reports []*verify.Report
		if json.Unmarshal([]byte(res.Stdout), &reports) != nil || len(reports) != 1 {
			continue
		}
		// A report whose last step holds may have begun before the program did: the next one counts.
		if r = reports[0]; running {
			break
		}
		running = r.Steps[len(r.Steps)-1].Verdict == verify.Holds
	}
	var bad []string
	for i, f := range r.Steps {
		if !said[f.Step] && (i >= len(t.own.Steps) || f.Verdict != t.own.Steps[i].Verdict) {
			bad = append(bad, fmt.Sprintf("%d. %s: %s %s, asked %s; in glassbox's own it %s", f.Step, f.What, f.Verdict, f.Found, f.Asked,
				t.own.Steps[min(i, len(t.own.Steps)-1)].Verdict))
		}
	}
	for _, f := range r.Unexpected {
		bad = append(bad, f.What+" is in no step")
	}
	if len(bad) > 0 || r.Counts[verify.Holds]+len(said) < t.own.Counts[verify.Holds] || r.Counts[verify.Holds] < 40 {
		log, _ := os.ReadFile(out)
		s.Errorf("by hand: %s: %v, where glassbox has %v; %d steps are said to be missing\n%s\n%s", t.command, r.Counts, t.own.Counts,
			len(said), strings.Join(bad, "\n"), log)
	}
	s.ok(s.on("kill", "-9", fmt.Sprint(pid)))
	s.until("the end of what made "+t.command, func() bool { return s.madeByHand(t) == 0 })
}

// madeByHand finds the first process in the cgroups of the plan.
func (s *siege) madeByHand(t *twin) (first int) {
	s.Helper()
	for _, text := range strings.Fields(s.on(append([]string{"cat"}, t.procs...)...).Stdout) {
		pid, err := strconv.Atoi(text)
		must(s.T, err)
		if first == 0 || pid < first {
			first = pid
		}
	}
	return first
}

// TestVerifyByHand: the script of explain --format sh makes what glassbox makes: each step that can be observed is found as in a
// container of glassbox's own, but for those of which the script says that no command can make them.
func TestVerifyByHand(t *testing.T) {
	s := besiege(t)
	var commands []string
	for _, w := range s.ways() {
		commands = append(commands, "run "+w)
	}
	if testing.Short() {
		commands = commands[:4] // a script is hundreds of commands: an emulated processor takes a minute for each
	}
	for _, command := range append(commands, s.bundles("plain", "limits", "tmpfs", "tty-less", "process", "spread", "device")...) {
		tw := s.twin(command)
		script := filepath.Join(s.dir, s.id("by"))
		kind, what, _ := strings.Cut(command, " ")
		s.ok(s.sh("glassbox explain " + kind + " --format sh -o " + script + " " + what))
		text, err := os.ReadFile(script)
		must(t, err)
		said := unsaidSteps(t, string(text))
		if len(said) > 4 {
			t.Errorf("%s: %d steps that no command can make", command, len(said))
		}
		s.same(tw, said, "/bin/sh", "-c", "export TMPDIR="+s.dir+"; exec sh "+script)
	}
}

// bundles writes some of runtimeBoxes; in short tests the first of them only.
func (s *siege) bundles(names ...string) (commands []string) {
	s.Helper()
	if testing.Short() {
		names = names[:1]
	}
	all, root := s.runtimeBoxes(), s.root("")
	for _, name := range names {
		b := all[name]
		b.rootfs, b.args = root, []string{"sleep", "1000"}
		commands = append(commands, "bundle "+s.bundle(runtimeFace, b))
	}
	return commands
}

// unsaidSteps are the numbers of the steps that a script says it can't make, in its last lines.
func unsaidSteps(t *testing.T, script string) map[int]bool {
	t.Helper()
	out := map[int]bool{}
	_, end, found := strings.Cut(script, "can't be made with these commands:\n")
	if !found && !strings.Contains(script, "Every step of the plan is in this script") {
		t.Error("the script doesn't say which steps it can't make")
	}
	for line := range strings.Lines(end) {
		n := 0
		if _, err := fmt.Sscanf(line, "#   %d.", &n); err == nil {
			out[n] = true
		}
	}
	return out
}
