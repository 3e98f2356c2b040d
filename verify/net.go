package verify

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"glassbox/plan"
	"glassbox/wire"
)

// netView is what netlink says of both sides.
type netView struct {
	fd                 int // the container's network namespace, or -1
	inside, host       []wire.LinkState
	insideErr, hostErr error
	routes             []wire.RouteState
	published          []plan.PortRule
	publishedErr       error
	firewall           []wire.RuleState
	tables             map[*plan.NftBridge]*wire.TableState
	tableErr           error
}

func (n *netView) close() {
	if n != nil && n.fd >= 0 {
		unix.Close(n.fd)
	}
}

func (v *view) readNet() {
	n := &netView{fd: -1, tables: map[*plan.NftBridge]*wire.TableState{}}
	v.net = n
	if n.fd, n.insideErr = unix.Openat(v.dir, "ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0); n.insideErr == nil {
		n.inside, n.routes, n.insideErr = wire.Look(n.fd)
	}
	n.host, _, n.hostErr = wire.Look(-1)
	for _, s := range v.plan.Steps {
		o, ok := s.Op.(*plan.NftBridge)
		if !ok {
			continue
		}
		var err error
		if n.tables[o], err = wire.LookTable(o); err != nil {
			n.tableErr = err // of one network: what another one's table says doesn't take it back
		}
		n.published, n.publishedErr = wire.Published(o.Table)
	}
	if len(n.tables) > 0 {
		// Once, whatever the number of networks: it is the whole ruleset. Where it can't be read, the tables' own error says why.
		n.firewall, _ = wire.Firewall()
	}
	for _, s := range v.plan.Steps {
		if o, ok := s.Op.(*plan.NftPublish); ok && n.published == nil && n.publishedErr == nil {
			n.published, n.publishedErr = wire.Published(o.Table)
		}
	}
}

func find(links []wire.LinkState, name string) *wire.LinkState {
	for i := range links {
		if links[i].Name == name {
			return &links[i]
		}
	}
	return nil
}

const (
	hostLinks = "the host's links (rtnetlink)"
	itsLinks  = "links of the container's network namespace (rtnetlink)"
	itsRoutes = "routes of the container's network namespace (rtnetlink)"
)

func up(on bool) string {
	if on {
		return "up"
	}
	return "down"
}

func (v *view) bridge(o *plan.LinkBridge) Finding {
	if v.net.hostErr != nil {
		return failed(hostLinks, v.net.hostErr)
	}
	l := find(v.net.host, o.Name)
	if l == nil {
		return missing(hostLinks, "bridge "+o.Name, byHost())
	}
	var wrong []string
	if l.Kind != "bridge" {
		wrong = append(wrong, "it is a "+l.Kind)
	}
	if !l.Up {
		wrong = append(wrong, "it is down")
	}
	for _, text := range []string{o.Address, o.Address6} {
		if p, err := netip.ParsePrefix(text); err == nil && !slices.Contains(l.Addresses, p) {
			wrong = append(wrong, "it has no address "+text)
		}
	}
	for _, set := range o.Sysctls {
		key, want, _ := strings.Cut(set, "=")
		text, err := os.ReadFile("/proc/sys/" + key)
		if errors.Is(err, os.ErrNotExist) && strings.HasPrefix(key, "net/ipv6/") {
			continue // a kernel without IPv6
		}
		if have := strings.TrimSpace(string(text)); err == nil && have != want {
			wrong = append(wrong, strings.ReplaceAll(key, "/", ".")+" is "+have)
		}
	}
	if len(wrong) > 0 {
		return differs(hostLinks, o.String(), strings.Join(wrong, ", "), byHost())
	}
	return holds(hostLinks, strings.TrimSuffix(fmt.Sprintf("bridge %s, up, %s, %s", l.Name, o.Address, o.Address6), ", "))
}

func (v *view) veth(o *plan.LinkVeth) Finding {
	if v.net.hostErr != nil {
		return failed(hostLinks, v.net.hostErr)
	}
	l := find(v.net.host, o.Name)
	if l == nil {
		return missing(hostLinks, "veth "+o.Name, byHost())
	}
	var wrong []string
	add := func(ok bool, format string, a ...any) {
		if !ok {
			wrong = append(wrong, fmt.Sprintf(format, a...))
		}
	}
	add(l.Kind == "veth", "it is a %s", l.Kind)
	add(l.Up, "it is down")
	add(o.MTU == 0 || l.MTU == o.MTU, "its MTU is %d", l.MTU)
	switch b := find(v.net.host, o.Bridge); {
	case b == nil:
		add(false, "there is no bridge %s", o.Bridge)
	case l.Master == 0:
		add(false, "it is in no bridge")
	default:
		add(l.Master == b.Index, "it is a port of another link than %s", o.Bridge)
		add(!o.Hairpin || l.Hairpin, "hairpin mode is off")
	}
	where, who := hostLinks, byHost()
	if v.net.insideErr == nil {
		where += ", " + itsLinks
		p := find(v.net.inside, o.Peer)
		if p == nil {
			add(false, "the container has no %s", o.Peer)
			who = v.who("CAP_NET_ADMIN")
		} else {
			// Both ways: each namespace counts its links by itself, so that one number alone is right by chance too often.
			add(p.Peer == l.Index && l.Peer == p.Index, "%s of the container is not its other end", o.Peer)
			add(o.MAC == "" || strings.EqualFold(p.MAC, o.MAC), "%s has the hardware address %s", o.Peer, p.MAC)
			add(o.MTU == 0 || p.MTU == o.MTU, "the MTU of %s is %d", o.Peer, p.MTU)
			conf := "net/ipv6/conf/" + o.Peer
			add(p.NoIPv6 || !slices.Contains(o.Sysctls, conf+"/disable_ipv6=1"), "%s has IPv6", o.Peer)
			add(!p.AcceptRA || !slices.Contains(o.Sysctls, conf+"/accept_ra=0"), "%s believes router advertisements", o.Peer)
		}
	}
	if len(wrong) > 0 {
		return differs(where, o.String(), strings.Join(wrong, ", "), who)
	}
	return holds(where, fmt.Sprintf("%s, up, in %s, the other end is %s", l.Name, o.Bridge, o.Peer))
}

// moved is the name of a link of the host in the container; "" if the kernel chose it.
func moved(o *plan.LinkMove) string {
	if strings.Contains(o.As, "%") {
		return ""
	}
	if o.As != "" {
		return o.As
	}
	return o.Name
}

func (v *view) movedLink(o *plan.LinkMove) Finding {
	if v.net.insideErr != nil {
		return failed(itsLinks, v.net.insideErr)
	}
	name := moved(o)
	if name == "" {
		return unseen("the kernel chose its name in the container")
	}
	l := find(v.net.inside, name)
	if l == nil {
		return missing(itsLinks, "link "+name, v.who("CAP_NET_ADMIN"))
	}
	return same(itsLinks, name+" up", name+" "+up(l.Up), v.who("CAP_NET_ADMIN"))
}

func (v *view) noLink(o *plan.LinkDelete) Finding {
	where, links, err := hostLinks, v.net.host, v.net.hostErr
	if o.Inside {
		where, links, err = itsLinks, v.net.inside, v.net.insideErr
	}
	if err != nil {
		return failed(where, err)
	}
	if find(links, o.Name) != nil {
		return differs(where, "no link "+o.Name, "it is there", byHost())
	}
	return holds(where, "it isn't there")
}

func (v *view) linkUp(name string) Finding {
	if v.net.insideErr != nil {
		return failed(itsLinks, v.net.insideErr)
	}
	l := find(v.net.inside, name)
	if l == nil {
		return missing(itsLinks, "link "+name, v.who("CAP_NET_ADMIN"))
	}
	return same(itsLinks, name+" up", name+" "+up(l.Up), v.who("CAP_NET_ADMIN"))
}

func (v *view) address(o *plan.LinkAddress) Finding {
	f := v.linkUp(o.Link)
	if f.Verdict == Unseen || o.Address == "" {
		return f
	}
	want, err := netip.ParsePrefix(o.Address)
	if err != nil {
		return unseen("%q is no address", o.Address)
	}
	l := find(v.net.inside, o.Link)
	if l == nil {
		return f
	}
	if !slices.Contains(l.Addresses, want) {
		return differs(itsLinks, o.Link+" with "+o.Address, fmt.Sprintf("%s has %s", o.Link, addresses(l.Addresses)), v.who("CAP_NET_ADMIN"))
	}
	if f.Verdict == Holds {
		f.Found += ", " + o.Address
	}
	return f
}

func addresses(list []netip.Prefix) string {
	if len(list) == 0 {
		return "none"
	}
	words := make([]string, len(list))
	for i, p := range list {
		words[i] = p.String()
	}
	return strings.Join(words, " ")
}

func (v *view) defaultRoute(o *plan.RouteDefault) Finding {
	if v.net.insideErr != nil {
		return failed(itsRoutes, v.net.insideErr)
	}
	l, found := find(v.net.inside, o.Link), []string{}
	for _, r := range v.net.routes {
		if !isDefault(r) || r.Destination.Addr().Is6() != o.Is6() {
			continue
		}
		via, _ := netip.ParseAddr(o.Via) // not valid: without a router
		if l != nil && r.Link == l.Index && r.Via == via {
			return holds(itsRoutes, "default "+o.Words())
		}
		found = append(found, v.routeWords(r))
	}
	if len(found) == 0 {
		found = []string{"no default route"}
	}
	return differs(itsRoutes, "default "+o.Words(), strings.Join(found, ", "), v.who("CAP_NET_ADMIN"))
}

func isDefault(r wire.RouteState) bool {
	return r.Destination.Bits() == 0 && r.Type == unix.RTN_UNICAST
}

func (v *view) routeWords(r wire.RouteState) string {
	s := r.Destination.String()
	if r.Destination.Bits() == 0 {
		s = "default"
	}
	if r.Via.IsValid() {
		s += " via " + r.Via.String()
	}
	for _, l := range v.net.inside {
		if l.Index == r.Link {
			s += " on " + l.Name
		}
	}
	if r.Table != unix.RT_TABLE_MAIN {
		s += fmt.Sprintf(" in table %d", r.Table)
	}
	return s
}

// ---- firewall ----

func (v *view) table(o *plan.NftBridge) Finding {
	where := "table ip " + o.Table + " (nf_tables)"
	t := v.net.tables[o]
	if t == nil {
		if v.net.tableErr == nil {
			return unseen("it wasn't looked at")
		}
		return failed(where, v.net.tableErr)
	}
	if !t.Exists {
		return missing(where, "the table", byHost())
	}
	if len(t.Missing) > 0 {
		return differs(where, strings.Join(t.Missing, "; "), fmt.Sprintf("%d of %d lines are missing or changed", len(t.Missing), len(o.Rules)),
			others("somebody on the host did this, or a later container's start has renewed the rules because the host's interfaces have changed"))
	}
	return holds(where, fmt.Sprintf("%d lines", len(o.Rules)))
}

// guarded looks whether the bridge knows who is behind the container's port.
func (v *view) guarded(o *plan.NftGuard) Finding {
	where := "sets of table bridge " + o.Table + " (nf_tables)"
	switch ok, known, err := wire.Guarded(o); {
	case err != nil:
		return failed(where, err)
	case !known:
		return unseen("this kernel has no tables of family bridge (CONFIG_NF_TABLES_BRIDGE): the container isn't kept from lying to its " +
			"neighbours")
	case !ok:
		return missing(where, o.String(), byHost())
	}
	return holds(where, o.MAC+" with "+strings.Join(o.Addresses, ", "))
}

func (v *view) unguarded(o *plan.NftUnguard) Finding {
	where := "sets of table bridge " + o.Table + " (nf_tables)"
	ok, _, err := wire.Guarded(&plan.NftGuard{Table: o.Table, Link: o.Link, MAC: o.MAC, Addresses: o.Addresses})
	if err != nil {
		return failed(where, err)
	}
	if ok {
		return differs(where, "no entries of "+o.Link, "they are there", byHost())
	}
	return holds(where, "no entries of it")
}

// letThrough looks whether the rules are in the other firewall.
func (v *view) letThrough(o *plan.FirewallAccept) Finding {
	where := "chain " + o.Chain + " of " + o.Where()
	missing, err := wire.LookAccept(o)
	if err != nil {
		return failed(where, err)
	}
	if len(missing) > 0 {
		return differs(where, strings.Join(missing, "; "), fmt.Sprintf("%d of %d rules are missing", len(missing), len(o.Rules)),
			others("the firewall was reloaded or is gone; the next command puts them back where they are needed"))
	}
	return holds(where, fmt.Sprintf("%d rules", len(o.Rules)))
}

func portWords(p plan.PortRule) string {
	on := p.HostIP
	if on == "" {
		on = "*"
	}
	return fmt.Sprintf("%s:%d/%s to %s:%d", on, p.HostPort, p.Proto, p.ContainerIP, p.ContainerPort)
}

func (v *view) published(o *plan.NftPublish) Finding {
	where := "maps of table ip " + o.Table + " (nf_tables)"
	if v.net.publishedErr != nil {
		return failed(where, v.net.publishedErr)
	}
	var lost []string
	for _, p := range o.Ports {
		if !slices.Contains(v.net.published, p) {
			lost = append(lost, portWords(p))
		}
	}
	if len(lost) > 0 {
		return differs(where, o.String(), "not published: "+strings.Join(lost, ", "), byHost())
	}
	return holds(where, fmt.Sprintf("%d ports", len(o.Ports)))
}

// carried looks whether somebody listens at ports that are carried: by whom is seen by nobody but the kernel.
func (v *view) carried(o *plan.PortCarry) Finding {
	const where = "sockets of the host (/proc/net)"
	sockets := wire.Sockets()
	for _, p := range o.Ports {
		host, _ := netip.ParseAddr(p.HostIP)
		if !slices.Contains(sockets, wire.Socket{Proto: p.Proto, Addr: netip.AddrPortFrom(host, p.HostPort)}) {
			return differs(where, o.String(), "nobody listens at "+portWords(p), byHost())
		}
	}
	return holds(where, fmt.Sprintf("somebody listens at %d ports", len(o.Ports)))
}

// named looks whether others find the container by all of its names.
func (v *view) named(o *plan.NameAdd) Finding {
	want := strings.Join(o.Addresses, ",")
	for _, name := range o.Names {
		where := filepath.Join(o.Dir, strings.ToLower(name), o.Owner)
		got, err := os.Readlink(where)
		if err != nil {
			return differs(where, want, "there is no such name", byHost())
		}
		if got != want {
			return differs(where, want, got, byHost())
		}
	}
	return holds(o.Dir, want)
}

// forgotten looks whether none of the names is the container's any more.
func (v *view) forgotten(o *plan.NameRemove) Finding {
	for _, name := range o.Names {
		where := filepath.Join(o.Dir, strings.ToLower(name), o.Owner)
		if got, err := os.Readlink(where); err == nil {
			return differs(where, "no such name", got, byHost())
		}
	}
	return holds(o.Dir, "none of its names")
}

func (v *view) unpublished(o *plan.NftUnpublish) Finding {
	where := "maps of table ip " + o.Table + " (nf_tables)"
	ports, err := wire.Published(o.Table)
	if err != nil {
		return failed(where, err)
	}
	for _, p := range o.Ports {
		if slices.Contains(ports, p) {
			return differs(where, "not published: "+portWords(p), "it is published", byHost())
		}
	}
	return holds(where, "not published")
}

// otherRules finds firewall rules and published ports that are about this container and in no step.
func (v *view) otherRules() {
	if v.net.firewall == nil && v.net.published == nil {
		return
	}
	for o, t := range v.net.tables {
		if t == nil {
			continue
		}
		slices.Sort(t.Extra)
		for _, e := range t.Extra {
			v.beside("in the firewall of its bridge: "+e, "nft -a list table ip "+o.Table, byHost())
		}
	}
	var own []plan.PortRule
	var ips []netip.Addr
	for _, s := range v.plan.Steps {
		switch o := s.Op.(type) {
		case *plan.NftPublish:
			own = append(own, o.Ports...)
		case *plan.LinkAddress:
			if p, err := netip.ParsePrefix(o.Address); err == nil && p.Addr().Is4() {
				ips = append(ips, p.Addr())
			}
		}
	}
	for _, p := range v.net.published {
		ip, err := netip.ParseAddr(p.ContainerIP)
		if err == nil && slices.Contains(ips, ip) && !slices.Contains(own, p) {
			v.beside("published port "+portWords(p), "nf_tables", byHost())
		}
	}
	for _, r := range v.net.firewall {
		if slices.ContainsFunc(ips, r.Names) && !v.ownTable(r.Table) {
			v.beside(r.String()+" names its address", "nft -a list ruleset", byHost())
		}
	}
}

// ownTable reports whether a table is one that the plan makes: its rules are compared one by one.
func (v *view) ownTable(name string) bool {
	for o := range v.net.tables {
		if o.Table == name {
			return true
		}
	}
	return slices.ContainsFunc(v.plan.Steps, func(s plan.Step) bool {
		wall, ok := s.Op.(*plan.NftWall)
		return ok && wall.Table == name
	})
}

// ---- what else there is ----

// fallback reports whether a link is one that the kernel makes in every new network namespace while the module is loaded
// (net.core.fb_tunnels_only_for_init_net).
func fallback(l wire.LinkState) bool {
	return !l.Up && slices.Contains([]string{"tunl0", "gre0", "gretap0", "erspan0", "ip_vti0", "ip6_vti0", "sit0", "ip6tnl0", "ip6gre0"},
		l.Name)
}

// otherLinks finds links, addresses and routes in a network namespace that the plan made.
func (v *view) otherLinks() {
	if v.net.insideErr != nil || !slices.Contains(v.newKinds(), "net") {
		return
	}
	links, free := map[string]bool{"lo": true}, false // free: links whose addresses and names aren't known here
	own := map[string][]string{}
	var routes []netip.Addr // of their routers; not valid: without one
	movedIn := map[string]bool{}
	for _, s := range v.plan.Steps {
		switch o := s.Op.(type) {
		case *plan.LinkVeth:
			links[o.Peer] = true
		case *plan.LinkMacvlan:
			links[o.Name] = true
		case *plan.LinkMove:
			if name := moved(o); name != "" {
				links[name], movedIn[name] = true, true
			} else {
				free = true
			}
		case *plan.LinkAddress:
			own[o.Link] = append(own[o.Link], o.Address)
		case *plan.RouteDefault:
			via, _ := netip.ParseAddr(o.Via)
			routes = append(routes, via)
		case *plan.Hook:
			free = true // hooks wire networks of which the plan knows nothing
		}
	}
	who := v.who("CAP_NET_ADMIN")
	for _, l := range v.net.inside {
		if !links[l.Name] && !fallback(l) {
			if !free {
				v.beside(fmt.Sprintf("link %s (%s, %s)", l.Name, l.Kind, up(l.Up)), itsLinks, who)
			}
			continue
		}
		for _, a := range l.Addresses {
			loopback := l.Name == "lo" && (a.String() == "127.0.0.1/8" || a.String() == "::1/128")
			// Each link that is up gets one by itself (addrconf, RFC 4862).
			kernels := a.Addr().Is6() && a.Addr().IsLinkLocalUnicast()
			if !loopback && !kernels && !movedIn[l.Name] && !slices.Contains(own[l.Name], a.String()) && !free {
				v.beside("address "+a.String()+" on "+l.Name, itsLinks, who)
			}
		}
	}
	for _, r := range v.net.routes {
		switch {
		// What the kernel derives from addresses, and its own refusal of what has no route in IPv6.
		case r.Protocol == unix.RTPROT_KERNEL || r.Table == unix.RT_TABLE_LOCAL || r.Type == unix.RTN_UNREACHABLE || free:
		case isDefault(r) && slices.Contains(routes, r.Via):
		default:
			v.beside("route "+v.routeWords(r), itsRoutes, who)
		}
	}
}
