package engine

import (
	"io"
	"os"
	"sync"
)

// Streams are a caller's ends of a process's standard streams. Nil is nothing to read, and nobody who reads. An *os.File is handed on as a
// descriptor, so that what the process writes doesn't pass through the caller; to and from anything else a goroutine copies, which for
// input ends only when Stdin does.
type Streams struct {
	Stdin          io.Reader
	Stdout, Stderr io.Writer // with a terminal all comes on Stdout
	// DetachKeys, typed at a terminal, end the session and nothing else (see [ParseDetachKeys]); none: nothing does.
	DetachKeys []byte
}

// descriptors are a caller's streams as files.
type descriptors struct {
	files  [3]*os.File
	mine   []*os.File     // of files: opened here, to be closed when they are handed over, or no longer needed
	copies sync.WaitGroup // of output
}

// descriptors opens what it takes. Input is of use only if wanted.
func (s *Streams) descriptors(input bool) (*descriptors, error) {
	d := &descriptors{}
	var null *os.File
	for i, stream := range [3]any{s.Stdin, s.Stdout, s.Stderr} {
		// Handed on as it is: the process then has the caller's own file, with its position and flags, and isatty tells the truth.
		if f, ok := stream.(*os.File); ok && f != nil && (i > 0 || input) {
			d.files[i] = f
			continue
		}
		// A nil *os.File in an interface isn't nil: whoever has no input passes os.Stdin or nothing.
		if stream == nil || i == 0 && !input || isNilFile(stream) {
			if null == nil {
				var err error
				if null, err = os.OpenFile(os.DevNull, os.O_RDWR, 0); err != nil {
					d.close()
					return nil, err
				}
				d.mine = append(d.mine, null)
			}
			d.files[i] = null
			continue
		}
		// Anything that is no file is copied by a goroutine of this process, which therefore has to live as long as the session.
		r, w, err := os.Pipe()
		if err != nil {
			d.close()
			return nil, err
		}
		if i == 0 {
			d.files[0], d.mine = r, append(d.mine, r)
			go func() {
				io.Copy(w, s.Stdin)
				w.Close()
			}()
			continue
		}
		d.files[i], d.mine = w, append(d.mine, w)
		d.copies.Add(1)
		go func() {
			defer d.copies.Done()
			io.Copy(stream.(io.Writer), r)
			r.Close() // a writer that failed: whoever writes learns it
		}()
	}
	return d, nil
}

func isNilFile(stream any) bool {
	f, ok := stream.(*os.File)
	return ok && f == nil
}

// fds are the descriptors' numbers.
func (d *descriptors) fds() [3]int {
	var fds [3]int
	for i, f := range d.files {
		fds[i] = int(f.Fd())
	}
	return fds
}

// close closes what was opened. Copies of output end when nobody else has the other ends.
func (d *descriptors) close() {
	for _, f := range d.mine {
		f.Close()
	}
	d.mine = nil
}
