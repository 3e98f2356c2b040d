package explain

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"glassbox/plan"
)

// goFlags joins constants: "nosuid", "nodev" → unix.MS_NOSUID | unix.MS_NODEV.
func goFlags(prefix string, words []string) string {
	names := map[string]string{"ro": "RDONLY", "rec": "REC", "iversion": "I_VERSION", "sync": "SYNCHRONOUS"}
	var out []string
	for _, w := range words {
		out = append(out, "unix."+prefix+or(names[w], strings.ToUpper(w)))
	}
	return or(strings.Join(out, "|"), "0")
}

func goNamespaces(names []string) string {
	words := map[string]string{
		"mount": "NS", "pid": "PID", "uts": "UTS", "ipc": "IPC", "net": "NET", "user": "USER", "cgroup": "CGROUP",
		"time": "TIME",
	}
	var out []string
	for _, n := range names {
		out = append(out, "unix.CLONE_NEW"+or(words[n], strings.ToUpper(n)))
	}
	return or(strings.Join(out, "|"), "0")
}

func known(words []string, sets ...[]string) bool {
	return !slices.ContainsFunc(words, func(w string) bool { return !slices.Contains(slices.Concat(sets...), w) })
}

// hostFlags are the words that mount(2) has flags for, of a file system that the host mounts.
func hostFlags() []string {
	return append(goAttrs(), "silent", "iversion", "sync", "dirsync", "lazytime")
}

func goAttrs() []string {
	return []string{"ro", "nosuid", "nodev", "noexec", "nodiratime", "nosymfollow", "noatime", "relatime", "strictatime"}
}

// setattr is a call that changes a mount's attributes and how it spreads: constants of Go, or "".
type setattr struct {
	recursive          bool
	set, clear, spread string
}

// setattrs returns the calls that a step needs.
func setattrs(set, clear, recSet, recClear, propagation []string) ([]setattr, bool) {
	if !known(slices.Concat(set, clear, recSet, recClear), goAttrs()) {
		return nil, false
	}
	attrs := func(recursive bool, set, clear []string) setattr {
		s := setattr{recursive: recursive, clear: goFlags("MOUNT_ATTR_", clear)}
		if len(set) > 0 {
			s.set = goFlags("MOUNT_ATTR_", set)
		}
		// The modes of access time are one field, not bits.
		if slices.ContainsFunc(slices.Concat(set, clear), func(w string) bool { return strings.HasSuffix(w, "atime") && w != "nodiratime" }) {
			s.clear += "|unix.MOUNT_ATTR__ATIME"
		}
		if s.clear == "0" {
			s.clear = ""
		}
		return s
	}
	one, below := attrs(false, set, clear), attrs(true, recSet, recClear)
	var out []setattr
	for i, w := range propagation {
		rest, recursive := strings.CutPrefix(w, "r")
		if !known([]string{rest}, []string{"private", "slave", "shared", "unbindable"}) {
			return nil, false
		}
		spread := "unix.MS_" + strings.ToUpper(rest)
		// The last one goes together with attributes of as many mounts.
		switch {
		case i == len(propagation)-1 && recursive && one == setattr{}:
			below.spread = spread
		case i == len(propagation)-1 && !recursive:
			one.spread = spread
		default:
			out = append(out, setattr{recursive: recursive, spread: spread})
		}
	}
	for _, s := range []setattr{one, below} {
		if s != (setattr{recursive: s.recursive}) {
			out = append(out, s)
		}
	}
	return out, true
}

// texts are calls as Go has them, each in two parts, for lines that aren't long.
func texts(calls []setattr, dirfd, at, flags string) (out []string) {
	for _, s := range calls {
		var fields []string
		for _, f := range [][2]string{{"Propagation", s.spread}, {"Attr_set", s.set}, {"Attr_clr", s.clear}} {
			if f[1] != "" {
				fields = append(fields, f[0]+": "+f[1])
			}
		}
		f := strings.Trim(flags+when(s.recursive, "|unix.AT_RECURSIVE", ""), "|")
		out = append(out, "unix.MountSetattr("+dirfd+", "+at+", "+or(f, "0"), "&unix.MountAttr{"+strings.Join(fields, ", ")+"})")
	}
	return out
}

// goStep is a step that is being written. What a step returns is what makes it, or false if such a program can't.
type goStep struct {
	*golang
	host bool // the step is of the host's lane
}

func (g *goStep) note(format string, a ...any) (goLine, bool) {
	return goLine{note: fmt.Sprintf(format, a...)}, true
}

// list is a call whose arguments after the first ones several steps can share.
func (g *goStep) list(fn string, fixed []string, items ...string) (goLine, bool) {
	g.use(fn)
	return goLine{fn: fn, items: slices.Concat(fixed, items), fixed: len(fixed), join: true}, true
}

func (g *goStep) text(lines ...string) (goLine, bool) { return goLine{text: lines}, true }

// check is what returns an error.
func (g *goStep) check(calls ...string) (goLine, bool) {
	return goLine{fn: "check", items: calls, join: true}, true
}

func (g *goStep) none() (goLine, bool) { return goLine{}, false }

// drop is a call that returns an error and something that nobody needs.
func (g *goStep) drop(call string) (goLine, bool) {
	if g.tight >= withoutComments {
		g.use("second")
		return g.check("second(" + call + ")")
	}
	g.use("ok")
	return g.text("ok(" + call + ")")
}

// each does the same with several texts.
func (g *goStep) each(fn string, items ...string) (goLine, bool) {
	g.use(fn, "each")
	return goLine{fn: "each", items: append([]string{fn}, items...), fixed: 1, join: true}, true
}

// step returns what makes a step; false if such a program can't. A kind of step is looked for in one group after the other.
func (g *golang) step(s plan.Step) (goLine, bool) {
	host := s.Lane == plan.Host
	if g.second && !host {
		return goLine{}, false // it is the second child that would make it
	}
	if g.tight >= withoutAny && host {
		if line, ok := g.script(s.Op); ok {
			return line, true
		}
	}
	return (&goStep{g, host}).cgroups(s.Op)
}

// set writes a setting through a procfs: by its place, or by its descriptor if it has none.
func (g *golang) set(from, file, value string) (goLine, bool) {
	if at := g.procs[from]; at != "" {
		if g.tight >= withoutScript {
			g.use("set1", "each")
			return goLine{fn: "each", items: []string{"set1", g.lit(at + file + "=" + value)}, fixed: 1, join: true}, true
		}
		g.use("write")
		return goLine{fn: "write", items: []string{g.lit(at + file), g.lit(value)}, fixed: 1, join: true}, true
	}
	if !g.words["proc "+from] {
		return goLine{}, false
	}
	g.use("set")
	return goLine{fn: "set", items: []string{g.have[from], g.lit(file[1:] + "=" + value)}, fixed: 1, join: true}, true
}

// join makes the cgroups that the child joins groups[:9], if they are the first ones.
func (g *golang) join(line goLine, ok bool) (goLine, bool) {
	dir := line.items[1]
	if n := len(g.child); n > 0 && g.child[n-1].fn == "each" && g.child[n-1].items[0] == "join" &&
		strings.HasPrefix(g.child[n-1].items[1], "groups[") {
		last := &g.child[n-1]
		if k := g.joined; k < len(g.groups) && g.groups[k] == dir {
			g.joined++
			last.items[1] = fmt.Sprintf("groups[:%d]...", g.joined)
			last.last++
			return goLine{fn: "joined"}, true
		}
	}
	if len(g.groups) > 1 && len(g.child) == 0 && g.groups[0] == dir {
		g.joined = 1
		return goLine{fn: "each", items: []string{"join", "groups[:1]..."}, fixed: 2}, true
	}
	return goLine{text: []string{"join(" + dir + ")"}}, ok
}

// again reports whether a file is written more than once.
func (g *golang) again(w *plan.CgroupWrite) bool {
	n := 0
	for _, s := range g.plan.Steps {
		if o, ok := s.Op.(*plan.CgroupWrite); ok && o.File == w.File {
			n++
		}
	}
	return n > 1 || strings.Contains(w.File, "=")
}

// give makes a descriptor of the parent the child's.
func (g *golang) give(save string) {
	g.given[save] = 4 + len(g.given)
	g.have[save] = strconv.Itoa(g.given[save])
}
