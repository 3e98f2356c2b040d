package fork

import (
	"fmt"
	"unsafe"

	"glassbox/plan"

	"golang.org/x/sys/unix"
)

// SendFD sends data, and a descriptor with its first byte, to whoever listens at a unix socket (unix(7), SCM_RIGHTS). Package net
// would cost every start something.
func SendFD(path string, data []byte, fd int) error {
	sock, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("make a socket: %w", err)
	}
	defer unix.Close(sock)
	if err := unix.Connect(sock, &unix.SockaddrUnix{Name: path}); err != nil {
		return fmt.Errorf("connect to %s: %w", path, err)
	}
	rights := unix.UnixRights(fd)
	for len(data) > 0 {
		n, err := unix.SendmsgN(sock, data, rights, nil, unix.MSG_NOSIGNAL)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return fmt.Errorf("send to %s: %w", path, err)
		}
		// The descriptor goes with the first byte, and once.
		data, rights = data[n:], nil
	}
	return nil
}

// ReceiveFDs reads one message of at most len(data) bytes, of which n came, and the at most four descriptors in it. Both are empty at
// the other end's end.
func ReceiveFDs(sock int, data []byte) (fds []int, n int, err error) {
	control := make([]byte, unix.CmsgSpace(4*4))
	var cn int
	for {
		n, cn, _, _, err = unix.Recvmsg(sock, data, control, unix.MSG_CMSG_CLOEXEC)
		if err != unix.EINTR {
			break
		}
	}
	if err != nil || cn == 0 {
		return nil, n, err
	}
	messages, err := unix.ParseSocketControlMessage(control[:cn])
	if err != nil {
		return nil, n, err
	}
	for i := range messages {
		if got, err := unix.ParseUnixRights(&messages[i]); err == nil {
			fds = append(fds, got...)
		}
	}
	return fds, n, nil
}

func (l *lowering) sendFD(o *plan.SendFD) error {
	fd, err := l.fd(o.From)
	if err != nil {
		return err
	}
	if fd.reg == 0 {
		return fmt.Errorf("send-fd: %q belongs to the parent already", o.From)
	}
	msg, slot := l.message()
	c := mk(unix.SYS_SENDMSG, num(l.sock), val(msg), num(0))
	c.poke, c.pokeReg = slot, fd.reg
	l.add(c)
	// It is closed in any case by close_range or execve. After a filter every call less is one that can't be refused.
	if !l.filtered && !o.Keep {
		l.close(fd)
	}
	return nil
}

// message prepares a message of one byte and one descriptor (struct cmsghdr), which the child fills in.
func (l *lowering) message() (msg uintptr, fd *int32) {
	control := unix.UnixRights(-1)
	iov := unix.Iovec{Base: new(byte)}
	iov.SetLen(1)
	m := &unix.Msghdr{Iov: &iov, Control: &control[0]}
	m.SetIovlen(1)
	m.SetControllen(len(control))
	l.keep = append(l.keep, m, &iov, control)
	return uintptr(unsafe.Pointer(m)), (*int32)(unsafe.Pointer(&control[unix.CmsgLen(0)]))
}
