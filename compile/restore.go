package compile

import (
	"fmt"

	"glassbox/plan"
)

// RestoreInput describes a container that criu brings back from images of its processes.
type RestoreInput struct {
	Input
	// Argv and Env are criu's command line, whose first word is the program's path, and its environment.
	Argv, Env []string
	// Namespaces gives the descriptors under which criu is to find namespaces that the container joins, by their kind ("net", "pid").
	Namespaces map[string]int
}

// Restore compiles the start of criu: in the container's cgroups, whose limits count for what criu makes there, and in a mount
// namespace of its own, in which the container's root is mounted at Input.Mountpoint, as criu demands. All else that makes the
// container is in criu's images. The processes that it makes are children of whoever runs the plan.
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
	root, err := c.hostPath(c.Spec.Root.Path, "/root/path")
	if err != nil {
		return nil, err
	}
	first := 3
	for i, n := range c.Spec.Linux.Namespaces {
		for _, e := range nsNames {
			if fd, ok := in.Namespaces[e.name]; ok && e.spec == n.Type && n.Path != "" {
				c.add(plan.Host, plan.Isolation, &plan.Open{Path: n.Path, Namespace: e.name, Save: "ns:" + e.name}, fmt.Sprintf("/linux/namespaces/%d/path", i),
					"The namespace exists already; the container will share it again.")
				first = max(first, fd+1)
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
	c.add(plan.Child, plan.Rootfs, &plan.Mount{Target: "/", Flags: []string{"rec", "private"}}, "", "Mounts made from here on stay in this mount namespace.")
	c.add(plan.Child, plan.Rootfs, &plan.Mount{Source: root, Target: in.Mountpoint, Flags: []string{"bind", "rec"}}, "/root/path", "Criu wants the root to be a mount.")
	c.add(plan.Child, plan.Kernel, &plan.Keyring{Name: "_glassbox"}, "", "The processes have criu's session keyring: keys of whoever started it stay out of reach.")
	for _, e := range nsNames {
		if fd, ok := in.Namespaces[e.name]; ok {
			c.add(plan.Child, plan.Isolation, &plan.Stdio{From: "ns:" + e.name, To: fd}, "/linux/namespaces", "Criu finds the namespace under this number.")
		}
	}
	c.add(plan.Child, plan.Exec, &plan.CloseRange{First: first}, "", "Criu gets no other descriptors.")
	c.add(plan.Child, plan.Exec, &plan.Execve{Candidates: in.Argv[:1], Argv: in.Argv, Env: in.Env}, "", "Criu makes the processes again.")
	p := &plan.Plan{Version: plan.Version, Arch: in.Facts.Arch, Steps: c.steps}
	if err := p.Validate(); err != nil {
		return nil, err
	}
	return p, nil
}
