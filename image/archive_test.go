package image

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// gnuTar packs a directory with the machine's tar.
func gnuTar(t *testing.T, args ...string) []byte {
	t.Helper()
	out, err := exec.Command("tar", append([]string{"-c"}, args...)...).Output()
	if err != nil {
		t.Fatalf("tar %v: %v", args, err)
	}
	return out
}

// oddTars are archives whose bytes say more than what unpacking keeps.
func oddTars(t *testing.T) map[string][]byte {
	dir := t.TempDir()
	long := strings.Repeat("d", 120) + "/" + strings.Repeat("f", 130)
	write := func(name, body string) {
		p := filepath.Join(dir, name)
		os.MkdirAll(filepath.Dir(p), 0o755)
		if err := os.WriteFile(p, []byte(body), 0o640); err != nil {
			t.Fatal(err)
		}
	}
	write("a/one", "1\n")
	write("a/"+long, strings.Repeat("long ", 5000))
	write("empty", "")
	f, err := os.Create(filepath.Join(dir, "holes"))
	if err != nil {
		t.Fatal(err)
	}
	f.WriteAt([]byte("begin"), 0)
	f.WriteAt([]byte("middle"), 1<<20)
	f.Truncate(3 << 20)
	f.Close()
	os.Symlink("a/one", filepath.Join(dir, "link"))
	os.Link(filepath.Join(dir, "a/one"), filepath.Join(dir, "hard"))
	plain := tarOf(t, dirE("etc", 0o755), fileE("etc/x", "hello"), fileE("etc/y", strings.Repeat("y", 1000)))
	return map[string][]byte{
		"plain":            plain,
		"gnu":              gnuTar(t, "--format=gnu", "-C", dir, "."),
		"gnu sparse":       gnuTar(t, "--format=gnu", "--sparse", "-C", dir, "."),
		"pax":              gnuTar(t, "--format=pax", "-C", dir, "."),
		"pax sparse 0.0":   gnuTar(t, "--format=pax", "--sparse", "--sparse-version=0.0", "-C", dir, "."),
		"pax sparse 0.1":   gnuTar(t, "--format=pax", "--sparse", "--sparse-version=0.1", "-C", dir, "."),
		"pax sparse 1.0":   gnuTar(t, "--format=pax", "--sparse", "--sparse-version=1.0", "-C", dir, "."),
		"ustar":            gnuTar(t, "--format=ustar", "--exclude=ddd*", "-C", dir, "."),
		"v7":               gnuTar(t, "--format=v7", "--exclude=ddd*", "-C", dir, "."),
		"blocking":         gnuTar(t, "--format=gnu", "-b", "200", "-C", dir, "."),
		"no end":           plain[:len(plain)-1024],
		"one end block":    plain[:len(plain)-512],
		"trailing garbage": append(bytes.Clone(plain), bytes.Repeat([]byte("garbage!"), 20000)...),
		"global header":    tarOf(t, e{name: "g", typ: tar.TypeXGlobalHeader, pax: map[string]string{"comment": "x"}}, fileE("a", "b")),
		"unused content": tarOf(t, e{name: ".wh..wh.plnk/1.2", body: "aufs", mode: 0o600}, e{name: "a/.wh.gone", body: "mark"},
			fileE("a/b", "c")),
		"dirt in padding":  dirty(plain),
		"twice":            tarOf(t, fileE("x", "first"), fileE("y", "other"), fileE("x", "second, longer"), fileE("x", "third")),
		"twice, sparse":    gnuTar(t, "--format=gnu", "--sparse", "-C", dir, "holes", "holes"),
		"file, then link":  tarOf(t, fileE("x", "first"), linkE("x", "y"), fileE("y", "end")),
		"twice by a link":  tarOf(t, dirE("d", 0o755), linkE("l", "d"), fileE("l/x", "one"), fileE("d/x", "two"), fileE("l/x", "three")),
		"whiteouts":        tarOf(t, dirE("w", 0o755), e{name: "w/.wh..wh..opq", mode: 0o600}, e{name: ".wh.v", mode: 0o600}, fileE("w/z", "z")),
		"dots and slashes": tarOf(t, fileE("./././a", "1"), fileE("/abs", "2"), fileE("b//c", "3")),
	}
}

// dirty puts bytes where tar writes zeros: behind a file's content, and in the reserved field of a header.
func dirty(plain []byte) []byte {
	b := bytes.Clone(plain)
	b[512+512+100] = 'D' // behind "hello"
	return b
}

// TestArchive has each odd archive as a layer, alone, on top of another and beneath one, and wants its bytes back.
func TestArchive(t *testing.T) {
	for name, odd := range oddTars(t) {
		t.Run(name, func(t *testing.T) {
			base := tarOf(t, dirE("usr/lib", 0o755), linkE("lib", "usr/lib"), dirE("a", 0o700), fileE("usr/lib/base", "b"))
			for _, tars := range [][][]byte{{odd}, {base, odd}, {odd, base}, {odd, odd}} {
				s := openStore(t)
				img := mustPullTars(t, s, tars...)
				list, err := img.archives()
				if err != nil {
					t.Fatal(err)
				}
				for i, a := range list {
					var got bytes.Buffer
					if err := a.writeTo(t.Context(), &got); err != nil {
						t.Errorf("layer %d of %d: %v", i, len(tars), err)
					}
					if !bytes.Equal(got.Bytes(), tars[i]) {
						t.Errorf("layer %d of %d: %d bytes that differ from the %d that came", i, len(tars), got.Len(), len(tars[i]))
					}
					if a.size != int64(len(tars[i])) {
						t.Errorf("layer %d of %d: size %d, want %d", i, len(tars), a.size, len(tars[i]))
					}
				}
			}
		})
	}
}

// TestArchiveOfVariant has files that a variant moves through a link of the layer beneath.
func TestArchiveOfVariant(t *testing.T) {
	base := tarOf(t, dirE("usr/lib", 0o755), linkE("lib", "usr/lib"), dirE("tmp", 0o1777))
	top := tarOf(t, fileE("lib/moved", "moved by the link"), fileE("tmp/x", "implied"), fileE("usr/lib/y", "there"))
	s := openStore(t)
	img := mustPullTars(t, s, base, top)
	list, err := img.archives()
	if err != nil {
		t.Fatal(err)
	}
	var got bytes.Buffer
	if err := list[1].writeTo(t.Context(), &got); err != nil || !bytes.Equal(got.Bytes(), top) {
		t.Errorf("the archive differs: %v", err)
	}
}

// TestNoArchive has archives that can't be given back, and stores that were damaged: that is said, and no other bytes are given.
func TestNoArchive(t *testing.T) {
	one := func(t *testing.T, raw []byte, damage func(s *Store, img *Image)) error {
		s := openStore(t)
		img := mustPullTars(t, s, raw)
		damage(s, img)
		list, err := img.archives()
		if err != nil {
			return err
		}
		var got bytes.Buffer
		return list[0].writeTo(t.Context(), &got)
	}
	none := func(*Store, *Image) {}
	plain := tarOf(t, dirE("d", 0o755), fileE("d/f", "content"))
	record := func(s *Store, img *Image) string { return s.path("tars", hexOf(img.Layers[0].DiffID)) }
	file := func(s *Store, img *Image) string { return filepath.Join(s.root, img.Layers[0].Dir, "d/f") }
	for name, c := range map[string]struct {
		raw    []byte
		damage func(s *Store, img *Image)
		want   error
	}{
		"a directory that a file replaces": {tarOf(t, dirE("d", 0o755), fileE("d/f", "lost"), fileE("d", "file")), none, ErrNoArchive},
		"a linked file, taken away twice":  {tarOf(t, fileE("f", "x"), hardE("g", "f"), fileE("f", "y"), fileE("g", "z")), none, ErrNoArchive},
		"no record":                        {plain, func(s *Store, i *Image) { os.Remove(record(s, i)) }, ErrNoArchive},
		"half a record":                    {plain, func(s *Store, i *Image) { os.Truncate(record(s, i), 40) }, ErrNoArchive},
		"an empty record":                  {plain, func(s *Store, i *Image) { os.Truncate(record(s, i), 0) }, ErrNoArchive},
		"garbage": {plain, func(s *Store, i *Image) {
			os.WriteFile(record(s, i), bytes.Repeat([]byte("x"), 300), 0o600)
		}, ErrNoArchive},
		"a file altered": {plain, func(s *Store, i *Image) {
			os.WriteFile(file(s, i), []byte("CONTENT"), 0o644)
		}, ErrDigest},
		"a file shortened": {plain, func(s *Store, i *Image) { os.Truncate(file(s, i), 3) }, ErrNoArchive},
		"a file gone":      {plain, func(s *Store, i *Image) { os.Remove(file(s, i)) }, ErrNoArchive},
		"a link in its place": {plain, func(s *Store, i *Image) {
			p := file(s, i)
			os.Remove(p)
			os.Symlink("/etc/hostname", p)
		}, ErrNoArchive},
	} {
		t.Run(name, func(t *testing.T) {
			err := one(t, c.raw, c.damage)
			if !errors.Is(err, c.want) {
				t.Errorf("got %v, want %v", err, c.want)
			}
		})
	}
}

// TestArchiveGoes checks that records go with the last image that needs them.
func TestArchiveGoes(t *testing.T) {
	s := openStore(t)
	shared := tarOf(t, fileE("shared", "s"))
	img := mustPullTars(t, s, shared, tarOf(t, fileE("own", "1")), tarOf(t))
	other := mustPullTars(t, s, shared)
	count := func() int {
		m, _ := filepath.Glob(s.path("tars", "*"))
		return len(m)
	}
	if count() != 3 {
		t.Errorf("%d records, want 3", count())
	}
	if _, err := s.Collect(CollectOptions{}); err != nil || count() != 3 {
		t.Errorf("after Collect %d records, %v; want 3", count(), err)
	}
	for i, ref := range []string{img.ID, other.ID} {
		if _, err := s.Remove(ref, RemoveOptions{Force: true}); err != nil {
			t.Fatal(err)
		}
		if want := 1 - i; count() != want {
			t.Errorf("%d records after removal %d, want %d", count(), i, want)
		}
	}
	os.WriteFile(s.path("tars", fmt.Sprintf("%064x", 7)), nil, 0o600)
	if _, err := s.Collect(CollectOptions{}); err != nil || count() != 0 {
		t.Errorf("after Collect %d records, %v; want none", count(), err)
	}
}

// TestArchiveOfOrphan: a pull was ended before its image was written. What it has completed stays for the next one, with the records of
// the archives, also of a layer that is there as a variant only; and goes with it.
func TestArchiveOfOrphan(t *testing.T) {
	needRoot(t)
	s := openStore(t)
	tars := [][]byte{tarOf(t, dirE("tmp", 0o1777)), tarOf(t, fileE("tmp/x", "implied"))}
	end := func(img *Image) {
		if err := errors.Join(os.RemoveAll(s.path("images", hexOf(img.ID))), os.Remove(s.path("names.json"))); err != nil {
			t.Fatal(err)
		}
	}
	end(mustPullTars(t, s, tars...))
	if c, err := s.Collect(CollectOptions{OrphanAge: time.Hour}); err != nil || c.Orphans != 0 {
		t.Fatalf("%+v, %v", c, err)
	}
	img := mustPullTars(t, s, tars...)
	if _, err := img.PlainManifest(); err != nil {
		t.Error(err)
	}
	end(img)
	if c, err := s.Collect(CollectOptions{}); err != nil || c.Orphans != 2 {
		t.Fatalf("%+v, %v", c, err)
	}
	if left, err := os.ReadDir(s.path("tars")); err != nil || len(left) != 0 {
		t.Errorf("records of archives are left: %v, %v", left, err)
	}
}
