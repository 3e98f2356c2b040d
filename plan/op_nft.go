package plan

import (
	"fmt"
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

// PortRule forwards a port of the host to a port of a container.
type PortRule struct {
	Proto         string `json:"proto"`            // tcp, udp, sctp
	HostIP        string `json:"hostIP,omitempty"` // empty: every local address
	HostPort      uint16 `json:"hostPort"`
	ContainerIP   string `json:"containerIP"`
	ContainerPort uint16 `json:"containerPort"`
}

func ports(rs []PortRule) string {
	out := make([]string, len(rs))
	for i, r := range rs {
		ip := r.HostIP
		if ip == "" {
			ip = "*"
		}
		out[i] = fmt.Sprintf("%s:%d/%s to %s:%d", ip, r.HostPort, r.Proto, r.ContainerIP, r.ContainerPort)
	}
	return strings.Join(out, ", ")
}
