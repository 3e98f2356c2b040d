// Package supervise is the parent of one container: it runs the container's plan, carries its output to the log and to whoever
// is attached, waits for its end, and takes back what the plan made.
//
// A supervisor is one small process per container (`glassbox-runtime supervise`); there is no daemon behind it. What it has to
// do is a [Job], what it knows a [State]: both are also plain JSON files in the container's directory, so that when a supervisor
// is killed the next command can read what was left and repair it ([Repair]).
//
//	glassbox run ──fork, exec──▶ supervisor ──plan: clone──▶ container
//	     │  descriptors 0 1 2       │  pipes or pty              │
//	     └──session socket (4)──────┘                            │
//	        signals, window sizes →    ← started, error, exit    │
//	   lock file (3): held as long as the supervisor lives ◀─────┘
//	   job (5): in memory
//
// Further processes of a container are started by a second small process, on request ([Doorkeeper]).
//
// Start reading at [Main], then [Repair].
package supervise

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"glassbox/cgroup"
	"glassbox/event"
	"glassbox/network"
	"glassbox/plan"
	"glassbox/state"
)

// Files of a container, in its directory.
const (
	ContainerFile = "container.json"       // what the container is; written last; renamed when the container is removed
	goingFile     = "removed.json"         // container.json of one that is being removed
	goingAllFile  = "removed-volumes.json" // the same, where its anonymous volumes go with it
	VolumesFile   = "volumes.json"         // names of the volumes that are made for it alone; written before they are made
	JobFile       = "start.json"           // the Job of the last start
	PlanFile      = "plan.json"            // its plan
	StateFile     = "state.json"           // the State
	LogFile       = "log"                  // and log.1, log.2 … older
	fieldsFile    = "log.fields"           // Log.Fields of a container in the background, if there are any
)

// A Job is what a supervisor has to do.
type Job struct {
	ID          string      `json:"id"`
	Dir         string      `json:"dir"`      // the container's directory
	NameFile    string      `json:"nameFile"` // removed with the container
	LockFile    string      `json:"lockFile"`
	State       string      `json:"state,omitempty"` // the directory of what is gone at reboot: see [Job.state]
	Actor       event.Actor `json:"actor"`           // what the container is called in events
	Terminal    bool        `json:"terminal"`
	Interactive bool        `json:"interactive"`          // standard input is kept open
	Detached    bool        `json:"detached"`             // nobody is attached
	DetachKeys  []byte      `json:"detachKeys,omitempty"` // typed at a terminal they are the caller's leave; none: nothing is
	Remove      bool        `json:"remove"`               // --rm
	Restart     *Restart    `json:"restart,omitempty"`    // nil: an end is the end
	Health      *Health     `json:"health,omitempty"`     // nil: nobody asks how it is; what is run is the Check
	// Step: the caller is asked before each step; a container that doesn't come to run is removed.
	Step bool `json:"step,omitempty"`
	// Project is the number by which the file system bounds the container's layer; 0: it doesn't.
	Project uint32 `json:"project,omitempty"`
	// Trace is the nanoseconds for which the program is traced, and the rest is timed; 0: neither.
	Trace      int64             `json:"trace,omitempty"`
	Log        Log               `json:"log"`
	Cgroups    map[string]string `json:"cgroups"` // as in compile.Output
	Network    *Network          `json:"network,omitempty"`
	Volumes    []VolumeUse       `json:"volumes,omitempty"` // for events
	Namespaces []string          `json:"namespaces"`        // those of the container that are not the host's
	Process    Process           `json:"process"`           // what its first process is, and those that exec starts are, too
	Undo       []plan.Step       `json:"undo,omitempty"`    // takes back what outlives the container's processes
	Plan       *plan.Plan        `json:"-"`                 // in a file of its own, because it is large and seldom needed
}

// Process is what exec takes over from a container's first process, ready to be used: looking it up again costs more than all else
// that exec does.
type Process struct {
	Env        []string      `json:"env"`
	Cwd        string        `json:"cwd"`
	UID        uint32        `json:"uid"`
	GID        uint32        `json:"gid"`
	Groups     []uint32      `json:"groups,omitempty"`
	Caps       []string      `json:"caps,omitempty"` // bounding; for root also effective and permitted
	NoNewPrivs bool          `json:"noNewPrivs,omitempty"`
	AppArmor   string        `json:"apparmor,omitempty"`
	Filter     *plan.Seccomp `json:"filter,omitempty"`
	// Rlimits and OOMScoreAdj are those of the container's configuration: what it leaves to the host, exec does, too.
	Rlimits     []plan.Rlimit `json:"rlimits,omitempty"`
	OOMScoreAdj *int          `json:"oomScoreAdj,omitempty"`
}

// VolumeUse is a volume that a container has.
type VolumeUse struct {
	Name     string `json:"name"`
	Target   string `json:"target"`
	ReadOnly bool   `json:"readOnly,omitempty"`
}

// Network is what a container holds on the host beside links and rules.
type Network struct {
	State  string          `json:"state"` // network.Store's
	Leases []Lease         `json:"leases,omitempty"`
	Ports  []plan.PortRule `json:"ports,omitempty"`
	// Address is all that a job of an earlier version has instead of Leases: one on the default network.
	Address string `json:"address,omitempty"`
}

// Lease is an address that a container has on one of its networks.
type Lease struct {
	Network string `json:"network"`
	Address string `json:"address"`
}

// All are the leases, whichever version wrote the job.
func (n *Network) All() []Lease {
	if n.Address != "" {
		return append([]Lease{{network.Bridge, n.Address}}, n.Leases...)
	}
	return n.Leases
}

// Statuses of a container.
const (
	Created = "created"
	Running = "running"
	Paused  = "paused"
	Exited  = "exited"
	// Restarting: between two runs its supervisor waits, and holds the lock.
	Restarting = "restarting"
)

// PausedDir is where in the directory of state a file stands for each container that is paused, under its ID.
const PausedDir = "paused"

// endsDir is where in the directory of state the ends stand for which there was no room in the containers' directories.
const endsDir = "ends"

// State is what is known of a container's process.
type State struct {
	Status    string    `json:"status"`
	PID       int       `json:"pid,omitempty"`   // on the host, while it runs
	Start     uint64    `json:"start,omitempty"` // start time of PID (see plan.OpenPid)
	Boot      string    `json:"boot,omitempty"`  // boot id of the host at the start
	Started   time.Time `json:"started,omitzero"`
	Began     time.Time `json:"-"` // the same by the monotonic clock, in the process that started it
	Finished  time.Time `json:"finished,omitzero"`
	ExitCode  int       `json:"exitCode"`
	OOMKilled bool      `json:"oomKilled,omitempty"`
	Error     string    `json:"error,omitempty"` // why it could not start, or how it was lost
	// Restarts is how many runs the restart policy has begun since somebody started the container, and Backoff how long the last of
	// them was, or is, waited for.
	Restarts int           `json:"restarts,omitempty"`
	Backoff  time.Duration `json:"backoff,omitempty"`
	// Supervisor is the process that waits to start it again, and SupervisorStart its start time; zero unless Restarting.
	Supervisor      int    `json:"supervisor,omitempty"`
	SupervisorStart uint64 `json:"supervisorStart,omitempty"`
	// Before is the run before this one, if the policy has begun this one: who waits for its end may come too late for it.
	Before *Run `json:"before,omitempty"`
	// Ports are those that are published while it runs: a list of many containers needs them, and the job they come from is large.
	Ports []plan.PortRule `json:"ports,omitempty"`
	Stats *cgroup.Stats   `json:"stats,omitempty"` // counters of the cgroup at the end
	Times *plan.Times     `json:"times,omitempty"` // when each step of the last start was made
}

// Run is one that is over.
type Run struct {
	Started  time.Time `json:"started"`
	ExitCode int       `json:"exitCode"`
}

// Alive reports whether a container has processes: it runs, or is paused. That somebody holds its lock says nothing of that: it may be
// about to be started or removed, or waiting for its next run.
func (s *State) Alive() bool { return s.Status == Running || s.Status == Paused }

// state is the directory of what is gone at reboot. Jobs of earlier builds have only the lock's file, which is in a directory there.
func (j *Job) state() string {
	if j.State == "" && j.LockFile != "" {
		return filepath.Dir(filepath.Dir(j.LockFile))
	}
	return j.State
}

// RecordEnd writes down how a container ended: in its directory or, where there is no room (the container itself may have filled the
// disk), beside the locks, from where [ReadEnd] takes it. An end that is written nowhere would be found out as a killed supervisor's.
func RecordEnd(job *Job, s *State) error {
	err := WriteState(job.Dir, s)
	if err == nil {
		return nil
	}
	dir := filepath.Join(job.state(), endsDir)
	for range 3 { // somebody may take the directory away because it was empty
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return err
		}
		if err = state.WriteJSON(filepath.Join(dir, job.ID+".json"), s); !os.IsNotExist(err) {
			break
		}
	}
	return err
}

// ForgetEnd removes what RecordEnd has written beside the locks.
func ForgetEnd(stateDir, id string) {
	dir := filepath.Join(stateDir, endsDir)
	if os.Remove(filepath.Join(dir, id+".json")) == nil {
		os.Remove(dir) // if it is empty
	}
}

// ReadEnd reads the end of a run, of which a container's directory only knows that it began, and moves it there if there is room by now.
func ReadEnd(stateDir, dir, id string, run *State) (*State, bool) {
	name := filepath.Join(stateDir, endsDir, id+".json")
	var end State
	if state.ReadJSON(name, &end) != nil || !end.Started.Equal(run.Started) {
		return nil, false
	}
	if WriteState(dir, &end) == nil {
		ForgetEnd(stateDir, id)
	}
	return &end, true
}

// ReadJob reads the job of a container's last start.
func ReadJob(dir string) (*Job, error) {
	var j Job
	if err := state.ReadJSON(filepath.Join(dir, JobFile), &j); err != nil {
		return nil, err
	}
	return &j, nil
}

// ReadPlan reads the plan of a container's last start.
func ReadPlan(dir string) (*plan.Plan, error) {
	var p plan.Plan
	if err := state.ReadJSON(filepath.Join(dir, PlanFile), &p); err != nil {
		return nil, err
	}
	return &p, nil
}

// ReadState reads a container's state. Without a file the container has only been created.
func ReadState(dir string) (*State, error) {
	var s State
	err := state.ReadJSON(filepath.Join(dir, StateFile), &s)
	if os.IsNotExist(err) {
		return &State{Status: Created}, nil
	}
	if err != nil {
		return nil, err
	}
	if !slices.Contains([]string{Created, Running, Paused, Exited, Restarting}, s.Status) {
		return nil, &os.PathError{Op: "read", Path: filepath.Join(dir, StateFile), Err: fmt.Errorf("it says status %.20q", s.Status)}
	}
	return &s, nil
}

// WriteState replaces a container's state.
func WriteState(dir string, s *State) error {
	return state.WriteJSON(filepath.Join(dir, StateFile), s)
}

// BootID identifies the current boot of the host.
func BootID() string {
	data, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil || len(data) < 36 {
		return ""
	}
	return string(data[:36])
}
