package fork

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"glassbox/cgroup"
	"glassbox/host"
	"glassbox/plan"
)

// gone reports whether a write to the child failed because the child is no more. The kernel says ECONNRESET, once, where the child
// left something unread.
func gone(err error) bool { return err == unix.EPIPE || err == unix.ECONNRESET }

// receive reads one message of the child: a descriptor, a notice (descriptor -1), a report (returned as error) or end of file.
func (x *execution) receive() (fd int, eof bool, err error) {
	// More than any message: of a longer one SOCK_SEQPACKET would drop the rest (recv(2)), and its length tells what it is.
	data, control := make([]byte, 64), make([]byte, unix.CmsgSpace(4))
	for {
		n, cn, _, _, err := unix.Recvmsg(x.sock, data, control, unix.MSG_CMSG_CLOEXEC)
		switch {
		case err == unix.EINTR || err == unix.ECONNRESET:
			continue // ECONNRESET comes once, before the report of a child that ended without reading all that was sent to it
		case err != nil:
			return -1, false, err
		case n == 0:
			return -1, true, nil
		case n == int(unsafe.Sizeof(report{})):
			return -1, false, x.reported(data)
		}
		if n == 1 && cn == 0 {
			return -1, false, nil
		}
		messages, err := unix.ParseSocketControlMessage(control[:cn])
		if err != nil {
			return -1, false, err
		}
		if len(messages) != 1 {
			return -1, false, fmt.Errorf("a message of %d bytes without a descriptor", n)
		}
		fds, err := unix.ParseUnixRights(&messages[0])
		if err != nil {
			return -1, false, err
		}
		return fds[0], false, nil
	}
}

// reported is the error that a report of the child tells of.
func (x *execution) reported(data []byte) error {
	step, errno := binary.NativeEndian.Uint32(data), binary.NativeEndian.Uint32(data[4:])
	err := x.stepError(int(step), unix.Errno(errno))
	if x.opts.OnExecFailure != nil {
		x.opts.OnExecFailure(x.pid, err)
	}
	return err
}

func (x *execution) expect(o *plan.Expect) error {
	fd, eof, err := x.receive()
	switch {
	case err != nil:
		return err
	case eof:
		return x.died()
	case fd >= 0:
		unix.Close(fd)
		return fmt.Errorf("the child sent a descriptor instead of the notice %q", o.Name)
	}
	return nil
}

func (x *execution) recvFD(o *plan.RecvFD) error {
	fd, eof, err := x.receive()
	if err != nil {
		return err
	}
	if eof {
		return x.died()
	}
	if fd < 0 {
		return fmt.Errorf("the child sent a notice instead of the descriptor %q", o.Save)
	}
	if x.received == nil {
		x.received = map[string]int{}
	}
	x.received[o.Save] = fd
	return nil
}

// await waits for the child's execve, or for its report.
func (x *execution) await() error {
	fd, eof, err := x.receive()
	if err != nil {
		return err
	}
	if !eof {
		if fd >= 0 {
			unix.Close(fd)
		}
		return errors.New("the child sent what no step receives")
	}
	// End of file is execve or death, and a process that dies closes its files a while before it can be waited for.
	st, executed, err := became(func() (host.Stat, error) { return ReadStat(x.pid) })
	switch {
	case x.opts.Watch != nil && err == unix.ESRCH:
		return nil // it has run and ended, and its watcher has reaped it
	case err != nil:
		return err
	case !executed:
		return x.died()
	}
	x.start = st.Start
	return nil
}

// became reads of a child that has closed its files until it is known whether it has become the program or has died. Two flags tell
// that at any moment: execve clears one, and a process that ends sets the other before it closes its files; the child leaves its loop
// only through execve, a report, or a signal. In between is who is within execve: Linux closes the descriptors before it clears the
// flag (begin_new_exec, seen in 6.1), and this is met where our own copy of the child's socket was closed last.
func became(read func() (host.Stat, error)) (s host.Stat, executed bool, err error) {
	for {
		s, err = read()
		if err != nil || !s.Forked() || s.Exiting() {
			return s, err == nil && !s.Forked(), err
		}
		time.Sleep(50 * time.Microsecond)
	}
}

// ended reports whether the child has ended, before or after execve.
func (x *execution) ended() (bool, error) {
	var info unix.Siginfo
	err := unix.Waitid(unix.P_PID, x.pid, &info, unix.WEXITED|unix.WNOHANG|unix.WNOWAIT, nil)
	return info.Signo != 0, err
}

func (x *execution) died() error {
	pid := x.pid
	ws := x.reap()
	switch {
	case ws.Signaled() && ws.Signal() == unix.SIGSYS:
		return fmt.Errorf("the child (process %d) was killed (SIGSYS) before it could run the program: the system call filter forbids a call "+
			"that the start makes after it is in place", pid)
	case ws.Signaled():
		if why := x.outOfMemory(); ws.Signal() == unix.SIGKILL && why != "" {
			// Without numbers: Kubernetes counts an event that comes again with the same words.
			return fmt.Errorf("the child was OOM-killed before it could run the program: %s", why)
		}
		return fmt.Errorf("the child (process %d) was killed by signal %d before it could run the program", pid, ws.Signal())
	}
	return fmt.Errorf("the child (process %d) ended with status %d before it could run the program", pid, ws.ExitStatus())
}

// outOfMemory returns the cause if the kernel has killed for want of memory in a cgroup of the child, or "".
func (x *execution) outOfMemory() string {
	for _, step := range x.plan.Steps {
		var dir string
		switch o := step.Op.(type) {
		case *plan.CgroupOpen:
			dir = strings.TrimSuffix(o.Path, "/tasks") // v1
		case *plan.CgroupAttach:
			dir = o.Path
		default:
			continue
		}
		for _, controller := range []string{"", "memory"} { // as v2 counts, as v1 does
			if why := cgroup.TooSmall(map[string]string{controller: dir}); why != "" {
				return why
			}
		}
	}
	return ""
}
