package machine

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Hierarchy is a mounted cgroup hierarchy of the host.
type Hierarchy struct {
	Path    string // where the host has it
	Unified bool
	Options string // mount options that choose a v1 hierarchy: "cpu,cpuacct", "name=systemd"

	detached string // where this side reaches one that Attach mounted; the machine has it at Path
}

// Attach mounts the hierarchy of a v1 controller that the host has not mounted, on no path. Others see it in /proc/cgroups
// alone, until release is called. A controller that groups of the unified hierarchy hold is busy.
func Attach(controller string) (h Hierarchy, release func(), err error) {
	fd, err := attach(controller)
	// A hierarchy that has just gone is busy for a moment.
	for end := time.Now().Add(3 * time.Second); errors.Is(err, unix.EBUSY) && time.Now().Before(end); fd, err = attach(controller) {
		time.Sleep(100 * time.Millisecond)
	}
	if err != nil {
		return h, nil, fmt.Errorf("mount cgroup %s: %w", controller, err)
	}
	h = Hierarchy{Path: "/sys/fs/cgroup/" + controller, Options: controller, detached: fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), fd)}
	// Tests that were killed leave groups, and those the hierarchy. No test takes as long as this.
	for _, group := range Groups(h.detached + "/") {
		if info, err := os.Stat(group); err == nil && time.Since(info.ModTime()) > time.Hour {
			os.Remove(group) // one with processes stays
		}
	}
	return h, func() {
		// The kernel keeps a hierarchy when its last mount goes while groups of it are still dying. Then only the end of
		// another mount takes it.
		for range 50 {
			unix.Close(fd)
			if !bound(controller) {
				return
			}
			time.Sleep(100 * time.Millisecond)
			if fd, err = attach(controller); err != nil {
				return
			}
		}
		unix.Close(fd)
	}, nil
}

func attach(controller string) (int, error) {
	context, err := unix.Fsopen("cgroup", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return -1, err
	}
	defer unix.Close(context)
	if err := unix.FsconfigSetFlag(context, controller); err != nil {
		return -1, err
	}
	if err := unix.FsconfigCreate(context); err != nil {
		return -1, err
	}
	return unix.Fsmount(context, unix.FSMOUNT_CLOEXEC, 0)
}

// bound says whether a controller is in a v1 hierarchy.
func bound(controller string) bool {
	table, _ := os.ReadFile("/proc/cgroups")
	for _, line := range strings.Split(string(table), "\n") {
		if fields := strings.Fields(line); len(fields) > 1 && fields[0] == controller {
			return fields[1] != "0"
		}
	}
	return false
}

// dir is where this side reaches the hierarchy's root.
func (h Hierarchy) dir() string {
	if h.detached != "" {
		return h.detached
	}
	return h.Path
}

// Hierarchies reads which cgroup hierarchies are mounted, each once.
func Hierarchies() ([]Hierarchy, error) {
	file, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	defer file.Close()
	var list []Hierarchy
	seen := map[string]bool{}
	for lines := bufio.NewScanner(file); lines.Scan(); {
		before, after, ok := strings.Cut(lines.Text(), " - ")
		fields, tail := strings.Fields(before), strings.Fields(after)
		if !ok || len(fields) < 6 || len(tail) < 3 || !strings.HasPrefix(tail[0], "cgroup") {
			continue
		}
		h := Hierarchy{Path: fields[4], Unified: tail[0] == "cgroup2"}
		if !h.Unified {
			var keep []string
			for _, option := range strings.Split(tail[2], ",") {
				switch option {
				case "rw", "ro", "xattr", "clone_children", "cpuset_v2_mode", "noprefix":
				default:
					if !strings.HasPrefix(option, "release_agent=") {
						keep = append(keep, option)
					}
				}
			}
			h.Options = strings.Join(keep, ",")
		}
		key := fmt.Sprint(h.Unified, h.Options)
		if fields[3] != "/" || seen[key] {
			continue
		}
		seen[key] = true
		list = append(list, h)
	}
	if len(list) == 0 {
		return nil, errors.New("no cgroup hierarchy is mounted")
	}
	return list, nil
}

// makeGroup makes a group below the hierarchy's root, ready to take processes.
func (h Hierarchy) makeGroup(name string) (string, error) {
	group := filepath.Join(h.dir(), name)
	if h.Unified {
		// What the root does not hand down, no group below has.
		if err := handDown(h.Path); err != nil {
			return "", err
		}
	}
	if err := os.Mkdir(group, 0o755); err != nil {
		return "", err
	}
	if strings.Contains(","+h.Options+",", ",cpuset,") {
		for _, file := range []string{"cpuset.cpus", "cpuset.mems"} {
			value, err := os.ReadFile(filepath.Join(h.dir(), file))
			if err == nil {
				err = os.WriteFile(filepath.Join(group, file), value, 0o644)
			}
			if err != nil {
				return group, err
			}
		}
	}
	return group, nil
}

// handDown enables every controller that dir has for the groups below it.
func handDown(dir string) error {
	controllers, err := os.ReadFile(filepath.Join(dir, "cgroup.controllers"))
	if err != nil {
		return err
	}
	enabled, _ := os.ReadFile(filepath.Join(dir, "cgroup.subtree_control"))
	for _, name := range strings.Fields(string(controllers)) {
		if strings.Contains(" "+strings.TrimSpace(string(enabled))+" ", " "+name+" ") {
			continue
		}
		// Not every controller can be had by groups (a real-time process stops cpu): the tests say which they miss.
		os.WriteFile(filepath.Join(dir, "cgroup.subtree_control"), []byte("+"+name), 0o644)
	}
	return nil
}

// Groups lists the groups below a directory, deepest first.
func Groups(dir string) []string {
	var list []string
	filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err == nil && entry.IsDir() && path != dir {
			list = append(list, path)
		}
		return nil
	})
	sort.Slice(list, func(i, j int) bool { return len(list[i]) > len(list[j]) })
	return list
}

// removeGroup removes a group that this package made, and those below.
func removeGroup(dir string) error {
	var err error
	for range 100 {
		for _, group := range append(Groups(dir), dir) {
			// A frozen group keeps its dead from dying.
			os.WriteFile(filepath.Join(group, "freezer.state"), []byte("THAWED"), 0o644)
			if err = os.Remove(group); err != nil && !errors.Is(err, fs.ErrNotExist) {
				break
			}
			err = nil
		}
		if err == nil {
			return nil
		}
		time.Sleep(50 * time.Millisecond)
	}
	return err
}
