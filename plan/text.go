package plan

import (
	"fmt"
	"slices"
	"strings"
)

// Kind is "cgroup-create".
func (*CgroupCreate) Kind() string { return "cgroup-create" }

// Man names the manual page.
func (*CgroupCreate) Man() string { return "cgroups(7)" }

func (o *CgroupCreate) String() string {
	return "create cgroup " + o.Path
}

// Kind is "cgroup-remove".
func (*CgroupRemove) Kind() string { return "cgroup-remove" }

// Man names the manual page.
func (*CgroupRemove) Man() string { return "cgroups(7)" }

func (o *CgroupRemove) String() string {
	return "remove cgroup " + o.Path
}

// Kind is "cgroup-write".
func (*CgroupWrite) Kind() string { return "cgroup-write" }

// Man names the manual page.
func (*CgroupWrite) Man() string { return "cgroups(7)" }

func (o *CgroupWrite) String() string {
	return fmt.Sprintf("write %q to %s", o.Value, o.File)
}

// Kind is "cgroup-evacuate".
func (*CgroupEvacuate) Kind() string { return "cgroup-evacuate" }

// Man names the manual page.
func (*CgroupEvacuate) Man() string { return "cgroups(7)" }

func (o *CgroupEvacuate) String() string {
	return fmt.Sprintf("move the processes of %s to %s", o.From, o.To)
}

// Kind is "cgroup-open".
func (*CgroupOpen) Kind() string { return "cgroup-open" }

// Man names the manual page.
func (*CgroupOpen) Man() string { return "open(2)" }

func (o *CgroupOpen) String() string {
	return fmt.Sprintf("open cgroup %s as %s", o.Path, o.Save)
}

// Kind is "cgroup-join".
func (*CgroupJoin) Kind() string { return "cgroup-join" }

// Man names the manual page.
func (*CgroupJoin) Man() string { return "cgroups(7)" }

func (o *CgroupJoin) String() string {
	return "join cgroup " + o.From
}

// Kind is "cgroup-attach".
func (*CgroupAttach) Kind() string { return "cgroup-attach" }

// Man names the manual page.
func (*CgroupAttach) Man() string { return "cgroups(7)" }

func (o *CgroupAttach) String() string {
	return "move the child into cgroup " + o.Path + ", unless it is there"
}

// Kind is "resctrl-create".
func (*ResctrlCreate) Kind() string { return "resctrl-create" }

// Man names the manual page; the kernel's Documentation/arch/x86/resctrl.rst has the rest.
func (*ResctrlCreate) Man() string { return "mkdir(2)" }

func (o *ResctrlCreate) String() string {
	return "create " + classKind(o.Path) + o.Path + when(o.Shared, ", which others may use")
}

// Kind is "resctrl-remove".
func (*ResctrlRemove) Kind() string { return "resctrl-remove" }

// Man names the manual page.
func (*ResctrlRemove) Man() string { return "rmdir(2)" }

func (o *ResctrlRemove) String() string {
	return "remove " + classKind(o.Path) + o.Path + when(o.Shared, ", unless somebody uses it")
}

func classKind(path string) string {
	if strings.Contains(path, "/mon_groups/") {
		return "monitoring group "
	}
	return "resource class "
}

// Kind is "resctrl-check".
func (*ResctrlCheck) Kind() string { return "resctrl-check" }

// Man names the manual page.
func (*ResctrlCheck) Man() string { return "read(2)" }

func (o *ResctrlCheck) String() string {
	return fmt.Sprintf("make sure that resource class %s has %q", o.Path, o.Schemata)
}

// Kind is "resctrl-write".
func (*ResctrlWrite) Kind() string { return "resctrl-write" }

// Man names the manual page.
func (*ResctrlWrite) Man() string { return "write(2)" }

func (o *ResctrlWrite) String() string {
	return fmt.Sprintf("give resource class %s %q", o.Path, o.Schemata)
}

// Kind is "resctrl-join".
func (*ResctrlJoin) Kind() string { return "resctrl-join" }

// Man names the manual page.
func (*ResctrlJoin) Man() string { return "write(2)" }

func (o *ResctrlJoin) String() string {
	return "join resource class " + o.From
}

// Kind is "systemd-scope".
func (*SystemdScope) Kind() string { return "systemd-scope" }

// Man names the manual page.
func (*SystemdScope) Man() string { return "org.freedesktop.systemd1(5)" }

func (o *SystemdScope) String() string {
	return "start " + manager(o.User) + " unit " + o.Unit + " around the child" + properties(o.Properties)
}

// Kind is "systemd-set".
func (*SystemdSet) Kind() string { return "systemd-set" }

// Man names the manual page.
func (*SystemdSet) Man() string { return "org.freedesktop.systemd1(5)" }

func (o *SystemdSet) String() string {
	return "set properties of " + manager(o.User) + " unit " + o.Unit + properties(o.Properties)
}

// Kind is "systemd-attach".
func (*SystemdAttach) Kind() string { return "systemd-attach" }

// Man names the manual page.
func (*SystemdAttach) Man() string { return "org.freedesktop.systemd1(5)" }

func (o *SystemdAttach) String() string {
	return "let systemd move the child into " + manager(o.User) + " unit " + o.Unit
}

// Kind is "systemd-stop".
func (*SystemdStop) Kind() string { return "systemd-stop" }

// Man names the manual page.
func (*SystemdStop) Man() string { return "org.freedesktop.systemd1(5)" }

func (o *SystemdStop) String() string {
	return "stop " + manager(o.User) + " unit " + o.Unit
}

// Kind is "bpf-device".
func (*DeviceFilter) Kind() string { return "bpf-device" }

// Man names the manual page.
func (*DeviceFilter) Man() string { return "bpf(2)" }

func (o *DeviceFilter) String() string {
	return fmt.Sprintf("attach a device filter of %d rules to %s", len(o.Rules), o.Path)
}

// Kind is "open_tree".
func (*OpenTree) Kind() string { return "open_tree" }

// Man names the manual page.
func (*OpenTree) Man() string { return "open_tree(2)" }

func (o *OpenTree) String() string {
	return fmt.Sprintf("clone the mount at %s as %s%s%s%s%s", o.Path, o.Save, when(o.Recursive, ", with the mounts below"), when(o.Readonly, ", read-only")+when(o.Child, ", in the child's mount namespace, and send it"),
		when(o.Device != "", ", if it is device "+o.Device), when(o.IDMap != "", ", with the ids of "+o.IDMap+when(o.IDMapRecursive, " for all")))
}

// Kind is "user-namespace".
func (*UserNamespace) Kind() string { return "user-namespace" }

// Man names the manual page.
func (*UserNamespace) Man() string { return "user_namespaces(7)" }

func (o *UserNamespace) String() string {
	return fmt.Sprintf("make a user namespace as %s with user ids %s and group ids %s", o.Save, ranges(o.UID), ranges(o.GID))
}

// Kind is "open".
func (*Open) Kind() string { return "open" }

// Man names the manual page.
func (*Open) Man() string { return "open(2)" }

func (o *Open) String() string {
	return fmt.Sprintf("open %s as %s%s%s", o.Path, o.Save, paren(o.Flags), when(o.Namespace != "", ", if it is a "+o.Namespace+" namespace"))
}

// Kind is "pidfd_open".
func (*OpenPid) Kind() string { return "pidfd_open" }

// Man names the manual page.
func (*OpenPid) Man() string { return "pidfd_open(2)" }

func (o *OpenPid) String() string {
	return fmt.Sprintf("open process %d as %s", o.Pid, o.Save)
}

// Kind is "clone3".
func (*Clone) Kind() string { return "clone3" }

// Man names the manual page.
func (*Clone) Man() string { return "clone(2)" }

func (o *Clone) String() string {
	return "clone the child" + prefix(", new namespaces: ", strings.Join(o.Namespaces, " ")) + when(o.Cgroup != "", ", born in cgroup "+o.Cgroup)
}

// Kind is "unshare".
func (*Unshare) Kind() string { return "unshare" }

// Man names the manual page.
func (*Unshare) Man() string { return "unshare(2)" }

func (o *Unshare) String() string {
	return "new namespace: " + strings.Join(o.Namespaces, " ")
}

// Kind is "setns".
func (*Setns) Kind() string { return "setns" }

// Man names the manual page.
func (*Setns) Man() string { return "setns(2)" }

func (o *Setns) String() string {
	return fmt.Sprintf("join %s of %s", strings.Join(o.Namespaces, " "), o.From)
}

// Kind is "adopt".
func (*Adopt) Kind() string { return "adopt" }

// Man names the manual page.
func (*Adopt) Man() string { return "clone(2)" }

func (o *Adopt) String() string { return "go on with the second child" }

// Kind is "time-offsets".
func (*TimeOffsets) Kind() string { return "time-offsets" }

// Man names the manual page.
func (*TimeOffsets) Man() string { return "time_namespaces(7)" }

func (o *TimeOffsets) String() string {
	var b strings.Builder
	for _, t := range o.Offsets {
		fmt.Fprintf(&b, ", %s by %d s", t.Clock, t.Secs)
		if t.Nanosecs != 0 {
			fmt.Fprintf(&b, " and %d ns", t.Nanosecs)
		}
	}
	return "set clocks ahead: " + strings.TrimPrefix(b.String(), ", ")
}

// Kind is "id-map".
func (*IDMap) Kind() string { return "id-map" }

// Man names the manual page.
func (*IDMap) Man() string { return "user_namespaces(7)" }

func (o *IDMap) String() string {
	return fmt.Sprintf("map user ids %s and group ids %s%s%s", ranges(o.UID), ranges(o.GID), when(o.DenySetgroups, ", deny setgroups"), when(o.Programs, ", by newuidmap and newgidmap"))
}

// Kind is "release".
func (*Release) Kind() string { return "release" }

// Man names the manual page.
func (*Release) Man() string { return "pipe(7)" }

func (o *Release) String() string {
	return "let the child go on: " + o.Name
}

// Kind is "await".
func (*Await) Kind() string { return "await" }

// Man names the manual page.
func (*Await) Man() string { return "pipe(7)" }

func (o *Await) String() string {
	return "wait for the parent: " + o.Name
}

// Kind is "notify".
func (*Notify) Kind() string { return "notify" }

// Man names the manual page.
func (*Notify) Man() string { return "pipe(7)" }

func (o *Notify) String() string {
	return "tell the parent: " + o.Name
}

// Kind is "expect".
func (*Expect) Kind() string { return "expect" }

// Man names the manual page.
func (*Expect) Man() string { return "pipe(7)" }

func (o *Expect) String() string {
	return "wait for the child: " + o.Name
}

// Kind is "mount".
func (*Mount) Kind() string { return "mount" }

// Man names the manual page.
func (*Mount) Man() string { return "mount(2)" }

func (o *Mount) String() string {
	return "mount" + prefix(" ", o.Type) + prefix(" ", o.Source) + " on " + o.Target + paren(append(slices.Clone(o.Flags), nonEmpty(o.Data)...))
}

// Kind is "overlay".
func (*Overlay) Kind() string { return "overlay" }

// Man names the manual page.
func (*Overlay) Man() string { return "mount(2)" }

func (o *Overlay) String() string {
	layers := "layers"
	if len(o.Lower) == 1 {
		layers = "layer"
	}
	return fmt.Sprintf("mount overlay of %d %s on %s", len(o.Lower), layers, o.Target) + when(o.Upper == "", " (read-only)")
}

// Kind is "await-start".
func (*AwaitStart) Kind() string { return "await-start" }

// Man names the manual page.
func (*AwaitStart) Man() string { return "fifo(7)" }

func (o *AwaitStart) String() string {
	return fmt.Sprintf("wait at the FIFO %s in %s until the container is started", o.File, o.Dir)
}

// Kind is "hook".
func (*Hook) Kind() string { return "hook" }

// Man names the manual page.
func (*Hook) Man() string { return "execve(2)" }

func (o *Hook) String() string {
	return fmt.Sprintf("run the %s hook %s%s%s", o.Name, o.Path, when(o.Dir != "", " in "+o.Dir), when(o.Enter, ", in the container's namespaces"))
}

// Kind is "root-dir".
func (*RootDir) Kind() string { return "root-dir" }

// Man names the manual page.
func (*RootDir) Man() string { return "chdir(2)" }

func (o *RootDir) String() string { return "work in " + o.Path + ", the root to be" }

// Kind is "link-up".
func (*LinkUp) Kind() string { return "link-up" }

// Man names the manual page.
func (*LinkUp) Man() string { return "netdevice(7)" }

func (o *LinkUp) String() string { return "set " + o.Link + " up" }

// Kind is "root-mount".
func (*RootMount) Kind() string { return "root-mount" }

// Man names the manual page.
func (*RootMount) Man() string { return "open_tree(2)" }

func (o *RootMount) String() string {
	return "mount " + o.Source + " on " + o.Target + " of the host (private)"
}

// Undo is one unmount.
func (o *RootMount) Undo() []Op { return []Op{&RootUnmount{Target: o.Target}} }

// Kind is "root-unmount".
func (*RootUnmount) Kind() string { return "root-unmount" }

// Man names the manual page.
func (*RootUnmount) Man() string { return "umount(2)" }

func (o *RootUnmount) String() string { return "unmount " + o.Target + " and what is below" }

// Kind is "chroot".
func (*Chroot) Kind() string { return "chroot" }

// Man names the manual page.
func (*Chroot) Man() string { return "chroot(2)" }

func (o *Chroot) String() string { return "make " + o.Root + " the root of the process alone" }

// Kind is "pivot_root".
func (*PivotRoot) Kind() string { return "pivot_root" }

// Man names the manual page.
func (*PivotRoot) Man() string { return "pivot_root(2)" }

func (o *PivotRoot) String() string {
	return "make " + o.Root + " the root, detach the old root"
}

// Kind is "move-root".
func (*MoveRoot) Kind() string { return "move-root" }

// Man names the manual page.
func (*MoveRoot) Man() string { return "mount(2)" }

func (o *MoveRoot) String() string {
	return "move " + o.Root + " over the root, leave the old root beneath"
}

// Kind is "fsmount".
func (*FSMount) Kind() string { return "fsmount" }

// Man names the manual page.
func (*FSMount) Man() string { return "fsmount(2)" }

func (o *FSMount) String() string {
	return "mount " + o.Type + prefix(" on ", o.Target) + when(o.Target == "", " detached as "+o.Save) + paren(slices.Concat(o.Attrs, o.Options, o.Flags, o.Propagation))
}

// Kind is "move_mount".
func (*MoveMount) Kind() string { return "move_mount" }

// Man names the manual page.
func (*MoveMount) Man() string { return "move_mount(2)" }

func (o *MoveMount) String() string {
	return "attach " + o.From + " to " + o.Target + paren(slices.Concat(o.Set, recursive(o.RecSet), o.Propagation, negated(o.Clear), negated(recursive(o.RecClear))))
}

// Kind is "mount_setattr".
func (*Remount) Kind() string { return "mount_setattr" }

// Man names the manual page.
func (*Remount) Man() string { return "mount_setattr(2)" }

func (o *Remount) String() string {
	return "change the mount at " + o.Target + paren(slices.Concat(o.Set, recursive(o.RecSet), o.Options, o.Propagation, negated(o.Clear), negated(recursive(o.RecClear))))
}

// Kind is "mask-path".
func (*MaskPath) Kind() string { return "mask-path" }

// Man names the manual page.
func (*MaskPath) Man() string { return "move_mount(2)" }

func (o *MaskPath) String() string {
	if o.Label != "" {
		return "hide " + o.Path + ", as " + o.Label
	}
	return "hide " + o.Path
}

// Kind is "readonly-path".
func (*ReadonlyPath) Kind() string { return "readonly-path" }

// Man names the manual page.
func (*ReadonlyPath) Man() string { return "mount_setattr(2)" }

func (o *ReadonlyPath) String() string {
	return "make " + o.Path + " read-only"
}

// Kind is "mkdir".
func (*Mkdir) Kind() string { return "mkdir" }

// Man names the manual page.
func (*Mkdir) Man() string { return "mkdir(2)" }

func (o *Mkdir) String() string {
	return fmt.Sprintf("make directory %s, mode %04o", o.Path, o.Mode)
}

// Kind is "mknod".
func (*Mknod) Kind() string { return "mknod" }

// Man names the manual page.
func (*Mknod) Man() string { return "mknod(2)" }

func (o *Mknod) String() string {
	if o.Existing == "required" {
		return fmt.Sprintf("make sure that %s is device %s %d:%d", o.Path, o.Type, o.Major, o.Minor)
	}
	return fmt.Sprintf("make device %s, %s %d:%d, mode %04o", o.Path, o.Type, o.Major, o.Minor, o.Mode) + when(o.Existing == "same", ", unless it exists")
}

// Kind is "symlink".
func (*Symlink) Kind() string { return "symlink" }

// Man names the manual page.
func (*Symlink) Man() string { return "symlink(2)" }

func (o *Symlink) String() string {
	return "link " + o.Path + " -> " + o.Target
}

// Kind is "sethostname".
func (*Sethostname) Kind() string { return "sethostname" }

// Man names the manual page.
func (*Sethostname) Man() string { return "sethostname(2)" }

func (o *Sethostname) String() string {
	return "set the host name to " + o.Name
}

// Kind is "setdomainname".
func (*Setdomainname) Kind() string { return "setdomainname" }

// Man names the manual page.
func (*Setdomainname) Man() string { return "setdomainname(2)" }

func (o *Setdomainname) String() string {
	return "set the domain name to " + o.Name
}

// Kind is "sysctl".
func (*Sysctl) Kind() string { return "sysctl" }

// Man names the manual page.
func (*Sysctl) Man() string { return "proc(5)" }

func (o *Sysctl) String() string {
	return fmt.Sprintf("set sysctl %s to %q", strings.ReplaceAll(o.Key, "/", "."), o.Value)
}

// Kind is "write-proc".
func (*WriteProc) Kind() string { return "write-proc" }

// Man names the manual page.
func (*WriteProc) Man() string { return "proc(5)" }

func (o *WriteProc) String() string {
	return fmt.Sprintf("write %q to /proc/%s/%s", o.Value, when(o.From == "", "CHILD")+when(o.From != "", "self"), o.File)
}

// Kind is "write-file".
func (*WriteFile) Kind() string { return "write-file" }

// Man names the manual page.
func (*WriteFile) Man() string { return "proc(5)" }

func (o *WriteFile) String() string {
	return fmt.Sprintf("write %q to %s", o.Value, o.Path)
}

// Kind is "prlimit".
func (*Rlimit) Kind() string { return "prlimit" }

// Man names the manual page.
func (*Rlimit) Man() string { return "prlimit(2)" }

func (o *Rlimit) String() string {
	return fmt.Sprintf("set %s to %s, hard %s", o.Type, limit(o.Soft), limit(o.Hard))
}

// Kind is "sched_setattr".
func (*Sched) Kind() string { return "sched_setattr" }

// Man names the manual page.
func (*Sched) Man() string { return "sched_setattr(2)" }

func (o *Sched) String() string {
	s := "schedule by " + o.Policy
	for _, v := range []struct {
		name  string
		value int64
	}{
		{"nice", int64(o.Nice)}, {"priority", int64(o.Priority)}, {"runtime", int64(o.Runtime)}, {"deadline", int64(o.Deadline)}, {"period", int64(o.Period)},
	} {
		if v.value != 0 {
			s += fmt.Sprintf(", %s %d", v.name, v.value)
		}
	}
	return s + paren(o.Flags)
}

// Kind is "ioprio_set".
func (*IOPriority) Kind() string { return "ioprio_set" }

// Man names the manual page.
func (*IOPriority) Man() string { return "ioprio_set(2)" }

func (o *IOPriority) String() string {
	return fmt.Sprintf("access disks in class %s, priority %d", o.Class, o.Priority)
}

// Kind is "sched_setaffinity".
func (*Affinity) Kind() string { return "sched_setaffinity" }

// Man names the manual page.
func (*Affinity) Man() string { return "sched_setaffinity(2)" }

func (o *Affinity) String() string {
	return "run on processors " + o.CPUs
}

// Kind is "set_mempolicy".
func (*MemPolicy) Kind() string { return "set_mempolicy" }

// Man names the manual page.
func (*MemPolicy) Man() string { return "set_mempolicy(2)" }

func (o *MemPolicy) String() string {
	return "take memory by " + o.Mode + prefix(" from nodes ", o.Nodes) + paren(o.Flags)
}

// Kind is "personality".
func (*Personality) Kind() string { return "personality" }

// Man names the manual page.
func (*Personality) Man() string { return "personality(2)" }

func (o *Personality) String() string {
	return "set the execution domain to " + o.Domain
}

// Kind is "umask".
func (*Umask) Kind() string { return "umask" }

// Man names the manual page.
func (*Umask) Man() string { return "umask(2)" }

func (o *Umask) String() string {
	return fmt.Sprintf("set umask %04o", o.Mask)
}

// Kind is "keyctl".
func (*Keyring) Kind() string { return "keyctl" }

// Man names the manual page.
func (*Keyring) Man() string { return "keyctl(2)" }

func (o *Keyring) String() string {
	return "join a new session keyring " + o.Name
}

// Kind is "open-console".
func (*OpenConsole) Kind() string { return "open-console" }

// Man names the manual page.
func (*OpenConsole) Man() string { return "pts(4)" }

func (o *OpenConsole) String() string {
	return fmt.Sprintf("open a terminal in /dev/pts, %d×%d", o.Rows, o.Cols)
}

// Kind is "bind-console".
func (*BindConsole) Kind() string { return "bind-console" }

// Man names the manual page.
func (*BindConsole) Man() string { return "move_mount(2)" }

func (*BindConsole) String() string {
	return "mount the terminal on /dev/console"
}

// Kind is "send-fd".
func (*SendFD) Kind() string { return "send-fd" }

// Man names the manual page.
func (*SendFD) Man() string { return "unix(7)" }

func (o *SendFD) String() string {
	return "send descriptor " + o.From + " to the parent"
}

// Kind is "send-listener".
func (*SendListener) Kind() string { return "send-listener" }

// Man names the manual page.
func (*SendListener) Man() string { return "seccomp_unotify(2)" }

func (o *SendListener) String() string {
	return "hand the filter's listener " + o.From + " to the agent at " + o.Path
}

// Kind is "copy-up".
func (*CopyUp) Kind() string { return "copy-up" }

// Man names the manual page.
func (*CopyUp) Man() string { return "tmpfs(5)" }

func (o *CopyUp) String() string {
	if o.UID != 0 || o.GID != 0 {
		return fmt.Sprintf("copy what is in %s into %s, made by %d:%d", o.From, o.To, o.UID, o.GID)
	}
	return "copy what is in " + o.From + " into " + o.To
}

// Kind is "open-dir".
func (*OpenDir) Kind() string { return "open-dir" }

// Man names the manual page.
func (*OpenDir) Man() string { return "openat2(2)" }

func (o *OpenDir) String() string {
	return fmt.Sprintf("open %s, or else %s, as %s", o.Path, o.Else, o.Save)
}

// Kind is "recv-fd".
func (*RecvFD) Kind() string { return "recv-fd" }

// Man names the manual page.
func (*RecvFD) Man() string { return "unix(7)" }

func (o *RecvFD) String() string {
	return "receive descriptor " + o.Save
}

// Kind is "dup3".
func (*Stdio) Kind() string { return "dup3" }

// Man names the manual page.
func (*Stdio) Man() string { return "dup(2)" }

func (o *Stdio) String() string {
	return fmt.Sprintf("make %s descriptor %d", o.From, o.To)
}

// Kind is "setsid".
func (*Setsid) Kind() string { return "setsid" }

// Man names the manual page.
func (*Setsid) Man() string { return "setsid(2)" }

func (o *Setsid) String() string {
	return "start a new session" + when(o.Controlling, " with the terminal as its controlling terminal")
}

// Kind is "pdeathsig".
func (*ParentDeath) Kind() string { return "pdeathsig" }

// Man names the manual page.
func (*ParentDeath) Man() string { return "PR_SET_PDEATHSIG(2const)" }

func (o *ParentDeath) String() string {
	return fmt.Sprintf("die with signal %d when the supervisor dies", o.Signal)
}

// Kind is "dumpable".
func (*Dumpable) Kind() string { return "dumpable" }

// Man names the manual page.
func (*Dumpable) Man() string { return "PR_SET_DUMPABLE(2const)" }

func (o *Dumpable) String() string {
	return fmt.Sprintf("set dumpable to %d", o.Value)
}

// Kind is "no-new-privs".
func (*NoNewPrivs) Kind() string { return "no-new-privs" }

// Man names the manual page.
func (*NoNewPrivs) Man() string { return "PR_SET_NO_NEW_PRIVS(2const)" }

func (*NoNewPrivs) String() string {
	return "allow no new privileges"
}

// Kind is "seccomp".
func (*Seccomp) Kind() string { return "seccomp" }

// Man names the manual page.
func (*Seccomp) Man() string { return "seccomp(2)" }

func (o *Seccomp) String() string {
	return fmt.Sprintf("install the system call filter %s, %d instructions", o.Name, len(o.Program)/8)
}

// Kind is "drop-bounding".
func (*DropBounding) Kind() string { return "drop-bounding" }

// Man names the manual page.
func (*DropBounding) Man() string { return "capabilities(7)" }

func (o *DropBounding) String() string {
	return fmt.Sprintf("drop %d capabilities from the bounding set", len(o.Caps))
}

// Kind is "keepcaps".
func (*KeepCaps) Kind() string { return "keepcaps" }

// Man names the manual page.
func (*KeepCaps) Man() string { return "PR_SET_KEEPCAPS(2const)" }

func (*KeepCaps) String() string {
	return "keep capabilities over the change of user"
}

// Kind is "setgroups".
func (*Setgroups) Kind() string { return "setgroups" }

// Man names the manual page.
func (*Setgroups) Man() string { return "setgroups(2)" }

func (o *Setgroups) String() string {
	return fmt.Sprintf("set supplementary groups %v%s", o.Groups, when(o.IfAllowed, " unless denied"))
}

// Kind is "setresgid".
func (*Setresgid) Kind() string { return "setresgid" }

// Man names the manual page.
func (*Setresgid) Man() string { return "setresgid(2)" }

func (o *Setresgid) String() string {
	return fmt.Sprintf("become group %d", o.GID)
}

// Kind is "setresuid".
func (*Setresuid) Kind() string { return "setresuid" }

// Man names the manual page.
func (*Setresuid) Man() string { return "setresuid(2)" }

func (o *Setresuid) String() string {
	return fmt.Sprintf("become user %d", o.UID)
}

// Kind is "capset".
func (*Capset) Kind() string { return "capset" }

// Man names the manual page.
func (*Capset) Man() string { return "capset(2)" }

func (o *Capset) String() string {
	return fmt.Sprintf("set capabilities: %d effective, %d permitted, %d inheritable", len(o.Effective), len(o.Permitted), len(o.Inheritable))
}

// Kind is "ambient-caps".
func (*AmbientCaps) Kind() string { return "ambient-caps" }

// Man names the manual page.
func (*AmbientCaps) Man() string { return "capabilities(7)" }

func (o *AmbientCaps) String() string {
	return "raise ambient capabilities " + list(o.Caps)
}

// Kind is "chdir".
func (*Chdir) Kind() string { return "chdir" }

// Man names the manual page.
func (*Chdir) Man() string { return "chdir(2)" }

func (o *Chdir) String() string {
	return "enter " + o.Path + when(o.Try, " if root may")
}

// Kind is "inherit-fds".
func (*InheritFDs) Kind() string { return "inherit-fds" }

// Man names the manual page.
func (*InheritFDs) Man() string { return "F_GETFD(2const)" }

func (o *InheritFDs) String() string {
	return fmt.Sprintf("make sure that descriptors 3 to %d are the caller's", o.Count+2)
}

// Kind is "find-program".
func (*FindProgram) Kind() string { return "find-program" }

// Man names the manual page.
func (*FindProgram) Man() string { return "faccessat2(2)" }

func (o *FindProgram) String() string {
	return "make sure that " + o.Name + " can be run"
}

// Kind is "close_range".
func (*CloseRange) Kind() string { return "close_range" }

// Man names the manual page.
func (*CloseRange) Man() string { return "close_range(2)" }

func (o *CloseRange) String() string {
	return fmt.Sprintf("close all descriptors from %d on", o.First)
}

// Kind is "execve".
func (*Execve) Kind() string { return "execve" }

// Man names the manual page.
func (*Execve) Man() string { return "execve(2)" }

func (o *Execve) String() string {
	return "run " + command(o.Argv)
}

// Kind is "link-bridge".
func (*LinkBridge) Kind() string { return "link-bridge" }

// Man names the manual page.
func (*LinkBridge) Man() string { return "rtnetlink(7)" }

func (o *LinkBridge) String() string {
	return fmt.Sprintf("make bridge %s with %s unless it exists", o.Name, o.Address)
}

// Kind is "link-veth".
func (*LinkVeth) Kind() string { return "link-veth" }

// Man names the manual page.
func (*LinkVeth) Man() string { return "veth(4)" }

func (o *LinkVeth) String() string {
	return fmt.Sprintf("make veth pair %s (on %s) and %s (in the container)", o.Name, o.Bridge, o.Peer)
}

// Kind is "link-move".
func (*LinkMove) Kind() string { return "link-move" }

// Man names the manual page.
func (*LinkMove) Man() string { return "network_namespaces(7)" }

func (o *LinkMove) String() string {
	return "move link " + o.Name + " into the container" + prefix(" as ", o.As)
}

// Kind is "link-delete".
func (*LinkDelete) Kind() string { return "link-delete" }

// Man names the manual page.
func (*LinkDelete) Man() string { return "rtnetlink(7)" }

func (o *LinkDelete) String() string {
	return "remove link " + o.Name
}

// Kind is "link-address".
func (*LinkAddress) Kind() string { return "link-address" }

// Man names the manual page.
func (*LinkAddress) Man() string { return "rtnetlink(7)" }

func (o *LinkAddress) String() string {
	return "set " + o.Link + " up" + prefix(" with address ", o.Address)
}

// Kind is "route-default".
func (*RouteDefault) Kind() string { return "route-default" }

// Man names the manual page.
func (*RouteDefault) Man() string { return "rtnetlink(7)" }

func (o *RouteDefault) String() string {
	return "add default route via " + o.Via
}

// Kind is "nft-bridge".
func (*NftBridge) Kind() string { return "nft-bridge" }

// Man names the manual page.
func (*NftBridge) Man() string { return "nft(8)" }

func (o *NftBridge) String() string {
	return fmt.Sprintf("make table %s: masquerade %s, forward for %s", o.Table, o.Subnet, o.Bridge)
}

// Kind is "nft-publish".
func (*NftPublish) Kind() string { return "nft-publish" }

// Man names the manual page.
func (*NftPublish) Man() string { return "nft(8)" }

func (o *NftPublish) String() string {
	return "publish " + ports(o.Ports)
}

// Kind is "nft-unpublish".
func (*NftUnpublish) Kind() string { return "nft-unpublish" }

// Man names the manual page.
func (*NftUnpublish) Man() string { return "nft(8)" }

func (o *NftUnpublish) String() string {
	return "unpublish " + ports(o.Ports)
}

// Undo removes the cgroup.
func (o *CgroupCreate) Undo() []Op { return []Op{&CgroupRemove{Path: o.Path}} }

// Undo removes the class.
func (o *ResctrlCreate) Undo() []Op { return []Op{&ResctrlRemove{Path: o.Path, Shared: o.Shared}} }

// Undo stops the unit.
func (o *SystemdScope) Undo() []Op { return []Op{&SystemdStop{Unit: o.Unit, User: o.User}} }

// Undo removes the pair, wherever its peer is.
func (o *LinkVeth) Undo() []Op { return []Op{&LinkDelete{Name: o.Name}} }

// Undo takes the ports out of the maps.
func (o *NftPublish) Undo() []Op { return []Op{&NftUnpublish{Table: o.Table, Ports: o.Ports}} }

func manager(user bool) string {
	if user {
		return "the user's systemd"
	}
	return "systemd"
}

func properties(ps []SystemdProperty) string {
	out := make([]string, len(ps))
	for i, p := range ps {
		out[i] = p.Name + "=" + strings.Join(p.Value, " ")
	}
	return prefix(": ", strings.Join(out, ", "))
}

func when(ok bool, s string) string {
	if ok {
		return s
	}
	return ""
}

func prefix(p, s string) string { return when(s != "", p+s) }

func paren(words []string) string {
	return when(len(words) > 0, " ("+list(words)+")")
}

func nonEmpty(s string) []string {
	if s == "" {
		return nil
	}
	return []string{s}
}

func negated(words []string) []string {
	out := make([]string, len(words))
	for i, w := range words {
		out[i] = "not " + w
	}
	return out
}

func recursive(words []string) []string {
	out := make([]string, len(words))
	for i, w := range words {
		out[i] = "r" + w
	}
	return out
}

func ranges(rs []IDRange) string {
	out := make([]string, len(rs))
	for i, r := range rs {
		out[i] = fmt.Sprintf("%d→%d×%d", r.Container, r.Host, r.Size)
	}
	return list(out)
}

func limit(n uint64) string {
	if n == ^uint64(0) {
		return "unlimited"
	}
	return fmt.Sprint(n)
}

func command(argv []string) string {
	out := make([]string, len(argv))
	for i, a := range argv {
		if a == "" || strings.ContainsAny(a, " \t\n'\"\\$`*?;&|<>(){}") {
			a = "'" + strings.ReplaceAll(a, "'", `'\''`) + "'"
		}
		out[i] = a
	}
	return strings.Join(out, " ")
}

func ports(rs []PortRule) string {
	out := make([]string, len(rs))
	for i, r := range rs {
		ip := r.HostIP
		if ip == "" {
			ip = "*"
		}
		out[i] = fmt.Sprintf("%s:%d/%s to %s:%d", ip, r.HostPort, r.Proto, r.ContainerIP, r.ContainerPort)
	}
	return strings.Join(out, ", ")
}
