package network

import (
	"fmt"
	"net/netip"
	"os"
	"strings"
	"testing"

	"glassbox/container"
	"glassbox/plan"
	"glassbox/test/netns"
	"glassbox/wire"
)

// A namespace is a network namespace that lives as long as the test, with what these tests do there.
type namespace struct{ *netns.NS }

func newNetns(t testing.TB) *namespace { return &namespace{netns.New(t)} }

func testNetwork(opened ...string) Network {
	return Network{
		Name: Bridge, Driver: Bridge, Link: "glassbox0", MTU: 1500, Opened: opened,
		Subnets: []Subnet{{Prefix: netip.MustParsePrefix("172.30.0.0/16"), Gateway: netip.MustParseAddr("172.30.0.1")}},
	}
}

// parsePorts reads flags of -p.
func parsePorts(t testing.TB, specs ...string) []container.Port {
	t.Helper()
	var out []container.Port
	for _, text := range specs {
		ports, err := container.ParsePorts(text)
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range ports {
			p.Origin = ""
			out = append(out, p)
		}
	}
	return out
}

// stepsOf are the steps for an endpoint; its network is of a driver that is known.
func stepsOf(n Network, e Endpoint) []plan.Step {
	steps, err := Steps(n, e, testOrigin)
	if err != nil {
		panic(err)
	}
	return steps
}

func testOrigin(what string) string { return what }

// run makes the steps, the part of package fork.
func (ns *namespace) run(child *namespace, steps []plan.Step) error {
	var err error
	ns.Do(func() {
		w := wire.Open(func() (int, error) { return child.FD, nil })
		defer w.Close()
		for _, s := range steps {
			if f, ok := s.Op.(*plan.WriteFile); ok {
				err = os.WriteFile(f.Path, []byte(f.Value), 0)
			} else {
				err = w.Do(s.Op)
			}
			if err != nil {
				err = fmt.Errorf("%s: %w", s.Op, err)
				return
			}
		}
	})
	return err
}

// TestRestart starts a container again before the kernel has removed what was left of it, with the same names.
func TestRestart(t *testing.T) {
	host := newNetns(t)
	ip := netip.MustParseAddr("172.30.0.2")
	e := Endpoint{
		IP: ip, MAC: wire.MAC(ip), Interface: "eth0", Link: VethName("0123456789abcdef", 0),
		Ports: parsePorts(t, "8080:80", "127.0.0.1:53:53/udp"),
	}
	for range 2 {
		c := newNetns(t)
		if err := host.run(c, stepsOf(testNetwork(), e)); err != nil {
			t.Fatal(err)
		}
		got := c.Sh("ip -br addr; ip route; ip link show eth0")
		for _, want := range []string{
			"172.30.0.2/16", "127.0.0.1/8", "default via 172.30.0.1 dev eth0", "link/ether 02:42:ac:1e:00:02", "mtu 1500",
		} {
			if !strings.Contains(got, want) {
				t.Errorf("in the container: got %s, want %s", got, want)
			}
		}
	}
	if got := host.Sh("ip -br link show master glassbox0"); strings.Count(got, "\n") != 1 {
		t.Errorf("links on the bridge: got %s, want one", got)
	}
}

// TestLoopback is --network none.
func TestLoopback(t *testing.T) {
	host, c := newNetns(t), newNetns(t)
	if err := host.run(c, Loopback()); err != nil {
		t.Fatal(err)
	}
	if got := c.Sh("ip -br addr"); !strings.Contains(got, "127.0.0.1/8") || strings.Count(got, "\n") != 1 {
		t.Errorf("in the container: got %s, want lo with 127.0.0.1/8", got)
	}
	if got := host.Sh("ip -br link; nft list ruleset"); strings.Count(got, "\n") != 1 {
		t.Errorf("on the host: got %s, want nothing but lo", got)
	}
}

// TestTogether starts eight containers at once on a host without a bridge.
func TestTogether(t *testing.T) {
	const n = 8
	host := newNetns(t)
	var cs []*namespace
	for range n {
		cs = append(cs, newNetns(t))
	}
	errs := make(chan error)
	for i, c := range cs {
		ip := netip.AddrFrom4([4]byte{172, 30, 0, byte(i + 2)})
		e := Endpoint{
			IP: ip, MAC: wire.MAC(ip), Interface: "eth0", Link: VethName(ip.String(), 0),
			Ports: []container.Port{{HostPort: uint16(8000 + i), ContainerPort: 80, Proto: "tcp"}},
		}
		go func() { errs <- host.run(c, stepsOf(testNetwork("lo"), e)) }()
	}
	for range n {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
	if got := host.Sh("nft list map ip glassbox0 published"); strings.Count(got, "tcp .") != n {
		t.Errorf("published: got %s, want %d ports", got, n)
	}
	if got := host.Sh("nft list chain ip glassbox0 forward"); strings.Count(got, "iifname \"lo\" drop") != 1 {
		t.Errorf("rules made by several: got %s", got)
	}
	for i, c := range cs {
		if got := c.ask("tcp", fmt.Sprintf("172.30.0.%d:9", (i+1)%n+2), "refused"); got != "refused" {
			t.Errorf("container %d to the next: got %s, want refused", i, got)
		}
	}
}
