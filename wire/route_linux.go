package wire

import (
	"encoding/binary"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"

	"glassbox/plan"
)

// Route is what we read of a route.
type Route struct {
	Destination netip.Prefix
	Table       uint32
	Type        byte
	Links       []int
}

func parseRoute(body []byte) (Route, bool) {
	if len(body) < unix.SizeofRtMsg || body[0] != unix.AF_INET && body[0] != unix.AF_INET6 {
		return Route{}, false
	}
	r := Route{Table: uint32(body[4]), Type: body[7]}
	dst := netip.IPv4Unspecified()
	if body[0] == unix.AF_INET6 {
		dst = netip.IPv6Unspecified()
	}
	for typ, data := range attrs(body[unix.SizeofRtMsg:]) {
		switch typ {
		case unix.RTA_DST:
			if a, ok := netip.AddrFromSlice(data); ok && a.Is4() == dst.Is4() {
				dst = a
			}
		// The field in the header has a byte. Tables above 255 are in this attribute.
		case unix.RTA_TABLE:
			r.Table = nativeU32(data)
		case unix.RTA_OIF:
			r.Links = append(r.Links, int(nativeU32(data)))
		case unix.RTA_MULTIPATH: // struct rtnexthop: len, flags, hops, ifindex
			for len(data) >= unix.SizeofRtNexthop {
				n := int(binary.NativeEndian.Uint16(data))
				if n < unix.SizeofRtNexthop || n > len(data) {
					break
				}
				r.Links = append(r.Links, int(nativeU32(data[4:])))
				data = data[min(align(n), len(data)):]
			}
		}
	}
	r.Destination = netip.PrefixFrom(dst, int(body[1]))
	return r, r.Destination.IsValid()
}

// Routes lists the IPv4 routes of all tables.
func (c *Conn) Routes() ([]Route, error) { return c.routes(unix.AF_INET) }

// Routes6 lists those of IPv6.
func (c *Conn) Routes6() ([]Route, error) { return c.routes(unix.AF_INET6) }

func (c *Conn) routes(family byte) ([]Route, error) {
	var out []Route
	var r request
	r.message(unix.RTM_GETROUTE, unix.NLM_F_DUMP, append([]byte{family}, make([]byte, unix.SizeofRtMsg-1)...)...)
	err := c.dump(&r, func() { out = out[:0] }, func(_ uint16, body []byte) error {
		if rt, ok := parseRoute(body); ok {
			out = append(out, rt)
		}
		return nil
	})
	return out, err
}

func (w *Executor) route(op *plan.RouteDefault) error {
	c, err := w.childConn()
	if err != nil {
		return err
	}
	return c.defaultRoute(op, w.links[op.Link])
}

func (c *Conn) defaultRoute(op *plan.RouteDefault, index int) error {
	var a []byte
	family, scope := byte(unix.AF_INET), byte(unix.RT_SCOPE_LINK)
	if op.Via != "" {
		via, err := netip.ParseAddr(op.Via)
		if err != nil {
			return fmt.Errorf("via %q: want an IP address", op.Via)
		}
		a, scope = via.AsSlice(), unix.RT_SCOPE_UNIVERSE
	}
	if op.Is6() {
		family = unix.AF_INET6
	}
	// Not known: its address was given in an earlier start of the plan's steps.
	if index == 0 {
		l, err := c.Link(op.Link, 0)
		if err != nil {
			return err
		}
		index = l.Index
	}
	// EXCL: a second default route would be an error in the plan. Replaced is one on purpose, when a container changes its
	// networks.
	flags := uint16(unix.NLM_F_EXCL)
	if op.Replace {
		flags = unix.NLM_F_REPLACE
	}
	var r request
	r.message(unix.RTM_NEWROUTE, unix.NLM_F_ACK|unix.NLM_F_CREATE|flags,
		family, 0, 0, 0, unix.RT_TABLE_MAIN, unix.RTPROT_BOOT, scope, unix.RTN_UNICAST, 0, 0, 0, 0)
	if a != nil {
		r.attr(unix.RTA_GATEWAY, a...)
	}
	r.u32(unix.RTA_OIF, uint32(index))
	return c.do(&r, nil)
}
