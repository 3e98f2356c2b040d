package engine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"glassbox/event"
	"glassbox/supervise"
)

// AttachOptions says how to attach to a running container. Stdin is passed on if it is set.
type AttachOptions struct{ Streams }

// Attach follows a container that runs: what it writes from now on, until its end or until the context's. Any number can do so at once.
// One that takes its output more slowly than the container writes is cut off (see supervise.ErrCutOff).
func (e *Engine) Attach(ctx context.Context, ref string, o AttachOptions) (*Session, error) {
	id, err := e.find(ctx, ref)
	if err != nil {
		return nil, err
	}
	s, err := e.state(id)
	if err != nil {
		return nil, notFound("no such container: %s", ref)
	}
	switch s.Status {
	case supervise.Running:
	case supervise.Paused:
		return nil, conflict("You cannot attach to a paused container, unpause it first")
	default:
		return nil, conflict("You cannot attach to a stopped container, start it first")
	}
	a, err := supervise.Attach(ctx, e.dir(id), s, supervise.AttachOptions{
		Stdout: o.Stdout != nil, Stderr: o.Stderr != nil, DetachKeys: o.DetachKeys,
	})
	if err != nil {
		return nil, fmt.Errorf("attach to container %s: %w", ref, err)
	}
	f := &follower{Attachment: a, streams: o.Streams, killed: func() bool {
		now, err := e.state(id)
		return err == nil && now.Error == supervise.ErrKilled
	}}
	if o.Stdin != nil && a.Input {
		go f.input()
	}
	// Only for the event's labels: a session that stands isn't given up because they can't be read.
	if c, err := e.readContainer(id); err == nil {
		e.happened(c, event.Attach)
	}
	return &Session{ID: id, Terminal: a.Terminal, process: f}, nil
}

// follower is a session of Attach.
type follower struct {
	*supervise.Attachment
	streams Streams
	left    atomic.Bool // the detach keys were typed
	killed  func() bool // the supervisor, while the container ran
}

// input passes input on, until its end: that of a container stays open for others.
func (f *follower) input() {
	if _, err := io.Copy(f.Attachment, f.streams.Stdin); errors.Is(err, supervise.ErrDetached) {
		f.left.Store(true)
		f.Close()
	}
}

func (f *follower) wait(ctx context.Context) (ending, error) {
	out, errOut := f.streams.Stdout, f.streams.Stderr
	// What isn't wanted is still taken, or the socket fills up and this follower would be cut off as a slow one.
	if out == nil {
		out = io.Discard
	}
	if errOut == nil {
		errOut = io.Discard
	}
	code, err := f.Copy(ctx, out, errOut)
	switch {
	case f.left.Load():
		err = ErrDetached
	// The caller's own reader is gone (attach … | head). That ends the session and not the container.
	case errors.Is(err, unix.EPIPE):
		err = ErrOutputClosed
	case errors.Is(err, supervise.ErrCutOff):
		// A supervisor that is killed closes its socket, too, a moment before its lock is free.
		for range 10 {
			if f.killed() {
				err = supervise.ErrEnded
				break
			}
			if pause(ctx, 20*time.Millisecond) != nil {
				break
			}
		}
	}
	return ending{code: code}, err
}

// ParseDetachKeys reads keys as Docker writes them: ctrl-p,ctrl-q is the two, one after the other, and what an empty text means; a,b are
// characters.
func ParseDetachKeys(s string) ([]byte, error) {
	if s == "" {
		s = "ctrl-p,ctrl-q"
	}
	var keys []byte
	for _, word := range strings.Split(s, ",") {
		name, control := strings.CutPrefix(word, "ctrl-")
		switch {
		case len(name) != 1:
			return nil, invalid("invalid detach keys (%s): %q is neither a character nor ctrl- and a character", s, word)
		case !control:
			keys = append(keys, name[0])
		case name[0] >= '@' && name[0] <= '_' && (name[0] < 'A' || name[0] > 'Z'), name[0] >= 'a' && name[0] <= 'z':
			keys = append(keys, name[0]&0x1f) // as a keyboard does it (ascii(7))
		default:
			return nil, invalid("invalid detach keys (%s): ctrl- goes with a to z, @, [, \\, ], ^ and _, not with %s", s, name)
		}
	}
	return keys, nil
}
