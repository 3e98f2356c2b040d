package api

import (
	"net/http"
	"slices"

	"github.com/moby/moby/api/types/volume"

	"glassbox/docker"
	"glassbox/engine"
	"glassbox/policy"
)

// volumes answers GET /volumes.
func (q *request) volumes() error {
	filters, err := q.filters()
	if err != nil {
		return err
	}
	list, err := q.s.engine.Volumes(q.Context(), filters)
	if err != nil {
		return err
	}
	if p := q.s.policy; p != nil {
		list = slices.DeleteFunc(list, func(v docker.Volume) bool { return v.Labels[policy.Label] != p.Name })
	}
	return q.json(struct {
		Volumes  []docker.Volume
		Warnings []string
	}{append([]docker.Volume{}, list...), append([]string{}, q.warned...)})
}

// createVolume answers POST /volumes/create.
func (q *request) createVolume() error {
	var body volume.CreateRequest
	if err := q.body(&body, true); err != nil {
		return err
	}
	if body.ClusterVolumeSpec != nil {
		return noSwarm(q)
	}
	o := engine.VolumeOptions{Name: body.Name, Driver: body.Driver, Labels: body.Labels, Options: body.DriverOpts}
	if err := q.permitVolume(&o); err != nil {
		return err
	}
	v, _, err := q.s.engine.CreateVolume(q.Context(), o)
	if err != nil {
		return err
	}
	return q.jsonStatus(http.StatusCreated, v)
}

// inspectVolume answers GET /volumes/{name}.
func (q *request) inspectVolume() error {
	v, err := q.s.engine.Volume(q.Context(), q.PathValue("name"))
	if err != nil {
		return err
	}
	return q.json(v)
}

// removeVolume answers DELETE /volumes/{name}.
func (q *request) removeVolume() error {
	err := q.s.engine.RemoveVolume(q.Context(), q.PathValue("name"))
	if err != nil && !(q.bool("force") && status(err) == http.StatusNotFound) {
		return err
	}
	return q.none()
}

// pruneVolumes answers POST /volumes/prune. Until 1.41 those with a name went, too.
func (q *request) pruneVolumes() error {
	filters, err := q.filters()
	if err != nil {
		return err
	}
	names, freed, err := q.s.engine.PruneVolumes(q.Context(), engine.PruneVolumesOptions{All: q.version < 42, Filters: filters})
	if err != nil {
		return err
	}
	return q.json(volume.PruneReport{VolumesDeleted: names, SpaceReclaimed: uint64(freed)})
}
