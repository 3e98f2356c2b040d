package api

import (
	"bufio"
	"errors"
	"io"
	"net"
	"net/http"

	"golang.org/x/net/websocket"
)

// attachSocket answers GET /containers/{id}/attach/ws: what attach does, in frames of a websocket (RFC 6455). Output of both streams comes
// as it is, as with Docker.
func (q *request) attachSocket() error {
	v, keys, err := q.attachable()
	if err != nil {
		return err
	}
	if !upgrades(q.Request) {
		return invalid("the request doesn't ask for a websocket")
	}
	c, leave, err := q.queue(v)
	if err != nil {
		return err
	}
	defer leave()
	c.keys = keys
	// The handshake writes its own head to the connection.
	if a, ok := q.w.(*answer); ok {
		a.begun = true
	}
	server := websocket.Server{
		// Where a browser's page may come from is checked for all requests at once: see guard.
		Handshake: func(*websocket.Config, *http.Request) error { return nil },
		Handler: func(ws *websocket.Conn) {
			defer ws.Close()
			ws.PayloadType = websocket.TextFrame
			if q.version >= 28 {
				ws.PayloadType = websocket.BinaryFrame
			}
			hungUp := func(<-chan struct{}) {} // the end of its frames is the end of a client
			err = q.follow(v, c, ws, ws, ws, hungUp)
		},
	}
	server.ServeHTTP(hijacker{q.w}, q.Request)
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

// hijacker finds the connection below the wrappers of a response.
type hijacker struct{ http.ResponseWriter }

// Hijack implements http.Hijacker.
func (h hijacker) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	return http.NewResponseController(h.ResponseWriter).Hijack()
}
