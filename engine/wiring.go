package engine

import (
	"net/netip"
	"slices"
	"strings"

	"glassbox/container"
	"glassbox/network"
	"glassbox/plan"
	"glassbox/spec"
	"glassbox/supervise"
)

// wiring is a container's place in its networks, and the files that tell it about it.
type wiring struct {
	steps     []plan.Step
	job       *supervise.Network
	hosts     []byte
	resolv    []byte
	resolver  []byte // what the container's own resolver knows; nil: it has none
	container string // id of the container whose network is shared
	release   func() // gives back what was leased
}

// wire finds the container's addresses and ports and writes the steps for them. With lease, addresses are taken; without
// (explain), likely ones are shown. again says that it may have run before.
func (e *Engine) wire(c *container.Container, s *spec.Output, lease, again bool) (*wiring, error) {
	if container.Mode(c.Network()).Container() != "" {
		return &wiring{container: s.Network, release: func() {}}, nil
	}
	r, err := request(c, s)
	if err != nil {
		return nil, err
	}
	r.Again = again
	found, err := e.networks().Wire(r, lease, originOf(&c.Config))
	if err != nil {
		return nil, err
	}
	w := &wiring{steps: found.Steps, hosts: found.Hosts, resolv: found.ResolvConf, resolver: found.Resolver, release: func() {}}
	// A plan that is only shown must take nothing: its addresses are likely ones, and nobody would give them back.
	if !lease {
		return w, nil
	}
	w.release = found.Release
	for _, end := range found.Endpoints {
		for _, a := range end.Addresses() {
			if w.job == nil {
				w.job = &supervise.Network{State: e.networks().State, Ports: found.Ports()}
			}
			w.job.Leases = append(w.job.Leases, supervise.Lease{Network: end.Network, Address: a.String()})
		}
	}
	return w, nil
}

// request is the one place where what a container is becomes what it asks of its networks.
func request(c *container.Container, s *spec.Output) (network.Request, error) {
	o := &c.Config
	r := network.Request{
		Container: c.ID, Name: c.Name, Hostname: s.Spec.Hostname, Domainname: o.Domainname, Resolver: o.DNS, Hosts: o.Hosts,
		Egress: o.Egress, Ingress: o.Ingress, Rates: o.Rates,
	}
	endpoints := o.Networks()
	if s.Network == network.Host { // --network host, or --ns without net
		endpoints = endpoints[:1]
		endpoints[0].Network = network.Host
	}
	var err error
	for _, e := range endpoints {
		a, err := attachment(e)
		if err != nil {
			return r, err
		}
		r.Networks = append(r.Networks, a)
	}
	if s.Network != network.None && s.Network != network.Host { // there they are discarded, with a warning (spec)
		r.Ports, err = ports(c)
	}
	return r, err
}

// attachment is an endpoint as a network is asked for it.
func attachment(e container.Endpoint) (a network.Attachment, err error) {
	a = network.Attachment{
		Network: e.Network, MAC: e.MAC, Interface: e.Name, Aliases: e.Aliases, Links: e.Links,
		Priority: e.Priority, Origin: e.Origin,
	}
	if e.IP != "" {
		if a.IP, err = netip.ParseAddr(e.IP); err != nil {
			return a, invalid("--ip: %w", err)
		}
	}
	if e.IP6 != "" {
		if a.IP6, err = netip.ParseAddr(e.IP6); err != nil {
			return a, invalid("--ip6: %w", err)
		}
	}
	for _, text := range e.LinkLocal {
		ip, err := netip.ParseAddr(text)
		if err != nil {
			return a, invalid("--link-local-ip: %w", err)
		}
		a.LinkLocal = append(a.LinkLocal, ip)
	}
	if text := e.Options[container.SysctlOption]; text != "" {
		a.Sysctls = strings.Split(text, ",")
	}
	return a, nil
}

// originOf says which flag a step of the network comes from.
func originOf(o *container.Config) func(what string) string {
	return func(what string) string {
		if what == "publish" {
			return publishWords(o)
		}
		if what == "wall" {
			if text := strings.TrimSpace(o.Origin("egress") + " " + o.Origin("ingress")); text != "" {
				return text
			}
			what = "network" // a wall of the network's
		}
		if what == "rate" {
			return strings.Join(strings.Fields(o.Origin("net-rate-in")+" "+o.Origin("net-rate-out")+" "+o.Origin("net-burst")), " ")
		}
		if text := o.Origin(what); text != "" {
			return text
		}
		return "default"
	}
}

// publishWords are the flags that publish ports, as typed.
func publishWords(o *container.Config) string {
	var words []string
	for _, p := range o.Ports {
		if !slices.Contains(words, p.Origin) { // a range is one flag and several ports
			words = append(words, p.Origin)
		}
	}
	if o.PublishAll {
		words = append(words, "-P")
	}
	return strings.Join(words, " ")
}

// ports are those of -p and -P.
func ports(c *container.Container) ([]container.Port, error) {
	ports := slices.Clone(c.Config.Ports) // the network writes into it what it chose
	if !c.Config.PublishAll {
		return ports, nil
	}
	for _, text := range c.Exposed() {
		exposed, err := container.ParsePorts(text)
		if err != nil {
			return nil, invalid("EXPOSE of the image: %w", err)
		}
		for _, p := range exposed {
			// A container's side alone: an image has no say in the host's. What -p publishes is published, as with Docker.
			p = container.Port{ContainerPort: p.ContainerPort, Proto: p.Proto}
			if !slices.ContainsFunc(c.Config.Ports, func(o container.Port) bool { return o.Key() == p.Key() }) {
				ports = append(ports, p)
			}
		}
	}
	return ports, nil
}
