package policy

import (
	"maps"
	"slices"
	"strings"

	"glassbox/container"
)

// From makes the smallest policy under which some containers could be made, and says what of them no policy allows. Names of images are
// taken as they are, so that it is for these versions of them.
func From(name string, asks []Ask) (*Policy, []string) {
	p := &Policy{Version: 1, Name: name, Requests: []string{Read, Containers}}
	paths := map[string]bool{}
	var pids, memory int64
	for _, a := range asks {
		c := a.Config
		add(&p.Images, c.Image)
		for _, capability := range c.CapAdd {
			if capability != "CAP_ALL" {
				add(&p.Capabilities, capability)
			}
		}
		for _, m := range c.Mounts {
			switch m.Type {
			case container.Bind:
				paths[m.Source] = paths[m.Source] || !m.ReadOnly
			case container.Layers:
				add(&p.Images, m.Source)
			}
		}
		for _, e := range c.Networks() {
			if mode := container.Mode(e.Network); !mode.IsHost() && mode.Container() == "" {
				add(&p.Networks, e.Network)
			}
		}
		for _, port := range c.Ports {
			host := "0.0.0.0"
			if port.HostIP.IsValid() {
				host = port.HostIP.Unmap().String()
			}
			add(&p.Publish, host)
		}
		if c.PublishAll {
			add(&p.Publish, "0.0.0.0")
		}
		memory = max(memory, c.Limits.Memory)
		p.Limits.CPUs = max(p.Limits.CPUs, float64(c.Limits.NanoCPUs)/1e9)
		if c.Limits.Pids != nil {
			pids = max(pids, *c.Limits.Pids)
		}
	}
	// A limit that one of them hasn't is none that a policy could demand.
	if all(asks, func(l *container.Limits) bool { return l.Memory > 0 }) {
		p.Limits.Memory = memory
	}
	if all(asks, func(l *container.Limits) bool { return l.Pids != nil && *l.Pids > 0 }) {
		p.Limits.Pids = pids
	}
	if !all(asks, func(l *container.Limits) bool { return l.NanoCPUs > 0 }) {
		p.Limits.CPUs = 0
	}
	p.Limits.Containers = len(asks)
	for _, path := range slices.Sorted(maps.Keys(paths)) {
		p.Paths = append(p.Paths, Path{Path: path, Write: paths[path]})
	}
	var no []string
	for _, a := range asks {
		config := *a.Config
		a.Config, a.Containers = &config, 0
		// Its own volumes would be made through the socket, and its own mark isn't asked for.
		a.OwnVolume = func(string) bool { return true }
		config.Annotations = maps.Clone(config.Annotations)
		delete(config.Annotations, Annotation)
		for _, why := range p.Judge(a) {
			add(&no, why)
		}
	}
	return p, no
}

func all(asks []Ask, has func(*container.Limits) bool) bool {
	return !slices.ContainsFunc(asks, func(a Ask) bool { return !has(&a.Config.Limits) })
}

func add(to *[]string, text string) {
	if text = strings.TrimSpace(text); text != "" && !slices.Contains(*to, text) {
		*to = append(*to, text)
	}
}
