package bundle

import (
	"reflect"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"glassbox/cgroup"
	"glassbox/host"
)

// setDefaults adds what every container gets: a cgroup of its own, and its devices.
func (r *Runtime) setDefaults(spec *specs.Spec, id string, facts *host.Facts) error {
	l := spec.Linux
	ordinary := facts.UserNS || facts.Caps&(1<<unix.CAP_SYS_ADMIN) == 0
	var err error
	switch {
	case r.SystemdCgroup:
		if l.CgroupsPath == "" {
			l.CgroupsPath = ":glassbox:" + id
		}
	case l.CgroupsPath == "" && ordinary:
		// Who may not make cgroups does without, as long as nothing is to be limited. Rules for devices are no limit: nobody can make
		// devices in a user namespace.
		if r := l.Resources; r == nil || reflect.DeepEqual(*r, specs.LinuxResources{Devices: r.Devices}) {
			return nil
		}
		l.CgroupsPath = id // below the own cgroup, which may be delegated
	default:
		l.CgroupsPath, err = cgroup.Path(l.CgroupsPath, id)
	}
	if err != nil {
		return err
	}
	if l.Resources == nil {
		l.Resources = &specs.LinuxResources{}
	}
	for i, d := range l.Resources.Devices {
		if name := alwaysThere(d); name != "" {
			r.warn("/linux/resources/devices/%d: %s is allowed all the same: every container has it (config-linux.md, default devices)", i, name)
		}
	}
	// Last, as later rules count: nobody can take these away (config-linux.md, default devices).
	l.Resources.Devices = append(l.Resources.Devices, cgroup.DefaultDevices()...)
	return nil
}

// alwaysThere names the device of every container that a rule denies. Rules that deny all devices, or all of a kind, are how lists begin,
// and mean others.
func alwaysThere(d specs.LinuxDeviceCgroup) string {
	const every = -1
	if d.Allow || d.Major == nil || *d.Major == every || d.Type != "c" {
		return ""
	}
	for _, o := range namedDevices() {
		if o.major == *d.Major && (d.Minor == nil || *d.Minor == every || o.minor == every || o.minor == *d.Minor) {
			return o.name
		}
	}
	return ""
}

type namedDevice struct {
	name         string
	major, minor int64 // minor -1: every one
}

// namedDevices are the character devices of cgroup.DefaultDevices by their usual names (Linux, admin-guide/devices.txt).
func namedDevices() []namedDevice {
	return []namedDevice{
		{"/dev/null", 1, 3},
		{"/dev/zero", 1, 5},
		{"/dev/full", 1, 7},
		{"/dev/random", 1, 8},
		{"/dev/urandom", 1, 9},
		{"/dev/tty", 5, 0},
		{"/dev/ptmx", 5, 2},
		{"/dev/pts/0", 136, -1},
	}
}
