package tree

import (
	"archive/tar"
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func open(t testing.TB, dir string) *os.File {
	t.Helper()
	f, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

// describe lists a tree: kind, mode, owner, size, link target, number of names.
func describe(t testing.TB, dir string) (out []string) {
	t.Helper()
	filepath.WalkDir(dir, func(name string, _ os.DirEntry, err error) error {
		if err != nil {
			t.Fatal(err)
		}
		rel, _ := filepath.Rel(dir, name)
		var st unix.Stat_t
		if err := unix.Lstat(name, &st); err != nil {
			t.Fatal(err)
		}
		size, links, more := st.Size, st.Nlink, ""
		if st.Mode&unix.S_IFMT == unix.S_IFDIR {
			size, links = 0, 0
		}
		if st.Mode&unix.S_IFMT == unix.S_IFLNK {
			more, _ = os.Readlink(name)
		}
		out = append(out, fmt.Sprintf("%s %o %d:%d %d %x %d %s %d", rel, st.Mode, st.Uid, st.Gid, size, st.Rdev, links, more, st.Mtim.Sec))
		return nil
	})
	return out
}

// source makes a directory with a file of each kind.
func source(t testing.TB) string {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	dir := t.TempDir()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	in := func(name string) string { return filepath.Join(dir, name) }
	must(os.MkdirAll(in("a/b/c"), 0o755))
	must(os.WriteFile(in("a/file"), []byte("content"), 0o640))
	must(os.Link(in("a/file"), in("a/b/again")))
	must(os.WriteFile(in("a/large"), bytes.Repeat([]byte("0123456789"), 100_000), 0o600))
	must(os.Symlink("/etc/passwd", in("a/link")))
	must(os.Symlink("nowhere", in("a/b/dangling")))
	must(unix.Mkfifo(in("a/fifo"), 0o644))
	must(unix.Mknod(in("a/null"), unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3))))
	must(os.WriteFile(in("a/suid"), []byte("#!/bin/sh\n"), 0o755))
	must(os.Chown(in("a/suid"), 1000, 1001))
	must(os.Chmod(in("a/suid"), 0o755|os.ModeSetuid))
	must(os.Lchown(in("a/link"), 7, 8))
	must(os.Chmod(in("a/b"), 0o711))
	must(os.WriteFile(in("a/"+strings.Repeat("n", 255)), nil, 0o600))
	f, err := os.Create(in("a/sparse"))
	must(err)
	must(f.Truncate(1 << 30))
	_, err = f.WriteAt([]byte("in the middle"), 512<<20)
	must(err)
	f.Close()
	for _, name := range []string{"a/file", "a/b", "a"} {
		must(os.Chtimes(in(name), time.Unix(1e9, 0), time.Unix(1e9, 0)))
	}
	return in("a")
}

func copyOf(t testing.TB, from string, o Options) string {
	t.Helper()
	to := t.TempDir()
	fd, err := unix.Open(from, unix.O_PATH|unix.O_NOFOLLOW, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if err := Copy(fd, open(t, to), "a", "a", o); err != nil {
		t.Fatal(err)
	}
	return filepath.Join(to, "a")
}

func blocks(t testing.TB, name string) int64 {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Stat(name, &st); err != nil {
		t.Fatal(err)
	}
	return st.Blocks * 512
}

// TestCopy copies a file of each kind: as it is, and without what gives rights.
func TestCopy(t *testing.T) {
	from := source(t)
	to := copyOf(t, from, Options{UID: -1, GID: -1})
	if got, want := describe(t, to), describe(t, from); !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if n := blocks(t, filepath.Join(to, "sparse")); n > 1<<20 {
		t.Errorf("a file of one gigabyte of holes takes %d bytes", n)
	}
	a, _ := os.ReadFile(filepath.Join(from, "large"))
	if b, _ := os.ReadFile(filepath.Join(to, "large")); !bytes.Equal(a, b) {
		t.Error("the content is another")
	}

	var left []string
	to = copyOf(t, from, Options{UID: 5, GID: 6, Harmless: true, LeftOut: func(name, _ string) { left = append(left, name) }})
	for _, line := range describe(t, to) {
		f := strings.Fields(line)
		if f[2] != "5:6" || strings.HasPrefix(f[0], "null") {
			t.Errorf("%s is given away wrongly", line)
		}
		if f[0] == "suid" && f[1] != "100755" {
			t.Errorf("a set-user-ID bit is kept: %s", line)
		}
	}
	if !slices.Equal(left, []string{"a/null"}) {
		t.Errorf("left out: %q", left)
	}
}

// TestOverwrite: a file replaces a file or a link, and not what the link leads to; a directory is merged; neither replaces the other.
func TestOverwrite(t *testing.T) {
	from, to := t.TempDir(), t.TempDir()
	outside := filepath.Join(t.TempDir(), "precious")
	os.WriteFile(outside, []byte("mine"), 0o600)
	os.WriteFile(filepath.Join(from, "f"), []byte("new"), 0o600)
	os.Mkdir(filepath.Join(from, "d"), 0o755)
	os.Symlink(outside, filepath.Join(to, "f"))
	os.Mkdir(filepath.Join(to, "d"), 0o755)
	os.WriteFile(filepath.Join(to, "d/kept"), nil, 0o600)
	one := func(name, as string) error {
		fd, err := unix.Open(filepath.Join(from, name), unix.O_PATH, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Close(fd)
		return Copy(fd, open(t, to), as, as, Options{UID: -1, GID: -1})
	}
	if err := one("f", "f"); err != nil {
		t.Error(err)
	}
	if err := one("d", "d"); err != nil {
		t.Error(err)
	}
	if data, _ := os.ReadFile(outside); string(data) != "mine" {
		t.Error("the file that a link led to was written")
	}
	if _, err := os.Stat(filepath.Join(to, "d/kept")); err != nil {
		t.Error(err)
	}
	if err := one("f", "d"); err == nil || !strings.Contains(err.Error(), "cannot overwrite directory") {
		t.Errorf("got %v", err)
	}
	if err := one("d", "f"); err == nil || !strings.Contains(err.Error(), "cannot overwrite non-directory") {
		t.Errorf("got %v", err)
	}
}

func writeTree(w *tar.Writer, fd int, name string) error {
	t, err := NewWriter(context.Background(), w)
	if err != nil {
		return err
	}
	defer t.Close()
	return t.Tree(fd, name)
}

// TestTar writes a tree as an archive and unpacks that.
func TestTar(t *testing.T) {
	from := source(t)
	os.Truncate(filepath.Join(from, "sparse"), 4<<20) // an archive has no holes
	to := t.TempDir()
	fd, err := unix.Open(from, unix.O_PATH, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	r, w := io.Pipe()
	go func() {
		a := tar.NewWriter(w)
		err := writeTree(a, fd, "a")
		if err == nil {
			err = a.Close()
		}
		w.CloseWithError(err)
	}()
	if err := ExtractTar(r, int(open(t, to).Fd()), "/", Options{UID: -1, GID: -1}); err != nil {
		t.Fatal(err)
	}
	if got, want := describe(t, filepath.Join(to, "a")), describe(t, from); !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func archive(t testing.TB, entries ...tar.Header) *bytes.Buffer {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, h := range entries {
		if h.Mode == 0 {
			h.Mode = 0o644
		}
		h.Size = 0
		if h.Typeflag == tar.TypeReg {
			h.Size = 4
		}
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if h.Size > 0 {
			w.Write([]byte("trap"))
		}
	}
	w.Close()
	return &b
}

// TestHostileArchives: nothing that an archive says is written outside of the root, whatever links it brings along or finds there.
func TestHostileArchives(t *testing.T) {
	outside := t.TempDir()
	file := func(name string) tar.Header { return tar.Header{Typeflag: tar.TypeReg, Name: name} }
	link := func(name, to string) tar.Header {
		return tar.Header{Typeflag: tar.TypeSymlink, Name: name, Linkname: to}
	}
	for what, tt := range map[string]struct {
		entries []tar.Header
		refused bool
	}{
		"..":                      {[]tar.Header{file("../x")}, true},
		".. in the middle":        {[]tar.Header{file("a/../../x")}, true},
		"absolute":                {[]tar.Header{file(outside + "/x")}, false},
		"link, then through it":   {[]tar.Header{link("l", outside), file("l/x")}, true},
		"link to the root":        {[]tar.Header{link("l", "/"), file("l" + outside + "/x")}, false},
		"relative link out":       {[]tar.Header{link("l", "../../../../../.."), file("l" + outside + "/x")}, false},
		"loop":                    {[]tar.Header{link("l", "l"), file("l/x")}, true},
		"link to a link":          {[]tar.Header{link("l", "m"), link("m", outside), file("l/x")}, true},
		"proc":                    {[]tar.Header{link("l", "/proc/self/root"), file("l/x")}, true},
		"hard link out":           {[]tar.Header{{Typeflag: tar.TypeLink, Name: "h", Linkname: "../../etc/passwd"}}, true},
		"hard link through":       {[]tar.Header{link("l", "/etc"), {Typeflag: tar.TypeLink, Name: "h", Linkname: "l/passwd"}}, true},
		"hard link to itself":     {[]tar.Header{file("h"), {Typeflag: tar.TypeLink, Name: "h", Linkname: "h"}}, false},
		"file as directory":       {[]tar.Header{file("f"), file("f/x")}, true},
		"file over directory":     {[]tar.Header{{Typeflag: tar.TypeDir, Name: "d/"}, file("d")}, true},
		"itself as a file":        {[]tar.Header{file(".")}, true},
		"long name":               {[]tar.Header{file(strings.Repeat("n", 300))}, true},
		"empty link":              {[]tar.Header{link("l", "")}, true},
		"deep":                    {[]tar.Header{file(strings.Repeat("d/", 500) + "x")}, false},
		"a directory over a link": {[]tar.Header{link("l", outside), {Typeflag: tar.TypeDir, Name: "l/"}}, true},
	} {
		root := t.TempDir()
		os.MkdirAll(filepath.Join(root, "dest"), 0o755)
		err := ExtractTar(archive(t, tt.entries...), int(open(t, root).Fd()), "/dest", Options{UID: os.Geteuid(), GID: os.Getegid()})
		if (err != nil) != tt.refused {
			t.Errorf("%s: %v, want it to be refused: %v", what, err, tt.refused)
		}
		if entries, _ := os.ReadDir(outside); len(entries) > 0 {
			t.Fatalf("%s: %v was written outside", what, entries)
		}
		if _, err := os.Lstat(filepath.Join(filepath.Dir(root), "x")); err == nil {
			t.Fatalf("%s: x was written beside the root", what)
		}
	}
	for what, data := range map[string][]byte{
		"nothing": nil, "no archive": bytes.Repeat([]byte("x"), 4096), "cut short": archive(t, file("f")).Bytes()[:514],
	} {
		if err := ExtractTar(bytes.NewReader(data), int(open(t, t.TempDir()).Fd()), "/", Options{}); (err != nil) != (what != "nothing") {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// TestGiantHeader: a header that says it is a gigabyte long costs no gigabyte.
func TestGiantHeader(t *testing.T) {
	h := make([]byte, 512)
	copy(h, "././@PaxHeader")
	copy(h[100:], "0000644\x00")
	copy(h[124:], "10000000000\x00") // 2^30
	copy(h[148:], "        ")
	h[156] = 'x'
	copy(h[257:], "ustar\x0000")
	sum := 0
	for _, c := range h {
		sum += int(c)
	}
	copy(h[148:], fmt.Sprintf("%06o\x00 ", sum))
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	err := ExtractTar(io.MultiReader(bytes.NewReader(h), zeroReader{}), int(open(t, t.TempDir()).Fd()), "/", Options{})
	runtime.ReadMemStats(&after)
	if err == nil || after.TotalAlloc-before.TotalAlloc > 64<<20 {
		t.Errorf("got %v and %d bytes", err, after.TotalAlloc-before.TotalAlloc)
	}
}

type zeroReader struct{}

func (zeroReader) Read(b []byte) (int, error) {
	for i := range b {
		b[i] = 0
	}
	return len(b), nil
}

// manyEntries is an archive of so many empty files, made as it is read.
func manyEntries(n int) io.Reader {
	r, w := io.Pipe()
	go func() {
		a := tar.NewWriter(w)
		for i := range n {
			a.WriteHeader(&tar.Header{Typeflag: tar.TypeSymlink, Name: fmt.Sprintf("d%d/f%d", i/1000, i), Linkname: "x", Mode: 0o777})
		}
		a.Close()
		w.Close()
	}()
	return r
}

// TestManyEntries: memory doesn't grow with the number of entries, neither into a directory nor out of it.
func TestManyEntries(t *testing.T) {
	n := 30_000
	if testing.Short() {
		n = 5_000
	}
	dir := t.TempDir()
	var m runtime.MemStats
	peak := func() uint64 {
		runtime.GC()
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	before := peak()
	if err := ExtractTar(manyEntries(n), int(open(t, dir).Fd()), "/", Options{UID: os.Geteuid(), GID: os.Getegid()}); err != nil {
		t.Fatal(err)
	}
	fd, _ := unix.Open(dir, unix.O_PATH, 0)
	defer unix.Close(fd)
	count := &counter{}
	a := tar.NewWriter(count)
	if err := writeTree(a, fd, "a"); err != nil {
		t.Fatal(err)
	}
	a.Close()
	if after := peak(); after > before+16<<20 {
		t.Errorf("%d bytes are held after %d entries", after-before, n)
	}
	if least := int64(n) * 512; count.n < least {
		t.Errorf("%d bytes written, want at least %d", count.n, least)
	}
}

type counter struct{ n int64 }

func (c *counter) Write(b []byte) (int, error) { c.n += int64(len(b)); return len(b), nil }

// TestSwapped copies and archives a tree in which directories, links to the host, FIFOs and devices change places all the time
// (CVE-2018-15664): nothing of the host comes along, nothing waits, and no device is opened.
func TestSwapped(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	outside := t.TempDir()
	os.WriteFile(filepath.Join(outside, "secret"), []byte("of the host"), 0o600)
	dir := filepath.Join(t.TempDir(), "c")
	os.MkdirAll(filepath.Join(dir, "d"), 0o755)
	os.WriteFile(filepath.Join(dir, "d/secret"), []byte("of the container"), 0o600)
	os.Symlink(outside, filepath.Join(dir, "l"))
	os.WriteFile(filepath.Join(dir, "f"), []byte("of the container"), 0o600)
	os.Symlink(filepath.Join(outside, "secret"), filepath.Join(dir, "g"))
	unix.Mkfifo(filepath.Join(dir, "p"), 0o600)
	done := make(chan bool)
	var all sync.WaitGroup
	all.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-done:
				return
			default:
			}
			pair := [][2]string{{"d", "l"}, {"f", "g"}, {"f", "p"}, {"d", "p"}}[i%4]
			unix.Renameat2(unix.AT_FDCWD, filepath.Join(dir, pair[0]), unix.AT_FDCWD, filepath.Join(dir, pair[1]), unix.RENAME_EXCHANGE)
		}
	})
	defer all.Wait()
	defer close(done)
	for range 150 {
		to := t.TempDir()
		fd, err := unix.Open(dir, unix.O_PATH, 0)
		if err != nil {
			t.Fatal(err)
		}
		var b bytes.Buffer
		a := tar.NewWriter(&b)
		errs := []error{Copy(fd, open(t, to), "c", "c", Options{UID: -1, GID: -1}), writeTree(a, fd, "c")}
		unix.Close(fd)
		_ = errs // a name that is another thing by now may be an error; what counts is what came along
		if bytes.Contains(b.Bytes(), []byte("of the host")) {
			t.Fatal("the archive has a file of the host")
		}
		filepath.WalkDir(to, func(name string, e os.DirEntry, _ error) error {
			if e != nil && e.Type().IsRegular() {
				if data, _ := os.ReadFile(name); strings.Contains(string(data), "of the host") {
					t.Fatalf("%s is the host's", name)
				}
			}
			return nil
		})
		// Into the container: what is written through a name that changes stays inside.
		root := open(t, filepath.Dir(dir))
		_ = ExtractTar(archive(t, tar.Header{Typeflag: tar.TypeReg, Name: "d/trap"}, tar.Header{Typeflag: tar.TypeFifo, Name: "d/fifo"}),
			int(root.Fd()), "/c", Options{UID: -1, GID: -1})
		if entries, _ := os.ReadDir(outside); len(entries) != 1 {
			t.Fatalf("written outside: %v", entries)
		}
	}
}

// TestDeep copies directories that are nested deeper than a path may be long.
func TestDeep(t *testing.T) {
	dir := t.TempDir()
	at, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { unix.Close(at) }()
	const levels = 1100
	for range levels {
		if err := unix.Mkdirat(at, "deeper", 0o755); err != nil {
			t.Fatal(err)
		}
		next, err := unix.Openat(at, "deeper", unix.O_PATH|unix.O_DIRECTORY, 0)
		if err != nil {
			t.Fatal(err)
		}
		unix.Close(at)
		at = next
	}
	to := copyOf(t, dir, Options{UID: os.Geteuid(), GID: os.Getegid()})
	n := 0
	fd, _ := unix.Open(to, unix.O_PATH|unix.O_DIRECTORY, 0)
	for {
		next, err := unix.Openat(fd, "deeper", unix.O_PATH|unix.O_DIRECTORY, 0)
		unix.Close(fd)
		if err != nil {
			break
		}
		fd, n = next, n+1
	}
	if n != levels {
		t.Errorf("%d levels of %d", n, levels)
	}
	// The path is too long for anybody else to remove it.
	for _, d := range []string{dir, to} {
		for range levels {
			os.Rename(filepath.Join(d, "deeper/deeper"), filepath.Join(d, "next"))
			os.Remove(filepath.Join(d, "deeper"))
			os.Rename(filepath.Join(d, "next"), filepath.Join(d, "deeper"))
		}
	}
}

// FuzzExtractTar: whatever an archive says, nothing is written outside of the root.
func FuzzExtractTar(f *testing.F) {
	f.Add(archive(f, tar.Header{Typeflag: tar.TypeSymlink, Name: "l", Linkname: "/"}, tar.Header{Typeflag: tar.TypeReg, Name: "l/x"}).Bytes())
	f.Add(archive(f, tar.Header{Typeflag: tar.TypeDir, Name: "d/"}, tar.Header{Typeflag: tar.TypeLink, Name: "d/h", Linkname: "d"}).Bytes())
	f.Fuzz(func(t *testing.T, data []byte) {
		if len(data) > 64<<10 {
			return
		}
		above := t.TempDir()
		root := filepath.Join(above, "root")
		os.MkdirAll(filepath.Join(root, "dest"), 0o755)
		_ = ExtractTar(bytes.NewReader(data), int(open(t, root).Fd()), "/dest", Options{UID: os.Geteuid(), GID: os.Getegid(), Harmless: true})
		if entries, _ := os.ReadDir(above); len(entries) != 1 {
			t.Fatalf("written outside: %v", entries)
		}
	})
}
