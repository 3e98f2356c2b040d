package docker

import "testing"

// TestPorts has what docker 28 printed for the same flags.
func TestPorts(t *testing.T) {
	tcp := func(ip string, public, private uint16) PortSummary {
		return PortSummary{IP: ip, PublicPort: public, PrivatePort: private, Type: "tcp"}
	}
	const all = "0.0.0.0"
	for _, c := range []struct {
		ports []PortSummary
		want  string
	}{
		{nil, ""},
		{[]PortSummary{tcp(all, 8000, 80), tcp(all, 8001, 81)}, "0.0.0.0:8000->80/tcp, 0.0.0.0:8001->81/tcp"},
		{[]PortSummary{tcp(all, 8011, 8011), tcp(all, 8010, 8010)}, "0.0.0.0:8010-8011->8010-8011/tcp"},
		{[]PortSummary{tcp("127.0.0.1", 80, 80), tcp(all, 81, 81)}, "127.0.0.1:80->80/tcp, 0.0.0.0:81->81/tcp"},
		{[]PortSummary{tcp("::1", 8096, 80), tcp("::1", 90, 90)}, "[::1]:90->90/tcp, [::1]:8096->80/tcp"},
		{[]PortSummary{tcp("", 0, 90), tcp("", 0, 91), tcp("", 0, 93), tcp(all, 7777, 80)}, "90-91/tcp, 93/tcp, 0.0.0.0:7777->80/tcp"},
		{[]PortSummary{{IP: all, PublicPort: 53, PrivatePort: 53, Type: "udp"}, tcp(all, 53, 53)}, "0.0.0.0:53->53/tcp, 0.0.0.0:53->53/udp"},
		{[]PortSummary{tcp(all, 8098, 80), tcp(all, 8099, 80)}, "0.0.0.0:8098->80/tcp, 0.0.0.0:8099->80/tcp"},
	} {
		if got := Ports(c.ports); got != c.want {
			t.Errorf("%+v: got %q, want %q", c.ports, got, c.want)
		}
	}
}
