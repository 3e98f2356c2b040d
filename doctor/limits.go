package doctor

import (
	"fmt"
	"slices"
	"strings"

	"glassbox/cgroup"
	"glassbox/host"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

func (d *diagnosis) limits() {
	f := d.f
	c := f.Host.Cgroup
	i := Item{Group: groupLimits, Name: "cgroups", Value: c.Mode, Source: "/proc/self/mountinfo, /proc/self/cgroup"}
	switch c.Mode {
	case host.CgroupV2, host.CgroupHybrid, host.CgroupV1:
		i.Status, i.Means = OK, map[string]string{
			host.CgroupV2:     "One tree has all controllers.",
			host.CgroupHybrid: "Controllers are on v1, with a v2 tree beside them; root has all limits, ordinary users none.",
			host.CgroupV1: "Controllers are on v1; root has all limits, ordinary users none. A kill isn't one step of the kernel, and " +
				"pressure isn't counted.",
		}[c.Mode]
		if !d.root && c.Mode != host.CgroupV2 {
			i.Status, i.Mend = Limited, d.commandLine("systemd.unified_cgroup_hierarchy=1")
		}
	default:
		i.Status, i.Value, i.Means, i.Mend = Limited, "none", "No limit can be enforced: a container that asks for one is refused.",
			d.sudo("mount -t cgroup2 cgroup2 /sys/fs/cgroup")
	}
	d.no(i)

	switch {
	case !f.Booted:
		d.no(Item{
			Group: groupLimits, Name: "systemd", Status: Limited, Value: "isn't process 1", Source: "/run/systemd/system",
			Means: "Containers are put into cgroups directly; the systemd cgroup driver (Kubernetes' default) is refused.",
			Mend:  "use the driver cgroupfs in what calls glassbox-runtime, or boot with systemd",
		})
	case f.SystemdErr != "":
		mend := "systemctl status dbus"
		if !d.root {
			mend = "log in over ssh or a console instead of su, or: sudo loginctl enable-linger " + f.User
		}
		d.no(Item{
			Group: groupLimits, Name: "systemd", Status: Limited, Value: f.SystemdErr, Source: "a question to the manager over D-Bus", Mend: mend,
			Means: "The manager doesn't answer: no scope can be made for a container.",
		})
	default:
		d.yes(groupLimits, "systemd", fmt.Sprint(f.Systemd.Version), "Containers can be scopes of systemd's (--systemd-cgroup).",
			"a question to the manager over D-Bus")
	}
	if !d.root {
		d.delegation()
	}
	for _, l := range limits() {
		d.limit(l)
	}
}

// delegation says where an ordinary user's limits come from.
func (d *diagnosis) delegation() {
	i := Item{
		Group: groupLimits, Name: "delegation", Status: OK, Means: "Limits can be enforced without root.",
		Source: "cgroup.procs and cgroup.subtree_control that are yours, or your systemd manager",
	}
	switch have := d.f.delegated(); {
	case d.f.Host.Cgroup.Mode != host.CgroupV2:
		i.Status, i.Means = Missing, "Only cgroup v2 can be given to ordinary users: their containers have no limits."
	case len(have) == 0:
		i.Status, i.Means = Missing, "No cgroup is yours to divide: your containers have no limits."
	case !slices.Contains(have, "cpu") || !slices.Contains(have, "cpuset") || !slices.Contains(have, "io"):
		i.Status, i.Value, i.Means = Limited, strings.Join(have, " "), "Only these limits can be enforced without root."
	default:
		i.Value = strings.Join(have, " ")
	}
	if i.Status != OK {
		i.Mend = d.delegate()
	}
	d.no(i)
}

// delegate is what gives an ordinary user the controllers.
func (d *diagnosis) delegate() string {
	if d.f.Host.Cgroup.Mode != host.CgroupV2 {
		return d.commandLine("systemd.unified_cgroup_hierarchy=1")
	}
	return `sudo mkdir -p /etc/systemd/system/user@.service.d && printf '[Service]\nDelegate=cpu cpuset io memory pids\n' | sudo tee ` +
		`/etc/systemd/system/user@.service.d/delegate.conf && sudo systemctl daemon-reload; then log in again`
}

// delegated are the controllers that an ordinary user may give to containers.
func (f *Facts) delegated() []string {
	// A cgroup with processes in it can't give controllers to its children; then systemd has to make one.
	if f.Delegation != nil && !f.Delegation.Crowded {
		return f.Delegation.Controllers
	}
	return f.ManagerControllers
}

// limit is a limit that a container can ask for.
type limit struct {
	name, v1, v2 string // its controllers
	flag         string
	cost         string
	ask          specs.LinuxResources
}

func limits() []limit {
	n, u, weight := int64(1<<30), uint64(100000), uint16(100)
	return []limit{
		{
			"memory", "memory", "memory", "--memory", "One container can take all memory.",
			specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: &n}},
		},
		{
			"swap", "memory", "memory", "--memory-swap", "A limit of memory can be passed by swapping.",
			specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: &n, Swap: &n}},
		},
		{
			"cpu", "cpu", "cpu", "--cpus", "One container can take all processors.",
			specs.LinuxResources{CPU: &specs.LinuxCPU{Quota: &n, Period: &u}},
		},
		{
			"cpuset", "cpuset", "cpuset", "--cpuset-cpus", "Containers can't be kept to some processors.",
			specs.LinuxResources{CPU: &specs.LinuxCPU{Cpus: "0"}},
		},
		{"pids", "pids", "pids", "--pids-limit", "A fork bomb takes the host along.", specs.LinuxResources{Pids: &specs.LinuxPids{Limit: &n}}},
		{
			"io", "blkio", "io", "--device-read-bps", "Containers can't be kept to a rate of input and output.",
			specs.LinuxResources{BlockIO: &specs.LinuxBlockIO{ThrottleReadBpsDevice: []specs.LinuxThrottleDevice{{Rate: u}}}},
		},
		{
			"io weight", "blkio", "io", "--blkio-weight", "Shares of input and output can't be given.",
			specs.LinuxResources{BlockIO: &specs.LinuxBlockIO{Weight: &weight}},
		},
		{
			"hugetlb", "hugetlb", "hugetlb", "hugepageLimits of a bundle", "Huge pages can't be limited.",
			specs.LinuxResources{HugepageLimits: []specs.LinuxHugepageLimit{{Pagesize: "2MB", Limit: 2 << 20}}},
		},
	}
}

func (d *diagnosis) limit(l limit) {
	f := d.f
	i := Item{
		Group: groupLimits, Name: l.name, Status: OK, Means: l.flag + " is enforced.",
		Source: "the steps that package cgroup makes of such a limit",
	}
	bad := func(status Status, value, mend string) {
		i.Status, i.Value, i.Mend = status, value, mend
		i.Means = l.flag + " is refused. " + l.cost
	}
	var where *host.Hierarchy
	for n := range f.Host.Cgroup.Hierarchies {
		h := &f.Host.Cgroup.Hierarchies[n]
		if h.V2 && slices.Contains(h.Controllers, l.v2) || !h.V2 && slices.Contains(h.Controllers, l.v1) {
			where = h
		}
	}
	switch _, err := cgroup.Steps(f.Host.Cgroup, "/glassbox/doctor", &l.ask, func(p string) string { return p }); {
	case where == nil:
		bad(Missing, "no controller", d.controller(l))
	case err != nil:
		mend := "boot a kernel that has it"
		switch l.name {
		case "swap":
			mend = d.commandLine("swapaccount=1")
		case "io weight":
			mend = d.sudo("modprobe bfq") + ", then echo bfq > /sys/block/DISK/queue/scheduler"
		}
		// Without the JSON pointer in front, which names a field of a configuration that nobody here has written.
		_, reason, _ := strings.Cut(err.Error(), ": ")
		bad(Missing, reason, mend)
	case !d.root && !slices.Contains(f.delegated(), l.v2):
		bad(Missing, "not delegated", d.delegate())
	case d.root && slices.Contains(f.ReadOnlyCgroups, where.Mount):
		bad(Missing, where.Mount+" can't be written", d.sudo("mount -o remount,rw "+where.Mount)+" (in a container: run it with --privileged)")
	case l.name == "swap" && f.NoSwapAccount:
		bad(Missing, "swapaccount=0 on the kernel's command line", strings.Replace(d.commandLine("swapaccount=0"), "add", "remove", 1))
	default:
		i.Value = "v1 " + l.v1
		if where.V2 {
			i.Value = "v2 " + l.v2
		}
	}
	d.no(i)
}

// controller says how the controller of a limit comes to be there.
func (d *diagnosis) controller(l limit) string {
	enabled, known := d.f.Controllers[l.v1]
	switch {
	case known && !enabled:
		return d.commandLine("cgroup_enable="+l.v1) + " (and remove cgroup_disable=" + l.v1 + ")"
	case known && d.f.Host.Cgroup.Mode != host.CgroupV2:
		dir := "/sys/fs/cgroup/" + l.v1
		return d.sudo("mkdir -p "+dir) + " && " + d.sudo("mount -t cgroup -o "+l.v1+" cgroup "+dir)
	}
	option := map[string]string{
		"memory": "MEMCG", "cpu": "CGROUP_SCHED and CFS_BANDWIDTH", "cpuset": "CPUSETS", "pids": "CGROUP_PIDS",
		"blkio": "BLK_CGROUP", "hugetlb": "CGROUP_HUGETLB",
	}[l.v1]
	return "boot a kernel with CONFIG_" + option
}
