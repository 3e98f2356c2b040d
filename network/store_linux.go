package network

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"glassbox/plan/lazyjson"
	"glassbox/state"
)

// lock takes the lock of a state directory and makes the directory. The kernel frees it when the process dies.
func lock(stateDir string) (unlock func(), err error) {
	name := filepath.Join(stateDir, "lock")
	open := func() (int, error) {
		return unix.Open(name, unix.O_RDWR|unix.O_CREAT|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0o600)
	}
	fd, err := open()
	if err == unix.ENOENT {
		if err := os.MkdirAll(stateDir, 0o700); err != nil {
			return nil, err
		}
		fd, err = open()
	}
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: name, Err: err}
	}
	for {
		// flock and not fcntl: the lock belongs to the open file, so that goroutines of one process shut each other out, too, and a close
		// elsewhere doesn't free it.
		if err = unix.Flock(fd, unix.LOCK_EX); err != unix.EINTR {
			break
		}
	}
	if err != nil {
		unix.Close(fd)
		return nil, &os.PathError{Op: "flock", Path: name, Err: err}
	}
	return func() { unix.Close(fd) }, nil
}

// readJSON leaves v alone where there is no file.
func readJSON(name string, v any) error {
	data, err := os.ReadFile(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	} else if err != nil {
		return err
	}
	if err := lazyjson.Unmarshal(data, v); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}

// writeJSON replaces a record. The caller holds the lock.
func writeJSON(name string, v any) error {
	if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
		return err
	}
	if old, err := unfinished(filepath.Dir(name)); err == nil {
		for _, left := range old {
			os.Remove(left)
		}
	}
	return state.WriteJSONSync(name, v)
}

// unfinished lists the records that killed writers left: those of other names are written over by nobody.
func unfinished(dir string) ([]string, error) { return filepath.Glob(filepath.Join(dir, "*.json.new")) }
