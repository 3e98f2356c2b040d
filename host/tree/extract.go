package tree

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"path"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"glassbox/host/beneath"
)

// ExtractTar unpacks an archive into a directory below root, as if root were "/": whatever links there are, in the archive or made
// meanwhile by somebody else, lead nowhere else. Directories are merged, other files replaced. The names of the archive must stay below
// the directory.
func ExtractTar(r io.Reader, root int, dir string, o Options) error {
	open, err := newOpener()
	if err != nil {
		return err
	}
	x := &extractor{Options: o, open: open, root: root, dir: path.Clean("/" + dir), buf: make([]byte, 256<<10), at: -1}
	defer x.close()
	archive := tar.NewReader(r)
	for {
		h, err := archive.Next()
		if err == io.EOF {
			return x.leave("")
		}
		if err != nil {
			return fmt.Errorf("the archive can't be read: %w", err)
		}
		if err := x.over(); err != nil {
			return err
		}
		if err := x.entry(h, archive); err != nil {
			return err
		}
	}
}

type extractor struct {
	Options
	open *opener
	root int
	dir  string
	buf  []byte
	// at is the directory in which the last entry was, whose path is parent.
	at     int
	parent string
	// times of directories, one in another: set when something outside of them comes
	times []dirTime
}

type dirTime struct {
	name string
	time time.Time
}

func (x *extractor) close() {
	if x.at >= 0 {
		unix.Close(x.at)
	}
	x.open.close()
}

// clean is a name of the archive below the directory, without "." and slashes in excess.
func (x *extractor) clean(name string) (string, error) {
	if strings.ContainsRune(name, 0) {
		return "", fmt.Errorf("the archive has a name with a NUL in it: %.100q", name)
	}
	for part := range strings.SplitSeq(name, "/") {
		if part == ".." {
			return "", fmt.Errorf("the archive has a name that leads out of the directory: %.100q", name)
		}
		if len(part) > unix.NAME_MAX {
			return "", fmt.Errorf("the archive has a name with a part of %d bytes: %.100q…", len(part), part)
		}
	}
	return strings.TrimPrefix(path.Clean("/"+name), "/"), nil
}

func (x *extractor) entry(h *tar.Header, r io.Reader) error {
	switch h.Typeflag {
	case tar.TypeXGlobalHeader:
		return nil
	case tar.TypeReg, tar.TypeDir, tar.TypeLink, tar.TypeSymlink, tar.TypeChar, tar.TypeBlock, tar.TypeFifo, tar.TypeGNUSparse:
	default:
		return fmt.Errorf("%.200q: an entry of an unknown type %q", h.Name, h.Typeflag)
	}
	name, err := x.clean(h.Name)
	if err != nil {
		return err
	}
	if h.Uid < 0 || h.Gid < 0 || int64(h.Uid) >= math.MaxUint32 || int64(h.Gid) >= math.MaxUint32 {
		return fmt.Errorf("%.200q: owner %d:%d is out of range", h.Name, h.Uid, h.Gid)
	}
	if name == "" { // the directory itself
		if h.Typeflag != tar.TypeDir {
			return fmt.Errorf("%.200q: a file in the place of the directory itself", h.Name)
		}
		return nil
	}
	if err := x.leave(name); err != nil {
		return err
	}
	dir, err := x.enter(path.Dir(name))
	if err != nil {
		return err
	}
	if err := x.make(h, dir, path.Base(name), name, r); err != nil {
		return fmt.Errorf("%.200s: %w", name, err)
	}
	x.count(h.Size)
	return nil
}

// enter opens the directory of an entry, and makes what is missing of it.
func (x *extractor) enter(parent string) (int, error) {
	if x.at >= 0 && x.parent == parent {
		return x.at, nil
	}
	fd, err := Lookup(x.root, path.Join(x.dir, parent), true)
	if errors.Is(err, fs.ErrNotExist) && parent != "." {
		above, err := x.enter(path.Dir(parent))
		if err != nil {
			return -1, err
		}
		if err := unix.Mkdirat(above, path.Base(parent), 0o755); err != nil && err != unix.EEXIST {
			return -1, &fs.PathError{Op: "mkdir", Path: parent, Err: err}
		}
		uid, gid := x.owner(0, 0)
		unix.Fchownat(above, path.Base(parent), uid, gid, unix.AT_SYMLINK_NOFOLLOW)
		fd, err = Lookup(x.root, path.Join(x.dir, parent), true)
		if err != nil {
			return -1, err
		}
		return x.enterAs(fd, parent)
	}
	if err != nil {
		return -1, err
	}
	return x.enterAs(fd, parent)
}

func (x *extractor) enterAs(fd int, parent string) (int, error) {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		unix.Close(fd)
		return -1, err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR {
		unix.Close(fd)
		return -1, &fs.PathError{Op: "open", Path: parent, Err: unix.ENOTDIR}
	}
	if x.at >= 0 {
		unix.Close(x.at)
	}
	x.at, x.parent = fd, parent
	return fd, nil
}

func (x *extractor) make(h *tar.Header, dir int, base, name string, r io.Reader) error {
	if h.Typeflag == tar.TypeDir {
		return x.directory(h, dir, base, name)
	}
	if x.Harmless && (h.Typeflag == tar.TypeChar || h.Typeflag == tar.TypeBlock) {
		x.leaveOut(name, "it is a device")
		return nil
	}
	if h.Typeflag == tar.TypeLink {
		return x.link(h, dir, base, name)
	}
	if err := clear(dir, base, name); err != nil {
		return err
	}
	mode := x.permissions(uint32(h.Mode))
	switch h.Typeflag {
	case tar.TypeReg, tar.TypeGNUSparse:
		return x.file(h, dir, base, r)
	case tar.TypeSymlink:
		if h.Linkname == "" || len(h.Linkname) >= unix.PathMax || strings.ContainsRune(h.Linkname, 0) {
			return errors.New("a symbolic link with an empty or overlong target")
		}
		if err := unix.Symlinkat(h.Linkname, dir, base); err != nil {
			return err
		}
	default:
		kind := map[byte]uint32{tar.TypeChar: unix.S_IFCHR, tar.TypeBlock: unix.S_IFBLK, tar.TypeFifo: unix.S_IFIFO}[h.Typeflag]
		if h.Devmajor < 0 || h.Devminor < 0 || h.Devmajor > math.MaxUint32 || h.Devminor > math.MaxUint32 {
			return errors.New("a device number out of range")
		}
		if err := unix.Mknodat(dir, base, kind|0o600, int(unix.Mkdev(uint32(h.Devmajor), uint32(h.Devminor)))); err != nil {
			return err
		}
		if err := beneath.ChmodNode(dir, base, mode); err != nil {
			return err
		}
	}
	uid, gid := x.owner(h.Uid, h.Gid)
	if err := unix.Fchownat(dir, base, uid, gid, unix.AT_SYMLINK_NOFOLLOW); err != nil && !ordinary(err) {
		return err
	}
	return unix.UtimesNanoAt(dir, base, timesOf(h), unix.AT_SYMLINK_NOFOLLOW)
}

func timesOf(h *tar.Header) []unix.Timespec {
	m := unix.NsecToTimespec(h.ModTime.UnixNano())
	return []unix.Timespec{m, m}
}

// attributes gives an open file what the archive says of it, but for times.
func (x *extractor) attributes(fd int, h *tar.Header) error {
	uid, gid := x.owner(h.Uid, h.Gid)
	if err := unix.Fchown(fd, uid, gid); err != nil && !ordinary(err) {
		return fmt.Errorf("chown: %w", err)
	}
	if err := unix.Fchmod(fd, x.permissions(uint32(h.Mode))); err != nil {
		return fmt.Errorf("chmod: %w", err)
	}
	attributes := map[string]string{}
	for key, value := range h.PAXRecords {
		name, ok := strings.CutPrefix(key, "SCHILY.xattr.")
		if ok && carried(name) && !strings.ContainsRune(name, 0) && !(x.Harmless && name == capabilityAttr) {
			attributes[name] = value
		}
	}
	return setAttributes(fd, attributes)
}

func (x *extractor) directory(h *tar.Header, dir int, base, name string) error {
	d, err := makeDir(dir, base, name)
	if err != nil {
		return err
	}
	defer d.Close()
	x.times = append(x.times, dirTime{name, h.ModTime})
	return x.attributes(int(d.Fd()), h)
}

// leave sets the times of the directories that an entry isn't in.
func (x *extractor) leave(next string) error {
	for n := len(x.times) - 1; n >= 0; n-- {
		d := x.times[n]
		if next != "" && strings.HasPrefix(next, d.name+"/") {
			return nil
		}
		x.times = x.times[:n]
		fd, err := Lookup(x.root, path.Join(x.dir, d.name), false)
		if err != nil {
			continue // gone meanwhile
		}
		at := unix.NsecToTimespec(d.time.UnixNano())
		unix.UtimesNanoAt(fd, "", []unix.Timespec{at, at}, unix.AT_EMPTY_PATH)
		unix.Close(fd)
	}
	return nil
}

// link makes a further name of a file of the archive.
func (x *extractor) link(h *tar.Header, dir int, base, name string) error {
	target, err := x.clean(h.Linkname)
	if err != nil || target == "" {
		return fmt.Errorf("a hard link to %.100q, which is not in the archive", h.Linkname)
	}
	parent, last, err := Parent(x.root, path.Join(x.dir, target))
	if err != nil {
		return err
	}
	defer parent.Close()
	var a, b unix.Stat_t
	if unix.Fstatat(int(parent.Fd()), last, &a, unix.AT_SYMLINK_NOFOLLOW) == nil &&
		unix.Fstatat(dir, base, &b, unix.AT_SYMLINK_NOFOLLOW) == nil && a.Dev == b.Dev && a.Ino == b.Ino {
		return nil // it has the name already
	}
	if err := clear(dir, base, name); err != nil {
		return err
	}
	if err := unix.Linkat(int(parent.Fd()), last, dir, base, 0); err != nil {
		return fmt.Errorf("link to %.200s: %w", target, err)
	}
	return nil
}

func (x *extractor) file(h *tar.Header, dir int, base string, r io.Reader) error {
	fd, err := unix.Openat(dir, base, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	var done int64
	for {
		n, err := io.ReadFull(r, x.buf)
		if over := x.over(); over != nil {
			err = over
		}
		if n > 0 && !zeros(x.buf[:n]) { // of a block of zeros a hole is left
			if err := writeAt(fd, x.buf[:n], done); err != nil {
				unix.Unlinkat(dir, base, 0)
				return err
			}
		}
		done += int64(n)
		if err == io.EOF || errors.Is(err, io.ErrUnexpectedEOF) && done == h.Size {
			break
		}
		if err != nil {
			unix.Unlinkat(dir, base, 0)
			return fmt.Errorf("the archive ends in the middle of a file: %w", err)
		}
	}
	if err := unix.Ftruncate(fd, done); err != nil {
		return err
	}
	if err := x.attributes(fd, h); err != nil {
		return err
	}
	return unix.UtimesNanoAt(fd, "", timesOf(h), unix.AT_EMPTY_PATH)
}

func zeros(b []byte) bool {
	if len(b) < 4096 { // not worth a hole
		return false
	}
	for _, c := range b {
		if c != 0 {
			return false
		}
	}
	return true
}
