package container

import (
	"path"
	"strconv"
	"strings"
)

// Device is a device node of the host, or a directory of them, that the container gets.
type Device struct {
	Host   string `json:"host"`             // path on the host
	Inside string `json:"inside"`           // absolute path in the container
	Access string `json:"access,omitempty"` // some of r, w, m
	Origin string `json:"origin,omitempty"`
}

// DeviceRule allows devices by number, whether or not there is a node (cgroups(7), devices).
type DeviceRule struct {
	Type   string `json:"type"`  // a, b, c
	Major  int64  `json:"major"` // -1: all
	Minor  int64  `json:"minor"`
	Access string `json:"access"` // some of r, w, m
	Origin string `json:"origin,omitempty"`
}

// ParseDevice reads --device HOST[:CONTAINER[:rwm]].
func ParseDevice(text string) (Device, error) {
	d := Device{Host: text, Inside: text, Access: "rwm", Origin: "--device " + text}
	parts := strings.Split(text, ":")
	switch len(parts) {
	case 1:
	case 2:
		d.Host, d.Inside = parts[0], parts[1]
		// "/dev/sda:r" has two readings of which Docker takes this one: no place in a container is called r, w or m alone.
		if isAccess(parts[1]) {
			d.Inside, d.Access = parts[0], parts[1]
		}
	case 3:
		d.Host, d.Inside, d.Access = parts[0], parts[1], parts[2]
	default:
		return d, Invalid("--device %s: want HOST[:CONTAINER[:rwm]]", text)
	}
	if !isAccess(d.Access) {
		return d, Invalid("--device %s: invalid permissions %q: want some of r, w and m", text, d.Access)
	}
	if !path.IsAbs(d.Inside) {
		return d, Invalid("--device %s: %q is not an absolute path", text, d.Inside)
	}
	return d, nil
}

// ParseDeviceRule reads --device-cgroup-rule "TYPE MAJOR:MINOR ACCESS"; * is every number.
func ParseDeviceRule(text string) (DeviceRule, error) {
	fail := func() (DeviceRule, error) {
		return DeviceRule{}, Invalid("--device-cgroup-rule %q: want TYPE MAJOR:MINOR ACCESS, as in \"c 1:3 rwm\"", text)
	}
	f := strings.Fields(text)
	if len(f) != 3 || len(f[0]) != 1 || !strings.Contains("abc", f[0]) || !isAccess(f[2]) {
		return fail()
	}
	major, minor, ok := strings.Cut(f[1], ":")
	if !ok {
		return fail()
	}
	r := DeviceRule{Type: f[0], Access: f[2], Origin: "--device-cgroup-rule " + text}
	for _, n := range []struct {
		text string
		to   *int64
	}{{major, &r.Major}, {minor, &r.Minor}} {
		if n.text == "*" {
			*n.to = -1
			continue
		}
		v, err := strconv.ParseUint(n.text, 10, 31)
		if err != nil {
			return fail()
		}
		*n.to = int64(v)
	}
	return r, nil
}

func isAccess(s string) bool { return s != "" && strings.Trim(s, "rwm") == "" }

// Words is the rule as --device-cgroup-rule says it.
func (r DeviceRule) Words() string {
	number := func(n int64) string {
		if n < 0 {
			return "*"
		}
		return strconv.FormatInt(n, 10)
	}
	return r.Type + " " + number(r.Major) + ":" + number(r.Minor) + " " + r.Access
}
