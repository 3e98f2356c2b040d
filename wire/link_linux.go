package wire

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"glassbox/plan"
)

// Requests of rtnetlink(7) about links and their addresses; those about routes are in route_linux.go.

// ifinfo is struct ifinfomsg.
func ifinfo(index int, flags, change uint32) []byte {
	b := make([]byte, unix.SizeofIfInfomsg)
	binary.NativeEndian.PutUint32(b[4:], uint32(index))
	binary.NativeEndian.PutUint32(b[8:], flags)
	binary.NativeEndian.PutUint32(b[12:], change)
	return b
}

// Link is what we read of a link.
type Link struct {
	Index, master int
	Name, Kind    string
	Alias         string // what somebody wrote on it
	MAC           string // the six bytes
	Up            bool
	MTU           int
	operState     byte // IF_OPER_*
	portState     byte // of a bridge's port, BR_STATE_*
}

func parseLink(body []byte) (Link, bool) {
	if len(body) < unix.SizeofIfInfomsg {
		return Link{}, false
	}
	l := Link{
		Index: int(int32(binary.NativeEndian.Uint32(body[4:]))),
		Up:    binary.NativeEndian.Uint32(body[8:])&unix.IFF_UP != 0,
	}
	for typ, data := range attrs(body[unix.SizeofIfInfomsg:]) {
		switch typ {
		case unix.IFLA_IFNAME:
			l.Name = cstring(data)
		case unix.IFLA_ADDRESS:
			l.MAC = string(data)
		case unix.IFLA_IFALIAS:
			l.Alias = cstring(data)
		case unix.IFLA_MASTER:
			l.master = int(nativeU32(data))
		case unix.IFLA_MTU:
			l.MTU = int(nativeU32(data))
		case unix.IFLA_OPERSTATE:
			if len(data) > 0 {
				l.operState = data[0]
			}
		case unix.IFLA_LINKINFO:
			for typ, data := range attrs(data) {
				switch typ {
				case unix.IFLA_INFO_KIND:
					l.Kind = cstring(data)
				case unix.IFLA_INFO_SLAVE_DATA:
					for typ, data := range attrs(data) {
						if typ == unix.IFLA_BRPORT_STATE && len(data) > 0 {
							l.portState = data[0]
						}
					}
				}
			}
		}
	}
	return l, true
}

// skipStats is RTEXT_FILTER_SKIP_STATS of linux/rtnetlink.h: counters are most of an answer's size.
const skipStats = 1 << 3

// Link asks for a link by name, or by index where name is "".
func (c *Conn) Link(name string, index int) (Link, error) {
	var (
		r     request
		l     Link
		found bool
	)
	r.message(unix.RTM_GETLINK, unix.NLM_F_ACK, ifinfo(index, 0, 0)...)
	if name != "" {
		r.str(unix.IFLA_IFNAME, name)
	}
	// Counters of a link are some 200 bytes; of an answer to one question nobody needs them.
	r.u32(unix.IFLA_EXT_MASK, skipStats)
	err := c.do(&r, func(_ uint16, body []byte) error {
		l, found = parseLink(body)
		return nil
	})
	if err == nil && !found {
		err = errMalformed
	}
	return l, err
}

// Ports lists the links that are ports of a bridge.
func (c *Conn) Ports(master int) ([]Link, error) {
	var out []Link
	var r request
	r.message(unix.RTM_GETLINK, unix.NLM_F_DUMP, ifinfo(0, 0, 0)...)
	r.u32(unix.IFLA_EXT_MASK, skipStats)
	// The kernel filters by it since Linux 4.6; the answer is filtered again, because older ones send all.
	r.u32(unix.IFLA_MASTER, uint32(master))
	err := c.dump(&r, func() { out = out[:0] }, func(_ uint16, body []byte) error {
		if l, ok := parseLink(body); ok && l.master == master {
			out = append(out, l)
		}
		return nil
	})
	return out, err
}

// address is struct ifaddrmsg with the address.
func (r *request) address(typ, flags uint16, index int, p netip.Prefix) {
	if p.Addr().Is6() {
		a := p.Addr().As16()
		// Nobody else can have it: the guard of the bridge sees to that, and a container needn't wait a second to find it out.
		r.message(typ, flags, unix.AF_INET6, byte(p.Bits()), unix.IFA_F_NODAD, 0, 0, 0, 0, 0)
		binary.NativeEndian.PutUint32(r.b[len(r.b)-4:], uint32(index))
		r.attr(unix.IFA_ADDRESS, a[:]...)
		return
	}
	a := p.Addr().As4()
	r.message(typ, flags, unix.AF_INET, byte(p.Bits()), 0, 0, 0, 0, 0, 0)
	binary.NativeEndian.PutUint32(r.b[len(r.b)-4:], uint32(index))
	r.attr(unix.IFA_LOCAL, a[:]...)
	r.attr(unix.IFA_ADDRESS, a[:]...)
	if typ == unix.RTM_NEWADDR && p.Bits() < 31 {
		last := Broadcast(p).As4()
		r.attr(unix.IFA_BROADCAST, last[:]...)
	}
}

// Address is an address of a link, as it is.
type Address struct {
	Index  int
	Prefix netip.Prefix
}

// Addresses lists the IPv4 addresses of a link, of all links where index is 0.
func (c *Conn) Addresses(index int) ([]Address, error) { return c.addressesOf(unix.AF_INET, index) }

// addressesOf does the same of a family; of IPv6, those of global scope.
func (c *Conn) addressesOf(family byte, index int) ([]Address, error) {
	var out []Address
	var r request
	r.message(unix.RTM_GETADDR, unix.NLM_F_DUMP, family, 0, 0, 0, 0, 0, 0, 0)
	// The kernel takes the filter in the header since Linux 4.20 with NETLINK_GET_STRICT_CHK.
	binary.NativeEndian.PutUint32(r.b[len(r.b)-4:], uint32(index))
	err := c.dump(&r, func() { out = out[:0] }, func(_ uint16, body []byte) error {
		if a, ok := parseAddress(body); ok && (index == 0 || a.Index == index) {
			out = append(out, a)
		}
		return nil
	})
	return out, err
}

func parseAddress(body []byte) (Address, bool) {
	if len(body) < unix.SizeofIfAddrmsg || body[0] != unix.AF_INET && body[0] != unix.AF_INET6 {
		return Address{}, false
	}
	a := Address{Index: int(nativeU32(body[4:]))}
	// Every link of IPv6 has one of these, made by the kernel: it is none that a plan speaks of.
	if body[0] == unix.AF_INET6 {
		_, a.Prefix = anyAddress(body)
		return a, a.Prefix.IsValid() && !a.Prefix.Addr().IsLinkLocalUnicast()
	}
	for typ, data := range attrs(body[unix.SizeofIfAddrmsg:]) {
		if typ == unix.IFA_LOCAL && len(data) == 4 {
			a.Prefix = netip.PrefixFrom(netip.AddrFrom4([4]byte(data)), int(body[1]))
		}
	}
	return a, a.Prefix.IsValid()
}

// Forwarding gives the IPv4 forwarding switch of every link, by index, and the one for the whole host.
func (c *Conn) Forwarding() (all bool, dev map[int]bool, err error) {
	const (
		ifindex = 1 // NETCONFA_IFINDEX of linux/netconf.h
		value   = 2 // NETCONFA_FORWARDING
	)
	var r request
	r.message(unix.RTM_GETNETCONF, unix.NLM_F_DUMP, unix.AF_INET)
	err = c.dump(&r, func() { dev = map[int]bool{} }, func(_ uint16, body []byte) error {
		if len(body) < 4 {
			return nil
		}
		index, on := 0, false
		for typ, data := range attrs(body[4:]) {
			switch typ {
			case ifindex:
				index = int(int32(nativeU32(data)))
			case value:
				on = nativeU32(data) != 0
			}
		}
		// "default" (-2) is for interfaces to come, and decides nothing about those that are there.
		if index == -1 { // NETCONFA_IFINDEX_ALL
			all = on
		} else if index > 0 {
			dev[index] = on
		}
		return nil
	})
	return all, dev, err
}

// EnsureBridge makes the bridge, or makes an existing one what it should be, and returns its index. When nothing has changed it
// costs two questions.
func (c *Conn) EnsureBridge(op *plan.LinkBridge) (int, error) {
	wanted, err := bridgeAddresses(op)
	if err != nil {
		return 0, err
	}
	if err := CheckName(op.Name); err != nil {
		return 0, err
	}
	// Asked before it is made: a start finds its bridge but for the first one on the host.
	l, err := c.Link(op.Name, 0)
	if errors.Is(err, unix.ENODEV) {
		if err := c.MakeBridge(op, ""); err != nil && !errors.Is(err, unix.EEXIST) { // another start was faster
			return 0, err
		}
		l, err = c.Link(op.Name, 0)
	}
	if err != nil {
		return 0, err
	}
	if l.Kind != "bridge" {
		return 0, fmt.Errorf("a link of that name exists and is no bridge: %w", unix.EEXIST)
	}

	// Before the bridge is up: a bridge that has IPv6 for a moment has sent its neighbour discovery, and believed an advertisement.
	for _, s := range op.Sysctls {
		if err := setSysctl(s); err != nil {
			return 0, err
		}
	}
	have, err := c.Addresses(l.Index)
	if err == nil && op.Address6 != "" {
		var more []Address
		more, err = c.addressesOf(unix.AF_INET6, l.Index)
		have = append(have, more...)
	}
	if err != nil {
		return 0, fmt.Errorf("addresses: %w", err)
	}
	var r request
	for _, a := range have {
		if i := slices.Index(wanted, a.Prefix); i >= 0 {
			wanted = slices.Delete(wanted, i, i+1)
		} else { // of the subnet that the bridge had before
			r.address(unix.RTM_DELADDR, unix.NLM_F_ACK, l.Index, a.Prefix)
		}
	}
	for _, want := range wanted {
		r.address(unix.RTM_NEWADDR, unix.NLM_F_ACK|unix.NLM_F_CREATE|unix.NLM_F_REPLACE, l.Index, want)
	}
	if !l.Up {
		r.message(unix.RTM_NEWLINK, unix.NLM_F_ACK, ifinfo(l.Index, unix.IFF_UP, unix.IFF_UP)...)
	}
	if r.n == 0 {
		return l.Index, nil
	}
	// EADDRNOTAVAIL: an address that was to go is gone already.
	if err := c.do(&r, nil); err != nil && !errors.Is(err, unix.EADDRNOTAVAIL) {
		return 0, err
	}
	return l.Index, nil
}

// MakeBridge makes a bridge, down and without its address, and writes a mark on it, if there is one. Its hardware address, which it has
// from the beginning, tells its subnet before the mark does: the kernel takes no alias with a link that is made.
func (c *Conn) MakeBridge(op *plan.LinkBridge, mark string) error {
	wanted, err := bridgeAddresses(op)
	if err != nil {
		return err
	}
	var r request
	r.message(unix.RTM_NEWLINK, unix.NLM_F_ACK|unix.NLM_F_CREATE|unix.NLM_F_EXCL, ifinfo(0, 0, 0)...)
	r.str(unix.IFLA_IFNAME, op.Name)
	if op.MTU > 0 {
		r.u32(unix.IFLA_MTU, uint32(op.MTU))
	}
	// A bridge without an address of its own takes one of its ports', and changes it as they come and go.
	if len(wanted) > 0 {
		if mac, err := parseMAC(MAC(wanted[0].Addr())); err == nil {
			r.attr(unix.IFLA_ADDRESS, mac...)
		}
	}
	r.nest(unix.IFLA_LINKINFO, func() { r.str(unix.IFLA_INFO_KIND, "bridge") })
	if err := c.do(&r, nil); err != nil || mark == "" {
		return err
	}
	return c.Mark(op.Name, mark)
}

// bridgeAddresses are those of a step, that of IPv4 first.
func bridgeAddresses(op *plan.LinkBridge) ([]netip.Prefix, error) {
	var out []netip.Prefix
	for _, a := range []struct {
		text, version string
	}{{op.Address, "IPv4"}, {op.Address6, "IPv6"}} {
		if a.text == "" {
			continue
		}
		p, err := netip.ParsePrefix(a.text)
		if err != nil || p.Addr().Is4() != (a.version == "IPv4") {
			return nil, fmt.Errorf("address %q: want %s in CIDR form", a.text, a.version)
		}
		out = append(out, p)
	}
	return out, nil // none: it is a parent of macvlans, and nobody's router
}

// Mark writes an alias on a link.
func (c *Conn) Mark(name, text string) error {
	var r request
	r.message(unix.RTM_SETLINK, unix.NLM_F_ACK, ifinfo(0, 0, 0)...)
	r.str(unix.IFLA_IFNAME, name)
	r.attr(unix.IFLA_IFALIAS, []byte(text)...)
	return c.do(&r, nil)
}

// Bridges lists the bridges of the network namespace.
func (c *Conn) Bridges() ([]Link, error) {
	var out []Link
	var r request
	r.message(unix.RTM_GETLINK, unix.NLM_F_DUMP, ifinfo(0, 0, 0)...)
	r.u32(unix.IFLA_EXT_MASK, skipStats)
	err := c.dump(&r, func() { out = out[:0] }, func(_ uint16, body []byte) error {
		if l, ok := parseLink(body); ok && l.Kind == "bridge" {
			out = append(out, l)
		}
		return nil
	})
	return out, err
}

// veth makes the pair in one request, both ends in their place. A pair of that name is left from an earlier run of the same
// container, whose namespace the kernel has not yet taken down (that happens in the background): it is removed first.
func (c *Conn) veth(op *plan.LinkVeth, bridge, netns int) error {
	if err := CheckName(op.Name); err != nil {
		return err
	}
	if err := CheckName(op.Peer); err != nil {
		return err
	}
	var mac []byte
	if op.MAC != "" {
		var err error
		if mac, err = parseMAC(op.MAC); err != nil {
			return err
		}
	}
	var r request
	// Up from the beginning: the cable carries when the other end is up, too, and nothing has to be sent for that later.
	r.message(unix.RTM_NEWLINK, unix.NLM_F_ACK|unix.NLM_F_CREATE|unix.NLM_F_EXCL, ifinfo(0, unix.IFF_UP, unix.IFF_UP)...)
	r.str(unix.IFLA_IFNAME, op.Name)
	r.u32(unix.IFLA_MASTER, uint32(bridge))
	common := func() {
		if op.MTU > 0 {
			r.u32(unix.IFLA_MTU, uint32(op.MTU))
		}
		// One queue per direction: more pay off only for XDP and cost time and memory with every container.
		r.u32(unix.IFLA_NUM_TX_QUEUES, 1)
		r.u32(unix.IFLA_NUM_RX_QUEUES, 1)
	}
	common()
	r.nest(unix.IFLA_LINKINFO, func() {
		r.str(unix.IFLA_INFO_KIND, "veth")
		r.nest(unix.IFLA_INFO_DATA, func() {
			const peer = 1 // VETH_INFO_PEER of linux/veth.h
			at := len(r.b)
			r.attr(peer, ifinfo(0, 0, 0)...)
			r.str(unix.IFLA_IFNAME, op.Peer)
			common()
			if mac != nil {
				r.attr(unix.IFLA_ADDRESS, mac...)
			}
			// The number of the namespace goes along: the peer is born in there, and is never seen on the host.
			r.u32(unix.IFLA_NET_NS_FD, uint32(netns))
			// The struct ifinfomsg and the attributes of the peer are one attribute, whose length is known only now.
			binary.NativeEndian.PutUint16(r.b[at:], uint16(len(r.b)-at))
		})
	})
	if op.Hairpin || op.Isolated {
		// The port's settings are taken only after it has become one.
		r.message(unix.RTM_NEWLINK, unix.NLM_F_ACK, ifinfo(0, 0, 0)...)
		r.str(unix.IFLA_IFNAME, op.Name)
		r.nest(unix.IFLA_LINKINFO, func() {
			r.str(unix.IFLA_INFO_SLAVE_KIND, "bridge")
			r.nest(unix.IFLA_INFO_SLAVE_DATA, func() {
				if op.Hairpin {
					r.attr(unix.IFLA_BRPORT_MODE, 1)
				}
				if op.Isolated {
					r.attr(unix.IFLA_BRPORT_ISOLATED, 1)
				}
			})
		})
	}
	failed, err := c.send(&r, r.n, nil)
	// Only the first message, which makes the pair: EEXIST of another one would have another reason.
	if failed == 1 && errors.Is(err, unix.EEXIST) {
		if err := c.DeleteLink(op.Name); err != nil {
			return fmt.Errorf("remove the link left from an earlier run: %w", err)
		}
		_, err = c.send(&r, r.n, nil)
	}
	return err
}

// awaitPort waits until a port of a bridge forwards and the bridge has noticed that it has a port. A cable carries from the
// moment both of its ends are up, but the kernel tells the bridge so in the background (linkwatch); until then frames are
// dropped, and a container that connects at once would wait a whole second for the repetition of its first ARP request. Since
// Linux 6.8 a question about a link makes the kernel do that work before it answers; earlier ones take a fraction of a
// millisecond if no other link has changed just now, and up to a second if one has. After that the container starts
// nevertheless.
func (c *Conn) awaitPort(name string) {
	const (
		forwarding = 3 // BR_STATE_FORWARDING
		operUp     = 6 // IF_OPER_UP
	)
	end := time.Now().Add(time.Second)
	for wait := 100 * time.Microsecond; ; wait = min(2*wait, 2*time.Millisecond) {
		l, err := c.Link(name, 0)
		if err != nil || l.master == 0 {
			return
		}
		if l.portState == forwarding {
			if br, err := c.Link("", l.master); err != nil || br.operState == operUp {
				return
			}
		}
		if time.Now().After(end) {
			return
		}
		time.Sleep(wait)
	}
}

// DeleteLink removes a link; one that is gone is no error.
func (c *Conn) DeleteLink(name string) error {
	if err := CheckName(name); err != nil {
		return err
	}
	var r request
	r.message(unix.RTM_DELLINK, unix.NLM_F_ACK, ifinfo(0, 0, 0)...)
	r.str(unix.IFLA_IFNAME, name)
	if err := c.do(&r, nil); err != nil && !errors.Is(err, unix.ENODEV) {
		return err
	}
	return nil
}

// DeleteIndex removes a link by its number, which no other link ever gets: one of the same name that somebody has made meanwhile stays.
func (c *Conn) DeleteIndex(index int) error {
	var r request
	r.message(unix.RTM_DELLINK, unix.NLM_F_ACK, ifinfo(index, 0, 0)...)
	if err := c.do(&r, nil); err != nil && !errors.Is(err, unix.ENODEV) {
		return err
	}
	return nil
}

// up gives a link an address, if there is one, and sets the link up. It returns the link's index, or 0 where it didn't need it.
func (c *Conn) up(op *plan.LinkAddress) (int, error) {
	if err := CheckName(op.Link); err != nil {
		return 0, err
	}
	var r request
	if op.Address == "" {
		r.message(unix.RTM_NEWLINK, unix.NLM_F_ACK, ifinfo(0, unix.IFF_UP, unix.IFF_UP)...)
		r.str(unix.IFLA_IFNAME, op.Link)
		// The loopback, which has its address by itself as soon as it is up.
		return 0, c.do(&r, nil)
	}
	p, err := netip.ParsePrefix(op.Address)
	if err != nil {
		return 0, fmt.Errorf("address %q: want CIDR form", op.Address)
	}
	l, err := c.Link(op.Link, 0)
	if err != nil {
		return 0, err
	}
	// Address and link in one request: the route to the subnet comes with the address when the link is up.
	r.address(unix.RTM_NEWADDR, unix.NLM_F_ACK|unix.NLM_F_CREATE|unix.NLM_F_EXCL, l.Index, p)
	r.message(unix.RTM_NEWLINK, unix.NLM_F_ACK, ifinfo(l.Index, unix.IFF_UP, unix.IFF_UP)...)
	return l.Index, c.do(&r, nil)
}

// Broadcast is the broadcast address of a subnet.
func Broadcast(p netip.Prefix) netip.Addr {
	a := p.Masked().Addr().As4()
	n := binary.BigEndian.Uint32(a[:]) | (1<<(32-p.Bits()) - 1)
	return netip.AddrFrom4([4]byte(binary.BigEndian.AppendUint32(nil, n)))
}
