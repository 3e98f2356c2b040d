package engine

import (
	"context"
	"fmt"
	"reflect"
	"slices"
	"testing"
	"time"

	"glassbox/docker"
)

// What the engine answers are Go types all the way down: a map of anything could be told to somebody, and be read by nobody.
func TestAnswersAreTyped(t *testing.T) {
	// Docker's own field for drivers of others, of which there is none here: it is never there.
	free := []string{fmt.Sprint(reflect.TypeFor[docker.Volume]()) + ".Status"}
	seen := map[reflect.Type]bool{}
	var walk func(what string, typ reflect.Type)
	walk = func(what string, typ reflect.Type) {
		if seen[typ] || slices.Contains(free, what) || typ == reflect.TypeFor[time.Time]() {
			return
		}
		seen[typ] = true
		switch typ.Kind() {
		case reflect.Interface:
			if typ.NumMethod() == 0 {
				t.Errorf("%s can be anything", what)
			}
		case reflect.Pointer, reflect.Slice, reflect.Array:
			walk(what, typ.Elem())
		case reflect.Map:
			walk(what, typ.Key())
			if typ.Elem() == reflect.TypeFor[any]() {
				t.Errorf("%s is a map of anything", what)
			}
			walk(what, typ.Elem())
		case reflect.Struct:
			for i := range typ.NumField() {
				if f := typ.Field(i); f.IsExported() {
					walk(fmt.Sprint(typ)+"."+f.Name, f.Type)
				}
			}
		}
	}
	engine := reflect.TypeFor[*Engine]()
	for i := range engine.NumMethod() {
		m := engine.Method(i)
		for k := range m.Type.NumOut() {
			if out := m.Type.Out(k); out != reflect.TypeFor[error]() && out != reflect.TypeFor[context.Context]() {
				walk(m.Name, out)
			}
		}
	}
}
