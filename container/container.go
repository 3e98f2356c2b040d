// Package container is what a container is, as typed data: its program, mounts, ports, limits, networks, privileges.
//
// Its one idea: what somebody asks for is read once, where it comes in ([Words], Docker's words on a command line), and is data from then
// on ([Config]). Everything else (the OCI configuration, `inspect`, `ps`, an API) is written from the data, so that no two places can read
// the same words differently. It is pure: nothing of the host is asked, no file is opened.
//
// container.json holds a [Container]. It has a version; [Read] understands all versions that were ever written.
//
// It refuses words that mean nothing, with a sentence that names the flag. Whether what was asked for can be had on a host (does a device
// exist, is there so much of a processor) is decided where the host's answers are, in package spec.
//
// Start reading at [Config], then [Words.Config].
package container

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"
	"time"

	"glassbox/plan/lazyjson"
)

// Version is that of container.json as it is written today. Version 1 (no number in the file) stored [Words].
//
// In version 2 the volumes of the image were directories of the container's own.
const Version = 3

// What errors of this package and of the engine are, for errors.Is. Faces map each to an exit code or status.
var (
	ErrConflict    = errors.New("conflict")
	ErrInvalid     = errors.New("invalid")
	ErrUnsupported = errors.New("unsupported")
)

// kindError is an error of one of the kinds above, whose text doesn't repeat the kind.
type kindError struct {
	kind error
	err  error
}

func (e *kindError) Error() string        { return e.err.Error() }
func (e *kindError) Is(target error) bool { return target == e.kind }
func (e *kindError) Unwrap() error        { return e.err }

// Invalid makes an error about something that was asked for and means nothing.
func Invalid(format string, a ...any) error { return &kindError{ErrInvalid, fmt.Errorf(format, a...)} }

// Conflict makes an error about something that doesn't go with what is there.
func Conflict(format string, a ...any) error {
	return &kindError{ErrConflict, fmt.Errorf(format, a...)}
}

// Unsupported makes an error about something that means something, but can't be had here.
func Unsupported(format string, a ...any) error {
	return &kindError{ErrUnsupported, fmt.Errorf(format, a...)}
}

// Container is what a container is, apart from its running process.
type Container struct {
	Version int       `json:"version"`
	ID      string    `json:"id"` // 64 hexadecimal digits
	Name    string    `json:"name"`
	Created time.Time `json:"created"`
	ImageID string    `json:"imageID,omitempty"` // digest of the image's configuration; empty with Rootfs
	Image   *Image    `json:"image,omitempty"`   // what the image said when the container was made
	Config  Config    `json:"config"`
	// Inherited are the mounts that --volumes-from brought, as they were when the container was made.
	Inherited []Mount `json:"inherited,omitempty"`
	// Anonymous are the names of the volumes that were made for it alone: they go with it, if it is so wished.
	Anonymous []string `json:"anonymous,omitempty"`
	// ImageMounts are the IDs of the images whose files are mounted, by target.
	ImageMounts map[string]string `json:"imageMounts,omitempty"`
	// Layer bounds what it writes; nil: the disk does.
	Layer *Layer `json:"layer,omitempty"`
	// OtherName is one that a rename which was killed may have left beside Name: it goes with the container.
	OtherName string `json:"otherName,omitempty"`
	// Fixed says that it runs a plan that was given (replay.json), and no other.
	Fixed bool `json:"fixed,omitempty"`
}

// Layer is how much the container's own layer may take on the disk, and the project by which the file system knows its files.
type Layer struct {
	Bytes   int64  `json:"bytes"`
	Project uint32 `json:"project"`
}

// Image is what an image says about containers made from it (image-spec, config.md): only what a container keeps of it.
type Image struct {
	Env          []string          `json:"env,omitempty"`
	Entrypoint   []string          `json:"entrypoint,omitempty"`
	Cmd          []string          `json:"cmd,omitempty"`
	User         string            `json:"user,omitempty"`
	WorkingDir   string            `json:"workingDir,omitempty"`
	Labels       map[string]string `json:"labels,omitempty"`
	ExposedPorts []string          `json:"exposedPorts,omitempty"` // PORT[-PORT][/PROTO], sorted
	Volumes      []string          `json:"volumes,omitempty"`      // absolute paths, sorted
	StopSignal   string            `json:"stopSignal,omitempty"`
	Health       Health            `json:"health,omitzero"`        // its HEALTHCHECK
	Platform     string            `json:"platform,omitempty"`     // linux/arm64/v8
	Architecture string            `json:"architecture,omitempty"` // GOARCH
}

// NewerError is a container.json that a newer glassbox wrote.
type NewerError int

func (e NewerError) Error() string {
	return fmt.Sprintf("it was written by a newer glassbox (version %d, this one reads up to %d): use that one", int(e), Version)
}

// ImageOf is the image whose files a mount shows: its ID, once the container is made.
func (c *Container) ImageOf(m *Mount) string { return first(c.ImageMounts[m.Target], m.Source) }

// Read reads a container.json of any version. One of version 1 comes without Image, which the caller fills in if it still has the image.
func Read(data []byte) (*Container, error) {
	var c Container
	if err := lazyjson.Unmarshal(data, &c); err != nil {
		return nil, err
	}
	switch {
	case c.Version > Version:
		return nil, NewerError(c.Version)
	case c.Version >= 2:
		return &c, nil
	}
	var old struct {
		Options struct {
			Words
			Network string // there was one, and no list of them
		} `json:"options"`
	}
	if err := json.Unmarshal(data, &old); err != nil {
		return nil, err
	}
	words := old.Options.Words
	if old.Options.Network != "" {
		words.Network = []string{old.Options.Network}
	}
	config, err := words.config()
	if err != nil {
		return nil, fmt.Errorf("options of version 1: %w", err)
	}
	// Of two mounts on one target version 1 took the later one.
	last := map[string]int{}
	for i, m := range config.Mounts {
		last[m.Target] = i
	}
	kept := config.Mounts[:0]
	for i, m := range config.Mounts {
		if last[m.Target] == i {
			m.MakeSource = false // it refused a source that is missing
			kept = append(kept, m)
		}
	}
	config.Mounts = kept
	c.Version, c.Config = 2, *config
	return &c, nil
}

// ImageName is what the container was made from, as it was asked for: an image's reference, or a directory.
func (c *Container) ImageName() string {
	if c.Config.Rootfs != nil {
		return c.Config.Rootfs.Dir
	}
	return c.Config.Image
}

// image is never nil.
func (c *Container) image() *Image {
	if c.Image == nil {
		return &Image{}
	}
	return c.Image
}

// Entrypoint is what stands before the command: the container's, or else the image's.
func (c *Container) Entrypoint() []string {
	if c.Config.Entrypoint != nil {
		return c.Config.Entrypoint
	}
	return c.image().Entrypoint
}

// Cmd is the command: the container's, or else the image's. An entrypoint of the container's own clears the image's command, as with
// Docker.
func (c *Container) Cmd() []string {
	if len(c.Config.Command) > 0 || c.Config.Entrypoint != nil {
		return c.Config.Command
	}
	return c.image().Cmd
}

// Args is the program and its arguments, without an init.
func (c *Container) Args() []string {
	return append(append([]string(nil), c.Entrypoint()...), c.Cmd()...)
}

// User is USER[:GROUP] as given or as the image has it; empty is root.
func (c *Container) User() string { return first(c.Config.User, c.image().User) }

// Workdir is the working directory as given or as the image has it; empty is "/".
func (c *Container) Workdir() string { return first(c.Config.Workdir, c.image().WorkingDir) }

// StopSignal is the name of the signal that asks the container to end.
func (c *Container) StopSignal() string { return first(c.AskedSignal(), "SIGTERM") }

// AskedSignal is the signal that flags or the image say it is stopped with; empty: neither does.
func (c *Container) AskedSignal() string { return first(c.Config.StopSignal, c.image().StopSignal) }

// Mounts are all mounts of the container, each target once: those that were asked for, those of other containers, and the image's volumes,
// but for places of the kernel's file systems, which an image has no say about (CVE-2019-16884). Each volume has its name.
func (c *Container) Mounts() []Mount {
	var out []Mount
	taken := func(target string) bool {
		return slices.ContainsFunc(out, func(m Mount) bool { return m.Target == target })
	}
	for _, m := range slices.Concat(c.Config.Mounts, c.Inherited) {
		// What was asked for counts more than what other containers bring, as with Docker.
		if taken(m.Target) {
			continue
		}
		// Named by the container and the place, not by chance: whoever was killed after it was made finds the same volume again.
		if m.Anonymous() {
			m.Source = c.volumeOf(m.Target)
		}
		out = append(out, m)
	}
	own := len(out)
	for _, target := range c.image().Volumes {
		target = path.Clean("/" + target)
		top, _, _ := strings.Cut(target[1:], "/")
		if top == "" || top == "proc" || top == "sys" || top == "dev" || taken(target) {
			continue
		}
		m := Mount{Type: Volume, Source: c.volumeOf(target), Target: target, Form: FormImage}
		if c.Version == 2 {
			m.Dir = "volumes/" + m.Source[:12]
		}
		out = append(out, m)
	}
	// The image's first: a mount that was asked for may lie within one of them.
	return append(slices.Clone(out[own:]), out[:own]...)
}

// volumeOf is the name of the volume that the container has at a place without having named it: 64 hexadecimal digits, as with Docker.
func (c *Container) volumeOf(target string) string {
	sum := sha256.Sum256([]byte(c.ID + "\x00" + target))
	return hex.EncodeToString(sum[:])
}

// AnonymousVolumes are the names of the volumes that are made for the container alone, sorted.
func (c *Container) AnonymousVolumes() []string {
	var out []string
	for _, m := range c.Mounts() {
		if m.Type == Volume && m.Dir == "" && m.Source == c.volumeOf(m.Target) {
			out = append(out, m.Source)
		}
	}
	slices.Sort(out)
	return out
}

// Labels are the image's and the container's, which win.
func (c *Container) Labels() map[string]string {
	out := map[string]string{}
	for k, v := range c.image().Labels {
		out[k] = v
	}
	for k, v := range c.Config.Labels {
		out[k] = v
	}
	return out
}

// Exposed are the ports that the image and --expose name, PORT[-PORT][/PROTO].
func (c *Container) Exposed() []string {
	out := slices.Clone(c.image().ExposedPorts)
	for _, p := range c.Config.Expose {
		if !slices.Contains(out, p) {
			out = append(out, p)
		}
	}
	return out
}

// Hostname is the name the container gets in its own UTS namespace.
func (c *Container) Hostname() string { return first(c.Config.Hostname, c.ID[:min(12, len(c.ID))]) }

// Network is the network it is in, by the name or word of its first endpoint: bridge, none, host, container:ID, or a network's name.
func (c *Container) Network() string { return c.Config.Network() }

// first is the first of words that isn't empty.
func first(words ...string) string {
	for _, w := range words {
		if w != "" {
			return w
		}
	}
	return ""
}
