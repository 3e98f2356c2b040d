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

	"glassbox/host"
	"glassbox/plan"
)

// What was played, compared with what the kernel has: a finding for each step that mounts, and what is mounted beside them.

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
		// Still detached at the end of the plan: what only a descriptor kept is gone.
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
	// Of a file system that the plan made: a flag that nobody asked for has been set since. A clone has those of the host's mount.
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
	// Not to be told from a path that the container has made hard to look at, so it is no reason to say that all is well.
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
		// The marks of the directory that the plan's step makes; an empty-looking tmpfs of somebody else could be written to.
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
				// As the kernel marks the root of a mount that has no name any more (dentry_path in fs/d_path.c).
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
			if n.inherits != nil && n.placer >= 0 && host.Under(m.point, n.at) && n.recursive(v) {
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
