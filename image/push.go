package image

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"glassbox/event"
)

const typeDockerLayer = "application/vnd.docker.image.rootfs.diff.tar.gzip"

// Pushed is what a registry has been given.
type Pushed struct {
	Ref    string // full name
	Digest string // of the manifest
	Size   int64  // of the manifest, in bytes
	Same   bool   // the digest is the one that the image came with
}

// Push gives an image to the registry that its name says. A layer is sent only if the registry hasn't got it, in this or in another
// repository. A layer that was pulled is sent as the bytes that were pulled, as long as the registry that it came from still has them:
// then the manifest, and its digest, are those that came. Else it is compressed anew.
func (s *Store) Push(ctx context.Context, name string, o PullOptions) (*Pushed, error) {
	ref, err := ParseRef(name)
	if err != nil {
		return nil, err
	}
	if ref.Digest != "" {
		return nil, &Error{Op: "push", Name: name, Kind: ErrReference, Text: "a digest can't be pushed, only a tag"}
	}
	o = o.withDefaults()
	img, err := s.ResolveFor(ref.String(), o.Platform)
	if errors.Is(err, ErrNotFound) {
		return nil, &Error{
			Op: "push", Name: ref.Familiar(), Kind: ErrNotFound, Text: "an image does not exist locally with this name",
			Hint: "glassbox tag IMAGE " + ref.Familiar() + " gives it to one that is here",
		}
	}
	if err != nil {
		return nil, err
	}
	p := &push{store: s, ref: ref, img: img, opts: &o, out: newReporter(o.Progress)}
	got, err := p.run(ctx)
	p.out.sendWarnings()
	if err != nil && ctx.Err() != nil {
		return nil, fmt.Errorf("push %s: %w", ref.Familiar(), context.Cause(ctx))
	}
	if e := (*Error)(nil); err != nil && !(errors.As(err, &e) && e.Op == "push") {
		return nil, fmt.Errorf("push %s: %w", ref.Familiar(), err)
	}
	if err == nil {
		s.happened(event.Push, ref.Familiar(), ref.FamiliarName(), img)
	}
	return got, err
}

// PushTags lists the names that push -a pushes.
func (s *Store) PushTags(name string) ([]string, error) {
	ref, err := ParseRef(name)
	if err != nil {
		return nil, err
	}
	if ref.Digest != "" || strings.LastIndexByte(name, ':') > strings.LastIndexByte(name, '/') {
		return nil, &Error{Op: "push", Name: name, Kind: ErrReference, Text: "tag can't be used with --all-tags/-a"}
	}
	tags, err := s.tagsOf(ref)
	if err != nil {
		return nil, err
	}
	if len(tags) == 0 {
		return nil, &Error{Op: "push", Name: ref.FamiliarName(), Kind: ErrNotFound, Text: "an image does not exist locally with this name"}
	}
	var list []string
	for _, t := range tags {
		list = append(list, t.String())
	}
	return list, nil
}

type push struct {
	store  *Store
	ref    Ref
	img    *Image
	opts   *PullOptions
	out    *reporter
	client *client

	came    *document // the image's manifest as it came; nil if it was made here
	others  []Ref     // repositories that the image came from: the registry's own first
	places  []layerPlace
	near    []string // repositories of the same registry that may have a layer of the image; see neighbours
	mu      sync.Mutex
	sources map[string]*client // of others, opened when they are needed
}

func (p *push) run(ctx context.Context) (*Pushed, error) {
	raw, err := p.img.RawManifest()
	if err != nil {
		return nil, err
	}
	if p.came, err = parseDocument(raw, "", p.opts.Limits); err != nil {
		return nil, err
	}
	if err := p.whence(); err != nil {
		return nil, err
	}
	if err := p.neighbours(); err != nil {
		return nil, err
	}
	p.out.send(Event{State: Pushing, Ref: p.ref.Name()})
	p.client, err = newClient(ctx, clientFor{op: "push", ref: p.ref, opts: p.opts, warn: p.out.warn, push: true, mount: p.near})
	if err != nil {
		return nil, err
	}
	defer p.client.close()
	defer func() {
		for _, c := range p.sources {
			if c != nil {
				c.close()
			}
		}
	}()
	layers, err := p.blobs(ctx)
	if err != nil {
		return nil, err
	}
	return p.manifest(ctx, layers)
}

// whence finds the repositories that have, or had, the image.
func (p *push) whence() error {
	n, err := p.store.readNames()
	if err != nil {
		return err
	}
	seen := map[string]bool{}
	for _, key := range slices.Sorted(maps.Keys(n.Digests)) {
		r, err := ParseRef(key)
		if err != nil || n.Digests[key] != p.img.ID || seen[r.Name()] {
			continue
		}
		seen[r.Name()] = true
		p.others = append(p.others, r)
	}
	slices.SortStableFunc(p.others, func(a, b Ref) int {
		return cmp.Compare(btoi(a.Registry != p.ref.Registry), btoi(b.Registry != p.ref.Registry))
	})
	return nil
}

// mostNear is how many repositories are asked for a layer: each that lacks it costs a request, and is a word of the token's scope.
const mostNear = 4

// neighbours finds the repositories of the registry that may have layers of the image, which it takes over from there by itself: those
// that the image came from, those that its layers were pushed to, and those of other images with one of its layers, such as the one that it
// was built on.
func (p *push) neighbours() error {
	add := func(registry, repository string) {
		if registry == p.ref.Registry && repository != p.ref.Repository && len(p.near) < mostNear && !slices.Contains(p.near, repository) {
			p.near = append(p.near, repository)
		}
	}
	for _, r := range p.others {
		add(r.Registry, r.Repository)
	}
	p.places = make([]layerPlace, len(p.img.Config.RootFS.DiffIDs))
	for i, diff := range p.img.Config.RootFS.DiffIDs {
		p.places[i] = p.store.placeOf(string(diff))
		for _, name := range p.places[i].Repositories {
			if r, err := ParseRef(name); err == nil {
				add(r.Registry, r.Repository)
			}
		}
	}
	n, err := p.store.readNames()
	if err != nil {
		return err
	}
	looked := map[string]bool{} // images, and whether they have a layer of ours
	for _, key := range slices.Sorted(maps.Keys(n.Digests)) {
		r, err := ParseRef(key)
		if err != nil || r.Registry != p.ref.Registry || len(p.near) == mostNear {
			continue
		}
		id := n.Digests[key]
		has, ok := looked[id]
		if !ok {
			img, err := p.store.load(id, n)
			has = err == nil && slices.ContainsFunc(img.Config.RootFS.DiffIDs, func(d digest.Digest) bool {
				return slices.Contains(p.img.Config.RootFS.DiffIDs, d)
			})
			looked[id] = has
		}
		if has {
			add(r.Registry, r.Repository)
		}
	}
	return nil
}

// layerPlace is what is known of a layer at registries: the blob that it is there, and repositories that have it, the last one first.
type layerPlace struct {
	v1.Descriptor
	Repositories []string `json:"repositories,omitempty"`
}

// placeOf reads it. It is only a hint: what can't be read is not missed.
func (s *Store) placeOf(diff string) layerPlace {
	var l layerPlace
	if err := readJSON(s.path("tars", hexOf(diff)+".blob"), &l); err != nil || checkDescriptor(l.Descriptor) != nil {
		return layerPlace{}
	}
	return l
}

// notePlace writes down that a repository has a layer.
func (s *Store) notePlace(diff string, l layerPlace, d v1.Descriptor, repository string) error {
	if l.Digest == d.Digest && len(l.Repositories) > 0 && l.Repositories[0] == repository {
		return nil
	}
	if l.Digest != d.Digest {
		l = layerPlace{Descriptor: d}
	}
	others := slices.DeleteFunc(slices.Clone(l.Repositories), func(r string) bool { return r == repository })
	l.Repositories = append([]string{repository}, others[:min(len(others), mostNear)]...)
	err := writeJSON(s.path("tars", hexOf(diff)+".blob"), l)
	if errors.Is(err, os.ErrNotExist) {
		return nil // a store of an earlier version has no such directory
	}
	return err
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}

// blobs sees to it that the registry has the config and every layer, several at a time, and returns the layers as it has them.
func (p *push) blobs(ctx context.Context) ([]v1.Descriptor, error) {
	diffs := p.img.Config.RootFS.DiffIDs
	got := make([]v1.Descriptor, len(diffs))
	first := map[digest.Digest]int{}
	const config = -1
	once := []int{config} // a layer that comes twice is sent once
	for i, d := range diffs {
		if _, ok := first[d]; !ok {
			first[d] = i
			p.tell(string(d), Waiting, 0, 0, "")
			once = append(once, i)
		}
	}
	err := several(ctx, once, p.opts.Parallel+1, func(ctx context.Context, i int) (err error) {
		if i == config {
			return p.client.putBlob(ctx, p.came.image.Config, p.img.RawConfig)
		}
		got[i], err = p.layer(ctx, i)
		return err
	})
	if err != nil {
		return nil, err
	}
	for i, d := range diffs {
		got[i] = got[first[d]]
	}
	return got, nil
}

func (p *push) tell(diff string, s State, done, total int64, text string) {
	p.out.send(Event{State: s, Layer: diff, Done: done, Total: total, Name: text})
}

// known are the forms of a layer that a registry may have: as it came, and as it was compressed here for another push.
func (p *push) known(i int) []v1.Descriptor {
	diff := string(p.img.Config.RootFS.DiffIDs[i])
	var list []v1.Descriptor
	if i < len(p.came.image.Layers) && string(p.came.image.Layers[i].Digest) != diff {
		list = append(list, p.came.image.Layers[i])
	}
	if own := p.places[i].Descriptor; own.Digest != "" && (len(list) == 0 || list[0].Digest != own.Digest) {
		list = append(list, own)
	}
	return list
}

// layer sees to it that the registry has a layer, and notes that its repository does.
func (p *push) layer(ctx context.Context, i int) (v1.Descriptor, error) {
	d, err := p.give(ctx, i)
	if err != nil {
		return d, err
	}
	return d, p.store.notePlace(string(p.img.Config.RootFS.DiffIDs[i]), p.places[i], d, p.ref.Name())
}

func (p *push) give(ctx context.Context, i int) (v1.Descriptor, error) {
	diff := string(p.img.Config.RootFS.DiffIDs[i])
	known := p.known(i)
	for _, d := range known {
		has, err := p.client.hasBlob(ctx, d)
		if err != nil {
			return d, err
		}
		if has {
			p.tell(diff, Exists, 0, 0, "")
			return d, nil
		}
	}
	u := &upload{c: p.client, sent: &atomic.Int64{}}
	for _, d := range known {
		for _, from := range p.near {
			u.cancel(ctx)
			mounted, err := u.begin(ctx, string(d.Digest), from)
			if err != nil {
				return d, err
			}
			if mounted {
				p.tell(diff, Mounted, 0, 0, from)
				return d, nil
			}
		}
	}
	if len(known) > 0 {
		d, err := p.copyBlob(ctx, u, known[0], diff)
		if err == nil || ctx.Err() != nil {
			return d, err
		}
	}
	return p.compress(ctx, u, i)
}

// copyBlob sends a layer as the registry that the image came from has it.
func (p *push) copyBlob(ctx context.Context, u *upload, d v1.Descriptor, diff string) (v1.Descriptor, error) {
	err := error(&Error{Op: "push", Kind: ErrNotFound, Text: "no registry has it"})
	for _, r := range p.others {
		c, cerr := p.source(ctx, r)
		if cerr != nil {
			err = cerr
			continue
		}
		has, herr := c.hasBlob(ctx, d)
		if !has {
			if herr != nil {
				err = herr
			}
			continue
		}
		return p.sendStream(ctx, u, diff, d.Size, string(d.Digest), d.MediaType, func() io.ReadCloser { return c.blob(ctx, d) })
	}
	return d, err
}

// source is a client of a repository that layers are fetched from. What can't be spoken to is not asked again.
func (p *push) source(ctx context.Context, r Ref) (*client, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if c, ok := p.sources[r.Name()]; ok {
		if c == nil {
			return nil, errors.New("not there")
		}
		return c, nil
	}
	o := *p.opts
	o.ConnectTimeout = min(o.ConnectTimeout, 5*time.Second) // there is another way
	c, err := newClient(ctx, clientFor{op: "push", ref: r, opts: &o, warn: func(string) {}})
	if p.sources == nil {
		p.sources = map[string]*client{}
	}
	p.sources[r.Name()] = c
	return c, err
}

// compress makes a layer's archive again, compresses it and sends what comes of it.
func (p *push) compress(ctx context.Context, u *upload, i int) (v1.Descriptor, error) {
	diff := string(p.img.Config.RootFS.DiffIDs[i])
	list, err := p.img.archives()
	if err != nil {
		return v1.Descriptor{}, err
	}
	a := list[i]
	if known := p.known(i); len(known) > 0 && string(known[0].Digest) != diff && len(p.others) > 0 {
		p.out.warn("the registry that the image came from can't give all its layers: they are compressed anew, and the digest is another one")
	}
	mediaType := v1.MediaTypeImageLayerGzip
	if p.came.image.MediaType == typeDockerManifest {
		mediaType = typeDockerLayer
	}
	return p.sendStream(ctx, u, diff, a.size, "", mediaType, func() io.ReadCloser {
		r, w := io.Pipe()
		go func() {
			z, err := compressor(w, "gzip")
			if err == nil {
				err = a.writeTo(ctx, z)
				if end := z.Close(); err == nil { // in any case: it has goroutines
					err = end
				}
			}
			w.CloseWithError(err)
		}()
		return r
	})
}

// sendStream uploads a layer that open gives, and tells how far it is.
func (p *push) sendStream(ctx context.Context, u *upload, diff string, total int64, want, mediaType string, open func() io.ReadCloser,
) (v1.Descriptor, error) {
	stop := p.out.watchUpload(diff, total, u.sent)
	d, err := u.send(ctx, want, open)
	stop()
	if err == nil {
		d.MediaType = mediaType
		p.tell(diff, Done, d.Size, d.Size, "")
	}
	return d, err
}

// manifest pushes the manifest: the one that came, if all its layers are there.
func (p *push) manifest(ctx context.Context, layers []v1.Descriptor) (*Pushed, error) {
	raw := p.came.raw
	same := len(layers) == len(p.came.image.Layers)
	for i := range layers {
		same = same && layers[i].Digest == p.came.image.Layers[i].Digest
	}
	mediaType := cmp.Or(p.came.image.MediaType, v1.MediaTypeImageManifest)
	config := p.came.image.Config
	if !same {
		m := v1.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: mediaType, Config: config, Layers: layers}
		m.Annotations = p.came.image.Annotations
		var err error
		if raw, err = json.Marshal(m); err != nil {
			return nil, err
		}
	}
	if err := p.client.putManifest(ctx, p.ref.Tag, mediaType, raw); err != nil {
		return nil, err
	}
	got := &Pushed{Ref: p.ref.String(), Digest: digestOf(raw), Size: int64(len(raw)), Same: same}
	p.out.sendWarnings()
	p.out.send(Event{State: Finished, Ref: p.ref.Familiar(), Tag: p.ref.Tag, Digest: got.Digest, Total: got.Size})
	return got, p.store.pushed(p.ref, p.img.ID, got.Digest)
}

// pushed notes the digest that an image has in a repository.
func (s *Store) pushed(r Ref, id, digest string) error {
	key := r.Name() + "@" + digest
	return s.changeNames(func(n *names) bool {
		if n.Digests[key] == id {
			return false
		}
		if _, err := os.Lstat(s.path("images", hexOf(id))); err != nil {
			return false // removed meanwhile
		}
		n.Digests[key] = id
		return true
	})
}
