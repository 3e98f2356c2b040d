package plan

import (
	"fmt"
	"slices"
	"strings"
)

// newWallOp makes an empty step of one of the kinds of this file, or nil: who a container may talk to.
func newWallOp(kind string) Op {
	switch kind {
	case "nft-wall":
		return &NftWall{}
	case "nft-unwall":
		return &NftUnwall{}
	}
	return nil
}

// NftWall makes a table of family netdev on the host's end of a container's cable, in one transaction: what comes out of the container
// and isn't allowed by its rules is refused and counted, and so is what wants in. It comes after the cable, whose other end is still down.
type NftWall struct {
	Table   string   `json:"table"`
	Link    string   `json:"link"`
	Egress  []string `json:"egress,omitempty"`  // as asked for with --egress: deny, or what is allowed
	Ingress []string `json:"ingress,omitempty"` // the same of --ingress
	Allowed []string `json:"allowed,omitempty"` // addresses that Egress opens by themselves, for the container's resolver: CIDR
	Rules   []string `json:"rules"`             // in the syntax of nft(8)
	// Who is let in by name: the entries of Ingress that are names, and the directory where they are looked up. The wall follows the names:
	// who comes to have one is let in, and who has it no more isn't.
	Guests []string `json:"guests,omitempty"`
	Names  string   `json:"names,omitempty"`
}

func (*NftWall) Kind() string { return "nft-wall" }

func (*NftWall) Man() string { return "nft(8)" }

func (o *NftWall) String() string {
	s := "wall at " + o.Link
	if len(o.Egress) > 0 {
		s += ": out " + doors(o.Egress)
	}
	if len(o.Ingress) > 0 {
		s += ": in " + doors(o.Ingress)
	}
	return s
}

func doors(items []string) string {
	if len(items) > 3 {
		return fmt.Sprintf("only %s, %s and %d more", items[0], items[1], len(items)-2)
	}
	if len(items) == 1 && items[0] == "deny" {
		return "nothing"
	}
	s := "only " + items[0]
	for _, item := range items[1:] {
		s += ", " + item
	}
	return s
}

func (*NftWall) lanes() lanes { return hostLane }

func (o *NftWall) hostNames() []string {
	return (&NftUnwall{Table: o.Table, Bridged: o.bridged()}).hostNames()
}

// bridged says whether the wall has a table of family bridge, too: on kernels whose family netdev has no reject.
func (o *NftWall) bridged() bool {
	return slices.ContainsFunc(o.Rules, func(line string) bool { return strings.HasPrefix(line, "add table bridge ") })
}

// Undo takes the wall down.
func (o *NftWall) Undo() []Op {
	return []Op{&NftUnwall{Table: o.Table, Bridged: o.bridged(), Names: o.Names}}
}

// NftUnwall takes a wall down. One that is gone is no error.
type NftUnwall struct {
	Table   string `json:"table"`
	Bridged bool   `json:"bridged,omitempty"` // there is a table of family bridge, too
	Names   string `json:"names,omitempty"`   // where the wall follows names
}

func (*NftUnwall) Kind() string { return "nft-unwall" }

func (*NftUnwall) Man() string { return "nft(8)" }

func (o *NftUnwall) String() string { return "take down the wall " + o.Table }

func (*NftUnwall) lanes() lanes { return hostLane }

func (o *NftUnwall) hostNames() []string {
	var out []string
	for _, family := range o.Families() {
		out = append(out, "nft table "+family+" "+o.Table)
	}
	return out
}

// Families are those of the wall's tables, in nft's words.
func (o *NftUnwall) Families() []string {
	if o.Bridged {
		return []string{"netdev", "bridge"}
	}
	return []string{"netdev"}
}
