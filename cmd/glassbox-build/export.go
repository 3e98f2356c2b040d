package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"strconv"
	"strings"

	"github.com/containerd/containerd/v2/core/content"
	ctdimages "github.com/containerd/containerd/v2/core/images"
	cacheconfig "github.com/moby/buildkit/cache/config"
	"github.com/moby/buildkit/client"
	"github.com/moby/buildkit/exporter"
	"github.com/moby/buildkit/exporter/containerimage"
	"github.com/moby/buildkit/exporter/containerimage/exptypes"
	"github.com/moby/buildkit/session"
	"github.com/moby/buildkit/solver"
	"github.com/moby/buildkit/solver/result"
	"github.com/moby/buildkit/util/compression"
	"github.com/moby/buildkit/util/leaseutil"
	"github.com/moby/buildkit/util/progress"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/pkg/errors"

	"glassbox/image"
)

// exporterStore is the exporter into glassbox's own image store. The name is that of dockerd's.
const exporterStore = "moby"

// storeExporter makes an image of a result and puts it into the store that `glassbox run` takes its images from.
type storeExporter struct {
	worker   *buildWorker
	sessions *session.Manager
}

func (e *storeExporter) Resolve(ctx context.Context, id int, attrs map[string]string) (exporter.ExporterInstance, error) {
	i := &storeInstance{storeExporter: e, id: id, attrs: attrs}
	if on, _ := strconv.ParseBool(attrs["push"]); on { // BuildKit's own exporter sends it to the registry
		image, err := e.worker.Worker.Exporter(client.ExporterImage, e.sessions)
		if err != nil {
			return nil, err
		}
		also := maps.Clone(attrs)
		delete(also, "prefer-image-digest")
		// Layers of this machine's images are plain here.
		also["store"], also["force-compression"] = "false", "true"
		if i.push, err = image.Resolve(ctx, id, also); err != nil {
			return nil, err
		}
		if keep, err := strconv.ParseBool(attrs["store"]); err == nil && !keep {
			return i.push, nil
		}
	}
	i.opts.RefCfg = cacheconfig.RefConfig{Compression: compression.New(compression.Uncompressed)}
	attrs = maps.Clone(attrs)
	if attrs == nil {
		attrs = map[string]string{}
	}
	if attrs["compression"] == "" { // nothing leaves the machine
		attrs["compression"] = "uncompressed"
	}
	rest, err := i.opts.Load(ctx, attrs)
	if err != nil {
		return nil, err
	}
	i.meta = map[string][]byte{}
	for k, v := range rest {
		i.meta[k] = []byte(v)
	}
	return i, nil
}

type storeInstance struct {
	*storeExporter
	id    int
	attrs map[string]string
	opts  containerimage.ImageCommitOpts
	push  exporter.ExporterInstance // nil: it isn't to be pushed
	meta  map[string][]byte
}

func (i *storeInstance) ID() int                  { return i.id }
func (i *storeInstance) Name() string             { return "exporting to image" }
func (i *storeInstance) Type() string             { return exporterStore }
func (i *storeInstance) Attrs() map[string]string { return i.attrs }
func (i *storeInstance) Config() *exporter.Config {
	return exporter.NewConfigWithCompression(i.opts.RefCfg.Compression)
}

func (i *storeInstance) Export(
	ctx context.Context, src *exporter.Source, info exporter.ExportBuildInfo,
) (_ map[string]string, _ exporter.FinalizeFunc, ref exporter.DescriptorReference, err error) {
	if i.push != nil && len(src.Refs) > 1 { // which is for the registry alone: a name of the store stands for one platform
		return i.push.Export(ctx, src, info)
	}
	src = src.Clone()
	if src.Metadata == nil {
		src.Metadata = map[string][]byte{}
	}
	maps.Copy(src.Metadata, i.meta)
	opts := i.opts
	as, _, err := containerimage.ParseAnnotations(src.Metadata)
	if err != nil {
		return nil, nil, nil, err
	}
	opts.Annotations = opts.Annotations.Merge(as)
	opts.SetOCITypesDefault(true)
	opts.SetOCIArtifactDefault(containerimage.DefaultOCIArtifact(info.CompatibilityVersion, &opts))
	if err := opts.Validate(); err != nil {
		return nil, nil, nil, err
	}
	if err := i.single(src); err != nil {
		return nil, nil, nil, err
	}
	// containerd's garbage collector takes what no lease and no label holds: of a build beside this one it would take what this one writes.
	lease, done, err := leaseutil.WithLease(ctx, i.worker.LeaseManager(), leaseutil.MakeTemporary)
	if err != nil {
		return nil, nil, nil, err
	}
	defer done(context.WithoutCancel(lease))
	desc, remotes, err := i.worker.writer.Commit(lease, src, info.SessionID, info.InlineCache, &opts, info.CompatibilityVersion, i.Type())
	if err != nil {
		return nil, nil, nil, err
	}
	img, err := i.store(lease, *desc, remotes, session.NewGroup(info.SessionID), names(&opts, src))
	if err != nil {
		return nil, nil, nil, err
	}
	resp := map[string]string{
		exptypes.ExporterImageDigestKey:       desc.Digest.String(),
		exptypes.ExporterImageConfigDigestKey: img.ID,
	}
	if on, _ := strconv.ParseBool(i.attrs["prefer-image-digest"]); on { // what clients call it by: images go by that digest here
		resp[exptypes.ExporterImageDigestKey] = img.ID
	}
	if n := names(&opts, src); len(n) > 0 {
		resp["image.name"] = strings.Join(n, ",")
	}
	if text, err := json.Marshal(desc); err == nil {
		resp[exptypes.ExporterImageDescriptorKey] = base64Text(text)
	}
	if i.push != nil {
		_, finish, _, err := i.push.Export(ctx, src, info)
		return resp, finish, nil, err
	}
	return resp, nil, nil, nil
}

// single refuses a result for several platforms, which a name of the store can't stand for.
func (i *storeInstance) single(src *exporter.Source) error {
	if len(src.Refs) > 1 {
		return errors.New("the store keeps one platform under a name: build for one (--platform), or give the others away with " +
			"--output type=oci,dest=FILE or --push")
	}
	return nil
}

func names(opts *containerimage.ImageCommitOpts, src *exporter.Source) []string {
	name := opts.ImageName
	if n, ok := src.Metadata["image.name"]; ok && name == "*" {
		name = string(n)
	}
	if name == "" {
		return nil
	}
	return strings.Split(name, ",")
}

// store hands the image over. A layer that the store has is not read.
func (i *storeInstance) store(
	ctx context.Context, desc ocispecs.Descriptor, remotes *result.Result[*solver.Remote], g session.Group, tags []string,
) (*image.Image, error) {
	contents := i.worker.ContentStore()
	manifest, mt, err := i.manifest(ctx, desc)
	if err != nil {
		return nil, err
	}
	var m ocispecs.Manifest
	if err := json.Unmarshal(manifest, &m); err != nil {
		return nil, err
	}
	config, err := content.ReadBlob(ctx, contents, m.Config)
	if err != nil {
		return nil, err
	}
	what := "naming to " + strings.Join(tags, ", ")
	if len(tags) == 0 {
		what = "writing image " + m.Config.Digest.String()
	}
	finish := progress.OneOff(ctx, what)
	img, err := i.worker.images.Add(ctx, image.AddOptions{
		Manifest: manifest, MediaType: mt, Config: config, Names: tags,
		Open: func(ctx context.Context, d ocispecs.Descriptor) (io.ReadCloser, error) {
			r, err := contents.ReaderAt(ctx, d)
			if err != nil {
				// A layer of the base that nothing has needed so far: it is only known where it is to be had.
				if r, err = fromRemotes(ctx, remotes, d); err != nil {
					return nil, err
				}
			}
			return struct {
				io.Reader
				io.Closer
			}{content.NewReader(r), r}, nil
		},
	})
	return img, finish(err)
}

func fromRemotes(ctx context.Context, remotes *result.Result[*solver.Remote], d ocispecs.Descriptor) (content.ReaderAt, error) {
	var all []*solver.Remote
	if remotes != nil {
		if remotes.Ref != nil {
			all = append(all, remotes.Ref)
		}
		for _, r := range remotes.Refs {
			all = append(all, r)
		}
	}
	for _, r := range all {
		for _, have := range r.Descriptors {
			if have.Digest == d.Digest {
				return r.Provider.ReaderAt(ctx, have)
			}
		}
	}
	return nil, fmt.Errorf("layer %s of the result is nowhere", d.Digest)
}

// manifest reads the image's manifest, which an index with attestations may stand before.
func (i *storeInstance) manifest(ctx context.Context, desc ocispecs.Descriptor) ([]byte, string, error) {
	raw, err := content.ReadBlob(ctx, i.worker.ContentStore(), desc)
	if err != nil || !ctdimages.IsIndexType(desc.MediaType) {
		return raw, desc.MediaType, err
	}
	var index ocispecs.Index
	if err := json.Unmarshal(raw, &index); err != nil {
		return nil, "", err
	}
	for _, d := range index.Manifests {
		if d.Annotations["vnd.docker.reference.type"] == "" {
			raw, err := content.ReadBlob(ctx, i.worker.ContentStore(), d)
			return raw, d.MediaType, err
		}
	}
	return nil, "", errors.New("the result is an index without an image")
}
