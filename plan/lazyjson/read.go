package lazyjson

import (
	"encoding/base64"
	"encoding/json"
	"reflect"
	"strconv"
	"unicode/utf8"
)

// maxDepth bounds how deep what is read here is nested. What is deeper is encoding/json's to read or to refuse.
const maxDepth = 100

// Unmarshal is json.Unmarshal. Its own way is for what [Marshal] has written, with white space or without, into a value that is zero;
// all else, and each error, is encoding/json's.
func Unmarshal(data []byte, v any) error {
	to := reflect.ValueOf(v)
	if to.Kind() == reflect.Pointer && !to.IsNil() && to.Elem().IsZero() {
		d := decoder{data: data, types: met.Get().(types)}
		defer met.Put(d.types)
		if d.value(to.Elem()) && d.next() == 0 && d.at == len(data) {
			return nil
		}
		to.Elem().SetZero()
	}
	return json.Unmarshal(data, v)
}

// A decoder's methods return false for what is to be left to encoding/json: the value that they filled until then means nothing.
type decoder struct {
	data  []byte
	at    int
	depth int
	types types
}

// next skips white space and returns the byte that follows, or 0.
func (d *decoder) next() byte {
	for ; d.at < len(d.data); d.at++ {
		if c := d.data[d.at]; c != ' ' && c != '\n' && c != '\t' && c != '\r' {
			return c
		}
	}
	return 0
}

func (d *decoder) word(word string) bool {
	if len(d.data)-d.at < len(word) || string(d.data[d.at:d.at+len(word)]) != word {
		return false
	}
	d.at += len(word)
	return true
}

func (d *decoder) value(v reflect.Value) bool {
	if d.depth++; d.depth > maxDepth {
		return false
	}
	defer func() { d.depth-- }()
	c := d.next()
	k := d.types.lookReading(v.Type())
	switch {
	case k.read && v.Kind() != reflect.Pointer:
		return d.leave(v)
	case c == 'n': // which changes nothing in a value that is zero
		return d.word("null")
	}
	switch v.Kind() {
	case reflect.Bool:
		v.SetBool(c == 't')
		return d.word("true") || d.word("false")
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		n, err := strconv.ParseInt(string(d.number()), 10, v.Type().Bits())
		v.SetInt(n)
		return err == nil
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		n, err := strconv.ParseUint(string(d.number()), 10, v.Type().Bits())
		v.SetUint(n)
		return err == nil
	case reflect.String:
		s, ok := d.string()
		v.SetString(s)
		return ok
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		return d.value(v.Elem())
	case reflect.Slice:
		if v.Type().Elem().Kind() == reflect.Uint8 {
			s, ok := d.string()
			data, err := base64.StdEncoding.DecodeString(s)
			v.SetBytes(data)
			return ok && err == nil
		}
		return d.list(v)
	case reflect.Map:
		return d.table(v)
	case reflect.Struct:
		return d.object(v, k.fields)
	}
	return false
}

// leave gives one value to encoding/json.
func (d *decoder) leave(v reflect.Value) bool {
	begin := d.at
	return d.skip() && json.Unmarshal(d.data[begin:d.at], v.Addr().Interface()) == nil
}

// skip goes past a value without judging it.
func (d *decoder) skip() bool {
	open := 0
	for d.at < len(d.data) {
		switch c := d.data[d.at]; c {
		case '"':
			if !d.quoted() {
				return false
			}
			if open == 0 {
				return true
			}
			continue
		case '{', '[':
			open++
		case '}', ']':
			if open--; open == 0 {
				d.at++
				return true
			}
			if open < 0 { // the end of what a number or word stood in
				return true
			}
		case ',', ' ', '\n', '\t', '\r':
			if open == 0 {
				return true
			}
		}
		d.at++
	}
	return open == 0
}

// quoted goes past a string.
func (d *decoder) quoted() bool {
	for d.at++; d.at < len(d.data); d.at++ {
		switch d.data[d.at] {
		case '\\':
			d.at++
		case '"':
			d.at++
			return true
		}
	}
	return false
}

// number returns what can be a whole number as JSON has it, or what strconv refuses. As a string it lives on its caller's stack.
func (d *decoder) number() []byte {
	begin := d.at
	if d.at < len(d.data) && d.data[d.at] == '-' {
		d.at++
	}
	digits := d.at
	for d.at < len(d.data) && '0' <= d.data[d.at] && d.data[d.at] <= '9' {
		d.at++
	}
	if d.at-digits > 1 && d.data[digits] == '0' {
		return nil
	}
	return d.data[begin:d.at] // a fraction that follows is no end of a value
}

func (d *decoder) string() (string, bool) {
	if d.next() != '"' {
		return "", false
	}
	begin := d.at
	for i := begin + 1; i < len(d.data); i++ {
		switch c := d.data[i]; {
		case c == '"':
			d.at = i + 1
			return string(d.data[begin+1 : i]), true
		case c == '\\' || c < ' ' || c >= utf8.RuneSelf:
			if !d.quoted() {
				return "", false
			}
			var s string
			err := json.Unmarshal(d.data[begin:d.at], &s)
			return s, err == nil
		}
	}
	return "", false
}

func (d *decoder) list(v reflect.Value) bool {
	if d.next() != '[' {
		return false
	}
	d.at++
	v.Set(reflect.MakeSlice(v.Type(), 0, 0))
	if d.next() == ']' {
		d.at++
		return true
	}
	for i := 0; ; i++ {
		v.Grow(1)
		v.SetLen(i + 1)
		if !d.value(v.Index(i)) {
			return false
		}
		if end, ok := d.more(']'); end || !ok {
			return ok
		}
	}
}

// more goes past what follows a member of a list or of an object.
func (d *decoder) more(closing byte) (end, ok bool) {
	switch d.next() {
	case closing:
		d.at++
		return true, true
	case ',':
		d.at++
		return false, true
	}
	return false, false
}

func (d *decoder) table(v reflect.Value) bool {
	v.Set(reflect.MakeMap(v.Type()))
	return d.members(func(name string) bool {
		key := reflect.New(v.Type().Key()).Elem()
		key.SetString(name)
		value := reflect.New(v.Type().Elem()).Elem()
		ok := d.value(value)
		v.SetMapIndex(key, value)
		return ok
	})
}

func (d *decoder) object(v reflect.Value, fields []field) bool {
	seen := make([]bool, len(fields))
	at := 0
	return d.members(func(name string) bool {
		for range fields { // they mostly stand in this order
			f := &fields[at]
			if f.name == name {
				if seen[at] { // a second one is merged into the first
					return false
				}
				seen[at] = true
				at = (at + 1) % len(fields)
				return d.value(v.Field(f.index))
			}
			at = (at + 1) % len(fields)
		}
		return false // unknown, or written in other letters
	})
}

// members reads an object; value reads what a name stands for.
func (d *decoder) members(value func(name string) bool) bool {
	if d.next() != '{' {
		return false
	}
	d.at++
	if d.next() == '}' {
		d.at++
		return true
	}
	for {
		name, ok := d.string()
		if !ok || d.next() != ':' {
			return false
		}
		d.at++
		if !value(name) {
			return false
		}
		if end, ok := d.more('}'); end || !ok {
			return ok
		}
	}
}
