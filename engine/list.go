package engine

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"glassbox/plan"
	"glassbox/supervise"
)

// List returns containers, the newest first.
func (e *Engine) List(o ListOptions) ([]Summary, error) {
	keep, err := e.filter(o.Filters)
	if err != nil {
		return nil, err
	}
	entries, err := os.ReadDir(e.containers())
	if err != nil && !os.IsNotExist(err) {
		return nil, err
	}
	type item struct {
		c *Container
		s *supervise.State
	}
	var items []item
	byStatus := slices.ContainsFunc(o.Filters, func(f string) bool { return strings.HasPrefix(f, "status=") || strings.HasPrefix(f, "exited=") })
	for _, entry := range entries {
		c, s, err := e.loadID(entry.Name())
		if err != nil {
			continue // being made or removed at this moment
		}
		if !o.All && o.Last == 0 && !byStatus && s.Status != supervise.Running && s.Status != supervise.Paused {
			continue
		}
		if keep(c, s) {
			items = append(items, item{c, s})
		}
	}
	slices.SortFunc(items, func(a, b item) int { return b.c.Created.Compare(a.c.Created) })
	if o.Last > 0 && len(items) > o.Last {
		items = items[:o.Last]
	}
	out := make([]Summary, len(items))
	for i, it := range items {
		out[i] = e.summary(it.c, it.s)
	}
	return out, nil
}

func (e *Engine) summary(c *Container, s *supervise.State) Summary {
	sum := Summary{
		ID: c.ID, Name: c.Name, Image: imageName(c), Command: quoted(e.commandOf(c)), Created: c.Created,
		Status: Status(s, time.Now()), State: s.Status, Labels: labels(c.Options.Label), Network: networkOf(c),
	}
	if s.Status == supervise.Running || s.Status == supervise.Paused {
		if job, err := supervise.ReadJob(e.dir(c.ID)); err == nil && job.Network != nil {
			sum.Ports = portsText(job.Network.Ports)
		}
	}
	for _, v := range c.Options.Volume {
		source, _, _ := strings.Cut(v, ":")
		sum.Mounts = append(sum.Mounts, source)
	}
	return sum
}

func networkOf(c *Container) string {
	if c.Options.Network == "" || c.Options.Network == "default" {
		return "bridge"
	}
	return c.Options.Network
}

func imageName(c *Container) string {
	if c.Options.Rootfs != "" {
		return c.Options.Rootfs
	}
	return c.Options.Image
}

// commandOf is the command without compiling anything.
func (e *Engine) commandOf(c *Container) []string {
	o := &c.Options
	var entrypoint, cmd []string
	if c.ImageID != "" && (o.Entrypoint == nil || len(o.Command) == 0) {
		if img, err := e.images.Resolve(c.ImageID); err == nil {
			entrypoint, cmd = img.Config.Config.Entrypoint, img.Config.Config.Cmd
		}
	}
	if o.Entrypoint != nil {
		entrypoint, cmd = nil, nil
		if *o.Entrypoint != "" {
			entrypoint = []string{*o.Entrypoint}
		}
	}
	if len(o.Command) > 0 {
		cmd = o.Command
	}
	return append(slices.Clone(entrypoint), cmd...)
}

func quoted(argv []string) string {
	out := make([]string, len(argv))
	for i, a := range argv {
		if a == "" || strings.ContainsAny(a, " \t\n'\"") {
			a = "'" + strings.ReplaceAll(a, "'", `'\''`) + "'"
		}
		out[i] = a
	}
	return strings.Join(out, " ")
}

func labels(list []string) map[string]string {
	out := map[string]string{}
	for _, l := range list {
		key, value, _ := strings.Cut(l, "=")
		out[key] = value
	}
	return out
}

func portsText(rules []plan.PortRule) string {
	out := make([]string, len(rules))
	for i, r := range rules {
		ip := r.HostIP
		if ip == "" {
			ip = "0.0.0.0"
		}
		out[i] = fmt.Sprintf("%s:%d->%d/%s", ip, r.HostPort, r.ContainerPort, r.Proto)
	}
	return strings.Join(out, ", ")
}

// Status describes a state as docker ps does.
func Status(s *supervise.State, now time.Time) string {
	switch s.Status {
	case supervise.Running:
		return "Up " + Ago(now.Sub(s.Started))
	case supervise.Paused:
		return "Up " + Ago(now.Sub(s.Started)) + " (Paused)"
	case supervise.Exited:
		return fmt.Sprintf("Exited (%d) %s ago", s.ExitCode, Ago(now.Sub(s.Finished)))
	}
	return "Created"
}

// Ago writes a duration in words, as Docker does: "3 minutes", "About an hour".
func Ago(d time.Duration) string {
	plural := func(n int, unit string) string {
		if n == 1 {
			return "1 " + unit
		}
		return strconv.Itoa(n) + " " + unit + "s"
	}
	hours := int(d.Hours() + 0.5)
	switch {
	case d < time.Second:
		return "Less than a second"
	case d < time.Minute:
		return plural(int(d.Seconds()), "second")
	case d < 2*time.Minute:
		return "About a minute"
	case d < time.Hour:
		return plural(int(d.Minutes()), "minute")
	case hours == 1:
		return "About an hour"
	case hours < 48:
		return plural(hours, "hour")
	case hours < 24*7*2:
		return plural(hours/24, "day")
	case hours < 24*30*2:
		return plural(hours/24/7, "week")
	case hours < 24*365*2:
		return plural(hours/24/30, "month")
	}
	return plural(int(d.Hours())/24/365, "year")
}

// filter reads --filter KEY=VALUE. Several values of one key are alternatives, several keys must all hold, but all labels must.
func (e *Engine) filter(texts []string) (func(*Container, *supervise.State) bool, error) {
	byKey := map[string][]string{}
	for _, text := range texts {
		key, value, ok := strings.Cut(text, "=")
		if !ok {
			return nil, invalid("invalid filter %q: want KEY=VALUE", text)
		}
		switch key {
		case "id", "name", "label", "ancestor", "network", "volume":
		case "status":
			if value == "dead" || value == "restarting" || value == "removing" {
				break
			}
			if !slices.Contains([]string{supervise.Created, supervise.Running, supervise.Paused, supervise.Exited}, value) {
				return nil, invalid("invalid filter 'status=%s'", value)
			}
		case "exited":
			if _, err := strconv.Atoi(value); err != nil {
				return nil, invalid("invalid filter 'exited=%s'", value)
			}
		case "before", "since":
			c, _, err := e.load(value)
			if err != nil {
				return nil, err
			}
			value = c.Created.Format(time.RFC3339Nano)
		default:
			return nil, invalid("invalid filter '%s'", key)
		}
		byKey[key] = append(byKey[key], value)
	}
	return func(c *Container, s *supervise.State) bool {
		for key, values := range byKey {
			match := func(v string) bool {
				switch key {
				case "id":
					return strings.HasPrefix(c.ID, v)
				case "name":
					return strings.Contains(c.Name, strings.TrimPrefix(v, "/"))
				case "status":
					return s.Status == v
				case "exited":
					return s.Status == supervise.Exited && strconv.Itoa(s.ExitCode) == v
				case "ancestor":
					img, err := e.images.Resolve(v)
					return imageName(c) == v || err == nil && img.ID == c.ImageID
				case "network":
					return networkOf(c) == v
				case "volume":
					return slices.ContainsFunc(c.Options.Volume, func(text string) bool { return slices.Contains(strings.Split(text, ":"), v) })
				case "label":
					k, want, exact := strings.Cut(v, "=")
					got, ok := labels(c.Options.Label)[k]
					return ok && (!exact || got == want)
				case "before":
					return c.Created.Format(time.RFC3339Nano) < v
				case "since":
					return c.Created.Format(time.RFC3339Nano) > v
				}
				return false
			}
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

// ImageUsers returns the names of the containers made from an image.
func (e *Engine) ImageUsers(imageID string) []string {
	entries, err := os.ReadDir(e.containers())
	if err != nil {
		return nil
	}
	var users []string
	for _, entry := range entries {
		if c, err := readContainer(e.dir(entry.Name())); err == nil && c.ImageID == imageID {
			users = append(users, c.Name)
		}
	}
	return users
}
