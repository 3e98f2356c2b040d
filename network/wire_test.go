package network

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"glassbox/container"
	"glassbox/plan"
)

// A netns is a network namespace that lives as long as the test.
type netns struct {
	t  testing.TB
	fd int
}

func needRoot(t testing.TB) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root, for network namespaces")
	}
}

func newNetns(t testing.TB) *netns {
	t.Helper()
	needRoot(t)
	ns := &netns{t: t, fd: -1}
	own := openNS(t)
	defer unix.Close(own)
	runtime.LockOSThread()
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		t.Fatalf("unshare: %v", err)
	}
	ns.fd = openNS(t)
	// A new namespace has these from the one that the machine started with (net.core.devconf_inherit_init_net), or from the kernel's
	// configuration: tests take nothing for granted.
	for _, set := range []string{
		"ipv4/ip_forward=0", "ipv4/conf/all/rp_filter=0", "ipv4/conf/default/rp_filter=0", "ipv4/conf/all/route_localnet=0",
		"ipv4/conf/default/route_localnet=0", "ipv6/conf/all/forwarding=0", "ipv6/conf/all/disable_ipv6=0", "ipv6/conf/default/disable_ipv6=0",
		"ipv6/conf/all/accept_ra=1", "ipv6/conf/default/accept_ra=1",
	} {
		file, value, _ := strings.Cut(set, "=")
		if err := os.WriteFile("/proc/sys/net/"+file, []byte(value), 0); err != nil && !errors.Is(err, fs.ErrNotExist) {
			t.Fatal(err)
		}
	}
	if err := unix.Setns(own, unix.CLONE_NEWNET); err != nil {
		t.Fatalf("setns: %v", err)
	}
	runtime.UnlockOSThread()
	t.Cleanup(func() { unix.Close(ns.fd) })
	return ns
}

func openNS(t testing.TB) int {
	t.Helper()
	fd, err := unix.Open("/proc/thread-self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	return fd
}

// do runs f on a thread in the namespace.
func (ns *netns) do(f func()) {
	ns.t.Helper()
	done := make(chan any)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		defer func() { done <- recover() }()
		if err := unix.Setns(ns.fd, unix.CLONE_NEWNET); err != nil {
			panic(err)
		}
		f()
	}()
	if p := <-done; p != nil {
		ns.t.Fatal(p)
	}
}

func (ns *netns) sh(format string, a ...any) string {
	ns.t.Helper()
	var out []byte
	var err error
	script := fmt.Sprintf(format, a...)
	ns.do(func() { out, err = exec.Command("sh", "-ec", script).CombinedOutput() })
	if err != nil {
		ns.t.Fatalf("%s: %v\n%s", script, err, out)
	}
	return string(out)
}

func testNetwork(opened ...string) Network {
	return Network{
		Name: Bridge, Driver: Bridge, Link: "glassbox0", MTU: 1500, Opened: opened,
		Subnets: []Subnet{{netip.MustParsePrefix("172.30.0.0/16"), netip.MustParseAddr("172.30.0.1")}},
	}
}

// parsePorts reads flags of -p.
func parsePorts(t testing.TB, specs ...string) []Port {
	t.Helper()
	var out []Port
	for _, text := range specs {
		ports, err := container.ParsePorts(text)
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range ports {
			ip, _ := netip.ParseAddr(p.HostIP)
			out = append(out, Port{HostIP: ip, HostPort: p.HostPort, HostEnd: p.HostEnd, ContainerPort: p.ContainerPort, Proto: p.Proto})
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
func (ns *netns) run(child *netns, steps []plan.Step) error {
	var err error
	ns.do(func() {
		w := Open(func() (int, error) { return child.fd, nil })
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
		IP: ip, MAC: MAC(ip), Interface: "eth0", Link: VethName("0123456789abcdef", 0),
		Ports: parsePorts(t, "8080:80", "127.0.0.1:53:53/udp"),
	}
	for range 2 {
		c := newNetns(t)
		if err := host.run(c, stepsOf(testNetwork(), e)); err != nil {
			t.Fatal(err)
		}
		got := c.sh("ip -br addr; ip route; ip link show eth0")
		for _, want := range []string{
			"172.30.0.2/16", "127.0.0.1/8", "default via 172.30.0.1 dev eth0", "link/ether 02:42:ac:1e:00:02", "mtu 1500",
		} {
			if !strings.Contains(got, want) {
				t.Errorf("in the container: got %s, want %s", got, want)
			}
		}
	}
	if got := host.sh("ip -br link show master glassbox0"); strings.Count(got, "\n") != 1 {
		t.Errorf("links on the bridge: got %s, want one", got)
	}
}

// TestLoopback is --network none.
func TestLoopback(t *testing.T) {
	host, c := newNetns(t), newNetns(t)
	if err := host.run(c, Loopback()); err != nil {
		t.Fatal(err)
	}
	if got := c.sh("ip -br addr"); !strings.Contains(got, "127.0.0.1/8") || strings.Count(got, "\n") != 1 {
		t.Errorf("in the container: got %s, want lo with 127.0.0.1/8", got)
	}
	if got := host.sh("ip -br link; nft list ruleset"); strings.Count(got, "\n") != 1 {
		t.Errorf("on the host: got %s, want nothing but lo", got)
	}
}

// TestTogether starts eight containers at once on a host without a bridge.
func TestTogether(t *testing.T) {
	const n = 8
	host := newNetns(t)
	var cs []*netns
	for range n {
		cs = append(cs, newNetns(t))
	}
	errs := make(chan error)
	for i, c := range cs {
		ip := netip.AddrFrom4([4]byte{172, 30, 0, byte(i + 2)})
		e := Endpoint{
			IP: ip, MAC: MAC(ip), Interface: "eth0", Link: VethName(ip.String(), 0),
			Ports: []Port{{HostPort: uint16(8000 + i), ContainerPort: 80, Proto: "tcp"}},
		}
		go func() { errs <- host.run(c, stepsOf(testNetwork("lo"), e)) }()
	}
	for range n {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
	if got := host.sh("nft list map ip glassbox0 published"); strings.Count(got, "tcp .") != n {
		t.Errorf("published: got %s, want %d ports", got, n)
	}
	if got := host.sh("nft list chain ip glassbox0 forward"); strings.Count(got, "iifname \"lo\" drop") != 1 {
		t.Errorf("rules made by several: got %s", got)
	}
	for i, c := range cs {
		if got := c.ask("tcp", fmt.Sprintf("172.30.0.%d:9", (i+1)%n+2), "refused"); got != "refused" {
			t.Errorf("container %d to the next: got %s, want refused", i, got)
		}
	}
}
