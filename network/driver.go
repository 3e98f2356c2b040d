package network

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"glassbox/container"
	"glassbox/plan"
)

// A driver writes the steps that connect one container to a network. That is all there is to a driver: what the steps do is known to
// plan, fork, explain and verify.
type driver func(n Network, e Endpoint, w *writer)

// namedDriver is a driver with its name.
type namedDriver struct {
	name    string
	write   driver
	builtin bool // its one network is always there, and none can be made
}

// drivers is the only list of them: what can be made, what is told and what is written follow from it.
func drivers() []namedDriver {
	return []namedDriver{
		{Bridge, bridge, false},
		{Macvlan, macvlan, false},
		{Ipvlan, macvlan, false},
		{None, none, true},
		{Host, func(Network, Endpoint, *writer) {}, true}, // the container's network namespace is the host's
	}
}

// Drivers are the names of the drivers there are, sorted.
func Drivers() []string {
	var names []string
	for _, d := range drivers() {
		names = append(names, d.name)
	}
	slices.Sort(names)
	return names
}

// driverOf returns a driver, or nil for a name that none has.
func driverOf(name string) driver {
	for _, d := range drivers() {
		if d.name == name {
			return d.write
		}
	}
	return nil
}

// checkDriver refuses drivers with which no network can be made.
func checkDriver(name string) error {
	var can []string
	for _, d := range drivers() {
		switch {
		case d.builtin:
		case d.name == name:
			return nil
		default:
			can = append(can, d.name)
		}
	}
	last := len(can) - 1
	return fmt.Errorf("there is no driver %q: want %s or %s", name, strings.Join(can[:last], ", "), can[last])
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
	from := w.origin("network")
	if e.MAC == "" {
		e.MAC = macOf(e)
	}
	w.add(&plan.NftBridge{Table: n.Table(), Bridge: n.Link, Subnet: n.primary().Prefix.String(), Rules: Rules(n)}, from,
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
	for _, setting := range n.Forward6 { // none, where the host is a router of IPv6
		name, value, _ := strings.Cut(setting, "=")
		w.add(&plan.WriteFile{Path: "/proc/sys/net/ipv6/conf/" + name, Value: value}, from,
			"Packets of IPv6 have to be forwarded between the outside and the bridge; the firewall drops what comes in there and isn't for the "+
				"bridge. Where the whole host becomes a router, it goes on listening to its own (accept_ra=2).")
	}
	if n.guarded() {
		w.add(&plan.NftGuard{Table: n.Table(), Link: e.Link, MAC: e.MAC, Addresses: e.guarded()}, from,
			"What comes out of this cable has the container's own addresses, or goes nowhere: it can't speak for the gateway or for another "+
				"container (ARP, neighbour advertisements), nor send with their addresses.")
	}
	w.add(&plan.LinkVeth{
		Name: e.Link, Peer: e.Interface, Bridge: n.Link, MAC: e.MAC, MTU: n.MTU, Hairpin: len(e.Ports) > 0, Isolated: n.Isolated,
		Sysctls: append(guard(n, e), e.Sysctls...),
	}, from, cable(n))
	w.rate(e)
	w.wall(n, e)
	w.loopback(from)
	w.addresses(n, e, from)
	by := func(carried bool) (out []plan.PortRule) {
		for _, r := range rules(e) {
			if r.Carried() == carried {
				out = append(out, r)
			}
		}
		return out
	}
	if ports := by(false); len(ports) > 0 {
		w.add(&plan.NftPublish{Table: n.Table(), Ports: ports}, w.origin("publish"),
			"Connections to these ports of the host are sent on to the container by the kernel itself; no process stands between. "+
				reachedBy(ports))
	}
	if ports := by(true); len(ports) > 0 {
		w.add(&plan.PortCarry{Ports: ports}, w.origin("publish"),
			"No rule of the kernel leads from these addresses to the container: the container's supervisor listens there and carries what comes. "+
				"The container sees the host's address as the other end. "+reachedBy(ports))
	}
}

// reachedBy says who can reach published ports.
func reachedBy(ports []plan.PortRule) string {
	var whos []string
	numbers := map[string][]string{}
	for _, p := range ports {
		host := p.HostIP
		if a, err := netip.ParseAddr(p.ContainerIP); host == "" && err == nil {
			host = map[bool]string{false: "0.0.0.0", true: "::"}[a.Is6()]
		}
		who := container.ReachedBy(host)
		if numbers[who] == nil {
			whos = append(whos, who)
		}
		numbers[who] = append(numbers[who], strconv.Itoa(int(p.HostPort)))
	}
	for i, who := range whos {
		n := numbers[who]
		if len(n) > 4 {
			n = append(n[:3:3], fmt.Sprintf("and %d more", len(n)-3))
		}
		whos[i] = strings.Join(n, ", ") + ": " + who
	}
	return "Who reaches them: " + strings.Join(whos, "; ") + "."
}

// addresses writes an endpoint's addresses and default routes.
func (w *writer) addresses(n Network, e Endpoint, from string) {
	for _, a := range e.Addresses() {
		subnet := n.IPv4()
		if a.Is6() {
			subnet = n.IPv6()
		}
		w.add(&plan.LinkAddress{Link: e.Interface, Address: netip.PrefixFrom(a, subnet.Prefix.Bits()).String()}, from,
			"The container's address, leased from the "+n.Driver+"'s subnet.")
	}
	for _, a := range e.LinkLocal {
		bits := 16
		if a.Is6() {
			bits = 64
		}
		w.add(&plan.LinkAddress{Link: e.Interface, Address: netip.PrefixFrom(a, bits).String()}, from,
			"A further address, for the container's direct neighbours alone.")
	}
	if !e.Default {
		return
	}
	for _, op := range n.DefaultRoutes(e.Interface) {
		reason := "Everything beyond the subnet goes through the host."
		if op.Via == "" {
			reason = "Everybody is reached by this link, without a router of the container's own."
		}
		w.add(op, from, reason)
	}
}

// DefaultRoutes are a container's ways to the rest of the world by its link on the network.
func (n Network) DefaultRoutes(link string) (out []*plan.RouteDefault) {
	for _, subnet := range []Subnet{n.IPv4(), n.IPv6()} {
		switch {
		case n.routedOnParent() && subnet.Prefix.IsValid():
			out = append(out, &plan.RouteDefault{Link: link, IPv6: subnet.Prefix.Addr().Is6()})
		case subnet.Gateway.IsValid():
			out = append(out, &plan.RouteDefault{Link: link, Via: subnet.Gateway.String()})
		}
	}
	return out
}

// bridgeOf is the step that makes a network's bridge: when the network is made (Store.Open), and again where somebody removed it.
func bridgeOf(n Network) *plan.LinkBridge {
	op := &plan.LinkBridge{Name: n.Link, MTU: n.MTU, Sysctls: []string{
		"net/ipv4/conf/" + n.Link + "/forwarding=1",
		"net/ipv4/conf/" + n.Link + "/route_localnet=1",
		"net/ipv6/conf/" + n.Link + "/disable_ipv6=1",
	}}
	if s := n.IPv4(); s.Prefix.IsValid() {
		op.Address = s.withBits().String()
	}
	if s := n.IPv6(); s.Prefix.IsValid() {
		op.Address6 = s.withBits().String()
		op.Sysctls[2] = "net/ipv6/conf/" + n.Link + "/disable_ipv6=0"
		op.Sysctls = append(op.Sysctls, "net/ipv6/conf/"+n.Link+"/accept_ra=0")
		if len(n.Opened6) > 0 && !slices.Contains(n.Forward6, "all/forwarding=1") {
			op.Sysctls = append(op.Sysctls, "net/ipv6/conf/"+n.Link+"/force_forwarding=1")
		}
	}
	return op
}

// guard are the settings by which a container doesn't believe what its neighbours say of the network: a router advertisement gives
// every host that hears it an address, a default route and a name server of the sender's choice, and the kernel's default is to
// listen (accept_ra in Documentation/networking/ip-sysctl.rst). Where the network has no IPv6, there is nothing to say by it at all;
// the loopback interface keeps ::1.
func guard(n Network, e Endpoint) []string {
	if n.hasIPv6() {
		conf := "net/ipv6/conf/" + e.Interface
		// The guard knows the link-local address that is made of the hardware address (addr_gen_mode 0), and that nobody else has it
		// (accept_dad).
		return []string{conf + "/disable_ipv6=0", conf + "/accept_ra=0", conf + "/addr_gen_mode=0", conf + "/accept_dad=0"}
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

// rules gives the published ports of an endpoint as the plan has them. A port on an address of a version of IP that the container doesn't
// have, or on ::1, is one that is carried.
func rules(e Endpoint) []plan.PortRule {
	var out []plan.PortRule
	for _, p := range e.Ports {
		add := func(host string, to netip.Addr) {
			out = append(out, plan.PortRule{
				Proto: p.Proto, HostIP: host, HostPort: p.HostPort, ContainerIP: to.String(), ContainerPort: p.ContainerPort,
			})
		}
		same := e.IP
		if p.HostIP.Is6() {
			same = e.IP6
		}
		switch {
		case !p.HostIP.IsValid(): // every address of the versions of IP that the container has
			for _, to := range e.Addresses() {
				add("", to)
			}
		case same.IsValid() && p.HostIP.IsUnspecified():
			add("", same)
		case same.IsValid(): // ::1 is one that is carried, too
			add(p.HostIP.String(), same)
		default:
			for _, to := range e.Addresses() {
				add(p.HostIP.String(), to)
			}
		}
	}
	return out
}
