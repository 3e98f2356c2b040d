package spec

import (
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"

	"glassbox/compile"
	"glassbox/container"
	"glassbox/host"
	"glassbox/plan"
)

// DefaultShmSize is the size of /dev/shm in bytes: Docker's.
const DefaultShmSize = 64 << 20

// mount adds a mount; one to the same place replaces the one before it.
func (w *writer) mount(m specs.Mount, origin string) {
	m.Destination = path.Clean(m.Destination)
	delete(w.out.Mounts, m.Destination)
	i, ok := w.seenMount[m.Destination]
	if ok {
		w.spec.Mounts[i] = m
	} else {
		i = len(w.spec.Mounts)
		w.seenMount[m.Destination] = i
		w.spec.Mounts = append(w.spec.Mounts, m)
	}
	w.origin(fmt.Sprintf("/mounts/%d", i), origin)
}

func (w *writer) mounts() error {
	w.systemMounts()
	first := len(w.spec.Mounts)
	w.ownFiles()
	for _, m := range w.Container.Mounts() {
		if m.Origin == "" && m.Form == container.FormImage {
			m.Origin = "image config"
		}
		switch m.Type {
		case container.Volume:
			w.volume(&m)
			continue
		case container.Layers:
			if err := w.layers(&m); err != nil {
				return err
			}
			continue
		}
		w.mount(asked(&m), m.Origin)
		if m.MakeSource || m.NoLinks {
			w.out.Mounts[m.Target] = compile.MountExtra{MakeSource: m.MakeSource, NoLinks: m.NoLinks}
		}
	}
	w.editMounts()
	w.sortMounts(first)
	return w.idMaps()
}

// volume adds a volume's mount. It begins with what the image has there, if it is empty.
func (w *writer) volume(m *container.Mount) {
	var extra compile.MountExtra
	copied := *m
	if m.Dir != "" { // of the container's own, which an older build made
		copied.Source = w.dir(m.Dir)
		extra = compile.MountExtra{MakeSource: true, CopyUp: !w.Answers.Used}
	} else {
		v := w.Answers.Volumes[m.Source]
		dir := path.Join(w.Root, "volumes", m.Source)
		copied.Source = v.Source
		if v.Source == "" {
			copied.Source = path.Join(dir, "_data")
		}
		extra = compile.MountExtra{CopyUp: !v.Filled && !m.NoCopy && m.Subpath == "", Beneath: m.Subpath}
		extra.Mount = v.Mount
		if extra.CopyUp {
			extra.Volume, extra.Within = dir, v.Device
		}
	}
	w.mount(asked(&copied), m.Origin)
	w.out.Mounts[m.Target] = extra
}

// layers adds the mount of an image's files.
func (w *writer) layers(m *container.Mount) error {
	mount, err := ImageMount(w.Input, m)
	if err != nil {
		return err
	}
	copied := *m
	copied.Source = mount.Target
	w.mount(asked(&copied), m.Origin)
	w.out.Mounts[m.Target] = compile.MountExtra{Mount: mount, Beneath: m.Subpath}
	return nil
}

// ImageMount is how the host mounts the files of an image: its layers as a read-only overlay, in the container's directory.
func ImageMount(in Input, m *container.Mount) (*plan.HostMount, error) {
	dirs := in.Answers.Images[m.Target]
	n := slices.IndexFunc(in.Container.Mounts(), func(o container.Mount) bool { return o.Target == m.Target })
	mount := &plan.HostMount{
		Type: "overlay", Source: "overlay", Flags: []string{"ro", "nosuid", "nodev"},
		Target: path.Join(in.Root, in.Dir, fmt.Sprintf("image%d", n)),
	}
	size, special := 0, false
	var paths []string
	for _, dir := range slices.Backward(dirs) {
		dir = path.Join(in.Root, dir)
		size += len(dir) + 1
		special = special || strings.ContainsAny(dir, `:,\`)
		paths = append(paths, dir)
	}
	if in.Facts.Kernel.AtLeast(6, 5) {
		for _, dir := range paths {
			mount.Options = append(mount.Options, "lowerdir+="+dir)
		}
		return mount, nil
	}
	const room = 4000 // of the page that mount(2) takes
	if size > room || special {
		return nil, container.Unsupported("%s: before Linux 6.5 the %d layers of the image can't be named in the options of one mount", m.Origin,
			len(dirs))
	}
	mount.Options = []string{"lowerdir=" + strings.Join(paths, ":")}
	return mount, nil
}

// idMaps gives mounts with idmap their ids: who owns their files on the host, and who the container's user is, change places.
func (w *writer) idMaps() error {
	for _, m := range w.Container.Mounts() {
		if !m.IDMap {
			continue
		}
		owner := w.Answers.Owners[m.Target]
		user := w.spec.Process.User
		i := slices.IndexFunc(w.spec.Mounts, func(o specs.Mount) bool { return o.Destination == m.Target })
		w.spec.Mounts[i].UIDMappings = swap(owner[0], user.UID)
		w.spec.Mounts[i].GIDMappings = swap(owner[1], user.GID)
	}
	return nil
}

// swap maps all ids to themselves, but for two, which change places.
func swap(a, b uint32) []specs.LinuxIDMapping {
	const all = 1<<32 - 1 // the last one, 4294967295, is none
	low, high := min(a, b), max(a, b)
	var out []specs.LinuxIDMapping
	add := func(from, to, size uint64) {
		if size > 0 {
			out = append(out, specs.LinuxIDMapping{ContainerID: uint32(from), HostID: uint32(to), Size: uint32(size)})
		}
	}
	l, h := uint64(low), uint64(high)
	add(0, 0, l)
	if l == h {
		add(l, l, all-l)
		return out
	}
	add(l, h, 1)
	add(l+1, l+1, h-l-1)
	add(h, l, 1)
	add(h+1, h+1, all-h-1)
	return out
}

// systemMounts are those that every container has: what the kernel shows of itself, devices, shared memory.
func (w *writer) systemMounts() {
	c := w.c
	strict := []string{"nosuid", "noexec", "nodev"}
	sys := append(slices.Clone(strict), "ro")
	if c.Privileged {
		sys = strict
	}
	w.mount(specs.Mount{Destination: "/proc", Type: "proc", Source: "proc", Options: strict}, "")
	w.mount(specs.Mount{
		Destination: "/dev", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "strictatime", "mode=755", "size=65536k"},
	}, "")
	w.mount(specs.Mount{
		Destination: "/dev/pts", Type: "devpts", Source: "devpts",
		Options: []string{"nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"}, // 5 is the group tty everywhere
	}, "")
	w.mount(specs.Mount{Destination: "/sys", Type: "sysfs", Source: "sysfs", Options: sys}, "")
	if w.Facts.Cgroup.Mode != host.CgroupNone {
		w.mount(specs.Mount{Destination: "/sys/fs/cgroup", Type: "cgroup", Source: "cgroup", Options: sys}, "")
	}
	if w.ownNamespace(specs.IPCNamespace) {
		w.mount(specs.Mount{Destination: "/dev/mqueue", Type: "mqueue", Source: "mqueue", Options: strict}, "")
	}
	size := c.ShmSize
	if size == 0 {
		size = DefaultShmSize
	}
	own := specs.Mount{
		Destination: "/dev/shm", Type: "tmpfs", Source: "shm", Options: append(slices.Clone(strict), "mode=1777",
			"size="+strconv.FormatInt(size, 10)),
	}
	switch ipc := c.Namespaces.IPC; {
	case ipc.IsHost():
		w.mount(specs.Mount{Destination: "/dev/shm", Type: "bind", Source: "/dev/shm", Options: []string{"rbind", "rprivate"}}, c.Origin("ipc"))
	case ipc == "none":
	case ipc.Container() != "":
		w.mount(specs.Mount{Destination: "/dev/shm", Type: "bind", Source: "/dev/shm", Options: []string{"bind", "rprivate"}}, c.Origin("ipc"))
		w.out.Mounts["/dev/shm"] = compile.MountExtra{Namespace: fmt.Sprintf("/proc/%d/ns/mnt", w.Answers.Shared["ipc"].PID)}
	default:
		w.mount(own, c.Origin("shm-size"))
	}
}

// OwnFiles are the files of a container that the engine writes, as the container sees them. An image may have links there, to what only
// its author's host had.
func OwnFiles() []string { return []string{"/etc/resolv.conf", "/etc/hostname", "/etc/hosts"} }

// ownFiles are the files that the engine writes for a container. A plain directory given with --rootfs belongs to the user: nothing is made
// in it, so only files that exist are covered.
func (w *writer) ownFiles() {
	for _, file := range OwnFiles() {
		name := path.Base(file)
		if r := w.c.Rootfs; r != nil && !r.Overlay && !slices.Contains(w.Answers.EtcFiles, name) {
			continue
		}
		w.mount(specs.Mount{Destination: file, Type: "bind", Source: w.dir(name), Options: []string{"rbind", "rprivate"}}, "")
	}
	if w.c.Init {
		w.mount(specs.Mount{
			Destination: InitPath, Type: "bind", Source: w.Runtime, Options: []string{"bind", "ro", "nosuid", "nodev", "private"},
		}, w.c.Origin("init"))
	}
}

// asked is a mount that was asked for, in the words of the OCI configuration.
func asked(m *container.Mount) specs.Mount {
	if m.Type == container.Tmpfs {
		// Docker's defaults, each taken back by its opposite.
		opts := []string{"noexec", "nosuid", "nodev"}
		for _, opt := range m.Options {
			opts = slices.DeleteFunc(opts, func(s string) bool { return s == "no"+opt })
			if opt != "rw" {
				opts = append(opts, opt)
			}
		}
		if m.ReadOnly && !slices.Contains(opts, "ro") {
			opts = append(opts, "ro")
		}
		return specs.Mount{Destination: m.Target, Type: "tmpfs", Source: "tmpfs", Options: opts}
	}
	bind := "rbind"
	if m.Recursive == container.RecursiveDisabled || m.Type != container.Bind { // nothing is mounted below a volume
		bind = "bind"
	}
	opts := []string{bind}
	switch {
	case m.ReadOnly && m.Recursive == container.RecursiveWritable:
		opts = append(opts, "ro")
	case m.ReadOnly:
		opts = append(opts, "rro") // also what is mounted below it, as Docker since 25
	}
	opts = append(opts, m.Options...)
	return specs.Mount{Destination: m.Target, Type: "bind", Source: m.Source, Options: append(opts, m.PropagationWord())}
}

// sortMounts puts the mounts of user, image and engine in an order in which none hides another (a volume at /etc the engine's /etc/hosts):
// by the depth of their targets.
func (w *writer) sortMounts(first int) {
	type entry struct {
		m      specs.Mount
		origin string
	}
	pointer := func(i int) string { return fmt.Sprintf("/mounts/%d", first+i) }
	var entries []entry
	for i, m := range w.spec.Mounts[first:] {
		entries = append(entries, entry{m, w.out.Origins[pointer(i)]})
	}
	depth := func(e entry) int { return strings.Count(e.m.Destination, "/") }
	slices.SortStableFunc(entries, func(x, y entry) int { return depth(x) - depth(y) })
	for i, e := range entries {
		w.spec.Mounts[first+i] = e.m
		w.out.Origins[pointer(i)] = e.origin
	}
}
