package container

import (
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"
)

// MountType is what is mounted.
type MountType string

// Types of mounts.
const (
	Bind   MountType = "bind"   // a file or directory of the host
	Tmpfs  MountType = "tmpfs"  // memory
	Volume MountType = "volume" // a directory that outlives containers
	Layers MountType = "image"  // the files of an image
)

// Mount is one mount that was asked for.
type Mount struct {
	Type MountType `json:"type"`
	// Source is an absolute path on the host, the name of a volume (empty: one that is made for this container alone), or an image.
	Source string `json:"source,omitempty"`
	Target string `json:"target"` // absolute path in the container, clean, never "/"
	// ReadOnly holds for the mount and, unless Recursive says otherwise, for those below it.
	ReadOnly    bool      `json:"readOnly,omitempty"`
	Propagation string    `json:"propagation,omitempty"` // private, rprivate, slave …; empty: rprivate (mount_namespaces(7))
	Recursive   Recursion `json:"recursive,omitempty"`   // of a bind mount
	// MakeSource makes a directory of a source that is missing, as -v does and --mount doesn't.
	MakeSource bool `json:"makeSource,omitempty"`
	// Options are further words of mount(8): nosuid, nodev, exec … of a bind mount; those and size=, mode= … of a tmpfs.
	Options []string `json:"options,omitempty"`
	// NoLinks: no symbolic link is followed on the way to the source of a bind mount, which was judged as it is.
	NoLinks bool   `json:"noLinks,omitempty"`
	Subpath string `json:"subpath,omitempty"` // below a volume or in an image: what is mounted in place of the whole
	NoCopy  bool   `json:"noCopy,omitempty"`  // of a volume: it doesn't begin with what the image has at the target
	// Labels, Driver and DriverOptions are of a volume that is made because it isn't there.
	Labels        map[string]string `json:"labels,omitempty"`
	Driver        string            `json:"driver,omitempty"`
	DriverOptions map[string]string `json:"driverOptions,omitempty"`
	Relabel       string            `json:"relabel,omitempty"` // z or Z: an SELinux label that all containers share, or of this one's own
	// IDMap shows the files as if they belonged to the user of the container, who is their owner on the host.
	IDMap  bool   `json:"idmap,omitempty"`
	Form   Form   `json:"form"`
	Dir    string `json:"dir,omitempty"`    // of a volume of version 2: its directory below the container's
	Origin string `json:"origin,omitempty"` // the flag as typed
}

// Recursion says what of the mounts below a bind mount's source comes along.
type Recursion string

// Recursions of a bind mount, in the words of --mount bind-recursive.
const (
	Recursive         Recursion = ""         // all, read-only if the mount is
	RecursiveDisabled Recursion = "disabled" // none
	RecursiveWritable Recursion = "writable" // all, not made read-only
	RecursiveReadOnly Recursion = "readonly" // all, read-only, or it is an error
)

// Form is the flag by which a mount was asked for: each form has its own place in Docker's answers.
type Form string

// Forms of mounts.
const (
	FormVolume Form = "volume" // -v
	FormMount  Form = "mount"  // --mount
	FormTmpfs  Form = "tmpfs"  // --tmpfs
	FormImage  Form = "image"  // none: the image's VOLUME
	FormFrom   Form = "from"   // --volumes-from
)

var propagations = []string{"private", "rprivate", "slave", "rslave", "shared", "rshared"}

// Anonymous reports whether it is a volume that is made for this container alone.
func (m *Mount) Anonymous() bool { return m.Type == Volume && m.Source == "" }

// PropagationWord is the mount's propagation in a word that is never empty for a bind mount.
func (m *Mount) PropagationWord() string { return first(m.Propagation, "rprivate") }

// Mode is the third part of -v in Docker's words ("ro,rslave"), empty if there was none.
func (m *Mount) Mode() string {
	var words []string
	if m.ReadOnly {
		words = append(words, "ro")
	}
	if m.Propagation != "" {
		words = append(words, m.Propagation)
	}
	if m.NoCopy {
		words = append(words, "nocopy")
	}
	if m.Relabel != "" {
		words = append(words, m.Relabel)
	}
	if m.IDMap {
		words = append(words, "idmap")
	}
	return strings.Join(append(words, m.Options...), ",")
}

// Volume is the mount as -v says it: [SOURCE:]TARGET[:OPTIONS].
func (m *Mount) Volume() string {
	text := m.Source + ":" + m.Target
	if m.Anonymous() {
		text = m.Target
	}
	if mode := m.Mode(); mode != "" {
		text += ":" + mode
	}
	return text
}

// target checks the place of a mount. The root itself is none: a mount over it would hide all that was set up there.
func target(text string) (string, error) {
	if !path.IsAbs(text) || path.Clean(text) == "/" || strings.ContainsRune(text, 0) {
		return "", fmt.Errorf("the target %q must be an absolute path, and not /: destination can't be '/'", text)
	}
	return path.Clean(text), nil
}

// uniqueMounts drops a mount that was asked for twice, and refuses two different ones on one target.
func uniqueMounts(mounts []Mount) ([]Mount, error) {
	var out []Mount
	for _, m := range mounts {
		i := slices.IndexFunc(out, func(o Mount) bool { return o.Target == m.Target })
		if i < 0 {
			out = append(out, m)
			continue
		}
		a, b := out[i], m
		// The same in other words (-v and --mount of one directory) contradicts nothing.
		a.Origin, b.Origin, a.Form, b.Form = "", "", "", ""
		a.MakeSource, b.MakeSource = false, false
		if !a.equal(b) {
			return nil, Invalid("duplicate mount point %s: %s and %s", m.Target, out[i].Origin, m.Origin)
		}
	}
	return out, nil
}

func (m Mount) equal(o Mount) bool {
	return slices.Equal(m.Options, o.Options) && maps.Equal(m.Labels, o.Labels) && maps.Equal(m.DriverOptions, o.DriverOptions) &&
		m.Type == o.Type && m.Source == o.Source && m.Target == o.Target && m.ReadOnly == o.ReadOnly &&
		m.PropagationWord() == o.PropagationWord() && m.Recursive == o.Recursive && m.Subpath == o.Subpath && m.NoCopy == o.NoCopy &&
		m.NoLinks == o.NoLinks && m.Driver == o.Driver && m.Relabel == o.Relabel && m.IDMap == o.IDMap
}
