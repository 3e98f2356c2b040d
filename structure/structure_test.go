// Package structure tests the shape of the repository: who imports whom, what a pure package may not import, that every
// package explains itself, that nothing happens at init, and what the lean binary must not carry.
package structure

import (
	"bytes"
	"encoding/json"
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const module = "glassbox"

// order is what allowed says, in one line, as HACKING.md and docs/architecture.md have it: what stands after a < may import what stands
// before it.
const order = "plan, state, host, seccomp, signals < event, systemd, resctrl, container, wire < cgroup, network < oci < " +
	"compile < fork < supervise < bundle < docker < engine; " +
	"container < dns < network; container < spec; " +
	"oci, compile < spec < docker; " +
	"state, event, host < image < engine; " +
	"plan, seccomp < explain < verify; " +
	"event < volume < supervise; " +
	"cgroup, network < doctor; cgroup, wire, dns < verify; " +
	"engine, explain, doctor, verify < tour < cli; container < policy < engine < api; container, explain < build < api, cli"

// allowed says which of the module's packages each package may import. Tests may import more. A package that isn't listed is a failure: it
// needs a place in the order first.
func allowed() map[string][]string {
	low := []string{
		"state", "event", "plan", "plan/lazyjson", "host", "host/nofile", "host/beneath", "host/remove", "host/tree", "host/quota", "seccomp",
		"systemd", "resctrl",
	}
	order := map[string][]string{
		"plan/lazyjson": nil, "plan": {"plan/lazyjson"}, "state": {"plan/lazyjson"}, "event": {"state", "plan/lazyjson"},
		"host/nofile": nil, "host/beneath": nil, "host/remove": nil, "signals": nil,
		"host/tree": {"host/beneath"}, "host/quota": nil,
		"resctrl": {"plan", "host", "host/nofile"}, "host": {"host/nofile"}, "seccomp": nil, "dns": {"state", "container"},
		"volume":  {"state", "event", "host/beneath", "host/remove"},
		"image":   {"state", "event", "plan/lazyjson", "host/beneath", "host/remove", "host/tree"},
		"systemd": {"plan"}, "cgroup": low, "wire": {"plan"},
		"network": {"plan", "plan/lazyjson", "state", "container", "wire", "dns"}, "explain": {"plan", "seccomp"}, "structure": nil,
	}
	// Each of these may import all that come before it.
	below := append(slices.Clone(low), "volume", "container", "dns", "cgroup", "wire", "network", "signals")
	order["container"] = []string{"plan", "plan/lazyjson"}
	for _, p := range []string{"oci", "compile", "fork", "supervise", "bundle"} {
		order[p] = slices.Clone(below)
		below = append(below, p)
	}
	order["spec"] = append(slices.Clone(low), "cgroup", "oci", "compile", "container")
	order["docker"] = append(slices.Clone(below), "spec")
	below = append(below, "spec", "docker")
	order["policy"] = []string{"container"}
	order["engine"] = append(slices.Clone(below), "image", "policy")
	order["doctor"] = append(slices.Clone(low), "cgroup", "wire", "network")
	order["verify"] = append(slices.Clone(low), "cgroup", "wire", "dns", "explain")
	faces := append(slices.Clone(below), "image", "engine", "explain", "doctor", "verify", "policy")
	order["tour"] = faces
	order["cli"] = append(slices.Clone(faces), "tour")
	order["api"] = append(slices.Clone(below), "image", "engine", "explain", "policy", "build")
	order["build"] = []string{"plan", "plan/lazyjson", "explain", "container"}
	order["cli"] = append(order["cli"], "build")
	order["cmd/glassbox-build"] = append(slices.Clone(below), "image", "build", "policy", "explain")
	order["cmd/glassbox"] = []string{"cli"}
	order["cmd/glassbox-api"] = []string{"api", "engine", "policy", "build"}
	order["cmd/glassbox-runtime"] = append(slices.Clone(below), "cmd/glassbox-runtime")
	return order
}

// pure are packages that depend on their input alone, and what would break that.
func pure() map[string][]string {
	return map[string][]string{
		"compile":       {"os", "os/exec", "syscall", "net", "time", "golang.org/x/sys/unix", "math/rand", "crypto/rand"},
		"plan":          {"os", "os/exec", "syscall", "net", "time", "golang.org/x/sys/unix"},
		"plan/lazyjson": {"os", "os/exec", "syscall", "net", "time", "golang.org/x/sys/unix"},
		"container":     {"os", "os/exec", "syscall", "net", "golang.org/x/sys/unix"},
		"spec":          {"os", "os/exec", "syscall", "net", "time", "golang.org/x/sys/unix", "math/rand", "crypto/rand"},
		"build":         {"os", "os/exec", "syscall", "net", "golang.org/x/sys/unix"},
		"docker":        {"os/exec", "syscall", "net", "golang.org/x/sys/unix"},
		"explain":       {"os", "os/exec", "syscall", "net", "time", "golang.org/x/sys/unix"},
		"policy":        {"os", "os/exec", "syscall", "net", "time", "golang.org/x/sys/unix"},
	}
}

// file is a parsed Go file that is no test.
type file struct {
	pkg  string // directory below the module's root
	name string
	ast  *ast.File
}

func parse(t *testing.T) []file {
	t.Helper()
	root, err := filepath.Abs("..")
	if err != nil {
		t.Fatal(err)
	}
	var files []file
	set := token.NewFileSet()
	err = filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			if errors.Is(err, fs.ErrNotExist) { // somebody's temporary file
				return nil
			}
			return err
		}
		rel, _ := filepath.Rel(root, path)
		if d.IsDir() {
			// The test folder holds programs for tests, which may import what they like.
			if name := d.Name(); path != root && (strings.HasPrefix(name, ".") || name == "testdata" || rel == "test" || rel == "out" ||
				rel == "bin" || strings.HasPrefix(rel, "build/")) {
				return filepath.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return nil
		}
		f, err := parser.ParseFile(set, path, nil, parser.ParseComments)
		if err != nil {
			return err
		}
		if slices.ContainsFunc(f.Comments, func(c *ast.CommentGroup) bool {
			return slices.ContainsFunc(c.List, func(l *ast.Comment) bool { return strings.HasPrefix(l.Text, "//go:build ignore") })
		}) {
			return nil
		}
		files = append(files, file{filepath.ToSlash(filepath.Dir(rel)), rel, f})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// TestOrderIsTold compares the line for readers with the list, and looks whether the pages have it and name every room.
func TestOrderIsTold(t *testing.T) {
	may := allowed()
	told := map[string]bool{"structure": true} // tests alone
	for clause := range strings.SplitSeq(order, ";") {
		var before []string
		for group := range strings.SplitSeq(clause, "<") {
			var now []string
			for name := range strings.SplitSeq(group, ",") {
				name = strings.TrimSpace(name)
				if _, ok := may[name]; !ok {
					t.Errorf("%s is no package", name)
				}
				for _, below := range before {
					if slices.Contains(may[below], name) {
						t.Errorf("%s may import %s, the line says the opposite", below, name)
					}
				}
				if len(before) > 0 && !slices.ContainsFunc(before, func(b string) bool { return slices.Contains(may[name], b) }) {
					t.Errorf("%s may import none of %v", name, before)
				}
				told[name] = true
				now = append(now, name)
			}
			before = now
		}
	}
	for name := range may {
		if !told[name] && !strings.Contains(name, "/") {
			t.Errorf("%s has no place in the line", name)
		}
	}
	for _, page := range []string{"HACKING.md", "docs/architecture.md"} {
		text, err := os.ReadFile(filepath.Join("..", page))
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(strings.Join(strings.Fields(string(text)), " "), order) {
			t.Errorf("%s has another order than\n%s", page, order)
		}
		for name := range may {
			if page == "HACKING.md" && !strings.Contains(name, "/") && !strings.Contains(string(text), "\n    "+name+"/ ") {
				t.Errorf("%s doesn't say what is in %s/", page, name)
			}
		}
	}
}

func TestImports(t *testing.T) {
	order := allowed()
	for _, f := range parse(t) {
		may, known := order[f.pkg]
		if !known {
			t.Errorf("%s: package %s has no place in the order of imports: see allowed", f.name, f.pkg)
			continue
		}
		for _, spec := range f.ast.Imports {
			path := strings.Trim(spec.Path.Value, `"`)
			if own, ok := strings.CutPrefix(path, module+"/"); ok && !slices.Contains(may, own) {
				t.Errorf("%s imports %s, which the order in HACKING.md forbids", f.name, path)
			}
			if slices.Contains(pure()[f.pkg], path) {
				t.Errorf("%s imports %s: package %s is pure, its output may depend on its input alone", f.name, path, f.pkg)
			}
		}
	}
}

// TestPackageDocs checks that one file of each package says what the package is.
func TestPackageDocs(t *testing.T) {
	docs := map[string][]string{}
	for _, f := range parse(t) {
		if _, ok := docs[f.pkg]; !ok {
			docs[f.pkg] = nil
		}
		if f.ast.Doc != nil {
			docs[f.pkg] = append(docs[f.pkg], f.name)
			text := f.ast.Doc.Text()
			if name := f.ast.Name.Name; name != "main" && !strings.HasPrefix(text, "Package "+name+" ") {
				t.Errorf("%s: the package doc begins with %.30q, want \"Package %s …\"", f.name, text, name)
			}
		}
	}
	for pkg, in := range docs {
		if len(in) != 1 {
			t.Errorf("package %s has %d package docs (%s), want one", pkg, len(in), strings.Join(in, ", "))
		}
	}
}

// TestNoInit checks that importing a package does nothing and offers nothing to change: no init functions, no exported
// variables but errors.
func TestNoInit(t *testing.T) {
	for _, f := range parse(t) {
		for _, decl := range f.ast.Decls {
			switch d := decl.(type) {
			case *ast.FuncDecl:
				if d.Recv == nil && d.Name.Name == "init" {
					t.Errorf("%s has an init function", f.name)
				}
			case *ast.GenDecl:
				if d.Tok == token.VAR {
					exported(t, f, d)
				}
			}
		}
	}
}

func exported(t *testing.T, f file, d *ast.GenDecl) {
	for _, spec := range d.Specs {
		for _, name := range spec.(*ast.ValueSpec).Names {
			// host/nofile is written by assembly before the runtime starts, and cannot be anything but variables.
			if name.IsExported() && !strings.HasPrefix(name.Name, "Err") && f.pkg != "host/nofile" {
				t.Errorf("%s: exported variable %s: make it a constant or a function, or somebody will change it", f.name, name.Name)
			}
		}
	}
}

// TestLean checks what the runtime binary must not carry: it is started for every container, and stays.
func TestLean(t *testing.T) {
	heavy := map[string]string{
		module + "/image":                        "registries and layers are the engine's",
		module + "/engine":                       "the verbs are the command line's",
		module + "/cli":                          "",
		module + "/explain":                      "",
		module + "/doctor":                       "",
		module + "/tour":                         "",
		module + "/verify":                       "",
		"net":                                    "a tenth of a megabyte, and initialisation in every start",
		"net/http":                               "0.3 ms of start-up and a megabyte",
		"crypto/tls":                             "",
		"text/template":                          "",
		"regexp":                                 "",
		"encoding/xml":                           "",
		"github.com/google/go-containerregistry": "",
		"github.com/opencontainers/go-digest":    "regular expressions at init",
		"github.com/spf13/cobra":                 "",
		"github.com/spf13/pflag":                 "",
		"github.com/klauspost/compress":          "",
	}
	for _, pkg := range deps(t, "./cmd/glassbox-runtime") {
		for bad, reason := range heavy {
			if pkg == bad || strings.HasPrefix(pkg, bad+"/") && strings.Contains(bad, "/") {
				t.Errorf("glassbox-runtime imports %s: %s", pkg, reason)
			}
		}
	}
}

// TestCommandLineIsLean checks that what the API and the builder bring along stays out of the command line.
func TestCommandLineIsLean(t *testing.T) {
	for _, pkg := range deps(t, "./cmd/glassbox") {
		for _, bad := range []string{module + "/api", "github.com/moby/", "golang.org/x/net/websocket"} {
			if strings.HasPrefix(pkg, bad) {
				t.Errorf("glassbox imports %s: that is for a program of its own", pkg)
			}
		}
	}
}

// deps lists all packages that go into a program.
func deps(t *testing.T, program string) []string {
	t.Helper()
	cmd := exec.Command("go", "list", "-deps", "-json=ImportPath", program)
	cmd.Dir = ".."
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux")
	out, err := cmd.Output()
	if err != nil {
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			t.Fatalf("go list %s: %s", program, exit.Stderr)
		}
		t.Fatal(err)
	}
	var paths []string
	for d := json.NewDecoder(bytes.NewReader(out)); ; {
		var p struct{ ImportPath string }
		err := d.Decode(&p)
		if err == io.EOF {
			return paths
		}
		if err != nil {
			t.Fatal(err)
		}
		paths = append(paths, p.ImportPath)
	}
}

// TestBuildKitHasItsRoom checks that BuildKit is a dependency of the builder's module alone.
func TestBuildKitHasItsRoom(t *testing.T) {
	for _, name := range []string{"go.mod", "go.sum"} {
		text, err := os.ReadFile(filepath.Join("..", name))
		if err != nil {
			t.Fatal(err)
		}
		if bytes.Contains(text, []byte("github.com/moby/buildkit")) {
			t.Errorf("%s names BuildKit, which belongs into cmd/glassbox-build/go.mod", name)
		}
	}
	for _, f := range parse(t) {
		for _, spec := range f.ast.Imports {
			if strings.HasPrefix(spec.Path.Value, `"github.com/moby/buildkit`) && f.pkg != "cmd/glassbox-build" {
				t.Errorf("%s imports BuildKit, which cmd/glassbox-build alone may", f.name)
			}
		}
	}
}
