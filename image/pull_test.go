package image

import (
	"context"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
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

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

// randomBody does not compress, so that a layer is long enough to be cut.
func randomBody(n int) string {
	b := make([]byte, n)
	r := rand.New(rand.NewPCG(1, 2))
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return string(b)
}

func TestPull(t *testing.T) {
	base := tarOf(t, dirE("etc", 0o755), fileE("etc/a", "1"), fileE("etc/b", "2"))
	top := tarOf(t, dirE("etc", 0o755), fileE("etc/.wh.a", ""), fileE("etc/c", "3"))
	for name, form := range map[string]func(b []byte) layerData{
		"gzip":       func(b []byte) layerData { return layerData{tar: b} },
		"zstd":       func(b []byte) layerData { return layerData{tar: b, blob: zst(b), typ: v1.MediaTypeImageLayerZstd} },
		"plain":      func(b []byte) layerData { return layerData{tar: b, blob: b, typ: v1.MediaTypeImageLayer} },
		"mislabeled": func(b []byte) layerData { return layerData{tar: b, blob: zst(b)} },
		"docker": func(b []byte) layerData {
			return layerData{tar: b, typ: "application/vnd.docker.image.rootfs.diff.tar.gzip"}
		},
	} {
		t.Run(name, func(t *testing.T) {
			r, s := newRegistry(t), openStore(t)
			m, dig := r.push(t, "a/b", "1.0", amd64(), form(base), form(top))
			ref := r.host() + "/a/b:1.0"
			var events []Event
			o := quick()
			o.Progress = func(e Event) { events = append(events, e) }
			img, err := s.Pull(t.Context(), ref, o)
			if err != nil {
				t.Fatalf("pull: %v", err)
			}
			if img.ID != string(m.Config.Digest) || img.ManifestDigest != dig || len(img.Layers) != 2 || img.Platform.String() != "linux/amd64" {
				t.Errorf("image %+v", img)
			}
			if d := cmp.Diff([]string{ref}, img.Names); d != "" {
				t.Error(d)
			}
			if d := cmp.Diff([]string{r.host() + "/a/b@" + dig}, img.Digests); d != "" {
				t.Error(d)
			}
			if img.Config.Config.Env[0] != "A=b" || img.Created.Unix() != 1700000000 {
				t.Errorf("config %+v", img.Config)
			}
			for _, l := range img.Layers {
				if len(l.Dir) != len("layers/3f9c0a1b2c3d") {
					t.Errorf("layer directory %q is not short", l.Dir)
				}
			}
			if events[len(events)-1].State != Finished || events[len(events)-1].Digest != dig {
				t.Errorf("last event %+v", events[len(events)-1])
			}
			for path, want := range map[string]string{"/etc/b": "2", "etc/c": "3"} {
				if got, err := img.ReadFile(s.Root(), path, 10); err != nil || string(got) != want {
					t.Errorf("ReadFile(%s) = %q, %v; want %q", path, got, err, want)
				}
			}
			if _, err := img.ReadFile(s.Root(), "/etc/a", 10); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("deleted file: %v, want not exist", err)
			}
			raw, err := img.RawManifest()
			if err != nil || digestOf(raw) != dig || digestOf(img.RawConfig) != img.ID {
				t.Errorf("raw documents do not match their digests: %v", err)
			}
			for _, name := range []string{ref, img.ID, hexOf(img.ID), hexOf(img.ID)[:6], "sha256:" + hexOf(img.ID)[:6], r.host() + "/a/b@" + dig} {
				if got, err := s.Resolve(name); err != nil || got.ID != img.ID {
					t.Errorf("Resolve(%s): %v", name, err)
				}
			}
			// The second pull fetches no layer.
			for _, l := range m.Layers {
				r.gets["/v2/a/b/blobs/"+string(l.Digest)] = 0
			}
			o.Progress = nil
			if _, err := s.Pull(t.Context(), ref, o); err != nil {
				t.Fatal(err)
			}
			for _, l := range m.Layers {
				if n := r.gets["/v2/a/b/blobs/"+string(l.Digest)]; n != 0 {
					t.Errorf("layer fetched again %d times", n)
				}
			}
		})
	}
}

func TestPullIndex(t *testing.T) {
	r, s := newRegistry(t), openStore(t)
	layer := layerData{tar: tarOf(t, fileE("f", "x"))}
	var idx v1.Index
	idx.SchemaVersion = 2
	idx.MediaType = v1.MediaTypeImageIndex
	add := func(p v1.Platform) {
		_, d := r.push(t, "m", "", p, layer)
		raw := r.manifests["m:"+d]
		idx.Manifests = append(idx.Manifests, v1.Descriptor{
			MediaType: v1.MediaTypeImageManifest, Digest: digest.Digest(d),
			Size: int64(len(raw)), Platform: &p,
		})
	}
	add(amd64())
	add(v1.Platform{OS: "linux", Architecture: "arm64", Variant: "v8"})
	add(v1.Platform{OS: "linux", Architecture: "arm", Variant: "v6"})
	add(v1.Platform{OS: "unknown", Architecture: "unknown"})
	top := r.manifest("m", "latest", mustJSON(t, idx), v1.MediaTypeImageIndex)
	for platform, want := range map[string]string{
		"": "linux/amd64", "linux/arm64": "linux/arm64", "linux/arm64/v8": "linux/arm64", "arm64": "linux/arm64",
		"linux/arm/v7": "linux/arm/v6", "linux/aarch64": "linux/arm64",
	} {
		o := quick()
		o.Platform, _ = ParsePlatform(platform)
		img, err := s.Pull(t.Context(), r.host()+"/m", o)
		if err != nil {
			t.Errorf("%q: %v", platform, err)
			continue
		}
		if img.Platform.String() != want {
			t.Errorf("%q: got %s, want %s", platform, img.Platform, want)
		}
		if got, err := s.Resolve(r.host() + "/m@" + img.ManifestDigest); err != nil || got.ID != img.ID {
			t.Errorf("resolve by the platform's digest: %v", err)
		}
		if len(img.Digests) != 1 || !strings.HasSuffix(img.Digests[0], top) {
			t.Errorf("digests %v, want the index's", img.Digests)
		}
	}
	o := quick()
	o.Platform = Platform{OS: "linux", Architecture: "s390x"}
	_, err := s.Pull(t.Context(), r.host()+"/m", o)
	if !errors.Is(err, ErrPlatform) || !strings.Contains(err.Error(), "linux/amd64, linux/arm/v6, linux/arm64") {
		t.Errorf("absent platform: %v", err)
	}
	if _, err := s.Pull(t.Context(), r.host()+"/m@"+top, quick()); err != nil {
		t.Errorf("by digest: %v", err)
	}
}

// A tag beside a digest is no name: one that is here stays what it is, and none is made.
func TestPullTagAndDigest(t *testing.T) {
	r, s := newRegistry(t), openStore(t)
	_, old := r.push(t, "x", "1", amd64(), layerData{tar: tarOf(t, fileE("f", "old"))})
	_, new := r.push(t, "x", "1", amd64(), layerData{tar: tarOf(t, fileE("f", "new"))})
	name := r.host() + "/x"
	img, err := s.Pull(t.Context(), name+":1", quick())
	if err != nil {
		t.Fatal(err)
	}
	for _, tag := range []string{":1", ":2"} {
		byDigest, err := s.Pull(t.Context(), name+tag+"@"+old, quick())
		if err != nil || byDigest.ManifestDigest != old || len(byDigest.Names) != 0 {
			t.Errorf("%s: got %+v, %v", tag, byDigest, err)
		}
		if got, err := s.Resolve(name + tag + "@" + old); err != nil || got.ID != byDigest.ID {
			t.Errorf("%s: Resolve: %v", tag, err)
		}
	}
	if got, err := s.Resolve(name + ":1"); err != nil || got.ID != img.ID || got.ManifestDigest != new {
		t.Errorf("the tag moved: %+v, %v", got, err)
	}
	if _, err := s.Resolve(name + ":2"); !errors.Is(err, ErrNotFound) {
		t.Errorf("a tag was made: %v", err)
	}
}

// Every failure has its kind and its words, and leaves nothing.
func TestPullFailures(t *testing.T) {
	body := tarOf(t, fileE("f", randomBody(300<<10)))
	isManifest := func(r *http.Request) bool { return strings.Contains(r.URL.Path, "/manifests/") }
	layerDigest := digestOf(gz(body))
	tests := []struct {
		name  string
		setup func(r *fakeRegistry)
		want  error
		words []string
	}{
		{"unknown tag", func(r *fakeRegistry) { clear(r.manifests) }, ErrNotFound, []string{`no tag "t"`, "HTTP 404", "tags/list"}},
		{"blob missing", func(r *fakeRegistry) { delete(r.blobs, layerDigest) }, ErrNotFound, []string{"sha256:"}},
		{"unauthorized", func(r *fakeRegistry) {
			r.hook = func(w http.ResponseWriter, q *http.Request) bool {
				w.Header().Set("WWW-Authenticate", `Basic realm="x"`)
				w.WriteHeader(401)
				return true
			}
		}, ErrUnauthorized, []string{"access denied", "config.json"}},
		{"forbidden", func(r *fakeRegistry) {
			r.hook = func(w http.ResponseWriter, q *http.Request) bool {
				if isManifest(q) {
					w.WriteHeader(403)
				}
				return isManifest(q)
			}
		}, ErrUnauthorized, []string{"HTTP 403", "config.json"}},
		{"rate limit for ever", func(r *fakeRegistry) {
			r.hook = func(w http.ResponseWriter, q *http.Request) bool {
				if isManifest(q) {
					w.Header().Set("Retry-After", "1")
					w.WriteHeader(429)
				}
				return isManifest(q)
			}
		}, ErrRateLimited, []string{"limits the rate", "1 s"}},
		{"fault", func(r *fakeRegistry) {
			r.hook = func(w http.ResponseWriter, q *http.Request) bool {
				if isManifest(q) {
					w.WriteHeader(503)
				}
				return isManifest(q)
			}
		}, ErrUnavailable, []string{"503"}},
		{"layer altered", func(r *fakeRegistry) {
			b := []byte(string(r.blobs[layerDigest]))
			b[len(b)/2] ^= 1
			r.blobs[layerDigest] = b
		}, ErrDigest, []string{"another digest"}},
		{"layer has trailing bytes", func(r *fakeRegistry) {
			r.blobs[layerDigest] = append([]byte(string(r.blobs[layerDigest])), 0)
		}, ErrDigest, []string{"bytes"}},
		{"layer cut short every time", func(r *fakeRegistry) {
			r.hook = func(w http.ResponseWriter, q *http.Request) bool {
				if !strings.HasSuffix(q.URL.Path, layerDigest) {
					return false
				}
				w.Header().Set("Content-Length", fmt.Sprint(len(r.blobs[layerDigest])))
				w.Write(r.blobs[layerDigest][:1000])
				panic(http.ErrAbortHandler)
			}
		}, ErrTruncated, []string{"cut short after", "attempts"}},
		{"layer stalls", func(r *fakeRegistry) {
			r.hook = func(w http.ResponseWriter, q *http.Request) bool {
				if !strings.HasSuffix(q.URL.Path, layerDigest) {
					return false
				}
				w.Header().Set("Content-Length", fmt.Sprint(len(r.blobs[layerDigest])))
				w.Write(r.blobs[layerDigest][:1000])
				w.(http.Flusher).Flush()
				<-q.Context().Done()
				return true
			}
		}, ErrTruncated, []string{"cut short after"}},
		{"manifest altered", func(r *fakeRegistry) {
			r.hook = func(w http.ResponseWriter, q *http.Request) bool {
				if isManifest(q) {
					w.Header().Set("Docker-Content-Digest", digestOf([]byte("other")))
				}
				return false
			}
		}, ErrDigest, []string{"another digest"}},
		{"manifest and index in one (CVE-2021-41190)", func(r *fakeRegistry) {
			raw := strings.Replace(string(r.manifests["x:t"]), `"layers"`, `"manifests":[],"layers"`, 1)
			r.manifest("x", "t", []byte(raw), v1.MediaTypeImageManifest)
		}, ErrManifest, []string{"both manifests and layers"}},
		{"type says index", func(r *fakeRegistry) {
			r.manifest("x", "t", r.manifests["x:t"], v1.MediaTypeImageIndex)
		}, ErrManifest, []string{"sent as"}},
		{"not a registry", func(r *fakeRegistry) {
			r.hook = func(w http.ResponseWriter, q *http.Request) bool {
				if isManifest(q) {
					io.WriteString(w, "<html>hello")
				}
				return isManifest(q)
			}
		}, ErrManifest, nil},
		{"schema 1", func(r *fakeRegistry) {
			r.manifest("x", "t", []byte(`{"schemaVersion":1,"fsLayers":[]}`), typeDockerSigned1)
		}, ErrUnsupported, []string{"schema 1"}},
		{"artifact", func(r *fakeRegistry) {
			raw := strings.Replace(string(r.manifests["x:t"]), v1.MediaTypeImageConfig, "application/vnd.cncf.helm.config.v1+json", 1)
			r.manifest("x", "t", []byte(raw), v1.MediaTypeImageManifest)
		}, ErrUnsupported, []string{"not a container image"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			r, s := newRegistry(t), openStore(t)
			r.push(t, "x", "t", amd64(), layerData{tar: body})
			tt.setup(r)
			o := quick()
			o.IdleTimeout = 200 * time.Millisecond
			_, err := s.Pull(t.Context(), r.host()+"/x:t", o)
			if err == nil {
				t.Fatal("pull succeeded, want an error")
			}
			if tt.want != nil && !errors.Is(err, tt.want) {
				t.Errorf("error %v (%T), want %v", err, err, tt.want)
			}
			for _, w := range tt.words {
				if !strings.Contains(err.Error(), w) {
					t.Errorf("error %q lacks %q", err, w)
				}
			}
			t.Log(err)
			nothingLeft(t, s)
		})
	}
}

func TestPullUnreachable(t *testing.T) {
	s := openStore(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	l.Close()
	_, err = s.Pull(t.Context(), addr+"/x", quick())
	if !errors.Is(err, ErrUnavailable) || !strings.Contains(err.Error(), "refused the connection") {
		t.Errorf("refused: %v", err)
	}
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	o := quick()
	o.ConnectTimeout, o.IdleTimeout = 200*time.Millisecond, 200*time.Millisecond
	_, err = s.Pull(t.Context(), silent.Addr().String()+"/x", o)
	if !errors.Is(err, ErrUnavailable) || !strings.Contains(err.Error(), "in time") {
		t.Errorf("silent: %v", err)
	}
	_, err = s.Pull(t.Context(), "no-such-host.invalid/x", quick())
	if !errors.Is(err, ErrUnavailable) {
		t.Errorf("no such host: %v", err)
	}
	nothingLeft(t, s)
}

func TestPullTLS(t *testing.T) {
	h := newRegistryHandler()
	srv := httptest.NewTLSServer(h)
	defer srv.Close()
	srv.Config.ErrorLog = nil
	h.Server = srv
	h.push(t, "x", "latest", amd64(), layerData{tar: tarOf(t, fileE("f", "1"))})
	s := openStore(t)
	_, err := s.Pull(t.Context(), h.host()+"/x", quick())
	if !errors.Is(err, ErrTLS) || !strings.Contains(err.Error(), "authority this machine does not know") ||
		!strings.Contains(err.Error(), "ca.crt") {
		t.Errorf("unknown authority: %v", err)
	}
	nothingLeft(t, s)

	dir := t.TempDir()
	os.MkdirAll(filepath.Join(dir, h.host()), 0o755)
	cert := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: srv.Certificate().Raw})
	os.WriteFile(filepath.Join(dir, h.host(), "ca.crt"), cert, 0o644)
	o := quick()
	o.CertDirs = []string{dir}
	if _, err := s.Pull(t.Context(), h.host()+"/x", o); err != nil {
		t.Errorf("with ca.crt: %v", err)
	}
	o = quick()
	o.InsecureRegistries = []string{h.host()}
	if _, err := openStore(t).Pull(t.Context(), h.host()+"/x", o); err != nil {
		t.Errorf("listed as insecure: %v", err)
	}
	os.WriteFile(filepath.Join(dir, h.host(), "ca.crt"), []byte("nonsense"), 0o644)
	o = quick()
	o.CertDirs = []string{dir}
	if _, err := s.Pull(t.Context(), h.host()+"/x", o); !errors.Is(err, ErrTLS) || !strings.Contains(err.Error(), "no PEM certificate") {
		t.Errorf("bad ca.crt: %v", err)
	}
}

// A registry that is neither loopback nor listed is spoken to with TLS only, whatever it redirects to.
func TestPullPlainRefused(t *testing.T) {
	r, s := newRegistry(t), openStore(t)
	r.push(t, "x", "latest", amd64(), layerData{tar: tarOf(t, fileE("f", "1"))})
	_, port, _ := net.SplitHostPort(r.host())
	ip := firstAddress(t)
	l, err := net.Listen("tcp", net.JoinHostPort(ip, "0"))
	if err != nil {
		t.Skipf("needs an address that is not loopback: %v", err)
	}
	srv := &http.Server{Handler: r}
	go srv.Serve(l)
	defer srv.Close()
	_, err = s.Pull(t.Context(), l.Addr().String()+"/x", quick())
	if !errors.Is(err, ErrTLS) || !strings.Contains(err.Error(), "plain HTTP") {
		t.Errorf("plain HTTP elsewhere: %v (loopback port %s)", err, port)
	}
	o := quick()
	o.InsecureRegistries = []string{l.Addr().String()}
	if _, err := s.Pull(t.Context(), l.Addr().String()+"/x", o); err != nil {
		t.Errorf("listed: %v", err)
	}
}

func firstAddress(t *testing.T) string {
	addrs, _ := net.InterfaceAddrs()
	for _, a := range addrs {
		if n, ok := a.(*net.IPNet); ok && !n.IP.IsLoopback() && n.IP.To4() != nil {
			return n.IP.String()
		}
	}
	t.Skip("needs an address that is not loopback")
	return ""
}

func TestPullRetries(t *testing.T) {
	r, s := newRegistry(t), openStore(t)
	r.push(t, "x", "latest", amd64(), layerData{tar: tarOf(t, fileE("f", "1"))})
	var n atomic.Int32
	r.hook = func(w http.ResponseWriter, q *http.Request) bool {
		switch n.Add(1) % 3 {
		case 0:
			w.Header().Set("Retry-After", "7")
			w.WriteHeader(429)
			return true
		case 1:
			w.WriteHeader(502)
			return true
		}
		return false
	}
	var mu sync.Mutex
	var waits []time.Duration
	o := quick()
	o.sleep = func(_ context.Context, d time.Duration) error {
		mu.Lock()
		defer mu.Unlock()
		waits = append(waits, d)
		return nil
	}
	if _, err := s.Pull(t.Context(), r.host()+"/x", o); err != nil {
		t.Fatalf("pull: %v", err)
	}
	seven := false
	for _, w := range waits {
		seven = seven || w == 7*time.Second
	}
	if !seven {
		t.Errorf("waits %v: Retry-After not honoured", waits)
	}
}

func TestPullResumesInTheMiddle(t *testing.T) {
	for _, ranges := range []bool{true, false} {
		t.Run(fmt.Sprintf("ranges=%v", ranges), func(t *testing.T) {
			r, s := newRegistry(t), openStore(t)
			body := randomBody(2 << 20)
			m, _ := r.push(t, "x", "latest", amd64(), layerData{tar: tarOf(t, fileE("f", body))})
			dig := string(m.Layers[0].Digest)
			var asked []string
			sent := 0
			r.hook = func(w http.ResponseWriter, q *http.Request) bool {
				if !strings.HasSuffix(q.URL.Path, dig) {
					return false
				}
				blob := r.blobs[dig]
				asked = append(asked, q.Header.Get("Range"))
				from := 0
				if h := q.Header.Get("Range"); h != "" && ranges {
					fmt.Sscanf(h, "bytes=%d-", &from)
					w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", from, len(blob)-1, len(blob)))
					w.Header().Set("Content-Length", fmt.Sprint(len(blob)-from))
					w.WriteHeader(206)
				} else {
					w.Header().Set("Content-Length", fmt.Sprint(len(blob)))
				}
				end := min(len(blob), max(from, sent)+700<<10)
				sent = end
				w.Write(blob[from:end])
				if end < len(blob) {
					panic(http.ErrAbortHandler)
				}
				return true
			}
			img, err := s.Pull(t.Context(), r.host()+"/x", quick())
			if err != nil {
				t.Fatalf("pull: %v", err)
			}
			if len(asked) < 3 || asked[1] == "" {
				t.Errorf("requests %q, want several with ranges", asked)
			}
			got, err := img.ReadFile(s.Root(), "/f", 4<<20)
			if err != nil || string(got) != body {
				t.Errorf("content differs: %v", err)
			}
		})
	}
}
