package plan

import (
	"fmt"
)

// newLanesOp makes an empty step of one of the kinds of this file, or nil: where the lanes wait for one another, and for others.
func newLanesOp(kind string) Op {
	switch kind {
	case "release":
		return &Release{}
	case "await":
		return &Await{}
	case "notify":
		return &Notify{}
	case "expect":
		return &Expect{}
	case "await-start":
		return &AwaitStart{}
	case "hook":
		return &Hook{}
	}
	return nil
}

// Release lets the child continue after the Await of the same name.
type Release struct {
	Name string `json:"name"`
}

func (*Release) Kind() string { return "release" }

func (*Release) Man() string { return "pipe(7)" }

func (o *Release) String() string {
	return "let the child go on: " + o.Name
}

func (*Release) lanes() lanes { return hostLane }

// Await stops the child until the parent comes to the Release of the same name.
type Await struct {
	Name string `json:"name"`
}

func (*Await) Kind() string { return "await" }

func (*Await) Man() string { return "pipe(7)" }

func (o *Await) String() string {
	return "wait for the parent: " + o.Name
}

// Notify tells the parent that the child has come this far; the parent waits for it with the Expect of the same name.
type Notify struct {
	Name string `json:"name"`
}

func (*Notify) Kind() string { return "notify" }

func (*Notify) Man() string { return "pipe(7)" }

func (o *Notify) String() string {
	return "tell the parent: " + o.Name
}

// Expect stops the parent until the child comes to the Notify of the same name.
type Expect struct {
	Name string `json:"name"`
}

func (*Expect) Kind() string { return "expect" }

func (*Expect) Man() string { return "pipe(7)" }

func (o *Expect) String() string {
	return "wait for the child: " + o.Name
}

func (*Expect) lanes() lanes { return hostLane }

// AwaitStart stops the child, ready but for execve, until somebody opens File of the directory saved as Dir for reading: that is
// how `create` and `start` of an OCI runtime are two commands. File is a FIFO, which blocks whoever opens it for writing until
// there is a reader (fifo(7)). From here on the child reports errors through it.
type AwaitStart struct {
	Dir  string `json:"dir"`
	File string `json:"file"`
}

func (*AwaitStart) Kind() string { return "await-start" }

func (*AwaitStart) Man() string { return "fifo(7)" }

func (o *AwaitStart) String() string {
	return fmt.Sprintf("wait at the FIFO %s in %s until the container is started", o.File, o.Dir)
}

func (o *AwaitStart) uses() []use { return []use{{o.Dir, isFile | isMount}} }

// Hook runs a program of the host beside the child, with the container's state on its standard input (runtime-spec, config.md,
// POSIX-platform hooks). A status other than 0 fails the step.
type Hook struct {
	Name    string   `json:"name"` // prestart createRuntime createContainer
	Path    string   `json:"path"`
	Args    []string `json:"args,omitempty"` // with the program's own name first
	Env     []string `json:"env,omitempty"`
	Inherit bool     `json:"inherit,omitempty"` // instead of Env: the environment of whoever runs the plan
	Dir     string   `json:"dir,omitempty"`     // working directory
	Timeout int      `json:"timeout,omitempty"` // seconds; 0: none
	Enter   bool     `json:"enter,omitempty"`   // in all of the child's namespaces, as their root, before its root changes
}

func (*Hook) Kind() string { return "hook" }

func (*Hook) Man() string { return "execve(2)" }

func (o *Hook) String() string {
	return fmt.Sprintf("run the %s hook %s%s%s", o.Name, o.Path, when(o.Dir != "", " in "+o.Dir),
		when(o.Enter, ", in the container's namespaces"))
}

func (*Hook) lanes() lanes { return hostLane }

func (o *Hook) hostNames() []string { return []string{o.Path} }
