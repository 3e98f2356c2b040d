package tree

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"runtime"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"glassbox/host/beneath"
)

// Copy makes a copy of what a descriptor stands for (O_PATH is enough) as base in a directory. A directory is merged into one of that name,
// any other file replaces one. Name is what the file is called in errors.
func Copy(from int, to *os.File, base, name string, o Options) error {
	c, err := newCopier(to, o)
	if err != nil {
		return err
	}
	defer c.open.close()
	return c.entry(from, int(to.Fd()), base, name, 0)
}

// CopyContents copies what is in a directory into another. Its own attributes are copied, too, if that is wished.
func CopyContents(from int, to *os.File, name string, self bool, o Options) error {
	c, err := newCopier(to, o)
	if err != nil {
		return err
	}
	defer c.open.close()
	var st unix.Stat_t
	if err := unix.Fstat(from, &st); err != nil {
		return &fs.PathError{Op: "stat", Path: name, Err: err}
	}
	if err := c.contents(from, to, name, 0); err != nil {
		return err
	}
	o.count(0)
	if !self {
		return nil
	}
	return c.finish(from, int(to.Fd()), name, &st)
}

// copier copies several files at once: what a small file costs is the kernel's work at its name, its attributes and its journal.
type copier struct {
	Options
	open    *opener
	top     *os.File // where names of links begin
	mu      sync.Mutex
	links   links // names in the copy
	buffers sync.Pool
	more    chan struct{} // a place for each goroutine there may be beside the first
}

// batch is how many names of a directory are read at once, and alone how many of them are worth another goroutine.
const batch, alone = 512, 8

func newCopier(top *os.File, o Options) (*copier, error) {
	open, err := newOpener()
	if err != nil {
		return nil, err
	}
	c := &copier{Options: o, open: open, top: top, links: links{}}
	c.more = make(chan struct{}, min(runtime.GOMAXPROCS(0), 4)-1)
	c.buffers.New = func() any {
		b := make([]byte, 256<<10)
		return &b
	}
	if told := o.LeftOut; told != nil {
		c.LeftOut = func(name, why string) {
			c.mu.Lock()
			defer c.mu.Unlock()
			told(name, why)
		}
	}
	return c, nil
}

// entry copies one file of whatever kind. Name is its path below the top of the copy.
func (c *copier) entry(from, dir int, base, name string, depth int) error {
	if err := c.over(); err != nil {
		return err
	}
	var st unix.Stat_t
	if err := unix.Fstat(from, &st); err != nil {
		return &fs.PathError{Op: "stat", Path: name, Err: err}
	}
	kind := st.Mode & unix.S_IFMT
	switch kind {
	case unix.S_IFDIR:
		return c.directory(from, dir, base, name, &st, depth)
	case unix.S_IFSOCK:
		c.leaveOut(name, "it is a socket")
		return nil
	case unix.S_IFBLK, unix.S_IFCHR:
		if c.Harmless {
			c.leaveOut(name, "it is a device (-a copies it)")
			return nil
		}
	}
	if err := clear(dir, base, name); err != nil {
		return err
	}
	// A file with several names is copied, or linked to its copy, by one goroutine at a time: the first one's is there before the second
	// looks for it.
	if st.Nlink > 1 {
		c.mu.Lock()
		defer c.mu.Unlock()
	}
	if c.linked(&st, dir, base, name) {
		c.count(0)
		return nil
	}
	switch kind {
	case unix.S_IFREG:
		return c.file(from, dir, base, name, &st)
	case unix.S_IFLNK:
		target := make([]byte, unix.PathMax)
		n, err := unix.Readlinkat(from, "", target)
		if err == nil {
			err = unix.Symlinkat(string(target[:n]), dir, base)
		}
		if err != nil {
			return &fs.PathError{Op: "symlink", Path: name, Err: err}
		}
	default:
		if err := unix.Mknodat(dir, base, st.Mode&(unix.S_IFMT|0o600), int(st.Rdev)); err != nil {
			return &fs.PathError{Op: "mknod", Path: name, Err: err}
		}
		if err := beneath.ChmodNode(dir, base, c.permissions(st.Mode)); err != nil {
			return &fs.PathError{Op: "chmod", Path: name, Err: err}
		}
	}
	c.count(0)
	uid, gid := c.owner(int(st.Uid), int(st.Gid))
	if err := unix.Fchownat(dir, base, uid, gid, unix.AT_SYMLINK_NOFOLLOW); err != nil && !ordinary(err) {
		return &fs.PathError{Op: "chown", Path: name, Err: err}
	}
	times := []unix.Timespec{st.Atim, st.Mtim}
	return unix.UtimesNanoAt(dir, base, times, unix.AT_SYMLINK_NOFOLLOW)
}

// ordinary reports whether an error is that of somebody who may not give files away.
func ordinary(err error) bool { return err == unix.EPERM && os.Geteuid() != 0 }

// linked makes a further name of a file that was copied already.
func (c *copier) linked(st *unix.Stat_t, dir int, base, name string) bool {
	first, ok := c.links.seen(st, name)
	if !ok {
		return false
	}
	how := unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS}
	at, err := unix.Openat2(int(c.top.Fd()), path.Dir(first), &how)
	if err != nil {
		return false
	}
	defer unix.Close(at)
	return unix.Linkat(at, path.Base(first), dir, base, 0) == nil // else its content is copied once more
}

func (c *copier) directory(from, dir int, base, name string, st *unix.Stat_t, depth int) error {
	if depth > deepest {
		return fmt.Errorf("%.200s…: directories nested deeper than %d levels", name, deepest)
	}
	to, err := makeDir(dir, base, name)
	if err != nil {
		return err
	}
	defer to.Close()
	c.count(0)
	if err := c.contents(from, to, name, depth); err != nil {
		return err
	}
	return c.finish(from, int(to.Fd()), name, st)
}

func (c *copier) contents(from int, to *os.File, name string, depth int) error {
	d, err := openDir(from, name)
	if err != nil {
		return err
	}
	defer d.Close()
	for {
		names, err := d.Readdirnames(batch)
		if err := c.children(int(d.Fd()), int(to.Fd()), names, name, depth); err != nil {
			return err
		}
		if errors.Is(err, io.EOF) || err == nil && len(names) == 0 {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// children copies some entries of a directory, by as many goroutines as there is room for. The first error is the result, and nothing new
// is begun after it.
func (c *copier) children(from, to int, names []string, name string, depth int) error {
	var next atomic.Int64
	var once sync.Once
	var failed error
	work := func() {
		for {
			i := int(next.Add(1)) - 1
			if i >= len(names) {
				return
			}
			if err := c.child(from, to, names[i], path.Join(name, names[i]), depth); err != nil {
				once.Do(func() { failed = err })
				next.Store(int64(len(names)))
				return
			}
		}
	}
	var all sync.WaitGroup
	for n := len(names); n > alone; n -= alone {
		select {
		case c.more <- struct{}{}:
			all.Go(func() {
				defer func() { <-c.more }()
				work()
			})
			continue
		default:
		}
		break
	}
	work()
	all.Wait()
	return failed
}

func (c *copier) child(from, to int, base, name string, depth int) error {
	fd, err := unix.Openat(from, base, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err == unix.ENOENT {
		return nil // gone meanwhile
	}
	if err != nil {
		return &fs.PathError{Op: "open", Path: name, Err: err}
	}
	defer unix.Close(fd)
	return c.entry(fd, to, base, name, depth+1)
}

// finish gives a directory its attributes, when all is in it.
func (c *copier) finish(from, to int, name string, st *unix.Stat_t) error {
	d, err := openDir(from, name)
	if err != nil {
		return err
	}
	defer d.Close()
	return c.attributes(int(d.Fd()), to, name, st)
}

// attributes sets owner, mode, extended attributes and times. The owner comes first: changing it takes set-user-ID bits and file
// capabilities away; the mode before lists of access rights, whose mask it would change.
func (c *copier) attributes(from, to int, name string, st *unix.Stat_t) error {
	uid, gid := c.owner(int(st.Uid), int(st.Gid))
	if err := unix.Fchown(to, uid, gid); err != nil && !ordinary(err) {
		return &fs.PathError{Op: "chown", Path: name, Err: err}
	}
	if err := unix.Fchmod(to, c.permissions(st.Mode)); err != nil {
		return &fs.PathError{Op: "chmod", Path: name, Err: err}
	}
	attributes, err := attributesOf(from, c.Harmless, nil)
	if err == nil {
		err = setAttributes(to, attributes)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	times := [2]unix.Timespec{st.Atim, st.Mtim}
	return unix.UtimesNanoAt(to, "", times[:], unix.AT_EMPTY_PATH)
}

func (c *copier) file(path, dir int, base, name string, st *unix.Stat_t) error {
	from, err := c.open.open(path, name)
	if err != nil {
		return err
	}
	defer unix.Close(from)
	to, err := unix.Openat(dir, base, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return &fs.PathError{Op: "create", Path: name, Err: err}
	}
	defer unix.Close(to)
	c.count(st.Size)
	err = c.data(from, to, st)
	if err == nil {
		err = c.attributes(from, to, name, st)
	}
	if err != nil {
		unix.Unlinkat(dir, base, 0) // half a file helps nobody
		return fmt.Errorf("copy %s: %w", name, err)
	}
	return nil
}

// data copies what a file holds, and leaves holes where it has some.
func (c *copier) data(from, to int, st *unix.Stat_t) error {
	if st.Size == 0 {
		return nil
	}
	if st.Blocks*512 >= st.Size {
		return c.span(from, to, 0, st.Size)
	}
	for at := int64(0); at < st.Size; {
		begin, err := unix.Seek(from, at, unix.SEEK_DATA)
		if err == unix.ENXIO { // a hole up to the end
			break
		}
		if err != nil {
			return c.span(from, to, 0, st.Size) // a file system that knows nothing of holes
		}
		end, err := unix.Seek(from, begin, unix.SEEK_HOLE)
		if err != nil {
			return err
		}
		if err := c.span(from, to, begin, min(end, st.Size)); err != nil {
			return err
		}
		at = end
	}
	return unix.Ftruncate(to, st.Size)
}

// span copies the bytes from one place of a file to another, to the same places of the copy. A file that has become shorter has what it
// has.
func (c *copier) span(from, to int, begin, end int64) error {
	pooled := c.buffers.Get().(*[]byte)
	defer c.buffers.Put(pooled)
	buf := *pooled
	if end-begin > int64(len(buf)) {
		for begin < end {
			if err := c.over(); err != nil {
				return err
			}
			r, w := begin, begin
			n, err := unix.CopyFileRange(from, &r, to, &w, int(min(end-begin, 1<<26)), 0)
			if err != nil || n <= 0 { // not between these file systems, or not beyond the end
				break
			}
			begin += int64(n)
		}
	}
	for begin < end {
		if err := c.over(); err != nil {
			return err
		}
		n, err := unix.Pread(from, buf[:min(int64(len(buf)), end-begin)], begin)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return err
		}
		if n == 0 {
			return nil
		}
		if err := writeAt(to, buf[:n], begin); err != nil {
			return err
		}
		begin += int64(n)
	}
	return nil
}

func writeAt(fd int, b []byte, at int64) error {
	for len(b) > 0 {
		n, err := unix.Pwrite(fd, b, at)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return err
		}
		b, at = b[n:], at+int64(n)
	}
	return nil
}
