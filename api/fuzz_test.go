package api

import (
	"bytes"
	"encoding/json"
	"net/http/httptest"
	"strings"
	"testing"
)

// FuzzCreate reads bodies of POST /containers/create: whatever comes, it is refused or becomes a configuration, and what isn't asked for
// isn't there.
func FuzzCreate(f *testing.F) {
	for _, w := range created() {
		f.Add(w.body)
	}
	f.Add(`{"Image":"box","HostConfig":{"Binds":["/a:/b:ro"],"PortBindings":{"80/tcp":[{"HostPort":"1"}]},"NanoCpus":500000000}}`)
	f.Add(`{"Image":"box","hostconfig":{"privileged":true},"HostConfig":{"Privileged":false}}`)
	f.Fuzz(func(t *testing.T, body string) {
		var r createRequest
		if json.Unmarshal([]byte(body), &r) != nil {
			return
		}
		// Networks by name are the engine's to find; all else is read without it.
		r.NetworkingConfig = nil
		if r.HostConfig != nil {
			r.HostConfig.NetworkMode = ""
		}
		q := &request{Request: httptest.NewRequest("POST", "/containers/create", strings.NewReader(body)), version: 57}
		o, err := q.createOptions(&r)
		if err != nil {
			if code := status(err); code >= 500 && code != 501 {
				t.Errorf("%q: status %d: %v", body, code, err)
			}
			return
		}
		c := &o.Config
		if c.Privileged != r.HostConfig.Privileged || c.Image != r.Image || c.TTY != r.Tty || len(c.Devices) != len(r.HostConfig.Devices) {
			t.Errorf("%q: got %+v", body, c)
		}
		for _, m := range c.Mounts {
			if !strings.HasPrefix(m.Target, "/") || m.Target == "/" {
				t.Errorf("%q: mount %+v", body, m)
			}
		}
	})
}

// FuzzDecompressed reads archives as they come.
func FuzzDecompressed(f *testing.F) {
	f.Add([]byte("plain"))
	f.Add([]byte{0x1f, 0x8b, 8, 0})
	f.Add([]byte("BZh9"))
	f.Add([]byte{0x28, 0xb5, 0x2f, 0xfd})
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := decompressed(bytes.NewReader(data))
		if err != nil {
			return
		}
		buf := make([]byte, 1<<16)
		r.Read(buf)
	})
}
