package test

import (
	"path/filepath"
	"strings"
	"testing"
)

// TestDemo: each command that the demo prints can be copied into a shell, and does there what it did in the demo.
func TestDemo(t *testing.T) {
	s := besiege(t)
	s.furnish()
	script, err := filepath.Abs("demo.sh")
	must(t, err)
	said := s.ok(s.sh("DEMO_NAMESPACE=1 GLASSBOX_BIN=" + s.bin + " bash " + script))
	n := 0
	for line := range strings.Lines(said) {
		command, ok := strings.CutPrefix(strings.TrimSpace(line), "$ sudo ")
		if !ok {
			continue
		}
		n++
		want := 0
		if strings.Contains(command, "--name hungry") {
			want = 137
		}
		if res := s.sh(command); res.Code != want {
			t.Errorf("%s: exit code %d, want %d: %s%s", command, res.Code, want, res.Stdout, res.Stderr)
		}
	}
	if n < 4 {
		t.Errorf("the demo prints %d commands:\n%s", n, said)
	}
	s.ok(s.on("glassbox", "rm", "hungry"))
}
