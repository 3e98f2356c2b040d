package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/containerd/containerd/v2/core/diff/apply"
	ctdmetadata "github.com/containerd/containerd/v2/core/metadata"
	ctdsnapshot "github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/containerd/v2/core/snapshots/storage"
	"github.com/containerd/containerd/v2/plugins/content/local"
	"github.com/containerd/containerd/v2/plugins/diff/walking"
	"github.com/containerd/containerd/v2/plugins/snapshots/overlay"
	"github.com/containerd/platforms"
	"github.com/moby/buildkit/cache/metadata"
	"github.com/moby/buildkit/cache/remotecache"
	inlinecache "github.com/moby/buildkit/cache/remotecache/inline"
	localcache "github.com/moby/buildkit/cache/remotecache/local"
	registrycache "github.com/moby/buildkit/cache/remotecache/registry"
	"github.com/moby/buildkit/client"
	"github.com/moby/buildkit/cmd/buildkitd/config"
	"github.com/moby/buildkit/control"
	"github.com/moby/buildkit/exporter"
	"github.com/moby/buildkit/exporter/containerimage"
	"github.com/moby/buildkit/frontend"
	"github.com/moby/buildkit/frontend/gateway"
	"github.com/moby/buildkit/session"
	containerdsnapshot "github.com/moby/buildkit/snapshot/containerd"
	"github.com/moby/buildkit/solver"
	"github.com/moby/buildkit/solver/bboltcachestorage"
	"github.com/moby/buildkit/solver/llbsolver/linuxresources"
	"github.com/moby/buildkit/solver/llbsolver/ops"
	"github.com/moby/buildkit/solver/pb"
	"github.com/moby/buildkit/util/db/boltutil"
	"github.com/moby/buildkit/util/leaseutil"
	"github.com/moby/buildkit/version"
	"github.com/moby/buildkit/worker"
	"github.com/moby/buildkit/worker/base"
	wlabel "github.com/moby/buildkit/worker/label"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
	bolt "go.etcd.io/bbolt"
	"golang.org/x/sys/unix"

	"glassbox/build"
	"glassbox/image"
)

// builder is an open builder: BuildKit's controller over a root directory of which this process has the lock.
type builder struct {
	place
	images     *image.Store
	controller *control.Controller
	sessions   *session.Manager
	exec       *planExecutor
	guarded    sessions
	cache      *buildWorker
	keeper     *keeper // nil: each transaction waits for the disk
}

// worker is BuildKit's, with one exporter more.
type buildWorker struct {
	*base.Worker
	images *image.Store
	writer *containerimage.ImageWriter
	exec   *planExecutor
}

// ResolveOp tells the executor which step a RUN is.
func (w *buildWorker) ResolveOp(
	v solver.Vertex, bridge frontend.FrontendLLBBridge, sm *session.Manager, proxy worker.ProxyOpt,
) (solver.Op, error) {
	base, ok := v.Sys().(*pb.Op)
	op, run := base.GetOp().(*pb.Op_Exec)
	if !ok || !run || w.exec.watch == nil || proxy.Network {
		return w.Worker.ResolveOp(v, bridge, sm, proxy)
	}
	var limits *pb.LinuxResources
	if m, ok := v.Options().Metadata.(*linuxresources.Metadata); ok && m != nil {
		limits = m.LinuxResources
	}
	exec := &stepExecutor{w.exec, &runStep{v.Digest(), v.Name(), op.Exec.GetSecretenv()}}
	return ops.NewExecOp(v, op, base.Platform, w.CacheMgr, w.ParallelismSem, sm, exec, w.Worker, limits, false)
}

// Exporter knows "moby", which puts an image into glassbox's own store; buildx's docker driver asks for it by that name. "image" does so,
// too: BuildKit's own would want a store of containerd's.
func (w *buildWorker) Exporter(name string, sm *session.Manager) (exporter.Exporter, error) {
	if name == exporterStore || name == client.ExporterImage {
		return &storeExporter{w, sm}, nil
	}
	return w.Worker.Exporter(name, sm)
}

const (
	snapshotter = "overlayfs"
	namespace   = "buildkit" // of records in containerd's stores
)

// open opens the builder's root. The caller holds its lock. One that stays serves others, and may be asked of builds that are over.
func open(ctx context.Context, p place, watch *watch, stays bool) (*builder, error) {
	images, err := image.Open(p.Root)
	if err != nil {
		return nil, err
	}
	images.State = p.State
	b := &builder{place: p, images: images}
	root := p.dir()
	if err := os.MkdirAll(root, 0o700); err != nil {
		return nil, err
	}
	if stays {
		err = p.gather()
	} else {
		b.keeper, err = p.keep()
	}
	if err != nil {
		return nil, err
	}
	if b.exec, err = newExecutor(p); err != nil {
		return nil, err
	}
	b.exec.watch = watch
	w, err := b.worker(ctx, root)
	if err != nil {
		return nil, err
	}
	b.cache = w
	workers := &worker.Controller{}
	if err := workers.Add(w); err != nil {
		return nil, err
	}
	if b.sessions, err = session.NewManager(); err != nil {
		return nil, err
	}
	b.guarded.live = func(id string) bool {
		c, err := b.sessions.Get(ctx, id, true)
		return err == nil && c != nil
	}
	gatewayFrontend, err := gateway.NewGatewayFrontend(workers.Infos(), nil)
	if err != nil {
		return nil, err
	}
	cache, err := bboltcachestorage.NewStore(filepath.Join(p.Records(), "cache.db"))
	if err != nil {
		return nil, err
	}
	history, kept, err := openHistory(p.Records(), stays)
	if err != nil {
		return nil, err
	}
	watched := func(f frontend.Frontend) frontend.Frontend {
		return &watchedFrontend{&guardedFrontend{f}, watch}
	}
	b.controller, err = control.NewController(control.Opt{
		SessionManager:   b.sessions,
		WorkerController: workers,
		Frontends: map[string]frontend.Frontend{
			"dockerfile.v0": watched(dockerfileFrontend(workers.Infos())),
			"gateway.v0":    watched(&builtIn{gatewayFrontend, dockerfileFrontend(workers.Infos())}),
		},
		CacheManager: solver.NewCacheManager(ctx, "local", cache, worker.NewCacheResultStorage(workers)),
		ResolveCacheExporterFuncs: map[string]remotecache.ResolveCacheExporterFunc{
			"registry": registrycache.ResolveCacheExporterFunc(b.sessions, registryHosts),
			"local":    localcache.ResolveCacheExporterFunc(b.sessions),
			"inline":   inlinecache.ResolveCacheExporterFunc(),
		},
		ResolveCacheImporterFuncs: map[string]remotecache.ResolveCacheImporterFunc{
			"registry": registrycache.ResolveCacheImporterFunc(b.sessions, w.ContentStore(), registryHosts),
			"local":    localcache.ResolveCacheImporterFunc(b.sessions),
		},
		Entitlements:   []string{"network.host", "security.insecure"},
		HistoryDB:      history,
		HistoryConfig:  kept,
		CacheStore:     cache,
		LeaseManager:   w.LeaseManager(),
		ContentStore:   w.ContentStore(),
		GarbageCollect: w.GarbageCollect,
		GracefulStop:   ctx.Done(),
	})
	return b, err
}

// openHistory opens the records of builds (buildctl debug history). Of a process that is gone after its one build nobody can ask for them,
// and they are a good part of a build that takes all from the cache: it keeps none.
func openHistory(dir string, stays bool) (*boltutil.DB, *config.HistoryConfig, error) {
	if stays {
		db, err := boltutil.SafeOpen(filepath.Join(dir, "history.db"), 0o600, boltOptions())
		return db, nil, err
	}
	o, none := boltOptions(), int64(0)
	// BuildKit wants a database also where it keeps no records: it gets an empty one, in memory.
	o.OpenFile = func(string, int, os.FileMode) (*os.File, error) {
		fd, err := unix.MemfdCreate("history", unix.MFD_CLOEXEC)
		return os.NewFile(uintptr(fd), "history"), err
	}
	db, err := boltutil.Open(filepath.Join(dir, "none.db"), 0o600, o)
	return db, &config.HistoryConfig{MaxEntries: &none}, err
}

func boltOptions() *bolt.Options {
	// The list of free pages is made anew when a file is opened, which costs less than to write it with each transaction.
	return &bolt.Options{FreelistType: bolt.FreelistMapType, NoFreelistSync: true}
}

// worker is what runs steps and keeps their results: snapshots, contents, records.
func (b *builder) worker(ctx context.Context, root string) (*buildWorker, error) {
	names, err := storage.NewMetaStore(filepath.Join(b.Records(), "snapshots.db"))
	if err != nil {
		return nil, err
	}
	// To remove a snapshot is to remove its record: its files go when the garbage is collected, and no step waits for that.
	snapshots, err := overlay.NewSnapshotter(filepath.Join(root, "snapshots"), overlay.AsynchronousRemove, overlay.WithMetaStore(names))
	if err != nil {
		return nil, err
	}
	content, err := local.NewStore(filepath.Join(b.Records(), "content"))
	if err != nil {
		return nil, err
	}
	db, err := boltutil.Open(filepath.Join(b.Records(), "containerdmeta.db"), 0o600, boltOptions())
	if err != nil {
		return nil, err
	}
	meta := ctdmetadata.NewDB(db, content, map[string]ctdsnapshot.Snapshotter{snapshotter: snapshots})
	if err := meta.Init(ctx); err != nil {
		return nil, err
	}
	own := &localImages{store: b.images, Store: meta.ContentStore()}
	contents := containerdsnapshot.NewContentStore(own, namespace)
	records, err := metadata.NewStore(filepath.Join(b.Records(), "metadata_v2.db"))
	if err != nil {
		return nil, err
	}
	id, err := base.ID(root)
	if err != nil {
		return nil, err
	}
	policy, err := gcPolicy(root)
	if err != nil {
		return nil, err
	}
	opt := base.WorkerOpt{
		ID:   id,
		Root: root,
		Labels: map[string]string{
			wlabel.Executor: "glassbox", wlabel.Snapshotter: snapshotter, wlabel.Hostname: hostname(), wlabel.Network: "bridge",
			// moby's, of which buildx's docker driver asks for what host-gateway is.
			"org.mobyproject.buildkit.worker.moby.host-gateway-ip": build.GatewayAddress,
		},
		Platforms:       []ocispecs.Platform{platforms.Normalize(platforms.DefaultSpec())},
		GCPolicy:        policy,
		BuildkitVersion: client.BuildkitVersion{Package: version.Package, Version: version.Version, Revision: version.Revision},
		Executor:        b.exec,
		Snapshotter:     containerdsnapshot.NewSnapshotter(snapshotter, meta.Snapshotter(snapshotter), namespace, nil),
		ContentStore:    contents,
		Applier:         apply.NewFileSystemApplier(contents),
		Differ:          walking.NewWalkingDiff(contents),
		ImageStore:      own.names(),
		RegistryHosts:   registryHosts,
		LeaseManager:    leaseutil.WithNamespace(ctdmetadata.NewLeaseManager(meta), namespace),
		GarbageCollect:  meta.GarbageCollect,
		MetadataStore:   records,
		ContentMetadata: db,
		MountPoolRoot:   filepath.Join(root, "cachemounts"),
	}
	w, err := newWorker(func() (*base.Worker, error) { return base.NewWorker(ctx, opt) })
	if err != nil {
		return nil, err
	}
	writer, err := containerimage.NewImageWriter(containerimage.WriterOpt{
		Snapshotter: opt.Snapshotter, ContentStore: opt.ContentStore, Applier: opt.Applier, Differ: opt.Differ,
	})
	if err != nil {
		return nil, err
	}
	return &buildWorker{w, b.images, writer, b.exec}, nil
}

// guard makes a guard of a policy complete, so that it can judge what this builder is asked.
func (b *builder) guard(g *guard) *guard {
	if g == nil {
		return nil
	}
	g.sessions = &b.guarded
	g.here = func(ref string) bool {
		name, _, _ := strings.Cut(ref, "@")
		_, err := b.images.Resolve(name)
		return err == nil
	}
	return g
}

func (b *builder) Close() error {
	err := b.collect(context.Background())
	if cerr := b.controller.Close(); err == nil {
		err = cerr
	}
	if derr := b.keeper.close(); err == nil {
		err = derr
	}
	if err != nil && !errors.Is(err, context.Canceled) {
		return fmt.Errorf("close the builder: %w", err)
	}
	return nil
}

func hostname() string {
	name, err := os.Hostname()
	if err != nil {
		return "unknown"
	}
	return name
}
