package engine

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"glassbox/container"
	"glassbox/dns"
	"glassbox/event"
	"glassbox/fork"
	"glassbox/network"
	"glassbox/plan"
	"glassbox/state"
	"glassbox/supervise"
)

// ConnectOptions say how a container is plugged into a network, in Docker's words.
type ConnectOptions struct {
	Aliases   []string
	Links     []string // NAME or NAME:ALIAS
	IP, IP6   string
	LinkLocal []string
	MAC       string
	Options   []string // KEY=VALUE
	Priority  int
}

// endpoint reads the words.
func (o *ConnectOptions) endpoint(name string) (container.Endpoint, error) {
	words := []string{"name=" + name}
	add := func(key string, values ...string) {
		for _, v := range values {
			if v != "" {
				words = append(words, key+"="+v)
			}
		}
	}
	add("alias", o.Aliases...)
	add("link", o.Links...)
	add("ip", o.IP)
	add("ip6", o.IP6)
	add("mac-address", o.MAC)
	add("link-local-ip", o.LinkLocal...)
	add("driver-opt", o.Options...)
	if o.Priority != 0 {
		add("gw-priority", fmt.Sprint(o.Priority))
	}
	// The long form of --network is one line of comma-separated values (RFC 4180), and is read as that: a value with a
	// comma needs quotes.
	for i, w := range words {
		if strings.ContainsAny(w, ",\"") {
			words[i] = `"` + strings.ReplaceAll(w, `"`, `""`) + `"`
		}
	}
	at, err := container.ParseEndpoint(strings.Join(words, ","))
	at.Origin = "network connect " + name
	return at, err
}

// NetworkConnect plugs a container into a network. One that runs gets its cable at once, by steps that become part of its plan; another
// one with its next start.
func (e *Engine) NetworkConnect(ctx context.Context, networkRef, ref string, o ConnectOptions) error {
	n, err := e.findNetwork(networkRef)
	if err != nil {
		return err
	}
	if n.Driver == network.Host || n.Driver == network.None {
		return conflict("container cannot be connected to network %s: it is for those that are made with --network %s", n.Name, n.Name)
	}
	at, err := o.endpoint(n.Name)
	if err != nil {
		return err
	}
	return e.rewire(ctx, ref, func(c *container.Container, s *supervise.State) error {
		mode := container.Mode(c.Network())
		switch {
		case mode.IsHost():
			return conflict("container cannot be connected to network %s: it is in the host's network", n.Name)
		case mode.Container() != "":
			return conflict("container sharing network namespace with another container or host cannot be connected to any other network")
		case mode == "none" && c.Config.Endpoints[0].Origin != unplugged:
			return conflict("container cannot be connected to multiple networks with one of the networks in private (none) mode")
		case onNetwork(c, n.Name):
			return conflict("endpoint with name %s already exists in network %s", c.Name, n.Name)
		}
		// A container without endpoints is on the default network. That has to be written down now, or a second one would
		// be its only one.
		c.Config.Endpoints = c.Config.Networks()
		if mode == "none" { // since it was taken off its last network
			c.Config.Endpoints = nil
		}
		if live(s) {
			if err := e.plug(ctx, c, s, n, at); err != nil {
				return err
			}
		}
		c.Config.Endpoints = append(c.Config.Endpoints, at)
		if err := e.saveRewired(c); err != nil {
			return err
		}
		e.networkHappened(n, event.Connect, c)
		return nil
	})
}

// NetworkDisconnect takes a container off a network. With force, one that isn't there any more is none, either.
func (e *Engine) NetworkDisconnect(ctx context.Context, networkRef, ref string, force bool) error {
	n, err := e.findNetwork(networkRef)
	if err != nil {
		return err
	}
	if n.Driver == network.Host {
		return conflict("container cannot be disconnected from host network - container can only be disconnected when it is removed")
	}
	err = e.rewire(ctx, ref, func(c *container.Container, s *supervise.State) error {
		c.Config.Endpoints = c.Config.Networks()
		i := slices.IndexFunc(c.Config.Endpoints, func(at container.Endpoint) bool { return at.Network == n.Name })
		// Networks() also names what isn't a network that can be left: another container's namespace.
		if i < 0 || container.Mode(c.Network()).Container() != "" {
			return conflict("container %s is not connected to network %s", c.ID, n.Name)
		}
		if live(s) {
			if err := e.unplug(c, s, n, i); err != nil {
				return err
			}
		}
		// Docker leaves a container without a network on "none". An empty list would mean the default network to its next
		// start.
		if len(c.Config.Endpoints) == 1 {
			c.Config.Endpoints = []container.Endpoint{{Network: network.None, Origin: unplugged}}
		} else {
			c.Config.Endpoints = slices.Delete(c.Config.Endpoints, i, i+1)
		}
		if err := e.saveRewired(c); err != nil {
			return err
		}
		e.networkHappened(n, event.Disconnect, c)
		return nil
	})
	if force && errors.Is(err, ErrNotFound) {
		return nil
	}
	return err
}

// unplugged is where the network none of a container comes from that was taken off its last one: it may be plugged in again.
const unplugged = "network disconnect"

func live(s *supervise.State) bool {
	return s.Status == supervise.Running || s.Status == supervise.Paused
}

// rewire changes a container's networks while nobody else does.
func (e *Engine) rewire(ctx context.Context, ref string, do func(c *container.Container, s *supervise.State) error) error {
	c, s, unlock, err := e.change(ctx, ref)
	if err != nil {
		return err
	}
	defer unlock()
	if c.Fixed {
		return conflict("container %s was made from a plan, which says what its network is", c.Name)
	}
	return do(c, s)
}

func (e *Engine) saveRewired(c *container.Container) error {
	return state.WriteJSONSync(filepath.Join(e.dir(c.ID), supervise.ContainerFile), c)
}

func (e *Engine) networkHappened(n network.Network, action string, c *container.Container) {
	event.Write(e.cfg.State, event.New(event.Network, action, networkActor(n), "container", c.ID))
}

// errEnds is that a container that ran when it was looked at has no process any more.
var errEnds = errors.New("the container ends at this moment")

// netnsOf opens the network namespace of a running container.
func netnsOf(s *supervise.State) (int, error) {
	fd, err := unix.Open(fmt.Sprintf("/proc/%d/ns/net", s.PID), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, conflict("%w: %w", errEnds, err)
	}
	if start, err := fork.StartTime(s.PID); err != nil || s.Start != 0 && start != s.Start { // another process has the number by now
		unix.Close(fd)
		return -1, conflict("%w", errEnds)
	}
	return fd, nil
}

// plug gives a running container a cable. The supervisor's job comes first: one who is killed after that has left a job that takes back
// what isn't there, which is no error, and never a cable or an address that nobody takes back.
func (e *Engine) plug(ctx context.Context, c *container.Container, s *supervise.State, n network.Network, at container.Endpoint) error {
	dir := e.dir(c.ID)
	job, p, netns, err := openRun(dir, s)
	if err != nil {
		return err
	}
	defer unix.Close(netns)
	// Asked of the plan that runs and not of the configuration: the networks may have changed since it was started.
	out := !slices.ContainsFunc(p.Steps, func(step plan.Step) bool { _, ok := step.Op.(*plan.RouteDefault); return ok })
	at.Name, at.Origin = freeInterface(p, at.Name), ""
	a, err := attachment(at)
	if err != nil {
		return err
	}
	r := network.Request{Container: c.ID, Name: c.Name, Hostname: c.Hostname(), Networks: []network.Attachment{a}}
	r.Egress, r.Ingress, r.Rates = c.Config.Egress, c.Config.Ingress, c.Config.Rates
	// A network of a higher priority than the one that leads out now takes its place.
	replace := !out && !n.Internal && e.outranks(c, p, at)
	w, err := e.networks().Plug(r, freeCable(p, c.ID), out || replace, replace, true, "network connect "+n.Name)
	if err != nil {
		return invalid("%w", err)
	}
	if replace {
		dropRoutes(p, w.Steps)
	}
	if err := network.Splice(p, w.Steps); err != nil {
		w.Release()
		return err
	}
	// In front, because what was made last is taken back first: the new cable goes before the bridge that it is plugged
	// into.
	undo := (&plan.Plan{Steps: w.Steps}).Undo(len(w.Steps))
	job.Undo = append(undo, job.Undo...)
	if job.Network == nil {
		job.Network = &supervise.Network{State: e.networks().State}
	}
	for _, end := range w.Endpoints {
		for _, a := range end.Addresses() {
			job.Network.Leases = append(job.Network.Leases, supervise.Lease{Network: end.Network, Address: a.String()})
		}
	}
	if err := writeRun(dir, job, p); err != nil {
		w.Release()
		return err
	}
	if err := fork.Rewire(w.Steps, netns); err != nil {
		// The configuration is written by the caller, after this: the resolver is told of the endpoints as they will be
		// then.
		w.Release()
		return err
	}
	endpoints := append(slices.Clone(c.Config.Endpoints), at)
	if n.Named() && !slices.ContainsFunc(p.Steps, func(step plan.Step) bool { _, ok := step.Op.(*plan.NameListen); return ok }) {
		return e.beginResolver(ctx, &running{c, s, job, p, netns}, endpoints, "network connect "+n.Name)
	}
	return e.tellResolver(c, p, endpoints)
}

// unplug takes a cable from a running container.
func (e *Engine) unplug(c *container.Container, s *supervise.State, n network.Network, i int) error {
	dir := e.dir(c.ID)
	job, p, netns, err := openRun(dir, s)
	if err != nil {
		return err
	}
	defer unix.Close(netns)
	there, ok := network.PluggedInto(p, n, e.networks().NamesDir(n.Name))
	if ok {
		var own, given []plan.Step
		for _, k := range there.Steps {
			own = append(own, p.Steps[k])
		}
		// What the cable's own steps say takes it back, as at a container's end: there is no second way to remove one.
		undo := (&plan.Plan{Steps: own}).Undo(len(own))
		for _, s := range own { // which ends with the namespace otherwise
			if op, ok := s.Op.(*plan.LinkMacvlan); ok {
				undo = append(undo, plan.Step{
					Lane: plan.Host, Phase: plan.Network, Op: &plan.LinkDelete{Name: op.Name, Inside: true}, Origin: s.Origin,
				})
			}
		}
		if there.Default {
			next := e.nextDefault(c, p, n)
			undo = append(undo, next...)
			given = next
		}
		if err := fork.Rewire(undo, netns); err != nil {
			return err
		}
		// From the end: each removal shifts the numbers of the steps behind it.
		for _, k := range slices.Backward(there.Steps) {
			p.Steps = slices.Delete(p.Steps, k, k+1)
		}
		if len(given) > 0 {
			dropRoutes(p, given)
			if err := network.Splice(p, given); err != nil {
				return err
			}
		}
		gone := map[string]bool{}
		for _, u := range undo {
			gone[u.Op.Kind()+" "+u.Op.String()] = true
		}
		// The other way round than in plug: first the cable goes, then the job forgets it. Who is killed in between leaves
		// a job that takes back what isn't there.
		job.Undo = slices.DeleteFunc(job.Undo, func(u plan.Step) bool { return gone[u.Op.Kind()+" "+u.Op.String()] })
	}
	if job.Network != nil {
		keep := job.Network.Leases[:0:0]
		for _, l := range job.Network.All() {
			if l.Network != n.Name {
				keep = append(keep, l)
			}
		}
		job.Network.Leases, job.Network.Address = keep, ""
	}
	if err := writeRun(dir, job, p); err != nil {
		return err
	}
	// Last of all: an address that is free belongs to the next container at once, and until here this one's cable may have
	// had it.
	for _, a := range there.Addresses {
		if err := e.networks().Release(n.Name, a, c.ID); err != nil {
			return err
		}
	}
	return e.tellResolver(c, p, slices.Delete(slices.Clone(c.Config.Endpoints), i, i+1))
}

// dropRoutes removes the default routes from a plan that those of steps take the place of: of each version of IP there is one.
func dropRoutes(p *plan.Plan, steps []plan.Step) {
	version := func(s plan.Step) string {
		o, ok := s.Op.(*plan.RouteDefault)
		if !ok {
			return ""
		}
		return fmt.Sprint(o.Is6())
	}
	p.Steps = slices.DeleteFunc(p.Steps, func(s plan.Step) bool {
		v := version(s)
		return v != "" && slices.ContainsFunc(steps, func(o plan.Step) bool { return version(o) == v })
	})
}

// outranks reports whether an endpoint has a higher priority than the one by which a container reaches the rest of the world now.
func (e *Engine) outranks(c *container.Container, p *plan.Plan, at container.Endpoint) bool {
	for _, o := range c.Config.Endpoints {
		// A network whose record is gone can't be the way out any more.
		if n, err := e.networks().Known(o.Network); err == nil {
			if there, ok := network.PluggedInto(p, n, ""); ok && there.Default {
				return at.Priority > o.Priority
			}
		}
	}
	return false
}

// nextDefault are the steps that make another of a container's networks its way to the rest of the world: the one of the highest priority,
// of equal ones the first by name.
func (e *Engine) nextDefault(c *container.Container, p *plan.Plan, without network.Network) []plan.Step {
	candidates := slices.Clone(c.Config.Endpoints)
	slices.SortFunc(candidates, func(a, b container.Endpoint) int {
		return cmp.Or(cmp.Compare(b.Priority, a.Priority), cmp.Compare(a.Network, b.Network))
	})
	for _, at := range candidates {
		n, err := e.networks().Known(at.Network)
		if err != nil || n.Name == without.Name || n.Internal {
			// An internal network has no gateway that leads out.
			continue
		}
		there, ok := network.PluggedInto(p, n, "")
		if !ok {
			continue
		}
		var steps []plan.Step
		for _, op := range n.DefaultRoutes(there.Peer) {
			op.Replace = true
			steps = append(steps, plan.Step{
				Lane: plan.Host, Phase: plan.Network, Op: op,
				Origin: "network disconnect " + without.Name, Reason: "The network that was the way to the rest of the world is gone.",
			})
		}
		if len(steps) > 0 {
			return steps
		}
	}
	return nil
}

// renameOnNetworks makes a running container known by its new name, and forgets the old one. The plan and the job come first, as in plug.
func (e *Engine) renameOnNetworks(c *container.Container, s *supervise.State, old string) error {
	dir := e.dir(c.ID)
	job, p, netns, err := openRun(dir, s)
	if err != nil {
		return err
	}
	defer unix.Close(netns)
	was, is := strings.ToLower(old), strings.ToLower(c.Name)
	var steps []plan.Step
	for i, step := range p.Steps {
		op, ok := step.Op.(*plan.NameAdd)
		if !ok || !slices.Contains(op.Names, was) && !dns.ValidName(is) {
			continue
		}
		before := (&plan.Plan{Steps: p.Steps[i : i+1]}).Undo(1)
		next := *op
		next.Names = slices.DeleteFunc(slices.Clone(op.Names), func(n string) bool { return n == was || n == is })
		if dns.ValidName(is) {
			next.Names = slices.Insert(next.Names, 0, is)
		}
		forget := []string{was}
		if was == is || e.otherName(c, was) {
			next.Names, forget = append(next.Names, was), nil
		}
		p.Steps[i].Op = &next
		steps = append(steps, p.Steps[i])
		if len(forget) > 0 {
			steps = append(steps, plan.Step{Lane: step.Lane, Phase: step.Phase, Op: &plan.NameRemove{Dir: op.Dir, Owner: op.Owner, Names: forget}})
		}
		for k, u := range job.Undo {
			if slices.ContainsFunc(before, func(b plan.Step) bool { return b.Op.String() == u.Op.String() && b.Op.Kind() == u.Op.Kind() }) {
				if gone, ok := u.Op.(*plan.NameRemove); ok && gone.Dir == op.Dir {
					job.Undo[k].Op = next.Undo()[0]
				}
			}
		}
	}
	if len(steps) == 0 {
		return nil
	}
	if err := writeRun(dir, job, p); err != nil {
		return err
	}
	return fork.Rewire(steps, netns)
}

// otherName reports whether a container has a name by something else than its own name.
func (e *Engine) otherName(c *container.Container, name string) bool {
	return strings.EqualFold(c.Hostname(), name) || slices.ContainsFunc(c.Config.Endpoints, func(at container.Endpoint) bool {
		return slices.ContainsFunc(at.Aliases, func(a string) bool { return strings.EqualFold(a, name) })
	})
}

// openRun reads what a supervisor does and has done, and opens the network namespace of its container, which the caller closes.
func openRun(dir string, s *supervise.State) (job *supervise.Job, p *plan.Plan, netns int, err error) {
	if job, err = supervise.ReadJob(dir); err != nil {
		return nil, nil, -1, err
	}
	if p, err = supervise.ReadPlan(dir); err != nil {
		return nil, nil, -1, err
	}
	netns, err = netnsOf(s)
	return job, p, netns, err
}

// writeRun replaces it. The supervisor reads it at the end, because of the file supervise.RewiredFile.
func writeRun(dir string, job *supervise.Job, p *plan.Plan) error {
	// In the order of a start: where there is a job, there is its plan.
	if err := state.WriteJSON(filepath.Join(dir, supervise.PlanFile), p); err != nil {
		return err
	}
	if err := state.WriteJSON(filepath.Join(dir, supervise.JobFile), job); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, supervise.RewiredFile), nil, 0o600)
}

// freeInterface is the name of the next interface inside: the one asked for, or the first ethN that no step has made.
func freeInterface(p *plan.Plan, want string) string {
	taken := map[string]bool{}
	for _, s := range p.Steps {
		switch op := s.Op.(type) {
		case *plan.LinkVeth:
			taken[op.Peer] = true
		case *plan.LinkMacvlan:
			taken[op.Name] = true
		}
	}
	if want != "" && !taken[want] {
		return want
	}
	for i := 0; ; i++ {
		if name := network.InterfaceName(i); !taken[name] {
			return name
		}
	}
}

// freeCable is the number of the next cable: the first whose name on the host no step has given.
func freeCable(p *plan.Plan, id string) int {
	taken := map[string]bool{}
	for _, s := range p.Steps {
		if op, ok := s.Op.(*plan.LinkVeth); ok {
			taken[op.Name] = true
		}
	}
	for i := 0; ; i++ {
		if !taken[network.VethName(id, i)] {
			return i
		}
	}
}
