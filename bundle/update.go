package bundle

import (
	"errors"
	"fmt"

	"github.com/opencontainers/runtime-spec/specs-go"

	"glassbox/cgroup"
	"glassbox/plan"
	"glassbox/systemd"
)

// Update changes the limits of a container that exists to those that res has. What res doesn't mention stays.
func (r *Runtime) Update(id string, res *specs.LinuxResources) error {
	c, l, err := r.open(id)
	if err != nil {
		return err
	}
	defer l.unlock()
	if c.status() == Stopped {
		return ErrNotRunning
	}
	if len(c.Cgroups) == 0 {
		return errors.New("the container has no cgroup of its own, whose limits could be changed")
	}
	facts, err := r.Facts()
	if err != nil {
		return err
	}
	var steps []plan.Step
	if c.Unit != "" {
		steps, err = cgroup.UpdateScope(facts.Cgroup, *c.Systemd, c.Unit, c.Cgroups, res)
	} else {
		steps, err = cgroup.Update(facts.Cgroup, c.Cgroups, res)
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
