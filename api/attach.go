package api

import (
	"context"
	"errors"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"glassbox/docker"
	"glassbox/engine"
	"glassbox/supervise"
)

// attached is who is connected to containers' streams through this server.
//
// Clients attach to a container before they start it, so that nothing of its output is missed. Such a client waits here; whoever starts the
// container gets the waiting ones' streams for the start (see start). One that attaches to a container that runs follows it, as the command
// line does.
type attached struct {
	sync.Mutex
	waiting  map[string][]*client         // by container
	sessions map[string][]*engine.Session // of containers, for changes of the terminal's size
}

// client is one who is attached, or waits to be.
type client struct {
	stdin          io.Reader // nil: nothing comes
	stdout, stderr io.Writer // nil: it isn't wanted
	keys           []byte
	ready          chan struct{} // closed when the fields above are as they will be
	gone           chan struct{} // closed when the client has hung up
	done           chan struct{} // closed when its container's run is over
	once, opened   sync.Once
}

func newClient() *client {
	return &client{ready: make(chan struct{}), gone: make(chan struct{}), done: make(chan struct{})}
}

func (c *client) finish() { c.once.Do(func() { close(c.done) }) }

// wait lets a client wait for a container's start.
func (a *attached) wait(id string, c *client) {
	a.Lock()
	defer a.Unlock()
	if a.waiting == nil {
		a.waiting = map[string][]*client{}
	}
	a.waiting[id] = append(a.waiting[id], c)
}

// leave takes one away who waits no longer; false: the container was started meanwhile.
func (a *attached) leave(id string, c *client) bool {
	a.Lock()
	defer a.Unlock()
	i := slices.Index(a.waiting[id], c)
	if i < 0 {
		return false
	}
	a.waiting[id] = slices.Delete(a.waiting[id], i, i+1)
	if len(a.waiting[id]) == 0 {
		delete(a.waiting, id)
	}
	return true
}

// take gives those who wait for a container to whoever starts it.
func (a *attached) take(id string) []*client {
	a.Lock()
	defer a.Unlock()
	list := a.waiting[id]
	delete(a.waiting, id)
	return list
}

// add notes a session while it lasts.
func (a *attached) add(id string, s *engine.Session) (remove func()) {
	a.Lock()
	defer a.Unlock()
	if a.sessions == nil {
		a.sessions = map[string][]*engine.Session{}
	}
	a.sessions[id] = append(a.sessions[id], s)
	return func() {
		a.Lock()
		defer a.Unlock()
		a.sessions[id] = slices.DeleteFunc(a.sessions[id], func(o *engine.Session) bool { return o == s })
		if len(a.sessions[id]) == 0 {
			delete(a.sessions, id)
		}
	}
}

// session is one of a container's sessions, or nil.
func (a *attached) session(id string) *engine.Session {
	a.Lock()
	defer a.Unlock()
	// Any will do: the size is the terminal's, of which a container has one.
	if list := a.sessions[id]; len(list) > 0 {
		return list[0]
	}
	return nil
}

// attach answers POST /containers/{id}/attach.
func (q *request) attach() error {
	v, keys, err := q.attachable()
	if err != nil {
		return err
	}
	if q.bool("logs") && !q.bool("stream") && q.boolOr("stdin", false) && q.Header.Get("Upgrade") == "" {
		return invalid("there is nothing to read from standard input when only logs are asked for")
	}
	c, leave, err := q.queue(v)
	if err != nil {
		return err
	}
	defer leave()
	conn, err := q.take(q.mediaOf(v.Config.Tty))
	if err != nil {
		return err
	}
	defer conn.finish()
	m := &mux{w: conn, raw: v.Config.Tty}
	c.keys = keys
	err = q.follow(v, c, conn, part{m, 1}, part{m, 2}, conn.hungUp)
	// A status can't be sent any more; a frame of stream 3 is what Docker's clients print as an error of the server. A raw
	// stream has no frames.
	if err != nil && !errors.Is(err, engine.ErrDetached) && !errors.Is(err, engine.ErrOutputClosed) && !m.raw {
		io.WriteString(part{m, 3}, message(err)+"\n")
	}
	return err
}

// queue makes a client, and puts one whose container doesn't run yet among those who wait: before it is answered, for with the answer it
// starts the container.
func (q *request) queue(v *docker.Container) (c *client, leave func(), err error) {
	c = newClient()
	if v.State.Running || !q.bool("stream") {
		return c, func() {}, nil
	}
	q.s.attached.wait(v.ID, c)
	leave = func() {
		q.s.attached.leave(v.ID, c)
		c.open() // whoever has taken it meanwhile doesn't wait for it
	}
	// Somebody may have started it since it was looked at.
	now, err := q.s.engine.Inspect(q.Context(), v.ID)
	if err != nil {
		leave()
		return nil, nil, err
	}
	// If it can't leave, whoever started the container has taken it, and serves it from there.
	if now.State.Running && q.s.attached.leave(v.ID, c) {
		v.State = now.State
	}
	return c, leave, nil
}

// open says that a client's streams are as they will be.
func (c *client) open() { c.opened.Do(func() { close(c.ready) }) }

// attachable finds the container that is to be attached to, and says why it can't be.
func (q *request) attachable() (*docker.Container, []byte, error) {
	keys, err := engine.ParseDetachKeys(q.query("detachKeys"))
	if err != nil {
		return nil, nil, err
	}
	v, err := q.s.engine.Inspect(q.Context(), q.PathValue("id"))
	switch {
	case err != nil:
		return nil, nil, err
	case v.State.Paused:
		return nil, nil, &statusError{http.StatusConflict, "container " + v.ID + " is paused, unpause the container before attach"}
	case v.State.Restarting:
		return nil, nil, &statusError{http.StatusConflict, "container " + v.ID + " is restarting, wait until the container is running"}
	}
	return v, keys, nil
}

// follow passes the streams of a container on until its end or the client's: what its log has, with logs=1, then what comes, with stream=1.
// in is what the client sends; hungUp returns when the client is gone although in has ended.
func (q *request) follow(
	v *docker.Container, c *client, in io.Reader, stdout, stderr io.Writer, hungUp func(stop <-chan struct{}),
) error {
	var wantOut, wantErr io.Writer
	if q.bool("stdout") {
		wantOut = stdout
	}
	// A terminal has one output: what a program writes to standard error comes as standard output.
	if q.bool("stderr") && !v.Config.Tty {
		wantErr = stderr
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(q.Context()))
	defer cancel()
	if q.bool("logs") {
		lo := engine.LogOptions{Tail: -1}
		if err := q.s.engine.Logs(ctx, v.ID, lo, orDiscard(wantOut), orDiscard(wantErr)); err != nil || !q.bool("stream") {
			return err
		}
	} else if !q.bool("stream") {
		return nil
	}
	c.stdout, c.stderr = wantOut, wantErr
	stdin := q.bool("stdin") && v.Config.OpenStdin
	source := &input{from: in, ended: make(chan struct{})}
	if stdin {
		c.stdin = source
		if !v.Config.StdinOnce { // others may still send
			c.stdin = &unending{source, c.done}
		}
	} else {
		// Read although nobody wants it: the end of what a client sends is where looking for its hang-up begins (below).
		go io.Copy(io.Discard, source)
	}
	// The end of input alone isn't the client's: that of `echo x | docker run -i` still waits for the output.
	go func() {
		select {
		case <-source.ended:
		case <-c.done:
			return
		}
		hungUp(c.done)
		close(c.gone)
	}()
	// Whoever starts the container waits for this: see run.
	c.open()
	if !v.State.Running && !q.waitForStart(ctx, v.ID, c) {
		return nil
	}
	defer c.finish()
	s, err := q.s.engine.Attach(ctx, v.ID, engine.AttachOptions{Streams: engine.Streams{
		Stdin: c.stdin, Stdout: c.stdout, Stderr: c.stderr, DetachKeys: c.keys,
	}})
	if err != nil {
		return err
	}
	defer s.Close()
	defer q.s.attached.add(v.ID, s)()
	// Wait sleeps for as long as the container is silent: only this wakes it when the client has gone.
	go func() {
		select {
		case <-c.gone:
			cancel()
		case <-c.done:
		}
	}()
	_, err = s.Wait(ctx)
	return err
}

// waitForStart waits until whoever starts the container has served a client to the end, or it is gone. True: the container was started
// otherwise, by a command, and the client is to follow it.
func (q *request) waitForStart(ctx context.Context, id string, c *client) bool {
	// A start by the command line doesn't come through this server, and nobody tells it.
	look := time.NewTicker(time.Second)
	defer look.Stop()
	for {
		select {
		case <-c.done:
			return false
		case <-c.gone:
			if !q.s.attached.leave(id, c) {
				<-c.done
			}
			return false
		case <-look.C:
			v, err := q.s.engine.Inspect(ctx, id)
			switch {
			case errors.Is(err, engine.ErrNotFound):
				if q.s.attached.leave(id, c) {
					return false // it was removed
				}
			case err == nil && v.State.Running && q.s.attached.leave(id, c):
				return true
			}
		}
	}
}

func orDiscard(w io.Writer) io.Writer {
	if w == nil {
		return io.Discard
	}
	return w
}

// input tells when it has ended.
type input struct {
	from  io.Reader
	ended chan struct{}
	once  sync.Once
}

// Read implements io.Reader.
func (i *input) Read(p []byte) (int, error) {
	n, err := i.from.Read(p)
	if err != nil {
		i.once.Do(func() { close(i.ended) })
	}
	return n, err
}

// unending is input whose end is not the container's: a container made without StdinOnce waits for the next client.
type unending struct {
	from io.Reader
	done <-chan struct{}
}

// Read implements io.Reader.
func (u *unending) Read(p []byte) (int, error) {
	n, err := u.from.Read(p)
	if err != nil {
		if n > 0 {
			return n, nil
		}
		<-u.done
	}
	return n, err
}

// start answers POST /containers/{id}/start.
func (q *request) start() error {
	if q.version >= 24 && q.ContentLength > 7 { // "null", "{}", with a newline: some clients send it
		return invalid("starting container with non-empty request body was deprecated since API v1.22 and removed in v1.24")
	}
	if q.query("checkpoint") != "" {
		return notImplemented("containers can't be started from a checkpoint here")
	}
	v, err := q.s.engine.Inspect(q.Context(), q.PathValue("id"))
	if err != nil {
		return err
	}
	if v.State.Running && !v.State.Restarting {
		if v.State.Paused {
			return &statusError{http.StatusConflict, "cannot start a paused container, try unpause instead"}
		}
		q.w.WriteHeader(http.StatusNotModified)
		return nil
	}
	if err := q.s.run(context.WithoutCancel(q.Context()), v); err != nil {
		return startFailed(err)
	}
	return q.none()
}

// run starts a container, with the streams of those who wait for it.
func (s *Server) run(ctx context.Context, v *docker.Container) error {
	clients := s.attached.take(v.ID)
	var o engine.StartOptions
	o.ConsoleSize = [2]uint16{uint16(v.HostConfig.ConsoleSize[0]), uint16(v.HostConfig.ConsoleSize[1])}
	var out, errOut fan
	for _, c := range clients {
		// It may still be on its way through follow, where its streams are set.
		<-c.ready
		o.Attach = true
		out.add(c, c.stdout)
		errOut.add(c, c.stderr)
		// A container has one standard input: the first client that brings one gives it.
		if c.stdin != nil && !o.Interactive {
			o.Interactive, o.Stdin, o.DetachKeys = true, c.stdin, c.keys
		}
	}
	if o.Attach {
		o.Stdout, o.Stderr = &out, &errOut
	}
	finish := func() {
		for _, c := range clients {
			c.finish()
		}
	}
	session, err := s.engine.Start(ctx, v.ID, o)
	if err != nil {
		finish()
		return err
	}
	if !o.Attach {
		session.Close()
		return nil
	}
	// The request is over long before the container: a server that is idle otherwise must not end while it passes streams
	// on.
	s.busy.Add(1)
	remove := s.attached.add(v.ID, session)
	go func() {
		defer s.busy.Add(-1)
		defer finish()
		defer remove()
		defer session.Close()
		// The supervisor tells the end of its caller's streams with the end of the run; clients that hang up stop to be written to.
		if _, err := session.Wait(context.Background()); err != nil && !errors.Is(err, engine.ErrDetached) {
			s.log.Debug("attached start", "container", v.ID, "error", err)
		}
	}()
	return nil
}

// fan writes to several clients. One that has gone is left out; with the last one nobody is left to write to.
type fan struct {
	sync.Mutex
	to []io.Writer
}

func (f *fan) add(_ *client, w io.Writer) {
	if w != nil {
		f.to = append(f.to, w)
	}
}

// Write implements io.Writer.
func (f *fan) Write(p []byte) (int, error) {
	f.Lock()
	defer f.Unlock()
	f.to = slices.DeleteFunc(f.to, func(w io.Writer) bool {
		_, err := w.Write(p)
		return err != nil
	})
	return len(p), nil // a container goes on although nobody looks
}

// startFailed is an error of a start in the words by which Docker's command line finds its exit code.
func startFailed(err error) error {
	var start *engine.StartError
	if !errors.As(err, &start) {
		return err
	}
	text := "failed to create task for container: " + message(err)
	switch start.Code {
	case 127:
		if !strings.Contains(text, "executable file not found") && !strings.Contains(text, "no such file or directory") {
			text += ": no such file or directory"
		}
		return &statusError{http.StatusBadRequest, text}
	case 126:
		if !strings.Contains(text, "permission denied") && !strings.Contains(text, "is a directory") {
			text += ": permission denied"
		}
		return &statusError{http.StatusBadRequest, text}
	}
	code := status(start.Err)
	if code == http.StatusNotImplemented {
		code = http.StatusBadRequest
	}
	return &statusError{code, text}
}

// resize answers POST /containers/{id}/resize.
func (q *request) resize() error {
	rows, cols, err := q.size()
	if err != nil {
		return err
	}
	v, err := q.s.engine.Inspect(q.Context(), q.PathValue("id"))
	if err != nil {
		return err
	}
	if v.State.Status != supervise.Running {
		return &statusError{http.StatusConflict, "cannot resize a stopped container: container " + v.ID + " is not running"}
	}
	if s := q.s.attached.session(v.ID); s != nil {
		return s.Resize(rows, cols)
	}
	// Started by a command, and nobody is attached through this server: a session without streams can change the size,
	// too.
	s, err := q.s.engine.Attach(q.Context(), v.ID, engine.AttachOptions{})
	if err != nil {
		return err
	}
	defer s.Close()
	return s.Resize(rows, cols)
}

// size reads the parameters h and w.
func (q *request) size() (rows, cols uint16, err error) {
	for _, p := range []struct {
		name string
		to   *uint16
	}{{"h", &rows}, {"w", &cols}} {
		n, err := q.number(p.name, -1)
		if err != nil || n < 0 || n > 65535 {
			return 0, 0, invalid("invalid resize %s %q: want a number of 0 to 65535", map[string]string{"h": "height", "w": "width"}[p.name],
				q.query(p.name))
		}
		*p.to = uint16(n)
	}
	return rows, cols, nil
}
