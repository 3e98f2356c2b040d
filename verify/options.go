package verify

import (
	"fmt"
	"path"
	"strconv"
	"strings"

	"glassbox/plan"
)

// compareOptions compares the options of a file system with those in mountinfo. The kernel shows them in its own way, and leaves
// out what is as it is without being asked for.
func (t *table) compareOptions(n *node, m *mount) (wrong []string) {
	have := map[string]string{}
	var layers []string
	for _, o := range m.options {
		k, val, _ := strings.Cut(o, "=")
		if k == "lowerdir+" {
			layers = append(layers, val)
		}
		have[k] = val
	}
	if n.fstype == "overlay" && n.inherits != nil {
		return nil // the clone of one of the host's, which the device names
	}
	if n.fstype == "overlay" {
		return t.compareLayers(n, m, have, layers)
	}
	last := map[string]int{}
	for i, o := range n.options {
		k, _, _ := strings.Cut(o, "=")
		last[k] = i
	}
	for i, o := range n.options {
		k, want, _ := strings.Cut(o, "=")
		// Of an option that is given twice the last one holds, as for mount(8).
		if last[k] != i {
			continue
		}
		is, shown := have[k]
		if k == "ro" || k == "rw" {
			// The whole file system's; a read-only mount of a writable one is an attribute.
			if !shown {
				wrong = append(wrong, fmt.Sprintf("the file system of %s is not %s", m.point, k))
			}
			continue
		}
		if k == "context" {
			want = strings.Trim(want, `"`)
		}
		ok := is == want
		switch {
		case !shown:
			// Not shown is what it is by default, or what this file system never shows.
			ok = !telling(n.fstype, k, want)
		case k == "size" && n.fstype == "tmpfs":
			a, ok1 := bytesOf(want)
			h, ok2 := bytesOf(is)
			// tmpfs counts in pages, rounded up.
			ok = !ok1 || !ok2 || (a+4095)/4096 == (h+4095)/4096
		case k == "nr_inodes", k == "nr_blocks":
			a, ok1 := bytesOf(want)
			h, ok2 := bytesOf(is)
			ok = !ok1 || !ok2 || a == h
		case k == "mode", k == "ptmxmode", k == "fmask", k == "dmask", k == "umask":
			a, err1 := strconv.ParseUint(want, 8, 32)
			h, err2 := strconv.ParseUint(is, 8, 32)
			ok = err1 == nil && err2 == nil && a == h
		case k == "uid" || k == "gid":
			id, err := strconv.ParseUint(want, 10, 32)
			ok = err == nil && (want == is || strconv.FormatUint(uint64(t.v.outside(k+"_map", uint32(id))), 10) == is)
		case k == "hidepid":
			ok = hidepid(want) == hidepid(is)
		}
		if !ok {
			found := is
			if !shown {
				found = "not set"
			}
			wrong = append(wrong, fmt.Sprintf("the option %s of %s is %s", o, m.point, found))
		}
	}
	return wrong
}

// telling reports whether an option that isn't shown differs from one with a value.
func telling(fstype, key, value string) bool {
	if key == "context" {
		return true
	}
	switch fstype + " " + key {
	case "tmpfs size", "tmpfs nr_inodes":
		return !strings.HasSuffix(value, "%") // the default is half of the memory
	case "tmpfs mode":
		n, err := strconv.ParseUint(value, 8, 32)
		return err == nil && n != 0o1777
	case "tmpfs uid", "tmpfs gid":
		return value != "0"
	case "tmpfs noswap", "proc hidepid", "proc subset":
		return value != "0" && value != "off"
	case "devpts mode", "devpts gid":
		return true
	case "devpts ptmxmode":
		n, err := strconv.ParseUint(value, 8, 32)
		return err == nil && n != 0
	}
	return false
}

func hidepid(s string) string {
	for i, word := range []string{"off", "noaccess", "invisible", "", "ptraceable"} {
		if s == word && word != "" {
			return strconv.Itoa(i)
		}
	}
	return s
}

// bytesOf reads a size with k, m, g.
func bytesOf(s string) (uint64, bool) {
	unit := uint64(1)
	switch {
	case s == "":
		return 0, false
	case strings.ContainsAny(s[len(s)-1:], "kK"):
		unit = 1 << 10
	case strings.ContainsAny(s[len(s)-1:], "mM"):
		unit = 1 << 20
	case strings.ContainsAny(s[len(s)-1:], "gG"):
		unit = 1 << 30
	}
	if unit > 1 {
		s = s[:len(s)-1]
	}
	// Any base, as the kernel's memparse takes them.
	n, err := strconv.ParseUint(s, 0, 64)
	return n * unit, err == nil
}

// compareLayers compares the layers of an overlay: the same directories in the same order, however they are written.
func (t *table) compareLayers(n *node, m *mount, have map[string]string, layers []string) (wrong []string) {
	dir := ""
	if o, ok := t.v.plan.Steps[n.maker].Op.(*plan.Overlay); ok {
		dir = o.Dir
	}
	full := func(name string) string {
		if !path.IsAbs(name) {
			name = path.Join(dir, name)
		}
		return path.Clean(name)
	}
	list := func(names []string) string {
		out := make([]string, len(names))
		for i, name := range names {
			out[i] = full(name)
		}
		return strings.Join(out, ":")
	}
	// A kernel shows one lowerdir+ for each layer, or one list of them all.
	if len(layers) == 0 && have["lowerdir"] != "" {
		layers = strings.Split(have["lowerdir"], ":")
	}
	var want []string
	for _, o := range n.options {
		k, val, _ := strings.Cut(o, "=")
		switch k {
		case "lowerdir+":
			want = append(want, val)
		case "lowerdir":
			want = strings.Split(val, ":")
		case "upperdir", "workdir":
			if full(have[k]) != full(val) {
				wrong = append(wrong, fmt.Sprintf("%s of %s is %q", k, m.point, have[k]))
			}
		case "userxattr", "volatile":
			if _, ok := have[k]; !ok {
				wrong = append(wrong, fmt.Sprintf("the option %s of %s isn't set", k, m.point))
			}
		}
	}
	if list(want) != list(layers) {
		wrong = append(wrong, fmt.Sprintf("the layers of %s are %s", m.point, strings.Join(layers, ":")))
	}
	// A read-only root with a writable layer would be no difference in the flags of the mount.
	if _, ok := have["upperdir"]; ok && !strings.Contains(strings.Join(n.options, ","), "upperdir=") {
		wrong = append(wrong, fmt.Sprintf("%s has a writable layer, %s", m.point, have["upperdir"]))
	}
	return wrong
}
