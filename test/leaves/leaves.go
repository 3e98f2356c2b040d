// Package leaves walks the types of the OCI specification, for tests that want a case for each property that there is.
package leaves

import (
	"reflect"
	"strconv"
	"strings"
)

// Of calls visit with the JSON pointer of each value that a type has room for: the first entry of lists, and the key x of maps. Properties
// for other platforms than Linux come whole, with those.
func Of(t reflect.Type, visit func(pointer string, t reflect.Type, platform string)) {
	walk(t, "", visit)
}

func walk(t reflect.Type, pointer string, visit func(pointer string, t reflect.Type, platform string)) {
	switch t.Kind() {
	case reflect.Pointer:
		walk(t.Elem(), pointer, visit)
	case reflect.Struct:
		for i := range t.NumField() {
			f := t.Field(i)
			name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
			switch platform := f.Tag.Get("platform"); {
			case platform != "" && !strings.Contains(platform, "linux"):
				visit(pointer+"/"+name, f.Type, platform)
			case f.Anonymous:
				walk(f.Type, pointer, visit)
			default:
				walk(f.Type, pointer+"/"+name, visit)
			}
		}
	case reflect.Slice:
		walk(t.Elem(), pointer+"/0", visit)
	case reflect.Map:
		walk(t.Elem(), pointer+"/x", visit)
	default:
		visit(pointer, t, "")
	}
}

// Set sets a value in what encoding/json makes of an object, and returns the whole. Missing objects and lists on the way are made; of a
// list there is the first entry.
func Set(whole any, pointer string, value any) any {
	name, rest, more := strings.Cut(strings.TrimPrefix(pointer, "/"), "/")
	if more {
		rest = "/" + rest
	}
	if _, err := strconv.Atoi(name); err == nil {
		list, _ := whole.([]any)
		if len(list) == 0 {
			list = []any{nil}
		}
		list[0] = inner(list[0], rest, more, value)
		return list
	}
	object, _ := whole.(map[string]any)
	if object == nil {
		object = map[string]any{}
	}
	object[name] = inner(object[name], rest, more, value)
	return object
}

func inner(at any, rest string, more bool, value any) any {
	if more {
		return Set(at, rest, value)
	}
	return value
}
