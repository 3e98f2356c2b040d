package explain

import (
	"bytes"
	"go/ast"
	"go/parser"
	"go/token"
	"slices"
	"strings"
	"testing"

	"glassbox/plan"
)

// inNoProgram are the kinds of steps that a Go program says it hasn't got.
func inNoProgram() []string {
	return []string{
		"cgroup-evacuate", "cgroup-remove", "link-delete", "nft-unpublish", "link-move", "pidfd_open", "user-namespace", "adopt", "time-offsets", "open-console", "bind-console",
		"send-fd", "send-listener", "copy-up", "open-dir", "hook", "move-root", "root-dir", "set_mempolicy", "sched_setaffinity", "systemd-scope", "systemd-set", "systemd-attach", "systemd-stop",
		// Empty ones, that is: what they need is missing.
		"cgroup-join", "bpf-device", "open", "unshare", "setns", "id-map", "recv-fd", "move_mount", "mount_setattr", "mask-path", "mknod", "sysctl", "fsmount", "prlimit", "sched_setattr",
		"ioprio_set", "personality", "dup3", "seccomp", "execve", "link-bridge", "link-veth", "link-address", "route-default", "nft-bridge",
	}
}

// TestGoKinds: a step that the program neither makes nor says it can't make would be missing in silence.
func TestGoKinds(t *testing.T) {
	for _, kind := range kinds(t) {
		op := opOf(t, kind)
		g := &golang{
			plan: &plan.Plan{Steps: []plan.Step{{Op: op}}}, view: &View{}, helpers: map[string]bool{}, opened: map[string]string{}, have: map[string]string{}, procs: map[string]string{},
			words: map[string]bool{}, given: map[string]int{}, groups: []string{`"x"`},
		}
		_, ok := g.step(plan.Step{Lane: plan.Host, Op: op})
		if ok == slices.Contains(inNoProgram(), kind) {
			t.Errorf("step %q: can the program make it: got %v; golang.step and inNoProgram don't agree", kind, ok)
		}
	}
}

// TestGoHostile: whatever names a plan holds, the program is one, and names are texts in it.
func TestGoHostile(t *testing.T) {
	evil := "`+evil()+` \" \n evil() */ evil() // \\ \u202e\xff"
	p := hostile(t, evil, plan.Host, plan.Child)
	var b bytes.Buffer
	if err := Write(&b, "go", p, About{Title: evil}, TextOptions{}); err != nil {
		t.Fatal(err)
	}
	f, err := parser.ParseFile(token.NewFileSet(), "main.go", b.Bytes(), 0)
	if err != nil {
		t.Fatalf("%v\n%s", err, numbered(b.String()))
	}
	ast.Inspect(f, func(n ast.Node) bool {
		if id, ok := n.(*ast.Ident); ok && strings.Contains(id.Name, "evil") {
			t.Errorf("a name has become part of the program: %s", id.Name)
		}
		return true
	})
}

// TestGoProgram keeps the program of the worked example, whose filter is left out here: a compressor may improve.
func TestGoProgram(t *testing.T) {
	var b bytes.Buffer
	if err := Write(&b, "go", example(t), About{Title: "run httpd"}, TextOptions{}); err != nil {
		t.Fatal(err)
	}
	text, filter, _ := strings.Cut(b.String(), "const filter = ")
	if lines := strings.Count(text+filter, "\n"); lines > MaxGo {
		t.Errorf("the program has %d lines, more than %d", lines, MaxGo)
	}
	for i, line := range strings.Split(b.String(), "\n") {
		if n := len(line); n > 160 {
			t.Errorf("line %d has %d bytes", i+1, n)
		}
	}
	golden(t, "testdata/by-hand.go.txt", text)
}
