package image

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// verb is one thing that is done to a store, by words that a process of its own can be given.
func verb(ctx *testing.T, words []string) error {
	s, err := Open(words[1])
	if err != nil {
		return err
	}
	c := ctx.Context()
	switch words[0] {
	case "load", "import":
		f, err := os.Open(words[2])
		if err != nil {
			return err
		}
		defer f.Close()
		if words[0] == "load" {
			_, err = s.Load(c, f, LoadOptions{})
			return err
		}
		_, err = s.Import(c, f, ImportOptions{Name: "imported"})
		return err
	case "commit":
		base, err := s.Resolve("base")
		if err != nil {
			return err
		}
		_, err = s.Commit(c, CommitOptions{Name: "committed", Base: base, Dirs: words[2:]})
		return err
	case "save":
		return s.Save(c, io.Discard, []string{"base"}, SaveOptions{Compress: "gzip"})
	case "push":
		_, err := s.Push(c, words[2], quick())
		return err
	}
	return errors.New("no such verb")
}

func TestHelperVerb(t *testing.T) {
	if words := os.Getenv("GLASSBOX_TEST_VERB"); words != "" { // run by TestKilled, as a process of its own
		if err := verb(t, strings.Split(words, "\n")); err != nil {
			t.Fatal(err)
		}
	}
}

// TestKilled ends each verb by SIGKILL, at any moment: what is left counts for nothing, and the verb works the next time.
func TestKilled(t *testing.T) {
	needRoot(t)
	to := newRegistry(t)
	s := openStore(t)
	var many []e
	for i := range 200 {
		many = append(many, fileE("d/"+string(rune('a'+i%26))+strings.Repeat("x", i/26), noise(4000+i)))
	}
	base := mustPullTars(t, s, append([][]byte{tarOf(t, many...)}, threeLayers(t)...)...)
	push := to.host() + "/app:1"
	for _, name := range []string{"base", push} {
		if err := s.Tag(base.ID, name); err != nil {
			t.Fatal(err)
		}
	}
	other := openStore(t)
	loaded := mustPullTars(t, other, tarOf(t, many[100:]...), tarOf(t, fileE("other", noise(300_000))))
	archive := saved(t, other, SaveOptions{}, loaded.ID)
	upper := t.TempDir()
	for _, f := range many[:100] {
		os.MkdirAll(filepath.Join(upper, "d"), 0o755)
		os.WriteFile(filepath.Join(upper, f.name), []byte(f.body), 0o644)
	}
	plain := filepath.Join(t.TempDir(), "plain.tar")
	os.WriteFile(plain, tarOf(t, many[50:]...), 0o600)
	for _, words := range [][]string{
		{"load", s.root, archive}, {"import", s.root, plain}, {"commit", s.root, upper}, {"save", s.root}, {"push", s.root, push},
	} {
		t.Run(words[0], func(t *testing.T) {
			run := func(after time.Duration) (time.Duration, error) {
				cmd := exec.Command(os.Args[0], "-test.run=^TestHelperVerb$")
				cmd.Env = append(os.Environ(), "GLASSBOX_TEST_VERB="+strings.Join(words, "\n"))
				var out bytes.Buffer
				cmd.Stdout, cmd.Stderr = &out, &out
				begin := time.Now()
				if err := cmd.Start(); err != nil {
					return 0, err
				}
				if after > 0 {
					time.AfterFunc(after, func() { cmd.Process.Kill() })
				}
				err := cmd.Wait()
				if err != nil && after == 0 {
					err = errors.New(out.String())
				}
				return time.Since(begin), err
			}
			took, err := run(0)
			if err != nil {
				t.Fatal(err)
			}
			killed := 0
			for range 12 {
				if words[0] == "push" {
					to.mu.Lock()
					clear(to.blobs)
					to.mu.Unlock()
				}
				for _, name := range []string{"imported", "committed", loaded.ID} {
					s.Remove(name, RemoveOptions{Force: true})
				}
				if _, err := run(took/20 + rand.N(took)); err != nil {
					killed++
				}
				if _, err := s.Collect(CollectOptions{}); err != nil {
					t.Fatal(err)
				}
				out, err := s.Check(t.Context(), CheckOptions{Found: func(f Finding) { t.Errorf("%+v", f) }})
				if err != nil || out.Found > 0 {
					t.Fatalf("after a kill: %+v, %v", out, err)
				}
				for _, pattern := range []string{"layers/*.*", "image/.tmp-*", "image/*/.*"} {
					if m, _ := filepath.Glob(filepath.Join(s.root, pattern)); len(m) > 0 {
						t.Errorf("left behind: %v", m)
					}
				}
			}
			if killed == 0 {
				t.Error("nothing was killed")
			}
			if _, err := run(0); err != nil {
				t.Errorf("the next time: %v", err)
			}
		})
	}
}

// TestDiskFull has a store on a file system that is too small: one clear error, nothing half left, and the store goes on working.
func TestDiskFull(t *testing.T) {
	needRoot(t)
	small := t.TempDir()
	if err := unix.Mount("glassbox-test", small, "tmpfs", 0, "size=6m"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Unmount(small, unix.MNT_DETACH) })
	s, err := Open(filepath.Join(small, "store"))
	if err != nil {
		t.Fatal(err)
	}
	from := openStore(t)
	large := tarOf(t, fileE("large", noise(9<<20)))
	img := mustPullTars(t, from, large)
	archive := saved(t, from, SaveOptions{}, img.ID)
	if _, err := s.Import(t.Context(), bytes.NewReader(tarOf(t, fileE("a", "a"))), ImportOptions{Name: "base"}); err != nil {
		t.Fatal(err)
	}
	upper := t.TempDir()
	os.WriteFile(filepath.Join(upper, "large"), []byte(noise(9<<20)), 0o600)
	r := newRegistry(t)
	r.push(t, "x", "latest", amd64(), layerData{tar: large})
	whole, err := os.ReadFile(archive)
	if err != nil {
		t.Fatal(err)
	}
	for name, do := range map[string]func() error{
		"pull":   func() error { _, err := s.Pull(t.Context(), r.host()+"/x", quick()); return err },
		"load":   func() error { _, err := loadFile(t, s, archive); return err },
		"pipe":   func() error { _, err := loadBytes(t, s, whole); return err },
		"import": func() error { return verb(t, []string{"import", s.root, archive}) },
		"commit": func() error { return verb(t, []string{"commit", s.root, upper}) },
		"save": func() error {
			f, err := os.Create(filepath.Join(small, "saved"))
			if err != nil {
				return err
			}
			defer os.Remove(f.Name())
			defer f.Close()
			return from.Save(t.Context(), f, []string{img.ID}, SaveOptions{})
		},
	} {
		t.Run(name, func(t *testing.T) {
			err := do()
			if !errors.Is(err, unix.ENOSPC) {
				t.Errorf("got %v, want that the disk is full", err)
			}
			if m, _ := filepath.Glob(filepath.Join(s.root, "layers/*.*")); len(m) > 0 {
				t.Errorf("left behind: %v", m)
			}
			if out, err := s.Check(t.Context(), CheckOptions{}); err != nil || out.Found > 0 {
				t.Errorf("the store: %+v, %v", out, err)
			}
			if _, err := s.Import(t.Context(), bytes.NewReader(tarOf(t, fileE("b", name))), ImportOptions{Name: "small"}); err != nil {
				t.Errorf("what has room: %v", err)
			}
		})
	}
}

// FuzzLoad loads anything: what comes in is an image that can be saved, or an error that leaves nothing.
func FuzzLoad(f *testing.F) {
	layer := tarOf(f, dirE("d", 0o755), fileE("d/f", "content"))
	config := configOf(f, layer)
	item := mustJSON(f, []dockerItem{{Config: "c.json", RepoTags: []string{"a:1"}, Layers: []string{"l.tar"}}})
	index := []byte(`{"schemaVersion":2,"manifests":[{"mediaType":"application/vnd.oci.image.manifest.v1+json","size":2,"digest":"` +
		digestOf([]byte("{}")) + `"}]}`)
	f.Add(tarOf(f, fileE("c.json", string(config)), fileE("l.tar", string(layer)), fileE("manifest.json", string(item))))
	f.Add(tarOf(f, fileE("index.json", string(index)), fileE(blobFile(digestOf([]byte("{}"))), "{}")))
	f.Add(gz(layer))
	f.Fuzz(func(t *testing.T, raw []byte) {
		s := openStore(t)
		name := filepath.Join(t.TempDir(), "a")
		if err := os.WriteFile(name, raw, 0o600); err != nil {
			t.Fatal(err)
		}
		list, err := loadFile(t, s, name)
		if err != nil && len(list) == 0 {
			nothingLeft(t, s)
		}
		for _, l := range list {
			if err := s.Save(t.Context(), io.Discard, []string{l.Image.ID}, SaveOptions{}); err != nil && !errors.Is(err, ErrNoArchive) {
				t.Error(err)
			}
		}
	})
}
