package plan

import (
	"fmt"
)

// newCgroupOp makes an empty step of one of the kinds of this file, or nil: cgroups, and what may be used in them.
func newCgroupOp(kind string) Op {
	switch kind {
	case "cgroup-create":
		return &CgroupCreate{}
	case "cgroup-remove":
		return &CgroupRemove{}
	case "cgroup-write":
		return &CgroupWrite{}
	case "cgroup-evacuate":
		return &CgroupEvacuate{}
	case "cgroup-open":
		return &CgroupOpen{}
	case "cgroup-join":
		return &CgroupJoin{}
	case "cgroup-attach":
		return &CgroupAttach{}
	case "bpf-device":
		return &DeviceFilter{}
	}
	return nil
}

// CgroupCreate makes a cgroup, and its missing parents.
type CgroupCreate struct {
	Path string `json:"path"` // absolute, below a cgroup mount
	// Controllers are those of a v1 hierarchy, if they are known: what has to be looked at depends on them.
	Controllers []string `json:"controllers,omitempty"`
}

func (*CgroupCreate) Kind() string { return "cgroup-create" }

func (*CgroupCreate) Man() string { return "cgroups(7)" }

func (o *CgroupCreate) String() string {
	return "create cgroup " + o.Path
}

func (*CgroupCreate) lanes() lanes { return hostLane }

func (o *CgroupCreate) hostNames() []string { return []string{o.Path} }

// Undo removes the cgroup.
func (o *CgroupCreate) Undo() []Op { return []Op{&CgroupRemove{Path: o.Path}} }

// CgroupRemove removes a cgroup and then those parents made for it that have become empty.
type CgroupRemove struct {
	Path string `json:"path"`
}

func (*CgroupRemove) Kind() string { return "cgroup-remove" }

func (*CgroupRemove) Man() string { return "cgroups(7)" }

func (o *CgroupRemove) String() string {
	return "remove cgroup " + o.Path
}

func (*CgroupRemove) lanes() lanes { return hostLane }

func (o *CgroupRemove) hostNames() []string { return []string{o.Path} }

// CgroupWrite writes a value into a file of a cgroup. On EINVAL, ERANGE, EOPNOTSUPP, … the step fails: no limit is dropped
// silently.
type CgroupWrite struct {
	File  string `json:"file"` // absolute
	Value string `json:"value"`
	// Enable marks a write to cgroup.subtree_control that is left out where the controllers are already enabled.
	Enable bool `json:"enable,omitempty"`
}

func (*CgroupWrite) Kind() string { return "cgroup-write" }

func (*CgroupWrite) Man() string { return "cgroups(7)" }

func (o *CgroupWrite) String() string {
	return fmt.Sprintf("write %q to %s", o.Value, o.File)
}

func (*CgroupWrite) lanes() lanes { return hostLane }

func (o *CgroupWrite) hostNames() []string { return []string{o.File} }

// CgroupEvacuate moves the processes of a cgroup into a leaf below it, because on v2 a cgroup with processes can't give
// controllers to its children (cgroups(7), "no internal processes"). Needed where glassbox runs in a container of its own.
type CgroupEvacuate struct {
	From string `json:"from"`
	To   string `json:"to"`
}

func (*CgroupEvacuate) Kind() string { return "cgroup-evacuate" }

func (*CgroupEvacuate) Man() string { return "cgroups(7)" }

func (o *CgroupEvacuate) String() string {
	return fmt.Sprintf("move the processes of %s to %s", o.From, o.To)
}

func (*CgroupEvacuate) lanes() lanes { return hostLane }

func (o *CgroupEvacuate) hostNames() []string { return []string{o.From, o.To} }

// CgroupOpen opens a cgroup so that the child can be born into it (v2, the directory) or join it (v1, the file
// tasks, see package cgroup).
type CgroupOpen struct {
	Path string `json:"path"`
	Save string `json:"save"`
}

func (*CgroupOpen) Kind() string { return "cgroup-open" }

func (*CgroupOpen) Man() string { return "open(2)" }

func (o *CgroupOpen) String() string {
	return fmt.Sprintf("open cgroup %s as %s", o.Path, o.Save)
}

func (*CgroupOpen) lanes() lanes { return hostLane }

func (o *CgroupOpen) saves() (string, held) { return o.Save, isCgroup }

func (o *CgroupOpen) hostNames() []string { return []string{o.Path} }

// CgroupJoin moves the calling process into the cgroup whose file tasks is open as From (v1).
type CgroupJoin struct {
	From string `json:"from"`
}

func (*CgroupJoin) Kind() string { return "cgroup-join" }

func (*CgroupJoin) Man() string { return "cgroups(7)" }

func (o *CgroupJoin) String() string {
	return "join cgroup " + o.From
}

func (o *CgroupJoin) uses() []use { return []use{{o.From, isCgroup}} }

// CgroupAttach moves the child into a cgroup, from outside. Where the child is in it already, because systemd has put it there,
// the step only makes sure of that.
type CgroupAttach struct {
	Path string `json:"path"`
}

func (*CgroupAttach) Kind() string { return "cgroup-attach" }

func (*CgroupAttach) Man() string { return "cgroups(7)" }

func (o *CgroupAttach) String() string {
	return "move the child into cgroup " + o.Path + ", unless it is there"
}

func (*CgroupAttach) lanes() lanes { return hostLane }

// DeviceFilter attaches a BPF program of type BPF_PROG_TYPE_CGROUP_DEVICE to a v2 cgroup. Rules are for readers, in the
// syntax of v1's devices.allow with a leading "allow" or "deny", applied in order; the last match wins.
type DeviceFilter struct {
	Path    string   `json:"path"`
	Rules   []string `json:"rules"`
	Program []byte   `json:"program"` // eBPF instructions, 8 bytes each, little endian
}

func (*DeviceFilter) Kind() string { return "bpf-device" }

func (*DeviceFilter) Man() string { return "bpf(2)" }

func (o *DeviceFilter) String() string {
	return fmt.Sprintf("attach a device filter of %d rules to %s", len(o.Rules), o.Path)
}

func (*DeviceFilter) lanes() lanes { return hostLane }

func (o *DeviceFilter) hostNames() []string { return []string{o.Path} }
