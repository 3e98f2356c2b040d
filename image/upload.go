package image

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync/atomic"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

// uploadChunk is the size of the pieces that blobs are sent in (OCI distribution specification, "Pushing a blob in chunks"). A piece is
// kept until the registry has it, so that an upload that is interrupted goes on where the registry says it is. Registries ask for 5 MiB
// at least.
const uploadChunk = 8 << 20

// send makes a request with a body that is sent once: what the registry has of it after an interruption only the registry knows.
func (c *client) send(ctx context.Context, method, url string, body []byte, header http.Header) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, url, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	if len(body) > 0 {
		// Package http would else send the body a second time by itself, after a redirect or a broken connection.
		req.GetBody = nil
		req.Header.Set("Content-Type", "application/octet-stream")
	}
	for k, v := range header {
		req.Header[k] = v
	}
	return c.http.Do(req)
}

// hasBlob asks whether the repository has a blob.
func (c *client) hasBlob(ctx context.Context, d v1.Descriptor) (bool, error) {
	resp, err := c.send(ctx, http.MethodHead, c.url("blobs", string(d.Digest)), nil, nil)
	if err != nil {
		return false, c.explain(err)
	}
	defer resp.Body.Close()
	switch resp.StatusCode {
	case http.StatusOK:
		// A registry that answers without a length has it; one with another length has another blob under this name, and
		// gets ours.
		return resp.ContentLength < 0 || resp.ContentLength == d.Size, nil
	case http.StatusUnauthorized, http.StatusForbidden:
		return false, c.status(resp, string(d.Digest))
	}
	return false, nil
}

// upload is one blob on its way to a registry.
type upload struct {
	c    *client
	at   string // address of the session; empty before it has begun
	off  int64  // what the registry has
	sent *atomic.Int64
}

// begin asks for a session, or for the blob to be taken over from another repository of the registry, and reports whether it was.
func (u *upload) begin(ctx context.Context, mount, from string) (mounted bool, err error) {
	to := u.c.url("blobs", "uploads/")
	if mount != "" {
		to += "?" + url.Values{"mount": {mount}, "from": {from}}.Encode()
	}
	resp, err := u.c.send(ctx, http.MethodPost, to, nil, nil)
	if err != nil {
		return false, u.c.explain(err)
	}
	defer resp.Body.Close()
	switch {
	case resp.StatusCode == http.StatusCreated && mount != "":
		return true, nil
	case resp.StatusCode == http.StatusAccepted:
		u.off = 0
		return false, u.moved(resp)
	}
	return false, u.c.status(resp, u.c.ref.Tag)
}

// moved takes the address for the next request.
func (u *upload) moved(resp *http.Response) error {
	loc, err := resp.Location()
	if err != nil {
		return &Error{Op: "push", Name: u.c.ref.Familiar(), Kind: ErrUnavailable, Text: u.c.host + " doesn't say where to send a blob"}
	}
	u.at = loc.String()
	return nil
}

// cancel ends a session that isn't needed: the registry would keep what it has for days.
func (u *upload) cancel(ctx context.Context) {
	if u.at == "" {
		return
	}
	if resp, err := u.c.send(ctx, http.MethodDelete, u.at, nil, nil); err == nil {
		resp.Body.Close()
	}
}

var errUploadLost = errors.New("the registry has lost the upload")

// piece sends one piece, which begins at off; the last one with the digest of all. After an interruption the registry is asked how
// much it has.
func (u *upload) piece(ctx context.Context, off int64, b []byte, last string) error {
	for attempt := 1; ; attempt++ {
		// From what the registry has: after an interruption it may be in the middle of the piece.
		err := u.pieceOnce(ctx, b[u.off-off:], last)
		if err == nil {
			return nil
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if e := (*Error)(nil); attempt >= maxAttempts || errors.As(err, &e) && e.Kind != ErrUnavailable {
			return err
		}
		if err := u.c.opts.sleep(ctx, backoff(attempt)); err != nil {
			return err
		}
		if serr := u.status(ctx); serr != nil {
			return errors.Join(errUploadLost, u.c.explain(err))
		}
		// Outside of the piece: bytes before it are gone from our memory, and the whole blob has to be sent anew.
		if u.off < off || u.off > off+int64(len(b)) {
			return errors.Join(errUploadLost, u.c.explain(err))
		}
	}
}

func (u *upload) pieceOnce(ctx context.Context, b []byte, last string) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	method, to := http.MethodPatch, u.at
	h := http.Header{}
	// The digest goes with the last piece; the address has a query of the registry's own, which stays.
	if last != "" {
		at, err := url.Parse(u.at)
		if err != nil {
			return err
		}
		q := at.Query()
		q.Set("digest", last)
		at.RawQuery = q.Encode()
		method, to = http.MethodPut, at.String()
	}
	// A blob that goes in one piece has no range (OCI distribution specification, "Pushing a blob monolithically").
	if last == "" || u.off > 0 {
		h.Set("Content-Range", fmt.Sprintf("%d-%d", u.off, u.off+int64(len(b))-1))
	}
	if len(b) == 0 {
		h.Del("Content-Range")
	}
	req, err := http.NewRequestWithContext(ctx, method, to, nil)
	if err != nil {
		return err
	}
	if len(b) > 0 {
		h.Set("Content-Type", "application/octet-stream")
		req.Body = io.NopCloser(&watchedBody{r: bytes.NewReader(b), u: u, idle: u.c.newIdle(cancel)})
		req.ContentLength = int64(len(b))
	}
	req.Header = h
	resp, err := u.c.http.Do(req)
	if err != nil {
		if cause := context.Cause(ctx); errors.Is(cause, errIdle) {
			err = cause
		}
		return u.c.explain(err)
	}
	defer resp.Body.Close()
	switch {
	case last != "" && resp.StatusCode == http.StatusCreated:
	case last == "" && resp.StatusCode == http.StatusAccepted:
		if err := u.moved(resp); err != nil {
			return err
		}
	default:
		return u.c.status(resp, u.c.ref.Tag)
	}
	u.off += int64(len(b))
	return nil
}

// status asks how much of the blob is there.
func (u *upload) status(ctx context.Context) error {
	resp, err := u.c.send(ctx, http.MethodGet, u.at, nil, nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusNoContent && resp.StatusCode != http.StatusOK {
		return errUploadLost
	}
	_, end, ok := strings.Cut(resp.Header.Get("Range"), "-")
	n, err := strconv.ParseInt(end, 10, 64)
	if !ok || err != nil {
		return errUploadLost
	}
	if u.off = n + 1; n == 0 && resp.Header.Get("Range") == "0-0" {
		u.off = 0 // what the docker registry says of nothing; a single byte is sent twice rather than never
	}
	if loc, err := resp.Location(); err == nil {
		u.at = loc.String()
	}
	return nil
}

// stream sends what comes of r and returns what it was. If want is set, a content with another digest is an error.
func (u *upload) stream(ctx context.Context, r io.Reader, want string) (v1.Descriptor, error) {
	h := sha256.New()
	// Two pieces ahead: compressing goes on while one is sent.
	a := newAhead(r, uploadChunk, 2)
	defer a.Close()
	buf := make([]byte, uploadChunk)
	var d v1.Descriptor
	for {
		n, err := io.ReadFull(a, buf)
		end := err == io.EOF || err == io.ErrUnexpectedEOF
		if err != nil && !end {
			return d, err
		}
		h.Write(buf[:n])
		last := ""
		if end {
			d.Digest = digest.Digest("sha256:" + hex.EncodeToString(h.Sum(nil)))
			if want != "" && string(d.Digest) != want {
				return d, digestError("blob", want, string(d.Digest))
			}
			last = string(d.Digest)
		}
		if err := u.piece(ctx, d.Size, buf[:n], last); err != nil {
			return d, err
		}
		d.Size += int64(n)
		if end {
			return d, nil
		}
	}
}

// putBlob uploads a small blob unless the repository has it.
func (c *client) putBlob(ctx context.Context, d v1.Descriptor, raw []byte) error {
	if ok, err := c.hasBlob(ctx, d); ok || err != nil {
		return err
	}
	u := &upload{c: c, sent: &atomic.Int64{}}
	if _, err := u.begin(ctx, "", ""); err != nil {
		return err
	}
	_, err := u.stream(ctx, bytes.NewReader(raw), string(d.Digest))
	return err
}

// putManifest gives a manifest a tag, and reports the digest that it has.
func (c *client) putManifest(ctx context.Context, tag, mediaType string, raw []byte) error {
	resp, err := c.send(ctx, http.MethodPut, c.url("manifests", tag), raw, http.Header{"Content-Type": {mediaType}})
	if err != nil {
		return c.explain(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusCreated && resp.StatusCode != http.StatusOK && resp.StatusCode != http.StatusAccepted {
		return c.status(resp, tag)
	}
	if got := resp.Header.Get("Docker-Content-Digest"); got != "" && got != digestOf(raw) {
		return digestError("manifest", digestOf(raw), fmt.Sprintf("%.100s", printable(got)))
	}
	return nil
}
