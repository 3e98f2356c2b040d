package image

import (
	"context"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"glassbox/event"
)

// TestEvents: whoever changes images says so in Docker's words: who it happened to, by which name, with which labels.
func TestEvents(t *testing.T) {
	r, s := newRegistry(t), openStore(t)
	s.State = t.TempDir()
	r.labels = map[string]string{"maker": "me"}
	r.push(t, "a", "latest", amd64(), layerData{tar: tarOf(t, fileE("f", "1"))})
	pulled := r.host() + "/a"
	img, err := s.Pull(t.Context(), pulled, quick())
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "f")
	if err := os.WriteFile(file, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	id := img.ID
	pull := []string{"pull " + pulled + ":latest maker=me name=" + pulled}
	tag := []string{"tag " + id + " maker=me name=mine:1"}
	untag := "untag " + id + " maker=me name=" + id
	gone := "delete " + id + " name=" + id
	if d := cmp.Diff(pull, told(t, s)); d != "" {
		t.Error(d)
	}
	expect := func(what string, err error, want ...string) {
		t.Helper()
		if err != nil {
			t.Fatal(what, err)
		}
		if d := cmp.Diff(want, told(t, s)); d != "" {
			t.Errorf("%s: %s", what, d)
		}
		if err := os.Remove(event.Journal(s.State).Path); err != nil {
			t.Fatal(err)
		}
	}
	again := func() error { _, err := s.Pull(t.Context(), pulled, quick()); return err }
	remove := func(ref string, force bool) error { _, err := s.Remove(ref, RemoveOptions{Force: force}); return err }
	expect("a second pull", again(), pull[0], pull[0])
	expect("tag", s.Tag(pulled, "mine:1"), tag...)
	expect("tag of what has the name", s.Tag(pulled, "mine:1"), tag...)
	expect("one name of two", remove("mine:1", false), untag)
	expect("the last name, and the digest with it", remove(pulled, false), untag, gone)
	expect("pull", again(), pull...)
	expect("by ID, the tag and the digest", remove(id, false), untag, untag, gone)

	made, err := s.FromHost(t.Context(), "own", FromHostOptions{Files: []string{file}})
	if err != nil {
		t.Fatal(err)
	}
	expect("from host", nil, "tag "+made.ID+" name=own:latest", "import "+made.ID+" name="+made.ID)

	if remove("no-such", false) == nil || s.Tag("no-such", "x") == nil || len(told(t, s)) > 0 {
		t.Errorf("what failed is told: %v", told(t, s))
	}
}

// told are the events in a store's journal: action, ID, attributes.
func told(t *testing.T, s *Store) (out []string) {
	t.Helper()
	err := event.Journal(s.State).Read(context.Background(), false, func(line []byte) error {
		e, ok := event.Parse(line)
		if !ok || e.Type != event.Image {
			t.Errorf("event %s", line)
		}
		words := []string{e.Action, e.Actor.ID}
		for _, k := range slices.Sorted(maps.Keys(e.Actor.Attributes)) {
			words = append(words, k+"="+e.Actor.Attributes[k])
		}
		out = append(out, strings.Join(words, " "))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}
