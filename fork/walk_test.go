package fork

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// walkIn calls walk as the child does, with a directory as the root.
func walkIn(t *testing.T, root, path string, kind int, mount bool) (fd int, err error) {
	t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // and never unlocked: the thread ends with its working directory
		if err = unix.Unshare(unix.CLONE_FS); err != nil {
			return
		}
		if err = unix.Chdir(root); err != nil {
			return
		}
		unix.Umask(0)
		l := &lowering{}
		c := mk(walkNumber, val(l.str(path)), num(kind), num(0o751), num(0))
		if mount {
			c.args[3] = 1
		}
		p := &program{}
		r, e := walk(p, &c)
		if p.walk != 0 {
			unix.Syscall(unix.SYS_MUNMAP, p.walk, 3*2*walkPath, 0)
		}
		runtime.KeepAlive(l)
		fd = int(r)
		if e != 0 {
			fd, err = -1, unix.Errno(e)
		}
	}()
	<-done
	return fd, err
}

// inside is the path below root that a descriptor stands for.
func inside(t *testing.T, root string, fd int) string {
	t.Helper()
	defer unix.Close(fd)
	name, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", fd))
	if err != nil {
		t.Fatal(err)
	}
	rest, ok := strings.CutPrefix(name, root)
	if !ok {
		t.Errorf("%s is outside of %s", name, root)
	}
	return rest
}

func TestWalk(t *testing.T) {
	outside := t.TempDir()
	long := strings.Repeat("n", 255)
	for _, c := range []struct {
		name  string
		links map[string]string
		files string // with a slash at the end: directories
		path  string
		kind  int
		want  string // path inside, or the error
	}{
		{name: "a plain file", files: "etc/ etc/x", path: "etc/x", kind: walkFile, want: "/etc/x"},
		{name: "missing", path: "a/b/c", kind: walkFile, want: "/a/b/c"},
		{name: "missing directory", path: "a/b/c", kind: walkDir, want: "/a/b/c"},
		{
			name: "dangling, absolute", files: "etc/", links: map[string]string{"etc/localtime": "/usr/share/zoneinfo/Etc/UTC"},
			path: "etc/localtime", kind: walkFile, want: "/usr/share/zoneinfo/Etc/UTC",
		},
		{
			name: "dangling, relative", files: "etc/", links: map[string]string{"etc/resolv.conf": "../run/systemd/resolve/stub"},
			path: "etc/resolv.conf", kind: walkFile, want: "/run/systemd/resolve/stub",
		},
		{
			name: "dangling, above the root", files: "etc/", links: map[string]string{"etc/x": "../../../../../../y"}, path: "etc/x",
			kind: walkFile, want: "/y",
		},
		{
			name: "dangling on the way", files: "var/", links: map[string]string{"var/run": "/run"}, path: "var/run/app/sock", kind: walkFile,
			want: "/run/app/sock",
		},
		{name: "dangling directory", links: map[string]string{"app": "srv/app/"}, path: "app", kind: walkDir, want: "/srv/app"},
		{name: "chain", links: map[string]string{"a": "b", "b": "/c", "c": "d/e"}, path: "a/f", kind: walkDir, want: "/d/e/f"},
		{name: "dots", links: map[string]string{"a": "./x/../y/./z/.."}, path: "a/./q", kind: walkDir, want: "/y/q"},
		{name: "the host's name", links: map[string]string{"a": outside + "/new"}, path: "a", kind: walkFile, want: outside + "/new"},
		{name: "up from the host's name", links: map[string]string{"a": "../../.." + outside}, path: "a/x", kind: walkDir, want: outside + "/x"},
		{name: "the root", links: map[string]string{"a": "/"}, path: "a", kind: walkDir, want: "device or resource busy"},
		{
			name: "the root by dots", files: "b/", links: map[string]string{"b/a": "../.."}, path: "b/a", kind: walkDir,
			want: "device or resource busy",
		},
		{
			name: "the root by a chain", files: "b/", links: map[string]string{"b/a": "/c", "c": "b/..//."}, path: "b/a/", kind: walkDir,
			want: "device or resource busy",
		},
		{name: "below the root", links: map[string]string{"a": "/"}, path: "a/x", kind: walkDir, want: "/x"},
		{name: "loop", links: map[string]string{"a": "b", "b": "a"}, path: "a", kind: walkFile, want: "too many levels of symbolic links"},
		{name: "growing loop", links: map[string]string{"a": "a/a/a"}, path: "a", kind: walkFile, want: "too many levels of symbolic links"},
		{
			name: "growing fast", links: map[string]string{"a": "a/" + strings.Repeat("long/", 600)}, path: "a", kind: walkFile,
			want: "file name too long",
		},
		{name: "a long name", links: map[string]string{"a": long}, path: "a/x", kind: walkFile, want: "/" + long + "/x"},
		{name: "a name too long", links: map[string]string{"a": long + "n"}, path: "a", kind: walkFile, want: "file name too long"},
		{name: "a file on the way", files: "etc", links: map[string]string{"a": "etc/x"}, path: "a", kind: walkFile, want: "not a directory"},
		{name: "a file on the way, missing below", files: "etc", path: "etc/x/y", kind: walkFile, want: "not a directory"},
	} {
		t.Run(c.name, func(t *testing.T) {
			root := t.TempDir()
			for name := range strings.FieldsSeq(c.files) {
				if strings.HasSuffix(name, "/") {
					os.Mkdir(filepath.Join(root, name), 0o755)
				} else {
					os.WriteFile(filepath.Join(root, name), nil, 0o644)
				}
			}
			for name, to := range c.links {
				if err := os.Symlink(to, filepath.Join(root, name)); err != nil {
					t.Fatal(err)
				}
			}
			fd, err := walkIn(t, root, c.path, c.kind, true)
			got := ""
			if err != nil {
				got = err.Error()
			} else {
				got = inside(t, root, fd)
			}
			if got != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
			if strings.HasPrefix(c.want, "/") {
				st, err := os.Lstat(root + c.want)
				if err != nil || st.IsDir() != (c.kind == walkDir) {
					t.Errorf("made %v, %v", st, err)
				}
			}
		})
	}
	if entries, _ := os.ReadDir(outside); len(entries) > 0 {
		t.Errorf("made outside of the root: %v", entries)
	}
}

// TestWalkAsKernel compares with openat2(2) and RESOLVE_IN_ROOT, in trees of directories, files and links at random: where the kernel
// finds something walk finds the same, and what walk has made the kernel finds then.
func TestWalkAsKernel(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	pick := func(words ...string) string { return words[random.IntN(len(words))] }
	some := func() string {
		var parts []string
		for range 1 + random.IntN(4) {
			parts = append(parts, pick("a", "b", "c", "d", "..", ".", ""))
		}
		return pick("", "/", "") + strings.Join(parts, "/")
	}
	found, made := 0, 0
	for range 500 {
		root := t.TempDir()
		for range 12 {
			name := filepath.Join(root, filepath.Join("/", some()))
			switch random.IntN(5) {
			case 0, 1:
				os.MkdirAll(name, 0o755)
			case 2:
				os.WriteFile(name, nil, 0o644)
			default:
				if to := some(); to != "" {
					os.Symlink(to, name)
				}
			}
		}
		dir, err := unix.Open(root, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		path := rel(some())
		kernel := func() (string, error) {
			fd, err := unix.Openat2(dir, path, &unix.OpenHow{
				Flags:   unix.O_PATH | unix.O_CLOEXEC,
				Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS,
			})
			if err != nil {
				return "", err
			}
			return inside(t, root, fd), nil
		}
		want, wanted := kernel()
		fd, err := walkIn(t, root, path, walkDir, false)
		got := ""
		if err == nil {
			got = inside(t, root, fd)
		}
		switch {
		case wanted == nil:
			found++
			if err != nil || got != want {
				t.Fatalf("%s: got %q, %v, the kernel finds %q", path, got, err, want)
			}
		case wanted == unix.ENOENT && err == nil:
			made++
			if now, e := kernel(); e != nil || now != got {
				t.Fatalf("%s: made %q, the kernel then finds %q, %v", path, got, now, e)
			}
		case wanted != unix.ENOENT && err != wanted:
			t.Fatalf("%s: got %v, the kernel says %v", path, err, wanted)
		}
		unix.Close(dir)
		os.RemoveAll(root)
	}
	if found < 40 || made < 40 {
		t.Errorf("%d found and %d made: the trees are too poor to show anything", found, made)
	}
}
