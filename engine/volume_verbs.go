package engine

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"maps"
	"slices"
	"strconv"
	"strings"

	"glassbox/docker"
	"glassbox/volume"
)

// VolumeOptions says what volume to make.
type VolumeOptions struct {
	Name    string // empty: a new one of 64 hexadecimal digits
	Driver  string // empty: local
	Labels  map[string]string
	Options map[string]string // type, o, device
}

// CreateVolume makes a volume, or finds the one of that name, which stays as it is; the answer says whether its labels and options are
// those that were asked for.
func (e *Engine) CreateVolume(ctx context.Context, o VolumeOptions) (v *docker.Volume, same bool, err error) {
	if err := ctx.Err(); err != nil {
		return nil, false, err
	}
	if err := volume.CheckDriver(o.Driver); err != nil {
		return nil, false, notFound("create %s: %w", o.Name, err)
	}
	want := volume.Volume{Name: o.Name, Driver: o.Driver, Labels: maps.Clone(o.Labels), Options: maps.Clone(o.Options)}
	if want.Name == "" {
		b := make([]byte, 32)
		rand.Read(b) // never fails (crypto/rand)
		want.Name = hex.EncodeToString(b)
		if want.Labels == nil {
			want.Labels = map[string]string{}
		}
		want.Labels[volume.AnonymousLabel] = ""
	}
	made, isNew, err := e.volumes().Create(want)
	if err != nil {
		return nil, false, ofVolume(err)
	}
	d := docker.DescribeVolume(made, e.volumes().Data(made.Name))
	return &d, isNew || maps.Equal(made.Labels, want.Labels) && maps.Equal(made.Options, want.Options), nil
}

// Volume describes a volume.
func (e *Engine) Volume(ctx context.Context, name string) (*docker.Volume, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	v, err := e.volumes().Get(name)
	if err != nil {
		return nil, ofVolume(err)
	}
	d := docker.DescribeVolume(v, e.volumes().Data(name))
	return &d, nil
}

// VolumeUsage adds to volumes how many bytes they hold and how many containers use them, which takes as long as reading all their
// directories.
func (e *Engine) VolumeUsage(ctx context.Context, list []docker.Volume) {
	for i := range list {
		if ctx.Err() != nil {
			return
		}
		use := docker.UsageData{RefCount: -1, Size: -1}
		if users, err := e.volumes().Users(list[i].Name); err == nil {
			use.RefCount = int64(len(users))
		}
		if n, err := e.volumes().Size(list[i].Name); err == nil {
			use.Size = n
		}
		list[i].UsageData = &use
	}
}

// Volumes lists the volumes that filters (dangling=, driver=, label=, name=) leave, by name.
func (e *Engine) Volumes(ctx context.Context, filters []string) ([]docker.Volume, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	keep, err := e.volumeFilter(filters, []string{"dangling", "driver", "label", "name"})
	if err != nil {
		return nil, err
	}
	list, err := e.volumes().List()
	out := []docker.Volume{}
	for _, v := range list {
		if keep(v) {
			out = append(out, docker.DescribeVolume(v, e.volumes().Data(v.Name)))
		}
	}
	return out, err
}

// volumeFilter reads --filter KEY=VALUE. Several values of one key are alternatives, but all labels must fit.
func (e *Engine) volumeFilter(texts, keys []string) (func(*volume.Volume) bool, error) {
	byKey := map[string][]string{}
	for _, text := range texts {
		key, value, ok := strings.Cut(text, "=")
		if !ok {
			return nil, invalid("invalid filter %q: want KEY=VALUE", text)
		}
		if !slices.Contains(keys, key) {
			return nil, invalid("invalid filter '%s': want %s", key, strings.Join(keys, ", "))
		}
		if key == "dangling" || key == "all" {
			if _, err := strconv.ParseBool(value); err != nil {
				return nil, invalid("invalid filter '%s=%s': want true or false", key, value)
			}
		}
		byKey[key] = append(byKey[key], value)
	}
	return func(v *volume.Volume) bool {
		for key, values := range byKey {
			match := func(value string) bool {
				switch key {
				case "dangling":
					want, _ := strconv.ParseBool(value)
					users, err := e.volumes().Users(v.Name)
					return err == nil && want == (len(users) == 0)
				case "driver":
					return v.Driver == value
				case "name":
					return strings.Contains(v.Name, value) || matches(value, v.Name)
				case "label", "label!":
					return hasLabel(v.Labels, value)
				}
				return true // all
			}
			switch key {
			case "label":
				if slices.ContainsFunc(values, func(s string) bool { return !match(s) }) {
					return false
				}
			case "label!":
				if slices.ContainsFunc(values, match) {
					return false
				}
			default:
				if !slices.ContainsFunc(values, match) {
					return false
				}
			}
		}
		return true
	}, nil
}

// hasLabel looks for KEY or KEY=VALUE.
func hasLabel(labels map[string]string, want string) bool {
	key, value, exact := strings.Cut(want, "=")
	got, ok := labels[key]
	return ok && (!exact || got == value)
}

// RemoveVolume removes a volume that no container uses.
func (e *Engine) RemoveVolume(ctx context.Context, name string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	return ofVolume(e.volumes().Remove(name))
}

// PruneVolumesOptions says what is taken away.
type PruneVolumesOptions struct {
	All     bool     // those with a name, too
	Filters []string // label=, label!=, all=
}

// PruneVolumes removes volumes that no container uses and returns their names and how many bytes they held.
func (e *Engine) PruneVolumes(ctx context.Context, o PruneVolumesOptions) (names []string, freed int64, err error) {
	keep, err := e.volumeFilter(o.Filters, []string{"label", "label!", "all"})
	if err != nil {
		return nil, 0, err
	}
	all := o.All
	for _, f := range o.Filters {
		if value, ok := strings.CutPrefix(f, "all="); ok {
			if v, err := strconv.ParseBool(value); err == nil && v {
				all = true
			}
		}
	}
	store := e.volumes()
	list, listErr := store.List()
	errs := []error{listErr}
	for _, v := range list {
		if err := ctx.Err(); err != nil {
			return names, freed, err
		}
		if !all && !v.Anonymous() || !keep(v) {
			continue
		}
		if users, err := store.Users(v.Name); err != nil || len(users) > 0 {
			continue
		}
		held, _ := store.Size(v.Name)
		err := store.Remove(v.Name)
		switch {
		case err == nil:
			names, freed = append(names, v.Name), freed+held
		case !errors.Is(err, volume.ErrInUse) && !errors.Is(err, volume.ErrNotFound): // taken or removed meanwhile
			errs = append(errs, ofVolume(err))
		}
	}
	return names, freed, errors.Join(errs...)
}
