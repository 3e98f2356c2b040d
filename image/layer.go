package image

import (
	"bufio"
	"bytes"
	"compress/bzip2"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"golang.org/x/sys/unix"

	"glassbox/host/remove"
	"glassbox/state"
)

// layerRecord is SHORT.json: a complete layer.
type layerRecord struct {
	ID      string        `json:"id"` // the diff ID, or a variant's ID
	DiffID  string        `json:"diffID"`
	Dir     string        `json:"dir"` // relative to the store's root
	Size    int64         `json:"size"`
	Entries int           `json:"entries"`
	Implied []string      `json:"implied,omitempty"` // directories the archive lacks
	Links   []pendingLink `json:"links,omitempty"`   // hard links to files of layers beneath; only ever in a variant
	Hiding  []string      `json:"hiding,omitempty"`  // directories that hold whiteouts
}

func (r *layerRecord) layer() Layer { return Layer{DiffID: r.DiffID, Dir: r.Dir, Size: r.Size} }

// lookupLayer finds a complete layer by its diff ID or variant ID; nil if there is none.
func (s *Store) lookupLayer(id string) (*layerRecord, error) {
	h := hexOf(id)
	// Twelve digits are a short name for a mount's options; where two layers begin alike the second one has more
	// (publish).
	for n := 12; n <= len(h); n += 4 {
		r := &layerRecord{}
		err := readJSON(s.path("layers", h[:n]+".json"), r)
		if errors.Is(err, fs.ErrNotExist) {
			return nil, nil
		}
		if err != nil {
			return nil, err
		}
		if r.ID == id {
			return r, nil
		}
	}
	return nil, nil
}

// ingest is a layer directory being filled. Its flock tells Collect that somebody lives.
type ingest struct {
	store *Store
	dir   string
	f     *os.File
	user  bool
}

func (s *Store) newIngest() (*ingest, error) {
	frm, err := s.prepare()
	if err != nil {
		return nil, err
	}
	unlock, err := s.lock() // Collect must not see it before the flock is held
	if err != nil {
		return nil, err
	}
	defer unlock()
	dir, err := os.MkdirTemp(s.layersDir(), "in.")
	if err != nil {
		return nil, diskError("layer", "", err)
	}
	f, err := os.OpenFile(dir, os.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if err == nil {
		// While the store's lock is held, so that Collect sees either no directory or one with somebody alive.
		err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	}
	if err != nil {
		os.Remove(dir)
		return nil, fmt.Errorf("layer directory %s: %w", dir, err)
	}
	return &ingest{store: s, dir: dir, f: f, user: frm.UserXattr}, nil
}

// discard removes what was filled.
func (in *ingest) discard() {
	if in.f != nil {
		remove.All(in.dir)
		in.f.Close()
		in.f = nil
	}
}

// publish gives a filled directory its final name, unless another process was faster; then its own is dropped.
func (in *ingest) publish(rec layerRecord, sync *syncer) (*layerRecord, error) {
	s := in.store
	// Before the rename: the name says that the content is on the disk.
	if err := sync.sync(in.f); err != nil {
		return nil, diskError("layer", rec.ID, err)
	}
	unlock, err := s.lock()
	if err != nil {
		return nil, err
	}
	// Asked under the lock: two pulls of two images may have the same layer.
	have, err := s.lookupLayer(rec.ID)
	if err != nil || have != nil {
		unlock()
		in.discard()
		return have, err
	}
	defer unlock()
	h := hexOf(rec.ID)
	for n := 12; ; n += 4 {
		if n > len(h) {
			return nil, fmt.Errorf("layer %s: no free name", rec.ID)
		}
		if _, err := os.Lstat(s.path("layers", h[:n]+".json")); err == nil {
			continue // another layer whose ID starts so
		}
		final := filepath.Join(s.layersDir(), h[:n])
		if _, err := os.Lstat(final); err == nil { // renamed by a process that was killed before it wrote the record
			if err := s.setAside(final); err != nil {
				return nil, err
			}
		}
		if err := os.Rename(in.dir, final); err != nil {
			return nil, fmt.Errorf("publish layer: %w", err)
		}
		rec.Dir = filepath.Join("layers", h[:n])
		// The directory's name must be on the disk before the record that leads to it.
		if err := state.Sync(s.layersDir()); err != nil {
			return nil, err
		}
		if err := writeJSON(s.path("layers", h[:n]+".json"), rec); err != nil {
			in.dir = final
			return nil, err
		}
		in.f.Close()
		in.f = nil
		return &rec, nil
	}
}

// setAside moves a directory to a name that Collect removes.
func (s *Store) setAside(dir string) error {
	to, err := os.MkdirTemp(s.layersDir(), "rm.")
	if err != nil {
		return err
	}
	return os.Rename(dir, filepath.Join(to, "d"))
}

// syncer lets layers that finish together share one syncfs(2), which costs what is dirty, not what is asked.
type syncer struct {
	mu      sync.Mutex
	running sync.Mutex
	next    int // the number of the next sync to start
	done    int // syncs finished
	err     error
}

func (g *syncer) sync(f *os.File) error {
	g.mu.Lock()
	mine := g.next // only a sync that starts from now on covers what we wrote
	g.mu.Unlock()
	g.running.Lock()
	defer g.running.Unlock()
	g.mu.Lock()
	// A sync that began after our writes has ended meanwhile, for somebody else: it covered ours.
	if g.done > mine {
		err := g.err
		g.mu.Unlock()
		return err
	}
	g.next++
	g.mu.Unlock()
	err := unix.Syncfs(int(f.Fd()))
	g.mu.Lock()
	g.done, g.err = g.next, err
	g.mu.Unlock()
	return err
}

// decompress opens a layer stream by its first bytes: media types of layers are often wrong, and the diff ID is checked
// anyway. It may wait until other layers of the pull have given memory back.
func decompress(ctx context.Context, r io.Reader, m *meter) (io.ReadCloser, error) {
	b := bufio.NewReaderSize(r, 64<<10)
	magic, err := b.Peek(4)
	if err != nil && err != io.EOF {
		return nil, err
	}
	switch {
	case bytes.HasPrefix(magic, []byte{0x1f, 0x8b}):
		z, err := gzip.NewReader(b)
		if err != nil {
			return nil, fmt.Errorf("gzip: %w", err)
		}
		return z, nil
	case bytes.Equal(magic, []byte{0x28, 0xb5, 0x2f, 0xfd}),
		// 0x184D2A50 to 5F are skippable frames (RFC 8878, 3.1.2), with which a stream may begin.
		len(magic) == 4 && magic[0]&0xf0 == 0x50 && magic[1] == 0x2a && magic[2] == 0x4d && magic[3] == 0x18:
		return unzstd(ctx, b, m)
	case bytes.HasPrefix(magic, []byte("BZh")): // no registry has it, import may
		return io.NopCloser(bzip2.NewReader(b)), nil
	}
	return io.NopCloser(b), nil
}

// usualWindow is room for what zstd makes at its levels up to 19 (8 MiB), and then some: the first frame of a stream says how much memory
// it wants, the later ones are only held to that.
const usualWindow = 32 << 20

// unzstd opens a zstd stream. The window that its first frame asks for is taken from what all layers of the pull have together.
func unzstd(ctx context.Context, b *bufio.Reader, m *meter) (io.ReadCloser, error) {
	most := m.limits.ZstdWindow
	window := uint64(most)
	head, err := b.Peek(zstd.HeaderMaxSize)
	if err != nil && err != io.EOF {
		return nil, err
	}
	var h zstd.Header
	if err := h.Decode(head); err == nil && !h.Skippable { // what stands behind a frame that is skipped is not known yet
		window = h.WindowSize
		if h.SingleSegment {
			// A frame of a single segment has no window of its own: all of its content is one.
			window = h.FrameContentSize
		}
	}
	if window > uint64(most) {
		return nil, zstd.ErrWindowSizeExceeded
	}
	// At least the usual window: later frames of the stream may want more than the first one, and can't be asked now.
	want := min(max(int64(window), usualWindow), most)
	release, err := m.takeWindow(ctx, want)
	if err != nil {
		return nil, err
	}
	z, err := zstd.NewReader(b,
		zstd.WithDecoderMaxWindow(uint64(want)),
		zstd.WithDecoderMaxMemory(uint64(m.limits.Bytes)),
		zstd.WithDecoderLowmem(true),
		zstd.WithDecoderConcurrency(1)) // two would keep a second window
	if err != nil {
		release()
		return nil, fmt.Errorf("zstd: %w", err)
	}
	return &windowReader{z.IOReadCloser(), release}, nil
}

// windowReader gives a decoder's memory back when it is closed.
type windowReader struct {
	io.ReadCloser
	release func()
}

func (w *windowReader) Close() error {
	err := w.ReadCloser.Close()
	w.release()
	return err
}

// inflow counts what came over the network.
type inflow struct {
	r io.Reader
	m *meter
}

func (f inflow) Read(p []byte) (int, error) {
	n, err := f.r.Read(p)
	f.m.in.Add(int64(n))
	return n, err
}

// outflow counts unpacked bytes and stops a decompression bomb.
type outflow struct {
	r io.Reader
	m *meter
}

func (f outflow) Read(p []byte) (int, error) {
	n, err := f.r.Read(p)
	// Also with an error: what is too much is told before what is wrong.
	if over := f.m.unpacked(n); over != nil {
		return 0, over
	}
	return n, err
}

// hashReader hashes what passes.
type hashReader struct {
	r io.Reader
	h interface{ Write([]byte) (int, error) }
}

func (h hashReader) Read(p []byte) (int, error) {
	n, err := h.r.Read(p)
	h.h.Write(p[:n])
	return n, err
}

const (
	aheadSize  = 256 << 10
	aheadCount = 4
)

// fill unpacks a compressed stream into the ingest directory and checks the diff ID. cancel must
// unblock src. The stages run side by side: src and its digest; decompression; diff ID and files.
func (in *ingest) fill(ctx context.Context, src io.Reader, diffID string, m *meter, cancel func()) (*unpacked, error) {
	compressed := newAhead(src, aheadSize, aheadCount)
	defer compressed.Close()
	defer cancel()
	z, err := decompress(ctx, inflow{compressed, m}, m)
	if err != nil {
		return nil, layerError(diffID, err)
	}
	defer z.Close()
	b := outflow{z, m}
	plain := newAhead(b, aheadSize, aheadCount)
	// Order of the end: cancel unblocks the network, which ends compressed's fill, which ends plain's.
	defer func() {
		cancel()
		compressed.Close()
		plain.Close()
	}()
	out, got, err := in.record(ctx, plain, diffID, m)
	if err != nil {
		if errors.Is(err, ErrLayer) || errors.Is(err, ErrTruncated) {
			// Altered bytes are the likelier reason for an archive that makes no sense: let the blob's digest speak.
			plain.Close()
			if _, cause := io.CopyN(io.Discard, compressed, 256<<20); errors.Is(cause, ErrDigest) || errors.Is(cause, ErrTruncated) {
				return nil, cause
			}
		}
		return nil, err
	}
	if _, err := io.Copy(io.Discard, compressed); err != nil { // so that the blob's own digest is checked to the end
		return nil, layerError(diffID, err)
	}
	if diffID != "" && got != diffID {
		return nil, &Error{
			Op: "layer", Name: diffID, Kind: ErrDigest, Text: "the unpacked content has another digest, " + got,
			Hint: "the image was built wrongly; its maker must mend it",
		}
	}
	return out, nil
}

// record unpacks a plain archive and keeps the record of it, if it is the one that is expected (any, where diffID is empty). It returns
// the archive's digest.
func (in *ingest) record(ctx context.Context, plain io.Reader, diffID string, m *meter) (*unpacked, string, error) {
	h := sha256.New()
	rec, err := in.store.newRecorder(hashReader{ctxReader{ctx, plain}, h}, m)
	if err != nil {
		return nil, "", err
	}
	defer rec.close()
	out, err := unpack(rec, int(in.f.Fd()), in.user, m)
	if err == nil {
		// The archive's end mark may be followed by padding, which is part of both digests.
		_, err = io.Copy(io.Discard, rec)
	}
	if err != nil {
		return nil, "", layerError(diffID, err)
	}
	got := "sha256:" + hex.EncodeToString(h.Sum(nil))
	// Only of the archive that was asked for. Any other is thrown away, with its record.
	if diffID == "" || got == diffID {
		err = rec.keep(got)
	}
	out.DiffID, out.Tar = got, rec.size
	return out, got, err
}

type ctxReader struct {
	ctx context.Context
	r   io.Reader
}

func (c ctxReader) Read(p []byte) (int, error) {
	if err := context.Cause(c.ctx); err != nil {
		return 0, err
	}
	return c.r.Read(p)
}

func layerError(id string, err error) error {
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	if e := (*Error)(nil); errors.As(err, &e) {
		return err
	}
	if errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) {
		return diskError("layer", id, err)
	}
	kind := ErrLayer
	switch {
	case errors.Is(err, zstd.ErrWindowSizeExceeded), errors.Is(err, zstd.ErrDecoderSizeExceeded):
		kind = ErrLimit
	case errors.Is(err, io.ErrUnexpectedEOF):
		kind = ErrTruncated
	}
	return &Error{Op: "layer", Name: id, Kind: kind, Text: "cannot be unpacked", Err: err}
}

// chainID names a layer on top of a stack, as the OCI image spec defines it.
func chainID(below, diffID string) string {
	if below == "" {
		return diffID
	}
	return digestOf([]byte(below + " " + diffID))
}

// variantID names the form of a layer that fits one place in one stack. It is never a diff ID, also at the bottom.
func variantID(chain string) string { return digestOf([]byte("variant of " + chain)) }

// needsVariant reports whether directories that a layer's archive lacks look otherwise in the layers beneath (bottom
// first), so that the plain layer would hide the difference; or whether it has whiteouts where there is nothing to hide,
// which overlayfs would list as names that cannot be opened.
func (s *Store) needsVariant(rec *layerRecord, below []Layer, mt *meter) (bool, error) {
	// Hard links to files of the layers beneath can't be in a plain layer at all.
	if len(rec.Links) > 0 {
		return true, nil
	}
	// At the bottom there is nothing to look otherwise, but whiteouts that hide nothing are still to go.
	if len(rec.Implied) == 0 && len(rec.Hiding) == 0 || len(below) == 0 {
		return len(rec.Hiding) > 0, nil
	}
	m, err := openMerged(s.root, below)
	if err != nil {
		return false, err
	}
	defer m.close()
	m.meter = mt
	for _, p := range rec.Hiding {
		if ok, err := m.isDir(p); !ok || err != nil {
			return err == nil, err
		}
	}
	for _, p := range rec.Implied {
		f, err := m.lookup(p, false)
		if err == unix.ENOENT || err == unix.ENOTDIR {
			continue
		}
		if err != nil {
			return false, err
		}
		st := f.stat
		f.close()
		switch st.Mode & unix.S_IFMT {
		case unix.S_IFDIR:
			// The root's time is not looked at: a container's own upper directory covers it, and most layers lack the root.
			if st.Mode&0o7777 != 0o755 || st.Uid != 0 || st.Gid != 0 || p != "" && !unixTime(st.Mtim).Equal(epoch) {
				return true, nil
			}
		case unix.S_IFLNK:
			return true, nil
		}
	}
	return false, nil
}

// isDir reports whether the stack shows a directory at p itself.
func (m *merged) isDir(p string) (bool, error) {
	f, err := m.lookup(p, false)
	if err == unix.ENOENT || err == unix.ENOTDIR || err == unix.ELOOP {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer f.close()
	return f.path == p && f.is(unix.S_IFDIR), nil
}

func unixTime(t unix.Timespec) time.Time { return time.Unix(t.Unix()) }

func splitPath(p string) (dir, base string) {
	i := strings.LastIndexByte(p, '/')
	if i < 0 {
		return "", p
	}
	return p[:i], p[i+1:]
}
