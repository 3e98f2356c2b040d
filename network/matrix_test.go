package network

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"glassbox/plan"
	"glassbox/wire"
)

// matrix is a host with an interface to the outside and one to a neighbour, and containers on several networks, all of them with IPv4 and
// IPv6 and servers of every protocol.
type matrix struct {
	t      testing.TB
	spaces map[string]*namespace
	addrs  map[string][2]netip.Addr // of each, IPv4 and IPv6; names of several addresses of the host, too
	steps  map[string][]plan.Step
	view   *View
	seen   map[netip.Addr]string
	bare   string // why there are no walls, and so no rows of who has one
}

func dual(name, link string, third byte) Network {
	n := Network{Name: name, Driver: Bridge, Link: link, MTU: 1500, Opened: []string{"oth0", "out0"}, Opened6: []string{"oth0", "out0"}}
	n.Forward6 = []string{"all/forwarding=1"}
	v4 := netip.PrefixFrom(netip.AddrFrom4([4]byte{172, third, 0, 0}), 16)
	v6 := netip.MustParsePrefix(fmt.Sprintf("fd%d::/64", third))
	n.Subnets = []Subnet{{Prefix: v4, Gateway: v4.Addr().Next()}, {Prefix: v6, Gateway: v6.Addr().Next()}}
	return n
}

// onTop is a network of macvlans whose router is the machine out there.
func onTop(name, parent, mode, v4, v6 string) Network {
	n := Network{Name: name, Driver: Macvlan, Parent: parent, Mode: mode, Internal: parent == ""}
	if n.Internal {
		n.Link = "gbr-" + name
	}
	for _, text := range []string{v4, v6} {
		p := netip.MustParsePrefix(text)
		n.Subnets = append(n.Subnets, Subnet{Prefix: p, Gateway: p.Addr().Next().Next()})
	}
	return n
}

// emptyMatrix is a host that nobody is at yet.
func emptyMatrix(t testing.TB) *matrix {
	m := &matrix{
		t: t, spaces: map[string]*namespace{"host": newNetns(t)}, addrs: map[string][2]netip.Addr{}, steps: map[string][]plan.Step{},
		seen: map[netip.Addr]string{},
	}
	host := m.spaces["host"]
	host.Sh("ip link set lo up; echo 0 > /proc/sys/net/ipv6/conf/default/accept_dad")
	m.bare = noWalls(host)
	return m
}

func newMatrix(t testing.TB) *matrix {
	m := emptyMatrix(t)
	host := m.spaces["host"]
	m.far("outside", "out0", "192.0.2", "2001:db8:1")
	m.far("neighbour", "oth0", "198.51.100", "2001:db8:2")
	host.Sh("ip route add default via 192.0.2.2; ip -6 route add default via 2001:db8:1::2")
	m.addrs["loopback"] = pair("127.0.0.1", "::1")
	front, back, guests, inner, routed := dual("front", "gbr-front", 30), dual("back", "gbr-back", 29), dual("guests", "gbr-guests", 28),
		dual("inner", "gbr-inner", 27), dual("routed", "gbr-routed", 26)
	cable, alone, apart := onTop("cable", "out0", "bridge", "192.0.2.0/24", "2001:db8:1::/64"),
		onTop("alone", "", "bridge", "172.25.0.0/16", "fd25::/64"), onTop("apart", "oth0", "private", "198.51.100.0/24", "2001:db8:2::/64")
	guests.Isolated, inner.Internal, routed.Routed, routed.Routed6 = true, true, true, true
	inner.Opened, inner.Opened6, inner.Forward6 = nil, nil, nil
	for i, c := range []struct {
		name  string
		n     Network
		at    byte
		ports string

		egress, ingress string
	}{
		{
			"c1", front, 2,
			"8080:80 5353:53/udp 127.0.0.1:7000:80 192.0.2.1:7001:80 [2001:db8:1::1]:7002:80 [::]:7003:80 9000-9003:9000-9003", "", "",
		},
		{"c2", front, 3, "8082:80", "", ""},
		{"c3", back, 2, "8083:80 5383:53/udp", "", ""},
		{"c4", guests, 2, "", "", ""},
		{"c5", guests, 3, "8085:80", "", ""},
		{"c6", inner, 2, "", "", ""},
		{"c7", inner, 3, "", "", ""},
		{"c8", routed, 2, "8088:80", "", ""},
		{"c9", front, 9, "8089:80", "192.0.2.2:80,[2001:db8:1::2]:80", ""},
		{"c10", front, 10, "", "", "172.30.0.2:80,[fd30::2]:80"},
		{"c11", cable, 11, "", "", ""},
		{"c12", cable, 12, "", "", ""},
		{"c13", alone, 13, "", "", ""},
		{"c14", alone, 14, "", "", ""},
		{"c15", apart, 15, "", "", ""},
		{"c16", apart, 16, "", "", ""},
	} {
		e := Endpoint{
			Link: VethName(strings.Repeat(string(rune('a'+i)), 12), 0), Ports: parsePorts(t, strings.Fields(c.ports)...),
		}
		if m.bare == "" && (c.egress != "" || c.ingress != "") {
			e.wall = wallOf(t, c.egress, c.ingress)
		}
		m.join(c.name, c.n, c.at, e)
	}
	m.serve()
	return m
}

func pair(v4, v6 string) [2]netip.Addr {
	return [2]netip.Addr{netip.MustParseAddr(v4), netip.MustParseAddr(v6)}
}

// far makes somebody elsewhere, at the other end of one of the host's cables.
func (m *matrix) far(name, dev, v4, v6 string) {
	host, ns := m.spaces["host"], newNetns(m.t)
	m.spaces[name] = ns
	host.Sh("ip link add %s type veth peer name %[1]s-in", dev)
	if err := host.run(ns, []plan.Step{{Op: &plan.LinkMove{Name: dev + "-in", As: "eth0"}}}); err != nil {
		m.t.Fatal(err)
	}
	host.Sh("ip addr add %s.1/24 dev %s; ip -6 addr add %s::1/64 dev %[2]s nodad; ip link set %[2]s up", v4, dev, v6)
	ns.Sh("ip addr add %s.2/24 dev eth0; ip -6 addr add %s::2/64 dev eth0 nodad; ip link set eth0 up; ip link set lo up", v4, v6)
	// Whatever somebody out there knows of the host: he sends everything to it.
	ns.Sh("ip route add default via %s.1; ip -6 route add default via %s::1", v4, v6)
	m.addrs[name], m.addrs["host-"+dev] = pair(v4+".2", v6+"::2"), pair(v4+".1", v6+"::1")
}

// join makes a container with the at-th addresses of a network.
func (m *matrix) join(name string, n Network, at byte, e Endpoint) {
	ns := newNetns(m.t)
	m.spaces[name] = ns
	e.Network, e.Interface, e.Default = n.Name, "eth0", !n.Internal
	a4, a6 := n.IPv4().Prefix.Addr().As4(), n.IPv6().Prefix.Addr().As16()
	a4[3], a6[15] = at, at
	e.IP, e.IP6 = netip.AddrFrom4(a4), netip.AddrFrom16(a6)
	e.MAC = wire.MAC(e.IP)
	w := &writer{origin: testOrigin}
	if err := w.connect(n, e); err != nil {
		m.t.Fatal(err)
	}
	if err := m.spaces["host"].run(ns, w.steps); err != nil {
		m.t.Fatal(err)
	}
	m.steps[name] = w.steps
	m.addrs[name] = [2]netip.Addr{e.IP, e.IP6}
	m.addrs[name+"-gateway"] = [2]netip.Addr{n.IPv4().Gateway, n.IPv6().Gateway}
}

// serve has everybody answer.
func (m *matrix) serve() {
	for name, a := range m.addrs {
		if !strings.HasSuffix(name, "-gateway") {
			m.seen[a[0]], m.seen[a[1]] = name, name
		}
	}
	for name, ns := range m.spaces {
		for _, port := range []string{"80", "9002", "22"} {
			ns.serveBoth("tcp", ":"+port, name)
		}
		ns.serveBoth("udp", ":53", name)
	}
}

// serveBoth is serve, of both versions of IP.
func (ns *namespace) serveBoth(proto, addr, name string) {
	ns.T.Helper()
	ns.Do(func() {
		if proto == "udp" {
			c, err := net.ListenPacket("udp", addr)
			if err != nil {
				panic(err)
			}
			ns.T.Cleanup(func() { c.Close() })
			// A socket of all addresses answers with the one of the route: who asked elsewhere doesn't know the answer.
			u := c.(*net.UDPConn)
			raw, _ := u.SyscallConn()
			raw.Control(func(fd uintptr) {
				unix.SetsockoptInt(int(fd), unix.IPPROTO_IPV6, unix.IPV6_RECVPKTINFO, 1)
			})
			go func() {
				buf, oob := make([]byte, 100), make([]byte, 200)
				for {
					_, on, _, from, err := u.ReadMsgUDP(buf, oob)
					if err != nil {
						return
					}
					u.WriteMsgUDP(fmt.Appendf(nil, "%s sees %s", name, from.IP), packetInfo(oob[:on]), from)
				}
			}()
			return
		}
		ns.accept("tcp", addr, name)
	})
}

// packetInfo is the control message by which an answer has the address as its source that was asked; interfaces are left out.
func packetInfo(oob []byte) []byte {
	all, err := unix.ParseSocketControlMessage(oob)
	if err != nil || len(all) == 0 || len(all[0].Data) < 20 {
		return nil
	}
	return unix.PktInfo6(&unix.Inet6Pktinfo{Addr: [16]byte(all[0].Data[:16])})
}

// happens sends the packet, and says what has become of it.
func (ns *namespace) happens(proto string, to netip.AddrPort, want string) (answer string) {
	ns.T.Helper()
	wait := 10 * time.Second
	if want == "lost" {
		wait = 700 * time.Millisecond
	}
	ns.Do(func() {
		var err error
		begin := time.Now()
		switch proto {
		case "icmp":
			answer, err = ping(to.Addr(), wait)
		default:
			var c net.Conn
			if c, err = net.DialTimeout(proto, to.String(), wait); err != nil {
				break
			}
			defer c.Close()
			c.SetDeadline(time.Now().Add(wait))
			if proto == "udp" {
				io.WriteString(c, "?")
			}
			buf := make([]byte, 100)
			var n int
			n, err = c.Read(buf)
			answer = string(buf[:n])
		}
		var timeout net.Error
		switch {
		case err == nil:
		case errors.As(err, &timeout) && timeout.Timeout(), errors.Is(err, unix.EHOSTUNREACH) && time.Since(begin) > 2*time.Second:
			answer = "lost" // or nobody has said that he has the address
		case errors.Is(err, unix.EHOSTUNREACH):
			answer = "refused"
		case errors.Is(err, unix.ECONNREFUSED), errors.Is(err, unix.ENETUNREACH), errors.Is(err, unix.EACCES):
			answer = "refused"
		default:
			answer = err.Error()
		}
	})
	return answer
}

// ping sends an echo request.
func ping(to netip.Addr, wait time.Duration) (string, error) {
	network, kind, reply := "ip4:icmp", byte(8), byte(0)
	if to.Is6() {
		network, kind, reply = "ip6:ipv6-icmp", 128, 129
	}
	c, err := net.Dial(network, to.String())
	if err != nil {
		return "", err
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(wait))
	b := icmp4(kind, "glassbox")
	binary.BigEndian.PutUint16(b[4:], uint16(time.Now().UnixNano())) // the kernel sums those of IPv6
	if to.Is4() {
		b[2], b[3] = 0, 0
		binary.BigEndian.PutUint16(b[2:], ones(b, 0))
	}
	if _, err := c.Write(b); err != nil {
		return "", err
	}
	buf := make([]byte, 100)
	for {
		n, _, err := c.(*net.IPConn).ReadFrom(buf) // without the header of IPv4
		if err != nil {
			return "", err
		}
		if n >= 8 && buf[0] == reply && bytes.Equal(buf[4:6], b[4:6]) {
			return "answered", nil
		}
	}
}

// look gathers what network explain knows.
func (m *matrix) look(s Store) {
	m.spaces["host"].Do(func() {
		v, err := s.Look()
		if err != nil {
			panic(err)
		}
		for name, ns := range m.spaces {
			if name[0] == 'c' {
				if _, err := v.Add(name, ns.FD, m.steps[name]); err != nil {
					panic(err)
				}
			}
		}
		m.view = v
	})
	m.t.Cleanup(m.view.Close)
}

func (m *matrix) place(name string) Place {
	if name == "host" {
		return Place{Space: m.view.Host, Name: name}
	}
	for _, s := range m.view.Containers {
		if s.Name == name {
			return Place{Space: s, Name: name}
		}
	}
	return Place{Name: name}
}

// explained is what network explain says, in the words of happens.
func (m *matrix) explained(from, proto string, to netip.AddrPort) (string, *Path) {
	q := Question{From: m.place(from), To: Place{Addr: to.Addr(), Name: to.String()}, Proto: proto, Port: to.Port()}
	if q.From.Space == nil {
		q.From.Addr = m.addrs[from][0]
		if to.Addr().Is6() {
			q.From.Addr = m.addrs[from][1]
		}
	}
	p, err := m.view.Explain(q)
	if err != nil {
		return err.Error(), &Path{}
	}
	switch {
	case p.Verdict == Lost:
		return "lost", p
	case p.Verdict == Refused || p.Listening != nil && !*p.Listening:
		return "refused", p
	case proto == "icmp":
		return "answered", p
	}
	at := p.At
	if a, err := netip.ParseAddr(at); err == nil {
		at = m.seen[a]
	}
	return at + " sees " + p.Seen, p
}

// A row is: who, what, whom, what happens. "tcp" and its like stand for both versions of IP; whom is a name, with a port where that isn't
// 80 (tcp) or 53 (udp). What happens: who answers and whose address he sees, or refused, or lost.
const matrixRows = `
c1 tcp,udp,icmp c2                       c2 c1
c2 tcp,udp,icmp c1                       c1 c2
c1 tcp,udp,icmp c1                       c1 c1
c1 tcp,udp,icmp c1-gateway               host c1
c1 tcp,udp,icmp host-out0                host c1
c1 tcp,udp,icmp host-oth0                host c1
c1 tcp,udp,icmp outside                  outside host-out0
c1 tcp,udp,icmp neighbour                neighbour host-oth0
c1 tcp,udp,icmp c3                       lost
c3 tcp,udp,icmp c1                       lost
c1 tcp,udp,icmp c3-gateway               host c1
c1 tcp,udp,icmp c4                       lost
c1 tcp,udp,icmp c6                       lost
c1 tcp,udp,icmp c8                       lost
c1 tcp          host-out0:8083           c3 c3-gateway
c1 udp          host-out0:5383           c3 c3-gateway
c1 tcp          c1-gateway:8080          c1 c1-gateway
c2 tcp          c1-gateway:8080          c1 c1-gateway
c2 udp          host-out0:5353           c1 c1-gateway
c3 tcp          host-out0:8080           c1 c1-gateway
c3 tcp          c3-gateway:8080          c1 c1-gateway
c1 tcp          outside:81               refused
c1 tcp          c2:81                    refused
c4 tcp,udp,icmp c5                       lost
c5 tcp,udp,icmp c4                       lost
c4 tcp,udp,icmp c4-gateway               host c4
c4 tcp,udp,icmp outside                  outside host-out0
c6 tcp,udp,icmp c7                       c7 c6
c6 tcp,udp,icmp c6-gateway               host c6
c6 tcp          outside                  refused
c6 tcp          c1                       refused
c6 tcp          c6-gateway:8080          lost
c8 tcp,udp,icmp outside                  outside c8
c8 tcp,udp,icmp neighbour                neighbour c8
host tcp,udp,icmp c1                     c1 c1-gateway
host tcp,udp,icmp c4                     c4 c4-gateway
host tcp,udp,icmp c6                     c6 c6-gateway
host tcp,udp,icmp outside                outside host-out0
host tcp,udp,icmp neighbour              neighbour host-oth0
host tcp,udp,icmp loopback               host loopback
host tcp4       loopback:8080            c1 c1-gateway
host tcp4       loopback:7000            c1 c1-gateway
host tcp4       loopback:9002            c1 c1-gateway
host udp4       loopback:5353            c1 c1-gateway
host tcp        host-out0:8080           c1 host-out0
host tcp4       host-out0:7001           c1 host-out0
host tcp6       host-out0:7002           c1 host-out0
host tcp        host-oth0:8083           c3 host-oth0
host tcp        c1-gateway:8082          c2 c1-gateway
host tcp4       host-out0:7000           refused
outside tcp     host-out0:8080           c1 outside
outside udp     host-out0:5353           c1 outside
outside tcp     host-out0:9002           c1 outside
outside tcp4    host-out0:7000           refused
outside tcp4    host-out0:7001           c1 outside
outside tcp6    host-out0:7002           c1 outside
outside tcp4    host-out0:7002           refused
outside tcp6    host-out0:7003           c1 outside
outside tcp4    host-out0:7003           refused
outside tcp     host-out0:8083           c3 outside
outside tcp     host-out0:8085           c5 outside
outside tcp     host-out0:8088           c8 outside
outside tcp,udp,icmp host-out0           host outside
outside tcp     host-out0:81             refused
outside tcp,udp,icmp c1                  lost
outside tcp,icmp c4                      lost
outside tcp,icmp c6                      lost
outside tcp,udp,icmp c8                  lost
outside tcp     neighbour                lost
neighbour tcp   host-oth0:8080           c1 neighbour
neighbour udp   host-oth0:5353           c1 neighbour
neighbour tcp4  host-oth0:7001           refused
neighbour tcp6  host-oth0:7002           refused
neighbour tcp   host-out0:8080           c1 neighbour
neighbour tcp   outside                  lost
neighbour tcp,icmp c1                    lost
c9 tcp          outside                  outside host-out0
c9 udp          outside                  refused
c9 icmp         outside                  refused
c9 tcp          outside:22               refused
c9 tcp          neighbour                refused
c9 tcp          c1-gateway               refused
c9 tcp          host-out0:8080           refused
c9 tcp4,udp4    c1                       refused
c9 tcp,udp      c10                      refused
c1 tcp,udp      c9                       c9 c1
c1 icmp         c9                       lost
host tcp,udp    c9                       c9 c1-gateway
outside tcp     host-out0:8089           c9 outside
c3 tcp          host-out0:8089           c9 c1-gateway
c1 tcp          c10                      c10 c1
c1 udp,icmp     c10                      lost
c2 tcp,udp,icmp c10                      lost
host tcp,icmp   c10                      lost
c10 tcp,udp,icmp outside                 outside host-out0
c10 tcp,udp,icmp c2                      c2 c10
c10 tcp         c1-gateway               host c10
c10 tcp         c9                       c9 c10
c11 tcp,udp,icmp c12                     c12 c11
c12 tcp,udp     c11                      c11 c12
c11 tcp,udp,icmp outside                 outside c11
outside tcp,udp,icmp c11                 c11 outside
c11 tcp,icmp    host-out0                lost
host tcp,icmp   c11                      lost
c1 tcp,icmp     c11                      lost
c13 tcp,udp,icmp c14                     c14 c13
c13 tcp         outside                  refused
host tcp        c13                      lost
c15 tcp,udp,icmp c16                     lost
c15 tcp,udp     neighbour                neighbour c15
neighbour tcp,udp,icmp c15               c15 neighbour
`

// TestMatrix sends a packet from everybody to everybody, and asks network explain of each.
func TestMatrix(t *testing.T) {
	for calls, row := range []string{
		"c4 tcp host-out0:8085 c5 c4-gateway",
		// What br_netfilter translates it sends to the other port inside the bridge, where both are isolated.
		"c4 tcp host-out0:8085 lost -",
	} {
		t.Run(fmt.Sprintf("br_netfilter=%d", calls), func(t *testing.T) {
			m := newMatrix(t)
			for _, f := range []string{"iptables", "ip6tables"} {
				m.spaces["host"].Sh("f=/proc/sys/net/bridge/bridge-nf-call-%s; test ! -e $f || echo %d > $f", f, calls)
			}
			m.look(Store{Config: t.TempDir(), State: t.TempDir()})
			if calls == 1 && !m.view.BridgeCalls {
				t.Skip("needs a kernel with br_netfilter")
			}
			m.rows(matrixRows + row)
		})
	}
}

func (m *matrix) rows(text string) {
	var wait sync.WaitGroup
	var lock sync.Mutex
	slots, n := make(chan struct{}, 64), 0
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		if len(f) < 4 || m.bare != "" && (slices.Contains(f, "c9") || slices.Contains(f, "c10")) {
			continue
		}
		for _, word := range strings.Split(f[1], ",") {
			proto := strings.TrimRight(word, "46")
			only := word[len(proto):]
			for i, version := range []string{"4", "6"} {
				if only != "" && only != version {
					continue
				}
				to, port, _ := strings.Cut(f[2], ":")
				addrs, ok := m.addrs[to]
				if !ok {
					m.t.Fatalf("%s: nobody is called %s", line, to)
				}
				at := netip.AddrPortFrom(addrs[i], map[string]uint16{"tcp": 80, "udp": 53}[proto])
				if port != "" {
					n, _ := strconv.ParseUint(port, 10, 16)
					at = netip.AddrPortFrom(addrs[i], uint16(n))
				}
				want := f[3]
				switch {
				case want == "refused" || want == "lost":
				case proto == "icmp":
					want = "answered"
				default:
					want = f[3] + " sees " + m.addrs[f[4]][i].String()
				}
				n++
				wait.Add(1)
				slots <- struct{}{}
				go func() {
					defer func() { <-slots; wait.Done() }()
					got := m.spaces[f[0]].happens(proto, at, want)
					lock.Lock() // a set is read when a packet meets it
					defer lock.Unlock()
					said, path := m.explained(f[0], proto, at)
					if (proto == "icmp" || want == "lost") && got == "lost" && said == "refused" {
						said = "lost" // a raw socket isn't told
					}
					if got != want {
						m.t.Errorf("%s %s %s: %s, want %s", f[0], proto, at, got, want)
					}
					if path.Verdict == Arrives && path.Listening == nil && got == "refused" {
						said = got // who listens out there can't be known
					}
					if said != got {
						m.t.Errorf("%s %s %s: %s, and explain says %s: %s\n%s", f[0], proto, at, got, said, path.Why, pathText(path))
					}
				}()
			}
		}
	}
	wait.Wait()
	m.t.Logf("%d pairs; %s", n, m.bare)
}

func pathText(p *Path) string {
	var b strings.Builder
	for _, h := range p.Hops {
		fmt.Fprintf(&b, "  %-22s %s %q %q\n", h.Where, h.What, h.Rules, h.Unknown)
	}
	return b.String()
}
