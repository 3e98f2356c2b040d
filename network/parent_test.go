package network

import (
	"errors"
	"net/netip"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"glassbox/plan"
	"glassbox/test/netns"
	"glassbox/wire"
)

// needs skips a test on a kernel that can't make links of a kind. The virtual machine's (test/vm.sh) can make all.
func needs(t testing.TB, host *namespace, kind string) {
	t.Helper()
	var err error
	host.Do(func() {
		c, dialErr := wire.Dial(unix.NETLINK_ROUTE)
		if dialErr != nil {
			panic(dialErr)
		}
		defer c.Close()
		err = c.HasDriver(kind)
	})
	if err != nil {
		t.Skip("needs another kernel: ", err)
	}
}

// vlanRows: there are containers of macvlan on a VLAN, which one neighbour is on, too, and one who isn't.
const vlanRows = `
c1 tcp,udp,icmp c2              c2 c1
c1 tcp,udp,icmp tagged          tagged c1
tagged tcp,udp,icmp c1          c1 tagged
outside tcp,icmp c1             lost
host tcp,icmp c1                lost
`

func TestMatrixVLAN(t *testing.T) {
	m := emptyMatrix(t)
	host := m.spaces["host"]
	needs(t, host, "vlan")
	m.far("outside", "out0", "192.0.2", "2001:db8:1")
	host.Sh("ip route add default via 192.0.2.2; ip -6 route add default via 2001:db8:1::2")
	// Another machine at the same cable, whose port of the switch is in VLAN 50 alone.
	tagged := newNetns(t)
	m.spaces["tagged"] = tagged
	outside := m.spaces["outside"]
	outside.Sh("ip link add link eth0 name eth0.50 type vlan id 50")
	if err := outside.run(tagged, []plan.Step{{Op: &plan.LinkMove{Name: "eth0.50", As: "eth0"}}}); err != nil {
		t.Fatal(err)
	}
	tagged.Sh("ip addr add 10.50.0.2/24 dev eth0; ip -6 addr add fd50::2/64 dev eth0 nodad; ip link set lo up")
	m.addrs["tagged"] = pair("10.50.0.2", "fd50::2")
	n := onTop("cable", "out0.50", "bridge", "10.50.0.0/24", "fd50::/64")
	n.VLAN = &plan.LinkVLAN{Name: "out0.50", Parent: "out0", ID: 50}
	m.join("c1", n, 11, Endpoint{})
	m.join("c2", n, 12, Endpoint{})
	m.serve()
	m.look(Store{Config: t.TempDir(), State: t.TempDir()})
	m.rows(vlanRows)
}

// Containers of ipvlan: there is no answer to who asks for their hardware address, and a route through the host leads to them.
const routedRows = `
c1 tcp,udp,icmp c2              c2 c1
c2 tcp,udp,icmp c1              c1 c2
c1 tcp,udp,icmp outside         outside c1
outside tcp,udp,icmp c1         c1 outside
c1 tcp,icmp host-out0           lost
host tcp,icmp c1                lost
neighbour tcp,icmp c1           lost
`

const privateRows = `
c1 tcp,icmp4 c2                 lost
c1 tcp,udp,icmp outside         outside c1
outside tcp,udp,icmp c2         c2 outside
`

// In the modes that are routed the host's rules for output stand in the way of a container, and in l3s those for input, too.
const guardedRows = `
c1 tcp,udp,icmp c2              c2 c1
c1 tcp outside                  lost
c1 udp outside                  outside c1
outside udp c1                  c1 outside
`

func TestMatrixIpvlan(t *testing.T) {
	for _, c := range []struct{ mode, flag, subnet, rules, rows string }{
		{"l2", "", "192.0.2.0/24 2001:db8:1::/64", "", strings.ReplaceAll(routedRows, "neighbour tcp,icmp c1           lost\n", "")},
		{"l3", "", "10.60.0.0/24 fd60::/64", "", routedRows},
		{"l3s", "", "10.60.0.0/24 fd60::/64", "", routedRows},
		{"l3", "private", "10.60.0.0/24 fd60::/64", "", privateRows},
		// The parent's own subnet: neighbours ask who has the address, and nobody answers.
		{"l3", "", "192.0.2.0/24 2001:db8:1::/64", "", "outside tcp,icmp c1 lost\nc1 tcp,icmp c2 c2 c1\n"},
		{"l3", "", "10.60.0.0/24 fd60::/64", "output", guardedRows + "outside tcp c1 lost\n"},
		{"l3s", "", "10.60.0.0/24 fd60::/64", "input", "outside tcp c1 lost\noutside udp c1 c1 outside\nc1 tcp,udp c2 c2 c1\n"},
		{"l3", "", "10.60.0.0/24 fd60::/64", "input", "outside tcp c1 c1 outside\n"},
	} {
		t.Run(strings.TrimRight(strings.Join([]string{c.mode, c.flag, c.subnet[:3], c.rules}, "-"), "-"), func(t *testing.T) {
			m := emptyMatrix(t)
			host := m.spaces["host"]
			needs(t, host, "ipvlan")
			m.far("outside", "out0", "192.0.2", "2001:db8:1")
			m.far("neighbour", "oth0", "198.51.100", "2001:db8:2")
			host.Sh("ip route add default via 192.0.2.2; ip -6 route add default via 2001:db8:1::2")
			if c.rules != "" {
				host.Sh("nft 'table inet own { chain c { type filter hook %s priority 0; meta l4proto tcp drop; }; }'", c.rules)
			}
			v4, v6, _ := strings.Cut(c.subnet, " ")
			n := onTop("cable", "out0", c.mode, v4, v6)
			n.Driver, n.Flag = Ipvlan, c.flag
			m.join("c1", n, 11, Endpoint{})
			m.join("c2", n, 12, Endpoint{})
			m.serve()
			m.look(Store{Config: t.TempDir(), State: t.TempDir()})
			m.rows(c.rows)
		})
	}
}

// TestVLANOfNetwork makes the parents of networks, and takes back those that it made, and no others.
func TestVLANOfNetwork(t *testing.T) {
	host := newNetns(t)
	needs(t, host, "vlan")
	host.Sh("ip link add eth0 type dummy; ip link set eth0 up; ip link add link eth0 name eth0.7 type vlan id 7")
	s := installation(t)
	make := func(name, parent string) (n Network, err error) {
		host.Do(func() {
			n, err = s.Create(Network{Name: name, Driver: Macvlan, Options: map[string]string{"parent": parent}})
		})
		return n, err
	}
	must := func(name, parent string) Network {
		t.Helper()
		n, err := make(name, parent)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	remove := func(n Network) {
		t.Helper()
		host.Do(func() {
			if err := s.Remove(n); err != nil {
				panic(err)
			}
		})
	}
	links := func() string {
		return strings.Join(strings.Fields(host.Sh("ls /sys/class/net 2>/dev/null; ip -o link | sed 's/^[0-9]*: //; s/:.*//; s/@.*//'")), " ")
	}
	a, b, old := must("a", "eth0.50"), must("b", "eth0.50"), must("old", "eth0.7")
	if got := host.Sh("ip -d link show eth0.50"); !strings.Contains(got, "802.1Q id 50") || !strings.Contains(got, "UP") ||
		!strings.Contains(got, "alias glassbox a ") {
		t.Errorf("eth0.50: %s", got)
	}
	if a.VLAN == nil || old.VLAN != nil {
		t.Errorf("steps of a: %v, of one whose VLAN was there before: %v", a.VLAN, old.VLAN)
	}
	remove(a)
	if got := host.Sh("ip -d link show eth0.50"); !strings.Contains(got, "alias glassbox b ") {
		t.Errorf("eth0.50 isn't b's: %s", got)
	}
	// Gone with a boot: the next start makes it again.
	host.Sh("ip link del eth0.50")
	again, err := host.open(s, "b")
	if err != nil || again.VLAN == nil || !strings.Contains(host.Sh("ip link show eth0.50"), "alias glassbox b ") {
		t.Errorf("b after its VLAN was gone: %v, %v", again.VLAN, err)
	}
	remove(b)
	remove(old)
	if got := links(); strings.Contains(got, "eth0.50") || !strings.Contains(got, "eth0.7") {
		t.Errorf("links at the end: %s", got)
	}
}

// A VLAN that somebody else makes at the same moment is his: it isn't marked.
func TestVLANOfOthers(t *testing.T) {
	host := newNetns(t)
	needs(t, host, "vlan")
	host.Sh("ip link add eth0 type dummy; ip link add link eth0 name eth0.9 type vlan id 9")
	host.Do(func() {
		c, err := wire.Dial(unix.NETLINK_ROUTE)
		if err != nil {
			panic(err)
		}
		defer c.Close()
		op := &plan.LinkVLAN{Name: "eth0.9", Parent: "eth0", ID: 9, Mark: "glassbox mine"}
		if err := c.MakeVLAN(op); !errors.Is(err, unix.EEXIST) {
			panic(err)
		}
	})
	if got := host.Sh("ip link show eth0.9"); strings.Contains(got, "alias") {
		t.Errorf("somebody else's VLAN was marked: %s", got)
	}
}

func TestSplitVLAN(t *testing.T) {
	for text, want := range map[string]int{
		"eth0.50": 50, "eth0.1": 1, "eth0.4094": 4094, "eth0": 0, "eth0.": 0, "eth0.0": 0, "eth0.4095": 0, ".5": 0, "eth0.05": 0, "eth0.+5": 0,
		"eth0.5.6": 0, "eth0.x": 0,
	} {
		below, id, err := splitVLAN(text)
		if id != want && err == nil || (err == nil) != (want != 0) || err == nil && below != "eth0" {
			t.Errorf("%s: %s %d %v, want %d", text, below, id, err, want)
		}
	}
}

// TestParentWrong are networks that can't be on one parent, or on none. It needs no kernel with ipvlan: records are enough.
func TestParentWrong(t *testing.T) {
	netns.NeedRoot(t)
	s := installation(t)
	if err := errors.Join(os.MkdirAll(s.Config, 0o755), os.MkdirAll(s.State, 0o755)); err != nil {
		t.Fatal(err)
	}
	there := Network{
		Version: version, ID: newID(), Name: "there", Driver: Ipvlan, Parent: "eth0", Mode: "l3",
		Subnets: []Subnet{{Prefix: netip.MustParsePrefix("10.1.0.0/24")}},
	}
	if err := s.write(there); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		n    Network
		want string
	}{
		{Network{Driver: Macvlan, Parent: "eth0"}, "of driver ipvlan: a link carries one or the other"},
		{Network{Driver: Ipvlan, Parent: "eth0", Mode: "l2"}, "of mode l3: all that is on top of one link has one mode"},
		{Network{Driver: Ipvlan, Parent: "eth0", Mode: "l3", Flag: "private"}, "of mode l3: all that is on top of one link has one mode"},
		{Network{Driver: Ipvlan, Parent: "eth0", Mode: "l3"}, ""},
		{Network{Driver: Ipvlan, Parent: "eth1", Mode: "l2"}, ""},
	} {
		c.n.Name = "new"
		err := s.agrees(c.n)
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%+v: %v, want %q", c.n, err, c.want)
		}
	}
	for _, c := range []struct{ driver, key, value, want string }{
		{Ipvlan, "ipvlan_mode", "l4", "has no mode l4"},
		{Ipvlan, "ipvlan_flag", "loud", "want bridge, private or vepa"},
		{Macvlan, "ipvlan_flag", "private", "is none of driver macvlan"},
		{Ipvlan, "ipvlan_mode", "l3s", ""},
	} {
		n := Network{Name: "new", Driver: c.driver, Options: map[string]string{"parent": "eth0", c.key: c.value}}
		err := n.check()
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s=%s: %v, want %q", c.key, c.value, err, c.want)
		}
	}
}
