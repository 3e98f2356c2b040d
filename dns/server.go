package dns

import (
	"encoding/binary"
	"errors"
	"io"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// Server answers one container.
type Server struct {
	UDP, TCP int // sockets in the container's network namespace, bound, TCP listening, non-blocking; -1: none
	// Config is asked for each question, so that a container can be connected to another network while it runs.
	Config func() *Config
	// Open lets the container through the wall of a table to addresses, for a time; Refused is told the names that no wall lets through.
	Open    func(table string, addrs []netip.Addr, doors []Door, life time.Duration) error
	Refused func(name string)
	// Settle, if it is set, gives memory back that only the first questions needed. It is called while questions come, now and then.
	Settle func()

	turn    atomic.Uint32
	slots   chan struct{}
	servers health
}

// Config is what a container may know.
type Config struct {
	Names Names
	// Servers are those of the outside, asked in this order from the namespace of the calling process. None: nothing outside is asked.
	Servers []netip.AddrPort
	// Walls are those of the container's cables that have one. Strict: they all do, and a name that none lets through isn't answered.
	Walls  []Wall
	Strict bool
}

// How much one container can make its supervisor do at once: questions to the outside, connections over TCP. More is refused.
const (
	mostAsked       = 64
	mostConnections = 16
)

// How long is waited: for one server of the outside, for all, and for a client's next question over TCP.
const (
	patience      = 1500 * time.Millisecond
	patienceTotal = 4500 * time.Millisecond // a client that asks again does it after five seconds (resolv.conf(5), timeout)
	idle          = 10 * time.Second
)

// settleEach is how long after a question memory is given back, and how often at most.
const settleEach = 2 * time.Second

// Start serves until the process ends. It takes the sockets over.
func (s *Server) Start() {
	s.slots = make(chan struct{}, mostAsked)
	if s.UDP >= 0 {
		go s.datagrams(s.UDP)
	}
	if s.TCP >= 0 {
		go s.connections(os.NewFile(uintptr(s.TCP), "dns tcp"))
	}
}

// slot takes one of the questions that may be on their way to the outside.
func (s *Server) slot() bool {
	select {
	case s.slots <- struct{}{}:
		return true
	default:
		return false
	}
}

// outside asks the outside and gives the slot back. refusal is the answer without an outside, which becomes the answer where that has none.
func (s *Server) outside(servers []netip.AddrPort, query, refusal []byte, stream bool) []byte {
	defer func() { <-s.slots }()
	reply := s.servers.ask(servers, query, stream)
	switch {
	case reply == nil:
		return withCode(refusal, serverFailure)
	case !stream && len(reply) >= largest: // it was cut where our buffer ends; by TCP the client gets all
		refusal[2] |= truncated
		return withCode(refusal, 0)
	}
	return reply
}

// truncated is the bit TC of a message's byte 2 (RFC 1035, 4.1.1).
const truncated = 2

const serverFailure = 2 // RCODE (RFC 1035, 4.1.1)

// withCode changes a reply's code: the lower four bits of byte 3.
func withCode(reply []byte, code byte) []byte {
	reply[3] = reply[3]&^0xf | code
	return reply
}

// datagrams serves UDP.
func (s *Server) datagrams(fd int) {
	b, err := newBatch(fd)
	if err != nil {
		return
	}
	var k kept
	var settled time.Time
	for {
		n, err := b.receive()
		switch err {
		case nil:
		case unix.EBADF, unix.ENOTSOCK:
			return
		default:
			continue // an ICMP error of a client that has gone
		}
		now := time.Now()
		if s.Settle != nil && now.Sub(settled) > settleEach {
			settled = now
			time.AfterFunc(settleEach, s.Settle)
		}
		c := s.Config()
		k.renew(c, now)
		for i := range n {
			query := b.query(i)
			reply, turn := k.find(query, s.next())
			if reply != nil {
				b.answer(i, reply)
				continue
			}
			reply, ask := s.answer(c, query, turn, false)
			switch {
			case reply == nil:
			case !ask:
				k.keep(query, reply, turn)
				b.answer(i, reply)
			case len(c.Servers) == 0:
				b.answer(i, reply)
			case !s.slot():
				b.answer(i, withCode(reply, serverFailure)) // too many at once: told at once, and the client tries again
			default:
				query := append([]byte(nil), query...) // its memory is for the next question
				send := b.later(i)
				go func() { send(s.through(c, query, reply, false)) }()
			}
		}
		b.send()
	}
}

// next is whose turn it is of several addresses.
func (s *Server) next() uint { return uint(s.turn.Add(1)) }

// connections serves TCP.
func (s *Server) connections(f *os.File) {
	Accept(f, make(chan struct{}, mostConnections), func(fd int) { s.connection(os.NewFile(uintptr(fd), "dns client")) })
}

// Accept takes the connections of a listening socket, which doesn't block, until it is closed, and serves each in a goroutine of its own:
// as many at once as there are slots.
func Accept(f *os.File, slots chan struct{}, serve func(fd int)) {
	raw, err := f.SyscallConn()
	if err != nil {
		return
	}
	for {
		var fd int
		var err error
		// Taken before a connection is accepted: what is too much waits in the kernel's backlog, and costs nothing here.
		slots <- struct{}{}
		if raw.Read(func(listener uintptr) bool {
			fd, _, err = unix.Accept4(int(listener), unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK)
			return err != unix.EAGAIN
		}) != nil {
			return
		}
		if err != nil {
			<-slots
			if err != unix.ECONNABORTED { // EMFILE: until others end
				time.Sleep(50 * time.Millisecond)
			}
			continue
		}
		go func() {
			defer func() { <-slots }()
			serve(fd)
		}()
	}
}

// connection serves one connection, question by question.
func (s *Server) connection(f *os.File) {
	defer f.Close()
	for {
		// Anew for each question: a client may ask many over one connection (RFC 7766, 6.2.1), but not hold a slot for
		// ever.
		f.SetDeadline(time.Now().Add(idle))
		query, err := readFrame(f)
		if err != nil {
			return
		}
		c := s.Config()
		reply, ask := s.answer(c, query, s.next(), true)
		switch {
		case reply == nil:
			return
		case !ask || len(c.Servers) == 0:
		case !s.slot():
			withCode(reply, serverFailure)
		default:
			reply = s.through(c, query, reply, true)
		}
		if writeFrame(f, reply) != nil {
			return
		}
	}
}

// readFrame reads a message over TCP: two bytes of length before it (RFC 1035, 4.2.2).
func readFrame(r io.Reader) ([]byte, error) {
	var head [2]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return nil, err
	}
	body := make([]byte, binary.BigEndian.Uint16(head[:]))
	_, err := io.ReadFull(r, body)
	return body, err
}

func writeFrame(w io.Writer, message []byte) error {
	_, err := w.Write(append(binary.BigEndian.AppendUint16(make([]byte, 0, 2+len(message)), uint16(len(message))), message...))
	return err
}

// health remembers which servers didn't answer, so that not every question waits for them.
type health struct {
	mu   sync.Mutex
	down map[netip.AddrPort]time.Time // until when
}

// away is how long a server that didn't answer is asked last.
const away = 30 * time.Second

// order puts those that answered before those that didn't.
func (h *health) order(servers []netip.AddrPort) []netip.AddrPort {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.down) == 0 {
		return servers
	}
	var up, down []netip.AddrPort
	for _, s := range servers {
		if time.Now().Before(h.down[s]) {
			down = append(down, s)
		} else {
			up = append(up, s)
		}
	}
	return append(up, down...)
}

func (h *health) set(server netip.AddrPort, answered bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	switch {
	case answered:
		delete(h.down, server)
	case h.down == nil:
		h.down = map[netip.AddrPort]time.Time{server: time.Now().Add(away)}
	default:
		h.down[server] = time.Now().Add(away)
	}
}

// ask sends the question as it is to one server after the other, until one answers: nil if none did. What a server says counts, but for
// SERVFAIL and REFUSED, after which the next one is asked; if that doesn't answer, it counts after all.
func (h *health) ask(servers []netip.AddrPort, query []byte, stream bool) []byte {
	end := time.Now().Add(patienceTotal)
	var failure []byte
	for _, server := range h.order(servers) {
		until := time.Now().Add(patience)
		if until.After(end) {
			until = end
		}
		if !time.Now().Before(until) {
			break
		}
		exchange := exchangeDatagram
		if stream {
			exchange = exchangeStream
		}
		reply, err := exchange(server, query, until)
		// It has answered, if with an error: that is a server that is there.
		h.set(server, err == nil)
		if err != nil {
			continue
		}
		if code := reply[3] & 0xf; code != serverFailure && code != 5 { // REFUSED
			return reply
		}
		failure = reply
	}
	return failure
}

// Connect makes a socket that is connected to a server, with a deadline: over UDP the kernel then drops what comes from anybody else, tells
// of a port that nobody listens on, and chooses an unpredictable port of our own.
func Connect(server netip.AddrPort, kind int, until time.Time) (*os.File, error) {
	var sa unix.Sockaddr
	family := unix.AF_INET
	if a := server.Addr().Unmap(); a.Is4() {
		sa = &unix.SockaddrInet4{Port: int(server.Port()), Addr: a.As4()}
	} else {
		family = unix.AF_INET6
		sa = &unix.SockaddrInet6{Port: int(server.Port()), Addr: a.As16()}
	}
	fd, err := unix.Socket(family, kind|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	err = unix.Connect(fd, sa)
	f := os.NewFile(uintptr(fd), "server")
	if err == unix.EINPROGRESS {
		f.SetDeadline(until)
		err = connected(f)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	f.SetDeadline(until)
	return f, nil
}

// connected waits for a connection (connect(2), EINPROGRESS).
func connected(f *os.File) error {
	raw, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	err = raw.Write(func(fd uintptr) bool {
		// Looked at each time: Write has forgotten what the poller knew before, and it tells a change only once.
		if n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}}, 0); n == 0 || err == unix.EINTR {
			return false
		}
		code, err := unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_ERROR)
		if err == nil && code != 0 {
			err = unix.Errno(code)
		}
		failed = err
		return true
	})
	return errors.Join(err, failed)
}

func exchangeDatagram(server netip.AddrPort, query []byte, until time.Time) ([]byte, error) {
	f, err := Connect(server, unix.SOCK_DGRAM, until)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if _, err := f.Write(query); err != nil {
		return nil, err
	}
	buf := make([]byte, largest)
	// Each question has its own socket: what comes here and doesn't answer it is forged or damaged, and the right answer
	// may still come.
	for {
		n, err := f.Read(buf)
		if err != nil {
			return nil, err
		}
		if answers(buf[:n], query) {
			return buf[:n], nil
		}
	}
}

func exchangeStream(server netip.AddrPort, query []byte, until time.Time) ([]byte, error) {
	f, err := Connect(server, unix.SOCK_STREAM, until)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if err := writeFrame(f, query); err != nil {
		return nil, err
	}
	reply, err := readFrame(f)
	if err == nil && !answers(reply, query) {
		err = errors.New("the answer is to another question")
	}
	return reply, err
}

// answers reports whether a message is the answer to a question: the same number, and no question itself. A server that can't read the
// question may leave it out of its answer, so that it isn't compared.
func answers(message, query []byte) bool {
	return len(message) >= 12 && message[0] == query[0] && message[1] == query[1] && message[2]&0x80 != 0
}
