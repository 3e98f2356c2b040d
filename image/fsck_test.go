package image

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

type (
	T      = testing.T
	damage = func(t *T, s *Store, i *Image)
)

// TestCheck damages a store in each way that a disk or a person may, and mends it: with the registry, and without.
func TestCheck(t *testing.T) {
	layer := func(s *Store, img *Image, name string) string { return filepath.Join(s.root, img.Layers[0].Dir, name) }
	write := func(t *testing.T, name, text string) {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	record := func(s *Store, img *Image) string { return s.path("layers", filepath.Base(img.Layers[0].Dir)+".json") }
	of := func(s *Store, img *Image, file string) string { return s.path("images", hexOf(img.ID), file) }
	for name, c := range map[string]struct {
		damage damage
		want   string
		stays  bool // also without a registry
		minor  bool
	}{
		"a file altered":        {func(t *T, s *Store, i *Image) { write(t, layer(s, i, "d/f"), "CONTENT") }, "aren't what", false, false},
		"a file shortened":      {func(t *T, s *Store, i *Image) { write(t, layer(s, i, "d/f"), "") }, "0 bytes, and had 7", false, false},
		"a file gone":           {func(t *T, s *Store, i *Image) { os.Remove(layer(s, i, "d/f")) }, "can't be read", false, false},
		"a layer gone":          {func(t *T, s *Store, i *Image) { os.RemoveAll(layer(s, i, "")) }, "directory is missing", false, false},
		"a layer's record gone": {func(t *T, s *Store, i *Image) { os.Remove(record(s, i)) }, "the record of its layer", false, false},
		"a record of garbage":   {func(t *T, s *Store, i *Image) { write(t, record(s, i), "\x00\x00") }, "damaged", false, false},
		"an empty record":       {func(t *T, s *Store, i *Image) { write(t, record(s, i), "") }, "damaged", false, false},
		"another's record":      {func(t *T, s *Store, i *Image) { write(t, record(s, i), "{}") }, "another layer", false, false},
		"the config gone":       {func(t *T, s *Store, i *Image) { os.Remove(of(s, i, "config.json")) }, "missing", false, false},
		"the config altered":    {func(t *T, s *Store, i *Image) { write(t, of(s, i, "config.json"), "{}") }, "another one", false, false},
		"the manifest altered":  {func(t *T, s *Store, i *Image) { write(t, of(s, i, "manifest.json"), "{}") }, "another one", false, false},
		"image.json cut short":  {func(t *T, s *Store, i *Image) { os.Truncate(of(s, i, "image.json"), 30) }, "damaged", false, false},
		"image.json empty":      {func(t *T, s *Store, i *Image) { os.Truncate(of(s, i, "image.json"), 0) }, "damaged", false, false},
		"the directory empty": {func(t *T, s *Store, i *Image) {
			os.RemoveAll(of(s, i, ""))
			os.Mkdir(of(s, i, ""), 0o700)
		}, "missing", false, false},
		"store.json gone":       {func(t *T, s *Store, i *Image) { os.Remove(s.path("store.json")) }, "missing", true, false},
		"names of garbage":      {func(t *T, s *Store, i *Image) { write(t, s.path("names.json"), "garbage") }, "damaged", true, false},
		"names cut short":       {func(t *T, s *Store, i *Image) { os.Truncate(s.path("names.json"), 20) }, "damaged", true, false},
		"store.json of garbage": {func(t *T, s *Store, i *Image) { write(t, s.path("store.json"), "{") }, "damaged", true, false},
		"store.json empty":      {func(t *T, s *Store, i *Image) { write(t, s.path("store.json"), "") }, "damaged", true, false},
		"no archive":            {func(t *T, s *Store, i *Image) { os.RemoveAll(s.path("tars")) }, "isn't kept", true, true},
		"half filled": {func(t *T, s *Store, i *Image) {
			os.MkdirAll(filepath.Join(s.layersDir(), "in.123", "x"), 0o700)
			write(t, s.path("images", ".tmp-1"), "x")
		}, "were killed", true, true},
		"a name of nothing": {func(t *T, s *Store, i *Image) {
			n, _ := s.readNames()
			n.Tags["docker.io/library/ghost:latest"] = digestOf([]byte("ghost"))
			s.writeNames(n)
		}, "isn't there", true, false},
	} {
		for _, reachable := range []bool{true, false} {
			t.Run(name+map[bool]string{true: "", false: ", no registry"}[reachable], func(t *testing.T) {
				r := newRegistry(t)
				s, img := pulledFrom(t, r, tarOf(t, dirE("d", 0o755), fileE("d/f", "content")), tarOf(t, fileE("g", "g")))
				if err := s.Tag(img.ID, "mine:1"); err != nil {
					t.Fatal(err)
				}
				if out, err := s.Check(t.Context(), CheckOptions{}); err != nil || out.Found != 0 || out.Images != 1 || out.Layers != 2 {
					t.Fatalf("a sound store: %+v, %v", out, err)
				}
				c.damage(t, s, img)
				if !reachable {
					r.Close()
				}
				var found []string
				o := CheckOptions{Found: func(f Finding) { found = append(found, f.What+": "+f.Text) }, Pull: quick()}
				out, err := s.Check(t.Context(), o)
				if err != nil || out.Found == 0 || out.Mended != 0 || !strings.Contains(strings.Join(found, "\n"), c.want) {
					t.Errorf("found %q, %+v, %v; want %q", found, out, err, c.want)
				}
				again, err := s.Check(t.Context(), o)
				if err != nil || again != out {
					t.Errorf("looking changed something: %+v, then %+v, %v", out, again, err)
				}
				o.Repair = true
				if out, err = s.Check(t.Context(), o); err != nil || out.Mended == 0 && !(c.minor && !reachable) {
					t.Errorf("repair: %+v, %v", out, err)
				}
				if out, err := s.Check(t.Context(), CheckOptions{}); err != nil || out.Found != 0 && !(c.minor && !reachable) {
					t.Errorf("after the repair: %+v, %v", out, err)
				}
				got, err := s.Resolve(img.ID)
				if (err == nil) != (reachable || c.stays) {
					t.Errorf("the image is %v, %v", got, err)
				}
				if err == nil && !strings.Contains(name, "names") {
					if _, err := s.Resolve("mine:1"); err != nil {
						t.Errorf("its name: %v", err)
					}
				}
			})
		}
	}
}

// TestCheckUnfinished: a store whose making was ended, by a kill or by the power, has lost nothing; nobody could write to it yet.
func TestCheckUnfinished(t *testing.T) {
	s := openStore(t)
	if _, err := s.prepare(); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(s.path("store.json")); err != nil { // which is what is made last
		t.Fatal(err)
	}
	found := 0
	_, err := s.Check(t.Context(), CheckOptions{Found: func(f Finding) {
		found++
		if !f.Minor {
			t.Errorf("%s: %s", f.What, f.Text)
		}
	}})
	if err != nil || found == 0 {
		t.Errorf("%d findings, %v", found, err)
	}
	mustPullTars(t, s, tarOf(t, fileE("f", "content")))
}

// TestCheckInUse leaves alone what containers use, also by another image with the same layer.
func TestCheckInUse(t *testing.T) {
	s := openStore(t)
	shared := tarOf(t, fileE("f", "content"))
	one := mustPullTars(t, s, shared)
	two := mustPullTars(t, s, shared, tarOf(t, fileE("g", "g")))
	if err := os.WriteFile(filepath.Join(s.root, one.Layers[0].Dir, "f"), []byte("CONTENT"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, used := range []string{one.ID, two.ID} {
		inUse := func(id string) []string {
			if id == used {
				return []string{"box"}
			}
			return nil
		}
		out, err := s.Check(t.Context(), CheckOptions{Repair: true, InUse: inUse, Pull: quick()})
		if err != nil || out.Found != 2 || out.Mended != 0 {
			t.Errorf("got %+v, %v; want two findings and nothing done", out, err)
		}
		if _, err := os.Stat(filepath.Join(s.root, one.Layers[0].Dir, "f")); err != nil {
			t.Errorf("the layer was touched: %v", err)
		}
	}
}
