package image

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"glassbox/event"
	"glassbox/plan/lazyjson"
	"glassbox/state"
)

// Store is everything about images below one root. It holds no open files and no cache, so that any number of processes
// may use the same root; use it from several goroutines freely.
type Store struct {
	// State is the directory of state whose journal is told of pulls, tags and removals (package event); empty is nowhere.
	State string
	root  string
}

// Open names the store below root, for example /var/lib/glassbox. Nothing is read or created yet.
func Open(root string) (*Store, error) {
	abs, err := filepath.Abs(root)
	if err != nil {
		return nil, fmt.Errorf("image store %s: %w", root, err)
	}
	return &Store{root: abs}, nil
}

// Root is the absolute path that [Layer].Dir is relative to.
func (s *Store) Root() string { return s.root }

func (s *Store) path(elem ...string) string {
	return filepath.Join(append([]string{s.root, "image"}, elem...)...)
}

func (s *Store) layersDir() string { return filepath.Join(s.root, "layers") }

// form is store.json: how overlayfs marks are written, decided once when the store is made.
type form struct {
	Version   int  `json:"version"`
	UserXattr bool `json:"userXattr"`
}

const storeVersion = 1

// UserXattr reports whether overlay marks in this store are user.overlay.* (mount option userxattr) instead of
// trusted.overlay.*. An empty store answers for the calling process.
func (s *Store) UserXattr() (bool, error) {
	f, err := s.readForm()
	if errors.Is(err, fs.ErrNotExist) {
		return os.Geteuid() != 0, nil
	}
	return f.UserXattr, err
}

func (s *Store) readForm() (form, error) {
	var f form
	if err := readJSON(s.path("store.json"), &f); err != nil {
		return f, err
	}
	if f.Version != storeVersion {
		return f, &Error{
			Op: "image store", Name: s.root, Kind: ErrUnsupported,
			Text: fmt.Sprintf("written by another version (format %d, this program knows %d)", f.Version, storeVersion),
		}
	}
	return f, nil
}

// prepare makes the directories of a store that is about to be written to.
func (s *Store) prepare() (form, error) {
	f, err := s.readForm()
	if !errors.Is(err, fs.ErrNotExist) {
		return f, err
	}
	// 0700 all the way: state must not be readable by others (CVE-2021-41091).
	for _, d := range []string{s.path("images"), s.path("layers"), s.path("locks"), s.layersDir()} {
		if err := os.MkdirAll(d, 0o700); err != nil {
			return f, &Error{Op: "image store", Name: s.root, Text: "cannot be created", Err: err, Hint: permHint(err)}
		}
	}
	unlock, err := s.lock()
	if err != nil {
		return f, err
	}
	defer unlock()
	// Somebody else may have been quicker between the first look and the lock.
	if f, err := s.readForm(); !errors.Is(err, fs.ErrNotExist) {
		return f, err
	}
	// Being root is not enough: a root inside a user namespace may not write trusted.*. Ask the kernel.
	f = form{Version: storeVersion}
	probe, err := os.MkdirTemp(s.layersDir(), "rm.")
	if err != nil {
		return f, fmt.Errorf("image store %s: %w", s.root, err)
	}
	defer os.Remove(probe)
	switch err := unix.Lsetxattr(probe, "trusted.overlay.opaque", []byte("y"), 0); {
	case err == nil:
	case errors.Is(err, unix.EPERM):
		f.UserXattr = true
	default:
		return f, &Error{
			Op: "image store", Name: s.root, Err: err, Text: "the file system takes no extended attributes",
			Hint: "keep the store on ext4, xfs or btrfs with --root",
		}
	}
	if err := s.EnsureBase(); err != nil {
		return f, fmt.Errorf("image store %s: %w", s.root, err)
	}
	// Last: a store without it is one that nobody has finished, and is begun once more.
	return f, writeJSON(s.path("store.json"), f)
}

func permHint(err error) string {
	if errors.Is(err, fs.ErrPermission) {
		return "run as root, or keep images elsewhere with --root DIR"
	}
	return ""
}

// lock takes the store's exclusive lock. It is held for renames and small writes only, never while bytes are fetched.
func (s *Store) lock() (unlock func(), err error) {
	return flock(s.path("lock"), unix.LOCK_EX)
}

func flock(name string, how int) (func(), error) {
	// The file stays for ever: who removed it would leave the next ones with locks on two different files.
	fd, err := unix.Open(name, unix.O_RDWR|unix.O_CREAT|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, &Error{Op: "lock", Name: name, Err: err, Hint: permHint(err)}
	}
	for {
		err = unix.Flock(fd, how)
		if err != unix.EINTR {
			break
		}
	}
	if err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("lock %s: %w", name, err)
	}
	// flock(2) belongs to the open file: closing it lets go, and so does any death.
	return func() { unix.Close(fd) }, nil
}

// flockContext waits for an exclusive lock as long as the context lives; waiting, if not nil, is called once if it must.
func flockContext(ctx context.Context, name string, waiting func()) (func(), error) {
	// A thread that waits in flock(2) can only be woken by a signal, and Go has none to spare for one of them.
	for pause := 10 * time.Millisecond; ; pause = min(2*pause, 200*time.Millisecond) {
		unlock, err := flock(name, unix.LOCK_EX|unix.LOCK_NB)
		if err == nil || !errors.Is(err, unix.EWOULDBLOCK) {
			return unlock, err
		}
		if waiting != nil {
			waiting()
			waiting = nil
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(pause):
		}
	}
}

// names is names.json. Keys are full references: the file can be read and mended by a person.
type names struct {
	Tags    map[string]string `json:"tags"`    // "docker.io/library/debian:latest" → "sha256:…" (image ID)
	Digests map[string]string `json:"digests"` // "docker.io/library/debian@sha256:…" → image ID
}

func (s *Store) readNames() (*names, error) {
	n := &names{}
	err := readJSON(s.path("names.json"), n)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	if n.Tags == nil {
		n.Tags = map[string]string{}
	}
	if n.Digests == nil {
		n.Digests = map[string]string{}
	}
	return n, nil
}

func (s *Store) writeNames(n *names) error { return writeJSON(s.path("names.json"), n) }

// changeNames reads the names under the store's lock, and writes them if change has changed them.
func (s *Store) changeNames(change func(n *names) (changed bool)) error {
	unlock, err := s.lock()
	if err != nil {
		return err
	}
	defer unlock()
	n, err := s.readNames()
	if err != nil || !change(n) {
		return err
	}
	return s.writeNames(n)
}

// adding makes the store ready for an image that doesn't come from a registry, and keeps Collect from what is being added until release.
func (s *Store) adding() (release func(), err error) {
	if _, err := s.prepare(); err != nil {
		return nil, err
	}
	_ = s.Sweep() // what can't be read is for fsck
	return flock(s.path("pulling"), unix.LOCK_SH)
}

func readJSON(name string, v any) error {
	b, err := os.ReadFile(name)
	if err != nil {
		return err
	}
	if err := lazyjson.Unmarshal(b, v); err != nil {
		return &damagedFile{name, err}
	}
	return nil
}

// damagedFile is the error of a file of the store that makes no sense.
type damagedFile struct {
	name string
	err  error
}

func (e *damagedFile) Error() string {
	return fmt.Sprintf("%s is damaged: %s\nhint: glassbox fsck --repair mends the store of images", e.name, jsonWords(e.err))
}

func (e *damagedFile) Unwrap() error { return e.err }

func writeJSON(name string, v any) error {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	if err := e.Encode(v); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return writeFile(name, b.Bytes())
}

// writeFile replaces a file. Two pulls may write what they have in common at the same time.
func writeFile(name string, content []byte) error {
	return diskError("write", name, state.WriteFileShared(name, content))
}

// Tag gives the image that source names the further name target; a name that pointed elsewhere moves.
func (s *Store) Tag(source, target string) error {
	ref, err := givenRef("tag", target)
	if err != nil {
		return err
	}
	if _, err := s.Resolve(source); err != nil { // before a lock file is made in a store that may be empty
		return err
	}
	unlock, err := s.lock()
	if err != nil {
		return err
	}
	defer unlock()
	img, err := s.Resolve(source)
	if err != nil {
		return err
	}
	n, err := s.readNames()
	if err != nil {
		return err
	}
	if n.Tags[ref.tagKey()] != img.ID {
		n.Tags[ref.tagKey()] = img.ID
		if err := s.writeNames(n); err != nil {
			return err
		}
	}
	s.happened(event.Tag, img.ID, ref.Familiar(), img) // also where the name was there: it was asked for, and holds
	return nil
}

// List returns every image, newest first.
func (s *Store) List() ([]*Image, error) {
	ids, err := s.imageIDs()
	if err != nil {
		return nil, err
	}
	n, err := s.readNames()
	if err != nil {
		return nil, err
	}
	var list []*Image
	for _, id := range ids {
		img, err := s.load(id, n)
		if errors.Is(err, fs.ErrNotExist) {
			continue // removed since the directory was read
		}
		if err != nil {
			return nil, err
		}
		list = append(list, img)
	}
	slices.SortStableFunc(list, func(a, b *Image) int {
		if c := b.Created.Compare(a.Created); c != 0 {
			return c
		}
		return strings.Compare(a.ID, b.ID)
	})
	return list, nil
}

func (s *Store) imageIDs() ([]string, error) {
	entries, err := os.ReadDir(s.path("images"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var ids []string
	for _, e := range entries {
		if len(e.Name()) == 64 && isHex(e.Name()) {
			ids = append(ids, "sha256:"+e.Name())
		}
	}
	return ids, nil
}
