package plan

import (
	"fmt"
	"strings"
)

// newNamespaceOp makes an empty step of one of the kinds of this file, or nil: the child and its namespaces.
func newNamespaceOp(kind string) Op {
	switch kind {
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
	}
	return nil
}

// Clone makes the child with clone3(2). In the child it makes a second one, which goes on with the plan as a child of the same
// parent (CLONE_PARENT) while the first one ends: so are namespaces entered that only children enter, once the first child has
// joined or prepared them. The host takes the second child over with Adopt.
type Clone struct {
	Namespaces []string `json:"namespaces,omitempty"` // new ones: mount pid uts ipc net user time
	Cgroup     string   `json:"cgroup,omitempty"`     // descriptor of a v2 cgroup to be born into (CLONE_INTO_CGROUP, Linux 5.7)
}

func (*Clone) Kind() string { return "clone3" }

func (*Clone) Man() string { return "clone(2)" }

func (o *Clone) String() string {
	return "clone the child" + prefix(", new namespaces: ", strings.Join(o.Namespaces, " ")) +
		when(o.Cgroup != "", ", born in cgroup "+o.Cgroup)
}

func (*Clone) lanes() lanes { return bothLanes }

func (o *Clone) uses() []use { return []use{{o.Cgroup, isCgroup}} }

// Unshare leaves namespaces of the calling process for new ones. In the child it is used for the cgroup namespace, whose
// root is the cgroup that the process is in at that moment.
type Unshare struct {
	Namespaces []string `json:"namespaces"`
}

func (*Unshare) Kind() string { return "unshare" }

func (*Unshare) Man() string { return "unshare(2)" }

func (o *Unshare) String() string {
	return "new namespace: " + strings.Join(o.Namespaces, " ")
}

func (*Unshare) lanes() lanes { return bothLanes }

// Setns joins namespaces: those of a process (From is a pidfd) or one (From is a namespace file). In the host lane it acts
// on the thread that clones, and is needed for pid and time, which only children enter.
type Setns struct {
	From       string   `json:"from"`
	Namespaces []string `json:"namespaces"`
}

func (*Setns) Kind() string { return "setns" }

func (*Setns) Man() string { return "setns(2)" }

func (o *Setns) String() string {
	return fmt.Sprintf("join %s of %s", strings.Join(o.Namespaces, " "), o.From)
}

func (*Setns) lanes() lanes { return bothLanes }

func (o *Setns) uses() []use { return []use{{o.From, isNamespace | isFile}} }

// Adopt takes the second child for the container's process and lets it go on (see Clone).
type Adopt struct{}

func (*Adopt) Kind() string { return "adopt" }

func (*Adopt) Man() string { return "clone(2)" }

func (o *Adopt) String() string { return "go on with the second child" }

func (*Adopt) lanes() lanes { return hostLane }

// TimeOffsets sets the clocks of a new time namespace, /proc/self/timens_offsets, before the first process enters it
// (time_namespaces(7)). It follows Unshare.
type TimeOffsets struct {
	Offsets []TimeOffset `json:"offsets"`
}

func (*TimeOffsets) Kind() string { return "time-offsets" }

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

// TimeOffset is how far a clock of the container is ahead of the host's.
type TimeOffset struct {
	Clock    string `json:"clock"` // monotonic, boottime
	Secs     int64  `json:"secs"`
	Nanosecs uint32 `json:"nanosecs"`
}

// UserNamespace makes a user namespace that no process lives in, for mounts with ids of their own.
type UserNamespace struct {
	UID  []IDRange `json:"uid"`
	GID  []IDRange `json:"gid"`
	Save string    `json:"save"`
}

func (*UserNamespace) Kind() string { return "user-namespace" }

func (*UserNamespace) Man() string { return "user_namespaces(7)" }

func (o *UserNamespace) String() string {
	return fmt.Sprintf("make a user namespace as %s with user ids %s and group ids %s", o.Save, ranges(o.UID), ranges(o.GID))
}

func (*UserNamespace) lanes() lanes { return hostLane }

func (o *UserNamespace) saves() (string, held) { return o.Save, isNamespace }

// IDMap writes the uid_map and gid_map of the child's user namespace.
type IDMap struct {
	UID []IDRange `json:"uid"`
	GID []IDRange `json:"gid"`
	// DenySetgroups gives up setgroups(2) in the user namespace first, without which nobody unprivileged may map a group.
	DenySetgroups bool `json:"denySetgroups,omitempty"`
	// Programs has newuidmap(1) and newgidmap(1) write the maps, which grant what /etc/subuid and /etc/subgid allow.
	Programs bool `json:"programs,omitempty"`
}

func (*IDMap) Kind() string { return "id-map" }

func (*IDMap) Man() string { return "user_namespaces(7)" }

func (o *IDMap) String() string {
	return fmt.Sprintf("map user ids %s and group ids %s", ranges(o.UID), ranges(o.GID)) + when(o.DenySetgroups, ", deny setgroups") +
		when(o.Programs, ", by newuidmap and newgidmap")
}

func (*IDMap) lanes() lanes { return hostLane }

// IDRange maps Size ids from Container (inside) to Host (outside).
type IDRange struct {
	Container uint32 `json:"container"`
	Host      uint32 `json:"host"`
	Size      uint32 `json:"size"`
}

func ranges(rs []IDRange) string {
	out := make([]string, len(rs))
	for i, r := range rs {
		out[i] = fmt.Sprintf("%d→%d×%d", r.Container, r.Host, r.Size)
	}
	return list(out)
}
