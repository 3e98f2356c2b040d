package oci

import (
	"encoding"
	"fmt"
	"reflect"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// Parse reads a configuration. An error is a [Problem]: the text is no JSON, has a value of the wrong type or a property twice.
// The warnings are of unknown properties and of those for other platforms; neither is in the result.
//
// Names are compared exactly first and then without regard to case, as readers written in Go always did, with a warning. A null
// stands for a property that is absent.
func Parse(text []byte) (*specs.Spec, []Problem, error) {
	s := new(specs.Spec)
	warnings, err := Decode(text, s)
	if err != nil {
		return nil, warnings, err
	}
	return s, warnings, nil
}

// ParseProcess reads and checks the process of an exec (its --process file). Pointers begin at the process.
func ParseProcess(text []byte) (*specs.Process, []Problem, error) {
	p := new(specs.Process)
	warnings, err := Decode(text, p)
	if err != nil {
		return nil, warnings, err
	}
	c := &checker{linux: &specs.Linux{}}
	c.process(p)
	return p, append(warnings, c.below("/process")...), c.err()
}

// ParseResources reads and checks the resources of an update (its --resources file). Pointers begin at the resources.
func ParseResources(text []byte) (*specs.LinuxResources, []Problem, error) {
	r := new(specs.LinuxResources)
	warnings, err := Decode(text, r)
	if err != nil {
		return nil, warnings, err
	}
	c := &checker{linux: &specs.Linux{Resources: r}}
	c.resources()
	return r, append(warnings, c.below("/linux/resources")...), c.err()
}

// Decode reads JSON into what v points to, by the same rules: structs, maps of texts, slices, texts, whole numbers, and types that read
// texts themselves. The first use of a type takes a fifth of what it takes package encoding/json.
func Decode(text []byte, v any) ([]Problem, error) {
	d := decoder{text: string(text), fields: make(map[reflect.Type][]field, 32)}
	err := d.document(reflect.ValueOf(v).Elem())
	return d.warnings, err
}

// deepest is how many arrays and objects may be inside each other. The specification needs eight; the rest is for properties of
// the future.
const deepest = 100

// decoder reads JSON into the specification's types, in one pass. All strings of the result are parts of text.
type decoder struct {
	text     string
	pos      int
	path     []string // names and indices that lead to the value at pos
	fields   map[reflect.Type][]field
	warnings []Problem
}

// field is a property of an object that a struct stands for.
type field struct {
	name     string
	index    int
	inner    int    // index in the embedded struct at index, or -1
	platform string // where it counts; "" is everywhere
}

func (d *decoder) document(v reflect.Value) error {
	// RFC 8259, 8.1: it must not be added; editors on Windows do, and the next message would speak of a character that nobody sees.
	if strings.HasPrefix(d.text, "\xef\xbb\xbf") {
		return d.wrong("the text begins with a byte order mark: JSON has none, save it as plain UTF-8")
	}
	if d.space(); d.pos == len(d.text) {
		return d.wrong("the text is empty, an object is wanted")
	}
	if err := d.value(v); err != nil {
		return err
	}
	if d.space(); d.pos < len(d.text) {
		return d.wrong("%s after the end of the configuration: nothing may follow it", d.found())
	}
	return nil
}

// wrong returns a problem with the text at pos.
func (d *decoder) wrong(format string, args ...any) error {
	p := Problem{Pointer: d.pointer(""), Text: fmt.Sprintf(format, args...)}
	before := d.text[:min(d.pos, len(d.text))]
	p.Line = 1 + strings.Count(before, "\n")
	p.Column = 1 + utf8.RuneCountInString(before[strings.LastIndexByte(before, '\n')+1:])
	return p
}

func (d *decoder) warn(name, format string, args ...any) {
	d.warnings = append(d.warnings, Problem{Pointer: d.pointer(name), Text: fmt.Sprintf(format, args...)})
}

// pointer returns the JSON pointer of the value at pos, or of one of its properties.
func (d *decoder) pointer(name string) string {
	var b strings.Builder
	for _, p := range d.path {
		b.WriteString("/" + escape(p))
	}
	if name != "" {
		b.WriteString("/" + escape(name))
	}
	return b.String()
}

// escape makes a name part of a JSON pointer.
func escape(name string) string {
	if strings.ContainsAny(name, "~/") {
		name = strings.ReplaceAll(strings.ReplaceAll(name, "~", "~0"), "/", "~1")
	}
	return name
}

// value reads the value at pos into v.
func (d *decoder) value(v reflect.Value) error {
	switch c, kind := d.peek(), v.Kind(); {
	case kind == reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		return d.value(v.Elem())
	case c == '{' && kind == reflect.Struct:
		return d.object(v)
	case c == '{' && kind == reflect.Map:
		return d.mapping(v)
	case c == '[' && kind == reflect.Slice:
		return d.array(v)
	case c == '"' && kind == reflect.String:
		s, err := d.string()
		if err != nil {
			return err
		}
		v.SetString(s)
		return nil
	case c == '"' && kind == reflect.Struct: // a time, say
		if u, ok := v.Addr().Interface().(encoding.TextUnmarshaler); ok {
			start := d.pos
			s, err := d.string()
			if err == nil && u.UnmarshalText([]byte(s)) != nil {
				d.pos = start
				err = d.wrong("%q is no %s", s, v.Type())
			}
			return err
		}
	case kind == reflect.Bool && (c == 't' || c == 'f'):
		v.SetBool(c == 't')
		return d.literal()
	case (c == '-' || c >= '0' && c <= '9') && (v.CanInt() || v.CanUint()):
		start := d.pos
		n, err := d.number()
		if err != nil {
			return err
		}
		if v.CanInt() {
			i, err := strconv.ParseInt(n, 10, v.Type().Bits())
			v.SetInt(i)
			if err == nil {
				return nil
			}
		} else {
			u, err := strconv.ParseUint(n, 10, v.Type().Bits())
			v.SetUint(u)
			if err == nil {
				return nil
			}
		}
		d.pos = start
		return d.wrong("%s where %s is wanted", n, wanted(v.Type()))
	}
	// Something else: say so if it is a value at all.
	start, what := d.pos, d.found()
	if err := d.skip(0); err != nil {
		return err
	}
	d.pos = start
	return d.wrong("%s where %s is wanted", what, wanted(v.Type()))
}

// wanted describes a type.
func wanted(t reflect.Type) string {
	switch t.Kind() {
	case reflect.Pointer:
		return wanted(t.Elem())
	case reflect.Struct, reflect.Map:
		return "an object"
	case reflect.Slice:
		switch t.Elem().Kind() {
		case reflect.String:
			return "an array of strings"
		case reflect.Struct:
			return "an array of objects"
		}
		return "an array of whole numbers"
	case reflect.String:
		return "a string"
	case reflect.Bool:
		return "true or false"
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		if t.Bits() == 64 {
			return "a whole number (of 64 bits)"
		}
		return fmt.Sprintf("a whole number from %d to %d", -1<<(t.Bits()-1), 1<<(t.Bits()-1)-1)
	}
	return fmt.Sprintf("a whole number from 0 to %d", ^uint64(0)>>(64-t.Bits()))
}

// name reads the name of a property and the colon behind it.
func (d *decoder) name() (string, error) {
	if d.peek() != '"' {
		return "", d.wrong("%s where the name of a property in double quotes is wanted", d.found())
	}
	name, err := d.string()
	if err != nil {
		return "", err
	}
	if d.peek() != ':' {
		return "", d.wrong("%s where a colon is wanted, after the name %q", d.found(), name)
	}
	d.pos++
	return name, nil
}

// next steps over what is between the members of an object or array: first is set before the first one. It reports whether
// another one follows.
func (d *decoder) next(first bool, end byte) (bool, error) {
	c := d.peek()
	switch {
	case c == end:
		d.pos++
		return false, nil
	case first:
		return true, nil
	case c == ',':
		comma := d.pos
		d.pos++
		if d.peek() == end {
			d.pos = comma
			return false, d.wrong("a comma before the closing %c: JSON has commas between things only", end)
		}
		return true, nil
	}
	return false, d.wrong("%s where a comma or the closing %c is wanted", d.found(), end)
}

func (d *decoder) enter(name string) error {
	if len(d.path) >= deepest {
		return d.wrong("more than %d arrays and objects inside each other", deepest)
	}
	d.path = append(d.path, name)
	return nil
}

func (d *decoder) leave() { d.path = d.path[:len(d.path)-1] }

func (d *decoder) object(v reflect.Value) error {
	d.pos++
	fields := d.fieldsOf(v.Type())
	var seen uint64
	for first := true; ; first = false {
		if more, err := d.next(first, '}'); !more {
			return err
		}
		d.space()
		at := d.pos
		name, err := d.name()
		if err != nil {
			return err
		}
		i := find(fields, name)
		if i < 0 {
			d.unknown(fields, name)
			if err := d.enter(name); err != nil {
				return err
			}
			if err := d.skip(0); err != nil {
				return err
			}
			d.leave()
			continue
		}
		f := &fields[i]
		if err := d.enter(f.name); err != nil {
			return err
		}
		if f.name != name {
			d.warn("", "it is written %q here: names are case-sensitive for many runtimes", name)
		}
		// Readers differ in which of two they take, so what was checked elsewhere might not be what runs.
		if seen&(1<<i) != 0 {
			d.pos = at
			return d.wrong("this property is there twice: remove one")
		}
		seen |= 1 << i
		switch {
		case d.peek() == 'n':
			err = d.literal() // null: as if it were absent
		// Of another system: not even read, as its types are none of ours. The specification has one document for all platforms.
		case f.platform != "" && !strings.Contains(f.platform, "linux"):
			d.warn("", "ignored, it is for %s only", f.platform)
			err = d.skip(0)
		case f.inner >= 0:
			err = d.value(v.Field(f.index).Field(f.inner))
		default:
			err = d.value(v.Field(f.index))
		}
		if err != nil {
			return err
		}
		d.leave()
	}
}

// fieldsOf lists the properties of a struct type.
func (d *decoder) fieldsOf(t reflect.Type) []field {
	if list, ok := d.fields[t]; ok {
		return list
	}
	list := make([]field, 0, t.NumField())
	for i := range t.NumField() {
		f := t.Field(i)
		if !f.IsExported() {
			continue
		}
		if f.Anonymous {
			for _, inner := range d.fieldsOf(f.Type) {
				inner.index, inner.inner = i, inner.index
				list = append(list, inner)
			}
			continue
		}
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		if name == "" {
			name = f.Name
		}
		list = append(list, field{name: name, index: i, inner: -1, platform: f.Tag.Get("platform")})
	}
	d.fields[t] = list
	return list
}

func find(fields []field, name string) int {
	for i := range fields {
		if fields[i].name == name {
			return i
		}
	}
	for i := range fields {
		if strings.EqualFold(fields[i].name, name) {
			return i
		}
	}
	return -1
}

func (d *decoder) unknown(fields []field, name string) {
	names := make([]string, len(fields))
	for i, f := range fields {
		names[i] = f.name
	}
	d.warn(name, "unknown property, ignored%s", maybe(name, names))
}

func (d *decoder) mapping(v reflect.Value) error {
	d.pos++
	t := v.Type()
	m := reflect.MakeMap(t)
	for first := true; ; first = false {
		if more, err := d.next(first, '}'); !more {
			if err == nil {
				v.Set(m)
			}
			return err
		}
		d.space()
		at := d.pos
		name, err := d.name()
		if err != nil {
			return err
		}
		if err := d.enter(name); err != nil {
			return err
		}
		key := reflect.ValueOf(name)
		if m.MapIndex(key).IsValid() {
			d.pos = at
			return d.wrong("this property is there twice: remove one")
		}
		e := reflect.New(t.Elem()).Elem()
		if err := d.value(e); err != nil {
			return err
		}
		m.SetMapIndex(key, e)
		d.leave()
	}
}

func (d *decoder) array(v reflect.Value) error {
	d.pos++
	list := reflect.MakeSlice(v.Type(), 0, 4)
	zero := reflect.Zero(v.Type().Elem())
	for n := 0; ; n++ {
		more, err := d.next(n == 0, ']')
		if err != nil {
			return err
		}
		if !more {
			v.Set(list)
			return nil
		}
		list = reflect.Append(list, zero)
		if err := d.enter(strconv.Itoa(n)); err != nil {
			return err
		}
		if err := d.value(list.Index(n)); err != nil {
			return err
		}
		d.leave()
	}
}

// skip reads a value that nobody wants. depth is how deep it is in another one of that kind.
func (d *decoder) skip(depth int) error {
	if len(d.path)+depth > deepest {
		return d.wrong("more than %d arrays and objects inside each other", deepest)
	}
	switch c := d.peek(); {
	case c == '"':
		_, err := d.string()
		return err
	case c == '-' || c >= '0' && c <= '9':
		_, err := d.number()
		return err
	case c != '{' && c != '[':
		return d.literal()
	}
	end := d.text[d.pos] + 2 // } and ] are two behind { and [
	d.pos++
	for first := true; ; first = false {
		if more, err := d.next(first, end); !more {
			return err
		}
		if end == '}' {
			if _, err := d.name(); err != nil {
				return err
			}
		}
		if err := d.skip(depth + 1); err != nil {
			return err
		}
	}
}
