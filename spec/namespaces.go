package spec

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"

	"glassbox/container"
)

var namespaceTypes = map[string]specs.LinuxNamespaceType{
	"mount": specs.MountNamespace, "pid": specs.PIDNamespace, "uts": specs.UTSNamespace, "ipc": specs.IPCNamespace,
	"net": specs.NetworkNamespace, "cgroup": specs.CgroupNamespace, "time": specs.TimeNamespace, "user": specs.UserNamespace,
}

// namespaces decides which namespaces are new, and which are another container's.
func (w *writer) namespaces() error {
	c := w.c
	names := []string{"mount", "pid", "uts", "ipc", "net", "cgroup"}
	if c.Namespaces.New != nil {
		names = slices.Clone(c.Namespaces.New)
	}
	w.from("/linux/namespaces", "ns", "")
	w.out.Network = c.Network()
	if !slices.Contains(names, "net") && c.Namespaces.New != nil {
		if len(c.Endpoints) > 0 && c.Endpoints[0].Network != "" && c.Network() != "host" {
			return container.Invalid("--network %s needs a network namespace, which --ns leaves out", c.Network())
		}
		w.out.Network = "host"
	}
	paths := map[string]string{}
	share := func(ns, flag string, mode container.Mode) {
		w.from("/linux/namespaces", flag, "")
		switch {
		case mode.IsHost():
			names = slices.DeleteFunc(names, func(n string) bool { return n == ns })
		case mode.Container() != "":
			paths[ns] = fmt.Sprintf("/proc/%d/ns/%s", w.Answers.Shared[ns].PID, ns)
		}
	}
	share("pid", "pid", c.Namespaces.PID)
	share("ipc", "ipc", c.Namespaces.IPC)
	share("uts", "uts", c.Namespaces.UTS)
	share("cgroup", "cgroupns", c.Namespaces.Cgroup)
	network := container.Mode(w.out.Network)
	switch {
	case network == "bridge" || network == "none" || network.UserDefined(): // that there is one of the name, the engine has seen
	case network.IsHost() || network.Container() != "":
		share("net", "network", network)
	}
	if network.Container() != "" {
		w.out.Network = w.Answers.Shared["net"].Container
		if err := w.sharesNetwork(); err != nil {
			return err
		}
	}
	switch {
	case len(c.Ports) == 0 && !c.PublishAll:
	case w.out.Network == "host": // Docker's words
		w.out.Warnings = append(w.out.Warnings, "Published ports are discarded when using host network mode")
	case w.out.Network == "none":
		w.out.Warnings = append(w.out.Warnings, "Published ports are discarded: the container has no network (--network none)")
	}
	for _, n := range names {
		w.spec.Linux.Namespaces = append(w.spec.Linux.Namespaces, specs.LinuxNamespace{Type: namespaceTypes[n], Path: paths[n]})
	}
	return w.names(slices.Contains(names, "uts") && paths["uts"] == "")
}

// sharesNetwork refuses what another container's network has decided already.
func (w *writer) sharesNetwork() error {
	c, e := w.c, w.c.Endpoint()
	for _, f := range []struct {
		flag string
		set  bool
	}{
		{"hostname", c.Hostname != ""},
		{"publish", len(c.Ports) > 0},
		{"publish-all", c.PublishAll},
		{"dns", len(c.DNS.Servers) > 0},
		{"dns-search", len(c.DNS.Search) > 0},
		{"dns-option", len(c.DNS.Options) > 0},
		{"add-host", len(c.Hosts) > 0},
		{"mac-address", e.MAC != ""},
		{"ip", e.IP != ""},
		{"ip6", e.IP6 != ""},
		{"network-alias", len(e.Aliases) > 0},
		{"link", len(e.Links) > 0},
		{"link-local-ip", len(e.LinkLocal) > 0},
	} {
		if f.set {
			network := cmp.Or(strings.Replace(c.Origin("network"), "=", " ", 1), "--network "+e.Network)
			return container.Invalid("conflicting options: --%s and %s: the other container has decided that", f.flag, network)
		}
	}
	return nil
}

// names writes host name and NIS domain.
func (w *writer) names(own bool) error {
	switch {
	case !own:
		if w.c.Hostname != "" {
			return container.Invalid("--hostname needs a UTS namespace of the container's own")
		}
	case w.c.Hostname == "" && w.out.Network == "host":
		w.spec.Hostname = w.Answers.Hostname // as Docker: who sees the host's network sees it under the host's name
	case w.c.Hostname == "" && w.Answers.Shared["net"].Hostname != "":
		w.spec.Hostname = w.Answers.Shared["net"].Hostname // as Docker: its files are those of the other container, too
	default:
		w.spec.Hostname = w.Container.Hostname()
	}
	w.from("/hostname", "hostname", "")
	w.spec.Domainname = w.c.Domainname
	w.from("/domainname", "domainname", "")
	return nil
}

func (w *writer) ownNamespace(t specs.LinuxNamespaceType) bool {
	return slices.ContainsFunc(w.spec.Linux.Namespaces, func(n specs.LinuxNamespace) bool { return n.Type == t })
}
