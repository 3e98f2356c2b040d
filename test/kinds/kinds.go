// Package kinds lists the kinds of steps for tests of packages that must know them all. The tests' package lies directly below the
// module's root.
package kinds

import (
	"encoding/json"
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"glassbox/plan"
)

// All are all kinds of steps that plan knows, read from its source, so that a new one can't be forgotten by a test.
func All(t testing.TB) []string {
	t.Helper()
	files, err := filepath.Glob("../plan/op_*.go")
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, name := range files {
		f, err := parser.ParseFile(token.NewFileSet(), name, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, inFile(f)...)
	}
	if len(out) < 60 {
		t.Fatalf("found %d kinds of steps in plan/op_*.go: did new…Op change its shape?", len(out))
	}
	return out
}

// inFile are the kinds that a file's function new…Op makes.
func inFile(f *ast.File) (out []string) {
	for _, d := range f.Decls {
		fn, ok := d.(*ast.FuncDecl)
		if !ok || !strings.HasPrefix(fn.Name.Name, "new") || !strings.HasSuffix(fn.Name.Name, "Op") {
			continue
		}
		ast.Inspect(fn, func(n ast.Node) bool {
			if c, ok := n.(*ast.CaseClause); ok {
				for _, e := range c.List {
					if kind, err := strconv.Unquote(e.(*ast.BasicLit).Value); err == nil {
						out = append(out, kind)
					}
				}
			}
			return true
		})
	}
	return out
}

// Step makes a step of a kind, without arguments.
func Step(t testing.TB, kind string) plan.Step {
	t.Helper()
	var s plan.Step
	if err := json.Unmarshal([]byte(`{"lane":"host","phase":"limits","op":"`+kind+`","args":{}}`), &s); err != nil {
		t.Fatal(err)
	}
	return s
}
