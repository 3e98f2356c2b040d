package plan

import (
	"fmt"
	"strings"
)

// newResctrlOp makes an empty step of one of the kinds of this file, or nil: resource classes: shares of caches and memory bandwidth.
func newResctrlOp(kind string) Op {
	switch kind {
	case "resctrl-create":
		return &ResctrlCreate{}
	case "resctrl-remove":
		return &ResctrlRemove{}
	case "resctrl-check":
		return &ResctrlCheck{}
	case "resctrl-write":
		return &ResctrlWrite{}
	case "resctrl-join":
		return &ResctrlJoin{}
	}
	return nil
}

// ResctrlCreate makes a resource class, or a monitoring group in one.
type ResctrlCreate struct {
	Path string `json:"path"` // absolute, below the mount of a resctrl file system
	// Shared is a class with a name of its own: others may use it, too, and it stays when the container goes.
	Shared bool `json:"shared,omitempty"`
}

func (*ResctrlCreate) Kind() string { return "resctrl-create" }

func (*ResctrlCreate) Man() string { return "mkdir(2)" }

func (o *ResctrlCreate) String() string {
	return "create " + classKind(o.Path) + o.Path + when(o.Shared, ", which others may use")
}

func (*ResctrlCreate) lanes() lanes { return hostLane }

func (o *ResctrlCreate) hostNames() []string { return []string{o.Path} }

// Undo removes the class.
func (o *ResctrlCreate) Undo() []Op { return []Op{&ResctrlRemove{Path: o.Path, Shared: o.Shared}} }

// ResctrlRemove removes a resource class or a monitoring group. One that is gone is no error.
type ResctrlRemove struct {
	Path   string `json:"path"`
	Shared bool   `json:"shared,omitempty"` // only while nobody is in it
}

func (*ResctrlRemove) Kind() string { return "resctrl-remove" }

func (*ResctrlRemove) Man() string { return "rmdir(2)" }

func (o *ResctrlRemove) String() string {
	return "remove " + classKind(o.Path) + o.Path + when(o.Shared, ", unless somebody uses it")
}

func (*ResctrlRemove) lanes() lanes { return hostLane }

func (o *ResctrlRemove) hostNames() []string { return []string{o.Path} }

// ResctrlCheck makes sure that a class that exists has what is wanted: others may be in it, so it isn't changed.
type ResctrlCheck struct {
	Path     string   `json:"path"`
	Schemata []string `json:"schemata"`
}

func (*ResctrlCheck) Kind() string { return "resctrl-check" }

func (*ResctrlCheck) Man() string { return "read(2)" }

func (o *ResctrlCheck) String() string {
	return fmt.Sprintf("make sure that resource class %s has %q", o.Path, o.Schemata)
}

func (*ResctrlCheck) lanes() lanes { return hostLane }

func (o *ResctrlCheck) hostNames() []string { return []string{o.Path} }

// ResctrlWrite says what a class has: "L3:0=ff;1=ff", "MB:0=50". The kernel takes all lines or none.
type ResctrlWrite struct {
	Path     string   `json:"path"`
	Schemata []string `json:"schemata"`
}

func (*ResctrlWrite) Kind() string { return "resctrl-write" }

func (*ResctrlWrite) Man() string { return "write(2)" }

func (o *ResctrlWrite) String() string {
	return fmt.Sprintf("give resource class %s %q", o.Path, o.Schemata)
}

func (*ResctrlWrite) lanes() lanes { return hostLane }

func (o *ResctrlWrite) hostNames() []string { return []string{o.Path} }

// ResctrlJoin moves the calling thread into the class or the group whose file tasks is open as From. What it forks is in it, too.
type ResctrlJoin struct {
	From string `json:"from"`
}

func (*ResctrlJoin) Kind() string { return "resctrl-join" }

func (*ResctrlJoin) Man() string { return "write(2)" }

func (o *ResctrlJoin) String() string {
	return "join resource class " + o.From
}

func (o *ResctrlJoin) uses() []use { return []use{{o.From, isCgroup | isFile}} }

func classKind(path string) string {
	if strings.Contains(path, "/mon_groups/") {
		return "monitoring group "
	}
	return "resource class "
}
