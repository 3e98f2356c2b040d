package test

import (
	"fmt"
	"path/filepath"
	"strconv"
	"strings"
)

// netDeeds are the verbs that change networks, and who is on them. The default network is shared by all rounds, so that
// addresses and rules are taken and given back there side by side.
func (k *killer) netDeeds(n int) []deed {
	name := fmt.Sprintf("round%d", n)
	cidfile := filepath.Join(k.work, name)
	port := strconv.Itoa(20000 + n)
	run := func(words ...string) []string {
		return append(append([]string{"run", "-d", "--name", name, "--cidfile", cidfile}, words...), "busybox", "sleep", "1000")
	}
	up := run("-p", port+":80")
	own := []string{"network", "create", "--ipv6", name}
	on := run("--network", name, "--network-alias", "all", "-p", port+":80", "-p", "[::1]:"+strconv.Itoa(25000+n)+":80")
	join := []string{"network", "connect", "--alias", "all", name, name}
	return []deed{
		{"network create", nil, own, false},
		{"network create with a wall", nil, []string{"network", "create", "--egress", "deny", name}, false},
		{"network create -d macvlan", nil, []string{"network", "create", "-d", "macvlan", "--internal", name}, false},
		{"network rm", [][]string{own}, []string{"network", "rm", name}, false},
		{"network rm -d macvlan", [][]string{{"network", "create", "-d", "macvlan", "--internal", name}}, []string{"network", "rm", name}, false},
		{"network connect", [][]string{up, own}, join, false},
		{"network connect of one that doesn't run", [][]string{own, {
			"create", "--name", name, "--cidfile", cidfile, "busybox", "true",
		}}, join, false},
		{"network disconnect", [][]string{own, up, join}, []string{"network", "disconnect", name, name}, false},
		{"network disconnect of the only one", [][]string{own, on}, []string{"network", "disconnect", name, name}, false},
		{"network disconnect with a wall", [][]string{own, run("--egress", "192.0.2.0/24", "--network", name)}, []string{
			"network", "disconnect", name, name,
		}, false},
		{"run on a network", [][]string{own}, on, true},
		{"run with walls and rates", [][]string{own}, run("--network", name, "--egress", "example.com:443", "--net-rate-in", "1m"), true},
		{"update ports", [][]string{own, on}, []string{
			"update", "--publish-add", strconv.Itoa(30000+n) + ":81", "--publish-rm", port + ":80", name,
		}, false},
		{"restart on a network", [][]string{own, on}, []string{"restart", "-t", "0", name}, false},
		{"rename on a network", [][]string{own, on}, []string{"rename", name, "re" + name}, false},
		{"rm on a network", [][]string{own, on}, []string{"rm", "-f", name}, true},
	}
}

// addressesOnce looks whether two containers that run have the same address.
func (k *killer) addressesOnce() {
	seen := map[string]string{}
	for _, id := range strings.Fields(k.must("ps", "-q", "--no-trunc")) {
		text := k.must("inspect", "-f", "{{range .NetworkSettings.Networks}}{{.IPAddress}} {{.GlobalIPv6Address}} {{end}}", id)
		for _, address := range strings.Fields(text) {
			if seen[address] != "" {
				k.t.Errorf("%s is the address of %s and of %s", address, seen[address], id)
			}
			seen[address] = id
		}
	}
}
