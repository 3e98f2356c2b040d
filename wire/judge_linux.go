package wire

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"
)

// What the rules of nf_tables do with a packet is found by doing what they say, on registers of our own: the kernel can tell it only of
// packets that are really sent (nft monitor trace). An expression that isn't known here makes its rule one that doesn't match, which is
// told in Outcome.Unknown; what a packet of a usual program meets is known.

// Packet is a packet to be judged. The fields that a hook doesn't know yet, such as Out in prerouting, are empty.
type Packet struct {
	In, Out          string // interfaces of the host
	Src, Dst         netip.Addr
	Proto            byte // IPPROTO_*
	SrcPort, DstPort uint16
	ICMPType         byte
	Reply            bool // it belongs to a connection that is allowed
	Translated       bool // its destination was changed (IPS_DST_NAT)
	SourceTranslated bool
	Mark             uint32                // a packet comes out of a container without one
	Local            func(netip.Addr) bool // whether an address is the host's own

	// What chains of the families bridge and netdev look at, too. SrcMAC may be empty. Asked is the address whose hardware address the
	// packet asks for; then it is a question of ARP or, of IPv6, of neighbour discovery, and Src and Dst are no matter but for the version.
	SrcMAC string
	Asked  netip.Addr
}

// Outcome is what a hook did with a packet.
type Outcome struct {
	Dropped, Rejected bool
	Returned          bool       // it went back by the device that it came from, as its own answer
	Chain             ChainState // whose decision it was
	Rule              *RuleState // nil: the chain's policy
	Through           int        // of the rule of that base chain that led there; -1: its policy
	Met               []string   // rules that matched, in order
	Unknown           []string   // rules that couldn't be judged
}

// By says who decided.
func (o Outcome) By() string {
	if o.Rule == nil {
		return "the policy of chain " + o.Chain.String()
	}
	return o.Rule.String()
}

// Judge gives a packet to the chains of a hook. Chains that skip names are left out; a destination that is translated is changed in p.
func (rs *Ruleset) Judge(hook uint32, p *Packet, skip func(ChainState) bool) Outcome {
	return rs.judge(rs.At(hook, p.Dst.Is6()), p, skip)
}

// judge gives a packet to base chains, in order.
func (rs *Ruleset) judge(chains []ChainState, p *Packet, skip func(ChainState) bool) Outcome {
	var all Outcome
	for _, c := range chains {
		// The table nat is asked of a connection's first packet only; the others follow what was decided then.
		if skip != nil && skip(c) || c.Type == "nat" && p.Reply {
			continue
		}
		j := judge{rs: rs, p: p, out: &all, top: -1}
		v := j.chain(c, 0)
		all.Chain, all.Rule, all.Through = c, j.by, j.top
		switch {
		case v == verdictDrop:
			all.Dropped, all.Rejected = true, j.rejected
			return all
		// Accepting ends a chain and not the hook: the next chain may still drop. Only the policy of one that has nothing
		// to say counts here.
		case v != verdictAccept && c.Drops:
			all.Dropped, all.Rule, all.Through = true, nil, -1
			return all
		}
	}
	all.Chain, all.Rule, all.Through = ChainState{}, nil, -1
	return all
}

// Verdicts, as the kernel numbers them (linux/netfilter.h, linux/netfilter/nf_tables.h).
const (
	verdictDrop     = 0
	verdictAccept   = 1
	verdictContinue = -1
	verdictBreak    = -2
	verdictJump     = -3
	verdictGoto     = -4
	verdictReturn   = -5
)

type judge struct {
	rs       *Ruleset
	p        *Packet
	out      *Outcome
	regs     [80]byte // NFT_REG_1 at 0, NFT_REG32_00 the same
	by       *RuleState
	top      int
	rejected bool
	target   string // of a jump
	frame    []byte // headers
	network  []byte
	trans    []byte
}

// chain returns verdictAccept, verdictDrop, or verdictContinue where the chain has nothing to say.
func (j *judge) chain(c ChainState, depth int) int {
	// The kernel refuses to load more than this (NFT_JUMP_STACK_SIZE is 16), so it is only a bound for what a list that
	// changed under us may be.
	if depth > 32 {
		return verdictContinue
	}
	rules := j.rs.Rules(c)
	for i := range rules {
		if depth == 0 {
			j.top = i
		}
		v := j.rule(&rules[i])
		switch v {
		case verdictAccept, verdictDrop:
			j.by = &rules[i]
			return v
		case verdictReturn:
			return verdictContinue
		case verdictJump, verdictGoto:
			target := j.target
			at := slices.IndexFunc(j.rs.Chains, func(o ChainState) bool {
				return o.Family == c.Family && o.Table == c.Table && o.Name == target
			})
			if at < 0 {
				continue
			}
			if v2 := j.chain(j.rs.Chains[at], depth+1); v2 != verdictContinue {
				return v2
			}
			// Where goto leads to nothing, the chain that had it is over, too: there is no way back.
			if v == verdictGoto {
				return verdictContinue
			}
		}
	}
	return verdictContinue
}

// rule does what one rule says.
func (j *judge) rule(r *RuleState) int {
	// As in the kernel, a rule begins with registers that hold nothing of the rules before.
	clear(j.regs[:])
	for _, body := range attrs(r.expressions) {
		var name string
		var data []byte
		for typ, d := range attrs(body) {
			switch typ {
			case unix.NFTA_EXPR_NAME:
				name = cstring(d)
			case unix.NFTA_EXPR_DATA:
				data = d
			}
		}
		v, known := j.expression(r, name, data)
		if !known {
			j.out.Unknown = append(j.out.Unknown, r.String()+": "+name)
			return verdictContinue
		}
		switch v {
		case verdictContinue: // the next expression
		case verdictBreak:
			return verdictContinue
		default:
			j.out.Met = append(j.out.Met, r.String())
			return v
		}
	}
	return verdictContinue
}

// register gives a register's bytes.
func (j *judge) register(number uint32) []byte {
	switch {
	case number >= unix.NFT_REG_1 && number <= unix.NFT_REG_4:
		return j.regs[(number-1)*16:]
	case number >= unix.NFT_REG32_00 && number <= unix.NFT_REG32_15:
		return j.regs[(number-unix.NFT_REG32_00)*4:]
	}
	return nil
}

// expression does one expression: verdictContinue goes on, verdictBreak ends the rule.
func (j *judge) expression(r *RuleState, name string, data []byte) (verdict int, known bool) {
	a := map[uint16][]byte{}
	for typ, d := range attrs(data) {
		a[typ] = d
	}
	switch name {
	// They change nothing about where the packet goes. limit and quota do at times: what they let through is what counts
	// here.
	case "counter", "log", "limit", "notrack", "quota", "last":
		return verdictContinue, true
	case "immediate":
		if code := dataValue(a[unix.NFTA_IMMEDIATE_DATA], unix.NFTA_DATA_VERDICT); code != nil {
			return j.verdict(code), true
		}
		return verdictContinue, j.store(a[unix.NFTA_IMMEDIATE_DREG], dataValue(a[unix.NFTA_IMMEDIATE_DATA], unix.NFTA_DATA_VALUE))
	case "meta":
		if sreg := a[unix.NFTA_META_SREG]; sreg != nil {
			from := j.register(bigU32(sreg))
			if bigU32(a[unix.NFTA_META_KEY]) != unix.NFT_META_MARK || len(from) < 4 {
				return 0, false
			}
			j.p.Mark = binary.NativeEndian.Uint32(from)
			return verdictContinue, true
		}
		v, ok := j.meta(bigU32(a[unix.NFTA_META_KEY]))
		return verdictContinue, ok && a[unix.NFTA_META_DREG] != nil && j.store(a[unix.NFTA_META_DREG], v)
	case "payload":
		return j.payload(a)
	case "ct":
		v, ok := j.ct(bigU32(a[unix.NFTA_CT_KEY]))
		return verdictContinue, ok && a[unix.NFTA_CT_DREG] != nil && j.store(a[unix.NFTA_CT_DREG], v)
	case "fib":
		return j.fib(a)
	case "bitwise":
		return j.bitwise(a)
	case "cmp":
		return j.cmp(a)
	case "range":
		reg, from, to := j.register(bigU32(a[unix.NFTA_RANGE_SREG])), dataValue(a[unix.NFTA_RANGE_FROM_DATA], unix.NFTA_DATA_VALUE),
			dataValue(a[unix.NFTA_RANGE_TO_DATA], unix.NFTA_DATA_VALUE)
		if reg == nil || len(from) != len(to) || len(reg) < len(from) {
			return 0, false
		}
		in := bytes.Compare(reg[:len(from)], from) >= 0 && bytes.Compare(reg[:len(to)], to) <= 0
		return match(in == (bigU32(a[unix.NFTA_RANGE_OP]) == unix.NFT_RANGE_EQ)), true
	case "lookup":
		return j.lookup(r, a)
	case "fwd":
		j.out.Returned = true
		return verdictAccept, true
	case "dynset":
		return j.remember(r, a)
	case "reject":
		j.rejected = true
		return verdictDrop, true
	case "nat":
		return j.nat(a), true
	case "masq":
		j.p.SourceTranslated = true
		return verdictAccept, true
	case "match":
		return j.match(cstring(a[unix.NFTA_MATCH_NAME]), a[unix.NFTA_MATCH_INFO])
	case "target":
		switch cstring(a[unix.NFTA_TARGET_NAME]) {
		case "REJECT":
			j.rejected = true
			return verdictDrop, true
		case "MASQUERADE":
			j.p.SourceTranslated = true
			return verdictAccept, true
		case "LOG", "NFLOG", "CHECKSUM", "TCPMSS":
			return verdictContinue, true
		}
	}
	return 0, false
}

func match(ok bool) int {
	if ok {
		return verdictContinue
	}
	return verdictBreak
}

func (j *judge) store(reg, value []byte) bool {
	to := j.register(bigU32(reg))
	if to == nil || value == nil || len(value) > len(to) {
		return false
	}
	// A register holds whole words: what is shorter is filled up.
	clear(to[:min(align(len(value)), len(to))])
	copy(to, value)
	return true
}

func (j *judge) verdict(data []byte) int {
	v := verdictContinue
	for typ, d := range attrs(data) {
		switch typ {
		case unix.NFTA_VERDICT_CODE:
			v = int(int32(bigU32(d)))
		case unix.NFTA_VERDICT_CHAIN:
			j.target = cstring(d)
		}
	}
	return v
}

func (j *judge) meta(key uint32) ([]byte, bool) {
	name := func(s string) []byte { return append([]byte(s), make([]byte, unix.IFNAMSIZ-len(s))...) }
	version := func(v4, v6 uint16) uint16 {
		if j.p.Dst.Is6() {
			return v6
		}
		return v4
	}
	switch key {
	case unix.NFT_META_IIFNAME:
		return name(j.p.In), true
	case unix.NFT_META_OIFNAME:
		return name(j.p.Out), true
	case unix.NFT_META_L4PROTO:
		return []byte{j.p.Proto}, true
	case unix.NFT_META_NFPROTO:
		return []byte{byte(version(unix.NFPROTO_IPV4, unix.NFPROTO_IPV6))}, true
	case unix.NFT_META_PROTOCOL:
		return binary.BigEndian.AppendUint16(nil, j.p.kind()), true
	case unix.NFT_META_MARK:
		return binary.NativeEndian.AppendUint32(nil, j.p.Mark), true
	case unix.NFT_META_IIF:
		return make([]byte, 4), true // for "fwd", which isn't done
	case unix.NFT_META_PKTTYPE:
		return []byte{0}, true // PACKET_HOST
	}
	return nil, false
}

// Bits of the kernel's answers about connections: NF_CT_STATE_BIT, IPS_*.
const (
	stateEstablished = 1 << 1
	stateNew         = 1 << 3
	statusSeenReply  = 1 << 1
	statusConfirmed  = 1 << 3
	statusSNAT       = 1 << 4
	statusDNAT       = 1 << 5
)

func (j *judge) ct(key uint32) ([]byte, bool) {
	word := func(v uint32) []byte { return binary.NativeEndian.AppendUint32(nil, v) }
	switch key {
	case unix.NFT_CT_STATE:
		if j.p.Reply {
			return word(stateEstablished), true
		}
		return word(stateNew), true
	case unix.NFT_CT_STATUS:
		var s uint32
		if j.p.Reply {
			s |= statusSeenReply | statusConfirmed
		}
		if j.p.Translated {
			s |= statusDNAT
		}
		if j.p.SourceTranslated {
			s |= statusSNAT
		}
		return word(s), true
	case unix.NFT_CT_MARK:
		return word(0), true
	case unix.NFT_CT_DIRECTION:
		if j.p.Reply {
			return []byte{1}, true
		}
		return []byte{0}, true
	}
	return nil, false
}

func (j *judge) payload(a map[uint16][]byte) (int, bool) {
	j.headers()
	from := j.network
	switch bigU32(a[unix.NFTA_PAYLOAD_BASE]) {
	case unix.NFT_PAYLOAD_LL_HEADER:
		from = j.frame
	case unix.NFT_PAYLOAD_NETWORK_HEADER:
	case unix.NFT_PAYLOAD_TRANSPORT_HEADER:
		from = j.trans
	default:
		return 0, false
	}
	offset, n := int(bigU32(a[unix.NFTA_PAYLOAD_OFFSET])), int(bigU32(a[unix.NFTA_PAYLOAD_LEN]))
	if a[unix.NFTA_PAYLOAD_DREG] == nil { // it changes the packet: what asks for a neighbour becomes the answer
		return verdictContinue, j.p.Asked.IsValid()
	}
	// A header that is too short for the field makes the rule one that doesn't match, as in the kernel.
	if offset < 0 || n < 0 || offset+n > len(from) {
		return verdictBreak, true
	}
	return verdictContinue, j.store(a[unix.NFTA_PAYLOAD_DREG], from[offset:offset+n])
}

func (j *judge) fib(a map[uint16][]byte) (int, bool) {
	if bigU32(a[unix.NFTA_FIB_RESULT]) != unix.NFT_FIB_RESULT_ADDRTYPE || j.p.Local == nil {
		return 0, false
	}
	addr := j.p.Dst
	if bigU32(a[unix.NFTA_FIB_FLAGS])&unix.NFTA_FIB_F_SADDR != 0 {
		addr = j.p.Src
	}
	return verdictContinue, j.store(a[unix.NFTA_FIB_DREG], binary.NativeEndian.AppendUint32(nil, j.addressType(addr)))
}

func (j *judge) addressType(a netip.Addr) uint32 {
	switch {
	case a.IsMulticast():
		return unix.RTN_MULTICAST
	case j.p.Local != nil && j.p.Local(a):
		return unix.RTN_LOCAL
	}
	return unix.RTN_UNICAST
}

func (j *judge) bitwise(a map[uint16][]byte) (int, bool) {
	const op = 6 // NFTA_BITWISE_OP
	from, to := j.register(bigU32(a[unix.NFTA_BITWISE_SREG])), j.register(bigU32(a[unix.NFTA_BITWISE_DREG]))
	mask, xor := dataValue(a[unix.NFTA_BITWISE_MASK], unix.NFTA_DATA_VALUE), dataValue(a[unix.NFTA_BITWISE_XOR], unix.NFTA_DATA_VALUE)
	if bigU32(a[op]) != 0 || from == nil || to == nil || len(mask) != len(xor) || len(mask) > len(from) || len(mask) > len(to) {
		return 0, false
	}
	for i := range mask {
		to[i] = from[i]&mask[i] ^ xor[i]
	}
	return verdictContinue, true
}

func (j *judge) cmp(a map[uint16][]byte) (int, bool) {
	reg, want := j.register(bigU32(a[unix.NFTA_CMP_SREG])), dataValue(a[unix.NFTA_CMP_DATA], unix.NFTA_DATA_VALUE)
	if reg == nil || len(want) > len(reg) {
		return 0, false
	}
	c := bytes.Compare(reg[:len(want)], want)
	switch bigU32(a[unix.NFTA_CMP_OP]) {
	case unix.NFT_CMP_EQ:
		return match(c == 0), true
	case unix.NFT_CMP_NEQ:
		return match(c != 0), true
	case unix.NFT_CMP_LT:
		return match(c < 0), true
	case unix.NFT_CMP_LTE:
		return match(c <= 0), true
	case unix.NFT_CMP_GT:
		return match(c > 0), true
	case unix.NFT_CMP_GTE:
		return match(c >= 0), true
	}
	return 0, false
}

func (j *judge) lookup(r *RuleState, a map[uint16][]byte) (int, bool) {
	s, err := j.rs.set(r.Family, r.Table, cstring(a[unix.NFTA_LOOKUP_SET]))
	reg := j.register(bigU32(a[unix.NFTA_LOOKUP_SREG]))
	if err != nil || reg == nil {
		return 0, false
	}
	// Longer keys than the set's are cut by find: registers behind the key may hold anything.
	e, found := s.find(reg)
	if inverted := bigU32(a[unix.NFTA_LOOKUP_FLAGS])&unix.NFT_LOOKUP_F_INV != 0; inverted == found {
		return verdictBreak, true
	}
	switch to := a[unix.NFTA_LOOKUP_DREG]; {
	case to == nil:
		return verdictContinue, true
	case e.verdict != nil:
		return j.verdict(e.verdict), true
	default:
		return verdictContinue, j.store(to, e.value)
	}
}

// nat translates.
func (j *judge) nat(a map[uint16][]byte) int {
	if bigU32(a[unix.NFTA_NAT_TYPE]) == unix.NFT_NAT_SNAT {
		j.p.SourceTranslated = true
		return verdictAccept
	}
	n := 4
	if j.p.Dst.Is6() {
		n = 16
	}
	if reg := j.register(bigU32(a[unix.NFTA_NAT_REG_ADDR_MIN])); len(reg) >= n {
		if to, ok := netip.AddrFromSlice(reg[:n]); ok {
			j.p.Dst = to
		}
	}
	if reg := j.register(bigU32(a[unix.NFTA_NAT_REG_PROTO_MIN])); len(reg) >= 2 {
		if port := binary.BigEndian.Uint16(reg); port != 0 {
			j.p.DstPort = port
		}
	}
	// Later rules see the packet as it was translated, so the header is built anew.
	j.p.Translated, j.network = true, nil
	return verdictAccept
}

// match judges those matches of iptables that others' chains are made of.
func (j *judge) match(name string, info []byte) (int, bool) {
	switch name {
	case "comment", "limit":
		return verdictContinue, true
	case "conntrack":
		// struct xt_conntrack_mtinfo3 of linux/netfilter/xt_conntrack.h
		const flags, inverted, states, onlyState = 146, 148, 150, 1
		// Before the flags: eight addresses of 16 bytes, two times, and five fields of 16 bits for protocol and ports.
		if len(info) < states+2 || binary.NativeEndian.Uint16(info[flags:]) != onlyState {
			return 0, false
		}
		have := uint16(1 << 3) // NEW
		if j.p.Reply {
			have = 1 << 1
		}
		if j.p.Translated {
			have |= 1 << 7
		}
		if j.p.SourceTranslated {
			have |= 1 << 6
		}
		ok := have&binary.NativeEndian.Uint16(info[states:]) != 0
		return match(ok != (binary.NativeEndian.Uint16(info[inverted:])&onlyState != 0)), true
	case "state": // struct xt_state_info: a mask
		if len(info) < 4 {
			return 0, false
		}
		have := uint32(1 << 3)
		if j.p.Reply {
			have = 1 << 1
		}
		return match(have&binary.NativeEndian.Uint32(info) != 0), true
	case "addrtype":
		// struct xt_addrtype_info_v1: source and dest masks of RTN_*, flags
		if len(info) < 8 {
			return 0, false
		}
		source, dest, flags := binary.NativeEndian.Uint16(info), binary.NativeEndian.Uint16(info[2:]), binary.NativeEndian.Uint32(info[4:])
		// Bits 4 and 8 limit it to an interface, of which nothing is known here.
		if flags&^3 != 0 {
			return 0, false
		}
		ok := (source == 0 || (source&(1<<j.addressType(j.p.Src)) != 0) != (flags&1 != 0)) &&
			(dest == 0 || (dest&(1<<j.addressType(j.p.Dst)) != 0) != (flags&2 != 0))
		return match(ok), true
	case "tcp", "udp":
		// struct xt_tcp: spts[2], dpts[2], …, invflags; struct xt_udp: the same without what is between
		if len(info) < 9 {
			return 0, false
		}
		in := func(p uint16, at int) bool {
			return p >= binary.NativeEndian.Uint16(info[at:]) && p <= binary.NativeEndian.Uint16(info[at+2:])
		}
		flags := info[8]
		if name == "tcp" {
			if len(info) < 12 || info[8] != 0 || info[9] != 0 || info[10] != 0 { // an option, or flags
				return 0, false
			}
			flags = info[11]
		}
		ok := in(j.p.SrcPort, 0) != (flags&1 != 0) && in(j.p.DstPort, 4) != (flags&2 != 0)
		return match(ok), true
	}
	return 0, false
}

// Describe says a packet in a few words.
func (p Packet) Describe() string {
	return fmt.Sprintf("%s to %s", netip.AddrPortFrom(p.Src, p.SrcPort), netip.AddrPortFrom(p.Dst, p.DstPort))
}
