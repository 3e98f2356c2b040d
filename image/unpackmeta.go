package image

import (
	"archive/tar"
	"fmt"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// meta sets owner, mode and times of what cannot be opened: links, devices, pipes. The name was just created by us in a
// directory nobody else sees, and no call here follows a link.
func (u *unpacker) meta(at node, base string, h *tar.Header) error {
	if !u.user {
		uid, gid, err := ids(h)
		if err != nil {
			return err
		}
		// Before chmod: chown(2) clears the set-user-ID and set-group-ID bits.
		if err := unix.Fchownat(at.fd, base, uid, gid, unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return fmt.Errorf("chown: %w", err)
		}
	}
	// Links have no mode of their own on Linux (symlink(7)).
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
	for k := range h.PAXRecords {
		if name, ok := attribute(k); ok {
			u.leaveOut(name) // on what can't be opened, attributes of ours would be of no use
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

func (u *unpacker) own(fd int, h *tar.Header) error {
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
	if uid != 0 || gid != 0 || perm(h)&^0o777 != 0 {
		v := fmt.Sprintf("%d:%d:%04o", uid, gid, perm(h))
		// An ordinary user can give files to nobody. What they should be is noted for the day when somebody can, and a file system
		// without such attributes is no reason to refuse an image.
		if err := unix.Fsetxattr(fd, "user.glassbox.stat", []byte(v), 0); err != nil && err != unix.EOPNOTSUPP {
			return fmt.Errorf("note owner: %w", err)
		}
	}
	return nil
}

func perm(h *tar.Header) uint32 { return uint32(h.Mode) & 0o7777 }

// POSIX ACLs, as the kernel shows them; see acl(5). Without them a file that one user may not read is open to him.
const (
	aclAccess  = "system.posix_acl_access"
	aclDefault = "system.posix_acl_default"
)

// attribute returns the name of the extended attribute that a record of a PAX header is about. Docker, umoci and GNU tar write
// SCHILY.xattr.NAME; the other two forms, of bsdtar and of tar --acls, are known only so that it can be told that they are left out.
func attribute(key string) (name string, ok bool) {
	if name, ok = strings.CutPrefix(key, "SCHILY.xattr."); ok {
		return name, true
	}
	if strings.HasPrefix(key, "LIBARCHIVE.xattr.") || strings.HasPrefix(key, "SCHILY.acl.") {
		return key, true
	}
	return "", false
}

// xattrs sets the attributes that an image may carry: user.*, file capabilities and ACLs. Overlay's own marks, SELinux labels
// and the rest of trusted.*, system.* and security.* are the host's business, not the archive's; what is left out is counted. ACLs
// are not set but returned: the first must wait for chmod, which changes its mask, and what is made in the directory would inherit the
// second.
func (u *unpacker) xattrs(fd int, h *tar.Header) (access, inherited string, err error) {
	total := 0
	for k, v := range h.PAXRecords {
		name, ok := attribute(k)
		if !ok {
			continue
		}
		// Of all that are told, also those left out: they have been read into memory.
		total += len(name) + len(v)
		if most := u.meter.limits.Xattr; total > most {
			return "", "", overLimit(h.Name, "more than %d bytes of extended attributes", most)
		}
		if len(name) > 255 || strings.IndexByte(name, 0) >= 0 {
			return "", "", badEntry(h.Name, "an invalid extended attribute name")
		}
		switch {
		case strings.HasPrefix(name, "user.overlay.") || strings.HasPrefix(name, "user.glassbox."):
			u.leaveOut(name)
			continue
		case strings.HasPrefix(name, "user."):
		// Only execve(2) asks for it, so that a directory has no use for it; from an ordinary user the kernel takes none (capabilities(7)).
		case name == "security.capability" && !u.user && h.Typeflag != tar.TypeDir:
		case name == aclAccess && !u.user: // an ordinary user's store has no owners either
			access = v
			continue
		case name == aclDefault && !u.user && h.Typeflag == tar.TypeDir:
			inherited = v
			continue
		default:
			u.leaveOut(name)
			continue
		}
		if err := unix.Fsetxattr(fd, name, []byte(v), 0); err == unix.EOPNOTSUPP {
			u.leaveOut(name)
		} else if err != nil {
			return "", "", fmt.Errorf("set attribute %s: %w", name, err)
		}
	}
	return access, inherited, u.meter.write(int64(total))
}

// setACL sets a POSIX ACL; an empty one is none.
func (u *unpacker) setACL(fd int, name, acl string) error {
	if acl == "" {
		return nil
	}
	err := unix.Fsetxattr(fd, name, []byte(acl), 0)
	if err == unix.EOPNOTSUPP {
		u.leaveOut(name)
		return nil
	}
	if err != nil {
		return fmt.Errorf("set attribute %s: %w", name, err)
	}
	return nil
}

// leaveOut counts an attribute that is left out, to be told at the end; of names that hostile archives make up by the million, a few.
func (u *unpacker) leaveOut(name string) {
	if _, known := u.left[name]; !known && len(u.left) >= 16 {
		name = "others"
	}
	u.left[name]++
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
