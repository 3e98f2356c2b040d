package verify

import (
	"strings"

	"glassbox/host"
)

// mount is a line of /proc/PID/mountinfo (proc_pid_mountinfo(5)).
type mount struct {
	id, parent   string
	device, root string
	point        string
	attrs        []string // of the mount: ro or rw, nosuid …
	tags         []string // shared:1 master:2 unbindable
	fstype       string
	source       string
	options      []string // of the file system

	below *mount
	used  *node // the plan's mount that it is
}

func (m *mount) has(attr string) bool {
	for _, a := range m.attrs {
		if a == attr {
			return true
		}
	}
	return false
}

func (m *mount) tag(name string) bool {
	for _, t := range m.tags {
		if t == name || strings.HasPrefix(t, name+":") {
			return true
		}
	}
	return false
}

// group is the number after a tag, which names a group of mounts that share what is mounted in them.
func (m *mount) group(name string) string {
	for _, t := range m.tags {
		if n, ok := strings.CutPrefix(t, name+":"); ok {
			return n
		}
	}
	return ""
}

func (m *mount) String() string {
	s := m.fstype
	if m.source != "" && m.source != "none" && m.source != m.fstype {
		s += " " + m.source
	}
	if m.root != "/" {
		s += ", of it " + m.root + ","
	}
	return s + " on " + m.point
}

// splitOptions splits at commas, but for those between quotes, as in context="user:role:type:s0:c1,c2". The quotes go.
func splitOptions(text string) []string {
	out, quoted := []string{""}, false
	for _, r := range text {
		switch {
		case r == '"':
			quoted = !quoted
		case r == ',' && !quoted:
			out = append(out, "")
		default:
			out[len(out)-1] += string(r)
		}
	}
	return out
}

// parseMountinfo reads the mounts in the kernel's order. Lines that make no sense are left out.
func parseMountinfo(text string) []*mount {
	var out []*mount
	for _, m := range host.ParseMounts(text) {
		out = append(out, &mount{
			id: m.ID, parent: m.Parent, device: m.Device, root: m.Root, point: m.Point, attrs: strings.Split(m.Attrs, ","), tags: m.Tags,
			fstype: m.Type, source: m.Source, options: splitOptions(m.Options),
		})
	}
	byID := map[string]*mount{}
	for _, m := range out {
		byID[m.id] = m
	}
	for _, m := range out {
		m.below = byID[m.parent]
	}
	return out
}
