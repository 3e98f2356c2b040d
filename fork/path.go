package fork

import (
	"path"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// cwd is AT_FDCWD (-100) as an argument.
const cwd = ^uintptr(99)

// openHow is struct open_how (openat2(2), Linux 5.6).
type openHow struct {
	flags   uint64
	_       uint64 // mode
	resolve uint64
}

// open opens a path of the container: below the root, which is also the working directory once the root is changed, and
// through no magic link such as /proc/1/root, which could lead out of it.
func (l *lowering) open(p string, flags uint64, resolve uint64, save uint8) int {
	return l.openBelow(val(cwd), p, flags, resolve, save)
}

// openBelow is open below another directory than the root.
func (l *lowering) openBelow(root arg, p string, flags uint64, resolve uint64, save uint8) int {
	how := ptr(l, openHow{flags: flags | unix.O_CLOEXEC, resolve: resolve | unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS})
	c := mk(unix.SYS_OPENAT2, root, val(l.str(rel(p))), val(how), val(unsafe.Sizeof(openHow{})))
	c.save = save
	i := l.add(c)
	// Below a root, ".." can't be resolved while mounts or directories change anywhere (openat2(2), EAGAIN).
	l.on(i, unix.EAGAIN, int32(i))
	return i
}

func rel(p string) string {
	p = strings.TrimPrefix(path.Clean("/"+p), "/")
	if p == "" {
		return "."
	}
	return p
}

// resolve opens a path below the root into a register, making what is missing: create is "dir", "file" or "" (nothing).
func (l *lowering) resolve(p, create string, resolve uint64, mode uint32) uint8 {
	return l.find(p, create, resolve, mode, false)
}

// target is resolve for what is mounted on: a link of the image that leads to the root itself is EBUSY. A mount there would cover all
// that was mounted before, and what comes after it would be made in its directory, which may be the host's.
func (l *lowering) target(p, create string, resolve uint64) uint8 {
	return l.find(p, create, resolve, 0o755, true)
}

func (l *lowering) find(p, create string, resolve uint64, mode uint32, mount bool) uint8 {
	r := l.reg()
	if create == "" {
		l.open(p, unix.O_PATH, resolve, r)
	} else {
		l.make(p, create, resolve, mode, mount, r)
	}
	return r
}

// replace is target for a file of the engine's own: what is in its way in the root file system is taken away.
func (l *lowering) replace(p string) uint8 {
	r := l.reg()
	first := l.open(p, unix.O_PATH, unix.RESOLVE_NO_SYMLINKS, r)
	for _, e := range []unix.Errno{unix.ENOENT, unix.ELOOP, unix.ENOTDIR} {
		l.on(first, e, l.here())
	}
	var beyond []int
	parts := strings.Split(rel(p), "/")
	for i, name := range parts {
		// What is mounted below the root is not to be changed, it may be the host's.
		d := l.open(strings.Join(parts[:i], "/"), unix.O_PATH|unix.O_DIRECTORY, unix.RESOLVE_NO_SYMLINKS|unix.RESOLVE_NO_XDEV, r)
		beyond = append(beyond, d)
		c := l.add(mk(unix.SYS_UNLINKAT, at(r), val(l.str(name)), num(0)))
		// A directory on the way stays. One at the end stays as well, and what attaches a file there will say so (ENOTDIR).
		l.ignore(c, unix.ENOENT, unix.EISDIR)
		if i < len(parts)-1 {
			c = l.add(mk(unix.SYS_MKDIRAT, at(r), val(l.str(name)), num(0o755)))
		} else {
			c = l.add(mk(unix.SYS_MKNODAT, at(r), val(l.str(name)), num(unix.S_IFREG|0o644), num(0)))
		}
		l.ignore(c, unix.EEXIST)
		l.close(at(r))
	}
	again := l.open(p, unix.O_PATH, unix.RESOLVE_NO_SYMLINKS, r)
	for _, d := range beyond {
		l.on(d, unix.EXDEV, l.here())
	}
	l.make(p, "file", 0, 0, true, r)
	l.calls[first].ok, l.calls[again].ok = l.here(), l.here()
	return r
}

// make opens a path into a register, and makes what is missing.
func (l *lowering) make(p, create string, resolve uint64, mode uint32, mount bool, r uint8) {
	strict := resolve | unix.RESOLVE_NO_SYMLINKS
	// Where a link may be on the way, but mostly is not, the first ELOOP leads to walk, which follows it and makes what is missing.
	var linked []int
	open := func(p string, flags, resolve uint64) int {
		i := l.open(p, flags, resolve, r)
		if resolve == strict {
			linked = append(linked, i)
		}
		return i
	}
	how := resolve
	if mount {
		how = strict // what has no link in it isn't the root
	}
	first := open(p, unix.O_PATH, how)
	// Mostly only the last name is missing: the way up to what there is begins there.
	l.on(first, unix.ENOENT, l.here())
	parts := strings.Split(rel(p), "/")
	up := make([]int, len(parts)) // by what is missing in the directory: the call that opens that
	for i := len(parts) - 1; i >= 0; i-- {
		up[i] = open(strings.Join(parts[:i], "/"), unix.O_PATH|unix.O_DIRECTORY, strict)
		if i > 0 {
			l.on(up[i], unix.ENOENT, l.here())
		}
	}
	for i, name := range parts {
		if i > 0 {
			open(strings.Join(parts[:i], "/"), unix.O_PATH|unix.O_DIRECTORY, strict)
			l.calls[up[i]].ok = l.here()
		}
		var c int
		switch {
		case i < len(parts)-1:
			c = l.add(mk(unix.SYS_MKDIRAT, at(r), val(l.str(name)), num(0o755)))
		case create == "dir":
			c = l.add(mk(unix.SYS_MKDIRAT, at(r), val(l.str(name)), num(int(mode))))
		default:
			c = l.add(mk(unix.SYS_MKNODAT, at(r), val(l.str(name)), num(unix.S_IFREG|0o644), num(0)))
		}
		l.ignore(c, unix.EEXIST)
		l.close(at(r))
	}
	again := open(p, unix.O_PATH, strict)
	if resolve != strict { // else a link is an error
		for _, i := range linked {
			l.on(i, unix.ELOOP, l.here())
		}
		c := mk(walkNumber, val(l.str(rel(p))), num(map[string]int{"dir": walkDir, "file": walkFile}[create]), num(int(mode)), num(0))
		if mount {
			c.args[3] = 1
		}
		c.save = r
		l.add(c)
		l.calls[again].ok = l.here()
	}
	l.calls[first].ok = l.here()
}

func (l *lowering) writeFile(from arg, file, value string, resolve uint64) {
	r := l.reg()
	how := ptr(l, openHow{flags: unix.O_WRONLY | unix.O_CLOEXEC, resolve: resolve})
	c := mk(unix.SYS_OPENAT2, from, val(l.str(file)), val(how), val(unsafe.Sizeof(openHow{})))
	c.save = r
	l.add(c)
	w := mk(unix.SYS_WRITE, at(r), val(l.str(value)), num(len(value)))
	w.check, w.want = true, uintptr(len(value))
	l.add(w)
	l.close(at(r))
	l.release(r)
}
