package image

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"mime"
	"slices"
	"strings"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

// Media types of the two families. Docker's schema 2 and OCI differ in these strings and in nothing that matters here.
const (
	typeDockerManifest = "application/vnd.docker.distribution.manifest.v2+json"
	typeDockerIndex    = "application/vnd.docker.distribution.manifest.list.v2+json"
	typeDockerConfig   = "application/vnd.docker.container.image.v1+json"
	typeDockerSchema1  = "application/vnd.docker.distribution.manifest.v1+json"
	typeDockerSigned1  = "application/vnd.docker.distribution.manifest.v1+prettyjws"
)

// acceptTypes is what a registry is asked for.
var acceptTypes = strings.Join([]string{
	v1.MediaTypeImageIndex, v1.MediaTypeImageManifest, typeDockerIndex, typeDockerManifest,
}, ", ")

// document is a manifest or an index, whichever it proves to be.
type document struct {
	raw    []byte
	digest string
	index  *v1.Index
	image  *v1.Manifest
}

// parseDocument reads a manifest or an index, strictly: the declared type, the type in the document and its content must
// agree, or two readers could see two images in one digest (CVE-2021-41190).
func parseDocument(raw []byte, contentType string, l Limits) (*document, error) {
	bad := func(format string, args ...any) (*document, error) {
		return nil, &Error{Op: "manifest", Name: digestOf(raw), Kind: ErrManifest, Text: fmt.Sprintf(format, args...)}
	}
	keys, err := topKeys(raw)
	if err != nil {
		return bad("%v", err)
	}
	if err := checkStrings(raw, 0); err != nil {
		return bad("%v", err)
	}
	var head struct {
		SchemaVersion int    `json:"schemaVersion"`
		MediaType     string `json:"mediaType"`
	}
	if err := json.Unmarshal(raw, &head); err != nil {
		return bad("%s", jsonWords(err))
	}
	// A type may have parameters, such as charset=utf-8.
	declared, _, _ := mime.ParseMediaType(contentType)
	if declared == typeDockerSchema1 || declared == typeDockerSigned1 || head.SchemaVersion == 1 || keys["fsLayers"] {
		return nil, &Error{
			Op: "manifest", Kind: ErrUnsupported, Text: "schema 1 manifest, a form given up in 2017",
			Hint: "push the image again with a current tool",
		}
	}
	if head.SchemaVersion != 2 {
		return bad("schemaVersion %d, want 2", head.SchemaVersion)
	}
	// By the content: a media type is a claim, and two readers that believe different claims see two images.
	isIndex, isImage := keys["manifests"], keys["layers"] || keys["config"]
	if isIndex && isImage {
		return bad("it has both manifests and layers, so its meaning depends on who reads it")
	}
	if !isIndex && !isImage {
		return bad("it has neither manifests nor layers")
	}
	want := []string{v1.MediaTypeImageManifest, typeDockerManifest}
	if isIndex {
		want = []string{v1.MediaTypeImageIndex, typeDockerIndex}
	}
	// Some registries answer with a generic type: that says nothing. A specific one must be true.
	switch declared {
	case "", "application/json", "application/octet-stream", "binary/octet-stream", "text/plain", "text/html":
	default:
		if !slices.Contains(want, declared) {
			return bad("sent as %s, but its content is another kind", declared)
		}
		if head.MediaType != "" && head.MediaType != declared {
			return bad("sent as %s, but it calls itself %s", declared, head.MediaType)
		}
	}
	if head.MediaType != "" && !slices.Contains(want, head.MediaType) {
		return bad("it calls itself %s, but its content is another kind", head.MediaType)
	}
	d := &document{raw: raw, digest: digestOf(raw)}
	if isIndex {
		d.index = &v1.Index{}
		if err := json.Unmarshal(raw, d.index); err != nil {
			return bad("%s", jsonWords(err))
		}
		for _, m := range d.index.Manifests {
			if err := checkDescriptor(m); err != nil {
				return bad("%v", err)
			}
		}
		return d, nil
	}
	d.image = &v1.Manifest{}
	if err := json.Unmarshal(raw, d.image); err != nil {
		return bad("%s", jsonWords(err))
	}
	m := d.image
	switch m.Config.MediaType {
	case v1.MediaTypeImageConfig, typeDockerConfig:
	case "", "application/octet-stream", "application/json", "text/html":
		// Registries and tools of 2016 wrote these (docker/distribution issue 1621); the config itself says what it is.
	default:
		return nil, &Error{
			Op: "manifest", Name: d.digest, Kind: ErrUnsupported,
			Text: fmt.Sprintf("an artifact of type %.100q, not a container image", m.Config.MediaType),
		}
	}
	if len(m.Layers) > l.Layers {
		return nil, &Error{
			Op: "manifest", Name: d.digest, Kind: ErrLimit,
			Text: fmt.Sprintf("%d layers, at most %d can be stacked", len(m.Layers), l.Layers),
		}
	}
	for _, desc := range append([]v1.Descriptor{m.Config}, m.Layers...) {
		if err := checkDescriptor(desc); err != nil {
			return bad("%v", err)
		}
	}
	for _, desc := range m.Layers {
		if err := checkLayerType(desc.MediaType); err != nil {
			return nil, err
		}
	}
	if m.Config.Size > l.Config {
		return nil, &Error{
			Op: "manifest", Name: d.digest, Kind: ErrLimit,
			Text: fmt.Sprintf("a config of %d bytes, at most %d are read", m.Config.Size, l.Config),
		}
	}
	return d, nil
}

// topKeys returns the keys of a JSON object. Keys that occur twice, or that encoding/json would take for a known key
// though their case differs, are refused: other readers would see another document.
func topKeys(raw []byte) (map[string]bool, error) {
	dec := json.NewDecoder(bytes.NewReader(raw))
	t, err := dec.Token()
	if err != nil {
		return nil, fmt.Errorf("no JSON: %w", err)
	}
	if t != json.Delim('{') {
		return nil, fmt.Errorf("no JSON object")
	}
	folded := map[string]string{}
	keys := map[string]bool{}
	for dec.More() {
		t, err := dec.Token()
		if err != nil {
			return nil, fmt.Errorf("no JSON: %w", err)
		}
		k, _ := t.(string)
		if other, ok := folded[strings.ToLower(k)]; ok {
			return nil, fmt.Errorf("key %q beside %q", k, other)
		}
		folded[strings.ToLower(k)] = k
		keys[k] = true
		var skip json.RawMessage
		if err := dec.Decode(&skip); err != nil {
			return nil, fmt.Errorf("no JSON: %w", err)
		}
	}
	if _, err := dec.Token(); err != nil {
		return nil, fmt.Errorf("no JSON: %w", err)
	}
	if _, err := dec.Token(); err != io.EOF {
		return nil, fmt.Errorf("more than one JSON value")
	}
	for _, k := range []string{"schemaVersion", "mediaType", "manifests", "config", "layers", "fsLayers"} {
		if got, ok := folded[strings.ToLower(k)]; ok && got != k {
			return nil, fmt.Errorf("key %q instead of %q", got, k)
		}
	}
	return keys, nil
}

func checkDescriptor(d v1.Descriptor) error {
	if !validDigest(string(d.Digest)) {
		return fmt.Errorf("digest %q is not supported (only sha256)", d.Digest)
	}
	if d.Size < 0 {
		return fmt.Errorf("%s has negative size %d", d.Digest, d.Size)
	}
	return nil
}

// checkLayerType refuses what can't be unpacked. A type that nobody knows is no reason: Docker and Podman go by the content, too, which
// must be an archive whose digest the config has; and "foreign" layers say only that others may not give them on.
func checkLayerType(t string) error {
	if strings.HasSuffix(t, "+encrypted") {
		return &Error{Op: "manifest", Kind: ErrUnsupported, Text: fmt.Sprintf("an encrypted layer (%.100q)", t)}
	}
	return nil
}

func digestOf(b []byte) string {
	sum := sha256.Sum256(b)
	return "sha256:" + hex.EncodeToString(sum[:])
}
