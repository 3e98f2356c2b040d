// Package network connects containers: a bridge, a cable (veth pair) for each container, addresses, a default route, a firewall
// in nftables and published ports, /etc/hosts and /etc/resolv.conf.
//
// Its one idea: the network of a container is a list of steps of a plan ([Steps]), and the firewall in it is text that a
// reader can feed to nft(8) ([Rules]). What executes it (package wire) compiles exactly that text and
// has no rules of its own.
//
//	                      host                                   │ container
//	                                                             │
//	outside ──eth0──▶ prerouting ──▶ routing ──▶ forward         │
//	                  port of the      │           │ only what   │
//	                  host becomes     │           ▼ was         │
//	                  IP:port of       │        glassbox0 ═══ gb…──eth0
//	                  a container      │  bridge, 172.30.0.1  veth│  172.30.0.2
//	                                   ▼           ▲  │          │
//	127.0.0.1:8080 ──▶ output ─────▶ routing ──────┘  │          │
//	(on the host)      the same maps                  ▼          │
//	                                   loopback: nothing for 127/8 passes
//	outside ◀──eth0── postrouting ◀── forward ◀───────┘          │
//	                  masquerade: leaves with the host's address │
//
// Published ports are entries of two maps, "published" (any address of the host) and "published_on" (one address), so that a
// thousand ports cost the same two rules. No process stands in the way of a packet. [Reserve] holds the ports on the host with
// sockets that don't listen, so that a port in use is an error and stays ours.
//
// # Forwarding
//
// Whether a packet may be forwarded is decided by a switch of the interface that it comes in by. The well-known switch
// net.ipv4.ip_forward sets those of all interfaces and makes the host a router between all its networks. Other engines set it
// and then drop all forwarding by a policy, which stops virtual machines and VPNs that come later. We leave it alone:
//
//   - If the host is a router already, there is nothing to do.
//   - If not, forwarding is switched on for the bridge (packets of containers come in there) and for the interfaces that the
//     host has routes over (answers come in there), see [Network]. Those interfaces would now let their neighbours
//     through to any other network, so the table drops what comes in by them, isn't for the bridge, and belongs neither to a
//     connection that was allowed on its way out nor to an address translation that somebody asked for. When somebody sets
//     ip_forward, the host is a router by decision, and the next start takes those rules away.
//
// An interface that appears while containers run is opened by the next start of a container.
//
// A drop in any table is final: a firewall of the host that drops forwarded packets drops ours, too, and is told not to: see
// beside_linux.go.
//
// # What containers can't reach
//
// The host's 127.0.0.0/8, although route_localnet is on for the bridge (CVE-2020-8558). The host's routing by router advertisements
// (CVE-2020-13401): a bridge has no IPv6 or accept_ra off. Nor do containers believe those of each other: their
// interfaces have no IPv6 where the network has none, and accept_ra off where it has. Neighbours of the host can't reach ports published
// on 127.0.0.1, nor ports that aren't published, by routes of their own.
//
// # Installations
//
// Two roots or state directories on one host share no lock, and must share nothing else: a bridge, a table, a subnet, an address.
// So a bridge is marked with whose it is ([Store.Open]), the first installation has glassbox0 and the next ones glassbox1 …, and which
// of two that choose at the same moment gives way is decided by the kernel's order of links. What an installation that is gone has
// left, the next one that chooses takes over.
//
// # State and repair
//
// [Store] says which files there are. All steps are idempotent: a bridge or a table that somebody removed is made again
// by the next start (but published ports of other running containers are not, since only their supervisors know them). A
// veth pair dies with the container's network namespace, in the background: removing it explicitly takes the kernel 20 ms, so
// a supervisor doesn't do it, and returns the exit code after [Store.Release] and [Undo] of the ports. What a crash leaves,
// [Store.Repair] removes, on the evidence of the leases.
//
// # What it refuses
//
// Addresses of a version of IP that a network doesn't have. (A port of the host on such an address, or on ::1, is carried by the
// container's supervisor: plan.PortRule.Carried says why the kernel can't.)
//
// Start reading at [Network], [Steps] (driver.go: a driver is one function) and [Rules]; package wire does what they say.
package network
