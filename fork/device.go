package fork

import (
	"fmt"
	"path"
	"unsafe"

	"golang.org/x/sys/unix"

	"glassbox/plan"
)

// mknod makes a node. What stands there in the end is verified by its descriptor: in a directory that others can change, or
// where a file was before, it could be anything (CVE-2025-31133).
func (l *lowering) mknod(o *plan.Mknod) error {
	kind, ok := map[string]uint32{"c": unix.S_IFCHR, "u": unix.S_IFCHR, "b": unix.S_IFBLK, "p": unix.S_IFIFO}[o.Type]
	if !ok {
		return fmt.Errorf("unknown kind of device %q", o.Type)
	}
	dir, name := path.Split(rel(o.Path))
	create := "dir"
	if o.Existing == "required" {
		create = ""
	}
	d, r := l.resolve(dir, create, 0, 0o755), l.reg()
	base := l.str(name)
	exists := -1
	if o.Existing != "required" {
		exists = l.add(mk(unix.SYS_MKNODAT, at(d), val(base), num(int(kind|o.Mode)), val(uintptr(unix.Mkdev(o.Major, o.Minor)))))
		if o.UID != 0 || o.GID != 0 {
			l.add(mk(unix.SYS_FCHOWNAT, at(d), val(base), num(int(o.UID)), num(int(o.GID)), num(unix.AT_SYMLINK_NOFOLLOW)))
		}
	}
	if exists < 0 || o.Existing == "same" || o.Save != "" {
		if exists >= 0 && o.Existing == "same" {
			l.on(exists, unix.EEXIST, l.here())
		}
		// No symbolic link, but a device that is bound from the host is fine.
		how := ptr(l, openHow{flags: unix.O_PATH | unix.O_NOFOLLOW | unix.O_CLOEXEC, resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS})
		c := mk(unix.SYS_OPENAT2, at(d), val(base), val(how), val(unsafe.Sizeof(openHow{})))
		c.save = r
		l.add(c)
		const modeOffset, deviceOffset = 28, 128 // in struct statx: the type, the major and the minor number
		c = l.statx(at(r), modeOffset)
		c.mask, c.like, c.miss = unix.S_IFMT, uint64(kind), uint16(unix.EEXIST)
		l.add(c)
		if kind != unix.S_IFIFO {
			c = l.statx(at(r), deviceOffset)
			c.mask, c.like, c.miss = ^uint64(0), uint64(o.Major)|uint64(o.Minor)<<32, uint16(unix.EEXIST)
			l.add(c)
		}
		if o.Save == "" {
			l.close(at(r))
		}
	}
	if o.Save != "" {
		l.save(o.Save, r)
	} else {
		l.release(r)
	}
	l.close(at(d))
	l.release(d)
	return nil
}

func (l *lowering) symlink(o *plan.Symlink) {
	missing := -1
	if o.Existing {
		r := l.reg()
		missing = l.open(o.Target, unix.O_PATH, 0, r)
		l.close(at(r))
		l.release(r)
	}
	r := l.reg()
	name := l.str(l.parent(o.Path, r))
	if o.Replace {
		i := l.add(mk(unix.SYS_UNLINKAT, at(r), val(name), num(0)))
		l.ignore(i, unix.ENOENT, unix.EBUSY, unix.EISDIR) // EBUSY: it is a mount, which does as well
	}
	i := l.add(mk(unix.SYS_SYMLINKAT, val(l.str(o.Target)), at(r), val(name)))
	l.ignore(i, unix.EEXIST)
	l.close(at(r))
	l.release(r)
	if missing >= 0 {
		l.on(missing, unix.ENOENT, l.here())
	}
}
