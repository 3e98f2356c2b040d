package wire

import (
	"encoding/binary"
	"fmt"

	"golang.org/x/sys/unix"
)

// Blocking lists the chains of other firewalls that drop forwarded packets by default, as "family table chain". What our table
// accepts they can still drop: in nf_tables "accept" ends one chain, "drop" ends all. Docker sets such a policy (ip filter
// FORWARD) when it was the one to switch forwarding on; firewalld and ufw may. It is the administrator's decision, so glassbox
// doesn't touch those tables but names them; see AllowCommands. Rules of iptables-legacy are not visible to nf_tables.
func Blocking() ([]string, error) {
	c, err := Dial(unix.NETLINK_NETFILTER)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	var out []string
	var r request
	r.message(nftType(unix.NFT_MSG_GETCHAIN), unix.NLM_F_DUMP, unix.NFPROTO_UNSPEC, unix.NFNETLINK_V0, 0, 0)
	err = c.dump(&r, func() { out = nil }, func(_ uint16, body []byte) error {
		if s := parseBlocking(body); s != "" {
			out = append(out, s)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("list firewall chains: %w", err)
	}
	return out, nil
}

func parseBlocking(body []byte) string {
	if len(body) < 4 {
		return ""
	}
	var table, name string
	hook, policy := uint32(unix.NF_INET_PRE_ROUTING), uint32(1)
	for typ, data := range attrs(body[4:]) {
		switch typ {
		case unix.NFTA_CHAIN_TABLE:
			table = cstring(data)
		case unix.NFTA_CHAIN_NAME:
			name = cstring(data)
		case unix.NFTA_CHAIN_POLICY:
			if len(data) == 4 {
				policy = binary.BigEndian.Uint32(data)
			}
		case unix.NFTA_CHAIN_HOOK:
			for typ, data := range attrs(data) {
				if typ == unix.NFTA_HOOK_HOOKNUM && len(data) == 4 {
					hook = binary.BigEndian.Uint32(data)
				}
			}
		}
	}
	// Other families (ip6, bridge, arp) see none of our packets, which are IPv4 and routed.
	family := map[byte]string{unix.NFPROTO_IPV4: "ip", unix.NFPROTO_INET: "inet"}[body[0]]
	if family == "" || hook != unix.NF_INET_FORWARD || policy != 0 {
		return ""
	}
	return family + " " + table + " " + name
}
