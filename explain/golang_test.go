package explain

import (
	"bytes"
	"fmt"
	"go/ast"
	"go/format"
	"go/parser"
	"go/token"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"glassbox/plan"
)

// inNoProgram are the kinds of steps that a Go program says it hasn't got.
func inNoProgram() []string {
	return []string{
		"cgroup-remove", "link-delete", "nft-unpublish", "nft-unguard", "nft-guard", "firewall-accept",
		"nft-unwall", "pidfd_open", "user-namespace", "adopt", "time-offsets", "open-console", "bind-console",
		"send-fd", "send-listener", "copy-up", "open-dir", "hook", "move-root", "root-mount", "root-unmount", "chroot", "set_mempolicy",
		"sched_setaffinity", "systemd-scope", "systemd-set", "systemd-attach", "systemd-stop",
		"name-add", "name-remove", "name-listen", "port-carry", "host-unmount", "quota",
		"resctrl-create", "resctrl-remove", "resctrl-check", "resctrl-write", "resctrl-join",
		// Empty ones, that is: what they need is missing.
		"cgroup-join", "bpf-device", "open", "unshare", "setns", "id-map", "recv-fd", "move_mount", "mount_setattr", "mask-path", "mknod",
		"sysctl", "prlimit", "sched_setattr",
		"ioprio_set", "personality", "dup3", "seccomp", "execve", "link-bridge", "link-veth", "link-address", "route-default", "nft-bridge",
	}
}

// TestGoKinds: a step that the program neither makes nor says it can't make would be missing in silence.
func TestGoKinds(t *testing.T) {
	for _, kind := range kinds(t) {
		op := opOf(t, kind)
		g := &golang{
			plan: &plan.Plan{Steps: []plan.Step{{Op: op}}}, view: &View{}, helpers: map[string]bool{}, opened: map[string]string{},
			have: map[string]string{}, procs: map[string]string{},
			words: map[string]bool{}, given: map[string]int{}, groups: []string{`"x"`},
		}
		_, ok := g.step(plan.Step{Lane: plan.Host, Op: op})
		if ok == slices.Contains(inNoProgram(), kind) {
			t.Errorf("step %q: can the program make it: got %v; golang.step and inNoProgram don't agree", kind, ok)
		}
	}
}

// TestGoOptional: a file system that only some kernels have spreads as the plan says, and is refused if it is to have the mode of what it
// covers, in a program of any length.
func TestGoOptional(t *testing.T) {
	for tight := withReasons; tight <= withoutTerminal; tight++ {
		for _, keep := range []bool{false, true} {
			g := &golang{tight: tight, width: lineWidth, helpers: map[string]bool{}, procs: map[string]string{}, words: map[string]bool{}}
			line, ok := g.fsmount(&plan.FSMount{
				Type: "mqueue", Target: "/dev/mqueue", Optional: true, KeepMode: keep,
				Propagation: []string{"slave"},
			})
			if ok == keep {
				t.Errorf("level %d, mode kept %v: can the program make it: got %v", tight, keep, ok)
			}
			code := strings.Join(append(line.text, line.items...), "\n")
			if ok && (!strings.Contains(code, "mount(") || !strings.Contains(code, "MS_SLAVE") ||
				strings.Contains(code, "/proc/filesystems") != (tight < withoutAny)) {
				t.Errorf("level %d: got %s", tight, code)
			}
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
	for i, line := range strings.Split(text, "\n") {
		if n := len(line); n > 160 {
			t.Errorf("line %d has %d bytes", i+1, n)
		}
	}
	golden(t, "testdata/by-hand.go.txt", text)
}

// TestGoExtreme: a program has no more lines than it may have, whatever its plan is.
func TestGoExtreme(t *testing.T) {
	usual := example(t)
	all := &plan.Plan{Version: usual.Version, Arch: usual.Arch}
	for _, s := range usual.Steps {
		switch o := s.Op.(type) {
		case *plan.Clone:
			for i := range 100 {
				name := fmt.Sprintf("/srv/some where/else/%d", i)
				all.Steps = append(all.Steps, plan.Step{Lane: plan.Host, Op: &plan.OpenTree{Path: name, Save: name, Recursive: i%2 == 0}})
			}
			all.Steps = append(all.Steps, plan.Step{Lane: plan.Host, Op: &plan.UserNamespace{
				UID: []plan.IDRange{{Size: 1}},
				GID: []plan.IDRange{{Size: 1}}, Save: "ids",
			}},
				plan.Step{Lane: plan.Host, Op: &plan.OpenTree{Path: "/mapped", Save: "mapped", IDMap: "ids"}})
		case *plan.Mknod:
			if o.Path != "/dev/null" {
				break
			}
			for i := range 100 {
				name := fmt.Sprintf("/srv/some where/else/%d", i)
				mount := &plan.MoveMount{From: name, Target: name, Create: "like", RecSet: []string{"ro", "nosuid"}, Propagation: []string{"rprivate"}}
				if i%3 == 0 {
					mount.Set, mount.Clear, mount.Propagation = []string{"nodev"}, []string{"noexec"}, []string{"slave", "rshared"}
				}
				all.Steps = append(all.Steps, plan.Step{Lane: plan.Child, Op: mount},
					plan.Step{Lane: plan.Child, Op: &plan.FSMount{
						Type: "tmpfs", Source: "tmpfs", Target: fmt.Sprintf("/tmp/%d", i), KeepMode: i%2 == 0,
						Options: []string{fmt.Sprintf("size=%dk", i)},
					}},
					plan.Step{Lane: plan.Child, Op: &plan.Mkdir{Path: fmt.Sprintf("/made/%d", i), Mode: 0o755}},
					plan.Step{Lane: plan.Child, Op: &plan.Symlink{Path: fmt.Sprintf("/dev/link%d", i), Target: "/x", Replace: i%2 == 0}})
			}
			for i := range 50 {
				all.Steps = append(all.Steps, plan.Step{
					Lane: plan.Child,
					Op:   &plan.Mknod{Path: fmt.Sprintf("/dev/more/%d/x", i), Type: "c", Major: 10, Minor: uint32(i), Mode: 0o600},
				})
			}
			all.Steps = append(all.Steps, plan.Step{Lane: plan.Child, Op: &plan.OpenConsole{Master: "master", Slave: "terminal"}},
				plan.Step{Lane: plan.Child, Op: &plan.SendFD{From: "master"}},
				plan.Step{Lane: plan.Child, Op: &plan.BindConsole{From: "terminal"}}, plan.Step{Lane: plan.Host, Op: &plan.RecvFD{Save: "console"}})
		case *plan.NftPublish:
			for i := range 100 {
				o.Ports = append(o.Ports, plan.PortRule{Proto: "tcp", HostPort: uint16(9000 + i), ContainerIP: "172.30.0.2", ContainerPort: 80})
			}
		case *plan.Seccomp: // of the longest kind, and such that deflating doesn't help
			random := rand.New(rand.NewPCG(1, 2))
			o.Program = make([]byte, 4096*8)
			for i := range o.Program {
				o.Program[i] = byte(random.Uint32())
			}
		case *plan.Execve:
			for i := range 300 {
				o.Env = append(o.Env, fmt.Sprintf("VARIABLE_%d=what it is, and more of that \"%d\"", i, i))
			}
			for i := range 100 {
				o.Argv = append(o.Argv, fmt.Sprintf("--option-%d=%d", i, i))
			}
		}
		all.Steps = append(all.Steps, s)
		for range 20 { // of what is no step of such a program
			if s.Op.Kind() == "clone3" {
				all.Steps = append(all.Steps, plan.Step{Lane: plan.Host, Op: &plan.Hook{Path: "/bin/true"}})
			}
		}
	}
	var b bytes.Buffer
	if err := Write(&b, "go", all, About{Title: "run all"}, TextOptions{}); err != nil {
		t.Fatal(err)
	}
	if n := bytes.Count(b.Bytes(), []byte("\n")); n > MaxGo {
		t.Errorf("the program has %d lines, want %d at most", n, MaxGo)
	}
	for _, want := range []string{
		`"/srv/some where/else/99"`, "VARIABLE_299=", "--option-99", "/dev/more/49/x", "/tmp/99", "/made/99",
		"/dev/link99", "tcp . 9099",
	} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("%q isn't in the program", want)
		}
	}
	if formatted, err := format.Source(b.Bytes()); err != nil || !bytes.Equal(formatted, b.Bytes()) {
		t.Errorf("the program isn't in gofmt's form: %v", err)
	}
}
