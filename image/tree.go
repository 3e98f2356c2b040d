package image

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"glassbox/host/tree"
)

// treeWriter writes directories of the host, which a container may be writing at the same time, as a tar archive of what overlayfs shows of
// them. Every name is opened from the descriptor of its directory, never through a link, and only what is opened is looked at: a container
// that exchanges files and links can make the archive say this or that, but nothing of the host gets into it.
type treeWriter struct {
	*tree.Writer
	ctx  context.Context
	tw   *tar.Writer
	diff bool // marks of overlayfs become whiteouts; else what they hide is left out
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
	archive := tar.NewWriter(w)
	files, err := tree.NewWriter(ctx, archive)
	if err != nil {
		return err
	}
	defer files.Close()
	files.Refuse = movedByOverlay
	t := &treeWriter{files, ctx, archive, diff}
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

// dir writes what is in a directory, which several layers may have, top first. It closes their descriptors.
func (t *treeWriter) dir(fds []int, path string, depth int) error {
	defer func() { closeAll(fds) }()
	if depth > maxTreeDepth {
		return &Error{
			Op: "archive", Name: fmt.Sprintf("%.60q…", path), Kind: ErrLimit,
			Text: fmt.Sprintf("directories nested more than %d deep", maxTreeDepth),
		}
	}
	at := map[string]int{} // the first layer that has a name: what it has there hides all others
	for i, fd := range fds {
		names, err := namesIn(fd)
		if err != nil {
			return fmt.Errorf("/%s: %w", path, err)
		}
		for _, name := range names {
			if _, ok := at[name]; !ok {
				at[name] = i
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(at)) { // one tree is always one archive, whatever order the disk has
		if err := context.Cause(t.ctx); err != nil {
			return err
		}
		if err := t.entry(fds[at[name]:], name, joinPath(path, name), depth); err != nil {
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

// entry writes what a name is: what the first of the layers has, and where that is a directory, what the others have in theirs.
func (t *treeWriter) entry(fds []int, name, path string, depth int) error {
	fail := func(err error) error { return fmt.Errorf("/%s: %w", path, err) }
	fd, err := unix.Openat(fds[0], name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.ENOENT) {
		return nil // gone since the directory was read
	}
	if err != nil {
		return fail(err)
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return fail(err)
	}
	switch {
	case isWhiteout(&st) && t.diff:
		dir, base := splitPath(path)
		return t.mark(joinPath(dir, whPrefix+base), &st)
	case isWhiteout(&st):
		return nil
	case st.Mode&unix.S_IFMT == unix.S_IFDIR:
		return t.subdir(fd, fds[1:], name, path, &st, depth)
	}
	if err := t.File(fd, &st, path); err != nil {
		return fail(err)
	}
	return nil
}

// mark writes one of the empty files that stand for what a layer takes away (image-spec, layer.md).
func (t *treeWriter) mark(path string, st *unix.Stat_t) error {
	return t.tw.WriteHeader(&tar.Header{Name: path, Typeflag: tar.TypeReg, ModTime: time.Unix(st.Mtim.Unix())})
}

// subdir writes a directory, which the layers beneath may have, too, as far as none of them has something else there, or is opaque.
func (t *treeWriter) subdir(fd int, beneath []int, name, path string, st *unix.Stat_t, depth int) error {
	fail := func(err error) error { return fmt.Errorf("/%s: %w", path, err) }
	first, err := openDirAt(fd, ".")
	if err != nil {
		return fail(err)
	}
	dirs := []int{first}
	for i := 0; i < len(beneath) && !isOpaque(dirs[len(dirs)-1]); i++ {
		sub, err := openDirAt(beneath[i], name)
		if errors.Is(err, unix.ENOENT) {
			continue
		}
		if err != nil { // a file or a whiteout, which ends what is beneath
			break
		}
		dirs = append(dirs, sub)
	}
	err = t.Directory(first, st, path)
	if err == nil && t.diff && isOpaque(first) {
		err = t.mark(path+"/"+whOpaque, st)
	}
	if err != nil {
		closeAll(dirs)
		return fail(err)
	}
	return t.dir(dirs, path, depth+1)
}

// movedByOverlay refuses marks of overlayfs that name another place for what a file is: what is beneath them would be taken for what it
// isn't.
func movedByOverlay(attribute string) error {
	switch attribute {
	case "trusted.overlay.redirect", "trusted.overlay.metacopy", "user.overlay.redirect", "user.overlay.metacopy":
		return errors.New("the kernel's overlay file system has moved it without its content (redirect_dir or metacopy is on)")
	}
	return nil
}
