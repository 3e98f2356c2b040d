package engine

import (
	"context"
	"path/filepath"
	"slices"

	"glassbox/container"
	"glassbox/docker"
	"glassbox/supervise"
)

// Inspect describes a container in the shape of Docker's API (GET /containers/{id}/json).
func (e *Engine) Inspect(ctx context.Context, ref string) (*docker.Container, error) {
	c, s, err := e.load(ctx, ref)
	if err != nil {
		return nil, err
	}
	d := docker.Details{Container: c, State: s, Stats: s.Stats, Dir: e.dir(c.ID), Lower: e.lower(c), NetworkIDs: e.networkIDs()}
	d.Health = e.health(c, s)
	// Addresses, ports and paths are read from the plan that ran, not worked out anew: what is told is what was done.
	d.Job, _ = supervise.ReadJob(d.Dir) // none before the first start
	if d.Job != nil {
		if d.Plan, err = supervise.ReadPlan(d.Dir); err != nil {
			return nil, err
		}
	}
	if s.Status == supervise.Running || s.Status == supervise.Paused {
		d.Stats, _ = e.counters(c.ID, s)
	}
	return docker.Inspect(d), nil
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
