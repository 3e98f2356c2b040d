package image

import (
	"crypto/tls"
	"net/http"
	"net/url"
	"testing"
)

// TestHostForHost: what the user allowed or proves is for one host with its port: another port of the same name is another server.
func TestHostForHost(t *testing.T) {
	const host, port, other = "registry.test:5000", "registry.test:5001", "other.test"
	c := &client{
		ref: Ref{Registry: host}, host: host, scheme: "https", tls: &tls.Config{Certificates: make([]tls.Certificate, 1)},
		opts: &PullOptions{InsecureRegistries: []string{host}},
	}
	g := &guard{client: c, hosts: map[string]*http.Transport{}}
	for _, to := range []string{host, port, other} {
		conf := g.transport(to).TLSClientConfig
		if got := len(conf.Certificates) > 0; got != (to == host) {
			t.Errorf("%s: client certificates are shown: %v", to, got)
		}
		if conf.InsecureSkipVerify != (to == host) {
			t.Errorf("%s: its certificate needs no proof: %v", to, conf.InsecureSkipVerify)
		}
	}
	// A redirect: package http itself keeps credentials for another port of the same name.
	for _, to := range []string{host, port, other} {
		from := &http.Request{URL: &url.URL{Scheme: "https", Host: host}}
		req := &http.Request{
			URL: &url.URL{Scheme: "https", Host: to, Path: "/x"}, Response: &http.Response{Request: from},
			Header: http.Header{"Authorization": {"Basic YW5uOnNlY3JldA=="}, "Cookie": {"a=b"}},
		}
		if err := g.refuse(req); err != nil {
			t.Errorf("%s: %v", to, err)
		}
		if kept := req.Header.Get("Authorization") != "" || req.Header.Get("Cookie") != ""; kept != (to == host) {
			t.Errorf("%s: it is given credentials: %v", to, kept)
		}
	}
}
