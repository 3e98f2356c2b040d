package volume

import (
	"os"

	"golang.org/x/sys/unix"
)

// Size is how many bytes the files of a volume take on the disk. A file with several names counts once. The volume may be changing, and
// whoever changes it may be hostile: directories are opened one from another, and nothing is followed.
func (s Store) Size(name string) (int64, error) {
	fd, err := unix.Open(s.Data(name), unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return 0, &os.PathError{Op: "open", Path: s.Data(name), Err: err}
	}
	w := sizeWalk{seen: map[[2]uint64]bool{}}
	err = w.dir(os.NewFile(uintptr(fd), name), 0)
	return w.bytes, err
}

type sizeWalk struct {
	bytes int64
	seen  map[[2]uint64]bool // files with several names
}

// deepest is how many directories are open at once: far fewer than a process may have. What lies deeper isn't counted.
const deepest = 400

func (w *sizeWalk) dir(d *os.File, depth int) error {
	defer d.Close()
	for {
		names, err := d.Readdirnames(1024)
		for _, name := range names {
			w.entry(int(d.Fd()), name, depth)
		}
		if err != nil || len(names) == 0 {
			return nil //nolint:nilerr // the end, or a directory that goes away
		}
	}
}

func (w *sizeWalk) entry(dir int, name string, depth int) {
	var st unix.Stat_t
	if unix.Fstatat(dir, name, &st, unix.AT_SYMLINK_NOFOLLOW) != nil {
		return // gone
	}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR && st.Nlink > 1 {
		key := [2]uint64{st.Dev, st.Ino}
		if w.seen[key] {
			return
		}
		w.seen[key] = true
	}
	w.bytes += st.Blocks * 512
	if st.Mode&unix.S_IFMT != unix.S_IFDIR || depth == deepest {
		return
	}
	fd, err := unix.Openat(dir, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return // another thing by now
	}
	_ = w.dir(os.NewFile(uintptr(fd), name), depth+1)
}
