package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestPrintable(t *testing.T) {
	for in, want := range map[string]string{
		"plain, ä and 世界\nhint:\tx": "plain, ä and 世界\nhint:\tx",
		"\x1b]0;owned\x07\x1b[2J":   `\x1b]0;owned\a\x1b[2J`,
		"a\rb\x00\x7f\u009b31m":     `a\rb\x00\x7f\u009b31m`,
		"\u202etxt.exe\u2066":       `\u202etxt.exe\u2066`,
		"bad \xff\xfe":              `bad \xff\xfe`,
		"\uFFFD":                    "\uFFFD",
	} {
		if got := printable(in); got != want {
			t.Errorf("%q: got %q, want %q", in, got, want)
		}
	}
}

// TestLogPrintable: in neither format does a message reach whoever shows it as something that a terminal obeys.
func TestLogPrintable(t *testing.T) {
	for _, format := range []string{"text", "json"} {
		file := filepath.Join(t.TempDir(), "log")
		l := &logger{}
		if err := l.open(file, format); err != nil {
			t.Fatal(err)
		}
		l.write("error", "exec \x1b[31m\u202e")
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		shown := string(text)
		if format == "json" {
			var line struct{ Msg string }
			if err := json.Unmarshal(text, &line); err != nil {
				t.Fatal(err)
			}
			shown = line.Msg
		}
		if strings.ContainsAny(shown, "\x1b\u202e") || !strings.Contains(shown, `\x1b[31m\u202e`) {
			t.Errorf("%s: %q", format, shown)
		}
	}
}
