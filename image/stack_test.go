package image

import (
	"archive/tar"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"
)

// mountImage shows an image as the kernel's overlayfs merges it.
func mountImage(t testing.TB, s *Store, img *Image) string {
	t.Helper()
	target, empty := t.TempDir(), t.TempDir()
	var lower []string
	for _, l := range slices.Backward(img.Layers) {
		lower = append(lower, filepath.Join(s.root, l.Dir))
	}
	lower = append(lower, empty) // overlayfs wants two
	if err := unix.Mount("overlay", target, "overlay", unix.MS_RDONLY, "lowerdir="+strings.Join(lower, ":")); err != nil {
		t.Skipf("needs to mount overlayfs: %v", err)
	}
	t.Cleanup(func() { unix.Unmount(target, unix.MNT_DETACH) })
	return target
}

// listing describes a tree with owners and times.
func listing(t testing.TB, dir string) []string {
	t.Helper()
	var out []string
	for _, line := range treeOf(t, dir, nil) {
		name := strings.SplitN(line, " ", 2)[0]
		var st unix.Stat_t
		if err := unix.Lstat(filepath.Join(dir, name), &st); err != nil {
			t.Fatal(err)
		}
		out = append(out, fmt.Sprintf("%s %d:%d %d", line, st.Uid, st.Gid, st.Mtim.Sec))
	}
	return out
}

// The case every builder makes: /tmp (1777) beneath, a layer that has only tmp/x above.
func TestImpliedDirectories(t *testing.T) {
	needRoot(t)
	s := openStore(t)
	base := tarOf(t, e{name: "./", typ: tar.TypeDir, mode: 0o711, uid: 9, mtime: 5}, dirE("tmp", 0o1777),
		e{name: "home/", typ: tar.TypeDir, mode: 0o700, uid: 7, gid: 8, mtime: 77}, dirE("usr", 0o755), dirE("usr/lib", 0o751),
		linkE("lib", "usr/lib"),
		fileE("usr/lib/old", "o"), fileE("usr/lib/target", "shared"))
	top := tarOf(t, fileE("tmp/x", "x"), fileE("home/y", "y"), fileE("lib/new", "n"), fileE("lib/sub/z", "z"), hardE("hard", "usr/lib/target"),
		fileE("new/dir/f", "f"))
	img := mustPullTars(t, s, base, top)
	want := []string{
		"hard 100644 shared 0:0 2000", "home 40700 7:8 77", "home/y 100644 y 0:0 2000", "lib -> usr/lib 0:0 3000",
		"new 40755 0:0 0", "new/dir 40755 0:0 0", "new/dir/f 100644 f 0:0 2000",
		"tmp 41777 0:0 1000", "tmp/x 100644 x 0:0 2000",
		"usr 40755 0:0 1000", "usr/lib 40751 0:0 1000", "usr/lib/new 100644 n 0:0 2000", "usr/lib/old 100644 o 0:0 2000",
		"usr/lib/sub 40755 0:0 0", "usr/lib/sub/z 100644 z 0:0 2000", "usr/lib/target 100644 shared 0:0 2000",
	}
	dir := mountImage(t, s, img)
	if d := cmp.Diff(want, listing(t, dir)); d != "" {
		t.Errorf("merged (-want +got):\n%s", d)
	}
	var st unix.Stat_t
	if err := unix.Stat(dir, &st); err != nil || st.Mode&0o7777 != 0o711 || st.Uid != 9 {
		t.Errorf("root: mode %o, owner %d, %v; want the base's 711, 9", st.Mode, st.Uid, err)
	}
	// The same top layer on another base is another variant, and on the first base it is found again.
	other := mustPullTars(t, s, tarOf(t, dirE("tmp", 0o700), fileE("usr/lib/target", "elsewhere")), top)
	if other.Layers[1].Dir == img.Layers[1].Dir {
		t.Error("two bases share a variant")
	}
	if got := listing(t, mountImage(t, s, other)); !slices.Contains(got, "tmp 40700 0:0 1000") || !slices.Contains(got,
		"hard 100644 elsewhere 0:0 2000") {
		t.Errorf("on the other base: %v", got)
	}
}

// A layer that needs no variant on its first base may need one on the next: it is made from the same files.
func TestVariantFromPlain(t *testing.T) {
	needRoot(t)
	s := openStore(t)
	top := tarOf(t, fileE("tmp/x", "x"), fileE("d/.wh..wh..opq", ""))
	first := mustPullTars(t, s, top)
	second := mustPullTars(t, s, tarOf(t, dirE("tmp", 0o1777), fileE("d/old", "")), top)
	if first.Layers[0].Dir == second.Layers[1].Dir {
		t.Fatal("no variant was made")
	}
	want := []string{"d 40755 0:0 0", "tmp 41777 0:0 1000", "tmp/x 100644 x 0:0 2000"}
	if d := cmp.Diff(want, listing(t, mountImage(t, s, second))); d != "" {
		t.Errorf("merged (-want +got):\n%s", d)
	}
	var a, b unix.Stat_t
	unix.Stat(filepath.Join(s.root, first.Layers[0].Dir, "tmp/x"), &a)
	unix.Stat(filepath.Join(s.root, second.Layers[1].Dir, "tmp/x"), &b)
	if a.Ino != b.Ino {
		t.Error("the variant has its own copy of the file")
	}
}

func TestSameLayerTwiceAndEmpty(t *testing.T) {
	needRoot(t)
	s := openStore(t)
	a, b := tarOf(t, fileE("f", "a")), tarOf(t, fileE("f", "b"))
	img := mustPullTars(t, s, a, tarOf(t), b, tarOf(t), a)
	if len(img.Layers) != 3 || img.Layers[0].Dir == img.Layers[2].Dir {
		t.Fatalf("layers %+v, want three different directories", img.Layers)
	}
	if d := cmp.Diff([]string{"f 100644 a 0:0 2000"}, listing(t, mountImage(t, s, img))); d != "" {
		t.Error(d)
	}
	if img := mustPullTars(t, openStore(t), tarOf(t)); len(img.Layers) != 1 {
		t.Errorf("image of an empty layer: %+v", img.Layers)
	}
}

// Random stacks, unpacked by umoci into one tree and by us into layers that the kernel merges, must look the same.
func TestAgainstUmoci(t *testing.T) {
	needRoot(t)
	if _, err := exec.LookPath("umoci"); err != nil {
		t.Skip("needs umoci")
	}
	compared := 0
	rounds := 40
	if testing.Short() {
		rounds = 5
	}
	for seed := range rounds {
		rnd := rand.New(rand.NewPCG(uint64(seed), 42))
		var tars [][]byte
		var text []string
		for range 1 + rnd.IntN(4) {
			entries := randomLayer(rnd)
			tars = append(tars, tarOf(t, entries...))
			for _, x := range entries {
				text = append(text, fmt.Sprintf("%c %s %s %o", x.typ, x.name, x.link, x.mode))
			}
			text = append(text, "--")
		}
		want, werr := umociUnpack(t, tars)
		s := openStore(t)
		img, err := pullTars(t, s, tars...)
		if werr != nil || err != nil {
			if (werr == nil) != (err == nil) {
				t.Logf("seed %d: ours %v, umoci %v", seed, err, werr)
			}
			continue
		}
		compared++
		want = forgetNow(want)
		got := listing(t, mountImage(t, s, img))
		sameTimes(want, got)
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("seed %d (-umoci +ours):\n%s\nlayers:\n%s", seed, d, strings.Join(text, "\n"))
		}
		got = ownMerge(t, s, img)
		sameTimes(want, got)
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("seed %d, read without a mount (-umoci +ours):\n%s", seed, d)
		}
	}
	if compared < rounds/2 {
		t.Errorf("only %d of %d stacks could be compared", compared, rounds)
	}
}

// forgetNow drops times that umoci did not take from an archive: of directories that it made or added to.
func forgetNow(list []string) []string {
	for i, l := range list {
		k := strings.LastIndexByte(l, ' ')
		if n, _ := strconv.Atoi(l[k+1:]); n > 1e6 {
			list[i] = l[:k+1] + "now"
		}
	}
	return list
}

func sameTimes(want, got []string) {
	for i := range min(len(want), len(got)) {
		if k := strings.LastIndexByte(got[i], ' '); strings.HasSuffix(want[i], " now") {
			got[i] = got[i][:k+1] + "now"
		}
	}
}

// ownMerge lists an image through lookup, to test it against the kernel.
func ownMerge(t *testing.T, s *Store, img *Image) []string {
	m, err := openMerged(s.root, img.Layers)
	if err != nil {
		t.Fatal(err)
	}
	defer m.close()
	var out []string
	var visit func(p string, depth int)
	visit = func(p string, depth int) {
		for _, c := range []string{"a", "b", "c", "d"} {
			name := joinPath(p, c)
			f, err := m.lookup(name, false)
			if err != nil {
				continue
			}
			if f.path != name { // through a link: seen elsewhere
				f.close()
				continue
			}
			st := f.stat
			line := fmt.Sprintf("%s %o", name, st.Mode)
			switch {
			case f.is(unix.S_IFREG):
				b, err := m.readFile(name, 1000)
				if err != nil {
					t.Errorf("readFile %s: %v", name, err)
				}
				line += " " + string(b)
			case f.is(unix.S_IFLNK):
				l, _ := readlinkat(f.dir, f.base)
				line = name + " -> " + l
			}
			out = append(out, fmt.Sprintf("%s %d:%d %d", line, st.Uid, st.Gid, st.Mtim.Sec))
			isDir := f.is(unix.S_IFDIR)
			f.close()
			if isDir && depth < 6 {
				visit(name, depth+1)
			}
		}
	}
	visit("", 0)
	return out
}

func randomLayer(rnd *rand.Rand) []e {
	name := func() string {
		p := ""
		for range 1 + rnd.IntN(3) {
			p = joinPath(p, string("abcd"[rnd.IntN(4)]))
		}
		return p
	}
	var list []e
	files := []string{}
	used, dirs, leaves := map[string]bool{}, map[string]bool{}, map[string]bool{}
	for range 3 + rnd.IntN(8) {
		n := name()
		x := e{uid: rnd.IntN(3), gid: rnd.IntN(3), mtime: int64(1000 + rnd.IntN(1000)), mode: []int64{0o755, 0o700, 0o1777, 0o644}[rnd.IntN(4)]}
		switch k := rnd.IntN(20); {
		case k < 6:
			x.typ, x.name, x.mode = tar.TypeDir, n+"/", x.mode|0o100
		case k < 13:
			x.typ, x.name, x.body = tar.TypeReg, n, fmt.Sprint(rnd.IntN(1000))
			files = append(files, n)
		case k < 15:
			x.typ, x.name, x.link = tar.TypeSymlink, n, []string{"/" + name(), name(), "../" + name()}[rnd.IntN(3)]
		case k < 16 && len(files) > 0:
			x.typ, x.name, x.link = tar.TypeLink, n, files[rnd.IntN(len(files))]
		case k < 19:
			x.typ = tar.TypeReg
			d, b := splitPath(n)
			x.name = joinPath(d, ".wh."+b)
		default:
			x.typ, x.name = tar.TypeReg, n+"/.wh..wh..opq"
		}
		// One mention of a name in a layer: what several mean is our own rule, tested elsewhere.
		key := strings.TrimSuffix(strings.ReplaceAll(x.name, ".wh.", ""), "/")
		if used[key] {
			continue
		}
		// Archives that contradict themselves are refused by one or the other.
		leaf, clash := x.typ != tar.TypeDir && !strings.HasSuffix(x.name, "opq"), false
		for p := parentOf(key); p != ""; p = parentOf(p) {
			clash = clash || leaves[p]
		}
		if clash || leaf && dirs[key] || strings.HasSuffix(x.name, "opq") && !used[n] {
			continue
		}
		for p := parentOf(key); p != ""; p = parentOf(p) {
			dirs[p] = true
		}
		leaves[key] = leaf
		used[key] = true
		list = append(list, x)
	}
	return list
}

func umociUnpack(t *testing.T, tars [][]byte) ([]string, error) {
	t.Helper()
	dir := t.TempDir()
	layout := filepath.Join(dir, "layout")
	write := func(b []byte) v1.Descriptor {
		p := filepath.Join(layout, "blobs", "sha256", hexOf(digestOf(b)))
		os.MkdirAll(filepath.Dir(p), 0o755)
		if err := os.WriteFile(p, b, 0o644); err != nil {
			t.Fatal(err)
		}
		return v1.Descriptor{Digest: digest.Digest(digestOf(b)), Size: int64(len(b))}
	}
	config := v1.Image{Platform: amd64()}
	config.RootFS.Type = "layers"
	m := v1.Manifest{MediaType: v1.MediaTypeImageManifest}
	m.SchemaVersion = 2
	for _, b := range tars {
		d := write(b)
		d.MediaType = v1.MediaTypeImageLayer
		m.Layers = append(m.Layers, d)
		config.RootFS.DiffIDs = append(config.RootFS.DiffIDs, d.Digest)
	}
	m.Config = write(mustJSON(t, config))
	m.Config.MediaType = v1.MediaTypeImageConfig
	md := write(mustJSON(t, m))
	md.MediaType = v1.MediaTypeImageManifest
	md.Annotations = map[string]string{"org.opencontainers.image.ref.name": "x"}
	idx := v1.Index{Manifests: []v1.Descriptor{md}}
	idx.SchemaVersion = 2
	os.WriteFile(filepath.Join(layout, "index.json"), mustJSON(t, idx), 0o644)
	os.WriteFile(filepath.Join(layout, "oci-layout"), []byte(`{"imageLayoutVersion":"1.0.0"}`), 0o644)
	out, err := exec.Command("umoci", "unpack", "--image", layout+":x", filepath.Join(dir, "bundle")).CombinedOutput()
	if err != nil {
		return nil, fmt.Errorf("%w: %s", err, out)
	}
	return listing(t, filepath.Join(dir, "bundle", "rootfs")), nil
}

// TestVariantKeepsACLs: a directory that a layer leaves out has the ACLs that it has beneath, and so has a copy of a layer's own.
func TestVariantKeepsACLs(t *testing.T) {
	needRoot(t)
	s := openStore(t)
	acls := map[string]string{"SCHILY.xattr.system.posix_acl_access": aclValue, "SCHILY.xattr.system.posix_acl_default": aclValue}
	base := tarOf(t, e{name: "d/", typ: tar.TypeDir, mode: 0o640, pax: acls}, fileE("d/old", ""))
	top := tarOf(t, fileE("d/new", "x"), e{name: "own/", typ: tar.TypeDir, mode: 0o640, pax: acls}, fileE("own/f", ""))
	mustPullTars(t, s, top) // the plain form is there, and the variant is made from it
	img := mustPullTars(t, s, base, top)
	merged := mountImage(t, s, img)
	for path, want := range map[string]string{"d": aclValue, "own": aclValue, "d/new": "", "own/f": ""} {
		for _, attr := range []string{"system.posix_acl_access", "system.posix_acl_default"} {
			buf := make([]byte, 100)
			n, err := unix.Getxattr(filepath.Join(merged, path), attr, buf)
			if err == unix.EOPNOTSUPP {
				t.Skip("needs a file system with ACLs")
			}
			if got := string(buf[:max(n, 0)]); got != want {
				t.Errorf("%s of %s: got %q, want %q", attr, path, got, want)
			}
		}
	}
}
