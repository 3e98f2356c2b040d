package network

import (
	"encoding/json"
	"flag"
	"net/netip"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"glassbox/container"
	"glassbox/plan"
	"glassbox/wire"
)

var update = flag.Bool("update", false, "write the golden files")

func golden(t *testing.T, name, got string) {
	t.Helper()
	name = "testdata/" + name
	if *update {
		if err := os.WriteFile(name, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s (-want +got), -update writes it:\n%s", name, diff)
	}
}

func TestSteps(t *testing.T) {
	e := Endpoint{
		Network: Bridge, IP: netip.MustParseAddr("172.30.0.2"), MAC: "02:42:ac:1e:00:02", Interface: "eth0", Link: "gb0123456789ab",
		Ports: parsePorts(t, "8080:80", "127.0.0.1:5353:53/udp"),
	}
	steps, err := Steps(testNetwork("eth0"), e, func(what string) string { return "--" + what })
	if err != nil {
		t.Fatal(err)
	}
	data, err := json.MarshalIndent(steps, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "steps.json", string(data)+"\n")
	// Package wire tests its compiler with these.
	golden(t, "../../wire/testdata/rules.nft", strings.Join(Rules(testNetwork("eth0")), "\n")+"\n")
	for _, s := range append(steps, Loopback()...) {
		if s.Lane != plan.Host || s.Phase != plan.Network || s.Reason == "" || s.Origin == "" {
			t.Errorf("step %s: got lane %q, phase %q, origin %q, reason %q", s.Op, s.Lane, s.Phase, s.Origin, s.Reason)
		}
	}
}

func TestVethName(t *testing.T) {
	for id, want := range map[string]string{
		"0123456789abcdef0123": "gb0123456789ab",
		"web":                  "gb9c6ab5a8a9f3",
		"WEB-0123456789":       "",
		"":                     "",
	} {
		got := VethName(id, 0)
		if len(got) != 14 || want != "" && id != "web" && got != want {
			t.Errorf("VethName(%q): got %q, want %q", id, got, want)
		}
	}
}

func TestFiles(t *testing.T) {
	gateway, ip := netip.MustParseAddr("172.30.0.1"), netip.MustParseAddr("172.30.0.2")
	var extra []container.HostEntry
	for _, e := range []container.HostEntry{
		{Name: "db", IP: "10.0.0.5"}, {Name: "six", IP: "fd00::1"}, {Name: "six2", IP: "fd00::2"}, {Name: "gw", IP: container.HostGateway},
	} {
		e, err := entryAt(e, gateway)
		if err != nil {
			t.Fatal(err)
		}
		extra = append(extra, e)
	}
	golden(t, "hosts", string(Hosts([]netip.Addr{ip}, gateway, "web", "example.org", extra)))
	own := []container.HostEntry{{Name: "host.docker.internal", IP: ip.String()}}
	if got := string(Hosts([]netip.Addr{ip}, gateway, "web", "", own)); strings.Count(got, "host.docker.internal") != 1 {
		t.Errorf("host.docker.internal given by the user: got %s", got)
	}
	// A container.json that somebody else wrote gets no line of its own choice into /etc/hosts.
	for _, e := range []container.HostEntry{
		{Name: "", IP: "1.2.3.4"},
		{Name: "a", IP: ""},
		{Name: "a", IP: "b"},
		{Name: "a b", IP: "1.2.3.4"},
		{Name: "a\n", IP: "1.2.3.4"},
		{Name: "a", IP: "1.2.3.4\n9.9.9.9 b"},
	} {
		if got, err := entryAt(e, gateway); err == nil {
			t.Errorf("entry %q: got %v, want an error", e, got)
		}
	}
	if _, err := entryAt(container.HostEntry{Name: "a", IP: container.HostGateway}, netip.Addr{}); err == nil {
		t.Error("host-gateway without a gateway: got no error")
	}

	const head = "# Written by glassbox.\n"
	const fallback = head + "# The host has no DNS server that a container can reach; these are Google's. Give your own with --dns.\n" +
		"nameserver 8.8.8.8\nnameserver 8.8.4.4\n"
	const (
		plain = "nameserver 10.0.0.1\nsearch a b\noptions ndots:2\n"
		stub  = "nameserver 10.0.0.3\nsearch lan\n"
	)
	given := container.Resolver{Servers: []string{"127.0.0.1", "::1"}, Search: []string{"."}, Options: []string{"y"}}
	for _, c := range []struct {
		name, host, stub string
		user             container.Resolver
		want             string
	}{
		{"plain", "# x\n" + plain, "", container.Resolver{}, head + plain},
		{
			"loopback and IPv6 go", "nameserver 127.0.0.1\nnameserver ::1\nnameserver fe80::1%eth0\nnameserver 2001:db8::1\nnameserver 10.0.0.2",
			"",
			container.Resolver{},
			head + "nameserver 10.0.0.2\n",
		},
		{"stub", "nameserver 127.0.0.53\nsearch .\noptions edns0 trust-ad\n", stub, container.Resolver{}, head + stub},
		{"stub without anything behind", "nameserver 127.0.0.53\nsearch lan\n", "", container.Resolver{}, fallback + "search lan\n"},
		{"empty", "", "", container.Resolver{}, fallback},
		{"user", "nameserver 10.0.0.1\nsearch a\noptions x\n", "", given, head + "nameserver 127.0.0.1\nnameserver ::1\noptions y\n"},
	} {
		if diff := cmp.Diff(c.want, string(ResolvConf([]byte(c.host), []byte(c.stub), c.user))); diff != "" {
			t.Errorf("%s (-want +got):\n%s", c.name, diff)
		}
	}
	// In the host's network its own file counts, with what the user gave in its place.
	for want, user := range map[string]container.Resolver{
		plain: {}, head + plain: {Search: []string{"a", "b"}},
		head + "nameserver 9.9.9.9\nsearch a b\noptions ndots:2\n": {Servers: []string{"9.9.9.9"}},
	} {
		if diff := cmp.Diff(want, string(overHost([]byte(plain), user))); diff != "" {
			t.Errorf("%+v over the host's (-want +got):\n%s", user, diff)
		}
	}
}

// FuzzFiles reads what others write: records, marks on links, resolv.conf.
func FuzzFiles(f *testing.F) {
	for _, s := range []string{
		`{"version":1,"id":"ab","name":"bridge","driver":"bridge","link":"glassbox0","subnets":[{"subnet":"10.0.0.0/24","gateway":"10.0.0.1"}]}`,
		`{"subnet":"172.30.0.0/16"}`, "glassbox bridge 172.30.0.0/16 0123456789ab /var/lib/glassbox/network /run/glassbox/network",
		"nameserver 127.0.0.53\nsearch a b\noptions ndots:2\n",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if n, err := parseRecord(Bridge, []byte(text)); err == nil {
			for _, s := range n.Subnets {
				if !s.Prefix.Addr().Is4() || s.Prefix != s.Prefix.Masked() || !s.Prefix.Contains(s.Gateway) {
					t.Fatalf("%q: subnet %+v", text, s)
				}
			}
			if n.IPv4().Prefix.IsValid() && n.Link != "" {
				if err := wire.Check(n.Table(), Rules(n)); err != nil {
					t.Fatalf("%q: rules: %v", text, err)
				}
			}
		}
		if o, ok := parseOwner(text); ok {
			if again, ok := parseOwner(o.String()); !ok || len(o.String()) > 255 || again.subnet != o.subnet {
				t.Fatalf("%q: written as %q", text, o)
			}
		}
		StubOnly([]byte(text))
		ResolvConf([]byte(text), []byte(text), container.Resolver{})
	})
}
