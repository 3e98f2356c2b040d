package engine

import (
	"fmt"
	"glassbox/network"
	"glassbox/plan"
	"glassbox/supervise"
	"net/netip"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// wiring is a container's place in a network, and the files that tell it about it.
type wiring struct {
	steps     []plan.Step
	job       *supervise.Network
	hosts     []byte
	resolv    []byte
	container string // id of the container whose network is shared
}

// wire finds the container's address and ports and writes the steps for them. With lease, the address is taken; without
// (explain), a likely one is shown.
func (e *Engine) wire(c *Container, s *specification, lease bool) (*wiring, error) {
	o := &c.Options
	origin := func(what string) string {
		if what == "publish" {
			return strings.Join(append(prefixed("-p ", o.Publish), when(o.PublishAll, "-P")...), " ")
		}
		if text, ok := o.Flags[what]; ok {
			return text
		}
		return "default"
	}
	w := &wiring{}
	gateway, ip := netip.Addr{}, netip.Addr{}
	switch s.network {
	case "none":
		w.steps = network.Loopback()
	case "host":
	case "bridge":
		find := network.LikelyBridge
		if lease {
			find = network.DefaultBridge
		}
		bridge, err := find(e.networkState(), e.networkConfig())
		if err != nil {
			return nil, err
		}
		var want netip.Addr
		if o.IP != "" {
			if want, err = netip.ParseAddr(o.IP); err != nil {
				return nil, invalid("--ip: %w", err)
			}
		}
		gateway, ip = bridge.Gateway, want
		if lease {
			if ip, err = network.Lease(e.networkState(), bridge, c.ID, want); err != nil {
				return nil, err
			}
			w.job = &supervise.Network{State: e.networkState(), Address: ip.String()}
		} else if !ip.IsValid() {
			ip = bridge.Gateway.Next()
		}
		ports, err := e.ports(o, s)
		if err != nil {
			e.release(w.job, c.ID)
			return nil, err
		}
		mac := o.MAC
		if mac == "" {
			mac = network.MAC(ip)
		}
		w.steps = network.Steps(network.Endpoint{Bridge: bridge, IP: ip, MAC: mac, Veth: network.VethName(c.ID), Ports: ports}, origin)
		for _, step := range w.steps {
			if p, ok := step.Op.(*plan.NftPublish); ok && w.job != nil {
				w.job.Ports = p.Ports
			}
		}
	default:
		w.container = s.network
		return w, nil
	}
	for _, server := range o.DNS {
		if _, err := netip.ParseAddr(server); err != nil {
			e.release(w.job, c.ID)
			return nil, invalid("--dns %s: it is no IP address", server)
		}
	}
	var extra []network.HostEntry
	for _, text := range o.AddHost {
		entry, err := network.ParseAddHost(text, gateway)
		if err != nil {
			e.release(w.job, c.ID)
			return nil, invalid("%w", err)
		}
		extra = append(extra, entry)
	}
	hostResolv, _ := os.ReadFile("/etc/resolv.conf")
	if s.network == "host" {
		w.resolv = hostResolv
		w.hosts, _ = os.ReadFile("/etc/hosts")
		for _, entry := range extra {
			w.hosts = fmt.Appendf(w.hosts, "%s\t%s\n", entry.IP, entry.Name)
		}
	} else {
		var stub []byte
		if network.StubOnly(hostResolv) {
			stub, _ = os.ReadFile(network.StubFile)
		}
		w.resolv = network.ResolvConf(hostResolv, stub, network.Resolver{Servers: o.DNS, Search: o.DNSSearch, Options: o.DNSOption})
		w.hosts = network.Hosts(ip, gateway, s.spec.Hostname, o.Domainname, extra)
	}
	return w, nil
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

// ports reads -p and -P, and chooses host ports where none are given.
func (e *Engine) ports(o *CreateOptions, s *specification) ([]network.Port, error) {
	var ports []network.Port
	for _, text := range o.Publish {
		p, err := network.ParsePublish(text)
		if err != nil {
			return nil, invalid("%w", err)
		}
		ports = append(ports, p...)
	}
	if o.PublishAll && s.image != nil {
		exposed := make([]string, 0, len(s.image.Config.Config.ExposedPorts))
		for port := range s.image.Config.Config.ExposedPorts {
			exposed = append(exposed, port)
		}
		slices.Sort(exposed)
		for _, text := range exposed {
			p, err := network.ParsePublish(text)
			if err != nil {
				return nil, invalid("EXPOSE of the image: %w", err)
			}
			ports = append(ports, p...)
		}
	}
	if slices.ContainsFunc(ports, func(p network.Port) bool { return p.HostPort == 0 || p.HostEnd > p.HostPort }) {
		// The supervisor takes the ports again; between now and then another program could be quicker, which is then an error.
		fds, err := network.Reserve(ports)
		if err != nil {
			return nil, err
		}
		for _, fd := range fds {
			unix.Close(fd)
		}
	}
	return ports, nil
}

func (e *Engine) release(n *supervise.Network, id string) {
	if n == nil {
		return
	}
	if addr, err := netip.ParseAddr(n.Address); err == nil {
		network.ReleaseLease(n.State, addr, id)
	}
}
