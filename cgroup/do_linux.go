package cgroup

import (
	"errors"
	"fmt"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"glassbox/plan"
	"glassbox/systemd"

	"golang.org/x/sys/unix"
)

// Create makes a cgroup and its missing parents. A cgroup that exists is taken if it has no processes: a caller may have made
// it, but its processes must not come under limits that weren't meant for them. One that is frozen is refused.
//
// Another start or removal may work on the same parents at the same time, so a parent that vanishes is made again.
func Create(op *plan.CgroupCreate) error { return CreateBelow(op, func(string) {}) }

// CreateBelow is Create, and tells each parent that was missing, the highest first, see [RemoveEmpty].
func CreateBelow(op *plan.CgroupCreate, made func(dir string)) error {
	if err := makeGroup(op.Path, 20, made); errors.Is(err, unix.EEXIST) {
		// Something that isn't a cgroup has no such file.
		pids, err := readPids(op.Path)
		if err != nil {
			return fmt.Errorf("create cgroup %s: something else has its name: %w", op.Path, err)
		}
		if len(pids) > 0 {
			return fmt.Errorf("create cgroup %s: it exists and has %d processes: %w", op.Path, len(pids), unix.EEXIST)
		}
	} else if err != nil {
		return fmt.Errorf("create cgroup %s: %w%s", op.Path, err, createHint(err))
	}
	has := func(controller string) bool {
		return len(op.Controllers) == 0 || slices.Contains(op.Controllers, controller)
	}
	// A child that is born into a frozen cgroup, or joins it, never comes back to say so.
	if len(op.Controllers) == 0 {
		if text, err := readFile(op.Path, "cgroup.events"); err == nil && keyed(text)["frozen"] == 1 {
			return fmt.Errorf("create cgroup %s: it is frozen, by itself or by a parent: %w", op.Path, unix.EBUSY)
		}
	}
	if has("freezer") {
		if state, err := readFile(op.Path, "freezer.state"); err == nil && state != "THAWED" {
			return fmt.Errorf("create cgroup %s: it is frozen, by itself or by a parent: %w", op.Path, unix.EBUSY)
		}
	}
	if has("cpuset") {
		return fillCpuset(op.Path)
	}
	return nil
}

func createHint(err error) string {
	switch {
	case errors.Is(err, unix.EROFS):
		return " (the cgroup file system is mounted read-only here)"
	case errors.Is(err, unix.EACCES), errors.Is(err, unix.EPERM):
		return " (this part of the cgroup tree isn't delegated to this user)"
	case errors.Is(err, unix.EAGAIN):
		return " (a parent's cgroup.max.descendants or cgroup.max.depth is reached)"
	}
	return ""
}

// makeGroup makes one cgroup, after its parents where they are missing.
func makeGroup(dir string, tries int, made func(dir string)) error {
	for {
		err := unix.Mkdir(dir, 0o755)
		// The tries bound a race with somebody who removes the parents as fast as they are made.
		if err != unix.ENOENT || tries == 0 {
			return err
		}
		tries--
		parent := path.Dir(dir)
		// A mount point that is missing must not be replaced by a directory of whatever lies below it.
		var fs unix.Statfs_t
		if err := unix.Statfs(path.Dir(parent), &fs); err == nil && fs.Type != unix.CGROUP_SUPER_MAGIC && fs.Type != unix.CGROUP2_SUPER_MAGIC {
			return fmt.Errorf("%s isn't in a cgroup file system: %w", parent, unix.ENOENT)
		}
		if err := makeGroup(parent, tries, made); err == nil {
			made(parent)
		} else if err != unix.EEXIST {
			return err
		}
		// Children of a v1 cpuset with this flag begin with a copy of its processors and nodes.
		err = fillCpuset(parent)
		if file := parent + "/cgroup.clone_children"; err == nil && exists(parent+"/cpuset.cpus") && exists(file) {
			err = writeFile(file, "1")
		}
		if err != nil && !isGone(err) {
			return err
		}
	}
}

// fillCpuset gives a v1 cpuset that has no processors or nodes those of its parent: no process can join it otherwise
// (ENOSPC). On v2 an empty list has the same meaning by itself.
func fillCpuset(dir string) error {
	for _, file := range []string{"cpuset.cpus", "cpuset.mems"} {
		v, err := readFile(dir, file)
		if errors.Is(err, unix.ENOENT) || err == nil && v != "" || err == nil && !exists(dir+"/cgroup.clone_children") {
			if file == "cpuset.cpus" && err != nil {
				return nil // no cpuset
			}
			continue
		}
		if err != nil {
			return err
		}
		parent := path.Dir(dir)
		v, err = readFile(parent, file)
		if err == nil && v == "" {
			if err = fillCpuset(parent); err == nil {
				v, err = readFile(parent, file)
			}
		}
		if err != nil {
			return err
		}
		if err := writeFile(path.Join(dir, file), v); err != nil {
			return err
		}
	}
	return nil
}

// Remove removes a cgroup with the cgroups that its processes made below it. Its parents stay, see [RemoveEmpty]. Killed
// processes may take a moment to leave, so a busy cgroup is tried again for two seconds, unless it has a process that nobody has killed,
// which will not leave. One that is gone already is no error.
func Remove(op *plan.CgroupRemove) error {
	deadline := time.Now().Add(2 * time.Second)
	alive := 0 // how often a process of it was seen that isn't ending
	for wait := 50 * time.Microsecond; ; wait = min(2*wait, 50*time.Millisecond) {
		err := removeTree(op.Path)
		if err == nil {
			break
		}
		// Of a process that has just taken its SIGKILL there is a moment in which nothing shows that, so one look is not enough.
		const looks = 4
		// Not at once: to ask costs several files of each process, and mostly the killed are gone within the first pauses.
		if wait > 500*time.Microsecond && errors.Is(err, unix.EBUSY) && staying(op.Path) {
			alive++
		}
		if !errors.Is(err, unix.EBUSY) || alive == looks || time.Now().After(deadline) {
			if pids, _ := procs(op.Path); len(pids) > 0 {
				return fmt.Errorf("remove cgroup: %w (processes: %v)", err, pids)
			}
			return fmt.Errorf("remove cgroup: %w", err)
		}
		time.Sleep(wait)
	}
	return nil
}

// RemoveEmpty removes parents that [Create] has made, in the order in which it told them, unless there is something in them by now. The
// one that containers without a place of their own share stays, like the bridge: making and removing it for each would double the time
// that cgroups take (on v1, with the first cpuset the kernel patches its own code), and limits that an administrator has given to all
// containers together would be lost.
func RemoveEmpty(dirs []string) error {
	var errs []error
	for _, dir := range slices.Backward(dirs) {
		if path.Base(dir) == path.Base(Default) {
			continue
		}
		if err := unix.Rmdir(dir); err != nil && err != unix.ENOENT && err != unix.EBUSY && err != unix.ENOTEMPTY {
			errs = append(errs, &os.PathError{Op: "rmdir", Path: dir, Err: err})
		}
	}
	return errors.Join(errs...)
}

// removeTree removes a cgroup, and the ones below it only if there are any.
func removeTree(dir string) error {
	// Mostly there is none below, and one call does; a listing would be three.
	err := unix.Rmdir(dir)
	if err == nil || err == unix.ENOENT {
		return nil
	}
	if err == unix.EBUSY || err == unix.ENOTEMPTY {
		subs, errSubs := subgroups(dir)
		for _, sub := range subs {
			if errSub := removeTree(sub); errSub != nil {
				return errSub
			}
		}
		if len(subs) > 0 && errSubs == nil {
			err = unix.Rmdir(dir)
		}
		if err == nil || err == unix.ENOENT {
			return nil
		}
	}
	return &os.PathError{Op: "rmdir", Path: dir, Err: err}
}

// subgroups lists the cgroups directly below one.
func subgroups(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var subs []string
	for _, e := range entries {
		if e.IsDir() {
			subs = append(subs, path.Join(dir, e.Name()))
		}
	}
	return subs, nil
}

// Write writes a value with one write(2), as the files of cgroups want it.
//
// With Enable it gives the controllers that the value names ("+cpu +memory") to the cgroup's children. Those that they have
// are left alone, and so are those that the cgroup itself hasn't got or that this user may not give: then the file of the
// limit that needs the controller is missing, and its own write fails.
func Write(op *plan.CgroupWrite) error {
	if !op.Enable {
		return writeFile(op.File, op.Value)
	}
	dir, file := path.Split(op.File)
	dir = path.Clean(dir)
	enabled, err := readFile(dir, file)
	if err != nil {
		return err
	}
	available, err := readFile(dir, "cgroup.controllers")
	if err != nil {
		return err
	}
	var want []string
	for _, c := range strings.Fields(op.Value) {
		name := strings.TrimPrefix(c, "+")
		if !slices.Contains(strings.Fields(enabled), name) && slices.Contains(strings.Fields(available), name) {
			want = append(want, c)
		}
	}
	if len(want) == 0 {
		return nil
	}
	// All with one write(2): each goes through all cgroups below (cgroup_apply_control in kernel/cgroup/cgroup.c).
	if writeFile(op.File, strings.Join(want, " ")) == nil {
		return nil
	}
	for _, c := range want { // the kernel takes all or none; find out which one it refuses
		switch err := writeFile(op.File, c); {
		case err == nil, errors.Is(err, unix.ENOENT), errors.Is(err, unix.EACCES), errors.Is(err, unix.EPERM), errors.Is(err, unix.EROFS):
		case c == "+cpu" && errors.Is(err, unix.EINVAL): // realtime processes run outside of the root
		default:
			return err
		}
	}
	return nil
}

// writeFile is one write(2) into a file that exists.
func writeFile(file, value string) error {
	fd, err := open(file, unix.O_WRONLY)
	if err == nil {
		// A v1 memory limit that has to be reclaimed for gives up for any signal (mem_cgroup_resize_max in mm/memcontrol-v1.c), and Go's
		// runtime sends some to its own threads.
		for err = unix.EINTR; err == unix.EINTR; {
			_, err = unix.Write(fd, []byte(value))
		}
		unix.Close(fd)
	}
	if err != nil {
		return fmt.Errorf("write %q to %s: %w%s", value, file, err, writeHint(file, err))
	}
	return nil
}

func writeHint(file string, err error) string {
	name := path.Base(file)
	controller, _, _ := strings.Cut(name, ".")
	switch {
	case errors.Is(err, unix.ENOENT) && name == "cgroup.procs", errors.Is(err, unix.ENOENT) && name == "tasks":
		return " (the cgroup is gone)"
	case errors.Is(err, unix.ENOENT):
		return fmt.Sprintf(" (this kernel lacks the file, or the controller %s isn't enabled for the cgroup)", controller)
	case errors.Is(err, unix.EACCES), errors.Is(err, unix.EPERM):
		return " (this part of the cgroup tree isn't delegated to this user, or a parent allows less)"
	case errors.Is(err, unix.EROFS):
		return " (the cgroup file system is mounted read-only here)"
	case errors.Is(err, unix.EBUSY) && name == "cgroup.subtree_control":
		return " (the cgroup has processes of its own: on v2 they must move into a child first)"
	case errors.Is(err, unix.EBUSY) && controller == "memory":
		return " (more than that is in use and can't be reclaimed)"
	case errors.Is(err, unix.EOPNOTSUPP):
		return " (this kernel doesn't support it)"
	case errors.Is(err, unix.EINVAL), errors.Is(err, unix.ERANGE):
		return " (the kernel doesn't accept the value here: out of range, more than a parent has, or at odds with another limit)"
	case errors.Is(err, unix.ENODEV), errors.Is(err, unix.ENXIO):
		return " (there is no such device)"
	}
	return ""
}

// Evacuate moves the processes of a cgroup into another one, which it makes. New ones may be forked meanwhile, so it goes on
// until none is left.
func Evacuate(op *plan.CgroupEvacuate) error {
	if err := makeGroup(op.To, 20, func(string) {}); err != nil && err != unix.EEXIST {
		return fmt.Errorf("create cgroup %s: %w%s", op.To, err, createHint(err))
	}
	for range 100 {
		pids, err := readPids(op.From)
		if err != nil || len(pids) == 0 {
			return err
		}
		for _, pid := range pids {
			// As in a container whose cgroup somebody else has joined from the host (cgroup.procs shows 0 for it).
			if pid == 0 {
				return fmt.Errorf("move the processes of %s: one of them is in another PID namespace and out of reach: %w", op.From, unix.EBUSY)
			}
			if err := writeFile(op.To+"/cgroup.procs", strconv.Itoa(pid)); err != nil && !errors.Is(err, unix.ESRCH) {
				return err
			}
		}
	}
	return fmt.Errorf("move the processes of %s: new ones come all the time: %w", op.From, unix.EBUSY)
}

// Attach moves a process into a cgroup, unless it is there.
func Attach(op *plan.CgroupAttach, pid int) error {
	pids, err := readPids(op.Path)
	if err != nil {
		return err
	}
	// Mostly it is: systemd or CLONE_INTO_CGROUP has put it there, and whoever may not move it needn't then.
	if slices.Contains(pids, pid) {
		return nil
	}
	return writeFile(op.Path+"/cgroup.procs", strconv.Itoa(pid))
}

// Apply makes steps that change a cgroup: those of [Update] and [UpdateScope].
func Apply(steps []plan.Step) error {
	for _, s := range steps {
		var err error
		switch op := s.Op.(type) {
		case *plan.CgroupWrite:
			err = Write(op)
		case *plan.DeviceFilter:
			err = AttachDevices(op)
		case *plan.SystemdSet:
			err = systemd.Set(op)
		default:
			err = fmt.Errorf("%s is no step of an update", op.Kind())
		}
		if err != nil {
			return fmt.Errorf("%s: %w", s.Origin, err)
		}
	}
	return nil
}

// Open opens a directory (v2) for CLONE_INTO_CGROUP, or a file of v1 for joining.
func Open(op *plan.CgroupOpen) (fd int, err error) {
	flags := unix.O_PATH | unix.O_DIRECTORY
	if path.Base(op.Path) == "tasks" {
		flags = unix.O_WRONLY
	}
	if fd, err = open(op.Path, flags); err != nil {
		return -1, fmt.Errorf("open cgroup %s: %w", op.Path, err)
	}
	return fd, nil
}

func open(file string, flags int) (int, error) {
	for {
		fd, err := unix.Open(file, flags|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0)
		if err != unix.EINTR {
			return fd, err
		}
	}
}

// readFile returns the text of a cgroup's file without the white space around it.
func readFile(dir, file string) (string, error) {
	name := dir + "/" + file
	fd, err := open(name, unix.O_RDONLY)
	if err != nil {
		return "", &os.PathError{Op: "open", Path: name, Err: err}
	}
	defer unix.Close(fd)
	buf := make([]byte, 0, 1024)
	for {
		n, err := unix.Read(fd, buf[len(buf):cap(buf)])
		switch {
		case err == unix.EINTR:
			continue
		case err != nil:
			return "", &os.PathError{Op: "read", Path: name, Err: err}
		case n == 0:
			return strings.TrimSpace(string(buf)), nil
		}
		if buf = buf[:len(buf)+n]; len(buf) == cap(buf) {
			buf = slices.Grow(buf, cap(buf))
		}
	}
}

// isGone reports whether a cgroup was removed before (ENOENT) or while (ENODEV) one of its files was used.
func isGone(err error) bool { return errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENODEV) }

func exists(file string) bool {
	return unix.Faccessat(unix.AT_FDCWD, file, unix.F_OK, 0) == nil
}
