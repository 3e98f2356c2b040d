package explain

import (
	"fmt"
	"path"
	"slices"
	"strings"

	"glassbox/plan"
)

// mounts: the root and the mounts below it.
func (g *goStep) mounts(op plan.Op) (goLine, bool) {
	switch o := op.(type) {
	case *plan.Mount:
		flags := []string{
			"bind", "rec", "private", "slave", "shared", "unbindable", "ro", "nosuid", "nodev", "noexec", "remount", "noatime",
			"relatime", "nodiratime", "strictatime", "nosymfollow", "silent", "iversion",
		}
		if !known(o.Flags, flags) {
			return g.none()
		}
		return g.check("unix.Mount(" + strings.Join(g.lits([]string{o.Source, o.Target, o.Type}), ", ") + ", " + goFlags("MS_", o.Flags) + ", " +
			g.lit(o.Data) + ")")
	case *plan.Overlay:
		var upper []string
		if o.Upper != "" {
			upper = []string{"upperdir=" + o.Upper, "workdir=" + o.Work}
		}
		lines := []string{"check(unix.Chdir(" + g.lit(o.Dir) + "))"}
		if o.Append {
			g.use("layers")
			var options []string
			for _, l := range o.Lower {
				options = append(options, "lowerdir+="+l)
			}
			return g.text(append(lines, g.packed("layers(", g.lits(append([]string{o.Target}, slices.Concat(options, upper, o.Options)...)),
				")")...)...)
		}
		words := append([]string{"lowerdir=" + strings.Join(o.Lower, ":")}, slices.Concat(upper, o.Options)...)
		args := []string{`"overlay"`, g.lit(o.Target), `"overlay"`, "0"}
		for i, w := range words {
			word := g.lit(w + when(i < len(words)-1, ",", ""))
			if i == 0 {
				args = append(args, word)
			} else {
				args[len(args)-1] += "+" + word
			}
		}
		if g.tight >= withoutComments {
			args[0], args[len(args)-1] = "unix.Mount("+args[0], args[len(args)-1]+")"
			return g.check(append([]string{"unix.Chdir(" + g.lit(o.Dir) + ")"}, args...)...)
		}
		return g.text(append(lines, g.packed("check(unix.Mount(", args, "))")...)...)
	case *plan.HostMount:
		if !known(o.Flags, hostFlags()) {
			return g.none()
		}
		made := "check(os.MkdirAll(" + g.lit(o.Target) + ", 0o755))"
		if o.OneByOne() {
			g.use("layers")
			return g.text(append([]string{made}, g.packed("layers(", g.lits(append([]string{o.Target}, o.Options...)), ")")...)...)
		}
		return g.text(made, "check(unix.Mount("+strings.Join(g.lits([]string{o.Source, o.Target, o.Type}), ", ")+", "+
			goFlags("MS_", o.Flags)+", "+g.lit(strings.Join(o.Options, ","))+"))")
	case *plan.RootDir:
		if slices.ContainsFunc(g.plan.Steps, func(s plan.Step) bool { _, hook := s.Op.(*plan.Hook); return hook }) {
			return g.none() // until the hooks have run, names of the container are below it
		}
		return g.check("unix.Chdir(" + g.lit(o.Path) + ")")
	case *plan.PivotRoot:
		return g.check("unix.Chdir("+g.lit(o.Root)+")", `unix.PivotRoot(".", ".")`, `unix.Unmount(".", unix.MNT_DETACH)`, `unix.Chdir("/")`)
	case *plan.FSMount:
		if place := attached(g.plan, o); o.Target == "" && place != nil && place.KeepMode {
			return g.note("made where it gets its place, for the mode of what is there")
		}
		return g.fsmount(o)
	case *plan.MoveMount:
		from := g.have[o.From]
		if o.KeepMode {
			if made := g.plan.FileSystem(o); made != nil {
				return g.fsmount(made)
			}
		}
		calls, ok := setattrs(o.Set, slices.Concat(o.Clear, o.Unlocked), o.RecSet, o.RecClear, o.Propagation)
		if !ok || from == "" {
			return g.none()
		}
		if g.tight >= withoutScript { // as mount(2) has them: these have the same bits
			for i := range calls {
				for _, bits := range []*string{&calls[i].set, &calls[i].clear} {
					for _, w := range []string{"ro", "nosuid", "nodev", "noexec"} {
						if name := goFlags("MOUNT_ATTR_", []string{w}); strings.Contains(*bits, name) {
							*bits, g.words[w] = strings.ReplaceAll(*bits, name, w), true
						}
					}
				}
			}
		}
		g.use("attach")
		if g.tight >= withoutAny && len(calls) == 1 { // bind takes the same in fewer words
			g.use("bind")
			c := calls[0]
			return g.check("bind(" + strings.Join([]string{
				from, g.lit(o.Target), when(c.recursive, "unix.AT_RECURSIVE", "0"), or(c.set, "0"),
				or(c.clear, "0"), or(c.spread, "0"),
			}, ", ") + ")")
		}
		return g.check(append(texts(calls, from, `""`, "unix.AT_EMPTY_PATH"), "attach("+from+", "+g.lit(o.Target)+")")...)
	case *plan.Remount:
		if len(o.Options) > 0 {
			return g.none()
		}
		calls, ok := setattrs(o.Set, o.Clear, o.RecSet, o.RecClear, o.Propagation)
		if !ok || len(calls) == 0 {
			return g.none()
		}
		return g.check(texts(calls, "unix.AT_FDCWD", g.lit(o.Target), "")...)
	case *plan.MaskPath:
		if tree := g.have[o.Null]; strings.HasPrefix(tree, "trees[") { // the host's null device, which is in its place already
			g.use("null")
			g.nullOpen, g.have[o.Null] = "null = "+tree, "null"
		}
		if g.have[o.Null] != "null" || o.Label != "" {
			return g.none()
		}
		if open := g.nullOpen; open != "" {
			g.nullOpen = ""
			line, _ := g.each("mask", g.lit(o.Path))
			line.before = open
			return line, true
		}
		return g.each("mask", g.lit(o.Path))
	case *plan.ReadonlyPath:
		return g.each("readonly", g.lit(o.Path))
	case *plan.Mkdir:
		return g.check("os.MkdirAll(" + g.lit(o.Path) + fmt.Sprintf(", %#o)", o.Mode))
	case *plan.Mknod:
		kind := map[string]uint32{"c": 0o020000, "u": 0o020000, "b": 0o060000, "p": 0o010000}[o.Type]
		// The program reads it with Sscanf, which ends a word at white space.
		if kind == 0 || strings.ContainsAny(o.Path, " \t\n\v\f\r\u0085\u00a0") {
			return g.none()
		}
		line, _ := g.each("node", g.lit(fmt.Sprintf("%#o %d:%d %d:%d %s", kind|o.Mode, o.Major, o.Minor, o.UID, o.GID, o.Path)))
		if path.Dir(path.Clean("/"+o.Path)) != "/dev" {
			line.items[0] = "deep"
			g.use("deep")
		}
		if o.Existing == "required" {
			line = goLine{note: "it must be there already"}
		}
		if o.Save != "" {
			if g.words["null"] || o.Type != "c" || o.Major != 1 || o.Minor != 3 {
				return g.none()
			}
			g.use("ok", "null")
			g.words["null"], g.have[o.Save] = true, "null"
			open := "null = ok(unix.Open(" + g.lit(o.Path) + ", unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0))"
			if line.note != "" {
				return g.text(open)
			}
			if g.tight < withoutAny {
				return g.text(line.items[0]+"("+line.items[1]+")", open)
			}
			g.nullOpen = open // once the other devices are there, too
		}
		return line, true
	case *plan.Symlink:
		// The program takes such a text apart at its arrow.
		if strings.Contains(o.Path, " -> ") {
			return g.none()
		}
		line, _ := g.each("link", g.lit(o.Path+" -> "+o.Target))
		switch {
		case o.Replace:
			line, _ = g.each("relink", line.items[1])
		case o.Existing:
			line.text = []string{"if _, err := os.Stat(" + g.lit(o.Target) + "); err == nil {", "link(" + line.items[1] + ")", "}"}
		}
		return line, true
	default:
		return g.settings(op)
	}
}

// fsmount mounts with mount(2), which takes one call where the plan's own way takes five.
func (g *golang) fsmount(o *plan.FSMount) (goLine, bool) {
	if o.Label != "" || !known(o.Attrs, goAttrs()) || !known(o.Flags, []string{"silent", "iversion"}) {
		return goLine{}, false
	}
	if o.Target == "" && (o.Type != "proc" || len(o.Options) > 0 || g.words["procfs"]) {
		if o.Optional || len(o.Flags) > 0 {
			return goLine{}, false
		}
		g.use("detached")
		g.have[o.Save] = fmt.Sprintf("fs%d", len(g.have))
		if o.Type == "proc" {
			g.words["proc "+o.Save] = true
		}
		args := append(g.lits([]string{o.Type, or(o.Source, o.Type)}), goFlags("MOUNT_ATTR_", o.Attrs))
		return goLine{text: g.packed(g.have[o.Save]+" := detached(", append(args, g.lits(o.Options)...), ")")}, true
	}
	if o.Target == "" { // a procfs, often for settings only
		g.use("ok")
		g.words["procfs"], g.words["proc "+o.Save], g.have[o.Save] = true, true, "procfs"
		return goLine{text: []string{
			"procfs := ok(unix.Fsopen(\"proc\", unix.FSOPEN_CLOEXEC))", "check(" +
				when(o.Source != "", "unix.FsconfigSetString(procfs, \"source\", "+g.lit(o.Source)+"), ", "") + "unix.FsconfigCreate(procfs))",
			"procfs = ok(unix.Fsmount(procfs, unix.FSMOUNT_CLOEXEC, " + goFlags("MOUNT_ATTR_", o.Attrs) + "))",
		}}, true
	}
	if strings.Contains(o.Target, " ") || slices.ContainsFunc(o.Options, func(s string) bool { return strings.Contains(s, ",") }) ||
		o.Optional && o.KeepMode {
		return goLine{}, false
	}
	g.procs[o.Save] = o.Target
	place := o.Target
	if len(o.Options) > 0 {
		place += " " + strings.Join(o.Options, ",")
	}
	g.use(when(o.KeepMode, "cover", "mount"))
	for _, a := range o.Attrs {
		g.words[a] = true
	}
	words := slices.Clone(o.Attrs)
	for _, f := range o.Flags {
		words = append(words, goFlags("MS_", []string{f}))
	}
	line := goLine{fn: when(o.KeepMode, "cover", "mount"), items: []string{
		g.lit(o.Type), g.lit(o.Source), or(strings.Join(words, "|"), "0"),
		g.lit(place),
	}, fixed: 3, join: true}
	if len(o.Propagation) > 0 {
		spread, ok := setattrs(nil, nil, nil, nil, o.Propagation)
		if !ok {
			return goLine{}, false
		}
		calls := texts(spread, "unix.AT_FDCWD", g.lit(o.Target), "")
		if g.tight >= withoutScript { // there they return errors
			line.items = append([]string{line.fn + "(" + strings.Join(line.items, ", ") + ")"}, calls...)
			line.fn, line.fixed = "check", 0
			return line, true
		}
		line.text = append(g.packed(line.fn+"(", line.items, ")"), g.packed("check(", calls, ")")...)
	}
	if o.Optional && g.tight < withoutAny { // most kernels have it
		if line.text == nil {
			line.text = g.packed("mount(", line.items, ")")
		}
		known := `if known, _ := os.ReadFile("/proc/filesystems"); strings.Contains(string(known), ` + g.lit("\t"+o.Type+"\n") + ") {"
		line.text = slices.Concat([]string{known}, line.text, []string{"}"})
	}
	return line, true
}
