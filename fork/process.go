package fork

import (
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"

	"glassbox/plan"
)

// chdir enters a directory. With o.Try, a register remembers that it worked.
func (l *lowering) chdir(o *plan.Chdir) {
	c := mk(unix.SYS_CHDIR, val(l.str(o.Path)))
	if !o.Try {
		c.unless = l.entered
	}
	i := l.add(c)
	// The kernel puts "(unreachable)" before a directory that lies outside the root. A filter that denies getcwd is no
	// reason to fail: descriptors that could lead outside are closed already.
	buf := make([]uint64, 512)
	l.keep = append(l.keep, buf)
	c = mk(unix.SYS_GETCWD, val(uintptr(unsafe.Pointer(&buf[0]))), num(8*len(buf)))
	c.look, c.mask, c.like, c.miss = &buf[0], 0xff, '/', uint16(unix.EXDEV)
	l.ignore(l.add(c), unix.EPERM, unix.ENOSYS, unix.EACCES, unix.ERANGE)
	if o.Try {
		l.entered = l.fresh()
		c = mk(unix.SYS_GETPID) // a number other than 0
		c.save = l.entered
		l.add(c)
		l.on(i, unix.EACCES, l.here())
	}
}

// plainLines takes ONLCR out of a terminal's output flags: c_oflag of struct termios, which the child reads into memory, loads without
// the flag and writes back from there.
func (l *lowering) plainLines(terminal uint8) {
	memory := make([]uint64, 8) // begins with four bytes of nothing, so that the flags are aligned as child looks at them
	l.keep = append(l.keep, memory)
	termios := val(uintptr(unsafe.Pointer(&memory[0])) + 4)
	flags := l.reg()
	c := mk(unix.SYS_IOCTL, at(terminal), num(unix.TCGETS), termios)
	c.look, c.mask, c.load, c.save = &memory[1], (1<<32-1)&^unix.ONLCR, true, flags
	l.add(c)
	c = mk(unix.SYS_IOCTL, at(terminal), num(unix.TCSETS), termios)
	c.poke, c.pokeReg = (*int32)(unsafe.Pointer(&memory[1])), flags
	l.add(c)
	l.release(flags)
}

// findProgram looks for the first candidate that may be executed and is no directory. Where the system call filter denies the
// question, execve will answer it.
func (l *lowering) findProgram(o *plan.FindProgram) {
	var ask, isDir []int
	r := l.reg()
	for k, file := range o.Candidates {
		name := l.str(file)
		i := l.add(mk(unix.SYS_FACCESSAT2, val(cwd), val(name), num(unix.X_OK), num(unix.AT_EACCESS)))
		c := mk(unix.SYS_OPENAT, val(cwd), val(name), num(unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC))
		c.save = r
		d := l.add(c)
		ask, isDir = append(ask, i), append(isDir, d)
		closing := mk(unix.SYS_CLOSE, at(r)) // a directory is searchable, not executable
		last := k == len(o.Candidates)-1
		if last {
			closing.check, closing.want, closing.miss = true, 1, uint16(unix.EACCES)
		}
		l.add(closing)
		if !last {
			next := l.here()
			l.on(i, unix.ENOENT, next)
			l.on(i, unix.ENOTDIR, next)
			l.on(i, unix.EACCES, next)
		}
	}
	l.release(r)
	end := l.here()
	for k := range ask {
		l.on(ask[k], unix.EPERM, end)
		l.on(ask[k], unix.ENOSYS, end)
		l.on(isDir[k], unix.ENOTDIR, end)
		l.on(isDir[k], unix.EPERM, end)
		l.on(isDir[k], unix.EACCES, end)
	}
}

// schedAttr is struct sched_attr (sched_setattr(2), Linux 5.3 with the last two).
type schedAttr struct {
	size, policy              uint32
	flags                     uint64
	nice                      int32
	priority                  uint32
	runtime, deadline, period uint64
	_, _                      uint32 // util_min, util_max: the specification has flags for them, and no values
}

func (l *lowering) sched(o *plan.Sched) error {
	policy, ok := map[string]uint32{
		"SCHED_OTHER": 0, "SCHED_FIFO": 1, "SCHED_RR": 2, "SCHED_BATCH": 3, "SCHED_IDLE": 5, "SCHED_DEADLINE": 6,
	}[o.Policy]
	if !ok {
		return fmt.Errorf("unknown scheduling policy %q", o.Policy)
	}
	flags, err := bits("flag", o.Flags, map[string]uint64{
		"SCHED_FLAG_RESET_ON_FORK": 1, "SCHED_FLAG_RECLAIM": 2, "SCHED_FLAG_DL_OVERRUN": 4, "SCHED_FLAG_KEEP_POLICY": 8,
		"SCHED_FLAG_KEEP_PARAMS": 0x10, "SCHED_FLAG_UTIL_CLAMP_MIN": 0x20, "SCHED_FLAG_UTIL_CLAMP_MAX": 0x40,
	})
	if err != nil {
		return err
	}
	l.add(mk(unix.SYS_SCHED_SETATTR, num(0), val(ptr(l, schedAttr{
		size: uint32(unsafe.Sizeof(schedAttr{})), policy: policy, flags: flags, nice: o.Nice, priority: o.Priority,
		runtime: o.Runtime, deadline: o.Deadline, period: o.Period,
	})), num(0)))
	return nil
}

func (l *lowering) memPolicy(o *plan.MemPolicy) error {
	mode, ok := map[string]int{
		"MPOL_DEFAULT": 0, "MPOL_PREFERRED": 1, "MPOL_BIND": 2, "MPOL_INTERLEAVE": 3, "MPOL_LOCAL": 4, "MPOL_PREFERRED_MANY": 5,
		"MPOL_WEIGHTED_INTERLEAVE": 6,
	}[o.Mode]
	if !ok {
		return fmt.Errorf("unknown memory policy %q", o.Mode)
	}
	flags, err := bits("flag", o.Flags, map[string]uint64{
		"MPOL_F_NUMA_BALANCING": 1 << 13, "MPOL_F_RELATIVE_NODES": 1 << 14, "MPOL_F_STATIC_NODES": 1 << 15,
	})
	if err != nil {
		return err
	}
	nodes, err := plan.ParseList(o.Nodes)
	if err != nil {
		return err
	}
	mask, size := uintptr(0), 0
	if len(nodes) > 0 {
		l.keep = append(l.keep, nodes)
		mask, size = uintptr(unsafe.Pointer(&nodes[0])), 64*len(nodes)+1 // the kernel takes one bit less than this
	}
	l.add(mk(unix.SYS_SET_MEMPOLICY, num(mode|int(flags)), val(mask), num(size)))
	return nil
}

func (l *lowering) seccomp(o *plan.Seccomp) error {
	if len(o.Program) == 0 || len(o.Program)%8 != 0 || len(o.Program)/8 > 4096 {
		return fmt.Errorf("a filter of %d bytes is none", len(o.Program))
	}
	filter := append([]byte(nil), o.Program...)
	l.keep = append(l.keep, filter)
	prog := unix.SockFprog{Len: uint16(len(o.Program) / 8), Filter: (*unix.SockFilter)(unsafe.Pointer(&filter[0]))}
	c := mk(unix.SYS_SECCOMP, num(unix.SECCOMP_SET_MODE_FILTER), num(int(o.Flags)), val(ptr(l, prog)))
	if o.Notify != "" {
		c.save = l.reg()
		l.save(o.Notify, c.save)
	}
	l.add(c)
	// From here on every call may be one that the filter refuses: see sendFD.
	l.filtered = true
	return nil
}

func (l *lowering) capset(o *plan.Capset) error {
	e, err := capBits(o.Effective)
	if err != nil {
		return err
	}
	p, err := capBits(o.Permitted)
	if err != nil {
		return err
	}
	i, err := capBits(o.Inheritable)
	if err != nil {
		return err
	}
	header := ptr(l, unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3})
	data := ptr(l, [2]unix.CapUserData{
		{Effective: uint32(e), Permitted: uint32(p), Inheritable: uint32(i)},
		{Effective: uint32(e >> 32), Permitted: uint32(p >> 32), Inheritable: uint32(i >> 32)},
	})
	l.add(mk(unix.SYS_CAPSET, val(header), val(data)))
	return nil
}
