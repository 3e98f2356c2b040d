package network

import (
	"errors"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"

	"glassbox/wire"
)

// The cables, the bridges and the host's routing, as a packet meets them.

// leave is a packet that goes out by a link of a namespace.
func (w *walk) leave(s *Space, link *wire.LinkState, next netip.Addr) {
	switch {
	case link.Kind == "macvlan" || link.Kind == "ipvlan":
		w.beside(s, link, next)
	case s != w.v.Host && link.Kind == "veth":
		w.cable(s, link, next)
	case s == w.v.Host && link.Kind == "bridge":
		w.fromBridge(link, next)
	case s == w.v.Host && w.v.onTop(link, next) != nil:
		w.end(Lost, "%s is on top of %s: who is there reaches others, never the host below, and isn't reached by it", next, link.Name)
	case s == w.v.Host:
		w.hop(link.Name, "leaves the host%s", w.via(next))
		w.at, w.uplink = nil, link.Name
		for _, c := range w.v.Containers {
			if c.Has(w.p.Dst) {
				w.end(Lost, "%s is the address of %s, which isn't out there: nobody has it", w.p.Dst, c.Name)
			}
		}
	default:
		w.hop(link.Name, "leaves %s", s.Name)
		w.at, w.uplink = nil, ""
	}
}

// plug finds the host's end of a container's cable.
func (v *View) plug(link *wire.LinkState) *wire.LinkState {
	end := v.Host.link(link.Peer)
	if end == nil || end.Kind != "veth" || end.Peer != link.Index {
		return nil
	}
	return end
}

// onBridge finds the container's link that has an address and is plugged into a bridge.
func (v *View) onBridge(bridge *wire.LinkState, a netip.Addr) (s *Space, link, end *wire.LinkState) {
	for _, s := range v.Containers {
		link := s.has(a)
		if link == nil || link.Kind != "veth" {
			continue
		}
		if end := v.plug(link); end != nil && end.Master == bridge.Index {
			return s, link, end
		}
	}
	return nil, nil, nil
}

// question is what asks for the hardware address of the next one.
func (w *walk) question(next netip.Addr) *wire.Packet {
	q := w.p
	q.Asked, q.Dst = next, next
	if next.Is6() {
		q.Proto, q.ICMPType = unix.IPPROTO_ICMPV6, 135
	}
	return &q
}

// cable is a packet that comes out of a container's cable.
func (w *walk) cable(s *Space, link *wire.LinkState, next netip.Addr) {
	end := w.v.plug(link)
	if end == nil {
		w.end(Lost, "the other end of %s's cable %s isn't on this host", s.Name, link.Name)
		return
	}
	w.p.SrcMAC = link.MAC
	w.hairpin = end.Index
	bridge := w.v.Host.link(end.Master)
	host, answered := w.v.Host, false
	if host.Rules != nil {
		w.p.In, w.p.Out, w.p.Local = end.Name, "", host.local
		q := w.question(next)
		for _, judge := range []func(*wire.Packet) wire.Outcome{
			func(p *wire.Packet) wire.Outcome { return host.Rules.JudgeDevice(end.Name, true, p) },
			func(p *wire.Packet) wire.Outcome {
				if bridge == nil {
					return wire.Outcome{}
				}
				return host.Rules.JudgeBridge(unix.NF_INET_PRE_ROUTING, p)
			},
		} {
			asked := judge(q)
			if asked.Dropped {
				h := w.hop("cable "+end.Name, "ends here: nobody is asked who has %s", next)
				h.Rules, h.Unknown = asked.Met, asked.Unknown
				w.judged(asked, h)
				return
			}
			if asked.Returned {
				h := w.hop("cable "+end.Name, "the question who has %s is answered here, with the host's hardware address", next)
				h.Rules = asked.Met
				answered = true
			}
			o := judge(&w.p)
			if len(o.Met) == 0 && !o.Dropped {
				continue
			}
			if !w.passes("cable "+end.Name, o) {
				return
			}
		}
	}
	switch {
	case bridge == nil: // of somebody else's: the host is at the other end
		w.receive(end.Name)
	case host.local(next) || answered:
		w.hop("bridge "+bridge.Name, "the host takes it")
		if w.bridgeHook(unix.NF_INET_LOCAL_IN, end.Name, "") {
			w.receive(bridge.Name)
		}
	default:
		w.bridged(bridge, end, next)
	}
}

// bridgeHook gives the frame to the chains of family bridge.
func (w *walk) bridgeHook(hook uint32, in, out string) bool {
	if w.v.Host.Rules == nil {
		return true
	}
	w.p.In, w.p.Out = in, out
	o := w.v.Host.Rules.JudgeBridge(hook, &w.p)
	if len(o.Met) == 0 && !o.Dropped {
		return true
	}
	return w.passes("bridge "+hookName(hook), o)
}

// bridged is a frame from one port of a bridge to another.
func (w *walk) bridged(bridge, from *wire.LinkState, next netip.Addr) {
	s, _, to := w.v.onBridge(bridge, next)
	if s == nil {
		w.end(Lost, "nobody on bridge %s has the address %s: the sender gives up after three seconds", bridge.Name, next)
		return
	}
	if from.Isolated && to.Isolated {
		w.end(Lost, "the containers of bridge %s don't reach each other (%s=false): their ports are isolated", bridge.Name, optionICC)
		return
	}
	w.hop("bridge "+bridge.Name, "goes from port %s to port %s", from.Name, to.Name)
	if !w.bridgeHook(unix.NF_INET_FORWARD, from.Name, to.Name) {
		return
	}
	if w.v.bridgeCalls(w.p.Dst.Is6()) { // br_netfilter: ports are hidden behind the bridge's name
		for _, hook := range []uint32{unix.NF_INET_PRE_ROUTING, unix.NF_INET_FORWARD, unix.NF_INET_POST_ROUTING} {
			in, out := bridge.Name, bridge.Name
			if hook == unix.NF_INET_PRE_ROUTING {
				out = ""
			} else if hook == unix.NF_INET_POST_ROUTING {
				in = ""
			}
			if !w.hook(w.v.Host, hook, in, out) {
				return
			}
		}
	}
	w.deliver(s, to)
}

// fromBridge is a packet of the host, or one that it forwards, into a bridge.
func (w *walk) fromBridge(bridge *wire.LinkState, next netip.Addr) {
	s, _, to := w.v.onBridge(bridge, next)
	if s == nil {
		if !w.ourBridge(bridge) {
			w.hop(bridge.Name, "leaves the host%s", w.via(next))
			w.at, w.uplink = nil, bridge.Name
			return
		}
		w.end(Lost, "nobody on bridge %s has the address %s", bridge.Name, next)
		return
	}
	if w.bridgeHook(unix.NF_INET_LOCAL_OUT, "", to.Name) && w.bridgeHook(unix.NF_INET_POST_ROUTING, "", to.Name) {
		w.deliver(s, to)
	}
}

// ourBridge reports whether only containers are plugged into a bridge, which are all known.
func (w *walk) ourBridge(bridge *wire.LinkState) bool {
	for _, l := range w.v.Host.Links {
		if l.Master == bridge.Index && l.Kind != "veth" {
			return false
		}
	}
	return true
}

// deliver is a packet that goes into a container's cable.
func (w *walk) deliver(s *Space, end *wire.LinkState) {
	if host := w.v.Host; host.Rules != nil {
		w.p.In, w.p.Out, w.p.Local = "", end.Name, host.local
		if o := host.Rules.JudgeDevice(end.Name, false, &w.p); len(o.Met) > 0 || o.Dropped {
			if !w.passes("cable "+end.Name, o) {
				return
			}
		}
	}
	if l := s.link(end.Peer); l != nil {
		w.into(s, l.Name)
	}
}

// into is a packet that comes into a namespace by a link.
func (w *walk) into(s *Space, link string) {
	if w.hook(s, unix.NF_INET_PRE_ROUTING, link, "") {
		w.input(s, link)
	}
}

// input is a packet that is for the namespace itself.
func (w *walk) input(s *Space, link string) {
	if w.answer && s == w.v.Host {
		w.restoreSource()
	}
	if w.hook(s, unix.NF_INET_LOCAL_IN, link, "") {
		w.hop(s.Name, "takes it")
		w.at = s
		if s == w.v.Host && !w.answer {
			w.carry()
		}
	}
}

// carry is what a container's supervisor does with what comes to a port that it carries: it begins a connection of its own. That the
// answers of the first one find their way is as sure as that of any of the host's.
func (w *walk) carry() {
	for _, c := range w.v.Carried {
		host, err := netip.ParseAddr(c.Rule.HostIP)
		to, err2 := netip.ParseAddr(c.Rule.ContainerIP)
		proto := map[string]byte{"tcp": unix.IPPROTO_TCP, "udp": unix.IPPROTO_UDP}[c.Rule.Proto]
		if err != nil || err2 != nil || proto != w.p.Proto || c.Rule.HostPort != w.p.DstPort || host.Is4() != w.p.Dst.Is4() ||
			host != w.p.Dst && !host.IsUnspecified() {
			continue
		}
		w.hop(w.v.Host.Name, "the supervisor of %s carries it on to %s", c.Container, netip.AddrPortFrom(to, c.Rule.ContainerPort))
		w.p = wire.Packet{Dst: to, DstPort: c.Rule.ContainerPort, SrcPort: w.p.SrcPort, Proto: proto}
		w.from, w.to = netip.AddrPort{}, netip.AddrPort{}
		w.at = nil
		w.send(w.v.Host)
		return
	}
}

// receive is a packet that comes into the host by a link, to be taken or forwarded.
func (w *walk) receive(in string) {
	host := w.v.Host
	const conntrack = -200 // NF_IP_PRI_CONNTRACK: what comes before it sees an answer as it came
	early := func(c wire.ChainState) bool { return c.Priority > conntrack }
	if !w.hookWhere(host, unix.NF_INET_PRE_ROUTING, in, "", early) {
		return
	}
	if w.answer {
		w.restoreDestination()
	}
	if !w.hookWhere(host, unix.NF_INET_PRE_ROUTING, in, "", func(c wire.ChainState) bool { return !early(c) }) {
		return
	}
	link := linkNamed(host, in)
	switch {
	case w.p.Dst.IsLoopback() && !w.answer:
		w.end(Lost, "packets to %s that come in from outside aren't taken by the kernel", w.p.Dst)
		return
	case host.local(w.p.Dst):
		w.input(host, in)
		return
	case link != nil && !w.v.forwards(link.Index, w.p.Dst.Is6()):
		w.end(Lost, "the host forwards nothing that comes in by %s", in)
		return
	}
	out, next, ok := w.wayOut(host)
	if !ok {
		return
	}
	w.hop("host", "its way goes on by %s%s", out.Name, w.via(next))
	if w.shortcut(in, out, next) {
		return
	}
	if !w.hook(host, unix.NF_INET_FORWARD, in, out.Name) {
		return
	}
	if w.answer {
		w.restoreSource()
	}
	if w.hook(host, unix.NF_INET_POST_ROUTING, "", out.Name) {
		w.masquerade(out, next)
		w.leave(host, out, next)
	}
}

// shortcut ends the way of a packet that br_netfilter translates and sends to another port without leaving the bridge, where the ports
// don't allow it (br_nf_pre_routing_finish in net/bridge/br_netfilter_hooks.c).
func (w *walk) shortcut(in string, out *wire.LinkState, next netip.Addr) bool {
	from := w.v.Host.link(w.hairpin)
	if out.Name != in || out.Kind != "bridge" || !w.v.bridgeCalls(next.Is6()) || from == nil || !w.from.IsValid() && !w.to.IsValid() {
		return false
	}
	_, _, to := w.v.onBridge(out, next)
	switch {
	case to == nil:
		return false
	case from.Isolated && to.Isolated:
		w.end(Lost, "br_netfilter sends it from port to port inside bridge %s, where the ports are isolated (%s=false)", in, optionICC)
	case from == to && !from.Hairpin:
		w.end(Lost, "br_netfilter sends it back to port %s, which takes back nothing (hairpin)", from.Name)
	default:
		return false
	}
	return true
}

func linkNamed(s *Space, name string) *wire.LinkState {
	for i := range s.Links {
		if s.Links[i].Name == name {
			return &s.Links[i]
		}
	}
	return nil
}

// bridgeCalls reports whether what is bridged meets the rules for its version of IP.
func (v *View) bridgeCalls(v6 bool) bool {
	if v6 {
		return v.BridgeCalls6
	}
	return v.BridgeCalls
}

func (v *View) forwards(index int, v6 bool) bool {
	m := v.Forwards
	if v6 {
		m = v.Forwards6
	}
	return m[0] || m[index]
}

// comeIn is a packet from elsewhere.
func (w *walk) comeIn(from netip.Addr) {
	link := w.v.besideThem(w.p.Dst, from)
	if link == nil {
		if r, ok := w.v.Host.route(from); ok {
			link = w.v.Host.link(r.Link)
		}
	}
	if link == nil {
		w.end(Lost, "the host has no route to %s: from there nothing comes", from)
		return
	}
	w.hop(link.Name, "comes in from %s", from)
	if s := w.v.onTop(link, w.p.Dst); s != nil {
		w.fromParent(link, s)
		return
	}
	w.receive(link.Name)
}

// ends finds the addresses of a question.
func (v *View) ends(q Question) (src, dst netip.Addr, err error) {
	v6 := q.IPv6 || q.To.Addr.Is6() || q.From.Addr.Is6()
	if dst, err = v.destination(q, v6); err != nil {
		return src, dst, err
	}
	if q.From.Space == nil {
		src = q.From.Addr
		if src.Is6() != dst.Is6() {
			return src, dst, fmt.Errorf("%s and %s are of different versions of IP", src, dst)
		}
		return src, dst, nil
	}
	return netip.Addr{}, dst, nil
}

// destination is the address of whom a question is about.
func (v *View) destination(q Question, v6 bool) (netip.Addr, error) {
	if q.To.Addr.IsValid() {
		return q.To.Addr, nil
	}
	same := func(a netip.Addr) bool { return a.Is6() == v6 && !a.IsLoopback() && !a.IsLinkLocalUnicast() }
	if q.To.Space != v.Host {
		return v.ofContainer(q, same)
	}
	switch from := q.From.Space; {
	case from == v.Host:
		if v6 {
			return netip.IPv6Loopback(), nil
		}
		return netip.AddrFrom4([4]byte{127, 0, 0, 1}), nil
	case from != nil: // by what it calls its gateway, or by the bridge
		for _, l := range from.Links {
			end := v.plug(&l)
			if end == nil {
				continue
			}
			if bridge := v.Host.link(end.Master); bridge != nil {
				for _, p := range bridge.Addresses {
					if same(p.Addr()) {
						return p.Addr(), nil
					}
				}
			}
		}
	default:
		if r, ok := v.Host.route(q.From.Addr); ok {
			if l := v.Host.link(r.Link); l != nil {
				if a := sourceFor(l, q.From.Addr); a.IsValid() {
					return a, nil
				}
			}
		}
	}
	for _, l := range v.Host.Links {
		for _, p := range l.Addresses {
			if same(p.Addr()) {
				return p.Addr(), nil
			}
		}
	}
	return netip.Addr{}, errors.New("the host has no address of that version of IP")
}

// ofContainer is the container's address on a network that the sender is on, too, or its first.
func (v *View) ofContainer(q Question, same func(netip.Addr) bool) (netip.Addr, error) {
	var first netip.Addr
	for i := range q.To.Space.Links {
		link := &q.To.Space.Links[i]
		for _, p := range link.Addresses {
			a := p.Addr()
			if !same(a) {
				continue
			}
			if !first.IsValid() {
				first = a
			}
			if q.From.Space == nil {
				continue
			}
			for _, l := range q.From.Space.Links {
				for _, own := range l.Addresses {
					if own.Masked().Contains(a) {
						return a, nil
					}
				}
			}
		}
	}
	if !first.IsValid() {
		return first, fmt.Errorf("container %s has no address of that version of IP: its network is none, or has none", q.To.Name)
	}
	return first, nil
}
