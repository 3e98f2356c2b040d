// Package policy says what may be asked for through a socket of the API that is handed out: to a CI job, a test, an agent.
//
// Its one idea: everything is refused that isn't allowed. A container is judged by what it is ([container.Config]), in which all
// spellings of a request have become one; a field that this package doesn't know, because it was added later, is refused, too. A refusal
// is a sentence that names the flag.
//
// It is pure: what the host has at a path is asked by the caller ([Ask]). It refuses a policy that it doesn't wholly understand.
// Start reading at [Policy], then [Policy.Judge].
package policy

import (
	"bytes"
	"encoding/json"
	"fmt"
	"path"
	"slices"
	"strings"

	"glassbox/container"
)

// Kinds of requests that can be allowed.
const (
	Read       = "read"       // look at what is the socket's own
	Containers = "containers" // make, start, stop, change and remove them
	Exec       = "exec"       // run commands in them
	Files      = "files"      // copy files into them
	Networks   = "networks"   // make and remove networks
	Volumes    = "volumes"    // make and remove volumes
	Pull       = "pull"       // fetch images
	Build      = "build"      // build images
)

// Kinds are all of them.
func Kinds() []string { return []string{Read, Containers, Exec, Files, Networks, Volumes, Pull, Build} }

// Annotation marks a container that was made through a socket with a policy, whose name is its value. An image can't set it.
const Annotation = "glassbox.policy"

// Label marks networks and volumes in the same way.
const Label = "glassbox.policy"

// Policy is what a socket allows. The zero value allows nothing.
type Policy struct {
	Version  int      `json:"version"` // 1
	Name     string   `json:"name"`    // of what is made through it: letters, digits, dashes
	Requests []string `json:"requests"`
	// Images are names that may be run and pulled, * stands for any part: "golang:*", "registry.lan:5000/team/*".
	Images []string `json:"images,omitempty"`
	// Tags are names that images may get that are built through the socket, in the same form. They may be run, too.
	Tags  []string `json:"tags,omitempty"`
	Paths []Path   `json:"paths,omitempty"` // of the host, that may be mounted
	// Networks are those of the host that may be used: bridge, none, or names. Those made through the socket may be, anyway.
	Networks     []string `json:"networks,omitempty"`
	Publish      []string `json:"publish,omitempty"`      // addresses of the host on which ports may be published
	Capabilities []string `json:"capabilities,omitempty"` // that may be added
	Limits       Limits   `json:"limits,omitzero"`
}

// Path is a path of the host.
type Path struct {
	Path string `json:"path"`
	// Write lets containers write to it. Then it is mounted whole or not at all: below a directory that a container may write to,
	// it could exchange what is to be mounted for a link to elsewhere.
	Write bool `json:"write,omitempty"`
}

// Limits are the most of each container, and what one gets that asks for none. Zero: no limit is demanded.
type Limits struct {
	Memory     int64   `json:"memory,omitempty"` // bytes
	CPUs       float64 `json:"cpus,omitempty"`
	Pids       int64   `json:"pids,omitempty"`
	Containers int     `json:"containers,omitempty"` // how many there may be at a time
}

// Parse reads a policy, and says what in it means nothing.
func Parse(data []byte) (*Policy, error) {
	dec := json.NewDecoder(bytes.NewReader(data))
	// A field that is misspelled would be one that isn't there: a policy says no to what it doesn't understand.
	dec.DisallowUnknownFields()
	var p Policy
	if err := dec.Decode(&p); err != nil {
		return nil, fmt.Errorf("policy: %w", err)
	}
	if dec.More() {
		return nil, fmt.Errorf("policy: something follows it")
	}
	if p.Version != 1 {
		return nil, fmt.Errorf("policy: version %d is unknown: want 1", p.Version)
	}
	if p.Name == "" || strings.Trim(p.Name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_") != "" {
		return nil, fmt.Errorf("policy: name %q: want letters, digits, dashes", p.Name)
	}
	for _, r := range p.Requests {
		if !slices.Contains(Kinds(), r) {
			return nil, fmt.Errorf("policy: requests: %q is unknown: want some of %s", r, strings.Join(Kinds(), ", "))
		}
	}
	for _, f := range p.Paths {
		// Compared by text with what a request names: .. would lead out of what was meant.
		if !path.IsAbs(f.Path) || path.Clean(f.Path) != f.Path || f.Path == "/" {
			return nil, fmt.Errorf("policy: path %q: want an absolute one without . and .., and not /", f.Path)
		}
	}
	for _, f := range p.Paths {
		for _, own := range []string{"/run", "/var", "/proc", "/sys", "/dev", "/boot", "/etc"} {
			// Files below /etc or /run may be given away one by one; of the kernel's file systems, nothing.
			if f.Path == own || (own == "/proc" || own == "/sys" || own == "/dev") && strings.HasPrefix(f.Path, own+"/") {
				return nil, fmt.Errorf("policy: path %s: sockets of engines, or the kernel itself, would be given away with it", f.Path)
			}
		}
	}
	for i, c := range p.Capabilities {
		full, err := container.ParseCapability(c)
		if err != nil || full == "CAP_ALL" {
			return nil, fmt.Errorf("policy: capability %q: want the name of one", c)
		}
		p.Capabilities[i] = full
	}
	if slices.ContainsFunc(p.Networks, func(n string) bool { return n == "host" || strings.HasPrefix(n, "container:") }) {
		return nil, fmt.Errorf("policy: networks: the host's can't be given away")
	}
	if l := p.Limits; l.Memory < 0 || l.CPUs < 0 || l.Pids < 0 || l.Containers < 0 {
		return nil, fmt.Errorf("policy: limits: a number is negative")
	}
	return &p, nil
}

// Allows reports whether a kind of requests is allowed.
func (p *Policy) Allows(kind string) bool { return slices.Contains(p.Requests, kind) }

// AllowsImage reports whether an image may be run, or pulled, by one of its names.
func (p *Policy) AllowsImage(names ...string) bool {
	return anyMatches(p.Images, names) || p.AllowsTag(names...)
}

// AllowsTag reports whether an image that is built may get one of the names.
func (p *Policy) AllowsTag(names ...string) bool { return anyMatches(p.Tags, names) }

// ImagesText lists what may be run, for sentences.
func (p *Policy) ImagesText() string { return list(append(slices.Clone(p.Images), p.Tags...)) }

// TagsText lists what may be built.
func (p *Policy) TagsText() string { return list(p.Tags) }

// ImageNames are the spellings of an image's name under which a policy may have it: as it is, and without what Docker's registry is called
// (docker.io/library/golang:1 is golang:1).
func ImageNames(name string) []string {
	names := []string{name}
	if rest, ok := strings.CutPrefix(name, "docker.io/"); ok {
		names = append(names, rest)
		if rest, ok := strings.CutPrefix(rest, "library/"); ok {
			names = append(names, rest)
		}
	}
	return names
}

func anyMatches(patterns, names []string) bool {
	for _, name := range names {
		for _, pattern := range patterns {
			// Without a tag it is latest: so is the pattern's. A digest has none.
			if matches(pattern, name) || !strings.Contains(name, "@") && matches(pattern, strings.TrimSuffix(name, ":latest")) {
				return true
			}
		}
	}
	return false
}

// matches compares an image's name with a pattern. A * for a tag is no more than one: golang:* is not a registry's port (golang:5000/x).
func matches(pattern, name string) bool {
	repo, tag, tagged := cutTag(pattern)
	if !tagged {
		return fits(pattern, name)
	}
	nameRepo, nameTag, named := cutTag(name)
	return named && fits(repo, nameRepo) && fits(tag, nameTag)
}

// cutTag parts a name before its tag, which follows the first colon behind the last slash.
func cutTag(name string) (repo, tag string, tagged bool) {
	slash := strings.LastIndexByte(name, '/') + 1
	base, tag, tagged := strings.Cut(name[slash:], ":")
	return name[:slash] + base, tag, tagged
}

// fits compares a text with a pattern, in which * stands for any text.
func fits(pattern, name string) bool {
	first, rest, any := strings.Cut(pattern, "*")
	if !any {
		return pattern == name
	}
	name, ok := strings.CutPrefix(name, first)
	if !ok {
		return false
	}
	for i := 0; i <= len(name); i++ {
		if fits(rest, name[i:]) {
			return true
		}
	}
	return false
}
