package network

import (
	"errors"
	"fmt"
	"strings"

	"golang.org/x/sys/unix"

	"glassbox/wire"
)

// openParent opens a network whose containers are on top of a link of the host. With claim an internal one's own parent is made, if it
// isn't there.
func (s Store) openParent(n Network, claim bool) (Network, error) {
	c, err := wire.Dial(unix.NETLINK_ROUTE)
	if err != nil {
		return n, err
	}
	defer c.Close()
	// Before the parent is made: a link on top can't have a larger one than what is below (EINVAL).
	n.MTU = n.FixedMTU
	l, err := c.Link(n.parent(), 0)
	if vlan := s.vlan(n); vlan != nil && (errors.Is(err, unix.ENODEV) || err == nil && s.oursVLAN(l, n)) {
		n.VLAN = vlan
		if err != nil {
			below, err := c.Link(vlan.Parent, 0)
			if err != nil {
				return n, fmt.Errorf("its parent %s isn't there, and can't be made: link %s: %w: ip link shows which links there are", n.Parent,
					vlan.Parent, err)
			}
			if n.MTU > below.MTU {
				return n, fmt.Errorf("its MTU %d is larger than that of %s, %d", n.MTU, below.Name, below.MTU)
			}
			if claim {
				err = c.EnsureVLAN(vlan)
			}
			return n, err
		}
	}
	switch {
	case errors.Is(err, unix.ENODEV) && n.Parent != "":
		return n, fmt.Errorf("its parent %s isn't there: ip link shows which links there are", n.Parent)
	// Only looked at: its first container makes it.
	case errors.Is(err, unix.ENODEV) && !claim:
		return n, nil
	case errors.Is(err, unix.ENODEV):
		op := parentOf(n)
		if err := c.MakeBridge(op, s.owner(n).String()); err != nil && !errors.Is(err, unix.EEXIST) {
			return n, err
		}
		_, err := c.EnsureBridge(op)
		return n, err
	case err != nil:
		return n, fmt.Errorf("link %s: %w", n.parent(), err)
	case n.Parent == "" && !s.ours(l, n):
		return n, fmt.Errorf("the link %s is somebody else's: remove it, or make the network anew", n.Link)
	}
	if n.MTU > l.MTU && n.Parent != "" {
		return n, fmt.Errorf("its MTU %d is larger than that of its parent %s, %d", n.MTU, l.Name, l.MTU)
	}
	return n, nil
}

// createParent finds out what a new network on top of a link needs, before its record is written.
func (s Store) createParent(n *Network) error {
	c, err := wire.Dial(unix.NETLINK_ROUTE)
	if err != nil {
		return err
	}
	defer c.Close()
	if err := c.HasDriver(n.Driver); err != nil {
		return err
	}
	if n.Parent == "" {
		// A link's name has 15 characters (IFNAMSIZ).
		n.Link = ownBridge(*n)
	} else {
		links, _, err := wire.Look(-1)
		if err != nil {
			return err
		}
		for _, l := range links {
			if l.Name == n.Parent {
				// The kernel would take the link below instead (macvlan_newlink), and the record would name another one
				// than is used.
				if l.Kind == "macvlan" || l.Kind == "ipvlan" {
					return fmt.Errorf("its parent %s is a %s itself: want the link below", l.Name, l.Kind)
				}
				n.ownOf(l.Addresses)
			}
		}
	}
	if err := s.agrees(*n); err != nil {
		return err
	}
	if len(n.Subnets) == 0 {
		// On the parent's cable nobody tells which subnet it has, so a free one is as good as any: as with Docker, it is
		// for whoever asks to give the right one.
		made, err := s.subnet(c, *n, -1)
		n.Subnets = made.Subnets
		return err
	}
	used, err := s.recorded(*n, nil)
	if err != nil {
		return err
	}
	// Only with what is recorded: that the host has a route to the subnet is how it should be, on its own cable.
	for _, sub := range n.Subnets {
		for _, o := range used {
			if o.Overlaps(sub.Prefix) {
				return fmt.Errorf("invalid pool request: Pool overlaps with other one on this address space: %s overlaps with %s, which another "+
					"network has: choose another subnet", sub.Prefix, o)
			}
		}
	}
	return nil
}

// sameParent are the other networks on top of a network's parent.
func (s Store) sameParent(n Network) (out []Network, err error) {
	if n.Parent == "" {
		return nil, nil
	}
	names, err := s.names()
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		o, _, err := s.read(name)
		if err == nil && o.Parent == n.Parent && o.Name != n.Name {
			out = append(out, o)
		}
	}
	return out, nil
}

// agrees refuses what can't be on one parent together with another network: macvlan and ipvlan each want it for themselves (EBUSY), and all
// links of ipvlan have one mode and one set of flags, which the last one that is made sets for the others, too (ipvlan_set_port_mode).
func (s Store) agrees(n Network) error {
	others, err := s.sameParent(n)
	if err != nil {
		return err
	}
	for _, o := range others {
		if o.Driver != n.Driver {
			return fmt.Errorf("its parent %s is that of network %s, of driver %s: a link carries one or the other", n.Parent, o.Name, o.Driver)
		}
		if n.Driver == Ipvlan && (o.Mode != n.Mode || o.Flag != n.Flag) {
			return fmt.Errorf("its parent %s is that of network %s, of mode %s%s: all that is on top of one link has one mode", n.Parent, o.Name,
				o.Mode, strings.TrimRight(" "+o.Flag, " "))
		}
	}
	return nil
}

// oursVLAN reports whether a link is a VLAN that was made for the network.
func (s Store) oursVLAN(l wire.Link, n Network) bool {
	o, marked := parseOwner(l.Alias)
	return l.Kind == "vlan" && marked && s.owns(o, n)
}

// forgetVLAN takes back the VLAN that was made for a network. Where another network is on top of it by now, that one gets it.
func (s Store) forgetVLAN(n Network) error {
	vlan := s.vlan(n)
	if vlan == nil || !n.onParent() {
		return nil
	}
	c, err := wire.Dial(unix.NETLINK_ROUTE)
	if err != nil {
		return err
	}
	defer c.Close()
	l, err := c.Link(n.Parent, 0)
	if errors.Is(err, unix.ENODEV) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("link %s: %w", n.Parent, err)
	}
	if !s.oursVLAN(l, n) {
		return nil
	}
	others, err := s.sameParent(n)
	if err != nil {
		return err
	}
	if len(others) > 0 {
		return c.Mark(n.Parent, s.owner(others[0]).String())
	}
	return c.DeleteIndex(l.Index)
}
