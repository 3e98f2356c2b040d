package plan

import (
	"fmt"
	"strings"
)

// newLinkOp makes an empty step of one of the kinds of this file, or nil: network interfaces. The host lane
// makes them by netlink, in the host's or the child's network namespace.
func newLinkOp(kind string) Op {
	switch kind {
	case "link-bridge":
		return &LinkBridge{}
	case "link-veth":
		return &LinkVeth{}
	case "link-macvlan":
		return &LinkMacvlan{}
	case "link-vlan":
		return &LinkVLAN{}
	case "link-move":
		return &LinkMove{}
	case "link-delete":
		return &LinkDelete{}
	case "link-address":
		return &LinkAddress{}
	case "link-up":
		return &LinkUp{}
	case "route-default":
		return &RouteDefault{}
	}
	return nil
}

// LinkBridge makes a bridge on the host, with its address, unless it exists, and sets it up. It stays when the container goes:
// other containers use it.
type LinkBridge struct {
	Name     string   `json:"name"`
	Address  string   `json:"address,omitempty"` // of the bridge, as CIDR; empty: it has none of IPv4
	MTU      int      `json:"mtu,omitempty"`
	Address6 string   `json:"address6,omitempty"` // the same of IPv6
	Sysctls  []string `json:"sysctls,omitempty"`  // "net/ipv4/conf/NAME/route_localnet=1", set when it is made
}

func (*LinkBridge) Kind() string { return "link-bridge" }

func (*LinkBridge) Man() string { return "rtnetlink(7)" }

func (o *LinkBridge) String() string {
	with := o.Address + prefix(" and ", o.Address6)
	if o.Address == "" {
		with = o.Address6
	}
	if with == "" {
		return fmt.Sprintf("make bridge %s unless it exists", o.Name)
	}
	return fmt.Sprintf("make bridge %s with %s unless it exists", o.Name, with)
}

func (*LinkBridge) lanes() lanes { return hostLane }

func (o *LinkBridge) hostNames() []string {
	names := []string{"link " + o.Name}
	for _, set := range o.Sysctls {
		names = append(names, "/proc/sys/"+set)
	}
	return names
}

// LinkVeth makes a veth pair: Name on the host, attached to Bridge and up; Peer in the child's network namespace, down.
type LinkVeth struct {
	Name   string `json:"name"`
	Peer   string `json:"peer"`
	Bridge string `json:"bridge"`
	MAC    string `json:"mac,omitempty"` // of the peer
	MTU    int    `json:"mtu,omitempty"`
	// Hairpin lets the bridge send a frame back to the port that it came from: a container that talks to its own published
	// port needs it where br_netfilter translates addresses inside the bridge.
	Hairpin bool `json:"hairpin,omitempty"`
	// Isolated ports of a bridge reach only those that aren't (bridge(8), isolated; Linux 4.18): the containers the host, and not each other.
	Isolated bool `json:"isolated,omitempty"`
	// Sysctls are settings of the peer, such as "net/ipv6/conf/eth0/disable_ipv6=1", made before anybody can set it up.
	Sysctls []string `json:"sysctls,omitempty"`
}

func (*LinkVeth) Kind() string { return "link-veth" }

func (*LinkVeth) Man() string { return "veth(4)" }

func (o *LinkVeth) String() string {
	return fmt.Sprintf("make veth pair %s (on %s) and %s (in the container)", o.Name, o.Bridge, o.Peer)
}

func (*LinkVeth) lanes() lanes { return hostLane }

func (o *LinkVeth) hostNames() []string { return []string{"link " + o.Name, "link " + o.Bridge} }

// Undo removes the pair, wherever its peer is.
func (o *LinkVeth) Undo() []Op { return []Op{&LinkDelete{Name: o.Name}} }

// LinkMove moves a link of the host into the child's network namespace, with its permanent addresses of global scope, and sets it
// up. It stays there: when the namespace ends, the kernel takes a physical device back and removes another one.
type LinkMove struct {
	Name string `json:"name"`
	As   string `json:"as,omitempty"` // its new name; %d in it stands for a number that the kernel chooses
}

func (*LinkMove) Kind() string { return "link-move" }

func (*LinkMove) Man() string { return "network_namespaces(7)" }

func (o *LinkMove) String() string {
	return "move link " + o.Name + " into the container" + prefix(" as ", o.As)
}

func (*LinkMove) lanes() lanes { return hostLane }

func (o *LinkMove) hostNames() []string { return []string{"link " + o.Name} }

// LinkDelete removes a link of the host, or of the child's network namespace. One that is gone already is no error.
type LinkDelete struct {
	Name   string `json:"name"`
	Inside bool   `json:"inside,omitempty"` // the child's network namespace
}

func (*LinkDelete) Kind() string { return "link-delete" }

func (*LinkDelete) Man() string { return "rtnetlink(7)" }

func (o *LinkDelete) String() string {
	if o.Inside {
		return "remove link " + o.Name + " of the container"
	}
	return "remove link " + o.Name
}

func (*LinkDelete) lanes() lanes { return hostLane }

func (o *LinkDelete) hostNames() []string {
	if o.Inside {
		return nil
	}
	return []string{"link " + o.Name}
}

// LinkAddress gives a link in the child's network namespace an address and sets the link up.
type LinkAddress struct {
	Link    string `json:"link"`
	Address string `json:"address,omitempty"` // CIDR; empty: only set the link up (lo)
}

func (*LinkAddress) Kind() string { return "link-address" }

func (*LinkAddress) Man() string { return "rtnetlink(7)" }

func (o *LinkAddress) String() string {
	return "set " + o.Link + " up" + prefix(" with address ", o.Address)
}

func (*LinkAddress) lanes() lanes { return hostLane }

// LinkUp sets a link of the child's own network namespace up: the loopback device (netdevice(7), SIOCSIFFLAGS).
type LinkUp struct {
	Link string `json:"link"`
}

func (*LinkUp) Kind() string { return "link-up" }

func (*LinkUp) Man() string { return "netdevice(7)" }

func (o *LinkUp) String() string { return "set " + o.Link + " up" }

// RouteDefault adds the default route in the child's network namespace.
type RouteDefault struct {
	Link string `json:"link"`
	Via  string `json:"via,omitempty"`  // the router's address; empty: whoever is asked for is on the link itself
	IPv6 bool   `json:"ipv6,omitempty"` // without Via: of IPv6, and not of IPv4
	// Replace takes the place of the default route that there is, of the same version of IP.
	Replace bool `json:"replace,omitempty"`
}

func (*RouteDefault) Kind() string { return "route-default" }

func (*RouteDefault) Man() string { return "rtnetlink(7)" }

func (o *RouteDefault) String() string {
	way := "via " + o.Via
	if o.Via == "" {
		way = "by " + o.Link
		if o.IPv6 {
			way = "of IPv6 " + way
		}
	}
	if o.Replace {
		return "change the default route to one " + way
	}
	return "add default route " + way
}

// Is6 reports whether the route is one of IPv6.
func (o *RouteDefault) Is6() bool { return o.IPv6 || strings.Contains(o.Via, ":") }

// Words are the route as ip-route(8) has it.
func (o *RouteDefault) Words() string {
	if o.Via == "" {
		return "dev " + o.Link
	}
	return "via " + o.Via + " dev " + o.Link
}

func (*RouteDefault) lanes() lanes { return hostLane }
