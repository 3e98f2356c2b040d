package plan

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
)

// Op is one request to the kernel. The set is closed: all kinds stand in this file.
type Op interface {
	// Kind is the name of the op in the JSON form and in tables: the system call's name where there is one.
	Kind() string
	// String describes the op in one line, without the reason.
	String() string
	// Man is the manual page that tells more, like "mount(2)".
	Man() string
}

// undoer is an op whose effect outlives the process that made it.
type undoer interface{ Undo() []Op }

// ---- cgroups ----

// CgroupCreate makes a cgroup, and its missing parents.
type CgroupCreate struct {
	Path string `json:"path"` // absolute, below a cgroup mount
	// Controllers are those of a v1 hierarchy, if they are known: what has to be looked at depends on them.
	Controllers []string `json:"controllers,omitempty"`
}

// CgroupRemove removes a cgroup and then those parents made for it that have become empty.
type CgroupRemove struct {
	Path string `json:"path"`
}

// CgroupWrite writes a value into a file of a cgroup. On EINVAL, ERANGE, EOPNOTSUPP, … the step fails: no limit is dropped
// silently.
type CgroupWrite struct {
	File  string `json:"file"` // absolute
	Value string `json:"value"`
	// Enable marks a write to cgroup.subtree_control that is left out where the controllers are already enabled.
	Enable bool `json:"enable,omitempty"`
}

// CgroupEvacuate moves the processes of a cgroup into a leaf below it, because on v2 a cgroup with processes can't give
// controllers to its children (cgroups(7), "no internal processes"). Needed where glassbox runs in a container of its own.
type CgroupEvacuate struct {
	From string `json:"from"`
	To   string `json:"to"`
}

// CgroupOpen opens a cgroup so that the child can be born into it (v2, the directory) or join it (v1, the file
// tasks, see package cgroup).
type CgroupOpen struct {
	Path string `json:"path"`
	Save string `json:"save"`
}

// CgroupJoin moves the calling process into the cgroup whose file tasks is open as From (v1).
type CgroupJoin struct {
	From string `json:"from"`
}

// CgroupAttach moves the child into a cgroup, from outside. Where the child is in it already, because systemd has put it there,
// the step only makes sure of that.
type CgroupAttach struct {
	Path string `json:"path"`
}

// SystemdScope asks systemd for a transient scope (StartTransientUnit) with the child in it, and waits until it has started.
// A scope is a unit around processes that systemd didn't start: it needs the child, so the step comes after the clone.
type SystemdScope struct {
	Unit       string            `json:"unit"`
	User       bool              `json:"user,omitempty"` // ask the caller's own manager, not the system's
	Properties []SystemdProperty `json:"properties"`     // but PIDs, which is the child's
}

// SystemdSet changes properties of a unit that runs.
type SystemdSet struct {
	Unit       string            `json:"unit"`
	User       bool              `json:"user,omitempty"`
	Properties []SystemdProperty `json:"properties"`
}

// SystemdAttach asks systemd to move the child into a unit that runs (AttachProcessesToUnit). A user can't move a process
// from a login session into a scope, but the manager can.
type SystemdAttach struct {
	Unit string `json:"unit"`
	User bool   `json:"user,omitempty"`
}

// SystemdStop stops a unit, which ends what is left in it. One that is gone is no error.
type SystemdStop struct {
	Unit string `json:"unit"`
	User bool   `json:"user,omitempty"`
}

// SystemdProperty is a property of a unit in D-Bus form (org.freedesktop.systemd1(5)). Type is the D-Bus signature of the value:
// b, s, i, u, x, t, d; as, ab, ai, au, ax, at, ay for lists; a(ss) for a list of pairs, which Value has one after the other.
type SystemdProperty struct {
	Name  string   `json:"name"`
	Type  string   `json:"type"`
	Value []string `json:"value"`
}

// DeviceFilter attaches a BPF program of type BPF_PROG_TYPE_CGROUP_DEVICE to a v2 cgroup. Rules are for readers, in the
// syntax of v1's devices.allow with a leading "allow" or "deny", applied in order; the last match wins.
type DeviceFilter struct {
	Path    string   `json:"path"`
	Rules   []string `json:"rules"`
	Program []byte   `json:"program"` // eBPF instructions, 8 bytes each, little endian
}

// ---- resource classes ----

// ResctrlCreate makes a resource class, or a monitoring group in one.
type ResctrlCreate struct {
	Path string `json:"path"` // absolute, below the mount of a resctrl file system
	// Shared is a class with a name of its own: others may use it, too, and it stays when the container goes.
	Shared bool `json:"shared,omitempty"`
}

// ResctrlRemove removes a resource class or a monitoring group. One that is gone is no error.
type ResctrlRemove struct {
	Path   string `json:"path"`
	Shared bool   `json:"shared,omitempty"` // only while nobody is in it
}

// ResctrlCheck makes sure that a class that exists has what is wanted: others may be in it, so it isn't changed.
type ResctrlCheck struct {
	Path     string   `json:"path"`
	Schemata []string `json:"schemata"`
}

// ResctrlWrite says what a class has: "L3:0=ff;1=ff", "MB:0=50". The kernel takes all lines or none.
type ResctrlWrite struct {
	Path     string   `json:"path"`
	Schemata []string `json:"schemata"`
}

// ResctrlJoin moves the calling thread into the class or the group whose file tasks is open as From. What it forks is in it, too.
type ResctrlJoin struct {
	From string `json:"from"`
}

// ---- descriptors from the host ----

// OpenTree clones the mount at Path into a detached mount (open_tree(2) with OPEN_TREE_CLONE, Linux 5.2), so that the source
// of a bind mount is fixed before the container can influence any name. In the child it is made before the root changes.
type OpenTree struct {
	Path      string `json:"path"`
	Recursive bool   `json:"recursive,omitempty"`
	Save      string `json:"save"`
	FSType    string `json:"fsType,omitempty"` // "proc": it must be the root of a procfs
	// Device is what the path must be, like "c 1:3": in the place of another device it would be handed to the container.
	Device string `json:"device,omitempty"`
	// Child has the parent do it in the child's mount namespace, with its own rights, and send the clone to the child, which takes it
	// with RecvFD: of mounts there the child can't change what the host set on them (read-only, nosuid, nodev).
	Child bool `json:"child,omitempty"`
	// Readonly makes the clone read-only, for who gets hold of the descriptor.
	Readonly bool `json:"readonly,omitempty"`
	// IDMap gives the files of the mount the ids of the user namespace saved under that name (MOUNT_ATTR_IDMAP, Linux 5.12).
	IDMap          string `json:"idMap,omitempty"`
	IDMapRecursive bool   `json:"idMapRecursive,omitempty"` // those of the mounts below, too
}

// UserNamespace makes a user namespace that no process lives in, for mounts with ids of their own.
type UserNamespace struct {
	UID  []IDRange `json:"uid"`
	GID  []IDRange `json:"gid"`
	Save string    `json:"save"`
}

// Open opens a path of the host.
type Open struct {
	Path  string   `json:"path"`
	Other string   `json:"other,omitempty"` // a kind of namespace: it must not be this program's own
	Flags []string `json:"flags,omitempty"` // "path", "directory", "write", "nofollow"
	// Namespace is the kind of namespace that the file must stand for (ioctl_ns(2), NS_GET_NSTYPE).
	Namespace string `json:"namespace,omitempty"`
	Save      string `json:"save"`
}

// OpenPid opens a pidfd. Start is the start time in clock ticks after boot (proc(5), stat field 22); if the process with
// that pid began at another time, it is another process, and the step fails.
type OpenPid struct {
	Pid   int    `json:"pid"`
	Start uint64 `json:"start"`
	Save  string `json:"save"`
}

// ---- namespaces ----

// Clone makes the child with clone3(2). In the child it makes a second one, which goes on with the plan as a child of the same
// parent (CLONE_PARENT) while the first one ends: so are namespaces entered that only children enter, once the first child has
// joined or prepared them. The host takes the second child over with Adopt.
type Clone struct {
	Namespaces []string `json:"namespaces,omitempty"` // new ones: mount pid uts ipc net user time
	Cgroup     string   `json:"cgroup,omitempty"`     // descriptor of a v2 cgroup to be born into (CLONE_INTO_CGROUP, Linux 5.7)
}

// Unshare leaves namespaces of the calling process for new ones. In the child it is used for the cgroup namespace, whose
// root is the cgroup that the process is in at that moment.
type Unshare struct {
	Namespaces []string `json:"namespaces"`
}

// Setns joins namespaces: those of a process (From is a pidfd) or one (From is a namespace file). In the host lane it acts
// on the thread that clones, and is needed for pid and time, which only children enter.
type Setns struct {
	From       string   `json:"from"`
	Namespaces []string `json:"namespaces"`
}

// Adopt takes the second child for the container's process and lets it go on (see Clone).
type Adopt struct{}

// TimeOffsets sets the clocks of a new time namespace, /proc/self/timens_offsets, before the first process enters it
// (time_namespaces(7)). It follows Unshare.
type TimeOffsets struct {
	Offsets []TimeOffset `json:"offsets"`
}

// TimeOffset is how far a clock of the container is ahead of the host's.
type TimeOffset struct {
	Clock    string `json:"clock"` // monotonic, boottime
	Secs     int64  `json:"secs"`
	Nanosecs uint32 `json:"nanosecs"`
}

// IDMap writes the uid_map and gid_map of the child's user namespace.
type IDMap struct {
	UID []IDRange `json:"uid"`
	GID []IDRange `json:"gid"`
	// DenySetgroups gives up setgroups(2) in the user namespace first, without which nobody unprivileged may map a group.
	DenySetgroups bool `json:"denySetgroups,omitempty"`
	// Programs has newuidmap(1) and newgidmap(1) write the maps, which grant what /etc/subuid and /etc/subgid allow.
	Programs bool `json:"programs,omitempty"`
}

// IDRange maps Size ids from Container (inside) to Host (outside).
type IDRange struct {
	Container uint32 `json:"container"`
	Host      uint32 `json:"host"`
	Size      uint32 `json:"size"`
}

// Release lets the child continue after the Await of the same name.
type Release struct {
	Name string `json:"name"`
}

// Await stops the child until the parent comes to the Release of the same name.
type Await struct {
	Name string `json:"name"`
}

// Notify tells the parent that the child has come this far; the parent waits for it with the Expect of the same name.
type Notify struct {
	Name string `json:"name"`
}

// Expect stops the parent until the child comes to the Notify of the same name.
type Expect struct {
	Name string `json:"name"`
}

// AwaitStart stops the child, ready but for execve, until somebody opens File of the directory saved as Dir for reading: that is
// how `create` and `start` of an OCI runtime are two commands. File is a FIFO, which blocks whoever opens it for writing until
// there is a reader (fifo(7)). From here on the child reports errors through it.
type AwaitStart struct {
	Dir  string `json:"dir"`
	File string `json:"file"`
}

// Hook runs a program of the host beside the child, with the container's state on its standard input (runtime-spec, config.md,
// POSIX-platform hooks). A status other than 0 fails the step.
type Hook struct {
	Name    string   `json:"name"` // prestart createRuntime createContainer
	Path    string   `json:"path"`
	Args    []string `json:"args,omitempty"` // with the program's own name first
	Env     []string `json:"env,omitempty"`
	Inherit bool     `json:"inherit,omitempty"` // instead of Env: the environment of whoever runs the plan
	Dir     string   `json:"dir,omitempty"`     // working directory
	Timeout int      `json:"timeout,omitempty"` // seconds; 0: none
	Enter   bool     `json:"enter,omitempty"`   // in all of the child's namespaces, as their root, before its root changes
}

// ---- root file system and mounts ----

// Mount is mount(2) with a path of the host, before the root is changed.
type Mount struct {
	Source string   `json:"source,omitempty"`
	Target string   `json:"target"`
	Type   string   `json:"type,omitempty"`
	Flags  []string `json:"flags,omitempty"` // bind rec private slave shared ro nosuid nodev noexec remount …
	Data   string   `json:"data,omitempty"`
}

// Overlay mounts an overlay file system and attaches it to Target. Dir becomes the working directory first and all other
// paths are relative to it, because option strings are short (4095 bytes in all with mount(2), 255 each with fsconfig(2)).
type Overlay struct {
	Dir    string   `json:"dir"`
	Lower  []string `json:"lower"` // top first, as in overlayfs
	Upper  string   `json:"upper,omitempty"`
	Work   string   `json:"work,omitempty"`
	Target string   `json:"target"`
	// Append adds one lower layer at a time with "lowerdir+" (Linux 6.5), for which there is no limit but the kernel's 500 layers.
	Append  bool     `json:"append,omitempty"`
	Options []string `json:"options,omitempty"` // such as "userxattr", "volatile", "metacopy=off"
}

// RootDir makes the root file system the working directory, below which names of the container are looked up, while the root of
// the mount namespace is still the host's: hooks of the container are found there.
type RootDir struct {
	Path string `json:"path"`
}

// RootMount mounts the root file system, with the mounts below it, at a directory of the host that it makes, in the host's mount
// namespace: for a container that has none of its own. The directory is a private mount by then, so nothing spreads from there, and
// unmounting it takes all back.
type RootMount struct {
	Source string `json:"source"`
	Target string `json:"target"`
}

// RootUnmount unmounts what a RootMount has mounted with all that was mounted on it, even if it is in use, and removes the directory.
// What is gone already is no error.
type RootUnmount struct {
	Target string `json:"target"`
}

// Chroot makes a directory the root of the process. Unlike after PivotRoot the way back stays open for who has CAP_SYS_CHROOT, so it
// is for containers that share the host's mount namespace only.
type Chroot struct {
	Root string `json:"root"`
}

// PivotRoot makes the mount at Root the root of the mount namespace and detaches the old root, so that no path of the host
// remains (unlike chroot(2), which leaves the way back open).
type PivotRoot struct {
	Root string `json:"root"`
}

// MoveRoot makes the mount at Root the root by moving it over the old one, for hosts whose root is a ramdisk that pivot_root(2)
// refuses to leave. The old root stays beneath, out of reach of names; procfs and sysfs of the host are unmounted first, because
// the kernel would take them as a licence for new ones.
type MoveRoot struct {
	Root string `json:"root"`
}

// FSMount makes a new file system and attaches it (fsopen, fsconfig, fsmount, move_mount; Linux 5.2). From here on targets
// are paths in the container. A target is resolved inside the root without magic links, its missing directories are made,
// and the mount is attached to the descriptor found, so that a swapped symbolic link leads nowhere.
type FSMount struct {
	Type    string   `json:"type"`
	Source  string   `json:"source,omitempty"`
	Options []string `json:"options,omitempty"` // "key" or "key=value", given to the file system
	Attrs   []string `json:"attrs,omitempty"`   // ro nosuid nodev noexec noatime nodiratime relatime strictatime nosymfollow
	Target  string   `json:"target,omitempty"`  // empty: leave it detached
	Save    string   `json:"save,omitempty"`    // descriptor of the (detached or attached) mount
	// Optional mounts are left out where the kernel lacks the file system (ENODEV).
	Optional    bool     `json:"optional,omitempty"`
	Propagation []string `json:"propagation,omitempty"` // as in MoveMount
	// KeepMode gives the new root the mode of the directory that it covers, if there is one.
	KeepMode bool `json:"keepMode,omitempty"`
	// Flags of the file system that only mount(2) has a name for: silent, iversion. With them, and with options that are too long for
	// fsconfig(2), mount(2) is used, on the descriptor of the target.
	Flags []string `json:"flags,omitempty"`
	Label string   `json:"label,omitempty"` // SELinux label to set on the root
}

// maxOption is how long an option may be with fsconfig(2).
const maxOption = 255

// Classic reports whether mount(2) makes it, which can't leave it detached.
func (o *FSMount) Classic() bool {
	return len(o.Flags) > 0 || slices.ContainsFunc(o.Options, func(s string) bool { return len(s) > maxOption })
}

// MoveMount attaches a detached mount to a path of the container after setting its attributes.
type MoveMount struct {
	From        string   `json:"from"`
	Target      string   `json:"target"`
	Create      string   `json:"create,omitempty"` // what a missing target becomes: "dir", "file", "like" (what the source is), or "" (an error)
	Set         []string `json:"set,omitempty"`    // attributes to set: ro nosuid nodev noexec …; others stay
	Clear       []string `json:"clear,omitempty"`
	RecSet      []string `json:"recSet,omitempty"` // the same for the mounts below, too
	RecClear    []string `json:"recClear,omitempty"`
	Propagation []string `json:"propagation,omitempty"` // private slave shared unbindable, in order; rprivate … for the mounts below, too
	NoSymlinks  bool     `json:"noSymlinks,omitempty"`  // none in the target: it must lie where its name says (CVE-2019-19921)
	Keep        bool     `json:"keep,omitempty"`        // later steps use From, too
	KeepMode    bool     `json:"keepMode,omitempty"`    // as in FSMount, for one that was made detached
}

// Remount changes the attributes of what is mounted at a path of the container (mount_setattr(2), Linux 5.12). If From is set,
// the mount is the one saved under that name, whatever is now to be found at Target.
type Remount struct {
	Target      string   `json:"target"`
	From        string   `json:"from,omitempty"`
	Set         []string `json:"set,omitempty"`
	Clear       []string `json:"clear,omitempty"`
	RecSet      []string `json:"recSet,omitempty"`
	RecClear    []string `json:"recClear,omitempty"`
	Propagation []string `json:"propagation,omitempty"`
	Options     []string `json:"options,omitempty"` // of the file system itself (fspick(2)), wherever it is mounted
}

// MaskPath hides a path: a file behind a clone of the null device saved as Null, a directory behind an empty read-only tmpfs.
// Null is saved by the Mknod that made the device or the OpenTree that took the host's, so that nothing can stand in for it
// (CVE-2025-31133: a fake /dev/null).
// A path that doesn't exist is left alone.
type MaskPath struct {
	Path  string `json:"path"`
	Null  string `json:"null"`
	Label string `json:"label,omitempty"` // SELinux label of the tmpfs
}

// ReadonlyPath puts a read-only clone of the mount tree at a path over it. A path that doesn't exist is left alone.
type ReadonlyPath struct {
	Path string `json:"path"`
}

// Mkdir makes a directory of the container, with its parents.
type Mkdir struct {
	Path string `json:"path"`
	Mode uint32 `json:"mode"`
}

// Mknod makes a device node or a FIFO in the container, with the owner given. The node is then verified by its descriptor, so
// that what a saved descriptor stands for is certain.
type Mknod struct {
	Path  string `json:"path"`
	Type  string `json:"type"` // c, u, b, p
	Major uint32 `json:"major"`
	Minor uint32 `json:"minor"`
	Mode  uint32 `json:"mode"`
	UID   uint32 `json:"uid"`
	GID   uint32 `json:"gid"`
	Save  string `json:"save,omitempty"` // descriptor of the new node (O_PATH)
	// Existing says what a file that is there already must be: "" is an error, "same" the same device, which then stays as it
	// is, and "required" the same, and nothing is made.
	Existing string `json:"existing,omitempty"`
}

// Symlink makes a symbolic link in the container; a file that exists stays, unless it is to be replaced.
type Symlink struct {
	Target  string `json:"target"`
	Path    string `json:"path"`
	Replace bool   `json:"replace,omitempty"`
	// Existing leaves the link out if there is nothing that it leads to.
	Existing bool `json:"existing,omitempty"`
}

// ---- settings of the kernel ----

// LinkUp sets a link of the child's own network namespace up: the loopback device (netdevice(7), SIOCSIFFLAGS).
type LinkUp struct {
	Link string `json:"link"`
}

// Sethostname sets the host name of the UTS namespace.
type Sethostname struct {
	Name string `json:"name"`
}

// Setdomainname sets the NIS domain name of the UTS namespace.
type Setdomainname struct {
	Name string `json:"name"`
}

// Sysctl writes a kernel setting of the container through the private procfs saved as From.
type Sysctl struct {
	From  string `json:"from"`
	Key   string `json:"key"` // as in /proc/sys: net/ipv4/ip_forward
	Value string `json:"value"`
}

// WriteProc writes a file below /proc/self through the private procfs saved as From: oom_score_adj, attr/apparmor/exec. The host
// writes that of the child, without From.
type WriteProc struct {
	From  string `json:"from,omitempty"`
	File  string `json:"file"`
	Value string `json:"value"`
}

// WriteFile writes a file of the host, such as a forwarding setting below /proc/sys.
type WriteFile struct {
	Path  string `json:"path"`
	Value string `json:"value"`
}

// Rlimit sets a resource limit. Values are in the limit's own unit; ^0 is unlimited.
type Rlimit struct {
	Type string `json:"type"` // RLIMIT_NOFILE …
	Soft uint64 `json:"soft"`
	Hard uint64 `json:"hard"`
}

// Sched sets the scheduling policy and its parameters (sched_setattr(2)). Times are in nanoseconds.
type Sched struct {
	Policy   string   `json:"policy"`          // SCHED_OTHER …
	Flags    []string `json:"flags,omitempty"` // SCHED_FLAG_RESET_ON_FORK …
	Nice     int32    `json:"nice,omitempty"`
	Priority uint32   `json:"priority,omitempty"` // of SCHED_FIFO and SCHED_RR
	Runtime  uint64   `json:"runtime,omitempty"`  // this one and the next two are for SCHED_DEADLINE
	Deadline uint64   `json:"deadline,omitempty"`
	Period   uint64   `json:"period,omitempty"`
}

// IOPriority sets the class and priority of disk access.
type IOPriority struct {
	Class    string `json:"class"` // IOPRIO_CLASS_RT, IOPRIO_CLASS_BE, IOPRIO_CLASS_IDLE
	Priority int    `json:"priority"`
}

// Affinity restricts the process to some processors, in the form "0-3,7". In the host lane it acts on the thread that clones, from
// which the child has it; that thread gets its own back in the end.
type Affinity struct {
	CPUs string `json:"cpus"`
}

// MemPolicy sets the policy for memory on machines with several memory nodes.
type MemPolicy struct {
	Mode  string   `json:"mode"`            // MPOL_BIND …
	Flags []string `json:"flags,omitempty"` // MPOL_F_STATIC_NODES …
	Nodes string   `json:"nodes,omitempty"` // in the form "0-3,7"
}

// Personality sets the execution domain, which decides what uname(2) calls the machine.
type Personality struct {
	Domain string `json:"domain"` // LINUX, LINUX32
}

// Umask sets the file mode creation mask.
type Umask struct {
	Mask uint32 `json:"mask"`
}

// Keyring joins a new session keyring, so that the host's keys are out of reach.
type Keyring struct {
	Name string `json:"name"`
}

// ---- terminal and stdio ----

// OpenConsole opens a new pty in the container's /dev/pts and saves master and slave.
type OpenConsole struct {
	Rows   uint16 `json:"rows,omitempty"`
	Cols   uint16 `json:"cols,omitempty"`
	Master string `json:"master"`
	Slave  string `json:"slave"`
	UID    uint32 `json:"uid"` // owner of the slave
}

// BindConsole mounts the pty's slave on /dev/console, from its descriptor and not by a name (CVE-2025-52565).
type BindConsole struct {
	From string `json:"from"`
}

// SendFD sends a descriptor of the child to the parent, which takes it with RecvFD.
type SendFD struct {
	From string `json:"from"`
	Keep bool   `json:"keep,omitempty"` // later steps use it, too
}

// SendListener hands the descriptor of a system call filter's listener (seccomp_unotify(2)) to the agent behind a unix socket, with
// the state of the container's process (runtime-spec, config-linux.md, The Container Process State).
type SendListener struct {
	From     string `json:"from"` // as received
	Path     string `json:"path"`
	Metadata string `json:"metadata,omitempty"`
	Version  string `json:"version"` // of the specification
}

// CopyUp copies what is in a directory into a new file system, both of which the child has sent: what an image has there shall be
// in the tmpfs that covers it.
type CopyUp struct {
	From     string `json:"from"`
	To       string `json:"to"`
	KeepMode bool   `json:"keepMode,omitempty"` // the new root has a mode already
	UID      uint32 `json:"uid,omitempty"`      // who makes the files, before they get their owners: somebody who exists in the
	GID      uint32 `json:"gid,omitempty"`      // user namespace that the new file system belongs to
}

// OpenDir opens a directory of the container, if there is one, or else the directory that is saved as Else.
type OpenDir struct {
	Path string `json:"path"`
	Else string `json:"else"`
	Save string `json:"save"`
}

// RecvFD receives the descriptor that the child sends or, in the child, the clone of a mount that the parent sends (see OpenTree).
type RecvFD struct {
	Save string `json:"save"`
}

// Stdio makes a saved descriptor the standard descriptor To (0, 1, 2). Names "stdin", "stdout" and "stderr" are given by
// whoever runs the plan.
type Stdio struct {
	From string `json:"from"`
	To   int    `json:"to"`
}

// Setsid makes the process the leader of a new session.
type Setsid struct {
	Controlling bool `json:"controlling,omitempty"` // with descriptor 0 as its controlling terminal
}

// ---- privileges ----

// ParentDeath asks for a signal when the parent dies (PR_SET_PDEATHSIG).
type ParentDeath struct {
	Signal int `json:"signal"`
}

// Dumpable sets PR_SET_DUMPABLE: 0 hides the process's /proc entries and memory from others in the container.
type Dumpable struct {
	Value int `json:"value"`
}

// NoNewPrivs sets PR_SET_NO_NEW_PRIVS: execve can't gain privileges by setuid bits or file capabilities.
type NoNewPrivs struct{}

// Seccomp installs a system call filter.
type Seccomp struct {
	Name    string   `json:"name"` // "default", a file's name
	Flags   uint32   `json:"flags,omitempty"`
	Program []byte   `json:"program"` // struct sock_filter, 8 bytes each, little endian
	Notify  string   `json:"notify,omitempty"`
	Summary []string `json:"summary,omitempty"`
}

// DropBounding removes capabilities from the bounding set: nothing executed later can have them.
type DropBounding struct {
	Caps []string `json:"caps"`
}

// KeepCaps sets PR_SET_KEEPCAPS, so that the permitted set survives the change of user.
type KeepCaps struct{}

// Setgroups sets the supplementary groups.
type Setgroups struct {
	Groups []uint32 `json:"groups"`
	// IfAllowed leaves it out where the user namespace denies setgroups (EPERM).
	IfAllowed bool `json:"ifAllowed,omitempty"`
}

// Setresgid sets real, effective and saved group ID.
type Setresgid struct {
	GID uint32 `json:"gid"`
}

// Setresuid sets real, effective and saved user ID.
type Setresuid struct {
	UID uint32 `json:"uid"`
}

// Capset sets the capability sets of the process.
type Capset struct {
	Effective   []string `json:"effective"`
	Permitted   []string `json:"permitted"`
	Inheritable []string `json:"inheritable"`
}

// AmbientCaps raises ambient capabilities, which survive execve of an ordinary program.
type AmbientCaps struct {
	Caps []string `json:"caps"`
}

// ---- exec ----

// Chdir enters the working directory and checks that it lies inside the root (CVE-2024-21626).
type Chdir struct {
	Path string `json:"path"`
	// Try is for a first attempt with the rights of root: no permission is no error, and the Chdir without Try that follows tries
	// again. If the first attempt succeeded, the second only checks.
	Try bool `json:"try,omitempty"`
}

// InheritFDs makes sure that the descriptors from 3 to 2+Count were given to this program by whoever started it: each is open
// and not close-on-exec, as all of this program's own are.
type InheritFDs struct {
	Count int `json:"count"`
}

// FindProgram checks that one of the candidates is a file that this process may execute, so that a container whose program is
// missing doesn't count as created.
type FindProgram struct {
	Candidates []string `json:"candidates"`
	Name       string   `json:"name"` // as in argv, for the error
}

// CloseRange closes all descriptors from First on, but for the one that leads to the parent, which execve closes.
type CloseRange struct {
	First int `json:"first"`
}

// Execve runs the program. Candidates are tried in order while the kernel answers that there is no such file (or that it may
// not be executed), as a shell walks PATH.
type Execve struct {
	Candidates []string `json:"candidates"`
	Argv       []string `json:"argv"`
	Env        []string `json:"env"`
}

// ---- network: the host lane does these by netlink, in the host's or the child's network namespace ----

// LinkBridge makes a bridge on the host, with its address, unless it exists, and sets it up. It stays when the container goes:
// other containers use it.
type LinkBridge struct {
	Name    string   `json:"name"`
	Address string   `json:"address"` // of the bridge, as CIDR
	MTU     int      `json:"mtu,omitempty"`
	Sysctls []string `json:"sysctls,omitempty"` // "net/ipv4/conf/NAME/route_localnet=1", set when it is made
}

// LinkVeth makes a veth pair: Name on the host, attached to Bridge and up; Peer in the child's network namespace, down.
type LinkVeth struct {
	Name   string `json:"name"`
	Peer   string `json:"peer"`
	Bridge string `json:"bridge"`
	MAC    string `json:"mac,omitempty"` // of the peer
	MTU    int    `json:"mtu,omitempty"`
	// Hairpin lets the bridge send a frame back to the port that it came from: a container that talks to its own published
	// port needs it where br_netfilter translates addresses inside the bridge.
	Hairpin bool `json:"hairpin,omitempty"`
}

// LinkMove moves a link of the host into the child's network namespace, with its permanent addresses of global scope, and sets it
// up. It stays there: when the namespace ends, the kernel takes a physical device back and removes another one.
type LinkMove struct {
	Name string `json:"name"`
	As   string `json:"as,omitempty"` // its new name; %d in it stands for a number that the kernel chooses
}

// LinkDelete removes a link of the host. One that is gone already is no error.
type LinkDelete struct {
	Name string `json:"name"`
}

// LinkAddress gives a link in the child's network namespace an address and sets the link up.
type LinkAddress struct {
	Link    string `json:"link"`
	Address string `json:"address,omitempty"` // CIDR; empty: only set the link up (lo)
}

// RouteDefault adds the default route in the child's network namespace.
type RouteDefault struct {
	Link string `json:"link"`
	Via  string `json:"via"`
}

// NftBridge makes the tables, chains and maps of one bridge in one transaction, unless they are there. Rules are for readers,
// in the syntax of nft(8).
type NftBridge struct {
	Table  string   `json:"table"`
	Bridge string   `json:"bridge"`
	Subnet string   `json:"subnet"`
	Rules  []string `json:"rules,omitempty"`
}

// NftPublish adds published ports to the maps of the bridge's table, in one transaction.
type NftPublish struct {
	Table string     `json:"table"`
	Ports []PortRule `json:"ports"`
}

// NftUnpublish takes published ports out of the maps. One that is gone already is no error.
type NftUnpublish struct {
	Table string     `json:"table"`
	Ports []PortRule `json:"ports"`
}

// PortRule forwards a port of the host to a port of a container.
type PortRule struct {
	Proto         string `json:"proto"`            // tcp, udp
	HostIP        string `json:"hostIP,omitempty"` // empty: every local address
	HostPort      uint16 `json:"hostPort"`
	ContainerIP   string `json:"containerIP"`
	ContainerPort uint16 `json:"containerPort"`
}

// newOp returns an empty op of a kind, or nil.
func newOp(kind string) Op {
	switch kind {
	case "cgroup-create":
		return &CgroupCreate{}
	case "cgroup-remove":
		return &CgroupRemove{}
	case "cgroup-write":
		return &CgroupWrite{}
	case "cgroup-evacuate":
		return &CgroupEvacuate{}
	case "cgroup-open":
		return &CgroupOpen{}
	case "cgroup-join":
		return &CgroupJoin{}
	case "cgroup-attach":
		return &CgroupAttach{}
	case "systemd-scope":
		return &SystemdScope{}
	case "systemd-set":
		return &SystemdSet{}
	case "systemd-attach":
		return &SystemdAttach{}
	case "systemd-stop":
		return &SystemdStop{}
	case "bpf-device":
		return &DeviceFilter{}
	case "resctrl-create":
		return &ResctrlCreate{}
	case "resctrl-remove":
		return &ResctrlRemove{}
	case "resctrl-check":
		return &ResctrlCheck{}
	case "resctrl-write":
		return &ResctrlWrite{}
	case "resctrl-join":
		return &ResctrlJoin{}
	case "open_tree":
		return &OpenTree{}
	case "open":
		return &Open{}
	case "pidfd_open":
		return &OpenPid{}
	case "clone3":
		return &Clone{}
	case "unshare":
		return &Unshare{}
	case "setns":
		return &Setns{}
	case "adopt":
		return &Adopt{}
	case "time-offsets":
		return &TimeOffsets{}
	case "user-namespace":
		return &UserNamespace{}
	case "id-map":
		return &IDMap{}
	case "release":
		return &Release{}
	case "await":
		return &Await{}
	case "notify":
		return &Notify{}
	case "expect":
		return &Expect{}
	case "await-start":
		return &AwaitStart{}
	case "hook":
		return &Hook{}
	case "mount":
		return &Mount{}
	case "overlay":
		return &Overlay{}
	case "root-dir":
		return &RootDir{}
	case "root-mount":
		return &RootMount{}
	case "root-unmount":
		return &RootUnmount{}
	case "chroot":
		return &Chroot{}
	case "pivot_root":
		return &PivotRoot{}
	case "move-root":
		return &MoveRoot{}
	case "fsmount":
		return &FSMount{}
	case "move_mount":
		return &MoveMount{}
	case "mount_setattr":
		return &Remount{}
	case "mask-path":
		return &MaskPath{}
	case "readonly-path":
		return &ReadonlyPath{}
	case "mkdir":
		return &Mkdir{}
	case "mknod":
		return &Mknod{}
	case "symlink":
		return &Symlink{}
	case "link-up":
		return &LinkUp{}
	case "sethostname":
		return &Sethostname{}
	case "setdomainname":
		return &Setdomainname{}
	case "sysctl":
		return &Sysctl{}
	case "write-proc":
		return &WriteProc{}
	case "write-file":
		return &WriteFile{}
	case "prlimit":
		return &Rlimit{}
	case "sched_setattr":
		return &Sched{}
	case "ioprio_set":
		return &IOPriority{}
	case "sched_setaffinity":
		return &Affinity{}
	case "set_mempolicy":
		return &MemPolicy{}
	case "personality":
		return &Personality{}
	case "umask":
		return &Umask{}
	case "keyctl":
		return &Keyring{}
	case "open-console":
		return &OpenConsole{}
	case "bind-console":
		return &BindConsole{}
	case "send-fd":
		return &SendFD{}
	case "send-listener":
		return &SendListener{}
	case "copy-up":
		return &CopyUp{}
	case "open-dir":
		return &OpenDir{}
	case "recv-fd":
		return &RecvFD{}
	case "dup3":
		return &Stdio{}
	case "setsid":
		return &Setsid{}
	case "pdeathsig":
		return &ParentDeath{}
	case "dumpable":
		return &Dumpable{}
	case "no-new-privs":
		return &NoNewPrivs{}
	case "seccomp":
		return &Seccomp{}
	case "drop-bounding":
		return &DropBounding{}
	case "keepcaps":
		return &KeepCaps{}
	case "setgroups":
		return &Setgroups{}
	case "setresgid":
		return &Setresgid{}
	case "setresuid":
		return &Setresuid{}
	case "capset":
		return &Capset{}
	case "ambient-caps":
		return &AmbientCaps{}
	case "chdir":
		return &Chdir{}
	case "inherit-fds":
		return &InheritFDs{}
	case "find-program":
		return &FindProgram{}
	case "close_range":
		return &CloseRange{}
	case "execve":
		return &Execve{}
	case "link-bridge":
		return &LinkBridge{}
	case "link-veth":
		return &LinkVeth{}
	case "link-move":
		return &LinkMove{}
	case "link-delete":
		return &LinkDelete{}
	case "link-address":
		return &LinkAddress{}
	case "route-default":
		return &RouteDefault{}
	case "nft-bridge":
		return &NftBridge{}
	case "nft-publish":
		return &NftPublish{}
	case "nft-unpublish":
		return &NftUnpublish{}
	}
	return nil
}

// lanesOf says in which lanes an op can be made.
func lanesOf(op Op) []Lane {
	switch op.(type) {
	case *Setns, *Unshare, *Affinity, *OpenTree, *Clone, *WriteProc, *Rlimit, *RecvFD:
		return []Lane{Host, Child}
	case *CgroupCreate, *CgroupRemove, *CgroupWrite, *CgroupEvacuate, *CgroupOpen, *CgroupAttach, *DeviceFilter, *SystemdScope, *SystemdSet, *SystemdAttach, *SystemdStop, *Open, *OpenPid, *UserNamespace, *Adopt, *IDMap, *Release, *Expect, *Hook, *RootMount, *RootUnmount,
		*ResctrlCreate, *ResctrlRemove, *ResctrlCheck, *ResctrlWrite,
		*WriteFile, *SendListener, *CopyUp, *LinkBridge, *LinkVeth, *LinkMove, *LinkDelete, *LinkAddress, *RouteDefault, *NftBridge, *NftPublish, *NftUnpublish:
		return []Lane{Host}
	}
	return []Lane{Child}
}

// saves returns the descriptor that an op saves under a name.
func saves(op Op) string {
	switch op := op.(type) {
	case *CgroupOpen:
		return op.Save
	case *OpenTree:
		return op.Save
	case *OpenDir:
		return op.Save
	case *Seccomp:
		return op.Notify
	case *UserNamespace:
		return op.Save
	case *Open:
		return op.Save
	case *OpenPid:
		return op.Save
	case *FSMount:
		return op.Save
	case *Mknod:
		return op.Save
	case *RecvFD:
		return op.Save
	case *OpenConsole:
		return op.Slave // and Master, which only SendFD may use
	}
	return ""
}

// uses returns the descriptors that an op needs.
func uses(op Op) []string {
	var names []string
	switch op := op.(type) {
	case *CgroupJoin:
		names = []string{op.From}
	case *ResctrlJoin:
		names = []string{op.From}
	case *Clone:
		names = []string{op.Cgroup}
	case *OpenTree:
		names = []string{op.IDMap}
	case *Setns:
		names = []string{op.From}
	case *MoveMount:
		names = []string{op.From}
	case *Remount:
		names = []string{op.From}
	case *MaskPath:
		names = []string{op.Null}
	case *Sysctl:
		names = []string{op.From}
	case *WriteProc:
		names = []string{op.From}
	case *BindConsole:
		names = []string{op.From}
	case *SendListener:
		names = []string{op.From}
	case *CopyUp:
		names = []string{op.From, op.To}
	case *OpenDir:
		names = []string{op.Else}
	case *AwaitStart:
		names = []string{op.Dir}
	}
	return slices.DeleteFunc(names, func(s string) bool { return s == "" })
}

func unmarshalStrict(data []byte, v any) error {
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return err
	}
	if _, err := d.Token(); err != io.EOF {
		return fmt.Errorf("data after the value")
	}
	return nil
}

func list(words []string) string { return strings.Join(words, ",") }
