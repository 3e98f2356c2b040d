// Package plan describes the start of a container as data.
//
// A [Plan] is an ordered list of [Step] values. Each step is one request to the kernel (or a handful that make sense only
// together, such as fsopen, fsconfig, fsmount and move_mount), knows the lane that makes it, where it comes from and why it
// is there. Nothing in this package asks the kernel for anything: it builds on any operating system.
//
// There are two lanes:
//
//	host   ──prepare──▶ clone ──▶ wire the network ──▶ release ─────────▶ receive descriptors …
//	                      │                               │
//	child                 └──▶ mounts, root, devices ──▶ await ──▶ privileges ──▶ execve
//
// The host lane is ordinary code of the parent. The child lane is executed by the cloned process, which can do nothing but
// system calls (see package fork), and for that reason its steps hold no conditions beyond those that their type documents.
//
// Descriptors travel between steps by name: a step with a Save field stores a descriptor, a step with a From field uses it.
// Descriptors that the host lane saves before the clone exist in the child under the same name.
//
// Start reading at [Plan], then op.go and the files op_*.go, where every kind of step stands with its man page.
package plan

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"glassbox/plan/lazyjson"
)

// Version is the version of the JSON form. A plan with another major version is refused.
const Version = 1

// Lane says who makes a step: the parent or the cloned child before execve.
type Lane string

// The two lanes.
const (
	Host  Lane = "host"
	Child Lane = "child"
)

// Phase groups steps for a reader. It has no effect on execution.
type Phase string

// The phases in the order in which they usually appear.
const (
	Limits     Phase = "limits"     // cgroups
	Sources    Phase = "sources"    // what is taken from the host before anything is isolated
	Isolation  Phase = "isolation"  // namespaces
	Network    Phase = "network"    // links, addresses, routes, firewall
	Rootfs     Phase = "rootfs"     // the root file system and pivot_root
	Mounts     Phase = "mounts"     // everything mounted below the new root
	Devices    Phase = "devices"    // /dev
	Kernel     Phase = "kernel"     // hostname, sysctls, limits of the process
	Terminal   Phase = "terminal"   // stdio and the pty
	Privileges Phase = "privileges" // ids, capabilities, seccomp
	Exec       Phase = "exec"       // the program
)

// A Step is one entry of a plan.
type Step struct {
	Lane  Lane  // who makes it
	Phase Phase // what it belongs to, for readers
	Op    Op    // what is asked of the kernel
	// Origin is where the step comes from: a flag as typed ("--memory=50m"), a JSON pointer into the OCI configuration
	// ("/mounts/3"), "image config", or "default".
	Origin string
	// Reason is one sentence that a learner understands.
	Reason string
}

// A Plan is what glassbox will ask of the kernel to start one process.
type Plan struct {
	Version int    `json:"version"`
	Arch    string `json:"arch"` // GOARCH of the system call numbers and the seccomp filter
	Steps   []Step `json:"steps"`
}

// step is the JSON form of Step: T is Op to write it, and json.RawMessage to read it.
type step[T any] struct {
	Lane   Lane   `json:"lane"`
	Phase  Phase  `json:"phase"`
	Kind   string `json:"op"`
	Args   T      `json:"args"`
	Origin string `json:"origin,omitempty"`
	Reason string `json:"reason,omitempty"`
}

var errNoOp = errors.New("step without an op")

// MarshalJSON writes the step with the kind of its op beside its arguments.
func (s Step) MarshalJSON() ([]byte, error) {
	if s.Op == nil {
		return nil, errNoOp
	}
	return lazyjson.Marshal(step[Op]{s.Lane, s.Phase, s.Op.Kind(), s.Op, s.Origin, s.Reason})
}

// MarshalJSON writes the plan in one go, which is much faster than step by step.
func (p *Plan) MarshalJSON() ([]byte, error) {
	steps := make([]step[Op], len(p.Steps))
	for i, s := range p.Steps {
		if s.Op == nil {
			return nil, errNoOp
		}
		steps[i] = step[Op]{s.Lane, s.Phase, s.Op.Kind(), s.Op, s.Origin, s.Reason}
	}
	const typical = 512 // bytes of a step
	return lazyjson.Append(make([]byte, 0, typical*(len(steps)+1)), struct {
		Version int        `json:"version"`
		Arch    string     `json:"arch"`
		Steps   []step[Op] `json:"steps"`
	}{p.Version, p.Arch, steps})
}

// UnmarshalJSON refuses kinds of steps and arguments that this version does not know: a plan that is only half understood
// must not run.
func (s *Step) UnmarshalJSON(data []byte) error {
	var j step[json.RawMessage]
	if err := unmarshalStrict(data, &j); err != nil {
		return err
	}
	op := newOp(j.Kind)
	if op == nil {
		return fmt.Errorf("unknown step %q: the plan was made by a newer or another version of glassbox", j.Kind)
	}
	if err := unmarshalStrict(j.Args, op); err != nil {
		return fmt.Errorf("step %s: %w", j.Kind, err)
	}
	*s = Step{j.Lane, j.Phase, op, j.Origin, j.Reason}
	return nil
}

// Count says how many steps each lane makes.
func (p *Plan) Count() (host, child int) {
	for _, s := range p.Steps {
		if s.Lane == Host {
			host++
		}
	}
	return host, len(p.Steps) - host
}

// Hash returns "sha256:" and the hexadecimal digest of the canonical JSON form.
func (p *Plan) Hash() (string, error) {
	data, err := p.MarshalJSON()
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(data)
	return "sha256:" + hex.EncodeToString(sum[:]), nil
}

// Validate reports whether the plan can be executed: its strings mean to the kernel what they mean to a reader, lanes and phases are
// known, every descriptor is saved before it is used, is of the kind that is needed and in a lane that the user can see, there is
// exactly one clone, nothing precedes it in the child, and the child ends in execve.
func (p *Plan) Validate() error {
	if p.Version != Version {
		return fmt.Errorf("plan version %d: this glassbox understands version %d", p.Version, Version)
	}
	if err := p.checkStrings(); err != nil {
		return err
	}
	host, child := map[string]held{}, map[string]held{}
	cloned, second, adopted, exec := false, false, false, false
	for i, s := range p.Steps {
		fail := func(format string, a ...any) error {
			return fmt.Errorf("plan: step %d/%d: %s", i+1, len(p.Steps), fmt.Sprintf(format, a...))
		}
		if s.Op == nil {
			return fail("no op")
		}
		if !slices.Contains(Lanes(s.Op), s.Lane) {
			return fail("%s can't be made in lane %q", s.Op.Kind(), s.Lane)
		}
		seen := host
		if s.Lane == Child {
			seen = child
			if !cloned {
				return fail("%s in the child before there is one", s.Op.Kind())
			}
			if exec {
				return fail("%s after execve", s.Op.Kind())
			}
		}
		if c, ok := s.Op.(checker); ok {
			if err := c.check(); err != nil {
				return fail("%s: %v", s.Op.Kind(), err)
			}
		}
		if err := needs(s.Op, seen); err != nil {
			return fail("%s %v", s.Op.Kind(), err)
		}
		saved := []map[string]held{seen}
		if s.Lane == Host && !cloned {
			saved = append(saved, child) // the child is a copy of the parent
		}
		if err := save(s.Op, saved...); err != nil {
			return fail("%s %v", s.Op.Kind(), err)
		}
		switch s.Op.(type) {
		case *Clone:
			if s.Lane == Host && cloned || s.Lane == Child && second {
				return fail("a second clone")
			}
			cloned, second = true, second || s.Lane == Child
		case *Adopt:
			if !cloned || adopted {
				return fail("there is no child to adopt")
			}
			adopted = true
		case *Execve:
			exec = true
		}
	}
	if !cloned || !exec {
		return fmt.Errorf("plan: it has no clone or no execve")
	}
	if second != adopted {
		return fmt.Errorf("plan: the child's clone and the parent's adopt need one another")
	}
	return nil
}

// Namespaces are those that the process leaves the host's for, new ones and others', in the order of their names.
func (p *Plan) Namespaces() []string {
	var names []string
	for _, s := range p.Steps {
		switch o := s.Op.(type) {
		case *Clone:
			names = append(names, o.Namespaces...)
		case *Unshare:
			names = append(names, o.Namespaces...)
		case *Setns:
			names = append(names, o.Namespaces...)
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// FileSystem returns the file system that a step attaches, as if both were one step: the FSMount that made it detached, with a
// target. It is nil if the step attaches something else, or a file system that was given files in between.
func (p *Plan) FileSystem(o *MoveMount) (whole *FSMount) {
	for _, s := range p.Steps {
		switch made := s.Op.(type) {
		case *FSMount:
			if made.Target == "" && made.Save == o.From {
				copied := *made
				whole, copied.Target, copied.KeepMode = &copied, o.Target, o.KeepMode
				copied.Propagation = slices.Concat(made.Propagation, o.Propagation)
			}
		case *CopyUp:
			if made.To == o.From {
				return nil
			}
		}
	}
	return whole
}

// Undo returns the host-lane steps that take back what the first n steps of p made and that outlives the child, last made
// first. Descriptors need no undoing: they close with the process that runs the plan.
func (p *Plan) Undo(n int) []Step {
	var undo []Step
	for i := min(n, len(p.Steps)) - 1; i >= 0; i-- {
		s := p.Steps[i]
		u, ok := s.Op.(undoer)
		if !ok {
			continue
		}
		for _, op := range u.Undo() {
			undo = append(undo, Step{Host, s.Phase, op, s.Origin, fmt.Sprintf("Takes back step %d.", i+1)})
		}
	}
	return undo
}
