package api

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"
)

// serving starts a server without an engine on some hosts, and returns their addresses.
func serving(t *testing.T, o ListenOptions) []string {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	ready := make(chan []string, 1)
	done := make(chan error, 1)
	o.Ready = func(a []string) { ready <- a }
	go func() { done <- New(Config{}).Serve(ctx, o) }()
	t.Cleanup(func() {
		cancel()
		<-done
	})
	select {
	case a := <-ready:
		return a
	case err := <-done:
		done <- err
		t.Fatal(err)
	}
	return nil
}

// TestListen: who may connect, and what is refused before anybody can.
func TestListen(t *testing.T) {
	path := filepath.Join(t.TempDir(), "api.sock")
	serving(t, ListenOptions{Hosts: []string{"unix://" + path}})
	st, err := os.Stat(path)
	if err != nil || st.Mode().Perm() != 0o660 {
		t.Errorf("got mode %v, %v", st.Mode(), err)
	}
	for _, hosts := range [][]string{
		{"tcp://0.0.0.0:0"},
		{"tcp://:0"},
		{"tcp://[::]:0"},
		{"tcp://10.1.2.3:1"},
		{"http://x"},
		{"unix://rel"},
		{"nothing"},
		{"fd://"},
		{"unix://" + path}, // somebody listens there
		{"unix://" + filepath.Dir(path)},
	} {
		if err := New(Config{}).Serve(t.Context(), ListenOptions{Hosts: hosts}); err == nil {
			t.Errorf("%v: no error", hosts)
		}
	}
	if err := New(Config{}).Serve(t.Context(), ListenOptions{Hosts: []string{"tcp://0.0.0.0:0"}, Cert: "x", Key: "y"}); err == nil ||
		!strings.Contains(err.Error(), "tlscacert") {
		t.Errorf("certificates without an authority: got %v", err)
	}
}

// TestStale: the name of a server that was killed is taken over.
func TestStale(t *testing.T) {
	path := filepath.Join(t.TempDir(), "api.sock")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	l.Close()
	serving(t, ListenOptions{Hosts: []string{"unix://" + path}})
	if c, err := net.Dial("unix", path); err != nil {
		t.Error(err)
	} else {
		c.Close()
	}
}

// TestFlood: more connections than there may be are turned away, and those that are there are served.
func TestFlood(t *testing.T) {
	path := filepath.Join(t.TempDir(), "api.sock")
	serving(t, ListenOptions{Hosts: []string{"unix://" + path}})
	var all []net.Conn
	defer func() {
		for _, c := range all {
			c.Close()
		}
	}()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for range MaxConnections {
		c, err := net.Dial("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, c)
	}
	refused := 0
	for range 200 {
		c, err := net.Dial("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		c.SetDeadline(time.Now().Add(5 * time.Second))
		line, _ := bufio.NewReader(c).ReadString('\n')
		if strings.Contains(line, "503") {
			refused++
		}
		c.Close()
	}
	if refused != 200 {
		t.Errorf("%d of 200 were refused", refused)
	}
	runtime.ReadMemStats(&after)
	if grown := int64(after.HeapInuse+after.StackInuse) - int64(before.HeapInuse+before.StackInuse); grown > 128<<20 {
		t.Errorf("%d connections took %d bytes", MaxConnections, grown)
	}
	if code := raw(t, all[0], "GET /_ping HTTP/1.1\r\nHost: x\r\n\r\n"); code != 200 {
		t.Errorf("one that is there: status %d", code)
	}
}

// raw sends bytes and returns the answer's status; 0: the connection was closed.
func raw(t *testing.T, c net.Conn, text string) int {
	t.Helper()
	c.SetDeadline(time.Now().Add(10 * time.Second))
	go io.Copy(c, strings.NewReader(text)) // the server may close before it has read all
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		return 0
	}
	resp.Body.Close()
	return resp.StatusCode
}

// TestRaw sends what is no request.
func TestRaw(t *testing.T) {
	path := filepath.Join(t.TempDir(), "api.sock")
	serving(t, ListenOptions{Hosts: []string{"unix://" + path}})
	for name, c := range map[string]struct {
		text string
		code int
	}{
		"endless header":  {"GET /_ping HTTP/1.1\r\nHost: x\r\nX: " + strings.Repeat("x", maxHeader+8192) + "\r\n\r\n", 431},
		"many headers":    {"GET /_ping HTTP/1.1\r\nHost: x\r\n" + strings.Repeat("X: y\r\n", maxHeader/4) + "\r\n", 431},
		"no request":      {"\x16\x03\x01\x02\x00\x01\x00" + strings.Repeat("hello of TLS ", 40) + "\r\n\r\n", 400},
		"two lengths":     {"POST /auth HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}", 400},
		"negative length": {"POST /auth HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n", 400},
		"bad chunk": {
			"POST /auth HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n0\r\n\r\n", 400,
		},
		"no host": {"GET /_ping HTTP/1.1\r\n\r\n", 400},
		"ping":    {"GET /_ping HTTP/1.1\r\nHost: x\r\n\r\n", 200},
		"dots":    {"GET /v1.41/../_ping HTTP/1.1\r\nHost: x\r\n\r\n", 307},
	} {
		conn, err := net.Dial("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		if got := raw(t, conn, c.text); got != c.code {
			t.Errorf("%s: got %d, want %d", name, got, c.code)
		}
		conn.Close()
	}
}

// TestIdle: a server that nobody wants anything of ends, and not while somebody is connected.
func TestIdle(t *testing.T) {
	path := filepath.Join(t.TempDir(), "api.sock")
	ready := make(chan []string, 1)
	done := make(chan error, 1)
	go func() {
		done <- New(Config{}).Serve(t.Context(), ListenOptions{
			Hosts: []string{"unix://" + path}, Idle: 10 * time.Millisecond, Ready: func(a []string) { ready <- a },
		})
	}()
	<-ready
	c, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	if code := raw(t, c, "GET /_ping HTTP/1.1\r\nHost: x\r\n\r\n"); code != 200 {
		t.Errorf("got %d", code)
	}
	select {
	case err := <-done:
		t.Fatalf("it ended with a client connected: %v", err)
	case <-time.After(2500 * time.Millisecond):
	}
	c.Close()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(path); err == nil {
		t.Error("the socket is still there")
	}
}
