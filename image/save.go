package image

import (
	"archive/tar"
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"path"
	"runtime"
	"slices"
	"strings"

	"github.com/klauspost/compress/zstd"
	"github.com/klauspost/pgzip"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"glassbox/event"
)

// SaveOptions say how to save. The zero value is what docker save does.
type SaveOptions struct {
	Platform Platform // of the images; one for another platform is an error
	Compress string   // of the layers: "" (none), "gzip" or "zstd"
}

// toSave is an image with the names that are saved with it.
type toSave struct {
	img  *Image
	tags []Ref
}

// Save writes images as an archive that is both, as docker save's is: an OCI layout (oci-layout, index.json) and a docker archive
// (manifest.json, repositories). An image that is named by its repository alone is saved with all tags of it, one that is named by ID
// without any. Layers are the archives that they came as, byte for byte; their digests are checked while they are written, and where
// one is wrong the archive has no manifest. The same images make the same archive.
func (s *Store) Save(ctx context.Context, w io.Writer, names []string, o SaveOptions) error {
	list, err := s.chooseToSave(names, o.Platform)
	if err != nil {
		return err
	}
	out := bufio.NewWriterSize(w, 1<<20)
	a := &saver{ctx: ctx, store: s, tw: tar.NewWriter(out), have: map[string]bool{}, compress: o.Compress, blobs: map[string]v1.Descriptor{}}
	if err := a.file("oci-layout", []byte(`{"imageLayoutVersion":"1.0.0"}`)); err != nil {
		return err
	}
	for _, d := range []string{"blobs/", "blobs/sha256/"} {
		if err := a.tw.WriteHeader(&tar.Header{Name: d, Typeflag: tar.TypeDir, Mode: 0o755, ModTime: epoch}); err != nil {
			return err
		}
	}
	index := v1.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: v1.MediaTypeImageIndex}
	var items []dockerItem
	repositories := map[string]map[string]string{}
	for _, it := range list {
		d, item, err := a.image(it)
		if err != nil {
			return err
		}
		items = append(items, *item)
		index.Manifests = append(index.Manifests, named(*d, it.tags)...)
		for _, r := range it.tags {
			if repositories[r.FamiliarName()] == nil {
				repositories[r.FamiliarName()] = map[string]string{}
			}
			if n := len(item.Layers); n > 0 {
				repositories[r.FamiliarName()][r.Tag] = path.Base(item.Layers[n-1])
			}
		}
	}
	for name, v := range map[string]any{"index.json": index, "manifest.json": items, "repositories": repositories} {
		if name == "repositories" && len(repositories) == 0 {
			continue
		}
		raw, err := json.Marshal(v)
		if err != nil {
			return err
		}
		a.last = append(a.last, lastFile{name, raw})
	}
	// In a fixed order, as maps have none: the same images make the same archive.
	slices.SortFunc(a.last, func(x, y lastFile) int { return strings.Compare(x.name, y.name) })
	for _, f := range a.last {
		if err := a.file(f.name, f.raw); err != nil {
			return err
		}
	}
	if err := a.tw.Close(); err != nil {
		return err
	}
	if err := out.Flush(); err != nil {
		return err
	}
	for _, it := range list {
		s.happened(event.Save, it.img.ID, it.img.ID, it.img)
	}
	return nil
}

// named is an image's entry in the index, once for each of its names.
func named(d v1.Descriptor, tags []Ref) []v1.Descriptor {
	if len(tags) == 0 {
		return []v1.Descriptor{d}
	}
	var list []v1.Descriptor
	for _, r := range tags {
		c := d
		c.Annotations = map[string]string{refName: r.String(), v1.AnnotationRefName: r.Tag}
		list = append(list, c)
	}
	return list
}

func (s *Store) chooseToSave(names []string, want Platform) ([]toSave, error) {
	var list []toSave
	add := func(img *Image, tags ...Ref) {
		for i := range list {
			if list[i].img.ID == img.ID {
				for _, r := range tags {
					if !slices.Contains(list[i].tags, r) {
						list[i].tags = append(list[i].tags, r)
					}
				}
				return
			}
		}
		list = append(list, toSave{img, tags})
	}
	for _, name := range names {
		img, err := s.ResolveFor(name, want)
		r, refErr := ParseRef(name)
		// Of a name without a tag all tags are saved, as docker save does it; resolved, it would mean latest alone.
		if refErr == nil && r.Digest == "" && !strings.Contains(path.Base(name), ":") {
			all, listErr := s.tagsOf(r)
			if listErr != nil {
				return nil, listErr
			}
			for _, t := range all {
				img, err := s.ResolveFor(t.String(), want)
				if err != nil {
					return nil, err
				}
				add(img, t)
			}
			if len(all) > 0 {
				continue
			}
		}
		if err != nil {
			return nil, err
		}
		if refErr == nil && r.tags() && slices.Contains(img.Names, r.Familiar()) {
			add(img, r)
		} else {
			add(img)
		}
	}
	return list, nil
}

// tagsOf lists the names that a repository has here, sorted.
func (s *Store) tagsOf(r Ref) ([]Ref, error) {
	n, err := s.readNames()
	if err != nil {
		return nil, err
	}
	var list []Ref
	for key := range n.Tags {
		if t, err := ParseRef(key); err == nil && t.Name() == r.Name() {
			list = append(list, t)
		}
	}
	slices.SortFunc(list, func(a, b Ref) int { return strings.Compare(a.Tag, b.Tag) })
	return list, nil
}

// saver writes one archive.
type saver struct {
	ctx      context.Context
	store    *Store
	tw       *tar.Writer
	have     map[string]bool          // blobs that are written
	blobs    map[string]v1.Descriptor // diff ID → the layer as it was written
	compress string
	last     []lastFile
}

type lastFile struct {
	name string
	raw  []byte
}

func (a *saver) header(name string, size int64) error {
	return a.tw.WriteHeader(&tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: 0o644, Size: size, ModTime: epoch})
}

func (a *saver) file(name string, raw []byte) error {
	if err := a.header(name, int64(len(raw))); err != nil {
		return err
	}
	_, err := a.tw.Write(raw)
	return err
}

func (a *saver) blob(raw []byte) (digest.Digest, error) {
	d := digestOf(raw)
	if a.have[d] {
		return digest.Digest(d), nil
	}
	a.have[d] = true
	return digest.Digest(d), a.file(blobFile(d), raw)
}

// image writes an image's blobs.
func (a *saver) image(it toSave) (*v1.Descriptor, *dockerItem, error) {
	name := it.img.ShortID()
	if len(it.tags) > 0 {
		name = it.tags[0].Familiar()
	}
	layers, err := it.img.archives()
	if err != nil {
		return nil, nil, fmt.Errorf("save %s: %w", name, err)
	}
	item := &dockerItem{Config: blobFile(it.img.ID), LayerSources: map[string]v1.Descriptor{}}
	for _, r := range it.tags {
		item.RepoTags = append(item.RepoTags, r.Familiar())
	}
	m := v1.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: v1.MediaTypeImageManifest, Layers: []v1.Descriptor{}}
	for _, l := range layers {
		d, err := a.layer(l)
		if err != nil {
			return nil, nil, fmt.Errorf("save %s: %w", name, err)
		}
		m.Layers = append(m.Layers, d)
		item.Layers = append(item.Layers, blobFile(string(d.Digest)))
		item.LayerSources[l.diffID] = d
	}
	raw := it.img.RawConfig
	id, err := a.blob(raw)
	if err != nil {
		return nil, nil, err
	}
	m.Config = v1.Descriptor{MediaType: v1.MediaTypeImageConfig, Digest: id, Size: int64(len(raw))}
	doc, err := json.Marshal(m)
	if err != nil {
		return nil, nil, err
	}
	d, err := a.blob(doc)
	if err != nil {
		return nil, nil, err
	}
	p := it.img.Config.Platform
	p.OS, p.Architecture, p.Variant = it.img.Platform.OS, it.img.Platform.Architecture, it.img.Platform.Variant
	return &v1.Descriptor{MediaType: m.MediaType, Digest: d, Size: int64(len(doc)), Platform: &p}, item, nil
}

// layer writes a layer, plain or compressed.
func (a *saver) layer(l *archive) (v1.Descriptor, error) {
	if d, ok := a.blobs[l.diffID]; ok {
		return d, nil
	}
	d := v1.Descriptor{MediaType: v1.MediaTypeImageLayer, Digest: digest.Digest(l.diffID), Size: l.size}
	if a.compress == "" {
		if err := a.header(blobFile(l.diffID), l.size); err != nil {
			return d, err
		}
		if err := l.writeTo(a.ctx, a.tw); err != nil {
			return d, err
		}
		a.blobs[l.diffID] = d
		return d, nil
	}
	// The size stands before the content: it has to be known.
	f, err := a.store.nameless()
	if err != nil {
		return d, err
	}
	defer f.Close()
	h := digest.Canonical.Digester()
	count := &countWriter{}
	z, err := compressor(io.MultiWriter(f, h.Hash(), count), a.compress)
	if err != nil {
		return d, err
	}
	if err := l.writeTo(a.ctx, z); err != nil {
		z.Close()
		return d, err
	}
	if err := z.Close(); err != nil {
		return d, diskError("save", "", err)
	}
	d = v1.Descriptor{MediaType: layerType(a.compress), Digest: h.Digest(), Size: count.n}
	if !a.have[string(d.Digest)] {
		a.have[string(d.Digest)] = true
		if err := a.header(blobFile(string(d.Digest)), d.Size); err != nil {
			return d, err
		}
		if _, err := io.Copy(a.tw, io.NewSectionReader(f, 0, d.Size)); err != nil {
			return d, err
		}
	}
	a.blobs[l.diffID] = d
	return d, nil
}

func layerType(compress string) string {
	switch compress {
	case "gzip":
		return v1.MediaTypeImageLayerGzip
	case "zstd":
		return v1.MediaTypeImageLayerZstd
	}
	return v1.MediaTypeImageLayer
}

// compressor compresses what is written to it. The same input makes the same output, whatever machine and time.
func compressor(w io.Writer, kind string) (io.WriteCloser, error) {
	switch kind {
	case "gzip":
		z, err := pgzip.NewWriterLevel(w, gzipLevel)
		if err == nil {
			err = z.SetConcurrency(gzipBlock, runtime.GOMAXPROCS(0)+1)
		}
		return z, err
	case "zstd":
		return zstd.NewWriter(w, zstd.WithEncoderLevel(zstd.SpeedDefault), zstd.WithEncoderConcurrency(2))
	}
	return nil, &Error{Op: "compression", Name: fmt.Sprintf("%.40q", kind), Kind: ErrReference, Text: "it is gzip or zstd"}
}

const (
	// gzipLevel: on Debian's files level 3 takes 5.6 s where 5 (the library's usual) takes 9.2 and 6 takes 23, and makes 5 percent more.
	gzipLevel = 3
	// gzipBlock is compressed by one of several goroutines. Its size, and not their number, decides what comes out.
	gzipBlock = 1 << 20
)
