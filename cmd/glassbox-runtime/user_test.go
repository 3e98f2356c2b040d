package main

import (
	"strconv"
	"testing"
)

func TestParseNumber(t *testing.T) {
	for text, want := range map[string]uint32{"0": 0, "7": 7, "1000": 1000, "2147483647": 2147483647} {
		if got, err := parseNumber("--user", text); err != nil || *got != want {
			t.Errorf("%q: got %v, %v, want %d", text, got, err, want)
		}
	}
	for _, text := range []string{
		"", "-1", "+1", "00", "007", "0x0", "1e3", " 1", "1 ", "1_0", "٣", "2147483648", "4294967295", "4294967296",
		"18446744073709551616", "root",
	} {
		if got, err := parseNumber("--user", text); err == nil {
			t.Errorf("%q: got %d, want an error", text, *got)
		}
	}
}

// FuzzParseNumber: what is accepted is written in the one way that there is to write it, and never the value that means "no
// change" to the kernel.
func FuzzParseNumber(f *testing.F) {
	for _, text := range []string{"0", "1000", "4294967296", "-1", "00", "99999999999999999999", "１"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		got, err := parseNumber("--user", text)
		if err == nil && (strconv.FormatUint(uint64(*got), 10) != text || *got == ^uint32(0)) {
			t.Errorf("%q became %d", text, *got)
		}
	})
}
