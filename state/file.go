package state

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"glassbox/plan/lazyjson"
)

// maxFile is far above the largest file that is kept here: a plan with the longest possible command line.
const maxFile = 32 << 20

// ReadJSON reads a file into what v points to. A file that is none is an *os.PathError.
func ReadJSON(path string, v any) error {
	data, err := ReadFile(path)
	if err != nil {
		return err
	}
	if err := lazyjson.Unmarshal(data, v); err != nil {
		return &os.PathError{Op: "parse", Path: path, Err: err}
	}
	return nil
}

// WriteJSON replaces a file by way of a temporary one, so that a reader sees the old or the new and never a part. It doesn't
// wait for the disk: after a power failure a file may be that of a moment before, or empty, which its readers must expect. Who
// writes the same file from two processes takes a lock first.
func WriteJSON(path string, v any) error {
	data, err := jsonOf(v)
	if err != nil {
		return err
	}
	return WriteFile(path, data, 0o600)
}

func jsonOf(v any) (data []byte, err error) {
	if m, ok := v.(json.Marshaler); ok { // without json.Marshal's check of what it returns
		data, err = m.MarshalJSON()
	} else {
		data, err = lazyjson.Marshal(v)
	}
	return append(data, '\n'), err
}

// WriteFile replaces a file by way of PATH.new. On an error, such as a full disk, the old one stays as it was, and nothing is left of the
// new one; what a killed writer left, the next one writes over. As with WriteJSON a lock is the caller's affair, and the disk nobody's.
func WriteFile(path string, data []byte, mode os.FileMode) error {
	tmp := path + ".new"
	err := os.WriteFile(tmp, data, mode)
	return named(tmp, path, err)
}

// WriteFileSync is WriteFile for what must outlast a power failure: when it returns the new file is on the disk, and at no moment has its
// name led to anything but the old content or the new one.
func WriteFileSync(path string, data []byte, mode os.FileMode) error {
	tmp := path + ".new"
	err := os.WriteFile(tmp, data, mode)
	if err == nil {
		err = Sync(tmp)
	}
	return namedSync(tmp, path, err)
}

// WriteJSONSync is WriteJSON as WriteFileSync does it.
func WriteJSONSync(path string, v any) error {
	data, err := jsonOf(v)
	if err != nil {
		return err
	}
	return WriteFileSync(path, data, 0o600)
}

// Unfinished begins the names of WriteFileShared's temporary files: whoever tidies up a directory removes those of killed writers.
const Unfinished = ".tmp-"

// WriteFileShared is WriteFileSync for files that several processes may write at once, without a lock: the last one's stays, whole. Only
// the owner can read it.
func WriteFileShared(path string, data []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), Unfinished+"*")
	if err != nil {
		return err
	}
	if _, err = f.Write(data); err == nil {
		err = f.Sync()
	}
	if closed := f.Close(); err == nil {
		err = closed
	}
	return namedSync(f.Name(), path, err)
}

// named gives a temporary file its name if err, that of its writing, is nil, and else removes it.
func named(tmp, path string, err error) error {
	if err == nil {
		err = os.Rename(tmp, path)
	}
	if err != nil {
		os.Remove(tmp) // on a full disk each byte counts
	}
	return err
}

// namedSync is named for a file whose content is on the disk. It has to be there before the name is: a name can come to the disk before the
// content of its file does (ext4's delayed allocation, XFS). Then the directory, or the name itself could be lost.
func namedSync(tmp, path string, err error) error {
	if err := named(tmp, path, err); err != nil {
		return err
	}
	return Sync(filepath.Dir(path))
}

// Sync waits until files are on the disk, and of directories the names in them, one after the other.
func Sync(paths ...string) error {
	for _, path := range paths {
		fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			return &os.PathError{Op: "open", Path: path, Err: err}
		}
		for err = unix.EINTR; err == unix.EINTR; {
			err = unix.Fsync(fd)
		}
		unix.Close(fd)
		if err != nil {
			return &os.PathError{Op: "fsync", Path: path, Err: err}
		}
	}
	return nil
}

// ReadFile is os.ReadFile without Go's poller, which costs more than the reading, and with a limit.
func ReadFile(path string) ([]byte, error) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: path, Err: err}
	}
	defer unix.Close(fd)
	return ReadFD(fd)
}

// ReadFD reads a file from its beginning to its end, wherever its position is.
func ReadFD(fd int) ([]byte, error) {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, err
	}
	if st.Size > maxFile {
		return nil, fmt.Errorf("%d bytes are too many", st.Size)
	}
	data := make([]byte, st.Size)
	for off := 0; off < len(data); {
		n, err := unix.Pread(fd, data[off:], int64(off))
		if n <= 0 && err != unix.EINTR {
			return data[:off], err
		}
		off += max(n, 0)
	}
	return data, nil
}
