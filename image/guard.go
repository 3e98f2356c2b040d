package image

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

const (
	maxAttempts  = 5
	maxRetryWait = 60 * time.Second // a registry that asks for more is told as one that limits the rate
	// slowest is the rate, in bytes a second, below which a blob is one that never ends: 4 KiB/s is an ISDN line's.
	slowest = 4 << 10
)

// guard is the lowest transport. It is where the rules are kept that no answer of a registry may change:
//
//   - Plain HTTP, and TLS that nobody vouches for, are for the hosts that they were allowed for, whoever sends us there.
//   - Credentials are for the host they belong to; to a token server elsewhere they go if the registry proved who it is.
//   - No body keeps us waiting: each has an idle limit and an end, in time and, but for blobs, in bytes.
//
// It repeats requests that a registry asks to repeat.
type guard struct {
	client *client

	mu    sync.Mutex
	hosts map[string]*http.Transport // host:port → its connections
}

// listed reports whether the user named a host as insecure.
func (c *client) listed(host string) bool {
	return slices.Contains(c.opts.InsecureRegistries, host) || slices.Contains(c.opts.InsecureRegistries, hostOnly(host)) ||
		c.opts.registries != nil && c.opts.registries.insecure(host)
}

// mayPlain reports whether a host may be spoken to without TLS: it is named as insecure, or it is this machine and so is the registry. A
// registry elsewhere has no business with servers that only this machine sees.
func (c *client) mayPlain(host string) bool {
	return c.listed(host) || isLoopback(host) && isLoopback(c.ref.Registry)
}

// proven reports whether the registry has shown by a certificate who it is.
func (c *client) proven() bool { return c.scheme == "https" && !c.listed(c.ref.Registry) }

// transport returns the connections to a host. Only the registry's own host gets the user's client certificates.
func (g *guard) transport(host string) *http.Transport {
	g.mu.Lock()
	defer g.mu.Unlock()
	if t := g.hosts[host]; t != nil {
		return t
	}
	c := g.client
	conf := c.tls.Clone()
	if host != c.host {
		conf.Certificates = nil
	}
	conf.InsecureSkipVerify = c.listed(host) || host == c.host && c.listed(c.ref.Registry)
	t := &http.Transport{
		Proxy:                  http.ProxyFromEnvironment,
		DialContext:            (&net.Dialer{Timeout: c.opts.ConnectTimeout, KeepAlive: 30 * time.Second}).DialContext,
		TLSClientConfig:        conf,
		TLSHandshakeTimeout:    c.opts.ConnectTimeout,
		ResponseHeaderTimeout:  c.opts.IdleTimeout,
		MaxResponseHeaderBytes: 256 << 10,
		ForceAttemptHTTP2:      true,
		DisableCompression:     true, // blobs are digests of bytes as sent
		MaxIdleConnsPerHost:    8,
		IdleConnTimeout:        30 * time.Second,
		ReadBufferSize:         64 << 10,
		WriteBufferSize:        64 << 10, // a blob is copied in pieces of 32 KiB: one call for each, with its frame
	}
	g.hosts[host] = t
	return t
}

func (g *guard) close() {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, t := range g.hosts {
		t.CloseIdleConnections()
	}
}

// refuse keeps a request to the rules.
func (g *guard) refuse(req *http.Request) error {
	c := g.client
	bad := func(kind error, hint, format string, args ...any) error {
		return &Error{Op: c.op, Name: c.ref.Familiar(), Kind: kind, Text: fmt.Sprintf(format, args...), Hint: hint}
	}
	host := req.URL.Host
	switch req.URL.Scheme {
	case "https":
		// go-containerregistry tries both schemes for some hosts. What the probe has found out holds.
		if c.scheme == "http" && host == c.host {
			return errors.New("the registry has no TLS")
		}
	case "http":
		if !c.mayPlain(host) {
			if host == c.host { // the client tries it by itself for private addresses (RFC 1918)
				return bad(ErrTLS, "list that host as insecure if this is intended",
					"%.100s speaks no HTTPS, and plain HTTP is only for this machine and for hosts that are listed as insecure", host)
			}
			return bad(ErrTLS, "list that host as insecure if this is intended",
				"the registry sends us to %.100q without TLS", host)
		}
	default:
		return bad(ErrUnavailable, "", "the registry sends us to an address of the kind %.20q", req.URL.Scheme)
	}
	if strings.Contains(req.URL.Path, "\x00") || req.URL.User != nil {
		return bad(ErrUnavailable, "", "the registry sends us to an address with a password or a NUL byte in it")
	}
	if host == c.host {
		return nil
	}
	if req.Response != nil { // a redirect: package http keeps credentials for another port of the same host
		if from := req.Response.Request; from == nil || from.URL.Host != host {
			req.Header.Del("Authorization")
			req.Header.Del("Cookie")
		}
		return nil
	}
	// A token server, then. Whoever is on the line of a registry without proof may have named it.
	// A POST is a request for a token, whose password is in its body and not in a header.
	secret := req.Header.Get("Authorization") != "" || req.Method == http.MethodPost
	if secret && !c.proven() && hostOnly(host) != hostOnly(c.host) {
		return bad(ErrUnauthorized, "give the registry a certificate that this machine trusts",
			"the registry asks to send its credentials to %.100q, and nothing proves that it is who it says", host)
	}
	return nil
}

func (g *guard) RoundTrip(req *http.Request) (*http.Response, error) {
	req = req.Clone(req.Context()) // its headers are changed, and are the caller's
	if err := g.refuse(req); err != nil {
		return nil, err
	}
	resp, err := g.persist(req)
	if err != nil || req.URL.Path != "/v2/" || req.URL.Host != g.client.host || !saysNothing(resp.StatusCode) ||
		g.client.ref.Repository == "" { // of a login there is no manifest to ask for
		return resp, err
	}
	// Some registries don't have /v2/ for everybody, or at all. What counts is the manifest: whether it wants credentials.
	resp.Body.Close()
	what := g.client.what()
	ask, err := http.NewRequestWithContext(req.Context(), http.MethodGet, g.client.url("manifests", what), nil)
	if err != nil {
		return nil, err
	}
	ask.Header.Set("Accept", acceptTypes)
	if resp, err = g.persist(ask); err != nil || resp.StatusCode == http.StatusUnauthorized {
		return resp, err
	}
	resp.Body.Close()
	return &http.Response{
		Status: "200 OK", StatusCode: http.StatusOK, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Header: http.Header{}, Body: http.NoBody,
		Request: req,
	}, nil
}

// saysNothing reports whether the answer of /v2/ is neither that all is well nor a wish for credentials nor one to be repeated.
func saysNothing(status int) bool {
	switch status {
	case http.StatusOK, http.StatusUnauthorized, http.StatusTooManyRequests, http.StatusRequestTimeout:
		return false
	}
	return status < 500
}

// persist makes a request until it is answered, or for long enough.
func (g *guard) persist(req *http.Request) (*http.Response, error) {
	for attempt := 1; ; attempt++ {
		resp, err := g.once(req)
		// What was sent of it can't be taken back: only the upload's own code knows where it goes on.
		if req.Body != nil && req.Body != http.NoBody && req.GetBody == nil { // a piece of a blob: see upload
			return resp, err
		}
		wait := backoff(attempt)
		switch {
		case err != nil:
			if !isDropped(err) || attempt >= maxAttempts || req.Context().Err() != nil {
				return nil, err
			}
		case again(resp.StatusCode):
			if after, ok := retryAfter(resp.Header.Get("Retry-After")); ok {
				wait = after
			}
			if attempt >= maxAttempts || wait > maxRetryWait {
				return resp, nil
			}
			// Read to its end, so that the connection can be used again; but not much of it, for it may have none.
			io.Copy(io.Discard, io.LimitReader(resp.Body, 64<<10))
			resp.Body.Close()
		default:
			return resp, nil
		}
		if req.GetBody != nil {
			body, err := req.GetBody()
			if err != nil {
				return nil, err
			}
			req.Body = body
		}
		if err := g.client.opts.sleep(req.Context(), wait); err != nil {
			return nil, err
		}
	}
}

// again lists the answers that say it may be otherwise in a moment.
func again(status int) bool {
	switch status {
	case http.StatusRequestTimeout, http.StatusTooManyRequests:
		return true
	case http.StatusNotImplemented, http.StatusHTTPVersionNotSupported:
		return false
	}
	return status >= 500
}

// once makes a request whose answer comes to an end.
func (g *guard) once(req *http.Request) (*http.Response, error) {
	o := g.client.opts
	size, blob := blobSize(req)
	total := o.SmallTimeout
	// A second for each 4 KiB of what the manifest says, beside the usual limit.
	if blob {
		total += time.Duration(size/slowest) * time.Second
	}
	ctx, cancel := context.WithCancelCause(req.Context())
	resp, err := g.transport(req.URL.Host).RoundTrip(req.WithContext(ctx))
	if err != nil {
		cancel(nil)
		return nil, err
	}
	b := &boundedBody{body: resp.Body, ctx: ctx, cancel: cancel, idle: o.IdleTimeout, rest: total, left: -1}
	if !blob {
		b.left = o.Limits.Manifest + 1
	}
	resp.Body = b
	return resp, nil
}

var (
	errIdle  = errors.New("nothing received for too long")
	errSlow  = errors.New("it took too long as a whole")
	errLarge = errors.New("an answer that is too large")
)

// boundedBody is the body of an answer: reading it fails when nothing comes for too long, when all of it takes too long, or when it is
// larger than what it is good for.
type boundedBody struct {
	body   io.ReadCloser
	ctx    context.Context
	cancel context.CancelCauseFunc
	idle   time.Duration // without a byte
	rest   time.Duration // for all that is still to come
	left   int64         // bytes; -1 is any number: a blob's are counted by who reads it
}

func (b *boundedBody) Read(p []byte) (int, error) {
	// While nobody reads, the server isn't to blame: the clock runs in here only.
	if b.rest <= 0 {
		b.cancel(errSlow)
		return 0, errSlow
	}
	most, why := b.idle, errIdle
	if b.rest < most {
		most, why = b.rest, errSlow
	}
	begin := time.Now()
	timer := time.AfterFunc(most, func() { b.cancel(why) })
	n, err := b.body.Read(p)
	timer.Stop()
	b.rest -= time.Since(begin)
	if err != nil && err != io.EOF {
		// The connection says only that it was closed. Why is what the timer has left.
		if cause := context.Cause(b.ctx); errors.Is(cause, errIdle) || errors.Is(cause, errSlow) {
			err = cause
		}
	}
	if b.left >= 0 {
		if b.left -= int64(n); b.left < 0 {
			b.left = 0
			return 0, errLarge
		}
	}
	return n, err
}

func (b *boundedBody) Close() error {
	b.cancel(nil)
	return b.body.Close()
}

// blobKey marks the context of a blob's request with its address and size.
type blobKey struct{}

type blobMark struct {
	url  string
	size int64
}

// blobSize reports whether a request is for a blob, also after redirects. A token that is fetched on the way to one is not.
func blobSize(req *http.Request) (int64, bool) {
	mark, ok := req.Context().Value(blobKey{}).(blobMark)
	if !ok {
		return 0, false
	}
	// A redirect's request has the answer that led to it, whose request is the one before: the first one is what was asked
	// for.
	for req.Response != nil && req.Response.Request != nil {
		req = req.Response.Request
	}
	return mark.size, req.URL.String() == mark.url
}

func backoff(attempt int) time.Duration {
	return min(250*time.Millisecond<<(attempt-1), 10*time.Second)
}

func retryAfter(h string) (time.Duration, bool) {
	if n, err := strconv.ParseUint(h, 10, 31); err == nil {
		return time.Duration(n) * time.Second, true
	}
	if t, err := http.ParseTime(h); err == nil {
		return max(time.Until(t), 0), true
	}
	return 0, false
}

// isDropped recognises a connection that worked and broke. A refused one is not repeated: it would only delay the answer.
func isDropped(err error) bool {
	return errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET) ||
		errors.Is(err, syscall.EPIPE) || errors.Is(err, errIdle) ||
		strings.Contains(err.Error(), "http2: server sent GOAWAY") || strings.Contains(err.Error(), "stream error")
}

// probeScheme finds out whether a registry that may be spoken to without TLS has TLS. A bad certificate is no reason to
// go on without; that nobody is there who speaks TLS is one, if somebody is who speaks HTTP.
func (c *client) probeScheme(ctx context.Context) error {
	probe := func(scheme string) error {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, scheme+"://"+c.host+"/v2/", nil)
		if err != nil {
			return err
		}
		resp, err := c.guard.transport(c.host).RoundTrip(req)
		if err == nil {
			resp.Body.Close()
		}
		return err
	}
	err := probe("https")
	// A certificate that isn't believed ends it: to go on in plain text would be what an attacker wants.
	if err == nil || isCertificate(err) || ctx.Err() != nil {
		return err
	}
	if isPlainAnswer(err) || probe("http") == nil {
		c.scheme = "http"
		return nil
	}
	return err
}

// isCertificate recognises a server that speaks TLS and whose certificate is not believed.
func isCertificate(err error) bool {
	var verify *tls.CertificateVerificationError
	return errors.As(err, &verify)
}

// isPlainAnswer recognises a server that answered a TLS greeting with something else.
func isPlainAnswer(err error) bool {
	var rec tls.RecordHeaderError
	return errors.As(err, &rec) || strings.Contains(err.Error(), "server gave HTTP response to HTTPS client")
}
