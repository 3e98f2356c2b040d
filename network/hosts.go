package network

import (
	"bytes"
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// HostEntry is a line of /etc/hosts.
type HostEntry struct {
	Name string     `json:"name"`
	IP   netip.Addr `json:"ip,omitzero"` // not valid: the host's, as the container reaches it ("host-gateway"), see At
}

// At fills in the host's address on the container's network. With a container on no network of ours, gateway is the zero Addr, and an
// entry that needs it is an error.
func (e HostEntry) At(gateway netip.Addr) (HostEntry, error) {
	if e.IP.IsValid() {
		return e, nil
	}
	if !gateway.IsValid() {
		return e, fmt.Errorf("add-host %q: host-gateway needs a container on a bridge", e.Name)
	}
	return HostEntry{e.Name, gateway}, nil
}

// ParseAddHost reads the argument of --add-host: NAME:IP or NAME=IP. The word host-gateway as IP stands for the host's address
// on the container's network.
func ParseAddHost(spec string) (HostEntry, error) {
	name, text, ok := strings.Cut(spec, "=")
	if !ok {
		name, text, ok = strings.Cut(spec, ":")
	}
	if !ok || name == "" || text == "" {
		return HostEntry{}, fmt.Errorf("add-host %q: want NAME:IP", spec)
	}
	if strings.ContainsAny(name, " \t\r\n#\x00") {
		return HostEntry{}, fmt.Errorf("add-host %q: %q is no host name", spec, name)
	}
	if text == "host-gateway" {
		return HostEntry{Name: name}, nil
	}
	if t, found := strings.CutPrefix(text, "["); found {
		text = strings.TrimSuffix(t, "]")
	}
	ip, err := netip.ParseAddr(text)
	if err != nil {
		return HostEntry{}, fmt.Errorf("add-host %q: %q is no IP address", spec, text)
	}
	return HostEntry{name, ip}, nil
}

// Hosts writes /etc/hosts: the usual names of the loopback, host.docker.internal for the gateway if it is valid, the entries of
// --add-host, and the container's own address and names if ip is valid. An entry of --add-host for host.docker.internal wins.
func Hosts(ip, gateway netip.Addr, hostname, domain string, extra []HostEntry) []byte {
	const internal = "host.docker.internal"
	var b bytes.Buffer
	b.WriteString("127.0.0.1\tlocalhost\n" +
		"::1\tlocalhost ip6-localhost ip6-loopback\n" +
		"fe00::\tip6-localnet\n" +
		"ff00::\tip6-mcastprefix\n" +
		"ff02::1\tip6-allnodes\n" +
		"ff02::2\tip6-allrouters\n")
	for _, e := range extra {
		fmt.Fprintf(&b, "%s\t%s\n", e.IP, e.Name)
	}
	if gateway.IsValid() && !slices.ContainsFunc(extra, func(e HostEntry) bool { return e.Name == internal }) {
		fmt.Fprintf(&b, "%s\t%s\n", gateway, internal)
	}
	if ip.IsValid() && hostname != "" {
		names := hostname
		if domain != "" {
			names = hostname + "." + domain + " " + hostname
		}
		fmt.Fprintf(&b, "%s\t%s\n", ip, names)
	}
	return b.Bytes()
}

// Resolver is the content of resolv.conf(5). With ResolvConf, a field that isn't empty replaces the host's.
type Resolver struct {
	Servers []string // --dns
	Search  []string // --dns-search; "." alone means none
	Options []string // --dns-option
}

// FallbackServers are used where the host has no server that a container can reach: Google's public DNS, as with Docker. The
// file says so.
func FallbackServers() []string { return []string{"8.8.8.8", "8.8.4.4"} }

// StubFile is where systemd-resolved keeps the servers behind its stub.
const StubFile = "/run/systemd/resolve/resolv.conf"

// StubOnly reports whether the host's resolv.conf names nothing but systemd-resolved's stub: then the second argument of
// ResolvConf is the content of StubFile.
func StubOnly(hostFile []byte) bool {
	servers := parseResolv(hostFile).Servers
	return len(servers) > 0 && !slices.ContainsFunc(servers, func(s string) bool { return s != "127.0.0.53" && s != "127.0.0.54" })
}

// ResolvConf writes /etc/resolv.conf of a container on a bridge, by Docker's rules: the host's file, or the one behind
// systemd-resolved's stub, without the servers that the container can't reach (loopback; IPv6, because the bridge has none),
// and FallbackServers if none remains. What the user gave stands as it is.
func ResolvConf(hostFile, stubFile []byte, user Resolver) []byte {
	r := parseResolv(hostFile)
	if StubOnly(hostFile) {
		if behind := parseResolv(stubFile); len(behind.Servers) > 0 {
			r = behind
		}
	}
	note := ""
	if len(user.Servers) == 0 {
		r.Servers = slices.DeleteFunc(r.Servers, func(s string) bool {
			a, err := netip.ParseAddr(s)
			return err != nil || a.IsLoopback() || !a.Unmap().Is4() || a.IsUnspecified()
		})
		if len(r.Servers) == 0 {
			r.Servers = FallbackServers()
			note = "# The host has no DNS server that a container can reach; these are Google's. Give your own with --dns.\n"
		}
	}
	return r.with(user).text(note)
}

// over writes the file of a container in the host's network: the host's own, unchanged, unless the user gave something.
func (user Resolver) over(hostFile []byte) []byte {
	if len(user.Servers)+len(user.Search)+len(user.Options) == 0 {
		return hostFile
	}
	return parseResolv(hostFile).with(user).text("")
}

// with replaces what the user gave.
func (r Resolver) with(user Resolver) Resolver {
	if len(user.Servers) > 0 {
		r.Servers = user.Servers
	}
	if len(user.Search) > 0 {
		r.Search = user.Search
	}
	if len(r.Search) == 1 && r.Search[0] == "." {
		r.Search = nil
	}
	if len(user.Options) > 0 {
		r.Options = user.Options
	}
	return r
}

func (r Resolver) text(note string) []byte {
	var b bytes.Buffer
	b.WriteString("# Written by glassbox.\n" + note)
	for _, s := range r.Servers {
		b.WriteString("nameserver " + s + "\n")
	}
	if len(r.Search) > 0 {
		b.WriteString("search " + strings.Join(r.Search, " ") + "\n")
	}
	if len(r.Options) > 0 {
		b.WriteString("options " + strings.Join(r.Options, " ") + "\n")
	}
	return b.Bytes()
}

// parseResolv reads resolv.conf(5). The last search or domain line counts; options add up.
func parseResolv(data []byte) Resolver {
	var r Resolver
	for line := range strings.Lines(string(data)) {
		if i := strings.IndexAny(line, "#;"); i == 0 {
			continue
		}
		f := strings.Fields(line)
		if len(f) < 2 {
			continue
		}
		switch f[0] {
		case "nameserver":
			r.Servers = append(r.Servers, f[1])
		case "search":
			r.Search = f[1:]
		case "domain":
			r.Search = f[1:2]
		case "options":
			r.Options = append(r.Options, f[1:]...)
		}
	}
	return r
}
