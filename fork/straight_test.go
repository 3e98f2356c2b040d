package fork

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"glassbox/plan"
)

// TestNoLinks: a source that is, or lies behind, a symbolic link isn't taken where none is to be followed.
func TestNoLinks(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(dir, "a/b"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("a", filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]error{"a": nil, "a/b": nil, "link": unix.ELOOP, "link/b": unix.ELOOP, "none": unix.ENOENT} {
		fd, err := OpenTree(&plan.OpenTree{Path: filepath.Join(dir, name), NoLinks: true, Recursive: true})
		if !errors.Is(err, want) {
			t.Errorf("%s: got %v", name, err)
		}
		if err == nil {
			unix.Close(fd)
		}
	}
}
