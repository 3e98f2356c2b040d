package dns

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// slots is how many datagrams one system call takes, and another one answers.
const slots = 16

// batch are datagrams that came together. All of its memory is made once: 64 KiB for questions, of which only what is used counts.
type batch struct {
	fd       int
	came     [slots]unix.Mmsghdr
	from     [slots]unix.RawSockaddrAny
	question [slots]unix.Iovec
	space    [slots][largest]byte

	sent  [slots]unix.Mmsghdr
	reply [slots][2]unix.Iovec
	ready int
}

// newBatch takes a socket over. It waits in recvmmsg(2) and not by the runtime's poller, because that asks the kernel thrice where this
// asks once: what a thread of its own costs is its stack.
func newBatch(fd int) (*batch, error) {
	if err := unix.SetNonblock(fd, false); err != nil {
		return nil, err
	}
	b := &batch{fd: fd}
	for i := range slots {
		b.question[i].Base = &b.space[i][0]
		b.question[i].SetLen(largest)
		h := &b.came[i].Hdr
		h.Name, h.Iov = (*byte)(unsafe.Pointer(&b.from[i])), &b.question[i]
		h.SetIovlen(1)
		h = &b.sent[i].Hdr
		h.Iov = &b.reply[i][0]
		h.SetIovlen(2)
	}
	return b, nil
}

// receive waits for datagrams, and says how many there are.
func (b *batch) receive() (int, error) {
	for i := range slots {
		b.came[i].Hdr.Namelen = unix.SizeofSockaddrAny
	}
	for {
		n, _, err := unix.Syscall6(unix.SYS_RECVMMSG, uintptr(b.fd), uintptr(unsafe.Pointer(&b.came)), slots, unix.MSG_WAITFORONE, 0, 0)
		if err == 0 {
			return int(n), nil
		} else if err != unix.EINTR {
			return 0, err
		}
	}
}

// query is one of them. It is good until the next are received.
func (b *batch) query(i int) []byte { return b.space[i][:b.came[i].Len] }

// answer says what is to be sent for one of them: the number of its question, and all of the reply behind that. The reply is read when it
// is sent.
func (b *batch) answer(i int, reply []byte) {
	to := &b.sent[b.ready].Hdr
	to.Name, to.Namelen = b.came[i].Hdr.Name, b.came[i].Hdr.Namelen
	number, rest := &b.reply[b.ready][0], &b.reply[b.ready][1]
	number.Base = &b.space[i][0]
	number.SetLen(2)
	rest.Base = &reply[2]
	rest.SetLen(len(reply) - 2)
	b.ready++
}

// send sends all answers. A full buffer loses one, as the network could, and so does a firewall of the container's own (EPERM).
func (b *batch) send() {
	for i := 0; i < b.ready; {
		n, _, err := unix.Syscall6(unix.SYS_SENDMMSG, uintptr(b.fd), uintptr(unsafe.Pointer(&b.sent[i])), uintptr(b.ready-i),
			unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL, 0, 0)
		switch {
		case err == 0:
			i += int(n)
		case err != unix.EINTR:
			i++
		}
	}
	b.ready = 0
}

// later returns a function that answers one of them when the next have been received.
func (b *batch) later(i int) func(reply []byte) {
	fd, to, size := b.fd, b.from[i], b.came[i].Hdr.Namelen
	return func(reply []byte) {
		unix.Syscall6(unix.SYS_SENDTO, uintptr(fd), uintptr(unsafe.Pointer(&reply[0])), uintptr(len(reply)),
			unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL, uintptr(unsafe.Pointer(&to)), uintptr(size))
	}
}
