// Package docker has Docker's words for what this engine knows: the JSON of its API as Go types, and pure functions that fill them in.
//
// Its one idea: an answer is made once, here, from typed data, and every face (command line, API) passes on the same value. The types have
// the field names and the nulls of github.com/moby/moby/api; a test module of its own (test/wire) decodes them into moby's types without
// loss. What is our own stands in a field Glassbox.
//
// It asks nothing and opens nothing. Start reading at [Inspect] and [Summarize].
package docker

import (
	"cmp"
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"glassbox/container"
	"glassbox/plan"
	"glassbox/supervise"
)

// Runtime is the name of the one runtime there is.
const Runtime = "glassbox-runtime"

// Stamp writes a time as Docker's JSON does: RFC 3339 with nanoseconds, UTC; the zero time is the year 1.
func Stamp(t time.Time) string {
	if t.IsZero() {
		return "0001-01-01T00:00:00Z"
	}
	return t.UTC().Format(time.RFC3339Nano)
}

// Status describes a state as docker ps does. health is what its checks say; nil: there are none.
func Status(s *supervise.State, health *supervise.HealthState, now time.Time) string {
	switch s.Status {
	case supervise.Running:
		up := "Up " + Ago(now.Sub(s.Started))
		switch {
		case health == nil:
		case health.Status == supervise.Starting:
			up += " (health: starting)"
		default:
			up += " (" + health.Status + ")"
		}
		return up
	case supervise.Restarting:
		return fmt.Sprintf("Restarting (%d) %s ago", s.ExitCode, Ago(now.Sub(s.Finished)))
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

// Quoted writes a command as docker ps does: words with blanks or quotation marks in single ones.
func Quoted(argv []string) string {
	out := make([]string, len(argv))
	for i, a := range argv {
		if a == "" || strings.ContainsAny(a, " \t\n'\"") {
			a = "'" + strings.ReplaceAll(a, "'", `'\''`) + "'"
		}
		out[i] = a
	}
	return strings.Join(out, " ")
}

// PortRules are the published ports in the API's words.
func PortRules(rules []plan.PortRule) []PortSummary {
	out := []PortSummary{}
	for _, r := range rules {
		ip := r.HostIP
		if ip == "" {
			ip = "0.0.0.0"
		}
		out = append(out, PortSummary{IP: ip, PrivatePort: r.ContainerPort, PublicPort: r.HostPort, Type: r.Proto})
	}
	return out
}

// Ports are ports as docker ps prints them (DisplayablePorts of docker/cli): those in a row stand together where the port is the same on
// both sides, or is not published; others stand alone, and last.
func Ports(ports []PortSummary) string {
	ports = slices.Clone(ports)
	slices.SortStableFunc(ports, func(a, b PortSummary) int {
		return cmp.Or(cmp.Compare(a.PrivatePort, b.PrivatePort), cmp.Compare(a.IP, b.IP), cmp.Compare(a.PublicPort, b.PublicPort),
			cmp.Compare(a.Type, b.Type))
	})
	type row struct{ first, last uint16 }
	var out, alone, keys []string
	rows := map[string]row{} // by what stands before and behind the numbers: "0.0.0.0/tcp", "tcp"
	write := func(key string) {
		host, proto, published := strings.Cut(key, "/")
		if !published {
			proto = host
		}
		span := strconv.Itoa(int(rows[key].first))
		if rows[key].last != rows[key].first {
			span = fmt.Sprintf("%d-%d", rows[key].first, rows[key].last)
		}
		if published {
			span = joined(host, span) + "->" + span
		}
		out = append(out, span+"/"+proto)
	}
	for _, p := range ports {
		key := p.Type
		if p.PublicPort != 0 {
			if p.PublicPort != p.PrivatePort {
				alone = append(alone, fmt.Sprintf("%s->%d/%s", joined(p.IP, strconv.Itoa(int(p.PublicPort))), p.PrivatePort, p.Type))
				continue
			}
			key = p.IP + "/" + p.Type
		}
		r, known := rows[key]
		switch {
		case known && int(p.PrivatePort) == int(r.last)+1:
			rows[key] = row{r.first, p.PrivatePort}
			continue
		case known:
			write(key)
		default:
			keys = append(keys, key)
		}
		rows[key] = row{p.PrivatePort, p.PrivatePort}
	}
	for _, key := range keys {
		write(key)
	}
	return strings.Join(append(out, alone...), ", ")
}

// joined writes an address and a port; IPv6 stands in brackets.
func joined(ip, port string) string {
	if strings.Contains(ip, ":") {
		return "[" + ip + "]:" + port
	}
	return ip + ":" + port
}

// mounts are the mounts that a container was made with, whose directory is given. A --tmpfs is none: as with Docker it stands in
// HostConfig.Tmpfs only.
func mounts(c *container.Container, dir string) []MountPoint {
	out := []MountPoint{}
	for _, m := range c.Mounts() {
		switch {
		case m.Type == container.Volume:
			p := MountPoint{
				Type: "volume", Name: m.Source, Source: path.Join(path.Dir(path.Dir(dir)), "volumes", m.Source, "_data"), Destination: m.Target,
				Driver: "local", RW: !m.ReadOnly,
			}
			if m.Dir != "" {
				p.Source = path.Join(dir, m.Dir)
			}
			if m.Form != container.FormImage { // Docker marks those that were asked for as shared, with or without SELinux
				p.Mode = first(m.Mode(), "z")
			}
			out = append(out, p)
		case m.Type == container.Bind:
			p := MountPoint{Type: "bind", Source: m.Source, Destination: m.Target, RW: !m.ReadOnly, Propagation: m.PropagationWord()}
			if m.Form == container.FormVolume {
				p.Mode = m.Mode()
			}
			out = append(out, p)
		case m.Form == container.FormMount:
			out = append(out, MountPoint{Type: string(m.Type), Source: m.Source, Destination: m.Target, RW: !m.ReadOnly})
		}
	}
	return out
}

func first(words ...string) string {
	for _, w := range words {
		if w != "" {
			return w
		}
	}
	return ""
}
