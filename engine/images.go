package engine

import (
	"context"
	"slices"
	"strings"
	"time"

	"glassbox/image"
)

// ListImages describes the images of the store, the newest first, in the shape of Docker's API (GET /images/json). Filters are KEY=VALUE:
// dangling, reference, label, before, since. Of one key one value is enough, of several keys all must hold.
func (e *Engine) ListImages(ctx context.Context, filters []string) ([]image.Summary, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	keep, err := e.imageFilter(filters)
	if err != nil {
		return nil, err
	}
	all, err := e.images.List()
	if err != nil {
		return nil, err
	}
	out := []image.Summary{}
	for _, i := range all {
		if keep(i) {
			s := i.Summary()
			s.RepoTags = named(filters, s.RepoTags)
			out = append(out, s)
		}
	}
	return out, nil
}

// named are those of an image's names that are asked for: by a filter reference=PATTERN, and else all.
func named(filters, names []string) []string {
	var patterns []string
	for _, f := range filters {
		if p, ok := strings.CutPrefix(f, "reference="); ok {
			patterns = append(patterns, p)
		}
	}
	if len(patterns) == 0 {
		return names
	}
	return slices.DeleteFunc(slices.Clone(names), func(name string) bool {
		return !slices.ContainsFunc(patterns, func(p string) bool { return image.Matches(p, name) })
	})
}

// InspectImage describes an image in the shape of Docker's API (GET /images/{name}/json), by name, ID or the beginning of an ID. The zero
// Platform is any.
func (e *Engine) InspectImage(ctx context.Context, ref string, platform image.Platform) (*image.Inspection, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	i, err := e.images.ResolveFor(ref, platform)
	if err != nil {
		return nil, err
	}
	return i.Inspect(), nil
}

func (e *Engine) imageFilter(texts []string) (func(*image.Image) bool, error) {
	byKind := map[string][]func(*image.Image) bool{}
	for _, text := range texts {
		kind, value, ok := strings.Cut(text, "=")
		if !ok {
			return nil, invalid("invalid filter %q: it has the form name=value", text)
		}
		test, err := e.imageTest(kind, value)
		if err != nil {
			return nil, err
		}
		byKind[kind] = append(byKind[kind], test)
	}
	return func(i *image.Image) bool {
		for _, tests := range byKind {
			if !slices.ContainsFunc(tests, func(test func(*image.Image) bool) bool { return test(i) }) {
				return false
			}
		}
		return true
	}, nil
}

func (e *Engine) imageTest(kind, value string) (func(*image.Image) bool, error) {
	switch kind {
	case "dangling":
		want := value == "true" || value == "1"
		return func(i *image.Image) bool { return (len(i.Names) == 0) == want }, nil
	case "reference":
		return func(i *image.Image) bool {
			return slices.ContainsFunc(i.Names, func(n string) bool { return image.Matches(value, n) })
		}, nil
	case "label":
		key, want, exact := strings.Cut(value, "=")
		return func(i *image.Image) bool {
			got, ok := i.Config.Config.Labels[key]
			return ok && (!exact || got == want)
		}, nil
	case "before", "since":
		// Looked up once, and not for each image: its name is one of the store's, which may change meanwhile.
		other, err := e.images.Resolve(value)
		if err != nil {
			return nil, err
		}
		if kind == "before" {
			return func(i *image.Image) bool { return i.Created.Before(other.Created) }, nil
		}
		return func(i *image.Image) bool { return i.Created.After(other.Created) }, nil
	case "until":
		at, err := until(value, time.Now())
		if err != nil {
			return nil, err
		}
		return func(i *image.Image) bool { return i.Created.Before(at) }, nil
	}
	return nil, invalid("invalid filter '%s'", kind)
}
