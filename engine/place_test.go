package engine

import (
	"path/filepath"
	"strings"
	"testing"
)

func TestPlaceable(t *testing.T) {
	for dir, want := range map[string]string{
		"/proc/x": "no place for images", "/sys/x/y": "no place for images", "/proc": "", "/proc/1/x/y": "no place for images",
		filepath.Join(t.TempDir(), "new", "one"): "", "/etc/passwd/x": "not a directory",
	} {
		err := placeable(dir)
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %q", dir, err, want)
		}
	}
	if _, err := Open(Config{Root: "/proc/x", State: t.TempDir()}); err == nil {
		t.Error("a store below /proc was opened")
	}
}
