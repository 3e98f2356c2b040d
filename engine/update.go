package engine

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"glassbox/cgroup"
	"glassbox/container"
	"glassbox/event"
	"glassbox/fork"
	"glassbox/host"
	"glassbox/plan"
	"glassbox/spec"
	"glassbox/state"
	"glassbox/supervise"
)

// An Update is what changes of a container: the limits of its cgroup while it runs, and what its next start reads. It is made first, and
// made true by [Engine.Apply], so that it can be looked at before.
type Update struct {
	ID, Name string
	// Steps change the cgroup of one that runs; there are none for one that doesn't, whose limits are those of its next start.
	Steps []plan.Step
	// Rates says that the rates of its cables change.
	Rates bool
	// Ports says that its published ports change.
	Ports bool
	// Limited says that its limits change.
	Limited bool
	// Restart is its restart policy from now on, as --restart says it; empty: that stays.
	Restart string

	words  container.Words
	config *container.Config
	job    *supervise.Job // of the container that runs, where its ports change
	plan   *plan.Plan     // of the container that runs, or waits to, as it is after the update; nil: there is none
}

// Limits are those that the container has after it.
func (u *Update) Limits() container.Limits { return u.config.Limits }

// Update finds out what an update of a container takes: words are those of container.UpdateFlags, and their Flags name them.
func (e *Engine) Update(ctx context.Context, ref string, words container.Words) (*Update, error) {
	c, s, err := e.load(ctx, ref)
	if err != nil {
		return nil, err
	}
	return e.update(ctx, c, s, words)
}

func (e *Engine) update(ctx context.Context, c *container.Container, s *supervise.State, words container.Words) (*Update, error) {
	if len(words.Flags) == 0 {
		return nil, invalid("there is nothing to update: you must provide one or more flags, such as --memory 1g or --restart always")
	}
	config, err := c.Config.Update(&words)
	if err != nil {
		return nil, err
	}
	u := &Update{ID: c.ID, Name: c.Name, words: words, config: config}
	u.Restart = words.Restart // also the same: its supervisor's job may have been changed by hand
	if u.Ports = len(words.PublishAdd)+len(words.PublishRm) > 0; u.Ports && live(s) {
		if err := e.updatePorts(u, c, s); err != nil {
			return nil, err
		}
	}
	// A restart policy is nobody's cgroup: nothing below concerns it.
	if u.Rates = config.Rates != c.Config.Rates; u.Rates && live(s) {
		if err := e.updateRates(u, c); err != nil {
			return nil, err
		}
	}
	if u.Limited = limits(words.Flags); !u.Limited {
		return u, nil
	}
	if c.Fixed {
		return nil, unsupported("container %s runs a plan that was given (--plan): its limits are the plan's", c.Name)
	}
	facts, err := e.Facts(ctx)
	if err != nil {
		return nil, err
	}
	next := *c
	next.Config = *config
	img, err := e.imageOf(c)
	if err != nil {
		return nil, err
	}
	out, err := e.specification(ctx, &next, img, facts)
	if err != nil {
		return nil, err
	}
	// There is no cgroup yet that a step could change. What the host can't do is still refused now and not at the start.
	if !s.Alive() && s.Status != supervise.Restarting {
		return u, e.couldBe(out, facts)
	}
	return u, e.updateRun(u, words.Flags, out, facts, s.Alive())
}

// limits reports whether flags say anything of limits.
func limits(flags map[string]string) bool {
	for flag := range flags {
		if flag != "restart" && flag != "publish-add" && flag != "publish-rm" && !strings.HasPrefix(flag, "net-") {
			return true
		}
	}
	return false
}

// couldBe refuses limits that this host can't enforce at the container's next start.
func (e *Engine) couldBe(out *spec.Output, facts *host.Facts) error {
	_, err := cgroup.Steps(facts.Cgroup, "/glassbox/update", out.Spec.Linux.Resources, func(p string) string { return out.Origins[p] })
	if err != nil {
		return unsupported("%w", err)
	}
	return nil
}

// updateRun finds the steps for a container that runs, and the plan that it then has.
func (e *Engine) updateRun(u *Update, flags map[string]string, out *spec.Output, facts *host.Facts, alive bool) error {
	dir := e.dir(u.ID)
	job, err := supervise.ReadJob(dir)
	if err != nil {
		return err
	}
	origin := func(pointer string) string { // of the field, or of what it is in
		for ; pointer != "/" && pointer != "."; pointer = path.Dir(pointer) {
			if text := out.Origins[pointer]; text != "" {
				return text
			}
		}
		return "default"
	}
	if alive {
		steps, err := cgroup.Update(facts.Cgroup, job.Cgroups, changedResources(flags, out.Spec.Linux.Resources))
		if err != nil {
			return unsupported("%w", err)
		}
		for i := range steps {
			steps[i].Origin = origin(steps[i].Origin)
		}
		u.Steps = append(u.Steps, steps...)
	}
	old := u.plan
	if old == nil {
		if old, err = supervise.ReadPlan(dir); err != nil {
			return err
		}
	}
	setup, err := cgroup.Steps(facts.Cgroup, out.Spec.Linux.CgroupsPath, out.Spec.Linux.Resources, origin)
	if err != nil {
		return unsupported("%w", err)
	}
	u.plan = withLimits(old, setup.Steps)
	return u.plan.Validate()
}

// changedResources is the part of resources that flags are about.
func changedResources(flags map[string]string, all *specs.LinuxResources) *specs.LinuxResources {
	given := func(names ...string) bool {
		return slices.ContainsFunc(names, func(name string) bool { return flags[name] != "" })
	}
	out := &specs.LinuxResources{}
	if m := all.Memory; m != nil && given("memory", "memory-swap", "memory-reservation") {
		out.Memory = &specs.LinuxMemory{}
		if given("memory", "memory-swap") {
			out.Memory.Limit, out.Memory.Swap = m.Limit, m.Swap
		}
		if given("memory-reservation") {
			out.Memory.Reservation = m.Reservation
		}
	}
	if c := all.CPU; c != nil {
		cpu := &specs.LinuxCPU{}
		if given("cpus", "cpu-period", "cpu-quota") {
			cpu.Period, cpu.Quota = c.Period, c.Quota
		}
		if given("cpu-shares") {
			cpu.Shares = c.Shares
		}
		if given("cpu-rt-period", "cpu-rt-runtime") {
			cpu.RealtimePeriod, cpu.RealtimeRuntime = c.RealtimePeriod, c.RealtimeRuntime
		}
		if given("cpuset-cpus") {
			cpu.Cpus = c.Cpus
		}
		if given("cpuset-mems") {
			cpu.Mems = c.Mems
		}
		out.CPU = cpu
	}
	if given("pids-limit") {
		out.Pids = all.Pids
	}
	if b := all.BlockIO; b != nil && given("blkio-weight") {
		out.BlockIO = &specs.LinuxBlockIO{Weight: b.Weight}
	}
	return out
}

// withLimits is a container's plan with other limits: the writes to its cgroup's files are those of steps. The rest stays, so that a
// further run by the restart policy, explain and verify know what holds now.
func withLimits(p *plan.Plan, steps []plan.Step) *plan.Plan {
	limit := func(s plan.Step) bool {
		w, ok := s.Op.(*plan.CgroupWrite)
		return ok && !w.Enable
	}
	out := *p
	out.Steps = nil
	// They follow the last cgroup that is made, and come before the first that is opened.
	at := slices.IndexFunc(p.Steps, func(s plan.Step) bool { _, ok := s.Op.(*plan.CgroupOpen); return ok })
	for i, s := range p.Steps {
		if i == at {
			for _, l := range steps {
				if limit(l) && !devices(l) {
					out.Steps = append(out.Steps, l)
				}
			}
		}
		if !limit(s) || devices(s) {
			out.Steps = append(out.Steps, s)
		}
	}
	return &out
}

// devices reports whether a step writes the rules for devices of a v1 cgroup, which are no limit.
func devices(s plan.Step) bool {
	w, ok := s.Op.(*plan.CgroupWrite)
	return ok && strings.HasPrefix(path.Base(w.File), "devices.")
}

// Apply makes an update true: all of it, or nothing. What is refused in the middle is taken back.
//
// What it takes is found out once more, because others change the same files: a network that was connected since stands in the container's
// plan, and one that was started since has a cgroup.
func (e *Engine) Apply(ctx context.Context, u *Update) error {
	c, s, unlock, err := e.change(ctx, u.ID)
	if err != nil {
		return err
	}
	defer unlock()
	now, err := e.update(ctx, c, s, u.words)
	if err != nil {
		return err
	}
	*u = *now
	// Read before the first write: afterwards the files say what they were changed to.
	netns := -1
	if slices.ContainsFunc(u.Steps, inside) {
		if netns, err = netnsOf(s); err != nil {
			return err
		}
		defer unix.Close(netns)
	}
	undo, err := formerLimits(u.Steps, e.dir(c.ID))
	if err != nil {
		return err
	}
	if done, err := applyAll(u.Steps, netns); err != nil {
		// Only those that were made, the last one first: undo is in the opposite order, so they are its end.
		_, back := applyAll(undo[len(undo)-done:], netns)
		return fmt.Errorf("container %s: nothing has changed: %w", c.Name, errors.Join(err, back))
	}
	c.Config.Limits, c.Config.Restart, c.Config.Origins = u.config.Limits, u.config.Restart, u.config.Origins
	c.Config.Ports, c.Config.Rates = u.config.Ports, u.config.Rates
	if err := e.writeUpdate(c, u); err != nil {
		_, back := applyAll(undo, netns)
		return errors.Join(err, back)
	}
	e.happened(c, event.Update)
	return nil
}

// writeUpdate writes an update down, container.json last.
func (e *Engine) writeUpdate(c *container.Container, u *Update) error {
	dir := e.dir(u.ID)
	if u.job != nil {
		if err := writeRun(dir, u.job, u.plan); err != nil {
			return err
		}
	} else if u.plan != nil {
		if err := state.WriteJSON(filepath.Join(dir, supervise.PlanFile), u.plan); err != nil {
			return err
		}
	}
	if u.Restart != "" {
		// The supervisor reads its job when the container has ended.
		job, err := supervise.ReadJob(dir)
		if err == nil {
			job.Restart = restarts(c)
			err = state.WriteJSON(filepath.Join(dir, supervise.JobFile), job)
		}
		if err != nil && !os.IsNotExist(err) { // it was never started
			return err
		}
		if err == nil && job.Health != nil {
			if err := e.updateCheck(c, job); err != nil {
				return err
			}
		}
	}
	return state.WriteJSONSync(filepath.Join(dir, supervise.ContainerFile), c)
}

// updateCheck tells a container's health check what follows when it fails.
func (e *Engine) updateCheck(c *container.Container, job *supervise.Job) error {
	check, err := supervise.ReadCheck(job.Dir)
	if err != nil {
		return err
	}
	if err := setStop(check, c, job); err != nil {
		return err
	}
	return supervise.WriteCheck(job.Dir, check)
}

// applyAll makes steps, and tells how many were made before one failed.
func applyAll(steps []plan.Step, netns int) (done int, err error) {
	for i, s := range steps {
		switch s.Op.(type) {
		case *plan.NftPublish, *plan.NftUnpublish, *plan.LinkRate:
			if err := fork.Rewire([]plan.Step{s}, netns); err != nil {
				return i, err
			}
			continue
		}
		if err := cgroup.Apply([]plan.Step{s}); err != nil {
			return i, err
		}
	}
	return len(steps), nil
}

// formerLimits are the steps that take others back, in the order in which they must: they write what the files hold now.
func formerLimits(steps []plan.Step, dir string) ([]plan.Step, error) {
	var undo []plan.Step
	for _, s := range slices.Backward(steps) {
		switch o := s.Op.(type) {
		case *plan.NftPublish:
			s.Op = o.Undo()[0]
			undo = append(undo, s)
			continue
		case *plan.LinkRate:
			was, err := formerRate(dir, o)
			if err != nil {
				return nil, err
			}
			s.Op = was
			undo = append(undo, s)
			continue
		case *plan.NftUnpublish:
			s.Op = &plan.NftPublish{Table: o.Table, Ports: o.Ports}
			undo = append(undo, s)
			continue
		}
		w, ok := s.Op.(*plan.CgroupWrite)
		if !ok {
			return nil, fmt.Errorf("%s is no step of an update", s.Op.Kind())
		}
		text, err := os.ReadFile(w.File)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", s.Origin, err)
		}
		undo = append(undo, plan.Step{
			Lane: s.Lane, Phase: s.Phase, Op: &plan.CgroupWrite{File: w.File, Value: strings.TrimSpace(string(text))},
			Origin: s.Origin, Reason: "As it was.",
		})
	}
	return undo, nil
}
