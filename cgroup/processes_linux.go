package cgroup

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// tree returns the directory by which all processes of a cgroup can be found: the v2 one, else that of a controller whose
// tree processes rarely make their own cgroups in.
func tree(paths map[string]string) (string, error) {
	for _, c := range []string{"", "freezer", "pids", "devices", "memory", "name=systemd"} {
		if dir, ok := paths[c]; ok {
			return dir, nil
		}
	}
	for _, dir := range paths {
		return dir, nil
	}
	return "", fmt.Errorf("the container has no cgroup: %w", unix.ENOENT)
}

// Procs returns the processes of a cgroup and of those below it, in no particular order. Zombies aren't among them, and a
// process outside of the caller's PID namespace is 0. A cgroup that is gone has none.
func Procs(paths map[string]string) ([]int, error) {
	dir, err := tree(paths)
	if err != nil {
		return nil, err
	}
	return procs(dir)
}

func procs(dir string) ([]int, error) {
	pids, err := readPids(dir)
	if isGone(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	subs, err := subgroups(dir)
	if err != nil && !errors.Is(err, unix.ENOENT) {
		return nil, err
	}
	for _, sub := range subs {
		more, err := procs(sub)
		if err != nil {
			return nil, err
		}
		pids = append(pids, more...)
	}
	return pids, nil
}

// readPids reads cgroup.procs. A threaded v2 cgroup doesn't show it (EOPNOTSUPP): its processes are listed by the nearest
// ancestor that isn't threaded.
func readPids(dir string) ([]int, error) {
	text, err := readFile(dir, "cgroup.procs")
	if errors.Is(err, unix.EOPNOTSUPP) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return parsePids(text)
}

func parsePids(text string) ([]int, error) {
	var pids []int
	for line := range strings.FieldsSeq(text) {
		pid, err := strconv.ParseUint(line, 10, 31)
		if err != nil {
			return nil, fmt.Errorf("cgroup.procs: %w", err)
		}
		pids = append(pids, int(pid))
	}
	return pids, nil
}

// staying reports whether a cgroup has a process that neither ends nor has a SIGKILL to take (proc_pid_status(5)).
func staying(dir string) bool {
	pids, _ := procs(dir)
	return slices.ContainsFunc(pids, func(pid int) bool {
		text, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/status")
		return err == nil && !ending(string(text))
	})
}

// ending reads that from the file.
func ending(status string) bool {
	for line := range strings.Lines(status) {
		key, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), ":\t")
		switch key {
		case "State":
			if strings.HasPrefix(value, "Z") || strings.HasPrefix(value, "X") {
				return true
			}
		case "SigPnd", "ShdPnd":
			if n, err := strconv.ParseUint(value, 16, 64); err == nil && n>>(uint(unix.SIGKILL)-1)&1 != 0 {
				return true
			}
		}
	}
	// What has been reaped since it was listed may read as nothing.
	return status == ""
}

// patience is how long processes may take to freeze, or to die: one that waits for a disk (state D) does neither.
const patience = 10 * time.Second

// until calls done with growing pauses between until it says so, fails, or patience is over.
func until(what string, done func() (bool, error)) error {
	deadline := time.Now().Add(patience)
	for wait := 20 * time.Microsecond; ; wait = min(2*wait, 20*time.Millisecond) {
		if ok, err := done(); ok || err != nil {
			return err
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("%s: not after %v: %w", what, patience, unix.ETIMEDOUT)
		}
		time.Sleep(wait)
	}
}

// Kill kills all processes of a cgroup and of those below it, and returns when there are none. A cgroup that is gone is no
// error.
//
// On v2 the kernel does it (cgroup.kill, Linux 5.14), and no fork escapes. After that the cgroup is only good to be removed:
// some kernels (seen on 6.18) take a child that is born into it later for one that was forked during the kill, and kill it.
// On v1 the cgroup is frozen first, where it can be,
// and thawed when every process has its SIGKILL, so that a fork bomb can't outrun the loop.
func Kill(paths map[string]string) error {
	dir, err := tree(paths)
	if err != nil {
		return err
	}
	what := "kill the processes of " + dir
	if v2, ok := paths[""]; ok {
		if err := writeFile(v2+"/cgroup.kill", "1"); err == nil {
			return until(what, func() (bool, error) { return isEmpty(v2) })
		} else if !isGone(err) && !errors.Is(err, unix.EOPNOTSUPP) {
			return err
		}
	}
	return until(what, func() (bool, error) {
		frozen := Freeze(paths) == nil
		pids, err := procs(dir)
		if err != nil || len(pids) == 0 {
			Thaw(paths)
			return err == nil, err
		}
		if frozen {
			for _, pid := range pids {
				kill(pid, unix.SIGKILL) // who can't be reached is still there in the next round, and at the end of patience
			}
		} else {
			killListed(dir, pids)
		}
		// Thawing comes even after a failed freeze, which may have frozen some.
		if err := Thaw(paths); err != nil && frozen {
			return false, err
		}
		return false, nil
	})
}

// killListed kills processes that may end, and whose numbers may be used again, at any time: a pidfd is opened for each, and
// only if the cgroup still lists the number after that is it the one meant.
func killListed(dir string, pids []int) {
	fds := map[int]int{}
	for _, pid := range pids {
		if fd, err := unix.PidfdOpen(pid, 0); err == nil {
			fds[pid] = fd
		}
	}
	still, _ := procs(dir)
	for pid, fd := range fds {
		if slices.Contains(still, pid) {
			unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0)
		}
		unix.Close(fd)
	}
}

// isEmpty reads "populated" of cgroup.events (v2), which counts the cgroups below, too.
func isEmpty(v2 string) (bool, error) {
	text, err := readFile(v2, "cgroup.events")
	if isGone(err) {
		return true, nil
	}
	return keyed(text)["populated"] == 0, err
}

// Freeze stops all processes of a cgroup, and of those below it, and returns when none of them runs.
func Freeze(paths map[string]string) error {
	err := freeze(paths)
	if errors.Is(err, unix.ETIMEDOUT) {
		Thaw(paths) // half frozen is worse than running
	}
	return err
}

func freeze(paths map[string]string) error {
	if v2, ok := paths[""]; ok {
		if err := writeFile(v2+"/cgroup.freeze", "1"); err != nil {
			return err
		}
		return until("freeze "+v2, func() (bool, error) {
			text, err := readFile(v2, "cgroup.events")
			return keyed(text)["frozen"] == 1, err
		})
	}
	v1, ok := paths["freezer"]
	if !ok {
		return fmt.Errorf("freeze: this host has no cgroup controller %q", "freezer")
	}
	return until("freeze "+v1, func() (bool, error) {
		// A process that was forked meanwhile can keep the state at FREEZING: asking again freezes it, too.
		if err := writeFile(v1+"/freezer.state", "FROZEN"); err != nil {
			return false, err
		}
		state, err := readFile(v1, "freezer.state")
		return state == "FROZEN", err
	})
}

// Thaw lets the processes run again.
func Thaw(paths map[string]string) error {
	if v2, ok := paths[""]; ok {
		return writeFile(v2+"/cgroup.freeze", "0")
	}
	v1, ok := paths["freezer"]
	if !ok {
		return fmt.Errorf("thaw: this host has no cgroup controller %q", "freezer")
	}
	return writeFile(v1+"/freezer.state", "THAWED")
}

// Frozen reports whether the cgroup is frozen, by [Freeze] or anyone else.
func Frozen(paths map[string]string) (bool, error) {
	if v2, ok := paths[""]; ok {
		text, err := readFile(v2, "cgroup.events")
		return keyed(text)["frozen"] == 1, err
	}
	v1, ok := paths["freezer"]
	if !ok {
		return false, nil
	}
	state, err := readFile(v1, "freezer.state")
	return state == "FROZEN", err
}

// keyed parses lines of a key and a number, such as memory.stat. It passes over others.
func keyed(text string) map[string]uint64 {
	m := map[string]uint64{}
	for line := range strings.Lines(text) {
		k, v, _ := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
		if n, err := strconv.ParseUint(v, 10, 64); err == nil {
			m[k] = n
		}
	}
	return m
}
