package image

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand"
	"net/http"
	"os"
	"strings"
	"sync/atomic"
	"testing"
)

// pulledFrom is a store with an image of a registry.
func pulledFrom(t *testing.T, r *fakeRegistry, tars ...[]byte) (*Store, *Image) {
	t.Helper()
	s := openStore(t)
	var layers []layerData
	for _, b := range tars {
		layers = append(layers, layerData{tar: b})
	}
	r.push(t, "x", "latest", amd64(), layers...)
	img, err := s.Pull(t.Context(), r.host()+"/x", quick())
	if err != nil {
		t.Fatal(err)
	}
	return s, img
}

func pushTo(t *testing.T, s *Store, img *Image, name string) (*Pushed, error) {
	t.Helper()
	if err := s.Tag(img.ID, name); err != nil {
		t.Fatal(err)
	}
	return s.Push(t.Context(), name, quick())
}

// noise is a file that doesn't compress.
func noise(n int) string {
	b := make([]byte, n)
	rand.New(rand.NewSource(int64(n))).Read(b)
	return string(b)
}

// TestPushKeepsDigest pushes an image that was pulled to another registry: as long as the first one has the layers, as they came.
func TestPushKeepsDigest(t *testing.T) {
	from, to := newRegistry(t), newRegistry(t)
	s, img := pulledFrom(t, from, threeLayers(t)...)
	got, err := pushTo(t, s, img, to.host()+"/team/app:1")
	if err != nil {
		t.Fatal(err)
	}
	if got.Digest != img.ManifestDigest || !got.Same {
		t.Errorf("pushed as %s, came as %s", got.Digest, img.ManifestDigest)
	}
	again, err := openStore(t).Pull(t.Context(), to.host()+"/team/app:1", quick())
	if err != nil || again.ID != img.ID {
		t.Errorf("pulled again: %v, %v", again, err)
	}
	if after, err := s.Resolve(to.host() + "/team/app@" + got.Digest); err != nil || after.ID != img.ID {
		t.Errorf("the digest is no name of it: %v", err)
	}
	sent := to.sent
	if _, err := s.Push(t.Context(), to.host()+"/team/app:1", quick()); err != nil || to.sent != sent {
		t.Errorf("the second push: %v, and %d bytes more", err, to.sent-sent)
	}
}

// TestPushCompresses has no registry that the layers could come from.
func TestPushCompresses(t *testing.T) {
	from, to := newRegistry(t), newRegistry(t)
	s, img := pulledFrom(t, from, tarOf(t, fileE("f", noise(100_000))), tarOf(t, fileE("g", "g")))
	from.Close()
	var warned atomic.Bool
	o := quick()
	o.Progress = func(e Event) {
		if e.State == Warned && strings.Contains(e.Text, "compressed anew") {
			warned.Store(true)
		}
	}
	name := to.host() + "/app:1"
	if err := s.Tag(img.ID, name); err != nil {
		t.Fatal(err)
	}
	got, err := s.Push(t.Context(), name, o)
	if err != nil || got.Same {
		t.Fatalf("got %+v, %v", got, err)
	}
	if !warned.Load() {
		t.Error("that the digest is another one is not said")
	}
	again, err := openStore(t).Pull(t.Context(), name, quick())
	if err != nil || again.ID != img.ID || again.ManifestDigest != got.Digest {
		t.Errorf("pulled again: %v, %v", again, err)
	}
	// What was compressed once is known by its digest.
	sent := to.sent
	third, err := s.Push(t.Context(), name, quick())
	if err != nil || to.sent != sent || third.Digest != got.Digest {
		t.Errorf("the second push: %v, %d bytes more, digest %s and %s", err, to.sent-sent, third.Digest, got.Digest)
	}
}

// TestPushMounts lets the registry take a layer over from the repository that it was pulled from.
func TestPushMounts(t *testing.T) {
	r := newRegistry(t)
	s, img := pulledFrom(t, r, threeLayers(t)[0], threeLayers(t)[2])
	// Blobs are here those of all repositories: hide them, but for mounts.
	r.mu.Lock()
	r.hidden, r.mounts = maps.Clone(r.blobs), map[string]bool{}
	for d := range r.blobs {
		r.mounts["x@"+d] = true
	}
	clear(r.blobs)
	r.mu.Unlock()
	got, err := pushTo(t, s, img, r.host()+"/other:1")
	if err != nil || !got.Same {
		t.Fatalf("got %+v, %v", got, err)
	}
	if r.sent > len(img.RawConfig) {
		t.Errorf("%d bytes were sent, the config alone has %d", r.sent, len(img.RawConfig))
	}
}

// TestPushMountsBase: of an image that was made here the registry takes over the layers of the one beneath it: from where that was pulled,
// and from where an image that is gone was pushed.
func TestPushMountsBase(t *testing.T) {
	r := newRegistry(t)
	s, base := pulledFrom(t, r, tarOf(t, fileE("f", noise(100_000))))
	hide := func(repository string) {
		r.mu.Lock()
		defer r.mu.Unlock()
		if r.hidden == nil {
			r.hidden = map[string][]byte{}
		}
		maps.Copy(r.hidden, r.blobs)
		r.mounts, r.sent = map[string]bool{}, 0
		for d := range r.blobs {
			r.mounts[repository+"@"+d] = true
		}
		clear(r.blobs)
	}
	push := func(n int, changed string) *Image {
		t.Helper()
		upper, dirs := containerOn(t, s, base)
		if err := os.WriteFile(upper+"/new", []byte(changed), 0o600); err != nil {
			t.Fatal(err)
		}
		img, err := s.Commit(t.Context(), CommitOptions{Base: base, Dirs: dirs[:1]})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := pushTo(t, s, img, fmt.Sprintf("%s/made%d:1", r.host(), n)); err != nil {
			t.Fatal(err)
		}
		if r.sent > 10_000 {
			t.Errorf("%d bytes were sent for image %d: its base, too", r.sent, n)
		}
		if again, err := openStore(t).Pull(t.Context(), fmt.Sprintf("%s/made%d:1", r.host(), n), quick()); err != nil || again.ID != img.ID {
			t.Errorf("pulled again: %v, %v", again, err)
		}
		return img
	}
	hide("x") // where the base was pulled from
	one := push(1, "one")
	hide("made1")
	if _, err := s.Remove(one.ID, RemoveOptions{Force: true}); err != nil {
		t.Fatal(err)
	}
	push(2, "two")
}

// TestPushGoesOn breaks uploads off: they go on where the registry says it is, or from their beginning where it has forgotten them.
func TestPushGoesOn(t *testing.T) {
	const size = 3 * uploadWhole
	big := tarOf(t, fileE("f", noise(size)))
	fault := func(w http.ResponseWriter) { w.WriteHeader(http.StatusBadGateway) }
	// take is a connection that breaks when so many bytes have come, which stay.
	take := func(n int64) func(w http.ResponseWriter, req *http.Request, r *fakeRegistry) {
		return func(_ http.ResponseWriter, req *http.Request, r *fakeRegistry) {
			req.Body = io.NopCloser(io.LimitReader(req.Body, n))
			r.serve(discard{}, req)
			panic(http.ErrAbortHandler)
		}
	}
	for name, c := range map[string]struct {
		method string
		hook   func(w http.ResponseWriter, req *http.Request, r *fakeRegistry)
		most   int // bytes that the registry may get
	}{
		"fault before the body": {http.MethodPatch, func(w http.ResponseWriter, _ *http.Request, _ *fakeRegistry) { fault(w) }, size},
		"breaks at once":        {http.MethodPatch, take(0), size},
		"breaks early":          {http.MethodPatch, take(1000), size},
		"breaks late":           {http.MethodPatch, take(5 * uploadWhole / 2), size},
		"breaks behind the body": {http.MethodPatch, func(_ http.ResponseWriter, req *http.Request, r *fakeRegistry) {
			r.serve(discard{}, req)
			panic(http.ErrAbortHandler)
		}, size},
		"upload forgotten": {http.MethodPatch, func(w http.ResponseWriter, req *http.Request, r *fakeRegistry) {
			io.Copy(io.Discard, req.Body)
			r.mu.Lock()
			clear(r.uploads)
			r.mu.Unlock()
			fault(w)
		}, size},
		"no such upload": {http.MethodPatch, func(w http.ResponseWriter, req *http.Request, _ *fakeRegistry) {
			io.Copy(io.Discard, req.Body)
			w.WriteHeader(http.StatusNotFound)
		}, size},
		"other bytes kept": {http.MethodPatch, func(_ http.ResponseWriter, req *http.Request, r *fakeRegistry) {
			io.CopyN(io.Discard, req.Body, 5)
			take(uploadWhole)(nil, req, r)
		}, 3 * size},
		"fault at the end": {http.MethodPut, func(w http.ResponseWriter, _ *http.Request, _ *fakeRegistry) { fault(w) }, size},
		"the last answer is lost": {http.MethodPut, func(_ http.ResponseWriter, req *http.Request, r *fakeRegistry) {
			r.serve(discard{}, req)
			panic(http.ErrAbortHandler)
		}, size},
	} {
		for _, copied := range []bool{false, true} { // from the registry that has it, or compressed anew
			t.Run(fmt.Sprint(name, " ", copied), func(t *testing.T) {
				from, to := newRegistry(t), newRegistry(t)
				s, img := pulledFrom(t, from, big)
				if !copied {
					from.Close()
				}
				var n atomic.Int32
				to.hook = func(w http.ResponseWriter, req *http.Request) bool {
					// The config is sent meanwhile, by another upload; the layer's PUT has no body.
					if req.Method != c.method || req.ContentLength > 0 || strings.Contains(req.URL.Path, "/manifests/") || n.Add(1) != 1 {
						return false
					}
					c.hook(w, req, to)
					return true
				}
				if _, err := pushTo(t, s, img, to.host()+"/app:1"); err != nil {
					t.Fatal(err)
				}
				if n.Load() == 0 {
					t.Error("nothing was interrupted")
				}
				if to.got > c.most+c.most/100 {
					t.Errorf("%d bytes were sent for a blob of %d", to.got, size)
				}
				if again, err := openStore(t).Pull(t.Context(), to.host()+"/app:1", quick()); err != nil || again.ID != img.ID {
					t.Errorf("pulled again: %v, %v", again, err)
				}
			})
		}
	}
}

type discard struct{}

func (discard) Header() http.Header         { return http.Header{} }
func (discard) Write(p []byte) (int, error) { return len(p), nil }
func (discard) WriteHeader(int)             {}

// TestPushRefused has registries that say no, or something else than they should.
func TestPushRefused(t *testing.T) {
	for name, c := range map[string]struct {
		hook func(w http.ResponseWriter, req *http.Request) bool
		kind error
		want string
	}{
		"denied": {func(w http.ResponseWriter, req *http.Request) bool {
			if req.Method == http.MethodPost {
				w.WriteHeader(http.StatusForbidden)
				w.Write([]byte(`{"errors":[{"code":"DENIED","message":"not yours"}]}`))
			}
			return req.Method == http.MethodPost
		}, ErrUnauthorized, "glassbox login"},
		"no place to send to": {func(w http.ResponseWriter, req *http.Request) bool {
			if req.Method == http.MethodPost {
				w.WriteHeader(http.StatusAccepted)
			}
			return req.Method == http.MethodPost
		}, ErrUnavailable, "where to send"},
		"sends us elsewhere": {func(w http.ResponseWriter, req *http.Request) bool {
			if req.Method == http.MethodPost {
				w.Header().Set("Location", "http://192.0.2.1/steal")
				w.WriteHeader(http.StatusAccepted)
			}
			return req.Method == http.MethodPost
		}, ErrTLS, "without TLS"},
		"another digest": {func(w http.ResponseWriter, req *http.Request) bool {
			if req.Method == http.MethodPut && strings.Contains(req.URL.Path, "/manifests/") {
				w.Header().Set("Docker-Content-Digest", digestOf([]byte("other")))
				w.WriteHeader(http.StatusCreated)
				return true
			}
			return false
		}, ErrDigest, "another digest"},
		"never well": {func(w http.ResponseWriter, req *http.Request) bool {
			if req.Method == http.MethodPatch || req.Method == http.MethodPut {
				w.WriteHeader(http.StatusInternalServerError)
				return true
			}
			return false
		}, ErrUnavailable, "fault"},
	} {
		t.Run(name, func(t *testing.T) {
			from, to := newRegistry(t), newRegistry(t)
			s, img := pulledFrom(t, from, tarOf(t, fileE("f", "f")))
			to.hook = c.hook
			_, err := pushTo(t, s, img, to.host()+"/app:1")
			if !errors.Is(err, c.kind) || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %v with %q", err, c.kind, c.want)
			}
		})
	}
}

// TestPushDamaged must not push a layer whose files were changed.
func TestPushDamaged(t *testing.T) {
	from, to := newRegistry(t), newRegistry(t)
	s, img := pulledFrom(t, from, tarOf(t, fileE("f", "content")))
	from.Close()
	if err := os.WriteFile(s.root+"/"+img.Layers[0].Dir+"/f", []byte("CONTENT"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := pushTo(t, s, img, to.host()+"/app:1"); !errors.Is(err, ErrDigest) {
		t.Errorf("got %v, want a wrong digest", err)
	}
	if len(to.manifests) > 0 {
		t.Error("the registry has a manifest")
	}
}

// TestCompressor checks that the number of processors decides nothing.
func TestCompressor(t *testing.T) {
	plain := []byte(strings.Repeat(noise(5000), 1000))
	var first []byte
	for _, kind := range []string{"gzip", "zstd"} {
		first = nil
		for range 4 {
			var b bytes.Buffer
			z, err := compressor(&b, kind)
			if err != nil {
				t.Fatal(err)
			}
			for p := plain; len(p) > 0; {
				n := min(len(p), 1+rand.Intn(100_000))
				z.Write(p[:n])
				p = p[n:]
			}
			if err := z.Close(); err != nil {
				t.Fatal(err)
			}
			if first == nil {
				first = b.Bytes()
			}
			if !bytes.Equal(first, b.Bytes()) {
				t.Errorf("%s: the same input makes %d bytes and %d others", kind, len(first), b.Len())
			}
		}
	}
}
