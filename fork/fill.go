package fork

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"glassbox/host/remove"
	"glassbox/state"
)

// Directories of a volume. A copy is made in filling; its new name, filled, says that it is whole; then all that is in it gets its place in
// data, one rename each. A copy whose maker was killed is made anew in the first state, and only finished in the second. Nothing that a
// container has written into data is ever taken away.
const (
	fillData    = "_data"
	fillFilling = "_fill"
	fillFilled  = "_filled"
)

// volumePlace is what the names of locks of such directories begin with: see lockPlace.
const volumePlace = ".place-"

// Names of the same directories in one whose files lie elsewhere than in data: they are made within it.
const (
	withinFilling = ".glassbox-fill"
	withinFilled  = ".glassbox-filled"
)

// FillVolume copies a directory into a volume that is empty. Of several containers that start at once one copies, and the others wait for
// it by the lock of the volume's directory.
func FillVolume(volume string, source *os.File) error {
	dir, err := lockVolume(volume)
	if err != nil {
		return err
	}
	defer dir.Close()
	data, err := openDirAt(int(dir.Fd()), fillData)
	if err != nil {
		return err
	}
	defer data.Close()
	return fillPlace{dir, data, fillFilling, fillFilled}.fill(source)
}

// FillWithin does the same for a volume whose files lie in another directory than its own, such as one of the host's: the copy is prepared
// there, because only there it can be renamed to its place. Others may write there meanwhile, so no name is followed.
func FillWithin(volume string, data, source *os.File) error {
	lock, err := lockVolume(volume)
	if err != nil {
		return err
	}
	defer lock.Close()
	unlock, err := lockPlace(volume, data)
	if err != nil {
		return err
	}
	defer unlock()
	return fillPlace{data, data, withinFilling, withinFilled}.fill(source)
}

// HalfWithin reports whether FillWithin began in a directory, and whoever did so was killed.
func HalfWithin(data *os.File) bool {
	var st unix.Stat_t
	return unix.Fstatat(int(data.Fd()), withinFilled, &st, unix.AT_SYMLINK_NOFOLLOW) == nil ||
		unix.Fstatat(int(data.Fd()), withinFilling, &st, unix.AT_SYMLINK_NOFOLLOW) == nil
}

// lockVolume opens a volume's directory and locks it, until it is closed.
func lockVolume(volume string) (*os.File, error) {
	dir, err := os.OpenFile(volume, os.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return nil, err
	}
	for err = unix.EINTR; err == unix.EINTR; {
		err = unix.Flock(int(dir.Fd()), unix.LOCK_EX)
	}
	if err != nil {
		dir.Close()
		return nil, fmt.Errorf("lock %s: %w", volume, err)
	}
	return dir, nil
}

// lockPlace waits for those who fill the same directory by way of another volume: two may name one directory of the host, or one device.
// The lock is a file beside the volumes that the directory's own numbers name; it is there while it is held. The directory itself can't be
// locked: whoever has it in a container could lock it, too, and keep others from starting.
func lockPlace(volume string, data *os.File) (unlock func(), err error) {
	var st unix.Stat_t
	if err := unix.Fstat(int(data.Fd()), &st); err != nil {
		return nil, err
	}
	name := filepath.Join(filepath.Dir(volume), fmt.Sprintf("%s%x-%x", volumePlace, st.Dev, st.Ino))
	f, _, err := state.Lock(name, true)
	if err != nil {
		return nil, fmt.Errorf("lock %s: %w", name, err)
	}
	return func() { state.Unlock(f, name) }, nil
}

// fillPlace is where a copy is prepared, and where it goes.
type fillPlace struct {
	dir, data       *os.File
	filling, filled string // names in dir
}

func (p fillPlace) fill(source *os.File) error {
	var st unix.Stat_t
	if err := unix.Fstat(int(source.Fd()), &st); err != nil {
		return err
	}
	dir := int(p.dir.Fd())
	// The second state is looked for first: where it is, the copy is whole, and there may be data beside it that is no reason to stop.
	filled, err := openDirAt(dir, p.filled)
	if err == nil { // by somebody who was killed then
		defer filled.Close()
		return p.move(filled)
	}
	if !errors.Is(err, unix.ENOENT) {
		return err
	}
	if err := p.remove(p.filling); err != nil {
		return err
	}
	// Docker fills a volume only as long as nothing is in it: what somebody has put there is never mixed with the image's.
	if empty, err := isEmpty(p.data); err != nil || !empty {
		return err
	}
	if err := unix.Mkdirat(dir, p.filling, 0o700); err != nil {
		return err
	}
	filling, err := openDirAt(dir, p.filling)
	if err != nil {
		return err
	}
	defer filling.Close()
	if err := copyDir(source, filling, &st, true); err != nil {
		return errors.Join(err, p.remove(p.filling)) // on a full disk each byte counts
	}
	// This is the moment from which whoever finds it finishes it.
	if err := unix.Renameat(dir, p.filling, dir, p.filled); err != nil {
		return err
	}
	return p.move(filling)
}

// remove removes a directory of the copy. It is named by way of the descriptor: where the directory lies, others may have links.
func (p fillPlace) remove(name string) error {
	return remove.All(fmt.Sprintf("/proc/self/fd/%d/%s", p.dir.Fd(), name))
}

// isEmpty reads the beginning of a directory.
func isEmpty(dir *os.File) (bool, error) {
	names, err := dir.Readdirnames(1)
	if len(names) > 0 {
		return false, nil
	}
	if err != nil && !errors.Is(err, io.EOF) {
		return false, err
	}
	_, err = dir.Seek(0, 0)
	return true, err
}

// move renames what has been copied into the volume. Where a container has written something of that name meanwhile, it stays.
func (p fillPlace) move(filled *os.File) error {
	if _, err := filled.Seek(0, 0); err != nil {
		return err
	}
	names, err := filled.Readdirnames(-1)
	if err != nil {
		return err
	}
	from, to := int(filled.Fd()), int(p.data.Fd())
	for _, name := range names {
		// A directory can be renamed by who may write to it only; root may.
		if err := unix.Renameat2(from, name, to, name, unix.RENAME_NOREPLACE); err != nil && err != unix.EEXIST {
			return &os.PathError{Op: "rename", Path: name, Err: err}
		}
	}
	var st unix.Stat_t
	if err := unix.Fstat(from, &st); err != nil {
		return err
	}
	// The directory's own attributes come last, and before the copy goes: with them it is done.
	if err := copyXattrs(from, to); err != nil {
		return err
	}
	if err := attributes(to, &st, true); err != nil {
		return err
	}
	return p.remove(p.filled)
}
