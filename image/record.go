package image

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/klauspost/compress/zstd"
	"golang.org/x/sys/unix"

	"glassbox/host/beneath"
)

// A layer's record, ROOT/image/tars/HEX of the diff ID, is what unpacking loses of its archive: all bytes that are no file's content.
// With the layer's directory it gives the archive back byte for byte, so that diff IDs hold. Other engines keep the same in JSON
// (github.com/vbatts/tar-split), which parses the archive a second time and hashes every file again; here the one reader tells which
// bytes it took for what.
//
//	zstd( recordMagic { part } )  skippable zstd frame: size of the archive (8 bytes), parts of kind file (8 bytes)
//	part = 1 n bytes              literal: headers, padding, what of sparse files is stored, what follows the end mark
//	     | 2 size len path        the content of the file at path, without links, below the layer's directory
//
// Numbers are varints. Where an archive has a file twice, the first content is gone from the directory when the second comes: it goes to
// HEX.lost beforehand, as { file parts so far, size, length of the path (8 bytes each), path, content }: it is that of the last one before.
const (
	lostHeader    = 24
	recordMagic   = "glassbox layer record 1\n"
	partLiteral   = 1
	partFile      = 2
	trailerLen    = 24
	literalBuffer = 64 << 10
)

// recorder stands between an archive's bytes and the tar reader and writes the layer's record. The tar reader reads from it: in Next what
// is no content, in Read content alone.
type recorder struct {
	r     io.Reader
	store *Store
	meter *meter

	file    *os.File // .tmp-*, renamed when the diff ID is right
	lost    *os.File
	z       *zstd.Encoder
	w       *bufio.Writer
	literal []byte
	content bool // bytes are of the file that was named last, and not kept
	size    int64
	files   int64
	broken  bool            // something went that can't be given back: there is no record
	whole   map[string]bool // sparse files: all that the archive has of them is literal
}

// newRecorder records what is read of r. Its close removes what keep has not kept.
func (s *Store) newRecorder(r io.Reader, m *meter) (*recorder, error) {
	dir := s.path("tars")
	f, err := os.CreateTemp(dir, ".tmp-*")
	if errors.Is(err, os.ErrNotExist) { // a store of an earlier version
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, err
		}
		f, err = os.CreateTemp(dir, ".tmp-*")
	}
	if err != nil {
		return nil, diskError("layer", "", err)
	}
	c := &recorder{r: r, store: s, meter: m, file: f}
	// Fast and small: a record is mostly headers, which compress well at any level.
	c.z, err = zstd.NewWriter(countedWriter{f, m}, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(1),
		zstd.WithWindowSize(256<<10), zstd.WithLowerEncoderMem(true))
	if err != nil {
		c.close()
		return nil, err
	}
	c.w = bufio.NewWriterSize(c.z, 64<<10)
	c.w.WriteString(recordMagic)
	return c, nil
}

// countedWriter counts what goes to the disk against the pull's limit.
type countedWriter struct {
	w io.Writer
	m *meter
}

func (c countedWriter) Write(p []byte) (int, error) {
	if err := c.m.write(int64(len(p))); err != nil {
		return 0, err
	}
	return c.w.Write(p)
}

func (c *recorder) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.size += int64(n)
	if n > 0 && !c.content {
		if c.literal = append(c.literal, p[:n]...); len(c.literal) >= literalBuffer {
			if werr := c.flush(); werr != nil {
				return n, werr
			}
		}
	}
	return n, err
}

func (c *recorder) number(n int64) {
	var b [binary.MaxVarintLen64]byte
	c.w.Write(b[:binary.PutUvarint(b[:], uint64(n))])
}

func (c *recorder) flush() error {
	if len(c.literal) == 0 {
		return nil
	}
	c.w.WriteByte(partLiteral)
	c.number(int64(len(c.literal)))
	_, err := c.w.Write(c.literal)
	c.literal = c.literal[:0]
	return err
}

// begin says that the next size bytes are the content of the file at path; end, that they are over.
func (c *recorder) begin(path string, size int64) error {
	if c == nil {
		return nil
	}
	if err := c.flush(); err != nil {
		return err
	}
	c.w.WriteByte(partFile)
	c.number(size)
	c.number(int64(len(path)))
	_, err := c.w.WriteString(path)
	c.files++
	c.content = true
	return err
}

func (c *recorder) end() {
	if c != nil {
		c.content = false
	}
}

// sparse says that the file at path is one whose content the archive has in pieces: they are kept as they come.
func (c *recorder) sparse(path string) error {
	if c == nil {
		return nil
	}
	if c.whole == nil {
		c.whole = map[string]bool{}
	}
	c.whole[path] = true
	return c.meter.note(path)
}

// forget is told of a file that goes because a later entry of the archive has its name: its content is kept. Only where that costs no
// more than the archive itself has brought: a file with several names may be taken away any number of times.
func (c *recorder) forget(dirfd int, base, path string, st *unix.Stat_t) error {
	if c == nil || c.broken || st.Mode&unix.S_IFMT != unix.S_IFREG || st.Size == 0 {
		return nil
	}
	if c.whole[path] {
		delete(c.whole, path)
		return nil
	}
	// With other names left it could be taken away again and again, and its content would be kept each time.
	if st.Nlink > 1 {
		c.broken = true
		return nil
	}
	if c.lost == nil {
		f, err := os.CreateTemp(c.store.path("tars"), ".tmp-*")
		if err != nil {
			return diskError("layer", "", err)
		}
		c.lost = f
	}
	src, err := beneath.Open(dirfd, base)
	if err != nil {
		return err
	}
	defer src.Close()
	var head [lostHeader]byte
	binary.LittleEndian.PutUint64(head[0:], uint64(c.files))
	binary.LittleEndian.PutUint64(head[8:], uint64(st.Size))
	binary.LittleEndian.PutUint64(head[16:], uint64(len(path)))
	out := countedWriter{c.lost, c.meter}
	if _, err := out.Write(append(head[:], path...)); err != nil {
		return err
	}
	n, err := io.Copy(out, src)
	if err == nil && n != st.Size {
		err = fmt.Errorf("%s has %d bytes, not %d", path, n, st.Size)
	}
	return err
}

// unreproducible is told of what goes with all that is in it.
func (c *recorder) unreproducible() {
	if c != nil {
		c.broken = true
	}
}

// keep gives the record its name.
func (c *recorder) keep(diffID string) error {
	if c.broken {
		return nil
	}
	err := c.flush()
	if err == nil {
		err = c.w.Flush()
	}
	if err == nil {
		err = c.z.Close()
	}
	if err == nil {
		frame := binary.LittleEndian.AppendUint32(nil, 0x184D2A50)
		frame = binary.LittleEndian.AppendUint32(frame, trailerLen-8)
		frame = binary.LittleEndian.AppendUint64(frame, uint64(c.size))
		frame = binary.LittleEndian.AppendUint64(frame, uint64(c.files))
		_, err = c.file.Write(frame)
	}
	if err != nil {
		return diskError("layer", diffID, err)
	}
	final := c.store.path("tars", hexOf(diffID))
	if c.lost != nil {
		// The lost contents first: a record without them would give back a wrong archive, and they without a record are
		// nothing.
		if err := os.Rename(c.lost.Name(), final+".lost"); err != nil {
			return err
		}
		c.lost.Close()
		c.lost = nil
	}
	if err := os.Rename(c.file.Name(), final); err != nil {
		return err
	}
	c.file.Close()
	c.file = nil
	return nil
}

// close drops what was not kept.
func (c *recorder) close() {
	if c.z != nil {
		c.z.Close()
	}
	for _, f := range []*os.File{c.file, c.lost} {
		if f != nil {
			f.Close()
			os.Remove(f.Name())
		}
	}
}
