package image

import (
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
)

// TestSearch asks a registry that has a search, one that has none, and some that lie.
func TestSearch(t *testing.T) {
	for name, c := range map[string]struct {
		code int
		body string
		want string // names, or what the error says
		kind error
	}{
		"found":          {200, `{"results":[{"name":"a/b","description":"x","star_count":3,"is_official":true},{"name":"c"}]}`, "a/b c", nil},
		"too many":       {200, `{"results":[` + strings.Repeat(`{"name":"a"},`, 30) + `{"name":"z"}]}`, strings.Repeat("a ", 24) + "a", nil},
		"none":           {404, ``, "has no search", ErrUnsupported},
		"not allowed":    {401, ``, "access denied", ErrUnauthorized},
		"no JSON":        {200, `<html>`, "makes no sense", ErrUnavailable},
		"without an end": {200, `{"results":[` + strings.Repeat(" ", 5<<20), "", ErrLimit},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRegistry(t)
			r.hook = func(w http.ResponseWriter, req *http.Request) bool {
				if req.URL.Path != "/v1/search" {
					return false
				}
				if req.URL.Query().Get("q") != "word" {
					t.Errorf("asked for %q", req.URL.RawQuery)
				}
				w.WriteHeader(c.code)
				io.WriteString(w, c.body)
				return true
			}
			list, err := Search(t.Context(), r.host()+"/word", 25, quick())
			if c.kind != nil {
				if !errors.Is(err, c.kind) || !strings.Contains(err.Error(), c.want) {
					t.Errorf("got %v, want %v with %q", err, c.kind, c.want)
				}
				return
			}
			var got []string
			for _, l := range list {
				got = append(got, strings.TrimPrefix(l.Name, r.host()+"/"))
			}
			if err != nil || strings.Join(got, " ") != c.want {
				t.Errorf("got %q, %v; want %q", got, err, c.want)
			}
		})
	}
	for _, term := range []string{"", "localhost:5000/", "a_b:/x", strings.Repeat("x", 400)} {
		if _, err := Search(t.Context(), term, 25, quick()); !errors.Is(err, ErrReference) {
			t.Errorf("%.20q: %v", term, err)
		}
	}
}

// TestRemoteManifest shows what a registry has, and keeps nothing.
func TestRemoteManifest(t *testing.T) {
	r := newRegistry(t)
	_, want := r.push(t, "x", "latest", amd64(), layerData{tar: tarOf(t, fileE("f", "f"))})
	raw, list, err := RemoteManifest(t.Context(), r.host()+"/x", true, quick())
	if err != nil || digestOf(raw) != want || len(list) != 1 || string(list[0].Descriptor.Digest) != want {
		t.Errorf("got %s, %+v, %v", raw, list, err)
	}
	if _, _, err := RemoteManifest(t.Context(), r.host()+"/none", false, quick()); !errors.Is(err, ErrNotFound) {
		t.Errorf("what isn't there: %v", err)
	}
}
