package wire

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"golang.org/x/sys/unix"

	"glassbox/plan"
)

// The requests of nf_tables that carry out what compile_linux.go has compiled, and those about entries of the maps of published ports.

// nfgen is struct nfgenmsg for a message about family ip.
func nfgen(resource uint16) []byte { return nfgenOf(unix.NFPROTO_IPV4, resource) }

func nfgenOf(family byte, resource uint16) []byte {
	return binary.BigEndian.AppendUint16([]byte{family, unix.NFNETLINK_V0}, resource)
}

func nftType(msg uint16) uint16 { return unix.NFNL_SUBSYS_NFTABLES<<8 | msg }

// begin and commit enclose a transaction: all of it happens, or nothing.
func (r *request) begin() {
	r.message(unix.NFNL_MSG_BATCH_BEGIN, 0, nfgen(unix.NFNL_SUBSYS_NFTABLES)...)
}

func (r *request) commit() {
	r.message(unix.NFNL_MSG_BATCH_END, 0, nfgen(unix.NFNL_SUBSYS_NFTABLES)...)
}

// nft starts a message about the request's family of tables, which is ip where none was set.
func (r *request) nft(msg, flags uint16) {
	r.message(nftType(msg), flags, nfgenOf(cmp.Or(r.family, unix.NFPROTO_IPV4), 0)...)
}

// transact sends a transaction; its last message before the end has NLM_F_ACK.
func (c *Conn) transact(r *request) (failed uint32, err error) {
	r.commit()
	// The whole transaction is one message to the socket, which takes what its send buffer has room for (netlink_sendmsg in
	// net/netlink/af_netlink.c): by default some 2,000 published ports.
	if len(r.b) > 100<<10 {
		if err := unix.SetsockoptInt(c.fd, unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, len(r.b)); err != nil {
			return 0, fmt.Errorf("netlink: room for %d bytes: %w", len(r.b), err)
		}
	}
	return c.send(r, r.n-1, nil)
}

// ackLast asks for an answer to the message under construction.
func (r *request) ackLast() { r.b[r.start+6] |= unix.NLM_F_ACK }

// nested nests with the flag that nf_tables expects.
func (r *request) nested(typ uint16, body func()) { r.nest(typ|unix.NLA_F_NESTED, body) }

// ensureTable makes the rules of a bridge, unless they are there, which it finds out with one question. Published ports in
// the table's maps survive.
func (c *Conn) ensureTable(op *plan.NftBridge) error {
	if err := CheckTable(op.Table); err != nil {
		return err
	}
	if len(op.Rules) == 0 {
		return fmt.Errorf("no rules")
	}
	var want string
	for _, line := range op.Rules {
		if version, ok := strings.CutPrefix(line, fmt.Sprintf("add rule ip %s %s accept comment ", op.Table, TagChain)); ok {
			want = strings.Trim(version, `"`)
		}
	}
	have, err := c.tableTag(op.Table)
	if err != nil {
		return fmt.Errorf("read the table's version: %w", err)
	}
	// The usual case costs one question, instead of a transaction of 27 rules at each start.
	if have == want && want != "" {
		return nil
	}
	return c.sendRules(op.Table, op.Rules)
}

// DeleteTable removes the tables of a name of the families ip, ip6 and bridge with all that is in them; those that aren't there are
// no error.
func (c *Conn) DeleteTable(name string) error {
	for _, family := range []byte{unix.NFPROTO_IPV4, unix.NFPROTO_IPV6, unix.NFPROTO_BRIDGE} {
		if err := c.deleteTable(family, name); err != nil {
			return err
		}
	}
	return nil
}

func (c *Conn) deleteTable(family byte, name string) error {
	if err := CheckTable(name); err != nil {
		return err
	}
	ask := request{family: family}
	ask.nft(unix.NFT_MSG_GETTABLE, unix.NLM_F_ACK)
	ask.str(unix.NFTA_TABLE_NAME, name)
	if err := c.do(&ask, nil); errors.Is(err, unix.ENOENT) || noFamily(err) {
		return nil
	} else if err != nil {
		return fmt.Errorf("table %s: %w", name, err)
	}
	r := request{family: family}
	r.begin()
	r.nft(unix.NFT_MSG_DELTABLE, 0)
	r.str(unix.NFTA_TABLE_NAME, name)
	r.ackLast()
	if _, err := c.transact(&r); err != nil && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("table %s: %w", name, err)
	}
	return nil
}

func (c *Conn) tableTag(table string) (string, error) {
	var r request
	var text string
	r.nft(unix.NFT_MSG_GETRULE, unix.NLM_F_DUMP)
	r.str(unix.NFTA_RULE_TABLE, table)
	r.str(unix.NFTA_RULE_CHAIN, TagChain)
	err := c.dump(&r, func() { text = "" }, func(_ uint16, body []byte) error {
		if t := parseTag(body, table); t != "" {
			text = t
		}
		return nil
	})
	if errors.Is(err, unix.ENOENT) {
		return "", nil
	}
	return text, err
}

func parseTag(body []byte, table string) string {
	if len(body) < 4 {
		return ""
	}
	var text string
	for typ, data := range attrs(body[4:]) {
		switch typ {
		case unix.NFTA_RULE_TABLE:
			if cstring(data) != table {
				return ""
			}
		case unix.NFTA_RULE_CHAIN:
			if cstring(data) != TagChain {
				return ""
			}
		case unix.NFTA_RULE_USERDATA: // type, length, comment with its NUL
			if len(data) > 2 && data[0] == 0 && int(data[1]) <= len(data)-2 {
				text = cstring(data[2 : 2+int(data[1])])
			}
		}
	}
	return text
}

// noFamily reports whether an error says that the kernel has no tables of a family.
func noFamily(err error) bool {
	return errors.Is(err, unix.EAFNOSUPPORT) || errors.Is(err, unix.EOPNOTSUPP)
}

// element is an entry of one of the maps, or of a set, which has no values.
type element struct {
	family     byte // NFPROTO_IPV4, also where it is 0, …
	set        string
	key, value []byte
}

// addressSize is the length of an address of the element's family.
func (e element) addressSize() int {
	if e.family == unix.NFPROTO_IPV6 {
		return 16
	}
	return 4
}

func portElement(p plan.PortRule) (element, error) {
	var e element
	var proto uint32
	switch p.Proto {
	case "tcp":
		proto = unix.IPPROTO_TCP
	case "udp":
		proto = unix.IPPROTO_UDP
	case "sctp":
		proto = unix.IPPROTO_SCTP
	default:
		return e, fmt.Errorf("protocol %q: want tcp, udp or sctp", p.Proto)
	}
	to, err := netip.ParseAddr(p.ContainerIP)
	if err != nil || to.Is4In6() || to.Zone() != "" {
		return e, fmt.Errorf("container address %q: want an IP address", p.ContainerIP)
	}
	e.family = unix.NFPROTO_IPV4
	if to.Is6() {
		e.family = unix.NFPROTO_IPV6
	}
	if p.HostPort == 0 || p.ContainerPort == 0 {
		return e, fmt.Errorf("port 0 can't be published")
	}
	e.set = MapAny
	if p.HostIP != "" {
		on, err := netip.ParseAddr(p.HostIP)
		if err != nil {
			return e, fmt.Errorf("host address %q: not an IP address", p.HostIP)
		}
		if on.Is4() != to.Is4() || on.Zone() != "" {
			return e, fmt.Errorf("host address %s: the container's address, %s, is of the other version of IP", on, to)
		}
		e.set, e.key = MapOn, on.AsSlice()
	}
	// Each part of a concatenation fills up a register of four bytes.
	e.key = append(e.key, byte(proto), 0, 0, 0)
	e.key = append(binary.BigEndian.AppendUint16(e.key, p.HostPort), 0, 0)
	e.value = append(binary.BigEndian.AppendUint16(to.AsSlice(), p.ContainerPort), 0, 0)
	return e, nil
}

// element adds a message about one element.
func (r *request) element(msg, flags uint16, table string, e element) {
	r.family = e.family
	r.nft(msg, flags)
	r.str(unix.NFTA_SET_ELEM_LIST_TABLE, table)
	r.str(unix.NFTA_SET_ELEM_LIST_SET, e.set)
	r.nested(unix.NFTA_SET_ELEM_LIST_ELEMENTS, func() {
		r.nested(unix.NFTA_LIST_ELEM, func() {
			r.value(unix.NFTA_SET_ELEM_KEY, e.key)
			if e.value != nil && msg == unix.NFT_MSG_NEWSETELEM {
				r.value(unix.NFTA_SET_ELEM_DATA, e.value)
			}
		})
	})
}

func (c *Conn) publish(op *plan.NftPublish) error {
	if err := CheckTable(op.Table); err != nil {
		return err
	}
	if len(op.Ports) == 0 {
		return nil
	}
	var r request
	r.begin()
	for _, p := range op.Ports {
		e, err := portElement(p)
		if err != nil {
			return err
		}
		r.element(unix.NFT_MSG_NEWSETELEM, unix.NLM_F_CREATE, op.Table, e)
	}
	// The last message is answered, and with it the transaction is done.
	r.ackLast()
	failed, err := c.transact(&r)
	if err == nil {
		c.forgetPublished(op.Ports)
		return nil
	}
	if i := int(failed) - 2; i >= 0 && i < len(op.Ports) {
		p := op.Ports[i]
		// EBUSY: the key is there and leads elsewhere (nft_add_set_elem in net/netfilter/nf_tables_api.c). It is somebody else's port.
		if errors.Is(err, unix.EBUSY) || errors.Is(err, unix.EEXIST) {
			err = fmt.Errorf("published for another container: %w", err)
		}
		on := p.HostIP
		if on == "" {
			on = "*"
		}
		err = fmt.Errorf("port %s:%d/%s: %w", on, p.HostPort, p.Proto, err)
	}
	return err
}

// unpublish takes out those of the ports that lead to the container named: if another has them by now, they stay.
func (c *Conn) unpublish(op *plan.NftUnpublish) error {
	if err := CheckTable(op.Table); err != nil {
		return err
	}
	// Asked before: a deletion names the key alone, and would take away the port of whoever has it now. A few are asked for one by one, of
	// many the maps are read, which is a few hundred in one answer.
	has := c.has
	if len(op.Ports) > few {
		all, err := c.portElements(op.Table)
		if err != nil {
			return err
		}
		there := map[string]bool{}
		for _, e := range all {
			there[e.id()] = true
		}
		has = func(_ string, e element) (bool, error) { return there[e.id()], nil }
	}
	var ours []element
	for _, p := range op.Ports {
		e, err := portElement(p)
		if err != nil {
			return err
		}
		same, err := has(op.Table, e)
		if err != nil {
			return err
		}
		if same {
			ours = append(ours, e)
		}
	}
	return c.remove(op.Table, ours)
}

// few is how many elements cost less to be asked for one by one than all of a map.
const few = 16

// id tells an element from all others of a table.
func (e element) id() string {
	return string(cmp.Or(e.family, unix.NFPROTO_IPV4)) + e.set + "\x00" + string(e.key) + string(e.value)
}

// remove takes elements out of the maps; those that are gone are no error.
func (c *Conn) remove(table string, elements []element) error {
	if len(elements) == 0 {
		return nil
	}
	var r request
	r.begin()
	for _, e := range elements {
		r.element(unix.NFT_MSG_DELSETELEM, 0, table, e)
	}
	r.ackLast()
	_, err := c.transact(&r)
	// Forgotten after they are gone: a packet in between would make the flow anew.
	if err == nil {
		c.forgetUnpublished(elements)
	}
	if !errors.Is(err, unix.ENOENT) {
		return err
	}
	if len(elements) == 1 {
		return nil
	}
	// Somebody else removed one of them at the same moment, and the transaction failed as a whole.
	for i := range elements {
		if err := c.remove(table, elements[i:i+1]); err != nil {
			return err
		}
	}
	return nil
}

// Forget takes the published ports out of a table that lead to addresses which stale names.
func (c *Conn) Forget(table string, stale func(netip.Addr) bool) error {
	var old []element
	all, err := c.portElements(table)
	if err != nil {
		return fmt.Errorf("published ports: %w", err)
	}
	for _, e := range all {
		if ip, ok := e.containerIP(); ok && stale(ip) {
			old = append(old, e)
		}
	}
	if err := c.remove(table, old); err != nil {
		return fmt.Errorf("unpublish: %w", err)
	}
	return nil
}

// has reports whether the element is there with the same value.
func (c *Conn) has(table string, e element) (bool, error) {
	var r request
	same := false
	r.element(unix.NFT_MSG_GETSETELEM, unix.NLM_F_ACK, table, e)
	err := c.do(&r, func(_ uint16, body []byte) error {
		for _, got := range parseElements(body, e.family, e.set) {
			same = same || string(got.key) == string(e.key) && string(got.value) == string(e.value)
		}
		return nil
	})
	if errors.Is(err, unix.ENOENT) {
		return false, nil
	}
	return same, err
}

// portElements lists the published ports of the tables of a name.
func (c *Conn) portElements(table string) ([]element, error) {
	var out []element
	for _, family := range []byte{unix.NFPROTO_IPV4, unix.NFPROTO_IPV6} {
		for _, set := range []string{MapAny, MapOn} {
			all, err := c.elements(family, table, set)
			if err != nil {
				return nil, err
			}
			out = append(out, all...)
		}
	}
	return out, nil
}

// elements lists a set or map. A table that doesn't exist has none.
func (c *Conn) elements(family byte, table, set string) ([]element, error) {
	var out []element
	r := request{family: family}
	r.nft(unix.NFT_MSG_GETSETELEM, unix.NLM_F_DUMP)
	r.str(unix.NFTA_SET_ELEM_LIST_TABLE, table)
	r.str(unix.NFTA_SET_ELEM_LIST_SET, set)
	err := c.dump(&r, func() { out = out[:0] }, func(_ uint16, body []byte) error {
		out = append(out, parseElements(body, family, set)...)
		return nil
	})
	if errors.Is(err, unix.ENOENT) || noFamily(err) {
		return nil, nil
	}
	return out, err
}

func parseElements(body []byte, family byte, set string) []element {
	if len(body) < 4 {
		return nil
	}
	var out []element
	for typ, list := range attrs(body[4:]) {
		if typ != unix.NFTA_SET_ELEM_LIST_ELEMENTS {
			continue
		}
		for typ, elem := range attrs(list) {
			if typ != unix.NFTA_LIST_ELEM {
				continue
			}
			e := element{family: family, set: set}
			for typ, data := range attrs(elem) {
				for inner, v := range attrs(data) {
					if inner != unix.NFTA_DATA_VALUE {
						continue
					}
					switch typ {
					case unix.NFTA_SET_ELEM_KEY:
						e.key = append([]byte(nil), v...)
					case unix.NFTA_SET_ELEM_DATA:
						e.value = append([]byte(nil), v...)
					}
				}
			}
			out = append(out, e)
		}
	}
	return out
}

// containerIP is the address that an element leads to.
func (e element) containerIP() (netip.Addr, bool) {
	if len(e.value) < e.addressSize() {
		return netip.Addr{}, false
	}
	return netip.AddrFromSlice(e.value[:e.addressSize()])
}

// udp reports whether the element is for a UDP port.
func (e element) udp() bool {
	at := 0
	if e.set == MapOn {
		at = e.addressSize()
	}
	return len(e.key) > at && e.key[at] == unix.IPPROTO_UDP
}
