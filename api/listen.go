package api

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Bounds of what clients may cost before anything is known of them. All are far above what real ones need.
const (
	MaxConnections = 4096             // at a time, of all listeners; more are told so and closed
	maxHeader      = 256 << 10        // bytes; credentials for several registries come in a header
	headerTime     = 20 * time.Second // until a request's header is there
	bodyTime       = time.Minute      // until a request in JSON is there
	keepAlive      = 3 * time.Minute  // for which a connection may wait for its next request
	maxStreams     = 100              // requests at a time of a connection that speaks HTTP/2
)

// ListenOptions say where a server listens.
type ListenOptions struct {
	Hosts []string // unix://PATH, tcp://ADDRESS:PORT, fd:// (sockets that systemd has opened)
	Group string   // that a unix socket belongs to, besides root; empty: the server's own

	// Certificates for TCP: the server's, and of the authority that clients' come from.
	Cert, Key, CA string

	// Idle is after how long without a client the server ends; 0: never.
	Idle time.Duration
	// Ready, if it is set, is called when all listeners are there, with their addresses.
	Ready func(addresses []string)
}

// Serve answers requests until the context ends, or until there have been none for as long as o.Idle says.
func (s *Server) Serve(ctx context.Context, o ListenOptions) error {
	secure, err := o.tls()
	if err != nil {
		return err
	}
	all, err := o.listen(secure)
	if err != nil {
		return err
	}
	defer func() {
		for _, l := range all {
			l.Close()
		}
	}()
	// One bound for all listeners: what it saves is descriptors, which are the process's.
	conns := &connections{}
	protocols := &http.Protocols{}
	protocols.SetHTTP1(true)
	protocols.SetHTTP2(true) // over TLS
	// A client that knows that it may begins with HTTP/2 (RFC 9113 3.3), which gRPC is: the builder's, without /grpc (API 1.53).
	protocols.SetUnencryptedHTTP2(true)
	servers := make([]*http.Server, len(all))
	failed := make(chan error, len(all))
	for i, l := range all {
		servers[i] = &http.Server{
			Handler: s.guard(l.tcp), ReadHeaderTimeout: headerTime, IdleTimeout: keepAlive, MaxHeaderBytes: maxHeader,
			Protocols: protocols, HTTP2: &http.HTTP2Config{MaxConcurrentStreams: maxStreams},
			// So that requests without an end of their own (events, logs that are followed) end with the server: Shutdown
			// waits for them.
			BaseContext: func(net.Listener) context.Context { return ctx },
		}
		go func() { failed <- servers[i].Serve(conns.limit(l.Listener)) }()
	}
	if o.Ready != nil {
		var names []string
		for _, l := range all {
			names = append(names, l.name)
		}
		o.Ready(names)
	}
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case err := <-failed:
			return err
		case <-ctx.Done():
		case <-tick.C:
			if o.Idle == 0 || conns.open() > 0 || s.Idle() < o.Idle {
				continue
			}
		}
		break
	}
	// No new clients from here on: with socket activation they wait in the socket, which systemd holds, for the next server. Requests that
	// came in a moment ago are answered.
	grace, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	for _, server := range servers {
		// Connections that were taken over are not among those that it waits for (net/http.Server.Shutdown): they end with
		// the process.
		if server.Shutdown(grace) != nil {
			server.Close()
		}
	}
	return nil
}

// listener is one address.
type listener struct {
	net.Listener
	name string
	tcp  bool
	path string // of a unix socket that is ours to remove
}

// Close ends it, and takes its name away if it is still ours.
func (l *listener) Close() error {
	err := l.Listener.Close()
	if l.path != "" {
		os.Remove(l.path)
	}
	return err
}

func (o *ListenOptions) listen(secure *tls.Config) (all []*listener, err error) {
	defer func() {
		if err != nil {
			for _, l := range all {
				l.Close()
			}
		}
	}()
	for _, host := range o.Hosts {
		scheme, rest, ok := strings.Cut(host, "://")
		if !ok {
			return all, fmt.Errorf("-H %s: want unix://PATH, tcp://ADDRESS:PORT or fd://", host)
		}
		switch scheme {
		case "unix":
			l, err := listenUnix(rest, o.Group)
			if err != nil {
				return all, err
			}
			all = append(all, l)
		case "tcp":
			l, err := listenTCP(rest, secure)
			if err != nil {
				return all, err
			}
			all = append(all, l)
		case "fd":
			handed, err := inherited(secure)
			if err != nil {
				return all, err
			}
			all = append(all, handed...)
		default:
			return all, fmt.Errorf("-H %s: unknown form: want unix://PATH, tcp://ADDRESS:PORT or fd://", host)
		}
	}
	return all, nil
}

// listenUnix listens on a path. Whoever may write to the socket has the rights of root: it is its owner's and its group's.
func listenUnix(path, group string) (*listener, error) {
	if !filepath.IsAbs(path) {
		return nil, fmt.Errorf("-H unix://%s: the path isn't absolute", path)
	}
	if st, err := os.Lstat(path); err == nil {
		if st.Mode()&os.ModeSocket == 0 {
			return nil, fmt.Errorf("%s is there, and no socket", path)
		}
		// A name at which nobody listens is left by a server that was killed: the new socket is renamed over it.
		if c, err := net.DialTimeout("unix", path, time.Second); err == nil {
			c.Close()
			return nil, fmt.Errorf("%s: another server listens there", path)
		}
	}
	gid := -1
	if group != "" {
		g, err := user.LookupGroup(group)
		if err != nil {
			if g, err = user.LookupGroupId(group); err != nil {
				return nil, fmt.Errorf("--group %s: there is no such group", group)
			}
		}
		gid, _ = strconv.Atoi(g.Gid)
	}
	// It gets its name when it has its mode: in between nobody can connect who may not.
	hidden := fmt.Sprintf("%s.%d", path, os.Getpid())
	// Of one that was killed at this point, and had our number.
	os.Remove(hidden)
	l, err := net.Listen("unix", hidden)
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", path, err)
	}
	// Go would remove the name that it knows, which is not the one that the socket gets.
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	err = os.Chmod(hidden, 0o660)
	if err == nil && gid >= 0 {
		err = os.Chown(hidden, -1, gid)
	}
	if err == nil {
		err = os.Rename(hidden, path)
	}
	if err != nil {
		l.Close()
		os.Remove(hidden)
		return nil, fmt.Errorf("listen on %s: %w", path, err)
	}
	return &listener{Listener: l, name: "unix://" + path, path: path}, nil
}

// listenTCP listens on an address: of this host alone, unless clients prove who they are.
func listenTCP(address string, secure *tls.Config) (*listener, error) {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return nil, fmt.Errorf("-H tcp://%s: want tcp://ADDRESS:PORT: %w", address, err)
	}
	ip := net.ParseIP(host)
	if secure == nil && host != "localhost" && (ip == nil || !ip.IsLoopback()) {
		return nil, fmt.Errorf("-H tcp://%s: other hosts could take over this one: beyond loopback clients need certificates "+
			"(--tlscacert, --tlscert, --tlskey)", address)
	}
	l, err := net.Listen("tcp", address)
	if err != nil {
		return nil, fmt.Errorf("listen on tcp://%s: %w", address, err)
	}
	name := "tcp://" + l.Addr().String()
	if secure != nil {
		l = tls.NewListener(l, secure)
	}
	return &listener{Listener: l, name: name, tcp: true}, nil
}

// inherited are the sockets that systemd hands over (sd_listen_fds(3)): descriptors from 3 on.
func inherited(secure *tls.Config) ([]*listener, error) {
	pid, n := os.Getenv("LISTEN_PID"), os.Getenv("LISTEN_FDS")
	count, err := strconv.Atoi(n)
	if pid != strconv.Itoa(os.Getpid()) || err != nil || count < 1 {
		return nil, errors.New("-H fd://: no socket was handed over: that is for systemd, which starts this program when a client comes")
	}
	for _, name := range []string{"LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"} {
		os.Unsetenv(name) // containers' supervisors are no heirs
	}
	var out []*listener
	for fd := 3; fd < 3+count; fd++ {
		unix.CloseOnExec(fd)
		f := os.NewFile(uintptr(fd), "socket "+strconv.Itoa(fd))
		l, err := net.FileListener(f)
		f.Close()
		if err != nil {
			return out, fmt.Errorf("descriptor %d: %w", fd, err)
		}
		// Its name is systemd's, which listens there for the next server.
		if u, ok := l.(*net.UnixListener); ok {
			u.SetUnlinkOnClose(false)
			out = append(out, &listener{Listener: l, name: "unix://" + l.Addr().String()})
			continue
		}
		a, ok := l.Addr().(*net.TCPAddr)
		if secure == nil && (!ok || !a.IP.IsLoopback()) {
			l.Close()
			return out, fmt.Errorf("descriptor %d: %s is beyond loopback, where clients need certificates (--tlscacert, --tlscert, --tlskey)", fd,
				l.Addr())
		}
		name := "tcp://" + l.Addr().String()
		if secure != nil {
			l = tls.NewListener(l, secure)
		}
		out = append(out, &listener{Listener: l, name: name, tcp: true})
	}
	return out, nil
}

// tls reads the certificates; nil if there are none.
func (o *ListenOptions) tls() (*tls.Config, error) {
	if o.Cert == "" && o.Key == "" && o.CA == "" {
		return nil, nil
	}
	if o.Cert == "" || o.Key == "" || o.CA == "" {
		return nil, errors.New("--tlscacert, --tlscert and --tlskey go together: without an authority any client would do")
	}
	pair, err := tls.LoadX509KeyPair(o.Cert, o.Key)
	if err != nil {
		return nil, fmt.Errorf("--tlscert, --tlskey: %w", err)
	}
	text, err := os.ReadFile(o.CA)
	if err != nil {
		return nil, fmt.Errorf("--tlscacert: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(text) {
		return nil, fmt.Errorf("--tlscacert: %s holds no certificate", o.CA)
	}
	return &tls.Config{
		Certificates: []tls.Certificate{pair}, ClientCAs: pool, ClientAuth: tls.RequireAndVerifyClientCert, MinVersion: tls.VersionTLS12,
		NextProtos: []string{"http/1.1"}, // connections that are taken over are no HTTP/2
	}, nil
}

// guard refuses, on TCP, what a page in a browser could send: it says where it comes from (Origin, Sec-Fetch-Site), or speaks to a name
// that an attacker has pointed here (DNS rebinding).
func (s *Server) guard(tcp bool) http.Handler {
	if !tcp {
		return s
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		// Only browsers send these two. With TLS a client has checked the name itself, against the certificate.
		switch {
		case r.Header.Get("Origin") != "" || r.Header.Get("Sec-Fetch-Site") != "":
			writeError(w, &statusError{http.StatusForbidden, "requests of a browser's page are refused"})
		case r.TLS == nil && !localHost(r.Host):
			text := fmt.Sprintf("requests to the host %.200q are refused: want localhost, or its address", r.Host)
			writeError(w, &statusError{http.StatusForbidden, text})
		default:
			s.ServeHTTP(w, r)
		}
	})
}

// localHost says whether a Host header means this host.
func localHost(host string) bool {
	name, _, err := net.SplitHostPort(host)
	if err != nil {
		name = strings.Trim(host, "[]")
	}
	ip := net.ParseIP(name)
	return strings.EqualFold(name, "localhost") || ip != nil && ip.IsLoopback()
}

// connections counts those of all listeners.
type connections struct {
	sync.Mutex
	n int
}

func (c *connections) open() int {
	c.Lock()
	defer c.Unlock()
	return c.n
}

// limit counts connections, and turns away those beyond the bound.
func (c *connections) limit(l net.Listener) net.Listener { return &limited{l, c} }

type limited struct {
	net.Listener
	c *connections
}

// Accept implements net.Listener.
func (l *limited) Accept() (net.Conn, error) {
	for {
		conn, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		l.c.Lock()
		full := l.c.n >= MaxConnections
		if !full {
			l.c.n++
		}
		l.c.Unlock()
		if !full {
			return &counted{Conn: conn, c: l.c}, nil
		}
		if _, secure := conn.(*tls.Conn); !secure { // a handshake would cost what is saved
			conn.SetDeadline(time.Now().Add(time.Second))
			conn.Write([]byte("HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\nConnection: close\r\n\r\n" +
				"{\"message\":\"there are too many connections\"}\n"))
		}
		conn.Close()
	}
}

// counted is a connection that counts until it is closed.
type counted struct {
	net.Conn
	c    *connections
	once sync.Once
}

// Close implements net.Conn.
func (c *counted) Close() error {
	c.once.Do(func() {
		c.c.Lock()
		c.c.n--
		c.c.Unlock()
	})
	return c.Conn.Close()
}

// CloseWrite says that nothing more will be sent.
func (c *counted) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return nil
}
