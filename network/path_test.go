package network

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"glassbox/plan"
	"glassbox/wire"
)

// serve answers every connection or datagram with who it is and whom it sees, until the test ends.
func (ns *namespace) serve(proto, addr, name string) {
	ns.T.Helper()
	ns.Do(func() {
		if proto == "udp" {
			c, err := net.ListenPacket("udp4", addr)
			if err != nil {
				panic(err)
			}
			ns.T.Cleanup(func() { c.Close() })
			go func() {
				buf := make([]byte, 100)
				for {
					_, from, err := c.ReadFrom(buf)
					if err != nil {
						return
					}
					fmt.Fprintf(packetTo{c, from}, "%s sees %s", name, host(from.String()))
				}
			}()
			return
		}
		ns.accept("tcp4", addr, name)
	})
}

// accept answers all who come by TCP, on this thread's network namespace; it returns when it listens.
func (ns *namespace) accept(network, addr, name string) {
	l, err := net.Listen(network, addr)
	if err != nil {
		panic(err)
	}
	ns.T.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			fmt.Fprintf(c, "%s sees %s", name, host(c.RemoteAddr().String()))
			c.Close()
		}
	}()
}

type packetTo struct {
	net.PacketConn
	to net.Addr
}

func (p packetTo) Write(b []byte) (int, error) { return p.WriteTo(b, p.to) }

func host(s string) string { h, _, _ := net.SplitHostPort(s); return h }

// patience is how long to wait: for an answer as long as a busy machine may take, for a silence a moment.
func patience(want string) time.Duration {
	if want == "silence" {
		return 300 * time.Millisecond
	}
	return 10 * time.Second
}

// ask connects and returns the answer, or "refused" or "silence".
func (ns *namespace) ask(proto, addr, want string) (answer string) {
	ns.T.Helper()
	ns.Do(func() {
		c, err := net.DialTimeout(proto+"4", addr, patience(want))
		if err == nil {
			defer c.Close()
			c.SetDeadline(time.Now().Add(patience(want)))
			if proto == "udp" {
				io.WriteString(c, "?")
			}
			buf := make([]byte, 100)
			var n int
			if n, err = c.Read(buf); err == nil {
				answer = string(buf[:n])
				return
			}
		}
		var timeout net.Error
		switch {
		case errors.Is(err, unix.ECONNREFUSED):
			answer = "refused"
		case errors.As(err, &timeout) && timeout.Timeout():
			answer = "silence"
		default:
			answer = err.Error()
		}
	})
	return answer
}

// world is a host with an interface to the outside, another to a second network, and two containers.
type world struct {
	host, outside, other, c1, c2 *namespace
	net                          Network
	e1, e2                       Endpoint
}

func newWorld(t testing.TB, brNetfilter int, router bool) *world {
	w := &world{newNetns(t), newNetns(t), newNetns(t), newNetns(t), newNetns(t), testNetwork("oth0", "out0"), Endpoint{}, Endpoint{}}
	connect := func(dev, subnet string, peer *namespace) {
		w.host.Sh("ip link add %s type veth peer name %s-in", dev, dev)
		if err := w.host.run(peer, []plan.Step{{Op: &plan.LinkMove{Name: dev + "-in", As: "eth0"}}}); err != nil {
			t.Fatal(err)
		}
		w.host.Sh("ip addr add %s.1/24 dev %s; ip link set %s up", subnet, dev, dev)
		// The outside has no route to the containers' subnet.
		peer.Sh("ip addr add %s.2/24 dev eth0; ip link set eth0 up; ip link set lo up", subnet)
	}
	w.host.Sh("ip link set lo up")
	connect("out0", "192.0.2", w.outside)
	connect("oth0", "198.51.100", w.other)
	w.host.Sh("ip route add default via 192.0.2.2")
	if brNetfilter >= 0 {
		w.host.Sh("test ! -e /proc/sys/net/bridge || echo %d > /proc/sys/net/bridge/bridge-nf-call-iptables", brNetfilter)
	}
	if router {
		w.host.Sh("echo 1 > /proc/sys/net/ipv4/ip_forward")
		w.net.Opened = nil
	}
	endpoint := func(id, ip, ports string) Endpoint {
		e := Endpoint{IP: netip.MustParseAddr(ip), Interface: "eth0", Link: VethName(id, 0)}
		e.MAC = wire.MAC(e.IP)
		e.Ports = parsePorts(t, strings.Fields(ports)...)
		return e
	}
	w.e1 = endpoint("aaaaaaaaaaaaaaaa", "172.30.0.2", "8080:80 5353:53/udp 9000-9002:9000-9002 127.0.0.1:7000:80 192.0.2.1:7001:80")
	w.e2 = endpoint("bbbbbbbbbbbbbbbb", "172.30.0.3", "8081:80")
	for _, e := range []struct {
		Endpoint
		ns *namespace
	}{{w.e1, w.c1}, {w.e2, w.c2}} {
		if err := w.host.run(e.ns, stepsOf(w.net, e.Endpoint)); err != nil {
			t.Fatal(err)
		}
	}
	return w
}

func dialNS(t testing.TB, ns *namespace) *wire.Conn {
	t.Helper()
	var c *wire.Conn
	var err error
	ns.Do(func() { c, err = wire.Dial(unix.NETLINK_ROUTE) })
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// TestPackets sends packets on every way that there is, and on those that there must not be.
func TestPackets(t *testing.T) {
	for brNetfilter, router := range []bool{false, true} {
		t.Run(fmt.Sprintf("br_netfilter=%d,router=%v", brNetfilter, router), func(t *testing.T) {
			testPackets(t, newWorld(t, brNetfilter, router), router)
		})
	}
}

func testPackets(t *testing.T, w *world, router bool) {
	w.c1.serve("tcp", ":80", "c1")
	w.c1.serve("udp", ":53", "c1")
	w.c1.serve("tcp", ":9001", "c1:9001")
	w.c2.serve("tcp", ":80", "c2")
	w.outside.serve("tcp", ":80", "outside")
	w.outside.serve("udp", ":53", "outside")
	w.other.serve("tcp", ":80", "other")
	w.host.serve("tcp", "127.0.0.1:3306", "host-loopback")
	w.host.serve("tcp", "172.30.0.1:2222", "host")

	check := func(from *namespace, proto, addr, want, why string) {
		t.Helper()
		if got := from.ask(proto, addr, want); got != want {
			t.Errorf("%s: %s %s: got %q, want %q", why, proto, addr, got, want)
		}
	}
	check(w.c1, "tcp", "192.0.2.2:80", "outside sees 192.0.2.1", "container to the outside")
	check(w.c1, "udp", "192.0.2.2:53", "outside sees 192.0.2.1", "container to the outside")
	check(w.c1, "tcp", "198.51.100.2:80", "other sees 198.51.100.1", "container to another network of the host")
	check(w.c1, "tcp", "172.30.0.3:80", "c2 sees 172.30.0.2", "container to container")
	check(w.c2, "udp", "172.30.0.2:53", "c1 sees 172.30.0.3", "container to container")
	check(w.c1, "tcp", "172.30.0.1:2222", "host sees 172.30.0.2", "container to the host")
	check(w.host, "tcp", "172.30.0.2:80", "c1 sees 172.30.0.1", "host to a container's address")

	check(w.outside, "tcp", "192.0.2.1:8080", "c1 sees 192.0.2.2", "outside to a published port")
	check(w.outside, "udp", "192.0.2.1:5353", "c1 sees 192.0.2.2", "outside to a published port")
	check(w.outside, "tcp", "192.0.2.1:8081", "c2 sees 192.0.2.2", "outside to the second container's port")
	check(w.outside, "tcp", "192.0.2.1:9001", "c1:9001 sees 192.0.2.2", "outside to a port of a range")
	check(w.outside, "tcp", "192.0.2.1:7001", "c1 sees 192.0.2.2", "outside to a port published on that address")
	check(w.other, "tcp", "198.51.100.1:7001", "refused", "another network to a port published elsewhere")
	check(w.outside, "tcp", "192.0.2.1:7000", "refused", "outside to a port published on 127.0.0.1")
	check(w.outside, "tcp", "192.0.2.1:80", "refused", "outside to a port not published")

	check(w.host, "tcp", "127.0.0.1:8080", "c1 sees 172.30.0.1", "host through its loopback")
	check(w.host, "udp", "127.0.0.1:5353", "c1 sees 172.30.0.1", "host through its loopback")
	check(w.host, "tcp", "127.0.0.1:7000", "c1 sees 172.30.0.1", "host through its loopback, published there")
	check(w.host, "tcp", "192.0.2.1:8080", "c1 sees 192.0.2.1", "host through its own address")
	check(w.host, "tcp", "127.0.0.1:3306", "host-loopback sees 127.0.0.1", "host to its own service")

	check(w.c1, "tcp", "192.0.2.1:8080", "c1 sees 172.30.0.1", "hairpin: container to its own published port")
	check(w.c1, "tcp", "172.30.0.1:8080", "c1 sees 172.30.0.1", "hairpin through the gateway's address")
	check(w.c1, "tcp", "192.0.2.1:8081", "c2 sees 172.30.0.1", "container to another's published port")
	check(w.c1, "udp", "192.0.2.1:5353", "c1 sees 172.30.0.1", "hairpin")

	// The host's loopback from a container (CVE-2020-8558), and from a neighbour.
	w.c1.Sh("ip addr del 127.0.0.1/8 dev lo; ip route add 127.0.0.1 via 172.30.0.1; echo 1 > /proc/sys/net/ipv4/conf/all/route_localnet")
	check(w.c1, "tcp", "127.0.0.1:3306", "silence", "container to the host's loopback")
	w.c1.Sh("ip addr add 127.0.0.5/32 dev eth0; ip route replace 172.30.0.0/16 dev eth0 src 127.0.0.5")
	w.c1.Sh("echo 1 > /proc/sys/net/ipv4/conf/all/route_localnet")
	if got := w.heard(w.c1, "172.30.0.1:7777", "silence"); got != "silence" {
		t.Errorf("container with a loopback address as its source: the host got a packet from %s", got)
	}
	w.c1.Sh("ip route replace 172.30.0.0/16 dev eth0 src 172.30.0.2; ip addr del 127.0.0.5/32 dev eth0")
	if got := w.heard(w.c1, "172.30.0.1:7777", "172.30.0.2"); got != "172.30.0.2" {
		t.Errorf("container with its own address: the host got a packet from %q, want 172.30.0.2", got)
	}
	w.outside.Sh("ip addr del 127.0.0.1/8 dev lo; ip route add 127.0.0.1 via 192.0.2.1; echo 1 > /proc/sys/net/ipv4/conf/all/route_localnet")
	check(w.outside, "tcp", "127.0.0.1:7000", "silence", "neighbour to a port published on the host's loopback")

	// Routes that a neighbour sets don't open anything.
	w.outside.Sh("ip route add 172.30.0.0/16 via 192.0.2.1; ip route add 198.51.100.0/24 via 192.0.2.1")
	w.other.Sh("ip route add default via 198.51.100.1")
	check(w.outside, "tcp", "172.30.0.2:9001", "silence", "neighbour to a container's address")
	if router {
		check(w.outside, "tcp", "198.51.100.2:80", "other sees 192.0.2.2", "a host that was a router stays one")
	} else {
		check(w.outside, "tcp", "198.51.100.2:80", "silence", "the host must not route between other networks")
		check(w.other, "tcp", "192.0.2.2:80", "silence", "the host must not route between other networks")
		if got := strings.TrimSpace(w.host.Sh("cat /proc/sys/net/ipv4/ip_forward")); got != "0" {
			t.Errorf("ip_forward: got %s, want 0", got)
		}
	}

	// Taking back.
	undo := (&plan.NftPublish{Table: w.net.Table(), Ports: rules(w.e1)}).Undo()[0]
	for range 2 { // what is gone is no error
		var err error
		w.host.Do(func() { err = wire.Undo(undo) })
		if err != nil {
			t.Errorf("undo: %v", err)
		}
	}
	check(w.outside, "tcp", "192.0.2.1:8080", "refused", "unpublished port")
	check(w.host, "tcp", "127.0.0.1:8080", "refused", "unpublished port")
	check(w.outside, "tcp", "192.0.2.1:8081", "c2 sees 192.0.2.2", "the other container's port")

	// Another container's port is not taken, and not taken back.
	var err error
	steal := rules(w.e2)
	steal[0].ContainerIP = "172.30.0.9"
	w.host.Do(func() { err = wire.Open(nil).Do(&plan.NftPublish{Table: "glassbox0", Ports: steal}) })
	if !errors.Is(err, unix.EBUSY) && !errors.Is(err, unix.EEXIST) {
		t.Errorf("publish a published port: got %v, want EBUSY", err)
	}
	t.Logf("error of a taken port: %v", err)
	w.host.Do(func() { err = wire.Undo(&plan.NftUnpublish{Table: "glassbox0", Ports: steal}) })
	if err != nil {
		t.Errorf("undo: %v", err)
	}
	check(w.outside, "tcp", "192.0.2.1:8081", "c2 sees 192.0.2.2", "the other container's port")

	// Somebody flushes the firewall: the next start makes it again.
	w.host.Sh("nft flush ruleset; ip link del glassbox0")
	c3 := newNetns(t)
	e3 := w.e2
	e3.Link = VethName("cccccccccccccccc", 0)
	if err := w.host.run(c3, stepsOf(w.net, e3)); err != nil {
		t.Fatal(err)
	}
	c3.serve("tcp", ":80", "c3")
	check(w.outside, "tcp", "192.0.2.1:8081", "c3 sees 192.0.2.2", "after a flush")
}

// TestFlows lets a client send from the same UDP port all the time, while the port is published, unpublished, and published
// for another container.
func TestFlows(t *testing.T) {
	w := newWorld(t, -1, false)
	w.c1.serve("udp", ":53", "c1")
	w.c2.serve("udp", ":53", "c2")
	var c net.Conn
	var err error
	w.outside.Do(func() { c, err = net.Dial("udp4", "192.0.2.1:6000") })
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	ask := func(want string) string {
		buf := make([]byte, 100)
		for range 2 { // the first write after "port unreachable" fails
			io.WriteString(c, "?")
			c.SetDeadline(time.Now().Add(patience(want)))
			if n, err := c.Read(buf); err == nil {
				return string(buf[:n])
			}
		}
		return "silence"
	}
	w.host.Sh("nft insert rule ip glassbox0 forward accept") // make sure that flows are tracked
	if got := ask("silence"); got != "silence" {
		t.Errorf("before: got %q", got)
	}
	for _, ip := range []string{"172.30.0.2", "172.30.0.3", "172.30.0.2"} {
		ports := []plan.PortRule{{Proto: "udp", HostPort: 6000, ContainerIP: ip, ContainerPort: 53}}
		w.host.Do(func() { err = wire.Open(nil).Do(&plan.NftPublish{Table: "glassbox0", Ports: ports}) })
		if err != nil {
			t.Fatal(err)
		}
		want := "c1 sees 192.0.2.2"
		if ip == "172.30.0.3" {
			want = "c2 sees 192.0.2.2"
		}
		if got := ask(want); got != want {
			t.Errorf("published for %s: got %q, want %q", ip, got, want)
		}
		w.host.Do(func() { err = wire.Undo(&plan.NftUnpublish{Table: "glassbox0", Ports: ports}) })
		if err != nil {
			t.Fatal(err)
		}
		if got := ask("silence"); got != "silence" {
			t.Errorf("unpublished: got %q, want silence", got)
		}
	}
}

// TestManyPorts publishes thousands of ports at once, and takes them back but for the one that is somebody else's by now.
func TestManyPorts(t *testing.T) {
	w := newWorld(t, 0, true)
	var ports []plan.PortRule
	for i := range 6000 {
		proto := []string{"tcp", "udp"}[i%2]
		ports = append(ports, plan.PortRule{
			Proto: proto, HostPort: uint16(10000 + i/2), ContainerIP: "172.30.0.2", ContainerPort: uint16(10000 + i/2),
		})
	}
	other := ports[17]
	other.ContainerIP = "172.30.0.3"
	var err error
	var before, all, left []plan.PortRule
	w.host.Do(func() {
		do := func(f func() error) {
			if err == nil {
				err = f()
			}
		}
		do(func() (err error) { before, err = wire.Published("glassbox0"); return err })
		do(func() error { return wire.Open(nil).Do(&plan.NftPublish{Table: "glassbox0", Ports: ports}) })
		do(func() (err error) { all, err = wire.Published("glassbox0"); return err })
		do(func() error { return wire.Undo(&plan.NftUnpublish{Table: "glassbox0", Ports: ports[17:18]}) })
		do(func() error {
			return wire.Open(nil).Do(&plan.NftPublish{Table: "glassbox0", Ports: []plan.PortRule{other}})
		})
		do(func() error { return wire.Undo(&plan.NftUnpublish{Table: "glassbox0", Ports: ports}) })
		do(func() (err error) { left, err = wire.Published("glassbox0"); return err })
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(all) != len(before)+len(ports) || len(left) != len(before)+1 || !slices.Contains(left, other) {
		t.Errorf("of %d: published %d, want %d; left %d, want %d", len(before), len(all), len(before)+len(ports), len(left), len(before)+1)
	}
}

// heard sends a datagram to the host and returns the source that the host sees, or "silence".
func (w *world) heard(from *namespace, addr, want string) string {
	var l net.PacketConn
	var err error
	w.host.Do(func() { l, err = net.ListenPacket("udp4", addr) })
	if err != nil {
		w.host.T.Fatal(err)
	}
	defer l.Close()
	from.Do(func() {
		c, err := net.Dial("udp4", addr)
		if err != nil {
			panic(err)
		}
		defer c.Close()
		io.WriteString(c, "!")
	})
	l.SetDeadline(time.Now().Add(patience(want)))
	if _, a, err := l.ReadFrom(make([]byte, 10)); err == nil {
		return host(a.String())
	}
	return "silence"
}
