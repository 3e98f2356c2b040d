package wire

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

// A compiler for the small part of nft(8) that Rules speaks. A line that it does not understand is an error: what is printed is what
// is sent.
//
// A rule is a list of expressions that work on registers. Each either goes on to the next or ends the rule:
//
//	iifname "glassbox0"   meta: register 1 = name of the input device;  cmp: register 1 == "glassbox0"
//	drop                  immediate: verdict register = drop
//
// Registers are numbered in two ways: 1 to 4 have 16 bytes, 8 to 23 have 4 and lie over them. 8 is the beginning of 1.

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

// Check says what is wrong with lines that are to be the rules of a table, if anything is. It asks the kernel nothing.
func Check(table string, lines []string) error {
	var r request
	return r.compile(table, lines)
}

var errSyntax = errors.New("not a command that this version of glassbox understands")

func (r *request) command(table string, w []string) error {
	if len(w) < 4 || w[3] != table {
		return errSyntax
	}
	family, err := familyNumber(w[2])
	if err != nil {
		return err
	}
	// Messages that follow, such as those for elements, are about the table of the line before.
	r.family = family
	if err := CheckTable(table); err != nil {
		return err
	}
	verb, what, rest := w[0], w[1], w[4:]
	if done, err := r.netdevCommand(verb, what, table, rest); done {
		return err
	}
	switch {
	case verb == "add" && what == "table" && len(rest) == 0:
		r.nft(unix.NFT_MSG_NEWTABLE, unix.NLM_F_CREATE)
		r.str(unix.NFTA_TABLE_NAME, table)
		return nil
	case verb == "flush" && what == "table" && len(rest) == 0:
		// A message about rules without a chain deletes all rules of the table, and leaves its chains, sets and maps: what
		// is published stays published.
		r.nft(unix.NFT_MSG_DELRULE, 0)
		r.str(unix.NFTA_RULE_TABLE, table)
		return nil
	case len(rest) == 0 || CheckTable(rest[0]) != nil:
		return errSyntax
	case verb == "insert" && what == "rule":
		return r.rule(table, rest[0], rest[1:], 0)
	case verb != "add":
		return errSyntax
	case what == "set":
		return r.defineSet(table, rest[0], rest[1:])
	case what == "map":
		return r.defineMap(table, rest[0], rest[1:])
	case what == "chain":
		return r.chain(table, rest[0], rest[1:])
	case what == "rule":
		return r.rule(table, rest[0], rest[1:], unix.NLM_F_APPEND)
	case what == "element":
		return r.addElement(table, rest[0], rest[1:])
	}
	return errSyntax
}

// CheckTable keeps names of tables, chains and maps to letters that need no quoting.
func CheckTable(s string) error {
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
	case "ipv6_addr":
		return 8, 16, true
	case "ether_addr":
		return 9, 8, true // six bytes, in whole registers
	case "ifname":
		return 41, 16, true
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
		// As nft(8) does it: six bits for each part (TYPE_BITS in its datatype.h). To the kernel it is a number to be
		// kept.
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
	if err != nil || len(w) != 1 || w[0] != "}" || keyLen > mostKey || valueLen > mostKey {
		return errSyntax
	}
	r.nft(unix.NFT_MSG_NEWSET, unix.NLM_F_CREATE)
	r.str(unix.NFTA_SET_TABLE, table)
	r.str(unix.NFTA_SET_NAME, name)
	r.be32(unix.NFTA_SET_ID, r.n) // unique in the transaction
	r.be32(unix.NFTA_SET_FLAGS, unix.NFT_SET_MAP)
	r.be32(unix.NFTA_SET_KEY_TYPE, keyType)
	r.be32(unix.NFTA_SET_KEY_LEN, keyLen)
	// The key is looked up by its length. The kernel checks it against the registers that a rule loads.
	r.be32(unix.NFTA_SET_DATA_TYPE, valueType)
	r.be32(unix.NFTA_SET_DATA_LEN, valueLen)
	return nil
}

// mostKey is how long a key may be (NFT_DATA_VALUE_MAXLEN).
const mostKey = 64

// defineSet reads "{ type A . B ; }".
func (r *request) defineSet(table, name string, w []string) error {
	if len(w) < 2 || w[0] != "{" || w[1] != "type" {
		return errSyntax
	}
	keyType, keyLen, w, err := concat(w[2:], ";")
	if err != nil || len(w) != 1 || w[0] != "}" || keyLen > mostKey {
		return errSyntax
	}
	r.nft(unix.NFT_MSG_NEWSET, unix.NLM_F_CREATE)
	r.str(unix.NFTA_SET_TABLE, table)
	r.str(unix.NFTA_SET_NAME, name)
	// The messages' place in the transaction, which no other set of it can have.
	r.be32(unix.NFTA_SET_ID, r.n)
	r.be32(unix.NFTA_SET_KEY_TYPE, keyType)
	r.be32(unix.NFTA_SET_KEY_LEN, keyLen)
	return nil
}

// addElement reads "{ HOSTIP . PROTO . PORT : IP . PORT }", an entry of the map of ports on one address.
func (r *request) addElement(table, set string, w []string) error {
	if set != MapOn || len(w) != 11 || w[0] != "{" || w[2] != "." || w[4] != "." || w[6] != ":" || w[8] != "." || w[10] != "}" {
		return errSyntax
	}
	from, err := strconv.ParseUint(w[5], 10, 16)
	if err != nil {
		return errSyntax
	}
	to, err := strconv.ParseUint(w[9], 10, 16)
	if err != nil {
		return errSyntax
	}
	e, err := portElement(plan.PortRule{
		HostIP: w[1], Proto: w[3], HostPort: uint16(from), ContainerIP: w[7], ContainerPort: uint16(to),
	})
	if err != nil {
		return err
	}
	r.element(unix.NFT_MSG_NEWSETELEM, unix.NLM_F_CREATE, table, e)
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
	// Without a hook a chain is one to jump to; with one the kernel hands packets to it from now on.
	r.nested(unix.NFTA_CHAIN_HOOK, func() {
		r.be32(unix.NFTA_HOOK_HOOKNUM, hook)
		r.be32(unix.NFTA_HOOK_PRIORITY, uint32(int32(priority)))
	})
	r.str(unix.NFTA_CHAIN_TYPE, w[2])
	return nil
}

func (r *request) rule(table, chain string, w []string, where uint16) error {
	r.nft(unix.NFT_MSG_NEWRULE, unix.NLM_F_CREATE|where)
	r.str(unix.NFTA_RULE_TABLE, table)
	r.str(unix.NFTA_RULE_CHAIN, chain)
	if len(w) > 1 && w[0] == "position" { // of the rule by that handle: before it
		handle, err := strconv.ParseUint(w[1], 10, 64)
		if err != nil || where != 0 {
			return errSyntax
		}
		r.attr(unix.NFTA_RULE_POSITION, binary.BigEndian.AppendUint64(nil, handle)...)
		w = w[2:]
	}
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
		// As nft(8) writes it (libnftnl's nftnl_udata): type 0, a length, the text with its NUL byte. So nft list ruleset
		// shows it.
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
	if rest, done, err := r.refusing(w); done {
		return rest, err
	}
	if rest, done, err := r.netdevStatement(w); done {
		return rest, err
	}
	if rest, ok := take(w, "dnat", "ip", "to"); ok {
		return r.dnat(rest, unix.NFPROTO_IPV4)
	}
	if rest, ok := take(w, "dnat", "ip6", "to"); ok {
		return r.dnat(rest, unix.NFPROTO_IPV6)
	}
	if rest, ok := take(w, "ether", "type"); ok && len(rest) > 0 {
		return r.etherType(rest)
	}
	if rest, ok := take(w, "icmpv6", "type"); ok && len(rest) > 0 {
		return r.icmpv6(rest)
	}
	// "iifname != @ports", "iifname . ip saddr @own"
	// What comes before the @ is a key of one or several parts, or the name of an operator.
	if i := slices.IndexFunc(w, func(s string) bool { return strings.HasPrefix(s, "@") }); i > 0 && (w[1] == "." || i <= 2) {
		return r.member(w[:i], w[i], w[i+1:])
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
		// A bit and not a value: IPS_DST_NAT is set for the whole connection once its first packet was translated.
		r.ct(unix.NFT_CT_STATUS, 1<<5) // IPS_DST_NAT
		return rest, nil
	}
	if rest, ok := take(w, "ct", "state", "established,related"); ok {
		// Bits, in their order ESTABLISHED is the second and RELATED the third; a packet has one of them.
		r.ct(unix.NFT_CT_STATE, 1<<1|1<<2) // NF_CT_STATE_BIT
		return rest, nil
	}
	switch w[0] {
	case "tcp", "udp":
		return r.port(w)
	case "accept", "drop":
		code := uint32(1) // NF_ACCEPT
		if w[0] == "drop" {
			code = 0
		}
		r.expr("immediate", func() {
			r.be32(unix.NFTA_IMMEDIATE_DREG, unix.NFT_REG_VERDICT)
			// The verdict is data like any other, put into the register of verdicts.
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
		if err := CheckName(name); err != nil {
			return nil, err
		}
		if strings.HasSuffix(name, "*") {
			return nil, errSyntax // a wildcard of nft(8)
		}
		r.meta(key, reg1)
		// The kernel compares the whole field. A name that is padded with zeros is exactly that one, and not a beginning.
		r.cmp(op, append([]byte(name), make([]byte, unix.IFNAMSIZ-len(name))...))
		return w[1:], nil
	case "ip", "ip6":
		return r.addressMatch(w)
	}
	return nil, errSyntax
}

// port compiles "udp dport 53" and "udp dport set 53".
func (r *request) port(w []string) ([]string, error) {
	offset, known := map[string]uint32{"sport": 0, "dport": 2}[w[min(1, len(w)-1)]]
	number, _ := protocol(w[0])
	w = w[min(2, len(w)):]
	rest, set := take(w, "set")
	if !known || len(rest) == 0 {
		return nil, errSyntax
	}
	port, err := strconv.ParseUint(rest[0], 10, 16)
	if err != nil {
		return nil, errSyntax
	}
	value := binary.BigEndian.AppendUint16(nil, uint16(port))
	if !set {
		r.protocol(unix.NFT_CMP_EQ, number)
		r.payload(unix.NFT_PAYLOAD_TRANSPORT_HEADER, offset, 2, reg1)
		r.cmp(unix.NFT_CMP_EQ, value)
		return rest[1:], nil
	}
	r.expr("immediate", func() {
		r.be32(unix.NFTA_IMMEDIATE_DREG, reg1)
		r.value(unix.NFTA_IMMEDIATE_DATA, value)
	})
	sum := uint32(6) // of the checksum in the header of UDP (RFC 768), and of TCP (RFC 9293)
	if number == unix.IPPROTO_TCP {
		sum = 16
	}
	r.expr("payload", func() {
		r.be32(unix.NFTA_PAYLOAD_SREG, reg1)
		r.be32(unix.NFTA_PAYLOAD_BASE, unix.NFT_PAYLOAD_TRANSPORT_HEADER)
		r.be32(unix.NFTA_PAYLOAD_OFFSET, offset)
		r.be32(unix.NFTA_PAYLOAD_LEN, 2)
		r.be32(unix.NFTA_PAYLOAD_CSUM_TYPE, unix.NFT_PAYLOAD_CSUM_INET)
		r.be32(unix.NFTA_PAYLOAD_CSUM_OFFSET, sum)
	})
	return rest[1:], nil
}

// addressMatch compiles "ip saddr 10.0.0.0/8" and its like.
func (r *request) addressMatch(w []string) ([]string, error) {
	if len(w) < 3 || w[1] != "saddr" && w[1] != "daddr" {
		return nil, errSyntax
	}
	version, field := w[0], w[1]
	op, w := operator(w[2:])
	if len(w) == 0 {
		return nil, errSyntax
	}
	p, err := netip.ParsePrefix(w[0])
	// A prefix with bits set behind its length would never match: the kernel masks the packet's address, and not ours.
	if err != nil || p.Addr().Is4() != (version == "ip") || p != p.Masked() || p.Bits() == 0 {
		return nil, errSyntax
	}
	a := p.Addr().AsSlice()
	// The first bytes are all that has to be equal, and so no mask is needed.
	if p.Bits()%8 == 0 { // whole bytes: load no more than those
		r.addressField(version, field, uint32(p.Bits()/8), reg1)
		r.cmp(op, a[:p.Bits()/8])
		return w[1:], nil
	}
	mask := make([]byte, len(a))
	for i := range p.Bits() {
		mask[i/8] |= 0x80 >> (i % 8)
	}
	r.addressField(version, field, uint32(len(a)), reg1)
	r.mask(uint32(len(a)), mask)
	r.cmp(op, a)
	return w[1:], nil
}

// etherType compiles "ether type arp".
func (r *request) etherType(w []string) ([]string, error) {
	number := map[string]uint16{"arp": unix.ETH_P_ARP, "ip": unix.ETH_P_IP, "ip6": unix.ETH_P_IPV6}[w[0]]
	if number == 0 {
		return nil, errSyntax
	}
	// The protocol field of the Ethernet header, behind two addresses of six bytes.
	r.payload(unix.NFT_PAYLOAD_LL_HEADER, 12, 2, reg1)
	r.cmp(unix.NFT_CMP_EQ, binary.BigEndian.AppendUint16(nil, number))
	return w[1:], nil
}

// icmpv6 compiles "icmpv6 type nd-router-advert".
func (r *request) icmpv6(w []string) ([]string, error) {
	number := map[string]byte{"nd-router-advert": 134, "nd-neighbor-advert": 136, "nd-redirect": 137}[w[0]]
	if number == 0 {
		return nil, errSyntax
	}
	// The type is a byte of the transport header: of another protocol it would be something else.
	r.meta(unix.NFT_META_L4PROTO, reg1)
	r.cmp(unix.NFT_CMP_EQ, []byte{unix.IPPROTO_ICMPV6})
	r.payload(unix.NFT_PAYLOAD_TRANSPORT_HEADER, 0, 1, reg1)
	r.cmp(unix.NFT_CMP_EQ, []byte{number})
	return w[1:], nil
}

// keys loads "A . B . C" into registers, side by side, and returns the words after them and how many registers of four bytes they took.
func (r *request) keys(w []string) (rest []string, used uint32, err error) {
	fields := []struct {
		words []string
		size  uint32 // registers
		load  func(reg uint32)
	}{
		{[]string{"ip", "saddr"}, 1, func(reg uint32) { r.addressField("ip", "saddr", 4, reg) }},
		{[]string{"ip", "daddr"}, 1, func(reg uint32) { r.addressField("ip", "daddr", 4, reg) }},
		{[]string{"ip6", "saddr"}, 4, func(reg uint32) { r.addressField("ip6", "saddr", 16, reg) }},
		{[]string{"ip6", "daddr"}, 4, func(reg uint32) { r.addressField("ip6", "daddr", 16, reg) }},
		{[]string{"arp", "saddr", "ip"}, 1, func(reg uint32) { r.payload(unix.NFT_PAYLOAD_NETWORK_HEADER, 14, 4, reg) }},
		{[]string{"icmpv6", "taddr"}, 4, func(reg uint32) { r.payload(unix.NFT_PAYLOAD_TRANSPORT_HEADER, 8, 16, reg) }},
		{[]string{"ether", "saddr"}, 2, func(reg uint32) { r.payload(unix.NFT_PAYLOAD_LL_HEADER, 6, 6, reg) }},
		{[]string{"iifname"}, 4, func(reg uint32) { r.meta(unix.NFT_META_IIFNAME, reg) }},
		{[]string{"meta", "l4proto"}, 1, func(reg uint32) { r.meta(unix.NFT_META_L4PROTO, reg) }},
		{[]string{"th", "sport"}, 1, func(reg uint32) { r.payload(unix.NFT_PAYLOAD_TRANSPORT_HEADER, 0, 2, reg) }},
		{[]string{"th", "dport"}, 1, func(reg uint32) { r.payload(unix.NFT_PAYLOAD_TRANSPORT_HEADER, 2, 2, reg) }},
	}
	for {
		found := false
		for _, f := range fields {
			if rest, ok := take(w, f.words...); ok {
				at := unix.NFT_REG32_00 + used
				// The kernel tells of a register by its 16-byte name where it has one (nft_dump_register), and what was
				// sent is compared with what it tells.
				if used%4 == 0 {
					at = reg1 + used/4 // the same register, as nft(8) calls it
				}
				f.load(at)
				w, used, found = rest, used+f.size, true
				break
			}
		}
		if !found || used > mostKey/4 {
			return nil, 0, errSyntax
		}
		rest, ok := take(w, ".")
		if !ok {
			return w, used, nil
		}
		w = rest
	}
}

// member compiles "KEY . KEY [!=] @SET": goes on if the set has the keys, or hasn't.
func (r *request) member(keys []string, set string, rest []string) ([]string, error) {
	var flags uint32
	if n := len(keys); n > 0 && keys[n-1] == "!=" {
		keys, flags = keys[:n-1], unix.NFT_LOOKUP_F_INV
	}
	left, _, err := r.keys(keys)
	if err != nil || len(left) > 0 || CheckTable(set[1:]) != nil {
		return nil, errSyntax
	}
	r.expr("lookup", func() {
		r.str(unix.NFTA_LOOKUP_SET, set[1:])
		r.be32(unix.NFTA_LOOKUP_SREG, reg1)
		if flags != 0 {
			r.be32(unix.NFTA_LOOKUP_FLAGS, flags)
		}
	})
	return rest, nil
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

// dnat compiles "KEY . KEY … map @NAME": load the keys side by side, look them up (no entry ends the rule), translate the
// destination to the address and port found.
func (r *request) dnat(w []string, family byte) ([]string, error) {
	w, _, err := r.keys(w)
	if err != nil || len(w) != 2 || w[0] != "map" || !strings.HasPrefix(w[1], "@") || CheckTable(w[1][1:]) != nil {
		return nil, errSyntax
	}
	r.expr("lookup", func() {
		r.str(unix.NFTA_LOOKUP_SET, w[1][1:])
		r.be32(unix.NFTA_LOOKUP_SREG, reg1)
		r.be32(unix.NFTA_LOOKUP_DREG, reg1)
	})
	// The value is the address, in one register or four, and the port in the next one (see portElement).
	port := uint32(unix.NFT_REG32_00 + 1) // behind the address
	if family == unix.NFPROTO_IPV6 {
		port = unix.NFT_REG_2
	}
	r.expr("nat", func() {
		r.be32(unix.NFTA_NAT_TYPE, unix.NFT_NAT_DNAT)
		r.be32(unix.NFTA_NAT_FAMILY, uint32(family))
		r.be32(unix.NFTA_NAT_REG_ADDR_MIN, reg1)
		r.be32(unix.NFTA_NAT_REG_PROTO_MIN, port)
	})
	return nil, nil
}
