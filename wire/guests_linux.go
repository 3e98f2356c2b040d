package wire

import (
	"fmt"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"
)

// A Guest is whom a wall lets in by his name: his address, with one port of the wall's container or with all (0).
type Guest struct {
	Addr  netip.Addr
	Proto string
	Port  uint16
}

// guestSets are those of a wall that lets in by name.
func guestSets() []string {
	return []string{SetGuests, SetGuestPorts, SetGuests + "6", SetGuestPorts + "6"}
}

// Admit makes the guests of a wall those that are given, in one transaction. ENOENT: there is no such wall, or it lets in nobody by name.
func Admit(table string, guests []Guest) error {
	if err := CheckTable(table); err != nil {
		return err
	}
	c, err := Dial(unix.NETLINK_NETFILTER)
	if err != nil {
		return err
	}
	defer c.Close()
	var r request
	r.begin()
	message := func(msg, flags uint16, set string, key []byte) {
		r.family = unix.NFPROTO_NETDEV
		r.nft(msg, flags)
		r.str(unix.NFTA_SET_ELEM_LIST_TABLE, table)
		r.str(unix.NFTA_SET_ELEM_LIST_SET, set)
		if key != nil { // without elements, a deletion is that of all
			r.nested(unix.NFTA_SET_ELEM_LIST_ELEMENTS, func() {
				r.nested(unix.NFTA_LIST_ELEM, func() { r.value(unix.NFTA_SET_ELEM_KEY, key) })
			})
		}
	}
	for _, set := range guestSets() {
		message(unix.NFT_MSG_DELSETELEM, 0, set, nil)
	}
	for _, g := range guests {
		set, key, err := g.element()
		if err != nil {
			return err
		}
		message(unix.NFT_MSG_NEWSETELEM, unix.NLM_F_CREATE, set, key)
	}
	r.ackLast()
	if _, err := c.transact(&r); err != nil {
		return fmt.Errorf("who the wall %s lets in: %w", table, err)
	}
	return nil
}

// Guests reads whom a wall lets in by name, as its sets have them: elements of Admit.
func Guests(table string) ([]Guest, error) {
	if err := CheckTable(table); err != nil {
		return nil, err
	}
	c, err := Dial(unix.NETLINK_NETFILTER)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	var out []Guest
	for _, set := range guestSets() {
		size := 4
		if set[len(set)-1] == '6' {
			size = 16
		}
		list, err := c.wallSet(table, set, size, time.Now()) // the same keys as of what it refuses
		if err != nil {
			return nil, err
		}
		for _, e := range list {
			g := Guest{Addr: e.Address, Port: e.Port}
			if g.Port != 0 {
				g.Proto = e.Proto
			}
			out = append(out, g)
		}
	}
	return out, nil
}

// element is a guest's place in the sets of a wall.
func (g Guest) element() (set string, key []byte, err error) {
	a := g.Addr.Unmap()
	set, key = SetGuests, a.AsSlice()
	if g.Port != 0 {
		number, ok := protocol(g.Proto)
		if !ok {
			return "", nil, fmt.Errorf("protocol %q: want tcp, udp or sctp", g.Proto)
		}
		// Parts of a key begin at whole registers of four bytes.
		set, key = SetGuestPorts, append(append(key, number, 0, 0, 0), byte(g.Port>>8), byte(g.Port), 0, 0)
	}
	if a.Is6() {
		set += "6"
	}
	return set, key, nil
}
