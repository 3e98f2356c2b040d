package wire

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"golang.org/x/sys/unix"

	"glassbox/plan"
)

// What follows only reads: what there is in a network namespace, and in the firewall, to be compared with a plan.

// LinkState is a link as it is.
type LinkState struct {
	Index, Master int
	Peer          int // index of the other end of a veth, in that end's namespace
	Name, Kind    string
	MAC           string
	Up, Hairpin   bool
	Isolated      bool   // as a port of a bridge
	Mode          uint32 // of a macvlan or ipvlan: MACVLAN_MODE_* or IPVLAN_MODE_* of linux/if_link.h
	Flags         uint32 // of an ipvlan: IPVLAN_F_*
	VLAN          int    // of a vlan: its number
	MTU           int
	NoIPv6        bool // disable_ipv6
	AcceptRA      bool // believes router advertisements, if it has IPv6
	Addresses     []netip.Prefix
}

// RouteState is a route as it is, of IPv4 or IPv6.
type RouteState struct {
	Destination netip.Prefix
	Via         netip.Addr
	Link        int // index
	Table       uint32
	Protocol    byte // who made it: RTPROT_*
	Type        byte // RTN_*
}

// Look lists links with their addresses, and routes, of the namespace that a descriptor stands for, or of this thread's where it
// is negative.
func Look(netns int) ([]LinkState, []RouteState, error) {
	c, err := dialAt(netns)
	if err != nil {
		return nil, nil, err
	}
	defer c.Close()
	var links []LinkState
	var r request
	r.message(unix.RTM_GETLINK, unix.NLM_F_DUMP, ifinfo(0, 0, 0)...)
	r.u32(unix.IFLA_EXT_MASK, skipStats)
	if err := c.dump(&r, func() { links = links[:0] }, func(_ uint16, body []byte) error {
		if l, ok := parseLink(body); ok {
			links = append(links, moreOfLink(l, body))
		}
		return nil
	}); err != nil {
		return nil, nil, fmt.Errorf("links: %w", err)
	}
	r = request{}
	r.message(unix.RTM_GETADDR, unix.NLM_F_DUMP, make([]byte, unix.SizeofIfAddrmsg)...)
	// Addresses come in a second answer. A repeated dump must not add them twice.
	if err := c.dump(&r, func() {
		for i := range links {
			links[i].Addresses = nil
		}
	}, func(_ uint16, body []byte) error {
		index, p := anyAddress(body)
		for i := range links {
			if links[i].Index == index && p.IsValid() {
				links[i].Addresses = append(links[i].Addresses, p)
			}
		}
		return nil
	}); err != nil {
		return nil, nil, fmt.Errorf("addresses: %w", err)
	}
	var routes []RouteState
	r = request{}
	r.message(unix.RTM_GETROUTE, unix.NLM_F_DUMP, make([]byte, unix.SizeofRtMsg)...)
	if err := c.dump(&r, func() { routes = routes[:0] }, func(_ uint16, body []byte) error {
		if rt, ok := anyRoute(body); ok {
			routes = append(routes, rt)
		}
		return nil
	}); err != nil {
		return nil, nil, fmt.Errorf("routes: %w", err)
	}
	return links, routes, nil
}

func moreOfLink(l Link, body []byte) LinkState {
	s := LinkState{Index: l.Index, Master: l.master, Name: l.Name, Kind: l.Kind, Up: l.Up, MTU: l.MTU}
	for typ, data := range attrs(body[unix.SizeofIfInfomsg:]) {
		switch typ {
		case unix.IFLA_ADDRESS:
			s.MAC = strings.ReplaceAll(fmt.Sprintf("% x", data), " ", ":")
		case unix.IFLA_LINK:
			s.Peer = int(nativeU32(data))
		case unix.IFLA_AF_SPEC:
			for family, data := range attrs(data) {
				if family == unix.AF_INET6 {
					s.ipv6(data)
				}
			}
		case unix.IFLA_LINKINFO:
			s.info(data)
		}
	}
	return s
}

// info reads what is told of a link by its driver, and by that of the bridge whose port it is.
func (s *LinkState) info(data []byte) {
	for typ, data := range attrs(data) {
		switch typ {
		case unix.IFLA_INFO_DATA:
			for typ, data := range attrs(data) {
				switch {
				case typ == macvlanMode && s.Kind == "macvlan":
					s.Mode = nativeU32(data)
				case typ == ipvlanMode && s.Kind == "ipvlan" && len(data) >= 2:
					s.Mode = uint32(binary.NativeEndian.Uint16(data))
				case typ == ipvlanFlags && s.Kind == "ipvlan" && len(data) >= 2:
					s.Flags = uint32(binary.NativeEndian.Uint16(data))
				case typ == vlanID && s.Kind == "vlan" && len(data) >= 2:
					s.VLAN = int(binary.NativeEndian.Uint16(data))
				}
			}
		case unix.IFLA_INFO_SLAVE_DATA:
			for typ, data := range attrs(data) {
				if len(data) == 0 {
					continue
				}
				switch typ {
				case unix.IFLA_BRPORT_MODE:
					s.Hairpin = data[0] != 0
				case unix.IFLA_BRPORT_ISOLATED:
					s.Isolated = data[0] != 0
				}
			}
		}
	}
}

// ipv6 reads a link's settings of IPv6: IFLA_INET6_CONF of linux/if_link.h is the array of all of them, numbered in linux/ipv6.h.
func (s *LinkState) ipv6(data []byte) {
	const (
		conf        = 2  // IFLA_INET6_CONF
		acceptRA    = 3  // DEVCONF_ACCEPT_RA
		disableIPv6 = 26 // DEVCONF_DISABLE_IPV6
	)
	for typ, data := range attrs(data) {
		if typ == conf && len(data) >= 4*(disableIPv6+1) {
			s.AcceptRA, s.NoIPv6 = nativeU32(data[4*acceptRA:]) != 0, nativeU32(data[4*disableIPv6:]) != 0
		}
	}
}

func anyAddress(body []byte) (index int, p netip.Prefix) {
	if len(body) < unix.SizeofIfAddrmsg {
		return 0, p
	}
	var local, address netip.Addr
	for typ, data := range attrs(body[unix.SizeofIfAddrmsg:]) {
		a, ok := netip.AddrFromSlice(data)
		switch {
		case !ok:
		case typ == unix.IFA_LOCAL:
			local = a
		case typ == unix.IFA_ADDRESS:
			address = a
		}
	}
	// On a cable with two ends ADDRESS is the other end's, and LOCAL is our own (rtnetlink(7)). IPv6 has ADDRESS alone.
	if !local.IsValid() {
		local = address
	}
	return int(nativeU32(body[4:])), netip.PrefixFrom(local, int(body[1]))
}

func anyRoute(body []byte) (RouteState, bool) {
	if len(body) < unix.SizeofRtMsg {
		return RouteState{}, false
	}
	r := RouteState{Table: uint32(body[4]), Protocol: body[5], Type: body[7]}
	dst := netip.IPv4Unspecified()
	if body[0] == unix.AF_INET6 {
		dst = netip.IPv6Unspecified()
	} else if body[0] != unix.AF_INET {
		return r, false
	}
	for typ, data := range attrs(body[unix.SizeofRtMsg:]) {
		switch typ {
		case unix.RTA_DST:
			if a, ok := netip.AddrFromSlice(data); ok {
				dst = a
			}
		case unix.RTA_GATEWAY:
			r.Via, _ = netip.AddrFromSlice(data)
		case unix.RTA_TABLE:
			r.Table = nativeU32(data)
		case unix.RTA_OIF:
			r.Link = int(nativeU32(data))
		}
	}
	r.Destination = netip.PrefixFrom(dst, int(body[1]))
	return r, r.Destination.IsValid()
}

// RuleState is a rule of the firewall as it is.
type RuleState struct {
	Family                uint8 // NFPROTO_*
	Table, Chain, Comment string
	Handle                uint64
	expressions           []byte
	text                  string // that it was made from, if that is known: see Ruleset.Name
}

func (r RuleState) String() string {
	if r.text != "" {
		return r.text
	}
	s := fmt.Sprintf("rule %d of chain %s in table %s %s", r.Handle, r.Chain, familyWord(r.Family), r.Table)
	if r.Comment != "" {
		s += fmt.Sprintf(" (%q)", r.Comment)
	}
	return s
}

// Names reports whether a rule holds the bytes of an IPv4 address.
// Looked for in the bytes, as an address can be in a comparison, a range or a value of translation.
func (r RuleState) Names(a netip.Addr) bool {
	b := a.As4()
	return bytes.Contains(r.expressions, b[:])
}

// Firewall lists the rules of all tables of this thread's network namespace.
func Firewall() ([]RuleState, error) {
	c, err := Dial(unix.NETLINK_NETFILTER)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	return c.rules(0, "")
}

// rules lists the rules of a table of a family, or of all tables.
func (c *Conn) rules(family byte, table string) ([]RuleState, error) {
	var out []RuleState
	var r request
	// NFPROTO_UNSPEC lists all families in one answer.
	r.message(nftType(unix.NFT_MSG_GETRULE), unix.NLM_F_DUMP, unix.NFPROTO_UNSPEC, unix.NFNETLINK_V0, 0, 0)
	if table != "" {
		r = request{family: family}
		r.nft(unix.NFT_MSG_GETRULE, unix.NLM_F_DUMP)
		r.str(unix.NFTA_RULE_TABLE, table)
	}
	err := c.dump(&r, func() { out = out[:0] }, func(_ uint16, body []byte) error {
		if rule, ok := parseRule(body); ok && (table == "" || rule.Table == table && rule.Family == family) {
			out = append(out, rule)
		}
		return nil
	})
	// A table that isn't there has no rules.
	if errors.Is(err, unix.ENOENT) {
		return nil, nil
	}
	return out, err
}

func parseRule(body []byte) (RuleState, bool) {
	if len(body) < 4 {
		return RuleState{}, false
	}
	r := RuleState{Family: body[0]}
	for typ, data := range attrs(body[4:]) {
		switch typ {
		case unix.NFTA_RULE_TABLE:
			r.Table = cstring(data)
		case unix.NFTA_RULE_CHAIN:
			r.Chain = cstring(data)
		case unix.NFTA_RULE_HANDLE:
			if len(data) == 8 {
				r.Handle = binary.BigEndian.Uint64(data)
			}
		case unix.NFTA_RULE_EXPRESSIONS:
			r.expressions = bytes.Clone(data)
		case unix.NFTA_RULE_USERDATA: // type, length, comment with its NUL
			if len(data) > 2 && data[0] == 0 && int(data[1]) <= len(data)-2 {
				r.Comment = cstring(data[2 : 2+int(data[1])])
			}
		}
	}
	return r, r.Chain != ""
}

// TableState is how far a bridge's table is what a plan asked for.
type TableState struct {
	Exists  bool
	Missing []string // lines of the plan's rules that aren't there, or not as asked
	Extra   []string // what is there and not in the plan
}

// LookTable compares a bridge's table with the rules of a plan.
func LookTable(op *plan.NftBridge) (*TableState, error) {
	if err := CheckTable(op.Table); err != nil {
		return nil, err
	}
	c, err := Dial(unix.NETLINK_NETFILTER)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	return c.lookTables(op.Table, op.Rules, unix.NFPROTO_IPV4, unix.NFPROTO_IPV6, unix.NFPROTO_BRIDGE)
}

// lookTables compares the tables of one name. A step's lines are about several families, and a table of each is another table; the first
// one is looked at in any case.
func (c *Conn) lookTables(table string, rules []string, families ...byte) (*TableState, error) {
	s := &TableState{}
	for i, family := range families {
		var lines []string
		for _, line := range rules {
			if w := tokens(line); len(w) > 2 && w[2] == familyWord(family) {
				lines = append(lines, line)
			}
		}
		if i == 0 || len(lines) > 0 {
			if err := s.compare(c, family, table, lines); err != nil {
				return nil, err
			}
		}
	}
	return s, nil
}

// compare looks at the table of one family.
func (s *TableState) compare(c *Conn, family byte, table string, lines []string) error {
	rules, err := c.rules(family, table)
	if err != nil {
		return fmt.Errorf("rules: %w", err)
	}
	chains, err := c.objects(unix.NFT_MSG_GETCHAIN, family, table, unix.NFTA_CHAIN_TABLE, unix.NFTA_CHAIN_NAME)
	if err != nil {
		return fmt.Errorf("chains: %w", err)
	}
	sets, err := c.objects(unix.NFT_MSG_GETSET, family, table, unix.NFTA_SET_TABLE, unix.NFTA_SET_NAME)
	if err != nil {
		return fmt.Errorf("sets: %w", err)
	}
	s.Exists = s.Exists || len(chains)+len(sets)+len(rules) > 0
	used := make([]bool, len(rules))
	next := map[string]int{} // by chain: where its next rule may stand
	for _, line := range lines {
		var r request
		if err := r.compile(table, []string{line}); err != nil {
			return err
		}
		r.finish()
		found := true
		err := parse(r.b, func(m message) error {
			switch m.typ {
			case nftType(unix.NFT_MSG_NEWRULE):
				want, _ := parseRule(m.body)
				found = false
				// In their order: a rule that stands before another one it should follow may decide first.
				for i := next[want.Chain]; i < len(rules) && !found; i++ {
					if rules[i].Chain == want.Chain && sameList(want.expressions, rules[i].expressions) {
						found, used[i], next[want.Chain] = true, true, i+1
					}
				}
			case nftType(unix.NFT_MSG_NEWCHAIN):
				found = takeObject(chains, unix.NFTA_CHAIN_NAME, m.body)
			case nftType(unix.NFT_MSG_NEWSET):
				found = takeObject(sets, unix.NFTA_SET_NAME, m.body)
			}
			return nil
		})
		if err != nil {
			return err
		}
		if !found {
			s.Missing = append(s.Missing, line)
		}
	}
	for i, r := range rules {
		if !used[i] {
			s.Extra = append(s.Extra, r.String())
		}
	}
	for name, o := range chains {
		if !o.used {
			s.Extra = append(s.Extra, "chain "+name)
		}
	}
	for name, o := range sets {
		if !o.used {
			s.Extra = append(s.Extra, "set "+name)
		}
	}
	return nil
}

// object is a chain or a set.
type object struct {
	body []byte
	used bool
}

func (c *Conn) objects(msg uint16, family byte, table string, tableAttr, nameAttr uint16) (map[string]*object, error) {
	out := map[string]*object{}
	r := request{family: family}
	r.nft(msg, unix.NLM_F_DUMP)
	if msg == unix.NFT_MSG_GETSET {
		r.str(unix.NFTA_SET_TABLE, table)
	}
	err := c.dump(&r, func() { clear(out) }, func(_ uint16, body []byte) error {
		if len(body) < 4 || body[0] != family {
			return nil
		}
		name, ours := "", false
		for typ, data := range attrs(body[4:]) {
			switch typ {
			case tableAttr:
				ours = cstring(data) == table
			case nameAttr:
				name = cstring(data)
			}
		}
		if ours && name != "" {
			out[name] = &object{body: bytes.Clone(body)}
		}
		return nil
	})
	if errors.Is(err, unix.ENOENT) {
		return nil, nil
	}
	return out, err
}

// takeObject looks for an object that has what the request for it asks for.
func takeObject(objects map[string]*object, nameAttr uint16, want []byte) bool {
	for typ, data := range attrs(want[4:]) {
		if typ != nameAttr {
			continue
		}
		o := objects[cstring(data)]
		if o == nil {
			return false
		}
		o.used = true
		// A chain that was made without a policy accepts; one that drops is what an intruder would make of it.
		policy := uint32(1) // NF_ACCEPT
		for typ, data := range attrs(o.body[4:]) {
			if nameAttr == unix.NFTA_CHAIN_NAME && typ == unix.NFTA_CHAIN_POLICY && len(data) == 4 {
				policy = binary.BigEndian.Uint32(data)
			}
		}
		// A set's number is that of the transaction that made it.
		number := func(typ uint16) bool { return nameAttr == unix.NFTA_SET_NAME && typ == unix.NFTA_SET_ID }
		return policy == 1 && hasAll(want[4:], o.body[4:], number)
	}
	return false
}

// sameList compares the expressions of two rules: as many, with the same names, and what the first ones say the second ones say,
// too. The kernel tells more than it was asked for, such as the second of two registers that are the same.
func sameList(want, have []byte) bool {
	w, h := elements(want), elements(have)
	if len(w) != len(h) {
		return false
	}
	for i := range w {
		if !hasAll(w[i], h[i], nil) {
			return false
		}
	}
	return true
}

func elements(list []byte) [][]byte {
	var out [][]byte
	for _, data := range attrs(list) {
		out = append(out, data)
	}
	return out
}

// hasAll reports whether have holds every attribute of want, with the same value.
func hasAll(want, have []byte, skip func(uint16) bool) bool {
	for typ, w := range attrs(want) {
		if skip != nil && skip(typ) {
			continue
		}
		found := false
		// An attribute can be there more than once, such as the elements of a list.
		for t, h := range attrs(have) {
			found = found || t == typ && (bytes.Equal(w, h) || nests(w) && nests(h) && hasAll(w, h, nil))
		}
		if !found {
			return false
		}
	}
	return true
}

// nests reports whether data is a list of attributes and nothing else.
func nests(data []byte) bool {
	n := 0
	for _, d := range attrs(data) {
		n += align(4 + len(d))
	}
	return len(data) >= 4 && n == align(len(data))
}

// Published lists the ports that a table's maps hold.
func Published(table string) ([]plan.PortRule, error) {
	if err := CheckTable(table); err != nil {
		return nil, err
	}
	c, err := Dial(unix.NETLINK_NETFILTER)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	var out []plan.PortRule
	all, err := c.portElements(table)
	for _, e := range all {
		if p, ok := e.port(); ok {
			out = append(out, p)
		}
	}
	return out, err
}

// port is the opposite of portElement.
func (e element) port() (plan.PortRule, bool) {
	var p plan.PortRule
	key, n := e.key, e.addressSize()
	if e.set == MapOn {
		if len(key) < n {
			return p, false
		}
		on, _ := netip.AddrFromSlice(key[:n])
		p.HostIP, key = on.String(), key[n:]
	}
	if len(key) < 6 || len(e.value) < n+2 {
		return p, false
	}
	switch key[0] {
	case unix.IPPROTO_TCP:
		p.Proto = "tcp"
	case unix.IPPROTO_UDP:
		p.Proto = "udp"
	case unix.IPPROTO_SCTP:
		p.Proto = "sctp"
	default:
		p.Proto = fmt.Sprint(key[0])
	}
	p.HostPort = binary.BigEndian.Uint16(key[4:])
	to, _ := netip.AddrFromSlice(e.value[:n])
	p.ContainerIP, p.ContainerPort = to.String(), binary.BigEndian.Uint16(e.value[n:])
	return p, true
}
