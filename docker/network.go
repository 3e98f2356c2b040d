package docker

import (
	"net/netip"
	"time"

	"glassbox/network"
	"glassbox/wire"
)

// Network is the answer of GET /networks/{id} and an element of that of GET /networks (types/network.Inspect).
type Network struct {
	Name       string
	ID         string    `json:"Id"`
	Created    time.Time `json:"Created"`
	Scope      string
	Driver     string
	EnableIPv4 bool
	EnableIPv6 bool
	IPAM       IPAM
	Internal   bool
	Attachable bool
	Ingress    bool
	ConfigFrom ConfigReference
	ConfigOnly bool
	Containers map[string]NetworkEndpoint
	Options    map[string]string
	Labels     map[string]string
	Glassbox   *NetworkExtras `json:",omitempty"` // our own
}

// NetworkExtras are a network's walls: see container.Door.
type NetworkExtras struct {
	Egress  []string `json:",omitempty"`
	Ingress []string `json:",omitempty"`
}

// ConfigReference is a network whose configuration another one has (swarm's; always empty).
type ConfigReference struct{ Network string }

// IPAM is where addresses come from (types/network.IPAM).
type IPAM struct {
	Driver  string
	Options map[string]string
	Config  []IPAMPool
}

// IPAMPool is a subnet (types/network.IPAMConfig).
type IPAMPool struct {
	Subnet             string            `json:",omitempty"`
	IPRange            string            `json:",omitempty"`
	Gateway            string            `json:",omitempty"`
	AuxiliaryAddresses map[string]string `json:"AuxiliaryAddresses,omitempty"`
}

// NetworkEndpoint is a container on a network (types/network.EndpointResource).
type NetworkEndpoint struct {
	Name        string
	EndpointID  string
	MacAddress  string
	IPv4Address string // with the length of the subnet's prefix
	IPv6Address string
}

// SetAddress notes one of its addresses.
func (e *NetworkEndpoint) SetAddress(n network.Network, a netip.Addr) {
	if a.Is6() {
		e.IPv6Address = Address(n, a)
	} else {
		e.IPv4Address, e.MacAddress = Address(n, a), first(e.MacAddress, wire.MAC(a))
	}
}

// DescribeNetwork says what a network is. Containers are those that run on it; nil in a list, as with Docker.
func DescribeNetwork(n network.Network, containers map[string]NetworkEndpoint) Network {
	out := Network{
		Name: n.Name, ID: n.ID, Created: n.Created, Scope: "local", Driver: n.Driver, EnableIPv4: !n.NoIPv4, IPAM: IPAM{Driver: "default"},
		Internal: n.Internal, Containers: map[string]NetworkEndpoint{}, Options: map[string]string{}, Labels: map[string]string{},
	}
	if len(n.Egress)+len(n.Ingress) > 0 {
		out.Glassbox = &NetworkExtras{n.Egress, n.Ingress}
	}
	if n.Driver == network.None {
		out.Driver = "null" // as Docker calls the driver of the network none
	}
	for _, s := range n.Subnets {
		pool := IPAMPool{Subnet: s.Prefix.String()}
		if s.Gateway.IsValid() {
			pool.Gateway = s.Gateway.String()
		}
		if s.Range.IsValid() {
			pool.IPRange = s.Range.String()
		}
		for name, a := range n.Aux {
			if !s.Prefix.Contains(a) {
				continue
			}
			if pool.AuxiliaryAddresses == nil {
				pool.AuxiliaryAddresses = map[string]string{}
			}
			pool.AuxiliaryAddresses[name] = a.String()
		}
		out.EnableIPv6 = out.EnableIPv6 || s.Prefix.Addr().Is6()
		out.IPAM.Config = append(out.IPAM.Config, pool)
	}
	for k, v := range n.Options {
		out.Options[k] = v
	}
	for k, v := range n.Labels {
		out.Labels[k] = v
	}
	for id, c := range containers {
		out.Containers[id] = c
	}
	return out
}

// Address is an address with the length of its subnet's prefix: "172.31.0.2/16".
func Address(n network.Network, a netip.Addr) string {
	for _, s := range n.Subnets {
		if s.Prefix.Contains(a) {
			return netip.PrefixFrom(a, s.Prefix.Bits()).String()
		}
	}
	return a.String()
}
