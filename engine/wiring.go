package engine

import (
	"net/netip"
	"strings"

	"glassbox/network"
	"glassbox/plan"
	"glassbox/supervise"
)

// wiring is a container's place in its networks, and the files that tell it about it.
type wiring struct {
	steps     []plan.Step
	job       *supervise.Network
	hosts     []byte
	resolv    []byte
	container string // id of the container whose network is shared
	release   func() // gives back what was leased
}

// wire finds the container's addresses and ports and writes the steps for them. With lease, addresses are taken; without
// (explain), likely ones are shown.
func (e *Engine) wire(c *Container, s *specification, lease bool) (*wiring, error) {
	switch s.network {
	case network.Bridge, network.None, network.Host:
	default:
		return &wiring{container: s.network, release: func() {}}, nil
	}
	r, err := e.request(c, s)
	if err != nil {
		return nil, err
	}
	found, err := e.networks().Wire(r, lease, originOf(&c.Options))
	if err != nil {
		return nil, err
	}
	w := &wiring{steps: found.Steps, hosts: found.Hosts, resolv: found.ResolvConf, release: func() {}}
	if !lease {
		return w, nil
	}
	w.release = found.Release
	for _, end := range found.Endpoints {
		if end.IP.IsValid() {
			if w.job == nil {
				w.job = &supervise.Network{State: e.networks().State, Ports: found.Ports()}
			}
			w.job.Leases = append(w.job.Leases, supervise.Lease{Network: end.Network, Address: end.IP.String()})
		}
	}
	return w, nil
}

// request is the one place where a container's options become what it asks of its networks.
func (e *Engine) request(c *Container, s *specification) (network.Request, error) {
	o := &c.Options
	r := network.Request{
		Container: c.ID, Hostname: s.spec.Hostname, Domainname: o.Domainname,
		Resolver: network.Resolver{Servers: o.DNS, Search: o.DNSSearch, Options: o.DNSOption},
	}
	end := network.Attachment{Network: s.network, MAC: o.MAC}
	var err error
	if o.IP != "" {
		if end.IP, err = netip.ParseAddr(o.IP); err != nil {
			return r, invalid("--ip: %w", err)
		}
	}
	r.Networks = []network.Attachment{end}
	for _, server := range o.DNS {
		if _, err := netip.ParseAddr(server); err != nil {
			return r, invalid("--dns %s: it is no IP address", server)
		}
	}
	for _, text := range o.AddHost {
		entry, err := network.ParseAddHost(text)
		if err != nil {
			return r, invalid("%w", err)
		}
		r.Hosts = append(r.Hosts, entry)
	}
	r.Ports, err = ports(o, s)
	return r, err
}

// originOf says which flag a step of the network comes from.
func originOf(o *CreateOptions) func(what string) string {
	return func(what string) string {
		if what == "publish" {
			return strings.Join(append(prefixed("-p ", o.Publish), when(o.PublishAll, "-P")...), " ")
		}
		if text, ok := o.Flags[what]; ok {
			return text
		}
		return "default"
	}
}

func prefixed(p string, words []string) []string {
	out := make([]string, len(words))
	for i, w := range words {
		out[i] = p + w
	}
	return out
}

func when(ok bool, word string) []string {
	if ok {
		return []string{word}
	}
	return nil
}

// ports reads -p and -P.
func ports(o *CreateOptions, s *specification) ([]network.Port, error) {
	var ports []network.Port
	for _, text := range o.Publish {
		p, err := network.ParsePublish(text)
		if err != nil {
			return nil, invalid("%w", err)
		}
		ports = append(ports, p...)
	}
	if o.PublishAll && s.image != nil {
		exposed, err := s.image.ExposedPorts()
		if err != nil {
			return nil, invalid("%w", err)
		}
		for _, port := range exposed {
			p, err := network.ParsePublish(port.String()) // a container's side alone: an image has no say in the host's
			if err != nil {
				return nil, invalid("EXPOSE of the image: %w", err)
			}
			ports = append(ports, p...)
		}
	}
	return ports, nil
}
