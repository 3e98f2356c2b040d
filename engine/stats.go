package engine

import (
	"context"
	"fmt"
	"os"
	"time"

	"glassbox/cgroup"
	"glassbox/container"
	"glassbox/docker"
	"glassbox/fork"
	"glassbox/supervise"
)

// Stats measures a running container in the shape of Docker's API (GET /containers/{id}/stats). before, if it isn't nil, is the answer
// before this one, from which a caller works out what happened since. Of one that doesn't run there is an answer without numbers, as with
// Docker.
func (e *Engine) Stats(ctx context.Context, ref string, before *docker.Stats) (*docker.Stats, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	c, s, err := e.load(ctx, ref)
	if err != nil {
		return nil, err
	}
	var paths map[string]string
	// One that has ended has no cgroup: there are no paths to read.
	if s.Alive() {
		if paths, err = e.cgroups(c.ID); err != nil {
			return nil, err
		}
	}
	host, err := e.hostReading(ctx)
	if err != nil {
		return nil, err
	}
	return measure(c, s, paths, host, before)
}

// hostReading is what of a reading is the host's, and the same for all containers that are read at a moment.
func (e *Engine) hostReading(ctx context.Context) (docker.Reading, error) {
	facts, err := e.Facts(ctx)
	if err != nil {
		return docker.Reading{}, err
	}
	r := docker.Reading{CPUs: facts.CPUs, HostMemory: facts.Memory}
	if text, err := os.ReadFile("/proc/stat"); err == nil {
		r.SystemUsage = docker.ParseSystemUsage(string(text))
	}
	return r, nil
}

// measure reads what a container uses, whose cgroups are at paths.
func measure(
	c *container.Container, s *supervise.State, paths map[string]string, r docker.Reading, before *docker.Stats,
) (*docker.Stats, error) {
	if !s.Alive() {
		return docker.Measure(c.ID, c.Name, docker.Reading{Cgroup: &cgroup.Stats{}}, nil), nil
	}
	var err error
	if r.Cgroup, err = cgroup.ReadStats(paths); err != nil {
		return nil, err
	}
	// On hybrid hosts controllers are on v1 and v2 has only names: where memory is decides which words memory.stat has.
	_, r.V1 = paths["memory"]
	r.At, r.Networks = time.Now(), traffic(c, s)
	return docker.Measure(c.ID, c.Name, r, before), nil
}

// traffic is what has passed through the network devices of a container. As with Docker the host's network is none of it.
func traffic(c *container.Container, s *supervise.State) map[string]docker.NetworkStats {
	if c.Network() == "host" {
		return nil
	}
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/net/dev", s.PID))
	if err != nil {
		return nil
	}
	// Read before it is asked whether the process is still the container's: afterwards the file could be another's.
	if start, err := fork.StartTime(s.PID); err != nil || start != s.Start {
		return nil
	}
	return docker.ParseTraffic(string(text))
}

// counters are those of a container's cgroup: as they are while it runs, or as they were at its end.
func (e *Engine) counters(id string, s *supervise.State) (*cgroup.Stats, error) {
	if s.Stats != nil {
		return s.Stats, nil
	}
	paths, err := e.cgroups(id)
	if err != nil {
		return nil, conflict("container %s has never been started", id)
	}
	return cgroup.ReadStats(paths)
}
