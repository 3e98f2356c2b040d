package image

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// saved writes images to a file.
func saved(t *testing.T, s *Store, o SaveOptions, names ...string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "saved.tar")
	f, err := os.Create(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := s.Save(t.Context(), f, names, o); err != nil {
		t.Fatalf("save %v: %v", names, err)
	}
	return file
}

func loadFile(t *testing.T, s *Store, name string) ([]Loaded, error) {
	t.Helper()
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	return s.Load(t.Context(), f, LoadOptions{})
}

// loadBytes gives an archive by a pipe.
func loadBytes(t *testing.T, s *Store, raw []byte) ([]Loaded, error) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	go func() {
		w.Write(raw)
		w.Close()
	}()
	return s.Load(t.Context(), r, LoadOptions{})
}

func threeLayers(t *testing.T) [][]byte {
	return [][]byte{
		tarOf(t, dirE("usr/lib", 0o755), linkE("lib", "usr/lib"), dirE("tmp", 0o1777), fileE("usr/lib/a", strings.Repeat("a", 70000))),
		tarOf(t),
		tarOf(t, fileE("lib/b", "b"), e{name: "tmp/.wh.gone", mode: 0o600}, fileE("tmp/c", "c")),
	}
}

// TestSaveLoad saves images in each form and loads them in another store, from a file, a pipe, compressed and unpacked.
func TestSaveLoad(t *testing.T) {
	s := openStore(t)
	img := mustPullTars(t, s, threeLayers(t)...)
	for _, name := range []string{"app:1", "app:2", "other/name:x"} {
		if err := s.Tag(img.ID, name); err != nil {
			t.Fatal(err)
		}
	}
	second := mustPullTars(t, s, threeLayers(t)[0])
	if err := s.Tag(second.ID, "second"); err != nil {
		t.Fatal(err)
	}
	check := func(t *testing.T, list []Loaded, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		var got [][]string
		for _, l := range list {
			got = append(got, append([]string{l.Image.ID}, l.Names...))
			if a, err := l.Image.archives(); err != nil {
				t.Error(err)
			} else {
				for _, a := range a {
					if err := a.writeTo(t.Context(), io.Discard); err != nil {
						t.Error(err)
					}
				}
			}
		}
		want := [][]string{{img.ID, "app:1", "app:2", "other/name:x"}, {second.ID, "second:latest"}}
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("loaded (-want +got):\n%s", d)
		}
	}
	names := []string{"app", "other/name:x", "second"}
	for _, compress := range []string{"", "gzip", "zstd"} {
		t.Run("layers "+compress, func(t *testing.T) {
			file := saved(t, s, SaveOptions{Compress: compress}, names...)
			to := openStore(t)
			list, err := loadFile(t, to, file)
			check(t, list, err)
			if got, err := to.Resolve("app:2"); err != nil || got.ID != img.ID || got.Size != img.Size {
				t.Errorf("app:2 is %v, %v", got, err)
			}
		})
	}
	raw, err := os.ReadFile(saved(t, s, SaveOptions{}, names...))
	if err != nil {
		t.Fatal(err)
	}
	again, err := os.ReadFile(saved(t, s, SaveOptions{}, names...))
	if err != nil || !bytes.Equal(raw, again) {
		t.Errorf("the same images made two archives, %v", err)
	}
	for name, b := range map[string][]byte{"plain": raw, "gzip": gz(raw), "zstd": zst(raw)} {
		t.Run("pipe "+name, func(t *testing.T) {
			list, err := loadBytes(t, openStore(t), b)
			check(t, list, err)
		})
	}
	t.Run("directory", func(t *testing.T) {
		dir := t.TempDir()
		unpackPlain(t, raw, dir)
		list, err := loadFile(t, openStore(t), dir)
		check(t, list, err)
	})
	t.Run("docker archive alone", func(t *testing.T) {
		dir := t.TempDir()
		unpackPlain(t, raw, dir)
		os.Remove(filepath.Join(dir, "index.json"))
		list, err := loadFile(t, openStore(t), dir)
		check(t, list, err)
	})
	t.Run("layout alone", func(t *testing.T) {
		dir := t.TempDir()
		unpackPlain(t, raw, dir)
		os.Remove(filepath.Join(dir, "manifest.json"))
		list, err := loadFile(t, openStore(t), dir)
		check(t, list, err)
	})
}

// unpackPlain unpacks an archive that this test made.
func unpackPlain(t *testing.T, raw []byte, dir string) {
	t.Helper()
	index := &tarIndex{files: map[string]tarEntry{}}
	f := filepath.Join(t.TempDir(), "a")
	if err := os.WriteFile(f, raw, 0o600); err != nil {
		t.Fatal(err)
	}
	file, err := os.Open(f)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	index.f = file
	if err := index.index(t.Context(), 0, newMeter(Limits{})); err != nil {
		t.Fatal(err)
	}
	for name := range index.files {
		b, err := index.small(name, 1<<30)
		if err != nil {
			t.Fatal(err)
		}
		os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o755)
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// TestLoadOld has the form of Docker 1.10 to 24: a directory for each layer, links for those that come twice.
func TestLoadOld(t *testing.T) {
	layer := tarOf(t, fileE("etc/x", "x"))
	config := configOf(t, layer, layer)
	manifest := mustJSON(t, []dockerItem{{Config: "cfg.json", RepoTags: []string{"old:1"}, Layers: []string{"aa/layer.tar", "bb/layer.tar"}}})
	raw := tarOf(t, dirE("aa", 0o755), fileE("aa/VERSION", "1.0"), fileE("aa/layer.tar", string(layer)), dirE("bb", 0o755),
		linkE("bb/layer.tar", "../aa/layer.tar"), fileE("cfg.json", string(config)), fileE("manifest.json", string(manifest)))
	list, err := loadBytes(t, openStore(t), raw)
	if err != nil || len(list) != 1 || list[0].Image.ID != digestOf(config) || list[0].Names[0] != "old:1" {
		t.Errorf("got %v, %v", list, err)
	}
}

// configOf is a config for layers.
func configOf(t testing.TB, layers ...[]byte) []byte {
	var diffs []string
	for _, l := range layers {
		diffs = append(diffs, digestOf(l))
	}
	return mustJSON(t, map[string]any{
		"architecture": "amd64", "os": "linux", "config": map[string]any{"Cmd": []string{"sh"}},
		"rootfs": map[string]any{"type": "layers", "diff_ids": diffs},
	})
}

// TestLoadMoves has a name that another image has.
func TestLoadMoves(t *testing.T) {
	s := openStore(t)
	img := mustPullTars(t, s, tarOf(t, fileE("a", "a")))
	if err := s.Tag(img.ID, "app"); err != nil {
		t.Fatal(err)
	}
	file := saved(t, s, SaveOptions{}, "app")
	other := mustPullTars(t, s, tarOf(t, fileE("b", "b")))
	if err := s.Tag(other.ID, "app"); err != nil {
		t.Fatal(err)
	}
	list, err := loadFile(t, s, file)
	if err != nil || list[0].Moved["app:latest"] != other.ID {
		t.Errorf("got %+v, %v; want the name taken from %s", list, err, other.ID)
	}
}

// TestSaveDamaged wants no archive that looks whole of a layer that isn't what it was.
func TestSaveDamaged(t *testing.T) {
	s := openStore(t)
	img := mustPullTars(t, s, tarOf(t, fileE("f", "content")))
	if err := os.WriteFile(filepath.Join(s.root, img.Layers[0].Dir, "f"), []byte("CONTENT"), 0o644); err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	err := s.Save(t.Context(), &out, []string{img.ID}, SaveOptions{})
	if !errors.Is(err, ErrDigest) || !strings.Contains(err.Error(), "fsck") {
		t.Errorf("got %v, want a wrong digest and what mends it", err)
	}
	if _, err := loadBytes(t, openStore(t), out.Bytes()); err == nil {
		t.Error("what was written of it can be loaded")
	}
}

// TestLoadHostile has archives that lie. Nothing of them may stay.
func TestLoadHostile(t *testing.T) {
	layer := tarOf(t, fileE("f", "content"))
	config := configOf(t, layer)
	item := func(config, layer string, tags ...string) string {
		raw, _ := json.Marshal([]dockerItem{{Config: config, RepoTags: tags, Layers: []string{layer}}})
		return string(raw)
	}
	good := []e{fileE("c.json", string(config)), fileE("l.tar", string(layer))}
	with := func(more ...e) []byte { return tarOf(t, append(append([]e{}, good...), more...)...) }
	docker := func(config, layer string, tags ...string) []byte {
		return with(fileE("manifest.json", item(config, layer, tags...)))
	}
	alone := func(config, layer string) []byte {
		return tarOf(t, fileE("c.json", config), fileE("l.tar", layer), fileE("manifest.json", item("c.json", "l.tar")))
	}
	oci := func(text string, more ...e) []byte { return with(append(more, fileE("index.json", text))...) }
	x := digestOf([]byte("x"))
	cases := map[string]struct {
		raw  []byte
		want string
	}{
		"nothing":              {nil, "empty"},
		"no archive":           {bytes.Repeat([]byte("x"), 2000), "no archive of images"},
		"a file system":        {layer, "glassbox import"},
		"cut short":            {docker("c.json", "l.tar")[:1500], "cut short"},
		"manifest no JSON":     {with(fileE("manifest.json", "{")), "manifest.json"},
		"manifest an object":   {with(fileE("manifest.json", "{}")), "manifest.json"},
		"no images":            {with(fileE("manifest.json", "[]")), "no image"},
		"config outside":       {docker("../../../etc/passwd", "l.tar"), "lacks"},
		"config absolute":      {docker("/etc/passwd", "l.tar"), "lacks"},
		"layer outside":        {docker("c.json", "../../../../etc/passwd"), "lacks"},
		"layer by a link":      {with(linkE("s", "/etc/passwd"), fileE("manifest.json", item("c.json", "s"))), "lacks"},
		"layer by hard link":   {with(hardE("s", "/etc/passwd"), fileE("manifest.json", item("c.json", "s"))), "lacks"},
		"links in a ring":      {with(linkE("s", "t"), linkE("t", "s"), fileE("manifest.json", item("c.json", "s"))), "lacks"},
		"layer another":        {alone(string(config), string(tarOf(t, fileE("f", "other")))), "another digest"},
		"layer no archive":     {alone(string(config), strings.Repeat("x", 3000)), "cannot be unpacked"},
		"too few layers":       {with(fileE("manifest.json", `[{"Config":"c.json","Layers":[]}]`)), "1 diff IDs for 0 layers"},
		"twice manifest":       {with(fileE("manifest.json", item("c.json", "l.tar")), fileE("./manifest.json", "[]")), "twice"},
		"twice layer":          {with(fileE("l.tar", "other"), fileE("manifest.json", item("c.json", "l.tar"))), "twice"},
		"name with a newline":  {docker("c.json", "l.tar", "a\nb"), "invalid"},
		"name upper case":      {docker("c.json", "l.tar", "UPPER"), "lower case"},
		"NUL in a name":        {docker("c.json", "l.tar", "a\x00b"), "NUL"},
		"config not JSON":      {alone("xx", string(layer)), "JSON"},
		"old without manifest": {with(fileE("repositories", "{}")), "before 1.10"},
		"index no index":       {oci(`{"schemaVersion":2,"config":{},"layers":[]}`), "manifest"},
		"index of nothing":     {oci(`{"schemaVersion":2,"manifests":[]}`), "no image"},
		"blob missing":         {oci(`{"schemaVersion":2,"manifests":[{"size":3,"digest":"` + x + `"}]}`), "lacks"},
		"blob wrong": {oci(`{"schemaVersion":2,"manifests":[{"size":3,"digest":"`+x+`"}]}`,
			fileE(blobFile(x), "yyy")), "another content"},
		"digest as a path": {oci(`{"schemaVersion":2,"manifests":[{"size":3,"digest":"sha256:../../etc/passwd"}]}`), "digest"},
		"xz":               {append([]byte{0xfd, '7', 'z', 'X', 'Z', 0}, make([]byte, 100)...), "xz -dc"},
		"gzip of garbage":  {gz([]byte("garbage")), "cut short"},
		"half a gzip":      {gz(with())[:60], ""},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			s := openStore(t)
			list, err := loadBytes(t, s, c.raw)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, %v; want an error about %q", list, err, c.want)
			}
			nothingLeft(t, s)
			if m, _ := filepath.Glob(s.path(".tmp-*")); len(m) > 0 {
				t.Errorf("left behind: %v", m)
			}
		})
	}
}
