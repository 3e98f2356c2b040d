package image

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"slices"
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
	meter *meter
	user  bool // ordinary user's store: no chown, no devices, user.* marks
	uid   int
	gid   int

	stack []node // stack[0] is the root

	entries int
	bytes   int64          // of regular files, as their headers say
	left    map[string]int // attributes that were left out: name → how often
	buf     []byte
	record  *recorder // nil: none is kept
}

// unpacked is what an archive left.
type unpacked struct {
	Size    int64
	Entries int
	Implied []string // directories that take after the layers beneath, sorted; "" is the root
	Links   []pendingLink
	Hiding  []string       // directories that hold whiteouts, sorted
	Left    map[string]int // attributes that were left out: name → number of files
	DiffID  string         // of the archive
	Tar     int64          // bytes of the archive
}

// pendingLink is a hard link whose target must come from the layers beneath.
type pendingLink struct {
	Name   string `json:"name"`
	Target string `json:"target"`
}

// epoch is the time of what no archive describes: it must not depend on when a pull happens.
var epoch = time.Unix(0, 0)

// unpack reads a tar archive into the empty directory rootfd. If r is a recorder it is told which bytes are what.
func unpack(r io.Reader, rootfd int, user bool, m *meter) (*unpacked, error) {
	fd, err := unix.Openat(rootfd, ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open layer directory: %w", err)
	}
	u := &unpacker{
		meter: m, user: user, uid: os.Geteuid(), gid: os.Getegid(),
		stack: []node{{fd: fd, dir: &dir{}}},
		left:  map[string]int{},
		buf:   make([]byte, 128<<10),
	}
	u.record, _ = r.(*recorder)
	defer u.leave(0)
	if err := u.setImplied(fd, "", u.root()); err != nil {
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
	return u.finish()
}

// badEntry refuses an archive for what one of its entries says.
func badEntry(name string, format string, args ...any) error {
	return &Error{Op: "layer entry", Name: fmt.Sprintf("%.200q", name), Kind: ErrLayer, Text: fmt.Sprintf(format, args...)}
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
	u.entries++
	if err := u.meter.entry(); err != nil {
		return err
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
		if err := u.meter.write(h.Size); err != nil {
			return err
		}
		u.bytes += h.Size
	}
	if name == "" {
		if h.Typeflag != tar.TypeDir {
			return badEntry(h.Name, "the layer's root must be a directory (CVE-2021-29136)")
		}
		return u.describe("", u.root(), u.stack[0].fd, h)
	}
	parent, base := splitPath(name)
	for p := range strings.SplitSeq(parent, "/") {
		if strings.HasPrefix(p, whMeta) {
			return nil // below an aufs directory such as .wh..wh.plnk
		}
		if strings.HasPrefix(p, whPrefix) {
			return badEntry(h.Name, "a whiteout mark as a directory")
		}
	}
	if strings.HasPrefix(base, whPrefix) {
		return u.in(h.Name, u.whiteout(parent, base, h))
	}
	at, err := u.enter(parent, 0)
	if err != nil {
		return u.in(h.Name, err)
	}
	switch h.Typeflag {
	case tar.TypeDir:
		err = u.directory(at, base, h)
	case tar.TypeReg, tar.TypeGNUSparse, tar.TypeCont:
		err = u.file(at, base, h, r)
	case tar.TypeSymlink:
		err = u.symlink(at, base, h)
	case tar.TypeLink:
		err = u.link(at, base, h)
	case tar.TypeChar, tar.TypeBlock, tar.TypeFifo:
		err = u.special(at, base, h)
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
	l := &u.meter.limits
	if len(name) > l.Path {
		return "", overLimit(name, "a path of %d bytes, the limit is %d", len(name), l.Path)
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
	if len(parts) > l.Depth {
		return "", overLimit(name, "%d components, the limit is %d", len(parts), l.Depth)
	}
	return strings.Join(parts, "/"), nil
}

func joinPath(dir, base string) string {
	if dir == "" {
		return base
	}
	return dir + "/" + base
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

// whiteout notes a deletion. Marks speak of the layers beneath only, wherever they stand in the archive, so they are
// applied at the end; that also makes a million repeated marks cost no more than a million map writes (CVE-2026-95838).
func (u *unpacker) whiteout(parent, base string, h *tar.Header) error {
	if base == whOpaque {
		at, err := u.enter(parent, 0)
		if err != nil {
			return err
		}
		at.dir.opaque = true
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
		return err
	}
	if at.dir.hidden[hidden] {
		return nil
	}
	if at.dir.hidden == nil {
		at.dir.hidden = map[string]bool{}
	}
	at.dir.hidden[hidden] = true
	return u.meter.note(hidden)
}

// finish applies the marks, then the modes, times and inherited attributes of directories, which filling them would have changed.
func (u *unpacker) finish() (*unpacked, error) {
	u.leave(1)
	out := &unpacked{Size: u.bytes, Entries: u.entries, Left: u.left}
	if err := u.finishDir(u.stack[0].fd, "", u.root(), false, out); err != nil {
		return nil, err
	}
	if err := u.setDir(u.stack[0].fd, ".", u.root()); err != nil {
		return nil, u.in("/", err)
	}
	slices.Sort(out.Implied)
	slices.Sort(out.Hiding)
	slices.SortFunc(out.Links, func(a, b pendingLink) int { return strings.Compare(a.Name, b.Name) })
	return out, nil
}

func parentOf(p string) string {
	dir, _ := splitPath(p)
	return dir
}
