package network

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"glassbox/wire"

	"github.com/google/go-cmp/cmp"
)

// installation is a root and a state directory of its own.
func installation(t *testing.T) Store {
	dir := t.TempDir()
	return Store{Config: filepath.Join(dir, "root", "network"), State: filepath.Join(dir, "state", "network")}
}

// open opens a network in a namespace.
func (ns *namespace) open(s Store, name string) (n Network, err error) {
	ns.Do(func() { n, err = s.Open(name) })
	return n, err
}

func (ns *namespace) mustOpen(s Store) Network {
	ns.T.Helper()
	n, err := ns.open(s, Bridge)
	if err != nil {
		ns.T.Fatal(err)
	}
	return n
}

// TestInstallations starts containers at the same moment in four installations on a host that has none: none shares a bridge, a subnet,
// a table or an address with another, each container reaches its neighbour of the same installation, and none those of another.
func TestInstallations(t *testing.T) {
	const each = 3
	for round := range 5 {
		host := newNetns(t)
		host.Sh("ip link set lo up")
		stores := []Store{installation(t), installation(t), installation(t), installation(t)}
		// The third has the root of the second and a state directory of its own, the fourth the other way round.
		stores[2].Config, stores[3].State = stores[1].Config, stores[0].State
		type started struct {
			n  Network
			e  Endpoint
			ns *namespace
		}
		boxes := make([][each]started, len(stores))
		var wg sync.WaitGroup
		for i, s := range stores {
			for j := range each {
				c := newNetns(t)
				wg.Go(func() {
					id := fmt.Sprintf("%012x", 256*i+j)
					n, err := host.open(s, Bridge)
					if err != nil {
						t.Error(err)
						return
					}
					ip, err := s.Lease(n, id, netip.Addr{})
					if err != nil {
						t.Error(err)
						return
					}
					e := Endpoint{Network: n.Name, Interface: "eth0", Link: VethName(id, 0), IP: ip, MAC: wire.MAC(ip)}
					if err := host.run(c, stepsOf(n, e)); err != nil {
						t.Error(err)
					}
					boxes[i][j] = started{n, e, c}
				})
			}
		}
		wg.Wait()
		if t.Failed() {
			t.Fatalf("round %d: %s", round, host.Sh("ip -d link; ip addr"))
		}
		addresses := map[netip.Addr]string{}
		for i := range boxes {
			n := boxes[i][0].n
			for j, b := range boxes[i] {
				if b.n.Link != n.Link || b.n.IPv4() != n.IPv4() {
					t.Errorf("installation %d: containers on %s %v and %s %v", i, n.Link, n.IPv4(), b.n.Link, b.n.IPv4())
				}
				who := fmt.Sprintf("%d/%d", i, j)
				if other := addresses[b.e.IP]; other != "" {
					t.Errorf("containers %s and %s have the same address %s", other, who, b.e.IP)
				}
				addresses[b.e.IP] = who
			}
			for j := range i {
				if m := boxes[j][0].n; m.Link == n.Link || m.Table() == n.Table() || m.IPv4().Prefix.Overlaps(n.IPv4().Prefix) {
					t.Errorf("installations %d and %d: %s %v and %s %v", i, j, n.Link, n.IPv4(), m.Link, m.IPv4())
				}
			}
		}
		if t.Failed() {
			t.FailNow()
		}
		for i := range boxes {
			if got := boxes[i][0].ns.ask("tcp", boxes[i][1].e.IP.String()+":9", "refused"); got != "refused" {
				t.Errorf("installation %d: a neighbour: got %q", i, got)
			}
			if got := boxes[i][0].ns.ask("tcp", boxes[(i+1)%4][0].e.IP.String()+":9", "silence"); got != "silence" {
				t.Errorf("installation %d: a container of another: got %q", i, got)
			}
		}
		// Whose is it? The bridge says so, and another start changes nothing.
		for i, s := range stores {
			n := boxes[i][0].n
			if got := host.Sh("ip link show %s", n.Link); !strings.Contains(got, "alias glassbox bridge "+n.IPv4().Prefix.String()+" "+n.ID[:12]) {
				t.Errorf("mark: got %q", got)
			}
			if again := host.mustOpen(s); again.Link != n.Link || again.IPv4() != n.IPv4() {
				t.Errorf("opened again: got %s %v, want %s %v", again.Link, again.IPv4(), n.Link, n.IPv4())
			}
		}
	}
}

// TestUpdate uses what an earlier version left: its record, its leases and its bridge, while containers run.
func TestUpdate(t *testing.T) {
	s := installation(t)
	host, c1, c2 := newNetns(t), newNetns(t), newNetns(t)
	write := func(name, text string) {
		t.Helper()
		if err := errors.Join(os.MkdirAll(filepath.Dir(name), 0o700), os.WriteFile(name, []byte(text), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	write(filepath.Join(s.Config, "glassbox0.json"), `{"subnet":"172.29.0.0/16"}`+"\n")
	write(filepath.Join(s.State, "last"), "172.29.0.3\n")
	write(filepath.Join(s.State, "opened.json"), "[]\n")
	old := filepath.Join(s.State, "leases")
	if err := os.Mkdir(old, 0o700); err != nil {
		t.Fatal(err)
	}
	for ip, id := range map[string]string{"172.29.0.2": "old", "172.29.0.3": "dead"} {
		if err := os.Symlink(id, filepath.Join(old, ip)); err != nil {
			t.Fatal(err)
		}
	}
	n := testNetwork()
	n.Subnets = []Subnet{{Prefix: netip.MustParsePrefix("172.29.0.0/16"), Gateway: netip.MustParseAddr("172.29.0.1")}}
	running := Endpoint{
		Interface: "eth0", Link: VethName("old", 0), IP: netip.MustParseAddr("172.29.0.2"), Ports: parsePorts(t, "8080:80"),
	}
	if err := host.run(c1, stepsOf(n, running)); err != nil {
		t.Fatal(err)
	}
	// A bridge without a mark is that of whoever has it in his record, and nobody else's.
	if other := host.mustOpen(installation(t)); other.Link != "glassbox1" || other.IPv4().Prefix.Overlaps(n.IPv4().Prefix) {
		t.Errorf("another installation: got %s %v", other.Link, other.IPv4())
	}

	alive := func(id string) bool { return id != "dead" }
	var err error
	host.Do(func() { err = s.Repair(alive) })
	if err != nil {
		t.Error(err)
	}
	got := host.mustOpen(s)
	if got.Link != "glassbox0" || got.IPv4() != n.IPv4() {
		t.Fatalf("got %s %v, want glassbox0 %v", got.Link, got.IPv4(), n.IPv4())
	}
	if _, err := s.Lease(got, "new", netip.MustParseAddr("172.29.0.2")); err == nil {
		t.Error("the address of a running container: leased again")
	}
	ip, err := s.Lease(got, "new", netip.Addr{})
	if err != nil || ip.String() != "172.29.0.4" {
		t.Errorf("lease: got %v, %v, want the one after the last, 172.29.0.4", ip, err)
	}
	if err := host.run(c2, stepsOf(got, Endpoint{Interface: "eth0", Link: VethName("new", 0), IP: ip})); err != nil {
		t.Fatal(err)
	}
	if got := c2.ask("tcp", "172.29.0.2:9", "refused"); got != "refused" {
		t.Errorf("from the new container to the old one: got %q", got)
	}
	leases, err := s.Leases(Bridge)
	if diff := cmp.Diff(map[string]string{"172.29.0.2": "old", "172.29.0.4": "new"}, stringKeys(leases)); diff != "" || err != nil {
		t.Errorf("leases (-want +got):\n%s%v", diff, err)
	}
	// The supervisor that was started before the update gives its address back where it took it.
	if err := os.Remove(filepath.Join(old, "172.29.0.2")); err != nil {
		t.Error(err)
	}
	if leases, _ := s.Leases(Bridge); len(leases) != 1 {
		t.Errorf("leases after the end of the old container: got %v", leases)
	}
	if _, err := os.Stat(filepath.Join(s.Config, "glassbox0.json")); !os.IsNotExist(err) {
		t.Errorf("the old record: got %v, want it gone", err)
	}
	if got := host.Sh("nft list map ip glassbox0 published"); !strings.Contains(got, "8080") {
		t.Errorf("published ports of the old container: got %s", got)
	}
}

// TestBoot: what is chosen while an installation's bridge isn't there may be its name and subnet. It then takes others.
func TestBoot(t *testing.T) {
	a, b := installation(t), installation(t)
	first := newNetns(t)
	want := first.mustOpen(a)
	again := newNetns(t) // the host, after a boot
	if got := again.mustOpen(b); got.Link != want.Link || got.IPv4() != want.IPv4() {
		t.Fatalf("on a host without a bridge: got %s %v, want %s %v", got.Link, got.IPv4(), want.Link, want.IPv4())
	}
	got := again.mustOpen(a)
	if got.Link != "glassbox1" || got.IPv4().Prefix.Overlaps(want.IPv4().Prefix) {
		t.Errorf("after the other: got %s %v", got.Link, got.IPv4())
	}
	if got := again.mustOpen(b); got.Link != want.Link || got.IPv4() != want.IPv4() {
		t.Errorf("the other once more: got %s %v, want %s %v", got.Link, got.IPv4(), want.Link, want.IPv4())
	}
	// An installation that is gone leaves its name and subnet to others, and none of its published ports.
	again.Sh("nft add table ip glassbox0")
	again.Sh("nft add map ip glassbox0 published '{ type inet_proto . inet_service : ipv4_addr . inet_service ; }'")
	again.Sh("nft add element ip glassbox0 published '{ tcp . 8080 : 172.30.0.2 . 80 }'")
	if err := os.RemoveAll(b.Config); err != nil {
		t.Fatal(err)
	}
	c := installation(t)
	if got := again.mustOpen(c); got.Link != want.Link || got.IPv4() != want.IPv4() {
		t.Errorf("where one is gone: got %s %v, want %s %v", got.Link, got.IPv4(), want.Link, want.IPv4())
	}
	if got := again.Sh("nft list ruleset"); got != "" {
		t.Errorf("the table of the one that is gone: got %s", got)
	}
	// But not while something is plugged in.
	if err := os.RemoveAll(a.Config); err != nil {
		t.Fatal(err)
	}
	again.Sh("ip link add x0 type veth peer name x1; ip link set x0 master glassbox1")
	if got := again.mustOpen(installation(t)); got.Link != "glassbox2" {
		t.Errorf("where one seems gone, and a container is plugged in: got %s", got.Link)
	}
}

// TestKilledInTheMaking: a bridge that somebody made, and was killed before he marked it, keeps nobody away.
func TestKilledInTheMaking(t *testing.T) {
	host := newNetns(t)
	host.Sh("ip link add glassbox0 type bridge")
	if got := host.mustOpen(installation(t)); got.Link != "glassbox0" {
		t.Errorf("got %s", got.Link)
	}
	host = newNetns(t)
	host.Sh("ip link add glassbox0 type bridge; ip link set glassbox0 up") // an administrator's
	if got := host.mustOpen(installation(t)); got.Link != "glassbox1" {
		t.Errorf("beside a bridge of somebody: got %s", got.Link)
	}
	host = newNetns(t)
	host.Sh("ip link add glassbox0 type veth peer name x1")
	if got := host.mustOpen(installation(t)); got.Link != "glassbox1" {
		t.Errorf("beside another device: got %s", got.Link)
	}
	// Nor does it stay when its network goes, whether the record has its name or not.
	for _, named := range []bool{true, false} {
		host = newNetns(t)
		s := installation(t)
		var n Network
		var err error
		host.Do(func() { n, err = s.Create(Network{Name: "made"}) })
		if err != nil {
			t.Fatal(err)
		}
		host.Sh("ip link set %s down; ip link set %s alias ''", n.Link, n.Link)
		record := n
		if !named {
			record.Link = ""
		}
		if err := s.write(record); err != nil {
			t.Fatal(err)
		}
		host.Do(func() { err = s.Remove(n) })
		if err != nil {
			t.Fatal(err)
		}
		if got := host.Sh("ip -br link show type bridge"); got != "" {
			t.Errorf("named %v: after its network's removal there is %s", named, got)
		}
	}
}

func TestBuiltin(t *testing.T) {
	s := installation(t)
	for name, want := range map[string]int{None: 1, Host: 0} {
		n, err := s.Open(name)
		if err != nil {
			t.Fatal(err)
		}
		if steps := stepsOf(n, Endpoint{}); len(steps) != want {
			t.Errorf("%s: got %d steps, want %d", name, len(steps), want)
		}
	}
	if _, err := os.Stat(s.State); !os.IsNotExist(err) {
		t.Errorf("networks without a bridge left files: %v", err)
	}
	for _, name := range []string{"other", "..", "a/b", "", "x\x00", "-a"} {
		if n, err := s.Open(name); err == nil {
			t.Errorf("network %q: got %+v", name, n)
		}
	}
	if _, err := s.Open("other"); !errors.Is(err, ErrNotFound) {
		t.Errorf("a network that isn't there: got %v", err)
	}
	if _, err := Steps(Network{Name: "x", Driver: "carrier-pigeon"}, Endpoint{}, testOrigin); err == nil {
		t.Error("a driver that isn't there: got no error")
	}
}

func TestRecord(t *testing.T) {
	n := Network{
		Version: 1, ID: newID(), Name: Bridge, Driver: Bridge, Link: "glassbox0",
		Subnets: []Subnet{{Prefix: netip.MustParsePrefix("10.0.0.0/24"), Gateway: netip.MustParseAddr("10.0.0.9")}},
	}
	data, err := json.Marshal(n)
	if err != nil {
		t.Fatal(err)
	}
	got, err := parseRecord(Bridge, data)
	if diff := cmp.Diff(n, got, cmp.Comparer(func(a, b Subnet) bool { return a == b }),
		cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); diff != "" || err != nil {
		t.Errorf("record (-want +got):\n%s%v", diff, err)
	}
	got, err = parseRecord(Bridge, []byte(`{"subnet": "10.1.2.3/24"}`))
	want := Subnet{Prefix: netip.MustParsePrefix("10.1.2.0/24"), Gateway: netip.MustParseAddr("10.1.2.1")}
	if err != nil || got.IPv4() != want {
		t.Errorf("an administrator's: got %+v, %v", got, err)
	}
	for text, want := range map[string]string{
		`{"version":2}`:                           "newer glassbox",
		`{"subnet":"10.0.0.0/31"}`:                "room for two addresses",
		`{"subnet":"fd00::/127"}`:                 "room for two addresses",
		`{"version":1,"link":"a b"}`:              "invalid character",
		`{"version":1,"link":"0123456789abcdef"}`: "1 to 15 bytes",
		`{"version":1,"subnets":[{"subnet":"10.0.0.0/24","gateway":"10.0.1.1"}]}`: "is not in",
	} {
		if _, err := parseRecord(Bridge, []byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want error with %q", text, err, want)
		}
	}
}

func TestOwner(t *testing.T) {
	long := "/" + strings.Repeat("x", 300)
	for _, s := range []Store{{"/var/lib/glassbox/network", "/run/glassbox/network"}, {long, long + "y"}, {"/a b", "/c\nd"}, {"", ""}} {
		for _, name := range []string{Bridge, strings.Repeat("n", 128)} {
			n := Network{Name: name, ID: newID(), Subnets: []Subnet{{Prefix: netip.MustParsePrefix("255.255.255.255/32")}}}
			text := s.owner(n).String()
			o, ok := parseOwner(text)
			if !ok || len(text) > 255 || !s.owns(o, n) || o.subnet != n.IPv4().Prefix {
				t.Errorf("%d bytes %q: got %+v, %v", len(text), text, o, ok)
			}
			if (Store{s.Config, "/elsewhere"}).owns(o, n) {
				t.Errorf("%q: another state directory owns it, too", text)
			}
			n.ID = newID()
			if s.owns(o, n) {
				t.Errorf("%q: another network owns it, too", text)
			}
		}
	}
	// The same directory by another name is the same installation.
	dir := t.TempDir()
	if err := os.Symlink(dir, dir+"/link"); err != nil {
		t.Fatal(err)
	}
	n := Network{Name: Bridge, ID: newID(), Subnets: []Subnet{{Prefix: netip.MustParsePrefix("10.0.0.0/8")}}}
	o, _ := parseOwner(Store{dir, dir}.owner(n).String())
	if !(Store{dir, dir + "/link"}).owns(o, n) {
		t.Error("a link to the state directory: it is taken for another")
	}
	for _, text := range []string{
		"", "glassbox", "mine", "glassbox bridge nonsense 0123456789ab /a /b", "glassbox bridge 10.0.0.0/8 01 /a /b more",
		"glassbox bridge 10.0.0.0/8 0123456789abc /a /b",
	} {
		if o, ok := parseOwner(text); ok {
			t.Errorf("%q: got %+v", text, o)
		}
	}
}

// TestChoosing lets eight installations choose at the same moment, again and again.
func TestChoosing(t *testing.T) {
	host := newNetns(t)
	for round := range 12 {
		var stores [8]Store
		var networks [8]Network
		var wg sync.WaitGroup
		begin := make(chan struct{})
		for i := range stores {
			stores[i] = installation(t)
			if round%2 == 0 { // as after a boot: all remember one subnet, with bridges of different names
				n := Network{Version: 1, ID: newID(), Name: Bridge, Driver: Bridge, Link: fmt.Sprint("glassbox", i), Subnets: testNetwork().Subnets}
				if err := stores[i].write(n); err != nil {
					t.Fatal(err)
				}
			}
			wg.Go(func() {
				<-begin
				var err error
				if networks[i], err = host.open(stores[i], Bridge); err != nil {
					t.Error(err)
				}
			})
		}
		close(begin)
		wg.Wait()
		for i, n := range networks {
			for _, m := range networks[:i] {
				if m.Link == n.Link || m.IPv4().Prefix.Overlaps(n.IPv4().Prefix) {
					t.Errorf("round %d: %s %v and %s %v", round, n.Link, n.IPv4().Prefix, m.Link, m.IPv4().Prefix)
				}
			}
		}
		if got := host.Sh("ip -br link show type bridge"); strings.Count(got, "\n") != len(networks) {
			t.Errorf("round %d: bridges: got %s, want %d", round, got, len(networks))
		}
		if t.Failed() {
			return
		}
		for _, s := range stores { // given up: the next ones take their names over, or find them in use
			os.RemoveAll(s.Config)
		}
		if round%2 == 1 {
			host.Sh("for b in $(ip -o link show type bridge | cut -d: -f2); do ip link del $b; done")
		}
	}
}

// A network can be named like the ID of another one, or its beginning.
func TestFindNamedLikeID(t *testing.T) {
	host, s := newNetns(t), installation(t)
	create := func(name string) (n Network) {
		t.Helper()
		var err error
		host.Do(func() { n, err = s.Create(Network{Name: name}) })
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	first := create("first")
	create(first.ID[:12])
	create(first.ID)
	for ref, want := range map[string]string{first.ID: "first", first.ID[:12]: first.ID[:12], first.ID[:16]: "first", "first": "first"} {
		got, err := s.Find(ref)
		if err != nil || got.Name != want {
			t.Errorf("%s: got %s, %v, want %s", ref, got.Name, err, want)
		}
	}
}
