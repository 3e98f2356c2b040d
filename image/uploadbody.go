package image

import (
	"context"
	"hash"
	"io"
	"sync"
	"time"
)

// uploadBody is a blob on its way out: what it gives is counted and hashed. While it is sent the request ends when nobody takes anything
// for too long; how long whoever makes the blob takes is not the registry's fault.
type uploadBody struct {
	before []byte // read and hashed already, and sent first
	r      io.Reader
	sum    hash.Hash
	size   int64
	u      *upload
	counts bool // what is read is being sent
	idle   *idleTimer

	// Package http may read on in its own goroutine after it has said that a request has failed: these two are all that is looked at then.
	mu  sync.Mutex
	err error
}

func (b *uploadBody) Read(p []byte) (n int, err error) {
	if !b.counts {
		return b.read(p)
	}
	b.idle.stop()
	defer b.idle.touch()
	if len(b.before) > 0 {
		n = copy(p, b.before)
		b.before = b.before[n:]
	} else {
		n, err = b.read(p)
	}
	if err == nil {
		b.u.sent.Add(int64(n))
	}
	return n, err
}

func (b *uploadBody) read(p []byte) (int, error) {
	n, err := b.r.Read(p)
	b.sum.Write(p[:n])
	b.size += int64(n)
	if err != nil {
		b.mu.Lock()
		b.err = err
		b.mu.Unlock()
	}
	return n, err
}

// ended reports whether all of the blob was read.
func (b *uploadBody) ended() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.err == io.EOF
}

// failed is the error of whoever makes the blob.
func (b *uploadBody) failed() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.err == io.EOF {
		return nil
	}
	return b.err
}

// idleTimer ends a request that makes no progress.
type idleTimer struct {
	t    *time.Timer
	most time.Duration
}

func (c *client) newIdle(cancel context.CancelCauseFunc) *idleTimer {
	most := c.opts.IdleTimeout
	i := &idleTimer{time.AfterFunc(most, func() { cancel(errIdle) }), most}
	i.stop()
	return i
}

func (i *idleTimer) touch() { i.t.Reset(i.most) }
func (i *idleTimer) stop()  { i.t.Stop() }
