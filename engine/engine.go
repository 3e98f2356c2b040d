// Package engine holds the verbs on containers: create, start, exec, stop, remove and so on.
//
// It has no daemon and keeps nothing in memory between commands: what it knows is in files below two directories, Root and
// State, which a person can read. (A server remembers what it has read of files that are still the same: [Config.Remember].)
//
//	Root/image, Root/layers        images (package image)
//	Root/names/NAME                → id: a symbolic link, made in one step, is the proof that a name is taken
//	Root/containers/ID/
//	    container.json             what the container is ([container.Container]); written last, removed first
//	    start.json, plan.json      job and plan of the last start (supervise.Job)
//	    state.json                 its process, or its end (supervise.State)
//	    upper, work, merged        the writable layer, and the empty directory that the root is mounted on
//	    debug-N                    what `debug --image` throws away
//	    log, log.1 …               output
//	    hosts, hostname, resolv.conf
//	State/locks/ID.lock            held by whoever works on the container (see state.Lock)
//	State/network/                 addresses in use
//
// A start is: read the image, write an OCI configuration (package spec), compile it (package compile), store the plan, and
// start a supervisor that executes it (package supervise). Start reading at [Engine.Start].
package engine

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"glassbox/container"
	"glassbox/host"
	"glassbox/image"
	"glassbox/network"
	"glassbox/state"
	"glassbox/supervise"
)

// What errors of this package are, for errors.Is. Faces map each to an exit code or status.
var (
	ErrNotFound    = errors.New("not found")
	ErrConflict    = container.ErrConflict
	ErrInvalid     = container.ErrInvalid
	ErrUnsupported = container.ErrUnsupported
)

// kindError is an error of the first kind above, whose text doesn't repeat the kind.
type kindError struct {
	kind error
	err  error
}

func (e *kindError) Error() string        { return e.err.Error() }
func (e *kindError) Is(target error) bool { return target == e.kind }
func (e *kindError) Unwrap() error        { return e.err }

func notFound(format string, a ...any) error {
	return &kindError{ErrNotFound, fmt.Errorf(format, a...)}
}

func conflict(format string, a ...any) error { return container.Conflict(format, a...) }

func invalid(format string, a ...any) error { return container.Invalid(format, a...) }

func unsupported(format string, a ...any) error { return container.Unsupported(format, a...) }

// StartError says why a container's program could not be started.
type StartError struct {
	Code int // 125: the engine; 126: not executable; 127: not found
	Err  error
}

func (e *StartError) Error() string { return e.Err.Error() }

// Unwrap returns the cause.
func (e *StartError) Unwrap() error { return e.Err }

// Engine is an open engine. It is safe for concurrent use by several processes and goroutines.
type Engine struct {
	cfg    Config
	images *image.Store

	asking sync.Mutex // held while the host is asked for facts
	facts  *host.Facts
	fresh  atomic.Pointer[prepared] // what the last Create has worked out, for the Start that follows

	memory  memory
	follows follows
	keeping sync.Map // ID → chan error, of containers that are on their way to the disk while they start

	opened time.Time
	looked atomic.Int64 // when traces of killed processes were looked for, as time since opened
	orphan atomic.Bool  // one was seen since
}

// Open opens the engine and repairs what killed processes left.
func Open(c Config) (*Engine, error) {
	for _, dir := range []*string{&c.Root, &c.State, &c.Runtime} {
		if *dir == "" {
			continue
		}
		// The supervisor's working directory is /, and it gets these paths in its job: relative ones would lead elsewhere
		// there.
		abs, err := filepath.Abs(*dir)
		if err != nil {
			return nil, err
		}
		*dir = abs
	}
	// Asked before anything is made below it: --root /proc would otherwise be an empty installation in which nothing can be found.
	if err := placeable(c.Root); err != nil {
		return nil, err
	}
	images, err := image.Open(c.Root)
	if err != nil {
		return nil, err
	}
	images.State = c.State
	e := &Engine{cfg: c, images: images, opened: time.Now()}
	if err := e.repair(); err != nil {
		return nil, err
	}
	return e, nil
}

// Facts returns what is known of this host. It is asked once in an engine's life.
func (e *Engine) Facts(ctx context.Context) (*host.Facts, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	e.asking.Lock()
	defer e.asking.Unlock()
	if e.facts == nil {
		defer timed(ctx, "asks the host what it can do")()
		f, err := host.Probe()
		if err != nil {
			return nil, err
		}
		e.facts = f
	}
	return e.facts, nil
}

func (e *Engine) containers() string          { return filepath.Join(e.cfg.Root, "containers") }
func (e *Engine) dir(id string) string        { return filepath.Join(e.cfg.Root, "containers", id) }
func (e *Engine) nameFile(name string) string { return filepath.Join(e.cfg.Root, "names", name) }
func (e *Engine) locks() string               { return filepath.Join(e.cfg.State, "locks") }
func (e *Engine) lockFile(id string) string   { return filepath.Join(e.cfg.State, "locks", id+".lock") }

// networks is where this installation keeps its networks.
func (e *Engine) networks() network.Store {
	return network.Store{Config: filepath.Join(e.cfg.Root, "network"), State: filepath.Join(e.cfg.State, "network")}
}

// repair looks for lock files that nobody holds. Without any it costs one directory listing.
func (e *Engine) repair() error {
	// Whoever works on a container holds its lock, and the kernel lets go of it when he dies: a lock file that is free is the trace of a
	// kill.
	stale, some, err := state.Unheld(e.locks())
	if errors.Is(err, unix.EACCES) {
		return nil // another user's containers; the verbs will say so
	}
	if errors.Is(err, unix.ENOENT) {
		return e.afterBoot()
	}
	// Paused ones first: a container that a killed command kept standing runs on, whatever becomes of the rest.
	if err == nil && len(stale) > 0 {
		for _, name := range stale {
			if id, ok := strings.CutSuffix(name, standing); ok {
				e.goOn(id)
			}
		}
		// Leases after locks: an address is given back when nobody holds its container's lock any more.
		err = supervise.Repair(e.locks(), e.dir, e.nameFileOf)
		if err == nil {
			err = e.repairLeases()
		}
	}
	if err != nil {
		return fmt.Errorf("repair what a killed process left: %w", err)
	}
	if some && os.Geteuid() == 0 {
		// Another firewall may have been started or reloaded since. That it can't be mended stops no command: doctor says it.
		_ = e.networks().Mend()
	}
	return nil
}

// A command lives for a moment, and what was killed before it is repaired when it opens the engine. An engine that stays open looks again
// with its verbs (refresh): when one has seen a container whose supervisor is gone, and when the last look is older than this. A command
// is mostly done by then; one that isn't pays a directory listing.
const lookAgain = time.Second

// refresh is the beginning of a verb.
func (e *Engine) refresh(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	last, now := e.looked.Load(), int64(time.Since(e.opened))
	// A verb that has seen an orphan looks at once, and else the first one after a second: CompareAndSwap lets one of many
	// through.
	if !e.orphan.Swap(false) && (now-last < int64(lookAgain) || !e.looked.CompareAndSwap(last, now)) {
		return nil // another goroutine looks, or has looked
	}
	e.looked.Store(now)
	return e.repair()
}

// nameFileOf finds the name of a container that is only half there.
func (e *Engine) nameFileOf(id string) string {
	entries, err := os.ReadDir(filepath.Join(e.cfg.Root, "names"))
	if err != nil {
		return ""
	}
	for _, entry := range entries {
		if target, err := os.Readlink(e.nameFile(entry.Name())); err == nil && target == id {
			return e.nameFile(entry.Name())
		}
	}
	return ""
}

// find is resolve at the beginning of a verb.
func (e *Engine) find(ctx context.Context, ref string) (id string, err error) {
	if err := e.refresh(ctx); err != nil {
		return "", err
	}
	return e.resolve(ref)
}

// resolve finds a container by id, name, or the beginning of its id.
func (e *Engine) resolve(ref string) (id string, err error) {
	// A slash would make a path of it, and a NUL byte EINVAL, which says nothing to whoever typed it.
	if ref == "" || strings.ContainsAny(ref, "/\x00") {
		return "", notFound("no such container: %s", ref)
	}
	// A whole id is what programs pass, and costs one stat; names come next, and only then is the directory read for a beginning.
	if len(ref) == 64 {
		if _, err := os.Stat(filepath.Join(e.dir(ref), supervise.ContainerFile)); err == nil {
			return ref, nil
		}
	}
	if id, err := os.Readlink(e.nameFile(ref)); err == nil {
		return id, nil
	}
	all, err := e.ids(false)
	if err != nil {
		return "", err
	}
	for _, other := range all {
		if strings.HasPrefix(other, ref) {
			if id != "" {
				return "", invalid("%s is the beginning of several container ids", ref)
			}
			id = other
		}
	}
	if id == "" {
		return "", notFound("no such container: %s", ref)
	}
	return id, nil
}

// load reads a container and its state, at the beginning of a verb.
func (e *Engine) load(ctx context.Context, ref string) (*container.Container, *supervise.State, error) {
	id, err := e.find(ctx, ref)
	if err != nil {
		return nil, nil, err
	}
	c, s, err := e.loadID(id)
	if e.orphan.Load() { // this one, probably: what it leaves is taken back first, and with --rm that is all of it
		if err := e.refresh(ctx); err != nil {
			return nil, nil, err
		}
		return e.loadID(id)
	}
	return c, s, err
}

func (e *Engine) loadID(id string) (*container.Container, *supervise.State, error) {
	c, err := e.readContainer(id)
	if os.IsNotExist(err) {
		return nil, nil, notFound("no such container: %s", id)
	}
	if err != nil {
		return nil, nil, err
	}
	s, err := e.state(id)
	return c, s, err
}
