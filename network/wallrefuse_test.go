package network

import (
	"strings"
	"testing"

	"glassbox/plan"
	"glassbox/wire"
)

// Where the wall's own family has no reject, what is refused is marked, and the bridge's first chain refuses that alone; both are
// taken down. Where no family has one, nothing that is refused goes on.
func TestWallRefuses(t *testing.T) {
	w := newWorld(t, -1, true)
	for _, how := range []wire.Refusing{wire.RefuseHere, wire.RefuseBridge, wire.RefuseSilent} {
		e := w.e1
		e.wall = wallOf(t, "192.0.2.2:80", "")
		e.wall.refusal = how
		var ends, bridge []string
		for _, line := range wallRules(w.net, e) {
			if strings.Contains(line, " refuse ") {
				ends = append(ends, line)
			}
			if strings.Contains(line, " bridge ") {
				bridge = append(bridge, line)
			}
		}
		undo := (&plan.NftWall{Table: e.Link, Link: e.Link, Rules: wallRules(w.net, e)}).Undo()[0].(*plan.NftUnwall)
		if undo.Bridged != (how == wire.RefuseBridge) || undo.Bridged != (len(bridge) == 6) {
			t.Errorf("%q: bridge %q, taken down: %v", how, bridge, undo.Bridged)
		}
		last := ends[len(ends)-1]
		if how != wire.RefuseBridge && !strings.HasSuffix(last, " drop") {
			t.Errorf("%q: what can't be refused ends with %s", how, last)
		}
		if how == wire.RefuseBridge && !strings.HasSuffix(last, "meta mark set 0x67626e6f accept") {
			t.Errorf("%q: what is refused ends with %s", how, last)
		}
		for _, line := range bridge {
			of := `marked iifname "` + e.Link + `" meta mark 0x67626e6f `
			if strings.HasPrefix(line, "add rule") && !strings.Contains(line, of) {
				t.Errorf("%s: of another container's, or not marked", line)
			}
		}
		// Somebody else's link is no matter of this wall's.
		rules := append(wallRules(w.net, e), `add rule bridge `+e.Link+` marked iifname "eth0" drop`)
		if err := w.host.run(w.c1, []plan.Step{{Op: &plan.NftWall{Table: e.Link, Link: e.Link, Rules: rules}}}); err == nil {
			t.Errorf("%q: a wall about another link was made", how)
		}
	}
}
