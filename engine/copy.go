package engine

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"glassbox/container"
	"glassbox/host/tree"
	"glassbox/spec"
)

// CopyOptions says how files are copied out of a container and into it.
type CopyOptions struct {
	// Archive keeps owners out of a container, with set-user-ID bits, file capabilities and devices; into one it gives the files to the
	// container's user, if it has one.
	Archive bool
	Follow  bool // a source that is a symbolic link is what it leads to
}

// Copied says what a copy came to.
type Copied struct {
	Bytes   int64    // what an archive of it would hold, as Docker tells it
	LeftOut []string // at most some, each with the reason
	Left    int      // how many were left out
}

func (c *Copied) leftOut(name, why string) {
	if c.Left++; len(c.LeftOut) < 10 {
		c.LeftOut = append(c.LeftOut, name+": "+why)
	}
}

// side is one of the two file systems between which files are copied.
type side struct {
	root int    // of a container; -1: the host
	ref  string // the container as it was named
}

// onHost is the host.
func onHost() side { return side{root: -1} }

func (s side) lookup(name string, follow bool) (int, error) {
	if s.root >= 0 {
		return tree.Lookup(s.root, name, follow)
	}
	flags := unix.O_PATH | unix.O_CLOEXEC
	if !follow {
		flags |= unix.O_NOFOLLOW
	}
	fd, err := unix.Open(name, flags, 0)
	if err != nil {
		return -1, &fs.PathError{Op: "lstat", Path: name, Err: err}
	}
	return fd, nil
}

// missing is the error for what isn't there.
func (s side) missing(name string, err error) error {
	if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if s.root < 0 {
		return notFound("lstat %s: no such file or directory", name)
	}
	return notFound("Could not find the file %s in container %s", name, s.ref)
}

// source is what is copied.
type source struct {
	fd       int
	dir      bool
	base     string // its name at the destination
	contents bool   // of a directory: what is in it, and not the directory
}

// source looks up what is to be copied. A name that ends with a slash or a dot must be a directory's.
func (s side) source(name string, follow bool) (*source, error) {
	if s.root >= 0 && !path.IsAbs(name) {
		name = "/" + name // as Docker reads it
	}
	last := path.Base(strings.TrimRight(name, "/") + "")
	slash := strings.HasSuffix(name, "/")
	dot := name == "." || strings.HasSuffix(name, "/.")
	fd, err := s.lookup(name, follow || slash || dot)
	if err != nil {
		return nil, s.missing(name, err)
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		unix.Close(fd)
		return nil, err
	}
	// Docker's rule for "SRC/.": the directory's contents are copied, not the directory.
	src := &source{fd: fd, dir: st.Mode&unix.S_IFMT == unix.S_IFDIR, base: last, contents: dot}
	if (slash || dot) && !src.dir {
		unix.Close(fd)
		return nil, invalid("%s: not a directory", name)
	}
	if last == "." || last == ".." || last == "/" || last == "" {
		if src.base = path.Base(path.Clean(name)); src.base == "/" || src.base == ".." || src.base == "." {
			src.contents, src.base = true, "root"
		}
	}
	return src, nil
}

// copy copies a source to a name at a side, by Docker's rules: into a directory that is there, in the place of a file, or as a new name in
// a directory that is there.
func (s side) copy(src *source, name string, o tree.Options) error {
	if s.root >= 0 && !path.IsAbs(name) {
		name = "/" + name
	}
	slash := strings.HasSuffix(name, "/") || strings.HasSuffix(name, "/.") || name == "."
	fd, err := s.lookup(name, true)
	if err == nil {
		defer unix.Close(fd)
		var st unix.Stat_t
		if err := unix.Fstat(fd, &st); err != nil {
			return err
		}
		switch kind := st.Mode & unix.S_IFMT; {
		case kind == unix.S_IFDIR:
			return s.into(src, fd, name, o)
		case src.dir:
			return invalid("cannot copy directory: %s is none", name)
		case slash:
			return invalid("%s: not a directory", name)
		case kind == unix.S_IFCHR || kind == unix.S_IFBLK:
			return invalid("%s is a device, and would be replaced by a file: give a directory, or - for an archive on standard output", name)
		}
	} else if !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, unix.ENOTDIR) {
		return err
	}
	if slash && !src.dir {
		return notFound("no such directory: %s", name)
	}
	dir, base, err := s.place(strings.TrimRight(strings.TrimSuffix(name, "/."), "/"))
	if err != nil {
		return err
	}
	defer dir.Close()
	return tree.Copy(src.fd, dir, base, base, o)
}

func (s side) into(src *source, fd int, name string, o tree.Options) error {
	dirfd, err := unix.Openat(fd, ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return &fs.PathError{Op: "open", Path: name, Err: err}
	}
	dir := os.NewFile(uintptr(dirfd), name)
	defer dir.Close()
	if src.dir && src.contents {
		return tree.CopyContents(src.fd, dir, ".", false, o)
	}
	return tree.Copy(src.fd, dir, src.base, src.base, o)
}

// place finds the directory and the name of what is to be made. Links are followed to what they lead to, which needn't be there.
func (s side) place(name string) (*os.File, string, error) {
	for range 40 { // what the kernel follows (path_resolution(7))
		parent, base := path.Split(name)
		if parent == "" {
			parent = "."
		}
		fd, err := s.lookup(parent, true)
		if err != nil {
			switch {
			case errors.Is(err, unix.ENOTDIR):
				return nil, "", invalid("extraction point is not a directory: %s", strings.TrimRight(parent, "/"))
			case s.root < 0 && errors.Is(err, fs.ErrNotExist):
				return nil, "", notFound("invalid output path: directory %q does not exist", path.Clean(parent))
			}
			return nil, "", s.missing(path.Clean(parent), err)
		}
		target := make([]byte, unix.PathMax)
		n, err := unix.Readlinkat(fd, base, target)
		// A link at the end leads to the name that is made, as with cp. It is read here and looked up again from the top,
		// so that a link in a container stays inside its root.
		if err == nil {
			unix.Close(fd)
			if name = string(target[:n]); !path.IsAbs(name) {
				name = parent + "/" + name
			}
			continue
		}
		dirfd, err := unix.Openat(fd, ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		unix.Close(fd)
		if err == unix.ENOTDIR {
			return nil, "", invalid("extraction point is not a directory: %s", strings.TrimRight(parent, "/"))
		}
		if err != nil {
			return nil, "", &fs.PathError{Op: "open", Path: parent, Err: err}
		}
		if base == "" || base == "." || base == ".." {
			unix.Close(dirfd)
			return nil, "", invalid("%s: no name for a file", name)
		}
		return os.NewFile(uintptr(dirfd), parent), base, nil
	}
	return nil, "", fmt.Errorf("%s: too many levels of symbolic links", name)
}

// CopyFrom copies a file or a directory of a container to the host. The copies belong to the caller, and give nobody rights that the
// container's author has thought of, unless Archive says otherwise.
func (e *Engine) CopyFrom(ctx context.Context, ref, from, to string, o CopyOptions) (*Copied, error) {
	f, err := e.openFiles(ctx, ref)
	if err != nil {
		return nil, err
	}
	defer f.close()
	src, err := side{f.root, ref}.source(from, o.Follow)
	if err != nil {
		return nil, err
	}
	defer unix.Close(src.fd)
	var out Copied
	options := tree.Options{UID: os.Geteuid(), GID: os.Getegid(), Harmless: true, LeftOut: out.leftOut, Bytes: &out.Bytes, Context: ctx}
	if o.Archive {
		options.UID, options.GID, options.Harmless = -1, -1, false
	}
	// Docker tells the bytes of the archive that it sends. Its end is two empty blocks of 512 (tar(5)).
	out.Bytes += 1024
	return &out, onHost().copy(src, to, options)
}

// Archive writes a file or a directory of a container as a tar archive.
func (e *Engine) Archive(ctx context.Context, ref, from string, w io.Writer, o CopyOptions) error {
	f, err := e.openFiles(ctx, ref)
	if err != nil {
		return err
	}
	defer f.close()
	src, err := side{f.root, ref}.source(from, o.Follow)
	if err != nil {
		return err
	}
	defer unix.Close(src.fd)
	// The names are Docker's: ./FILE of DIR/., and /FILE of the root itself.
	switch {
	case src.dir && strings.Trim(from, "/") == "":
		src.base = "/"
	case src.contents && src.dir:
		src.base = "."
	}
	archive := tar.NewWriter(w)
	t, err := tree.NewWriter(ctx, archive)
	if err != nil {
		return err
	}
	defer t.Close()
	if err := t.Tree(src.fd, src.base); err != nil {
		return err
	}
	return archive.Close()
}

// CopyTo copies a file or a directory of the host into a container.
func (e *Engine) CopyTo(ctx context.Context, ref, from, to string, o CopyOptions) (*Copied, error) {
	src, err := onHost().source(from, o.Follow)
	if err != nil {
		return nil, err
	}
	defer unix.Close(src.fd)
	f, err := e.openFiles(ctx, ref)
	if err != nil {
		return nil, err
	}
	defer f.close()
	var out Copied
	options, err := e.ownerIn(f.container, o)
	if err != nil {
		return nil, err
	}
	options.LeftOut, options.Bytes, options.Context = out.leftOut, &out.Bytes, ctx
	out.Bytes += 1024
	return &out, f.written(to, side{f.root, ref}.copy(src, to, options))
}

// Extract unpacks a tar archive into a directory of a container.
func (e *Engine) Extract(ctx context.Context, ref, to string, r io.Reader, o CopyOptions) (*Copied, error) {
	f, err := e.openFiles(ctx, ref)
	if err != nil {
		return nil, err
	}
	defer f.close()
	fd, err := tree.Lookup(f.root, to, true)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, notFound("destination \"%s:%s\" must be a directory: Could not find the file %s in container %s", ref, to, to, ref)
	}
	if err != nil {
		return nil, invalid("destination \"%s:%s\" must be a directory: %w", ref, to, err)
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil || st.Mode&unix.S_IFMT != unix.S_IFDIR {
		return nil, invalid("destination \"%s:%s\" must be a directory: it is not a directory", ref, to)
	}
	options, err := e.ownerIn(f.container, o)
	if err != nil {
		return nil, err
	}
	var out Copied
	options.LeftOut, options.Bytes, options.Context = out.leftOut, &out.Bytes, ctx
	out.Bytes += 1024
	return &out, f.written(to, tree.ExtractTar(r, f.root, to, options))
}

// ownerIn says whose the files are that come into a container: as with Docker their owners have the same numbers inside, but with Archive
// they are the container's user's.
func (e *Engine) ownerIn(c *container.Container, o CopyOptions) (tree.Options, error) {
	options := tree.Options{UID: -1, GID: -1}
	if !o.Archive || c.User() == "" {
		return options, nil
	}
	img, err := e.imageOf(c)
	if err != nil {
		return options, err
	}
	u, err := spec.LookupUser(c.User(), nil, e.readFile(c, img, "/etc/passwd"), e.readFile(c, img, "/etc/group"))
	options.UID, options.GID = int(u.UID), int(u.GID)
	return options, err
}

// written gives the error of a write its reason.
func (f *files) written(to string, err error) error {
	if !errors.Is(err, unix.EROFS) {
		return err
	}
	for _, m := range f.container.Mounts() {
		if strings.HasPrefix(filepath.Clean("/"+to)+"/", m.Target+"/") {
			return conflict("mounted volume is marked read-only: %s", m.Target)
		}
	}
	return conflict("container rootfs is marked read-only")
}
