package plan

import (
	"fmt"
)

// newFirewallOp makes an empty step of one of the kinds of this file, or nil: other people's firewalls.
func newFirewallOp(kind string) Op {
	switch kind {
	case "firewall-accept":
		return &FirewallAccept{}
	}
	return nil
}

// FirewallAccept lets a network through a chain of another firewall that would drop its packets: in netfilter an accept ends one chain,
// and a drop all of them. It adds those of the rules that aren't there, and stays when the container goes: other containers use it.
type FirewallAccept struct {
	Link    string `json:"link"`              // of the network, which is also in the rules' comment
	Family  string `json:"family"`            // of the table: ip, ip6, inet
	Table   string `json:"table"`             // whose chain it is
	Chain   string `json:"chain"`             //
	Program string `json:"program,omitempty"` // iptables-legacy, ip6tables-legacy: the firewall isn't one of nf_tables
	// Rules are in the syntax of nft(8), or of the program: "iptables-legacy -w -A FORWARD …".
	Rules []string `json:"rules"`
}

func (*FirewallAccept) Kind() string { return "firewall-accept" }

func (o *FirewallAccept) Man() string {
	if o.Program != "" {
		return "iptables(8)"
	}
	return "nft(8)"
}

func (o *FirewallAccept) String() string {
	return fmt.Sprintf("let %s through chain %s of %s", o.Link, o.Chain, o.Where())
}

// Where names the table.
func (o *FirewallAccept) Where() string {
	if o.Program != "" {
		return o.Program
	}
	return "table " + o.Family + " " + o.Table
}

func (*FirewallAccept) lanes() lanes { return hostLane }

func (o *FirewallAccept) hostNames() []string { return []string{o.Where() + " " + o.Chain} }
