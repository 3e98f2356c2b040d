package image

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

// e is one archive entry.
type e struct {
	name  string
	typ   byte // default regular file
	body  string
	link  string
	mode  int64
	uid   int
	gid   int
	mtime int64
	pax   map[string]string
	major int64
	minor int64
}

func dirE(name string, mode int64) e {
	return e{name: name + "/", typ: tar.TypeDir, mode: mode, mtime: 1000}
}
func fileE(name, body string) e { return e{name: name, body: body, mode: 0o644, mtime: 2000} }
func linkE(name, to string) e {
	return e{name: name, typ: tar.TypeSymlink, link: to, mode: 0o777, mtime: 3000}
}
func hardE(name, to string) e { return e{name: name, typ: tar.TypeLink, link: to, mode: 0o644} }

func tarOf(t testing.TB, entries ...e) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, x := range entries {
		if x.typ == 0 {
			x.typ = tar.TypeReg
		}
		h := &tar.Header{
			Name: x.name, Typeflag: x.typ, Linkname: x.link, Mode: x.mode, Uid: x.uid, Gid: x.gid,
			ModTime: time.Unix(x.mtime, 0), Size: int64(len(x.body)), PAXRecords: x.pax, Devmajor: x.major, Devminor: x.minor,
		}
		if x.typ == tar.TypeXGlobalHeader {
			h = &tar.Header{Typeflag: x.typ, Name: x.name, PAXRecords: x.pax}
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatalf("tar %q: %v", x.name, err)
		}
		if _, err := io.WriteString(w, x.body); err != nil {
			t.Fatalf("tar %q: %v", x.name, err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func gz(b []byte) []byte {
	var out bytes.Buffer
	w, _ := gzip.NewWriterLevel(&out, gzip.BestSpeed)
	w.Write(b)
	w.Close()
	return out.Bytes()
}

func zst(b []byte) []byte {
	w, _ := zstd.NewWriter(nil)
	return w.EncodeAll(b, nil)
}

// fakeRegistry serves what is put into it; hook may answer a request in its place.
type fakeRegistry struct {
	labels map[string]string // of the images that are pushed
	*httptest.Server
	mu        sync.Mutex
	blobs     map[string][]byte
	manifests map[string][]byte // "repo:ref" → raw
	types     map[string]string // digest → content type
	gets      map[string]int    // path → requests
	uploads   map[string][]byte
	sent      int               // bytes of blobs that were uploaded
	got       int               // bytes that came of blobs, whatever became of them
	mounts    map[string]bool   // "repo@digest" that may be mounted
	hidden    map[string][]byte // what such a mount brings
	hook      func(w http.ResponseWriter, r *http.Request) bool
}

func newRegistry(t testing.TB) *fakeRegistry {
	r := newRegistryHandler()
	r.Server = httptest.NewServer(r)
	t.Cleanup(r.Close)
	return r
}

func newRegistryHandler() *fakeRegistry {
	return &fakeRegistry{
		blobs: map[string][]byte{}, manifests: map[string][]byte{}, types: map[string]string{}, gets: map[string]int{},
	}
}

func (r *fakeRegistry) host() string { return strings.SplitN(r.URL, "://", 2)[1] }

func (r *fakeRegistry) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	r.mu.Lock()
	r.gets[req.URL.Path]++
	hook := r.hook
	r.mu.Unlock()
	if hook != nil && hook(w, req) {
		return
	}
	r.serve(w, req)
}

func (r *fakeRegistry) serve(w http.ResponseWriter, req *http.Request) {
	p := strings.TrimPrefix(req.URL.Path, "/v2/")
	if p == "" {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if req.Method != http.MethodGet && req.Method != http.MethodHead || strings.Contains(p, "/blobs/uploads/") {
		r.write(w, req, p)
		return
	}
	if i := strings.Index(p, "/manifests/"); i >= 0 {
		raw, ok := r.manifests[p[:i]+":"+p[i+len("/manifests/"):]]
		if !ok {
			w.WriteHeader(404)
			io.WriteString(w, `{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown"}]}`)
			return
		}
		w.Header().Set("Content-Type", r.types[digestOf(raw)])
		w.Write(raw)
		return
	}
	if i := strings.Index(p, "/blobs/"); i >= 0 {
		raw, ok := r.blobs[p[i+len("/blobs/"):]]
		if !ok {
			w.WriteHeader(404)
			return
		}
		http.ServeContent(w, req, "", time.Time{}, bytes.NewReader(raw))
		return
	}
	w.WriteHeader(404)
}

// write takes uploads, as the OCI distribution specification has them. Blobs are those of all repositories; what a mount may take over
// are those that mounts allows.
func (r *fakeRegistry) write(w http.ResponseWriter, req *http.Request, p string) {
	if r.uploads == nil {
		r.uploads = map[string][]byte{}
	}
	body, err := io.ReadAll(req.Body)
	if i := strings.Index(p, "/manifests/"); i >= 0 && req.Method == http.MethodPut {
		repo, d := p[:i], digestOf(body)
		r.types[d] = req.Header.Get("Content-Type")
		r.manifests[repo+":"+d], r.manifests[repo+":"+p[i+len("/manifests/"):]] = body, body
		w.Header().Set("Docker-Content-Digest", d)
		w.WriteHeader(http.StatusCreated)
		return
	}
	at := strings.Index(p, "/blobs/uploads/")
	if at < 0 {
		w.WriteHeader(http.StatusMethodNotAllowed)
		return
	}
	id := p[at+len("/blobs/uploads/"):]
	have, known := r.uploads[id]
	loc := func(id string, n int) {
		w.Header().Set("Location", "/v2/"+p[:at]+"/blobs/uploads/"+id+"?_state=x")
		w.Header().Set("Range", fmt.Sprintf("0-%d", max(n-1, 0)))
	}
	switch {
	case req.Method == http.MethodPost:
		if from := req.URL.Query().Get("from"); from != "" && r.mounts[from+"@"+req.URL.Query().Get("mount")] {
			r.blobs[req.URL.Query().Get("mount")] = r.hidden[req.URL.Query().Get("mount")]
			w.WriteHeader(http.StatusCreated)
			return
		}
		id := fmt.Sprint("u", len(r.uploads))
		r.uploads[id] = []byte{}
		loc(id, 0)
		w.WriteHeader(http.StatusAccepted)
	case !known:
		w.WriteHeader(http.StatusNotFound)
	case req.Method == http.MethodGet:
		loc(id, len(have))
		w.WriteHeader(http.StatusNoContent)
	case req.Method == http.MethodDelete:
		delete(r.uploads, id)
		w.WriteHeader(http.StatusNoContent)
	default:
		if cr := req.Header.Get("Content-Range"); cr != "" && !strings.HasPrefix(cr, fmt.Sprintf("%d-", len(have))) {
			w.WriteHeader(http.StatusRequestedRangeNotSatisfiable)
			return
		}
		have = append(have, body...)
		r.got += len(body)
		r.uploads[id] = have
		loc(id, len(have))
		if err != nil { // the connection broke: what came stays
			return
		}
		if req.Method == http.MethodPatch {
			w.WriteHeader(http.StatusAccepted)
			return
		}
		if digestOf(have) != req.URL.Query().Get("digest") {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		r.blobs[digestOf(have)] = have
		r.sent += len(have)
		w.WriteHeader(http.StatusCreated)
	}
}

func (r *fakeRegistry) blob(b []byte) string {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.blobs[digestOf(b)] = b
	return digestOf(b)
}

func (r *fakeRegistry) manifest(repo, tag string, raw []byte, typ string) string {
	r.mu.Lock()
	defer r.mu.Unlock()
	d := digestOf(raw)
	r.types[d] = typ
	r.manifests[repo+":"+d] = raw
	if tag != "" {
		r.manifests[repo+":"+tag] = raw
	}
	return d
}

// layerData is a layer as pushed.
type layerData struct {
	tar  []byte
	blob []byte // as sent; default gzip of tar
	typ  string
}

func (r *fakeRegistry) push(t testing.TB, repo, tag string, platform v1.Platform, layers ...layerData) (manifest v1.Manifest, dig string) {
	t.Helper()
	created := time.Unix(1700000000, 0).UTC()
	config := v1.Image{Created: &created, Platform: platform, Config: v1.ImageConfig{
		Env: []string{"A=b"}, Cmd: []string{"sh"}, Labels: r.labels,
	}}
	config.RootFS.Type = "layers"
	manifest = v1.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: v1.MediaTypeImageManifest, Layers: []v1.Descriptor{}}
	for _, l := range layers {
		if l.blob == nil {
			l.blob = gz(l.tar)
		}
		if l.typ == "" {
			l.typ = v1.MediaTypeImageLayerGzip
		}
		config.RootFS.DiffIDs = append(config.RootFS.DiffIDs, digest.Digest(digestOf(l.tar)))
		manifest.Layers = append(manifest.Layers, v1.Descriptor{
			MediaType: l.typ, Digest: digest.Digest(r.blob(l.blob)), Size: int64(len(l.blob)),
		})
	}
	raw := mustJSON(t, config)
	manifest.Config = v1.Descriptor{MediaType: v1.MediaTypeImageConfig, Digest: digest.Digest(r.blob(raw)), Size: int64(len(raw))}
	return manifest, r.manifest(repo, tag, mustJSON(t, manifest), v1.MediaTypeImageManifest)
}

func mustJSON(t testing.TB, v any) []byte {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func amd64() v1.Platform { return v1.Platform{OS: "linux", Architecture: "amd64"} }

func openStore(t testing.TB) *Store {
	t.Helper()
	s, err := Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// quick are options that do not wait.
func quick() PullOptions {
	return PullOptions{
		CertDirs: []string{}, ConnectTimeout: 2 * time.Second, IdleTimeout: 2 * time.Second,
		sleep: func(ctx context.Context, d time.Duration) error { return context.Cause(ctx) },
	}
}

func pullTars(t testing.TB, s *Store, tars ...[]byte) (*Image, error) {
	t.Helper()
	r := newRegistry(t)
	var layers []layerData
	for _, b := range tars {
		layers = append(layers, layerData{tar: b})
	}
	r.push(t, "x", "latest", amd64(), layers...)
	return s.Pull(t.Context(), r.host()+"/x", quick())
}

func mustPullTars(t testing.TB, s *Store, tars ...[]byte) *Image {
	t.Helper()
	img, err := pullTars(t, s, tars...)
	if err != nil {
		t.Fatalf("pull: %v", err)
	}
	return img
}

// nothingLeft asserts that a failed pull left nothing that is visible or half done.
func nothingLeft(t testing.TB, s *Store) {
	t.Helper()
	for _, pattern := range []string{"layers/in.*", "layers/rm.*", "image/images/*"} {
		m, _ := filepath.Glob(filepath.Join(s.root, pattern))
		if len(m) > 0 {
			t.Errorf("left behind: %v", m)
		}
	}
	if l, err := s.List(); err != nil || len(l) > 0 {
		t.Errorf("List = %v, %v; want none", l, err)
	}
}

func needRoot(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: owners, devices, trusted attributes")
	}
}
