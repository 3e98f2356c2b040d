package image

import (
	"errors"
	"strings"
	"testing"

	"github.com/distribution/reference"
)

func TestParseRef(t *testing.T) {
	d := "sha256:" + strings.Repeat("ab", 32)
	tests := []struct{ in, full, familiar string }{
		{"debian", "docker.io/library/debian:latest", "debian:latest"},
		{"debian:12", "docker.io/library/debian:12", "debian:12"},
		{"library/debian", "docker.io/library/debian:latest", "debian:latest"},
		{"docker.io/debian", "docker.io/library/debian:latest", "debian:latest"},
		{"index.docker.io/debian", "docker.io/library/debian:latest", "debian:latest"},
		{"a/b", "docker.io/a/b:latest", "a/b:latest"},
		{"localhost/b", "localhost/b:latest", "localhost/b:latest"},
		{"localhost:5000/b", "localhost:5000/b:latest", "localhost:5000/b:latest"},
		{"host:5000/a/b:t", "host:5000/a/b:t", "host:5000/a/b:t"},
		{"quay.io/a/b:t", "quay.io/a/b:t", "quay.io/a/b:t"},
		{"[::1]:5000/x", "[::1]:5000/x:latest", "[::1]:5000/x:latest"},
		{"x@" + d, "docker.io/library/x@" + d, "x@" + d},
		{"x:1@" + d, "docker.io/library/x:1@" + d, "x:1@" + d},
		{"a__b/c-d.e---f", "docker.io/a__b/c-d.e---f:latest", "a__b/c-d.e---f:latest"},
		{"x:V1.0_a-b", "docker.io/library/x:V1.0_a-b", "x:V1.0_a-b"},
		{"Upper/x", "Upper/x:latest", "Upper/x:latest"},
	}
	for _, tt := range tests {
		r, err := ParseRef(tt.in)
		if err != nil {
			t.Errorf("ParseRef(%q): %v", tt.in, err)
			continue
		}
		if got := r.String(); got != tt.full {
			t.Errorf("ParseRef(%q) = %q, want %q", tt.in, got, tt.full)
		}
		if got := r.Familiar(); got != tt.familiar {
			t.Errorf("familiar %q = %q, want %q", tt.in, got, tt.familiar)
		}
		again, err := ParseRef(r.Familiar())
		if err != nil || again != r {
			t.Errorf("ParseRef(%q) = %+v, %v; want %+v", r.Familiar(), again, err, r)
		}
	}
	for _, in := range []string{
		"", ":", "x:", "x@", "x@sha256:abc", "X", "a//b", "/a", "a/", "a..b", "a___b", ".a", "-a", "a-", "x:-t", "x:.t",
		"x:" + strings.Repeat("t", 129),
		"host:/a", "host:port/a", "https://host/a", "a b", "a\x00", "é", strings.Repeat("a", 64), strings.Repeat("b", 300),
		"x@sha512:" + strings.Repeat("a", 128),
		"x@SHA256:" + strings.Repeat("a", 64), "[::1/x", "[]/x", "-h.io/x",
	} {
		if r, err := ParseRef(in); err == nil || !errors.Is(err, ErrReference) {
			t.Errorf("ParseRef(%q) = %+v, %v; want %v", in, r, err, ErrReference)
		}
	}
}

// FuzzParseRef compares with the distribution project's parser, which defines the grammar.
func FuzzParseRef(f *testing.F) {
	for _, s := range []string{
		"debian", "a/b:c", "h:5/a@sha256:" + strings.Repeat("a", 64), "A/b", "a.b/c", "[::1]:1/a",
		"localhost/a", "docker.io/library/a/b",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		got, err := ParseRef(s)
		want, werr := reference.ParseDockerRef(s)
		if werr == nil {
			if d, ok := want.(reference.Digested); ok && d.Digest().Algorithm() != "sha256" {
				return // not supported here, on purpose
			}
			// ParseDockerRef drops the tag beside a digest; reparse.
			if n, err := reference.ParseNormalizedNamed(s); err == nil {
				want = reference.TagNameOnly(n)
			}
		}
		if (err == nil) != (werr == nil) {
			if werr == nil && len(got.Name()) == 1 { // ours is empty
				if len(want.Name()) > maxNameLen {
					return
				}
			}
			t.Fatalf("ParseRef(%q): %v; distribution: %v", s, err, werr)
		}
		if err != nil {
			return
		}
		if got.String() != want.String() || got.Familiar() != reference.FamiliarString(want) {
			t.Errorf("ParseRef(%q) = %q (%q), distribution %q (%q)", s, got, got.Familiar(), want, reference.FamiliarString(want))
		}
	})
}
