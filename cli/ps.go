package cli

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"glassbox/docker"
	"glassbox/engine"
)

// psRow is a row of ps, with Docker's fields.
type psRow struct {
	Command      string
	CreatedAt    string
	ID           string
	Image        string
	Labels       string
	LocalVolumes string
	Mounts       string
	Names        string
	Networks     string
	Platform     any // of the image's manifest, which Docker's containerd store alone knows
	Ports        string
	RunningFor   string
	Size         string
	State        string
	Status       string

	labels map[string]string
	header bool
}

// Label is one label's value.
func (r psRow) Label(name string) string {
	if r.header {
		return name
	}
	return r.labels[name]
}

const psColumns = "{{.ID}}\t{{.Image}}\t{{.Command}}\t{{.RunningFor}}\t{{.Status}}\t{{.Ports}}\t{{.Names}}"

func psHeader() psRow {
	return psRow{
		Command: "COMMAND", CreatedAt: "CREATED AT", ID: "CONTAINER ID", Image: "IMAGE", Labels: "LABELS", LocalVolumes: "LOCAL VOLUMES",
		Mounts: "MOUNTS", Names: "NAMES", Networks: "NETWORKS", Ports: "PORTS", RunningFor: "CREATED", Size: "SIZE", State: "STATE",
		Status: "STATUS", Platform: "PLATFORM", header: true,
	}
}

func newPsRow(s docker.Summary, now time.Time, full bool) psRow {
	command := s.Command
	if c, err := strconv.Unquote(command); err == nil {
		command = c
	}
	var mounts []string
	volumes := 0
	for _, m := range s.Mounts {
		mounts = append(mounts, cmp.Or(m.Name, m.Source))
		if m.Type == "volume" {
			volumes++
		}
	}
	created := time.Unix(s.Created, 0)
	if !full {
		command = ellipsis(command, 20)
		for i, m := range mounts {
			mounts[i] = ellipsis(m, 15)
		}
	}
	var labels []string
	for _, k := range slices.Sorted(maps.Keys(s.Labels)) {
		labels = append(labels, k+"="+s.Labels[k])
	}
	return psRow{
		Platform: (*string)(nil),
		Command:  strconv.Quote(command), CreatedAt: stamp(created), ID: short(s.ID, full), Image: printable(s.Image),
		Labels: printable(strings.Join(labels, ",")), LocalVolumes: strconv.Itoa(volumes), Mounts: strings.Join(mounts, ","), Names: nameOf(s),
		Networks: s.HostConfig.NetworkMode, Ports: docker.Ports(s.Ports), RunningFor: since(now, created), Size: containerSize(s), State: s.State,
		Status: s.Status,
		labels: s.Labels,
	}
}

// nameOf is a container's name (or names) without the slash that the API has before it.
func nameOf(s docker.Summary) string {
	out := make([]string, len(s.Names))
	for i, n := range s.Names {
		out[i] = strings.TrimPrefix(n, "/")
	}
	return strings.Join(out, ",")
}

// unreadable tells of a container that a list has to leave out.
func (a *app) unreadable(id string, err error) {
	fmt.Fprintf(a.err, "glassbox: container %s can't be listed: %s\n", short(id, false), printable(err.Error()))
}

func (a *app) psCommand() *cobra.Command {
	var o engine.ListOptions
	var quiet, latest, full bool
	var format string
	cmd := &cobra.Command{
		Use:   "ps [OPTIONS]",
		Short: "List containers",
		Example: `  glassbox ps -a
  glassbox ps -aq --filter status=exited
  glassbox ps --format 'table {{.Names}}\t{{.Status}}'
  glassbox ps --format json`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if latest {
				o.Last = 1
			}
			if o.Last < 0 {
				o.Last = 0
			}
			o.All = o.All || o.Last > 0
			o.Size = o.Size || strings.Contains(format, ".Size") // as with docker
			e, err := a.open()
			if err != nil {
				return err
			}
			o.Unreadable = a.unreadable
			list, err := e.List(cmd.Context(), o)
			if err != nil {
				return err
			}
			if quiet {
				for _, s := range list {
					fmt.Fprintln(a.out, short(s.ID, full))
				}
				return nil
			}
			columns := psColumns
			if o.Size {
				columns += "\t{{.Size}}"
			}
			now := time.Now()
			rows := make([]psRow, len(list))
			for i, s := range list {
				rows[i] = newPsRow(s, now, full)
			}
			return printRows(a.out, format, columns, psHeader(), rows)
		},
	}
	fs := cmd.Flags()
	fs.BoolVarP(&o.All, "all", "a", false, "Also those that don't run")
	fs.BoolVarP(&quiet, "quiet", "q", false, "Print IDs only")
	fs.IntVarP(&o.Last, "last", "n", -1, "The last `n` made, in any state")
	fs.BoolVarP(&latest, "latest", "l", false, "The last one made, in any state")
	fs.BoolVarP(&o.Size, "size", "s", false, "What a container has written, and what it has with its image")
	fs.BoolVar(&full, "no-trunc", false, "Don't shorten IDs and commands")
	fs.VarP(filterList{list{&o.Filters}}, "filter", "f", "Only those with status=, name=, id=, label=, ancestor=, exited=, health=, "+
		"network=, volume=, publish=, expose=, is-task=, before=, since=")
	fs.StringVar(&format, "format", "", "table, table TEMPLATE, json or a Go template")
	return cmd
}
