package tree

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Writer writes files as entries of an archive. It doesn't end the archive. Files are given by descriptors (O_PATH is enough), so that what
// is written is what was looked at, whoever exchanges names meanwhile. Where a file is shorter than it was when it was looked at, zeros
// stand in the archive.
type Writer struct {
	// Refuse is asked about each extended attribute by its name, also about those that archives don't take along; an error of it ends the
	// writing. It may be nil.
	Refuse func(attribute string) error

	ctx   context.Context
	w     *tar.Writer
	open  *opener
	links links
	buf   []byte
}

// NewWriter makes a writer, which Close closes.
func NewWriter(ctx context.Context, w *tar.Writer) (*Writer, error) {
	open, err := newOpener()
	if err != nil {
		return nil, err
	}
	return &Writer{ctx: ctx, open: open, w: w, links: links{}, buf: make([]byte, 256<<10)}, nil
}

// Close closes what the writer itself has opened.
func (t *Writer) Close() { t.open.close() }

// header describes a file as an entry of an archive, but for its extended attributes. Times are of whole seconds: each of the rest would
// be a header more.
func header(st *unix.Stat_t, name string) *tar.Header {
	h := &tar.Header{
		Name: name, Mode: int64(st.Mode & 0o7777), Uid: int(st.Uid), Gid: int(st.Gid), ModTime: time.Unix(int64(st.Mtim.Sec), 0),
		Format: tar.FormatPAX,
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		h.Typeflag, h.Size = tar.TypeReg, st.Size
	case unix.S_IFDIR:
		h.Typeflag = tar.TypeDir
		h.Name = strings.TrimSuffix(name, "/") + "/"
	case unix.S_IFLNK:
		h.Typeflag = tar.TypeSymlink
	case unix.S_IFIFO:
		h.Typeflag = tar.TypeFifo
	case unix.S_IFCHR, unix.S_IFBLK:
		h.Typeflag = tar.TypeChar
		if st.Mode&unix.S_IFMT == unix.S_IFBLK {
			h.Typeflag = tar.TypeBlock
		}
		h.Devmajor, h.Devminor = int64(unix.Major(uint64(st.Rdev))), int64(unix.Minor(uint64(st.Rdev)))
	}
	return h
}

// Tree writes a file or a directory, and what is below it. The names of a directory are written as they come: its reader could not hold
// all of one that a container has filled.
func (t *Writer) Tree(from int, name string) error { return t.entry(from, name, 0) }

func (t *Writer) entry(from int, name string, depth int) error {
	if depth > deepest {
		return fmt.Errorf("%.200s…: directories nested deeper than %d levels", name, deepest)
	}
	if err := context.Cause(t.ctx); err != nil {
		return err
	}
	var st unix.Stat_t
	if err := unix.Fstat(from, &st); err != nil {
		return &fs.PathError{Op: "stat", Path: name, Err: err}
	}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR {
		return t.File(from, &st, name)
	}
	d, err := openDir(from, name)
	if err != nil {
		return err
	}
	defer d.Close()
	if err := t.Directory(int(d.Fd()), &st, name); err != nil {
		return err
	}
	return t.contents(d, name, depth)
}

// Directory writes the entry of a directory alone, which is open for reading and described by st.
func (t *Writer) Directory(d int, st *unix.Stat_t, name string) error {
	h := header(st, name)
	if err := t.record(d, h); err != nil {
		return err
	}
	return t.w.WriteHeader(h)
}

// File writes what is no directory, and is described by st. Sockets are left out: archives have no word for them.
func (t *Writer) File(from int, st *unix.Stat_t, name string) error {
	h := header(st, name)
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFSOCK:
		return nil
	case unix.S_IFLNK:
		target := make([]byte, unix.PathMax)
		n, err := unix.Readlinkat(from, "", target) // of the descriptor itself, since Linux 2.6.39 (readlink(2))
		if err != nil {
			return &fs.PathError{Op: "readlink", Path: name, Err: err}
		}
		h.Linkname = string(target[:n])
	}
	if first, ok := t.links.seen(st, name); ok {
		h.Typeflag, h.Linkname, h.Size = tar.TypeLink, first, 0
		return t.w.WriteHeader(h)
	}
	if h.Typeflag == tar.TypeReg {
		return t.content(from, h)
	}
	return t.w.WriteHeader(h)
}

// record puts a file's extended attributes into its entry, in the form that all of the field read (GNU tar, star, bsdtar, Docker).
func (t *Writer) record(fd int, h *tar.Header) error {
	attributes, err := attributesOf(fd, false, t.Refuse)
	if err != nil {
		return fmt.Errorf("%s: %w", h.Name, err)
	}
	for name, value := range attributes {
		if h.PAXRecords == nil {
			h.PAXRecords = map[string]string{}
		}
		h.PAXRecords["SCHILY.xattr."+name] = value
	}
	return nil
}

func (t *Writer) contents(d *os.File, name string, depth int) error {
	for {
		names, err := d.Readdirnames(512)
		for _, base := range names {
			if err := t.child(d, base, below(name, base), depth); err != nil {
				return err
			}
		}
		if errors.Is(err, io.EOF) || err == nil && len(names) == 0 {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// below is the name of what lies in a directory, which is written as the directory's is: ./FILE in ".", /FILE in "/".
func below(dir, base string) string { return strings.TrimSuffix(dir, "/") + "/" + base }

func (t *Writer) child(d *os.File, base, name string, depth int) error {
	fd, err := unix.Openat(int(d.Fd()), base, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err == unix.ENOENT {
		return nil // gone meanwhile
	}
	if err != nil {
		return &fs.PathError{Op: "open", Path: name, Err: err}
	}
	defer unix.Close(fd)
	return t.entry(fd, name, depth+1)
}

func (t *Writer) content(path int, h *tar.Header) error {
	from, err := t.open.open(path, h.Name)
	if err != nil {
		return err
	}
	defer unix.Close(from)
	if err := t.record(from, h); err != nil {
		return err
	}
	if err := t.w.WriteHeader(h); err != nil {
		return err
	}
	for left := h.Size; left > 0; {
		if err := context.Cause(t.ctx); err != nil {
			return err
		}
		b := t.buf[:min(left, int64(len(t.buf)))]
		n, err := unix.Read(from, b)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return &fs.PathError{Op: "read", Path: h.Name, Err: err}
		}
		if n == 0 { // shorter by now: the header has said how much comes
			for i := range b {
				b[i] = 0
			}
			n = len(b)
		}
		if _, err := t.w.Write(b[:n]); err != nil {
			return err
		}
		left -= int64(n)
	}
	return nil
}
