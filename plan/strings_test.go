package plan

import (
	"fmt"
	"reflect"
	"strings"
	"testing"
)

// texts calls f with each string of a value, settable, and where it is.
func texts(v reflect.Value, at string, f func(at string, text reflect.Value)) {
	switch v.Kind() {
	case reflect.String:
		f(at, v)
	case reflect.Slice:
		for i := range v.Len() {
			texts(v.Index(i), fmt.Sprintf("%s[%d]", at, i), f)
		}
	case reflect.Struct:
		for i := range v.NumField() {
			texts(v.Field(i), at+"."+v.Type().Field(i).Name, f)
		}
	case reflect.Pointer, reflect.Interface:
		texts(v.Elem(), at, f)
	}
}

// TestNULIsRefused tries each string field of each kind of step, and the texts around it: "/\0srv/box" is / to the kernel.
func TestNULIsRefused(t *testing.T) {
	p := full(t)
	cases := 0
	texts(reflect.ValueOf(p), "plan", func(at string, text reflect.Value) {
		if strings.HasSuffix(at, ".Arch") && text.String() == "" {
			return
		}
		cases++
		kept := text.String()
		defer text.SetString(kept)
		text.SetString("/\x00srv/box")
		err := p.Validate()
		if err == nil || !strings.Contains(err.Error(), `"/\x00srv/box": the kernel would take`) {
			t.Errorf("%s with a NUL: got %v, want it refused because of the NUL", at, err)
		}
	})
	if cases < 400 {
		t.Errorf("%d strings tried, want those of all kinds of steps", cases)
	}
	if err := p.checkStrings(); err != nil {
		t.Errorf("without a NUL: got %v", err)
	}
}

// TestSeparators: what the option string of a mount would turn into something else.
func TestSeparators(t *testing.T) {
	for _, tt := range []struct {
		op   Op
		want string // part of the error; "" for none
	}{
		{&Overlay{Lower: []string{"layers/a", "layers/b"}, Upper: "u:1", Work: "w"}, ""},
		{&Overlay{Lower: []string{"layers/a:/"}}, "several paths"},
		{&Overlay{Lower: []string{"layers/a,upperdir=/etc"}}, "several paths"},
		{&Overlay{Lower: []string{`layers/a\`, "b"}}, "several paths"},
		{&Overlay{Lower: []string{"layers/a:/"}, Append: true}, ""},
		{&Overlay{Lower: []string{"l"}, Upper: "u,lowerdir=/", Work: "w"}, "several options"},
		{&Overlay{Lower: []string{"l"}, Upper: "u", Work: "w,x"}, "several options"},
		{&Overlay{Lower: []string{"l"}, Options: []string{"lowerdir=/"}}, "own place"},
		{&Overlay{Lower: []string{"l"}, Options: []string{"lowerdir+=/"}, Append: true}, "own place"},
		{&Overlay{Lower: []string{"l"}, Options: []string{"volatile,lowerdir=/"}}, "more than one"},
		{&Mount{Target: "/x", Data: strings.Repeat("x", 4095)}, ""},
		{&Mount{Target: "/x", Data: strings.Repeat("x", 4096)}, "would ignore the rest"},
	} {
		err := (&Plan{Version: Version, Steps: []Step{at(Host, &Clone{}), at(Child, tt.op), at(Child, &Execve{Argv: []string{"x"}})}}).Validate()
		if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
			t.Errorf("%+v: got error %v, want one with %q", tt.op, err, tt.want)
		}
	}
}
