package engine

import (
	"slices"
	"strings"

	"glassbox/container"
	"glassbox/network"
	"glassbox/plan"
	"glassbox/supervise"
)

// updatePorts finds the steps by which a running container's published ports change, and the plan and job that it then has.
func (e *Engine) updatePorts(u *Update, c *container.Container, s *supervise.State) error {
	if c.Fixed {
		return unsupported("container %s runs a plan that was given (--plan): its ports are the plan's", c.Name)
	}
	dir := e.dir(c.ID)
	job, err := supervise.ReadJob(dir)
	if err != nil {
		return err
	}
	p, err := supervise.ReadPlan(dir)
	if err != nil {
		return err
	}
	n, there, ok := e.wayOut(c, p)
	if !ok {
		return conflict("container %s is on no network by which it could be reached from outside: --publish-add needs one that "+
			"isn't internal", c.Name)
	}
	held := func(p container.Port) bool { // by the supervisor, since the start
		return slices.ContainsFunc(s.Ports, func(r plan.PortRule) bool {
			return r.HostPort == p.HostPort && r.Proto == p.Proto && (r.HostIP == "" && !p.HostIP.IsValid() || r.HostIP == p.HostIP.String())
		})
	}
	var have []plan.PortRule
	at := -1
	for i, step := range p.Steps {
		if op, ok := step.Op.(*plan.NftPublish); ok && op.Table == n.Table() {
			have, at = op.Ports, i
		}
	}
	var gone, more []plan.PortRule
	next := slices.Clone(have)
	before := make(map[container.Port]bool, len(c.Config.Ports))
	for _, o := range c.Config.Ports {
		o.Origin = ""
		before[o] = true
	}
	carried := carriedPorts(p)
	if still, err := removedPorts(carried, u.words.PublishRm); err != nil || len(still) > 0 {
		if err == nil {
			err = unsupported("port %d on %s is one that the container's supervisor carries until the container ends: stop it first",
				still[0].HostPort, still[0].HostIP)
		}
		return err
	}
	if gone, err = removedPorts(have, u.words.PublishRm); err != nil {
		return err
	}
	next = slices.DeleteFunc(next, func(r plan.PortRule) bool { return slices.Contains(gone, r) })
	for i := range u.config.Ports {
		p := u.config.Ports[i]
		p.Origin = ""
		if before[p] {
			continue
		}
		// What is chosen is written into the configuration, as it would be asked for again.
		rules, err := n.Published(there.Addresses, u.config.Ports[i:i+1], held)
		if err != nil {
			return invalid("%w", err)
		}
		more = append(more, rules...)
	}
	next = append(next, more...)
	if i := slices.IndexFunc(more, plan.PortRule.Carried); i >= 0 {
		return unsupported("port %d on %s is one that the container's supervisor carries, from its start on: stop the container, and "+
			"publish it then", more[i].HostPort, more[i].HostIP)
	}
	step := func(op plan.Op, reason string) plan.Step {
		return plan.Step{Lane: plan.Host, Phase: plan.Network, Op: op, Origin: portsOrigin(u.words), Reason: reason}
	}
	if len(gone) > 0 {
		u.Steps = append(u.Steps, step(&plan.NftUnpublish{Table: n.Table(), Ports: gone},
			"These ports of the host lead to the container no more; connections that are open are cut off."))
	}
	if len(more) > 0 {
		u.Steps = append(u.Steps, step(&plan.NftPublish{Table: n.Table(), Ports: more},
			"Connections to these ports of the host are sent on to the container by the kernel itself from now on."))
	}
	u.plan, u.job = withPorts(p, job, n, at, next, step), job
	return u.plan.Validate()
}

// portsOrigin are the flags, as typed.
func portsOrigin(w container.Words) string {
	var out []string
	for _, t := range w.PublishRm {
		out = append(out, "--publish-rm "+t)
	}
	for _, t := range w.PublishAdd {
		out = append(out, "--publish-add "+t)
	}
	return strings.Join(out, " ")
}

// wayOut is the network by which a container that runs reaches the rest of the world, as its plan says.
func (e *Engine) wayOut(c *container.Container, p *plan.Plan) (network.Network, network.Plugged, bool) {
	for _, at := range c.Config.Networks() {
		n, err := e.networks().Known(at.Network)
		if err != nil {
			continue
		}
		if there, ok := network.PluggedInto(p, n, ""); ok && there.Default {
			return n, there, true
		}
	}
	return network.Network{}, network.Plugged{}, false
}

// removedPorts are those rules that --publish-rm means.
func removedPorts(have []plan.PortRule, texts []string) (out []plan.PortRule, err error) {
	for _, text := range texts {
		ports, err := container.ParsePorts(text)
		if err != nil {
			return nil, err
		}
		for _, g := range ports {
			for _, r := range have {
				if r.ContainerPort == g.ContainerPort && r.Proto == g.Proto && (g.HostPort == 0 || r.HostPort == g.HostPort) &&
					(!g.HostIP.IsValid() || r.HostIP == g.HostIP.String()) && !slices.Contains(out, r) {
					out = append(out, r)
				}
			}
		}
	}
	return out, nil
}

// withPorts is a plan with other published ports, and puts them into the job: what is taken back at the end, and what is listed.
func withPorts(p *plan.Plan, job *supervise.Job, n network.Network, at int, ports []plan.PortRule,
	step func(plan.Op, string) plan.Step,
) *plan.Plan {
	out := *p
	out.Steps = slices.Clone(p.Steps)
	job.Undo = slices.DeleteFunc(job.Undo, func(u plan.Step) bool {
		op, ok := u.Op.(*plan.NftUnpublish)
		return ok && op.Table == n.Table()
	})
	op := &plan.NftPublish{Table: n.Table(), Ports: ports}
	s := step(op, "Connections to these ports of the host are sent on to the container by the kernel itself; no process stands between.")
	switch {
	case at >= 0 && len(ports) > 0:
		s.Origin = strings.TrimSpace(out.Steps[at].Origin + " " + s.Origin)
		out.Steps[at] = s
	case at >= 0:
		out.Steps = slices.Delete(out.Steps, at, at+1)
	case len(ports) > 0:
		_ = network.Splice(&out, []plan.Step{s}) // the caller validates it
	}
	if len(ports) > 0 {
		undo := s
		undo.Op = op.Undo()[0]
		job.Undo = append([]plan.Step{undo}, job.Undo...)
	}
	if job.Network != nil {
		job.Network.Ports = append(slices.Clone(ports), carriedPorts(p)...)
	}
	return &out
}

// carriedPorts are those that a container's supervisor carries, which a change of the others leaves as they are.
func carriedPorts(p *plan.Plan) (out []plan.PortRule) {
	for _, s := range p.Steps {
		if op, ok := s.Op.(*plan.PortCarry); ok {
			out = append(out, op.Ports...)
		}
	}
	return out
}
