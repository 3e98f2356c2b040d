package wire

import (
	"encoding/binary"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"
)

// netdevAnswer compiles what turns a question of ARP into its answer: "FIELD set VALUE", and "fwd to meta iif", which sends the frame back
// out of the device that it came from.
func (r *request) netdevAnswer(w []string) (rest []string, done bool, err error) {
	if rest, ok := take(w, "fwd", "to", "meta", "iif"); ok {
		r.meta(unix.NFT_META_IIF, reg1)
		r.expr("fwd", func() { r.be32(unix.NFTA_FWD_SREG_DEV, reg1) })
		return rest, true, nil
	}
	for _, f := range []struct {
		words             []string
		base, offset, len uint32
	}{
		{[]string{"ether", "daddr", "set"}, unix.NFT_PAYLOAD_LL_HEADER, 0, 6},
		{[]string{"ether", "saddr", "set"}, unix.NFT_PAYLOAD_LL_HEADER, 6, 6},
		{[]string{"arp", "operation", "set"}, unix.NFT_PAYLOAD_NETWORK_HEADER, 6, 2},
		{[]string{"arp", "saddr", "ether", "set"}, unix.NFT_PAYLOAD_NETWORK_HEADER, 8, 6},
		{[]string{"arp", "saddr", "ip", "set"}, unix.NFT_PAYLOAD_NETWORK_HEADER, 14, 4},
		{[]string{"arp", "daddr", "ether", "set"}, unix.NFT_PAYLOAD_NETWORK_HEADER, 18, 6},
		{[]string{"arp", "daddr", "ip", "set"}, unix.NFT_PAYLOAD_NETWORK_HEADER, 24, 4},
	} {
		rest, ok := take(w, f.words...)
		if !ok || len(rest) == 0 {
			continue
		}
		if after, ok := take(rest, "arp", "daddr", "ip"); ok && f.len == 4 {
			r.payload(unix.NFT_PAYLOAD_NETWORK_HEADER, 24, 4, reg1)
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
		})
		return rest, true, nil
	}
	return nil, false, nil
}

// fieldValue reads what a field becomes: an address, or the number of ARP's answer.
func fieldValue(word string, size uint32) ([]byte, error) {
	switch size {
	case 2:
		if word != "reply" {
			return nil, errSyntax
		}
		return binary.BigEndian.AppendUint16(nil, 2), nil // ARPOP_REPLY
	case 6:
		return parseMAC(word)
	}
	a, err := netip.ParseAddr(word)
	if err != nil || !a.Is4() {
		return nil, errSyntax
	}
	return slices.Clone(a.AsSlice()), nil
}
