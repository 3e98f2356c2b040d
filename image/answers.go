package image

import (
	"encoding/json"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

// Summary is an image in a list, in the shape of Docker's API (GET /images/json, version 1.47).
type Summary struct {
	Containers  int64             // how many are made from it; -1 is not counted
	Created     int64             // seconds since 1970; 0 if the image doesn't say
	ID          string            `json:"Id"`
	Labels      map[string]string // null where there are none
	ParentID    string            `json:"ParentId"` // of the image that it was made from here by a commit; empty: of none
	RepoDigests []string
	RepoTags    []string
	SharedSize  int64 // bytes that other images have, too; -1 is not counted
	Size        int64 // bytes of the unpacked files
}

// Inspection is everything known of an image, in the shape of Docker's API (GET /images/{name}/json, version 1.47), with its history.
type Inspection struct {
	ID           string `json:"Id"`
	RepoTags     []string
	RepoDigests  []string
	Parent       string
	Container    string `json:"-"` // of which it was made by a commit: clients before 1.45 are told
	Comment      string
	Created      string `json:",omitempty"` // RFC 3339 with nanoseconds; empty if the image doesn't say
	Author       string
	Config       InspectedConfig
	Architecture string
	Variant      string `json:",omitempty"`
	Os           string
	OsVersion    string `json:",omitempty"`
	Size         int64  // bytes of the unpacked files
	GraphDriver  GraphDriver
	RootFS       RootFS
	Metadata     Metadata
	Descriptor   *v1.Descriptor `json:",omitempty"` // of the platform's manifest
	History      []v1.History   `json:",omitempty"` // as the image has it, oldest first
}

// InspectedConfig is the OCI specification's configuration with what Docker adds to it.
type InspectedConfig struct {
	v1.ImageConfig
	Healthcheck *Healthcheck `json:",omitempty"` // null, too, where it makes no sense: see [Image.Healthcheck]
	OnBuild     []string     `json:",omitempty"`
	Shell       []string     `json:",omitempty"`
}

// GraphDriver says where an image's files are.
type GraphDriver struct {
	Name string
	Data map[string]string // LowerDir: the layers' directories, top first
}

// RootFS lists the diff IDs of an image's layers, bottom first.
type RootFS struct {
	Type   string
	Layers []string `json:",omitempty"`
}

// Metadata is about the image on this machine.
type Metadata struct {
	LastTagTime time.Time `json:",omitempty"`
}

// Summary describes an image in a list.
func (i *Image) Summary() Summary {
	s := Summary{
		// An empty list and not null, as Docker has it for both.
		Containers: -1, ID: i.ID, ParentID: i.Parent, Labels: i.Config.Config.Labels, RepoDigests: append([]string{}, i.Digests...),
		RepoTags: append([]string{}, i.Names...), SharedSize: -1, Size: i.Size,
	}
	if !i.Created.IsZero() {
		s.Created = i.Created.Unix()
	}
	return s
}

// Inspect describes an image.
func (i *Image) Inspect() *Inspection {
	var docker struct { // what the OCI specification has no fields for
		Comment string
		Config  struct{ OnBuild, Shell []string }
	}
	json.Unmarshal(i.RawConfig, &docker) // was read as JSON when it was pulled; a field of another kind is none
	d := &Inspection{
		ID: i.ID, RepoTags: append([]string{}, i.Names...), RepoDigests: append([]string{}, i.Digests...), Author: i.Config.Author,
		Comment: docker.Comment, Parent: i.Parent, Container: i.Container,
		Config: InspectedConfig{
			ImageConfig: i.Config.Config, OnBuild: docker.Config.OnBuild, Shell: docker.Config.Shell,
		},
		Architecture: i.Config.Architecture, Variant: i.Config.Variant, Os: i.Config.OS, OsVersion: i.Config.OSVersion, Size: i.Size,
		GraphDriver: GraphDriver{Name: "overlay", Data: map[string]string{}},
		RootFS:      RootFS{Type: "layers"}, Metadata: Metadata{LastTagTime: i.Pulled}, History: i.Config.History,
	}
	if h, err := i.Healthcheck(); err == nil {
		d.Config.Healthcheck = h
	}
	if !i.Created.IsZero() {
		d.Created = i.Created.Format(time.RFC3339Nano)
	}
	root := ""
	if i.store != nil { // an image that is in no store has no places
		root = i.store.root
	}
	var dirs []string
	for _, l := range i.Layers {
		d.RootFS.Layers = append(d.RootFS.Layers, l.DiffID)
		dirs = append(dirs, filepath.Join(root, l.Dir))
	}
	slices.Reverse(dirs) // as overlayfs takes them: top first
	d.GraphDriver.Data["LowerDir"] = strings.Join(dirs, ":")
	d.Descriptor = &v1.Descriptor{Digest: digest.Digest(i.ManifestDigest)}
	if i.store != nil {
		if raw, err := i.RawManifest(); err == nil {
			var head struct{ MediaType string }
			json.Unmarshal(raw, &head)
			d.Descriptor.MediaType, d.Descriptor.Size = head.MediaType, int64(len(raw))
		}
	}
	return d
}
