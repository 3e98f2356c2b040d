package compile

import (
	"fmt"
	"slices"
	"strings"

	"glassbox/host"
	"glassbox/plan"

	"github.com/opencontainers/runtime-spec/specs-go"
)

func (c *container) rootfs() error {
	s := c.Spec
	prop := s.Linux.RootfsPropagation
	flags := []string{"rec", "private"}
	switch prop {
	case "", "private", "rprivate":
	case "slave", "rslave":
		flags[1] = "slave"
	case "shared", "rshared":
		flags[1] = "shared"
	case "unbindable", "runbindable":
		flags[1] = "private"
	default:
		return fmt.Errorf("/linux/rootfsPropagation: unknown value %q", prop)
	}
	c.add(plan.Child, plan.Rootfs, &plan.Mount{Target: "/", Flags: flags}, "/linux/rootfsPropagation",
		"Mounts made from here on stay in the container's mount namespace.")
	target := c.Mountpoint
	if c.Overlay != nil {
		if err := c.sources(); err != nil {
			return err
		}
		c.become() // overlayfs goes on with the ids of who mounts it
		c.add(plan.Child, plan.Rootfs, c.Overlay, "/root", "The image's layers are stacked; writes go to the container's own upper directory, the image stays as it is.")
	} else {
		if target == "" {
			target = s.Root.Path
		}
		c.add(plan.Child, plan.Rootfs, &plan.Mount{Source: s.Root.Path, Target: target, Flags: []string{"bind", "rec"}}, "/root/path",
			"pivot_root wants a mount: the directory is bound to itself or to an empty directory.")
		if err := c.sources(); err != nil {
			return err
		}
	}
	if c.hooked() {
		c.add(plan.Child, plan.Rootfs, &plan.RootDir{Path: target}, "/root", "Names of the container are looked up below it from here on; hooks want to see it before it becomes the root.")
	} else {
		c.add(plan.Child, plan.Rootfs, &plan.PivotRoot{Root: target}, "/root", pivotReason)
	}
	if c.Overlay == nil {
		c.become()
	}
	return nil
}

const pivotReason = "The new root replaces the old one, which is detached: unlike after chroot, no way leads back."

func mountName(i int) string { return fmt.Sprintf("mount:%d", i) }

func isBind(m specs.Mount) bool {
	return m.Type == "bind" || slices.Contains(m.Options, "bind") || slices.Contains(m.Options, "rbind")
}

// mountOptions is a mount's option list, sorted by what takes it.
type mountOptions struct {
	set, clear   []string // attributes of the mount
	recSet       []string // attributes of the mount and those below it
	recClear     []string
	data         []string // for the file system
	propagation  string
	recursivePro bool
}

func parseOptions(options []string) mountOptions {
	var o mountOptions
	attrs := []string{"ro", "nosuid", "nodev", "noexec", "noatime", "nodiratime", "relatime", "strictatime", "nosymfollow"}
	opposite := map[string]string{
		"rw": "ro", "suid": "nosuid", "dev": "nodev", "exec": "noexec", "atime": "noatime", "diratime": "nodiratime",
		"norelatime": "relatime", "nostrictatime": "strictatime", "symfollow": "nosymfollow",
	}
	for _, opt := range options {
		plain, rec := strings.CutPrefix(opt, "r")
		switch {
		case opt == "bind" || opt == "rbind" || opt == "defaults" || opt == "" || opt == "idmap" || opt == "ridmap":
		case slices.Contains(attrs, opt):
			o.set = append(o.set, opt)
			o.clear = slices.DeleteFunc(o.clear, func(s string) bool { return s == opt })
		case opposite[opt] != "":
			o.clear = append(o.clear, opposite[opt])
			o.set = slices.DeleteFunc(o.set, func(s string) bool { return s == opposite[opt] })
		case opt == "private" || opt == "slave" || opt == "shared" || opt == "unbindable":
			o.propagation = opt
		case opt == "rprivate" || opt == "rslave" || opt == "rshared" || opt == "runbindable":
			o.propagation, o.recursivePro = plain, true
		case rec && slices.Contains(attrs, plain):
			o.recSet = append(o.recSet, plain)
		case rec && opposite[plain] != "":
			o.recClear = append(o.recClear, opposite[plain])
		default:
			o.data = append(o.data, opt)
		}
	}
	return o
}

func (c *container) mounts() error {
	for i, m := range c.Spec.Mounts {
		ptr := fmt.Sprintf("/mounts/%d", i)
		if !strings.HasPrefix(m.Destination, "/") {
			return fmt.Errorf("%s/destination: %q is not an absolute path", ptr, m.Destination)
		}
		dest := strings.TrimRight(m.Destination, "/")
		if dest == "" {
			return fmt.Errorf("%s/destination: the root itself can't be a mount's target", ptr)
		}
		if err := c.refuseProc(dest, m, ptr); err != nil {
			return err
		}
		o := parseOptions(m.Options)
		switch {
		case c.taken(i, m, dest, o, ptr):
		case isBind(m):
			if len(o.data) > 0 {
				return fmt.Errorf("%s/options: %q means nothing for a bind mount", ptr, o.data[0])
			}
			if dest == "/dev" {
				c.ownDev = false
			}
			mm := &plan.MoveMount{From: mountName(i), Target: dest, Create: "like", Set: o.set, Clear: o.clear, Propagation: o.propagation}
			if len(o.recSet)+len(o.recClear) > 0 {
				mm.Set, mm.Clear, mm.Recursive = append(o.set, o.recSet...), append(o.clear, o.recClear...), true
			}
			if mm.Propagation == "" {
				mm.Propagation = "private"
			}
			reason := fmt.Sprintf("The host's %s is seen at %s.", m.Source, dest)
			if slices.Contains(mm.Set, "ro") {
				reason = fmt.Sprintf("The host's %s is seen at %s, where it can only be read.", m.Source, dest)
			}
			c.add(plan.Child, plan.Mounts, mm, ptr, reason)
		case m.Type == "cgroup" || m.Type == "cgroup2":
			c.cgroupMount(dest, o, ptr)
		default:
			fm := &plan.FSMount{Type: m.Type, Source: m.Source, Options: o.data, Attrs: append(o.set, o.recSet...), Target: dest}
			switch {
			case m.Type == "":
				return fmt.Errorf("%s/type: missing", ptr)
			case m.Type == "proc" && dest == "/proc":
				fm.Save = "proc"
				c.procfs = "proc"
			case dest == "/dev":
				c.ownDev = m.Type == "tmpfs"
			}
			if m.Type == "mqueue" {
				fm.Optional = true
			}
			c.add(plan.Child, plan.Mounts, fm, ptr, mountReason(m.Type, dest))
			if o.propagation != "" && o.propagation != "private" {
				c.add(plan.Child, plan.Mounts, &plan.Remount{Target: dest, Propagation: o.propagation, Recursive: o.recursivePro}, ptr, "How mounts below this one are shared.")
			}
		}
	}
	return nil
}

// refuseProc keeps mounts out of /proc: a fake file there would be taken for the kernel's by the container's own programs
// and, in other engines, by the engine (CVE-2019-16884). The files that lxcfs offers are the exception that runc makes, too.
func (c *container) refuseProc(dest string, m specs.Mount, ptr string) error {
	inside, ok := strings.CutPrefix(dest, "/proc/")
	if dest == "/proc" && m.Type == "proc" {
		return nil
	}
	if dest == "/proc" && isBind(m) && (m.Source == "/proc" || m.Source == "/proc/") {
		return nil // the host's procfs, as debugging tools want
	}
	if !ok && dest != "/proc" {
		return nil
	}
	if ok && slices.Contains([]string{"cpuinfo", "diskstats", "meminfo", "stat", "swaps", "uptime", "loadavg", "slabinfo", "net/dev", "sys/kernel/ns_last_pid", "sys/crypto/fips_enabled"}, inside) {
		return nil
	}
	return fmt.Errorf("%s/destination: %s: mounts over /proc are refused, because what reads the kernel's files there would be deceived", ptr, dest)
}

func mountReason(kind, dest string) string {
	switch kind {
	case "proc":
		return "Process information of the container's own PID namespace."
	case "sysfs":
		return "The kernel's view of devices, and the network devices of the container's own namespace."
	case "devpts":
		return "Terminals of the container's own."
	case "mqueue":
		return "POSIX message queues of the container's own IPC namespace."
	case "tmpfs":
		switch dest {
		case "/dev":
			return "An empty directory in memory: the devices in it are those that this plan makes."
		case "/dev/shm":
			return "POSIX shared memory, limited in size."
		}
		return "A directory in memory, gone with the container."
	}
	return "A new " + kind + " file system."
}

// cgroupMount shows the container its own cgroups: one mount on v2; on v1 a tmpfs with one mount per hierarchy.
func (c *container) cgroupMount(dest string, o mountOptions, ptr string) {
	f := c.Facts.Cgroup
	attrs := append(append([]string{}, o.set...), o.recSet...)
	switch f.Mode {
	case host.CgroupV2:
		c.add(plan.Child, plan.Mounts, &plan.FSMount{Type: "cgroup2", Source: "cgroup", Attrs: attrs, Target: dest}, ptr,
			"The container sees its own limits and use; its cgroup namespace hides the rest of the tree.")
	case host.CgroupV1, host.CgroupHybrid:
		rw := slices.DeleteFunc(slices.Clone(attrs), func(a string) bool { return a == "ro" })
		c.add(plan.Child, plan.Mounts, &plan.FSMount{Type: "tmpfs", Source: "tmpfs", Options: []string{"mode=755"}, Attrs: rw, Target: dest}, ptr,
			"With cgroup v1 each controller has a mount of its own; this directory holds them.")
		for _, h := range f.Hierarchies {
			if h.V2 || len(h.Controllers) == 0 {
				continue
			}
			name := h.Mount[strings.LastIndexByte(h.Mount, '/')+1:]
			var options []string
			for _, ctl := range h.Controllers {
				if strings.HasPrefix(ctl, "name=") {
					options = append(options, "none", ctl)
				} else {
					options = append(options, ctl)
				}
			}
			c.add(plan.Child, plan.Mounts, &plan.FSMount{Type: "cgroup", Source: "cgroup", Options: options, Attrs: attrs, Target: dest + "/" + name}, ptr,
				"The container sees its own limits and use of "+strings.Join(h.Controllers, " and ")+".")
			for _, ctl := range h.Controllers {
				if ctl != name && !strings.HasPrefix(ctl, "name=") {
					c.add(plan.Child, plan.Mounts, &plan.Symlink{Target: name, Path: dest + "/" + ctl}, ptr, "Programs look for the controller under its own name, too.")
				}
			}
		}
		if slices.Contains(attrs, "ro") {
			c.add(plan.Child, plan.Mounts, &plan.Remount{Target: dest, Set: []string{"ro"}}, ptr, "A container must not change its own limits.")
		}
	}
}

// null makes sure that there is a descriptor of a real null device for masking.
func (c *container) null() string {
	for _, s := range c.steps {
		switch n := s.Op.(type) {
		case *plan.Mknod:
			if n.Save == "null" {
				return "null"
			}
		case *plan.MoveMount:
			if n.Keep && n.From == deviceName("/dev/null") {
				return n.From
			}
		}
	}
	return ""
}

func (c *container) paths() error {
	null := c.null()
	for i, p := range c.Spec.Linux.MaskedPaths {
		ptr := fmt.Sprintf("/linux/maskedPaths/%d", i)
		if null == "" {
			return fmt.Errorf("%s: masking needs a /dev of the container's own (a tmpfs)", ptr)
		}
		c.add(plan.Child, plan.Mounts, &plan.MaskPath{Path: p, Null: null}, ptr, "It tells about the host, or lets it be changed.")
	}
	for i, p := range c.Spec.Linux.ReadonlyPaths {
		c.add(plan.Child, plan.Mounts, &plan.ReadonlyPath{Path: p}, fmt.Sprintf("/linux/readonlyPaths/%d", i), "It holds settings of the whole host.")
	}
	return nil
}
