package fork

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"glassbox/plan"
)

// StepError says which step of a plan failed, and why.
type StepError struct {
	Index  int // of the step in the plan, from 0
	Total  int
	Step   plan.Step
	Err    error  // usually a unix.Errno, or an error that wraps one
	Detail string // what else was found out, such as a missing loader
	Code   int    // exit code that engines use for it: 125, or 126 and 127 for the program itself
}

// Error has the form "step 17/41 [child] mount proc on /proc (from /mounts/0): operation not permitted", and a second line
// with a hint where there is one.
func (e *StepError) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "step %d/%d [%s] %s", e.Index+1, e.Total, e.Step.Lane, e.Step.Op)
	if e.Step.Origin != "" && e.Step.Origin != "default" {
		fmt.Fprintf(&b, " (from %s)", e.Step.Origin)
	}
	fmt.Fprintf(&b, ": %v", e.Err)
	if e.Detail != "" {
		fmt.Fprintf(&b, ": %s", e.Detail)
	}
	if h := e.hint(); h != "" {
		fmt.Fprintf(&b, "\nhint: %s", h)
	}
	return b.String()
}

// Unwrap returns the cause.
func (e *StepError) Unwrap() error { return e.Err }

func (x *execution) stepError(i int, err error) *StepError {
	e := &StepError{Index: i, Total: len(x.plan.Steps), Err: err, Code: 125}
	if i >= 0 && i < len(x.plan.Steps) {
		e.Step = x.plan.Steps[i]
	}
	return e
}

// hint is the one table of advice on failed steps: by kind of step and errno; the first line that fits is given.
func (e *StepError) hint() string {
	var errno unix.Errno
	if !errors.As(e.Err, &errno) || e.Step.Op == nil || e.Detail != "" {
		return ""
	}
	kind := e.Step.Op.Kind()
	if m, ok := e.Step.Op.(*plan.FSMount); ok && errno == unix.EINVAL &&
		(m.Label != "" || slices.ContainsFunc(m.Options, func(o string) bool { return strings.HasPrefix(o, "context=") })) {
		return "SELinux's policy may have no such label: it is /linux/mountLabel"
	}
	for _, h := range []struct {
		kind  string
		errno unix.Errno
		text  string
	}{
		{"clone3", unix.EPERM, "new namespaces need root (CAP_SYS_ADMIN); inside another container, that container must be privileged"},
		{"clone3", unix.ENOSPC, "the limit on namespaces is reached: see /proc/sys/user/max_*_namespaces"},
		{"clone3", unix.EAGAIN, "the limit on processes is reached: see pids.max of the cgroup and ulimit -u"},
		{"clone3", unix.EINVAL, "this kernel lacks one of the namespaces or CLONE_INTO_CGROUP (Linux 5.7)"},
		{"cgroup-create", unix.EROFS, "the cgroup file system is read-only here: glassbox runs in a container that may not make cgroups"},
		{"cgroup-create", unix.EACCES, "this user may not make cgroups there: run as root, or have the cgroup delegated"},
		{"overlay", unix.EINVAL, "overlay refuses an upper directory that lies on another overlay or on a file system without xattrs: move " +
			"--root to an ordinary disk or a tmpfs"},
		{"overlay", unix.ENODEV, "this kernel has no overlay file system: modprobe overlay"},
		{"open_tree", unix.ENOENT, "the source of a bind mount must exist; with -v NAME an absolute path is needed"},
		{"open_tree", unix.EACCES, "a directory on the way can't be entered by this user, or, with a user namespace, by whoever starts the " +
			"container without root's power over other users' files: chmod o+x it"},
		{"open_tree", unix.EINVAL, "in a user namespace a mount can't be taken without those on it: use rbind instead of bind"},
		{"mount", unix.EACCES, "a directory above the root file system can't be entered by this user: chmod o+x it"},
		{"fsmount", unix.EPERM, "in a user namespace: the namespace that it shows must belong to it (a PID namespace for proc, a network " +
			"namespace for sysfs, IPC for mqueue), and the host's proc and sysfs must be visible as a whole, as they aren't in most containers"},
		{
			"move_mount", unix.EACCES,
			"the target doesn't exist and can't be made: do the files of the root file system belong to ids that are mapped in the container?",
		},
		{"move_mount", unix.EOVERFLOW, "the target doesn't exist and can't be made: the file system can't store the id of the container's root"},
		{
			"mount_setattr", unix.EPERM,
			"in a user namespace read-only, nosuid, nodev, noexec and access times of the host's mounts can't be changed, only added",
		},
		{"id-map", unix.EPERM, "the ids must be mapped in the user namespace of glassbox, or be granted by /etc/subuid and /etc/subgid"},
		{
			"setns", unix.EPERM,
			"joining a namespace needs privileges in the user namespace that owns it: list that user namespace with its path, too",
		},
		{"setns", unix.EINVAL, "it is the user namespace that this process is in already"},
		{"time-offsets", unix.ERANGE, "the container's clocks can't begin before 0 or be further ahead than 146 years"},
		{"setresuid", unix.EINVAL, "the user is not mapped in the container's user namespace"},
		{"setresgid", unix.EINVAL, "the group is not mapped in the container's user namespace"},
		{"setgroups", unix.EINVAL, "a group is not mapped in the container's user namespace"},
		{"move_mount", unix.ENOTDIR, "a file can be mounted on a file only, a directory on a directory"},
		{"move_mount", unix.EINVAL, "a file can be mounted on a file only, a directory on a directory"},
		{
			"move_mount", unix.EBUSY,
			"the target leads to the root directory of the container by a symbolic link in the image: a mount there would cover everything",
		},
		{
			"copy-up", unix.EBUSY,
			"the target leads to the root directory of the container by a symbolic link in the image: a mount there would cover everything",
		},
		{
			"fsmount", unix.EBUSY,
			"the target leads to the root directory of the container by a symbolic link in the image: a mount there would cover everything",
		},
		{"mknod", unix.EXDEV, "a symbolic link on the way leads to what is mounted in the container: devices are made in its own /dev and its " +
			"own root file system only"},
		{"move_mount", unix.ELOOP, "the target is a symbolic link that leads to itself"},
		{"fsmount", unix.ELOOP, "the target is a symbolic link in this image, which could lead the mount elsewhere"},
		{"mknod", unix.EEXIST, "the device exists already; is /dev mounted from elsewhere?"},
		{"dup3", unix.ENODEV, "what the container has as /dev/null is no null device (c 1:3), and the host's own isn't given to it: give the " +
			"command a pipe or a file instead"},
		{"dup3", unix.ENOENT, "the container has no /dev/null, and the host's own isn't given to it: give the command a pipe or a file instead"},
		{"prlimit", unix.EPERM, "raising a limit above the hard limit needs CAP_SYS_RESOURCE, which this process lacks: choose a lower --ulimit"},
		{
			"write-proc", unix.EACCES,
			"lowering oom_score_adj needs CAP_SYS_RESOURCE; taking a profile or a label needs the consent of the one that glassbox runs under",
		},
		{"write-proc", unix.ENOENT, "no AppArmor profile of this name is loaded: apparmor_parser --replace FILE loads what a file says"},
		{"write-proc", unix.EINVAL, "SELinux's policy has no such label"},
		{"sysctl", unix.ENOENT, "this kernel has no such setting in the container's namespaces"},
		{"sysctl", unix.EACCES, "this setting is not namespaced: it can be changed on the host only"},
		{"chdir", unix.ENOENT, "the working directory doesn't exist in the container"},
		{"chdir", unix.ENOTDIR, "the working directory is a file"},
		{"chdir", unix.EACCES, "the container's user may not enter the working directory"},
		{"chdir", unix.EXDEV, "the working directory lies outside the container's root: refused (CVE-2024-21626)"},
		{"setgroups", unix.EPERM, "changing groups needs CAP_SETGID"},
		{"seccomp", unix.EINVAL, "the kernel refuses this filter; is one of its flags newer than the kernel?"},
		{"setns", unix.ESRCH, "the container's process has ended"},
		{"pidfd_open", unix.ESRCH, "the container's process has ended"},
	} {
		if h.kind == kind && h.errno == errno {
			return h.text
		}
	}
	return ""
}
