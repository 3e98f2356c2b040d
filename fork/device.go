package fork

import (
	"fmt"
	"path"
	"strings"
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
	var d place
	if o.In == "" && o.Existing == "required" { // nothing is made, and what is there is verified
		d = place{at(l.resolve(dir, "", 0, 0)), true}
	} else {
		var err error
		if d, err = l.directory(o.In, dir); err != nil {
			return err
		}
	}
	r := l.reg()
	base := l.str(name)
	exists := -1
	if o.Existing != "required" {
		exists = l.add(mk(unix.SYS_MKNODAT, d.fd, val(base), num(int(kind|o.Mode)), val(uintptr(unix.Mkdev(o.Major, o.Minor)))))
		// The child is root of its user namespace here, so what it makes is root's.
		if o.UID != 0 || o.GID != 0 {
			l.add(mk(unix.SYS_FCHOWNAT, d.fd, val(base), num(int(o.UID)), num(int(o.GID)), num(unix.AT_SYMLINK_NOFOLLOW)))
		}
	}
	if exists < 0 || o.Existing == "same" || o.Save != "" {
		if exists >= 0 && o.Existing == "same" {
			l.on(exists, unix.EEXIST, l.here())
		}
		// No symbolic link, but a device that is bound from the host is fine.
		how := ptr(l, openHow{flags: unix.O_PATH | unix.O_NOFOLLOW | unix.O_CLOEXEC, resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS})
		c := mk(unix.SYS_OPENAT2, d.fd, val(base), val(how), val(unsafe.Sizeof(openHow{})))
		c.save = r
		l.add(c)
		l.isDevice(at(r), kind, o.Major, o.Minor, unix.EEXIST)
		if o.Save == "" {
			l.close(at(r))
		}
	}
	if o.Save != "" {
		l.save(o.Save, r)
	} else {
		l.release(r)
	}
	l.leave(d)
	return nil
}

// place is a directory in which something is made. Own says that the descriptor is for that alone.
type place struct {
	fd  arg
	own bool
}

// leave closes what directory opened.
func (l *lowering) leave(d place) {
	if d.own {
		l.close(d.fd)
		l.release(d.fd.reg)
	}
}

// directory opens the directory in which a device or a link is made: in a mount of the plan's own, if it is named, and else by its path.
func (l *lowering) directory(in, dir string) (place, error) {
	dir = strings.TrimSuffix(dir, "/")
	if in == "" {
		return place{at(l.unlinked(dir)), true}, nil
	}
	fd, err := l.fd(in)
	if err != nil {
		return place{}, err
	}
	top, ok := l.places[in]
	below, inside := strings.CutPrefix(dir+"/", top+"/")
	if !ok || !inside {
		return place{}, fmt.Errorf("%q is not in the mount %q", "/"+dir, in)
	}
	d := place{fd: fd}
	for name := range strings.SplitSeq(strings.Trim(below, "/"), "/") {
		if name == "" {
			break
		}
		base := l.str(name)
		l.ignore(l.add(mk(unix.SYS_MKDIRAT, d.fd, val(base), num(0o755))), unix.EEXIST)
		how := ptr(l, openHow{
			flags: unix.O_PATH | unix.O_DIRECTORY | unix.O_CLOEXEC, resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_XDEV,
		})
		c := mk(unix.SYS_OPENAT2, d.fd, val(base), val(how), val(unsafe.Sizeof(openHow{})))
		c.save = l.reg()
		l.add(c)
		l.leave(d)
		d = place{at(c.save), true}
	}
	return d, nil
}

// unlinked opens a directory by its path, making what is missing. A link on the way may not lead into another mount than the root's:
// that could be a directory of the host, where nobody has asked for devices.
func (l *lowering) unlinked(dir string) uint8 {
	r := l.reg()
	first := l.open(dir, unix.O_PATH|unix.O_DIRECTORY, unix.RESOLVE_NO_SYMLINKS, r)
	l.on(first, unix.ELOOP, l.here())
	linked := l.open(dir, unix.O_PATH|unix.O_DIRECTORY, unix.RESOLVE_NO_XDEV, r)
	l.on(first, unix.ENOENT, l.here())
	l.make(dir, "dir", unix.RESOLVE_NO_SYMLINKS, 0o755, false, r)
	l.calls[first].ok, l.calls[linked].ok = l.here(), l.here()
	return r
}

// stdio makes a descriptor a standard one. Whether it is a null device is asked here, by the parent, which has it open: the child's
// copy is the same.
func (l *lowering) stdio(o *plan.Stdio) error {
	fd, err := l.fd(o.From)
	if err != nil {
		return err
	}
	null := l.kinds[o.From] == "null" // told by whoever lists the calls of another's plan
	if o.Null != "" && fd.reg == 0 && (null || isNull(int(fd.v))) {
		fd = at(l.openNull(o.Null))
	} else if fd.reg == 0 && int(fd.v) == o.To {
		return nil // dup3(2) would say EINVAL
	}
	l.add(mk(unix.SYS_DUP3, fd, num(o.To), num(0)))
	return nil
}

// isNull reports whether a descriptor of this process is a null device (devices.txt: c 1:3), of whatever file system.
func isNull(fd int) bool {
	var st unix.Stat_t
	err := unix.Fstat(fd, &st)
	return err == nil && st.Mode&unix.S_IFMT == unix.S_IFCHR && st.Rdev == unix.Mkdev(1, 3)
}

// openNull opens a null device of the container, once for all descriptors that are one. What is open is verified, as a container
// that runs may have put anything in its place; O_NOCTTY because that could be a terminal.
func (l *lowering) openNull(name string) uint8 {
	if r, ok := l.null[name]; ok {
		return r
	}
	r := l.reg()
	l.open(name, unix.O_RDWR|unix.O_NOCTTY, 0, r)
	l.isDevice(at(r), unix.S_IFCHR, 1, 3, unix.ENODEV)
	if l.null == nil {
		l.null = map[string]uint8{}
	}
	l.null[name] = r // stays open until close_range or execve
	return r
}

// isDevice fails with an errno if a descriptor isn't this device.
func (l *lowering) isDevice(fd arg, kind, major, minor uint32, miss unix.Errno) {
	const modeOffset, deviceOffset = 28, 128 // in struct statx: the type, the major and the minor number
	c := l.statx(fd, modeOffset)
	c.mask, c.like, c.miss = unix.S_IFMT, uint64(kind), uint16(miss)
	l.add(c)
	if kind != unix.S_IFIFO { // which has no number
		c = l.statx(fd, deviceOffset)
		c.mask, c.like, c.miss = ^uint64(0), uint64(major)|uint64(minor)<<32, uint16(miss)
		l.add(c)
	}
}

func (l *lowering) symlink(o *plan.Symlink) error {
	missing := -1
	if o.Existing {
		r := l.reg()
		missing = l.open(o.Target, unix.O_PATH, 0, r)
		l.close(at(r))
		l.release(r)
	}
	dir, name := path.Split(rel(o.Path))
	d := place{own: true}
	if o.In == "" {
		d.fd = at(l.resolve(dir, "", 0, 0))
	} else {
		var err error
		if d, err = l.directory(o.In, dir); err != nil {
			return err
		}
	}
	base := l.str(name)
	if o.Replace {
		// A link can't be changed, only replaced, and symlinkat(2) takes no name that is there.
		i := l.add(mk(unix.SYS_UNLINKAT, d.fd, val(base), num(0)))
		l.ignore(i, unix.ENOENT, unix.EBUSY, unix.EISDIR) // EBUSY: it is a mount, which does as well
	}
	i := l.add(mk(unix.SYS_SYMLINKAT, val(l.str(o.Target)), d.fd, val(base)))
	l.ignore(i, unix.EEXIST)
	l.leave(d)
	if missing >= 0 {
		l.on(missing, unix.ENOENT, l.here())
	}
	return nil
}
