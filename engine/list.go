package engine

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"glassbox/container"
	"glassbox/docker"
	"glassbox/plan"
	"glassbox/supervise"
)

// List returns containers, the newest first.
func (e *Engine) List(ctx context.Context, o ListOptions) ([]docker.Summary, error) {
	items, err := e.items(ctx, o)
	if err != nil {
		return nil, err
	}
	now, networks := time.Now(), e.networkIDs()
	out := make([]docker.Summary, len(items))
	for i, it := range items {
		out[i] = docker.Summarize(it.c, it.s, e.publishedPorts(it.c, it.s), e.dir(it.c.ID), e.health(it.c, it.s), networks, now)
		if o.Size {
			if err := ctx.Err(); err != nil {
				return nil, err
			}
			out[i].SizeRw, out[i].SizeRootFs = e.sizes(it.c)
		}
	}
	return out, nil
}

// item is a container in a list.
type item struct {
	c *container.Container
	s *supervise.State
}

// items returns containers, the newest first.
func (e *Engine) items(ctx context.Context, o ListOptions) ([]item, error) {
	told := map[string]bool{}
	if tell := o.Unreadable; tell != nil {
		o.Unreadable = func(id string, err error) { // once, though there may be a second look
			if !told[id] {
				tell(id, err)
			}
			told[id] = true
		}
	}
	out, err := e.found(ctx, o)
	if err == nil && e.orphan.Load() { // one of these: what it leaves is taken back first, and with --rm that is all of it
		return e.found(ctx, o)
	}
	return out, err
}

func (e *Engine) found(ctx context.Context, o ListOptions) ([]item, error) {
	if err := e.refresh(ctx); err != nil {
		return nil, err
	}
	keep, err := e.filter(ctx, o.Filters)
	if err != nil {
		return nil, err
	}
	entries, err := os.ReadDir(e.containers())
	if err != nil && !os.IsNotExist(err) {
		return nil, err
	}
	var items []item
	byStatus := slices.ContainsFunc(o.Filters, func(f string) bool {
		return strings.HasPrefix(f, "status=") || strings.HasPrefix(f, "exited=")
	})
	for _, entry := range entries {
		if err := ctx.Err(); err != nil {
			return nil, err // a store may hold thousands
		}
		s, err := e.state(entry.Name())
		if err != nil {
			o.unreadable(entry.Name(), err)
			continue
		}
		if !o.All && o.Last == 0 && !byStatus && !s.Alive() && s.Status != supervise.Restarting {
			continue // before more is read: a store may hold thousands that have ended
		}
		c, err := e.readContainer(entry.Name())
		if err != nil {
			o.unreadable(entry.Name(), err)
			continue
		}
		if keep(c, s) {
			items = append(items, item{c, s})
		}
	}
	// Directory entries come in no order; docker shows the newest first, and scripts take the first line for the last container.
	slices.SortFunc(items, func(a, b item) int { return b.c.Created.Compare(a.c.Created) })
	if o.Last > 0 && len(items) > o.Last {
		items = items[:o.Last]
	}
	return items, nil
}

// unreadable tells of a container that is there and can't be listed. One without the file is being made or removed at this moment.
func (o *ListOptions) unreadable(id string, err error) {
	if o.Unreadable != nil && !errors.Is(err, fs.ErrNotExist) {
		o.Unreadable(id, err)
	}
}

// publishedPorts are the ports of a container that runs.
func (e *Engine) publishedPorts(c *container.Container, s *supervise.State) []plan.PortRule {
	if s.Status != supervise.Running && s.Status != supervise.Paused {
		return nil
	}
	if s.Ports != nil || len(c.Config.Ports) == 0 && !c.Config.PublishAll {
		return s.Ports
	}
	// Started by an older build, whose supervisor didn't note them.
	job, err := supervise.ReadJob(e.dir(c.ID))
	if err != nil || job.Network == nil {
		return nil
	}
	return job.Network.Ports
}

// filter reads --filter KEY=VALUE. Several values of one key are alternatives, several keys must all hold, but all labels must.
func (e *Engine) filter(ctx context.Context, texts []string) (func(*container.Container, *supervise.State) bool, error) {
	byKey := map[string][]string{}
	moments := map[string]time.Time{} // by what before and since name
	for _, text := range texts {
		key, value, ok := strings.Cut(text, "=")
		if !ok {
			return nil, invalid("invalid filter %q: want KEY=VALUE", text)
		}
		switch key {
		case "id", "name", "label", "ancestor", "network", "volume":
		case "status":
			if value == "dead" || value == supervise.Restarting || value == "removing" {
				break
			}
			if !slices.Contains([]string{supervise.Created, supervise.Running, supervise.Paused, supervise.Exited}, value) {
				return nil, invalid("invalid filter 'status=%s'", value)
			}
		case "health":
			if !slices.Contains([]string{"none", supervise.Starting, supervise.Healthy, supervise.Unhealthy}, value) {
				return nil, invalid("invalid filter 'health=%s': want none, starting, healthy or unhealthy", value)
			}
		case "publish", "expose":
			if _, err := portRange(value); err != nil {
				return nil, err
			}
		case "is-task":
			if _, err := strconv.ParseBool(value); err != nil {
				return nil, invalid("invalid filter 'is-task=%s': want true or false", value)
			}
		case "exited":
			if _, err := strconv.Atoi(value); err != nil {
				return nil, invalid("invalid filter 'exited=%s'", value)
			}
		case "before", "since":
			// Looked up once: for each of thousands of containers it would be a file read each.
			c, _, err := e.load(ctx, value)
			if err != nil {
				return nil, err
			}
			moments[value] = c.Created
		default:
			return nil, invalid("invalid filter '%s'", key)
		}
		byKey[key] = append(byKey[key], value)
	}
	var networks map[string]string
	if byKey["network"] != nil {
		networks = e.networkIDs()
	}
	return func(c *container.Container, s *supervise.State) bool {
		for key, values := range byKey {
			match := func(v string) bool {
				switch key {
				case "id":
					return matches(v, c.ID)
				case "name":
					return matches(v, c.Name) || matches(v, "/"+c.Name)
				case "status":
					return s.Status == v
				case "health":
					h := e.health(c, s)
					return h == nil && v == "none" || h != nil && h.Status == v
				case "exited":
					return s.Status == supervise.Exited && strconv.Itoa(s.ExitCode) == v
				case "publish", "expose":
					return hasPort(c, v, key == "expose")
				case "is-task": // of a swarm, which there is none of
					is, _ := strconv.ParseBool(v)
					return !is
				case "ancestor":
					img, err := e.images.Resolve(v)
					return c.ImageName() == v || err == nil && img.ID == c.ImageID
				case "network":
					return onNetwork(c, v, networks)
				case "volume":
					return slices.ContainsFunc(c.Mounts(), func(m container.Mount) bool { return m.Source == v || m.Target == v })
				case "label":
					return hasLabel(c.Labels(), v)
				case "before":
					return c.Created.Before(moments[v])
				case "since":
					return c.Created.After(moments[v])
				}
				return false
			}
			// Docker's rule: several values of a key are alternatives, but of labels all must be there.
			if key == "label" {
				if slices.ContainsFunc(values, func(v string) bool { return !match(v) }) {
					return false
				}
			} else if !slices.ContainsFunc(values, match) {
				return false
			}
		}
		return true
	}, nil
}

// matches says whether a text is the value of a filter, or fits it as a regular expression, as with Docker: ^web$ is only web. What is no
// expression matches nothing else.
func matches(value, text string) bool {
	fits, err := regexp.MatchString(value, text)
	return value == text || err == nil && fits
}

// ImageUsers returns the names of the containers made from an image.
func (e *Engine) ImageUsers(ctx context.Context, imageID string) []string {
	entries, err := os.ReadDir(e.containers())
	if err != nil {
		return nil
	}
	var users []string
	for _, entry := range entries {
		if c, err := e.readContainer(entry.Name()); err == nil && c.ImageID == imageID {
			users = append(users, c.Name)
		}
	}
	return users
}
