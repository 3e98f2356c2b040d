package wire

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// What chains see of a packet's headers, and those chains that see frames.

// JudgeDevice gives a frame to the chains of family netdev on a device: those that see what comes out of the cable, or what goes into it.
func (rs *Ruleset) JudgeDevice(device string, in bool, p *Packet) Outcome {
	hook := uint32(1) // NF_NETDEV_EGRESS
	if in {
		hook = unix.NF_NETDEV_INGRESS
	}
	return rs.judge(rs.base(hook, func(c ChainState) bool { return c.Family == unix.NFPROTO_NETDEV && c.Device == device }), p, nil)
}

// JudgeBridge gives a frame to the chains of family bridge at a hook; p.In and p.Out are the bridge's ports.
func (rs *Ruleset) JudgeBridge(hook uint32, p *Packet) Outcome {
	return rs.judge(rs.base(hook, func(c ChainState) bool { return c.Family == unix.NFPROTO_BRIDGE }), p, nil)
}

// kind is the packet's ethertype.
func (p *Packet) kind() uint16 {
	switch {
	case p.Dst.Is6():
		return unix.ETH_P_IPV6
	case p.Asked.IsValid():
		return unix.ETH_P_ARP
	}
	return unix.ETH_P_IP
}

// headers builds those of the packet, as far as rules look at them.
func (j *judge) headers() {
	if j.network != nil {
		return
	}
	mac, err := parseMAC(j.p.SrcMAC)
	if err != nil {
		mac = make([]byte, 6)
	}
	j.frame = binary.BigEndian.AppendUint16(slices.Concat(make([]byte, 6), mac), j.p.kind())
	switch {
	case j.p.kind() == unix.ETH_P_ARP: // RFC 826: a request
		src, asked := j.p.Src.As4(), j.p.Asked.As4()
		j.network = slices.Concat([]byte{0, 1, 8, 0, 6, 4, 0, 1}, mac, src[:], make([]byte, 6), asked[:])
		j.trans = nil
		return
	case j.p.Dst.Is6():
		src, dst := j.p.Src.As16(), j.p.Dst.As16()
		j.network = slices.Concat([]byte{0x60, 0, 0, 0, 0, 20, j.p.Proto, 64}, src[:], dst[:])
	default:
		src, dst := j.p.Src.As4(), j.p.Dst.As4()
		j.network = slices.Concat([]byte{0x45, 0, 0, 40, 0, 0, 0x40, 0, 64, j.p.Proto, 0, 0}, src[:], dst[:])
	}
	if j.p.Proto == unix.IPPROTO_ICMP || j.p.Proto == unix.IPPROTO_ICMPV6 {
		j.trans = []byte{j.p.ICMPType, 0, 0, 0, 0, 0, 0, 0}
		if j.p.Asked.IsValid() { // RFC 4861: the target follows, and the option that says who asks
			asked := j.p.Asked.As16()
			j.trans = slices.Concat(j.trans, asked[:], []byte{1, 1}, mac)
		}
		return
	}
	j.trans = make([]byte, 20)
	binary.BigEndian.PutUint16(j.trans, j.p.SrcPort)
	binary.BigEndian.PutUint16(j.trans[2:], j.p.DstPort)
	j.trans[12], j.trans[13] = 0x50, 0x02 // SYN
	if j.p.Reply {
		j.trans[13] = 0x12 // SYN, ACK
	}
}

// remember puts a key into a set, as far as this reading of the rules goes: the answer to a packet finds what the packet has left.
func (j *judge) remember(r *RuleState, a map[uint16][]byte) (int, bool) {
	const setName, operation, key, deletes = 1, 3, 4, 2 // NFTA_DYNSET_*, NFT_DYNSET_OP_DELETE
	s, err := j.rs.set(r.Family, r.Table, cstring(a[setName]))
	reg := j.register(bigU32(a[key]))
	if err != nil || reg == nil || s.keyLen > len(reg) || bigU32(a[operation]) == deletes {
		return 0, false
	}
	if _, there := s.find(reg); !there {
		s.elements = append(s.elements, setElement{key: bytes.Clone(reg[:s.keyLen])})
	}
	return verdictContinue, true
}

// Name gives those rules their text that were made from lines of nft(8): a reader knows them by it.
func (rs *Ruleset) Name(lines []string) {
	for _, line := range lines {
		w := tokens(line)
		if len(w) < 5 || w[1] != "rule" {
			continue
		}
		family, err := familyNumber(w[2])
		if err != nil {
			continue
		}
		r := request{family: family}
		if err := r.compile(w[3], []string{line}); err != nil {
			continue
		}
		r.finish()
		have := rs.rules[chainKey{family, w[3], w[4]}]
		_ = parse(r.b, func(m message) error {
			want, _ := parseRule(m.body)
			for i := range have {
				if have[i].text == "" && sameList(want.expressions, have[i].expressions) {
					have[i].text = fmt.Sprintf("%s %s %s: %s", w[2], w[3], w[4], strings.Join(w[5:], " "))
					break
				}
			}
			return nil
		})
	}
}
