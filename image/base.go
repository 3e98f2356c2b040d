package image

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
)

// BaseLayer is the directory, below the root, of a layer that lies under those of every image: empty files for the container's own
// hosts, hostname and resolv.conf to be mounted on, as Docker's init layer has them, but one for all. Where an image has none of its own,
// nothing must be made in the container's layer then, which would cost more than to mount all three. What an image has in their place,
// also that it has taken one away, lies over it.
const BaseLayer = "layers/base"

// EnsureBase makes the base layer where it isn't there. Any number may do so at the same time, and be killed while they do.
func (s *Store) EnsureBase() error {
	etc := filepath.Join(s.root, BaseLayer, "etc")
	names := []string{"resolv.conf", "hostname", "hosts"}
	// The last one that is made: where it is, the others are.
	if _, err := os.Lstat(filepath.Join(etc, names[len(names)-1])); err == nil {
		return nil
	}
	if err := os.MkdirAll(s.layersDir(), 0o700); err != nil {
		return err
	}
	for _, dir := range []string{filepath.Dir(etc), etc} {
		if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
		if err := os.Chmod(dir, 0o755); err != nil { // whatever the umask
			return err
		}
	}
	for _, name := range names {
		f, err := os.OpenFile(filepath.Join(etc, name), os.O_WRONLY|os.O_CREATE, 0o644)
		if err != nil {
			return err
		}
		if err := errors.Join(f.Chmod(0o644), f.Close()); err != nil {
			return err
		}
	}
	return nil
}
