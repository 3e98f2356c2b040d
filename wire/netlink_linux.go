package wire

import (
	"encoding/binary"
	"errors"
	"fmt"
	"iter"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// A small netlink client, netlink(7). A request is a buffer of messages:
//
//	┌ nlmsghdr ───────────────┬ fixed struct ─┬ attribute ────────┬ attribute …
//	│ len type flags seq pid  │ ifinfomsg …   │ len type data pad │
//	└─────────────────────────┴───────────────┴───────────────────┴
//
// and the kernel has answered by the time sendto(2) returns, so a receive never has to wait: a missing answer is an error and
// not a hang. All numbers are in the machine's byte order except where nftables wants big endian.

// An Error is a request refused by the kernel.
type Error struct {
	Errno   syscall.Errno
	Message string // the kernel's explanation (NETLINK_EXT_ACK), often empty
}

func (e *Error) Error() string {
	if e.Message == "" {
		return e.Errno.Error()
	}
	return e.Errno.Error() + " (" + e.Message + ")"
}

// Unwrap gives the errno to errors.Is.
func (e *Error) Unwrap() error { return e.Errno }

var errMalformed = errors.New("malformed netlink message")

// A Conn is a netlink socket. It stays in the network namespace in which it was opened. One goroutine uses it at a time.
type Conn struct {
	fd   int
	seq  uint32
	buf  []byte
	slow bool // its close may wait: see Close
}

// recvSize is what one receive takes: the kernel puts no more than 32 KiB into one answer of a dump, and only as much as the
// last receive had room for.
const recvSize = 16 << 10

// Dial opens a netlink socket of a protocol (NETLINK_ROUTE, NETLINK_NETFILTER) in this thread's network namespace.
func Dial(protocol int) (*Conn, error) {
	// Not bound: the kernel gives it a port number with its first message, which is different for each of a process's sockets.
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, protocol)
	if err != nil {
		return nil, fmt.Errorf("netlink socket: %w", err)
	}
	for _, opt := range []int{unix.NETLINK_EXT_ACK, unix.NETLINK_CAP_ACK, unix.NETLINK_GET_STRICT_CHK} {
		// Each is an improvement only: explanations, short answers, filters of dumps (which are applied here, too).
		_ = unix.SetsockoptInt(fd, unix.SOL_NETLINK, opt, 1)
	}
	return &Conn{fd: fd, slow: protocol == unix.NETLINK_NETFILTER}, nil
}

// Close closes the socket. The close of one of netfilter's waits for what anybody has just deleted from nf_tables in this network namespace
// to be freed, for an RCU grace period, which is ten milliseconds and more, and shuts out all transactions meanwhile (nft_rcv_nl_event in
// net/netfilter/nf_tables_api.c). Such a socket is closed when that has passed, or with the process.
func (c *Conn) Close() {
	if c == nil || c.fd < 0 {
		return
	}
	fd := c.fd
	c.fd = -1
	if c.slow {
		time.AfterFunc(10*time.Millisecond, func() { unix.Close(fd) })
		return
	}
	unix.Close(fd)
}

// A request is a buffer of messages under construction.
type request struct {
	b     []byte
	start int    // of the message under construction
	n     uint32 // messages

	family byte // of tables that messages of nf_tables are about: NFPROTO_*, or 0 for IPv4
}

// message starts a message. Its sequence number is its index until it is sent.
func (r *request) message(typ, flags uint16, fixed ...byte) {
	r.finish()
	// Length and sequence number are written when they are known; the port number, the last field, is the kernel's to fill
	// in.
	r.start = len(r.b)
	r.n++
	r.b = append(r.b, 0, 0, 0, 0)
	r.b = binary.NativeEndian.AppendUint16(r.b, typ)
	r.b = binary.NativeEndian.AppendUint16(r.b, flags|unix.NLM_F_REQUEST)
	r.b = binary.NativeEndian.AppendUint32(r.b, r.n)
	r.b = append(r.b, 0, 0, 0, 0)
	r.b = append(r.b, fixed...)
	r.pad()
}

func (r *request) pad() {
	// NLMSG_ALIGNTO and NLA_ALIGNTO; the lengths in the headers are without the filling.
	for len(r.b)%4 != 0 {
		r.b = append(r.b, 0)
	}
}

// finish closes the message under construction.
func (r *request) finish() {
	if r.n > 0 {
		binary.NativeEndian.PutUint32(r.b[r.start:], uint32(len(r.b)-r.start))
	}
}

func (r *request) attr(typ uint16, data ...byte) {
	r.b = binary.NativeEndian.AppendUint16(r.b, uint16(4+len(data)))
	r.b = binary.NativeEndian.AppendUint16(r.b, typ)
	r.b = append(r.b, data...)
	r.pad()
}

func (r *request) str(typ uint16, s string) { r.attr(typ, append([]byte(s), 0)...) }

func (r *request) u32(typ uint16, v uint32) {
	r.attr(typ, binary.NativeEndian.AppendUint32(nil, v)...)
}

func (r *request) be32(typ uint16, v uint32) {
	r.attr(typ, binary.BigEndian.AppendUint32(nil, v)...)
}

func (r *request) be64(typ uint16, v uint64) {
	r.attr(typ, binary.BigEndian.AppendUint64(nil, v)...)
}

// nest adds an attribute that holds attributes. Flag is unix.NLA_F_NESTED or 0.
func (r *request) nest(typ uint16, body func()) {
	at := len(r.b)
	r.attr(typ)
	body()
	binary.NativeEndian.PutUint16(r.b[at:], uint16(len(r.b)-at))
}

// send sends the request and gives each answer to each, which may be nil. It returns when the last message of the request
// with NLM_F_ACK or NLM_F_DUMP has been answered; final is the index of that message, counted from 1. The first error that the
// kernel reports for any message of the request is returned with the index of that message, but the rest is still read.
func (c *Conn) send(r *request, final uint32, each func(typ uint16, body []byte) error) (failed uint32, err error) {
	r.finish()
	base := c.seq
	c.seq += r.n
	// Numbers go on from those of the requests before, so that a late answer to one of them can be told from ours. A request that is
	// sent twice gets new ones.
	for at, i := 0, uint32(1); at < len(r.b); i++ {
		binary.NativeEndian.PutUint32(r.b[at+8:], base+i)
		at += int(binary.NativeEndian.Uint32(r.b[at:]))
	}
	// One call for all messages: the kernel handles them one after the other before it returns, and goes on after one that failed.
	if err := unix.Sendto(c.fd, r.b, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return 0, fmt.Errorf("netlink send: %w", err)
	}
	if c.buf == nil {
		c.buf = make([]byte, recvSize)
	}
	note := func(i uint32, e error) {
		if err == nil {
			failed, err = i, e
		}
	}
	for {
		// With MSG_TRUNC the length is that of the whole answer, of which a part would be lost without a word otherwise (recvmsg(2)).
		n, _, flags, _, rerr := unix.Recvmsg(c.fd, c.buf, nil, unix.MSG_DONTWAIT|unix.MSG_TRUNC)
		if rerr == unix.EINTR {
			continue
		}
		if rerr == unix.EAGAIN && err != nil {
			return failed, err // an nft transaction refused as a whole: no answer follows
		}
		if rerr != nil {
			return 0, fmt.Errorf("netlink receive: %w", rerr)
		}
		if n > len(c.buf) || flags&unix.MSG_TRUNC != 0 {
			return 0, fmt.Errorf("netlink receive: an answer of %d bytes doesn't fit", n)
		}
		done := false
		perr := parse(c.buf[:n], func(m message) error {
			i := m.seq - base
			// Unsigned: a number of an earlier request becomes a very large one.
			if i == 0 || i > r.n {
				return nil // of an earlier request that was given up
			}
			switch m.typ {
			case unix.NLMSG_ERROR, unix.NLMSG_DONE:
				if e := m.err(); e != nil {
					note(i, e)
				}
				// Not the first error: answers to the later messages would be left in the socket for the next request.
				done = done || i == final
			default:
				// Links that came or went meanwhile may be missing or told twice.
				if m.flags&unix.NLM_F_DUMP_INTR != 0 {
					note(i, &Error{Errno: unix.EINTR, Message: "the table changed while it was read"})
				}
				if each != nil {
					if e := each(m.typ, m.body); e != nil {
						note(i, e)
					}
				}
			}
			return nil
		})
		if perr != nil {
			return 0, perr
		}
		if done {
			return failed, err
		}
	}
}

// do sends a request whose last message has NLM_F_ACK or NLM_F_DUMP.
func (c *Conn) do(r *request, each func(typ uint16, body []byte) error) error {
	_, err := c.send(r, r.n, each)
	return err
}

// dump repeats a dump that was interrupted by a change. start is called before each attempt.
func (c *Conn) dump(r *request, start func(), each func(typ uint16, body []byte) error) error {
	// A host whose links change all the time must end in an error and not in a loop.
	for range 5 {
		start()
		err := c.do(r, each)
		if err == nil || !errors.Is(err, unix.EINTR) {
			return err
		}
	}
	return fmt.Errorf("netlink dump: interrupted five times: %w", unix.EINTR)
}

// message is a received message.
type message struct {
	typ, flags uint16
	seq        uint32
	body       []byte
}

const headerLen = unix.SizeofNlMsghdr

// parse walks over the messages of a buffer. Whatever the buffer holds, it doesn't panic.
func parse(b []byte, each func(message) error) error {
	for len(b) >= headerLen {
		n := int(binary.NativeEndian.Uint32(b))
		if n < headerLen || n > len(b) {
			return errMalformed
		}
		m := message{
			typ:   binary.NativeEndian.Uint16(b[4:]),
			flags: binary.NativeEndian.Uint16(b[6:]),
			seq:   binary.NativeEndian.Uint32(b[8:]),
			body:  b[headerLen:n],
		}
		if err := each(m); err != nil {
			return err
		}
		b = b[min(align(n), len(b)):]
	}
	if len(b) != 0 {
		return errMalformed
	}
	return nil
}

func align(n int) int { return (n + 3) &^ 3 }

// err reads the error number of NLMSG_ERROR and NLMSG_DONE and the explanation behind it.
func (m message) err() error {
	if len(m.body) < 4 {
		if m.typ == unix.NLMSG_DONE {
			return nil
		}
		return errMalformed
	}
	errno := -int32(binary.NativeEndian.Uint32(m.body))
	if errno <= 0 {
		// NLMSG_ERROR with 0 is the acknowledgement.
		return nil
	}
	e := &Error{Errno: syscall.Errno(errno)}
	if m.flags&unix.NLM_F_ACK_TLVS == 0 {
		return e
	}
	at := 4
	if m.typ == unix.NLMSG_ERROR {
		at += headerLen
		if m.flags&unix.NLM_F_CAPPED == 0 && len(m.body) >= at { // the refused message follows in full
			at = 4 + align(int(binary.NativeEndian.Uint32(m.body[4:])))
		}
	}
	if at >= 4 && at <= len(m.body) {
		for typ, data := range attrs(m.body[at:]) {
			if typ == unix.NLMSGERR_ATTR_MSG {
				e.Message = cstring(data)
			}
		}
	}
	return e
}

// attrs walks over attributes and ends at the first malformed one.
func attrs(b []byte) iter.Seq2[uint16, []byte] {
	return func(yield func(uint16, []byte) bool) {
		for len(b) >= 4 {
			n := int(binary.NativeEndian.Uint16(b))
			if n < 4 || n > len(b) {
				return
			}
			// Both flags are bits of the type field (netlink(7)).
			if !yield(binary.NativeEndian.Uint16(b[2:])&^(unix.NLA_F_NESTED|unix.NLA_F_NET_BYTEORDER), b[4:n]) {
				return
			}
			b = b[min(align(n), len(b)):]
		}
	}
}

func cstring(b []byte) string {
	for i, c := range b {
		if c == 0 {
			return string(b[:i])
		}
	}
	return string(b)
}

func nativeU32(b []byte) uint32 {
	if len(b) < 4 {
		return 0
	}
	return binary.NativeEndian.Uint32(b)
}
