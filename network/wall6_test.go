package network

import (
	"errors"
	"fmt"
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

// wall6 is a host with two containers of a network with IPv6, with or without IPv4 beside it.
func wall6(t *testing.T, four bool) *world {
	w := &world{host: newNetns(t), c1: newNetns(t), c2: newNetns(t), net: testNetwork()}
	w.needsWalls(t)
	six := Subnet{Prefix: netip.MustParsePrefix("fd30::/64"), Gateway: netip.MustParseAddr("fd30::1")}
	w.net.Subnets = append(w.net.Subnets, six)
	if !four {
		w.net.Subnets, w.net.NoIPv4 = []Subnet{six}, true
	}
	w.host.Sh("ip link set lo up; echo 1 > /proc/sys/net/ipv6/conf/all/forwarding; echo 1 > /proc/sys/net/ipv4/ip_forward")
	endpoint := func(id string, n byte) Endpoint {
		e := Endpoint{IP6: netip.MustParseAddr(fmt.Sprintf("fd30::%d", n)), Interface: "eth0", Link: VethName(id, 0)}
		if four {
			e.IP = netip.MustParseAddr(fmt.Sprintf("172.30.0.%d", n))
		}
		e.MAC = macOf(e)
		return e
	}
	w.e1, w.e2 = endpoint("aaaaaaaaaaaaaaaa", 2), endpoint("bbbbbbbbbbbbbbbb", 3)
	for ns, e := range map[*namespace]Endpoint{w.c1: w.e1, w.c2: w.e2} {
		if err := w.host.run(ns, stepsOf(w.net, e)); err != nil {
			t.Fatal(err)
		}
	}
	return w
}

// connect6 says what a container is answered by TCP: an error of the kernel, or nothing.
func (ns *namespace) connect6(addr string) (err error) {
	ns.Do(func() {
		var c net.Conn
		if c, err = net.DialTimeout("tcp6", addr, time.Minute); err == nil {
			c.Close()
		}
	})
	return err
}

// Behind a wall a neighbour with IPv6 is refused at once: nobody waits until the kernel gives up to look for him, which it tells otherwise
// (EHOSTUNREACH), and he isn't even asked for. Who is allowed is found.
func TestWallNeighbour6(t *testing.T) {
	for _, four := range []bool{true, false} {
		t.Run(fmt.Sprintf("IPv4=%v", four), func(t *testing.T) {
			w := wall6(t, four)
			w.c2.Do(func() {
				l, err := net.Listen("tcp6", "[fd30::3]:80")
				if err != nil {
					t.Error(err)
					return
				}
				t.Cleanup(func() { l.Close() })
				go func() {
					for {
						c, err := l.Accept()
						if err != nil {
							return
						}
						c.Close()
					}
				}()
			})
			const neighbour, nobody = "[fd30::3]:80", "[fd30::77]:80"
			w.raise(t, "192.0.2.2:80", "", nil)
			w.c2.Sh("ip -6 neigh flush dev eth0") // what was said before
			for _, to := range []string{neighbour, nobody, "[fd30::1]:80"} {
				if err := w.c1.connect6(to); !errors.Is(err, unix.ECONNREFUSED) {
					t.Errorf("%s: %v, want it refused", to, err)
				}
			}
			near := w.host.Sh("nft list set netdev %s near6", w.e1.Link)
			if strings.Contains(near, "fd30::3") || strings.Contains(near, "fd30::77") {
				t.Errorf("who was refused has become a neighbour, who may be asked for: %s", near)
			}
			if got := w.c2.Sh("ip -6 neigh show to fd30::2 dev eth0"); strings.TrimSpace(got) != "" {
				t.Errorf("the neighbour was asked for: %s", got)
			}
			var got []string
			w.host.Do(func() {
				all, err := wire.Refusals(w.e1.Link, time.Now())
				if err != nil {
					panic(err)
				}
				for _, r := range all {
					got = append(got, fmt.Sprintf("%s:%d/%s", r.Address, r.Port, r.Proto))
				}
			})
			for _, want := range []string{"fd30::3:80/tcp", "fd30::3:0/nd", "fd30::77:0/nd"} {
				if !slices.Contains(got, want) {
					t.Errorf("refused: %q, without %s", got, want)
				}
			}
			// The wall that stands is the plan's.
			w.host.Do(func() {
				s, err := wire.LookWall(&plan.NftWall{Table: w.e1.Link, Link: w.e1.Link, Rules: wallRules(w.net, w.e1)})
				if err != nil {
					panic(err)
				}
				if len(s.Missing)+len(s.Extra) > 0 {
					t.Errorf("missing: %q, not planned: %q", s.Missing, s.Extra)
				}
			})
			// Who becomes allowed is found, though something else was said of him before.
			w.raise(t, "[fd30::3]:80", "", nil)
			w.c1.Sh("ip -6 neigh flush dev eth0")
			if err := w.c1.connect6(neighbour); err != nil {
				t.Errorf("%s is allowed: %v", neighbour, err)
			}
			// Without its rule the container waits until its kernel gives up.
			w.raise(t, "192.0.2.2:80", "", func(rules []string) []string {
				out, changed := without(rules, [2]string{" fwd to meta iif", " drop"})
				if changed == 0 {
					t.Error("no rule answers")
				}
				return out
			})
			if err := w.c1.connect6(nobody); !errors.Is(err, unix.ECONNREFUSED) && !errors.Is(err, unix.EHOSTUNREACH) {
				t.Errorf("%s: %v", nobody, err)
			} else if w.c1.Sh("ip -6 neigh flush dev eth0"); !errors.Is(w.c1.connect6("[fd30::78]:80"), unix.EHOSTUNREACH) {
				t.Error("without the rule it is refused at once, too: the test shows nothing")
			}
		})
	}
}
