package wire

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"
)

// Families are nft(8)'s words for families of tables.
const (
	FamilyIP     = "ip"
	FamilyIP6    = "ip6"
	FamilyInet   = "inet"
	FamilyBridge = "bridge"
)

// familyNumber gives the kernel's number of a family: NFPROTO_*.
func familyNumber(word string) (byte, error) {
	switch word {
	case FamilyIP, "":
		return unix.NFPROTO_IPV4, nil
	case FamilyIP6:
		return unix.NFPROTO_IPV6, nil
	case FamilyInet:
		return unix.NFPROTO_INET, nil
	case FamilyBridge:
		return unix.NFPROTO_BRIDGE, nil
	case FamilyNetdev:
		return unix.NFPROTO_NETDEV, nil
	}
	return 0, fmt.Errorf("family %q: want ip, ip6, inet, bridge or netdev", word)
}

func familyWord(number byte) string {
	switch number {
	case unix.NFPROTO_IPV4:
		return FamilyIP
	case unix.NFPROTO_IPV6:
		return FamilyIP6
	case unix.NFPROTO_INET:
		return FamilyInet
	case unix.NFPROTO_BRIDGE:
		return FamilyBridge
	case unix.NFPROTO_ARP:
		return "arp"
	case unix.NFPROTO_NETDEV:
		return FamilyNetdev
	}
	return fmt.Sprint(number)
}

// ChainState is a chain as it is.
type ChainState struct {
	Family      byte // NFPROTO_*
	Table, Name string
	Base        bool   // the kernel gives packets to it
	Type        string // of a base chain: filter, nat, route
	Hook        uint32 // NF_INET_*
	Priority    int32
	Drops       bool   // its policy
	Device      string // of family netdev: whose frames it sees
}

func (c ChainState) String() string { return familyWord(c.Family) + " " + c.Table + " " + c.Name }

// FamilyName is nft's word for the family of the chain's table.
func (c ChainState) FamilyName() string { return familyWord(c.Family) }

func parseChain(body []byte) (ChainState, bool) {
	if len(body) < 4 {
		return ChainState{}, false
	}
	c := ChainState{Family: body[0]}
	for typ, data := range attrs(body[4:]) {
		switch typ {
		case unix.NFTA_CHAIN_TABLE:
			c.Table = cstring(data)
		case unix.NFTA_CHAIN_NAME:
			c.Name = cstring(data)
		case unix.NFTA_CHAIN_TYPE:
			c.Type = cstring(data)
		case unix.NFTA_CHAIN_POLICY:
			c.Drops = bigU32(data) == 0
		case unix.NFTA_CHAIN_HOOK:
			c.Base = true
			for typ, data := range attrs(data) {
				switch typ {
				case unix.NFTA_HOOK_HOOKNUM:
					c.Hook = bigU32(data)
				case unix.NFTA_HOOK_PRIORITY:
					c.Priority = int32(bigU32(data))
				case unix.NFTA_HOOK_DEV:
					c.Device = cstring(data)
				}
			}
		}
	}
	return c, c.Name != ""
}

func bigU32(b []byte) uint32 {
	if len(b) < 4 {
		return 0
	}
	return binary.BigEndian.Uint32(b)
}

// Chains lists the chains of all tables.
func (c *Conn) Chains() ([]ChainState, error) {
	var out []ChainState
	var r request
	r.message(nftType(unix.NFT_MSG_GETCHAIN), unix.NLM_F_DUMP, unix.NFPROTO_UNSPEC, unix.NFNETLINK_V0, 0, 0)
	err := c.dump(&r, func() { out = out[:0] }, func(_ uint16, body []byte) error {
		if chain, ok := parseChain(body); ok {
			out = append(out, chain)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("list firewall chains: %w", err)
	}
	return out, nil
}

// A Ruleset is all that nf_tables does in a network namespace, as it was when it was read. Sets are read when a packet meets them.
type Ruleset struct {
	Chains []ChainState
	rules  map[chainKey][]RuleState
	sets   map[chainKey]*setState
	conn   *Conn
}

type chainKey struct {
	family      byte
	table, name string
}

// ReadRuleset reads the rules of this thread's network namespace. Close it.
func ReadRuleset() (*Ruleset, error) {
	c, err := Dial(unix.NETLINK_NETFILTER)
	if err != nil {
		return nil, err
	}
	chains, err := c.Chains()
	if err != nil {
		c.Close()
		return nil, err
	}
	return c.ruleset(chains)
}

// ruleset reads the rules of chains that are known already.
func (c *Conn) ruleset(chains []ChainState) (*Ruleset, error) {
	rs := &Ruleset{conn: c, Chains: chains, rules: map[chainKey][]RuleState{}, sets: map[chainKey]*setState{}}
	rules, err := c.rules(0, "")
	if err != nil {
		c.Close()
		return nil, fmt.Errorf("list firewall rules: %w", err)
	}
	// In the order of the list, which is the order of the rules in their chain.
	for _, r := range rules {
		k := chainKey{r.Family, r.Table, r.Chain}
		rs.rules[k] = append(rs.rules[k], r)
	}
	return rs, nil
}

// Close closes the socket.
func (rs *Ruleset) Close() {
	if rs != nil {
		rs.conn.Close()
	}
}

// ReadForeign reads the rules where somebody else has a chain at a hook; else it costs one question and returns nil.
func ReadForeign(hook uint32) (*Ruleset, error) {
	c, err := Dial(unix.NETLINK_NETFILTER)
	if err != nil {
		return nil, err
	}
	chains, err := c.Chains()
	rs := Ruleset{Chains: chains}
	if err != nil || !slices.ContainsFunc(chains, func(o ChainState) bool { return rs.Foreign(o, hook) }) {
		c.Close()
		return nil, err
	}
	return c.ruleset(chains)
}

// Foreign reports whether a chain is a filter of IP at a hook, and none of glassbox: those tables have a chain with their version.
func (rs *Ruleset) Foreign(c ChainState, hook uint32) bool {
	ip := c.Family == unix.NFPROTO_IPV4 || c.Family == unix.NFPROTO_IPV6 || c.Family == unix.NFPROTO_INET
	return c.Base && c.Hook == hook && ip && c.Type == "filter" && !slices.ContainsFunc(rs.Chains, func(o ChainState) bool {
		return o.Table == c.Table && o.Name == TagChain
	})
}

// Rules are those of a chain, in order.
func (rs *Ruleset) Rules(c ChainState) []RuleState {
	return rs.rules[chainKey{c.Family, c.Table, c.Name}]
}

// At are the base chains that a packet of a version of IP meets at a hook, in order.
func (rs *Ruleset) At(hook uint32, v6 bool) []ChainState {
	own := byte(unix.NFPROTO_IPV4)
	if v6 {
		own = unix.NFPROTO_IPV6
	}
	return rs.base(hook, func(c ChainState) bool { return c.Family == own || c.Family == unix.NFPROTO_INET })
}

// base are those base chains at a hook that are meant, in order.
func (rs *Ruleset) base(hook uint32, meant func(ChainState) bool) []ChainState {
	var out []ChainState
	for _, c := range rs.Chains {
		if c.Base && c.Hook == hook && meant(c) {
			out = append(out, c)
		}
	}
	// Stable: chains of one priority are met in the order in which they were made.
	slices.SortStableFunc(out, func(a, b ChainState) int { return int(a.Priority) - int(b.Priority) })
	return out
}

// setState is a set or map.
type setState struct {
	flags    uint32
	keyLen   int // bytes
	elements []setElement
}

type setElement struct {
	key, end, value []byte // end: of a range in a concatenation
	verdict         []byte
	last            bool // it ends a range
}

// set reads a set or map once.
func (rs *Ruleset) set(family byte, table, name string) (*setState, error) {
	k := chainKey{family, table, name}
	if s, ok := rs.sets[k]; ok {
		return s, nil
	}
	s := &setState{}
	ask := request{family: family}
	ask.nft(unix.NFT_MSG_GETSET, unix.NLM_F_ACK)
	ask.str(unix.NFTA_SET_TABLE, table)
	ask.str(unix.NFTA_SET_NAME, name)
	err := rs.conn.do(&ask, func(_ uint16, body []byte) error {
		if len(body) < 4 {
			return nil
		}
		for typ, data := range attrs(body[4:]) {
			switch typ {
			case unix.NFTA_SET_FLAGS:
				s.flags = bigU32(data)
			case unix.NFTA_SET_KEY_LEN:
				s.keyLen = int(bigU32(data))
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	list := request{family: family}
	list.nft(unix.NFT_MSG_GETSETELEM, unix.NLM_F_DUMP)
	list.str(unix.NFTA_SET_ELEM_LIST_TABLE, table)
	list.str(unix.NFTA_SET_ELEM_LIST_SET, name)
	err = rs.conn.dump(&list, func() { s.elements = s.elements[:0] }, func(_ uint16, body []byte) error {
		s.elements = append(s.elements, parseSetElements(body)...)
		return nil
	})
	if err != nil && !errors.Is(err, unix.ENOENT) {
		return nil, err
	}
	// Intervals are made of points, which find walks in order.
	slices.SortFunc(s.elements, func(a, b setElement) int { return bytes.Compare(a.key, b.key) })
	rs.sets[k] = s
	return s, nil
}

func parseSetElements(body []byte) []setElement {
	if len(body) < 4 {
		return nil
	}
	const keyEnd, intervalEnd = 10, 1 // NFTA_SET_ELEM_KEY_END, NFT_SET_ELEM_INTERVAL_END
	var out []setElement
	for typ, list := range attrs(body[4:]) {
		if typ != unix.NFTA_SET_ELEM_LIST_ELEMENTS {
			continue
		}
		for typ, elem := range attrs(list) {
			if typ != unix.NFTA_LIST_ELEM {
				continue
			}
			var e setElement
			for typ, data := range attrs(elem) {
				switch typ {
				case unix.NFTA_SET_ELEM_FLAGS:
					e.last = bigU32(data)&intervalEnd != 0
				case unix.NFTA_SET_ELEM_KEY:
					e.key = dataValue(data, unix.NFTA_DATA_VALUE)
				case keyEnd:
					e.end = dataValue(data, unix.NFTA_DATA_VALUE)
				case unix.NFTA_SET_ELEM_DATA:
					e.value, e.verdict = dataValue(data, unix.NFTA_DATA_VALUE), dataValue(data, unix.NFTA_DATA_VERDICT)
				}
			}
			out = append(out, e)
		}
	}
	return out
}

// dataValue is one attribute of struct nft_data.
func dataValue(data []byte, want uint16) []byte {
	for typ, v := range attrs(data) {
		if typ == want {
			return bytes.Clone(v)
		}
	}
	return nil
}

// find looks a key up.
func (s *setState) find(key []byte) (setElement, bool) {
	if s.flags&unix.NFT_SET_INTERVAL == 0 {
		for _, e := range s.elements {
			// A key of the set may be shorter than what the registers hold behind it.
			if len(e.key) <= len(key) && bytes.Equal(e.key, key[:len(e.key)]) && len(e.key) > 0 {
				return e, true
			}
		}
		return setElement{}, false
	}
	var at setElement
	found := false
	for _, e := range s.elements { // in order
		n := min(len(e.key), len(key))
		if e.end != nil { // a concatenation: each part of four bytes is a range of its own
			if within(e.key, e.end, key) {
				return e, true
			}
			continue
		}
		// A range's end that is also the next one's beginning comes in any order: the beginning counts.
		switch c := bytes.Compare(e.key[:n], key[:n]); {
		case c > 0:
			return at, found
		case c == 0 && e.last && found && bytes.Equal(at.key, e.key):
		case e.last:
			at, found = setElement{}, false
		default:
			at, found = e, true
		}
	}
	return at, found
}

func within(from, to, key []byte) bool {
	for i := 0; i+4 <= len(from) && i+4 <= len(to); i += 4 {
		if i+4 > len(key) || bytes.Compare(key[i:i+4], from[i:i+4]) < 0 || bytes.Compare(key[i:i+4], to[i:i+4]) > 0 {
			return false
		}
	}
	return true
}
