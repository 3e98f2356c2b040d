// Package api serves the Docker Engine API: HTTP on one side, the verbs of package engine on the other.
//
// Its one idea: a handler reads a request, calls one verb, and passes on what package docker or image says of the answer. What a container
// is, what may be asked for and what an error is are the engine's affair; here is only what HTTP brings: versions, filters in JSON, streams
// that are taken over (hijacked), progress in chunks, and clients that are slow, gone, or not to be trusted.
//
// Containers never depend on the server. What it alone knows are exec instances that were created and not started, as with Docker, and who
// is attached; a server that is killed takes neither a container nor a file with it, and the next one reads all else from the files.
//
// It refuses versions that it doesn't speak, bodies and headers beyond bounds, browsers ([Server.ServeHTTP]), and with plain words what
// needs a swarm or the builder.
//
// Start reading at [Server.routes], then create.go for what a container is in JSON and attach.go for streams.
package api

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"glassbox/docker"
	"glassbox/engine"
	"glassbox/policy"
)

// Versions of the API that are spoken: the oldest that Docker's own clients still speak, and that of the types.
const (
	MinVersion = "1.24"
	MaxVersion = "1.57"
)

// Config is what a server needs.
type Config struct {
	Engine   *engine.Engine
	Insecure []string     // registries that are spoken to without TLS
	Log      *slog.Logger // what goes wrong in the server itself
	// Builder answers what `docker build` sends. Nil: there is none, and clients are told so.
	Builder http.Handler
	// Policy says what may be asked for; nil: everything. Decisions gets a line of JSON for each request that makes or changes something, or
	// is refused.
	Policy    *policy.Policy
	Decisions io.Writer
}

// Server answers the API's requests. It is an http.Handler.
type Server struct {
	engine   *engine.Engine
	insecure []string
	log      *slog.Logger
	builder  http.Handler
	policy   *policy.Policy
	mux      *http.ServeMux

	decisions io.Writer
	logging   sync.Mutex // of decisions

	execs    execs
	attached attached
	events   hub
	busy     atomic.Int64 // requests being answered
	last     atomic.Int64 // when the last one ended, as time since began
	began    time.Time
}

// New makes a server of an open engine.
func New(c Config) *Server {
	s := &Server{
		engine: c.Engine, insecure: c.Insecure, log: c.Log, builder: c.Builder, policy: c.Policy,
		decisions: c.Decisions, mux: http.NewServeMux(), began: time.Now(),
	}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	s.events.engine = c.Engine
	s.routes()
	return s
}

// Idle is for how long nobody has wanted anything; zero while somebody does. An exec instance that is yet to be started counts.
func (s *Server) Idle() time.Duration {
	if s.busy.Load() > 0 || s.execs.waiting() {
		return 0
	}
	return time.Since(s.began) - time.Duration(s.last.Load())
}

// request is one request being answered.
type request struct {
	*http.Request
	s       *Server
	w       http.ResponseWriter
	version version
	warned  []string // what the engine wants to be known beside its answer
}

// handler answers a request, or returns why not; an error after the answer has begun is only logged.
type handler func(*request) error

// ServeHTTP answers a request.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	// Not the same as open connections, which Serve counts: what a detached command or an attached start leaves behind
	// goes on after its request.
	s.busy.Add(1)
	defer func() {
		s.last.Store(int64(time.Since(s.began)))
		s.busy.Add(-1)
	}()
	h := w.Header()
	// Before anything can fail: clients find the version to speak in the head of /_ping, whatever its status is.
	h.Set("Api-Version", MaxVersion)
	h.Set("Docker-Experimental", "false")
	h.Set("Ostype", runtime.GOOS)
	h.Set("Server", "glassbox/"+docker.Version+" ("+runtime.GOOS+")")
	v, path, err := splitVersion(r.URL.Path)
	if err == nil {
		err = v.check()
	}
	if err != nil {
		writeError(w, err)
		return
	}
	if r.ProtoMajor == 2 && strings.HasPrefix(r.Header.Get("Content-Type"), "application/grpc") {
		path = nativeGRPC + path
	}
	// A copy: handlers must not change the request that they are given (net/http.Handler), which the caller looks at
	// again.
	inner := r.Clone(context.WithValue(r.Context(), versionKey{}, v))
	inner.URL.Path, inner.URL.RawPath = path, ""
	// What the mux would answer itself, in plain text or with a redirect to a tidier path, is an error in JSON here:
	// clients show its message.
	if _, pattern := s.mux.Handler(inner); pattern == "" || strings.Contains(path, "//") {
		writeError(w, &statusError{http.StatusNotFound, "page not found"})
		return
	}
	s.mux.ServeHTTP(w, inner)
}

// nativeGRPC is before the path of a call of gRPC that comes over HTTP/2 (API 1.53): its own begins with the name of a service.
const nativeGRPC = "/grpc"

// versionKey is where a request's context has its version.
type versionKey struct{}

// handle adds a route. Bodies are bounded: those that are archives go to stream instead.
func (s *Server) handle(pattern string, do handler) { s.add(pattern, maxBody, do) }

// stream adds a route whose body has no bound.
func (s *Server) stream(pattern string, do handler) { s.add(pattern, 0, do) }

// maxBody is how many bytes a request in JSON may have. Docker has no bound; the largest real ones are some hundred kilobytes.
const maxBody = 4 << 20

func (s *Server) add(pattern string, limit int64, do handler) {
	if s.policy != nil {
		do = s.guarded(pattern, do)
	}
	s.mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
		v, _ := r.Context().Value(versionKey{}).(version)
		if limit > 0 {
			r.Body = http.MaxBytesReader(w, r.Body, limit)
		}
		out := &answer{ResponseWriter: w}
		q := &request{s: s, w: out, version: v}
		// A warning belongs to the request that caused it: it goes into that answer's Warnings.
		q.Request = r.WithContext(engine.Observe(r.Context(), engine.Observer{Warn: func(text string) { q.warned = append(q.warned, text) }}))
		err := do(q)
		switch {
		case err == nil, errors.Is(err, errTold):
		case out.begun: // the client sees an answer that is cut short
			s.log.Debug("request ended early", "path", r.URL.Path, "error", err)
		default:
			writeError(w, err)
		}
	})
}

// answer notes whether an answer has begun.
type answer struct {
	http.ResponseWriter
	begun bool
	code  int // 0: none was said
}

// WriteHeader implements http.ResponseWriter.
func (a *answer) WriteHeader(code int) {
	a.begun, a.code = true, code
	a.ResponseWriter.WriteHeader(code)
}

// Write implements http.ResponseWriter.
func (a *answer) Write(p []byte) (int, error) {
	a.begun = true
	return a.ResponseWriter.Write(p)
}

// Unwrap is for http.ResponseController.
func (a *answer) Unwrap() http.ResponseWriter { return a.ResponseWriter }

// flush sends what has been written.
func (q *request) flush() { http.NewResponseController(q.w).Flush() }

// flusher is a writer whose every write is sent at once.
type flusher struct{ q *request }

func (f flusher) Write(p []byte) (int, error) {
	n, err := f.q.w.Write(p)
	if err == nil {
		f.q.flush()
	}
	return n, err
}

// stream begins an answer of unknown length and returns where it goes.
func (q *request) streamed(mediaType string) io.Writer {
	q.w.Header().Set("Content-Type", mediaType)
	q.w.WriteHeader(http.StatusOK)
	q.flush()
	return flusher{q}
}

// none answers with nothing.
func (q *request) none() error {
	q.w.WriteHeader(http.StatusNoContent)
	return nil
}
