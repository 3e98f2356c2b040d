package engine

import (
	"context"
	"path/filepath"
	"slices"

	"glassbox/container"
	"glassbox/docker"
	"glassbox/host/beneath"
	"glassbox/supervise"
)

// Inspect describes a container in the shape of Docker's API (GET /containers/{id}/json).
func (e *Engine) Inspect(ctx context.Context, ref string) (*docker.Container, error) {
	c, s, err := e.load(ctx, ref)
	if err != nil {
		return nil, err
	}
	d := docker.Details{Container: c, State: s, Stats: s.Stats, Dir: e.dir(c.ID), Lower: e.lower(c), NetworkIDs: e.networkIDs(c)}
	d.Health = e.health(c, s)
	// Addresses, ports and paths are read from the plan that ran, not worked out anew: what is told is what was done.
	d.Job, _ = supervise.ReadJob(d.Dir) // none before the first start
	if d.Job != nil {
		if d.Plan, err = supervise.ReadPlan(d.Dir); err != nil {
			return nil, err
		}
	}
	// While it runs the counters are the cgroup's; after that they are those of its end, which stand in its state.
	if s.Status == supervise.Running || s.Status == supervise.Paused {
		d.Stats, _ = e.counters(c.ID, s)
	}
	return docker.Inspect(d), nil
}

// InspectSize adds to what Inspect says how many bytes the container's files have: those of its own, and all.
func (e *Engine) InspectSize(ctx context.Context, v *docker.Container) {
	if c, _, err := e.load(ctx, v.ID); err == nil {
		rw, root := e.sizes(c)
		v.SizeRw, v.SizeRootFs = &rw, &root
	}
}

// sizes are how many bytes the files have that a container has written, and all that it sees of itself and its image.
func (e *Engine) sizes(c *container.Container) (rw, root int64) {
	rw, _ = beneath.Size(filepath.Join(e.dir(c.ID), "upper")) // none of a plain directory
	root = rw
	if img, err := e.imageOf(c); err == nil && img != nil {
		root += img.Size
	}
	return rw, root
}

// lower are the directories of a container's image, top first; none if the image is gone.
func (e *Engine) lower(c *container.Container) []string {
	var dirs []string
	if img, err := e.imageOf(c); err == nil && img != nil {
		for _, l := range slices.Backward(img.Layers) {
			dirs = append(dirs, filepath.Join(e.cfg.Root, l.Dir))
		}
	}
	return dirs
}
