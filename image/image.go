package image

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

// Image is one image of the store. Its layers exist and were verified when the image was stored.
type Image struct {
	ID             string    `json:"id"`             // digest of the config, "sha256:…"
	ManifestDigest string    `json:"manifestDigest"` // of this platform's manifest
	Platform       Platform  `json:"platform"`       // what the index says it is for, or else its config
	Created        time.Time `json:"created"`        // from the config; zero if it says nothing
	Pulled         time.Time `json:"pulled"`
	Size           int64     `json:"size"`            // bytes of the unpacked files of all layers
	Layers         []Layer   `json:"layers"`          // bottom first
	Empty          []string  `json:"empty,omitempty"` // diff IDs of layers that show nothing and are not among Layers
	// Parent is the ID of the image that this one was made from here, by a commit. That may be gone.
	Parent string `json:"parent,omitempty"`
	// Container is the ID of the container that a commit made this one of.
	Container string `json:"container,omitempty"`

	Names     []string `json:"-"` // familiar, sorted: "debian:latest"
	Digests   []string `json:"-"` // familiar, sorted: "debian@sha256:…" (of the manifest or index that was asked for)
	Config    v1.Image `json:"-"`
	RawConfig []byte   `json:"-"`

	store *Store
}

// Layer is one directory of an image's stack.
type Layer struct {
	DiffID string `json:"diffID"`
	Dir    string `json:"dir"`  // relative to the store's root: "layers/3f9c0a1b2c3d"
	Size   int64  `json:"size"` // bytes of its regular files
}

// Resolve finds an image by name ("debian", "debian:12", "host:5000/a/b:t", "x@sha256:…"), by ID or by a unique prefix of
// its ID. It reads three small files. The error is [ErrNotFound] or [ErrAmbiguous] where that is the reason.
func (s *Store) Resolve(name string) (*Image, error) {
	n, err := s.readNames()
	if err != nil {
		return nil, err
	}
	return s.resolve(name, n)
}

func (s *Store) resolve(name string, n *names) (*Image, error) {
	id, err := s.resolveID(name, n)
	if err != nil {
		return nil, err
	}
	img, err := s.load(id, n)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, notFound(name)
	}
	return img, err
}

func (s *Store) resolveID(name string, n *names) (string, error) {
	if validDigest(name) {
		return name, nil
	}
	if len(name) == 64 && isHex(name) {
		return "sha256:" + name, nil
	}
	ref, refErr := ParseRef(name)
	if refErr == nil {
		if ref.Digest != "" {
			if id, ok := n.Digests[ref.digestKey()]; ok {
				return id, nil
			}
			return s.byManifest(ref, n)
		}
		if id, ok := n.Tags[ref.tagKey()]; ok {
			return id, nil
		}
	}
	// Looked for as the beginning of an ID last: a tag may look like one (cafe).
	prefix := strings.TrimPrefix(name, "sha256:")
	if !isHex(prefix) || len(prefix) > 64 {
		if refErr != nil {
			return "", refErr
		}
		return "", notFound(name)
	}
	ids, err := s.imageIDs()
	if err != nil {
		return "", err
	}
	found := ""
	for _, id := range ids {
		if !strings.HasPrefix(id, "sha256:"+prefix) {
			continue
		}
		if found != "" {
			return "", &Error{
				Op: "image", Name: name, Kind: ErrAmbiguous, Text: "more than one image ID starts so", Hint: "give more digits",
			}
		}
		found = id
	}
	if found == "" {
		return "", notFound(name)
	}
	return found, nil
}

// byManifest finds an image by its platform's manifest digest, when an index was pulled under the same repository.
func (s *Store) byManifest(ref Ref, n *names) (string, error) {
	for key, id := range n.Digests {
		if !strings.HasPrefix(key, ref.Name()+"@") {
			continue
		}
		if img, err := s.load(id, n); err == nil && img.ManifestDigest == ref.Digest {
			return id, nil
		}
	}
	return "", notFound(ref.Familiar())
}

func notFound(name string) error {
	return &Error{Op: "image", Name: name, Kind: ErrNotFound, Text: "no such image"}
}

func hexOf(digest string) string { return strings.TrimPrefix(digest, "sha256:") }

// load reads an image by full ID. The error is fs.ErrNotExist if it is gone.
func (s *Store) load(id string, n *names) (*Image, error) {
	dir := s.path("images", hexOf(id))
	img := &Image{}
	if err := readJSON(filepath.Join(dir, "image.json"), img); err != nil {
		return nil, err
	}
	img.store = s
	raw, err := os.ReadFile(filepath.Join(dir, "config.json"))
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(raw, &img.Config); err != nil {
		return nil, fmt.Errorf("image %s: config: %w", id, err)
	}
	img.RawConfig = raw
	for key, to := range n.Tags {
		if to == id {
			img.Names = append(img.Names, familiarKey(key))
		}
	}
	for key, to := range n.Digests {
		if to == id {
			img.Digests = append(img.Digests, familiarKey(key))
		}
	}
	slices.Sort(img.Names)
	slices.Sort(img.Digests)
	return img, nil
}

func familiarKey(key string) string {
	r, err := ParseRef(key)
	if err != nil {
		return key
	}
	return r.Familiar()
}

// RawManifest returns the bytes whose digest is [Image.ManifestDigest].
func (i *Image) RawManifest() ([]byte, error) {
	return os.ReadFile(i.store.path("images", hexOf(i.ID), "manifest.json"))
}

// ShortID is the form people type: 12 hexadecimal digits.
func (i *Image) ShortID() string { return hexOf(i.ID)[:12] }
