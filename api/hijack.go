package api

import (
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Media types of streams (moby/api/types).
const (
	rawStream         = "application/vnd.docker.raw-stream"
	multiplexedStream = "application/vnd.docker.multiplexed-stream"
)

// mediaOf is the type of a container's output.
func (q *request) mediaOf(tty bool) string {
	if !tty && q.version >= 42 {
		return multiplexedStream
	}
	return rawStream
}

// mux writes the output of one or two streams into one: as it is, or each piece behind a head of eight bytes (stream, three zeros, length)
// by which clients tell them apart.
type mux struct {
	sync.Mutex
	w   io.Writer
	raw bool
}

// part is one stream of a mux: 1 is standard output, 2 standard error, 3 an error of the server.
type part struct {
	m      *mux
	stream byte
}

// maxFrame is how much goes behind one head: some clients make a buffer of the length that they are told.
const maxFrame = 32 << 10

// Write implements io.Writer.
func (p part) Write(data []byte) (n int, err error) {
	p.m.Lock()
	defer p.m.Unlock()
	if p.m.raw {
		return p.m.w.Write(data)
	}
	for len(data) > 0 {
		piece := data[:min(len(data), maxFrame)]
		frame := make([]byte, 8, 8+len(piece))
		frame[0] = p.stream
		binary.BigEndian.PutUint32(frame[4:], uint32(len(piece)))
		if _, err := p.m.w.Write(append(frame, piece...)); err != nil {
			return n, err
		}
		n += len(piece)
		data = data[len(piece):]
	}
	return n, nil
}

// taken is a connection that was taken over from HTTP.
type taken struct{ net.Conn }

// take answers that from now on the connection is a stream.
func (q *request) take(mediaType string) (*taken, error) {
	// What has come before the answer is dropped, as by Docker's server: it is what is left of a body, of which some clients (dockerode) don't
	// tell the length. Input is sent when the connection is a stream, which the answer says.
	conn, _, err := http.NewResponseController(q.w).Hijack()
	if err != nil {
		return nil, fmt.Errorf("take the connection over: %w", err)
	}
	// The head below isn't written through the answer, which could take an error from here on for one that has no head
	// yet.
	if a, ok := q.w.(*answer); ok {
		a.begun = true
	}
	// Those of HTTP's header and body are over: a stream may be silent for days.
	conn.SetDeadline(time.Time{})
	head := "HTTP/1.1 200 OK\r\nContent-Type: " + mediaType + "\r\n\r\n"
	if q.Header.Get("Upgrade") != "" {
		head = "HTTP/1.1 101 UPGRADED\r\nContent-Type: " + mediaType + "\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n" +
			"Api-Version: " + MaxVersion + "\r\n\r\n"
	}
	if _, err := io.WriteString(conn, head); err != nil {
		conn.Close()
		return nil, err
	}
	return &taken{conn}, nil
}

// finish ends the stream: what has been written arrives, and the client sees its end.
func (t *taken) finish() {
	if c, ok := t.Conn.(interface{ CloseWrite() error }); ok {
		c.CloseWrite()
	}
	t.Close()
}

// hungUp waits until the client has hung up that has said that nothing more will come from it. That the other half is closed, too, is told
// by poll (POLLHUP) for unix sockets; over TCP only the next write finds out.
func (t *taken) hungUp(stop <-chan struct{}) {
	tick := time.NewTicker(500 * time.Millisecond)
	defer tick.Stop()
	for {
		if closed(t.Conn) {
			return
		}
		select {
		case <-stop:
			return
		case <-tick.C:
		}
	}
}

// closed asks the kernel whether both halves of a connection are closed.
func closed(conn net.Conn) bool {
	if c, ok := conn.(*counted); ok {
		conn = c.Conn
	}
	u, ok := conn.(*net.UnixConn)
	if !ok {
		return false
	}
	raw, err := u.SyscallConn()
	if err != nil {
		return true
	}
	hup := false
	err = raw.Control(func(fd uintptr) {
		// POLLHUP and POLLERR are told without being asked for (poll(2)).
		fds := []unix.PollFd{{Fd: int32(fd)}}
		n, err := unix.Poll(fds, 0)
		hup = err == nil && n > 0 && fds[0].Revents&(unix.POLLHUP|unix.POLLERR) != 0
	})
	return hup || err != nil
}

// upgrades says whether the client wants a websocket.
func upgrades(r *http.Request) bool { return strings.EqualFold(r.Header.Get("Upgrade"), "websocket") }
