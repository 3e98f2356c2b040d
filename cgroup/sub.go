package cgroup

import (
	"maps"
	"path"
	"slices"

	"glassbox/host"
	"glassbox/plan"
)

// Sub gives a process that joins a container a cgroup of its own there, by which it can be ended with all that it has started: one below
// the container's, in one hierarchy, so that the container's limits hold for it, too. all is what Join takes in place of the container's
// paths, own what [Kill] takes, and steps make it.
func Sub(f host.Cgroup, paths map[string]string, name string, origin string) (all, own map[string]string, steps []plan.Step) {
	container, err := tree(paths)
	// A container without cgroups: what joins it has none either.
	if err != nil {
		return paths, nil, nil
	}
	dir := path.Join(container, name)
	all, own = maps.Clone(paths), map[string]string{}
	for controller, other := range paths {
		// On v1 several controllers may be mounted together, and on v2 all are: they are one directory.
		if other == container {
			all[controller], own[controller] = dir, dir
		}
	}
	for _, h := range f.Hierarchies {
		controller := ""
		if !h.V2 {
			controller = h.Controllers[0]
		}
		if _, ok := own[controller]; !ok {
			continue
		}
		h.Controllers = slices.Clone(h.Controllers)
		steps = append(steps, plan.Step{
			Lane: plan.Host, Phase: plan.Limits, Op: create(h, dir), Origin: origin,
			Reason: "A cgroup of its own below the container's: whatever it starts can be ended with it, and has the container's limits.",
		})
	}
	return all, own, steps
}
