package oci

import (
	"encoding/json"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// DefaultOptions say for whom the example is.
type DefaultOptions struct {
	Rootless bool   // a container that an ordinary user can start
	UID, GID uint32 // that user, who is root in the container; for Rootless only
	CgroupNS bool   // a cgroup namespace, as is usual on hosts with cgroup v2
}

// Default returns the example that the spec command writes, a shell in the directory rootfs. It is the one that runc writes, but for
// the host name, because tools start from it and change what they know is there.
func Default(o DefaultOptions) *specs.Spec {
	caps := func() []string { return []string{"CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"} }
	s := &specs.Spec{
		Version: specs.Version,
		Process: &specs.Process{
			Terminal:        true,
			Args:            []string{"sh"},
			Env:             []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "TERM=xterm"},
			Cwd:             "/",
			Capabilities:    &specs.LinuxCapabilities{Bounding: caps(), Effective: caps(), Permitted: caps()},
			Rlimits:         []specs.POSIXRlimit{{Type: "RLIMIT_NOFILE", Hard: 1024, Soft: 1024}},
			NoNewPrivileges: true,
		},
		Root:     &specs.Root{Path: "rootfs", Readonly: true},
		Hostname: "glassbox",
		Mounts: []specs.Mount{
			mount("/proc", "proc", "proc", ""),
			mount("/dev", "tmpfs", "tmpfs", "nosuid strictatime mode=755 size=65536k"),
			mount("/dev/pts", "devpts", "devpts", "nosuid noexec newinstance ptmxmode=0666 mode=0620 gid=5"),
			mount("/dev/shm", "tmpfs", "shm", "nosuid noexec nodev mode=1777 size=65536k"),
			mount("/dev/mqueue", "mqueue", "mqueue", "nosuid noexec nodev"),
			mount("/sys", "sysfs", "sysfs", "nosuid noexec nodev ro"),
			mount("/sys/fs/cgroup", "cgroup", "cgroup", "nosuid noexec nodev relatime ro"),
		},
		Linux: &specs.Linux{
			Resources: &specs.LinuxResources{Devices: []specs.LinuxDeviceCgroup{{Allow: false, Access: "rwm"}}},
			Namespaces: []specs.LinuxNamespace{
				{Type: specs.PIDNamespace},
				{Type: specs.NetworkNamespace},
				{Type: specs.IPCNamespace},
				{Type: specs.UTSNamespace},
				{Type: specs.MountNamespace},
			},
			MaskedPaths: []string{
				"/proc/acpi", "/proc/asound", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/timer_list", "/proc/timer_stats",
				"/proc/sched_debug", "/sys/firmware", "/proc/scsi", "/sys/devices/virtual/powercap",
			},
			ReadonlyPaths: []string{"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"},
		},
	}
	if o.CgroupNS {
		s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: specs.CgroupNamespace})
	}
	if o.Rootless {
		rootless(s, o)
	}
	return s
}

// rootless takes out what an ordinary user may not do: a network namespace without anybody to wire it, a new sysfs (which belongs
// to the network namespace), the group of terminals, which isn't mapped, and limits.
func rootless(s *specs.Spec, o DefaultOptions) {
	l := s.Linux
	var kept []specs.LinuxNamespace
	for _, n := range l.Namespaces {
		if n.Type != specs.NetworkNamespace {
			kept = append(kept, n)
		}
	}
	l.Namespaces = append(kept, specs.LinuxNamespace{Type: specs.UserNamespace})
	l.UIDMappings = []specs.LinuxIDMapping{{HostID: o.UID, Size: 1}}
	l.GIDMappings = []specs.LinuxIDMapping{{HostID: o.GID, Size: 1}}
	l.Resources = nil
	for i, m := range s.Mounts {
		switch m.Destination {
		case "/dev/pts":
			s.Mounts[i] = mount("/dev/pts", "devpts", "devpts", "nosuid noexec newinstance ptmxmode=0666 mode=0620")
		case "/sys":
			s.Mounts[i] = mount("/sys", "none", "/sys", "rbind nosuid noexec nodev ro")
		}
	}
}

func mount(destination, kind, source, options string) specs.Mount {
	m := specs.Mount{Destination: destination, Type: kind, Source: source}
	if options != "" {
		m.Options = strings.Fields(options)
	}
	return m
}

// Marshal writes a configuration the way it stands in bundles: indented by tabs, no line end behind the last brace.
func Marshal(s *specs.Spec) ([]byte, error) { return json.MarshalIndent(s, "", "\t") }
