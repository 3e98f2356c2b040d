package image

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
)

// Limits bound what an image may cost before its digests are known to be right: the disk (Bytes), the inodes (Entries), the memory
// (Notes, ZstdWindow, Manifest, Config) and the time (Work, Ratio). They count for all layers of one pull together, so that a bomb gains
// nothing by being cut into pieces. A zero field takes the default.
type Limits struct {
	// Bytes is what may be written: contents of files with their holes, attributes, targets of links, and 4 KiB for each entry, which
	// is what a small one takes on disk (default 128 GiB).
	Bytes int64
	// Entries is the number of inodes (default 3,000,000), and below EntriesFloor (default 250,000) all that is looked at: beyond,
	// each must have cost 16 bytes of what came over the network.
	Entries, EntriesFloor int
	// Ratio is the number of unpacked bytes for each byte that came, once RatioFloor bytes are out (defaults 300, 1 GiB); gzip can't
	// exceed 1032. What a manifest says of a layer's size counts for nothing here.
	Ratio, RatioFloor int64
	// Work bounds the steps that entries cost beyond making them: a component of a path that is opened, a link that is read, a name that is
	// compared (default 40 million, some three minutes of a processor). Large images take less than a tenth.
	Work int64
	// ZstdWindow is the memory of all zstd decoders of one pull, and the largest window (default 128 MiB, what the zstd program allows).
	// A decoder that doesn't fit waits for the others.
	ZstdWindow int64
	Notes      int64 // bytes of memory for the directories, whiteouts and pending links of all layers (default 128 MiB: some 800,000)
	Path       int   // bytes of a path or link target (default 4096, PATH_MAX)
	Depth      int   // components of a path (default 256); one descriptor is held for each
	Xattr      int   // bytes of extended attributes of one entry (default 128 KiB)
	Manifest   int64 // bytes of a manifest or index (default 4 MiB, what registries accept)
	Config     int64 // bytes of an image config (default 8 MiB)
	Layers     int   // layers of an image (default 500, what overlayfs stacks)
}

func (l Limits) withDefaults() Limits {
	def(&l.Bytes, 128<<30)
	def(&l.Entries, 3_000_000)
	def(&l.EntriesFloor, 250_000)
	def(&l.Ratio, 300)
	def(&l.RatioFloor, 1<<30)
	def(&l.Work, 40_000_000)
	def(&l.ZstdWindow, 128<<20)
	def(&l.Notes, 128<<20)
	def(&l.Path, 4096)
	def(&l.Depth, 256)
	def(&l.Xattr, 128<<10)
	def(&l.Manifest, 4<<20)
	def(&l.Config, 8<<20)
	def(&l.Layers, 500)
	return l
}

// maxPullMemory is what a pull takes at most of memory with the default limits, whatever comes: the windows, as much again that the garbage
// collector has not taken back, the notes, and the buffers of each layer.
const maxPullMemory = 640 << 20

func def[T comparable](p *T, v T) {
	var zero T
	if *p == zero {
		*p = v
	}
}

// meter counts what one pull has cost so far, for all its layers, which are unpacked side by side.
type meter struct {
	limits                     Limits
	in, out                    atomic.Int64 // bytes received; decompressed
	disk, entries, notes, work atomic.Int64
	local                      bool // nothing comes over a network: no ratio

	mu     sync.Mutex
	freed  *sync.Cond
	window int64 // memory of the zstd decoders at work
}

func newMeter(l Limits) *meter {
	m := &meter{limits: l.withDefaults()}
	m.freed = sync.NewCond(&m.mu)
	return m
}

// takeWindow waits until n bytes of the decoders' memory are free. n is at most Limits.ZstdWindow, so that one decoder always fits.
func (m *meter) takeWindow(ctx context.Context, n int64) (release func(), err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	// A condition variable knows no contexts: the context's end wakes all who wait, and each looks whether it is meant.
	stop := context.AfterFunc(ctx, func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		m.freed.Broadcast()
	})
	defer stop()
	// The first one always gets what it asks for; n is no more than the whole.
	for m.window > 0 && m.window+n > m.limits.ZstdWindow {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		m.freed.Wait()
	}
	m.window += n
	return sync.OnceFunc(func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		m.window -= n
		m.freed.Broadcast()
	}), nil
}

func limitError(format string, args ...any) error {
	return &Error{Op: "layer", Kind: ErrLimit, Text: fmt.Sprintf(format, args...)}
}

// entry counts an entry of an archive.
func (m *meter) entry() error {
	n := m.entries.Add(1)
	if n > int64(m.limits.Entries) {
		return limitError("the image has more than %d files", m.limits.Entries)
	}
	if n > int64(m.limits.EntriesFloor) && !m.local && n > m.in.Load()/16 {
		return limitError("%d files in %d bytes: a bomb", n, m.in.Load())
	}
	return m.write(4096)
}

// write counts bytes that go to the disk.
func (m *meter) write(n int64) error {
	// n is hostile: it must not wrap the sum around.
	if n < 0 || n > m.limits.Bytes || m.disk.Add(n) > m.limits.Bytes {
		return limitError("the image unpacks to more than %d bytes", m.limits.Bytes)
	}
	return nil
}

// note counts memory that is kept about a name until the end of the pull. Names compress well: without a bound a small blob could fill
// the memory with paths.
func (m *meter) note(name string) error {
	// About what a map's entry and a string's header take beside the text.
	const overhead = 80
	if m.notes.Add(int64(len(name))+overhead) > m.limits.Notes {
		return limitError("directories and whiteouts of the image take more than %d bytes of memory", m.limits.Notes)
	}
	return nil
}

// spend counts steps of work.
func (m *meter) spend(steps int) error {
	if m.work.Add(int64(steps)) > m.limits.Work {
		return limitError("the image takes too much work: more than %d steps through directories and links", m.limits.Work)
	}
	return nil
}

// unpacked counts bytes that a decompressor put out.
func (m *meter) unpacked(n int) error {
	out := m.out.Add(int64(n))
	// What is no file costs disk, too, if only in the archive: names and padding.
	if most := m.limits.Bytes + int64(m.limits.Entries)*1024 + 1<<20; out > most {
		return limitError("the image unpacks to more than %d bytes", most)
	}
	// Small images may have any ratio: a gigabyte of zeros is no bomb.
	if out > m.limits.RatioFloor && out/m.limits.Ratio > m.in.Load() {
		return limitError("the image unpacks to more than %d times what came: a decompression bomb", m.limits.Ratio)
	}
	return nil
}
