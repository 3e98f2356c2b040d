package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/moby/buildkit/client"
)

// A layout is named by its directory, with a tag, a digest, or both.
func TestOCIContext(t *testing.T) {
	digest := "sha256:" + strings.Repeat("0", 64)
	for _, end := range []string{"@" + digest, ":v1@" + digest} {
		dir := filepath.Join(t.TempDir(), "layout")
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		o := &client.SolveOpt{FrontendAttrs: map[string]string{}}
		if err := ociContext(o, "context:base", "base", dir+end); err != nil {
			t.Fatal(err)
		}
		if got, want := o.FrontendAttrs["context:base"], "oci-layout://base@"+digest; got != want {
			t.Errorf("%s: got %s, want %s", end, got, want)
		}
		if other, _ := filepath.Glob(dir + ":*"); other != nil {
			t.Errorf("%s: a directory %s was made", end, other)
		}
	}
}
