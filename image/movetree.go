package image

import (
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"glassbox/host/remove"
)

// moveTree moves what a layer has in directory from to directory to, which the layer may have or not. It returns the
// directories that it had to make, and false without any change where something is in the way.
func moveTree(root int, from, to string, user bool, mt *meter) (made []string, ok bool, err error) {
	src, err := openBeneath(root, from)
	if err != nil {
		return nil, false, nil // moved with a parent already
	}
	defer unix.Close(src)
	// A descriptor of its own: the loop closes each directory when it has opened the next.
	dst, err := unix.Openat(root, ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, false, err
	}
	defer func() { unix.Close(dst) }()
	path, fresh := "", false
	for c := range strings.SplitSeq(to, "/") {
		path = joinPath(path, c)
		// Deleted by this very layer, and needed again: a directory that shows nothing from beneath.
		var st unix.Stat_t
		if unix.Fstatat(dst, c, &st, unix.AT_SYMLINK_NOFOLLOW) == nil && isWhiteout(&st) {
			if err := freshDir(dst, c, user); err != nil {
				return made, false, err
			}
			fresh = true
		}
		fd, err := unix.Openat(dst, c, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		if err == unix.ENOENT {
			if err := unix.Mkdirat(dst, c, 0o755); err != nil {
				return made, false, err
			}
			// Below a directory that was deleted and made anew nothing shows from beneath, so that whoever has to describe what is made to
			// the layers above needs no word of it.
			if !fresh {
				made = append(made, path)
			}
			fd, err = unix.Openat(dst, c, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		}
		// A link or a file of the layer is in the way (O_NOFOLLOW, O_DIRECTORY): that is for the caller to judge.
		if err != nil {
			return made, false, nil
		}
		unix.Close(dst)
		dst = fd
	}
	if err := mergeDir(src, dst, mt); err != nil {
		return made, false, err
	}
	parent, base := splitPath(from)
	pfd, err := openBeneath(root, parent)
	if err != nil {
		return made, false, err
	}
	defer unix.Close(pfd)
	return made, true, unix.Unlinkat(pfd, base, unix.AT_REMOVEDIR)
}

// freshDir turns a whiteout into an opaque directory.
func freshDir(dirfd int, name string, user bool) error {
	if err := unix.Unlinkat(dirfd, name, 0); err != nil {
		return err
	}
	if err := unix.Mkdirat(dirfd, name, 0o755); err != nil {
		return err
	}
	return markOpaqueAt(dirfd, name, user)
}

// mergeDir moves the entries of one directory into another; directories on both sides are merged.
func mergeDir(src, dst int, mt *meter) error {
	var st unix.Stat_t
	if err := unix.Fstat(dst, &st); err != nil {
		return err
	}
	// An opaque directory hides what the layers beneath have at its place; in its new place it must hide as much.
	if isOpaque(src) {
		if err := copyMarks(src, dst); err != nil {
			return err
		}
	}
	err := eachEntry(src, func(e os.DirEntry) error {
		if err := mt.spend(1); err != nil {
			return err
		}
		return mergeEntry(src, dst, e.Name(), mt)
	})
	if err != nil {
		return err
	}
	// Each rename has changed the time of the directory, which is part of the image.
	return setTimes(dst, &st)
}

// mergeEntry moves one entry; the one that is moved wins over what is there, except that two directories become one.
func mergeEntry(src, dst int, name string, mt *meter) error {
	// The usual case costs one call, and no look before it that could be wrong by then.
	err := unix.Renameat2(src, name, dst, name, unix.RENAME_NOREPLACE)
	if err != unix.EEXIST {
		return err
	}
	a, aerr := openDirAt(src, name)
	if aerr == nil {
		defer unix.Close(a)
	}
	b, berr := openDirAt(dst, name)
	if berr == nil {
		defer unix.Close(b)
	}
	switch {
	case aerr == nil && berr == nil:
		if err := mergeDir(a, b, mt); err != nil {
			return err
		}
		return unix.Unlinkat(src, name, unix.AT_REMOVEDIR)
	// rename(2) puts a directory in the place of an empty one only, and nothing else in the place of a directory.
	case berr == nil:
		err = remove.At(dst, name)
	case aerr == nil:
		err = unix.Unlinkat(dst, name, 0)
	default:
		err = nil
	}
	if err != nil {
		return err
	}
	return unix.Renameat(src, name, dst, name)
}

func copyMarks(src, dst int) error {
	for _, attr := range []string{opaqueAttr(false), opaqueAttr(true)} {
		var b [1]byte
		if n, err := unix.Fgetxattr(src, attr, b[:]); err == nil && n == 1 {
			// With the other one of the two names the kernel would not see it: which one counts is said when overlayfs is mounted (userxattr).
			if err := unix.Fsetxattr(dst, attr, b[:], 0); err != nil {
				return err
			}
		}
	}
	return nil
}

// eachEntry calls f for each entry of an open directory, a few at a time: a hostile one may have millions. F may take the entry out of
// the directory; what else changes there while it is read is seen or not, see readdir(3).
func eachEntry(fd int, f func(os.DirEntry) error) error {
	// The position of a directory is shared by all duplicates of a descriptor (dup(2)): the caller's stays where it is.
	again, err := openDirAt(fd, ".")
	if err != nil {
		return err
	}
	dir := os.NewFile(uintptr(again), ".")
	defer dir.Close()
	for {
		entries, err := dir.ReadDir(1024)
		for _, e := range entries {
			if err := f(e); err != nil {
				return err
			}
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// linkTree copies a layer's directories and hard-links everything else.
func linkTree(from string, dst int, user bool, mt *meter) error {
	src, err := unix.Open(from, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(src)
	return linkDir(src, dst, user, mt)
}

func linkDir(src, dst int, user bool, mt *meter) error {
	err := eachEntry(src, func(e os.DirEntry) error {
		if err := mt.spend(1); err != nil {
			return err
		}
		if !e.IsDir() {
			// Without AT_SYMLINK_FOLLOW a link itself gets another name, and not what it leads to (linkat(2)).
			if err := unix.Linkat(src, e.Name(), dst, e.Name(), 0); err != nil {
				return fmt.Errorf("link %.200q: %w", e.Name(), err)
			}
			return nil
		}
		if err := mt.write(4096); err != nil { // the files are shared, the directories are not
			return err
		}
		a, err := openDirAt(src, e.Name())
		if err != nil {
			return err
		}
		defer unix.Close(a)
		// Mode and owner follow from the original when it is full: a directory that may not be written could not be filled.
		if err := unix.Mkdirat(dst, e.Name(), 0o700); err != nil {
			return err
		}
		b, err := openDirAt(dst, e.Name())
		if err != nil {
			return err
		}
		defer unix.Close(b)
		return linkDir(a, b, user, mt)
	})
	if err != nil {
		return err
	}
	return copyMeta(src, dst, user, true)
}
