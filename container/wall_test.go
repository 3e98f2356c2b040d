package container

import (
	"slices"
	"strings"
	"testing"
)

// What is said of a wall is kept in one form, which reads as the same.
func TestParseWall(t *testing.T) {
	for text, want := range map[string]string{
		"deny": "deny", "allow": "allow", "10.0.0.0/8": "10.0.0.0/8", "10.0.0.0/8:443": "10.0.0.0/8:443",
		"10.0.0.0/8:53/udp": "10.0.0.0/8:53/udp",
		"192.0.2.1":         "192.0.2.1", "192.0.2.1/32:80/tcp": "192.0.2.1:80", "0.0.0.0/0": "0.0.0.0/0", "::/0": "::/0", "fd00::/8": "fd00::/8",
		"[fd00::/8]:443": "[fd00::/8]:443", "[2001:db8::1]:53/udp": "[2001:db8::1]:53/udp", "[2001:db8::1]": "2001:db8::1", ":443": ":443",
		":53/udp": ":53/udp", "example.com": "example.com", "Example.COM.:443": "example.com:443", "*.example.com:8443": "*.example.com:8443",
		"web": "web", "web:5432/tcp": "web:5432", "a,b:1 , 10.0.0.1": "a b:1 10.0.0.1", "a,a": "a", "_srv.example.com": "_srv.example.com",
	} {
		got, err := ParseWall("egress", []string{text})
		if err != nil || strings.Join(got, " ") != want {
			t.Errorf("%s: %q, %v, want %q", text, got, err, want)
		}
		again, err := ParseWall("egress", got)
		if err != nil || !slices.Equal(got, again) {
			t.Errorf("%s: kept as %q, which is read as %q, %v", text, got, again, err)
		}
	}
	w := Words{Image: "i", Egress: []string{"a:1,10.0.0.0/8", "b"}, Ingress: []string{":80"}}
	c, err := w.Config()
	if err != nil {
		t.Fatal(err)
	}
	back := (&Container{Config: *c}).Words()
	if !slices.Equal(back.Egress, []string{"a:1", "10.0.0.0/8", "b"}) || !slices.Equal(back.Ingress, []string{":80"}) {
		t.Errorf("given back as %q and %q", back.Egress, back.Ingress)
	}
}

func TestWrongWalls(t *testing.T) {
	for _, tt := range []struct{ flag, text, want string }{
		{"egress", "", "an entry is empty"},
		{"egress", "a,,b", "an entry is empty"},
		{"egress", "deny,example.com", "deny stands alone"},
		{"egress", "allow,deny", "stands alone"},
		{"egress", "*", "everything is said by allow"},
		{"egress", "*.", "everything is said by allow"},
		{"egress", "*.*.example.com", "invalid name"},
		{"egress", "www.*.com", "invalid name"},
		{"egress", ".example.com", "invalid name"},
		{"egress", "a..b", "invalid name"},
		{"egress", "-a", "invalid name"},
		{"egress", "a b", "invalid name"},
		{"egress", "exämple.com", "invalid name"},
		{"egress", "1.2.3", "invalid name"},
		{"egress", "256.1.1.1", "invalid name"},
		{"egress", "10.0.0.0/33", "invalid CIDR"},
		{"egress", "10.0.0.1/8", "want 10.0.0.0/8"},
		{"egress", "fd00::1/8", "want fd00::/8"},
		{"egress", "fd00::1/8:80", "want [CIDR]:PORT"},
		{"egress", "fd00::/8:80", "want [CIDR]:PORT"},
		{"egress", "a..", "invalid name"},
		{"egress", "::ffff:10.0.0.1", "want 10.0.0.1"},
		{"egress", "fe80::1%eth0", "without a zone"},
		{"egress", "[fd00::1:80", "the bracket isn't closed"},
		{"egress", "[fd00::1]80", "want [CIDR]:PORT"},
		{"egress", "[example.com]:80", "want an address in brackets"},
		{"egress", "example.com:", "invalid port"},
		{"egress", "example.com:0", "invalid port"},
		{"egress", "example.com:65536", "invalid port"},
		{"egress", "example.com:+80", "invalid port"},
		{"egress", "example.com:https", "invalid port"},
		{"egress", "example.com:80-90", "invalid port"},
		{"egress", "example.com:80/icmp", "invalid protocol"},
		{"egress", "example.com:80/", "invalid protocol"},
		{"egress", "https://example.com", "invalid"},
		{"egress", "example.com/path", "invalid CIDR"},
		{"egress", strings.Repeat("a", 254), "invalid name"},
		{"egress", strings.Join(many(300), ","), "at most 256"},
		{"ingress", "*.example.com", "who comes in has an address"},
		{"ingress", "deny,:80", "deny stands alone"},
	} {
		_, err := ParseWall(tt.flag, []string{tt.text})
		if err == nil || !strings.Contains(err.Error(), tt.want) || !strings.HasPrefix(err.Error(), "--"+tt.flag+" ") &&
			!strings.HasPrefix(err.Error(), "--"+tt.flag+":") {
			t.Errorf("--%s %.40s: %v, want %q", tt.flag, tt.text, err, tt.want)
		}
	}
	for network, want := range map[string]string{
		"host": "need a cable", "none": "nobody is reached anyway", "container:x": "belong to the container",
	} {
		w := Words{Image: "i", Network: []string{network}, Egress: []string{"deny"}}
		if _, err := w.Config(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("--network %s: %v, want %q", network, err, want)
		}
	}
}

func many(n int) []string {
	out := make([]string, n)
	for i := range out {
		out[i] = "h" + strings.Repeat("x", i%50) + string(rune('a'+i/50)) + ".example"
	}
	return out
}

func FuzzParseDoor(f *testing.F) {
	for _, s := range []string{"10.0.0.0/8:53/udp", "[fd00::/8]:443", "*.example.com:1", "web", ":80"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		d, err := ParseDoor(text)
		if err != nil {
			return
		}
		again, err := ParseDoor(d.String())
		if err != nil || again != d {
			t.Errorf("%q is %+v, and %q is %+v, %v", text, d, d.String(), again, err)
		}
	})
}
