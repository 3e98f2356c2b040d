package api

import (
	"bytes"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"testing"
	"time"
)

func TestSplitVersion(t *testing.T) {
	for path, want := range map[string]string{
		"/_ping": "1.57 /_ping", "/v1.41/containers/json": "1.41 /containers/json", "/volumes": "1.57 /volumes", "/v1.24/": "1.24 /",
	} {
		v, rest, err := splitVersion(path)
		if got := v.String() + " " + rest; err != nil || got != want {
			t.Errorf("%s: got %s, %v, want %s", path, got, err, want)
		}
	}
	for _, path := range []string{"/v2/x", "/v1.x/x", "/v1.300/x", "/v1./x"} {
		if v, rest, err := splitVersion(path); err == nil && v.check() == nil && rest != path {
			t.Errorf("%s: got %v %s", path, v, rest)
		}
	}
	for v, ok := range map[version]bool{23: false, 24: true, 57: true, 58: false} {
		if err := v.check(); (err == nil) != ok {
			t.Errorf("%v: got %v", v, err)
		}
	}
}

func asked(query string) *request {
	return &request{Request: httptest.NewRequest(http.MethodGet, "/?"+query, nil)}
}

// TestFilters: both forms in which there have been filters, and what is neither.
func TestFilters(t *testing.T) {
	want := []string{"label=a=b", "label=c", "status=running"}
	for _, text := range []string{
		`{"status":["running"],"label":["c","a=b"]}`, `{"label":{"a=b":true,"c":true},"status":{"running":true}}`,
		`{"label":{"a=b":false,"c":true},"status":{"running":true}}`,
	} {
		if got, err := asked("filters=" + url.QueryEscape(text)).filters(); err != nil || !slices.Equal(got, want) {
			t.Errorf("%s: got %q, %v", text, got, err)
		}
	}
	for _, text := range []string{`[]`, `{"a":1}`, `{`, `{"a":"b"}`, `{"":["x"]}`, `{"a=b":["x"]}`} {
		if got, err := asked("filters=" + url.QueryEscape(text)).filters(); err == nil {
			t.Errorf("%s: got %q and no error", text, got)
		}
	}
}

func TestMoment(t *testing.T) {
	for text, want := range map[string]time.Time{
		"1136073600.000000001": time.Unix(1136073600, 1), "1136073600": time.Unix(1136073600, 0), "": {}, "0": {},
		"2006-01-01T00:00:00Z": time.Unix(1136073600, 0), "1136073600.5": time.Unix(1136073600, 500_000_000),
	} {
		if got, err := asked("since=" + text).moment("since"); err != nil || !got.Equal(want) {
			t.Errorf("%q: got %v, %v, want %v", text, got, err, want)
		}
	}
	for _, text := range []string{"yesterday", "1.2.3", "1136073600.x", "1.0000000001"} {
		if got, err := asked("since=" + text).moment("since"); err == nil {
			t.Errorf("%q: got %v", text, got)
		}
	}
}

// TestMux: each piece behind its head, and none larger than clients may take.
func TestMux(t *testing.T) {
	var out bytes.Buffer
	m := &mux{w: &out}
	if n, err := (part{m, 2}).Write(bytes.Repeat([]byte("x"), maxFrame+1)); n != maxFrame+1 || err != nil {
		t.Fatalf("got %d, %v", n, err)
	}
	want := append([]byte{2, 0, 0, 0, 0, 0, 0x80, 0}, bytes.Repeat([]byte("x"), maxFrame)...)
	want = append(want, 2, 0, 0, 0, 0, 0, 0, 1, 'x')
	if !bytes.Equal(out.Bytes(), want) {
		t.Errorf("got %d bytes, beginning with %v", out.Len(), out.Bytes()[:8])
	}
}

// TestBrowser: what a page could send to a TCP socket of this host is refused.
func TestBrowser(t *testing.T) {
	passed := false
	s := &Server{mux: http.NewServeMux()}
	s.mux.HandleFunc("GET /_ping", func(http.ResponseWriter, *http.Request) { passed = true })
	for _, c := range []struct {
		host, header, value string
		ok                  bool
	}{
		{"localhost:2375", "", "", true},
		{"127.0.0.1:2375", "", "", true},
		{"[::1]:2375", "", "", true},
		{"evil.example:2375", "", "", false},
		{"127.0.0.1.evil.example", "", "", false},
		{"", "", "", false},
		{"localhost:2375", "Origin", "http://localhost:2375", false},
		{"localhost:2375", "Origin", "null", false},
		{"localhost:2375", "Sec-Fetch-Site", "same-origin", false},
	} {
		r := httptest.NewRequest(http.MethodGet, "/_ping", nil)
		r.Host = c.host
		if c.header != "" {
			r.Header.Set(c.header, c.value)
		}
		passed = false
		w := httptest.NewRecorder()
		s.guard(true).ServeHTTP(w, r)
		if passed != c.ok || !c.ok && w.Code != http.StatusForbidden {
			t.Errorf("%+v: got %v, status %d", c, passed, w.Code)
		}
	}
}
