package beneath

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// hostile is a directory with one of each kind of file that a container may put where a file is expected. The values are the errors
// that reading it should give; nil where it is a file after all.
func hostile(t *testing.T) (root string, want map[string]error) {
	t.Helper()
	outside := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(outside, []byte("the host's"), 0o600); err != nil {
		t.Fatal(err)
	}
	root = t.TempDir()
	at := func(name string) string { return filepath.Join(root, name) }
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(os.WriteFile(at("file"), []byte("inside"), 0o600))
	must(os.WriteFile(at("empty"), nil, 0o600))
	must(os.WriteFile(at("exact"), make([]byte, 1<<16), 0o600))
	must(os.WriteFile(at("more"), make([]byte, 1<<16+1), 0o600))
	must(os.Mkdir(at("dir"), 0o700))
	must(unix.Mkfifo(at("fifo"), 0o600))
	must(os.WriteFile(at("sparse"), nil, 0o600))
	must(os.Truncate(at("sparse"), 64<<30))
	sock, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	must(err)
	t.Cleanup(func() { unix.Close(sock) })
	must(unix.Bind(sock, &unix.SockaddrUnix{Name: at("socket")}))
	want = map[string]error{
		"file": nil, "empty": nil, "exact": nil, "/file": nil, "dir/../file": nil, "../../file": nil,
		"more": ErrTooLarge, "sparse": ErrTooLarge,
		"dir": ErrIrregular, "": ErrIrregular, "fifo": ErrIrregular, "socket": ErrIrregular,
		"none": fs.ErrNotExist,
	}
	for link, target := range map[string]string{
		"absolute": "/file", "up": "../../../file", "chain": "absolute",
	} {
		must(os.Symlink(target, at(link)))
		want[link] = nil
	}
	for link, target := range map[string]string{"out": outside, "up-out": "../../../../../.." + outside} {
		must(os.Symlink(target, at(link)))
		want[link] = fs.ErrNotExist
	}
	must(os.Symlink("fifo", at("to-fifo")))
	want["to-fifo"] = ErrIrregular
	must(os.Symlink("loop", at("loop")))
	want["loop"] = unix.ELOOP
	if os.Geteuid() == 0 {
		for name, dev := range map[string]uint64{"null": unix.Mkdev(1, 3), "zero": unix.Mkdev(1, 5), "tty": unix.Mkdev(5, 0), "whiteout": 0} {
			must(unix.Mknod(at(name), unix.S_IFCHR|0o600, int(dev)))
			want[name] = ErrIrregular
		}
		must(unix.Mknod(at("disk"), unix.S_IFBLK|0o600, int(unix.Mkdev(7, 200))))
		want["disk"] = ErrIrregular
	}
	return root, want
}

// within fails a test that waits for what a container decides.
func within(t *testing.T, f func()) {
	t.Helper()
	done := make(chan struct{})
	go func() { defer close(done); f() }()
	select {
	case <-done:
	case <-time.After(10 * time.Second):
		t.Fatal("it waits for the container")
	}
}

func TestReadFile(t *testing.T) {
	root, want := hostile(t)
	for name, wanted := range want {
		within(t, func() {
			data, err := ReadFile(root, name, 1<<16)
			if !errors.Is(err, wanted) || wanted == nil && err != nil {
				t.Errorf("%q: got error %v, want %v", name, err, wanted)
			}
			if wanted == nil && name != "empty" && name != "exact" && string(data) != "inside" {
				t.Errorf("%q: got %q, want what is inside", name, data)
			}
			if wanted == ErrIrregular && err != nil && !strings.Contains(err.Error(), " is a ") {
				t.Errorf("%q: %v: it doesn't say what it is", name, err)
			}
		})
	}
}

// TestMagicLinks has a root with procfs in it: its links to descriptors lead out of every root.
func TestMagicLinks(t *testing.T) {
	f, err := os.Open("/etc/passwd")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, name := range []string{"/proc/self/fd/0", "/proc/self/exe", "/proc/self/root/etc/passwd", "/proc/self/cwd/beneath.go"} {
		within(t, func() {
			if _, err := ReadFile("/", name, 1<<20); !errors.Is(err, unix.ELOOP) {
				t.Errorf("%s: got %v, want ELOOP", name, err)
			}
		})
	}
}

// TestLease takes a lease on the file: opening it would wait for /proc/sys/fs/lease-break-time, 45 seconds.
func TestLease(t *testing.T) {
	root := t.TempDir()
	f, err := os.Create(filepath.Join(root, "file"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := unix.FcntlInt(f.Fd(), unix.F_SETLEASE, unix.F_WRLCK); err != nil {
		t.Skip("the file system of the temporary directory has no leases: ", err)
	}
	within(t, func() {
		if _, err := ReadFile(root, "file", 100); !errors.Is(err, unix.EAGAIN) {
			t.Errorf("got %v, want EAGAIN", err)
		}
	})
}

// TestChmodNode: a link that somebody has put in a node's place, or a file, is not followed and keeps its mode.
func TestChmodNode(t *testing.T) {
	outside, dir := filepath.Join(t.TempDir(), "file"), t.TempDir()
	if err := os.WriteFile(outside, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(outside, filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mkfifo(filepath.Join(dir, "node"), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := ChmodNode(int(f.Fd()), "node", 0o622); err != nil {
		t.Error(err)
	}
	if st, err := os.Stat(filepath.Join(dir, "node")); err != nil || st.Mode().Perm() != 0o622 {
		t.Errorf("the node: %v, %v", st, err)
	}
	if err := ChmodNode(int(f.Fd()), "link", 0o777); err != unix.EEXIST {
		t.Errorf("a link: got %v, want EEXIST", err)
	}
	if st, err := os.Stat(outside); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("what the link leads to: %v, %v", st, err)
	}
}
