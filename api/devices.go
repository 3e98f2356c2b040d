package api

import (
	"slices"
	"strconv"
	"strings"

	moby "github.com/moby/moby/api/types/container"

	"glassbox/container"
	"glassbox/spec"
)

// deviceRequest takes a request for devices: by names of CDI, or for GPUs.
func deviceRequest(w *container.Words, d moby.DeviceRequest) error {
	fail := func() error {
		return invalid("could not select device driver %q with capabilities: %v", d.Driver, d.Capabilities)
	}
	if len(d.Options) > 0 {
		return fail()
	}
	if d.Driver == "cdi" {
		if len(d.DeviceIDs) == 0 || d.Count != 0 {
			return fail()
		}
		for _, name := range d.DeviceIDs {
			if strings.HasPrefix(name, "/") || !strings.Contains(name, "=") {
				return invalid("invalid CDI device name %q", name)
			}
			list(w, "device", &w.Device, []string{name})
		}
		return nil
	}
	if len(d.Capabilities) != 1 || !slices.Equal(d.Capabilities[0], []string{"gpu"}) {
		return fail()
	}
	var fields []string
	switch {
	case len(d.DeviceIDs) > 0 && d.Count == 0:
		fields = append(fields, `"device=`+strings.Join(d.DeviceIDs, ",")+`"`)
	case len(d.DeviceIDs) == 0 && d.Count < 0:
		fields = append(fields, "all")
	case len(d.DeviceIDs) == 0:
		fields = append(fields, strconv.Itoa(max(d.Count, 1)))
	default:
		return fail()
	}
	if d.Driver != "" {
		fields = append(fields, "driver="+d.Driver)
	}
	w.GPUs = append(w.GPUs, strings.Join(fields, ","))
	return nil
}

// chosenPaths are what the container doesn't see, and what it can't write to. Null is what is usual.
func chosenPaths(w *container.Words, h *moby.HostConfig) error {
	if h.MaskedPaths != nil && h.ReadonlyPaths != nil && len(h.MaskedPaths)+len(h.ReadonlyPaths) == 0 {
		// As Docker's command line sends systempaths=unconfined.
		if !slices.Contains(w.SecurityOpt, "systempaths=unconfined") {
			list(w, "security-opt", &w.SecurityOpt, []string{"systempaths=unconfined"})
		}
		return nil
	}
	for _, paths := range []struct {
		got       []string
		what, opt string
		usual     func(*container.Config) []string
	}{
		{h.MaskedPaths, "MaskedPaths", "masked-paths", spec.MaskedPaths},
		{h.ReadonlyPaths, "ReadonlyPaths", "readonly-paths", spec.ReadonlyPaths},
	} {
		if paths.got == nil || slices.Equal(paths.got, paths.usual(&container.Config{})) {
			continue
		}
		for _, p := range paths.got {
			if p == "" || strings.Contains(p, ":") {
				return invalid("HostConfig.%s: %q: want absolute paths without a colon", paths.what, p)
			}
		}
		list(w, "security-opt", &w.SecurityOpt, []string{paths.opt + "=" + strings.Join(paths.got, ":")})
	}
	return nil
}
