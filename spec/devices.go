package spec

import (
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"

	"glassbox/cgroup"
	"glassbox/container"
)

// devices says which device nodes the container has, and which it may use.
func (w *writer) devices() error {
	c, r := w.c, w.spec.Linux.Resources
	if c.Privileged {
		r.Devices = []specs.LinuxDeviceCgroup{{Allow: true, Type: "a", Access: "rwm"}}
		w.from("/linux/resources/devices", "privileged", "")
		for i, n := range w.Answers.AllDevices {
			w.spec.Linux.Devices = append(w.spec.Linux.Devices, n.device(n.Path))
			w.from(fmt.Sprintf("/linux/devices/%d", i), "privileged", "")
		}
	} else {
		r.Devices = []specs.LinuxDeviceCgroup{
			{Allow: false, Access: "rwm"},
			cgroup.Allow("c", -1, -1, "m"), cgroup.Allow("b", -1, -1, "m"), // nodes may be made, but not opened
			cgroup.Allow("c", 1, 3, "rwm"), cgroup.Allow("c", 1, 5, "rwm"), cgroup.Allow("c", 1, 7, "rwm"), // null, zero, full
			cgroup.Allow("c", 1, 8, "rwm"), cgroup.Allow("c", 1, 9, "rwm"), cgroup.Allow("c", 5, 0, "rwm"), // random, urandom, tty
			cgroup.Allow("c", 5, 1, "rwm"), cgroup.Allow("c", 5, 2, "rwm"), cgroup.Allow("c", 136, -1, "rwm"), // console, ptmx, pts
		}
	}
	for _, d := range c.Devices {
		nodes, ok := w.Answers.Devices[d.Host]
		if !ok {
			return container.Invalid("--device %s: %s is not a device node", strings.TrimPrefix(d.Origin, "--device "), d.Host)
		}
		for _, n := range nodes {
			// Of a directory the nodes keep their places below it.
			dev := n.device(d.Inside + strings.TrimPrefix(n.Path, strings.TrimRight(d.Host, "/")))
			w.spec.Linux.Devices = slices.DeleteFunc(w.spec.Linux.Devices, func(x specs.LinuxDevice) bool { return x.Path == dev.Path })
			w.spec.Linux.Devices = append(w.spec.Linux.Devices, dev)
			w.origin(fmt.Sprintf("/linux/devices/%d", len(w.spec.Linux.Devices)-1), d.Origin)
			if !c.Privileged {
				r.Devices = append(r.Devices, cgroup.Allow(dev.Type, dev.Major, dev.Minor, d.Access))
			}
		}
	}
	for _, rule := range c.Rules {
		r.Devices = append(r.Devices, cgroup.Allow(rule.Type, rule.Major, rule.Minor, rule.Access))
	}
	return nil
}

// device is the node at a place in the container.
func (n Node) device(inside string) specs.LinuxDevice {
	mode, uid, gid := fs.FileMode(n.Mode), n.UID, n.GID
	return specs.LinuxDevice{Path: inside, Type: n.Type, Major: n.Major, Minor: n.Minor, FileMode: &mode, UID: &uid, GID: &gid}
}
