package structure

import (
	"bytes"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"
)

// The limits of code: what is longer can't be read on one screen, and mostly holds two ideas.
const (
	maxColumns  = 140 // of a line, a tab counting as one
	maxLines    = 600 // of a file
	maxFunction = 120 // lines of a function
)

// longFunctions are tables and switches over the kinds of steps, which no cut makes clearer; and what runs in the child, where a call
// would need a stack that may not grow (see fork/child.go).
func longFunctions() []string {
	switches := []string{
		"fork.execution.host", "fork.lowering.op", "engine.vet.step", "explain.goStep.mounts", "explain.shell.commands", "explain.reader.step",
		"verify.view.step",
	}
	tables := []string{
		"bundle.fieldCases", "cgroup.TestEveryField", "doctor.TestFaults", "explain.aspects", "explain.goHelpers", "explain.View.flags",
		"image.TestHostileRegistry", "image.TestPullFailures", "tour.namespaces", "tour.cgroups", "tour.networks",
		"test.wrongCalls",
	}
	return slices.Concat(switches, tables, []string{"fork.walk"})
}

// source is a Go file of the project, tests included.
type source struct {
	room, name string
	text       []byte
	ast        *ast.File
	set        *token.FileSet
}

func sources(t *testing.T) (out []source) {
	t.Helper()
	err := filepath.WalkDir("..", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return nil // somebody's temporary file
		}
		rel, _ := filepath.Rel("..", path)
		if d.IsDir() {
			if name := d.Name(); rel != "." && (strings.HasPrefix(name, ".") || name == "testdata" || rel == "out" || rel == "bin" ||
				strings.HasPrefix(rel, "build/")) {
				return filepath.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(path, ".go") {
			return nil
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return nil
		}
		set := token.NewFileSet()
		f, err := parser.ParseFile(set, path, text, parser.ParseComments)
		if err != nil {
			return err
		}
		room, _, _ := strings.Cut(filepath.ToSlash(rel), "/")
		out = append(out, source{room, filepath.ToSlash(rel), text, f, set})
		return nil
	})
	if err != nil || len(out) < 100 {
		t.Fatalf("%d files, %v", len(out), err)
	}
	return out
}

// quoted are the lines that lie in raw strings of several lines: a page's style, a lesson's text, a program to be printed. They are no
// code.
func (f source) quoted() map[int]bool {
	lines := map[int]bool{}
	ast.Inspect(f.ast, func(n ast.Node) bool {
		if lit, ok := n.(*ast.BasicLit); ok && lit.Kind == token.STRING && lit.Value[0] == '`' {
			first, last := f.set.Position(lit.Pos()).Line, f.set.Position(lit.End()).Line
			for line := first; first < last && line <= last; line++ {
				lines[line] = true
			}
		}
		return true
	})
	return lines
}

// TestLimits keeps lines, files and functions within the limits.
func TestLimits(t *testing.T) {
	for _, f := range sources(t) {
		broken := func(what string, line, size, most int) {
			t.Helper()
			t.Errorf("%s:%d: a %s of %d, at most %d are allowed", f.name, line, what, size, most)
		}
		n, quoted := 0, f.quoted()
		for line := range bytes.Lines(f.text) {
			n++
			if columns := utf8.RuneCount(bytes.TrimRight(line, "\n")); columns > maxColumns && !quoted[n] {
				broken("line", n, columns, maxColumns)
			}
		}
		if n > maxLines {
			broken("file", 1, n, maxLines)
		}
		for _, d := range f.ast.Decls {
			fn, ok := d.(*ast.FuncDecl)
			if !ok || fn.Body == nil {
				continue
			}
			first, last := f.set.Position(fn.Pos()).Line, f.set.Position(fn.End()).Line
			if size := last - first + 1; size > maxFunction && !slices.Contains(longFunctions(), f.room+"."+receiver(fn)+fn.Name.Name) {
				broken("function", first, size, maxFunction)
			}
		}
	}
}

func receiver(fn *ast.FuncDecl) string {
	if fn.Recv == nil {
		return ""
	}
	switch x := fn.Recv.List[0].Type.(type) {
	case *ast.StarExpr:
		return fmt.Sprint(x.X) + "."
	default:
		return fmt.Sprint(x) + "."
	}
}

// TestUnsafe names the files that may do what the compiler can't check, and why. The programs that tests run inside of containers are
// no part of it.
func TestUnsafe(t *testing.T) {
	may := map[string]string{
		"cgroup/bpf_linux.go": "bpf(2) takes addresses in a union",
		"host/quota/quota.go": "quotactl_fd and the ioctls of fsxattr, which no package has",
		"dns/batch.go":        "recvmmsg and sendmmsg, without package net",
		"signals/signals.go":  "rt_sigaction and rt_sigtimedwait, without what os/signal starts",
	}
	for _, f := range sources(t) {
		uses := slices.ContainsFunc(f.ast.Imports, func(s *ast.ImportSpec) bool { return s.Path.Value == `"unsafe"` })
		if !uses || f.room == "fork" || f.room == "test" || strings.HasSuffix(f.name, "_test.go") {
			continue // fork is the package that makes system calls after a clone
		}
		if may[f.name] == "" {
			t.Errorf("%s imports unsafe: only fork and %v do", f.name, may)
		}
	}
}

// TestOneReader keeps the parser of mountinfo in one place (proc_pid_mountinfo(5): octal escapes, optional fields).
func TestOneReader(t *testing.T) {
	// None joins these. verify reads the text as it reads all of a process and has host parse it, and names it in what it reports;
	// the lesson's learner counts lines.
	others := []string{"verify/mounts.go", "verify/judge.go", "tour/lesson02.go"}
	for _, f := range sources(t) {
		if slices.Contains([]string{"host", "test", "structure"}, f.room) || strings.HasSuffix(f.name, "_test.go") ||
			slices.Contains(others, f.name) {
			continue
		}
		ast.Inspect(f.ast, func(n ast.Node) bool {
			if lit, ok := n.(*ast.BasicLit); ok && lit.Kind == token.STRING && strings.Contains(lit.Value, `mountinfo"`) {
				t.Errorf("%s names mountinfo, which package host reads", f.name)
			}
			return true
		})
	}
}

// TestNoLiteralInterface keeps the name of a container's interface in one place (network.InterfaceName): a container has as many as it
// has networks, and whoever writes eth0 means the first one only. The tour's lessons make a host of their own, with names of their own.
func TestNoLiteralInterface(t *testing.T) {
	for _, f := range sources(t) {
		if slices.Contains([]string{"test", "structure", "tour"}, f.room) || strings.HasSuffix(f.name, "_test.go") {
			continue
		}
		ast.Inspect(f.ast, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.BasicLit:
				if n.Kind == token.STRING && n.Value == `"eth0"` {
					t.Errorf("%s:%d names eth0", f.name, f.set.Position(n.Pos()).Line)
				}
			case *ast.Ident:
				if n.Name == "DefaultName" {
					t.Errorf("%s:%d: there is no one default network: ask network.Store", f.name, f.set.Position(n.Pos()).Line)
				}
			}
			return true
		})
	}
}
