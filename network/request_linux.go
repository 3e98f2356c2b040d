package network

import (
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"glassbox/container"
	"glassbox/dns"
	"glassbox/plan"
)

// Request is what a container asks of its networks.
type Request struct {
	Container            string // id
	Again                bool   // it has been on a network before
	Name                 string // by which others find it
	Hostname, Domainname string // as /etc/hosts shall say them
	Networks             []Attachment
	Ports                []container.Port // published on the first network that can
	Resolver             container.Resolver
	Hosts                []container.HostEntry
	Rates                container.Rates
	Egress, Ingress      []string // walls; empty: what the networks say
}

// Attachment is a network that a container is to be on. What is left out is chosen.
type Attachment struct {
	Network   string
	IP, IP6   netip.Addr
	LinkLocal []netip.Addr // further addresses, of 169.254.0.0/16 or fe80::/10
	MAC       string
	Interface string   // of the container
	Aliases   []string // further names
	Links     []string // NAME:ALIAS: names that this container alone finds others by
	Priority  int      // the highest is the way to the rest of the world
	Sysctls   []string // of the interface, with IFNAME in its place: net.ipv4.conf.IFNAME.log_martians=1
	Origin    string   // the flag that it comes from
}

// Wiring is a container's place in its networks, and the files that tell it about it.
type Wiring struct {
	Endpoints   []Endpoint
	Steps       []plan.Step
	Hosts       []byte // /etc/hosts
	ResolvConf  []byte // /etc/resolv.conf
	Resolver    []byte // what the container's own resolver knows (Store.Resolver); nil: it has none
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
	if err := choosePorts(r.Ports); err != nil {
		return nil, err
	}
	var networks []Network
	for i, a := range r.Networks {
		n, e, err := s.attach(r, a, i, lease)
		if err != nil {
			return nil, err
		}
		networks, w.Endpoints = append(networks, n), append(w.Endpoints, e)
	}
	out := gateway(networks, r.Networks)
	steps, resolves := &writer{}, false
	for i := range w.Endpoints {
		e, n, from := &w.Endpoints[i], networks[i], r.Networks[i].Origin
		if i == out && len(r.Ports) > 0 {
			if err := n.canPublish(*e, r.Ports); err != nil {
				return nil, err
			}
		}
		if i == out { // a port of the host can lead to one address only
			e.Default, e.Ports = true, r.Ports
			if n.HostIP.IsValid() {
				e.Ports = bound(e.Ports, n.HostIP)
			}
		}
		steps.origin = func(what string) string {
			if what == "network" && from != "" {
				return from
			}
			return origin(what)
		}
		if err := steps.connect(n, *e); err != nil {
			return nil, err
		}
		if n.Named() || e.wall != nil && len(e.wall.egress) > 0 {
			if !resolves {
				steps.listen(steps.origin("network"))
			}
			resolves = true
		}
		if n.Named() {
			steps.name(s, r.Container, n, *e, steps.origin("network"))
		}
	}
	w.Steps = steps.steps
	f := Files{Hostname: r.Hostname, Domainname: r.Domainname, Resolver: r.Resolver, Hosts: r.Hosts, OwnResolver: resolves}
	if out >= 0 && !networks[out].onParent() { // there the host isn't
		f.Gateway = networks[out].primary().Gateway
	}
	if resolves {
		var links [][]string
		for _, a := range r.Networks {
			links = append(links, a.Links)
		}
		w.Resolver = append(s.Resolver(networks, links, r.Resolver.Servers), ResolverWalls(w.Steps)...)
	}
	for i, e := range w.Endpoints {
		f.HostNetwork = f.HostNetwork || networks[i].Driver == Host
		f.IPs = append(f.IPs, e.Addresses()...)
	}
	w.Hosts, w.ResolvConf, err = f.Write()
	return w, err
}

// gateway chooses the network by which a container reaches the rest of the world: of those that lead there the one of the highest priority,
// and of equal ones the first by name, as with Docker. It returns -1 where none does.
func gateway(networks []Network, wanted []Attachment) int {
	best := -1
	for i, n := range networks {
		if !n.leadsOut() {
			continue
		}
		if best < 0 || wanted[i].Priority > wanted[best].Priority ||
			wanted[i].Priority == wanted[best].Priority && n.Name < networks[best].Name {
			best = i
		}
	}
	return best
}

// bound puts an address of the host where a port is published on all.
func bound(ports []container.Port, ip netip.Addr) []container.Port {
	out := slices.Clone(ports)
	for i := range out {
		if !out[i].HostIP.IsValid() {
			out[i].HostIP = ip
		}
	}
	return out
}

// attach makes an endpoint of one network, and leases its address.
func (s Store) attach(r Request, a Attachment, i int, lease bool) (Network, Endpoint, error) {
	open := s.Likely
	if lease {
		open = s.Open
	}
	n, err := open(a.Network)
	if err != nil {
		return n, Endpoint{}, err
	}
	e := Endpoint{
		Network: n.Name, Interface: a.Interface, Link: VethName(r.Container, i), IP: a.IP, IP6: a.IP6, LinkLocal: a.LinkLocal, MAC: a.MAC,
		rates: r.Rates, names: s.NamesDir(n.Name),
	}
	if e.wall, err = s.wallAt(r, n); err != nil {
		return n, e, err
	}
	if err := n.checkRates(r.Rates); err != nil {
		return n, e, err
	}
	if e.Interface == "" {
		e.Interface = InterfaceName(i)
		if prefix := n.Options[optionPrefix]; prefix != "" {
			e.Interface = prefix + strconv.Itoa(i)
		}
	}
	for _, text := range a.Sysctls {
		// net.ipv4.conf.IFNAME.rp_filter: the dots are separators, but an interface's name may have some.
		e.Sysctls = append(e.Sysctls, strings.ReplaceAll(strings.ReplaceAll(text, ".", "/"), "/IFNAME/", "/"+e.Interface+"/"))
	}
	if len(n.Subnets) == 0 && n.Driver != Bridge {
		return n, e, nil // a network without addresses
	}
	if lease && sweeps(r) {
		if err := s.Sweep(n); err != nil {
			return n, e, err
		}
	}
	families := []struct {
		subnet Subnet
		ip     *netip.Addr
		name   string
	}{{n.IPv4(), &e.IP, "IPv4"}, {n.IPv6(), &e.IP6, "IPv6"}}
	for _, family := range families { // before the first lease, which would be nobody's
		if !family.subnet.Prefix.IsValid() && family.ip.IsValid() {
			return n, e, fmt.Errorf("network %s has no subnet of %s: %s can't be an address on it", n.Name, family.name, *family.ip)
		}
	}
	for _, family := range families {
		switch {
		case !family.subnet.Prefix.IsValid():
		case lease:
			got, err := s.lease(n, family.subnet, r.Container, *family.ip)
			if err != nil {
				if e.IP.IsValid() && family.ip != &e.IP {
					_ = s.Release(n.Name, e.IP, r.Container)
				}
				return n, e, err
			}
			*family.ip = got
		case !family.ip.IsValid():
			*family.ip = family.subnet.Gateway.Next()
		}
	}
	if e.MAC == "" {
		e.MAC = macOf(e)
	}
	if n.Named() {
		e.Names = names(r, a)
	}
	return n, e, nil
}

// names are those by which others of a network find a container: its name first, its aliases, its short ID and its host name.
func names(r Request, a Attachment) []string {
	var out []string
	for _, name := range append(append([]string{r.Name}, a.Aliases...), r.Container[:min(len(r.Container), 12)], r.Hostname) {
		name = strings.ToLower(name)
		if dns.ValidName(name) && !slices.Contains(out, name) {
			out = append(out, name)
		}
	}
	return out
}

// digit is that of an address's version of IP.
func digit(a netip.Addr) byte {
	if a.Is6() {
		return '6'
	}
	return '4'
}

// canPublish refuses ports that can't be led to a container, or must not.
func (n Network) canPublish(e Endpoint, ports []container.Port) error {
	for _, p := range ports {
		if n.onParent() {
			return fmt.Errorf("publish %s: containers of network %s (%s) are on the cable of %s with addresses of their own: whoever is there "+
				"reaches all of their ports, and the host none", p, n.Name, n.Driver, n.parent())
		}
		e.Ports = []container.Port{p}
		if !slices.ContainsFunc(rules(e), plan.PortRule.Carried) {
			continue
		}
		switch {
		case p.Proto == "sctp" && p.HostIP == netip.IPv6Loopback():
			return fmt.Errorf("publish %s: the kernel takes no answer of a container for ::1, and only tcp and udp can be carried instead: "+
				"publish it on 127.0.0.1 or on another address", p)
		case p.Proto == "sctp":
			return fmt.Errorf("publish %s: only tcp and udp can be carried from an address of IPv%c to a container without one: make a network "+
				"that has it (glassbox network create --ipv6)", p, digit(p.HostIP))
		case e.wall != nil && len(e.wall.ingress) > 0 && p.HostIP != netip.IPv6Loopback():
			return fmt.Errorf("publish %s: the container has no address of IPv%c, so that its supervisor would carry what comes there, and "+
				"--ingress would take everybody for the host: make a network that has it (glassbox network create --ipv6)", p, digit(p.HostIP))
		}
	}
	return nil
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
	HostNetwork          bool // the container's network is the host's
	IPs                  []netip.Addr
	Gateway              netip.Addr // by which it reaches the host; zero: it has none
	OwnResolver          bool       // its supervisor answers questions for names
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
	if f.OwnResolver {
		return Hosts(f.IPs, gateway, f.Hostname, f.Domainname, extra), ownResolvConf(resolv, f.Resolver), nil
	}
	var stub []byte
	if StubOnly(resolv) {
		stub, _ = os.ReadFile(StubFile)
	}
	return Hosts(f.IPs, gateway, f.Hostname, f.Domainname, extra), ResolvConf(resolv, stub, f.Resolver), nil
}

// Release gives the addresses back.
func (w *Wiring) Release() {
	for _, e := range w.Endpoints {
		for _, a := range e.Addresses() {
			_ = w.store.Release(e.Network, a, w.containerID) // what can't be given back now, Repair finds: the container is gone
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
