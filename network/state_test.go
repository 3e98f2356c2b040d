package network

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"glassbox/container"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

func TestLease(t *testing.T) {
	dir := t.TempDir()
	b := Network{Name: Bridge, Subnets: []Subnet{{Prefix: netip.MustParsePrefix("10.200.0.0/29"), Gateway: netip.MustParseAddr("10.200.0.1")}}}
	store := Store{State: dir}
	var got []string
	for i := range 5 {
		a, err := store.Lease(b, fmt.Sprint("c", i), netip.Addr{})
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, a.String())
	}
	if diff := cmp.Diff([]string{"10.200.0.2", "10.200.0.3", "10.200.0.4", "10.200.0.5", "10.200.0.6"}, got); diff != "" {
		t.Errorf("addresses (-want +got):\n%s", diff)
	}
	if _, err := store.Lease(b, "c5", netip.Addr{}); !errors.Is(err, unix.EADDRNOTAVAIL) {
		t.Errorf("lease of a full subnet: got %v, want EADDRNOTAVAIL", err)
	}
	addr := func(s string) netip.Addr { return netip.MustParseAddr(s) }
	if err := store.Release(Bridge, addr("10.200.0.3"), "c4"); err != nil {
		t.Error(err)
	}
	if _, err := store.Lease(b, "new", addr("10.200.0.3")); !errors.Is(err, unix.EADDRINUSE) {
		t.Errorf("lease of an address that another container has: got %v, want EADDRINUSE", err)
	}
	for range 2 {
		if err := store.Release(Bridge, addr("10.200.0.3"), "c1"); err != nil {
			t.Error(err)
		}
	}
	for range 2 { // a container may ask again for what it has
		if a, err := store.Lease(b, "new", addr("10.200.0.3")); err != nil || a != addr("10.200.0.3") {
			t.Errorf("lease of a free address: got %s, %v", a, err)
		}
	}
	for _, bad := range []string{"10.200.0.1", "10.200.0.0", "10.200.0.7", "10.200.0.9", "::1"} {
		if _, err := store.Lease(b, "new", addr(bad)); err == nil {
			t.Errorf("lease of %s: got no error", bad)
		}
	}
	// An address isn't used again at once: the next free one after the last.
	if err := errors.Join(store.Release(Bridge, addr("10.200.0.6"), "c4"), store.Release(Bridge, addr("10.200.0.2"), "c0")); err != nil {
		t.Error(err)
	}
	if a, err := store.Lease(b, "c6", netip.Addr{}); err != nil || a != addr("10.200.0.2") {
		t.Errorf("lease after a release: got %s, %v, want 10.200.0.2", a, err)
	}
	if err := os.WriteFile(filepath.Join(dir, Bridge, "last"), []byte("nonsense"), 0o600); err != nil {
		t.Fatal(err)
	}
	if a, err := store.Lease(b, "c7", netip.Addr{}); err != nil || a != addr("10.200.0.6") {
		t.Errorf("lease with a broken hint: got %s, %v, want 10.200.0.6", a, err)
	}
}

// TestLeaseProcesses lets eight processes lease at the same time.
func TestLeaseProcesses(t *testing.T) {
	const processes, each = 8, 25
	b := Network{Name: Bridge, Subnets: []Subnet{{Prefix: netip.MustParsePrefix("10.200.0.0/24"), Gateway: netip.MustParseAddr("10.200.0.1")}}}
	if dir := os.Getenv("GLASSBOX_TEST_LEASE"); dir != "" {
		for i := range each {
			if _, err := (Store{State: dir}).Lease(b, fmt.Sprintf("%d-%d", os.Getpid(), i), netip.Addr{}); err != nil {
				t.Fatal(err)
			}
		}
		return
	}
	dir := t.TempDir()
	var cmds []*exec.Cmd
	for range processes {
		cmd := exec.Command(os.Args[0], "-test.run=^TestLeaseProcesses$")
		cmd.Env = append(os.Environ(), "GLASSBOX_TEST_LEASE="+dir)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		cmds = append(cmds, cmd)
	}
	for _, cmd := range cmds {
		if err := cmd.Wait(); err != nil {
			t.Error(err)
		}
	}
	leases, err := (Store{State: dir}).Leases(Bridge)
	ids := map[string]bool{}
	for _, id := range leases {
		ids[id] = true
	}
	if err != nil || len(leases) != processes*each || len(ids) != processes*each {
		t.Errorf("got %d leases of %d containers, %v; want %d", len(leases), len(ids), err, processes*each)
	}
}

func TestDefaultBridge(t *testing.T) {
	state, config := filepath.Join(t.TempDir(), "state"), filepath.Join(t.TempDir(), "config")
	ns, outside := newNetns(t), newNetns(t)
	store := Store{config, state}
	get := func() Network {
		t.Helper()
		var b Network
		var err error
		ns.Do(func() { b, err = store.Open(Bridge) })
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	want := func(what, subnet string, mtu int, opened ...string) Network {
		t.Helper()
		b := get()
		got := fmt.Sprint(b.IPv4().Prefix, b.IPv4().Gateway, b.MTU, b.Opened)
		p := netip.MustParsePrefix(subnet)
		if want := fmt.Sprint(p, p.Addr().Next(), mtu, opened); got != want {
			t.Errorf("%s: got %s, want %s", what, got, want)
		}
		return b
	}
	// d0 is down: an address without a route.
	ns.Sh("ip link set lo up; ip link add d0 type veth peer name d1; ip link set d1 up; ip addr add 172.30.4.1/24 dev d0")
	b := want("an address in the first candidate", "172.29.0.0/16", 1500)
	if err := ns.run(newNetns(t), stepsOf(b, Endpoint{IP: netip.MustParseAddr("172.29.0.2"), Interface: "eth0", Link: "gbx"})); err != nil {
		t.Fatal(err)
	}
	want("its own bridge is no hindrance", "172.29.0.0/16", 1500)

	ns.Sh("ip link set d0 mtu 1400; ip link set d0 up; ip route add default via 172.30.4.9 dev d0")
	want("an outside", "172.29.0.0/16", 1400, "d0")
	ns.Sh("echo 1 > /proc/sys/net/ipv4/conf/d0/forwarding")
	want("an outside that glassbox has opened", "172.29.0.0/16", 1400, "d0")
	ns.Sh("ip route del default; ip addr flush dev d0")
	want("an opened interface stays guarded", "172.29.0.0/16", 1500, "d0")
	ns.Sh("echo 1 > /proc/sys/net/ipv4/ip_forward")
	want("the host has become a router", "172.29.0.0/16", 1500)
	ns.Sh("echo 0 > /proc/sys/net/ipv4/ip_forward; ip addr add 192.0.2.1/24 dev d0")
	want("it is none any more", "172.29.0.0/16", 1500, "d0")

	if _, err := store.Lease(b, "c", netip.Addr{}); err != nil {
		t.Fatal(err)
	}
	ns.Sh("ip route add 172.29.8.0/24 via 192.0.2.9")
	want("an overlap, but a container uses the subnet", "172.29.0.0/16", 1500, "d0")
	if err := store.Release(Bridge, netip.MustParseAddr("172.29.0.2"), "c"); err != nil {
		t.Fatal(err)
	}
	b = want("an overlap", "172.30.0.0/16", 1500, "d0")
	if err := ns.run(outside, stepsOf(b, Endpoint{IP: netip.MustParseAddr("172.30.0.2"), Interface: "eth0", Link: "gby"})); err != nil {
		t.Fatal(err)
	}
	if got := ns.Sh("ip -4 -br addr show glassbox0"); !strings.Contains(got, "172.30.0.1/16") || strings.Contains(got, "172.29") {
		t.Errorf("address of the bridge after a new choice: got %s", got)
	}
	used := []netip.Prefix{netip.MustParsePrefix("172.16.0.0/12"), netip.MustParsePrefix("10.200.0.0/23")}
	if got := pick(used); got.String() != "10.200.2.0/24" {
		t.Errorf("pick: got %s, want 10.200.2.0/24", got)
	}
	if got := pick([]netip.Prefix{netip.MustParsePrefix("172.16.0.0/12"), netip.MustParsePrefix("10.0.0.0/8")}); got.IsValid() {
		t.Errorf("pick where nothing is free: got %s", got)
	}
}

func TestRepair(t *testing.T) {
	store := Store{t.TempDir(), t.TempDir()}
	host, c1, c2 := newNetns(t), newNetns(t), newNetns(t)
	alive := func(id string) bool { return id == "alive" }
	repair := func() {
		t.Helper()
		var err error
		host.Do(func() { err = store.Repair(alive) })
		if err != nil {
			t.Error(err)
		}
	}
	repair() // nothing there yet
	var b Network
	var err error
	host.Do(func() { b, err = store.Open(Bridge) })
	if err != nil {
		t.Fatal(err)
	}
	for i, id := range []string{"alive", "dead"} {
		ip, err := store.Lease(b, id, netip.Addr{})
		if err != nil {
			t.Fatal(err)
		}
		port := uint16(8000 + i)
		e := Endpoint{IP: ip, Interface: "eth0", Link: VethName(id, 0), Ports: []container.Port{
			{HostPort: port, ContainerPort: 80, Proto: "tcp"},
			{HostIP: netip.MustParseAddr("127.0.0.1"), HostPort: port, ContainerPort: 80, Proto: "udp"},
		}}
		if err := host.run([]*namespace{c1, c2}[i], stepsOf(b, e)); err != nil {
			t.Fatal(err)
		}
	}
	host.Sh("ip link add foreign type veth peer name foreign2; ip link set foreign master glassbox0")
	for range 2 {
		repair()
		leases, _ := store.Leases(Bridge)
		if diff := cmp.Diff(map[string]string{"172.30.0.2": "alive"}, stringKeys(leases)); diff != "" {
			t.Errorf("leases (-want +got):\n%s", diff)
		}
		maps := host.Sh("nft list table ip glassbox0")
		if !strings.Contains(maps, "8000") || strings.Contains(maps, "8001") {
			t.Errorf("published ports: got %s", maps)
		}
		links := host.Sh("ip -br link")
		if !strings.Contains(links, VethName("alive", 0)) || strings.Contains(links, VethName("dead", 0)) || !strings.Contains(links, "foreign") {
			t.Errorf("links: got %s", links)
		}
	}
}

func stringKeys(m map[netip.Addr]string) map[string]string {
	out := map[string]string{}
	for k, v := range m {
		out[k.String()] = v
	}
	return out
}

func TestReserve(t *testing.T) {
	ns := newNetns(t)
	ns.Sh("ip link set lo up; ip addr add 192.0.2.1/32 dev lo")
	take := func(spec string) (ports []container.Port, fds []int, err error) {
		t.Helper()
		ports = parsePorts(t, spec)
		ns.Do(func() { fds, err = Reserve(ports) })
		return ports, fds, err
	}
	free := func(fds []int) {
		for _, fd := range fds {
			unix.Close(fd)
		}
	}
	inUse := func(spec string) {
		t.Helper()
		_, fds, err := take(spec)
		if !errors.Is(err, unix.EADDRINUSE) || fds != nil {
			t.Errorf("reserve %s: got %v, want EADDRINUSE", spec, err)
		}
	}
	_, fds, err := take("8080-8082:80-82")
	if err != nil || len(fds) != 3 {
		t.Fatalf("got %v, %v", fds, err)
	}
	inUse("8080:80")
	inUse("127.0.0.1:8081:80")
	inUse("8079-8080:1-2") // and 8079 is free again:
	_, more, err := take("8079:80")
	if err != nil {
		t.Error(err)
	}
	free(more)
	ns.Do(func() { // net.Listen sets SO_REUSEADDR, as servers do
		if l, err := net.Listen("tcp4", ":8080"); !errors.Is(err, unix.EADDRINUSE) {
			t.Errorf("a server on a reserved port: got %v, want EADDRINUSE", err)
			l.Close()
		}
	})
	free(fds)

	ns.Do(func() {
		l, err := net.Listen("tcp4", "192.0.2.1:8080")
		if err != nil {
			t.Error(err)
			return
		}
		inUse("8080:80")
		inUse("192.0.2.1:8080:80")
		_, fds, err := take("127.0.0.1:8080:80")
		if err != nil {
			t.Error(err)
		}
		free(fds)
		// A connection closed by the server leaves TIME_WAIT behind, which must not count.
		c, err := net.Dial("tcp4", "192.0.2.1:8080")
		if err != nil {
			t.Error(err)
			return
		}
		s, _ := l.Accept()
		s.Close()
		c.Close()
		l.Close()
	})
	_, fds, err = take("8080:80")
	if err != nil {
		t.Errorf("a port with connections in TIME_WAIT: %v", err)
	}
	inUse("8080:80")
	ns.Do(func() {
		if l, err := net.Listen("tcp4", ":8080"); !errors.Is(err, unix.EADDRINUSE) {
			t.Errorf("a server on a reserved port: got %v, want EADDRINUSE", err)
			l.Close()
		}
	})
	free(fds)

	ports, fds, err := take("80/udp")
	if err != nil || ports[0].HostPort == 0 {
		t.Errorf("a free port: got %v, %v", ports, err)
	}
	inUse(fmt.Sprintf("%d:80/udp", ports[0].HostPort))
	free(fds)
	_, fds, err = take("7000:80")
	if err != nil {
		t.Error(err)
	}
	ports, more, err = take("7000-7001:80")
	if err != nil || ports[0].HostPort != 7001 || ports[0].HostEnd != 0 {
		t.Errorf("a free port of a range: got %v, %v, want 7001", ports, err)
	}
	inUse("7000-7001:80")
	free(fds)
	free(more)
	if _, _, err := take("203.0.113.1:80:80"); !errors.Is(err, unix.EADDRNOTAVAIL) {
		t.Errorf("an address that the host doesn't have: got %v, want EADDRNOTAVAIL", err)
	}
	_, fds, err = take("[::1]:7002:80")
	if err != nil {
		t.Errorf("IPv6: %v", err)
	}
	inUse("[::1]:7002:80")
	if _, more, err := take("127.0.0.1:7002:80"); err != nil { // another version, another port
		t.Error(err)
	} else {
		free(more)
	}
	free(fds)
}
