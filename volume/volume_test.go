package volume

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

func newStore(t testing.TB) Store {
	root := t.TempDir()
	s := Of(root, "")
	for _, dir := range []string{s.Dir, s.Containers} {
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	return s
}

func (s Store) container(t testing.TB, id string) string {
	if err := os.Mkdir(filepath.Join(s.Containers, id), 0o700); err != nil {
		t.Fatal(err)
	}
	return id
}

func TestNames(t *testing.T) {
	for _, name := range []string{"aa", "a.b", "A-_9", strings.Repeat("f", 64), strings.Repeat("x", 255)} {
		if err := CheckName(name); err != nil {
			t.Errorf("%q is refused: %v", name, err)
		}
	}
	s := newStore(t)
	for _, name := range []string{
		"", "a", ".", "..", ".new", "a/b", "/etc", "../x", "a b", "a\x00b", "-a", "_a", "é", "a\nb", strings.Repeat("x", 256), "a:b",
	} {
		if err := CheckName(name); !errors.Is(err, ErrInvalid) {
			t.Errorf("%q is a name: %v", name, err)
		}
		if _, _, err := s.Create(Volume{Name: name}); err == nil {
			t.Errorf("volume %q is made", name)
		}
		if _, err := s.Get(name); !errors.Is(err, ErrNotFound) {
			t.Errorf("get %q: %v", name, err)
		}
		if err := s.Remove(name); !errors.Is(err, ErrNotFound) {
			t.Errorf("remove %q: %v", name, err)
		}
	}
	if entries, _ := os.ReadDir(s.Dir); len(entries) > 0 {
		t.Errorf("left: %v", entries)
	}
}

func TestOptions(t *testing.T) {
	for _, o := range []map[string]string{
		nil,
		{"type": "tmpfs", "device": "tmpfs", "o": "size=1m"},
		{"type": "none", "device": "/srv", "o": "bind"},
		{"type": "nfs", "device": ":/x"},
	} {
		if err := CheckOptions(o); err != nil {
			t.Errorf("%v: %v", o, err)
		}
	}
	for _, o := range []map[string]string{
		{"type": "tmpfs"},
		{"device": "/srv"},
		{"o": "bind"},
		{"size": "1g"},
		{"taste": "sweet"},
		{"type": "none", "device": "/x\x00", "o": "bind"},
		{"": "x"},
	} {
		if err := CheckOptions(o); !errors.Is(err, ErrInvalid) {
			t.Errorf("%v is accepted: %v", o, err)
		}
	}
}

// TestManyWantOne: of 16 that want a volume one makes it, all use it, and nobody who removes it meanwhile takes it from one who has it.
func TestManyWantOne(t *testing.T) {
	s := newStore(t)
	var mu sync.Mutex
	var all sync.WaitGroup
	made, removed := 0, 0
	for i := range 16 {
		id := s.container(t, fmt.Sprintf("c%d", i))
		all.Go(func() {
			got, err := s.Use(id, []Want{{Volume: Volume{Name: "data"}}})
			if err != nil {
				t.Error(err)
				return
			}
			if _, err := os.Stat(s.Data("data")); err != nil {
				t.Errorf("%s is without its volume: %v", id, err)
			}
			mu.Lock()
			made += len(got)
			mu.Unlock()
		})
		all.Go(func() {
			if err := s.Remove("data"); err == nil {
				mu.Lock()
				removed++
				mu.Unlock()
			} else if !errors.Is(err, ErrInUse) && !errors.Is(err, ErrNotFound) {
				t.Error(err)
			}
		})
	}
	all.Wait()
	users, err := s.Users("data")
	if err != nil || len(users) != 16 || made != 1 || removed != 0 {
		t.Errorf("made %d times, removed %d times, %d users, %v", made, removed, len(users), err)
	}
	if err := s.Remove("data"); !errors.Is(err, ErrInUse) {
		t.Errorf("a volume in use is removed: %v", err)
	}
	for i := range 16 {
		os.Remove(filepath.Join(s.Containers, fmt.Sprintf("c%d", i)))
	}
	if err := s.Remove("data"); err != nil {
		t.Errorf("its users are gone: %v", err)
	}
}

// TestKilled puts the directory in the states in which a killed process can leave it: each counts as no volume, and goes with the next
// command that makes or removes one.
func TestKilled(t *testing.T) {
	s := newStore(t)
	half := filepath.Join(s.Dir, ".new")
	gone := filepath.Join(s.Dir, ".gone-data-1")
	for _, dir := range []string{filepath.Join(half, dataDir), filepath.Join(gone, dataDir, "sub")} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(filepath.Join(s.Dir, "empty"), 0o700); err != nil { // not by this package
		t.Fatal(err)
	}
	if list, err := s.List(); err != nil || len(list) != 0 {
		t.Errorf("half a volume is listed: %v, %v", list, err)
	}
	if _, made, err := s.Create(Volume{Name: "data"}); err != nil || !made {
		t.Fatal(made, err)
	}
	if _, _, err := s.Create(Volume{Name: "empty"}); err == nil || !strings.Contains(err.Error(), "holds no volume") {
		t.Errorf("got %v", err)
	}
	entries, _ := os.ReadDir(s.Dir)
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	if !slices.Equal(names, []string{"data", "empty"}) {
		t.Errorf("there are %q", names)
	}
	// One whose files are being removed is left to whoever does so.
	os.Rename(s.Path("data"), gone)
	fd, err := unix.Open(gone, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Flock(fd, unix.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	s.Create(Volume{Name: "other"})
	if _, err := os.Stat(gone); err != nil {
		t.Errorf("somebody else's work is done: %v", err)
	}
	unix.Close(fd)
	s.Create(Volume{Name: "third"})
	if _, err := os.Stat(gone); err == nil {
		t.Error("what a killed process left stays")
	}
}

// TestDamaged: what is no volume.json is told, and harms no other volume.
func TestDamaged(t *testing.T) {
	s := newStore(t)
	for _, name := range []string{"good", "bad", "newer", "liar"} {
		if _, _, err := s.Create(Volume{Name: name}); err != nil {
			t.Fatal(err)
		}
	}
	for name, text := range map[string]string{
		"bad": "{", "newer": `{"version":99,"name":"newer"}`, "liar": `{"version":1,"name":"../../etc"}`,
	} {
		if err := os.WriteFile(filepath.Join(s.Path(name), configFile), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Get(name); err == nil || errors.Is(err, ErrNotFound) {
			t.Errorf("%s: got %v", name, err)
		}
	}
	list, err := s.List()
	if err == nil || len(list) != 1 || list[0].Name != "good" {
		t.Errorf("got %v, %v", list, err)
	}
	for _, name := range []string{"bad", "newer", "liar"} {
		if err := s.Remove(name); err != nil {
			t.Errorf("%s can't be removed: %v", name, err)
		}
	}
}

// TestSize counts a file with two names once, and follows nothing.
func TestSize(t *testing.T) {
	s := newStore(t)
	if _, _, err := s.Create(Volume{Name: "data"}); err != nil {
		t.Fatal(err)
	}
	empty, _ := s.Size("data")
	file := filepath.Join(s.Data("data"), "a")
	if err := os.WriteFile(file, make([]byte, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	os.Link(file, file+"2")
	os.Symlink("/", filepath.Join(s.Data("data"), "root"))
	got, err := s.Size("data")
	if err != nil || got-empty < 1<<20 || got-empty > 1<<20+64<<10 {
		t.Errorf("got %d more, %v", got-empty, err)
	}
}

// TestSettle: the power went before an anonymous volume's description was on the disk. With files in it, or with a container that is to
// have it, it is a volume again.
func TestSettle(t *testing.T) {
	s := newStore(t)
	for _, name := range []string{"full", "used", "empty"} {
		v, _, err := s.Create(Volume{Name: name, Labels: map[string]string{AnonymousLabel: ""}})
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Truncate(filepath.Join(s.Path(v.Name), configFile), 0); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(s.Data("full"), "file"), []byte("x"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := s.note("used", s.container(t, "a")); err != nil {
		t.Fatal(err)
	}
	if err := s.Settle(); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"full", "used"} {
		if v, err := s.Get(name); err != nil || !v.Anonymous() {
			t.Errorf("%s: %+v, %v", name, v, err)
		}
	}
	if data, err := os.ReadFile(filepath.Join(s.Data("full"), "file")); err != nil || string(data) != "x" {
		t.Errorf("its file: %q, %v", data, err)
	}
	if _, err := s.Get("empty"); !errors.Is(err, ErrNotFound) {
		t.Errorf("the empty one: %v", err)
	}
}
