package fork

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"glassbox/plan"
)

// openTree clones a mount of the host (open_tree(2)).
func openTree(o *plan.OpenTree) (int, error) {
	flags := uint(unix.OPEN_TREE_CLONE | unix.OPEN_TREE_CLOEXEC)
	if o.Recursive {
		flags |= unix.AT_RECURSIVE
	}
	fd, err := unix.OpenTree(unix.AT_FDCWD, o.Path, flags)
	if err != nil {
		return -1, &os.PathError{Op: "open_tree", Path: o.Path, Err: err}
	}
	return fd, nil
}

func open(o *plan.Open) (int, error) {
	flags := unix.O_RDONLY | unix.O_CLOEXEC
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
	return fd, nil
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
	data, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		if os.IsNotExist(err) {
			return 0, unix.ESRCH
		}
		return 0, err
	}
	n, ok := statField(data, 22)
	if !ok {
		return 0, fmt.Errorf("/proc/%d/stat: no start time", pid)
	}
	return n, nil
}

// statField returns a numeric field of /proc/pid/stat, counted from 1 as in proc(5). Field 2, the name, may hold spaces and
// parentheses; the fields after it are found from its last parenthesis.
func statField(stat []byte, n int) (uint64, bool) {
	i := bytes.LastIndexByte(stat, ')')
	if i < 0 {
		return 0, false
	}
	fields := strings.Fields(string(stat[i+1:]))
	if n < 3 || n-3 >= len(fields) {
		return 0, false
	}
	v, err := strconv.ParseUint(fields[n-3], 10, 64)
	return v, err == nil
}

func (x *execution) idMap(o *plan.IDMap) error {
	dir := "/proc/" + strconv.Itoa(x.pid) + "/"
	if err := writeFile(&plan.WriteFile{Path: dir + "uid_map", Value: idRanges(o.UID)}); err != nil {
		return err
	}
	return writeFile(&plan.WriteFile{Path: dir + "gid_map", Value: idRanges(o.GID)})
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
			if !set.IsSet(n) {
				return fmt.Errorf("processor %d: too many", n)
			}
		}
	}
	if err := unix.SchedGetaffinity(0, &old); err != nil {
		return err
	}
	x.processors = &old
	return unix.SchedSetaffinity(0, &set)
}
