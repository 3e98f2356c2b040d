package remove

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// nest makes n directories, each in the one before, with a file and a second, empty directory in each.
func nest(t *testing.T, dir, name string, n int) {
	t.Helper()
	at, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	for range n {
		for _, d := range []string{name, "other"} {
			if err := unix.Mkdirat(at, d, 0o700); err != nil {
				t.Fatal(err)
			}
		}
		fd, err := unix.Openat(at, "file", unix.O_CREAT|unix.O_WRONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		unix.Close(fd)
		next, err := unix.Openat(at, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		unix.Close(at)
		if err != nil {
			t.Fatal(err)
		}
		at = next
	}
	unix.Close(at)
}

func gone(t *testing.T, path string) {
	t.Helper()
	if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%s is still there (%v)", path, err)
	}
}

// fewFiles leaves the process n descriptors to open.
func fewFiles(t *testing.T, n int) {
	t.Helper()
	open, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	var old unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &old); err != nil {
		t.Fatal(err)
	}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: uint64(len(open) + n), Max: old.Max}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Setrlimit(unix.RLIMIT_NOFILE, &old) })
}

// Deeper than a process may open files, than a path may be long, and than a goroutine that recurses would like.
func TestDeep(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "d")
	os.Mkdir(dir, 0o700)
	nest(t, dir, "a", 5000)
	nest(t, filepath.Join(dir, "other"), strings.Repeat("b", 255), 500)
	// Names that the removal itself would give.
	for i := range 20 {
		os.MkdirAll(filepath.Join(dir, fmt.Sprintf(".deep-%d", i), "x"), 0o700)
	}
	fewFiles(t, levels+4)
	begin := time.Now()
	if err := All(dir); err != nil {
		t.Fatal(err)
	}
	gone(t, dir)
	if took := time.Since(begin); took > 20*time.Second {
		t.Errorf("took %v", took)
	}
}

func TestNothingThere(t *testing.T) {
	dir := t.TempDir()
	for _, p := range []string{"a", "a/b/c"} {
		if err := All(filepath.Join(dir, p)); err != nil {
			t.Errorf("%s: %v", p, err)
		}
	}
}

// Each byte that a name can hold, each kind of file, and links to what must stay.
func TestNames(t *testing.T) {
	base := t.TempDir()
	outside := filepath.Join(base, "outside")
	os.Mkdir(outside, 0o700)
	os.WriteFile(filepath.Join(outside, "precious"), nil, 0o600)
	dir := filepath.Join(base, "d")
	os.Mkdir(dir, 0o700)
	for b := 1; b < 256; b++ {
		if b == '/' {
			continue
		}
		name := filepath.Join(dir, "x"+string([]byte{byte(b)}))
		if err := os.Mkdir(name, 0); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name+"f", nil, 0); err != nil {
			t.Fatal(err)
		}
	}
	for _, link := range []string{outside, "../outside", "/", ".", "..", "nowhere"} {
		if err := os.Symlink(link, filepath.Join(dir, "l"+strings.ReplaceAll(link, "/", "_"))); err != nil {
			t.Fatal(err)
		}
	}
	if err := unix.Mkfifo(filepath.Join(dir, "fifo"), 0); err != nil {
		t.Fatal(err)
	}
	if err := All(dir + "/"); err != nil {
		t.Fatal(err)
	}
	gone(t, dir)
	link := filepath.Join(base, "link")
	os.Symlink(outside, link)
	if err := All(link); err != nil {
		t.Fatal(err)
	}
	gone(t, link)
	if _, err := os.Stat(filepath.Join(outside, "precious")); err != nil {
		t.Error("a link was followed:", err)
	}
}

func TestContents(t *testing.T) {
	dir := t.TempDir()
	nest(t, dir, "a", 100)
	os.WriteFile(filepath.Join(dir, "keep"), nil, 0o600)
	if err := Contents(dir, "keep"); err != nil {
		t.Fatal(err)
	}
	left, err := os.ReadDir(dir)
	if err != nil || len(left) != 1 || left[0].Name() != "keep" {
		t.Errorf("left %v, %v", left, err)
	}
}

// asUser runs f with the file system rights of an ordinary user: no capability helps it.
func asUser(t *testing.T, f func()) {
	t.Helper()
	if os.Geteuid() != 0 {
		f()
		return
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // never unlocked: the thread ends with its changed rights
		unix.Setfsgid(65534)
		unix.Setfsuid(65534)
		f()
	}()
	<-done
}

// What an ordinary user closed to himself goes, on every level and also where it has to be moved up.
func TestWithoutPermission(t *testing.T) {
	base := t.TempDir()
	for p := base; p != "/"; p = filepath.Dir(p) {
		os.Chmod(p, 0o777) // t.TempDir is in directories of the test's own
		if filepath.Dir(p) == os.TempDir() {
			break
		}
	}
	dir := filepath.Join(base, "d")
	asUser(t, func() {
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Error(err)
			return
		}
		nest(t, dir, "a", levels+20)
		os.WriteFile(filepath.Join(dir, "ro"), nil, 0o400)
		// From below, so that the way down is still open.
		path := dir + strings.Repeat("/a", levels+20)
		for p := path; p != base; p = filepath.Dir(p) {
			if err := os.Chmod(p, fs.FileMode(len(p)%2*0o500)); err != nil {
				t.Error(err)
			}
		}
		if err := All(dir); err != nil {
			t.Error(err)
		}
	})
	gone(t, dir)
}

// A mount in the directory is an error, and nothing behind it is touched; the rest goes.
func TestMount(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root, to mount")
	}
	base := t.TempDir()
	outside, dir := filepath.Join(base, "outside"), filepath.Join(base, "d")
	for _, d := range []string{outside, dir, dir + "/m", dir + "/x"} {
		os.Mkdir(d, 0o700)
	}
	os.WriteFile(outside+"/precious", nil, 0o600)
	os.WriteFile(dir+"/m.file", nil, 0o600)
	for _, m := range []string{dir + "/m", dir + "/m.file"} {
		from := outside
		if m != dir+"/m" {
			from = outside + "/precious"
		}
		if err := unix.Mount(from, m, "", unix.MS_BIND, ""); err != nil {
			t.Fatal(err)
		}
		defer unix.Unmount(m, unix.MNT_DETACH)
	}
	err := All(dir)
	var e *Error
	if !errors.As(err, &e) || e.Dir != dir || !strings.HasPrefix(e.Name, "m") || !strings.Contains(err.Error(), "unmount it") {
		t.Errorf("got %v, want an error that names the mount", err)
	}
	if _, err := os.Stat(outside + "/precious"); err != nil {
		t.Error("what was mounted was touched:", err)
	}
	gone(t, dir+"/x")
	if err := All(dir + "/m"); !errors.Is(err, errMounted) {
		t.Errorf("a directory that is itself a mount: got %v", err)
	}
	if _, err := os.Stat(outside + "/precious"); err != nil {
		t.Error("what was mounted was touched:", err)
	}
}

// Somebody swaps a directory for a link to another one all the time.
func TestSwap(t *testing.T) {
	base := t.TempDir()
	outside, dir := filepath.Join(base, "outside"), filepath.Join(base, "d")
	os.Mkdir(outside, 0o700)
	os.WriteFile(outside+"/precious", nil, 0o600)
	for range 50 {
		os.Mkdir(dir, 0o700)
		nest(t, dir, "a", 3)
		os.Symlink(outside, dir+"/link")
		stop := make(chan struct{})
		var wg sync.WaitGroup
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
					unix.Renameat2(unix.AT_FDCWD, dir+"/a", unix.AT_FDCWD, dir+"/link", unix.RENAME_EXCHANGE)
				}
			}
		})
		All(dir)
		close(stop)
		wg.Wait()
		if err := All(dir); err != nil {
			t.Fatal(err)
		}
		if _, err := os.Stat(outside + "/precious"); err != nil {
			t.Fatal("a link was followed:", err)
		}
	}
}

// Names are somebody else's: what is told of them can neither steer a terminal nor fill it.
func TestErrorText(t *testing.T) {
	err := (&Error{Dir: "/d", Name: "\x1b[2J" + strings.Repeat("x", 10000), Err: unix.EPERM}).Error()
	if strings.Contains(err, "\x1b") || len(err) > 400 || !strings.Contains(err, "immutable") {
		t.Errorf("got %q", err)
	}
}
