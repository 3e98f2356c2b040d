package explain

import (
	"path"
	"slices"
	"strings"
)

// A wall is a path of a kernel file system that engines put out of a container's reach.
type wall struct {
	fs       string // proc, sysfs
	path     string // below its root
	locked   bool   // made read-only; the others are hidden
	severity Severity
}

func walls() []wall {
	return []wall{
		// Hidden: they tell of the host or of the kernel's memory and addresses, which helps with every other attack.
		{"proc", "/acpi", false, Moderate},
		{"proc", "/asound", false, Low},
		{"proc", "/interrupts", false, Low}, // their times tell of keystrokes and of what others do
		{"proc", "/kcore", false, Moderate}, // all memory; the kernel asks for CAP_SYS_RAWIO
		{"proc", "/keys", false, Moderate},
		{"proc", "/latency_stats", false, Low},
		{"proc", "/sched_debug", false, Moderate}, // processes of the whole host
		{"proc", "/scsi", false, Moderate},        // removes disks (CVE-2017-16539)
		{"proc", "/timer_list", false, Moderate},
		{"proc", "/timer_stats", false, Low},
		{"sysfs", "/devices/virtual/powercap", false, Low}, // secrets by power consumption (CVE-2020-8694)
		{"sysfs", "/firmware", false, Moderate},
		// Read-only: they set the host's kernel, and ask only whether the writer is the host's root.
		{"proc", "/bus", true, Moderate},
		{"proc", "/fs", true, Moderate},
		{"proc", "/irq", true, Moderate},
		{"proc", "/sys", true, Total}, // kernel/core_pattern names a program that the kernel runs on the host
		{"proc", "/sysrq-trigger", true, High},
	}
}

// A breach is a wall that doesn't stand in the end, and where in the container.
type breach struct {
	wall wall
	at   string
}

// breaches judges the mounts that result, not the steps: a path that was hidden before the procfs was mounted, of which the procfs is
// mounted once more elsewhere, or whose read-only flag was taken back, is a hole, however many steps say otherwise.
func (v *View) breaches() []breach {
	var out []breach
	for _, m := range v.table.Mounts() {
		if m.Type != "proc" && m.Type != "sysfs" || slices.Contains(m.Options, "subset=pid") {
			continue // with subset=pid a procfs has processes only (Linux 5.8)
		}
		for _, w := range walls() {
			if w.fs != m.Type {
				continue
			}
			at := ""
			switch {
			case m.Sub == w.path || strings.HasPrefix(m.Sub, w.path+"/"): // a part of what is behind the wall, mounted by itself
				at = m.Path()
			case m.Sub == "" || strings.HasPrefix(w.path, m.Sub+"/"):
				at = path.Join(m.Path(), strings.TrimPrefix(w.path, m.Sub))
			default:
				continue
			}
			found, rest := v.table.Resolve(at)
			if found != m || path.Join("/", m.Sub, rest) != w.path && m.Path() != at {
				continue // something else is there, which is looked at for itself
			}
			if w.locked && m.ReadOnly {
				continue
			}
			out = append(out, breach{w, at})
		}
	}
	return out
}

// hostFiles are the parts of the host's file system that it can reach, through whatever mount: binds, but for the engine's own
// files, the root, and the layers of an overlay.
func (v *View) hostFiles() []Mount {
	var out []Mount
	for _, m := range v.table.Mounts() {
		if m.Copied && m.ReadOnly {
			continue // it gives nothing that isn't there already
		}
		origin := ""
		if m.Step >= 0 {
			origin = v.origins[m.Step]
		}
		switch m.Type {
		case "bind":
			b := Mount{
				Target: m.Path(), Type: "bind", Source: path.Join(m.Source, m.Sub), Recursive: m.Recursive, ReadOnly: m.ReadOnly, Origin: origin,
			}
			b.BelowWritable = m.Recursive && m.ReadOnly && !m.ReadOnlyBelow
			if !m.Private {
				b.Propagation = "shared"
			}
			if v.table.Entered() && !v.usualMount(b) {
				out = append(out, b)
			}
		case "overlay":
			for _, l := range m.Layers {
				if !v.ownLayer(l) {
					out = append(out, Mount{Target: m.Path(), Type: "layer", Source: l, ReadOnly: true, Origin: origin})
				}
			}
			if m.Upper != "" && !v.ownLayer(m.Upper) {
				out = append(out, Mount{Target: m.Path(), Type: "layer", Source: m.Upper, ReadOnly: m.ReadOnly, Origin: origin})
			}
		}
	}
	return out
}

// ownLayer reports whether a directory is the engine's: a layer of an image below its directory layers, or what belongs to the
// container itself, below one named by its id.
func (v *View) ownLayer(dir string) bool {
	rel, ok := strings.CutPrefix(dir, path.Clean(v.Root.Dir)+"/")
	if !ok || v.Root.Dir == "" {
		return false
	}
	first, rest, _ := strings.Cut(rel, "/")
	id, _, _ := strings.Cut(rest, "/")
	return first == "layers" && rest != "" || first == "containers" && len(id) == 64 && strings.Trim(id, "0123456789abcdef") == ""
}
