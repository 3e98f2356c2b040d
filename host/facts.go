// Package host finds out what this machine can do and writes it down as [Facts], a plain struct.
//
// Compiling a plan needs facts (which cgroup hierarchies, which kernel, which capabilities) but must not look for them: facts
// are gathered once, here, so that the compiler stays pure and its tests can stand on any machine. Nothing here changes the
// host. Start reading at [Facts], then [Probe].
package host

// Facts is what a plan depends on beside the container's configuration.
type Facts struct {
	Kernel Kernel `json:"kernel"`
	Arch   string `json:"arch"` // GOARCH
	UID    uint32 `json:"uid"`
	GID    uint32 `json:"gid"`
	Caps   uint64 `json:"caps"` // effective capabilities, bit n is capability n
	// UserNS is set in a user namespace other than the first one: capabilities count there only.
	UserNS bool `json:"userns,omitempty"`
	// NoSetgroups is set where the user namespace denies setgroups(2) for good.
	NoSetgroups bool      `json:"noSetgroups,omitempty"`
	LastCap     int       `json:"lastCap"` // highest capability that the kernel knows
	NoFile      [2]uint64 `json:"noFile"`  // soft and hard RLIMIT_NOFILE as they were before the Go runtime raised the soft one
	Cgroup      Cgroup    `json:"cgroup"`
	LSM         []string  `json:"lsm,omitempty"` // active security modules: "apparmor", "selinux", …
	Seccomp     bool      `json:"seccomp"`
	CPUs        int       `json:"cpus"`              // online processors
	Memory      uint64    `json:"memory"`            // bytes
	Resctrl     *Resctrl  `json:"resctrl,omitempty"` // see ProbeResctrl; nil also where nobody has looked
}

// Kernel is the running kernel's version.
type Kernel struct {
	Release string `json:"release"` // as uname -r
	Major   int    `json:"major"`
	Minor   int    `json:"minor"`
}

// AtLeast reports whether the kernel is of the given version or newer.
func (k Kernel) AtLeast(major, minor int) bool {
	return k.Major > major || k.Major == major && k.Minor >= minor
}

// Modes of cgroup set-up.
const (
	CgroupV1     = "v1"     // v1 hierarchies only
	CgroupV2     = "v2"     // one unified hierarchy
	CgroupHybrid = "hybrid" // controllers on v1, and a v2 hierarchy beside them
	CgroupNone   = "none"   // no cgroup file system is mounted
)

// Cgroup describes the mounted cgroup hierarchies.
type Cgroup struct {
	Mode        string      `json:"mode"`
	Hierarchies []Hierarchy `json:"hierarchies,omitempty"`
	CpusetCpus  string      `json:"cpusetCpus,omitempty"` // processors that the root cpuset has (v1 cpusets start empty)
	CpusetMems  string      `json:"cpusetMems,omitempty"`
}

// Hierarchy is one mounted cgroup hierarchy.
type Hierarchy struct {
	Mount       string   `json:"mount"` // mount point, /sys/fs/cgroup/memory
	V2          bool     `json:"v2,omitempty"`
	Controllers []string `json:"controllers,omitempty"` // v1: of the mount (cpu, cpuacct, "name=systemd"); v2: cgroup.controllers of the root
	Enabled     []string `json:"enabled,omitempty"`     // v2: cgroup.subtree_control of the root
	Own         string   `json:"own"`                   // cgroup of this process below Mount, "/" for Mount itself; "" if it isn't below
	// Crowded is set where the hierarchy's visible root is not the real root and has processes of its own (v2 in a cgroup
	// namespace): controllers can't be given to children before those processes have moved into a leaf.
	Crowded bool `json:"crowded,omitempty"`
	// Files are the files that a cgroup of this hierarchy has although not every kernel offers them.
	//
	// On v1 the list is complete for memory.memsw.limit_in_bytes, memory.kmem.limit_in_bytes, memory.kmem.tcp.limit_in_bytes,
	// blkio.weight, blkio.bfq.weight, cpu.cfs_quota_us, cpu.cfs_burst_us, cpu.rt_runtime_us and cpu.idle: one that isn't in it
	// doesn't exist. On v2 it can name io.bfq.weight and io.weight, and one that isn't in it may exist all the same: the real
	// root shows none of the files, so the write decides.
	Files []string `json:"files,omitempty"`
}
