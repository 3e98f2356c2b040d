package verify

import (
	"fmt"
	"strings"

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
	return holds(where, fmt.Sprintf("%d lines", len(o.Rules)))
}

// noWall looks whether a wall is down.
func (v *view) noWall(o *plan.NftUnwall) Finding {
	where := "table netdev " + o.Table + " (nf_tables)"
	s, err := wire.LookWall(&plan.NftWall{Table: o.Table})
	if err != nil {
		return failed(where, err)
	}
	if s.Exists {
		return differs(where, "no such table", "it is there", byHost())
	}
	return holds(where, "no such table")
}
