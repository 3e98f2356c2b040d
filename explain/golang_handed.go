package explain

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"glassbox/plan"
)

// cgroups: cgroups.
func (g *goStep) cgroups(op plan.Op) (goLine, bool) {
	switch o := op.(type) {
	case *plan.CgroupCreate:
		fn := "cgroup"
		if slices.ContainsFunc(g.plan.Steps, func(s plan.Step) bool {
			c, ok := s.Op.(*plan.CgroupCreate)
			return ok && slices.Contains(c.Controllers, "cpuset")
		}) {
			fn = "cpuset"
		}
		g.use(fn, "each")
		if len(g.groups) > 1 { // with the first all are made
			return goLine{fn: "each", items: []string{"cgroup", "groups..."}, fixed: 2, join: true}, true
		}
		return goLine{text: []string{"cgroup(" + g.groups[0] + ")"}}, true
	case *plan.CgroupWrite:
		if o.Enable {
			// Those that aren't there are missed by whoever writes their limits.
			return g.text("for _, controller := range []string{"+strings.Join(g.lits(strings.Fields(o.Value)), ", ")+"} {",
				"os.WriteFile("+g.lit(o.File)+", []byte(controller), 0)", "}")
		}
		if g.tight >= withoutScript && !g.again(o) {
			return g.each("set1", g.lit(o.File+"="+o.Value))
		}
		return g.list("write", []string{g.lit(o.File)}, g.lit(o.Value))
	case *plan.CgroupOpen:
		g.opened[o.Save] = o.Path
		return g.note("the child joins by name")
	case *plan.CgroupJoin:
		dir, ok := strings.CutSuffix(g.opened[o.From], "/tasks")
		if !ok {
			return g.none()
		}
		g.use("write")
		return g.join(g.each("join", g.lit(dir)))
	case *plan.CgroupEvacuate:
		g.use("evacuate")
		return g.text("evacuate(" + g.lit(o.From) + ", " + g.lit(o.To) + ")")
	case *plan.CgroupAttach:
		g.use("fmt")
		return g.list("write", []string{g.lit(o.Path + "/cgroup.procs")}, "fmt.Sprint(cmd.Process.Pid)")
	case *plan.DeviceFilter:
		if len(o.Program) == 0 {
			return g.none()
		}
		g.use("devices")
		return g.text("devices(" + g.lit(o.Path) + ", " + strconv.Quote(compress(o.Program)) + ")")
	default:
		return g.handed(op)
	}
}

// handed: what the child gets from the host.
func (g *goStep) handed(op plan.Op) (goLine, bool) {
	switch o := op.(type) {
	case *plan.OpenTree:
		if o.FSType != "" || o.Mounts != "" || o.Beneath != "" || o.NoLinks || o.IDMap != "" && !strings.HasPrefix(g.have[o.IDMap], "users") {
			return g.none()
		}
		switch {
		case o.Child && o.IDMap == "" && o.Device == "":
			g.opened[o.Save] = o.Path
			return g.note("the child does it, with recv-fd")
		case o.Child || g.host && o.Device != "" || !g.host && o.IDMap != "" || o.Readonly && (g.host || o.Device != ""):
			return g.none()
		case o.Device != "":
			g.numberTree(o.Save)
			return g.each("device", g.lit(o.Device+" "+o.Path))
		case !g.host:
			return g.each(g.tree(o), g.lit(o.Path))
		}
		g.give(o.Save)
		clone := when(o.Recursive, "give", "giveOne")
		if o.IDMap != "" {
			g.use(clone)
			return g.list("giveAs", []string{g.have[o.IDMap], clone, when(o.IDMapRecursive, "unix.AT_RECURSIVE", "0")}, g.lit(o.Path))
		}
		line, ok := g.each(clone, g.lit(o.Path))
		if o.MakeDir {
			line.before = "if _, err := os.Stat(" + g.lit(o.Path) + "); err != nil { check(os.MkdirAll(" + g.lit(o.Path) + ", 0o755)) }"
		}
		return line, ok
	case *plan.UserNamespace:
		if len(o.UID) == 0 || len(o.GID) == 0 {
			return g.none()
		}
		g.use("users")
		g.have[o.Save] = fmt.Sprintf("users%d", len(g.have))
		return g.text(g.packed(g.have[o.Save]+" := users(", []string{
			"[]syscall.SysProcIDMap{" + strings.Join(goIDs(o.UID), ", ") + "}",
			"[]syscall.SysProcIDMap{" + strings.Join(goIDs(o.GID), ", ") + "}",
		}, ")")...)
	case *plan.RecvFD:
		if g.host {
			if !g.hasConsole() {
				return g.none()
			}
			g.words["console"] = true
			g.use("relay")
			return g.text("relayed := relay(pair[0])")
		}
		t := slices.IndexFunc(g.plan.Steps, func(s plan.Step) bool {
			t, ok := s.Op.(*plan.OpenTree)
			return ok && t.Child && t.Save == o.Save
		})
		if t < 0 || g.opened[o.Save] == "" {
			return g.none()
		}
		return g.each(g.tree(g.plan.Steps[t].Op.(*plan.OpenTree)), g.lit(g.opened[o.Save]))
	case *plan.Open:
		if o.Path == "" || o.Other != "" {
			return g.none()
		}
		g.give(o.Save)
		return g.each("giveFile", g.lit(o.Path))
	default:
		return g.namespaces(op)
	}
}

// namespaces: namespaces.
func (g *goStep) namespaces(op plan.Op) (goLine, bool) {
	switch o := op.(type) {
	case *plan.Clone:
		if !g.host || !known(o.Namespaces, []string{"mount", "pid", "uts", "ipc", "net", "user"}) || slices.Contains(o.Namespaces, "user") &&
			g.idMap() == nil {
			g.second = g.second || !g.host
			return g.none()
		}
		return g.text(g.clone(o)...)
	case *plan.IDMap:
		if g.idMap() != o {
			return g.none()
		}
		return g.note("in SysProcAttr above: the child starts itself again only when its ids are mapped")
	case *plan.Unshare:
		if g.host || !slices.Equal(o.Namespaces, []string{"cgroup"}) {
			return g.none() // of a user namespace a process with threads can't make its own: unshare(2)
		}
		return g.check("unix.Unshare(unix.CLONE_NEWCGROUP)")
	case *plan.Setns:
		allowed := []string{"net", "uts", "ipc", "cgroup"}
		if g.host {
			allowed = []string{"pid"}
		}
		from := g.have[o.From]
		if g.host && from != "" { // the file that the child gets is open here, too
			from = fmt.Sprintf("int(cmd.ExtraFiles[%d].Fd())", g.given[o.From]-3)
		}
		if from == "" || len(o.Namespaces) == 0 || !known(o.Namespaces, allowed) {
			return g.none() // a process with threads can't join another mount or user namespace: setns(2)
		}
		return g.check("unix.Setns(" + from + ", " + goNamespaces(o.Namespaces) + ")")
	case *plan.Release, *plan.Notify:
		return g.drop("unix.Write(" + when(g.host, "pair[0]", "3") + ", []byte{1})")
	case *plan.Await:
		g.words["parent"] = true
		return g.drop("parent.Read(make([]byte, 1))")
	case *plan.Expect:
		g.use("ok")
		return g.text("if ok(unix.Read(pair[0], make([]byte, 1))) == 0 {", `panic("the child is gone")`, "}")
	case *plan.AwaitStart:
		return g.note("it starts at once: here create and start are not two commands")
	default:
		return g.mounts(op)
	}
}

// clone starts the child: the plan's clone3, and all that a second start of the same program needs.
func (g *golang) clone(o *plan.Clone) []string {
	g.use("ok")
	lines := []string{
		"pair := ok(unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0))",
		`cmd.ExtraFiles = append([]*os.File{os.NewFile(uintptr(pair[1]), "")}, cmd.ExtraFiles...) // 3, and then 4, 5, … in the child`,
		"cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr",
		"cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: " + goNamespaces(o.Namespaces) + ",",
	}
	if o.Cgroup != "" {
		lines = append(lines, "UseCgroupFD: true, CgroupFD: ok(unix.Open("+g.lit(g.opened[o.Cgroup])+", unix.O_PATH|unix.O_CLOEXEC, 0)),")
	}
	if m := g.idMap(); m != nil && slices.Contains(o.Namespaces, "user") {
		for _, half := range []struct {
			name   string
			ranges []plan.IDRange
		}{{"Uid", m.UID}, {"Gid", m.GID}} {
			lines = append(lines, g.packed(half.name+"Mappings: []syscall.SysProcIDMap{", goIDs(half.ranges), "},")...)
		}
		// Who is not root in the namespace loses its capabilities with execve, but for ambient ones.
		g.use("everything")
		lines = append(lines, when(m.DenySetgroups, "", "GidMappingsEnableSetgroups: true, ")+"AmbientCaps: everything(),")
	}
	lines[len(lines)-1] = strings.TrimSuffix(lines[len(lines)-1], ",") + "}"
	lines = append(lines, "check(cmd.Start(), unix.Close(pair[1]))")
	if g.tight < withoutAny && g.wantsPid() {
		g.use("fmt")
		lines = append(lines, "pid := fmt.Sprint(cmd.Process.Pid)")
	}
	if g.tight < withoutAny && g.wantsInside() {
		lines = append(lines, `inside := "nsenter --net=/proc/" + pid + "/ns/net ip "`)
	}
	return lines
}

// idMap is the step that maps the ids of the child's user namespace, if this program can.
func (g *golang) idMap() *plan.IDMap {
	for _, s := range g.plan.Steps {
		if o, ok := s.Op.(*plan.IDMap); ok && !o.Programs && len(o.UID) > 0 && len(o.GID) > 0 {
			return o
		}
	}
	return nil
}

func (g *golang) wantsPid() bool {
	return g.wantsInside() || slices.ContainsFunc(g.plan.Steps, func(s plan.Step) bool {
		o, ok := s.Op.(*plan.LinkVeth)
		return ok && plainWords(o.Name, o.Peer, o.Bridge) && (o.MAC == "" || plainWords(o.MAC))
	})
}

// wantsInside reports whether more than one command is run in the child's network namespace.
func (g *golang) wantsInside() bool {
	n := 0
	for _, s := range g.plan.Steps {
		switch o := s.Op.(type) {
		case *plan.LinkAddress:
			if plainWords(o.Link) && (o.Address == "" || plainWords(o.Address)) {
				n++
			}
			if o.Address != "" {
				n++
			}
		case *plan.RouteDefault:
			if plainRoute(o) {
				n++
			}
		}
	}
	return n > 1
}

// goIDs are ranges of ids as Go has them.
func goIDs(ranges []plan.IDRange) (ids []string) {
	for _, r := range ranges {
		ids = append(ids, fmt.Sprintf("{ContainerID: %d, HostID: %d, Size: %d}", r.Container, r.Host, r.Size))
	}
	return ids
}

// tree names such a clone, and returns the function that makes it.
func (g *golang) tree(o *plan.OpenTree) string {
	g.numberTree(o.Save)
	g.words["ro"] = g.words["ro"] || o.Readonly
	return "tree" + when(o.Recursive, "", "One") + when(o.Readonly, "Readonly", "")
}

// numberTree names a clone of a mount that the child makes before the root changes: they have numbers.
func (g *golang) numberTree(save string) {
	g.have[save] = fmt.Sprintf("trees[%d]", g.trees)
	g.trees++
}
