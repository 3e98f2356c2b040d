package supervise

import "testing"

func TestKeys(t *testing.T) {
	for _, c := range []struct {
		sequence string
		input    []string
		rest     string
		complete bool
	}{
		{"\x10\x11", []string{"abc"}, "abc", false},
		{"\x10\x11", []string{"ab\x10\x11c"}, "ab", true},
		{"\x10\x11", []string{"a\x10", "\x11"}, "a", true},
		{"\x10\x11", []string{"a\x10", "b\x11"}, "a\x10b\x11", false},
		{"\x10\x11", []string{"\x10\x10\x11"}, "\x10", true},
		{"aab", []string{"aaab"}, "a", true},
		{"abab!", []string{"abababab!"}, "abab", true},
		{"x", []string{"yx"}, "y", true},
		{"", []string{"\x10\x11"}, "\x10\x11", false},
	} {
		k := newKeys([]byte(c.sequence))
		rest, complete := "", false
		for _, in := range c.input {
			r, done := k.filter([]byte(in))
			rest, complete = rest+string(r), complete || done
		}
		if rest != c.rest || complete != c.complete {
			t.Errorf("%q in %q: %q, %v, want %q, %v", c.sequence, c.input, rest, complete, c.rest, c.complete)
		}
	}
}
