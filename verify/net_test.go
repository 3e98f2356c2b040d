package verify

import (
	"strings"
	"testing"

	"glassbox/plan"
)

// What can't be read of one network's table is told, whatever another one's says.
func TestTableOfOneNetwork(t *testing.T) {
	bad, good := &plan.NftBridge{Table: "no table/"}, &plan.NftBridge{Table: "glassbox-is-not-there"}
	v := &view{dir: -1, plan: &plan.Plan{Steps: []plan.Step{{Op: bad}, {Op: good}}}}
	v.readNet()
	defer v.net.close()
	if f := v.table(bad); f.Where == "" || strings.Contains(f.Why, "it wasn't looked at") {
		t.Errorf("got %+v", f)
	}
}
