package image

import (
	"errors"
	"fmt"
	"syscall"
)

// The kinds of failure a caller may want to tell apart, with errors.Is.
var (
	ErrNotFound     = errors.New("not found")
	ErrAmbiguous    = errors.New("ambiguous")
	ErrInUse        = errors.New("in use")
	ErrConflict     = errors.New("conflict")
	ErrReference    = errors.New("invalid reference")
	ErrUnknown      = fmt.Errorf("unknown operating system or architecture: %w", ErrReference)
	ErrUnauthorized = errors.New("access denied")
	ErrUnavailable  = errors.New("registry not available")
	ErrRateLimited  = errors.New("rate limited")
	ErrTLS          = errors.New("TLS trust")
	ErrDigest       = errors.New("digest mismatch")
	ErrTruncated    = errors.New("cut short")
	ErrManifest     = errors.New("invalid manifest")
	ErrLayer        = errors.New("invalid layer")
	ErrLimit        = errors.New("limit exceeded")
	ErrPlatform     = errors.New("no such platform")
	ErrUnsupported  = errors.New("not supported")
	ErrNoSpace      = errors.New("disk full")
)

// Error says what was attempted, on what, why it failed and how to mend it. Kind is one of the sentinels above; Err, when
// there is one, is the cause.
type Error struct {
	Op   string // "pull", "layer", …
	Name string // reference, digest or path
	Kind error
	Text string // one sentence, lower case
	Hint string // what to do about it; may be empty
	Err  error
}

func (e *Error) Error() string {
	s := e.Op
	if e.Name != "" {
		s += " " + e.Name
	}
	switch {
	case e.Text != "":
		s += ": " + e.Text
	case e.Kind != nil:
		s += ": " + e.Kind.Error()
	}
	if e.Err != nil {
		s += ": " + e.Err.Error()
	}
	if e.Hint != "" {
		s += "\nhint: " + e.Hint
	}
	return s
}

// Unwrap makes both the kind and the cause visible to errors.Is and errors.As.
func (e *Error) Unwrap() []error {
	var list []error
	if e.Kind != nil {
		list = append(list, e.Kind)
	}
	if e.Err != nil {
		list = append(list, e.Err)
	}
	return list
}

// InUseError lists the containers that keep an image from being removed.
type InUseError struct {
	Name       string
	ID         string
	Containers []string
}

func (e *InUseError) Error() string {
	n := "containers"
	if len(e.Containers) == 1 {
		n = "container"
	}
	return fmt.Sprintf("remove %s: image is in use by %s %s\nhint: remove them first, or use force to drop the name only",
		e.Name, n, join(e.Containers, 5))
}

func (e *InUseError) Unwrap() error { return ErrInUse }

// join lists at most n items.
func join(items []string, n int) string {
	s := ""
	for i, it := range items {
		if i == n {
			return s + fmt.Sprintf(" and %d more", len(items)-n)
		}
		if i > 0 {
			s += ", "
		}
		s += it
	}
	return s
}

// diskError adds the kind and a hint to ENOSPC and EDQUOT.
func diskError(op, name string, err error) error {
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		return &Error{
			Op: op, Name: name, Kind: ErrNoSpace, Err: err,
			Text: "no space left for the unpacked layer",
			Hint: "remove images that are no longer needed, or keep the store elsewhere with --root",
		}
	}
	return err
}
