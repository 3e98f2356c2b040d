package engine

import (
	"bufio"
	"bytes"
	"os"
	"strconv"
	"strings"

	"glassbox/host"
)

// A Look is what /proc says of a half-built container's process.
type Look struct {
	PID        int
	Own        []string // namespaces that aren't glassbox's own
	Shared     []string // those that are
	Root, Cwd  string   // as it names them
	Mounts     []string // of its mount namespace, in the order in which they were made: "/proc proc ro,nosuid"
	Links      []string // network devices in its network namespace
	FDs        int      // open descriptors
	Cgroups    []string // "memory:/glassbox/…"
	UID, GID   string   // real, effective, saved, of the file system
	Groups     string
	Caps       string // effective capabilities, in hexadecimal
	Bounding   string
	NoNewPrivs bool
	Seccomp    bool
}

// Look looks at the process of a stop, which stands still.
func (s *Stop) Look() (*Look, error) {
	if s.PID == 0 {
		return nil, conflict("there is no process of the container yet")
	}
	dir := "/proc/" + strconv.Itoa(s.PID)
	status, err := os.ReadFile(dir + "/status")
	if err != nil {
		return nil, err
	}
	l := &Look{PID: s.PID}
	for line := range bytes.Lines(status) {
		key, value, _ := strings.Cut(strings.TrimSpace(string(line)), ":")
		value = strings.Join(strings.Fields(value), " ")
		switch key {
		case "Uid":
			l.UID = value
		case "Gid":
			l.GID = value
		case "Groups":
			l.Groups = value
		case "CapEff":
			l.Caps = value
		case "CapBnd":
			l.Bounding = value
		case "NoNewPrivs":
			l.NoNewPrivs = value == "1"
		case "Seccomp":
			l.Seccomp = value != "0"
		}
	}
	for _, ns := range []string{"mnt", "pid", "net", "uts", "ipc", "cgroup", "user", "time"} {
		file := ns
		if ns == "pid" {
			file = "pid_for_children" // it is in it, or its next child is
		}
		// The text has the namespace's inode: equal texts are the same namespace (namespaces(7)).
		own, err1 := os.Readlink("/proc/self/ns/" + ns)
		theirs, err2 := os.Readlink(dir + "/ns/" + file)
		switch {
		case err1 != nil || err2 != nil:
		case own == theirs:
			l.Shared = append(l.Shared, ns)
		default:
			l.Own = append(l.Own, ns)
		}
	}
	l.Root, _ = os.Readlink(dir + "/root")
	l.Cwd, _ = os.Readlink(dir + "/cwd")
	if fds, err := os.ReadDir(dir + "/fd"); err == nil {
		l.FDs = len(fds)
	}
	mounts, err := host.MountsOf(strconv.Itoa(s.PID))
	if err != nil {
		return nil, err
	}
	for _, m := range mounts {
		l.Mounts = append(l.Mounts, m.Point+" "+m.Type+" "+m.Attrs)
	}
	if net, err := os.ReadFile(dir + "/net/dev"); err == nil {
		lines := bufio.NewScanner(bytes.NewReader(net))
		for lines.Scan() {
			if name, _, ok := strings.Cut(lines.Text(), ":"); ok {
				l.Links = append(l.Links, strings.TrimSpace(name))
			}
		}
	}
	cgroups, _ := os.ReadFile(dir + "/cgroup")
	for line := range bytes.Lines(cgroups) {
		if f := strings.SplitN(strings.TrimSpace(string(line)), ":", 3); len(f) == 3 {
			l.Cgroups = append(l.Cgroups, f[1]+":"+f[2])
		}
	}
	return l, nil
}
