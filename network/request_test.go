package network

import (
	"os"
	"strings"
	"testing"

	"glassbox/container"
	"glassbox/wire"
)

// TestWire needs no root: of networks without a bridge nothing is made, and for those who explain nothing at all.
func TestWire(t *testing.T) {
	s := Store{t.TempDir(), t.TempDir() + "/state"}
	gw := []container.HostEntry{{Name: "gw", IP: container.HostGateway}, {Name: "db", IP: "10.0.0.5"}}
	host, err := os.ReadFile("/etc/hosts")
	if err != nil {
		t.Fatal(err)
	}
	r := Request{Networks: []Attachment{{Network: Host}}, Hosts: gw, Resolver: container.Resolver{Servers: []string{"9.9.9.9"}}}
	w, err := s.Wire(r, true, testOrigin)
	if err != nil {
		t.Fatal(err)
	}
	if got := string(w.Hosts); got != string(host)+"127.0.0.1\tgw\n10.0.0.5\tdb\n" {
		t.Errorf("hosts in the host's network: got %q", got)
	}
	if got := string(w.ResolvConf); !strings.Contains(got, "nameserver 9.9.9.9\n") || strings.Count(got, "nameserver") != 1 {
		t.Errorf("resolv.conf in the host's network: got %q", got)
	}
	if len(w.Steps) != 0 || w.Ports() != nil {
		t.Errorf("the host's network: got %d steps, ports %v", len(w.Steps), w.Ports())
	}

	w, err = s.Wire(Request{Hostname: "web", Networks: []Attachment{{Network: None}}, Hosts: gw[1:]}, true, testOrigin)
	if err != nil {
		t.Fatal(err)
	}
	if len(w.Steps) != 1 || !strings.Contains(string(w.Hosts), "10.0.0.5\tdb\n") || strings.Contains(string(w.Hosts), "web") {
		t.Errorf("no network: got %d steps, hosts %q", len(w.Steps), w.Hosts)
	}
	if _, err := s.Wire(Request{Networks: []Attachment{{Network: None}}, Hosts: gw[:1]}, true, testOrigin); err == nil {
		t.Error("host-gateway without a network: got no error")
	}
	if _, err := s.Wire(Request{Networks: []Attachment{{Network: "nosuch"}}}, true, testOrigin); err == nil {
		t.Error("a network that isn't there: got no error")
	}

	// Two networks: two interfaces, two cables. The second name differs from the first.
	s.State += "2"
	lan := Attachment{Network: Bridge, Interface: "lan", MAC: "02:00:00:00:00:01"}
	two := Request{Container: "0123456789abcdef", Networks: []Attachment{{Network: Bridge}, lan}, Ports: parsePorts(t, "8080:80")}
	w, err = s.Wire(two, false, testOrigin)
	if err != nil {
		t.Fatal(err)
	}
	a, b := w.Endpoints[0], w.Endpoints[1]
	if a.Interface != "eth0" || a.Link != "gb0123456789ab" || a.MAC != wire.MAC(a.IP) {
		t.Errorf("the first of two networks: got %+v", a)
	}
	if b.Interface != "lan" || b.Link != "gb0123456789ab1" || b.MAC != lan.MAC {
		t.Errorf("the second: got %+v", b)
	}
	if len(w.Ports()) != 1 || len(a.Ports) != 1 {
		t.Errorf("ports: got %v", w.Ports())
	}
	if _, err := os.Stat(s.State); !os.IsNotExist(err) {
		t.Errorf("explaining left files: %v", err)
	}
}

// What can be made, what is told and what is refused come from one list of drivers.
func TestDrivers(t *testing.T) {
	for _, name := range Drivers() {
		if driverOf(name) == nil {
			t.Errorf("driver %s: it writes nothing", name)
		}
		fixed := name == None || name == Host
		if err := checkDriver(name); (err != nil) != fixed {
			t.Errorf("a network with driver %s: %v", name, err)
		}
		if err := checkDriver("nosuch"); !fixed && !strings.Contains(err.Error(), name) {
			t.Errorf("%v: %s isn't among what can be made", err, name)
		}
	}
}
