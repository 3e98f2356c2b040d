package engine

import (
	"context"
	"errors"
	"maps"
	"slices"
	"time"

	"glassbox/plan"
	"glassbox/supervise"
	"glassbox/wire"
)

// Refused is something that a container's walls have refused, or its resolver for their sake.
type Refused struct {
	Container string
	In        bool   // somebody wanted in, to the container's Port
	Name      string // that was asked for
	Address   string
	Proto     string // tcp, udp, sctp, icmp, a number; arp: a neighbour's hardware address; dns: a name
	Port      uint16 // 0: there is none
	Count     uint64 // of packets, or questions
	Last      time.Time
}

// NetworkEgress lists what the walls of a container, or of all containers on a network, have refused, the last ones first. Packets are told
// as long as the container runs, and for a day.
func (e *Engine) NetworkEgress(ctx context.Context, ref string) ([]Refused, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	var ids []string
	n, err := e.networks().Find(ref)
	if err == nil {
		leases, err := e.networks().Leases(n.Name)
		if err != nil {
			return nil, err
		}
		ids = slices.Compact(slices.Sorted(maps.Values(leases)))
	} else {
		c, _, err := e.load(ctx, ref)
		if errors.Is(err, ErrNotFound) {
			return nil, notFound("no such network or container: %s", ref)
		}
		if err != nil {
			return nil, err
		}
		ids = []string{c.ID}
	}
	var out []Refused
	for _, id := range ids {
		of, err := e.refusedOf(ctx, id)
		if err != nil {
			return nil, err
		}
		out = append(out, of...)
	}
	slices.SortStableFunc(out, func(a, b Refused) int { return b.Last.Compare(a.Last) })
	return out, nil
}

func (e *Engine) refusedOf(ctx context.Context, id string) ([]Refused, error) {
	c, _, err := e.load(ctx, id)
	if err != nil {
		return nil, err
	}
	p, err := supervise.ReadPlan(e.dir(id))
	if err != nil {
		return nil, nil // it has never started
	}
	var out []Refused
	walls := false
	for _, s := range p.Steps {
		op, ok := s.Op.(*plan.NftWall)
		if !ok {
			continue
		}
		walls = true
		all, err := wire.Refusals(op.Table, time.Now())
		if err != nil {
			return nil, err
		}
		for _, r := range all {
			out = append(out, Refused{
				Container: c.Name, In: r.In, Address: r.Address.String(), Proto: r.Proto, Port: r.Port, Count: r.Packets, Last: r.Last,
			})
		}
	}
	if !walls {
		return nil, nil
	}
	for _, r := range supervise.ReadRefused(e.dir(id)) {
		out = append(out, Refused{Container: c.Name, Name: r.Name, Proto: "dns", Count: r.Count, Last: r.Last})
	}
	return out, nil
}
