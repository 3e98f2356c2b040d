package oci

import (
	"encoding/json"
	"reflect"
	"strconv"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// leaves calls visit with the JSON pointer of each value that a type of the specification has room for: the first entry of lists, and
// the key x of maps. Properties for other platforms have theirs.
func leaves(t reflect.Type, pointer string, visit func(pointer string, t reflect.Type, platform string)) {
	switch t.Kind() {
	case reflect.Pointer:
		leaves(t.Elem(), pointer, visit)
	case reflect.Struct:
		for i := range t.NumField() {
			f := t.Field(i)
			name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
			switch platform := f.Tag.Get("platform"); {
			case platform != "" && !strings.Contains(platform, "linux"):
				visit(pointer+"/"+name, f.Type, platform)
			case f.Anonymous:
				leaves(f.Type, pointer, visit)
			default:
				leaves(f.Type, pointer+"/"+name, visit)
			}
		}
	case reflect.Slice:
		leaves(t.Elem(), pointer+"/0", visit)
	case reflect.Map:
		leaves(t.Elem(), pointer+"/x", visit)
	default:
		visit(pointer, t, "")
	}
}

// nested is JSON that has a value at a pointer, and nothing else.
func nested(pointer string, value any) any {
	parts := strings.Split(pointer, "/")[1:]
	for i := len(parts) - 1; i >= 0; i-- {
		if _, err := strconv.Atoi(parts[i]); err == nil {
			value = []any{value}
		} else {
			value = map[string]any{parts[i]: value}
		}
	}
	return value
}

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
			text, err := json.Marshal(nested(pointer, value))
			if err != nil {
				t.Fatal(err)
			}
			if _, err := c.parse(text); err == nil || !strings.Contains(err.Error(), "a NUL character") || !strings.Contains(err.Error(), at) {
				t.Errorf("%s: got %v, want that it has a NUL", text, err)
			}
		}
		leaves(c.t, "", func(pointer string, typ reflect.Type, platform string) {
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
