package image

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"glassbox/host/beneath"
)

// treeWriter writes directories of the host, which a container may be writing at the same time, as a tar archive. Every name is opened
// from the descriptor of its directory, never through a link, and what is opened is looked at again: a container that exchanges files
// and links can make the archive say this or that, but nothing of the host gets into it.
type treeWriter struct {
	ctx   context.Context
	tw    *tar.Writer
	diff  bool // marks of overlayfs become whiteouts; else what they hide is left out
	links map[[2]uint64]string
	buf   []byte
}

// WriteMerged writes what overlayfs would show of directories, top first, as a tar archive. Sockets are left out: tar has no word for them.
func WriteMerged(ctx context.Context, w io.Writer, dirs []string) error {
	return writeTree(ctx, w, dirs, false)
}

func writeTree(ctx context.Context, w io.Writer, dirs []string, diff bool) error {
	m, err := openMergedDirs(dirs)
	if err != nil {
		return err
	}
	defer m.close()
	t := &treeWriter{ctx: ctx, tw: tar.NewWriter(w), diff: diff, links: map[[2]uint64]string{}, buf: make([]byte, 256<<10)}
	var fds []int
	for _, r := range m.roots {
		fd, err := openDirAt(r, ".")
		if err != nil {
			closeAll(fds)
			return err
		}
		fds = append(fds, fd)
		if isOpaque(fd) {
			break
		}
	}
	if err := t.dir(fds, "", 0); err != nil {
		return err
	}
	return t.tw.Close()
}

// shown is a name of a directory, and the layers that have it.
type shown struct {
	stat unix.Stat_t
	at   int // the first layer
}

// dir writes what is in a directory, which several layers may have, top first. It closes their descriptors.
func (t *treeWriter) dir(fds []int, path string, depth int) error {
	defer func() { closeAll(fds) }()
	if depth > maxTreeDepth {
		return &Error{
			Op: "archive", Name: fmt.Sprintf("%.60q…", path), Kind: ErrLimit,
			Text: fmt.Sprintf("directories nested more than %d deep", maxTreeDepth),
		}
	}
	all := map[string]shown{}
	for i, fd := range fds {
		names, err := namesIn(fd)
		if err != nil {
			return fmt.Errorf("/%s: %w", path, err)
		}
		for _, name := range names {
			if _, ok := all[name]; ok {
				continue
			}
			s := shown{at: i}
			if err := unix.Fstatat(fd, name, &s.stat, unix.AT_SYMLINK_NOFOLLOW); err == unix.ENOENT {
				continue
			} else if err != nil {
				return fmt.Errorf("/%s: %w", joinPath(path, name), err)
			}
			all[name] = s
		}
	}
	names := make([]string, 0, len(all))
	for name := range all {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		if err := context.Cause(t.ctx); err != nil {
			return err
		}
		s := all[name]
		if err := t.entry(fds, name, joinPath(path, name), &s, depth); err != nil {
			return err
		}
	}
	return nil
}

// maxTreeDepth is that of [Limits]: what is written can be read again.
const maxTreeDepth = 256

func namesIn(fd int) ([]string, error) {
	dup, err := openDirAt(fd, ".")
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(dup), "directory")
	defer f.Close()
	return f.Readdirnames(-1)
}

func (t *treeWriter) entry(fds []int, name, path string, s *shown, depth int) error {
	fail := func(err error) error { return fmt.Errorf("/%s: %w", path, err) }
	if isWhiteout(&s.stat) {
		if !t.diff {
			return nil
		}
		dir, base := splitPath(path)
		return t.tw.WriteHeader(&tar.Header{Name: joinPath(dir, whPrefix+base), Typeflag: tar.TypeReg, ModTime: time.Unix(s.stat.Mtim.Unix())})
	}
	fd := fds[s.at]
	h := &tar.Header{
		Name: path, Mode: int64(s.stat.Mode & 0o7777), Uid: int(s.stat.Uid), Gid: int(s.stat.Gid), ModTime: time.Unix(s.stat.Mtim.Unix()),
	}
	switch s.stat.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
		return t.subdir(fds, name, h, s, depth)
	case unix.S_IFREG:
		return t.file(fd, name, h)
	case unix.S_IFLNK:
		target, err := readlinkat(fd, name)
		if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOENT) {
			return nil // no link any more
		}
		if err != nil {
			return fail(err)
		}
		h.Typeflag, h.Linkname, h.Mode = tar.TypeSymlink, target, 0o777
	case unix.S_IFIFO:
		h.Typeflag = tar.TypeFifo
	case unix.S_IFCHR:
		h.Typeflag, h.Devmajor, h.Devminor = tar.TypeChar, int64(unix.Major(s.stat.Rdev)), int64(unix.Minor(s.stat.Rdev))
	case unix.S_IFBLK:
		h.Typeflag, h.Devmajor, h.Devminor = tar.TypeBlock, int64(unix.Major(s.stat.Rdev)), int64(unix.Minor(s.stat.Rdev))
	default: // sockets
		return nil
	}
	if err := t.tw.WriteHeader(h); err != nil {
		return fail(err)
	}
	return nil
}

func (t *treeWriter) subdir(fds []int, name string, h *tar.Header, s *shown, depth int) error {
	fail := func(err error) error { return fmt.Errorf("/%s: %w", h.Name, err) }
	path := h.Name
	var subs []int
	for _, fd := range fds[s.at:] {
		sub, err := openDirAt(fd, name)
		if errors.Is(err, unix.ENOENT) && len(subs) > 0 {
			continue
		}
		if err != nil { // no directory there, or no more: it ends what is beneath
			break
		}
		subs = append(subs, sub)
		if isOpaque(sub) {
			break
		}
	}
	if len(subs) == 0 {
		return nil
	}
	var err error
	if h.PAXRecords, err = xattrRecords(subs[0]); err != nil {
		closeAll(subs)
		return fail(err)
	}
	h.Name, h.Typeflag = path+"/", tar.TypeDir
	if err := t.tw.WriteHeader(h); err != nil {
		closeAll(subs)
		return fail(err)
	}
	if t.diff && isOpaque(subs[0]) {
		if err := t.tw.WriteHeader(&tar.Header{Name: path + "/" + whOpaque, Typeflag: tar.TypeReg, ModTime: h.ModTime}); err != nil {
			closeAll(subs)
			return fail(err)
		}
	}
	return t.dir(subs, path, depth+1)
}

// file writes a regular file. Its size is that of the moment it was opened: what is missing of it later is zeros.
func (t *treeWriter) file(dirfd int, name string, h *tar.Header) error {
	fail := func(err error) error { return fmt.Errorf("/%s: %w", h.Name, err) }
	f, err := beneath.Open(dirfd, name)
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, beneath.ErrIrregular) {
		return nil // gone, or exchanged, since it was looked at
	}
	if err != nil {
		return fail(err)
	}
	defer f.Close()
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return fail(err)
	}
	h.Typeflag, h.Mode, h.Uid, h.Gid = tar.TypeReg, int64(st.Mode&0o7777), int(st.Uid), int(st.Gid)
	inode := [2]uint64{uint64(st.Dev), st.Ino}
	if first, ok := t.links[inode]; ok && st.Nlink > 1 {
		h.Typeflag, h.Linkname = tar.TypeLink, first
		return t.tw.WriteHeader(h)
	}
	if st.Nlink > 1 {
		t.links[inode] = h.Name
	}
	if h.PAXRecords, err = xattrRecords(int(f.Fd())); err != nil {
		return fail(err)
	}
	h.Size = st.Size
	if err := t.tw.WriteHeader(h); err != nil {
		return fail(err)
	}
	src := io.MultiReader(f, zeros{})
	_, err = io.CopyBuffer(struct{ io.Writer }{t.tw}, io.LimitReader(src, st.Size), t.buf)
	if err != nil {
		return fail(err)
	}
	return nil
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

// xattrRecords are the attributes that images keep (see docs/images.md), as tar has them. Marks of overlayfs that name another place for
// what a file is are refused: what is beneath them would be taken for what it isn't.
func xattrRecords(fd int) (map[string]string, error) {
	buf := make([]byte, 64<<10) // XATTR_LIST_MAX
	n, err := unix.Flistxattr(fd, buf)
	if errors.Is(err, unix.ENOTSUP) || n == 0 {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var out map[string]string
	for name := range strings.SplitSeq(strings.TrimSuffix(string(buf[:n]), "\x00"), "\x00") {
		switch name {
		case "trusted.overlay.redirect", "trusted.overlay.metacopy", "user.overlay.redirect", "user.overlay.metacopy":
			return nil, errors.New("the kernel's overlay file system has moved it without its content (redirect_dir or metacopy is on)")
		}
		own := strings.HasPrefix(name, "user.overlay.") || strings.HasPrefix(name, "user.glassbox.")
		if own || !strings.HasPrefix(name, "user.") && name != "security.capability" && name != aclAccess && name != aclDefault {
			continue
		}
		value := make([]byte, 64<<10) // XATTR_SIZE_MAX
		k, err := unix.Fgetxattr(fd, name, value)
		if errors.Is(err, unix.ENODATA) {
			continue
		}
		if err != nil {
			return nil, err
		}
		if out == nil {
			out = map[string]string{}
		}
		out["SCHILY.xattr."+name] = string(value[:k])
	}
	return out, nil
}
