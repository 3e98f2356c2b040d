package image

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"glassbox/host/beneath"
	"glassbox/host/tree"
)

// merged reads a stack of layer directories as overlayfs would show it: upper layers first, whiteouts and opaque
// directories heeded, symbolic links resolved inside the stack. Nothing is mounted.
type merged struct {
	roots []int  // descriptors, top first
	meter *meter // nil, or who pays for the steps
}

func openMerged(root string, layers []Layer) (*merged, error) {
	dirs := make([]string, len(layers))
	for i, l := range layers {
		dirs[len(layers)-1-i] = filepath.Join(root, l.Dir)
	}
	return openMergedDirs(dirs)
}

// openMergedDirs takes directories top first.
func openMergedDirs(dirs []string) (*merged, error) {
	m := &merged{}
	for _, d := range dirs {
		fd, err := unix.Open(d, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		if err != nil {
			m.close()
			return nil, fmt.Errorf("open layer %s: %w", d, err)
		}
		m.roots = append(m.roots, fd)
	}
	return m, nil
}

func (m *merged) close() { closeAll(m.roots) }

func closeAll(fds []int) {
	for _, fd := range fds {
		unix.Close(fd)
	}
}

// found is one visible file. Dir is a descriptor of the directory that holds it, and base its name there ("." for the root);
// close it.
type found struct {
	path string // without links
	stat unix.Stat_t
	dir  int
	base string
}

func (f *found) close() { unix.Close(f.dir) }

func (f *found) is(format uint32) bool { return f.stat.Mode&unix.S_IFMT == format }

// lookup finds a path; follow says whether a link at its end is followed too. The error is unix.ENOENT if it is not there.
func (m *merged) lookup(p string, follow bool) (*found, error) {
	links := 0
	for {
		f, rest, err := m.walk(p)
		if err != nil {
			return nil, err
		}
		if !f.is(unix.S_IFLNK) || rest == "" && !follow {
			if rest != "" {
				f.close()
				return nil, unix.ENOTDIR
			}
			return f, nil
		}
		target, err := readlinkat(f.dir, f.base)
		f.close()
		if err != nil {
			return nil, err
		}
		if links++; links > maxLinks {
			return nil, unix.ELOOP
		}
		to, err := resolveLink(parentOf(f.path), target)
		if err != nil {
			return nil, unix.ENOENT
		}
		p = to + "/" + rest
		if len(p) > 1<<16 {
			return nil, unix.ENAMETOOLONG
		}
	}
}

// walk goes down until the path or a non-directory ends it; rest is what was not walked.
func (m *merged) walk(p string) (*found, string, error) {
	cur := make([]int, 0, len(m.roots)) // the directory as each layer that shows it has it, top first
	defer func() { closeAll(cur) }()
	// As overlayfs has it: an opaque root ends the stack, and what is beneath shows nowhere.
	for _, r := range m.roots {
		fd, err := unix.Openat(r, ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			return nil, "", err
		}
		cur = append(cur, fd)
		if isOpaque(fd) {
			break
		}
	}
	if len(cur) == 0 {
		return nil, "", unix.ENOENT
	}
	// A duplicate, because f outlives the list, which each step replaces.
	top, err := unix.FcntlInt(uintptr(cur[0]), unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		return nil, "", err
	}
	f := &found{dir: top, base: "."}
	if err := unix.Fstat(top, &f.stat); err != nil {
		f.close()
		return nil, "", err
	}
	rest := p
	for rest != "" {
		var c string
		c, rest, _ = strings.Cut(rest, "/")
		switch c {
		case "", ".":
			continue
		case "..":
			// Lexical, after links are resolved: the path so far has none.
			up := parentOf(f.path)
			f.close()
			return m.walk(up + "/" + rest)
		}
		if len(c) > 255 {
			f.close()
			return nil, "", unix.ENAMETOOLONG
		}
		// Each layer is asked for each component: what it costs is paid for by the pull, as its author decides on both.
		if m.meter != nil {
			if err := m.meter.spend(1 + len(cur)); err != nil {
				f.close()
				return nil, "", err
			}
		}
		var next []int
		var st unix.Stat_t
		dir := -1
		for _, fd := range cur {
			var s unix.Stat_t
			err := unix.Fstatat(fd, c, &s, unix.AT_SYMLINK_NOFOLLOW)
			if err == unix.ENOENT {
				continue
			}
			if err != nil {
				closeAll(next)
				f.close()
				return nil, "", err
			}
			// A file, or a whiteout, hides what all layers beneath have of that name.
			if s.Mode&unix.S_IFMT != unix.S_IFDIR {
				if len(next) == 0 && !isWhiteout(&s) {
					st, dir = s, fd
				}
				break
			}
			sub, err := unix.Openat(fd, c, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
			if err != nil {
				closeAll(next)
				f.close()
				return nil, "", err
			}
			// The first that has it says owner and mode; those beneath add entries only.
			if len(next) == 0 {
				st, dir = s, fd
			}
			next = append(next, sub)
			if isOpaque(sub) {
				break
			}
		}
		f.close()
		if dir < 0 {
			closeAll(next)
			return nil, "", unix.ENOENT
		}
		keep, err := unix.FcntlInt(uintptr(dir), unix.F_DUPFD_CLOEXEC, 3)
		if err != nil {
			closeAll(next)
			return nil, "", err
		}
		f = &found{path: joinPath(f.path, c), stat: st, dir: keep, base: c}
		closeAll(cur)
		cur = next
		// A name that isn't a directory ends the walk: what is left of the path is for lookup, which follows links.
		if len(cur) == 0 {
			return f, strings.Trim(rest, "/"), nil
		}
	}
	return f, "", nil
}

func isWhiteout(s *unix.Stat_t) bool { return s.Mode&unix.S_IFMT == unix.S_IFCHR && s.Rdev == 0 }

// isOpaque asks for both forms of the mark: archives cannot carry either, so only this package can have written it.
func isOpaque(fd int) bool {
	var b [1]byte
	for _, attr := range []string{"trusted.overlay.opaque", "user.overlay.opaque"} {
		if n, err := unix.Fgetxattr(fd, attr, b[:]); err == nil && n == 1 && b[0] == 'y' {
			return true
		}
	}
	return false
}

// File says what an image has at a path.
type File struct {
	Path string // after links, "/usr/bin/dash"
	Mode fs.FileMode
	Size int64
	UID  int
	GID  int
}

// Stat looks a path up in the image's layers below the store's root, following links inside the image. The error is
// fs.ErrNotExist where there is nothing.
func (i *Image) Stat(root, path string) (*File, error) {
	m, err := openMerged(root, i.Layers)
	if err != nil {
		return nil, err
	}
	defer m.close()
	f, err := m.lookup(path, true)
	if err != nil {
		return nil, &fs.PathError{Op: "stat", Path: path, Err: err}
	}
	defer f.close()
	return &File{
		Path: "/" + f.path, Mode: tree.Mode(f.stat.Mode), Size: f.stat.Size, UID: int(f.stat.Uid), GID: int(f.stat.Gid),
	}, nil
}

// ReadFile reads a regular file of the image, at most max bytes, without mounting anything: layers below the store's root
// are searched from the top, and links are resolved inside the image only. The error is fs.ErrNotExist where there is
// nothing, and [ErrLimit] if the file is larger.
func (i *Image) ReadFile(root, path string, max int64) ([]byte, error) {
	m, err := openMerged(root, i.Layers)
	if err != nil {
		return nil, err
	}
	defer m.close()
	return m.readFile(path, max)
}

// ReadMerged does that in directories as overlayfs would stack them, top first. They may be written meanwhile by a container.
func ReadMerged(dirs []string, path string, max int64) ([]byte, error) {
	m, err := openMergedDirs(dirs)
	if err != nil {
		return nil, err
	}
	defer m.close()
	return m.readFile(path, max)
}

func (m *merged) readFile(path string, max int64) ([]byte, error) {
	fail := func(err error) ([]byte, error) { return nil, &fs.PathError{Op: "read", Path: path, Err: err} }
	f, err := m.lookup(path, true)
	if err != nil {
		return fail(err)
	}
	defer f.close()
	// What was looked at may be another file by now, in a directory that a container writes: what is opened is looked at again.
	fd, err := unix.Openat(f.dir, f.base, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return fail(err)
	}
	defer unix.Close(fd)
	file, err := beneath.Reopen(fd, path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	b, err := beneath.ReadAll(file, max)
	if errors.Is(err, beneath.ErrTooLarge) {
		return fail(fmt.Errorf("%w: %w", ErrLimit, err))
	}
	return b, err
}
