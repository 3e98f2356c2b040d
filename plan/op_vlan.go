package plan

import "fmt"

// LinkVLAN makes a link of the host that is one VLAN of another link's cable (IEEE 802.1Q), unless it exists, and sets it up. It stays when
// the container goes: other containers are on top of it.
type LinkVLAN struct {
	Name   string `json:"name"`
	Parent string `json:"parent"`
	ID     int    `json:"id"`             // 1 to 4094
	Mark   string `json:"mark,omitempty"` // alias of a link that is made: whose it is, and who takes it back
}

func (*LinkVLAN) Kind() string { return "link-vlan" }

func (*LinkVLAN) Man() string { return "ip-link(8)" }

func (o *LinkVLAN) String() string {
	return fmt.Sprintf("make %s, VLAN %d of %s, unless it exists", o.Name, o.ID, o.Parent)
}

func (*LinkVLAN) lanes() lanes { return hostLane }

func (o *LinkVLAN) hostNames() []string { return []string{"link " + o.Name, "link " + o.Parent} }
