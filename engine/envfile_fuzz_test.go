package engine

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"glassbox/container"
)

// FuzzEnvFile reads files of environment variables: whatever is in one, what comes out has a name, no line break that was not written, and
// merges without a fault or is refused.
func FuzzEnvFile(f *testing.F) {
	for _, s := range []string{
		"A=1\n", "# x\n\nA\nB=2\r\n", "\xef\xbb\xbfA=b", " A = b ", "=x", "A\x00=b",
		strings.Repeat("a", 70000) + "=b",
	} {
		f.Add([]byte(s))
	}
	name := filepath.Join(f.TempDir(), "env")
	f.Fuzz(func(t *testing.T, data []byte) {
		if err := os.WriteFile(name, data, 0o600); err != nil {
			t.Fatal(err)
		}
		lines, err := readEnvFile(name)
		if err != nil {
			return
		}
		for _, l := range lines {
			if strings.ContainsRune(l, '\n') || strings.HasPrefix(l, "#") {
				t.Errorf("line %q of %q", l, data)
			}
		}
		env, err := container.MergeEnv([]string{"A=0"}, []string{"B=1"}, lines)
		if err != nil {
			return
		}
		for _, e := range env {
			if key, _, ok := strings.Cut(e, "="); !ok || key == "" || strings.ContainsRune(e, 0) {
				t.Errorf("%q comes out of %q", e, data)
			}
		}
	})
}
