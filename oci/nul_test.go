package oci

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"

	"glassbox/test/leaves"
)

// TestNUL puts a NUL into every string of a configuration, of a process (exec --process) and of resources (update --resources), and into
// the keys of maps and into what nobody knows: the kernel would see the string end there, whoever reads it not.
func TestNUL(t *testing.T) {
	strs := 0
	for _, c := range []struct {
		t     reflect.Type
		parse func([]byte) ([]Problem, error)
	}{
		{reflect.TypeFor[specs.Spec](), func(text []byte) ([]Problem, error) { _, w, err := Parse(text); return w, err }},
		{reflect.TypeFor[specs.Process](), func(text []byte) ([]Problem, error) { _, w, err := ParseProcess(text); return w, err }},
		{reflect.TypeFor[specs.LinuxResources](), func(text []byte) ([]Problem, error) { _, w, err := ParseResources(text); return w, err }},
	} {
		try := func(pointer, at string, value any) {
			t.Helper()
			text, err := json.Marshal(leaves.Set(nil, pointer, value))
			if err != nil {
				t.Fatal(err)
			}
			if _, err := c.parse(text); err == nil || !strings.Contains(err.Error(), "a NUL character") || !strings.Contains(err.Error(), at) {
				t.Errorf("%s: got %v, want that it has a NUL", text, err)
			}
		}
		leaves.Of(c.t, func(pointer string, typ reflect.Type, platform string) {
			if typ.Kind() == reflect.String {
				strs++
				try(pointer, pointer, "/a\x00b")
			}
			if i := strings.Index(pointer, "/x"); i >= 0 && !strings.HasPrefix(pointer[i:], "/xy") && (len(pointer) == i+2 || pointer[i+2] == '/') {
				try(strings.Replace(pointer, "/x", "/a\x00b", 1), pointer[:i], 1)
			}
		})
		try("/unknown", "", map[string]any{"a": []string{"\x00"}})
		try("/unknown\x00", "", 1)
	}
	if strs < 100 {
		t.Errorf("only %d strings", strs)
	}
}
