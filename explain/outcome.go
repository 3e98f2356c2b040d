package explain

import (
	"fmt"
	"slices"
	"strings"

	"glassbox/plan"
)

// outcome reads what is known only once all steps are made.
func (r *reader) outcome() {
	v := r.v
	v.table = r.plan.Table()
	for _, s := range r.plan.Steps {
		v.origins = append(v.origins, s.Origin)
		switch o := s.Op.(type) {
		case *plan.MaskPath:
			if m, rest := v.table.Resolve(o.Path); rest == "" && m.Type == "mask" {
				v.Masked = append(v.Masked, o.Path)
			}
		case *plan.ReadonlyPath:
			if m, rest := v.table.Resolve(o.Path); rest == "" && m.ReadOnly {
				v.Locked = append(v.Locked, o.Path)
			}
		}
	}
	for _, i := range v.table.Outside {
		r.onHost(true, "%s, among the host's files: its root has not changed by then", r.plan.Steps[i].Op)
	}
	if !v.Shares("mount") && v.Shares("user") && v.Joined["mount"] == "" && len(v.table.Spread) > 0 {
		i := v.table.Spread[0]
		v.Spread = r.plan.Steps[i].Op.String()
	}
	if n := len(v.DeviceRules); n > 0 && len(r.rules) > 0 && v.DeviceRules[0] != "deny a *:* rwm" && v.DeviceRules[0] != "deny a" {
		// A v1 cgroup begins with what its parent has, which is everything: a rule that allows changes nothing then.
		v.DeviceRules = append([]string{"allow a *:* rwm"}, v.DeviceRules...)
	}
}

// onHost notes what the start does to the host.
func (r *reader) onHost(ok bool, format string, a ...any) {
	if ok {
		r.v.OnHost = append(r.v.OnHost, fmt.Sprintf(format, a...))
	}
}

// ownSetting reports whether a setting belongs to a namespace that the container has left the host's for by now, as the kernel has
// them (namespaces(7); net/sysctl_net.c, ipc/ipc_sysctl.c, ipc/mq_sysctl.c, kernel/utsname_sysctl.c).
func (v *View) ownSetting(key string) bool {
	key = strings.ReplaceAll(key, "/", ".")
	switch {
	case strings.HasPrefix(key, "net."):
		return !v.Shares("net")
	case strings.HasPrefix(key, "fs.mqueue."), strings.HasPrefix(key, "kernel.msg"), strings.HasPrefix(key, "kernel.shm"), key == "kernel.sem":
		return !v.Shares("ipc")
	case key == "kernel.domainname", key == "kernel.hostname":
		return !v.Shares("uts")
	}
	return false
}

// membership is which cgroups the container is in: limits of others don't limit it.
type membership struct {
	own, in []string
	known   bool // somebody said so: a unit of systemd has a place that the plan doesn't name
}

func joined(p *plan.Plan) *membership {
	m := &membership{known: true}
	opened := map[string]string{}
	enter := func(dir string) {
		for _, file := range []string{"/tasks", "/cgroup.procs"} {
			dir = strings.TrimSuffix(dir, file)
		}
		if dir != "" {
			m.in = append(m.in, dir)
		}
	}
	for _, s := range p.Steps {
		switch o := s.Op.(type) {
		case *plan.CgroupCreate:
			m.own = append(m.own, o.Path)
		case *plan.CgroupOpen:
			opened[o.Save] = o.Path
		case *plan.CgroupJoin:
			enter(opened[o.From])
		case *plan.Clone:
			enter(opened[o.Cgroup])
		case *plan.CgroupAttach:
			enter(o.Path)
		case *plan.SystemdScope, *plan.SystemdAttach:
			m.known = false
		}
	}
	return m
}

// covers reports whether the container is in a cgroup, or in one below it.
func (m *membership) covers(dir string) bool {
	return !m.known || slices.ContainsFunc(m.in, func(in string) bool { return in == dir || strings.HasPrefix(in, dir+"/") })
}

// isFile reports whether something is a file of a cgroup that limits: a plan may name any file there, release_agent among them, which
// the kernel runs as the host's root (CVE-2022-0492).
func (m *membership) isFile(dir, file string) bool {
	kind, _, _ := strings.Cut(file, ".")
	known := []string{
		"memory", "cpu", "cpuacct", "cpuset", "pids", "io", "blkio", "hugetlb", "devices", "rdma", "misc", "net_cls", "net_prio", "freezer",
		"perf_event", "cgroup",
	}
	if !slices.Contains(known, kind) || file == "cgroup.procs" || file == "cgroup.threads" {
		return false
	}
	return m.covers(dir) || strings.Contains(dir, "/cgroup") || slices.ContainsFunc(m.own,
		func(own string) bool { return own == dir || strings.HasPrefix(own, dir+"/") })
}
