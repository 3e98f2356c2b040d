package engine

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"glassbox/container"
	"glassbox/image"
	"glassbox/state"
	"glassbox/supervise"
)

// Check looks at all that is kept and says what is wrong with it: images (see [image.Store.Check]), containers, names, volumes, networks.
// With Repair it mends what it can without losing what somebody has written: a container whose description can't be read stays, with its
// files, until somebody removes it.
func (e *Engine) Check(ctx context.Context, o image.CheckOptions) (image.Checked, error) {
	if err := e.refresh(ctx); err != nil {
		return image.Checked{}, err
	}
	if o.InUse == nil {
		o.InUse = func(id string) []string { return e.ImageUsers(ctx, id) }
	}
	out, err := e.images.Check(ctx, o)
	if err != nil {
		return out, err
	}
	found := func(f image.Finding) {
		out.Found++
		if f.Done != "" {
			out.Mended++
		}
		if o.Found != nil {
			o.Found(f)
		}
	}
	type check func(repair bool, found func(image.Finding)) error
	for _, look := range []check{e.checkNetworks, e.checkVolumes, e.checkContainers, e.checkNames, e.checkProjects} {
		if err := ctx.Err(); err != nil {
			return out, err
		}
		if err := look(o.Repair, found); err != nil {
			return out, err
		}
	}
	return out, nil
}

// below is a path as findings name it.
func (e *Engine) below(path string) string {
	if rel, err := filepath.Rel(e.cfg.Root, path); err == nil {
		return rel
	}
	return path
}

// checkNetworks sets records aside that can't be read. The default network is made again by the next container.
func (e *Engine) checkNetworks(repair bool, found func(image.Finding)) error {
	var errs []error
	for _, name := range e.networks().Damaged() {
		file := filepath.Join(e.networks().Config, name+".json")
		f := image.Finding{What: e.below(file), Text: "what network " + name + " is can't be read"}
		if repair {
			if err := os.Rename(file, file+".damaged"); err != nil {
				errs = append(errs, err)
				continue
			}
			f.Done = "set aside as " + name + ".json.damaged; a network is made again with glassbox network create " + name
		}
		found(f)
	}
	halves, err := e.networks().Halves(repair)
	for _, file := range halves {
		f := image.Finding{What: e.below(file), Text: "who was writing what a network is was killed"}
		if repair {
			f.Done = "removed; the network is as it was before, or isn't there"
		}
		found(f)
	}
	return errors.Join(append(errs, err)...)
}

// checkVolumes writes descriptions anew that can't be read: what a volume is worth is its files.
func (e *Engine) checkVolumes(repair bool, found func(image.Finding)) error {
	store := e.volumes()
	for _, name := range store.Damaged() {
		f := image.Finding{What: e.below(filepath.Join(store.Path(name), "volume.json")), Text: "what volume " + name + " is can't be read"}
		if repair {
			if err := store.Rewrite(name); err != nil {
				return err
			}
			f.Done = "written anew; its files are as they were, labels and options are lost"
		}
		found(f)
	}
	return nil
}

// checkContainers looks at each container's files. Those of its last start are written by the next one.
func (e *Engine) checkContainers(repair bool, found func(image.Finding)) error {
	ids, err := e.ids(false)
	if err != nil {
		return err
	}
	for _, id := range ids {
		dir := e.dir(id)
		c, err := e.readContainer(id)
		newer := container.NewerError(0)
		switch {
		case errors.Is(err, fs.ErrNotExist), errors.As(err, &newer): // being made or removed; another build's
			continue
		case err != nil:
			found(image.Finding{
				What: e.below(filepath.Join(dir, supervise.ContainerFile)),
				Text: "what container " + id[:min(12, len(id))] + " is can't be read; what it has written is in " + filepath.Join(dir, "upper") +
					", and glassbox rm -f " + id[:min(12, len(id))] + " removes it",
			})
			continue
		}
		if err := e.checkFiles(c, repair, found); err != nil {
			return err
		}
	}
	return nil
}

// checkFiles looks at what is written of a container whose description is in order.
func (e *Engine) checkFiles(c *container.Container, repair bool, found func(image.Finding)) error {
	dir := e.dir(c.ID)
	file := func(name string) string { return filepath.Join(dir, name) }
	held := state.Held(e.lockFile(c.ID))
	if _, err := supervise.ReadState(dir); err != nil {
		f := image.Finding{What: e.below(file(supervise.StateFile)), Text: "what became of container " + c.Name + " can't be read", Minor: true}
		if repair { // each command makes do without it, as after a power failure
			s, err := e.state(c.ID)
			if err == nil {
				err = supervise.WriteState(dir, s)
			}
			if err != nil {
				return err
			}
			f.Done = "written anew"
		}
		found(f)
	}
	var anything any
	for _, name := range []string{supervise.JobFile, supervise.PlanFile, supervise.HealthFile} {
		err := state.ReadJSON(file(name), &anything)
		if err == nil || errors.Is(err, fs.ErrNotExist) {
			continue
		}
		f := image.Finding{What: e.below(file(name)), Text: "of the last start of container " + c.Name + ", it can't be read", Minor: true}
		if repair && !held {
			if err := os.Remove(file(name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
			f.Done = "removed; the next start writes it"
		}
		found(f)
	}
	var names []string
	if err := state.ReadJSON(file(supervise.VolumesFile), &names); err != nil && !errors.Is(err, fs.ErrNotExist) {
		f := image.Finding{What: e.below(file(supervise.VolumesFile)), Text: "which volumes go with container " + c.Name + " can't be read"}
		if repair {
			if err := state.WriteJSONSync(file(supervise.VolumesFile), c.AnonymousVolumes()); err != nil {
				return err
			}
			f.Done = "written anew"
		}
		found(f)
	}
	if target, err := os.Readlink(e.nameFile(c.Name)); err != nil || target != c.ID {
		f := image.Finding{What: "names/" + c.Name, Text: "the name of container " + c.ID[:12] + " is missing, or another's"}
		if repair && err != nil {
			os.Remove(e.nameFile(c.Name)) // a file that is no link
			if err := os.Symlink(c.ID, e.nameFile(c.Name)); err != nil {
				return err
			}
			f.Done = "made"
		}
		found(f)
	}
	return nil
}

// checkNames looks for names of containers that aren't there, and of which nobody makes one.
func (e *Engine) checkNames(repair bool, found func(image.Finding)) error {
	entries, err := os.ReadDir(filepath.Dir(e.nameFile("x")))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for _, entry := range entries {
		name := entry.Name()
		id, err := os.Readlink(e.nameFile(name))
		if err == nil && !strings.Contains(id, "/") {
			if _, err := os.Lstat(e.dir(id)); err == nil || state.Held(e.lockFile(id)) {
				continue
			}
		}
		f := image.Finding{What: "names/" + name, Text: "the name of a container that isn't there"}
		if repair {
			if err := os.Remove(e.nameFile(name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
			f.Done = "removed"
		}
		found(f)
	}
	return nil
}
