package network

import (
	"fmt"
	"net/netip"
	"strings"
)

// Port is a port of the host that leads to a port of a container.
type Port struct {
	HostIP        netip.Addr `json:"hostIP,omitzero"`  // zero: every address of the host
	HostPort      uint16     `json:"hostPort"`         // 0: a free one, chosen by Reserve
	HostEnd       uint16     `json:"hostEnd,omitzero"` // if set, Reserve chooses a free one of HostPort … HostEnd
	ContainerPort uint16     `json:"containerPort"`
	Proto         string     `json:"proto"` // tcp, udp, sctp
}

// String gives the port in the syntax of -p.
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
