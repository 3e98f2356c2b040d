package fork

import (
	"fmt"
	"io"
	"os"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"

	"glassbox/host/beneath"
	"glassbox/plan"
)

// copyUp copies a directory of the container into a new file system. All names are looked up in open directories and none is
// followed, so that nothing that the image holds leads elsewhere.
func (x *execution) copyUp(o *plan.CopyUp) error {
	from, err := x.take(o.From)
	if err != nil {
		return err
	}
	source := os.NewFile(uintptr(from), ".")
	defer source.Close()
	path, opened := x.fds[o.To] // a volume, which the parent has cloned itself and still owns
	if !opened {
		if path, err = x.take(o.To); err != nil {
			return err
		}
		defer unix.Close(path)
	}
	target, err := openDirAt(path, ".")
	if err != nil {
		return err
	}
	defer target.Close()
	var a, b unix.Stat_t
	if err := unix.Fstat(from, &a); err != nil {
		return err
	}
	if err := unix.Fstat(int(target.Fd()), &b); err != nil {
		return err
	}
	if a.Dev == b.Dev && a.Ino == b.Ino {
		return nil // there was no directory
	}
	if o.Volume != "" {
		if isRoot(from) {
			return unix.EBUSY // where the volume would be attached
		}
		if o.Within {
			return FillWithin(o.Volume, target, source)
		}
		return FillVolume(o.Volume, source)
	}
	if o.UID == 0 && o.GID == 0 {
		return copyDir(source, target, &a, !o.KeepMode)
	}
	// On a thread of its own: the file system ids belong to a thread, and Go gives threads to whoever needs one.
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with its ids
		err := makeAs(o.UID, o.GID)
		if err == nil {
			err = copyDir(source, target, &a, !o.KeepMode)
		}
		done <- err
	}()
	return <-done
}

// isRoot reports whether a directory is the root of a mount (statx(2), Linux 5.8): of the clone in which OpenDir has looked for it, that is
// the image's own root.
func isRoot(fd int) bool {
	var st unix.Statx_t
	err := unix.Statx(fd, "", unix.AT_EMPTY_PATH|unix.AT_STATX_DONT_SYNC, 0, &st)
	return err == nil && st.Attributes&unix.STATX_ATTR_MOUNT_ROOT != 0
}

// makeAs gives the files that this thread makes other owners at first: a file system of a user namespace takes none of somebody who
// isn't there (EOVERFLOW). The privileges over files, which go with root's fsuid (capabilities(7)), are taken back.
func makeAs(uid, gid uint32) error {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var caps [2]unix.CapUserData
	if err := unix.Capget(&header, &caps[0]); err != nil {
		return fmt.Errorf("capget: %w", err)
	}
	unix.Setfsgid(int(gid))
	unix.Setfsuid(int(uid))
	if err := unix.Capset(&header, &caps[0]); err != nil {
		return fmt.Errorf("capset: %w", err)
	}
	return nil
}

func openDirAt(dir int, name string) (*os.File, error) {
	fd, err := unix.Openat(dir, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: name, Err: err}
	}
	return os.NewFile(uintptr(fd), name), nil
}

// copyDir copies what is in a directory, and its own attributes.
func copyDir(from, to *os.File, st *unix.Stat_t, mode bool) error {
	entries, err := from.ReadDir(-1)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if err := copyEntry(from, to, e.Name()); err != nil {
			return fmt.Errorf("%s/%s: %w", from.Name(), e.Name(), err)
		}
	}
	if err := copyXattrs(int(from.Fd()), int(to.Fd())); err != nil {
		return err
	}
	return attributes(int(to.Fd()), st, mode)
}

// attributes sets owner, mode and times of a copy. The owner comes first: changing it takes away the setuid bit.
func attributes(fd int, st *unix.Stat_t, mode bool) error {
	if err := unix.Fchown(fd, int(st.Uid), int(st.Gid)); err != nil {
		return fmt.Errorf("chown: %w", err)
	}
	if mode {
		if err := unix.Fchmod(fd, st.Mode&0o7777); err != nil {
			return fmt.Errorf("chmod: %w", err)
		}
	}
	times := []unix.Timespec{st.Atim, st.Mtim}
	return unix.UtimesNanoAt(fd, "", times, unix.AT_EMPTY_PATH)
}

func copyEntry(from, to *os.File, name string) error {
	dir, target := int(from.Fd()), int(to.Fd())
	var st unix.Stat_t
	if err := unix.Fstatat(dir, name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return err
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
		source, err := openDirAt(dir, name)
		if err != nil {
			return err
		}
		defer source.Close()
		// Its own mode comes last, as the owner does: until then it is root's alone, whatever is still to be copied into it.
		if err := unix.Mkdirat(target, name, 0o700); err != nil {
			return err
		}
		copied, err := openDirAt(target, name)
		if err != nil {
			return err
		}
		defer copied.Close()
		return copyDir(source, copied, &st, true)
	case unix.S_IFREG:
		return copyFile(dir, target, name)
	case unix.S_IFLNK:
		// The kernel takes no longer one (PATH_MAX), so it can't be cut short here.
		buf := make([]byte, unix.PathMax)
		n, err := unix.Readlinkat(dir, name, buf)
		if err != nil {
			return err
		}
		if err := unix.Symlinkat(string(buf[:n]), target, name); err != nil {
			return err
		}
	default: // a device, a FIFO or a socket
		if err := unix.Mknodat(target, name, st.Mode, int(st.Rdev)); err != nil {
			return err
		}
		if err := beneath.ChmodNode(target, name, st.Mode&0o7777); err != nil {
			return err
		}
	}
	return unix.Fchownat(target, name, int(st.Uid), int(st.Gid), unix.AT_SYMLINK_NOFOLLOW)
}

func copyFile(dir, target int, name string) error {
	// A volume may be written by another container meanwhile, which could put a device in the file's place.
	path, err := unix.Openat(dir, name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(path)
	source, err := beneath.Reopen(path, name)
	if err != nil {
		return err
	}
	defer source.Close()
	var st unix.Stat_t
	if err := unix.Fstat(int(source.Fd()), &st); err != nil {
		return err
	}
	fd, err := unix.Openat(target, name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return err
	}
	copied := os.NewFile(uintptr(fd), name)
	defer copied.Close()
	if _, err := io.Copy(copied, source); err != nil {
		return err
	}
	if err := attributes(fd, &st, true); err != nil {
		return err
	}
	return copyXattrs(int(source.Fd()), fd) // last, because a change of owner takes file capabilities away
}

// copyXattrs copies extended attributes, such as file capabilities. Those that the new file system doesn't have, like the user's
// on a tmpfs before Linux 6.6, can't be copied.
func copyXattrs(from, to int) error {
	size, err := unix.Flistxattr(from, nil)
	if err != nil || size == 0 {
		return nil //nolint:nilerr // a file system without
	}
	names := make([]byte, size)
	if size, err = unix.Flistxattr(from, names); err != nil {
		return fmt.Errorf("list extended attributes: %w", err)
	}
	if size == 0 {
		return nil // overlayfs counts its own, which it doesn't list: of a directory that hides a lower layer's
	}
	for name := range strings.SplitSeq(strings.TrimRight(string(names[:size]), "\x00"), "\x00") {
		// XATTR_SIZE_MAX: there is no longer one (xattr(7)).
		value := make([]byte, 64<<10)
		n, err := unix.Fgetxattr(from, name, value)
		if err == nil {
			err = unix.Fsetxattr(to, name, value[:n], 0)
		}
		if err != nil && err != unix.EOPNOTSUPP && err != unix.ENODATA {
			return fmt.Errorf("extended attribute %s: %w", name, err)
		}
	}
	return nil
}
