package network

import (
	"fmt"
	"net/netip"

	"glassbox/plan"
)

// A driver writes the steps that connect one container to a network. That is all there is to a driver: what the steps do is known to
// plan, fork, explain and verify.
type driver func(n Network, e Endpoint, w *writer)

// driverOf returns a driver, or nil for a name that none has.
func driverOf(name string) driver {
	switch name {
	case Bridge:
		return bridge
	case None:
		return none
	case Host:
		return func(Network, Endpoint, *writer) {} // the container's network namespace is the host's
	}
	return nil
}

// writer collects the steps of one endpoint.
type writer struct {
	steps  []plan.Step
	origin func(what string) string
	up     bool // the loopback interface is
}

func (w *writer) add(op plan.Op, origin, reason string) {
	w.steps = append(w.steps, plan.Step{Lane: plan.Host, Phase: plan.Network, Op: op, Origin: origin, Reason: reason})
}

// Steps returns the host-lane steps that connect a container with a network namespace of its own to its only network. They follow the
// clone. origin says where a thing comes from; it is asked for "network" and, once for all published ports, "publish".
func Steps(n Network, e Endpoint, origin func(what string) string) ([]plan.Step, error) {
	w := &writer{origin: origin}
	e.Default = !n.Internal
	err := w.connect(n, e)
	return w.steps, err
}

// connect writes the steps of one more endpoint.
func (w *writer) connect(n Network, e Endpoint) error {
	d := driverOf(n.Driver)
	if d == nil {
		return fmt.Errorf("network %s: driver %q is not known", n.Name, n.Driver)
	}
	d(n, e, w)
	return nil
}

// bridge plugs the container into a virtual switch of the host. The host has an address on it, the gateway, and is the containers'
// router.
//
// The firewall comes first, so that there is no moment in which packets are forwarded without it, and the published ports
// come last, when somebody can answer.
func bridge(n Network, e Endpoint, w *writer) {
	from, subnet := w.origin("network"), n.IPv4()
	w.add(&plan.NftBridge{Table: n.Table(), Bridge: n.Link, Subnet: subnet.Prefix.String(), Rules: Rules(n)}, from,
		"The firewall of the bridge: containers leave with the host's address, only published ports are let in, and the host's own "+
			"loopback stays out of reach.")
	for _, op := range n.Beside {
		w.add(op, from,
			"This firewall would drop what is forwarded for the network, whatever other tables accept: a drop is final in netfilter. What "+
				"these rules let in, the network's own table still judges.")
	}
	w.add(bridgeOf(n), from,
		"A switch inside the kernel that all containers of this network are plugged into; the host routes for them (forwarding), lets "+
			"its own 127.0.0.1 reach their published ports (route_localnet), and listens to no router advertisements from them (disable_ipv6).")
	// After the firewall, which drops what isn't the bridge's: there must be no moment in which the host forwards for everybody.
	for _, dev := range n.Opened { // none, of an internal network
		w.add(&plan.WriteFile{Path: "/proc/sys/net/ipv4/conf/" + dev + "/forwarding", Value: "1"}, from,
			"Answers from the outside come in here and have to be forwarded to the bridge; this host forwards nothing else, so the switch "+
				"for the whole host stays off and the firewall drops what isn't for the bridge.")
	}
	w.add(&plan.LinkVeth{
		Name: e.Link, Peer: e.Interface, Bridge: n.Link, MAC: e.MAC, MTU: n.MTU, Hairpin: len(e.Ports) > 0, Isolated: n.Isolated,
		Sysctls: append(guard(n, e), e.Sysctls...),
	}, from, cable(n))
	w.wall(n, e)
	w.loopback(from)
	w.add(&plan.LinkAddress{Link: e.Interface, Address: netip.PrefixFrom(e.IP, subnet.Prefix.Bits()).String()}, from,
		"The container's address, leased from the bridge's subnet.")
	if e.Default {
		w.add(&plan.RouteDefault{Link: e.Interface, Via: subnet.Gateway.String()}, from,
			"Everything beyond the subnet goes through the host.")
	}
	if len(e.Ports) > 0 {
		w.add(&plan.NftPublish{Table: n.Table(), Ports: rules(e)}, w.origin("publish"),
			"Connections to these ports of the host are sent on to the container by the kernel itself; no process stands between.")
	}
}

// bridgeOf is the step that makes a network's bridge: when the network is made (Store.Open), and again where somebody removed it.
func bridgeOf(n Network) *plan.LinkBridge {
	return &plan.LinkBridge{Name: n.Link, Address: n.IPv4().withBits().String(), MTU: n.MTU, Sysctls: []string{
		"net/ipv4/conf/" + n.Link + "/forwarding=1",
		"net/ipv4/conf/" + n.Link + "/route_localnet=1",
		"net/ipv6/conf/" + n.Link + "/disable_ipv6=1",
	}}
}

// guard are the settings by which a container doesn't believe what its neighbours say of the network: a router advertisement gives
// every host that hears it an address, a default route and a name server of the sender's choice, and the kernel's default is to
// listen (accept_ra in Documentation/networking/ip-sysctl.rst). Where the network has no IPv6, there is nothing to say by it at all;
// the loopback interface keeps ::1.
func guard(n Network, e Endpoint) []string {
	if n.hasIPv6() {
		return []string{"net/ipv6/conf/" + e.Interface + "/accept_ra=0"}
	}
	return []string{"net/ipv6/conf/" + e.Interface + "/disable_ipv6=1"}
}

func cable(n Network) string {
	const is = "A cable with one plug in the bridge and the other in the container's network namespace. "
	if n.hasIPv6() {
		return is + "The container believes no router advertisements, which any neighbour could send (accept_ra)."
	}
	return is + "It has no IPv6, as the network has none: a neighbour could make himself its router otherwise (disable_ipv6)."
}

// none is a network namespace without any connection.
func none(_ Network, _ Endpoint, w *writer) { w.loopback("default") }

func (w *writer) loopback(origin string) {
	if w.up {
		return // the container's second network
	}
	w.up = true
	w.add(&plan.LinkAddress{Link: "lo"}, origin,
		"A new network namespace has a loopback interface that is down; programs expect to reach themselves at 127.0.0.1.")
}

// Loopback returns the step for a network namespace without any connection.
func Loopback() []plan.Step {
	w := &writer{}
	none(Network{}, Endpoint{}, w)
	return w.steps
}

// rules gives the published ports of an endpoint as the plan has them.
func rules(e Endpoint) []plan.PortRule {
	out := make([]plan.PortRule, len(e.Ports))
	for i, p := range e.Ports {
		out[i] = plan.PortRule{Proto: p.Proto, HostPort: p.HostPort, ContainerIP: e.IP.String(), ContainerPort: p.ContainerPort}
		if p.HostIP.IsValid() {
			out[i].HostIP = p.HostIP.String()
		}
	}
	return out
}
