package image

import (
	"archive/tar"
	"bufio"
	"bytes"
	"compress/bzip2"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"
	"sync/atomic"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"
)

// tarIndex is an archive of images with its files to be read in any order: manifests stand where the maker put them, most often last.
// Nothing of it is unpacked; names are only compared, so that they can lead nowhere.
type tarIndex struct {
	f     *os.File
	files map[string]tarEntry
	dir   *os.Root   // of a layout that is a directory
	open  []*os.File // files of it
}

func (t *tarIndex) close() {
	for _, f := range t.open {
		f.Close()
	}
	if t.dir != nil {
		t.dir.Close()
	}
}

type tarEntry struct {
	off, size int64
	link      string // of links: what they stand for, cleaned
}

// maxIndex is the number of entries of an archive of images: two for each layer, and a few.
const maxIndex = 200_000

func badArchive(format string, args ...any) error {
	return &Error{Op: "load", Kind: ErrManifest, Text: fmt.Sprintf(format, args...)}
}

// openTar indexes an archive. What can't be read twice, and what is compressed, goes to a file without a name first.
func (s *Store) openTar(ctx context.Context, f *os.File, m *meter) (*tarIndex, error) {
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if st.IsDir() {
		return openLayout(f.Name())
	}
	// A file may have been read up to a place by its owner, from where the archive begins.
	pos := int64(0)
	if st.Mode().IsRegular() {
		if pos, err = f.Seek(0, io.SeekCurrent); err != nil {
			return nil, err
		}
	}
	var src io.Reader = ctxReader{ctx, f}
	// A read of a pipe can't be interrupted; one of a file comes to its end.
	if !st.Mode().IsRegular() {
		pipe := unblocked(ctx, f)
		defer pipe.Close()
		src = pipe
	}
	b := bufio.NewReaderSize(src, 256<<10)
	magic, err := b.Peek(6)
	if err != nil && err != io.EOF {
		return nil, err
	}
	if len(magic) == 0 {
		return nil, badArchive("the archive is empty")
	}
	var plain io.Reader
	switch {
	case bytes.HasPrefix(magic, []byte{0x1f, 0x8b}):
		plain, err = gzip.NewReader(b)
	case bytes.HasPrefix(magic, []byte{0x28, 0xb5, 0x2f, 0xfd}):
		var z *zstd.Decoder
		z, err = zstd.NewReader(b, zstd.WithDecoderMaxWindow(uint64(m.limits.ZstdWindow)), zstd.WithDecoderLowmem(true))
		if err == nil {
			defer z.Close()
		}
		plain = z
	case bytes.HasPrefix(magic, []byte("BZh")):
		plain = bzip2.NewReader(b)
	case bytes.HasPrefix(magic, []byte{0xfd, '7', 'z', 'X', 'Z', 0}):
		return nil, &Error{Op: "load", Kind: ErrUnsupported, Text: "the archive is compressed with xz", Hint: "xz -dc FILE | glassbox load"}
	}
	if err != nil {
		return nil, badArchive("the archive can't be decompressed: %v", err)
	}
	t := &tarIndex{f: f, files: map[string]tarEntry{}}
	if plain != nil || !st.Mode().IsRegular() {
		if plain == nil {
			plain = b
		} else {
			plain = outflow{plain, m}
			m.in.Store(1 << 40) // what came isn't counted here: the layers' own limits hold
		}
		if t.f, err = s.spool(plain, m); err != nil {
			return nil, err
		}
		t.open, pos = append(t.open, t.f), 0
	}
	if err := t.index(ctx, pos, m); err != nil {
		t.close()
		return nil, err
	}
	return t, nil
}

// spool writes a stream to a file below the store's root that has no name: it goes with the process.
func (s *Store) spool(r io.Reader, m *meter) (*os.File, error) {
	f, err := s.nameless()
	if err != nil {
		return nil, err
	}
	if _, err := io.CopyBuffer(struct{ io.Writer }{countedWriter{f, m}}, struct{ io.Reader }{r}, make([]byte, 256<<10)); err != nil {
		f.Close()
		if errors.Is(err, io.ErrUnexpectedEOF) {
			return nil, &Error{Op: "load", Kind: ErrTruncated, Text: "the archive is cut short", Err: err}
		}
		return nil, diskError("load", "", err)
	}
	return f, nil
}

func (s *Store) nameless() (*os.File, error) {
	fd, err := unix.Open(s.path(), unix.O_TMPFILE|unix.O_RDWR|unix.O_CLOEXEC, 0o600)
	if err == nil {
		return os.NewFile(uintptr(fd), "spool"), nil
	}
	f, err := os.CreateTemp(s.path(), ".tmp-*") // a file system that has none without a name, such as NFS
	if err != nil {
		return nil, diskError("image store", s.root, err)
	}
	os.Remove(f.Name())
	return f, nil
}

// position follows where in the file the tar reader is.
type position struct {
	io.ReadSeeker
	n int64
}

func (p *position) Read(b []byte) (int, error) {
	n, err := p.ReadSeeker.Read(b)
	p.n += int64(n)
	return n, err
}

func (p *position) Seek(off int64, whence int) (int64, error) {
	n, err := p.ReadSeeker.Seek(off, whence)
	if err == nil {
		p.n = n
	}
	return n, err
}

func (t *tarIndex) index(ctx context.Context, start int64, m *meter) error {
	p := &position{ReadSeeker: io.NewSectionReader(t.f, start, 1<<62)}
	tr := tar.NewReader(p)
	for n := 0; ; n++ {
		if err := context.Cause(ctx); err != nil {
			return err
		}
		h, err := tr.Next()
		if err == io.EOF && n > 0 {
			return nil
		}
		if err != nil {
			if errors.Is(err, io.ErrUnexpectedEOF) {
				return &Error{Op: "load", Kind: ErrTruncated, Text: "the archive is cut short", Err: err}
			}
			return badArchive("this is no archive of images: %v", err)
		}
		if n > maxIndex {
			return &Error{Op: "load", Kind: ErrLimit, Text: fmt.Sprintf("the archive has more than %d entries", maxIndex)}
		}
		// As if from a root, so that .. stays inside; the name is only compared.
		name := path.Clean("/" + h.Name)[1:]
		e := tarEntry{off: start + p.n, size: h.Size}
		switch h.Typeflag {
		case tar.TypeReg:
			// The content of a sparse file isn't where the entry says.
			if isPaxSparse(h) {
				continue
			}
		case tar.TypeLink:
			e.link = path.Clean("/" + h.Linkname)[1:]
		case tar.TypeSymlink:
			e.link = path.Clean("/" + path.Dir(name) + "/" + h.Linkname)[1:]
		default:
			continue
		}
		if _, ok := t.files[name]; ok {
			return badArchive("the archive has %.100q twice, so that its meaning depends on who reads it", name)
		}
		if err := m.note(name + e.link); err != nil {
			return err
		}
		t.files[name] = e
	}
}

// openLayout indexes an OCI layout, or a docker archive, that has been unpacked. Links that lead out of it are not followed (os.Root).
func openLayout(dir string) (*tarIndex, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	t := &tarIndex{files: map[string]tarEntry{}, dir: root}
	err = fs.WalkDir(root.FS(), ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		info, err := d.Info()
		if err == nil {
			t.files[name] = tarEntry{size: info.Size()}
		}
		if len(t.files) > maxIndex {
			return &Error{Op: "load", Name: dir, Kind: ErrLimit, Text: fmt.Sprintf("more than %d files", maxIndex)}
		}
		return err
	})
	if err != nil {
		t.close()
		return nil, err
	}
	return t, nil
}

// openFile opens a regular file of an unpacked layout. O_NONBLOCK: it may be a FIFO by now.
func (t *tarIndex) openFile(name string) (*os.File, error) {
	f, err := t.dir.OpenFile(name, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	t.open = append(t.open, f)
	if st, err := f.Stat(); err != nil || !st.Mode().IsRegular() {
		return nil, badArchive("%.200q is no file", name)
	}
	return f, nil
}

// find finds a file; links are followed within the archive.
func (t *tarIndex) find(name string) (tarEntry, bool) {
	name = path.Clean("/" + name)[1:]
	// Links to links, a few: docker save has them from an older layer to a newer one.
	for range 8 {
		e, ok := t.files[name]
		if !ok || e.link == "" {
			return e, ok
		}
		name = e.link
	}
	return tarEntry{}, false
}

func (t *tarIndex) reader(name string) (*io.SectionReader, error) {
	e, ok := t.find(name)
	if !ok {
		return nil, badArchive("the archive lacks %.200q, which its manifest names", name)
	}
	if t.dir != nil {
		f, err := t.openFile(path.Clean("/" + name)[1:])
		return io.NewSectionReader(f, 0, e.size), err
	}
	return io.NewSectionReader(t.f, e.off, e.size), nil
}

// small reads a file of at most limit bytes.
func (t *tarIndex) small(name string, limit int64) ([]byte, error) {
	r, err := t.reader(name)
	if err != nil {
		return nil, err
	}
	if r.Size() > limit {
		return nil, &Error{Op: "load", Kind: ErrLimit, Text: fmt.Sprintf("%.200q has %d bytes, at most %d are read", name, r.Size(), limit)}
	}
	b := make([]byte, r.Size())
	if _, err := io.ReadFull(r, b); err != nil {
		return nil, &Error{Op: "load", Kind: ErrTruncated, Text: "the archive is cut short", Err: err}
	}
	return b, nil
}

// blobFile is the name of a blob in an OCI layout.
func blobFile(digest string) string { return "blobs/sha256/" + hexOf(digest) }

// blob reads a document that the layout has by its digest, and checks it.
func (t *tarIndex) blob(d v1.Descriptor, limit int64) ([]byte, error) {
	raw, err := t.small(blobFile(string(d.Digest)), limit)
	if err != nil {
		return nil, err
	}
	if got := digestOf(raw); got != string(d.Digest) {
		return nil, &Error{Op: "load", Name: string(d.Digest), Kind: ErrDigest, Text: "the archive has another content under this digest, " + got}
	}
	return raw, nil
}

// tarSource gives layers out of an archive.
type tarSource struct {
	t     *tarIndex
	names map[string]string // digest → name, where it isn't the layout's
}

func (s *tarSource) blob(ctx context.Context, d v1.Descriptor) stream {
	name, named := s.names[string(d.Digest)]
	if !named {
		name = blobFile(string(d.Digest))
	}
	r, err := s.t.reader(name)
	if err == nil && !named && r.Size() != d.Size {
		err = &Error{
			Op: "load", Name: string(d.Digest), Kind: ErrDigest,
			Text: fmt.Sprintf("the archive has %d bytes of it, its manifest says %d", r.Size(), d.Size),
		}
	}
	b := &tarStream{r: r, err: err}
	if !named { // else the diff ID alone says what it is
		b.hash, b.want = sha256.New(), string(d.Digest)
	}
	return b
}

type tarStream struct {
	r    *io.SectionReader
	n    atomic.Int64
	hash hash.Hash
	want string
	err  error
}

func (b *tarStream) received() int64 { return b.n.Load() }
func (b *tarStream) Close() error    { return nil }

func (b *tarStream) Read(p []byte) (int, error) {
	if b.err != nil {
		return 0, b.err
	}
	n, err := b.r.Read(p)
	b.n.Add(int64(n))
	if b.hash != nil {
		b.hash.Write(p[:n])
	}
	// The reader ends at the file's own end, which may be before the entry's.
	if err == io.EOF && b.n.Load() < b.r.Size() {
		err = &Error{Op: "load", Kind: ErrTruncated, Text: "the archive is cut short"}
	}
	if err == io.EOF && b.hash != nil {
		if got := "sha256:" + hex.EncodeToString(b.hash.Sum(nil)); got != b.want {
			err = &Error{Op: "load", Name: b.want, Kind: ErrDigest, Text: "the archive has another content under this digest, " + got}
		}
	}
	if err != nil {
		b.err = err
	}
	return n, err
}

// isName reports whether an annotation is an image's name and not a tag alone.
func isName(s string) bool { return strings.ContainsAny(s, ":/") }
