package engine

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"glassbox/container"
	"glassbox/dns"
	"glassbox/fork"
	"glassbox/network"
	"glassbox/plan"
	"glassbox/state"
	"glassbox/supervise"
)

// running is a container that runs, and what openRun says of it.
type running struct {
	c     *container.Container
	s     *supervise.State
	job   *supervise.Job
	plan  *plan.Plan
	netns int
}

// beginResolver gives a running container that was started on networks without names what one that is started on others has from its
// start: its supervisor answers questions for names, and /etc/resolv.conf says so. The step joins the plan last of all, so that who is
// killed before that does everything again the next time. What can't be done is a warning: the container has its cable.
func (e *Engine) beginResolver(ctx context.Context, r *running, on []container.Endpoint, origin string) error {
	c, s, dir := r.c, r.s, e.dir(r.c.ID)
	later := func(err error) error {
		warn(ctx, fmt.Sprintf("container %s finds others by name after its next start: %v", c.Name, err))
		return nil
	}
	// Before the supervisor answers: it looks there.
	if err := e.writeResolver(c, r.plan, on); err != nil {
		return err
	}
	step := network.Listen(origin)
	sockets, err := fork.Listen(step.Op.(*plan.NameListen), r.netns)
	if err == nil {
		err = supervise.HandResolver(ctx, dir, s, sockets)
		for _, fd := range sockets {
			unix.Close(fd)
		}
	}
	// The supervisor has them since an earlier try, which was killed before it wrote the plan.
	if err != nil && !errors.Is(err, unix.EADDRINUSE) {
		os.Remove(filepath.Join(dir, supervise.ResolverFile)) // by which it would be taken for one that has a resolver
		return later(err)
	}
	file := filepath.Join(dir, "resolv.conf")
	if st, err := os.Stat(file); err != nil || st.ModTime().After(s.Started) {
		return later(errors.New("its /etc/resolv.conf was changed since its start, and is left as it is"))
	}
	_, resolv, err := network.Files{OwnResolver: true, Resolver: c.Config.DNS}.Write()
	if err != nil {
		return err
	}
	// Not by rename: it is this file that is mounted in the container.
	if err := os.WriteFile(file, resolv, 0o644); err != nil {
		return err
	}
	if err := network.Splice(r.plan, []plan.Step{step}); err != nil {
		return err
	}
	return writeRun(dir, r.job, r.plan)
}

// writeResolver writes what a container's resolver knows: names of the networks that it is on, and whom it asks for others.
func (e *Engine) writeResolver(c *container.Container, p *plan.Plan, on []container.Endpoint) error {
	var networks []network.Network
	var links [][]string
	for _, at := range on {
		n, err := e.networks().Known(at.Network)
		if err != nil {
			return err
		}
		networks, links = append(networks, n), append(links, at.Links)
	}
	text := append(e.networks().Resolver(networks, links, c.Config.DNS.Servers), network.ResolverWalls(p.Steps)...)
	file := filepath.Join(e.dir(c.ID), supervise.ResolverFile)
	if err := state.WriteFile(file, text, 0o600); err != nil {
		return err
	}
	return dns.Tell(file)
}

// tellResolver writes it anew where there is a resolver.
func (e *Engine) tellResolver(c *container.Container, p *plan.Plan, on []container.Endpoint) error {
	if _, err := os.Lstat(filepath.Join(e.dir(c.ID), supervise.ResolverFile)); err != nil {
		return nil
	}
	return e.writeResolver(c, p, on)
}
