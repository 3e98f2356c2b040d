package spec

import (
	"path"
	"slices"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"

	"glassbox/container"
	"glassbox/host"
	"glassbox/plan"
	"glassbox/seccomp"
)

// defaultCaps are the capabilities of an ordinary container: Docker's fourteen.
var defaultCaps = []string{
	"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FSETID", "CAP_FOWNER", "CAP_MKNOD", "CAP_NET_RAW", "CAP_SETGID", "CAP_SETUID",
	"CAP_SETFCAP", "CAP_SETPCAP", "CAP_NET_BIND_SERVICE", "CAP_SYS_CHROOT", "CAP_KILL", "CAP_AUDIT_WRITE",
}

var maskedPaths = []string{
	"/proc/acpi", "/proc/asound", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/sched_debug",
	"/proc/scsi", "/proc/timer_list", "/proc/timer_stats", "/sys/devices/virtual/powercap", "/sys/firmware",
}

var readonlyPaths = []string{"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"}

// MaskedPaths are the paths that a container doesn't see; nil for one that sees all.
func MaskedPaths(c *container.Config) []string { return paths(c, c.Security.Masked, maskedPaths) }

// ReadonlyPaths are the paths that a container can't write to, whoever it is.
func ReadonlyPaths(c *container.Config) []string { return paths(c, c.Security.ReadOnly, readonlyPaths) }

func paths(c *container.Config, chosen *[]string, usual []string) []string {
	switch {
	case c.Privileged:
		return nil
	case chosen != nil:
		return *chosen
	case c.Security.Unmasked:
		return nil
	}
	return usual
}

// AllCaps are the capabilities that can be given on a host: those the kernel knows and the engine has itself.
func AllCaps(facts *host.Facts) []string {
	var all []string
	for n := 0; n <= facts.LastCap; n++ {
		if name := plan.CapName(n); name != "" && facts.Caps&(1<<n) != 0 {
			all = append(all, name)
		}
	}
	return all
}

func (w *writer) capabilities() error {
	c := w.c
	set := map[string]bool{}
	give := func(names []string) {
		for _, name := range names {
			set[name] = true
		}
	}
	if c.Privileged {
		give(AllCaps(w.Facts))
		w.from("/process/capabilities", "privileged", "")
	} else {
		give(defaultCaps)
	}
	// As Docker: "drop ALL, add X" and "add ALL, drop X" both mean what they say, in whichever order they stand.
	if slices.Contains(c.CapDrop, "CAP_ALL") {
		clear(set)
	}
	if slices.Contains(c.CapAdd, "CAP_ALL") {
		give(AllCaps(w.Facts))
	}
	for _, name := range c.CapDrop {
		delete(set, name)
	}
	give(slices.DeleteFunc(slices.Clone(c.CapAdd), func(name string) bool { return name == "CAP_ALL" }))
	var names []string
	for n := 0; n < plan.CapCount(); n++ {
		if set[plan.CapName(n)] {
			names = append(names, plan.CapName(n))
		}
	}
	if words := strings.TrimSpace(c.Origin("cap-drop") + " " + c.Origin("cap-add")); words != "" {
		w.out.Origins["/process/capabilities"] = words
	}
	caps := &specs.LinuxCapabilities{Bounding: names}
	if w.spec.Process.User.UID == 0 {
		caps.Effective, caps.Permitted = names, names
	}
	w.spec.Process.Capabilities = caps
	return nil
}

func (w *writer) security() error {
	c, s := w.c, &w.c.Security
	profile := s.Seccomp
	if profile == "" {
		profile = "default"
		if c.Privileged {
			profile = "unconfined"
		}
	}
	for _, opt := range s.Options {
		pointer := map[string]string{
			"no-new-privileges": "/process/noNewPrivileges", "seccomp": "/linux/seccomp", "apparmor": "/process/apparmorProfile",
		}[strings.FieldsFunc(opt, func(r rune) bool { return r == '=' || r == ':' })[0]]
		if pointer != "" {
			w.out.Origins[pointer] = "--security-opt " + opt
		}
	}
	w.spec.Process.NoNewPrivileges = s.NoNewPrivileges
	if s.AppArmor != "" && s.AppArmor != "unconfined" && !slices.Contains(w.Facts.LSM, "apparmor") {
		return container.Unsupported("--security-opt apparmor=%s: AppArmor is not active on this host", s.AppArmor)
	}
	w.spec.Process.ApparmorProfile = s.AppArmor

	so := seccomp.DefaultOptions{
		Arch: w.Facts.Arch, Caps: w.spec.Process.Capabilities.Bounding, KernelMajor: w.Facts.Kernel.Major, KernelMinor: w.Facts.Kernel.Minor,
		KeepProject: w.Container.Layer != nil,
	}
	if so.KeepProject && (profile != "default" && profile != "builtin" || slices.Contains(so.Caps, "CAP_SYS_ADMIN")) {
		w.out.Warnings = append(w.out.Warnings, "root of the container can lift the bound of --storage-opt size=: the default filter of system "+
			"calls keeps others from that, where there is no CAP_SYS_ADMIN")
	}
	switch profile {
	case "unconfined":
	case "default", "builtin":
		w.spec.Linux.Seccomp = seccomp.Default(so)
		w.out.SeccompName = "default"
	default:
		var err error
		if w.spec.Linux.Seccomp, err = seccomp.ParseProfile(w.Answers.SeccompProfile, so); err != nil {
			return container.Invalid("seccomp profile %s: %v", profile, err)
		}
		w.out.SeccompName = path.Base(profile)
	}
	w.spec.Linux.MaskedPaths, w.spec.Linux.ReadonlyPaths = MaskedPaths(c), ReadonlyPaths(c)
	return nil
}
