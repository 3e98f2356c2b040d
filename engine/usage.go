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

// Usage is what a container uses at a moment: the numbers of its cgroup, and of its network devices.
type Usage struct {
	ID          string
	Name        string
	Ref         string  // what it was asked for by
	Running     bool    // false: all numbers are 0
	CPU         float64 // processors in use on average since the reading before; 1.5 is one and a half
	Memory      uint64  // bytes; without files' pages that nothing has read lately (cgroup.MemoryStats.Working)
	MemoryLimit uint64  // bytes; the host's memory where there is no limit
	Received    uint64  // bytes on all network devices but lo since they were made
	Sent        uint64
	Read        uint64 // bytes of block devices
	Written     uint64
	PIDs        uint64 // processes and threads
}

// Meter reads again and again what containers use.
type Meter struct {
	e    *Engine
	all  bool
	refs []string
	seen map[string]*reading // by ID; written by no two goroutines
}

// reading is how much of the processors a container's run had used at a moment.
type reading struct {
	paths map[string]string
	run   time.Time // when it began
	cpu   uint64    // nanoseconds
	at    time.Time
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

// Begin notes how much of the processors has been used until now, so that the next Read has something to compare with.
func (m *Meter) Begin(ctx context.Context) error {
	targets, err := m.targets(ctx)
	if err != nil {
		return err
	}
	m.each(targets, func(i int) {
		if t := targets[i]; t.s.Alive() {
			m.processors(t)
		}
	})
	return ctx.Err()
}

// Read reads what is used now. Containers that were started since the last reading have no CPU yet.
func (m *Meter) Read(ctx context.Context) ([]Usage, error) {
	targets, err := m.targets(ctx)
	facts, errHost := m.e.Facts(ctx)
	if errHost != nil {
		return nil, errHost
	}
	out := make([]Usage, len(targets))
	m.each(targets, func(i int) {
		t := targets[i]
		out[i] = Usage{ID: t.c.ID, Name: t.c.Name, Ref: t.ref}
		if t.s.Alive() {
			m.read(&out[i], t, facts.Memory)
		}
	})
	return out, err
}

// each does something with every target, on all processors: of hundreds each is a dozen small files.
func (m *Meter) each(targets []target, do func(i int)) {
	for _, t := range targets {
		if _, ok := m.seen[t.c.ID]; !ok {
			m.seen[t.c.ID] = &reading{}
		}
	}
	parallel(len(targets), 1, do)
}

// processors returns how many processors a container has used on average since they were looked at last; 0 at the first look at a run.
func (m *Meter) processors(t target) float64 {
	last := m.seen[t.c.ID]
	if last.paths == nil || !last.run.Equal(t.s.Started) {
		paths, err := m.e.cgroups(t.c.ID)
		if err != nil {
			return 0
		}
		*last = reading{paths: paths, run: t.s.Started}
	}
	used, err := cgroup.CPUTime(last.paths)
	now := time.Now()
	if err != nil {
		return 0
	}
	before := *last
	last.cpu, last.at = used, now
	if before.at.IsZero() || used < before.cpu || !now.After(before.at) {
		return 0
	}
	return float64(used-before.cpu) / float64(now.Sub(before.at))
}

// read fills in the numbers of a container that runs. One that ends meanwhile has none: as if it had been looked at later.
func (m *Meter) read(u *Usage, t target, memory uint64) {
	u.CPU = m.processors(t)
	paths := m.seen[t.c.ID].paths
	if paths == nil {
		return
	}
	st, err := cgroup.ReadStats(paths)
	if err != nil {
		*u = Usage{ID: u.ID, Name: u.Name, Ref: u.Ref}
		return
	}
	u.Running = true
	u.Memory, u.MemoryLimit, u.PIDs = st.Memory.Working(), min(st.Memory.Limit, memory), st.Pids.Current
	for _, d := range st.IO {
		u.Read += d.ReadBytes
		u.Written += d.WriteBytes
	}
	u.Received, u.Sent = passed(traffic(t.c, t.s))
}

// passed adds up what has passed through network devices, in bytes.
func passed(devices map[string]docker.NetworkStats) (received, sent uint64) {
	for _, d := range devices {
		received, sent = received+d.RxBytes, sent+d.TxBytes
	}
	return received, sent
}
