package engine

import (
	"errors"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"glassbox/container"
	"glassbox/host/beneath"
	"glassbox/state"
	"glassbox/supervise"
)

// A power failure takes what is not on the disk yet: of a file that was written some seconds ago the name may be there without the content
// (ext4's delayed allocation, XFS). So a command that made a container ends when its description is on the disk. That takes as long as all
// else that the command does, and doesn't wait for it: run makes the processes meanwhile. A container that goes with its end (--rm) isn't
// waited for. What became of a container, its plan and its log are as old as the disk has them.

// keep brings a container that was made to the disk. If its start follows, that waits for it, in kept.
func (e *Engine) keep(c *container.Container, starts bool) error {
	if c.Config.Remove {
		return nil
	}
	if !starts {
		return e.sync(c)
	}
	done := make(chan error, 1)
	e.keeping.Store(c.ID, done)
	go func() { done <- e.sync(c) }()
	return nil
}

// kept waits until a container that was made a moment ago is on the disk.
func (e *Engine) kept(id string) error {
	if done, ok := e.keeping.LoadAndDelete(id); ok {
		return <-done.(chan error)
	}
	return nil
}

func (e *Engine) sync(c *container.Container) error {
	dir := e.dir(c.ID)
	if names := c.AnonymousVolumes(); len(names) > 0 {
		if err := e.volumes().Keep(names); err != nil {
			return err
		}
		if err := state.Sync(filepath.Join(dir, supervise.VolumesFile)); err != nil {
			return err
		}
	}
	return state.Sync(filepath.Join(dir, supervise.ContainerFile), dir, e.containers(), filepath.Dir(e.nameFile(c.Name)))
}

// afterBoot is the repair of the first command after the host was started: there are no locks that tell what was being made when the power
// went. It takes away containers of whose description nothing has come to the disk and that nothing was written in, names without a
// container, and volumes in the same state. Nobody had been told of them.
func (e *Engine) afterBoot() error {
	if os.Geteuid() != 0 {
		return nil // whoever can't run containers has none
	}
	ids, err := os.ReadDir(e.containers())
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	// From now on whoever opens the engine finds it settled, or a lock of this one.
	if err := os.MkdirAll(e.locks(), 0o700); err != nil {
		return err
	}
	for _, entry := range ids {
		if e.unborn(entry.Name()) {
			err = errors.Join(err, e.bury(entry.Name()))
		}
	}
	names, _ := os.ReadDir(filepath.Dir(e.nameFile("x")))
	for _, entry := range names {
		name := entry.Name()
		id, linkErr := os.Readlink(e.nameFile(name))
		if linkErr != nil || id != filepath.Base(id) {
			continue
		}
		if _, dirErr := os.Lstat(e.dir(id)); errors.Is(dirErr, os.ErrNotExist) {
			err = errors.Join(err, e.bury(id))
			continue
		}
		// One of two names of a container that was being renamed.
		if c, readErr := e.readContainer(id); readErr == nil && c.Name != name {
			if target, err := os.Readlink(e.nameFile(c.Name)); err == nil && target == id {
				os.Remove(e.nameFile(name))
			}
		}
	}
	return errors.Join(err, e.volumes().Settle())
}

// unborn reports whether a container's directory is one of whose description nothing is there, and in which nobody has written, or one
// that was being removed.
func (e *Engine) unborn(id string) bool {
	st, err := os.Lstat(filepath.Join(e.dir(id), supervise.ContainerFile))
	if err == nil && st.Size() > 0 || err != nil && !errors.Is(err, os.ErrNotExist) {
		return false
	}
	if supervise.Going(e.dir(id)) {
		return true
	}
	// A start makes directories and empty files there to mount on.
	size, err := beneath.Size(filepath.Join(e.dir(id), "upper"))
	return size == 0 && (err == nil || errors.Is(err, os.ErrNotExist))
}

// bury takes away what is left of a container, unless somebody works on it.
func (e *Engine) bury(id string) error {
	lock, _, err := state.Lock(e.lockFile(id), false)
	if err == unix.EWOULDBLOCK {
		return nil
	}
	if err != nil {
		return err
	}
	defer state.Unlock(lock, e.lockFile(id))
	if _, err := os.Lstat(e.dir(id)); err == nil && !e.unborn(id) {
		return nil
	}
	return supervise.RepairOne(e.dir(id), e.nameFileOf)
}
