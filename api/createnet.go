package api

import (
	"maps"
	"net"
	"slices"
	"strconv"

	"github.com/moby/moby/api/types/network"

	"glassbox/container"
)

// network writes the flags of networks, ports and names.
func (r *createRequest) network(q *request, w *container.Words) error {
	h := r.HostConfig
	for _, port := range slices.SortedFunc(maps.Keys(h.PortBindings), comparePorts) {
		for _, b := range h.PortBindings[port] {
			words := port.String()
			host := ""
			if b.HostIP.IsValid() {
				host = b.HostIP.String()
			}
			switch {
			case host != "":
				words = net.JoinHostPort(host, b.HostPort) + ":" + words
			case b.HostPort != "" && b.HostPort != "0":
				words = b.HostPort + ":" + words
			}
			list(w, "publish", &w.Publish, []string{words})
		}
	}
	for _, port := range slices.SortedFunc(maps.Keys(r.ExposedPorts), comparePorts) {
		if _, published := h.PortBindings[port]; !published {
			list(w, "expose", &w.Expose, []string{port.String()})
		}
	}
	flag(w, "publish-all", &w.PublishAll, h.PublishAllPorts)
	for _, a := range h.DNS {
		list(w, "dns", &w.DNS, []string{a.String()})
	}
	list(w, "dns-search", &w.DNSSearch, h.DNSSearch)
	list(w, "dns-option", &w.DNSOption, h.DNSOptions)
	list(w, "add-host", &w.AddHost, h.ExtraHosts)
	return r.endpoints(q, w)
}

func comparePorts(a, b network.Port) int {
	if a.Num() != b.Num() {
		return int(a.Num()) - int(b.Num())
	}
	if a.Proto() < b.Proto() {
		return -1
	}
	return 1
}

// endpoints writes a --network for each network: that of NetworkMode first.
func (r *createRequest) endpoints(q *request, w *container.Words) error {
	mode := string(r.HostConfig.NetworkMode)
	if r.NetworkDisabled {
		mode = "none"
	}
	settings := map[string]*network.EndpointSettings{}
	if r.NetworkingConfig != nil {
		for ref, s := range r.NetworkingConfig.EndpointsConfig {
			name := q.networkName(ref)
			if _, twice := settings[name]; twice {
				return invalid("network %q is specified multiple times", name)
			}
			settings[name] = s
		}
	}
	if q.version < 44 && len(settings) > 1 {
		return invalid("Container cannot be created with network endpoints: %d networks, and until API version 1.44 one", len(settings))
	}
	if c := container.Mode(mode).Container(); c != "" {
		text(w, "network", new(string), mode)
		w.Network = append(w.Network, mode)
		return nil
	}
	name := q.networkName(mode)
	var order []string
	if _, given := settings[name]; given || name != "bridge" || len(settings) == 0 {
		order = append(order, name)
	}
	for _, other := range slices.Sorted(maps.Keys(settings)) {
		if other != name {
			order = append(order, other)
		}
	}
	if s := settings[name]; s == nil || len(s.Links) == 0 { // Docker's command line says them in both places
		list(w, "link", &w.Link, r.HostConfig.Links)
	}
	for i, name := range order {
		s := settings[name]
		if i == 0 && r.MacAddress != "" && (s == nil || len(s.MacAddress) == 0) {
			text(w, "mac-address", &w.MAC, r.MacAddress)
		}
		if mode == "" && s == nil && len(order) == 1 {
			return nil // the default: nobody asked for a network
		}
		words := endpointWords(name, s)
		list(w, "network", &w.Network, []string{words})
	}
	return nil
}

// networkName finds the name of a network, which may be given by its ID. A network that isn't there is found missing later.
func (q *request) networkName(ref string) string {
	switch ref {
	case "", "default", "bridge":
		return "bridge"
	case "none", "host":
		return ref
	}
	if n, err := q.s.engine.NetworkInspect(q.Context(), ref); err == nil {
		return n.Name
	}
	return ref
}

// endpointWords are the settings of a network as --network says them.
func endpointWords(name string, s *network.EndpointSettings) string {
	if s == nil {
		return name
	}
	var f fields
	f.add("name", name)
	for _, a := range s.Aliases {
		f.add("alias", a)
	}
	for _, l := range s.Links {
		f.add("link", l)
	}
	if c := s.IPAMConfig; c != nil {
		if c.IPv4Address.IsValid() {
			f.add("ip", c.IPv4Address.String())
		}
		if c.IPv6Address.IsValid() {
			f.add("ip6", c.IPv6Address.String())
		}
		for _, a := range c.LinkLocalIPs {
			f.add("link-local-ip", a.String())
		}
	}
	if len(s.MacAddress) > 0 {
		f.add("mac-address", s.MacAddress.String())
	}
	for _, o := range pairs(s.DriverOpts) {
		f.add("driver-opt", o)
	}
	if s.GwPriority != 0 {
		f.add("gw-priority", strconv.Itoa(s.GwPriority))
	}
	if len(f) == 1 {
		return name
	}
	return f.String()
}
