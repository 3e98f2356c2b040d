package api

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// authority signs certificates for a test.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	n    int64
}

// issue writes a certificate and its key; parent nil signs itself.
func (a *authority) issue(t *testing.T, dir, name string, isCA bool) (cert, key string) {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	a.n++
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(a.n), Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-time.Hour),
		NotAfter: time.Now().Add(time.Hour), IsCA: isCA, BasicConstraintsValid: true, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		KeyUsage:    x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
	}
	parent, signer := a.cert, a.key
	if parent == nil {
		parent, signer = tmpl, k
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, parent, &k.PublicKey, signer)
	if err != nil {
		t.Fatal(err)
	}
	if a.cert == nil {
		a.key = k
		if a.cert, err = x509.ParseCertificate(der); err != nil {
			t.Fatal(err)
		}
	}
	raw, err := x509.MarshalECPrivateKey(k)
	if err != nil {
		t.Fatal(err)
	}
	write := func(file, kind string, data []byte) string {
		file = filepath.Join(dir, file)
		if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: data}), 0o600); err != nil {
			t.Fatal(err)
		}
		return file
	}
	return write(name+".pem", "CERTIFICATE", der), write(name+".key", "EC PRIVATE KEY", raw)
}

// TestTLS: with certificates a server may be reached from elsewhere, and answers those alone whose certificate its authority has signed.
func TestTLS(t *testing.T) {
	dir := t.TempDir()
	ours, theirs := &authority{}, &authority{}
	ca, _ := ours.issue(t, dir, "ca", true)
	cert, key := ours.issue(t, dir, "server", false)
	client, clientKey := ours.issue(t, dir, "client", false)
	theirs.issue(t, dir, "other-ca", true)
	stranger, strangerKey := theirs.issue(t, dir, "stranger", false)
	address := serving(t, ListenOptions{Hosts: []string{"tcp://0.0.0.0:0"}, CA: ca, Cert: cert, Key: key})[0]
	_, port, err := net.SplitHostPort(strings.TrimPrefix(address, "tcp://"))
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(ours.cert)
	ask := func(config *tls.Config) (int, error) {
		c := &http.Client{Transport: &http.Transport{TLSClientConfig: config}, Timeout: 10 * time.Second}
		defer c.CloseIdleConnections()
		resp, err := c.Get("https://127.0.0.1:" + port + "/_ping")
		if err != nil {
			return 0, err
		}
		resp.Body.Close()
		return resp.StatusCode, nil
	}
	pair := func(cert, key string) []tls.Certificate {
		p, err := tls.LoadX509KeyPair(cert, key)
		if err != nil {
			t.Fatal(err)
		}
		return []tls.Certificate{p}
	}
	if code, err := ask(&tls.Config{RootCAs: pool, Certificates: pair(client, clientKey)}); code != 200 {
		t.Errorf("a client of ours: got %d, %v", code, err)
	}
	for name, config := range map[string]*tls.Config{
		"without a certificate": {RootCAs: pool},
		"a stranger's":          {RootCAs: pool, Certificates: pair(stranger, strangerKey)},
		"an old protocol": {
			RootCAs: pool, Certificates: pair(client, clientKey), MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11,
		},
	} {
		if code, err := ask(config); err == nil {
			t.Errorf("%s: status %d", name, code)
		}
	}
	// Plain HTTP is none of it.
	conn, err := net.Dial("tcp", "127.0.0.1:"+port)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if code := raw(t, conn, "GET /_ping HTTP/1.1\r\nHost: localhost\r\n\r\n"); code == 200 {
		t.Error("plain HTTP is answered")
	}
}
