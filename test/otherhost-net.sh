#!/bin/bash
# Makes the network namespace that it runs in one of a router with somebody else's firewall: see otherhost.sh. Never for a host in use.
set -euo pipefail
sysctl -qw net.ipv4.ip_forward=1 net.ipv4.conf.all.rp_filter=1 net.ipv4.conf.default.rp_filter=1 net.ipv4.conf.all.accept_redirects=1 \
	net.ipv4.conf.default.send_redirects=0 net.ipv6.conf.all.forwarding=1 net.ipv6.conf.default.accept_ra=2 net.ipv4.ping_group_range='1 0' \
	net.ipv4.ip_unprivileged_port_start=0 net.ipv4.ip_local_port_range='50000 50999' net.core.somaxconn=64
ip link add br-other type bridge
ip addr add 10.8.0.1/24 dev br-other
ip link set br-other up
nft -f - <<'END'
table ip filter {
	chain FORWARD { type filter hook forward priority filter; policy drop; }
	chain INPUT { type filter hook input priority filter; ip saddr 192.0.2.0/24 drop; }
}
table ip nat {
	chain POSTROUTING { type nat hook postrouting priority srcnat; ip saddr 10.8.0.0/24 oifname != "br-other" masquerade; }
}
table inet somebody {
	chain forward { type filter hook forward priority 10; iifname "br-other" drop; }
}
END
