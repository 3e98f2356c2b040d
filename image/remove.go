package image

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"glassbox/host/remove"
)

// RemoveOptions say what Remove may do.
type RemoveOptions struct {
	// Force drops all names of an image that has several, and the names of one that containers use. Layers that a
	// container uses are never deleted: the image stays, without a name, until it is removed again.
	Force bool
	// InUse lists the containers made from an image; nil means none.
	InUse func(id string) []string
}

// Removed says what Remove did.
type Removed struct {
	Untagged []string // familiar names and digests
	Deleted  []string // the image's ID and the diff IDs of layers that nobody else uses
}

// Remove drops a name. With the last name, or by ID, the image goes, with the layers that no other image has. The error
// is an [*InUseError] when containers use it, and [ErrConflict] when an ID has several names and Force is not set.
func (s *Store) Remove(ref string, o RemoveOptions) (*Removed, error) {
	// Before the lock is taken, which would make a file in a store that may be empty.
	if _, err := s.Resolve(ref); err != nil {
		return nil, err
	}
	// What was taken out of sight is deleted after the lock has been given back: a large layer takes seconds.
	var trash []string
	defer func() {
		for _, t := range trash {
			remove.All(t)
		}
	}()
	unlock, err := s.lock()
	if err != nil {
		return nil, err
	}
	defer unlock()
	n, err := s.readNames()
	if err != nil {
		return nil, err
	}
	img, err := s.resolve(ref, n)
	if err != nil {
		return nil, err
	}
	out := &Removed{}
	drop := s.keysFor(ref, img, n) // names to drop; empty when ref is an ID
	byID := len(drop) == 0
	if byID {
		if len(img.Names) > 1 && !o.Force {
			return nil, &Error{
				Op: "remove", Name: ref, Kind: ErrConflict, Text: "the image has several names: " + join(img.Names, 5),
				Hint: "remove by name, or all at once with force",
			}
		}
		drop = allKeys(img, n)
	}
	left := 0
	for k, id := range n.Tags {
		if id == img.ID && !slices.Contains(drop, k) {
			left++
		}
	}
	last := byID || left == 0
	if last {
		drop = allKeys(img, n)
		// Asked under the lock and as late as this: a container may have been made since the first look.
		if o.InUse != nil {
			if users := o.InUse(img.ID); len(users) > 0 {
				if !o.Force {
					return nil, &InUseError{Name: ref, ID: img.ID, Containers: users}
				}
				last = false // names go, content stays
			}
		}
	}
	// Names first: whoever is killed from here on leaves an image that has none, and can be removed by its ID.
	for _, k := range drop {
		delete(n.Tags, k)
		delete(n.Digests, k)
		out.Untagged = append(out.Untagged, familiarKey(k))
	}
	slices.Sort(out.Untagged)
	if len(drop) > 0 {
		if err := s.writeNames(n); err != nil {
			return nil, err
		}
	}
	told := 1 // as Docker: the digests that go with a repository's last tag are not told of
	if byID {
		told = len(drop)
	}
	if !last {
		s.removed(img, told, false)
		return out, nil
	}
	gone, err := s.unlinkImage(img.ID)
	s.removed(img, told, err == nil)
	if err != nil {
		return nil, err
	}
	trash = append(trash, gone)
	out.Deleted = append(out.Deleted, img.ID)
	// Asked after the image is gone, so that its own layers aren't among those in use.
	used, err := s.usedLayers()
	if err != nil {
		return nil, err
	}
	for _, d := range img.Config.RootFS.DiffIDs {
		if !used[string(d)] {
			s.dropArchive(string(d))
		}
	}
	for _, l := range img.Layers {
		if used[l.Dir] {
			continue
		}
		gone, err := s.unlinkLayer(filepath.Base(l.Dir))
		if err != nil {
			return nil, err
		}
		trash = append(trash, gone)
		out.Deleted = append(out.Deleted, l.DiffID)
	}
	return out, nil
}

// keysFor returns the keys of names.json that a reference names itself.
func (s *Store) keysFor(ref string, img *Image, n *names) []string {
	r, err := ParseRef(ref)
	if err != nil {
		return nil
	}
	var keys []string
	if r.Digest == "" {
		if n.Tags[r.tagKey()] == img.ID {
			keys = append(keys, r.tagKey())
			// The digests of a repository go with its last tag.
			for k, id := range n.Tags {
				if id == img.ID && k != r.tagKey() && strings.HasPrefix(k, r.Name()+":") {
					return keys
				}
			}
			for k, id := range n.Digests {
				if id == img.ID && strings.HasPrefix(k, r.Name()+"@") {
					keys = append(keys, k)
				}
			}
		}
		return keys
	}
	for k, id := range n.Digests {
		if id == img.ID && strings.HasPrefix(k, r.Name()+"@") {
			keys = append(keys, k)
		}
	}
	return keys
}

func allKeys(img *Image, n *names) []string {
	var keys []string
	for _, m := range []map[string]string{n.Tags, n.Digests} {
		for k, id := range m {
			if id == img.ID {
				keys = append(keys, k)
			}
		}
	}
	return keys
}

// unlinkImage takes an image out of sight; the path returned is to be deleted without the lock.
func (s *Store) unlinkImage(id string) (string, error) {
	to, err := os.MkdirTemp(s.path("images"), ".rm-")
	if err != nil {
		return "", err
	}
	return to, os.Rename(s.path("images", hexOf(id)), filepath.Join(to, "d"))
}

// unlinkLayer takes a layer out of sight, the record first: without it the directory counts for nothing.
func (s *Store) unlinkLayer(short string) (string, error) {
	if err := os.Remove(s.path("layers", short+".json")); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	to, err := os.MkdirTemp(s.layersDir(), "rm.")
	if err != nil {
		return "", err
	}
	err = os.Rename(filepath.Join(s.layersDir(), short), filepath.Join(to, "d"))
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	return to, err
}

// dropArchive removes the record of a layer's archive.
func (s *Store) dropArchive(diffID string) {
	for _, suffix := range []string{"", ".lost", ".blob"} {
		os.Remove(s.path("tars", hexOf(diffID)+suffix))
	}
}

// usedLayers returns the directories, and the diff IDs, that images refer to.
func (s *Store) usedLayers() (map[string]bool, error) {
	ids, err := s.imageIDs()
	if err != nil {
		return nil, err
	}
	used := map[string]bool{}
	for _, id := range ids {
		var rec Image
		if err := readJSON(s.path("images", hexOf(id), "image.json"), &rec); err != nil {
			return nil, fmt.Errorf("image %s: %w", id, err)
		}
		for _, l := range rec.Layers {
			used[l.Dir], used[l.DiffID] = true, true
		}
		for _, d := range rec.Empty {
			used[d] = true
		}
	}
	return used, nil
}

// CollectOptions say what counts as left over.
type CollectOptions struct {
	// OrphanAge is how long a complete layer that no image names is kept for the next pull to go on from; zero removes
	// all of them.
	OrphanAge time.Duration
	// InUse keeps a layer directory ("layers/3f9c0a1b2c3d") though no image names it; nil keeps none.
	InUse func(dir string) bool
}

// Collected says what Collect removed.
type Collected struct {
	Ingests int // layers that were being filled by a process that is gone
	Orphans int // complete layers that no image names
	Trash   int // deletions that were interrupted
}

// keepOrphans is how long layers stay that a killed pull has completed.
const keepOrphans = 24 * time.Hour

// Sweep removes what killed processes left and nobody goes on with.
func (s *Store) Sweep() error {
	_, err := s.Collect(CollectOptions{OrphanAge: keepOrphans})
	return err
}

// Collect removes what killed processes left. It is safe beside running pulls: what they fill is locked, and while any
// pull runs complete layers without an image are left alone. Where there is nothing to do it reads two directories and
// the image records.
func (s *Store) Collect(o CollectOptions) (Collected, error) {
	var c Collected
	// There is no store, and looking for leftovers shall not make one.
	if _, err := os.Lstat(s.path("store.json")); errors.Is(err, fs.ErrNotExist) {
		return c, nil
	}
	var trash []string
	defer func() {
		for _, t := range trash {
			remove.All(t)
		}
	}()
	unlock, err := s.lock()
	if err != nil {
		return c, err
	}
	defer unlock()

	entries, err := os.ReadDir(s.layersDir())
	if err != nil {
		return c, err
	}
	idle := false
	// Whoever pulls holds it shared: layers that nobody names may be those of a pull that isn't over.
	if done, err := flock(s.path("pulling"), unix.LOCK_EX|unix.LOCK_NB); err == nil {
		defer done()
		idle = true
	}
	used, err := s.usedLayers()
	if err != nil {
		return c, err
	}
	for _, e := range entries {
		name := e.Name()
		dir := filepath.Join(s.layersDir(), name)
		switch {
		case strings.HasPrefix(name, "rm."):
			trash = append(trash, dir)
			c.Trash++
		case strings.HasPrefix(name, "in."):
			if alive(dir) {
				continue
			}
			if err := s.setAside(dir); err != nil {
				return c, err
			}
			c.Ingests++
		case !isHex(name) || !idle || used["layers/"+name]:
		default:
			if o.InUse != nil && o.InUse("layers/"+name) {
				continue
			}
			if st, err := os.Lstat(s.path("layers", name+".json")); err == nil && time.Since(st.ModTime()) < o.OrphanAge {
				continue
			}
			gone, err := s.unlinkLayer(name)
			if err != nil {
				return c, err
			}
			trash = append(trash, gone)
			c.Orphans++
		}
	}
	if c.Ingests > 0 { // set aside just now
		entries, err := os.ReadDir(s.layersDir())
		if err != nil {
			return c, err
		}
		for _, e := range entries {
			if dir := filepath.Join(s.layersDir(), e.Name()); strings.HasPrefix(e.Name(), "rm.") && !slices.Contains(trash, dir) {
				trash = append(trash, dir)
			}
		}
	}
	return c, s.collectRecords(idle, used, &trash, &c)
}

// collectRecords cleans the metadata: layer records without a directory, temporary files, lock files.
func (s *Store) collectRecords(idle bool, used map[string]bool, trash *[]string, c *Collected) error {
	if !idle { // temporary files may be somebody's
		return nil
	}
	var complete map[string]bool
	var known bool
	for _, d := range []string{"images", "layers", "tars", "locks", "."} {
		entries, err := os.ReadDir(s.path(d))
		if errors.Is(err, fs.ErrNotExist) { // tars: a store of an earlier version
			continue
		}
		if err != nil {
			return err
		}
		for _, e := range entries {
			p := s.path(d, e.Name())
			switch {
			case strings.HasPrefix(e.Name(), ".rm-"), strings.HasPrefix(e.Name(), ".in-"), strings.HasPrefix(e.Name(), ".tmp-"):
				*trash = append(*trash, p)
				c.Trash++
			case d == "locks":
				os.Remove(p)
			case d == "tars":
				diffID := "sha256:" + strings.TrimSuffix(e.Name(), filepath.Ext(e.Name()))
				if used[diffID] {
					continue
				}
				// It is written before its layer is: of a killed commit it may be all there is. Else it goes with its layer.
				if complete == nil {
					complete, known = s.completeLayers()
				}
				if known && !complete[diffID] {
					os.Remove(p)
				}
			case d == "layers":
				short := strings.TrimSuffix(e.Name(), ".json")
				if _, err := os.Lstat(filepath.Join(s.layersDir(), short)); errors.Is(err, fs.ErrNotExist) {
					os.Remove(p)
				}
			}
		}
	}
	return nil
}

// completeLayers are the diff IDs of all complete layers: the name of a record says it only where the layer is no variant. They aren't
// known where a record is damaged.
func (s *Store) completeLayers() (diffIDs map[string]bool, known bool) {
	diffIDs = map[string]bool{}
	names, err := filepath.Glob(s.path("layers", "*.json"))
	for _, name := range names {
		var r layerRecord
		if err == nil {
			err = readJSON(name, &r)
		}
		diffIDs[r.DiffID] = true
	}
	return diffIDs, err == nil
}

// alive reports whether a process holds the flock of an ingest directory.
func alive(dir string) bool {
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return false
	}
	defer unix.Close(fd)
	return errors.Is(unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB), unix.EWOULDBLOCK)
}
