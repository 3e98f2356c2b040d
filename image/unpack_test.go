package image

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

// unpackTo unpacks an archive into a fresh directory that has a neighbour nobody may touch.
func unpackTo(t testing.TB, archive []byte, l Limits) (dir string, out *unpacked, err error) {
	t.Helper()
	base := t.TempDir()
	dir = filepath.Join(base, "layer")
	for _, d := range []string{dir, filepath.Join(base, "outside")} {
		if err := os.Mkdir(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(base, "outside", "victim"), []byte("safe"), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	m := newMeter(l)
	m.local = true
	out, err = unpack(bytes.NewReader(archive), int(f.Fd()), os.Geteuid() != 0, m)
	got := treeOf(t, base, func(p string) bool { return p == "layer" })
	want := []string{"outside 40755", "outside/victim 100600 safe"}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("outside the layer (-want +got):\n%s", d)
	}
	return dir, out, err
}

// treeOf lists a directory: path, mode in octal, content or target, deletion and opaque marks.
func treeOf(t testing.TB, dir string, skip func(string) bool) []string {
	t.Helper()
	var list []string
	err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, _ := filepath.Rel(dir, p)
		if rel == "." {
			return nil
		}
		if skip != nil && skip(rel) {
			return filepath.SkipDir
		}
		var st unix.Stat_t
		if err := unix.Lstat(p, &st); err != nil {
			return err
		}
		line := fmt.Sprintf("%s %o", rel, st.Mode)
		switch st.Mode & unix.S_IFMT {
		case unix.S_IFREG:
			b, err := os.ReadFile(p)
			if err != nil {
				return err
			}
			line += " " + string(b)
		case unix.S_IFLNK:
			l, _ := os.Readlink(p)
			line = rel + " -> " + l
		case unix.S_IFCHR, unix.S_IFBLK:
			line += fmt.Sprintf(" %d:%d", unix.Major(st.Rdev), unix.Minor(st.Rdev))
			if st.Rdev == 0 {
				line = rel + " deleted"
			}
		case unix.S_IFDIR:
			fd, err := unix.Open(p, unix.O_RDONLY|unix.O_DIRECTORY, 0)
			if err != nil {
				return err
			}
			if isOpaque(fd) {
				line += " opaque"
			}
			unix.Close(fd)
		}
		list = append(list, line)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return list
}

func TestUnpackForms(t *testing.T) {
	needRoot(t)
	tests := []struct {
		name    string
		entries []e
		want    []string
	}{
		{
			"plain",
			[]e{dirE("a", 0o750), fileE("a/f", "x"), linkE("a/l", "/etc/passwd"), hardE("a/h", "a/f")},
			[]string{"a 40750", "a/f 100644 x", "a/h 100644 x", "a/l -> /etc/passwd"},
		},
		{
			"dot and absolute names",
			[]e{fileE("./a/./f", "x"), fileE("/b//g", "y")},
			[]string{"a 40755", "a/f 100644 x", "b 40755", "b/g 100644 y"},
		},
		{
			"setuid kept",
			[]e{{name: "su", mode: 0o4755, uid: 0}, {name: "sg", mode: 0o2755, gid: 7}, dirE("t", 0o1777)},
			[]string{"sg 102755 ", "su 104755 ", "t 41777"},
		},
		{"whiteout", []e{fileE("a/.wh.f", ""), dirE("a", 0o755)}, []string{"a 40755", "a/f deleted"}},
		{
			"whiteout of what the layer has",
			[]e{fileE("f", "x"), fileE(".wh.f", ""), fileE(".wh.d", ""), fileE("d/x", "")},
			[]string{"d 40755 opaque", "d/x 100644 ", "f 100644 x"},
		},
		{
			"opaque",
			[]e{fileE("a/.wh..wh..opq", ""), fileE("a/x", "1"), fileE("a/.wh..wh..opq", "")},
			[]string{"a 40755 opaque", "a/x 100644 1"},
		},
		{
			"opaque after the fact keeps the layer's own",
			[]e{fileE("a/x", "1"), fileE("a/.wh..wh..opq", "")},
			[]string{"a 40755 opaque", "a/x 100644 1"},
		},
		{
			"aufs housekeeping",
			[]e{dirE(".wh..wh.plnk", 0o700), fileE(".wh..wh.plnk/1.2", "x"), fileE(".wh..wh.aufs", ""), fileE("f", "")},
			[]string{"f 100644 "},
		},
		{"whiteout then replaced by directory", []e{fileE("a/.wh.b", ""), fileE("a", "now a file")}, []string{"a 100644 now a file"}},
		{"duplicates: the last wins", []e{fileE("f", "1"), fileE("f", "2"), linkE("f", "x"), fileE("f", "3")}, []string{"f 100644 3"}},
		{"dir to file to dir", []e{fileE("a/b/c", "1"), fileE("a/b", "2"), dirE("a/b", 0o700)}, []string{"a 40755", "a/b 40700"}},
		{"file over symlink does not follow", []e{linkE("f", "../outside/victim"), fileE("f", "evil")}, []string{"f 100644 evil"}},
		{
			"dir over symlink",
			[]e{linkE("d", "../outside"), dirE("d", 0o755), fileE("d/victim", "evil")},
			[]string{"d 40755", "d/victim 100644 evil"},
		},
		{
			"through a link inside",
			[]e{dirE("usr", 0o755), dirE("usr/lib", 0o755), linkE("lib", "usr/lib"), fileE("lib/x", "1")},
			[]string{"lib -> usr/lib", "usr 40755", "usr/lib 40755", "usr/lib/x 100644 1"},
		},
		{
			"through an absolute link",
			[]e{linkE("l", "/a/b"), fileE("l/x", "1")},
			[]string{"a 40755", "a/b 40755", "a/b/x 100644 1", "l -> /a/b"},
		},
		{
			"link upwards stops at the root",
			[]e{linkE("l", "../../../../outside"), fileE("l/victim", "evil")},
			[]string{"l -> ../../../../outside", "outside 40755", "outside/victim 100644 evil"},
		},
		{
			"hard link to a symlink is the symlink",
			[]e{linkE("l", "/etc/shadow"), hardE("h", "l")},
			[]string{"h -> /etc/shadow", "l -> /etc/shadow"},
		},
		{
			"hard link through a link stays inside",
			[]e{linkE("l", "../outside"), fileE("outside/victim", "mine"), hardE("h", "l/victim")},
			[]string{"h 100644 mine", "l -> ../outside", "outside 40755", "outside/victim 100644 mine"},
		},
		{"hard link to itself", []e{fileE("f", "1"), hardE("f", "f")}, []string{"f 100644 1"}},
		{
			"devices and pipes",
			[]e{
				{name: "null", typ: tar.TypeChar, major: 1, minor: 3, mode: 0o666},
				{name: "p", typ: tar.TypeFifo, mode: 0o600},
				{name: "b", typ: tar.TypeBlock, major: 8, minor: 1, mode: 0o660},
			},
			[]string{"b 60660 8:1", "null 20666 1:3", "p 10600"},
		},
		{"long names", []e{fileE(strings.Repeat("d/", 100)+strings.Repeat("n", 255), "x")}, nil},
		{
			"git archive's comment",
			[]e{{name: "pax_global_header", typ: tar.TypeXGlobalHeader, pax: map[string]string{"comment": "x"}}, fileE("f", "")},
			[]string{"f 100644 "},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir, _, err := unpackTo(t, tarOf(t, tt.entries...), Limits{})
			if err != nil {
				t.Fatalf("unpack: %v", err)
			}
			if tt.want == nil {
				return
			}
			if d := cmp.Diff(tt.want, treeOf(t, dir, nil)); d != "" {
				t.Errorf("tree (-want +got):\n%s", d)
			}
		})
	}
}

func TestUnpackRefuses(t *testing.T) {
	needRoot(t)
	loop := []e{linkE("a", "b"), linkE("b", "a"), fileE("a/x", "")}
	tests := []struct {
		name    string
		entries []e
		limits  Limits
		want    error
	}{
		{"dot dot", []e{fileE("../outside/victim", "evil")}, Limits{}, ErrLayer},
		{"dot dot inside", []e{fileE("a/../../outside/victim", "evil")}, Limits{}, ErrLayer},
		{"absolute dot dot", []e{fileE("/../outside/victim", "evil")}, Limits{}, ErrLayer},
		{"hard link outside", []e{hardE("h", "../outside/victim")}, Limits{}, ErrLayer},
		{"root is a symlink (CVE-2021-29136)", []e{linkE("./", "../outside")}, Limits{}, ErrLayer},
		{"root is a symlink, other spelling", []e{linkE("/", "/")}, Limits{}, ErrLayer},
		{"root is a symlink, dot", []e{linkE(".", "/etc")}, Limits{}, ErrLayer},
		{"root is a file", []e{{name: ".", body: "x"}}, Limits{}, ErrLayer},
		{"hard link to the root", []e{hardE("h", ".")}, Limits{}, ErrLayer},
		{"hard link to a directory", []e{dirE("d", 0o755), hardE("h", "d")}, Limits{}, ErrLayer},
		{"whiteout of dot", []e{fileE("a/.wh..", "")}, Limits{}, ErrLayer},
		{"whiteout of dot dot", []e{fileE("a/.wh...", "")}, Limits{}, ErrLayer},
		{"whiteout of nothing", []e{fileE("a/.wh.", "")}, Limits{}, ErrLayer},
		{"whiteout as directory", []e{fileE(".wh.a/b", "")}, Limits{}, ErrLayer},
		{"whiteout device", []e{{name: "c", typ: tar.TypeChar}}, Limits{}, ErrLayer},
		{"file as directory", []e{fileE("a", ""), fileE("a/b", "")}, Limits{}, ErrLayer},
		{"link loop", loop, Limits{}, ErrLayer},
		{"empty link", []e{linkE("l", "")}, Limits{}, ErrLayer},
		{"unknown type", []e{{name: "x", typ: 'Z'}}, Limits{}, ErrLayer},
		{"owner wraps", []e{{name: "x", uid: 1<<32 - 1}}, Limits{}, ErrLayer},
		{"component too long", []e{fileE(strings.Repeat("n", 256), "")}, Limits{}, ErrLayer},
		{"path too long", []e{fileE(strings.Repeat("d/", 3000)+"x", "")}, Limits{}, ErrLimit},
		{"too deep", []e{fileE(strings.Repeat("d/", 300)+"x", "")}, Limits{}, ErrLimit},
		{"link target too long", []e{linkE("l", strings.Repeat("x", 4096))}, Limits{}, ErrLayer},
		{"too many entries", []e{fileE("a", ""), fileE("b", ""), fileE("c", "")}, Limits{Entries: 2}, ErrLimit},
		{"too many bytes", []e{fileE("a", "12345"), fileE("b", "67890")}, Limits{Bytes: 2*4096 + 9}, ErrLimit},
		{"memory for names", []e{dirE("aaaa", 0o755), dirE("bbbb", 0o755), fileE("x/.wh.cccc", "")}, Limits{Notes: 300}, ErrLimit},
		{"attributes too large", []e{{name: "f", mode: 0o644, pax: map[string]string{"SCHILY.xattr.user.x": strings.Repeat("v",
			200<<10)}}}, Limits{}, ErrLimit},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var archive []byte
			func() {
				defer func() { recover() }()
				archive = tarOf(noFatal{t}, tt.entries...)
			}()
			if archive == nil {
				t.Skip("archive/tar does not write such an archive")
			}
			_, _, err := unpackTo(t, archive, tt.limits)
			if err == nil {
				t.Fatalf("unpack succeeded, want an error")
			}
			if tt.want != nil && !errors.Is(err, tt.want) {
				t.Errorf("error %v, want %v", err, tt.want)
			}
		})
	}
}

// noFatal turns a helper's Fatal into a panic that the caller recovers.
type noFatal struct{ testing.TB }

func (noFatal) Helper()               {}
func (noFatal) Fatalf(string, ...any) { panic("fatal") }
func (noFatal) Fatal(...any)          { panic("fatal") }

func TestUnpackAttributes(t *testing.T) {
	needRoot(t)
	capability := "\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"
	dir, _, err := unpackTo(t, tarOf(t, e{name: "f", mode: 0o755, uid: 5, pax: map[string]string{
		"SCHILY.xattr.security.capability":    capability,
		"SCHILY.xattr.user.note":              "kept",
		"SCHILY.xattr.user.overlay.opaque":    "y",
		"SCHILY.xattr.trusted.overlay.opaque": "y",
		"SCHILY.xattr.security.selinux":       "system_u",
	}}, e{name: "d/", typ: tar.TypeDir, mode: 0o755, pax: map[string]string{"SCHILY.xattr.trusted.overlay.opaque": "y"}}), Limits{})
	if err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 1024)
	n, err := unix.Listxattr(filepath.Join(dir, "f"), buf)
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]bool{}
	for a := range strings.SplitSeq(strings.Trim(string(buf[:n]), "\x00"), "\x00") {
		got[a] = true
	}
	if d := cmp.Diff(map[string]bool{"security.capability": true, "user.note": true}, got); d != "" {
		t.Errorf("attributes (-want +got):\n%s", d)
	}
	if n, _ := unix.Listxattr(filepath.Join(dir, "d"), buf); n != 0 {
		t.Errorf("directory has attributes %q, want none", buf[:n])
	}
	var st unix.Stat_t
	if err := unix.Stat(filepath.Join(dir, "f"), &st); err != nil || st.Uid != 5 {
		t.Errorf("owner %d, %v; want 5", st.Uid, err)
	}
}

func TestUnpackSparse(t *testing.T) {
	if _, err := exec.LookPath("tar"); err != nil {
		t.Skip("needs GNU tar")
	}
	for _, format := range []string{"gnu", "posix"} {
		dir := t.TempDir()
		for name, size := range map[string]int64{"bomb": 1 << 40, "holes": 64 << 20} {
			f, err := os.Create(filepath.Join(dir, name))
			if err != nil {
				t.Fatal(err)
			}
			f.WriteAt([]byte("middle"), 20<<20)
			if err := f.Truncate(size); err != nil {
				t.Fatal(err)
			}
			f.Close()
		}
		pack := func(name string) []byte {
			b, err := exec.Command("tar", "-C", dir, "-S", "--format="+format, "-c", name).Output()
			if err != nil {
				t.Fatal(err)
			}
			return b
		}
		if _, _, err := unpackTo(t, pack("bomb"), Limits{}); !errors.Is(err, ErrLimit) {
			t.Errorf("%s: a sparse file of 1 TiB: %v, want %v", format, err, ErrLimit)
		}
		out, _, err := unpackTo(t, pack("holes"), Limits{})
		if err != nil {
			t.Fatal(err)
		}
		var st unix.Stat_t
		if err := unix.Stat(filepath.Join(out, "holes"), &st); err != nil || st.Size != 64<<20 || st.Blocks > 8<<20/512 {
			t.Errorf("%s: size %d, %d blocks, %v; want 64 MiB with holes", format, st.Size, st.Blocks, err)
		}
		got, _ := os.ReadFile(filepath.Join(out, "holes"))
		if string(got[20<<20:20<<20+6]) != "middle" {
			t.Errorf("%s: content lost", format)
		}
	}
}

func TestUnpackTimes(t *testing.T) {
	dir, _, err := unpackTo(t, tarOf(t, dirE("d", 0o755), fileE("d/f", "x"), linkE("d/l", "f"),
		e{name: "far", mode: 0o644, mtime: 1 << 40}), Limits{})
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]int64{"d": 1000, "d/f": 2000, "d/l": 3000, "far": 1<<34 - 1<<31 - 1} {
		st, err := os.Lstat(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		if got := st.ModTime().Unix(); got != want {
			t.Errorf("%s: time %d, want %d", name, got, want)
		}
	}
}

// Archives that make work for the unpacker must cost time in proportion to their size.
func TestUnpackLinear(t *testing.T) {
	if testing.Short() {
		t.Skip("slow")
	}
	tests := map[string]func(i int) []e{
		"opaque marks":        func(i int) []e { return []e{fileE("a/.wh..wh..opq", "")} },
		"whiteouts":           func(i int) []e { return []e{fileE("a/.wh.x", "")} },
		"replaced directory":  func(i int) []e { return []e{fileE("a/b", ""), fileE("a", "")} },
		"directories + churn": func(i int) []e { return []e{dirE(fmt.Sprintf("k%d", i), 0o755), fileE("z/b", ""), fileE("z", "")} },
	}
	for name, gen := range tests {
		t.Run(name, func(t *testing.T) {
			measure := func(n int) time.Duration {
				var list []e
				for i := range n {
					list = append(list, gen(i)...)
					if name == "replaced directory" || name == "directories + churn" {
						list = append(list, dirE(map[bool]string{true: "a", false: "z"}[name == "replaced directory"], 0o755))
					}
				}
				b := tarOf(t, list...)
				start := time.Now()
				if _, _, err := unpackTo(t, b, Limits{}); err != nil {
					t.Fatal(err)
				}
				return time.Since(start)
			}
			small, large := measure(100), measure(800)
			if large > 40*small+300*time.Millisecond {
				t.Errorf("100 take %v, 800 take %v: not linear", small, large)
			}
		})
	}
}

func FuzzUnpack(f *testing.F) {
	f.Add(tarOf(f, dirE("a", 0o755), fileE("a/f", "x"), linkE("l", "/a"), hardE("h", "l/f"), fileE(".wh.x", ""), fileE("a/.wh..wh..opq", "")))
	f.Add(tarOf(f, linkE("d", "../outside"), fileE("d/victim", "evil")))
	f.Add(tarOf(f, fileE("../outside/victim", "evil")))
	f.Add(tarOf(f, linkE("l", "../outside"), hardE("h", "l/victim"), fileE("h", "evil")))
	f.Fuzz(func(t *testing.T, b []byte) {
		unpackTo(t, b, Limits{Bytes: 2 << 20, Entries: 200, Depth: 32, Work: 1 << 20})
	})
}

// FuzzEntries drives the unpacker with well-formed archives of hostile entries: one per line "type name [target]".
func FuzzEntries(f *testing.F) {
	f.Add("d a\nf a/f\ns l ../outside\nf l/victim\nh h l/victim\nf a/.wh.f\nf a/.wh..wh..opq")
	f.Add("s a ..\ns b a/..\nf b/outside/victim\nh x b/outside/victim\nf x")
	f.Add("f .wh...\nd .wh..\ns . /\nh . .")
	f.Add("s a /\nd a/a\ns a/a/a a\nf a/a/a/a/x\nh y a/x\nd y\nf a")
	f.Fuzz(func(t *testing.T, script string) {
		var list []e
		for line := range strings.SplitSeq(script, "\n") {
			w := strings.Split(line, " ")
			if len(w) < 2 || len(w[1]) > 300 || strings.ContainsRune(line, 0) {
				continue
			}
			x := e{name: w[1], mode: 0o755, body: ""}
			switch w[0] {
			case "d":
				x.typ = tar.TypeDir
			case "s":
				x.typ = tar.TypeSymlink
			case "h":
				x.typ = tar.TypeLink
			case "f":
				x.body = "evil"
			default:
				continue
			}
			if len(w) > 2 && len(w[2]) < 300 {
				x.link = w[2]
			}
			if list = append(list, x); len(list) > 60 {
				break
			}
		}
		var b []byte
		func() {
			defer func() { recover() }()
			b = tarOf(noFatal{t}, list...)
		}()
		if b != nil {
			unpackTo(t, b, Limits{})
		}
	})
}

// aclValue is a POSIX ACL as the kernel keeps it: user::rw-, user:1000:r--, group::---, mask::r--, other::---.
const aclValue = "\x02\x00\x00\x00" + "\x01\x00\x06\x00\xff\xff\xff\xff" + "\x02\x00\x04\x00\xe8\x03\x00\x00" +
	"\x04\x00\x00\x00\xff\xff\xff\xff" + "\x10\x00\x04\x00\xff\xff\xff\xff" + "\x20\x00\x00\x00\xff\xff\xff\xff"

// TestUnpackACLs: an ACL is kept, whatever mode, owner and order; what is made in a directory doesn't inherit the directory's.
func TestUnpackACLs(t *testing.T) {
	needRoot(t)
	probe := filepath.Join(t.TempDir(), "probe")
	os.WriteFile(probe, nil, 0o600)
	if err := unix.Setxattr(probe, "system.posix_acl_access", []byte(aclValue), 0); err == unix.EOPNOTSUPP {
		t.Skip("needs a file system with ACLs")
	}
	both := map[string]string{"SCHILY.xattr.system.posix_acl_access": aclValue, "SCHILY.xattr.system.posix_acl_default": aclValue}
	dir, out, err := unpackTo(t, tarOf(t,
		e{name: "d/", typ: tar.TypeDir, mode: 0o040, pax: both}, fileE("d/plain", "x"), dirE("d/sub", 0o755), fileE("d/implied/x", ""),
		e{name: "f", mode: 0o640, uid: 5, pax: map[string]string{"SCHILY.xattr.system.posix_acl_access": aclValue}},
		e{name: "suid", mode: 0o4750, pax: map[string]string{
			"SCHILY.xattr.system.posix_acl_access": aclValue, "SCHILY.xattr.security.selinux": "x", "SCHILY.acl.access": "user::rw-",
			"LIBARCHIVE.xattr.user.x": "eA==",
		}},
		e{name: "fifo", typ: tar.TypeFifo, mode: 0o600, pax: map[string]string{"SCHILY.xattr.user.x": "y"}},
		e{name: "d/f2", mode: 0o600, pax: map[string]string{"SCHILY.xattr.trusted.overlay.opaque": "y"}},
	), Limits{})
	if err != nil {
		t.Fatal(err)
	}
	get := func(name, attr string) string {
		buf := make([]byte, 1000)
		n, err := unix.Lgetxattr(filepath.Join(dir, name), attr, buf)
		if err != nil {
			return ""
		}
		return string(buf[:n])
	}
	for _, tt := range [][3]string{
		{"f", "system.posix_acl_access", aclValue},
		{"suid", "system.posix_acl_access", aclValue},
		{"d", "system.posix_acl_default", aclValue},
		{"d/plain", "system.posix_acl_access", ""},
		{"d/sub", "system.posix_acl_default", ""},
		{"d/implied", "system.posix_acl_default", ""},
		{"d/f2", "system.posix_acl_access", ""},
	} {
		if got := get(tt[0], tt[1]); got != tt[2] {
			t.Errorf("%s of %s: got %q, want %q", tt[1], tt[0], got, tt[2])
		}
	}
	// The directory's own has no rights for its owner: the mode said so.
	if acl := get("d", "system.posix_acl_access"); len(acl) != len(aclValue) || acl[6] != 0 || acl[12:20] != aclValue[12:20] {
		t.Errorf("d: ACL %q", acl)
	}
	// What is left out is told.
	want := map[string]int{
		"security.selinux": 1, "SCHILY.acl.access": 1, "LIBARCHIVE.xattr.user.x": 1, "user.x": 1, "trusted.overlay.opaque": 1,
	}
	if d := cmp.Diff(want, out.Left); d != "" {
		t.Errorf("left out (-want +got):\n%s", d)
	}
}
