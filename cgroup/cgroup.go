// Package cgroup puts containers into control groups: v1, v2, and hybrid, where controllers are on v1 and an empty v2 tree
// stands beside them.
//
// # The idea
//
// Limits are written before there is anything to limit. [Steps] turns the resources of an OCI configuration into steps of a
// plan: make the cgroup in each hierarchy, write the limits, open the cgroup. Only then is the child cloned, on v2 right into
// its cgroup (CLONE_INTO_CGROUP), on v1 joining it by its first system calls. There is no moment without limits.
//
//	pure                               executors, in order of the plan      while the container lives
//	Steps ─▶ CgroupCreate …         ─▶ Create                               Stats, OOMKills, Procs
//	         CgroupWrite memory.max ─▶ Write                                Freeze, Thaw, Kill
//	         DeviceFilter           ─▶ AttachDevices                        Update (again steps)
//	         CgroupOpen             ─▶ Open                                 Remove
//
// A controller is either on a v1 hierarchy or on v2, never on both, so everything here asks for the place of one controller
// ([Setup].Paths) and not for the mode of the host. Hybrid needs no code of its own.
//
// # What it refuses
//
// A limit that this host can't enforce: the error names the field and the controller. Where that can't be known before (the
// real root of v2 doesn't show which files its children have), the write fails instead.
//
// # Joining v1
//
// The child joins by writing "0" into the file tasks, not cgroup.procs. Both move the whole child, which has one thread, but
// moving a process takes a lock that waits for an RCU grace period: 12 to 30 ms for the first hierarchy, seen on Linux 6.18.
// A thread that moves itself needs no lock since Linux 5.5 (commit 9a3284fad42f), 10 µs for each hierarchy.
//
// Start reading at [Steps]. Package documentation of the kernel: Documentation/admin-guide/cgroup-v1/ and cgroup-v2.rst.
package cgroup

import (
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"

	"glassbox/host"
	"glassbox/plan"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// Setup is how a container gets into its cgroup.
type Setup struct {
	// Steps are of the host lane and come before the clone.
	Steps []plan.Step
	// CloneInto is the descriptor for [plan.Clone].Cgroup: a v2 cgroup. Empty where there is no v2 hierarchy.
	CloneInto string
	// Join are the descriptors for [plan.CgroupJoin] steps, which come first in the child: one per v1 hierarchy.
	Join []string
	// Paths are the directories of the cgroup by controller ("memory", "name=systemd"); "" is the v2 directory, where all
	// controllers are that have no entry of their own.
	Paths map[string]string
}

// standard are the v2 controllers that every container gets, for statistics and later updates.
var standard = []string{"cpu", "cpuset", "io", "memory", "pids", "hugetlb"}

// Steps returns the steps that make the cgroup p (absolute below each hierarchy's mount, like "/glassbox/3f2a") and limit it
// to r, which may be nil. Origin maps a JSON pointer such as "/linux/resources/memory/limit" to the origin of a step.
//
// Errors are [errors.Join]ed: one for each limit that this host can't enforce.
func Steps(f host.Cgroup, p string, r *specs.LinuxResources, origin func(pointer string) string) (Setup, error) {
	if !strings.HasPrefix(p, "/") || path.Clean(p) != p || p == "/" {
		return Setup{}, fmt.Errorf("cgroup path %q: it isn't a clean absolute path below the root", p)
	}
	if r == nil {
		r = &specs.LinuxResources{}
	}
	s := Setup{Paths: map[string]string{}}
	for _, h := range f.Hierarchies {
		dir := path.Join(h.Mount, p)
		if h.V2 {
			s.Paths[""] = dir
		}
		for _, c := range h.Controllers {
			if !h.V2 {
				s.Paths[c] = dir
			}
		}
	}
	w := writer{f: f, paths: s.Paths, origin: origin}
	w.limits(r)
	if len(w.errs) > 0 {
		return Setup{}, errors.Join(w.errs...)
	}

	add := func(op plan.Op, pointer, reason string) {
		s.Steps = append(s.Steps, plan.Step{Lane: plan.Host, Phase: plan.Limits, Op: op, Origin: origin(pointer), Reason: reason})
	}
	var enable []plan.Step
	if v2, ok := unified(f); ok {
		enable = enableSteps(f, v2, p, w.usedV2, origin)
		if v2.Crowded && slices.ContainsFunc(enable, func(s plan.Step) bool { return path.Dir(s.Op.(*plan.CgroupWrite).File) == v2.Mount }) {
			add(&plan.CgroupEvacuate{From: v2.Mount, To: path.Join(v2.Mount, "init")}, "/linux/cgroupsPath",
				"A v2 cgroup that has processes of its own can't give controllers to its children.")
		}
	}
	for _, h := range f.Hierarchies {
		reason := "The container gets a cgroup in this hierarchy (" + describe(h) + ")."
		if slices.Contains(h.Controllers, "cpuset") && !h.V2 {
			reason = "A v1 cpuset begins without processors and memory nodes; where it and its parents have none, those of the parent are copied."
		}
		add(&plan.CgroupCreate{Path: path.Join(h.Mount, p)}, "/linux/cgroupsPath", reason)
	}
	s.Steps = append(s.Steps, enable...)
	s.Steps = append(s.Steps, w.steps...)
	s.open(f, origin)
	return s, nil
}

// Join returns the steps that let a process be born into, or join, a cgroup that exists: for exec. Paths are those of the
// container's [Setup].
func Join(f host.Cgroup, paths map[string]string) Setup {
	s := Setup{Paths: paths}
	s.open(f, func(string) string { return "default" })
	return s
}

// open adds the steps that open the cgroup.
func (s *Setup) open(f host.Cgroup, origin func(string) string) {
	for _, h := range f.Hierarchies {
		key := ""
		if !h.V2 {
			key = h.Controllers[0]
		}
		dir, ok := s.Paths[key]
		if !ok {
			continue
		}
		op := &plan.CgroupOpen{Path: dir, Save: "cgroup"}
		reason := "The child is born into this cgroup."
		if h.V2 {
			s.CloneInto = op.Save
		} else {
			op.Path = path.Join(dir, "tasks")
			op.Save = "cgroup:" + strings.TrimPrefix(key, "name=")
			reason = "The child joins this cgroup by writing here before it does anything else."
			s.Join = append(s.Join, op.Save)
		}
		s.Steps = append(s.Steps, plan.Step{Lane: plan.Host, Phase: plan.Limits, Op: op, Origin: origin("/linux/cgroupsPath"), Reason: reason})
	}
}

// enableSteps gives controllers to every ancestor's children, from the root down. On a hybrid host the v2 tree is there for
// cgroup.kill and cgroup.events, and only a limit that lives there needs a controller.
func enableSteps(f host.Cgroup, v2 host.Hierarchy, p string, used []string, origin func(string) string) []plan.Step {
	var want []string
	for _, c := range v2.Controllers {
		if f.Mode == host.CgroupV2 && slices.Contains(standard, c) || slices.Contains(used, c) {
			want = append(want, c)
		}
	}
	if len(want) == 0 {
		return nil
	}
	slices.Sort(want)
	var steps []plan.Step
	for dir := path.Dir(p); ; dir = path.Dir(dir) {
		enabled := dir == "/" && !slices.ContainsFunc(want, func(c string) bool { return !slices.Contains(v2.Enabled, c) })
		if !enabled {
			steps = append(steps, plan.Step{
				Lane: plan.Host, Phase: plan.Limits,
				Op: &plan.CgroupWrite{
					File: path.Join(v2.Mount, dir, "cgroup.subtree_control"), Value: "+" + strings.Join(want, " +"), Enable: true,
				},
				Origin: origin("/linux/cgroupsPath"),
				Reason: "On v2 a cgroup has only the controllers that its parent gives to its children.",
			})
		}
		if dir == "/" {
			break
		}
	}
	slices.Reverse(steps)
	return steps
}

// unified returns the v2 hierarchy.
func unified(f host.Cgroup) (host.Hierarchy, bool) {
	i := slices.IndexFunc(f.Hierarchies, func(h host.Hierarchy) bool { return h.V2 })
	if i < 0 {
		return host.Hierarchy{}, false
	}
	return f.Hierarchies[i], true
}

func describe(h host.Hierarchy) string {
	if h.V2 {
		return "v2"
	}
	return "v1: " + strings.Join(h.Controllers, ", ")
}

// Default is the parent of containers that ask for no other.
const Default = "/glassbox"

// ParentPath returns the path of the cgroup id below parent, for [Steps].
//
// An empty parent is [Default]. A parent without a slash that ends in ".slice" is a systemd slice, whose name says where it is
// (systemd.slice(5)): "a-b.slice" is "/a.slice/a-b.slice", and "-.slice" is the root. Any other parent is a path, which begins
// at the root even without a slash.
func ParentPath(parent, id string) (string, error) {
	if id == "" || id == "." || id == ".." || strings.ContainsAny(id, "/\n\x00") {
		return "", fmt.Errorf("cgroup name %q: it isn't a file name", id)
	}
	if parent == "" {
		parent = Default
	}
	if strings.ContainsAny(parent, "\n\x00") || slices.Contains(strings.Split(parent, "/"), "..") {
		return "", fmt.Errorf("cgroup parent %q: it isn't a path without \"..\"", parent)
	}
	name, isSlice := strings.CutSuffix(parent, ".slice")
	if !isSlice || strings.Contains(parent, "/") {
		return path.Join("/", parent, id), nil
	}
	if name == "-" {
		return "/" + id, nil
	}
	dir, prefix := "/", ""
	for part := range strings.SplitSeq(name, "-") {
		if part == "" {
			return "", fmt.Errorf("cgroup parent %q: a slice's name has no empty parts between dashes", parent)
		}
		prefix += part
		dir = path.Join(dir, prefix+".slice")
		prefix += "-"
	}
	return path.Join(dir, id), nil
}
