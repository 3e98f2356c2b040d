package image

import (
	"io"
	"sync"
)

// ahead reads from r in its own goroutine, a few buffers ahead of its reader, so that the stages of a pull (network and
// hash, decompression, unpacking) run at the same time.
type ahead struct {
	full chan chunk
	free chan []byte
	stop chan struct{}
	once sync.Once
	done chan struct{}

	cur chunk
	off int
}

type chunk struct {
	buf []byte
	n   int
	err error
}

func newAhead(r io.Reader, size, count int) *ahead {
	a := &ahead{
		full: make(chan chunk, count),
		free: make(chan []byte, count),
		stop: make(chan struct{}),
		done: make(chan struct{}),
	}
	for range count {
		// A small layer needs one buffer, and a pull has two of these for each layer.
		a.free <- nil // made on first use
	}
	go a.fill(r, size)
	return a
}

func (a *ahead) fill(r io.Reader, size int) {
	defer close(a.done)
	for {
		var b []byte
		select {
		case b = <-a.free:
		case <-a.stop:
			return
		}
		if b == nil {
			b = make([]byte, size)
		}
		n := 0
		var err error
		// A whole buffer each time: the source gives what it has, often a few hundred bytes, and each hand-over costs a
		// switch of goroutines.
		for n < len(b) && err == nil {
			var k int
			k, err = r.Read(b[n:])
			n += k
		}
		select {
		case a.full <- chunk{b, n, err}:
		case <-a.stop:
			return
		}
		if err != nil {
			return
		}
	}
}

func (a *ahead) Read(p []byte) (int, error) {
	for a.off == a.cur.n {
		if a.cur.err != nil {
			return 0, a.cur.err
		}
		if a.cur.buf != nil {
			a.free <- a.cur.buf // never blocks: there are as many places as buffers
		}
		a.cur, a.off = a.next(), 0
	}
	n := copy(p, a.cur.buf[a.off:a.cur.n])
	a.off += n
	return n, nil
}

func (a *ahead) next() chunk {
	select {
	case c := <-a.full:
		return c
	// Closed while somebody reads: what was sent before the end is still to be had.
	case <-a.done:
	}
	select {
	case c := <-a.full: // sent before the end
		return c
	default:
		return chunk{err: io.ErrClosedPipe}
	}
}

// Close ends the goroutine. What it may be blocked in (a network read) must be cancelled before.
func (a *ahead) Close() {
	a.once.Do(func() { close(a.stop) })
	<-a.done
}
