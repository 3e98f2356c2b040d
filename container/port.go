package container

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// Port is a port of the container that is reached through the host.
type Port struct {
	HostIP        netip.Addr `json:"hostIP,omitzero"`    // zero: every address of the host
	HostPort      uint16     `json:"hostPort,omitempty"` // 0: a free one
	HostEnd       uint16     `json:"hostEnd,omitempty"`  // if set, a free one of HostPort … HostEnd
	ContainerPort uint16     `json:"containerPort"`
	Proto         string     `json:"proto"`            // tcp, udp, sctp
	Origin        string     `json:"origin,omitempty"` // the flag as typed
}

// Key is the port inside in Docker's words: "80/tcp".
func (p Port) Key() string { return fmt.Sprintf("%d/%s", p.ContainerPort, p.Proto) }

// HostWords is the host's side in Docker's words: "8080", "8000-8010", or "" for a free one.
func (p Port) HostWords() string {
	switch {
	case p.HostPort == 0:
		return ""
	case p.HostEnd > p.HostPort:
		return fmt.Sprintf("%d-%d", p.HostPort, p.HostEnd)
	}
	return strconv.Itoa(int(p.HostPort))
}

// String is the port as -p says it.
func (p Port) String() string {
	text := p.Key()
	switch host := p.HostWords(); {
	case p.HostIP.Is6():
		return "[" + p.HostIP.String() + "]:" + host + ":" + text
	case p.HostIP.IsValid():
		return p.HostIP.String() + ":" + host + ":" + text
	case host != "":
		return host + ":" + text
	}
	return text
}

// ReachedBy says who can reach what is published on an address of the host: "" and the unspecified addresses are all of them.
func ReachedBy(host string) string {
	a, err := netip.ParseAddr(host)
	switch {
	case err != nil:
		return "everybody who reaches this host"
	case a.IsLoopback():
		return "this host alone"
	case a.IsUnspecified() && a.Is4():
		return "everybody who reaches this host by IPv4"
	case a.IsUnspecified():
		return "everybody who reaches this host by IPv6"
	}
	return "whoever reaches " + a.String() + " of this host"
}

// ParsePorts reads the argument of docker's -p: [IP:][HOST[-HOST]:]PORT[-PORT][/tcp|udp|sctp], or the long form
// target=PORT[-PORT][,published=[IP:]HOST[-HOST]][,protocol=tcp|udp|sctp][,mode=host|ingress], in which Docker takes mode and ignores it:
// on one host both are the same. An IPv6 address stands in brackets. An empty host port, and 0, means a free one. A range of host ports for
// a single container port means a free one of the range; otherwise both ranges have the same length.
func ParsePorts(text string) ([]Port, error) {
	fail := func(format string, a ...any) ([]Port, error) {
		return nil, Invalid("publish %q: %w", text, fmt.Errorf(format, a...))
	}
	short := text
	if strings.Contains(text, "=") {
		var err error
		if short, err = shortForm(text); err != nil {
			return fail("%w", err)
		}
	}
	rest, proto, ok := strings.Cut(short, "/")
	if !ok {
		proto = "tcp"
	}
	switch proto = strings.ToLower(proto); proto {
	case "tcp", "udp", "sctp":
	default:
		return fail("protocol %q: want tcp, udp or sctp", proto)
	}
	host, inside := "", rest
	// From the right: an IPv6 address in front has colons of its own.
	if i := strings.LastIndexByte(rest, ':'); i >= 0 {
		host, inside = rest[:i], rest[i+1:]
	}
	var ip netip.Addr
	if i := strings.LastIndexByte(host, ':'); i >= 0 {
		var err error
		if ip, err = hostAddress(host[:i]); err != nil {
			return fail("%w", err)
		}
		host = host[i+1:]
	} else if strings.HasPrefix(host, "[") || strings.Contains(host, ".") {
		return fail("the container's port is missing: want IP:HOST:PORT, or IP::PORT for a free port of the host")
	}
	first, last, err := portRange(inside)
	if err != nil {
		return fail("container port %w", err)
	}
	var hostFirst, hostLast uint16
	if host != "" && host != "0" {
		if hostFirst, hostLast, err = portRange(host); err != nil {
			return fail("host port %w", err)
		}
	}
	n, hostN := int(last)-int(first)+1, int(hostLast)-int(hostFirst)+1
	if hostFirst != 0 && n == 1 && hostN > 1 {
		return []Port{{HostIP: ip, HostPort: hostFirst, HostEnd: hostLast, ContainerPort: first, Proto: proto, Origin: "-p " + text}}, nil
	}
	if hostFirst != 0 && n != hostN {
		return fail("%d host ports for %d container ports: the ranges must have the same length", hostN, n)
	}
	ports := make([]Port, n)
	for i := range ports {
		ports[i] = Port{HostIP: ip, ContainerPort: first + uint16(i), Proto: proto, Origin: "-p " + text}
		if hostFirst != 0 {
			ports[i].HostPort = hostFirst + uint16(i)
		}
	}
	return ports, nil
}

// shortForm rewrites the long form of -p as the short one. Docker takes any key and ignores those that it doesn't know; here they are
// errors.
func shortForm(text string) (string, error) {
	values := map[string]string{"protocol": "tcp"}
	for _, field := range strings.Split(text, ",") {
		key, value, ok := strings.Cut(field, "=")
		switch {
		case !ok || key == "":
			return "", fmt.Errorf("%q: want NAME=VALUE", field)
		case !slices.Contains([]string{"target", "published", "protocol", "mode"}, key):
			return "", fmt.Errorf("%q: want target, published, protocol or mode", key)
		case strings.ContainsAny(value, "/"):
			return "", fmt.Errorf("%s %q: the protocol stands in protocol=", key, value)
		case key == "mode" && value != "host" && value != "ingress":
			return "", fmt.Errorf("mode %q: want host or ingress", value)
		case key == "target" && strings.Contains(value, ":"):
			return "", fmt.Errorf("target %q: want a port of the container", value)
		}
		values[key] = value
	}
	if values["target"] == "" {
		return "", fmt.Errorf("target, the container's port, is missing")
	}
	if host := values["published"]; host != "" {
		return host + ":" + values["target"] + "/" + values["protocol"], nil
	}
	return values["target"] + "/" + values["protocol"], nil
}

// hostAddress reads the address of -p. The zero Addr is every address of the host.
func hostAddress(text string) (netip.Addr, error) {
	inner, bracketed := strings.CutPrefix(text, "[")
	if bracketed {
		var ok bool
		if inner, ok = strings.CutSuffix(inner, "]"); !ok {
			return netip.Addr{}, fmt.Errorf("address %q: bracket without its pair", text)
		}
	}
	a, err := netip.ParseAddr(inner)
	switch {
	case err != nil && text == "":
		return a, fmt.Errorf("no address before the first colon")
	case err != nil:
		return a, fmt.Errorf("address %q: not an IP address", text)
	case a.Is6() && !bracketed:
		return a, fmt.Errorf("address %q: an IPv6 address stands in brackets, like [::1]:8080:80", text)
	case a.Zone() != "":
		return a, fmt.Errorf("address %q: a zone can't be published on", text)
	}
	return a.Unmap(), nil // 0.0.0.0 is said: no setting puts another address in its place
}

// portRange reads PORT or PORT-PORT.
func portRange(s string) (first, last uint16, err error) {
	a, b, isRange := strings.Cut(s, "-")
	if first, err = portNumber(a); err != nil {
		return 0, 0, err
	}
	if last = first; isRange {
		if last, err = portNumber(b); err != nil {
			return 0, 0, err
		}
	}
	if last < first {
		return 0, 0, fmt.Errorf("range %q ends before it begins", s)
	}
	return first, last, nil
}

func portNumber(s string) (uint16, error) {
	if s == "" {
		return 0, fmt.Errorf("is missing")
	}
	// Told apart from one that is out of range: http is no number, and 70000 is one.
	if strings.Trim(s, "0123456789") != "" {
		return 0, fmt.Errorf("%q: not a number", s)
	}
	n, err := strconv.ParseUint(s, 10, 16)
	if err != nil || n == 0 {
		return 0, fmt.Errorf("%q: want 1 to 65535", s)
	}
	return uint16(n), nil
}
