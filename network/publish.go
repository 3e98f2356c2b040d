package network

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

// Port is a port of the host that leads to a port of a container.
type Port struct {
	HostIP        netip.Addr `json:"hostIP,omitzero"`  // zero: every address of the host
	HostPort      uint16     `json:"hostPort"`         // 0: a free one, chosen by Reserve
	HostEnd       uint16     `json:"hostEnd,omitzero"` // if set, Reserve chooses a free one of HostPort … HostEnd
	ContainerPort uint16     `json:"containerPort"`
	Proto         string     `json:"proto"` // tcp, udp
}

// String gives the port in the syntax of ParsePublish.
func (p Port) String() string {
	var b strings.Builder
	if p.HostIP.Is6() {
		fmt.Fprintf(&b, "[%s]:", p.HostIP)
	} else if p.HostIP.IsValid() {
		fmt.Fprintf(&b, "%s:", p.HostIP)
	}
	switch {
	case p.HostPort == 0:
		if p.HostIP.IsValid() {
			b.WriteByte(':')
		}
	case p.HostEnd > p.HostPort:
		fmt.Fprintf(&b, "%d-%d:", p.HostPort, p.HostEnd)
	default:
		fmt.Fprintf(&b, "%d:", p.HostPort)
	}
	fmt.Fprintf(&b, "%d/%s", p.ContainerPort, p.Proto)
	return b.String()
}

// ParsePublish reads the argument of docker's -p: [IP:][HOST[-HOST]:]PORT[-PORT][/tcp|udp]. An IPv6 address stands in
// brackets. An empty host port means a free one. A range of host ports for a single container port means a free one of the
// range; otherwise both ranges have the same length.
func ParsePublish(spec string) ([]Port, error) {
	fail := func(format string, a ...any) ([]Port, error) {
		return nil, fmt.Errorf("publish %q: %w", spec, fmt.Errorf(format, a...))
	}
	rest, proto, ok := strings.Cut(spec, "/")
	if !ok {
		proto = "tcp"
	}
	switch proto = strings.ToLower(proto); proto {
	case "tcp", "udp":
	case "sctp":
		return fail("sctp can't be published, only tcp and udp")
	default:
		return fail("protocol %q: want tcp or udp", proto)
	}

	host, container := "", rest
	if i := strings.LastIndexByte(rest, ':'); i >= 0 {
		host, container = rest[:i], rest[i+1:]
	}
	var ip netip.Addr
	if i := strings.LastIndexByte(host, ':'); i >= 0 {
		text := host[:i]
		inner, bracketed := strings.CutPrefix(text, "[")
		if bracketed {
			if inner, ok = strings.CutSuffix(inner, "]"); !ok {
				return fail("address %q: bracket without its pair", text)
			}
		}
		a, err := netip.ParseAddr(inner)
		switch {
		case err != nil && text == "":
			return fail("no address before the first colon")
		case err != nil:
			return fail("address %q: not an IP address", text)
		case a.Is6() && !bracketed:
			return fail("address %q: an IPv6 address stands in brackets, like [::1]:8080:80", text)
		case a.Zone() != "":
			return fail("address %q: a zone can't be published on", text)
		}
		a = a.Unmap()
		if a != netip.IPv4Unspecified() {
			ip = a
		}
		host = host[i+1:]
	} else if strings.HasPrefix(host, "[") || strings.Contains(host, ".") {
		return fail("the container's port is missing: want IP:HOST:PORT, or IP::PORT for a free port of the host")
	}

	first, last, err := portRange(container)
	if err != nil {
		return fail("container port %w", err)
	}
	var hostFirst, hostLast uint16
	if host != "" {
		if hostFirst, hostLast, err = portRange(host); err != nil {
			return fail("host port %w", err)
		}
	}
	n, hostN := int(last)-int(first)+1, int(hostLast)-int(hostFirst)+1
	if host != "" && n == 1 && hostN > 1 {
		return []Port{{ip, hostFirst, hostLast, first, proto}}, nil
	}
	if host != "" && n != hostN {
		return fail("%d host ports for %d container ports: the ranges must have the same length", hostN, n)
	}
	ports := make([]Port, n)
	for i := range ports {
		ports[i] = Port{HostIP: ip, ContainerPort: first + uint16(i), Proto: proto}
		if host != "" {
			ports[i].HostPort = hostFirst + uint16(i)
		}
	}
	return ports, nil
}

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
	if strings.Trim(s, "0123456789") != "" {
		return 0, fmt.Errorf("%q: not a number", s)
	}
	n, err := strconv.ParseUint(s, 10, 16)
	if err != nil || n == 0 {
		return 0, fmt.Errorf("%q: want 1 to 65535", s)
	}
	return uint16(n), nil
}
