package api

import (
	"encoding/json"
	"fmt"
	"strings"
	"sync"

	"glassbox/image"
)

// progress is the stream by which clients are told how far a pull, a push or a load is: a JSON value for each step
// (moby/api/types/jsonstream).
type progress struct {
	q *request
	sync.Mutex
	enc  *json.Encoder
	push bool
	held *step // the first line, until the registry has answered: a name that it doesn't have is an error with a status
}

// step is one value of the stream.
type step struct {
	Status   string  `json:"status,omitempty"`
	Stream   string  `json:"stream,omitempty"`
	Detail   *detail `json:"progressDetail,omitempty"`
	Progress string  `json:"progress,omitempty"` // the same in characters, which clients of old versions print
	ID       string  `json:"id,omitempty"`
	Aux      any     `json:"aux,omitempty"`
	Error    *struct {
		Code    int    `json:"code,omitempty"`
		Message string `json:"message"`
	} `json:"errorDetail,omitempty"`
	ErrorText string `json:"error,omitempty"`
}

type detail struct {
	Current int64 `json:"current,omitempty"`
	Total   int64 `json:"total,omitempty"`
}

// tell sends a step. The stream begins with the first one, so that what fails before is an error with a status.
func (p *progress) tell(s step) {
	p.Lock()
	defer p.Unlock()
	if p.enc == nil {
		p.enc = json.NewEncoder(p.q.streamed("application/json"))
		p.enc.SetEscapeHTML(false)
	}
	if p.held != nil {
		p.enc.Encode(p.held)
		p.held = nil
	}
	p.enc.Encode(s) // a client that is gone ends the request's context
}

// fail ends the stream with an error, or returns it if nothing was sent yet.
func (p *progress) fail(err error) error {
	p.Lock()
	begun := p.enc != nil
	p.Unlock()
	if !begun || err == nil {
		return err
	}
	s := step{ErrorText: message(err)}
	s.Error = &struct {
		Code    int    `json:"code,omitempty"`
		Message string `json:"message"`
	}{Message: s.ErrorText}
	p.tell(s)
	return nil
}

// event takes a step of a pull or a push (image.PullOptions).
func (p *progress) event(e image.Event) {
	switch e.State {
	case image.Pulling:
		p.Lock()
		defer p.Unlock()
		// Held until there is more to say: a name that the registry doesn't know is then a 404, and not a stream that
		// begins well.
		p.held = &step{Status: "Pulling from " + e.Name, ID: e.Tag}
		return
	case image.Pushing:
		p.push = true
		p.tell(step{Status: "The push refers to repository [" + e.Ref + "]"})
		return
	case image.Warned:
		p.tell(step{Status: "Warning: " + e.Text})
		return
	case image.Finished:
		p.finished(e)
		return
	}
	s := step{ID: short(e.Layer), Detail: &detail{}}
	switch e.State {
	case image.Waiting:
		s.Status = "Pulling fs layer"
		if p.push {
			s.Status = "Preparing"
		}
	case image.Downloading, image.Extracting, image.Uploading:
		s.Status = map[image.State]string{image.Downloading: "Downloading", image.Extracting: "Extracting", image.Uploading: "Pushing"}[e.State]
		s.Detail = &detail{e.Done, e.Total}
		s.Progress = e.Bar()
	case image.Exists:
		s.Status = "Already exists"
		if p.push {
			s.Status = "Layer already exists"
		}
	case image.Mounted:
		s.Status = "Mounted from " + e.Name
	case image.Done:
		s.Status = "Pull complete"
		if p.push {
			s.Status = "Pushed"
		}
	default:
		return
	}
	p.tell(s)
}

func (p *progress) finished(e image.Event) {
	if p.push {
		p.tell(step{Status: fmt.Sprintf("%s: digest: %s size: %d", e.Tag, e.Digest, e.Total)})
		p.tell(step{Detail: &detail{}, Aux: struct {
			Tag, Digest string
			Size        int64
		}{e.Tag, e.Digest, e.Total}})
		return
	}
	p.tell(step{Status: "Digest: " + e.Digest})
	if e.Current {
		p.tell(step{Status: "Status: Image is up to date for " + e.Ref})
	} else {
		p.tell(step{Status: "Status: Downloaded newer image for " + e.Ref})
	}
}

// short is a digest as progress names layers.
func short(digest string) string {
	_, hex, ok := strings.Cut(digest, ":")
	if !ok {
		hex = digest
	}
	return hex[:min(12, len(hex))]
}
