package network

import (
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"

	"glassbox/wire"
)

// Containers on top of one of the host's links, as a packet meets them.

// onTop finds the container that has an address and is on top of a link.
func (v *View) onTop(parent *wire.LinkState, a netip.Addr) *Space {
	for _, s := range v.Containers {
		if l := s.has(a); l != nil && (l.Kind == "macvlan" || l.Kind == "ipvlan") && l.Peer == parent.Index {
			return s
		}
	}
	return nil
}

// besideThem finds the parent of the container that has an address, if somebody elsewhere is in one subnet with it: he is on the same
// cable, whatever the host's routes are.
func (v *View) besideThem(to, from netip.Addr) *wire.LinkState {
	for _, s := range v.Containers {
		l := s.has(to)
		if l == nil || l.Kind != "macvlan" && l.Kind != "ipvlan" {
			continue
		}
		for _, p := range l.Addresses {
			if p.Masked().Contains(from) {
				return v.Host.link(l.Peer)
			}
		}
	}
	return nil
}

// routed reports whether a link is one of ipvlan's modes in which the host's routes are asked (Documentation/networking/ipvlan.rst).
func routed(l *wire.LinkState) bool {
	return l.Kind == "ipvlan" && (l.Mode == wire.IpvlanL3 || l.Mode == wire.IpvlanL3S)
}

// keepsApart says why a link lets its container talk to no other on the same parent; "": it does.
func keepsApart(l *wire.LinkState) string {
	switch {
	case l.Kind == "macvlan" && (l.Mode == wire.MacvlanPrivate || l.Mode == wire.MacvlanVEPA || l.Mode == wire.MacvlanPassthru):
		return "the mode of " + l.Name
	case l.Kind == "ipvlan" && l.Flags != 0:
		return "the flag of " + l.Name
	}
	return ""
}

// fromParent is a packet that comes in by a parent, for a container on top of it.
func (w *walk) fromParent(parent *wire.LinkState, s *Space) {
	l := s.has(w.p.Dst)
	// Nobody who asks for the hardware address hears an answer, where the link has no ARP: he must have a route through the host.
	if routed(l) && w.p.Src.IsValid() {
		for _, p := range parent.Addresses {
			if p.Masked().Contains(w.p.Src) && p.Masked().Contains(w.p.Dst) {
				w.end(Lost, "nobody answers for %s on the cable of %s: %s has no ARP in its mode", w.p.Dst, parent.Name, l.Name)
				return
			}
		}
	}
	if l.Kind == "ipvlan" && l.Mode == wire.IpvlanL3S {
		// The packet changes the namespace behind the host's input hook (ipvlan_nf_input), and meets no hook of the container's.
		if w.hook(w.v.Host, unix.NF_INET_PRE_ROUTING, parent.Name, "") && w.hook(w.v.Host, unix.NF_INET_LOCAL_IN, parent.Name, "") {
			w.hop(s.Name, "takes it")
			w.at = s
		}
		return
	}
	w.hop("parent "+parent.Name, "goes to the container on top of it, past the host's rules and routes")
	w.into(s, l.Name)
}

// beside is a packet of a container on a macvlan or ipvlan: it goes by the parent's cable. The host has no part in it, but for ipvlan's
// modes that are routed.
func (w *walk) beside(s *Space, link *wire.LinkState, next netip.Addr) {
	parent := w.v.Host.link(link.Peer)
	if parent == nil {
		w.end(Lost, "the parent of %s isn't on this host", link.Name)
		return
	}
	for _, o := range w.v.Containers {
		l := o.has(next)
		if l == nil || l.Kind != link.Kind || l.Peer != link.Peer {
			continue
		}
		if why := keepsApart(link); why != "" {
			w.end(Lost, "%s lets no container talk to another", why)
			return
		}
		w.hop("parent "+parent.Name, "goes from one container to the other")
		w.into(o, l.Name)
		return
	}
	// An address of another of the host's links is somebody's on this cable, or nobody's.
	if slices.ContainsFunc(parent.Addresses, func(p netip.Prefix) bool { return p.Addr() == next }) {
		w.end(Lost, "%s is the host itself: who is on top of %s reaches others, never the host below it", next, parent.Name)
		return
	}
	if routed(link) {
		w.routedOut(parent)
		return
	}
	w.hop("parent "+parent.Name, "goes out, past the host's rules and routes")
	w.at, w.uplink = nil, ""
}

// routedOut is a packet for which the kernel looks at the host's routes, those that lead over the parent, and gives it to the host's rules
// for what goes out (ipvlan_process_outbound in drivers/net/ipvlan/ipvlan_core.c).
func (w *walk) routedOut(parent *wire.LinkState) {
	host, next := w.v.Host, w.p.Dst
	over := &Space{}
	for _, r := range host.Routes {
		if r.Link == parent.Index {
			over.Routes = append(over.Routes, r)
		}
	}
	switch r, ok := over.route(w.p.Dst); {
	case ok && r.Via.IsValid():
		next = r.Via
	case !ok && w.p.Dst.Is6():
		w.end(Lost, "the host has no route to %s over %s", w.p.Dst, parent.Name)
		return
	}
	w.hop("host", "its way goes on by %s%s", parent.Name, w.via(next))
	if w.hook(host, unix.NF_INET_LOCAL_OUT, "", parent.Name) && w.hook(host, unix.NF_INET_POST_ROUTING, "", parent.Name) {
		w.masquerade(parent, next)
		w.hop(parent.Name, "leaves the host%s", w.via(next))
		w.at, w.uplink = nil, ""
	}
}
