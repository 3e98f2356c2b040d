package api

import (
	"bufio"
	"bytes"
	"compress/bzip2"
	"compress/gzip"
	"context"
	"encoding/base64"
	"encoding/json"
	"io"
	"io/fs"
	"net/http"
	"time"

	"github.com/klauspost/compress/zstd"

	"glassbox/engine"
)

// pathStat is what the header X-Docker-Container-Path-Stat says, in JSON, in base64 (types/container.PathStat).
type pathStat struct {
	Name       string      `json:"name"`
	Size       int64       `json:"size"`
	Mode       fs.FileMode `json:"mode"`
	Mtime      time.Time   `json:"mtime"`
	LinkTarget string      `json:"linkTarget"`
}

// archive answers GET and HEAD /containers/{id}/archive.
func (q *request) archive() error {
	path := q.query("path")
	if path == "" {
		return invalid("bad parameter: missing required query parameter: path")
	}
	// Looked at before the archive is: the header goes ahead of its first byte, and what isn't there is a 404.
	st, err := q.s.engine.StatPath(q.Context(), q.id(), path)
	if err != nil {
		return err
	}
	text, err := json.Marshal(pathStat{st.Name, st.Size, st.Mode, st.Modified, st.Link})
	if err != nil {
		return err
	}
	q.w.Header().Set("X-Docker-Container-Path-Stat", base64.StdEncoding.EncodeToString(text))
	if q.Method == http.MethodHead {
		q.w.WriteHeader(http.StatusOK)
		return nil
	}
	q.w.Header().Set("Content-Type", "application/x-tar")
	return q.s.engine.Archive(q.Context(), q.id(), path, q.w, engine.CopyOptions{})
}

// extract answers PUT /containers/{id}/archive.
func (q *request) extract() error {
	path := q.query("path")
	if path == "" {
		return invalid("bad parameter: missing required query parameter: path")
	}
	// Not undone half-way because a client has hung up: the archive then ends early, which is an error of its own.
	ctx := context.WithoutCancel(q.Context())
	o := engine.CopyOptions{Archive: q.bool("copyUIDGID")}
	body, err := decompressed(q.Body)
	if err != nil {
		return err
	}
	if _, err := q.s.engine.Extract(ctx, q.id(), path, body, o); err != nil {
		return err
	}
	io.Copy(io.Discard, io.LimitReader(q.Body, 1<<20)) // the padding behind an archive's end
	q.w.WriteHeader(http.StatusOK)
	return nil
}

// decompressed reads an archive as it is, or compressed with gzip, bzip2 or zstd, as clients send it (testcontainers: gzip).
func decompressed(body io.Reader) (io.Reader, error) {
	r := bufio.NewReader(body)
	head, _ := r.Peek(4) // one that is shorter is no archive, which tar says
	switch {
	case bytes.HasPrefix(head, []byte{0x1f, 0x8b}):
		z, err := gzip.NewReader(r)
		if err != nil {
			return nil, invalid("the archive can't be read: %v", err)
		}
		return z, nil
	case bytes.HasPrefix(head, []byte("BZh")):
		return bzip2.NewReader(r), nil
	case bytes.HasPrefix(head, []byte{0x28, 0xb5, 0x2f, 0xfd}):
		// In the request's own goroutine, and with a bound: a frame may ask for a window of any size (RFC 8878,
		// 3.1.1.1.2), --long=27 of zstd(1) for this.
		z, err := zstd.NewReader(r, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(128<<20))
		if err != nil {
			return nil, invalid("the archive can't be read: %v", err)
		}
		return z, nil
	// Docker starts the host's xz for these.
	case bytes.HasPrefix(head, []byte{0xfd, '7', 'z', 'X'}):
		return nil, notImplemented("archives compressed with xz can't be read: use gzip, bzip2 or zstd")
	}
	return r, nil
}
