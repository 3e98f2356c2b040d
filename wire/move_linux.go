package wire

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"glassbox/plan"
)

// move takes a link of the host into the child's network namespace, gives it back the addresses that the kernel takes from a link
// that moves (permanent ones of global scope), and sets it up.
func (w *Executor) move(op *plan.LinkMove) error {
	// Both sockets first: what can't be reached is found out while the link is still the host's.
	host, err := w.hostConn()
	if err != nil {
		return err
	}
	inside, err := w.childConn()
	if err != nil {
		return err
	}
	ns, err := w.childFD()
	if err != nil {
		return err
	}
	l, err := host.Link(op.Name, 0)
	if err != nil {
		return err
	}
	addresses, err := host.permanent(l.Index)
	if err != nil {
		return fmt.Errorf("addresses: %w", err)
	}
	// The kernel keeps a link's index where it is free in the new namespace, and chooses another one else: compared before and after, it is
	// found.
	before, err := inside.indices()
	if err != nil {
		return err
	}
	name := op.As
	if name == "" {
		name = op.Name
	}
	// The kernel moves a link first and names it then: if the name is taken there, the link would have left the host already. Of a name
	// like eth%d it chooses a free one.
	if !strings.Contains(name, "%") {
		switch _, err := inside.Link(name, 0); {
		case err == nil:
			return fmt.Errorf("the container's network namespace has a device %s already: %w", name, unix.EEXIST)
		case !errors.Is(err, unix.ENODEV):
			return err
		}
	}
	var r request
	r.message(unix.RTM_NEWLINK, unix.NLM_F_ACK, ifinfo(l.Index, 0, 0)...)
	r.u32(unix.IFLA_NET_NS_FD, uint32(ns))
	r.str(unix.IFLA_IFNAME, name)
	// With name and namespace in one message: no name of the container's is seen on the host, and none of the host's in
	// there.
	if err := host.do(&r, nil); err != nil {
		return err
	}
	// The kernel chooses the index, and of a name like eth%d the number.
	after, err := inside.indices()
	if err != nil {
		return err
	}
	after = slices.DeleteFunc(after, func(i int) bool { return slices.Contains(before, i) })
	if len(after) != 1 {
		return fmt.Errorf("%d links came into the network namespace, want one", len(after))
	}
	// One by one: an address that can't be had inside is told with its own error.
	for _, a := range addresses {
		var r request
		r.message(unix.RTM_NEWADDR, unix.NLM_F_ACK|unix.NLM_F_CREATE|unix.NLM_F_EXCL, a.family, a.bits, 0, 0, 0, 0, 0, 0)
		binary.NativeEndian.PutUint32(r.b[len(r.b)-4:], uint32(after[0]))
		for _, at := range a.attrs {
			r.attr(at.typ, at.data...)
		}
		if err := inside.do(&r, nil); err != nil {
			return fmt.Errorf("address: %w", err)
		}
	}
	r = request{}
	r.message(unix.RTM_NEWLINK, unix.NLM_F_ACK, ifinfo(after[0], unix.IFF_UP, unix.IFF_UP)...)
	return inside.do(&r, nil)
}

type rawAddress struct {
	family, bits byte
	attrs        []rawAttr
}

type rawAttr struct {
	typ  uint16
	data []byte
}

// permanent lists the permanent addresses of global scope that a link has, as they are.
func (c *Conn) permanent(index int) ([]rawAddress, error) {
	var out []rawAddress
	var r request
	r.message(unix.RTM_GETADDR, unix.NLM_F_DUMP, unix.AF_UNSPEC, 0, 0, 0, 0, 0, 0, 0)
	err := c.dump(&r, func() { out = out[:0] }, func(_ uint16, body []byte) error {
		if len(body) < unix.SizeofIfAddrmsg || int(nativeU32(body[4:])) != index {
			return nil
		}
		// What the kernel or a DHCP client made there is theirs to make again.
		if flags, scope := body[2], body[3]; flags&unix.IFA_F_PERMANENT == 0 || scope != unix.RT_SCOPE_UNIVERSE {
			return nil
		}
		a := rawAddress{family: body[0], bits: body[1]}
		for typ, data := range attrs(body[unix.SizeofIfAddrmsg:]) {
			if typ == unix.IFA_LOCAL || typ == unix.IFA_ADDRESS || typ == unix.IFA_BROADCAST {
				a.attrs = append(a.attrs, rawAttr{typ, slices.Clone(data)})
			}
		}
		out = append(out, a)
		return nil
	})
	return out, err
}

// indices lists all links.
func (c *Conn) indices() ([]int, error) {
	var out []int
	var r request
	r.message(unix.RTM_GETLINK, unix.NLM_F_DUMP, ifinfo(0, 0, 0)...)
	r.u32(unix.IFLA_EXT_MASK, skipStats)
	err := c.dump(&r, func() { out = out[:0] }, func(_ uint16, body []byte) error {
		if l, ok := parseLink(body); ok {
			out = append(out, l.Index)
		}
		return nil
	})
	return out, err
}
