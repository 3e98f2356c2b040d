package container

import (
	"encoding/csv"
	"slices"
	"strconv"
	"strings"
)

// DeviceRequest asks for devices that files of the host describe (Container Device Interface, CDI): by their names, or for some of the
// host's GPUs.
type DeviceRequest struct {
	// Names are VENDOR/CLASS=NAME; of a request for GPUs what such a name ends with: indexes, UUIDs.
	Names []string `json:"names,omitempty"`
	GPU   bool     `json:"gpu,omitempty"`
	// Vendor of GPUs, as "nvidia.com"; empty: that of the host.
	Vendor string `json:"vendor,omitempty"`
	Count  int    `json:"count,omitempty"` // of GPUs; negative: all
	Origin string `json:"origin,omitempty"`
}

// isDeviceName reports whether a text is VENDOR/CLASS=NAME, which no path can be that begins with a slash (CDI's specification, "kind").
func isDeviceName(text string) bool {
	kind, name, ok := strings.Cut(text, "=")
	vendor, class, isKind := strings.Cut(kind, "/")
	return ok && isKind && isDeviceWord(vendor) && isDeviceWord(class) && isDeviceWord(name)
}

// isDeviceWord takes letters, digits and what names of devices have between them.
func isDeviceWord(s string) bool {
	return s != "" && !strings.ContainsFunc(s, func(r rune) bool {
		return (r < '0' || r > '9') && (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && !strings.ContainsRune("-_.:", r)
	})
}

// gpuVendors are the drivers that Docker's words have, and whose names CDI files have for them.
var gpuVendors = map[string]string{"nvidia": "nvidia.com", "amd": "amd.com"}

// ParseGPUs reads --gpus all, --gpus 2, --gpus '"device=0,2"', with driver= and capabilities= as in Docker.
func ParseGPUs(text string) (DeviceRequest, error) {
	d := DeviceRequest{GPU: true, Origin: "--gpus " + text}
	fail := func(why string) (DeviceRequest, error) {
		return d, Invalid("--gpus %s: %s\nhint: --gpus all, --gpus 2, --gpus device=0, --gpus '\"device=0,2\"'", text, why)
	}
	fields, err := csv.NewReader(strings.NewReader(text)).Read()
	if err != nil {
		return fail("not a list with commas")
	}
	seen := map[string]bool{}
	driver := ""
	for _, field := range fields {
		key, value, ok := strings.Cut(field, "=")
		if !ok {
			key, value = "count", field
		}
		if seen[key] {
			return fail(key + " is given twice")
		}
		seen[key] = true
		switch key {
		case "count":
			if value == "all" {
				d.Count = -1
			} else if d.Count, err = strconv.Atoi(value); err != nil || d.Count < 1 {
				return fail(strconv.Quote(value) + " is no number of devices: want 1 or more, or all")
			}
		case "device":
			d.Names = strings.Split(value, ",")
		case "driver":
			driver = value
		case "capabilities":
			for _, c := range strings.Split(value, ",") {
				if c != "gpu" {
					return d, Unsupported("--gpus %s: capabilities=%s: what a GPU gives is said by its CDI file", text, value)
				}
			}
		default:
			return fail("unknown key " + strconv.Quote(key) + ": want count, device, driver or capabilities")
		}
	}
	switch {
	case d.Count != 0 && len(d.Names) > 0:
		return fail("cannot set both count and device")
	case d.Count == 0 && len(d.Names) == 0:
		// As Docker: a request that says nothing is for one.
		d.Count = 1
	}
	if driver == "cdi" {
		d.GPU = false
		if d.Names == nil || slices.ContainsFunc(d.Names, func(name string) bool { return !isDeviceName(name) }) {
			return fail("driver=cdi wants device=VENDOR/CLASS=NAME")
		}
		return d, nil
	}
	if slices.ContainsFunc(d.Names, func(name string) bool { return !isDeviceWord(name) }) {
		return fail("a device is an index, or a UUID")
	}
	if d.Vendor = gpuVendors[driver]; d.Vendor == "" {
		d.Vendor = driver
	}
	if d.Vendor != "" && !isDeviceWord(d.Vendor) {
		return fail("there is no driver " + strconv.Quote(driver))
	}
	return d, nil
}

// words is the request as --gpus or --device says it; gpus tells which.
func (d DeviceRequest) words() (text string, gpus bool) {
	if text, ok := strings.CutPrefix(d.Origin, "--gpus "); ok {
		return text, true
	}
	if !d.GPU {
		return strings.Join(d.Names, ","), false
	}
	var fields []string
	switch {
	case len(d.Names) > 0:
		fields = append(fields, `"device=`+strings.Join(d.Names, ",")+`"`)
	case d.Count < 0:
		fields = append(fields, "all")
	default:
		fields = append(fields, strconv.Itoa(d.Count))
	}
	if d.Vendor != "" {
		fields = append(fields, "driver="+d.Vendor)
	}
	return strings.Join(fields, ","), true
}
