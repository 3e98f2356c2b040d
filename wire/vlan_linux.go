package wire

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"

	"golang.org/x/sys/unix"

	"glassbox/plan"
)

// vlanID is the kernel's number of the attribute IFLA_VLAN_ID.
const vlanID = 1

func (w *Executor) vlan(op *plan.LinkVLAN) error {
	c, err := w.hostConn()
	if err != nil {
		return err
	}
	return c.EnsureVLAN(op)
}

// EnsureVLAN makes a VLAN of a link, with its mark, or leaves the one that is there as it is, but sets it up.
func (c *Conn) EnsureVLAN(op *plan.LinkVLAN) error {
	l, err := c.Link(op.Name, 0)
	if errors.Is(err, unix.ENODEV) {
		if err = c.MakeVLAN(op); err != nil && !errors.Is(err, unix.EEXIST) { // another start was faster
			return err
		}
		l, err = c.Link(op.Name, 0)
	}
	switch {
	case err != nil:
		return fmt.Errorf("link %s: %w", op.Name, err)
	case l.Up:
		return nil
	}
	var r request
	r.message(unix.RTM_NEWLINK, unix.NLM_F_ACK, ifinfo(l.Index, unix.IFF_UP, unix.IFF_UP)...)
	return c.do(&r, nil)
}

// MakeVLAN makes the link, down, and marks it. The kernel takes no alias with a link that is made, and one who is killed before he could
// mark it would leave a link that nobody takes back. So both questions are in one message to the kernel, which answers all
// of it before a signal can end the sender. The second must not mean a link of that name that was there before, and knows the new one by
// an index chosen here.
func (c *Conn) MakeVLAN(op *plan.LinkVLAN) error {
	if err := CheckName(op.Name); err != nil {
		return err
	}
	if op.ID < 1 || op.ID > 4094 { // IEEE 802.1Q: 0 is no VLAN, 4095 is reserved
		return fmt.Errorf("VLAN %d: want 1 to 4094", op.ID)
	}
	parent, err := c.Link(op.Parent, 0)
	if err != nil {
		return fmt.Errorf("parent %s: %w", op.Parent, err)
	}
	// Far above those that the kernel counts up, and below 2^31.
	index := 1<<30 + int(rand.Uint32()>>3)
	var r request
	r.message(unix.RTM_NEWLINK, unix.NLM_F_ACK|unix.NLM_F_CREATE|unix.NLM_F_EXCL, ifinfo(index, 0, 0)...)
	r.str(unix.IFLA_IFNAME, op.Name)
	r.u32(unix.IFLA_LINK, uint32(parent.Index))
	r.nest(unix.IFLA_LINKINFO, func() {
		r.str(unix.IFLA_INFO_KIND, "vlan")
		r.nest(unix.IFLA_INFO_DATA, func() { r.attr(vlanID, binary.NativeEndian.AppendUint16(nil, uint16(op.ID))...) })
	})
	if op.Mark != "" {
		r.message(unix.RTM_SETLINK, unix.NLM_F_ACK, ifinfo(index, 0, 0)...)
		r.attr(unix.IFLA_IFALIAS, []byte(op.Mark)...)
	}
	err = c.do(&r, nil)
	if errors.Is(err, unix.EOPNOTSUPP) {
		return noDriver("vlan", err)
	}
	return err
}
