package engine

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"glassbox/state"
	"glassbox/supervise"
)

// Logs writes a container's output: of its standard output to stdout, of its standard error to stderr.
func (e *Engine) Logs(ctx context.Context, ref string, o LogOptions, stdout, stderr io.Writer) error {
	c, _, err := e.load(ref)
	if err != nil {
		return err
	}
	base := filepath.Join(e.dir(c.ID), supervise.LogFile)
	var files []*os.File
	defer func() {
		for _, f := range files {
			f.Close()
		}
	}()
	for i := 100; i >= 0; i-- {
		name := base
		if i > 0 {
			name = fmt.Sprintf("%s.%d", base, i)
		}
		f, err := os.Open(name)
		if os.IsNotExist(err) {
			continue
		}
		if err != nil {
			return err
		}
		files = append(files, f)
	}
	print := func(l supervise.Line) error {
		if !o.Since.IsZero() && l.Time.Before(o.Since) || !o.Until.IsZero() && l.Time.After(o.Until) {
			return nil
		}
		w := stdout
		if l.Stream == "stderr" {
			w = stderr
		}
		if o.Timestamps {
			if _, err := io.WriteString(w, l.Time.Format("2006-01-02T15:04:05.000000000Z07:00 ")); err != nil {
				return err
			}
		}
		_, err := io.WriteString(w, l.Log)
		return err
	}

	var last *reader
	if o.Tail >= 0 {
		ring := make([]supervise.Line, 0, min(o.Tail, 1024))
		for _, f := range files {
			last = newReader(f)
			for l, ok := last.next(); ok; l, ok = last.next() {
				if o.Tail == 0 {
					continue
				}
				if len(ring) == o.Tail {
					ring = ring[1:]
				}
				ring = append(ring, l)
			}
		}
		for _, l := range ring {
			if err := print(l); err != nil {
				return quiet(err)
			}
		}
	} else {
		for _, f := range files {
			last = newReader(f)
			for l, ok := last.next(); ok; l, ok = last.next() {
				if err := print(l); err != nil {
					return quiet(err)
				}
			}
		}
	}
	if !o.Follow {
		return nil
	}
	if last == nil {
		last = newReader(nil)
	}
	for {
		// Whether it still runs is asked before reading: what it writes at its end is then not missed.
		running := state.Held(e.lockFile(c.ID))
		for l, ok := last.next(); ok; l, ok = last.next() {
			if err := print(l); err != nil {
				return quiet(err)
			}
		}
		if f, rotated := last.rotated(base); rotated {
			for l, ok := last.next(); ok; l, ok = last.next() {
				if err := print(l); err != nil {
					return quiet(err)
				}
			}
			files = append(files, f)
			last = newReader(f)
			continue
		}
		if !running || !o.Until.IsZero() && time.Now().After(o.Until) {
			return nil
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(30 * time.Millisecond):
		}
	}
}

// quiet drops the error of a reader that went away, such as head.
func quiet(err error) error {
	if pe, ok := err.(*os.PathError); ok && pe.Err == unix.EPIPE {
		return nil
	}
	return err
}

// reader reads a log's lines, and continues at the end of a file that grows.
type reader struct {
	file *os.File
	buf  *bufio.Reader
	part []byte // of a line that isn't complete yet
}

func newReader(f *os.File) *reader {
	if f == nil {
		return &reader{}
	}
	return &reader{file: f, buf: bufio.NewReaderSize(f, 64<<10)}
}

// next returns the next whole line. Lines that are damaged (a power failure) are passed over.
func (r *reader) next() (supervise.Line, bool) {
	if r.buf == nil {
		return supervise.Line{}, false
	}
	for {
		data, err := r.buf.ReadBytes('\n')
		r.part = append(r.part, data...)
		if err != nil {
			return supervise.Line{}, false
		}
		var l supervise.Line
		err = json.Unmarshal(r.part, &l)
		r.part = r.part[:0]
		if err == nil {
			return l, true
		}
	}
}

// rotated opens the current log file if it is another than the one being read.
func (r *reader) rotated(base string) (*os.File, bool) {
	f, err := os.Open(base)
	if err != nil {
		return nil, false
	}
	if r.file == nil {
		return f, true
	}
	a, errA := r.file.Stat()
	b, errB := f.Stat()
	if errA != nil || errB != nil || os.SameFile(a, b) {
		f.Close()
		return nil, false
	}
	return f, true
}
