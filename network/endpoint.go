package network

import (
	"fmt"
	"hash/fnv"
	"net/netip"
	"strconv"
	"strings"

	"glassbox/container"
	"glassbox/wire"
)

// Endpoint is one container's place in one network.
type Endpoint struct {
	Network   string           `json:"network"`
	Interface string           `json:"interface"`   // the container's side, see InterfaceName
	Link      string           `json:"link"`        // the host's side, see VethName
	IP        netip.Addr       `json:"ip,omitzero"` // leased
	IP6       netip.Addr       `json:"ip6,omitzero"`
	LinkLocal []netip.Addr     `json:"linkLocal,omitempty"` // further addresses, as asked for
	MAC       string           `json:"mac,omitempty"`       // of the container's side, see MAC
	Ports     []container.Port `json:"ports,omitempty"`
	Default   bool             `json:"default,omitempty"` // the way to the rest of the world
	Names     []string         `json:"names,omitempty"`   // by which others of the network find the container
	Sysctls   []string         `json:"sysctls,omitempty"` // of the interface, such as "net/ipv4/conf/eth0/log_martians=1"

	rates container.Rates
	wall  *wall  // at the host's end; nil: none
	names string // the directory of the network's names
}

// guarded are the addresses that the container may send frames with.
func (e Endpoint) guarded() []string {
	var out []string
	for _, a := range append(e.Addresses(), e.LinkLocal...) {
		out = append(out, a.String())
	}
	if a, ok := linkLocalOf(e.MAC); ok && e.IP6.IsValid() {
		out = append(out, a.String()) // that the kernel gives it
	}
	return out
}

// macOf derives a hardware address from the endpoint's addresses: see wire.MAC.
func macOf(e Endpoint) string {
	if e.IP.IsValid() || !e.IP6.IsValid() {
		return wire.MAC(e.IP)
	}
	a := e.IP6.As16()
	return wire.MAC(netip.AddrFrom4([4]byte(a[12:])))
}

// InterfaceName is the name of a container's interface in the first, second, … of its networks, counted from 0: what programs and
// people expect.
func InterfaceName(i int) string { return fmt.Sprintf("eth%d", i) }

// VethName derives the name of the host's side of a container's i-th cable (veth pair) from the container's id: at most 15 bytes
// (IFNAMSIZ), the same letters that "glassbox ps" shows where the id is hexadecimal. The first has no number.
func VethName(id string, i int) string {
	if i == 0 {
		return vethStem(id)
	}
	return vethStem(id) + strconv.FormatInt(int64(i), 36)
}

// vethStem is how the names of all of a container's cables begin.
func vethStem(id string) string {
	if len(id) >= 12 && strings.Trim(id[:12], "0123456789abcdef") == "" {
		return vethPrefix + id[:12]
	}
	h := fnv.New64a()
	h.Write([]byte(id))
	return fmt.Sprintf("%s%012x", vethPrefix, h.Sum64()&(1<<48-1))
}

const (
	vethPrefix = "gb"
	vethLength = len(vethPrefix) + 12
)
