package wire

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"glassbox/plan"
)

// Links on top of others: macvlan, with hardware addresses of their own, and ipvlan, which share the parent's.

// Those modes of macvlan in which no container talks to another.
const (
	MacvlanPrivate  = 1
	MacvlanVEPA     = 2
	MacvlanPassthru = 8
)

// MacvlanModes are the kernel's numbers of macvlan's modes (MACVLAN_MODE_* of linux/if_link.h).
func MacvlanModes(mode string) (number uint32, ok bool) {
	switch mode {
	case "private":
		return MacvlanPrivate, true
	case "vepa":
		return MacvlanVEPA, true
	case "bridge":
		return 4, true
	case "passthru":
		return MacvlanPassthru, true
	}
	return 0, false
}

// IpvlanModes are the kernel's numbers of ipvlan's modes (IPVLAN_MODE_* of linux/if_link.h).
func IpvlanModes(mode string) (number uint32, ok bool) {
	switch mode {
	case "l2":
		return 0, true
	case "l3":
		return IpvlanL3, true
	case "l3s":
		return IpvlanL3S, true
	}
	return 0, false
}

// Those modes of ipvlan in which the host's routes are asked, and its rules for what it sends; L3S also asks those for what comes in.
const (
	IpvlanL3  = 1
	IpvlanL3S = 2
)

// IpvlanFlags are the kernel's bits of ipvlan's flags (IPVLAN_F_*).
func IpvlanFlags(flag string) (bits uint32, ok bool) {
	switch flag {
	case "", "bridge":
		return 0, true
	case "private":
		return 1, true
	case "vepa":
		return 2, true
	}
	return 0, false
}

// The kernel's numbers of attributes: IFLA_MACVLAN_MODE, IFLA_IPVLAN_MODE, IFLA_IPVLAN_FLAGS.
const (
	macvlanMode = 1
	ipvlanMode  = 1
	ipvlanFlags = 2
)

// macvlanBorn is the name of a link until it has its own. Older kernels (seen with 6.1) look for the name of a new link in the namespace
// that they are asked from, and refuse eth0, which the host has.
const macvlanBorn = "gb-newborn"

// macvlan makes the link in the child's network namespace; its parent is found in the host's.
func (w *Executor) macvlan(op *plan.LinkMacvlan) error {
	if err := CheckName(op.Name); err != nil {
		return err
	}
	c, err := w.hostConn()
	if err != nil {
		return err
	}
	ns, err := w.childFD()
	if err != nil {
		return err
	}
	parent, err := c.Link(op.Parent, 0)
	if err != nil {
		return fmt.Errorf("parent %s: %w", op.Parent, err)
	}
	var r request
	r.message(unix.RTM_NEWLINK, unix.NLM_F_ACK|unix.NLM_F_CREATE|unix.NLM_F_EXCL, ifinfo(0, 0, 0)...)
	r.str(unix.IFLA_IFNAME, macvlanBorn)
	r.u32(unix.IFLA_LINK, uint32(parent.Index))
	r.u32(unix.IFLA_NET_NS_FD, uint32(ns))
	if op.MTU > 0 {
		r.u32(unix.IFLA_MTU, uint32(op.MTU))
	}
	if op.MAC != "" && op.Driver == "macvlan" {
		mac, err := parseMAC(op.MAC)
		if err != nil {
			return err
		}
		r.attr(unix.IFLA_ADDRESS, mac...)
	}
	mode, known := MacvlanModes(op.Mode)
	if op.Driver == "ipvlan" {
		mode, known = IpvlanModes(op.Mode)
	}
	flags, knownFlag := IpvlanFlags(op.Flag)
	if !known || !knownFlag {
		return fmt.Errorf("%s has no mode %q with the flag %q", op.Driver, op.Mode, op.Flag)
	}
	r.nest(unix.IFLA_LINKINFO, func() {
		r.str(unix.IFLA_INFO_KIND, op.Driver)
		r.nest(unix.IFLA_INFO_DATA, func() {
			if op.Driver == "macvlan" {
				r.u32(macvlanMode, mode)
			} else {
				r.attr(ipvlanMode, binary.NativeEndian.AppendUint16(nil, uint16(mode))...)
				r.attr(ipvlanFlags, binary.NativeEndian.AppendUint16(nil, uint16(flags))...)
			}
		})
	})
	if err := c.do(&r, nil); err != nil {
		if errors.Is(err, unix.EOPNOTSUPP) {
			return noDriver(op.Driver, err)
		}
		return err
	}
	inside, err := w.childConn()
	if err != nil {
		return err
	}
	l, err := inside.Link(macvlanBorn, 0)
	if err != nil {
		return err
	}
	r = request{}
	r.message(unix.RTM_NEWLINK, unix.NLM_F_ACK, ifinfo(l.Index, 0, 0)...)
	r.str(unix.IFLA_IFNAME, op.Name)
	if err := inside.do(&r, nil); err != nil {
		return errors.Join(fmt.Errorf("name it %s: %w", op.Name, err), inside.DeleteIndex(l.Index))
	}
	if w.busy == nil {
		w.busy = map[string]bool{}
	}
	w.busy[op.Name] = true
	if len(op.Sysctls) == 0 {
		return nil
	}
	return w.settings(op.Name, op.Sysctls)
}

func noDriver(driver string, err error) error {
	config := map[string]string{"macvlan": "CONFIG_MACVLAN", "ipvlan": "CONFIG_IPVLAN", "vlan": "CONFIG_VLAN_8021Q"}[driver]
	module := driver
	if driver == "vlan" {
		module = "8021q"
	}
	return fmt.Errorf("this kernel has no %s (%s; modprobe %s, where it is a module): %w", driver, config, module, err)
}

// HasDriver says whether the kernel can make links of a kind: a link without a parent is refused with another error where it can.
func (c *Conn) HasDriver(driver string) error {
	var r request
	r.message(unix.RTM_NEWLINK, unix.NLM_F_ACK|unix.NLM_F_CREATE|unix.NLM_F_EXCL, ifinfo(0, 0, 0)...)
	r.nest(unix.IFLA_LINKINFO, func() { r.str(unix.IFLA_INFO_KIND, driver) })
	if err := c.do(&r, nil); errors.Is(err, unix.EOPNOTSUPP) {
		return noDriver(driver, err)
	}
	return nil
}

// upAgain sets a link up that has its hardware address from a container which is just ending: as long as the kernel hasn't taken that one's
// namespace down, the address is in use (macvlan_addr_busy in drivers/net/macvlan.c).
func (w *Executor) upAgain(c *Conn, op *plan.LinkAddress) (index int, err error) {
	for end := time.Now().Add(5 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		index, err = c.up(op)
		if !errors.Is(err, unix.EBUSY) && !errors.Is(err, unix.EADDRINUSE) || !w.busy[op.Link] || time.Now().After(end) {
			return index, err
		}
		_ = c.forgetAddress(op) // which was given before the link was refused
	}
}

func (c *Conn) forgetAddress(op *plan.LinkAddress) error {
	l, err := c.Link(op.Link, 0)
	if err != nil {
		return err
	}
	addrs, err := c.addressesOf(unix.AF_INET, l.Index)
	more, err6 := c.addressesOf(unix.AF_INET6, l.Index)
	if err := errors.Join(err, err6); err != nil {
		return err
	}
	var r request
	for _, a := range append(addrs, more...) {
		if a.Prefix.String() == op.Address {
			r.address(unix.RTM_DELADDR, unix.NLM_F_ACK, l.Index, a.Prefix)
		}
	}
	if r.n == 0 {
		return nil
	}
	return c.do(&r, nil)
}

// deleteLink removes a link of the host or of the child.
func (w *Executor) deleteLink(op *plan.LinkDelete) error {
	c, err := w.connAt(op.Inside)
	if err != nil {
		return err
	}
	return c.DeleteLink(op.Name)
}
