package container

import (
	"encoding/csv"
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"
)

// MountType is what is mounted.
type MountType string

// Types of mounts.
const (
	Bind  MountType = "bind"  // a file or directory of the host
	Tmpfs MountType = "tmpfs" // memory
)

// Mount is one mount that was asked for.
type Mount struct {
	Type   MountType `json:"type"`
	Source string    `json:"source,omitempty"` // absolute path on the host
	Target string    `json:"target"`           // absolute path in the container, clean, never "/"
	// ReadOnly holds for the mount and, unless Recursive says otherwise, for those below it.
	ReadOnly    bool      `json:"readOnly,omitempty"`
	Propagation string    `json:"propagation,omitempty"` // private, rprivate, slave …; empty: rprivate (mount_namespaces(7))
	Recursive   Recursion `json:"recursive,omitempty"`   // of a bind mount
	// MakeSource makes a directory of a source that is missing, as -v does and --mount doesn't.
	MakeSource bool `json:"makeSource,omitempty"`
	// Options are further words of mount(8): nosuid, nodev, exec … of a bind mount; those and size=, mode= … of a tmpfs.
	Options []string `json:"options,omitempty"`
	Form    Form     `json:"form"`
	Origin  string   `json:"origin,omitempty"` // the flag as typed
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
)

var propagations = []string{"private", "rprivate", "slave", "rslave", "shared", "rshared"}

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
	return strings.Join(append(words, m.Options...), ",")
}

// Volume is the mount as -v says it: SOURCE:TARGET[:OPTIONS].
func (m *Mount) Volume() string {
	text := m.Source + ":" + m.Target
	if mode := m.Mode(); mode != "" {
		text += ":" + mode
	}
	return text
}

// target checks the place of a mount. The root itself is none: a mount over it would hide all that was set up there.
func target(text string) (string, error) {
	if !path.IsAbs(text) || path.Clean(text) == "/" || strings.ContainsRune(text, 0) {
		return "", fmt.Errorf("the target %q must be an absolute path, and not /", text)
	}
	return path.Clean(text), nil
}

// ParseVolume reads -v SOURCE:TARGET[:OPTIONS]. A source that begins with a dot is below dir.
func ParseVolume(text, dir string) (Mount, error) {
	fail := func(err error) (Mount, error) { return Mount{}, err }
	parts := strings.Split(text, ":")
	if len(parts) == 1 {
		return fail(Unsupported("-v %s: anonymous volumes are not supported yet: give a directory of the host, as in -v /srv/data:%s", text,
			text))
	}
	if len(parts) > 3 {
		return fail(Invalid("-v %s: want SOURCE:TARGET[:OPTIONS]", text))
	}
	m := Mount{Type: Bind, Source: parts[0], Form: FormVolume, MakeSource: true, Origin: "-v " + text}
	if strings.HasPrefix(m.Source, "./") || strings.HasPrefix(m.Source, "../") || m.Source == "." || m.Source == ".." {
		m.Source = path.Join(dir, m.Source)
	}
	if !path.IsAbs(m.Source) {
		return fail(Unsupported("-v %s: named volumes are not supported yet: give an absolute path, or ./%s for one in this directory", text,
			m.Source))
	}
	m.Source = path.Clean(m.Source)
	var err error
	if m.Target, err = target(parts[1]); err != nil {
		return fail(Invalid("-v %s: %w", text, err))
	}
	if len(parts) < 3 {
		return m, nil
	}
	access := ""
	for opt := range strings.SplitSeq(parts[2], ",") {
		switch opt {
		case "ro", "readonly", "rw":
			m.ReadOnly = opt != "rw"
			if access != "" && (access == "rw") == m.ReadOnly {
				return fail(Invalid("-v %s: ro and rw contradict each other: leave one out", text))
			}
			access = opt
		case "nocopy", "cached", "delegated", "consistent", "z", "Z", "":
		case "private", "rprivate", "slave", "rslave", "shared", "rshared":
			m.Propagation = opt
		case "bind":
			m.Recursive = RecursiveDisabled
		case "rbind":
			m.Recursive = Recursive
		case "noexec", "nosuid", "nodev", "exec", "suid", "dev":
			m.Options = append(m.Options, opt)
		default:
			return fail(Invalid("-v %s: unknown option %q: want ro, rw, a propagation such as rslave, nosuid, nodev or noexec", text, opt))
		}
	}
	return m, nil
}

// ParseTmpfs reads --tmpfs PATH[:OPTIONS].
func ParseTmpfs(text string) (Mount, error) {
	dest, options, _ := strings.Cut(text, ":")
	if !path.IsAbs(dest) {
		return Mount{}, Invalid("--tmpfs %s: %q is not an absolute path", text, dest)
	}
	m := Mount{Type: Tmpfs, Form: FormTmpfs, Origin: "--tmpfs " + text}
	var err error
	if m.Target, err = target(dest); err != nil {
		return Mount{}, Invalid("--tmpfs %s: %w", text, err)
	}
	if options != "" {
		m.Options = strings.Split(options, ",")
	}
	m.ReadOnly = slices.Contains(m.Options, "ro")
	return m, nil
}

// ParseMount reads --mount type=bind|tmpfs,source=…,target=…[,readonly][,…].
func ParseMount(text string) (Mount, error) {
	fail := func(err error) (Mount, error) { return Mount{}, Invalid("--mount %s: %w", text, err) }
	fields, err := csv.NewReader(strings.NewReader(text)).Read()
	if err != nil {
		return fail(fmt.Errorf("%s", csvReason(err)))
	}
	m := Mount{Type: "volume", Form: FormMount, Origin: "--mount " + text}
	var dest string
	var size, mode string
	for _, f := range fields {
		key, value, hasValue := strings.Cut(f, "=")
		if err := m.set(strings.ToLower(key), value, hasValue, &dest, &size, &mode); err != nil {
			return fail(err)
		}
	}
	for _, opt := range []string{size, mode} {
		if opt != "" {
			m.Options = append(m.Options, opt)
		}
	}
	if m.Target, err = target(dest); err != nil {
		return fail(err)
	}
	switch m.Type {
	case Bind:
		switch {
		case len(m.Options) > 0:
			return fail(fmt.Errorf("tmpfs options are for type=tmpfs"))
		case !path.IsAbs(m.Source):
			return fail(fmt.Errorf("the source %q must be an absolute path", m.Source))
		}
		m.Source = path.Clean(m.Source)
	case Tmpfs:
		if m.Source != "" {
			return fail(fmt.Errorf("a tmpfs has no source"))
		}
	case "volume":
		return Mount{}, Unsupported("--mount %s: volumes are not supported yet: use type=bind or type=tmpfs", text)
	default:
		return fail(fmt.Errorf("unknown type %q: want bind or tmpfs", m.Type))
	}
	return m, nil
}

// set takes one KEY=VALUE of --mount.
func (m *Mount) set(key, value string, hasValue bool, dest, size, mode *string) error {
	switch key {
	case "type":
		m.Type = MountType(value)
	case "source", "src":
		m.Source = value
	case "target", "destination", "dst":
		*dest = value
	case "readonly", "ro":
		m.ReadOnly = true
		if hasValue {
			v, err := strconv.ParseBool(value)
			if err != nil {
				return fmt.Errorf("%s: want true or false", key)
			}
			m.ReadOnly = v
		}
	case "bind-propagation":
		if !slices.Contains(propagations, value) {
			return fmt.Errorf("unknown bind-propagation %q", value)
		}
		m.Propagation = value
	case "bind-recursive":
		if !slices.Contains([]string{"enabled", "disabled", "writable", "readonly"}, value) {
			return fmt.Errorf("unknown bind-recursive %q", value)
		}
		m.Recursive = Recursion(strings.TrimPrefix(value, "enabled"))
	case "bind-nonrecursive":
		m.Recursive = RecursiveDisabled
	case "tmpfs-size":
		n, err := ParseSize("mount", value)
		if err != nil {
			return fmt.Errorf("invalid tmpfs-size %q", value)
		}
		*size = fmt.Sprintf("size=%d", n)
	case "tmpfs-mode":
		n, err := strconv.ParseUint(value, 8, 12)
		if err != nil {
			return fmt.Errorf("invalid tmpfs-mode %q: want an octal mode such as 1777", value)
		}
		*mode = fmt.Sprintf("mode=%o", n)
	case "consistency":
	default:
		return fmt.Errorf("unexpected key %q", key)
	}
	return nil
}

// csvReason is what is wrong with a line of comma-separated values, without the words of Go's package.
func csvReason(err error) string {
	if strings.Contains(err.Error(), "EOF") {
		return "it is empty"
	}
	return "a quotation mark without its pair"
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
		a.Origin, b.Origin, a.Form, b.Form = "", "", "", ""
		a.MakeSource, b.MakeSource = false, false
		if !a.equal(b) {
			return nil, Invalid("duplicate mount point %s: %s and %s", m.Target, out[i].Origin, m.Origin)
		}
	}
	return out, nil
}

func (m Mount) equal(o Mount) bool {
	same := slices.Equal(m.Options, o.Options)
	m.Options, o.Options = nil, nil
	return same && m.Type == o.Type && m.Source == o.Source && m.Target == o.Target && m.ReadOnly == o.ReadOnly &&
		m.PropagationWord() == o.PropagationWord() && m.Recursive == o.Recursive
}
