package bundle

import (
	"errors"
	"fmt"
	"path/filepath"

	"github.com/opencontainers/runtime-spec/specs-go"

	"glassbox/cgroup"
	"glassbox/fork"
	"glassbox/host"
	"glassbox/plan"
	"glassbox/resctrl"
	"glassbox/systemd"
)

// Update changes the limits of a container that exists to those that res and rdt have. What they don't mention stays. Either may be nil.
func (r *Runtime) Update(id string, res *specs.LinuxResources, rdt *specs.LinuxIntelRdt) error {
	c, l, err := r.open(id)
	if err != nil {
		return err
	}
	defer l.unlock()
	if c.status() == Stopped {
		return ErrNotRunning
	}
	// The class first: a host without resctrl refuses it before a limit has changed.
	if rdt != nil {
		if err := r.updateClass(c, rdt); err != nil {
			return err
		}
	}
	if res == nil {
		return nil
	}
	if len(c.Cgroups) == 0 {
		return errors.New("the container has no cgroup of its own, whose limits could be changed")
	}
	facts, err := r.Facts()
	if err != nil {
		return err
	}
	// Callers hand over all resources of config.json. The rules for devices, to which the creation has added those of every container, and
	// hooks their own, stay as they are, as with runc.
	limits := *res
	limits.Devices = nil
	var steps []plan.Step
	if c.Unit != "" {
		steps, err = cgroup.UpdateScope(facts.Cgroup, *c.Systemd, c.Unit, c.Cgroups, &limits)
	} else {
		steps, err = cgroup.Update(facts.Cgroup, c.Cgroups, &limits)
	}
	if err != nil {
		return err
	}
	for _, s := range steps {
		if o, ok := s.Op.(*plan.SystemdSet); ok {
			err = systemd.Set(o)
		} else {
			err = cgroup.Apply([]plan.Step{s})
		}
		if err != nil {
			return fmt.Errorf("%s: %s: %w", s.Origin, s.Op, err)
		}
	}
	return nil
}

// updateClass changes what the container's resource class has, whoever else is in it, as runc does. A container without a class gets
// one of its own.
func (r *Runtime) updateClass(c *record, rdt *specs.LinuxIntelRdt) error {
	facts, err := host.ProbeResctrl()
	if err != nil {
		return err
	}
	var steps []plan.Step
	place := c.Place
	if place.Class != "" {
		write, err := resctrl.Update(facts, place, rdt)
		if err != nil {
			return err
		}
		steps = []plan.Step{{Op: write}}
	} else {
		setup, err := resctrl.Steps(facts, c.ID, rdt, func(pointer string) string { return pointer })
		if err != nil {
			return err
		}
		if place = setup.Place; len(c.Cgroups) == 0 {
			return errors.New("the container has no cgroup of its own, which would tell its processes")
		}
		// On the disk before the first of them is made, as in a creation.
		if err := r.addLeftovers(c.ID, setup.Steps); err != nil {
			return err
		}
		steps = setup.Steps
	}
	for i, s := range steps {
		switch o := s.Op.(type) {
		case *plan.ResctrlCreate:
			err = resctrl.Create(o)
		case *plan.ResctrlWrite:
			err = resctrl.Write(o)
		}
		if err != nil {
			made := plan.Plan{Steps: steps}
			for _, s := range made.Undo(i) {
				err = errors.Join(err, fork.Undo(s.Op))
			}
			return fmt.Errorf("/linux/intelRdt: %w", err)
		}
	}
	if place == c.Place {
		return nil
	}
	if err := resctrl.Move(place, func() ([]int, error) { return cgroup.Procs(c.Cgroups) }); err != nil {
		return fmt.Errorf("/linux/intelRdt: %w", err)
	}
	c.Place = place
	return writeFile(filepath.Join(r.dir(c.ID), stateFile), c.text())
}

// addLeftovers adds what takes steps back to the file undo.json, before they are made.
func (r *Runtime) addLeftovers(id string, steps []plan.Step) error {
	left, err := r.leftovers(id)
	if err != nil {
		return err
	}
	if left == nil {
		left = &leftovers{}
	}
	p := plan.Plan{Steps: steps}
	left.Steps = append(p.Undo(len(steps)), left.Steps...)
	text, err := left.text()
	if err != nil {
		return err
	}
	return writeFile(filepath.Join(r.dir(id), undoFile), text)
}
