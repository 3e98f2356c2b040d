package image

import (
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// TestBaseLayer: whatever the umask, and again after a kill half way, the base layer is three empty files that everybody can read; what
// collects leftovers leaves it alone.
func TestBaseLayer(t *testing.T) {
	old := unix.Umask(0o077)
	defer unix.Umask(old)
	s, err := Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	base := filepath.Join(s.root, BaseLayer)
	if err := os.MkdirAll(filepath.Join(base, "etc"), 0o700); err != nil { // as a killed process leaves it
		t.Fatal(err)
	}
	if _, err := s.prepare(); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Collect(CollectOptions{}); err != nil {
		t.Fatal(err)
	}
	for name, mode := range map[string]os.FileMode{
		"": os.ModeDir | 0o755, "etc": os.ModeDir | 0o755, "etc/hosts": 0o644, "etc/hostname": 0o644, "etc/resolv.conf": 0o644,
	} {
		st, err := os.Lstat(filepath.Join(base, name))
		if err != nil || st.Mode() != mode || !st.IsDir() && st.Size() != 0 {
			t.Errorf("%s: got %v, %v, want %v", name, st, err, mode)
		}
	}
	if err := s.EnsureBase(); err != nil {
		t.Error(err)
	}
}
