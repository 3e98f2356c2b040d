package wire

import (
	"bufio"
	"encoding/hex"
	"io"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
)

// A Socket is one that somebody listens at, or takes datagrams.
type Socket struct {
	Proto string // tcp, udp
	Addr  netip.AddrPort
}

// Sockets lists those of the calling thread's network namespace.
func Sockets() []Socket {
	var out []Socket
	for _, proto := range []string{"tcp", "tcp6", "udp", "udp6"} {
		f, err := os.Open("/proc/thread-self/net/" + proto)
		if err != nil {
			continue // a kernel without IPv6
		}
		out = append(out, readSockets(f, strings.TrimSuffix(proto, "6"))...)
		f.Close()
	}
	return out
}

// readSockets reads /proc/net/tcp and its like (proc_net_tcp.rst): addresses are words in the machine's order.
func readSockets(r io.Reader, proto string) []Socket {
	const listening, unconnected = "0A", "07" // TCP_LISTEN, TCP_CLOSE
	var out []Socket
	for sc := bufio.NewScanner(r); sc.Scan(); {
		f := strings.Fields(sc.Text())
		if len(f) < 4 || f[3] != listening && f[3] != unconnected {
			continue
		}
		addr, port, _ := strings.Cut(f[1], ":")
		b, err := hex.DecodeString(addr)
		n, err2 := strconv.ParseUint(port, 16, 16)
		if err != nil || err2 != nil || len(b)%4 != 0 {
			continue
		}
		for i := 0; i < len(b); i += 4 { // amd64 and arm64 are little endian
			slices.Reverse(b[i : i+4])
		}
		if a, ok := netip.AddrFromSlice(b); ok {
			out = append(out, Socket{proto, netip.AddrPortFrom(a, uint16(n))})
		}
	}
	return out
}
