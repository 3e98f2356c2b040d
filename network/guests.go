package network

import (
	"glassbox/dns"
	"glassbox/plan"
	"glassbox/wire"
)

// FollowNames does what is due for walls that let in by name (--ingress web) after a step about names or such a wall was made: they let in
// who has the names now, and nobody else. It comes before the addresses of who has left can be another's.
func FollowNames(op plan.Op) error {
	switch o := op.(type) {
	case *plan.NftWall:
		if o.Names != "" {
			return dns.Post(o.Names, o.Table, o.Guests, admit)
		}
	case *plan.NftUnwall:
		if o.Names != "" {
			return dns.Withdraw(o.Names, o.Table)
		}
	case *plan.NameAdd:
		return dns.Follow(o.Dir, o.Names, admit)
	case *plan.NameRemove:
		return dns.Follow(o.Dir, o.Names, admit)
	}
	return nil
}

func admit(table string, guests []dns.Guest) error {
	in := make([]wire.Guest, len(guests))
	for i, g := range guests {
		in[i] = wire.Guest(g)
	}
	return wire.Admit(table, in)
}
