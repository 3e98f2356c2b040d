package wire

import (
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
func nfgen(resource uint16) []byte {
	return binary.BigEndian.AppendUint16([]byte{unix.NFPROTO_IPV4, unix.NFNETLINK_V0}, resource)
}

func nftType(msg uint16) uint16 { return unix.NFNL_SUBSYS_NFTABLES<<8 | msg }

// begin and commit enclose a transaction: all of it happens, or nothing.
func (r *request) begin() {
	r.message(unix.NFNL_MSG_BATCH_BEGIN, 0, nfgen(unix.NFNL_SUBSYS_NFTABLES)...)
}

func (r *request) commit() {
	r.message(unix.NFNL_MSG_BATCH_END, 0, nfgen(unix.NFNL_SUBSYS_NFTABLES)...)
}

func (r *request) nft(msg, flags uint16) { r.message(nftType(msg), flags, nfgen(0)...) }

// transact sends a transaction; its last message before the end has NLM_F_ACK.
func (c *Conn) transact(r *request) (failed uint32, err error) {
	r.commit()
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

// deleteTable removes a table of family ip with all that is in it; one that isn't there is no error.
func (c *Conn) DeleteTable(name string) error {
	if err := CheckTable(name); err != nil {
		return err
	}
	var ask request
	ask.nft(unix.NFT_MSG_GETTABLE, unix.NLM_F_ACK)
	ask.str(unix.NFTA_TABLE_NAME, name)
	if err := c.do(&ask, nil); errors.Is(err, unix.ENOENT) {
		return nil
	} else if err != nil {
		return fmt.Errorf("table %s: %w", name, err)
	}
	var r request
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

// element is an entry of one of the maps.
type element struct {
	set        string
	key, value []byte
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
	if err != nil || !to.Is4() {
		return e, fmt.Errorf("container address %q: want IPv4", p.ContainerIP)
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
		if !on.Is4() {
			return e, fmt.Errorf("host address %s: %w", on, ErrIPv6)
		}
		a := on.As4()
		e.set, e.key = MapOn, a[:]
	}
	// Each part of a concatenation fills up a register of four bytes.
	e.key = append(e.key, byte(proto), 0, 0, 0)
	e.key = append(binary.BigEndian.AppendUint16(e.key, p.HostPort), 0, 0)
	a := to.As4()
	e.value = append(binary.BigEndian.AppendUint16(a[:], p.ContainerPort), 0, 0)
	return e, nil
}

var ErrIPv6 = errors.New("glassbox networks are IPv4 only in this version")

// element adds a message about one element.
func (r *request) element(msg, flags uint16, table string, e element) {
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
	var ours []element
	for _, p := range op.Ports {
		e, err := portElement(p)
		if err != nil {
			return err
		}
		// Asked one by one: a deletion names the key alone, and would take away the port of whoever has it now.
		same, err := c.has(op.Table, e)
		if err != nil {
			return err
		}
		if same {
			ours = append(ours, e)
		}
	}
	return c.remove(op.Table, ours)
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
	for _, set := range []string{MapAny, MapOn} {
		all, err := c.elements(table, set)
		if err != nil {
			return fmt.Errorf("published ports: %w", err)
		}
		for _, e := range all {
			if ip, ok := e.containerIP(); ok && stale(ip) {
				old = append(old, e)
			}
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
		for _, got := range parseElements(body, e.set) {
			same = same || string(got.key) == string(e.key) && string(got.value) == string(e.value)
		}
		return nil
	})
	if errors.Is(err, unix.ENOENT) {
		return false, nil
	}
	return same, err
}

// elements lists a map. A table that doesn't exist has none.
func (c *Conn) elements(table, set string) ([]element, error) {
	var out []element
	var r request
	r.nft(unix.NFT_MSG_GETSETELEM, unix.NLM_F_DUMP)
	r.str(unix.NFTA_SET_ELEM_LIST_TABLE, table)
	r.str(unix.NFTA_SET_ELEM_LIST_SET, set)
	err := c.dump(&r, func() { out = out[:0] }, func(_ uint16, body []byte) error {
		out = append(out, parseElements(body, set)...)
		return nil
	})
	if errors.Is(err, unix.ENOENT) {
		return nil, nil
	}
	return out, err
}

func parseElements(body []byte, set string) []element {
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
			e := element{set: set}
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
	if len(e.value) < 4 {
		return netip.Addr{}, false
	}
	return netip.AddrFrom4([4]byte(e.value)), true
}

// udp reports whether the element is for a UDP port.
func (e element) udp() bool {
	at := 0
	if e.set == MapOn {
		at = 4
	}
	return len(e.key) > at && e.key[at] == unix.IPPROTO_UDP
}
