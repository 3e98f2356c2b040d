package engine

import (
	"strconv"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"

	"glassbox/plan"
)

// process is what the plan's program starts as, for exec.
func (v *vet) process() *specs.Process {
	p := &specs.Process{Cwd: "/", Capabilities: &specs.LinuxCapabilities{}}
	dropped := map[string]bool{}
	for _, s := range v.plan.Steps {
		switch o := s.Op.(type) {
		case *plan.Execve:
			p.Args, p.Env = o.Argv, o.Env
		case *plan.Chdir:
			p.Cwd = o.Path
		case *plan.Setresuid:
			p.User.UID = o.UID
		case *plan.Setresgid:
			p.User.GID = o.GID
		case *plan.Setgroups:
			p.User.AdditionalGids = o.Groups
		case *plan.NoNewPrivs:
			p.NoNewPrivileges = true
		case *plan.WriteProc:
			if profile, ok := strings.CutPrefix(o.Value, "exec "); ok && o.File == "attr/apparmor/exec" {
				p.ApparmorProfile = profile
			}
			if n, err := strconv.Atoi(o.Value); err == nil && o.File == "oom_score_adj" {
				p.OOMScoreAdj = &n
			}
		case *plan.Rlimit:
			if s.Origin != "" { // else it is what the host gave to glassbox, which exec finds out for itself
				p.Rlimits = append(p.Rlimits, specs.POSIXRlimit{Type: o.Type, Soft: o.Soft, Hard: o.Hard})
			}
		case *plan.DropBounding:
			for _, name := range o.Caps {
				dropped[name] = true
			}
		}
	}
	for n := 0; n <= v.facts.LastCap; n++ {
		if name := plan.CapName(n); name != "" && !dropped[name] {
			p.Capabilities.Bounding = append(p.Capabilities.Bounding, name)
		}
	}
	return p
}
