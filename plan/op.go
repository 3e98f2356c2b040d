package plan

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"slices"
)

// Op is one request to the kernel. The set is closed: all kinds stand in the files op_*.go, each with all that this package knows of
// it, so that a new kind is written in one place: its type, its name, its sentence, and those of the interfaces below that it needs.
type Op interface {
	// Kind is the name of the op in the JSON form and in tables: the system call's name where there is one.
	Kind() string
	// String describes the op in one line, without the reason.
	String() string
	// Man is the manual page that tells more, like "mount(2)".
	Man() string
}

// What an op may have beside these.
type (
	// laner is an op that isn't for the child alone.
	laner interface{ lanes() lanes }
	// saver stores a descriptor under a name, which may be "".
	saver interface{ saves() (string, held) }
	// user needs descriptors that earlier steps stored.
	user interface{ uses() []use }
	// checker finds out whether the op's own fields make sense.
	checker interface{ check() error }
	// namer names paths, devices, links, units of the host.
	namer interface{ hostNames() []string }
	// undoer is an op whose effect outlives the process that made it.
	undoer interface{ Undo() []Op }
)

// lanes are those in which a kind of step can be made.
type lanes uint8

const (
	childLane lanes = iota
	hostLane
	bothLanes
)

// Lanes says in which lanes an op can be made.
func Lanes(op Op) []Lane {
	l, ok := op.(laner)
	switch {
	case !ok:
		return []Lane{Child}
	case l.lanes() == bothLanes:
		return []Lane{Host, Child}
	}
	return []Lane{Host}
}

// held is what a descriptor stands for, one bit for each use that it is good for.
type held uint16

const (
	isCgroup    held = 1 << iota // a directory or file of a cgroup
	isMount                      // a mount that can be attached
	isProc                       // the root of a procfs
	isNull                       // a null device, verified
	isDir                        // a directory of the container
	isFile                       // a file of the host
	isNamespace                  // a namespace, or a process with all of its own
	isTerminal                   // the container's end of a terminal that the child has opened
	isListener                   // the listener of a system call filter
	isReceived                   // whatever the other lane has sent
	isStream                     // what whoever runs the plan gives to the process as its standard streams
)

// nullDevice is what hides files (CVE-2025-31133: a fake /dev/null).
const nullDevice = "c 1:3"

// use is a descriptor that a step needs, and what it must be.
type use struct {
	name string
	as   held
}

// streams are names of descriptors that no step may save: whoever runs the plan gives them.
func streams() []string { return []string{"stdin", "stdout", "stderr"} }

// needs reports what is missing of the descriptors that an op uses. It must be the right kind, too: a step that says "make stdin
// descriptor 0" hands the host's root to the program if an earlier one saved a mount of / as stdin.
func needs(op Op, seen map[string]held) error {
	u, ok := op.(user)
	if !ok {
		return nil
	}
	for _, d := range u.uses() {
		is, saved := seen[d.name]
		switch {
		case d.name == "" || !saved && d.as&isStream != 0: // whoever runs the plan has to have it
		case !saved:
			return fmt.Errorf("uses the descriptor %q, which no earlier step of its lane saved", d.name)
		case is&d.as == 0:
			return fmt.Errorf("uses the descriptor %q, which is none of the kind that it needs", d.name)
		}
	}
	return nil
}

// save notes what an op saves.
func save(op Op, seen ...map[string]held) error {
	s, ok := op.(saver)
	if !ok {
		return nil
	}
	name, is := s.saves()
	if name == "" {
		return nil
	}
	if slices.Contains(streams(), name) {
		return fmt.Errorf("saves a descriptor as %q, which is the name of a stream of whoever runs the plan", name)
	}
	for _, m := range seen {
		m[name] = is
	}
	return nil
}

// HostNames are the paths of the host that an op uses, and the names of the host's links, tables and units.
func HostNames(op Op) []string {
	if n, ok := op.(namer); ok {
		return n.hostNames()
	}
	return nil
}

// newOp returns an empty op of a kind, or nil.
func newOp(kind string) Op {
	for _, family := range [...]func(string) Op{
		newCgroupOp, newSystemdOp, newResctrlOp, newNamespaceOp, newLanesOp,
		newRootOp, newMountOp, newHostMountOp, newFileOp, newSettingOp, newProcessOp,
		newDescriptorOp, newTerminalOp, newPrivilegeOp, newExecOp, newLinkOp,
		newNftOp,
		newNameOp,
		newFirewallOp,
		newWallOp,
		newRateOp,
		newGuardOp,
		newQuotaOp,
	} {
		if op := family(kind); op != nil {
			return op
		}
	}
	return nil
}

func unmarshalStrict(data []byte, v any) error {
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return err
	}
	if _, err := d.Token(); err != io.EOF {
		return fmt.Errorf("data after the value")
	}
	return nil
}
