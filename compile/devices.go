package compile

import (
	"fmt"
	"slices"
	"strings"

	"glassbox/plan"
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

func (c *container) devices() error {
	term := c.Spec.Process.Terminal
	if c.ownDev {
		given := map[string]bool{}
		for _, d := range c.Spec.Linux.Devices {
			given[d.Path] = true
		}
		for _, d := range defaultDevices {
			if given[d.path] {
				continue
			}
			n := &plan.Mknod{Path: d.path, Type: "c", Major: d.major, Minor: d.minor, Mode: 0o666}
			if d.path == "/dev/null" {
				n.Save = "null"
			}
			if !c.bindDevice(n, "", d.reason) {
				c.add(plan.Child, plan.Devices, n, "", d.reason)
			}
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
		n := &plan.Mknod{Path: d.Path, Type: d.Type, Major: uint32(d.Major), Minor: uint32(d.Minor), Mode: 0o666}
		if d.FileMode != nil {
			n.Mode = uint32(d.FileMode.Perm())
		}
		if d.UID != nil {
			n.UID = *d.UID
		}
		if d.GID != nil {
			n.GID = *d.GID
		}
		if d.Path == "/dev/null" && d.Type == "c" && d.Major == 1 && d.Minor == 3 {
			n.Save = "null"
		}
		const reason = "A device of the host that the container may use."
		if !c.bindDevice(n, ptr, reason) {
			c.add(plan.Child, plan.Devices, n, ptr, reason)
		}
	}
	if c.ownDev {
		for _, l := range [][2]string{{"/proc/self/fd", "/dev/fd"}, {"/proc/self/fd/0", "/dev/stdin"}, {"/proc/self/fd/1", "/dev/stdout"}, {"/proc/self/fd/2", "/dev/stderr"}} {
			c.add(plan.Child, plan.Devices, &plan.Symlink{Target: l[0], Path: l[1]}, "", "Programs expect this name.")
		}
		c.add(plan.Child, plan.Devices, &plan.Symlink{Target: "pts/ptmx", Path: "/dev/ptmx"}, "", "New terminals come from the container's own /dev/pts.")
	}
	if term {
		o := &plan.OpenConsole{Master: "master", Slave: "terminal", UID: c.Spec.Process.User.UID}
		if b := c.Spec.Process.ConsoleSize; b != nil {
			o.Rows, o.Cols = uint16(b.Height), uint16(b.Width)
		}
		c.add(plan.Child, plan.Terminal, o, "/process/terminal", "A terminal whose keyboard and screen are the supervisor.")
		c.add(plan.Child, plan.Terminal, &plan.SendFD{From: "master"}, "/process/terminal", "The supervisor gets the end that stands for keyboard and screen.")
		if c.ownDev {
			c.add(plan.Child, plan.Terminal, &plan.BindConsole{From: "terminal"}, "/process/terminal", "The console of the container is its terminal.")
		}
	}
	return nil
}
