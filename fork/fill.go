package fork

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"glassbox/host/remove"
)

// Directories of a volume. A copy is made in filling; its new name, filled, says that it is whole; then all that is in it gets its place in
// data, one rename each. A copy whose maker was killed is made anew in the first state, and only finished in the second. Nothing that a
// container has written into data is ever taken away.
const (
	fillData    = "_data"
	fillFilling = "_fill"
	fillFilled  = "_filled"
)

// FillVolume copies a directory into a volume that is empty. Of several containers that start at once one copies, and the others wait for
// it by the lock of the volume's directory.
func FillVolume(volume string, source *os.File) error {
	var st unix.Stat_t
	if err := unix.Fstat(int(source.Fd()), &st); err != nil {
		return err
	}
	dir, err := os.OpenFile(volume, os.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	defer dir.Close()
	for err = unix.EINTR; err == unix.EINTR; {
		err = unix.Flock(int(dir.Fd()), unix.LOCK_EX)
	}
	if err != nil {
		return fmt.Errorf("lock %s: %w", volume, err)
	}
	data, err := openDirAt(int(dir.Fd()), fillData)
	if err != nil {
		return err
	}
	defer data.Close()
	filled, err := openDirAt(int(dir.Fd()), fillFilled)
	if err == nil { // by somebody who was killed then
		defer filled.Close()
		return moveFilled(dir, filled, data)
	}
	if !errors.Is(err, unix.ENOENT) {
		return err
	}
	if err := remove.All(filepath.Join(volume, fillFilling)); err != nil {
		return err
	}
	if empty, err := isEmpty(data); err != nil || !empty {
		return err
	}
	if err := unix.Mkdirat(int(dir.Fd()), fillFilling, 0o700); err != nil {
		return err
	}
	filling, err := openDirAt(int(dir.Fd()), fillFilling)
	if err != nil {
		return err
	}
	defer filling.Close()
	if err := copyDir(source, filling, &st, true); err != nil {
		return errors.Join(err, remove.All(filepath.Join(volume, fillFilling))) // on a full disk each byte counts
	}
	if err := unix.Renameat(int(dir.Fd()), fillFilling, int(dir.Fd()), fillFilled); err != nil {
		return err
	}
	return moveFilled(dir, filling, data)
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

// moveFilled renames what has been copied into the volume. Where a container has written something of that name meanwhile, it stays.
func moveFilled(dir, filled, data *os.File) error {
	if _, err := filled.Seek(0, 0); err != nil {
		return err
	}
	names, err := filled.Readdirnames(-1)
	if err != nil {
		return err
	}
	from, to := int(filled.Fd()), int(data.Fd())
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
	if err := copyXattrs(from, to); err != nil {
		return err
	}
	if err := attributes(to, &st, true); err != nil {
		return err
	}
	return remove.All(filepath.Join(dir.Name(), fillFilled))
}
