package supervise

import (
	"encoding/json"
	"slices"

	"github.com/opencontainers/runtime-spec/specs-go"

	"glassbox/fork"
	"glassbox/plan"
)

// BundleFile is the container's configuration, for hooks, which look for it in the bundle that their state names (runtime-spec, bundle.md).
// Where there are no hooks there is none.
const BundleFile = "config.json"

// hooked reports whether the plan runs programs of the host.
func (j *Job) hooked() bool {
	return slices.ContainsFunc(j.Plan.Steps, func(s plan.Step) bool { _, hook := s.Op.(*plan.Hook); return hook })
}

// hookState is what a hook reads from its standard input (runtime-spec, runtime.md, state).
func (j *Job) hookState(pid int) ([]byte, error) {
	return json.Marshal(specs.State{Version: specs.Version, ID: j.ID, Status: specs.StateCreating, Pid: pid, Bundle: j.Dir})
}

// hook runs a hook in the namespaces of the container's process, which has mounted all by now, and waits with its root.
func (j *Job) hook(p *fork.Process, o *plan.Hook) error {
	state, err := j.hookState(p.PID)
	if err != nil {
		return err
	}
	return fork.RunHookInside(p.Pidfd, o, state)
}
