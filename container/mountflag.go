package container

import (
	"encoding/csv"
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"
)

// ParseVolume reads -v [SOURCE:]TARGET[:OPTIONS]. A source that begins with a slash is a path of the host, one that begins with a dot is
// below dir, any other is the name of a volume; without one the volume is made for this container.
func ParseVolume(text, dir string) (Mount, error) {
	fail := func(err error) (Mount, error) { return Mount{}, Invalid("-v %s: %w", text, err) }
	parts := strings.Split(text, ":")
	m := Mount{Type: Volume, Form: FormVolume, Origin: "-v " + text}
	if strings.ContainsRune(text, 0) {
		return fail(fmt.Errorf("a NUL in it"))
	}
	var err error
	switch len(parts) {
	case 1:
		if m.Target, err = target(parts[0]); err != nil {
			return fail(err)
		}
		return m, nil
	case 2, 3:
	default:
		return fail(fmt.Errorf("want [SOURCE:]TARGET[:OPTIONS]"))
	}
	anonymous := len(parts) == 2 && path.IsAbs(parts[0]) && !path.IsAbs(parts[1]) && parts[1] != "" && onlyModes(parts[1])
	if anonymous {
		parts = []string{"", parts[0], parts[1]} // -v /data:nocopy
	}
	m.Source = parts[0]
	if strings.HasPrefix(m.Source, "./") || strings.HasPrefix(m.Source, "../") || m.Source == "." || m.Source == ".." {
		m.Source = path.Join(dir, m.Source)
	}
	switch {
	case path.IsAbs(m.Source):
		// As Docker's -v always did it, a directory that isn't there is made; --mount does so only where it is asked to.
		m.Type, m.MakeSource, m.Source = Bind, true, path.Clean(m.Source)
	case m.Source == "" && !anonymous:
		return fail(fmt.Errorf("the source before the colon is missing"))
	case !anonymous:
		if err := volumeName(m.Source); err != nil {
			return fail(err)
		}
	}
	if m.Target, err = target(parts[1]); err != nil {
		return fail(err)
	}
	if len(parts) == 3 {
		if err := m.modes(parts[2]); err != nil {
			return fail(err)
		}
	}
	return m, nil
}

// onlyModes reports whether a text can be the options of -v and no place.
func onlyModes(text string) bool { m := Mount{Type: Volume}; return m.modes(text) == nil }

// modes reads the options of -v.
func (m *Mount) modes(text string) error {
	access := ""
	for opt := range strings.SplitSeq(text, ",") {
		switch opt {
		case "ro", "readonly", "rw":
			m.ReadOnly = opt != "rw"
			if access != "" && (access == "rw") == m.ReadOnly {
				return fmt.Errorf("ro and rw contradict each other: leave one out")
			}
			access = opt
		case "nocopy":
			m.NoCopy = m.Type == Volume
		// Words of Docker Desktop, which mean nothing on Linux, and are taken for the sake of files that have them.
		case "cached", "delegated", "consistent", "":
		case "z", "Z":
			m.Relabel = opt
		case "idmap":
			m.IDMap = true
		case "private", "rprivate", "slave", "rslave", "shared", "rshared":
			if m.Type != Bind {
				return fmt.Errorf("invalid mode: %s: it is for a directory of the host, nothing is mounted below a volume", opt)
			}
			m.Propagation = opt
		case "bind":
			m.Recursive = RecursiveDisabled
		case "rbind":
			m.Recursive = Recursive
		case "noexec", "nosuid", "nodev", "exec", "suid", "dev":
			m.Options = append(m.Options, opt)
		default:
			return fmt.Errorf("unknown option %q: want ro, rw, nocopy, z, Z, idmap, a propagation such as rslave, nosuid, nodev or noexec", opt)
		}
	}
	return nil
}

// volumeName refuses what can't be a volume's name, before anybody is asked whether there is such a volume.
func volumeName(name string) error {
	for i := range len(name) {
		c := name[i]
		alnum := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
		if !alnum && (i == 0 || !strings.ContainsRune("_.-", rune(c))) {
			return fmt.Errorf("%q includes invalid characters for a local volume name, only \"[a-zA-Z0-9][a-zA-Z0-9_.-]\" are allowed. If you "+
				"intended to pass a host directory, use absolute path", name)
		}
	}
	// Docker's pattern has no name of one character, and a directory's name has at most 255 (NAME_MAX).
	if len(name) < 2 || len(name) > 255 {
		return fmt.Errorf("the volume name %.60q has %d characters, want 2 to 255", name, len(name))
	}
	return nil
}

// ParseTmpfs reads --tmpfs PATH[:OPTIONS].
func ParseTmpfs(text string) (Mount, error) {
	dest, options, _ := strings.Cut(text, ":")
	if !path.IsAbs(dest) {
		return Mount{}, Invalid("--tmpfs %s: %q is not an absolute path: mount path must be absolute", text, dest)
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

// ParseMount reads --mount [type=volume|bind|tmpfs|image,][source=…,]target=…[,readonly][,…].
func ParseMount(text string) (Mount, error) {
	fail := func(err error) (Mount, error) { return Mount{}, Invalid("--mount %s: %w", text, err) }
	// As Docker: a value with a comma in it stands in quotation marks.
	fields, err := csv.NewReader(strings.NewReader(text)).Read()
	if err != nil {
		return fail(fmt.Errorf("%s", csvReason(err)))
	}
	w := mountParser{m: Mount{Type: Volume, Form: FormMount, Origin: "--mount " + text}}
	for _, f := range fields {
		key, value, hasValue := strings.Cut(f, "=")
		if err := w.set(strings.ToLower(strings.TrimSpace(key)), value, hasValue); err != nil {
			return fail(err)
		}
	}
	if err := w.finish(); err != nil {
		return fail(err)
	}
	return w.m, nil
}

// mountParser is a --mount that is being read.
type mountParser struct {
	m          Mount
	size, mode string
	dest       string
	group      string // of the first option that is for one type only: "bind", "volume", "tmpfs", "image"
}

// set takes one KEY=VALUE.
func (w *mountParser) set(key, value string, hasValue bool) error {
	m := &w.m
	if group, _, ok := strings.Cut(key, "-"); ok && slices.Contains([]string{"bind", "volume", "tmpfs", "image"}, group) && w.group == "" {
		w.group = group
	}
	switch key {
	case "readonly", "ro":
		return boolean(&m.ReadOnly, key, value, hasValue)
	case "volume-nocopy":
		return boolean(&m.NoCopy, key, value, hasValue)
	case "idmap":
		return boolean(&m.IDMap, key, value, hasValue)
	case "bind-create-src":
		return boolean(&m.MakeSource, key, value, hasValue)
	case "bind-nonrecursive":
		var alone bool
		if err := boolean(&alone, key, value, hasValue); err != nil {
			return err
		}
		if alone {
			m.Recursive = RecursiveDisabled
		}
		return nil
	}
	if !hasValue {
		return fmt.Errorf("invalid field '%s' must be a key=value pair", key)
	}
	switch key {
	case "type":
		m.Type = MountType(strings.ToLower(value))
	case "source", "src":
		m.Source = value
	case "target", "destination", "dst":
		w.dest = value
	case "bind-propagation":
		if !slices.Contains(propagations, value) {
			return fmt.Errorf("unknown bind-propagation %q: want one of %s", value, strings.Join(propagations, ", "))
		}
		m.Propagation = value
	case "bind-recursive":
		if !slices.Contains([]string{"enabled", "disabled", "writable", "readonly"}, value) {
			return fmt.Errorf("unknown bind-recursive %q: want enabled, disabled, writable or readonly", value)
		}
		// It is so anyway, and kept as nothing: who says it and who doesn't have the same mount.
		m.Recursive = Recursion(strings.TrimPrefix(value, "enabled"))
	case "volume-subpath", "image-subpath":
		return m.below(value)
	case "volume-label":
		name, label, _ := strings.Cut(value, "=")
		put(&m.Labels, name, label)
	case "volume-driver":
		m.Driver = value
	case "volume-opt":
		name, option, _ := strings.Cut(value, "=")
		put(&m.DriverOptions, name, option)
	case "tmpfs-size":
		n, err := ParseSize("mount", value)
		if err != nil {
			return fmt.Errorf("invalid tmpfs-size %q: want a size such as 64m", value)
		}
		w.size = fmt.Sprintf("size=%d", n)
	case "tmpfs-mode":
		// Twelve bits: permissions, set-user-ID, set-group-ID, sticky (inode(7)).
		n, err := strconv.ParseUint(value, 8, 12)
		if err != nil {
			return fmt.Errorf("invalid tmpfs-mode %q: want an octal mode such as 1777", value)
		}
		w.mode = fmt.Sprintf("mode=%o", n)
	// As above: of Docker Desktop.
	case "consistency":
	default:
		return fmt.Errorf("unexpected key '%s' in '%s=%s'", key, key, value)
	}
	return nil
}

func boolean(to *bool, key, value string, hasValue bool) error {
	if !hasValue {
		*to = true
		return nil
	}
	v, err := strconv.ParseBool(value)
	if err != nil {
		return fmt.Errorf("invalid value for %s: %q: want true or false", key, value)
	}
	*to = v
	return nil
}

func put(m *map[string]string, key, value string) {
	if *m == nil {
		*m = map[string]string{}
	}
	(*m)[key] = value
}

// below takes a path below a volume or an image. It is clean, so that one place has one name; links in it are the kernel's business.
func (m *Mount) below(sub string) error {
	clean := path.Clean(sub)
	if sub == "" || path.IsAbs(sub) || clean == ".." || strings.HasPrefix(clean, "../") || strings.ContainsRune(sub, 0) {
		return fmt.Errorf("the subpath %q must be a relative path within the volume", sub)
	}
	m.Subpath = clean
	if clean == "." {
		m.Subpath = ""
	}
	return nil
}

// finish looks at the whole when all is read.
func (w *mountParser) finish() (err error) {
	m := &w.m
	for _, opt := range []string{w.size, w.mode} {
		if opt != "" {
			m.Options = append(m.Options, opt)
		}
	}
	switch m.Type {
	case Bind, Tmpfs, Volume, Layers:
	default:
		return fmt.Errorf("unknown type %q: want volume, bind, tmpfs or image", m.Type)
	}
	if w.dest == "" {
		return fmt.Errorf("target is required")
	}
	if m.Target, err = target(w.dest); err != nil {
		return err
	}
	if w.group != "" && w.group != string(m.Type) {
		return fmt.Errorf("cannot mix '%s-*' options with mount type '%s'", w.group, m.Type)
	}
	if m.IDMap && m.Type != Bind && m.Type != Volume {
		return fmt.Errorf("idmap is for type=bind and type=volume")
	}
	switch m.Type {
	case Bind:
		return w.finishBind()
	case Tmpfs:
		if m.Source != "" {
			return fmt.Errorf("a tmpfs has no source")
		}
	case Volume:
		if m.Source != "" {
			return volumeName(m.Source)
		}
	case Layers:
		if m.Source == "" {
			return fmt.Errorf("source is required: the image whose files are wanted")
		}
		m.ReadOnly = true
	}
	return nil
}

func (w *mountParser) finishBind() error {
	m := &w.m
	switch {
	case m.Source == "":
		return fmt.Errorf("source is required: a path of the host")
	case !path.IsAbs(m.Source) || strings.ContainsRune(m.Source, 0):
		return fmt.Errorf("the source %q must be an absolute path", m.Source)
	case m.Recursive == RecursiveReadOnly && !m.ReadOnly:
		return fmt.Errorf("option 'bind-recursive=readonly' requires 'readonly' to be specified in conjunction")
	// mount_setattr(2) makes those read-only that are there: one that came in later, by propagation, could be written to.
	case m.Recursive == RecursiveReadOnly && m.PropagationWord() != "rprivate":
		return fmt.Errorf("option 'bind-recursive=readonly' requires 'bind-propagation=rprivate' to be specified in conjunction")
	case m.Recursive == RecursiveWritable && !m.ReadOnly:
		return fmt.Errorf("option 'bind-recursive=writable' requires 'readonly' to be specified in conjunction")
	}
	m.Source = path.Clean(m.Source)
	return nil
}

// csvReason is what is wrong with a line of comma-separated values, without the words of Go's package.
func csvReason(err error) string {
	if strings.Contains(err.Error(), "EOF") {
		return "it is empty"
	}
	return "a quotation mark without its pair"
}

// ParseVolumesFrom reads --volumes-from CONTAINER[:MODE], of which it gives the mode's effects as a mount without places.
func ParseVolumesFrom(text string) (ref string, mode Mount, err error) {
	ref, words, has := strings.Cut(text, ":")
	mode = Mount{Origin: "--volumes-from " + text}
	if ref == "" {
		return "", mode, Invalid("--volumes-from %q: the container is missing", text)
	}
	if !has {
		return ref, mode, nil
	}
	for opt := range strings.SplitSeq(words, ",") {
		switch opt {
		case "ro":
			mode.ReadOnly = true
		case "rw":
		case "z", "Z":
			mode.Relabel = opt
		case "nocopy":
			mode.NoCopy = true
		default:
			return "", mode, Invalid("--volumes-from %s: invalid mode: %q: want ro, rw, z or Z", text, opt)
		}
	}
	return ref, mode, nil
}
