package engine

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"tags.cncf.io/container-device-interface/pkg/cdi"
	cdispec "tags.cncf.io/container-device-interface/specs-go"

	"glassbox/container"
	"glassbox/spec"
)

// cdiDirs are the directories of the files that describe devices (CDI's specification, "CDI JSON Specification"): what stands in a later
// one is stronger.
func cdiDirs() []string {
	if dirs := os.Getenv("GLASSBOX_CDI"); dirs != "" {
		return filepath.SplitList(dirs)
	}
	return cdi.DefaultSpecDirs
}

// gatherCDI asks the host's files for the devices that a container wants.
func (e *Engine) gatherCDI(c *container.Container, a *spec.Answers) error {
	if len(c.Config.Requests) == 0 {
		return nil
	}
	cache, err := cdi.NewCache(cdi.WithSpecDirs(cdiDirs()...), cdi.WithAutoRefresh(false))
	if err != nil {
		return err
	}
	files := map[string]bool{} // whose own edits are there
	names := map[string]bool{}
	for _, r := range c.Config.Requests {
		wanted := r.Names
		if r.GPU {
			if wanted, err = gpus(&r, cache.ListDevices()); err != nil {
				return withFaults(err, cache)
			}
		}
		for _, name := range wanted {
			d := cache.GetDevice(name)
			if d == nil {
				return withFaults(noDevice(r.Origin, name, cache.ListDevices()), cache)
			}
			if names[name] {
				continue // asked for twice
			}
			names[name] = true
			parts := []spec.DeviceEdits{{Device: name, Edits: &d.ContainerEdits}}
			if file := d.GetSpec().GetPath(); !files[file] {
				files[file] = true
				parts = slices.Insert(parts, 0, spec.DeviceEdits{Edits: &d.GetSpec().ContainerEdits})
			}
			for _, part := range parts {
				part.File, part.Origin = d.GetSpec().GetPath(), r.Origin
				if part.Edits, err = withNumbers(part.Edits); err != nil {
					return invalid("%s: %s: %w", r.Origin, part.File, err)
				}
				a.CDI = append(a.CDI, part)
			}
		}
	}
	return nil
}

// withNumbers gives device nodes type and number of the host's where the file doesn't say them. The file's are believed, as by other
// engines.
func withNumbers(e *cdispec.ContainerEdits) (*cdispec.ContainerEdits, error) {
	out := *e
	out.DeviceNodes = nil
	for _, n := range e.DeviceNodes {
		node := *n
		host := cmp.Or(node.HostPath, node.Path)
		if node.Type == "" || node.Type != "p" && node.Major == 0 && node.Minor == 0 {
			have, ok := nodeOf(host)
			if !ok {
				if _, err := os.Stat(host); err != nil {
					return nil, fmt.Errorf("%s: %w", host, errOf(err))
				}
				return nil, fmt.Errorf("%s is no device node of this host", host)
			}
			if node.Type != "" && node.Type != have.Type && (node.Type != "u" || have.Type != "c") {
				return nil, fmt.Errorf("%s is a device of type %s, and the file says %s", host, have.Type, node.Type)
			}
			node.Type, node.Major, node.Minor = have.Type, have.Major, have.Minor
		}
		out.DeviceNodes = append(out.DeviceNodes, &node)
	}
	return &out, nil
}

// noDevice says which devices there are instead.
func noDevice(origin, name string, have []string) error {
	err := invalid("%s: no CDI file of %s describes %s", origin, strings.Join(cdiDirs(), " or "), name)
	if kind, _, _ := strings.Cut(name, "="); slices.ContainsFunc(have, func(h string) bool { return strings.HasPrefix(h, kind+"=") }) {
		have = slices.DeleteFunc(slices.Clone(have), func(h string) bool { return !strings.HasPrefix(h, kind+"=") })
	}
	if len(have) == 0 {
		return fmt.Errorf("%w\nhint: the vendor's program writes one: nvidia-ctk cdi generate --output=/etc/cdi/nvidia.yaml", err)
	}
	return fmt.Errorf("%w\nhint: there are %s", err, strings.Join(have[:min(len(have), 10)], ", "))
}

// withFaults adds which files could not be read.
func withFaults(err error, cache *cdi.Cache) error {
	faults := cache.GetErrors()
	for _, file := range slices.Sorted(maps.Keys(faults)) {
		err = fmt.Errorf("%w\nnote: %s is left out: %w", err, file, errors.Join(faults[file]...))
	}
	return err
}

// gpus chooses among the host's devices, VENDOR/gpu=NAME.
func gpus(r *container.DeviceRequest, have []string) ([]string, error) {
	names := map[string][]string{} // vendor → names
	for _, d := range have {
		if kind, name, _ := strings.Cut(d, "="); strings.HasSuffix(kind, "/gpu") {
			vendor := strings.TrimSuffix(kind, "/gpu")
			names[vendor] = append(names[vendor], name)
		}
	}
	vendor := r.Vendor
	if vendor == "" {
		if len(names) > 1 {
			vendors := slices.Sorted(maps.Keys(names))
			return nil, invalid("%s: this host has GPUs of %s\nhint: --gpus 'all,driver=%s'", r.Origin, strings.Join(vendors, " and "), vendors[0])
		}
		for vendor = range names {
		}
	}
	if len(names[vendor]) == 0 {
		return nil, noDevice(r.Origin, cmp.Or(vendor, "nvidia.com")+"/gpu=all", nil)
	}
	chosen := r.Names
	if len(chosen) == 0 {
		if r.Count < 0 && slices.Contains(names[vendor], "all") {
			return []string{vendor + "/gpu=all"}, nil
		}
		// One GPU has several names: its index counts it.
		chosen = slices.DeleteFunc(slices.Clone(names[vendor]), func(name string) bool { _, err := strconv.Atoi(name); return err != nil })
		slices.SortFunc(chosen, func(a, b string) int {
			one, _ := strconv.Atoi(a)
			two, _ := strconv.Atoi(b)
			return one - two
		})
		if len(chosen) == 0 || r.Count > len(chosen) {
			return nil, invalid("%s: %s describes %d GPUs by number", r.Origin, vendor, len(chosen))
		}
		if r.Count > 0 {
			chosen = chosen[:r.Count]
		}
	}
	var out []string
	for _, name := range chosen {
		out = append(out, vendor+"/gpu="+name)
	}
	return out, nil
}
