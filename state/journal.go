package state

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// A Journal is a file of lines that any process may append to and any number may follow, and that never grows beyond a bound: when it is
// larger than Max its name becomes Path.1, in place of the one before, and the next line begins a new file. So at least the last Max bytes
// are there, and at most twice as many and a line.
//
// There is no lock on the way of a line: O_APPEND puts each write at the end as a whole (write(2)). A line that a killed process has
// written only in part spoils nothing but itself, because each begins with a newline, too.
type Journal struct {
	Path string
	Max  int64 // bytes
}

// Append adds lines, which hold no newline, in one piece: open, write, lseek, close.
func (j Journal) Append(lines ...[]byte) error {
	var text []byte
	for _, line := range lines {
		text = append(append(append(text, '\n'), line...), '\n')
	}
	const flags = unix.O_WRONLY | unix.O_APPEND | unix.O_CREAT | unix.O_CLOEXEC
	fd, err := unix.Open(j.Path, flags, 0o600)
	if err == unix.ENOENT {
		if err := os.MkdirAll(filepath.Dir(j.Path), 0o700); err != nil {
			return err
		}
		fd, err = unix.Open(j.Path, flags, 0o600)
	}
	if err != nil {
		return &os.PathError{Op: "open", Path: j.Path, Err: err}
	}
	defer unix.Close(fd)
	for {
		// A write that is cut short (a full disk) is not gone on with: somebody else's line may have followed it by now.
		if _, err = unix.Write(fd, text); err != unix.EINTR {
			break
		}
	}
	if err != nil {
		return &os.PathError{Op: "write", Path: j.Path, Err: err}
	}
	if end, err := unix.Seek(fd, 0, io.SeekCurrent); err == nil && end > j.Max {
		j.rotate(fd)
	}
	return nil
}

// rotate gives the file behind a descriptor its second name, unless somebody else does, or has done.
func (j Journal) rotate(fd int) {
	if unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB) != nil {
		return
	}
	var own, named unix.Stat_t
	if unix.Fstat(fd, &own) == nil && unix.Lstat(j.Path, &named) == nil && own.Ino == named.Ino && own.Dev == named.Dev {
		unix.Rename(j.Path, j.Path+".1")
	}
}

// Read calls each with the lines that are there, the oldest first, and with follow then with those that come, until the context ends: that
// is no error. An error of each ends it. Lines that are empty, or whose writer was killed, are for each to pass over.
func (j Journal) Read(ctx context.Context, follow bool, each func(line []byte) error) error {
	r := &journalReader{j: j, each: each}
	defer r.close()
	var changes *watch
	if follow {
		changes = watchDir(filepath.Dir(j.Path)) // before the first look, so that nothing comes in between
		defer changes.close()
	}
	for {
		if err := r.catchUp(); err != nil {
			return err
		}
		if !follow || !changes.wait(ctx) {
			return nil
		}
	}
}

// journalReader has read a journal up to some place.
type journalReader struct {
	j     Journal
	each  func([]byte) error
	files []*journalFile // those being read, the oldest first: two at most stay
}

type journalFile struct {
	f    *os.File
	part []byte // of a line that is being written
}

// catchUp reads what is new.
func (r *journalReader) catchUp() error {
	for {
		// The newer one is looked up first: if it is renamed in between, it is found twice and read once.
		newer := r.find(r.j.Path)
		older := r.find(r.j.Path + ".1")
		fresh := false
		for _, f := range []*os.File{older, newer} {
			if f != nil {
				r.files = append(r.files, &journalFile{f: f})
				fresh = true
			}
		}
		for _, f := range r.files {
			if err := f.read(r.each); err != nil {
				return err
			}
		}
		for len(r.files) > 2 { // the one before the last may still get a line from a process that was slow
			r.files[0].f.Close()
			r.files = r.files[1:]
		}
		if !fresh {
			return nil
		}
	}
}

// find opens a file that isn't being read yet; nil if there is none.
func (r *journalReader) find(path string) *os.File {
	st, err := os.Stat(path)
	if err != nil {
		return nil
	}
	for _, f := range r.files {
		if own, err := f.f.Stat(); err == nil && os.SameFile(own, st) {
			return nil
		}
	}
	f, err := os.Open(path)
	if err != nil {
		return nil
	}
	if now, err := f.Stat(); err != nil || !os.SameFile(now, st) {
		f.Close() // renamed at this moment: the next round finds it
		return nil
	}
	return f
}

func (f *journalFile) read(each func([]byte) error) error {
	for {
		buf := make([]byte, 32<<10)
		n, err := f.f.Read(buf)
		f.part = append(f.part, buf[:n]...)
		for {
			line, rest, ok := bytes.Cut(f.part, []byte{'\n'})
			if !ok {
				break
			}
			f.part = rest
			if len(line) > 0 {
				if err := each(line); err != nil {
					return err
				}
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

func (r *journalReader) close() {
	for _, f := range r.files {
		f.f.Close()
	}
}

// watch waits for changes of a directory's files: by inotify(7), or where the user has no more instances of that, by the clock.
type watch struct{ f *os.File }

func watchDir(dir string) *watch {
	os.MkdirAll(dir, 0o700)
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return &watch{}
	}
	if _, err := unix.InotifyAddWatch(fd, dir, unix.IN_MODIFY|unix.IN_CREATE|unix.IN_MOVED_TO); err != nil {
		unix.Close(fd)
		return &watch{}
	}
	return &watch{os.NewFile(uintptr(fd), "inotify")}
}

// wait returns false when the context ends.
func (w *watch) wait(ctx context.Context) bool {
	if w.f == nil {
		select {
		case <-ctx.Done():
			return false
		case <-time.After(100 * time.Millisecond):
			return true
		}
	}
	defer context.AfterFunc(ctx, func() { w.f.SetReadDeadline(time.Unix(1, 0)) })()
	w.f.Read(make([]byte, 4<<10)) // which file it was doesn't matter
	return ctx.Err() == nil
}

func (w *watch) close() {
	if w.f != nil {
		w.f.Close()
	}
}
