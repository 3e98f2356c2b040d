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
//	Steps ─▶ CgroupCreate …         ─▶ Create                               ReadStats, ReadEvents, WatchOOM
//	         CgroupWrite memory.max ─▶ Write                                Procs, Freeze, Thaw, Signal, Kill
//	         DeviceFilter           ─▶ AttachDevices                        Update (again steps) ─▶ Apply
//	         CgroupOpen             ─▶ Open                                 Remove
//
// With the systemd driver the steps are [ScopeSteps], which wait for the child; docs/cgroups.md has the order and the reasons.
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
	// CloneInto is the descriptor for [plan.Clone].Cgroup: a v2 cgroup. Empty where there is no v2 hierarchy, and where systemd
	// makes the cgroup.
	CloneInto string
	// After are of the host lane, too, and come right after the clone: what needs the child's pid. Where there are any, the
	// child must wait for them before it does anything: it begins with [plan.Await] of the name Await, and the host ends After
	// with [plan.Release].
	After []plan.Step
	Await string
	// Join are the descriptors for [plan.CgroupJoin] steps, which come first in the child (but for Await): one per v1 hierarchy.
	Join []string
	// Paths are the directories of the cgroup by controller ("memory", "name=systemd"); "" is the v2 directory, where all
	// controllers are that have no entry of their own.
	Paths map[string]string
}

// standard are the v2 controllers that every container gets, for statistics and later updates.
var standard = []string{"cpu", "cpuset", "io", "memory", "pids", "hugetlb"}

// Path returns the path of a container's cgroup, for [Steps], from /linux/cgroupsPath of its configuration.
//
// An absolute path is below the root of each hierarchy, whoever asks. A relative one is below the caller's own cgroup, as
// with runc: see [Steps]. No path is "/ID". A path can't leave its root: ".." ends there, as it does for a directory.
func Path(cgroupsPath, id string) (string, error) {
	if cgroupsPath == "" {
		if id == "" || id == "." || id == ".." || strings.ContainsAny(id, "/\n\x00") {
			return "", fmt.Errorf("cgroup name %q: it isn't a file name", id)
		}
		return "/" + id, nil
	}
	p := path.Clean("/" + cgroupsPath)
	switch {
	case strings.ContainsAny(p, "\n\x00"):
		return "", fmt.Errorf("/linux/cgroupsPath: %q has a newline or a zero byte in it", cgroupsPath)
	case p == "/":
		return "", fmt.Errorf("/linux/cgroupsPath: %q is the root, where no container can be", cgroupsPath)
	case !strings.HasPrefix(cgroupsPath, "/"):
		p = p[1:]
	}
	return p, nil
}

// in returns where the path p of a container is in a hierarchy. A relative one is below the caller's own cgroup there; on v2
// beside it, because a cgroup that has processes, such as the caller, can't have children with controllers.
func in(h host.Hierarchy, p string) (string, error) {
	switch {
	case strings.HasPrefix(p, "/"):
		return p, nil
	case h.Own == "":
		return "", fmt.Errorf("/linux/cgroupsPath: %q is relative, and this process's own cgroup is outside of what %s shows: give an "+
			"absolute path", p, h.Mount)
	case h.V2:
		return path.Join(path.Dir(h.Own), p), nil
	}
	return path.Join(h.Own, p), nil
}

// Steps returns the steps that make the cgroup p and limit it to r, which may be nil. The path is clean: absolute below each
// hierarchy's mount, like "/glassbox/3f2a", or relative to the caller's own cgroups (see [Path]). Origin maps a JSON pointer
// such as "/linux/resources/memory/limit" to the origin of a step.
//
// Errors are [errors.Join]ed: one for each limit that this host can't enforce.
func Steps(f host.Cgroup, p string, r *specs.LinuxResources, origin func(pointer string) string) (Setup, error) {
	if p == "" || p == "/" || path.Clean(p) != p || p == "." || p == ".." || strings.HasPrefix(p, "../") {
		return Setup{}, fmt.Errorf("cgroup path %q: it isn't a clean path below the root", p)
	}
	s, w, err := start(f, p, origin)
	if err != nil {
		return Setup{}, err
	}
	if err := w.all(r); err != nil {
		return Setup{}, err
	}
	add := func(op plan.Op, pointer, reason string) {
		s.Steps = append(s.Steps, plan.Step{Lane: plan.Host, Phase: plan.Limits, Op: op, Origin: origin(pointer), Reason: reason})
	}
	var enable []plan.Step
	if v2, ok := unified(f); ok {
		enable = enableSteps(f, v2, below(v2.Mount, s.Paths[""]), w.usedV2, origin)
		// Only where a controller has to be enabled at the mount's root: in a container of another engine its own processes are there.
		if v2.Crowded && slices.ContainsFunc(enable, func(s plan.Step) bool { return path.Dir(s.Op.(*plan.CgroupWrite).File) == v2.Mount }) {
			add(&plan.CgroupEvacuate{From: v2.Mount, To: path.Join(v2.Mount, "init")}, "/linux/cgroupsPath",
				"A v2 cgroup that has processes of its own can't give controllers to its children.")
		}
	}
	for _, h := range f.Hierarchies {
		add(create(h, s.dir(h)), "/linux/cgroupsPath", createReason(h))
	}
	s.Steps = append(s.Steps, enable...)
	s.Steps = append(s.Steps, w.steps...)
	s.open(f, origin)
	return s, nil
}

func createReason(h host.Hierarchy) string {
	if slices.Contains(h.Controllers, "cpuset") && !h.V2 {
		return "A v1 cpuset begins without processors and memory nodes; where it and its parents have none, those of the parent are copied."
	}
	return "The container gets a cgroup in this hierarchy (" + describe(h) + ")."
}

// start finds the directories of the cgroup p.
func start(f host.Cgroup, p string, origin func(string) string) (Setup, *writer, error) {
	s := Setup{Paths: map[string]string{}}
	for _, h := range f.Hierarchies {
		q, err := in(h, p)
		if err != nil {
			return Setup{}, nil, err
		}
		dir := path.Join(h.Mount, q)
		if h.V2 {
			s.Paths[""] = dir
			continue
		}
		for _, c := range h.Controllers {
			s.Paths[c] = dir
		}
	}
	return s, &writer{f: f, paths: s.Paths, origin: origin}, nil
}

// dir returns the directory in a hierarchy, or "".
func (s *Setup) dir(h host.Hierarchy) string {
	if h.V2 {
		return s.Paths[""]
	}
	return s.Paths[h.Controllers[0]]
}

// below returns the path of a cgroup's directory below the mount of its hierarchy.
func below(mount, dir string) string {
	return path.Join("/", strings.TrimPrefix(dir, mount))
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
		dir := s.dir(h)
		if dir == "" {
			continue
		}
		op := &plan.CgroupOpen{Path: dir, Save: "cgroup"}
		reason := "The child is born into this cgroup."
		if h.V2 {
			s.CloneInto = op.Save
		} else {
			op.Path = path.Join(dir, "tasks")
			op.Save = "cgroup:" + strings.TrimPrefix(h.Controllers[0], "name=")
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
	// Not of the container's cgroup itself: it has processes, and may give its controllers on itself if it needs to.
	for dir := path.Dir(p); ; dir = path.Dir(dir) {
		// What is enabled was asked of the mount's root alone. Of the others Write asks before it writes.
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

// create makes the step that makes a cgroup in a hierarchy.
func create(h host.Hierarchy, dir string) *plan.CgroupCreate {
	if h.V2 {
		return &plan.CgroupCreate{Path: dir}
	}
	return &plan.CgroupCreate{Path: dir, Controllers: h.Controllers}
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
	if !strings.HasSuffix(parent, ".slice") || strings.Contains(parent, "/") {
		return path.Join("/", parent, id), nil
	}
	dir, err := slicePath(parent)
	if err != nil {
		return "", fmt.Errorf("cgroup parent: %w", err)
	}
	return path.Join(dir, id), nil
}

// slicePath returns where a systemd slice is: its name says so (systemd.slice(5)).
func slicePath(slice string) (string, error) {
	name, ok := strings.CutSuffix(slice, ".slice")
	if !ok || strings.ContainsAny(name, "/\n\x00") {
		return "", fmt.Errorf("%q isn't the name of a slice", slice)
	}
	if name == "-" {
		return "/", nil
	}
	dir, prefix := "/", ""
	for part := range strings.SplitSeq(name, "-") {
		if part == "" {
			return "", fmt.Errorf("%q: a slice's name has no empty parts between dashes", slice)
		}
		prefix += part
		dir = path.Join(dir, prefix+".slice")
		prefix += "-"
	}
	return dir, nil
}
