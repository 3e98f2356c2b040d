package api

import (
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"glassbox/docker"
	"glassbox/event"
	"glassbox/image"
)

// The shapes of answers in the versions that differ. Types have the newest one; what older clients read beside it is added here, and what
// was taken away is left out (moby/api, docs/CHANGELOG.md).

// container is an answer of GET /containers/{id}/json. Since 1.52 the fields of the first endpoint stand with the endpoints alone.
func (v version) container(c *docker.Container) any {
	if v < 52 {
		return c
	}
	type settings struct {
		SandboxID  string
		SandboxKey string
		Ports      map[string][]docker.PortBinding
		Networks   map[string]*docker.Endpoint
	}
	n := c.NetworkSettings
	return struct {
		*docker.Container
		NetworkSettings settings
	}{c, settings{n.SandboxID, n.SandboxKey, n.Ports, n.Networks}}
}

// imageSummary is an element of GET /images/json. Until 1.44 there was a second size, the same.
func (v version) imageSummary(i image.Summary) any {
	if i.RepoTags == nil {
		i.RepoTags = []string{}
	}
	if i.RepoDigests == nil {
		i.RepoDigests = []string{}
	}
	if v >= 44 {
		return i
	}
	return struct {
		image.Summary
		VirtualSize int64
	}{i, i.Size}
}

// image is an answer of GET /images/{name}/json.
func (v version) image(i *image.Inspection, manifests bool) any {
	i.History = nil // not Docker's
	if v < 48 {
		i.Descriptor = nil
	}
	var config any = i.Config
	if v < 50 {
		config = oldConfigOf(i.Config)
	}
	switch {
	case v < 45:
		out := struct {
			*image.Inspection
			Config          any
			VirtualSize     int64  `json:",omitempty"`
			Container       string // that was committed
			DockerVersion   string
			ContainerConfig *struct{}
		}{Inspection: i, Config: config, Container: i.Container}
		if v < 44 {
			out.VirtualSize = i.Size
		}
		return out
	case v >= 48 && manifests && i.Descriptor != nil:
		type size struct {
			Content int64
			Total   int64
		}
		type entry struct {
			ID         string
			Descriptor v1.Descriptor
			Available  bool
			Size       size
			Kind       string
			ImageData  any
		}
		platform := v1.Platform{OS: i.Os, Architecture: i.Architecture, Variant: i.Variant}
		return struct {
			*image.Inspection
			Config    any
			Manifests []entry
		}{i, config, []entry{{
			ID: string(i.Descriptor.Digest), Descriptor: *i.Descriptor, Available: true, Size: size{0, i.Size}, Kind: "image",
			ImageData: map[string]any{"Platform": platform, "Containers": []string{}, "Size": map[string]int64{"Unpacked": i.Size}},
		}}}
	}
	if v < 50 {
		return struct {
			*image.Inspection
			Config any
		}{i, config}
	}
	return i
}

// oldConfig is an image's configuration until 1.50: what isn't set is null, and what only containers have is there.
type oldConfig struct {
	Hostname, Domainname, User              string
	AttachStdin, AttachStdout, AttachStderr bool
	ExposedPorts                            map[string]struct{} `json:",omitempty"`
	Tty, OpenStdin, StdinOnce               bool
	Env, Cmd                                []string
	Healthcheck                             *image.Healthcheck `json:",omitempty"`
	Image                                   string
	Volumes                                 map[string]struct{}
	WorkingDir                              string
	Entrypoint, OnBuild                     []string
	Labels                                  map[string]string
	StopSignal                              string   `json:",omitempty"`
	Shell                                   []string `json:",omitempty"`
}

func oldConfigOf(c image.InspectedConfig) oldConfig {
	return oldConfig{
		User: c.User, ExposedPorts: c.ExposedPorts, Env: c.Env, Cmd: c.Cmd, Healthcheck: c.Healthcheck,
		Volumes: c.Volumes, WorkingDir: c.WorkingDir, Entrypoint: c.Entrypoint, OnBuild: c.OnBuild, Labels: c.Labels, StopSignal: c.StopSignal,
		Shell: c.Shell,
	}
}

// network is an answer of GET /networks/{id} and an element of GET /networks.
func (v version) network(n docker.Network) any {
	if v >= 47 {
		return n
	}
	type plain docker.Network
	return struct {
		plain
		EnableIPv4 *struct{} `json:"EnableIPv4,omitempty"` // since 1.47
	}{plain: plain(n)}
}

// event is a line of GET /events. Until 1.52 it began with what it was before 1.22.
func (v version) event(e event.Event) any {
	if v >= 52 {
		return e
	}
	out := struct {
		Status string `json:"status,omitempty"`
		ID     string `json:"id,omitempty"`
		From   string `json:"from,omitempty"`
		event.Event
	}{Event: e}
	if e.Type == event.Container || e.Type == event.Image {
		out.Status, out.ID = e.Action, e.Actor.ID
		out.From = e.Actor.Attributes["image"]
	}
	return out
}
