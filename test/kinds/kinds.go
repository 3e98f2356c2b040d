// Package kinds lists the kinds of steps for tests of packages that must know them all. The tests' package lies directly below the
// module's root.
package kinds

import (
	"encoding/json"
	"go/ast"
	"go/parser"
	"go/token"
	"strconv"
	"testing"

	"glassbox/plan"
)

// All are all kinds of steps that plan knows, read from its source, so that a new one can't be forgotten by a test.
func All(t testing.TB) []string {
	t.Helper()
	f, err := parser.ParseFile(token.NewFileSet(), "../plan/ops.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, d := range f.Decls {
		fn, ok := d.(*ast.FuncDecl)
		if !ok || fn.Name.Name != "newOp" {
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
	if len(out) < 60 {
		t.Fatalf("found %d kinds of steps in plan/ops.go: did newOp change its shape?", len(out))
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
