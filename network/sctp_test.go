package network

import (
	"encoding/binary"
	"hash/crc32"
	"net/netip"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"glassbox/plan"
	"glassbox/wire"
)

// initChunk is an SCTP packet that opens an association (RFC 9260, 3.3.2): enough for the kernel to follow it.
func initChunk(from, to uint16) []byte {
	b := binary.BigEndian.AppendUint16(nil, from)
	b = binary.BigEndian.AppendUint16(b, to)
	b = append(b, make([]byte, 8)...)                                                          // tag 0, checksum
	b = append(b, 1, 0, 0, 20, 0, 0, 0, 1, 0, 1, 0, 0, 0, 1, 0, 1, 0, 0, 0, 1)                 // INIT: tag, window, streams out and in, number
	binary.LittleEndian.PutUint32(b[8:], crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli))) // least significant byte first
	return b
}

// TestSCTP sends the first packet of an association from the outside to a published port. Programs bring their own SCTP over raw
// sockets where the kernel has none, so this needs no kernel with it.
func TestSCTP(t *testing.T) {
	w := newWorld(t, -1, false)
	ports := parsePorts(t, "6000:70/sctp", "8080:80/sctp") // 8080 is published for TCP, too
	var fds []int
	var err error
	w.host.Do(func() { fds, err = Reserve(ports) })
	if err != nil {
		t.Fatal(err)
	}
	for _, fd := range fds {
		unix.Close(fd)
	}
	e := w.e1
	e.Ports = ports
	w.host.Do(func() {
		steps := stepsOf(w.net, e)
		err = wire.Open(nil).Do(steps[len(steps)-1].Op)
	})
	if err != nil {
		t.Fatal(err)
	}
	raw := -1
	w.c1.Do(func() { raw, err = unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_SCTP) })
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(raw)
	timeout := unix.NsecToTimeval(int64(10 * time.Second))
	if err := unix.SetsockoptTimeval(raw, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &timeout); err != nil {
		t.Fatal(err)
	}
	for _, p := range ports {
		w.outside.Do(func() {
			var fd int
			if fd, err = unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_SCTP); err == nil {
				err = unix.Sendto(fd, initChunk(40000, p.HostPort), 0, &unix.SockaddrInet4{Addr: netip.MustParseAddr("192.0.2.1").As4()})
				unix.Close(fd)
			}
		})
		if err != nil {
			t.Fatal(err)
		}
		buf := make([]byte, 200)
		n, _, err := unix.Recvfrom(raw, buf, 0)
		if err != nil || n < 32 {
			t.Fatalf("%s: the container got %d bytes, %v", p, n, err)
		}
		if to := binary.BigEndian.Uint16(buf[22:]); to != p.ContainerPort {
			t.Errorf("%s: the container got a packet for port %d", p, to)
		}
	}
	var have []plan.PortRule
	w.host.Do(func() { have, err = wire.Published(w.net.Table()) })
	want := plan.PortRule{Proto: "sctp", HostPort: 6000, ContainerIP: "172.30.0.2", ContainerPort: 70}
	if err != nil || !slices.Contains(have, want) {
		t.Errorf("published: got %v, %v, want %v among them", have, err, want)
	}
}
