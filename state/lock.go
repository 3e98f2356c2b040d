package state

import (
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// A lock file stands for a container that somebody is working on: whoever creates, starts, supervises or removes it holds the
// flock. A lock file that nobody holds is the trace of a process that was killed, and the container needs Repair. When the
// work is done the file is removed, so that looking for traces costs one directory listing.

// Lock takes the lock of a container, waiting for it if wait is set. Without wait it returns unix.EWOULDBLOCK where somebody
// else holds it. fresh says that the file had to be made, that is, no trace of a killed process was found.
func Lock(path string, wait bool) (f *os.File, fresh bool, err error) {
	for {
		f, err = os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
		fresh = err == nil
		if os.IsNotExist(err) {
			if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
				return nil, false, err
			}
			continue
		}
		if os.IsExist(err) {
			f, err = os.OpenFile(path, os.O_RDWR, 0o600)
			if os.IsNotExist(err) {
				continue
			}
		}
		if err != nil {
			return nil, false, err
		}
		how := unix.LOCK_EX
		if !wait {
			how |= unix.LOCK_NB
		}
		for {
			err = unix.Flock(int(f.Fd()), how)
			if err != unix.EINTR {
				break
			}
		}
		if err != nil {
			f.Close()
			return nil, false, err
		}
		// Whoever held it before may have removed the file: then the lock is on nothing.
		if same(f, path) {
			return f, fresh, nil
		}
		f.Close()
	}
}

// Unlock removes the lock file and gives up the lock.
func Unlock(f *os.File, path string) {
	os.Remove(path)
	f.Close()
}

// Held reports whether somebody holds the lock.
func Held(path string) bool {
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_CLOEXEC, 0) // every command looks at every lock: os.File costs twice as much
	if err != nil {
		return false
	}
	defer unix.Close(fd)
	return unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB) == unix.EWOULDBLOCK
}

func same(f *os.File, path string) bool {
	a, err := f.Stat()
	if err != nil {
		return false
	}
	b, err := os.Stat(path)
	return err == nil && os.SameFile(a, b)
}

// LockDir takes the lock of a directory, for what must not be done by two at a time and leaves no trace to repair. It waits for it.
func LockDir(dir string) (unlock func(), err error) {
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	for err = unix.EINTR; err == unix.EINTR; {
		err = unix.Flock(fd, unix.LOCK_EX)
	}
	if err != nil {
		unix.Close(fd)
		return nil, err
	}
	return func() { unix.Close(fd) }, nil
}
