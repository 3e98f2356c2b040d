package api

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"io"
	"io/fs"
	"net/http"
	"time"

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
	_, err := q.s.engine.Extract(ctx, q.id(), path, q.Body, o)
	if err != nil {
		return err
	}
	io.Copy(io.Discard, io.LimitReader(q.Body, 1<<20)) // the padding behind an archive's end
	q.w.WriteHeader(http.StatusOK)
	return nil
}
