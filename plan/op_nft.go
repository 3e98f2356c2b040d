package plan

import (
	"fmt"
	"net/netip"
	"strings"
)

// newNftOp makes an empty step of one of the kinds of this file, or nil: the firewall.
func newNftOp(kind string) Op {
	switch kind {
	case "nft-bridge":
		return &NftBridge{}
	case "nft-publish":
		return &NftPublish{}
	case "nft-unpublish":
		return &NftUnpublish{}
	case "port-carry":
		return &PortCarry{}
	}
	return nil
}

// NftBridge makes the tables, chains and maps of one bridge in one transaction, unless they are there. Rules are for readers,
// in the syntax of nft(8).
type NftBridge struct {
	Table  string   `json:"table"`
	Bridge string   `json:"bridge"`
	Subnet string   `json:"subnet"`
	Rules  []string `json:"rules,omitempty"`
}

func (*NftBridge) Kind() string { return "nft-bridge" }

func (*NftBridge) Man() string { return "nft(8)" }

func (o *NftBridge) String() string {
	return fmt.Sprintf("make table %s: masquerade %s, forward for %s", o.Table, o.Subnet, o.Bridge)
}

func (*NftBridge) lanes() lanes { return hostLane }

func (o *NftBridge) hostNames() []string { return []string{"nft table ip " + o.Table} }

// NftPublish adds published ports to the maps of the bridge's table, in one transaction.
type NftPublish struct {
	Table string     `json:"table"`
	Ports []PortRule `json:"ports"`
}

func (*NftPublish) Kind() string { return "nft-publish" }

func (*NftPublish) Man() string { return "nft(8)" }

func (o *NftPublish) String() string {
	return "publish " + ports(o.Ports)
}

func (*NftPublish) lanes() lanes { return hostLane }

func (o *NftPublish) hostNames() []string { return []string{"nft table ip " + o.Table} }

// Undo takes the ports out of the maps.
func (o *NftPublish) Undo() []Op { return []Op{&NftUnpublish{Table: o.Table, Ports: o.Ports}} }

// NftUnpublish takes published ports out of the maps. One that is gone already is no error.
type NftUnpublish struct {
	Table string     `json:"table"`
	Ports []PortRule `json:"ports"`
}

func (*NftUnpublish) Kind() string { return "nft-unpublish" }

func (*NftUnpublish) Man() string { return "nft(8)" }

func (o *NftUnpublish) String() string {
	return "unpublish " + ports(o.Ports)
}

func (*NftUnpublish) lanes() lanes { return hostLane }

func (o *NftUnpublish) hostNames() []string { return []string{"nft table ip " + o.Table} }

// PortCarry listens at those ports of the host that no rule of nftables can lead to the container ([PortRule.Carried]). Whoever runs the
// plan keeps the sockets, and carries what comes to the container and back: with the first port's socket first.
type PortCarry struct {
	Ports []PortRule `json:"ports"`
}

func (*PortCarry) Kind() string { return "port-carry" }

func (*PortCarry) Man() string { return "socket(2)" }

func (o *PortCarry) String() string { return "carry " + ports(o.Ports) }

func (*PortCarry) lanes() lanes { return hostLane }

func (o *PortCarry) hostNames() []string {
	var out []string
	for _, p := range o.Ports {
		out = append(out, "port "+ports([]PortRule{p}))
	}
	return out
}

// Carried reports whether a process has to carry what comes to the port. The kernel doesn't translate between IPv4 and IPv6; and an answer
// for ::1 it takes from the loopback interface alone (rt6_need_strict in net/ipv6/route.c), or, where br_netfilter shows bridged packets to
// nftables, from nowhere else at all (ip6_rcv_core in net/ipv6/ip6_input.c).
func (r PortRule) Carried() bool {
	host, err := netip.ParseAddr(r.HostIP)
	if err != nil {
		return false // every address of the container's version of IP
	}
	to, err := netip.ParseAddr(r.ContainerIP)
	return err == nil && (host == netip.IPv6Loopback() || host.Is4() != to.Is4())
}

// PortRule forwards a port of the host to a port of a container.
type PortRule struct {
	Proto         string `json:"proto"`            // tcp, udp, sctp
	HostIP        string `json:"hostIP,omitempty"` // empty: every local address
	HostPort      uint16 `json:"hostPort"`
	ContainerIP   string `json:"containerIP"`
	ContainerPort uint16 `json:"containerPort"`
}

func ports(rs []PortRule) string {
	const most = 20 // a range can have thousands, and a line is for readers
	more := ""
	if len(rs) > most {
		more = fmt.Sprintf(", and %d more", len(rs)-most+1)
		rs = rs[:most-1]
	}
	out := make([]string, len(rs))
	for i, r := range rs {
		ip := r.HostIP
		if ip == "" {
			ip = "*"
		}
		out[i] = fmt.Sprintf("%s:%d/%s to %s:%d", bracket(ip), r.HostPort, r.Proto, bracket(r.ContainerIP), r.ContainerPort)
	}
	return strings.Join(out, ", ") + more
}

// bracket writes an address before a port.
func bracket(ip string) string {
	if strings.Contains(ip, ":") {
		return "[" + ip + "]"
	}
	return ip
}
