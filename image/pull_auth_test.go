package image

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestPullAuth(t *testing.T) {
	for _, scheme := range []string{"basic", "bearer"} {
		t.Run(scheme, func(t *testing.T) {
			r, s := newRegistry(t), openStore(t)
			r.push(t, "x", "latest", amd64(), layerData{tar: tarOf(t, fileE("f", "1"))})
			r.hook = func(w http.ResponseWriter, q *http.Request) bool {
				user, pass, ok := q.BasicAuth()
				good := ok && user == "ann" && pass == "secret"
				if q.URL.Path == "/token" {
					if !good || q.URL.Query().Get("scope") != "repository:x:pull" {
						w.WriteHeader(401)
					} else {
						io.WriteString(w, `{"token":"tok"}`)
					}
					return true
				}
				if scheme == "bearer" {
					good = q.Header.Get("Authorization") == "Bearer tok"
				}
				if !good {
					w.Header().Set("WWW-Authenticate", map[string]string{
						"basic": `Basic realm="r"`, "bearer": fmt.Sprintf(`Bearer realm="http://%s/token",service="s"`, q.Host),
					}[scheme])
					w.WriteHeader(401)
				}
				return !good
			}
			dir := t.TempDir()
			t.Setenv("HOME", t.TempDir())
			t.Setenv("DOCKER_CONFIG", dir)
			if _, err := s.Pull(t.Context(), r.host()+"/x", quick()); !errors.Is(err, ErrUnauthorized) || !strings.Contains(err.Error(), dir) {
				t.Errorf("without credentials: %v", err)
			}
			// base64 of ann:secret
			os.WriteFile(filepath.Join(dir, "config.json"), []byte(`{"auths":{"`+r.host()+`":{"auth":"YW5uOnNlY3JldA=="}}}`), 0o600)
			if _, err := s.Pull(t.Context(), r.host()+"/x", quick()); err != nil {
				t.Errorf("with credentials: %v", err)
			}
		})
	}
}

func TestPullBombs(t *testing.T) {
	zeros := tarOf(t, fileE("f", strings.Repeat("\x00", 8<<20)))
	for name, l := range map[string]Limits{
		"ratio":   {Ratio: 50, RatioFloor: 1 << 20},
		"bytes":   {Bytes: 1 << 20},
		"entries": {Entries: 1},
		"window":  {ZstdWindow: 1 << 10},
	} {
		t.Run(name, func(t *testing.T) {
			r, s := newRegistry(t), openStore(t)
			d := layerData{tar: zeros, blob: zst(zeros)}
			if name == "entries" {
				d = layerData{tar: tarOf(t, fileE("a", ""), fileE("b", ""))}
			}
			r.push(t, "x", "latest", amd64(), d)
			o := quick()
			o.Limits = l
			_, err := s.Pull(t.Context(), r.host()+"/x", o)
			if !errors.Is(err, ErrLimit) {
				t.Errorf("error %v, want %v", err, ErrLimit)
			}
			t.Log(err)
			nothingLeft(t, s)
		})
	}
}

func TestPullWrongDiffID(t *testing.T) {
	r, s := newRegistry(t), openStore(t)
	a, b := tarOf(t, fileE("f", "1")), tarOf(t, fileE("f", "2"))
	r.push(t, "x", "latest", amd64(), layerData{tar: a, blob: gz(b)})
	if _, err := s.Pull(t.Context(), r.host()+"/x", quick()); !errors.Is(err, ErrDigest) {
		t.Errorf("error %v, want %v", err, ErrDigest)
	}
	nothingLeft(t, s)
}

// An interrupted pull keeps the layers that are complete.
func TestPullResumesByLayer(t *testing.T) {
	r, s := newRegistry(t), openStore(t)
	m, _ := r.push(t, "x", "latest", amd64(), layerData{tar: tarOf(t, fileE("a", "1"))}, layerData{tar: tarOf(t, fileE("b", "2"))})
	first, second := string(m.Layers[0].Digest), string(m.Layers[1].Digest)
	ctx, cancel := context.WithCancel(t.Context())
	r.hook = func(w http.ResponseWriter, q *http.Request) bool {
		if !strings.HasSuffix(q.URL.Path, second) {
			return false
		}
		for range 100 { // until the first is there
			if rec, _ := s.lookupLayer(string(digestOf(tarOf(t, fileE("a", "1"))))); rec != nil {
				break
			}
			time.Sleep(10 * time.Millisecond)
		}
		cancel()
		<-q.Context().Done()
		return true
	}
	if _, err := s.Pull(ctx, r.host()+"/x", quick()); !errors.Is(err, context.Canceled) {
		t.Fatalf("error %v, want canceled", err)
	}
	nothingLeft(t, s)
	r.hook = nil
	r.gets = map[string]int{}
	img, err := s.Pull(t.Context(), r.host()+"/x", quick())
	if err != nil || len(img.Layers) != 2 {
		t.Fatalf("pull again: %v", err)
	}
	if n := r.gets["/v2/x/blobs/"+first]; n != 0 {
		t.Errorf("the complete layer was fetched again")
	}
}

// Collect leaves alone what a running pull fills and what it has completed.
func TestCollectBesidePull(t *testing.T) {
	r, s := newRegistry(t), openStore(t)
	m, _ := r.push(t, "x", "latest", amd64(), layerData{tar: tarOf(t, fileE("a", "1"))}, layerData{tar: tarOf(t, fileE("b",
		randomBody(100<<10)))})
	second := string(m.Layers[1].Digest)
	reached, goOn := make(chan bool), make(chan bool)
	r.hook = func(w http.ResponseWriter, q *http.Request) bool {
		if strings.HasSuffix(q.URL.Path, second) {
			w.Write(r.blobs[second][:1000])
			w.(http.Flusher).Flush()
			reached <- true
			<-goOn
			w.Write(r.blobs[second][1000:])
			return true
		}
		return false
	}
	done := make(chan error)
	go func() {
		_, err := s.Pull(t.Context(), r.host()+"/x", quick())
		done <- err
	}()
	<-reached
	for range 100 { // until the first layer is complete
		if l, _ := filepath.Glob(filepath.Join(s.root, "image/layers/*.json")); len(l) > 0 {
			break
		}
		time.Sleep(5 * time.Millisecond)
	}
	if c, err := s.Collect(CollectOptions{}); err != nil || c != (Collected{}) {
		t.Errorf("Collect = %+v, %v; want nothing", c, err)
	}
	close(goOn)
	if err := <-done; err != nil {
		t.Errorf("pull: %v", err)
	}
}

func TestPullDiskFull(t *testing.T) {
	needRoot(t)
	s := openStore(t)
	if err := unix.Mount("tmpfs", s.root, "tmpfs", 0, "size=1m,mode=0700"); err != nil {
		t.Skipf("needs to mount a small tmpfs: %v", err)
	}
	t.Cleanup(func() { unix.Unmount(s.root, unix.MNT_DETACH) })
	_, err := pullTars(t, s, tarOf(t, fileE("f", randomBody(3<<20))))
	if !errors.Is(err, ErrNoSpace) || !strings.Contains(err.Error(), "--root") {
		t.Errorf("error %v, want %v", err, ErrNoSpace)
	}
	nothingLeft(t, s)
}

// A registry may send us elsewhere for blobs, but credentials stay with the registry.
func TestPullRedirectDropsCredentials(t *testing.T) {
	r, other, s := newRegistry(t), newRegistry(t), openStore(t)
	m, _ := r.push(t, "x", "latest", amd64(), layerData{tar: tarOf(t, fileE("f", "1"))})
	dig := string(m.Layers[0].Digest)
	other.blob(r.blobs[dig])
	leaked := ""
	other.hook = func(w http.ResponseWriter, q *http.Request) bool {
		leaked += q.Header.Get("Authorization")
		return false
	}
	r.hook = func(w http.ResponseWriter, q *http.Request) bool {
		if _, _, ok := q.BasicAuth(); !ok {
			w.Header().Set("WWW-Authenticate", `Basic realm="r"`)
			w.WriteHeader(401)
			return true
		}
		if strings.HasSuffix(q.URL.Path, dig) {
			http.Redirect(w, q, other.URL+q.URL.Path, http.StatusTemporaryRedirect)
			return true
		}
		return false
	}
	dir := t.TempDir()
	t.Setenv("HOME", dir)
	t.Setenv("DOCKER_CONFIG", dir)
	os.WriteFile(filepath.Join(dir, "config.json"), []byte(`{"auths":{"`+r.host()+`":{"auth":"YW5uOnNlY3JldA=="}}}`), 0o600)
	if _, err := s.Pull(t.Context(), r.host()+"/x", quick()); err != nil {
		t.Fatalf("pull: %v", err)
	}
	if leaked != "" {
		t.Errorf("credentials sent to another host: %s", leaked)
	}
}
