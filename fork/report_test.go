package fork

import (
	"testing"

	"glassbox/host"
)

// TestBecame reads what /proc said of children whose end of file was seen, at one of a few thousand in a machine with one processor: some
// were within execve.
func TestBecame(t *testing.T) {
	for name, test := range map[string]struct {
		flags []uint64
		want  bool
	}{
		"the program":                   {[]uint64{0x400100}, true},
		"within execve":                 {[]uint64{0x400140, 0x400140, 0x400100}, true},
		"a program that has ended":      {[]uint64{0x40810c}, true},
		"died before execve":            {[]uint64{0x40014c}, false},
		"was killed within execve":      {[]uint64{0x400140, 0x400144}, false},
		"dying, and not yet waited for": {[]uint64{0x400144}, false},
	} {
		n := 0
		_, executed, err := became(func() (host.Stat, error) { n++; return host.Stat{Flags: test.flags[n-1]}, nil })
		if err != nil || executed != test.want || n != len(test.flags) {
			t.Errorf("%s: executed %v, %v after %d looks, want %v after %d", name, executed, err, n, test.want, len(test.flags))
		}
	}
}
