package network

import (
	"bytes"
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"glassbox/container"
	"glassbox/plan"
	"glassbox/wire"
)

// Walls: who a container may talk to (--egress), and who may talk to it (--ingress). A wall is a table of family netdev on the host's end
// of the container's cable, where the container's root has no hand. It sees each frame before the bridge, the host and the other
// containers do: what isn't of the container's own hardware and IP addresses, and what isn't allowed, ends there, whatever protocol it is.
// It stands there and not in the bridge's table because what is bridged, what is routed, and what is meant for the host itself all come
// out of this one hole. A cable without a wall costs nothing.

// A wall is what stands at one endpoint.
type wall struct {
	egress, ingress []string         // as asked for; empty: open
	out, in         []container.Door // with addresses: names of networks stand for their subnets
	names           bool             // some of egress are names
	guests          []string         // the entries of ingress that are names of containers
	refusal         wire.Refusing    // how this host tells who is refused
}

// wallAt finds out what stands between a container and one of its networks. What the container says counts, else what the network says.
func (s Store) wallAt(r Request, n Network) (*wall, error) {
	w := &wall{egress: r.Egress, ingress: r.Ingress}
	if len(w.egress) == 0 {
		w.egress = n.Egress
	}
	if len(w.ingress) == 0 {
		w.ingress = n.Ingress
	}
	for _, side := range []*[]string{&w.egress, &w.ingress} {
		if slices.Equal(*side, []string{container.WallAllow}) {
			*side = nil
		}
	}
	if len(w.egress)+len(w.ingress) == 0 {
		return nil, nil
	}
	if n.Driver != Bridge {
		return nil, fmt.Errorf("network %s: a wall (--egress, --ingress) stands at the host's end of a cable, which only containers on a bridge "+
			"have; those of driver %s are on the wire without the host", n.Name, n.Driver)
	}
	var err error
	if w.refusal, err = wire.WallRefusal(); err != nil {
		return nil, err
	}
	if w.out, err = s.doors(w.egress); err != nil {
		return nil, fmt.Errorf("--egress: %w", err)
	}
	w.names = slices.ContainsFunc(w.out, func(d container.Door) bool { return d.Name != "" })
	if w.in, err = s.doors(w.ingress); err != nil {
		return nil, fmt.Errorf("--ingress: %w", err)
	}
	for _, d := range w.in {
		if d.Name == "" {
			continue
		}
		if !n.Named() {
			return nil, fmt.Errorf("--ingress: %s: there is no such network, and containers have no names on network %s: make a network for them "+
				"(glassbox network create)", d.Name, n.Name)
		}
		w.guests = append(w.guests, d.String())
	}
	return w, nil
}

// doors reads the entries of a wall. Names of networks become their subnets. All other names stay: on the way out they are the resolver's,
// and on the way in those of containers, whose addresses the wall follows.
func (s Store) doors(texts []string) ([]container.Door, error) {
	var out []container.Door
	for _, text := range texts {
		if text == container.WallDeny {
			continue
		}
		d, err := container.ParseDoor(text)
		if err != nil {
			return nil, err
		}
		if d.Name == "" {
			out = append(out, d)
			continue
		}
		if n, _, err := s.read(d.Name); err == nil && len(n.Subnets) > 0 {
			for _, sub := range n.Subnets {
				out = append(out, container.Door{Prefix: sub.Prefix.Masked(), Proto: d.Proto, Port: d.Port})
			}
			continue
		}
		out = append(out, d)
	}
	return out, nil
}

// wall writes the step.
func (w *writer) wall(n Network, e Endpoint) {
	if e.wall == nil {
		return
	}
	op := &plan.NftWall{Table: e.Link, Link: e.Link, Egress: e.wall.egress, Ingress: e.wall.ingress, Rules: wallRules(n, e)}
	if len(e.wall.guests) > 0 {
		op.Guests, op.Names = e.wall.guests, e.names
	}
	for _, d := range e.wall.out {
		if d.Prefix.IsValid() {
			op.Allowed = append(op.Allowed, d.Prefix.String())
		}
	}
	var why []string
	refused := map[wire.Refusing]string{
		wire.RefuseHere: "is refused at once", wire.RefuseBridge: "is refused at once by the bridge's chain, since this kernel's cable can't",
		wire.RefuseSilent: "is dropped, since this kernel has none of nft's rejections for frames",
	}[e.wall.refusal]
	for _, side := range []struct {
		texts      []string
		flag, what string
	}{{e.wall.egress, "egress", "What the container sends elsewhere " + refused + ", and counted"}, {
		e.wall.ingress, "ingress", "Connections to the container from anybody else are dropped, and counted",
	}} {
		if len(side.texts) > 0 {
			why = append(why, side.what+": "+strings.Join(side.texts, ", ")+" (--"+side.flag+").")
		}
	}
	w.add(op, w.origin("wall"), "The cable's end on the host lets through only what is allowed, with the container's own addresses. "+
		strings.Join(why, " "))
}

// wallWriter collects the rules of one wall.
type wallWriter struct {
	table, chain string
	gateway      string // the hardware address of the bridge; "": not known
	lines        []string
}

func (f *wallWriter) cmd(format string, a ...any) {
	f.lines = append(f.lines, fmt.Sprintf(format, a...))
}

func (f *wallWriter) rule(format string, a ...any) {
	f.cmd("add rule netdev %s %s %s", f.table, f.chain, fmt.Sprintf(format, a...))
}

// in begins a chain that is jumped to.
func (f *wallWriter) in(name string) { f.chain = name }

// wallFamily is one version of IP as a wall sees it.
type wallFamily struct {
	word, suffix, address string // ip, "", ipv4_addr
	icmp                  string // its l4proto
	own                   []netip.Addr
	gateway               netip.Addr
}

// flow is a connection's key, from the container's point of view, in a packet that it sends, and in one that it gets.
func (v wallFamily) sent() string { return v.word + " daddr . meta l4proto . th dport . th sport" }
func (v wallFamily) got() string  { return v.word + " saddr . meta l4proto . th sport . th dport" }

// How long a wall remembers a connection in which nothing happens, and how many. Whoever opens more than that has his answers refused.
const (
	flowLife = "10m"
	mostFlow = 65536
	mostSeen = 1024 // refusals that are remembered
)

// wallRules are the commands of nft(8) that make a wall.
func wallRules(n Network, e Endpoint) []string {
	f := &wallWriter{table: e.Link, gateway: wire.MAC(n.IPv4().Gateway)}
	f.cmd("add table netdev %s", f.table)
	f.cmd("delete table netdev %s", f.table) // what a killed start has left
	f.cmd("add table netdev %s", f.table)
	four := wallFamily{word: "ip", address: "ipv4_addr", icmp: "icmp", gateway: n.IPv4().Gateway}
	six := wallFamily{word: "ip6", suffix: "6", address: "ipv6_addr", icmp: "ipv6-icmp", gateway: n.IPv6().Gateway}
	for _, a := range e.Addresses() {
		if a.Is4() {
			four.own = append(four.own, a)
		} else {
			six.own = append(six.own, a)
		}
	}
	f.sets(e, four)
	f.sets(e, six)
	for _, v := range []wallFamily{four, six} {
		for _, name := range []string{"refuse", "pass", "out", "admit", "in"} {
			f.cmd("add chain netdev %s %s%s", f.table, name, v.suffix)
		}
	}
	f.cmd("add chain netdev %s arp", f.table)
	f.cmd("add chain netdev %s from { type filter hook ingress device %q priority 0 ; }", f.table, e.Link)
	f.cmd("add chain netdev %s to { type filter hook egress device %q priority 0 ; }", f.table, e.Link)
	f.from(e, four, six)
	f.neighbours(e, four)
	for _, v := range []wallFamily{four, six} {
		f.refuse(e, v)
		f.pass(v)
		f.out(e, v)
		f.come(e, v)
	}
	f.in("to")
	f.rule("ether type arp accept")
	f.rule("ether type ip jump in")
	f.rule("ether type ip6 jump in6")
	f.rule("drop")
	if e.wall.refusal == wire.RefuseBridge {
		f.bridge(e)
	}
	return f.lines
}

// bridge makes the chain that refuses what the wall has marked, before any other one of the bridge sees it.
func (f *wallWriter) bridge(e Endpoint) {
	f.cmd("add table bridge %s", f.table)
	f.cmd("flush table bridge %s", f.table)
	f.cmd("add chain bridge %s marked { type filter hook prerouting priority -400 ; }", f.table)
	for _, rule := range []string{"meta l4proto tcp reject with tcp reset", "reject with icmpx type admin-prohibited", "drop"} {
		f.cmd("add rule bridge %s marked iifname %q meta mark %#x %s", f.table, e.Link, wire.RefusedMark, rule)
	}
}

func (f *wallWriter) sets(e Endpoint, v wallFamily) {
	set := func(name, format string, a ...any) {
		f.cmd("add set netdev %s %s%s { type %s }", f.table, name, v.suffix, fmt.Sprintf(format, a...))
	}
	set(wire.SetNamed, "%s ; flags timeout ;", v.address)
	set(wire.SetNamedPorts, "%s . inet_proto . inet_service ; flags timeout ;", v.address)
	set(wire.SetNear, "%s ; flags dynamic,timeout ; timeout %s ; size %d ;", v.address, flowLife, mostFlow)
	set(wire.SetFlows, "%s . inet_proto . inet_service . inet_service ; flags dynamic,timeout ; timeout %s ; size %d ;",
		v.address, flowLife, mostFlow)
	for _, name := range []string{wire.SetRefused, wire.SetTurned} {
		set(name, "%s . inet_proto . inet_service ; flags dynamic,timeout ; timeout %s ; size %d ;", v.address, wire.Forgotten, mostSeen)
	}
	set(wire.SetSought, "%s ; flags dynamic,timeout ; timeout %s ; size %d ;", v.address, wire.Forgotten, mostSeen)
	if len(e.wall.guests) > 0 {
		set(wire.SetGuests, "%s ;", v.address)
		set(wire.SetGuestPorts, "%s . inet_proto . inet_service ;", v.address)
	}
	set(wire.SetOthers, "%s . inet_proto ; flags dynamic,timeout ; timeout %s ; size %d ;", v.address, wire.Forgotten, mostSeen)
}

// from is what every frame out of the container meets: is it the container's?
func (f *wallWriter) from(e Endpoint, four, six wallFamily) {
	f.in("from")
	f.rule("ether saddr != %s drop", e.MAC)
	for _, a := range four.own {
		// A frame with a tag of a VLAN has another type than it seems (802.1Q), and ends at the last rule.
		f.rule("ether type arp arp saddr ether %s arp saddr ip %s/32 jump arp", e.MAC, a)
		f.rule("ether type ip ip saddr %s/32 jump out", a)
	}
	if len(six.own) == 0 {
		if len(e.wall.egress) > 0 {
			f.rule("ether type ip6 jump refuse6") // it has none, and would be found out that way
		}
		f.rule("counter drop")
		return
	}
	own := six.own
	if a, ok := linkLocalOf(e.MAC); ok {
		own = append(slices.Clone(own), a)
	}
	for _, a := range own {
		// Nobody answers for an address that isn't his, and asks for himself before he has one (RFC 4861, 4862).
		f.rule("ether type ip6 icmpv6 type nd-neighbor-advert icmpv6 taddr %s/128 accept", a)
		f.rule("ether type ip6 icmpv6 type nd-neighbor-solicit icmpv6 taddr %s/128 accept", a)
	}
	f.rule("ether type ip6 icmpv6 type nd-neighbor-advert drop")
	f.rule("ether type ip6 icmpv6 type nd-router-advert drop")
	for _, a := range own {
		f.rule("ether type ip6 ip6 saddr %s/128 jump out6", a)
	}
	f.rule("counter drop")
}

// neighbours is what a question for a hardware address meets: it says to everybody on the bridge who is looked for.
func (f *wallWriter) neighbours(e Endpoint, v wallFamily) {
	f.in("arp")
	if len(e.wall.egress) == 0 {
		f.rule("accept")
		return
	}
	if !v.gateway.IsValid() { // no IPv4, and nobody who asks by ARP: see from
		f.rule("drop")
		return
	}
	f.rule("arp operation reply accept")
	f.rule("arp daddr ip %s/32 accept", v.gateway)
	for _, d := range e.wall.out {
		if d.Prefix.IsValid() && d.Prefix.Addr().Is4() && d.Prefix.Bits() > 0 {
			f.rule("arp daddr ip %s accept", d.Prefix)
		} else if d.Name == "" && (!d.Prefix.IsValid() || d.Prefix.Addr().Is4()) {
			f.rule("accept") // all addresses
		}
	}
	f.rule("arp daddr ip @%s accept", wire.SetNear)
	// Whoever asks for somebody by a broadcast tells all neighbours something, 32 bits at a time: nobody is told. The question goes back as
	// its own answer, with the gateway's hardware address: what then comes for the neighbour is
	// refused at once, and nobody waits three seconds.
	f.rule("update @%s { arp daddr ip counter }", wire.SetSought)
	if f.gateway != "" && len(v.own) > 0 {
		f.rule("arp saddr ip set arp daddr ip arp daddr ip set %s arp saddr ether set %s arp daddr ether set %s arp operation set reply "+
			"ether saddr set %[2]s ether daddr set %[3]s fwd to meta iif", v.own[0], f.gateway, e.MAC)
	}
	f.rule("drop")
}

// neighbours6 does for IPv6 what neighbours does: the solicitation goes back as the advertisement that answers it (RFC 4861, 4.3 and 4.4),
// with an hardware address of nobody's where the gateway has none that is known.
func (f *wallWriter) neighbours6(e Endpoint, v wallFamily) {
	const solicitation = "icmpv6 type nd-neighbor-solicit "
	f.rule(solicitation+"update @%s6 { icmpv6 taddr counter }", wire.SetSought)
	gateway := f.gateway
	if gateway == "" {
		gateway = macOf(Endpoint{IP6: v.gateway})
	}
	if gateway != "" && v.gateway.IsValid() {
		// Behind the target is the asker's hardware address, an option of 8 bytes with the number 1; in the answer it is that of the
		// target, with the number 2. The flags are Solicited and Override. The checksums are the kernel's affair.
		f.rule(solicitation+"@th,192,16 0x0101 ether saddr set %s ether daddr set %s ip6 daddr set ip6 saddr ip6 saddr set icmpv6 taddr "+
			"icmpv6 type set nd-neighbor-advert @th,32,32 set 0x60000000 @th,192,8 set 0x02 @th,208,48 set 0x%s fwd to meta iif",
			gateway, e.MAC, strings.ReplaceAll(gateway, ":", ""))
	}
	f.rule(solicitation + "drop")
}

// refuse is where what isn't allowed ends: remembered, and told at once, so that nobody waits for an answer.
func (f *wallWriter) refuse(e Endpoint, v wallFamily) {
	f.in("refuse" + v.suffix)
	for _, proto := range []string{"tcp", "udp", "sctp"} {
		f.rule("meta l4proto %s update @%s%s { %s daddr . meta l4proto . th dport counter }", proto, wire.SetRefused, v.suffix, v.word)
	}
	f.rule("meta l4proto != tcp meta l4proto != udp meta l4proto != sctp update @%s%s { %s daddr . meta l4proto counter }",
		wire.SetOthers, v.suffix, v.word)
	switch e.wall.refusal {
	case wire.RefuseBridge:
		// Nothing that a container marks comes here: a packet loses its mark on the way to another network namespace (skb_scrub_packet).
		f.rule("counter meta mark set %#x accept", wire.RefusedMark)
		return
	case wire.RefuseHere:
		f.rule("meta l4proto tcp counter reject with tcp reset")
		f.rule("counter reject with icmpx type admin-prohibited")
	case wire.RefuseSilent:
	}
	f.rule("drop") // what can't be rejected: a broadcast, the rest of a fragmented packet
}

// pass is where what is allowed goes on: its answers are let in, and what is open stays open when the name's time is over.
func (f *wallWriter) pass(v wallFamily) {
	f.in("pass" + v.suffix)
	f.rule("meta l4proto %s accept", v.icmp)
	f.rule("update @%s%s { %s }", wire.SetFlows, v.suffix, v.sent())
	f.rule("update @%s%s { %s daddr }", wire.SetNear, v.suffix, v.word)
	f.rule("accept")
}

// out is what the container's own packets meet.
func (f *wallWriter) out(e Endpoint, v wallFamily) {
	f.in("out" + v.suffix)
	if len(e.wall.egress) == 0 {
		f.rule("jump pass%s", v.suffix)
		return
	}
	// What goes on already, but no new connection between the same ports.
	f.rule("tcp flags & (syn | ack) != syn %s @%s%s jump pass%s", v.sent(), wire.SetFlows, v.suffix, v.suffix)
	f.rule("meta l4proto != tcp %s @%s%s jump pass%s", v.sent(), wire.SetFlows, v.suffix, v.suffix)
	for _, d := range e.wall.out {
		if match, ok := v.match(d, "daddr"); ok {
			f.rule("%sjump pass%s", match, v.suffix)
			if v.word == "ip6" && d.Prefix.IsValid() && d.Prefix.Bits() > 0 {
				f.rule("icmpv6 type nd-neighbor-solicit icmpv6 taddr %s accept", d.Prefix)
			}
		}
	}
	if v.word == "ip6" && v.gateway.IsValid() {
		f.rule("icmpv6 type nd-neighbor-solicit icmpv6 taddr %s/128 accept", v.gateway)
		f.rule("icmpv6 type nd-neighbor-solicit icmpv6 taddr @%s6 accept", wire.SetNear)
	}
	if v.word == "ip6" {
		f.neighbours6(e, v)
	}
	if e.wall.names {
		// A name that leads to the host, on whatever address, opens nothing.
		f.rule("fib daddr type local jump refuse%s", v.suffix)
		f.rule("%s daddr @%s%s jump pass%s", v.word, wire.SetNamed, v.suffix, v.suffix)
		f.rule("%s daddr . meta l4proto . th dport @%s%s jump pass%s", v.word, wire.SetNamedPorts, v.suffix, v.suffix)
	}
	f.rule("jump refuse%s", v.suffix)
}

// match is what a door means for one version of IP; ok is false for one that is about the other, or a name.
func (v wallFamily) match(d container.Door, field string) (match string, ok bool) {
	if d.Name != "" || d.Prefix.IsValid() && d.Prefix.Addr().Is4() != (v.word == "ip") {
		return "", false
	}
	if d.Prefix.IsValid() && d.Prefix.Bits() > 0 {
		match = fmt.Sprintf("%s %s %s ", v.word, field, d.Prefix)
	}
	if d.Port != 0 {
		match += fmt.Sprintf("meta l4proto %s th dport %d ", cmp.Or(d.Proto, "tcp"), d.Port)
	}
	return match, true
}

// come is what goes to the container.
func (f *wallWriter) come(e Endpoint, v wallFamily) {
	// Who was let in gets an answer: the first packet of a connection opens the way back for it. Not every packet of TCP, or the reset that
	// says "refused" would.
	f.in("admit" + v.suffix)
	// The wall's own refusals and answers come this way, too, in the name of whom the container wanted: they make nobody a neighbour, or it
	// could ask for him next, which the others hear.
	f.rule("tcp flags & (syn | rst) == rst accept")
	if v.word == "ip" {
		f.rule("icmp type destination-unreachable accept")
	} else {
		f.rule("icmpv6 type destination-unreachable accept")
		f.rule("icmpv6 type nd-neighbor-advert accept")
	}
	f.rule("tcp flags & (syn | ack) == syn update @%s%s { %s }", wire.SetFlows, v.suffix, v.got())
	f.rule("meta l4proto udp update @%s%s { %s }", wire.SetFlows, v.suffix, v.got())
	f.rule("meta l4proto sctp update @%s%s { %s }", wire.SetFlows, v.suffix, v.got())
	f.rule("update @%s%s { %s saddr }", wire.SetNear, v.suffix, v.word)
	f.rule("accept")

	f.in("in" + v.suffix)
	if len(e.wall.ingress) == 0 {
		f.rule("jump admit%s", v.suffix)
		return
	}
	f.rule("tcp flags & (syn | ack) != syn %s @%s%s accept", v.got(), wire.SetFlows, v.suffix)
	f.rule("meta l4proto != tcp %s @%s%s accept", v.got(), wire.SetFlows, v.suffix)
	f.rule("tcp flags & (syn | rst) == rst accept") // "refused" connects nobody
	if v.word == "ip" {
		for _, t := range []string{"echo-reply", "destination-unreachable", "time-exceeded", "parameter-problem"} {
			f.rule("icmp type %s accept", t)
		}
	} else {
		for _, t := range []string{
			"echo-reply", "destination-unreachable", "packet-too-big", "time-exceeded", "parameter-problem", "nd-neighbor-solicit",
			"nd-neighbor-advert",
		} {
			f.rule("icmpv6 type %s accept", t)
		}
	}
	if len(e.wall.guests) > 0 {
		f.rule("%s saddr @%s%s jump admit%[3]s", v.word, wire.SetGuests, v.suffix)
		f.rule("%s saddr . meta l4proto . th dport @%s%s jump admit%[3]s", v.word, wire.SetGuestPorts, v.suffix)
	}
	for _, d := range e.wall.in {
		if match, ok := v.match(d, "saddr"); ok {
			f.rule("%sjump admit%s", match, v.suffix)
		}
	}
	f.rule("update @%s%s { %s saddr . meta l4proto . th dport counter }", wire.SetTurned, v.suffix, v.word)
	f.rule("counter drop")
}

// linkLocalOf is the address that the kernel makes of a hardware address (RFC 4291, appendix A).
func linkLocalOf(mac string) (netip.Addr, bool) {
	var b [6]byte
	if n, err := fmt.Sscanf(mac, "%02x:%02x:%02x:%02x:%02x:%02x", &b[0], &b[1], &b[2], &b[3], &b[4], &b[5]); err != nil || n != 6 {
		return netip.Addr{}, false
	}
	return netip.AddrFrom16([16]byte{0xfe, 0x80, 8: b[0] ^ 2, b[1], b[2], 0xff, 0xfe, b[3], b[4], b[5]}), true
}

// ResolverWalls writes what a container's resolver has to know of the walls among its steps: see dns.Watch. It is the plan that says it,
// so that it holds also after the container's networks have changed.
func ResolverWalls(steps []plan.Step) []byte {
	var b bytes.Buffer
	cables := 0
	for _, s := range steps {
		switch op := s.Op.(type) {
		case *plan.LinkVeth:
			cables++
		case *plan.NftWall:
			if len(op.Egress) == 0 {
				continue
			}
			cables--
			fmt.Fprintf(&b, "wall %s\n", op.Table)
			for _, p := range op.Allowed {
				fmt.Fprintf(&b, "cidr %s\n", p)
			}
			for _, text := range op.Egress {
				if d, err := container.ParseDoor(text); err == nil && d.Name != "" {
					fmt.Fprintf(&b, "allow %s %d %s\n", d.Name, d.Port, cmp.Or(d.Proto, "-"))
				}
			}
		}
	}
	if b.Len() > 0 && cables <= 0 {
		b.WriteString("strict\n") // no cable is without
	}
	return b.Bytes()
}
