package network

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"glassbox/wire"
)

// IPv6. A network has a /64 of it where it was asked for, next to its subnet of IPv4 or alone.

// ula makes a subnet of unique local addresses (RFC 4193) from the host and the network's name, so that the same network has the same
// addresses when it is made again. The global ID is the host's; turn makes another subnet where one is taken.
func (s Store) ula(name string, turn int) netip.Prefix {
	host, _ := os.ReadFile("/etc/machine-id")
	global := sha256.Sum256([]byte(string(host) + "\x00" + s.Config))
	net := sha256.Sum256(fmt.Appendf(nil, "%s\x00%d", name, turn))
	a := [16]byte{0xfd}
	copy(a[1:6], global[:5])
	copy(a[6:8], net[:2])
	return netip.PrefixFrom(netip.AddrFrom16(a), 64)
}

// subnet6 looks whether a network's subnet of IPv6 is nobody else's. used are those of others.
func (s Store) subnet6(c *wire.Conn, n Network, own int, used []netip.Prefix) error {
	sub := n.IPv6()
	if !sub.Prefix.IsValid() {
		return nil
	}
	routes, err := c.Routes6()
	if err != nil {
		return fmt.Errorf("routes: %w", err)
	}
	used = append(slices.Clone(used), usedBy(routes, own)...)
	used = slices.DeleteFunc(used, func(p netip.Prefix) bool { return p.Addr().Is4() || p.Addr().IsMulticast() })
	if i := slices.IndexFunc(used, sub.Prefix.Overlaps); i >= 0 && own < 0 {
		return fmt.Errorf("invalid pool request: Pool overlaps with other one on this address space: %s overlaps with %s, which this "+
			"host has a route to or another network has: choose another subnet", sub.Prefix, used[i])
	}
	return nil
}

// choose6 gives a network that is to have IPv6 a subnet of it.
func (s Store) choose6(n *Network) error {
	used, err := s.recorded(*n, nil)
	if err != nil {
		return err
	}
	for turn := range 1000 {
		p := s.ula(n.Name, turn)
		if !overlaps(used, p) {
			n.Subnets = append(n.Subnets, Subnet{Prefix: p, Gateway: p.Addr().Next()})
			return nil
		}
	}
	return errors.New("no free subnet of IPv6: give one with --subnet")
}

// forwarding6 finds out what has to be switched on so that the host routes IPv6 for a network: nothing, if it is a router already. Else,
// since Linux 6.17, a switch of the bridge and of the interfaces that answers come in by (force_forwarding in
// Documentation/networking/ip-sysctl.rst). Before that there is one switch for the whole host, which makes it forget the router that it
// learned of by advertisements, unless it is told to go on listening (accept_ra=2). In both cases the network's table drops what comes
// in by those interfaces and isn't for the bridge.
func (s Store) forwarding6(c *wire.Conn, n *Network, remember bool) error {
	read := func(name string) string { return sysctl("net/ipv6/conf/" + name) }
	file := filepath.Join(s.State, "opened6.json")
	var before []string
	if err := readJSON(file, &before); err != nil {
		return err
	}
	// The loopback has every switch that there is, so it tells whether this kernel has this one.
	each := read("lo/force_forwarding") != ""
	if read("all/forwarding") != "0" && (each || len(before) == 0) {
		return nil // a router by decision
	}
	routes, err := c.Routes6()
	if err != nil {
		return fmt.Errorf("routes: %w", err)
	}
	now := slices.Clone(before)
	for _, r := range routes {
		if a := r.Destination.Addr(); a.IsLinkLocalUnicast() || a.IsMulticast() || r.Table == unix.RT_TABLE_LOCAL || r.Type != unix.RTN_UNICAST {
			continue // every link has those
		}
		for _, i := range r.Links {
			l, err := c.Link("", i)
			// Ways in from the outside are meant: not the loopback, nor networks like this one.
			if err != nil || l.Name == "lo" || l.Name == n.Link || l.Kind == "bridge" && strings.HasPrefix(l.Alias, ownerWord+" ") {
				continue
			}
			if !slices.Contains(now, l.Name) && (!each || read(l.Name+"/force_forwarding") == "0") {
				now = append(now, l.Name)
			}
		}
	}
	now = slices.DeleteFunc(now, func(dev string) bool {
		_, err := os.Stat("/sys/class/net/" + dev)
		return errors.Is(err, fs.ErrNotExist)
	})
	slices.Sort(now)
	n.Opened6 = now
	for _, dev := range now {
		if each {
			n.Forward6 = append(n.Forward6, dev+"/force_forwarding=1")
		} else if read(dev+"/accept_ra") == "1" {
			n.Forward6 = append(n.Forward6, dev+"/accept_ra=2")
		}
	}
	if !each {
		n.Forward6 = append(n.Forward6, "all/forwarding=1")
	}
	if remember && !slices.Equal(before, now) {
		return writeJSON(file, now)
	}
	return nil
}
