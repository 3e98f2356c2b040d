package cgroup

import (
	"path"
	"strings"

	"glassbox/host"

	"golang.org/x/sys/unix"
)

// Delegation is a part of the v2 tree in which the caller may make cgroups for containers, without being root.
type Delegation struct {
	// Path is the parent for containers' cgroups, below the v2 mount: "/user.slice/…/app.slice".
	Path string
	// Controllers are those whose limits can be enforced there. Rules for devices never can: they need root.
	Controllers []string
	// Crowded is set where Path has processes, the caller among them. A container can be put there, but without limits: on v2 a
	// cgroup with processes can't give controllers to its children.
	Crowded bool
}

// Delegated looks for the part of the tree that the caller may use: the parent of its own cgroup, else its own. It is not ok
// where there is none, as in a login session: only systemd can make a place for a container then ([ScopeSteps] with the user's
// manager), and without it a container runs where the caller is, without limits.
//
// Both the directory and the files that move processes must be the caller's, at the place itself: the kernel wants the right to
// move from the common ancestor of where a process is and where it goes (cgroups(7), "delegation containment").
func Delegated(f host.Cgroup) (Delegation, bool) {
	h, ok := unified(f)
	// Delegation to who isn't root is safe on v2 alone (systemd.resource-control(5), Delegate=).
	if !ok || f.Mode != host.CgroupV2 || h.Own == "" {
		return Delegation{}, false
	}
	for _, p := range []string{path.Dir(h.Own), h.Own} {
		dir := path.Join(h.Mount, p)
		if !writable(dir) || !writable(dir+"/cgroup.procs") || !writable(dir+"/cgroup.subtree_control") {
			continue
		}
		d := Delegation{Path: p}
		pids, err := readPids(dir)
		if d.Crowded = err != nil || len(pids) > 0; !d.Crowded {
			controllers, _ := readFile(dir, "cgroup.controllers")
			d.Controllers = strings.Fields(controllers)
		}
		return d, true
	}
	return Delegation{}, false
}

func writable(file string) bool {
	return unix.Faccessat(unix.AT_FDCWD, file, unix.W_OK, unix.AT_EACCESS) == nil
}
