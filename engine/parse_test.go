package engine

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

func TestEnvFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "env")
	if err := os.WriteFile(file, []byte("\ufeff# comment\n\nA=1\r\n  B = 2\nC\nD=# no comment\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := readEnvFile(file); err == nil || !strings.Contains(err.Error(), ":4") {
		t.Errorf("a name with a blank: %v, want an error with the line", err)
	}
	if err := os.WriteFile(file, []byte("A=1\r\nC\nD=# no comment\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	got, err := readEnvFile(file)
	if d := cmp.Diff([]string{"A=1", "C", "D=# no comment"}, got); err != nil || d != "" {
		t.Errorf("%v (-want +got):\n%s", err, d)
	}
}

func TestParseSignal(t *testing.T) {
	for text, want := range map[string]unix.Signal{"9": 9, "KILL": 9, "sigterm": 15, "SIGRTMIN+3": 37, "RTMAX-1": 63, "64": 64} {
		if got, err := ParseSignal(text); err != nil || got != want {
			t.Errorf("ParseSignal(%q) = %d, %v, want %d", text, got, err, want)
		}
	}
	for _, text := range []string{"", "0", "65", "-9", "NOSUCH", "SIGRTMIN+99", "RTMIN+x"} {
		if got, err := ParseSignal(text); err == nil {
			t.Errorf("ParseSignal(%q) = %d, want an error", text, got)
		}
	}
}

func TestNames(t *testing.T) {
	for name, want := range map[string]bool{
		"web": true, "a-b_c.d": true, "9x": true, "x": false, "": false, "-x": false, "a b": false,
		"a/b": false, "..": false, strings.Repeat("x", 201): false,
	} {
		if got := validName(name); got != want {
			t.Errorf("validName(%q) = %v", name, got)
		}
	}
	for range 100 {
		if name := randomName(5); !validName(name) {
			t.Errorf("random name %q is invalid", name)
		}
	}
}
