package verify

import (
	"os"
	"path"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"glassbox/host"
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
	// Without it nothing is known of the sources, and the comparison leaves them out.
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
			if h == nil || h.below == nil || of[h.below] == nil || of[h] != nil || !host.Under(h.point, real) || h.tag("unbindable") {
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

// hostMount looks for a file system that the host mounted for the container.
func (v *view) hostMount(o *plan.HostMount) Finding {
	for _, m := range v.mounts.host {
		if m.point == o.Target && m.fstype == o.Type {
			return holds("/proc/self/mountinfo", o.Type+" on "+o.Target)
		}
	}
	return differs("/proc/self/mountinfo", o.Type+" on "+o.Target, "no such mount", cause{
		why: "somebody has unmounted it, or this program has other mounts than the one that started the container; the container keeps its own",
	})
}

// place attaches a node at a path.
func (t *table) place(i int, n *node, target string, more []*node) {
	at := path.Clean("/" + target)
	// Mountinfo has paths without links. A name at which something is mounted is one already, and to resolve it would lead through that.
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
	// No way is longer than there are mounts; a damaged list could lead in circles.
	for range len(all) + 1 {
		next, found := current, false
		for _, m := range all {
			if m != current && parent(m) == current && host.Under(at, point(m)) &&
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
			// What may be missing without being a fault is passed over: then its children are on what it would have been on.
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
