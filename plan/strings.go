package plan

import (
	"fmt"
	"reflect"
	"strings"
)

// checkStrings refuses what the kernel would read otherwise than a person or a judge reads it here. Every string of a system call ends at
// its first NUL: of "/\x00srv/box" a reader sees a directory below /srv, and the kernel mounts /. No string of a plan needs one, the
// texts for readers included, so none may have one, in whatever field it is.
func (p *Plan) checkStrings() error {
	refused := func(where, text string) string {
		return fmt.Sprintf("%s is %q: the kernel would take what is before the NUL byte and ignore the rest; take it out", where, text)
	}
	if strings.IndexByte(p.Arch, 0) >= 0 {
		return fmt.Errorf("plan: %s", refused("arch", p.Arch))
	}
	for i, s := range p.Steps {
		if where, text, found := withNUL(reflect.ValueOf(s)); found {
			return fmt.Errorf("plan: step %d/%d: %s", i+1, len(p.Steps), refused(where[1:], text))
		}
	}
	return nil
}

// withNUL finds a string with a NUL byte in a value, and says where it is: ".args.argv.2". By reflection, so that a field that is added
// later is looked at, too. Where it is, is written down on the way back only: each start comes through here, and has none.
func withNUL(v reflect.Value) (where, text string, found bool) {
	switch v.Kind() {
	case reflect.String:
		text = v.String()
		return "", text, strings.IndexByte(text, 0) >= 0
	case reflect.Slice:
		if v.Type().Elem().Kind() == reflect.Uint8 {
			return "", "", false // a program: its length is told beside it, and zeros belong to it
		}
		for i := range v.Len() {
			if where, text, found = withNUL(v.Index(i)); found {
				return fmt.Sprintf(".%d%s", i, where), text, true
			}
		}
	case reflect.Struct:
		for i := range v.NumField() {
			if where, text, found = withNUL(v.Field(i)); found {
				return "." + jsonName(v.Type().Field(i)) + where, text, true
			}
		}
	case reflect.Map:
		for it := v.MapRange(); it.Next(); {
			if where, text, found = withNUL(it.Key()); found {
				return where, text, true
			}
			if where, text, found = withNUL(it.Value()); found {
				return "." + it.Key().String() + where, text, true
			}
		}
	case reflect.Pointer, reflect.Interface:
		if !v.IsNil() {
			return withNUL(v.Elem())
		}
	}
	return "", "", false
}

// jsonName is what a field is called in the JSON form, which is where a reader of the error will look.
func jsonName(f reflect.StructField) string {
	switch f.Name { // of Step, which writes itself
	case "Op":
		return "args"
	case "Lane", "Phase", "Origin", "Reason":
		return strings.ToLower(f.Name)
	}
	name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
	return name
}
