package beneath

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestSize: files by their length, one with two names once; no link is followed; a tree deeper than what is open ends the counting only.
func TestSize(t *testing.T) {
	outside := t.TempDir()
	os.WriteFile(filepath.Join(outside, "large"), make([]byte, 1<<20), 0o600)
	dir := t.TempDir()
	os.MkdirAll(filepath.Join(dir, "a/b"), 0o700)
	os.WriteFile(filepath.Join(dir, "a/b/one"), make([]byte, 1000), 0o600)
	os.WriteFile(filepath.Join(dir, "two"), make([]byte, 234), 0o600)
	os.Link(filepath.Join(dir, "two"), filepath.Join(dir, "a/two"))
	os.Symlink(outside, filepath.Join(dir, "a/out"))
	want := int64(1234 + len(outside)) // a link is as long as what it says
	if got, err := Size(dir); got != want || err != nil {
		t.Errorf("got %d, %v, want %d", got, err, want)
	}
	deep := dir
	for range 12 {
		deep = filepath.Join(deep, strings.Repeat("d/", 50))
	}
	if err := os.MkdirAll(deep, 0o700); err != nil {
		t.Fatal(err)
	}
	os.WriteFile(filepath.Join(deep, "far"), make([]byte, 10), 0o600)
	if got, err := Size(dir); got != want || err != nil {
		t.Errorf("with a deep tree: got %d, %v, want %d", got, err, want)
	}
	if _, err := Size(filepath.Join(dir, "a/out")); err == nil {
		t.Error("a link in place of the directory is followed")
	}
}
