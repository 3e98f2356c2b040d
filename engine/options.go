package engine

import (
	"time"

	"glassbox/container"
	"glassbox/image"
	"glassbox/plan"
)

// CreateOptions says what container to make.
type CreateOptions struct {
	Name   string // empty: one is chosen
	Starts bool   // the caller's Start follows at once: it, not Create, waits until the container is on the disk
	container.Config
}

// ExecOptions says what to run in a running container.
type ExecOptions struct {
	Streams
	Command     []string
	TTY         bool
	Interactive bool
	Detach      bool
	Privileged  bool
	User        string
	Workdir     string
	Env         []string
	EnvFile     []string
	Environ     []string
	ConsoleSize [2]uint16
}

// StartOptions says what the caller wants of a start.
type StartOptions struct {
	Attach bool // pass on the container's output (and, with Interactive, input)
	Streams
	// Interactive connects Stdin. Without it a container that was created with -i reads end of file.
	Interactive bool
	Explain     func(*plan.Plan) // called with the plan before it runs
	ConsoleSize [2]uint16
	// Before, if it is set, is called before each step of the plan, of both lanes, in the order of [plan.Plan.Order]: all before are
	// done, and the container's process, if there is one, waits. An error ends the start: what was made is taken back, the container is
	// removed if it never ran, and Start returns that error. The child makes two system calls more before each of its steps, which are
	// not in the plan.
	Before func(*Stop) error
	// TraceFor is how long after execve the program's system calls are noted in the [Observer]'s trace, beside what the start took. It is
	// slower as long. All is there when Session.Wait has returned, or without Attach Session.Traced. Not with Before.
	TraceFor time.Duration
}

// A Stop is a moment before a step of a start.
type Stop struct {
	Container *container.Container
	Plan      *plan.Plan
	Index     int // of the step
	PID       int // of the half-built container's process; 0: there is none yet
}

// LogOptions says which lines of a container's log to print.
type LogOptions struct {
	Follow     bool
	Tail       int // -1: all
	Since      time.Time
	Until      time.Time
	Timestamps bool
	Details    bool // labels, variables and tag that --log-opt asked for
}

// ListOptions selects containers.
type ListOptions struct {
	All     bool     // also those that don't run
	Filters []string // status=, name=, id=, label=, ancestor=, exited=, network=, volume=, before=, since= …
	Last    int
	// Unreadable is told of each container that can't be listed, because its container.json can't be read. Nil: nobody.
	Unreadable func(id string, err error)
	Size       bool // also what their files take, which takes as long as reading all their directories
}

// Config places the engine.
type Config struct {
	Root    string // images, containers, volumes: /var/lib/glassbox
	State   string // what is gone at reboot: /run/glassbox
	Runtime string // path of glassbox-runtime
	// Remember keeps what was read of containers for the next list, as long as their files are the same: for a process that lives long.
	Remember bool
}

// Images is the engine's image store.
func (e *Engine) Images() *image.Store { return e.images }
