package wire

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"glassbox/plan"
)

// Walls: tables of family netdev, whose chains sit on one device. They see every frame that comes out of a container's cable or goes into
// it, before the bridge does, whatever it says it is. Since Linux 5.16 there is a hook for both directions.

// FamilyNetdev is nft(8)'s word.
const FamilyNetdev = "netdev"

// The sets of a wall. Those of IPv6 have a 6 behind their name.
const (
	SetNamed      = "named"       // address: what the resolver has answered for names that are allowed with every port
	SetNamedPorts = "named_ports" // address . protocol . port: the same for names with a port
	SetNear       = "near"        // address: whose hardware address the container may ask for
	SetFlows      = "flows"       // far address . protocol . far port . own port: what goes on at the moment
	SetRefused    = "refused"     // address . protocol . port: what was tried in vain, with a counter
	SetOthers     = "others"      // address . protocol: the same of protocols without ports
	SetSought     = "sought"      // address: which neighbour's hardware address was asked for in vain
	SetGuests     = "guests"      // address: who is let in by name, with every port
	SetGuestPorts = "guest_ports" // address . protocol . own port: the same with one
	SetTurned     = "turned"      // address . protocol . own port: who tried to come in
)

// Forgotten is how long a wall remembers what it refused, since the last time.
const Forgotten = 24 * time.Hour

// netdevCommand compiles a line about a table of family netdev, but for what all families have in common.
func (r *request) netdevCommand(verb, what, table string, w []string) (done bool, err error) {
	switch {
	case r.family != unix.NFPROTO_NETDEV:
		return false, nil
	// A wall is replaced as a whole, which is the same for one that is made: add, delete and add again in one transaction.
	case verb == "delete" && what == "table" && len(w) == 0:
		r.nft(unix.NFT_MSG_DELTABLE, 0)
		r.str(unix.NFTA_TABLE_NAME, table)
		return true, nil
	case len(w) == 0 || CheckTable(w[0]) != nil || verb != "add":
		return false, nil
	case what == "set":
		return true, r.netdevSet(table, w[0], w[1:])
	case what == "chain" && len(w) > 1:
		return true, r.netdevChain(table, w[0], w[1:])
	}
	return false, nil
}

// netdevSet reads "{ type A . B ; [flags timeout ;] [flags dynamic,timeout ; timeout 10m ; size 1024 ;] }".
func (r *request) netdevSet(table, name string, w []string) error {
	w, ok := take(w, "{", "type")
	if !ok {
		return errSyntax
	}
	keyType, keyLen, w, err := concat(w, ";")
	if err != nil || keyLen > mostKey {
		return errSyntax
	}
	var flags, size uint32
	var timeout time.Duration
	for len(w) >= 3 && w[2] == ";" {
		// In any order and number, as nft(8) lists them.
		switch w[0] + " " + w[1] {
		case "flags timeout":
			flags = unix.NFT_SET_TIMEOUT
		case "flags dynamic,timeout":
			flags = unix.NFT_SET_TIMEOUT | unix.NFT_SET_EVAL
		default:
			switch w[0] {
			case "timeout":
				if timeout, err = time.ParseDuration(w[1]); err != nil || timeout < time.Second {
					return errSyntax
				}
			case "size":
				n, err := strconv.ParseUint(w[1], 10, 20)
				if err != nil || n == 0 {
					return errSyntax
				}
				size = uint32(n)
			default:
				return errSyntax
			}
		}
		w = w[3:]
	}
	if len(w) != 1 || w[0] != "}" {
		return errSyntax
	}
	r.nft(unix.NFT_MSG_NEWSET, unix.NLM_F_CREATE)
	r.str(unix.NFTA_SET_TABLE, table)
	r.str(unix.NFTA_SET_NAME, name)
	r.be32(unix.NFTA_SET_ID, r.n)
	if flags != 0 { // the kernel tells none then, and what was sent is compared with what it tells
		r.be32(unix.NFTA_SET_FLAGS, flags)
	}
	r.be32(unix.NFTA_SET_KEY_TYPE, keyType)
	r.be32(unix.NFTA_SET_KEY_LEN, keyLen)
	if timeout > 0 {
		r.be64(unix.NFTA_SET_TIMEOUT, uint64(timeout.Milliseconds()))
	}
	if size > 0 {
		// The bound on the elements, which the packets of a container make: the kernel refuses more.
		r.nested(unix.NFTA_SET_DESC, func() { r.be32(unix.NFTA_SET_DESC_SIZE, size) })
	}
	return nil
}

// netdevChain reads `{ type filter hook ingress device "gb0" priority 0 ; }`. ingress is what comes out of the container.
func (r *request) netdevChain(table, name string, w []string) error {
	if len(w) != 11 || strings.Join(w[:4], " ") != "{ type filter hook" || w[5] != "device" || w[7] != "priority" || w[9] != ";" ||
		w[10] != "}" {
		return errSyntax
	}
	const ingress, egress = 0, 1 // NF_NETDEV_*
	hook := uint32(ingress)
	switch w[4] {
	case "ingress":
	case "egress":
		hook = egress
	default:
		return errSyntax
	}
	device, err := quoted(w[6])
	if err != nil {
		return err
	}
	priority, err := strconv.ParseInt(w[8], 10, 32)
	if err != nil {
		return errSyntax
	}
	r.nft(unix.NFT_MSG_NEWCHAIN, unix.NLM_F_CREATE)
	r.str(unix.NFTA_CHAIN_TABLE, table)
	r.str(unix.NFTA_CHAIN_NAME, name)
	r.nested(unix.NFTA_CHAIN_HOOK, func() {
		r.be32(unix.NFTA_HOOK_HOOKNUM, hook)
		r.be32(unix.NFTA_HOOK_PRIORITY, uint32(int32(priority)))
		r.str(unix.NFTA_HOOK_DEV, device)
	})
	r.str(unix.NFTA_CHAIN_TYPE, "filter")
	return nil
}

// quoted is the name of a device in quotes.
func quoted(word string) (string, error) {
	name, ok := strings.CutPrefix(word, `"`)
	name, ok2 := strings.CutSuffix(name, `"`)
	if !ok || !ok2 || strings.HasSuffix(name, "*") {
		return "", errSyntax
	}
	return name, CheckName(name)
}

// Refusing is how a wall tells a container that it is refused.
type Refusing string

// A kernel has nft's reject for frames in one family, the other, both, or none. Debian's have CONFIG_NFT_BRIDGE_REJECT and no
// CONFIG_NFT_REJECT_NETDEV.
const (
	RefuseHere   Refusing = ""       // the wall's own chain does
	RefuseBridge Refusing = "bridge" // it marks the packet (RefusedMark), and a chain of family bridge refuses it
	RefuseSilent Refusing = "silent" // nobody does, and who is refused waits
)

// RefusedMark is the mark of a packet on its short way from the cable to the bridge's first chain.
const RefusedMark = 0x67626e6f

// WallRefusal asks the kernel. Nothing stays: the last line of each transaction is one that can't be done. Who may not ask (explain needs
// no root) is told what a kernel with all of nf_tables does.
func WallRefusal() (Refusing, error) {
	c, err := Dial(unix.NETLINK_NETFILTER)
	if err != nil {
		return "", err
	}
	defer c.Close()
	const table = "glassbox-asks"
	for _, how := range []struct {
		family string
		is     Refusing
	}{{FamilyNetdev, RefuseHere}, {FamilyBridge, RefuseBridge}} {
		r := request{}
		r.begin()
		if err := r.compile(table, []string{
			"add table " + how.family + " " + table, "add chain " + how.family + " " + table + " c",
			"add rule " + how.family + " " + table + " c reject with icmpx type admin-prohibited",
		}); err != nil {
			return "", err
		}
		r.nft(unix.NFT_MSG_DELTABLE, 0)
		r.str(unix.NFTA_TABLE_NAME, table+"-nothing")
		r.ackLast()
		last := r.n
		if failed, err := c.transact(&r); err == nil {
			return "", errors.New("nf_tables removed a table that nobody made")
		} else if failed == last || errors.Is(err, unix.EPERM) {
			return how.is, nil
		} else if !noFamily(err) && !errors.Is(err, unix.ENOENT) {
			return "", fmt.Errorf("ask how this kernel refuses frames: %w", err)
		}
	}
	return RefuseSilent, nil
}

// refusing compiles what walls say of packets that are refused, in both families that they stand in.
func (r *request) refusing(w []string) (rest []string, done bool, err error) {
	if r.family != unix.NFPROTO_NETDEV && r.family != unix.NFPROTO_BRIDGE {
		return nil, false, nil
	}
	if rest, ok := take(w, "reject", "with", "tcp", "reset"); ok {
		r.reject(unix.NFT_REJECT_TCP_RST, 0)
		rest, err = last(rest)
		return rest, true, err
	}
	if rest, ok := take(w, "reject", "with", "icmpx", "type", "admin-prohibited"); ok {
		r.reject(unix.NFT_REJECT_ICMPX_UNREACH, unix.NFT_REJECT_ICMPX_ADMIN_PROHIBITED)
		rest, err = last(rest)
		return rest, true, err
	}
	if _, ok := take(w, "meta", "l4proto"); ok && r.family == unix.NFPROTO_BRIDGE {
		return r.netdevPort(w)
	}
	rest, ok := take(w, "meta", "mark")
	if !ok || len(rest) == 0 {
		return nil, false, nil
	}
	rest, set := take(rest, "set")
	if len(rest) == 0 {
		return nil, true, errSyntax
	}
	n, err := strconv.ParseUint(rest[0], 0, 32)
	if err != nil {
		return nil, true, errSyntax
	}
	value := binary.NativeEndian.AppendUint32(nil, uint32(n))
	if !set {
		r.meta(unix.NFT_META_MARK, reg1)
		r.cmp(unix.NFT_CMP_EQ, value)
		return rest[1:], true, nil
	}
	r.expr("immediate", func() {
		r.be32(unix.NFTA_IMMEDIATE_DREG, reg1)
		r.value(unix.NFTA_IMMEDIATE_DATA, value)
	})
	r.expr("meta", func() {
		r.be32(unix.NFTA_META_KEY, unix.NFT_META_MARK)
		r.be32(unix.NFTA_META_SREG, reg1)
	})
	return rest[1:], true, nil
}

// protocols are those that a wall tells apart.
func protocol(word string) (byte, bool) {
	switch word {
	case "tcp":
		return unix.IPPROTO_TCP, true
	case "udp":
		return unix.IPPROTO_UDP, true
	case "sctp":
		return unix.IPPROTO_SCTP, true
	case "icmp":
		return unix.IPPROTO_ICMP, true
	case "ipv6-icmp":
		return unix.IPPROTO_ICMPV6, true
	}
	return 0, false
}

// netdevStatement compiles what only rules of a wall say. done is false for what all families have in common.
func (r *request) netdevStatement(w []string) (rest []string, done bool, err error) {
	if r.family != unix.NFPROTO_NETDEV {
		return nil, false, nil
	}
	if rest, ok := take(w, "tcp", "flags", "&"); ok {
		return r.tcpFlags(rest)
	}
	switch {
	case (w[0] == "ip" || w[0] == "ip6") && len(w) > 3 && (w[2] == "." || w[2][0] == '@'):
		i := slices.IndexFunc(w, func(s string) bool { return strings.HasPrefix(s, "@") })
		if i < 0 {
			return nil, true, errSyntax
		}
		rest, err = r.member(w[:i], w[i], w[i+1:])
		return rest, true, err
	case len(w) == 2 && w[0] == "jump" && CheckTable(w[1]) == nil:
		r.expr("immediate", func() {
			r.be32(unix.NFTA_IMMEDIATE_DREG, unix.NFT_REG_VERDICT)
			r.nested(unix.NFTA_IMMEDIATE_DATA, func() {
				r.nested(unix.NFTA_DATA_VERDICT, func() {
					r.be32(unix.NFTA_VERDICT_CODE, uint32(0xfffffffd)) // NFT_JUMP, -3
					r.str(unix.NFTA_VERDICT_CHAIN, w[1])
				})
			})
		})
		return nil, true, nil
	case w[0] == "update" && len(w) > 4:
		rest, err = r.update(w[1:])
		return rest, true, err
	case w[0] == "counter":
		r.nested(unix.NFTA_LIST_ELEM, func() { r.str(unix.NFTA_EXPR_NAME, "counter") })
		return w[1:], true, nil
	}
	if rest, done, err = r.netdevAnswer(w); done {
		return rest, true, err
	}
	if rest, done, err = r.netdevPort(w); done {
		return rest, true, err
	}
	return r.netdevAddress(w)
}

// tcpFlags compiles "(syn | ack) == syn" and "(syn | rst) == rst".
func (r *request) tcpFlags(w []string) (rest []string, done bool, err error) {
	bits := map[string]byte{"(syn": 2, "syn": 2, "ack)": 0x10, "rst)": 4, "rst": 4}
	if len(w) < 5 || w[1] != "|" || bits[w[0]] == 0 || bits[w[2]] == 0 || bits[w[4]] == 0 || w[3] != "==" && w[3] != "!=" {
		return nil, true, errSyntax
	}
	op := uint32(unix.NFT_CMP_EQ)
	if w[3] == "!=" {
		op = unix.NFT_CMP_NEQ
	}
	r.protocol(unix.NFT_CMP_EQ, unix.IPPROTO_TCP)
	// The flags are the 14th byte of TCP's header (RFC 9293).
	r.payload(unix.NFT_PAYLOAD_TRANSPORT_HEADER, 13, 1, reg1)
	r.mask(1, []byte{bits[w[0]] | bits[w[2]]})
	r.cmp(op, []byte{bits[w[4]]})
	return w[5:], true, nil
}

// netdevPort compiles "meta l4proto tcp" and "th dport 443".
func (r *request) netdevPort(w []string) (rest []string, done bool, err error) {
	fail := func() ([]string, bool, error) { return nil, true, errSyntax }
	if rest, ok := take(w, "meta", "l4proto"); ok && len(rest) > 0 && rest[0] != "." && !strings.HasPrefix(rest[0], "@") {
		op, rest := operator(rest)
		if len(rest) == 0 {
			return fail()
		}
		number, ok := protocol(rest[0])
		if !ok {
			return fail()
		}
		r.protocol(op, number)
		return rest[1:], true, nil
	}
	if rest, ok := take(w, "th", "dport"); ok && len(rest) > 0 && rest[0] != "." {
		port, err := strconv.ParseUint(rest[0], 10, 16)
		if err != nil {
			return fail()
		}
		r.payload(unix.NFT_PAYLOAD_TRANSPORT_HEADER, 2, 2, reg1)
		r.cmp(unix.NFT_CMP_EQ, binary.BigEndian.AppendUint16(nil, uint16(port)))
		return rest[1:], true, nil
	}
	if rest, ok := take(w, "icmp", "type"); ok && len(rest) > 0 {
		number, known := map[string]byte{"echo-reply": 0, "destination-unreachable": 3, "time-exceeded": 11, "parameter-problem": 12}[rest[0]]
		if !known {
			return fail()
		}
		r.icmpType(unix.IPPROTO_ICMP, number)
		return rest[1:], true, nil
	}
	if rest, ok := take(w, "icmpv6", "type"); ok && len(rest) > 0 {
		number, known := map[string]byte{
			"destination-unreachable": 1, "packet-too-big": 2, "time-exceeded": 3, "parameter-problem": 4, "echo-reply": 129,
			"nd-router-advert": 134, "nd-neighbor-solicit": 135, "nd-neighbor-advert": 136,
		}[rest[0]]
		if !known {
			return fail()
		}
		r.icmpType(unix.IPPROTO_ICMPV6, number)
		return rest[1:], true, nil
	}
	return nil, false, nil
}

func (r *request) icmpType(protocol, number byte) {
	r.protocol(unix.NFT_CMP_EQ, protocol)
	r.payload(unix.NFT_PAYLOAD_TRANSPORT_HEADER, 0, 1, reg1)
	r.cmp(unix.NFT_CMP_EQ, []byte{number})
}

// netdevAddress compiles what is compared with one address: of the frame, of ARP, of a neighbour solicitation.
func (r *request) netdevAddress(w []string) (rest []string, done bool, err error) {
	fail := func() ([]string, bool, error) { return nil, true, errSyntax }
	for _, f := range []struct {
		words             []string
		base, offset, len uint32
	}{
		{[]string{"ether", "saddr"}, unix.NFT_PAYLOAD_LL_HEADER, 6, 6},
		{[]string{"arp", "saddr", "ether"}, unix.NFT_PAYLOAD_NETWORK_HEADER, 8, 6},
		{[]string{"arp", "saddr", "ip"}, unix.NFT_PAYLOAD_NETWORK_HEADER, 14, 4},
		{[]string{"arp", "daddr", "ip"}, unix.NFT_PAYLOAD_NETWORK_HEADER, 24, 4},
		{[]string{"icmpv6", "taddr"}, unix.NFT_PAYLOAD_TRANSPORT_HEADER, 8, 16},
	} {
		rest, ok := take(w, f.words...)
		if !ok {
			continue
		}
		op, rest := operator(rest)
		if len(rest) == 0 {
			return fail()
		}
		if rest[0] == "." {
			return nil, false, nil // a key of a set
		}
		r.payload(f.base, f.offset, f.len, reg1)
		if set, ok := strings.CutPrefix(rest[0], "@"); ok {
			if CheckTable(set) != nil || op == unix.NFT_CMP_NEQ {
				return fail()
			}
			r.lookup(set)
			return rest[1:], true, nil
		}
		if f.len == 6 {
			mac, err := parseMAC(rest[0])
			if err != nil {
				return nil, true, err
			}
			r.cmp(op, mac)
			return rest[1:], true, nil
		}
		p, err := netip.ParsePrefix(rest[0])
		if err != nil || uint32(len(p.Addr().AsSlice())) != f.len || p != p.Masked() || p.Bits() == 0 {
			return fail()
		}
		mask := make([]byte, f.len)
		for i := range p.Bits() {
			mask[i/8] |= 0x80 >> (i % 8)
		}
		r.mask(f.len, mask)
		r.cmp(op, p.Addr().AsSlice())
		return rest[1:], true, nil
	}
	if rest, ok := take(w, "arp", "operation", "reply"); ok {
		r.payload(unix.NFT_PAYLOAD_NETWORK_HEADER, 6, 2, reg1)
		r.cmp(unix.NFT_CMP_EQ, []byte{0, 2})
		return rest, true, nil
	}
	return nil, false, nil
}

func (r *request) protocol(op uint32, number byte) {
	r.meta(unix.NFT_META_L4PROTO, reg1)
	r.cmp(op, []byte{number})
}

func (r *request) lookup(set string) {
	r.expr("lookup", func() {
		r.str(unix.NFTA_LOOKUP_SET, set)
		r.be32(unix.NFTA_LOOKUP_SREG, reg1)
	})
}

func (r *request) reject(kind uint32, code byte) {
	r.expr("reject", func() {
		r.be32(unix.NFTA_REJECT_TYPE, kind)
		if kind != unix.NFT_REJECT_TCP_RST {
			r.attr(unix.NFTA_REJECT_ICMP_CODE, code)
		}
	})
}

// update compiles "@SET { KEY . KEY [counter] }": the element is made, or lives on from now.
func (r *request) update(w []string) ([]string, error) {
	end := slices.Index(w, "}")
	set, ok := strings.CutPrefix(w[0], "@")
	if !ok || CheckTable(set) != nil || w[1] != "{" || end < 3 {
		return nil, errSyntax
	}
	keys, rest := w[2:end], w[end+1:]
	counts := keys[len(keys)-1] == "counter"
	if counts {
		keys = keys[:len(keys)-1]
	}
	if left, ok := take(keys, "arp", "daddr", "ip"); ok && len(left) == 0 {
		r.payload(unix.NFT_PAYLOAD_NETWORK_HEADER, 24, 4, reg1)
	} else if left, _, err := r.keys(keys); err != nil || len(left) > 0 {
		return nil, errSyntax
	}
	r.expr("dynset", func() {
		r.str(unix.NFTA_DYNSET_SET_NAME, set)
		r.be32(unix.NFTA_DYNSET_OP, unix.NFT_DYNSET_OP_UPDATE)
		r.be32(unix.NFTA_DYNSET_SREG_KEY, reg1)
		if counts {
			r.nested(unix.NFTA_DYNSET_EXPR, func() { r.str(unix.NFTA_EXPR_NAME, "counter") })
		}
	})
	return rest, nil
}

// wall makes a wall's table, in one transaction.
func (c *Conn) wall(op *plan.NftWall) error {
	if err := CheckName(op.Link); err != nil {
		return err
	}
	for _, line := range op.Rules {
		// Plans can come from elsewhere: a step about a wall touches no other table, and no other link.
		w := tokens(line)
		switch {
		case len(w) < 4,
			w[2] != FamilyNetdev && w[2] != FamilyBridge,
			slices.Contains(w, "device") && !slices.Contains(w, strconv.Quote(op.Link)),
			w[2] == FamilyBridge && w[1] == "rule" && (len(w) < 7 || w[5] != "iifname" || w[6] != strconv.Quote(op.Link)):
			return fmt.Errorf("%q: it is no rule of the wall of %s", line, op.Link)
		}
	}
	err := c.sendAll(op.Table, op.Rules)
	if noFamily(err) || errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("%w: walls need Linux 5.16 with nf_tables of family netdev and its hook egress (CONFIG_NF_TABLES_NETDEV, "+
			"CONFIG_NETFILTER_EGRESS), and the plan one of CONFIG_NFT_REJECT_NETDEV and CONFIG_NFT_BRIDGE_REJECT: leave --egress and "+
			"--ingress out to run without", err)
	}
	return err
}

// unwall removes it. What is marked is refused as long as it is marked.
func (c *Conn) unwall(op *plan.NftUnwall) error {
	err := c.deleteTable(unix.NFPROTO_NETDEV, op.Table)
	if err == nil && op.Bridged {
		err = c.deleteTable(unix.NFPROTO_BRIDGE, op.Table)
	}
	return err
}

// LookWall compares a wall with the rules of a plan.
func LookWall(op *plan.NftWall) (*TableState, error) {
	c, err := Dial(unix.NETLINK_NETFILTER)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	return c.lookTables(op.Table, op.Rules, unix.NFPROTO_NETDEV, unix.NFPROTO_BRIDGE)
}
