package plan

import (
	"strings"
)

// newSystemdOp makes an empty step of one of the kinds of this file, or nil: units of systemd.
func newSystemdOp(kind string) Op {
	switch kind {
	case "systemd-scope":
		return &SystemdScope{}
	case "systemd-set":
		return &SystemdSet{}
	case "systemd-attach":
		return &SystemdAttach{}
	case "systemd-stop":
		return &SystemdStop{}
	}
	return nil
}

// SystemdScope asks systemd for a transient scope (StartTransientUnit) with the child in it, and waits until it has started.
// A scope is a unit around processes that systemd didn't start: it needs the child, so the step comes after the clone.
type SystemdScope struct {
	Unit       string            `json:"unit"`
	User       bool              `json:"user,omitempty"` // ask the caller's own manager, not the system's
	Properties []SystemdProperty `json:"properties"`     // but PIDs, which is the child's
}

func (*SystemdScope) Kind() string { return "systemd-scope" }

func (*SystemdScope) Man() string { return "org.freedesktop.systemd1(5)" }

func (o *SystemdScope) String() string {
	return "start " + manager(o.User) + " unit " + o.Unit + " around the child" + properties(o.Properties)
}

func (*SystemdScope) lanes() lanes { return hostLane }

func (o *SystemdScope) hostNames() []string { return []string{"systemd unit " + o.Unit} }

// Undo stops the unit.
func (o *SystemdScope) Undo() []Op { return []Op{&SystemdStop{Unit: o.Unit, User: o.User}} }

// SystemdSet changes properties of a unit that runs.
type SystemdSet struct {
	Unit       string            `json:"unit"`
	User       bool              `json:"user,omitempty"`
	Properties []SystemdProperty `json:"properties"`
}

func (*SystemdSet) Kind() string { return "systemd-set" }

func (*SystemdSet) Man() string { return "org.freedesktop.systemd1(5)" }

func (o *SystemdSet) String() string {
	return "set properties of " + manager(o.User) + " unit " + o.Unit + properties(o.Properties)
}

func (*SystemdSet) lanes() lanes { return hostLane }

func (o *SystemdSet) hostNames() []string { return []string{"systemd unit " + o.Unit} }

// SystemdAttach asks systemd to move the child into a unit that runs (AttachProcessesToUnit). A user can't move a process
// from a login session into a scope, but the manager can.
type SystemdAttach struct {
	Unit string `json:"unit"`
	User bool   `json:"user,omitempty"`
}

func (*SystemdAttach) Kind() string { return "systemd-attach" }

func (*SystemdAttach) Man() string { return "org.freedesktop.systemd1(5)" }

func (o *SystemdAttach) String() string {
	return "let systemd move the child into " + manager(o.User) + " unit " + o.Unit
}

func (*SystemdAttach) lanes() lanes { return hostLane }

func (o *SystemdAttach) hostNames() []string { return []string{"systemd unit " + o.Unit} }

// SystemdStop stops a unit, which ends what is left in it. One that is gone is no error.
type SystemdStop struct {
	Unit string `json:"unit"`
	User bool   `json:"user,omitempty"`
}

func (*SystemdStop) Kind() string { return "systemd-stop" }

func (*SystemdStop) Man() string { return "org.freedesktop.systemd1(5)" }

func (o *SystemdStop) String() string {
	return "stop " + manager(o.User) + " unit " + o.Unit
}

func (*SystemdStop) lanes() lanes { return hostLane }

func (o *SystemdStop) hostNames() []string { return []string{"systemd unit " + o.Unit} }

// SystemdProperty is a property of a unit in D-Bus form (org.freedesktop.systemd1(5)). Type is the D-Bus signature of the value:
// b, s, i, u, x, t, d; as, ab, ai, au, ax, at, ay for lists; a(ss) for a list of pairs, which Value has one after the other.
type SystemdProperty struct {
	Name  string   `json:"name"`
	Type  string   `json:"type"`
	Value []string `json:"value"`
}

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
