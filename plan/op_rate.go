package plan

import "fmt"

// newRateOp makes an empty step of one of the kinds of this file, or nil: how much a cable carries.
func newRateOp(kind string) Op {
	if kind == "link-rate" {
		return &LinkRate{}
	}
	return nil
}

// LinkRate bounds how much a link sends, with a token bucket (tc-tbf(8)) in the place of its queue: of the host's end of a cable that is
// what comes to the container, of the container's end what it sends. It goes with the link.
type LinkRate struct {
	Link   string `json:"link"`
	Inside bool   `json:"inside,omitempty"` // in the child's network namespace
	Rate   int64  `json:"rate"`             // bytes per second; 0: no bound any more
	Burst  int64  `json:"burst,omitempty"`  // bytes
}

func (*LinkRate) Kind() string { return "link-rate" }

func (*LinkRate) Man() string { return "tc-tbf(8)" }

func (o *LinkRate) String() string {
	where := o.Link
	if o.Inside {
		where += " of the container"
	}
	if o.Rate == 0 {
		return where + " sends as much as it can"
	}
	return fmt.Sprintf("%s sends at most %d bytes per second, %d at once", where, o.Rate, o.Burst)
}

func (*LinkRate) lanes() lanes { return hostLane }

func (o *LinkRate) hostNames() []string {
	if o.Inside {
		return nil
	}
	return []string{"link " + o.Link}
}
