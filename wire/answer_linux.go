package wire

import (
	"encoding/binary"
	"encoding/hex"
	"net/netip"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// field is one of a packet that a rule changes.
type field struct {
	words             []string
	base, offset, len uint32
	sum               byte // whose checksum changes with it
}

const (
	noSum     = iota
	ownSum    // of the header of ICMPv6 that the field is in
	pseudoSum // of TCP, UDP and ICMPv6, which an address is part of (RFC 8200, 8.1)
)

// fields are those of a question of ARP or of neighbour discovery by which it becomes its answer.
func fields() []field {
	return []field{
		{[]string{"ether", "daddr", "set"}, unix.NFT_PAYLOAD_LL_HEADER, 0, 6, noSum},
		{[]string{"ether", "saddr", "set"}, unix.NFT_PAYLOAD_LL_HEADER, 6, 6, noSum},
		{[]string{"arp", "operation", "set"}, unix.NFT_PAYLOAD_NETWORK_HEADER, 6, 2, noSum},
		{[]string{"arp", "saddr", "ether", "set"}, unix.NFT_PAYLOAD_NETWORK_HEADER, 8, 6, noSum},
		{[]string{"arp", "saddr", "ip", "set"}, unix.NFT_PAYLOAD_NETWORK_HEADER, 14, 4, noSum},
		{[]string{"arp", "daddr", "ether", "set"}, unix.NFT_PAYLOAD_NETWORK_HEADER, 18, 6, noSum},
		{[]string{"arp", "daddr", "ip", "set"}, unix.NFT_PAYLOAD_NETWORK_HEADER, 24, 4, noSum},
		{[]string{"ip6", "saddr", "set"}, unix.NFT_PAYLOAD_NETWORK_HEADER, 8, 16, pseudoSum},
		{[]string{"ip6", "daddr", "set"}, unix.NFT_PAYLOAD_NETWORK_HEADER, 24, 16, pseudoSum},
		{[]string{"icmpv6", "type", "set"}, unix.NFT_PAYLOAD_TRANSPORT_HEADER, 0, 1, ownSum},
		{[]string{"@th,32,32", "set"}, unix.NFT_PAYLOAD_TRANSPORT_HEADER, 4, 4, ownSum},   // flags
		{[]string{"@th,192,8", "set"}, unix.NFT_PAYLOAD_TRANSPORT_HEADER, 24, 1, ownSum},  // an option's number
		{[]string{"@th,208,48", "set"}, unix.NFT_PAYLOAD_TRANSPORT_HEADER, 26, 6, ownSum}, // and what it says
	}
}

// netdevAnswer compiles what turns a question of ARP or of neighbour discovery into its answer: "FIELD set VALUE", and "fwd to meta iif",
// which sends the frame back out of the device that it came from.
func (r *request) netdevAnswer(w []string) (rest []string, done bool, err error) {
	if rest, ok := take(w, "fwd", "to", "meta", "iif"); ok {
		r.meta(unix.NFT_META_IIF, reg1)
		r.expr("fwd", func() { r.be32(unix.NFTA_FWD_SREG_DEV, reg1) })
		return rest, true, nil
	}
	if rest, ok := take(w, "@th,192,16", "0x0101"); ok { // an option with the asker's hardware address is there
		r.payload(unix.NFT_PAYLOAD_TRANSPORT_HEADER, 24, 2, reg1)
		r.cmp(unix.NFT_CMP_EQ, []byte{1, 1})
		return rest, true, nil
	}
	for _, f := range fields() {
		rest, ok := take(w, f.words...)
		if !ok || len(rest) == 0 {
			continue
		}
		if after, ok := take(rest, "arp", "daddr", "ip"); ok && f.len == 4 {
			r.payload(unix.NFT_PAYLOAD_NETWORK_HEADER, 24, 4, reg1)
			rest = after
		} else if after, ok := take(rest, "ip6", "saddr"); ok && f.len == 16 {
			r.addressField("ip6", "saddr", 16, reg1)
			rest = after
		} else if after, ok := take(rest, "icmpv6", "taddr"); ok && f.len == 16 {
			r.payload(unix.NFT_PAYLOAD_TRANSPORT_HEADER, 8, 16, reg1)
			rest = after
		} else {
			value, err := fieldValue(rest[0], f.len)
			if err != nil {
				return nil, true, err
			}
			r.expr("immediate", func() {
				r.be32(unix.NFTA_IMMEDIATE_DREG, reg1)
				r.value(unix.NFTA_IMMEDIATE_DATA, value)
			})
			rest = rest[1:]
		}
		r.expr("payload", func() {
			r.be32(unix.NFTA_PAYLOAD_SREG, reg1)
			r.be32(unix.NFTA_PAYLOAD_BASE, f.base)
			r.be32(unix.NFTA_PAYLOAD_OFFSET, f.offset)
			r.be32(unix.NFTA_PAYLOAD_LEN, f.len)
			switch f.sum {
			case ownSum:
				r.be32(unix.NFTA_PAYLOAD_CSUM_TYPE, unix.NFT_PAYLOAD_CSUM_INET)
				r.be32(unix.NFTA_PAYLOAD_CSUM_OFFSET, 2)
			case pseudoSum:
				// The header of IPv6 has none of its own.
				r.be32(unix.NFTA_PAYLOAD_CSUM_FLAGS, unix.NFT_PAYLOAD_L4CSUM_PSEUDOHDR)
			}
		})
		return rest, true, nil
	}
	return nil, false, nil
}

// fieldValue reads what a field becomes: an address, a number, or that of the answer's kind.
func fieldValue(word string, size uint32) ([]byte, error) {
	if digits, ok := strings.CutPrefix(word, "0x"); ok {
		value, err := hex.DecodeString(digits)
		if err != nil || uint32(len(value)) != size {
			return nil, errSyntax
		}
		return value, nil
	}
	switch size {
	case 1:
		if word != "nd-neighbor-advert" {
			return nil, errSyntax
		}
		return []byte{136}, nil
	case 2:
		if word != "reply" {
			return nil, errSyntax
		}
		return binary.BigEndian.AppendUint16(nil, 2), nil // ARPOP_REPLY
	case 6:
		return parseMAC(word)
	}
	a, err := netip.ParseAddr(word)
	if err != nil || !a.Is4() || size != 4 {
		return nil, errSyntax
	}
	return slices.Clone(a.AsSlice()), nil
}
