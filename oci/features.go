package oci

import (
	"slices"

	"glassbox/seccomp"

	"github.com/opencontainers/runtime-spec/specs-go"
	"github.com/opencontainers/runtime-spec/specs-go/features"
)

// Features returns what the features command prints: which parts of the specification this runtime knows, whatever the host
// offers (runtime-spec, features.md).
func Features() *features.Features {
	yes := new(bool)
	*yes = true
	known := seccomp.Known()
	return &features.Features{
		OCIVersionMin: "1.0.0",
		OCIVersionMax: specs.Version,
		Hooks:         []string{"prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"},
		MountOptions:  slices.Clone(mountOptions),
		Linux: &features.Linux{
			Namespaces:   namespaceTypes(),
			Capabilities: capabilityNames(),
			Cgroup:       &features.Cgroup{V1: yes, V2: yes, Systemd: yes, SystemdUser: yes, Rdma: yes},
			Seccomp: &features.Seccomp{
				Enabled: yes, Actions: known.Actions, Operators: known.Operators, Archs: known.Archs,
				KnownFlags: known.Flags, SupportedFlags: known.Flags,
			},
			Apparmor:        &features.Apparmor{Enabled: yes},
			Selinux:         &features.Selinux{Enabled: yes},
			IntelRdt:        &features.IntelRdt{Enabled: yes, Schemata: yes, Monitoring: yes},
			MemoryPolicy:    &features.MemoryPolicy{Modes: memoryModes(), Flags: memoryFlags()},
			MountExtensions: &features.MountExtensions{IDMap: &features.IDMap{Enabled: yes}},
			NetDevices:      &features.NetDevices{Enabled: yes},
		},
		Annotations: map[string]string{"org.opencontainers.runc.checkpoint.enabled": "true"}, // whose name callers know
		// Settings of systemd's unit, which reach the host (cgroup.ScopeProperties), and a file with options of criu's, which can be programs.
		PotentiallyUnsafeConfigAnnotations: []string{"org.systemd.property.", "org.criu.config"},
	}
}
