package image

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
)

// client speaks the OCI distribution protocol with one repository of one registry. go-containerregistry does the
// authentication (challenges, tokens, credential helpers); reading blobs is done here, because a pull must go on in the
// middle of a layer when the connection drops, and must say exactly what went wrong.
type client struct {
	op     string // for errors
	ref    Ref
	host   string // what is dialled: docker.io is served at index.docker.io
	scheme string
	http   *http.Client
	opts   *PullOptions
	tls    *tls.Config
	guard  *guard
}

// handshakeTime is what finding out how to speak to a registry may take as a whole: its scheme, its challenge, a token.
const handshakeTime = 3 * time.Minute

// clientFor says what a client is for.
type clientFor struct {
	op    string // for errors: "pull", "push" …
	ref   Ref
	at    *Ref // where it is looked for; nil: at the registry itself, or what stands in for it
	opts  *PullOptions
	warn  func(string)
	push  bool
	mount []string // repositories of the same registry that blobs may be taken over from
}

func newClient(ctx context.Context, f clientFor) (*client, error) {
	ref, o := f.ref, f.opts
	rules, err := o.rules()
	if err != nil {
		return nil, err
	}
	if f.at != nil {
		ref = *f.at
	} else if ref, err = rules.Place(ref); err != nil {
		return nil, err
	}
	c := &client{op: f.op, ref: ref, host: ref.Registry, scheme: "https", opts: o}
	ctx, cancel := context.WithTimeout(ctx, handshakeTime)
	defer cancel()
	if err := c.prepare(ctx); err != nil {
		return nil, err
	}
	// WeakValidation, as the name has been checked by our own grammar.
	opts := []name.Option{name.WeakValidation}
	if c.scheme == "http" {
		opts = append(opts, name.Insecure)
	}
	repo, err := name.NewRepository(c.host+"/"+ref.Repository, opts...)
	if err != nil {
		return nil, &Error{Op: c.op, Name: ref.Familiar(), Kind: ErrReference, Err: err}
	}
	// What the caller brought is for the registry that the name says, and not for a mirror or what else stands in for it.
	authenticator := o.authenticator
	if ref.Registry != f.ref.Registry {
		authenticator = credentials
	}
	auth, told := authenticator(ctx, ref.Registry)
	for _, t := range told {
		f.warn(t)
	}
	scopes := []string{repo.Scope(transport.PullScope)}
	if f.push {
		scopes[0] = repo.Scope(transport.PushScope)
	}
	for _, m := range f.mount {
		scopes = append(scopes, "repository:"+m+":pull")
	}
	rt, err := transport.NewWithContext(ctx, repo.Registry, auth, c.guard, scopes)
	if err != nil {
		return nil, c.explain(err)
	}
	c.http = &http.Client{Transport: rt}
	return c, nil
}

// prepare finds out how to speak to the registry.
func (c *client) prepare(ctx context.Context) error {
	if c.host == hub {
		c.host = name.DefaultRegistry
	}
	rules, err := c.opts.rules()
	if err != nil {
		return err
	}
	if c.tls, err = tlsConfig(c.ref.Registry, c.opts.CertDirs); err != nil {
		return err
	}
	if err := ownCertificates(c.tls, rules.Host(c.ref.Registry)); err != nil {
		return err
	}
	c.guard = &guard{client: c, hosts: map[string]*http.Transport{}}
	// Only where plain HTTP may be: for all others the question would be a request of its own.
	if c.mayPlain(c.host) || c.listed(c.ref.Registry) {
		if err := c.probeScheme(ctx); err != nil {
			return c.explain(err)
		}
	}
	return nil
}

func (c *client) close() { c.guard.close() }

// what is the tag or digest that is asked for.
func (c *client) what() string {
	if c.ref.Digest != "" {
		return c.ref.Digest
	}
	return c.ref.Tag
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
			bad := func(err error) error { return badCertificate(file, err) }
			switch filepath.Ext(e.Name()) {
			case ".crt":
				if err := addAuthority(conf, file); err != nil {
					return nil, bad(err)
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

func badCertificate(file string, err error) error {
	return &Error{Op: "certificate", Name: file, Kind: ErrTLS, Err: err, Hint: "mend or remove the file"}
}

func addAuthority(conf *tls.Config, file string) error {
	pem, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	if conf.RootCAs == nil {
		// A machine without any authorities still has the one that was given to it.
		if conf.RootCAs, err = x509.SystemCertPool(); err != nil {
			conf.RootCAs = x509.NewCertPool()
		}
	}
	if !conf.RootCAs.AppendCertsFromPEM(pem) {
		return errors.New("no PEM certificate in it")
	}
	return nil
}

// ownCertificates adds those that the rule of a host names.
func ownCertificates(conf *tls.Config, rule *RegistryRule) error {
	if rule == nil {
		return nil
	}
	if rule.CA != "" {
		if err := addAuthority(conf, rule.CA); err != nil {
			return badCertificate(rule.CA, err)
		}
	}
	if rule.Cert != "" {
		pair, err := tls.LoadX509KeyPair(rule.Cert, rule.Key)
		if err != nil {
			return badCertificate(rule.Cert, err)
		}
		conf.Certificates = append(conf.Certificates, pair)
	}
	return nil
}

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
	ctx, cancel := context.WithTimeout(ctx, handshakeTime)
	defer cancel()
	for attempt := 1; ; attempt++ {
		doc, err := c.manifestOnce(ctx, what, want)
		if err == nil || attempt >= 3 || !isDropped(err) && !isBroken(err) || ctx.Err() != nil {
			return doc, c.explain(err)
		}
		if err := c.opts.sleep(ctx, backoff(attempt)); err != nil {
			return nil, err
		}
	}
}

func (c *client) manifestOnce(ctx context.Context, what, want string) (*document, error) {
	resp, err := c.get(ctx, c.url("manifests", what), http.Header{"Accept": {acceptTypes}})
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, c.status(resp, what)
	}
	limit := c.opts.Limits.Manifest
	raw, err := io.ReadAll(io.LimitReader(resp.Body, limit+1))
	if err != nil {
		return nil, err
	}
	if int64(len(raw)) > limit {
		return nil, &Error{Op: c.op, Name: c.ref.Familiar(), Kind: ErrLimit, Text: fmt.Sprintf("manifest of more than %d bytes", limit)}
	}
	got := digestOf(raw)
	claimed := resp.Header.Get("Docker-Content-Digest")
	// The registry's own word for a tag: it shows an answer that was altered on the way, and no more.
	if want == "" && validDigest(claimed) {
		want = claimed
	}
	if want != "" && got != want {
		return nil, broken{digestError("manifest", want, got)}
	}
	return parseDocument(raw, resp.Header.Get("Content-Type"), c.opts.Limits)
}

// broken is the error of an answer that is not what it should be, and may be the next time: something on the way may have cut or
// altered it.
type broken struct{ err error }

func (b broken) Error() string { return b.err.Error() }
func (b broken) Unwrap() error { return b.err }

func isBroken(err error) bool {
	var b broken
	return errors.As(err, &b)
}

func digestError(what, want, got string) error {
	return &Error{
		Op: what, Name: want, Kind: ErrDigest, Text: "the content received has another digest, " + got,
		Hint: "the registry or something on the way alters data; nothing of it was kept",
	}
}

func isTimeout(err error) bool {
	var ne net.Error
	return errors.As(err, &ne) && ne.Timeout()
}
