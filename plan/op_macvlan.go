package plan

import "fmt"

// LinkMacvlan makes a link on top of one of the host's, its parent, in the child's network namespace, down: the container is on the
// parent's cable with an address of its own, past the host's rules and routes. It ends with the namespace.
type LinkMacvlan struct {
	Driver string `json:"driver"`         // macvlan, ipvlan
	Name   string `json:"name"`           // in the container
	Parent string `json:"parent"`         // on the host
	Mode   string `json:"mode"`           // of macvlan: bridge, private, vepa, passthru; of ipvlan: l2, l3, l3s
	Flag   string `json:"flag,omitempty"` // of ipvlan: private, vepa; empty: its links reach each other
	MAC    string `json:"mac,omitempty"`
	MTU    int    `json:"mtu,omitempty"`
	// Sysctls are settings of the link, as those of LinkVeth.
	Sysctls []string `json:"sysctls,omitempty"`
}

func (*LinkMacvlan) Kind() string { return "link-macvlan" }

func (*LinkMacvlan) Man() string { return "ip-link(8)" }

func (o *LinkMacvlan) String() string {
	return fmt.Sprintf("make %s %s (in the container) on top of %s, mode %s", o.Driver, o.Name, o.Parent, o.Mode)
}

func (*LinkMacvlan) lanes() lanes { return hostLane }

func (o *LinkMacvlan) hostNames() []string { return []string{"link " + o.Parent} }
