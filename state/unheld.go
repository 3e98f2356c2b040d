package state

import (
	"bufio"
	"encoding/binary"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// few is how many locks are tried one by one rather than looked up: below it that takes fewer system calls.
const few = 8

// Unheld lists the lock files of a directory that nobody holds, by their names, and says whether somebody holds any. A directory that isn't
// there is an error, fs.ErrNotExist: nobody has held a lock since it went.
//
// With many containers it reads /proc/locks once (proc_locks(5)) instead of trying each lock: every command does this, and what it does
// to one container should not cost more for each other one. A lock that isn't found there is tried: it may be one of another PID namespace,
// which the kernel doesn't show, or on a file system that numbers its files in two ways.
func Unheld(dir string) (stale []string, held bool, err error) {
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, false, &os.PathError{Op: "open", Path: dir, Err: err}
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, false, err
	}
	files, err := inodes(fd)
	if err != nil {
		return nil, false, &os.PathError{Op: "readdir", Path: dir, Err: err}
	}
	var known map[uint64]bool
	if len(files) > few {
		known = heldOn(st.Dev)
	}
	for name, inode := range files {
		switch {
		case !strings.HasSuffix(name, ".lock"):
		case known[inode] || Held(filepath.Join(dir, name)):
			held = true
		default:
			stale = append(stale, name)
		}
	}
	return stale, held, nil
}

// inodes reads the names and inodes of a directory's files, which os.ReadDir keeps to itself.
func inodes(dir int) (map[string]uint64, error) {
	files := map[string]uint64{}
	buf := make([]byte, 16<<10)
	for {
		n, err := unix.Getdents(dir, buf)
		if err != nil || n == 0 {
			return files, err
		}
		// struct linux_dirent64 (getdents(2)): d_ino 8, d_off 8, d_reclen 2, d_type 1 and the name, which ends with a NUL.
		for rest := buf[:n]; len(rest) > 19; {
			size := int(binary.NativeEndian.Uint16(rest[16:]))
			name := rest[19:size:size]
			for i, b := range name {
				if b == 0 {
					name = name[:i]
					break
				}
			}
			files[string(name)] = binary.NativeEndian.Uint64(rest)
			rest = rest[size:]
		}
	}
}

// heldOn reads which files of a device are locked with flock(2), by their inodes.
func heldOn(dev uint64) map[uint64]bool {
	f, err := os.Open("/proc/locks")
	if err != nil {
		return nil
	}
	defer f.Close()
	// 1: FLOCK  ADVISORY  WRITE 1234 fe:00:5678 0 EOF; waiters have "->" before the type. Numbers of devices are hexadecimal.
	held := map[uint64]bool{}
	for lines := bufio.NewScanner(f); lines.Scan(); {
		w := strings.Fields(lines.Text())
		if len(w) < 6 || w[1] != "FLOCK" || w[3] != "WRITE" {
			continue
		}
		at := strings.Split(w[5], ":")
		if len(at) != 3 {
			continue
		}
		major, err1 := strconv.ParseUint(at[0], 16, 32)
		minor, err2 := strconv.ParseUint(at[1], 16, 32)
		inode, err3 := strconv.ParseUint(at[2], 10, 64)
		if err1 == nil && err2 == nil && err3 == nil && unix.Mkdev(uint32(major), uint32(minor)) == dev {
			held[inode] = true
		}
	}
	return held
}
