package explain

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"glassbox/plan"
)

// byNoCommand are the kinds of steps that a script says it can't make.
func byNoCommand() []string {
	return []string{
		"bpf-device", "pidfd_open", "id-map", "user-namespace", "adopt", "time-offsets", "keyctl", "open-console", "bind-console", "send-fd",
		"recv-fd", "seccomp", "await-start", "hook",
		"set_mempolicy", "personality", "inherit-fds", "systemd-scope", "systemd-set", "systemd-attach", "systemd-stop", "move-root",
		"root-mount", "root-unmount", "chroot", "send-listener", "copy-up", "open-dir",
		"resctrl-check", "name-listen", "port-carry",
		// Empty ones, that is: what they need is missing.
		"quota",
		"unshare", "await", "move_mount", "setns", "write-proc", "ioprio_set", "sched_setattr", "dup3", "clone3",
	}
}

// TestShellKinds: a step that the script neither makes nor says it can't make would be missing in silence.
func TestShellKinds(t *testing.T) {
	for _, kind := range kinds(t) {
		op := opOf(t, kind)
		s := &shell{plan: &plan.Plan{Steps: []plan.Step{{Op: op}}}, view: &View{}, opened: map[string]string{}, part: "child", cloned: true}
		_, ok := s.commands(op)
		if ok == slices.Contains(byNoCommand(), kind) {
			t.Errorf("step %q: can the script make it: got %v; shell.commands and byNoCommand don't agree", kind, ok)
		}
	}
}

// TestShellRemovesClass: a resource class that others may use stays while somebody is in it. The file that says so has no size, as those of
// /proc have none.
func TestShellRemovesClass(t *testing.T) {
	dir := t.TempDir() + "/a class"
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name   string
		tasks  string
		shared bool
		want   string
	}{
		{"in use", "/proc/version", true, ""},
		{"empty", "/dev/null", true, "removed " + dir},
		{"not shared", "/proc/version", false, "removed " + dir},
	} {
		os.Remove(dir + "/tasks")
		if err := os.Symlink(test.tasks, dir+"/tasks"); err != nil {
			t.Fatal(err)
		}
		lines := (&shell{}).undo(&plan.ResctrlRemove{Path: dir, Shared: test.shared})
		out, err := exec.Command("sh", "-c", `rmdir() { echo "removed $1"; }; `+strings.Join(lines, "\n")).CombinedOutput()
		if got := strings.TrimSpace(string(out)); err != nil || got != test.want {
			t.Errorf("%s: got %q, %v, want %q: %q", test.name, got, err, test.want, lines)
		}
	}
}

// TestShellLabels: mount(8) takes the comma in an SELinux label for the next option, unless the label is quoted.
func TestShellLabels(t *testing.T) {
	const label = "u:r:t:s0:c1,c2"
	for _, c := range []struct {
		op   plan.Op
		want string
	}{
		{
			&plan.FSMount{Type: "tmpfs", Target: "/dev", Options: []string{"mode=755", "context=" + label}},
			`-o 'mode=755,context="u:r:t:s0:c1,c2"'`,
		},
		{
			&plan.FSMount{Type: "tmpfs", Target: "/x", Flags: []string{"silent"}, Options: []string{`context="` + label + `"`}},
			`-o 'silent,context="u:r:t:s0:c1,c2"'`,
		},
		{&plan.FSMount{Type: "mqueue", Target: "/dev/mqueue", Label: label}, `chcon u:r:t:s0:c1,c2 "$at"`},
		{&plan.MaskPath{Path: "/proc/acpi", Label: label}, `nr_inodes=2,context="u:r:t:s0:c1,c2"'`},
	} {
		s := &shell{plan: &plan.Plan{Steps: []plan.Step{{Op: c.op}}}, view: &View{}, opened: map[string]string{}, part: "child", cloned: true}
		lines, ok := s.commands(c.op)
		if got := strings.Join(lines, "\n"); !ok || !strings.Contains(got, c.want) {
			t.Errorf("%s: got %s, want %s in it", c.op, got, c.want)
		}
	}
}

// TestShellSyntax: whatever names a plan holds, the script is one that a shell reads, and none of it is run as a command.
func TestShellSyntax(t *testing.T) {
	evil := "$(touch /x); `id` ' \" \n rm -rf / #"
	p := hostile(t, evil, plan.Host, plan.Child)
	var b bytes.Buffer
	if err := Write(&b, "sh", p, About{Title: evil}, TextOptions{}); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("sh", "-n")
	cmd.Stdin = bytes.NewReader(b.Bytes())
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("sh -n: %v: %s\n%s", err, out, numbered(b.String()))
	}
	if bare := unquotedText(b.String()); strings.Contains(bare, "rm -rf / #") || strings.Contains(bare, "touch /x") {
		t.Errorf("a name has become part of the script:\n%s", bare)
	}
}

// unquotedText is a script without its comments and what stands in single quotes.
func unquotedText(script string) string {
	var b strings.Builder
	quoted := false
	for _, line := range strings.SplitAfter(script, "\n") {
		word := strings.TrimSpace(line)
		if !quoted && strings.HasPrefix(word, "#") {
			continue
		}
		for i := 0; i < len(line); i++ {
			switch {
			case !quoted && line[i] == '\\' && i+1 < len(line):
				i++
			case line[i] == '\'':
				quoted = !quoted
			case !quoted:
				b.WriteByte(line[i])
			}
		}
	}
	return b.String()
}

func numbered(s string) string {
	lines := strings.Split(s, "\n")
	for i := range lines {
		lines[i] = fmt.Sprintf("%4d %s", i+1, lines[i])
	}
	return strings.Join(lines, "\n")
}
