package verify

import (
	"fmt"
	"slices"
	"strings"

	"glassbox/dns"
	"glassbox/plan"
	"glassbox/wire"
)

// wall reads a wall's rules back.
func (v *view) wall(o *plan.NftWall) Finding {
	where := "table netdev " + o.Table + " (nf_tables)"
	s, err := wire.LookWall(o)
	switch {
	case err != nil:
		return failed(where, err)
	case !s.Exists:
		return missing(where, "the wall", byHost())
	case len(s.Missing) > 0:
		return differs(where, strings.Join(s.Missing, "; "), fmt.Sprintf("%d of %d lines are missing or changed", len(s.Missing), len(o.Rules)),
			byHost())
	case len(s.Extra) > 0: // a rule in front of ours may let through what ours refuse
		return differs(where, "the lines of the plan alone", strings.Join(s.Extra, "; ")+" in no line of it", byHost())
	}
	if len(o.Guests) == 0 {
		return holds(where, fmt.Sprintf("%d lines", len(o.Rules)))
	}
	in, err := wire.Guests(o.Table)
	if err != nil {
		return failed(where, err)
	}
	var want, got []string
	for _, g := range dns.Guests(o.Names, o.Guests) {
		want = append(want, fmt.Sprintf("%s:%d/%s", g.Addr, g.Port, g.Proto))
	}
	for _, g := range in {
		got = append(got, fmt.Sprintf("%s:%d/%s", g.Addr, g.Port, g.Proto))
	}
	slices.Sort(want)
	slices.Sort(got)
	if !slices.Equal(want, got) {
		return differs(where, "in by name: "+strings.Join(want, ", "), "in by name: "+strings.Join(got, ", "), byHost())
	}
	return holds(where, fmt.Sprintf("%d lines, %d guests", len(o.Rules), len(got)))
}

// noWall looks whether a wall is down.
func (v *view) noWall(o *plan.NftUnwall) Finding {
	where := "table netdev " + o.Table + " (nf_tables)"
	var rules []string
	if o.Bridged {
		rules = []string{"add table bridge " + o.Table} // which makes LookWall look there, too
	}
	s, err := wire.LookWall(&plan.NftWall{Table: o.Table, Rules: rules})
	if err != nil {
		return failed(where, err)
	}
	if s.Exists {
		return differs(where, "no such table", "it is there", byHost())
	}
	return holds(where, "no such table")
}
