package fork

import (
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"glassbox/host"
	"glassbox/plan"
)

// openTree clones a mount of the host (open_tree(2)). users is the user namespace of o.IDMap.
func openTree(o *plan.OpenTree, users int) (int, error) {
	if o.Device != "" {
		if err := checkDevice(o); err != nil {
			return -1, err
		}
	}
	flags := uint(unix.OPEN_TREE_CLONE | unix.OPEN_TREE_CLOEXEC)
	if o.Recursive {
		flags |= unix.AT_RECURSIVE
	}
	if o.Beneath != "" {
		return openBeneath(o, flags, users)
	}
	if o.NoLinks || o.Mounts != "" { // in the mount namespace of another container it decides what names stand for
		return openStraight(o, flags, users)
	}
	fd, err := unix.OpenTree(unix.AT_FDCWD, o.Path, flags)
	if err == unix.ENOENT && o.MakeDir {
		if err := os.MkdirAll(o.Path, 0o755); err != nil {
			return -1, err
		}
		fd, err = unix.OpenTree(unix.AT_FDCWD, o.Path, flags)
	}
	if err != nil {
		return -1, &os.PathError{Op: "open_tree", Path: o.Path, Err: err}
	}
	return finishTree(o, fd, users)
}

// openStraight clones what is at a path without symbolic links: who may rename a directory on the way could lead it anywhere with one.
func openStraight(o *plan.OpenTree, flags uint, users int) (int, error) {
	how := unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS}
	at, err := unix.Openat2(unix.AT_FDCWD, o.Path, &how)
	if err != nil {
		return -1, &os.PathError{Op: "openat2", Path: o.Path, Err: err}
	}
	defer unix.Close(at)
	fd, err := unix.OpenTree(at, "", flags|unix.AT_EMPTY_PATH)
	if err != nil {
		return -1, &os.PathError{Op: "open_tree", Path: o.Path, Err: err}
	}
	return finishTree(o, fd, users)
}

// openBeneath clones what lies beneath a directory that containers write to. They can put a link in any component's place at any time: the
// kernel refuses one that leads out (EXDEV), and what it has found is cloned by its descriptor, not by its name once more (the sub-path
// faults of other engines, CVE-2021-25741 and CVE-2017-1002101).
func openBeneath(o *plan.OpenTree, flags uint, users int) (int, error) {
	fail := func(err error) (int, error) {
		switch err {
		case unix.EXDEV:
			err = fmt.Errorf("it leads out of the volume")
		case unix.ENOENT:
			err = fmt.Errorf("cannot access path: %w", err)
		}
		return -1, fmt.Errorf("subpath %q of %s: %w", o.Beneath, o.Path, err)
	}
	dir, err := unix.Open(o.Path, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fail(err)
	}
	defer unix.Close(dir)
	how := unix.OpenHow{
		Flags:   unix.O_PATH | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_MAGICLINKS,
	}
	at, err := unix.Openat2(dir, o.Beneath, &how)
	for n := 0; n < 1000 && (err == unix.EAGAIN || err == unix.EINTR); n++ { // something was renamed meanwhile (openat2(2))
		at, err = unix.Openat2(dir, o.Beneath, &how)
	}
	if err != nil {
		return fail(err)
	}
	defer unix.Close(at)
	fd, err := unix.OpenTree(at, "", flags|unix.AT_EMPTY_PATH)
	if err != nil {
		return fail(err)
	}
	return finishTree(o, fd, users)
}

// finishTree checks and changes a clone as the step says. It closes it on an error.
func finishTree(o *plan.OpenTree, fd, users int) (int, error) {
	var err error
	if o.FSType == "proc" {
		const rootInode = 1 // PROC_ROOT_INO
		var fs unix.Statfs_t
		var st unix.Stat_t
		if err = unix.Fstatfs(fd, &fs); err == nil {
			err = unix.Fstat(fd, &st)
		}
		if err == nil && (fs.Type != unix.PROC_SUPER_MAGIC || st.Ino != rootInode) {
			err = fmt.Errorf("%s is not the root of a procfs: other mounts over /proc are refused, because what reads the kernel's files there "+
				"would be deceived", o.Path)
		}
		if err != nil {
			unix.Close(fd)
			return -1, err
		}
	}
	// While it is detached: there is no moment in which somebody sees it writable.
	if o.Readonly {
		if err := unix.MountSetattr(fd, "", unix.AT_EMPTY_PATH, &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY}); err != nil {
			unix.Close(fd)
			return -1, err
		}
	}
	if o.IDMap != "" {
		flags := uint(unix.AT_EMPTY_PATH)
		if o.IDMapRecursive {
			flags |= unix.AT_RECURSIVE
		}
		err := unix.MountSetattr(fd, "", flags, &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_IDMAP, Userns_fd: uint64(users)})
		if err != nil {
			unix.Close(fd)
			switch err {
			case unix.EINVAL:
				err = fmt.Errorf("the file system of %s, or one mounted below, can't have mounts with ids of their own with this kernel: %w", o.Path,
					err)
			case unix.EPERM:
				err = fmt.Errorf("the file system of %s belongs to another user namespace, or has mounts with ids of their own already: %w", o.Path,
					err)
			}
			return -1, err
		}
	}
	return fd, nil
}

// checkDevice makes sure that a path of the host is the device that the plan means, and not a symbolic link.
func checkDevice(o *plan.OpenTree) error {
	var st unix.Stat_t
	if err := unix.Lstat(o.Path, &st); err != nil {
		return &os.PathError{Op: "stat", Path: o.Path, Err: err}
	}
	kind := map[uint32]string{unix.S_IFCHR: "c", unix.S_IFBLK: "b"}[st.Mode&unix.S_IFMT]
	if got := fmt.Sprintf("%s %d:%d", kind, unix.Major(uint64(st.Rdev)), unix.Minor(uint64(st.Rdev))); got != o.Device {
		if kind == "" {
			got = "none"
		}
		return fmt.Errorf("%s of the host should be device %s, it is %s", o.Path, o.Device, got)
	}
	return nil
}

// rootMount mounts a root file system in the host's mount namespace. Where the directory lies on a shared mount, as mostly, a mount on
// it appears in all mount namespaces that share it, and there it stays if it has others below. So the directory is first mounted on
// itself, alone, and that is made private: it spreads, and goes everywhere when it is unmounted. What is on it spreads no more.
func rootMount(o *plan.RootMount) error {
	if err := unix.Mkdir(o.Target, 0o700); err != nil && err != unix.EEXIST {
		return &os.PathError{Op: "mkdir", Path: o.Target, Err: err}
	}
	attach := func(source string, recursive bool) error {
		fd, err := openTree(&plan.OpenTree{Path: source, Recursive: recursive}, -1)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		if err := unix.MoveMount(fd, "", unix.AT_FDCWD, o.Target, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
			return &os.PathError{Op: "move_mount", Path: o.Target, Err: err}
		}
		return unix.MountSetattr(fd, "", unix.AT_EMPTY_PATH|unix.AT_RECURSIVE, &unix.MountAttr{Propagation: unix.MS_PRIVATE})
	}
	if err := attach(o.Target, false); err != nil {
		return err
	}
	return attach(o.Source, true)
}

// rootUnmount takes that back. The directory is removed alone and never with what is in it: that would be the root file system.
func rootUnmount(o *plan.RootUnmount) error {
	for {
		switch err := unix.Unmount(o.Target, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); err {
		case nil:
			continue // there is another one below
		case unix.EINVAL, unix.ENOENT: // no mount, nothing there
		default:
			return &os.PathError{Op: "unmount", Path: o.Target, Err: err}
		}
		if err := unix.Rmdir(o.Target); err != nil && err != unix.ENOENT {
			return &os.PathError{Op: "rmdir", Path: o.Target, Err: err}
		}
		return nil
	}
}

func open(o *plan.Open) (int, error) {
	flags := unix.O_RDONLY | unix.O_CLOEXEC
	if o.Namespace != "" {
		flags |= unix.O_NONBLOCK // a FIFO in its place must not block
	}
	for _, f := range o.Flags {
		switch f {
		case "path":
			flags |= unix.O_PATH
		case "directory":
			flags |= unix.O_DIRECTORY
		case "write":
			flags |= unix.O_WRONLY
		case "nofollow":
			flags |= unix.O_NOFOLLOW
		default:
			return -1, fmt.Errorf("unknown open flag %q", f)
		}
	}
	fd, err := unix.Open(o.Path, flags, 0)
	if err != nil {
		return -1, &os.PathError{Op: "open", Path: o.Path, Err: err}
	}
	if o.Other != "" {
		var own, other unix.Stat_t
		if err = unix.Stat("/proc/thread-self/ns/"+o.Other, &own); err == nil {
			err = unix.Fstat(fd, &other)
		}
		if err == nil && own.Dev == other.Dev && own.Ino == other.Ino {
			err = fmt.Errorf("%s is this host's own %s namespace: a sysctl of the container would change the host", o.Path, o.Other)
		}
		if err != nil {
			unix.Close(fd)
			return -1, err
		}
	}
	if o.Namespace != "" {
		if err := checkNamespace(fd, o); err != nil {
			unix.Close(fd)
			return -1, err
		}
	}
	return fd, nil
}

// checkNamespace makes sure that a descriptor stands for a namespace of the kind that the plan means (ioctl_ns(2)).
func checkNamespace(fd int, o *plan.Open) error {
	want, err := namespaces([]string{o.Namespace})
	if err != nil {
		return err
	}
	var fs unix.Statfs_t
	if err := unix.Fstatfs(fd, &fs); err != nil {
		return err
	}
	got := 0
	if fs.Type == unix.NSFS_MAGIC {
		if got, err = unix.IoctlRetInt(fd, unix.NS_GET_NSTYPE); err != nil {
			return fmt.Errorf("%s: NS_GET_NSTYPE: %w", o.Path, err)
		}
	}
	if uint64(got) == want {
		return nil
	}
	for name, flag := range nsFlags {
		if uint64(got) == flag {
			return fmt.Errorf("%s is a %s namespace, not a %s namespace", o.Path, name, o.Namespace)
		}
	}
	return fmt.Errorf("%s is no namespace", o.Path)
}

// openPid opens a pidfd of the process that has this pid since the given start time.
func openPid(o *plan.OpenPid) (int, error) {
	fd, err := unix.PidfdOpen(o.Pid, 0)
	if err != nil {
		return -1, err
	}
	// The pidfd is fixed to a process now; if that process started when the plan says, it is the one that was meant.
	start, err := StartTime(o.Pid)
	if err == nil && start != o.Start {
		err = unix.ESRCH
	}
	if err != nil {
		unix.Close(fd)
		return -1, fmt.Errorf("process %d: %w", o.Pid, err)
	}
	return fd, nil
}

// StartTime returns when a process started, in clock ticks after boot (proc(5), /proc/pid/stat field 22). With the pid it
// names a process uniquely until the next boot.
func StartTime(pid int) (uint64, error) {
	s, err := ReadStat(pid)
	return s.Start, err
}

// ReadStat reads what the kernel says of a process: ESRCH if there is none. It does without Go's poller, which would take as long as
// all else here.
func ReadStat(pid int) (host.Stat, error) {
	path := "/proc/" + strconv.Itoa(pid) + "/stat"
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err == unix.ENOENT {
		return host.Stat{}, unix.ESRCH
	}
	if err != nil {
		return host.Stat{}, &os.PathError{Op: "open", Path: path, Err: err}
	}
	defer unix.Close(fd)
	data := make([]byte, 1024) // 52 numbers and a name of at most 64 bytes
	n, err := unix.Read(fd, data)
	if err != nil {
		return host.Stat{}, err
	}
	s, ok := host.ParseStat(string(data[:n]))
	if !ok {
		return host.Stat{}, fmt.Errorf("%s: damaged", path)
	}
	return s, nil
}

func idRanges(rs []plan.IDRange) string {
	var b strings.Builder
	for _, r := range rs {
		fmt.Fprintf(&b, "%d %d %d\n", r.Container, r.Host, r.Size)
	}
	return b.String()
}

// writeFile writes a kernel setting with one write(2).
func writeFile(o *plan.WriteFile) error {
	f, err := os.OpenFile(o.Path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = f.WriteString(o.Value)
	return err
}

// affinity restricts the thread that clones to some processors, from which the child has them.
func (x *execution) affinity(o *plan.Affinity) error {
	words, err := plan.ParseList(o.CPUs)
	if err != nil {
		return err
	}
	var old, set unix.CPUSet
	for n := range 64 * len(words) {
		if words[n/64]>>(n%64)&1 != 0 {
			set.Set(n)
			// unix.CPUSet has room for 1024 and drops a larger number without a word.
			if !set.IsSet(n) {
				return fmt.Errorf("processor %d: too many", n)
			}
		}
	}
	if err := unix.SchedGetaffinity(0, &old); err != nil {
		return err
	}
	// Given back when the child has been made and has inherited it: this process isn't the container.
	x.processors = &old
	return unix.SchedSetaffinity(0, &set)
}

// OpenTree makes the step for whoever is no plan: a detached clone of a mount of the host. Mounts with ids of their own aren't made.
func OpenTree(o *plan.OpenTree) (int, error) { return openTree(o, -1) }
