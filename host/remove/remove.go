// Package remove takes away directories that somebody hostile filled: a container's files, the layers of an image.
//
// # One idea
//
// The tree is walked with a list in place of recursion, from one directory descriptor to one name in it. At most
// [levels] descriptors are open: a directory that lies deeper is first moved up, into the directory that is being removed, and has
// its turn there. So a tree that is nested deeper than a process may have files open, or a path may be long, goes like any other.
//
// # Refuses
//
// Symbolic links are removed, never followed, and nothing is touched behind a mount: a file system that is still mounted in the
// directory is an error, and so is all else that stays.
//
// Read [All] first, then walk.run.
package remove

import (
	"encoding/binary"
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// levels is how many directories are open at once, one descriptor each. It is far below the 1,024 that a process may have open by
// default, and deeper than what people nest, so that moving a directory up is rare.
const levels = 48

// passes bounds how often a directory is read again because reading it while it shrinks left something out, or because somebody
// fills it at the same time.
const passes = 100

// Error is what could not be removed: the first thing of it, and why. The rest of the tree was removed all the same.
type Error struct {
	Dir  string // what was to be removed
	Name string // below Dir; empty for Dir itself
	Err  error  // an errno, or what is mounted there
}

func (e *Error) Error() string {
	s := "remove " + e.Dir
	if e.Name != "" {
		s += fmt.Sprintf(": %q", shorten(e.Name)) // quoted: the names in it are the container's
	}
	return s + ": " + e.Err.Error() + hint(e.Err)
}

func (e *Error) Unwrap() error { return e.Err }

func hint(err error) string {
	switch {
	case errors.Is(err, unix.EPERM):
		return " (it may be immutable: chattr -ia takes that back)"
	case errors.Is(err, unix.EBUSY), errors.Is(err, errMounted):
		return " (unmount it)"
	}
	return ""
}

// shorten keeps both ends of a path that is too long to read.
func shorten(s string) string {
	const half = 100
	if len(s) <= 2*half {
		return s
	}
	return s[:half] + "…" + s[len(s)-half:]
}

var errMounted = errors.New("a file system is mounted there")

// All removes what path names and, if that is a directory, everything in it. Nothing there is no error. The error is an [*Error].
func All(path string) error {
	path = filepath.Clean(path)
	parent, err := openParent(path)
	if err != nil {
		if errors.Is(err, unix.ENOENT) {
			return nil
		}
		return &Error{Dir: path, Err: err}
	}
	defer unix.Close(parent)
	return wrap(path, newWalk(nil).run(parent, filepath.Base(path)))
}

// At is [All] for a name in an open directory.
func At(dir int, name string) error {
	return wrap(name, newWalk(nil).run(dir, name))
}

// Contents empties a directory, but for the names in keep.
func Contents(path string, keep ...string) error {
	path = filepath.Clean(path)
	parent, err := openParent(path)
	if err != nil {
		return &Error{Dir: path, Err: err}
	}
	defer unix.Close(parent)
	w := newWalk(keep)
	w.stay = true
	return wrap(path, w.run(parent, filepath.Base(path)))
}

func openParent(path string) (int, error) {
	return unix.Open(filepath.Dir(path), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
}

func wrap(dir string, err *Error) error {
	if err == nil {
		return nil
	}
	err.Dir = dir
	return err
}

// level is a directory that is being emptied.
type level struct {
	name   string // in the level above
	fd     int
	buf    []byte // what getdents64(2) gave
	n, pos int
	passes int
	moved  bool // here, from deeper down, since the directory was last read from its beginning
	gone   bool // something, since then
	opened bool // its mode was changed so that its owner may remove from it
}

// walk is one removal.
type walk struct {
	stack  []level
	keep   []string // names in the first directory that stay
	stay   bool     // the first directory itself stays
	number int      // of the directories that were moved up
	free   [][]byte // buffers of levels that are done
	first  *Error
}

func newWalk(keep []string) *walk { return &walk{keep: keep} }

// fail notes what stays. Only the first is told: the others are mostly the same, and a hostile tree could hold millions.
func (w *walk) fail(name string, err error) {
	if w.first != nil {
		return
	}
	parts := make([]string, 0, len(w.stack)+1)
	for i := range w.stack {
		if i > 0 {
			parts = append(parts, w.stack[i].name)
		}
	}
	if name != "" {
		parts = append(parts, name)
	}
	w.first = &Error{Name: strings.Join(parts, "/"), Err: err}
}

// run removes name from the directory dir.
func (w *walk) run(dir int, name string) *Error {
	if !w.stay {
		switch err := unix.Unlinkat(dir, name, 0); err {
		case nil, unix.ENOENT:
			return nil
		case unix.EISDIR:
		default:
			return &Error{Err: err}
		}
	}
	if err := w.enter(dir, name); err != nil {
		if errors.Is(err, unix.ENOENT) {
			return nil
		}
		return &Error{Err: err}
	}
	defer func() {
		for i := range w.stack {
			unix.Close(w.stack[i].fd)
		}
	}()
	for len(w.stack) > 0 {
		at := &w.stack[len(w.stack)-1]
		entry, isDir, err := at.next()
		switch {
		case err != nil:
			w.fail("", err)
			w.leave(dir)
		case entry == "":
			w.leave(dir)
		case len(w.stack) == 1 && w.kept(entry):
		case isDir || !w.unlink(at, entry):
			w.descend(at, entry)
		}
	}
	return w.first
}

func (w *walk) kept(name string) bool {
	for _, k := range w.keep {
		if k == name {
			return true
		}
	}
	return false
}

// unlink removes what is no directory, and answers false if it is one.
func (w *walk) unlink(at *level, name string) bool {
	err := unix.Unlinkat(at.fd, name, 0)
	if err == unix.EACCES && at.open() {
		err = unix.Unlinkat(at.fd, name, 0)
	}
	switch err {
	case nil:
		at.gone = true
	case unix.ENOENT:
	case unix.EISDIR: // the file system told no type, or it has changed
		return false
	default:
		w.fail(name, err)
	}
	return true
}

// open gives the owner of a directory the right to remove from it.
func (l *level) open() bool {
	if l.opened {
		return false
	}
	l.opened = true
	return unix.Fchmod(l.fd, 0o700) == nil
}

// descend goes on in a directory, or moves it up if that would be too deep.
func (w *walk) descend(at *level, name string) {
	if len(w.stack) >= levels {
		if err := w.moveUp(at, name); err != nil && err != unix.ENOENT {
			w.fail(name, err)
		}
		return
	}
	if err := w.enter(at.fd, name); err != nil && err != unix.ENOENT {
		w.fail(name, err)
	}
}

// enter opens a directory and makes it the one to be emptied.
func (w *walk) enter(dir int, name string) error {
	fd, err := openDir(dir, name, unix.O_RDONLY)
	if err == unix.EACCES { // an ordinary user's own, which he closed to himself
		if err := chmod(dir, name); err != nil {
			return err
		}
		fd, err = openDir(dir, name, unix.O_RDONLY)
	}
	if err != nil {
		return err
	}
	l := level{name: name, fd: fd}
	if n := len(w.free); n > 0 {
		l.buf, w.free = w.free[n-1], w.free[:n-1]
	} else {
		l.buf = make([]byte, 8<<10)
	}
	w.stack = append(w.stack, l)
	return nil
}

// openDir opens a directory itself: no link is followed, and no mount is entered (openat2(2), Linux 5.6).
func openDir(dir int, name string, mode uint64) (int, error) {
	fd, err := unix.Openat2(dir, name, &unix.OpenHow{
		Flags:   mode | unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_NO_XDEV | unix.RESOLVE_NO_SYMLINKS,
	})
	if err == unix.EXDEV {
		err = errMounted
	}
	return fd, err
}

// chmod opens a directory to its owner. fchmodat(2) would follow a link that takes the directory's place meanwhile.
func chmod(dir int, name string) error {
	fd, err := openDir(dir, name, unix.O_PATH)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return unix.Chmod(fmt.Sprintf("/proc/self/fd/%d", fd), 0o700)
}

// moveUp moves a directory into the first one, where it is found when that is read again.
func (w *walk) moveUp(at *level, name string) error {
	top, opened := &w.stack[0], false
	for {
		w.number++
		err := unix.Renameat2(at.fd, name, top.fd, fmt.Sprintf(".deep-%d", w.number), unix.RENAME_NOREPLACE)
		switch {
		case err == nil:
			at.gone, top.moved = true, true
			return nil
		case err == unix.EEXIST: // a name that was there, or that an earlier, killed removal left
		case err == unix.EACCES && !opened:
			// A directory that moves is written to, too: its ".." changes.
			opened = true
			at.open()
			if err := chmod(at.fd, name); err != nil {
				return err
			}
		default:
			return err
		}
	}
}

// leave removes the directory that was read to its end, or begins to read it again if there is reason to hope.
func (w *walk) leave(dir int) {
	at := &w.stack[len(w.stack)-1]
	if len(w.stack) > 1 {
		dir = w.stack[len(w.stack)-2].fd
	}
	if len(w.stack) == 1 && w.stay {
		if !at.again() {
			w.pop()
		}
		return
	}
	err := unix.Unlinkat(dir, at.name, unix.AT_REMOVEDIR)
	if err == unix.EACCES && len(w.stack) > 1 && w.stack[len(w.stack)-2].open() {
		err = unix.Unlinkat(dir, at.name, unix.AT_REMOVEDIR)
	}
	switch err {
	case nil:
		if len(w.stack) > 1 {
			w.stack[len(w.stack)-2].gone = true
		}
	case unix.ENOENT:
	case unix.ENOTEMPTY, unix.EEXIST:
		if at.again() {
			return
		}
		w.fail("", err)
	default:
		w.fail("", err)
	}
	w.pop()
}

func (w *walk) pop() {
	at := &w.stack[len(w.stack)-1]
	unix.Close(at.fd)
	w.free = append(w.free, at.buf)
	w.stack = w.stack[:len(w.stack)-1]
}

// again goes back to a directory's beginning if something was removed from it or moved into it since: what readdir(3) shows of a
// directory that changes is up to the file system.
func (l *level) again() bool {
	if !l.gone && !l.moved || l.passes >= passes {
		return false
	}
	if !l.moved { // what is moved up is bounded by what there is
		l.passes++
	}
	l.gone, l.moved, l.n, l.pos = false, false, 0, 0
	_, err := unix.Seek(l.fd, 0, 0)
	return err == nil
}

// next gives the next name, "" at the end. isDir is false, too, where the file system does not tell.
func (l *level) next() (name string, isDir bool, err error) {
	// struct linux_dirent64: d_ino 8 bytes, d_off 8, d_reclen 2, d_type 1, d_name with its NUL; see getdents64(2).
	const reclen, typ, start = 16, 18, 19
	for {
		if l.pos >= l.n {
			if l.n, err = unix.Getdents(l.fd, l.buf); err != nil || l.n == 0 {
				return "", false, err
			}
			l.pos = 0
		}
		rec := l.buf[l.pos:l.n]
		rec = rec[:binary.NativeEndian.Uint16(rec[reclen:])]
		l.pos += len(rec)
		name := string(rec[start:])
		if i := strings.IndexByte(name, 0); i >= 0 {
			name = name[:i]
		}
		if name != "." && name != ".." {
			return name, rec[typ] == unix.DT_DIR, nil
		}
	}
}
