// Package signals catches signals for a program that only passes them on, and starts and ends often: os/signal hands each signal
// number over to a thread of its own and back, for Notify and again for Stop, which is one or two milliseconds for all that a
// foreground container forwards. Here it is one system call each: the handler is a few instructions that write the signal's number
// to a pipe.
package signals

import (
	"errors"
	"os"
	"runtime"
	"sync/atomic"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// pipe is where the handler writes. A process has its signal handlers once, and so it has this once.
var pipe atomic.Int32

var (
	handlerPC  uintptr // of handler, in the assembly of this package
	restorerPC uintptr // of restorer; 0 where the kernel brings its own
)

// Catcher has the signals that came.
type Catcher struct {
	fd   int
	sigs []syscall.Signal
}

// Catch takes these signals from now on, whoever took them before, also in later threads (sigaction(2)). Programs that this process
// executes have the default action again. Only one Catcher of a process gets signals at a time, the last one.
func Catch(sigs ...syscall.Signal) (*Catcher, error) {
	var ends [2]int
	if err := unix.Pipe2(ends[:], unix.O_CLOEXEC|unix.O_NONBLOCK); err != nil {
		return nil, os.NewSyscallError("pipe2", err)
	}
	replace(ends[1])
	c := &Catcher{ends[0], sigs}
	for _, s := range sigs {
		if err := set(s, handlerPC); err != nil {
			return nil, errors.Join(err, c.Stop())
		}
	}
	return c, nil
}

func replace(fd int) {
	if old := pipe.Swap(int32(fd)); old > 0 {
		unix.Close(int(old))
	}
}

// FD is a descriptor that becomes readable when a signal comes.
func (c *Catcher) FD() int { return c.fd }

// Next waits for signals and returns them in the order in which they came. After Stop, or another Catch, there are none.
func (c *Catcher) Next() []syscall.Signal {
	for {
		var buf [64]byte
		n, err := unix.Read(c.fd, buf[:])
		switch {
		case n > 0:
			got := make([]syscall.Signal, n)
			for i, b := range buf[:n] {
				got[i] = syscall.Signal(b)
			}
			return got
		case n == 0:
			return nil
		case errors.Is(err, unix.EAGAIN):
			unix.Poll([]unix.PollFd{{Fd: int32(c.fd), Events: unix.POLLIN}}, -1)
		case !errors.Is(err, unix.EINTR):
			return nil
		}
	}
}

// Stop gives the signals their default action back.
func (c *Catcher) Stop() error {
	var errs []error
	for _, s := range c.sigs {
		errs = append(errs, Default(s))
	}
	replace(-1)
	return errors.Join(errs...)
}

// Default gives a signal its default action.
func Default(s syscall.Signal) error { return set(s, 0) }

// sigaction is the kernel's structure (rt_sigaction(2)), the same on amd64 and arm64.
type sigaction struct{ handler, flags, restorer, mask uintptr }

func set(s syscall.Signal, handler uintptr) error {
	const restart, onStack, hasRestorer = 0x10000000, 0x08000000, 0x04000000
	sa := sigaction{handler: handler, flags: restart | onStack, mask: ^uintptr(0)}
	if restorerPC != 0 {
		sa.flags |= hasRestorer
		sa.restorer = restorerPC
	}
	_, _, errno := syscall.RawSyscall6(syscall.SYS_RT_SIGACTION, uintptr(s), uintptr(unsafe.Pointer(&sa)), 0, unsafe.Sizeof(sa.mask), 0, 0)
	runtime.KeepAlive(&sa)
	if errno != 0 {
		return os.NewSyscallError("rt_sigaction", errno)
	}
	return nil
}
