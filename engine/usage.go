package engine

import (
	"context"
	"errors"
	"time"

	"glassbox/cgroup"
	"glassbox/container"
	"glassbox/docker"
	"glassbox/supervise"
)

// Metered is what a container uses at a moment, beside what it was asked for by.
type Metered struct {
	Ref string
	*docker.Stats
}

// Meter reads again and again what containers use.
type Meter struct {
	e    *Engine
	all  bool
	refs []string
	seen map[string]*reading // by ID; written by no two goroutines
}

// reading is the last one of a container's run. Where its cgroups are stands in a large file, which is read once.
type reading struct {
	run   time.Time // when it began
	paths map[string]string
	last  *docker.Stats
}

// Meter measures the containers that are named or, without names, those that run; with all, all.
func (e *Engine) Meter(refs []string, all bool) *Meter {
	return &Meter{e: e, all: all, refs: refs, seen: map[string]*reading{}}
}

// target is a container to be read.
type target struct {
	ref string
	c   *container.Container
	s   *supervise.State
}

// targets looks who is to be read now. What is wrong with a name is told beside those that are there.
func (m *Meter) targets(ctx context.Context) ([]target, error) {
	if len(m.refs) == 0 {
		var out []target
		items, err := m.e.items(ctx, ListOptions{All: m.all})
		for _, it := range items {
			out = append(out, target{it.c.Name, it.c, it.s})
		}
		return out, err
	}
	var out []target
	var errs []error
	for _, ref := range m.refs {
		c, s, err := m.e.load(ctx, ref)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		out = append(out, target{ref, c, s})
	}
	return out, errors.Join(errs...)
}

// Read reads what is used now. Containers that were started since the last reading, and at the first one all, have used no processor yet:
// what they use is worked out from two readings. Who is missing is told beside those that are there.
func (m *Meter) Read(ctx context.Context) ([]Metered, error) {
	targets, missing := m.targets(ctx)
	host, err := m.e.hostReading(ctx)
	if err != nil {
		return nil, err
	}
	// Before the readers start: afterwards each writes only into its own entry, and a map must not grow under them.
	for _, t := range targets {
		if _, ok := m.seen[t.c.ID]; !ok {
			m.seen[t.c.ID] = &reading{}
		}
	}
	out := make([]Metered, len(targets))
	parallel(len(targets), 1, func(i int) { // of hundreds each is a dozen small files
		out[i] = Metered{targets[i].ref, m.read(targets[i], host)}
	})
	return out, missing
}

// read reads one container. One that ends meanwhile has no numbers: as if it had been looked at later.
func (m *Meter) read(t target, host docker.Reading) *docker.Stats {
	nothing := docker.Measure(t.c.ID, t.c.Name, docker.Reading{Cgroup: &cgroup.Stats{}}, nil)
	if !t.s.Alive() {
		return nothing
	}
	r := m.seen[t.c.ID]
	if r.paths == nil || !r.run.Equal(t.s.Started) {
		paths, err := m.e.cgroups(t.c.ID)
		if err != nil {
			return nothing
		}
		*r = reading{run: t.s.Started, paths: paths}
	}
	now, err := measure(t.c, t.s, r.paths, host, r.last)
	if err != nil {
		return nothing
	}
	r.last = now
	return now
}
