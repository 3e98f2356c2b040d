package dns

import (
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"
	"golang.org/x/sys/unix"
)

// opened notes what a server opens.
type opened struct {
	mu      sync.Mutex
	doors   []string
	refused []string
	fails   bool
}

// walled serves a container behind a wall.
func walled(t testing.TB, c *Config) (netip.AddrPort, *opened) {
	t.Helper()
	o := &opened{}
	s := &Server{Config: func() *Config { return c }}
	s.Open = func(table string, addrs []netip.Addr, doors []Door, life time.Duration) error {
		o.mu.Lock()
		defer o.mu.Unlock()
		if o.fails {
			return unix.ENOENT
		}
		for _, a := range addrs {
			for _, d := range doors {
				o.doors = append(o.doors, fmt.Sprintf("%s %s:%d/%s %v", table, a, d.Port, d.Proto, life))
			}
		}
		return nil
	}
	s.Refused = func(name string) {
		o.mu.Lock()
		defer o.mu.Unlock()
		o.refused = append(o.refused, name)
	}
	var udp netip.AddrPort
	s.UDP, udp = socket(t, unix.SOCK_DGRAM)
	s.TCP = -1
	s.Start()
	return udp, o
}

func (o *opened) take() (doors, refused string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	doors, refused = strings.Join(o.doors, "; "), strings.Join(o.refused, " ")
	o.doors, o.refused = nil, nil
	return doors, refused
}

// Behind a wall a name is answered if it is allowed, its addresses are opened before that, and all else doesn't exist and goes to nobody.
func TestWalledNames(t *testing.T) {
	server, asked := outside(t, "203.0.113.7", 0)
	c, _ := parse([]byte("wall gb1\ncidr 172.31.0.0/16\nallow api.example.com 443 tcp\nallow *.example.org 0 -\nallow db 5432 tcp\nstrict\n"))
	c.Names, c.Servers = table(t), []netip.AddrPort{server}
	udp, o := walled(t, c)
	for _, tt := range []struct {
		name, answer, doors, refused string
		code                         dnsmessage.RCode
		outside                      int32 // questions
	}{
		{"api.example.com.", "203.0.113.7", "gb1 203.0.113.7:443/tcp 1m0s", "", 0, 1}, // a life time of 0 is a minute
		{"API.example.COM.", "203.0.113.7", "gb1 203.0.113.7:443/tcp 1m0s", "", 0, 1},
		{"a.b.example.org.", "203.0.113.7", "gb1 203.0.113.7:0/- 1m0s", "", 0, 1},
		{"example.org.", "", "", "example.org", dnsmessage.RCodeNameError, 0},
		{"badexample.org.", "", "", "badexample.org", dnsmessage.RCodeNameError, 0},
		{"c2VjcmV0.attacker.example.", "", "", "c2vjcmv0.attacker.example", dnsmessage.RCodeNameError, 0},
		{"api.example.com.attacker.example.", "", "", "api.example.com.attacker.example", dnsmessage.RCodeNameError, 0},
		{"web.", "172.31.0.2", "", "", 0, 0}, // its address is allowed
		{"db.", "172.32.0.2", "gb1 172.32.0.2:5432/tcp 1m0s", "", 0, 0},
	} {
		before := asked.Load()
		code, got := exchange(t, udp, tt.name)
		doors, refused := o.take()
		if code != tt.code || got != tt.answer || doors != tt.doors || refused != tt.refused {
			t.Errorf("%s: %v %q, opened %q, refused %q; want %v %q, %q, %q", tt.name, code, got, doors, refused, tt.code, tt.answer, tt.doors,
				tt.refused)
		}
		if n := asked.Load() - before; n != tt.outside {
			t.Errorf("%s: the outside was asked %d times, want %d", tt.name, n, tt.outside)
		}
	}
	// A wall that can't be opened isn't promised.
	o.mu.Lock()
	o.fails = true
	o.mu.Unlock()
	if code, got := exchange(t, udp, "api.example.com."); code != dnsmessage.RCodeServerFailure || got != "" {
		t.Errorf("%v %q, want SERVFAIL", code, got)
	}
}

// A name that leads into the host's own world, at once or later, opens nothing and is told nothing.
func TestRebinding(t *testing.T) {
	for _, address := range []string{
		"127.0.0.1", "10.0.0.1", "172.31.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", "0.0.0.0", "224.0.0.251", "255.255.255.255",
		"198.18.0.1", "192.0.0.1",
	} {
		server, _ := outside(t, address, 0)
		c, _ := parse([]byte("wall gb1\nallow api.example.com 0 -\nstrict\n"))
		c.Names, c.Servers = table(t), []netip.AddrPort{server}
		udp, o := walled(t, c)
		if _, got := exchange(t, udp, "api.example.com."); got != "" {
			t.Errorf("%s was answered", got)
		}
		if doors, _ := o.take(); doors != "" {
			t.Errorf("opened: %s", doors)
		}
		c.Walls[0].Allowed = []netip.Prefix{netip.PrefixFrom(netip.MustParseAddr(address), 32)}
		if _, got := exchange(t, udp, "api.example.com."); got != address {
			t.Errorf("%s is allowed by itself, and %q was answered", address, got)
		}
	}
	for _, address := range []string{
		"::1", "::ffff:10.0.0.1", "::10.0.0.1", "64:ff9b::a00:1", "2002:a00:1::1", "2001:0:1::1", "fd00::1",
		"fe80::1", "ff02::1", "fec0::1", "::",
	} {
		if !inside(netip.MustParseAddr(address)) {
			t.Errorf("%s counts as outside", address)
		}
	}
	for _, address := range []string{"203.0.113.1", "8.8.8.8", "2606:4700::1111"} {
		if inside(netip.MustParseAddr(address)) {
			t.Errorf("%s counts as inside", address)
		}
	}
}

// Other records than addresses could carry anything, or lead where nothing is opened.
func TestWalledKinds(t *testing.T) {
	c, _ := parse([]byte("wall gb1\nallow api.example.com 443 tcp\nstrict\n"))
	c.Names = table(t)
	s := &Server{}
	for _, kind := range []dnsmessage.Type{dnsmessage.TypeTXT, dnsmessage.TypeMX, 10, 64, 65, dnsmessage.TypeALL, dnsmessage.TypeCNAME} {
		reply, ask := s.answer(c, question(t, "api.example.com.", kind, 1232), 0, false)
		if h, answers, _ := read(t, reply); ask || h.RCode != 0 || len(answers) > 0 {
			t.Errorf("type %d: %v %q, asked outside: %v", kind, h.RCode, answers, ask)
		}
	}
}
