package network

import (
	"fmt"
	"hash/fnv"
	"net/netip"

	"glassbox/wire"
)

// Rules returns the firewall of a bridge as commands of nft(8): a reader could feed them to "nft -f". The executor compiles
// exactly these lines into netlink messages. They make a table of family ip, one of family ip6 where the network has IPv6, and one of
// family bridge, all of the same name.
func Rules(n Network) []string {
	var lines []string
	f := &lineWriter{n: n, lines: &lines}
	f.ip(wire.FamilyIP, "ipv4_addr", n.IPv4().Prefix, n.Routed, n.Opened)
	if n.hasIPv6() {
		f.ip(wire.FamilyIP6, "ipv6_addr", n.IPv6().Prefix, n.Routed || n.Routed6, n.Opened6)
	}
	if n.guarded() {
		f.guard()
	}
	// A rule that nothing comes to: its comment names the version of the rules above. If it is there, so are they, and "nft flush table"
	// and "nft flush ruleset" remove it together with them.
	version := tag(lines)
	f.family = wire.FamilyIP
	f.cmd("add chain ip %s %s", n.Table(), wire.TagChain)
	f.cmd("add rule ip %s %s accept comment %q", n.Table(), wire.TagChain, version)
	return lines
}

// guarded says whether what the network's containers send is compared with what they are.
func (n Network) guarded() bool { return n.Driver == Bridge && !n.Open }

type lineWriter struct {
	n             Network
	lines         *[]string
	family, chain string
}

func (f *lineWriter) cmd(format string, a ...any) {
	*f.lines = append(*f.lines, fmt.Sprintf(format, a...))
}

func (f *lineWriter) in(name, hook string) {
	f.chain = name
	f.cmd("add chain %s %s %s { %s ; }", f.family, f.n.Table(), name, hook)
}

func (f *lineWriter) rule(format string, a ...any) {
	f.cmd("add rule %s %s %s %s", f.family, f.n.Table(), f.chain, fmt.Sprintf(format, a...))
}

// ip writes the table of one version of IP. subnet may be invalid: then the table has nothing to translate. opened are the interfaces that
// forwarding was switched on for.
func (f *lineWriter) ip(family, address string, subnet netip.Prefix, routed bool, opened []string) {
	n, rule := f.n, f.rule
	f.family = family
	br, v4 := fmt.Sprintf("%q", n.Link), family == wire.FamilyIP

	// Flushing removes rules but neither maps nor the ports in them: running containers keep theirs.
	f.cmd("add table %s %s", family, n.Table())
	f.cmd("flush table %s %s", family, n.Table())
	f.cmd("add map %s %s %s { type inet_proto . inet_service : %s . inet_service ; }", family, n.Table(), wire.MapAny, address)
	f.cmd("add map %s %s %s { type %s . inet_proto . inet_service : %s . inet_service ; }", family, n.Table(), wire.MapOn, address, address)

	elsewhere := "" // IPv6 lets no packet to ::1 in from outside, and out to nowhere
	if v4 {
		elsewhere = "ip daddr != 127.0.0.0/8 "
		// route_localnet on the bridge would let containers talk to services that the host binds to 127.0.0.1 (CVE-2020-8558).
		// Nor may they pretend to be the host's own programs, with a source in 127.0.0.0/8, which the same setting would allow.
		// Before conntrack (-200), so that answers to the host's own connections, which are translated there, are not hit.
		f.in("loopback", "type filter hook prerouting priority -300")
		rule("iifname %s ip daddr 127.0.0.0/8 drop", br)
		rule("iifname %s ip saddr 127.0.0.0/8 drop", br)
	}

	// A port published on 127.0.0.1 is for this host only: a neighbour who sends frames with that destination is not served.
	f.in("prerouting", "type nat hook prerouting priority -100")
	rule("%sdnat %s to %s daddr . meta l4proto . th dport map @%s", elsewhere, family, family, wire.MapOn)
	rule("%sfib daddr type local dnat %s to meta l4proto . th dport map @%s", elsewhere, family, wire.MapAny)

	f.in("output", "type nat hook output priority -100")
	rule("dnat %s to %s daddr . meta l4proto . th dport map @%s", family, family, wire.MapOn)
	rule("fib daddr type local dnat %s to meta l4proto . th dport map @%s", family, wire.MapAny)

	f.in("postrouting", "type nat hook postrouting priority 100")
	if v4 {
		// The host came through its loopback: a container can't answer to 127.0.0.1.
		rule("oifname %s ip saddr 127.0.0.0/8 masquerade", br)
	}
	if subnet.IsValid() {
		// A container came through a published port and back into the bridge: the answer has to take the same way.
		rule("oifname %s %s saddr %s ct status dnat masquerade", br, family, subnet.Masked())
		if !n.Internal && !routed {
			rule("oifname != %s %s saddr %s masquerade", br, family, subnet.Masked())
		}
	}

	f.in("forward", "type filter hook forward priority 0")
	if n.Internal {
		// No way out and none in. What goes from one of its containers to another isn't forwarded but bridged, or comes back to the bridge
		// where br_netfilter shows it to this chain all the same.
		rule("iifname %s oifname %s accept", br, br)
		rule("iifname %s drop", br)
		rule("oifname %s drop", br)
	} else if n.Isolated {
		// A container reaches another's published ports, and nothing else of it: neither through the bridge, whose ports are isolated, nor
		// by sending it to the host to be routed back.
		rule("iifname %s oifname %s ct status dnat accept", br, br)
		rule("iifname %s oifname %s ct state established,related accept", br, br)
		rule("iifname %s oifname %s drop", br, br)
	}
	rule("iifname %s accept", br)
	rule("oifname %s ct state established,related accept", br)
	rule("oifname %s ct status dnat accept", br)
	// A neighbour who routes the subnet through this host reaches nothing that isn't published.
	rule("oifname %s drop", br)
	for _, dev := range opened {
		// We opened this interface for the bridge alone. Others' answers and translations pass.
		rule("iifname %q ct state established,related accept", dev)
		rule("iifname %q ct status dnat accept", dev)
		rule("iifname %q drop", dev)
	}
}

// guard writes the table of family bridge: what a container sends has its own addresses, or goes nowhere. Without it one container could
// speak for another, or for the gateway (ARP, neighbour advertisements), and take over what others send. Who is behind which port stands in
// sets that the containers' starts fill (plan.NftGuard).
func (f *lineWriter) guard() {
	n, rule := f.n, f.rule
	f.family = wire.FamilyBridge
	f.cmd("add table bridge %s", n.Table())
	f.cmd("flush table bridge %s", n.Table())
	f.cmd("add set bridge %s %s { type ifname ; }", n.Table(), wire.SetPorts)
	f.cmd("add set bridge %s %s { type ifname . ether_addr . ipv4_addr ; }", n.Table(), wire.SetOwn)
	if n.hasIPv6() {
		f.cmd("add set bridge %s %s { type ifname . ether_addr . ipv6_addr ; }", n.Table(), wire.SetOwn6)
	}
	f.in("guard", "type filter hook prerouting priority -300")
	rule("iifname != @%s accept", wire.SetPorts) // of another bridge
	rule("ether type ip iifname . ether saddr . ip saddr @%s accept", wire.SetOwn)
	rule("ether type arp iifname . ether saddr . arp saddr ip @%s accept", wire.SetOwn)
	if n.hasIPv6() {
		// Nobody here is a router, and nobody answers for an address that isn't his (RFC 4861).
		rule("ether type ip6 icmpv6 type nd-router-advert drop")
		rule("ether type ip6 icmpv6 type nd-redirect drop")
		rule("ether type ip6 icmpv6 type nd-neighbor-advert iifname . ether saddr . icmpv6 taddr != @%s drop", wire.SetOwn6)
		rule("ether type ip6 iifname . ether saddr . ip6 saddr @%s accept", wire.SetOwn6)
	}
	// Nor are there other protocols: a tag of a VLAN would lead a frame past the rules above.
	rule("drop")
}

func tag(lines []string) string {
	h := fnv.New64a()
	for _, l := range lines {
		h.Write([]byte(l + "\n"))
	}
	return fmt.Sprintf("glassbox rules %016x", h.Sum64())
}
