package compile

import (
	"fmt"
	"maps"
	"slices"

	"glassbox/plan"
)

// RestoreInput describes a container that criu brings back from images of its processes.
type RestoreInput struct {
	Input
	// Argv and Env are criu's command line, whose first word is the program's path, and its environment.
	Argv, Env []string
	// Namespaces gives the descriptors under which criu is to find namespaces that the container joins, by their kind ("net", "pid").
	// Criu itself is in the others that it joins ("ipc", "uts").
	Namespaces map[string]int
	// CgroupNS has criu in a cgroup namespace that is the container's, for a criu that doesn't care for cgroups.
	CgroupNS bool
	// Stage is what criu finds in the directory [CriuStage]: the container's root, its images, and the parts of the host that are mounted.
	Stage []Staged
	// Descriptors gives the numbers that criu finds others under, by the names that whoever runs the plan has for them.
	Descriptors map[string]int
}

// Staged is a path of the host that criu finds elsewhere.
type Staged struct {
	Name      string // in the directory
	Path      string
	Pointer   string // where in the configuration it comes from
	Recursive bool
	IDs       *plan.UserNamespace // ids of the mount's own
}

// CriuStage is where a container's root finds what criu needs, even in a user namespace in which most directories of the host are closed
// to it. It is a file system of criu's own, which has its scratch files in this directory, too.
const CriuStage = "/tmp"

// Restore compiles the start of criu: in the container's cgroups, whose limits count for what criu makes there, and in a mount
// namespace of its own, in which all that criu needs of the host is below [CriuStage]. All else that makes the container is in criu's
// images. The processes that it makes are children of whoever runs the plan.
//
// The configuration must be one that [Container] takes.
func Restore(in RestoreInput) (*plan.Plan, error) {
	c := &container{Input: in.Input}
	if err := c.check(); err != nil {
		return nil, err
	}
	if err := c.cgroups(); err != nil {
		return nil, err
	}
	if err := c.classes(); err != nil {
		return nil, err
	}
	for _, e := range in.Stage {
		open := &plan.OpenTree{Path: e.Path, Recursive: e.Recursive, Save: "stage:" + e.Name}
		if e.IDs != nil {
			ids := *e.IDs
			ids.Save = "ids:" + e.Name
			c.add(plan.Host, plan.Sources, &ids, e.Pointer,
				"The kernel takes the mapping of a mount's ids from a user namespace, which nobody lives in.")
			open.IDMap = ids.Save
		}
		c.add(plan.Host, plan.Sources, open, e.Pointer, "Criu will find it in a place that the container's root can reach.")
	}
	// What is below this number stays open: the standard three, and those that criu is told of.
	first := 3
	var shared []string // those that criu's processes inherit from it
	for i, n := range c.Spec.Linux.Namespaces {
		for _, e := range nsNames {
			if e.spec != n.Type || n.Path == "" {
				continue
			}
			c.add(plan.Host, plan.Isolation, &plan.Open{Path: n.Path, Namespace: e.name, Save: "ns:" + e.name},
				fmt.Sprintf("/linux/namespaces/%d/path", i),
				"The namespace exists already; the container will share it again.")
			switch fd, ok := in.Namespaces[e.name]; {
			case ok:
				first = max(first, fd+1)
			case e.name == "ipc" || e.name == "uts":
				shared = append(shared, e.name)
			default: // criu would mount in it, for one
				return nil, fmt.Errorf("/linux/namespaces/%d/path: criu can't be in the %s namespace of others", i, e.name)
			}
		}
	}
	c.add(plan.Host, plan.Isolation, &plan.Clone{Namespaces: []string{"mount"}, Cgroup: c.cgroup.CloneInto}, "",
		"Criu works in the container's cgroup, where the processes stay that it makes, and with mounts of its own.")
	c.steps = append(c.steps, c.cgroup.After...)
	if c.cgroup.Await != "" {
		c.add(plan.Child, plan.Limits, &plan.Await{Name: c.cgroup.Await}, "/linux/cgroupsPath", "Nothing is done before the limits are there.")
	}
	for _, name := range c.cgroup.Join {
		c.add(plan.Child, plan.Limits, &plan.CgroupJoin{From: name}, "/linux/cgroupsPath", "There is no moment without limits.")
	}
	c.joinClass("/linux/intelRdt")
	if in.CgroupNS {
		c.add(plan.Child, plan.Isolation, &plan.Unshare{Namespaces: []string{"cgroup"}}, "/linux/namespaces",
			"Its root is the cgroup that criu is in, which is the container's.")
	}
	for _, name := range shared {
		c.add(plan.Child, plan.Isolation, &plan.Setns{From: "ns:" + name, Namespaces: []string{name}}, "/linux/namespaces",
			"The processes share the namespace that criu is in.")
	}
	c.add(plan.Child, plan.Rootfs, &plan.Mount{Target: "/", Flags: []string{"rec", "private"}}, "",
		"Mounts made from here on stay in this mount namespace.")
	c.add(plan.Child, plan.Rootfs, &plan.RootDir{Path: "/"}, "", "Targets are paths of the host.")
	c.add(plan.Child, plan.Rootfs, &plan.FSMount{
		Type: "tmpfs", Options: []string{"mode=1777"}, Attrs: []string{"nosuid", "nodev"},
		Target: CriuStage,
	}, "",
		"The container's root can reach this directory, and criu leaves nothing behind in it.")
	for _, e := range in.Stage {
		c.add(plan.Child, plan.Rootfs, &plan.MoveMount{
			From: "stage:" + e.Name, Target: CriuStage + "/" + e.Name, Create: "like",
			Propagation: []string{"rprivate"},
		}, e.Pointer,
			"Mounts that criu makes below it don't reach the host.")
	}
	c.add(plan.Child, plan.Kernel, &plan.Keyring{}, "",
		"The processes have criu's session keyring: keys of whoever started it stay out of reach.")
	for _, e := range nsNames {
		if fd, ok := in.Namespaces[e.name]; ok {
			c.add(plan.Child, plan.Isolation, &plan.Stdio{From: "ns:" + e.name, To: fd}, "/linux/namespaces",
				"Criu finds the namespace under this number.")
		}
	}
	for _, name := range slices.Sorted(maps.Keys(in.Descriptors)) {
		fd := in.Descriptors[name]
		first = max(first, fd+1)
		c.add(plan.Child, plan.Exec, &plan.Stdio{From: name, To: fd}, "", "Criu is told to look for it under this number.")
	}
	c.add(plan.Child, plan.Exec, &plan.CloseRange{First: first}, "", "Criu gets no other descriptors.")
	c.add(plan.Child, plan.Exec, &plan.Execve{Candidates: in.Argv[:1], Argv: in.Argv, Env: in.Env}, "", "Criu makes the processes again.")
	p := &plan.Plan{Version: plan.Version, Arch: in.Facts.Arch, Steps: c.steps}
	if err := p.Validate(); err != nil {
		return nil, err
	}
	return p, nil
}
