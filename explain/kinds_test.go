package explain

import (
	"encoding/json"
	"go/ast"
	"go/parser"
	"go/token"
	"strconv"
	"testing"

	"glassbox/plan"
)

// kinds are all kinds of steps that plan knows, read from its source, so that a new one can't be forgotten here.
func kinds(t testing.TB) []string {
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

// opOf makes an empty op of a kind.
func opOf(t testing.TB, kind string) plan.Op {
	t.Helper()
	var s plan.Step
	if err := json.Unmarshal([]byte(`{"lane":"host","phase":"limits","op":"`+kind+`","args":{}}`), &s); err != nil {
		t.Fatal(err)
	}
	return s.Op
}

// TestReadKinds: a kind of step that Read doesn't know would be missing from every judgement and translation.
func TestReadKinds(t *testing.T) {
	for _, kind := range kinds(t) {
		v := Read(&plan.Plan{Steps: []plan.Step{{Op: opOf(t, kind)}}})
		if len(v.Unread) > 0 {
			t.Errorf("Read doesn't know the step %q: say in reader.step what it means for the container", kind)
		}
	}
	v := Read(&plan.Plan{Steps: []plan.Step{{Op: unknown{}}, {}}})
	if len(v.Unread) != 2 {
		t.Errorf("unknown steps: got %q", v.Unread)
	}
}
