package api

import (
	"context"
	"net/http"
	"slices"
	"strings"

	"github.com/moby/moby/api/types/container"

	containers "glassbox/container"
	"glassbox/docker"
	"glassbox/engine"
	"glassbox/policy"
)

func (q *request) id() string { return q.PathValue("id") }

// list answers GET /containers/json.
func (q *request) list() error {
	filters, err := q.filters()
	if err != nil {
		return err
	}
	last, err := q.number("limit", 0)
	if err != nil {
		return err
	}
	o := engine.ListOptions{
		All: q.bool("all"), Filters: filters, Last: max(last, 0), Size: q.bool("size"),
		Unreadable: func(id string, err error) { q.s.log.Warn("a container can't be listed", "container", id, "error", err) },
	}
	out, err := q.s.engine.List(q.Context(), o)
	if err != nil {
		return err
	}
	if p := q.s.policy; p != nil {
		out = slices.DeleteFunc(out, func(c docker.Summary) bool { return c.HostConfig.Annotations[policy.Annotation] != p.Name })
	}
	// [] and not null, as clients of Docker's know it.
	if out == nil {
		out = []docker.Summary{}
	}
	return q.json(out)
}

// inspect answers GET /containers/{id}/json.
func (q *request) inspect() error {
	v, err := q.s.engine.Inspect(q.Context(), q.id())
	if err != nil {
		return err
	}
	if q.bool("size") {
		q.s.engine.InspectSize(q.Context(), v)
	}
	// The engine doesn't know them: they are this server's.
	v.ExecIDs = q.s.execs.of(v.ID)
	return q.json(q.version.container(v))
}

// top answers GET /containers/{id}/top.
func (q *request) top() error {
	args := strings.Fields(q.query("ps_args"))
	if q.s.policy != nil && !slices.Contains([]string{"", "-ef", "aux", "-aux"}, strings.Join(args, " ")) {
		return q.forbid("ps_args: options of the host's ps can show processes that aren't the container's: allowed are -ef, aux")
	}
	t, err := q.s.engine.Top(q.Context(), q.id(), args)
	if err != nil {
		return err
	}
	return q.json(container.TopResponse{Titles: t.Titles, Processes: append([][]string{}, t.Rows...)})
}

// change is an element of the answer of GET /containers/{id}/changes.
type change struct {
	Path string
	Kind int // 0: modified, 1: added, 2: deleted
}

// changes answers GET /containers/{id}/changes.
func (q *request) changes() error {
	list, err := q.s.engine.Diff(q.Context(), q.id())
	if err != nil {
		return err
	}
	var out []change // null if there are none, as with Docker
	for _, c := range list {
		out = append(out, change{c.Path, strings.Index(engine.Modified+engine.Added+engine.Deleted, c.Kind)})
	}
	return q.json(out)
}

// export answers GET /containers/{id}/export.
func (q *request) export() error {
	// With the archive's first byte its status is sent: that there is no such container must be found out before.
	if _, err := q.s.engine.Inspect(q.Context(), q.id()); err != nil {
		return err
	}
	q.w.Header().Set("Content-Type", "application/octet-stream")
	return q.s.engine.Export(q.Context(), q.id(), q.w)
}

// stop answers POST /containers/{id}/stop.
func (q *request) stop() error {
	timeout, err := q.timeout("t")
	if err != nil {
		return err
	}
	v, err := q.s.engine.Inspect(q.Context(), q.id())
	if err != nil {
		return err
	}
	if !v.State.Running {
		q.w.WriteHeader(http.StatusNotModified)
		return nil
	}
	// As with Docker a client that hangs up doesn't undo what it asked for.
	if err := q.s.engine.Stop(context.WithoutCancel(q.Context()), v.ID, timeout, q.query("signal")); err != nil {
		return err
	}
	return q.none()
}

// restart answers POST /containers/{id}/restart.
func (q *request) restart() error {
	timeout, err := q.timeout("t")
	if err != nil {
		return err
	}
	if err := q.s.engine.Restart(context.WithoutCancel(q.Context()), q.id(), timeout, q.query("signal")); err != nil {
		return startFailed(err)
	}
	return q.none()
}

// kill answers POST /containers/{id}/kill.
func (q *request) kill() error {
	if err := q.s.engine.Kill(context.WithoutCancel(q.Context()), q.id(), q.query("signal")); err != nil {
		return err
	}
	return q.none()
}

// update answers POST /containers/{id}/update.
func (q *request) update() error {
	var body container.UpdateConfig
	if err := q.body(&body, false); err != nil {
		return err
	}
	w := containers.Words{Flags: map[string]string{}}
	switch n := body.PidsLimit; {
	case n == nil:
	case q.version < 40:
		body.PidsLimit = nil // it didn't know the field, and passed over it
	case *n <= 0:
		*n = -1 // no limit
	}
	if err := resources(&w, &body.Resources); err != nil {
		return err
	}
	if name := body.RestartPolicy.Name; name != "" {
		text(&w, "restart", &w.Restart, restartWords(body.RestartPolicy))
	}
	// The words are read by what reads a container's creation, which knows more flags than can be changed afterwards.
	allowed := map[string]bool{}
	for _, f := range containers.UpdateFlags() {
		allowed[f] = true
	}
	for f := range w.Flags {
		if !allowed[f] {
			return invalid("--%s can't be changed once a container is made", f)
		}
	}
	if len(w.Flags) == 0 { // an update of nothing is none, and no mistake
		if _, err := q.s.engine.Inspect(q.Context(), q.id()); err != nil {
			return err
		}
		return q.json(container.UpdateResponse{Warnings: []string{}})
	}
	u, err := q.s.engine.Update(q.Context(), q.id(), w)
	// When the new limits are known, and before anything of them is written.
	if p := q.s.policy; err == nil && p != nil && u.Limited {
		if why := p.JudgeUpdate(u.Limits()); len(why) > 0 {
			return q.forbid(why...)
		}
	}
	if err == nil {
		err = q.s.engine.Apply(context.WithoutCancel(q.Context()), u)
	}
	if err != nil {
		return err
	}
	return q.json(container.UpdateResponse{Warnings: append([]string{}, q.warned...)})
}

// rename answers POST /containers/{id}/rename.
func (q *request) rename() error {
	name := strings.TrimPrefix(q.query("name"), "/")
	if name == "" {
		return invalid("Neither old nor new names may be empty")
	}
	if err := q.s.engine.Rename(q.Context(), q.id(), name); err != nil {
		return err
	}
	return q.none()
}

// pause answers POST /containers/{id}/pause.
func (q *request) pause() error {
	if err := q.s.engine.Pause(q.Context(), q.id()); err != nil {
		return err
	}
	return q.none()
}

// unpause answers POST /containers/{id}/unpause.
func (q *request) unpause() error {
	if err := q.s.engine.Unpause(q.Context(), q.id()); err != nil {
		return err
	}
	return q.none()
}

// remove answers DELETE /containers/{id}.
func (q *request) remove() error {
	if q.bool("link") {
		return notImplemented("links are not supported: there is none to remove")
	}
	v, err := q.s.engine.Inspect(q.Context(), q.id())
	if err != nil {
		return err
	}
	err = q.s.engine.Remove(context.WithoutCancel(q.Context()), v.ID, engine.RemoveOptions{Force: q.bool("force"), Volumes: q.bool("v")})
	if err != nil {
		return err
	}
	for _, c := range q.s.attached.take(v.ID) {
		c.finish() // it will never start
	}
	return q.none()
}

// pruneContainers answers POST /containers/prune.
func (q *request) pruneContainers() error {
	filters, err := q.filters()
	if err != nil {
		return err
	}
	var p engine.Pruned
	if err := q.s.engine.PruneContainers(q.Context(), filters, &p); err != nil {
		return err
	}
	return q.json(container.PruneReport{ContainersDeleted: p.Containers, SpaceReclaimed: uint64(p.Freed)})
}

// logs answers GET /containers/{id}/logs.
func (q *request) logs() error {
	if !q.bool("stdout") && !q.bool("stderr") {
		return invalid("Bad parameters: you must choose at least one stream")
	}
	o := engine.LogOptions{Follow: q.bool("follow"), Tail: -1, Timestamps: q.bool("timestamps"), Details: q.bool("details")}
	var err error
	if o.Since, err = q.moment("since"); err != nil {
		return err
	}
	if o.Until, err = q.moment("until"); err != nil {
		return err
	}
	if n, err := q.number("tail", -1); err == nil && n >= 0 { // anything else is all, as with Docker
		o.Tail = n
	}
	v, err := q.s.engine.Inspect(q.Context(), q.id())
	if err != nil {
		return err
	}
	if d := v.HostConfig.LogConfig.Type; d == containers.NoLog || d == containers.Journald {
		return notImplemented("configured logging driver does not support reading: %s", d)
	}
	m := &mux{w: q.streamed(q.mediaOf(v.Config.Tty)), raw: v.Config.Tty}
	stdout, stderr := orDiscard(nil), orDiscard(nil)
	if q.bool("stdout") {
		stdout = part{m, 1}
	}
	if q.bool("stderr") {
		stderr = part{m, 2}
	}
	return q.s.engine.Logs(q.Context(), v.ID, o, stdout, stderr)
}

// stats answers GET /containers/{id}/stats.
func (q *request) stats() error {
	ctx := q.Context()
	v, err := q.s.engine.Inspect(ctx, q.id())
	if err != nil {
		return err
	}
	stream := q.boolOr("stream", true)
	if q.bool("one-shot") {
		if stream {
			return invalid("cannot have stream=true and one-shot=true")
		}
		s, err := q.s.engine.Stats(ctx, v.ID, nil)
		if err != nil {
			return err
		}
		return q.json(s)
	}
	return q.measure(v, stream)
}
