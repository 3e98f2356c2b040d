package image

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/klauspost/compress/zstd"
	"golang.org/x/sys/unix"

	"glassbox/host/beneath"
)

// archive is a layer of the store as the tar archive that it came as: its record and its files (record.go).
type archive struct {
	store  *Store
	diffID string
	dir    string  // the layer's directory, relative to the store's root
	below  []Layer // the layer and those beneath it, bottom first: where a variant has moved files through their links
	size   int64   // of the archive
}

// ErrNoArchive is the kind of error for a layer whose archive can't be given back.
var ErrNoArchive = errors.New("layer archive not kept")

func noArchive(diffID, why string) error {
	return &Error{
		Op: "layer", Name: diffID, Kind: ErrNoArchive, Text: "its archive can't be made again byte for byte: " + why,
		Hint: "glassbox fsck --repair fetches the layer again from the registry that the image came from",
	}
}

// archives finds the archives of an image's layers, one for each diff ID of its config, bottom first. It reads the end of each record and
// nothing else.
func (i *Image) archives() ([]*archive, error) {
	var list []*archive
	stack := i.Layers
	for n, d := range i.Config.RootFS.DiffIDs {
		a := &archive{store: i.store, diffID: string(d)}
		used := 0
		// In the order of the stack: an image may have a layer twice, and each time it is another directory.
		for k, l := range stack {
			if l.DiffID == a.diffID {
				a.dir, used = l.Dir, k+1
				break
			}
		}
		if a.dir == "" { // one that comes twice, or shows nothing
			for _, l := range i.Layers {
				if l.DiffID == a.diffID {
					a.dir = l.Dir
				}
			}
		}
		at := len(i.Layers) - len(stack) + used
		a.below, stack = i.Layers[:at], stack[used:]
		if err := a.stat(); err != nil {
			return nil, fmt.Errorf("layer %d of %d: %w", n+1, len(i.Config.RootFS.DiffIDs), err)
		}
		list = append(list, a)
	}
	return list, nil
}

// emptyTar is the digest of an archive without entries: two blocks of zeros. Builders write it for instructions that change no file.
const emptyTar = "sha256:5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef"

func (a *archive) file() string { return a.store.path("tars", hexOf(a.diffID)) }

// stat reads the record's end.
func (a *archive) stat() error {
	f, err := os.Open(a.file())
	if errors.Is(err, fs.ErrNotExist) {
		if a.diffID == emptyTar {
			a.size = 1024
			return nil
		}
		return noArchive(a.diffID, "no record of it is kept (an earlier version pulled it, or it has files twice whose first content is lost)")
	}
	if err != nil {
		return err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return err
	}
	b := make([]byte, trailerLen)
	// The magic of a skippable frame (RFC 8878, 3.1.2): zstd passes over it, and we find the size without unpacking
	// anything.
	if _, err := f.ReadAt(b, st.Size()-trailerLen); err != nil || binary.LittleEndian.Uint32(b) != 0x184D2A50 {
		return noArchive(a.diffID, "the record of it is damaged")
	}
	a.size = int64(binary.LittleEndian.Uint64(b[8:]))
	if a.size < 0 {
		return noArchive(a.diffID, "the record of it is damaged")
	}
	return nil
}

// writeTo writes the archive. An error is returned also where all was written but isn't what the diff ID says.
func (a *archive) writeTo(ctx context.Context, w io.Writer) error {
	h := sha256.New()
	dst := io.MultiWriter(w, h)
	if _, err := os.Lstat(a.file()); a.diffID == emptyTar && errors.Is(err, fs.ErrNotExist) {
		_, err := dst.Write(make([]byte, 1024))
		return err
	}
	if err := a.replay(ctx, dst); err != nil {
		return err
	}
	if got := "sha256:" + hex.EncodeToString(h.Sum(nil)); got != a.diffID {
		return &Error{
			Op: "layer", Name: a.diffID, Kind: ErrDigest,
			Text: "its files aren't what they were: the archive made of them has another digest, " + got,
			Hint: "glassbox fsck --repair fetches the layer again from the registry that the image came from",
		}
	}
	return nil
}

// replay reads the record part by part.
func (a *archive) replay(ctx context.Context, w io.Writer) error {
	f, err := os.Open(a.file())
	if err != nil {
		return noArchive(a.diffID, err.Error())
	}
	defer f.Close()
	// The record was written with a window of 256 KiB: one that asks for more was not written by us.
	z, err := zstd.NewReader(f, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(1<<20))
	if err != nil {
		return err
	}
	defer z.Close()
	r := bufio.NewReaderSize(z, 64<<10)
	bad := func() error { return noArchive(a.diffID, "the record of it is damaged") }
	magic := make([]byte, len(recordMagic))
	if _, err := io.ReadFull(r, magic); err != nil || string(magic) != recordMagic {
		return bad()
	}
	files, err := a.openFiles()
	if err != nil {
		return err
	}
	defer files.close()
	buf := make([]byte, 256<<10)
	for n := int64(1); ; {
		if err := context.Cause(ctx); err != nil {
			return err
		}
		kind, err := r.ReadByte()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return bad()
		}
		size, err := binary.ReadUvarint(r)
		if err != nil || size > 1<<62 {
			return bad()
		}
		switch kind {
		case partLiteral:
			if m, err := io.CopyBuffer(struct{ io.Writer }{w}, io.LimitReader(r, int64(size)), buf); err != nil || m != int64(size) {
				if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) {
					return err
				}
				return bad()
			}
		case partFile:
			length, err := binary.ReadUvarint(r)
			if err != nil || length > 1<<16 {
				return bad()
			}
			path := make([]byte, length)
			if _, err := io.ReadFull(r, path); err != nil {
				return bad()
			}
			if err := files.copy(w, string(path), n, int64(size), buf); err != nil {
				return err
			}
			n++
		default:
			return bad()
		}
	}
}

// layerFiles gives the contents of a layer's files.
type layerFiles struct {
	a      *archive
	root   int
	parent string // that dir is open for
	dir    int
	merged *merged // opened when it is needed
	lost   *os.File
	gone   map[string][]lostContent
}

type lostContent struct{ before, off, size int64 }

func (a *archive) openFiles() (*layerFiles, error) {
	l := &layerFiles{a: a, root: -1, dir: -1}
	if a.dir != "" {
		fd, err := unix.Open(filepath.Join(a.store.root, a.dir), unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		if err != nil {
			return nil, noArchive(a.diffID, "its directory is gone")
		}
		l.root = fd
	}
	f, err := os.Open(a.file() + ".lost")
	if errors.Is(err, fs.ErrNotExist) {
		return l, nil
	}
	if err != nil {
		l.close()
		return nil, err
	}
	l.lost, l.gone = f, map[string][]lostContent{}
	for off := int64(0); ; {
		var head [lostHeader]byte
		if _, err := f.ReadAt(head[:], off); err == io.EOF {
			return l, nil
		}
		before, size, length := int64(binary.LittleEndian.Uint64(head[0:])), int64(binary.LittleEndian.Uint64(head[8:])),
			binary.LittleEndian.Uint64(head[16:])
		name := make([]byte, min(length, 1<<16))
		if _, err := f.ReadAt(name, off+lostHeader); err != nil || size < 0 || size > 1<<62 {
			l.close()
			return nil, noArchive(a.diffID, "the record of what it has twice is damaged")
		}
		off += lostHeader + int64(len(name))
		l.gone[string(name)] = append(l.gone[string(name)], lostContent{before, off, size})
		off += size
	}
}

func (l *layerFiles) close() {
	for _, fd := range []int{l.root, l.dir} {
		if fd >= 0 {
			unix.Close(fd)
		}
	}
	if l.merged != nil {
		l.merged.close()
	}
	if l.lost != nil {
		l.lost.Close()
	}
}

// copy writes the content that the n-th file part stands for.
func (l *layerFiles) copy(w io.Writer, path string, n, size int64, buf []byte) error {
	gone := l.gone[path]
	// The record counts parts. A lost content is that of the last part before the file went, and those of earlier names of
	// the path are passed over.
	for len(gone) > 0 && gone[0].before < n { // of an earlier part, or of none: it had another name
		gone = gone[1:]
	}
	if len(gone) > 0 {
		l.gone[path] = gone[1:]
		return l.put(w, io.NewSectionReader(l.lost, gone[0].off, gone[0].size), path, size, buf)
	}
	f, err := l.open(path)
	if err != nil {
		return noArchive(l.a.diffID, fmt.Sprintf("its file %.200q can't be read: %v", path, err))
	}
	defer f.Close()
	return l.put(w, f, path, size, buf)
}

func (l *layerFiles) put(w io.Writer, r io.Reader, path string, size int64, buf []byte) error {
	n, err := io.CopyBuffer(struct{ io.Writer }{w}, struct{ io.Reader }{io.LimitReader(r, size)}, buf)
	if err == nil && n != size {
		return noArchive(l.a.diffID, fmt.Sprintf("its file %.200q has %d bytes, and had %d", path, n, size))
	}
	return err
}

// open opens a file of the layer, by its path without links. In a variant a directory may have been moved to where a link of the layers
// beneath leads.
func (l *layerFiles) open(path string) (*os.File, error) {
	if l.root < 0 {
		return nil, fs.ErrNotExist
	}
	parent, base := splitPath(path)
	// Files of a directory follow each other in an archive: the descriptor of the last one is mostly the right one.
	if l.dir < 0 || parent != l.parent {
		fd, err := openBeneath(l.root, parent)
		if err != nil {
			return l.openMoved(path, err)
		}
		if l.dir >= 0 {
			unix.Close(l.dir)
		}
		l.dir, l.parent = fd, parent
	}
	f, err := beneath.Open(l.dir, base)
	if errors.Is(err, fs.ErrNotExist) {
		return l.openMoved(path, err)
	}
	return f, err
}

func (l *layerFiles) openMoved(path string, cause error) (*os.File, error) {
	// The lowest layer has nothing beneath it through which a directory could have been moved.
	if len(l.a.below) < 2 {
		return nil, cause
	}
	if l.merged == nil {
		m, err := openMerged(l.a.store.root, l.a.below)
		if err != nil {
			return nil, err
		}
		l.merged = m
	}
	f, err := l.merged.lookup(path, false)
	if err != nil {
		return nil, cause
	}
	defer f.close()
	return beneath.Open(f.dir, f.base)
}
