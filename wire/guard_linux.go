package wire

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"glassbox/plan"
)

// The sets of a bridge's guard: its ports, and who is behind each.
const (
	SetPorts = "ports" // interface
	SetOwn   = "own"   // interface . hardware address . IPv4
	SetOwn6  = "own6"  // the same of IPv6
)

// guardElements are the entries of one port.
func guardElements(link, mac string, addresses []string) ([]element, error) {
	if err := CheckName(link); err != nil {
		return nil, err
	}
	ether, err := parseMAC(mac)
	if err != nil {
		return nil, err
	}
	// Names of links fill the whole field, as the kernel compares them in a set of ifname.
	port := append([]byte(link), make([]byte, unix.IFNAMSIZ-len(link))...)
	out := []element{{family: unix.NFPROTO_BRIDGE, set: SetPorts, key: port}}
	for _, text := range addresses {
		a, err := netip.ParseAddr(text)
		if err != nil || a.Zone() != "" {
			return nil, fmt.Errorf("address %q: it is no IP address", text)
		}
		set := SetOwn
		if a.Is6() {
			set = SetOwn6
		}
		// Two bytes fill up the hardware address to whole registers.
		out = append(out, element{family: unix.NFPROTO_BRIDGE, set: set, key: slices.Concat(port, ether, []byte{0, 0}, a.AsSlice())})
	}
	return out, nil
}

// guard adds the entries. On a kernel without tables of family bridge there is nothing to add them to (see sendRules).
func (c *Conn) guard(op *plan.NftGuard) error {
	if err := CheckTable(op.Table); err != nil {
		return err
	}
	all, err := guardElements(op.Link, op.MAC, op.Addresses)
	if err != nil {
		return err
	}
	var r request
	r.begin()
	for _, e := range all {
		r.element(unix.NFT_MSG_NEWSETELEM, unix.NLM_F_CREATE, op.Table, e)
	}
	r.ackLast()
	_, err = c.transact(&r)
	// ENOENT is also what a missing table says, where the kernel could have one: that is an error, and hence the question.
	if noFamily(err) || errors.Is(err, unix.ENOENT) && !c.hasBridgeTables() {
		return nil
	}
	return err
}

func (c *Conn) unguard(op *plan.NftUnguard) error {
	if err := CheckTable(op.Table); err != nil {
		return err
	}
	all, err := guardElements(op.Link, op.MAC, op.Addresses)
	if err != nil {
		return err
	}
	if err := c.remove(op.Table, all); !noFamily(err) {
		return err
	}
	return nil
}

// hasBridgeTables reports whether the kernel has chains of family bridge (CONFIG_NF_TABLES_BRIDGE). It has the tables without them, too.
func (c *Conn) hasBridgeTables() bool {
	const name = "glassbox_trial"
	// The message is sent and taken back in one transaction, which leaves nothing behind.
	r := request{family: unix.NFPROTO_BRIDGE}
	r.begin()
	if r.compile(name, []string{
		"add table bridge " + name, "add chain bridge " + name + " c { type filter hook prerouting priority 0 ; }",
	}) != nil {
		return false
	}
	r.family = unix.NFPROTO_BRIDGE
	r.nft(unix.NFT_MSG_DELTABLE, 0)
	r.str(unix.NFTA_TABLE_NAME, name)
	r.ackLast()
	_, err := c.transact(&r)
	return err == nil
}

// Guarded reports whether the entries of a port are there; known is false where the kernel has no such tables.
func Guarded(op *plan.NftGuard) (ok, known bool, err error) {
	c, err := Dial(unix.NETLINK_NETFILTER)
	if err != nil {
		return false, false, err
	}
	defer c.Close()
	all, err := guardElements(op.Link, op.MAC, op.Addresses)
	if err != nil {
		return false, false, err
	}
	for _, e := range all {
		there, err := c.has(op.Table, e)
		if err != nil || !there {
			return false, err != nil || c.hasBridgeTables(), err
		}
	}
	return true, true, nil
}

// ForgetAllPorts takes out all that is said of ports, with one request for each set. op names the table, and its addresses say whether it
// has a set of IPv6.
func (c *Conn) ForgetAllPorts(op *plan.NftUnguard) error {
	if err := CheckTable(op.Table); err != nil {
		return err
	}
	sets := []string{SetPorts, SetOwn}
	if slices.ContainsFunc(op.Addresses, func(a string) bool { return strings.Contains(a, ":") }) {
		sets = append(sets, SetOwn6)
	}
	r := request{family: unix.NFPROTO_BRIDGE}
	r.begin()
	for _, set := range sets {
		r.nft(unix.NFT_MSG_DELSETELEM, 0) // without elements: all
		r.str(unix.NFTA_SET_ELEM_LIST_TABLE, op.Table)
		r.str(unix.NFTA_SET_ELEM_LIST_SET, set)
	}
	r.ackLast()
	if _, err := c.transact(&r); err != nil && !errors.Is(err, unix.ENOENT) && !noFamily(err) {
		return err
	}
	return nil
}

// ForgetPorts takes out of a bridge's guard what is said of ports that stale names.
func (c *Conn) ForgetPorts(table string, stale func(link string) bool) error {
	var old []element
	for _, set := range []string{SetPorts, SetOwn, SetOwn6} {
		all, err := c.elements(unix.NFPROTO_BRIDGE, table, set)
		if err != nil {
			return fmt.Errorf("guard: %w", err)
		}
		for _, e := range all {
			if len(e.key) >= unix.IFNAMSIZ && stale(cstring(e.key[:unix.IFNAMSIZ])) {
				old = append(old, e)
			}
		}
	}
	return c.remove(table, old)
}
