package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"
	"unicode/utf8"

	"glassbox/engine"
	"glassbox/image"
)

// statusError is an error with its status.
type statusError struct {
	code int
	text string
}

func (e *statusError) Error() string { return e.text }

func invalid(format string, a ...any) error {
	return &statusError{http.StatusBadRequest, fmt.Sprintf(format, a...)}
}

func notImplemented(format string, a ...any) error {
	return &statusError{http.StatusNotImplemented, fmt.Sprintf(format, a...)}
}

// status is the one place where errors become statuses, Docker's.
func status(err error) int {
	var own *statusError
	var large *http.MaxBytesError
	var start *engine.StartError
	is := func(kinds ...error) bool {
		for _, kind := range kinds {
			if errors.Is(err, kind) {
				return true
			}
		}
		return false
	}
	// In this order: our own words have their status, and a failed start wraps a reason whose kind would say less.
	switch {
	case errors.As(err, &own):
		return own.code
	case errors.As(err, &large):
		return http.StatusRequestEntityTooLarge
	case errors.As(err, &start) && start.Code != 125:
		return http.StatusBadRequest // what the program is to blame for
	case is(engine.ErrNotFound, image.ErrNotFound, image.ErrPlatform):
		return http.StatusNotFound
	case is(engine.ErrConflict, image.ErrInUse, image.ErrConflict):
		return http.StatusConflict
	case is(engine.ErrInvalid, image.ErrReference, image.ErrAmbiguous, image.ErrManifest, image.ErrLayer):
		return http.StatusBadRequest
	case is(engine.ErrUnsupported, image.ErrUnsupported):
		return http.StatusNotImplemented
	case is(image.ErrUnauthorized):
		return http.StatusUnauthorized
	case is(context.Canceled):
		return 499 // the client is gone; nobody reads it
	}
	return http.StatusInternalServerError
}

// message is an error's text as Docker writes it: some clients look for "No such container" and "No such image".
func message(err error) string {
	text := err.Error()
	if e := (*image.Error)(nil); errors.Is(err, image.ErrNotFound) && errors.As(err, &e) && strings.Contains(text, "no such image") {
		text = "No such image: " + e.Name
	}
	if rest, ok := strings.CutPrefix(text, "no such "); ok {
		text = "No such " + rest
	}
	if !utf8.ValidString(text) {
		text = strings.ToValidUTF8(text, "\uFFFD")
	}
	return text
}

// writeError answers with an error in Docker's form.
func writeError(w http.ResponseWriter, err error) {
	code := status(err)
	h := w.Header()
	// It may have been set for the answer that isn't to come.
	h.Del("Content-Length")
	h.Set("Content-Type", "application/json")
	w.WriteHeader(code)
	json.NewEncoder(w).Encode(struct {
		Message string `json:"message"`
	}{message(err)})
}

// json answers with a value.
func (q *request) json(v any) error { return q.jsonStatus(http.StatusOK, v) }

func (q *request) jsonStatus(code int, v any) error {
	q.w.Header().Set("Content-Type", "application/json")
	q.w.WriteHeader(code)
	enc := json.NewEncoder(q.w)
	enc.SetEscapeHTML(false)
	return enc.Encode(v)
}

// body reads a request in JSON. Fields that aren't known are passed over, as with Docker; an empty body is an error unless it may be.
func (q *request) body(v any, mayBeEmpty bool) error {
	if t := q.Header.Get("Content-Type"); q.ContentLength != 0 && t != "" {
		if media, _, _ := strings.Cut(t, ";"); strings.TrimSpace(strings.ToLower(media)) != "application/json" {
			return invalid("unsupported Content-Type header (%s): must be 'application/json'", t)
		}
	}
	// Only while the body is read: a deadline that passes later would look like a client that has hung up.
	rc := http.NewResponseController(q.w)
	rc.SetReadDeadline(time.Now().Add(bodyTime))
	defer rc.SetReadDeadline(time.Time{})
	dec := json.NewDecoder(q.Body)
	err := dec.Decode(v)
	var large *http.MaxBytesError
	switch {
	case errors.Is(err, io.EOF) && mayBeEmpty:
		return nil
	case errors.Is(err, io.EOF):
		return invalid("invalid JSON: got EOF while reading request body")
	case errors.As(err, &large):
		return &statusError{http.StatusRequestEntityTooLarge, fmt.Sprintf("the request's body is larger than %d bytes", large.Limit)}
	case err != nil:
		return invalid("invalid JSON: %v", err)
	}
	if dec.More() {
		return invalid("unexpected content after JSON")
	}
	return nil
}
