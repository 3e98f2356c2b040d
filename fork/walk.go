package fork

import (
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A target that isn't there is made: its directories, and what it is to be itself. Where symbolic links are on the way, the kernel can
// follow them, but not make what a dangling one leads to: that name is in the link, and has to be taken apart. walk does so, as far as
// possible like openat2(2) with RESOLVE_IN_ROOT: no link leads out of the root.
//
// It is the only text that the child handles. It runs where [child] does and may do as little; the memory is mapped when it is needed,
// so that nobody pays who has no such link.

// walkNumber in place of a system call's number stands for walk. Its arguments: the address of the path, what to make of what is
// missing (walkDir, walkFile), the mode of that, and 1 if the root itself is no answer.
const walkNumber = ^uintptr(1)

const (
	walkDir  = 1
	walkFile = 2
)

// Sizes in bytes. Names longer than 255 are refused by the kernel; paths by walk, as the kernel does (PATH_MAX), with room for a link in
// front of the rest of a path.
const (
	walkPath  = 4096
	walkName  = 256
	walkLinks = 40 // as the kernel's MAXSYMLINKS
)

// walkMemory is what walk needs.
type walkMemory struct {
	rest [2 * walkPath]byte // what is still to be walked, from an offset on
	link [2 * walkPath]byte // the content of a link; the rest is appended to it
	done [2 * walkPath]byte // the way so far, without links: "" is the root
	name [walkName]byte
	step openHow // for one name below a directory
	way  openHow // for the way so far, from the root
}

// The helpers are small enough to be part of their callers; where the compiler doesn't see to that, they must not grow the stack.

//go:nosplit
//go:nocheckptr
func put(base unsafe.Pointer, i uintptr, b byte) { *(*byte)(unsafe.Add(base, i)) = b }

//go:nosplit
//go:nocheckptr
func get(base unsafe.Pointer, i uintptr) byte { return *(*byte)(unsafe.Add(base, i)) }

//go:nosplit
func address(p unsafe.Pointer) uintptr { return uintptr(p) }

//go:nosplit
//go:nocheckptr
func pointerTo(a *uintptr) unsafe.Pointer { return *(*unsafe.Pointer)(unsafe.Pointer(a)) }

//go:nosplit
func raw(nr, a, b, c, d uintptr) (uintptr, uintptr) {
	r, _, e := syscall.RawSyscall6(nr, a, b, c, d, 0, 0)
	return r, uintptr(e)
}

// walk opens what a path leads to below the working directory, which is the root. Whatever it finds is behind the descriptor, which is
// one for the path only (O_PATH).
//
//go:nosplit
//go:norace
//go:nocheckptr
//go:noinline
func walk(p *program, c *call) (uintptr, uintptr) {
	if p.walk == 0 {
		m, _, e := syscall.RawSyscall6(syscall.SYS_MMAP, 0, unsafe.Sizeof(walkMemory{}), unix.PROT_READ|unix.PROT_WRITE,
			unix.MAP_PRIVATE|unix.MAP_ANONYMOUS, ^uintptr(0), 0)
		if e != 0 {
			return 0, uintptr(e)
		}
		p.walk = m
	}
	m := (*walkMemory)(pointerTo(&p.walk))
	m.step = openHow{flags: unix.O_PATH | unix.O_NOFOLLOW | unix.O_CLOEXEC, resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS}
	m.way = openHow{flags: unix.O_PATH | unix.O_DIRECTORY | unix.O_CLOEXEC, resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_SYMLINKS}
	rest, link, done, name := unsafe.Pointer(&m.rest), unsafe.Pointer(&m.link), unsafe.Pointer(&m.done), unsafe.Pointer(&m.name)
	way := uintptr(0) // length of done
	put(done, 0, 0)
	n := uintptr(0) // length of what is in rest
	for from := pointerTo(&c.args[0]); get(from, n) != 0; n++ {
		if n >= walkPath-1 {
			return 0, uintptr(unix.ENAMETOOLONG)
		}
		put(rest, n, get(from, n))
	}
	put(rest, n, 0)
	put(name, 0, '.')
	put(name, 1, 0)
	dir, e := raw(unix.SYS_OPENAT2, cwd, address(name), address(unsafe.Pointer(&m.way)), unsafe.Sizeof(m.way))
	if e != 0 {
		return 0, e
	}
	at, links, tries := uintptr(0), 0, 0
	for {
		for get(rest, at) == '/' {
			at++
		}
		if get(rest, at) == 0 {
			if way == 0 && c.args[3] != 0 {
				raw(unix.SYS_CLOSE, dir, 0, 0, 0)
				return 0, uintptr(unix.EBUSY)
			}
			return dir, 0
		}
		length := uintptr(0)
		for b := get(rest, at); b != '/' && b != 0; b = get(rest, at+length) {
			if length >= walkName-1 {
				raw(unix.SYS_CLOSE, dir, 0, 0, 0)
				return 0, uintptr(unix.ENAMETOOLONG)
			}
			put(name, length, b)
			length++
		}
		put(name, length, 0)
		after := at + length
		dots := get(name, 0) == '.' && (length == 1 || length == 2 && get(name, 1) == '.')
		if dots { // of a directory only
			put(name, 1, 0)
			f, e := raw(unix.SYS_OPENAT2, dir, address(name), address(unsafe.Pointer(&m.step)), unsafe.Sizeof(m.step))
			if e != 0 {
				raw(unix.SYS_CLOSE, dir, 0, 0, 0)
				return 0, e
			}
			raw(unix.SYS_CLOSE, f, 0, 0, 0)
			at = after
			if length == 1 {
				continue
			}
			// The way so far has no links: its last name can be taken off. The root has no parent.
			for way > 0 {
				way--
				if get(done, way) == '/' {
					break
				}
			}
			put(done, way, 0)
			raw(unix.SYS_CLOSE, dir, 0, 0, 0)
			if dir, e = reopen(m, done, name, way); e != 0 {
				return 0, e
			}
			continue
		}
		last := after
		for get(rest, last) == '/' {
			last++
		}
		f, e := raw(unix.SYS_OPENAT2, dir, address(name), address(unsafe.Pointer(&m.step)), unsafe.Sizeof(m.step))
		if e == uintptr(unix.ENOENT) && tries < walkLinks {
			// EEXIST is fine: somebody else has made it meanwhile, and it is opened again in any case.
			tries++
			switch {
			case get(rest, last) != 0:
				_, e = raw(unix.SYS_MKDIRAT, dir, address(name), 0o755, 0)
			case c.args[1] == walkDir:
				_, e = raw(unix.SYS_MKDIRAT, dir, address(name), c.args[2], 0)
			default:
				_, e = raw(unix.SYS_MKNODAT, dir, address(name), unix.S_IFREG|0o644, 0)
			}
			if e == 0 || e == uintptr(unix.EEXIST) {
				continue
			}
		}
		if e != 0 {
			raw(unix.SYS_CLOSE, dir, 0, 0, 0)
			return 0, e
		}
		size, e := raw(unix.SYS_READLINKAT, f, address(name)+length, address(link), walkPath) // "" is the descriptor itself
		if e != 0 {
			// ENOENT: it is no link (fs/stat.c, do_readlinkat). A file in the middle is ENOTDIR when its next name is opened.
			raw(unix.SYS_CLOSE, dir, 0, 0, 0)
			dir = f
			if way+length+2 > walkPath {
				raw(unix.SYS_CLOSE, dir, 0, 0, 0)
				return 0, uintptr(unix.ENAMETOOLONG)
			}
			if way > 0 {
				put(done, way, '/')
				way++
			}
			for i := uintptr(0); i <= length; i++ {
				put(done, way+i, get(name, i))
			}
			way += length
			at = after
			continue
		}
		raw(unix.SYS_CLOSE, f, 0, 0, 0)
		if links++; links > walkLinks || size >= walkPath {
			raw(unix.SYS_CLOSE, dir, 0, 0, 0)
			return 0, uintptr(unix.ELOOP)
		}
		// What is to be walked is the link, and then the rest.
		i := uintptr(0)
		for ; get(rest, after+i) != 0; i++ {
			if size+i >= 2*walkPath-1 {
				raw(unix.SYS_CLOSE, dir, 0, 0, 0)
				return 0, uintptr(unix.ENAMETOOLONG)
			}
			put(link, size+i, get(rest, after+i))
		}
		n = size + i
		if n >= walkPath {
			raw(unix.SYS_CLOSE, dir, 0, 0, 0)
			return 0, uintptr(unix.ENAMETOOLONG)
		}
		for i = 0; i < n; i++ {
			put(rest, i, get(link, i))
		}
		put(rest, n, 0)
		at = 0
		if get(rest, 0) == '/' { // of the container's root
			way = 0
			put(done, 0, 0)
			raw(unix.SYS_CLOSE, dir, 0, 0, 0)
			if dir, e = reopen(m, done, name, way); e != 0 {
				return 0, e
			}
		}
	}
}

// reopen opens the way so far.
//
//go:nosplit
//go:norace
//go:nocheckptr
//go:noinline
func reopen(m *walkMemory, done, name unsafe.Pointer, way uintptr) (uintptr, uintptr) {
	if way == 0 {
		put(name, 0, '.')
		put(name, 1, 0)
		done = name
	}
	return raw(unix.SYS_OPENAT2, cwd, address(done), address(unsafe.Pointer(&m.way)), unsafe.Sizeof(m.way))
}
