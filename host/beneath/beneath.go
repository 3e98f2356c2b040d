// Package beneath reads files that a container could have made.
//
// Whoever can write a directory decides what its names stand for: /etc/passwd may be a FIFO whose opening waits for ever, a device
// whose opening rewinds a tape of the host, a link out of the directory or into /proc, a file of 64 GiB without content. So the one
// idea here is to look before opening. A name is resolved to a descriptor that stands for the file and has not opened it (O_PATH),
// inside the directory, as if that were the root, and through no magic link; fstat on that descriptor says what it is; only a regular
// file is then opened, by its descriptor and not by its name once more, and no more is read than was asked for.
//
// It refuses everything that isn't a regular file. Start reading at [Open].
package beneath

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// ErrIrregular is the error for what is no regular file.
var ErrIrregular = errors.New("no regular file")

// ErrTooLarge is the error for a file that is larger than its reader wants to hold.
var ErrTooLarge = errors.New("too large")

// ReadFile reads the file name in the directory root, following links inside of it as if it were the root directory. Limit is in
// bytes: a larger file is [ErrTooLarge]. A name that isn't there is [fs.ErrNotExist].
func ReadFile(root, name string, limit int64) ([]byte, error) {
	dir, err := unix.Open(root, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: root, Err: err}
	}
	defer unix.Close(dir)
	f, err := Open(dir, name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return ReadAll(f, limit)
}

// ReadAll reads an open regular file of at most limit bytes. It goes by what comes, too, not only by the size that fstat tells: the
// file may grow meanwhile.
func ReadAll(f *os.File, limit int64) ([]byte, error) {
	// A file without content may be of any size. What is larger than the limit isn't read at all.
	if st, err := f.Stat(); err != nil {
		return nil, err
	} else if st.Size() > limit {
		return nil, fmt.Errorf("%s: %w: %d bytes, at most %d are read", f.Name(), ErrTooLarge, st.Size(), limit)
	}
	data, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, err
	}
	if int64(len(data)) > limit {
		return nil, fmt.Errorf("%s: %w: it grows, at most %d bytes are read", f.Name(), ErrTooLarge, limit)
	}
	return data, nil
}

// Open opens a regular file for reading, by its name below root, the descriptor of a directory (O_PATH is enough).
func Open(root int, name string) (*os.File, error) {
	fd, err := Resolve(root, name)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	return Reopen(fd, name)
}

// Resolve gives a descriptor of whatever has the name below root, which is not opened for that: nothing happens to a FIFO or a
// device. Links are followed inside root; magic links (those of /proc/PID/fd and others) aren't followed at all.
func Resolve(root int, name string) (int, error) {
	rel := strings.TrimLeft(name, "/")
	if rel == "" {
		rel = "."
	}
	how := unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS}
	fd, err := unix.Openat2(root, rel, &how)
	// EAGAIN: something was renamed while ".." was resolved (openat2(2)). Somebody who goes on renaming gets the error.
	for n := 0; n < 1000 && (err == unix.EAGAIN || err == unix.EINTR); n++ {
		fd, err = unix.Openat2(root, rel, &how)
	}
	if err != nil {
		return -1, &fs.PathError{Op: "open", Path: name, Err: err}
	}
	return fd, nil
}

// Reopen opens the regular file that an O_PATH descriptor stands for; name is for messages. The descriptor stays the caller's.
func Reopen(fd int, name string) (*os.File, error) {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, &fs.PathError{Op: "stat", Path: name, Err: err}
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return nil, fmt.Errorf("%s is %s: %w", name, kind(st.Mode), ErrIrregular)
	}
	proc, err := ProcFD()
	if err != nil {
		return nil, err
	}
	defer unix.Close(proc)
	// O_NONBLOCK: a lease that somebody holds on the file would be waited for (fcntl(2), F_SETLEASE); so it is EAGAIN.
	again, err := unix.Openat(proc, strconv.Itoa(fd), unix.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: name, Err: err}
	}
	// os.NewFile would ask epoll about a descriptor with O_NONBLOCK, which no regular file can be waited for with.
	if err := unix.SetNonblock(again, false); err != nil {
		unix.Close(again)
		return nil, &fs.PathError{Op: "fcntl", Path: name, Err: err}
	}
	return os.NewFile(uintptr(again), name), nil
}

// ProcFD opens /proc/self/fd, whose magic links alone open, or change, a file by the O_PATH descriptor that stands for it. That it is
// procfs is asked, because a thread may be in a mount namespace where something else is mounted on /proc (CVE-2019-16884's kind).
func ProcFD() (int, error) {
	const path = "/proc/self/fd"
	proc, err := unix.Open(path, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	var on unix.Statfs_t
	if err = unix.Fstatfs(proc, &on); err != nil {
		err = &fs.PathError{Op: "statfs", Path: path, Err: err}
	} else if on.Type != unix.PROC_SUPER_MAGIC {
		err = errors.New("/proc is no procfs: files of a container can't be read safely without one")
	}
	if err != nil {
		unix.Close(proc)
		return -1, err
	}
	return proc, nil
}

// ChmodNode sets the mode of a device, FIFO or socket that was made in dir a moment ago under a umask. A name alone won't do: fchmodat(2)
// follows symbolic links, and whoever has the directory in a container could put one in the node's place meanwhile, one to a file of the
// host. What is no node is not the one that was made: EEXIST.
func ChmodNode(dir int, name string, mode uint32) error {
	fd, err := unix.Openat(dir, name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	if kind := st.Mode & unix.S_IFMT; kind == unix.S_IFLNK || kind == unix.S_IFREG || kind == unix.S_IFDIR {
		return unix.EEXIST
	}
	proc, err := ProcFD()
	if err != nil {
		return err
	}
	defer unix.Close(proc)
	return unix.Fchmodat(proc, strconv.Itoa(fd), mode, 0)
}

// kind says what a file is that isn't regular.
func kind(mode uint32) string {
	switch mode & unix.S_IFMT {
	case unix.S_IFIFO:
		return "a FIFO"
	case unix.S_IFCHR:
		return "a character device"
	case unix.S_IFBLK:
		return "a block device"
	case unix.S_IFDIR:
		return "a directory"
	case unix.S_IFSOCK:
		return "a socket"
	case unix.S_IFLNK:
		return "a symbolic link"
	}
	return "of an unknown kind"
}
