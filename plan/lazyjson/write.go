// Package lazyjson writes and reads values as JSON as encoding/json does, to the byte, but is as quick at the first time.
//
// Package encoding/json looks at every field of every type that a value could hold before it writes or reads the first one, and keeps what
// it found for the next time. A program that writes three files and ends has no next time: in a start of 22 ms it was more than one. Here a
// type is looked at when the first value of it is met. What is rare (types that write or read themselves, embedded structs, floating point
// numbers) is left to encoding/json, and so is, as a whole, what isn't written as [Marshal] writes it.
package lazyjson

import (
	"encoding/base64"
	"encoding/json"
	"reflect"
	"slices"
	"strconv"
	"strings"
)

// Marshal is json.Marshal. A value that holds itself never ends here; nothing of ours does.
func Marshal(v any) ([]byte, error) { return Append(nil, v) }

// Append is Marshal at the end of out, for who knows how much room it takes.
func Append(out []byte, v any) ([]byte, error) {
	e := encoder{out: out, types: met.Get().(types)}
	defer met.Put(e.types)
	if err := e.value(reflect.ValueOf(v)); err != nil {
		return nil, err
	}
	return e.out, nil
}

type encoder struct {
	out   []byte
	types types
}

func (e *encoder) value(v reflect.Value) error {
	if !v.IsValid() {
		e.out = append(e.out, "null"...)
		return nil
	}
	k := e.types.look(v.Type())
	if k.left || k.pointed && v.CanAddr() {
		return e.leave(v)
	}
	switch v.Kind() {
	case reflect.Bool:
		e.out = strconv.AppendBool(e.out, v.Bool())
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		e.out = strconv.AppendInt(e.out, v.Int(), 10)
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		e.out = strconv.AppendUint(e.out, v.Uint(), 10)
	case reflect.String:
		return e.string(v.String())
	case reflect.Pointer, reflect.Interface:
		return e.value(v.Elem())
	case reflect.Slice:
		if v.IsNil() {
			e.out = append(e.out, "null"...)
			return nil
		}
		if v.Type().Elem().Kind() == reflect.Uint8 {
			e.out = append(e.out, '"')
			e.out = base64.StdEncoding.AppendEncode(e.out, v.Bytes())
			e.out = append(e.out, '"')
			return nil
		}
		return e.list(v)
	case reflect.Array:
		return e.list(v)
	case reflect.Map:
		return e.table(v)
	case reflect.Struct:
		return e.object(v, k.fields)
	default: // left, see look
		return e.leave(v)
	}
	return nil
}

func (e *encoder) leave(v reflect.Value) error {
	if v.CanAddr() { // for what is in it and writes itself by a pointer's method
		v = v.Addr()
	}
	data, err := json.Marshal(v.Interface())
	e.out = append(e.out, data...)
	return err
}

func (e *encoder) string(s string) error {
	for i := range len(s) {
		if c := s[i]; c < ' ' || c >= 0x7f || c == '"' || c == '\\' || c == '<' || c == '>' || c == '&' {
			data, err := json.Marshal(s)
			e.out = append(e.out, data...)
			return err
		}
	}
	e.out = append(e.out, '"')
	e.out = append(e.out, s...)
	e.out = append(e.out, '"')
	return nil
}

func (e *encoder) list(v reflect.Value) error {
	e.out = append(e.out, '[')
	for i := range v.Len() {
		if i > 0 {
			e.out = append(e.out, ',')
		}
		if err := e.value(v.Index(i)); err != nil {
			return err
		}
	}
	e.out = append(e.out, ']')
	return nil
}

func (e *encoder) table(v reflect.Value) error {
	if v.IsNil() {
		e.out = append(e.out, "null"...)
		return nil
	}
	keys := v.MapKeys()
	slices.SortFunc(keys, func(a, b reflect.Value) int { return strings.Compare(a.String(), b.String()) })
	e.out = append(e.out, '{')
	for i, key := range keys {
		if i > 0 {
			e.out = append(e.out, ',')
		}
		if err := e.string(key.String()); err != nil {
			return err
		}
		e.out = append(e.out, ':')
		if err := e.value(v.MapIndex(key)); err != nil {
			return err
		}
	}
	e.out = append(e.out, '}')
	return nil
}

func (e *encoder) object(v reflect.Value, fields []field) error {
	e.out = append(e.out, '{')
	first := true
	for i := range fields {
		f := &fields[i]
		value := v.Field(f.index)
		if f.omitEmpty && empty(value) || f.omitZero && zero(value, f.isZero) {
			continue
		}
		if !first {
			e.out = append(e.out, ',')
		}
		first = false
		e.out = append(e.out, f.key...)
		if err := e.value(value); err != nil {
			return err
		}
	}
	e.out = append(e.out, '}')
	return nil
}

// empty is what encoding/json's omitempty leaves out.
func empty(v reflect.Value) bool {
	switch v.Kind() {
	case reflect.Array, reflect.Map, reflect.Slice, reflect.String:
		return v.Len() == 0
	case reflect.Struct:
		return false
	default:
		return v.IsZero()
	}
}

func zero(v reflect.Value, asked bool) bool {
	if !asked || v.Kind() == reflect.Pointer && v.IsNil() || v.Kind() == reflect.Interface && v.IsNil() {
		return v.IsZero()
	}
	return v.Interface().(interface{ IsZero() bool }).IsZero()
}
