package image

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"glassbox/event"
)

// LoadOptions say how to load. The zero value is right for most.
type LoadOptions struct {
	Platform Platform // of an image that the archive has for several; the zero value is the best for this machine
	Limits   Limits
	Progress func(Event) // called from several goroutines, one at a time
}

// Loaded is an image that came out of an archive.
type Loaded struct {
	Image *Image
	Names []string          // familiar names that the archive gives it; none is an image without a name
	Moved map[string]string // name → ID of the image that had it before
}

// dockerItem is an entry of a docker archive's manifest.json.
type dockerItem struct {
	Config       string
	RepoTags     []string
	Layers       []string
	LayerSources map[string]v1.Descriptor `json:",omitempty"`
}

const refName = "io.containerd.image.name"

// found in an archive: an image that may be loaded.
type packed struct {
	doc       *document // nil in a docker archive: its manifest is made here
	rawConfig []byte
	layers    []string // names of the layers' files in a docker archive
	platform  Platform
	tags      []Ref
}

// Load reads the images of an archive, or of a directory, as docker save and its relatives write them: docker archives, OCI layouts, and
// what is both; plain or compressed with gzip, zstd or bzip2; layers likewise. Every digest is checked. An image gets its names when all
// of it is there; those that came before a damaged one stay.
func (s *Store) Load(ctx context.Context, f *os.File, o LoadOptions) ([]Loaded, error) {
	release, err := s.adding()
	if err != nil {
		return nil, err
	}
	defer release()
	po := PullOptions{Platform: o.Platform, Limits: o.Limits, Progress: o.Progress}.withDefaults()
	m := newMeter(po.Limits)
	t, err := s.openTar(ctx, f, m)
	if err != nil {
		return nil, err
	}
	defer t.close()
	// All that the archive says is read before the first layer, so that a broken one leaves no half of it.
	list, err := t.images(&po)
	if err != nil {
		return nil, err
	}
	out := newReporter(o.Progress)
	defer out.sendWarnings()
	var done []Loaded
	for _, it := range list {
		l, err := s.loadOne(ctx, t, it, &po, out)
		if err != nil {
			return done, err
		}
		done = append(done, *l)
		s.happened(event.Load, l.Image.ID, l.Image.ID, l.Image)
	}
	return done, nil
}

func (s *Store) loadOne(ctx context.Context, t *tarIndex, it packed, po *PullOptions, out *reporter) (*Loaded, error) {
	src := &tarSource{t: t, names: map[string]string{}}
	doc := it.doc
	if doc == nil {
		doc = &document{image: newManifest(it.rawConfig, len(it.layers))}
	}
	config, err := parseConfig(it.rawConfig, doc.image)
	if err != nil {
		return nil, err
	}
	p := &pull{store: s, opts: po, out: out, src: src, local: true, platform: it.platform}
	if len(it.tags) > 0 {
		p.ref = it.tags[0]
	}
	if err := p.checkPlatform(config); err != nil {
		return nil, asLoad(err)
	}
	// A docker archive names files and not digests. What a layer is, its diff ID says, and that is checked when it is
	// unpacked.
	for n, name := range it.layers {
		e, ok := t.find(name)
		if !ok {
			return nil, badArchive("the archive lacks %.200q, which its manifest names", name)
		}
		d := config.RootFS.DiffIDs[n]
		src.names[string(d)] = name
		doc.image.Layers[n] = v1.Descriptor{MediaType: v1.MediaTypeImageLayer, Digest: d, Size: e.size}
	}
	item := &newImage{
		id: string(doc.image.Config.Digest), manifest: doc, config: config, rawConfig: it.rawConfig, platform: p.platform, tags: it.tags,
	}
	img, err := p.settle(ctx, item)
	if err != nil {
		return nil, err
	}
	l := &Loaded{Image: img, Moved: item.moved}
	for _, r := range it.tags {
		l.Names = append(l.Names, r.Familiar())
	}
	return l, nil
}

// newManifest is a manifest that is made here, for a config and so many layers.
func newManifest(rawConfig []byte, layers int) *v1.Manifest {
	return &v1.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2},
		MediaType: v1.MediaTypeImageManifest,
		Config: v1.Descriptor{
			MediaType: v1.MediaTypeImageConfig, Digest: digest.Digest(digestOf(rawConfig)), Size: int64(len(rawConfig)),
		},
		Layers: make([]v1.Descriptor, layers),
	}
}

// asLoad gives an error of the pull's code the name of what is done here.
func asLoad(err error) error {
	if e := (*Error)(nil); errors.As(err, &e) && e.Op == "pull" {
		c := *e
		c.Op = "load"
		return &c
	}
	return err
}

// images reads what the archive says it has.
func (t *tarIndex) images(po *PullOptions) ([]packed, error) {
	_, oci := t.find("index.json")
	_, docker := t.find("manifest.json")
	switch {
	case oci:
		// Docker's own archives are both; the index has the digests.
		return t.ociImages(po)
	case docker:
		return t.dockerImages(po)
	}
	if _, old := t.find("repositories"); old {
		return nil, &Error{
			Op: "load", Kind: ErrUnsupported, Text: "an archive as Docker wrote it before 1.10 (2016)",
			Hint: "save the image again with a current tool",
		}
	}
	err := badArchive("this is no archive of images: it has neither index.json nor manifest.json").(*Error)
	err.Hint = "glassbox import makes an image of a file system's archive"
	return nil, err
}

func (t *tarIndex) dockerManifest(l Limits) ([]dockerItem, error) {
	raw, err := t.small("manifest.json", l.Manifest)
	if err != nil {
		return nil, err
	}
	if err := checkStrings(raw, maxConfigItems); err != nil {
		return nil, badArchive("manifest.json: %v", err)
	}
	var items []dockerItem
	if err := json.Unmarshal(raw, &items); err != nil {
		return nil, badArchive("manifest.json: %s", jsonWords(err))
	}
	return items, nil
}

func (t *tarIndex) dockerImages(po *PullOptions) ([]packed, error) {
	items, err := t.dockerManifest(po.Limits)
	if err != nil {
		return nil, err
	}
	if len(items) == 0 {
		return nil, badArchive("the archive has no image")
	}
	var list []packed
	for n, item := range items {
		raw, err := t.small(item.Config, po.Limits.Config)
		if err != nil {
			return nil, err
		}
		if len(item.Layers) > po.Limits.Layers {
			return nil, &Error{Op: "load", Kind: ErrLimit, Text: fmt.Sprintf("image %d has more than %d layers", n+1, po.Limits.Layers)}
		}
		tags, err := parseTags(item.RepoTags)
		if err != nil {
			return nil, err
		}
		list = append(list, packed{rawConfig: raw, layers: item.Layers, tags: tags})
	}
	return list, nil
}

func parseTags(names []string) ([]Ref, error) {
	var tags []Ref
	for _, name := range names {
		r, err := ParseRef(name)
		if err != nil {
			return nil, err
		}
		if r.tags() && !slices.Contains(tags, r) {
			tags = append(tags, r)
		}
	}
	return tags, nil
}

// ociImages reads an OCI layout's index. Entries with the same name are one image for several platforms.
func (t *tarIndex) ociImages(po *PullOptions) ([]packed, error) {
	raw, err := t.small("index.json", po.Limits.Manifest)
	if err != nil {
		return nil, err
	}
	top, err := parseDocument(raw, "", po.Limits)
	if err != nil {
		return nil, asLoad(err)
	}
	if top.index == nil {
		return nil, badArchive("index.json is no index")
	}
	more, err := t.moreNames(po.Limits)
	if err != nil {
		return nil, err
	}
	groups := map[string]*v1.Index{}
	var order []string
	for n, d := range top.index.Manifests {
		if d.Platform != nil && d.Platform.OS == "unknown" || d.Annotations["vnd.docker.reference.type"] != "" {
			continue // attestations
		}
		name := d.Annotations[refName]
		if name == "" && isName(d.Annotations[v1.AnnotationRefName]) {
			name = d.Annotations[v1.AnnotationRefName]
		}
		// A name can't begin with a space.
		key := cmp.Or(name, fmt.Sprintf(" %d", n)) // without a name each is one of its own
		if groups[key] == nil {
			groups[key] = &v1.Index{}
			order = append(order, key)
		}
		groups[key].Manifests = append(groups[key].Manifests, d)
	}
	if len(order) == 0 {
		return nil, badArchive("the archive has no image")
	}
	var list []packed
	at := map[string]int{} // manifest → place in list
	for _, key := range order {
		it, err := t.pick(groups[key], key, po)
		if err != nil {
			return nil, err
		}
		names := more[string(it.doc.image.Config.Digest)]
		if key[0] != ' ' {
			names = append([]string{key}, names...)
		}
		if it.tags, err = parseTags(names); err != nil {
			return nil, err
		}
		if n, ok := at[it.doc.digest]; ok { // one image with several names
			for _, r := range it.tags {
				if !slices.Contains(list[n].tags, r) {
					list[n].tags = append(list[n].tags, r)
				}
			}
			continue
		}
		at[it.doc.digest] = len(list)
		list = append(list, *it)
	}
	return list, nil
}

// moreNames reads the names that a layout which is a docker archive, too, has for its images, by the digests of their configs.
func (t *tarIndex) moreNames(l Limits) (map[string][]string, error) {
	if _, ok := t.find("manifest.json"); !ok {
		return nil, nil
	}
	items, err := t.dockerManifest(l)
	if err != nil {
		return nil, err
	}
	names := map[string][]string{}
	for _, item := range items {
		raw, err := t.small(item.Config, l.Config)
		if err != nil {
			return nil, err
		}
		names[digestOf(raw)] = append(names[digestOf(raw)], item.RepoTags...)
	}
	return names, nil
}

// pick goes from an index to the image for the platform that is wanted.
func (t *tarIndex) pick(idx *v1.Index, name string, po *PullOptions) (*packed, error) {
	it := &packed{}
	for depth := 0; ; depth++ {
		if depth == 4 {
			return nil, badArchive("indexes nested too deeply")
		}
		d := idx.Manifests[0]
		// With one entry there is nothing to choose, whatever platform it says it is for: that is checked with the config.
		if len(idx.Manifests) > 1 || depth > 0 {
			var err error
			if d, err = choose(idx, po.Platform, thisMachine(), name); err != nil {
				return nil, asLoad(err)
			}
		}
		if d.Platform != nil {
			it.platform = platformOf(*d.Platform)
		}
		raw, err := t.blob(d, po.Limits.Manifest)
		if err != nil {
			return nil, err
		}
		doc, err := parseDocument(raw, d.MediaType, po.Limits)
		if err != nil {
			return nil, asLoad(err)
		}
		if doc.index == nil {
			it.doc = doc
			it.rawConfig, err = t.blob(doc.image.Config, po.Limits.Config)
			return it, err
		}
		if idx = doc.index; len(idx.Manifests) == 0 {
			return nil, badArchive("an index without images")
		}
	}
}

// settle makes an image's layers available and names it. Another process may remove a layer between our finding it and our naming the
// image; then it is fetched again.
func (p *pull) settle(ctx context.Context, item *newImage) (*Image, error) {
	for attempt := 0; ; attempt++ {
		layers, err := p.layers(ctx, item.manifest.image, item.config)
		if errors.Is(err, fs.ErrNotExist) && attempt < 3 {
			continue
		}
		if err != nil {
			return nil, err
		}
		item.layers = layers
		if item.manifest.raw == nil {
			if err := p.store.ownManifest(item.manifest); err != nil {
				return nil, err
			}
		}
		img, err := p.store.commit(item)
		if errors.Is(err, errLayerGone) && attempt < 3 {
			continue
		}
		return img, err
	}
}

// ownManifest settles a manifest that is made here: its layers are the plain archives.
func (s *Store) ownManifest(doc *document) error {
	for n := range doc.image.Layers {
		l := &doc.image.Layers[n]
		a := &archive{store: s, diffID: string(l.Digest)}
		if err := a.stat(); err == nil {
			l.Size = a.size
		}
	}
	raw, err := json.Marshal(doc.image)
	if err != nil {
		return err
	}
	doc.raw, doc.digest = raw, digestOf(raw)
	return nil
}
