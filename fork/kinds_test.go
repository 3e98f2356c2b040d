package fork

import (
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"glassbox/plan"
	allkinds "glassbox/test/kinds"
)

// TestExecutors: each kind of step that plan knows is made by this package, in each of the lanes that plan allows it in, and in no
// other. It reads the cases of the two switches: a host's step can't be tried out here.
func TestExecutors(t *testing.T) {
	made := map[plan.Lane]map[string]bool{plan.Host: casesOf(t, "execution", "host"), plan.Child: casesOf(t, "lowering", "op")}
	for _, kind := range allkinds.All(t) {
		op := allkinds.Step(t, kind).Op
		name := reflect.TypeOf(op).Elem().Name()
		lanes := plan.Lanes(op)
		for lane, cases := range made {
			if allowed := slices.Contains(lanes, lane); allowed && !cases[name] {
				t.Errorf("plan.%s (%s) has no executor in the %s's lane", name, kind, lane)
			} else if !allowed && cases[name] {
				t.Errorf("plan.%s (%s) has an executor in the %s's lane, where plan refuses it", name, kind, lane)
			}
		}
	}
	for lane, cases := range made {
		if len(cases) < 30 {
			t.Errorf("found %d kinds of steps of the %s: did the switch change its shape?", len(cases), lane)
		}
	}
}

// casesOf are the kinds of steps in the type switches of a method, and in those of methods that it leaves some to.
func casesOf(t *testing.T, receiver, method string) map[string]bool {
	t.Helper()
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	methods := map[string]*ast.FuncDecl{}
	for _, name := range files {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		f, err := parser.ParseFile(token.NewFileSet(), name, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range f.Decls {
			fn, ok := d.(*ast.FuncDecl)
			if !ok || fn.Recv == nil {
				continue
			}
			if star, ok := fn.Recv.List[0].Type.(*ast.StarExpr); ok && star.X.(*ast.Ident).Name == receiver {
				methods[fn.Name.Name] = fn
			}
		}
	}
	out, seen := map[string]bool{}, map[string]bool{}
	var read func(name string)
	read = func(name string) {
		fn := methods[name]
		if fn == nil || seen[name] {
			return
		}
		seen[name] = true
		ast.Inspect(fn, func(n ast.Node) bool {
			sw, ok := n.(*ast.TypeSwitchStmt)
			if !ok {
				return true
			}
			for _, s := range sw.Body.List {
				c := s.(*ast.CaseClause)
				for _, e := range c.List {
					if star, ok := e.(*ast.StarExpr); ok {
						out[star.X.(*ast.SelectorExpr).Sel.Name] = true
					}
				}
				// What the switch doesn't know, it may leave to another one.
				for _, s := range c.Body {
					if ret, ok := s.(*ast.ReturnStmt); ok && c.List == nil && len(ret.Results) == 1 {
						if call, ok := ret.Results[0].(*ast.CallExpr); ok {
							if sel, ok := call.Fun.(*ast.SelectorExpr); ok {
								read(sel.Sel.Name)
							}
						}
					}
				}
			}
			return true
		})
	}
	read(method)
	return out
}

// TestLoweringRefusesNUL puts a NUL byte into each text of each step of the child: it is an error, or the text reaches no system call.
func TestLoweringRefusesNUL(t *testing.T) {
	const evil, seen = "cut\x00here", "cut"
	refused := 0
	for _, kind := range allkinds.All(t) {
		if op := allkinds.Step(t, kind).Op; !slices.Contains(plan.Lanes(op), plan.Child) {
			continue
		}
		fields := stringsOf(reflect.ValueOf(filled(t, kind)).Elem())
		for i := range fields {
			op := filled(t, kind)
			field := stringsOf(reflect.ValueOf(op).Elem())[i]
			field.SetString(evil)
			l := &lowering{
				fds: map[string]int{"x": 5}, regs: map[string]uint8{}, kinds: map[string]string{"x": "file"},
				places: map[string]string{}, sock: 3,
			}
			if err := l.op(op); err != nil || l.cut() != nil {
				refused++
				continue
			}
			for k := range l.calls {
				for n := range l.calls[k].args {
					if text := argument(&l.calls[k], n); l.calls[k].from[n] == 0 && strings.Contains(text, seen) {
						t.Errorf("%s: text %d reaches system call %d as %s", kind, i, l.calls[k].nr, text)
					}
				}
			}
		}
	}
	if refused < 40 {
		t.Errorf("only %d texts were refused: is the test still asking?", refused)
	}
}

// filled makes a step of a kind in which each text is "x" and each list has one entry.
func filled(t *testing.T, kind string) plan.Op {
	t.Helper()
	op := allkinds.Step(t, kind).Op
	var fill func(v reflect.Value)
	fill = func(v reflect.Value) {
		switch v.Kind() {
		case reflect.String:
			v.SetString("x")
		case reflect.Slice:
			v.Set(reflect.MakeSlice(v.Type(), 1, 1))
			fill(v.Index(0))
		case reflect.Struct:
			for i := range v.NumField() {
				fill(v.Field(i))
			}
		}
	}
	fill(reflect.ValueOf(op).Elem())
	return op
}

// stringsOf are the strings in a value.
func stringsOf(v reflect.Value) (out []reflect.Value) {
	switch v.Kind() {
	case reflect.String:
		return []reflect.Value{v}
	case reflect.Slice:
		for i := range v.Len() {
			out = append(out, stringsOf(v.Index(i))...)
		}
	case reflect.Struct:
		for i := range v.NumField() {
			out = append(out, stringsOf(v.Field(i))...)
		}
	}
	return out
}
