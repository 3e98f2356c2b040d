package image

import (
	"context"
	"errors"
)

// FromHostOptions say what an image made of the host's own programs holds.
type FromHostOptions struct {
	// Files are paths, names to be found in PATH, or FILE:DEST pairs; directories are copied with all they hold.
	Files []string
}

// FromHost makes an image of one layer out of the host's programs and the shared libraries that they need.
func (s *Store) FromHost(ctx context.Context, name string, o FromHostOptions) (*Image, error) {
	return nil, errors.New("not yet")
}
