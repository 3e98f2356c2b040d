package compile

import (
	"fmt"
	"path"
	"slices"
	"strings"

	"glassbox/plan"

	"github.com/opencontainers/runtime-spec/specs-go"
)

func mountName(i int) string { return fmt.Sprintf("mount:%d", i) }

func isBind(m specs.Mount) bool {
	return m.Type == "bind" || slices.Contains(m.Options, "bind") || slices.Contains(m.Options, "rbind")
}

// sealed is a mount that becomes read-only when everything is in it.
type sealed struct{ from, target, ptr string }

func (c *container) mounts() error {
	for i, m := range c.Spec.Mounts {
		ptr := fmt.Sprintf("/mounts/%d", i)
		if m.Destination == "" {
			return fmt.Errorf("%s/destination: missing", ptr)
		}
		if !strings.HasPrefix(m.Destination, "/") {
			c.warnings = append(c.warnings, fmt.Sprintf("%s/destination: %q is not an absolute path: it is taken as one, which is deprecated", ptr,
				m.Destination))
		}
		dest := path.Clean("/" + m.Destination)
		o := parseOptions(m.Options)
		if dest == "/" && !o.remount {
			return fmt.Errorf("%s/destination: the root itself can't be a mount's target", ptr)
		}
		if err := c.refuseProc(dest, m, ptr); err != nil {
			return err
		}
		if err := c.checkOptions(m, o, ptr); err != nil {
			return err
		}
		switch {
		case o.remount:
			r := &plan.Remount{
				Target: dest, Set: o.set, Clear: o.clear, RecSet: o.recSet, RecClear: o.recClear, Propagation: o.propagation,
				Options: slices.Concat(o.super, o.data),
			}
			c.add(plan.Child, plan.Mounts, r, ptr, "What is mounted there is changed, as far as the options say.")
		case c.taken(i, m, dest, o, ptr):
		case isBind(m):
			c.bind(i, m, dest, o, ptr)
		case m.Type == "cgroup" || m.Type == "cgroup2":
			if err := c.cgroupMount(i, m, dest, o, ptr); err != nil {
				return err
			}
		default:
			c.newMount(i, m, dest, o, ptr)
		}
	}
	return nil
}

// checkOptions refuses what would be without effect.
func (c *container) checkOptions(m specs.Mount, o mountOptions, ptr string) error {
	if slices.Contains(o.super, "mand") && c.Facts.Kernel.AtLeast(5, 15) {
		return fmt.Errorf("%s/options: \"mand\": Linux has no mandatory locks since 5.15", ptr)
	}
	if o.copyUp && m.Type != "tmpfs" {
		return fmt.Errorf("%s/options: \"tmpcopyup\" is for tmpfs", ptr)
	}
	if o.copyUp && len(o.classic) > 0 {
		return fmt.Errorf("%s/options: \"tmpcopyup\" is not possible with silent or iversion", ptr)
	}
	if o.copyUp && (c.users == joinedUsers || c.users == ownUsers && !c.privileged()) {
		return fmt.Errorf("%s/options: \"tmpcopyup\" is not possible in a user namespace that exists already, nor for an ordinary user", ptr)
	}
	if isBind(m) {
		if super := slices.Concat(o.super, without(slices.Clone(o.classic), "silent")); len(super) > 0 {
			if !c.NamedFlags {
				return fmt.Errorf("%s/options: %q belongs to the file system as a whole, a bind mount can't change it", ptr, super[0])
			}
			c.warnings = append(c.warnings,
				fmt.Sprintf("%s/options: %q belongs to the file system as a whole: the bind mount has it as its source has", ptr, super[0]))
		}
		if len(o.data) > 0 {
			return fmt.Errorf("%s/options: %q means nothing for a bind mount", ptr, o.data[0])
		}
		return nil
	}
	if o.remount {
		if len(o.classic) > 0 {
			return fmt.Errorf("%s/options: %q can't be changed later", ptr, o.classic[0])
		}
		return nil
	}
	if m.Type == "" || m.Type == "none" {
		return fmt.Errorf("%s/type: missing: a mount that isn't a bind mount (options bind, rbind) needs the type of a file system", ptr)
	}
	return nil
}

// bind attaches the mount that was cloned from the host.
//
// The clone is of the same peer group as its source where that is shared. Without a word about it, it leaves the group. Words
// count in order; if none of them speaks for the mounts below, these follow the host's, but not the other way around.
func (c *container) bind(i int, m specs.Mount, dest string, o mountOptions, ptr string) {
	// From here on /dev is the host's directory, whatever was mounted there before.
	if dest == "/dev" {
		c.ownDev, c.hostDev, c.devMount = false, true, ""
	}
	words := o.propagation
	switch {
	case len(words) > 0:
		if slices.Contains(m.Options, "rbind") &&
			!slices.ContainsFunc(words, func(w string) bool { return strings.HasPrefix(w, "r") || w == "shared" }) {
			// In front, so that what the words say of the mount itself comes after it and counts.
			words = slices.Insert(slices.Clone(words), 0, "rslave")
		}
	case strings.HasSuffix(c.Spec.Linux.RootfsPropagation, "slave"):
		words = []string{"rslave"}
	case strings.HasSuffix(c.Spec.Linux.RootfsPropagation, "shared"):
		words = []string{"rshared"}
	default:
		words = []string{"rprivate"}
	}
	reason := fmt.Sprintf("The host's %s is seen at %s.", m.Source, dest)
	if c.elsewhere(m) {
		reason = "It is the other container's, too."
	} else if slices.Contains(o.set, "ro") || slices.Contains(o.recSet, "ro") {
		reason = fmt.Sprintf("The host's %s is seen at %s, where it can only be read.", m.Source, dest)
	}
	var unlocked []string
	if c.NamedFlags {
		unlocked = o.unnamed()
	}
	if c.Mounts[dest].CopyUp {
		c.sendUnder(i, mountName(i), dest, ptr, false, "A volume begins with what the image has there.")
	}
	c.add(plan.Child, plan.Mounts, &plan.MoveMount{
		From: mountName(i), Target: dest, Create: "like", Set: o.set, Clear: o.clear, RecSet: o.recSet, RecClear: o.recClear, Propagation: words,
		Unlocked: unlocked, Replace: c.Overlay != nil && slices.Contains(c.Replace, dest),
	}, ptr, reason)
}

// fileSystem is a mount that is no clone, and not of cgroups of v1.
func (c *container) fileSystem(i int, m specs.Mount, o mountOptions) *plan.FSMount {
	dest := path.Clean("/" + m.Destination)
	fm := &plan.FSMount{
		Type: m.Type, Source: m.Source, Options: slices.Concat(o.super, o.data), Attrs: o.own(), Target: dest,
		Propagation: o.propagation, Flags: o.classic,
	}
	switch {
	case m.Type == "proc" && dest == "/proc":
		// Kept: settings are written through this descriptor, which no name in the container can stand in for.
		fm.Save = "proc"
	case m.Type == "cgroup" || m.Type == "cgroup2":
		return c.cgroupTop(i, m, o)
	}
	// What is still to be filled becomes read-only in the end.
	if (m.Type == "tmpfs" || dest == "/dev") && slices.Contains(fm.Attrs, "ro") {
		fm.Attrs, fm.Save = without(fm.Attrs, "ro"), mountName(i)
	}
	if m.Type == "tmpfs" && dest == "/dev" && fm.Save == "" {
		fm.Save = "dev" // devices are made in it, whatever its name comes to stand for
	}
	if m.Type == "tmpfs" && len(fm.Flags) == 0 && !slices.ContainsFunc(o.data, func(s string) bool { return strings.HasPrefix(s, "mode=") }) {
		// As Docker's tmpfs has it: /tmp of an image stays writable for all, with the sticky bit.
		fm.KeepMode = true
	}
	if strings.HasPrefix(m.Source, "/") && slices.Contains(fm.Attrs, "ro") {
		fm.Options = append(fm.Options, "ro") // a device that can't be written to can't be mounted otherwise
	}
	// Only what glassbox itself adds may be missing.
	fm.Optional = m.Type == "mqueue" && c.origin(fmt.Sprintf("/mounts/%d", i)) == "default"
	if label := c.Spec.Linux.MountLabel; label != "" {
		switch m.Type {
		case "proc", "sysfs":
		case "mqueue":
			fm.Label = label
		default:
			// With flags it is made by mount(2), which takes all options in one text (see plan.FSMount.Classic).
			if len(fm.Flags) > 0 {
				label = `"` + label + `"` // the comma in it
			}
			fm.Options = append(fm.Options, "context="+label)
		}
	}
	return fm
}

// newMount makes a file system, unless it is made already, and attaches it.
func (c *container) newMount(i int, m specs.Mount, dest string, o mountOptions, ptr string) {
	fm := c.fileSystem(i, m, o)
	switch {
	case fm.Save == "proc" && c.madeAhead(i):
		c.procfs = mountName(i)
	case fm.Save == "proc":
		c.procfs = "proc"
	case dest == "/dev":
		c.ownDev, c.hostDev, c.devMount = m.Type == "tmpfs", m.Type == "devtmpfs", ""
		if c.ownDev {
			c.devMount = fm.Save
			if c.madeAhead(i) || o.copyUp {
				c.devMount = mountName(i)
			}
		}
	}
	if fm.Save == mountName(i) {
		c.seal = append(c.seal, sealed{fm.Save, dest, ptr})
	}
	if o.copyUp {
		c.copyUp(i, fm, dest, ptr)
		return
	}
	c.put(i, fm, ptr, mountReason(m.Type, dest))
}

// put gives a file system its place: in one step with making it, or if it is made already by attaching it.
func (c *container) put(i int, fm *plan.FSMount, ptr, reason string) {
	if !c.madeAhead(i) {
		c.add(plan.Child, plan.Mounts, fm, ptr, reason)
		return
	}
	c.add(plan.Child, plan.Mounts, &plan.MoveMount{
		From: mountName(i), Target: fm.Target, Create: "dir", Propagation: fm.Propagation, NoSymlinks: fm.Type == "proc" || fm.Type == "sysfs",
		Keep: fm.Save != "" || c.procfs == mountName(i), KeepMode: fm.KeepMode,
	}, ptr, reason)
}

// refuseProc keeps mounts out of /proc: a fake file there would be taken for the kernel's by the container's own programs
// and, in other engines, by the engine (CVE-2019-16884). The files that lxcfs offers are the exception that runc makes, too.
func (c *container) refuseProc(dest string, m specs.Mount, ptr string) error {
	inside, ok := strings.CutPrefix(dest, "/proc/")
	if dest == "/proc" && m.Type == "proc" {
		return nil
	}
	if dest == "/proc" && isBind(m) {
		return nil // of a procfs, as debugging tools want: OpenTree makes sure of it
	}
	if !ok && dest != "/proc" {
		return nil
	}
	if ok && slices.Contains([]string{
		"cpuinfo", "diskstats", "meminfo", "stat", "swaps", "uptime", "loadavg", "slabinfo", "net/dev",
		"sys/kernel/ns_last_pid", "sys/crypto/fips_enabled",
	}, inside) {
		return nil
	}
	return fmt.Errorf("%s/destination: %s: mounts over /proc are refused, because what reads the kernel's files there would be deceived", ptr,
		dest)
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
