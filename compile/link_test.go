package compile

import (
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"

	"glassbox/plan"
)

// TestOfLink: a setting of a link waits until there is one, whatever its name is.
func TestOfLink(t *testing.T) {
	c := &container{Input: Input{
		Network: []plan.Step{{Op: &plan.LinkVeth{Name: "gb0", Peer: "net7"}}},
		Spec:    &specs.Spec{Linux: &specs.Linux{NetDevices: map[string]specs.LinuxNetDevice{"host0": {Name: "box%d"}, "host1": {}}}},
	}}
	for key, want := range map[string]bool{
		"net.ipv6.conf.net7.disable_ipv6": true, "net/ipv4/conf/net7/rp_filter": true, "net.ipv4.conf.box3.forwarding": true,
		"net.ipv4.conf.host1.forwarding": true, "net.ipv4.conf.host0.forwarding": false, "net.ipv4.conf.eth0.forwarding": false,
		"net.ipv4.conf.net7/100.forwarding": false, "net.ipv4.ip_forward": false, "kernel.msgmax": false,
	} {
		if got := c.ofLink(key); got != want {
			t.Errorf("%s: got %v, want %v", key, got, want)
		}
	}
}
