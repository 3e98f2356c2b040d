package engine

import (
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/opencontainers/runtime-spec/specs-go"

	"glassbox/container"
	"glassbox/network"
	"glassbox/spec"
)

// TestRequest: what a container is becomes what it asks of its networks.
func TestRequest(t *testing.T) {
	ask := func(net string, w container.Words, exposed ...string) network.Request {
		t.Helper()
		cfg, err := w.Config()
		if err != nil {
			t.Fatal(err)
		}
		c := &container.Container{ID: "0123456789abcdef", Config: *cfg, Image: &container.Image{ExposedPorts: exposed}}
		r, err := request(c, &spec.Output{Network: net, Spec: &specs.Spec{Hostname: "web", Linux: &specs.Linux{}}})
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	r := ask("bridge", container.Words{
		IP: "172.30.0.9", MAC: "02-42-AC-11-00-02", DNS: []string{"9.9.9.9"}, AddHost: []string{"db:10.0.0.5", "gw:host-gateway"},
		Publish: []string{"8000-8001:80-81", "127.0.0.1::53/udp"},
	})
	same := cmp.Options{
		cmp.Comparer(func(a, b netip.Addr) bool { return a == b }), cmpopts.IgnoreFields(container.Port{}, "Origin"),
	}
	want := network.Request{
		Container: "0123456789abcdef", Hostname: "web", Resolver: container.Resolver{Servers: []string{"9.9.9.9"}},
		Networks: []network.Attachment{{Network: "bridge", IP: netip.MustParseAddr("172.30.0.9"), MAC: "02:42:ac:11:00:02"}},
		Ports: []container.Port{
			{HostPort: 8000, ContainerPort: 80, Proto: "tcp"},
			{HostPort: 8001, ContainerPort: 81, Proto: "tcp"},
			{HostIP: netip.MustParseAddr("127.0.0.1"), ContainerPort: 53, Proto: "udp"},
		},
		Hosts: []container.HostEntry{{Name: "db", IP: "10.0.0.5"}, {Name: "gw", IP: "host-gateway"}},
	}
	if diff := cmp.Diff(want, r, same); diff != "" {
		t.Errorf("request (-want +got):\n%s", diff)
	}

	// -P publishes what the image exposes and -p doesn't, on ports of the host's choice, whatever the image says of the host's side.
	both := container.Words{Publish: []string{"7777:80"}, PublishAll: true}
	r = ask("bridge", both, "80/tcp", "80/udp", "22:22/tcp", "127.0.0.1:8099:81/tcp")
	ports := []container.Port{
		{HostPort: 7777, ContainerPort: 80, Proto: "tcp"},
		{ContainerPort: 80, Proto: "udp"},
		{ContainerPort: 22, Proto: "tcp"},
		{ContainerPort: 81, Proto: "tcp"},
	}
	if diff := cmp.Diff(ports, r.Ports, same); diff != "" {
		t.Errorf("-P (-want +got):\n%s", diff)
	}
	for _, net := range []string{"host", "none"} {
		if r := ask(net, container.Words{Network: []string{net}, Publish: []string{"80:80"}, PublishAll: true}, "90/tcp"); r.Ports != nil {
			t.Errorf("--network %s: ports %v", net, r.Ports)
		}
	}
}
