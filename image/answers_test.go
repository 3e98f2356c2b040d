package image

import (
	"bytes"
	"encoding/json"
	"errors"
	"strings"
	"testing"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

// TestOddTypes: types that old registries and tools wrote are taken for what the content is, as Docker and Podman do; artifacts are
// refused.
func TestOddTypes(t *testing.T) {
	for _, config := range []string{
		"", "application/octet-stream", "application/json", "text/html", typeDockerConfig, v1.MediaTypeImageConfig,
	} {
		for _, layer := range []string{
			"", "application/octet-stream", "application/vnd.example.layer.v1.tar+gzip", "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
			"application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
		} {
			r, s := newRegistry(t), openStore(t)
			m, _ := r.push(t, "x", "", amd64(), layerData{tar: tarOf(t, fileE("f", "1"))})
			m.Config.MediaType, m.Layers[0].MediaType = config, layer
			raw := mustJSON(t, m)
			if config == "" {
				raw = bytes.Replace(raw, []byte(`"mediaType":"","digest"`), []byte(`"digest"`), 1)
			}
			r.manifest("x", "latest", raw, v1.MediaTypeImageManifest)
			if _, err := s.Pull(t.Context(), r.host()+"/x", quick()); err != nil {
				t.Errorf("config %q, layer %q: %v", config, layer, err)
			}
		}
	}
	r, s := newRegistry(t), openStore(t)
	m, _ := r.push(t, "x", "", amd64(), layerData{tar: tarOf(t, fileE("f", "1"))})
	m.Config.MediaType = "application/vnd.cncf.helm.config.v1+json"
	r.manifest("x", "latest", mustJSON(t, m), v1.MediaTypeImageManifest)
	if _, err := s.Pull(t.Context(), r.host()+"/x", quick()); !errors.Is(err, ErrUnsupported) {
		t.Errorf("a chart: got %v", err)
	}
	m.Config.MediaType, m.Layers[0].MediaType = v1.MediaTypeImageConfig, v1.MediaTypeImageLayerGzip+"+encrypted"
	r.manifest("x", "latest", mustJSON(t, m), v1.MediaTypeImageManifest)
	if _, err := s.Pull(t.Context(), r.host()+"/x", quick()); !errors.Is(err, ErrUnsupported) {
		t.Errorf("an encrypted layer: got %v", err)
	}
}

// TestInspect: the answers have Docker's shape, and what its configuration has beyond the OCI specification's.
func TestInspect(t *testing.T) {
	img := imageWith(t,
		`{"Cmd":["sh"],"Labels":{"a":"b"},"OnBuild":["RUN x"],
		"Shell":["/bin/bash","-c"],"Healthcheck":{"Test":["CMD","x"],"Interval":5000000000}}`)
	got, err := json.Marshal(img.Inspect())
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		`"Healthcheck":{"Test":["CMD","x"],"Interval":5000000000}`, `"OnBuild":["RUN x"]`, `"Shell":["/bin/bash","-c"]`,
		`"Cmd":["sh"]`, `"RepoTags":[]`,
		`"RepoDigests":[]`, `"Metadata":{"LastTagTime":"0001-01-01T00:00:00Z"}`, `"Parent":""`,
	} {
		if !strings.Contains(string(got), want) {
			t.Errorf("no %s in %s", want, got)
		}
	}
	sum, err := json.Marshal(img.Summary())
	want := `{"Containers":-1,"Created":0,"Id":"` + img.ID +
		`","Labels":{"a":"b"},"ParentId":"","RepoDigests":[],"RepoTags":[],"SharedSize":-1,"Size":0}`
	if err != nil || string(sum) != want {
		t.Errorf("got %s, want %s", sum, want)
	}
}

// TestHarmless: words of others can't steer a terminal.
func TestHarmless(t *testing.T) {
	if got := harmless("a\x1b[2J\u009b\u202eb\u2066\u200b\n\x7f\U000e0041c"); got != "a [2J  b     c" {
		t.Errorf("got %q", got)
	}
}
