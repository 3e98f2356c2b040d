// Package tree copies trees of files that somebody hostile may be changing meanwhile: out of containers, into them, and as tar archives.
//
// # One idea
//
// A name is looked up once, to a descriptor that stands for the file and has not opened it (O_PATH); what kind of file it is is asked of
// that descriptor; only a regular file or a directory is then opened, by the descriptor. From a directory one goes on by single names that
// are never followed. So a container that puts a link, a FIFO or a device in a file's place wins nothing but a copy of the link, the FIFO
// or the device (CVE-2018-15664, CVE-2019-14271: other engines resolved paths by name, or ran the container's programs for it).
//
// # Refuses
//
// Paths with parts are looked up by [Lookup] and [Parent] only, inside a root as if it were "/", through no magic link. More of a file is
// never read than it had when it was opened: it may grow for ever. Sockets are left out, as in any archive.
//
// Start reading at [Copy], then [WriteTar] and [ExtractTar].
package tree

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"path"
	"strconv"
	"strings"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"glassbox/host/beneath"
)

// deepest is how many directories may lie in one another: each level costs two descriptors.
const deepest = 8192

// mostLinks is how many files with several names are remembered at once, so that they have several names in the copy, too. Of more the
// contents are copied again: memory must stay bounded.
const mostLinks = 1 << 17

// Options of a copy.
type Options struct {
	// UID and GID are the owners of everything that is made; -1: those of the source.
	UID, GID int
	// Harmless leaves out what would give rights to whoever can reach the copy: set-user-ID bits, file capabilities, devices.
	Harmless bool
	// LeftOut is told what isn't copied, and why. It may be nil.
	LeftOut func(name, why string)
	// Bytes counts what an archive of the copy would hold, in bytes. It may be nil.
	Bytes *int64
	// Context ends the copy before it is complete. It may be nil.
	Context context.Context
}

// over is the error of a copy that shall not go on.
func (o *Options) over() error {
	if o.Context == nil {
		return nil
	}
	return context.Cause(o.Context)
}

func (o *Options) leaveOut(name, why string) {
	if o.LeftOut != nil {
		o.LeftOut(name, why)
	}
}

func (o *Options) count(size int64) {
	if o.Bytes != nil {
		atomic.AddInt64(o.Bytes, 512+(size+511)&^511)
	}
}

// Lookup gives an O_PATH descriptor of what has a name below root, inside which links are followed; the last one only if that is wished.
// Root is a descriptor of a directory.
func Lookup(root int, name string, follow bool) (int, error) {
	flags := uint64(unix.O_PATH | unix.O_CLOEXEC)
	if !follow {
		flags |= unix.O_NOFOLLOW
	}
	rel := strings.TrimLeft(name, "/")
	if rel == "" {
		rel = "."
	}
	how := unix.OpenHow{Flags: flags, Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS}
	fd, err := unix.Openat2(root, rel, &how)
	for n := 0; n < 1000 && (err == unix.EAGAIN || err == unix.EINTR); n++ { // something was renamed while ".." was resolved
		fd, err = unix.Openat2(root, rel, &how)
	}
	if err != nil {
		return -1, &fs.PathError{Op: "open", Path: name, Err: err}
	}
	return fd, nil
}

// Parent opens the directory that holds a name below root, and gives the name in it. The root itself has none.
func Parent(root int, name string) (dir *os.File, base string, err error) {
	clean := path.Clean("/" + name)
	if clean == "/" {
		return nil, "", &fs.PathError{Op: "open", Path: name, Err: unix.EEXIST}
	}
	fd, err := Lookup(root, path.Dir(clean), true)
	if err != nil {
		return nil, "", err
	}
	defer unix.Close(fd)
	d, err := openDir(fd, path.Dir(clean))
	return d, path.Base(clean), err
}

// openDir opens for reading a directory of which there is a descriptor.
func openDir(fd int, name string) (*os.File, error) { return openDirAt(fd, ".", name) }

func openDirAt(dir int, base, name string) (*os.File, error) {
	fd, err := unix.Openat(dir, base, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: name, Err: err}
	}
	return os.NewFile(uintptr(fd), name), nil
}

// makeDir makes a directory, if it isn't there, and opens it. Until its own mode is set it is for nobody else: it is there before its owner
// is the right one.
func makeDir(dir int, base, name string) (*os.File, error) {
	err := unix.Mkdirat(dir, base, 0o700)
	if err == unix.EEXIST {
		var is unix.Stat_t
		if err = unix.Fstatat(dir, base, &is, unix.AT_SYMLINK_NOFOLLOW); err == nil && is.Mode&unix.S_IFMT != unix.S_IFDIR {
			return nil, overwriteError(name, false)
		}
	}
	if err != nil {
		return nil, &fs.PathError{Op: "mkdir", Path: name, Err: err}
	}
	return openDirAt(dir, base, name)
}

// opener opens regular files by their O_PATH descriptors.
type opener struct{ proc int }

// newOpener looks whether /proc is procfs, by whose magic links alone a descriptor can be opened.
func newOpener() (*opener, error) {
	proc, err := beneath.ProcFD()
	if err != nil {
		return nil, err
	}
	return &opener{proc}, nil
}

func (o *opener) close() { unix.Close(o.proc) }

// open opens a regular file for reading. O_NONBLOCK: a lease that somebody holds on the file would be waited for (fcntl(2), F_SETLEASE).
func (o *opener) open(fd int, name string) (int, error) {
	again, err := unix.Openat(o.proc, strconv.Itoa(fd), unix.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY|unix.O_CLOEXEC|unix.O_NOATIME, 0)
	if err == unix.EPERM { // O_NOATIME is for the owner
		again, err = unix.Openat(o.proc, strconv.Itoa(fd), unix.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	}
	if err != nil {
		return -1, &fs.PathError{Op: "open", Path: name, Err: err}
	}
	return again, nil
}

// links remembers files with several names, by what they are in the source.
type links map[[2]uint64]string

// seen gives the first name of a file in the copy, or remembers this one.
func (l links) seen(st *unix.Stat_t, name string) (string, bool) {
	if st.Nlink < 2 {
		return "", false
	}
	key := [2]uint64{uint64(st.Dev), st.Ino}
	first, ok := l[key]
	if !ok && len(l) < mostLinks {
		l[key] = name
	}
	return first, ok
}

// attributesOf reads the extended attributes that a copy takes along: those of users, file capabilities, and lists of access rights
// (acl(5)). Labels of security modules and marks of overlays are the host's business.
//
// A name for which refuse, if there is one, has an error is the end of it.
func attributesOf(fd int, harmless bool, refuse func(name string) error) (map[string]string, error) {
	buf := make([]byte, 4<<10)
	n, err := unix.Flistxattr(fd, buf)
	if err == unix.ERANGE {
		buf = make([]byte, 64<<10) // XATTR_LIST_MAX
		n, err = unix.Flistxattr(fd, buf)
	}
	if err != nil || n == 0 {
		return nil, nil //nolint:nilerr // a file system without
	}
	var out map[string]string
	for name := range strings.SplitSeq(strings.TrimRight(string(buf[:n]), "\x00"), "\x00") {
		if refuse != nil {
			if err := refuse(name); err != nil {
				return nil, err
			}
		}
		if !carried(name) || harmless && name == capabilityAttr {
			continue
		}
		value := make([]byte, 64<<10) // XATTR_SIZE_MAX
		n, err := unix.Fgetxattr(fd, name, value)
		switch {
		case err == unix.ENODATA || err == unix.EOPNOTSUPP:
			continue
		case err != nil:
			return nil, fmt.Errorf("extended attribute %s: %w", name, err)
		}
		if out == nil {
			out = map[string]string{}
		}
		out[name] = string(value[:n])
	}
	return out, nil
}

const (
	capabilityAttr = "security.capability"
	aclAttr        = "system.posix_acl_access"
	aclDefaultAttr = "system.posix_acl_default"
)

// carried says which extended attributes go along. Those of "user.overlay." are the kernel's marks where an ordinary user mounts, those of
// "user.glassbox." the image store's: both say something of the place where a file is.
func carried(name string) bool {
	own := strings.HasPrefix(name, "user.overlay.") || strings.HasPrefix(name, "user.glassbox.")
	return strings.HasPrefix(name, "user.") && !own || name == capabilityAttr || name == aclAttr || name == aclDefaultAttr
}

// setAttributes writes extended attributes. A file system without those is no error.
func setAttributes(fd int, attributes map[string]string) error {
	for name, value := range attributes {
		if err := unix.Fsetxattr(fd, name, []byte(value), 0); err != nil && err != unix.EOPNOTSUPP && err != unix.EPERM {
			return fmt.Errorf("extended attribute %s: %w", name, err)
		}
	}
	return nil
}

// permissions are the bits of a mode that the copy gets.
func (o *Options) permissions(mode uint32) uint32 {
	if o.Harmless {
		return mode & 0o1777
	}
	return mode & 0o7777
}

// owner is who the copy belongs to.
func (o *Options) owner(uid, gid int) (int, int) {
	if o.UID >= 0 {
		uid = o.UID
	}
	if o.GID >= 0 {
		gid = o.GID
	}
	return uid, gid
}

// overwriteError is what Docker says of a copy that would replace a directory by a file or a file by a directory.
func overwriteError(name string, isDir bool) error {
	if isDir {
		return fmt.Errorf("cannot overwrite directory %q with non-directory", name)
	}
	return fmt.Errorf("cannot overwrite non-directory %q with directory", name)
}

// clear makes room for a file: what has its name goes, but for a directory.
func clear(dir int, base, name string) error {
	var st unix.Stat_t
	if err := unix.Fstatat(dir, base, &st, unix.AT_SYMLINK_NOFOLLOW); err == unix.ENOENT {
		return nil
	} else if err != nil {
		return &fs.PathError{Op: "stat", Path: name, Err: err}
	}
	if st.Mode&unix.S_IFMT == unix.S_IFDIR {
		return overwriteError(name, true)
	}
	if err := unix.Unlinkat(dir, base, 0); err != nil && err != unix.ENOENT {
		return &fs.PathError{Op: "remove", Path: name, Err: err}
	}
	return nil
}

// Mode is a mode as stat(2) gives it, in Go's bits.
func Mode(m uint32) fs.FileMode {
	mode := fs.FileMode(m & 0o777)
	switch m & unix.S_IFMT {
	case unix.S_IFDIR:
		mode |= fs.ModeDir
	case unix.S_IFLNK:
		mode |= fs.ModeSymlink
	case unix.S_IFIFO:
		mode |= fs.ModeNamedPipe
	case unix.S_IFSOCK:
		mode |= fs.ModeSocket
	case unix.S_IFCHR:
		mode |= fs.ModeDevice | fs.ModeCharDevice
	case unix.S_IFBLK:
		mode |= fs.ModeDevice
	}
	if m&unix.S_ISUID != 0 {
		mode |= fs.ModeSetuid
	}
	if m&unix.S_ISGID != 0 {
		mode |= fs.ModeSetgid
	}
	if m&unix.S_ISVTX != 0 {
		mode |= fs.ModeSticky
	}
	return mode
}
