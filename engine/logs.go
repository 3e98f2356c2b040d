package engine

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/klauspost/compress/gzip"
	"golang.org/x/sys/unix"

	"glassbox/container"
	"glassbox/state"
	"glassbox/supervise"
)

// Logs writes a container's output: of its standard output to stdout, of its standard error to stderr.
func (e *Engine) Logs(ctx context.Context, ref string, o LogOptions, stdout, stderr io.Writer) error {
	c, _, err := e.load(ctx, ref)
	if err != nil {
		return err
	}
	if err := readable(c); err != nil {
		return err
	}
	base := filepath.Join(e.dir(c.ID), supervise.LogFile)
	files, err := openLogs(base)
	defer func() {
		for _, f := range files {
			f.Close()
		}
	}()
	if err != nil {
		return err
	}
	shown := map[string]bool{} // by stream: whether its long line, which comes in pieces, is printed; a line is as old as its beginning
	print := func(l supervise.Line) error {
		show, piece := shown[l.Stream]
		if !piece {
			show = (o.Since.IsZero() || !l.Time.Before(o.Since)) && (o.Until.IsZero() || !l.Time.After(o.Until))
		}
		if shown[l.Stream] = show; !l.Continues() {
			delete(shown, l.Stream)
		}
		if !show {
			return nil
		}
		w := stdout
		if l.Stream == "stderr" {
			w = stderr
		}
		if o.Timestamps && !piece {
			if _, err := io.WriteString(w, l.Time.Format("2006-01-02T15:04:05.000000000Z07:00 ")); err != nil {
				return err
			}
		}
		if o.Details && !piece {
			if _, err := io.WriteString(w, details(l.Attrs)+" "); err != nil {
				return err
			}
		}
		_, err := io.WriteString(w, l.Log)
		return err
	}

	var last *reader
	show := print
	var end tail
	if o.Tail >= 0 {
		end.max = o.Tail
		// --tail needs the end of a file whose lines have no fixed length: all are read once and the last ones kept, as JSON can't be read
		// backwards.
		show = end.add
	}
	for _, f := range files {
		last = e.newReader(f)
		if err := last.each(ctx, show); err != nil {
			return quiet(err)
		}
	}
	if err := end.each(print); err != nil {
		return quiet(err)
	}
	if !o.Follow {
		return nil
	}
	if last == nil {
		last = newReader(nil)
	}
	f, leave := e.follow(c.ID)
	defer leave()
	for {
		// Whether it still runs is asked before reading: what it writes at its end is then not missed.
		running, changed := e.following(f)
		if err := last.each(ctx, print); err != nil {
			return quiet(err)
		}
		// The supervisor renames the full file and opens a new one. What it wrote between our last read and the rename is still in the old
		// one.
		if later := last.rotated(base); len(later) > 0 {
			if err := last.each(ctx, print); err != nil {
				return quiet(err)
			}
			for _, f := range later[:len(later)-1] { // those that have come and gone since the last look
				if err := newReader(f).each(ctx, print); err != nil {
					return quiet(err)
				}
			}
			for _, f := range files {
				f.Close()
			}
			files, last = later, e.newReader(later[len(later)-1])
			continue
		}
		if !running || !o.Until.IsZero() && time.Now().After(o.Until) {
			return nil
		}
		if !awaitChange(ctx, changed, o.Until) {
			return nil // to stop following is no error
		}
	}
}

// alive says again and again whether a container has processes, or will have them again; its state is read only when it was written.
type alive struct {
	e     *Engine
	id    string
	seen  os.FileInfo
	going bool
}

func (a *alive) now() bool {
	// Its supervisor may have been killed. Locks are also held by others: see state.
	if !state.Held(a.e.lockFile(a.id)) {
		return false
	}
	st, err := os.Stat(filepath.Join(a.e.dir(a.id), supervise.StateFile))
	if err != nil {
		return false
	}
	if a.seen == nil || !os.SameFile(a.seen, st) { // replaced by rename, so it is another file
		s, err := a.e.state(a.id)
		a.seen, a.going = st, err == nil && (s.Alive() || s.Status == supervise.Restarting)
	}
	return a.going
}

// tail keeps the last lines. The log has a long line in pieces, of which only the last ends with a newline, and two streams can have one
// at the same time.
type tail struct {
	max    int
	pieces []numbered
	count  int            // lines so far
	open   map[string]int // stream → number of its line that hasn't ended
}

type numbered struct {
	supervise.Line
	line int
}

func (t *tail) add(l supervise.Line) error {
	n, going := t.open[l.Stream]
	if !going {
		t.count++
		n = t.count
	}
	if t.open == nil {
		t.open = map[string]int{}
	}
	if !l.Continues() {
		delete(t.open, l.Stream)
	} else {
		t.open[l.Stream] = n
	}
	t.pieces = append(t.pieces, numbered{l, n})
	for len(t.pieces) > 0 && t.pieces[0].line <= t.count-t.max {
		t.pieces = t.pieces[1:]
	}
	return nil
}

func (t *tail) each(print func(supervise.Line) error) error {
	for _, p := range t.pieces {
		if p.line > t.count-t.max {
			if err := print(p.Line); err != nil {
				return err
			}
		}
	}
	return nil
}

// quiet drops the error of a reader that went away, such as head.
func quiet(err error) error {
	// glassbox logs | head ends like any program whose reader has seen enough: without a word.
	if pe, ok := err.(*os.PathError); ok && pe.Err == unix.EPIPE {
		return nil
	}
	return err
}

// reader reads a log's lines, and continues at the end of a file that grows.
type reader struct {
	file *os.File
	buf  *bufio.Reader // nil: there is nothing to read
	part []byte        // of a line that isn't complete yet
	lend *follows      // who lends a buffer for as long as there is something to read; nil: buf is its own
}

// newReader is one that keeps no buffer while it waits for more.
func (e *Engine) newReader(f *os.File) *reader {
	if strings.HasSuffix(f.Name(), supervise.Gzipped) {
		return newReader(f)
	}
	return &reader{file: f, lend: &e.follows}
}

func newReader(f *os.File) *reader {
	if f == nil {
		return &reader{}
	}
	if strings.HasSuffix(f.Name(), supervise.Gzipped) {
		z, err := gzip.NewReader(f)
		if err != nil { // a damaged one is passed over, as a damaged line is
			return &reader{file: f}
		}
		return &reader{file: f, buf: bufio.NewReaderSize(z, 64<<10)}
	}
	return &reader{file: f, buf: bufio.NewReaderSize(f, 64<<10)}
}

// next returns the next whole line. Lines that are damaged (a power failure) are passed over.
func (r *reader) next() (supervise.Line, bool) {
	if r.buf == nil {
		return supervise.Line{}, false
	}
	for {
		// At the end of a growing file this is half a line and io.EOF; the rest is appended when it has been written.
		data, err := r.buf.ReadBytes('\n')
		r.part = append(r.part, data...)
		if err != nil {
			return supervise.Line{}, false
		}
		l, ok := supervise.ParseLine(r.part)
		r.part = r.part[:0]
		if ok {
			return l, true
		}
	}
}

// each calls a function with all lines that there are, unless the context ends.
func (r *reader) each(ctx context.Context, do func(supervise.Line) error) error {
	if r.lend != nil {
		r.buf = r.lend.buffer(r.file)
		defer func() {
			if r.buf.Buffered() > 0 { // the caller ends: nothing is read after that
				return
			}
			r.buf.Reset(nil)
			r.lend.buffers.Put(r.buf)
			r.buf = nil
		}()
	}
	for l, ok := r.next(); ok; l, ok = r.next() {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := do(l); err != nil {
			return err
		}
	}
	return nil
}

// rotated opens the files that come after the one being read, if that isn't the current one any more. Where it has been forgotten by now,
// because nobody can read as fast, that is all there are.
func (r *reader) rotated(base string) []*os.File {
	if r.file != nil {
		now, errNow := os.Stat(base)
		mine, errMine := r.file.Stat()
		if errNow != nil || errMine != nil || os.SameFile(now, mine) {
			return nil
		}
	}
	files, err := openLogs(base)
	if err != nil {
		return nil
	}
	for i, f := range files {
		if r.file != nil && (sameFile(f, r.file) || wasFile(f, r.file)) {
			for _, old := range files[:i+1] {
				old.Close()
			}
			return files[i+1:]
		}
	}
	return files
}

func sameFile(a, b *os.File) bool {
	one, errOne := a.Stat()
	two, errTwo := b.Stat()
	return errOne == nil && errTwo == nil && os.SameFile(one, two)
}

// wasFile reports whether f is what another file was compressed to.
func wasFile(f, other *os.File) bool {
	var st unix.Stat_t
	if !strings.HasSuffix(f.Name(), supervise.Gzipped) || unix.Fstat(int(other.Fd()), &st) != nil {
		return false
	}
	z, err := gzip.NewReader(f)
	_, errSeek := f.Seek(0, io.SeekStart)
	return err == nil && errSeek == nil && supervise.WasFile(z.Extra, &st)
}

// openLogs opens the files of a log, the oldest first. They may be renamed meanwhile, which could hide one: then it is tried again, and
// nobody fills a file as quickly as this, ten times.
func openLogs(base string) (files []*os.File, err error) {
	for range 10 {
		for i := 100; i >= 0; i-- {
			name := base
			if i > 0 {
				name = fmt.Sprintf("%s.%d", base, i)
			}
			f, errOpen := os.Open(name)
			if os.IsNotExist(errOpen) && i > 0 { // in this order: it is compressed before it goes
				f, errOpen = os.Open(name + supervise.Gzipped)
			}
			if os.IsNotExist(errOpen) {
				continue
			}
			if errOpen != nil {
				err = errOpen
				break
			}
			files = append(files, f)
		}
		if len(files) == 0 || err != nil {
			return files, err
		}
		first, errFirst := files[0].Stat()
		last, errLast := files[len(files)-1].Stat()
		now, errNow := os.Stat(base)
		oldest, errOldest := os.Stat(files[0].Name())
		if errors.Join(errFirst, errLast, errNow, errOldest) == nil && os.SameFile(last, now) && os.SameFile(first, oldest) {
			return files, nil
		}
		for _, f := range files {
			f.Close()
		}
		files = nil
	}
	return nil, conflict("the log is rotated faster than it can be opened: try again")
}

// readable says why the output of a container can't be read here.
func readable(c *container.Container) error {
	switch c.Config.Log.DriverName() {
	case container.NoLog:
		return unsupported("the output of container %s is kept nowhere: it was made with --log-driver none", c.Name)
	case container.Journald:
		return unsupported("the output of container %s is in the journal\nhint: journalctl CONTAINER_NAME=%s", c.Name, c.Name)
	}
	return nil
}

// details are the attributes of a line as docker logs --details prints them.
func details(attrs map[string]string) string {
	pairs := make([]string, 0, len(attrs))
	for _, key := range slices.Sorted(maps.Keys(attrs)) {
		pairs = append(pairs, url.QueryEscape(key)+"="+url.QueryEscape(attrs[key]))
	}
	return strings.Join(pairs, ",")
}
