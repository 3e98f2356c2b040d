package verify

import (
	"fmt"
	"strings"

	"glassbox/plan"
	"glassbox/wire"
)

// Links on top of others: macvlan, ipvlan, and the VLANs below them.

func (v *view) macvlan(o *plan.LinkMacvlan) Finding {
	if v.net.insideErr != nil {
		return failed(itsLinks, v.net.insideErr)
	}
	l := find(v.net.inside, o.Name)
	if l == nil {
		return missing(itsLinks, o.Driver+" "+o.Name, v.who("CAP_NET_ADMIN"))
	}
	var wrong []string
	add := func(ok bool, format string, a ...any) {
		if !ok {
			wrong = append(wrong, fmt.Sprintf(format, a...))
		}
	}
	add(l.Kind == o.Driver, "it is a %s", l.Kind)
	add(l.Up, "it is down")
	add(o.MTU == 0 || l.MTU == o.MTU, "its MTU is %d", l.MTU)
	add(o.MAC == "" || o.Driver != "macvlan" || strings.EqualFold(l.MAC, o.MAC), "it has the hardware address %s", l.MAC)
	if mode, ok := wire.MacvlanModes(o.Mode); ok && o.Driver == "macvlan" {
		add(l.Mode == mode, "its mode is another one than %s", o.Mode)
	}
	if mode, ok := wire.IpvlanModes(o.Mode); ok && o.Driver == "ipvlan" {
		add(l.Mode == mode, "its mode is another one than %s", o.Mode)
		flags, _ := wire.IpvlanFlags(o.Flag)
		add(l.Flags == flags, "its flags are others than %q", o.Flag)
	}
	if v.net.hostErr == nil {
		parent := find(v.net.host, o.Parent)
		add(parent != nil && parent.Index == l.Peer, "it isn't on top of %s", o.Parent)
	}
	if len(wrong) > 0 {
		return differs(itsLinks, o.String(), strings.Join(wrong, ", "), v.who("CAP_NET_ADMIN"))
	}
	return holds(itsLinks, fmt.Sprintf("%s, up, on top of %s, mode %s", l.Name, o.Parent, o.Mode))
}

func (v *view) vlan(o *plan.LinkVLAN) Finding {
	if v.net.hostErr != nil {
		return failed(hostLinks, v.net.hostErr)
	}
	l := find(v.net.host, o.Name)
	if l == nil {
		return missing(hostLinks, "VLAN "+o.Name, byHost())
	}
	parent := find(v.net.host, o.Parent)
	var wrong []string
	switch {
	case l.Kind != "vlan":
		// One that was there before may be anything; whoever made it knows why.
		return holds(hostLinks, fmt.Sprintf("%s, a %s that is somebody else's, %s", l.Name, l.Kind, up(l.Up)))
	case l.VLAN != o.ID:
		wrong = append(wrong, fmt.Sprintf("it is VLAN %d", l.VLAN))
	}
	if parent == nil || parent.Index != l.Peer {
		wrong = append(wrong, "it isn't on the cable of "+o.Parent)
	}
	if !l.Up {
		wrong = append(wrong, "it is down")
	}
	if len(wrong) > 0 {
		return differs(hostLinks, o.String(), strings.Join(wrong, ", "), byHost())
	}
	return holds(hostLinks, fmt.Sprintf("%s, up, VLAN %d of %s", l.Name, l.VLAN, o.Parent))
}
