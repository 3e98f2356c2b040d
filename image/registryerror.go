package image

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"path/filepath"
	"strings"
	"syscall"
	"unicode"

	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
)

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

// harmless keeps somebody else's words from driving the terminal, or from showing otherwise than they are: control characters, marks of
// direction (CVE-2021-42574), what breaks lines or takes no room.
func harmless(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.In(r, unicode.Cc, unicode.Cf, unicode.Zl, unicode.Zp) {
			return ' '
		}
		return r
	}, s)
}

// printable is harmless for words of a server, which may be many.
func printable(s string) string {
	s = harmless(s)
	if len(s) > 300 {
		s = strings.ToValidUTF8(s[:300], "") + "…"
	}
	return s
}

func (c *client) statusError(code int, words, what, after string) error {
	e := &Error{Op: c.op, Name: c.ref.Familiar()}
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
		e.Hint = "check the name; if the repository is private: glassbox login " + c.loginName()
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
	if err == nil {
		return nil
	}
	if e := (*Error)(nil); errors.As(err, &e) {
		return e
	}
	if errors.Is(err, context.Canceled) {
		return err
	}
	e := &Error{Op: c.op, Name: c.ref.Familiar(), Kind: ErrUnavailable, Err: err}
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
	case isTimeout(err) || errors.Is(err, context.DeadlineExceeded) || errors.Is(err, errIdle) || errors.Is(err, errSlow):
		e.Text = fmt.Sprintf("%s did not answer in time", c.host)
		e.Hint = "check the network, the proxy settings and the registry's name"
	case errors.Is(err, errLarge):
		e.Kind, e.Text = ErrLimit, fmt.Sprintf("%s sends an answer that has no end", c.host)
	case errors.Is(err, syscall.ENETUNREACH) || errors.Is(err, syscall.EHOSTUNREACH):
		e.Text = fmt.Sprintf("%s cannot be reached", c.host)
		e.Hint = "check this machine's network"
	default:
		e.Text = "talking to " + c.host
	}
	return e
}

// loginName is what login takes for the registry.
func (c *client) loginName() string {
	if c.ref.Registry == hub {
		return ""
	}
	return c.ref.Registry
}

func (c *client) certPlace() string {
	dir := "/etc/docker/certs.d"
	if len(c.opts.CertDirs) > 0 {
		dir = c.opts.CertDirs[0]
	}
	return filepath.Join(dir, c.ref.Registry, "ca.crt")
}
