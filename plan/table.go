package plan

import (
	"path"
	"slices"
	"strings"
)

// A Mounted is one mount of a [Table].
type Mounted struct {
	// Type is that of the file system; "bind" for files of the host, "mask" for what hides a path, "device" and "terminal" for nodes,
	// "" for what this package can't follow.
	Type string
	// Source is a path of the host for "bind", and the source that the file system was given for others.
	Source string
	// Sub is the directory of the file system that is mounted: "" for its root, "/sys" for a read-only clone of /proc/sys.
	Sub string
	// Layers are the directories of the host that an overlay shows, top first, as the kernel parts them; Upper is where changes go.
	Layers []string
	Upper  string
	// ReadOnly goes for this mount, ReadOnlyBelow for those that came with it from the host.
	ReadOnly, ReadOnlyBelow bool
	Recursive               bool // with the host's mounts below it
	// Private says that nothing mounted below it appears on the host.
	Private bool
	Copied  bool // of what is in the container already, such as a read-only clone of a part of it
	Options []string
	Step    int // index of the step that made it

	parent   *Mounted
	at       string // where in the parent, "" for on top of it
	children []*Mounted
}

// A Table is the mount table that a plan leaves to the program: what the kernel would show in /proc/self/mountinfo, as far as the
// steps tell. It doesn't know the files of an image: a symbolic link there may lead a target elsewhere, but inside the root.
type Table struct {
	root    *Mounted
	entered bool              // the root has changed
	work    string            // of RootDir
	private bool              // the host's mounts were made private before anything was attached
	links   map[string]string // made by the plan
	saved   map[string]*Mounted
	device  map[string]string // descriptor → "c 1:3"
	files   map[string]string // descriptor → the file of the host that was opened

	// Outside are the steps that would make or change files of the host, because the root hasn't changed yet: indices.
	Outside []int
	// Spread are the steps that attach something to a mount from which it spreads to the host.
	Spread []int
}

// Table plays the mounts of a plan in order.
func (p *Plan) Table() *Table {
	t := &Table{links: map[string]string{}, saved: map[string]*Mounted{}, device: map[string]string{}, files: map[string]string{}}
	t.root = &Mounted{Type: "bind", Source: "/", Recursive: true, Step: -1}
	for i, s := range p.Steps {
		t.step(i, s)
	}
	return t
}

// Entered reports whether the root is another than the host's.
func (t *Table) Entered() bool { return t.entered }

// Path is where the mount is in the container.
func (m *Mounted) Path() string {
	if m.parent == nil {
		return "/"
	}
	return path.Join(m.parent.Path(), m.at)
}

// on returns the mount that is attached to a directory of m, or nil.
func (m *Mounted) on(at string) *Mounted {
	for _, c := range slices.Backward(m.children) {
		if c.at == at {
			return c
		}
	}
	return nil
}

// Resolve returns the mount that a path of the container leads to, and the path within it ("" for its root).
func (t *Table) Resolve(name string) (m *Mounted, rest string) {
	// What is mounted on "/" itself stays out of sight: lookups begin at the root that the process has (path_resolution(7)).
	return t.resolve(name, 40)
}

func (t *Table) resolve(name string, links int) (*Mounted, string) {
	m, rest := t.root, ""
	parts := strings.Split(strings.Trim(path.Clean("/"+name), "/"), "/")
	for i, part := range parts {
		if part == "" {
			break
		}
		rest += "/" + part
		for c := m.on(rest); c != nil; c = m.on("") {
			m, rest = c, ""
		}
		if target, ok := t.links[path.Join(m.Path(), rest)]; ok && links > 0 && rest != "" {
			here := path.Dir(path.Join(m.Path(), rest))
			if path.IsAbs(target) {
				here = ""
			}
			return t.resolve(path.Join("/", here, target, strings.Join(parts[i+1:], "/")), links-1)
		}
	}
	return m, rest
}

// Mounts lists what can be reached by a name, from the root on; what lies under another mount is not among it.
func (t *Table) Mounts() []*Mounted {
	var out []*Mounted
	var walk func(m *Mounted)
	walk = func(m *Mounted) {
		if seen, rest := t.Resolve(m.Path()); seen == m && rest == "" {
			out = append(out, m)
		}
		for _, c := range m.children { // also of one that is covered: what covers it is mounted on it
			walk(c)
		}
	}
	walk(t.root)
	return out
}

// attach puts a mount at a path.
func (t *Table) attach(i int, m *Mounted, target string) {
	parent, rest := t.Resolve(target)
	if parent == m {
		return // onto itself: the kernel refuses it (ELOOP)
	}
	if m.parent != nil { // one that is attached already moves, with all that is below
		m.parent.children = slices.DeleteFunc(m.parent.children, func(c *Mounted) bool { return c == m })
	}
	m.parent, m.at = parent, rest
	parent.children = append(parent.children, m)
	if !t.private || parent.Type == "bind" && !parent.Private && t.entered {
		t.Spread = append(t.Spread, i)
	}
}

// copy clones the mounts at a path, as open_tree(2) does.
func (t *Table) copy(i int, name string, recursive bool) *Mounted {
	from, rest := t.Resolve(name)
	m := *from
	m.Sub, m.Step, m.Copied, m.parent, m.at, m.children = from.Sub+rest, i, true, nil, "", nil
	if from.Type == "bind" {
		m.Source, m.Sub = path.Join(from.Source, rest), ""
	}
	if recursive {
		for _, c := range from.children {
			if below, ok := strings.CutPrefix(c.at, rest); ok && (below == "" || below[0] == '/' || rest == "") {
				n := t.copyOf(c, i)
				n.parent, n.at = &m, below
				m.children = append(m.children, n)
			}
		}
	}
	return &m
}

func (t *Table) copyOf(m *Mounted, i int) *Mounted {
	n := *m
	n.Step, n.children = i, nil
	for _, c := range m.children {
		k := t.copyOf(c, i)
		k.parent = &n
		n.children = append(n.children, k)
	}
	return &n
}

// enter makes the mount at a path the root. A directory that no step has mounted is the host's.
func (t *Table) enter(i int, name string) {
	if name == "." {
		name = t.work
	}
	m, rest := t.Resolve(name)
	if rest != "" || m == t.root {
		m = t.copy(i, name, false)
	}
	m.parent, m.at, m.Copied = nil, "", false
	t.root, t.entered = m, true
	t.links = map[string]string{} // they were made below the old root, if anywhere
}

// inside notes a step that names a file before the names of the container are what is looked up.
func (t *Table) inside(i int) {
	if !t.entered && t.work == "" {
		t.Outside = append(t.Outside, i)
	}
}

// set changes attributes of a mount, and of those below it.
func (m *Mounted) set(set, clear, recSet, recClear []string) {
	has := func(words []string) bool { return slices.Contains(words, "ro") }
	switch {
	case has(clear), has(recClear): // the kernel sets after it has cleared, but nobody names a flag in both
		m.ReadOnly = false
	case has(set), has(recSet):
		m.ReadOnly = true
	}
	if has(recSet) || has(recClear) {
		m.ReadOnlyBelow = has(recSet) && !has(recClear)
		for _, c := range m.children {
			c.set(nil, nil, recSet, recClear)
		}
	}
}

// spread notes how mounts below m are passed on.
func (m *Mounted) spread(words []string) {
	for _, word := range words {
		switch strings.TrimPrefix(word, "r") {
		case "private", "slave", "unbindable":
			m.Private = true
		case "shared":
			m.Private = false
		}
	}
}

func (t *Table) step(i int, s Step) {
	switch o := s.Op.(type) {
	case *Open:
		t.files[o.Save] = o.Path
	case *OpenTree:
		switch {
		case o.Mounts != "":
			t.saved[o.Save] = &Mounted{Type: "bind", Source: UnderRoot(t.files[o.Mounts], o.Path), Recursive: o.Recursive, Step: i}
		case o.Device != "":
			t.saved[o.Save], t.device[o.Save] = &Mounted{Type: "device", Source: o.Path, Step: i}, o.Device
		case s.Lane == Child && t.entered:
			t.saved[o.Save] = t.copy(i, o.Path, o.Recursive) // a path of the container
		default:
			t.saved[o.Save] = &Mounted{Type: "bind", Source: path.Join(o.Path, o.Beneath), Recursive: o.Recursive, Step: i}
		}
		t.saved[o.Save].ReadOnly = t.saved[o.Save].ReadOnly || o.Readonly
	case *FSMount:
		m := &Mounted{
			Type: o.Type, Source: o.Source, Options: slices.Concat(o.Options, o.Flags), Step: i,
			ReadOnly: slices.Contains(o.Attrs, "ro"), Private: true,
		}
		m.spread(o.Propagation)
		if o.Type == "overlay" {
			m.overlay(o.Options)
		}
		if o.Save != "" {
			t.saved[o.Save] = m
		}
		if o.Target != "" {
			t.inside(i)
			t.attach(i, m, o.Target)
		}
	case *MoveMount:
		t.inside(i)
		m := t.saved[o.From]
		if m == nil {
			m = &Mounted{Source: o.From, Step: i}
		}
		if m.Type == "device" {
			m = t.copyOf(m, i)
			m.parent = nil
		}
		m.set(o.Set, o.Clear, o.RecSet, o.RecClear)
		m.spread(o.Propagation)
		t.attach(i, m, o.Target)
	case *Remount:
		m, rest := t.saved[o.From], ""
		if m == nil {
			t.inside(i)
			if m, rest = t.Resolve(o.Target); rest != "" {
				return // nothing is mounted there: the kernel refuses it (EINVAL)
			}
		}
		m.set(o.Set, o.Clear, o.RecSet, o.RecClear)
		m.spread(o.Propagation)
		m.Options = slices.Concat(m.Options, o.Options)
	case *MaskPath:
		t.inside(i)
		m := &Mounted{Type: "mask", ReadOnly: true, Private: true, Step: i}
		if d, known := t.device[o.Null]; known && d != nullDevice {
			m.Type = "device" // what is in its place is no wall
		} else if from := t.saved[o.Null]; from != nil && from.Type == "bind" {
			m = t.copyOf(from, i)
			m.parent = nil
		}
		t.attach(i, m, o.Path)
	case *ReadonlyPath:
		t.inside(i)
		m := t.copy(i, o.Path, true)
		m.set(nil, nil, []string{"ro"}, nil)
		t.attach(i, m, o.Path)
	case *BindConsole:
		t.inside(i)
		t.attach(i, &Mounted{Type: "terminal", Private: true, Step: i}, "/dev/console")
	case *Mknod:
		t.inside(i)
		if o.Save != "" {
			t.device[o.Save] = o.device()
		}
	case *Mkdir:
		t.inside(i)
	case *Symlink:
		t.inside(i)
		t.links[path.Clean("/"+o.Path)] = o.Target
	default:
		t.rootStep(i, s.Op)
	}
}

// rootStep plays the steps that make and enter the root file system.
func (t *Table) rootStep(i int, op Op) {
	switch o := op.(type) {
	case *Mount:
		t.classic(i, o)
	case *Overlay:
		m := &Mounted{Type: "overlay", Options: o.Options, Step: i, Private: true}
		for _, l := range o.Lower {
			m.Layers = append(m.Layers, split(o.Dir, l, o.Append)...)
		}
		if o.Upper != "" {
			m.Upper = below(o.Dir, o.Upper)
		}
		t.attach(i, m, o.Target)
	case *RootMount:
		t.attach(i, &Mounted{Type: "bind", Source: o.Source, Recursive: true, Step: i}, o.Target)
	case *RootDir:
		t.work = o.Path
	case *PivotRoot:
		t.enter(i, o.Root)
	case *MoveRoot:
		t.enter(i, o.Root)
	case *Chroot:
		t.enter(i, o.Root)
	}
}

// classic plays mount(2).
func (t *Table) classic(i int, o *Mount) {
	has := func(flag string) bool { return slices.Contains(o.Flags, flag) }
	switch {
	case has("bind") && !has("remount"):
		m := &Mounted{Type: "bind", Source: path.Clean(o.Source), Recursive: has("rec"), Private: t.private, Step: i}
		m.ReadOnly = has("ro") // older kernels take it with a second call only, and then it is one
		t.attach(i, m, o.Target)
	case has("remount"):
		if m, rest := t.Resolve(o.Target); rest == "" {
			m.ReadOnly = has("ro")
		}
	case o.Type == "" && o.Source == "":
		m, _ := t.Resolve(o.Target)
		m.spread(o.Flags)
		if m == t.root && !t.entered {
			// Only if it goes for all of them is the host's mount of the container's directory private, too.
			t.private = m.Private && has("rec")
		}
	default:
		m := &Mounted{
			Type: o.Type, Source: o.Source, Options: slices.Concat(o.Flags, nonEmpty(o.Data)), ReadOnly: has("ro"), Private: true,
			Step: i,
		}
		if o.Type == "overlay" {
			m.overlay(strings.Split(o.Data, ","))
		}
		t.attach(i, m, o.Target)
	}
}

// overlay reads the directories from the options of an overlay.
func (m *Mounted) overlay(options []string) {
	for _, opt := range options {
		key, value, _ := strings.Cut(opt, "=")
		switch key {
		case "lowerdir", "datadir":
			m.Layers = append(m.Layers, split("/", value, false)...)
		case "lowerdir+", "datadir+":
			m.Layers = append(m.Layers, below("/", value))
		case "upperdir":
			m.Upper = below("/", value)
		}
	}
}

// split parts layers as the kernel does that reads them in one string.
func split(dir, layers string, whole bool) []string {
	if whole {
		return []string{below(dir, layers)}
	}
	var out []string
	for l := range strings.SplitSeq(layers, ":") {
		if l != "" {
			out = append(out, below(dir, l))
		}
	}
	return out
}

func below(dir, name string) string {
	if path.IsAbs(name) {
		return path.Clean(name)
	}
	return path.Join(dir, name)
}
