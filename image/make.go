package image

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"glassbox/event"
)

// imageDoc is an image's configuration as it is written here: that of the OCI specification with Docker's fields.
type imageDoc struct {
	Created *time.Time `json:"created,omitempty"`
	Author  string     `json:"author,omitempty"`
	Comment string     `json:"comment,omitempty"`
	v1.Platform
	Config  Config       `json:"config"`
	RootFS  v1.RootFS    `json:"rootfs"`
	History []v1.History `json:"history,omitempty"`
}

// ImportOptions say what an image made of a file system's archive is.
type ImportOptions struct {
	Name     string // may be empty
	Changes  []string
	Message  string
	Platform Platform // the zero value is this machine's
	Limits   Limits
}

// CommitOptions say what an image made of a container is.
type CommitOptions struct {
	Name      string // may be empty
	Author    string
	Message   string
	Changes   []string
	Config    Config   // the container's
	CreatedBy string   // its command
	Base      *Image   // what the container was made from; nil: all of the directories becomes one layer
	Dirs      []string // of the container, top first; with Base only the first, its own
	Container string   // its ID
}

// made is an image on its way.
type made struct {
	doc  imageDoc
	base *Image
	ref  Ref
	from string // the container's ID
}

func newRef(name string) (Ref, error) {
	if name == "" {
		return Ref{}, nil
	}
	return givenRef("image", name)
}

// givenRef reads a name that an image is to get.
func givenRef(op, name string) (Ref, error) {
	ref, err := ParseRef(name)
	switch {
	case err != nil:
	case ref.Digest != "":
		err = &Error{Op: op, Name: name, Kind: ErrReference, Text: "a name with a digest cannot be given, only computed"}
	case strings.HasPrefix(ref.Familiar(), digest.Canonical.String()+":"):
		// In Docker's words. It would be looked for as an ID.
		err = &Error{Op: op, Name: name, Kind: ErrReference, Text: "refusing to create an ambiguous tag using digest algorithm as name"}
	}
	return ref, err
}

func (m *made) change(list []string) error {
	for _, c := range list {
		if err := m.doc.Config.Change(c); err != nil {
			return err
		}
	}
	return nil
}

// Import makes an image of one layer out of a tar archive, which may be compressed.
func (s *Store) Import(ctx context.Context, r io.Reader, o ImportOptions) (*Image, error) {
	now := time.Now().UTC()
	m := &made{}
	var err error
	if m.ref, err = newRef(o.Name); err != nil {
		return nil, err
	}
	p := o.Platform
	if p.IsZero() {
		p = Platform{OS: "linux", Architecture: runtime.GOARCH}.normal()
	}
	message := cmp.Or(o.Message, "Imported from -")
	m.doc = imageDoc{
		Created: &now, Comment: message, Platform: v1.Platform{OS: p.OS, Architecture: p.Architecture, Variant: p.Variant},
		History: []v1.History{{Created: &now, Comment: message}},
	}
	if err := m.change(o.Changes); err != nil {
		return nil, err
	}
	img, err := s.make(ctx, m, o.Limits, func(ctx context.Context, in *ingest, mt *meter) (*unpacked, error) {
		src := unblocked(ctx, r)
		return in.fill(ctx, src, "", mt, func() { src.Close() })
	})
	if err != nil {
		if cause := context.Cause(ctx); cause != nil { // it shows as a pipe that was closed
			return nil, fmt.Errorf("import: %w", cause)
		}
		if e := (*Error)(nil); errors.As(err, &e) {
			return nil, err
		}
		return nil, fmt.Errorf("import: %w", err)
	}
	if o.Name != "" {
		s.happened(event.Tag, img.ID, m.ref.Familiar(), img)
	}
	s.happened(event.Import, img.ID, img.ID, img)
	return img, nil
}

// unblocked reads from something whose reading may wait for ever and can't be interrupted, such as another program's pipe: Close, and the
// end of the context, end a read of what it returns.
func unblocked(ctx context.Context, r io.Reader) io.ReadCloser {
	pr, pw := io.Pipe()
	stop := context.AfterFunc(ctx, func() { pr.CloseWithError(context.Cause(ctx)) })
	go func() {
		defer stop()
		_, err := io.CopyBuffer(struct{ io.Writer }{pw}, struct{ io.Reader }{r}, make([]byte, 256<<10))
		pw.CloseWithError(err)
	}()
	return pr
}

// Fetch opens what is at an address of the web, for [Store.Import].
func Fetch(ctx context.Context, address string) (io.ReadCloser, error) {
	o := PullOptions{}.withDefaults()
	ctx, cancel := context.WithCancelCause(ctx)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		cancel(nil)
		return nil, &Error{Op: "import", Name: fmt.Sprintf("%.200q", address), Kind: ErrReference, Text: "it is no address"}
	}
	t := http.DefaultTransport.(*http.Transport).Clone()
	t.ResponseHeaderTimeout, t.DisableCompression = o.IdleTimeout, true
	resp, err := (&http.Client{Transport: t}).Do(req)
	if err != nil {
		cancel(nil)
		return nil, &Error{Op: "import", Name: fmt.Sprintf("%.200q", address), Kind: ErrUnavailable, Text: "can't be fetched", Err: err}
	}
	if resp.StatusCode != http.StatusOK {
		resp.Body.Close()
		cancel(nil)
		return nil, &Error{
			Op: "import", Name: fmt.Sprintf("%.200q", address), Kind: ErrUnavailable, Text: "the server says " + printable(resp.Status),
		}
	}
	return &boundedBody{body: resp.Body, ctx: ctx, cancel: cancel, idle: o.IdleTimeout, rest: 24 * time.Hour, left: -1}, nil
}

// Commit makes an image of a container: its image's layers, and one of what the container has changed.
func (s *Store) Commit(ctx context.Context, o CommitOptions) (*Image, error) {
	now := time.Now().UTC()
	m := &made{base: o.Base, from: o.Container}
	var err error
	if m.ref, err = newRef(o.Name); err != nil {
		return nil, err
	}
	m.doc = imageDoc{
		Created: &now, Author: o.Author, Comment: o.Message, Config: o.Config,
		Platform: v1.Platform{OS: "linux", Architecture: runtime.GOARCH},
	}
	if b := o.Base; b != nil {
		var old imageDoc
		if err := json.Unmarshal(b.RawConfig, &old); err != nil {
			return nil, err
		}
		// What the image says of its history stays as it came, so that its digests do.
		m.doc.Platform, m.doc.RootFS, m.doc.History = old.Platform, old.RootFS, old.History
		if m.doc.Config.Healthcheck == nil {
			m.doc.Config.Healthcheck = old.Config.Healthcheck
		}
		m.doc.Config.Shell = old.Config.Shell
	}
	m.doc.History = append(m.doc.History, v1.History{Created: &now, Author: o.Author, Comment: o.Message, CreatedBy: o.CreatedBy})
	if err := m.change(o.Changes); err != nil {
		return nil, err
	}
	return s.make(ctx, m, Limits{}, func(ctx context.Context, in *ingest, mt *meter) (*unpacked, error) {
		pr, pw := io.Pipe()
		defer pr.Close()
		go func() { pw.CloseWithError(writeTree(ctx, pw, o.Dirs, o.Base != nil)) }()
		out, _, err := in.record(ctx, pr, "", mt)
		return out, err
	})
}

// make fills a layer on top of the base's, and names the image.
func (s *Store) make(
	ctx context.Context, m *made, l Limits, fill func(context.Context, *ingest, *meter) (*unpacked, error),
) (*Image, error) {
	release, err := s.adding()
	if err != nil {
		return nil, err
	}
	defer release()
	in, err := s.newIngest()
	if err != nil {
		return nil, err
	}
	defer in.discard()
	mt := newMeter(l)
	// From here: its author is the user, and no ratio is asked of files that lie on the disk already.
	mt.local = true
	out, err := fill(ctx, in, mt)
	if err != nil {
		return nil, err
	}
	manifest := v1.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: v1.MediaTypeImageManifest,
		Config: v1.Descriptor{MediaType: v1.MediaTypeImageConfig}, Layers: []v1.Descriptor{},
	}
	var layers []Layer
	if m.base != nil {
		if err := m.onBase(&manifest); err != nil {
			return nil, err
		}
		layers = slices.Clone(m.base.Layers)
	}
	m.doc.RootFS.Type = "layers"
	last := &m.doc.History[len(m.doc.History)-1]
	// As Docker has it: an instruction that changed no file is a line of the history and no layer.
	if out.Entries == 0 && m.base != nil {
		last.EmptyLayer = true
	} else {
		m.doc.RootFS.DiffIDs = append(m.doc.RootFS.DiffIDs, digest.Digest(out.DiffID))
		manifest.Layers = append(manifest.Layers, v1.Descriptor{
			MediaType: v1.MediaTypeImageLayer, Digest: digest.Digest(out.DiffID), Size: out.Tar,
		})
		rec, err := s.place(in, out, layers, m.doc.RootFS.DiffIDs, mt)
		if err != nil {
			return nil, err
		}
		layers = append(layers, rec.layer())
	}
	raw, err := marshalPlain(m.doc)
	if err != nil {
		return nil, err
	}
	manifest.Config.Digest, manifest.Config.Size = digest.Digest(digestOf(raw)), int64(len(raw))
	config, err := parseConfig(raw, &manifest)
	if err != nil {
		return nil, err
	}
	rawManifest, err := json.Marshal(manifest)
	if err != nil {
		return nil, err
	}
	parent := ""
	if m.base != nil {
		parent = m.base.ID
	}
	return s.commit(&newImage{
		id: digestOf(raw), parent: parent, container: m.from, config: config, rawConfig: raw, layers: layers, ref: m.ref,
		platform: platformOf(m.doc.Platform),
		manifest: &document{raw: rawManifest, digest: digestOf(rawManifest), image: &manifest},
	})
}

// marshalPlain writes JSON as others do, with < and > as they are.
func marshalPlain(v any) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	err := e.Encode(v)
	return bytes.TrimSpace(b.Bytes()), err
}

// onBase begins a manifest with the layers of the base as they came, so that a push finds them where they are.
func (m *made) onBase(manifest *v1.Manifest) error {
	raw, err := m.base.RawManifest()
	if err != nil {
		return err
	}
	doc, err := parseDocument(raw, "", Limits{}.withDefaults())
	if err != nil {
		return err
	}
	if len(doc.image.Layers) != len(m.doc.RootFS.DiffIDs) || len(doc.image.Layers) >= manifestLayers {
		return &Error{
			Op: "commit", Name: m.base.ShortID(), Kind: ErrLimit,
			Text: fmt.Sprintf("its image has %d layers, and %d can be stacked", len(doc.image.Layers), manifestLayers),
		}
	}
	if doc.image.MediaType != "" {
		manifest.MediaType = doc.image.MediaType
	}
	manifest.Config.MediaType = cmp.Or(doc.image.Config.MediaType, v1.MediaTypeImageConfig)
	manifest.Layers = append(manifest.Layers, doc.image.Layers...)
	return nil
}

// manifestLayers is what overlayfs stacks: see Limits.Layers.
const manifestLayers = 500

// place publishes a filled layer in the form that fits on the stack below.
func (s *Store) place(in *ingest, out *unpacked, below []Layer, diffs []digest.Digest, mt *meter) (*layerRecord, error) {
	raw := layerRecord{
		ID: out.DiffID, DiffID: out.DiffID, Size: out.Size, Entries: out.Entries, Implied: out.Implied, Links: out.Links, Hiding: out.Hiding,
	}
	p := &pull{store: s, meter: mt}
	again := slices.ContainsFunc(below, func(l Layer) bool { return l.DiffID == out.DiffID }) // overlayfs refuses the same directory twice
	variant, err := s.needsVariant(&raw, below, mt)
	if err != nil {
		return nil, err
	}
	if !variant && !again {
		rec, err := in.publish(raw, &p.sync)
		return rec, err
	}
	chain := ""
	for _, d := range diffs {
		chain = chainID(chain, string(d))
	}
	h := &held{in: in, raw: raw}
	return p.variant(h, below, variantID(chain))
}

// History is a line of an image's history, newest first.
type History struct {
	ID        string // of the image, for the newest, and of those on this machine that it was made from; "<missing>" for the others
	Created   time.Time
	CreatedBy string
	Comment   string
	Size      int64 // bytes of the layer's files
	Tags      []string
}

// History is how the image says it was made, newest first.
func (i *Image) History() []History {
	var list []History
	n := 0
	size := func(diff string) int64 {
		for _, l := range i.Layers {
			if l.DiffID == diff {
				return l.Size
			}
		}
		return 0
	}
	lines := i.Config.History
	if len(lines) == 0 { // some builders write none
		for range i.Config.RootFS.DiffIDs {
			lines = append(lines, v1.History{Created: i.Config.Created})
		}
	}
	for _, h := range lines {
		e := History{ID: "<missing>", CreatedBy: h.CreatedBy, Comment: h.Comment}
		if h.Created != nil {
			e.Created = *h.Created
		}
		if !h.EmptyLayer && n < len(i.Config.RootFS.DiffIDs) {
			e.Size = size(string(i.Config.RootFS.DiffIDs[n]))
			n++
		}
		list = append(list, e)
	}
	slices.Reverse(list)
	// As Docker has it: an image that was made from another one here has one line more than that.
	for n, at := 0, i; n < len(list) && at != nil; n++ {
		list[n].ID, list[n].Tags = at.ID, at.Names
		at = at.parent()
	}
	return list
}

// parent is the image that this one was made from; nil if it isn't here.
func (i *Image) parent() *Image {
	if i.Parent == "" || i.store == nil {
		return nil
	}
	img, err := i.store.Resolve(i.Parent)
	if err != nil {
		return nil
	}
	return img
}
