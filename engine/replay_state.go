package engine

import (
	"bytes"
	"fmt"
	"path"
	"slices"

	"glassbox/cgroup"
	"glassbox/container"
	"glassbox/plan"
	"glassbox/seccomp"
	"glassbox/spec"
)

// outcome judges what the steps of a plan amount to together. Each may be one that this engine writes, and the container may still be
// open: paths that are hidden before the procfs is mounted, hidden in one of two, or made writable again afterwards; a filter
// that is called default and isn't. So the mounts are played in order, and the filter is followed.
func (v *vet) outcome() error {
	table := v.plan.Table()
	if len(table.Outside) > 0 {
		i := table.Outside[0]
		return fmt.Errorf("step %d/%d %s: it comes before pivot_root: it would change the host's files", i+1, len(v.plan.Steps),
			v.plan.Steps[i].Op)
	}
	if len(table.Spread) > 0 {
		i := table.Spread[0]
		return fmt.Errorf("step %d/%d %s: it would appear on the host, too: no step before it makes the mounts around it private",
			i+1, len(v.plan.Steps), v.plan.Steps[i].Op)
	}
	if err := v.walls(table); err != nil {
		return err
	}
	for i, s := range v.plan.Steps {
		var err error
		switch o := s.Op.(type) {
		case *plan.Seccomp:
			err = v.filter(o)
		case *plan.DeviceFilter:
			err = deviceFilter(o)
		}
		if err != nil {
			return fmt.Errorf("step %d/%d %s (%s): %w", i+1, len(v.plan.Steps), s.Op.Kind(), s.Op, err)
		}
	}
	return nil
}

// walls makes sure that what the plan hides and makes read-only is so in the end, that all of it is if any is, and that there is no
// second way to it.
func (v *vet) walls(table *plan.Table) error {
	var hidden, locked []string
	for _, s := range v.plan.Steps {
		switch o := s.Op.(type) {
		case *plan.MaskPath:
			if m, rest := table.Resolve(o.Path); rest != "" || m.Type != "mask" {
				return fmt.Errorf("%s is hidden by a step and isn't in the end", o.Path)
			}
			hidden = append(hidden, o.Path)
		case *plan.ReadonlyPath:
			if m, rest := table.Resolve(o.Path); rest != "" || !m.ReadOnly {
				return fmt.Errorf("%s is made read-only by a step and isn't in the end", o.Path)
			}
			locked = append(locked, o.Path)
		}
	}
	if len(hidden)+len(locked) > 0 {
		// All or none: --security-opt systempaths=unconfined and --privileged leave all of them out, and the grade says so.
		for _, p := range spec.MaskedPaths(&container.Config{}) {
			if !slices.Contains(hidden, p) {
				return fmt.Errorf("it hides other paths and leaves %s in sight: run hides all or none; make the plan again", p)
			}
		}
		for _, p := range spec.ReadonlyPaths(&container.Config{}) {
			if !slices.Contains(locked, p) {
				return fmt.Errorf("it makes other paths read-only and leaves %s: run does so with all or none; make the plan again", p)
			}
		}
	}
	for _, m := range table.Mounts() {
		place := map[string]string{"proc": "/proc", "sysfs": "/sys"}[m.Type]
		if place != "" && m.Path() != path.Join(place, m.Sub) {
			return fmt.Errorf("%s is a second way to what lies in %s, where nothing is hidden", m.Path(), path.Join(place, m.Sub))
		}
	}
	return nil
}

// filter makes sure that a filter with the name of the default one is no wider than that is for a container with these capabilities.
func (v *vet) filter(o *plan.Seccomp) error {
	program, err := seccomp.Instructions(o.Program)
	if err != nil {
		return err
	}
	if o.Name != "default" {
		return nil // somebody's own: the grade says what it lets through
	}
	f, err := seccomp.Compile(seccomp.Default(seccomp.DefaultOptions{
		Arch: v.plan.Arch, Caps: v.process().Capabilities.Bounding, KernelMajor: v.facts.Kernel.Major, KernelMinor: v.facts.Kernel.Minor,
	}), v.plan.Arch)
	if err != nil {
		return err
	}
	standard, err := seccomp.Instructions(f.Bytes())
	if err != nil {
		return err
	}
	if bytes.Equal(f.Bytes(), o.Program) {
		return nil
	}
	if more := seccomp.Wider(program, standard, v.plan.Arch); len(more) > 0 {
		return fmt.Errorf("it is called default and lets through what the default one refuses, %s among it: make the plan again", more[0])
	}
	return nil
}

// deviceFilter makes sure that the program, which is what the kernel runs, does what the rules say, which is what people read.
func deviceFilter(o *plan.DeviceFilter) error {
	want, err := cgroup.DeviceProgram(o.Rules)
	if err != nil {
		return err
	}
	if !bytes.Equal(want, o.Program) {
		return fmt.Errorf("its program is not what its rules say")
	}
	return nil
}
