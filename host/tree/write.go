package tree

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// TarOptions says how an archive is written.
type TarOptions struct {
	// Sorted writes the names of a directory in order, so that one tree is always one archive; the names of the largest directory are then
	// in memory.
	Sorted bool
	// Nanoseconds keeps them in the times of files, at the price of a header more for each.
	Nanoseconds bool
	// Keep says whether an entry, and all that is below it, is written, and may change its header. It may be nil. The file may be read
	// by the descriptor (O_PATH).
	Keep func(fd int, h *tar.Header) (bool, error)
	// LeftOut is told what isn't written, and why. It may be nil.
	LeftOut func(name, why string)
}

// WriteTar writes what a descriptor stands for (O_PATH is enough) as an entry of the given name, and what is below it. It doesn't end the
// archive. Where a file is shorter than it was when it was looked at, zeros stand in the archive.
func WriteTar(w *tar.Writer, from int, name string, o TarOptions) error {
	open, err := newOpener()
	if err != nil {
		return err
	}
	defer open.close()
	t := &writer{TarOptions: o, open: open, w: w, links: links{}, buf: make([]byte, 256<<10)}
	return t.entry(from, name, 0)
}

// WriteTarContents writes what is in a directory, without an entry for itself, below a prefix, which may be empty.
func WriteTarContents(w *tar.Writer, from int, prefix string, o TarOptions) error {
	open, err := newOpener()
	if err != nil {
		return err
	}
	defer open.close()
	t := &writer{TarOptions: o, open: open, w: w, links: links{}, buf: make([]byte, 256<<10)}
	return t.contents(from, prefix, 0)
}

type writer struct {
	TarOptions
	open  *opener
	w     *tar.Writer
	links links
	buf   []byte
}

// Header describes a file as an entry of an archive, but for its extended attributes.
func Header(st *unix.Stat_t, name string, nanoseconds bool) *tar.Header {
	h := &tar.Header{
		Name: name, Mode: int64(st.Mode & 0o7777), Uid: int(st.Uid), Gid: int(st.Gid), ModTime: time.Unix(st.Mtim.Unix()),
		Format: tar.FormatPAX,
	}
	if !nanoseconds {
		h.ModTime = h.ModTime.Truncate(time.Second)
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		h.Typeflag, h.Size = tar.TypeReg, st.Size
	case unix.S_IFDIR:
		h.Typeflag = tar.TypeDir
		h.Name += "/"
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

func (t *writer) entry(from int, name string, depth int) error {
	if depth > deepest {
		return fmt.Errorf("%.200s…: directories nested deeper than %d levels", name, deepest)
	}
	var st unix.Stat_t
	if err := unix.Fstat(from, &st); err != nil {
		return &fs.PathError{Op: "stat", Path: name, Err: err}
	}
	kind := st.Mode & unix.S_IFMT
	if kind == unix.S_IFSOCK {
		if t.LeftOut != nil {
			t.LeftOut(name, "it is a socket")
		}
		return nil
	}
	h := Header(&st, name, t.Nanoseconds)
	if kind == unix.S_IFLNK {
		target := make([]byte, unix.PathMax)
		n, err := unix.Readlinkat(from, "", target)
		if err != nil {
			return &fs.PathError{Op: "readlink", Path: name, Err: err}
		}
		h.Linkname = string(target[:n])
	}
	if t.Keep != nil {
		if keep, err := t.Keep(from, h); err != nil || !keep {
			return err
		}
	}
	if kind != unix.S_IFDIR {
		if first, ok := t.links.seen(&st, name); ok {
			h.Typeflag, h.Linkname, h.Size = tar.TypeLink, first, 0
			return t.w.WriteHeader(h)
		}
	}
	switch kind {
	case unix.S_IFDIR:
		return t.directory(from, name, h, depth)
	case unix.S_IFREG:
		return t.file(from, name, h)
	}
	return t.w.WriteHeader(h)
}

func record(h *tar.Header, attributes map[string]string) {
	for name, value := range attributes {
		if h.PAXRecords == nil {
			h.PAXRecords = map[string]string{}
		}
		h.PAXRecords["SCHILY.xattr."+name] = value
	}
}

func (t *writer) directory(from int, name string, h *tar.Header, depth int) error {
	d, err := openDir(from, name)
	if err != nil {
		return err
	}
	attributes, err := attributesOf(int(d.Fd()), false)
	d.Close()
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	record(h, attributes)
	if err := t.w.WriteHeader(h); err != nil {
		return err
	}
	return t.contents(from, name, depth)
}

func (t *writer) contents(from int, name string, depth int) error {
	d, err := openDir(from, name)
	if err != nil {
		return err
	}
	defer d.Close()
	at := 512
	if t.Sorted {
		at = -1
	}
	for {
		names, err := d.Readdirnames(at)
		if t.Sorted {
			slices.Sort(names)
		}
		for _, base := range names {
			if err := t.child(d, base, path.Join(name, base), depth); err != nil {
				return err
			}
		}
		if errors.Is(err, io.EOF) || err == nil && (t.Sorted || len(names) == 0) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

func (t *writer) child(d *os.File, base, name string, depth int) error {
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

func (t *writer) file(path int, name string, h *tar.Header) error {
	from, err := t.open.open(path, name)
	if err != nil {
		return err
	}
	defer unix.Close(from)
	attributes, err := attributesOf(from, false)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	record(h, attributes)
	if err := t.w.WriteHeader(h); err != nil {
		return err
	}
	for left := h.Size; left > 0; {
		b := t.buf[:min(left, int64(len(t.buf)))]
		n, err := unix.Read(from, b)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return &fs.PathError{Op: "read", Path: name, Err: err}
		}
		if n == 0 { // shorter by now
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
