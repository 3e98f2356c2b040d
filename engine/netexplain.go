package engine

import (
	"context"
	"net/netip"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"glassbox/network"
	"glassbox/supervise"
)

// A PacketQuestion is about one packet: whether it arrives, and what it meets.
type PacketQuestion struct {
	// From and To are a container, host, outside, or an address elsewhere; of To with :PORT[/PROTO] behind it, but for a ping.
	From, To string
	Proto    string // tcp, udp, sctp or icmp; empty: what To says, or tcp with a port and icmp without
	IPv6     bool   // where both versions of IP would do
}

// Addresses that stand for somebody anywhere: they are nobody's (RFC 5737, 3849), and go the default way.
const (
	anyone  = "203.0.113.1"
	anyone6 = "2001:db8:ffff::1"
)

// NetworkExplain goes the way of a packet through the routes and rules of the host and of the containers that run. Nothing is sent.
func (e *Engine) NetworkExplain(ctx context.Context, q PacketQuestion) (*network.Path, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	to, port, proto, err := packetTarget(q.To)
	if err != nil {
		return nil, err
	}
	ask := network.Question{Port: port, IPv6: q.IPv6, Proto: q.Proto}
	switch {
	case ask.Proto == "" && proto != "":
		ask.Proto = proto
	case ask.Proto == "" && port != 0:
		ask.Proto = "tcp"
	case ask.Proto == "":
		ask.Proto = "icmp"
	case proto != "" && proto != ask.Proto:
		return nil, invalid("%s says %s, and --proto says %s", q.To, proto, ask.Proto)
	}
	if ask.Proto == "icmp" && port != 0 {
		return nil, invalid("%s: ICMP has no ports", q.To)
	}
	v, err := e.networks().Look()
	if err != nil {
		return nil, err
	}
	defer v.Close()
	spaces, err := e.lookAtAll(ctx, v)
	if err != nil {
		return nil, err
	}
	if ask.From, err = e.place(ctx, v, spaces, q.From, q.IPv6 || strings.Contains(to, ":")); err != nil {
		return nil, err
	}
	if ask.To, err = e.place(ctx, v, spaces, to, q.IPv6 || ask.From.Addr.Is6()); err != nil {
		return nil, err
	}
	ask.To.Name = q.To
	path, err := v.Explain(ask)
	if err != nil {
		return nil, invalid("%w", err)
	}
	return path, nil
}

// packetTarget takes "web:80/udp" apart.
func packetTarget(text string) (to string, port uint16, proto string, err error) {
	if _, err := netip.ParseAddr(text); err == nil {
		return text, 0, "", nil
	}
	to, rest := text, ""
	if i := strings.LastIndexByte(text, ':'); i >= 0 {
		to, rest = text[:i], text[i+1:]
	}
	to = strings.TrimSuffix(strings.TrimPrefix(to, "["), "]")
	if rest == "" {
		if to == "" || strings.HasSuffix(text, ":") {
			return "", 0, "", invalid("%q: want a container, host, outside or an address, with :PORT[/PROTO] behind it", text)
		}
		return to, 0, "", nil
	}
	number, proto, _ := strings.Cut(rest, "/")
	n, parseErr := strconv.ParseUint(number, 10, 16)
	if parseErr != nil || n == 0 {
		return "", 0, "", invalid("%q: invalid port %q: want a number from 1 to 65535", text, number)
	}
	if proto != "" && proto != "tcp" && proto != "udp" && proto != "sctp" {
		return "", 0, "", invalid("%q: invalid protocol %q: want tcp, udp or sctp", text, proto)
	}
	return to, uint16(n), proto, nil
}

// lookAtAll looks at the containers that run, by ID. Those that share a network namespace share their space.
func (e *Engine) lookAtAll(ctx context.Context, v *network.View) (map[string]*network.Space, error) {
	all, err := e.items(ctx, ListOptions{})
	if err != nil {
		return nil, err
	}
	out, seen := map[string]*network.Space{}, map[string]*network.Space{}
	host, _ := os.Readlink("/proc/thread-self/ns/net")
	seen[host] = v.Host
	for _, it := range all {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if !live(it.s) {
			continue
		}
		netns, err := netnsOf(it.s)
		if err != nil {
			continue // it ends at this moment
		}
		name, _ := os.Readlink("/proc/self/fd/" + strconv.Itoa(netns))
		if seen[name] == nil {
			p, err := supervise.ReadPlan(e.dir(it.c.ID))
			if err == nil {
				seen[name], err = v.Add(it.c.Name, netns, p.Steps)
			}
			if err != nil {
				unix.Close(netns)
				return nil, err
			}
		}
		unix.Close(netns)
		out[it.c.ID] = seen[name]
	}
	return out, nil
}

// place finds whom a word means.
func (e *Engine) place(ctx context.Context, v *network.View, spaces map[string]*network.Space, word string, v6 bool) (
	network.Place, error,
) {
	p := network.Place{Name: word}
	if word == "" {
		return p, invalid("an end is missing: want a container, host, outside or an address")
	}
	if a, err := netip.ParseAddr(word); err == nil {
		if a.Zone() != "" || a.IsUnspecified() || a.IsMulticast() {
			return p, invalid("%s is no address that a packet is sent to", word)
		}
		p.Addr = a.Unmap()
		for _, s := range append([]*network.Space{v.Host}, v.Containers...) { // whose is it?
			if s.Has(p.Addr) {
				p.Space = s
			}
		}
		return p, nil
	}
	c, s, err := e.load(ctx, word)
	switch {
	case err == nil && !live(s):
		return p, conflict("container %s doesn't run: it is on no network now", c.Name)
	case err == nil:
		if p.Space = spaces[c.ID]; p.Space == nil {
			return p, conflict("container %s ends at this moment", c.Name)
		}
		p.Name = c.Name
		return p, nil
	case word == network.HostName:
		p.Space = v.Host
	case word == "outside" && v6:
		p.Addr = netip.MustParseAddr(anyone6)
	case word == "outside":
		p.Addr = netip.MustParseAddr(anyone)
	default:
		return p, err
	}
	return p, nil
}
