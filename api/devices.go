package api

import (
	"slices"
	"strconv"
	"strings"

	moby "github.com/moby/moby/api/types/container"

	"glassbox/container"
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
