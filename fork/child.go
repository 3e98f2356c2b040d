package fork

import (
	"syscall"
	"unsafe"
)

// call is one system call of the child, prepared by the parent. All memory that args point to is kept alive by the program.
type call struct {
	nr   uintptr
	args [6]uintptr
	from [6]uint8 // n > 0: the argument is regs[n], not args
	save uint8    // n > 0: the result goes to regs[n]

	poke    *int32 // if set, *poke = regs[pokeReg] before the call (a descriptor inside a control message)
	pokeReg uint8

	want  uintptr // if checked, a successful call must return this (short writes, end of file)
	check bool
	sock  bool // from here on reports go to the descriptor that this call returned

	// If look is set, a successful call must leave there, under the mask, what like is, or with unlike anything else. load makes
	// that the result, for save.
	look       *uint64
	mask, like uint64
	unlike     bool
	load       bool
	miss       uint16 // the errno of a call that returned or left something else

	unless uint8 // n > 0: leave the call out if regs[n] is not 0
	only   uint8 // n > 0: leave the call out if regs[n] is 0

	step int32 // index of the step in the plan
	ok   int32 // next call after success; 0: the one that follows

	// On an error the first branch that names it decides where to go on; without one the step has failed.
	branch [5]branch
}

// branch says where to go on after an error. errno 0 ends the list; anyErrno stands for every error.
type branch struct {
	errno uint16
	next  int32
}

const anyErrno = ^uint16(0)

// registers hold the results that calls save. The index is a uint8, so that no bounds check (a call) is needed.
type registers [256]uintptr

// report is what a failed child tells its parent.
type report struct {
	step  int32
	errno int32
}

// program is everything that the child needs, in memory that fork copies.
type program struct {
	calls  *call
	n      int
	regs   registers
	sock   uintptr // the child's end of the socket to the parent
	other  uintptr // the parent's end
	report report
	ack    [1]byte
	times  unsafe.Pointer // nil, or where the child notes when it began, and when each step did (see stopwatch)
	walk   uintptr        // memory of walk, 0: not mapped yet
	keep   []any          // what the calls point to
}

const (
	sizeofCall = unsafe.Sizeof(call{})
	sigDefault = 0
)

// sigaction is the kernel's struct sigaction (rt_sigaction(2)), large enough for every architecture.
type sigaction struct{ handler, flags, restorer, mask uintptr }

// child runs in the cloned process and never returns.
//
// What it may do is what may be done between fork and execve in a program with threads, of which only the calling one
// exists here: no allocation, no lock, no growth of the stack, no write barrier, no function but raw system calls and the one
// instruction of ticks. A test reads the compiler's output and fails when that is not so.
//
//go:nosplit
//go:norace
//go:nocheckptr
//go:noinline
func child(p *program) {
	if p.times != nil {
		*(*uint64)(p.times) = ticks()
	}
	// Handlers were reset by CLONE_CLEAR_SIGHAND, but ignored signals stay ignored over clone and execve: a container
	// started under nohup would ignore SIGHUP.
	var sa sigaction
	for sig := uintptr(1); sig <= 64; sig++ {
		syscall.RawSyscall6(syscall.SYS_RT_SIGACTION, sig, uintptr(unsafe.Pointer(&sa)), 0, 8, 0, 0)
	}
	var none uint64
	syscall.RawSyscall6(syscall.SYS_RT_SIGPROCMASK, sigSetmask, uintptr(unsafe.Pointer(&none)), 0, 8, 0, 0)

	// As long as the child itself has the parent's end open, too, it would never see that the parent is gone.
	syscall.RawSyscall6(syscall.SYS_CLOSE, p.other, 0, 0, 0, 0, 0)

	i, step := 0, int32(-1)
	for i < p.n {
		c := (*call)(unsafe.Add(unsafe.Pointer(p.calls), uintptr(i)*sizeofCall))
		if p.times != nil && c.step != step {
			step = c.step
			*(*uint64)(unsafe.Add(p.times, 8+8*uintptr(step))) = ticks()
		}
		a0, a1, a2, a3, a4, a5 := c.args[0], c.args[1], c.args[2], c.args[3], c.args[4], c.args[5]
		if c.from[0] != 0 {
			a0 = p.regs[c.from[0]]
		}
		if c.from[1] != 0 {
			a1 = p.regs[c.from[1]]
		}
		if c.from[2] != 0 {
			a2 = p.regs[c.from[2]]
		}
		if c.from[3] != 0 {
			a3 = p.regs[c.from[3]]
		}
		if c.from[4] != 0 {
			a4 = p.regs[c.from[4]]
		}
		// Whether a call is left out is known to the child alone: which directory was the first to be there, say.
		if c.unless != 0 && p.regs[c.unless] != 0 || c.only != 0 && p.regs[c.only] == 0 {
			i++
			continue
		}
		if c.poke != nil {
			*c.poke = int32(p.regs[c.pokeReg])
		}
		var r uintptr
		var errno syscall.Errno
		if c.nr == walkNumber {
			var e uintptr
			r, e = walk(p, c)
			errno = syscall.Errno(e)
		} else {
			r, _, errno = syscall.RawSyscall6(c.nr, a0, a1, a2, a3, a4, a5)
		}
		// A call that was interrupted did nothing. No handler is installed here, but a stop and SIGCONT interrupt some calls, too (signal(7)).
		if errno == syscall.EINTR {
			continue
		}
		if errno == 0 {
			if c.look != nil && c.load {
				r = uintptr(*c.look & c.mask)
			} else if c.check && r != c.want || c.look != nil && (*c.look&c.mask == c.like) == c.unlike {
				errno = syscall.Errno(c.miss)
			}
		}
		if errno == 0 {
			if c.save != 0 {
				p.regs[c.save] = r
			}
			if c.sock {
				p.sock = r
			}
			i++
			if c.ok != 0 {
				i = int(c.ok)
			}
			continue
		}
		next := int32(-1)
		if c.branch[0].errno == uint16(errno) || c.branch[0].errno == anyErrno {
			next = c.branch[0].next
		} else if c.branch[1].errno == uint16(errno) {
			next = c.branch[1].next
		} else if c.branch[2].errno == uint16(errno) {
			next = c.branch[2].next
		} else if c.branch[3].errno == uint16(errno) {
			next = c.branch[3].next
		} else if c.branch[4].errno == uint16(errno) {
			next = c.branch[4].next
		}
		if next >= 0 {
			i = int(next)
			continue
		}
		// Eight bytes, which no other message of the child has: a notice is one byte, and so is what comes with a descriptor.
		p.report.step, p.report.errno = c.step, int32(errno)
		syscall.RawSyscall6(syscall.SYS_WRITE, p.sock, uintptr(unsafe.Pointer(&p.report)), unsafe.Sizeof(p.report), 0, 0, 0)
		// The parent may want to look at this process (its root, say) before it is gone.
		syscall.RawSyscall6(syscall.SYS_READ, p.sock, uintptr(unsafe.Pointer(&p.ack)), 1, 0, 0, 0)
		break
	}
	for {
		syscall.RawSyscall6(syscall.SYS_EXIT_GROUP, 125, 0, 0, 0, 0, 0)
	}
}

// clone makes the child with clone3(2), and runs it. In the parent it returns the child's pid.
//
// All signals are blocked around the clone, so that none reaches the child while it still has the parent's handlers and
// none is lost in the parent.
//
//go:nosplit
//go:norace
//go:nocheckptr
//go:noinline
func clone(args *cloneArgs, p *program) (pid uintptr, errno syscall.Errno) {
	all, old := ^uint64(0), uint64(0)
	syscall.RawSyscall6(syscall.SYS_RT_SIGPROCMASK, sigSetmask, uintptr(unsafe.Pointer(&all)), uintptr(unsafe.Pointer(&old)), 8, 0, 0)
	pid, _, errno = syscall.RawSyscall6(sysClone3, uintptr(unsafe.Pointer(args)), unsafe.Sizeof(*args), 0, 0, 0, 0)
	if errno == 0 && pid == 0 {
		child(p)
	}
	syscall.RawSyscall6(syscall.SYS_RT_SIGPROCMASK, sigSetmask, uintptr(unsafe.Pointer(&old)), 0, 8, 0, 0)
	return pid, errno
}

// cloneArgs is struct clone_args (clone3(2), size 88, Linux 5.7).
type cloneArgs struct {
	flags, pidfd, childTID, parentTID, exitSignal, stack, stackSize, tls, setTID, setTIDSize, cgroup uint64
}

const (
	sysClone3  = 435 // the same on every architecture
	sigSetmask = 2
)
