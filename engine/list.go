package engine

import (
	"context"
	"errors"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
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
	containers := make([]*container.Container, len(items))
	for i, it := range items {
		containers[i] = it.c
	}
	now, networks := time.Now(), e.networkIDs(containers...)
	out := make([]docker.Summary, len(items))
	for i, it := range items {
		at := now
		if it.s.Alive() {
			at = it.s.Started.Add(it.s.Age()) // "Up 3 minutes", whatever the clock was set to meanwhile
		}
		out[i] = docker.Summarize(it.c, it.s, e.publishedPorts(it.c, it.s), e.dir(it.c.ID), e.health(it.c, it.s), networks, at)
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
	// Filters on the status ask for those that have ended, too, as with Docker: ps -f status=exited needs no -a.
	byStatus := slices.ContainsFunc(o.Filters, func(f string) bool {
		return strings.HasPrefix(f, "status=") || strings.HasPrefix(f, "exited=")
	})
	busy := !o.All && o.Last == 0 && !byStatus // only those that have a supervisor
	ids, err := e.ids(busy)
	if err != nil {
		return nil, err
	}
	read, errs := make([]item, len(ids)), make([]error, len(ids))
	// One at a time below 64: to wake another thread costs more than to read a few files.
	parallel(len(ids), 64, func(i int) {
		if errs[i] = ctx.Err(); errs[i] != nil { // a store may hold thousands
			return
		}
		it, err := e.item(ids[i], busy)
		if err == nil && busy && !it.s.Alive() && it.s.Status != supervise.Restarting {
			return // it is being made, started or removed
		}
		read[i], errs[i] = it, err
	})
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	e.memory.forget(ids)
	var items []item
	for i, it := range read {
		if errs[i] != nil {
			o.unreadable(ids[i], errs[i])
		} else if it.c != nil && keep(it.c, it.s) {
			items = append(items, it)
		}
	}
	// Directory entries come in no order; docker shows the newest first, and scripts take the first line for the last container.
	slices.SortFunc(items, func(a, b item) int { return b.c.Created.Compare(a.c.Created) })
	if o.Last > 0 && len(items) > o.Last {
		items = items[:o.Last]
	}
	return items, nil
}

// parallel does something n times on as many processors as are worth it: each has a share of at least few. It is for files that are read
// and parsed, where the parsing takes longer.
func parallel(n, few int, do func(i int)) {
	workers := min(runtime.GOMAXPROCS(0), n/few)
	if workers < 2 {
		for i := range n {
			do(i)
		}
		return
	}
	var next atomic.Int64
	var wg sync.WaitGroup
	for range workers {
		wg.Go(func() {
			for i := int(next.Add(1)) - 1; i < n; i = int(next.Add(1)) - 1 {
				do(i)
			}
		})
	}
	wg.Wait()
}

// ids are the containers there are; of those that are busy, which is all that run, the ones that are. Who is busy has a lock file, so
// that of thousands that have ended none is looked at.
func (e *Engine) ids(busy bool) (ids []string, err error) {
	dir, suffix := e.containers(), ""
	if busy {
		// A store that isn't one is no store in which nothing runs.
		if _, err := os.Stat(dir); err != nil && !os.IsNotExist(err) {
			return nil, err
		}
		dir, suffix = e.locks(), ".lock"
	}
	entries, err := os.ReadDir(dir)
	if err != nil && !os.IsNotExist(err) {
		return nil, err
	}
	for _, entry := range entries {
		if id, ok := strings.CutSuffix(entry.Name(), suffix); ok {
			ids = append(ids, id)
		}
	}
	return ids, nil
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
	_, err := os.Lstat(filepath.Join(e.dir(c.ID), supervise.RewiredFile))
	if rewired := err == nil; !rewired && (s.Ports != nil || len(c.Config.Ports) == 0 && !c.Config.PublishAll) {
		return s.Ports
	}
	// They have been changed since, or it was started by an older build, whose supervisor didn't note them.
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
	networks := map[string]string{}   // names, by what was given: name or ID
	for _, text := range texts {
		key, value, ok := strings.Cut(text, "=")
		if !ok {
			return nil, invalid("invalid filter %q: want KEY=VALUE", text)
		}
		switch key {
		case "id", "name", "label", "ancestor", "volume":
		case "network":
			networks[value] = value // of one that is gone, too: containers may still name it
			if n, err := e.networks().Find(value); err == nil && n.ID == value {
				networks[value] = n.Name
			}
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
					return onNetwork(c, networks[v])
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

// ImageUsers returns the names of the containers made from an image, or with its files mounted. One that can't be read counts as a user of
// every image: what it needs is not known, and a layer that is gone can't be had back.
func (e *Engine) ImageUsers(ctx context.Context, imageID string) []string {
	var users []string
	e.eachImage(ctx, func(id, image, name string, err error) {
		switch {
		case err != nil:
			users = append(users, id[:min(len(id), 12)]+" (which can't be read)")
		case image == imageID:
			users = append(users, name)
		}
	})
	return users
}

// usedImages are the names of the containers made from each image, by its ID. It fails where that can't be known.
func (e *Engine) usedImages(ctx context.Context) (map[string][]string, error) {
	var errs []error
	used := map[string][]string{}
	e.eachImage(ctx, func(id, image, name string, err error) {
		if err != nil {
			errs = append(errs, unreadableUser("image", id, err))
			return
		}
		used[image] = append(used[image], name)
	})
	return used, errors.Join(errs...)
}

// eachImage tells of each container which image it is made from, and whose files it mounts, or why that can't be read.
func (e *Engine) eachImage(ctx context.Context, tell func(id, image, name string, err error)) {
	ids, err := e.ids(false)
	if err != nil {
		tell("", "", "", err)
	}
	for _, id := range ids {
		if err := ctx.Err(); err != nil {
			tell(id, "", "", err) // not silence: who asks would take the rest for unused
			return
		}
		switch c, err := e.readContainer(id); {
		case err == nil:
			tell(id, c.ImageID, c.Name, nil)
			for _, image := range slices.Compact(slices.Sorted(maps.Values(c.ImageMounts))) {
				if image != c.ImageID {
					tell(id, image, c.Name, nil)
				}
			}
		case !errors.Is(err, fs.ErrNotExist): // else it is being made or removed
			tell(id, "", "", err)
		}
	}
}
