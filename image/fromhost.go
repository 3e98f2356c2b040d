package image

import (
	"archive/tar"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"

	"glassbox/event"
)

// FromHostOptions say what an image made of the host's own programs holds.
type FromHostOptions struct {
	// Files are paths, or names to be found in PATH; "FILE:DEST" places a file elsewhere. Directories are copied with all
	// they hold. Libraries, loaders and interpreters that the files need come along by themselves.
	Files []string
	// Platform must be this machine's, if one is asked for: its programs are no others'.
	Platform Platform
}

const defaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// FromHost makes an image of one layer out of the host's programs and the shared libraries that their ELF headers name.
// No program is run to find out (ldd runs what it is asked about). Libraries that a program opens while it runs, such as
// NSS or locale modules, must be named. The same files make the same digest.
func (s *Store) FromHost(ctx context.Context, name string, o FromHostOptions) (*Image, error) {
	ref, err := ParseRef(name)
	if err != nil {
		return nil, err
	}
	if ref.Digest != "" {
		return nil, &Error{Op: "image", Name: name, Kind: ErrReference, Text: "a name with a digest cannot be given, only computed"}
	}
	if len(o.Files) == 0 {
		return nil, &Error{Op: "image", Name: name, Kind: ErrReference, Text: "no files named", Hint: "for example: bash ls cat"}
	}
	here := Platform{OS: "linux", Architecture: runtime.GOARCH}.normal()
	if !here.Runs(o.Platform) {
		return nil, &Error{
			Op: "image", Name: name, Kind: ErrPlatform, Text: fmt.Sprintf("this machine's programs are for %s, not for %s", here, o.Platform),
			Hint: "make it on such a machine, or leave --platform out",
		}
	}
	t := newHostTree()
	var first []string
	for _, f := range o.Files {
		dest, err := t.addArg(f)
		if err != nil {
			return nil, &Error{Op: "image from host", Name: f, Err: err, Text: "cannot be included"}
		}
		first = append(first, dest)
	}
	if err := t.skeleton(); err != nil {
		return nil, err
	}

	// Only now is the store made or locked: a name that can't be found leaves nothing behind.
	release, err := s.adding()
	if err != nil {
		return nil, err
	}
	defer release()
	rec, size, err := s.ingestTree(ctx, t)
	if err != nil {
		return nil, err
	}
	// The newest file's time and not now: the same files make the same image.
	created := t.newest.UTC().Truncate(time.Second)
	config := &v1.Image{
		Created:  &created,
		Platform: v1.Platform{OS: "linux", Architecture: runtime.GOARCH},
		Config: v1.ImageConfig{
			Env: []string{"PATH=" + defaultPath},
			Cmd: []string{pickCommand(t, first)},
		},
		RootFS:  v1.RootFS{Type: "layers", DiffIDs: []digest.Digest{digest.Digest(rec.DiffID)}},
		History: []v1.History{{Created: &created, CreatedBy: "glassbox image from-host " + strings.Join(o.Files, " ")}},
	}
	rawConfig, err := json.Marshal(config)
	if err != nil {
		return nil, err
	}
	manifest := v1.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2},
		MediaType: v1.MediaTypeImageManifest,
		Config:    v1.Descriptor{MediaType: v1.MediaTypeImageConfig, Digest: digest.Digest(digestOf(rawConfig)), Size: int64(len(rawConfig))},
		Layers:    []v1.Descriptor{{MediaType: v1.MediaTypeImageLayer, Digest: digest.Digest(rec.DiffID), Size: size}},
	}
	rawManifest, err := json.Marshal(manifest)
	if err != nil {
		return nil, err
	}
	img, err := s.commit(&newImage{
		platform: here, id: digestOf(rawConfig), config: config, rawConfig: rawConfig, layers: []Layer{rec.layer()}, ref: ref,
		manifest: &document{raw: rawManifest, digest: digestOf(rawManifest), image: &manifest},
	})
	if err != nil {
		return nil, err
	}
	// As of docker import, which makes an image of files, too.
	s.happened(event.Tag, img.ID, ref.Familiar(), img)
	s.happened(event.Import, img.ID, img.ID, img)
	return img, nil
}

// ingestTree packs the tree and unpacks it into the store by the same code as a pulled layer.
func (s *Store) ingestTree(ctx context.Context, t *hostTree) (*layerRecord, int64, error) {
	in, err := s.newIngest()
	if err != nil {
		return nil, 0, err
	}
	defer in.discard()
	pr, pw := io.Pipe()
	// Packed into a pipe and unpacked at its other end: one piece of code puts layers into the store, whatever they come
	// from.
	go func() { pw.CloseWithError(t.write(pw)) }()
	defer pr.Close()
	m := newMeter(Limits{})
	m.local = true
	out, id, err := in.record(ctx, pr, "", m)
	if err != nil {
		return nil, 0, err
	}
	var g syncer
	rec, err := in.publish(layerRecord{ID: id, DiffID: id, Size: out.Size, Entries: out.Entries}, &g)
	return rec, out.Tar, err
}

type countWriter struct{ n int64 }

func (c *countWriter) Write(p []byte) (int, error) {
	c.n += int64(len(p))
	return len(p), nil
}

// hostTree is the image's file tree by absolute path without links in the middle.
type hostTree struct {
	nodes   map[string]*hostNode
	inodes  map[[2]uint64]string // first path of a file with several names
	scanned map[string]bool      // host files whose needs are known
	newest  time.Time
	libs    libFinder
}

type hostNode struct {
	mode    fs.FileMode
	uid     int
	gid     int
	mtime   time.Time
	size    int64
	source  string // host path of a regular file
	content []byte // of a file that the host need not have
	link    string // target of a symbolic link
	hard    string // path of an earlier name of the same file
	caps    []byte // security.capability
}

func newHostTree() *hostTree {
	return &hostTree{
		nodes:   map[string]*hostNode{"/": {mode: fs.ModeDir | 0o755, mtime: epoch}},
		inodes:  map[[2]uint64]string{},
		scanned: map[string]bool{},
		newest:  epoch,
	}
}

// addArg adds what one argument names and returns its path in the image.
func (t *hostTree) addArg(arg string) (string, error) {
	src, dest := arg, ""
	// From the right, because a file's name may have a colon.
	if i := strings.LastIndex(arg, ":/"); i > 0 {
		src, dest = arg[:i], arg[i+1:]
	}
	if !strings.Contains(src, "/") {
		p, err := lookPath(src)
		if err != nil {
			return "", err
		}
		src = p
	}
	src, err := filepath.Abs(src)
	if err != nil {
		return "", err
	}
	for _, d := range []string{"/proc", "/sys", "/dev"} {
		if src == d || strings.HasPrefix(src, d+"/") {
			return "", fmt.Errorf("%s is the kernel's, not a file of the host", src)
		}
	}
	if dest == "" {
		return src, t.add(src, 0)
	}
	if strings.HasSuffix(dest, "/") {
		dest += filepath.Base(src)
	}
	return t.addAt(src, path.Clean(dest))
}

func lookPath(name string) (string, error) {
	dirs := filepath.SplitList(os.Getenv("PATH"))
	dirs = append(dirs, filepath.SplitList(defaultPath)...)
	for _, d := range dirs {
		if !filepath.IsAbs(d) {
			continue
		}
		p := filepath.Join(d, name)
		if st, err := os.Stat(p); err == nil && !st.IsDir() && st.Mode()&0o111 != 0 {
			return p, nil
		}
	}
	return "", fmt.Errorf("no program of this name in PATH (for a file here, write ./%s)", name)
}

// add copies a host path with the links on the way: on a host with /bin → usr/bin, /bin/sh brings the link, the directory
// /usr/bin, and whatever sh links to.
func (t *hostTree) add(p string, links int) error {
	if links > maxLinks {
		return fmt.Errorf("%s: too many levels of symbolic links", p)
	}
	parts := strings.Split(strings.Trim(path.Clean(p), "/"), "/")
	dir := "/"
	for i, c := range parts {
		if c == "" {
			break
		}
		cur := path.Join(dir, c)
		st, err := os.Lstat(cur)
		if err != nil {
			return unwrapPath(cur, err)
		}
		switch {
		case st.Mode()&fs.ModeSymlink != 0:
			target, err := os.Readlink(cur)
			if err != nil {
				return err
			}
			if err := t.put(cur, st, &hostNode{link: target}); err != nil {
				return err
			}
			next := target
			if !path.IsAbs(next) {
				next = path.Join(dir, next)
			}
			// The rest of the path goes on from where the link leads; that place is copied with the links on its own way.
			return t.add(path.Join(append([]string{next}, parts[i+1:]...)...), links+1)
		case st.IsDir():
			if err := t.put(cur, st, &hostNode{}); err != nil {
				return err
			}
			dir = cur
		default:
			if i < len(parts)-1 {
				return fmt.Errorf("%s is not a directory", cur)
			}
			return t.file(cur, cur, st, true)
		}
	}
	if st, err := os.Lstat(dir); err == nil && st.IsDir() && dir != "/" {
		return t.tree(dir, dir)
	}
	return errors.New("the whole root is no list of files; use run --rootfs / for that")
}

func unwrapPath(p string, err error) error {
	var pe *fs.PathError
	if errors.As(err, &pe) {
		return fmt.Errorf("%s: %w", p, pe.Err)
	}
	return err
}

// addAt copies a host path to another place in the image.
func (t *hostTree) addAt(src, dest string) (string, error) {
	st, err := os.Stat(src)
	if err != nil {
		return "", unwrapPath(src, err)
	}
	real, err := filepath.EvalSymlinks(src)
	if err != nil {
		return "", err
	}
	parent, err := t.mkdirs(path.Dir(dest), 0)
	if err != nil {
		return "", err
	}
	dest = path.Join(parent, path.Base(dest))
	if st.IsDir() {
		if err := t.put(dest, st, &hostNode{}); err != nil {
			return "", err
		}
		return dest, t.tree(real, dest)
	}
	return dest, t.file(real, dest, st, true)
}

// mkdirs makes directories in the image; where the image or the host has a link to a directory, so will the image.
func (t *hostTree) mkdirs(p string, links int) (string, error) {
	if links > maxLinks {
		return "", fmt.Errorf("%s: too many levels of symbolic links", p)
	}
	dir := "/"
	parts := strings.Split(strings.Trim(p, "/"), "/")
	for i, c := range parts {
		if c == "" {
			continue
		}
		cur := path.Join(dir, c)
		n := t.nodes[cur]
		if n == nil {
			// What the host has as a link stays one, so that both names work: /bin/sh and /usr/bin/sh.
			if st, err := os.Lstat(cur); err == nil && st.Mode()&fs.ModeSymlink != 0 {
				if to, err := os.Stat(cur); err == nil && to.IsDir() {
					target, err := os.Readlink(cur)
					if err != nil {
						return "", err
					}
					n = &hostNode{link: target}
					if err := t.put(cur, st, n); err != nil {
						return "", err
					}
				}
			}
		}
		switch {
		case n == nil:
			t.nodes[cur] = &hostNode{mode: fs.ModeDir | 0o755, mtime: epoch}
			dir = cur
		case n.mode&fs.ModeSymlink != 0:
			next := n.link
			if !path.IsAbs(next) {
				next = path.Join(dir, next)
			}
			return t.mkdirs(path.Join(append([]string{next}, parts[i+1:]...)...), links+1)
		case n.mode.IsDir():
			dir = cur
		default:
			return "", fmt.Errorf("%s is not a directory in the image", cur)
		}
	}
	return dir, nil
}

// put enters a node; the same node twice is one, a different one in its place is an error.
func (t *hostTree) put(p string, st fs.FileInfo, n *hostNode) error {
	n.mode = st.Mode()
	n.uid, n.gid = owner(st)
	n.mtime = st.ModTime()
	if n.mode.IsDir() {
		n.mtime = epoch // it changes with files that are not in the image
	}
	if old := t.nodes[p]; old != nil {
		if old.mode.Type() != n.mode.Type() || old.link != n.link || old.source != n.source {
			return fmt.Errorf("two different files for %s", p)
		}
		return nil
	}
	if !n.mode.IsDir() && n.mtime.After(t.newest) {
		t.newest = n.mtime
	}
	t.nodes[p] = n
	return nil
}

// file enters a regular file and what it needs to run; strict says that a missing need is an error.
func (t *hostTree) file(src, dest string, st fs.FileInfo, strict bool) error {
	if !st.Mode().IsRegular() {
		return fmt.Errorf("%s is neither a file nor a directory nor a link", src)
	}
	n := &hostNode{source: src, size: st.Size()}
	buf := make([]byte, 256)
	if k, err := unix.Lgetxattr(src, "security.capability", buf); err == nil && k > 0 {
		n.caps = buf[:k]
	}
	if id, several := inode(st); several {
		if first, ok := t.inodes[id]; ok && first != dest {
			n.hard = first
		} else {
			t.inodes[id] = dest
		}
	}
	if err := t.put(dest, st, n); err != nil {
		return err
	}
	return t.needs(src, strict)
}

// tree copies a directory's content.
func (t *hostTree) tree(src, dest string) error {
	entries, err := os.ReadDir(src)
	if err != nil {
		return unwrapPath(src, err)
	}
	for _, e := range entries {
		from, to := path.Join(src, e.Name()), path.Join(dest, e.Name())
		st, err := os.Lstat(from)
		if err != nil {
			return unwrapPath(from, err)
		}
		switch {
		case st.IsDir():
			if err = t.put(to, st, &hostNode{}); err == nil {
				err = t.tree(from, to)
			}
		case st.Mode()&fs.ModeSymlink != 0:
			var target string
			if target, err = os.Readlink(from); err == nil {
				err = t.put(to, st, &hostNode{link: target})
			}
		case st.Mode().IsRegular():
			err = t.file(from, to, st, false)
		} // sockets, pipes and devices belong to the running host
		if err != nil {
			return err
		}
	}
	return nil
}

const (
	hostPasswd = "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n"
	hostGroup  = "root:x:0:\nnogroup:x:65534:\n"
)

// skeleton adds what programs expect of any root file system.
func (t *hostTree) skeleton() error {
	for _, d := range []struct {
		path string
		mode fs.FileMode
	}{
		{"/etc", 0o755}, {"/proc", 0o555}, {"/sys", 0o555}, {"/dev", 0o755}, {"/root", 0o700}, {"/tmp", 0o777 | fs.ModeSticky},
	} {
		if t.nodes[d.path] == nil {
			t.nodes[d.path] = &hostNode{mode: fs.ModeDir | d.mode, mtime: epoch}
		}
	}
	// Where the host has /bin → usr/bin, programs and scripts expect both names.
	for _, p := range []string{"/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32"} {
		target, err := os.Readlink(p)
		if err != nil || t.nodes[p] != nil || t.nodes[path.Join("/", target)] == nil {
			continue
		}
		t.nodes[p] = &hostNode{mode: fs.ModeSymlink | 0o777, link: target, mtime: epoch}
	}
	for p, content := range map[string]string{"/etc/passwd": hostPasswd, "/etc/group": hostGroup} {
		if t.nodes[p] == nil {
			t.nodes[p] = &hostNode{mode: 0o644, mtime: epoch, content: []byte(content), size: int64(len(content))}
		}
	}
	return nil
}

// write packs the tree, sorted, so that the same files make the same bytes.
func (t *hostTree) write(w io.Writer) error {
	tw := tar.NewWriter(w)
	paths := slices.Sorted(maps.Keys(t.nodes))
	written := map[string]bool{}
	for _, p := range paths {
		n := t.nodes[p]
		h := &tar.Header{
			Name: strings.TrimPrefix(p, "/"), Uid: n.uid, Gid: n.gid, Format: tar.FormatPAX,
			Mode: unixPerm(n.mode), ModTime: n.mtime.Truncate(time.Second),
		}
		switch {
		case n.mode.IsDir():
			h.Typeflag, h.Name = tar.TypeDir, h.Name+"/"
			if p == "/" {
				h.Name = "./"
			}
		case n.mode&fs.ModeSymlink != 0:
			h.Typeflag, h.Linkname = tar.TypeSymlink, n.link
		// The first name has the content; the others are links to it, if it has been written, which depends on the order
		// of names only.
		case n.hard != "" && written[n.hard]:
			h.Typeflag, h.Linkname = tar.TypeLink, strings.TrimPrefix(n.hard, "/")
		default:
			h.Typeflag, h.Size = tar.TypeReg, n.size
			if n.caps != nil {
				h.PAXRecords = map[string]string{"SCHILY.xattr.security.capability": string(n.caps)}
			}
		}
		if err := tw.WriteHeader(h); err != nil {
			return fmt.Errorf("%s: %w", p, err)
		}
		written[p] = true
		if h.Typeflag != tar.TypeReg {
			continue
		}
		if err := n.copyTo(tw); err != nil {
			return fmt.Errorf("%s: %w", p, err)
		}
	}
	return tw.Close()
}

func (n *hostNode) copyTo(w io.Writer) error {
	if n.source == "" {
		_, err := w.Write(n.content)
		return err
	}
	f, err := os.Open(n.source)
	if err != nil {
		return err
	}
	defer f.Close()
	// A file that grows is cut where it ended when its header was written; one that shrinks can't be had whole.
	k, err := io.Copy(w, io.LimitReader(f, n.size))
	if err == nil && k < n.size {
		err = errors.New("it shrank while it was copied")
	}
	return err
}

func unixPerm(m fs.FileMode) int64 {
	p := int64(m.Perm())
	if m&fs.ModeSetuid != 0 {
		p |= 0o4000
	}
	if m&fs.ModeSetgid != 0 {
		p |= 0o2000
	}
	if m&fs.ModeSticky != 0 {
		p |= 0o1000
	}
	return p
}

// pickCommand chooses what runs when nothing is said: a shell if there is one, else the first file.
func pickCommand(t *hostTree, args []string) string {
	for _, shell := range []string{"bash", "sh", "dash", "ash", "zsh"} {
		for _, a := range args {
			if path.Base(a) == shell {
				return a
			}
		}
	}
	for _, p := range []string{"/bin/sh", "/usr/bin/sh"} {
		if t.nodes[p] != nil {
			return p
		}
	}
	return args[0]
}
