// Package hostile makes files that a container may put where somebody on the host expects a plain one, for the tests of all who read
// there (threat 26 in docs/security.md).
package hostile

import (
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Kinds are the files that [Make] knows. All are to be refused or taken for absent, at once.
func Kinds() []string {
	return []string{"fifo", "socket", "directory", "sparse", "null", "terminal", "disk", "link-out", "link-magic", "link-loop", "link-fifo"}
}

// Secret is what is in the file of the host that link-out and link-magic lead to.
const Secret = "secret:x:0:0:secret:/secret:/bin/sh\n"

// Each runs f for each kind of file, which is at name in a new directory root. What f does has ten seconds.
func Each(t *testing.T, name string, f func(t *testing.T, root string)) {
	for _, kind := range Kinds() {
		t.Run(kind, func(t *testing.T) {
			root := t.TempDir()
			Make(t, filepath.Join(root, name), kind)
			done := make(chan struct{})
			go func() { defer close(done); f(t, root) }()
			select {
			case <-done:
			case <-time.After(10 * time.Second):
				t.Fatal("it waits for what the container made")
			}
		})
	}
}

// Make makes one of the kinds, and the directory that it is in. Devices need root.
func Make(t *testing.T, path, kind string) {
	t.Helper()
	outside := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(outside, []byte(Secret), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	device := func(mode uint32, major, minor uint32) error {
		if os.Geteuid() != 0 {
			t.Skip("needs root: only root makes devices")
		}
		return unix.Mknod(path, mode|0o666, int(unix.Mkdev(major, minor)))
	}
	var err error
	switch kind {
	case "fifo":
		err = unix.Mkfifo(path, 0o644)
	case "socket":
		var fd int
		if fd, err = unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0); err == nil {
			t.Cleanup(func() { unix.Close(fd) })
			// A socket's name has at most 107 bytes, a test's directory may have more.
			var dir *os.File
			if dir, err = os.Open(filepath.Dir(path)); err == nil {
				defer dir.Close()
				err = unix.Bind(fd, &unix.SockaddrUnix{Name: "/proc/self/fd/" + strconv.Itoa(int(dir.Fd())) + "/" + filepath.Base(path)})
			}
		}
	case "directory":
		err = os.Mkdir(path, 0o755)
	case "sparse":
		if err = os.WriteFile(path, nil, 0o755); err == nil {
			err = os.Truncate(path, 64<<30)
		}
	case "null":
		err = device(unix.S_IFCHR, 1, 3)
	case "terminal":
		err = device(unix.S_IFCHR, 5, 0)
	case "disk":
		err = device(unix.S_IFBLK, 7, 200)
	case "link-out":
		err = os.Symlink(outside, path)
	case "link-magic":
		// The link that leads out is the one of procfs, which a container can have at any place.
		var f *os.File
		if f, err = os.Open(outside); err == nil {
			t.Cleanup(func() { f.Close() })
			err = os.Symlink("/proc/self/fd/"+strconv.Itoa(int(f.Fd())), path)
		}
	case "link-loop":
		err = os.Symlink(filepath.Base(path), path)
	case "link-fifo":
		if err = unix.Mkfifo(path+".fifo", 0o644); err == nil {
			err = os.Symlink(filepath.Base(path)+".fifo", path)
		}
	}
	if err != nil {
		t.Fatalf("%s: %v", kind, err)
	}
}
