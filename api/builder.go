package api

import (
	"bufio"
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/http/httputil"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"time"

	"glassbox/build"
)

// Builder hands what `docker build` and buildx send to the builder's own program, which it starts when somebody builds. The program answers
// at a socket of its own, in the words of Docker's API: what is handed on is the request, and then the connection as it is.
type Builder struct {
	Socket  string   // of the builder
	Cache   string   // its directory, which the first build makes
	Command []string // starts it

	mu      sync.Mutex
	started bool
}

// build hands a request to the builder.
func (q *request) build() error {
	b := q.s.builder
	if q.URL.Path == "/build/prune" && q.s.neverBuilt() { // which `docker system prune` asks for: nothing is started for that
		return q.json(struct {
			CachesDeleted  []string
			SpaceReclaimed int64
		}{})
	}
	if b == nil {
		return notImplemented("there is no builder here: the program glassbox-build is neither beside this one nor in PATH (make install)")
	}
	if q.s.policy == nil {
		b.ServeHTTP(q.w, q.WithContext(context.WithValue(q.Context(), handedKey{}, handed{policy: build.NoPolicy})))
		return nil
	}
	text, err := json.Marshal(q.s.policy)
	if err != nil {
		return err
	}
	own := handed{policy: base64.StdEncoding.EncodeToString(text), watch: rand.Text()}
	refused := 0
	end := func() {}
	if b, ok := b.(*Builder); ok {
		end, err = b.watch(q.Context(), own.watch, func(why string) {
			refused++
			q.decided("refused", []string{why})
		})
		if err != nil {
			return fmt.Errorf("the builder: %w", err)
		}
	}
	b.ServeHTTP(q.w, q.WithContext(context.WithValue(q.Context(), handedKey{}, own)))
	end()
	if a, ok := q.w.(*answer); refused > 0 || ok && a.code >= http.StatusBadRequest {
		return errTold // nothing was done, or not all
	}
	return nil
}

// handed is what the builder is told of a request beside what the client has sent.
type handed struct {
	policy string // its header's value
	watch  string // under which refusals are told; empty: nobody asks
}

type handedKey struct{}

// watchTime is how long the builder may take to tell the last refusals of a request that is over.
const watchTime = 10 * time.Second

// watch asks the builder to tell what it refuses of a request that comes with a name. end waits until all has been told.
func (b *Builder) watch(ctx context.Context, name string, told func(why string)) (end func(), err error) {
	// Its own context: what was refused before the client hung up is written down.
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://builder"+build.PathRefusals, nil)
	if err != nil {
		cancel()
		return nil, err
	}
	r.Header.Set(build.WatchHeader, name)
	resp, err := b.transport(b.dial).RoundTrip(r)
	if err != nil {
		cancel()
		return nil, err
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer resp.Body.Close()
		for dec := json.NewDecoder(resp.Body); ; {
			var why string
			if dec.Decode(&why) != nil {
				return
			}
			told(why)
		}
	}()
	return func() {
		select {
		case <-done:
		case <-time.After(watchTime):
		}
		cancel()
		<-done
	}, nil
}

// neverBuilt reports whether there is no cache of builds.
func (s *Server) neverBuilt() bool {
	b, ok := s.builder.(*Builder)
	if !ok {
		return s.builder == nil
	}
	_, err := os.Stat(b.Cache)
	return errors.Is(err, fs.ErrNotExist)
}

// errTold is the end of a request whose answer has been given.
var errTold = errors.New("answered")

// buildCache is what the cache of builds takes. Who has never built has none; while another process builds it is not looked into.
func (s *Server) buildCache(ctx context.Context) (records []build.Record) {
	b, ok := s.builder.(*Builder)
	if !ok {
		return nil
	}
	if _, err := os.Stat(b.Socket); err != nil {
		return nil
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://builder"+build.PathUsage, nil)
	if err != nil {
		return nil
	}
	resp, err := b.transport(b.connect).RoundTrip(r)
	if err != nil {
		return nil
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK || json.NewDecoder(resp.Body).Decode(&records) != nil {
		return nil
	}
	return records
}

// ServeHTTP implements http.Handler.
func (b *Builder) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	// The context of a build comes while its progress goes.
	http.NewResponseController(w).EnableFullDuplex()
	t := b.transport(b.dial)
	if r.ProtoMajor == 1 && r.Header.Get("Upgrade") != "" {
		r.Header.Set("Connection", "Upgrade") // which Docker's server asks of nobody (RFC 9110, 7.8, does)
	}
	if r.ProtoMajor == 2 {
		// gRPC has trailers, and messages both ways. The connection on which the builder was asked whether it is there speaks HTTP/1.1.
		t = b.transport(func(ctx context.Context) (net.Conn, error) {
			conn, err := b.dial(ctx)
			if err != nil {
				return nil, err
			}
			conn.Close()
			var d net.Dialer
			return d.DialContext(ctx, "unix", b.Socket)
		})
		t.Protocols = &http.Protocols{}
		t.Protocols.SetUnencryptedHTTP2(true)
	}
	defer t.CloseIdleConnections()
	proxy := &httputil.ReverseProxy{
		Transport:     t,
		FlushInterval: -1,
		Rewrite: func(p *httputil.ProxyRequest) {
			p.Out.URL.Scheme, p.Out.URL.Host = "http", "builder"
			// Here, and not before: a client's Connection header can name headers that the proxy drops, which it has done now.
			own, _ := p.In.Context().Value(handedKey{}).(handed)
			p.Out.Header.Set(build.PolicyHeader, own.policy)
			p.Out.Header.Set(build.WatchHeader, own.watch)
		},
		ErrorHandler: func(w http.ResponseWriter, _ *http.Request, err error) {
			writeError(w, fmt.Errorf("the builder: %w", err))
		},
	}
	proxy.ServeHTTP(w, r)
}

func (b *Builder) transport(dial func(context.Context) (net.Conn, error)) *http.Transport {
	return &http.Transport{
		DialContext:       func(ctx context.Context, _, _ string) (net.Conn, error) { return dial(ctx) },
		DisableKeepAlives: true, DisableCompression: true,
	}
}

// startTime is how long the builder may take until it answers: it may have to wait for a build of the command line, whose files they are.
const startTime = 10 * time.Minute

// dial connects to the builder, and starts it where there is none.
func (b *Builder) dial(ctx context.Context) (net.Conn, error) {
	if conn, err := b.connect(ctx); err == nil {
		return conn, nil
	}
	ctx, cancel := context.WithTimeout(ctx, startTime)
	defer cancel()
	b.mu.Lock() // one is started, for all who wait
	defer b.mu.Unlock()
	for {
		if conn, err := b.connect(ctx); err == nil {
			return conn, nil
		}
		conn, err := b.start(ctx)
		if err == nil || !errors.Is(err, errBusy) {
			return conn, err
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// errBusy is the end of a builder that found the files in use.
var errBusy = errors.New("another process builds")

// start starts the builder, and waits until it answers.
func (b *Builder) start(ctx context.Context) (net.Conn, error) {
	// What it says goes into a file without a name: a pipe would end it when this server ends.
	said, err := os.CreateTemp("", "glassbox-builder-")
	if err != nil {
		return nil, err
	}
	defer said.Close()
	os.Remove(said.Name())
	cmd := exec.Command(b.Command[0], b.Command[1:]...)
	cmd.Stderr = said
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true} // what ends this server by its terminal isn't for a build that others may use
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start it: %w", err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	for {
		if conn, err := b.connect(ctx); err == nil {
			b.started = true
			return conn, nil
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case err := <-ended:
			var exit *exec.ExitError
			if errors.As(err, &exit) && exit.ExitCode() == build.Busy {
				return nil, errBusy
			}
			text, _ := io.ReadAll(io.NewSectionReader(said, 0, 4096))
			return nil, fmt.Errorf("it ended at once (%v): %s", err, text)
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// connect makes a connection on which the builder has answered: one that is about to end has a socket still, and would take a request with
// it.
func (b *Builder) connect(ctx context.Context) (net.Conn, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", b.Socket)
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	answers := func() error {
		if _, err := io.WriteString(conn, "GET "+build.PathReady+" HTTP/1.1\r\nHost: builder\r\n\r\n"); err != nil {
			return err
		}
		// The answer has no body, and nothing follows it until there is a further request.
		resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			return err
		}
		if resp.StatusCode != http.StatusOK {
			return fmt.Errorf("the builder: %s", resp.Status)
		}
		return nil
	}
	if err := answers(); err != nil {
		conn.Close()
		return nil, err
	}
	return conn, nil
}

// End asks a builder that this server has started to end, unless somebody uses it.
func (b *Builder) End() {
	b.mu.Lock()
	started := b.started
	b.mu.Unlock()
	if !started {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://builder"+build.PathEnd, nil)
	if err != nil {
		return
	}
	if resp, err := b.transport(b.connect).RoundTrip(r); err == nil {
		resp.Body.Close()
	}
}
