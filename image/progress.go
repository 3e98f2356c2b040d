package image

import (
	"slices"
	"sync"
	"sync/atomic"
	"time"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

// State is how far a layer is.
type State string

// The states of a layer, in order. Pulling and Finished are about the whole image.
const (
	Pulling     State = "pulling"     // Ref and Tag are set
	Waiting     State = "waiting"     // for a free slot, or for another process that fetches the same layer
	Downloading State = "downloading" // unpacking goes on at the same time
	Extracting  State = "extracting"  // all received; verifying and writing
	Done        State = "done"
	Exists      State = "exists"   // in the store already
	Finished    State = "finished" // Digest is set; Current tells whether nothing was new
	Pushing     State = "pushing"  // Ref is set: the repository. The states of its layers are those above, and
	Uploading   State = "uploading"
	Mounted     State = "mounted" // taken over from another repository of the registry, Name
	Warned      State = "warned"  // Text is set; these come at the end, before Finished or the error
)

// Event is one step of a pull.
type Event struct {
	State State
	Layer string // blob digest
	Done  int64  // bytes received
	Total int64  // bytes to receive

	Ref     string // familiar name, for Pulling and Finished
	Name    string // repository without the registry: "library/debian"
	Tag     string // tag or digest asked for
	Digest  string // for Finished
	Current bool   // for Finished: the image was up to date
	Text    string // for Warned: a sentence
}

// reporter serialises events and spares the receiver most of them.
type reporter struct {
	mu       sync.Mutex
	f        func(Event)
	warnings []string
}

const reportEvery = 100 * time.Millisecond

func newReporter(f func(Event)) *reporter { return &reporter{f: f} }

func (r *reporter) send(e Event) {
	if r.f == nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.f(e)
}

// warn keeps a sentence for the end of the pull, where it is not lost among the layers. Each is said once.
func (r *reporter) warn(text string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !slices.Contains(r.warnings, text) {
		r.warnings = append(r.warnings, text)
	}
}

func (r *reporter) sendWarnings() {
	r.mu.Lock()
	list := r.warnings
	r.warnings = nil
	r.mu.Unlock()
	for _, text := range list {
		r.send(Event{State: Warned, Text: text})
	}
}

func (r *reporter) pulling(ref Ref, what string) {
	r.send(Event{State: Pulling, Ref: ref.Familiar(), Name: ref.Repository, Tag: what})
}

func (r *reporter) finished(ref Ref, digest string, current bool) {
	r.sendWarnings()
	r.send(Event{State: Finished, Ref: ref.Familiar(), Name: ref.Repository, Tag: ref.Tag, Digest: digest, Current: current})
}

func (r *reporter) layer(d v1.Descriptor, s State, done int64) {
	r.send(Event{State: s, Layer: string(d.Digest), Done: done, Total: d.Size})
}

// watchUpload reports an upload's progress until stop is called.
func (r *reporter) watchUpload(layer string, total int64, sent *atomic.Int64) (stop func()) {
	if r.f == nil {
		return func() {}
	}
	send := func() { r.send(Event{State: Uploading, Layer: layer, Done: min(sent.Load(), total), Total: total}) }
	send()
	return repeat(send)
}

// repeat calls report again and again until stop is called, which waits for the last call's end.
func repeat(report func()) (stop func()) {
	end, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		t := time.NewTicker(reportEvery)
		defer t.Stop()
		for {
			select {
			case <-end:
				return
			case <-t.C:
				report()
			}
		}
	}()
	return func() { close(end); <-ended }
}

// watch reports a download's progress until stop is called.
func (r *reporter) watch(d v1.Descriptor, b stream) (stop func()) {
	if r.f == nil {
		return func() {}
	}
	r.layer(d, Downloading, 0)
	return repeat(func() {
		n := b.received()
		s := Downloading
		if n == d.Size {
			s = Extracting
		}
		r.layer(d, s, n)
	})
}
