package compile

import (
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"

	"glassbox/cgroup"
	"glassbox/plan"
	"glassbox/resctrl"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// ExecInput describes a process to be started in a running container.
type ExecInput struct {
	Input
	Process    *specs.Process
	PID        int               // the container's first process
	Start      uint64            // its start time (see plan.OpenPid)
	Namespaces []string          // those of the container that are not the host's: mount pid uts ipc net user time cgroup
	Cgroups    map[string]string // as in Output.Cgroups
	Unit       string            // as in Output.Unit
	Class      resctrl.Place     // as in Output.Class
	// Group, if it isn't empty, gives the process a cgroup of its own of that name below the container's: see cgroup.Sub.
	Group string
	// HostRoot leaves the process in the root directory of the mount namespace: that of a container whose root has not changed yet is
	// the host's.
	HostRoot bool
}

// Exec compiles the start of a further process in a running container.
func Exec(in ExecInput) (*Output, error) { return further(in, nil) }

// further compiles the start of a further process: with the container's files or, if tools is not nil, as Debug wants.
func further(in ExecInput, tools *DebugInput) (*Output, error) {
	c := &container{Input: in.Input, hostRoot: in.HostRoot}
	c.Spec = &specs.Spec{Process: in.Process, Linux: &specs.Linux{}}
	if in.Spec != nil && in.Spec.Linux != nil {
		// What the program itself is to have of it. Mounts, namespaces and the like are there, and are joined.
		l := in.Spec.Linux
		c.Spec.Version = in.Spec.Version
		c.Spec.Linux.Seccomp, c.Spec.Linux.Personality, c.Spec.Linux.MemoryPolicy = l.Seccomp, l.Personality, l.MemoryPolicy
	}
	switch p := in.Process; {
	case p == nil || len(p.Args) == 0 || p.Args[0] == "":
		return nil, fmt.Errorf("/process/args: there is no command to run")
	case !strings.HasPrefix(p.Cwd, "/"):
		return nil, fmt.Errorf("/process/cwd: %q is not an absolute path", p.Cwd)
	}
	own := c.joinGroups(&in)
	c.add(plan.Host, plan.Isolation, &plan.OpenPid{Pid: in.PID, Start: in.Start, Save: "container"}, "",
		"The container's first process, whose namespaces will be joined.")
	join := slices.Clone(in.Namespaces)
	if slices.Contains(join, "user") {
		c.users = joinedUsers
	}
	if tools != nil {
		if err := c.debugSources(tools); err != nil {
			return nil, err
		}
	}
	// Who has no privileges gets them in the container's user namespace, and can join the others from there only: all are joined
	// by the child, which then clones itself to enter the PID namespace.
	c.twice = c.users == joinedUsers && !c.privileged()
	if slices.Contains(join, "pid") && !c.twice {
		join = slices.DeleteFunc(join, func(n string) bool { return n == "pid" })
		c.add(plan.Host, plan.Isolation, &plan.Setns{From: "container", Namespaces: []string{"pid"}}, "",
			"Only children enter a PID namespace: the thread that clones joins it.")
	}
	if p := in.Process; p.OOMScoreAdj != nil || p.ApparmorProfile != "" || p.SelinuxLabel != "" {
		c.add(plan.Host, plan.Isolation, &plan.Open{Path: "/proc", Flags: []string{"path", "directory"}, Save: "proc"}, "",
			"The host's own procfs: what the container mounted on its /proc can't stand in for it (CVE-2019-16884).")
		c.procfs = "proc"
	}
	affinity := in.Process.ExecCPUAffinity
	if affinity == nil {
		affinity = &specs.CPUAffinity{}
	}
	if err := c.affinity(plan.Host, affinity.Initial, "/process/execCPUAffinity/initial",
		"Where the process runs until it is in its cgroup."); err != nil {
		return nil, err
	}
	c.add(plan.Host, plan.Isolation, &plan.Clone{Cgroup: c.cgroup.CloneInto}, "",
		"The new process, in the container's cgroup and PID namespace.")
	c.steps = append(c.steps, c.cgroup.After...)
	if c.twice {
		c.add(plan.Host, plan.Isolation, &plan.Adopt{}, "", "The second clone is the process; the first one has ended.")
	}
	if in.Process.Terminal {
		c.add(plan.Host, plan.Terminal, &plan.RecvFD{Save: "console"}, "/process/terminal",
			"Whoever called exec holds the other end of the terminal.")
	}
	c.hostLimits(in.Process)
	if s := c.Spec.Linux.Seccomp; s != nil && s.ListenerPath != "" {
		if err := c.passListener(); err != nil {
			return nil, err
		}
	}
	if c.cgroup.Await != "" {
		c.add(plan.Child, plan.Limits, &plan.Await{Name: c.cgroup.Await}, "",
			"The limits of the container hold for this process before it does anything.")
	}
	for _, name := range c.cgroup.Join {
		c.add(plan.Child, plan.Limits, &plan.CgroupJoin{From: name}, "", "The limits of the container hold for this process, too.")
	}
	c.joinClass("")
	if err := c.affinity(plan.Child, affinity.Final, "/process/execCPUAffinity/final",
		"Where the process runs from here on, as its cgroup allows."); err != nil {
		return nil, err
	}
	if affinity.Final == "" {
		c.unbind()
	}
	if err := c.oomScore(in.Process, "/process"); err != nil {
		return nil, err
	}
	c.add(plan.Child, plan.Isolation, &plan.Dumpable{Value: 0}, "",
		"The container must not reach glassbox through this process (CVE-2019-5736).")
	if c.users == joinedUsers && c.privileged() && !c.Facts.NoSetgroups {
		c.add(plan.Child, plan.Isolation, &plan.Setgroups{}, "",
			"The groups of whoever started glassbox are left behind now: the user namespace may not allow it later.")
	}
	if len(join) > 0 {
		c.add(plan.Child, plan.Isolation, &plan.Setns{From: "container", Namespaces: join}, "",
			"From here on this process sees what the container sees.")
	}
	if !slices.Contains(in.Namespaces, "mount") && !in.HostRoot {
		c.add(plan.Child, plan.Rootfs, &plan.Chroot{Root: in.Mountpoint}, "",
			"The container has its mounts in the host's mount namespace, below this directory.")
	}
	if c.twice {
		c.add(plan.Child, plan.Isolation, &plan.Clone{}, "", "Only children enter a PID namespace: this process ends, the clone goes on.")
	}
	if tools != nil {
		if err := c.debugRoot(tools); err != nil {
			return nil, err
		}
	} else if in.Process.Terminal {
		c.openConsole(in.Process)
	}
	if err := c.process(in.Process, "/process"); err != nil {
		return nil, err
	}
	p := &plan.Plan{Version: plan.Version, Arch: in.Facts.Arch, Steps: c.steps}
	if err := p.Validate(); err != nil {
		return nil, err
	}
	return &Output{Plan: p, Cgroups: in.Cgroups, Own: own, Warnings: c.warnings}, nil
}

// joinGroups adds the steps that open the cgroups, and returns the part of them that is the process's own.
func (c *container) joinGroups(in *ExecInput) (own map[string]string) {
	if in.Group != "" {
		in.Cgroups, own, c.steps = cgroup.Sub(in.Facts.Cgroup, in.Cgroups, in.Group, in.Origins[""])
	}
	c.cgroup = cgroup.Join(in.Facts.Cgroup, in.Cgroups)
	if in.Unit != "" {
		c.cgroup = cgroup.JoinScope(in.Facts.Cgroup, in.Cgroups, in.Unit, in.Systemd != nil && in.Systemd.User)
	}
	c.class = resctrl.Join(in.Class)
	c.steps = append(append(c.steps, c.cgroup.Steps...), c.class.Steps...)
	return own
}

// openConsole gives a further process a terminal of the container's.
func (c *container) openConsole(p *specs.Process) {
	o := &plan.OpenConsole{Master: "master", Slave: "terminal", UID: p.User.UID, Plain: c.PlainLines}
	if b := p.ConsoleSize; b != nil {
		o.Rows, o.Cols = uint16(b.Height), uint16(b.Width)
	}
	c.add(plan.Child, plan.Terminal, o, "/process/terminal", "A terminal in the container's /dev/pts.")
	c.add(plan.Child, plan.Terminal, &plan.SendFD{From: "master"}, "/process/terminal",
		"The caller gets the end that stands for keyboard and screen.")
}

// SubCgroups returns the cgroups of a container (Output.Cgroups) with a path appended, for a process that is to run in a cgroup
// below the container's. Each argument is a path, which counts for all controllers, or "controller,…:path" for some.
func SubCgroups(cgroups map[string]string, args []string) (map[string]string, error) {
	out := maps.Clone(cgroups)
	for _, arg := range args {
		controllers, sub, ok := strings.Cut(arg, ":")
		if !ok {
			controllers, sub = "", arg
		}
		if slices.Contains(strings.Split(sub, "/"), "..") {
			return nil, fmt.Errorf("cgroup %q: it leads out of the container's", arg)
		}
		if controllers == "" {
			for key, dir := range cgroups {
				out[key] = path.Join(dir, sub)
			}
			continue
		}
		for name := range strings.SplitSeq(controllers, ",") {
			dir, ok := cgroups[name]
			if !ok {
				return nil, fmt.Errorf("cgroup %q: the container has no cgroup of the controller %q", arg, name)
			}
			// Controllers that are mounted together have one directory.
			for key, other := range cgroups {
				if other == dir {
					out[key] = path.Join(dir, sub)
				}
			}
		}
	}
	return out, nil
}
