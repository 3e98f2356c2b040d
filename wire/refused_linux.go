package wire

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// What changes in a wall while it stands: the doors that names open, and what it remembers of those who met it.

// A Door is what a name opens in a wall: every port of its addresses, or one.
type Door struct {
	Proto string // with Port
	Port  uint16 // 0: all
}

// OpenDoors lets a wall's container out to addresses for a time. One that is in already stays for as long as the longer of both.
func OpenDoors(table string, addrs []netip.Addr, doors []Door, life time.Duration) error {
	if err := CheckTable(table); err != nil {
		return err
	}
	c, err := Dial(unix.NETLINK_NETFILTER)
	if err != nil {
		return err
	}
	defer c.Close()
	var errs []error
	for _, a := range addrs {
		for _, d := range doors {
			errs = append(errs, c.openDoor(table, a.Unmap(), d, life))
		}
	}
	return errors.Join(errs...)
}

func (c *Conn) openDoor(table string, a netip.Addr, d Door, life time.Duration) error {
	set, near, key := SetNamed, SetNear, a.AsSlice()
	if d.Port != 0 {
		number, ok := protocol(d.Proto)
		if !ok {
			return fmt.Errorf("protocol %q: want tcp, udp or sctp", d.Proto)
		}
		set = SetNamedPorts
		key = append(append(key, number, 0, 0, 0), byte(d.Port>>8), byte(d.Port), 0, 0)
	}
	if a.Is6() {
		set, near = set+"6", near+"6"
	}
	var r request
	r.begin()
	message := func(msg, flags uint16, set string, key []byte) {
		// Sets of a wall are in a table of family netdev, whatever version of IP the address is of.
		r.family = unix.NFPROTO_NETDEV
		r.nft(msg, flags)
		r.str(unix.NFTA_SET_ELEM_LIST_TABLE, table)
		r.str(unix.NFTA_SET_ELEM_LIST_SET, set)
		r.nested(unix.NFTA_SET_ELEM_LIST_ELEMENTS, func() {
			r.nested(unix.NFTA_LIST_ELEM, func() {
				r.value(unix.NFTA_SET_ELEM_KEY, key)
				if msg == unix.NFT_MSG_NEWSETELEM {
					r.be64(unix.NFTA_SET_ELEM_TIMEOUT, uint64(life.Milliseconds()))
				}
			})
		})
	}
	// An element that is there keeps the time that it has left (before Linux 6.13 in any case): it is made, taken out and made anew, in one
	// transaction, in which no packet sees it missing.
	for _, e := range []struct {
		set string
		key []byte
	}{{near, a.AsSlice()}, {set, key}} {
		message(unix.NFT_MSG_NEWSETELEM, unix.NLM_F_CREATE, e.set, e.key)
		message(unix.NFT_MSG_DELSETELEM, 0, e.set, e.key)
		message(unix.NFT_MSG_NEWSETELEM, unix.NLM_F_CREATE, e.set, e.key)
	}
	r.ackLast()
	_, err := c.transact(&r)
	if err != nil {
		return fmt.Errorf("let %s through: %w", a, err)
	}
	return nil
}

// Refusal is what a wall has refused of one kind.
type Refusal struct {
	In      bool // somebody wanted in
	Address netip.Addr
	Proto   string
	Port    uint16 // of the address, or the container's own where somebody wanted in; 0: the protocol has none
	Packets uint64
	Last    time.Time
}

// Refusals reads what a wall has refused. A wall that isn't there has refused nothing.
func Refusals(table string, now time.Time) ([]Refusal, error) {
	if err := CheckTable(table); err != nil {
		return nil, err
	}
	c, err := Dial(unix.NETLINK_NETFILTER)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	var out []Refusal
	for _, set := range []string{SetRefused, SetOthers, SetSought, SetTurned} {
		// By the length of the address: the set of IPv6 has a 6 in its name.
		for _, size := range []int{4, 16} {
			name := set
			if size == 16 {
				name += "6"
			}
			list, err := c.wallSet(table, name, size, now)
			if err != nil && !errors.Is(err, unix.ENOENT) {
				return nil, err
			}
			for _, e := range list {
				e.In = set == SetTurned
				out = append(out, e)
			}
		}
	}
	return out, nil
}

// wallSet reads a set of a wall, whose addresses have size bytes.
func (c *Conn) wallSet(table, set string, size int, now time.Time) (out []Refusal, err error) {
	r := request{family: unix.NFPROTO_NETDEV}
	r.nft(unix.NFT_MSG_GETSETELEM, unix.NLM_F_DUMP)
	r.str(unix.NFTA_SET_ELEM_LIST_TABLE, table)
	r.str(unix.NFTA_SET_ELEM_LIST_SET, set)
	err = c.dump(&r, func() { out = nil }, func(_ uint16, body []byte) error {
		out = append(out, refusals(body, size, now)...)
		return nil
	})
	return out, err
}

func refusals(body []byte, size int, now time.Time) []Refusal {
	if len(body) < 4 {
		return nil
	}
	var out []Refusal
	for typ, list := range attrs(body[4:]) {
		if typ != unix.NFTA_SET_ELEM_LIST_ELEMENTS {
			continue
		}
		for _, elem := range attrs(list) {
			var e Refusal
			left := Forgotten
			for typ, data := range attrs(elem) {
				switch typ {
				case unix.NFTA_SET_ELEM_KEY:
					key := dataValue(data, unix.NFTA_DATA_VALUE)
					if len(key) < size {
						continue
					}
					e.Address, _ = netip.AddrFromSlice(key[:size])
					// The set of neighbours has addresses alone as its keys.
					switch {
					case len(key) > size:
						e.Proto = protocolWord(key[size])
					case size == 16:
						e.Proto = "nd"
					default:
						e.Proto = "arp"
					}
					if len(key) >= size+6 {
						e.Port = binary.BigEndian.Uint16(key[size+4:])
					}
				case unix.NFTA_SET_ELEM_EXPIRATION:
					if len(data) == 8 {
						left = time.Duration(binary.BigEndian.Uint64(data)) * time.Millisecond
					}
				case unix.NFTA_SET_ELEM_EXPR:
					e.Packets = counted(data)
				}
			}
			if e.Address.IsValid() {
				// An element lives for Forgotten after its last packet: from what is left of that follows when it was.
				e.Last = now.Add(left - Forgotten)
				out = append(out, e)
			}
		}
	}
	return out
}

func protocolWord(number byte) string {
	for _, word := range []string{"tcp", "udp", "sctp", "icmp", "ipv6-icmp"} {
		if n, _ := protocol(word); n == number {
			return word
		}
	}
	return strconv.Itoa(int(number))
}

// counted is the number of packets of a counter.
func counted(expr []byte) uint64 {
	for typ, data := range attrs(expr) {
		if typ != unix.NFTA_EXPR_DATA {
			continue
		}
		for typ, v := range attrs(data) {
			if typ == unix.NFTA_COUNTER_PACKETS && len(v) == 8 {
				return binary.BigEndian.Uint64(v)
			}
		}
	}
	return 0
}
