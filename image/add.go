package image

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"hash"
	"io"
	"os"
	"path/filepath"
	"sync/atomic"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"glassbox/event"
)

// AddOptions are an image that somebody has made beside the store, such as a builder.
type AddOptions struct {
	Manifest  []byte
	MediaType string // of the manifest
	Config    []byte
	Names     []string // that it gets; may be empty
	// Open opens a layer. It is asked for those that the store doesn't have yet, which are told by their diff IDs, and closed.
	Open     func(ctx context.Context, d v1.Descriptor) (io.ReadCloser, error)
	Limits   Limits
	Progress func(Event) // called from several goroutines, one at a time
}

// Add puts an image into the store, and gives it its names when all of it is there. Every digest is checked.
func (s *Store) Add(ctx context.Context, o AddOptions) (*Image, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	release, err := s.adding()
	if err != nil {
		return nil, err
	}
	defer release()
	po := PullOptions{Limits: o.Limits, Progress: o.Progress}.withDefaults()
	tags, err := parseTags(o.Names)
	if err != nil {
		return nil, err
	}
	doc, err := parseDocument(o.Manifest, o.MediaType, po.Limits)
	if err != nil {
		return nil, err
	}
	// The config's digest is the image's ID. A builder that mixes up two images would give one of them the other's name.
	if doc.image == nil || string(doc.image.Config.Digest) != digestOf(o.Config) {
		return nil, &Error{Op: "image", Name: digestOf(o.Config), Kind: ErrManifest, Text: "its manifest is that of another image"}
	}
	config, err := parseConfig(o.Config, doc.image)
	if err != nil {
		return nil, err
	}
	// The usual end of a build that changed nothing: no layer is opened, and no time of a pull is written anew.
	if img := s.hasAlready(doc, tags); img != nil { // a build of which all was cached
		s.tagged(img, tags)
		return img, nil
	}
	p := &pull{store: s, opts: &po, out: newReporter(o.Progress), src: opened{o.Open}, local: true, platform: platformOf(config.Platform)}
	if len(tags) > 0 {
		p.ref = tags[0]
	}
	defer p.out.sendWarnings()
	img, err := p.settle(ctx, &newImage{
		id: string(doc.image.Config.Digest), manifest: doc, config: config, rawConfig: o.Config, platform: p.platform, tags: tags,
	})
	if err != nil {
		return nil, err
	}
	s.tagged(img, tags)
	return img, nil
}

func (s *Store) tagged(img *Image, tags []Ref) {
	for _, t := range tags {
		s.happened(event.Tag, img.ID, t.Familiar(), img)
	}
}

// hasAlready returns the image if the store has exactly this one, under all of these names.
func (s *Store) hasAlready(doc *document, tags []Ref) *Image {
	n, err := s.readNames()
	if err != nil {
		return nil
	}
	id := string(doc.image.Config.Digest)
	img, err := s.load(id, n)
	if err != nil || img.ManifestDigest != doc.digest {
		return nil
	}
	for _, t := range tags {
		if n.Tags[t.tagKey()] != id {
			return nil
		}
	}
	// A record can outlive its directory, if somebody has removed that by hand.
	for _, l := range img.Layers {
		if _, err := os.Lstat(filepath.Join(s.root, l.Dir)); err != nil {
			return nil
		}
	}
	return img
}

// opened is a source of layers that somebody else opens.
type opened struct {
	open func(ctx context.Context, d v1.Descriptor) (io.ReadCloser, error)
}

func (o opened) blob(ctx context.Context, d v1.Descriptor) stream {
	r, err := o.open(ctx, d)
	return &openedStream{r: r, err: err, want: d, hash: sha256.New()}
}

// openedStream checks size and digest at the end.
type openedStream struct {
	r    io.ReadCloser
	n    atomic.Int64
	hash hash.Hash
	want v1.Descriptor
	err  error
}

func (b *openedStream) received() int64 { return b.n.Load() }

func (b *openedStream) Close() error {
	if b.r == nil {
		return nil
	}
	return b.r.Close()
}

func (b *openedStream) Read(p []byte) (int, error) {
	if b.err != nil {
		return 0, b.err
	}
	n, err := b.r.Read(p)
	b.n.Add(int64(n))
	// What was read counts for the digest also where an error came with it.
	b.hash.Write(p[:n])
	if err == io.EOF {
		if got := "sha256:" + hex.EncodeToString(b.hash.Sum(nil)); got != string(b.want.Digest) || b.n.Load() != b.want.Size {
			b.err = &Error{
				Op: "layer", Name: string(b.want.Digest), Kind: ErrDigest,
				Text: fmt.Sprintf("%d bytes with the digest %s came, the manifest says %d", b.n.Load(), got, b.want.Size),
			}
			return n, b.err
		}
	}
	return n, err
}

// PlainManifest is a manifest for the image as the store can give it back: its layers are the plain archives, named by their diff IDs. The
// error is [ErrNoArchive] where one can't be given back.
func (i *Image) PlainManifest() ([]byte, error) {
	list, err := i.archives()
	if err != nil {
		return nil, err
	}
	m := newManifest(i.RawConfig, len(list))
	for n, a := range list {
		m.Layers[n] = v1.Descriptor{MediaType: v1.MediaTypeImageLayer, Digest: i.Config.RootFS.DiffIDs[n], Size: a.size}
	}
	doc := &document{image: m}
	if err := i.store.ownManifest(doc); err != nil {
		return nil, err
	}
	return doc.raw, nil
}

// PlainSize is the length of the plain archive of one of the image's layers.
func (i *Image) PlainSize(diffID string) (int64, error) {
	a, err := i.archiveOf(diffID)
	if err != nil {
		return 0, err
	}
	return a.size, nil
}

// WritePlain writes the plain archive of one of the image's layers. An error is returned also where all was written but isn't what the
// diff ID says.
func (i *Image) WritePlain(ctx context.Context, diffID string, w io.Writer) error {
	a, err := i.archiveOf(diffID)
	if err != nil {
		return err
	}
	return a.writeTo(ctx, w)
}

// WithLayer finds an image that has a layer; nil if there is none.
func (s *Store) WithLayer(diffID string) (*Image, error) {
	if !validDigest(diffID) {
		return nil, nil
	}
	all, err := s.List()
	if err != nil {
		return nil, err
	}
	for _, i := range all {
		for _, d := range i.Config.RootFS.DiffIDs {
			if string(d) == diffID {
				return i, nil
			}
		}
	}
	return nil, nil
}
