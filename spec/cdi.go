package spec

import (
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	cdi "tags.cncf.io/container-device-interface/specs-go"

	"glassbox/cgroup"
	"glassbox/container"
)

// from names a request and the file that answers it.
func (d *DeviceEdits) from() string { return d.Origin + " (" + d.File + ")" }

// editMounts adds the mounts that devices come with. One of the user's at the same place gives way: the device doesn't work without.
func (w *writer) editMounts() {
	for _, d := range w.Answers.CDI {
		for _, m := range d.Edits.Mounts {
			mount := specs.Mount{Source: m.HostPath, Destination: m.ContainerPath, Type: m.Type, Options: slices.Clone(m.Options)}
			bound := slices.Contains(mount.Options, "bind") || slices.Contains(mount.Options, "rbind")
			if mount.Type == "" || bound {
				mount.Type = "bind"
			}
			if mount.Type == "bind" && !bound {
				mount.Options = append(mount.Options, "rbind")
			}
			w.mount(mount, d.from())
		}
	}
}

// deviceEdits makes the other changes that devices come with.
func (w *writer) deviceEdits() error {
	for _, d := range w.Answers.CDI {
		e := d.Edits
		for _, n := range e.DeviceNodes {
			w.editNode(&d, n)
		}
		if len(e.Env) > 0 {
			env, err := container.MergeEnv(w.spec.Process.Env, nil, e.Env)
			if err != nil {
				return container.Invalid("%s: %v", d.from(), err)
			}
			w.spec.Process.Env = env
			w.origin("/process/env", d.from())
		}
		for _, gid := range e.AdditionalGIDs {
			if user := &w.spec.Process.User; gid != 0 && !slices.Contains(user.AdditionalGids, gid) {
				user.AdditionalGids = append(user.AdditionalGids, gid)
				w.origin("/process/user/additionalGids", d.from())
			}
		}
		for _, n := range e.NetDevices {
			if w.spec.Linux.NetDevices == nil {
				w.spec.Linux.NetDevices = map[string]specs.LinuxNetDevice{}
			}
			w.spec.Linux.NetDevices[n.HostInterfaceName] = specs.LinuxNetDevice{Name: n.Name}
			w.origin("/linux/netDevices/"+n.HostInterfaceName, d.from())
		}
		if r := e.IntelRdt; r != nil {
			w.spec.Linux.IntelRdt = &specs.LinuxIntelRdt{
				ClosID: r.ClosID, L3CacheSchema: r.L3CacheSchema, MemBwSchema: r.MemBwSchema, Schemata: r.Schemata,
				EnableMonitoring: r.EnableMonitoring,
			}
			w.origin("/linux/intelRdt", d.from())
		}
		for _, h := range e.Hooks {
			if err := w.editHook(&d, h); err != nil {
				return err
			}
		}
	}
	return nil
}

// editNode gives the container a device node, and lets it use what that stands for.
func (w *writer) editNode(d *DeviceEdits, n *cdi.DeviceNode) {
	l, user := w.spec.Linux, w.spec.Process.User
	dev := specs.LinuxDevice{
		Path: path.Clean(n.Path), Type: n.Type, Major: n.Major, Minor: n.Minor, FileMode: n.FileMode, UID: n.UID, GID: n.GID,
	}
	// As CDI's own library: what the file doesn't say is the container's user.
	if dev.UID == nil && user.UID != 0 {
		dev.UID = &user.UID
	}
	if dev.GID == nil && user.GID != 0 {
		dev.GID = &user.GID
	}
	at := slices.IndexFunc(l.Devices, func(have specs.LinuxDevice) bool { return have.Path == dev.Path })
	if at < 0 {
		at = len(l.Devices)
		l.Devices = append(l.Devices, dev)
	} else {
		l.Devices[at] = dev
	}
	w.origin(fmt.Sprintf("/linux/devices/%d", at), d.from())
	access := n.Permissions
	if access == "" {
		access = "rwm"
	}
	if access != "none" && dev.Type != "p" && !w.c.Privileged {
		l.Resources.Devices = append(l.Resources.Devices, cgroup.Allow(dev.Type, dev.Major, dev.Minor, access))
	}
}

// editHook adds a program of the host that the device wants to be run.
func (w *writer) editHook(d *DeviceEdits, h *cdi.Hook) error {
	if w.spec.Hooks == nil {
		w.spec.Hooks = &specs.Hooks{}
	}
	all := w.spec.Hooks
	var list *[]specs.Hook
	switch h.HookName {
	case "prestart":
		//lint:ignore SA1019 prestart is deprecated, and still in use
		list = &all.Prestart
	case "createRuntime":
		list = &all.CreateRuntime
	case "createContainer":
		list = &all.CreateContainer
	default:
		return container.Unsupported("%s: it wants a hook of kind %s (%s): containers of glassbox have those of creation only "+
			"(prestart, createRuntime, createContainer)", d.from(), h.HookName, strings.Join(append([]string{h.Path}, h.Args...), " "))
	}
	w.origin(fmt.Sprintf("/hooks/%s/%d", h.HookName, len(*list)), d.from())
	*list = append(*list, specs.Hook{Path: h.Path, Args: h.Args, Env: h.Env, Timeout: h.Timeout})
	return nil
}
