package network

import (
	"bytes"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"glassbox/container"
)

// entryAt fills in the host's address on the container's network. With a container on no network of ours, gateway is the zero Addr, and
// an entry that needs it is an error.
func entryAt(e container.HostEntry, gateway netip.Addr) (container.HostEntry, error) {
	if e.IP == container.HostGateway {
		if !gateway.IsValid() {
			return e, fmt.Errorf("add-host %q: host-gateway needs a container on a bridge", e.Name)
		}
		return container.HostEntry{Name: e.Name, IP: gateway.String()}, nil
	}
	// What was stored is not believed: a line break in it would be a line more.
	ip, err := netip.ParseAddr(e.IP)
	if err != nil || e.Name == "" || strings.ContainsAny(e.Name, " \t\r\n#\x00") {
		return e, fmt.Errorf("add-host %q: want a host name and an IP address, not %q", e.Name, e.IP)
	}
	return container.HostEntry{Name: e.Name, IP: ip.String()}, nil
}

// Hosts writes /etc/hosts: the usual names of the loopback, those of the host for the gateway if it is valid (Docker's and Podman's), the
// entries of --add-host, and the container's own addresses and names. An entry of --add-host for one of the host's names wins.
func Hosts(ips []netip.Addr, gateway netip.Addr, hostname, domain string, extra []container.HostEntry) []byte {
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
	// Docker Desktop's and Podman's names for the host, which compose files use; who gives one himself means something else by it.
	for _, internal := range []string{"host.docker.internal", "host.containers.internal"} {
		if gateway.IsValid() && !slices.ContainsFunc(extra, func(e container.HostEntry) bool { return e.Name == internal }) {
			fmt.Fprintf(&b, "%s\t%s\n", gateway, internal)
		}
	}
	names := hostname
	if domain != "" {
		names = hostname + "." + domain + " " + hostname
	}
	for _, ip := range ips {
		if hostname != "" {
			fmt.Fprintf(&b, "%s\t%s\n", ip, names)
		}
	}
	return b.Bytes()
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
func ResolvConf(hostFile, stubFile []byte, user container.Resolver) []byte {
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
			// 127.0.0.53 is the container's own loopback in there, and IPv6 has no route on a bridge without it.
			return err != nil || a.IsLoopback() || !a.Unmap().Is4() || a.IsUnspecified()
		})
		if len(r.Servers) == 0 {
			r.Servers = FallbackServers()
			note = "# The host has no DNS server that a container can reach; these are Google's. Give your own with --dns.\n"
		}
	}
	return resolvText(merged(r, user), note)
}

// overHost writes the file of a container in the host's network: the host's own, unchanged, unless the user gave something.
func overHost(hostFile []byte, user container.Resolver) []byte {
	if user.IsZero() {
		return hostFile
	}
	return resolvText(merged(parseResolv(hostFile), user), "")
}

// merged is r with what the user gave in its place.
func merged(r, user container.Resolver) container.Resolver {
	if len(user.Servers) > 0 {
		r.Servers = user.Servers
	}
	if len(user.Search) > 0 {
		r.Search = user.Search
	}
	// Docker's word for "no search list", which resolv.conf itself can't say.
	if len(r.Search) == 1 && r.Search[0] == "." {
		r.Search = nil
	}
	if len(user.Options) > 0 {
		r.Options = user.Options
	}
	return r
}

// resolvText is the file; note is a comment for its head.
func resolvText(r container.Resolver, note string) []byte {
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
func parseResolv(data []byte) container.Resolver {
	var r container.Resolver
	for line := range strings.Lines(string(data)) {
		// Only at the beginning of a line: elsewhere resolv.conf(5) knows no comments.
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
