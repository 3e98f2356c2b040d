package plan

import (
	"fmt"
	"reflect"
	"strings"
)

// maxData is how much of the option string of mount(2) the kernel reads: it copies one page and puts the end mark into the last byte,
// without an error (copy_mount_options in fs/namespace.c).
const maxData = 4095

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
		if err := separators(s.Op); err != nil {
			return fmt.Errorf("plan: step %d/%d: %s: %w", i+1, len(p.Steps), s.Op.Kind(), err)
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

// separators refuses paths that mean one thing as a list and another in the option string that the kernel gets, where commas part
// options, colons part the layers of an overlay, and a backslash takes away the meaning of what follows it.
func separators(op Op) error {
	switch o := op.(type) {
	case *Mount:
		if len(o.Data) > maxData {
			return fmt.Errorf("%d bytes of options: mount(2) reads %d and would ignore the rest", len(o.Data), maxData)
		}
	case *Overlay:
		for _, opt := range o.Options {
			key, _, _ := strings.Cut(opt, "=")
			switch strings.TrimSuffix(key, "+") {
			case "lowerdir", "datadir", "upperdir", "workdir":
				return fmt.Errorf("the option %q names a directory, which has its own place in the step", opt)
			}
			if strings.Contains(opt, ",") {
				return fmt.Errorf("the option %q is more than one", opt)
			}
		}
		if o.Append {
			return nil // each path goes to the kernel alone, by fsconfig(2), which takes it as it is
		}
		for _, dir := range o.Lower {
			if strings.ContainsAny(dir, `:,\`) {
				return fmt.Errorf("the layer %q would be read as several paths or options: move it to a path without ':', ',' and '\\'", dir)
			}
		}
		for _, dir := range []string{o.Upper, o.Work} {
			if strings.ContainsAny(dir, `,\`) {
				return fmt.Errorf("the directory %q would be read as several options: move it to a path without ',' and '\\'", dir)
			}
		}
	}
	return nil
}
