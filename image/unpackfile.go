package image

import (
	"archive/tar"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strings"

	"golang.org/x/sys/unix"
)

func (u *unpacker) file(at node, base string, h *tar.Header, r io.Reader) error {
	// O_EXCL: what an earlier entry of the archive has put there, a link above all, is not written through. Only where it fails is
	// it looked at, and so most files cost one call.
	const flags = unix.O_WRONLY | unix.O_CREAT | unix.O_EXCL | unix.O_NOFOLLOW | unix.O_CLOEXEC
	fd, err := unix.Openat(at.fd, base, flags, 0o600)
	if err == unix.EEXIST {
		if _, err := u.clear(at, base, false); err != nil {
			return err
		}
		fd, err = unix.Openat(at.fd, base, flags, 0o600)
	}
	if err != nil {
		return fmt.Errorf("create: %w", err)
	}
	// This name was to be a hard link to a file beneath, and is a file of its own now.
	delete(at.dir.links, base)
	defer unix.Close(fd)
	if err := u.content(fd, joinPath(at.path, base), h, r); err != nil {
		return err
	}
	if err := u.own(fd, h); err != nil {
		return err
	}
	// After chown, which clears security.capability, and before chmod, after which an ordinary user may not write.
	acl, _, err := u.xattrs(fd, h)
	if err != nil {
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
	if err := u.setACL(fd, aclAccess, acl); err != nil {
		return err
	}
	return utimes(at.fd, base, h)
}

func (u *unpacker) content(fd int, real string, h *tar.Header, r io.Reader) error {
	if h.Size == 0 {
		return nil
	}
	sparse := h.Typeflag == tar.TypeGNUSparse || isPaxSparse(h)
	var err error
	if sparse {
		err = u.record.sparse(real)
	} else {
		err = u.record.begin(real, h.Size)
		defer u.record.end()
	}
	if err != nil {
		return err
	}
	var done int64
	for {
		n, err := r.Read(u.buf)
		if n > 0 {
			b := u.buf[:n]
			// A hole of a sparse file is a hole here: an archive of a few bytes could else fill the disk with zeros.
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
				// The reader of archives says so when the file is cut; what the caller does about it is to fetch it again.
				err = fmt.Errorf("%w: %w", ErrTruncated, err)
			}
			return err
		}
	}
	// A hole at the end has been skipped, not written.
	if sparse {
		return unix.Ftruncate(fd, done)
	}
	return nil
}

func isPaxSparse(h *tar.Header) bool {
	for k := range h.PAXRecords {
		// The reader of archives has undone the format, and says so only with GNU's old one (Typeflag).
		if strings.HasPrefix(k, "GNU.sparse.") {
			return true
		}
	}
	return false
}

func allZero(b []byte) bool {
	for ; len(b) >= 8; b = b[8:] {
		if binary.NativeEndian.Uint64(b) != 0 {
			return false
		}
	}
	for _, c := range b {
		if c != 0 {
			return false
		}
	}
	return true
}

func (u *unpacker) symlink(at node, base string, h *tar.Header) error {
	if h.Linkname == "" || len(h.Linkname) > u.meter.limits.Path-1 || strings.IndexByte(h.Linkname, 0) >= 0 {
		return badEntry(h.Name, "a symbolic link with an empty or overlong target")
	}
	if _, err := u.clear(at, base, false); err != nil {
		return err
	}
	if err := unix.Symlinkat(h.Linkname, at.fd, base); err != nil {
		return fmt.Errorf("symlink: %w", err)
	}
	return u.meta(at, base, h)
}

func (u *unpacker) link(at node, base string, h *tar.Header) error {
	target, err := u.clean(h.Linkname)
	if err != nil {
		return err
	}
	if target == "" {
		return badEntry(h.Name, "a hard link to the root")
	}
	dirPath, name := splitPath(target)
	tfd, tdir, err := u.find(dirPath)
	if err != nil {
		return err
	}
	if tfd >= 0 {
		defer unix.Close(tfd)
		real, treal := joinPath(at.path, base), joinPath(tdir, name)
		// A link to itself: clearing the name would take the target away.
		if treal == real {
			return nil
		}
		var st unix.Stat_t
		err = unix.Fstatat(tfd, name, &st, unix.AT_SYMLINK_NOFOLLOW)
		if err == nil && st.Mode&unix.S_IFMT == unix.S_IFDIR {
			return badEntry(h.Name, "a hard link to the directory %.200q", h.Linkname)
		}
		// The name is a directory, which would be cleared, with the target in it.
		if strings.HasPrefix(treal, real+"/") {
			return badEntry(h.Name, "a hard link that replaces its own target's directory")
		}
	}
	if tfd < 0 || err == unix.ENOENT {
		// The file is in a layer beneath, or nowhere.
		if _, err := u.clear(at, base, false); err != nil {
			return err
		}
		if at.dir.links == nil {
			at.dir.links = map[string]string{}
		}
		at.dir.links[base] = target
		return u.meter.note(joinPath(at.path, base) + target)
	}
	if err != nil {
		return err
	}
	if _, err := u.clear(at, base, false); err != nil {
		return err
	}
	// 0: if the target is a symbolic link, the link itself gets a second name, as tar means it.
	if err := unix.Linkat(tfd, name, at.fd, base, 0); err != nil {
		return fmt.Errorf("hard link to %.200q: %w", h.Linkname, err)
	}
	return nil
}

// find opens an existing directory of this layer without making anything; fd is -1 if it is not there. The stack stays.
func (u *unpacker) find(p string) (fd int, real string, err error) {
	// Most targets are near: begin at the open directory that is nearest to it.
	from, rest := u.stack[0], p
	for _, n := range u.stack[1:] {
		if r, ok := strings.CutPrefix(p+"/", n.path+"/"); ok {
			from, rest = n, strings.TrimSuffix(r, "/")
		}
	}
	if err := u.meter.spend(1 + strings.Count(rest, "/")); err != nil {
		return -1, "", err
	}
	fd, err = openBeneath(from.fd, rest)
	// The kernel resolves it at once where no link is on the way, which is nearly always.
	switch err {
	case nil:
		return fd, p, nil
	case unix.ENOENT, unix.ENOTDIR:
		return -1, "", nil
	case unix.ELOOP:
		return u.findThroughLinks(p)
	}
	return -1, "", err
}

// findThroughLinks is find for a path with symbolic links in it: they are followed below the root, as in a chroot. Each component and
// each link is paid for: a path through forty links, each to a path of 256 components, would else cost a second of the processor for a
// hundred bytes of an archive.
func (u *unpacker) findThroughLinks(p string) (fd int, real string, err error) {
	root := u.stack[0].fd
	fd, err = openDirAt(root, ".")
	if err != nil {
		return -1, "", err
	}
	defer func() {
		if err != nil || real == "" && p != "" {
			unix.Close(fd)
			fd = -1
		}
	}()
	links := 0
	done, rest := "", p
	for rest != "" {
		var c string
		if c, rest, _ = strings.Cut(rest, "/"); c == "" {
			continue
		}
		if err := u.meter.spend(1); err != nil {
			return fd, "", err
		}
		next, err := openDirAt(fd, c)
		if err == nil {
			unix.Close(fd)
			fd, done = next, joinPath(done, c)
			continue
		}
		// EINVAL says that it is no link: one call asks both.
		target, lerr := readlinkat(fd, c)
		if lerr != nil {
			return fd, "", nil // nothing there, or no directory
		}
		if links++; links > maxLinks {
			return fd, "", nil
		}
		to, err := resolveLink(done, target)
		if err != nil || len(to)+len(rest) > 2*u.meter.limits.Path {
			return fd, "", nil
		}
		if next, err = openDirAt(root, "."); err != nil {
			return fd, "", err
		}
		unix.Close(fd)
		fd, done, rest = next, "", to+"/"+rest
	}
	return fd, done, nil
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
		// EAGAIN: a rename elsewhere while ".." was checked (openat2(2)). Nobody else writes here for long.
		if err != unix.EINTR && err != unix.EAGAIN {
			return fd, err
		}
	}
}

func (u *unpacker) special(at node, base string, h *tar.Header) error {
	var mode uint32
	switch h.Typeflag {
	case tar.TypeFifo:
		mode = unix.S_IFIFO
	case tar.TypeChar:
		mode = unix.S_IFCHR
		if h.Devmajor == 0 && h.Devminor == 0 {
			// The mark means "deleted" to the kernel, and archives have their own word for that (.wh.).
			return badEntry(h.Name, "a character device 0:0, which overlayfs takes for a deleted file")
		}
	case tar.TypeBlock:
		mode = unix.S_IFBLK
	}
	// The kernel keeps 12 and 20 bits of the two numbers (MINORBITS of linux/kdev_t.h); more would name another device.
	if mode != unix.S_IFIFO && (h.Devmajor < 0 || h.Devminor < 0 || h.Devmajor > 0xfff || h.Devminor > 0xfffff) {
		return badEntry(h.Name, "device number %d:%d out of range", h.Devmajor, h.Devminor)
	}
	if _, err := u.clear(at, base, false); err != nil {
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
