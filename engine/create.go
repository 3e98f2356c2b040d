package engine

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"glassbox/state"
	"glassbox/supervise"
)

// prepared is what Create has found out about a container: its Start needn't find it out again.
type prepared struct {
	id   string
	spec *specification
}

// Create makes a container: its directory, its name, its configuration. Nothing runs. The image must be in the store.
func (e *Engine) Create(_ context.Context, o CreateOptions) (*Container, error) {
	c := &Container{ID: newID(), Name: o.Name, Created: time.Now().UTC(), Options: o}
	if err := readFiles(&c.Options); err != nil {
		return nil, err
	}
	facts, err := e.Facts()
	if err != nil {
		return nil, err
	}
	spec, err := e.spec(c, facts)
	if err != nil {
		return nil, err
	}
	if spec.image != nil {
		c.ImageID = spec.image.ID
	}
	if o.Name != "" && !validName(o.Name) {
		return nil, invalid("invalid container name (%s), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed", o.Name)
	}
	if facts.UID != 0 {
		return nil, unsupported("running containers as an ordinary user is not supported yet: use sudo (explain works without)")
	}

	defer e.timed("takes its name and lock, writes its directory")()
	lock, _, err := state.Lock(e.lockFile(c.ID), true)
	if err != nil {
		return nil, err
	}
	defer state.Unlock(lock, e.lockFile(c.ID))
	if err := e.write(c); err != nil {
		supervise.RemoveFiles(e.dir(c.ID), e.nameFileOf(c.ID))
		return nil, err
	}
	e.fresh = &prepared{c.ID, spec}
	return c, nil
}

// readFiles reads what the options name by file, and takes what they need of the caller's environment, so that the stored
// options stand on their own.
func readFiles(o *CreateOptions) error {
	var env []string
	for _, name := range o.EnvFile {
		lines, err := readEnvFile(name)
		if err != nil {
			return err
		}
		env = append(env, lines...)
	}
	env = append(env, o.Env...)
	var kept []string
	for _, entry := range env {
		key, _, ok := strings.Cut(entry, "=")
		if key == "" {
			return invalid("invalid environment variable: %q", entry)
		}
		if !ok {
			value, found := lookupEnv(o.Environ, key)
			if found {
				entry = key + "=" + value
			}
		}
		kept = append(kept, entry)
	}
	o.Env, o.EnvFile, o.Environ = kept, nil, nil
	var labels []string
	for _, name := range o.LabelFile {
		lines, err := readEnvFile(name)
		if err != nil {
			return err
		}
		labels = append(labels, lines...)
	}
	o.Label, o.LabelFile = append(labels, o.Label...), nil
	if o.Dir == "" {
		o.Dir, _ = os.Getwd()
	}
	if o.Rootfs != "" {
		var err error
		if o.Rootfs, err = filepath.Abs(o.Rootfs); err != nil {
			return err
		}
	}
	_, _, err := logLimits(o.LogOpt)
	return err
}

// logLimits reads --log-opt max-size=16m max-file=3, which are also the defaults: logs that grow without bound have filled
// many a disk.
func logLimits(opts []string) (size int64, files int, err error) {
	size, files = 16<<20, 3
	for _, opt := range opts {
		key, value, _ := strings.Cut(opt, "=")
		switch key {
		case "max-size":
			if value == "-1" {
				size = 0
			} else if size, err = parseSize("log-opt", value); err != nil {
				return 0, 0, err
			}
		case "max-file":
			if files, err = strconv.Atoi(value); err != nil || files < 1 {
				return 0, 0, invalid("--log-opt %s: want a number from 1 on", opt)
			}
		default:
			return 0, 0, invalid("--log-opt %s: unknown option: want max-size or max-file", opt)
		}
	}
	return size, files, nil
}

// write puts a new container on the disk. Its lock is held.
func (e *Engine) write(c *Container) error {
	dir := e.dir(c.ID)
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
	if err := e.takeName(c); err != nil {
		return err
	}
	return state.WriteJSON(filepath.Join(dir, supervise.ContainerFile), c)
}

// takeName makes the symbolic link that stands for the container's name. Making it is atomic, and fails if there is one.
func (e *Engine) takeName(c *Container) error {
	for attempt := range 10 {
		name := c.Name
		if name == "" {
			name = randomName(attempt)
		}
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
		if c.Name != "" {
			other, _ := os.Readlink(e.nameFile(name))
			return conflict("the container name %q is already in use by container %q: remove (glassbox rm %s) or rename that container, or choose another name", name, other, name)
		}
	}
	return conflict("found no free name: choose one with --name")
}
