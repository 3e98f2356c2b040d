package fork

import (
	"fmt"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

func (l *lowering) add(c call) int {
	c.step = l.step
	if c.miss == 0 {
		c.miss = uint16(unix.EPIPE)
	}
	l.calls = append(l.calls, c)
	return len(l.calls) - 1
}

// here is the index of the call that will be added next.
func (l *lowering) here() int32 { return int32(len(l.calls)) }

// on adds a branch to a call that exists: on errno, continue with call next.
func (l *lowering) on(i int, errno unix.Errno, next int32) {
	for k := range l.calls[i].branch {
		if l.calls[i].branch[k].errno == 0 {
			l.calls[i].branch[k] = branch{uint16(errno), next}
			return
		}
	}
	panic("a call with too many branches")
}

// ignore lets the child go on with the following call after one of these errors.
func (l *lowering) ignore(i int, errnos ...unix.Errno) {
	for _, e := range errnos {
		l.on(i, e, int32(i+1))
	}
}

func (l *lowering) reg() uint8 {
	if n := len(l.free); n > 0 {
		r := l.free[n-1]
		l.free = l.free[:n-1]
		return r
	}
	if l.next == 255 {
		// Told by lower when the step is done, so that not each caller has an error to hand on.
		l.full = true
		return l.next
	}
	l.next++
	return l.next
}

// fresh returns a register that holds 0.
func (l *lowering) fresh() uint8 {
	// A register that was used before holds its last result; only one that never was is 0.
	free := l.free
	l.free = nil
	r := l.reg()
	l.free = free
	return r
}

func (l *lowering) release(r uint8) { l.free = append(l.free, r) }

// cut is the error of a text with a NUL byte. A C string ends there: what runs would not be what is printed. Plans with one don't
// validate; this is where they would do harm, for who comes here another way or with a text that was put together since.
func (l *lowering) cut() error {
	if l.nul == "" {
		return nil
	}
	return fmt.Errorf("%q has a NUL byte, at which it would end for the kernel", l.nul)
}

// str returns the address of a C string.
func (l *lowering) str(s string) uintptr {
	if strings.IndexByte(s, 0) >= 0 {
		l.nul = s
	}
	n := len(s) + 1
	if n > len(l.room) {
		l.room = make([]byte, max(n, 8<<10)) // one piece of memory for hundreds of short strings
		l.keep = append(l.keep, l.room)
	}
	b := l.room[:n:n]
	l.room = l.room[n:]
	copy(b, s)
	return uintptr(unsafe.Pointer(&b[0]))
}

func (l *lowering) bytes(b []byte) uintptr {
	if len(b) == 0 {
		// So that there is an address: setgroups(2) with no groups doesn't look at it, Go takes none of an empty slice.
		b = make([]byte, 1)
	}
	l.keep = append(l.keep, b)
	return uintptr(unsafe.Pointer(&b[0]))
}

// vec returns the address of a NULL-terminated array of C strings.
func (l *lowering) vec(ss []string) uintptr {
	size := 0
	for _, s := range ss {
		if strings.IndexByte(s, 0) >= 0 {
			l.nul = s
		}
		size += len(s) + 1
	}
	// Made as large as it will be: if append had to move it, the addresses below would point to what was.
	b := make([]byte, 0, size+1)
	v := make([]uintptr, len(ss)+1)
	b = b[:1]
	base := uintptr(unsafe.Pointer(&b[0]))
	b = b[:0]
	for i, s := range ss {
		v[i] = base + uintptr(len(b))
		b = append(append(b, s...), 0)
	}
	l.keep = append(l.keep, b[:cap(b)], v)
	return uintptr(unsafe.Pointer(&v[0]))
}

func ptr[T any](l *lowering, v T) uintptr {
	p := new(T)
	*p = v
	l.keep = append(l.keep, p)
	return uintptr(unsafe.Pointer(p))
}

// arg is an argument of a call: a value, or a register.
type arg struct {
	v   uintptr
	reg uint8
}

func val(v uintptr) arg { return arg{v: v} }

func num(v int) arg { return arg{v: uintptr(v)} }

func at(r uint8) arg { return arg{reg: r} }

func mk(nr uintptr, args ...arg) call {
	c := call{nr: nr}
	for i, a := range args {
		c.args[i], c.from[i] = a.v, a.reg
	}
	return c
}

// fd finds a descriptor by its name.
func (l *lowering) fd(name string) (arg, error) {
	if r, ok := l.regs[name]; ok {
		return at(r), nil
	}
	if fd, ok := l.fds[name]; ok {
		return num(fd), nil
	}
	return arg{}, fmt.Errorf("no descriptor %q", name)
}

func (l *lowering) save(name string, r uint8) {
	if name != "" {
		l.regs[name] = r
	}
}

func (l *lowering) close(a arg) { l.add(mk(unix.SYS_CLOSE, a)) }
