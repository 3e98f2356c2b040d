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

// Check says what is wrong with lines that are to be the rules of a table, if anything is. It asks the kernel nothing.
func Check(table string, lines []string) error {
	var r request
	return r.compile(table, lines)
}

var errSyntax = errors.New("not a command that this version of glassbox understands")

func (r *request) command(table string, w []string) error {
	if len(w) < 4 || w[2] != "ip" || w[3] != table {
		return errSyntax
	}
	if err := CheckTable(table); err != nil {
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
	case verb != "add" || len(rest) == 0 || CheckTable(rest[0]) != nil:
		return errSyntax
	case what == "map":
		return r.defineMap(table, rest[0], rest[1:])
	case what == "chain":
		return r.chain(table, rest[0], rest[1:])
	case what == "rule":
		return r.rule(table, rest[0], rest[1:])
	case what == "element":
		return r.addElement(table, rest[0], rest[1:])
	}
	return errSyntax
}

// checkTable keeps names of tables, chains and maps to letters that need no quoting.
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
		if err := CheckName(name); err != nil {
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
	if len(w) != 2 || w[0] != "map" || !strings.HasPrefix(w[1], "@") || CheckTable(w[1][1:]) != nil {
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
