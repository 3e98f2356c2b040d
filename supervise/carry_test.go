package supervise

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"golang.org/x/sys/unix"

	"glassbox/plan"
)

func TestCarriers(t *testing.T) {
	rules := []plan.PortRule{
		{Proto: "tcp", HostPort: 80, ContainerIP: "172.30.0.2", ContainerPort: 80},
		{Proto: "tcp", HostIP: "::1", HostPort: 80, ContainerIP: "172.30.0.2", ContainerPort: 80},
		{Proto: "udp", HostIP: "127.0.0.1", HostPort: 53, ContainerIP: "fd00::2", ContainerPort: 54},
	}
	all := carriers(map[string]int{"carried port 0": 7, "carried port 1": 9}, rules)
	text := carriersArg(all)
	if want := "7,tcp,172.30.0.2:80;9,udp,[fd00::2]:54"; text != want {
		t.Errorf("argument: got %q, want %q", text, want)
	}
	got, err := parseCarriers(text)
	if d := cmp.Diff(all, got, cmp.AllowUnexported(carrier{}), cmpopts.EquateComparable(netip.AddrPort{})); d != "" || err != nil {
		t.Errorf("read again: %v %s", err, d)
	}
	if n := len(reservations(rules)); n != 1 {
		t.Errorf("%d ports are reserved beside those that are carried, want 1", n)
	}
	for _, bad := range []string{"", "7", "7,tcp", "x,tcp,1.2.3.4:80", "7,tcp,nowhere", "2,tcp,1.2.3.4:80", "7,tcp,1.2.3.4:80;"} {
		if _, err := parseCarriers(bad); err == nil {
			t.Errorf("%q is taken", bad)
		}
	}
}

// hostsEnd makes the host's end of a port, as a plan's step does.
func hostsEnd(t *testing.T, kind int) (fd int, at string) {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, kind|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err == nil {
		err = unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}})
	}
	if err == nil && kind == unix.SOCK_STREAM {
		err = unix.Listen(fd, 128)
	}
	if err != nil {
		t.Fatal(err)
	}
	sa, err := unix.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	return fd, fmt.Sprintf("127.0.0.1:%d", sa.(*unix.SockaddrInet4).Port)
}

// sameFDs waits until what was opened is closed: the other tests count descriptors, too.
func sameFDs(t *testing.T, before int) {
	t.Helper()
	for end := time.Now().Add(time.Minute); openFDs(t) > before; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%d descriptors are open, were %d", openFDs(t), before)
		}
	}
}

// TestCarryStreams carries many connections at once, each way as much as it likes, and passes on the end of each half.
func TestCarryStreams(t *testing.T) {
	defer sameFDs(t, openFDs(t))
	server, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	go func() {
		for {
			c, err := server.Accept()
			if err != nil {
				return
			}
			go func() { // it answers when the client has said all
				defer c.Close()
				all, _ := io.ReadAll(c)
				c.Write(append(all, " and back"...))
			}()
		}
	}()
	fd, at := hostsEnd(t, unix.SOCK_STREAM)
	s := &supervisor{carriers: []carrier{{fd: fd, proto: "tcp", to: server.Addr().(*net.TCPAddr).AddrPort()}}}
	s.carryPorts()
	var all sync.WaitGroup
	for i := range 50 {
		all.Add(1)
		go func() {
			defer all.Done()
			c, err := net.Dial("tcp", at)
			if err != nil {
				t.Error(err)
				return
			}
			defer c.Close()
			c.SetDeadline(time.Now().Add(time.Minute))
			said := bytes.Repeat([]byte{byte(i)}, 100_000)
			go func() {
				c.Write(said)
				c.(*net.TCPConn).CloseWrite()
			}()
			got, err := io.ReadAll(c)
			if want := append(said, " and back"...); err != nil || !bytes.Equal(got, want) {
				t.Errorf("connection %d: %d bytes came back, want %d: %v", i, len(got), len(want), err)
			}
		}()
	}
	all.Wait()

	// Nobody is there: the client is told at once.
	server.Close()
	c, err := net.Dial("tcp", at)
	if err == nil {
		c.SetDeadline(time.Now().Add(time.Minute))
		_, err = c.Read(make([]byte, 1))
		c.Close()
	}
	if err == nil || err == io.EOF {
		t.Errorf("nobody listens behind it, and the client sees %v", err)
	}
	// Given back at once.
	s.closePorts()
	if l, err := net.Listen("tcp", at); err != nil {
		t.Errorf("after the end: %v", err)
	} else {
		l.Close()
	}
}

// TestCarryDatagrams keeps two clients apart.
func TestCarryDatagrams(t *testing.T) {
	defer sameFDs(t, openFDs(t))
	server, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	go func() {
		b := make([]byte, 100)
		for {
			n, from, err := server.ReadFrom(b)
			if err != nil {
				return
			}
			server.WriteTo(append(b[:n:n], " heard"...), from)
		}
	}()
	fd, at := hostsEnd(t, unix.SOCK_DGRAM)
	s := &supervisor{carriers: []carrier{{fd: fd, proto: "udp", to: server.LocalAddr().(*net.UDPAddr).AddrPort()}}}
	s.carryPorts()
	defer s.closePorts()
	var clients []net.Conn
	for range 2 {
		c, err := net.Dial("udp", at)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		clients = append(clients, c)
	}
	for round := range 20 {
		for i, c := range clients {
			text := fmt.Sprintf("client %d round %d", i, round)
			c.SetDeadline(time.Now().Add(time.Minute))
			b := make([]byte, 100)
			fmt.Fprint(c, text)
			if n, err := c.Read(b); err != nil || string(b[:n]) != text+" heard" {
				t.Fatalf("%s: %q, %v", text, b[:n], err)
			}
		}
	}
}
