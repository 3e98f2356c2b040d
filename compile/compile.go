// Package compile turns a container's configuration and the facts of a host into a plan.
//
// It is pure: the same input gives the same plan on any machine, with no look at files, clocks or the kernel. That is what
// makes a plan something to print, compare and approve before it runs. What can't be known here (is the source of a bind mount
// a file or a directory, does a masked path exist) is left to steps that say so.
//
// A configuration that asks for what this host can't do is an error that names the field; nothing is dropped silently.
//
// The order of the child's steps is the heart of the package, see [container.child]: the cgroup first, so that limits hold
// from the first instruction; then a private mount namespace, the root, pivot_root, and only then names inside the container;
// privileges go last, in the order that the kernel demands.
//
// Start reading at [Container], then [Exec].
package compile

import (
	"fmt"
	"slices"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"

	"glassbox/cgroup"
	"glassbox/host"
	"glassbox/plan"
	"glassbox/resctrl"
	"glassbox/systemd"
)

// MountExtra is what an engine wants of a bind mount beyond the OCI configuration.
type MountExtra struct {
	MakeSource bool // a directory is made where the source is missing
	CopyUp     bool // what the root has at the destination is copied into the source: a volume that is used for the first time
	// Namespace is the path of a mount namespace in which the source is, such as /proc/42/ns/mnt; "": the host's own.
	Namespace string
	// Volume is the volume's directory, in which the copy is prepared; empty: the source is filled as it is.
	Volume  string
	Within  bool   // the source is not in it: the copy is prepared in the source itself
	Beneath string // a place below the source, which is mounted in its stead; others may have made links there
	NoLinks bool   `json:",omitempty"` // no symbolic link is followed on the way to the source
	// Mount is a file system that the host mounts at the source before it is taken.
	Mount *plan.HostMount
}

// Input is what a plan depends on.
type Input struct {
	Spec  *specs.Spec
	Facts host.Facts
	// ID is the container's, after which its resource class is named. It is needed where Spec.Linux.IntelRdt is set.
	ID string
	// Overlay is the root file system made of layers. If nil, Spec.Root.Path is bound instead.
	Overlay *plan.Overlay
	// Quota bounds what the overlay's own layer may take on the disk.
	Quota *plan.Quota
	// Mountpoint is an empty directory of the host, on which the root is mounted in the container's own mount namespace.
	// Empty: Spec.Root.Path.
	Mountpoint string
	// Mounts says what the configuration has no words for, by a mount's destination.
	Mounts map[string]MountExtra
	// Network are the host's steps that wire the child's new network namespace.
	Network []plan.Step
	// SeccompName says what filter Spec.Linux.Seccomp is, for readers.
	SeccompName string
	// Filter is used instead of compiling Spec.Linux.Seccomp, if it is set.
	Filter *plan.Seccomp
	// Origins says where parts of the configuration come from, by JSON pointer; the longest prefix counts. Without an
	// entry the pointer itself is the origin.
	Origins map[string]string
	// MakeCwd makes the working directory where it is missing, as engines and runc do. Without it a missing one is an error.
	MakeCwd bool
	// PlainLines leaves line ends of the container's terminal as they come, see plan.OpenConsole.
	PlainLines bool
	// StartDir is a directory of the host with a FIFO named [StartFIFO] and nothing else in it, at which the container waits, ready but for
	// execve, until it is started. Empty: it runs at once.
	StartDir string
	// Record stops the child before it runs or waits, for whoever runs the plan to write down who it is.
	Record bool
	// Bundle is the directory to which relative paths of the host in Spec belong (the root, sources of bind mounts).
	Bundle string
	// HostMounts lets a configuration do without a mount namespace: the root is mounted at Mountpoint in the host's, and entered by
	// chroot.
	HostMounts bool
	// NoPivot makes the root by moving its mount over the old one, for hosts whose root is a ramdisk.
	NoPivot bool
	// FindProgram checks that there is a program to run before the child waits to be started, as `create` of an OCI runtime does.
	FindProgram bool
	// LaxCaps makes a capability that can't be granted a warning, as the specification wants from OCI runtimes. Without it it is
	// an error.
	LaxCaps bool
	// NoNewKeyring leaves the process in the session keyring of whoever runs the plan.
	NoNewKeyring bool
	// PreserveFDs is how many descriptors from 3 on, inherited from whoever started this program, the process gets.
	PreserveFDs int
	// Systemd makes the container a unit of this manager's: /linux/cgroupsPath is "slice:prefix:name" then.
	Systemd *systemd.Facts
	// Replace are targets of files that whoever makes the container brings for each, such as /etc/hosts: what an image has in their way in
	// its own root file system, as links that lead nowhere, is taken away. It counts where there is an Overlay: a plain directory belongs to
	// somebody.
	Replace []string
	// InOrder makes mounts in the order of Spec.Mounts, and not only attaches them so: since Linux 6.8 /proc/self/mountinfo lists
	// them by when they were made.
	InOrder bool
	// NamedFlags gives a bind mount that has any word of flags, "rw" among them, those that it names and no others, as runc does since
	// 1.2; one without such a word keeps its source's. Without NamedFlags it keeps them but for those that are named.
	NamedFlags bool
	// DieWithParent ends the container when the process that runs the plan dies.
	DieWithParent bool
}

// QuotaPointer is the place in Input.Origins for where Quota comes from, for which the configuration has no words.
const QuotaPointer = "/root/quota"

// StartFIFO is the name of the FIFO in Input.StartDir.
const StartFIFO = "exec.fifo"

// Output is a plan and what else a runtime has to remember.
type Output struct {
	Plan *plan.Plan
	// Cgroups are the container's cgroup directories by controller; "" is the v2 directory.
	Cgroups map[string]string
	// Own is, of the cgroups of a further process with a Group, the part that is its alone.
	Own map[string]string
	// Unit is the container's unit, where systemd makes the cgroup.
	Unit string
	// Class is the container's resource class.
	Class resctrl.Place
	// Warnings name parts of the configuration that have no effect and that the specification allows to ignore.
	Warnings []string
}

// container is the state of one compilation.
type container struct {
	Input
	steps    []plan.Step
	warnings []string
	cgroup   cgroup.Setup
	unit     string // of systemd's, the container is in
	class    resctrl.Setup
	procfs   string // descriptor of the container's procfs, "" before there is one
	ownDev   bool   // /dev is a tmpfs of the container's own
	devMount string // descriptor of that tmpfs
	hostDev  bool   // /dev shows devices of the host: nothing may be made there
	seal     []sealed
	chroot   bool // there is no mount namespace
	ahead    int  // so many of the mounts are made before the root changes

	fresh    []string          // new namespaces
	join     map[string]string // paths of those that exist
	users    users
	twice    bool     // the child clones itself again to enter its namespaces
	hostRoot bool     // ExecInput.HostRoot: root of the container may not come to the working directory, which the host's may
	second   []string // which are new at the second clone
}

// Container compiles the start of a container.
func Container(in Input) (*Output, error) {
	c := &container{Input: in}
	if err := c.check(); err != nil {
		return nil, err
	}
	if err := c.host(); err != nil {
		return nil, err
	}
	if err := c.child(); err != nil {
		return nil, err
	}
	p := &plan.Plan{Version: plan.Version, Arch: in.Facts.Arch, Steps: c.steps}
	if err := p.Validate(); err != nil {
		return nil, err
	}
	return &Output{Plan: p, Cgroups: c.cgroup.Paths, Unit: c.unit, Class: c.class.Place, Warnings: c.warnings}, nil
}

// origin finds where the part of the configuration at a JSON pointer comes from.
func (c *container) origin(pointer string) string {
	for p := pointer; ; {
		if o, ok := c.Origins[p]; ok {
			return o
		}
		i := strings.LastIndexByte(p, '/')
		if i < 0 {
			return pointer
		}
		p = p[:i]
	}
}

func (c *container) add(lane plan.Lane, phase plan.Phase, op plan.Op, pointer, reason string) {
	origin := "default"
	if pointer != "" {
		origin = c.origin(pointer)
	}
	c.steps = append(c.steps, plan.Step{Lane: lane, Phase: phase, Op: op, Origin: origin, Reason: reason})
}

func (c *container) check() error {
	s := c.Spec
	switch {
	case s.Process == nil || len(s.Process.Args) == 0:
		return fmt.Errorf("/process/args: there is no command to run")
	case s.Process.Args[0] == "":
		return fmt.Errorf("/process/args/0: the command is empty")
	case s.Linux == nil:
		return fmt.Errorf("/linux: missing")
	case s.Root == nil && c.Overlay == nil:
		return fmt.Errorf("/root: there is no root file system")
	case !strings.HasPrefix(s.Process.Cwd, "/"):
		return fmt.Errorf("/process/cwd: %q is not an absolute path", s.Process.Cwd)
	}
	if !OwnMounts(s.Linux.Namespaces) {
		if err := c.checkHostMounts(); err != nil {
			return err
		}
	}
	if s.Linux.MountLabel != "" && !slices.Contains(c.Facts.LSM, "selinux") {
		return fmt.Errorf("/linux/mountLabel: %q: SELinux is not active on this host", s.Linux.MountLabel)
	}
	return c.identify()
}

func enumerate(words []string) string {
	switch len(words) {
	case 0:
		return "nothing"
	case 1:
		return words[0]
	}
	return strings.Join(words[:len(words)-1], ", ") + " and " + words[len(words)-1]
}

// child writes the steps of the cloned process.
func (c *container) child() error {
	s := c.Spec
	if c.cgroup.Await != "" {
		c.add(plan.Child, plan.Limits, &plan.Await{Name: c.cgroup.Await}, "/linux/cgroupsPath",
			"Systemd makes the cgroup around this process: nothing is done before the limits are there.")
	}
	for _, name := range c.cgroup.Join {
		c.add(plan.Child, plan.Limits, &plan.CgroupJoin{From: name}, "/linux/cgroupsPath",
			"The child enters its cgroups before anything else: there is no moment without limits.")
	}
	c.joinClass("/linux/intelRdt")
	c.unbind()
	c.cgroupSources(plan.Child)
	c.enter()
	c.add(plan.Child, plan.Rootfs, &plan.Umask{Mask: 0}, "", "Modes of directories and devices below are meant exactly.")

	if err := c.rootfs(); err != nil {
		return err
	}
	if err := c.mounts(); err != nil {
		return err
	}
	if err := c.devices(); err != nil {
		return err
	}
	// Sysctls go before /proc/sys is covered by its read-only clone. Those of a link wait until there is one.
	awaited := false
	await := func() {
		if len(c.Network)+len(s.Linux.NetDevices) > 0 && !awaited {
			awaited = true
			c.add(plan.Child, plan.Network, &plan.Await{Name: "network"}, "",
				"The parent wires the network at the same time; the program must find it ready.")
		}
	}
	for key := range s.Linux.Sysctl {
		// Only then: the wait for a network takes most of a start's time, in which the rest of the mounts can be made.
		if c.ofLink(key) {
			await()
		}
	}
	if err := c.sysctls(false); err != nil {
		return err
	}
	if err := c.paths(); err != nil {
		return err
	}
	if c.hooked() {
		await() // in the order in which the host lets it go on; hooks may look at the network, too
		c.add(plan.Child, plan.Exec, &plan.Notify{Name: "mounted"}, "/hooks", "Everything is in place; the root has not changed yet.")
		c.add(plan.Child, plan.Exec, &plan.Await{Name: "hooks"}, "/hooks", "Hooks may still change something.")
		c.pivot(".")
	}
	if c.MakeCwd && s.Process.Cwd != "/" {
		c.add(plan.Child, plan.Rootfs, &plan.Mkdir{Path: s.Process.Cwd, Mode: 0o755}, "/process/cwd",
			"The working directory is made if the image lacks it.")
	}
	_, uts := c.join["uts"]
	uts = uts || slices.Contains(c.fresh, "uts")
	if s.Hostname != "" {
		if !uts {
			return fmt.Errorf("/hostname: setting it needs a UTS namespace of the container's own")
		}
		c.add(plan.Child, plan.Kernel, &plan.Sethostname{Name: s.Hostname}, "/hostname",
			"The name is set in the container's UTS namespace; the host's stays.")
	}
	if s.Domainname != "" {
		if !uts {
			return fmt.Errorf("/domainname: setting it needs a UTS namespace of the container's own")
		}
		c.add(plan.Child, plan.Kernel, &plan.Setdomainname{Name: s.Domainname}, "/domainname",
			"The NIS domain name, in the container's UTS namespace.")
	}
	if err := c.oomScore(s.Process, "/process"); err != nil {
		return err
	}
	for _, m := range c.seal {
		c.add(plan.Child, plan.Mounts, &plan.Remount{Target: m.target, From: m.from, Set: []string{"ro"}}, m.ptr,
			"Now that all is in it, it can't be changed any more.")
	}
	if w := c.rootPropagation(); w != "" {
		c.add(plan.Child, plan.Rootfs, &plan.Remount{Target: "/", Propagation: []string{w}}, "/linux/rootfsPropagation",
			"How mounts spread from the container's root and to it.")
	}
	// After all that is made in it: the working directory, mounts' places, devices.
	if s.Root != nil && s.Root.Readonly {
		c.add(plan.Child, plan.Rootfs, &plan.Remount{Target: "/", Set: []string{"ro"}}, "/root/readonly",
			"Nothing below the root can be changed, but for the mounts on it.")
	}
	if c.loopback(c.fresh) {
		c.add(plan.Child, plan.Network, &plan.LinkUp{Link: "lo"}, "/linux/namespaces",
			"A new network namespace has the loopback device, but it is down.")
	}
	await()
	return c.process(s.Process, "/process")
}
