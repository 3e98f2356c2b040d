package network

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"glassbox/container"
	"glassbox/plan"
	"glassbox/wire"
)

// wallOf reads the entries of a wall as a flag would be.
func wallOf(t testing.TB, egress, ingress string) *wall {
	t.Helper()
	how, err := wire.WallRefusal()
	if err != nil {
		t.Fatal(err)
	}
	w := &wall{refusal: how}
	for _, side := range []struct {
		text, flag string
		texts      *[]string
		doors      *[]container.Door
	}{{egress, "egress", &w.egress, &w.out}, {ingress, "ingress", &w.ingress, &w.in}} {
		if side.text == "" {
			continue
		}
		var err error
		if *side.texts, err = container.ParseWall(side.flag, []string{side.text}); err != nil {
			t.Fatal(err)
		}
		for _, text := range *side.texts {
			if d, err := container.ParseDoor(text); err == nil && text != container.WallDeny {
				*side.doors = append(*side.doors, d)
				w.names = w.names || d.Name != ""
			}
		}
	}
	return w
}

// needsWalls skips a test where there can be no walls.
func (w *world) needsWalls(t testing.TB) {
	t.Helper()
	if why := noWalls(w.host); why != "" {
		t.Skip(why)
	}
}

// noWalls says why nft itself can't make what walls are made of. (Debian's kernels have reject in family bridge and not in netdev.)
func noWalls(host *namespace) string {
	probe := "chain c { type filter hook ingress device lo priority 0; }; chain d { type filter hook egress device lo priority 0; };"
	for _, refuses := range []string{
		"table netdev probe { " + probe + " chain r { meta l4proto tcp reject with tcp reset; }; }",
		"table netdev probe { " + probe + " }; table bridge probe { chain r { reject with icmpx type admin-prohibited; }; }",
	} {
		if got := host.Sh("nft '%s' 2>&1 && nft delete table netdev probe || echo no", refuses); got == "" {
			host.Sh("nft delete table bridge probe 2>/dev/null || true")
			return ""
		}
	}
	return "needs a kernel with egress hooks in nf_tables' family netdev, and reject there or in family bridge"
}

// raise builds the wall of the world's first container, with its rules changed by a mutation.
func (w *world) raise(t testing.TB, egress, ingress string, mutate func([]string) []string) {
	t.Helper()
	w.e1.wall = wallOf(t, egress, ingress)
	rules := wallRules(w.net, w.e1)
	if mutate != nil {
		rules = mutate(slices.Clone(rules))
	}
	if err := w.host.run(w.c1, []plan.Step{{Op: &plan.NftWall{Table: w.e1.Link, Link: w.e1.Link, Rules: rules}}}); err != nil {
		t.Fatal(err)
	}
}

// What is allowed arrives, all else is refused at once, and remembered.
func TestWall(t *testing.T) {
	w := newWorld(t, -1, true)
	w.needsWalls(t)
	w.outside.serve("tcp", "0.0.0.0:80", "web")
	w.outside.serve("tcp", "0.0.0.0:81", "other")
	w.outside.serve("udp", "0.0.0.0:53", "dns")
	w.c2.serve("tcp", "0.0.0.0:80", "neighbour")
	w.host.serve("tcp", "0.0.0.0:22", "host")
	w.c1.serve("tcp", "0.0.0.0:8000", "walled")
	check := func(from *namespace, proto, to, want string) {
		t.Helper()
		start := time.Now()
		if got := from.ask(proto, to, want); got != want && !strings.Contains(got, want) {
			t.Errorf("%s %s: %q, want %q", proto, to, got, want)
		}
		if took := time.Since(start); want == "refused" && took > 2500*time.Millisecond { // before TCP has tried three times (tcp(7))
			t.Errorf("%s %s: the refusal took %v", proto, to, took)
		}
	}
	const gateway = "172.30.0.1"
	w.raise(t, "192.0.2.2:80", "", nil)
	check(w.c1, "tcp", "192.0.2.2:80", "web")
	check(w.c1, "tcp", "192.0.2.2:81", "refused")
	check(w.c1, "udp", "192.0.2.2:53", "no route to host") // ICMP: administratively prohibited
	check(w.c1, "tcp", w.e2.IP.String()+":80", "refused")  // he isn't even asked where he is
	check(w.c1, "tcp", gateway+":22", "refused")
	check(w.c1, "tcp", "192.0.2.1:22", "refused")
	check(w.c1, "udp", w.e2.IP.String()+":53", "no route to host")
	if near := w.host.Sh("nft list set netdev %s near", w.e1.Link); strings.Contains(near, w.e2.IP.String()) {
		t.Errorf("who was refused has become a neighbour, who may be asked for: %s", near)
	}
	check(w.c2, "tcp", w.e1.IP.String()+":8000", "walled sees "+w.e2.IP.String())
	check(w.host, "tcp", w.e1.IP.String()+":8000", "walled sees "+gateway)
	var all []wire.Refusal
	w.host.Do(func() {
		var err error
		if all, err = wire.Refusals(w.e1.Link, time.Now()); err != nil {
			panic(err)
		}
	})
	var got []string
	for _, r := range all {
		got = append(got, fmt.Sprintf("%s:%d/%s %v", r.Address, r.Port, r.Proto, r.Packets > 0))
		if ago := time.Since(r.Last); ago < -time.Second || ago > time.Minute {
			t.Errorf("%v: the last time was %v ago", r, ago)
		}
	}
	slices.Sort(got)
	want := []string{
		gateway + ":22/tcp true", w.e2.IP.String() + ":0/arp true", w.e2.IP.String() + ":80/tcp true", w.e2.IP.String() + ":53/udp true",
		"192.0.2.1:22/tcp true", "192.0.2.2:53/udp true", "192.0.2.2:81/tcp true",
	}
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("refused: %q, want %q", got, want)
	}

	// The wall is what the plan says, and says so when somebody takes a stone out.
	op := &plan.NftWall{Table: w.e1.Link, Link: w.e1.Link, Rules: wallRules(w.net, w.e1)}
	look := func() (s *wire.TableState) {
		w.host.Do(func() {
			var err error
			if s, err = wire.LookWall(op); err != nil {
				panic(err)
			}
		})
		return s
	}
	if s := look(); !s.Exists || len(s.Missing)+len(s.Extra) > 0 {
		t.Errorf("%+v", s)
	}
	w.host.Sh("nft flush chain netdev %s refuse", w.e1.Link)
	if s := look(); len(s.Missing) == 0 {
		t.Error("a chain without its rules is taken for whole")
	}

	w.raise(t, "deny", "", nil)
	check(w.c1, "tcp", "192.0.2.2:80", "refused")
	check(w.c2, "tcp", w.e1.IP.String()+":8000", "walled")

	// Who may come in. Its own connections have their answers.
	w.raise(t, "", w.e2.IP.String()+":8000", nil)
	check(w.c2, "tcp", w.e1.IP.String()+":8000", "walled")
	check(w.host, "tcp", w.e1.IP.String()+":8000", "silence")
	check(w.c1, "tcp", "192.0.2.2:80", "web")
	check(w.c1, "udp", "192.0.2.2:53", "dns")

	// A name's addresses, for a time.
	w.raise(t, "example.com:80", "", nil)
	check(w.c1, "tcp", "192.0.2.2:80", "refused")
	w.host.Do(func() {
		addrs, doors := []netip.Addr{netip.MustParseAddr("192.0.2.2")}, []wire.Door{{Proto: "tcp", Port: 80}}
		err := wire.OpenDoors(w.e1.Link, addrs, doors, 6*time.Second)
		if err != nil {
			panic(err)
		}
	})
	check(w.c1, "tcp", "192.0.2.2:80", "web")
	check(w.c1, "tcp", "192.0.2.2:81", "refused")
	time.Sleep(6500 * time.Millisecond)
	check(w.c1, "tcp", "192.0.2.2:80", "refused")

	if err := w.host.run(w.c1, []plan.Step{{Op: &plan.NftUnwall{Table: w.e1.Link}}, {Op: &plan.NftUnwall{Table: w.e1.Link}}}); err != nil {
		t.Fatal(err)
	}
	check(w.c1, "tcp", "192.0.2.2:81", "other")
}

// ---- the attacker ----

// frame is what an attacker with raw sockets writes on his cable.
type frame struct {
	dst, src string // hardware addresses; empty: the gateway's, the container's own
	kind     uint16
	body     []byte
}

const marker = "glassbox-attack-" // what is sent out, to be found wherever it arrives

func ones(b []byte, sum uint32) uint16 {
	for i := 0; i+1 < len(b); i += 2 {
		sum += uint32(b[i])<<8 | uint32(b[i+1])
	}
	if len(b)%2 == 1 {
		sum += uint32(b[len(b)-1]) << 8
	}
	for sum > 0xffff {
		sum = sum&0xffff + sum>>16
	}
	return ^uint16(sum)
}

// ip4 is a packet; flags is the field of fragments.
func ip4(src, dst string, proto byte, fragment uint16, payload []byte) []byte {
	h := make([]byte, 20, 20+len(payload))
	h[0], h[8], h[9] = 0x45, 64, proto
	binary.BigEndian.PutUint16(h[2:], uint16(20+len(payload)))
	binary.BigEndian.PutUint16(h[4:], 0x1234)
	binary.BigEndian.PutUint16(h[6:], fragment)
	copy(h[12:], netip.MustParseAddr(src).AsSlice())
	copy(h[16:], netip.MustParseAddr(dst).AsSlice())
	binary.BigEndian.PutUint16(h[10:], ones(h, 0))
	return append(h, payload...)
}

func ip6(src, dst string, proto byte, payload []byte) []byte {
	h := make([]byte, 40, 40+len(payload))
	h[0], h[6], h[7] = 0x60, proto, 255
	binary.BigEndian.PutUint16(h[4:], uint16(len(payload)))
	copy(h[8:], netip.MustParseAddr(src).AsSlice())
	copy(h[24:], netip.MustParseAddr(dst).AsSlice())
	return append(h, payload...)
}

// pseudo is the sum of what TCP and UDP count of the header of IP.
func pseudo(src, dst string, proto byte, n int) uint32 {
	b := slices.Concat(netip.MustParseAddr(src).AsSlice(), netip.MustParseAddr(dst).AsSlice(), []byte{0, proto, byte(n >> 8), byte(n)})
	return uint32(^ones(b, 0))
}

func udp4(src, dst string, sport, dport uint16, text string) []byte {
	b := make([]byte, 8, 8+len(text))
	binary.BigEndian.PutUint16(b, sport)
	binary.BigEndian.PutUint16(b[2:], dport)
	binary.BigEndian.PutUint16(b[4:], uint16(8+len(text)))
	b = append(b, text...)
	binary.BigEndian.PutUint16(b[6:], ones(b, pseudo(src, dst, unix.IPPROTO_UDP, len(b))))
	return b
}

func tcp4(src, dst string, sport, dport uint16, flags byte, text string) []byte {
	b := make([]byte, 20, 20+len(text))
	binary.BigEndian.PutUint16(b, sport)
	binary.BigEndian.PutUint16(b[2:], dport)
	b[7], b[12], b[13], b[14] = 1, 0x50, flags, 0x20
	b = append(b, text...)
	binary.BigEndian.PutUint16(b[16:], ones(b, pseudo(src, dst, unix.IPPROTO_TCP, len(b))))
	return b
}

func icmp4(kind byte, text string) []byte {
	b := append([]byte{kind, 0, 0, 0, 0, 1, 0, 1}, text...)
	binary.BigEndian.PutUint16(b[2:], ones(b, 0))
	return b
}

func arp(op byte, srcMAC, src, dst string) []byte {
	b := []byte{0, 1, 8, 0, 6, 4, 0, op}
	b = append(b, hardware(srcMAC)...)
	b = append(b, netip.MustParseAddr(src).AsSlice()...)
	b = append(b, make([]byte, 6)...)
	return append(append(b, netip.MustParseAddr(dst).AsSlice()...), marker...)
}

func hardware(mac string) []byte {
	var b [6]byte
	fmt.Sscanf(mac, "%02x:%02x:%02x:%02x:%02x:%02x", &b[0], &b[1], &b[2], &b[3], &b[4], &b[5])
	return b[:]
}

// listen sees every frame of a device that holds the marker.
func (ns *namespace) listen(device string) func() bool {
	fd := -1
	ns.Do(func() {
		var err error
		if fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0x0300); err != nil { // ETH_P_ALL
			panic(err)
		}
		if err := unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: 0x0300, Ifindex: index(device)}); err != nil {
			panic(err)
		}
	})
	ns.T.Cleanup(func() { unix.Close(fd) })
	return func() bool {
		buf, seen := make([]byte, 4096), false
		for {
			n, from, err := unix.Recvfrom(fd, buf, 0)
			if err != nil {
				return seen
			}
			if l, ok := from.(*unix.SockaddrLinklayer); ok && l.Pkttype != unix.PACKET_OUTGOING && strings.Contains(string(buf[:n]), marker) {
				seen = true
			}
		}
	}
}

func index(device string) int {
	i, err := net.InterfaceByName(device)
	if err != nil {
		panic(err)
	}
	return i.Index
}

// send writes a frame on the container's cable.
func (w *world) send(f frame, gateway string) {
	w.c1.Do(func() {
		fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			panic(err)
		}
		defer unix.Close(fd)
		if f.dst == "" {
			f.dst = gateway
		}
		if f.src == "" {
			f.src = w.e1.MAC
		}
		b := binary.BigEndian.AppendUint16(slices.Concat(hardware(f.dst), hardware(f.src)), f.kind)
		if err := unix.Sendto(fd, append(b, f.body...), 0, &unix.SockaddrLinklayer{Ifindex: index("eth0")}); err != nil {
			panic(err)
		}
	})
}

// wayOut is something that an attacker sends.
type wayOut struct {
	name     string
	f        frame
	to       string    // who may see it
	mutation [2]string // the part of a rule that shuts it, and what is put in its place
}

// Of those that an attacker at e1 of w may be told by: his own address, one outside, a neighbour's, another one outside, the host's.
func (w *world) addresses() (own, far, near, other, host string) {
	return w.e1.IP.String(), "192.0.2.2", w.e2.IP.String(), "198.51.100.2", "172.30.0.1"
}

// packetWays are packets of IPv4 that say truly where they come from.
func (w *world) packetWays() []wayOut {
	own, far, near, other, host := w.addresses()
	const ip, syn, ack = unix.ETH_P_IP, 2, 16
	last := [2]string{" out jump refuse", " out accept"} // what nobody has allowed
	udp := func(dst string, port uint16) []byte {
		return ip4(own, dst, unix.IPPROTO_UDP, 0, udp4(own, dst, 4000, port, marker))
	}
	tcp := func(dst string, port uint16, flags byte) []byte {
		return ip4(own, dst, unix.IPPROTO_TCP, 0, tcp4(own, dst, 4000, port, flags, marker))
	}
	return []wayOut{
		{"another resolver", frame{kind: ip, body: udp(far, 53)}, "outside", last},
		{"DNS over TCP", frame{kind: ip, body: tcp(far, 53, syn)}, "outside", last},
		{"DNS over TLS", frame{kind: ip, body: tcp(far, 853, syn)}, "outside", last},
		{"DNS over QUIC", frame{kind: ip, body: udp(far, 853)}, "outside", last},
		{"multicast DNS", frame{dst: "01:00:5e:00:00:fb", kind: ip, body: udp("224.0.0.251", 5353)}, "near", last},
		{"a direct address", frame{kind: ip, body: tcp(far, 443, syn)}, "outside", last},
		{"the allowed port of another address", frame{kind: ip, body: tcp(other, 80, syn)}, "other", last},
		{"another port of the allowed address", frame{kind: ip, body: tcp(far, 81, syn)}, "outside", last},
		{"the allowed port by UDP", frame{kind: ip, body: udp(far, 80)}, "outside", last},
		{"QUIC", frame{kind: ip, body: udp(far, 443)}, "outside", last},
		{
			"SCTP",
			frame{kind: ip, body: ip4(own, far, unix.IPPROTO_SCTP, 0, append([]byte{15, 160, 0, 80, 0, 0, 0, 0, 0, 0, 0, 0}, marker...))},
			"outside", last,
		},
		{"TCP without a beginning", frame{kind: ip, body: tcp(far, 443, ack)}, "outside", last},
		{"a pinged tunnel", frame{kind: ip, body: ip4(own, far, unix.IPPROTO_ICMP, 0, icmp4(8, marker))}, "outside", last},
		{"answers to pings that nobody sent", frame{kind: ip, body: ip4(own, far, unix.IPPROTO_ICMP, 0, icmp4(0, marker))}, "outside", last},
		{"a tunnel of IPv6 in IPv4 (6in4, 6to4)", frame{kind: ip, body: ip4(own, far, unix.IPPROTO_IPV6, 0, ip6("2002::1", "2002::2", 59,
			[]byte(marker)))}, "outside", last},
		{"GRE", frame{kind: ip, body: ip4(own, far, unix.IPPROTO_GRE, 0, append([]byte{0, 0, 8, 0}, marker...))}, "outside", last},
		{"a protocol that nobody knows", frame{kind: ip, body: ip4(own, far, 253, 0, []byte(marker))}, "outside", last},
		{
			"a first fragment",
			frame{kind: ip, body: ip4(own, far, unix.IPPROTO_UDP, 0x2000, udp4(own, far, 4000, 53, marker+marker[:8]))},
			"bridge", last,
		},
		{"a later fragment", frame{kind: ip, body: ip4(own, far, unix.IPPROTO_TCP, 3, []byte(marker))}, "bridge", last},
		{"the host's services", frame{kind: ip, body: tcp(host, 22, syn)}, "bridge", last},
		{"the host by its other address", frame{kind: ip, body: tcp("192.0.2.1", 22, syn)}, "bridge", last},
		{"published ports of others", frame{kind: ip, body: tcp("192.0.2.1", 8081, syn)}, "near", last},
		{"the host's loopback", frame{kind: ip, body: tcp("127.0.0.1", 22, syn)}, "bridge", last},
		{"a cloud's metadata", frame{kind: ip, body: tcp("169.254.169.254", 80, syn)}, "bridge", last},
		{"a broadcast", frame{dst: "ff:ff:ff:ff:ff:ff", kind: ip, body: udp("255.255.255.255", 67)}, "near", last},
		{"a neighbour, by his hardware address", frame{dst: w.e2.MAC, kind: ip, body: tcp(near, 80, syn)}, "near", last},
		{"a neighbour's hardware address with nobody's address", frame{dst: w.e2.MAC, kind: ip, body: udp("10.9.9.9", 9)}, "near", last},
	}
}

// frameWays are lies about who sends, and frames that aren't IPv4.
func (w *world) frameWays() []wayOut {
	own, far, near, _, host := w.addresses()
	const ip, v6, arpType, syn = unix.ETH_P_IP, unix.ETH_P_IPV6, unix.ETH_P_ARP, 2
	tcp := func(dst string, port uint16, flags byte) []byte {
		return ip4(own, dst, unix.IPPROTO_TCP, 0, tcp4(own, dst, 4000, port, flags, marker))
	}
	return []wayOut{
		{
			"a spoofed source",
			frame{kind: ip, body: ip4("172.30.0.99", far, unix.IPPROTO_TCP, 0, tcp4("172.30.0.99", far, 4000, 80, syn, marker))},
			"outside",
			[2]string{"ether type ip ip saddr " + own + "/32 jump out", "ether type ip jump out"},
		},
		{
			"ARP: I am the gateway",
			frame{dst: w.e2.MAC, kind: arpType, body: arp(2, w.e1.MAC, host, near)},
			"near",
			[2]string{"arp saddr ip " + own + "/32 jump arp", "jump arp"},
		},
		{
			"ARP: the gateway is elsewhere",
			frame{dst: w.e2.MAC, kind: arpType, body: arp(2, "02:00:00:00:00:99", own, near)},
			"near",
			[2]string{"arp saddr ether " + w.e1.MAC + " ", ""},
		},
		{
			"ARP as a message to all",
			frame{dst: "ff:ff:ff:ff:ff:ff", kind: arpType, body: arp(1, w.e1.MAC, own, "172.30.77.77")},
			"near",
			[2]string{" arp update @sought { arp daddr ip counter }", " arp accept"},
		},
		{
			"IPv6",
			frame{dst: w.e2.MAC, kind: v6, body: ip6("fe80::1", "fe80::2", 17, udp4("1.1.1.1", "1.1.1.1", 1, 53, marker))},
			"near",
			[2]string{" from ether type ip6 jump refuse6", " from ether type ip6 accept"},
		},
		{
			"v4-mapped addresses",
			frame{dst: w.e2.MAC, kind: v6, body: ip6("::ffff:172.30.0.2", "::ffff:192.0.2.2", 59, []byte(marker))},
			"near",
			[2]string{" from ether type ip6 jump refuse6", " from ether type ip6 accept"},
		},
		{
			"ND: I am the gateway",
			frame{dst: "33:33:00:00:00:01", kind: v6, body: ip6("fe80::1", "ff02::1", 58,
				append([]byte{136, 0, 0, 0, 0x20, 0, 0, 0}, marker...))},
			"near",
			[2]string{" from ether type ip6 jump refuse6", " from ether type ip6 accept"},
		},
		{
			"a router advertisement",
			frame{dst: "33:33:00:00:00:01", kind: v6, body: ip6("fe80::1", "ff02::1", 58,
				append([]byte{134, 0, 0, 0, 64, 0, 0, 0}, marker...))},
			"near",
			[2]string{" from ether type ip6 jump refuse6", " from ether type ip6 accept"},
		},
		{
			"a VLAN's tag",
			frame{dst: w.e2.MAC, kind: 0x8100, body: append([]byte{0, 5, 8, 0}, tcp(far, 80, syn)...)},
			"near",
			[2]string{" from counter drop", " from accept"},
		},
		{
			"a protocol that isn't IP",
			frame{dst: w.e2.MAC, kind: 0x88b5, body: []byte(marker)},
			"near",
			[2]string{" from counter drop", " from accept"},
		},
		// The last one: the bridge believes it, and would send what is for the neighbour to the attacker from then on.
		{
			"a spoofed hardware address",
			frame{src: w.e2.MAC, kind: ip, body: tcp(far, 80, syn)},
			"outside",
			[2]string{"ether saddr != " + w.e1.MAC + " drop", ""},
		},
	}
}

// TestWaysOut tries to get out. Each way is shut by the wall, and open as soon as the rule is missing that shuts it: with the rule
// replaced as the row says, the packet arrives.
func TestWaysOut(t *testing.T) {
	w := newWorld(t, 0, true)
	w.needsWalls(t)
	w.host.Sh("nft delete table bridge glassbox0 2>/dev/null || true") // the bridge's own guard, which stops some of them as well
	gateway := strings.TrimSpace(w.host.Sh("ip -o link show glassbox0 | sed 's/.*link.ether //; s/ .*//'"))
	w.c2.Sh("ip neigh replace %s lladdr %s dev eth0 nud permanent", w.e1.IP, w.e1.MAC)
	w.host.Sh("ip neigh replace %s lladdr %s dev glassbox0; ip neigh replace %s lladdr %s dev glassbox0", w.e1.IP, w.e1.MAC, w.e2.IP, w.e2.MAC)
	far := "192.0.2.2"
	ears := map[string]func() bool{
		"outside": w.outside.listen("eth0"), "other": w.other.listen("eth0"), "near": w.c2.listen("eth0"), "bridge": w.host.listen("glassbox0"),
	}
	heard := func(to string, patience time.Duration) bool {
		ear := ears[to]
		for end := time.Now().Add(patience); ; time.Sleep(2 * time.Millisecond) {
			if ear == nil || ear() {
				return true
			}
			if time.Now().After(end) {
				return false
			}
		}
	}
	for _, way := range append(w.packetWays(), w.frameWays()...) {
		quiet(ears)
		w.raise(t, far+":80", "", nil)
		w.send(way.f, gateway)
		if heard(way.to, 60*time.Millisecond) {
			t.Errorf("%s: it arrived", way.name)
		}
		for name := range ears {
			if heard(name, 0) {
				t.Errorf("%s: %s has heard of it", way.name, name)
			}
		}
		changed := 0
		w.raise(t, far+":80", "", func(rules []string) (out []string) {
			out, changed = without(rules, way.mutation)
			return out
		})
		quiet(ears)
		w.send(way.f, gateway)
		if changed != 1 {
			t.Errorf("%s: %d rules were changed by taking %q away, want 1", way.name, changed, way.mutation[0])
		}
		if !heard(way.to, 3*time.Second) {
			t.Errorf("%s: without the rule it doesn't arrive either: the test shows nothing", way.name)
		}
	}
}

// without replaces a part of the rules that have it, and takes the whole rule out where nothing is put in the place of its end.
func without(rules []string, mutation [2]string) (out []string, changed int) {
	for _, r := range rules {
		if strings.Contains(r, mutation[0]) && strings.HasPrefix(r, "add rule") {
			changed++
			if mutation[1] == "" && strings.HasSuffix(r, mutation[0]) {
				continue
			}
			r = strings.Replace(r, mutation[0], mutation[1], 1)
		}
		out = append(out, r)
	}
	return out, changed
}

// quiet forgets what was heard so far.
func quiet(ears map[string]func() bool) {
	for _, ear := range ears {
		ear()
	}
}
