// Package bundle does what an OCI runtime does with bundles: create, start, state, kill, delete, exec and the rest of runc's
// commands, so that containerd, CRI-O, Docker and Podman can use glassbox in the place of runc.
//
// A bundle (a config.json beside a root file system) is compiled to a plan as every container is; what is special here is that a
// container outlives the process that made it and that nothing stays behind to watch it. What is known of it are a few files,
//
//	ROOT/ID/state.json    what is needed to find, enter and remove the container; written before the container can run
//	ROOT/ID/start/        where a created container waits for start
//	ROOT/ID/plan.bin      the plan, for explaining
//
// and what can be asked of the kernel is asked, not remembered: whether the process lives (pid and start time), whether it has
// come to execve (the flag PF_FORKNOEXEC), whether its cgroup is frozen. So there is no moment at which a killed runtime leaves
// a state that isn't true.
//
// Checkpoints are criu's work (criu.go); a restored container has no plan of its own that ran, only criu's.
//
// Messages follow runc's where callers are known to look at them (containerd's shim, Podman's conmon).
//
// Start reading at [Runtime], then create.go.
package bundle

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"glassbox/host"
	"glassbox/plan"
)

// Runtime is where containers are kept, and how they are made.
type Runtime struct {
	Root          string // directory of state, one directory for each container
	SystemdCgroup bool   // cgroups are made through systemd
	NotifySocket  string // of the service manager that waits for the container's readiness, see notify.go
	// Warn is told what has no effect, and what went wrong without stopping the work.
	Warn func(format string, a ...any)
	// Debug, if it is set, is told the steps of plans before they run.
	Debug func(format string, a ...any)
	// Protect makes sure that a container can't write to this program's executable. It is called where a command that enters no
	// container otherwise is about to, and may start the program again instead of returning.
	Protect func() error

	facts *host.Facts
}

// Messages that callers of runc compare with.
var (
	ErrNotExist   = errors.New("container does not exist")
	ErrExists     = errors.New("container with given ID already exists")
	ErrNotRunning = errors.New("container not running")
	ErrPaused     = errors.New("container is paused")
)

func (r *Runtime) warn(format string, a ...any) {
	if r.Warn != nil {
		r.Warn(format, a...)
	}
}

// debug tells what will be asked of the kernel.
func (r *Runtime) debug(p *plan.Plan) {
	if r.Debug == nil {
		return
	}
	for i, s := range p.Steps {
		r.Debug("step %d/%d [%s] %s (from %s)", i+1, len(p.Steps), s.Lane, s.Op, s.Origin)
	}
}

// Facts probes the host once.
func (r *Runtime) Facts() (*host.Facts, error) {
	if r.facts == nil {
		f, err := host.Probe()
		if err != nil {
			return nil, err
		}
		r.facts = f
	}
	return r.facts, nil
}

// checkID refuses what is no container ID: one to 1024 letters, digits and the characters "_+-.", but neither "." nor "..".
func checkID(id string) error {
	ok := id != "" && id != "." && id != ".." && len(id) <= 1024
	for _, c := range id {
		ok = ok && (c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.ContainsRune("_+-.", c))
	}
	if !ok {
		return fmt.Errorf("invalid container ID %q: it may have letters, digits and the characters _ + - . only", id)
	}
	return nil
}

func (r *Runtime) dir(id string) string { return filepath.Join(r.Root, id) }

// A lock is held while a command works on a container. It is a lock on the container's directory, which the kernel lets go
// when the process ends, however it ends.
type lock struct{ f *os.File }

// lock takes the lock of a container that exists.
func (r *Runtime) lock(id string) (*lock, error) {
	if err := checkID(id); err != nil {
		return nil, err
	}
	for {
		f, err := os.Open(r.dir(id))
		if os.IsNotExist(err) {
			return nil, fmt.Errorf("%w: %q in %s", ErrNotExist, id, r.Root)
		}
		if err != nil {
			return nil, err
		}
		if err := flock(f); err != nil {
			f.Close()
			return nil, err
		}
		if sameFile(f, r.dir(id)) {
			return &lock{f}, nil
		}
		f.Close() // removed, or made anew, while we waited
	}
}

func (l *lock) unlock() { l.f.Close() }

func flock(f *os.File) error {
	for {
		if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); err != unix.EINTR {
			return err
		}
	}
}

func sameFile(f *os.File, path string) bool {
	a, err1 := f.Stat()
	b, err2 := os.Stat(path)
	return err1 == nil && err2 == nil && os.SameFile(a, b)
}

// make makes the directory of a new container and takes its lock. A directory without a state file is what a killed runtime
// left: it is used again, once what its plan had made is taken back.
func (r *Runtime) make(id string) (*lock, error) {
	if err := checkID(id); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(r.Root, 0o700); err != nil {
		return nil, fmt.Errorf("make the state directory: %w", err)
	}
	err := os.Mkdir(r.dir(id), 0o700)
	if err != nil && !os.IsExist(err) {
		return nil, fmt.Errorf("make the state directory: %w", err)
	}
	fresh := err == nil
	f, err := os.Open(r.dir(id))
	if err != nil {
		return nil, err
	}
	how := unix.LOCK_EX
	if !fresh {
		how |= unix.LOCK_NB
	}
	if err := unix.Flock(int(f.Fd()), how); err != nil {
		f.Close()
		return nil, fmt.Errorf("%w: %s", ErrExists, id)
	}
	if _, err := os.Lstat(filepath.Join(r.dir(id), stateFile)); err == nil || !sameFile(f, r.dir(id)) {
		f.Close()
		return nil, fmt.Errorf("%w: %s", ErrExists, id)
	}
	if !fresh {
		r.repair(id)
	}
	return &lock{f}, nil
}
