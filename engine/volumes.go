package engine

import (
	"context"
	"errors"
	"io/fs"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"glassbox/container"
	"glassbox/fork"
	"glassbox/plan"
	"glassbox/spec"
	"glassbox/state"
	"glassbox/supervise"
	"glassbox/volume"
)

func (e *Engine) volumes() volume.Store { return volume.Of(e.cfg.Root, e.cfg.State) }

// ofVolume gives an error of package volume its kind.
func ofVolume(err error) error {
	switch {
	case errors.Is(err, volume.ErrNotFound):
		return notFound("%w", err)
	case errors.Is(err, volume.ErrInUse):
		return conflict("%w", err)
	case errors.Is(err, volume.ErrInvalid):
		return invalid("%w", err)
	}
	return err
}

// inherit takes over the mounts of other containers (--volumes-from). They stay as they are now, whatever becomes of the other one.
func (e *Engine) inherit(ctx context.Context, c *container.Container) error {
	for _, text := range c.Config.VolumesFrom {
		ref, mode, err := container.ParseVolumesFrom(text)
		if err != nil {
			return err
		}
		other, _, err := e.load(ctx, ref)
		if err != nil {
			return err
		}
		for _, m := range other.Mounts() {
			if m.Form == container.FormTmpfs {
				continue // as with Docker: it is no mount that others know of
			}
			// That container has its files in its own directory, which has no name that a volume could have: it is lent as
			// a bind mount.
			if m.Dir != "" { // a directory of that container's own
				m.Type, m.Source, m.Dir = container.Bind, filepath.Join(e.dir(other.ID), m.Dir), ""
			}
			if m.Type == container.Layers {
				m.Source = other.ImageOf(&m)
			}
			m.Form, m.Origin, m.ReadOnly = container.FormFrom, mode.Origin, m.ReadOnly || mode.ReadOnly
			m.NoCopy = m.NoCopy || mode.NoCopy
			if mode.Relabel != "" {
				m.Relabel = mode.Relabel
			}
			c.Inherited = append(c.Inherited, m)
		}
	}
	return nil
}

// takeVolumes makes the volumes of a container that is being made, whose directory is there, and notes that it uses them. It returns what
// takes that back.
func (e *Engine) takeVolumes(c *container.Container) (back func(), err error) {
	back = func() {}
	var wants []volume.Want
	for _, m := range c.Mounts() {
		if m.Type != container.Volume || m.Dir != "" {
			continue
		}
		driver := m.Driver
		if driver == "" && m.Form == container.FormVolume {
			driver = c.Config.VolumeDriver
		}
		if err := volume.CheckDriver(driver); err != nil {
			return back, notFound("%s: %w", m.Origin, err)
		}
		if err := volume.CheckOptions(m.DriverOptions); err != nil {
			return back, invalid("%s: %w", m.Origin, err)
		}
		w := volume.Want{Volume: volume.Volume{Name: m.Source, Driver: driver, Labels: m.Labels, Options: m.DriverOptions}}
		w.Exists = m.Form == container.FormFrom
		if slices.Contains(c.AnonymousVolumes(), m.Source) {
			w.Labels = maps.Clone(w.Labels)
			if w.Labels == nil {
				w.Labels = map[string]string{}
			}
			w.Labels[volume.AnonymousLabel] = ""
		}
		wants = append(wants, w)
	}
	if names := c.AnonymousVolumes(); len(names) > 0 { // before they are made: whoever finds half a container knows of them
		if err := state.WriteJSON(filepath.Join(e.dir(c.ID), supervise.VolumesFile), names); err != nil {
			return back, err
		}
	}
	store := e.volumes()
	made, err := store.Use(c.ID, wants)
	back = func() {
		for _, v := range made {
			_ = store.Remove(v.Name, c.ID) // in use: another container has been made with it meanwhile
		}
	}
	return back, ofVolume(err)
}

// gatherVolumes asks what the volumes of a container hold. One that is missing is new, unless the container has been made already.
func (e *Engine) gatherVolumes(ctx context.Context, c *container.Container, a *spec.Answers) error {
	store := e.volumes()
	made := false
	for _, m := range c.Mounts() {
		if m.IDMap {
			if err := e.gatherOwner(&m, a); err != nil {
				return err
			}
		}
		if m.Type != container.Volume || m.Dir != "" {
			continue
		}
		v, err := store.Get(m.Source)
		// A volume that isn't there is made with the container; of a container that was made already, somebody has taken
		// its data away, which must not look like an empty volume.
		if errors.Is(err, volume.ErrNotFound) {
			if _, statErr := os.Lstat(filepath.Join(e.dir(c.ID), supervise.ContainerFile)); statErr == nil {
				made = true
			}
			if made || m.Form == container.FormFrom {
				return notFound("%s: volume %s isn't there any more: somebody has removed its directory %s", originOfMount(&m), m.Source,
					store.Path(m.Source))
			}
			v, err = &volume.Volume{Name: m.Source, Options: m.DriverOptions}, nil
		}
		if err != nil {
			return ofVolume(err)
		}
		answer, err := e.volumeAnswer(ctx, c, v, &m)
		if err != nil {
			return err
		}
		if a.Volumes == nil {
			a.Volumes = map[string]spec.Volume{}
		}
		a.Volumes[m.Source] = answer
	}
	return nil
}

func originOfMount(m *container.Mount) string {
	if m.Origin == "" {
		return "the image's VOLUME " + m.Target
	}
	return m.Origin
}

// volumeAnswer looks where the files of a volume are, and whether there are any.
func (e *Engine) volumeAnswer(ctx context.Context, c *container.Container, v *volume.Volume, m *container.Mount) (spec.Volume, error) {
	var out spec.Volume
	dir := e.volumes().Data(v.Name)
	switch {
	case v.Bound() != "":
		out.Source, out.Device = v.Bound(), true
		if st, err := os.Stat(out.Source); err != nil || !st.IsDir() {
			if err == nil {
				err = unix.ENOTDIR
			}
			return out, invalid("%s: failed to mount local volume: the device %s of volume %s: %w", originOfMount(m), out.Source,
				v.Name, errOf(err))
		}
		dir = out.Source
	case v.FileSystem():
		out.Source, out.Device = dir, true
		var err error
		if out.Mount, err = e.volumeMount(ctx, c, v, m); err != nil {
			return out, err
		}
		// What isn't mounted can't be looked into: the directory below would seem empty.
		if mounted, err := fork.Mounted(dir); err != nil || !mounted {
			return out, nil //nolint:nilerr // the step that copies looks whether there are files
		}
	}
	f, err := os.Open(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return out, nil
	}
	if err != nil {
		return out, err
	}
	defer f.Close()
	// One name is enough to know, and a volume may hold millions.
	names, _ := f.Readdirnames(1)
	out.Filled = len(names) > 0
	if out.Device && fork.HalfWithin(f) {
		out.Filled = false
	}
	if half, err := e.volumes().HalfFilled(v.Name); err != nil || half {
		out.Filled = false // the step goes on with that
		return out, err
	}
	return out, nil
}

// volumeMount is how the file system of a volume is mounted: as mount -t TYPE -o OPTIONS DEVICE would, but for helper programs of single
// file systems, such as mount.nfs. The one thing that all need of those is done here: the kernel takes addresses and no names of servers.
func (e *Engine) volumeMount(ctx context.Context, c *container.Container, v *volume.Volume, m *container.Mount) (*plan.HostMount, error) {
	store := e.volumes()
	out := &plan.HostMount{
		Type: v.Options["type"], Source: v.Options["device"], Target: store.Data(v.Name), Users: store.Mounts(v.Name), User: c.ID,
	}
	words := v.Words()
	for i, word := range words {
		host, ok := strings.CutPrefix(word, "addr=")
		if !ok || net.ParseIP(host) != nil {
			continue
		}
		// In the host's words and not the container's: it is the host that mounts. Ten seconds, or a start would wait as
		// long as the resolver likes.
		ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
		found, err := net.DefaultResolver.LookupIPAddr(ctx, host)
		cancel()
		if err != nil || len(found) == 0 {
			return nil, invalid("%s: failed to mount local volume: the address of the server of volume %s: %w", originOfMount(m), v.Name, err)
		}
		words[i] = "addr=" + found[0].String()
	}
	if strings.HasPrefix(out.Type, "nfs") && !slices.ContainsFunc(words, func(s string) bool { return strings.HasPrefix(s, "addr=") }) {
		return nil, invalid("%s: failed to mount local volume: volume %s has no address of its server: make it with --opt o=addr=SERVER,…",
			originOfMount(m), v.Name)
	}
	out.Flags, out.Options = volume.MountWords(words)
	return out, nil
}

// gatherOwner asks whose the files of a mount with idmap are.
func (e *Engine) gatherOwner(m *container.Mount, a *spec.Answers) error {
	source := m.Source
	if m.Type == container.Volume {
		source = e.volumes().Data(m.Source)
		if v, err := e.volumes().Get(m.Source); err == nil && v.Bound() != "" {
			source = v.Bound()
		} else if err == nil && v.FileSystem() {
			return unsupported("%s: idmap: whose the files of volume %s are is not known before it is mounted", m.Origin, m.Source)
		}
	}
	var st unix.Stat_t
	// A source that is made by the start will belong to root, which the zero values say.
	if err := unix.Stat(source, &st); err != nil && !(err == unix.ENOENT && (m.Type == container.Volume || m.MakeSource)) {
		return invalid("%s: %s: %w", m.Origin, source, err)
	}
	if a.Owners == nil {
		a.Owners = map[string][2]uint32{}
	}
	a.Owners[m.Target] = [2]uint32{st.Uid, st.Gid}
	return nil
}

// volumeUses are the volumes of a container for its supervisor, which tells of them.
func volumeUses(c *container.Container) []supervise.VolumeUse {
	var out []supervise.VolumeUse
	for _, m := range c.Mounts() {
		if m.Type == container.Volume && m.Dir == "" {
			out = append(out, supervise.VolumeUse{Name: m.Source, Target: m.Target, ReadOnly: m.ReadOnly})
		}
	}
	return out
}
