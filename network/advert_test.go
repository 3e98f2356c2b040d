package network

import (
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"glassbox/wire"

	"golang.org/x/sys/unix"
)

// advertise sends a router advertisement (RFC 4861, 4.2) to all nodes on eth0: "I am your router, and 2001:db8::/64 is your network".
func (ns *namespace) advertise() {
	ns.T.Helper()
	ns.Do(func() {
		dev, err := net.InterfaceByName("eth0")
		if err != nil {
			panic(err)
		}
		fd, err := unix.Socket(unix.AF_INET6, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_ICMPV6)
		if err != nil {
			panic(err)
		}
		defer unix.Close(fd)
		if err := unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_MULTICAST_HOPS, 255); err != nil {
			panic(err)
		}
		message := []byte{134, 0, 0, 0, 64, 0, 7, 8, 0, 0, 0, 0, 0, 0, 0, 0} // lifetime of the router: 1800 s
		prefix := netip.MustParseAddr("2001:db8::").As16()
		message = append(message, 3, 4, 64, 0xc0, 0, 0, 7, 8, 0, 0, 7, 8, 0, 0, 0, 0) // on the link, addresses to be made of it
		message = append(message, prefix[:]...)
		all := &unix.SockaddrInet6{Addr: netip.MustParseAddr("ff02::1").As16(), ZoneId: uint32(dev.Index)}
		if err := unix.Sendto(fd, message, 0, all); err != nil {
			panic(err)
		}
	})
}

// believed reports what a container has of the advertisement, after a moment.
func (ns *namespace) believed(wait time.Duration) string {
	for end := time.Now().Add(wait); ; time.Sleep(20 * time.Millisecond) {
		got := ns.Sh("ip -6 addr show dynamic; ip -6 route show proto ra; ip -6 route show 2001:db8::/64")
		if got != "" || time.Now().After(end) {
			return got
		}
	}
}

// TestRouterAdvertisement lets a container tell its neighbours that it is their router.
func TestRouterAdvertisement(t *testing.T) {
	if _, err := os.Stat("/proc/sys/net/ipv6"); err != nil {
		t.Skip("needs a kernel with IPv6")
	}
	guarded := testNetwork()
	open := testNetwork()
	open.Open = true // the guard of the bridge's ports would be enough: here it is taken away
	dual := open
	dual.Subnets = append(dual.Subnets, Subnet{Prefix: netip.MustParsePrefix("fd00::/64"), Gateway: netip.MustParseAddr("fd00::1")})
	for _, c := range []struct {
		name     string
		n        Network
		weaken   string // what a victim looks like without the step
		believes bool
	}{
		{"a network without IPv6", open, "", false},
		{"one with IPv6", dual, "", false},
		{"the guard alone", guarded, "echo 0 >/proc/sys/net/ipv6/conf/eth0/disable_ipv6", false},
		{"without the step", open, "echo 0 >/proc/sys/net/ipv6/conf/eth0/disable_ipv6", true},
		{"without the step, with IPv6", dual, "echo 1 >/proc/sys/net/ipv6/conf/eth0/accept_ra", true},
	} {
		t.Run(c.name, func(t *testing.T) {
			host, attacker, victim := newNetns(t), newNetns(t), newNetns(t)
			for i, ns := range []*namespace{attacker, victim} {
				ip := netip.AddrFrom4([4]byte{172, 30, 0, byte(i + 2)})
				e := Endpoint{Interface: "eth0", Link: VethName(ip.String(), 0), IP: ip, MAC: wire.MAC(ip)}
				if c.n.hasIPv6() {
					a := c.n.IPv6().Gateway.As16()
					a[15] = byte(i + 2)
					e.IP6 = netip.AddrFrom16(a)
				}
				if err := host.run(ns, stepsOf(c.n, e)); err != nil {
					t.Fatal(err)
				}
			}
			if got := victim.Sh("ip -6 addr show dev lo"); !strings.Contains(got, "::1/128") {
				t.Errorf("loopback of the victim: got %q, want ::1", got)
			}
			if got := victim.Sh("ip -6 addr show dev eth0"); c.n.hasIPv6() != (got != "") {
				t.Errorf("IPv6 of the victim: got %q", got)
			}
			// The attacker has all powers over its own network namespace.
			attacker.Sh("echo 0 >/proc/sys/net/ipv6/conf/eth0/disable_ipv6; ip -6 addr add fe80::bad/64 dev eth0 nodad")
			if c.weaken != "" {
				victim.Sh("%s", c.weaken)
			}
			attacker.advertise()
			wait := 300 * time.Millisecond
			if c.believes {
				wait = 10 * time.Second
			}
			if got := victim.believed(wait); (got != "") != c.believes {
				t.Errorf("after the advertisement: got %q, believed should be %v", got, c.believes)
			}
			if got := host.Sh("ip -6 addr show dynamic; ip -6 route show proto ra; ip -6 route show 2001:db8::/64"); got != "" {
				t.Errorf("the host: got %q", got)
			}
		})
	}
}
