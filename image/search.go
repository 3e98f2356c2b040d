package image

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

// SearchResult is an image that a registry has found.
type SearchResult struct {
	Name        string `json:"name"`
	Description string `json:"description"`
	Stars       int    `json:"star_count"`
	Official    bool   `json:"is_official"`
}

// Search asks a registry for images by a word: Docker Hub, or the one that the term begins with (registry.lan:5000/word). The question is
// that of Docker's first registry interface (GET /v1/search), which Hub and few others answer.
func Search(ctx context.Context, term string, limit int, o PullOptions) ([]SearchResult, error) {
	registry, word := hub, term
	if host, rest, ok := strings.Cut(term, "/"); ok && (strings.ContainsAny(host, ".:") || host == "localhost") {
		registry, word = host, rest
	}
	bad := func(kind error, text string) error {
		return &Error{Op: "search", Name: fmt.Sprintf("%.100q", term), Kind: kind, Text: text}
	}
	if word == "" || !validRegistry(registry) || len(term) > 300 {
		return nil, bad(ErrReference, "a search is for a word, or for HOST[:PORT]/WORD")
	}
	o = o.withDefaults()
	rules, err := o.rules()
	if err != nil {
		return nil, err
	}
	asked := registry // what the answer is named by
	registry = rules.ServerFor(registry)
	c := &client{op: "search", ref: Ref{Registry: registry}, host: registry, scheme: "https", opts: &o}
	if err := c.prepare(ctx); err != nil {
		return nil, err
	}
	defer c.close()
	address := c.scheme + "://" + c.host + "/v1/search?" + url.Values{"q": {word}, "n": {fmt.Sprint(limit)}}.Encode()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return nil, err
	}
	// The hub finds private repositories for those who are logged in. To a registry without proof the password isn't sent.
	auth, _ := o.authenticator(ctx, registry)
	if cred := userOf(auth); cred != nil && c.proven() {
		req.SetBasicAuth(cred.Username, cred.Password)
	}
	resp, err := (&http.Client{Transport: c.guard}).Do(req)
	if err != nil {
		return nil, c.explain(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode == http.StatusNotFound || resp.StatusCode == http.StatusMethodNotAllowed {
		return nil, bad(ErrUnsupported, registry+" has no search: few registries besides Docker Hub have one")
	}
	if resp.StatusCode != http.StatusOK {
		return nil, c.status(resp, word)
	}
	raw, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, c.explain(err)
	}
	var answer struct {
		Results []SearchResult `json:"results"`
	}
	if err := json.Unmarshal(raw, &answer); err != nil {
		return nil, bad(ErrUnavailable, "the answer of "+registry+" makes no sense: "+jsonWords(err))
	}
	if len(answer.Results) > limit {
		answer.Results = answer.Results[:limit]
	}
	if asked != hub {
		for i := range answer.Results {
			answer.Results[i].Name = asked + "/" + answer.Results[i].Name
		}
	}
	return answer.Results, nil
}

// SearchFilter reads stars=N and is-official=BOOL; is-automated is false for all, since 2023.
func SearchFilter(filters []string) (keep func(SearchResult) bool, err error) {
	stars, official, automated := 0, "", ""
	for _, f := range filters {
		name, value, ok := strings.Cut(f, "=")
		if !ok {
			return nil, fmt.Errorf("invalid filter %q: it has the form name=value", f)
		}
		switch name {
		case "stars":
			if stars, err = strconv.Atoi(value); err != nil || stars < 0 {
				return nil, fmt.Errorf("invalid filter %q: stars are a number", f)
			}
		case "is-official", "is-automated":
			if _, err := strconv.ParseBool(value); err != nil {
				return nil, fmt.Errorf("invalid filter %q: it is true or false", f)
			}
			if b, _ := strconv.ParseBool(value); name == "is-official" {
				official = strconv.FormatBool(b)
			} else {
				automated = strconv.FormatBool(b)
			}
		default:
			return nil, fmt.Errorf("invalid filter '%s'", name)
		}
	}
	return func(r SearchResult) bool {
		return r.Stars >= stars && (official == "" || strconv.FormatBool(r.Official) == official) && automated != "true"
	}, nil
}

// RemoteImage is what a registry has by a name.
type RemoteImage struct {
	Descriptor v1.Descriptor // of the manifest or index
	Platforms  []v1.Platform // that it is for
}

// RemoteDescriptor asks a registry what a name stands for; nothing is kept.
func RemoteDescriptor(ctx context.Context, text string, o PullOptions) (*RemoteImage, error) {
	raw, list, err := RemoteManifest(ctx, text, true, o)
	if err != nil {
		return nil, err
	}
	var head struct {
		MediaType string `json:"mediaType"`
		Config    struct {
			Digest string `json:"digest"`
		} `json:"config"`
	}
	if err := json.Unmarshal(raw, &head); err != nil {
		return nil, &Error{Op: "manifest", Name: text, Kind: ErrManifest, Err: err}
	}
	out := &RemoteImage{Descriptor: v1.Descriptor{MediaType: head.MediaType, Digest: digest.FromBytes(raw), Size: int64(len(raw))}}
	for _, e := range list {
		if e.Descriptor.Platform != nil {
			out.Platforms = append(out.Platforms, *e.Descriptor.Platform)
		}
	}
	return out, nil
}

// ManifestEntry is a manifest as manifest inspect -v shows it.
type ManifestEntry struct {
	Ref              string
	Descriptor       v1.Descriptor
	Raw              []byte // in base64
	SchemaV2Manifest json.RawMessage
}

// RemoteManifest fetches the manifest or index that a name stands for at its registry; nothing is kept. With all it comes with those that
// an index names.
func RemoteManifest(ctx context.Context, text string, all bool, o PullOptions) (raw []byte, list []ManifestEntry, err error) {
	ref, err := ParseRef(text)
	if err != nil {
		return nil, nil, err
	}
	o = o.withDefaults()
	rules, err := o.rules()
	if err != nil {
		return nil, nil, err
	}
	places, err := rules.Places(ref)
	if err != nil {
		return nil, nil, err
	}
	type answer struct {
		raw  []byte
		list []ManifestEntry
	}
	var told []string
	warn := func(s string) { told = append(told, s) }
	got, err := inTurn(ctx, places, warn, func(at Ref) (a answer, err error) {
		a.raw, a.list, err = manifestAt(ctx, ref, at, all, &o, warn)
		return a, err
	})
	if err != nil && len(told) > 0 {
		err = errors.Join(err, errors.New(told[0]))
	}
	return got.raw, got.list, err
}

func manifestAt(
	ctx context.Context, ref, at Ref, all bool, o *PullOptions, warn func(string),
) (raw []byte, list []ManifestEntry, err error) {
	c, err := newClient(ctx, clientFor{op: "manifest", ref: ref, at: &at, opts: o, warn: warn})
	if err != nil {
		return nil, nil, err
	}
	defer c.close()
	top, err := c.manifest(ctx, c.what(), ref.Digest)
	if err != nil || !all {
		if err != nil {
			return nil, nil, err
		}
		return top.raw, nil, nil
	}
	add := func(d *document, desc v1.Descriptor) {
		desc.Digest, desc.Size = digest.Digest(d.digest), int64(len(d.raw))
		if desc.MediaType == "" && d.image != nil {
			desc.MediaType = d.image.MediaType
		}
		list = append(list, ManifestEntry{Ref: ref.Name() + "@" + d.digest, Descriptor: desc, Raw: d.raw, SchemaV2Manifest: bytes.Clone(d.raw)})
	}
	if top.index == nil {
		add(top, v1.Descriptor{})
		return top.raw, list, nil
	}
	for _, d := range top.index.Manifests {
		doc, err := c.manifest(ctx, string(d.Digest), string(d.Digest))
		if err != nil {
			return nil, nil, err
		}
		add(doc, d)
	}
	return top.raw, list, nil
}
