package network

import (
	"errors"
	"fmt"

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
