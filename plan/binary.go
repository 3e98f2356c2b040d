package plan

import (
	"encoding/binary"
	"errors"
	"fmt"
	"reflect"
)

// The binary form of a value is what one process of glassbox hands to the next: it is read thirty times faster than JSON, and
// that is a good part of a container's start. Both ends are of one build, and the order of a type's fields is the format. Files
// are JSON, for people and for later versions; the one that isn't (supervise.Target) names its build, and JSON has the same.
//
//	bool, integers   varint, zigzag where signed
//	string, []byte   length, bytes
//	slice            length, elements; 0 also for nil
//	array            elements
//	map              length, keys and values in no order
//	pointer          0, or 1 and what it points to
//	struct           its exported fields in order
//	Op               its kind, then the struct

// AppendBinary appends the binary form of what v points to. It panics on types that plans and jobs don't have: floats,
// channels, interfaces other than Op.
func AppendBinary(b []byte, v any) []byte { return appendValue(b, reflect.ValueOf(v).Elem()) }

var opType = reflect.TypeFor[Op]()

func appendValue(b []byte, v reflect.Value) []byte {
	switch v.Kind() {
	case reflect.Bool:
		if v.Bool() {
			return append(b, 1)
		}
		return append(b, 0)
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		return binary.AppendVarint(b, v.Int())
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		return binary.AppendUvarint(b, v.Uint())
	case reflect.String:
		b = binary.AppendUvarint(b, uint64(v.Len()))
		return append(b, v.String()...)
	case reflect.Slice:
		b = binary.AppendUvarint(b, uint64(v.Len()))
		if v.Type().Elem().Kind() == reflect.Uint8 {
			return append(b, v.Bytes()...)
		}
		for i := range v.Len() {
			b = appendValue(b, v.Index(i))
		}
		return b
	case reflect.Array:
		for i := range v.Len() {
			b = appendValue(b, v.Index(i))
		}
		return b
	case reflect.Map:
		b = binary.AppendUvarint(b, uint64(v.Len()))
		for it := v.MapRange(); it.Next(); {
			b = appendValue(appendValue(b, it.Key()), it.Value())
		}
		return b
	case reflect.Pointer:
		if v.IsNil() {
			return append(b, 0)
		}
		return appendValue(append(b, 1), v.Elem())
	case reflect.Struct:
		for i := range v.NumField() {
			if f := v.Field(i); f.CanInterface() { // exported
				b = appendValue(b, f)
			}
		}
		return b
	case reflect.Interface:
		if v.Type() == opType && !v.IsNil() {
			op := v.Interface().(Op)
			kind := op.Kind()
			b = binary.AppendUvarint(b, uint64(len(kind)))
			b = append(b, kind...)
			return appendValue(b, v.Elem().Elem())
		}
	}
	panic("plan: " + v.Type().String() + " has no binary form")
}

// ReadBinary reads the binary form of what v points to. Data that is no such form is an error, never a panic.
func ReadBinary(data []byte, v any) error {
	r := &binaryReader{data: data}
	r.value(reflect.ValueOf(v).Elem(), 0)
	if r.err == nil && len(r.data) > 0 {
		r.err = fmt.Errorf("%d bytes after the value", len(r.data))
	}
	if r.err != nil {
		return fmt.Errorf("binary form: %w", r.err)
	}
	return nil
}

type binaryReader struct {
	data []byte
	err  error
}

var errShort = errors.New("it ends too early")

func (r *binaryReader) fail(err error) {
	if r.err == nil {
		r.err = err
	}
	r.data = nil
}

func (r *binaryReader) uvarint() uint64 {
	n, size := binary.Uvarint(r.data)
	if size <= 0 {
		r.fail(errShort)
		return 0
	}
	r.data = r.data[size:]
	return n
}

// length reads a number of things of which each takes at least one byte.
func (r *binaryReader) length() int {
	n := r.uvarint()
	if n > uint64(len(r.data)) {
		r.fail(errShort)
		return 0
	}
	return int(n)
}

func (r *binaryReader) bytes() []byte {
	n := r.length()
	b := r.data[:n]
	r.data = r.data[n:]
	return b
}

func (r *binaryReader) value(v reflect.Value, depth int) {
	if r.err != nil {
		return
	}
	if depth > 32 {
		r.fail(errors.New("it is nested too deeply"))
		return
	}
	switch v.Kind() {
	case reflect.Bool:
		v.SetBool(r.uvarint() != 0)
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		n, size := binary.Varint(r.data)
		if size <= 0 || v.OverflowInt(n) {
			r.fail(errShort)
			return
		}
		r.data = r.data[size:]
		v.SetInt(n)
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		n := r.uvarint()
		if v.OverflowUint(n) {
			r.fail(errors.New("a number is too large"))
			return
		}
		v.SetUint(n)
	case reflect.String:
		v.SetString(string(r.bytes()))
	case reflect.Slice:
		if v.Type().Elem().Kind() == reflect.Uint8 {
			if b := r.bytes(); len(b) > 0 {
				v.SetBytes(append([]byte(nil), b...))
			}
			return
		}
		n := r.length()
		if n == 0 {
			return
		}
		v.Set(reflect.MakeSlice(v.Type(), n, n))
		for i := range n {
			r.value(v.Index(i), depth+1)
		}
	case reflect.Array:
		for i := range v.Len() {
			r.value(v.Index(i), depth+1)
		}
	case reflect.Map:
		n := r.length()
		if n == 0 {
			return
		}
		v.Set(reflect.MakeMapWithSize(v.Type(), n))
		for range n {
			key, value := reflect.New(v.Type().Key()).Elem(), reflect.New(v.Type().Elem()).Elem()
			r.value(key, depth+1)
			r.value(value, depth+1)
			if r.err != nil {
				return
			}
			v.SetMapIndex(key, value)
		}
	case reflect.Pointer:
		if r.uvarint() == 0 {
			return
		}
		v.Set(reflect.New(v.Type().Elem()))
		r.value(v.Elem(), depth+1)
	case reflect.Struct:
		for i := range v.NumField() {
			if f := v.Field(i); f.CanSet() { // exported
				r.value(f, depth+1)
			}
		}
	case reflect.Interface:
		if v.Type() != opType {
			r.fail(fmt.Errorf("%s has no binary form", v.Type()))
			return
		}
		kind := string(r.bytes())
		op := newOp(kind)
		if op == nil {
			r.fail(fmt.Errorf("unknown step %q", kind))
			return
		}
		r.value(reflect.ValueOf(op).Elem(), depth+1)
		v.Set(reflect.ValueOf(op))
	default:
		r.fail(fmt.Errorf("%s has no binary form", v.Type()))
	}
}
