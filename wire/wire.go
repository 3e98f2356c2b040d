// Package wire does what the network steps of a plan say, and looks at what there is: links, addresses, routes, and rules of nf_tables.
//
// Its one idea: it has no network of its own. A step comes with all that is to be done ([Executor.Do]): the rules of a firewall are lines
// of nft(8), which are compiled to messages exactly as they stand, so that what a plan prints is what the kernel gets. Which bridge,
// which address and which rules is decided in package network.
//
// It refuses lines of nft(8) that it doesn't understand, and names that would have to be quoted.
//
// # Why our own netlink client
//
// The package is part of glassbox-runtime, which starts with every container and stays in memory. github.com/google/nftables
// with mdlayher/netlink adds 550 KB of program, package net and 0.1 ms of initialisation; a start sends a dozen messages.
// netlink_linux.go is 300 lines; one client serves links, firewall and conntrack, and an error knows which line of the rules
// it is about.
//
// Start reading at [Executor] (executor_linux.go), which goes through the steps, and netlink_linux.go; [Look], [LookTable], [Published],
// [Firewall] and [ReadForeign] only read.
package wire

import (
	"fmt"
	"net/netip"
)

// TagChain is the chain of a table in which a rule, that nothing comes to, has the version of the table's rules as its comment: if it
// is there, so are they, and need not be sent again.
const TagChain = "version"

// The maps of published ports: on every address of the host, and on one.
const (
	MapAny = "published"
	MapOn  = "published_on"
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

// AddressOf is the opposite of MAC, for the six bytes.
func AddressOf(mac string) (netip.Addr, bool) {
	if len(mac) != 6 || mac[:2] != "\x02\x42" {
		return netip.Addr{}, false
	}
	return netip.AddrFrom4([4]byte([]byte(mac[2:]))), true
}
