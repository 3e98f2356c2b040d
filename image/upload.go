package image

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

// uploadWhole is the size up to which a blob is sent from memory, with one request. A larger one is sent while it is made, with one
// request, too: registries bring to the disk what they have at the end of each, and whoever sends waits for it.
const uploadWhole = 1 << 20

// ask makes a request with a body that is sent once: what the registry has of it after an interruption only the registry knows.
func (c *client) ask(ctx context.Context, method, url string, body []byte, header http.Header) (*http.Response, error) {
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
	resp, err := c.ask(ctx, http.MethodHead, c.url("blobs", string(d.Digest)), nil, nil)
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
	resp, err := u.c.ask(ctx, http.MethodPost, to, nil, nil)
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
	if resp, err := u.c.ask(ctx, http.MethodDelete, u.at, nil, nil); err == nil {
		resp.Body.Close()
	}
}

var errUploadLost = errors.New("the registry has lost the upload")

// sendAgain is how often a blob is sent from its beginning when the registry has lost an upload.
const sendAgain = 3

// send sends a blob that open gives from its beginning each time, and returns what it was. After an interruption the registry is asked how
// much it has, and the rest is sent: what the registry has is made again, because nobody has kept it, and not sent.
//
// Want is the digest that the blob has to have, if it is known.
func (u *upload) send(ctx context.Context, want string, open func() io.ReadCloser) (v1.Descriptor, error) {
	for attempt, lost := 1, 1; ; attempt++ {
		if u.at == "" {
			if _, err := u.begin(ctx, "", ""); err != nil {
				return v1.Descriptor{}, err
			}
		}
		had := u.off
		u.sent.Store(had)
		r := open()
		d, err := u.stream(ctx, r, want)
		r.Close()
		if err == nil {
			return d, nil
		}
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		e, gone := (*Error)(nil), errors.Is(err, errUploadLost)
		again := gone || errors.As(err, &e) && e.Kind == ErrUnavailable
		if ctx.Err() != nil || !again || attempt >= maxAttempts || u.c.opts.sleep(ctx, backoff(attempt)) != nil {
			u.cancel(context.WithoutCancel(ctx))
			return d, err
		}
		if !gone && u.status(ctx) == nil {
			// A line that breaks every few minutes still gets a large layer through.
			if u.off >= had+uploadWhole {
				attempt = 0
			}
			continue
		}
		// It may be that only the answer was lost.
		if d.Digest != "" {
			if has, _ := u.c.hasBlob(ctx, d); has {
				return d, nil
			}
		}
		u.cancel(context.WithoutCancel(ctx))
		if u.at = ""; lost >= sendAgain {
			return d, errors.Join(errUploadLost, err)
		}
		lost, attempt = lost+1, 0
	}
}

// stream sends a blob once, but for what the registry has of it. What it returns beside an error is what is known of the blob.
func (u *upload) stream(ctx context.Context, r io.Reader, want string) (d v1.Descriptor, err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	// A few buffers ahead: compressing goes on while what has been compressed is sent.
	a := newAhead(r, 1<<20, 4)
	defer a.Close()
	b := &uploadBody{r: a, sum: sha256.New(), u: u, idle: u.c.newIdle(cancel)}
	defer b.idle.stop()
	had := u.off
	first := make([]byte, uploadWhole)
	n, err := io.ReadFull(b, first)
	first = first[:n]
	whole := err == io.EOF || err == io.ErrUnexpectedEOF
	if err != nil && !whole {
		return d, err
	}
	if had > int64(n) {
		if _, err := io.CopyN(io.Discard, b, had-int64(n)); err == io.EOF {
			return d, errUploadLost // it says that it has more than there is
		} else if err != nil {
			return d, err
		}
	}
	rest := first[min(had, int64(n)):]
	// Up to here nothing was sent of it.
	b.before, b.counts = rest, true
	if !whole {
		err := u.put(ctx, http.MethodPatch, u.at, b, -1, http.StatusNotFound)
		if ours := b.failed(); ours != nil {
			return d, ours // and not the connection's
		}
		if err != nil {
			return d, err
		}
		rest = nil
	}
	d = v1.Descriptor{Digest: digest.NewDigest(digest.SHA256, b.sum), Size: b.size}
	if want != "" && string(d.Digest) != want {
		return d, digestError("blob", want, string(d.Digest))
	}
	// The digest goes with the last request; the address has a query of the registry's own, which stays.
	at, err := url.Parse(u.at)
	if err != nil {
		return d, err
	}
	q := at.Query()
	q.Set("digest", string(d.Digest))
	at.RawQuery = q.Encode()
	// A request that was repeated because its answer was lost finds no upload any more. After an interruption the registry may have made
	// something else of what was sent before it.
	lost := []int{http.StatusNotFound}
	if had > 0 {
		lost = append(lost, http.StatusBadRequest, http.StatusRequestedRangeNotSatisfiable)
	}
	return d, u.put(ctx, http.MethodPut, at.String(), b, int64(len(rest)), lost...)
}

// put makes one request of an upload, with a body of so many bytes; -1: as many as there are. Answers with one of the codes of lost mean
// that the upload is.
func (u *upload) put(ctx context.Context, method, to string, b *uploadBody, size int64, lost ...int) error {
	req, err := http.NewRequestWithContext(ctx, method, to, nil)
	if err != nil {
		return err
	}
	if size != 0 {
		// Without GetBody: package http would else send the body a second time by itself, after a redirect or a broken connection.
		req.Body, req.ContentLength = io.NopCloser(b), size
		req.Header.Set("Content-Type", "application/octet-stream")
	}
	if size > 0 && u.off > 0 {
		req.Header.Set("Content-Range", fmt.Sprintf("%d-%d", u.off, u.off+size-1))
	}
	resp, err := u.c.http.Do(req)
	if err != nil {
		if cause := context.Cause(ctx); errors.Is(cause, errIdle) {
			err = cause
		}
		return u.c.explain(err)
	}
	defer resp.Body.Close()
	switch {
	case method == http.MethodPut && resp.StatusCode == http.StatusCreated:
		return nil
	case method == http.MethodPatch && resp.StatusCode == http.StatusAccepted:
		// An answer that comes before all was sent says nothing of the rest, which the connection drops.
		if !b.ended() {
			return &Error{Op: "push", Name: u.c.ref.Familiar(), Kind: ErrUnavailable, Text: u.c.host + " has ended the upload of a blob too early"}
		}
		return u.moved(resp)
	case slices.Contains(lost, resp.StatusCode):
		return errors.Join(errUploadLost, u.c.status(resp, u.c.ref.Tag))
	}
	return u.c.status(resp, u.c.ref.Tag)
}

// status asks how much of the blob is there.
func (u *upload) status(ctx context.Context) error {
	resp, err := u.c.ask(ctx, http.MethodGet, u.at, nil, nil)
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

// putBlob uploads a small blob unless the repository has it.
func (c *client) putBlob(ctx context.Context, d v1.Descriptor, raw []byte) error {
	if ok, err := c.hasBlob(ctx, d); ok || err != nil {
		return err
	}
	u := &upload{c: c, sent: &atomic.Int64{}}
	_, err := u.send(ctx, string(d.Digest), func() io.ReadCloser { return io.NopCloser(bytes.NewReader(raw)) })
	return err
}

// putManifest gives a manifest a tag, and reports the digest that it has.
func (c *client) putManifest(ctx context.Context, tag, mediaType string, raw []byte) error {
	resp, err := c.ask(ctx, http.MethodPut, c.url("manifests", tag), raw, http.Header{"Content-Type": {mediaType}})
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
