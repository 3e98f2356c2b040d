package engine

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"glassbox/image"
	"glassbox/supervise"
)

// Pruned is what was removed because nothing needed it.
type Pruned struct {
	Containers []string // IDs
	Untagged   []string // names of images
	Images     []string // IDs, and diff IDs of layers
	Networks   []string // names
	Volumes    []string
	Freed      int64 // bytes of files
}

// pruneFilter is what until=, label= and label!= leave.
type pruneFilter struct {
	until    time.Time // zero: whatever their age
	with     []string
	without  []string
	dangling *bool
}

// readPruneFilter reads KEY=VALUE filters, of which more may be allowed beside until and label.
func readPruneFilter(filters []string, now time.Time, more ...string) (pruneFilter, error) {
	var f pruneFilter
	for _, text := range filters {
		key, value, ok := strings.Cut(text, "=")
		if k, inverse := strings.CutSuffix(key, "!"); inverse && k == "label" {
			f.without = append(f.without, value)
			continue
		}
		switch {
		case !ok || value == "":
			return f, invalid("invalid filter %q: want KEY=VALUE", text)
		case key == "label":
			f.with = append(f.with, value)
		case key == "until":
			if !f.until.IsZero() {
				return f, invalid("invalid filter %q: until can be given once", text)
			}
			at, err := until(value, now)
			if err != nil {
				return f, err
			}
			f.until = at
		case key == "dangling" && slices.Contains(more, key):
			b, err := strconv.ParseBool(value)
			if err != nil {
				return f, invalid("invalid filter 'dangling=%s': want true or false", value)
			}
			f.dangling = &b
		default:
			return f, invalid("invalid filter '%s': want %s", key, strings.Join(append([]string{"until", "label", "label!"}, more...), ", "))
		}
	}
	return f, nil
}

// CheckPruneFilters refuses filters that mean nothing.
func CheckPruneFilters(filters []string) error {
	_, err := readPruneFilter(filters, time.Now(), "dangling")
	return err
}

// until reads a moment: a duration before now, a date, or seconds since 1970.
func until(text string, now time.Time) (time.Time, error) {
	if d, err := time.ParseDuration(text); err == nil {
		return now.Add(-d), nil
	}
	for _, layout := range []string{time.RFC3339Nano, "2006-01-02T15:04:05.999999999", "2006-01-02T15:04", time.DateOnly} {
		if t, err := time.ParseInLocation(layout, text, time.Local); err == nil {
			return t, nil
		}
	}
	if n, err := strconv.ParseInt(text, 10, 64); err == nil {
		return time.Unix(n, 0), nil
	}
	return time.Time{}, invalid("invalid filter 'until=%s': want a duration (10m), a time (RFC 3339) or seconds since 1970", text)
}

// keeps reports whether something is left alone.
func (f *pruneFilter) keeps(created time.Time, labels map[string]string) bool {
	has := func(text string) bool { return hasLabel(labels, text) }
	return !f.until.IsZero() && created.After(f.until) || slices.ContainsFunc(f.with, func(l string) bool { return !has(l) }) ||
		slices.ContainsFunc(f.without, has)
}

// PruneContainers removes the containers that don't run, as far as filters (until=, label=, label!=) leave them.
func (e *Engine) PruneContainers(ctx context.Context, filters []string, out *Pruned) error {
	f, err := readPruneFilter(filters, time.Now())
	if err != nil {
		return err
	}
	items, err := e.items(ctx, ListOptions{All: true})
	if err != nil {
		return err
	}
	var errs []error
	for _, it := range items {
		if err := ctx.Err(); err != nil {
			return errors.Join(append(errs, err)...)
		}
		if it.s.Alive() || it.s.Status == supervise.Restarting || f.keeps(it.c.Created, it.c.Labels()) {
			continue
		}
		held, _ := e.sizes(it.c)
		err := e.Remove(ctx, it.c.ID, RemoveOptions{})
		switch {
		case err == nil:
			out.Containers, out.Freed = append(out.Containers, it.c.ID), out.Freed+held
		case !errors.Is(err, ErrConflict) && !errors.Is(err, ErrNotFound): // started or removed meanwhile
			errs = append(errs, fmt.Errorf("container %s: %w", it.c.Name, err))
		}
	}
	return errors.Join(errs...)
}

// PruneImages removes images without a name that no container is made from; with all, those with a name, too. Filters are until=, label=,
// label!= and dangling=. What is freed are the layers that no other image has.
func (e *Engine) PruneImages(ctx context.Context, all bool, filters []string, out *Pruned) error {
	f, err := readPruneFilter(filters, time.Now(), "dangling")
	if err != nil {
		return err
	}
	if f.dangling != nil {
		all = !*f.dangling
	}
	// Layers first that no image has, such as those of a killed pull or build, however young: they count as freed by nobody, and none of
	// them is in a list. Those of a pull that runs are left alone.
	_, err = e.images.Collect(image.CollectOptions{})
	errs := []error{err}
	list, err := e.images.List()
	if err != nil {
		return err
	}
	inUse := func(id string) []string { return e.ImageUsers(ctx, id) }
	used, err := e.usedImages(ctx) // a first look for all of them: the second one (inUse) reads every container again for each image
	if err != nil {
		return err
	}
	for _, img := range list {
		if err := ctx.Err(); err != nil {
			return errors.Join(append(errs, err)...)
		}
		if len(img.Names) > 0 && !all || f.keeps(img.Created, img.Config.Config.Labels) || len(used[img.ID]) > 0 {
			continue
		}
		names := img.Names
		if len(names) == 0 {
			names = []string{img.ID}
		}
		for _, name := range names { // the last one takes the image with it
			gone, err := e.images.Remove(name, image.RemoveOptions{InUse: inUse})
			switch {
			case err == nil:
				out.removed(img, gone)
			case !errors.Is(err, image.ErrInUse) && !errors.Is(err, image.ErrNotFound): // used or removed meanwhile
				errs = append(errs, err)
			}
		}
	}
	return errors.Join(errs...)
}

// removed notes what the removal of an image's name took away.
func (p *Pruned) removed(img *image.Image, gone *image.Removed) {
	p.Untagged, p.Images = append(p.Untagged, gone.Untagged...), append(p.Images, gone.Deleted...)
	counted := map[string]bool{} // an image may have a layer twice
	for _, l := range img.Layers {
		if slices.Contains(gone.Deleted, l.DiffID) && !counted[l.DiffID] {
			counted[l.DiffID] = true
			p.Freed += l.Size
		}
	}
}

// PruneAnonymous removes anonymous volumes that no container uses. A filter until= leaves all: volumes have no say in it, as with Docker.
func (e *Engine) PruneAnonymous(ctx context.Context, filters []string, out *Pruned) error {
	var ofVolumes []string
	for _, f := range filters {
		if strings.HasPrefix(f, "until=") {
			return nil
		}
		ofVolumes = append(ofVolumes, f)
	}
	names, freed, err := e.PruneVolumes(ctx, PruneVolumesOptions{Filters: ofVolumes})
	out.Volumes, out.Freed = append(out.Volumes, names...), out.Freed+freed
	return err
}
