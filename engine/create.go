package engine

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"glassbox/container"
	"glassbox/event"
	"glassbox/host"
	"glassbox/spec"
	"glassbox/state"
	"glassbox/supervise"
)

// prepared is what Create has found out about a container: its Start needn't find it out again.
type prepared struct {
	id   string
	spec *spec.Output
}

// takePrepared returns what Create has found out about a container, once.
// Swap, so that of two Starts at once only one takes it.
func (e *Engine) takePrepared(id string) *spec.Output {
	p := e.fresh.Swap(nil)
	if p == nil {
		return nil
	}
	if p.id != id {
		e.fresh.CompareAndSwap(nil, p) // somebody else's, who creates and starts at the same time
		return nil
	}
	return p.spec
}

// Create makes a container: its directory, its name, its configuration. Nothing runs. The image must be in the store.
func (e *Engine) Create(ctx context.Context, o CreateOptions) (*container.Container, error) {
	if o.Name != "" && !validName(o.Name) {
		return nil, invalid("invalid container name (%s), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed", o.Name)
	}
	if err := e.refresh(ctx); err != nil {
		return nil, err
	}
	// What could never be started is not made.
	if err := unix.Access(e.cfg.Runtime, unix.X_OK); err != nil {
		return nil, invalid("the runtime %q: %w (it must be glassbox-runtime, which make install puts beside glassbox; --runtime names "+
			"another place)", e.cfg.Runtime, err)
	}
	c := &container.Container{Version: container.Version, ID: newID(), Name: o.Name, Created: time.Now().UTC(), Config: o.Config}
	facts, err := e.Facts(ctx)
	if err != nil {
		return nil, err
	}
	out, err := e.describe(ctx, c, facts)
	if err != nil {
		return nil, err
	}
	// Not at the beginning: an ordinary user is told what is wrong with the options first, as explain would.
	if facts.UID != 0 {
		return nil, unsupported("running containers as an ordinary user is not supported yet: use sudo (explain works without)")
	}

	defer timed(ctx, "takes its name and lock, writes its directory")()
	// From now on a kill leaves a lock that nobody holds, by which repair finds the half-made container.
	lock, _, err := state.Lock(e.lockFile(c.ID), true)
	if err != nil {
		return nil, err
	}
	defer state.Unlock(lock, e.lockFile(c.ID))
	if c.Config.Rootfs == nil {
		if err := e.images.EnsureBase(); err != nil { // a store of an earlier build has none
			return nil, err
		}
	}
	undo := func() {
		supervise.RemoveFiles(e.dir(c.ID), e.nameFileOf(c.ID), e.cfg.State, true)
		e.dropBound(c)
	}
	if err := e.write(c); err != nil {
		undo()
		return nil, err
	}
	if out.Quota != nil {
		out.Quota.Project = c.Layer.Project // which it has only now
	}
	if err := e.keep(c, o.Starts); err != nil {
		undo()
		return nil, err
	}
	if e.sharesRun(ctx, c) == nil { // else there are no processes in it yet
		// run is create and start: what was worked out now is taken by the start that follows at once, and the host isn't asked twice.
		e.fresh.Store(&prepared{c.ID, out})
	}
	e.happened(c, event.Create)
	return c, nil
}

// describe finds the image of a container that is being made, keeps what it says, and writes the OCI configuration.
func (e *Engine) describe(ctx context.Context, c *container.Container, facts *host.Facts) (*spec.Output, error) {
	if err := e.resolveShares(ctx, c); err != nil {
		return nil, err
	}
	if err := checkLog(c); err != nil {
		return nil, err
	}
	if err := e.boundLayer(c); err != nil {
		return nil, err
	}
	if err := e.inherit(ctx, c); err != nil {
		return nil, err
	}
	if err := e.resolveNetworks(c); err != nil {
		return nil, err
	}
	found := timed(ctx, "finds the image")
	img, err := e.imageOf(c)
	found()
	if err != nil {
		return nil, err
	}
	if img != nil {
		c.ImageID = img.ID
		if c.Image, err = imageWords(img, c.Config.PublishAll); err != nil {
			return nil, err
		}
	}
	return e.specification(ctx, c, img, facts)
}

// write puts a new container on the disk. Its lock is held.
func (e *Engine) write(c *container.Container) error {
	dir := e.dir(c.ID)
	// The directory above is there but for the first container of all: the usual create pays one system call for this.
	if err := os.Mkdir(dir, 0o700); os.IsNotExist(err) {
		if err := os.MkdirAll(e.containers(), 0o700); err != nil {
			return err
		}
		err = os.Mkdir(dir, 0o700)
		if err != nil {
			return err
		}
	} else if err != nil {
		return err
	}
	for _, sub := range []string{"upper", "work", "merged"} {
		if err := os.Mkdir(filepath.Join(dir, sub), 0o755); err != nil {
			return err
		}
	}
	// The upper directory is the container's "/": its mode must not depend on the caller's umask.
	if err := os.Chmod(filepath.Join(dir, "upper"), 0o755); err != nil {
		return err
	}
	if err := e.makeBound(c); err != nil {
		return err
	}
	// The name after the directory that it points to: whoever finds the one finds the other.
	if err := e.takeName(c); err != nil {
		return err
	}
	back, err := e.takeVolumes(c)
	if err == nil {
		// Written last: a directory without it is no container, and repair takes it away.
		err = state.WriteJSON(filepath.Join(dir, supervise.ContainerFile), c)
	}
	if err != nil {
		back()
	}
	return err
}

// takeName makes the symbolic link that stands for the container's name. Making it is atomic, and fails if there is one.
func (e *Engine) takeName(c *container.Container) error {
	for attempt := range 10 {
		name := c.Name
		if name == "" {
			name = randomName(attempt)
		}
		// symlink(2) is the lock: it makes name and content in one step, and fails where the name is taken, between processes, too.
		err := os.Symlink(c.ID, e.nameFile(name))
		if os.IsNotExist(err) {
			if err := os.MkdirAll(filepath.Dir(e.nameFile(name)), 0o700); err != nil {
				return err
			}
			err = os.Symlink(c.ID, e.nameFile(name))
		}
		if err == nil {
			c.Name = name
			return nil
		}
		if !errors.Is(err, os.ErrExist) {
			return err
		}
		if c.Name != "" && attempt == 0 && e.repair() == nil {
			continue // it may have been that of a container which was killed while it was made
		}
		if c.Name != "" {
			other, _ := os.Readlink(e.nameFile(name))
			return conflict("the container name %q is already in use by container %q: remove (glassbox rm %s) or rename that container, or "+
				"choose another name", name, other, name)
		}
	}
	return conflict("found no free name: choose one with --name")
}
