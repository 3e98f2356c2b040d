package api

import (
	"encoding/json"
	"maps"
	"net/http"
	"slices"
	"strings"

	"github.com/moby/moby/api/types/container"

	"glassbox/engine"
)

// commit answers POST /commit.
func (q *request) commit() error {
	var body struct {
		container.Config
		Cmd        words
		Entrypoint words
	}
	if err := q.body(&body, true); err != nil {
		return err
	}
	body.Config.Cmd, body.Config.Entrypoint = body.Cmd, body.Entrypoint
	name, err := q.named(q.query("repo"))
	if err != nil {
		return err
	}
	o := engine.CommitOptions{
		Name: name, Author: q.query("author"), Message: q.query("comment"), Pause: q.boolOr("pause", true), Changes: instructions(&body.Config),
	}
	for _, c := range q.URL.Query()["changes"] {
		for line := range strings.Lines(c) {
			if line = strings.TrimSpace(line); line != "" {
				o.Changes = append(o.Changes, line)
			}
		}
	}
	i, err := q.s.engine.Commit(q.Context(), q.query("container"), o)
	if err != nil {
		return err
	}
	return q.jsonStatus(http.StatusCreated, container.CommitResponse{ID: i.ID})
}

// instructions are what a request's configuration changes, as a Dockerfile says it.
func instructions(c *container.Config) []string {
	var out []string
	add := func(word string, args ...string) { out = append(out, word+" "+strings.Join(args, " ")) }
	list := func(word string, args []string) {
		if len(args) > 0 {
			text, _ := json.Marshal(args) // texts can always be written
			add(word, string(text))
		}
	}
	for _, e := range c.Env {
		if key, value, ok := strings.Cut(e, "="); ok {
			add("ENV", key+"="+quoted(value))
		}
	}
	for _, k := range slices.Sorted(maps.Keys(c.Labels)) {
		add("LABEL", quoted(k)+"="+quoted(c.Labels[k]))
	}
	for p := range c.ExposedPorts {
		add("EXPOSE", p.String())
	}
	list("VOLUME", slices.Sorted(maps.Keys(c.Volumes)))
	for word, value := range map[string]string{"USER": c.User, "WORKDIR": c.WorkingDir, "STOPSIGNAL": c.StopSignal} {
		if value != "" {
			add(word, value)
		}
	}
	list("ENTRYPOINT", c.Entrypoint)
	list("CMD", c.Cmd)
	return out
}
