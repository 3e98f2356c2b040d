package network

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"glassbox/plan"
	"glassbox/wire"
)

// Beside other firewalls. Docker, ufw, firewalld and others drop forwarded packets that they don't know, and a drop is final. Which of
// their chains would drop a network's packets is found by giving such packets to their rules (wire.Ruleset.Judge). The accepts stand
// right before what would drop: in front of the rule that led there, or at the end of a chain whose policy it is, so that an
// administrator's own rules are asked first. They let out only where the host has a way to the outside, and not into others' bridges,
// and what they let in is judged by the network's own table: nothing is loosened for anybody else.

// beside says what lets a network through the firewalls of this network namespace. Who may not look at them sees none.
func beside(n Network) ([]*plan.FirewallAccept, error) {
	ops, err := besideNft(n)
	if errors.Is(err, unix.EPERM) {
		return nil, nil
	} else if err != nil {
		return nil, err
	}
	for _, program := range wire.Legacy(n.hasIPv6()) {
		op, err := besideLegacy(n, program)
		switch {
		case errors.Is(err, wire.ErrNoProgram): // doctor says so
		case err != nil:
			return nil, err
		case op != nil:
			ops = append(ops, op)
		}
	}
	return ops, nil
}

func besideNft(n Network) ([]*plan.FirewallAccept, error) {
	rs, err := wire.ReadForeign(unix.NF_INET_FORWARD)
	if err != nil || rs == nil {
		return nil, err
	}
	defer rs.Close()
	return letThrough(rs, n), nil
}

// letThrough writes the steps for one network.
func letThrough(rs *wire.Ruleset, n Network) []*plan.FirewallAccept {
	// Judged as if ours weren't there, so that they are written again where they are needed, and not where they are not.
	without := rs.WithoutAccepts(n.Link)
	var ops []*plan.FirewallAccept
	for _, c := range rs.Chains {
		if !rs.Foreign(c, unix.NF_INET_FORWARD) || wire.CheckTable(c.Table) != nil || wire.CheckTable(c.Name) != nil {
			continue
		}
		op := &plan.FirewallAccept{Link: n.Link, Family: c.FamilyName(), Table: c.Table, Chain: c.Name}
		done := map[string]bool{}
		for _, t := range trials(n) {
			// One chain at a time: each must let it through by itself, whatever the others say.
			out := without.Judge(unix.NF_INET_FORWARD, &t.packet, func(o wire.ChainState) bool { return o != c })
			if !out.Dropped || done[t.match] {
				continue
			}
			done[t.match] = true
			where := "add rule %s %s %s %s accept comment %q"
			chain := c.Name
			if out.Through >= 0 {
				where, chain = "insert rule %s %s %s %s accept comment %q", fmt.Sprintf("%s position %d", c.Name, without.Rules(c)[out.Through].Handle)
			}
			op.Rules = append(op.Rules, fmt.Sprintf(where, op.Family, c.Table, chain, t.match, wire.AcceptComment(n.Link)))
		}
		if len(op.Rules) > 0 {
			ops = append(ops, op)
		}
	}
	return ops
}

// A trial is a packet that a network needs forwarded, and the match that lets it through.
type trial struct {
	packet wire.Packet
	match  string
}

func trials(n Network) []trial {
	var out []trial
	for _, sub := range n.Subnets {
		far := netip.MustParseAddr("192.0.2.10")
		if sub.Prefix.Addr().Is6() {
			far = netip.MustParseAddr("2001:db8::10")
		}
		// Nobody's firewall has a rule for these ports.
		near := sub.Gateway.Next()
		in := fmt.Sprintf("oifname %q", n.Link)
		p := func(from, to string, src, dst netip.Addr) wire.Packet {
			return wire.Packet{In: from, Out: to, Src: src, Dst: dst, Proto: unix.IPPROTO_TCP, SrcPort: 61000, DstPort: 61001}
		}
		// From one container to another: the host's firewall sees it if br_netfilter is loaded.
		out = append(out, trial{p(n.Link, n.Link, near, near.Next()), in})
		if n.Internal {
			continue
		}
		for _, dev := range n.Uplinks {
			out = append(out, trial{p(n.Link, dev, near, far), fmt.Sprintf("iifname %q oifname %q", n.Link, dev)})
			answer, published := p(dev, n.Link, far, near), p(dev, n.Link, far, near)
			answer.Reply, published.Translated = true, true
			out = append(out, trial{answer, in}, trial{published, in})
		}
	}
	return out
}

// besideLegacy reads what iptables-legacy prints: a policy, and rules without conditions that drop, or lead to a chain that does.
func besideLegacy(n Network, program string) (*plan.FirewallAccept, error) {
	v6 := strings.HasPrefix(program, "ip6")
	if !v6 && !n.IPv4().Prefix.IsValid() {
		return nil, nil
	}
	const chain = "FORWARD"
	lines, err := wire.LegacyChain(program, chain)
	if err != nil {
		return nil, err
	}
	at, number := 0, 0
	for _, line := range lines {
		w := strings.Fields(line)
		if len(w) < 3 || w[0] != "-A" {
			continue
		}
		number++
		drops, err := legacyDrops(program, w[2:], 0)
		if err != nil {
			return nil, err
		}
		if drops {
			at = number
			break
		}
	}
	// Nothing drops all: single rules that drop something are somebody's decision.
	if at == 0 && !slices.Contains(lines, "-P "+chain+" DROP") {
		return nil, nil
	}
	place := fmt.Sprintf("%s -w -A %s", program, chain)
	if at > 0 {
		place = fmt.Sprintf("%s -w -I %s %d", program, chain, at)
	}
	op := &plan.FirewallAccept{Link: n.Link, Family: "ip", Table: "filter", Chain: chain, Program: program}
	if v6 {
		op.Family = "ip6"
	}
	if !n.Internal {
		for _, dev := range n.Uplinks {
			op.Rules = append(op.Rules, place+wire.LegacyAccept(n.Link, n.Link, dev))
		}
	}
	op.Rules = append(op.Rules, place+wire.LegacyAccept(n.Link, "", n.Link))
	return op, nil
}

// legacyDrops reports whether a rule drops every packet, by itself or by the chain it jumps to.
func legacyDrops(program string, rule []string, depth int) (bool, error) {
	if len(rule) < 2 || rule[0] != "-j" && rule[0] != "-g" || depth > 8 {
		return false, nil // it has conditions
	}
	switch rule[1] {
	case "DROP", "REJECT":
		return true, nil
	case "ACCEPT", "RETURN", "LOG", "NFLOG", "MARK", "CONNMARK", "TRACE", "QUEUE", "NFQUEUE":
		return false, nil
	}
	lines, err := wire.LegacyChain(program, rule[1])
	if err != nil {
		return false, err
	}
	for _, line := range lines {
		w := strings.Fields(line)
		if len(w) < 3 || w[0] != "-A" {
			continue
		}
		if slices.Equal(w[2:], []string{"-j", "RETURN"}) {
			return false, nil
		}
		if drops, err := legacyDrops(program, w[2:], depth+1); drops || err != nil {
			return drops, err
		}
	}
	return false, nil
}

// Mend lets the networks that have containers through other firewalls again, which may have been started or have forgotten it since: a
// firewall that is reloaded makes its tables anew. It does nothing where there is no other firewall, which it finds out with two questions.
func (s Store) Mend() error {
	rs, err := wire.ReadForeign(unix.NF_INET_FORWARD)
	if err != nil {
		return err
	}
	if rs != nil {
		rs.Close()
	} else if len(wire.Legacy(true)) == 0 {
		return nil
	}
	names, err := s.names()
	if err != nil {
		return err
	}
	var errs []error
	for _, name := range names {
		// Nobody misses it; its next container lets it through.
		if leases, err := s.Leases(name); err != nil || len(leases) == 0 {
			continue
		}
		n, err := s.open(name, false)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		errs = append(errs, mend(n))
	}
	return errors.Join(errs...)
}

func mend(n Network) error {
	if len(n.Beside) == 0 {
		return nil
	}
	do := func() error {
		w := wire.Open(nil)
		defer w.Close()
		for _, op := range n.Beside {
			if err := w.Do(op); err != nil {
				return fmt.Errorf("%s: %w", op, err)
			}
		}
		return nil
	}
	if err := do(); err != nil {
		return err
	}
	if stands, err := stands(n); err != nil || !stands {
		// Somebody has put a rule in front of ours that drops: they take their place again.
		if err := errors.Join(err, wire.DeleteAccepts(n.Link, nil), do()); err != nil {
			return err
		}
	}
	// What is of no use any more, such as an interface that is no way out by now.
	return wire.DeleteAccepts(n.Link, func(r wire.RuleState) bool {
		return slices.ContainsFunc(n.Beside, func(op *plan.FirewallAccept) bool { return wire.IsAccept(r, op) })
	})
}

// stands reports whether no chain of another firewall drops what a network needs.
func stands(n Network) (bool, error) {
	rs, err := wire.ReadForeign(unix.NF_INET_FORWARD)
	if err != nil || rs == nil {
		return err == nil, err
	}
	defer rs.Close()
	for _, t := range trials(n) {
		ours := func(c wire.ChainState) bool { return !rs.Foreign(c, unix.NF_INET_FORWARD) }
		if rs.Judge(unix.NF_INET_FORWARD, &t.packet, ours).Dropped {
			return false, nil
		}
	}
	return true, nil
}
