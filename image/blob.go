package image

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"net/http"
	"strings"
	"sync/atomic"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

// source is where blobs come from: a registry, or an archive.
type source interface {
	blob(ctx context.Context, d v1.Descriptor) stream
}

// stream is a blob on its way. Reading it ends without an error only after exactly the promised bytes.
type stream interface {
	io.ReadCloser
	received() int64
}

// blob opens a blob; the reader fails unless exactly the promised bytes came.
func (c *client) blob(ctx context.Context, desc v1.Descriptor) stream {
	return &blobReader{c: c, ctx: ctx, desc: desc, hash: sha256.New()}
}

// bytes reads a small blob whole.
func (c *client) bytes(ctx context.Context, desc v1.Descriptor) ([]byte, error) {
	for attempt := 1; ; attempt++ {
		b := c.blob(ctx, desc)
		raw, err := io.ReadAll(b)
		b.Close()
		// Once more and not for ever: an answer that was cut or altered on the way is likely to be right the second time.
		if !isBroken(err) || attempt > 1 {
			return raw, err
		}
	}
}

// blobReader reads one blob, going on with a Range request where a connection broke, and checks size and digest at the end.
type blobReader struct {
	c    *client
	ctx  context.Context
	desc v1.Descriptor
	hash hash.Hash
	off  atomic.Int64

	body     io.ReadCloser
	attempts int   // connections since the last real progress
	mark     int64 // off when that progress was made
	total    int
	done     bool
}

func (b *blobReader) received() int64 { return b.off.Load() }

func (b *blobReader) Read(p []byte) (int, error) {
	if b.done {
		return 0, io.EOF
	}
	for {
		off := b.off.Load()
		if off == b.desc.Size {
			if err := b.verify(); err != nil {
				return 0, err
			}
			b.done = true
			return 0, io.EOF
		}
		if b.body == nil {
			if err := b.open(off); err != nil {
				return 0, err
			}
		}
		// No byte more than was promised is read here; whether there are more is what verify asks.
		if rest := b.desc.Size - off; int64(len(p)) > rest {
			p = p[:rest]
		}
		n, err := b.body.Read(p)
		if n > 0 {
			b.hash.Write(p[:n])
			b.off.Store(off + int64(n))
			return n, nil
		}
		if err == nil {
			continue
		}
		// The body ends too early: that is a break, and not the end of the blob.
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		// Whoever cancelled says why. What the connection says about it is a consequence.
		if cause := context.Cause(b.ctx); cause != nil {
			return 0, cause
		}
		b.Close()
		// It is slow and not broken: to try again would only begin the wait anew.
		if errors.Is(err, errSlow) {
			return 0, b.c.explain(err)
		}
		if err := b.again(err); err != nil {
			return 0, err
		}
	}
}

// again decides whether to go on after a break.
func (b *blobReader) again(err error) error {
	// Progress of 64 KiB begins the count anew: a line that breaks every few minutes still gets a large layer through.
	if off := b.off.Load(); off-b.mark >= 64<<10 {
		b.attempts, b.mark = 0, off
	}
	b.attempts++
	b.total++
	if b.attempts >= maxAttempts || b.total >= 20*maxAttempts {
		return &Error{
			Op: "layer", Name: string(b.desc.Digest), Kind: ErrTruncated, Err: err,
			Text: fmt.Sprintf("cut short after %d of %d bytes, and %d attempts to go on failed", b.off.Load(), b.desc.Size, b.attempts-1),
			Hint: "pull again: layers that are complete are not fetched twice",
		}
	}
	return b.c.opts.sleep(b.ctx, backoff(b.attempts))
}

func (b *blobReader) open(off int64) error {
	url := b.c.url("blobs", string(b.desc.Digest))
	// The guard allows a blob more time than other answers, by its size, and finds it by this mark.
	ctx := context.WithValue(b.ctx, blobKey{}, blobMark{url, b.desc.Size})
	for {
		h := http.Header{}
		if off > 0 {
			h.Set("Range", fmt.Sprintf("bytes=%d-", off))
		}
		resp, err := b.c.get(ctx, url, h)
		if err != nil {
			if cause := context.Cause(b.ctx); cause != nil {
				return cause
			}
			if off > 0 || isDropped(err) || isTimeout(err) {
				if err := b.again(err); err != nil {
					return err
				}
				continue
			}
			return b.c.explain(err)
		}
		fail := func(err error) error {
			resp.Body.Close()
			return err
		}
		skip := int64(0)
		switch {
		case resp.StatusCode == http.StatusOK:
			skip = off // the server knows no ranges
			if resp.ContentLength >= 0 && resp.ContentLength != b.desc.Size {
				return fail(b.broken("the registry sends %d bytes, the manifest says %d", resp.ContentLength, b.desc.Size))
			}
		// A range that is another than asked for would give the right number of wrong bytes, and cost the whole layer at
		// the end.
		case resp.StatusCode == http.StatusPartialContent && off > 0:
			if cr := resp.Header.Get("Content-Range"); !strings.HasPrefix(cr, fmt.Sprintf("bytes %d-", off)) {
				return fail(b.broken("asked for bytes from %d, the registry sends %.100q", off, cr))
			}
		default:
			return fail(b.c.status(resp, string(b.desc.Digest)))
		}
		b.body = resp.Body
		if skip > 0 {
			// Read and thrown away: what came before is in the hash already.
			if n, err := io.CopyN(io.Discard, b.body, skip); err != nil {
				b.Close()
				if err := b.again(fmt.Errorf("after %d bytes: %w", n, err)); err != nil {
					return err
				}
				continue
			}
		}
		return nil
	}
}

func (b *blobReader) verify() error {
	defer b.Close()
	if b.body != nil {
		// One byte more shows that the manifest and the registry speak of two different blobs.
		var one [1]byte
		if n, _ := b.body.Read(one[:]); n > 0 {
			return b.broken("the registry sends more than the %d bytes the manifest says", b.desc.Size)
		}
	}
	got := "sha256:" + hex.EncodeToString(b.hash.Sum(nil))
	if got != string(b.desc.Digest) {
		return broken{digestError("blob", string(b.desc.Digest), got)}
	}
	return nil
}

// broken is the error of an answer that isn't the blob.
func (b *blobReader) broken(format string, args ...any) error {
	return broken{&Error{Op: "layer", Name: string(b.desc.Digest), Kind: ErrDigest, Text: fmt.Sprintf(format, args...)}}
}

func (b *blobReader) Close() error {
	if b.body != nil {
		b.body.Close()
		b.body = nil
	}
	return nil
}
