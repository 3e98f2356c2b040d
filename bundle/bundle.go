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
	"time"

	"golang.org/x/sys/unix"

	"glassbox/host"
	"glassbox/oci"
	"glassbox/plan"
)

// Runtime is where containers are kept, and how they are made.
type Runtime struct {
	Root          string // directory of state, one directory for each container
	GivenRoot     bool   // it isn't the default: somebody expects it to be there
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

// problems tells warnings of a configuration.
func (r *Runtime) problems(where string, list []oci.Problem) {
	for _, p := range list {
		switch {
		case !p.Usual:
			r.warn("%s: %s", where, p.Error())
		case r.Debug != nil:
			r.Debug("%s: %s", where, p.Error())
		}
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

// A lock is held while a command changes a container. It is a lock on the container's directory, which the kernel lets go when the
// process ends, however it ends.
//
// It is never held while something is waited for that another command may have to bring about: while hooks run, which may call this
// runtime themselves, while an exec starts in a paused container, while a program runs. What may have changed meanwhile is looked at
// again. A start has a lock of its own, so that there are no two at a time, see [Runtime.starting].
type lock struct{ f *os.File }

// patience is how long a command waits for another one that works on the same container.
const patience = 30 * time.Second

// lock takes the lock of a container that exists, or with half one that may be half made.
func (r *Runtime) lock(id string, half bool) (*lock, error) {
	if err := checkID(id); err != nil {
		return nil, err
	}
	deadline := time.Now().Add(patience)
	for wait := time.Millisecond; ; wait = min(2*wait, 50*time.Millisecond) {
		// Opened anew each time: the directory may have been removed, and made again for another container of this name.
		f, err := os.Open(r.dir(id))
		if os.IsNotExist(err) {
			return nil, fmt.Errorf("%w: %q in %s", ErrNotExist, id, r.Root)
		}
		if err != nil {
			return nil, err
		}
		err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		// A lock on a directory that has lost its name keeps nobody from anything.
		if err == nil && sameFile(f, r.dir(id)) {
			return &lock{f}, nil
		}
		f.Close() // it is held, or was removed or made anew meanwhile
		_, made := os.Lstat(filepath.Join(r.dir(id), stateFile))
		switch {
		case err == nil || err == unix.EINTR:
			continue
		case err != unix.EWOULDBLOCK:
			return nil, err
		case os.IsNotExist(made) && !half:
			// It is being created, and doesn't exist yet. Who asks may be a hook of the creation, for which that would wait.
			return nil, fmt.Errorf("%w: %q in %s", ErrNotExist, id, r.Root)
		case time.Now().After(deadline):
			return nil, fmt.Errorf("container %s: another command has been working on it for %v: try again when that has ended", id, patience)
		}
		time.Sleep(wait)
	}
}

func (l *lock) unlock() { l.f.Close() }

// relock takes the lock of a container again. It is nil if the container is gone, whether or not there is a new one of its name.
func (r *Runtime) relock(c *record) (*lock, error) {
	l, err := r.lock(c.ID, false)
	if errors.Is(err, ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	// A container of the same name is another one if it has another process.
	now, err := r.load(c.ID)
	if err != nil || now.PID != c.PID || now.Start != c.Start {
		l.unlock()
		return nil, nil
	}
	return l, nil
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
		// A directory that was there may be a container's, or be made at this moment: nobody waits for that, and the
		// answer is that the ID is taken.
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
