package image

import (
	"bytes"
	"context"
	"time"
)

// watchedBody is a piece that is being sent: it counts, and ends the request when nobody takes anything of it for too long.
type watchedBody struct {
	r    *bytes.Reader
	u    *upload
	idle *idleTimer
}

func (b *watchedBody) Read(p []byte) (int, error) {
	b.idle.touch()
	n, err := b.r.Read(p[:min(len(p), 64<<10)])
	b.u.sent.Add(int64(n))
	if err != nil {
		b.idle.stop()
	}
	return n, err
}

// idleTimer ends a request that makes no progress.
type idleTimer struct {
	t    *time.Timer
	most time.Duration
}

func (c *client) newIdle(cancel context.CancelCauseFunc) *idleTimer {
	most := c.opts.IdleTimeout
	return &idleTimer{time.AfterFunc(most, func() { cancel(errIdle) }), most}
}

func (i *idleTimer) touch() { i.t.Reset(i.most) }
func (i *idleTimer) stop()  { i.t.Stop() }
