// Package volume keeps directories that outlive containers: volumes, by their names.
//
//	ROOT/volumes/NAME/
//	    volume.json    what the volume is ([Volume])
//	    _data/         its files, which containers see
//	    users/ID       an empty file for each container that was made with it
//	    mounts/ID      an empty file for each container that runs with it, if it is a file system that is mounted on _data
//	    _fill, _filled what the image has at the volume's place, while it is being copied (package fork)
//
// Its one idea: a volume is there or not by one rename. It is made in a directory of another name, and loses its name before its files are
// removed, both while the directory of all volumes is locked; so of any number of processes that want one volume, one makes it and all use
// it, and whoever is killed leaves a whole volume or a directory whose name begins with a dot, which the next command takes away that
// makes or removes a volume.
//
// That a container uses a volume is told by a file in the volume, which counts as long as the container's directory is there: it is made,
// under the same lock, before the container itself is, and needs no tidying when the container goes.
//
// It refuses names that aren't those of a file, and to remove a volume that a container uses. What is in _data was written by containers:
// nothing here opens a name of it but by way of host/remove and [Store.Size]. Start reading at [Store.Use].
package volume

import (
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
	"glassbox/host/beneath"
	"glassbox/host/remove"
	"glassbox/state"
)

// Local is the name of the one driver.
const Local = "local"

// AnonymousLabel marks volumes that nobody gave a name, as in Docker.
const AnonymousLabel = "com.docker.volume.anonymous"

// Names in a volume's directory.
const (
	configFile = "volume.json"
	dataDir    = "_data"
	usersDir   = "users"
	version    = 1 // of volume.json
)

// Errors of this package, for errors.Is.
var (
	ErrNotFound = errors.New("no such volume")
	ErrInUse    = errors.New("volume is in use")
	ErrInvalid  = errors.New("invalid volume")
)

var errNewer = errors.New("written by a newer")

// Volume is what a volume is.
type Volume struct {
	Version int               `json:"version"`
	Name    string            `json:"name"`
	Driver  string            `json:"driver"`
	Labels  map[string]string `json:"labels,omitempty"`
	Options map[string]string `json:"options,omitempty"` // of the driver: see [CheckOptions]
	Created time.Time         `json:"created"`
}

// Anonymous reports whether nobody gave it a name.
func (v *Volume) Anonymous() bool { _, ok := v.Labels[AnonymousLabel]; return ok }

// Store is where an installation keeps its volumes.
type Store struct {
	Dir        string // ROOT/volumes
	Containers string // ROOT/containers: a directory there is a container, made or half made
	State      string // where events are written; empty: nowhere
}

// Of is the store of an installation.
func Of(root, state string) Store {
	return Store{Dir: filepath.Join(root, "volumes"), Containers: filepath.Join(root, "containers"), State: state}
}

// CheckName accepts the names of Docker's local driver: [a-zA-Z0-9][a-zA-Z0-9_.-]+, and no more than a file's name can hold.
func CheckName(name string) error {
	if len(name) == 1 {
		return fmt.Errorf("%w: volume name is too short, names should be at least two alphanumeric characters", ErrInvalid)
	}
	for i := range len(name) {
		c := name[i]
		alnum := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
		if !alnum && (i == 0 || !strings.ContainsRune("_.-", rune(c))) {
			return fmt.Errorf("%w: %.60q includes invalid characters for a local volume name, only \"[a-zA-Z0-9][a-zA-Z0-9_.-]\" are "+
				"allowed. If you intended to pass a host directory, use absolute path", ErrInvalid, name)
		}
	}
	if name == "" || len(name) > 255 {
		return fmt.Errorf("%w: the name %.60q has %d characters, want 2 to 255", ErrInvalid, name, len(name))
	}
	return nil
}

// Path is the directory of a volume: what is the engine's own, and in it the files.
func (s Store) Path(name string) string { return filepath.Join(s.Dir, name) }

// Data is the directory of a volume's files.
func (s Store) Data(name string) string { return filepath.Join(s.Dir, name, dataDir) }

// Mounts is the directory of those who need a volume that is a file system, while it is mounted (plan.HostMount).
func (s Store) Mounts(name string) string { return filepath.Join(s.Dir, name, "mounts") }

// Get reads a volume.
func (s Store) Get(name string) (*Volume, error) {
	if CheckName(name) != nil { // it leads nowhere
		return nil, fmt.Errorf("get %.255s: %w", name, ErrNotFound)
	}
	var v Volume
	err := state.ReadJSON(filepath.Join(s.Path(name), configFile), &v)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("get %s: %w", name, ErrNotFound)
	}
	if err != nil {
		return nil, err
	}
	if v.Version > version {
		return nil, fmt.Errorf("volume %s was %w glassbox (version %d, this one reads up to %d): use that one", name, errNewer, v.Version,
			version)
	}
	// A directory that was copied under another name would be two volumes with one identity.
	if v.Name != name {
		return nil, fmt.Errorf("%s says that it is volume %.60q: it is not this one's", filepath.Join(s.Path(name), configFile), v.Name)
	}
	return &v, nil
}

// names lists the directories of volumes; what is half made, or half removed, has another kind of name.
func (s Store) names() (out []string, err error) {
	entries, err := os.ReadDir(s.Dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	for _, e := range entries {
		if CheckName(e.Name()) == nil {
			out = append(out, e.Name())
		}
	}
	return out, nil
}

// List reads all volumes, by their names. One that can't be read is left out, and told in the error, beside the others.
func (s Store) List() ([]*Volume, error) {
	names, err := s.names()
	if err != nil {
		return nil, err
	}
	var out []*Volume
	var errs []error
	for _, name := range names {
		v, err := s.Get(name)
		switch {
		case err == nil:
			out = append(out, v)
		case !errors.Is(err, ErrNotFound): // else it has gone meanwhile
			errs = append(errs, err)
		}
	}
	return out, errors.Join(errs...)
}

// Damaged lists the volumes whose descriptions can't be read, or are missing.
func (s Store) Damaged() []string {
	names, _ := s.names()
	return slices.DeleteFunc(names, func(name string) bool { return !s.damaged(name) })
}

func (s Store) damaged(name string) bool {
	_, err := s.Get(name)
	return err != nil && !errors.Is(err, errNewer)
}

// Rewrite writes the description of a volume anew whose own is damaged: that of one with this name, and nothing else that could be said of
// it.
func (s Store) Rewrite(name string) error {
	unlock, err := s.lockExisting()
	if err != nil {
		return err
	}
	defer unlock()
	st, err := os.Lstat(s.Path(name))
	if err != nil || !s.damaged(name) { // removed, or mended, meanwhile
		return err
	}
	return state.WriteJSONSync(filepath.Join(s.Path(name), configFile), Volume{
		Version: version, Name: name, Driver: Local, Created: st.ModTime().UTC(),
	})
}

// Create makes a volume, or finds the one that there is, which stays as it is. An empty name is a new one of 64 hexadecimal digits.
func (s Store) Create(v Volume) (*Volume, bool, error) {
	if err := CheckName(v.Name); err != nil {
		return nil, false, err
	}
	if err := CheckOptions(v.Options); err != nil {
		return nil, false, err
	}
	unlock, err := s.lock()
	if err != nil {
		return nil, false, err
	}
	defer unlock()
	return s.create(v)
}

// create makes a volume while the lock is held.
func (s Store) create(v Volume) (*Volume, bool, error) {
	// Whatever kind of error: one that can't be read is not one to be made anew over its files.
	if old, err := s.Get(v.Name); !errors.Is(err, ErrNotFound) {
		return old, false, err
	}
	if err := s.sweep(); err != nil {
		return nil, false, err
	}
	v.Version, v.Created = version, time.Now().UTC()
	if v.Driver == "" {
		v.Driver = Local
	}
	// Under a name that no volume can have (CheckName), and moved when it is whole: nobody ever sees half of one.
	tmp := filepath.Join(s.Dir, ".new")
	if err := s.build(tmp, v); err != nil {
		remove.All(tmp)
		return nil, false, err
	}
	// Not over what is there: by rename(2) an empty directory would be replaced.
	if err := unix.Renameat2(unix.AT_FDCWD, tmp, unix.AT_FDCWD, s.Path(v.Name), unix.RENAME_NOREPLACE); err != nil {
		remove.All(tmp)
		if err == unix.EEXIST {
			err = fmt.Errorf("%s is there and holds no volume: move it away", s.Path(v.Name))
		}
		return nil, false, err
	}
	// An anonymous one is synced later, by Keep.
	if !v.Anonymous() {
		if err := state.Sync(s.Dir); err != nil {
			return nil, false, err
		}
	}
	s.happened(v.Name, event.Create)
	return &v, true, nil
}

func (s Store) happened(name, action string) {
	event.Write(s.State, event.New(event.Volume, action, event.Actor{ID: name, Attributes: map[string]string{"driver": Local}}))
}

func (s Store) build(dir string, v Volume) error {
	for _, d := range []struct {
		path string
		mode os.FileMode
	}{{dir, 0o700}, {filepath.Join(dir, usersDir), 0o700}, {filepath.Join(dir, dataDir), 0o755}} {
		if err := os.Mkdir(d.path, d.mode); err != nil {
			return err
		}
		if err := os.Chmod(d.path, d.mode); err != nil { // whatever the caller's umask is
			return err
		}
	}
	if v.Anonymous() { // it is its container's, which may be one of a moment: see Keep
		return state.WriteJSON(filepath.Join(dir, configFile), v)
	}
	return state.WriteJSONSync(filepath.Join(dir, configFile), v)
}

// Keep waits until anonymous volumes are on the disk; others are when they have been made.
func (s Store) Keep(names []string) error {
	for _, name := range names {
		if err := state.Sync(filepath.Join(s.Path(name), configFile), s.Path(name)); err != nil {
			return err
		}
	}
	if len(names) == 0 {
		return nil
	}
	return state.Sync(s.Dir)
}

// Settle removes volumes whose making was ended by a power failure: nobody has been told of them, and they hold nothing. One that holds
// files, or is a container's, both of which may have come to the disk before its description, is described anew: it can only have been an
// anonymous one, as others are on the disk before anybody uses them.
func (s Store) Settle() error {
	unlock, err := s.lockExisting()
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer unlock()
	names, err := s.names()
	if err != nil {
		return err
	}
	for _, name := range names {
		st, err := os.Lstat(filepath.Join(s.Path(name), configFile))
		// What a file system may leave of a file that was never synced: its name, and no bytes.
		if err == nil && st.Size() > 0 || err != nil && !errors.Is(err, fs.ErrNotExist) {
			continue
		}
		// Files in it are somebody's, whatever happened to the description.
		files, err := os.ReadDir(s.Data(name))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if len(files) == 0 {
			gone, err := s.hide(name, nil)
			if err == nil {
				_ = s.finish(gone)
			}
			if !errors.Is(err, ErrInUse) {
				continue
			}
		}
		v := Volume{Version: version, Name: name, Driver: Local, Labels: map[string]string{AnonymousLabel: ""}, Created: time.Now().UTC()}
		if err := state.WriteJSONSync(filepath.Join(s.Path(name), configFile), v); err != nil {
			return err
		}
	}
	return nil
}

// A Want is a volume that a container is to be made with.
type Want struct {
	Volume      // made where it is missing; for one that is there only its name counts
	Exists bool // one that is missing is an error: it is another container's
}

// Use makes sure that volumes are there and notes that a container, whose directory exists, uses them. It returns those that were made.
func (s Store) Use(container string, wants []Want) (made []*Volume, err error) {
	if len(wants) == 0 {
		return nil, nil
	}
	unlock, err := s.lock()
	if err != nil {
		return nil, err
	}
	defer unlock()
	for _, w := range wants {
		if err := CheckName(w.Name); err != nil {
			return made, err
		}
		if _, err := s.Get(w.Name); w.Exists && err != nil {
			return made, err
		}
		// Under the same lock as the note: nobody removes it in between as one that has no user.
		v, isNew, err := s.create(w.Volume)
		if err != nil {
			return made, err
		}
		if isNew {
			made = append(made, v)
		}
		if err := s.note(w.Name, container); err != nil {
			return made, err
		}
	}
	return made, nil
}

// note writes down that a container uses a volume, and forgets containers that are gone.
func (s Store) note(name, container string) error {
	dir := filepath.Join(s.Path(name), usersDir)
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	// Here, where the directory is open anyway: a container that is removed then doesn't have to touch its volumes.
	for _, e := range entries {
		if !s.there(e.Name()) {
			os.Remove(filepath.Join(dir, e.Name()))
		}
	}
	return os.WriteFile(filepath.Join(dir, container), nil, 0o600)
}

func (s Store) there(container string) bool {
	_, err := os.Lstat(filepath.Join(s.Containers, container))
	return !errors.Is(err, fs.ErrNotExist) // what can't be seen is taken to be there
}

// Users are the IDs of the containers that were made with a volume, running or not, sorted.
func (s Store) Users(name string) ([]string, error) {
	entries, err := os.ReadDir(filepath.Join(s.Path(name), usersDir))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	var out []string
	for _, e := range entries {
		if s.there(e.Name()) {
			out = append(out, e.Name())
		}
	}
	return out, nil
}

// Size is how many bytes the files of a volume have, counted as those of a container are.
func (s Store) Size(name string) (int64, error) { return beneath.Size(s.Data(name)) }

// Remove removes a volume and its files. One that a container uses, other than those that are named, is [ErrInUse]. The name is free before
// the files are gone.
func (s Store) Remove(name string, except ...string) error {
	if CheckName(name) != nil {
		return fmt.Errorf("get %.255s: %w", name, ErrNotFound)
	}
	unlock, err := s.lockExisting()
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("get %s: %w", name, ErrNotFound)
	}
	if err != nil {
		return err
	}
	gone, err := s.hide(name, except)
	if err == nil {
		// What killed processes left, while the lock is held anyway; its own goes below, when others needn't wait for it.
		err = s.sweep(gone)
	}
	unlock()
	if err != nil {
		return err
	}
	s.happened(name, event.Destroy)
	return s.finish(gone)
}

// hide takes a volume's name away while the lock is held.
func (s Store) hide(name string, except []string) (gone string, err error) {
	if _, err := os.Lstat(s.Path(name)); errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("get %s: %w", name, ErrNotFound)
	}
	users, err := s.Users(name)
	if err != nil {
		return "", err
	}
	users = slices.DeleteFunc(users, func(id string) bool { return slices.Contains(except, id) })
	if len(users) > 0 {
		return "", fmt.Errorf("remove %s: %w - [%s]", name, ErrInUse, strings.Join(users, ", "))
	}
	// EINVAL: nothing is mounted there (umount(2)), the usual case.
	if err := unix.Unmount(s.Data(name), unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); err != nil && err != unix.EINVAL && err != unix.ENOENT {
		return "", &os.PathError{Op: "unmount", Path: s.Data(name), Err: err} // a file system whose last user was killed
	}
	// Shortened, for a name has 255 bytes, and the time is added to it.
	gone = filepath.Join(s.Dir, ".gone-"+name[:min(len(name), 200)]+fmt.Sprintf("-%d", time.Now().UnixNano()))
	return gone, os.Rename(s.Path(name), gone)
}

// finish removes the files of a volume that has lost its name. Its directory is locked meanwhile, so that nobody else does so, too.
func (s Store) finish(gone string) error {
	unlock, err := state.LockDir(gone)
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return err
	}
	defer unlock()
	return remove.All(gone)
}

// sweep removes, while the lock is held, what killed processes left, but for directories that somebody is removing.
func (s Store) sweep(but ...string) error {
	entries, err := os.ReadDir(s.Dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		path := filepath.Join(s.Dir, e.Name())
		if !strings.HasPrefix(e.Name(), ".") || slices.Contains(but, path) {
			continue
		}
		if e.Type().IsRegular() { // the lock of a place that somebody fills, or was killed at (package fork, lockPlace)
			if f, _, err := state.Lock(path, false); err == nil {
				state.Unlock(f, path)
			}
			continue
		}
		fd, err := unix.Open(path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		if err != nil {
			continue
		}
		// Locked: somebody else is removing it at this moment (finish).
		if unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB) == nil {
			_ = remove.All(path) // what stays, the next command tries again
		}
		unix.Close(fd)
	}
	return nil
}

// lock takes the lock of all volumes, and makes their directory if it is missing.
func (s Store) lock() (unlock func(), err error) {
	unlock, err = state.LockDir(s.Dir)
	if errors.Is(err, fs.ErrNotExist) {
		if err := os.MkdirAll(s.Dir, 0o700); err != nil {
			return nil, err
		}
		return state.LockDir(s.Dir)
	}
	return unlock, err
}

func (s Store) lockExisting() (unlock func(), err error) { return state.LockDir(s.Dir) }

// HalfFilled reports whether the copy of what an image has at a volume's place is whole, and not yet in its place: whoever copied was
// killed.
func (s Store) HalfFilled(name string) (bool, error) {
	_, err := os.Lstat(filepath.Join(s.Path(name), "_filled"))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}
