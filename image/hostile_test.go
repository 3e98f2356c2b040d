package image

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// never writes a piece every so often until nobody listens.
func never(w http.ResponseWriter, q *http.Request, piece string, pause time.Duration) {
	for q.Context().Err() == nil {
		if _, err := io.WriteString(w, piece); err != nil {
			return
		}
		w.(http.Flusher).Flush()
		time.Sleep(pause)
	}
}

// stall says nothing until nobody listens.
func stall(w http.ResponseWriter, q *http.Request) {
	w.(http.Flusher).Flush()
	<-q.Context().Done()
}

// TestHostileRegistry: whatever a registry answers, a pull ends soon, tells why, and gives nothing away. Each answer is given to requests
// whose path has the part that it stands behind: "v2" is /v2/ alone, "blob" the layer.
func TestHostileRegistry(t *testing.T) {
	body := strings.Repeat("\x00", 1<<20) + randomBody(4<<10)
	once := func(f func(w http.ResponseWriter, q *http.Request)) func(http.ResponseWriter, *http.Request, int) bool {
		return func(w http.ResponseWriter, q *http.Request, n int) bool {
			if n == 1 {
				f(w, q)
			}
			return n == 1
		}
	}
	always := func(f func(w http.ResponseWriter, q *http.Request)) func(http.ResponseWriter, *http.Request, int) bool {
		return func(w http.ResponseWriter, q *http.Request, _ int) bool { f(w, q); return true }
	}
	status := func(code int, header ...string) func(http.ResponseWriter, *http.Request) {
		return func(w http.ResponseWriter, _ *http.Request) {
			for i := 0; i+1 < len(header); i += 2 {
				w.Header().Set(header[i], header[i+1])
			}
			w.WriteHeader(code)
		}
	}
	bearer := func(realm string) func(http.ResponseWriter, *http.Request) {
		return func(w http.ResponseWriter, q *http.Request) {
			status(401, "WWW-Authenticate", fmt.Sprintf(`Bearer realm="%s",service="s"`, strings.ReplaceAll(realm, "SELF", q.Host)))(w, q)
		}
	}
	type handler = func(http.ResponseWriter, *http.Request)
	var taken atomic.Int64 // bytes of what has no end
	endless := func(w http.ResponseWriter, q *http.Request) {
		piece := strings.Repeat(" ", 1<<16)
		for q.Context().Err() == nil {
			n, err := io.WriteString(w, piece)
			if taken.Add(int64(n)); err != nil {
				return
			}
		}
	}
	dribble := func(w http.ResponseWriter, q *http.Request) { never(w, q, " ", 100*time.Millisecond) }
	silent := func(_ http.ResponseWriter, q *http.Request) { <-q.Context().Done() }
	altered := func(w http.ResponseWriter, _ *http.Request) { w.Write(gz([]byte("other"))) }
	redirect := func(to string) handler {
		return func(w http.ResponseWriter, q *http.Request) {
			http.Redirect(w, q, strings.ReplaceAll(to, "SELF", q.URL.Path), http.StatusTemporaryRedirect)
		}
	}
	wantsToken := always(bearer("http://SELF/token"))
	type answer func(w http.ResponseWriter, q *http.Request, n int) bool
	type answers map[string]answer
	tests := []struct {
		name  string
		at    answers
		creds bool
		want  error // nil: it works all the same
		words string
	}{
		{"greeting stalls", answers{"v2": always(silent)}, false, ErrUnavailable, "in time"},
		{"greeting stalls in its body", answers{"v2": always(stall)}, false, nil, ""},
		{"greeting has no end", answers{"v2": always(endless)}, false, nil, ""},
		{"greeting 404", answers{"v2": always(status(404))}, false, nil, ""},
		{"greeting 403", answers{"v2": always(status(403))}, false, nil, ""},
		{"greeting 405", answers{"v2": always(status(405))}, false, nil, ""},
		{"greeting 204", answers{"v2": always(status(204))}, false, nil, ""},
		{"greeting 401 without a challenge", answers{"v2": always(status(401))}, false, nil, ""},
		{"greeting wants Negotiate", answers{"v2": always(status(401, "WWW-Authenticate", "Negotiate"))}, false, nil, ""},
		{"greeting redirects for ever", answers{"v2": always(redirect("SELF?"))}, false, nil, ""},
		{"greeting has a megabyte of headers", answers{"v2": always(status(200, "X", strings.Repeat("x", 1<<20)))}, false, ErrUnavailable, ""},

		{"token stalls", answers{"v2": wantsToken, "token": always(stall)}, false, ErrUnavailable, "in time"},
		{"token has no end", answers{"v2": wantsToken, "token": always(endless)}, false, ErrUnavailable, ""},
		{"token dribbles", answers{"v2": wantsToken, "token": always(dribble)}, false, ErrUnavailable, "in time"},
		{
			"token under /blobs/ has no end",
			answers{"v2": always(bearer("http://SELF/token/blobs/x")), "token": always(endless)},
			false, ErrUnavailable, "",
		},
		{"token redirects for ever", answers{"v2": wantsToken, "token": always(redirect("SELF?"))}, false, ErrUnavailable, ""},
		{"token at another host, plain", answers{"v2": always(bearer("http://other.test/token"))}, false, ErrTLS, "other.test"},
		{
			"token at another host, plain, with credentials",
			answers{"v2": always(bearer("http://other.test/token"))},
			true, ErrTLS, "other.test",
		},
		{
			"token at another host, with credentials",
			answers{"v2": always(bearer("https://other.test/token"))},
			true, ErrUnauthorized, "credentials to \"other.test\"",
		},
		{"token in a file", answers{"v2": always(bearer("file:///etc/passwd"))}, false, ErrUnavailable, ""},

		{"manifest stalls", answers{"manifests": always(silent)}, false, ErrUnavailable, "in time"},
		{"manifest stalls in its body", answers{"manifests": always(stall)}, false, ErrUnavailable, "in time"},
		{"manifest dribbles", answers{"manifests": always(dribble)}, false, ErrUnavailable, "in time"},
		{"manifest has no end", answers{"manifests": always(endless)}, false, ErrLimit, ""},
		{"manifest redirects for ever", answers{"manifests": always(redirect("SELF?"))}, false, ErrUnavailable, ""},
		{"manifest at another host, plain", answers{"manifests": always(redirect("http://other.test/x"))}, true, ErrTLS, "other.test"},
		{"manifest at an address with a password", answers{"manifests": always(func(w http.ResponseWriter, q *http.Request) {
			http.Redirect(w, q, "http://a:b@"+q.Host+"/x", http.StatusTemporaryRedirect)
		})}, false, ErrUnavailable, "password"},
		{"manifest in a file", answers{"manifests": always(redirect("file:///etc/passwd"))}, false, ErrUnavailable, ""},
		{"manifest cut once", answers{"manifests": once(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "1000")
			io.WriteString(w, "{")
		})}, false, nil, ""},
		{"manifest altered once", answers{"manifests": once(status(200, "Docker-Content-Digest", digestOf([]byte("other"))))}, false, nil, ""},
		{"manifest 408 once", answers{"manifests": once(status(408))}, false, nil, ""},
		{"manifest 429 once, for two seconds", answers{"manifests": once(status(429, "Retry-After", "2"))}, false, nil, ""},
		{"manifest 503, for a day", answers{"manifests": always(status(503, "Retry-After", "86400"))}, false, ErrUnavailable, "503"},
		{"manifest 429, with nonsense", answers{"manifests": always(status(429, "Retry-After", "-1e9"))}, false, ErrRateLimited, "429"},

		{"blob stalls", answers{"blob": always(stall)}, false, ErrTruncated, "cut short"},
		{"blob dribbles", answers{"blob": always(dribble)}, false, nil, "any"},
		{"blob has no end", answers{"blob": always(endless)}, false, ErrDigest, ""},
		{"blob at another host, plain", answers{"blob": always(redirect("http://other.test/x"))}, true, ErrTLS, "other.test"},
		{"blob redirects for ever", answers{"blob": always(redirect("SELF?"))}, false, ErrUnavailable, ""},
		{"blob 500 once", answers{"blob": once(status(500))}, false, nil, ""},
		{"blob 408 once", answers{"blob": once(status(408))}, false, nil, ""},
		{"blob altered once", answers{"blob": once(altered)}, false, nil, ""},
		{"blob of another length once", answers{"blob": once(status(200, "Content-Length", "5"))}, false, nil, ""},
		{"blob altered always", answers{"blob": always(altered)}, false, ErrDigest, ""},
		{"config altered once", answers{"config": once(status(200, "Content-Length", "0"))}, false, nil, ""},
		{"/v2/ 404, and the manifest wants credentials", answers{
			"v2": always(status(404)),
			"manifests": func(w http.ResponseWriter, q *http.Request, _ int) bool {
				if user, _, _ := q.BasicAuth(); user == "ann" {
					return false
				}
				status(401, "WWW-Authenticate", `Basic realm="r"`)(w, q)
				return true
			},
		}, true, nil, ""},
	}
	if len(tests) < 30 {
		t.Fatalf("%d answers", len(tests))
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r, s := newRegistry(t), openStore(t)
			m, _ := r.push(t, "x", "latest", amd64(), layerData{tar: tarOf(t, fileE("f", body))})
			var mu sync.Mutex
			count := map[string]int{}
			r.hook = func(w http.ResponseWriter, q *http.Request) bool {
				kind := ""
				switch p := q.URL.Path; {
				case p == "/v2/":
					kind = "v2"
				case strings.HasPrefix(p, "/token"):
					kind = "token"
				case strings.Contains(p, "/manifests/"):
					kind = "manifests"
				case strings.HasSuffix(p, string(m.Config.Digest)):
					kind = "config"
				case strings.HasSuffix(p, string(m.Layers[0].Digest)):
					kind = "blob"
				}
				mu.Lock()
				count[kind]++
				n := count[kind]
				mu.Unlock()
				f := tt.at[kind]
				return f != nil && f(w, q, n)
			}
			dir := t.TempDir()
			t.Setenv("HOME", dir)
			t.Setenv("DOCKER_CONFIG", dir)
			if tt.creds {
				os.WriteFile(filepath.Join(dir, "config.json"),
					[]byte(`{"auths":{"`+r.host()+`":{"auth":"YW5uOnNlY3JldA=="}}}`), 0o600)
			}
			o := quick()
			o.IdleTimeout, o.SmallTimeout = 400*time.Millisecond, time.Second
			var waits []time.Duration
			o.sleep = func(ctx context.Context, d time.Duration) error {
				waits = append(waits, d)
				return context.Cause(ctx)
			}
			taken.Store(0)
			begin := time.Now()
			_, err := s.Pull(t.Context(), r.host()+"/x", o)
			if most := int64(5 * (o.Limits.withDefaults().Manifest + 4<<20)); taken.Load() > most { // of each attempt, with what the kernel holds
				t.Errorf("%d bytes were taken, at most %d are good for something", taken.Load(), most)
			}
			if tt.words == "any" {
				if err == nil {
					t.Error("it succeeded")
				}
			} else if tt.want == nil && err != nil || tt.want != nil && (!errors.Is(err, tt.want) || !strings.Contains(err.Error(), tt.words)) {
				t.Errorf("got %v, want %v with %q", err, tt.want, tt.words)
			}
			if took := time.Since(begin); took > 30*time.Second {
				t.Errorf("it took %v", took)
			}
			if err != nil {
				nothingLeft(t, s)
				if strings.ContainsRune(err.Error(), '\x1b') {
					t.Errorf("control characters in %q", err)
				}
			}
			for _, w := range waits {
				if w > maxRetryWait {
					t.Errorf("it would have waited %v", w)
				}
			}
		})
	}
}

// TestCredentialsStay: what belongs to one host goes to no other, also not to another port, nor along a redirect, nor to whoever a registry
// without proof names.
func TestCredentialsStay(t *testing.T) {
	var mu sync.Mutex
	var leaked []string
	other := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		if a := q.Header.Get("Authorization"); a != "" {
			leaked = append(leaked, a)
		}
		body, _ := io.ReadAll(q.Body)
		if strings.Contains(string(body), "secret") {
			leaked = append(leaked, string(body))
		}
		io.WriteString(w, `{"token":"tok"}`)
	}))
	defer other.Close()
	_, port, _ := net.SplitHostPort(strings.TrimPrefix(other.URL, "http://"))
	for _, at := range []string{"/v2/", "/manifests/", "/blobs/", "/token"} {
		r, s := newRegistry(t), openStore(t)
		r.push(t, "x", "latest", amd64(), layerData{tar: tarOf(t, fileE("f", "x"))})
		r.hook = func(w http.ResponseWriter, q *http.Request) bool {
			switch {
			case at == "/token" && q.URL.Path == "/v2/":
				w.Header().Set("WWW-Authenticate", `Bearer realm="http://`+q.Host+`/token",service="s"`)
				w.WriteHeader(401)
			case strings.Contains(q.URL.Path, at) && (at != "/v2/" || q.URL.Path == at):
				http.Redirect(w, q, other.URL+q.URL.Path, http.StatusTemporaryRedirect)
			case q.URL.Path == "/v2/":
				w.Header().Set("WWW-Authenticate", `Basic realm="r"`)
				w.WriteHeader(401)
			default:
				return false
			}
			return true
		}
		dir := t.TempDir()
		t.Setenv("HOME", dir)
		t.Setenv("DOCKER_CONFIG", dir)
		os.WriteFile(filepath.Join(dir, "config.json"),
			[]byte(`{"auths":{"`+r.host()+`":{"auth":"YW5uOnNlY3JldA=="}}}`), 0o600)
		s.Pull(t.Context(), r.host()+"/x", quick())
		if len(leaked) > 0 {
			t.Errorf("redirected at %s to port %s: sent %q", at, port, leaked)
			leaked = nil
		}
	}
}

// TestPlainWithoutGreeting: a registry that may be spoken to without TLS is, whether the TLS port answers with HTTP, hangs up or is closed.
func TestPlainWithoutGreeting(t *testing.T) {
	h := newRegistryHandler()
	h.push(t, "x", "latest", amd64(), layerData{tar: tarOf(t, fileE("f", "1"))})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: h}
	defer srv.Close()
	go srv.Serve(&hangUp{Listener: l})
	if _, err := openStore(t).Pull(t.Context(), l.Addr().String()+"/x", quick()); err != nil {
		t.Errorf("a server that hangs up on a greeting: %v", err)
	}
	// 443 closed and 80 open.
	l80, err := net.Listen("tcp", "127.0.0.80:80")
	if err != nil {
		t.Skipf("needs port 80 of a loopback address: %v", err)
	}
	srv80 := &http.Server{Handler: h}
	defer srv80.Close()
	go srv80.Serve(l80)
	if _, err := openStore(t).Pull(t.Context(), "127.0.0.80/x", quick()); err != nil {
		t.Errorf("443 closed, 80 open: %v", err)
	}
}

// hangUp closes connections that begin as TLS does.
type hangUp struct{ net.Listener }

func (h *hangUp) Accept() (net.Conn, error) {
	c, err := h.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &hangUpConn{Conn: c}, nil
}

type hangUpConn struct{ net.Conn }

func (c *hangUpConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if n > 0 && p[0] == 0x16 { // a TLS handshake record
		c.Close()
		return 0, io.EOF
	}
	return n, err
}

// TestCredentialsFile: a helper that is missing and an entry that is broken stop what needs them and nothing else, and are told.
func TestCredentialsFile(t *testing.T) {
	good := `"auth":"YW5uOnNlY3JldA=="`
	helpers := t.TempDir()
	os.WriteFile(filepath.Join(helpers, "docker-credential-good"),
		[]byte("#!/bin/sh\nread k; echo \"{\\\"Username\\\":\\\"ann\\\",\\\"Secret\\\":\\\"secret\\\"}\"\n"), 0o755)
	os.WriteFile(filepath.Join(helpers, "docker-credential-none"),
		[]byte("#!/bin/sh\necho credentials not found in native keychain; exit 1\n"), 0o755)
	os.WriteFile(filepath.Join(helpers, "docker-credential-broken"), []byte("#!/bin/sh\nprintf 'no \\033[2Jkey'; exit 1\n"), 0o755)
	t.Setenv("PATH", helpers+":"+os.Getenv("PATH"))
	for _, tt := range []struct {
		name, conf string
		user       bool   // ann's credentials are found
		told       string // part of what is told; empty: nothing
	}{
		{"none", "", false, ""},
		{"plain", `{"auths":{"HOST":{` + good + `}}}`, true, ""},
		{"as an address", `{"auths":{"https://HOST/v1/":{` + good + `}}}`, true, ""},
		{"a broken neighbour", `{"auths":{"a.test":{"auth":"!!!"},"b.test":7,"HOST":{` + good + `}}}`, true, ""},
		{"broken itself", `{"auths":{"HOST":{"auth":"!!!"}}}`, false, "no base64"},
		{"broken itself, no colon", `{"auths":{"HOST":{"auth":"YW5u"}}}`, false, "user:password"},
		{"broken itself, no object", `{"auths":{"HOST":7}}`, false, "the entry for"},
		{"no JSON", `{`, false, "config.json"},
		{"helper missing", `{"credsStore":"gone"}`, false, "docker-credential-gone"},
		{"helper missing, entry there", `{"credsStore":"gone","auths":{"HOST":{` + good + `}}}`, true, "docker-credential-gone"},
		{"helper of another", `{"credHelpers":{"a.test":"gone"},"auths":{"HOST":{` + good + `}}}`, true, ""},
		{"helper", `{"credHelpers":{"HOST":"good"}}`, true, ""},
		{"helper knows nothing", `{"credsStore":"none","auths":{"HOST":{}}}`, false, ""},
		{"helper fails", `{"credsStore":"broken"}`, false, "it failed: no"},
		{"helper with a path", `{"credsStore":"../../bin/sh"}`, false, "no name of a program"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r, s := newRegistry(t), openStore(t)
			r.push(t, "x", "latest", amd64(), layerData{tar: tarOf(t, fileE("f", "1"))})
			user := ""
			r.hook = func(_ http.ResponseWriter, q *http.Request) bool {
				if u, _, ok := q.BasicAuth(); ok {
					user = u
				}
				return false
			}
			dir := t.TempDir()
			t.Setenv("HOME", dir)
			t.Setenv("DOCKER_CONFIG", dir)
			t.Setenv("REGISTRY_AUTH_FILE", "")
			t.Setenv("XDG_RUNTIME_DIR", "")
			if tt.conf != "" {
				os.WriteFile(filepath.Join(dir, "config.json"), []byte(strings.ReplaceAll(tt.conf, "HOST", r.host())), 0o600)
			}
			var told []string
			o := quick()
			o.Progress = func(e Event) {
				if e.State == Warned {
					told = append(told, e.Text)
				}
			}
			if _, err := s.Pull(t.Context(), r.host()+"/x", o); err != nil {
				t.Errorf("pull: %v", err)
			}
			if (user == "ann") != tt.user {
				t.Errorf("the registry saw user %q, want ann: %v", user, tt.user)
			}
			text := strings.Join(told, "\n")
			if tt.told == "" && text != "" ||
				!strings.Contains(text, tt.told) || strings.Contains(text, "\x1b") || strings.Contains(text, "secret") {
				t.Errorf("told %q, want %q", text, tt.told)
			}
		})
	}
}
