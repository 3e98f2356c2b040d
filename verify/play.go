package verify

import (
	"cmp"
	"path"
	"slices"
	"strings"

	"glassbox/host"
	"glassbox/plan"
)

// The plan's mounts, played through on paper: what each step does to the tree that those before have left.

// play carries out a step on paper.
func (t *table) play(i int, op plan.Op) {
	switch o := op.(type) {
	case *plan.Mount:
		t.playMount(i, o)
	case *plan.RootMount:
		n, more := t.clone(i, o.Source, true)
		t.newRoot(i, n, o.Target, more)
		t.change(i, n, nil, nil, nil, nil, []string{"rprivate"})
	case *plan.Overlay:
		n := &node{maker: i, fstype: "overlay", source: "overlay", root: "/", attrs: map[string]attribute{}, exact: true, propStep: -1}
		if o.Append {
			for _, l := range o.Lower {
				n.options = append(n.options, "lowerdir+="+l)
			}
		} else {
			n.options = append(n.options, "lowerdir="+strings.Join(o.Lower, ":"))
		}
		if o.Upper != "" {
			n.options = append(n.options, "upperdir="+o.Upper, "workdir="+o.Work)
		}
		n.options = append(n.options, o.Options...)
		t.newRoot(i, n, o.Target, nil)
	case *plan.FSMount:
		n := &node{
			maker: i, placer: -1, fstype: o.Type, source: cmp.Or(o.Source, "none"), options: o.Options, exact: true,
			attrs: map[string]attribute{}, propStep: -1,
		}
		n.set(i, o.Attrs, nil)
		if o.Save != "" {
			t.saved[o.Save] = n
		}
		if o.Target != "" {
			t.place(i, n, o.Target, nil)
		}
		t.change(i, n, nil, nil, nil, nil, o.Propagation)
	case *plan.OpenTree:
		if o.Mounts != "" {
			break // of another container, which may be gone: that something is mounted at the target is all that can be said
		}
		n, more := t.clone(i, path.Join(o.Path, o.Beneath), o.Recursive)
		if o.Readonly {
			n.set(i, []string{"ro"}, nil)
		}
		if o.IDMap != "" {
			n.set(i, []string{"idmapped"}, nil)
		}
		t.saved[o.Save] = n
		// They hang on the clone until it is attached.
		t.nodes = append(t.nodes, more...)
	case *plan.MoveMount:
		n := t.saved[o.From]
		if n == nil { // a descriptor from elsewhere
			n = &node{maker: i, attrs: map[string]attribute{}, propStep: -1}
			t.saved[o.From] = n
		}
		var more []*node
		if n.placer < 0 {
			for _, s := range t.nodes {
				if s.kind == soft && s.placer < 0 && s.maker == n.maker {
					more = append(more, s)
				}
			}
			t.nodes = slices.DeleteFunc(t.nodes, func(s *node) bool { return slices.Contains(more, s) })
		}
		if n.placer >= 0 { // a second place for the same mount
			copied := *n
			n = &copied
			n.mount = nil
		}
		t.place(i, n, o.Target, more)
		clear := o.Clear
		if !t.v.ownUsers() { // else they stay where they are locked, which the plan can't know
			clear = slices.Concat(clear, o.Unlocked)
		}
		t.change(i, n, o.Set, clear, o.RecSet, o.RecClear, o.Propagation)
	case *plan.Remount:
		n := t.saved[o.From]
		if o.From == "" || n == nil {
			n = t.walk(t.v.mountPath(o.Target))
		}
		t.change(i, n, o.Set, o.Clear, o.RecSet, o.RecClear, o.Propagation)
		if n != nil {
			// Behind those of before, of which they take the place: see compareOptions.
			n.options = append(slices.Clone(n.options), o.Options...)
		}
	case *plan.MaskPath:
		t.place(i, &node{maker: i, kind: mask, label: o.Label, attrs: map[string]attribute{}, propStep: -1}, o.Path, nil)
	case *plan.ReadonlyPath:
		t.lockPath(i, o)
	case *plan.BindConsole:
		t.place(i, &node{maker: i, kind: console, fstype: "devpts", attrs: map[string]attribute{}, propStep: -1}, "/dev/console", nil)
	}
}

// mountPath is a path of the container without its links, if no mount has it as it stands.
func (v *view) mountPath(name string) string {
	name = path.Clean("/" + name)
	if v.mounts.point(name) {
		return name
	}
	return path.Clean(v.resolve(name))
}

// point reports whether something is mounted at a path.
func (t *table) point(name string) bool {
	return slices.ContainsFunc(t.actual, func(m *mount) bool { return m.point == name })
}

func (t *table) playMount(i int, o *plan.Mount) {
	has := func(w string) bool { return slices.Contains(o.Flags, w) }
	prop := ""
	for _, w := range []string{"private", "slave", "shared", "unbindable"} {
		if has(w) {
			prop = w
		}
	}
	target := path.Clean(o.Target)
	switch {
	case has("remount"):
		if target == t.rootPath && t.root != nil {
			t.root.set(i, without(o.Flags, "remount", "bind", "rec"), nil)
		}
	case prop != "" && o.Type == "" && !has("bind"):
		if target == "/" && t.root == nil {
			t.spread, t.spreader = prop, i
		} else if target == t.rootPath && t.root != nil {
			t.root.spread(i, prop)
		}
	case has("bind"):
		n, more := t.clone(i, o.Source, has("rec"))
		t.newRoot(i, n, o.Target, more)
	default:
		n := &node{maker: i, fstype: o.Type, source: cmp.Or(o.Source, "none"), attrs: map[string]attribute{}, exact: true, propStep: -1}
		n.set(i, o.Flags, nil)
		if o.Data != "" {
			n.options = strings.Split(o.Data, ",")
		}
		t.newRoot(i, n, o.Target, nil)
	}
}

func without(words []string, out ...string) []string {
	return slices.DeleteFunc(slices.Clone(words), func(w string) bool { return slices.Contains(out, w) })
}

// newRoot notes what is mounted where the root will be. Mounts elsewhere on the host go when the old root goes.
func (t *table) newRoot(i int, n *node, target string, more []*node) {
	if path.Clean(target) != t.rootPath {
		return
	}
	n.at, n.placer = "/", i
	t.root = n
	t.nodes = append(t.nodes, n)
	for _, s := range more {
		s.placer = i
		t.nodes = append(t.nodes, s)
	}
	if t.spread != "" && n.prop == "" {
		n.spread(t.spreader, t.spread)
	}
}

// lockPath is a read-only clone of a tree.
func (t *table) lockPath(i int, o *plan.ReadonlyPath) {
	at := t.v.mountPath(o.Path)
	from := t.walk(at)
	if from == nil {
		return
	}
	var copies []*node
	of := map[*node]*node{}
	for _, c := range t.down(from) {
		if c == from || !host.Under(c.at, at) || of[c.parent] == nil && c.parent != from {
			continue
		}
		k := *c
		k.maker, k.placer, k.attrs = i, i, map[string]attribute{"ro": {true, i}}
		k.parent = of[c.parent]
		of[c] = &k
		copies = append(copies, &k)
	}
	n := &node{maker: i, placer: i, at: at, parent: from, kind: locked, attrs: map[string]attribute{}, propStep: -1}
	for a, x := range from.attrs {
		n.attrs[a] = attribute{x.on, i}
	}
	n.set(i, []string{"ro"}, nil)
	t.nodes = append(t.nodes, n)
	for _, k := range copies {
		if k.parent == nil {
			k.parent = n
		}
		t.nodes = append(t.nodes, k)
	}
}
