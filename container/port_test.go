package container

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

func TestParsePorts(t *testing.T) {
	for text, want := range map[string][]Port{
		"80":                       {{ContainerPort: 80, Proto: "tcp"}},
		"8080:80":                  {{HostPort: 8080, ContainerPort: 80, Proto: "tcp"}},
		"8080:80/UDP":              {{HostPort: 8080, ContainerPort: 80, Proto: "udp"}},
		"8080:80/sctp":             {{HostPort: 8080, ContainerPort: 80, Proto: "sctp"}},
		"0.0.0.0:8080:80":          {{HostIP: netip.IPv4Unspecified(), HostPort: 8080, ContainerPort: 80, Proto: "tcp"}},
		"0:80":                     {{ContainerPort: 80, Proto: "tcp"}},
		"127.0.0.1::80":            {{HostIP: netip.MustParseAddr("127.0.0.1"), ContainerPort: 80, Proto: "tcp"}},
		"127.0.0.1:0:80":           {{HostIP: netip.MustParseAddr("127.0.0.1"), ContainerPort: 80, Proto: "tcp"}},
		"[::1]:8080:80":            {{HostIP: netip.MustParseAddr("::1"), HostPort: 8080, ContainerPort: 80, Proto: "tcp"}},
		"[::ffff:127.0.0.1]:1:2":   {{HostIP: netip.MustParseAddr("127.0.0.1"), HostPort: 1, ContainerPort: 2, Proto: "tcp"}},
		"7000-7001:80-81":          {{HostPort: 7000, ContainerPort: 80, Proto: "tcp"}, {HostPort: 7001, ContainerPort: 81, Proto: "tcp"}},
		"80-81":                    {{ContainerPort: 80, Proto: "tcp"}, {ContainerPort: 81, Proto: "tcp"}},
		"7000-7009:80":             {{HostPort: 7000, HostEnd: 7009, ContainerPort: 80, Proto: "tcp"}},
		":80":                      {{ContainerPort: 80, Proto: "tcp"}},
		"10.0.0.1:65535:65535/tcp": {{HostIP: netip.MustParseAddr("10.0.0.1"), HostPort: 65535, ContainerPort: 65535, Proto: "tcp"}},

		// The long form, as docker 28 takes it.
		"target=80":                             {{ContainerPort: 80, Proto: "tcp"}},
		"published=8080,target=80,protocol=udp": {{HostPort: 8080, ContainerPort: 80, Proto: "udp"}},
		"target=80,published=8080,mode=host":    {{HostPort: 8080, ContainerPort: 80, Proto: "tcp"}},
		"published=8090-8091,target=80-81,mode=ingress": {
			{HostPort: 8090, ContainerPort: 80, Proto: "tcp"},
			{HostPort: 8091, ContainerPort: 81, Proto: "tcp"},
		},
		"published=127.0.0.1:8094,target=80": {{HostIP: netip.MustParseAddr("127.0.0.1"), HostPort: 8094, ContainerPort: 80, Proto: "tcp"}},
	} {
		got, err := ParsePorts(text)
		if err != nil {
			t.Errorf("%s: %v", text, err)
		}
		for i := range want {
			want[i].Origin = "-p " + text
		}
		if diff := cmp.Diff(want, got, cmpopts.EquateComparable(netip.Addr{})); diff != "" {
			t.Errorf("%s (-want +got):\n%s", text, diff)
		}
	}
	for text, want := range map[string]string{
		"":                "container port is missing",
		"8080:":           "container port is missing",
		"80:0":            `container port "0": want 1 to 65535`,
		"65536":           `"65536": want 1 to 65535`,
		"http":            `"http": not a number`,
		"+80":             "not a number",
		"80/sctpp":        `protocol "sctpp": want tcp, udp or sctp`,
		"80/":             `protocol "": want tcp`,
		"::1:80:80":       "brackets",
		"[::1:80:80":      "bracket without its pair",
		"[fe80::1%e]:1:2": "zone",
		"1.2.3:80:80":     "not an IP address",
		"127.0.0.1:80":    "IP::PORT",
		":80:80":          "no address",
		"80-79":           "ends before it begins",
		"1-3:1-2":         "3 host ports for 2 container ports",
		"1:1-2":           "1 host ports for 2 container ports",
		"80 ":             "not a number",

		"published=8083":                    "target, the container's port, is missing",
		"published=8084,target=x":           `"x": not a number`,
		"published=8093,target":             `"target": want NAME=VALUE`,
		"published=1,target=2,protocol=xyz": `protocol "xyz"`,
		"published=1,target=2,foo=bar":      `"foo": want target, published, protocol or mode`,
		"published=1,target=2/udp":          "the protocol stands in protocol=",
		"target=2,mode=x":                   `mode "x"`,
		"target=1:2":                        "want a port of the container",
	} {
		got, err := ParsePorts(text)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %v, %v, want error with %q", text, got, err, want)
		}
	}
}

func FuzzParsePorts(f *testing.F) {
	for _, s := range []string{
		"80", "[::1]:8080:80/udp", "1.2.3.4:1-3:1-3", "7000-7009:80", "127.0.0.1::80", ":::", "[]:1:1", "/", "0:80",
		"published=1-2,target=3-4,protocol=sctp,mode=host",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		ports, err := ParsePorts(text)
		if err != nil {
			return
		}
		for _, p := range ports {
			if p.ContainerPort == 0 || p.HostEnd != 0 && p.HostEnd <= p.HostPort || p.Proto != "tcp" && p.Proto != "udp" && p.Proto != "sctp" {
				t.Fatalf("%q: %+v", text, p)
			}
			short := p.String()
			again, err := ParsePorts(short)
			if err != nil || len(again) != 1 || again[0].Key() != p.Key() || again[0].HostIP != p.HostIP || again[0].HostPort != p.HostPort ||
				again[0].HostEnd != p.HostEnd {
				t.Fatalf("%q: port %+v is written as %q, which is read as %+v, %v", text, p, short, again, err)
			}
		}
	})
}

func TestMACAddress(t *testing.T) {
	for text, want := range map[string]string{"02:42:AC:11:00:02": "02:42:ac:11:00:02", "02-42-ac-11-00-02": "02:42:ac:11:00:02"} {
		c, err := (&Words{MAC: text}).Config()
		if err != nil || c.Endpoint().MAC != want {
			t.Errorf("%s: got %+v, %v, want %s", text, c, err, want)
		}
	}
	for _, text := range []string{
		"xx", "02:42:ac:11:00", "02:42:ac:11:00:02:03", "02:42-ac:11:00:02", "0g:42:ac:11:00:02",
		"01:00:5e:00:00:01", "ff:ff:ff:ff:ff:ff",
	} {
		if _, err := (&Words{MAC: text}).Config(); err == nil {
			t.Errorf("%s: got no error", text)
		}
	}
}
