package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"sync"

	"github.com/containerd/containerd/v2/core/content"
	ctdimages "github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	cerrdefs "github.com/containerd/errdefs"
	"github.com/containerd/platforms"
	digest "github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"

	"glassbox/image"
)

// localImages lets BuildKit find glassbox's images by their names, and the layers of them as contents: those it has not in its own store
// are made, when they are needed, from what glassbox keeps.
type localImages struct {
	content.Store
	store *image.Store

	mu    sync.Mutex
	known map[digest.Digest]*image.Image // by the diff ID of a layer
}

func (l *localImages) names() ctdimages.Store { return &imageNames{images: l} }

// find is the image that has a layer.
func (l *localImages) find(d digest.Digest) *image.Image {
	l.mu.Lock()
	defer l.mu.Unlock()
	if i := l.known[d]; i != nil {
		return i
	}
	i, err := l.store.WithLayer(string(d))
	if err != nil || i == nil {
		return nil
	}
	l.remember(i)
	return i
}

func (l *localImages) remember(i *image.Image) {
	if l.known == nil {
		l.known = map[digest.Digest]*image.Image{}
	}
	for _, d := range i.Config.RootFS.DiffIDs {
		l.known[d] = i
	}
}

// Info knows of the layers of glassbox's images, too.
func (l *localImages) Info(ctx context.Context, d digest.Digest) (content.Info, error) {
	info, err := l.Store.Info(ctx, d)
	if !cerrdefs.IsNotFound(err) {
		return info, err
	}
	i := l.find(d)
	if i == nil {
		return info, err
	}
	size, serr := i.PlainSize(string(d))
	if serr != nil {
		return info, err
	}
	return content.Info{Digest: d, Size: size, Labels: map[string]string{}}, nil
}

// ReaderAt makes the archive of a layer if it must.
func (l *localImages) ReaderAt(ctx context.Context, desc ocispecs.Descriptor) (content.ReaderAt, error) {
	r, err := l.Store.ReaderAt(ctx, desc)
	if !cerrdefs.IsNotFound(err) {
		return r, err
	}
	i := l.find(desc.Digest)
	if i == nil {
		return nil, err
	}
	if err := l.ingest(ctx, i, desc.Digest); err != nil {
		return nil, err
	}
	return l.Store.ReaderAt(ctx, desc)
}

func (l *localImages) ingest(ctx context.Context, i *image.Image, d digest.Digest) error {
	size, err := i.PlainSize(string(d))
	if err != nil {
		return err
	}
	// Through a pipe: a layer may be larger than the memory.
	r, w := io.Pipe()
	go func() { w.CloseWithError(i.WritePlain(ctx, string(d), w)) }()
	defer r.Close()
	return content.WriteBlob(ctx, l.Store, "glassbox-layer-"+d.Encoded(), r, ocispecs.Descriptor{
		MediaType: ocispecs.MediaTypeImageLayer, Digest: d, Size: size,
	})
}

// Update lets labels of what is only glassbox's be: there is nothing to be kept.
func (l *localImages) Update(ctx context.Context, info content.Info, fields ...string) (content.Info, error) {
	out, err := l.Store.Update(ctx, info, fields...)
	if cerrdefs.IsNotFound(err) && l.find(info.Digest) != nil {
		return info, nil
	}
	return out, err
}

// imageNames is a containerd image store that can be asked for names, and nothing else.
type imageNames struct{ images *localImages }

// Get finds an image of this machine. Its manifest and its configuration are put among the contents; its layers are when they are read.
func (n *imageNames) Get(ctx context.Context, name string) (ctdimages.Image, error) {
	none := fmt.Errorf("image %s: %w", name, cerrdefs.ErrNotFound)
	i, err := n.images.store.Resolve(name)
	if err != nil {
		return ctdimages.Image{}, none
	}
	// As docker does: what is here for another platform than that which is asked for is not what is asked for.
	want, ok := ctx.Value(platformKey{}).(ocispecs.Platform)
	have := ocispecs.Platform{OS: i.Config.OS, Architecture: i.Config.Architecture, Variant: i.Config.Variant}
	if ok && !platforms.Only(want).Match(have) {
		return ctdimages.Image{}, none
	}
	raw, err := i.PlainManifest()
	if err != nil { // a layer that can't be given back: the registry is asked
		return ctdimages.Image{}, none
	}
	desc := ocispecs.Descriptor{MediaType: ocispecs.MediaTypeImageManifest, Digest: digest.FromBytes(raw), Size: int64(len(raw))}
	for what, blob := range map[string]struct {
		data []byte
		desc ocispecs.Descriptor
	}{
		"manifest": {raw, desc},
		"config": {i.RawConfig, ocispecs.Descriptor{
			MediaType: ocispecs.MediaTypeImageConfig, Digest: digest.Digest(i.ID), Size: int64(len(i.RawConfig)),
		}},
	} {
		if err := n.put(ctx, what, blob.data, blob.desc); err != nil {
			return ctdimages.Image{}, err
		}
	}
	n.images.mu.Lock()
	n.images.remember(i)
	n.images.mu.Unlock()
	return ctdimages.Image{Name: name, Target: desc}, nil
}

// List is empty: what the store of images has is no part of the build cache.
func (n *imageNames) List(context.Context, ...string) ([]ctdimages.Image, error) { return nil, nil }

func (n *imageNames) Create(_ context.Context, i ctdimages.Image) (ctdimages.Image, error) {
	return i, fmt.Errorf("image %s: %w", i.Name, cerrdefs.ErrNotImplemented)
}

func (n *imageNames) Update(_ context.Context, i ctdimages.Image, _ ...string) (ctdimages.Image, error) {
	return i, fmt.Errorf("image %s: %w", i.Name, cerrdefs.ErrNotImplemented)
}

func (n *imageNames) Delete(_ context.Context, name string, _ ...ctdimages.DeleteOpt) error {
	return fmt.Errorf("image %s: %w", name, cerrdefs.ErrNotImplemented)
}

func (n *imageNames) put(ctx context.Context, what string, data []byte, desc ocispecs.Descriptor) error {
	ctx = namespaces.WithNamespace(ctx, namespace)
	if _, err := n.images.Store.Info(ctx, desc.Digest); err == nil {
		return nil
	}
	return content.WriteBlob(ctx, n.images.Store, "glassbox-"+what+"-"+desc.Digest.Encoded(), bytes.NewReader(data), desc)
}
