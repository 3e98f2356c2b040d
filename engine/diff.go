package engine

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"glassbox/container"
)

// Kinds of changes, in Docker's letters.
const (
	Added    = "A"
	Modified = "C"
	Deleted  = "D"
)

// Change is a file that a container has changed.
type Change struct {
	Kind string
	Path string // absolute, in the container
}

// Diff compares a container's root file system with its image's, by what stands in the overlay's upper directory; the container may be
// running meanwhile. Changes are in the order of their paths. Volumes aren't part of it, nor what the engine itself makes to mount on.
func (e *Engine) Diff(ctx context.Context, ref string) ([]Change, error) {
	c, _, err := e.load(ctx, ref)
	if err != nil {
		return nil, err
	}
	if r := c.Config.Rootfs; r != nil && !r.Overlay {
		return nil, unsupported("container %s runs on the directory %s itself, so that there is nothing to compare it with", c.Name, r.Dir)
	}
	lower, err := e.lowerDirs(c)
	if err != nil {
		return nil, err
	}
	d := &differ{own: engineMade()}
	defer func() {
		for _, fd := range d.lower {
			unix.Close(fd)
		}
	}()
	for _, dir := range lower {
		fd, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			return nil, &fs.PathError{Op: "open", Path: dir, Err: err}
		}
		d.lower = append(d.lower, fd)
	}
	upper := filepath.Join(e.dir(c.ID), "upper")
	fd, err := unix.Open(upper, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: upper, Err: err}
	}
	_, err = d.dir(ctx, os.NewFile(uintptr(fd), upper), "/", d.lower, 0)
	slices.SortFunc(d.out, func(a, b Change) int { return strings.Compare(a.Path, b.Path) })
	return d.out, err
}

// lowerDirs are the directories of which a container's root is made, but for the upper one, top first.
func (e *Engine) lowerDirs(c *container.Container) ([]string, error) {
	if c.Config.Rootfs != nil {
		return []string{c.Config.Rootfs.Dir}, nil
	}
	img, err := e.imageOf(c)
	if err != nil {
		return nil, err
	}
	var dirs []string
	for _, l := range slices.Backward(img.Layers) {
		dirs = append(dirs, filepath.Join(e.cfg.Root, l.Dir))
	}
	return dirs, nil
}

// engineMade are the places where the engine mounts something in every container. Docker makes them in a layer of its own, below the
// container's.
func engineMade() []string {
	return []string{
		"/.dockerenv", "/dev", "/dev/console", "/dev/mqueue", "/dev/pts", "/dev/shm", "/etc/hostname", "/etc/hosts", "/etc/resolv.conf", "/proc",
		"/sys", "/sys/fs", "/sys/fs/cgroup",
	}
}

type differ struct {
	own   []string
	lower []int // top first
	out   []Change
}

// deepestDiff is how deep directories may be nested to be compared: each costs descriptors for itself and its layers.
const deepestDiff = 4096

// dir compares what the upper directory has at a path with the same directory of the layers, of which those are given that count there. It
// reports whether anything below has changed.
func (d *differ) dir(ctx context.Context, f *os.File, at string, lower []int, depth int) (changed bool, err error) {
	defer f.Close()
	if depth > deepestDiff {
		return false, invalid("%.200s…: directories nested deeper than %d levels", at, deepestDiff)
	}
	seen := map[string]bool{} // in an opaque directory: what else the layers have is deleted
	opaque := isOpaque(int(f.Fd()))
	for {
		if err := ctx.Err(); err != nil {
			return changed, err
		}
		names, err := f.Readdirnames(512)
		for _, name := range names {
			if opaque {
				seen[name] = true
			}
			one, err := d.entry(ctx, f, name, path.Join(at, name), lower, depth)
			if err != nil {
				return changed, err
			}
			changed = changed || one
		}
		if errors.Is(err, io.EOF) || err == nil && len(names) == 0 {
			break
		}
		if err != nil {
			return changed, err
		}
	}
	if !opaque {
		return changed, nil
	}
	for _, name := range listMerged(lower) {
		if !seen[name] {
			d.out, changed = append(d.out, Change{Deleted, path.Join(at, name)}), true
		}
	}
	return changed, nil
}

func (d *differ) entry(ctx context.Context, f *os.File, name, at string, lower []int, depth int) (changed bool, err error) {
	var st unix.Stat_t
	if err := unix.Fstatat(int(f.Fd()), name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		if err == unix.ENOENT {
			return false, nil // gone meanwhile
		}
		return false, &fs.PathError{Op: "stat", Path: at, Err: err}
	}
	below, old, had := findMerged(lower, name)
	defer func() {
		for _, fd := range below {
			unix.Close(fd)
		}
	}()
	kind := st.Mode & unix.S_IFMT
	// A character device with the numbers 0/0 is overlayfs's whiteout (Documentation/filesystems/overlayfs.rst).
	if kind == unix.S_IFCHR && st.Rdev == 0 {
		if had {
			d.out = append(d.out, Change{Deleted, at})
		}
		return had, nil
	}
	isDir := kind == unix.S_IFDIR
	if isDir {
		sub, err := unix.Openat(int(f.Fd()), name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		if err != nil {
			if err == unix.ENOENT || err == unix.ENOTDIR || err == unix.ELOOP {
				return false, nil // another thing by now
			}
			return false, &fs.PathError{Op: "open", Path: at, Err: err}
		}
		// What is below first: whether a directory counts as changed depends on it, as with Docker.
		if changed, err = d.dir(ctx, os.NewFile(uintptr(sub), name), at, below, depth+1); err != nil {
			return changed, err
		}
	}
	switch {
	case slices.Contains(d.own, at) && !changed && (!had || isDir) && (isDir || st.Size == 0):
		return false, nil // made to be mounted on
	case !had:
		d.out = append(d.out, Change{Added, at})
	case isDir && old.Mode&unix.S_IFMT == unix.S_IFDIR && !changed && sameDir(&st, &old):
		return false, nil // copied up, and nothing has changed in it
	default:
		d.out = append(d.out, Change{Modified, at})
	}
	return true, nil
}

// sameDir compares what the container may have changed of a directory itself. Times aren't looked at: files of the engine's change them,
// and so does whatever is made and removed again.
func sameDir(a, b *unix.Stat_t) bool { return a.Mode == b.Mode && a.Uid == b.Uid && a.Gid == b.Gid }

func isOpaque(fd int) bool {
	buf := make([]byte, 8)
	// trusted. for root, user. for overlays that an ordinary user mounted with userxattr (Linux 5.11).
	for _, name := range []string{"trusted.overlay.opaque", "user.overlay.opaque"} {
		if n, err := unix.Fgetxattr(fd, name, buf); err == nil && n == 1 && buf[0] == 'y' {
			return true
		}
	}
	return false
}

// findMerged looks a name up in the same directory of several layers, top first. Below are the directories of that name that count, opened,
// if it is a directory.
func findMerged(lower []int, name string) (below []int, st unix.Stat_t, had bool) {
	for _, dir := range lower {
		var at unix.Stat_t
		if unix.Fstatat(dir, name, &at, unix.AT_SYMLINK_NOFOLLOW) != nil {
			continue
		}
		if at.Mode&unix.S_IFMT == unix.S_IFCHR && at.Rdev == 0 {
			break // deleted by that layer
		}
		isDir := at.Mode&unix.S_IFMT == unix.S_IFDIR
		if !had {
			st, had = at, true
		}
		if !isDir {
			break // hides what is beneath
		}
		fd, err := unix.Openat(dir, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		if err != nil {
			break
		}
		below = append(below, fd)
		if isOpaque(fd) {
			break
		}
	}
	return below, st, had
}

// listMerged lists the names that the same directory of several layers has.
func listMerged(lower []int) []string {
	shown, hidden := map[string]bool{}, map[string]bool{}
	for _, fd := range lower {
		again, err := unix.Openat(fd, ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			continue
		}
		f := os.NewFile(uintptr(again), "layer")
		names, _ := f.Readdirnames(-1)
		for _, name := range names {
			var st unix.Stat_t
			if unix.Fstatat(again, name, &st, unix.AT_SYMLINK_NOFOLLOW) != nil || hidden[name] || shown[name] {
				continue
			}
			if st.Mode&unix.S_IFMT == unix.S_IFCHR && st.Rdev == 0 {
				hidden[name] = true
			} else {
				shown[name] = true
			}
		}
		f.Close()
	}
	return slices.Collect(maps.Keys(shown))
}
