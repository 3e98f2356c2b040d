package verify

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"glassbox/plan"
)

// The mounts of a plan are played through on paper: what is mounted on what, with which attributes, in the end. That tree is then
// laid over the one in /proc/PID/mountinfo, from the root up. A mount of the plan is the one that is mounted at its place on the
// mount that the plan has there; so the order of mounts at one place is compared, too.

// node is a mount as it should be.
type node struct {
	maker, placer  int // indices of the steps that made it and attached it; -1 while it is detached
	at             string
	parent         *node
	fstype, source string
	device, root   string // of the file system, and which directory of it; "" if that isn't known
	options        []string
	label          string // of a mask
	attrs          map[string]attribute
	exact          bool   // attributes that aren't named are off
	inherits       *mount // the host's mount that it is a clone of
	prop           string // private shared slave unbindable; "" if that isn't known
	propStep       int
	kind           nodeKind
	mount          *mount // what it was found to be
}

type nodeKind int

const (
	made    nodeKind = iota // a file system, or a clone of a mount
	mask                    // the null device, or an empty directory
	locked                  // a read-only clone of what lies below
	console                 // a terminal
	soft                    // came with a recursive clone: it is there if the host had it
)

type attribute struct {
	on   bool
	step int
}

// table is the plan's mounts and the process's.
type table struct {
	v        *view
	err      error
	actual   []*mount
	host     []*mount // of this program's own mount namespace
	nodes    []*node
	root     *node
	rootPath string // where the new root is while the old one is
	saved    map[string]*node
	spread   string // propagation that all mounts begin with
	spreader int
	shared   bool // some step asks for shared mounts
}

func (v *view) readMounts() {
	t := &table{v: v, saved: map[string]*node{}, spreader: -1}
	v.mounts = t
	text, err := v.read("mountinfo")
	if err != nil {
		t.err = err
		return
	}
	t.actual = parseMountinfo(text)
	if own, err := os.ReadFile("/proc/self/mountinfo"); err == nil {
		t.host = parseMountinfo(string(own))
	}
	for _, s := range v.plan.Steps {
		switch o := s.Op.(type) {
		case *plan.PivotRoot:
			t.rootPath = rootPath(t.rootPath, o.Root)
		case *plan.MoveRoot:
			t.rootPath = rootPath(t.rootPath, o.Root)
		case *plan.RootDir:
			t.rootPath = path.Clean(o.Path)
		case *plan.RootMount:
			t.rootPath = path.Clean(o.Target)
		case *plan.MoveMount:
			t.shared = t.shared || asksShared(o.Propagation)
		case *plan.FSMount:
			t.shared = t.shared || asksShared(o.Propagation)
		case *plan.Remount:
			t.shared = t.shared || asksShared(o.Propagation)
		case *plan.Mount:
			t.shared = t.shared || asksShared(o.Flags)
		}
	}
	for i, s := range v.plan.Steps {
		t.play(i, s.Op)
	}
	t.lay()
}

// rootPath is where the new root is: a step may mean the directory that it stands in.
func rootPath(cwd, root string) string {
	if root == "." {
		return cwd
	}
	return path.Clean(root)
}

func asksShared(words []string) bool {
	return slices.ContainsFunc(words, func(w string) bool { return w == "shared" || w == "rshared" })
}

// hostSource finds out which directory of which file system a path of the host is.
func (t *table) hostSource(name string) (m *mount, root, real string) {
	fd, err := unix.Open(name, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, "", ""
	}
	defer unix.Close(fd)
	var st unix.Statx_t
	if err := unix.Statx(fd, "", unix.AT_EMPTY_PATH|unix.AT_STATX_DONT_SYNC, unix.STATX_MNT_ID, &st); err != nil ||
		st.Mask&unix.STATX_MNT_ID == 0 {
		return nil, "", ""
	}
	real, err = os.Readlink("/proc/self/fd/" + strconv.Itoa(fd))
	if err != nil {
		return nil, "", ""
	}
	for _, m := range t.host {
		if m.id == strconv.FormatUint(st.Mnt_id, 10) {
			return m, path.Join(m.root, rest(real, m.point)), real
		}
	}
	return nil, "", ""
}

// rest is the rest of a path below a directory.
func rest(name, dir string) string {
	if dir == "/" {
		return name
	}
	return strings.TrimPrefix(name, dir)
}

func under(name, dir string) bool {
	return name == dir || dir == "/" || strings.HasPrefix(name, dir+"/")
}

// clone is a node for the clone of a path of the host, and soft nodes for the mounts below it.
func (t *table) clone(i int, source string, recursive bool) (n *node, more []*node) {
	n = &node{maker: i, placer: -1, attrs: map[string]attribute{}, propStep: -1}
	m, root, real := t.hostSource(source)
	if m == nil {
		return n, nil
	}
	n.fstype, n.device, n.root, n.inherits = m.fstype, m.device, root, m
	if !recursive {
		return n, nil
	}
	of := map[*mount]*node{m: n}
	// Parents come first: the kernel's order is by age, and a mount is younger than what it is mounted on, but for moved ones.
	left := slices.Clone(t.host)
	for again := true; again; {
		again = false
		for k, h := range left {
			if h == nil || h.below == nil || of[h.below] == nil || of[h] != nil || !under(h.point, real) || h.tag("unbindable") {
				continue
			}
			s := &node{
				maker: i, placer: -1, kind: soft, at: "/" + strings.TrimPrefix(rest(h.point, real), "/"), parent: of[h.below],
				fstype: h.fstype, source: h.source, device: h.device, root: h.root, inherits: h, attrs: map[string]attribute{}, propStep: -1,
			}
			of[h], left[k], again = s, nil, true
			more = append(more, s)
		}
	}
	return n, more
}

// place attaches a node at a path.
func (t *table) place(i int, n *node, target string, more []*node) {
	at := path.Clean("/" + target)
	if !slices.ContainsFunc(t.actual, func(m *mount) bool { return m.point == at }) {
		at = path.Clean(t.v.resolve(at))
	}
	n.at, n.placer, n.parent = at, i, t.walk(at)
	t.nodes = append(t.nodes, n)
	for _, s := range more {
		s.at, s.placer = path.Join(at, s.at), i
		t.nodes = append(t.nodes, s)
	}
}

// walk finds the mount that a path leads to.
func (t *table) walk(at string) *node {
	return descend(t.root, at, t.nodes, func(n *node) *node { return n.parent }, func(n *node) string { return n.at })
}

// descend follows a path through a tree of mounts: of what is mounted on the present one, the first on the way is entered.
func descend[M comparable](root M, at string, all []M, parent func(M) M, point func(M) string) M {
	current := root
	for range len(all) + 1 {
		next, found := current, false
		for _, m := range all {
			if m != current && parent(m) == current && under(at, point(m)) &&
				(!found || len(point(m)) < len(point(next)) || point(m) == point(next)) {
				next, found = m, true
			}
		}
		if !found {
			return current
		}
		current = next
	}
	return current
}

func (n *node) set(i int, set, clear []string) {
	for _, a := range set {
		n.attrs[a] = attribute{true, i}
	}
	for _, a := range clear {
		n.attrs[a] = attribute{false, i}
	}
}

func (n *node) spread(i int, word string) { n.prop, n.propStep = word, i }

// down lists a node and all that is mounted on it and below.
func (t *table) down(n *node) []*node {
	out := []*node{n}
	for _, c := range t.nodes {
		if c.parent == n && c != n {
			out = append(out, t.down(c)...)
		}
	}
	return out
}

func (t *table) change(i int, n *node, set, clear, recSet, recClear, propagation []string) {
	if n == nil {
		return
	}
	n.set(i, set, clear)
	for _, c := range t.down(n) {
		c.set(i, recSet, recClear)
	}
	for _, p := range propagation {
		if word, ok := strings.CutPrefix(p, "r"); ok {
			for _, c := range t.down(n) {
				c.spread(i, word)
			}
		} else {
			n.spread(i, p)
		}
	}
}

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
		n, more := t.clone(i, o.Path, o.Recursive)
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
		if c == from || !under(c.at, at) || of[c.parent] == nil && c.parent != from {
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

// lay finds for each node the mount that it is.
func (t *table) lay() {
	if t.root == nil {
		return
	}
	for _, m := range t.actual {
		if m.point == "/" && m.below == nil {
			t.root.mount, m.used = m, t.root
		}
	}
	take := func(n *node, fits func(*mount) bool) bool {
		for _, m := range t.actual {
			if m.used == nil && m.point == n.at && fits(m) {
				n.mount, m.used = m, n
				return true
			}
		}
		return false
	}
	for range 2 { // copies may stand before what they are on
		for _, n := range t.nodes {
			if n == t.root || n.placer < 0 || n.mount != nil {
				continue
			}
			p := n.parent
			for p != nil && p.mount == nil && (p.kind == soft || p.kind == mask || p.kind == locked) {
				p = p.parent
			}
			if p != nil && p.mount != nil {
				take(n, func(m *mount) bool { return m.below == p.mount && n.like(m) })
			}
		}
	}
	// What is not where it should be may be on something that the plan doesn't have.
	for _, n := range t.nodes {
		if n != t.root && n.placer >= 0 && n.mount == nil {
			take(n, n.like)
		}
	}
}

// like reports whether a mount may be a node: soft ones and those of a known file system are told from others.
func (n *node) like(m *mount) bool {
	switch n.kind {
	case soft:
		return m.fstype == n.fstype && m.device == n.device && m.root == n.root
	case mask:
		return m.fstype == "tmpfs" && m.root == "/" || path.Base(m.root) == "null"
	case locked:
		return n.parent == nil || n.parent.mount == nil || m.device == n.parent.mount.device
	}
	return n.fstype == "" || sameType(n.fstype, m.fstype)
}

func sameType(want, have string) bool { return want == have || strings.HasPrefix(have, want+".") }

// visible is the mount that a path leads to.
func (t *table) visible(at string) *mount {
	var root *mount
	for _, m := range t.actual {
		if m.point == "/" && m.below == nil {
			root = m
		}
	}
	if root == nil {
		return nil
	}
	return descend(root, at, t.actual, func(m *mount) *mount { return m.below }, func(m *mount) string { return m.point })
}

// fresh reports whether a file of the container lies in a file system that the plan made empty.
func (t *table) fresh(name string) bool {
	if t.root == nil {
		return false
	}
	n := t.walk(path.Dir(path.Clean("/" + name)))
	return n != nil && n.fstype == "tmpfs" && n.exact && n.mount != nil
}

// finding is what was found about a step that mounts.
func (t *table) finding(i int) Finding {
	where := t.v.proc("mountinfo")
	if t.err != nil {
		return failed(where, t.err)
	}
	if t.root == nil {
		return unseen("the plan makes no root of its own: what it mounts can't be told from what was there")
	}
	var wrong, found []string
	who := t.v.who("CAP_SYS_ADMIN")
	seen := false // some node is this step's
	for _, n := range t.nodes {
		mine := n.maker == i || n.placer == i
		if n.placer < 0 {
			continue
		}
		if n.copied(t) {
			mine = false
		}
		for _, a := range n.attrs {
			mine = mine || a.step == i
		}
		mine = mine || n.propStep == i
		if !mine {
			continue
		}
		seen = true
		w, f, absent := t.judge(i, n)
		if absent != nil {
			return *absent
		}
		wrong = append(wrong, w...)
		if f != "" && !slices.Contains(found, f) {
			found = append(found, f)
		}
	}
	if len(found) > 3 {
		found = append(found[:2:2], fmt.Sprintf("and %d more", len(found)-2))
	}
	switch o := t.v.plan.Steps[i].Op.(type) {
	case *plan.PivotRoot, *plan.MoveRoot:
		return t.rooted("/")
	case *plan.Chroot:
		return t.rooted(t.rootPath)
	case *plan.Mount:
		if !seen {
			return unseen("what it changed went with the old root")
		}
	case *plan.FSMount:
		if !seen && o.Target == "" {
			return unseen("a detached mount, closed since: it leaves no trace")
		}
	case *plan.Remount:
		if len(wrong) == 0 && len(found) == 0 {
			return unseen("a later step changes it again, or what it changed is covered")
		}
	}
	if !seen {
		return unseen("the mount can't be told from others")
	}
	if len(wrong) > 0 {
		return differs(where, t.v.plan.Steps[i].Op.String(), strings.Join(wrong, "; "), who)
	}
	return holds(where, strings.Join(found, "; "))
}

// copied reports whether a node came with the clone of a tree that a plan's step made of the plan's own mounts.
func (n *node) copied(t *table) bool {
	_, lock := t.v.plan.Steps[n.placer].Op.(*plan.ReadonlyPath)
	return lock && n.kind != locked
}

// judge compares a node with its mount, as far as one step is concerned.
func (t *table) judge(i int, n *node) (wrong []string, found string, absent *Finding) {
	m := n.mount
	owner := n.maker == i || n.placer == i
	if m == nil {
		if n.kind == soft || n.copied(t) {
			return nil, "", nil
		}
		return t.judgeMissing(i, n)
	}
	if n.kind != soft {
		found = fmt.Sprintf("mount %s: %s (%s)", m.id, m, strings.Join(m.attrs, ","))
	}
	if owner && n.kind != soft {
		wrong = append(wrong, t.compare(i, n, m)...)
	}
	for name, a := range n.attrs {
		if a.step == i && !sameAttr(m, name, a.on) {
			wrong = append(wrong, fmt.Sprintf("%s is %s", m.point, attrWord(name, !a.on)))
		}
	}
	if n.exact && n.maker == i {
		for _, name := range []string{"ro", "nosuid", "nodev", "noexec", "nosymfollow"} {
			if _, named := n.attrs[name]; !named && m.has(name) {
				wrong = append(wrong, fmt.Sprintf("%s is %s", m.point, name))
			}
		}
	}
	if n.inherits != nil && t.speaksFor(i, n) && (n.kind == made || n.kind == soft) {
		for _, name := range []string{"ro", "nosuid", "nodev", "noexec"} {
			if _, named := n.attrs[name]; !named && m.has(name) != n.inherits.has(name) {
				wrong = append(wrong, fmt.Sprintf("%s is %s, %s of the host, where it is from, isn't", m.point, attrWord(name, m.has(name)),
					n.inherits.point))
			}
		}
	}
	if n.propStep == i || n.propStep < 0 && owner && !t.shared && n.kind != soft {
		if bad := t.compareSpread(n, m); bad != "" {
			wrong = append(wrong, bad)
		}
	}
	return wrong, found, nil
}

// speaksFor reports whether a step answers for what is mounted: the one that made it, or for a clone the one that attached it.
func (t *table) speaksFor(i int, n *node) bool {
	if _, ok := t.v.plan.Steps[n.maker].Op.(*plan.OpenTree); ok {
		return n.placer == i
	}
	return n.maker == i
}

func (t *table) judgeMissing(i int, n *node) (wrong []string, found string, absent *Finding) {
	where := t.v.proc("mountinfo")
	var unknown error
	gone := func(name string) bool {
		fd, err := t.v.open(name, 0)
		if err == nil {
			unix.Close(fd)
		} else if !errors.Is(err, unix.ENOENT) {
			unknown = err
		}
		return errors.Is(err, unix.ENOENT)
	}
	optional := false
	switch o := t.v.plan.Steps[i].Op.(type) {
	case *plan.MaskPath:
		optional = gone(o.Path)
	case *plan.ReadonlyPath:
		optional = gone(o.Path)
	case *plan.FSMount:
		optional = o.Optional && !knownType(o.Type)
	}
	if unknown != nil {
		f := failed(t.v.inside(n.at), unknown)
		f.Why = "nothing hides it, and whether there is such a path isn't known: " + f.Why
		return nil, "", &f
	}
	if optional {
		f := holds(t.v.inside(n.at), "there is no such path, and nothing to be hidden")
		if _, ok := t.v.plan.Steps[i].Op.(*plan.FSMount); ok {
			f = holds("/proc/filesystems", "this kernel has no such file system: it is left out")
		}
		return nil, "", &f
	}
	what := "nothing of that kind is mounted at " + n.at
	if n.parent != nil && n.parent.mount == nil && n.parent.kind == made && n.parent.at != "/" {
		what = "it went with what it was mounted on at " + n.parent.at
	} else if m := t.visible(n.at); m != nil && m.point == n.at && m.used == nil {
		what = "in its place is " + m.String()
	}
	f := differs(where, t.v.plan.Steps[i].Op.String(), what, t.v.who("CAP_SYS_ADMIN"))
	return nil, "", &f
}

func knownType(name string) bool {
	text, err := os.ReadFile("/proc/filesystems")
	return err != nil || slices.Contains(strings.Fields(string(text)), name)
}

func attrWord(name string, on bool) string {
	if name == "ro" {
		return map[bool]string{true: "read-only", false: "writable"}[on]
	}
	if on {
		return name
	}
	return "not " + name
}

func sameAttr(m *mount, name string, on bool) bool {
	switch name {
	case "strictatime":
		return !on || !m.has("noatime") && !m.has("relatime")
	case "relatime", "noatime":
		if !on {
			return true // one of the others was set instead
		}
	case "silent", "iversion", "rec", "bind", "remount":
		return true // of the call, or not shown
	}
	return m.has(name) == on
}

// compare says what is wrong with the file system that is mounted, and whether it can be seen.
func (t *table) compare(i int, n *node, m *mount) (wrong []string) {
	add := func(format string, a ...any) { wrong = append(wrong, fmt.Sprintf(format, a...)) }
	switch n.kind {
	case mask:
		empty := m.fstype == "tmpfs" && m.root == "/"
		switch {
		case empty && (!m.has("ro") || !slices.Contains(m.options, "nr_inodes=2")):
			add("%s is covered by a directory that isn't empty and read-only", m.point)
		case empty && n.label != "" && !slices.Contains(m.options, "context="+n.label):
			add("%s is covered by a directory that lacks the label %s", m.point, n.label)
		case !empty && !t.null(m):
			add("%s is covered by %s, which isn't the null device", m.point, m)
		}
	case locked:
		if p := n.parent; p != nil && p.mount != nil {
			if want := path.Join(p.mount.root, rest(n.at, p.at)); m.root != want || m.device != p.mount.device {
				add("%s shows %s of device %s instead of %s of device %s", m.point, m.root, m.device, want, p.mount.device)
			}
		}
	default:
		if t.speaksFor(i, n) {
			if n.fstype != "" && !sameType(n.fstype, m.fstype) {
				add("%s is %s", m.point, m)
				return wrong
			}
			if n.source != "" && n.kind == made && m.source != n.source && n.fstype != "overlay" {
				add("the source of %s is %s", m.point, m.source)
			}
			if n.device != "" && (m.device != n.device || m.root != n.root) {
				gone := ""
				if strings.HasSuffix(m.root, "//deleted") {
					gone = ", which has been deleted or replaced on the host since"
				}
				add("%s shows %s of device %s%s; the source on the host is %s of device %s", m.point, m.root, m.device, gone, n.root, n.device)
			}
			if (n.fstype == "cgroup" || n.fstype == "cgroup2") && n.exact && !t.ownGroup(m.root) {
				add("%s shows %s, which is no cgroup of this container", m.point, m.root)
			}
			wrong = append(wrong, t.compareOptions(n, m)...)
		}
	}
	if n.placer == i {
		if top := t.visible(n.at); top != nil && top != m && t.walk(n.at) == n {
			add("it is covered: %s leads to mount %s, %s", n.at, top.id, top)
		}
	}
	return wrong
}

// ownGroup reports whether a mount of cgroups begins at one of the plan's own: that is the root of the cgroup namespace.
func (t *table) ownGroup(root string) bool {
	groups := t.v.ownGroups()
	if len(groups) == 0 || !slices.Contains(t.v.newKinds(), "cgroup") {
		return true
	}
	return slices.ContainsFunc(groups, func(dir string) bool { return strings.HasSuffix(dir, root) && root != "/" })
}

// null reports whether what is mounted is the null device.
func (t *table) null(m *mount) bool {
	if path.Base(m.root) != "null" {
		return false
	}
	st, err := t.v.at(m.point)
	return err != nil || nodeWords(st) == "c 1:3" // who can't look has the name
}

func (t *table) compareSpread(n *node, m *mount) string {
	want := cmp.Or(n.prop, "private")
	have := []string{}
	for _, tag := range []string{"shared", "master", "unbindable"} {
		if m.tag(tag) {
			have = append(have, tag)
		}
	}
	is := strings.ReplaceAll(strings.Join(have, " "), "master", "slave")
	if is == "" {
		is = "private"
	}
	ok := is == want
	switch want {
	case "slave": // of a mount that isn't shared a slave is private; and what is slave may be made shared again
		ok = is == "slave" || is == "private" && (n.inherits == nil || !n.inherits.tag("shared"))
		if ok && is == "slave" && n.inherits != nil && n.inherits.tag("shared") {
			if ok = m.group("master") == n.inherits.group("shared"); !ok {
				is = "slave of another mount than the host's"
			}
		}
	case "shared":
		ok = m.tag("shared")
		if ok && n.inherits != nil && n.inherits.tag("shared") && n.maker != n.placer {
			if ok = m.group("shared") == n.inherits.group("shared"); !ok {
				is = "shared with others than the host's"
			}
		}
	case "private":
		// A clone of a shared mount was made private or slave by a step that says so; without one nothing is known.
		ok = ok || n.prop == "" && n.inherits != nil
	}
	if ok {
		return ""
	}
	return fmt.Sprintf("%s is %s, not %s", m.point, is, want)
}

// chrooted is the cause of another root directory.
func (v *view) chrooted() cause {
	if !v.canHave("CAP_SYS_CHROOT") {
		return byHost()
	}
	return own("the program itself may have changed its root (chroot, with CAP_SYS_CHROOT)")
}

func (t *table) rooted(want string) Finding {
	where := t.v.proc("root") + ", mountinfo"
	to, err := t.v.link("root")
	if err != nil {
		return failed(t.v.proc("root"), err)
	}
	if to != want {
		if want == "/" {
			want = "the root of its mount namespace"
		}
		return differs(where, want, to, t.v.chrooted())
	}
	if t.root.mount == nil {
		return differs(where, "the root that the plan mounted", "no mount at /", t.v.chrooted())
	}
	return holds(where, fmt.Sprintf("mount %s is the root", t.root.mount.id))
}

// unlisted finds mounts that are in no step.
func (t *table) unlisted(v *view) {
	if t.root == nil || t.err != nil {
		return
	}
	for _, m := range t.actual {
		if m.used != nil {
			continue
		}
		who := v.who("CAP_SYS_ADMIN")
		for _, n := range t.nodes {
			if n.inherits != nil && n.placer >= 0 && under(m.point, n.at) && n.recursive(v) {
				who.why = "it may be of the host's tree, as that was when step " + strconv.Itoa(n.maker+1) +
					" cloned it with all mounts below; else " + who.why
				break
			}
		}
		v.beside("mount "+m.String(), v.proc("mountinfo")+", mount "+m.id, who)
	}
}

// recursive reports whether a node was cloned with the mounts below.
func (n *node) recursive(v *view) bool {
	switch o := v.plan.Steps[n.maker].Op.(type) {
	case *plan.OpenTree:
		return o.Recursive
	case *plan.Mount:
		return slices.Contains(o.Flags, "rec")
	}
	return false
}
