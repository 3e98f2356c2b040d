package image

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"

	"glassbox/event"
	"glassbox/host/remove"
	"glassbox/state"
)

// PullOptions say how to pull. The zero value is right for most.
type PullOptions struct {
	Platform           Platform // the zero value is the best for this machine
	InsecureRegistries []string // "host:port" or "host": plain HTTP and unverified certificates are accepted
	CertDirs           []string // where HOST/ca.crt is looked for; default [DefaultCertDirs]
	Parallel           int      // layers at a time (default 4)
	Limits             Limits
	Progress           func(Event) // called from several goroutines, one at a time
	// Auth is what the caller has at the registry; nil: what is stored for the user of this process. The zero value is nothing.
	Auth *Auth

	ConnectTimeout time.Duration // default 15 s
	IdleTimeout    time.Duration // without a byte received (default 45 s)
	SmallTimeout   time.Duration // for all of an answer that is no blob (default 2 min); blobs have a second more for each 4 KiB

	// RegistriesFile says more of registries; empty: [RegistriesFile]. It is read anew each time.
	RegistriesFile string
	registries     *Registries

	sleep func(context.Context, time.Duration) error // replaced in tests
}

// DefaultCertDirs are the places for certificates of private registries: DIR/HOST[:PORT]/ca.crt.
func DefaultCertDirs() []string {
	dirs := []string{"/etc/glassbox/certs.d", "/etc/docker/certs.d", "/etc/containers/certs.d"}
	if os.Geteuid() != 0 {
		if d, err := os.UserConfigDir(); err == nil {
			dirs = slices.Insert(dirs, 0, filepath.Join(d, "glassbox", "certs.d"))
		}
	}
	return dirs
}

// rules reads what is said of registries, once.
func (o *PullOptions) rules() (*Registries, error) {
	if o.registries != nil {
		return o.registries, nil
	}
	file := o.RegistriesFile
	if file == "" {
		file = RegistriesFile()
	}
	var err error
	o.registries, err = ReadRegistries(file)
	return o.registries, err
}

func (o PullOptions) withDefaults() PullOptions {
	o.Limits = o.Limits.withDefaults()
	if o.CertDirs == nil {
		o.CertDirs = DefaultCertDirs()
	}
	def(&o.Parallel, 4)
	def(&o.ConnectTimeout, 15*time.Second)
	def(&o.IdleTimeout, 45*time.Second)
	def(&o.SmallTimeout, 2*time.Minute)
	if o.sleep == nil {
		o.sleep = func(ctx context.Context, d time.Duration) error {
			select {
			case <-ctx.Done():
				return context.Cause(ctx)
			case <-time.After(d):
				return nil
			}
		}
	}
	return o
}

// Pull fetches an image, verifies all of it, and gives it the name it was asked for by. Layers that the store has are
// not fetched. Nothing is visible under the name before everything is there; what an interrupted pull completed is used
// by the next.
func (s *Store) Pull(ctx context.Context, name string, o PullOptions) (*Image, error) {
	ref, err := ParseRef(name)
	if err != nil {
		return nil, err
	}
	o = o.withDefaults()
	p := &pull{store: s, ref: ref, opts: &o, out: newReporter(o.Progress)}
	img, err := p.run(ctx)
	p.out.sendWarnings() // where the pull ended well they were sent before its last line
	// The context's end shows as many things: a closed connection, a half-read archive. What the caller did is the reason.
	if err != nil && ctx.Err() != nil {
		return nil, fmt.Errorf("pull %s: %w", ref.Familiar(), context.Cause(ctx))
	}
	if e := (*Error)(nil); err != nil && !(errors.As(err, &e) && e.Op == "pull") {
		return nil, fmt.Errorf("pull %s: %w", ref.Familiar(), err)
	}
	if err == nil {
		s.happened(event.Pull, ref.Familiar(), ref.FamiliarName(), img) // also where all of it was there already
	}
	return img, err
}

type pull struct {
	store    *Store
	ref      Ref
	opts     *PullOptions
	platform Platform // what the index says the image is for
	out      *reporter
	client   *client
	src      source // where layers come from: the client, or an archive
	local    bool   // nothing comes over a network
	meter    *meter
	sync     syncer
}

func (p *pull) run(ctx context.Context) (*Image, error) {
	what := p.ref.Tag
	if p.ref.Digest != "" {
		what = p.ref.Digest
	}
	p.out.pulling(p.ref, what)
	rules, err := p.opts.rules()
	if err != nil {
		return nil, err
	}
	places, err := rules.Places(p.ref)
	if err != nil {
		return nil, err
	}
	return inTurn(ctx, places, p.out.warn, func(at Ref) (*Image, error) { return p.from(ctx, what, at) })
}

// inTurn asks places one after another, until one has what is wanted; the last one's error is the answer if none has. That a mirror hasn't
// got it is no news.
func inTurn[T any](ctx context.Context, places []Ref, warn func(string), ask func(at Ref) (T, error)) (got T, err error) {
	for i, at := range places {
		// A full disk is full for every mirror.
		if got, err = ask(at); err == nil || i == len(places)-1 || ctx.Err() != nil || errors.Is(err, ErrNoSpace) {
			break
		}
		if !errors.Is(err, ErrNotFound) {
			text, _, _ := strings.Cut(err.Error(), "\n")
			warn(fmt.Sprintf("the mirror %s can't be used, the next one is asked: %s", at.Name(), text))
		}
	}
	return got, err
}

// from pulls from one place.
func (p *pull) from(ctx context.Context, what string, at Ref) (*Image, error) {
	var err error
	if p.client, err = newClient(ctx, clientFor{op: "pull", ref: p.ref, at: &at, opts: p.opts, warn: p.out.warn}); err != nil {
		return nil, err
	}
	defer p.client.close()
	p.src = p.client
	top, err := p.client.manifest(ctx, what, p.ref.Digest)
	if err != nil {
		return nil, err
	}
	doc, err := p.pickImage(ctx, top)
	if err != nil {
		return nil, err
	}
	if img := p.upToDate(top, doc); img != nil {
		p.out.finished(p.ref, top.digest, true)
		return img, nil
	}
	rawConfig, err := p.client.bytes(ctx, doc.image.Config)
	if err != nil {
		return nil, err
	}
	config, err := parseConfig(rawConfig, doc.image)
	if err != nil {
		return nil, err
	}
	// Before the layers: they are the long part.
	if err := p.checkPlatform(config); err != nil {
		return nil, err
	}
	if _, err := p.store.prepare(); err != nil {
		return nil, err
	}
	_ = p.store.Sweep() // what can't be read is for fsck
	// Shared, by all who pull; Collect takes it for itself alone, and leaves layers without an image alone while it can't.
	release, err := flock(p.store.path("pulling"), unix.LOCK_SH)
	if err != nil {
		return nil, err
	}
	defer release()

	item := &newImage{
		id: string(doc.image.Config.Digest), manifest: doc, config: config, rawConfig: rawConfig,
		ref: p.ref, digest: top.digest, platform: p.platform,
	}
	img, err := p.settle(ctx, item)
	if err == nil {
		p.out.finished(p.ref, top.digest, false)
	}
	return img, err
}

// pickImage goes from an index to the manifest for the platform.
func (p *pull) pickImage(ctx context.Context, doc *document) (*document, error) {
	for depth := 0; doc.index != nil; depth++ {
		if depth == 3 {
			return nil, &Error{Op: "pull", Name: p.ref.Familiar(), Kind: ErrManifest, Text: "indexes nested too deeply"}
		}
		desc, err := choose(doc.index, p.opts.Platform, thisMachine(), p.ref.Familiar())
		if err != nil {
			return nil, err
		}
		if desc.Platform != nil {
			p.platform = platformOf(*desc.Platform)
		}
		next, err := p.client.manifest(ctx, string(desc.Digest), string(desc.Digest))
		if err != nil {
			return nil, err
		}
		// The index promised a size, which whoever reads it without fetching the manifest believes.
		if int64(len(next.raw)) != desc.Size {
			return nil, &Error{
				Op: "manifest", Name: next.digest, Kind: ErrDigest,
				Text: fmt.Sprintf("%d bytes long, the index says %d", len(next.raw), desc.Size),
			}
		}
		doc = next
	}
	return doc, nil
}

// checkPlatform settles what an image is for. What the index says counts, also where the config says something else: builders copy
// configs from base images of other machines, and Docker goes by the index, too. Without an index the config is all there is; a registry
// that has the image for one machine alone has no index to choose from, and emulation may be what the user wants, so that another
// platform than this machine's is an error only if one was asked for.
func (p *pull) checkPlatform(c *v1.Image) error {
	config := platformOf(c.Platform)
	if c.Architecture == "" {
		config.Architecture, config.Variant = p.platform.Architecture, p.platform.Variant
	}
	if p.platform.IsZero() {
		p.platform = config
	} else if config.OS != p.platform.OS || config.Architecture != p.platform.Architecture {
		p.out.warn(fmt.Sprintf("the index of %s calls this the image for %s, which calls itself one for %s: it counts as %s",
			p.ref.Familiar(), p.platform, config, p.platform))
	}
	if p.platform.Runs(p.opts.Platform) {
		return nil
	}
	return &Error{
		Op: "pull", Name: p.ref.Familiar(), Kind: ErrPlatform,
		Text: fmt.Sprintf("no image for %s; there are: %s", p.opts.Platform, p.platform),
		Hint: "choose one with --platform",
	}
}

// upToDate returns the image if the store has exactly this one under this name.
func (p *pull) upToDate(top, doc *document) *Image {
	n, err := p.store.readNames()
	if err != nil {
		return nil
	}
	id := string(doc.image.Config.Digest)
	if p.ref.tags() && n.Tags[p.ref.tagKey()] != id || n.Digests[p.ref.Name()+"@"+top.digest] != id {
		return nil
	}
	img, err := p.store.load(id, n)
	if err != nil || img.ManifestDigest != doc.digest || !img.Platform.Runs(p.opts.Platform) {
		return nil
	}
	for _, l := range img.Layers {
		if _, err := os.Lstat(filepath.Join(p.store.root, l.Dir)); err != nil {
			return nil
		}
	}
	return img
}

// held is a layer on its way: complete in the store, or filled and waiting for the layers beneath.
type held struct {
	rec *layerRecord
	in  *ingest
	raw layerRecord
}

// layers makes every layer of an image available and returns the stack, bottom first.
func (p *pull) layers(ctx context.Context, m *v1.Manifest, c *v1.Image) ([]Layer, error) {
	p.meter = newMeter(p.opts.Limits) // anew for a second attempt
	p.meter.local = p.local
	n := len(m.Layers)
	diffs := make([]string, n)
	chains := make([]string, n)
	variants := make([]string, n)
	first := map[string]int{}
	for i := range n {
		diffs[i] = string(c.RootFS.DiffIDs[i])
		below := ""
		if i > 0 {
			below = chains[i-1]
		}
		chains[i] = chainID(below, diffs[i])
		variants[i] = variantID(chains[i])
		if _, ok := first[diffs[i]]; !ok {
			first[diffs[i]] = i
		}
	}
	got := make([]*held, n)
	defer func() {
		for _, h := range got {
			if h != nil && h.in != nil {
				h.in.discard()
			}
		}
	}()
	var once []int // a layer that comes twice is fetched once
	for i := range n {
		if first[diffs[i]] == i {
			p.out.layer(m.Layers[i], Waiting, 0)
			once = append(once, i)
		}
	}
	err := several(ctx, once, p.opts.Parallel, func(ctx context.Context, i int) (err error) {
		got[i], err = p.fetch(ctx, m.Layers[i], diffs[i], variants[i])
		return err
	})
	if err != nil {
		return nil, err
	}
	return p.stack(got, first, diffs, variants)
}

// several does something for each of a list's numbers, at most atOnce at a time. The first error ends the others by their context, and is
// the one that is returned.
func several(ctx context.Context, list []int, atOnce int, do func(ctx context.Context, i int) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var wg sync.WaitGroup
	slots := make(chan struct{}, atOnce)
	for _, i := range list {
		slots <- struct{}{}
		// Asked with each place that becomes free: after an error nothing new is begun.
		if ctx.Err() != nil {
			break
		}
		wg.Go(func() {
			defer func() { <-slots }()
			if err := do(ctx, i); err != nil {
				cancel(err)
			}
		})
	}
	wg.Wait()
	return context.Cause(ctx)
}

// stack settles each layer on the ones beneath it.
func (p *pull) stack(got []*held, first map[string]int, diffs, variants []string) ([]Layer, error) {
	var stack []Layer
	// From the bottom: whether a layer looks otherwise on top of others depends on all that are beneath it.
	for i := range diffs {
		h := got[first[diffs[i]]]
		if h.rec != nil && h.rec.ID == variants[i] {
			stack = append(stack, h.rec.layer()) // the variant for exactly this place
			continue
		}
		rec := h.rec
		if rec == nil {
			rec = &h.raw
		}
		if rec.Entries == 0 && (len(stack) > 0 || i+1 < len(diffs)) {
			continue // an empty layer shows nothing; builders write many
		}
		again := first[diffs[i]] != i // overlayfs refuses the same directory twice
		variant, err := p.store.needsVariant(rec, stack, p.meter)
		if err != nil {
			return nil, err
		}
		switch {
		case !variant && !again && h.rec == nil:
			if h.rec, err = h.in.publish(h.raw, &p.sync); err != nil {
				return nil, err
			}
			h.in = nil
			rec = h.rec
		case variant || again:
			if rec, err = p.variant(h, stack, variants[i]); err != nil {
				return nil, err
			}
		}
		stack = append(stack, rec.layer())
	}
	return stack, nil
}

// fetch makes one layer available.
func (p *pull) fetch(ctx context.Context, desc v1.Descriptor, diffID, variant string) (*held, error) {
	have := func() (*held, error) {
		// The variant first: for an image that was here before it is ready for its place.
		for _, id := range []string{variant, diffID} {
			rec, err := p.store.lookupLayer(id)
			if err != nil {
				return nil, err
			}
			if rec == nil {
				continue
			}
			if _, err := os.Lstat(filepath.Join(p.store.root, rec.Dir)); errors.Is(err, fs.ErrNotExist) {
				continue // somebody removed the directory by hand: fetch again
			}
			p.out.layer(desc, Exists, 0)
			return &held{rec: rec}, nil
		}
		return nil, nil
	}
	if h, err := have(); h != nil || err != nil {
		return h, err
	}
	// One process fetches a layer, the others wait and find it.
	unlock, err := flockContext(ctx, p.store.path("locks", hexOf(diffID)), func() { p.out.layer(desc, Waiting, 0) })
	if err != nil {
		return nil, err
	}
	defer unlock()
	if h, err := have(); h != nil || err != nil {
		return h, err
	}
	h, err := p.fill(ctx, desc, diffID)
	if isBroken(err) { // one bad answer is not the registry's last word
		h, err = p.fill(ctx, desc, diffID)
	}
	return h, err
}

// fill fetches and unpacks one layer.
func (p *pull) fill(ctx context.Context, desc v1.Descriptor, diffID string) (*held, error) {
	in, err := p.store.newIngest()
	if err != nil {
		return nil, err
	}
	keep := false
	defer func() {
		if !keep {
			in.discard()
		}
	}()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	blob := p.src.blob(ctx, desc)
	defer blob.Close()
	stop := p.out.watch(desc, blob)
	out, err := in.fill(ctx, blob, diffID, p.meter, cancel)
	stop()
	if err != nil {
		return nil, err
	}
	raw := layerRecord{
		ID: diffID, DiffID: diffID, Size: out.Size, Entries: out.Entries, Implied: out.Implied, Links: out.Links,
		Hiding: out.Hiding,
	}
	p.tellLeft(desc, out.Left)
	h := &held{raw: raw, in: in}
	if len(raw.Links) == 0 && (len(raw.Implied) == 0 || len(raw.Implied) == 1 && raw.Implied[0] == "") {
		p.out.layer(desc, Extracting, desc.Size)
		if h.rec, err = in.publish(raw, &p.sync); err != nil {
			return nil, err
		}
		h.in = nil
	}
	keep = true
	p.out.layer(desc, Done, desc.Size)
	return h, nil
}

// tellLeft says which attributes of a layer's files were left out: an image that relies on them is another without.
func (p *pull) tellLeft(desc v1.Descriptor, left map[string]int) {
	for _, name := range slices.Sorted(maps.Keys(left)) {
		p.out.warn(fmt.Sprintf("layer %s: the extended attribute %q of %d files was left out",
			shortDigest(string(desc.Digest)), name, left[name]))
	}
}

// newImage is an image whose layers are in the store, about to be named.
type newImage struct {
	id        string
	manifest  *document
	config    *v1.Image
	rawConfig []byte
	layers    []Layer
	platform  Platform
	ref       Ref
	digest    string // what the name stood for at the registry; empty for an image made here
	tags      []Ref  // further names
	parent    string // ID of the image that it was made from; empty for one that wasn't made here
	container string // ID of the container that was committed

	moved map[string]string // set by commit: names that another image had → its ID
}

var errLayerGone = errors.New("a layer was removed meanwhile")

// commit writes an image's record and names under the store's lock.
func (s *Store) commit(it *newImage) (*Image, error) {
	unlock, err := s.lock()
	if err != nil {
		return nil, err
	}
	defer unlock()
	rec := &Image{
		ID: it.id, ManifestDigest: it.manifest.digest, Platform: it.platform,
		Pulled: time.Now().UTC().Truncate(time.Second), Layers: it.layers, Parent: it.parent, Container: it.container,
	}
	if it.config.Created != nil {
		rec.Created = it.config.Created.UTC()
	}
	for _, l := range it.layers {
		rec.Size += l.Size
		if _, err := os.Lstat(s.path("layers", filepath.Base(l.Dir)+".json")); err != nil {
			return nil, errLayerGone
		}
	}
	for _, d := range it.config.RootFS.DiffIDs {
		if !slices.ContainsFunc(it.layers, func(l Layer) bool { return l.DiffID == string(d) }) && !slices.Contains(rec.Empty, string(d)) {
			rec.Empty = append(rec.Empty, string(d))
		}
	}
	final := s.path("images", hexOf(it.id))
	tmp, err := os.MkdirTemp(s.path("images"), ".in-")
	if err != nil {
		return nil, diskError("image", it.id, err)
	}
	defer remove.All(tmp)
	for name, b := range map[string][]byte{"config.json": it.rawConfig, "manifest.json": it.manifest.raw} {
		if err := writeFile(filepath.Join(tmp, name), b); err != nil {
			return nil, err
		}
	}
	if err := writeJSON(filepath.Join(tmp, "image.json"), rec); err != nil {
		return nil, err
	}
	// The same config may come again with another manifest (other compression): exchange the directories.
	if err := unix.Renameat2(unix.AT_FDCWD, tmp, unix.AT_FDCWD, final, unix.RENAME_EXCHANGE); err != nil {
		if err := os.Rename(tmp, final); err != nil {
			return nil, err
		}
	}
	if err := state.Sync(s.path("images")); err != nil {
		return nil, err
	}
	n, err := s.readNames()
	if err != nil {
		return nil, err
	}
	if it.ref.tags() {
		n.Tags[it.ref.tagKey()] = it.id
	}
	for _, t := range it.tags {
		if old := n.Tags[t.tagKey()]; old != "" && old != it.id {
			if it.moved == nil {
				it.moved = map[string]string{}
			}
			it.moved[t.Familiar()] = old
		}
		n.Tags[t.tagKey()] = it.id
	}
	if it.digest != "" {
		n.Digests[it.ref.Name()+"@"+it.digest] = it.id
	}
	if err := s.writeNames(n); err != nil {
		return nil, err
	}
	return s.load(it.id, n)
}
