package explain

import (
	"fmt"
	"slices"
	"strings"

	"glassbox/plan"
)

func mountOpts(words ...string) string {
	if len(words) == 0 {
		return ""
	}
	out := ""
	for i, w := range words {
		if label, ok := strings.CutPrefix(w, "context="); ok { // it may have a comma
			w = `context="` + strings.Trim(label, `"`) + `"`
		}
		out += when(i > 0, ",", "") + w
	}
	return " -o " + quote(out)
}

func propagationFlag(flags []string) string {
	for _, f := range flags {
		if f != "rec" {
			return f
		}
	}
	return "private"
}

// fsmount makes a new file system. It becomes read-only in a second step, and only where it is mounted here: cgroup v1 and
// sysfs share theirs with the host.
func (s *shell) fsmount(o *plan.FSMount) ([]string, bool) {
	options := slices.Concat(without(o.Attrs, "ro"), o.Flags, o.Options)
	mount := "mount -t " + quote(o.Type) + mountOpts(options...) + " " + quote(or(o.Source, o.Type)) + ` "$at"`
	if o.Optional {
		mount += " || true"
	}
	lines := []string{"at=" + target(o.Target), `dirs "$at"`, mount}
	if o.KeepMode {
		lines = []string{"at=" + target(o.Target), `dirs "$at"; mode=$(stat -c %a "$at")`, mount, `chmod "$mode" "$at"`}
	}
	if o.Label != "" {
		lines = append(lines, "chcon "+quote(o.Label)+` "$at"`)
	}
	if slices.Contains(o.Attrs, "ro") {
		lines = append(lines, `mount -o `+quote("remount,bind,"+strings.Join(o.Attrs, ","))+` "$at"`)
	}
	for _, p := range o.Propagation {
		lines = append(lines, "mount "+quote("--make-"+p)+` "$at"`)
	}
	return lines, true
}

func (s *shell) bind(o *plan.MoveMount) ([]string, bool) {
	source := s.opened[o.From]
	recursive := false
	for _, st := range s.plan.Steps {
		if t, ok := st.Op.(*plan.OpenTree); ok && t.Save == o.From {
			recursive = t.Recursive
		}
	}
	if source == "" {
		return nil, false
	}
	lines := []string{"at=" + target(o.Target)}
	switch o.Create {
	case "like":
		lines = append(lines, "like "+quote(source)+` "$at"`)
	case "dir":
		lines = append(lines, `dirs "$at"`)
	case "file":
		lines = append(lines, `[ -e "$at" ] || (umask 022; : >"$at")`)
	}
	recSet, recClear := o.RecSet, o.RecClear
	if words := append(slices.Clone(recSet), cleared(recClear)...); recursive && len(words) > 0 {
		lines = append(lines, "tree "+quote(source)+` "$at" `+quote(strings.Join(words, ",")))
		recSet, recClear = nil, nil
	} else {
		lines = append(lines, "mount --"+when(recursive, "r", "")+"bind "+quote(source)+` "$at"`)
	}
	propagation := slices.Clone(o.Propagation)
	for i, w := range propagation {
		if spreads(w) {
			// With mounts of the whole host shared, every mount of this script would appear on the host.
			propagation[i] = strings.Replace(w, "shared", "slave", 1)
			lines = append(lines, "#    (It gets what the host mounts there. What is mounted there inside doesn't reach the host: no command "+
				"does this for one mount alone.)")
			s.missing = append(s.missing, fmt.Sprintf("%d. %s: in one direction only", s.at+1, wrap(clean(o.String()), 80)[0]))
		}
	}
	return append(lines, s.remount("", o.Set, slices.Concat(o.Clear, o.Unlocked), recSet, recClear, propagation)...), true
}

func spreads(word string) bool { return word == "shared" || word == "rshared" }

// remount changes the attributes of the mount at $at, or at a path of the container.
func (s *shell) remount(at string, set, clear, recSet, recClear, propagation []string) []string {
	var lines []string
	if at != "" {
		lines = append(lines, "at="+target(at))
	}
	if words := append(slices.Clone(set), cleared(clear)...); len(words) > 0 {
		// mount(8) sets exactly the attributes that it is told: what the mount has stays only if it is named again.
		lines = append(lines, `mount -o `+quote("remount,bind,"+s.inherited(at)+strings.Join(words, ","))+` "$at"`)
	}
	if words := append(slices.Clone(recSet), cleared(recClear)...); len(words) > 0 {
		lines = append(lines, `below "$at" | while read -r id point; do [ ! -e "$point" ] || mount -o `+
			quote("remount,bind,"+s.inherited(at)+strings.Join(words, ","))+
			` "$point"; done # what others cover has no name and stays as it is`)
	}
	for _, p := range propagation {
		lines = append(lines, "mount "+quote("--make-"+p)+` "$at"`)
	}
	return lines
}

// inherited are the attributes that a mount of the plan gave to what is at a path, with a comma after each.
func (s *shell) inherited(at string) string {
	var attrs []string
	best := ""
	for _, st := range s.plan.Steps {
		o, ok := st.Op.(*plan.FSMount)
		if attach, is := st.Op.(*plan.MoveMount); is {
			o = s.plan.FileSystem(attach)
			ok = o != nil
		}
		if ok && o.Target != "" && (at == o.Target || strings.HasPrefix(at, o.Target+"/")) && len(o.Target) > len(best) {
			best, attrs = o.Target, o.Attrs
		}
	}
	out := ""
	for _, a := range attrs {
		if a != "ro" {
			out += a + ","
		}
	}
	return out
}
