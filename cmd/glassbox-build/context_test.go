package main

import (
	"archive/tar"
	"bufio"
	"bytes"
	"compress/gzip"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/moby/buildkit/client"
	"github.com/moby/buildkit/util/archiveutil"
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

// BuildKit's front end knows each archive by its first 1,024 bytes, and it is the same archive.
func TestKnowable(t *testing.T) {
	long := strings.Repeat("n", 300)
	for what, h := range map[string]*tar.Header{
		"plain":              {Name: "Dockerfile", Format: tar.FormatUSTAR},
		"pax":                {Name: "Dockerfile", Format: tar.FormatPAX, PAXRecords: map[string]string{"A.b": "c"}},
		"pax, global":        {Typeflag: tar.TypeXGlobalHeader, PAXRecords: map[string]string{"comment": "x"}},
		"pax, long name":     {Name: long, Format: tar.FormatPAX},
		"GNU, long name":     {Name: long, Format: tar.FormatGNU},
		"GNU, long link":     {Name: "l", Typeflag: tar.TypeSymlink, Linkname: long, Format: tar.FormatGNU},
		"pax, large records": {Name: "Dockerfile", Format: tar.FormatPAX, PAXRecords: map[string]string{"A.b": strings.Repeat("c", 3000)}},
	} {
		var archive bytes.Buffer
		w := tar.NewWriter(&archive)
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(what, err)
		}
		if err := w.WriteHeader(&tar.Header{Name: "Dockerfile"}); err != nil {
			t.Fatal(what, err)
		}
		if err := w.Close(); err != nil {
			t.Fatal(what, err)
		}
		want := bytes.Clone(archive.Bytes())
		in := knowable(bufio.NewReaderSize(&archive, 64<<10))
		got, err := io.ReadAll(in)
		if err != nil || in.Close() != nil {
			t.Fatal(what, err)
		}
		if !archiveutil.IsArchive(got[:min(len(got), 1024)]) {
			t.Errorf("%s: BuildKit takes it for a Dockerfile", what)
		}
		if archiveutil.HasGzipPrefix(got) {
			z, err := gzip.NewReader(bytes.NewReader(got))
			if err != nil {
				t.Fatal(what, err)
			}
			if got, err = io.ReadAll(z); err != nil {
				t.Fatal(what, err)
			}
		}
		if !bytes.Equal(got, want) {
			t.Errorf("%s: %d bytes became %d others", what, len(want), len(got))
		}
	}
}
