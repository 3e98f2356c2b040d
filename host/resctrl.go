package host

import (
	"os"
	"slices"
	"strings"
)

// Resctrl is the file system of resource classes: shares of the processor's caches and of the memory's bandwidth (see package resctrl).
type Resctrl struct {
	Mount      string   `json:"mount"`
	Classes    []string `json:"classes,omitempty"`    // that exist, by name, without the default one
	Resources  []string `json:"resources,omitempty"`  // that can be shared out: L3, L2, MB …
	Monitoring bool     `json:"monitoring,omitempty"` // what a group uses can be counted
}

// ProbeResctrl looks for the file system. It is nil where there is none. Few containers need it, so it is no part of [Probe].
func ProbeResctrl() (*Resctrl, error) {
	buf := make([]byte, 32<<10)
	text, err := readFile("/proc/self/mountinfo", &buf) // the file that a test can cover by another
	if err != nil {
		return nil, err
	}
	dir := findResctrl(string(text))
	if dir == "" {
		return nil, nil
	}
	return lookResctrl(dir)
}

// findResctrl returns where the whole of it is mounted, and in sight.
func findResctrl(mountinfo string) string {
	var found []mount
	for line := range strings.Lines(mountinfo) {
		if m, ok := parseMount(line); ok && m.fstype == "resctrl" && m.root == "/" {
			found = append(found, m)
		}
	}
	if found = visible(found, mountinfo); len(found) == 0 {
		return ""
	}
	return found[0].point
}

func lookResctrl(dir string) (*Resctrl, error) {
	r := &Resctrl{Mount: dir}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		switch {
		case e.Name() == "mon_groups":
			r.Monitoring = true
		case e.IsDir() && !slices.Contains([]string{"info", "mon_data"}, e.Name()):
			r.Classes = append(r.Classes, e.Name())
		}
	}
	entries, err = os.ReadDir(dir + "/info")
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		if e.IsDir() && !strings.HasSuffix(e.Name(), "_MON") {
			r.Resources = append(r.Resources, e.Name())
		}
	}
	return r, nil
}
