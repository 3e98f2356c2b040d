package supervise

import (
	"fmt"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"glassbox/dns"
	"glassbox/fork"
	"glassbox/plan"
)

// Ports that the kernel can't lead to a container (plan.PortRule.Carried) are carried by its supervisor, byte by byte: the container sees
// the host's address on its network as the other end, as it does for what comes from 127.0.0.1. A supervisor that carries is a Go program
// for as long as the container runs, and no other container pays for it.

// carrier carries what comes to one port.
type carrier struct {
	fd    int // of the host's socket; TCP's listens
	proto string
	to    netip.AddrPort

	file    *os.File   // of fd, once it is carried from
	buffers *sync.Pool // of *carryBuffer
}

// close gives the port back, before anybody is told of the end.
func (c *carrier) close() {
	if c.file != nil {
		c.file.Close() // which waits for who reads from it
	} else {
		unix.Close(c.fd)
	}
}

// How much one container's callers can make its supervisor do at once, and for how long it waits: for the container to take a connection,
// and for another datagram of a client (as long as conntrack waits for a stream of UDP).
const (
	mostCarried    = 512
	carryPatience  = 10 * time.Second
	carryForgotten = 120 * time.Second
)

// carriedRules are the rules of a plan's carried ports, in the order of their sockets.
func carriedRules(rules []plan.PortRule) (out []plan.PortRule) {
	for _, r := range rules {
		if r.Carried() {
			out = append(out, r)
		}
	}
	return out
}

// carriers takes the sockets that a plan has made.
func carriers(fds map[string]int, rules []plan.PortRule) (out []carrier) {
	for i, r := range carriedRules(rules) {
		fd, ok := fds[fork.CarriedPort(i)]
		to, err := netip.ParseAddr(r.ContainerIP)
		if ok && err == nil {
			out = append(out, carrier{fd: fd, proto: r.Proto, to: netip.AddrPortFrom(to, r.ContainerPort)})
		}
	}
	return out
}

// carriersArg and parseCarriers write them as an argument of the resident form, and read it: 9,tcp,172.30.0.2:80;10,…
func carriersArg(all []carrier) string {
	words := make([]string, len(all))
	for i, c := range all {
		words[i] = fmt.Sprintf("%d,%s,%s", c.fd, c.proto, c.to)
	}
	return strings.Join(words, ";")
}

func parseCarriers(text string) (out []carrier, err error) {
	for word := range strings.SplitSeq(text, ";") {
		f := strings.Split(word, ",")
		if len(f) != 3 {
			return nil, fmt.Errorf("carried port %q: want FD,PROTO,ADDRESS", word)
		}
		fd, err := strconv.Atoi(f[0])
		if err != nil || fd < 3 {
			return nil, fmt.Errorf("carried port %q: want a descriptor", word)
		}
		to, err := netip.ParseAddrPort(f[2])
		if err != nil {
			return nil, fmt.Errorf("carried port %q: %w", word, err)
		}
		out = append(out, carrier{fd: fd, proto: f[1], to: to})
	}
	return out, nil
}

// carryPorts begins to carry.
func (s *supervisor) carryPorts() {
	slots, buffers := make(chan struct{}, mostCarried), &sync.Pool{New: func() any { return new(carryBuffer) }}
	for i := range s.carriers {
		c := &s.carriers[i]
		c.buffers, c.file = buffers, os.NewFile(uintptr(c.fd), "published "+c.to.String())
		if c.proto == "udp" {
			go c.datagrams(c.file)
		} else {
			go dns.Accept(c.file, slots, c.connection)
		}
	}
}

// connection carries one connection to its end.
func (c *carrier) connection(fd int) {
	client := os.NewFile(uintptr(fd), "client")
	defer client.Close()
	server, err := connectTo(c.to, unix.SOCK_STREAM)
	if err != nil {
		// The client is told as the container would: by a reset.
		unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
		return
	}
	defer server.Close()
	var both sync.WaitGroup
	both.Add(1)
	go func() {
		defer both.Done()
		c.pour(client, server)
	}()
	c.pour(server, client)
	both.Wait()
}

// connectTo makes a socket that is connected to a container.
func connectTo(to netip.AddrPort, kind int) (*os.File, error) {
	f, err := dns.Connect(to, kind, time.Now().Add(carryPatience))
	if err == nil {
		f.SetDeadline(time.Time{})
	}
	return f, err
}

// carryBuffer is what is carried at once.
type carryBuffer = [64 << 10]byte

// pour copies until the end, and passes the end on. It holds a buffer only while there is something in it: connections that are
// silent cost next to nothing.
func (c *carrier) pour(to, from *os.File) {
	defer shut(to, unix.SHUT_WR)
	raw, err := from.SyscallConn()
	if err != nil {
		return
	}
	for {
		var b *carryBuffer
		var n int
		var failed error
		err := raw.Read(func(fd uintptr) bool {
			b = c.buffers.Get().(*carryBuffer)
			for n, failed = unix.Read(int(fd), b[:]); failed == unix.EINTR; n, failed = unix.Read(int(fd), b[:]) {
			}
			if failed == unix.EAGAIN {
				c.buffers.Put(b)
				b = nil
			}
			return failed != unix.EAGAIN
		})
		ended := err != nil || failed != nil || n <= 0
		if !ended {
			_, err = to.Write(b[:n])
			ended = err != nil
		}
		if b != nil {
			c.buffers.Put(b)
		}
		if ended {
			shut(from, unix.SHUT_RD)
			return
		}
	}
}

func shut(f *os.File, how int) {
	if raw, err := f.SyscallConn(); err == nil {
		raw.Control(func(fd uintptr) { unix.Shutdown(int(fd), how) })
	}
}

// datagrams carries UDP. Each client has a socket of its own to the container, by which the answers are known to be for him.
func (c *carrier) datagrams(f *os.File) {
	raw, err := f.SyscallConn()
	if err != nil {
		return
	}
	var mu sync.Mutex
	clients := map[string]*os.File{}
	defer func() { // the port is given back
		mu.Lock()
		defer mu.Unlock()
		for _, server := range clients {
			server.Close() // which ends who reads from it
		}
	}()
	buf, oob := new(carryBuffer), make([]byte, 128)
	for {
		var n, on int
		var from unix.Sockaddr
		var err error
		if raw.Read(func(fd uintptr) bool {
			n, on, _, from, err = unix.Recvmsg(int(fd), buf[:], oob, 0)
			return err != unix.EAGAIN
		}) != nil {
			return
		}
		if err != nil {
			continue // an ICMP error of a client that has gone
		}
		source := answerFrom(oob[:on])
		key := fmt.Sprint(from) + string(source)
		mu.Lock()
		server := clients[key]
		if server == nil && len(clients) < mostCarried {
			if server, err = connectTo(c.to, unix.SOCK_DGRAM); err == nil {
				clients[key] = server
				go func() {
					c.answers(server, func(b []byte) {
						// A full buffer loses the answer, as the network could.
						raw.Control(func(fd uintptr) { unix.Sendmsg(int(fd), b, source, from, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL) })
					})
					mu.Lock()
					defer mu.Unlock()
					delete(clients, key)
					server.Close()
				}()
			}
		}
		if server != nil { // under the lock: nobody closes it meanwhile
			server.SetReadDeadline(time.Now().Add(carryForgotten))
			server.Write(buf[:n]) // what is lost is lost, as anywhere
		}
		mu.Unlock()
	}
}

// answers sends what the container answers to a client, until that has been silent for long enough.
func (c *carrier) answers(server *os.File, send func([]byte)) {
	raw, err := server.SyscallConn()
	if err != nil {
		return
	}
	for {
		err := raw.Read(func(fd uintptr) bool {
			b := c.buffers.Get().(*carryBuffer)
			defer c.buffers.Put(b)
			n, err := unix.Read(int(fd), b[:])
			if err == nil {
				send(b[:n])
			}
			return err != unix.EAGAIN // ECONNREFUSED: nobody listens in the container, now
		})
		if err != nil {
			return // the time is over
		}
		server.SetReadDeadline(time.Now().Add(carryForgotten))
	}
}

// answerFrom is the control message by which an answer has the address that was asked as its source: what came with the question, without
// the interface, which the routes choose.
func answerFrom(oob []byte) []byte {
	all, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return nil
	}
	for _, m := range all {
		switch {
		case m.Header.Level == unix.IPPROTO_IPV6 && m.Header.Type == unix.IPV6_PKTINFO && len(m.Data) >= 16:
			return unix.PktInfo6(&unix.Inet6Pktinfo{Addr: [16]byte(m.Data[:16])})
		case m.Header.Level == unix.IPPROTO_IP && m.Header.Type == unix.IP_PKTINFO && len(m.Data) >= 8:
			return unix.PktInfo4(&unix.Inet4Pktinfo{Spec_dst: [4]byte(m.Data[4:8])})
		}
	}
	return nil
}
