package network

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"glassbox/plan"
)

// Networks of the drivers macvlan and ipvlan have no switch and no router of the host's: each container has a link of its own on top of a
// link of the host, the parent, and is on that one's cable with an address of its own. Neither the host's routes nor its firewall see what
// goes there, and the host itself can't be reached through its own parent. In ipvlan's modes l3 and l3s nobody asks for hardware addresses:
// the kernel finds the way of what a container sends by the host's routes over the parent, and neighbours need a route to the containers.

// onParent reports whether the network's containers are on top of a link of the host.
func (n Network) onParent() bool { return n.Driver == Macvlan || n.Driver == Ipvlan }

// leadsOut reports whether a container reaches the rest of the world by the network.
func (n Network) leadsOut() bool { return (n.Driver == Bridge || n.onParent()) && !n.Internal }

// parent is the link that containers are on top of.
func (n Network) parent() string {
	if n.Parent != "" {
		return n.Parent
	}
	return n.Link
}

// routedOnParent reports whether containers have no router of theirs, but the parent as the way to everybody: ipvlan's modes l3 and l3s.
func (n Network) routedOnParent() bool {
	return n.Driver == Ipvlan && (n.Mode == "l3" || n.Mode == "l3s")
}

// vlan is the step that makes a parent that is a VLAN by its name: eth0.50 is VLAN 50 of eth0, as with Docker.
func (s Store) vlan(n Network) *plan.LinkVLAN {
	below, id, err := splitVLAN(n.Parent)
	if err != nil {
		return nil
	}
	return &plan.LinkVLAN{Name: n.Parent, Parent: below, ID: id, Mark: s.owner(n).String()}
}

// splitVLAN takes the name of a VLAN apart.
func splitVLAN(name string) (below string, id int, err error) {
	below, number, ok := strings.Cut(name, ".")
	if !ok || below == "" {
		return "", 0, fmt.Errorf("%s is no name of a VLAN: want one such as eth0.50, VLAN 50 of eth0", name)
	}
	id, err = strconv.Atoi(number)
	if err != nil || id < 1 || id > 4094 || strconv.Itoa(id) != number {
		return "", 0, fmt.Errorf("%s: VLAN %q: want a number from 1 to 4094", name, number)
	}
	return below, id, nil
}

// parentOf is the step that makes the parent of an internal network: a bridge that nothing is plugged into and that has no address. What is
// on top of it reaches each other, and nobody else.
func parentOf(n Network) *plan.LinkBridge {
	return &plan.LinkBridge{Name: n.Link, MTU: n.MTU, Sysctls: []string{"net/ipv6/conf/" + n.Link + "/disable_ipv6=1"}}
}

func macvlan(n Network, e Endpoint, w *writer) {
	from := w.origin("network")
	if e.MAC == "" {
		// Made of its address, so that neighbours that remember the last container with that address don't send into
		// nothing.
		e.MAC = macOf(e)
	}
	if n.Parent == "" {
		w.add(parentOf(n), from, "An internal network has no cable to be on: its containers are on top of a switch that nothing "+
			"else is plugged into.")
	}
	if n.VLAN != nil {
		w.add(n.VLAN, from, "The network's parent is one VLAN of "+n.VLAN.Parent+"'s cable: what its containers send bears that tag. "+
			"It is made where there is none, and goes with the network; one that was there before stays.")
	}
	op := &plan.LinkMacvlan{
		Driver: n.Driver, Name: e.Interface, Parent: n.parent(), Mode: n.Mode, Flag: n.Flag, MTU: n.MTU,
		Sysctls: append(guard(n, e), e.Sysctls...),
	}
	// Links of ipvlan have their parent's (Documentation/networking/ipvlan.rst).
	if n.Driver == Macvlan {
		op.MAC = e.MAC
	}
	if n.routedOnParent() {
		w.add(op, from, "The container has an address of its own, and "+n.parent()+" as its way to everybody. The kernel finds the next one "+
			"by the host's routes over it and asks the host's rules for output; nobody asks for the container's hardware address (no ARP), "+
			"so that neighbours need a route to it through the host.")
	} else {
		w.add(op, from, "The container is on the cable of "+n.parent()+" itself, with an address of its own. What it sends and gets "+
			"there passes by the host's routes and its firewall, and the host can't be reached.")
	}
	w.rate(e)
	w.loopback(from)
	w.addresses(n, e, from)
}

// checkParent refuses what a network on top of a link can't be.
func (n *Network) checkParent() error {
	if len(n.Egress)+len(n.Ingress) > 0 {
		return fmt.Errorf("network %s: --egress and --ingress stand at the host's end of a cable, which containers of driver %s don't have",
			n.Name, n.Driver)
	}
	if n.Internal && n.Parent != "" {
		return fmt.Errorf("network %s: --internal and the option %s contradict each other: on the cable of %s the container reaches "+
			"whoever is there", n.Name, optionParent, n.Parent)
	}
	if !n.Internal && n.Parent == "" {
		return fmt.Errorf("network %s: driver %s needs the link that its containers are on top of: -o %s=eth0 (or --internal, for none)",
			n.Name, n.Driver, optionParent)
	}
	modes, first := []string{"bridge", "private", "vepa", "passthru"}, "bridge"
	if n.Driver == Ipvlan {
		modes, first = []string{"l2", "l3", "l3s"}, "l2"
	}
	if n.Mode == "" {
		n.Mode = first
	}
	if !slices.Contains(modes, n.Mode) {
		return fmt.Errorf("network %s: driver %s has no mode %s here: want one of %v", n.Name, n.Driver, n.Mode, modes)
	}
	return nil
}

// ownOf adds the host's addresses on the parent to those that no container gets.
func (n *Network) ownOf(addrs []netip.Prefix) {
	for _, p := range addrs {
		for _, s := range n.Subnets {
			// The gateway is left out of what is given away anyway.
			if !s.Prefix.Contains(p.Addr()) || p.Addr() == s.Gateway {
				continue
			}
			if n.Aux == nil {
				n.Aux = map[string]netip.Addr{}
			}
			n.Aux["host-"+p.Addr().String()] = p.Addr()
		}
	}
}
