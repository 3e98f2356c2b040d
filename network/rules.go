package network

import (
	"fmt"
	"hash/fnv"

	"glassbox/wire"
)

// Rules returns the firewall of a bridge as commands of nft(8): a reader could feed them to "nft -f". The executor compiles
// exactly these lines into netlink messages.
func Rules(n Network) []string {
	var (
		lines []string
		chain string
	)
	cmd := func(format string, a ...any) { lines = append(lines, fmt.Sprintf(format, a...)) }
	in := func(name, hook string) {
		chain = name
		cmd("add chain ip %s %s { %s ; }", n.Table(), name, hook)
	}
	rule := func(format string, a ...any) {
		cmd("add rule ip %s %s %s", n.Table(), chain, fmt.Sprintf(format, a...))
	}
	br, subnet := fmt.Sprintf("%q", n.Link), n.IPv4().Prefix.Masked().String()

	// Flushing removes rules but neither maps nor the ports in them: running containers keep theirs.
	cmd("add table ip %s", n.Table())
	cmd("flush table ip %s", n.Table())
	cmd("add map ip %s %s { type inet_proto . inet_service : ipv4_addr . inet_service ; }", n.Table(), wire.MapAny)
	cmd("add map ip %s %s { type ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service ; }", n.Table(), wire.MapOn)

	// route_localnet on the bridge would let containers talk to services that the host binds to 127.0.0.1 (CVE-2020-8558).
	// Nor may they pretend to be the host's own programs, with a source in 127.0.0.0/8, which the same setting would allow.
	// Before conntrack (-200), so that answers to the host's own connections, which are translated there, are not hit.
	in("loopback", "type filter hook prerouting priority -300")
	rule("iifname %s ip daddr 127.0.0.0/8 drop", br)
	rule("iifname %s ip saddr 127.0.0.0/8 drop", br)

	// A port published on 127.0.0.1 is for this host only: a neighbour who sends frames with that destination is not served.
	in("prerouting", "type nat hook prerouting priority -100")
	rule("ip daddr != 127.0.0.0/8 dnat ip to ip daddr . meta l4proto . th dport map @%s", wire.MapOn)
	rule("ip daddr != 127.0.0.0/8 fib daddr type local dnat ip to meta l4proto . th dport map @%s", wire.MapAny)

	in("output", "type nat hook output priority -100")
	rule("dnat ip to ip daddr . meta l4proto . th dport map @%s", wire.MapOn)
	rule("fib daddr type local dnat ip to meta l4proto . th dport map @%s", wire.MapAny)

	in("postrouting", "type nat hook postrouting priority 100")
	// The host came through its loopback: a container can't answer to 127.0.0.1.
	rule("oifname %s ip saddr 127.0.0.0/8 masquerade", br)
	// A container came through a published port and back into the bridge: the answer has to take the same way.
	rule("oifname %s ip saddr %s ct status dnat masquerade", br, subnet)
	if !n.Internal && !n.Routed {
		rule("oifname != %s ip saddr %s masquerade", br, subnet)
	}

	in("forward", "type filter hook forward priority 0")
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
	for _, dev := range n.Opened {
		// We opened this interface for the bridge alone. Others' answers and translations pass.
		rule("iifname %q ct state established,related accept", dev)
		rule("iifname %q ct status dnat accept", dev)
		rule("iifname %q drop", dev)
	}
	// A rule that nothing comes to: its comment names the version of the rules above. If it is there, so are they, and "nft flush table"
	// and "nft flush ruleset" remove it together with them.
	version := tag(lines)
	cmd("add chain ip %s %s", n.Table(), wire.TagChain)
	cmd("add rule ip %s %s accept comment %q", n.Table(), wire.TagChain, version)
	return lines
}

func tag(lines []string) string {
	h := fnv.New64a()
	for _, l := range lines {
		h.Write([]byte(l + "\n"))
	}
	return fmt.Sprintf("glassbox rules %016x", h.Sum64())
}
