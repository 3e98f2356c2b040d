package engine

import (
	"cmp"
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"glassbox/network"
)

// NetworkMap is all networks of this installation, who is on them, and what becomes of a packet from each to each.
type NetworkMap struct {
	Networks []MappedNetwork `json:"networks"`
	From     []string        `json:"from"`
	To       []string        `json:"to"`
	Paths    []*network.Path `json:"paths"`
	Left     string          `json:"left,omitempty"` // what isn't told, and why
}

// MappedNetwork is a network with those of its containers that run.
type MappedNetwork struct {
	network.Network
	Members []string `json:"members,omitempty"` // "web 10.78.0.2"
}

// mapEnds bounds the containers of a map: ways grow with their square, and nobody reads a table of a thousand columns.
const mapEnds = 40

// NetworkMap goes the way of a packet from everybody to everybody: containers that run, the host, and somebody outside. A container is
// asked at the first port at which somebody listens, or else pinged; each published port is asked for, too.
func (e *Engine) NetworkMap(ctx context.Context) (*NetworkMap, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	v, err := e.networks().Look()
	if err != nil {
		return nil, err
	}
	defer v.Close()
	if _, err := e.lookAtAll(ctx, v); err != nil {
		return nil, err
	}
	out := &NetworkMap{}
	all, err := e.networks().List(nil)
	if err != nil {
		return nil, err
	}
	for _, n := range all {
		on, err := e.onNetwork(ctx, n)
		if err != nil {
			return nil, err
		}
		m := MappedNetwork{Network: n}
		for _, at := range on {
			m.Members = append(m.Members, strings.Join(strings.Fields(at.Name+" "+at.IPv4Address+" "+at.IPv6Address), " "))
		}
		slices.Sort(m.Members)
		out.Networks = append(out.Networks, m)
	}
	containers := slices.SortedFunc(slices.Values(v.Containers), func(a, b *network.Space) int { return cmp.Compare(a.Name, b.Name) })
	if len(containers) > mapEnds {
		out.Left = fmt.Sprintf("%d containers run, and the first %d by name are on the map: ask for the others with network explain FROM TO",
			len(containers), mapEnds)
		containers = containers[:mapEnds]
	}
	from, to := mapQuestions(v, containers)
	for _, f := range from {
		out.From = append(out.From, f.Name)
	}
	for _, q := range to {
		out.To = append(out.To, q.To.Name)
	}
	for _, f := range from {
		for _, q := range to {
			if err := ctx.Err(); err != nil {
				return nil, err
			}
			if f.Space != nil && f.Space == q.To.Space || f.Space == nil && q.To.Space == nil {
				continue
			}
			q.From = f
			p, err := v.Explain(q)
			if err != nil { // one of them has no address of the other's version of IP
				p = &network.Path{From: f.Name, To: q.To.Name, Proto: q.Proto, Verdict: network.Refused, Why: err.Error()}
			}
			out.Paths = append(out.Paths, p)
		}
	}
	return out, nil
}

// mapQuestions are who asks, and what is asked of whom.
func mapQuestions(v *network.View, containers []*network.Space) (from []network.Place, to []network.Question) {
	someone := network.Place{Addr: netip.MustParseAddr(anyone), Name: "outside"}
	for _, s := range containers {
		from = append(from, network.Place{Space: s, Name: s.Name})
		q := network.Question{To: network.Place{Space: s, Name: s.Name}, Proto: "icmp", IPv6: !s.HasIPv4()}
		if port := s.FirstPort(); port != 0 {
			q.Proto, q.Port, q.To.Name = "tcp", port, fmt.Sprintf("%s:%d", s.Name, port)
		}
		to = append(to, q)
	}
	from = append(from, network.Place{Space: v.Host, Name: network.HostName}, someone)
	to = append(to, network.Question{To: network.Place{Space: v.Host, Name: network.HostName}, Proto: "icmp"})
	seen := map[string]bool{}
	for _, p := range v.Published {
		if p.Rule.Proto == "sctp" || strings.Contains(p.Rule.ContainerIP, ":") || len(seen) >= mapEnds {
			continue
		}
		place := network.Place{Space: v.Host, Name: network.HostName}
		if a, err := netip.ParseAddr(p.Rule.HostIP); err == nil && !a.IsUnspecified() {
			place.Addr, place.Name = a, a.String()
		}
		place.Name = fmt.Sprintf("%s:%d/%s (%s)", place.Name, p.Rule.HostPort, p.Rule.Proto, p.Container)
		if !seen[place.Name] {
			seen[place.Name] = true
			to = append(to, network.Question{To: place, Proto: p.Rule.Proto, Port: p.Rule.HostPort})
		}
	}
	someone.Name = "outside:443"
	return from, append(to, network.Question{To: someone, Proto: "tcp", Port: 443})
}
