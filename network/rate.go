package network

import (
	"fmt"

	"glassbox/container"
	"glassbox/plan"
)

// rate writes the steps that bound what the container's cable carries.
func (w *writer) rate(e Endpoint) {
	for _, op := range []*plan.LinkRate{RateIn(e.rates, e.Link), RateOut(e.rates, e.Interface)} {
		if op.Rate > 0 {
			w.add(op, w.origin("rate"), "What comes faster waits in a queue, and is dropped when that is full; TCP slows down by itself. It is the "+
				"cable's end that sends which counts: the host's for what comes in, the container's for what it sends.")
		}
	}
}

// RateIn is the step for what comes to a container by the host's end of a cable.
func RateIn(r container.Rates, link string) *plan.LinkRate {
	return &plan.LinkRate{Link: link, Rate: r.In, Burst: burst(r, r.In)}
}

// RateOut is the step for what it sends by its own end.
func RateOut(r container.Rates, link string) *plan.LinkRate {
	return &plan.LinkRate{Link: link, Inside: true, Rate: r.Out, Burst: burst(r, r.Out)}
}

// burst is what may be sent at once. A bucket is filled with each tick of the kernel's clock, at least a hundred times a second.
func burst(r container.Rates, rate int64) int64 {
	if rate == 0 {
		return 0
	}
	if r.Burst > 0 {
		return max(r.Burst, rate/1000, 2048) // below that the rate isn't reached, or a packet never fits
	}
	return max(rate/100, 64<<10)
}

// checkRates refuses what a network's driver can't do.
func (n Network) checkRates(r container.Rates) error {
	if r.In > 0 && n.onParent() {
		return fmt.Errorf("network %s: --net-rate-in is kept at the host's end of a cable, which containers of driver %s don't have",
			n.Name, n.Driver)
	}
	return nil
}
