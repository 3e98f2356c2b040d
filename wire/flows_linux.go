package wire

import (
	"encoding/binary"
	"net/netip"

	"golang.org/x/sys/unix"

	"glassbox/plan"
)

// Address translation is decided by the first packet of a connection and remembered by conntrack. UDP has no connections: a
// client that goes on sending from the same port is the same flow for ever, and its packets keep going where they went before
// the port was published, or to the address of a container that is gone (moby/moby#8795). So flows are forgotten when a UDP
// port is published or unpublished, with messages of ctnetlink.

// Of linux/netfilter/nfnetlink_conntrack.h.
const (
	ctGet    = unix.NFNL_SUBSYS_CTNETLINK<<8 | 1
	ctDelete = unix.NFNL_SUBSYS_CTNETLINK<<8 | 2

	ctaTupleOrig, ctaTupleReply, ctaStatus, ctaZone, ctaFilter = 1, 2, 3, 18, 25

	ctaTupleIP, ctaTupleProto                    = 1, 2
	ctaIPSrc, ctaIP6Src                          = 1, 3
	ctaProtoNum, ctaProtoDst                     = 1, 3
	ctaFilterOrig, ctaFilterReply                = 1, 2
	filterSrc, filterProto, filterDstPort        = 1 << 0, 1 << 3, 1 << 5
	statusTranslated                      uint32 = 1<<4 | 1<<5 // IPS_SRC_NAT, IPS_DST_NAT
)

// forgetTo forgets the UDP flows that lead to a container.
func (c *Conn) forgetTo(ip netip.Addr) {
	a, source := ip.AsSlice(), uint16(ctaIPSrc)
	if ip.Is6() {
		source = ctaIP6Src
	}
	// Of the answers: the source of a reply is the container's address, whatever the question was sent to.
	c.forget(familyOf(ip), func(r *request) {
		r.nested(ctaTupleReply, func() {
			r.nested(ctaTupleIP, func() { r.attr(source, a...) })
			r.nested(ctaTupleProto, func() { r.attr(ctaProtoNum, unix.IPPROTO_UDP) })
		})
		r.nested(ctaFilter, func() {
			r.u32(ctaFilterOrig, 0)
			r.u32(ctaFilterReply, filterSrc|filterProto)
		})
	}, func([]byte, uint32) bool { return true })
}

// forgetPorts forgets the UDP flows to ports that were not translated. Translated ones lead to a container already, and are right. The
// kernel looks through all flows of the host each time, so that it is asked once: for one port it filters by it.
func (c *Conn) forgetPorts(family byte, ports map[uint16]bool) {
	c.forget(family, func(r *request) {
		filter := uint32(filterProto)
		r.nested(ctaTupleOrig, func() {
			r.nested(ctaTupleProto, func() {
				r.attr(ctaProtoNum, unix.IPPROTO_UDP)
				for port := range ports {
					if len(ports) == 1 {
						filter |= filterDstPort
						r.attr(ctaProtoDst, binary.BigEndian.AppendUint16(nil, port)...)
					}
				}
			})
		})
		r.nested(ctaFilter, func() {
			r.u32(ctaFilterOrig, filter)
			r.u32(ctaFilterReply, 0)
		})
	}, func(orig []byte, status uint32) bool {
		return status&statusTranslated == 0 && ports[destinationPort(orig)]
	})
}

// destinationPort is that of a flow's tuple; 0: it has none.
func destinationPort(tuple []byte) uint16 {
	for typ, data := range attrs(tuple) {
		if typ != ctaTupleProto {
			continue
		}
		for typ, data := range attrs(data) {
			if typ == ctaProtoDst && len(data) == 2 {
				return binary.BigEndian.Uint16(data)
			}
		}
	}
	return 0
}

// forget deletes the flows that the kernel's filter and match choose. (Deleting by a filter in one request needs Linux 6.10;
// listing by one, 5.8.) On a kernel without ctnetlink they stay until they expire, which is what happens everywhere else.
func (c *Conn) forget(family byte, filter func(*request), match func(orig []byte, status uint32) bool) {
	var list, remove request
	list.message(ctGet, unix.NLM_F_DUMP, nfgenOf(family, 0)...)
	filter(&list)
	err := c.dump(&list, func() { remove = request{} }, func(_ uint16, body []byte) error {
		if orig, zone, status := parseFlow(body); orig != nil && match(orig, status) {
			remove.message(ctDelete, unix.NLM_F_ACK, nfgenOf(family, 0)...)
			remove.attr(ctaTupleOrig|unix.NLA_F_NESTED, orig...)
			// A zone is part of a flow's identity: without it another flow would be deleted, or none.
			if zone != nil {
				remove.attr(ctaZone, zone...)
			}
		}
		return nil
	})
	if err == nil && remove.n > 0 {
		_ = c.do(&remove, nil) // one that has expired meanwhile is no error
	}
}

// familyOf is that of the tables that packets to an address meet.
func familyOf(ip netip.Addr) byte {
	if ip.Is6() {
		return unix.NFPROTO_IPV6
	}
	return unix.NFPROTO_IPV4
}

func parseFlow(body []byte) (orig, zone []byte, status uint32) {
	if len(body) < 4 {
		return nil, nil, 0
	}
	for typ, data := range attrs(body[4:]) {
		switch typ {
		case ctaTupleOrig:
			orig = data
		case ctaZone:
			zone = data
		case ctaStatus:
			if len(data) == 4 {
				status = binary.BigEndian.Uint32(data)
			}
		}
	}
	return orig, zone, status
}

// forgetPublished forgets what stands in the way of newly published UDP ports.
func (c *Conn) forgetPublished(ports []plan.PortRule) {
	byFamily := map[byte]map[uint16]bool{}
	for _, p := range ports {
		if p.Proto != "udp" {
			continue
		}
		to, _ := netip.ParseAddr(p.ContainerIP)
		family := familyOf(to)
		if byFamily[family] == nil {
			byFamily[family] = map[uint16]bool{}
		}
		byFamily[family][p.HostPort] = true
	}
	for family, ports := range byFamily {
		c.forgetPorts(family, ports)
	}
}

// forgetUnpublished forgets flows to containers whose UDP ports were unpublished.
func (c *Conn) forgetUnpublished(elements []element) {
	done := map[netip.Addr]bool{}
	for _, e := range elements {
		if ip, ok := e.containerIP(); ok && e.udp() && !done[ip] {
			done[ip] = true
			c.forgetTo(ip)
		}
	}
}
