package network

import (
	"fmt"
	"hash/fnv"
	"net/netip"
	"strings"

	"glassbox/plan"
)

// Bridge is a virtual switch of the host that containers of one network are plugged into. The host has an address on it,
// Gateway, and is the containers' router.
type Bridge struct {
	Name    string       `json:"name"`
	Subnet  netip.Prefix `json:"subnet"`
	Gateway netip.Addr   `json:"gateway"`
	MTU     int          `json:"mtu,omitempty"`
	Table   string       `json:"table"` // nft table, family ip
	// Opened are the interfaces to the outside that glassbox has to switch forwarding on for, because the host is no router
	// (net.ipv4.ip_forward is 0). Empty where it is one.
	Opened []string `json:"opened,omitempty"`
}

// Endpoint is one container's place on a bridge.
type Endpoint struct {
	Bridge Bridge     `json:"bridge"`
	IP     netip.Addr `json:"ip"`
	MAC    string     `json:"mac,omitempty"` // of the container's side, see MAC
	Veth   string     `json:"veth"`          // name of the host's side, see VethName
	Ports  []Port     `json:"ports,omitempty"`
}

// Device is the name of a container's interface.
const Device = "eth0"

// VethName derives the name of the host's side of a container's veth pair from the container's id: at most 15 bytes
// (IFNAMSIZ), the same letters that "glassbox ps" shows where the id is hexadecimal.
func VethName(id string) string {
	if len(id) >= 12 && strings.Trim(id[:12], "0123456789abcdef") == "" {
		return vethPrefix + id[:12]
	}
	h := fnv.New64a()
	h.Write([]byte(id))
	return fmt.Sprintf("%s%012x", vethPrefix, h.Sum64()&(1<<48-1))
}

const vethPrefix = "gb"

// MAC derives a locally administered hardware address from an IPv4 address, so that an address that passes from one
// container to the next keeps its hardware address and nobody's ARP cache goes stale.
func MAC(ip netip.Addr) string {
	if !ip.Is4() && !ip.Is4In6() {
		return ""
	}
	a := ip.As4()
	return fmt.Sprintf("02:42:%02x:%02x:%02x:%02x", a[0], a[1], a[2], a[3])
}

// Steps returns the host-lane steps that connect a container with a network namespace of its own to a bridge. They follow the
// clone. origin says where a thing comes from; it is asked for "network" and, once for all published ports, "publish".
//
// The firewall comes first, so that there is no moment in which packets are forwarded without it, and the published ports
// come last, when somebody can answer.
func Steps(e Endpoint, origin func(what string) string) []plan.Step {
	b := e.Bridge
	from := origin("network")
	var steps []plan.Step
	add := func(op plan.Op, origin, reason string) {
		steps = append(steps, plan.Step{Lane: plan.Host, Phase: plan.Network, Op: op, Origin: origin, Reason: reason})
	}
	add(&plan.NftBridge{Table: b.Table, Bridge: b.Name, Subnet: b.Subnet.String(), Rules: Rules(b)}, from,
		"The firewall of the bridge: containers leave with the host's address, only published ports are let in, and the host's own loopback stays out of reach.")
	add(&plan.LinkBridge{Name: b.Name, Address: gatewayPrefix(b).String(), MTU: b.MTU, Sysctls: []string{
		"net/ipv4/conf/" + b.Name + "/forwarding=1",
		"net/ipv4/conf/" + b.Name + "/route_localnet=1",
		"net/ipv6/conf/" + b.Name + "/disable_ipv6=1",
	}}, from,
		"A switch inside the kernel that all containers of this network are plugged into; the host routes for them (forwarding), lets its own 127.0.0.1 reach their published ports (route_localnet), and listens to no router advertisements from them (disable_ipv6).")
	for _, dev := range b.Opened {
		add(&plan.WriteFile{Path: "/proc/sys/net/ipv4/conf/" + dev + "/forwarding", Value: "1"}, from,
			"Answers from the outside come in here and have to be forwarded to the bridge; this host forwards nothing else, so the switch for the whole host stays off and the firewall drops what isn't for the bridge.")
	}
	add(&plan.LinkVeth{Name: e.Veth, Peer: Device, Bridge: b.Name, MAC: e.MAC, MTU: b.MTU, Hairpin: len(e.Ports) > 0}, from,
		"A cable with one plug in the bridge and the other in the container's network namespace.")
	steps = append(steps, loopback(from))
	add(&plan.LinkAddress{Link: Device, Address: netip.PrefixFrom(e.IP, b.Subnet.Bits()).String()}, from,
		"The container's address, leased from the bridge's subnet.")
	add(&plan.RouteDefault{Link: Device, Via: b.Gateway.String()}, from,
		"Everything beyond the subnet goes through the host.")
	if len(e.Ports) > 0 {
		add(&plan.NftPublish{Table: b.Table, Ports: rules(e)}, origin("publish"),
			"Connections to these ports of the host are sent on to the container by the kernel itself; no process stands between.")
	}
	return steps
}

// Loopback returns the step for a network namespace without any connection: its loopback interface is set up, because
// programs expect to reach themselves at 127.0.0.1.
func Loopback() []plan.Step { return []plan.Step{loopback("default")} }

func loopback(origin string) plan.Step {
	return plan.Step{
		Lane: plan.Host, Phase: plan.Network, Op: &plan.LinkAddress{Link: "lo"}, Origin: origin,
		Reason: "A new network namespace has a loopback interface that is down; programs expect to reach themselves at 127.0.0.1.",
	}
}

func gatewayPrefix(b Bridge) netip.Prefix { return netip.PrefixFrom(b.Gateway, b.Subnet.Bits()) }

// rules gives the published ports of an endpoint as the plan has them.
func rules(e Endpoint) []plan.PortRule {
	out := make([]plan.PortRule, len(e.Ports))
	for i, p := range e.Ports {
		out[i] = plan.PortRule{Proto: p.Proto, HostPort: p.HostPort, ContainerIP: e.IP.String(), ContainerPort: p.ContainerPort}
		if p.HostIP.IsValid() {
			out[i].HostIP = p.HostIP.String()
		}
	}
	return out
}

// Rules returns the firewall of a bridge as commands of nft(8): a reader could feed them to "nft -f". The executor compiles
// exactly these lines into netlink messages.
func Rules(b Bridge) []string {
	var (
		lines []string
		chain string
	)
	cmd := func(format string, a ...any) { lines = append(lines, fmt.Sprintf(format, a...)) }
	in := func(name, hook string) {
		chain = name
		cmd("add chain ip %s %s { %s ; }", b.Table, name, hook)
	}
	rule := func(format string, a ...any) {
		cmd("add rule ip %s %s %s", b.Table, chain, fmt.Sprintf(format, a...))
	}
	br, subnet := fmt.Sprintf("%q", b.Name), b.Subnet.Masked().String()

	// Flushing removes rules but neither maps nor the ports in them: running containers keep theirs.
	cmd("add table ip %s", b.Table)
	cmd("flush table ip %s", b.Table)
	cmd("add map ip %s %s { type inet_proto . inet_service : ipv4_addr . inet_service ; }", b.Table, mapAny)
	cmd("add map ip %s %s { type ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service ; }", b.Table, mapOn)

	// route_localnet on the bridge would let containers talk to services that the host binds to 127.0.0.1 (CVE-2020-8558).
	// Nor may they pretend to be the host's own programs, with a source in 127.0.0.0/8, which the same setting would allow.
	// Before conntrack (-200), so that answers to the host's own connections, which are translated there, are not hit.
	in("loopback", "type filter hook prerouting priority -300")
	rule("iifname %s ip daddr 127.0.0.0/8 drop", br)
	rule("iifname %s ip saddr 127.0.0.0/8 drop", br)

	// A port published on 127.0.0.1 is for this host only: a neighbour who sends frames with that destination is not served.
	in("prerouting", "type nat hook prerouting priority -100")
	rule("ip daddr != 127.0.0.0/8 dnat ip to ip daddr . meta l4proto . th dport map @%s", mapOn)
	rule("ip daddr != 127.0.0.0/8 fib daddr type local dnat ip to meta l4proto . th dport map @%s", mapAny)

	in("output", "type nat hook output priority -100")
	rule("dnat ip to ip daddr . meta l4proto . th dport map @%s", mapOn)
	rule("fib daddr type local dnat ip to meta l4proto . th dport map @%s", mapAny)

	in("postrouting", "type nat hook postrouting priority 100")
	// The host came through its loopback: a container can't answer to 127.0.0.1.
	rule("oifname %s ip saddr 127.0.0.0/8 masquerade", br)
	// A container came through a published port and back into the bridge: the answer has to take the same way.
	rule("oifname %s ip saddr %s ct status dnat masquerade", br, subnet)
	rule("oifname != %s ip saddr %s masquerade", br, subnet)

	in("forward", "type filter hook forward priority 0")
	rule("iifname %s accept", br)
	rule("oifname %s ct state established,related accept", br)
	rule("oifname %s ct status dnat accept", br)
	// A neighbour who routes the subnet through this host reaches nothing that isn't published.
	rule("oifname %s drop", br)
	for _, dev := range b.Opened {
		// We opened this interface for the bridge alone. Others' answers and translations pass.
		rule("iifname %q ct state established,related accept", dev)
		rule("iifname %q ct status dnat accept", dev)
		rule("iifname %q drop", dev)
	}
	// A rule that nothing comes to: its comment names the version of the rules above. If it is there, so are they, and "nft flush table"
	// and "nft flush ruleset" remove it together with them.
	version := tag(lines)
	cmd("add chain ip %s %s", b.Table, tagChain)
	cmd("add rule ip %s %s accept comment %q", b.Table, tagChain, version)
	return lines
}

// tagChain is the chain with the version.
const tagChain = "version"

func tag(lines []string) string {
	h := fnv.New64a()
	for _, l := range lines {
		h.Write([]byte(l + "\n"))
	}
	return fmt.Sprintf("glassbox rules %016x", h.Sum64())
}

// The maps of published ports: on every address of the host, and on one.
const (
	mapAny = "published"
	mapOn  = "published_on"
)
