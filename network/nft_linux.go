package network

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"glassbox/plan"
)

// A compiler for the small part of nft(8) that Rules speaks, and the requests of nf_tables that carry it out. A line that it
// does not understand is an error: what is printed is what is sent.
//
// A rule is a list of expressions that work on registers. Each either goes on to the next or ends the rule:
//
//	iifname "glassbox0"   meta: register 1 = name of the input device;  cmp: register 1 == "glassbox0"
//	drop                  immediate: verdict register = drop
//
// Registers are numbered in two ways: 1 to 4 have 16 bytes, 8 to 23 have 4 and lie over them. 8 is the beginning of 1.

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
func (c *conn) transact(r *request) (failed uint32, err error) {
	r.commit()
	return c.send(r, r.n-1, nil)
}

// ackLast asks for an answer to the message under construction.
func (r *request) ackLast() { r.b[r.start+6] |= unix.NLM_F_ACK }

// nested nests with the flag that nf_tables expects.
func (r *request) nested(typ uint16, body func()) { r.nest(typ|unix.NLA_F_NESTED, body) }

// expr adds an expression to the list under construction.
func (r *request) expr(name string, body func()) {
	r.nested(unix.NFTA_LIST_ELEM, func() {
		r.str(unix.NFTA_EXPR_NAME, name)
		r.nested(unix.NFTA_EXPR_DATA, body)
	})
}

// value adds an attribute that holds data to compare with or to store.
func (r *request) value(typ uint16, data []byte) {
	r.nested(typ, func() { r.attr(unix.NFTA_DATA_VALUE, data...) })
}

const reg1 = unix.NFT_REG_1

// tokens splits a line at blanks. A string in quotes is a token with its quotes.
func tokens(line string) []string { return strings.Fields(line) }

// compile appends the messages for lines of nft(8) that are about one table.
func (r *request) compile(table string, lines []string) error {
	for _, line := range lines {
		if err := r.command(table, tokens(line)); err != nil {
			return fmt.Errorf("%q: %w", line, err)
		}
	}
	return nil
}

var errSyntax = errors.New("not a command that this version of glassbox understands")

func (r *request) command(table string, w []string) error {
	if len(w) < 4 || w[2] != "ip" || w[3] != table {
		return errSyntax
	}
	if err := checkTable(table); err != nil {
		return err
	}
	verb, what, rest := w[0], w[1], w[4:]
	switch {
	case verb == "add" && what == "table" && len(rest) == 0:
		r.nft(unix.NFT_MSG_NEWTABLE, unix.NLM_F_CREATE)
		r.str(unix.NFTA_TABLE_NAME, table)
		return nil
	case verb == "flush" && what == "table" && len(rest) == 0:
		r.nft(unix.NFT_MSG_DELRULE, 0)
		r.str(unix.NFTA_RULE_TABLE, table)
		return nil
	case verb != "add" || len(rest) == 0 || checkTable(rest[0]) != nil:
		return errSyntax
	case what == "map":
		return r.defineMap(table, rest[0], rest[1:])
	case what == "chain":
		return r.chain(table, rest[0], rest[1:])
	case what == "rule":
		return r.rule(table, rest[0], rest[1:])
	}
	return errSyntax
}

// checkTable keeps names of tables, chains and maps to letters that need no quoting.
func checkTable(s string) error {
	if s == "" || len(s) > 64 || strings.Trim(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-.") != "" {
		return fmt.Errorf("name %q: want letters, digits, dots, _ and -", s)
	}
	return nil
}

// dataType gives nft's number of a type (they are user space's own, the kernel only stores them) and its size in a register.
func dataType(name string) (id, size uint32, ok bool) {
	switch name {
	case "ipv4_addr":
		return 7, 4, true
	case "inet_proto":
		return 12, 4, true
	case "inet_service":
		return 13, 4, true
	}
	return 0, 0, false
}

// concat reads "A . B . C" up to one of the given words and returns the number of the concatenated type and its length.
func concat(w []string, until string) (typ, size uint32, rest []string, err error) {
	for len(w) >= 2 {
		id, n, ok := dataType(w[0])
		if !ok {
			return 0, 0, nil, fmt.Errorf("type %q: %w", w[0], errSyntax)
		}
		typ, size = typ<<6|id, size+n
		if w[1] == until {
			return typ, size, w[2:], nil
		}
		if w[1] != "." {
			break
		}
		w = w[2:]
	}
	return 0, 0, nil, errSyntax
}

func (r *request) defineMap(table, name string, w []string) error {
	if len(w) < 2 || w[0] != "{" || w[1] != "type" {
		return errSyntax
	}
	keyType, keyLen, w, err := concat(w[2:], ":")
	if err != nil {
		return err
	}
	valueType, valueLen, w, err := concat(w, ";")
	if err != nil || len(w) != 1 || w[0] != "}" || keyLen > 16 || valueLen > 16 {
		return errSyntax
	}
	r.nft(unix.NFT_MSG_NEWSET, unix.NLM_F_CREATE)
	r.str(unix.NFTA_SET_TABLE, table)
	r.str(unix.NFTA_SET_NAME, name)
	r.be32(unix.NFTA_SET_ID, r.n) // unique in the transaction
	r.be32(unix.NFTA_SET_FLAGS, unix.NFT_SET_MAP)
	r.be32(unix.NFTA_SET_KEY_TYPE, keyType)
	r.be32(unix.NFTA_SET_KEY_LEN, keyLen)
	r.be32(unix.NFTA_SET_DATA_TYPE, valueType)
	r.be32(unix.NFTA_SET_DATA_LEN, valueLen)
	return nil
}

func (r *request) chain(table, name string, w []string) error {
	r.nft(unix.NFT_MSG_NEWCHAIN, unix.NLM_F_CREATE)
	r.str(unix.NFTA_CHAIN_TABLE, table)
	r.str(unix.NFTA_CHAIN_NAME, name)
	if len(w) == 0 {
		return nil
	}
	// { type T hook H priority N ; }
	if len(w) != 9 || w[0] != "{" || w[1] != "type" || w[3] != "hook" || w[5] != "priority" || w[7] != ";" || w[8] != "}" {
		return errSyntax
	}
	if w[2] != "nat" && w[2] != "filter" {
		return errSyntax
	}
	var hook uint32
	switch w[4] {
	case "prerouting":
		hook = unix.NF_INET_PRE_ROUTING
	case "input":
		hook = unix.NF_INET_LOCAL_IN
	case "forward":
		hook = unix.NF_INET_FORWARD
	case "output":
		hook = unix.NF_INET_LOCAL_OUT
	case "postrouting":
		hook = unix.NF_INET_POST_ROUTING
	default:
		return errSyntax
	}
	priority, err := strconv.ParseInt(w[6], 10, 32)
	if err != nil {
		return errSyntax
	}
	r.nested(unix.NFTA_CHAIN_HOOK, func() {
		r.be32(unix.NFTA_HOOK_HOOKNUM, hook)
		r.be32(unix.NFTA_HOOK_PRIORITY, uint32(int32(priority)))
	})
	r.str(unix.NFTA_CHAIN_TYPE, w[2])
	return nil
}

func (r *request) rule(table, chain string, w []string) error {
	r.nft(unix.NFT_MSG_NEWRULE, unix.NLM_F_CREATE|unix.NLM_F_APPEND)
	r.str(unix.NFTA_RULE_TABLE, table)
	r.str(unix.NFTA_RULE_CHAIN, chain)
	comment := ""
	if i := slices.Index(w, "comment"); i >= 0 && i+1 < len(w) {
		comment, w = strings.Trim(strings.Join(w[i+1:], " "), `"`), w[:i]
		if len(comment) > 128 {
			return errSyntax
		}
	}
	var err error
	r.nested(unix.NFTA_RULE_EXPRESSIONS, func() {
		for len(w) > 0 && err == nil {
			w, err = r.statement(w)
		}
	})
	if comment != "" {
		r.attr(unix.NFTA_RULE_USERDATA, append([]byte{0, byte(len(comment) + 1)}, comment+"\x00"...)...)
	}
	return err
}

// take reports whether w begins with words.
func take(w []string, words ...string) ([]string, bool) {
	if len(w) < len(words) {
		return w, false
	}
	for i, s := range words {
		if w[i] != s {
			return w, false
		}
	}
	return w[len(words):], true
}

// statement compiles one match or verdict and returns the words after it.
func (r *request) statement(w []string) ([]string, error) {
	if rest, ok := take(w, "dnat", "ip", "to"); ok {
		return r.dnat(rest)
	}
	if rest, ok := take(w, "fib", "daddr", "type", "local"); ok {
		r.expr("fib", func() {
			r.be32(unix.NFTA_FIB_DREG, reg1)
			r.be32(unix.NFTA_FIB_RESULT, unix.NFT_FIB_RESULT_ADDRTYPE)
			r.be32(unix.NFTA_FIB_FLAGS, unix.NFTA_FIB_F_DADDR)
		})
		r.cmp(unix.NFT_CMP_EQ, binary.NativeEndian.AppendUint32(nil, unix.RTN_LOCAL))
		return rest, nil
	}
	if rest, ok := take(w, "ct", "status", "dnat"); ok {
		r.ct(unix.NFT_CT_STATUS, 1<<5) // IPS_DST_NAT
		return rest, nil
	}
	if rest, ok := take(w, "ct", "state", "established,related"); ok {
		r.ct(unix.NFT_CT_STATE, 1<<1|1<<2) // NF_CT_STATE_BIT
		return rest, nil
	}
	switch w[0] {
	case "accept", "drop":
		code := uint32(1) // NF_ACCEPT
		if w[0] == "drop" {
			code = 0
		}
		r.expr("immediate", func() {
			r.be32(unix.NFTA_IMMEDIATE_DREG, unix.NFT_REG_VERDICT)
			r.nested(unix.NFTA_IMMEDIATE_DATA, func() {
				r.nested(unix.NFTA_DATA_VERDICT, func() { r.be32(unix.NFTA_VERDICT_CODE, code) })
			})
		})
		return last(w[1:])
	case "masquerade":
		r.expr("masq", func() {})
		return last(w[1:])
	case "iifname", "oifname":
		key := uint32(unix.NFT_META_IIFNAME)
		if w[0] == "oifname" {
			key = unix.NFT_META_OIFNAME
		}
		op, w := operator(w[1:])
		if len(w) == 0 || len(w[0]) < 3 || w[0][0] != '"' || w[0][len(w[0])-1] != '"' {
			return nil, errSyntax
		}
		name := w[0][1 : len(w[0])-1]
		if err := checkName(name); err != nil {
			return nil, err
		}
		if strings.HasSuffix(name, "*") {
			return nil, errSyntax // a wildcard of nft(8)
		}
		r.meta(key, reg1)
		r.cmp(op, append([]byte(name), make([]byte, unix.IFNAMSIZ-len(name))...))
		return w[1:], nil
	case "ip":
		if len(w) < 3 || w[1] != "saddr" && w[1] != "daddr" {
			return nil, errSyntax
		}
		field := w[1]
		op, w := operator(w[2:])
		if len(w) == 0 {
			return nil, errSyntax
		}
		p, err := netip.ParsePrefix(w[0])
		if err != nil || !p.Addr().Is4() || p != p.Masked() || p.Bits() == 0 {
			return nil, errSyntax
		}
		a := p.Addr().As4()
		if p.Bits()%8 == 0 { // whole bytes: load no more than those
			r.ipField(field, uint32(p.Bits()/8), reg1)
			r.cmp(op, a[:p.Bits()/8])
		} else {
			r.ipField(field, 4, reg1)
			r.mask(4, binary.BigEndian.AppendUint32(nil, ^uint32(0)<<(32-p.Bits())))
			r.cmp(op, a[:])
		}
		return w[1:], nil
	}
	return nil, errSyntax
}

// last makes sure that a verdict ends its rule.
func last(w []string) ([]string, error) {
	if len(w) != 0 {
		return nil, errSyntax
	}
	return nil, nil
}

func operator(w []string) (uint32, []string) {
	if len(w) > 0 && w[0] == "!=" {
		return unix.NFT_CMP_NEQ, w[1:]
	}
	return unix.NFT_CMP_EQ, w
}

func (r *request) meta(key, register uint32) {
	r.expr("meta", func() {
		r.be32(unix.NFTA_META_KEY, key)
		r.be32(unix.NFTA_META_DREG, register)
	})
}

func (r *request) payload(base, offset, n, register uint32) {
	r.expr("payload", func() {
		r.be32(unix.NFTA_PAYLOAD_DREG, register)
		r.be32(unix.NFTA_PAYLOAD_BASE, base)
		r.be32(unix.NFTA_PAYLOAD_OFFSET, offset)
		r.be32(unix.NFTA_PAYLOAD_LEN, n)
	})
}

// ipField loads the first n bytes of the source or destination from the IPv4 header.
func (r *request) ipField(field string, n, register uint32) {
	offset := uint32(12)
	if field == "daddr" {
		offset = 16
	}
	r.payload(unix.NFT_PAYLOAD_NETWORK_HEADER, offset, n, register)
}

func (r *request) cmp(op uint32, data []byte) {
	r.expr("cmp", func() {
		r.be32(unix.NFTA_CMP_SREG, reg1)
		r.be32(unix.NFTA_CMP_OP, op)
		r.value(unix.NFTA_CMP_DATA, data)
	})
}

// mask does register 1 &= mask.
func (r *request) mask(n uint32, mask []byte) {
	r.expr("bitwise", func() {
		r.be32(unix.NFTA_BITWISE_SREG, reg1)
		r.be32(unix.NFTA_BITWISE_DREG, reg1)
		r.be32(unix.NFTA_BITWISE_LEN, n)
		r.value(unix.NFTA_BITWISE_MASK, mask)
		r.value(unix.NFTA_BITWISE_XOR, make([]byte, n))
	})
}

// ct goes on if a field of the connection has any of the bits.
func (r *request) ct(key, bits uint32) {
	r.expr("ct", func() {
		r.be32(unix.NFTA_CT_KEY, key)
		r.be32(unix.NFTA_CT_DREG, reg1)
	})
	r.mask(4, binary.NativeEndian.AppendUint32(nil, bits))
	r.cmp(unix.NFT_CMP_NEQ, make([]byte, 4))
}

// dnat compiles "KEY . KEY … map @NAME": load the keys side by side, look them up (no entry ends the rule), translate the
// destination to the address and port found.
func (r *request) dnat(w []string) ([]string, error) {
	const reg32 = unix.NFT_REG32_00
	register := uint32(reg32)
	for {
		at := register
		if at == reg32 {
			at = reg1 // the same register, as nft(8) calls it
		}
		if rest, ok := take(w, "ip", "daddr"); ok {
			r.ipField("daddr", 4, at)
			w = rest
		} else if rest, ok := take(w, "meta", "l4proto"); ok {
			r.meta(unix.NFT_META_L4PROTO, at)
			w = rest
		} else if rest, ok := take(w, "th", "dport"); ok {
			r.payload(unix.NFT_PAYLOAD_TRANSPORT_HEADER, 2, 2, at)
			w = rest
		} else {
			return nil, errSyntax
		}
		register++
		rest, ok := take(w, ".")
		if !ok {
			break
		}
		w = rest
	}
	if len(w) != 2 || w[0] != "map" || !strings.HasPrefix(w[1], "@") || checkTable(w[1][1:]) != nil {
		return nil, errSyntax
	}
	r.expr("lookup", func() {
		r.str(unix.NFTA_LOOKUP_SET, w[1][1:])
		r.be32(unix.NFTA_LOOKUP_SREG, reg1)
		r.be32(unix.NFTA_LOOKUP_DREG, reg1)
	})
	r.expr("nat", func() {
		r.be32(unix.NFTA_NAT_TYPE, unix.NFT_NAT_DNAT)
		r.be32(unix.NFTA_NAT_FAMILY, unix.NFPROTO_IPV4)
		r.be32(unix.NFTA_NAT_REG_ADDR_MIN, reg1)
		r.be32(unix.NFTA_NAT_REG_PROTO_MIN, reg32+1)
	})
	return nil, nil
}

// ensureTable makes the rules of a bridge, unless they are there, which it finds out with one question. Published ports in
// the table's maps survive.
func (c *conn) ensureTable(op *plan.NftBridge) error {
	if err := checkTable(op.Table); err != nil {
		return err
	}
	if len(op.Rules) == 0 {
		return fmt.Errorf("no rules")
	}
	var want string
	for _, line := range op.Rules {
		if version, ok := strings.CutPrefix(line, fmt.Sprintf("add rule ip %s %s accept comment ", op.Table, tagChain)); ok {
			want = strings.Trim(version, `"`)
		}
	}
	have, err := c.tableTag(op.Table)
	if err != nil {
		return fmt.Errorf("read the table's version: %w", err)
	}
	if have == want && want != "" {
		return nil
	}
	r := request{b: make([]byte, 0, 16<<10)}
	r.begin()
	if err := r.compile(op.Table, op.Rules); err != nil {
		return err
	}
	r.ackLast()
	failed, err := c.transact(&r)
	if err != nil && failed >= 2 && int(failed)-2 < len(op.Rules) {
		return fmt.Errorf("%q: %w", op.Rules[failed-2], err) // one message for each line, after the begin
	}
	return err
}

// deleteTable removes a table of family ip with all that is in it; one that isn't there is no error.
func (c *conn) deleteTable(name string) error {
	if err := checkTable(name); err != nil {
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

func (c *conn) tableTag(table string) (string, error) {
	var r request
	var text string
	r.nft(unix.NFT_MSG_GETRULE, unix.NLM_F_DUMP)
	r.str(unix.NFTA_RULE_TABLE, table)
	r.str(unix.NFTA_RULE_CHAIN, tagChain)
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
			if cstring(data) != tagChain {
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
	e.set = mapAny
	if p.HostIP != "" {
		on, err := netip.ParseAddr(p.HostIP)
		if err != nil {
			return e, fmt.Errorf("host address %q: not an IP address", p.HostIP)
		}
		if !on.Is4() {
			return e, fmt.Errorf("host address %s: %w", on, errIPv6)
		}
		a := on.As4()
		e.set, e.key = mapOn, a[:]
	}
	// Each part of a concatenation fills up a register of four bytes.
	e.key = append(e.key, byte(proto), 0, 0, 0)
	e.key = append(binary.BigEndian.AppendUint16(e.key, p.HostPort), 0, 0)
	a := to.As4()
	e.value = append(binary.BigEndian.AppendUint16(a[:], p.ContainerPort), 0, 0)
	return e, nil
}

var errIPv6 = errors.New("glassbox networks are IPv4 only in this version")

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

func (c *conn) publish(op *plan.NftPublish) error {
	if err := checkTable(op.Table); err != nil {
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
func (c *conn) unpublish(op *plan.NftUnpublish) error {
	if err := checkTable(op.Table); err != nil {
		return err
	}
	var ours []element
	for _, p := range op.Ports {
		e, err := portElement(p)
		if err != nil {
			return err
		}
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
func (c *conn) remove(table string, elements []element) error {
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

// has reports whether the element is there with the same value.
func (c *conn) has(table string, e element) (bool, error) {
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
func (c *conn) elements(table, set string) ([]element, error) {
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
	if e.set == mapOn {
		at = 4
	}
	return len(e.key) > at && e.key[at] == unix.IPPROTO_UDP
}
