package image

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"glassbox/host/remove"
)

// CheckOptions say what Check does.
type CheckOptions struct {
	Repair bool                     // mend what is found: fetch it again, or else remove it
	InUse  func(id string) []string // containers made from an image: what they use is not touched
	Pull   PullOptions              // how to fetch again
	Found  func(Finding)            // told of each as it is found
}

// Finding is one thing that is wrong in a store.
type Finding struct {
	What  string // path below the store's root, or an image's name
	Text  string // what is wrong
	Done  string // what was done about it; empty: nothing
	Minor bool   // nothing is lost by it
}

// Checked counts what was looked at.
type Checked struct {
	Images, Layers int
	Found, Mended  int
}

// checker is one run of Check.
type checker struct {
	s     *Store
	ctx   context.Context
	o     CheckOptions
	out   Checked
	sound map[string]bool // layers (ID) whose content was read and is right
}

func (c *checker) found(f Finding) {
	if f.Done != "" {
		c.out.Mended++
	}
	c.out.Found++
	if c.o.Found != nil {
		c.o.Found(f)
	}
}

// Check reads all of a store and compares it with the digests that it goes by: names, images, the files of layers. What killed processes
// left is among it. With Repair an image that is damaged is fetched again from where it came from; if that fails it is removed, and its
// names with it. What a container uses stays as it is, and is told.
func (s *Store) Check(ctx context.Context, o CheckOptions) (Checked, error) {
	c := &checker{s: s, ctx: ctx, o: o, sound: map[string]bool{}}
	if _, err := os.Lstat(s.path()); errors.Is(err, fs.ErrNotExist) {
		return c.out, nil // nothing was ever stored
	}
	// In this order: an image's check needs names and records that make sense, and leftovers are what no image needs after
	// all repairs.
	for _, step := range []func() error{c.form, c.names, c.layerRecords, c.images, c.leftovers} {
		if err := context.Cause(ctx); err != nil {
			return c.out, err
		}
		if err := step(); err != nil {
			return c.out, err
		}
	}
	return c.out, nil
}

// form checks store.json. Another version's store is none of ours to mend.
func (c *checker) form() error {
	_, err := c.s.readForm()
	if err == nil || errors.Is(err, ErrUnsupported) {
		return err
	}
	f := Finding{What: "image/store.json", Text: damaged(err)}
	if errors.Is(err, fs.ErrNotExist) { // prepare writes it last, and before there is any image
		images, _ := os.ReadDir(c.s.path("images"))
		f.Minor = len(images) == 0
	}
	if c.o.Repair {
		if err := os.Remove(c.s.path("store.json")); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		if _, err := c.s.prepare(); err != nil {
			return err
		}
		f.Done = "written anew"
	}
	c.found(f)
	return nil
}

// damaged says what is wrong with a file that can't be read.
func damaged(err error) string {
	var syntax *json.SyntaxError
	var kind *json.UnmarshalTypeError
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return "it is missing"
	case errors.As(err, &syntax):
		return "it is damaged: " + jsonWords(syntax)
	case errors.As(err, &kind):
		return "it is damaged: " + jsonWords(kind)
	case errors.Is(err, io.ErrUnexpectedEOF):
		return "it is cut short"
	}
	return err.Error()
}

// names checks names.json: each name stands for an image that is there.
func (c *checker) names() error {
	unlock, err := c.s.lock()
	if err != nil {
		return err
	}
	defer unlock()
	n, err := c.s.readNames()
	if err != nil {
		f := Finding{What: "image/names.json", Text: damaged(err)}
		if c.o.Repair {
			// Kept under another name: it may be a person's to mend, and says what was there.
			kept := c.s.path("names.json.damaged")
			if err := os.Rename(c.s.path("names.json"), kept); err != nil {
				return err
			}
			f.Done = "set aside as names.json.damaged; images are there by their IDs, and pulling one again names it"
		}
		c.found(f)
		return nil
	}
	changed := false
	for _, m := range []map[string]string{n.Tags, n.Digests} {
		for _, key := range slices.Sorted(maps.Keys(m)) {
			id := m[key]
			_, refErr := ParseRef(key)
			_, err := os.Lstat(c.s.path("images", hexOf(id)))
			if refErr == nil && validDigest(id) && err == nil {
				continue
			}
			f := Finding{What: key, Text: "the name of an image that isn't there"}
			if refErr != nil {
				f.Text = "it is no name"
			}
			if c.o.Repair {
				delete(m, key)
				changed, f.Done = true, "removed"
			}
			c.found(f)
		}
	}
	if changed {
		return c.s.writeNames(n)
	}
	return nil
}

// layerRecords checks that each record can be read and has its directory. One that can't counts for nothing: its layer is fetched again
// by the repair of the images that need it.
func (c *checker) layerRecords() error {
	entries, err := os.ReadDir(c.s.path("layers"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for _, e := range entries {
		short, ok := strings.CutSuffix(e.Name(), ".json")
		if !ok || strings.HasPrefix(short, ".") {
			continue
		}
		c.out.Layers++
		var rec layerRecord
		err := readJSON(c.s.path("layers", e.Name()), &rec)
		text := ""
		switch {
		case err != nil:
			text = damaged(err)
		case !validDigest(rec.ID) || !validDigest(rec.DiffID) || rec.Dir != "layers/"+short || !strings.HasPrefix(hexOf(rec.ID), short):
			text = "it describes another layer"
		default:
			if st, err := os.Lstat(filepath.Join(c.s.root, rec.Dir)); err != nil || !st.IsDir() {
				text = "its directory is missing"
			}
		}
		if text == "" {
			continue
		}
		f := Finding{What: "image/layers/" + e.Name(), Text: text}
		if c.o.Repair {
			if err := os.Remove(c.s.path("layers", e.Name())); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
			f.Done = "removed: the images that need it follow"
		}
		c.found(f)
	}
	return nil
}

// images checks each image and its layers.
func (c *checker) images() error {
	ids, err := c.s.imageIDs()
	if err != nil {
		return err
	}
	for _, id := range ids {
		if err := context.Cause(c.ctx); err != nil {
			return err
		}
		c.out.Images++
		text, minor := c.image(id)
		// Asked twice: what was found while the check was being cancelled isn't true of the image.
		if err := context.Cause(c.ctx); err != nil {
			return err
		}
		if text == "" {
			continue
		}
		f := Finding{What: c.called(id), Text: text, Minor: minor}
		if c.o.Repair {
			if f.Done, err = c.mend(id, minor); err != nil {
				return err
			}
		}
		c.found(f)
	}
	return nil
}

// called is an image's first name, or its ID.
func (c *checker) called(id string) string {
	if n, err := c.s.readNames(); err == nil {
		for _, m := range []map[string]string{n.Tags, n.Digests} {
			for _, key := range slices.Sorted(maps.Keys(m)) {
				if m[key] == id {
					return familiarKey(key)
				}
			}
		}
	}
	return id
}

// image says what is wrong with an image; "" is nothing. Minor is what the image can be used with.
func (c *checker) image(id string) (text string, minor bool) {
	img, err := c.s.load(id, &names{})
	if err != nil {
		return damaged(err), false
	}
	// Layers by their records first, which is quick. The archives that follow read every file.
	if got := digestOf(img.RawConfig); got != id || img.ID != id {
		return "its configuration is another one, " + got, false
	}
	raw, err := img.RawManifest()
	if err != nil {
		return "its manifest: " + damaged(err), false
	}
	if got := digestOf(raw); got != img.ManifestDigest {
		return "its manifest is another one, " + got, false
	}
	for _, l := range img.Layers {
		short := filepath.Base(l.Dir)
		var rec layerRecord
		if err := readJSON(c.s.path("layers", short+".json"), &rec); err != nil {
			return fmt.Sprintf("the record of its layer %s: %s", short, damaged(err)), false
		}
		if st, err := os.Lstat(filepath.Join(c.s.root, l.Dir)); err != nil || !st.IsDir() {
			return fmt.Sprintf("its layer %s is missing", short), false
		}
	}
	for _, d := range img.Config.RootFS.DiffIDs {
		a, err := img.archiveOf(string(d))
		if errors.Is(err, ErrNoArchive) {
			return "the archive of a layer isn't kept: the image can't be saved, or checked", true
		}
		if err != nil {
			return err.Error(), false
		}
		key := a.dir + string(d)
		if c.sound[key] {
			continue
		}
		if err := a.writeTo(c.ctx, io.Discard); err != nil {
			if e := (*Error)(nil); errors.As(err, &e) {
				return fmt.Sprintf("its layer %s: %s", shortDigest(string(d)), e.Text), false
			}
			return err.Error(), false
		}
		c.sound[key] = true
	}
	return "", false
}

// archiveOf is the archive of one layer.
func (i *Image) archiveOf(diff string) (*archive, error) {
	list, err := i.archives()
	if err != nil {
		return nil, err
	}
	for _, a := range list {
		if a.diffID == diff {
			return a, nil
		}
	}
	return nil, fs.ErrNotExist
}

// mend fetches a damaged image again, or removes it. It says what was done.
func (c *checker) mend(id string, minor bool) (string, error) {
	if used, err := c.inUse(id); used || err != nil {
		return "", err
	}
	n, err := c.s.readNames()
	if err != nil {
		return "", err
	}
	var from []string
	var tags []Ref
	for _, key := range slices.Sorted(maps.Keys(n.Digests)) {
		if n.Digests[key] == id {
			from = append(from, key)
		}
	}
	for _, key := range slices.Sorted(maps.Keys(n.Tags)) {
		if r, err := ParseRef(key); err == nil && n.Tags[key] == id {
			tags = append(tags, r)
		}
	}
	// Whoever can't be fetched again and works is left alone.
	if minor && len(from) == 0 {
		return "", nil
	}
	aside, err := c.setAside(id)
	if err != nil {
		return "", err
	}
	why := "nothing says which registry has it"
	for _, name := range from {
		img, err := c.s.Pull(c.ctx, name, c.o.Pull)
		if err == nil && img.ID == id {
			remove.All(aside.image)
			for _, dir := range aside.layers {
				remove.All(dir)
			}
			return "fetched again from " + familiarKey(name), c.retag(id, tags)
		}
		if cause := context.Cause(c.ctx); cause != nil {
			err = cause
		}
		if err != nil {
			why = err.Error()
		}
		if e := (*Error)(nil); errors.As(err, &e) {
			why = e.Text
		}
		if c.ctx.Err() != nil {
			return "", errors.Join(c.ctx.Err(), aside.back())
		}
	}
	if minor {
		return "", aside.back()
	}
	defer remove.All(aside.image)
	for _, dir := range aside.layers {
		defer remove.All(dir)
	}
	return "removed, with its names: it can't be fetched again (" + why + ")", c.forget(id)
}

// inUse reports whether containers use an image, or another one with the layers that would be taken away.
func (c *checker) inUse(id string) (bool, error) {
	if c.o.InUse == nil {
		return false, nil
	}
	ids, err := c.s.imageIDs()
	if err != nil {
		return false, err
	}
	var mine Image
	readJSON(c.s.path("images", hexOf(id), "image.json"), &mine) // may be what is damaged
	for _, other := range ids {
		var rec Image
		if other != id && readJSON(c.s.path("images", hexOf(other), "image.json"), &rec) != nil {
			// An image that can't be read uses nothing that could be told; it is checked for itself.
			continue
		}
		shares := other == id || slices.ContainsFunc(rec.Layers, func(l Layer) bool {
			return !c.sound[l.Dir+l.DiffID] && slices.ContainsFunc(mine.Layers, func(m Layer) bool { return m.Dir == l.Dir })
		})
		if shares && len(c.o.InUse(other)) > 0 {
			return true, nil
		}
	}
	return false, nil
}

// retag gives back the names that a pull by digest doesn't give.
func (c *checker) retag(id string, tags []Ref) error {
	return c.s.changeNames(func(n *names) bool {
		for _, r := range tags {
			n.Tags[r.tagKey()] = id
		}
		return true
	})
}

// forget drops an image's names.
func (c *checker) forget(id string) error {
	return c.s.changeNames(func(n *names) bool {
		for _, m := range []map[string]string{n.Tags, n.Digests} {
			maps.DeleteFunc(m, func(_, v string) bool { return v == id })
		}
		return true
	})
}

// asideImage is what was taken out of sight for a repair. A process that is killed meanwhile leaves names without an image, and layers
// for the next pull; the next check says so.
type asideImage struct {
	s      *Store
	id     string
	image  string
	layers map[string]string // short name → where its directory is now
	raw    map[string][]byte // short name → its record
}

// setAside takes an image out of sight, with those of its layers that no other image has: a pull would take them for sound.
func (c *checker) setAside(id string) (*asideImage, error) {
	unlock, err := c.s.lock()
	if err != nil {
		return nil, err
	}
	defer unlock()
	a := &asideImage{s: c.s, id: id, layers: map[string]string{}, raw: map[string][]byte{}}
	var rec Image
	readJSON(c.s.path("images", hexOf(id), "image.json"), &rec) // may be what is damaged
	if a.image, err = c.s.unlinkImage(id); err != nil {
		return nil, err
	}
	for _, l := range rec.Layers {
		short := filepath.Base(l.Dir)
		if !isHex(short) || c.sound[l.Dir+l.DiffID] {
			continue
		}
		// May be missing, which is why the layer is damaged.
		a.raw[short], _ = os.ReadFile(c.s.path("layers", short+".json"))
		if a.layers[short], err = c.s.unlinkLayer(short); err != nil {
			return nil, err
		}
	}
	return a, nil
}

// back undoes setAside.
func (a *asideImage) back() error {
	unlock, err := a.s.lock()
	if err != nil {
		return err
	}
	defer unlock()
	for short, dir := range a.layers {
		err := os.Rename(filepath.Join(dir, "d"), filepath.Join(a.s.layersDir(), short))
		if err == nil {
			err = writeFile(a.s.path("layers", short+".json"), a.raw[short])
		}
		if err != nil && !errors.Is(err, fs.ErrExist) && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		os.Remove(dir)
	}
	if err := os.Rename(filepath.Join(a.image, "d"), a.s.path("images", hexOf(a.id))); err != nil {
		return err
	}
	return os.Remove(a.image)
}

// leftovers counts what killed processes left, and removes it.
func (c *checker) leftovers() error {
	var list []string
	for _, pattern := range []string{"layers/in.*", "layers/rm.*", "image/.tmp-*", "image/*/.tmp-*", "image/images/.*-*"} {
		m, _ := filepath.Glob(filepath.Join(c.s.root, pattern))
		for _, p := range m {
			if !strings.HasPrefix(filepath.Base(p), "in.") || !alive(p) {
				list = append(list, p)
			}
		}
	}
	if len(list) == 0 {
		return nil
	}
	f := Finding{What: fmt.Sprintf("%d files and directories", len(list)), Text: "left by commands that were killed", Minor: true}
	if c.o.Repair {
		// Layers that no image names stay for the next pull to go on from.
		if _, err := c.s.Collect(CollectOptions{OrphanAge: 1 << 62}); err != nil {
			return err
		}
		f.Done = "removed"
	}
	c.found(f)
	return nil
}
