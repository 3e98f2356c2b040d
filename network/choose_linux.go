package network

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"time"

	"glassbox/wire"

	"golang.org/x/sys/unix"
)

// Open returns a network as it is to be used for a start. The default network, "bridge", is made when it is first asked for: with a
// bridge that no other installation has, and a subnet that is free on this host, which means that no route and no address of the
// current network namespace overlaps with it. The choice is remembered. It is made again when something else has come to overlap
// and no container has an address in it, or when another installation has taken the bridge's name meanwhile. Open also finds out on which
// interfaces forwarding has to be switched on. The error is ErrNotFound for a name that nobody has made.
func (s Store) Open(name string) (Network, error) {
	if n, ok := builtin(name); ok {
		return n, nil
	}
	unlock, err := lock(s.State)
	if err == nil {
		defer unlock()
		var n Network
		if n, err = s.open(name, true); err == nil {
			return n, nil
		}
	}
	return Network{}, fmt.Errorf("network %s: %w", name, err)
}

// Likely returns what Open would return now. It writes nothing and needs no privilege.
func (s Store) Likely(name string) (Network, error) {
	if n, ok := builtin(name); ok {
		return n, nil
	}
	n, err := s.open(name, false)
	if err != nil {
		return Network{}, fmt.Errorf("network %s: %w", name, err)
	}
	return n, nil
}

func (s Store) open(name string, claim bool) (Network, error) {
	n, written, err := s.read(name)
	if err != nil {
		return n, err
	}
	if n.onParent() {
		return s.openParent(n, claim)
	}
	if err := checkDriver(n.Driver); err != nil { // another version's
		return n, err
	}
	c, err := wire.Dial(unix.NETLINK_ROUTE)
	if err != nil {
		return n, err
	}
	defer c.Close()
	if !written && !claim && os.Geteuid() != 0 {
		// An ordinary user looks at what root would do, and can't read root's record.
		n = asMarked(c, n)
	}
	own := -1
	if n.Link != "" {
		switch l, err := c.Link(n.Link, 0); {
		case err == nil && s.ours(l, n):
			own = l.Index
		case err != nil && !errors.Is(err, unix.ENODEV):
			return n, fmt.Errorf("link %s: %w", n.Link, err)
		}
	}
	routes, err := c.Routes()
	if err != nil {
		return n, fmt.Errorf("routes: %w", err)
	}
	// The bridge is made with the MTU. Routes to it are no matter: it has none yet, or they are left out.
	if n.MTU, n.Opened, n.Uplinks, err = outside(c, routes, own, filepath.Join(s.State, "opened.json"), claim); err != nil {
		return n, err
	}
	if n.FixedMTU > 0 {
		n.MTU = n.FixedMTU
	}
	if n.Internal {
		n.Opened = nil // nothing comes in for it
	}
	subnet := n.primary().Prefix
	fits := own >= 0 && subnet.IsValid()
	if fits && overlaps(usedBy(routes, own), subnet) {
		if fits, err = s.leased(name, subnet); err != nil {
			return n, err
		}
	}
	if !fits {
		mtu, opened, uplinks := n.MTU, n.Opened, n.Uplinks
		n, err = s.choose(c, n, claim)
		n.MTU, n.Opened, n.Uplinks = mtu, opened, uplinks
	}
	if err != nil {
		return n, err
	}
	if n.hasIPv6() && !n.Internal {
		if err = s.forwarding6(c, &n, claim); err != nil {
			return n, err
		}
	}
	n.Beside, err = beside(n)
	return n, err
}

// ours reports whether a link is the bridge of a network of this installation, as its mark says. One without a mark has the network's ID in
// its name: it was made by somebody who was killed before he could mark it, or again by a start after somebody had removed it.
func (s Store) ours(l wire.Link, n Network) bool {
	o, marked := parseOwner(l.Alias)
	named := n.Name != Bridge && len(n.ID) >= ownerID && l.Name == ownBridge(n)
	return l.Kind == "bridge" && (marked && s.owns(o, n) || l.Alias == "" && named)
}

// ownBridge is the name of the bridge of a network that somebody has made: as long as a link's name may be.
func ownBridge(n Network) string { return "gbr-" + n.ID[:min(11, len(n.ID))] }

// asMarked fills in a network by the mark on the host's first bridge, if there is one.
func asMarked(c *wire.Conn, n Network) Network {
	l, err := c.Link(oldName, 0)
	if err != nil || l.Kind != "bridge" {
		return n
	}
	if o, ok := parseOwner(l.Alias); ok {
		n.Link, n.Subnets = l.Name, []Subnet{{Prefix: o.subnet, Gateway: o.subnet.Addr().Next()}}
	}
	return n
}

// bridgeNames gives the names that the bridge of a network may have, the best first.
func bridgeNames(n Network) []string {
	var names []string
	if n.Link != "" {
		names = append(names, n.Link)
	}
	if n.Options[optionName] != "" {
		return names // asked for: another one won't do
	}
	if n.Name != Bridge {
		return append(names, ownBridge(n))
	}
	for i := range 100 { // one for each installation of a host
		names = append(names, fmt.Sprintf("glassbox%d", i))
	}
	return names
}

// choose finds a bridge's name and a subnet, and with claim takes them, so that another installation that chooses at the same moment,
// and shares no lock with this one, chooses differently. What arbitrates is the kernel: a name can be made once, and a bridge is made
// together with its hardware address, which names the subnet. Who made a bridge then looks at all others. Of two with overlapping
// subnets the one with the higher index was made later, and gives way: indices only grow (dev_new_index in net/core/dev.c), so the later
// one sees the earlier one.
func (s Store) choose(c *wire.Conn, n Network, claim bool) (Network, error) {
	if claim {
		// Two installations may have one root, and so one record: each finds its bridge by the mark.
		unlock, err := lock(s.Config)
		if err != nil {
			return n, err
		}
		defer unlock()
		mtu := n.MTU
		if n, _, err = s.read(n.Name); err != nil {
			return n, err
		}
		n.MTU = mtu
	}
	if n.ID == "" {
		// The id is what marks a bridge as ours: a root that was copied to another place has the same, and the state directory tells them
		// apart.
		n.ID, n.Created = newID(), time.Now().UTC().Truncate(time.Second)
	}
	before := n
	names := bridgeNames(n)
	for attempt := 0; len(names) > 0 && attempt < 1000; attempt++ {
		n = before
		n.Link = names[0]
		own, has, free, err := s.lookAt(c, n, before.Link, claim)
		if err != nil {
			return n, err
		}
		if has.IsValid() {
			n.setPrimary(Subnet{Prefix: has, Gateway: has.Addr().Next()})
		}
		if !free {
			names = names[1:]
			continue
		}
		if n, err = s.subnet(c, n, own); err != nil || !claim {
			return n, err
		}
		// The record comes first: a bridge with a mark and without a record is one that its installation has given up (see abandoned).
		if err := s.write(n); err != nil {
			return n, err
		}
		if own >= 0 {
			return n, c.Mark(n.Link, s.owner(n).String())
		}
		made, err := s.make(c, n)
		if errors.Is(err, unix.EEXIST) {
			names = names[1:] // another installation was faster
			continue
		}
		if made || err != nil {
			return n, err
		}
	}
	return n, fmt.Errorf("no name is free for a bridge: %s0 to %s99 belong to others", ownerWord, ownerWord)
}

// make makes the bridge of a network, with the step that each start has, too. It reports false where another installation has made one
// with the same subnet just before: then nothing is left.
func (s Store) make(c *wire.Conn, n Network) (made bool, err error) {
	op := bridgeOf(n)
	if err := c.MakeBridge(op, s.owner(n).String()); err != nil {
		return false, err
	}
	l, err := c.Link(n.Link, 0)
	if err != nil {
		return false, fmt.Errorf("link %s: %w", n.Link, err)
	}
	others, err := claims(c)
	if err != nil {
		return false, err
	}
	if slices.ContainsFunc(others, func(o claimed) bool { return o.index < l.Index && o.subnet.Overlaps(n.primary().Prefix) }) {
		return false, c.DeleteIndex(l.Index)
	}
	// Before the bridge is up: from then on packets could meet the rules of whoever had the name before.
	if err := s.forgetTable(n); err != nil {
		return false, err
	}
	_, err = c.EnsureBridge(op)
	return true, err
}

// forgetTable removes a table of the network's name where none of its containers runs: it is somebody's whose bridge is gone, with
// published ports that lead nowhere, or to one of our containers by chance.
func (s Store) forgetTable(n Network) error {
	leases, err := s.Leases(n.Name)
	if err != nil || len(leases) > 0 {
		return err
	}
	nft, err := wire.Dial(unix.NETLINK_NETFILTER)
	if err != nil {
		return err
	}
	defer nft.Close()
	return nft.DeleteTable(n.Table())
}

// lookAt says whether a network may have the bridge that is named in it: it isn't there, or is its own already (then own is its index,
// and has the subnet that its mark says), or has been given up by another installation; with claim, that one is removed. before is the
// name in the network's record.
func (s Store) lookAt(c *wire.Conn, n Network, before string, claim bool) (own int, has netip.Prefix, free bool, err error) {
	const patience = 500 * time.Millisecond
	for begin := time.Now(); ; time.Sleep(10 * time.Millisecond) {
		l, err := c.Link(n.Link, 0)
		if errors.Is(err, unix.ENODEV) {
			return -1, has, true, nil
		} else if err != nil {
			return -1, has, false, fmt.Errorf("link %s: %w", n.Link, err)
		}
		o, marked := parseOwner(l.Alias)
		given := false
		switch {
		case l.Kind != "bridge":
			return -1, has, false, nil
		case marked && s.owns(o, n):
			if o.subnet != n.primary().Prefix {
				has = o.subnet // the record is that of another state directory
			}
			return l.Index, has, true, nil
		case marked:
			if given, err = abandoned(c, l, o); err != nil {
				return -1, has, false, err
			}
		case l.Up && l.Name == before:
			return l.Index, has, true, nil // made by an earlier version, or made again by a start after somebody removed it
		case l.Up:
			return -1, has, false, nil
		case !claim:
			return -1, has, false, nil
		case time.Since(begin) < patience:
			continue // in the making: it gets its mark in a moment
		default:
			given = true // by somebody who was killed
		}
		if !given || !claim {
			return -1, has, given, nil
		}
		if err := c.DeleteIndex(l.Index); err != nil {
			return -1, has, false, fmt.Errorf("link %s: %w", l.Name, err)
		}
		return -1, has, true, nil
	}
}

// abandoned reports whether the installation that a bridge belongs to is gone: nothing is plugged in, and where its record was there
// is none or another's. One that only can't be seen from here (another mount namespace) makes its bridge again at its next start.
func abandoned(c *wire.Conn, l wire.Link, o owner) (bool, error) {
	// A path that was too long for the mark stands there as a hash: nobody can look whether that installation is still there.
	if !filepath.IsAbs(o.config) {
		return false, nil
	}
	n, written, err := Store{Config: o.config}.read(o.network)
	if err != nil && !errors.Is(err, ErrNotFound) || written && len(n.ID) >= ownerID && n.ID[:ownerID] == o.id {
		return false, nil // one that can't be read isn't judged
	}
	ports, err := c.Ports(l.Index)
	return len(ports) == 0, err
}

// subnet gives a network a subnet: the one that it has, if nothing overlaps or a container has an address in it, or a free one.
func (s Store) subnet(c *wire.Conn, n Network, own int) (Network, error) {
	routes, err := c.Routes()
	if err != nil {
		return n, fmt.Errorf("routes: %w", err)
	}
	others, err := claims(c)
	if err != nil {
		return n, err
	}
	used := usedBy(routes, own)
	for _, o := range others {
		if o.index != own {
			used = append(used, o.subnet)
		}
	}
	// The other networks of this installation have their subnets also while their bridges aren't there, as after a boot.
	if used, err = s.recorded(n, used); err != nil {
		return n, err
	}
	if err := s.subnet6(c, n, own, used); err != nil || n.NoIPv4 {
		return n, err
	}
	if p := n.IPv4().Prefix; p.IsValid() {
		keep := !overlaps(used, p)
		if !keep && own >= 0 {
			if keep, err = s.leased(n.Name, p); err != nil {
				return n, err
			}
		}
		if keep {
			return n, nil
		}
		if n.IPv4().Fixed {
			i := slices.IndexFunc(used, p.Overlaps)
			return n, fmt.Errorf("invalid pool request: Pool overlaps with other one on this address space: %s overlaps with %s, which this "+
				"host has a route to or another network has: choose another subnet", p, used[max(i, 0)])
		}
	}
	addrs, err := c.Addresses(0) // of a link that is down there is no route
	if err != nil {
		return n, fmt.Errorf("addresses: %w", err)
	}
	for _, a := range addrs {
		if a.Index != own {
			used = append(used, a.Prefix.Masked())
		}
	}
	p := pick(append(used, nameservers()...))
	if !p.IsValid() {
		return n, fmt.Errorf("no free subnet: write one to %s as {\"subnet\": \"A.B.C.D/N\"}", s.recordFile(n.Name))
	}
	n.setPrimary(Subnet{Prefix: p, Gateway: p.Addr().Next()})
	return n, nil
}

// claimed is a subnet that an installation of glassbox has, or is about to give to, its bridge.
type claimed struct {
	index  int
	subnet netip.Prefix
}

// claims lists the subnets of all bridges of glassbox.
func claims(c *wire.Conn) ([]claimed, error) {
	bridges, err := c.Bridges()
	if err != nil {
		return nil, fmt.Errorf("links: %w", err)
	}
	var out []claimed
	for _, l := range bridges {
		if o, marked := parseOwner(l.Alias); marked {
			out = append(out, claimed{l.Index, o.subnet})
		} else if a, ok := wire.AddressOf(l.MAC); ok {
			// In the making, or of an earlier version. It has no larger subnet (see pick).
			out = append(out, claimed{l.Index, netip.PrefixFrom(a, 16).Masked()})
		}
	}
	return out, nil
}

// recorded adds the subnets of the installation's other networks to those that are used.
func (s Store) recorded(n Network, used []netip.Prefix) ([]netip.Prefix, error) {
	names, err := s.names()
	if err != nil {
		return used, err
	}
	for _, name := range names {
		if name == n.Name {
			continue
		}
		other, written, err := s.read(name)
		if err != nil || !written {
			continue // one that can't be read says so when it is used
		}
		for _, sub := range other.Subnets {
			used = append(used, sub.Prefix)
		}
	}
	return used, nil
}

// leased reports whether a container has an address in a subnet.
func (s Store) leased(network string, subnet netip.Prefix) (bool, error) {
	leases, err := s.Leases(network)
	for a := range leases {
		if subnet.Contains(a) {
			return true, nil
		}
	}
	return false, err
}

// usedBy lists the destinations of routes that don't lead to the bridge itself.
func usedBy(routes []wire.Route, own int) []netip.Prefix {
	var used []netip.Prefix
	for _, r := range routes {
		if r.Destination.Bits() > 0 && !slices.Contains(r.Links, own) {
			used = append(used, r.Destination)
		}
	}
	return used
}

func overlaps(used []netip.Prefix, p netip.Prefix) bool {
	return slices.ContainsFunc(used, p.Overlaps)
}

// pick takes the first free candidate: 172.30.0.0/16 downwards to 172.18.0.0/16, then 10.200.0.0/24 to 10.254.255.0/24.
func pick(used []netip.Prefix) netip.Prefix {
	for i := byte(30); i >= 18; i-- {
		// From the top: Docker takes 172.17 and upwards, and whoever installs it later should still find room.
		if p := netip.PrefixFrom(netip.AddrFrom4([4]byte{172, i}), 16); !overlaps(used, p) {
			return p
		}
	}
	// Clouds and companies number their networks from 10.0 upwards; a /24 from the upper end is the least likely to be one of theirs.
	for i := byte(200); i < 255; i++ {
		for j := range 256 {
			if p := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, i, byte(j)}), 24); !overlaps(used, p) {
				return p
			}
		}
	}
	return netip.Prefix{}
}

// nameservers lists the host's DNS servers: one that is reached by the default route has no route of its own, and must not
// disappear behind a bridge.
func nameservers() []netip.Prefix {
	data, _ := os.ReadFile("/etc/resolv.conf")
	var out []netip.Prefix
	for _, s := range parseResolv(data).Servers {
		if a, err := netip.ParseAddr(s); err == nil && a.Is4() {
			out = append(out, netip.PrefixFrom(a, 32))
		}
	}
	return out
}

// outside returns the smallest MTU of the interfaces that the host has routes over, and those of them that glassbox has to
// switch forwarding on for, or has done so before. Where the host is a router anyway (ip_forward is 1), there are none.
func outside(c *wire.Conn, routes []wire.Route, own int, file string, remember bool) (
	mtu int, opened, uplinks []string, err error,
) {
	const lo = 1
	all, dev, err := c.Forwarding()
	if err != nil {
		return 0, nil, nil, fmt.Errorf("forwarding: %w", err)
	}
	var before, now []string
	if err := readJSON(file, &before); err != nil {
		return 0, nil, nil, err
	}
	seen, ways := map[int]bool{}, map[int]bool{} // ways: to everywhere
	for _, r := range routes {
		for _, i := range r.Links {
			ways[i] = ways[i] || r.Destination.Bits() == 0
		}
	}
	mtu = 1500
	for _, r := range routes {
		if r.Table == unix.RT_TABLE_LOCAL || r.Type != unix.RTN_UNICAST {
			continue
		}
		for _, i := range r.Links {
			if i == own || i == lo || seen[i] {
				continue
			}
			seen[i] = true
			l, err := c.Link("", i)
			if errors.Is(err, unix.ENODEV) {
				continue
			} else if err != nil {
				return 0, nil, nil, fmt.Errorf("link %d: %w", i, err)
			}
			// Only ways to everywhere count, and nothing below what every host of IPv4 must take (RFC 791): a VPN's 1400 is worth keeping, a
			// broken 68 isn't.
			if l.MTU >= 576 && r.Destination.Bits() == 0 {
				mtu = min(mtu, l.MTU)
			}
			if l.Kind != "bridge" || ways[i] { // other bridges are others' networks
				uplinks = append(uplinks, l.Name)
			}
			if !all && (!dev[i] || slices.Contains(before, l.Name)) {
				now = append(now, l.Name)
			}
		}
	}
	if !all {
		// An interface without a route at the moment is still open, and still has to be guarded.
		for _, name := range before {
			if !slices.Contains(now, name) {
				if l, err := c.Link(name, 0); err == nil && dev[l.Index] {
					now = append(now, name)
				}
			}
		}
	}
	slices.Sort(now)
	// Remembered, because after we switch it on an interface looks like one that the administrator opened.
	if remember && !slices.Equal(before, now) {
		if err := writeJSON(file, now); err != nil {
			return 0, nil, nil, err
		}
	}
	slices.Sort(uplinks)
	return mtu, now, uplinks, nil
}
