package network

import (
	"fmt"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"

	"glassbox/container"
	"glassbox/plan"
)

// Plug writes what connects a container that runs already to one more network, r.Networks[0], as its i-th cable. With out, the network
// becomes its way to the rest of the world, which it must have lacked. The address is leased until Release.
// Where replace is set, too, it has one, which gives way.
func (s Store) Plug(r Request, i int, out, replace, resolves bool, origin string) (_ *Wiring, err error) {
	w := &Wiring{store: s, containerID: r.Container}
	defer func() {
		if err != nil {
			// Its address would stay leased until the next repair.
			w.Release()
		}
	}()
	n, e, err := s.attach(r, r.Networks[0], i, true)
	if err != nil {
		return nil, err
	}
	// The way out is one network's: the one that is plugged in has it if it can lead there, and the container lacks one.
	e.Default = out && gateway([]Network{n}, r.Networks) == 0
	w.Endpoints = []Endpoint{e}
	steps := &writer{origin: func(string) string { return origin }, up: true}
	if err := steps.connect(n, e); err != nil {
		return nil, err
	}
	if resolves {
		steps.name(s, r.Container, n, e, origin)
	}
	w.Steps = steps.steps
	for _, step := range w.Steps {
		if op, ok := step.Op.(*plan.RouteDefault); ok {
			op.Replace = replace
		}
	}
	return w, nil
}

// Published gives the ports of a container that runs as the plan has them: on the host's side of n, the network by which it reaches the
// rest of the world, on which it has some addresses. Ports that are to be chosen are chosen, and those that held doesn't know are seen to
// be free.
func (n Network) Published(addresses []netip.Addr, ports []container.Port, held func(container.Port) bool) ([]plan.PortRule, error) {
	e := Endpoint{}
	for _, a := range addresses {
		if a.Is4() {
			e.IP = a
		} else {
			e.IP6 = a
		}
	}
	wanted := ports
	if n.HostIP.IsValid() {
		ports = bound(ports, n.HostIP)
	}
	if err := n.canPublish(e, ports); err != nil {
		return nil, err
	}
	for i := range ports {
		// A port that the container has published already is bound by it: trying it would find it taken.
		if held(ports[i]) {
			continue
		}
		fds, err := Reserve(ports[i : i+1])
		for _, fd := range fds {
			// Only tried here: whoever publishes it binds it for good, and says so if somebody was faster.
			unix.Close(fd)
		}
		if err != nil {
			return nil, err
		}
		wanted[i].HostPort, wanted[i].HostEnd = ports[i].HostPort, ports[i].HostEnd
	}
	e.Ports = ports
	return rules(e), nil
}

// Plugged is what the steps of a plan made of one endpoint.
type Plugged struct {
	Steps     []int  // their numbers, counted from 0
	Peer      string // the container's interface
	Addresses []netip.Addr
	Default   bool
}

// PluggedInto finds the steps that connect a container to a network whose bridge is link.
func PluggedInto(p *plan.Plan, n Network, names string) (Plugged, bool) {
	var out Plugged
	// In one pass: the step that makes a link stands before those that use it, so its names are known when they come.
	end := "" // the host's, of the cable
	below := -1
	for i, step := range p.Steps {
		switch op := step.Op.(type) {
		case *plan.LinkBridge:
			if op.Name == n.Link && n.Link != "" {
				out.Steps = append(out.Steps, i)
			}
		case *plan.NftBridge:
			if op.Bridge == n.Link {
				out.Steps = append(out.Steps, i)
			}
		case *plan.LinkVeth:
			if op.Bridge == n.Link {
				out.Peer, end, out.Steps = op.Peer, op.Name, append(out.Steps, i)
			}
		case *plan.LinkMacvlan:
			if n.onParent() && op.Parent == n.parent() && n.addressed(p, op.Name) {
				if below >= 0 {
					out.Steps = append(out.Steps, below)
				}
				out.Peer, out.Steps = op.Name, append(out.Steps, i)
			}
			below = -1
		case *plan.LinkVLAN: // right before the link on top of it
			if below = -1; op.Name == n.Parent {
				below = i
			}
		case *plan.LinkRate:
			if end != "" && op.Link == end || op.Inside && out.Peer != "" && op.Link == out.Peer {
				out.Steps = append(out.Steps, i)
			}
		case *plan.NftWall:
			if end != "" && op.Link == end {
				out.Steps = append(out.Steps, i)
			}
		case *plan.LinkAddress:
			if out.Peer != "" && op.Link == out.Peer {
				out.Steps = append(out.Steps, i)
				if p, err := netip.ParsePrefix(op.Address); err == nil && !p.Addr().IsLinkLocalUnicast() {
					out.Addresses = append(out.Addresses, p.Addr())
				}
			}
		case *plan.RouteDefault:
			if out.Peer != "" && op.Link == out.Peer {
				out.Default, out.Steps = true, append(out.Steps, i)
			}
		case *plan.NftGuard:
			if op.Table == n.Table() {
				out.Steps = append(out.Steps, i)
			}
		case *plan.FirewallAccept:
			if op.Link == n.Link {
				out.Steps = append(out.Steps, i)
			}
		case *plan.NftPublish:
			if op.Table == n.Table() {
				out.Steps = append(out.Steps, i)
			}
		case *plan.PortCarry:
			if len(op.Ports) > 0 && slices.ContainsFunc(out.Addresses, func(a netip.Addr) bool { return a.String() == op.Ports[0].ContainerIP }) {
				out.Steps = append(out.Steps, i)
			}
		case *plan.NameAdd:
			if op.Dir == names {
				out.Steps = append(out.Steps, i)
			}
		}
	}
	return out, out.Peer != ""
}

// addressed reports whether a plan gives a link an address of the network: two networks may be on top of one parent.
func (n Network) addressed(p *plan.Plan, link string) bool {
	return slices.ContainsFunc(p.Steps, func(s plan.Step) bool {
		op, ok := s.Op.(*plan.LinkAddress)
		if !ok || op.Link != link {
			return false
		}
		a, err := netip.ParsePrefix(op.Address)
		return err == nil && slices.ContainsFunc(n.Subnets, func(s Subnet) bool { return s.Prefix.Contains(a.Addr()) })
	})
}

// Splice puts steps into a plan, behind the last one of the host's that wires the network.
func Splice(p *plan.Plan, steps []plan.Step) error {
	at := -1
	for i, s := range p.Steps {
		if s.Lane == plan.Host && s.Phase == plan.Network {
			at = i
		}
	}
	if at < 0 {
		return fmt.Errorf("the container's plan wires no network")
	}
	// Nothing follows a Release but what the child doesn't wait for.
	for at >= 0 {
		if _, ok := p.Steps[at].Op.(*plan.Release); !ok {
			break
		}
		at--
	}
	p.Steps = slices.Insert(p.Steps, at+1, steps...)
	return p.Validate()
}
