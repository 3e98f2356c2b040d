package image

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// unpacker writes one layer archive below a directory descriptor, in the form overlayfs mounts.
//
// Names in the archive are hostile. Every step goes from a directory descriptor to one component with O_NOFOLLOW, so the
// kernel never follows a link for us; links in the middle of a name are read and resolved against the layer's root by
// [unpacker.enter]. Descriptors of the current directory and its parents stay open, because archives are ordered: most
// entries cost one openat.
type unpacker struct {
	limits Limits
	user   bool // ordinary user's store: no chown, no devices, user.* marks
	uid    int
	gid    int

	stack []node          // stack[0] is the root
	dirs  map[string]*dir // every directory of the layer by its real path, "" for the root

	entries int
	bytes   int64 // of regular files, as their headers say
	notes   int64 // bytes of memory that dirs takes, about
	buf     []byte
}

type node struct {
	name string // component as named in the archive
	path string // real path below the root, "" for the root
	fd   int
}

// dir is what is set on a directory when everything below it is done. Notes hang on directories, so that dropping one
// drops them without a search: an archive that makes and replaces directories a million times must stay linear.
type dir struct {
	mode    uint32
	mtime   time.Time
	atime   time.Time
	implied bool              // needed by an entry, not (yet) described by the archive
	opaque  bool              // the content in the layers beneath is hidden
	hidden  map[string]bool   // names hidden from the layers beneath
	links   map[string]string // hard links whose targets are not in this layer: name → target
}

// pendingLink is a hard link whose target must come from the layers beneath.
type pendingLink struct {
	Name   string `json:"name"`
	Target string `json:"target"`
}

// unpacked is what an archive left.
type unpacked struct {
	Size    int64
	Entries int
	Implied []string // directories that take after the layers beneath, sorted; "" is the root
	Links   []pendingLink
	Hiding  []string // directories that hold whiteouts, sorted
}

// epoch is the time of what no archive describes: it must not depend on when a pull happens.
var epoch = time.Unix(0, 0)

// unpack reads a tar archive into the empty directory rootfd.
func unpack(r io.Reader, rootfd int, user bool, limits Limits) (*unpacked, error) {
	fd, err := unix.Openat(rootfd, ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open layer directory: %w", err)
	}
	u := &unpacker{
		limits: limits, user: user, uid: os.Geteuid(), gid: os.Getegid(),
		stack: []node{{fd: fd}},
		dirs:  map[string]*dir{},
		buf:   make([]byte, 128<<10),
	}
	defer u.leave(0)
	if err := u.setImplied(fd, ""); err != nil {
		return nil, err
	}
	tr := tar.NewReader(r)
	for {
		h, err := tr.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			if errors.Is(err, io.ErrUnexpectedEOF) {
				err = fmt.Errorf("%w: %w", ErrTruncated, err)
			}
			return nil, fmt.Errorf("read archive: %w", err)
		}
		if err := u.entry(h, tr); err != nil {
			return nil, err
		}
	}
	if err := u.finish(); err != nil {
		return nil, err
	}
	out := &unpacked{Size: u.bytes, Entries: u.entries}
	for p, d := range u.dirs {
		if d.implied && !u.cut(p) {
			out.Implied = append(out.Implied, p)
		}
		if len(d.hidden) > 0 && !d.opaque && !u.cut(p) {
			out.Hiding = append(out.Hiding, p)
		}
		for name, target := range d.links {
			out.Links = append(out.Links, pendingLink{Name: joinPath(p, name), Target: target})
		}
	}
	slices.Sort(out.Implied)
	slices.Sort(out.Hiding)
	slices.SortFunc(out.Links, func(a, b pendingLink) int { return strings.Compare(a.Name, b.Name) })
	return out, nil
}

// badEntry refuses an archive for what one of its entries says.
func badEntry(name string, format string, args ...any) error {
	return &Error{Op: "layer entry", Name: fmt.Sprintf("%q", name), Kind: ErrLayer, Text: fmt.Sprintf(format, args...)}
}

func overLimit(name string, format string, args ...any) error {
	return &Error{Op: "layer entry", Name: fmt.Sprintf("%.100q", name), Kind: ErrLimit, Text: fmt.Sprintf(format, args...)}
}

const (
	whPrefix = ".wh."
	whMeta   = ".wh..wh."
	whOpaque = ".wh..wh..opq"
)

func (u *unpacker) entry(h *tar.Header, r io.Reader) error {
	if h.Typeflag == tar.TypeXGlobalHeader {
		return nil // git archive's comment; it names no file
	}
	if u.entries++; u.entries > u.limits.Entries {
		return overLimit(h.Name, "more than %d entries", u.limits.Entries)
	}
	name, err := u.clean(h.Name)
	if err != nil {
		return err
	}
	if h.Size < 0 {
		return badEntry(h.Name, "negative size")
	}
	switch h.Typeflag {
	case tar.TypeReg, tar.TypeGNUSparse, tar.TypeCont:
		// A sparse file's size is not paid for in the archive: count what it claims.
		if u.bytes += h.Size; u.bytes > u.limits.Bytes || u.bytes < 0 {
			return overLimit(h.Name, "the layer unpacks to more than %d bytes", u.limits.Bytes)
		}
	}
	if name == "" {
		if h.Typeflag != tar.TypeDir {
			return badEntry(h.Name, "the layer's root must be a directory (CVE-2021-29136)")
		}
		return u.describe("", u.stack[0].fd, h)
	}
	parent, base := path.Split(name)
	parent = strings.TrimSuffix(parent, "/")
	for p := range strings.SplitSeq(parent, "/") {
		if strings.HasPrefix(p, whMeta) {
			return nil // below an aufs directory such as .wh..wh.plnk
		}
		if strings.HasPrefix(p, whPrefix) {
			return badEntry(h.Name, "a whiteout mark as a directory")
		}
	}
	if strings.HasPrefix(base, whPrefix) {
		return u.whiteout(parent, base, h)
	}
	at, err := u.enter(parent, 0)
	if err != nil {
		return u.in(h.Name, err)
	}
	real := joinPath(at.path, base)
	switch h.Typeflag {
	case tar.TypeDir:
		err = u.directory(at, base, real, h)
	case tar.TypeReg, tar.TypeGNUSparse, tar.TypeCont:
		err = u.file(at, base, real, h, r)
	case tar.TypeSymlink:
		err = u.symlink(at, base, real, h)
	case tar.TypeLink:
		err = u.link(at, base, real, h)
	case tar.TypeChar, tar.TypeBlock, tar.TypeFifo:
		err = u.special(at, base, real, h)
	default:
		return badEntry(h.Name, "unknown type %q", h.Typeflag)
	}
	return u.in(h.Name, err)
}

// in adds the entry's name to an error that has none.
func (u *unpacker) in(name string, err error) error {
	if err == nil {
		return nil
	}
	if e := (*Error)(nil); errors.As(err, &e) {
		return err
	}
	return fmt.Errorf("layer entry %.200q: %w", name, err)
}

// clean turns an archive's name into components below the root: no leading slash, no ".", no "..".
func (u *unpacker) clean(name string) (string, error) {
	if len(name) > u.limits.Path {
		return "", overLimit(name, "a path of %d bytes, the limit is %d", len(name), u.limits.Path)
	}
	if strings.IndexByte(name, 0) >= 0 {
		return "", badEntry(name, "a NUL byte in the name")
	}
	parts := make([]string, 0, 16)
	for p := range strings.SplitSeq(name, "/") {
		switch {
		case p == "" || p == ".":
		case p == "..":
			return "", badEntry(name, "the name contains ..")
		case len(p) > 255:
			return "", badEntry(name, "a component longer than 255 bytes")
		default:
			parts = append(parts, p)
		}
	}
	if len(parts) > u.limits.Depth {
		return "", overLimit(name, "%d components, the limit is %d", len(parts), u.limits.Depth)
	}
	return strings.Join(parts, "/"), nil
}

func joinPath(dir, base string) string {
	if dir == "" {
		return base
	}
	return dir + "/" + base
}

// leave closes all but the first n descriptors of the stack.
func (u *unpacker) leave(n int) {
	for len(u.stack) > n {
		unix.Close(u.stack[len(u.stack)-1].fd)
		u.stack = u.stack[:len(u.stack)-1]
	}
}

const maxLinks = 40 // what the kernel follows, path_resolution(7)

// enter opens the directory that a cleaned path names, making what is missing. Links are followed inside the layer.
func (u *unpacker) enter(p string, links int) (node, error) {
	if p == "" {
		return u.stack[0], nil
	}
	parts := strings.Split(p, "/")
	n := 0
	for n < len(parts) && n+1 < len(u.stack) && u.stack[n+1].name == parts[n] {
		n++
	}
	u.leave(n + 1)
	for i := n; i < len(parts); i++ {
		at := u.stack[len(u.stack)-1]
		fd, err := unix.Openat(at.fd, parts[i], unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		real := joinPath(at.path, parts[i])
		switch {
		case err == nil:
		case errors.Is(err, unix.ENOENT):
			if fd, err = u.imply(at, parts[i], real); err != nil {
				return node{}, err
			}
		case errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP):
			// A link, or something that is no directory at all.
			target, lerr := readlinkat(at.fd, parts[i])
			if lerr != nil {
				return node{}, &Error{
					Op: "layer entry", Name: strconv.Quote(real), Kind: ErrLayer, Err: unix.ENOTDIR,
					Text: "needed as a directory, but the archive made it something else",
				}
			}
			if links++; links > maxLinks {
				return node{}, badEntry(real, "too many levels of symbolic links")
			}
			to, err := resolveLink(at.path, target)
			if err != nil {
				return node{}, err
			}
			rest := append([]string{}, parts[i+1:]...)
			full := strings.Join(append([]string{to}, rest...), "/")
			if full, err = u.clean(full); err != nil {
				return node{}, err
			}
			// The stack now follows the resolved path; the next entry through the link resolves it again.
			return u.enter(full, links)
		default:
			return node{}, fmt.Errorf("open directory %s: %w", real, err)
		}
		u.stack = append(u.stack, node{name: parts[i], path: real, fd: fd})
	}
	return u.stack[len(u.stack)-1], nil
}

// resolveLink turns a link's target, found in directory dir, into a path below the root. ".." stops at the root, as in a
// chroot. It is lexical, which differs from the kernel where a ".." follows another link; it cannot leave the root.
func resolveLink(dir, target string) (string, error) {
	if target == "" {
		return "", badEntry(dir, "an empty symbolic link")
	}
	if !strings.HasPrefix(target, "/") {
		target = dir + "/" + target
	}
	return strings.TrimPrefix(path.Clean("/"+target), "/"), nil
}

func readlinkat(fd int, name string) (string, error) {
	buf := make([]byte, unix.PathMax)
	n, err := unix.Readlinkat(fd, name, buf)
	if err != nil {
		return "", err
	}
	return string(buf[:n]), nil
}

// imply makes a directory that the archive did not describe.
func (u *unpacker) imply(at node, name, real string) (int, error) {
	if err := unix.Mkdirat(at.fd, name, 0o755); err != nil {
		return -1, fmt.Errorf("mkdir %s: %w", real, err)
	}
	fd, err := unix.Openat(at.fd, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("open directory %s: %w", real, err)
	}
	if err := u.setImplied(fd, real); err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

func (u *unpacker) setImplied(fd int, real string) error {
	if !u.user {
		if err := unix.Fchown(fd, 0, 0); err != nil {
			return fmt.Errorf("chown %s: %w", real, err)
		}
	}
	if err := unix.Fchmod(fd, 0o755); err != nil {
		return fmt.Errorf("chmod %s: %w", real, err)
	}
	u.dirs[real] = &dir{mode: 0o755, mtime: epoch, atime: epoch, implied: true}
	return u.note(real)
}

// clear makes room for an entry: what an earlier entry of the archive left there goes, except a directory that a
// directory replaces.
func (u *unpacker) clear(at node, base, real string, forDir bool) (exists bool, err error) {
	if d := u.dirs[at.path]; len(d.links) > 0 {
		delete(d.links, base)
	}
	var st unix.Stat_t
	if err := unix.Fstatat(at.fd, base, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		if err == unix.ENOENT {
			return false, nil
		}
		return false, err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR {
		return false, unix.Unlinkat(at.fd, base, 0)
	}
	if forDir {
		return true, nil
	}
	// Open descriptors below it, and notes about it, are void.
	for i, n := range u.stack {
		if i > 0 && (n.path == real || strings.HasPrefix(n.path, real+"/")) {
			u.leave(i)
			break
		}
	}
	return false, removeAllAt(at.fd, base, real, func(p string) { delete(u.dirs, p) })
}

// removeAllAt removes a directory tree without following links; gone is told the path of every directory.
func removeAllAt(dirfd int, base, real string, gone func(string)) error {
	fd, err := unix.Openat(dirfd, base, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	f := os.NewFile(uintptr(fd), real)
	defer f.Close()
	entries, err := f.ReadDir(-1)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.IsDir() {
			err = removeAllAt(fd, e.Name(), joinPath(real, e.Name()), gone)
		} else {
			err = unix.Unlinkat(fd, e.Name(), 0)
		}
		if err != nil {
			return err
		}
	}
	if err := unix.Unlinkat(dirfd, base, unix.AT_REMOVEDIR); err != nil {
		return err
	}
	gone(real)
	return nil
}

func (u *unpacker) directory(at node, base, real string, h *tar.Header) error {
	exists, err := u.clear(at, base, real, true)
	if err != nil {
		return err
	}
	if !exists {
		// 0700 until described; search permission for an ordinary user is needed while filling it.
		if err := unix.Mkdirat(at.fd, base, 0o700); err != nil {
			return fmt.Errorf("mkdir: %w", err)
		}
	}
	fd, err := unix.Openat(at.fd, base, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	// The next entries are most likely in it: keep it open if the path here was the named one.
	if top := u.stack[len(u.stack)-1]; top.fd == at.fd {
		u.stack = append(u.stack, node{name: base, path: real, fd: fd})
	} else {
		defer unix.Close(fd)
	}
	return u.describe(real, fd, h)
}

// describe sets what an archive says about a directory; mode and times follow in finish.
func (u *unpacker) describe(real string, fd int, h *tar.Header) error {
	if err := u.own(fd, h, true); err != nil {
		return err
	}
	if err := u.xattrs(fd, h); err != nil {
		return err
	}
	mode := perm(h)
	if u.user {
		mode = mode&0o777 | 0o700
	}
	if err := unix.Fchmod(fd, mode|0o700); err != nil {
		return fmt.Errorf("chmod: %w", err)
	}
	d := u.dirs[real]
	if d == nil {
		d = &dir{}
		u.dirs[real] = d
		if err := u.note(real); err != nil {
			return err
		}
	}
	d.mode, d.mtime, d.atime, d.implied = mode, h.ModTime, accessTime(h), false
	return nil
}

func (u *unpacker) file(at node, base, real string, h *tar.Header, r io.Reader) error {
	const flags = unix.O_WRONLY | unix.O_CREAT | unix.O_EXCL | unix.O_NOFOLLOW | unix.O_CLOEXEC
	fd, err := unix.Openat(at.fd, base, flags, 0o600)
	if err == unix.EEXIST {
		if _, err := u.clear(at, base, real, false); err != nil {
			return err
		}
		fd, err = unix.Openat(at.fd, base, flags, 0o600)
	}
	if err != nil {
		return fmt.Errorf("create: %w", err)
	}
	if d := u.dirs[at.path]; len(d.links) > 0 {
		delete(d.links, base)
	}
	defer unix.Close(fd)
	if err := u.content(fd, h, r); err != nil {
		return err
	}
	if err := u.own(fd, h, true); err != nil {
		return err
	}
	// After chown, which clears set-user-ID bits and security.capability.
	if err := u.xattrs(fd, h); err != nil {
		return err
	}
	mode := perm(h)
	if u.user {
		// A set-user-ID program of an ordinary user would lend that user's rights to whoever can reach it.
		mode &= 0o777
	}
	if err := unix.Fchmod(fd, mode); err != nil {
		return fmt.Errorf("chmod: %w", err)
	}
	return utimes(at.fd, base, h)
}

func (u *unpacker) content(fd int, h *tar.Header, r io.Reader) error {
	if h.Size == 0 {
		return nil
	}
	sparse := h.Typeflag == tar.TypeGNUSparse || isPaxSparse(h)
	var done int64
	for {
		n, err := r.Read(u.buf)
		if n > 0 {
			b := u.buf[:n]
			if sparse && allZero(b) {
				if _, err := unix.Seek(fd, int64(n), io.SeekCurrent); err != nil {
					return err
				}
			} else {
				for len(b) > 0 {
					w, err := unix.Write(fd, b)
					if err == unix.EINTR {
						continue
					}
					if err != nil {
						return fmt.Errorf("write: %w", err)
					}
					b = b[w:]
				}
			}
			done += int64(n)
		}
		if err == io.EOF {
			break
		}
		if err != nil {
			if errors.Is(err, io.ErrUnexpectedEOF) {
				err = fmt.Errorf("%w: %w", ErrTruncated, err)
			}
			return err
		}
	}
	if sparse {
		return unix.Ftruncate(fd, done)
	}
	return nil
}

func isPaxSparse(h *tar.Header) bool {
	for k := range h.PAXRecords {
		if strings.HasPrefix(k, "GNU.sparse.") {
			return true
		}
	}
	return false
}

func allZero(b []byte) bool {
	for _, c := range b {
		if c != 0 {
			return false
		}
	}
	return true
}

func (u *unpacker) symlink(at node, base, real string, h *tar.Header) error {
	if h.Linkname == "" || len(h.Linkname) > u.limits.Path-1 || strings.IndexByte(h.Linkname, 0) >= 0 {
		return badEntry(h.Name, "a symbolic link with an empty or overlong target")
	}
	if _, err := u.clear(at, base, real, false); err != nil {
		return err
	}
	if err := unix.Symlinkat(h.Linkname, at.fd, base); err != nil {
		return fmt.Errorf("symlink: %w", err)
	}
	return u.meta(at, base, h)
}

func (u *unpacker) link(at node, base, real string, h *tar.Header) error {
	target, err := u.clean(h.Linkname)
	if err != nil {
		return err
	}
	if target == "" {
		return badEntry(h.Name, "a hard link to the root")
	}
	dirPath, name := path.Split(target)
	dirPath = strings.TrimSuffix(dirPath, "/")
	tfd, tdir, err := u.find(dirPath)
	if err != nil {
		return err
	}
	if tfd >= 0 {
		defer unix.Close(tfd)
		treal := joinPath(tdir, name)
		if treal == real {
			return nil
		}
		var st unix.Stat_t
		err = unix.Fstatat(tfd, name, &st, unix.AT_SYMLINK_NOFOLLOW)
		if err == nil && st.Mode&unix.S_IFMT == unix.S_IFDIR {
			return badEntry(h.Name, "a hard link to the directory %q", h.Linkname)
		}
		if strings.HasPrefix(treal, real+"/") {
			return badEntry(h.Name, "a hard link that replaces its own target's directory")
		}
	}
	if tfd < 0 || err == unix.ENOENT {
		// The file is in a layer beneath, or nowhere.
		if _, err := u.clear(at, base, real, false); err != nil {
			return err
		}
		d := u.dirs[at.path]
		if d.links == nil {
			d.links = map[string]string{}
		}
		d.links[base] = target
		return u.note(base + target)
	}
	if err != nil {
		return err
	}
	if _, err := u.clear(at, base, real, false); err != nil {
		return err
	}
	if err := unix.Linkat(tfd, name, at.fd, base, 0); err != nil {
		return fmt.Errorf("hard link to %s: %w", h.Linkname, err)
	}
	return nil
}

// find opens an existing directory of this layer without making anything; fd is -1 if it is not there. The stack stays.
func (u *unpacker) find(p string) (fd int, real string, err error) {
	fd, err = openBeneath(u.stack[0].fd, p)
	if err == unix.ENOENT || err == unix.ENOTDIR {
		return -1, "", nil
	}
	if err == unix.ELOOP {
		real, err = resolveDir(u.stack[0].fd, p)
		if err != nil {
			return -1, "", nil
		}
		fd, err = openBeneath(u.stack[0].fd, real)
		if err != nil {
			return -1, "", nil
		}
		return fd, real, nil
	}
	return fd, p, err
}

// openBeneath opens a directory by a path that may contain no link at all.
func openBeneath(rootfd int, p string) (int, error) {
	if p == "" {
		p = "."
	}
	for {
		fd, err := unix.Openat2(rootfd, p, &unix.OpenHow{
			Flags:   unix.O_RDONLY | unix.O_DIRECTORY | unix.O_CLOEXEC,
			Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS,
		})
		if err != unix.EINTR && err != unix.EAGAIN {
			return fd, err
		}
	}
}

// resolveDir follows links below rootfd, as in a chroot, and returns a path without links.
func resolveDir(rootfd int, p string) (string, error) {
	done, rest, links := "", p, 0
	for rest != "" {
		var c string
		c, rest, _ = strings.Cut(rest, "/")
		if c == "" {
			continue
		}
		next := joinPath(done, c)
		fd, err := openBeneath(rootfd, next)
		if err == nil {
			unix.Close(fd)
			done = next
			continue
		}
		pfd, perr := openBeneath(rootfd, done)
		if perr != nil {
			return "", perr
		}
		target, lerr := readlinkat(pfd, c)
		unix.Close(pfd)
		if lerr != nil {
			return "", err
		}
		if links++; links > maxLinks {
			return "", unix.ELOOP
		}
		to, err := resolveLink(done, target)
		if err != nil {
			return "", err
		}
		done, rest = "", to+"/"+rest
	}
	return done, nil
}

func (u *unpacker) special(at node, base, real string, h *tar.Header) error {
	var mode uint32
	switch h.Typeflag {
	case tar.TypeFifo:
		mode = unix.S_IFIFO
	case tar.TypeChar:
		mode = unix.S_IFCHR
		if h.Devmajor == 0 && h.Devminor == 0 {
			return badEntry(h.Name, "a character device 0:0, which overlayfs takes for a deleted file")
		}
	case tar.TypeBlock:
		mode = unix.S_IFBLK
	}
	if mode != unix.S_IFIFO && (h.Devmajor < 0 || h.Devminor < 0 || h.Devmajor > 0xfff || h.Devminor > 0xfffff) {
		return badEntry(h.Name, "device number %d:%d out of range", h.Devmajor, h.Devminor)
	}
	if _, err := u.clear(at, base, real, false); err != nil {
		return err
	}
	if u.user && mode != unix.S_IFIFO {
		return nil // see the package doc
	}
	dev := 0
	if mode != unix.S_IFIFO {
		dev = int(unix.Mkdev(uint32(h.Devmajor), uint32(h.Devminor)))
	}
	if err := unix.Mknodat(at.fd, base, mode|0o600, dev); err != nil {
		return fmt.Errorf("mknod: %w", err)
	}
	if err := u.meta(at, base, h); err != nil {
		return err
	}
	return nil
}

// meta sets owner, mode and times of what cannot be opened: links, devices, pipes. The name was just created by us in a
// directory nobody else sees, and no call here follows a link.
func (u *unpacker) meta(at node, base string, h *tar.Header) error {
	if !u.user {
		uid, gid, err := ids(h)
		if err != nil {
			return err
		}
		if err := unix.Fchownat(at.fd, base, uid, gid, unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return fmt.Errorf("chown: %w", err)
		}
	}
	if h.Typeflag != tar.TypeSymlink {
		mode := perm(h)
		if u.user {
			mode &= 0o777
		}
		// fchmodat without AT_SYMLINK_NOFOLLOW: the flag needs Linux 6.6, and base is a node that we made, no link.
		if err := unix.Fchmodat(at.fd, base, mode, 0); err != nil {
			return fmt.Errorf("chmod: %w", err)
		}
	}
	return utimes(at.fd, base, h)
}

func ids(h *tar.Header) (uid, gid int, err error) {
	// 2^32-1 means "no change" to chown(2).
	if h.Uid < 0 || h.Gid < 0 || int64(h.Uid) >= 1<<32-1 || int64(h.Gid) >= 1<<32-1 {
		return 0, 0, badEntry(h.Name, "owner %d:%d out of range", h.Uid, h.Gid)
	}
	return h.Uid, h.Gid, nil
}

func (u *unpacker) own(fd int, h *tar.Header, note bool) error {
	uid, gid, err := ids(h)
	if err != nil {
		return err
	}
	if !u.user {
		if err := unix.Fchown(fd, uid, gid); err != nil {
			return fmt.Errorf("chown: %w", err)
		}
		return nil
	}
	if note && (uid != 0 || gid != 0 || perm(h)&^0o777 != 0) {
		v := fmt.Sprintf("%d:%d:%04o", uid, gid, perm(h))
		if err := unix.Fsetxattr(fd, "user.glassbox.stat", []byte(v), 0); err != nil && err != unix.EOPNOTSUPP {
			return fmt.Errorf("note owner: %w", err)
		}
	}
	return nil
}

func perm(h *tar.Header) uint32 { return uint32(h.Mode) & 0o7777 }

// xattrs sets the attributes that an image may carry: user.* and file capabilities. Overlay's own marks, SELinux labels
// and the rest of trusted.* and security.* are the host's business, not the archive's.
func (u *unpacker) xattrs(fd int, h *tar.Header) error {
	total := 0
	for k, v := range h.PAXRecords {
		name, ok := strings.CutPrefix(k, "SCHILY.xattr.")
		if !ok {
			continue
		}
		if total += len(name) + len(v); total > u.limits.Xattr {
			return overLimit(h.Name, "more than %d bytes of extended attributes", u.limits.Xattr)
		}
		switch {
		case strings.HasPrefix(name, "user.overlay.") || strings.HasPrefix(name, "user.glassbox."):
			continue
		case strings.HasPrefix(name, "user."):
		case name == "security.capability" && !u.user && h.Typeflag != tar.TypeDir:
		default:
			continue
		}
		if len(name) > 255 || strings.IndexByte(name, 0) >= 0 {
			return badEntry(h.Name, "an invalid extended attribute name")
		}
		if err := unix.Fsetxattr(fd, name, []byte(v), 0); err != nil && err != unix.EOPNOTSUPP {
			return fmt.Errorf("set attribute %s: %w", name, err)
		}
	}
	return nil
}

// whiteout notes a deletion. Marks speak of the layers beneath only, wherever they stand in the archive, so they are
// applied at the end; that also makes a million repeated marks cost no more than a million map writes (CVE-2026-95838).
func (u *unpacker) whiteout(parent, base string, h *tar.Header) error {
	if base == whOpaque {
		at, err := u.enter(parent, 0)
		if err != nil {
			return u.in(h.Name, err)
		}
		u.dirs[at.path].opaque = true
		return nil
	}
	if strings.HasPrefix(base, whMeta) {
		return nil // aufs housekeeping
	}
	hidden := base[len(whPrefix):]
	if hidden == "" || hidden == "." || hidden == ".." {
		return badEntry(h.Name, "a whiteout of nothing")
	}
	at, err := u.enter(parent, 0)
	if errors.Is(err, unix.ENOTDIR) {
		return nil // below a file there is nothing to hide
	}
	if err != nil {
		return u.in(h.Name, err)
	}
	d := u.dirs[at.path]
	if d.hidden == nil {
		d.hidden = map[string]bool{}
	}
	if d.hidden[hidden] {
		return nil
	}
	d.hidden[hidden] = true
	return u.note(hidden)
}

// note accounts for what is kept in memory about a name until the end of the archive. Names compress well: without a
// bound a small blob could fill the memory with paths.
func (u *unpacker) note(name string) error {
	const overhead = 80
	if u.notes += int64(len(name)) + overhead; u.notes > u.limits.Notes {
		return overLimit(name, "directories and whiteouts of the layer take more than %d bytes of memory", u.limits.Notes)
	}
	return nil
}

// cut reports whether nothing of the layers beneath shows at directory p: it, or a directory above it, was deleted there,
// or one above it is opaque.
func (u *unpacker) cut(p string) bool {
	for p != "" {
		up := u.dirs[parentOf(p)]
		if up.opaque || up.hidden[path.Base(p)] {
			return true
		}
		p = parentOf(p)
	}
	return false
}

func parentOf(p string) string {
	i := strings.LastIndexByte(p, '/')
	if i < 0 {
		return ""
	}
	return p[:i]
}

// finish applies the marks, then the modes and times of directories, which filling them would have changed.
func (u *unpacker) finish() error {
	paths := make([]string, 0, len(u.dirs))
	for p := range u.dirs {
		paths = append(paths, p)
	}
	// Deepest first: what is done in a directory changes its time. Neighbours share open descriptors.
	slices.SortFunc(paths, func(a, b string) int { return strings.Compare(b, a) })
	for _, p := range paths {
		if err := u.applyMarks(p); err != nil {
			return u.in(p, err)
		}
	}
	for _, p := range paths {
		if err := u.finishDir(p); err != nil {
			return u.in(p, err)
		}
	}
	return nil
}

func (u *unpacker) applyMarks(p string) error {
	d := u.dirs[p]
	if len(d.hidden) == 0 && !d.opaque {
		return nil
	}
	at, err := u.enter(p, 0)
	if err != nil {
		return err
	}
	if d.opaque {
		if err := setOpaque(at.fd, u.user); err != nil {
			return err
		}
	}
	for base := range d.hidden {
		var st unix.Stat_t
		switch err := unix.Fstatat(at.fd, base, &st, unix.AT_SYMLINK_NOFOLLOW); {
		case err == unix.ENOENT && d.links[base] != "": // replaced by a link
		case err == unix.ENOENT && (d.opaque || u.cut(p)):
			// Nothing of the layers beneath shows here anyway, and in a directory that is not merged with another
			// overlayfs lists the mark as a name that cannot be opened.
		case err == unix.ENOENT:
			if err := mknodWhiteout(at.fd, base); err != nil {
				return err
			}
		case err != nil:
			return err
		case st.Mode&unix.S_IFMT == unix.S_IFDIR: // deleted beneath and made anew here
			if err := markOpaqueAt(at.fd, base, u.user); err != nil {
				return err
			}
		}
	}
	return nil
}

func markOpaqueAt(dirfd int, base string, user bool) error {
	fd, err := unix.Openat(dirfd, base, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return setOpaque(fd, user)
}

func (u *unpacker) finishDir(p string) error {
	d := u.dirs[p]
	at, err := u.enter(parentOf(p), 0)
	if err != nil {
		return err
	}
	base := path.Base(p)
	if p == "" {
		base = "."
	}
	if d.mode&0o700 != 0o700 {
		if err := unix.Fchmodat(at.fd, base, d.mode, 0); err != nil {
			return err
		}
	}
	return unix.UtimesNanoAt(at.fd, base, []unix.Timespec{timespec(d.atime), timespec(d.mtime)}, unix.AT_SYMLINK_NOFOLLOW)
}

// mknodWhiteout makes overlayfs's mark for a deleted name. It needs no privilege since Linux 5.8.
func mknodWhiteout(dirfd int, name string) error {
	if err := unix.Mknodat(dirfd, name, unix.S_IFCHR, 0); err != nil {
		return fmt.Errorf("whiteout: %w", err)
	}
	return nil
}

func opaqueAttr(user bool) string {
	if user {
		return "user.overlay.opaque"
	}
	return "trusted.overlay.opaque"
}

func setOpaque(fd int, user bool) error {
	if err := unix.Fsetxattr(fd, opaqueAttr(user), []byte("y"), 0); err != nil {
		return fmt.Errorf("mark opaque: %w", err)
	}
	return nil
}

func accessTime(h *tar.Header) time.Time {
	if h.AccessTime.IsZero() {
		return h.ModTime
	}
	return h.AccessTime
}

// timespec clamps: a time outside 64-bit nanoseconds would be an error of the kernel's.
func timespec(t time.Time) unix.Timespec {
	const maxSec = 1<<34 - 1<<31 - 1 // ext4's last second, in the year 2446
	s := t.Unix()
	if s < -1<<31 {
		return unix.Timespec{Sec: -1 << 31}
	}
	if s > maxSec {
		return unix.Timespec{Sec: maxSec}
	}
	return unix.Timespec{Sec: s, Nsec: int64(t.Nanosecond())}
}

func utimes(dirfd int, base string, h *tar.Header) error {
	ts := []unix.Timespec{timespec(accessTime(h)), timespec(h.ModTime)}
	if err := unix.UtimesNanoAt(dirfd, base, ts, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return fmt.Errorf("set times: %w", err)
	}
	return nil
}
