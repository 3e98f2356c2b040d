package network

import (
	"bytes"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"glassbox/container"
	"glassbox/dns"
	"glassbox/plan"
)

// The resolver's part of a container's wiring. Containers of the default network have none, as with Docker: a network that somebody has
// made says who belongs together.

// Named says whether the containers of a network find each other by name.
func (n Network) Named() bool { return n.Name != Bridge && n.Driver != None && n.Driver != Host }

// resolverTable is the name of the table in the container's network namespace.
const resolverTable = "glassbox_names"

// resolverRules lead port 53 of the resolver's address to its sockets, and give their answers that port. The ports are changed in the
// packets themselves, which costs a question much less than to have the kernel keep its connection in mind (dnat), in a container that
// may need no connections kept at all. A container's own rules that know connections (conntrack, at priority -200) see port 53 both ways.
func resolverRules() []string {
	const t = resolverTable
	rules := []string{
		"add table ip " + t,
		"add chain ip " + t + " answer { type filter hook output priority -300 ; }",
		"add chain ip " + t + " ask { type filter hook output priority -100 ; }",
	}
	for _, proto := range []string{"udp", "tcp"} {
		rules = append(rules,
			fmt.Sprintf("add rule ip %s answer ip saddr %s/32 %s sport %d %[3]s sport set 53", t, dns.Address, proto, dns.Port),
			fmt.Sprintf("add rule ip %s ask ip daddr %s/32 %s dport 53 %[3]s dport set %d", t, dns.Address, proto, dns.Port))
	}
	return rules
}

// Listen is the step of the resolver's sockets alone, for a container that runs already.
func Listen(origin string) plan.Step {
	var w writer
	w.listen(origin)
	return w.steps[0]
}

// listen writes the step of the resolver's sockets.
func (w *writer) listen(origin string) {
	w.add(&plan.NameListen{Address: dns.Address, Port: dns.Port, Table: resolverTable, Rules: resolverRules()}, origin,
		"The container's supervisor answers its questions for names: those of containers on its networks itself, all others by asking the "+
			"host's name servers. It listens on the container's loopback, on a port of its own, so that port 53 is the container's.")
}

// name writes the step that makes an endpoint known.
func (w *writer) name(s Store, id string, n Network, e Endpoint, origin string) {
	if len(e.Names) == 0 {
		return
	}
	var addrs []string
	for _, a := range e.Addresses() {
		addrs = append(addrs, a.String())
	}
	w.add(&plan.NameAdd{Dir: s.NamesDir(n.Name), Owner: id, Names: e.Names, Addresses: addrs}, origin,
		"Containers of the network find this one by its names, before it has made its first step and until it ends.")
}

// Addresses are those that an endpoint has.
func (e Endpoint) Addresses() []netip.Addr {
	var out []netip.Addr
	for _, a := range []netip.Addr{e.IP, e.IP6} {
		if a.IsValid() {
			out = append(out, a)
		}
	}
	return out
}

// Resolver writes the file by which a container's supervisor knows what to answer: see dns.ParseConfig. servers are those that the user
// gave, or nil for the host's. Where all networks are internal, nobody is asked.
func (s Store) Resolver(networks []Network, links [][]string, servers []string) []byte {
	var b bytes.Buffer
	b.WriteString("# Written by glassbox: what this container's resolver knows.\n")
	outside := false
	for i, n := range networks {
		outside = outside || n.leadsOut()
		if !n.Named() {
			continue
		}
		fmt.Fprintf(&b, "network %s %s", n.Name, s.NamesDir(n.Name))
		for _, sub := range n.Subnets {
			fmt.Fprintf(&b, " %s", sub.Prefix)
		}
		b.WriteByte('\n')
		for _, l := range links[i] {
			target, alias, _ := strings.Cut(strings.ToLower(l), ":")
			if len(target) == 64 {
				target = target[:12] // of an ID only this much is a name
			}
			fmt.Fprintf(&b, "link %s %s\n", alias, target)
		}
	}
	switch {
	// A container that can't reach the world must not have its supervisor reach it instead: a question can carry data out
	// (CVE-2024-29018 of Docker).
	case !outside:
	case len(servers) > 0:
		for _, server := range servers {
			b.WriteString("server " + server + "\n")
		}
	default:
		b.WriteString("servers /etc/resolv.conf\n")
	}
	return b.Bytes()
}

// ownResolvConf points a container at its resolver. The search domains and options are those of the host unless the user gave others;
// ndots:0 lets a name of one word be asked for as it is first, as with Docker.
func ownResolvConf(hostFile []byte, user container.Resolver) []byte {
	r := merged(parseResolv(hostFile), user)
	r.Servers = []string{dns.Address}
	if !slices.ContainsFunc(r.Options, func(o string) bool { return strings.HasPrefix(o, "ndots:") }) {
		r.Options = append(slices.Clone(r.Options), "ndots:0")
	}
	return resolvText(r, "")
}
