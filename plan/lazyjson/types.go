package lazyjson

import (
	"encoding"
	"encoding/json"
	"reflect"
	"strings"
	"sync"
)

// types are those that one call has met, and the calls before it that were done. One call has them at a time.
type types map[reflect.Type]*known

// met keeps the types of calls that are done for those that follow: a list of containers reads the same ones hundreds of times.
var met = sync.Pool{New: func() any { return types{} }}

// known is what was found out of a type. Embedded fields, the option string and names that stand twice only encoding/json does right.
type known struct {
	left    bool // to encoding/json
	pointed bool // to encoding/json where a pointer to the value can be had: its methods are those of the pointer
	fields  []field

	asked bool // whether read is known
	read  bool // by encoding/json: it reads itself, or is written by encoding/json
}

// plain is what is known of strings, numbers and bools that are of no type of their own, and so can have no methods. It is never changed.
var plain = &known{asked: true}

type field struct {
	index     int
	name      string
	key       string // the same with quotes and colon
	omitEmpty bool
	omitZero  bool
	isZero    bool // has a method IsZero, which encoding/json asks for omitzero
}

var (
	marshaler       = reflect.TypeFor[json.Marshaler]()
	textMarshaler   = reflect.TypeFor[encoding.TextMarshaler]()
	number          = reflect.TypeFor[json.Number]()
	unmarshaler     = reflect.TypeFor[json.Unmarshaler]()
	textUnmarshaler = reflect.TypeFor[encoding.TextUnmarshaler]()
	zeroer          = reflect.TypeFor[interface{ IsZero() bool }]()
)

// look finds out how a type is written, once.
func (all types) look(t reflect.Type) *known {
	kind := t.Kind()
	if (kind >= reflect.Bool && kind <= reflect.Uint64 || kind == reflect.String) && t.PkgPath() == "" {
		return plain
	}
	if k := all[t]; k != nil {
		return k
	}
	k := &known{}
	all[t] = k
	writes := func(t reflect.Type) bool { return t.Implements(marshaler) || t.Implements(textMarshaler) }
	switch {
	case kind == reflect.Interface:
	case writes(t) || t == number:
		k.left = true
	case kind != reflect.Pointer && t.Name() != "" && writes(reflect.PointerTo(t)):
		k.pointed = true
	}
	switch kind {
	case reflect.Float32, reflect.Float64, reflect.Complex64, reflect.Complex128, reflect.Chan, reflect.Func, reflect.UnsafePointer,
		reflect.Uintptr:
		k.left = true
	case reflect.Slice:
		// Bytes that write themselves are a list of what they write.
		if elem := t.Elem(); elem.Kind() == reflect.Uint8 && (writes(elem) || writes(reflect.PointerTo(elem))) {
			k.left = true
		}
	case reflect.Map:
		if key := t.Key(); key.Kind() != reflect.String || key.Implements(textMarshaler) {
			k.left = true
		}
	case reflect.Struct:
		var simple bool
		if k.fields, simple = fieldsOf(t); !simple {
			k.left = true
		}
	}
	return k
}

// lookReading is look for what is to be read, which those who only write don't pay for.
func (all types) lookReading(t reflect.Type) *known {
	k := all.look(t)
	if !k.asked {
		k.asked = true
		to, kind := reflect.PointerTo(t), t.Kind()
		k.read = k.left || to.Implements(unmarshaler) || to.Implements(textUnmarshaler) || kind == reflect.Interface || kind == reflect.Array
	}
	return k
}

// fieldsOf is false for what only encoding/json does right.
func fieldsOf(t reflect.Type) (fields []field, plain bool) {
	names := make(map[string]bool, t.NumField())
	for i := range t.NumField() {
		f := t.Field(i)
		if f.Anonymous {
			return nil, false
		}
		tag := f.Tag.Get("json")
		if !f.IsExported() || tag == "-" {
			continue
		}
		name, options, _ := strings.Cut(tag, ",")
		if name == "" {
			name = f.Name
		}
		if names[name] || !simple(name) {
			return nil, false
		}
		names[name] = true
		out := field{index: i, name: name, key: `"` + name + `":`}
		for option := range strings.SplitSeq(options, ",") {
			switch option {
			case "omitempty":
				out.omitEmpty = true
			case "omitzero":
				out.omitZero, out.isZero = true, f.Type.Implements(zeroer)
				if !out.isZero && reflect.PointerTo(f.Type).Implements(zeroer) {
					return nil, false
				}
			case "string":
				return nil, false
			}
		}
		fields = append(fields, out)
	}
	return fields, true
}

// simple says whether encoding/json takes a name as it is.
func simple(name string) bool {
	for i := range len(name) {
		c := name[i]
		if !('a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '_' || c == '-' || c == '.' || c == '/') {
			return false
		}
	}
	return true
}
