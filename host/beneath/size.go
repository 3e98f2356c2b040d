package beneath

import (
	"os"

	"golang.org/x/sys/unix"
)

// deepest is how many directories [Size] has open at once, far fewer than a process may have. What lies deeper isn't counted.
const deepest = 400

// Size is how many bytes the files in a directory have, as Docker counts a container's: of files, not of directories, by their length, one
// with several names once. Whoever fills the directory may be hostile and at it: directories are opened one from another, on one file
// system, and nothing is followed.
func Size(dir string) (int64, error) {
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return 0, &os.PathError{Op: "open", Path: dir, Err: err}
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		unix.Close(fd)
		return 0, &os.PathError{Op: "stat", Path: dir, Err: err}
	}
	w := sizeWalk{device: st.Dev, seen: map[uint64]bool{}}
	w.dir(os.NewFile(uintptr(fd), dir), 0)
	return w.bytes, nil
}

type sizeWalk struct {
	device uint64
	bytes  int64
	seen   map[uint64]bool // files with several names
}

func (w *sizeWalk) dir(d *os.File, depth int) {
	defer d.Close()
	for {
		names, err := d.Readdirnames(1024)
		for _, name := range names {
			w.entry(int(d.Fd()), name, depth)
		}
		if err != nil || len(names) == 0 { // the end, or a directory that goes away
			return
		}
	}
}

func (w *sizeWalk) entry(dir int, name string, depth int) {
	var st unix.Stat_t
	if unix.Fstatat(dir, name, &st, unix.AT_SYMLINK_NOFOLLOW) != nil || st.Dev != w.device {
		return // gone, or a mount
	}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR {
		if st.Nlink > 1 && w.seen[st.Ino] {
			return
		}
		if st.Nlink > 1 {
			w.seen[st.Ino] = true
		}
		w.bytes += st.Size
		return
	}
	if depth == deepest {
		return
	}
	// O_NOFOLLOW and O_DIRECTORY: it may be another thing by now.
	if fd, err := unix.Openat(dir, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0); err == nil {
		w.dir(os.NewFile(uintptr(fd), name), depth+1)
	}
}
