package engine

import (
	"strings"

	"glassbox/container"
	"glassbox/network"
	"glassbox/plan"
	"glassbox/supervise"
)

// updateRates finds the steps by which what a running container's cables carry changes, and the plan that it then has.
func (e *Engine) updateRates(u *Update, c *container.Container) error {
	if c.Fixed {
		return unsupported("container %s runs a plan that was given (--plan): its rates are the plan's", c.Name)
	}
	p := u.plan // its ports may change, too
	if p == nil {
		var err error
		if p, err = supervise.ReadPlan(e.dir(c.ID)); err != nil {
			return err
		}
	}
	var words []string
	for _, flag := range []string{"net-rate-in", "net-rate-out", "net-burst"} {
		if text := u.config.Origin(flag); text != "" {
			words = append(words, text)
		}
	}
	out := *p
	out.Steps = nil
	add := func(op *plan.LinkRate, before container.Rates, was int64) {
		s := plan.Step{
			Lane: plan.Host, Phase: plan.Network, Op: op, Origin: strings.Join(words, " "),
			Reason: "What comes faster waits in a queue, and is dropped when that is full.",
		}
		if op.Rate != was || before.Burst != u.config.Rates.Burst && op.Rate > 0 {
			u.Steps = append(u.Steps, s)
		}
		if op.Rate > 0 {
			out.Steps = append(out.Steps, s)
		}
	}
	now, before := u.config.Rates, c.Config.Rates
	cables := 0
	for _, s := range p.Steps {
		if _, ok := s.Op.(*plan.LinkRate); ok {
			continue
		}
		out.Steps = append(out.Steps, s)
		switch op := s.Op.(type) {
		case *plan.LinkVeth:
			cables++
			add(network.RateIn(now, op.Name), before, before.In)
			add(network.RateOut(now, op.Peer), before, before.Out)
		case *plan.LinkMacvlan:
			cables++
			if now.In > 0 {
				return invalid("--net-rate-in is kept at the host's end of a cable, which a container on top of %s doesn't have", op.Parent)
			}
			add(network.RateOut(now, op.Name), before, before.Out)
		}
	}
	if cables == 0 {
		return conflict("container %s has no cable whose rate could change", c.Name)
	}
	u.plan = &out
	return u.plan.Validate()
}

func inside(s plan.Step) bool {
	op, ok := s.Op.(*plan.LinkRate)
	return ok && op.Inside
}

// formerRate is what a link's rate was before a step, as the plan says.
func formerRate(dir string, op *plan.LinkRate) (*plan.LinkRate, error) {
	p, err := supervise.ReadPlan(dir)
	if err != nil {
		return nil, err
	}
	for _, s := range p.Steps {
		if was, ok := s.Op.(*plan.LinkRate); ok && was.Link == op.Link && was.Inside == op.Inside {
			return was, nil
		}
	}
	return &plan.LinkRate{Link: op.Link, Inside: op.Inside}, nil
}
