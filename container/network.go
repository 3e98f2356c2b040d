package container

import (
	"encoding/csv"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// Endpoint is a container's place in one network.
type Endpoint struct {
	Network   string   `json:"network"`             // a network's name, or a word: bridge, none, host, container:ID
	IP        string   `json:"ip,omitempty"`        // IPv4 address that it wants; empty: a free one
	IP6       string   `json:"ip6,omitempty"`       // the same for IPv6
	LinkLocal []string `json:"linkLocal,omitempty"` // further addresses, of 169.254.0.0/16 or fe80::/10
	MAC       string   `json:"mac,omitempty"`       // empty: made from the address
	Aliases   []string `json:"aliases,omitempty"`   // names by which others of the network find it, beside its own
	// Links are names that this container alone finds another one by: NAME:ALIAS.
	Links []string `json:"links,omitempty"`
	// Priority decides by which of its networks a container reaches the rest of the world: the highest, of equal ones the first name.
	Priority int               `json:"priority,omitempty"`
	Options  map[string]string `json:"options,omitempty"` // of the driver: com.docker.network.endpoint.…
	Name     string            `json:"name,omitempty"`    // of the interface inside; empty: eth0, eth1 …
	Origin   string            `json:"origin,omitempty"`
}

// InterfaceOption is the driver option that names the interface inside, as with Docker since 28.
const InterfaceOption = "com.docker.network.endpoint.ifname"

// SysctlOption is the driver option with settings of the interface, separated by commas, with IFNAME in its place.
const SysctlOption = "com.docker.network.endpoint.sysctls"

// UserDefined says whether a network is one that somebody has made, and not one of the words.
func (m Mode) UserDefined() bool {
	return m != "" && m != "default" && m != "bridge" && m != "none" && !m.IsHost() && m.Container() == ""
}

// network reads what was said of networks, ports and names.
func (w *Words) network(c *Config) error {
	for _, text := range w.Network {
		e, err := ParseEndpoint(text)
		if err != nil {
			return err
		}
		if slices.ContainsFunc(c.Endpoints, func(o Endpoint) bool { return o.Network == e.Network }) {
			return Invalid("network %q is specified multiple times", e.Network)
		}
		e.Origin = "--network " + text
		c.Endpoints = append(c.Endpoints, e)
	}
	if len(c.Endpoints) > 1 {
		for _, e := range c.Endpoints {
			if !Mode(e.Network).UserDefined() {
				return Invalid("conflicting options: cannot attach both user-defined and non-user-defined network-modes: %s goes with no other "+
					"network", e.Network)
			}
		}
	}
	if err := w.first(c); err != nil {
		return err
	}
	for _, text := range w.Publish {
		p, err := ParsePorts(text)
		if err != nil {
			return err
		}
		c.Ports = append(c.Ports, p...)
	}
	for _, text := range w.Expose {
		if strings.Contains(text, ":") {
			return Invalid("--expose %s: want a port of the container alone: -p publishes one on the host", text)
		}
		p, err := ParsePorts(text)
		if err != nil {
			return Invalid("--expose %s: want PORT[-PORT][/PROTO], as in 80/tcp", text)
		}
		for _, port := range p {
			c.Expose = append(c.Expose, port.Key())
		}
	}
	for _, server := range w.DNS {
		if _, err := netip.ParseAddr(server); err != nil {
			return Invalid("--dns %s: it is no IP address", server)
		}
	}
	for _, text := range w.AddHost {
		e, err := ParseHostEntry(text)
		if err != nil {
			return err
		}
		c.Hosts = append(c.Hosts, e)
	}
	return w.walls(c)
}

// first reads the flags that are about the first network.
func (w *Words) first(c *Config) error {
	if w.IP == "" && w.IP6 == "" && w.MAC == "" && len(w.NetworkAlias) == 0 && len(w.Link) == 0 &&
		len(w.LinkLocalIP) == 0 {
		return nil
	}
	if len(c.Endpoints) == 0 {
		c.Endpoints = []Endpoint{{}}
	}
	e := &c.Endpoints[0]
	for _, f := range []struct {
		flag       string
		given, two bool
	}{
		{"ip", w.IP != "", e.IP != ""},
		{"ip6", w.IP6 != "", e.IP6 != ""},
		{"mac-address", w.MAC != "", e.MAC != ""},
		{"network-alias", len(w.NetworkAlias) > 0, len(e.Aliases) > 0},
		{"link", len(w.Link) > 0, len(e.Links) > 0},
		{"link-local-ip", len(w.LinkLocalIP) > 0, len(e.LinkLocal) > 0},
	} {
		if f.given && f.two {
			return Invalid("conflicting options: --%s, and the same in %s: say it once", f.flag, e.Origin)
		}
	}
	for _, f := range []struct {
		flag   string
		values []string
	}{
		{"ip", []string{w.IP}},
		{"ip6", []string{w.IP6}},
		{"mac-address", []string{w.MAC}},
		{"network-alias", w.NetworkAlias},
		{"link", w.Link},
		{"link-local-ip", w.LinkLocalIP},
	} {
		key := strings.TrimPrefix(f.flag, "network-")
		for _, v := range f.values {
			if v == "" && len(f.values) == 1 && f.flag != "network-alias" && f.flag != "link" {
				continue
			}
			if err := e.set(key, v, "--"+f.flag+" "+v); err != nil {
				return err
			}
		}
	}
	return nil
}

// ParseEndpoint reads a value of --network: a name, or name=NAME,alias=…,ip=…,ip6=…,mac-address=…,link-local-ip=…,gw-priority=N,
// driver-opt=KEY=VALUE.
func ParseEndpoint(text string) (Endpoint, error) {
	if !strings.Contains(text, "=") {
		return Endpoint{Network: text}, nil // empty: the default
	}
	var e Endpoint
	where := "--network " + text
	fields, err := csv.NewReader(strings.NewReader(text)).Read()
	if err != nil {
		return e, Invalid("%s: %s", where, csvReason(err))
	}
	for _, field := range fields {
		key, value, ok := strings.Cut(field, "=")
		if !ok {
			return e, Invalid("%s: %q: want KEY=VALUE", where, field)
		}
		if err := e.set(strings.ToLower(strings.TrimSpace(key)), strings.TrimSpace(value), where); err != nil {
			return e, err
		}
	}
	if e.Network == "" {
		return e, Invalid("%s: the name is missing: want name=NETWORK", where)
	}
	return e, nil
}

// set takes one property.
func (e *Endpoint) set(key, value, where string) error {
	address := func(v4, v6 bool) error {
		a, err := netip.ParseAddr(value)
		switch {
		case err != nil || a.Zone() != "":
			return Invalid("%s: %q is no IP address", where, value)
		case a.Is4() && !v4, a.Is6() && !v6:
			return Invalid("%s: %q is an address of the wrong version of IP", where, value)
		case key == "link-local-ip" && !a.IsLinkLocalUnicast():
			return Invalid("%s: %q is no link-local address: want one of 169.254.0.0/16 or fe80::/10", where, value)
		}
		return nil
	}
	switch key {
	case "name":
		e.Network = value
	case "alias":
		if !ValidAlias(value) {
			return Invalid("%s: %q is no name that can be looked up: want letters, digits, hyphens, underscores and dots", where, value)
		}
		if !slices.Contains(e.Aliases, value) {
			e.Aliases = append(e.Aliases, value)
		}
	case "link":
		target, alias, ok := strings.Cut(strings.TrimPrefix(value, "/"), ":")
		if !ok {
			alias = target
		}
		if alias = strings.TrimPrefix(alias, "/"); !ValidAlias(target) || !ValidAlias(alias) {
			return Invalid("%s: %q: want the name of a container, or NAME:ALIAS", where, value)
		}
		if l := target + ":" + alias; !slices.Contains(e.Links, l) {
			e.Links = append(e.Links, l)
		}
	case "ip":
		e.IP = value
		return address(true, false)
	case "ip6":
		e.IP6 = value
		return address(false, true)
	case "link-local-ip":
		e.LinkLocal = append(e.LinkLocal, value)
		return address(true, true)
	case "mac-address":
		if err := checkMAC(where, value); err != nil {
			return err
		}
		// One form for one address: it is compared with what the kernel shows.
		e.MAC = strings.ToLower(strings.ReplaceAll(value, "-", ":"))
	case "gw-priority":
		n, err := strconv.Atoi(value)
		if err != nil {
			return Invalid("%s: gw-priority %q: want a whole number", where, value)
		}
		e.Priority = n
	case "driver-opt":
		return e.option(value, where)
	default:
		return Invalid("%s: unknown %q: want name, alias, link, ip, ip6, mac-address, link-local-ip, gw-priority or driver-opt", where, key)
	}
	return nil
}

// option takes an option of the driver.
func (e *Endpoint) option(text, where string) error {
	key, value, _ := strings.Cut(text, "=")
	switch strings.ToLower(key) {
	case InterfaceOption:
		if value == "" || len(value) > 15 || value == "lo" || value == "." || value == ".." || strings.ContainsAny(value, "/: \t\n\x00%") {
			return Invalid("%s: %q is no name of an interface: at most 15 characters, no / or :", where, value)
		}
		e.Name = value
	case SysctlOption:
		for setting := range strings.SplitSeq(value, ",") {
			name, _, ok := strings.Cut(setting, "=")
			if !ok || !strings.HasPrefix(name, "net.") || !strings.Contains(name, ".IFNAME.") || strings.Contains(name, "/") {
				return Invalid("%s: setting %q: want net.ipv4.conf.IFNAME.NAME=VALUE or net.ipv6.conf.IFNAME.NAME=VALUE", where, setting)
			}
		}
	default:
		return Invalid("%s: unknown driver option %q: want %s or %s", where, key, InterfaceOption, SysctlOption)
	}
	if e.Options == nil {
		e.Options = map[string]string{}
	}
	e.Options[strings.ToLower(key)] = value
	return nil
}

// Text is the endpoint as --network says it.
func (e Endpoint) Text() string {
	fields := []string{"name=" + e.Network}
	add := func(key, value string) {
		if value != "" {
			fields = append(fields, key+"="+value)
		}
	}
	for _, a := range e.Aliases {
		add("alias", a)
	}
	for _, l := range e.Links {
		add("link", l)
	}
	add("ip", e.IP)
	add("ip6", e.IP6)
	for _, a := range e.LinkLocal {
		add("link-local-ip", a)
	}
	add("mac-address", e.MAC)
	if e.Priority != 0 {
		add("gw-priority", strconv.Itoa(e.Priority))
	}
	for _, key := range sortedKeys(e.Options) {
		add("driver-opt", key+"="+e.Options[key])
	}
	if len(fields) == 1 {
		return e.Network
	}
	var b strings.Builder
	out := csv.NewWriter(&b)
	_ = out.Write(fields) // into memory
	out.Flush()
	return strings.TrimSuffix(b.String(), "\n")
}

// endpoints gives the networks back as words. What was said by a flag of its own, is.
func (c *Config) endpoints(w *Words) {
	for i, e := range c.Endpoints {
		if i == 0 {
			if _, ok := c.Origins["ip"]; ok {
				w.IP, e.IP = e.IP, ""
			}
			if _, ok := c.Origins["ip6"]; ok {
				w.IP6, e.IP6 = e.IP6, ""
			}
			if _, ok := c.Origins["mac-address"]; ok {
				w.MAC, e.MAC = e.MAC, ""
			}
			if _, ok := c.Origins["network-alias"]; ok {
				w.NetworkAlias, e.Aliases = e.Aliases, nil
			}
			if _, ok := c.Origins["link"]; ok {
				w.Link, e.Links = e.Links, nil
			}
			if _, ok := c.Origins["link-local-ip"]; ok {
				w.LinkLocalIP, e.LinkLocal = e.LinkLocal, nil
			}
		}
		text := e.Text()
		if strings.HasPrefix(text, "name=,") { // the default network, by its name
			text = "name=bridge," + strings.TrimPrefix(text, "name=,")
		}
		if typed, ok := strings.CutPrefix(e.Origin, "--network "); ok && (e.Network == "" || strings.Contains(typed, e.Network)) {
			text = typed // a name of another container may have become its ID since
		}
		if text != "" {
			w.Network = append(w.Network, text)
		}
	}
}

// ValidAlias reports whether containers can ask for a name: labels of letters, digits, hyphens and underscores, at most 63 bytes each,
// separated by dots, at most 253 altogether (RFC 1035, 2.3.4), and no IP address.
func ValidAlias(name string) bool {
	if name == "" || len(name) > 253 {
		return false
	}
	for label := range strings.SplitSeq(name, ".") {
		if label == "" || len(label) > 63 {
			return false
		}
		for _, c := range []byte(label) {
			if !('a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '-' || c == '_') {
				return false
			}
		}
	}
	// A resolver would never be asked for it.
	_, err := netip.ParseAddr(name)
	return err != nil
}

func checkMAC(where, mac string) error {
	if !strings.HasPrefix(where, "--mac-address") {
		where = fmt.Sprintf("%s: mac-address %s", where, mac)
	}
	if !isMAC(mac) {
		return Invalid("%s: want six bytes in hexadecimal, as in 02:42:ac:11:00:02", where)
	}
	if strings.ContainsRune("13579bdfBDF", rune(mac[1])) { // the lowest bit of the first byte: the kernel gives a device no such address
		return Invalid("%s: it is a multicast address, which no device can have: the second digit must be even", where)
	}
	return nil
}
