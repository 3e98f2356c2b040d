package compile

import (
	"fmt"
	"path"
	"slices"
	"strings"

	"glassbox/plan"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// defaultDevices are those that every container has (runtime-spec, config-linux.md, default devices).
var defaultDevices = []struct {
	path         string
	major, minor uint32
	reason       string
}{
	{"/dev/null", 1, 3, "What is written here disappears."},
	{"/dev/zero", 1, 5, "An endless run of zero bytes."},
	{"/dev/full", 1, 7, "A device that is always full."},
	{"/dev/random", 1, 8, "Random bytes from the kernel."},
	{"/dev/urandom", 1, 9, "Random bytes from the kernel."},
	{"/dev/tty", 5, 0, "The controlling terminal of whoever opens it."},
}

// devices writes the steps that fill /dev. It gets the default devices and links wherever it is the container's own: a tmpfs or
// the image's directory. Where it shows the host's devices, nothing is made: what the container needs must be there.
func (c *container) devices() error {
	existing := "same"
	if c.hostDev {
		existing = "required"
	}
	given := map[string]bool{}
	for _, d := range c.Spec.Linux.Devices {
		given[path.Clean(d.Path)] = true
	}
	for _, d := range defaultDevices {
		// A directory of the host's has its own. Only a null device is looked for there, as paths are masked by it.
		if given[d.path] || c.hostDev && (d.path != "/dev/null" || len(c.Spec.Linux.MaskedPaths) == 0) {
			continue
		}
		n := &plan.Mknod{Path: d.path, Type: "c", Major: d.major, Minor: d.minor, Mode: 0o666, Existing: existing, In: c.devMount}
		if d.path == "/dev/null" {
			n.Save = "null"
		}
		if !c.bindDevice(n, "", d.reason) {
			c.add(plan.Child, plan.Devices, n, "", d.reason)
		}
	}
	for i, d := range c.Spec.Linux.Devices {
		ptr := fmt.Sprintf("/linux/devices/%d", i)
		if !strings.HasPrefix(d.Path, "/") {
			return fmt.Errorf("%s/path: %q is not an absolute path", ptr, d.Path)
		}
		if !slices.Contains([]string{"c", "u", "b", "p"}, d.Type) {
			return fmt.Errorf("%s/type: unknown kind of device %q", ptr, d.Type)
		}
		// Twelve and twenty bits (MINORBITS in linux/kdev_t.h): the kernel would cut off the rest, and another device would be made.
		if d.Type != "p" && (d.Major < 0 || d.Major >= 1<<12 || d.Minor < 0 || d.Minor >= 1<<20) {
			return fmt.Errorf("%s: %d:%d is no number of a device", ptr, d.Major, d.Minor)
		}
		file := path.Clean(d.Path)
		if file == "/dev/ptmx" {
			continue // it is the link to the container's own, as runc has it, too
		}
		n := &plan.Mknod{Path: file, Type: d.Type, Major: uint32(d.Major), Minor: uint32(d.Minor), Mode: 0o666, Existing: "same"}
		switch over := c.mountOver(file); {
		case over != nil && (isBind(*over) || over.Type == "devtmpfs"):
			n.Existing = "required" // the directory is somebody else's: nothing is made there
		case over != nil && path.Clean("/"+over.Destination) == "/dev":
			n.In = c.devMount
		}
		if d.FileMode != nil {
			n.Mode = uint32(d.FileMode.Perm())
		}
		if d.UID != nil {
			n.UID = *d.UID
		}
		if d.GID != nil {
			n.GID = *d.GID
		}
		if n.UID == noID || n.GID == noID {
			return fmt.Errorf("%s: %d is no id of a user or group", ptr, noID)
		}
		if file == "/dev/null" {
			if d.Type == "c" && d.Major == 1 && d.Minor == 3 {
				n.Save = "null"
			} else if len(c.Spec.Linux.MaskedPaths) > 0 {
				return fmt.Errorf("%s: paths can be masked by a real /dev/null only (c 1:3)", ptr)
			}
		}
		const reason = "A device of the host that the container may use."
		if !c.bindDevice(n, ptr, reason) {
			c.add(plan.Child, plan.Devices, n, ptr, reason)
		}
	}
	if !c.hostDev {
		for _, l := range []plan.Symlink{
			{Target: "/proc/self/fd", Path: "/dev/fd"},
			{Target: "/proc/self/fd/0", Path: "/dev/stdin"},
			{Target: "/proc/self/fd/1", Path: "/dev/stdout"},
			{Target: "/proc/self/fd/2", Path: "/dev/stderr"},
			// As runc: only where there is such a file (CONFIG_PROC_KCORE).
			{Target: "/proc/kcore", Path: "/dev/core", Existing: true},
		} {
			l.In = c.devMount
			c.add(plan.Child, plan.Devices, &l, "", "Programs expect this name.")
		}
		c.add(plan.Child, plan.Devices, &plan.Symlink{Target: "pts/ptmx", Path: "/dev/ptmx", Replace: !c.ownDev, In: c.devMount}, "",
			"New terminals come from the container's own /dev/pts.")
	}
	if c.Spec.Process.Terminal {
		o := &plan.OpenConsole{Master: "master", Slave: "terminal", UID: c.Spec.Process.User.UID, Plain: c.PlainLines}
		if b := c.Spec.Process.ConsoleSize; b != nil {
			o.Rows, o.Cols = uint16(b.Height), uint16(b.Width)
		}
		c.add(plan.Child, plan.Terminal, o, "/process/terminal", "A terminal whose keyboard and screen are the supervisor.")
		c.add(plan.Child, plan.Terminal, &plan.SendFD{From: "master"}, "/process/terminal",
			"The supervisor gets the end that stands for keyboard and screen.")
		c.add(plan.Child, plan.Terminal, &plan.BindConsole{From: "terminal"}, "/process/terminal",
			"The console of the container is its terminal.")
	}
	return nil
}

// mountOver is the mount of the configuration in which a path lies, by its name: the last one of those with the longest target.
func (c *container) mountOver(file string) (over *specs.Mount) {
	longest := 0
	for i, m := range c.Spec.Mounts {
		dest := path.Clean("/" + m.Destination)
		if !slices.Contains(m.Options, "remount") && strings.HasPrefix(file, dest+"/") && len(dest) >= longest {
			over, longest = &c.Spec.Mounts[i], len(dest)
		}
	}
	return over
}

// devOfHost reports whether /dev will show devices of the host.
func (c *container) devOfHost() bool {
	host := false
	for _, m := range c.Spec.Mounts {
		if path.Clean("/"+m.Destination) == "/dev" && !slices.Contains(m.Options, "remount") {
			host = isBind(m) || m.Type == "devtmpfs"
		}
	}
	return host
}

func (c *container) givenDevice(file string) bool {
	return slices.ContainsFunc(c.Spec.Linux.Devices, func(d specs.LinuxDevice) bool { return path.Clean(d.Path) == file })
}

func deviceName(path string) string { return "device:" + path }

func (c *container) openDevice(path, kind string, major, minor uint32, ptr string) {
	if kind == "u" {
		kind = "c"
	}
	c.add(plan.Child, plan.Sources, &plan.OpenTree{Path: path, Save: deviceName(path), Device: fmt.Sprintf("%s %d:%d", kind, major, minor)},
		ptr,
		"Devices can't be made in a user namespace: the container gets the host's.")
}

// bindDevice attaches a device that sources took from the host, instead of making one, and reports whether it did.
func (c *container) bindDevice(n *plan.Mknod, ptr, reason string) bool {
	if !c.confined() || n.Type == "p" || n.Existing == "required" {
		return false
	}
	if ptr != "" && (n.Mode != 0o666 || n.UID != 0 || n.GID != 0) {
		c.warnings = append(c.warnings, ptr+": mode and owner of a device are those of the host's in a user namespace")
	}
	name := deviceName(n.Path)
	keep := n.Save != ""
	c.add(plan.Child, plan.Devices, &plan.MoveMount{From: name, Target: n.Path, Create: "file", Keep: keep}, ptr, reason)
	return true
}
