package network

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"glassbox/plan"
	"glassbox/wire"
)

// A View is what decides about packets on this host, as it was when it was looked at: the network namespaces of the host and of containers,
// with their links, addresses, routes, rules and listening sockets.
type View struct {
	Host       *Space
	Containers []*Space

	// Published are the ports of the host that lead to a container, by the kernel's rules or carried.
	Published []Carried
	// Carried are the ports of the host from which a container's supervisor carries what comes.
	Carried []Carried

	// Forwards are the interfaces, by index, from which the host forwards, of IPv4 and IPv6; index 0 stands for all of them.
	Forwards, Forwards6 map[int]bool
	// BridgeCalls say that what is bridged meets the rules for IP as well (br_netfilter), of IPv4 and IPv6.
	BridgeCalls, BridgeCalls6 bool
}

// Carried is a published port of a container.
type Carried struct {
	Container string
	Rule      plan.PortRule
}

// A Space is a network namespace.
type Space struct {
	Name    string // of the container; the host's is "host"
	Links   []wire.LinkState
	Routes  []wire.RouteState
	Rules   *wire.Ruleset // nil: they can't be seen, or there are none
	Sockets []wire.Socket
}

// HostName is what the host is called where a container could stand.
const HostName = "host"

// Look looks at the host, whose network namespace is that of this thread. Close the view.
func (s Store) Look() (_ *View, err error) {
	v := &View{}
	defer func() {
		if err != nil {
			v.Close()
		}
	}()
	if v.Host, err = lookAtSpace(HostName, -1); err != nil {
		return nil, err
	}
	c, err := wire.Dial(unix.NETLINK_ROUTE)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	all, dev, err := c.Forwarding()
	if err != nil {
		return nil, fmt.Errorf("forwarding: %w", err)
	}
	v.Forwards = dev
	v.Forwards[0] = all
	v.Forwards6 = map[int]bool{0: sysctlOn("net/ipv6/conf/all/forwarding")}
	for _, l := range v.Host.Links { // force_forwarding is of Linux 6.17
		v.Forwards6[l.Index] = sysctlOn("net/ipv6/conf/" + l.Name + "/force_forwarding")
	}
	v.BridgeCalls, v.BridgeCalls6 = sysctlOn("net/bridge/bridge-nf-call-iptables"), sysctlOn("net/bridge/bridge-nf-call-ip6tables")
	if v.Host.Rules != nil {
		names, err := s.names()
		if err != nil {
			return nil, err
		}
		for _, name := range names { // their rules can be told in words
			if n, err := s.open(name, false); err == nil && n.Driver == Bridge && n.Link != "" {
				v.Host.Rules.Name(Rules(n))
			}
		}
	}
	return v, nil
}

// Add looks at a container, of which a descriptor of its network namespace and the plan's steps are given.
func (v *View) Add(name string, netns int, steps []plan.Step) (*Space, error) {
	s, err := lookAtSpace(name, netns)
	if err != nil {
		return nil, err
	}
	v.Containers = append(v.Containers, s)
	for _, step := range steps {
		if op, ok := step.Op.(*plan.NftWall); ok && v.Host.Rules != nil {
			v.Host.Rules.Name(op.Rules)
		}
		switch op := step.Op.(type) {
		case *plan.PortCarry:
			for _, r := range op.Ports {
				v.Carried = append(v.Carried, Carried{name, r})
				v.Published = append(v.Published, Carried{name, r})
			}
		case *plan.NftPublish:
			for _, r := range op.Ports {
				v.Published = append(v.Published, Carried{name, r})
			}
		}
	}
	return s, nil
}

// Close gives back what reading the rules needed.
func (v *View) Close() {
	for _, s := range append([]*Space{v.Host}, v.Containers...) {
		if s != nil {
			s.Rules.Close()
		}
	}
}

func lookAtSpace(name string, netns int) (*Space, error) {
	s := &Space{Name: name}
	var err error
	if s.Links, s.Routes, err = wire.Look(netns); err != nil {
		return nil, fmt.Errorf("look at the network of %s: %w", name, err)
	}
	read := func() (err error) {
		if netns >= 0 {
			if err = unix.Setns(netns, unix.CLONE_NEWNET); err != nil {
				return err
			}
		}
		s.Sockets = wire.Sockets()
		s.Rules, err = wire.ReadRuleset()
		return err
	}
	lost, err := wire.KeepNamespace(read)
	if lost != nil {
		return nil, lost
	}
	if err != nil && !errors.Is(err, unix.EPERM) { // an ordinary user sees no rules
		return nil, fmt.Errorf("look at the rules of %s: %w", name, err)
	}
	return s, nil
}

// sysctl reads a setting of the kernel; "": it has none of that name.
func sysctl(name string) string {
	text, _ := os.ReadFile("/proc/sys/" + name)
	return strings.TrimSpace(string(text))
}

func sysctlOn(name string) bool {
	text := sysctl(name)
	return text != "" && text != "0"
}

// link finds a link by its index.
func (s *Space) link(index int) *wire.LinkState {
	for i := range s.Links {
		if s.Links[i].Index == index {
			return &s.Links[i]
		}
	}
	return nil
}

// Has reports whether an address is one of the namespace's, other than its loopback's.
func (s *Space) Has(a netip.Addr) bool { return !a.IsLoopback() && s.has(a) != nil }

// local reports whether an address is the namespace's own.
func (s *Space) local(a netip.Addr) bool {
	return a.IsLoopback() || s.has(a) != nil
}

// has finds the link that has an address.
func (s *Space) has(a netip.Addr) *wire.LinkState {
	for i := range s.Links {
		for _, p := range s.Links[i].Addresses {
			if p.Addr() == a {
				return &s.Links[i]
			}
		}
	}
	return nil
}

// route finds the way to an address: the longest prefix, of equal ones the first, which the kernel tells in the order of their metrics.
// Rules that choose a table by anything else (ip rule) aren't looked at.
func (s *Space) route(to netip.Addr) (best wire.RouteState, ok bool) {
	for _, r := range s.Routes {
		if r.Table != unix.RT_TABLE_MAIN || !r.Destination.Contains(to) || r.Destination.Addr().Is4() != to.Is4() {
			continue
		}
		if !ok || r.Destination.Bits() > best.Destination.Bits() {
			best, ok = r, true
		}
	}
	return best, ok
}

// sourceFor is the address with which a packet leaves by a link: that of the subnet in which the next one is, or the first.
func sourceFor(l *wire.LinkState, next netip.Addr) netip.Addr {
	var first netip.Addr
	for _, p := range l.Addresses {
		a := p.Addr()
		switch {
		case a.Is4() != next.Is4(), a.IsLinkLocalUnicast() && !next.IsLinkLocalUnicast():
		case p.Masked().Contains(next):
			return a
		case !first.IsValid():
			first = a
		}
	}
	return first
}

// FirstPort is the lowest port of TCP at which somebody listens for others; 0: there is none.
func (s *Space) FirstPort() (first uint16) {
	for _, l := range s.Sockets {
		if l.Proto == "tcp" && !l.Addr.Addr().IsLoopback() && (first == 0 || l.Addr.Port() < first) {
			first = l.Addr.Port()
		}
	}
	return first
}

// HasIPv4 reports whether the namespace has an address of IPv4 beside its loopback's.
func (s *Space) HasIPv4() bool {
	for _, l := range s.Links {
		for _, p := range l.Addresses {
			if p.Addr().Is4() && !p.Addr().IsLoopback() {
				return true
			}
		}
	}
	return false
}

// listens says whether somebody takes what arrives at an address and port: he listens there, or, if somebody listens elsewhere, where.
func (s *Space) listens(proto string, at netip.AddrPort) (ok bool, elsewhere string) {
	for _, l := range s.Sockets {
		if l.Proto != proto || l.Addr.Port() != at.Port() {
			continue
		}
		a := l.Addr.Addr()
		if a.Unmap() == at.Addr() || a == netip.IPv6Unspecified() || a.IsUnspecified() && at.Addr().Is4() {
			return true, ""
		}
		elsewhere = a.Unmap().String()
	}
	return false, elsewhere
}
