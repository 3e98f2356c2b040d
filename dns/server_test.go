package dns

import (
	"encoding/binary"
	"net"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"
	"golang.org/x/sys/unix"
)

// socket binds one on the loopback and says where.
func socket(t testing.TB, kind int) (int, netip.AddrPort) {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, kind|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}
	if kind == unix.SOCK_STREAM {
		if err := unix.Listen(fd, 16); err != nil {
			t.Fatal(err)
		}
	}
	sa, err := unix.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	return fd, netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), uint16(sa.(*unix.SockaddrInet4).Port))
}

// serve starts a server that knows table and asks servers; the addresses are those of UDP and TCP.
func serve(t testing.TB, servers ...netip.AddrPort) (udp, tcp netip.AddrPort) {
	t.Helper()
	c := &Config{Names: table(t), Servers: servers}
	s := &Server{Config: func() *Config { return c }}
	s.UDP, udp = socket(t, unix.SOCK_DGRAM)
	s.TCP, tcp = socket(t, unix.SOCK_STREAM)
	s.Start()
	return udp, tcp
}

// outside is a server of the outside over UDP, which gives every name the same address; with code, it fails.
func outside(t testing.TB, address string, code dnsmessage.RCode) (netip.AddrPort, *atomic.Int32) {
	t.Helper()
	conn, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	asked := new(atomic.Int32)
	go func() {
		buf := make([]byte, 4096)
		for {
			n, from, err := conn.ReadFromUDPAddrPort(buf)
			if err != nil {
				return
			}
			asked.Add(1)
			var m dnsmessage.Message
			if m.Unpack(buf[:n]) != nil {
				continue
			}
			m.Response, m.RCode = true, code
			if code == 0 {
				m.Answers = []dnsmessage.Resource{{
					Header: dnsmessage.ResourceHeader{Name: m.Questions[0].Name, Class: dnsmessage.ClassINET},
					Body:   &dnsmessage.AResource{A: netip.MustParseAddr(address).As4()},
				}}
			}
			out, _ := m.Pack()
			stray := append([]byte(nil), out...)
			stray[0] ^= 0xff // the answer to somebody else's question comes first
			conn.WriteToUDPAddrPort(stray, from)
			conn.WriteToUDPAddrPort(out, from)
		}
	}()
	return conn.LocalAddr().(*net.UDPAddr).AddrPort(), asked
}

// exchange asks as a client does.
func exchange(t testing.TB, server netip.AddrPort, name string) (dnsmessage.RCode, string) {
	t.Helper()
	conn, err := net.Dial("udp4", server.String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(8 * time.Second))
	conn.Write(question(t, name, dnsmessage.TypeA, 0))
	buf := make([]byte, 4096)
	n, err := conn.Read(buf)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	h, answers, _ := read(t, buf[:n])
	return h.RCode, strings.Join(answers, " ")
}

func TestServer(t *testing.T) {
	good, _ := outside(t, "192.0.2.1", 0)
	udp, tcp := serve(t, good)
	for name, want := range map[string]string{"web.": "172.31.0.2", "db.": "172.32.0.2", "example.com.": "192.0.2.1"} {
		if code, got := exchange(t, udp, name); code != 0 || got != want {
			t.Errorf("%s: %v %q, want %q", name, code, got, want)
		}
	}
	conn, err := net.Dial("tcp4", tcp.String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	for range 3 { // one connection, several questions
		q := question(t, "web.", dnsmessage.TypeA, 0)
		conn.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(q))), q...))
		reply, err := readFrame(conn)
		if err != nil {
			t.Fatal(err)
		}
		if _, got, _ := read(t, reply); len(got) != 1 || got[0] != "172.31.0.2" {
			t.Errorf("TCP: %q", got)
		}
	}
}

// An internal network has no outside: what isn't known doesn't exist.
func TestNoOutside(t *testing.T) {
	udp, _ := serve(t)
	if code, _ := exchange(t, udp, "example.com."); code != dnsmessage.RCodeNameError {
		t.Errorf("code %v, want NXDOMAIN", code)
	}
}

// Servers that are down, or fail, don't hold anybody up: the next one answers, and the second question doesn't wait for them.
func TestServersDown(t *testing.T) {
	fd, silent := socket(t, unix.SOCK_DGRAM) // takes questions and says nothing
	defer unix.Close(fd)
	closed, _ := outside(t, "192.0.2.9", 0)
	fails, _ := outside(t, "192.0.2.8", dnsmessage.RCodeServerFailure)
	good, asked := outside(t, "192.0.2.1", 0)
	nobody := netip.AddrPortFrom(closed.Addr(), 1) // a port that nobody listens on
	udp, _ := serve(t, nobody, silent, fails, good)
	for i := range 3 {
		start := time.Now()
		if code, got := exchange(t, udp, "example.com."); code != 0 || got != "192.0.2.1" {
			t.Fatalf("%v %q", code, got)
		}
		if took := time.Since(start); i > 0 && took > patience {
			t.Errorf("question %d waited %v for a server that is known to be down", i, took)
		}
	}
	if asked.Load() != 3 {
		t.Errorf("the good server was asked %d times", asked.Load())
	}
	only, _ := serve(t, fails)
	if code, _ := exchange(t, only, "example.com."); code != dnsmessage.RCodeServerFailure {
		t.Errorf("code %v, want SERVFAIL", code)
	}
}

// One container can't make its resolver hold more than it should: too many questions at once are refused at once.
func TestTooMany(t *testing.T) {
	fd, silent := socket(t, unix.SOCK_DGRAM)
	defer unix.Close(fd)
	udp, _ := serve(t, silent)
	conn, err := net.Dial("udp4", udp.String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	for range mostAsked + 10 {
		conn.Write(question(t, "example.com.", dnsmessage.TypeA, 0))
	}
	conn.SetDeadline(time.Now().Add(time.Second))
	buf, refused := make([]byte, 512), 0
	for {
		if _, err := conn.Read(buf); err != nil {
			break
		}
		refused++
	}
	if refused != 10 {
		t.Errorf("%d questions were refused at once, want 10", refused)
	}
	if code, got := exchange(t, udp, "web."); code != 0 || got != "172.31.0.2" {
		t.Errorf("a name of the network waits for the outside: %v %q", code, got)
	}
}

func BenchmarkAnswer(b *testing.B) {
	names, q := table(b), question(b, "web.", dnsmessage.TypeA, 1232)
	b.ReportAllocs()
	for b.Loop() {
		Answer(q, names, false, 0)
	}
}
