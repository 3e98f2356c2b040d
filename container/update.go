package container

import (
	"maps"
	"slices"
)

// UpdateFlags are the flags of run that Update takes: what of a container can be changed when it is made, and while it runs.
func UpdateFlags() []string {
	return []string{
		"blkio-weight", "cpu-period", "cpu-quota", "cpu-rt-period", "cpu-rt-runtime", "cpu-shares", "cpus", "cpuset-cpus", "cpuset-mems",
		"memory", "memory-reservation", "memory-swap", "net-burst", "net-rate-in", "net-rate-out", "pids-limit", "restart",
	}
}

// Update returns the configuration with those limits, and that restart policy, that words say; w.Flags names them. As with Docker a zero
// changes nothing: what was limited can be given more, and memory-swap and pids-limit can be let go by -1.
func (c *Config) Update(w *Words) (*Config, error) {
	limits, err := w.parseLimits()
	if err != nil {
		return nil, err
	}
	out := *c
	l := &out.Limits
	for _, n := range []struct{ from, to *int64 }{
		{&limits.Memory, &l.Memory},
		{&limits.MemorySwap, &l.MemorySwap},
		{&limits.Reservation, &l.Reservation},
		{&limits.CPUShares, &l.CPUShares},
		{&limits.CPUPeriod, &l.CPUPeriod},
		{&limits.CPUQuota, &l.CPUQuota},
		{&limits.CPURTPeriod, &l.CPURTPeriod},
		{&limits.CPURTRuntime, &l.CPURTRuntime},
		{&limits.NanoCPUs, &l.NanoCPUs},
	} {
		if *n.from != 0 {
			*n.to = *n.from
		}
	}
	for _, s := range []struct{ from, to *string }{{&limits.CpusetCPUs, &l.CpusetCPUs}, {&limits.CpusetMems, &l.CpusetMems}} {
		if *s.from != "" {
			*s.to = *s.from
		}
	}
	if limits.BlkioWeight != 0 {
		l.BlkioWeight = limits.BlkioWeight
	}
	if limits.Pids != nil && *limits.Pids != 0 {
		l.Pids = limits.Pids
	}
	switch given := &limits; {
	case given.NanoCPUs != 0 && (c.Limits.CPUPeriod != 0 || c.Limits.CPUQuota != 0):
		return nil, Invalid("--cpus: conflicting options: it sets period and quota, and the container has its own (--cpu-period, " +
			"--cpu-quota)")
	case c.Limits.NanoCPUs != 0 && (given.CPUPeriod != 0 || given.CPUQuota != 0):
		return nil, Invalid("--cpu-period, --cpu-quota: conflicting options: the container has --cpus, which sets both: give --cpus")
	case given.Memory != 0 && given.MemorySwap == 0 && l.MemorySwap > 0 && l.Memory > l.MemorySwap:
		return nil, Invalid("--memory %s: memory limit should be smaller than already set memoryswap limit (%d), update the memoryswap at the "+
			"same time: give --memory-swap", w.Memory, l.MemorySwap)
	}
	if err := l.Check(); err != nil {
		return nil, w.asTyped(err)
	}
	if w.Restart != "" {
		if out.Restart, err = ParseRestart(w.Restart); err != nil {
			return nil, err
		}
		if c.Remove && !out.Restart.None() {
			return nil, Conflict("--restart %s: Restart policy cannot be updated because AutoRemove is enabled for the container: "+
				"it is removed when it ends (--rm)", w.Restart)
		}
	}
	if out.Ports, err = c.updatePorts(w); err != nil {
		return nil, err
	}
	if err := w.rates(&out.Rates); err != nil {
		return nil, err
	}
	if err := out.Rates.check(&out); err != nil {
		return nil, err
	}
	// A copy: the old configuration is still somebody's, until the new one is written.
	out.Origins = maps.Clone(c.Origins)
	if out.Origins == nil {
		out.Origins = map[string]string{}
	}
	for flag, text := range w.Flags {
		if slices.Contains(UpdateFlags(), flag) {
			out.Origins[flag] = text
		}
	}
	if limits.NanoCPUs != 0 {
		// --cpus has taken their place, and explain would name flags that no longer count.
		delete(out.Origins, "cpu-period")
		delete(out.Origins, "cpu-quota")
	}
	return &out, nil
}

// updatePorts are the published ports without those of --publish-rm and with those of --publish-add. What is taken away is named as it was
// published, or by the container's port alone.
func (c *Config) updatePorts(w *Words) ([]Port, error) {
	out := slices.Clone(c.Ports)
	for _, text := range w.PublishRm {
		gone, err := ParsePorts(text)
		if err != nil {
			return nil, err
		}
		for _, g := range gone {
			n := len(out)
			out = slices.DeleteFunc(out, func(p Port) bool {
				return p.Key() == g.Key() && (g.HostPort == 0 || p.HostPort == g.HostPort) && (!g.HostIP.IsValid() || p.HostIP == g.HostIP)
			})
			if len(out) == n {
				return nil, Invalid("--publish-rm %s: %s isn't published like that", text, g)
			}
		}
	}
	for _, text := range w.PublishAdd {
		more, err := ParsePorts(text)
		if err != nil {
			return nil, err
		}
		for _, p := range more {
			if slices.ContainsFunc(out, func(o Port) bool {
				return o.HostPort != 0 && o.HostPort == p.HostPort && o.Proto == p.Proto && o.HostIP == p.HostIP
			}) {
				return nil, Invalid("--publish-add %s: port %d/%s of the host leads to the container already", text, p.HostPort, p.Proto)
			}
			p.Origin = "--publish-add " + text
			out = append(out, p)
		}
	}
	return out, nil
}
