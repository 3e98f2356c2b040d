package network

import (
	"fmt"
	"hash/fnv"
	"net/netip"
	"strconv"
	"strings"
)

// Endpoint is one container's place in one network.
type Endpoint struct {
	Network   string     `json:"network"`
	Interface string     `json:"interface"`     // the container's side, see InterfaceName
	Link      string     `json:"link"`          // the host's side, see VethName
	IP        netip.Addr `json:"ip,omitzero"`   // leased
	MAC       string     `json:"mac,omitempty"` // of the container's side, see MAC
	Ports     []Port     `json:"ports,omitempty"`
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

// MAC derives a locally administered hardware address from an IPv4 address, so that an address that passes from one
// container to the next keeps its hardware address and nobody's ARP cache goes stale.
func MAC(ip netip.Addr) string {
	if !ip.Is4() && !ip.Is4In6() {
		return ""
	}
	a := ip.As4()
	return fmt.Sprintf("02:42:%02x:%02x:%02x:%02x", a[0], a[1], a[2], a[3])
}

// addressOf is the opposite of MAC, for the six bytes.
func addressOf(mac string) (netip.Addr, bool) {
	if len(mac) != 6 || mac[:2] != "\x02\x42" {
		return netip.Addr{}, false
	}
	return netip.AddrFrom4([4]byte([]byte(mac[2:]))), true
}
