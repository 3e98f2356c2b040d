package engine

import (
	"context"
	"encoding/json"
	"io"
	"slices"
	"strings"

	"glassbox/event"
	"glassbox/image"
	"glassbox/supervise"
)

// CommitOptions say what an image made of a container is.
type CommitOptions struct {
	Name            string // may be empty
	Author, Message string
	Changes         []string // instructions of a Dockerfile, see [image.Config.Change]
	Pause           bool     // a running container stands still meanwhile
}

// Export writes a container's files as a tar archive, as it sees them, without what is mounted: volumes, /proc and others are empty
// directories. Nothing is mounted and nothing of the container is run.
func (e *Engine) Export(ctx context.Context, ref string, w io.Writer) error {
	c, _, err := e.load(ctx, ref)
	if err != nil {
		return err
	}
	img, err := e.imageOf(c)
	if err != nil {
		return err
	}
	dirs, err := e.stack(c, img)
	if err != nil {
		return err
	}
	if err := image.WriteMerged(ctx, w, dirs); err != nil {
		return err
	}
	e.happened(c, event.Export)
	return nil
}

// Commit makes an image of a container: its image's layers and one of what the container changed, with its configuration.
func (e *Engine) Commit(ctx context.Context, ref string, o CommitOptions) (*image.Image, error) {
	c, s, err := e.load(ctx, ref)
	if err != nil {
		return nil, err
	}
	base, err := e.imageOf(c)
	if err != nil {
		return nil, err
	}
	dirs, err := e.stack(c, base)
	if err != nil {
		return nil, err
	}
	d, err := e.Inspect(ctx, ref)
	if err != nil {
		return nil, err
	}
	opts := image.CommitOptions{Name: o.Name, Author: o.Author, Message: o.Message, Changes: o.Changes, Base: base, Dirs: dirs}
	// docker.Config and an image's configuration have the same words of Docker's, in two types. JSON is their common form,
	// so no field can be forgotten here.
	raw, err := json.Marshal(d.Config)
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(raw, &opts.Config); err != nil {
		return nil, err
	}
	// What takes a variable of the image's away has done so.
	opts.Config.Env = slices.DeleteFunc(opts.Config.Env, func(e string) bool { return !strings.Contains(e, "=") })
	opts.Container = c.ID
	opts.CreatedBy = strings.Join(append([]string{d.Path}, d.Args...), " ")
	// With an image below, only the upper directory is new; a container on a plain directory has no layers to share, so
	// all of it becomes one.
	if base != nil {
		opts.Dirs = dirs[:1]
	}
	// As late as this: paused is a container that does nothing, and what came before reads no file of it.
	if o.Pause && s.Status == supervise.Running {
		resume, err := e.stand(ctx, c.ID)
		if err != nil {
			return nil, err
		}
		defer resume()
	}
	img, err := e.images.Commit(ctx, opts)
	if err != nil {
		return nil, err
	}
	e.happened(c, event.Commit, "comment", o.Message, "imageID", img.ID, "imageRef", o.Name)
	return img, nil
}
