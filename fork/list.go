package fork

import (
	"fmt"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"

	"glassbox/plan"
)

// Call is one system call that the child of a plan makes, as who traces the child sees it.
type Call struct {
	Nr   int
	Step int // index in the plan
	// Args are those that are certain before the start, as numbers (%#x), texts (%q) or structures as strace(1) writes them with raw
	// numbers; "" stands for what is found out on the way: descriptors, addresses.
	Args [6]string
	// Maybe says that the call is left out if an earlier one went otherwise.
	Maybe bool
	// Next is the call that follows if this one succeeds, and OnError what follows after which errno; any other error ends the child.
	Next    int
	OnError map[unix.Errno]int
}

// List returns the calls of a plan's child, for tests that compare them with what a trace shows. fds are the descriptors that host
// steps save, sock is the child's end of the socket, and kinds says of the mounts that the child gets whether
// each is a "dir" or a "file", and of the standard descriptors which is a "null" device.
func List(p *plan.Plan, fds map[string]int, sock int, kinds map[string]string) ([]Call, error) {
	l := &lowering{fds: fds, regs: map[string]uint8{}, kinds: map[string]string{}, places: map[string]string{}, sock: sock, steps: p.Steps}
	for name, kind := range kinds {
		l.kinds[name] = kind
	}
	for i, s := range p.Steps {
		if s.Lane != plan.Child {
			continue
		}
		l.step = int32(i)
		if err := l.op(s.Op); err != nil {
			return nil, fmt.Errorf("step %d/%d: %w", i+1, len(p.Steps), err)
		}
		if err := l.cut(); err != nil {
			return nil, fmt.Errorf("step %d/%d: %w", i+1, len(p.Steps), err)
		}
	}
	out := make([]Call, len(l.calls))
	for i := range l.calls {
		c := &l.calls[i]
		out[i] = Call{
			Nr: int(c.nr), Step: int(c.step), Maybe: c.unless != 0 || c.only != 0, Next: i + 1,
			OnError: map[unix.Errno]int{unix.EINTR: i},
		}
		if c.ok != 0 {
			out[i].Next = int(c.ok)
		}
		for _, b := range c.branch {
			if b.errno != 0 {
				out[i].OnError[unix.Errno(b.errno)] = int(b.next)
			}
		}
		for k := range c.args {
			if c.from[k] == 0 {
				out[i].Args[k] = argument(c, k)
			}
		}
	}
	return out, nil
}

// texts says which arguments of a system call are the addresses of C strings, by their bits.
func texts(nr uintptr) uint {
	switch nr {
	case unix.SYS_MOUNT:
		return 0b10111
	case unix.SYS_MOVE_MOUNT:
		return 0b1010
	case unix.SYS_PIVOT_ROOT:
		return 0b11
	case unix.SYS_SYMLINKAT:
		return 0b101
	case unix.SYS_FSCONFIG:
		return 0b1100
	case unix.SYS_CHDIR, unix.SYS_CHROOT, unix.SYS_UMOUNT2, unix.SYS_FSOPEN, unix.SYS_EXECVE, unix.SYS_SETHOSTNAME, unix.SYS_SETDOMAINNAME:
		return 0b1
	case unix.SYS_OPENAT, unix.SYS_OPENAT2, unix.SYS_MKDIRAT, unix.SYS_MKNODAT, unix.SYS_UNLINKAT, unix.SYS_OPEN_TREE, unix.SYS_MOUNT_SETATTR,
		unix.SYS_FCHOWNAT, unix.SYS_FSPICK,
		unix.SYS_FACCESSAT2, unix.SYS_KEYCTL, unix.SYS_STATX, unix.SYS_WRITE:
		return 0b10
	case unix.SYS_FSETXATTR:
		return 0b110
	}
	return 0
}

// argument writes one argument of a call.
func argument(c *call, k int) string {
	v := c.args[k]
	switch {
	case texts(c.nr)&(1<<k) != 0:
		if v == 0 {
			return "NULL"
		}
		if c.nr == unix.SYS_WRITE {
			return fmt.Sprintf("%q", unsafe.Slice((*byte)(pointer(c, k)), c.args[2]))
		}
		var b strings.Builder
		for p := pointer(c, k); *(*byte)(p) != 0; p = unsafe.Add(p, 1) {
			b.WriteByte(*(*byte)(p))
		}
		return fmt.Sprintf("%q", b.String())
	case c.nr == unix.SYS_OPENAT2 && k == 2:
		how := (*openHow)(pointer(c, k))
		return fmt.Sprintf("{flags=%#x, resolve=%#x}", how.flags, how.resolve)
	case c.nr == unix.SYS_MOUNT_SETATTR && k == 3:
		a := (*unix.MountAttr)(pointer(c, k))
		return fmt.Sprintf("{attr_set=%#x, attr_clr=%#x, propagation=%#x, userns_fd=%d}", a.Attr_set, a.Attr_clr, a.Propagation, a.Userns_fd)
	case c.nr == unix.SYS_PRLIMIT64 && k == 2 && v != 0:
		r := (*unix.Rlimit)(pointer(c, k))
		return fmt.Sprintf("{rlim_cur=%d, rlim_max=%d}", r.Cur, r.Max)
	case c.nr == unix.SYS_CAPSET && k == 1:
		d := (*[2]unix.CapUserData)(pointer(c, k))
		both := func(low, high uint32) string {
			if high == 0 {
				return fmt.Sprintf("%#x", low)
			}
			return fmt.Sprintf("%#x|%#x", low, high)
		}
		return fmt.Sprintf("{effective=%s, permitted=%s, inheritable=%s}", both(d[0].Effective, d[1].Effective),
			both(d[0].Permitted, d[1].Permitted), both(d[0].Inheritable, d[1].Inheritable))
	case c.nr == unix.SYS_SETGROUPS && k == 1:
		return strings.ReplaceAll(fmt.Sprint(unsafe.Slice((*uint32)(pointer(c, k)), c.args[0])), " ", ", ")
	}
	if v > 1<<32 && v < ^uintptr(1<<20) {
		return "" // an address
	}
	return fmt.Sprintf("%#x", v)
}

// pointer is an argument that is an address, of memory that the lowering keeps.
func pointer(c *call, k int) unsafe.Pointer { return *(*unsafe.Pointer)(unsafe.Pointer(&c.args[k])) }
