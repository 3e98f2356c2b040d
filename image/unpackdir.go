package image

import (
	"archive/tar"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"glassbox/host/remove"
)

// node is an open directory on the way to the current one.
type node struct {
	name string // component as named in the archive
	path string // real path below the root, "" for the root
	fd   int
	dir  *dir
}

// dir is what is kept about a directory until everything below it is done. The directories of a layer form a tree, so that dropping one
// drops what is kept about all below it without a search: an archive that makes and replaces directories a million times must stay linear.
type dir struct {
	mode    uint32
	mtime   time.Time
	atime   time.Time
	implied bool              // needed by an entry, not (yet) described by the archive
	opaque  bool              // the content in the layers beneath is hidden
	acl     string            // default ACL for what is made here: set at the end, or our own files would have it
	hidden  map[string]bool   // names hidden from the layers beneath
	links   map[string]string // hard links whose targets are not in this layer: name → target
	below   map[string]*dir
}

func (u *unpacker) root() *dir { return u.stack[0].dir }

// child returns what is kept about a directory that is there.
func (u *unpacker) child(of *dir, name, real string) (*dir, error) {
	if d := of.below[name]; d != nil {
		return d, nil
	}
	d := &dir{}
	if of.below == nil {
		of.below = map[string]*dir{}
	}
	of.below[name] = d
	// A layer's record names directories by their paths.
	return d, u.meter.note(real)
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
	// Entries of an archive mostly come in the order of a walk: what the last one has opened is mostly on the way to this one, too.
	for n < len(parts) && n+1 < len(u.stack) && u.stack[n+1].name == parts[n] {
		n++
	}
	u.leave(n + 1)
	steps := len(parts) - n
	if links > 0 { // what was gone before has been split and joined again all the same
		steps = len(parts)
	}
	if err := u.meter.spend(steps); err != nil {
		return node{}, err
	}
	for i := n; i < len(parts); i++ {
		at := u.stack[len(u.stack)-1]
		real := joinPath(at.path, parts[i])
		// Component by component and never through a link: the kernel would resolve an absolute one from the host's root.
		fd, err := openDirAt(at.fd, parts[i])
		var d *dir
		switch {
		case err == nil:
			if d, err = u.child(at.dir, parts[i], real); err != nil {
				unix.Close(fd)
				return node{}, err
			}
		case errors.Is(err, unix.ENOENT):
			if d, fd, err = u.imply(at, parts[i], real); err != nil {
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
			// Each round begins at the root again, so that the depth of this recursion is what the limit counts.
			if links++; links > maxLinks {
				return node{}, badEntry(real, "too many levels of symbolic links")
			}
			to, err := resolveLink(at.path, target)
			if err != nil {
				return node{}, err
			}
			full, err := u.clean(strings.Join(append([]string{to}, parts[i+1:]...), "/"))
			if err != nil {
				return node{}, err
			}
			// The stack now follows the resolved path; the next entry through the link resolves it again.
			return u.enter(full, links)
		default:
			return node{}, fmt.Errorf("open directory %s: %w", real, err)
		}
		u.stack = append(u.stack, node{name: parts[i], path: real, fd: fd, dir: d})
	}
	return u.stack[len(u.stack)-1], nil
}

func openDirAt(fd int, name string) (int, error) {
	return unix.Openat(fd, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
}

// imply makes a directory that the archive did not describe.
func (u *unpacker) imply(at node, name, real string) (*dir, int, error) {
	// Docker's values, too; what a later entry says of it replaces them.
	if err := unix.Mkdirat(at.fd, name, 0o755); err != nil {
		return nil, -1, fmt.Errorf("mkdir %s: %w", real, err)
	}
	fd, err := openDirAt(at.fd, name)
	if err != nil {
		return nil, -1, fmt.Errorf("open directory %s: %w", real, err)
	}
	d, err := u.child(at.dir, name, real)
	if err == nil {
		// Directories that no entry is about are inodes, too.
		err = u.meter.entry()
	}
	if err == nil {
		err = u.setImplied(fd, real, d)
	}
	if err != nil {
		unix.Close(fd)
		return nil, -1, err
	}
	return d, fd, nil
}

func (u *unpacker) setImplied(fd int, real string, d *dir) error {
	// Not by the umask of whoever pulls, and where the directory above has the set-group-ID bit, not with its group.
	if !u.user {
		if err := unix.Fchown(fd, 0, 0); err != nil {
			return fmt.Errorf("chown %s: %w", real, err)
		}
	}
	if err := unix.Fchmod(fd, 0o755); err != nil {
		return fmt.Errorf("chmod %s: %w", real, err)
	}
	d.mode, d.mtime, d.atime, d.implied = 0o755, epoch, epoch, true
	return nil
}

// clear makes room for an entry: what an earlier entry of the archive left there goes, except a directory that a
// directory replaces.
func (u *unpacker) clear(at node, base string, forDir bool) (exists bool, err error) {
	// A hard link whose target was to be found later is replaced like any other entry of that name.
	delete(at.dir.links, base)
	var st unix.Stat_t
	if err := unix.Fstatat(at.fd, base, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		if err == unix.ENOENT {
			return false, nil
		}
		return false, err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR {
		// The record says how to make the archive again, byte for byte. A file that two entries wrote has the content of one.
		if err := u.record.forget(at.fd, base, joinPath(at.path, base), &st); err != nil {
			return false, err
		}
		return false, unix.Unlinkat(at.fd, base, 0)
	}
	if forDir {
		return true, nil
	}
	// The directory's entries stand in the archive and no longer on the disk.
	u.record.unreproducible()
	// Open descriptors below it, and notes about it, are void.
	real := joinPath(at.path, base)
	for i, n := range u.stack {
		if i > 0 && (n.path == real || strings.HasPrefix(n.path, real+"/")) {
			u.leave(i)
			break
		}
	}
	delete(at.dir.below, base)
	return false, remove.At(at.fd, base)
}

func (u *unpacker) directory(at node, base string, h *tar.Header) error {
	exists, err := u.clear(at, base, true)
	if err != nil {
		return err
	}
	if !exists {
		// 0700 until described; search permission for an ordinary user is needed while filling it.
		if err := unix.Mkdirat(at.fd, base, 0o700); err != nil {
			return fmt.Errorf("mkdir: %w", err)
		}
	}
	fd, err := openDirAt(at.fd, base)
	if err != nil {
		return err
	}
	real := joinPath(at.path, base)
	d, err := u.child(at.dir, base, real)
	if err != nil {
		unix.Close(fd)
		return err
	}
	// The next entries are most likely in it: keep it open if the path here was the named one.
	if top := u.stack[len(u.stack)-1]; top.fd == at.fd {
		u.stack = append(u.stack, node{name: base, path: real, fd: fd, dir: d})
	} else {
		defer unix.Close(fd)
	}
	return u.describe(real, d, fd, h)
}

// describe sets what an archive says about a directory; mode, times and what new files inherit follow in finish.
func (u *unpacker) describe(real string, d *dir, fd int, h *tar.Header) error {
	if err := u.own(fd, h); err != nil {
		return err
	}
	access, inherited, err := u.xattrs(fd, h)
	if err != nil {
		return err
	}
	mode := perm(h)
	if u.user {
		mode = mode&0o777 | 0o700
	}
	if err := unix.Fchmod(fd, mode|0o700); err != nil {
		return fmt.Errorf("chmod: %w", err)
	}
	if err := u.setACL(fd, aclAccess, access); err != nil {
		return err
	}
	if d.acl = inherited; inherited != "" {
		if err := u.meter.note(inherited); err != nil {
			return err
		}
	}
	d.mode, d.mtime, d.atime, d.implied = mode, h.ModTime, accessTime(h), false
	return nil
}

// finishDir settles all that is below a directory, and its marks. Cut says that nothing of the layers beneath shows here, because it or
// a directory above it was deleted there, or one above it is opaque. The recursion is as deep as a path may be, see Limits.Depth.
func (u *unpacker) finishDir(fd int, real string, d *dir, cut bool, out *unpacked) error {
	if d.implied && !cut {
		out.Implied = append(out.Implied, real)
	}
	if len(d.hidden) > 0 && !d.opaque && !cut {
		out.Hiding = append(out.Hiding, real)
	}
	for name, target := range d.links {
		out.Links = append(out.Links, pendingLink{Name: joinPath(real, name), Target: target})
	}
	for name, sub := range d.below {
		at := joinPath(real, name)
		below, err := openDirAt(fd, name)
		if err != nil {
			return u.in(at, err)
		}
		err = u.finishDir(below, at, sub, cut || d.opaque || d.hidden[name], out)
		unix.Close(below)
		if err != nil {
			return err
		}
	}
	if err := u.applyMarks(fd, d, cut); err != nil {
		return u.in(real, err)
	}
	// Last, because marks are made in them and set on them. Their own times change with neither.
	for name, sub := range d.below {
		if err := u.setDir(fd, name, sub); err != nil {
			return u.in(joinPath(real, name), err)
		}
	}
	return nil
}

func (u *unpacker) applyMarks(fd int, d *dir, cut bool) error {
	if d.opaque {
		if err := setOpaque(fd, u.user); err != nil {
			return err
		}
	}
	for base := range d.hidden {
		var st unix.Stat_t
		switch err := unix.Fstatat(fd, base, &st, unix.AT_SYMLINK_NOFOLLOW); {
		case err == unix.ENOENT && d.links[base] != "": // replaced by a link
		case err == unix.ENOENT && (d.opaque || cut):
			// Nothing of the layers beneath shows here anyway, and in a directory that is not merged with another
			// overlayfs lists the mark as a name that cannot be opened.
		case err == unix.ENOENT:
			if err := mknodWhiteout(fd, base); err != nil {
				return err
			}
		case err != nil:
			return err
		case st.Mode&unix.S_IFMT == unix.S_IFDIR: // deleted beneath and made anew here
			if err := markOpaqueAt(fd, base, u.user); err != nil {
				return err
			}
		}
	}
	return nil
}

func markOpaqueAt(dirfd int, base string, user bool) error {
	fd, err := openDirAt(dirfd, base)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return setOpaque(fd, user)
}

// setDir gives a directory what filling it would have changed.
func (u *unpacker) setDir(at int, base string, d *dir) error {
	if d.acl != "" {
		fd, err := openDirAt(at, base)
		if err != nil {
			return err
		}
		err = u.setACL(fd, aclDefault, d.acl)
		unix.Close(fd)
		if err != nil {
			return err
		}
	}
	if d.mode&0o700 != 0o700 {
		if err := unix.Fchmodat(at, base, d.mode, 0); err != nil {
			return err
		}
	}
	return unix.UtimesNanoAt(at, base, []unix.Timespec{timespec(d.atime), timespec(d.mtime)}, unix.AT_SYMLINK_NOFOLLOW)
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
