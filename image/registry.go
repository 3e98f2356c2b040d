package image

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

// client speaks the OCI distribution protocol with one repository of one registry. go-containerregistry does the
// authentication (challenges, tokens, credential helpers); reading blobs is done here, because a pull must go on in the
// middle of a layer when the connection drops, and must say exactly what went wrong.
type client struct {
	ref    Ref
	host   string // what is dialled: docker.io is served at index.docker.io
	scheme string
	http   *http.Client
	opts   *PullOptions
	rest   *http.Transport
}

const (
	maxAttempts  = 5
	maxRetryWait = 60 * time.Second
)

func newClient(ctx context.Context, ref Ref, o *PullOptions) (*client, error) {
	c := &client{ref: ref, host: ref.Registry, scheme: "https", opts: o}
	if c.host == hub {
		c.host = name.DefaultRegistry
	}
	listed := slices.Contains(o.InsecureRegistries, ref.Registry) || slices.Contains(o.InsecureRegistries, hostOnly(ref.Registry))
	tlsConf, err := tlsConfig(ref.Registry, o.CertDirs)
	if err != nil {
		return nil, err
	}
	tlsConf.InsecureSkipVerify = listed
	c.rest = &http.Transport{
		Proxy:                 http.ProxyFromEnvironment,
		DialContext:           (&net.Dialer{Timeout: o.ConnectTimeout, KeepAlive: 30 * time.Second}).DialContext,
		TLSClientConfig:       tlsConf,
		TLSHandshakeTimeout:   o.ConnectTimeout,
		ResponseHeaderTimeout: o.IdleTimeout,
		ForceAttemptHTTP2:     true,
		DisableCompression:    true, // blobs are digests of bytes as sent
		MaxIdleConnsPerHost:   8,
		IdleConnTimeout:       30 * time.Second,
		ReadBufferSize:        64 << 10,
	}
	mayPlain := listed || isLoopback(ref.Registry)
	if mayPlain {
		if err := c.probeScheme(ctx); err != nil {
			return nil, c.explain(err)
		}
	}
	base := &guard{inner: c.rest, client: c, plain: mayPlain}
	opts := []name.Option{name.WeakValidation}
	if c.scheme == "http" {
		opts = append(opts, name.Insecure)
	}
	repo, err := name.NewRepository(c.host+"/"+ref.Repository, opts...)
	if err != nil {
		return nil, &Error{Op: "pull", Name: ref.Familiar(), Kind: ErrReference, Err: err}
	}
	auth, err := authn.Resolve(ctx, authn.DefaultKeychain, repo)
	if err != nil {
		return nil, &Error{
			Op: "pull", Name: ref.Familiar(), Kind: ErrUnauthorized, Err: err,
			Text: "credentials cannot be read from " + authFile(), Hint: "mend that file, or log in again",
		}
	}
	rt, err := transport.NewWithContext(ctx, repo.Registry, auth, base, []string{repo.Scope(transport.PullScope)})
	if err != nil {
		return nil, c.explain(err)
	}
	c.http = &http.Client{Transport: rt}
	return c, nil
}

func (c *client) close() { c.rest.CloseIdleConnections() }

// probeScheme finds out whether a registry that may be spoken to without TLS has TLS. A bad certificate is no reason to
// go on without.
func (c *client) probeScheme(ctx context.Context) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+c.host+"/v2/", nil)
	if err != nil {
		return err
	}
	resp, err := c.rest.RoundTrip(req)
	if err == nil {
		resp.Body.Close()
		return nil
	}
	if isPlainAnswer(err) {
		c.scheme = "http"
		return nil
	}
	return err
}

// isPlainAnswer recognises a server that answered a TLS greeting with something else.
func isPlainAnswer(err error) bool {
	var rec tls.RecordHeaderError
	return errors.As(err, &rec) || strings.Contains(err.Error(), "server gave HTTP response to HTTPS client")
}

func hostOnly(registry string) string {
	if h, _, err := net.SplitHostPort(registry); err == nil {
		return h
	}
	return strings.Trim(registry, "[]")
}

func isLoopback(registry string) bool {
	h := hostOnly(registry)
	if h == "localhost" {
		return true
	}
	ip := net.ParseIP(h)
	return ip != nil && ip.IsLoopback()
}

// tlsConfig trusts the system's authorities (SSL_CERT_FILE and SSL_CERT_DIR included) and DIR/HOST/*.crt; a pair
// *.cert and *.key there is a client certificate, as Docker has it.
func tlsConfig(registry string, dirs []string) (*tls.Config, error) {
	conf := &tls.Config{MinVersion: tls.VersionTLS12}
	for _, d := range dirs {
		dir := filepath.Join(d, registry)
		entries, err := os.ReadDir(dir)
		if err != nil {
			continue
		}
		for _, e := range entries {
			file := filepath.Join(dir, e.Name())
			bad := func(err error) error {
				return &Error{Op: "certificate", Name: file, Kind: ErrTLS, Err: err, Hint: "mend or remove the file"}
			}
			switch filepath.Ext(e.Name()) {
			case ".crt":
				pem, err := os.ReadFile(file)
				if err != nil {
					return nil, bad(err)
				}
				if conf.RootCAs == nil {
					if conf.RootCAs, err = x509.SystemCertPool(); err != nil {
						conf.RootCAs = x509.NewCertPool()
					}
				}
				if !conf.RootCAs.AppendCertsFromPEM(pem) {
					return nil, bad(errors.New("no PEM certificate in it"))
				}
			case ".cert":
				pair, err := tls.LoadX509KeyPair(file, strings.TrimSuffix(file, ".cert")+".key")
				if err != nil {
					return nil, bad(err)
				}
				conf.Certificates = append(conf.Certificates, pair)
			}
		}
	}
	return conf, nil
}

// authFile is the credentials file that go-containerregistry looks at, for messages.
func authFile() string {
	home, _ := os.UserHomeDir()
	if d := os.Getenv("DOCKER_CONFIG"); d != "" {
		return filepath.Join(d, "config.json")
	}
	return filepath.Join(home, ".docker", "config.json")
}

// guard is the lowest transport: it keeps plain HTTP to where it is allowed, also after a redirect or for a token server,
// and repeats requests that a registry asks to repeat.
type guard struct {
	inner  http.RoundTripper
	client *client
	plain  bool
}

func (g *guard) RoundTrip(req *http.Request) (*http.Response, error) {
	if req.URL.Scheme == "https" && g.client.scheme == "http" && req.URL.Host == g.client.host {
		return nil, errors.New("the registry has no TLS")
	}
	if req.URL.Scheme != "https" && !g.plain {
		return nil, &Error{
			Op: "pull", Name: g.client.ref.Familiar(), Kind: ErrTLS,
			Text: fmt.Sprintf("the registry sends us to %s, without TLS", req.URL.Host),
			Hint: "list the registry as insecure if that is intended",
		}
	}
	for attempt := 1; ; attempt++ {
		resp, err := g.inner.RoundTrip(req)
		wait := backoff(attempt)
		switch {
		case err != nil:
			if !isDropped(err) || attempt >= maxAttempts || req.Context().Err() != nil {
				return nil, err
			}
		case resp.StatusCode == http.StatusTooManyRequests || resp.StatusCode >= 500 && resp.StatusCode != http.StatusNotImplemented:
			if after, ok := retryAfter(resp.Header.Get("Retry-After")); ok {
				wait = after
			}
			if attempt >= maxAttempts || wait > maxRetryWait {
				return resp, nil
			}
			io.Copy(io.Discard, io.LimitReader(resp.Body, 64<<10))
			resp.Body.Close()
		default:
			return resp, nil
		}
		if err := g.client.opts.sleep(req.Context(), wait); err != nil {
			return nil, err
		}
	}
}

func backoff(attempt int) time.Duration {
	return min(250*time.Millisecond<<(attempt-1), 10*time.Second)
}

func retryAfter(h string) (time.Duration, bool) {
	if n, err := strconv.Atoi(h); err == nil && n >= 0 {
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

var errIdle = errors.New("nothing received for too long")

func (c *client) url(kind, what string) string {
	return c.scheme + "://" + c.host + "/v2/" + c.ref.Repository + "/" + kind + "/" + what
}

func (c *client) get(ctx context.Context, url string, header http.Header) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	for k, v := range header {
		req.Header[k] = v
	}
	return c.http.Do(req)
}

// manifest fetches a manifest or an index by tag or digest. want is its digest if that is known.
func (c *client) manifest(ctx context.Context, what, want string) (*document, error) {
	resp, err := c.get(ctx, c.url("manifests", what), http.Header{"Accept": {acceptTypes}})
	if err != nil {
		return nil, c.explain(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, c.status(resp, what)
	}
	limit := c.opts.Limits.Manifest
	raw, err := io.ReadAll(io.LimitReader(resp.Body, limit+1))
	if err != nil {
		return nil, c.explain(err)
	}
	if int64(len(raw)) > limit {
		return nil, &Error{Op: "pull", Name: c.ref.Familiar(), Kind: ErrLimit, Text: fmt.Sprintf("manifest of more than %d bytes", limit)}
	}
	got := digestOf(raw)
	claimed := resp.Header.Get("Docker-Content-Digest")
	if want == "" && validDigest(claimed) {
		want = claimed
	}
	if want != "" && got != want {
		return nil, digestError("manifest", want, got)
	}
	return parseDocument(raw, resp.Header.Get("Content-Type"), c.opts.Limits)
}

func digestError(what, want, got string) error {
	return &Error{
		Op: what, Name: want, Kind: ErrDigest, Text: "the content received has another digest, " + got,
		Hint: "the registry or something on the way alters data; nothing of it was kept",
	}
}

// blob opens a blob; the reader fails unless exactly the promised bytes came.
func (c *client) blob(ctx context.Context, desc v1.Descriptor) *blobReader {
	return &blobReader{c: c, ctx: ctx, desc: desc, hash: sha256.New()}
}

// bytes reads a small blob whole.
func (c *client) bytes(ctx context.Context, desc v1.Descriptor) ([]byte, error) {
	b := c.blob(ctx, desc)
	defer b.Close()
	return io.ReadAll(b)
}

// blobReader reads one blob, going on with a Range request where a connection broke, and checks size and digest at the end.
type blobReader struct {
	c    *client
	ctx  context.Context
	desc v1.Descriptor
	hash hash.Hash
	off  atomic.Int64

	body     io.ReadCloser
	cancel   context.CancelCauseFunc
	timer    *time.Timer
	attempts int   // connections since the last real progress
	mark     int64 // off when that progress was made
	total    int
	done     bool
}

func (b *blobReader) Read(p []byte) (int, error) {
	if b.done {
		return 0, io.EOF
	}
	for {
		off := b.off.Load()
		if off == b.desc.Size {
			if err := b.verify(); err != nil {
				return 0, err
			}
			b.done = true
			return 0, io.EOF
		}
		if b.body == nil {
			if err := b.open(off); err != nil {
				return 0, err
			}
		}
		b.timer.Reset(b.c.opts.IdleTimeout)
		if rest := b.desc.Size - off; int64(len(p)) > rest {
			p = p[:rest]
		}
		n, err := b.body.Read(p)
		if n > 0 {
			b.hash.Write(p[:n])
			b.off.Store(off + int64(n))
			return n, nil
		}
		if err == nil {
			continue
		}
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		if cause := context.Cause(b.ctx); cause != nil {
			return 0, cause
		}
		b.Close()
		if err := b.again(err); err != nil {
			return 0, err
		}
	}
}

// again decides whether to go on after a break.
func (b *blobReader) again(err error) error {
	if off := b.off.Load(); off-b.mark >= 64<<10 {
		b.attempts, b.mark = 0, off
	}
	b.attempts++
	b.total++
	if b.attempts >= maxAttempts || b.total >= 20*maxAttempts {
		return &Error{
			Op: "layer", Name: string(b.desc.Digest), Kind: ErrTruncated, Err: err,
			Text: fmt.Sprintf("cut short after %d of %d bytes, and %d attempts to go on failed", b.off.Load(), b.desc.Size, b.attempts-1),
			Hint: "pull again: layers that are complete are not fetched twice",
		}
	}
	return b.c.opts.sleep(b.ctx, backoff(b.attempts))
}

func (b *blobReader) open(off int64) error {
	for {
		ctx, cancel := context.WithCancelCause(b.ctx)
		h := http.Header{}
		if off > 0 {
			h.Set("Range", fmt.Sprintf("bytes=%d-", off))
		}
		resp, err := b.c.get(ctx, b.c.url("blobs", string(b.desc.Digest)), h)
		if err != nil {
			cancel(nil)
			if cause := context.Cause(b.ctx); cause != nil {
				return cause
			}
			if off > 0 || isDropped(err) || isTimeout(err) {
				if err := b.again(err); err != nil {
					return err
				}
				continue
			}
			return b.c.explain(err)
		}
		fail := func(err error) error {
			resp.Body.Close()
			cancel(nil)
			return err
		}
		skip := int64(0)
		switch {
		case resp.StatusCode == http.StatusOK:
			skip = off // the server knows no ranges
			if resp.ContentLength >= 0 && resp.ContentLength != b.desc.Size {
				return fail(&Error{
					Op: "layer", Name: string(b.desc.Digest), Kind: ErrDigest,
					Text: fmt.Sprintf("the registry sends %d bytes, the manifest says %d", resp.ContentLength, b.desc.Size),
				})
			}
		case resp.StatusCode == http.StatusPartialContent && off > 0:
			if cr := resp.Header.Get("Content-Range"); !strings.HasPrefix(cr, fmt.Sprintf("bytes %d-", off)) {
				return fail(&Error{
					Op: "layer", Name: string(b.desc.Digest), Kind: ErrDigest,
					Text: fmt.Sprintf("asked for bytes from %d, the registry sends %q", off, cr),
				})
			}
		default:
			return fail(b.c.status(resp, string(b.desc.Digest)))
		}
		b.body, b.cancel = resp.Body, cancel
		b.timer = time.AfterFunc(b.c.opts.IdleTimeout, func() { cancel(errIdle) })
		if skip > 0 {
			if n, err := io.CopyN(io.Discard, idleReader{b}, skip); err != nil {
				b.Close()
				if err := b.again(fmt.Errorf("after %d bytes: %w", n, err)); err != nil {
					return err
				}
				continue
			}
		}
		return nil
	}
}

// idleReader reads the body and keeps the timer from firing.
type idleReader struct{ b *blobReader }

func (r idleReader) Read(p []byte) (int, error) {
	r.b.timer.Reset(r.b.c.opts.IdleTimeout)
	return r.b.body.Read(p)
}

func (b *blobReader) verify() error {
	defer b.Close()
	if b.body != nil {
		var one [1]byte
		if n, _ := b.body.Read(one[:]); n > 0 {
			return &Error{
				Op: "layer", Name: string(b.desc.Digest), Kind: ErrDigest,
				Text: fmt.Sprintf("the registry sends more than the %d bytes the manifest says", b.desc.Size),
			}
		}
	}
	got := "sha256:" + hex.EncodeToString(b.hash.Sum(nil))
	if got != string(b.desc.Digest) {
		return digestError("blob", string(b.desc.Digest), got)
	}
	return nil
}

func (b *blobReader) Close() error {
	if b.body != nil {
		b.timer.Stop()
		b.body.Close()
		b.cancel(nil)
		b.body = nil
	}
	return nil
}

func isTimeout(err error) bool {
	var ne net.Error
	return errors.As(err, &ne) && ne.Timeout()
}

// status explains an answer that is not a success.
func (c *client) status(resp *http.Response, what string) error {
	body, _ := io.ReadAll(io.LimitReader(resp.Body, 16<<10))
	return c.statusError(resp.StatusCode, serverMessage(body), what, resp.Header.Get("Retry-After"))
}

// serverMessage takes the registry's own words from an error body.
func serverMessage(body []byte) string {
	var e struct {
		Errors []struct {
			Code    string `json:"code"`
			Message string `json:"message"`
		} `json:"errors"`
	}
	if json.Unmarshal(body, &e) == nil && len(e.Errors) > 0 {
		return serverWords(e.Errors[0].Code, e.Errors[0].Message)
	}
	return ""
}

func serverWords(code, message string) string {
	s := strings.ToLower(strings.ReplaceAll(code, "_", " "))
	if message != "" && !strings.EqualFold(message, s) {
		s += ", " + message
	}
	return printable(s)
}

// printable keeps a server's words from driving the terminal.
func printable(s string) string {
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r >= 0x80 && r < 0xa0 {
			return ' '
		}
		return r
	}, s)
	if len(s) > 300 {
		s = strings.ToValidUTF8(s[:300], "") + "…"
	}
	return s
}

func (c *client) statusError(code int, words, what, after string) error {
	e := &Error{Op: "pull", Name: c.ref.Familiar()}
	said := fmt.Sprintf("HTTP %d", code)
	if words != "" {
		said += ", " + words
	}
	switch {
	case code == http.StatusNotFound:
		e.Kind = ErrNotFound
		switch {
		case validDigest(what):
			e.Text = fmt.Sprintf("%s has no %s (%s)", c.ref.FamiliarName(), what, said)
		default:
			e.Text = fmt.Sprintf("%s has no tag %q, or does not exist (%s)", c.ref.FamiliarName(), what, said)
		}
		e.Hint = fmt.Sprintf("list its tags: curl %s://%s/v2/%s/tags/list", c.scheme, c.host, c.ref.Repository)
	case code == http.StatusUnauthorized || code == http.StatusForbidden:
		e.Kind = ErrUnauthorized
		e.Text = fmt.Sprintf("access denied by %s (%s); credentials were looked for in %s", c.ref.Registry, said, authFile())
		e.Hint = "check the name; if the repository is private, log in so that this file has an entry for " + c.ref.Registry
	case code == http.StatusTooManyRequests:
		e.Kind = ErrRateLimited
		e.Text = fmt.Sprintf("%s limits the rate of requests (%s)", c.ref.Registry, said)
		if after != "" {
			e.Text += "; it asks to wait " + printable(after) + " s"
		}
		e.Hint = "try later, or log in: registries allow more to users they know"
	case code >= 500:
		e.Kind = ErrUnavailable
		e.Text = fmt.Sprintf("%s has a fault (%s)", c.ref.Registry, said)
		e.Hint = "try later"
	default:
		e.Kind = ErrUnavailable
		e.Text = fmt.Sprintf("unexpected answer from %s (%s)", c.ref.Registry, said)
	}
	return e
}

// explain turns an error of the network or of TLS into what, why and how to mend.
func (c *client) explain(err error) error {
	if e := (*Error)(nil); errors.As(err, &e) {
		return e
	}
	if errors.Is(err, context.Canceled) {
		return err
	}
	e := &Error{Op: "pull", Name: c.ref.Familiar(), Kind: ErrUnavailable, Err: err}
	if ue := (*url.Error)(nil); errors.As(err, &ue) {
		e.Err = ue.Err // without method and address, which the text gives
	}
	var (
		status   *transport.Error
		unknown  x509.UnknownAuthorityError
		hostname x509.HostnameError
		invalid  x509.CertificateInvalidError
		verify   *tls.CertificateVerificationError
		dns      *net.DNSError
	)
	switch {
	case errors.As(err, &status):
		words := ""
		if len(status.Errors) > 0 {
			words = serverWords(string(status.Errors[0].Code), status.Errors[0].Message)
		}
		return c.statusError(status.StatusCode, words, c.ref.Tag, "")
	case errors.As(err, &unknown):
		e.Kind, e.Text = ErrTLS, fmt.Sprintf("the certificate of %s is signed by an authority this machine does not know", c.host)
		e.Hint = fmt.Sprintf("put the authority's certificate into %s, or list the registry as insecure", c.certPlace())
	case errors.As(err, &hostname):
		e.Kind, e.Text = ErrTLS, fmt.Sprintf("the certificate is not for %s", c.host)
		e.Hint = "use a name that is in the certificate, or list the registry as insecure"
	case errors.As(err, &invalid), errors.As(err, &verify):
		e.Kind, e.Text = ErrTLS, fmt.Sprintf("the certificate of %s is not valid", c.host)
		e.Hint = "check this machine's clock and the certificate's dates"
	case isPlainAnswer(err):
		e.Kind, e.Text = ErrTLS, fmt.Sprintf("%s speaks plain HTTP, not HTTPS", c.host)
		e.Hint = "list the registry as insecure to allow that"
	case errors.As(err, &dns):
		e.Text = fmt.Sprintf("no address found for %s", dns.Name)
		e.Hint = "check the registry's name and this machine's DNS"
	case errors.Is(err, syscall.ECONNREFUSED):
		e.Text = fmt.Sprintf("%s refused the connection", c.host)
		e.Hint = "is the registry running, and is the port right?"
	case isTimeout(err) || errors.Is(err, context.DeadlineExceeded) || errors.Is(err, errIdle):
		e.Text = fmt.Sprintf("%s did not answer in time", c.host)
		e.Hint = "check the network, the proxy settings and the registry's name"
	case errors.Is(err, syscall.ENETUNREACH) || errors.Is(err, syscall.EHOSTUNREACH):
		e.Text = fmt.Sprintf("%s cannot be reached", c.host)
		e.Hint = "check this machine's network"
	default:
		e.Text = "talking to " + c.host
	}
	return e
}

func (c *client) certPlace() string {
	dir := "/etc/docker/certs.d"
	if len(c.opts.CertDirs) > 0 {
		dir = c.opts.CertDirs[0]
	}
	return filepath.Join(dir, c.ref.Registry, "ca.crt")
}
