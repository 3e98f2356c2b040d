package api

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"io"
	"net/http"
	"sync"
	"time"

	"github.com/moby/moby/api/types/container"

	"glassbox/engine"
)

// execs are the exec instances of this server. As with Docker they are in its memory alone.
type execs struct {
	sync.Mutex
	all map[string]*execution
}

// execution is one exec instance.
type execution struct {
	id, container string
	request       container.ExecCreateRequest
	keys          []byte
	created       time.Time

	sync.Mutex
	session  *engine.Session // while it runs
	started  bool
	code     *int
	finished time.Time
	rows     uint16 // wanted before it ran
	cols     uint16
}

// How long an instance is remembered that has ended, or was never started, and how many there may be.
const (
	keepExec = 5 * time.Minute
	maxExecs = 10_000
)

func (x *execs) add(e *execution) error {
	x.Lock()
	defer x.Unlock()
	if x.all == nil {
		x.all = map[string]*execution{}
	}
	// Swept here, with no timer: it is only here that the table grows.
	for id, old := range x.all {
		if old.over() {
			delete(x.all, id)
		}
	}
	if len(x.all) >= maxExecs {
		return &statusError{http.StatusServiceUnavailable, "there are too many exec instances that have not ended"}
	}
	x.all[e.id] = e
	return nil
}

func (e *execution) over() bool {
	e.Lock()
	defer e.Unlock()
	if e.started {
		return !e.finished.IsZero() && time.Since(e.finished) > keepExec
	}
	return time.Since(e.created) > keepExec
}

func (x *execs) get(id string) (*execution, error) {
	x.Lock()
	defer x.Unlock()
	if e := x.all[id]; e != nil {
		return e, nil
	}
	return nil, &statusError{http.StatusNotFound, "No such exec instance: " + id}
}

// of lists the instances of a container.
func (x *execs) of(container string) []string {
	x.Lock()
	defer x.Unlock()
	var ids []string
	for id, e := range x.all {
		if e.container == container {
			// The table's lock before an instance's, everywhere.
			e.Lock()
			if e.finished.IsZero() {
				ids = append(ids, id)
			}
			e.Unlock()
		}
	}
	return ids
}

// waiting reports whether somebody may come back for one.
func (x *execs) waiting() bool {
	x.Lock()
	defer x.Unlock()
	for _, e := range x.all {
		if !e.over() {
			return true
		}
	}
	return false
}

// execCreate answers POST /containers/{id}/exec.
func (q *request) execCreate() error {
	e := &execution{created: time.Now()}
	var body struct {
		container.ExecCreateRequest
		Cmd words // a text, too
	}
	if err := q.body(&body, false); err != nil {
		return err
	}
	e.request = body.ExecCreateRequest
	e.request.Cmd = body.Cmd
	if len(e.request.Cmd) == 0 {
		return invalid("No exec command specified")
	}
	if q.s.policy != nil && e.request.Privileged {
		return q.forbid("--privileged gives away the host")
	}
	var err error
	if e.keys, err = engine.ParseDetachKeys(e.request.DetachKeys); err != nil {
		return err
	}
	v, err := q.s.engine.Inspect(q.Context(), q.PathValue("id"))
	switch {
	case err != nil:
		return err
	case v.State.Paused:
		return &statusError{http.StatusConflict, "container " + v.ID + " is paused, unpause the container before exec"}
	case v.State.Restarting:
		return &statusError{http.StatusConflict, "container " + v.ID + " is restarting, wait until the container is running"}
	case !v.State.Running:
		return &statusError{http.StatusConflict, "container " + v.ID + " is not running"}
	}
	var b [32]byte
	rand.Read(b[:]) // never fails (crypto/rand)
	e.id, e.container = hex.EncodeToString(b[:]), v.ID
	if err := q.s.execs.add(e); err != nil {
		return err
	}
	return q.jsonStatus(http.StatusCreated, container.ExecCreateResponse{ID: e.id})
}

// execStart answers POST /exec/{id}/start.
func (q *request) execStart() error {
	e, err := q.s.execs.get(q.PathValue("id"))
	if err != nil {
		return err
	}
	var body container.ExecStartRequest
	if err := q.body(&body, true); err != nil {
		return err
	}
	r := &e.request
	e.Lock()
	if e.started {
		e.Unlock()
		return &statusError{http.StatusConflict, "exec command " + e.id + " is already running or has run"}
	}
	// Before it is started, and under the lock: of two clients that start it at once one gets the conflict.
	e.started = true
	o := engine.ExecOptions{
		Command: r.Cmd, TTY: r.Tty, Privileged: r.Privileged, User: r.User, Workdir: r.WorkingDir, Env: r.Env, Detach: body.Detach,
	}
	// The start's size counts more than the creation's, and a resize that came in between more than both.
	for _, size := range []*[2]uint{r.ConsoleSize, body.ConsoleSize} {
		if size != nil {
			o.ConsoleSize = [2]uint16{uint16(size[0]), uint16(size[1])}
		}
	}
	if e.rows != 0 {
		o.ConsoleSize = [2]uint16{e.rows, e.cols}
	}
	e.Unlock()
	if body.Detach {
		return q.execDetached(e, o)
	}
	return q.execAttached(e, o, body.Tty)
}

// ran takes note of an instance's end.
func (e *execution) ran(code int) {
	e.Lock()
	defer e.Unlock()
	e.session, e.code, e.finished = nil, &code, time.Now()
}

// failed takes note of one that couldn't be started, with the exit code that Docker gives it.
func (e *execution) failed(err error) error {
	code := 126
	var start *engine.StartError
	if errors.As(err, &start) {
		code = start.Code
	}
	e.ran(code)
	return startFailed(err)
}

func (q *request) execDetached(e *execution, o engine.ExecOptions) error {
	// Not detached for the doorkeeper: the server waits for the exit code, which clients ask for afterwards.
	o.Detach = false
	session, err := q.s.engine.Exec(context.WithoutCancel(q.Context()), e.container, o)
	if err != nil {
		return e.failed(err)
	}
	e.Lock()
	e.session = session
	e.Unlock()
	q.s.busy.Add(1)
	go func() {
		defer q.s.busy.Add(-1)
		code, _ := session.Wait(context.Background())
		session.Close()
		e.ran(code)
	}()
	q.w.Header().Set("Content-Type", "application/json")
	q.w.WriteHeader(http.StatusOK)
	return nil
}

// execAttached passes the streams of an instance. Whether their pieces have heads is for the start's request to say, which may differ from
// what the command has.
func (q *request) execAttached(e *execution, o engine.ExecOptions, raw bool) error {
	r := &e.request
	// Taken before the command starts: its first output needs somewhere to go.
	conn, err := q.take(q.mediaOf(raw))
	if err != nil {
		// Or it would be waited for for ever, and the server would never be idle.
		e.failed(err)
		return err
	}
	defer conn.finish()
	m := &mux{w: conn, raw: raw}
	if r.AttachStdout {
		o.Stdout = part{m, 1}
	}
	if r.AttachStderr && !r.Tty {
		o.Stderr = part{m, 2}
	}
	done := make(chan struct{})
	defer close(done)
	in := &input{from: conn, ended: make(chan struct{})}
	if r.AttachStdin {
		o.Interactive, o.Stdin, o.DetachKeys = true, in, e.keys
	} else {
		go io.Copy(io.Discard, in)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(q.Context()))
	defer cancel()
	session, err := q.s.engine.Exec(ctx, e.container, o)
	if err != nil {
		// The connection is a stream by now: as with Docker the reason comes on it, and the exit code is asked for.
		io.WriteString(orDiscard(o.Stdout), message(e.failed(err))+"\r\n")
		return err
	}
	// Both under one lock: a resize that comes now finds the session, and one that came before has left its size here.
	e.Lock()
	e.session = session
	rows, cols := e.rows, e.cols
	e.Unlock()
	if rows != 0 {
		session.Resize(rows, cols)
	}
	// A client that has hung up leaves the command alone, which goes on, as with Docker; its exit code is still waited for.
	code, err := session.Wait(ctx)
	if errors.Is(err, engine.ErrDetached) || errors.Is(err, engine.ErrOutputClosed) {
		q.s.busy.Add(1)
		go func() {
			defer q.s.busy.Add(-1)
			code, _ := session.Wait(context.Background())
			session.Close()
			e.ran(code)
		}()
		return nil
	}
	session.Close()
	e.ran(code)
	return err
}

// execInspect answers GET /exec/{id}/json.
func (q *request) execInspect() error {
	e, err := q.s.execs.get(q.PathValue("id"))
	if err != nil {
		return err
	}
	r := &e.request
	e.Lock()
	defer e.Unlock()
	out := container.ExecInspectResponse{
		ID: e.id, Running: e.started && e.finished.IsZero(), ExitCode: e.code, ContainerID: e.container,
		OpenStdin: r.AttachStdin, OpenStdout: r.AttachStdout, OpenStderr: r.AttachStderr, CanRemove: !e.finished.IsZero(), DetachKeys: e.keys,
		ProcessConfig: &container.ExecProcessConfig{
			Tty: r.Tty, Entrypoint: r.Cmd[0], Arguments: append([]string{}, r.Cmd[1:]...), Privileged: &r.Privileged, User: r.User,
		},
	}
	return q.json(out)
}

// execResize answers POST /exec/{id}/resize.
func (q *request) execResize() error {
	e, err := q.s.execs.get(q.PathValue("id"))
	if err != nil {
		return err
	}
	rows, cols, err := q.size()
	if err != nil {
		return err
	}
	e.Lock()
	session := e.session
	if session == nil && e.finished.IsZero() {
		e.rows, e.cols = rows, cols // for when it starts: clients send the size as soon as they know it
	}
	ended := !e.finished.IsZero()
	e.Unlock()
	switch {
	case ended:
		return &statusError{http.StatusConflict, "exec " + e.id + " is not running"}
	case session != nil:
		if err := session.Resize(rows, cols); err != nil {
			return err
		}
	}
	q.w.WriteHeader(http.StatusOK)
	return nil
}
