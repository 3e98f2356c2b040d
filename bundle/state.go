package bundle

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"glassbox/cgroup"
	"glassbox/fork"
	"glassbox/oci"
	"glassbox/plan"
	"glassbox/resctrl"
	"glassbox/state"
	"glassbox/systemd"
)

const (
	stateFile  = "state.json"
	configFile = "config.json"
	undoFile   = "undo.json"
	planFile   = "plan.bin"
)

// Statuses of a container (runtime-spec, runtime.md, State) and the one that runc adds.
const (
	Creating = "creating"
	Created  = "created"
	Running  = "running"
	Paused   = "paused"
	Stopped  = "stopped"
)

// record is what is known of a container: the file state.json.
type record struct {
	Format      int               `json:"format"` // of this file
	OCIVersion  string            `json:"ociVersion"`
	ID          string            `json:"id"`
	Bundle      string            `json:"bundle"`
	Rootfs      string            `json:"rootfs"`
	Created     time.Time         `json:"created"`
	Owner       int               `json:"owner"` // user ID
	PID         int               `json:"pid"`
	Start       uint64            `json:"start"` // start time of the process, see fork.StartTime
	Annotations map[string]string `json:"annotations,omitempty"`
	Cgroups     map[string]string `json:"cgroups,omitempty"` // by controller, see cgroup.Setup
	Parents     []string          `json:"parents,omitempty"` // of these that were made for it, the highest first
	Unit        string            `json:"unit,omitempty"`    // of systemd's, the container is in
	Systemd     *systemd.Facts    `json:"systemd,omitempty"` // which made it
	resctrl.Place
	Namespaces []string `json:"namespaces"`      // those that aren't the host's
	Hooks      []string `json:"hooks,omitempty"` // the kinds that the configuration has and that are still to come
	Restored   bool     `json:"restored"`        // the process comes from criu, and has never been at an execve
	SharedPIDs bool     `json:"sharedPids"`      // there is no PID namespace of its own, with which all processes would end

	spec  *specs.Spec // once it is needed, see config
	left  *leftovers  // of a container that this process has created
	ready *notifier   // of one that this process has started

	hooked bool // hooks of the creation have begun to run
}

const recordFormat = 2

// config returns the configuration that the container was created with.
func (r *Runtime) config(c *record) (*specs.Spec, error) {
	if c.spec != nil {
		return c.spec, nil
	}
	path := filepath.Join(r.dir(c.ID), configFile)
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	spec, _, err := oci.Parse(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	// The text is the one that was given. What the specification leaves out is filled in again, in the same way.
	oci.Complete(spec, c.Bundle)
	c.spec = spec
	return spec, nil
}

// State is what `state` and `list` print: runc's fields in runc's order.
type State struct {
	OCIVersion  string            `json:"ociVersion"`
	ID          string            `json:"id"`
	PID         int               `json:"pid"`
	Status      string            `json:"status"`
	Bundle      string            `json:"bundle"`
	Rootfs      string            `json:"rootfs"`
	Created     time.Time         `json:"created"`
	Annotations map[string]string `json:"annotations,omitempty"`
	Owner       string            `json:"owner"`
}

// writeFile replaces a file. One command at a time writes here, with the container's lock, and the directory is on a file system in memory
// as a rule: there is nothing to be synced for a crash of the machine.
func writeFile(path string, data []byte) error { return state.WriteFile(path, data, 0o600) }

func (r *Runtime) load(id string) (*record, error) {
	if err := checkID(id); err != nil {
		return nil, err
	}
	path := filepath.Join(r.dir(id), stateFile)
	data, err := os.ReadFile(path)
	if os.IsNotExist(err) {
		return nil, fmt.Errorf("%w: %q in %s", ErrNotExist, id, r.Root)
	}
	if err != nil {
		return nil, err
	}
	c := &record{}
	if _, err := oci.Decode(data, c); err != nil {
		return nil, fmt.Errorf("the state file %s is damaged: %w; delete --force %s removes what can be found of the container", path, err, id)
	}
	// Another version's file could be read, and mean something else.
	if c.Format != recordFormat || c.ID != id {
		return nil, fmt.Errorf("the state file %s is damaged or of another version (format %d, id %q)", path, c.Format, c.ID)
	}
	return c, nil
}

// open loads a container and takes its lock.
func (r *Runtime) open(id string) (*record, *lock, error) {
	l, err := r.lock(id, false)
	if err != nil {
		return nil, nil, err
	}
	c, err := r.load(id)
	if err != nil {
		l.unlock()
		return nil, nil, err
	}
	return c, l, nil
}

// plan reads the plan by which a container was made.
func (r *Runtime) plan(id string) (*plan.Plan, error) {
	data, err := os.ReadFile(filepath.Join(r.dir(id), planFile))
	if err != nil {
		return nil, err
	}
	p := &plan.Plan{}
	return p, plan.ReadBinary(data, p)
}

// status asks the kernel.
func (c *record) status() string {
	alive, forked := c.process()
	switch {
	case !alive:
		return Stopped
	// Frozen before created: a created container may be paused, and start has to be told so.
	case c.frozen():
		return Paused
	case forked && !c.Restored:
		return Created
	}
	return Running
}

// process reports whether the container's first process lives, and whether it is still before its execve.
func (c *record) process() (alive, forked bool) {
	if c.PID <= 0 {
		return false, false
	}
	// A zombie counts as ended: what the OCI specification calls stopped is that its program is over, whoever waits for it.
	s, err := fork.ReadStat(c.PID)
	if err != nil || s.Start != c.Start || s.Ended() {
		return false, false
	}
	return true, s.Forked()
}

func (c *record) frozen() bool {
	if len(c.Cgroups) == 0 {
		return false
	}
	frozen, err := cgroup.Frozen(c.Cgroups)
	return err == nil && frozen
}

// state makes what `state` prints.
func (c *record) state() State {
	s := State{
		OCIVersion: c.OCIVersion, ID: c.ID, Status: c.status(), Bundle: c.Bundle, Rootfs: c.Rootfs, Created: c.Created,
		Annotations: c.Annotations,
		Owner:       userName(c.Owner),
	}
	if s.Status != Stopped {
		s.PID = c.PID
	}
	return s
}

// hookState is the state in the form that hooks read.
func (c *record) hookState(status string, pid int) ([]byte, error) {
	return json.Marshal(specs.State{
		Version: c.OCIVersion, ID: c.ID, Status: specs.ContainerState(status), Pid: pid, Bundle: c.Bundle,
		Annotations: c.Annotations,
	})
}

// State returns the state of a container.
func (r *Runtime) State(id string) (State, error) {
	c, err := r.load(id)
	if err != nil {
		return State{}, err
	}
	return c.state(), nil
}

// List returns the states of all containers, in the order of their names. What can't be read is warned of.
func (r *Runtime) List() ([]State, error) {
	entries, err := os.ReadDir(r.Root)
	if os.IsNotExist(err) && !r.GivenRoot {
		err = nil // there hasn't been a container yet
	}
	if err != nil {
		return nil, fmt.Errorf("--root: %w", err)
	}
	states := []State{}
	for _, e := range entries {
		if !e.IsDir() || checkID(e.Name()) != nil {
			continue
		}
		// Looked for first, so that a container which is being made isn't warned of as damaged.
		if _, err := os.Lstat(filepath.Join(r.dir(e.Name()), stateFile)); err != nil {
			continue // being made, or left by a killed runtime
		}
		c, err := r.load(e.Name())
		if err != nil {
			r.warn("%v", err)
			continue
		}
		states = append(states, c.state())
	}
	return states, nil
}

// userName finds a user's name without NSS, which a static program doesn't have.
func userName(uid int) string {
	data, err := os.ReadFile("/etc/passwd")
	if err == nil {
		for line := range bytes.Lines(data) {
			f := bytes.SplitN(line, []byte(":"), 4)
			if len(f) == 4 && string(f[2]) == strconv.Itoa(uid) {
				return string(f[0])
			}
		}
	}
	return "#" + strconv.Itoa(uid)
}

// kill sends a signal to the container's first process, which may not be another one of the same number.
func (c *record) signal(sig unix.Signal) error {
	fd, err := unix.PidfdOpen(c.PID, 0)
	if err == nil {
		defer unix.Close(fd)
		if start, e := fork.StartTime(c.PID); e != nil || start != c.Start {
			return unix.ESRCH
		}
		err = unix.PidfdSendSignal(fd, sig, nil, 0)
	}
	return err
}

// Live returns the plan of a container and the process that it was made for, with that process's start time.
func (r *Runtime) Live(id string) (p *plan.Plan, pid int, start uint64, err error) {
	c, err := r.load(id)
	if err != nil {
		return nil, 0, 0, err
	}
	if alive, _ := c.process(); !alive {
		return nil, 0, 0, fmt.Errorf("%s: %w", id, ErrNotRunning)
	}
	if p, err = r.plan(id); err != nil {
		return nil, 0, 0, fmt.Errorf("the plan of container %s: %w", id, err)
	}
	return p, c.PID, c.Start, nil
}
