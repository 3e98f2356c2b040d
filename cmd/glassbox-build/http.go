package main

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/moby/buildkit/client"
	"glassbox/build"
)

// face is what the API's server hands on: the builder in the words of Docker's API. The server alone comes to its socket, so that what
// bounds requests (how many connections, how long a head may take) is its affair.
type face struct {
	b   *builder
	use *inUse

	end chan struct{} // asks it to end if nobody uses it

	watched watched

	mu   sync.Mutex
	jobs map[job][]*context.CancelFunc
}

// job is a build as its client calls it, through a socket with a policy or one without.
type job struct{ policy, id string }

func jobOf(g *guard, id string) job {
	if g == nil {
		return job{id: id}
	}
	return job{g.Name, id}
}

// ServeHTTP implements http.Handler.
func (f *face) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path == build.PathEnd { // the server that has started this ends
		select {
		// One that waits is enough: who asks isn't kept.
		case f.end <- struct{}{}:
		default:
		}
		return
	}
	defer f.use.begin()()
	if r.URL.Path != build.PathRefusals {
		defer f.watched.over(r)
	}
	var err error
	switch r.Method + " " + r.URL.Path {
	case "GET " + build.PathReady:
	case "POST /grpc":
		err = f.grpc(w, r)
	case "POST /session":
		err = f.session(w, r)
	case "POST /build":
		err = f.build(w, r)
	case "POST /build/cancel":
		err = f.cancel(w, r)
	case "GET " + build.PathRefusals:
		f.watched.tell(w, r)
	case "POST /build/prune":
		err = f.prune(w, r)
	case "GET " + build.PathUsage:
		err = f.usage(w, r)
	default:
		if r.ProtoMajor == 2 && strings.HasPrefix(r.URL.Path, "/grpc/") {
			err = f.native(w, r)
			break
		}
		err = &httpError{http.StatusNotFound, "page not found"}
	}
	if err != nil {
		answerError(w, err)
	}
}

// httpError is an error with its status.
type httpError struct {
	code int
	text string
}

func (e *httpError) Error() string { return e.text }

// answerError is an error in Docker's form; nothing more comes where the connection was taken over.
func answerError(w http.ResponseWriter, err error) {
	code := http.StatusInternalServerError
	var own *httpError
	if errors.As(err, &own) {
		code = own.code
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	json.NewEncoder(w).Encode(map[string]string{"message": err.Error()})
}

// session is a client's files and secrets, for the builds that it asks for.
func (f *face) session(w http.ResponseWriter, r *http.Request) error {
	switch up := r.Header.Get("Upgrade"); up {
	case "h2c":
	case "":
		return &httpError{http.StatusBadRequest, "no upgrade: a session needs the header Upgrade: h2c"}
	default:
		return &httpError{http.StatusBadRequest, "Upgrade: " + up + " is not supported: a session is an upgrade to h2c"}
	}
	g, err := f.guardOf(r)
	if err != nil {
		return err
	}
	if g != nil {
		closed, err := f.b.guarded.open(g, only(r.Header.Values(sessionHeader)))
		if err != nil {
			return &httpError{http.StatusForbidden, plainError(err)}
		}
		defer closed()
		r.Header.Set(sharedHeader, g.shared(only(r.Header.Values(sharedHeader))))
	}
	return f.b.sessions.HandleHTTPRequest(r.Context(), w, r)
}

// cancel ends a build that came through the same socket.
func (f *face) cancel(w http.ResponseWriter, r *http.Request) error {
	g, err := f.guardOf(r)
	if err != nil {
		return err
	}
	f.mu.Lock()
	for _, cancel := range f.jobs[jobOf(g, r.FormValue("id"))] {
		(*cancel)()
	}
	f.mu.Unlock()
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// grpc takes the connection over, and hands it to the gRPC server.
func (f *face) grpc(w http.ResponseWriter, r *http.Request) error {
	if r.Header.Get("Upgrade") != "h2c" {
		return &httpError{http.StatusBadRequest, "/grpc is an upgrade to h2c: the request has no such header"}
	}
	g, err := f.guardOf(r)
	if err != nil {
		return err
	}
	conn, buffered, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return err
	}
	// That of the request's head is still set, and a session lasts as long as a build.
	conn.SetDeadline(time.Time{})
	if _, err := conn.Write([]byte("HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n")); err != nil {
		conn.Close()
		return nil
	}
	// A server of its own for each connection: what it lets through goes by the socket that it came from.
	server := f.b.server(f.use, g)
	f.b.controller.Register(server)
	c := &handedConn{Conn: conn, closed: make(chan struct{}), read: buffered.Read}
	l := &oneConn{conn: c, done: make(chan struct{})}
	go server.Serve(l)
	<-c.closed // as long as it is there, the builder is in use
	l.Close()
	server.Stop()
	return nil
}

// native answers a call of gRPC that came over HTTP/2.
func (f *face) native(w http.ResponseWriter, r *http.Request) error {
	g, err := f.guardOf(r)
	if err != nil {
		return err
	}
	// Of its own, as for a connection that is taken over.
	server := f.b.server(f.use, g)
	f.b.controller.Register(server)
	defer server.Stop()
	r.URL.Path = strings.TrimPrefix(r.URL.Path, "/grpc")
	server.ServeHTTP(w, r)
	return nil
}

// oneConn is a listener that has one connection.
type oneConn struct {
	mu   sync.Mutex
	conn net.Conn
	done chan struct{}
	once sync.Once
}

// Accept implements net.Listener.
func (l *oneConn) Accept() (net.Conn, error) {
	l.mu.Lock()
	c := l.conn
	l.conn = nil
	l.mu.Unlock()
	if c != nil {
		return c, nil
	}
	// gRPC asks for the next one at once, and ends with the first error: there is none until the one connection is over.
	<-l.done
	return nil, net.ErrClosed
}

// Close implements net.Listener.
func (l *oneConn) Close() error {
	l.once.Do(func() { close(l.done) })
	return nil
}

// Addr implements net.Listener.
func (l *oneConn) Addr() net.Addr { return &net.UnixAddr{Name: "api", Net: "unix"} }

// handedConn is a connection whose first bytes may have been read already.
type handedConn struct {
	net.Conn
	read   func([]byte) (int, error)
	closed chan struct{}
	once   sync.Once
}

// Read implements net.Conn.
func (c *handedConn) Read(p []byte) (int, error) { return c.read(p) }

// Close implements net.Conn.
func (c *handedConn) Close() error {
	c.once.Do(func() { close(c.closed) })
	return c.Conn.Close()
}

// link is a client of this process's own builder, as connect makes one for a build of the command line.
func (f *face) link(ctx context.Context) (*link, error) { return inMemory(ctx, f.b, nil, nil) }

// usage answers with the records of the cache.
func (f *face) usage(w http.ResponseWriter, r *http.Request) error {
	l, err := f.link(r.Context())
	if err != nil {
		return err
	}
	defer l.Close()
	list, err := l.DiskUsage(r.Context())
	if err != nil {
		return err
	}
	records := []build.Record{}
	for _, u := range list {
		records = append(records, record(u))
	}
	w.Header().Set("Content-Type", "application/json")
	return json.NewEncoder(w).Encode(records)
}

// prune removes cache, in the words of the API.
func (f *face) prune(w http.ResponseWriter, r *http.Request) error {
	q, err := build.PruneQuery(r.URL.Query())
	if err != nil {
		return &httpError{http.StatusBadRequest, err.Error()}
	}
	l, err := f.link(r.Context())
	if err != nil {
		return err
	}
	defer l.Close()
	out := struct {
		CachesDeleted  []string
		SpaceReclaimed int64
	}{CachesDeleted: []string{}}
	err = l.prune(r.Context(), q, func(u *client.UsageInfo) error {
		out.CachesDeleted = append(out.CachesDeleted, u.ID)
		if !u.Shared {
			out.SpaceReclaimed += u.Size
		}
		return nil
	})
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/json")
	return json.NewEncoder(w).Encode(out)
}

// serveFace answers the API's server at a socket, until stop.
func serveFace(f *face, l net.Listener) (stop func()) {
	s := &http.Server{Handler: f, ReadHeaderTimeout: 20 * time.Second, Protocols: &http.Protocols{}}
	s.Protocols.SetHTTP1(true)
	s.Protocols.SetUnencryptedHTTP2(true)
	go s.Serve(l)
	return func() { s.Close() }
}

// plainError is an error without what gRPC puts around it.
func plainError(err error) string {
	text := err.Error()
	// An error goes through several calls (front end, solver, session), each of which puts such words before it: the last are its own.
	if i := strings.LastIndex(text, " desc = "); i >= 0 {
		text = text[i+len(" desc = "):]
	}
	return text
}
