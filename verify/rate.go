package verify

import (
	"fmt"

	"glassbox/plan"
	"glassbox/wire"
)

// rate compares a link's bound with the plan's.
func (v *view) rate(o *plan.LinkRate) Finding {
	where, links, err, netns, who := hostLinks, v.net.host, v.net.hostErr, -1, byHost()
	if o.Inside {
		where, links, err, netns, who = itsLinks, v.net.inside, v.net.insideErr, v.net.fd, v.who("CAP_NET_ADMIN")
	}
	if err != nil {
		return failed(where, err)
	}
	l := find(links, o.Link)
	if l == nil {
		return missing(where, "link "+o.Link, who)
	}
	rates, err := wire.Rates(netns)
	if err != nil {
		return failed(where, err)
	}
	words := func(rate int64) string {
		if rate == 0 {
			return "no bound"
		}
		return fmt.Sprintf("at most %d bytes per second", rate)
	}
	return same(where, o.Link+", "+words(o.Rate), o.Link+", "+words(rates[l.Index]), who)
}
