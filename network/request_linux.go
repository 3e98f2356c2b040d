package network

import (
	"fmt"
	"net/netip"
	"os"

	"golang.org/x/sys/unix"

	"glassbox/container"
	"glassbox/plan"
	"glassbox/wire"
)

// Request is what a container asks of its networks.
type Request struct {
	Container            string // id
	Hostname, Domainname string // as /etc/hosts shall say them
	Networks             []Attachment
	Ports                []container.Port // published on the first network that can
	Resolver             container.Resolver
	Hosts                []container.HostEntry
}

// Attachment is a network that a container is to be on. What is left out is chosen.
type Attachment struct {
	Network   string
	IP        netip.Addr
	MAC       string
	Interface string // of the container
}

// Wiring is a container's place in its networks, and the files that tell it about it.
type Wiring struct {
	Endpoints   []Endpoint
	Steps       []plan.Step
	Hosts       []byte // /etc/hosts
	ResolvConf  []byte // /etc/resolv.conf
	store       Store
	containerID string
}

// Wire finds a container's addresses and ports and writes the steps for them. With lease, addresses are taken, until Release;
// without (explain), likely ones are shown. origin is that of Steps.
func (s Store) Wire(r Request, lease bool, origin func(what string) string) (_ *Wiring, err error) {
	w := &Wiring{store: s, containerID: r.Container}
	defer func() {
		if err != nil {
			w.Release()
		}
	}()
	ports := r.Ports
	if err := choosePorts(ports); err != nil {
		return nil, err
	}
	var first Network // that the container reaches the host by
	for i, a := range r.Networks {
		n, e, err := s.attach(r.Container, a, i, lease)
		if err != nil {
			return nil, err
		}
		// Ports go to the first network that has any, as with Docker: a port of the host can lead to one address only.
		if n.Driver == Bridge {
			e.Ports, ports = ports, nil
		}
		w.Endpoints = append(w.Endpoints, e)
		steps, err := Steps(n, e, origin)
		if err != nil {
			return nil, err
		}
		w.Steps = append(w.Steps, steps...)
		if i == 0 {
			first = n
		}
	}
	f := Files{
		HostNetwork: first.Driver == Host, Gateway: first.IPv4().Gateway, Hostname: r.Hostname, Domainname: r.Domainname,
		Resolver: r.Resolver, Hosts: r.Hosts,
	}
	if len(w.Endpoints) > 0 {
		f.IP = w.Endpoints[0].IP
	}
	w.Hosts, w.ResolvConf, err = f.Write()
	return w, err
}

// attach makes an endpoint of one network, and leases its address.
func (s Store) attach(id string, a Attachment, i int, lease bool) (Network, Endpoint, error) {
	open := s.Likely
	if lease {
		open = s.Open
	}
	n, err := open(a.Network)
	if err != nil {
		return n, Endpoint{}, err
	}
	e := Endpoint{Network: n.Name, Interface: a.Interface, Link: VethName(id, i), IP: a.IP, MAC: a.MAC}
	if e.Interface == "" {
		e.Interface = InterfaceName(i)
	}
	subnet := n.IPv4()
	switch {
	case !subnet.Prefix.IsValid():
		return n, e, nil // a network without addresses
	case lease:
		if e.IP, err = s.Lease(n, id, a.IP); err != nil {
			return n, e, err
		}
	case !e.IP.IsValid():
		e.IP = subnet.Gateway.Next()
	}
	if e.MAC == "" {
		e.MAC = wire.MAC(e.IP)
	}
	return n, e, nil
}

// choosePorts chooses host ports where none are given. The supervisor takes the ports again; between now and then another program
// could be quicker, which is then an error.
func choosePorts(ports []container.Port) error {
	open := false
	for _, p := range ports {
		open = open || p.HostPort == 0 || p.HostEnd > p.HostPort
	}
	if !open {
		return nil
	}
	fds, err := Reserve(ports)
	// Only to learn numbers that are free now; the supervisor takes them for good, because this process ends before the container does.
	for _, fd := range fds {
		unix.Close(fd)
	}
	return err
}

// Files are what /etc/hosts and /etc/resolv.conf of a container are made of.
type Files struct {
	HostNetwork          bool       // the container's network is the host's
	IP, Gateway          netip.Addr // zero: it has none
	Hostname, Domainname string
	Resolver             container.Resolver
	Hosts                []container.HostEntry
}

// Write returns the contents of /etc/hosts and /etc/resolv.conf. It reads the host's.
func (f Files) Write() (hosts, resolvConf []byte, err error) {
	gateway := f.Gateway
	if f.HostNetwork {
		gateway = netip.AddrFrom4([4]byte{127, 0, 0, 1}) // the host is where the container is
	}
	extra := make([]container.HostEntry, len(f.Hosts))
	for i, e := range f.Hosts {
		if extra[i], err = entryAt(e, gateway); err != nil {
			return nil, nil, err
		}
	}
	resolv, _ := os.ReadFile("/etc/resolv.conf") // without one, there are FallbackServers
	if f.HostNetwork {
		// In the host's network the host's names are true, and the container's own entries come after them.
		hosts, _ = os.ReadFile("/etc/hosts")
		for _, e := range extra {
			hosts = fmt.Appendf(hosts, "%s\t%s\n", e.IP, e.Name)
		}
		return hosts, overHost(resolv, f.Resolver), nil
	}
	var stub []byte
	if StubOnly(resolv) {
		stub, _ = os.ReadFile(StubFile)
	}
	return Hosts(f.IP, gateway, f.Hostname, f.Domainname, extra), ResolvConf(resolv, stub, f.Resolver), nil
}

// Release gives the addresses back.
func (w *Wiring) Release() {
	for _, e := range w.Endpoints {
		if e.IP.IsValid() {
			_ = w.store.Release(e.Network, e.IP, w.containerID) // what can't be given back now, Repair finds: the container is gone
		}
	}
}

// Ports are the published ports as the plan has them.
func (w *Wiring) Ports() []plan.PortRule {
	var out []plan.PortRule
	for _, e := range w.Endpoints {
		out = append(out, rules(e)...)
	}
	return out
}
